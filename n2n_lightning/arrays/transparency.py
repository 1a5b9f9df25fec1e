"""Transparency among the channels of an array."""

from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import as_pages, evenly, of_pages


def has_alpha(
    array: Any,
    axes: str,
    looked_at: int = 64,
) -> bool:
    """Return True if the last of four channels is transparency, judged by the values.

    Transparency has next to no noise: it is constant, or equal to its neighbours in most places, or
    a smooth ramp. A fourth band, such as the near infrared of satellites, has noise and texture
    like the other three.

    Args:
        array: the values, in the axes of `axes`.
        axes: its letters.
        looked_at: rows to look at, evenly spread, of each of a few stacked images.

    Returns:
        False for other numbers of channels, and for channels that are not the last axis.
    """
    *_, channels = array.shape
    if not axes.endswith("C") or channels != 4:
        return False
    pages = as_pages(array, axes)
    stacked, _, _ = of_pages(pages.shape)
    places = list(np.ndindex(*stacked))
    sampled = []
    for i in evenly(len(places), 3):
        page = pages[places[i]]
        sampled.append(_some_rows(page, looked_at))
    rows = np.concatenate(sampled)
    fourth = rows[..., 3]
    lowest = fourth.min()
    if not np.isfinite(fourth).all() or lowest < 0:
        return False
    if lowest == fourth.max():
        return True
    colours = rows[..., :3]
    roughness = _roughness(fourth)
    roughness_of_colours = [_roughness(colours[..., k]) for k in range(3)]
    least_rough = min(roughness_of_colours)
    # drawings, few photons: neighbours are equal in all channels
    if roughness == 0 and least_rough == 0:
        return _share_at_ends(fourth) >= 0.9 > _share_at_ends(colours)
    return roughness < 0.1 * least_rough


def _some_rows(page: Any, count: int) -> np.ndarray:
    """Return up to `count` rows of a page (H, W, C), evenly spread, float64."""
    rows = evenly(len(page), count)
    return np.asarray(page[rows], np.float64)


def _share_at_ends(values: np.ndarray) -> float:
    """Return the share of the values that are 0 or the highest one; NaN does not count as such."""
    black = values == 0
    white = values == np.nanmax(values)
    return float(np.mean(black | white))


def _roughness(rows: np.ndarray) -> float:
    """Return the median absolute second difference along rows (..., W), by the deviation of all."""
    *_, width = rows.shape
    if width < 3:
        return 0.0
    with np.errstate(invalid="ignore"):
        steps = np.abs(np.diff(rows, 2, axis=-1))
        known = steps[np.isfinite(steps)]
        finite = np.where(np.isfinite(rows), rows, np.nan)
        deviation = float(np.nanstd(finite))
    if not known.size or not deviation:
        return 0.0
    return float(np.median(known)) / deviation
