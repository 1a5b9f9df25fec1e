"""Measures of noise, from pairs of captures of a scene; of single images, measures of counts.

Images are numpy arrays (C, H, W), float64, in stored units; NaN where a pixel is invalid or an
outlier. Two captures show one scene with independent noise, so that their difference is noise.
"""

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from n2n_lightning.arrays.blocks import blocks_of, cut_blocks, plane_of
from n2n_lightning.metrics.noise_model import NoiseModel

# Correlation of noise at a distance of 1 and 2 pixels, by direction.
Correlations = dict[str, tuple[float, float]]
Lag = tuple[int, int]  # rows and columns to another pixel

COARSE = 32  # pixels: side of the blocks whose means may differ
FINE = 16  # pixels: side of the blocks of a single image
# to the pixels at a distance of 1 and 2
LAGS: dict[str, tuple[Lag, Lag]] = {
    "along a row": ((0, 1), (0, 2)),
    "along a column": ((1, 0), (2, 0)),
}
# parts of a row of pixels without both ends, by the side on which a neighbour lies
_LEFT = (..., slice(None, -2))
_MIDDLE = (..., slice(1, -1))
_RIGHT = (..., slice(2, None))


def difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the mean of second - first and its standard error, over blocks.

    Args:
        first, second: the captures, (C, H, W).

    Returns:
        Mean and standard error in stored units; the error is infinite with fewer than two blocks.
    """
    side = min(COARSE, *first.shape[1:])
    blocks = _complete_blocks(second - first, side)
    if len(blocks) < 2:
        mean = np.nanmean(second - first)
        return float(mean), float("inf")
    means = blocks.mean(1)
    mean = means.mean()
    deviation = means.std(ddof=1)
    error = deviation / np.sqrt(len(means))
    return float(mean), float(error)


def _complete_blocks(image: np.ndarray, side: int) -> np.ndarray:
    """Return the blocks of an image without an invalid pixel: (blocks, side * side)."""
    blocks = blocks_of(image, side)
    invalid = np.isnan(blocks).any(1)
    return blocks[~invalid]


def noise_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the noise of one capture, without differences over large distances.

    Args:
        first, second: the captures, (C, H, W).

    Returns:
        The difference over sqrt(2), (C, H', W'), cut to whole blocks of 32 pixels and less the mean
        of each block. Its variance is the mean of the variances of both captures.
    """
    noise = (first - second) / np.sqrt(2)
    _, height, width = noise.shape
    side = min(COARSE, height, width)
    whole_height = height // side * side
    whole_width = width // side * side
    noise = noise[:, :whole_height, :whole_width].copy()
    blocks = cut_blocks(noise, side)  # a view
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # blocks without a valid pixel
        blocks -= np.nanmean(blocks, (2, 4), keepdims=True)
    return noise


def correlations(noises: list[np.ndarray]) -> Correlations:
    """Return the correlation of noise at 1 and 2 pixels, along rows and along columns.

    Args:
        noises: (C, H, W) each.

    Returns:
        Correlations in [-1, 1] at 1 and 2 pixels, by direction.
    """
    measured = {}
    for name, (one, two) in LAGS.items():
        at_one = _autocorrelation(noises, one)
        at_two = _autocorrelation(noises, two)
        measured[name] = (at_one, at_two)
    return measured


def _autocorrelation(noises: list[np.ndarray], lag: Lag) -> float:
    """Return the correlation of pixels that are `lag` rows and columns apart, over all noises."""
    product = power = 0.0
    for noise in noises:
        products = _lagged_products(noise, lag)
        valid = ~np.isnan(products)
        if valid.any():
            product += float(products[valid].mean())
            power += float(np.nanmean(noise**2))
    return product / max(power, 1e-300)


def _lagged_products(images: np.ndarray, lag: Lag) -> np.ndarray:
    """Multiply each pixel with the one `lag` rows and columns further: (N, H - dy, W - dx)."""
    dy, dx = lag
    _, height, width = images.shape
    rows = height - dy
    columns = width - dx
    pixels = images[:, :rows, :columns]
    lagged = images[:, dy:, dx:]
    products: np.ndarray = lagged * pixels
    return products


def between_channels(noises: list[np.ndarray]) -> float:
    """Return the largest correlation, by magnitude, of the noise of two channels.

    Args:
        noises: (C, H, W) each.

    Returns:
        A correlation in [-1, 1]; 0 for one channel.
    """
    channels = []
    for i in range(len(noises[0])):
        values = [noise[i].ravel() for noise in noises]
        channels.append(np.concatenate(values))
    largest = 0.0
    for one, other in combinations(channels, 2):
        valid = ~np.isnan(one + other)
        if valid.sum() > 2:
            value = correlation(one[valid], other[valid])
            largest = max(largest, value, key=abs)
    return largest


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's correlation of two arrays.

    Args:
        one, other: of one size, flat, without NaN.

    Returns:
        A value in [-1, 1]; 0 if either is constant.
    """
    if not one.std() or not other.std():
        return 0.0
    matrix = np.corrcoef(one, other)
    return float(matrix[0, 1])


def clipped_ends(images: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Find values that pile up at the lowest or highest end.

    A tail that was cut off leaves all its pixels at the end: half as many again as at the value
    next to it, and 1 in 1,000 at least.

    Args:
        images: (C, H, W) each.

    Returns:
        The value and its share of the pixels, under "lowest" or "highest".
    """
    valid = [image[~np.isnan(image)] for image in images]
    values = np.concatenate(valid)
    if not values.size:
        return {}
    step = _value_step(values)
    lowest = values.min()
    highest = values.max()
    neighbours = {"lowest": (lowest, lowest + step), "highest": (highest, highest - step)}
    clipped = {}
    for name, (end, next_value) in neighbours.items():
        share = _share_near(values, end, step / 2)
        usual = _share_near(values, next_value, step / 2)
        if share > max(0.001, 1.5 * usual):
            clipped[name] = (float(end), share)
    return clipped


