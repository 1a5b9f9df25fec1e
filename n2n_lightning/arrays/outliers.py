"""Isolated pixels that stand out: stars, Bragg peaks, scatterers, hot and dead pixels, cosmic rays.

From one picture nobody can tell a hot pixel from an undersampled star. So such pixels keep their
stored value in results, while the network sees them inpainted, so that nothing around them changes.
They are replaced only on evidence: another capture of the same scene lacks them, the same pixel of
the detector stands out in most of several different scenes, or a mask names them.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays.axes import size as size_of
from n2n_lightning.arrays.bad_pixels import (
    HALO,
    absent,
    compact,
    isolated,
    lacking,
    outlier_mask,
    standing_out,
    with_flanks,
)
from n2n_lightning.arrays.blocks import cut_blocks

LOOKED = 9  # pictures that say which pixels of the detector stand out everywhere
PIXELS = 2**20  # of a picture that are looked at together


@dataclass(frozen=True)
class Listed:
    """Outliers of a validation batch, and how they count in its scores.

    Attributes:
        first: the first captures, (B, C, H, W) or (B, C, D, H, W), in units of the network; NaN
            where a pixel is missing, or where there is evidence that it is no part of the scene.
        second: the second captures, likewise; None where the reference is clean.
        left: outliers of the first captures whose result is their stored value, bool.
        other_left: the same of the second ones.
        anywhere: pixels that are listed in either, whatever happens to them, bool.
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
        """List the outliers of a batch; None where there are none.

        Args:
            first, second: captures of the same scenes; without a second one the reference is clean.
            choice: one of choices.OUTLIERS, not `keep`.
            repeats: whether both captures show the same thing, see `bad_pixels.lacking`.
            defects: bool, (C, H, W): pixels that are known to be defective; None: none are.
        """
        found = [
            None if image is None else outlier_mask(image, choice == "auto")
            for image in (first, second)
        ]
        if found[0] is None and found[1] is None:
            return None
        nothing = torch.zeros_like(first, dtype=torch.bool)
        one, other = (nothing if mask is None else mask for mask in found)
        anywhere = one | other
        if defects is not None and choice == "auto":
            one, other = one & ~defects, other & ~defects
        if second is not None and repeats:
            gone, away = lacking(first, second, one), lacking(second, first, other)
            first = torch.where(gone, torch.nan, first)
            second = torch.where(away, torch.nan, second)
            one, other = one & ~gone, other & ~away
        if choice == "replace":
            one = other = nothing
        return cls(first, second, one, other if second is not None else None, anywhere)

    @property
    def count(self) -> int:
        """Listed pixels of the batch."""
        return int(self.anywhere.any(1).sum())

    def restored(self, output: Tensor) -> Tensor:
        """Return the result for the first captures as `denoise` writes it: left outliers as they are stored."""
        return torch.where(self.left, self.first, output)

    def other_restored(self, output: Tensor) -> Tensor:
        """Return the result for the second captures, likewise."""
        assert self.second is not None
        assert self.other_left is not None
        return torch.where(self.other_left, self.second, output)

    def without(self, image: Tensor) -> Tensor:
        """Return an image with NaN in place of all listed pixels."""
        return torch.where(self.anywhere, torch.nan, image)


class Unlisted:
    """A validation batch without outliers: what `Listed` restores and leaves out stays as it is."""

    count = 0

    def restored(self, output: Tensor) -> Tensor:
        """Return the output."""
        return output

    other_restored = without = restored


def listed_in(batch: Any) -> Listed | Unlisted:
    """Return the outliers of a validation batch."""
    return batch.get("listed") or Unlisted()


@dataclass(frozen=True)
class PageOutliers:
    """Outliers of a page or a volume, by their coordinates (n, 3): channel, row, column; (n, 4) with the plane.

    Attributes:
        left: those whose result is their stored value.
        replaced: those whose result is that of the network, which sees them inpainted.
    """

    left: np.ndarray
    replaced: np.ndarray

    @classmethod
    def none(cls, axes: int) -> "PageOutliers":
        """Return that of a page of so many axes, (H, W, C) or (D, H, W, C), without outliers."""
        nothing = np.zeros((0, axes), np.int64)
        return cls(nothing, nothing)

    @property
    def all(self) -> np.ndarray:
        """Both, one after the other."""
        return np.concatenate((self.left, self.replaced))

    def mark(self, page: np.ndarray) -> None:
        """Write 1 for pixels that are left and 2 for replaced ones into a map (H, W, C) or (D, H, W, C)."""
        for value, points in ((1, self.left), (2, self.replaced)):
            channel, *where = points.T
            page[(*where, channel)] = value


