"""Pixels that are no picture: missing ones, margins around a scan, hot and dead ones.

Missing pixels come out of everything as they went in; for the network they are filled from around
them, and in training they do not count. Wild ones (hot, dead, hit by a cosmic ray) are filled
alike, so that they touch no other pixel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.blocks import cut_blocks

HUGE = 1e30  # no picture has such values; fill values as -3.4e38 have
MAX_OUTLIER_SHARE = 0.01  # of the pixels: where more stand out sharply, that is the picture
LONG = 40  # pixels: a track of a cosmic ray is no longer
MAX_ISOLATED_SHARE = 0.005  # of the pixels: up to so many missing ones stand alone
BAND = 24  # pixels beside a gap that are mirrored into it
MARGIN_BLOCK = 8  # pixels: a margin is made of whole blocks of this side
# only beyond these, in units of the network's range, a pixel may be wild
OUTLIER_LIMITS = (-0.2, 1.2)


def margin_value(page: np.ndarray) -> float | None:
    """The value of a margin, or of another place without data, that nobody declared; None where there is none.

    It is the one value of whole blocks of pixels from the border on, 1 in 50 at least, that next to
    no other pixel has, and that the picture itself does not come near: zeros among photon counts,
    clipped shadows and blown skies are data. Or, among other values, one below 0 and far below all
    of them that repeats to the last digit, as -9999 does.

    Args:
        page: (H, W, C).

    >>> scan = np.random.default_rng(0).normal(100, 10, (64, 64, 1))
    >>> scan[:, :16] = -2000
    >>> margin_value(scan)
    -2000.0
    """
    first = page[..., 0]
    height, width = first.shape
    corners = [first[y, x] for y in (0, height - 1) for x in (0, width - 1)]
    middles = [
        first[y, x]
        for y, x in ((0, width // 2), (height - 1, width // 2), (height // 2, 0), (height // 2, -1))
    ]
    for value in dict.fromkeys(float(v) for v in (*corners, *middles) if np.isfinite(v)):
        same = first == value
        for channel in range(1, page.shape[2]):
            same &= page[..., channel] == value
        if _is_margin(first, same, value):
            return value
    return _far_away(first)


def _is_margin(plane: np.ndarray, same: np.ndarray, value: float) -> bool:
    """Whether the pixels that have a value are whole blocks from the border on, apart from all the others."""
    if not same.any() or min(same.shape) < 2 * MARGIN_BLOCK:
        return False
    blocks = cut_blocks(same, MARGIN_BLOCK)
    solid: np.ndarray = np.asarray(blocks.all((1, 3)))
    edge = solid[[0, -1]].any() or solid[:, [0, -1]].any()
    if not edge or not 0.02 <= solid.mean() < 0.98:
        return False
    # Blocks at the rim of the margin are partly of it; those two from a solid block are inside the
    # picture.
    inside = ~solid
    for _ in range(2):
        near = ~inside
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            inside &= ~np.roll(near, shift, axis)
    if inside.mean() < 0.05 or blocks.mean((1, 3))[inside].mean() >= 0.002:
        return False
    others = (
        cut_blocks(plane, MARGIN_BLOCK).transpose(0, 2, 1, 3)[~solid].ravel()
    )  # up to the rim: a shade that falls off to the value is no edge
    rest = others[others != value][:: max(1, others.size // 100_000)].astype(np.float64)
    rest = rest[np.isfinite(rest)]
    if rest.size and len(np.unique(rest)) > 0.5 * rest.size:
        return True  # of measured values no two are equal to the last digit
    low, high = (float(v) for v in np.quantile(rest, (0.01, 0.99))) if rest.size else (value, value)
    return low - value > 0.25 * (high - low) > 0


def _far_away(plane: np.ndarray) -> float | None:
    """A value below 0 and far below all others, that several pixels have."""
    step = tuple(slice(None, None, max(1, n // 500)) for n in plane.shape)
    values = plane[step]
    values = values[np.isfinite(values)]
    lowest = float(values.min()) if values.size else 0.0
    rest = values[values != lowest]
    if lowest >= 0 or values.size - rest.size < 3 or len(np.unique(rest)) < 10:
        return None
    low, high = (float(v) for v in np.quantile(rest, (0.01, 0.99)))
    return lowest if low - lowest > 10 * (high - low) else None


def invalid_mask(pixels: np.ndarray, nodata_values: Sequence[float]) -> np.ndarray | None:
    """Which stored values are no picture: not finite, larger than any picture's, or one of `nodata_values`; None where
    all are.

    Args:
        pixels: of any shape.
    """
    found: Any = None
    if np.issubdtype(pixels.dtype, np.floating):
        with np.errstate(invalid="ignore"):
            found = ~np.isfinite(pixels)
            if pixels.dtype.itemsize > 2:  # float16 ends long before
                found |= np.abs(pixels) > HUGE
    for fill in nodata_values:
        same = pixels == fill
        found = same if found is None else found | same
    return None if found is None or not found.any() else found


def mask_invalid(stored: Tensor, values: Tensor, nodata_values: tuple[float, ...]) -> Tensor:
    """`values` with NaN where `stored` is not finite, is larger than any picture's value, or one of `nodata_values`."""
    gone = (
        ~stored.isfinite() | (stored.float().abs() > HUGE) if stored.is_floating_point() else None
    )
    for fill in nodata_values:
        same = stored == fill
        gone = same if gone is None else gone | same
    return values if gone is None or not gone.any() else torch.where(gone, torch.nan, values)


