"""Folders of clean photographs with noise added (data/images.py)."""

import pytest
import torch

from n2n_lightning.data import Images
from n2n_lightning.data.reading_files import read_picture
from n2n_lightning.files import InputError
from n2n_lightning.noise import Gaussian, Pixelate
from tests.conftest import photographs


def test_images_are_corrupted_and_validated_whole(tmp_path):
    folder = photographs(tmp_path / "photos", 12)
    data = Images(Gaussian(25), str(folder), train_pairs=30, size=16, batch_size=10)
    data.setup()
    assert (len(data.val), data.fingerprint["val"]) == (2, 2)
    key = next(iter(data.val_dataloader().batches))
    noisy, clean = data.on_after_batch_transfer(data.val[key], 0).values()
    assert torch.equal(clean[0] * 255, read_picture(folder / "photo10.png").float())

    assert (noisy - clean).std() * 255 == pytest.approx(25, rel=0.05)
    again = Images(Gaussian(25), str(folder), train_pairs=30, size=16, batch_size=10, seed=5)
    again.setup()
    assert torch.equal(again.on_after_batch_transfer(again.val[key], 0)["input"], noisy)

    grey = Images(Pixelate(3), str(folder), channels=1, train_pairs=30, size=16, batch_size=10)
    grey.setup()
    assert grey.train[next(iter(grey.train_dataloader().batches))]["input"].shape == (10, 1, 16, 16)
    with pytest.raises(InputError, match=r"photo0.png: is 64 x 64 pixels, smaller than a crop"):
        Images(Pixelate(7), str(folder), size=16, batch_size=10).setup()


def test_images_can_be_validated_on_a_file_of_the_course(tmp_path, course):
    folder = photographs(tmp_path / "photos", 4)
    val = course / "val_data.pkl"
    data = Images(Pixelate(2), str(folder), str(val), train_pairs=8, size=16, batch_size=4)
    data.setup()
    noisy, clean = torch.load(val)
    assert torch.equal(data.val.noisy, noisy)
    assert torch.equal(data.val.reference, clean)
    assert data.fingerprint["photos"]["train"][0].endswith("photo0.png")
    assert list(data.fingerprint["sha256"]) == ["val_data.pkl"]
    with pytest.raises(InputError, match=r"val_data.pkl: holds RGB images"):
        Images(Pixelate(2), str(folder), str(val), channels=1, size=16, batch_size=4).setup()
    with pytest.raises(InputError, match=r"nowhere.pkl: no such file"):
        Images(Pixelate(2), str(folder), "nowhere.pkl", size=16, batch_size=4).setup()


def test_frozen_noise_is_a_fixed_pair_per_image(tmp_path):
    folder = photographs(tmp_path / "photos", 4)
    for noise in (Gaussian(25, frozen=True), Pixelate(2, frozen=True), Gaussian(25), Pixelate(2)):
        data = Images(noise, str(folder), train_pairs=12, size=16, batch_size=4)
        data.setup()
        data.trainer = type("Trainer", (), {"training": True, "global_rank": 0, "world_size": 1})()
        seen = []
        for epoch in range(2):
            loader = data.train_dataloader()
            loader.batches.set_epoch(epoch)
            pairs = {}
            for batch in loader:
                pair = data.on_after_batch_transfer(batch, 0)
                pairs |= {
                    int(i): (pair["input"][k], pair["target"][k])
                    for k, i in enumerate(batch["images"])
                }
            seen.append(pairs)
        same = [
            torch.equal(seen[0][i][side], seen[1][i][side]) for i in range(12) for side in (0, 1)
        ]
        assert all(same) if noise.frozen else not any(same)
        assert not any(torch.equal(*pair) for pair in seen[0].values())


def test_supervised_targets_are_clean(tmp_path):
    folder = photographs(tmp_path / "photos", 4)
    for noise in (Gaussian(50), Pixelate(2)):
        data = Images(noise, str(folder), train_pairs=12, size=16, batch_size=4, supervised=True)
        plain = Images(noise, str(folder), train_pairs=12, size=16, batch_size=4)
        sides = []
        for one in (data, plain):
            one.setup()
            one.trainer = type(
                "Trainer", (), {"training": True, "global_rank": 0, "world_size": 1}
            )()
            (batch, *_) = one.train_dataloader()
            sides.append(one.on_after_batch_transfer(batch, 0))
        assert torch.equal(sides[0]["input"], sides[1]["input"])
        smooth = (sides[0]["target"][..., 1:] - sides[0]["target"][..., :-1]).abs().mean()
        rough = (sides[1]["target"][..., 1:] - sides[1]["target"][..., :-1]).abs().mean()
        assert smooth < rough
