"""The autocorrelation of noise in space: measured, and noise that is drawn with it."""

from collections.abc import Sequence

import numpy as np

LAGS = 10  # pixels: the farthest offset of the autocorrelation
TREND = 32  # pixels: side of the blocks whose mean difference is no noise, as in inspection
FEWEST_PAIRS = 4096  # pixels: of fewer a correlation of 0.1 cannot be told from chance


def correlated_noise(
    shape: tuple[int, ...], autocorrelation: np.ndarray, draws: np.random.Generator
) -> np.ndarray:
    """Draw noise of variance 1 with an autocorrelation.

    Args:
        shape: (C, H, W).
        autocorrelation: (2 LAGS + 1, 2 LAGS + 1), 1 in the middle.
        draws: the generator.

    Returns:
        In that shape, float64.
    """
    _, height, width = shape
    padded = (height + 2 * LAGS, width + 2 * LAGS)
    centered = np.zeros(padded)
    centered[: 2 * LAGS + 1, : 2 * LAGS + 1] = autocorrelation
    spectrum = np.fft.rfft2(np.roll(centered, (-LAGS, -LAGS), (0, 1))).real
    spectrum = np.maximum(spectrum, 0)
    white = draws.normal(size=(shape[0], *padded))
    colored: np.ndarray = np.fft.irfft2(np.fft.rfft2(white) * np.sqrt(spectrum), s=padded)
    return colored[:, :height, :width]


def white_autocorrelation() -> np.ndarray:
    """Return the autocorrelation of white noise."""
    autocorrelation = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    autocorrelation[LAGS, LAGS] = 1
    return autocorrelation


def lagged_products(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of the products of pixels of an image at all offsets, and their numbers.

    Args:
        image: (H, W).
        mask: True for pixels that count.

    Returns:
        Two arrays (2 LAGS + 1, 2 LAGS + 1), the offset 0 in the middle.
    """
    values = image[mask]
    centered = np.zeros_like(image)
    centered[mask] = values - values.mean() if values.size else 0
    padded = _padded(image.shape)
    sums = []
    for part in (centered, mask.astype(np.float64)):
        spectrum = np.fft.rfft2(part, s=padded)
        products = np.fft.irfft2(abs(spectrum) ** 2, s=padded)
        near = np.roll(products, (LAGS, LAGS), (0, 1))[: 2 * LAGS + 1, : 2 * LAGS + 1]
        sums.append(near)
    return sums[0], sums[1].round()


def _padded(shape: tuple[int, ...]) -> list[int]:
    """Return sides by which no product wraps around, and which hold all offsets."""
    return [max(length, LAGS + 1) + LAGS for length in shape]


def pair_autocorrelation(differences: Sequence[np.ndarray]) -> tuple[np.ndarray, float] | None:
    """Measure the autocorrelation of noise by differences of two captures of a scene.

    Slow changes of the light between the captures are taken out block by block. The channels are
    taken together, and each with every other one: what one shows of another at an offset counts.

    Args:
        differences: of two captures each, (C, H, W), NaN where a pixel is unknown.

    Returns:
        The strongest correlation at each offset, (2 LAGS + 1, 2 LAGS + 1), 1 in the middle, and its
        standard error (Bartlett, J. R. Stat. Soc. Suppl. 1946); None without noise in common
        pixels.
    """
    side = 2 * LAGS + 1
    channels = len(differences[0]) if differences else 0
    products = np.zeros((channels, channels, side, side))
    pairs = np.zeros((side, side))
    for difference in differences:
        known = np.isfinite(difference).all(0)
        noise = _without_trend(difference, known)
        _, count = lagged_products(noise[0], known)
        pairs += count
        for i, j in np.ndindex(channels, channels):
            products[i, j] += _lagged_between(noise[i], noise[j])
    pixels = pairs[LAGS, LAGS]
    power = products[range(channels), range(channels), LAGS, LAGS] / max(pixels, 1)
    if pixels < FEWEST_PAIRS or not (power > 0).all():
        return None
    covariances = products / np.maximum(pairs, 1)
    scale = np.sqrt(np.outer(power, power))
    correlations = covariances / scale[:, :, None, None]
    highest = correlations.max((0, 1))
    lowest = correlations.min((0, 1))
    autocorrelation = np.where(highest > -lowest, highest, lowest)
    autocorrelation[LAGS, LAGS] = 1
    squares = correlations[0, 0] ** 2
    error = float(np.sqrt(squares.sum() / pixels))
    return autocorrelation, error


def _without_trend(difference: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return a difference less its mean over blocks of TREND pixels; 0 where it is unknown."""
    noise = np.where(known, difference, 0)
    _, height, width = noise.shape
    for top in range(0, height, TREND):
        for left in range(0, width, TREND):
            place = (slice(top, top + TREND), slice(left, left + TREND))
            counted = known[place]
            block = noise[:, *place]  # a view
            count = max(int(counted.sum()), 1)
            mean = block.sum((1, 2), keepdims=True) / count
            block -= mean * counted
    return noise


def _lagged_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return sums of products of two images (H, W) at all offsets of the second."""
    padded = _padded(one.shape)
    first = np.fft.rfft2(one, s=padded)
    second = np.fft.rfft2(other, s=padded)
    products = np.fft.irfft2(first.conj() * second, s=padded)
    centred: np.ndarray = np.roll(products, (LAGS, LAGS), (0, 1))
    side = 2 * LAGS + 1
    return centred[:side, :side]
