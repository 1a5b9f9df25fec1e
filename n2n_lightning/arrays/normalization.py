"""Which stored values are black and white for a network, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LAST = -1  # the axis of the channels, in arrays of pages


@dataclass(frozen=True)
class IntensityScaling:
    """What becomes 0 for the network, and how much above it becomes 1: of all channels, (1,), or of each, (C,).

    >>> twelve_bits = IntensityScaling.of(np.array([[[0], [4095]]], np.uint16), None, together=True)
    >>> twelve_bits.normalize(np.array([[[819]]], np.uint16)).tolist()
    [[[0.20000000298023224]]]
    """

    black: np.ndarray
    span: np.ndarray

    @classmethod
    def of(
        cls,
        pixels: np.ndarray,
        fixed: tuple[float, float] | None,
        together: bool,
        nodata_values: Sequence[float] = (),
        equivariant: bool = False,
        invalid: np.ndarray | None = None,
    ) -> "IntensityScaling":
        """That of an array.

        Args:
            pixels: (..., H, W, C).
            fixed: the stored value that is black, and how much above it is white; None judges by
                the values, `levels`.
            together: whether all channels have one range.
            nodata_values: stored values that mean that a pixel is missing.
            equivariant: whether the network minds neither units nor black levels: what it is shown
                goes with the values alone, whatever their type.
            invalid: bool, in the shape of `pixels`: True where one is missing whatever its value
                is.
        """
        if fixed is not None:
            found = [fixed]
        elif pixels.dtype == np.uint8 and not equivariant:  # nothing to judge
            found = [levels(pixels)]
        else:
            values, calm = sampled(pixels, nodata_values, invalid)
            each = [(values, calm)] if together else list(zip(values.T, calm.T, strict=True))
            found = [
                levels_from_values(v, c) if equivariant else _judged(pixels.dtype, v, c)
                for v, c in each
            ]
        black, span = np.array(found, np.float64).T
        # float32 holds every value of 16 bits; larger types are scaled before they are narrowed.
        wide = pixels.dtype.itemsize > 2 and pixels.dtype != np.float32
        exact = np.float64 if wide else np.float32
        return cls(black.astype(exact), span.astype(exact))

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Stored values as the network takes them, float32; infinite where float32 cannot hold them."""
        with np.errstate(over="ignore", invalid="ignore"):
            found: np.ndarray = ((pixels.astype(self.span.dtype) - self.black) / self.span).astype(
                np.float32
            )
        return found

    def denormalize(
        self, values: np.ndarray, pixels: np.ndarray, dtype: np.dtype | None = None
    ) -> np.ndarray:
        """What the network made of `pixels` as stored values: integers rounded and kept in the range of their type.

        Where `pixels` are NaN or infinite, they stay so.

        Args:
            values: of the network.
            pixels: the stored values that it was shown.
            dtype: the type that the result will be stored as; None: that of `pixels`.
        """
        kind = pixels.dtype if dtype is None else dtype
        found: Any = values.astype(self.span.dtype) * self.span + self.black
        if np.issubdtype(kind, np.integer):
            limits = np.iinfo(kind)
            return np.asarray(found.round().clip(limits.min, limits.max))
        found = found.clip(np.finfo(kind).min, np.finfo(kind).max)
        return np.where(np.isfinite(pixels), found, pixels)


