"""The embedded photographs and generated images (data/photos.py, data/generated/)."""

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

from n2n_lightning.data import Images, Photos
from n2n_lightning.data.generated.dead_leaves import dead_leaves
from n2n_lightning.data.generated.fabrics import fabrics
from n2n_lightning.data.generated.specimens import specimens
from n2n_lightning.data.samplers import BatchIndex
from n2n_lightning.files import InputError
from n2n_lightning.noise import Gaussian, Pixelate
from tests.conftest import photographs


def test_photos_are_disjoint_and_as_noisy_as_the_report():
    assert not set(Photos.TRAIN) & set(Photos.VAL)
    data = Photos(Pixelate(7), train_pairs=40, val_pairs=40, batch_size=20)
    data.setup()
    batch = data.on_after_batch_transfer(data.train[BatchIndex(0, 0, torch.arange(20))], 0)
    assert batch["input"].shape == (20, 3, 32, 32)
    assert batch["input"].min() >= 0
    assert batch["input"].max() <= 1
    assert 0.02 < (batch["input"] - batch["target"]).std() < 0.3
    again = Photos(Pixelate(7), train_pairs=40, val_pairs=40, batch_size=20)
    again.setup()
    assert torch.equal(again.val.noisy, data.val.noisy)
    data = Photos(Pixelate(7), train_pairs=40, val_pairs=200, batch_size=20)
    data.setup()
    (val,) = (data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader())
    mse = (val["input"] - val["target"]).square().mean((1, 2, 3))
    assert (-10 * mse.log10()).mean() == pytest.approx(20.8, abs=0.3)  # the report's data: 20.7


@pytest.mark.slow
def test_generated_images_and_grey_photographs_can_be_trained_on():
    data = Photos(
        Pixelate(7),
        names=["coffee.png", "camera.png"],
        leaves=2,
        train_pairs=8,
        val_pairs=4,
        batch_size=4,
    )
    data.setup()
    assert list(data.photos()[0]) == ["coffee.png", "camera.png", "dead leaves 0", "dead leaves 1"]
    assert {photo.shape[0] for photo in data.photos()[0].values()} == {3}
    first, second = dead_leaves(2, 96, [data.photos()[0]["coffee.png"]], seed=0)
    assert first.shape == (3, 96, 96)
    assert torch.equal(first, dead_leaves(1, 96, [data.photos()[0]["coffee.png"]], seed=0)[0])
    assert not torch.equal(first, second)
    # The density r^-3 makes the spectrum fall about as 1/f^2, as that of natural images does; white
    # noise is flat.
    power = torch.stack(
        [
            torch.fft.rfft(i.float().mean(0) - i.float().mean()).abs().square().mean(0)
            for i in (first, second)
        ]
    )
    low, high = power.mean(0)[1:4].mean(), power.mean(0)[16:32].mean()
    assert 20 < low / high < 2000
    with pytest.raises(
        InputError, match=r"^data.names: chelsea.png is none of the photographs: .*coffee.png"
    ):
        Photos(Pixelate(7), names=["chelsea.png"]).setup()


def test_generated_specimens_are_dark_and_repeat():
    first, second = specimens(2, 128, seed=0)
    assert first.shape == (3, 128, 128)
    assert torch.equal(first, specimens(1, 128, seed=0)[0])
    assert not torch.equal(first, second)
    for image in specimens(6, 128, seed=1):
        assert torch.equal(image[0], image[2])
        assert image.float().median() < 0.4 * image.max()
        assert image.max() > 60


def test_generated_fabrics_are_fine_beside_smooth_surfaces_and_repeat():
    red = torch.tensor([200, 30, 20], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8)
    images = fabrics(8, 128, [red], seed=0)
    assert torch.equal(images[0], fabrics(1, 128, [red], seed=0)[0])
    assert not torch.equal(images[0], images[1])
    blocks = torch.stack(images).float().unfold(2, 8, 8).unfold(3, 8, 8)  # (8, 3, 16, 16, 8, 8)
    rough = blocks.diff(dim=-1).std((-1, -2)).flatten(2)  # what differs between neighbours
    assert rough[:, 0].quantile(0.1) < 2
    assert rough[:, 0].quantile(0.75) > 10
    # the texture is of the colour of its surface
    assert rough[:, 0].mean() > 3 * rough[:, 1].mean()


@pytest.mark.slow
def test_several_folders_and_generated_images_are_one_source_and_lose_their_colour(tmp_path):
    roots = [str(photographs(tmp_path / name, 3, 64)) for name in ("a", "b, c")]
    options = {"train_pairs": 8, "size": 16, "batch_size": 8}
    data = Images(
        Gaussian(25),
        roots,
        names=["coffee.png"],
        leaves=1,
        specimens=2,
        fabrics=3,
        held=3,
        grey=0.5,
        **options,
    )
    data.trainer = SimpleNamespace(training=True, world_size=1, global_rank=0)
    data.setup()
    train, val = data.photos()
    assert [len(train), len(val)] == [4 + 1 + 1 + 2 + 3, 2]
    batch = next(iter(data.train_dataloader()))
    data.supervised = True
    clean = data.on_after_batch_transfer(batch, 0)["target"]
    without = (clean - clean.mean(1, keepdim=True)).flatten(1).abs().amax(1) < 1e-6
    assert 0 < without.sum() < 8
    with pytest.raises(InputError, match=r"data.root=.*nothing: no such folder"):
        Images(Gaussian(25), [roots[0], str(tmp_path / "nothing")], **options).setup()
    with pytest.raises(InputError, match=r"data.grey=2: must be a share"):
        Images(Gaussian(25), roots, grey=2, **options)


def test_generated_images_are_as_deep_as_the_photographs(tmp_path):
    for number in range(3):
        image = np.full((64, 64, 3), 40000 + number, np.uint16)
        tifffile.imwrite(tmp_path / f"{number}.tif", image, photometric="rgb")
    train, _ = Images(Gaussian(25), str(tmp_path), leaves=1, fabrics=2, specimens=1).photos()
    assert {image.dtype for image in train.values()} == {torch.uint16}
    # as bright as what it has its colours from
    assert 0.2 < (train["fabric 0"].int().float() / 40000).median() < 1.5
