"""TIFF files, scientific and other."""

import contextlib
import io
import logging
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from n2n_lightning.arrays.axes import of_tiff
from n2n_lightning.files import InputError, mapped
from n2n_lightning.formats.picture import MOSAICS, Picture, Values

# Numbers of tags.
SUBFILE_TYPE = 254
DESCRIPTION = 270
ORIENTATION = 274
RESOLUTION = (282, 283)
RESOLUTION_UNIT = 296
EXTREMES = (280, 281, 340, 341)  # the smallest and largest value, of the type of the values
CFA_SIZE = 33421
CFA_COLOURS = 33422
EXIF_DIRECTORIES = (34665, 34853)
GDAL_NODATA = 42113
# Tags that say how pixels are stored, which the writer writes itself, and that point to other
# places of the old file.
_STRUCTURE = """
    254 256 257 258 259 262 266 273 277 278 279 282 283 284 288 289 296 317 320 322 323 324 325
    330 338 339 347 512 513 514 519 520 521 529 530 531 532 34665 34853 40965
"""
STRUCTURE = frozenset(int(code) for code in _STRUCTURE.split())
# Bits of SUBFILE_TYPE.
REDUCED = 1
MASK = 4
# Values of PhotometricInterpretation: those that can be written again, and names of others.
MASK_COLOURS = 4
YCBCR = 6
CFA = 32803  # raw frames of colour cameras
WRITABLE_COLOURS = (0, 1, 2, 34892, CFA)
COLOUR_NAMES = {3: "palette", YCBCR: "YCbCr", 5: "CMYK", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"}
LOSSY_COMPRESSIONS = (
    "JPEG",
    "OJPEG",
    "JPEG_LOSSY",
    "JPEGXL",
    "WEBP",
    "JPEG2000",
    "APERIO_JP2000_RGB",
    "APERIO_JP2000_YCBC",
)
WRITABLE_BITS = (*range(8, 17), 32, 64)
CLASSIC_LIMIT = 2**32 - 2**26  # bytes of pixels that an ordinary TIFF holds
TILE_MULTIPLE = 16  # that the writer takes


@dataclass(frozen=True)
class SeriesPlace:
    """The values of a series in a file.

    Attributes:
        dtype: in the file's byte order.
        offset: of the first value in bytes; None if they are not in one piece.
        shape: as tifffile has it.
    """

    dtype: np.dtype
    offset: int | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PageOrder:
    """The pages of a series.

    Attributes:
        indices: of the pages in the file.
        shape: of a page.
    """

    indices: list[int]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, series: Any) -> "PageOrder":
        """Return the pages of a series.

        Args:
            series: tifffile's.

        Returns:
            The pages that it lists.
        """
        pages = [page for page in series.pages if page is not None]
        return cls([page.index for page in pages], series.keyframe.shape)


