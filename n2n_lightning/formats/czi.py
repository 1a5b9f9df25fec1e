"""Files of Zeiss microscopes."""

import warnings
from pathlib import Path

import czifile

from n2n_lightning.formats.foreign import Foreign


class Czi(Foreign):
    """All of a file as one array; it comes out as TIFF."""

    kind = "CZI"

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with czifile.CziFile(path) as file:
                array, letters = file.asarray(max_workers=1), str(file.axes)
        letters = letters[:-1] + ("S" if letters.endswith("0") else letters[-1])  # samples of a pixel
        self._take(array, letters)
