"""The units of stored values: files of one data set that differ in them are compared in physical units."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data.scenes import EqualSizeScenes, SceneSet
from n2n_lightning.files import InputError, room
from n2n_lightning.formats import kind_of, opened, split
from n2n_lightning.formats.units import ONE, rescaled

KINDS = ("Nifti", "Fits", "Dicom")  # whose files say a factor and an offset


@dataclass(frozen=True)
class Stored:
    """How the values of a data set are read.

    Attributes:
        physical: each file is converted by its factor and offset, to float32.
        nodata_values: values that mean that a pixel is missing.
        unit: (factor, offset) that make physical values of those that are read.
    """

    physical: bool = False
    nodata_values: tuple[float, ...] = ()
    unit: tuple[float, float] = ONE


def stored_as(paths: Sequence[str | Path]) -> Stored:
    """Read values as stored where all files have one unit, and as physical ones where they differ.

    Integers of which only some have flags are converted as well: with NaN for missing pixels they
        are float32.

    Args:
        paths: the files of a data set; as text they may name an array, `data.h5:noisy`.
    """
    units: set[tuple[float, float]] = set()
    flagged: set[bool] = set()
    for path in paths:
        file = split(path)[0] if isinstance(path, str) else path
        if kind_of(file) in KINDS:
            arrays = opened(path).values
            units |= {values.unit for values in arrays}
            flagged |= {
                values.invalid is not None for values in arrays if values.dtype.kind in "iu"
            }
        else:
            units.add(ONE)
    if len(units) > 1 or len(flagged) > 1:
        return Stored(physical=True)
    nodata_values = {fill for values in opened(paths[0]).values for fill in values.nodata_values}
    return Stored(False, tuple(sorted(nodata_values)), units.pop())


def in_unit(scenes: SceneSet, like: SceneSet) -> SceneSet:
    """Captures in the unit of other ones: float32 where the units differ, else as they are.

    Raises:
        InputError: the others are integers of another unit, so that no comparison is possible.
    """
    if scenes.unit == like.unit:
        return scenes
    if not like.dtype.is_floating_point:
        raise InputError(
            f"{scenes.names[0]}: stores its values in another unit than {like.names[0]} (times {scenes.unit[0]:g}, plus"
            f" {scenes.unit[1]:g}; times {like.unit[0]:g}, plus {like.unit[1]:g}); save them in one"
        )

    def changed(tensor: Tensor) -> Tensor:
        array = tensor.numpy()
        result: np.ndarray = room(array.shape, np.float32)
        for place in range(len(array)):
            result[place] = rescaled(array[place], scenes.unit, like.unit, scenes.nodata_values)
        return torch.from_numpy(result)

    if isinstance(scenes, EqualSizeScenes):
        return replace(
            scenes, frames=[changed(f) for f in scenes.frames], nodata_values=(), unit=like.unit
        )
    images = [[changed(capture) for capture in captures] for captures in scenes.images]
    return replace(scenes, images=images, nodata_values=(), unit=like.unit)