def sampled(
    pixels: np.ndarray, nodata_values: Sequence[float] = (), invalid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Values at evenly spread places of an array, and the median of the 5 x 5 pixels around each: both (n, C).

    Missing ones (NaN, infinite, of `nodata_values`) are NaN. Pixels of their own, or 3 x 3 of them,
    do not reach the medians.

    Args:
        pixels: (..., H, W, C).
        nodata_values: stored values that mean that a pixel is missing.
        invalid: bool, in the shape of `pixels`: missing ones, too.
    """
    *stacked, height, width, channels = pixels.shape
    few = [np.arange(n)[max(1, n // 100) // 2 :: max(1, n // 100)] for n in stacked]
    rows, columns = (
        np.arange(n)[max(1, n // 100) // 2 :: max(1, n // 100)] for n in (height, width)
    )
    around = []
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            place = np.ix_(*few, (rows + dy).clip(0, height - 1), (columns + dx).clip(0, width - 1))
            taken = pixels[place].astype(np.float64)
            if invalid is not None:
                taken[invalid[place]] = np.nan
            around.append(taken.reshape(-1, channels))
    near = np.stack(around)
    for fill in nodata_values:
        near[near == fill] = np.nan
    near[~np.isfinite(near) | (np.abs(near) > 1e30)] = np.nan
    values = near[len(near) // 2].copy()
    near.sort(0)  # NaN last: the middle one of what is left, or nearly so
    middle = np.take_along_axis(near, np.maximum((~np.isnan(near)).sum(0) - 1, 0)[None] // 2, 0)[0]
    return values, middle


def robust_percentiles(
    values: np.ndarray, calm: np.ndarray | None = None
) -> tuple[float, float] | None:
    """The lowest and the highest value but for one in 1,000 at either end, and but for what stands alone in a picture.

    Args:
        values: any number of them; NaN does not count.
        calm: medians of the surroundings of each, which single pixels do not reach.
    """
    here = np.isfinite(values) if calm is None else np.isfinite(values) & np.isfinite(calm)
    known = values[here]
    if not known.size:
        return None
    quiet = known if calm is None else calm[here]
    noise = _noise(known, quiet)
    alone = np.abs(known - quiet) > 12 * noise
    # nothing to tell by, or lines, letters, stars: of the picture
    if not noise or alone.mean() > 0.005:
        low, high = (float(v) for v in np.quantile(known, (0.001, 0.999)))
        return low, high
    low, high = (float(v) for v in np.quantile(np.where(alone, quiet, known), (0.001, 0.999)))
    lowest, highest = (float(v) for v in np.quantile(quiet, (0.001, 0.999)))
    return max(low, lowest - 8 * noise), min(high, highest + 8 * noise)


def _noise(values: np.ndarray, calm: np.ndarray) -> float:
    """The deviation of values from their surroundings, as the middle one of them has it."""
    return 1.4826 * float(np.median(np.abs(values - calm)))


def highest_plausible(values: np.ndarray, calm: np.ndarray) -> float:
    """The largest value that pixels of a picture may have: the brightest place, and 8 deviations of the noise."""
    both = np.isfinite(values) & np.isfinite(calm)
    if not both.any():
        return float("inf")
    noise = _noise(values[both], calm[both])
    return float(calm[both].max()) + 8 * noise if noise else float("inf")


def levels(array: np.ndarray) -> tuple[float, float]:
    """The stored value that becomes 0 for the network, and how much above it becomes 1.

    0 and 255 for 8 bit. For other integers 0 and the smallest 2^n - 1 (255 or more) that at most
    one value in 1,000 exceeds, so that 12 bit data in a 16 bit file fill the range; for floats 0
    and 1. Where values, but for one in 1,000 at either end, go below 0 or fill less than a quarter
    of that range, or go to more than twice of it, they are spread over the middle eight tenths
    instead: a black level, a dark exposure, a unit of one's own.

    >>> levels(np.arange(256, dtype=np.uint8)), levels(np.arange(4096, dtype=np.uint16))
    ((0.0, 255.0), (0.0, 4095.0))
    >>> levels(np.arange(1000, 1100, dtype=np.uint16))
    (987.7487500000001, 123.50250000000003)
    """
    step = [max(1, n // 100) for n in array.shape]
    values = array[tuple(slice(s // 2, None, s) for s in step)].astype(np.float64)
    return _judged(array.dtype, values.ravel())


def levels_from_values(values: np.ndarray, calm: np.ndarray | None = None) -> tuple[float, float]:
    """Black and span with which values fill the middle of a network's range, whatever their unit and black level.

    >>> values = np.arange(1001.0)
    >>> [round(number, 3) for number in (*levels_from_values(values), *levels_from_values(0.1 * values - 7))]
    [-123.75, 1247.5, -19.375, 124.75]
    """
    low, high = robust_percentiles(values, calm) or (0.0, 1.0)
    return levels_between(low, high) if low < high else (low, abs(low) or 1.0)


def _judged(
    dtype: np.dtype, values: np.ndarray, calm: np.ndarray | None = None
) -> tuple[float, float]:
    """See `levels`, of values of a type, and the medians of their surroundings."""
    if dtype == np.uint8:
        return 0.0, 255.0
    low, high = robust_percentiles(values, calm) or (0.0, 1.0)
    span = largest(dtype, high)
    if low == high:
        return (0.0, high or span) if high >= 0 else (2 * low, -2 * low)
    if low < -0.05 * span or high > 2 * span or high - low < span / 4:
        return levels_between(low, high)
    return 0.0, span


def largest(dtype: np.dtype, high: float) -> float:
    """The white of a type: 1 for floats, else the smallest 2^n - 1 (255 or more) that `high` does not exceed."""
    return (
        float(2 ** max(8, int(max(high, 0)).bit_length()) - 1)
        if np.issubdtype(dtype, np.integer)
        else 1.0
    )


def levels_between(low: float, high: float) -> tuple[float, float]:
    """Black and span with which `low` to `high` fill the middle eight tenths.

    >>> levels_between(100, 180)
    (90.0, 100.0)
    """
    return low - (high - low) / 8, 1.25 * (high - low)
