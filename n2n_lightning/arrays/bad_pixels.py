"""Pixels without image content: missing ones, margins of scans, hot and dead ones.

Missing pixels keep their value in results; the network sees them inpainted, and losses do not count
them. Outliers (hot, dead, hit by a cosmic ray) are inpainted as well, so that they affect no other
pixel.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.blocks import cut_blocks

HUGE = 1e30  # larger than any image value, smaller than fill values such as -3.4e38
MAX_OUTLIER_SHARE = 0.01  # of the pixels: more sharp ones than this are image content
LONG = 40  # pixels: tracks of cosmic rays are shorter
MAX_ISOLATED_SHARE = 0.005  # of the pixels: more missing ones than this form gaps
BAND = 24  # pixels next to a gap that are mirrored into it
MARGIN_BLOCK = 8  # pixels: a margin consists of whole blocks of this side
# in units of the network's range: pixels within it are no outliers
OUTLIER_LIMITS = (-0.2, 1.2)
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
    bottom, right = (n - 1 for n in plane.shape)
    middle_y, middle_x = (n // 2 for n in plane.shape)
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    sides = [(0, middle_x), (bottom, middle_x), (middle_y, 0), (middle_y, right)]
    values = [float(plane[place]) for place in corners + sides]
    return list(dict.fromkeys(value for value in values if np.isfinite(value)))


def _is_margin(plane: np.ndarray, same: np.ndarray, value: float) -> bool:
    """Return True if the pixels of a value form a margin, see `margin_value`.

    Args:
        plane: the first channel, (H, W).
        same: the pixels that have the value, bool, (H, W).
        value: of the margin.
    """
    if not same.any() or min(same.shape) < 2 * MARGIN_BLOCK:
        return False
    blocks = cut_blocks(same, MARGIN_BLOCK)
    solid: np.ndarray = np.asarray(blocks.all((1, 3)))
    rows_at_border = solid[[0, -1]]
    columns_at_border = solid[:, [0, -1]]
    at_border = rows_at_border.any() or columns_at_border.any()
    if not at_border or not 0.02 <= solid.mean() < 0.98:
        return False
    inside = _away_from(solid)
    shares = blocks.mean((1, 3))
    if inside.mean() < 0.05 or shares[inside].mean() >= 0.002:
        return False
    # Up to the edge of the margin: a shade that falls off to the value has no edge.
    image = cut_blocks(plane, MARGIN_BLOCK).transpose(0, 2, 1, 3)[~solid].ravel()
    step = max(1, image.size // 100_000)
    values = image[image != value][::step].astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return False
    if len(np.unique(values)) > 0.5 * values.size:
        return True  # measured values hardly repeat to the last digit
    low, high = np.quantile(values, (0.01, 0.99)).tolist()
    return low - value > 0.25 * (high - low) > 0


def _away_from(solid: np.ndarray) -> np.ndarray:
    """Return the blocks that are two or more away from solid ones: blocks at an edge are mixed."""
    inside = ~solid
    for _ in range(2):
        near = ~inside
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            inside &= ~np.roll(near, shift, axis)
    return inside


def _far_away(plane: np.ndarray) -> float | None:
    """Return a repeated value below 0 that is far below all others; None without one."""
    step = tuple(slice(None, None, max(1, n // 500)) for n in plane.shape)
    values = plane[step]
    values = values[np.isfinite(values)]
    lowest = float(values.min(initial=0))
    if lowest >= 0:
        return None
    higher = values[values != lowest]
    repeats = values.size - higher.size
    if repeats < 3 or len(np.unique(higher)) < 10:
        return None
    low, high = np.quantile(higher, (0.01, 0.99)).tolist()
    if low - lowest <= 10 * (high - low):
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
    invalid: Any = None
    if np.issubdtype(pixels.dtype, np.floating):
        with np.errstate(invalid="ignore"):
            invalid = ~np.isfinite(pixels)
            if pixels.dtype.itemsize > 2:  # float16 has no such values
                invalid |= np.abs(pixels) > HUGE
    for value in nodata_values:
        same = pixels == value
        invalid = same if invalid is None else invalid | same
    if invalid is None or not invalid.any():
        return None
    return invalid


def mask_invalid(stored: Tensor, values: Tensor, nodata_values: tuple[float, ...]) -> Tensor:
    """Replace values by NaN where the stored ones are not finite, huge, or declared as missing.

    Args:
        stored: pixels as the file has them, of any shape.
        values: the same pixels in another unit or type, in that shape.
        nodata_values: stored values that stand for missing pixels.

    Returns:
        `values` themselves where all pixels are valid.
    """
    invalid: Any = None
    if stored.is_floating_point():
        invalid = ~stored.isfinite() | (stored.float().abs() > HUGE)
    for value in nodata_values:
        same = stored == value
        invalid = same if invalid is None else invalid | same
    if invalid is None or not invalid.any():
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
    smooth = _fill_by_means(torch.where(known, images, 0), weight).contiguous()
    *_, height, width = images.shape
    planes = smooth.reshape(-1, height, width)
    masks = known.reshape(-1, height, width)
    for plane, mask in zip(planes, masks, strict=True):
        gaps = int((~mask).sum())
        if MAX_ISOLATED_SHARE * mask.numel() < gaps < mask.numel():
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
    distance = np.maximum(np.hypot(*away), 1e-6)
    folded = BAND - np.abs(distance % (2 * BAND) - BAND)
    steps = np.round(away / distance * folded)
    y, x = (nearest + steps).astype(int)
    inside_y = (y >= 0) & (y < height)
    inside_x = (x >= 0) & (x < width)
    inside = inside_y & inside_x
    y = np.where(inside, y, nearest[0])
    x = np.where(inside, x, nearest[1])
    hits_known = mask[y, x]
    y = torch.from_numpy(np.where(hits_known, y, nearest[0])).to(plane.device)
    x = torch.from_numpy(np.where(hits_known, x, nearest[1])).to(plane.device)
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
    return torch.where(known, mean, F.interpolate(coarse, size, mode=mode))


def _square_ring(radius: int) -> list[tuple[int, int]]:
    """Return the offsets of the pixels on the border of a square, in rows and columns."""
    span = range(-radius, radius + 1)
    return [offset for offset in product(span, span) if max(map(abs, offset)) == radius]


_BESIDE = _square_ring(1)
_RING_2 = _square_ring(2)
_RING_3 = _square_ring(3)
HALO = 4  # pixels around one that decide whether it is an outlier, and which flanks it has


def outlier_mask(images: Tensor, whole: bool = False) -> Tensor | None:
    """Find outliers: pixels that are sharper than any lens could make them.

    A point of light is spread over its neighbours: two pixels away a star that is two pixels wide
    (full width at half maximum) still has 3% of its peak in a third of them. A pixel is an outlier
    where it has less than 2% there: a hot or dead pixel, a track of a cosmic ray, a cluster of up
    to 3 x 3, but also an undersampled star. Only pixels beyond OUTLIER_LIMITS are tested, and only
    those about 50 deviations of the noise above their surroundings can be told; others lie in the
    range that the network knows. Lines of over 40 pixels are image content, and so is everything
    sharp where it is more than 1 in 100 pixels.

    Args:
        images: (B, C, H, W) or (B, C, D, H, W), in units of the network's range; NaN does not
            count.
        whole: add adjacent pixels that stand out as well: the flanks of an undersampled star.

    Returns:
        bool, in the shape of `images`; None where there are no outliers.
    """
    *_, height, width = images.shape
    planes = images.reshape(-1, height, width)
    points = isolated(standing_out(planes), (height, width))
    if not len(points):
        return None
    if whole:
        points = with_flanks(planes, points)
    mask = torch.zeros(planes.shape, dtype=torch.bool, device=images.device)
    mask[tuple(points.T)] = True
    return mask.reshape(images.shape)


def standing_out(planes: Tensor) -> Tensor:
    """Find the pixels that are sharper than a lens could make them, see `outlier_mask`.

    Args:
        planes: (N, H, W), in units of the network's range; NaN does not count.

    Returns:
        Their coordinates, (n, 3), in the order of the planes.
    """
    below, above = OUTLIER_LIMITS
    asked = ((planes < below) | (planes > above)) & planes.isfinite()
    points = asked.nonzero()
    if not len(points):
        return points
    padded = _pad_with_nan(planes)
    sharp = []
    for part in points.split(100_000):
        ground, noise = _surroundings(padded, part)
        excess = _values_at(padded, part) - ground
        ring = _values_around(padded, part, _RING_2)
        heights = ((ring - ground) * excess.sign()).nan_to_num(0)
        # Five of the ring may be of the same cluster.
        halo = heights.sort(0).values[-6]
        # False where everything around is NaN
        sharp.append(excess.abs() * 0.02 > halo + 0.6 * noise)
    return points[torch.cat(sharp)]


def _pad_with_nan(planes: Tensor) -> Tensor:
    """Return planes (N, H, W) with 3 pixels of NaN around them, for `_values_at` and the like."""
    padded = F.pad(planes[:, None], (3, 3, 3, 3), value=torch.nan)
    return padded[:, 0]


def _values_at(padded: Tensor, points: Tensor, dy: int = 0, dx: int = 0) -> Tensor:
    """Return the values of padded planes at some offset from points (n, 3) of the planes: (n,)."""
    n, y, x = points.unbind(1)
    return padded[n, y + 3 + dy, x + 3 + dx]


def _values_around(padded: Tensor, points: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Return the values at several offsets from points (n, 3): (offsets, n)."""
    return torch.stack([_values_at(padded, points, dy, dx) for dy, dx in offsets])


