"""Training and denoising on a card that is pretended (tests/pretended_card.py)."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from n2n_lightning import networks, noise
from n2n_lightning.arrays.outlier_lists import Listed
from n2n_lightning.data.photos import Photos
from n2n_lightning.noise import Noise
from n2n_lightning.training.lightning_callbacks import MovingAverage
from n2n_lightning.training.module import Denoiser
from tests.pretended_card import CARD, Card, to_card

CORRUPTIONS = sorted(set(noise.__all__) - {"Noise", "Strength"})
KINDS = pytest.mark.parametrize("mps", [False, True], ids=["card", "mps"])


def trainer(training: bool = True) -> Any:
    return SimpleNamespace(
        training=training,
        world_size=1,
        global_rank=0,
        global_step=1,
        estimated_stepping_batches=10,
        precision_plugin=None,
        strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor),
    )


def batch(count: int = 2, side: int = 14) -> dict[str, Any]:
    draws = torch.Generator().manual_seed(1)
    image = torch.randint(256, (count, 3, side, side), generator=draws, dtype=torch.uint8)
    return {"image": image, "images": torch.arange(count), "epoch": 0, "number": 0}


def pair(corruption: Noise, training: bool = True, **options: Any) -> dict[str, Tensor]:
    """Make a batch as a Trainer does whose network is on the card."""
    data = Photos(corruption, augment=True, **options)
    data.trainer = trainer(training)
    moved = data.transfer_batch_to_device(batch(), CARD, 0)
    return data.on_after_batch_transfer(moved, 0)


class TestNoise:
    @pytest.mark.parametrize("name", CORRUPTIONS)
    def test_pairs_of_training_are_made_on_the_card(self, name):
        with Card() as card:
            ready = pair(getattr(noise, name)(), colour=[0.5, 2], grey=0.5)
        assert ready["input"].device == ready["target"].device == CARD
        assert card.operators

    @pytest.mark.parametrize("name", ["Poisson", "Varied"])
    def test_mps_gets_pairs_that_were_made_on_the_cpu(self, name):
        with Card(mps=True):
            ready = pair(getattr(noise, name)())
        assert ready["input"].device == ready["target"].device == CARD

    @pytest.mark.parametrize("name", CORRUPTIONS)
    def test_validation_has_the_noise_of_the_cpu(self, name):
        corruption = getattr(noise, name)()
        with Card():
            there = pair(corruption, training=False)
        here = Photos(corruption)
        here.trainer = trainer(training=False)
        expected = here.on_after_batch_transfer(batch(), 0)
        for key in ("input", "target"):
            assert there[key].device == CARD
            assert torch.equal(there[key].held, expected[key])


def test_listed_outliers_move_with_their_batch():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 5
    listed = Listed.of(image, None, "auto", True)
    with Card():
        moved = listed.to(CARD)
        assert moved.count == listed.count == 1
        assert torch.equal(moved.restored(to_card(image)).held, image)


def module_on_card(name: str, loss: Any = None) -> Denoiser:
    module = Denoiser(small(name), loss, bounds=None)
    module._trainer = trainer()
    return module.to(CARD)


def test_the_average_of_weights_follows_on_the_card_without_a_wait():
    callback = MovingAverage(decay=0.75)
    module = Denoiser(small("DRUNet"))
    module._trainer = trainer()
    callback.setup(module._trainer, module, "fit")
    with Card() as card:
        module.to(CARD)
        callback.on_fit_start(module._trainer, module)
        average = callback._average_model
        assert average is not None
        for step in (1, 2, 3):
            module._trainer.global_step = step
            card.waits.clear()
            callback.on_train_batch_end(module._trainer, module, None, None, step)
            with torch.no_grad():
                module.network.output.weight += 1
        assert not card.waits
        weight = average.module.network.output.weight
        assert weight.device == CARD
    # the first step is taken as it is: 0, then 0.25 * 1, then 0.75 * 0.25 + 0.25 * 2
    assert weight.held.unique().tolist() == [0.6875]
    assert int(average.n_averaged) == 3


class TestTrainingStep:
    @KINDS
    @pytest.mark.parametrize("name", ["UNet", "DRUNet", "NAFNet", "DnCNN", "ResidualUNet"])
    def test_a_step_stays_on_the_card(self, name, mps):
        with Card(mps) as card:
            module = module_on_card(name)
            optimizer = torch.optim.Adam(module.network.parameters())
            ready = to_card({"input": torch.rand(2, 3, 16, 16), "target": torch.rand(2, 3, 16, 16)})
            card.waits.clear()
            module.training_step(ready, 0).backward()
            optimizer.step()
            waits = dict(card.waits)
            assert module._mean("train") > 0
        assert not waits


def small(name: str) -> torch.nn.Module:
    options: dict[str, Any] = {
        "DRUNet": {"widths": (4, 8), "blocks": (1, 1), "equivariant": True},
        "NAFNet": {"widths": (4, 8), "blocks": (1, 1)},
    }
    return getattr(networks, name)(**options.get(name, {}))
