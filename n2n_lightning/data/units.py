"""The units of stored values: files that differ in them are compared in physical units."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data.scene_set import SceneSet
from n2n_lightning.files import InputError, room
from n2n_lightning.formats import kind_of, opened, split
from n2n_lightning.formats.units import ONE, rescaled

WITH_UNITS = ("Nifti", "Fits", "Dicom")  # formats whose files state a factor and an offset


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
    """Decide to read values as stored, or as physical ones where the units of files differ.

    Integers of which only some have flags are converted as well: with NaN for missing pixels they
    are float32.

    Args:
        paths: the files of a data set; as text they may name an array, `data.h5:noisy`.

    Returns:
        How to read all of them.
    """
    units: set[tuple[float, float]] = set()
    flagged: set[bool] = set()
    for path in paths:
        file = split(path)[0] if isinstance(path, str) else path
        if kind_of(file) not in WITH_UNITS:
            units.add(ONE)
            continue
        for values in opened(path).values:
            units.add(values.unit)
            if values.dtype.kind in "iu":
                flagged.add(values.invalid is not None)
    if len(units) > 1 or len(flagged) > 1:
        return Stored(physical=True)
    nodata_values: set[float] = set()
    for values in opened(paths[0]).values:
        nodata_values.update(values.nodata_values)
    return Stored(False, tuple(sorted(nodata_values)), units.pop())


def _in_words(unit: tuple[float, float]) -> str:
    factor, offset = unit
    return f"times {factor:g}, plus {offset:g}"


def in_unit(scenes: SceneSet, like: SceneSet) -> SceneSet:
    """Convert captures to the unit of other ones.

    Args:
        scenes: captures.
        like: the others.

    Returns:
        float32 where the units differ; else the captures as they are.

    Raises:
        InputError: the others are integers of another unit, so that no comparison is possible.
    """
    if scenes.unit == like.unit:
        return scenes
    if not like.dtype.is_floating_point:
        raise InputError(
            f"{scenes.names[0]}: stores its values in another unit than {like.names[0]}"
            f" ({_in_words(scenes.unit)}; {_in_words(like.unit)}); save them in one"
        )

    def changed(tensor: Tensor) -> Tensor:
        array = tensor.numpy()
        result: np.ndarray = room(array.shape, np.float32)
        for place in range(len(array)):
            result[place] = rescaled(array[place], scenes.unit, like.unit, scenes.nodata_values)
        return torch.from_numpy(result)

    return replace(scenes.mapped(changed), nodata_values=(), unit=like.unit)
