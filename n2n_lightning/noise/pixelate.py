"""The corruption of the report: one sample of each block."""

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.files import InputError
from n2n_lightning.noise.base import Noise, Strength, checked_strength, with_gaussian


class Pixelate(Noise):
    """noisy[y, x] = photo[block*y + dy, block*x + dx], (dy, dx) uniform over the block: one sample of each block.

    The corruption of the report's data, as measured on recovered samples of them (block 7, 224 x
    224 photographs): a one-sample-per-pixel Monte Carlo estimate of the block mean. Zero mean,
    white, strongest at edges, not Gaussian. All channels of a pixel come from the same sample.

    Args:
        block: height and width of a block, in pixels of the photograph.
        sigma: standard deviation of Gaussian noise on top, in units of 1/255.
    """

    def __init__(self, block: int = 7, sigma: Strength = 0.0, frozen: bool = False) -> None:
        super().__init__(frozen)
        if not isinstance(block, int) or block < 1:
            raise InputError("noise.block", block, "must be a whole number, 1 or more")
        self.block = block
        self.sigma = checked_strength("sigma", sigma, 0, 255)

    def offsets(
        self, count: int, height: int, width: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Where in its block each noisy pixel is sampled: dy and dx, each (count, height, width), in 0..block-1."""
        size = (2, count, height, width)
        dy, dx = torch.randint(self.block, size, generator=generator, device=generator.device)
        return dy, dx

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        b, c, height, width = image.shape
        h, w = height // self.block, width // self.block
        dy, dx = self.offsets(b, h, w, generator)
        rows = torch.arange(h, device=image.device)[:, None] * self.block + dy
        columns = torch.arange(w, device=image.device) * self.block + dx
        index = (rows * width + columns).view(b, 1, h * w).expand(b, c, h * w)
        return self.on_top(image.flatten(2).gather(2, index).view(b, c, h, w), generator)

    def on_top(self, sampled: Tensor, generator: torch.Generator) -> Tensor:
        """The Gaussian noise added to samples with values in [0, 1]."""
        return sampled if self.sigma == 0 else with_gaussian(sampled, self.sigma, generator)

    def clean(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(image, self.block)
