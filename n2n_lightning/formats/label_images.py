"""Detection of label images and masks: whole numbers that name regions, told by their values."""

import numpy as np

from n2n_lightning.arrays.axes import as_pages, evenly

# tests/test_label_images.py tries these thresholds on segmentations, masks, photographs and noise.
MIN_LABEL_PIXELS = 200  # pixels that differ from the commonest value
# Share of the neighbours of these pixels that have the same value; clean 8 bit photographs reach
# 0.6.
MIN_EQUAL = 0.75
MAX_ISOLATED = 0.01  # share of these pixels without a neighbour of the same value
# Share of the values whose own pixels are regions: a clipped photograph has values between its
# extremes.
MIN_REGIONS = 0.9
# Share of neighbouring regions whose values differ by 1: more are levels of a smooth picture.
MAX_UNIT_STEPS = 0.9
CLASSES = 4  # values that may differ by 1 all the same, as classes of pixels do
JUDGED_PAGES = 5  # pages that are judged
MIDDLE = 1200  # side of the middle of a page, which is judged unless it is empty


def is_label_image(array: np.ndarray, axes: str) -> bool:
    """Return True if an array names regions by whole numbers, as segmentations and masks do.

    Args:
        array: of any type; floats are never labels.
        axes: its letters, with H and W.

    Returns:
        True if each judged page has regions of equal values, and at least one has
        MIN_LABEL_PIXELS such pixels.

    >>> labels = np.kron(np.arange(9).reshape(3, 3) * 7, np.ones((20, 20), np.uint16))
    >>> ramp = np.arange(60, dtype=np.uint16)
    >>> is_label_image(labels, "HW"), is_label_image(labels + ramp, "HW")
    (True, False)
    """
    if array.dtype.kind not in "iub" or axes.endswith("C"):
        return False
    if "H" not in axes or "W" not in axes:
        return False
    pages = as_pages(array, axes, 2)  # (..., H, W, C), or channels as pages
    *stacked, _height, _width, channels = pages.shape
    indices = list(np.ndindex(*stacked))
    has_regions = False
    for number in evenly(len(indices), JUDGED_PAGES):
        for channel in range(channels):
            page = pages[indices[number]][..., channel]
            verdict = _judge_middle(np.asarray(page))
            if verdict is False:
                return False
            if verdict:
                has_regions = True
    return has_regions


def _judge_middle(page: np.ndarray) -> bool | None:
    """Judge a page (H, W) by its middle, or as a whole if its middle is empty; see _judge_page."""
    height, width = page.shape
    top = max(0, height - MIDDLE) // 2
    left = max(0, width - MIDDLE) // 2
    middle = page[top : top + MIDDLE, left : left + MIDDLE]
    verdict = _judge_page(middle)
    if verdict is None and middle.size < page.size:
        return _judge_page(page)
    return verdict


def _judge_page(page: np.ndarray) -> bool | None:
    """Return True if a page (H, W) is a label image, None if it has too few regions to decide."""
    if min(page.shape) < 3 or not _has_equal_neighbours(page):
        return False
    numbers, counts = _small_numbers(page)
    values = int((counts > 0).sum())
    commonest = int(counts.argmax())
    others = numbers != commonest
    if int(others.sum()) < MIN_LABEL_PIXELS:
        return None if values < 3 else False
    if values > CLASSES and _is_smooth(page):
        return False
    equal = _count_equal_neighbours(numbers)
    equal_of_others = equal[others]
    if equal_of_others.mean() < 4 * MIN_EQUAL:
        return False
    isolated = equal_of_others == 0
    if isolated.mean() > MAX_ISOLATED:
        return False
    equal_by_value = np.bincount(numbers.ravel(), equal.ravel(), len(counts))
    occurring = counts > 0
    occurring[commonest] = False
    neighbours = 4 * counts[occurring]
    shares = equal_by_value[occurring] / neighbours
    regions = shares >= 0.5
    return bool(regions.mean() >= MIN_REGIONS)


def _small_numbers(page: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of a page as small numbers, and the count of each number."""
    lowest = int(page.min())
    highest = int(page.max())
    span = highest - lowest
    if span < 2**20:
        above_lowest = page.astype(np.int64) - lowest
        small: np.ndarray = above_lowest.astype(np.int32)
        counts = np.bincount(small.ravel())
        return small, counts
    _, numbers, counts = np.unique(page, return_inverse=True, return_counts=True)
    return numbers.reshape(page.shape), counts


def _has_equal_neighbours(page: np.ndarray) -> bool:
    """Return True if neighbours along some rows are mostly equal: a fast first check."""
    rows = page[evenly(len(page), 64)]
    same = np.diff(rows, axis=1) == 0
    return bool(same.mean() > 0.4)


def _count_equal_neighbours(numbers: np.ndarray) -> np.ndarray:
    """Count the neighbours of each pixel with its number, 0 to 4; outside is like the border."""
    equal = np.zeros(numbers.shape, np.uint8)
    for counts, values in ((equal, numbers), (equal.T, numbers.T)):
        same = np.diff(values, axis=0) == 0
        counts[1:] += same
        counts[:-1] += same
        counts[[0, -1]] += 1
    return equal


def _is_smooth(page: np.ndarray) -> bool:
    """Return True if most steps between neighbours are of 1."""
    unit_steps = 0
    steps = 0
    for axis in (0, 1):
        differences = np.diff(page.astype(np.int64), axis=axis)
        heights = np.abs(differences)
        unit_steps += int((heights == 1).sum())
        steps += int((heights > 0).sum())
    return unit_steps > MAX_UNIT_STEPS * steps
