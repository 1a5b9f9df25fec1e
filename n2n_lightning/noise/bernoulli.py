"""Missing pixels."""

import torch
from torch import Tensor

from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn, uniform_like


class Bernoulli(Noise):
    """noisy = m * clean, m = 0 with probability p, else 1, for all channels of a pixel together (the paper, 3.2).

    The input has 0 where a pixel is missing. The target has NaN there, so that the losses do not
    count it: that is the paper's masked loss, and leaves a mean of the clean image over the pixels
    that are present.

    Args:
        p: probability that a pixel is missing.
        masked: mark missing target pixels; without it they are 0 and the network learns (1 - p) *
            clean.

    >>> from n2n_lightning.randomness import generator
    >>> image = torch.ones(1, 1, 100, 100)
    >>> half = Bernoulli(0.5)
    >>> half(image, generator(0)).min().item(), half.target(image, generator(0)).isnan().any().item()
    (0.0, True)
    """

    def __init__(self, p: Strength = 0.5, masked: bool = True, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.p, self.masked = checked_strength("p", p, 0, 1), masked

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return image * self._present(image, generator)

    def target(self, image: Tensor, generator: torch.Generator) -> Tensor:
        present = self._present(image, generator)
        return torch.where(present, image, torch.nan if self.masked else 0.0)

    def _present(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return uniform_like(image, generator, channels=1) >= drawn(self.p, image, generator)
