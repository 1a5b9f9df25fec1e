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
from n2n_lightning.files import InputError, one_line
from n2n_lightning.formats.picture import MOSAICS, Picture, Values
from n2n_lightning.formats.raw_array import RawArray, flush
from n2n_lightning.formats.regions import MappedRegions, StoredLayout

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
PALETTE_COLOURS = 3
YCBCR = 6
CFA = 32803  # raw frames of colour cameras
WRITABLE_COLOURS = (0, 1, 2, 34892, CFA)
COLOUR_NAMES = {
    PALETTE_COLOURS: "palette",
    5: "CMYK",
    YCBCR: "YCbCr",
    8: "CIELAB",
    9: "ICCLAB",
    10: "ITULAB",
}
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
ALPHA_SAMPLES = frozenset([1, 2])  # values of ExtraSamples: associated and unassociated alpha
CORNER_SIDE = 16  # pixels of a trial page
INCH = 2  # the usual value of RESOLUTION_UNIT
# options of the writer: the tags of each page are written, and no description of the writer's own
PAGE_OPTIONS: dict[str, Any] = {"metadata": None, "software": False, "contiguous": False}


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
            pages = _all_pages(file)
            self.copied = _non_picture_pages(pages)
            series = _picture_series(file, pages, self.copied)
            bits = {page.bitspersample for page in pages}
            self.mask = bits == {1}
            self.bigtiff = file.is_bigtiff
            self.byteorder = file.byteorder
            offsets = [s.dataoffset for s in series]
            self.mapped = None not in offsets
            self._check_pages(file, pages, series)
            pictures = [page for page in pages if page.index not in self.copied]
            for page in pictures:
                lossy = page.compression.name in LOSSY_COMPRESSIONS
                _check_page(page, lossy, self.mask)
            self._check_size(sum(s.nbytes for s in series))
            notes = [_note_on_copied(self.copied)] if self.copied else []
            notes += _note_on_bits(pictures)
            if ORIENTATION in pictures[0].tags:
                self.orientation = int(pictures[0].tags[ORIENTATION].value)
            self.places: list[RawArray] = []
            for s in series:
                if self.mapped:
                    dtype = s.dtype.newbyteorder(file.byteorder)
                    place = RawArray(dtype, s.dataoffset, s.shape)
                    self.places.append(place)
                    array = place.read(self.path)
                else:
                    array = s.asarray()
                self.values.append(_values(s, array))
            if not self.mapped and not self.mask:
                notes += self._plan_pages(pages, series)
            self.note = "; ".join(dict.fromkeys(notes))

    def _check_pages(self, file: Any, pages: list[Any], series: list[Any]) -> None:
        """Raise InputError if a description (OME's, for one) disagrees with the pages of the file.

        Pyramids are refused, too.
        """
        described = list(self.copied)
        unlisted = False
        for s in series:
            for page in s.pages:
                if page is None:
                    unlisted = not self.mapped
                elif page.parent is file:
                    described.append(page.index)
        every = list(range(len(pages)))
        if sorted(described) != every or unlisted:
            raise InputError(
                "its description and its pages disagree, or parts are in other files; save it as"
                " one"
            )
        if not pages:
            raise InputError("holds no pages")
        pyramids = [s for s in series if len(s.levels) > 1]
        with_smaller = [page for page in pages if page.subifds]
        if pyramids or with_smaller:
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
        for page in pages:
            if any(code in page.tags for code in EXIF_DIRECTORIES):
                notes.append("without its EXIF directories")
        return notes

    def regions(self) -> MappedRegions | None:
        """Return the array as what is read and written region by region; None if it is packed."""
        if not self.mapped or self.mask or len(self.places) != 1:
            return None
        return MappedRegions(self.path, self.values[0].array, self._layout)

    def _layout(self, dtype: np.dtype) -> StoredLayout | None:
        """Return what a file with values of a type looks like; None for another type."""
        (place,) = self.places
        same = dtype.name == place.dtype.name
        return StoredLayout(place, None, place.end) if same else None

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
            array = place.writable(path)
            results.append(array.reshape(values.shape))
        return results

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        if self.mapped:
            flush(results)
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
                writer.write(pages[index], **tags, **PAGE_OPTIONS)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        """Write pages of floats with the old tags; those that state integers are changed."""
        with _open_tiff(self.path, self.foreign) as file:
            pages = _all_pages(file)
            series = _picture_series(file, pages, self.copied)
            for s in series:
                # the pages of ImageJ's stacks may be in one piece, not listed
                if None in s.pages:
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
        if tile:
            height, width = map(_rounded_up, tile)
            if (height, width) != tile:
                before = " x ".join(map(str, tile))
                notes.append(f"its tiles of {before} became {height} x {width}")
                tags["tile"] = (height, width)
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


