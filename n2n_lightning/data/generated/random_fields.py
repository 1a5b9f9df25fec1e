"""Smooth random fields, the material of generated pictures."""

import numpy as np
import torch


def numpy_generator(draws: torch.Generator) -> np.random.Generator:
    """Seed a generator of NumPy.

    Args:
        draws: generator of torch, from which one number is drawn.

    Returns:
        A random generator.
    """
    seed = torch.randint(2**62, (1,), generator=draws)
    return np.random.default_rng(int(seed))


def smooth_field(
    size: int,
    scale: float,
    random: np.random.Generator,
) -> np.ndarray:
    """Draw a smooth random field.

    Args:
        size: pixels of a side.
        scale: pixels over which it is smooth.
        random: random generator.

    Returns:
        (size, size), mean 0, standard deviation 1.
    """
    white = random.standard_normal((size, size))
    field = blurred(white, scale / 2)
    deviation = max(float(field.std()), 1e-9)
    return (field - field.mean()) / deviation


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by a Gaussian, with periodic borders.

    Args:
        picture: (H, W).
        sigma: standard deviation of the Gaussian, in pixels.

    Returns:
        The blurred picture.
    """
    rows = np.fft.fftfreq(len(picture))[:, None]
    columns = np.fft.rfftfreq(picture.shape[1])[None]
    frequency = rows**2 + columns**2
    gain = np.exp(-2 * (np.pi * sigma) ** 2 * frequency)
    spectrum = np.fft.rfft2(picture) * gain
    return np.asarray(np.fft.irfft2(spectrum, picture.shape))
