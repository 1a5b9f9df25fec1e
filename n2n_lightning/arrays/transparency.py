"""Transparency among the channels of an array."""

from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import as_pages, evenly


def has_alpha(array: Any, axes: str, looked_at: int = 64) -> bool:
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
    places = list(np.ndindex(*pages.shape[:-3]))
    sampled = [_some_rows(pages[places[i]], looked_at) for i in evenly(len(places), 3)]
    rows = np.concatenate(sampled)
    colours = rows[..., :3]
    fourth = rows[..., 3]
    if not np.isfinite(fourth).all() or fourth.min() < 0:
        return False
    if fourth.min() == fourth.max():
        return True
    least_rough = min(_roughness(colours[..., k]) for k in range(3))
    roughness = _roughness(fourth)
    # drawings, few photons: neighbours are equal in all channels
    if roughness == 0 and least_rough == 0:
        at_ends = ((fourth == 0) | (fourth == fourth.max())).mean()
        colours_at_ends = ((colours == 0) | (colours == np.nanmax(colours))).mean()
        return bool(at_ends >= 0.9 > colours_at_ends)
    return bool(roughness < 0.1 * least_rough)


def _some_rows(page: Any, count: int) -> np.ndarray:
    """Return up to `count` rows of a page (H, W, C), evenly spread, float64."""
    return np.asarray(page[evenly(page.shape[0], count)], np.float64)


def _roughness(rows: np.ndarray) -> float:
    """Return the median absolute second difference along rows (..., W), by the deviation of all."""
    *_, width = rows.shape
    if width < 3:
        return 0.0
    with np.errstate(invalid="ignore"):
        steps = np.abs(np.diff(rows, 2, axis=-1))
        known = steps[np.isfinite(steps)]
        deviation = float(np.nanstd(np.where(np.isfinite(rows), rows, np.nan)))
    if not known.size or not deviation:
        return 0.0
    return float(np.median(known)) / deviation
