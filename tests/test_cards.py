"""Training and denoising on a card that is pretended (tests/pretended_card.py)."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from n2n_lightning import load, losses, networks, noise
from n2n_lightning.arrays import outliers
from n2n_lightning.arrays.outlier_lists import Listed
from n2n_lightning.data.photos import Photos
from n2n_lightning.data.self_supervised import CountSplitting, Neighbor2Neighbor, Noise2Void
from n2n_lightning.export import pt2
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.tiling import in_memory
from n2n_lightning.noise import Noise
from n2n_lightning.randomness import generator
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


# Asked of the card while a batch is made: text asks whether enough of it is covered.
WAITS = {"Text": 4}


class TestNoise:
    @pytest.mark.parametrize("name", CORRUPTIONS)
    def test_pairs_of_training_are_made_on_the_card(self, name):
        with Card() as card:
            ready = pair(getattr(noise, name)(), colour=[0.5, 2], grey=0.5)
        assert ready["input"].device == ready["target"].device == CARD
        assert sum(card.waits.values()) <= WAITS.get(name, 0)

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


class TestPairsOfCaptures:
    """Stored captures; what is missing or stands out is looked for on the card."""

    def test_photons_are_divided_on_the_card_without_a_wait(self):
        seen = torch.full((2, 1, 8, 8), 9.0)
        with Card() as card:
            there = to_card(seen)
            draws = generator(0, "method")
            ready = CountSplitting(0.0, 1.0)(there, there, draws)
        assert not card.waits
        halves = (ready["input"].held + ready["target"].held) / 2
        assert torch.equal(halves, seen)  # no photon is lost

    @pytest.mark.parametrize("method", [Neighbor2Neighbor(), Noise2Void()], ids=["n2n", "n2v"])
    def test_single_images(self, method):
        with Card() as card:
            there = to_card(torch.rand(2, 1, 16, 16))
            ready = method(there, there, generator(0, "method"))
        assert ready["input"].device == ready["target"].device == CARD
        assert sum(card.waits.values()) <= 1  # whether something is missing

    def test_outliers_are_found_on_the_card(self):
        image = torch.rand(1, 1, 24, 24, generator=generator(0)) * 0.1
        image[0, 0, 12, 12] = 9
        with Card():
            there = outliers.mask_outliers(to_card(image), whole=True)
        here = outliers.mask_outliers(image, whole=True)
        assert torch.equal(there.held.isnan(), here.isnan())
        assert here.isnan().sum() >= 1


class TestLosses:
    @KINDS
    @pytest.mark.parametrize("name", ["L1", "L2", "L0", "HDR", "LogL2"])
    def test_no_loss_waits(self, name, mps):
        with Card(mps) as card:
            output = to_card(torch.rand(2, 3, 8, 8)).requires_grad_()
            getattr(losses, name)()(output, to_card(torch.rand(2, 3, 8, 8))).backward()
        assert not card.waits


def test_log_l2_is_the_mean_over_images():
    output = torch.rand(3, 1, 6, 6)
    target = torch.rand(3, 1, 6, 6)
    target[0, 0, :2] = torch.nan
    each = [losses.LogL2()(output[i : i + 1], target[i : i + 1]) for i in range(3)]
    assert losses.LogL2()(output, target).item() == pytest.approx(float(sum(each)) / 3)


def test_the_first_layer_of_equivariant_networks_is_in_float32():
    network = small("DRUNet")
    seen = []
    convolve = network.first._convolve

    def spied(*args: Any) -> Tensor:
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return convolve(*args)

    network.first._convolve = spied
    before = torch.backends.cudnn.conv.fp32_precision
    network(torch.rand(1, 3, 8, 8))
    assert seen == ["ieee"]
    assert torch.backends.cudnn.conv.fp32_precision == before


class TestMemory:
    """A network whose device holds so many pixels and no more."""

    def denoiser(self, most: int, seen: list[tuple[int, ...]]) -> Any:
        def network(images: Tensor) -> Tensor:
            seen.append(tuple(images.shape))
            if images.numel() > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return images * 2

        return in_memory(network, overlap=8, multiple=4)

    def test_batches_are_halved(self, capsys):
        seen: list[tuple[int, ...]] = []
        run = self.denoiser(2 * 20 * 20, seen)
        images = torch.rand(4, 1, 20, 20)
        assert torch.equal(run(images), images * 2)
        assert [shape[0] for shape in seen] == [4, 2, 2]
        assert "--tile" in capsys.readouterr().err
        seen.clear()
        run(images)
        assert [shape[0] for shape in seen] == [2, 2]  # not tried again

    def test_then_images(self):
        seen: list[tuple[int, ...]] = []
        image = torch.rand(1, 1, 64, 40)
        torch.testing.assert_close(self.denoiser(1600, seen)(image), image * 2)
        assert len(seen) > 2

    def test_nothing_fits(self):
        with pytest.raises(torch.OutOfMemoryError):
            self.denoiser(10, [])(torch.rand(1, 1, 64, 64))

    def test_other_errors_are_not_hidden(self):
        def broken(images: Tensor) -> Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        with pytest.raises(RuntimeError, match="mat1"):
            in_memory(broken, 8, 4)(torch.rand(2, 1, 8, 8))

    def test_denoise_goes_on(self, monkeypatch):
        model = load(device="cpu")
        noisy = np.random.default_rng(0).normal(0.5, 0.1, (64, 500, 3)).astype(np.float32)
        expected = model.denoise(noisy)
        through = model._through

        def little(images: Tensor) -> Tensor:
            if images.numel() > 3 * 64 * 400:
                raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")
            return through(images)

        monkeypatch.setattr(model, "_through", little)
        assert np.abs(model.denoise(noisy) - expected).max() < 1e-4


def test_an_exported_network_is_moved_by_a_pass_of_torch(tmp_path):
    model = TrainedDenoiser(small("DRUNet"), 3)
    model.network.to(memory_format=torch.contiguous_format)
    pt2(model, tmp_path / "a.pt2", "cpu")
    program = torch.export.load(tmp_path / "a.pt2")
    assert "autocast" not in str(program.graph)
    moved = move_to_device_pass(program, "meta")
    # tensors of `meta` mixed with those of the CPU would be refused
    assert moved.module()(torch.rand(1, 3, 33, 40, device="meta")).device == CARD
