"""DICOM images and series of them (PS3.3, PS3.5); what is written is a derived image with UIDs of its own."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

from n2n_lightning.files import InputError, room
from n2n_lightning.formats.dicom_files import slices_of
from n2n_lightning.formats.picture import Packed, Picture, Values

GREY = ("MONOCHROME1", "MONOCHROME2")
RUN = uuid.uuid4().hex  # files of one series get one new series UID, another in every run
UNPACK = "`gdcmconv --raw` or `dcmdjpeg` unpack it"
PURPOSE = ("121322", "DCM", "Source image for image processing operation")  # CID 7202
LOSSY = (
    "JPEG Baseline",
    "JPEG Extended",
    "JPEG-LS Lossy",
    "JPEG 2000 Image Compression",
    "MPEG",
    "HEVC",
)


@dataclass(frozen=True)
class Slice:
    """What the header of one file says.

    Attributes:
        path: the file.
        key: what files of one volume have in common.
        shape: (frames, rows, columns), and 3 for colours.
        dtype: of the stored values.
        order: numbers that say its place in the series.
        position: along the normal of its plane in mm; None where it is not known.
        spacing: of rows and of columns in mm.
        units: (slope, intercept) of each frame.
        places: the position of each frame; empty where they are not known.
        padding: the stored value outside of the picture.
    """

    path: Path
    key: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    order: tuple[float, ...]
    position: float | None
    spacing: tuple[float, float] | None
    units: tuple[tuple[float, float], ...]
    places: tuple[float, ...]
    padding: float | None


@dataclass(frozen=True)
class Volume:
    """Files that make one array, in the order of its planes.

    Attributes:
        slices: the files.
        frames: of a file with several frames their order; empty otherwise.
        letters: what the axes are.
        shape: of the array.
        depth: the distance of planes in mm; None where it is not known.
    """

    slices: tuple[Slice, ...]
    frames: tuple[int, ...]
    letters: str
    shape: tuple[int, ...]
    depth: float | None

    @property
    def units(self) -> list[tuple[float, float]]:
        """(slope, intercept) of each plane, in the order of the array."""
        (first, *_) = self.slices
        return (
            [first.units[f] for f in self.frames]
            if self.frames
            else [s.units[0] for s in self.slices]
        )

    def planes(self, array: np.ndarray) -> np.ndarray:
        """A view of the array with one axis of planes, then rows and columns, and colours."""
        return array.reshape(-1, *self.slices[0].shape[1:])


class Dicom(Picture):
    """A file, or a folder with the files of one series or more, each an array; a series is a volume.

    Stored values are read, with RescaleSlope and RescaleIntercept as their unit; where planes
    differ in these, values are in their unit, as float32. Results have new instance and series
    UIDs, ImageType DERIVED, a description and a reference to their source; all else is kept. What
    was compressed is written without compression.
    """

    kind, volumes = "DICOM", True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        files = slices_of(path) if path.is_dir() else [path]
        groups: dict[tuple[Any, ...], list[Slice]] = {}
        for file in files:
            here = _slice(file)
            groups.setdefault(here.key, []).append(here)
        self.series = [_volume(group) for group in groups.values()]
        self.values = [self._values(volume) for volume in self.series]
        self.note = "as derived images with new UIDs"

    def _values(self, volume: Volume) -> Values:
        first, units = volume.slices[0], volume.units
        mixed = len(set(units)) > 1
        dtype = np.dtype(np.float32) if mixed else first.dtype
        nodata_values = () if mixed or first.padding is None else (first.padding,)
        spacing = None
        if "D" in volume.letters and volume.depth and first.spacing:
            spacing = (volume.depth, *first.spacing)
        stored = Packed(volume.shape, dtype, lambda: _read(volume, dtype, mixed))
        unit = (1.0, 0.0) if mixed else units[0]
        return Values(
            stored,
            volume.letters,
            colour="C" in volume.letters,
            nodata_values=nodata_values,
            spacing=spacing,
            unit=unit,
        )

    def _begin(self, path: Path) -> list[np.ndarray]:
        return [room(v.shape, v.dtype) for v in self.values]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        for volume, result in zip(self.series, results, strict=True):
            planes = volume.planes(result)
            if volume.frames:
                stored = np.empty_like(planes)
                stored[list(volume.frames)] = planes
                units = volume.slices[0].units
                _write(
                    volume.slices[0],
                    _stored(volume.slices[0], stored, units),
                    path / self._name(volume.slices[0]),
                )
                continue
            for number, here in enumerate(volume.slices):
                pixels = _stored(here, planes[number : number + 1], here.units)
                _write(here, pixels, path / self._name(here))

    def _name(self, here: Slice) -> str:
        return here.path.name if self.path.is_dir() else ""


def _slice(path: Path) -> Slice:
    """The header of a file."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    _check(header, path)
    frames = int(header.get("NumberOfFrames") or 1)
    samples = int(header.SamplesPerPixel)
    shape = (frames, int(header.Rows), int(header.Columns), *([samples] if samples > 1 else []))
    signed = bool(header.PixelRepresentation)
    dtype = np.dtype(f"{'i' if signed else 'u'}{header.BitsAllocated // 8}")
    normal, direction = _normal(header)
    places = (
        tuple(float(np.dot(place, normal)) for place in _places(header, frames))
        if normal is not None
        else ()
    )
    numbers = ("AcquisitionNumber", "InstanceNumber")
    order = tuple(float(header.get(name) or 0) for name in ("TemporalPositionIdentifier", *numbers))
    padding = header.get("PixelPaddingValue")
    if padding is not None:
        padding = float(np.array(int(padding), np.int64).astype(dtype))
    series = str(header.get("SeriesInstanceUID"))
    alone = str(path) if frames > 1 else ""
    return Slice(
        path,
        (series, shape, dtype.str, direction, alone),
        shape,
        dtype,
        order,
        places[0] if len(places) == 1 else None,
        _spacing(header),
        _units(header, frames),
        places if len(places) == frames else (),
        padding,
    )