@dataclass(frozen=True)
class OutlierCounts:
    """How many pixels of a picture were isolated outliers; one that is so in several channels counts once."""

    left: int = 0
    replaced: int = 0

    def __add__(self, other: "OutlierCounts") -> "OutlierCounts":
        return OutlierCounts(self.left + other.left, self.replaced + other.replaced)

    @classmethod
    def of(cls, outliers: PageOutliers) -> "OutlierCounts":
        """Count those of a page."""
        return cls(
            *(
                len(np.unique(points[:, 1:], axis=0))
                for points in (outliers.left, outliers.replaced)
            )
        )

    def __str__(self) -> str:
        parts = []
        if self.left:
            pixels = "pixel keeps its" if self.left == 1 else "pixels keep their"
            parts.append(f"{self.left:,} isolated {pixels} stored value")
        if self.replaced:
            parts.append(f"{self.replaced:,} isolated pixel{'s'[: self.replaced > 1]} replaced")
        return ", ".join(parts)


def inside(points: np.ndarray, place: Sequence[slice]) -> tuple[np.ndarray, ...]:
    """Return the indices of the points of a place, within it: channel, then one of each spatial axis.

    Args:
        points: coordinates, (n, 1 + number of spatial axes).
        place: a slice of each spatial axis, with its start and stop.
    """
    starts = np.array([0, *(part.start or 0 for part in place)])
    stops = np.array([np.iinfo(np.int64).max, *(part.stop for part in place)])
    within = ((points >= starts) & (points < stops)).all(1)
    return tuple((points[within] - starts).T)


Read = Callable[[tuple[slice, ...]], Tensor]


def find_outliers(read: Read, size: Sequence[int], flanks: bool) -> np.ndarray:
    """Find the isolated outliers of a page or volume, see `bad_pixels.outlier_mask`.

    Args:
        read: gives the pixels of a place, (C, h, w) or (C, d, h, w), in units of the network.
        size: (H, W) or (D, H, W).
        flanks: add the pixels next to them that stand out as well.

    Returns:
        Coordinates as `PageOutliers` has them.
    """
    found = [part.global_of(standing_out(part.planes(read))) for part in _parts(size)]
    points = isolated(torch.cat(found), size[-2:])
    if flanks and len(points):
        grown = [points]
        for part in _parts(size):
            own = part.local_of(points)
            if len(own):
                grown.append(part.global_of(with_flanks(part.planes(read), own), within=False))
        points = torch.cat(grown).unique(dim=0)
    return _split_planes(points.numpy(), size)


