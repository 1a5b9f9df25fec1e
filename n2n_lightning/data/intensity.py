"""What the stored values of noisy images mean: what is missing, what is black and white for a network and for PSNR."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from n2n_lightning.arrays import axes, bad_pixels, normalization
from n2n_lightning.data.scenes import SceneSet

LOOKED_AT = 64  # images, evenly spread


@dataclass
class IntensityStats:
    """What the values of some captures show.

    Attributes:
        nodata_values: stored values that mean that a pixel is missing.
        white: the stored value that PSNR takes for white.
        limits: the stored value that the network sees as 0, and how much above it as 1; None: the
            images are one value.
    """

    nodata_values: tuple[float, ...]
    white: float
    limits: tuple[float, float] | None


def intensity_stats(scenes: SceneSet) -> IntensityStats:
    """Judges the values of the first two captures of up to LOOKED_AT / 2 scenes."""
    flat = scenes.planes()
    chosen = axes.evenly(len(flat.names), LOOKED_AT // 2)
    pages = [flat.image(i, k).permute(1, 2, 0).numpy() for i in chosen for k in _first_two(flat, i)]
    found = [bad_pixels.margin_value(page) for page in pages]

    def is_rare(value: float) -> bool:  # where it is no margin; else it is data
        return all(
            m == value or (p == value).mean() < 0.001 for p, m in zip(pages, found, strict=True)
        )

    margins = {margin for margin in found if margin is not None and is_rare(margin)}
    nodata_values = tuple(sorted({*scenes.nodata_values, *margins}))
    values, calm = (
        np.concatenate(part)
        for part in zip(*(normalization.sampled(p, nodata_values) for p in pages), strict=True)
    )
    kind = pages[0].dtype
    low, high = normalization.robust_percentiles(values, None if kind == np.uint8 else calm) or (
        0.0,
        1.0,
    )
    white = _white(kind, pages, nodata_values, normalization.highest_plausible(values, calm))
    if not low < high:
        return IntensityStats(nodata_values, white, None)
    black, span = normalization.levels_between(low, high)
    # whole numbers, so that adding one to all values changes nothing
    if np.issubdtype(kind, np.integer):
        black, span = float(np.floor(black)), float(np.ceil(span))
    return IntensityStats(nodata_values, white, (black, span))


def _first_two(scenes: SceneSet, scene: int) -> range:
    return range(min(2, int(scenes.captures(torch.tensor([scene]))[0])))


def _white(
    kind: np.dtype, pages: Sequence[np.ndarray], nodata_values: Sequence[float], reach: float
) -> float:
    """The stored value that PSNR takes for white, by type and by the largest value up to `reach`."""
    if kind == np.uint8:
        return 255.0
    high = 0.0
    for page in pages:
        gone = bad_pixels.invalid_mask(page, nodata_values)
        known = (page if gone is None else page[~gone]).astype(np.float64)
        known = np.abs(known[known <= reach])
        high = max(high, float(known.max())) if known.size else high
    return (
        normalization.largest(kind, high)
        if np.issubdtype(kind, np.integer)
        else (1.0 if high <= 2 else high)
    )
