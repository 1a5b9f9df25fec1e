"""FITS files of astronomy (Pence et al., A&A 2010)."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from n2n_lightning.files import InputError, mapped
from n2n_lightning.formats import fits_planes
from n2n_lightning.formats.fits_planes import Plane
from n2n_lightning.formats.picture import MOSAICS, Picture, Values

# by BZERO alone
UNSIGNED = {"int16": (2**15, "uint16"), "int32": (2**31, "uint32"), "uint8": (-128, "int8")}


class Fits(Picture):
    """All images and cubes of a file, each HDU an array; tables stay as they are. The result is a copy of the file.

    HDUs of flags, errors and weights (fits_planes) stay as they are, too, and flags say which
    pixels are missing. `part` names an HDU: its number, its name, or name and version (`SCI,2`).

    Values are those that are stored, mapped; unsigned integers, which FITS stores with an offset
    (BZERO), are read as such. BSCALE and BZERO stay in the header, as all of it does; checksums are
    reckoned anew.
    """

    kind, named, floats = "FITS", True, True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        self.places: list[tuple[int, np.dtype, tuple[int, ...], int]] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of truncated files and headers that are wrong
            warnings.filterwarnings("ignore", category=fits.verify.VerifyWarning)
            # the last block may be unfilled
            warnings.filterwarnings("ignore", message="File may have been truncated")
            with fits.open(
                path, memmap=True, do_not_scale_image_data=True, lazy_load_hdus=False
            ) as file:
                ends = [int(hdu.fileinfo()["datLoc"]) + int(hdu.size) for hdu in file]
                if max(ends) > path.stat().st_size:
                    raise InputError("is truncated")
                planes = []
                for number, hdu in enumerate(file):
                    if isinstance(hdu, fits.CompImageHDU):
                        raise InputError("is compressed (fpack); funpack it")
                    if hdu.is_image and len(hdu.shape) >= 2:
                        planes.append(Plane.of(number, hdu))
                self.planes = fits_planes.selected(planes, part, path.name)
                for plane in self.planes:
                    self._add(plane.number, file[plane.number], path)
                    self.values[-1].invalid = self._flagged(plane, planes, file)
        if not self.values:
            raise InputError("holds no image of two axes or more")
        self._tell([plane for plane in planes if plane not in self.planes])

    def _add(self, number: int, hdu: Any, path: Path) -> None:
        header = hdu.header
        dtype = np.dtype(fits.hdu.image.BITPIX2DTYPE[header["BITPIX"]]).newbyteorder(">")
        shape = tuple(int(n) for n in hdu.shape if n != 1)
        if len(shape) < 2 or len(shape) > 3:
            raise InputError(
                f"its HDU {number} has the shape {hdu.shape}; images and cubes are read"
            )
        offset, scale, zero = (
            hdu.fileinfo()["datLoc"],
            header.get("BSCALE", 1),
            header.get("BZERO", 0),
        )
        array: np.ndarray = mapped(path, dtype, offset, shape)
        shift, unsigned = UNSIGNED.get(dtype.name, (0, ""))
        nodata_values: tuple[float, ...] = (
            (float(header["BLANK"]),) if "BLANK" in header and dtype.kind != "f" else ()
        )
        if shift and scale == 1 and zero == shift:
            array = (array.astype(np.int64) + shift).astype(unsigned)
            nodata_values = tuple(fill + shift for fill in nodata_values)
            scale, zero = 1, 0
        else:
            shift = 0
        self.places.append((offset, dtype, shape, shift))
        unit = (float(scale), float(zero))
        full = tuple(int(n) for n in hdu.shape)
        pattern = str(header.get("BAYERPAT") or header.get("COLORTYP") or "").strip().upper()
        colours = _colours(header, full)
        letters = "CHW" if colours else "NHW"[-len(shape) :]
        self.values.append(
            Values(
                array,
                letters,
                colour=colours,
                nodata_values=nodata_values,
                unit=unit,
                assumed=len(shape) == 3,
                full=full,
            )
        )
        if pattern in MOSAICS and not colours:
            self.values[-1].mosaic = pattern

    def _flagged(self, plane: Plane, planes: list[Plane], file: Any) -> np.ndarray | None:
        """The pixels of a picture that flags in the same file make missing, in its shape; None where there are none."""
        flags = fits_planes.flags_of(plane, planes, self.planes)
        if not flags:
            return None
        found = np.zeros(plane.shape, bool)
        for one in flags:
            header = file[one.number].header
            stored = np.asarray(file[one.number].data).reshape(one.shape)
            # bits are read without the offset that unsigned integers are stored with
            if stored.dtype.kind in "iu":
                stored = stored.astype(np.int64) + int(header.get("BZERO", 0))
            found |= fits_planes.bad(stored, header, file[0].header)
        return fits_planes.checked(found, plane, flags)

    def _tell(self, others: list[Plane]) -> None:
        """Notes what is copied, and how many pixels are missing."""
        if not others:
            return
        self.note = (
            f"{', '.join(map(str, others))} copied as {'it is' if len(others) == 1 else 'they are'}"
        )
        masks = [v.invalid for v in self.values if v.invalid is not None]
        if masks:
            count, total = sum(int(m.sum()) for m in masks), sum(m.size for m in masks)
            self.note += f"; {count:,} flagged pixels ({count / total:.1%}) left as they are, as missing ones"

    def _begin(self, path: Path) -> list[np.ndarray]:
        shutil.copyfile(self.path, path)
        # a last block that is not filled is filled, as the standard asks
        with path.open("ab") as file:
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
        self._sum(path)

    def _sum(self, path: Path) -> None:
        """Reckons the checksums of the images anew, where there are any."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, mode="update", memmap=True, do_not_scale_image_data=True) as file:
                for plane in self.planes:
                    hdu = file[plane.number]
                    if "DATASUM" in hdu.header:
                        hdu.add_checksum()

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        """Writes images of integers as floats in the unit that BSCALE and BZERO give them; BLANK becomes NaN."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(self.path, memmap=True, do_not_scale_image_data=True) as file:
                for plane, values, result in zip(self.planes, self.values, results, strict=True):
                    hdu, (scale, zero) = file[plane.number], values.unit
                    if result.dtype.name == values.dtype.name:
                        stored, header = result, hdu.header.copy()
                    else:
                        stored = (result.astype(np.float64) * scale + zero).astype(np.float32)
                        for fill in values.nodata_values:
                            stored[values.array == fill] = np.nan
                        header = hdu.header.copy()
                        for name in ("BSCALE", "BZERO", "BLANK"):
                            header.remove(name, ignore_missing=True)
                    kind = fits.PrimaryHDU if plane.number == 0 else fits.ImageHDU
                    file[plane.number] = kind(
                        stored.reshape(hdu.shape), header, do_not_scale_image_data=True
                    )
                file.writeto(path, overwrite=True, output_verify="ignore")
        self._sum(path)


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
