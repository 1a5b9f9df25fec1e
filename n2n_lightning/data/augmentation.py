"""Augmentations of both images of a pair alike, on the training device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.devices.copies import sent

MAX_CONTRAST = 1.4  # factor on distances from mid grey, either way


def to_float(image: Tensor, scale: float | None = None) -> Tensor:
    """Convert stored values to float32.

    Args:
        image: integers or floats.
        scale: the stored value that becomes 1; None: the largest value of an integer type (255,
            65535), and floats as they are.

    Returns:
        float32; the same tensor where nothing is to do.

    >>> to_float(torch.tensor([51], dtype=torch.uint8)).item()
    0.20000000298023224
    >>> to_float(torch.tensor([1024.0]), 4096).item()
    0.25
    """
    if not image.is_floating_point():
        white = scale or torch.iinfo(image.dtype).max
        return image.float().div_(white)
    if scale in (None, 1.0):
        return image.float()
    return image.float() / scale


def to_range(image: Tensor, limits: tuple[float, float]) -> Tensor:
    """Convert stored values to units of the network, float32.

    Args:
        image: integers or floats.
        limits: the stored value that becomes 0, and how much above it becomes 1.

    Returns:
        A new tensor.

    >>> to_range(torch.tensor([1100], dtype=torch.uint16), (1000.0, 200.0)).item()
    0.5
    """
    black, span = limits
    # float32 does not hold every value of wider types
    exact = image.dtype.itemsize <= 2 or image.dtype == torch.float32
    values = image.float() if exact else image.double()
    above_black = values - black
    return above_black.div_(span).float()


def turn(
    images: Sequence[Tensor],
    draws: torch.Generator,
    transposed: bool = True,
    spacing: Sequence[float] | None = None,
) -> list[Tensor]:
    """Flip at random, and transpose where height equals width, each row of all images alike.

    Together these are the 8 symmetries of a square, each with probability 1/8. (B, C, D, H, W) is
    flipped along D, too, and transposed in each plane whose axes are alike (axes.quarter_turns).

    Args:
        images: (B, C, H, W) each, of one size.
        draws: random generator.
        transposed: False: flips alone.
        spacing: the distance of neighbouring voxels along each spatial axis; None: not known.

    Returns:
        As many images.
    """
    first = images[0]
    spatial = axes.spatial(first)
    planes = []
    if transposed:
        planes = axes.quarter_turns(axes.size(first), spacing)
    rows = len(spatial) + max(1, len(planes))
    drawn = torch.rand(rows, len(first), generator=draws) < 0.5
    choices = [axes.per_image(row, first) for row in sent(drawn, first.device)]
    flips = choices[: len(spatial)]
    transposes = choices[len(spatial) :]
    turned = []
    for image in images:
        for flip, axis in zip(flips, reversed(spatial), strict=True):
            mirrored = image.flip(axis)
            image = torch.where(flip, mirrored, image)
        for transpose, plane in zip(transposes, planes, strict=False):
            across = image.transpose(*plane)
            image = torch.where(transpose, across, image)
        turned.append(image)
    return turned


def without_colour(
    image: Tensor,
    share: float,
    draws: torch.Generator,
) -> Tensor:
    """Make a share of the images grey.

    Args:
        image: (B, C, H, W).
        share: probability of each, 0 to 1.
        draws: random generator.

    Returns:
        The images; grey ones hold the mean of their channels in each.
    """
    chosen = torch.rand(len(image), generator=draws) < share
    grey = axes.per_image(sent(chosen, image.device), image)
    return torch.where(grey, image.mean(1, keepdim=True), image)


def recolour(
    images: Sequence[Tensor], saturation: tuple[float, float], draws: torch.Generator
) -> list[Tensor]:
    """Change saturation and contrast at random, of each row of all images alike.

    Distances from the mean of a pixel's channels are multiplied by a factor between the two of
    `saturation`, distances from 0.5 by 1 / MAX_CONTRAST to MAX_CONTRAST, both uniform in the
    logarithm. All of it is affine and nothing is clamped, so that noise of zero mean stays so.

    Args:
        images: (B, C, H, W) each, of one size.
        saturation: lowest and highest factor, larger than 0.
        draws: random generator.

    Returns:
        As many images.
    """
    lowest, highest = saturation
    first = images[0]
    drawn = torch.rand(2, len(first), generator=draws)
    for_colour, for_contrast = [axes.per_image(row, first) for row in drawn]
    colour = lowest * (highest / lowest) ** for_colour
    contrast = MAX_CONTRAST ** (2 * for_contrast - 1)
    colour = sent(colour, first.device)
    contrast = sent(contrast, first.device)
    recoloured = []
    for image in images:
        grey = image.mean(1, keepdim=True)
        saturated = grey + (image - grey) * colour
        recoloured.append((saturated - 0.5) * contrast + 0.5)
    return recoloured
