"""Stripes: noise that the pixels of a row share, over all of its length."""

import numpy as np

from n2n_lightning.arrays.blocks import cut_blocks

STRIPE_WINDOW = 32  # pixels: side of the windows whose row means are compared
APART = 2  # windows: those next to one another may share structure
HIGH_PASS = 1.5  # variance of y(i) - [y(i - 1) + y(i + 1)] / 2 for white noise of variance 1
# Four in five rows of windows have at least this part of the median share: stripes are the same
# everywhere, courses of bricks and planks are not (benchmarks/single_noise.py).
CONSISTENT = 0.3
LEAST_ROWS = 3  # of windows


def stripe_share(plane: np.ndarray, known: np.ndarray, variance: float) -> float:
    """Measure the share of the noise's variance that the pixels of a row have in common.

    The mean of each row of a window, less those above and below, is compared with that of windows
    farther along the row. Structure differs from place to place; stripes do not.

    Args:
        plane: (H, W), without NaN.
        known: True for windows of 32 x 32 pixels that count, (window rows, window columns).
        variance: of the noise.

    Returns:
        The share; 0 where there are too few windows, or where it differs from place to place.
    """
    means = _row_means(plane)
    covariances = []
    for windows, counted in zip(means, known, strict=True):
        places = np.flatnonzero(counted)
        first, other = np.meshgrid(places, places, indexing="ij")
        apart = other - first >= APART
        if not apart.any():
            continue
        one = windows[first[apart]]
        another = windows[other[apart]]
        products = (one * another).mean(1)
        covariances.append(np.median(products))
    if len(covariances) < LEAST_ROWS or not variance > 0:
        return 0.0
    shares = np.array(covariances) / HIGH_PASS / variance
    share = float(np.median(shares))
    low = float(np.quantile(shares, 0.2))
    is_consistent = low > CONSISTENT * share > 0
    return share if is_consistent else 0.0


def _row_means(plane: np.ndarray) -> np.ndarray:
    """Return means of rows of windows, less those above and below.

    Args:
        plane: (H, W).

    Returns:
        (window rows, window columns, rows of a window).
    """
    above = plane[:-2]
    below = plane[2:]
    high_pass = np.zeros_like(plane)
    high_pass[1:-1] = plane[1:-1] - (above + below) / 2
    windows = cut_blocks(high_pass, STRIPE_WINDOW)
    means: np.ndarray = windows.mean(3).transpose(0, 2, 1)
    return means
