"""Noisy captures of scenes, in memory or mapped from files, and the pairs that are drawn from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning import axes
from n2n_lightning.data.batches import Key
from n2n_lightning.noise import generator

PLANES = 8  # of a volume that are looked at
SLAB = (64, 256, 256)  # voxels of a volume that are scored, at most


@dataclass
class Scenes:
    """Captures of N scenes of one size: K tensors (N, C, H, W), or one with all where scenes have different numbers.

    Attributes:
        frames: the K tensors, or one (sum of counts, C, H, W), scene after scene; of volumes (N, C, D, H, W).
        names: of the scenes, for messages.
        counts: captures of each scene, (N,), where `frames` is one tensor; else None.
        fills: stored values that mean, as the files say, that a pixel is missing.
        unit: (factor, offset) that make physical values of the stored ones.
        layout: how the first array was read, on what the functions of data.reading return.
        rows: with `counts`: which rows of the one tensor the captures are, (sum of counts,); None: all, in order.
        targets: with `counts`: whether a capture may be a target, (sum of counts,); None: all may.
        frame_names: of each scene the names of its captures, where they are files; None: they have numbers.
        dropped: what was left out when they were read, in words.
    """

    frames: list[Tensor]
    names: list[str]
    counts: Tensor | None = None
    fills: tuple[float, ...] = ()
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
        return torch.full_like(scene, len(self.frames)) if self.counts is None else self.counts[scene]

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
                parts.append(self._frames(k, scene[here], tuple(w[here] if len(w) > 1 else w for w in window)))
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

    def part(self, which: Tensor) -> "Scenes":
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

    def region(self, *part: slice) -> "Scenes":
        """The same scenes, cut to a part of their pixels, a slice of each spatial axis, which is not copied."""
        where: Any = (..., *part)
        return replace(self, frames=[f[where] for f in self.frames])

    def planes(self, most: int = PLANES) -> "Scenes | Mixed":
        """Images as they are; of volumes up to so many planes of each, evenly spread, as scenes of their own."""
        return _planes(self, most)

    def _frames(self, k: int, index: Tensor, window: tuple[Tensor, ...]) -> Tensor:
        if not window:
            return self.frames[k][index]
        return self.frames[k][index.view(-1, *[1] * len(window)), *window]


@dataclass
class Mixed:
    """Captures of scenes of any sizes; all captures of a scene have one. Has what `Scenes` has.

    Attributes:
        images: of each scene its captures, (C, H, W).
        targets: of each scene whether a capture may be a target, (n,); None: all may.
    """

    images: list[list[Tensor]]
    names: list[str]
    fills: tuple[float, ...] = ()
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
            places: list[Any] = [(slice(None), *(index[i, 0] for index in inside)) for i in range(len(images))]
            images = [image[place] for image, place in zip(images, places, strict=True)]
        return torch.stack(images)

    def image(self, scene: int, capture: int) -> Tensor:
        """One capture, (C, H, W)."""
        return self.images[scene][capture]

    def wanted(self, scene: int) -> Tensor:
        """See Scenes.wanted."""
        if self.targets is None:
            return torch.arange(len(self.images[scene]))
        return self.targets[scene].nonzero().flatten()

    def planes(self, most: int = PLANES) -> "Scenes | Mixed":
        """See Scenes.planes."""
        return _planes(self, most)

    def part(self, which: Tensor) -> "Mixed":
        """Some of the scenes."""
        chosen = which.tolist()
        targets = None if self.targets is None else [self.targets[i] for i in chosen]
        images, names = [self.images[i] for i in chosen], [self.names[i] for i in chosen]
        return replace(self, images=images, names=names, targets=targets)


def _planes(scenes: Scenes | Mixed, most: int) -> Scenes | Mixed:
    """See Scenes.planes."""
    if len(scenes.smallest) == 2:
        return scenes
    images, names = [], []
    for i, count in enumerate(scenes.captures(torch.arange(len(scenes.names))).tolist()):
        captures = [scenes.image(i, k) for k in range(count)]
        for z in axes.evenly(captures[0].shape[1], most):
            images.append([capture[:, z] for capture in captures])
            names.append(f"{scenes.names[i]}, plane {z}")
    return Mixed(images, names, scenes.fills, scenes.unit)


class Captures(Dataset):
    """Noisy captures of scenes; a batch takes an ordered pair of different captures of each scene.

    Args:
        scenes: the captures.
        seed: of the choices below.
        swap: take a random ordered pair of the captures; otherwise the first is the input, the second the target.
        clean: train towards these images, one of each scene, instead (supervised training, for comparison).
        crop: sides of a random window, (H, W) or (D, H, W), the same for both; None takes whole images.
        count: images per epoch; item i is of scene i modulo their number.
        within: captures that are more than so many apart are no pair; None: all are.
        pairs: with `swap`, the numbers (input, target) of the captures that are paired; None: all of them, any order.
    """

    def __init__(
        self,
        scenes: Scenes | Mixed,
        seed: int,
        swap: bool,
        clean: Scenes | Mixed | None = None,
        crop: Sequence[int] | None = None,
        count: int | None = None,
        within: int | None = None,
        pairs: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.scenes, self.seed, self.swap, self.clean, self.within = scenes, seed, swap, clean, within
        self.pairs = torch.tensor(pairs) if pairs else None
        self.count = count or len(scenes.names)
        self.window = tuple(min(sides) for sides in zip(crop, scenes.smallest, strict=True)) if crop else None
        self.inside = Inside.of(scenes, self.window) if self.window and len(self.window) == 3 else None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> dict[str, Any]:
        scene = key.visited(self.count, len(self.scenes.names))
        draws = generator(self.seed, "captures", key.epoch, key.number)
        u = torch.rand(4, len(scene), generator=draws)
        window = self._window(scene, u[:2], draws) if self.window else ()
        first, second = torch.zeros_like(scene), torch.ones_like(scene)
        if self.swap and self.pairs is not None:
            first, second = self.pairs[(u[2] * len(self.pairs)).long()].unbind(1)
        elif self.swap:
            first, second = self._pair(self.scenes.captures(scene), u[2], u[3])
        noisy = self.scenes.take(scene, first, window)
        others, capture = (self.scenes, second) if self.clean is None else (self.clean, 0 * scene)
        return {"input": noisy, "target": others.take(scene, capture, window), **key.identity()}

    def _pair(self, count: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of two different captures out of `count`, (B,) each, from uniform numbers in [0, 1)."""
        first = (u * count).long()
        if self.within is None:
            return first, (first + 1 + (v * (count - 1)).long()) % count
        low, high = (first - self.within).clamp(min=0), torch.minimum(first + self.within, count - 1)
        second = low + (v * (high - low)).long()  # of those beside the first one, which is left out
        return first, second + (second >= first)

    def _window(self, scene: Tensor, u: Tensor, draws: torch.Generator) -> tuple[Tensor, ...]:
        """Index of C and of each spatial axis of a random window for each image.

        Args:
            scene: (B,).
            u: uniform numbers for height and width, (2, B).
            draws: for the depth of volumes.
        """
        assert self.window
        sizes, sides = self.scenes.sizes(scene), torch.tensor(self.window)
        if len(sides) == 3:
            u = torch.cat((torch.rand(1, len(scene), generator=draws), u))
        starts = (u.T * (sizes - sides + 1)).long()
        if self.inside is not None:
            starts = self.inside.moved(scene, starts, draws)
        dims = len(sides)
        index = [torch.arange(self.scenes.channels).view(1, -1, *[1] * dims)]
        for axis in range(dims):
            along = starts[:, axis, None] + torch.arange(self.window[axis])
            index.append(along.view(len(scene), 1, *[-1 if k == axis else 1 for k in range(dims)]))
        return tuple(index)


