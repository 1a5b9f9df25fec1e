"""How one noisy image becomes an input and a target whose noises are independent.

Images are float (B, C, H, W), or (B, C, D, H, W), in the network's range, twice: `seen`, without
gaps, as a network may see them, and `truth`, NaN where a pixel is missing or wild. Everything
random comes from `draws`, a generator on the CPU, so that runs repeat.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.bad_pixels import inpaint
from n2n_lightning.files import InputError, option
from n2n_lightning.losses import subsampled


class SelfSupervision:
    """Makes a batch of one capture: a dict with `input` and `target`, and what a second pass needs."""

    white = True  # whether it takes noise that is independent between pixels

    def __call__(self, seen: Tensor, truth: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        raise NotImplementedError


# Ordered pairs of pixels of a 2 x 2 cell (numbered 0 1 / 2 3) that are side by side.
ADJACENT = torch.tensor([(0, 1), (1, 0), (2, 3), (3, 2), (0, 2), (2, 0), (1, 3), (3, 1)])


class Neighbor2Neighbor(SelfSupervision):
    """Neighbor2Neighbor (Huang et al., CVPR 2021): two images of half the size, of neighbouring pixels.

    Of each cell of 2 x 2 pixels the first image has one, the second another one beside it, drawn at
    random (section 3.2). What differs between the two, beside the noise, is corrected by a second
    pass, losses.Neighbor2NeighborRegularizer, which needs the whole image (`whole`) and which
    pixels were drawn (`cells`, (B, 2, H/2, W/2)). Of volumes each plane is taken for itself; with
    `cubes`, planes across any two axes, another pair for each batch.

    Args:
        cubes: the voxels are as deep as they are high and wide.
    """

    def __init__(self, cubes: bool = False) -> None:
        self.cubes = cubes

    def __call__(self, seen: Tensor, truth: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        if self.cubes and axes.deep(seen):
            across = axes.DEPTH + int(torch.randint(3, (1,), generator=draws))
            seen, truth = (images.transpose(axes.DEPTH, across) for images in (seen, truth))
        seen, truth = (_even(images) for images in (seen, truth))
        *depth, height, width = axes.size(seen)
        choice = torch.randint(
            len(ADJACENT), (len(seen), *depth, height // 2, width // 2), generator=draws
        )
        cells = ADJACENT[choice].movedim(-1, 1).to(seen.device)
        first, second = subsampled(seen, cells[:, 0]), subsampled(truth, cells[:, 1])
        return {"input": first, "target": second, "whole": seen, "cells": cells}


def _even(images: Tensor) -> Tensor:
    """Images without their last row or column, where their number is odd."""
    *_, height, width = images.shape
    return images[..., : height // 2 * 2, : width // 2 * 2]


class Noise2Void(SelfSupervision):
    """Noise2Void (Krull et al., CVPR 2019): some pixels are hidden from the network, and are its target.

    A hidden pixel has the value of another one near it, never its own; the target is NaN everywhere
    else. With a larger `mask` (Broaddus et al., ISBI 2020) all pixels of a rectangle around it are
    hidden, each by one outside of what noise along a line would reach: `[1, 9]` against noise along
    rows. Of volumes a pixel is shown another one of its own plane; with `cubes` also of those
    beside it.

    Args:
        share: of the pixels that are targets.
        mask: height and width of what is hidden around each, odd numbers.
        cubes: the voxels are as deep as they are high and wide.
    """

    def __init__(
        self, share: float = 0.03, mask: Sequence[int] = (1, 1), cubes: bool = False
    ) -> None:
        if not 0 < share <= 0.5:
            raise InputError("data.share", share, "must be larger than 0, and 0.5 at most")
        sides = [int(n) for n in mask]
        if len(sides) != 2 or any(n < 1 or n % 2 == 0 for n in sides):
            raise InputError(
                "data.mask", list(mask), "must be height and width, two odd numbers, [1,9] say"
            )
        self.share, self.mask = share, (sides[0], sides[1])
        self.white = self.mask == (1, 1)
        height, width = self.mask
        # The difference of two hidden pixels of one rectangle is less than its sides: beyond lies
        # another noise.
        reach = [range(-n - 1, n + 2) for n in self.mask]
        plane = [(0, y, x) for y, x in product(*reach) if abs(y) >= height or abs(x) >= width]
        beside = [(z, y, x) for z in (-2, -1, 1, 2) for y, x in product(*reach)] if cubes else []
        self._offsets = torch.tensor(plane + beside)

    def __call__(self, seen: Tensor, truth: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        *_, height, width = size = axes.size(seen)
        least = max(2 * n + 4 for n in self.mask)
        if min(height, width) < least:
            raise InputError(
                f"images of {height} x {width}: {option('data.mask', list(self.mask))} needs"
                f" {least} pixels or more"
            )
        centres = torch.rand(len(seen), 1, *size, generator=draws) < self.share
        planes = centres.float().reshape(-1, 1, height, width)
        hidden = torch.nn.functional.max_pool2d(
            planes, self.mask, stride=1, padding=[n // 2 for n in self.mask]
        )
        image, _, *place = hidden.reshape(centres.shape).nonzero().unbind(1)
        drawn = torch.randint(len(self._offsets), (len(image),), generator=draws)
        offsets = self._offsets[drawn].unbind(1)[-len(size) :]
        # Beyond the border the other side is taken: mirroring could come back to the pixel itself.
        other = [
            torch.where((at + d < 0) | (at + d >= length), at - d, at + d)
            for at, d, length in zip(place, offsets, size, strict=True)
        ]
        # Gaps are filled when the pixels are hidden: what fills them must not know the targets.
        shown = truth.clone()
        here, there = ([t.to(seen.device) for t in where] for where in (place, other))
        first: Any = (image.to(seen.device), slice(None))
        shown[(*first, *here)] = truth[(*first, *there)]
        return {
            "input": inpaint(shown),
            "target": torch.where(centres.to(seen.device), truth, torch.nan),
        }


class CountSplitting(SelfSupervision):
    """Two images of half the light each from one of photon counts: an exact pair.

    Of k photons Binomial(k, 1/2) go to the input and the rest to the target. If k is Poisson both
    are, and independent. Both are shown in the units of the whole (times two), so that the network
    denoises the image itself afterwards.

    Args:
        zero, one: the network's values of 0 and of 1 photon.
    """

    white = False  # what the noise of one pixel has to do with another's does not matter

    def __init__(self, zero: float, one: float) -> None:
        self.zero, self.one = zero, one

    def __call__(self, seen: Tensor, truth: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        known = truth.isfinite()
        unit = self.one - self.zero
        counts = torch.where(known, (truth - self.zero) / unit, 0).round().clamp(min=0)
        first = torch.binomial(
            counts.cpu().double(), torch.full_like(counts, 0.5).cpu().double(), generator=draws
        )
        halves = [
            2 * half.to(seen) * unit + self.zero for half in (first, counts.cpu().double() - first)
        ]
        return {
            "input": torch.where(known, halves[0], seen),
            "target": torch.where(known, halves[1], torch.nan),
        }


METHODS: dict[str, Any] = {
    "neighbours": Neighbor2Neighbor,
    "masked": Noise2Void,
    "thinned": CountSplitting,
}
