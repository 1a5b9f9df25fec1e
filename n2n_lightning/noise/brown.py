"""Spatially correlated normal noise."""

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.files import InputError
from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn


class Brown(Noise):
    """Blurred normal noise: noisy = clean + sigma/255 * (g * n) (the paper, section 3.1).

    White normal noise n is blurred by a Gaussian g with |g|_2 = 1.
    Every value has the standard deviation sigma/255, and neighbours are correlated: exp(-d^2 / (4
    width^2)) at the distance d, in pixels.

    Args:
        sigma: standard deviation in units of 1/255.
        width: standard deviation of the blur in pixels.
    """

    def __init__(
        self,
        sigma: Strength = 25.0,
        width: float = 1.5,
        frozen: bool = False,
    ) -> None:
        super().__init__(frozen)
        self.sigma = checked_strength("sigma", sigma, 0, 255)
        if not 0 < width <= 50:
            raise InputError("noise.width", width, "must be larger than 0 and at most 50 pixels")
        self.width = width

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        width = torch.full((1,), self.width, device=image.device)
        brown = blurred_normal(image, width, generator, self.width)
        deviation = drawn(self.sigma, image, generator) / 255
        return image + deviation * brown


def blurred_normal(
    image: Tensor,
    width: Tensor,
    generator: torch.Generator,
    widest: float,
) -> Tensor:
    """Draw white normal noise and blur it by a Gaussian, to a standard deviation of 1.

    Args:
        image: a batch, (B, C, H, W).
        width: standard deviation of the Gaussian in pixels, (1,) or (B,).
        generator: of the random numbers, on the device of the image.
        widest: no width is larger. The CPU takes the largest of the batch, which is less work; to
            read it would make a GPU wait.

    Returns:
        In the shape of the batch.
    """
    count, channels, rows, columns = image.shape
    planes = count * channels
    if image.device.type == "cpu":
        widest = float(width.max())
    radius = int(4 * widest) + 1
    kernel = _gaussian_kernels(width, radius)
    kernel = kernel.repeat_interleave(planes // len(width), 0)
    vertical = kernel[:, None, :, None]
    horizontal = kernel[:, None, None, :]
    margin = 2 * radius
    shape = (1, planes, rows + margin, columns + margin)
    white = torch.randn(shape, generator=generator, device=image.device)
    blurred = F.conv2d(white, vertical, groups=planes)
    blurred = F.conv2d(blurred, horizontal, groups=planes)
    return blurred.view(image.shape)


def _gaussian_kernels(width: Tensor, radius: int) -> Tensor:
    """Return Gaussians g with |g|_2 = 1, of standard deviations (n,): (n, 2 * radius + 1)."""
    distance = torch.arange(-radius, radius + 1, device=width.device)
    deviations = distance / width.clamp(min=0.1)[:, None]
    kernel = (-0.5 * deviations**2).exp()
    return kernel / kernel.norm(dim=1, keepdim=True)