def inpaint(images: Tensor) -> Tensor:
    """NaN replaced by what is around it.

    A few pixels get the mean of the smallest blocks of 2, 4, 8, ... pixels that know anything.
    Where more are missing, the picture is mirrored into the gap with its noise: a network that sees
    a smooth place beside a noisy one takes the noise for texture and leaves it.

    Args:
        images: (B, C, H, W) or (B, C, D, H, W). Where nothing is known at all, the result is 0.

    >>> inpaint(torch.tensor([[[[1.0, 2.0], [3.0, torch.nan]]]])).tolist()
    [[[[1.0, 2.0], [3.0, 3.0]]]]
    """
    known = images.isfinite()
    if known.all():
        return images
    smooth = _spread(torch.where(known, images, 0), known.to(images.dtype)).contiguous()
    *_, height, width = images.shape
    planes, masks = smooth.reshape(-1, height, width), known.reshape(-1, height, width)
    for plane, mask in zip(planes, masks, strict=True):
        gaps = int((~mask).sum())
        if MAX_ISOLATED_SHARE * mask.numel() < gaps < mask.numel():
            plane.copy_(_mirrored(plane, mask))
    return smooth


def _mirrored(plane: Tensor, known: Tensor) -> Tensor:
    """A plane (H, W) whose unknown pixels are those as far on the other side of the nearest known one, up to BAND."""
    from scipy.ndimage import distance_transform_edt

    mask = known.cpu().numpy()
    place = np.mgrid[: mask.shape[0], : mask.shape[1]]
    nearest = distance_transform_edt(~mask, return_distances=False, return_indices=True)
    away = (nearest - place).astype(np.float32)
    distance = np.maximum(np.hypot(*away), 1e-6)
    folded = BAND - np.abs(distance % (2 * BAND) - BAND)
    y, x = (nearest + np.round(away / distance * folded)).astype(int)
    inside = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
    y, x = np.where(inside, y, nearest[0]), np.where(inside, x, nearest[1])
    useful = mask[y, x]
    y, x = np.where(useful, y, nearest[0]), np.where(useful, x, nearest[1])
    found = plane[torch.from_numpy(y).to(plane.device), torch.from_numpy(x).to(plane.device)]
    return torch.where(known, plane, found)


