"""Base of the corruptions: their randomness and their strengths."""

from collections.abc import Sequence

import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.files import InputError

Strength = float | Sequence[float]


class Noise:
    """Base class of the corruptions.

    Args:
        frozen: each training image keeps one fixed pair, as in the report, instead of new noise in
            every epoch.

    Attributes:
        block: side of the block of pixels of the photograph that one noisy pixel stands for.
        blind: the noise has many kinds or strengths, and a network has to guess which.
    """

    block: int = 1
    blind: bool = False

    def __init__(self, frozen: bool = False) -> None:
        self.frozen = frozen

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return a noisy version of a batch.

        Args:
            image: (B, C, block * H, block * W), values in [0, 1].
            generator: of the random numbers, on the device of the image.

        Returns:
            (B, C, H, W), neither clipped nor rounded.
        """
        raise NotImplementedError

    def target(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return a noisy version to train towards.

        Args:
            image: (B, C, block * H, block * W), values in [0, 1].
            generator: of the random numbers, on the device of the image.

        Returns:
            (B, C, H, W); NaN where a pixel is missing, so that losses do not count it.
        """
        return self(image, generator)

    def clean(self, image: Tensor) -> Tensor:
        """Return the image that validation compares with: (B, C, H, W).

        Returns:
            Without noise; the mean of each block of pixels where `block` is larger than 1.
        """
        return image


def drawn(
    strength: Strength,
    image: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Draw a strength for each image of a batch, uniformly within its range.

    Args:
        strength: a number, or [lowest, highest].
        image: (B, C, H, W) or (B, C, D, H, W).
        generator: of the random numbers, on the device of the image.

    Returns:
        (B, 1, 1, 1) or (B, 1, 1, 1, 1).
    """
    low, high = strength_bounds(strength)
    draws = torch.rand(len(image), generator=generator, device=image.device)
    shares = axes.per_image(draws, image)
    return low + (high - low) * shares


def strength_bounds(strength: Strength) -> tuple[float, float]:
    """Return the lowest and the highest strength.

    Returns:
        Both are equal for a number.

    >>> strength_bounds(25), strength_bounds([0, 50])
    ((25, 25), (0, 50))
    """
    if isinstance(strength, int | float):
        return strength, strength
    low, high = strength
    return low, high


def checked_strength(
    name: str,
    strength: Strength,
    least: float,
    most: float,
) -> Strength:
    """Check a strength and return it, a range as a tuple.

    Args:
        name: of the option, for the message.
        strength: a number, or [lowest, highest].
        least: the lowest strength that is allowed.
        most: the highest one.

    Returns:
        The strength.

    Raises:
        InputError: it is neither a number nor a range within [least, most].

    >>> checked_strength("sigma", [0, 50], 0, 255)
    (0, 50)
    """
    try:
        low, high = strength_bounds(strength)
        valid = least <= low <= high <= most
    except (TypeError, ValueError):
        valid = False
    if not valid:
        reason = f"must be a number or a range [a, b] within {least:g}..{most:g}"
        raise InputError(f"noise.{name}", strength, reason)
    if isinstance(strength, int | float):
        return strength
    return tuple(strength)


def share(name: str, value: float) -> float:
    """Check a share and return it.

    Args:
        name: of the option, for the message.
        value: the share.

    Returns:
        The share.

    Raises:
        InputError: it is no number within [0, 1].
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise InputError(f"noise.{name}", value, "must be a share, a number within 0..1")
    return value


def uniform_like(
    image: Tensor,
    generator: torch.Generator,
    channels: int | None = None,
) -> Tensor:
    """Draw numbers that are uniform in [0, 1).

    Args:
        image: a batch, (B, C, H, W) or (B, C, D, H, W).
        generator: of the random numbers, on the device of the image.
        channels: of the result; None: those of the batch.

    Returns:
        In the shape of the batch, but for the number of channels.
    """
    count, own_channels, *size = image.shape
    shape = (count, channels or own_channels, *size)
    return torch.rand(shape, generator=generator, device=image.device)


def normal_like(image: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers.

    Args:
        image: a batch of any shape.
        generator: of the random numbers, on the device of the image.

    Returns:
        In the shape of the batch.
    """
    return torch.randn(image.shape, generator=generator, device=image.device)


def with_gaussian(
    image: Tensor,
    sigma: Strength,
    generator: torch.Generator,
) -> Tensor:
    """Add white normal noise to a batch.

    Args:
        image: (B, C, H, W) or (B, C, D, H, W).
        sigma: standard deviation in units of 1/255, drawn for each image.
        generator: of the random numbers, on the device of the image.

    Returns:
        In the shape of the batch.
    """
    deviation = drawn(sigma, image, generator) / 255
    return image + deviation * normal_like(image, generator)