def _check(header: Any, path: Path) -> None:
    """Raises InputError for what cannot be read, or cannot be written again."""
    name = f"{path.name}: "
    if "Rows" not in header or "PhotometricInterpretation" not in header:
        raise InputError(f"{name}holds no image")
    kind = str(header.PhotometricInterpretation)
    if kind not in (*GREY, "RGB"):
        raise InputError(f"{name}its pixels are {kind}; MONOCHROME1, MONOCHROME2 and RGB are read")
    if int(header.get("BitsAllocated") or 0) not in (8, 16, 32) or header.get("Modality") == "SEG":
        raise InputError(
            f"{name}holds a segmentation or values of {header.get('BitsAllocated')} bits, no grey values"
        )
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_compressed and syntax.is_encapsulated:
        try:
            able = get_decoder(syntax).is_available
        except NotImplementedError:
            able = False
        if not able:
            raise InputError(f"{name}{syntax.name} cannot be unpacked here; {UNPACK}")


def _normal(header: Any) -> tuple[np.ndarray | None, tuple[float, ...]]:
    """The normal of the image plane, and its direction in round numbers, to compare."""
    orientation = header.get("ImageOrientationPatient")
    if orientation is None:
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            planes = header.get(groups) and header[groups].value[0].get("PlaneOrientationSequence")
            orientation = planes[0].get("ImageOrientationPatient") if planes else orientation
    if orientation is None or len(orientation) != 6:
        return None, ()
    numbers = np.array([float(n) for n in orientation])
    return np.cross(numbers[:3], numbers[3:]), tuple(np.round(numbers, 2).tolist())


