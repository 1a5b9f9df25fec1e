"""Single noisy images, a movie and counts, and small runs on them, that several tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.captures import scenes

SMALL = [
    "model=residual_unet",
    "model.width=4",
    "data.batch_size=4",
    "data.train_pairs=16",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
]


def singles(
    folder: Path, count: int = 6, side: int = 48, sigma: float = 20, seed: int = 0
) -> np.ndarray:
    """noisy.npy, (N, H, W), a.npy and b.npy, two captures of three scenes; the clean images."""
    folder.mkdir(exist_ok=True)
    clean = scenes(seed, count + 3, side)
    noise = np.random.default_rng(seed)

    def shot(images: np.ndarray) -> np.ndarray:
        return (images + noise.normal(0, sigma, images.shape)).astype(np.float32)

    np.save(folder / "noisy.npy", shot(clean[:count]))
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", shot(clean[count:]))
    return clean[:count]


SINGLE = ["data=single", "data.noisy=noisy.npy"]


CASES = {
    "neighbours": [*SINGLE, "data.crop=16"],
    "masked": [*SINGLE, "data.method=masked", "data.share=0.1", "data.crop=16"],
    "lines": [*SINGLE, "data.method=masked", "data.mask=[1,5]", "data.crop=16"],
    "thinned": ["data=single", "data.noisy=counts.npy", "data.method=thinned", "data.crop=16"],
    "movie": ["data=movie", "data.noisy=movie.npy", "data.context=0", "data.crop=16"],
    "context": [
        *("data=movie", "data.noisy=movie.npy", "data.context=1", "data.blind=frame"),
        "data.crop=16",
    ],
    "hidden": ["data=movie", "data.noisy=movie.npy", "data.context=1", "data.crop=16"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    singles(folder)
    frames_of_one = np.repeat(scenes(1, 1, 48), 6, 0) + np.random.default_rng(1).normal(
        0, 20, (6, 48, 48)
    )
    np.save(folder / "movie.npy", frames_of_one.astype(np.float32))
    np.save(
        folder / "counts.npy",
        np.random.default_rng(0).poisson(scenes(0, 6, 48) / 10).astype(np.uint16),
    )
    return folder


def weights(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
