"""Isolated pixels that stand out: hot, dead, hit by a cosmic ray, or undersampled stars.

They are inpainted for the network, so that they affect no other pixel.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.arrays.bad_pixels import inpaint

MAX_OUTLIER_SHARE = 0.01  # of the pixels: more sharp ones than this are image content
LONG = 40  # pixels: tracks of cosmic rays are shorter
# in units of the network's range: pixels within it are no outliers
OUTLIER_LIMITS = (-0.2, 1.2)


def _square_ring(radius: int) -> list[tuple[int, int]]:
    """Return the offsets of the pixels on the border of a square, in rows and columns."""
    offsets = []
    span = range(-radius, radius + 1)
    for dy, dx in product(span, span):
        if max(abs(dy), abs(dx)) == radius:
            offsets.append((dy, dx))
    return offsets


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
    beyond = (planes < below) | (planes > above)
    points = (beyond & planes.isfinite()).nonzero()
    if not len(points):
        return points
    padded = _pad_with_nan(planes)
    sharp = []
    for part in points.split(100_000):
        ground, noise = _surroundings(padded, part)
        excess = _values_at(padded, part) - ground
        ring = _values_around(padded, part, _RING_2)
        heights = (ring - ground) * excess.sign()
        ascending = heights.nan_to_num(0).sort(0).values
        halo = ascending[-6]  # Five of the ring may be of the same cluster.
        blurred = halo + 0.6 * noise
        # False where everything around is NaN
        sharp.append(excess.abs() * 0.02 > blurred)
    return points[torch.cat(sharp)]


def _pad_with_nan(planes: Tensor) -> Tensor:
    """Return planes (N, H, W) with 3 pixels of NaN around them, for `_values_at` and the like."""
    return F.pad(planes, (3, 3, 3, 3), value=torch.nan)


def _values_at(
    padded: Tensor,
    points: Tensor,
    dy: int = 0,
    dx: int = 0,
) -> Tensor:
    """Return the values of padded planes at some offset from points (n, 3) of the planes: (n,)."""
    n, row, column = points.unbind(1)
    y = row + 3 + dy
    x = column + 3 + dx
    return padded[n, y, x]


def _values_around(
    padded: Tensor,
    points: Tensor,
    offsets: Sequence[tuple[int, int]],
) -> Tensor:
    """Return the values at several offsets from points (n, 3): (offsets, n)."""
    values = [_values_at(padded, points, dy, dx) for dy, dx in offsets]
    return torch.stack(values)


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
    difference = (ring - ground).abs()
    deviation = difference.nanmedian(0).values
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
    excess = _values_at(padded, points) - ground
    sign = excess.sign()
    added = [points]
    for dy, dx in _BESIDE:
        values = _values_at(padded, points, dy, dx)
        height = (values - ground) * sign
        stands_out = height > 4 * noise  # False for NaN, as beyond the border
        n, row, column = points.unbind(1)
        beside = torch.stack((n, row + dy, column + dx), 1)
        added.append(beside[stands_out])
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
    height, width = size
    most = max(9, MAX_OUTLIER_SHARE * height * width)
    few = [points[:0]]
    plane_of_each = points[:, 0]
    for plane in plane_of_each.unique():
        own = points[plane_of_each == plane]
        if len(own) <= LONG:
            few.append(own)
        elif len(own) <= most:
            small = compact(own[:, 1:])
            few.append(own[small])
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
    count = len(pixels)
    touching = cKDTree(pixels).query_pairs(1.5, output_type="ndarray")
    ones = np.ones(len(touching), bool)
    graph = coo_array((ones, tuple(touching.T)), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    pixels_of_group = np.bincount(group)
    small = pixels_of_group[group] <= most
    return torch.from_numpy(small).to(places.device)


def lacking(
    image: Tensor,
    other: Tensor,
    outliers: Tensor,
) -> Tensor:
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


def absent(
    planes: Tensor,
    others: Tensor,
    points: Tensor,
) -> Tensor:
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
    heights = (near - other_ground) * excess.sign()
    highest = heights.nan_to_num(-torch.inf).amax(0)
    known = _values_at(padded_others, points).isfinite()
    low = highest < 0.2 * excess.abs()
    return low & known


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
