"""Which stored values are black and white for a network, and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Range:
    """What becomes 0 for the network, and how much above it becomes 1: of all channels, (1,), or of each, (C,).

    >>> twelve_bits = Range.of(np.array([[[0], [4095]]], np.uint16), None, together=True)
    >>> twelve_bits.shown(np.array([[[819]]], np.uint16)).tolist()
    [[[0.20000000298023224]]]
    """

    black: np.ndarray
    span: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray, scale: float | None, together: bool) -> "Range":
        """That of an array.

        Args:
            pixels: of any shape, channels last.
            scale: the stored value that is white, where 0 is black; None judges by the values, see `levels`.
            together: whether all channels have one range.
        """
        if scale is not None:
            found = [(0.0, scale)]
        else:
            found = [levels(pixels)] if together else [levels(plane) for plane in np.moveaxis(pixels, LAST, 0)]
        black, span = np.array(found).T
        # float32 holds every value of 16 bits; larger types are scaled before they are narrowed.
        wide = pixels.dtype.itemsize > 2 and pixels.dtype != np.float32
        exact = np.float64 if wide else np.float32
        return cls(black.astype(exact), span.astype(exact))

    def shown(self, pixels: np.ndarray) -> np.ndarray:
        """Stored values as the network takes them, float32."""
        found: np.ndarray = ((pixels.astype(self.span.dtype) - self.black) / self.span).astype(np.float32)
        return found

    def stored(self, values: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """What the network made of `pixels` as stored values: integers rounded and kept in the range of their type.

        Where `pixels` are NaN or infinite, they stay so.
        """
        found: Any = values.astype(self.span.dtype) * self.span + self.black
        if np.issubdtype(pixels.dtype, np.integer):
            limits = np.iinfo(pixels.dtype)
            return np.asarray(found.round().clip(limits.min, limits.max))
        found = found.clip(np.finfo(pixels.dtype).min, np.finfo(pixels.dtype).max)
        return np.where(np.isfinite(pixels), found, pixels)


LAST = -1  # the axis of the channels, in arrays of pages


def levels(array: np.ndarray) -> tuple[float, float]:
    """The stored value that becomes 0 for the network, and how much above it becomes 1.

    0 and 255 for 8 bit. For other integers 0 and the smallest 2^n - 1 (255 or more) that at most one value in 1,000
    exceeds, so that 12 bit data in a 16 bit file fill the range; for floats 0 and 1. Where values, but for one in
    1,000 at either end, go below 0 or fill less than a quarter of that range, or go to more than twice of it, they are
    spread over the middle eight tenths instead: a black level, a dark exposure, a unit of one's own.

    >>> levels(np.arange(256, dtype=np.uint8)), levels(np.arange(4096, dtype=np.uint16))
    ((0.0, 255.0), (0.0, 4095.0))
    >>> levels(np.arange(1000, 1100, dtype=np.uint16))
    (987.7487500000001, 123.50250000000003)
    """
    if array.dtype == np.uint8:
        return 0.0, 255.0
    step = [max(1, n // 100) for n in array.shape]
    values = array[tuple(slice(s // 2, None, s) for s in step)].astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = (float(v) for v in np.quantile(values, (0.001, 0.999))) if values.size else (0.0, 1.0)
    span = 1.0
    if np.issubdtype(array.dtype, np.integer):
        span = float(2 ** max(8, int(max(high, 0)).bit_length()) - 1)
    if low == high:
        return 0.0, abs(high) or span
    if low < -0.05 * span or high > 2 * span or high - low < span / 4:
        return low - (high - low) / 8, 1.25 * (high - low)
    return 0.0, span
