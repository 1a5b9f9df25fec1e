"""What is done to both images of a pair alike, on the device that trains."""

from collections.abc import Sequence

import torch
from torch import Tensor

from n2n_lightning.arrays import axes


def to_float(image: Tensor, scale: float | None = None) -> Tensor:
    """Integers to float32 by dividing by `scale`, by default the largest value of their type (255, 65535).

    Floats are divided by `scale` only if one is given; tensors that are float32 already and need no
    scale are returned as they are.

    >>> to_float(torch.tensor([51], dtype=torch.uint8)).item(), to_float(torch.tensor([1024.0]), 4096).item()
    (0.20000000298023224, 0.25)
    """
    if image.is_floating_point():
        return image.float() if scale in (None, 1.0) else image.float() / scale
    return image.float().div_(scale or torch.iinfo(image.dtype).max)


def to_range(image: Tensor, limits: tuple[float, float]) -> Tensor:
    """Stored values to float32: the first of `limits` becomes 0, and so much above it as the second says 1.

    >>> to_range(torch.tensor([1100], dtype=torch.uint16), (1000.0, 200.0)).item()
    0.5
    """
    black, span = limits
    # float32 does not hold every value of these
    wide = image.dtype.itemsize > 2 and image.dtype != torch.float32
    return ((image.double() if wide else image.float()) - black).div_(span).float()


def turn(
    images: Sequence[Tensor],
    draws: torch.Generator,
    transposed: bool = True,
    spacing: Sequence[float] | None = None,
) -> list[Tensor]:
    """The same random flips and, where height equals width, transposition for each row of all `images` (B, C, H, W).

    Together these are the 8 symmetries of a square, each with probability 1/8. (B, C, D, H, W) is
    flipped along D, too, and transposed in each plane whose axes are alike (axes.quarter_turns).

    Args:
        images: of one size.
        draws: what is drawn from.
        transposed: False leaves rows and columns what they are.
        spacing: the distance of neighbouring voxels along each spatial axis, where that is known.
    """
    spatial = axes.spatial(images[0])
    planes = axes.quarter_turns(axes.size(images[0]), spacing) if transposed else []
    drawn = (
        torch.rand(len(spatial) + max(1, len(planes)), len(images[0]), generator=draws) < 0.5
    ).to(images[0].device)
    choices = [axes.per_image(choice, images[0]) for choice in drawn]
    flips, transposes = choices[: len(spatial)], choices[len(spatial) :]
    turned = []
    for image in images:
        for flip, axis in zip(flips, reversed(spatial), strict=True):
            image = torch.where(flip, image.flip(axis), image)
        for transpose, plane in zip(transposes, planes, strict=False):
            image = torch.where(transpose, image.transpose(*plane), image)
        turned.append(image)
    return turned


def without_colour(image: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """A share of the rows of (B, C, H, W) with the mean of their channels in each."""
    grey = axes.per_image(torch.rand(len(image), generator=draws) < share, image).to(image.device)
    return torch.where(grey, image.mean(1, keepdim=True), image)


def recolour(
    images: Sequence[Tensor], saturation: tuple[float, float], draws: torch.Generator
) -> list[Tensor]:
    """The same random saturation and contrast for each row of all `images` (B, C, H, W).

    Distances from the mean of a pixel's channels are multiplied by a factor between the two of
    `saturation`, distances from 0.5 by 0.7 to 1.4, both uniform in the logarithm. All of it is
    affine and nothing is clamped, so that noise of zero mean stays so.
    """
    u = [
        axes.per_image(drawn, images[0]) for drawn in torch.rand(2, len(images[0]), generator=draws)
    ]
    lowest, highest = saturation
    colour, contrast = (
        factor.to(images[0].device)
        for factor in (lowest * (highest / lowest) ** u[0], 1.4 ** (2 * u[1] - 1))
    )
    recoloured = []
    for image in images:
        mean = image.mean(1, keepdim=True)
        recoloured.append((mean + (image - mean) * colour - 0.5) * contrast + 0.5)
    return recoloured
