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
    high_pass = np.zeros_like(plane)
    high_pass[1:-1] = plane[1:-1] - (plane[:-2] + plane[2:]) / 2
    means = cut_blocks(high_pass, STRIPE_WINDOW).mean(3).transpose(0, 2, 1)
    covariances = []
    for windows, counted in zip(means, known, strict=True):
        places = np.flatnonzero(counted)
        first, other = np.meshgrid(places, places, indexing="ij")
        apart = other - first >= APART
        if apart.any():
            products = windows[first[apart]] * windows[other[apart]]
            covariances.append(np.median(products.mean(1)) / HIGH_PASS)
    if len(covariances) < LEAST_ROWS or not variance > 0:
        return 0.0
    share = float(np.median(covariances)) / variance
    low = float(np.quantile(covariances, 0.2)) / variance
    return share if low > CONSISTENT * share > 0 else 0.0
