"""Isolated pixels that stand out: stars, Bragg peaks, scatterers, hot and dead pixels, cosmic rays.

A single image does not tell a hot pixel from an undersampled star. So such pixels keep their
stored value in results, while the network sees them inpainted, so that nothing around them changes.
They are replaced only on evidence: another capture of the same scene lacks them, the same pixel of
the detector stands out in most of several different scenes, or a mask names them.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays.blocks import cut_blocks
from n2n_lightning.arrays.outliers import (
    HALO,
    absent,
    compact,
    isolated,
    lacking,
    outlier_mask,
    standing_out,
    with_flanks,
)

LOOKED = 9  # images that are searched for defective pixels of their detector
PIXELS_AT_ONCE = 2**20  # of an image, about: bounds the memory of the search


@dataclass(frozen=True)
class Listed:
    """Outliers of a validation batch, and how they enter its scores.

    Attributes:
        first: the first captures, (B, C, H, W) or (B, C, D, H, W), in units of the network; NaN
            where a pixel is missing, or where there is evidence that it is no part of the scene.
        second: the second captures, likewise; None where the reference is clean.
        left: outliers of the first captures whose result is their stored value, bool.
        other_left: the same for the second captures.
        anywhere: outliers of either capture, whatever happens to them, bool.
    """

    first: Tensor
    second: Tensor | None
    left: Tensor
    other_left: Tensor | None
    anywhere: Tensor

    @classmethod
    def of(
        cls,
        first: Tensor,
        second: Tensor | None,
        choice: str,
        repeats: bool,
        defects: Tensor | None = None,
    ) -> "Listed | None":
        """List the outliers of a batch.

        Args:
            first: captures, (B, C, H, W) or (B, C, D, H, W), in units of the network.
            second: other captures of the same scenes; None: the reference is clean.
            choice: one of choices.OUTLIERS, not `keep`.
            repeats: whether both captures show the same thing, see `outliers.lacking`.
            defects: bool, (C, H, W): pixels that are known to be defective; None: none are.

        Returns:
            None where there are no outliers.
        """
        whole = choice == "auto"
        mask = outlier_mask(first, whole)
        other_mask = None
        if second is not None:
            other_mask = outlier_mask(second, whole)
        if mask is None and other_mask is None:
            return None
        nothing = torch.zeros_like(first, dtype=torch.bool)
        left = nothing if mask is None else mask
        other_left = nothing if other_mask is None else other_mask
        anywhere = left | other_left
        if defects is not None and choice == "auto":
            left = left & ~defects
            other_left = other_left & ~defects
        if second is not None and repeats:
            gone = lacking(first, second, left)
            other_gone = lacking(second, first, other_left)
            first = torch.where(gone, torch.nan, first)
            second = torch.where(other_gone, torch.nan, second)
            left = left & ~gone
            other_left = other_left & ~other_gone
        if choice == "replace":
            left = other_left = nothing
        if second is None:
            return cls(first, None, left, None, anywhere)
        return cls(first, second, left, other_left, anywhere)

    def to(self, device: torch.device) -> "Listed":
        """Return the same on a device."""
        moved: dict[str, Any] = {}
        for name, values in vars(self).items():
            moved[name] = None if values is None else values.to(device)
        return replace(self, **moved)

    @property
    def count(self) -> int:
        """Outlier pixels of the batch; one that is so in several channels counts once."""
        return int(self.anywhere.any(1).sum())

    def restored(self, output: Tensor) -> Tensor:
        """Return the result for the first captures, with the stored values of left outliers.

        Returns:
            In the shape of `output`.
        """
        return torch.where(self.left, self.first, output)

    def other_restored(self, output: Tensor) -> Tensor:
        """Return the result for the second captures, likewise.

        Returns:
            In the shape of `output`.
        """
        assert self.second is not None
        assert self.other_left is not None
        return torch.where(self.other_left, self.second, output)

    def without(self, image: Tensor) -> Tensor:
        """Return an image with NaN in place of all listed pixels.

        Returns:
            In the shape of `image`.
        """
        return torch.where(self.anywhere, torch.nan, image)


class Unlisted:
    """Validation batch without outliers, with the methods of `Listed`."""

    count = 0

    def restored(self, output: Tensor) -> Tensor:
        """Return the output."""
        return output

    other_restored = without = restored


def listed_in(batch: Any) -> Listed | Unlisted:
    """Return the outliers of a validation batch.

    Returns:
        Those of the batch; `Unlisted` where there are none.
    """
    return batch.get("listed") or Unlisted()


@dataclass(frozen=True)
class PageOutliers:
    """Outliers of a page or a volume, by their coordinates.

    Coordinates are (n, 3), channel, row and column, or (n, 4), channel, plane, row and column.

    Attributes:
        left: those whose result is their stored value.
        replaced: those whose result is the output of the network, which sees them inpainted.
    """

    left: np.ndarray
    replaced: np.ndarray

    @classmethod
    def none(cls, axes: int) -> "PageOutliers":
        """Return no outliers, of a page with 3 axes, (H, W, C), or 4, (D, H, W, C).

        Returns:
            Two empty arrays of coordinates.
        """
        nothing = np.zeros((0, axes), np.int64)
        return cls(nothing, nothing)

    @property
    def all(self) -> np.ndarray:
        """All coordinates: left outliers, then replaced ones."""
        return np.concatenate((self.left, self.replaced))

    def mark(self, page: np.ndarray) -> None:
        """Write 1 for left pixels and 2 for replaced ones into a map, (H, W, C) or (D, H, W, C)."""
        for value, points in ((1, self.left), (2, self.replaced)):
            channel, *place = points.T
            page[(*place, channel)] = value


@dataclass(frozen=True)
class OutlierCounts:
    """Numbers of isolated outliers of an image; one in several channels counts once.

    Attributes:
        left: outliers that keep their stored value.
        replaced: outliers whose result is the output of the network.
    """

    left: int = 0
    replaced: int = 0

    def __add__(self, other: "OutlierCounts") -> "OutlierCounts":
        left = self.left + other.left
        replaced = self.replaced + other.replaced
        return OutlierCounts(left, replaced)

    @classmethod
    def of(cls, outliers: PageOutliers) -> "OutlierCounts":
        """Count the outliers of a page.

        Returns:
            Numbers of pixels, whatever their channels.
        """
        left = np.unique(outliers.left[:, 1:], axis=0)
        replaced = np.unique(outliers.replaced[:, 1:], axis=0)
        return cls(len(left), len(replaced))

    def __str__(self) -> str:
        parts = []
        if self.left:
            pixels = "pixel keeps its" if self.left == 1 else "pixels keep their"
            parts.append(f"{self.left:,} isolated {pixels} stored value")
        if self.replaced:
            pixels = "pixel" if self.replaced == 1 else "pixels"
            parts.append(f"{self.replaced:,} isolated {pixels} replaced")
        return ", ".join(parts)


def inside(points: np.ndarray, place: Sequence[slice]) -> tuple[np.ndarray, ...]:
    """Return the points within a place, as indices of an array of that place.

    Args:
        points: coordinates, (n, 1 + number of spatial axes).
        place: a slice of each spatial axis, with its start and stop.

    Returns:
        Channels, then coordinates along each spatial axis from the start of the place.
    """
    starts = np.array([part.start or 0 for part in place])
    stops = np.array([part.stop for part in place])
    channels = points[:, 0]
    places = points[:, 1:]
    not_before = (places >= starts).all(1)
    not_after = (places < stops).all(1)
    within = not_before & not_after
    local = places[within] - starts
    return channels[within], *local.T


Read = Callable[[tuple[slice, ...]], Tensor]


def find_outliers(
    read: Read,
    size: Sequence[int],
    flanks: bool,
) -> np.ndarray:
    """Find the isolated outliers of a page or volume, see `outliers.outlier_mask`.

    Args:
        read: returns the pixels of a place, (C, h, w) or (C, d, h, w), in units of the network.
        size: (H, W) or (D, H, W).
        flanks: add adjacent pixels that stand out as well.

    Returns:
        Coordinates as `PageOutliers` has them.
    """
    sharp = []
    for part in _parts(size):
        planes = part.planes(read)
        own = standing_out(planes)
        sharp.append(part.global_of(own))
    points = isolated(torch.cat(sharp), size[-2:])
    if flanks and len(points):
        grown = [points]
        for part in _parts(size):
            own = part.local_of(points)
            if len(own):
                own = with_flanks(part.planes(read), own)
                grown.append(part.global_of(own, within=False))
        points = torch.cat(grown).unique(dim=0)
    return _split_planes(points.numpy(), size)


def lacking_at(
    points: np.ndarray,
    read: Read,
    other: Read,
    size: Sequence[int],
) -> np.ndarray:
    """Tell which outliers of a capture another capture lacks, see `outliers.lacking`.

    Args:
        points: coordinates as `find_outliers` returns them.
        read: returns pixels of the capture, see `find_outliers`.
        other: returns pixels of the other capture of the scene.
        size: (H, W) or (D, H, W).

    Returns:
        bool, (n,).
    """
    joined = torch.from_numpy(_join_planes(points, size))
    result = np.zeros(len(points), bool)
    for part in _parts(size):
        chosen = part.holds(joined)
        if chosen.any():
            own = part.local_of(joined[chosen])
            gone = absent(part.planes(read), part.planes(other), own)
            result[chosen.numpy()] = gone.numpy()
    return result


@dataclass(frozen=True)
class _Part:
    """Rows of a page, or planes of a volume, that are searched at once.

    Points are (plane, row, column): the plane of a page is a channel, the plane of a volume channel
    * depth + plane.

    Attributes:
        size: of the page or volume, (H, W) or (D, H, W).
        first: first row, or plane.
        stop: the row, or plane, after the last one.
    """

    size: tuple[int, ...]
    first: int
    stop: int

    @property
    def deep(self) -> bool:
        return len(self.size) == 3

    @property
    def top(self) -> int:
        """First row to read: HALO rows before the first one decide about its pixels."""
        return 0 if self.deep else max(0, self.first - HALO)

    def planes(self, read: Read) -> Tensor:
        """Return the pixels as planes (N, h, W).

        Returns:
            The page's channels, or all planes of all channels.
        """
        *_, height, width = self.size
        rows = slice(0, height)
        columns = slice(0, width)
        if self.deep:
            planes = slice(self.first, self.stop)
            values = read((planes, rows, columns))
        else:
            bottom = min(self.stop + HALO, height)
            rows = slice(self.top, bottom)
            values = read((rows, columns))
        return values.reshape(-1, rows.stop - rows.start, width)

    def holds(self, points: Tensor) -> Tensor:
        """Tell which points lie in this part: bool, (n,)."""
        place = points[:, 1]
        if self.deep:
            place = points[:, 0] % self.size[0]
        return (place >= self.first) & (place < self.stop)

    def local_of(self, points: Tensor) -> Tensor:
        """Return those of the points that lie in this part, as points of `planes`.

        Returns:
            (m, 3).
        """
        own = points[self.holds(points)].clone()
        if self.deep:
            depth = self.size[0]
            planes = self.stop - self.first
            channel = own[:, 0] // depth
            plane = own[:, 0] % depth
            own_plane = plane - self.first
            own[:, 0] = channel * planes + own_plane
        own[:, 1] -= self.top
        return own

    def global_of(self, points: Tensor, within: bool = True) -> Tensor:
        """Return points of `planes` as points of the page or volume.

        Args:
            points: (n, 3).
            within: leave out points beyond this part.

        Returns:
            (m, 3).
        """
        moved = points.clone()
        if self.deep:
            depth = self.size[0]
            planes = self.stop - self.first
            channel = moved[:, 0] // planes
            own_plane = moved[:, 0] % planes
            plane = own_plane + self.first
            moved[:, 0] = channel * depth + plane
        moved[:, 1] += self.top
        if not within:
            return moved
        return moved[self.holds(moved)]


def _parts(size: Sequence[int]) -> list[_Part]:
    """Return the parts of a page or volume, of about PIXELS_AT_ONCE each."""
    length, *others = size
    step = max(1, PIXELS_AT_ONCE // math.prod(others))
    parts = []
    for start in range(0, length, step):
        stop = min(start + step, length)
        parts.append(_Part(tuple(size), start, stop))
    return parts


def _split_planes(points: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return points (plane, row, column) with channel and plane of a volume apart."""
    if len(size) == 2:
        return points
    depth, _, _ = size
    channel, plane = np.divmod(points[:, 0], depth)
    return np.column_stack((channel, plane, points[:, 1:]))


