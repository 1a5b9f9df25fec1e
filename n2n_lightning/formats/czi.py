"""Files of Zeiss microscopes."""

import warnings

import czifile
import numpy as np

from n2n_lightning.formats.picture import Packed
from n2n_lightning.formats.read_only import ReadOnlyFormat


class Czi(ReadOnlyFormat):
    """All of a file as one array; the result is a TIFF."""

    kind = "CZI"

    def _read(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with czifile.CziFile(self.path) as file:
                letters = str(file.axes)
                shape = tuple(file.shape)
                dtype = np.dtype(file.dtype)
        if letters.endswith("0"):  # samples of a pixel
            letters = letters[:-1] + "S"
        self._take(Packed(shape, dtype, self._unpacked), letters)

    def _unpacked(self) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with czifile.CziFile(self.path) as file:
                array: np.ndarray = file.asarray(max_workers=1)
                return array
