"""NIfTI files: volumes, and series of them, of magnetic resonance and other scanners."""

import gzip
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from n2n_lightning.arrays.axes import squeezed
from n2n_lightning.files import InputError, mapped, room
from n2n_lightning.formats.picture import Packed, Picture, Values, check_size

# where the header of this size has datatype and bits of a voxel, two int16
TYPE = {348: 70, 540: 12}
FLOAT32 = 16, 32  # these two of float32
PIECE = 2**24  # bytes that are copied at a time


class Nifti(Picture):
    """A volume, or several of them in time, as stored: scl_slope and scl_inter stay in the header, as all of it does.

    .nii files are mapped. What .nii.gz hold is unpacked, to the disk where it is large.
    """

    kind, volumes, floats = "NIfTI", True, True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        image: Any = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):  # Nifti2 is one, too
            raise InputError("is no NIfTI file of one piece")
        header, dtype, shape = image.header, image.get_data_dtype(), image.shape
        proxy: Any = image.dataobj
        self.offset, self.packed = int(proxy.offset), path.name.lower().endswith(".gz")
        if dtype.names or dtype.kind == "c":
            raise InputError(f"holds values of type {dtype}, which are no grey values")
        letters = "WHDTC"[: len(shape)]
        if len(shape) > 5 or len(shape) < 2 or min(shape) < 1:
            raise InputError(f"its shape is {shape}, which is no volume or series of volumes")
        letters, self.shape = squeezed(letters, shape)
        self.dtype = dtype
        array: np.ndarray | Packed
        if self.packed:
            check_size(path.stat().st_size, dtype.itemsize * math.prod(shape))
            array = Packed(self.shape, dtype, self._unpacked)
        else:
            array = mapped(path, dtype, self.offset, self.shape, "F")
        slope, inter = (float(n) for n in (proxy.slope, proxy.inter))
        zooms = [float(z) for z in header.get_zooms()[:3]]
        spacing = (zooms[2], zooms[1], zooms[0]) if "D" in letters and min(zooms) > 0 else None
        self.values = [
            Values(array, letters, colour=False, spacing=spacing, unit=(slope, inter), full=shape)
        ]

    def _unpacked(self) -> np.ndarray:
        flat = room((math.prod(self.shape),), self.dtype)
        with gzip.open(self.path) as file:
            file.read(self.offset)
            step = max(1, PIECE // self.dtype.itemsize)
            for start in range(0, len(flat), step):
                part = file.read(step * self.dtype.itemsize)
                found = np.frombuffer(
                    part[: len(part) // self.dtype.itemsize * self.dtype.itemsize], self.dtype
                )
                if len(found) < min(step, len(flat) - start):
                    raise InputError("is truncated")
                flat[start : start + len(found)] = found
        return flat.reshape(self.shape, order="F")

    def _begin(self, path: Path) -> list[np.ndarray]:
        if self.packed:
            flat = room((math.prod(self.shape),), self.dtype)
            return [flat.reshape(self.shape, order="F")]
        shutil.copyfile(self.path, path)
        return [np.memmap(path, self.dtype, "r+", self.offset, self.shape, "F")]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        (values,) = results
        if not self.packed:
            values.flush()  # type: ignore[attr-defined]
            return
        flat = values.reshape(-1, order="F")
        step = max(1, PIECE // self.dtype.itemsize)
        with gzip.open(self.path) as old, gzip.open(path, "wb", compresslevel=6) as new:
            new.write(old.read(self.offset))  # the header and its extensions, as they are
            for start in range(0, len(flat), step):
                new.write(flat[start : start + step].tobytes())
            old.seek(self.offset + flat.nbytes)
            shutil.copyfileobj(old, new)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        """Writes the header and its extensions with another type; scl_slope and scl_inter mean the same of floats."""
        opener: Any = gzip.open if self.packed else open
        with opener(self.path, "rb") as old:
            head = bytearray(old.read(self.offset))
            old.seek(self.offset + self.dtype.itemsize * math.prod(self.shape))
            rest = old.read()
        order = "<" if struct.unpack("<i", head[:4])[0] in TYPE else ">"
        place = TYPE[struct.unpack(f"{order}i", head[:4])[0]]
        struct.pack_into(f"{order}2h", head, place, *FLOAT32)
        flat = results[0].reshape(-1, order="F")
        step = PIECE // 4
        with opener(path, "wb") as new:
            new.write(head)
            for start in range(0, len(flat), step):
                new.write(flat[start : start + step].astype(f"{order}f4").tobytes())
            new.write(rest)
