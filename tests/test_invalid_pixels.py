"""Pixels that a mask calls missing, and results of another type than the source."""

from pathlib import Path

import numpy as np
import pytest

from n2n_lightning import load
from n2n_lightning.files import InputError
from n2n_lightning.formats import Values, opened
from n2n_lightning.inference.options import NoisyArray


def noisy(shape: tuple[int, ...] = (64, 80)) -> np.ndarray:
    draws = np.random.default_rng(0)
    scene = 100 + 60 * np.sin(np.arange(shape[-1]) / 9)
    return (scene + draws.normal(0, 10, shape)).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("axes", ["HW", "NHW", "HWC"])
def test_invalid_pixels_stay_and_touch_no_others(axes: str) -> None:
    array = noisy({"HW": (64, 80), "NHW": (2, 64, 80), "HWC": (64, 80, 3)}[axes])
    invalid = np.random.default_rng(1).random(array.shape) < 0.03
    results = []
    for value in (0, 255):
        changed = np.where(invalid, np.uint8(value), array)
        result = np.empty_like(changed)
        load().denoise_into(result, NoisyArray(changed, axes, invalid=invalid))
        assert (result[invalid] == value).all()
        results.append(result[~invalid])
    assert (results[0] == results[1]).all()


def test_training_reads_invalid_pixels_as_nan() -> None:
    array = noisy()
    invalid = np.zeros(array.shape, bool)
    invalid[3, 4] = True
    measured = Values(array, "HW", invalid=invalid).measured
    assert measured.dtype == np.float32
    assert np.isnan(measured[3, 4])
    assert (measured[~invalid] == array[~invalid]).all()
    assert Values(array, "HW").measured is array


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt"])
def test_results_as_floats(name: str, tmp_path: Path) -> None:
    array = noisy()
    source = tmp_path / name
    if name == "a.npy":
        np.save(source, array)
    elif name == "a.npz":
        np.savez(source, noisy=array, other=np.arange(3))
    else:
        import torch

        torch.save(torch.from_numpy(array), source)
    picture = opened(source, "noisy" if name == "a.npz" else None)
    with picture.written(tmp_path / f"out_{name}", [np.dtype(np.float32)]) as results:
        load().denoise_into(results[0], NoisyArray(array, "HW"))
    result = opened(tmp_path / f"out_{name}", picture.part).values[0].array
    assert result.dtype == np.float32
    assert np.abs(result - load().denoise(array)).max() <= 0.5
    assert (result != result.round()).any()


def test_kinds_without_floats_say_so(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(noisy()).save(tmp_path / "a.png")
    picture = opened(tmp_path / "a.png")
    assert not picture.floats
    with (
        pytest.raises(InputError, match="PNG file cannot hold float32"),
        picture.written(tmp_path / "b.png", [np.dtype(np.float32)]),
    ):
        pass
    assert not (tmp_path / "b.png").exists()
