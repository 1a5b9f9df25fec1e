"""Noisy captures of scenes, in memory or mapped from files, and the pairs that are drawn from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning import axes
from n2n_lightning.data.batches import Key
from n2n_lightning.noise import generator


@dataclass
class Scenes:
    """Captures of N scenes of one size: K tensors (N, C, H, W), or one with all where scenes have different numbers.

    Attributes:
        frames: the K tensors, or one (sum of counts, C, H, W), scene after scene.
        names: of the scenes, for messages.
        counts: captures of each scene, (N,), where `frames` is one tensor; else None.
        fills: stored values that mean, as the files say, that a pixel is missing.
    """

    frames: list[Tensor]
    names: list[str]
    counts: Tensor | None = None
    fills: tuple[float, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        return self.frames[0].dtype

    @property
    def channels(self) -> int:
        return self.frames[0].shape[1]

    @property
    def smallest(self) -> tuple[int, int]:
        """Height and width that all images have."""
        height, width = axes.size(self.frames[0])
        return height, width

    def sizes(self, scene: Tensor) -> Tensor:
        """Height and width of each of the scenes: (B,) -> (B, 2)."""
        return torch.tensor([self.smallest]).expand(len(scene), 2)

    def captures(self, scene: Tensor) -> Tensor:
        """How many captures each of the scenes has: (B,) -> (B,)."""
        return torch.full_like(scene, len(self.frames)) if self.counts is None else self.counts[scene]

    def take(self, scene: Tensor, capture: Tensor, window: tuple[Tensor, ...] = ()) -> Tensor:
        """Capture capture[i] of scene scene[i], (B,) each: (B, C, H, W), or less where `window` indexes C, H and W."""
        if self.counts is not None:
            starts = self.counts.cumsum(0) - self.counts
            return self._frames(0, starts[scene] + capture, window)
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
        """One capture, (C, H, W)."""
        return self.take(torch.tensor([scene]), torch.tensor([capture]))[0]

    def part(self, which: Tensor) -> "Scenes":
        """Some of the scenes; a slice of them is not copied."""
        names = [self.names[i] for i in which.tolist()]
        start, stop = int(which[0]), int(which[-1]) + 1
        whole = stop - start == len(which)
        if self.counts is None:
            return Scenes([f[start:stop] if whole else f[which] for f in self.frames], names, None, self.fills)
        owner = torch.repeat_interleave(torch.arange(len(self.names)), self.counts)
        frames = torch.cat([self.frames[0][owner == i] for i in which])
        return Scenes([frames], names, self.counts[which], self.fills)

    def region(self, rows: slice, columns: slice) -> "Scenes":
        """The same scenes, cut to a part of their pixels, which is not copied."""
        return Scenes([f[..., rows, columns] for f in self.frames], self.names, self.counts, self.fills)

    def _frames(self, k: int, index: Tensor, window: tuple[Tensor, ...]) -> Tensor:
        return self.frames[k][index[:, None, None, None], *window] if window else self.frames[k][index]


@dataclass
class Mixed:
    """Captures of scenes of any sizes; all captures of a scene have one. Has what `Scenes` has.

    Attributes:
        images: of each scene its captures, (C, H, W).
    """

    images: list[list[Tensor]]
    names: list[str]
    fills: tuple[float, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        return self.images[0][0].dtype

    @property
    def channels(self) -> int:
        return len(self.images[0][0])

    @property
    def smallest(self) -> tuple[int, int]:
        """Height and width that all images have."""
        height, width = self.sizes(torch.arange(len(self.images))).amin(0).tolist()
        return height, width

    def sizes(self, scene: Tensor) -> Tensor:
        """Height and width of each of the scenes: (B,) -> (B, 2)."""
        return torch.tensor([self.images[int(i)][0].shape[1:] for i in scene])

    def captures(self, scene: Tensor) -> Tensor:
        """How many captures each of the scenes has: (B,) -> (B,)."""
        return torch.tensor([len(self.images[int(i)]) for i in scene])

    def take(self, scene: Tensor, capture: Tensor, window: tuple[Tensor, ...] = ()) -> Tensor:
        """Capture capture[i] of scene scene[i], (B,) each, cut to `window`: (B, C, h, w)."""
        images = [self.image(int(i), int(k)) for i, k in zip(scene, capture, strict=True)]
        if window:
            _, rows, columns = window
            images = [image[:, rows[i, 0], columns[i, 0]] for i, image in enumerate(images)]
        return torch.stack(images)

    def image(self, scene: int, capture: int) -> Tensor:
        """One capture, (C, H, W)."""
        return self.images[scene][capture]

    def part(self, which: Tensor) -> "Mixed":
        """Some of the scenes."""
        return Mixed([self.images[i] for i in which.tolist()], [self.names[i] for i in which.tolist()], self.fills)


class Captures(Dataset):
    """Noisy captures of scenes; a batch takes an ordered pair of different captures of each scene.

    Args:
        scenes: the captures.
        seed: of the choices below.
        swap: take a random ordered pair of the captures; otherwise the first is the input, the second the target.
        clean: train towards these images, one of each scene, instead (supervised training, for comparison).
        crop: height and width of a random window, the same for both; None takes whole images.
        count: images per epoch; item i is of scene i modulo their number.
        within: captures that are more than so many apart are no pair; None: all are.
    """

    def __init__(
        self,
        scenes: Scenes | Mixed,
        seed: int,
        swap: bool,
        clean: Scenes | Mixed | None = None,
        crop: int | None = None,
        count: int | None = None,
        within: int | None = None,
    ) -> None:
        self.scenes, self.seed, self.swap, self.clean, self.within = scenes, seed, swap, clean, within
        self.count = count or len(scenes.names)
        height, width = scenes.smallest
        self.window = (min(crop, height), min(crop, width)) if crop else None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> dict[str, Any]:
        scene = key.images % len(self.scenes.names)
        draws = generator(self.seed, "captures", key.epoch, key.number)
        u = torch.rand(4, len(scene), generator=draws)
        window = self._window(scene, u[:2]) if self.window else ()
        first, second = torch.zeros_like(scene), torch.ones_like(scene)
        if self.swap:
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

    def _window(self, scene: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        """Index of C, H and W of a random window for each image."""
        assert self.window
        (h, w), (height, width) = self.window, self.scenes.sizes(scene).unbind(1)
        rows = (u[0] * (height - h + 1)).long()[:, None] + torch.arange(h)
        columns = (u[1] * (width - w + 1)).long()[:, None] + torch.arange(w)
        return (
            torch.arange(self.scenes.channels)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        )


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


def middle(image: Tensor, most: int) -> Tensor:
    """The middle of an image (C, H, W), of sides of up to so many pixels; not copied."""
    for axis, side in enumerate(image.shape[1:], 1):
        image = image.narrow(axis, max(0, side - most) // 2, min(side, most))
    return image
