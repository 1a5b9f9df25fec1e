"""Users' noisy images as training data."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from n2n_lightning.data import Images
from n2n_lightning.data.reading import read_scenes
from n2n_lightning.files import InputError
from n2n_lightning.networks import DnCNN
from n2n_lightning.noise import Gaussian
from n2n_lightning.training.module import Denoiser
from tests.captures import (  # noqa: F401
    QUICK,
    folder_of,
    frame,
    model,
    no_noise_from_lightning,
    noisy8,
    own,
    scene,
)
from tests.conftest import LIMIT, linux, photographs, run


@pytest.mark.slow
def test_one_pair_and_one_burst_of_a_single_scene(tmp_path):
    clean = scene(200, 100)
    for k in (1, 2):
        tifffile.imwrite(tmp_path / f"scan{k}.tif", noisy8(clean, k))
    data = own(str(tmp_path / "scan1.tif"), str(tmp_path / "scan2.tif"))
    assert data.train.scenes.smallest == (180, 100)
    assert data.val.noisy.shape == (1, 1, 20, 100)
    # never trained on
    assert np.array_equal(data.val.reference[0, 0].numpy(), noisy8(clean, 2)[180:])
    burst = np.stack([noisy8(clean, k) for k in range(5)])
    np.save(tmp_path / "burst.npy", burst)
    data = own(str(tmp_path / "burst.npy"), layout="KHW", val_share=0.5)
    assert data.train.scenes.smallest == data.val.noisy.shape[2:] == (100, 100)
    assert data.train.scenes.captures(torch.tensor([0])).item() == 5
    none = own(str(tmp_path / "burst.npy"), layout="KHW", val_share=0)
    assert none.val is None
    source = ["data=pairs", "data.noisy=burst.npy", "data.layout=KHW", "data.val_share=0"]
    done = run("train", *source, *QUICK, "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "checkpoints" / "last.ckpt").exists()


def test_scenes_of_several_sizes(tmp_path):
    sizes = [(64, 64), (64, 48), (40, 90), (33, 64)]
    sides = {
        side: {f"im{i}.png": noisy8(scene(*s, i), 10 * i + k) for i, s in enumerate(sizes)}
        for k, side in enumerate("ab")
    }
    a, b = (folder_of(tmp_path / side, images) for side, images in sides.items())
    data = own(a, b, batch_size=4, train_pairs=8, val_share=0.3)
    batch = next(iter(data.train_dataloader()))
    assert batch["input"].shape == batch["target"].shape == (4, 1, 32, 32)
    assert [tuple(v["input"].shape[2:]) for v in data.val_dataloader()] == [(33, 64)]
    Image.fromarray(sides["b"]["im1.png"][:40]).save(tmp_path / "b" / "im1.png")
    with pytest.raises(
        InputError,
        match=r"b/im1\.png: is 1x40x48 uint8, but its partner .*a/im1\.png is 1x64x48 uint8",
    ):
        own(a, b)


@pytest.mark.slow
def test_blank_tiles_are_left_out_and_named(tmp_path):
    for side, k in (("a", 0), ("b", 1)):
        images = {f"t{i}.png": noisy8(scene(40, 40, i), 10 * i + k) for i in range(8)}
        folder_of(tmp_path / side, images | {"t3.png": np.zeros((40, 40), np.uint8)})
    done = run(
        "train",
        "data=pairs",
        "data.noisy=a",
        "data.target=b",
        *QUICK,
        "hydra.run.dir=out",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "left out: 1 that cannot be learnt from (a/t3.png)" in done.stdout
    assert json.loads((tmp_path / "out" / "result.json").read_text())["data"]["left_out"] == [
        "a/t3.png"
    ]
    blank = {f"{i}.png": np.zeros((40, 40), np.uint8) for i in range(4)}
    with pytest.raises(InputError, match="every image is blank"):
        own(folder_of(tmp_path / "c", blank), folder_of(tmp_path / "d", blank))


def test_photographs_in_folders_and_a_damaged_one_among_many(tmp_path):
    folder = photographs(tmp_path / "photos", 24)
    (folder / "below").mkdir()
    for i in range(12):
        shutil.move(folder / f"photo{i}.png", folder / "below" / f"photo{i}.png")
    (folder / "photo20.png").write_bytes((folder / "photo20.png").read_bytes()[:300])
    data = Images(Gaussian(25), str(folder), train_pairs=8, size=16, batch_size=4)
    data.setup()
    assert data.left_out == [str(folder / "photo20.png")]
    assert len(data.val) + len(data.train.starts) == 23
    for i in (13, 14, 15):
        (folder / f"photo{i}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"photo13\.png: is no PNG file"):
        Images(Gaussian(25), str(folder), train_pairs=8, size=16, batch_size=4).setup()


@pytest.mark.slow
def test_black_and_white_as_told(tmp_path, model):
    image = frame(scene(60, 50), 3, offset=1000)
    np.save(tmp_path / "a.npy", image)
    done = run("denoise", "a.npy", "-o", "b.npy", "--black", "990", "--scale", "1200", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "b.npy"), model.denoise(image, scale=1200, black=990))
    for asked, line in (
        (["--black", "5"], "say with --scale"),
        (["--black", "9", "--scale", "8"], "must be larger than"),
    ):
        done = run("denoise", "a.npy", "-o", "c.npy", *asked, cwd=tmp_path)
        assert done.returncode == 2
        assert line in done.stderr


@pytest.mark.slow
@linux
def test_validation_on_large_images_goes_through_tiles(tmp_path):
    """2048 x 2048 in less memory than the activations of the network alone would take."""
    code = """
