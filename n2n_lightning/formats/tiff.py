"""TIFF files, scientific and other."""

import contextlib
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from n2n_lightning.axes import of_tiff
from n2n_lightning.files import InputError, mapped
from n2n_lightning.formats.picture import Picture, Values, check_size


class Tiff(Picture):
    """Scientific and other TIFF files. Where the values lie in the file as they are, the file is copied and only they
    are changed; where they are compressed, pages are written anew with the same compression and tags.
    """

    # Tags that say how pixels are stored, which the writer does itself, and that point to other places of the old file.
    STRUCTURE = frozenset(
        [254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 282, 283, 284, 288, 289, 296, 317, 322, 323, 324, 325]
    ) | {320, 330, 338, 339, 347, 512, 513, 514, 519, 520, 521, 529, 530, 531, 532, 34665, 34853, 40965}
    LOSSY = ("JPEG", "OJPEG", "JPEG_LOSSY", "JPEGXL", "WEBP", "JPEG2000", "APERIO_JP2000_RGB", "APERIO_JP2000_YCBC")

    kind = "TIFF"

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with _strict(), tifffile.TiffFile(path) as file:
            foreign = any(p is not None and p.parent is not file for s in file.series for p in s.pages)
        # An OME description may count the pages of other files as well: each file is its own picture.
        with _strict(), tifffile.TiffFile(path, is_ome=False if foreign else None) as file:
            series = list(file.series)
            pages: list[Any] = [page.aspage() for page in file.pages]
            self.bigtiff, self.byteorder = file.is_bigtiff, file.byteorder
            self.mapped = all(s.dataoffset is not None for s in series)
            # What a description (OME, for one) says to be the pages must be the pages of this file.
            found = sorted(p.index for s in series for p in s.pages if p is not None and p.parent is file)
            if found != list(range(len(pages))) or (not self.mapped and any(None in s.pages for s in series)):
                raise InputError("its description and its pages disagree, or parts are in other files; save it as one")
            if not pages:
                raise InputError("holds no pages")
            if any(len(s.levels) > 1 for s in series) or any(p.subifds for p in pages):
                raise InputError("has its image in several resolutions; export the full one alone")
            for page in pages:
                _check_page(page, page.compression.name in self.LOSSY)
            check_size(path.stat().st_size, sum(s.nbytes for s in series))
            if bits := [p.bitspersample for p in pages if p.bitspersample not in (8, 16, 32, 64)]:
                self.note = f"its {bits[0]} bit became 16"
            self.orientation = int(pages[0].tags[274].value) if 274 in pages[0].tags else 1
            self.places: list[Any] = [(s.dtype.newbyteorder(file.byteorder), s.dataoffset, s.shape) for s in series]
            for number, s in enumerate(series):
                array: Any = self._mapped(path, number, "c") if self.mapped else s.asarray()
                axes, shape = of_tiff(s.axes, s.shape)
                extra = [int(sample) for sample in s.keyframe.extrasamples]
                alpha = "S" in s.axes and bool({1, 2} & {*extra})
                if alpha and len(extra) > 1:
                    raise InputError("has transparency among other samples; save it apart from them")
                # Samples of a pixel are colours; what a stack calls channels are not.
                self.values.append(Values(array.reshape(shape), axes, alpha, "S" in s.axes, _no_data(s.keyframe)))
            if not self.mapped:
                self.order = [[p.index for p in s.pages if p is not None] for s in series]
                self.shapes = [s.keyframe.shape for s in series]
                self.tags = [self._tags(page) for page in pages]
                if any(code in page.tags for page in pages for code in (34665, 34853)):
                    self.note = "without its EXIF directories"

    def _begin(self, path: Path) -> list[np.ndarray]:
        if not self.mapped:
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
        # The descriptions are the old ones, whatever the name of the file would make the writer say.
        options = {"bigtiff": self.bigtiff, "byteorder": self.byteorder, "ome": False, "shaped": False}
        with _strict(), tifffile.TiffWriter(path, **options) as writer:  # type: ignore[arg-type]
            for index, tags in enumerate(self.tags):
                writer.write(pages[index], metadata=None, software=False, contiguous=False, **tags)

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


def _check_page(page: Any, lossy: bool) -> None:
    """Raises InputError for pages that could not come out as they went in."""
    kinds = {3: "palette", 6: "YCbCr", 32803: "raw mosaic", 5: "CMYK", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"}
    known = page.photometric in (0, 1, 2, 34892) or _grey(page) or (page.photometric == 6 and lossy)
    kind = None if known else kinds.get(page.photometric, getattr(page.photometric, "name", "nameless colour").lower())
    if page.bitspersample not in (8, *range(9, 17), 32, 64):
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
    return bool((red == green).all() and (red == blue).all() and steps.min() > 0 and np.ptp(steps) <= 1)


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
