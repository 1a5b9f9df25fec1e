"""Label images and masks: whole numbers that name regions, told from pictures by their values."""

import numpy as np

from n2n_lightning.arrays.axes import as_pages, evenly

LEAST = 200  # pixels that differ from the commonest value
# of the neighbours of these pixels have the same value; of pixels of a clean 8 bit photograph up to
# 0.6
EQUAL = 0.75
ALONE = 0.01  # share of these pixels without a neighbour of the same value, at most
# share of the values whose own pixels are regions: a clipped photograph has values between its
# extremes
REGIONS = 0.9
# share of neighbouring regions whose values differ by 1, at most: more are levels of a smooth
# picture
STEPS = 0.9
FEW = 4  # values that may differ by 1 all the same, as classes of pixels do
PAGES = 5  # that are looked at
SIDE = 1200  # pixels of their middle, where there is something in it


def is_label_image(array: np.ndarray, axes: str) -> bool:
    """Judge whether an array names regions by whole numbers, as segmentations and masks do.

    Args:
        array: of any type; floats are never labels.
        axes: its letters, with H and W.

    Returns:
        True where each page that is looked at has regions of equal values, and at least one has
        LEAST such pixels.

    >>> labels = np.kron(np.arange(9).reshape(3, 3) * 7, np.ones((20, 20), np.uint16))
    >>> is_label_image(labels, "HW"), is_label_image(labels + np.arange(60, dtype=np.uint16), "HW")
    (True, False)
    """
    if array.dtype.kind not in "iub" or axes[-1:] == "C" or not {"H", "W"} <= set(axes):
        return False
    pages = as_pages(array, axes, 2)  # (..., H, W, C), or channels as pages
    found = False
    stacked = pages.shape[:-3]
    places = list(np.ndindex(*stacked))
    for number in evenly(len(places), PAGES):
        *_, channels = pages.shape
        for channel in range(channels):
            page = np.asarray(pages[places[number]][..., channel])
            middle = tuple(slice(max(0, n - SIDE) // 2, (n + SIDE) // 2) for n in page.shape)
            judged = _judged(page[middle])
            if judged is None and max(page.shape) > SIDE:  # the middle is empty
                judged = _judged(page)
            if judged is False:
                return False
            found = found or bool(judged)
    return found


def _judged(page: np.ndarray) -> bool | None:
    """Whether a page (H, W) is a label image; None where there is too little in it to tell."""
    if min(page.shape) < 3 or not _may_be_one(page):
        return False
    numbers, counts = _numbered(page)
    common, many = int(counts.argmax()), int((counts > 0).sum())
    other = numbers != common
    pixels = int(other.sum())
    if pixels < LEAST:
        return None if many < 3 else False
    padded = np.pad(numbers, 1, mode="edge")  # what lies outside is like the border
    sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    equal = sum((side == numbers).astype(np.uint8) for side in sides)
    of_value = np.bincount(numbers.ravel(), equal.ravel(), len(counts)) / (
        4 * np.maximum(counts, 1)
    )
    regions = of_value[(counts > 0) & (np.arange(len(counts)) != common)] >= 0.5
    if many > FEW:
        steps = np.concatenate(
            [np.abs(np.diff(page.astype(np.int64), axis=axis)).ravel() for axis in (0, 1)]
        )
        if (steps == 1).sum() > STEPS * (steps > 0).sum():
            return False
    fits = equal[other].mean() >= 4 * EQUAL and (equal[other] == 0).mean() <= ALONE
    return bool(fits and regions.mean() >= REGIONS)


def _numbered(page: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a page as small numbers, and how often each of them occurs."""
    least, most = int(page.min()), int(page.max())
    if most - least < 2**20:
        small: np.ndarray = (page.astype(np.int64) - least).astype(np.int32)
        return small, np.bincount(small.ravel(), minlength=most - least + 1)
    _, numbers, counts = np.unique(page, return_inverse=True, return_counts=True)
    return numbers.reshape(page.shape), counts


def _may_be_one(page: np.ndarray) -> bool:
    """Whether neighbours along some rows are mostly equal, which is quick to see."""
    rows = page[evenly(len(page), 64)]
    same = rows[:, 1:] == rows[:, :-1]
    return bool(same.mean() > 0.4)
