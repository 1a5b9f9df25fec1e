"""The autocorrelation of noise in space: measured, and noise that is drawn with it."""

import numpy as np

LAGS = 10  # pixels: the farthest offset of the autocorrelation


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
    padded = [length + LAGS for length in image.shape]
    sums = []
    for part in (centered, mask.astype(np.float64)):
        spectrum = np.fft.rfft2(part, s=padded)
        products = np.fft.irfft2(abs(spectrum) ** 2, s=padded)
        near = np.roll(products, (LAGS, LAGS), (0, 1))[: 2 * LAGS + 1, : 2 * LAGS + 1]
        sums.append(near)
    return sums[0], sums[1].round()
