"""Blocks and planes of an image."""

import warnings
from typing import Any

import numpy as np

BLOCK = 8  # pixels, for the noise at one brightness


def plane_of(image: np.ndarray) -> np.ndarray:
    """Return the mean of the channels (C, H, W), gaps filled with the mean of all: (H, W).

    Returns:
        NaN only where all pixels are unknown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all channels are unknown
        plane = np.nanmean(image, 0)
        mean = np.nanmean(plane)
    return np.where(np.isnan(plane), mean, plane)


def cut_blocks(
    image: Any,
    high: int,
    wide: int | None = None,
) -> Any:
    """Cut the last two axes of an array or tensor into blocks, without what is left at the ends.

    Args:
        image: (..., H, W).
        high: rows of a block.
        wide: columns of a block; None: as many as rows.

    Returns:
        A view, (..., H // high, high, W // wide, wide).

    >>> cut_blocks(np.zeros((3, 17, 25)), 8).shape
    (3, 2, 8, 3, 8)
    """
    wide = wide or high
    *stacked, height, width = image.shape
    rows = height // high
    columns = width // wide
    whole = image[..., : rows * high, : columns * wide]
    return whole.reshape(*stacked, rows, high, columns, wide)


def blocks_of(image: np.ndarray, side: int) -> np.ndarray:
    """Return the values of each whole block of each channel.

    Args:
        image: (C, H, W).
        side: height and width of a block.

    Returns:
        (blocks, side * side).
    """
    blocks = cut_blocks(image, side).transpose(0, 1, 3, 2, 4)
    return blocks.reshape(-1, side * side)
