"""Frames of colour cameras before demosaicking: one value a pixel, of a colour that alternates."""

import numpy as np

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import MOSAICS

MOSAIC_CHOICES = ("auto", "none", *MOSAICS)
# A picture is a mosaic if the means of its four phases of 2 x 2 pixels differ by this share of the
# contrast of neighbours; tests/test_mosaics.py tries it on photographs and frames of cameras.
MIN_CONTRAST = 0.5
MIDDLE_SIDE = 512  # pixels of the middle that is judged
MIN_MOSAIC_SIDE = 32  # pixels; smaller pictures have too few cells


def checked(mosaic: str) -> str:
    """Return one of MOSAIC_CHOICES, in its own spelling.

    Args:
        mosaic: what the person typed, in capitals or small letters.

    Returns:
        One of MOSAIC_CHOICES.

    Raises:
        InputError: it is none of them.

    >>> checked("rggb")
    'RGGB'
    """
    for choice in MOSAIC_CHOICES:
        if choice.lower() == mosaic.lower():
            return choice
    choices = ", ".join(MOSAIC_CHOICES)
    raise InputError("mosaic", mosaic, f"must be one of {choices}")


def planes(axes: str) -> list[tuple[slice, ...]]:
    """Return the four planes of a mosaic: every second row and column.

    Args:
        axes: the letters of the array.

    Returns:
        An index into the array for each plane.

    >>> planes("HW")[1]
    (slice(0, None, 2), slice(1, None, 2))
    """
    indices: list[tuple[slice, ...]] = []
    for row, column in np.ndindex(2, 2):
        every_second = {"H": slice(row, None, 2), "W": slice(column, None, 2)}
        index = [every_second.get(letter, slice(None)) for letter in axes]
        indices.append(tuple(index))
    return indices


def looks_like_one(array: np.ndarray, axes: str) -> bool:
    """Return True if a picture has a period of 2 along both axes, as a mosaic has, in its middle.

    Args:
        array: the picture, or a stack, of which the first page is judged.
        axes: its letters; a mosaic has no channels.

    Returns:
        True if it is a mosaic.

    >>> noise = np.random.default_rng(0).normal(0, 1, (64, 64))
    >>> mosaic = noise + np.tile([[0, 9], [9, 4]], (32, 32))
    >>> looks_like_one(noise, "HW"), looks_like_one(mosaic, "HW")
    (False, True)
    """
    *stacked, height, width = array.shape
    if len(axes) != len(array.shape) or "C" in axes:
        return False
    if not axes.endswith("HW") or min(height, width) < MIN_MOSAIC_SIDE:
        return False
    first_page = array[(0,) * len(stacked)]
    cells = _cells(first_page)
    # of each phase, beside its neighbours
    differences = cells - np.median(cells, 0)
    typical = np.median(differences, 1, keepdims=True)
    deviations = np.abs(differences - typical)
    spread = np.median(deviations)
    phases = typical.reshape(2, 2)
    between_rows = np.ptp(phases, 0).max()
    between_columns = np.ptp(phases, 1).max()
    contrast = min(between_rows, between_columns)
    return bool(contrast > MIN_CONTRAST * max(spread, 1e-9))


def _cells(page: np.ndarray) -> np.ndarray:
    """Return the four phases of the 2 x 2 pixels in the middle of a page, (4, pixels), float64."""
    window: list[slice] = []
    for side in page.shape:
        margin = max(0, side - MIDDLE_SIDE)
        start = margin // 4 * 2  # an even start keeps the phases
        even_side = side // 2 * 2
        window.append(slice(start, min(start + MIDDLE_SIDE, even_side)))
    middle = page[tuple(window)].astype(np.float64)
    height, width = middle.shape
    cells = middle.reshape(height // 2, 2, width // 2, 2)
    phases_first = cells.transpose(1, 3, 0, 2)
    return phases_first.reshape(4, -1)
