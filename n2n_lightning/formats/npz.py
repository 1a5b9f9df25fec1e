"""NumPy's .npz files: several arrays with names."""

import shutil
import zipfile
from copy import copy
from pathlib import Path

import numpy as np

from n2n_lightning.formats.picture import Picture, Values, chosen


class Npz(Picture):
    """One array of an archive; the others stay as they are, byte by byte."""

    kind = "NPZ"
    named = True
    floats = True

    def _read(self) -> None:
        with zipfile.ZipFile(self.path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        self._check_size(unpacked)
        with np.load(self.path, allow_pickle=False) as arrays:
            self.part = chosen(self.path, self.part, list(arrays))
            self.values = [Values(arrays[self.part])]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        with zipfile.ZipFile(self.path) as source, zipfile.ZipFile(path, "w") as target:
            for member in source.infolist():
                with target.open(copy(member), "w", force_zip64=True) as file:
                    if member.filename.removesuffix(".npy") == self.part:
                        np.lib.format.write_array(file, results[0], allow_pickle=False)
                    else:
                        with source.open(member) as unchanged:
                            shutil.copyfileobj(unchanged, file)
