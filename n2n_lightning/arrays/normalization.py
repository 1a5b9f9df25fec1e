"""Linear scaling of stored values to the range of a network, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

LAST = -1  # the axis of the channels, in arrays of pages


@dataclass(frozen=True)
class IntensityScaling:
    """Stored values that become 0 and 1 for the network.

    Attributes:
        black: the stored value that becomes 0, for all channels, (1,), or for each, (C,).
        span: how much above it becomes 1, likewise.

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
        """Choose the scaling of an array.

        Args:
            pixels: (..., H, W, C).
            fixed: the stored value that is black, and how much above it is white; None: chosen by
                the values, see `levels`.
            together: all channels have one scaling.
            nodata_values: stored values that stand for missing pixels.
            equivariant: the network depends on neither units nor black levels: the scaling depends
                on the values alone, not on their type.
            invalid: bool, in the shape of `pixels`: more missing pixels.

        Returns:
            The scaling.
        """
        if fixed is not None:
            ranges = [fixed]
        elif pixels.dtype == np.uint8 and not equivariant:  # nothing to judge
            ranges = [levels(pixels)]
        else:
            values, calm = sampled(pixels, nodata_values, invalid)
            channels = [(values, calm)]
            if not together:
                channels = list(zip(values.T, calm.T, strict=True))
            ranges = []
            for channel, channel_calm in channels:
                if equivariant:
                    ranges.append(levels_from_values(channel, channel_calm))
                else:
                    ranges.append(_judged(pixels.dtype, channel, channel_calm))
        black, span = np.array(ranges, np.float64).T
        exact = _exact_type(pixels.dtype)
        return cls(black.astype(exact), span.astype(exact))

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Scale stored values for the network, to float32; infinite where that cannot hold them.

        Returns:
            In the shape of `pixels`.
        """
        exact = self.span.dtype
        with np.errstate(over="ignore", invalid="ignore"):
            above_black = pixels.astype(exact) - self.black
            scaled = above_black / self.span
            return scaled.astype(np.float32)

    def denormalize(
        self,
        values: np.ndarray,
        pixels: np.ndarray,
        dtype: np.dtype | None = None,
    ) -> np.ndarray:
        """Scale the output of the network to stored values.

        Args:
            values: output of the network.
            pixels: the stored values that it was shown; NaN and infinite ones are kept.
            dtype: the type that the result will be stored as; None: that of `pixels`.

        Returns:
            Floating-point values within the range of the type; whole numbers for integer types.
        """
        kind = pixels.dtype if dtype is None else dtype
        exact = self.span.dtype
        stored = values.astype(exact) * self.span + self.black
        if np.issubdtype(kind, np.integer):
            whole_limits = np.iinfo(kind)
            return stored.round().clip(whole_limits.min, whole_limits.max)
        limits = np.finfo(kind)
        stored = stored.clip(limits.min, limits.max)
        return np.where(np.isfinite(pixels), stored, pixels)


def _exact_type(dtype: np.dtype) -> type[np.floating]:
    """Return the type to scale in: float32 holds every value of 16 bits, float64 the others."""
    if dtype.itemsize <= 2 or dtype == np.float32:
        return np.float32
    return np.float64


def sampled(
    pixels: np.ndarray,
    nodata_values: Sequence[float] = (),
    invalid: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sample an array at evenly spread places.

    Missing pixels (NaN, infinite, of `nodata_values`) are NaN. Isolated pixels, and groups of 3 x
    3, do not reach the medians.

    Args:
        pixels: (..., H, W, C).
        nodata_values: stored values that stand for missing pixels.
        invalid: bool, in the shape of `pixels`: more missing pixels.

    Returns:
        The values, and the medians of the 5 x 5 pixels around each: both (n, C), float64.
    """
    *stacked, height, width, channels = pixels.shape
    pages = [_every_hundredth(length) for length in stacked]
    rows = _every_hundredth(height)
    columns = _every_hundredth(width)
    offsets = range(-2, 3)
    shifted = []
    for dy, dx in product(offsets, offsets):
        y = np.clip(rows + dy, 0, height - 1)
        x = np.clip(columns + dx, 0, width - 1)
        place = np.ix_(*pages, y, x)
        values = pixels[place].astype(np.float64)
        if invalid is not None:
            values[invalid[place]] = np.nan
        shifted.append(values.reshape(-1, channels))
    near = np.stack(shifted)
    for value in nodata_values:
        near[near == value] = np.nan
    near[~np.isfinite(near)] = np.nan
    near[np.abs(near) > 1e30] = np.nan
    centre = len(near) // 2
    values = near[centre].copy()
    near.sort(0)  # NaN is last
    known = np.isfinite(near).sum(0)
    middle = np.maximum(known - 1, 0) // 2
    medians = np.take_along_axis(near, middle[None], 0)
    return values, medians[0]