def _surroundings(padded: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Measure the pixels three away from each point.

    Args:
        padded: planes (N, H + 6, W + 6), three pixels of NaN around them.
        points: (n, 3).

    Returns:
        Their median, and their deviation by the median of differences, (n,) each.
    """
    ring = _values_around(padded, points, _RING_3)
    ground = ring.nanmedian(0).values
    deviation = (ring - ground).abs().nanmedian(0).values
    return ground, 1.4826 * deviation


def with_flanks(planes: Tensor, points: Tensor) -> Tensor:
    """Add to outliers the pixels next to them that stand out by 4 deviations of the noise, too.

    Args:
        planes: (N, H, W).
        points: coordinates, (n, 3).

    Returns:
        Coordinates, (m, 3), each once.
    """
    padded = _pad_with_nan(planes)
    ground, noise = _surroundings(padded, points)
    sign = (_values_at(padded, points) - ground).sign()
    added = [points]
    for dy, dx in _BESIDE:
        excess = (_values_at(padded, points, dy, dx) - ground) * sign
        shifted = points + torch.tensor([0, dy, dx], device=points.device)
        added.append(shifted[excess > 4 * noise])  # False for NaN, as beyond the border
    return torch.cat(added).unique(dim=0)


def isolated(points: Tensor, size: Sequence[int]) -> Tensor:
    """Keep the outliers of planes that have few of them: no lines, grids or letters.

    Args:
        points: coordinates, (n, 3): plane, row, column.
        size: height and width of the planes.

    Returns:
        Coordinates, (m, 3).
    """
    if not len(points):
        return points
    most = max(9, MAX_OUTLIER_SHARE * size[0] * size[1])
    few = [points[:0]]
    for plane in points[:, 0].unique():
        own = points[points[:, 0] == plane]
        if len(own) <= LONG:
            few.append(own)
        elif len(own) <= most:
            few.append(own[compact(own[:, 1:])])
    return torch.cat(few)


def compact(places: Tensor, most: int = LONG) -> Tensor:
    """Tell which pixels belong to small groups, of pixels that touch one another.

    Args:
        places: rows and columns of the pixels, (n, 2).
        most: pixels of a small group.

    Returns:
        bool, (n,).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    pixels = places.cpu().numpy()
    touching = cKDTree(pixels).query_pairs(1.5, output_type="ndarray")
    ones = np.ones(len(touching), bool)
    graph = coo_array((ones, tuple(touching.T)), shape=(len(pixels), len(pixels)))
    _, group = connected_components(graph, directed=False)
    sizes = np.bincount(group)[group]
    return torch.from_numpy(sizes <= most).to(places.device)


def lacking(image: Tensor, other: Tensor, outliers: Tensor) -> Tensor:
    """Find the outliers of a capture that another capture of the same scene does not have.

    A point of the scene is in both, at most a pixel away. The other capture lacks it where nothing
    within one pixel has a fifth of its height over the surroundings: 10 deviations of the noise,
    for an outlier of the 50 that `outlier_mask` asks for.

    Args:
        image: a capture, (B, C, H, W) or (B, C, D, H, W).
        other: the other capture, in that shape and unit.
        outliers: bool, of `image`, in its shape.

    Returns:
        bool, in the shape of `image`; False where the other capture is not known.
    """
    *_, height, width = image.shape
    planes = image.reshape(-1, height, width)
    others = other.reshape(-1, height, width)
    points = outliers.reshape(planes.shape).nonzero()
    gone = torch.zeros(planes.shape, dtype=torch.bool, device=image.device)
    if len(points):
        gone[tuple(points.T)] = absent(planes, others, points)
    return gone.reshape(image.shape)


def absent(planes: Tensor, others: Tensor, points: Tensor) -> Tensor:
    """Tell which outliers of planes other planes of the same scenes lack, see `lacking`.

    Args:
        planes: (N, H, W), NaN where a pixel is missing.
        others: of the other captures, in that shape.
        points: coordinates of the outliers, (n, 3).

    Returns:
        bool, (n,).
    """
    padded = _pad_with_nan(planes)
    padded_others = _pad_with_nan(others)
    ground, _ = _surroundings(padded, points)
    excess = _values_at(padded, points) - ground
    other_ground, _ = _surroundings(padded_others, points)
    near = _values_around(padded_others, points, [(0, 0), *_BESIDE])
    heights = ((near - other_ground) * excess.sign()).nan_to_num(-torch.inf)
    known = _values_at(padded_others, points).isfinite()
    return (heights.amax(0) < 0.2 * excess.abs()) & known


def inpaint_outliers(images: Tensor, whole: bool = False) -> Tensor:
    """Fill missing pixels and outliers from their surroundings, for a network.

    Args:
        images: (B, C, H, W) or (B, C, D, H, W), in units of the network's range.
        whole: see `outlier_mask`.

    Returns:
        In that shape.
    """
    return inpaint(mask_outliers(images, whole))


def mask_outliers(images: Tensor, whole: bool = False) -> Tensor:
    """Replace outliers by NaN, which losses do not count.

    Args:
        images: (B, C, H, W) or (B, C, D, H, W), in units of the network's range.
        whole: see `outlier_mask`.

    Returns:
        In that shape; the images themselves where there are no outliers.
    """
    outliers = outlier_mask(images, whole)
    if outliers is None:
        return images
    return torch.where(outliers, torch.nan, images)
