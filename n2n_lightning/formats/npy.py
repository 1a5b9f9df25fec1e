"""NumPy's .npy files."""

import io
from pathlib import Path
from typing import Literal

import numpy as np

from n2n_lightning.files import reserve
from n2n_lightning.formats.picture import Picture, Values
from n2n_lightning.formats.raw_array import RawArray, flush
from n2n_lightning.formats.regions import MappedRegions, StoredLayout


class Npy(Picture):
    """An array, mapped into memory, of any size."""

    kind = "NPY"
    floats = True

    def _read(self) -> None:
        header = np.load(self.path, mmap_mode="r", allow_pickle=False)
        order: Literal["C", "F"] = "F" if np.isfortran(header) else "C"
        place = RawArray(header.dtype, header.offset, header.shape, order)
        self.values = [Values(place.read(self.path))]

    def regions(self) -> MappedRegions:
        """Return the array as what is read and written region by region."""
        return MappedRegions(self.path, self.values[0].array, self._layout)

    def _layout(self, dtype: np.dtype) -> StoredLayout:
        """Return what a file with values of a type looks like."""
        array = self.values[0].array
        fortran = np.isfortran(array)
        content = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": fortran,
            "shape": array.shape,
        }
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, content)
        head = header.getvalue()
        place = RawArray(dtype, len(head), array.shape, "F" if fortran else "C")
        return StoredLayout(place, head, self.path.stat().st_size)

    def _begin(self, path: Path) -> list[np.ndarray]:
        array = self.values[0].array
        fortran = np.isfortran(array)
        result = np.lib.format.open_memmap(path, "w+", array.dtype, array.shape, fortran)
        reserve(path)
        return [result]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        flush(results)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        with path.open("wb") as file:
            np.lib.format.write_array(file, results[0], allow_pickle=False)
