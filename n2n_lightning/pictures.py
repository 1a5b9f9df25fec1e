"""Pictures that come out as they went in: same size, type, bit depth, channels, transparency and metadata.

`opened(path)` gives a picture's values as arrays, mapped from the file where its kind allows that; `Picture.written`
makes a file of the same kind, with everything that is not a value taken from the first one.
"""

import contextlib
import logging
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, JpegImagePlugin

from n2n_lightning.data.reading import merged, tiff_axes
from n2n_lightning.files import InputError
from n2n_lightning.restore import TYPES, guess_axes, has_alpha

KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".npy": "NPY"}
# A file that unpacks to more than this many bytes must not be smaller than a share of them.
LARGE, RATIO = 2**30, 300


@dataclass
class Values:
    """An array of a picture: its pixels, and what its axes are (letters of NCHW).

    `alpha`: the last channel is transparency. `colour`: the others are colours of one picture.
    """

    array: np.ndarray
    axes: str
    alpha: bool = False
    colour: bool = True


@dataclass
class Picture:
    """A picture that was opened; see the module.

    Attributes:
        values: its arrays: one, but for TIFF files with pages of several sizes.
        note: what cannot stay as it is, in words.
    """

    path: Path
    values: list[Values] = field(default_factory=list)
    note: str = ""

    @contextlib.contextmanager
    def written(self, path: Path) -> Iterator[list[np.ndarray]]:
        """Arrays like those of `values`, to be filled; at the end the file `path` has them."""
        results = [np.empty_like(v.array, subok=False) for v in self.values]
        yield results
        self._save(path, results)

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        raise NotImplementedError


def opened(path: Path, axes: str | None = None) -> Picture:
    """The picture in a file; `axes` says what those of a .npy file are.

    Raises:
        InputError: the file is missing, damaged, or of a kind that cannot come out as it went in.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: is none of {', '.join(KINDS)}")
    try:
        readers: dict[str, Any] = {"PNG": Png, "JPEG": Jpeg, "TIFF": Tiff}
        picture: Picture = Npy(path, axes) if kind == "NPY" else readers[kind](path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # every library and every kind of damage has an exception of its own
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: damaged, or not the {kind} file that its name says ({reason})") from error
    for values in picture.values:
        if values.array.dtype.name not in TYPES:
            raise InputError(f"{path}: values of type {values.array.dtype}: must be one of {', '.join(TYPES)}")
        if 0 in values.array.shape:
            raise InputError(f"{path}: holds no pixels, its shape is {values.array.shape}")
    return picture


def _check_size(stored: int, unpacked: int) -> None:
    """Raises InputError for a decompression bomb."""
    if unpacked > LARGE and unpacked > RATIO * stored:
        raise InputError(f"would unpack {stored:,} bytes to {unpacked:,}, which no photograph does; it is not read")


class Npy(Picture):
    """An array, mapped into memory, of any size."""

    def __init__(self, path: Path, axes: str | None = None) -> None:
        super().__init__(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        axes = axes or guess_axes(array.shape)
        if len(axes) != array.ndim:
            raise InputError(f"its shape is {array.shape}; --axes {axes} does not fit")
        self.values = [Values(array, axes, has_alpha(array.shape, axes))]

    @contextlib.contextmanager
    def written(self, path: Path) -> Iterator[list[np.ndarray]]:
        array = self.values[0].array
        result = np.lib.format.open_memmap(path, "w+", array.dtype, array.shape, np.isfortran(array))
        yield [result]
        result.flush()


class Jpeg(Picture):
    """A photograph; written with quality 95 and its own chroma sampling, EXIF data, XMP, colour profile and comment."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file, contextlib.closing(JpegImagePlugin.JpegImageFile(file)) as image:
            _check_size(path.stat().st_size, image.width * image.height * 3)
            if image.mode not in ("L", "RGB"):
                raise InputError(f"is a {image.mode} JPEG; convert it to RGB")
            names = ("icc_profile", "exif", "xmp", "dpi", "comment")
            self.options = {name: image.info[name] for name in names if image.info.get(name)}
            self.options |= {"progressive": bool(image.info.get("progressive")), "quality": 95}
            # Samplings that Pillow cannot write become 4:4:4, which loses nothing.
            self.options["subsampling"] = max(0, JpegImagePlugin.get_sampling(image))
            if image.info.get("mp") or "mpoffset" in image.info:
                self.note = "the first of its pictures"
            self.values = [Values(np.asarray(image), "HW" if image.mode == "L" else "HWC")]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        Image.fromarray(results[0]).save(path, format="JPEG", **self.options)


