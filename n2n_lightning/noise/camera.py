"""Noise of cameras."""

from typing import NamedTuple

import torch
from torch import Tensor

from n2n_lightning.noise.base import (
    Noise,
    Strength,
    checked_strength,
    drawn,
    share,
    strength_bounds,
)
from n2n_lightning.noise.brown import blurred_normal


class Camera(Noise):
    """Read and shot noise of a camera, blurred and correlated between the channels.

    noisy = clean + s(clean)/255 * (g * n), s^2 = sigma^2 (1 - shot + 2 shot clean): the normal
    approximation of Foi et al. (IEEE TIP 2008). A Gaussian g, |g|_2 = 1, blurs the noise as
    demosaicking does; a share is common to all channels, as white balance and colour matrices make
    it. For blind denoising of photographs: give ranges.

    Args:
        sigma: standard deviation at mid-grey, in units of 1/255; of a range, weak noise is drawn
            more often than strong noise: lowest + (highest - lowest) u^2, u ~ U(0, 1).
        shot: share of the variance at mid-grey that is shot noise, which grows with the light; 0 to
            1.
        width: standard deviation of the blur in pixels; 0 leaves the noise white.
        shared: share of the variance that all channels have in common; 0 to 1.
        developed: share of the images whose noise is that of developed pictures: coarse in its
            colours, stronger in some channels than in others, weaker towards white (see
            _developed); 0 to 1.
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
        self.sigma = checked_strength("sigma", sigma, 0, 255)
        self.shot = checked_strength("shot", shot, 0, 1)
        self.shared = checked_strength("shared", shared, 0, 1)
        self.width = checked_strength("width", width, 0, 50)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        low, high = strength_bounds(self.sigma)
        share_of_range = drawn((0, 1), image, generator).square()
        sigma = low + (high - low) * share_of_range
        shot = drawn(self.shot, image, generator)
        shared = drawn(self.shared, image, generator)
        width = BlurWidth.drawn(self.width, image, generator)
        return camera_noise(image, sigma / 255, shot, shared, width, generator, self.developed)


class BlurWidth(NamedTuple):
    """Standard deviations of a blur in pixels.

    Attributes:
        each: of each image, (B,).
        widest: none is larger.
    """

    each: Tensor
    widest: float

    @classmethod
    def drawn(cls, width: Strength, image: Tensor, generator: torch.Generator) -> "BlurWidth":
        """Draw a width for each image of a batch, see base.drawn."""
        _, widest = strength_bounds(width)
        return cls(drawn(width, image, generator).flatten(), widest)


def camera_noise(
    image: Tensor,
    sigma: Tensor,
    shot: Tensor,
    shared: Tensor,
    width: BlurWidth,
    generator: torch.Generator,
    developed: float = 0.0,
) -> Tensor:
    """Add the noise of a `Camera` to a batch.

    Args:
        image: (B, C, H, W).
        sigma: standard deviation at mid-grey, (B, 1, 1, 1), in units of white.
        shot: share of the variance at mid-grey that is shot noise, (B, 1, 1, 1).
        shared: share of the variance that all channels have in common, (B, 1, 1, 1).
        width: of the blur.
        generator: of the random numbers, on the device of the image.
        developed: share of the images whose noise is that of developed pictures.

    Returns:
        In the shape of the batch.
    """
    own = blurred_normal(image, width.each, generator, width.widest)
    common = blurred_normal(image[:, :1], width.each, generator, width.widest)
    variance = 1 - shot + 2 * shot * image
    strength = sigma * variance.clamp(min=0).sqrt()
    if developed:
        chosen = drawn((0, 1), image, generator) < developed
        coarser, gain = _developed(own, image, generator)
        own = torch.where(chosen, coarser, own)
        strength = torch.where(chosen, gain * strength, strength)
    own_share = (1 - shared).sqrt()
    noise = own_share * own + shared.sqrt() * common
    return image + strength * noise


def _developed(
    own: Tensor,
    image: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw the noise of developed pictures.

    A sensor has one colour at each pixel and the others are interpolated; cameras smooth colours
    further, because the eye resolves brightness better than colour: half or more of the noise that
    channels do not share becomes noise of colour alone, blurred by 1.2 to 3 pixels. White balance
    multiplies the channels by different factors, 0.67 to 1.5; a tone curve is flat towards white,
    where up to 80% of the deviation is gone.

    Args:
        own: noise that the channels do not share, (B, C, H, W).
        image: the clean batch, in that shape.
        generator: of the random numbers, on the device of the image.

    Returns:
        That noise after development, and a factor for the deviation of all noise.
    """
    images, channels, *size = image.shape
    u = torch.rand(images, channels, generator=generator, device=image.device)
    exponents = 2 * u - 1
    ones = [1] * len(size)
    balance = 1.5 ** exponents.reshape(images, channels, *ones)
    flattened = drawn((0, 0.8), image, generator) * image.clamp(0, 1)
    factor = balance * (1 - flattened)
    if channels == 1:  # no colour
        return own, factor
    width = BlurWidth.drawn((1.2, 3), image, generator)
    colour = blurred_normal(image, width.each, generator, width.widest)
    grey = colour.mean(1, keepdim=True)
    unit = (channels / (channels - 1)) ** 0.5  # without grey the variance is smaller
    colour = (colour - grey) * unit
    coarse = drawn((0.5, 1), image, generator)
    fine = (1 - coarse).sqrt()
    developed = fine * own + coarse.sqrt() * colour
    return developed, factor
