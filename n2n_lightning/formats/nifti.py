"""NIfTI files: volumes, and series of them, of magnetic resonance and other scanners."""

import gzip
import math
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from n2n_lightning.arrays.axes import squeezed
from n2n_lightning.files import InputError, room
from n2n_lightning.formats.picture import Packed, Picture, Values
from n2n_lightning.formats.raw_array import RawArray, flush
from n2n_lightning.formats.regions import MappedRegions, StoredLayout

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
        dimensions = len(full)
        if not 2 <= dimensions <= 5 or min(full) < 1:
            raise InputError(f"its shape is {full}, which is no volume or series of volumes")
        letters, shape = squeezed("WHDTC"[:dimensions], full)
        proxy: Any = image.dataobj
        self.place = RawArray(dtype, int(proxy.offset), shape, "F")
        self.packed = self.path.name.lower().endswith(".gz")
        array: np.ndarray | Packed
        if self.packed:
            self._check_size(dtype.itemsize * math.prod(full))
            array = Packed(shape, dtype, self._unpacked)
        else:
            array = self.place.read(self.path)
        values = Values(array, letters, colour=False, full=full)
        values.unit = (float(proxy.slope), float(proxy.inter))
        if "D" in letters:
            zooms = image.header.get_zooms()
            width, height, depth = map(float, zooms[:3])
            if min(width, height, depth) > 0:
                values.spacing = (depth, height, width)
        self.values = [values]

    def regions(self) -> MappedRegions | None:
        """Return the array as what is read and written region by region; None if it is packed."""
        if self.packed:
            return None
        return MappedRegions(self.path, self.values[0].array, self._layout)

    def _layout(self, dtype: np.dtype) -> StoredLayout:
        """Return what a file with values of a type looks like."""
        stored = self.place.dtype
        with self.path.open("rb") as file:
            head = bytearray(file.read(self.place.offset))
        if dtype.name != stored.name:
            stored = _declare_float32(head)
        place = replace(self.place, dtype=stored)
        return StoredLayout(place, bytes(head), self.place.end)

    def _unpacked(self) -> np.ndarray:
        array = self._room()
        with gzip.open(self.path) as file:
            file.read(self.place.offset)
            for piece in _pieces(array):
                content = file.read(piece.nbytes)
                if len(content) < piece.nbytes:
                    raise InputError("is truncated")
                piece[:] = np.frombuffer(content, piece.dtype)
            while file.read(COPIED_AT_A_TIME):  # its end has the checksum of all
                pass
        return array

    def _room(self) -> np.ndarray:
        """Return an array for the values, in their order."""
        flat = room((math.prod(self.place.shape),), self.place.dtype)
        array: np.ndarray = flat.reshape(self.place.shape, order="F")
        return array

    def _begin(self, path: Path) -> list[np.ndarray]:
        if self.packed:
            return [self._room()]
        shutil.copyfile(self.path, path)
        return [self.place.writable(path)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        if not self.packed:
            flush(results)
            return
        with gzip.open(self.path) as source, gzip.open(path, "wb", compresslevel=6) as target:
            header = source.read(self.place.offset)  # and its extensions
            target.write(header)
            for piece in _pieces(results[0]):
                target.write(piece.tobytes())
            source.seek(self.place.end)
            shutil.copyfileobj(source, target)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        """Write float32 values; the header changes its type alone."""
        opener: Any = gzip.open if self.packed else open
        with opener(self.path, "rb") as source:
            head = bytearray(source.read(self.place.offset))
            source.seek(self.place.end)
            tail = source.read()
        dtype = _declare_float32(head)
        with opener(path, "wb") as target:
            target.write(head)
            for piece in _pieces(results[0]):
                stored = piece.astype(dtype)
                target.write(stored.tobytes())
            target.write(tail)


def _declare_float32(head: bytearray) -> np.dtype:
    """Change a header: its values will be float32.

    scl_slope and scl_inter mean the same of floats.

    Args:
        head: the bytes before the values, changed in place.

    Returns:
        The type of the values, in the byte order of the file.
    """
    order = "<"
    header_size = int.from_bytes(head[:4], "little")
    if header_size not in TYPE_OFFSETS:
        order = ">"
        header_size = int.from_bytes(head[:4], "big")
    place = TYPE_OFFSETS[header_size]
    struct.pack_into(f"{order}2h", head, place, FLOAT32_CODE, FLOAT32_BITS)
    return np.dtype(f"{order}f4")


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the values of an array in NIfTI's order, piece by piece; views if it has this order."""
    flat = array.reshape(-1, order="F")
    step = max(1, COPIED_AT_A_TIME // array.itemsize)
    for start in range(0, len(flat), step):
        yield flat[start : start + step]
