"""NumPy's .npz files: several arrays with names."""

import shutil
import zipfile
from copy import copy
from pathlib import Path

import numpy as np

from n2n_lightning.formats.picture import Picture, Values, check_size, chosen


class Npz(Picture):
    """One array of an archive; the others stay as they are, byte by byte."""

    kind, named, floats = "NPZ", True, True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with zipfile.ZipFile(path) as archive:
            check_size(path.stat().st_size, sum(member.file_size for member in archive.infolist()))
        with np.load(path, allow_pickle=False) as arrays:
            self.part = chosen(path, part, list(arrays))
            self.values = [Values(arrays[self.part])]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        with zipfile.ZipFile(self.path) as old, zipfile.ZipFile(path, "w") as new:
            for member in old.infolist():
                with new.open(copy(member), "w", force_zip64=True) as file:
                    if member.filename.removesuffix(".npy") == self.part:
                        np.lib.format.write_array(file, results[0], allow_pickle=False)
                    else:
                        with old.open(member) as before:
                            shutil.copyfileobj(before, file)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        self._save(path, results)
