"""FITS files of astronomy (Pence et al., A&A 2010)."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from n2n_lightning.files import InputError, mapped
from n2n_lightning.formats.picture import Picture, Values

UNSIGNED = {"int16": (2**15, "uint16"), "int32": (2**31, "uint32"), "uint8": (-128, "int8")}  # by BZERO alone


class Fits(Picture):
    """All images and cubes of a file, each HDU an array; tables stay as they are. The result is a copy of the file.

    Values are those that are stored, mapped; unsigned integers, which FITS stores with an offset (BZERO), are read as
    such. BSCALE and BZERO stay in the header, as all of it does; checksums are reckoned anew.
    """

    kind = "FITS"

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        self.places: list[tuple[int, np.dtype, tuple[int, ...], int]] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of truncated files and headers that are wrong
            warnings.filterwarnings("ignore", category=fits.verify.VerifyWarning)
            warnings.filterwarnings("ignore", message="File may have been truncated")  # the last block may be unfilled
            with fits.open(path, memmap=True, do_not_scale_image_data=True, lazy_load_hdus=False) as file:
                ends = [int(hdu.fileinfo()["datLoc"]) + int(hdu.size) for hdu in file]
                if max(ends) > path.stat().st_size:
                    raise InputError("is truncated")
                for number, hdu in enumerate(file):
                    if isinstance(hdu, fits.CompImageHDU):
                        raise InputError("is compressed (fpack); funpack it")
                    if hdu.is_image and len(hdu.shape) >= 2:
                        self._add(number, hdu, path)
        if not self.values:
            raise InputError("holds no image of two axes or more")

    def _add(self, number: int, hdu: Any, path: Path) -> None:
        header = hdu.header
        dtype = np.dtype(fits.hdu.image.BITPIX2DTYPE[header["BITPIX"]]).newbyteorder(">")
        shape = tuple(int(n) for n in hdu.shape if n != 1)
        if len(shape) < 2 or len(shape) > 3:
            raise InputError(f"its HDU {number} has the shape {hdu.shape}; images and cubes are read")
        offset, scale, zero = hdu.fileinfo()["datLoc"], header.get("BSCALE", 1), header.get("BZERO", 0)
        array: np.ndarray = mapped(path, dtype, offset, shape)
        shift, unsigned = UNSIGNED.get(dtype.name, (0, ""))
        fills: tuple[float, ...] = (float(header["BLANK"]),) if "BLANK" in header and dtype.kind != "f" else ()
        if shift and scale == 1 and zero == shift:
            array = (array.astype(np.int64) + shift).astype(unsigned)
            fills = tuple(fill + shift for fill in fills)
            scale, zero = 1, 0
        else:
            shift = 0
        self.places.append((offset, dtype, shape, shift))
        unit = (float(scale), float(zero))
        full = tuple(int(n) for n in hdu.shape)
        colours = _colours(header, full)
        letters = "CHW" if colours else "NHW"[-len(shape) :]
        self.values.append(
            Values(array, letters, colour=colours, fills=fills, unit=unit, assumed=len(shape) == 3, full=full)
        )

    def _begin(self, path: Path) -> list[np.ndarray]:
        shutil.copyfile(self.path, path)
        with path.open("ab") as file:  # a last block that is not filled is filled, as the standard asks
            file.write(bytes(-self.path.stat().st_size % 2880))
        return [
            np.empty(shape, values.dtype) if shift else np.memmap(path, dtype, "r+", offset, shape)
            for (offset, dtype, shape, shift), values in zip(self.places, self.values, strict=True)
        ]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        for result, (offset, dtype, shape, shift) in zip(results, self.places, strict=True):
            if shift:
                stored = np.memmap(path, dtype, "r+", offset, shape)
                stored[...] = result.astype(np.int64) - shift
                stored.flush()
            else:
                result.flush()  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, mode="update", memmap=True, do_not_scale_image_data=True) as file:
                for hdu in file:
                    if "DATASUM" in hdu.header:
                        hdu.add_checksum()


def _colours(header: Any, full: tuple[int, ...]) -> bool:
    """Whether a cube is a colour picture: three planes, on an axis that the header gives no other meaning.

    Args:
        header: of the HDU.
        full: its shape, axes of length 1 among them.
    """
    long = [number for number, n in enumerate(full[::-1], 1) if n != 1]
    if len(long) != 3 or full[-long[2]] != 3:
        return False
    meaning = str(header.get(f"CTYPE{long[2]}", "")).strip().upper()
    return meaning in ("", "RGB", "COLOR", "COLOUR")
