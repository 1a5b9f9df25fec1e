"""NumPy's .npy files."""

from pathlib import Path

import numpy as np

from n2n_lightning.files import mapped, reserve
from n2n_lightning.formats.picture import Picture, Values


class Npy(Picture):
    """An array, mapped into memory, of any size."""

    kind = "NPY"
    floats = True

    def _read(self) -> None:
        header = np.load(self.path, mmap_mode="r", allow_pickle=False)
        order = "F" if np.isfortran(header) else "C"
        array = mapped(self.path, header.dtype, header.offset, header.shape, order)
        self.values = [Values(array)]

    def _begin(self, path: Path) -> list[np.ndarray]:
        array = self.values[0].array
        fortran = np.isfortran(array)
        result = np.lib.format.open_memmap(path, "w+", array.dtype, array.shape, fortran)
        reserve(path)
        return [result]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        results[0].flush()  # type: ignore[attr-defined]

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        with path.open("wb") as file:
            np.lib.format.write_array(file, results[0], allow_pickle=False)
