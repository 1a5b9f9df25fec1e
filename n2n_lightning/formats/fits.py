"""FITS files of astronomy (Pence et al., A&A 2010)."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from n2n_lightning.files import InputError, mapped
from n2n_lightning.formats import fits_planes
from n2n_lightning.formats.fits_planes import Plane
from n2n_lightning.formats.picture import MOSAICS, Picture, Values

# Types that FITS stores with an offset (BZERO): stored type, offset, type of the values.
UNSIGNED = {"int16": (2**15, "uint16"), "int32": (2**31, "uint32"), "uint8": (-128, "int8")}
BLOCK_BYTES = 2880  # bytes; a file is a whole number of blocks


@dataclass(frozen=True)
class Placed:
    """The position of an image in a file.

    Attributes:
        offset: position of the first value, in bytes.
        dtype: of the stored values.
        shape: without axes of length 1.
        shift: value - stored value of an unsigned integer, or 0.
    """

    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    shift: int

    def mapped_in(self, path: Path) -> np.memmap:
        """Map the stored values of a copy of the file, for writing.

        Args:
            path: of the copy.

        Returns:
            The values in the file's type, without `shift`.
        """
        return np.memmap(path, self.dtype, "r+", self.offset, self.shape)


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
        self.places: list[Placed] = []
        with _open_fits(self.path) as file:
            ends = [int(hdu.fileinfo()["datLoc"]) + int(hdu.size) for hdu in file]
            if max(ends) > self.path.stat().st_size:
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
        self._note_copied([plane for plane in planes if plane not in self.planes])

    def _values_of(self, number: int, hdu: Any) -> Values:
        """Return the values of an HDU, and remember their place."""
        header = hdu.header
        full = tuple(int(n) for n in hdu.shape)
        shape = tuple(n for n in full if n != 1)
        if len(shape) < 2 or len(shape) > 3:
            raise InputError(
                f"its HDU {number} has the shape {hdu.shape}; images and cubes are read"
            )
        dtype = np.dtype(fits.hdu.image.BITPIX2DTYPE[header["BITPIX"]]).newbyteorder(">")
        offset = hdu.fileinfo()["datLoc"]
        scale = header.get("BSCALE", 1)
        zero = header.get("BZERO", 0)
        array: np.ndarray = mapped(self.path, dtype, offset, shape)
        nodata_values: tuple[float, ...] = ()
        if "BLANK" in header and dtype.kind != "f":
            nodata_values = (float(header["BLANK"]),)
        shift, unsigned = UNSIGNED.get(dtype.name, (0, ""))
        if shift and scale == 1 and zero == shift:
            array = (array.astype(np.int64) + shift).astype(unsigned)
            nodata_values = tuple(value + shift for value in nodata_values)
            zero = 0
        else:
            shift = 0
        self.places.append(Placed(offset, dtype, shape, shift))
        values = Values(array, "NHW"[-len(shape) :], colour=False, full=full)
        values.nodata_values = nodata_values
        values.unit = (float(scale), float(zero))
        values.assumed = len(shape) == 3
        if _is_colour(header, full):
            values.axes = "CHW"
            values.colour = True
        else:
            pattern = str(header.get("BAYERPAT") or header.get("COLORTYP") or "").strip().upper()
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
            stored = np.asarray(file[flag.number].data).reshape(flag.shape)
            # bits are read without the offset that unsigned integers are stored with
            if stored.dtype.kind in "iu":
                stored = stored.astype(np.int64) + int(header.get("BZERO", 0))
            invalid |= fits_planes.bad(stored, header, file[0].header)
        fits_planes.check_flagged_share(invalid, plane, flags)
        return invalid

    def _note_copied(self, others: list[Plane]) -> None:
        """Note the planes that are copied, and how many pixels are missing."""
        if not others:
            return
        verb = "it is" if len(others) == 1 else "they are"
        self.note = f"{', '.join(map(str, others))} copied as {verb}"
        flagged = 0
        total = 0
        for values in self.values:
            if values.invalid is not None:
                flagged += int(values.invalid.sum())
                total += values.invalid.size
        if total:
            share = f"{flagged / total:.1%}"
            self.note += f"; {flagged:,} flagged pixels ({share}) left as they are, as missing ones"

    def _begin(self, path: Path) -> list[np.ndarray]:
        shutil.copyfile(self.path, path)
        # an unfilled last block is filled, as the standard asks
        with path.open("ab") as file:
            file.write(bytes(-self.path.stat().st_size % BLOCK_BYTES))
        results: list[np.ndarray] = []
        for place, values in zip(self.places, self.values, strict=True):
            if place.shift:
                results.append(np.empty(place.shape, values.dtype))
            else:
                results.append(place.mapped_in(path))
        return results

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        for result, place in zip(results, self.places, strict=True):
            if place.shift:
                stored = place.mapped_in(path)
                stored[...] = result.astype(np.int64) - place.shift
                stored.flush()
            else:
                result.flush()  # type: ignore[attr-defined]
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
                    kind = fits.PrimaryHDU if plane.number == 0 else fits.ImageHDU
                    stored = result.reshape(hdu.shape)
                    file[plane.number] = kind(stored, header, do_not_scale_image_data=True)
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
    # as FITS counts, from the last
    long_axes = [axis for axis in range(1, len(full) + 1) if full[-axis] != 1]
    if len(long_axes) != 3:
        return False
    axis = long_axes[2]
    if full[-axis] != 3:
        return False
    meaning = str(header.get(f"CTYPE{axis}", "")).strip().upper()
    return meaning in ("", "RGB", "COLOR", "COLOUR")
