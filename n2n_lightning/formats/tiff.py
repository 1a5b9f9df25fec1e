"""TIFF files, scientific and other."""

import contextlib
import io
import logging
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from n2n_lightning.arrays.axes import of_tiff
from n2n_lightning.files import InputError, mapped
from n2n_lightning.formats.picture import MOSAICS, Picture, Values, check_size

RANGES = (280, 281, 340, 341)  # tags of the smallest and largest value, of the type of the values
CFA = 32803  # PhotometricInterpretation of raw frames of colour cameras
LARGE = 2**32 - 2**26  # bytes that an ordinary TIFF holds


class Tiff(Picture):
    """Scientific and other TIFF files. Where the values lie in the file as they are, the file is copied and only they
    are changed; where they are compressed, pages are written anew with the same compression and
    tags.
    """

    # Tags that say how pixels are stored, which the writer does itself, and that point to other
    # places of the old file.
    STRUCTURE = frozenset(
        [
            254,
            256,
            257,
            258,
            259,
            262,
            266,
            273,
            277,
            278,
            279,
            282,
            283,
            284,
            288,
            289,
            296,
            317,
            322,
            323,
            324,
            325,
        ]
    ) | {
        320,
        330,
        338,
        339,
        347,
        512,
        513,
        514,
        519,
        520,
        521,
        529,
        530,
        531,
        532,
        34665,
        34853,
        40965,
    }
    LOSSY = (
        "JPEG",
        "OJPEG",
        "JPEG_LOSSY",
        "JPEGXL",
        "WEBP",
        "JPEG2000",
        "APERIO_JP2000_RGB",
        "APERIO_JP2000_YCBC",
    )

    kind, floats = "TIFF", True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with _strict(), tifffile.TiffFile(path) as file:
            foreign = any(
                p is not None and p.parent is not file for s in file.series for p in s.pages
            )
        # An OME description may count the pages of other files as well: each file is its own
        # picture.
        with _strict(), tifffile.TiffFile(path, is_ome=False if foreign else None) as file:
            pages: list[Any] = [page.aspage() for page in file.pages]
            self.copied = _no_pictures(pages)
            series = _pictures(file, pages, self.copied)
            self.mask = bool(pages) and all(page.bitspersample == 1 for page in pages)
            self.bigtiff, self.byteorder = file.is_bigtiff, file.byteorder
            self.mapped = all(s.dataoffset is not None for s in series)
            # What a description (OME, for one) says to be the pages must be the pages of this file.
            found = sorted(
                p.index for s in series for p in s.pages if p is not None and p.parent is file
            )
            found = sorted([*found, *self.copied])
            if found != list(range(len(pages))) or (
                not self.mapped and any(None in s.pages for s in series)
            ):
                raise InputError(
                    "its description and its pages disagree, or parts are in other files; save it as one"
                )
            if not pages:
                raise InputError("holds no pages")
            if any(len(s.levels) > 1 for s in series) or any(p.subifds for p in pages):
                raise InputError("has its image in several resolutions; export the full one alone")
            shown = [page for page in pages if page.index not in self.copied]
            for page in shown:
                _check_page(page, page.compression.name in self.LOSSY, self.mask)
            check_size(path.stat().st_size, sum(s.nbytes for s in series))
            notes = [_said(self.copied)] if self.copied else []
            if bits := [
                p.bitspersample for p in shown if p.bitspersample not in (1, 8, 16, 32, 64)
            ]:
                notes.append(f"its {bits[0]} bit became 16")
            self.orientation = int(shown[0].tags[274].value) if 274 in shown[0].tags else 1
            self.places: list[Any] = [
                (s.dtype.newbyteorder(file.byteorder), s.dataoffset, s.shape) for s in series
            ]
            for number, s in enumerate(series):
                self.values.append(
                    _values(s, self._mapped(path, number, "c") if self.mapped else s.asarray())
                )
            self.foreign = foreign
            if not self.mapped and not self.mask:
                self.order = [[p.index for p in s.pages if p is not None] for s in series]
                self.shapes = [s.keyframe.shape for s in series]
                self.tags, trials = [self._tags(page) for page in pages], Trials()
                for page, tags in zip(pages, self.tags, strict=True):
                    notes += trials.note(page, tags)
                if any(code in page.tags for page in pages for code in (34665, 34853)):
                    notes.append("without its EXIF directories")
                self.refused = trials.refused
            self.note = "; ".join(dict.fromkeys(notes))

    def _begin(self, path: Path) -> list[np.ndarray]:
        if self.mask:
            raise InputError("is a 1 bit TIFF; convert it to pages of 8 or 16 bit grey or RGB")
        if not self.mapped:
            if self.refused:  # before the work, not after it
                raise InputError(self.refused)
            return super()._begin(path)
        shutil.copyfile(self.path, path)
        return [self._mapped(path, i, "r+").reshape(v.shape) for i, v in enumerate(self.values)]

    def _mapped(self, path: Path, number: int, mode: Any) -> np.ndarray:
        """The values of a series where they lie in the file, or in a copy of it."""
        dtype, offset, shape = self.places[number]
        if mode == "c":
            found: np.ndarray = mapped(path, dtype, offset, shape)
            return found
        return np.memmap(path, dtype, mode, offset, shape)

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        if self.mapped:
            for mapped in results:
                mapped.flush()  # type: ignore[attr-defined]
            return
        pages: dict[int, np.ndarray] = {}
        for result, indices, shape in zip(results, self.order, self.shapes, strict=True):
            pages |= dict(zip(indices, result.reshape(-1, *shape), strict=True))
        if self.copied:
            with _strict(), tifffile.TiffFile(self.path) as old:
                pages |= {index: old.pages[index].asarray() for index in self.copied}
        # The descriptions are the old ones, whatever the name of the file would make the writer
        # say.
        options = {
            "bigtiff": self.bigtiff,
            "byteorder": self.byteorder,
            "ome": False,
            "shaped": False,
        }
        with _strict(), tifffile.TiffWriter(path, **options) as writer:  # type: ignore[arg-type]
            for index, tags in enumerate(self.tags):
                writer.write(pages[index], metadata=None, software=False, contiguous=False, **tags)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        """Writes pages of floats with the tags of the old ones; what says that values are integers is changed."""
        with (
            _strict(),
            tifffile.TiffFile(self.path, is_ome=False if self.foreign else None) as file,
        ):
            old: list[Any] = [page.aspage() for page in file.pages]
            series = _pictures(file, old, self.copied)
            # the pages of ImageJ's stacks may be in one piece, not listed
            if any(None in s.pages for s in series):
                raise InputError(
                    "its pages are not listed; save it as TIFF with a directory for each page"
                )
            self.order = [[p.index for p in s.pages if p is not None] for s in series]
            self.shapes = [s.keyframe.shape for s in series]
            self.tags = [self._tags(page) for page in old]
        kinds = {
            number: r.dtype.kind
            for r, numbers in zip(results, self.order, strict=True)
            for number in numbers
        }
        for number, tags in enumerate(self.tags):
            if kinds.get(number) == "f":
                _as_floats(tags)
        self.mapped = False
        self.bigtiff = self.bigtiff or sum(r.nbytes for r in results) > LARGE
        self._save(path, results)

    def _tags(self, page: Any) -> dict[str, Any]:
        """What tifffile's writer needs to write a page as it was; other tags are copied byte by byte."""
        compression, predictor = page.compression, page.predictor if page.predictor > 1 else None
        if compression.name in self.LOSSY:
            compression, predictor = "adobe_deflate", None  # once was enough
        options: dict[str, Any] = {
            "photometric": "rgb" if page.photometric.name == "YCBCR" else page.photometric,
            "planarconfig": page.planarconfig if page.samplesperpixel > 1 else None,
            "extrasamples": page.extrasamples or None,
            "compression": None if compression == 1 else compression,
            "predictor": predictor,
            "tile": (page.tilelength, page.tilewidth) if page.is_tiled else None,
            "rowsperstrip": None if page.is_tiled else page.rowsperstrip,
            "subfiletype": page.subfiletype or None,
            "extratags": [],
        }
        if (
            page.subfiletype & 4 and page.bitspersample > 1
        ):  # a mask of 8 bits or more, which the writer refuses as such
            options |= {
                "subfiletype": None,
                "extratags": [(254, 4, 1, int(page.subfiletype), True)],
            }
        resolution = [page.tags[code].value for code in (282, 283) if code in page.tags]
        if len(resolution) == 2 and all(below for _, below in resolution):
            options["resolution"] = resolution
            options["resolutionunit"] = page.tags[296].value if 296 in page.tags else 2
        if page.photometric.name == "PALETTE":
            options["colormap"] = page.colormap
        for tag in page.tags:
            if tag.code not in self.STRUCTURE:
                page.parent.filehandle.seek(tag.valueoffset)
                raw = page.parent.filehandle.read(tag.valuebytecount)
                options["extratags"].append((tag.code, int(tag.dtype), tag.count, raw, True))
        return options


