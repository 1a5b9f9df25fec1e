"""Noise of several kinds, with a kind and a strength drawn for each image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.files import InputError
from n2n_lightning.noise.base import (
    Noise,
    Strength,
    checked_strength,
    drawn,
    normal_like,
    share,
    strength_bounds,
)
from n2n_lightning.noise.camera import BlurWidth, camera_noise


class Varied(Noise):
    """Noise for a blind denoiser of pictures of any origin (`experiment=pretrained`).

    Each image has white normal noise, or photon counts with or without read noise (Poisson, then
    normal), or camera noise (noise.Camera, half as strong). Some inputs are then quantised, as in 8
    bit files, and a few are clipped to [0, 1]; targets never, so that their noise has zero mean.
    The noise of an image without colour has none either.

    Args:
        sigma: standard deviation in units of 1/255; of a range, weak noise is drawn more often than
            strong noise: lowest + (highest - lowest) u^1.5, u ~ U(0, 1).
        peak: photons at white, uniform in the logarithm.
        width: standard deviation of the blur of camera noise, in pixels.
        shares: of the images with white noise, with photon counts, and with camera noise.
        steps: share of the inputs that are quantised in steps of 1/255 to 24/255, none coarser than
            the deviation of their noise.
        clipped: share of the inputs that are clipped to [0, 1].
        developed: share of the camera noise that is that of developed pictures, see Camera.
    """

    blind = True

    def __init__(
        self,
        sigma: Strength = (0, 100),
        peak: Strength = (2, 2000),
        width: Strength = (0, 1.2),
        shares: Sequence[float] = (0.4, 0.25, 0.35),
        steps: float = 0.4,
        clipped: float = 0.1,
        developed: float = 0.0,
        frozen: bool = False,
    ) -> None:
        super().__init__(frozen)
        self.sigma = checked_strength("sigma", sigma, 0, 255)
        self.peak = checked_strength("peak", peak, 1e-3, 1e9)
        self.width = checked_strength("width", width, 0, 50)
        self.steps = share("steps", steps)
        self.clipped = share("clipped", clipped)
        self.developed = share("developed", developed)
        if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            reason = "must be three numbers, 0 or more, that add up to 1"
            raise InputError("noise.shares", list(shares), reason)
        self.shares = tuple(shares)

    def target(self, image: Tensor, generator: torch.Generator) -> Tensor:
        low, high = strength_bounds(self.sigma)
        share_of_range = drawn((0, 1), image, generator) ** 1.5
        sigma = (low + (high - low) * share_of_range) / 255
        kind, read, shot, shared = _shares_per_image(4, image, generator)

        least, most = strength_bounds(self.peak)
        logarithms = (math.log(least), math.log(most))
        peak = drawn(logarithms, image, generator).exp()
        expected = image.clamp(min=0) * peak
        counted = torch.poisson(expected, generator=generator) / peak
        read_share = (2 * read - 1).clamp(min=0) ** 2
        read_noise = sigma * read_share
        counted = counted + read_noise * normal_like(image, generator)

        normal, photons, _ = self.shares
        width = BlurWidth.drawn(self.width, image, generator)
        camera = camera_noise(image, sigma / 2, shot, shared, width, generator, self.developed)
        white = image + sigma * normal_like(image, generator)
        noisy = torch.where(kind < normal + photons, counted, camera)
        noisy = torch.where(kind < normal, white, noisy)
        like_first = image == image[:, :1]
        grey = axes.per_image(like_first.flatten(1).all(1), image)
        return torch.where(grey, noisy[:, :1], noisy)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        noisy = self.target(image, generator)
        stored, coarse, clipped = _shares_per_image(3, image, generator)
        noise = (noisy - image).flatten(1)
        deviation = axes.per_image(noise.std(1), image)
        step = torch.minimum(24**coarse / 255, deviation)
        step = step.clamp(min=1 / 255)
        rounded = (noisy / step).round() * step
        noisy = torch.where(stored < self.steps, rounded, noisy)
        return torch.where(clipped < self.clipped, noisy.clamp(0, 1), noisy)


def _shares_per_image(
    count: int,
    image: Tensor,
    generator: torch.Generator,
) -> list[Tensor]:
    """Draw several numbers for each image of a batch, uniform in [0, 1): (B, 1, 1, 1) each."""
    u = torch.rand(count, len(image), generator=generator, device=image.device)
    return [axes.per_image(part, image) for part in u]
