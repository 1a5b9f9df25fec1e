"""Base class of files of instruments that are read and written as TIFF."""

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
OME_NAMES = {"D": "Z", "H": "Y", "W": "X", "N": "Q"}
CLASSIC_BYTES = 2**31  # pixels of a result that is no BigTIFF


class ReadOnlyFormat(Picture):
    """A picture whose result is an OME-TIFF.

    The result has the axes and the voxel size, and nothing else of the file.
    """

    floats = True

    def _take(self, array: Packed, names: str, microns: Sequence[float | None] = ()) -> None:
        """Set the values.

        Args:
            array: of any shape.
            names: the library's names of its axes.
            microns: the voxel spacing along Z, Y and X, as far as it is known.
        """
        sides = dict(zip(names, array.shape, strict=True))
        colour = sides.get("S", 1) > 1
        if colour and sides.get("C", 1) > 1:
            raise InputError("has colours and channels; export its channels apart")
        letters = ""
        for name in names:
            letters += AXIS_LETTERS.get(name, "N")
        self.letters, shape = squeezed(letters, array.shape)
        self.microns = tuple(float(n) for n in microns if n)
        self.note = "as OME-TIFF"

        def unpacked() -> np.ndarray:
            return array.unpacked().reshape(shape)

        stored = replace(array, shape=shape, unpacked=unpacked)
        values = Values(stored, self.letters, colour=colour, full=array.shape)
        if len(self.microns) == 3 and "D" in self.letters:
            depth, height, width = self.microns
            values.spacing = (depth, height, width)
        self.values = [values]

    def _begin(self, path: Path) -> list[np.ndarray]:
        return [room(v.shape, v.dtype) for v in self.values]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        (result,) = results
        colour = self.values[0].colour
        axes = ""
        for letter in self.letters:
            axes += OME_NAMES.get(letter, letter)
        if colour:
            axes = axes.replace("C", "S")
        metadata: dict[str, Any] = {"axes": axes}
        if self.microns:
            known_axes = "ZYX"[-len(self.microns) :]
            for axis, size in zip(known_axes, self.microns, strict=True):
                metadata[f"PhysicalSize{axis}"] = size
        tifffile.imwrite(
            path,
            result,
            ome=True,
            bigtiff=result.nbytes > CLASSIC_BYTES,
            photometric="rgb" if colour else "minisblack",
            metadata=metadata,
        )

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        self._save(path, results)
