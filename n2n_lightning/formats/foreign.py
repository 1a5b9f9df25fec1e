"""Files of instruments that are read here and written as TIFF."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from n2n_lightning.files import InputError, room
from n2n_lightning.formats.picture import Picture, Values

OURS = {"T": "T", "C": "C", "Z": "D", "Y": "H", "X": "W", "S": "C"}


class Foreign(Picture):
    """A picture whose result is an OME-TIFF with its axes and the size of its voxels, and nothing else of the file."""

    def _take(self, array: np.ndarray, letters: str, microns: Sequence[float | None] = ()) -> None:
        """Sets the values.

        Args:
            array: of any shape.
            letters: the library's names of its axes.
            microns: the distance of voxels along Z, Y and X, where it is known.
        """
        kept = [i for i, n in enumerate(array.shape) if n > 1 or letters[i] in "YX"]
        array, letters = array.reshape([array.shape[i] for i in kept]), "".join(letters[i] for i in kept)
        colour = "S" in letters
        if colour and "C" in letters:
            raise InputError("has colours and channels; export its channels apart")
        self.letters = "".join(OURS.get(letter, "N") for letter in letters)
        self.microns = tuple(float(m) for m in microns if m)
        spacing = (self.microns[0], self.microns[1], self.microns[2]) if len(self.microns) == 3 else None
        self.note = "as OME-TIFF"
        self.values = [Values(array, self.letters, colour=colour, spacing=spacing if "D" in self.letters else None)]

    def _begin(self, path: Path) -> list[np.ndarray]:
        return [room(v.array.shape, v.array.dtype) for v in self.values]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        names = {"D": "Z", "H": "Y", "W": "X", "N": "Q", "C": "S" if self.values[0].colour else "C"}
        metadata: dict[str, Any] = {"axes": "".join(names.get(letter, letter) for letter in self.letters)}
        if self.microns:
            sizes = dict(zip("ZYX"[-len(self.microns) :], self.microns, strict=True))
            metadata |= {f"PhysicalSize{axis}": size for axis, size in sizes.items()}
        large = results[0].nbytes > 2**31
        kind = "rgb" if self.values[0].colour else "minisblack"
        tifffile.imwrite(path, results[0], ome=True, bigtiff=large, photometric=kind, metadata=metadata)
