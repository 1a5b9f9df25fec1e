"""FITS files of astronomy (Pence et al., A&A 2010)."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from n2n_lightning.files import InputError
from n2n_lightning.formats import fits_planes
from n2n_lightning.formats.fits_planes import Plane
from n2n_lightning.formats.picture import MOSAICS, Packed, Picture, Values
from n2n_lightning.formats.raw_array import RawArray, flush
from n2n_lightning.formats.regions import MappedRegions, Region, StoredLayout

# Types that FITS stores with an offset (BZERO): stored type, offset, type of the values.
UNSIGNED = {
    "int16": (2**15, "uint16"),
    "int32": (2**31, "uint32"),
    "uint8": (-128, "int8"),
}
BLOCK_BYTES = 2880  # bytes; a file is a whole number of blocks


@dataclass(frozen=True)
class StoredImage:
    """An image of a file.

    Attributes:
        place: of the stored values, without axes of length 1.
        shift: value - stored value of an unsigned integer, or 0.
    """

    place: RawArray
    shift: int


class Fits(Picture):
    """All images and cubes of a file, each HDU an array; the result is a copy of the file.

    Tables stay as they are, and so do HDUs of flags, errors and weights (fits_planes); flags mark
    missing pixels. `part` names an HDU: its number, its name, or name and version (`SCI,2`).

    Values are the stored ones, mapped; unsigned integers, which FITS stores with an offset (BZERO),
    are read as such. The header stays, BSCALE and BZERO included; checksums are computed anew.
    """

    kind = "FITS"
    named = True
    floats = True

    def _read(self) -> None:
        self.images: list[StoredImage] = []
        size = self.path.stat().st_size
        with _open_fits(self.path) as file:
            ends = [_data_offset(hdu) + int(hdu.size) for hdu in file]
            if max(ends) > size:
                raise InputError("is truncated")
            planes: list[Plane] = []
            for number, hdu in enumerate(file):
                if isinstance(hdu, fits.CompImageHDU):
                    raise InputError("is compressed (fpack); funpack it")
                if hdu.is_image and len(hdu.shape) >= 2:
                    planes.append(Plane.of(number, hdu))
            self.planes = fits_planes.selected(planes, self.part, self.path.name)
            for plane in self.planes:
                values = self._values_of(plane.number, file[plane.number])
                values.invalid = self._flagged(plane, planes, file)
                self.values.append(values)
        if not self.values:
            raise InputError("holds no image of two axes or more")
        others = [plane for plane in planes if plane not in self.planes]
        self._note_copied(others)

    def _values_of(self, number: int, hdu: Any) -> Values:
        """Return the values of an HDU, and remember their place."""
        header = hdu.header
        full = tuple(int(n) for n in hdu.shape)
        shape = tuple(n for n in full if n != 1)
        if len(shape) not in (2, 3):
            raise InputError(
                f"its HDU {number} has the shape {hdu.shape}; images and cubes are read"
            )
        type_name = fits.hdu.image.BITPIX2DTYPE[header["BITPIX"]]
        dtype = np.dtype(type_name).newbyteorder(">")
        scale = header.get("BSCALE", 1)
        zero = header.get("BZERO", 0)
        place = RawArray(dtype, _data_offset(hdu), shape)
        array = place.read(self.path)
        nodata_values: tuple[float, ...] = ()
        if "BLANK" in header and dtype.kind != "f":
            nodata_values = (float(header["BLANK"]),)
        shift, unsigned = UNSIGNED.get(dtype.name, (0, ""))
        stored: np.ndarray | Packed = array
        if shift and scale == 1 and zero == shift:
            kind = np.dtype(unsigned)
            stored = Packed(shape, kind, partial(_unsigned, array, kind, shift))
            nodata_values = tuple(value + shift for value in nodata_values)
            zero = 0
        else:
            shift = 0
        self.images.append(StoredImage(place, shift))
        axes = "NHW" if len(shape) == 3 else "HW"
        values = Values(stored, axes, colour=False, full=full)
        values.nodata_values = nodata_values
        values.unit = (float(scale), float(zero))
        values.assumed = len(shape) == 3
        if _is_colour(header, full):
            values.axes = "CHW"
            values.colour = True
        else:
            pattern = _text(header, "BAYERPAT") or _text(header, "COLORTYP")
            values.mosaic = pattern if pattern in MOSAICS else ""
        return values

    def _flagged(self, plane: Plane, planes: list[Plane], file: Any) -> np.ndarray | None:
        """Return the mask of the flagged pixels of a picture, in its shape; None without flags."""
        flags = fits_planes.flags_of(plane, planes, self.planes)
        if not flags:
            return None
        invalid = np.zeros(plane.shape, bool)
        for flag in flags:
            header = file[flag.number].header
            data = np.asarray(file[flag.number].data)
            stored = data.reshape(flag.shape)
            # bits are read without the offset that unsigned integers are stored with
            if stored.dtype.kind in "iu":
                offset = int(header.get("BZERO", 0))
                stored = stored.astype(np.int64) + offset
            invalid |= fits_planes.bad(stored, header, file[0].header)
        fits_planes.check_flagged_share(invalid, plane, flags)
        return invalid

    def _note_copied(self, others: list[Plane]) -> None:
        """Note the planes that are copied, and how many pixels are missing."""
        if not others:
            return
        verb = "it is" if len(others) == 1 else "they are"
        names = ", ".join(map(str, others))
        self.note = f"{names} copied as {verb}"
        flagged = 0
        total = 0
        for values in self.values:
            if values.invalid is not None:
                flagged += int(values.invalid.sum())
                total += values.invalid.size
        if total:
            share = flagged / total
            self._remark(
                f"{flagged:,} flagged pixels ({share:.1%}) left as they are, as missing ones"
            )

    def regions(self) -> MappedRegions | None:
        """Return the array as what is read and written region by region; None if there are more."""
        if len(self.images) != 1:
            return None
        (image,) = self.images
        (values,) = self.values
        stored = image.place.read(self.path)
        regions = MappedRegions(self.path, stored, self._layout, self._finish)
        if image.shift:
            return ShiftedRegions(regions, values.dtype, image.shift)
        return regions

    def _layout(self, dtype: np.dtype) -> StoredLayout | None:
        """Return what a file with values of a type looks like; None for another type."""
        (image,) = self.images
        (values,) = self.values
        if dtype.name != values.dtype.name:
            return None
        return StoredLayout(image.place, None, image.place.end)

    def _finish(self, path: Path) -> None:
        """Fill the last block, as the standard asks, and compute checksums."""
        with path.open("ab") as file:
            file.write(bytes(-file.tell() % BLOCK_BYTES))
        self._renew_checksums(path)

    def _begin(self, path: Path) -> list[np.ndarray]:
        shutil.copyfile(self.path, path)
        # an unfilled last block is filled, as the standard asks
        size = self.path.stat().st_size
        padding = -size % BLOCK_BYTES
        with path.open("ab") as file:
            file.write(bytes(padding))
        results: list[np.ndarray] = []
        for image, values in zip(self.images, self.values, strict=True):
            if image.shift:
                results.append(np.empty(values.shape, values.dtype))
            else:
                results.append(image.place.writable(path))
        return results

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        stored: list[np.ndarray] = []
        for result, image in zip(results, self.images, strict=True):
            if image.shift:
                signed = image.place.writable(path)
                signed[...] = result.astype(np.int64) - image.shift
                stored.append(signed)
            else:
                stored.append(result)
        flush(stored)
        self._renew_checksums(path)

    def _renew_checksums(self, path: Path) -> None:
        """Compute the checksums of the images anew, if there are any."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, mode="update", memmap=True, do_not_scale_image_data=True) as file:
                for plane in self.planes:
                    hdu = file[plane.number]
                    if "DATASUM" in hdu.header:
                        hdu.add_checksum()

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        """Write images of integers as float32 in physical units (BSCALE, BZERO); BLANK is NaN."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(self.path, memmap=True, do_not_scale_image_data=True) as file:
                for plane, values, result in zip(self.planes, self.values, results, strict=True):
                    hdu = file[plane.number]
                    header = hdu.header.copy()
                    if result.dtype.name != values.dtype.name:
                        result = _physical(result, values)
                        for name in ("BSCALE", "BZERO", "BLANK"):
                            header.remove(name, ignore_missing=True)
                    hdu_class = fits.ImageHDU if plane.number else fits.PrimaryHDU
                    stored = result.reshape(hdu.shape)
                    file[plane.number] = hdu_class(stored, header, do_not_scale_image_data=True)
                file.writeto(path, overwrite=True, output_verify="ignore")
        self._renew_checksums(path)


@contextmanager
def _open_fits(path: Path) -> Iterator[Any]:
    """Open a file; warnings of truncation and of wrong headers are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=fits.verify.VerifyWarning)
        # the last block may be unfilled
        warnings.filterwarnings("ignore", message="File may have been truncated")
        options = {"memmap": True, "do_not_scale_image_data": True, "lazy_load_hdus": False}
        with fits.open(path, **options) as file:
            yield file