class Tiff(Picture):
    """Scientific and other TIFF files.

    Where the values are stored as they are, the file is copied and only they are changed; where
    they are compressed, pages are written anew with the same compression and tags.
    """

    kind = "TIFF"
    floats = True

    def _read(self) -> None:
        self.foreign = _describes_other_files(self.path)
        with _open_tiff(self.path, self.foreign) as file:
            pages: list[Any] = [page.aspage() for page in file.pages]
            self.copied = _non_picture_pages(pages)
            series = _picture_series(file, pages, self.copied)
            self.mask = bool(pages) and all(page.bitspersample == 1 for page in pages)
            self.bigtiff = file.is_bigtiff
            self.byteorder = file.byteorder
            self.mapped = all(s.dataoffset is not None for s in series)
            self._check_pages(file, pages, series)
            pictures = [page for page in pages if page.index not in self.copied]
            for page in pictures:
                _check_page(page, page.compression.name in LOSSY_COMPRESSIONS, self.mask)
            self._check_size(sum(s.nbytes for s in series))
            notes = [_note_on_copied(self.copied)] if self.copied else []
            notes += _note_on_bits(pictures)
            if ORIENTATION in pictures[0].tags:
                self.orientation = int(pictures[0].tags[ORIENTATION].value)
            self.places: list[SeriesPlace] = []
            for s in series:
                place = SeriesPlace(s.dtype.newbyteorder(file.byteorder), s.dataoffset, s.shape)
                self.places.append(place)
                array = _mapped_copy(self.path, place) if self.mapped else s.asarray()
                self.values.append(_values(s, array))
            if not self.mapped and not self.mask:
                notes += self._plan_pages(pages, series)
            self.note = "; ".join(dict.fromkeys(notes))

    def _check_pages(self, file: Any, pages: list[Any], series: list[Any]) -> None:
        """Raise InputError if a description (OME's, for one) disagrees with the pages of the file.

        Pyramids are refused, too.
        """
        described = list(self.copied)
        for s in series:
            own = [page for page in s.pages if page is not None and page.parent is file]
            described += [page.index for page in own]
        complete = sorted(described) == list(range(len(pages)))
        unlisted = False
        if not self.mapped:
            unlisted = any(None in s.pages for s in series)
        if not complete or unlisted:
            raise InputError(
                "its description and its pages disagree, or parts are in other files; save it as"
                " one"
            )
        if not pages:
            raise InputError("holds no pages")
        pyramid = any(len(s.levels) > 1 for s in series)
        if pyramid or any(page.subifds for page in pages):
            raise InputError("has its image in several resolutions; export the full one alone")

    def _plan_pages(self, pages: list[Any], series: list[Any]) -> list[str]:
        """Set the order and the tags of the pages to write; return notes on what changes."""
        self.orders = [PageOrder.of(s) for s in series]
        self.tags = [_tags(page) for page in pages]
        notes: list[str] = []
        trials = Trials()
        for page, tags in zip(pages, self.tags, strict=True):
            notes += trials.note(page, tags)
        self.refused = trials.refused
        if any(code in page.tags for page in pages for code in EXIF_DIRECTORIES):
            notes.append("without its EXIF directories")
        return notes

    def _begin(self, path: Path) -> list[np.ndarray]:
        if self.mask:
            raise InputError("is a 1 bit TIFF; convert it to pages of 8 or 16 bit grey or RGB")
        if not self.mapped:
            if self.refused:  # before the work, not after it
                raise InputError(self.refused)
            return super()._begin(path)
        shutil.copyfile(self.path, path)
        results: list[np.ndarray] = []
        for place, values in zip(self.places, self.values, strict=True):
            array = np.memmap(path, place.dtype, "r+", place.offset or 0, place.shape)
            results.append(array.reshape(values.shape))
        return results

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        if self.mapped:
            for result in results:
                result.flush()  # type: ignore[attr-defined]
        else:
            self._write_pages(path, results)

    def _write_pages(self, path: Path, results: list[np.ndarray]) -> None:
        """Write a file with the old tags."""
        pages: dict[int, np.ndarray] = {}
        for result, order in zip(results, self.orders, strict=True):
            arrays = result.reshape(-1, *order.shape)
            pages.update(zip(order.indices, arrays, strict=True))
        if self.copied:
            with _strict(), tifffile.TiffFile(self.path) as old:
                for index in self.copied:
                    pages[index] = old.pages[index].asarray()
        options: Any = {"bigtiff": self.bigtiff, "byteorder": self.byteorder}
        # The old descriptions are written, whatever the name of the file suggests to the writer.
        options |= {"ome": False, "shaped": False}
        with _strict(), tifffile.TiffWriter(path, **options) as writer:
            for index, tags in enumerate(self.tags):
                writer.write(pages[index], metadata=None, software=False, contiguous=False, **tags)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        """Write pages of floats with the old tags; those that state integers are changed."""
        with _open_tiff(self.path, self.foreign) as file:
            pages: list[Any] = [page.aspage() for page in file.pages]
            series = _picture_series(file, pages, self.copied)
            # the pages of ImageJ's stacks may be in one piece, not listed
            if any(None in s.pages for s in series):
                raise InputError(
                    "its pages are not listed; save it as TIFF with a directory for each page"
                )
            self.orders = [PageOrder.of(s) for s in series]
            self.tags = [_tags(page) for page in pages]
        for result, order in zip(results, self.orders, strict=True):
            if result.dtype.kind == "f":
                for index in order.indices:
                    _suit_floats(self.tags[index])
        self.mapped = False
        size = sum(result.nbytes for result in results)
        self.bigtiff = self.bigtiff or size > CLASSIC_LIMIT
        self._write_pages(path, results)


