"""Missing pixels."""

import torch
from torch import Tensor

from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn, uniform_like


class Bernoulli(Noise):
    """Missing pixels: noisy = m * clean, m = 0 with probability p, else 1 (the paper, section 3.2).

    All channels of a pixel are missing together.
    The input is 0 where a pixel is missing. The target is NaN there, so that the losses do not
    count it: the paper's masked loss.

    Args:
        p: probability that a pixel is missing.
        masked: mark missing pixels of the target with NaN; without it they are 0 and the network
            learns (1 - p) * clean.

    >>> from n2n_lightning.randomness import generator
    >>> image = torch.ones(1, 1, 100, 100)
    >>> half = Bernoulli(0.5)
    >>> half(image, generator(0)).min().item()
    0.0
    >>> half.target(image, generator(0)).isnan().any().item()
    True
    """

    def __init__(
        self,
        p: Strength = 0.5,
        masked: bool = True,
        frozen: bool = False,
    ) -> None:
        super().__init__(frozen)
        self.p = checked_strength("p", p, 0, 1)
        self.masked = masked

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return image * self._present(image, generator)

    def target(self, image: Tensor, generator: torch.Generator) -> Tensor:
        present = self._present(image, generator)
        missing = torch.nan if self.masked else 0.0
        return torch.where(present, image, missing)

    def _present(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the pixels that are not missing: bool, (B, 1, H, W)."""
        draws = uniform_like(image, generator, channels=1)
        return draws >= drawn(self.p, image, generator)