def _unsigned(stored: np.ndarray, dtype: np.dtype, shift: int) -> np.ndarray:
    """Return integers that are stored with an offset."""
    shifted = stored.astype(np.int64) + shift
    values: np.ndarray = shifted.astype(dtype)
    return values


class ShiftedRegions(MappedRegions):
    """Unsigned integers of a file, which stores them with an offset.

    Args:
        regions: the stored integers.
        dtype: unsigned.
        shift: value - stored value.
    """

    def __init__(self, regions: MappedRegions, dtype: np.dtype, shift: int) -> None:
        super().__init__(regions.path, regions.source, regions.layout, regions.finish)
        self.dtype = dtype
        self.shift = shift

    def read(self, region: Region) -> np.ndarray:
        """Return the values of a region."""
        return _unsigned(super().read(region), self.dtype, self.shift)

    @contextmanager
    def writer(self, path: Path, dtype: np.dtype) -> Iterator["_ShiftedSink"]:
        """Map the values of a result; they are on the disk when the block ends."""
        with super().writer(path, dtype) as stored:
            yield _ShiftedSink(stored, self.shift)


class _ShiftedSink:
    """Stored integers that take unsigned ones."""

    def __init__(self, stored: Any, shift: int) -> None:
        self._stored = stored
        self._shift = shift

    def __setitem__(self, region: Region, values: np.ndarray) -> None:
        self._stored[region] = values.astype(np.int64) - self._shift


