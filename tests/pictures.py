"""Pictures, files and fixtures that several tests of denoising share."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from n2n_lightning import load
from n2n_lightning.inference.denoiser import TrainedDenoiser

RNG = np.random.default_rng(0)


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A smooth picture, float (H, W, C), values in 0.1..0.9."""
    coarse = torch.rand(1, channels, 5, 6, generator=torch.Generator().manual_seed(height + width))
    image = nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[
        0
    ]
    return image.clamp(0, 1).permute(1, 2, 0).numpy() * 0.8 + 0.1


def noisy(height: int, width: int, channels: int, dtype: str) -> np.ndarray:
    """The same with noise of 0.05, in a type's own range: (H, W, C), or (H, W) for one channel."""
    image = smooth(height, width, channels) + RNG.normal(0, 0.05, (height, width, channels))
    image = (
        image
        if dtype.startswith("float")
        else (image * np.iinfo(dtype).max).round().clip(0, np.iinfo(dtype).max)
    )
    image = image.astype(dtype)
    return image[..., 0] if channels == 1 else image


@pytest.fixture(scope="module")
def model() -> TrainedDenoiser:
    return load()


class Half(nn.Module):
    """Halves the values, and says what it was shown."""

    multiple = 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 3, 1, 1), 0.5))
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image)
        return image * self.weight


def gain(result: np.ndarray, before: np.ndarray, clean: np.ndarray) -> float:
    """By how many dB a result is closer to the clean picture than what went in."""
    a, b, c = (x.astype(np.float64).reshape(clean.shape) for x in (result, before, clean))
    return float(10 * np.log10(((b - c) ** 2).mean() / ((a - c) ** 2).mean()))


def png(path: Path, array: np.ndarray) -> None:
    path.write_bytes(imagecodecs.png_encode(array))


def tiff(path: Path, array: np.ndarray, **options: object) -> None:
    colour = array.ndim == 3 and array.shape[-1] in (3, 4)
    options = {"photometric": "rgb" if colour else "minisblack", **options}
    if colour and array.shape[-1] == 4:
        options["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(
        path, array, resolution=(300, 300), resolutionunit=2, description="of a cell", **options
    )
