"""Corruptions, which turn a clean image into a noisy one.

Each is a callable `noise(image, generator)`: float images (B, C, H, W), values in [0, 1], in; the
noisy images out, never clipped or rounded, because clipping moves the mean of the noise away from
zero and Noise2Noise then learns a biased image (Lehtinen et al., ICML 2018, section 2; "the paper"
below). All randomness comes from the generator that is passed in, which lives on the device of the
image; two calls with it give two independent draws.

A strength is a number, or a range [lowest, highest] from which each image draws its own ("blind"
denoising).
"""

from n2n_lightning.noise.base import Noise, Strength
from n2n_lightning.noise.bernoulli import Bernoulli
from n2n_lightning.noise.brown import Brown
from n2n_lightning.noise.camera import Camera
from n2n_lightning.noise.gaussian import Gaussian
from n2n_lightning.noise.impulse import Impulse
from n2n_lightning.noise.kspace import KSpace
from n2n_lightning.noise.pixelate import Pixelate
from n2n_lightning.noise.poisson import Poisson
from n2n_lightning.noise.text import Text
from n2n_lightning.noise.varied import Varied

__all__ = [
    "Bernoulli",
    "Brown",
    "Camera",
    "Gaussian",
    "Impulse",
    "KSpace",
    "Noise",
    "Pixelate",
    "Poisson",
    "Strength",
    "Text",
    "Varied",
]
