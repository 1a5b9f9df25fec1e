"""DICOM images and series of them (PS3.3, PS3.5).

Results are derived images with UIDs of their own.
"""

import uuid
from collections.abc import Iterable, Sequence
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

COLOUR_SPACES = ("MONOCHROME1", "MONOCHROME2", "RGB")
RUN = uuid.uuid4().hex  # files of one series get one new series UID, another in every run
UNPACK_ADVICE = "`gdcmconv --raw` or `dcmdjpeg` unpack it"
# The code of the purpose of a reference to the source (CID 7202).
PURPOSE = {
    "CodeValue": "121322",
    "CodingSchemeDesignator": "DCM",
    "CodeMeaning": "Source image for image processing operation",
}
LOSSY_SYNTAXES = (
    "JPEG Baseline",
    "JPEG Extended",
    "JPEG-LS Lossy",
    "JPEG 2000 Image Compression",
    "MPEG",
    "HEVC",
)
SHARED_GROUPS = "SharedFunctionalGroupsSequence"
FRAME_GROUPS = "PerFrameFunctionalGroupsSequence"

Unit = tuple[float, float]  # slope and intercept


@dataclass(frozen=True)
class Slice:
    """A file, as its header describes it.

    Attributes:
        path: the file.
        key: what files of one volume have in common.
        shape: (frames, rows, columns), and 3 for colours.
        dtype: of the stored values.
        order: numbers that order the files of a series.
        position: along the normal of its plane in mm; None if it is not known.
        spacing: of rows and of columns in mm.
        units: (slope, intercept) of each frame.
        places: the position of each frame; empty if they are not known.
        padding: the stored value outside of the picture.
    """

    path: Path
    key: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    order: tuple[float, ...]
    position: float | None
    spacing: tuple[float, float] | None
    units: tuple[Unit, ...]
    places: tuple[float, ...]
    padding: float | None


@dataclass(frozen=True)
class Volume:
    """Files that make one array, in the order of its planes.

    Attributes:
        slices: the files.
        frames: the order of the frames of a single file with several; empty otherwise.
        letters: of the axes.
        shape: of the array.
        depth: the spacing of planes in mm; None if it is not known.
    """

    slices: tuple[Slice, ...]
    frames: tuple[int, ...]
    letters: str
    shape: tuple[int, ...]
    depth: float | None

    @property
    def first(self) -> Slice:
        """The first file."""
        return self.slices[0]

    @property
    def units(self) -> list[Unit]:
        """Units of the planes.

        Returns:
            (slope, intercept) of each plane, in the order of the array.
        """
        if self.frames:
            return [self.first.units[frame] for frame in self.frames]
        return [file.units[0] for file in self.slices]

    def planes(self, array: np.ndarray) -> np.ndarray:
        """Reshape the array to planes.

        Returns:
            A view with one axis of planes, then rows, columns and colours.
        """
        return array.reshape(-1, *self.first.shape[1:])


class Dicom(Picture):
    """A file, or a folder with the files of one or more series, each an array.

    A series is a volume.

    Stored values are read, with RescaleSlope and RescaleIntercept as their unit; if planes differ
    in these, values are in their unit, as float32. Results have new instance and series UIDs,
    ImageType DERIVED, a description and a reference to their source; everything else stays.
    Compressed files are written without compression.
    """

    kind = "DICOM"
    volumes = True

    def _read(self) -> None:
        files = slices_of(self.path) if self.path.is_dir() else [self.path]
        groups: dict[tuple[Any, ...], list[Slice]] = {}
        for file in files:
            header = _read_slice(file)
            groups.setdefault(header.key, []).append(header)
        self.series = [_volume(group) for group in groups.values()]
        self.values = [_volume_values(volume) for volume in self.series]
        self.note = "as derived images with new UIDs"

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        for volume, result in zip(self.series, results, strict=True):
            planes = volume.planes(result)
            if volume.frames:
                frames = np.empty_like(planes)
                frames[list(volume.frames)] = planes
                self._save_slice(volume.first, frames, path)
                continue
            for number, file in enumerate(volume.slices):
                self._save_slice(file, planes[number : number + 1], path)

    def _save_slice(self, file: Slice, planes: np.ndarray, path: Path) -> None:
        """Write a file of the series; `path` is the folder if the source is one."""
        target = path / file.path.name if self.path.is_dir() else path
        _write_derived(file, _as_stored(file, planes), target)


