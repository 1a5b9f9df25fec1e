"""Places where the noise is clipped: saturated, or below the lowest value that is stored."""

from collections.abc import Callable, Sequence

import numpy as np

from n2n_lightning.metrics.noise_model import noise_model

# Share of a picture at its lowest or highest value from which that may be a limit: 16 bit values of
# a continuous scene have 0.01% there, a saturated sky has percents.
AT_LIMIT = 0.001
# Share of the pixels of a neighbourhood at the limit from which the noise's mean is not near 0: of
# Gaussian noise it is 0.05 deviations off at 10%, 0.11 at 20%, where its square is a tenth of that
# of a usual error.
CLIPPED = 0.2
SIGMA = 4.0  # pixels: of a neighbourhood
COUNTS = 0.5  # read noise in counts below which zeros are counts (Poisson), and nothing is clipped


def clipped_noise(
    captures: Sequence[np.ndarray], line: tuple[float, float] | None = None
) -> np.ndarray:
    """Return where the noise of a scene is clipped, so that its mean is not 0.

    Args:
        captures: one or more of a scene, (C, H, W) or (C, D, H, W), in stored units; NaN where a
            pixel is unknown.
        line: a and b of the noise's variance a + b brightness; None: fitted to the first two
            captures.

    Returns:
        bool, in the shape of a capture.
    """
    clipped = np.zeros(captures[0].shape, bool)
    for capture in captures:
        highest = _near_limit(capture, np.nanmax)
        lowest = _near_limit(capture, np.nanmin)
        if lowest.any() and _is_counting(captures, lowest, line):
            lowest[...] = False
        clipped |= highest | lowest
    return clipped


def _near_limit(capture: np.ndarray, limit_of: Callable[[np.ndarray], float]) -> np.ndarray:
    """Return where many of the pixels around have the lowest or highest value of the capture."""
    from scipy.ndimage import gaussian_filter

    near = np.zeros(capture.shape, bool)
    known = np.isfinite(capture)
    if not known.any():
        return near
    limit = limit_of(capture)
    at_limit = capture == limit
    if at_limit.mean() < AT_LIMIT or at_limit.sum() == known.sum():
        return near
    widths = (0.0, *[SIGMA] * (len(capture.shape) - 1))
    share: np.ndarray = gaussian_filter(at_limit.astype(np.float32), widths)
    return share > CLIPPED


def _is_counting(
    captures: Sequence[np.ndarray], lowest: np.ndarray, line: tuple[float, float] | None
) -> bool:
    """Return True if the lowest value is 0 counts of Poisson noise: no read noise is cut off."""
    limit = float(np.nanmin(captures[0]))
    if line is None:
        planes = []
        for capture in captures[:2]:
            plane = np.where(lowest, np.nan, capture)
            if np.isnan(plane).mean() > 0.5:
                plane = capture  # almost all is dark: sparse counts, or nothing at all
            channels = len(plane)
            *_, width = plane.shape
            planes.append(plane.reshape(channels, -1, width))
        first, second = planes
        model = noise_model([(first, second)])
        if model is None or model.b is None:
            return False
        line = (model.a, model.b)
    a, b = line
    read_variance = a + b * limit
    return b > 0 and read_variance < (COUNTS * b) ** 2
