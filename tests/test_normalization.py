"""Stored values become network units and values again."""

import numpy as np
import pytest
import torch
from torch import nn

from n2n_lightning import load, networks
from n2n_lightning.arrays.normalization import levels
from n2n_lightning.files import InputError
from n2n_lightning.inference import checkpoint as checkpoint_files
from n2n_lightning.inference.denoiser import TrainedDenoiser
from tests.pictures import RNG, Half, gain, model, noisy, smooth  # noqa: F401


def test_extreme_values_stay_in_their_type():
    model = TrainedDenoiser(nn.Conv2d(1, 1, 1), 1)
    nn.init.constant_(model.network.weight, 1)
    nn.init.constant_(model.network.bias, 1e-3)
    for dtype in ("uint8", "uint16", "int16", "int32", "uint32"):
        largest = np.iinfo(dtype).max
        assert (model.denoise(np.full((4, 4), largest, dtype)) == largest).all()
        assert (model.denoise(np.full((4, 4), np.iinfo(dtype).min, dtype)) <= largest // 100).all()
    assert np.isfinite(model.denoise(np.full((4, 4), 65504, np.float16))).all()
    nn.init.zeros_(model.network.bias)
    for value in (1e-300, 1e300):
        assert model.denoise(np.full((4, 4), value)) == pytest.approx(value, rel=1e-5)
    for scale in (0, -1, float("inf"), float("nan")):
        with pytest.raises(InputError, match=r"scale=.*: must be larger than 0, and finite"):
            model.denoise(np.ones((4, 4)), scale=scale)


def test_levels_are_judged_by_type_and_values():
    values = np.linspace(0, 1, 100_000).reshape(100, 1000)
    assert levels((values * 255).astype(np.uint8)) == (0, 255)
    assert levels((values * 40).astype(np.uint8)) == (0, 255)
    assert levels((values * 4000).astype(np.uint16)) == (0, 4095)
    hot = (values * 4000).astype(np.uint16)
    hot[50, 505] = 65535
    assert levels(hot) == (0, 4095)
    assert levels((values * 60000).astype(np.uint16)) == (0, 65535)
    assert levels(values) == levels(values * 0.5) == (0, 1)
    # A black level, a unit of one's own, values below zero: spread over the middle of the range.
    shifted = (
        (30000 + 600 * values).astype(np.uint16),
        values * 3000,
        values * 1e-5,
        values * 2 - 1,
        values * 0.1 + 0.5,
    )
    for array in (*shifted, (values * 1000 - 1000).astype(np.int16)):
        black, span = levels(array)
        inside = (array.astype(float) - black) / span
        assert inside.min() == pytest.approx(0.1, abs=0.01)
        assert inside.max() == pytest.approx(0.9, abs=0.01)
    assert levels(np.full((4, 4), np.nan)) == levels(np.zeros((4, 4))) == (0, 1)
    # The same picture in 12 of 16 bits is the same for the network.
    image = noisy(64, 64, 1, "float32")
    model = TrainedDenoiser(Half(), 3)
    for scale in (4095, 65535):
        model.network.seen.clear()
        model.denoise((image * scale).round().clip(0, scale).astype(np.uint16))
        assert np.abs(model.network.seen[0][0, 0].numpy() - image.clip(0, 1)).max() < 1e-3


def test_a_black_level_or_a_unit_does_not_matter(model):
    clean = smooth(64, 64, 1)[..., 0].astype(np.float64)
    image = clean + RNG.normal(0, 0.05, clean.shape)
    plain = gain(model.denoise(image), image, clean)
    for offset, factor in ((30000, 600), (-1, 2), (0, 1e-6), (0, 1e6), (-1000, 500)):
        there = offset + factor * image
        assert gain(model.denoise(there), there, offset + factor * clean) > plain - 1


@pytest.mark.parametrize("channels", [1, 3])
def test_an_equivariant_checkpoint_gives_the_same_in_any_unit(channels):
    torch.manual_seed(0)
    network = networks.DRUNet(3, [8, 12], [1, 1], equivariant=True)
    torch.nn.init.normal_(network.output.weight, std=0.1)
    model = TrainedDenoiser(network, 3)
    draws = np.random.default_rng(0)
    image = smooth(210, 230, channels).astype(np.float32) + draws.normal(
        0, 0.05, (210, 230, channels)
    )
    image = image.astype(np.float32)
    image[40, 50], image[100, 100:102], image[:20] = 60, -30, 1.5  # hot, dead, a margin
    plain = model.denoise(image)
    assert np.array_equal(plain[:20], image[:20])
    assert np.abs(plain - image)[20:].std() > 0.005
    for a, b in ((0.01, 0), (300, 1000), (1, -5)):
        result = model.denoise((a * image.astype(np.float64) + b).astype(np.float32))
        assert np.abs((result.astype(np.float64) - b) / a - plain).max() < 5e-4  # 1e-2 of the noise
    whole = (image[110:] * 2000 + 9000).round().clip(0, 65535).astype(np.uint16)
    counts = model.denoise(whole.astype(np.float32))
    assert np.abs(model.denoise(whole).astype(float) - counts).max() <= 0.51
    assert (
        np.abs(model.denoise((2 * whole + 300).astype(np.int32)) - (2 * counts + 300)).max() <= 0.6
    )
    assert np.abs(model.denoise(image, tile=192) - plain).max() < 1e-4
    assert np.array_equal(model.denoise(np.full((40, 40), 7.5)), np.full((40, 40), 7.5))


def test_the_scale_of_training_is_used(tmp_path):
    model = TrainedDenoiser(Half(), 3, checkpoint_files.CheckpointInfo(scale=1000.0))
    model.denoise(np.full((8, 8), 500, np.uint16))
    assert model.network.seen[-1].unique().tolist() == [0.5]
    model.denoise(np.full((8, 8), 500, np.uint16), scale=2000)
    assert model.network.seen[-1].unique().tolist() == [0.25]
    with pytest.raises(InputError, match=r"a list: must be a numpy array or a torch tensor"):
        model.denoise([1, 2])
    with pytest.raises(InputError, match=r"network.onnx: an export for other programs"):
        load("network.onnx")


def test_values_are_rounded_and_kept_in_the_range_of_their_type():
    model = TrainedDenoiser(nn.Conv2d(1, 1, 1), 1)
    nn.init.constant_(model.network.weight, 1)
    nn.init.constant_(model.network.bias, 0.5)
    image = np.array([[0, 100, 200]], np.uint8)
    assert model.denoise(image).tolist() == [[128, 228, 255]]
    assert model.denoise(image.astype(np.float32) / 255)[0, 2] > 1.2  # floats are not clipped


def test_missing_values_stay_missing_and_do_not_spread(model):
    image = noisy(40, 50, 3, "float32")
    holes = image.copy()
    holes[10:14, 10:14, 1], holes[20, 20] = np.nan, np.inf
    result = model.denoise(holes)
    assert np.array_equal(np.isfinite(result), np.isfinite(holes))
    far = np.s_[30:, :]
    assert np.abs(result[far] - model.denoise(image)[far]).max() < 0.05
