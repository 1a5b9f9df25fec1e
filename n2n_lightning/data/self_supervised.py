"""How one noisy image becomes an input and a target whose noises are independent.

Images are float (B, C, H, W), or (B, C, D, H, W), in the network's range, twice: `seen`, without
gaps, as a network may see them, and `truth`, NaN where a pixel is missing or an outlier. Everything
random comes from `draws`, a generator on the CPU, so that runs repeat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.bad_pixels import inpaint
from n2n_lightning.data.mask import Mask, Offset
from n2n_lightning.devices.copies import sent
from n2n_lightning.files import InputError, option
from n2n_lightning.losses import subsampled


class SelfSupervision:
    """Makes a batch of one capture: `input`, `target`, and what a second pass needs."""

    white = True  # whether it takes noise that is independent between pixels

    def __call__(
        self,
        seen: Tensor,
        truth: Tensor,
        draws: torch.Generator,
    ) -> dict[str, Tensor]:
        raise NotImplementedError


# Ordered pairs of pixels of a 2 x 2 cell (numbered 0 1 / 2 3) that are side by side.
BESIDE = [(0, 1), (1, 0), (2, 3), (3, 2)]
BELOW = [(0, 2), (2, 0), (1, 3), (3, 1)]
ADJACENT = torch.tensor(BESIDE + BELOW)


class Neighbor2Neighbor(SelfSupervision):
    """Neighbor2Neighbor (Huang et al., CVPR 2021): two subsampled images.

    Each cell of 2 x 2 pixels gives one pixel to the first image and an adjacent one to the second,
    drawn at random (section 3.2). The scene differs a little between the two; this is corrected by
    a second pass, losses.Neighbor2NeighborRegularizer, which needs the whole image (`whole`) and
    which pixels were drawn (`cells`, (B, 2, H/2, W/2)). Volumes are processed plane by plane; with
    `cubes`, across any two axes, another pair for each batch.

    Args:
        cubes: the voxels are as deep as they are high and wide.
    """

    def __init__(self, cubes: bool = False) -> None:
        self.cubes = cubes

    def __call__(
        self,
        seen: Tensor,
        truth: Tensor,
        draws: torch.Generator,
    ) -> dict[str, Tensor]:
        if self.cubes and axes.deep(seen):
            drawn = torch.randint(3, (1,), generator=draws)
            across = axes.DEPTH + int(drawn)
            seen = seen.transpose(axes.DEPTH, across)
            truth = truth.transpose(axes.DEPTH, across)
        seen = _even(seen)
        truth = _even(truth)
        *depth, height, width = axes.size(seen)
        shape = (len(seen), *depth, height // 2, width // 2)
        choice = torch.randint(len(ADJACENT), shape, generator=draws)
        cells = sent(ADJACENT[choice].movedim(-1, 1), seen.device)
        return {
            "input": subsampled(seen, cells[:, 0]),
            "target": subsampled(truth, cells[:, 1]),
            "whole": seen,
            "cells": cells,
        }


def _even(images: Tensor) -> Tensor:
    """Return images without their last row or column, where their number is odd."""
    *_, height, width = images.shape
    height = height // 2 * 2
    width = width // 2 * 2
    return images[..., :height, :width]


@dataclass(frozen=True)
class BlindSpots:
    """Pixels of a batch that are hidden, and those whose values they get.

    Attributes:
        targets: bool, (B, 1, H, W) or (B, 1, D, H, W): pixels that are learnt.
        hidden: in that shape: these and what a mask hides around them.
        image: the image of each hidden pixel, (n,).
        place: row and column (or plane, row and column) of each, (2, n) or (3, n).
        other: the same of the pixels that replace them.
    """

    targets: Tensor
    hidden: Tensor
    image: Tensor
    place: Tensor
    other: Tensor

    @property
    def indices(self) -> tuple[Tensor, Tensor, Tensor]:
        """`image`, `place` and `other`."""
        return self.image, self.place, self.other


class Noise2Void(SelfSupervision):
    """Noise2Void (Krull et al., CVPR 2019): the targets are blind spots.

    The network does not see these pixels: each gets the value of another one near it, never its
    own; the target is NaN everywhere else. With a larger `mask` (Broaddus et al., ISBI 2020) all
    pixels around it whose noise has something in common with it are hidden, each by one that has
    nothing in common with any of them: `[1,9]` against noise along rows. In volumes the other pixel
    is of the same plane; with `cubes` also of those next to it.

    Args:
        share: of the pixels that are hidden, about; those in the middle of a mask are targets.
        mask: what is hidden around each target, or what `Mask.of` takes.
        cubes: the voxels are as deep as they are high and wide.
    """

    def __init__(self, share: float = 0.03, mask: Any = (1, 1), cubes: bool = False) -> None:
        if not 0 < share <= 0.5:
            raise InputError("data.share", share, "must be larger than 0, and 0.5 at most")
        self.share = share
        self.mask = mask if isinstance(mask, Mask) else Mask.of(mask)
        self.white = self.mask.single
        self._replacements = torch.tensor(_replacements(self.mask, cubes))

    def __call__(
        self,
        seen: Tensor,
        truth: Tensor,
        draws: torch.Generator,
    ) -> dict[str, Tensor]:
        spots = self.draw_spots(len(seen), axes.size(seen), draws)
        image, place, other = (sent(part, seen.device) for part in spots.indices)
        first: Any = (image, slice(None))  # all channels are hidden together
        # Gaps are filled when the pixels are hidden: what fills them must not know the targets.
        shown = truth.clone()
        shown[(*first, *place)] = truth[(*first, *other)]
        return {
            "input": inpaint(shown),
            "target": torch.where(sent(spots.targets, seen.device), truth, torch.nan),
        }

    def draw_spots(self, count: int, size: Sequence[int], draws: torch.Generator) -> BlindSpots:
        """Draw the targets of a batch, and the pixels whose values replace hidden ones.

        Args:
            count: images of the batch, B.
            size: their height and width, or depth, height and width.
            draws: random generator, on the CPU.

        Returns:
            Their places, on the CPU.

        Raises:
            InputError: the images are too small for the mask.
        """
        self._refuse_small(size)
        share_of_targets = self.share / len(self.mask.offsets)
        targets = torch.rand(count, 1, *size, generator=draws) < share_of_targets
        hidden = around(targets, self.mask)
        image, _, *place = hidden.nonzero().unbind(1)
        drawn = torch.randint(len(self._replacements), (len(image),), generator=draws)
        offsets = self._replacements[drawn].unbind(1)[-len(size) :]
        other = []
        for at, offset, length in zip(place, offsets, size, strict=True):
            # Beyond the border the other side is taken: mirroring could come back to the pixel
            # itself.
            outside = (at + offset < 0) | (at + offset >= length)
            other.append(torch.where(outside, at - offset, at + offset))
        return BlindSpots(targets, hidden, image, torch.stack(place), torch.stack(other))

    @property
    def least_side(self) -> int:
        """Pixels of a side from which on there are some outside of a mask in the middle."""
        _, height, width = self.mask.sides
        return 2 * max(height, width) + 4

    def _refuse_small(self, size: Sequence[int]) -> None:
        """Raise InputError where there are no pixels outside of a mask in the middle."""
        *depth, height, width = size
        planes, _, _ = self.mask.sides
        needed = 2 * planes + 4
        asked = option("data.mask", self.mask.text)
        if depth and planes > 1 and depth[0] < needed:
            shown = f"volumes of {depth[0]} planes"
            raise InputError(f"{shown}: {asked} needs {needed} or more")
        if min(height, width) < self.least_side:
            raise InputError(
                f"images of {height} x {width}: {asked} needs {self.least_side} pixels or more"
            )


def around(targets: Tensor, mask: Mask) -> Tensor:
    """Mark the pixels that the masks around some targets hide.

    Args:
        targets: bool, (B, 1, H, W) or (B, 1, D, H, W).
        mask: around each; in images its own plane alone counts.

    Returns:
        bool, in that shape.
    """
    hidden = torch.zeros_like(targets)
    size = axes.size(targets)
    image, channel, *place = targets.nonzero().unbind(1)
    for offset in sorted(mask.offsets):
        inside = torch.ones_like(image, dtype=torch.bool)
        moved = []
        for at, distance, length in zip(place, offset[-len(size) :], size, strict=True):
            other = at + distance
            inside &= (other >= 0) & (other < length)
            moved.append(other)
        chosen = [index[inside] for index in (image, channel, *moved)]
        hidden[tuple(chosen)] = True
    return hidden


def _replacements(mask: Mask, cubes: bool) -> list[Offset]:
    """Return the distances of pixels that may hide one of a mask.

    None of them is a difference of two hidden pixels, also if one of its signs is changed at a
    border: it comes from outside of the mask, wherever in it the hidden one is.
    """
    offsets = np.array(sorted(mask.offsets))
    one = offsets[:, None]
    other = offsets[None]
    distances = abs(one - other).reshape(-1, 3)
    differences = set(map(tuple, distances.tolist()))
    planes, height, width = mask.sides
    rows = range(-height - 1, height + 2)
    columns = range(-width - 1, width + 2)
    depths = [0]
    if cubes:
        farthest = planes + 1
        depths += range(-farthest, 0)
        depths += range(1, farthest + 1)
    replacements = []
    for at in product(depths, rows, columns):
        distance = tuple(map(abs, at))
        if distance not in differences:
            replacements.append(at)
    return replacements


class CountSplitting(SelfSupervision):
    """Two images of half the light each from one of photon counts: an exact pair.

    Each photon is assigned to input or target with probability 1/2, Binomial(k, 1/2) of k. If k is
    Poisson, both halves are, and independent. Both are multiplied by two, so that the network
    denoises the image itself afterwards.

    Args:
        zero: the network's value of 0 photons.
        one: the network's value of 1 photon.
    """

    white = False  # correlation between pixels does not matter

    def __init__(self, zero: float, one: float) -> None:
        self.zero = zero
        self.one = one

    def __call__(
        self,
        seen: Tensor,
        truth: Tensor,
        draws: torch.Generator,
    ) -> dict[str, Tensor]:
        known = truth.isfinite()
        unit = self.one - self.zero
        photons = torch.where(known, (truth - self.zero) / unit, 0)
        photons = photons.round().clamp(min=0)
        if seen.device.type == "cpu":
            photons = photons.double()
        else:  # drawn there, without a wait
            draws = torch.Generator(seen.device).manual_seed(draws.initial_seed())
        first = torch.binomial(photons, torch.full_like(photons, 0.5), generator=draws)
        second = photons - first
        noisy = 2 * first.to(seen) * unit + self.zero
        target = 2 * second.to(seen) * unit + self.zero
        return {
            "input": torch.where(known, noisy, seen),
            "target": torch.where(known, target, torch.nan),
        }


METHODS: dict[str, Any] = {
    "neighbours": Neighbor2Neighbor,
    "masked": Noise2Void,
    "thinned": CountSplitting,
}