class Trials:
    """Trial writes of a corner of zeros, which find pages that cannot be written as they were.

    Attributes:
        refused: why the file cannot be written again; empty if it can.
    """

    def __init__(self) -> None:
        self.refused = ""
        self._done: set[str] = set()

    def note(self, page: Any, tags: dict[str, Any]) -> list[str]:
        """Change the options of a page to those that can be written.

        Args:
            page: of the old file.
            tags: options of the writer; they are changed.

        Returns:
            A note on each change.
        """
        notes: list[str] = []
        tile = tags["tile"]
        if tile and any(side % TILE_MULTIPLE for side in tile):
            rounded = tuple(math.ceil(side / TILE_MULTIPLE) * TILE_MULTIPLE for side in tile)
            tags["tile"] = rounded
            before = " x ".join(map(str, tile))
            after = " x ".join(map(str, rounded))
            notes.append(f"its tiles of {before} became {after}")
        key = _trial_key(page, tags)
        if key in self._done:
            return notes
        reason = _why_unwritable(page, tags)
        if not reason:
            self._done.add(key)
            return notes
        tags["compression"] = "adobe_deflate"
        tags["predictor"] = None
        if not _why_unwritable(page, tags):
            notes.append(f"its {page.compression.name} compression became deflate")
        elif not self.refused:
            self.refused = f"its page {page.index} cannot be written again ({reason})"
        return notes


def _trial_key(page: Any, tags: dict[str, Any]) -> str:
    """Return what decides whether a page can be written: pages of one key are tried once."""
    codes = [tag[:2] for tag in tags["extratags"]]
    options = [tags[name] for name in sorted(tags) if name != "extratags"]
    return repr([page.dtype, page.axes, codes, *options])


def _why_unwritable(page: Any, tags: dict[str, Any]) -> str:
    """Return why a page with these options cannot be written; empty if it can."""
    sides: list[int] = []
    for letter, n in zip(page.axes, page.shape, strict=True):
        sides.append(min(n, 16) if letter in "YX" else n)
    corner = np.zeros(sides, page.dtype)
    try:
        with tifffile.TiffWriter(io.BytesIO()) as writer:
            writer.write(corner, metadata=None, software=False, contiguous=False, **tags)
    except Exception as error:  # every codec has exceptions of its own
        return " ".join(str(error).split())[:100] or type(error).__name__
    return ""


def _tags(page: Any) -> dict[str, Any]:
    """Return the options with which tifffile's writer writes a page as it was.

    Tags that are no options are copied byte by byte.
    """
    compression = page.compression
    predictor = page.predictor if page.predictor > 1 else None
    if compression.name in LOSSY_COMPRESSIONS:
        compression = "adobe_deflate"  # once was enough
        predictor = None
    photometric = page.photometric
    if photometric.name == "YCBCR":
        photometric = "rgb"
    options: dict[str, Any] = {
        "photometric": photometric,
        "planarconfig": page.planarconfig if page.samplesperpixel > 1 else None,
        "extrasamples": page.extrasamples or None,
        "compression": None if compression == 1 else compression,
        "predictor": predictor,
        "tile": None,
        "rowsperstrip": None,
        "subfiletype": page.subfiletype or None,
        "extratags": [],
    }
    if page.is_tiled:
        options["tile"] = (page.tilelength, page.tilewidth)
    else:
        options["rowsperstrip"] = page.rowsperstrip
    # a mask of 8 bits or more, which the writer refuses as such
    if page.subfiletype & MASK and page.bitspersample > 1:
        options["subfiletype"] = None
        options["extratags"].append((SUBFILE_TYPE, 4, 1, int(page.subfiletype), True))
    resolution = [page.tags[code].value for code in RESOLUTION if code in page.tags]
    if len(resolution) == 2 and all(denominator for _, denominator in resolution):
        options["resolution"] = resolution
        options["resolutionunit"] = 2
        if RESOLUTION_UNIT in page.tags:
            options["resolutionunit"] = page.tags[RESOLUTION_UNIT].value
    if page.photometric.name == "PALETTE":
        options["colormap"] = page.colormap
    for tag in page.tags:
        if tag.code not in STRUCTURE:
            page.parent.filehandle.seek(tag.valueoffset)
            raw = page.parent.filehandle.read(tag.valuebytecount)
            options["extratags"].append((tag.code, int(tag.dtype), tag.count, raw, True))
    return options