def _places(header: Any, frames: int) -> list[list[float]]:
    """Positions in mm: of the file, or of each of its frames."""
    if (position := header.get("ImagePositionPatient")) is not None and frames == 1:
        return [[float(n) for n in position]]
    found = []
    for group in header.get("PerFrameFunctionalGroupsSequence") or []:
        planes = group.get("PlanePositionSequence")
        position = planes[0].get("ImagePositionPatient") if planes else None
        if position is not None:
            found.append([float(n) for n in position])
    return found


def _spacing(header: Any) -> tuple[float, float] | None:
    """The distance of rows, and of columns, in mm."""
    found = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    shared = header.get("SharedFunctionalGroupsSequence")
    if found is None and shared and (measures := shared[0].get("PixelMeasuresSequence")):
        found = measures[0].get("PixelSpacing")
    return (float(found[0]), float(found[1])) if found and min(map(float, found)) > 0 else None


def _units(header: Any, frames: int) -> tuple[tuple[float, float], ...]:
    """(slope, intercept) of each frame."""

    def of(dataset: Any) -> tuple[float, float] | None:
        changes = dataset.get("PixelValueTransformationSequence") if dataset is not None else None
        source = changes[0] if changes else dataset
        if source is None or "RescaleSlope" not in source:
            return None
        return float(source.RescaleSlope or 1), float(source.get("RescaleIntercept") or 0)

    shared = header.get("SharedFunctionalGroupsSequence")
    common = of(header) or of(shared[0] if shared else None) or (1.0, 0.0)
    each = header.get("PerFrameFunctionalGroupsSequence") or []
    return tuple((of(each[f]) if f < len(each) else None) or common for f in range(frames))


def _volume(group: Sequence[Slice]) -> Volume:
    """The array that files of one series make.

    Raises:
        InputError: their positions make no whole volumes.
    """
    first = group[0]
    colour = "C" if len(first.shape) == 4 else ""
    letters, plane = f"HW{colour}", first.shape[1:]
    if len(group) == 1:
        count = first.shape[0]
        if count == 1:
            return Volume((first,), (), letters, plane, None)
        deep = len({round(p, 3) for p in first.places}) == count
        frames = tuple(int(f) for f in np.argsort(first.places)) if deep else tuple(range(count))
        depth = _step(sorted(first.places)) if deep else None
        return Volume((first,), frames, f"{'D' if deep else 'T'}{letters}", first.shape, depth)
    if any(here.position is None for here in group):
        ordered = sorted(group, key=lambda here: here.order)
        return Volume(tuple(ordered), (), f"D{letters}", (len(group), *plane), None)
    by_place: dict[float, list[Slice]] = {}
    for here in sorted(group, key=lambda here: (here.position, here.order)):
        by_place.setdefault(round(here.position or 0.0, 3), []).append(here)
    counts = {len(found) for found in by_place.values()}
    if len(counts) > 1:
        what = (
            f"its {len(group)} files lie at {len(by_place)} positions, which makes no whole volumes"
        )
        raise InputError(f"{what}; dcm2niix sorts them into NIfTI")
    times, depth = counts.pop(), _step(list(by_place))
    ordered = [found[t] for t in range(times) for found in by_place.values()]
    if times == 1:
        return Volume(tuple(ordered), (), f"D{letters}", (len(group), *plane), depth)
    if len(by_place) == 1:
        return Volume(tuple(ordered), (), f"T{letters}", (times, *plane), None)
    return Volume(tuple(ordered), (), f"TD{letters}", (times, len(by_place), *plane), depth)


def _step(places: list[float]) -> float | None:
    steps = np.abs(np.diff(places))
    return float(np.median(steps)) if len(steps) else None


