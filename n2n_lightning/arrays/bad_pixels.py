"""Pixels without image content: missing ones and margins of scans.

Missing pixels keep their value in results; the network sees them inpainted, and losses do not count
them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.blocks import cut_blocks

HUGE = 1e30  # larger than any image value, smaller than fill values such as -3.4e38
MAX_ISOLATED_SHARE = 0.005  # of the pixels: more missing ones than this form gaps
BAND = 24  # pixels next to a gap that are mirrored into it
MARGIN_BLOCK = 8  # pixels: a margin consists of whole blocks of this side
# by the number of spatial axes
_POOL_AND_RESIZE: dict[int, tuple[Any, str]] = {
    2: (F.avg_pool2d, "bilinear"),
    3: (F.avg_pool3d, "trilinear"),
}


def margin_value(page: np.ndarray) -> float | None:
    """Find the value of a margin, or of another place without data, that nobody declared.

    A margin's value fills whole blocks of pixels from the border on, at least 1 in 50, is rare
    elsewhere, and is far from the image's own values: zeros among photon counts, clipped shadows
    and blown skies are data. Or it is below 0, far below all other values, and repeats to the last
    digit, as -9999 does.

    Args:
        page: (H, W, C).

    Returns:
        None where there is no such value.

    >>> scan = np.random.default_rng(0).normal(100, 10, (64, 64, 1))
    >>> scan[:, :16] = -2000
    >>> margin_value(scan)
    -2000.0
    """
    first, *others = np.moveaxis(page, 2, 0)
    for value in _border_values(first):
        same = first == value
        for channel in others:
            same &= channel == value
        if _is_margin(first, same, value):
            return value
    return _far_away(first)


def _border_values(plane: np.ndarray) -> list[float]:
    """Return the finite values at the corners of a plane (H, W) and in the middle of its sides."""
    height, width = plane.shape
    rows = [0, height - 1]
    columns = [0, width - 1]
    corners = plane[np.ix_(rows, columns)].ravel()
    above_and_below = plane[rows, width // 2]
    beside = plane[height // 2, columns]
    values = np.concatenate((corners, above_and_below, beside), dtype=np.float64)
    finite = values[np.isfinite(values)]
    return list(dict.fromkeys(finite.tolist()))


def _is_margin(
    plane: np.ndarray,
    same: np.ndarray,
    value: float,
) -> bool:
    """Return True if the pixels of a value form a margin, see `margin_value`.

    Args:
        plane: the first channel, (H, W).
        same: the pixels that have the value, bool, (H, W).
        value: of the margin.
    """
    if min(same.shape) < 2 * MARGIN_BLOCK:
        return False
    blocks = cut_blocks(same, MARGIN_BLOCK)
    solid = blocks.all((1, 3))
    if not 0.02 <= solid.mean() < 0.98:
        return False
    rows_at_border = solid[[0, -1]]
    columns_at_border = solid[:, [0, -1]]
    if not rows_at_border.any() and not columns_at_border.any():
        return False
    inside = _away_from(solid)
    if inside.mean() < 0.05:
        return False
    shares = blocks.mean((1, 3))
    if shares[inside].mean() >= 0.002:
        return False
    # Up to the edge of the margin: a shade that falls off to the value has no edge.
    plane_blocks = cut_blocks(plane, MARGIN_BLOCK).transpose(0, 2, 1, 3)
    return _stands_apart(value, plane_blocks[~solid].ravel())


def _stands_apart(value: float, image: np.ndarray) -> bool:
    """Return True if a margin's value is far from those of the image, or these hardly repeat.

    Args:
        value: of the margin.
        image: values of blocks that are not margin, (n,).
    """
    step = max(1, image.size // 100_000)
    others = image[image != value]
    values = others[::step].astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return False
    distinct = len(np.unique(values))
    if distinct > 0.5 * values.size:
        return True  # measured values hardly repeat to the last digit
    low, high = np.quantile(values, (0.01, 0.99))
    spread = high - low
    gap = low - value
    return bool(gap > 0.25 * spread > 0)


def _away_from(solid: np.ndarray) -> np.ndarray:
    """Return the blocks that are two or more away from solid ones: blocks at an edge are mixed.

    Opposite sides of the plane are neighbours.
    """
    from scipy.ndimage import binary_dilation

    wrapped = np.pad(solid, 2, mode="wrap")
    near = binary_dilation(wrapped, iterations=2)
    return ~near[2:-2, 2:-2]


def _far_away(plane: np.ndarray) -> float | None:
    """Return a repeated value below 0 that is far below all others; None without one."""
    height, width = plane.shape
    row_step = max(1, height // 500)
    column_step = max(1, width // 500)
    values = plane[::row_step, ::column_step]
    values = values[np.isfinite(values)]
    lowest = float(values.min(initial=0))
    if lowest >= 0:
        return None
    higher = values[values != lowest]
    repeats = values.size - higher.size
    distinct = len(np.unique(higher))
    if repeats < 3 or distinct < 10:
        return None
    low, high = np.quantile(higher, (0.01, 0.99)).tolist()
    gap = low - lowest
    if gap <= 10 * (high - low):
        return None
    return lowest


def invalid_mask(pixels: np.ndarray, nodata_values: Sequence[float]) -> np.ndarray | None:
    """Find the stored values without image content: not finite, huge, or declared.

    Args:
        pixels: of any shape.
        nodata_values: stored values that stand for missing pixels.

    Returns:
        bool, in that shape; None where all pixels are valid.
    """
    floating = np.issubdtype(pixels.dtype, np.floating)
    if not floating and not len(nodata_values):
        return None
    invalid = np.zeros(pixels.shape, bool)
    if floating:
        with np.errstate(invalid="ignore"):
            invalid |= ~np.isfinite(pixels)
            if pixels.dtype.itemsize > 2:  # float16 has no such values
                invalid |= np.abs(pixels) > HUGE
    for value in nodata_values:
        invalid |= pixels == value
    if not invalid.any():
        return None
    return invalid


def mask_invalid(
    stored: Tensor,
    values: Tensor,
    nodata_values: tuple[float, ...],
) -> Tensor:
    """Replace values by NaN where the stored ones are not finite, huge, or declared as missing.

    Args:
        stored: pixels as the file has them, of any shape.
        values: the same pixels in another unit or type, in that shape.
        nodata_values: stored values that stand for missing pixels.

    Returns:
        `values` themselves where all pixels are valid.
    """
    floating = stored.is_floating_point()
    if not floating and not nodata_values:
        return values
    invalid = torch.zeros_like(stored, dtype=torch.bool)
    if floating:
        invalid |= ~stored.isfinite()
        invalid |= stored.float().abs() > HUGE
    for value in nodata_values:
        invalid |= stored == value
    if stored.device.type == "cpu" and not invalid.any():  # a GPU would have to be waited for
        return values
    return torch.where(invalid, torch.nan, values)


def inpaint(images: Tensor) -> Tensor:
    """Fill missing pixels from their surroundings.

    A few pixels get the mean of the smallest blocks of 2, 4, 8, ... pixels with known ones. Larger
    gaps are filled by reflection, noise included: next to a smooth place a network mistakes noise
    for texture and leaves it.

    Args:
        images: (B, C, H, W) or (B, C, D, H, W), NaN where a pixel is missing.

    Returns:
        In that shape; 0 where no pixel is known at all.

    >>> inpaint(torch.tensor([[[[1.0, 2.0], [3.0, torch.nan]]]])).tolist()
    [[[[1.0, 2.0], [3.0, 3.0]]]]
    """
    known = images.isfinite()
    if known.all():
        return images
    weight = known.to(images.dtype)
    total = torch.where(known, images, 0)
    smooth = _fill_by_means(total, weight).contiguous()
    *_, height, width = images.shape
    planes = smooth.reshape(-1, height, width)
    masks = known.reshape(-1, height, width)
    for plane, mask in zip(planes, masks, strict=True):
        pixels = mask.numel()
        gaps = pixels - int(mask.sum())
        if MAX_ISOLATED_SHARE * pixels < gaps < pixels:
            plane.copy_(_mirrored(plane, mask))
    return smooth


def _mirrored(plane: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels by reflection at the nearest known one, over up to BAND pixels.

    Args:
        plane: (H, W), filled in another way, for reflections that hit unknown pixels.
        known: bool, (H, W).
    """
    from scipy.ndimage import distance_transform_edt

    mask = known.cpu().numpy()
    height, width = mask.shape
    place = np.mgrid[:height, :width]
    nearest = distance_transform_edt(~mask, return_distances=False, return_indices=True)
    away = (nearest - place).astype(np.float32)
    distance = np.hypot(*away)
    distance = np.maximum(distance, 1e-6)
    beyond = distance % (2 * BAND) - BAND
    folded = BAND - np.abs(beyond)
    steps = np.round(away / distance * folded)
    mirrored = (nearest + steps).astype(int)
    y, x = mirrored
    inside_y = (y >= 0) & (y < height)
    inside_x = (x >= 0) & (x < width)
    mirrored = np.where(inside_y & inside_x, mirrored, nearest)
    hits_known = mask[tuple(mirrored)]
    mirrored = np.where(hits_known, mirrored, nearest)
    y, x = torch.from_numpy(mirrored).to(plane.device)
    return torch.where(known, plane, plane[y, x])


def _fill_by_means(total: Tensor, weight: Tensor) -> Tensor:
    """Return total / weight of each pixel, from coarser levels where the weight is 0."""
    known = weight > 0
    mean = total / weight.clamp(min=1e-12)
    size = axes.size(total)
    if known.all() or max(size) == 1:
        return torch.where(known, mean, 0)
    pool, mode = _POOL_AND_RESIZE[len(size)]
    block = [min(2, length) for length in size]
    coarse_total = pool(total, block, ceil_mode=True)
    coarse_weight = pool(weight, block, ceil_mode=True)
    coarse = _fill_by_means(coarse_total, coarse_weight)
    resized = F.interpolate(coarse, size, mode=mode)
    return torch.where(known, mean, resized)
