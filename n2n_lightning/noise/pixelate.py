"""The corruption of the report: one sample of each block."""

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.files import InputError
from n2n_lightning.noise.base import Noise, Strength, checked_strength, with_gaussian


class Pixelate(Noise):
    """One random sample of each block: noisy[y, x] = photo[block * y + dy, block * x + dx].

    (dy, dx) is uniform over the block, and the same for all channels. The corruption of the
    report's data, as measured on recovered samples of them (block 7, 224 x 224 photographs): a
    Monte Carlo estimate of the block mean with one sample per pixel. Zero mean, white, strongest at
    edges, not Gaussian.

    Args:
        block: height and width of a block, in pixels of the photograph.
        sigma: standard deviation of Gaussian noise on top, in units of 1/255.
    """

    def __init__(
        self,
        block: int = 7,
        sigma: Strength = 0.0,
        frozen: bool = False,
    ) -> None:
        super().__init__(frozen)
        if not isinstance(block, int) or block < 1:
            raise InputError("noise.block", block, "must be a whole number, 1 or more")
        self.block = block
        self.sigma = checked_strength("sigma", sigma, 0, 255)

    def offsets(
        self,
        count: int,
        height: int,
        width: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Draw the place in its block at which each noisy pixel is sampled.

        Args:
            count: of the images.
            height: of the noisy images.
            width: of the noisy images.
            generator: of the random numbers.

        Returns:
            dy and dx, each (count, height, width), in 0..block-1.
        """
        size = (2, count, height, width)
        dy, dx = torch.randint(self.block, size, generator=generator, device=generator.device)
        return dy, dx

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        b, c, height, width = image.shape
        h = height // self.block
        w = width // self.block
        dy, dx = self.offsets(b, h, w, generator)
        first_rows = self.block * torch.arange(h, device=image.device)
        first_columns = self.block * torch.arange(w, device=image.device)
        y = first_rows[:, None] + dy
        x = first_columns + dx
        index = (y * width + x).flatten(1)
        index = index[:, None].expand(-1, c, -1)
        sampled = image.flatten(2).gather(2, index)
        return self.on_top(sampled.view(b, c, h, w), generator)

    def on_top(self, sampled: Tensor, generator: torch.Generator) -> Tensor:
        """Add the Gaussian noise of deviation `sigma` to sampled images.

        Args:
            sampled: (B, C, H, W), values in [0, 1].
            generator: of the random numbers, on the device of the images.

        Returns:
            In that shape; without a draw where sigma is 0.
        """
        if self.sigma == 0:
            return sampled
        return with_gaussian(sampled, self.sigma, generator)

    def clean(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(image, self.block)