class Png(Picture):
    """8 or 16 bits, grey or colour, with or without transparency; palettes become colours."""

    # What the chunks say is independent of how the pixels are stored (PNG specification, third edition, chapter 11).
    KEPT = (b"cHRM", b"cICP", b"gAMA", b"iCCP", b"sRGB", b"pHYs", b"eXIf", b"tIME", b"tEXt", b"zTXt", b"iTXt")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        content = path.read_bytes()
        chunks = list(_chunks(content))
        width, height, bits, colour = struct.unpack(">IIBB", chunks[0][1][:10])
        _check_size(len(content), width * height * 8 * max(1, bits // 8))
        if any(name == b"acTL" for name, _ in chunks):
            raise InputError("is an animation")
        if colour == 3:
            self.note = "its palette became colours"
        elif bits < 8:
            self.note = f"its {bits} bit became 8"
        elif any(name == b"tRNS" for name, _ in chunks):
            self.note = "its transparent colour became a channel"
        self.kept = [(name, data) for name, data in chunks if name in self.KEPT]
        array = imagecodecs.png_decode(content)
        axes = "HW" if array.ndim == 2 else "HWC"
        self.values = [Values(array, axes, array.ndim == 3 and array.shape[2] in (2, 4))]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        content = memoryview(imagecodecs.png_encode(np.ascontiguousarray(results[0])))
        head, rest = content[:33], content[33:]  # the signature and the header chunk, before which nothing may come
        with path.open("wb") as file:
            file.write(head)
            for name, data in self.kept:
                file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
            file.write(rest)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the chunks of a PNG file; of the pixels only the name."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        raise InputError("is no PNG file")
    place = 8
    while place + 8 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        name = content[place + 4 : place + 8]
        yield name, b"" if name == b"IDAT" else content[place + 8 : place + 8 + length]
        place += 12 + length


class Tiff(Picture):
    """Scientific and other TIFF files. Where the values lie in the file as they are, the file is copied and only they
    are changed; where they are compressed, pages are written anew with the same compression and tags.
    """

    # Tags that say how pixels are stored, which the writer does itself, and that point to other places of the old file.
    STRUCTURE = frozenset(
        [254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 282, 283, 284, 288, 289, 296, 317, 322, 323, 324, 325]
    ) | {330, 338, 339, 347, 512, 513, 514, 519, 520, 521, 529, 530, 531, 532, 34665, 34853, 40965}
    LOSSY = ("JPEG", "OJPEG", "JPEG_LOSSY", "JPEGXL", "WEBP", "JPEG2000", "APERIO_JP2000_RGB", "APERIO_JP2000_YCBC")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with _strict(), tifffile.TiffFile(path) as file:
            series = list(file.series)
            pages: list[Any] = [page.aspage() for page in file.pages]
            self.bigtiff, self.byteorder = file.is_bigtiff, file.byteorder
            self.mapped = all(s.dataoffset is not None for s in series)
            # What a description (OME, for one) says to be the pages must be the pages of this file.
            found = sorted(p.index for s in series for p in s.pages if p is not None and p.parent is file)
            if found != list(range(len(pages))) or (not self.mapped and any(None in s.pages for s in series)):
                raise InputError("its description and its pages disagree, or parts are in other files; save it as one")
            if any(len(s.levels) > 1 for s in series) or any(p.subifds for p in pages):
                raise InputError("has its image in several resolutions; export the full one alone")
            for page in pages:
                _check_page(page, page.compression.name in self.LOSSY)
            _check_size(path.stat().st_size, sum(s.nbytes for s in series))
            for number, s in enumerate(series):
                array: Any = tifffile.memmap(path, series=number, mode="r") if self.mapped else s.asarray()
                extra = s.keyframe.extrasamples
                alpha = len(extra) == 1 and extra[0] in (1, 2) and s.axes[-1] == "S"
                # Samples of a pixel are colours; what a stack calls channels are not.
                self.values.append(Values(*_one_page_axis(array.reshape(s.shape), s.axes), alpha, "S" in s.axes))
            if not self.mapped:
                self.order = [[p.index for p in s.pages if p is not None] for s in series]
                self.shapes = [s.keyframe.shape for s in series]
                self.tags = [self._tags(page) for page in pages]
                if any(code in page.tags for page in pages for code in (34665, 34853)):
                    self.note = "without its EXIF directories"

    @contextlib.contextmanager
    def written(self, path: Path) -> Iterator[list[np.ndarray]]:
        if not self.mapped:
            with super().written(path) as results:
                yield results
            return
        shutil.copyfile(self.path, path)
        with _strict():
            maps = [tifffile.memmap(path, series=number, mode="r+") for number in range(len(self.values))]
        yield [m.reshape(v.array.shape) for m, v in zip(maps, self.values, strict=True)]
        for m in maps:
            m.flush()

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
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
        for tag in page.tags:
            if tag.code not in self.STRUCTURE:
                page.parent.filehandle.seek(tag.valueoffset)
                raw = page.parent.filehandle.read(tag.valuebytecount)
                options["extratags"].append((tag.code, int(tag.dtype), tag.count, raw, True))
        return options


def _check_page(page: Any, lossy: bool) -> None:
    """Raises InputError for pages that could not come out as they went in."""
    kinds = {3: "palette", 32803: "raw mosaic", 6: None if lossy else "YCbCr"}
    kind = kinds.get(page.photometric)
    if page.bitspersample not in (8, 16, 32, 64):
        kind = f"{page.bitspersample} bit"
    if page.imagedepth > 1:
        kind = "volumetric"
    if kind:
        raise InputError(f"is a {kind} TIFF; convert it to pages of 8 or 16 bit grey or RGB")


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


def _one_page_axis(array: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    """An array of a TIFF with all its stack axes as one, N, at most one of channels, and those of height and width.

    Letters are those of tifffile; a view where the pages lie side by side.
    """
    axes = tiff_axes(axes)
    if axes.count("C") > 1:  # channels of colour pictures: those are the pages, the samples are the channels
        axes = axes.replace("C", "N", 1)
    kept = [i for i, letter in enumerate(axes) if letter in "HW" or array.shape[i] > 1]
    array, axes = array.reshape([array.shape[i] for i in kept]), "".join(axes[i] for i in kept)
    if not set("HW") <= set(axes):
        raise InputError("holds no image with height and width")
    array, axes = merged(array, axes)
    if axes.count("N") > 1:
        raise InputError(f"has axes in the order {axes}, with channels between stacks; save it in another order")
    return array, axes