def lacking_at(points: np.ndarray, read: Read, other: Read, size: Sequence[int]) -> np.ndarray:
    """Tell which outliers of a capture another capture of the same scene lacks, see `bad_pixels.lacking`.

    Args:
        points: coordinates as `find_outliers` gives them.
        read, other: give the pixels of both captures, see `find_outliers`.
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
            result[chosen.numpy()] = absent(part.planes(read), part.planes(other), own).numpy()
    return result


@dataclass(frozen=True)
class _Part:
    """Rows of a page, or planes of a volume, that are looked at together.

    Points are (plane, row, column): of a page the plane is a channel, of a volume channel * depth +
    plane.

    Attributes:
        size: of the whole, (H, W) or (D, H, W).
        first, stop: rows, or planes.
    """

    size: tuple[int, ...]
    first: int
    stop: int

    @property
    def deep(self) -> bool:
        return len(self.size) == 3

    @property
    def top(self) -> int:
        """The first row that is read: what decides about a pixel lies up to HALO rows away."""
        return 0 if self.deep else max(0, self.first - HALO)

    def planes(self, read: Read) -> Tensor:
        """Return the pixels as planes (N, h, W)."""
        if self.deep:
            rows: tuple[slice, ...] = (slice(self.first, self.stop), slice(0, self.size[1]))
        else:
            rows = (slice(self.top, min(self.stop + HALO, self.size[0])),)
        values = read((*rows, slice(0, self.size[-1])))
        return values.reshape(-1, *size_of(values[None])[-2:])

    def holds(self, points: Tensor) -> Tensor:
        """Tell which points lie in this part: bool, (n,)."""
        place = points[:, 0] % self.size[0] if self.deep else points[:, 1]
        return (place >= self.first) & (place < self.stop)

    def local_of(self, points: Tensor) -> Tensor:
        """Return those of the points that lie in this part, as points of `planes`."""
        own = points[self.holds(points)].clone()
        if self.deep:
            depth = self.size[0]
            own[:, 0] = (
                own[:, 0] // depth * (self.stop - self.first) + own[:, 0] % depth - self.first
            )
        own[:, 1] -= self.top
        return own

    def global_of(self, points: Tensor, within: bool = True) -> Tensor:
        """Return points of `planes` as points of the whole; with `within` those of this part alone."""
        moved = points.clone()
        if self.deep:
            length = self.stop - self.first
            moved[:, 0] = moved[:, 0] // length * self.size[0] + moved[:, 0] % length + self.first
        moved[:, 1] += self.top
        return moved[self.holds(moved)] if within else moved


def _parts(size: Sequence[int]) -> list[_Part]:
    """Return the parts of a page or volume, of about PIXELS each."""
    step = max(1, PIXELS // math.prod(size[1:]))
    return [
        _Part(tuple(size), start, min(start + step, size[0])) for start in range(0, size[0], step)
    ]


def _split_planes(points: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return points (plane, row, column) with channel and plane of a volume apart."""
    if len(size) == 2:
        return points
    channel, plane = np.divmod(points[:, 0], size[0])
    return np.column_stack((channel, plane, points[:, 1:]))


def _join_planes(points: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Undo `_split_planes`."""
    if len(size) == 2:
        return points
    return np.column_stack((points[:, 0] * size[0] + points[:, 1], points[:, 2:]))


def defects_of(reads: Sequence[Read], size: Sequence[int]) -> np.ndarray:
    """Find the pixels that stand out in most of several pictures of different scenes.

    Args:
        reads: give the pixels of each picture, see `find_outliers`.
        size: (H, W) of all of them.

    Returns:
        Coordinates, (n, 3); groups of more than 3 x 3 pixels, as burnt-in letters have, are left
        out. None where there are fewer than 3 pictures, and where some may show the same scene:
        what they share may be of it.
    """
    nothing = np.zeros((0, 3), np.int64)
    if len(reads) < 3:
        return nothing
    each = [find_outliers(read, size, flanks=False) for read in reads]
    if not sum(map(len, each)):
        return nothing
    scenes = [_structure(read, size, points) for read, points in zip(reads, each, strict=True)]
    if not all(_differ(*pair) for pair in combinations(scenes, 2)):
        return nothing
    places, counts = np.unique(np.concatenate(each), axis=0, return_counts=True)
    common = places[counts > len(each) / 2]
    small = [nothing]
    for channel in np.unique(common[:, 0]):
        own = common[common[:, 0] == channel]
        small.append(own[compact(torch.from_numpy(own[:, 1:]), 9).numpy()])
    return np.concatenate(small)


def _structure(read: Read, size: Sequence[int], points: np.ndarray) -> np.ndarray:
    """Return means of a picture over blocks of 8 x 8 pixels, without some points: (2, n).

    The first are those of every other column, the second those of the columns between them.
    """
    image = read(tuple(slice(0, n) for n in size)).double().numpy()
    image[tuple(points.T)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where nothing is known
        plane = np.nanmean(image, 0)
        blocks = cut_blocks(plane, 8)
        halves = blocks.reshape(*blocks.shape[:3], 4, 2)
        means: np.ndarray = np.nanmean(halves, (1, 3)).reshape(-1, 2).T
    return means


def _differ(first: np.ndarray, second: np.ndarray) -> bool:
    """Tell whether two pictures show different scenes: each has structure, and not the other's.

    Args:
        first, second: see `_structure`. Where the two means of a picture agree, they are structure
            and not noise.
    """
    if any(_correlation(*halves) < 0.8 for halves in (first, second)):
        return False
    return _correlation(first.sum(0), second.sum(0)) < 0.5


def _correlation(one: Any, other: Any) -> float:
    """Return the correlation of the values that both have; 0 where there are too few or they are one value."""
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < 16 or not one[known].std() or not other[known].std():
        return 0.0
    return float(np.corrcoef(one[known], other[known])[0, 1])