def _suit_floats(tags: dict[str, Any]) -> None:
    """Change the options of a page of integers to those of a page of floats."""
    if tags.pop("colormap", None) is not None:
        tags["photometric"] = "minisblack"
    tags["predictor"] = 3 if tags["predictor"] else None
    changed = []
    for code, kind, count, raw, once in tags["extratags"]:
        if code in EXTREMES:
            continue
        if code == DESCRIPTION:
            text = _describe_floats(raw)
            if text != raw:
                count = len(text)
            raw = text
        changed.append((code, kind, count, raw, once))
    tags["extratags"] = changed


def _describe_floats(description: bytes) -> bytes:
    """Change the type in a description of OME's to float; others stay."""
    text = re.sub(rb'(<Pixels\b[^>]*?\bType=")u?int\d+(")', rb"\1float\2", description)
    if text == description:
        return description
    return re.sub(rb'\s+SignificantBits="\d+"', b"", text)


def _describes_other_files(path: Path) -> bool:
    """Return True if a description counts pages of other files as well, as OME's may.

    Each file is its own picture, so such a description is ignored.
    """
    with _strict(), tifffile.TiffFile(path) as file:
        for series in file.series:
            for page in series.pages:
                if page is not None and page.parent is not file:
                    return True
    return False


@contextlib.contextmanager
def _open_tiff(path: Path, foreign: bool) -> Iterator[tifffile.TiffFile]:
    """Open a file; its OME description is ignored if it is `foreign`."""
    with _strict(), tifffile.TiffFile(path, is_ome=False if foreign else None) as file:
        yield file


def _mapped_copy(path: Path, place: SeriesPlace) -> np.ndarray:
    array: np.ndarray = mapped(path, place.dtype, place.offset or 0, place.shape)
    return array


def _non_picture_pages(pages: list[Any]) -> dict[int, str]:
    """Return the pages that are masks or smaller copies of a picture, and their kind.

    If that is all of them, they are pictures.
    """
    kinds: dict[int, str] = {}
    for page in pages:
        if page.subfiletype & MASK or page.photometric == MASK_COLOURS:
            kinds[page.index] = "mask"
        elif page.subfiletype & REDUCED:
            kinds[page.index] = "page of reduced resolution"
        elif page.bitspersample == 1:
            kinds[page.index] = "1 bit page"
    return kinds if len(kinds) < len(pages) else {}


def _note_on_copied(copied: dict[int, str]) -> str:
    """Return a note on pages that are no pictures."""
    kinds = list(copied.values())
    counts: list[str] = []
    for kind in dict.fromkeys(kinds):
        count = kinds.count(kind)
        plural = "s" if count > 1 else ""
        counts.append(f"{count} {kind}{plural}")
    verb = "it is" if len(kinds) == 1 else "they are"
    return f"{', '.join(counts)} left as {verb}"


def _note_on_bits(pages: list[Any]) -> list[str]:
    """Return a note if pages have bits that are written as 16."""
    for page in pages:
        if page.bitspersample not in (1, 8, 16, 32, 64):
            return [f"its {page.bitspersample} bit became 16"]
    return []


def _picture_series(file: Any, pages: list[Any], copied: dict[int, str]) -> list[Any]:
    """Return the series of a file without pages that are no pictures."""
    series = list(file.series)
    if not copied:
        return series
    pictures: list[Any] = []
    mixed = False
    for s in series:
        outside = [p.index in copied for p in s.pages if p is not None]
        if any(outside) and not all(outside):
            mixed = True
        if len(s.levels) > 1 and not any(outside):
            mixed = True
        if not all(outside):
            pictures.append(s)
    if not mixed:
        return pictures
    groups: dict[int, list[Any]] = {}
    for page in pages:
        if page.index not in copied:
            groups.setdefault(page.hash, []).append(page)
    return [_series_of_pages(group) for group in groups.values()]