def _read(volume: Volume, dtype: np.dtype, mixed: bool) -> np.ndarray:
    """The values of a volume."""
    result: np.ndarray = room(volume.shape, dtype)
    planes = volume.planes(result)
    if volume.frames:
        found = _pixels(volume.slices[0].path)
        planes[...] = found[list(volume.frames)]
    else:
        for number, here in enumerate(volume.slices):
            planes[number] = _pixels(here.path)
    if mixed:
        padding = volume.slices[0].padding
        for plane, (slope, intercept) in zip(planes, volume.units, strict=True):
            gone = plane == padding if padding is not None else None
            plane[...] = plane * slope + intercept
            if gone is not None:
                plane[gone] = np.nan
    return result


def _pixels(path: Path) -> np.ndarray:
    """The stored values of a file."""
    dataset = pydicom.dcmread(path)
    try:
        array: np.ndarray = dataset.pixel_array
    except RuntimeError as error:  # of all decoders that there are
        name = dataset.file_meta.TransferSyntaxUID.name
        raise InputError(f"{path.name}: {name} cannot be unpacked here; {UNPACK}") from error
    return array


def _stored(here: Slice, planes: np.ndarray, units: Sequence[tuple[float, float]]) -> np.ndarray:
    """Planes as the values that the file stores."""
    if planes.dtype == here.dtype:
        return planes
    result = np.empty(planes.shape, here.dtype)
    limits = np.iinfo(here.dtype)
    for number, (slope, intercept) in enumerate(units):
        values = np.rint((planes[number].astype(np.float64) - intercept) / slope)
        values = np.where(np.isnan(values), here.padding or 0, values)
        result[number] = values.clip(limits.min, limits.max).astype(here.dtype)
    return result


def _write(here: Slice, pixels: np.ndarray, path: Path) -> None:
    """Write the file of a slice with other pixels, as a derived image (PS3.3, C.7.6.1.1.2 and C.12.4)."""
    dataset = pydicom.dcmread(here.path)
    lowest, highest = _range(dataset)
    pixels = pixels.clip(lowest, highest)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        if any(syntax.name.startswith(lossy) for lossy in LOSSY):
            dataset.LossyImageCompression = "01"
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    big = syntax == ExplicitVRBigEndian
    raw = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    element = dataset["PixelData"]
    element.VR = "OW" if dataset.BitsAllocated > 8 or syntax.is_implicit_VR else "OB"
    element.is_undefined_length = False
    if int(dataset.SamplesPerPixel) > 1:
        dataset.PlanarConfiguration = 0
    for name, value in (
        ("SmallestImagePixelValue", pixels.min()),
        ("LargestImagePixelValue", pixels.max()),
    ):
        if name in dataset:
            dataset[name].value = int(value)
    _derive(dataset)
    dataset.save_as(path, enforce_file_format=True)


def _range(dataset: Any) -> tuple[int, int]:
    """The lowest and highest value that the stored bits hold."""
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    return (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if dataset.PixelRepresentation
        else (0, 2**bits - 1)
    )


def _derive(dataset: Any) -> None:
    """Say that the image is derived, from what, and give it UIDs of its own."""
    from n2n_lightning import __version__

    source = pydicom.Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = (
        dataset.SOPClassUID,
        dataset.SOPInstanceUID,
    )
    purpose = pydicom.Dataset()
    for name, value in zip(
        ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"), PURPOSE, strict=True
    ):
        setattr(purpose, name, value)
    source.PurposeOfReferenceCodeSequence = [purpose]
    dataset.SourceImageSequence = [source]
    dataset.DerivationDescription = f"Denoised by n2n_lightning {__version__}"
    before = [str(value) for value in dataset.get("ImageType") or ["ORIGINAL", "PRIMARY"]]
    dataset.ImageType = ["DERIVED", *before[1:]]
    dataset.SOPInstanceUID = generate_uid()
    if "SeriesInstanceUID" in dataset:
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[str(dataset.SeriesInstanceUID), RUN])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for group in ("DigitalSignaturesSequence", "MACParametersSequence"):
        if group in dataset:  # they vouch for other pixels
            del dataset[group]