def _rounded_up(side: int) -> int:
    """Return the next side of a tile that the writer takes."""
    multiples = math.ceil(side / TILE_MULTIPLE)
    return multiples * TILE_MULTIPLE


def _trial_key(page: Any, tags: dict[str, Any]) -> str:
    """Return what decides whether a page can be written: pages of one key are tried once."""
    key: list[Any] = [page.dtype, page.axes]
    for name in sorted(tags):
        if name == "extratags":
            codes_and_types = [tag[:2] for tag in tags[name]]
            key.append(codes_and_types)
        else:
            key.append(tags[name])
    return repr(key)


def _why_unwritable(page: Any, tags: dict[str, Any]) -> str:
    """Return why a page with these options cannot be written; empty if it can."""
    sides = list(page.shape)
    for axis, letter in enumerate(page.axes):
        if letter in "YX":
            sides[axis] = min(sides[axis], CORNER_SIDE)
    corner = np.zeros(sides, page.dtype)
    try:
        with tifffile.TiffWriter(io.BytesIO()) as writer:
            writer.write(corner, **tags, **PAGE_OPTIONS)
    except Exception as error:  # every codec has exceptions of its own
        return one_line(error, 100)
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
        mask_tag = (SUBFILE_TYPE, 4, 1, int(page.subfiletype), True)
        options["extratags"].append(mask_tag)
    options |= resolution_options(page.tags, INCH)
    if page.photometric.name == "PALETTE":
        options["colormap"] = page.colormap
    options["extratags"] += _copied_tags(page)
    return options


def resolution_options(tags: Any, usual_unit: int) -> dict[str, Any]:
    """Return the options with which tifffile's writer states the resolution of a page.

    Args:
        tags: of the page.
        usual_unit: the unit of pages that state none.

    Returns:
        The options; none if the resolution is missing or infinite.
    """
    sizes: list[tuple[int, int]] = []
    if not all(code in tags for code in RESOLUTION):
        return {}
    for code in RESOLUTION:
        numerator, denominator = tags[code].value
        if not denominator:
            return {}
        sizes.append((numerator, denominator))
    unit = usual_unit
    if RESOLUTION_UNIT in tags:
        unit = tags[RESOLUTION_UNIT].value
    return {"resolution": sizes, "resolutionunit": unit}


def _copied_tags(page: Any) -> list[Any]:
    """Return the tags that are no options of the writer, as it takes them."""
    file = page.parent.filehandle
    copied: list[Any] = []
    for tag in page.tags:
        if tag.code in STRUCTURE:
            continue
        file.seek(tag.valueoffset)
        content = file.read(tag.valuebytecount)
        copied.append((tag.code, int(tag.dtype), tag.count, content, True))
    return copied


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
    is_ome = False if foreign else None
    with _strict(), tifffile.TiffFile(path, is_ome=is_ome) as file:
        yield file


def _all_pages(file: Any) -> list[Any]:
    return [page.aspage() for page in file.pages]


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
        listed = {page.index for page in s.pages if page is not None}
        others = listed & copied.keys()
        if others != listed:
            pictures.append(s)
            mixed = mixed or bool(others)
        if not others and len(s.levels) > 1:
            mixed = True
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
    picture = array.reshape(shape)
    values = Values(picture, axes, full=series.shape)
    # Samples of a pixel are colours; the channels of a stack are not.
    values.colour = "S" in series.axes
    extra_samples = series.keyframe.extrasamples
    opaque = ALPHA_SAMPLES.isdisjoint(extra_samples)
    values.alpha = values.colour and not opaque
    if values.alpha and len(extra_samples) > 1:
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
    if page.photometric == YCBCR:
        writable = lossy
    if not writable:
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
    if page.photometric != PALETTE_COLOURS or page.colormap is None:
        return False
    red, green, blue = page.colormap.astype(np.int64)
    grey = np.array_equal(red, green) and np.array_equal(red, blue)
    steps = np.diff(red)
    rising = steps.min() > 0
    even = np.ptp(steps) <= 1
    return bool(grey and rising and even)


def _declared_nodata(page: Any) -> tuple[float, ...]:
    """Return the value that GDAL's tag declares to mean "no data"; infinite ones mean it anyway."""
    try:
        text = str(page.tags[GDAL_NODATA].value)
        value = float(text.strip("\0 "))
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
            reason = message.split("> ")[-1]
            raise InputError(f"is truncated ({reason})")
