"""Smooth random fields, what generated pictures are made of."""

import numpy as np


def smooth_field(size: int, scale: float, random: np.random.Generator) -> np.ndarray:
    """A random field (size, size), smooth over `scale` pixels, with mean 0 and standard deviation 1."""
    field = blurred(random.standard_normal((size, size)), scale / 2)
    return (field - field.mean()) / max(float(field.std()), 1e-9)


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Blurred by a Gaussian, as if the picture went on at the other side."""
    rows, columns = np.fft.fftfreq(len(picture))[:, None], np.fft.rfftfreq(picture.shape[1])[None]
    spectrum = np.fft.rfft2(picture) * np.exp(-2 * (np.pi * sigma) ** 2 * (rows**2 + columns**2))
    return np.asarray(np.fft.irfft2(spectrum, picture.shape))
