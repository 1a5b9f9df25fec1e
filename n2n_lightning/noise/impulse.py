"""Pixels replaced by random colours."""

import torch
from torch import Tensor

from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn, uniform_like


class Impulse(Noise):
    """Random-valued impulses: noisy = u with probability p, else clean (the paper, section 3.2).

    u ~ U(0, 1), drawn for each channel. The mode of the noisy image is the clean one, its mean is
    not: train with loss=l0.

    Args:
        p: probability that a pixel, all its channels together, is replaced.
    """

    def __init__(self, p: Strength = 0.5, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.p = checked_strength("p", p, 0, 1)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        draws = uniform_like(image, generator, channels=1)
        hit = draws < drawn(self.p, image, generator)
        colours = uniform_like(image, generator)
        return torch.where(hit, colours, image)
