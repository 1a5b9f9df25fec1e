"""Measures of noise, from pairs of captures of a scene or from single images.

Images are numpy arrays (C, H, W), float64, in stored units; NaN where a pixel is invalid or an
outlier. Two captures show one scene with independent noise, so that their difference is noise.
"""

import warnings

import numpy as np

from n2n_lightning.arrays.blocks import blocks_of, cut_blocks, plane_of
from n2n_lightning.metrics.noise_model import NoiseModel

# Correlation of noise at a distance of 1 and 2 pixels, by direction.
Correlations = dict[str, tuple[float, float]]

COARSE = 32  # pixels: side of the blocks whose means may differ
FINE = 16  # pixels: side of the blocks of a single image
MIN_BLOCKS = 8  # fewer blocks of a single image say nothing of its noise
# rows and columns to the pixels at a distance of 1 and 2
LAGS = {
    "along a row": ((0, 1), (0, 2)),
    "along a column": ((1, 0), (2, 0)),
}
# Added to a lower quartile of correlations, each over the 256 pixels of a block: by chance it is
# that much below the true value.
QUARTILE_BIAS = 0.04


def difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the mean of second - first and its standard error, over blocks.

    Args:
        first, second: the captures, (C, H, W).

    Returns:
        Mean and standard error in stored units; the error is infinite with fewer than two blocks.
    """
    side = min(COARSE, *first.shape[1:])
    blocks = blocks_of(second - first, side)
    complete = blocks[~np.isnan(blocks).any(1)]
    if len(complete) < 2:
        return float(np.nanmean(second - first)), float("inf")
    means = complete.mean(1)
    error = means.std(ddof=1) / np.sqrt(len(means))
    return float(means.mean()), float(error)


def noise_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the noise of one capture, without differences over large distances.

    Args:
        first, second: the captures, (C, H, W).

    Returns:
        The difference over sqrt(2), (C, H', W'), cut to whole blocks of 32 pixels and less the mean
        of each block. Its variance is the mean of the variances of both captures.
    """
    noise = (first - second) / np.sqrt(2)
    side = min(COARSE, *noise.shape[1:])
    rows, columns = (n // side for n in noise.shape[1:])
    noise = noise[:, : rows * side, : columns * side].copy()
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
        measured[name] = (_autocorrelation(noises, one), _autocorrelation(noises, two))
    return measured


def _autocorrelation(noises: list[np.ndarray], lag: tuple[int, int]) -> float:
    """Return the correlation of pixels that are `lag` rows and columns apart, over all noises."""
    product = power = 0.0
    for noise in noises:
        products = _lagged_products(noise, lag)
        valid = ~np.isnan(products)
        if valid.any():
            product += float(products[valid].mean())
            power += float(np.nanmean(noise**2))
    return product / max(power, 1e-300)


def _lagged_products(images: np.ndarray, lag: tuple[int, int]) -> np.ndarray:
    """Multiply each pixel with the one `lag` rows and columns further: (N, H - dy, W - dx)."""
    dy, dx = lag
    _, height, width = images.shape
    products: np.ndarray = images[:, dy:, dx:] * images[:, : height - dy, : width - dx]
    return products


def between_channels(noises: list[np.ndarray]) -> float:
    """Return the largest correlation, by magnitude, of the noise of two channels.

    Args:
        noises: (C, H, W) each.

    Returns:
        A correlation in [-1, 1]; 0 for one channel.
    """
    count = len(noises[0])
    largest = 0.0
    for i in range(count):
        for j in range(i + 1, count):
            one = np.concatenate([noise[i].ravel() for noise in noises])
            other = np.concatenate([noise[j].ravel() for noise in noises])
            valid = ~np.isnan(one + other)
            if valid.sum() > 2 and one[valid].std() and other[valid].std():
                value = float(np.corrcoef(one[valid], other[valid])[0, 1])
                largest = max(largest, value, key=abs)
    return largest


def single_noise(image: np.ndarray) -> tuple[Correlations, float]:
    """Measure the noise of a single image in blocks of 16 x 16 pixels.

    A surface of second degree is subtracted from each block. Texture is in some blocks, noise in
    all: the lower quartile of the correlations counts, and the lowest tenth of the deviations.

    Args:
        image: (C, H, W).

    Returns:
        Correlations like those of `correlations`, empty if there are too few blocks; and the
        standard deviation, NaN if there are too few blocks.
    """
    blocks = blocks_of(image, FINE)
    blocks = blocks[~np.isnan(blocks).any(1)]
    if len(blocks) < MIN_BLOCKS:
        return {}, float("nan")
    y, x = (axis.ravel() / FINE - 0.5 for axis in np.mgrid[:FINE, :FINE])
    terms = [np.ones_like(x), x, y, x * x, x * y, y * y]
    surface = np.stack(terms, 1)
    fitted = blocks @ np.linalg.pinv(surface).T @ surface.T
    residuals = blocks - fitted
    power = (residuals**2).mean(1)
    sigma = float(np.sqrt(np.quantile(power, 0.1)))
    noisy = power > 1e-12
    residuals = residuals[noisy]
    power = power[noisy]
    if len(residuals) < MIN_BLOCKS:
        return {}, sigma
    planes = residuals.reshape(-1, FINE, FINE)
    measured = {}
    for name, (one, two) in LAGS.items():
        at_one = _quartile_correlation(planes, power, one)
        at_two = _quartile_correlation(planes, power, two)
        measured[name] = (at_one, at_two)
    return measured, sigma


def _quartile_correlation(planes: np.ndarray, power: np.ndarray, lag: tuple[int, int]) -> float:
    """Return the lower quartile, over blocks, of the correlation at a lag."""
    correlation = _lagged_products(planes, lag).mean((1, 2)) / power
    return float(np.quantile(correlation, 0.25)) + QUARTILE_BIAS


def clipped_ends(images: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Find values that pile up at the lowest or highest end.

    A tail that was cut off leaves all its pixels at the end: half as many again as at the value
    next to it, and 1 in 1,000 at least.

    Args:
        images: (C, H, W) each.

    Returns:
        The value and its share of the pixels, under "lowest" or "highest".
    """
    values = np.concatenate([image[~np.isnan(image)] for image in images])
    step = _value_step(values) if values.size else 0.0
    ends = {
        "lowest": (values.min(initial=np.inf), 1),
        "highest": (values.max(initial=-np.inf), -1),
    }
    clipped = {}
    for name, (end, inwards) in ends.items():
        at_end = _share_near(values, end, step / 2)
        next_to_it = _share_near(values, end + inwards * step, step / 2)
        if at_end > max(0.001, 1.5 * next_to_it):
            clipped[name] = (float(end), at_end)
    return clipped


def _share_near(values: np.ndarray, value: float, distance: float) -> float:
    return float((np.abs(values - value) < distance).mean())


def _value_step(values: np.ndarray) -> float:
    """Return the distance of neighbouring values: 16 for 12 bits stored in the upper bits of 16."""
    distinct = np.unique(values[:: max(1, values.size // 100_000)])
    return float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0


def is_counts(model: NoiseModel | None, images: list[np.ndarray]) -> bool:
    """Return True if images are photon counts.

    Their values are whole numbers from 0 on, and their variance is their mean to 15%.

    Args:
        model: variance against brightness.
        images: (C, H, W) each.

    Returns:
        True if the gain is 1 and the variance at 0 is small.
    """
    if model is None or model.b is None or not all(map(are_whole, images)):
        return False
    mean = float(np.mean([np.nanmean(image) for image in images]))
    gain_is_one = abs(model.b - 1) < 0.15
    no_offset = abs(model.a) < 0.15 * max(mean, 1)
    return gain_is_one and no_offset


def are_whole(image: np.ndarray) -> bool:
    """Return True if all values are whole numbers, 0 or more."""
    valid = image[~np.isnan(image)]
    if not valid.size or valid.min() < 0:
        return False
    return bool((valid == valid.round()).all())


def dispersion(image: np.ndarray) -> tuple[float, float, float]:
    """Return the ratio of noise variance to brightness of a single image; 1 for photon counts.

    Args:
        image: (C, H, W).

    Returns:
        The median ratio of the darker and of the brighter half of the blocks, and how many times
        brighter the latter are. NaN with fewer than 20 blocks.
    """
    noise, bright = _second_differences(image)
    valid = (bright > 0) & ~np.isnan(noise)
    if valid.sum() < 20:
        return float("nan"), float("nan"), float("nan")
    noise = noise[valid]
    bright = bright[valid]
    dark = bright <= np.median(bright)
    if dark.all():
        return float("nan"), float("nan"), 1.0
    ratio = noise / bright
    dark_ratio = float(np.median(ratio[dark]))
    bright_ratio = float(np.median(ratio[~dark]))
    contrast = np.median(bright[~dark]) / np.median(bright[dark])
    return dark_ratio, bright_ratio, float(contrast)


def noise_variance(image: np.ndarray) -> float:
    """Return the variance of the noise of a single image (C, H, W): the median of its blocks.

    Returns:
        Variance in squared stored units; infinite without a valid block.
    """
    noise, _ = _second_differences(image)
    valid = noise[~np.isnan(noise)]
    return float(np.median(valid)) if valid.size else float("inf")


def _second_differences(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return variance of the noise and brightness of blocks of a single image.

    The noise is that of second differences along both axes (Immerkaer, CVIU 1996), which planes and
    straight edges do not have.
    """
    above = image[:, :-2]
    level_with = image[:, 1:-1]
    below = image[:, 2:]
    centre = level_with[..., 1:-1]
    kernel = centre * 4 + above[..., :-2] + above[..., 2:] + below[..., :-2] + below[..., 2:]
    sides = above[..., 1:-1] + below[..., 1:-1] + level_with[..., :-2] + level_with[..., 2:]
    kernel -= 2 * sides
    side = min(FINE, *kernel.shape[1:])
    if side < 1:
        return np.zeros(0), np.zeros(0)
    variance = blocks_of(kernel**2 / 36, side).mean(1)
    return variance, blocks_of(centre, side).mean(1)


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
        means.append(float(plane.mean()))
        darkest.append(float(np.quantile(uniform_filter(plane, 5), 0.01)))
    lowest = min(darkest)
    return max(*means, lowest) - min(*means, lowest)
