"""What the corruptions have in common: their randomness and their strengths."""

from collections.abc import Sequence

import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.files import InputError

Strength = float | Sequence[float]


class Noise:
    """The base of all corruptions; one noisy pixel stands for `block` x `block` pixels of the photograph.

    Args:
        frozen: each training image keeps one fixed pair, as in the report, instead of new noise in
            every epoch.
    """

    block: int = 1
    blind: bool = False  # of so many kinds and strengths that a network has to guess which

    def __init__(self, frozen: bool = False) -> None:
        self.frozen = frozen

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """A noisy version of `image`: (B, C, block*H, block*W) -> (B, C, H, W)."""
        raise NotImplementedError

    def target(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """A noisy version to train towards; pixels that it does not have are NaN."""
        return self(image, generator)

    def clean(self, image: Tensor) -> Tensor:
        """What training approaches and validation compares with: (B, C, H, W)."""
        return image


def drawn(strength: Strength, image: Tensor, generator: torch.Generator) -> Tensor:
    """The strength of each image of the batch, (B,), in the shape that it has beside the batch: (B, 1, 1, 1)."""
    low, high = strength_bounds(strength)
    u = axes.per_image(torch.rand(len(image), generator=generator, device=image.device), image)
    return low + (high - low) * u


def strength_bounds(strength: Strength) -> tuple[float, float]:
    """The lowest and the highest strength.

    >>> strength_bounds(25), strength_bounds([0, 50])
    ((25, 25), (0, 50))
    """
    if isinstance(strength, int | float):
        return strength, strength
    low, high = strength
    return low, high


def checked_strength(name: str, strength: Strength, least: float, most: float) -> Strength:
    """The strength itself; raises InputError unless it is a number or a range within [least, most].

    >>> checked_strength("sigma", [0, 50], 0, 255)
    (0, 50)
    """
    try:
        low, high = strength_bounds(strength)
        valid = least <= low <= high <= most
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise InputError(
            f"noise.{name}",
            strength,
            f"must be a number or a range [a, b] within {least:g}..{most:g}",
        )
    return strength if isinstance(strength, int | float) else tuple(strength)


def share(name: str, value: float) -> float:
    """The share itself; raises InputError unless it is one number within [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"noise.{name}", value, "must be a share, a number within 0..1")
    return value


def uniform_like(image: Tensor, generator: torch.Generator, channels: int | None = None) -> Tensor:
    """Uniform in [0, 1), in the shape of a batch; with `channels` the shape has so many of them."""
    shape = (len(image), channels or image.shape[1], *axes.size(image))
    return torch.rand(shape, generator=generator, device=image.device)


def normal_like(image: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal, in the shape of a batch."""
    return torch.randn(image.shape, generator=generator, device=image.device)


def with_gaussian(image: Tensor, sigma: Strength, generator: torch.Generator) -> Tensor:
    """A batch with white normal noise of standard deviation sigma/255 on it, a sigma of its own for each image."""
    return image + drawn(sigma, image, generator) / 255 * normal_like(image, generator)
