"""Frames of colour cameras before demosaicking: one number a pixel, of a colour that alternates."""

import numpy as np

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import MOSAICS

CHOICES = ("auto", "none", *MOSAICS)
# of the contrast of neighbours: where the four means of 2 x 2 pixels differ by as much, that is a
# mosaic
SHARE = 0.5


def checked(mosaic: str) -> str:
    """Return the name of a colour filter, in capitals; raise InputError where it is none of CHOICES.

    >>> checked("rggb")
    'RGGB'
    """
    found = next((choice for choice in CHOICES if choice.lower() == mosaic.lower()), None)
    if found is None:
        raise InputError("mosaic", mosaic, f"must be one of {', '.join(CHOICES)}")
    return found


def planes(axes: str) -> list[tuple[slice, ...]]:
    """Return where the four planes of a mosaic lie in its array: every second row and column.

    >>> planes("HW")[1]
    (slice(0, None, 2), slice(1, None, 2))
    """
    steps = [{"H": slice(y, None, 2), "W": slice(x, None, 2)} for y, x in np.ndindex(2, 2)]
    return [tuple(step.get(letter, slice(None)) for letter in axes) for step in steps]


def looks_like_one(array: np.ndarray, axes: str) -> bool:
    """Whether a picture has a period of 2 along both axes, as a mosaic has, by its middle.

    >>> noise = np.random.default_rng(0).normal(0, 1, (64, 64))
    >>> looks_like_one(noise, "HW"), looks_like_one(noise + np.tile([[0, 9], [9, 4]], (32, 32)), "HW")
    (False, True)
    """
    *stacked, height, width = array.shape
    if "C" in axes or axes[-2:] != "HW" or len(axes) != len(array.shape) or min(height, width) < 32:
        return False
    page = array[(0,) * len(stacked)]
    top, left = (max(0, n - 512) // 4 * 2 for n in page.shape)
    part = page[top : top + 512, left : left + 512].astype(np.float64)
    part = part[: len(part) // 2 * 2, : part.shape[1] // 2 * 2]
    cells = (
        part.reshape(len(part) // 2, 2, part.shape[1] // 2, 2).transpose(1, 3, 0, 2).reshape(4, -1)
    )
    # of each of the four places, beside its neighbours
    typical = np.median(cells - np.median(cells, 0), 1)
    spread = np.median(np.abs(cells - np.median(cells, 0) - typical[:, None]))
    rows, columns = np.ptp(typical.reshape(2, 2), 0).max(), np.ptp(typical.reshape(2, 2), 1).max()
    return bool(min(rows, columns) > SHARE * max(spread, 1e-9))
