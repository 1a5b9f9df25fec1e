"""Normal noise whose neighbours are alike."""

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.files import InputError
from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn


class Brown(Noise):
    """noisy = clean + sigma/255 * (g * n): white normal noise n, blurred by a Gaussian g, |g|_2 = 1 (the paper, 3.1).

    Every value has the standard deviation sigma/255, and neighbours are correlated: exp(-d^2 / (4
    width^2)) at the distance d, in pixels.

    Args:
        sigma: standard deviation in units of 1/255.
        width: standard deviation of the blur in pixels.
    """

    def __init__(self, sigma: Strength = 25.0, width: float = 1.5, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.sigma = checked_strength("sigma", sigma, 0, 255)
        if not 0 < width <= 50:
            raise InputError("noise.width", width, "must be larger than 0 and at most 50 pixels")
        self.width = width

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        brown = blurred_normal(image, torch.tensor([self.width], device=image.device), generator)
        return image + drawn(self.sigma, image, generator) / 255 * brown


def blurred_normal(image: Tensor, width: Tensor, generator: torch.Generator) -> Tensor:
    """White normal noise like `image`, blurred by a Gaussian of `width` (1,) or (B,) pixels; standard deviation 1."""
    b, c, h, w = image.shape
    radius = int(4 * float(width.max())) + 1
    distance = torch.arange(-radius, radius + 1, device=image.device)
    kernel = (-0.5 * (distance / width.clamp(min=0.1)[:, None]) ** 2).exp()
    kernel = (kernel / kernel.norm(dim=1, keepdim=True)).repeat_interleave(b * c // len(width), 0)[
        :, None
    ]
    white = torch.randn(
        1, b * c, h + 2 * radius, w + 2 * radius, generator=generator, device=image.device
    )
    blurred = F.conv2d(white, kernel[..., None], groups=b * c)
    return F.conv2d(blurred, kernel[..., None, :], groups=b * c).view(b, c, h, w)
