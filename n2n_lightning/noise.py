"""Corruptions: what turns a clean image into a noisy one.

Each is a callable `noise(image, generator)`: float images (B, C, H, W), values in [0, 1], in; the noisy images out,
never clipped or rounded, because clipping moves the mean of the noise away from zero and Noise2Noise then learns a
biased image (Lehtinen et al., ICML 2018, section 2; "the paper" below). All randomness comes from the generator that is
passed in, which lives on the device of the image; two calls with it give two independent draws.

A strength is a number, or a range [lowest, highest] from which each image draws its own ("blind" denoising).
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Strength = float | Sequence[float]


def generator(*key: Any, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose numbers depend on `key` alone: the same key gives the same bits in every process.

    A key such as (seed, "noise", epoch, batch) makes every draw a pure function of where it is used, so that a resumed
    run, or one with other data loader workers, draws what an uninterrupted one draws.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


class Noise:
    """The base of all corruptions; one noisy pixel stands for `block` x `block` pixels of the photograph.

    Args:
        frozen: each training image keeps one fixed pair, as in the report, instead of new noise in every epoch.
    """

    block: int = 1

    def __init__(self, frozen: bool = False) -> None:
        self.frozen = frozen

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """A noisy version of `image`: (B, C, block*H, block*W) -> (B, C, H, W)."""
        raise NotImplementedError

    def target(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """A noisy version to train towards; pixels that it does not have are NaN."""
        return self(image, generator)

    def clean(self, image: Tensor) -> Tensor:
        """What training approaches and validation compares with: (B, C, H, W)."""
        return image


def _drawn(strength: Strength, image: Tensor, generator: torch.Generator) -> Tensor:
    """The strength of each image of the batch: (B, 1, 1, 1)."""
    low, high = _range(strength)
    u = torch.rand(len(image), 1, 1, 1, generator=generator, device=image.device)
    return low + (high - low) * u


def _range(strength: Strength) -> tuple[float, float]:
    if isinstance(strength, int | float):
        return strength, strength
    low, high = strength
    return low, high


def _checked(name: str, strength: Strength, least: float, most: float) -> Strength:
    """The strength itself; raises ValueError unless it is a number or a range within [least, most]."""
    try:
        low, high = _range(strength)
        valid = least <= low <= high <= most
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"noise.{name}={strength}: must be a number or a range [a, b] within {least:g}..{most:g}")
    return strength if isinstance(strength, int | float) else tuple(strength)


def _uniform_like(image: Tensor, generator: torch.Generator, channels: int | None = None) -> Tensor:
    b, c, h, w = image.shape
    return torch.rand(b, channels or c, h, w, generator=generator, device=image.device)


def _normal_like(image: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(image.shape, generator=generator, device=image.device)


def _with_gaussian(image: Tensor, sigma: Strength, generator: torch.Generator) -> Tensor:
    return image + _drawn(sigma, image, generator) / 255 * _normal_like(image, generator)


class Pixelate(Noise):
    """noisy[y, x] = photo[block*y + dy, block*x + dx], (dy, dx) uniform over the block: one sample of each block.

    The corruption of the report's data, as measured on recovered samples of them (block 7, 224 x 224 photographs): a
    one-sample-per-pixel Monte Carlo estimate of the block mean. Zero mean, white, strongest at edges, not Gaussian.
    All channels of a pixel come from the same sample.

    Args:
        block: height and width of a block, in pixels of the photograph.
        sigma: standard deviation of Gaussian noise on top, in units of 1/255.
    """

    def __init__(self, block: int = 7, sigma: Strength = 0.0, frozen: bool = False) -> None:
        super().__init__(frozen)
        if not isinstance(block, int) or block < 1:
            raise ValueError(f"noise.block={block}: must be a whole number, 1 or more")
        self.block = block
        self.sigma = _checked("sigma", sigma, 0, 255)

    def offsets(self, count: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
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
        return sampled if self.sigma == 0 else _with_gaussian(sampled, self.sigma, generator)

    def clean(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(image, self.block)


class Gaussian(Noise):
    """noisy = clean + sigma/255 * n, n ~ N(0, 1), independent for every value (the paper, section 3.1).

    Args:
        sigma: standard deviation in units of 1/255.
    """

    def __init__(self, sigma: Strength = 25.0, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.sigma = _checked("sigma", sigma, 0, 255)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return _with_gaussian(image, self.sigma, generator)


class Brown(Noise):
    """noisy = clean + sigma/255 * (g * n): white normal noise n, blurred by a Gaussian g, |g|_2 = 1 (the paper, 3.1).

    Every value has the standard deviation sigma/255, and neighbours are correlated: exp(-d^2 / (4 width^2)) at the
    distance d, in pixels.

    Args:
        sigma: standard deviation in units of 1/255.
        width: standard deviation of the blur in pixels.
    """

    def __init__(self, sigma: Strength = 25.0, width: float = 1.5, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.sigma = _checked("sigma", sigma, 0, 255)
        if not 0 < width <= 50:
            raise ValueError(f"noise.width={width}: must be larger than 0 and at most 50 pixels")
        self.width = width

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        brown = _blurred_normal(image, torch.tensor([self.width], device=image.device), generator)
        return image + _drawn(self.sigma, image, generator) / 255 * brown


def _blurred_normal(image: Tensor, width: Tensor, generator: torch.Generator) -> Tensor:
    """White normal noise like `image`, blurred by a Gaussian of `width` (1,) or (B,) pixels; standard deviation 1."""
    b, c, h, w = image.shape
    radius = int(4 * float(width.max())) + 1
    distance = torch.arange(-radius, radius + 1, device=image.device)
    kernel = (-0.5 * (distance / width.clamp(min=0.1)[:, None]) ** 2).exp()
    kernel = (kernel / kernel.norm(dim=1, keepdim=True)).repeat_interleave(b * c // len(width), 0)[:, None]
    white = torch.randn(1, b * c, h + 2 * radius, w + 2 * radius, generator=generator, device=image.device)
    blurred = F.conv2d(white, kernel[..., None], groups=b * c)
    return F.conv2d(blurred, kernel[..., None, :], groups=b * c).view(b, c, h, w)


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
    """

    def __init__(
        self,
        sigma: Strength = (0, 50),
        shot: Strength = (0, 1),
        width: Strength = (0, 1),
        shared: Strength = (0, 1),
        frozen: bool = False,
    ) -> None:
        super().__init__(frozen)
        self.sigma = _checked("sigma", sigma, 0, 255)
        self.shot, self.shared = _checked("shot", shot, 0, 1), _checked("shared", shared, 0, 1)
        self.width = _checked("width", width, 0, 50)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        low, high = _range(self.sigma)
        sigma = low + (high - low) * _drawn((0, 1), image, generator).square()
        shot, shared = _drawn(self.shot, image, generator), _drawn(self.shared, image, generator)
        width = _drawn(self.width, image, generator).flatten()
        own = _blurred_normal(image, width, generator)
        common = _blurred_normal(image[:, :1], width, generator)
        strength = sigma / 255 * (1 - shot + 2 * shot * image).clamp(min=0).sqrt()
        return image + strength * ((1 - shared).sqrt() * own + shared.sqrt() * common)