def _spread(total: Tensor, weight: Tensor) -> Tensor:
    """The mean total/weight of each pixel, from coarser and coarser levels where the weight is 0."""
    known = weight > 0
    mean = total / weight.clamp(min=1e-12)
    size = axes.size(total)
    if known.all() or max(size) == 1:
        return torch.where(known, mean, 0)
    pool: Any = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(size)]
    block = [min(2, length) for length in size]
    coarse = _spread(pool(total, block, ceil_mode=True), pool(weight, block, ceil_mode=True))
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    return torch.where(known, mean, F.interpolate(coarse, size, mode=mode))


_RING = {
    r: [(y, x) for y in range(-r, r + 1) for x in range(-r, r + 1) if max(abs(y), abs(x)) == r]
    for r in (2, 3)
}
_BESIDE = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
HALO = 4  # pixels around one that decide whether it stands out, and how far its point reaches


def outlier_mask(images: Tensor, whole: bool = False) -> Tensor | None:
    """Which pixels stand out of their surroundings as no lens could make them; None where none do.

    A point of light is spread over its neighbours: two pixels away a star that is two pixels wide
    (full width at half maximum) still has 3% of its peak in a third of them. A pixel is wild where
    it has less than 2% there: a hot or dead pixel, a track of a cosmic ray, a cluster of up to 3 x
    3, but an undersampled star as well. Asked are only those beyond OUTLIER_LIMITS that stand out
    by more than the noise lets one tell, about 50 times its deviation; others lie in the range that
    the network knows. Lines of over 40 pixels are of the picture, and so is everything sharp where
    it is more than 1 in 100 pixels.

    Args:
        images: (B, C, H, W) or (B, C, D, H, W), in units of the network's range; NaN does not
            count.
        whole: add the pixels next to them that stand out as well: the flanks of an undersampled
            star.

    Returns:
        bool, in the shape of `images`.
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
    asked = ((planes < OUTLIER_LIMITS[0]) | (planes > OUTLIER_LIMITS[1])) & planes.isfinite()
    where = asked.nonzero()
    if not len(where):
        return where
    padded = F.pad(planes[:, None], (3, 3, 3, 3), value=torch.nan)[:, 0]
    sharp = []
    for part in where.split(100_000):
        n, y, x = part.unbind(1)
        ground, noise = _surroundings(padded, part)
        ring = torch.stack([padded[n, y + 3 + dy, x + 3 + dx] for dy, dx in _RING[2]])
        excess = planes[n, y, x] - ground
        # Five of the ring may be of the same cluster.
        halo = ((ring - ground) * excess.sign()).nan_to_num(0).sort(0).values[-6]
        # False where everything around is NaN
        sharp.append(excess.abs() * 0.02 > halo + 0.6 * noise)
    return where[torch.cat(sharp)]


def _surroundings(padded: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and deviation (by the median) of the pixels three away from each point, (n,) each.

    Args:
        padded: planes (N, H + 6, W + 6), three pixels of NaN around them.
        points: (n, 3).
    """
    n, y, x = points.unbind(1)
    ring = torch.stack([padded[n, y + 3 + dy, x + 3 + dx] for dy, dx in _RING[3]])
    ground = ring.nanmedian(0).values
    return ground, 1.4826 * (ring - ground).abs().nanmedian(0).values


def with_flanks(planes: Tensor, points: Tensor) -> Tensor:
    """Add to outliers the pixels next to them that stand out by 4 deviations of the noise, too.

    Args:
        planes: (N, H, W).
        points: coordinates, (n, 3).

    Returns:
        Coordinates, (m, 3), each once.
    """
    padded = F.pad(planes[:, None], (3, 3, 3, 3), value=torch.nan)[:, 0]
    ground, noise = _surroundings(padded, points)
    n, y, x = points.unbind(1)
    sign = (planes[n, y, x] - ground).sign()
    added = [points]
    for dy, dx in _BESIDE:
        excess = (padded[n, y + 3 + dy, x + 3 + dx] - ground) * sign
        shifted = points + torch.tensor([0, dy, dx], device=points.device)
        added.append(shifted[excess > 4 * noise])  # False for NaN, as beyond the border
    return torch.cat(added).unique(dim=0)


