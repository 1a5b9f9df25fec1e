"""Drift of movie frames by whole pixels, found and undone."""

import numpy as np
from scipy.ndimage import gaussian_filter

from n2n_lightning.arrays.blocks import cut_blocks, plane_of
from n2n_lightning.arrays.registration import BLOCK_SIDE, BLUR, shifted

FARTHEST_DRIFT = 8  # pixels between the middle one and another of five frames


def registered(frames: np.ndarray) -> np.ndarray:
    """Undo whole pixels of drift towards the middle one of some frames.

    Args:
        frames: (T, C, H, W), float; NaN where a pixel is unknown.

    Returns:
        The frames, NaN where one does not reach.
    """
    planes = []
    for frame in frames:
        plane = gaussian_filter(plane_of(frame), BLUR)
        planes.append(plane - plane.mean())
    middle = planes[len(planes) // 2]
    moved = frames.copy()
    for k, plane in enumerate(planes):
        rows, columns = _drift(middle, plane)
        if (rows or columns) and _brings_closer(middle, plane, rows, columns):
            moved[k] = shifted(frames[k], rows, columns)
    return moved


def _drift(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Return the rows and columns that move the second image onto the first.

    Args:
        first, second: blurred, mean 0, (H, W).

    Returns:
        (0, 0) where they come no closer than by moving noise onto noise.
    """
    spectrum = np.fft.rfft2(first)
    spectrum_of_second = np.fft.rfft2(second)
    products = np.fft.irfft2(spectrum * np.conj(spectrum_of_second), s=first.shape)
    far = FARTHEST_DRIFT
    side = 2 * far + 1
    centred = np.roll(products, (far, far), (0, 1))
    near = centred[:side, :side]
    unmoved = near[far, far]
    power = (first**2).sum() + (second**2).sum()
    distance = max(power - 2 * unmoved, 1e-30)
    gain = 2 * (near.max() - unmoved) / distance
    independent = first.size / (2 * np.pi * BLUR**2)
    by_chance = 6 / np.sqrt(independent)
    if gain < by_chance:
        return 0, 0
    row, column = divmod(int(near.argmax()), side)
    return row - far, column - far


def _brings_closer(middle: np.ndarray, plane: np.ndarray, rows: int, columns: int) -> bool:
    """Return True if a shift brings most blocks of a plane closer, and not one bright object."""
    moved = np.roll(plane, (rows, columns), (0, 1))
    before = block_means((middle - plane) ** 2)
    after = block_means((middle - moved) ** 2)
    closer = float(np.mean(after < before))
    by_chance = 0.5 + 1.5 / np.sqrt(len(before))
    return closer > by_chance


def block_means(image: np.ndarray) -> np.ndarray:
    """Return the means of blocks of 8 x 8 pixels of an image (H, W).

    Returns:
        (blocks,); NaN where less than half of a block is known.
    """
    values = cut_blocks(image, BLOCK_SIDE)
    count = np.isfinite(values).sum((1, 3))
    sums = np.nansum(values, (1, 3))
    enough = count >= BLOCK_SIDE**2 / 2
    means: np.ndarray = np.where(enough, sums / np.maximum(count, 1), np.nan)
    return means.ravel()
