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
from n2n_lightning.formats.picture import Packed, Picture, Values

# Where a header of this size states the type and the bits of a voxel, two int16.
TYPE_OFFSETS = {348: 70, 540: 12}
FLOAT32_CODE = 16
FLOAT32_BITS = 32
COPIED_AT_A_TIME = 2**24  # bytes


class Nifti(Picture):
    """A volume, or several of them in time, with the stored values.

    The header stays with scl_slope and scl_inter. .nii files are mapped; .nii.gz files are
    unpacked, to the disk if they are large.
    """

    kind = "NIfTI"
    volumes = True
    floats = True

    def _read(self) -> None:
        image: Any = nibabel.load(self.path)
        if not isinstance(image, nibabel.Nifti1Image):  # Nifti2 is one, too
            raise InputError("is no NIfTI file of one piece")
        dtype = image.get_data_dtype()
        if dtype.names or dtype.kind == "c":
            raise InputError(f"holds values of type {dtype}, which are no grey values")
        full = image.shape
        if not 2 <= len(full) <= 5 or min(full) < 1:
            raise InputError(f"its shape is {full}, which is no volume or series of volumes")
        letters, self.shape = squeezed("WHDTC"[: len(full)], full)
        self.dtype = dtype
        proxy: Any = image.dataobj
        self.offset = int(proxy.offset)
        self.packed = self.path.name.lower().endswith(".gz")
        array: np.ndarray | Packed
        if self.packed:
            self._check_size(dtype.itemsize * math.prod(full))
            array = Packed(self.shape, dtype, self._unpacked)
        else:
            array = mapped(self.path, dtype, self.offset, self.shape, "F")
        values = Values(array, letters, colour=False, full=full)
        values.unit = (float(proxy.slope), float(proxy.inter))
        zooms = [float(zoom) for zoom in image.header.get_zooms()[:3]]
        if "D" in letters and min(zooms) > 0:
            values.spacing = (zooms[2], zooms[1], zooms[0])
        self.values = [values]

    def _unpacked(self) -> np.ndarray:
        flat = room((math.prod(self.shape),), self.dtype)
        size = self.dtype.itemsize
        step = max(1, COPIED_AT_A_TIME // size)
        with gzip.open(self.path) as file:
            file.read(self.offset)
            for start in range(0, len(flat), step):
                piece = file.read(step * size)
                count = len(piece) // size
                if count < min(step, len(flat) - start):
                    raise InputError("is truncated")
                values = np.frombuffer(piece, self.dtype, count)
                flat[start : start + count] = values
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
        step = max(1, COPIED_AT_A_TIME // self.dtype.itemsize)
        with gzip.open(self.path) as source, gzip.open(path, "wb", compresslevel=6) as target:
            target.write(source.read(self.offset))  # the header and its extensions, as they are
            for start in range(0, len(flat), step):
                target.write(flat[start : start + step].tobytes())
            source.seek(self.offset + flat.nbytes)
            shutil.copyfileobj(source, target)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        """Write float32 values; the header changes its type alone.

        scl_slope and scl_inter mean the same of floats.
        """
        opener: Any = gzip.open if self.packed else open
        with opener(self.path, "rb") as source:
            head = bytearray(source.read(self.offset))
            size = math.prod(self.shape) * self.dtype.itemsize
            source.seek(self.offset + size)
            tail = source.read()
        order = "<"
        header_size = int.from_bytes(head[:4], "little")
        if header_size not in TYPE_OFFSETS:
            order = ">"
            header_size = int.from_bytes(head[:4], "big")
        place = TYPE_OFFSETS[header_size]
        struct.pack_into(f"{order}2h", head, place, FLOAT32_CODE, FLOAT32_BITS)
        flat = results[0].reshape(-1, order="F")
        step = COPIED_AT_A_TIME // 4
        with opener(path, "wb") as target:
            target.write(head)
            for start in range(0, len(flat), step):
                piece = flat[start : start + step].astype(f"{order}f4")
                target.write(piece.tobytes())
            target.write(tail)
