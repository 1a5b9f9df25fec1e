"""Arrays through TrainedDenoiser.denoise, and what a checkpoint may hold."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
import torch
from torch import nn

from n2n_lightning import load, networks
from n2n_lightning.arrays.axes import of_picture
from n2n_lightning.data.generated.fabrics import fabrics
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.inference import checkpoint as checkpoint_files
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.options import NoisyArray
from tests.conftest import run
from tests.pictures import Half, gain, model, noisy, smooth  # noqa: F401


def test_arrays_of_any_layout(model):
    grey, colour = noisy(40, 50, 1, "uint8"), noisy(40, 50, 3, "uint8")
    assert of_picture((40, 50, 3)) == "HWC"
    assert of_picture((3, 50, 3)) == "HWC"
    assert of_picture((3, 50, 3), channels_first=True) == "CHW"
    assert of_picture((7, 3, 40, 50)) == "NCHW"
    assert of_picture((7, 40, 50, 1)) == "NHWC"
    with pytest.raises(
        InputError, match=r"an array of shape \(5, 6, 7, 8, 9\): which axis is what"
    ):
        of_picture((5, 6, 7, 8, 9))
    plain = model.denoise(colour)
    assert np.array_equal(model.denoise(colour.transpose(2, 0, 1)), plain.transpose(2, 0, 1))
    assert np.array_equal(model.denoise(np.stack([colour, colour]))[1], plain)
    assert np.array_equal(
        model.denoise(colour.transpose(1, 2, 0), axes="WCH"), plain.transpose(1, 2, 0)
    )
    tensor = model.denoise(torch.from_numpy(colour).permute(2, 0, 1))
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), plain)
    assert np.array_equal(model.denoise(np.asfortranarray(colour)), plain)
    assert np.array_equal(model.denoise(colour[::-1])[::-1].shape, plain.shape)
    # A grey picture is the same as a colour one of equal channels; many channels are one at a time.
    many = np.stack([grey] * 6, -1)
    assert np.array_equal(model.denoise(many, axes="HWC")[..., 4], model.denoise(grey))
    with pytest.raises(InputError, match="axes=HWX: does not fit an array of shape"):
        model.denoise(colour, axes="HWX")
    with pytest.raises(InputError, match="values of type bool: must be one of uint8"):
        model.denoise(grey > 3)
    with pytest.raises(InputError, match=r"values of type bfloat16: must be one of uint8"):
        model.denoise(torch.zeros(4, 4, dtype=torch.bfloat16))
    with pytest.raises(InputError, match="holds no pixels"):
        model.denoise(grey[:0])


def test_captures_one_after_the_other_are_all_denoised(model, tmp_path):
    """Two or four images before height and width are frames, not channels with transparency."""
    for count in (2, 4, 5):
        frames = np.stack([noisy(24, 28, 1, "uint8") for _ in range(count)])
        np.save(tmp_path / "frames.npy", frames)
        assert not opened(tmp_path / "frames.npy").values[0].alpha
        for result in (model.denoise(frames), model.denoise(torch.from_numpy(frames)).numpy()):
            assert np.array_equal(result[-1], model.denoise(frames[-1]))
    scenes = np.stack([frames[:2]] * 3)  # (scenes, captures, H, W)
    assert np.array_equal(model.denoise(scenes)[2, 1], model.denoise(frames[1]))
    tifffile.imwrite(tmp_path / "one.tif", frames[..., None], metadata=None)
    assert opened(tmp_path / "one.tif").values[0].axes == "NHW"


def test_transparency_does_not_say_what_is_white(tmp_path):
    model = TrainedDenoiser(Half(), 3)
    image = (noisy(32, 32, 4, "float32").clip(0, 1) * 4095).astype(np.uint16)
    image[..., 3] = 65535
    model.denoise(image)
    assert model.network.seen[0].max() > 0.8
    assert (model.denoise(image)[..., 3] == 65535).all()


def test_images_and_tensors_in_unit_range_through_the_module(model):
    image = torch.rand(2, 3, 37, 41)
    assert isinstance(model, nn.Module)
    assert not model.training
    output = model(image)
    assert output.shape == image.shape
    assert output.dtype == torch.float32
    assert torch.allclose(model.denoise(image), output, atol=1e-6)


def test_one_channel_and_many_channel_networks():
    grey = TrainedDenoiser(networks.ResidualUNet(channels=1, width=4), 1)
    colour = noisy(24, 32, 3, "uint8")
    assert np.array_equal(grey.denoise(colour)[..., 1], grey.denoise(colour[..., 1].copy()))
    two = TrainedDenoiser(networks.ResidualUNet(channels=2, width=4), 2)
    with torch.no_grad():
        nn.init.normal_(two.network.output.weight, std=0.05)
    pair = noisy(24, 32, 2, "uint8")
    # a channel of its own, not transparency
    assert (two.denoise(pair)[..., 1] != pair[..., 1]).any()
    with pytest.raises(InputError, match="3 channels: the checkpoint is for images with 2"):
        two.denoise(colour)
    # as the command does, for which a file may call the channel transparency
    result = np.empty_like(pair)
    two.denoise_into(result, NoisyArray(pair, "HWC", alpha=True))
    assert np.array_equal(result, two.denoise(pair))


@pytest.mark.parametrize(
    "model",
    [
        {
            "_target_": "n2n_lightning.inference.denoiser.load",
            "path": "other.ckpt",
            "allow": ["os"],
        },
        {"_target_": "n2n_lightning.train.main"},
        {"_target_": "os.system", "command": "touch hello"},
        {"_target_": "tests.test_denoise.touch", "path": "hello"},
        {"_target_": "n2n_lightning.networks.pad_to_multiple", "image": 1, "multiple": 2},
        {"_target_": "n2n_lightning.networks.Nothing"},
        {"_target_": 7},
        {},
        "text",
        None,
    ],
)
def test_a_checkpoint_calls_nothing_but_networks(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, spec in (
        ("best.ckpt", model),
        ("other.ckpt", {"_target_": "os.system", "command": "touch hello"}),
    ):
        torch.save({"state_dict": {}, "n2n_lightning": {"format": 1, "model": spec}}, name)
    with pytest.raises(InputError, match=r"^best\.ckpt: "):
        load("best.ckpt", allow=["tests.test_denoise"])
    assert not Path("hello").exists()


def test_fast_differs_by_hundredths_of_the_noise(model, tmp_path):
    clean = skimage.data.astronaut()[:128, :128]
    noisy = clean + np.random.default_rng(0).normal(0, 25, clean.shape).astype(np.float32)
    np.save(tmp_path / "a.npy", noisy)
    done = run("denoise", "a.npy", "-o", "out", "--fast", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, exact = np.load(tmp_path / "out" / "a.npy"), model.denoise(noisy)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 0.1 * 25
    assert np.sqrt(np.mean((found - exact) ** 2)) < 0.02 * 25
    assert np.array_equal(found, load(fast=True).denoise(noisy))


def test_strength_mixes_the_picture_and_its_result(model, tmp_path, monkeypatch):
    image = noisy(50, 60, 3, "float32")
    image[5, 5] = np.nan
    full = model.denoise(image)
    assert np.allclose(
        model.denoise(image, strength=0.25),
        image + 0.25 * (full - image),
        atol=1e-5,
        equal_nan=True,
    )
    assert np.allclose(model.denoise(image, strength=0), image, atol=1e-6, equal_nan=True)
    woven = (
        fabrics(1, 128, [torch.full((3, 8, 8), 128, dtype=torch.uint8)], seed=8)[0].float() / 255
    )
    full = model.denoise(woven)
    assert (full - model.denoise(woven, uneven=True)).abs().max() > 1e-3  # texture was put back
    assert torch.allclose(model.denoise(woven, strength=0.5), (woven + full) / 2, atol=1e-5)
    np.save(tmp_path / "a.npy", image)
    done = run("denoise", "a.npy", "-o", "out", "--strength", "0.25", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.allclose(
        np.load(tmp_path / "out" / "a.npy"),
        model.denoise(image, strength=0.25),
        atol=1e-5,
        equal_nan=True,
    )
    done = run("denoise", "a.npy", "-o", "other", "--strength", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "--strength 2: must be 0" in done.stderr


def test_channels_that_are_not_colours_do_not_see_one_another(tmp_path, model):
    """Fluorescence: each channel has a range of its own, and nothing of the others."""
    bright, dim = (
        (smooth(48, 52, 1)[..., 0] * 50000).astype(np.uint16),
        noisy(48, 52, 1, "uint8").astype(np.uint16) * 2,
    )
    stack = np.stack([bright, dim, bright // 2])
    tifffile.imwrite(tmp_path / "cells.tif", stack, imagej=True, metadata={"axes": "CYX"})
    values = opened(tmp_path / "cells.tif").values[0]
    assert (values.axes, values.colour) == ("CHW", False)
    assert run("denoise", "cells.tif", "-o", "out", cwd=tmp_path).returncode == 0
    result = tifffile.imread(tmp_path / "out" / "cells.tif")
    for i in range(3):
        assert np.array_equal(result[i], model.denoise(stack[i]))
    # a network that was trained on such captures takes them together
    own = TrainedDenoiser(Half(), 3, checkpoint_files.CheckpointInfo(scale=65535.0))
    own.denoise_into(np.empty_like(stack), NoisyArray(stack, "CHW", colour=False))
    assert np.array_equal(own.network.seen[0][0].numpy() * 65535, stack.astype(np.float32))


def test_axes_of_npy_files_can_be_said(tmp_path, model):
    # three frames look like a colour picture
    frames = np.stack([noisy(24, 28, 1, "uint8") for _ in range(3)])
    np.save(tmp_path / "frames.npy", frames)
    assert run("denoise", "frames.npy", "-o", "out", "--axes", "NHW", cwd=tmp_path).returncode == 0
    assert np.array_equal(np.load(tmp_path / "out" / "frames.npy")[1], model.denoise(frames[1]))
    done = run("denoise", "frames.npy", "-o", "more", "--axes", "HW", cwd=tmp_path)
    assert done.stderr.startswith(
        "error: frames.npy: its shape is (3, 24, 28); --axes HW does not fit"
    )


def test_the_pretrained_checkpoint_is_small_and_denoises(model):
    assert checkpoint_files.PRETRAINED.stat().st_size < 6e6
    from skimage import data

    clean = data.astronaut()[100:300, 100:300] / 255
    for sigma, least in ((10, 1.5), (25, 5), (50, 7)):
        dirty = clean + np.random.default_rng(1).normal(0, sigma / 255, clean.shape)
        assert gain(model.denoise(dirty), dirty, clean) > least


def test_the_recipe_of_the_pretrained_checkpoint_is_the_experiment(model):
    from tests.test_train import composed

    spec = checkpoint_files.read_checkpoint(checkpoint_files.PRETRAINED)["n2n_lightning"]["model"]
    config = composed("experiment=pretrained")["model"]
    assert {"dims": 2, **spec} == {**config, "channels": 3, "dims": 2}


@pytest.mark.skipif(
    "N2N_DATA" not in os.environ, reason="N2N_DATA names no folder with photographs"
)
def test_real_camera_noise_becomes_less(model):
    scores = []
    for path in sorted(Path(os.environ["N2N_DATA"], "cc15_real").glob("*_real.png")):
        before, clean = (
            opened(p).values[0].array / 255
            for p in (path, Path(str(path).replace("_real.p", "_mean.p")))
        )
        scores.append(gain(model.denoise(before), before, clean))
    assert min(scores) > 0
    assert np.mean(scores) > 0.5, json.dumps(scores)