import re, torch
import pytorch_lightning as pl
from torch.utils.data import DataLoader
from n2n_lightning.training.module import Denoiser
from n2n_lightning.networks import ResidualUNet
torch.set_num_threads(1)
big = [(torch.rand(1, 2048, 2048), torch.rand(1, 2048, 2048))]
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = pl.Trainer(accelerator="cpu", **quiet)
trainer.validate(Denoiser(ResidualUNet(1)), DataLoader(big), verbose=False)
# ru_maxrss counts the parent, too
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 1200 * 1024


def test_tiles_do_not_change_the_score():
    torch.manual_seed(0)
    network = DnCNN(1, 4, 3, batch_norm=False).eval()
    module = Denoiser(network)
    image = torch.rand(1, 1, 1300, 1310)
    with torch.no_grad():
        assert torch.allclose(module._whole(image), network(image), atol=1e-5)


def test_clean_images_of_blank_scenes_are_left_out_with_them(tmp_path):
    clean = np.stack([(scene(40, 40, i) * 180 + 30).astype(np.uint8) for i in range(6)])
    noisy = np.stack(
        [np.stack([noisy8(scene(40, 40, i), 10 * i + k) for k in range(2)]) for i in range(6)]
    )[:, :, None]
    noisy[2] = 7
    np.save(tmp_path / "noisy.npy", noisy)
    np.save(tmp_path / "clean.npy", clean[:, None])
    data = own(
        str(tmp_path / "noisy.npy"), clean=str(tmp_path / "clean.npy"), val_share=0.6, scale=255
    )
    assert len(data.train.scenes.names) == 2
    assert np.array_equal(data.val.reference[:, 0].numpy(), clean[3:])


def test_one_photograph_in_an_array_is_a_photograph_in_training_too(tmp_path):
    for name in "ab":
        np.save(
            tmp_path / f"{name}.npy",
            np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8),
        )
    data = own(str(tmp_path / "a.npy"), str(tmp_path / "b.npy"))
    assert (data.channels, len(data.train.scenes.names)) == (3, 1)
    for name in ("1.png", "1.bmp"):
        folder_of(tmp_path / "c", {name: noisy8(scene(40, 40), 1)})
    with pytest.raises(InputError, match="have one name"):
        read_scenes(str(tmp_path / "c"), str(tmp_path / "c"))