def _share_near(values: np.ndarray, value: float, distance: float) -> float:
    """Return the share of the values that are nearer to one than `distance`."""
    near = np.abs(values - value) < distance
    return float(near.mean())


def _value_step(values: np.ndarray) -> float:
    """Return the distance of neighbouring values: 16 for 12 bits stored in the upper bits of 16."""
    every = max(1, values.size // 100_000)
    distinct = np.unique(values[::every])
    if len(distinct) < 2:
        return 1.0
    steps = np.diff(distinct)
    return float(steps.min())


def is_counts(model: NoiseModel | None, images: list[np.ndarray]) -> bool:
    """Return True if images are photon counts.

    Their values are whole numbers from 0 on, and their variance is their mean to 15%.

    Args:
        model: variance against brightness.
        images: (C, H, W) each.

    Returns:
        True if the gain is 1 and the variance at 0 is small.
    """
    if model is None or model.b is None:
        return False
    if not all(map(are_whole, images)):
        return False
    means = [np.nanmean(image) for image in images]
    mean = float(np.mean(means))
    brightness = max(mean, 1)
    gain_is_one = abs(model.b - 1) < 0.15
    no_offset = abs(model.a) < 0.15 * brightness
    return gain_is_one and no_offset


def are_whole(image: np.ndarray) -> bool:
    """Return True if all values are whole numbers, 0 or more."""
    valid = image[~np.isnan(image)]
    if not valid.size or valid.min() < 0:
        return False
    return np.array_equal(valid, valid.round())


@dataclass(frozen=True)
class Dispersion:
    """Ratio of the variance of noise to brightness; 1 for photon counts.

    Attributes:
        dark: median of the darker half of the blocks.
        bright: median of the brighter half.
        contrast: brightness of the brighter half over that of the darker one.
    """

    dark: float
    bright: float
    contrast: float

    def within(self, low: float, high: float) -> bool:
        """Return True if the ratios in dark and in bright places lie between two limits.

        Args:
            low, high: the limits, excluded.

        Returns:
            False if one of the ratios is outside.
        """
        smaller = min(self.dark, self.bright)
        larger = max(self.dark, self.bright)
        return low < smaller and larger < high


def dispersion(image: np.ndarray) -> Dispersion | None:
    """Return the ratio of noise variance to brightness of a single image.

    Args:
        image: (C, H, W).

    Returns:
        Medians over blocks; None with fewer than 20 blocks, or blocks of one brightness.
    """
    noise, brightness = _second_differences(image)
    valid = (brightness > 0) & ~np.isnan(noise)
    if valid.sum() < 20:
        return None
    noise = noise[valid]
    brightness = brightness[valid]
    dark = brightness <= np.median(brightness)
    if dark.all():
        return None
    bright = ~dark
    ratio = noise / brightness
    dark_ratio = np.median(ratio[dark])
    bright_ratio = np.median(ratio[bright])
    dark_level = np.median(brightness[dark])
    bright_level = np.median(brightness[bright])
    contrast = bright_level / dark_level
    return Dispersion(float(dark_ratio), float(bright_ratio), float(contrast))


def noise_variance(image: np.ndarray) -> float:
    """Return the variance of the noise of a single image (C, H, W): the median of its blocks.

    Returns:
        Variance in squared stored units; infinite without a valid block.
    """
    noise, _ = _second_differences(image)
    valid = noise[~np.isnan(noise)]
    if not valid.size:
        return float("inf")
    return float(np.median(valid))


def _second_differences(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return variance of the noise and brightness of blocks of a single image.

    The noise is that of second differences along both axes (Immerkaer, CVIU 1996), which planes and
    straight edges do not have.
    """
    above = image[:, :-2]
    beside = image[:, 1:-1]
    below = image[:, 2:]
    centre = beside[_MIDDLE]
    differences = centre * 4
    for row in (above, below):
        differences += row[_LEFT]
        differences += row[_RIGHT]
    edges = above[_MIDDLE] + below[_MIDDLE]
    edges += beside[_LEFT]
    edges += beside[_RIGHT]
    differences -= 2 * edges
    side = min(FINE, *differences.shape[1:])
    if side < 1:
        return np.zeros(0), np.zeros(0)
    squares = differences**2 / 36
    variances = blocks_of(squares, side)
    brightness = blocks_of(centre, side)
    return variances.mean(1), brightness.mean(1)


def level(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean of the brighter of two captures above the darkest places of both.

    The darkest places are the 1 in 100 with the lowest mean of 5 x 5 pixels: a black level does not
    count, noise hardly does. Captures differ by no more than this, so that a relative change is
    100% at most.

    Args:
        first, second: the captures, (C, H, W).

    Returns:
        Brightness in stored units; NaN without a valid pixel.
    """
    from scipy.ndimage import uniform_filter

    means = []
    darkest = []
    for image in (first, second):
        plane = plane_of(image)
        if not np.isfinite(plane).all():
            return float("nan")
        smooth = uniform_filter(plane, 5)
        low = np.quantile(smooth, 0.01)
        darkest.append(float(low))
        means.append(float(plane.mean()))
    levels = [*means, min(darkest)]
    return max(levels) - min(levels)