def _volume_values(volume: Volume) -> Values:
    """Return the values of a volume, in the unit of its planes if they differ in it."""
    first = volume.first
    units = volume.units
    mixed = len(set(units)) > 1
    dtype = np.dtype(np.float32) if mixed else first.dtype
    stored = Packed(volume.shape, dtype, lambda: _read_volume(volume, dtype, mixed))
    values = Values(stored, volume.letters, colour="C" in volume.letters)
    if not mixed:
        values.unit = units[0]
        if first.padding is not None:
            values.nodata_values = (first.padding,)
    if "D" in volume.letters and volume.depth and first.spacing:
        values.spacing = (volume.depth, *first.spacing)
    return values


def _read_slice(path: Path) -> Slice:
    """Read the header of a file."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    _check_header(header, path)
    frames = int(header.get("NumberOfFrames") or 1)
    shape: tuple[int, ...] = (frames, int(header.Rows), int(header.Columns))
    samples = int(header.SamplesPerPixel)
    if samples > 1:
        shape = (*shape, samples)
    kind = "i" if header.PixelRepresentation else "u"
    dtype = np.dtype(f"{kind}{header.BitsAllocated // 8}")
    orientation = _orientation(header)
    places: list[float] = []
    direction: tuple[float, ...] = ()
    if orientation is not None:
        direction = tuple(np.round(orientation, 2).tolist())
        normal = np.cross(orientation[:3], orientation[3:])
        places = [float(np.dot(place, normal)) for place in _positions(header, frames)]
    numbers = ("TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber")
    padding = header.get("PixelPaddingValue")
    if padding is not None:
        padding = float(np.array(int(padding), np.int64).astype(dtype))
    alone = str(path) if frames > 1 else ""
    return Slice(
        path=path,
        key=(str(header.get("SeriesInstanceUID")), shape, dtype.str, direction, alone),
        shape=shape,
        dtype=dtype,
        order=tuple(float(header.get(name) or 0) for name in numbers),
        position=places[0] if len(places) == 1 else None,
        spacing=_pixel_spacing(header),
        units=_frame_units(header, frames),
        places=tuple(places) if len(places) == frames else (),
        padding=padding,
    )


def _check_header(header: Any, path: Path) -> None:
    """Raise InputError for files that cannot be read, or not written again."""
    name = path.name
    if "Rows" not in header or "PhotometricInterpretation" not in header:
        raise InputError(f"{name}: holds no image")
    colours = str(header.PhotometricInterpretation)
    if colours not in COLOUR_SPACES:
        raise InputError(
            f"{name}: its pixels are {colours}; MONOCHROME1, MONOCHROME2 and RGB are read"
        )
    bits = header.get("BitsAllocated")
    if int(bits or 0) not in (8, 16, 32) or header.get("Modality") == "SEG":
        raise InputError(f"{name}: holds a segmentation or values of {bits} bits, no grey values")
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_compressed and syntax.is_encapsulated and not _has_decoder(syntax):
        raise InputError(f"{name}: {syntax.name} cannot be unpacked here; {UNPACK_ADVICE}")


def _has_decoder(syntax: Any) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _orientation(header: Any) -> np.ndarray | None:
    """Return the directions of rows and columns, 6 numbers; None if they are not known."""
    orientation = header.get("ImageOrientationPatient")
    if orientation is None:
        for name in (SHARED_GROUPS, FRAME_GROUPS):
            groups = header.get(name)
            planes = groups and header[name].value[0].get("PlaneOrientationSequence")
            if planes:
                orientation = planes[0].get("ImageOrientationPatient")
    if orientation is None or len(orientation) != 6:
        return None
    return np.array([float(number) for number in orientation])


def _positions(header: Any, frames: int) -> list[list[float]]:
    """Return positions in mm: of the file, or of each of its frames."""
    position = header.get("ImagePositionPatient")
    if position is not None and frames == 1:
        return [[float(number) for number in position]]
    positions: list[list[float]] = []
    for group in header.get(FRAME_GROUPS) or []:
        planes = group.get("PlanePositionSequence")
        position = planes[0].get("ImagePositionPatient") if planes else None
        if position is not None:
            positions.append([float(number) for number in position])
    return positions


def _pixel_spacing(header: Any) -> tuple[float, float] | None:
    """Return the distance of rows, and of columns, in mm."""
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    shared = header.get(SHARED_GROUPS)
    if spacing is None and shared:
        measures = shared[0].get("PixelMeasuresSequence")
        if measures:
            spacing = measures[0].get("PixelSpacing")
    if not spacing or min(map(float, spacing)) <= 0:
        return None
    return float(spacing[0]), float(spacing[1])


def _frame_units(header: Any, frames: int) -> tuple[Unit, ...]:
    """Return (slope, intercept) of each frame."""
    common = _unit_of(header)
    shared = header.get(SHARED_GROUPS)
    if common is None and shared:
        common = _unit_of(shared[0])
    units = [common or (1.0, 0.0)] * frames
    groups = header.get(FRAME_GROUPS) or []
    for frame in range(min(frames, len(groups))):
        units[frame] = _unit_of(groups[frame]) or units[frame]
    return tuple(units)


def _unit_of(dataset: Any) -> Unit | None:
    """Return (slope, intercept) that a header or a functional group states, or None."""
    changes = dataset.get("PixelValueTransformationSequence")
    source = changes[0] if changes else dataset
    if source is None or "RescaleSlope" not in source:
        return None
    slope = float(source.RescaleSlope or 1)
    intercept = float(source.get("RescaleIntercept") or 0)
    return slope, intercept


def _volume(group: Sequence[Slice]) -> Volume:
    """Order the files of one series to an array.

    Raises:
        InputError: their positions make no whole volumes.
    """
    first = group[0]
    if len(group) == 1:
        return _volume_of_frames(first)
    letters = _plane_letters(first)
    plane = first.shape[1:]
    if any(file.position is None for file in group):
        ordered = sorted(group, key=lambda file: file.order)
        return Volume(tuple(ordered), (), f"D{letters}", (len(group), *plane), None)
    columns: dict[float, list[Slice]] = {}  # the files of each position, in time
    for file in sorted(group, key=lambda file: (file.position, file.order)):
        columns.setdefault(round(file.position or 0.0, 3), []).append(file)
    times = len(next(iter(columns.values())))
    if any(len(column) != times for column in columns.values()):
        raise InputError(
            f"its {len(group)} files lie at {len(columns)} positions, which makes no whole volumes;"
            " dcm2niix sorts them into NIfTI"
        )
    files = tuple(column[time] for time in range(times) for column in columns.values())
    depth = _plane_distance(columns)
    if times == 1:
        return Volume(files, (), f"D{letters}", (len(group), *plane), depth)
    if len(columns) == 1:
        return Volume(files, (), f"T{letters}", (times, *plane), None)
    return Volume(files, (), f"TD{letters}", (times, len(columns), *plane), depth)


def _plane_letters(file: Slice) -> str:
    return "HWC" if len(file.shape) == 4 else "HW"


def _volume_of_frames(file: Slice) -> Volume:
    """Return the array of a single file: a plane, or frames in depth or time."""
    letters = _plane_letters(file)
    count = file.shape[0]
    if count == 1:
        return Volume((file,), (), letters, file.shape[1:], None)
    if len({round(place, 3) for place in file.places}) != count:
        return Volume((file,), tuple(range(count)), f"T{letters}", file.shape, None)
    order = tuple(int(frame) for frame in np.argsort(file.places))
    depth = _plane_distance(sorted(file.places))
    return Volume((file,), order, f"D{letters}", file.shape, depth)


def _plane_distance(places: Iterable[float]) -> float | None:
    """Return the typical distance of sorted positions; None for a single one."""
    distances = np.abs(np.diff(list(places)))
    return float(np.median(distances)) if len(distances) else None


def _read_volume(volume: Volume, dtype: np.dtype, mixed: bool) -> np.ndarray:
    """Read the values of a volume, in the unit of each plane if they are mixed."""
    result: np.ndarray = room(volume.shape, dtype)
    planes = volume.planes(result)
    if volume.frames:
        planes[...] = _read_pixels(volume.first.path)[list(volume.frames)]
    else:
        for number, file in enumerate(volume.slices):
            planes[number] = _read_pixels(file.path)
    if mixed:
        padding = volume.first.padding
        for plane, (slope, intercept) in zip(planes, volume.units, strict=True):
            missing = np.zeros(plane.shape, bool)
            if padding is not None:
                missing = plane == padding
            plane[...] = plane * slope + intercept
            plane[missing] = np.nan
    return result


def _read_pixels(path: Path) -> np.ndarray:
    """Read the stored values of a file."""
    dataset = pydicom.dcmread(path)
    try:
        array: np.ndarray = dataset.pixel_array
    except RuntimeError as error:  # of all decoders that there are
        name = dataset.file_meta.TransferSyntaxUID.name
        raise InputError(f"{path.name}: {name} cannot be unpacked here; {UNPACK_ADVICE}") from error
    return array


def _as_stored(file: Slice, planes: np.ndarray) -> np.ndarray:
    """Convert the frames of a file, in its own order, to the values that it stores."""
    if planes.dtype == file.dtype:
        return planes
    stored = np.empty(planes.shape, file.dtype)
    limits = np.iinfo(file.dtype)
    for number, (slope, intercept) in enumerate(file.units):
        offset = planes[number].astype(np.float64) - intercept
        values = np.rint(offset / slope)
        values = np.where(np.isnan(values), file.padding or 0, values)
        stored[number] = values.clip(limits.min, limits.max).astype(file.dtype)
    return stored


def _write_derived(file: Slice, pixels: np.ndarray, path: Path) -> None:
    """Write a file with other pixels, as a derived image (PS3.3, C.7.6.1.1.2 and C.12.4)."""
    dataset = pydicom.dcmread(file.path)
    lowest, highest = _stored_range(dataset)
    pixels = pixels.clip(lowest, highest)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        if syntax.name.startswith(LOSSY_SYNTAXES):
            dataset.LossyImageCompression = "01"
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    order: Any = ">" if syntax == ExplicitVRBigEndian else "<"
    raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    element = dataset["PixelData"]
    element.VR = "OW" if dataset.BitsAllocated > 8 or syntax.is_implicit_VR else "OB"
    element.is_undefined_length = False
    if int(dataset.SamplesPerPixel) > 1:
        dataset.PlanarConfiguration = 0
    if "SmallestImagePixelValue" in dataset:
        dataset["SmallestImagePixelValue"].value = int(pixels.min())
    if "LargestImagePixelValue" in dataset:
        dataset["LargestImagePixelValue"].value = int(pixels.max())
    _mark_derived(dataset)
    dataset.save_as(path, enforce_file_format=True)


def _stored_range(dataset: Any) -> tuple[int, int]:
    """Return the lowest and highest value that the stored bits hold."""
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    if dataset.PixelRepresentation:
        limit = 2 ** (bits - 1)
        return -limit, limit - 1
    return 0, 2**bits - 1


def _mark_derived(dataset: Any) -> None:
    """State that the image is derived, and from what, and give it new UIDs."""
    from n2n_lightning import __version__

    purpose = pydicom.Dataset()
    for name, value in PURPOSE.items():
        setattr(purpose, name, value)
    source = pydicom.Dataset()
    source.ReferencedSOPClassUID = dataset.SOPClassUID
    source.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    source.PurposeOfReferenceCodeSequence = [purpose]
    dataset.SourceImageSequence = [source]
    dataset.DerivationDescription = f"Denoised by n2n_lightning {__version__}"
    image_type = [str(value) for value in dataset.get("ImageType") or ["ORIGINAL", "PRIMARY"]]
    dataset.ImageType = ["DERIVED", *image_type[1:]]
    dataset.SOPInstanceUID = generate_uid()
    if "SeriesInstanceUID" in dataset:
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[str(dataset.SeriesInstanceUID), RUN])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for name in ("DigitalSignaturesSequence", "MACParametersSequence"):
        if name in dataset:  # they vouch for other pixels
            del dataset[name]
