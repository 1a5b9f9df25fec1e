"""Scenes, captures and fixtures that several tests of users' data share."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from n2n_lightning import load
from n2n_lightning.data import PairedImages
from n2n_lightning.formats import opened
from n2n_lightning.inference.options import NoisyArray

SIDE = 160  # pixels of `scenes`
QUICK = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "data.train_pairs=8",
    "data.batch_size=4",
    "model=residual_unet",
    "model.width=4",
]


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs on dark ground, values 0 to 1: (height, width)."""
    draws, (y, x) = np.random.default_rng(seed), np.mgrid[:height, :width]
    image = np.zeros((height, width))
    for _ in range(12):
        cy, cx, size = draws.uniform(0, height), draws.uniform(0, width), draws.uniform(2, 10)
        image += draws.uniform(0.2, 1) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
    return image.clip(0, 1)


def frame(clean: np.ndarray, seed: int, offset: int = 100) -> np.ndarray:
    """A frame of a scientific camera: photons, gain, read noise, black level; uint16."""
    draws = np.random.default_rng(seed)
    return (
        (draws.poisson(clean * 60) * 2.2 + draws.normal(0, 1.6, clean.shape) + offset)
        .round()
        .astype(np.uint16)
    )


def noisy8(clean: np.ndarray, seed: int) -> np.ndarray:
    return (
        (clean * 180 + 30 + np.random.default_rng(seed).normal(0, 20, clean.shape))
        .clip(0, 255)
        .astype(np.uint8)
    )


@pytest.fixture(autouse=True)
def no_noise_from_lightning():
    """Lightning 2.6 calls what torch 2.13 deprecates; train() turns that warning off."""
    import warnings

    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings(
        "ignore",
        ".*(does not have many workers|num_workers|Checkpoint directory|logging interval).*",
    )


@pytest.fixture(scope="module")
def model():
    return load()


def denoised(path: Path, model) -> np.ndarray:
    picture = opened(path)
    with picture.written(path.with_stem(f"{path.stem}-out")) as results:
        for values, result in zip(picture.values, results, strict=True):
            axes, alpha = picture.meaning(values)
            noisy = NoisyArray(values.array, axes, alpha, values.colour, values.nodata_values)
            model.denoise_into(result, noisy)
    return opened(path.with_stem(f"{path.stem}-out")).values[0].array


def folder_of(folder: Path, images: dict[str, np.ndarray]) -> str:
    for name, image in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return str(folder)


def own(*arguments: str, **options) -> PairedImages:
    data = PairedImages(*arguments, **{"batch_size": 1, "crop": 32, **options})
    data.setup()
    return data


def scenes(seed: int, count: int = 3, side: int = SIDE, margin: int = 0) -> np.ndarray:
    """Clean scenes (N, H, W) between about 40 and 210: clouds, and discs with sharp edges."""
    draws = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        cloud = gaussian_filter(draws.normal(size=(side + margin, side + margin)), 6)
        picture = 90 + 20 * cloud / cloud.std()
        y, x = np.mgrid[: side + margin, : side + margin]
        for _ in range(12):
            cy, cx, r = (*draws.uniform(0, side, 2), draws.uniform(4, 20))
            picture[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = draws.uniform(50, 200)
        found.append(picture.clip(40, 210))
    return np.stack(found)