def _series_of_pages(pages: list[Any]) -> Any:
    """Return a series of equal pages."""
    first = pages[0]
    shape = (len(pages), *first.shape)
    return tifffile.TiffPageSeries(pages, shape, first.dtype, f"I{first.axes}")


def _values(series: Any, array: np.ndarray) -> Values:
    """Return the values of a series."""
    axes, shape = of_tiff(series.axes, series.shape)
    values = Values(array.reshape(shape), axes, full=series.shape)
    # Samples of a pixel are colours; the channels of a stack are not.
    values.colour = "S" in series.axes
    extra = [int(sample) for sample in series.keyframe.extrasamples]
    values.alpha = values.colour and (1 in extra or 2 in extra)
    if values.alpha and len(extra) > 1:
        raise InputError("has transparency among other samples; save it apart from them")
    values.nodata_values = _declared_nodata(series.keyframe)
    values.mosaic = _mosaic_pattern(series.keyframe)
    # Pages that nothing describes are mostly a series of images.
    for letter, side in zip(series.axes, series.shape, strict=True):
        if letter in "IQ" and side > 1:
            values.assumed = True
    return values


def _mosaic_pattern(page: Any) -> str:
    """Return the colours of each 2 x 2 pixels of a raw frame, by its tags (TIFF/EP, DNG); or empty.

    Raises:
        InputError: it has other colours, or another order.
    """
    if page.photometric != CFA:
        return ""
    size = _numbers_of_tag(page, CFA_SIZE)
    pattern = ""
    for colour in _numbers_of_tag(page, CFA_COLOURS):
        pattern += "RGB"[colour] if colour < 3 else "?"
    if size != [2, 2] or pattern not in MOSAICS:
        shape = "x".join(map(str, size)) or "nameless"
        shown = f"{shape} {pattern}".strip()
        raise InputError(
            f"is a raw frame of the colours {shown}; those of {', '.join(MOSAICS)} are read"
        )
    return pattern


def _numbers_of_tag(page: Any, code: int) -> list[int]:
    if code not in page.tags:
        return []
    return [int(number) for number in page.tags[code].value]


def _check_page(page: Any, lossy: bool, mask: bool = False) -> None:
    """Raise InputError if a page could not be written as it was read.

    Args:
        page: of the file.
        lossy: its compression loses, so that it is written as RGB.
        mask: the file is a mask of 1 bit.
    """
    kind = None
    writable = page.photometric in WRITABLE_COLOURS or _is_grey_palette(page)
    if not writable and not (page.photometric == YCBCR and lossy):
        name = getattr(page.photometric, "name", "nameless colour").lower()
        kind = COLOUR_NAMES.get(page.photometric, name)
    if page.bitspersample not in WRITABLE_BITS and not mask:
        kind = f"{page.bitspersample} bit"
    if page.imagedepth > 1:
        kind = "volumetric"
    if kind:
        raise InputError(f"is a {kind} TIFF; convert it to pages of 8 or 16 bit grey or RGB")


def _is_grey_palette(page: Any) -> bool:
    """Return True if the palette is grey, from dark to bright in equal steps."""
    if page.photometric != 3 or page.colormap is None:
        return False
    red, green, blue = page.colormap.astype(np.int64)
    if (red != green).any() or (red != blue).any():
        return False
    steps = np.diff(red)
    return bool(steps.min() > 0 and np.ptp(steps) <= 1)


def _declared_nodata(page: Any) -> tuple[float, ...]:
    """Return the value that GDAL's tag declares to mean "no data"; infinite ones mean it anyway."""
    try:
        value = float(str(page.tags[GDAL_NODATA].value).strip("\0 "))
    except (KeyError, ValueError):
        return ()
    return (value,) if math.isfinite(value) else ()


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Turn tifffile's log of a truncated file into an InputError, and hide the rest of the log."""
    messages: list[str] = []
    logger = logging.getLogger("tifffile")
    handler = logging.Handler()

    def collect(record: logging.LogRecord) -> None:
        messages.append(record.getMessage())

    handler.emit = collect  # type: ignore[method-assign]
    propagate = logger.propagate
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    for message in messages:
        if "invalid page offset" in message or "zeroed" in message:
            raise InputError(f"is truncated ({message.split('> ')[-1]})")
