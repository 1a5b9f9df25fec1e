"""DICOM images and series of them (PS3.3, PS3.5).

Results are derived images with UIDs of their own.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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

# Numbers of a file that order a series, the most important first.
ORDER_NUMBERS = ("TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber")

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
        letters: of the axes.
        shape: of the array.
        frames: the order of the frames of a single file with several; empty otherwise.
        depth: the spacing of planes in mm; None if it is not known.
    """

    slices: tuple[Slice, ...]
    letters: str
    shape: tuple[int, ...]
    frames: tuple[int, ...] = ()
    depth: float | None = None

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
        plane = self.first.shape[1:]
        return array.reshape(-1, *plane)


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
            for file, plane in zip(volume.slices, planes, strict=True):
                self._save_slice(file, plane[np.newaxis], path)

    def _save_slice(self, file: Slice, frames: np.ndarray, path: Path) -> None:
        """Write a file of the series; `path` is the folder if the source is one."""
        if self.path.is_dir():
            path = path / file.path.name
        stored = _as_stored(file, frames)
        _write_derived(file, stored, path)


def _volume_values(volume: Volume) -> Values:
    """Return the values of a volume, in the unit of its planes if they differ in it."""
    first = volume.first
    units = volume.units
    mixed = len(set(units)) > 1
    dtype = np.dtype(np.float32) if mixed else first.dtype
    stored = Packed(volume.shape, dtype, partial(_read_volume, volume, dtype, mixed))
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
    rows = int(header.Rows)
    columns = int(header.Columns)
    samples = int(header.SamplesPerPixel)
    shape: tuple[int, ...] = (frames, rows, columns)
    if samples > 1:
        shape = (*shape, samples)
    kind = "i" if header.PixelRepresentation else "u"
    itemsize = header.BitsAllocated // 8
    dtype = np.dtype(f"{kind}{itemsize}")
    orientation = _orientation(header)
    places: list[float] = []
    direction: tuple[float, ...] = ()
    if orientation is not None:
        direction = tuple(np.round(orientation, 2).tolist())
        along_rows, along_columns = orientation.reshape(2, 3)
        normal = np.cross(along_rows, along_columns)
        for position in _positions(header, frames):
            place = np.dot(position, normal)
            places.append(float(place))
    padding = header.get("PixelPaddingValue")
    if padding is not None:
        stored = np.int64(padding).astype(dtype)
        padding = float(stored)
    series = str(header.get("SeriesInstanceUID"))
    alone = str(path) if frames > 1 else ""
    return Slice(
        path=path,
        key=(series, shape, dtype.str, direction, alone),
        shape=shape,
        dtype=dtype,
        order=tuple(float(header.get(name) or 0) for name in ORDER_NUMBERS),
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
    is_segmentation = header.get("Modality") == "SEG"
    if is_segmentation or bits not in (8, 16, 32):
        raise InputError(f"{name}: holds a segmentation or values of {bits} bits, no grey values")
    syntax = header.file_meta.TransferSyntaxUID
    packed = syntax.is_compressed and syntax.is_encapsulated
    if packed and not _has_decoder(syntax):
        raise InputError(f"{name}: {syntax.name} cannot be unpacked here; {UNPACK_ADVICE}")


def _has_decoder(syntax: Any) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _first_item(dataset: Any, name: str) -> Any:
    """Return the first item of a sequence in a dataset; an empty dataset if there is none."""
    items = dataset.get(name)
    return items[0] if items else pydicom.Dataset()


def _orientation(header: Any) -> np.ndarray | None:
    """Return the directions of rows and columns, 6 numbers; None if they are not known."""
    orientation = header.get("ImageOrientationPatient")
    if orientation is None:
        for name in (SHARED_GROUPS, FRAME_GROUPS):
            group = _first_item(header, name)
            plane = _first_item(group, "PlaneOrientationSequence")
            orientation = plane.get("ImageOrientationPatient", orientation)
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
        plane = _first_item(group, "PlanePositionSequence")
        position = plane.get("ImagePositionPatient")
        if position is not None:
            positions.append([float(number) for number in position])
    return positions


def _pixel_spacing(header: Any) -> tuple[float, float] | None:
    """Return the distance of rows, and of columns, in mm."""
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    if spacing is None:
        shared = _first_item(header, SHARED_GROUPS)
        measures = _first_item(shared, "PixelMeasuresSequence")
        spacing = measures.get("PixelSpacing")
    if not spacing:
        return None
    distances = [float(distance) for distance in spacing]
    if min(distances) <= 0:
        return None
    return distances[0], distances[1]


def _frame_units(header: Any, frames: int) -> tuple[Unit, ...]:
    """Return (slope, intercept) of each frame."""
    shared = _first_item(header, SHARED_GROUPS)
    common = _unit_of(header) or _unit_of(shared) or (1.0, 0.0)
    units = [common] * frames
    groups = header.get(FRAME_GROUPS) or []
    for frame, group in zip(range(frames), groups, strict=False):
        units[frame] = _unit_of(group) or common
    return tuple(units)


def _unit_of(dataset: Any) -> Unit | None:
    """Return (slope, intercept) that a header or a functional group states, or None."""
    changes = dataset.get("PixelValueTransformationSequence")
    source = changes[0] if changes else dataset
    if "RescaleSlope" not in source:
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
    in_time = sorted(group, key=lambda file: file.order)
    positions = [file.position for file in group]
    if None in positions:
        return Volume(tuple(in_time), f"D{letters}", (len(group), *plane))
    columns: dict[float, list[Slice]] = {}  # the files of each position, in time
    for file in sorted(in_time, key=lambda file: file.position or 0.0):
        position = round(file.position or 0.0, 3)
        columns.setdefault(position, []).append(file)
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise InputError(
            f"its {len(group)} files lie at {len(columns)} positions, which makes no whole volumes;"
            " dcm2niix sorts them into NIfTI"
        )
    files: list[Slice] = []
    for planes_of_time in zip(*columns.values(), strict=True):
        files += planes_of_time
    slices = tuple(files)
    depth = _plane_distance(list(columns))
    (times,) = lengths
    if times == 1:
        return Volume(slices, f"D{letters}", (len(columns), *plane), depth=depth)
    if len(columns) == 1:
        return Volume(slices, f"T{letters}", (times, *plane))
    return Volume(slices, f"TD{letters}", (times, len(columns), *plane), depth=depth)


def _plane_letters(file: Slice) -> str:
    return "HWC" if len(file.shape) == 4 else "HW"


def _volume_of_frames(file: Slice) -> Volume:
    """Return the array of a single file: a plane, or frames in depth or time."""
    letters = _plane_letters(file)
    count, *plane = file.shape
    if count == 1:
        return Volume((file,), letters, tuple(plane))
    positions = {round(place, 3) for place in file.places}
    if len(positions) != count:
        in_time = tuple(range(count))
        return Volume((file,), f"T{letters}", file.shape, in_time)
    by_position = np.argsort(file.places)
    depth = _plane_distance(sorted(file.places))
    return Volume((file,), f"D{letters}", file.shape, tuple(by_position.tolist()), depth)


def _plane_distance(places: Sequence[float]) -> float | None:
    """Return the typical distance of sorted positions; None for a single one."""
    if len(places) < 2:
        return None
    distances = np.abs(np.diff(places))
    return float(np.median(distances))


def _read_volume(volume: Volume, dtype: np.dtype, mixed: bool) -> np.ndarray:
    """Read the values of a volume, in the unit of each plane if they are mixed."""
    result: np.ndarray = room(volume.shape, dtype)
    planes = volume.planes(result)
    if volume.frames:
        frames = _read_pixels(volume.first.path)
        planes[...] = frames[list(volume.frames)]
    else:
        for number, file in enumerate(volume.slices):
            planes[number] = _read_pixels(file.path)
    if mixed:
        _scale_planes(planes, volume)
    return result


def _scale_planes(planes: np.ndarray, volume: Volume) -> None:
    """Change the planes of a volume from stored values to their units; padding becomes NaN."""
    padding = volume.first.padding
    for plane, (slope, intercept) in zip(planes, volume.units, strict=True):
        missing = np.zeros(plane.shape, bool)
        if padding is not None:
            missing = plane == padding
        plane[...] = plane * slope + intercept
        plane[missing] = np.nan


def _read_pixels(path: Path) -> np.ndarray:
    """Read the stored values of a file."""
    dataset = pydicom.dcmread(path)
    try:
        array: np.ndarray = dataset.pixel_array
    except RuntimeError as error:  # of all decoders that there are
        name = dataset.file_meta.TransferSyntaxUID.name
        reason = f"{name} cannot be unpacked here; {UNPACK_ADVICE}"
        raise InputError(f"{path.name}: {reason}") from error
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
        values[np.isnan(values)] = file.padding or 0
        clipped = values.clip(limits.min, limits.max)
        stored[number] = clipped.astype(file.dtype)
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
    dtype = pixels.dtype.newbyteorder(order)
    raw = pixels.astype(dtype).tobytes()
    to_even_length = bytes(len(raw) % 2)
    dataset.PixelData = raw + to_even_length
    element = dataset["PixelData"]
    words = dataset.BitsAllocated > 8 or syntax.is_implicit_VR
    element.VR = "OW" if words else "OB"
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
    _, *image_type = dataset.get("ImageType") or ["ORIGINAL", "PRIMARY"]
    dataset.ImageType = ["DERIVED", *map(str, image_type)]
    dataset.SOPInstanceUID = generate_uid()
    if "SeriesInstanceUID" in dataset:
        source_uid = str(dataset.SeriesInstanceUID)
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[source_uid, RUN])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for name in ("DigitalSignaturesSequence", "MACParametersSequence"):
        if name in dataset:  # they vouch for other pixels
            del dataset[name]
