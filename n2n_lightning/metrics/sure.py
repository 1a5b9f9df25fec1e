"""Stein's unbiased risk estimate (SURE): the error of a denoiser, from noisy images alone.

For y = x + n with Gaussian n, independent from pixel to pixel and of variance v, the expectation of
(f(y) - y)^2 - v + 2 v df(y)/dy is that of (f(y) - x)^2 (Stein, Ann. Statist. 1981). The derivative
is measured with one random perturbation of the whole image (Ramani, Blu and Unser, IEEE Trans.
Image Process. 2008). An error of v adds nearly the same to all denoisers, so that they can be
compared even where the error itself is uncertain.
"""

from collections.abc import Callable, Sequence

import numpy as np

Denoise = Callable[[np.ndarray], np.ndarray]
PERTURBATION = 0.1  # standard deviation, in deviations of the noise


def sure(
    denoise: Denoise, images: Sequence[np.ndarray], line: tuple[float, float], seed: int = 0
) -> float:
    """Estimate the mean squared error of a denoiser by Stein's identity.

    Args:
        denoise: takes and returns an image.
        images: noisy ones, in any unit; pixels that are not finite do not count.
        line: a and b of the noise's variance, a + b brightness.
        seed: of the perturbation, the same for all denoisers that are compared.

    Returns:
        In the unit of the images, squared.
    """
    draws = np.random.default_rng(seed)
    total = 0.0
    count = 0
    a, b = line
    for image in images:
        noisy = image.astype(np.float64)
        sign = draws.choice([-1.0, 1.0], noisy.shape)
        result = denoise(noisy.astype(np.float32)).astype(np.float64)
        least = 0.05 * abs(a + b * np.nanmean(result))
        variance = np.maximum(a + b * result, least)
        sigma = float(np.sqrt(np.nanmean(variance)))
        step = PERTURBATION * sigma
        perturbed = (noisy + step * sign).astype(np.float32)
        moved = denoise(perturbed).astype(np.float64)
        change = moved - result
        divergence = 2 * variance * sign * change / max(step, 1e-30)
        residual = result - noisy
        errors = residual**2 - variance + divergence
        known = errors[np.isfinite(errors)]
        total += float(known.sum())
        count += len(known)
    return total / max(count, 1)
