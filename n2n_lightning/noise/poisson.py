"""Photon counts."""

import torch
from torch import Tensor

from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn


class Poisson(Noise):
    """noisy = k / peak, k ~ Poisson(peak * clean): photon counts; mean clean, variance clean / peak (the paper, 3.2).

    Args:
        peak: expected photons of a white pixel, the paper's lambda.
    """

    def __init__(self, peak: Strength = 30.0, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.peak = checked_strength("peak", peak, 0.001, 1e6)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        peak = drawn(self.peak, image, generator)
        return torch.poisson(image.clamp(min=0) * peak, generator=generator) / peak
