"""Blocks and planes of an image."""

import warnings

import numpy as np

BLOCK = 8  # pixels, for the noise at one brightness


def plane_of(image: np.ndarray) -> np.ndarray:
    """The mean of the channels, without gaps: (H, W)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all channels are unknown
        plane: np.ndarray = np.nanmean(image, 0)
        return np.where(np.isnan(plane), np.nanmean(plane), plane)


def blocks_of(image: np.ndarray, side: int) -> np.ndarray:
    """Whole blocks of an image: (blocks, side * side)."""
    channels, height, width = image.shape
    rows, columns = height // side, width // side
    cut = image[:, : rows * side, : columns * side].reshape(channels, rows, side, columns, side)
    return cut.transpose(0, 1, 3, 2, 4).reshape(-1, side * side)
