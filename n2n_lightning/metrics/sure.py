"""The error of a denoiser on noisy images alone, by Stein's identity: which of several networks suits them best.

For y = x + n with Gaussian n, independent from pixel to pixel and of variance v, the expectation of
(f(y) - y)^2 - v + 2 v df(y)/dy is that of (f(y) - x)^2 (Stein, Ann. Statist. 1981). The derivative
is asked for with one random perturbation of the whole image (Ramani, Blu and Unser, IEEE Trans.
Image Process. 2008). A mistake in v adds nearly the same to all denoisers, so that they can be
compared where the error itself would not be known so well.
"""

from collections.abc import Callable, Sequence

import numpy as np

Denoise = Callable[[np.ndarray], np.ndarray]
STEP = 0.1  # of the perturbation, in deviations of the noise


def sure(
    denoise: Denoise, images: Sequence[np.ndarray], line: tuple[float, float], seed: int = 0
) -> float:
    """Stein's unbiased estimate of the mean squared error of a denoiser.

    Args:
        denoise: takes and returns an image.
        images: noisy ones, in any unit; pixels that are not finite do not count.
        line: a and b of the noise's variance, a + b brightness.
        seed: of the perturbation, the same for whatever is compared.
    """
    draws = np.random.default_rng(seed)
    total, count = 0.0, 0
    a, b = line
    for image in images:
        y = image.astype(np.float64)
        sign = draws.choice([-1.0, 1.0], y.shape)
        f = denoise(y.astype(np.float32)).astype(np.float64)
        v = np.maximum(a + b * f, 0.05 * abs(a + b * np.nanmean(f)))
        step = STEP * float(np.sqrt(np.nanmean(v)))
        moved = denoise((y + step * sign).astype(np.float32)).astype(np.float64)
        each = (f - y) ** 2 - v + 2 * v * sign * (moved - f) / max(step, 1e-30)
        known = np.isfinite(each)
        total, count = total + float(each[known].sum()), count + int(known.sum())
    return total / max(count, 1)
