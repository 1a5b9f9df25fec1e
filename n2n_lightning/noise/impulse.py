"""Pixels replaced by random colours."""

import torch
from torch import Tensor

from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn, uniform_like


class Impulse(Noise):
    """noisy = u with probability p, else clean; u ~ U(0, 1) per channel: random-valued impulses (the paper, 3.2).

    Its mean is not the clean image, its mode is: train with loss=l0.

    Args:
        p: probability that a pixel, all its channels together, is replaced.
    """

    def __init__(self, p: Strength = 0.5, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.p = checked_strength("p", p, 0, 1)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        hit = uniform_like(image, generator, channels=1) < drawn(self.p, image, generator)
        return torch.where(hit, uniform_like(image, generator), image)
