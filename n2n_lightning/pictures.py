"""Pictures that come out as they went in: same size, type, bit depth, channels, transparency and metadata.

`opened(path)` gives a picture's values as arrays, mapped from the file where its kind allows that; `Picture.written`
makes a file of the same kind, with everything that is not a value taken from the first one.
"""

import contextlib
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from n2n_lightning.files import InputError
from n2n_lightning.restore import TYPES

KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".npy": "NPY"}
# A file that unpacks to more than this many bytes must not be smaller than a share of them.
LARGE, RATIO = 2**30, 300


@dataclass
class Values:
    """An array of a picture: its pixels, what its axes are (letters of NCHW), and whether the last channel is alpha."""

    array: np.ndarray
    axes: str
    alpha: bool = False


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


def opened(path: Path) -> Picture:
    """The picture in a file.

    Raises:
        InputError: the file is missing, damaged, or of a kind that cannot come out as it went in.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: is none of {', '.join(KINDS)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        picture: Picture = {"PNG": Png, "JPEG": Jpeg, "TIFF": Tiff, "NPY": Npy}[kind](path)
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

    def __init__(self, path: Path) -> None:
        from n2n_lightning.restore import guess_axes

        super().__init__(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        axes = guess_axes(array.shape)
        alpha = "C" in axes and array.shape[axes.index("C")] in (2, 4)
        self.values = [Values(array, axes, alpha)]

    @contextlib.contextmanager
    def written(self, path: Path) -> Iterator[list[np.ndarray]]:
        array = self.values[0].array
        result = np.lib.format.open_memmap(path, "w+", array.dtype, array.shape, np.isfortran(array))
        yield [result]
        result.flush()


class Jpeg(Picture):
    """A photograph; written with quality 95 and its own chroma sampling, EXIF data, colour profile and comment."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        from PIL import Image, JpegImagePlugin

        with path.open("rb") as file, contextlib.closing(JpegImagePlugin.JpegImageFile(file)) as image:
            _check_size(path.stat().st_size, image.width * image.height * 3)
            if image.mode not in ("L", "RGB"):
                raise InputError(f"is a {image.mode} JPEG; convert it to RGB")
            image.info.pop("jfif", None)
            names = ("icc_profile", "exif", "dpi", "comment")
            self.options = {name: image.info[name] for name in names if image.info.get(name)}
            self.options |= {"progressive": bool(image.info.get("progressive")), "quality": 95}
            self.options["subsampling"] = JpegImagePlugin.get_sampling(image) if image.mode == "RGB" else -1
            self.values = [Values(np.asarray(image), "HW" if image.mode == "L" else "HWC")]
        self.image = Image

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        self.image.fromarray(results[0]).save(path, format="JPEG", **self.options)


class Png(Picture):
    """8 or 16 bits, grey or colour, with or without transparency; palettes become colours."""

    # What the chunks say is independent of how the pixels are stored (PNG specification, third edition, chapter 11).
    KEPT = (b"cHRM", b"cICP", b"gAMA", b"iCCP", b"sRGB", b"pHYs", b"eXIf", b"tIME", b"tEXt", b"zTXt", b"iTXt")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        import imagecodecs

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
        self.kept = [(name, data) for name, data in chunks if name in self.KEPT]
        array = imagecodecs.png_decode(content)
        axes = "HW" if array.ndim == 2 else "HWC"
        self.values = [Values(array, axes, array.ndim == 3 and array.shape[2] in (2, 4))]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        import imagecodecs

        content = bytes(imagecodecs.png_encode(np.ascontiguousarray(results[0])))
        head, rest = content[:33], content[33:]  # the signature and the header chunk, before which nothing may come
        with path.open("wb") as file:
            file.write(head)
            for name, data in self.kept:
                file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
            file.write(rest)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the chunks of a PNG file."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        raise InputError("is no PNG file")
    place = 8
    while place + 8 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        yield content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length


