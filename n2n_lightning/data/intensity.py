"""Intensities of noisy images: missing values, and black and white for a network and for PSNR."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from n2n_lightning.arrays import axes, bad_pixels, normalization
from n2n_lightning.data.region_tensor import sampled_pages
from n2n_lightning.data.scene_set import EqualSizeScenes, SceneSet

MAX_SCENES_SAMPLED = 32  # evenly spread; two captures of each
LARGE_SAMPLED = 6  # large files of a data set, five planes of each: as many planes as above
RARE = 0.001  # share of the pixels of an image: a margin's value that is more frequent is data
WHITE_UP_TO = 2  # floats whose largest value is not above this are taken to have white at 1


@dataclass
class IntensityStats:
    """Statistics of the stored values of some captures.

    Attributes:
        nodata_values: stored values that mean that a pixel is missing.
        white: the stored value that is white for PSNR.
        limits: the stored value that the network sees as 0, and how much above it as 1; None: the
            images are one value.
    """

    nodata_values: tuple[float, ...]
    white: float
    limits: tuple[float, float] | None


def intensity_stats(scenes: SceneSet) -> IntensityStats:
    """Measure the values of the first two captures of up to MAX_SCENES_SAMPLED scenes.

    Large arrays, whether they are mapped, packed or in memory, are measured on their fixed sample
    (region_sample.sample_of), as they are where `denoise` goes through them block by block.

    Args:
        scenes: images, or volumes, of which some planes are taken.

    Returns:
        Missing values, white and the range of most values.
    """
    pages = _large_pages(scenes) or _pages(scenes)
    nodata_values = tuple(sorted({*scenes.nodata_values, *_margins(pages)}))
    samples = [normalization.sampled(page, nodata_values) for page in pages]
    values = np.concatenate([known for known, _ in samples])
    calm = np.concatenate([part for _, part in samples])
    kind = pages[0].dtype
    percentiles = normalization.robust_percentiles(values, None if kind == np.uint8 else calm)
    low, high = percentiles or (0.0, 1.0)
    plausible = normalization.highest_plausible(values, calm)
    white = _white(kind, pages, nodata_values, plausible)
    if not low < high:
        return IntensityStats(nodata_values, white, None)
    black, span = normalization.levels_between(low, high)
    # whole numbers, so that adding one to all values changes nothing
    if np.issubdtype(kind, np.integer):
        black = float(np.floor(black))
        span = float(np.ceil(span))
    return IntensityStats(nodata_values, white, (black, span))


def _pages(scenes: SceneSet) -> list[np.ndarray]:
    """Return some captures, or planes of them, (H, W, C) each."""
    flat = scenes.planes()
    pages: list[np.ndarray] = []
    for i in axes.evenly(len(flat), MAX_SCENES_SAMPLED):
        for k in range(min(2, flat.count_of(i))):
            image = flat.image(i, k)
            pages.append(image.permute(1, 2, 0).numpy())
    return pages


def _large_pages(scenes: SceneSet) -> list[np.ndarray]:
    """Return sampled planes of large arrays, (H, W, C) each; none of small ones and of movies."""
    repeated = isinstance(scenes, EqualSizeScenes) and scenes.counts is not None
    if repeated or not scenes.is_large:
        return []
    letters = "CDHW" if scenes.dims == 3 else "CHW"
    if scenes.one_size:
        letters = f"N{letters}"
    pages: list[np.ndarray] = []
    for array in scenes.arrays(LARGE_SAMPLED):
        pages.extend(sampled_pages(array, letters))
    return pages


def _margins(pages: Sequence[np.ndarray]) -> set[float]:
    """Return the values of margins without data, which are rare where they are no margin."""
    margins = [bad_pixels.margin_value(page) for page in pages]
    values = set()
    for value in margins:
        if value is not None and _is_rare(value, pages, margins):
            values.add(value)
    return values


def _is_rare(
    value: float,
    pages: Sequence[np.ndarray],
    margins: Sequence[float | None],
) -> bool:
    """Return True if a value is rare in all images that have no margin of it."""
    for page, margin in zip(pages, margins, strict=True):
        if margin != value and (page == value).mean() >= RARE:
            return False
    return True


def _white(
    kind: np.dtype, pages: Sequence[np.ndarray], nodata_values: Sequence[float], plausible: float
) -> float:
    """Return the stored value that is white for PSNR, by type and largest plausible value."""
    if kind == np.uint8:
        return 255.0
    high = 0.0
    for page in pages:
        missing = bad_pixels.invalid_mask(page, nodata_values)
        known = page if missing is None else page[~missing]
        known = known.astype(np.float64)
        known = np.abs(known[known <= plausible])
        if known.size:
            high = max(high, float(known.max()))
    if np.issubdtype(kind, np.integer):
        return normalization.largest(kind, high)
    return 1.0 if high <= WHITE_UP_TO else high