class Inside:
    """Where windows of volumes show something: not outside of the specimen, where all voxels are one value or NaN.

    Volumes are cut into cells of the size of a window; a cell counts where some of its voxels, evenly spread, differ.
    Windows that begin in another cell are moved into one that counts.
    """

    def __init__(self, cells: list[Tensor], window: Sequence[int], limits: Tensor) -> None:
        self.cells, self.window, self.limits = cells, torch.tensor(window), limits

    @classmethod
    def of(cls, scenes: Scenes | Mixed, window: Sequence[int]) -> "Inside | None":
        """That of some scenes; None where every cell counts."""
        found, empty = [], False
        for i in range(len(scenes.names)):
            volume = scenes.image(i, 0)
            kept = []
            corners = [range(0, max(n - w, 0) + 1, w) for n, w in zip(volume.shape[1:], window, strict=True)]
            for corner in product(*corners):
                part = volume[
                    (slice(0, 1), *(slice(c, c + w, max(1, w // 6)) for c, w in zip(corner, window, strict=True)))
                ]
                part = part.double()  # torch has no minimum of unsigned 16 bit integers
                known = part[part.isfinite()]
                if len(known) > 0.5 * part.numel() and known.min() < known.max():
                    kept.append(corner)
                else:
                    empty = True
            found.append(torch.tensor(kept).view(-1, len(window)))
        return cls(found, window, scenes.sizes(torch.arange(len(scenes.names)))) if empty else None

    def moved(self, scene: Tensor, starts: Tensor, draws: torch.Generator) -> Tensor:
        """First voxels of windows, (B, 3), those outside of the specimen at other places within it."""
        u = torch.rand(4, len(scene), generator=draws)
        result = starts.clone()
        for b, i in enumerate(scene.tolist()):
            cells = self.cells[i]
            near = starts[b] // self.window * self.window
            if not len(cells) or (cells == near).all(1).any():
                continue
            cell = cells[int(u[0, b] * len(cells))]
            shifted = cell + ((u[1:, b] - 0.5) * self.window / 2).long()
            result[b] = torch.minimum(shifted.clamp(min=0), self.limits[i] - self.window)
        return result


@dataclass
class Sized(Dataset):
    """Fixed pairs for validation, of any sizes: one per batch."""

    noisy: Sequence[Tensor]
    reference: Sequence[Tensor]
    scene: Tensor | None = None

    def __len__(self) -> int:
        return len(self.noisy)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        i = int(key.images)
        scene = key.images if self.scene is None else self.scene[key.images]
        return {"input": self.noisy[i][None], "target": self.reference[i][None], "scene": scene, **key.identity()}


def middle(image: Tensor, most: int | Sequence[int]) -> Tensor:
    """The middle of an image (C, H, W) or (C, D, H, W), of sides of up to so many pixels; not copied."""
    for axis, side in enumerate(image.shape[1:], 1):
        longest = most if isinstance(most, int) else most[axis - 1]
        image = image.narrow(axis, max(0, side - longest) // 2, min(side, longest))
    return image