def _every_hundredth(length: int) -> np.ndarray:
    """Return about 100 evenly spread indices of an axis."""
    step = max(1, length // 100)
    return np.arange(length)[step // 2 :: step]


def robust_percentiles(
    values: np.ndarray, calm: np.ndarray | None = None
) -> tuple[float, float] | None:
    """Return the 0.1 and 99.9 percentiles, without isolated outliers.

    Args:
        values: in any number; NaN does not count.
        calm: medians of the surroundings of each, which isolated pixels do not reach.

    Returns:
        None where no value is known.
    """
    known = np.isfinite(values)
    if calm is not None:
        known &= np.isfinite(calm)
    values = values[known]
    if not values.size:
        return None
    surroundings = values
    if calm is not None:
        surroundings = calm[known]
    noise = _deviation(values, surroundings)
    difference = np.abs(values - surroundings)
    isolated = difference > 12 * noise
    # nothing to tell by, or lines, letters and stars, which are image content
    if not noise or isolated.mean() > 0.005:
        return _thousandths(values)
    low, high = _thousandths(np.where(isolated, surroundings, values))
    lowest, highest = _thousandths(surroundings)
    low = max(low, lowest - 8 * noise)
    high = min(high, highest + 8 * noise)
    return low, high


def _thousandths(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.001, 0.999))
    return float(low), float(high)


def _deviation(values: np.ndarray, calm: np.ndarray) -> float:
    """Return the deviation of values from their surroundings, by the median."""
    difference = np.abs(values - calm)
    return 1.4826 * float(np.median(difference))


def highest_plausible(values: np.ndarray, calm: np.ndarray) -> float:
    """Return the largest value that is no outlier.

    It is that of the brightest place, and 8 deviations of the noise.

    Args:
        values: (n,) or (n, C); NaN does not count.
        calm: medians of the surroundings of each.

    Returns:
        Infinite where nothing is known or there is no noise.
    """
    known = np.isfinite(values) & np.isfinite(calm)
    if not known.any():
        return np.inf
    surroundings = calm[known]
    noise = _deviation(values[known], surroundings)
    if not noise:
        return np.inf
    brightest = float(surroundings.max())
    return brightest + 8 * noise


def levels(array: np.ndarray) -> tuple[float, float]:
    """Choose the stored value that becomes 0 for the network, and how much above it becomes 1.

    0 and 255 for 8 bit. For other integers 0 and the smallest 2^n - 1 (255 or more) that at most
    one value in 1,000 exceeds, so that 12 bit data in a 16 bit file fill the range; for floats 0
    and 1. Where the percentiles 0.1 and 99.9 go below 0, fill less than a quarter of that range, or
    exceed twice of it, they are mapped to the middle eight tenths instead: a black level, a dark
    exposure, another unit.

    Args:
        array: of any shape.

    Returns:
        Black and span.

    >>> levels(np.arange(256, dtype=np.uint8)), levels(np.arange(4096, dtype=np.uint16))
    ((0.0, 255.0), (0.0, 4095.0))
    >>> levels(np.arange(1000, 1100, dtype=np.uint16))
    (987.7487500000001, 123.50250000000003)
    """
    places = [_every_hundredth(length) for length in array.shape]
    values = array[np.ix_(*places)].astype(np.float64)
    return _judged(array.dtype, values.ravel())


def levels_from_values(values: np.ndarray, calm: np.ndarray | None = None) -> tuple[float, float]:
    """Choose black and span so that values fill the middle of a network's range.

    Args:
        values: in any unit and with any black level; NaN does not count.
        calm: medians of the surroundings of each.

    Returns:
        Black and span.

    >>> values = np.arange(1001.0)
    >>> [round(number, 3) for number in levels_from_values(values)]
    [-123.75, 1247.5]
    >>> [round(number, 3) for number in levels_from_values(0.1 * values - 7)]
    [-19.375, 124.75]
    """
    low, high = robust_percentiles(values, calm) or (0.0, 1.0)
    if low < high:
        return levels_between(low, high)
    return low, abs(low) or 1.0


def _judged(
    dtype: np.dtype,
    values: np.ndarray,
    calm: np.ndarray | None = None,
) -> tuple[float, float]:
    """Choose black and span as `levels` does, by sampled values and their surroundings."""
    if dtype == np.uint8:
        return 0.0, 255.0
    low, high = robust_percentiles(values, calm) or (0.0, 1.0)
    span = largest(dtype, high)
    if low == high:
        if low < 0:
            return 2 * low, -2 * low
        return 0.0, high or span
    lowest = -0.05 * span  # within 5% of the range, values below 0 are noise around it
    too_low = low < lowest
    too_high = high > 2 * span
    narrow = high - low < span / 4
    if too_low or too_high or narrow:
        return levels_between(low, high)
    return 0.0, span


def largest(dtype: np.dtype, high: float) -> float:
    """Return the white of a type.

    Args:
        dtype: of stored values.
        high: the highest stored value.

    Returns:
        1 for floats, else the smallest 2^n - 1 (255 or more) that `high` does not exceed.
    """
    if not np.issubdtype(dtype, np.integer):
        return 1.0
    whole = int(max(high, 0))
    bits = max(8, whole.bit_length())
    return float(2**bits - 1)


def levels_between(low: float, high: float) -> tuple[float, float]:
    """Return black and span that map two values to 0.1 and 0.9.

    Args:
        low: the stored value that becomes 0.1.
        high: the stored value that becomes 0.9.

    Returns:
        Black and span.

    >>> levels_between(100, 180)
    (90.0, 100.0)
    """
    difference = high - low
    black = low - difference / 8
    return black, 1.25 * difference
