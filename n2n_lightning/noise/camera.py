"""What a camera makes of light."""

from collections.abc import Callable

import torch
from torch import Tensor

from n2n_lightning import axes
from n2n_lightning.noise.base import Noise, Strength, checked, drawn, ends, share
from n2n_lightning.noise.brown import blurred_normal


class Camera(Noise):
    """noisy = clean + s(clean)/255 * (g * n), s^2 = sigma^2 (1 - shot + 2 shot clean): what a camera makes of light.

    Read and shot noise (Foi et al., IEEE TIP 2008, in its normal approximation), blurred by a Gaussian g as
    demosaicking blurs it, |g|_2 = 1, a share of it common to all channels as white balance and colour matrices make
    it. For blind denoising of photographs: give ranges.

    Args:
        sigma: standard deviation at mid-grey, in units of 1/255; of a range, weak noise is drawn more often than strong
            noise: lowest + (highest - lowest) u^2, u ~ U(0, 1).
        shot: share of the variance at mid-grey that is shot noise, which grows with the light; 0 to 1.
        width: standard deviation of the blur in pixels; 0 leaves the noise white.
        shared: share of the variance that all channels have in common; 0 to 1.
        developed: share of the images whose noise is then developed, at random: up to 80% of a channel's variance is
            blurred by 1.5 to 3.5 pixels more, its deviation multiplied by 0.67 to 1.5, and up to 80% of it gone at
            white; 0 to 1.
    """

    def __init__(
        self,
        sigma: Strength = (0, 50),
        shot: Strength = (0, 1),
        width: Strength = (0, 1),
        shared: Strength = (0, 1),
        developed: float = 0.0,
        frozen: bool = False,
    ) -> None:
        super().__init__(frozen)
        self.developed = share("developed", developed)
        self.sigma = checked("sigma", sigma, 0, 255)
        self.shot, self.shared = checked("shot", shot, 0, 1), checked("shared", shared, 0, 1)
        self.width = checked("width", width, 0, 50)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        low, high = ends(self.sigma)
        sigma = low + (high - low) * drawn((0, 1), image, generator).square()
        shot, shared = drawn(self.shot, image, generator), drawn(self.shared, image, generator)
        width = drawn(self.width, image, generator).flatten()
        return camera_noise(image, sigma / 255, shot, shared, width, generator, self.developed)


def camera_noise(
    image: Tensor,
    sigma: Tensor,
    shot: Tensor,
    shared: Tensor,
    width: Tensor,
    generator: torch.Generator,
    developed: float = 0.0,
) -> Tensor:
    """A batch with the noise of `Camera`; strengths in the shape that they have beside the batch, width (B,)."""
    own = blurred_normal(image, width, generator)
    common = blurred_normal(image[:, :1], width, generator)
    strength = sigma * (1 - shot + 2 * shot * image).clamp(min=0).sqrt()
    if developed:
        chosen = axes.per_image(torch.rand(len(image), generator=generator, device=image.device), image) < developed
        coarser, gain = _development(image, generator)
        own, common = (torch.where(chosen, coarser(part), part) for part in (own, common))
        strength = torch.where(chosen, gain * strength, strength)
    return image + strength * ((1 - shared).sqrt() * own + shared.sqrt() * common)


def _development(image: Tensor, generator: torch.Generator) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """What developing a picture makes of its noise, at random: how it becomes coarser, and by what it is multiplied.

    A sensor has one colour at each pixel, and what lies between is interpolated, from fewer pixels for red and blue
    than for green; cameras smooth colours further. So some channels are coarser than others, here any of them. White
    balance multiplies them by different factors; a tone curve is flat towards white.
    """

    def uniform(channels: int, low: float, high: float) -> Tensor:
        u = torch.rand(len(image), channels, generator=generator, device=image.device)
        return (low + (high - low) * u).reshape(len(image), channels, *[1] * len(axes.size(image)))

    width, most = uniform(1, 1.5, 3.5).flatten(), uniform(1, 0, 0.8)

    def coarser(grain: Tensor) -> Tensor:
        coarse = most * uniform(grain.shape[1], 0, 1)
        return (1 - coarse).sqrt() * grain + coarse.sqrt() * blurred_normal(grain, width, generator)

    balance = 1.5 ** uniform(image.shape[1], -1, 1)
    return coarser, balance * (1 - uniform(1, 0, 0.8) * image.clamp(0, 1))
