"""Photon counts."""

import torch
from torch import Tensor

from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn


class Poisson(Noise):
    """Photon counts: noisy = k / peak, k ~ Poisson(peak * clean) (the paper, section 3.2).

    Mean clean, variance clean / peak.

    Args:
        peak: expected photons of a white pixel, the paper's lambda.
    """

    def __init__(self, peak: Strength = 30.0, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.peak = checked_strength("peak", peak, 0.001, 1e6)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        peak = drawn(self.peak, image, generator)
        photons = torch.poisson(image.clamp(min=0) * peak, generator=generator)
        return photons / peak