class Poisson(Noise):
    """noisy = k / peak, k ~ Poisson(peak * clean): photon counts; mean clean, variance clean / peak (the paper, 3.2).

    Args:
        peak: expected photons of a white pixel, the paper's lambda.
    """

    def __init__(self, peak: Strength = 30.0, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.peak = _checked("peak", peak, 0.001, 1e6)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        peak = _drawn(self.peak, image, generator)
        return torch.poisson(image.clamp(min=0) * peak, generator=generator) / peak


class Bernoulli(Noise):
    """noisy = m * clean, m = 0 with probability p, else 1, for all channels of a pixel together (the paper, 3.2).

    The input has 0 where a pixel is missing. The target has NaN there, so that the losses do not count it: that is the
    paper's masked loss, and leaves a mean of the clean image over the pixels that are present.

    Args:
        p: probability that a pixel is missing.
        masked: mark missing target pixels; without it they are 0 and the network learns (1 - p) * clean.
    """

    def __init__(self, p: Strength = 0.5, masked: bool = True, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.p, self.masked = _checked("p", p, 0, 1), masked

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return image * self._present(image, generator)

    def target(self, image: Tensor, generator: torch.Generator) -> Tensor:
        present = self._present(image, generator)
        return torch.where(present, image, torch.nan if self.masked else 0.0)

    def _present(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return _uniform_like(image, generator, channels=1) >= _drawn(self.p, image, generator)


class Impulse(Noise):
    """noisy = u with probability p, else clean; u ~ U(0, 1) per channel: random-valued impulses (the paper, 3.2).

    Its mean is not the clean image, its mode is: train with loss=l0.

    Args:
        p: probability that a pixel, all its channels together, is replaced.
    """

    def __init__(self, p: Strength = 0.5, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.p = _checked("p", p, 0, 1)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        hit = _uniform_like(image, generator, channels=1) < _drawn(self.p, image, generator)
        return torch.where(hit, _uniform_like(image, generator), image)


class Text(Noise):
    """noisy = clean, overlaid with random strings until they cover about a share p of the pixels (the paper, 3.2).

    Place, size and colour are random, font and direction are fixed; strings lie on top of one another. Its mean is not
    the clean image, its median is while less than half is covered: train with loss=l1.

    Args:
        p: share of the pixels that is covered; passed by less than one string.
        heights: smallest and largest font size in pixels.
    """

    LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

    def __init__(self, p: Strength = 0.25, heights: Sequence[int] = (8, 24), frozen: bool = False) -> None:
        super().__init__(frozen)
        self.p, self.heights = _checked("p", p, 0, 0.95), (heights[0], heights[1])
        if not 4 <= heights[0] <= heights[1] <= 200:
            raise ValueError(f"noise.heights={list(heights)}: must be two font sizes, 4 <= smallest <= largest <= 200")

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        b, c, h, w = image.shape
        strings = _strings(self.heights).to(image.device)
        count, height, width = strings.shape
        wanted = _drawn(self.p, image, generator)
        covered = torch.zeros(b, 1, h, w, dtype=torch.bool, device=image.device)
        rows, columns = torch.arange(h, device=image.device), torch.arange(w, device=image.device)
        while (short := covered.float().mean((1, 2, 3), keepdim=True) < wanted).any():
            u = torch.rand(3, b, 1, generator=generator, device=image.device)
            which = (u[0] * count).long()
            y = rows - (u[1] * (h + height)).long() + height  # (B, H), the row of the string at each row of the image
            x = columns - (u[2] * (w + width)).long() + width
            inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
            ink = strings[which[:, :, None], y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]]
            ink = (ink & inside)[:, None] & short
            colour = torch.rand(b, c, 1, 1, generator=generator, device=image.device)
            image, covered = torch.where(ink, colour, image), covered | ink
        return image


@functools.cache
def _strings(heights: tuple[int, int], count: int = 64) -> Tensor:
    """Masks of random strings in Pillow's own font, bool (count, height, width), each in the top left corner."""
    from PIL import Image, ImageDraw, ImageFont

    draws = generator("strings", heights)
    masks = []
    for i in range(count):
        letters = torch.randint(len(Text.LETTERS), (int(torch.randint(3, 12, (1,), generator=draws)),), generator=draws)
        text = "".join(Text.LETTERS[k] for k in letters)
        size = heights[0] + (heights[1] - heights[0]) * i / (count - 1)
        font = ImageFont.load_default(size)
        left, top, right, bottom = font.getbbox(text)
        canvas = Image.new("1", (int(right - left) + 1, int(bottom - top) + 1))
        ImageDraw.Draw(canvas).text((-left, -top), text, fill=1, font=font)
        masks.append(torch.from_numpy(np.array(canvas)))
    height, width = max(m.shape[0] for m in masks), max(m.shape[1] for m in masks)
    return torch.stack([F.pad(m, (0, width - m.shape[1], 0, height - m.shape[0])) for m in masks])


class KSpace(Noise):
    """noisy = F^-1(m F(clean) / p), m ~ Bernoulli(p(k)), p(k) = exp(-decay |k|): MRI from few samples (the paper, 3.4).

    Each frequency k of the spectrum, in cycles per image, is measured with probability p(k) and weighted by 1/p(k), so
    that the mean over draws is the clean image. Real images have a symmetric spectrum: one half is drawn.

    Args:
        decay: 0.03 keeps about a tenth of the spectrum of a 256 x 256 image.
    """

    def __init__(self, decay: Strength = 0.03, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.decay = _checked("decay", decay, 0, 1)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        h, w = image.shape[-2:]
        ky = torch.fft.fftfreq(h, 1 / h, device=image.device)[:, None]
        kx = torch.fft.rfftfreq(w, 1 / w, device=image.device)
        p = (-_drawn(self.decay, image, generator) * (ky**2 + kx**2).sqrt()).exp()
        measured = torch.rand(p.shape, generator=generator, device=image.device) < p
        return torch.fft.irfft2(torch.fft.rfft2(image) * (measured / p), s=(h, w))
