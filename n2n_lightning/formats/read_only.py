"""Files of instruments that are read here and written as TIFF."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from n2n_lightning.arrays.axes import squeezed
from n2n_lightning.files import InputError, room
from n2n_lightning.formats.picture import Packed, Picture, Values

AXIS_LETTERS = {"T": "T", "C": "C", "Z": "D", "Y": "H", "X": "W", "S": "C"}


class ReadOnlyFormat(Picture):
    """A picture whose result is an OME-TIFF with its axes and the size of its voxels, and nothing else of the file."""

    floats = True

    def _take(self, array: Packed, letters: str, microns: Sequence[float | None] = ()) -> None:
        """Sets the values.

        Args:
            array: of any shape.
            letters: the library's names of its axes.
            microns: the distance of voxels along Z, Y and X, where it is known.
        """
        long = {letter for letter, n in zip(letters, array.shape, strict=True) if n > 1}
        colour = "S" in long
        if colour and "C" in long:
            raise InputError("has colours and channels; export its channels apart")
        self.letters, shape = squeezed(
            "".join(AXIS_LETTERS.get(letter, "N") for letter in letters), array.shape
        )
        stored = replace(array, shape=shape, unpacked=lambda: array.unpacked().reshape(shape))
        self.microns = tuple(float(m) for m in microns if m)
        spacing = (
            (self.microns[0], self.microns[1], self.microns[2]) if len(self.microns) == 3 else None
        )
        self.note = "as OME-TIFF"
        self.values = [
            Values(
                stored,
                self.letters,
                colour=colour,
                spacing=spacing if "D" in self.letters else None,
            )
        ]
        self.values[0].full = array.shape

    def _begin(self, path: Path) -> list[np.ndarray]:
        return [room(v.shape, v.dtype) for v in self.values]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        names = {"D": "Z", "H": "Y", "W": "X", "N": "Q", "C": "S" if self.values[0].colour else "C"}
        metadata: dict[str, Any] = {
            "axes": "".join(names.get(letter, letter) for letter in self.letters)
        }
        if self.microns:
            sizes = dict(zip("ZYX"[-len(self.microns) :], self.microns, strict=True))
            metadata |= {f"PhysicalSize{axis}": size for axis, size in sizes.items()}
        large = results[0].nbytes > 2**31
        kind = "rgb" if self.values[0].colour else "minisblack"
        tifffile.imwrite(
            path, results[0], ome=True, bigtiff=large, photometric=kind, metadata=metadata
        )

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        self._save(path, results)
