"""White normal noise."""

import torch
from torch import Tensor

from n2n_lightning.noise.base import Noise, Strength, checked_strength, with_gaussian


class Gaussian(Noise):
    """White normal noise: noisy = clean + sigma/255 * n, n ~ N(0, 1) (the paper, section 3.1).

    Independent for every value.

    Args:
        sigma: standard deviation in units of 1/255.

    >>> from n2n_lightning.randomness import generator
    >>> grey = torch.full((1, 1, 256, 256), 0.5)
    >>> noisy = Gaussian(25)(grey, generator("example"))
    >>> round(noisy.std().item() * 255), round(noisy.mean().item(), 2)
    (25, 0.5)
    """

    def __init__(self, sigma: Strength = 25.0, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.sigma = checked_strength("sigma", sigma, 0, 255)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return with_gaussian(image, self.sigma, generator)
