"""HDF5 files: several arrays with names."""

import shutil
from pathlib import Path

import h5py
import numpy as np

from n2n_lightning.formats.picture import Picture, Values, check_size, chosen


class Hdf5(Picture):
    """One array of a file, mapped where it lies in one piece; the result is a copy of the file with other values."""

    kind, named = "HDF5", True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with h5py.File(path, "r") as file:
            names: list[str] = []
            file.visititems(lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None)
            self.part = chosen(path, part, names)
            dataset = file[self.part]
            self.offset = dataset.id.get_offset() if dataset.dtype.isnative else None
            if self.offset is None:
                check_size(path.stat().st_size, dataset.size * dataset.dtype.itemsize)
                array = dataset[()]
            else:
                array = np.memmap(path, dataset.dtype, "c", self.offset, dataset.shape)
        self.values = [Values(array)]

    def _begin(self, path: Path) -> list[np.ndarray]:
        shutil.copyfile(self.path, path)
        if self.offset is None:
            return super()._begin(path)
        array = self.values[0].array
        return [np.memmap(path, array.dtype, "r+", self.offset, array.shape)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        if isinstance(results[0], np.memmap):
            results[0].flush()
            return
        with h5py.File(path, "r+") as file:
            file[self.part][...] = results[0]