def _join_planes(points: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Undo `_split_planes`."""
    if len(size) == 2:
        return points
    depth, _, _ = size
    channel = points[:, 0]
    plane = points[:, 1]
    return np.column_stack((channel * depth + plane, points[:, 2:]))


def defects_of(reads: Sequence[Read], size: Sequence[int]) -> np.ndarray:
    """Find the pixels that stand out in most of several images of different scenes.

    Args:
        reads: each returns pixels of one image, see `find_outliers`.
        size: (H, W) of all of them.

    Returns:
        Coordinates, (n, 3), without groups of more than 3 x 3 pixels, such as burnt-in letters.
        None of fewer than 3 images, and where some may show the same scene: what they share may be
        part of it.
    """
    nothing = np.zeros((0, 3), np.int64)
    if len(reads) < 3:
        return nothing
    each = [find_outliers(read, size, flanks=False) for read in reads]
    joined = np.concatenate(each)
    if not len(joined):
        return nothing
    scenes = []
    for read, points in zip(reads, each, strict=True):
        scenes.append(_structure(read, size, points))
    for first, second in combinations(scenes, 2):
        if not _show_different_scenes(first, second):
            return nothing
    places, counts = np.unique(joined, axis=0, return_counts=True)
    common = places[counts > len(reads) / 2]
    channels = common[:, 0]
    small = [nothing]
    for channel in np.unique(channels):
        own = common[channels == channel]
        rows_and_columns = torch.from_numpy(own[:, 1:])
        in_small_group = compact(rows_and_columns, 9)
        small.append(own[in_small_group.numpy()])
    return np.concatenate(small)


def _structure(
    read: Read,
    size: Sequence[int],
    points: np.ndarray,
) -> np.ndarray:
    """Return means of an image over blocks of 8 x 8 pixels, without some points: (2, n).

    The first are those of every other column, the second those of the columns between them.
    """
    whole = tuple(slice(0, length) for length in size)
    image = read(whole).double().numpy()
    image[tuple(points.T)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where nothing is known
        plane = np.nanmean(image, 0)
        blocks = cut_blocks(plane, 8)
        halves = blocks.reshape(*blocks.shape[:3], 4, 2)
        means = np.nanmean(halves, (1, 3))
    return means.reshape(-1, 2).T


def _show_different_scenes(first: np.ndarray, second: np.ndarray) -> bool:
    """Return True if each of two images has structure, and not that of the other.

    Args:
        first: see `_structure`. Where the two means of an image agree, they are structure and not
            noise.
        second: of the other image.
    """
    for even, odd in (first, second):
        if _correlation(even, odd) < 0.8:
            return False
    image = first.sum(0)
    other_image = second.sum(0)
    return _correlation(image, other_image) < 0.5


def _correlation(one: Any, other: Any) -> float:
    """Return the correlation of the values known in both; 0 for too few or constant values."""
    known = np.isfinite(one) & np.isfinite(other)
    one = one[known]
    other = other[known]
    if one.size < 16:
        return 0.0
    if not one.std() or not other.std():
        return 0.0
    matrix = np.corrcoef(one, other)
    return float(matrix[0, 1])
