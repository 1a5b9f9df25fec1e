"""Noisy captures of scenes, in memory or mapped from files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from n2n_lightning.arrays import axes

PLANES = 8  # of a volume that are looked at
SLAB = (64, 256, 256)  # voxels of a volume that are scored, at most


@dataclass
class EqualSizeScenes:
    """Captures of N scenes of one size: K tensors (N, C, H, W), or one with all where scenes have different numbers.

    Attributes:
        frames: the K tensors, or one (sum of counts, C, H, W), scene after scene; of volumes (N, C,
            D, H, W).
        names: of the scenes, for messages.
        counts: captures of each scene, (N,), where `frames` is one tensor; else None.
        nodata_values: stored values that mean, as the files say, that a pixel is missing.
        unit: (factor, offset) that make physical values of the stored ones.
        layout: how the first array was read, on what the functions of data.reading return.
        rows: with `counts`: which rows of the one tensor the captures are, (sum of counts,); None:
            all, in order.
        targets: with `counts`: whether a capture may be a target, (sum of counts,); None: all may.
        frame_names: of each scene the names of its captures, where they are files; None: they have
            numbers.
        dropped: what was left out when they were read, in words.
    """

    frames: list[Tensor]
    names: list[str]
    counts: Tensor | None = None
    nodata_values: tuple[float, ...] = ()
    unit: tuple[float, float] = (1.0, 0.0)
    layout: axes.Layout | None = None
    rows: Tensor | None = None
    targets: Tensor | None = None
    frame_names: list[list[str]] | None = None
    dropped: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        return self.frames[0].dtype

    @property
    def channels(self) -> int:
        return self.frames[0].shape[1]

    @property
    def smallest(self) -> tuple[int, ...]:
        """Height and width, or depth, height and width, that all images have."""
        return axes.size(self.frames[0])

    def sizes(self, scene: Tensor) -> Tensor:
        """`smallest` of each of the scenes: (B,) -> (B, 2)."""
        return torch.tensor([self.smallest]).expand(len(scene), -1)

    def captures(self, scene: Tensor) -> Tensor:
        """How many captures each of the scenes has: (B,) -> (B,)."""
        return (
            torch.full_like(scene, len(self.frames)) if self.counts is None else self.counts[scene]
        )

    def take(self, scene: Tensor, capture: Tensor, window: tuple[Tensor, ...] = ()) -> Tensor:
        """Capture capture[i] of scene scene[i], (B,) each: (B, C, H, W), or less where `window` indexes C, H and W."""
        if self.counts is not None:
            starts = self.counts.cumsum(0) - self.counts
            place = starts[scene] + capture
            return self._frames(0, place if self.rows is None else self.rows[place], window)
        if (capture == capture[0]).all():
            return self._frames(int(capture[0]), scene, window)
        parts, places = [], []
        for k in range(len(self.frames)):
            here = (capture == k).nonzero().flatten()
            if len(here):
                parts.append(
                    self._frames(
                        k, scene[here], tuple(w[here] if len(w) > 1 else w for w in window)
                    )
                )
                places.append(here)
        return torch.cat(parts)[torch.cat(places).argsort()]

    def image(self, scene: int, capture: int) -> Tensor:
        """One capture, (C, H, W); not copied."""
        if self.counts is None:
            return self.frames[capture][scene]
        place = int(self.counts[:scene].sum()) + capture
        return self.frames[0][place if self.rows is None else int(self.rows[place])]

    def wanted(self, scene: int) -> Tensor:
        """The captures of a scene that may be targets, by number: (n,)."""
        count = int(self.captures(torch.tensor([scene]))[0])
        if self.targets is None or self.counts is None:
            return torch.arange(count)
        start = int(self.counts[:scene].sum())
        return self.targets[start : start + count].nonzero().flatten()

    def part(self, which: Tensor) -> "EqualSizeScenes":
        """Some of the scenes; a slice of them, and frames of movies, are not copied."""
        names = [self.names[i] for i in which.tolist()]
        start, stop = int(which[0]), int(which[-1]) + 1
        whole = stop - start == len(which)
        if self.counts is None:
            frames = [f[start:stop] if whole else f[which] for f in self.frames]
            return replace(self, frames=frames, names=names)
        owner = torch.repeat_interleave(torch.arange(len(self.names)), self.counts)
        places = torch.cat([(owner == i).nonzero().flatten() for i in which])
        rows = places if self.rows is None else self.rows[places]
        targets = None if self.targets is None else self.targets[places]
        return replace(self, names=names, counts=self.counts[which], rows=rows, targets=targets)

    def region(self, *part: slice) -> "EqualSizeScenes":
        """The same scenes, cut to a part of their pixels, a slice of each spatial axis, which is not copied."""
        where: Any = (..., *part)
        return replace(self, frames=[f[where] for f in self.frames])

    def planes(self, most: int = PLANES) -> "SceneSet":
        """Images as they are; of volumes up to so many planes of each, evenly spread, as scenes of their own."""
        return _planes(self, most)

    def _frames(self, k: int, index: Tensor, window: tuple[Tensor, ...]) -> Tensor:
        if not window:
            return self.frames[k][index]
        return self.frames[k][index.view(-1, *[1] * len(window)), *window]


@dataclass
class MixedSizeScenes:
    """Captures of scenes of any sizes; all captures of a scene have one. Has what `EqualSizeScenes` has.

    Attributes:
        images: of each scene its captures, (C, H, W).
        targets: of each scene whether a capture may be a target, (n,); None: all may.
    """

    images: list[list[Tensor]]
    names: list[str]
    nodata_values: tuple[float, ...] = ()
    unit: tuple[float, float] = (1.0, 0.0)
    layout: axes.Layout | None = None
    targets: list[Tensor] | None = None
    frame_names: list[list[str]] | None = None
    dropped: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        return self.images[0][0].dtype

    @property
    def channels(self) -> int:
        return len(self.images[0][0])

    @property
    def smallest(self) -> tuple[int, ...]:
        """Height and width, or depth, height and width, that all images have."""
        return tuple(self.sizes(torch.arange(len(self.images))).amin(0).tolist())

    def sizes(self, scene: Tensor) -> Tensor:
        """Those of each of the scenes: (B,) -> (B, 2)."""
        return torch.tensor([self.images[int(i)][0].shape[1:] for i in scene])

    def captures(self, scene: Tensor) -> Tensor:
        """How many captures each of the scenes has: (B,) -> (B,)."""
        return torch.tensor([len(self.images[int(i)]) for i in scene])

    def take(self, scene: Tensor, capture: Tensor, window: tuple[Tensor, ...] = ()) -> Tensor:
        """Capture capture[i] of scene scene[i], (B,) each, cut to `window`: (B, C, h, w)."""
        images = [self.image(int(i), int(k)) for i, k in zip(scene, capture, strict=True)]
        if window:
            _, *inside = window
            places: list[Any] = [
                (slice(None), *(index[i, 0] for index in inside)) for i in range(len(images))
            ]
            images = [image[place] for image, place in zip(images, places, strict=True)]
        return torch.stack(images)

    def image(self, scene: int, capture: int) -> Tensor:
        """One capture, (C, H, W)."""
        return self.images[scene][capture]

    def wanted(self, scene: int) -> Tensor:
        """See EqualSizeScenes.wanted."""
        if self.targets is None:
            return torch.arange(len(self.images[scene]))
        return self.targets[scene].nonzero().flatten()

    def planes(self, most: int = PLANES) -> "SceneSet":
        """See EqualSizeScenes.planes."""
        return _planes(self, most)

    def part(self, which: Tensor) -> "MixedSizeScenes":
        """Some of the scenes."""
        chosen = which.tolist()
        targets = None if self.targets is None else [self.targets[i] for i in chosen]
        images, names = [self.images[i] for i in chosen], [self.names[i] for i in chosen]
        return replace(self, images=images, names=names, targets=targets)


SceneSet = EqualSizeScenes | MixedSizeScenes


def _planes(scenes: SceneSet, most: int) -> SceneSet:
    """See EqualSizeScenes.planes."""
    if len(scenes.smallest) == 2:
        return scenes
    images, names = [], []
    for i, count in enumerate(scenes.captures(torch.arange(len(scenes.names))).tolist()):
        captures = [scenes.image(i, k) for k in range(count)]
        for z in axes.evenly(captures[0].shape[1], most):
            images.append([capture[:, z] for capture in captures])
            names.append(f"{scenes.names[i]}, plane {z}")
    return MixedSizeScenes(images, names, scenes.nodata_values, scenes.unit)


def middle(image: Tensor, most: int | Sequence[int]) -> Tensor:
    """The middle of an image (C, H, W) or (C, D, H, W), of sides of up to so many pixels; not copied."""
    for axis, side in enumerate(image.shape[1:], 1):
        longest = most if isinstance(most, int) else most[axis - 1]
        image = image.narrow(axis, max(0, side - longest) // 2, min(side, longest))
    return image