def _data_offset(hdu: Any) -> int:
    """Return the position of the first value of an HDU, in bytes."""
    return int(hdu.fileinfo()["datLoc"])


def _text(header: Any, name: str) -> str:
    """Return a value of a header in capitals; empty if there is none."""
    value = header.get(name) or ""
    return str(value).strip().upper()


def _physical(result: np.ndarray, values: Values) -> np.ndarray:
    """Return results in physical units, float32; NaN where the source has no data."""
    scale, zero = values.unit
    scaled = result.astype(np.float64) * scale + zero
    physical = scaled.astype(np.float32)
    for value in values.nodata_values:
        physical[values.array == value] = np.nan
    return physical


def _is_colour(header: Any, full: tuple[int, ...]) -> bool:
    """Return True if a cube is a colour picture.

    It has three planes, on an axis that the header gives no other meaning.

    Args:
        header: of the HDU.
        full: its shape with axes of length 1.
    """
    sides: dict[int, int] = {}
    for axis, side in enumerate(reversed(full), 1):  # as FITS counts, from the last
        if side != 1:
            sides[axis] = side
    if len(sides) != 3:
        return False
    axis, side = sides.popitem()
    meaning = str(header.get(f"CTYPE{axis}", "")).strip().upper()
    return side == 3 and meaning in ("", "RGB", "COLOR", "COLOUR")