def isolated(points: Tensor, size: Sequence[int]) -> Tensor:
    """Keep the outliers of planes that are few: not lines, grids or letters.

    Args:
        points: coordinates, (n, 3): plane, row, column.
        size: height and width of the planes.
    """
    if not len(points):
        return points
    most = max(9, MAX_OUTLIER_SHARE * size[0] * size[1])
    kept = []
    for plane in points[:, 0].unique():
        own = points[points[:, 0] == plane]
        if len(own) <= LONG:
            kept.append(own)
        elif len(own) <= most:
            kept.append(own[compact(own[:, 1:])])
    return torch.cat(kept) if kept else points[:0]


def compact(places: Tensor, most: int = LONG) -> Tensor:
    """Tell of pixels (n, 2) whether each belongs to a group of at most `most` that touch one another: bool, (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    rows = places.cpu().numpy()
    touching = cKDTree(rows).query_pairs(1.5, output_type="ndarray")
    ones = np.ones(len(touching), bool)
    graph = coo_array((ones, (touching[:, 0], touching[:, 1])), shape=(len(rows), len(rows)))
    _, group = connected_components(graph, directed=False)
    return torch.from_numpy(np.bincount(group)[group] <= most).to(places.device)


def lacking(image: Tensor, other: Tensor, outliers: Tensor) -> Tensor:
    """Tell which outliers of a capture another capture of the same scene does not have.

    A point of the scene is in both, if at times a pixel away. The other capture lacks it where
    nothing within one pixel has a fifth of its height over the surroundings: 10 deviations of the
    noise, for an outlier of the 50 that `outlier_mask` asks for.

    Args:
        image, other: captures of one scene, (B, C, H, W) or (B, C, D, H, W), in one unit.
        outliers: bool, of `image`, in its shape.

    Returns:
        bool, in the shape of `image`; False where the other capture is not known.
    """
    *_, height, width = image.shape
    planes, others = image.reshape(-1, height, width), other.reshape(-1, height, width)
    points = outliers.reshape(planes.shape).nonzero()
    gone = torch.zeros(planes.shape, dtype=torch.bool, device=image.device)
    if len(points):
        gone[tuple(points.T)] = absent(planes, others, points)
    return gone.reshape(image.shape)


def absent(planes: Tensor, others: Tensor, points: Tensor) -> Tensor:
    """Tell of outliers of planes whether other planes of the same scenes lack them, see `lacking`.

    Args:
        planes, others: (N, H, W), NaN where a pixel is missing.
        points: coordinates of the outliers, (n, 3).

    Returns:
        bool, (n,).
    """
    padded, beyond = (
        F.pad(p[:, None], (3, 3, 3, 3), value=torch.nan)[:, 0] for p in (planes, others)
    )
    n, y, x = points.unbind(1)
    ground, _ = _surroundings(padded, points)
    excess = planes[n, y, x] - ground
    there, _ = _surroundings(beyond, points)
    near = torch.stack([beyond[n, y + 3 + dy, x + 3 + dx] for dy, dx in [(0, 0), *_BESIDE]])
    most = ((near - there) * excess.sign()).nan_to_num(-torch.inf).amax(0)
    return (most < 0.2 * excess.abs()) & others[n, y, x].isfinite()


def inpaint_outliers(images: Tensor, whole: bool = False) -> Tensor:
    """Images with their missing and wild pixels filled from around them, as a network may see them."""
    return inpaint(mask_outliers(images, whole))


def mask_outliers(images: Tensor, whole: bool = False) -> Tensor:
    """Images with NaN in place of wild pixels, as a loss may count them."""
    found = outlier_mask(images, whole)
    return images if found is None else torch.where(found, torch.nan, images)
