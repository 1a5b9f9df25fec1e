"""The noise's variance as a line a + b brightness, fitted to what is known of the noise.

`noise_model` fits it to pairs of captures, `noise_line_of_residual` to noisy and denoised images,
`robust_noise_line` to places of which some are texture and not noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from n2n_lightning.arrays.blocks import BLOCK, blocks_of

MIN_BLOCKS = 8  # with fewer, no line is fitted


@dataclass
class NoiseModel:
    """A line: variance = a + b brightness, in stored units.

    Attributes:
        a: the variance at brightness 0.
        b: the slope; None where the brightness hardly differs.
        variance: the mean variance.
        points: brightness and variance of 24 classes of blocks, (n, 2), for a plot.
    """

    a: float
    b: float | None
    variance: float
    points: np.ndarray


def noise_model(pairs: list[tuple[np.ndarray, np.ndarray]]) -> NoiseModel | None:
    """Fit the noise's variance to the brightness, over blocks of 8 x 8 pixels.

    The mean of a block's variances is a + b times its mean brightness whatever is in the block, so
    that edges do no harm. The brightness of a block has noise, too, which would flatten the line:
    what that adds is taken off (Fuller, Measurement Error Models, 1987, section 1.2).

    Args:
        pairs: two captures of each scene, (C, H, W), in stored units; NaN where a pixel is unknown.

    Returns:
        None where fewer than 8 blocks are known whole.
    """
    brightness: list[np.ndarray] = []
    variances: list[np.ndarray] = []
    for first, second in pairs:
        side = min(BLOCK, *first.shape[1:])
        one = blocks_of(first, side)
        other = blocks_of(second, side)
        known = ~np.isnan(one + other).any(1)
        one = one[known]
        other = other[known]
        total = (one + other).mean(1)
        variance_of_both = (one - other).var(1, ddof=1)
        brightness.append(total / 2)
        variances.append(variance_of_both / 2)
    x = np.concatenate(brightness)
    v = np.concatenate(variances)
    if len(x) < MIN_BLOCKS:
        return None
    pixels = 2 * side * side
    return _line_through_blocks(x, v, pixels)


def _line_through_blocks(x: np.ndarray, v: np.ndarray, values: int) -> NoiseModel:
    """Fit a line to brightness x and variance v of blocks, (n,), each a mean of `values` pixels."""
    points = _class_means(x, v, 24)
    mean = float(v.mean())
    if not mean:
        return NoiseModel(0.0, None, 0.0, points)
    a = mean
    b = 0.0
    for _ in range(10):  # the variance of a variance grows with its square
        expected = np.maximum(a + b * x, 0.05 * mean)
        weight = 1 / expected**2
        weight /= weight.sum()
        center_x = float((weight * x).sum())
        center_v = float((weight * v).sum())
        noise_of_x = float((weight * expected).sum()) / values
        offset = x - center_x
        spread_with_noise = float((weight * offset**2).sum())
        spread_of_x = spread_with_noise - noise_of_x
        if spread_of_x < 4 * noise_of_x:
            return NoiseModel(mean, None, mean, points)
        products = weight * offset * (v - center_v)
        covariance = float(products.sum())
        b = covariance / spread_of_x
        a = center_v - b * center_x
    return NoiseModel(a, b, mean, points)


def noise_line_of_residual(
    noisy: Sequence[np.ndarray], denoised: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Fit the noise's variance to the brightness, taking what a denoiser removed for the noise.

    Args:
        noisy: images of any shape, NaN where a pixel is unknown.
        denoised: the same images, denoised.

    Returns:
        a and b of the line; b is 0 where it would be negative.
    """
    brightness = np.concatenate(denoised, axis=None, dtype=np.float64)
    values = np.concatenate(noisy, axis=None, dtype=np.float64)
    removed = (values - brightness) ** 2
    known = np.isfinite(removed)
    if not known.any():
        return 0.0, 0.0
    x, v = _class_means(brightness[known], removed[known], 32).T
    flat = float(v.mean())
    brightest = max(abs(x).max(), 1e-30)
    equally_bright = np.ptp(x) <= 1e-6 * brightest
    if len(x) < 2 or equally_bright:
        return flat, 0.0
    expected = np.maximum(v, 0.05 * flat)
    weight = 1 / expected
    slope, base = np.polyfit(x, v, 1, w=weight)
    if not slope > 0:
        return flat, 0.0
    return float(base), float(slope)


def robust_noise_line(brightness: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Fit a line by repeated medians, which up to half of the points may miss.

    Siegel, Biometrika 1982.

    Args:
        brightness: of some places, (n,); its time grows with n squared.
        variance: of what was removed there, (n,).

    Returns:
        a and b of the line; both 0 where all places have one brightness.
    """
    from scipy.stats import siegelslopes

    if not np.ptp(brightness):
        return 0.0, 0.0
    slope, base = siegelslopes(variance, brightness)
    return base, slope


def _class_means(x: np.ndarray, v: np.ndarray, count: int) -> np.ndarray:
    """Return the means of x and v over up to `count` equally large classes of x: (n, 2)."""
    order = np.argsort(x)
    count = min(count, len(x))
    means = []
    for members in np.array_split(order, count):
        mean_x = x[members].mean()
        mean_v = v[members].mean()
        means.append((mean_x, mean_v))
    return np.array(means)
