"""The variance of the noise as a line in the brightness."""

from dataclasses import dataclass

import numpy as np

from n2n_lightning.arrays.blocks import BLOCK, blocks_of


@dataclass
class NoiseModel:
    """variance = a + b brightness, in stored units; b is None where the brightness hardly differs.

    Attributes:
        variance: the mean variance.
        points: brightness and variance of 24 classes of blocks, (n, 2), for a picture.
    """

    a: float
    b: float | None
    variance: float
    points: np.ndarray


def noise_model(pairs: list[tuple[np.ndarray, np.ndarray]]) -> NoiseModel | None:
    """The noise against the brightness, over blocks of 8 x 8 pixels; None where no block is known whole.

    The mean of a block's variances is a + b times its mean brightness whatever is in the block, so
    that edges do no harm. The brightness of a block has noise, too, which would flatten the line:
    what that adds is taken off (Fuller, Measurement Error Models, 1987, section 1.2).
    """
    bright, spread = [], []
    for first, second in pairs:
        side = min(BLOCK, *first.shape[1:])
        one, other = blocks_of(first, side), blocks_of(second, side)
        known = ~np.isnan(one + other).any(1)
        bright.append((one[known] + other[known]).mean(1) / 2)
        spread.append((one[known] - other[known]).var(1, ddof=1) / 2)
    x, v = np.concatenate(bright), np.concatenate(spread)
    if len(x) < 8:
        return None
    return _line(x, v, 2 * side * side)


def _line(x: np.ndarray, v: np.ndarray, values: int) -> NoiseModel:
    """The line through brightness x and variance v of blocks, each a mean of so many values."""
    mean = float(v.mean())
    a, b = mean, 0.0
    if not mean:
        return NoiseModel(0.0, None, 0.0, _classes(x, v))
    for _ in range(10):  # the variance of a variance grows with its square
        expected = np.maximum(a + b * x, 0.05 * mean)
        weight = 1 / expected**2
        weight /= weight.sum()
        cx, cv = float((weight * x).sum()), float((weight * v).sum())
        own = float((weight * expected).sum()) / values
        across = float((weight * (x - cx) ** 2).sum()) - own
        if across < 4 * own:
            return NoiseModel(mean, None, mean, _classes(x, v))
        b = float((weight * (x - cx) * (v - cv)).sum()) / across
        a = cv - b * cx
    return NoiseModel(a, b, mean, _classes(x, v))


def _classes(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    parts = np.array_split(np.argsort(x), min(24, len(x)))
    return np.array([(x[part].mean(), v[part].mean()) for part in parts])