class Tiff(Picture):
    """Scientific and other TIFF files. Where the values lie in the file as they are, the file is copied and only they
    are changed; where they are compressed, pages are written anew with the same compression and tags.
    """

    # Tags that say how pixels are stored, which the writer does itself, and tags that point into the old file.
    STRUCTURE = frozenset(
        [254, 256, 257, 258, 259, 262, 266, 270, 273, 277, 278, 279, 282, 283, 284, 288, 289, 296, 305, 306, 317, 322]
    ) | {323, 324, 325, 330, 338, 339, 347, 512, 513, 514, 519, 520, 521, 529, 530, 531, 532, 34665, 34853, 40965}

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        import tifffile

        with tifffile.TiffFile(path) as file:
            self.series = list(file.series)
            if not self.series:
                raise InputError("holds no pixels")
            self.bigtiff, self.byteorder = file.is_bigtiff, file.byteorder
            for frame in file.pages:
                page: Any = frame.aspage()
                if page.subifds or any(len(s.levels) > 1 for s in self.series):
                    raise InputError("has its image in several resolutions; export the full one alone")
                if page.photometric in (3, 32803) or page.bitspersample not in (8, 16, 32, 64):
                    kind = {3: "palette", 32803: "raw mosaic"}.get(page.photometric, f"{page.bitspersample} bit")
                    raise InputError(f"is a {kind} TIFF; convert it to 8 or 16 bit grey or RGB")
            self.mapped = all(s.dataoffset is not None for s in self.series)
            _check_size(path.stat().st_size, sum(s.nbytes for s in self.series))
            for number, series in enumerate(self.series):
                array: Any = tifffile.memmap(path, series=number, mode="r") if self.mapped else series.asarray()
                axes = "".join({"Y": "H", "X": "W", "S": "C", "C": "C"}.get(letter, "N") for letter in series.axes)
                extra = series.keyframe.extrasamples
                alpha = len(extra) == 1 and extra[0] in (1, 2) and "S" in series.axes
                self.values.append(Values(*_one_page_axis(array.reshape(series.shape), axes), alpha))
            if not self.mapped:
                self.pages = [[_tags(p.aspage(), self.STRUCTURE) for p in s.pages if p] for s in self.series]

    @contextlib.contextmanager
    def written(self, path: Path) -> Iterator[list[np.ndarray]]:
        if not self.mapped:
            with super().written(path) as results:
                yield results
            return
        import tifffile

        shutil.copyfile(self.path, path)
        maps = [tifffile.memmap(path, series=number, mode="r+") for number in range(len(self.series))]
        yield [m.reshape(v.array.shape) for m, v in zip(maps, self.values, strict=True)]
        for m in maps:
            m.flush()

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        import tifffile

        with tifffile.TiffWriter(path, bigtiff=self.bigtiff, byteorder=self.byteorder) as writer:
            for series, tags, result in zip(self.series, self.pages, results, strict=True):
                for page, options in zip(result.reshape(-1, *series.keyframe.shape), tags, strict=True):
                    writer.write(page, metadata=None, software=False, contiguous=False, **options)


def _one_page_axis(array: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    """All stack axes as one, N, and at most one axis of channels; a view where they lie side by side."""
    if axes.count("C") > 1:  # channels of colour pictures: those are the pages, the samples are the channels
        axes = axes.replace("C", "N", 1)
    first, count = axes.find("N"), axes.count("N")
    if count > 1:
        if axes[first : first + count] != "N" * count:
            raise InputError(f"has axes in the order {axes}, with channels between stacks; save it in another order")
        array = array.reshape(*array.shape[:first], -1, *array.shape[first + count :])
        axes = axes.replace("N" * count, "N")
    return array, axes


def _tags(page: Any, structure: frozenset[int]) -> dict[str, Any]:
    """What tifffile's writer needs to write a page as it was."""
    compression: Any = page.compression
    predictor: Any = page.predictor if page.predictor > 1 else None
    if compression.name in ("JPEG", "OJPEG", "JPEG_LOSSY", "JPEGXL", "WEBP", "JPEG2000", "APERIO_JP2000_RGB"):
        compression, predictor = "adobe_deflate", None  # lossy: once was enough
    options: dict[str, Any] = {
        "photometric": "rgb" if page.photometric.name == "YCBCR" else page.photometric,
        "planarconfig": page.planarconfig if page.samplesperpixel > 1 else None,
        "extrasamples": page.extrasamples or None,
        "compression": None if compression == 1 else compression,
        "predictor": predictor,
        "tile": (page.tilelength, page.tilewidth) if page.is_tiled else None,
        "rowsperstrip": None if page.is_tiled else page.rowsperstrip,
        "subfiletype": page.subfiletype or None,
        "description": page.description.encode() if page.description else None,
        "datetime": page.tags[306].value if 306 in page.tags else None,
        "extratags": [],
    }
    if 282 in page.tags and 283 in page.tags:
        options["resolution"] = (page.tags[282].value, page.tags[283].value)
        options["resolutionunit"] = page.tags[296].value if 296 in page.tags else 2
    kept = [tag for tag in page.tags if tag.code not in structure or tag.code == 305]
    for tag in kept:
        if isinstance(tag.value, str | bytes | int | float | tuple):
            options["extratags"].append((tag.code, int(tag.dtype), tag.count, tag.value, True))
    return options
