"""Turns, colours, and stored integers as floats (data/augmentation.py)."""

from types import SimpleNamespace

import pytest
import torch

from n2n_lightning.data import Photos
from n2n_lightning.data.augmentation import recolour, to_float, turn
from n2n_lightning.data.samplers import BatchIndex
from n2n_lightning.files import InputError
from n2n_lightning.noise import Bernoulli
from n2n_lightning.randomness import generator


def test_turns_are_the_eight_symmetries_and_the_same_for_both():
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(400, -1, -1, -1)
    a, b = turn([image, image + 100], generator(0))
    assert torch.equal(a + 100, b)
    found = {tuple(x.flatten().tolist()) for x in a}
    base = image[0, 0]
    expected = {
        tuple(x.flatten().tolist()) for k in range(4) for x in (base.rot90(k), base.rot90(k).T)
    }
    assert found == expected
    (wide,) = turn([torch.rand(5, 3, 4, 6)], generator(0))
    assert wide.shape == (5, 3, 4, 6)


def test_colours_come_before_noise_that_is_generated():
    data = Photos(
        Bernoulli(0.5),
        train_pairs=40,
        val_pairs=4,
        size=16,
        zoom=None,
        colour=(0.5, 2),
        batch_size=20,
    )
    data.setup()
    data.trainer = SimpleNamespace(training=True, world_size=1, global_rank=0)
    batch = data.on_after_batch_transfer(data.train[BatchIndex(0, 0, torch.arange(20))], 0)
    assert 0.4 < (batch["input"] == 0).all(1).float().mean() < 0.6  # missing pixels are still 0
    assert 0 <= batch["input"].min() <= batch["input"].max() <= 1


def test_recolouring_is_the_same_for_both_and_keeps_means():
    draws = generator(1)
    clean = torch.rand(400, 3, 4, 4, generator=draws)
    noise = torch.randn(400, 3, 4, 4, generator=draws)
    a, b, mean = recolour([clean + noise, clean - noise, clean], (0.5, 2), generator(0))
    assert torch.allclose((a + b) / 2, mean, atol=1e-5)  # affine: noise of zero mean stays so
    grey = clean.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    (contrast,) = recolour([grey], (0.5, 2), generator(0))
    gains = contrast.std((1, 2, 3)) / grey.std((1, 2, 3))  # no colour, so contrast alone is seen
    assert 1 / 1.4 - 1e-3 <= gains.min() < 0.8
    assert 1.2 < gains.max() <= 1.4 + 1e-3
    colours = (
        (mean - mean.mean(1, keepdim=True)).std((1, 2, 3)) / (clean - grey).std((1, 2, 3)) / gains
    )
    assert 0.5 - 1e-3 <= colours.min() < 0.6
    assert 1.7 < colours.max() <= 2 + 1e-3
    assert torch.equal(clean[:, :, 0, 0].argmax(1), mean[:, :, 0, 0].argmax(1))


def test_integers_become_float_by_their_range():
    assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0, 1]
    assert to_float(torch.tensor([0, 65535], dtype=torch.uint16)).tolist() == [0, 1]
    assert to_float(torch.tensor([-0.5, 1.5])).tolist() == [-0.5, 1.5]


def test_no_colours_may_be_said_in_two_ways():
    assert Photos(Bernoulli(0.5), colour=False).colour is None
    assert Photos(Bernoulli(0.5), colour=None).colour is None


@pytest.mark.parametrize("option", ["colour", "zoom"])
@pytest.mark.parametrize(
    "value", [True, 2, [0.5], [1, 0.5], [0, 1], [1, 101], ["a", "b"], "ab", [0.5, float("nan")]]
)
def test_a_range_that_cannot_be_is_refused(option, value):
    with pytest.raises(
        InputError, match=rf"data\.{option}=.*: must be two numbers, 0 < smallest .* or null"
    ):
        Photos(Bernoulli(0.5), **{option: value})
