"""Noisy captures of scenes, in memory or mapped from files, and the pairs that are drawn from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.batches import Key
from n2n_lightning.files import InputError
from n2n_lightning.noise import generator


@dataclass
class Scenes:
    """Captures of N scenes: K tensors (N, C, H, W), or, where scenes have different numbers of them, one with all.

    Attributes:
        frames: the K tensors, or one (sum of counts, C, H, W), scene after scene.
        names: of the scenes, for messages.
        counts: captures of each scene, (N,), where `frames` is one tensor; else None.
    """

    frames: list[Tensor]
    names: list[str]
    counts: Tensor | None = None

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

    def part(self, which: Tensor) -> "Scenes":
        """Some of the scenes; a slice of them is not copied."""
        names = [self.names[i] for i in which.tolist()]
        start, stop = int(which[0]), int(which[-1]) + 1
        whole = stop - start == len(which)
        if self.counts is None:
            return Scenes([f[start:stop] if whole else f[which] for f in self.frames], names)
        owner = torch.repeat_interleave(torch.arange(len(self.names)), self.counts)
        return Scenes([self.frames[0][torch.isin(owner, which)]], names, self.counts[which])

    def _frames(self, k: int, index: Tensor, window: tuple[Tensor, ...]) -> Tensor:
        return self.frames[k][index[:, None, None, None], *window] if window else self.frames[k][index]


class Captures(Dataset):
    """Noisy captures of scenes; a batch takes an ordered pair of different captures of each scene.

    Args:
        scenes: the captures.
        seed: of the choices below.
        swap: take a random ordered pair of the captures; otherwise the first is the input, the second the target.
        clean: train towards these images (N, C, H, W) instead (supervised training, for comparison).
        crop: height and width of a random window, the same for both; None takes whole images.
        count: images per epoch; item i is of scene i modulo their number.
    """

    def __init__(
        self,
        scenes: Scenes,
        seed: int,
        swap: bool,
        clean: Tensor | None = None,
        crop: int | None = None,
        count: int | None = None,
    ) -> None:
        self.scenes, self.seed, self.swap, self.clean = scenes, seed, swap, clean
        self.count = count or len(scenes.names)
        height, width = scenes.frames[0].shape[2:]
        self.window = (min(crop, height), min(crop, width)) if crop else None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> dict[str, Any]:
        scene = key.images % len(self.scenes.names)
        draws = generator(self.seed, "captures", key.epoch, key.number)
        u = torch.rand(4, len(scene), generator=draws)
        window = self._window(u[:2]) if self.window else ()
        first, second = torch.zeros_like(scene), torch.ones_like(scene)
        if self.swap:
            count = self.scenes.captures(scene)
            first = (u[2] * count).long()
            second = (first + 1 + (u[3] * (count - 1)).long()) % count
        noisy = self.scenes.take(scene, first, window)
        if self.clean is None:
            target = self.scenes.take(scene, second, window)
        else:
            target = self.clean[scene[:, None, None, None], *window] if window else self.clean[scene]
        return {"input": noisy, "target": target, **key.identity()}

    def _window(self, u: Tensor) -> tuple[Tensor, ...]:
        """Index of C, H and W of a random window for each image."""
        _, channels, height, width = self.scenes.frames[0].shape
        assert self.window
        h, w = self.window
        rows = (u[0] * (height - h + 1)).long()[:, None] + torch.arange(h)
        columns = (u[1] * (width - w + 1)).long()[:, None] + torch.arange(w)
        return torch.arange(channels)[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]


def check(images: Tensor, names: Sequence[str], missing_allowed: bool = False, most: int = 1000) -> None:
    """Looks for images that cannot be trained on, in up to `most` of them, evenly spread.

    Raises:
        InputError: an image is constant, has infinite values, or NaN where none is allowed.
    """
    for i in np.unique(np.linspace(0, len(images) - 1, most).round().astype(int)):
        image = images[i].double()
        if image.isinf().any():
            raise InputError(f"{names[i]}: has infinite values")
        if image.isnan().any() and not missing_allowed:
            raise InputError(
                f"{names[i]}: has NaN values; only targets may lack pixels (data.target= with data.swap=false)"
            )
        if image.isnan().all() or image[~image.isnan()].std(correction=0) == 0:
            raise InputError(f"{names[i]}: is constant, so there is nothing to learn from it; leave it out")
