"""Conversion of stored values between units, each a factor and an offset."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from n2n_lightning.files import room
from n2n_lightning.formats.picture import Values

ONE = (1.0, 0.0)  # stored values are physical ones


def rescaled(
    array: np.ndarray,
    source: tuple[float, float],
    target: tuple[float, float],
    nodata_values: Sequence[float] = (),
) -> np.ndarray:
    """Convert stored values of one unit to those of another.

    Args:
        array: stored values.
        source, target: (factor, offset) of both units.
        nodata_values: stored values that mean a missing pixel; they become NaN.

    Returns:
        float64, in the array's shape.

    >>> rescaled(np.array([10, 20]), (0.5, 100.0), (1.0, 0.0)).tolist()
    [105.0, 110.0]
    """
    factor, offset = source
    target_factor, target_offset = target
    scaled = array.astype(np.float64) * factor
    shifted = scaled + (offset - target_offset)
    result: np.ndarray = shifted / target_factor
    if nodata_values:
        result[np.isin(array, nodata_values)] = np.nan
    return result


def converted(values: Values) -> Values:
    """Convert an array to physical units.

    Returns:
        float32 values with NaN at missing pixels.
    """
    array = values.measured
    result: np.ndarray = room(array.shape, np.float32)
    for place in range(len(array)):  # one piece of a mapped array at a time
        result[place] = rescaled(array[place], values.unit, ONE, values.nodata_values)
    return replace(values, stored=result, nodata_values=(), unit=ONE, invalid=None)


def in_unit_of(values: Values, others: Values) -> np.ndarray:
    """Convert an array to the unit of another.

    Args:
        values: the array whose unit is taken.
        others: the array to convert.

    Returns:
        The array of `others`: as stored if both units are the same, else float32.
    """
    if others.unit == values.unit:
        return others.array
    return rescaled(others.array, others.unit, values.unit).astype(np.float32)


def mean_of_halves(result: np.ndarray, first: Values, second: Values) -> None:
    """Write the mean of two arrays in the unit of the first, plane by plane.

    Missing pixels of the first stay; where only the second is missing, the first's value stays.

    Args:
        result: is filled; integers are rounded.
        first, second: arrays of one shape.
    """
    for place in range(len(result)):
        one = first.array[place]
        other = rescaled(second.array[place], second.unit, first.unit, second.nodata_values)
        alone = np.isnan(other) | np.isin(one, first.nodata_values)
        sum_of_both = one.astype(np.float64) + other
        mean = np.where(alone, one, sum_of_both / 2)
        if np.issubdtype(result.dtype, np.integer):
            limits = np.iinfo(result.dtype)
            rounded = np.rint(mean)
            mean = rounded.clip(limits.min, limits.max)
        result[place] = mean
