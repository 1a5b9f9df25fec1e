"""Corruptions: what turns a clean image into a noisy one.

Each is a callable `noise(image, generator)`: float images (B, C, H, W), values in [0, 1], in; the noisy images out,
never clipped or rounded, because clipping moves the mean of the noise away from zero and Noise2Noise then learns a
biased image (Lehtinen et al., ICML 2018, section 2). All randomness comes from the generator that is passed in, which
lives on the device of the image; two calls with it give two independent draws.
"""

import hashlib
from typing import Any

import torch
from torch import Tensor


def generator(*key: Any, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose numbers depend on `key` alone: the same key gives the same bits in every process.

    A key such as (seed, "noise", epoch, batch) makes every draw a pure function of where it is used, so that a resumed
    run, or one with other data loader workers, draws what an uninterrupted one draws.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


class Noise:
    """The base of all corruptions; one noisy pixel stands for `block` x `block` pixels of the photograph."""

    block: int = 1

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """A noisy version of `image`: (B, C, block*H, block*W) -> (B, C, H, W)."""
        raise NotImplementedError

    def clean(self, image: Tensor) -> Tensor:
        """The mean of the noisy versions of `image`, which training approaches: (B, C, H, W)."""
        return image


class Pixelate(Noise):
    """noisy[y, x] = photo[block*y + dy, block*x + dx], (dy, dx) uniform over the block: one sample of each block.

    The corruption of the report's data, as measured on recovered samples of them (block 7, 224 x 224 photographs): a
    one-sample-per-pixel Monte Carlo estimate of the block mean. Zero mean, white, strongest at edges, not Gaussian.
    All channels of a pixel come from the same sample.
    """

    def __init__(self, block: int = 7) -> None:
        if block < 1:
            raise ValueError(f"noise.block={block}: must be 1 or more")
        self.block = block

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
        return image.flatten(2).gather(2, index).view(b, c, h, w)

    def clean(self, image: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(image, self.block)