class Trials:
    """Find out before the work which pages cannot be written as they were stored, by writing a corner of zeros.

    Attributes:
        refused: why the file cannot be written again; empty where it can.
    """

    def __init__(self) -> None:
        self.refused = ""
        self._done: set[str] = set()

    def note(self, page: Any, tags: dict[str, Any]) -> list[str]:
        """Change the options of a page to those that can be written; say what was changed."""
        said = []
        if tags["tile"] and any(side % 16 for side in tags["tile"]):
            old, tags["tile"] = tags["tile"], tuple(-(-side // 16) * 16 for side in tags["tile"])
            said.append(
                f"its tiles of {old[0]} x {old[1]} became {tags['tile'][0]} x {tags['tile'][1]}"
            )
        codes = [tag[:2] for tag in tags["extratags"]]
        key = repr(
            [
                page.dtype,
                page.axes,
                codes,
                *(tags[name] for name in sorted(tags) if name != "extratags"),
            ]
        )
        if key in self._done or not (reason := _cannot_write(page, tags)):
            self._done.add(key)
            return said
        name = page.compression.name
        tags |= {"compression": "adobe_deflate", "predictor": None}
        if _cannot_write(page, tags):
            self.refused = (
                self.refused or f"its page {page.index} cannot be written again ({reason})"
            )
            return said
        return [*said, f"its {name} compression became deflate"]


def _cannot_write(page: Any, tags: dict[str, Any]) -> str:
    """Why a page with these options cannot be written; empty where it can."""
    sides = [
        min(n, 16) if letter in "YX" else n for letter, n in zip(page.axes, page.shape, strict=True)
    ]
    try:
        with tifffile.TiffWriter(io.BytesIO()) as writer:
            writer.write(
                np.zeros(sides, page.dtype), metadata=None, software=False, contiguous=False, **tags
            )
    except Exception as error:  # every codec has exceptions of its own
        return " ".join(str(error).split())[:100] or type(error).__name__
    return ""


def _no_pictures(pages: list[Any]) -> dict[int, str]:
    """Which pages are no pictures but belong to one: masks, and smaller copies; all are pictures if none is left."""
    found = {}
    for page in pages:
        if page.subfiletype & 4 or page.photometric == 4:
            found[page.index] = "mask"
        elif page.subfiletype & 1:
            found[page.index] = "page of reduced resolution"
        elif page.bitspersample == 1:
            found[page.index] = "1 bit page"
    return found if len(found) < len(pages) else {}


def _said(copied: dict[int, str]) -> str:
    """What is said of pages that are no pictures."""
    kinds = list(copied.values())
    counts = [
        f"{kinds.count(kind)} {kind}{'s'[: kinds.count(kind) > 1]}" for kind in dict.fromkeys(kinds)
    ]
    return f"{', '.join(counts)} left as {'it is' if len(kinds) == 1 else 'they are'}"


def _pictures(file: Any, pages: list[Any], copied: dict[int, str]) -> list[Any]:
    """The series of a file without pages that are no pictures."""
    series = list(file.series)
    if not copied:
        return series
    kept, apart = [], False
    for s in series:
        inside = [p.index in copied for p in s.pages if p is not None]
        apart = (
            apart or (any(inside) and not all(inside)) or (len(s.levels) > 1 and not any(inside))
        )
        kept += [] if all(inside) else [s]
    if not apart:
        return kept
    groups: dict[int, list[Any]] = {}
    for page in pages:
        if page.index not in copied:
            groups.setdefault(page.hash, []).append(page)
    return [
        tifffile.TiffPageSeries(
            group, (len(group), *group[0].shape), group[0].dtype, f"I{group[0].axes}"
        )
        for group in groups.values()
    ]


def _values(series: Any, array: Any) -> Values:
    """The values of a series."""
    axes, shape = of_tiff(series.axes, series.shape)
    extra = [int(sample) for sample in series.keyframe.extrasamples]
    alpha = "S" in series.axes and bool({1, 2} & {*extra})
    if alpha and len(extra) > 1:
        raise InputError("has transparency among other samples; save it apart from them")
    # Samples of a pixel are colours; what a stack calls channels are not.
    # Pages of which nobody says what they are: series of images, mostly.
    assumed = any(
        letter in "IQ" and n > 1 for letter, n in zip(series.axes, series.shape, strict=True)
    )
    nodata_values, colour = _no_data(series.keyframe), "S" in series.axes
    mosaic = _pattern(series.keyframe)
    return Values(
        array.reshape(shape),
        axes,
        alpha,
        colour,
        nodata_values,
        mosaic=mosaic,
        assumed=assumed,
        full=series.shape,
    )


def _pattern(page: Any) -> str:
    """The colours of each 2 x 2 pixels of a colour camera's raw frame, by its tags (TIFF/EP, DNG); or empty.

    Raises:
        InputError: it has colours of another kind, or in another order.
    """
    if page.photometric != CFA:
        return ""
    size, colours = (page.tags[code].value if code in page.tags else () for code in (33421, 33422))
    size, colours = [int(n) for n in size], [int(n) for n in (colours if len(colours) else ())]
    found = "".join("RGB"[n] if n < 3 else "?" for n in colours)
    if size != [2, 2] or found not in MOSAICS:
        shown = f"{'x'.join(map(str, size)) or 'nameless'} {found}".strip()
        raise InputError(
            f"is a raw frame of the colours {shown}; those of {', '.join(MOSAICS)} are read"
        )
    return found


def _check_page(page: Any, lossy: bool, mask: bool = False) -> None:
    """Raises InputError for pages that could not come out as they went in."""
    kinds = {3: "palette", 6: "YCbCr", 5: "CMYK", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"}
    known = (
        page.photometric in (0, 1, 2, 34892, CFA)
        or _grey(page)
        or (page.photometric == 6 and lossy)
    )
    kind = (
        None
        if known
        else kinds.get(
            page.photometric, getattr(page.photometric, "name", "nameless colour").lower()
        )
    )
    if page.bitspersample not in (8, *range(9, 17), 32, 64) and not mask:
        kind = f"{page.bitspersample} bit"
    if page.imagedepth > 1:
        kind = "volumetric"
    if kind:
        raise InputError(f"is a {kind} TIFF; convert it to pages of 8 or 16 bit grey or RGB")


def _no_data(page: Any) -> tuple[float, ...]:
    """The value that GDAL's tag declares to mean "no data"; infinite ones and NaN mean it anyway."""
    try:
        value = float(str(page.tags[42113].value).strip("\0 "))
    except (KeyError, ValueError):
        return ()
    return (value,) if math.isfinite(value) else ()


def _grey(page: Any) -> bool:
    """Whether a palette says that its indices are grey values: from dark to bright in equal steps."""
    if page.photometric != 3 or page.colormap is None:
        return False
    red, green, blue = page.colormap.astype(np.int64)
    steps = np.diff(red)
    return bool(
        (red == green).all() and (red == blue).all() and steps.min() > 0 and np.ptp(steps) <= 1
    )


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """tifffile says in its log what else would be an error; a truncated file is one here, the rest is not shown."""
    found: list[str] = []
    logger, handler = logging.getLogger("tifffile"), logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    for message in found:
        if "invalid page offset" in message or "zeroed" in message:
            raise InputError(f"is truncated ({message.split('> ')[-1]})")


def _as_floats(tags: dict[str, Any]) -> None:
    """Changes the writer's options for a page of integers so that they suit one of floats."""
    if tags.pop("colormap", None) is not None:
        tags["photometric"] = "minisblack"
    tags["predictor"] = 3 if tags["predictor"] else None
    kept = []
    for code, kind, count, raw, once in tags["extratags"]:
        if code in RANGES:
            continue
        if code == 270:  # the description, in XML where it is OME's
            text = re.sub(rb'(<Pixels\b[^>]*?\bType=")u?int\d+(")', rb"\1float\2", raw)
            text = re.sub(rb'\s+SignificantBits="\d+"', b"", text) if text != raw else text
            count = len(text) if text != raw else count
            raw = text
        kept.append((code, kind, count, raw, once))
    tags["extratags"] = kept
