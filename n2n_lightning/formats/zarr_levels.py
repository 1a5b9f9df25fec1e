"""Smaller resolutions of an image in a Zarr store, each reduced from the one above it.

Moore et al., Histochem. Cell Biol. 2023; OME-NGFF 0.4 and 0.5, `multiscales`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

REDUCED_AT_ONCE = 2**21  # of the resolution above, reduced at a time: float64 for 16 MiB
# Words in the description of an image that say that every n-th voxel is taken.
TAKING_ONE = ("nearest", "decimat", "subsampl", "stride", "slicing")
MEANS = ("mean", "average", "linear", "downscale")  # words that say that means are taken


@dataclass(frozen=True)
class Level:
    """A smaller resolution.

    Attributes:
        name: the path of its array in the store.
        above: that of the resolution that it is reduced from.
        shape: of its array.
        pieces: the sides of its chunks, or of the shards that hold several of them.
        factors: how many voxels become one, along each axis.
        means: their mean is taken; False: the first of them.
    """

    name: str
    above: str
    shape: tuple[int, ...]
    pieces: tuple[int, ...]
    factors: tuple[int, ...]
    means: bool = True


def pieces_of(array: Any) -> tuple[int, ...]:
    """Return the sides of an array's chunks, or of the shards that hold several of them."""
    sides = array.shards or array.chunks
    return tuple(max(1, side) for side in sides)


def takes_means(scales: Mapping[str, Any]) -> bool | None:
    """Return how the smaller resolutions of an image were made.

    Args:
        scales: the description of the image, an entry of `multiscales`.

    Returns:
        True for means, False for single voxels, None for another or an unknown way.

    >>> takes_means({"type": "nearest"}), takes_means({"type": "gaussian"})
    (False, None)
    """
    metadata = scales.get("metadata")
    words = [str(scales.get("type", ""))]
    if isinstance(metadata, Mapping):
        words.append(str(metadata.get("method", "")))
    text = " ".join(words).lower()
    if any(word in text for word in TAKING_ONE):
        return False
    if any(word in text for word in MEANS):
        return True
    return None


def planned_levels(store: Any, names: Sequence[str], scales: Mapping[str, Any]) -> list[Level]:
    """Return the smaller resolutions of an image that whole numbers of voxels lead to.

    Args:
        store: the open store.
        names: the paths of all resolutions, the largest first.
        scales: the description of the image.

    Returns:
        The resolutions in order, up to the first that is reduced in another way.
    """
    levels: list[Level] = []
    means = takes_means(scales) is not False
    above = store[names[0]]
    for number, name in enumerate(names[1:]):
        array = store[name]
        factors = _factors(above.shape, array.shape)
        if factors is None:
            break
        level = Level(name, names[number], array.shape, pieces_of(array), factors, means)
        levels.append(level)
        above = array
    return levels


def _factors(above: Sequence[int], shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return how many voxels of one resolution become one of another; None if no whole number."""
    if len(above) != len(shape):
        return None
    factors = []
    for length, smaller in zip(above, shape, strict=True):
        factor = max(1, round(length / smaller))
        if smaller not in (length // factor, -(-length // factor)):
            return None
        factors.append(factor)
    return tuple(factors)


def write_level(store: Any, level: Level, region: tuple[slice, ...]) -> None:
    """Fill a region of a smaller resolution.

    Args:
        store: the open store of the result.
        level: the resolution.
        region: whole pieces of it.
    """
    above = store[level.above]
    target = store[level.name]
    values = above[_enlarged(region, level.factors)]
    sides = [part.stop - part.start for part in region]
    result = np.empty(sides, target.dtype)
    for place in _parts_of(sides, level.factors):
        own = values[_enlarged(place, level.factors)]
        result[place] = reduced_values(own, level.factors, level.means)
    target[region] = result


def _enlarged(region: Sequence[slice], factors: Sequence[int]) -> tuple[slice, ...]:
    """Return the region that becomes another one, which may reach beyond the array."""
    parts = []
    for part, factor in zip(region, factors, strict=True):
        start = part.start * factor
        stop = part.stop * factor
        parts.append(slice(start, stop))
    return tuple(parts)


def _parts_of(sides: Sequence[int], factors: Sequence[int]) -> list[tuple[slice, ...]]:
    """Divide a region into parts that about REDUCED_AT_ONCE of the resolution above fall into."""
    most = REDUCED_AT_ONCE
    steps = []
    for side, factor in zip(reversed(sides), reversed(factors), strict=True):
        step = min(side, max(1, most // factor))
        steps.append(step)
        most = max(1, most // (step * factor))
    steps.reverse()
    along = []
    for side, step in zip(sides, steps, strict=True):
        along.append([slice(start, min(start + step, side)) for start in range(0, side, step)])
    return list(product(*along))


def reduced_values(values: np.ndarray, factors: Sequence[int], means: bool) -> np.ndarray:
    """Reduce an array along each axis.

    Args:
        values: of any shape.
        factors: how many values become one along each axis; the last ones may be fewer.
        means: take their mean, rounded for integers, without NaN; False: the first of them.

    Returns:
        Of the type of `values`.

    >>> reduced_values(np.array([[1, 3, 9], [5, 7, 11]]), (2, 2), True).tolist()
    [[4, 10]]
    """
    if not means:
        firsts = tuple(slice(None, None, factor) for factor in factors)
        return values[firsts]
    if values.dtype.kind in "iu":
        return _integer_means(values, factors)
    missing = -np.array(values.shape) % factors
    cells = values.astype(np.float64)
    if missing.any():
        # the mean of the last ones is of fewer
        cells = np.pad(cells, [(0, count) for count in missing], constant_values=np.nan)
    split: list[int] = []
    for length, factor in zip(cells.shape, factors, strict=True):
        split += [length // factor, factor]
    cells = cells.reshape(split)
    inside = tuple(range(1, len(split), 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of cells without any number
        result = np.nanmean(cells, inside)
    return result.astype(values.dtype)


def _integer_means(values: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return rounded means of cells; by exact sums, 12 times as fast as means of floats."""
    firsts = tuple(slice(None, None, factor) for factor in factors)
    total = values[firsts].astype(np.int64)
    counts = np.ones(total.shape)
    for offset in product(*map(range, factors)):
        if not any(offset):
            continue  # these are in `total`
        taken = []
        for start, step in zip(offset, factors, strict=True):
            taken.append(slice(start, None, step))
        part = values[tuple(taken)]
        own = tuple(slice(0, length) for length in part.shape)  # the last cells have fewer values
        total[own] += part
        counts[own] += 1
    return np.rint(total / counts).astype(values.dtype)
