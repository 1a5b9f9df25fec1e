"""One noisy image per scene: neighbours, masks, counts, movies; warm starts; adaptation."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from n2n_lightning import load
from n2n_lightning.arrays.bad_pixels import inpaint
from n2n_lightning.arrays.frame_offsets import around, frames
from n2n_lightning.data import BatchIndex, Movie, SingleImages
from n2n_lightning.data.movie import surroundings
from n2n_lightning.data.reading import read_single
from n2n_lightning.data.reading_movies import read_movies
from n2n_lightning.data.self_supervised import CountSplitting, Neighbor2Neighbor, Noise2Void
from n2n_lightning.files import InputError
from n2n_lightning.losses import L2, Neighbor2NeighborRegularizer, subsampled
from n2n_lightning.metrics import sure
from n2n_lightning.metrics.noise_model import noise_line_of_residual
from n2n_lightning.networks import (
    DnCNN,
    DRUNet,
    EncoderDecoder,
    NAFNet,
    Noise2NoiseUNet,
    ResidualUNet,
    UNet,
)
from n2n_lightning.training import adaptation
from n2n_lightning.training.module import Denoiser
from tests.conftest import LIMIT, linux, posix, run
from tests.test_check import scenes

SMALL = [
    "model=residual_unet",
    "model.width=4",
    "data.batch_size=4",
    "data.train_pairs=16",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
]


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The methods


def test_neighbours_are_two_different_pixels_side_by_side_of_each_cell():
    image = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).view(2, 3, 8, 12)
    ready = Neighbor2Neighbor()(image, image, draws())
    assert ready["input"].shape == ready["target"].shape == (2, 3, 4, 6)
    y, x = (image[:, :1] // 12 % 8).long(), (image[:, :1] % 12).long()
    seen = set()
    for side, other in ((ready["input"], ready["target"]), (ready["target"], ready["input"])):
        rows, columns = side[:, 0] // 12 % 8, side[:, 0] % 12
        assert (rows // 2 == torch.arange(4)[:, None]).all()  # of their own cell
        assert (columns // 2 == torch.arange(6)).all()
        distance = (rows - other[:, 0] // 12 % 8).abs() + (columns - other[:, 0] % 12).abs()
        assert (distance == 1).all()
        seen |= {
            (int(r) % 2, int(c) % 2) for r, c in zip(rows.flatten(), columns.flatten(), strict=True)
        }
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}
    # channels of one pixel stay together
    assert torch.equal(ready["input"][:, 1], ready["input"][:, 0] + 96)
    assert y.max() == 7
    assert x.max() == 11
    odd = Neighbor2Neighbor()(torch.rand(1, 1, 7, 9), torch.rand(1, 1, 7, 9), draws())
    assert odd["input"].shape == (1, 1, 3, 4)


def test_missing_pixels_stay_out_of_the_targets_of_neighbours_and_masks():
    seen = torch.rand(4, 1, 32, 32, generator=draws())
    truth = torch.where(torch.rand(seen.shape, generator=draws(1)) < 0.2, torch.nan, seen)
    for method in (Neighbor2Neighbor(), Noise2Void(0.3)):
        ready = method(seen, truth, draws())
        assert ready["input"].isfinite().all()
        assert ready["target"].isnan().any()
    kept = Noise2Void(0.3)(seen, truth, draws())["target"]
    assert torch.equal(kept[kept.isfinite()], truth[kept.isfinite()])


@pytest.mark.parametrize("mask", [(1, 1), (1, 9)])
def test_what_fills_gaps_knows_nothing_of_the_hidden_pixels(mask):
    whole = torch.rand(1, 1, 64, 64, generator=draws())
    truth = torch.where(torch.rand(whole.shape, generator=draws(1)) < 0.3, torch.nan, whole)
    ready = Noise2Void(0.02, mask)(inpaint(truth), truth, draws())
    targets = ready["target"].isfinite()
    other = torch.where(targets, truth + 100, truth)
    again = Noise2Void(0.02, mask)(inpaint(other), other, draws())
    assert targets.sum() > 20
    assert (again["target"][targets] > 99).all()
    # one target may be what is shown in place of another
    changed = again["input"] != ready["input"]
    assert changed[targets].float().mean() < 0.1
    assert changed[truth.isnan()].float().mean() < 0.02


@pytest.mark.parametrize("mask", [(1, 1), (1, 9), (9, 1), (3, 5)])
def test_a_hidden_pixel_is_never_seen_nor_what_noise_along_its_line_would_show(mask):
    image = torch.arange(40 * 48, dtype=torch.float32).view(1, 1, 40, 48)
    height, width = mask
    hidden = 0
    for seed in range(30):
        ready = Noise2Void(0.02, mask)(image, image, draws(seed))
        for y, x in ready["target"][0, 0].isfinite().nonzero().tolist():
            hidden += 1
            assert ready["target"][0, 0, y, x] == image[0, 0, y, x]
            rows = slice(max(0, y - height // 2), y + height // 2 + 1)
            columns = slice(max(0, x - width // 2), x + width // 2 + 1)
            shown = ready["input"][0, 0, rows, columns]
            own = image[0, 0, rows, columns].reshape(-1)
            # all of its rectangle came from outside
            assert not torch.isin(own, shown.reshape(-1)).any()
    assert hidden > 500
    image = torch.rand(1, 1, 256, 256)
    chosen = Noise2Void(0.1)(image, image, draws())["target"].isfinite()
    assert float(chosen.float().mean()) == pytest.approx(0.1, abs=0.01)


def test_thinned_counts_are_independent_and_add_up():
    counts = torch.poisson(torch.full((1, 1, 300, 300), 6.0), generator=draws())
    ready = CountSplitting(0.0, 1.0)(counts, counts, draws(1))
    first, second = ready["input"] / 2, ready["target"] / 2
    assert torch.equal(first + second, counts)
    assert abs(float(np.corrcoef(first.flatten(), second.flatten())[0, 1])) < 0.015
    for half in (first, second):
        assert float(half.mean()) == pytest.approx(3, rel=0.02)
        assert float(half.var()) == pytest.approx(3, rel=0.03)
    again, other = (
        CountSplitting(0.0, 1.0)(counts, counts, draws(seed))["input"] for seed in (1, 2)
    )
    assert torch.equal(again, ready["input"])
    assert not torch.equal(other, ready["input"])
    lost = torch.where(counts == 7, torch.nan, counts)
    assert (
        CountSplitting(0.0, 1.0)(counts, lost, draws(1))["target"].isnan().sum()
        == (counts == 7).sum()
    )


def test_the_second_pass_corrects_what_neighbours_differ_by_and_its_weight_rises():
    draws_ = draws()
    whole = torch.rand(6, 1, 8, 8, generator=draws_)
    ready = Neighbor2Neighbor()(whole, whole, draws_)
    part = Neighbor2NeighborRegularizer(gamma=2.0)
    # A network that changes nothing: f(g1) - g2 and g1(f(y)) - g2(f(y)) are the same.
    for share in (0.0, 0.5, 1.0):
        part.progress = share
        assert float(part.second_pass(nn.Identity(), ready, ready["input"])) == pytest.approx(
            0, abs=1e-12
        )
    scale = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(scale.weight, 0.5)
    first, second = (subsampled(whole, ready["cells"][:, i]) for i in (0, 1))
    expected = float((0.5 * first - second - (0.5 * first - 0.5 * second)).square().mean())
    values = []
    for share in (0.0, 0.5, 1.0):
        part.progress = share
        values.append(part.second_pass(scale, ready, scale(ready["input"])))
    assert [v.item() for v in values] == pytest.approx([0, expected, 2 * expected], rel=1e-5)
    (gradient,) = torch.autograd.grad(values[2], scale.weight)
    residual = 0.5 * first - second - (0.5 * first - 0.5 * second)
    # none through f(y)
    assert float(gradient) == pytest.approx(float((2 * 2 * residual * first).mean()), rel=1e-4)


class Own(nn.Module):
    """A user's loss with a second pass: a denoised image should not change when denoised again."""

    seen: list = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.progress = 0.0

    def forward(self, output, target):
        return L2()(output, target)

    def second_pass(self, denoise, batch, output):
        Own.seen.append((self.progress, denoise(output).shape == output.shape, sorted(batch)))
        return 0 * output.sum()


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.isinstance.treespec")
def test_a_loss_of_ones_own_may_pass_through_the_network_twice():
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader

    Own.seen = []
    pairs = [(torch.rand(1, 16, 16), torch.rand(1, 16, 16)) for _ in range(8)]
    module = Denoiser(ResidualUNet(channels=1, width=4), loss=Own())
    off = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    pl.Trainer(max_epochs=1, accelerator="cpu", limit_val_batches=0, **off).fit(
        module, DataLoader(pairs, batch_size=4)
    )
    assert [share for share, _, _ in Own.seen] == [0.0, 0.5]
    assert all(same and names == ["input", "target"] for _, same, names in Own.seen)


# Reading


def test_every_image_is_a_scene_of_its_own(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (5, 12, 16)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", images, photometric="minisblack")
    np.save(tmp_path / "array.npy", images)
    (tmp_path / "folder" / "deeper").mkdir(parents=True)
    for i, image in enumerate(images):
        tifffile.imwrite(tmp_path / "folder" / ("deeper" if i > 2 else "") / f"{i}.tif", image)
    for name in ("stack.tif", "array.npy", "folder"):
        found = read_single(str(tmp_path / name))
        assert len(found.names) == 5, name
        values = torch.stack([found.image(i, 0)[0] for i in range(5)]).numpy()
        assert sorted(values.sum((1, 2)).tolist()) == sorted(
            images.astype(int).sum((1, 2)).tolist()
        )
    tifffile.imwrite(tmp_path / "folder" / "large.tif", np.zeros((30, 40), np.uint8))
    assert {
        found.image(i, 0).shape
        for found in [read_single(str(tmp_path / "folder"))]
        for i in range(6)
    } == {
        (1, 12, 16),
        (1, 30, 40),
    }
    tifffile.imwrite(tmp_path / "folder" / "other.tif", np.zeros((30, 40), np.uint16))
    with pytest.raises(InputError, match="they must be alike"):
        read_single(str(tmp_path / "folder"))


def test_movies_are_files_folders_of_files_or_folders_of_frames(tmp_path):
    movie = np.random.default_rng(0).integers(0, 255, (6, 12, 16)).astype(np.uint8)
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", movie, photometric="minisblack")
    np.save(tmp_path / "movie.npy", movie)
    (tmp_path / "several").mkdir()
    (tmp_path / "frames").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"{name}.tif").rename(tmp_path / "several" / f"{name}.tif")
    for i, frame in enumerate(movie):
        tifffile.imwrite(tmp_path / "frames" / f"{i}.tif", frame)
    for name, count in (("movie.npy", 1), ("several", 2), ("frames", 1)):
        found = read_movies(str(tmp_path / name))
        assert found.captures(torch.arange(len(found.names))).tolist() == [6] * count
        assert torch.equal(
            torch.stack([found.image(0, k)[0] for k in range(6)]), torch.from_numpy(movie)
        )
    tifffile.imwrite(tmp_path / "one.tif", movie[0])
    with pytest.raises(InputError, match="holds one frame"):
        read_movies(str(tmp_path / "one.tif"))


# Training


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
    "context": ["data=movie", "data.noisy=movie.npy", "data.context=1", "data.crop=16"],
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


@pytest.mark.walk
@pytest.mark.parametrize("case", CASES)
def test_every_source_trains_twice_alike_and_its_checkpoint_denoises(case, place, tmp_path):
    for name in ("one", "two"):
        done = run("train", *CASES[case], *SMALL, f"hydra.run.dir={tmp_path / name}", cwd=place)
        assert done.returncode == 0, done.stderr
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first)
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    with (tmp_path / "one" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert result["val_psnr"] is None
    if case in ("movie", "context"):
        assert result["noisy_psnr_estimate"] == pytest.approx(20 * np.log10(210 / 20), abs=4)
    else:
        assert float(rows[-1]["val_self_loss"]) > 0
        assert not any("psnr" in name for name in rows[0])
        assert not (tmp_path / "one" / "checkpoints" / "best.ckpt").exists()
        assert "nothing to compare with" in " ".join(done.stdout.split())
    assert (tmp_path / "one" / "samples.png").exists()
    source = CASES[case][1].removeprefix("data.noisy=")
    options = ["--checkpoint", tmp_path / "one", "--axes", "NHW", "-o", tmp_path / "clean.npy"]
    done = run("denoise", source, *options, cwd=place)
    assert done.returncode == 0, done.stderr
    noisy, clean = np.load(place / source), np.load(tmp_path / "clean.npy")
    assert clean.shape == noisy.shape
    assert clean.dtype == noisy.dtype
    if case != "thinned":  # whole numbers hide the little that was learnt
        assert not np.array_equal(clean, noisy)


@pytest.mark.walk
@pytest.mark.slow
@posix
@pytest.mark.parametrize("case", ["neighbours", "masked", "thinned", "context"])
def test_every_source_goes_on_after_kill_minus_nine_to_the_same_bits(case, place, tmp_path):
    longer = [*SMALL, "trainer.max_epochs=4"]
    done = run("train", *CASES[case], *longer, f"hydra.run.dir={tmp_path / 'whole'}", cwd=place)
    assert done.returncode == 0, done.stderr
    command = [
        sys.executable,
        "-m",
        "n2n_lightning.train",
        *CASES[case],
        *longer,
        f"hydra.run.dir={tmp_path / 'cut'}",
    ]
    process = subprocess.Popen(
        command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run("train", f"resume={tmp_path / 'cut'}", cwd=place)
    assert done.returncode == 0, done.stderr
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.walk
def test_a_missing_pixel_and_an_odd_size_spoil_nothing(tmp_path):
    singles(tmp_path, side=51)
    noisy = np.load(tmp_path / "noisy.npy")
    noisy[:, 10:14, 20] = np.nan
    noisy[0, 3, 3] = 1e6
    np.save(tmp_path / "noisy.npy", noisy)
    for case in ("neighbours", "masked", "context"):
        whole = [o.replace("movie.npy", "noisy.npy") for o in CASES[case] if "crop" not in o]
        done = run(
            "train",
            *whole,
            "data.crop=null",
            *SMALL,
            "data.train_pairs=6",
            f"hydra.run.dir={case}",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / case / "result.json").read_text())
        assert np.isfinite(result["train_loss"])


def test_a_sweep_over_methods_rates_and_masks(place, tmp_path):
    options = ["optim.lr=0.001,0.003", "data.method=masked", f"hydra.sweep.dir={tmp_path / 'grid'}"]
    done = run("train", "-m", *SINGLE, "data.crop=16", *SMALL, *options, cwd=place)
    assert done.returncode == 0, done.stderr
    jobs = json.loads((tmp_path / "grid" / "sweep.json").read_text())["jobs"]
    losses = [job["val_self_loss"] for job in jobs]
    assert losses == sorted(losses)
    assert "PSNR" not in done.stdout


def test_a_few_scenes_taken_twice_estimate_what_single_images_teach(place, tmp_path):
    options = ["data.val_noisy=a.npy", "data.val_target=b.npy", f"hydra.run.dir={tmp_path / 'out'}"]
    done = run("train", *CASES["neighbours"], *SMALL, *options, cwd=place)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["noisy_psnr_estimate"] is not None
    assert result["val_self_loss"] is None
    assert (tmp_path / "out" / "checkpoints" / "best.ckpt").exists()


def test_the_range_of_values_is_the_same_in_training_and_in_use(tmp_path):
    clean = singles(tmp_path, count=8, side=64, sigma=20)
    noisy = np.load(tmp_path / "noisy.npy")
    np.save(tmp_path / "noisy.npy", (10 * noisy + 3000).astype(np.float32))
    options = [
        "data.train_pairs=600",
        "trainer.max_epochs=3",
        "optim.lr=0.003",
        "model=residual_unet",
        "model.width=8",
        "data.batch_size=8",
    ]
    done = run("train", *SINGLE, *options, "data.crop=32", "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = (
        load(tmp_path / "out").denoise(np.load(tmp_path / "noisy.npy"), axes="NHW") - 3000
    ) / 10
    before, after = (float(((x - clean) ** 2).mean()) for x in (noisy, result))
    assert after < before / 4  # 6 dB


@pytest.mark.walk
def test_lines_are_learnt_away_by_a_mask_along_them_and_not_by_a_pixel(tmp_path):
    clean = scenes(3, 8, 64)
    noise = np.random.default_rng(0).normal(0, 20, clean.shape)
    for x in range(1, 64):
        noise[..., x] = 0.8 * noise[..., x - 1] + 0.6 * noise[..., x]
    noisy = (clean + noise).astype(np.float32)
    np.save(tmp_path / "noisy.npy", noisy)
    gains = {}
    for mask in ("[1,1]", "[1,9]"):
        options = [
            "data.train_pairs=800",
            "trainer.max_epochs=2",
            "optim.lr=0.003",
            "model=residual_unet",
            "model.width=8",
            "data.batch_size=8",
        ]
        source = [
            *SINGLE,
            "data.method=masked",
            f"data.mask={mask}",
            "data.crop=48",
            f"hydra.run.dir={mask[1:4]}",
        ]
        done = run("train", *source, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("data.mask=[1,9] fits" in done.stderr) is (mask == "[1,1]")
        result = load(tmp_path / mask[1:4]).denoise(noisy, axes="NHW")
        gains[mask] = 10 * np.log10(((noisy - clean) ** 2).mean() / ((result - clean) ** 2).mean())
    assert gains["[1,9]"] > gains["[1,1]"] + 1


@pytest.mark.walk
def test_what_is_no_count_is_refused_or_said(tmp_path):
    singles(tmp_path)
    thin = ["data=single", "data.method=thinned", *SMALL, "hydra.run.dir=out"]
    done = run("train", *thin, "data.noisy=noisy.npy", cwd=tmp_path)
    assert done.returncode == 2
    assert "data.method=thinned" in done.stderr
    assert "photon counts" in done.stderr
    clean = scenes(0, 4, 160) ** 2 / 200
    for gain, code in ((8, 2), (2, 0)):  # far from counts, and nearly
        camera = gain * np.random.default_rng(0).poisson(clean / gain)
        np.save(tmp_path / "camera.npy", camera.astype(np.uint16))
        done = run("train", *thin, "data.noisy=camera.npy", cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert "times the brightness" in done.stderr
        assert (tmp_path / "out" / "result.json").exists() == (code == 0)
    np.save(tmp_path / "counts.npy", np.random.default_rng(0).poisson(clean).astype(np.uint16))
    done = run("train", *thin[:-1], "hydra.run.dir=good", "data.noisy=counts.npy", cwd=tmp_path)
    assert "warning" not in done.stderr
    done = run("check", "counts.npy", cwd=tmp_path)
    assert done.stdout.splitlines()[-1].endswith(
        "data=single data.noisy=counts.npy data.method=thinned"
    )


PLATEAU = ["scheduler=own", "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"]


@pytest.mark.walk
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.method=magic"], "data.method=magic: must be one of neighbours, masked, thinned"),
        (["data.method=masked", "data.mask=[2,1]"], "data.mask=[2, 1]: must be"),
        (["data.method=masked", "data.share=0"], "data.share=0"),
        (["data.gamma=-1"], "data.gamma=-1"),
        (["data.val_target=b.npy"], "data.val_target=b.npy"),
        (["target=clean"], "target=clean: data=single knows no clean images"),
        (
            [
                "scheduler=own",
                "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
                "+scheduler.mode=max",
            ],
            "mode=max",
        ),
        (["data=movie", "data.context=9"], "data.context=9: needs 19 frames"),
        (["data=movie", "data.within=0"], "data.within=0"),
    ],
)
def test_mistakes_are_one_line(options, message, place, tmp_path):
    done = run(
        "train",
        "data=single",
        "data.noisy=noisy.npy",
        *SMALL,
        f"hydra.run.dir={tmp_path / 'out'}",
        *options,
        cwd=place,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "out" / "result.json").exists()


# Movies


def test_a_frame_is_never_shown_to_the_network_that_learns_it():
    for count in (2, 3, 5, 9):
        for t in range(count):
            assert all(
                around(t, k, count) != t and 0 <= around(t, k, count) < count for k in frames(3)
            )
    movie = torch.arange(7.0).view(1, 7, 1, 1, 1).expand(1, 7, 2, 8, 8)[0]
    from n2n_lightning.data.scene_set import EqualSizeScenes

    scene = EqualSizeScenes([movie], ["movie"], torch.tensor([7]))
    near = surroundings(scene, torch.tensor([0, 0]), torch.tensor([0, 3]), 2)
    assert near.shape == (2, 8, 8, 8)
    assert near[:, ::2, 0, 0].tolist() == [[2, 1, 1, 2], [1, 2, 4, 5]]


@pytest.mark.parametrize(
    "kind", [UNet, EncoderDecoder, Noise2NoiseUNet, ResidualUNet, DnCNN, DRUNet, NAFNet]
)
def test_every_network_may_have_other_channels_in_than_out(kind):
    network = kind(channels=6, out_channels=3).eval()
    image = torch.rand(2, 6, 40, 33)
    with torch.inference_mode():
        assert network(image).shape == (2, 3, 40, 33)
    assert network.arguments["out_channels"] == 3


@pytest.mark.walk
def test_a_checkpoint_with_a_context_knows_it_and_says_what_it_needs(place, tmp_path):
    done = run("train", *CASES["context"], *SMALL, f"hydra.run.dir={tmp_path / 'out'}", cwd=place)
    assert done.returncode == 0, done.stderr
    model, movie = load(tmp_path / "out"), np.load(place / "movie.npy")
    assert model.context == 1
    clean = model.denoise(movie, axes="NHW")
    changed = movie.copy()
    changed[2] += 50  # its own result does not see it, its neighbours' do
    again = model.denoise(changed, axes="NHW")
    assert np.array_equal(clean[2], again[2])
    assert not np.array_equal(clean[1], again[1])
    assert np.array_equal(clean[5], again[5])
    assert model.denoise(movie, axes="NHW", tta=True).shape == movie.shape
    (tmp_path / "frames").mkdir()
    for t, frame in enumerate(movie):
        tifffile.imwrite(tmp_path / "frames" / f"{t}.tif", frame)
    done = run(
        "denoise",
        tmp_path / "frames",
        "-o",
        tmp_path / "apart",
        "--checkpoint",
        tmp_path / "out",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert all(
        np.array_equal(tifffile.imread(tmp_path / "apart" / f"{t}.tif"), clean[t]) for t in range(6)
    )
    colour = np.random.default_rng(0).random((4, 2, 3, 24, 24)).astype(np.float32)
    np.save(tmp_path / "rgb.npy", colour)
    source = ["data=pairs", f"data.noisy={tmp_path / 'rgb.npy'}", f"init={tmp_path / 'out'}"]
    done = run(
        "train",
        *source,
        "trainer.max_epochs=1",
        "data.batch_size=2",
        f"hydra.run.dir={tmp_path / 'c'}",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    result = load(tmp_path / "c").denoise(colour[:, 0], axes="NCHW")
    assert float(result.std(1).mean()) > 0.01  # in colour
    np.save(tmp_path / "one.npy", movie[0])
    done = run(
        "denoise",
        tmp_path / "one.npy",
        "-o",
        tmp_path / "c.npy",
        "--checkpoint",
        tmp_path / "out",
        cwd=place,
    )
    assert done.returncode == 1
    assert "needs a stack of frames" in done.stderr


# Weights to start from


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A run on colour images."""
    folder = tmp_path_factory.mktemp("begun")
    np.save(
        folder / "rgb.npy", np.random.default_rng(0).random((4, 2, 3, 24, 24)).astype(np.float32)
    )
    options = ["data=pairs", "data.noisy=rgb.npy", *SMALL, "hydra.run.dir=first", "optim.lr=0.01"]
    done = run("train", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.walk
def test_init_starts_from_the_weights_of_a_run(begun, tmp_path):
    source = [
        "data=pairs",
        f"data.noisy={begun / 'rgb.npy'}",
        "data.batch_size=4",
        "data.train_pairs=4",
    ]
    still = [
        "optim.lr=1e-12",
        "trainer.max_epochs=1",
        "hydra.run.dir=next",
        "trainer.precision=32-true",
    ]
    done = run("train", f"init={begun / 'first'}", *source, *still, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "init: the weights of" in done.stdout
    best = torch.load(begun / "first" / "checkpoints" / "best.ckpt", weights_only=True)[
        "state_dict"
    ]
    after = weights(tmp_path / "next")
    assert all(torch.allclose(best[name], after[name], atol=1e-6) for name in best)
    again = run("train", "resume=next", "trainer.max_epochs=2", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "init:" not in again.stdout  # the run's own weights win


@pytest.mark.walk
def test_init_fits_other_numbers_of_channels_and_denoises_grey_as_before(begun, tmp_path):
    grey = np.random.default_rng(1).random((4, 2, 1, 24, 24)).astype(np.float32)
    np.save(tmp_path / "grey.npy", grey)
    still = [
        "optim.lr=1e-12",
        "trainer.max_epochs=1",
        "hydra.run.dir=next",
        "trainer.precision=32-true",
    ]
    source = ["data=pairs", "data.noisy=grey.npy", "data.batch_size=4", "data.train_pairs=4"]
    done = run("train", f"init={begun / 'first'}", *source, *still, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 channels in place of 3" in done.stdout
    image = torch.rand(1, 1, 24, 24)
    with torch.inference_mode():
        before, after = (load(p)(image) for p in (begun / "first", tmp_path / "next"))
    assert torch.allclose(before, after, atol=1e-4)


@pytest.mark.walk
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model=unet"], "model=unet: init="),
        (["model=residual_unet", "model.width=8"], "model.width=8: init="),
        (["init=nowhere"], "nowhere: no such file"),
    ],
)
def test_a_network_that_differs_from_the_one_to_start_from_is_refused(
    options, message, begun, tmp_path
):
    source = [
        f"init={begun / 'first'}",
        "data=pairs",
        f"data.noisy={begun / 'rgb.npy'}",
        "hydra.run.dir=out",
    ]
    done = run("train", *source, *options, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out" / "result.json").exists()
    same = ["model=residual_unet", "model.width=4", "trainer.max_epochs=1", "data.batch_size=2"]
    done = run("train", *source, *same, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.walk
def test_a_sweep_may_start_from_weights(begun, tmp_path):
    source = [
        f"init={begun / 'first'}",
        "data=pairs",
        f"data.noisy={begun / 'rgb.npy'}",
        "data.batch_size=2",
    ]
    options = ["optim.lr=0.001,0.0001", "trainer.max_epochs=1", "hydra.sweep.dir=grid"]
    done = run("train", "-m", *source, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# Adaptation


def pictures(folder: Path, colour: bool = False) -> np.ndarray:
    """Noisy pictures, float TIFFs between 0 and 1, in the folder; the clean ones."""
    folder.mkdir()
    clean = scenes(5, 3, 96) / 255
    clean = np.stack([clean, clean**2, clean**0.5], -1) if colour else clean
    noise = np.random.default_rng(5).normal(0, 0.15, clean.shape)
    for i, image in enumerate((clean + noise).astype(np.float32)):
        tifffile.imwrite(folder / f"{i}.tif", image, photometric="rgb" if colour else "minisblack")
    return clean


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.parametrize("colour", [False, True])
def test_adapt_learns_from_the_pictures_and_keeps_what_it_learnt(colour, tmp_path):
    clean = pictures(tmp_path / "noisy", colour)
    done = run("denoise", "noisy", "-o", "clean", "--adapt", "--minutes", "0.3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "learnt from 3 images for " in done.stdout
    model = load(tmp_path / "clean" / "adapted.ckpt")
    assert model.channels == (3 if colour else 1)
    (tmp_path / "clean" / "1.tif").unlink()
    done = run("denoise", "noisy", "-o", "clean", "--adapt", cwd=tmp_path)
    assert done.returncode == 2
    assert "clean/adapted.ckpt: is there already" in done.stderr
    done = run(
        "denoise", "noisy", "-o", "clean", "--checkpoint", "clean/adapted.ckpt", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    done = run(
        "denoise", "noisy", "-o", "again", "--checkpoint", "clean/adapted.ckpt", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for i, image in enumerate(clean):
        noisy, one, two = (
            tifffile.imread(tmp_path / d / f"{i}.tif") for d in ("noisy", "clean", "again")
        )
        assert np.array_equal(one, two)
        assert ((one - image) ** 2).mean() < 0.25 * ((noisy - image) ** 2).mean()


def test_steins_estimate_finds_the_best_of_several_filters():
    """Noise that grows with brightness; the estimate against the error, to 1/50 of the noise."""
    draws = np.random.default_rng(3)
    clean = gaussian_filter(draws.normal(size=(4, 128, 128)), (0, 6, 6)) * 4000 + 1000
    variance = 200 + 2 * clean
    noisy = clean + draws.normal(size=clean.shape) * np.sqrt(variance)
    widths = (0.5, 1.0, 2.0, 4.0, 8.0)
    smooth = [lambda image, width=w: gaussian_filter(image, width) for w in widths]
    images = list(noisy)
    images[0][3, 4] = np.nan
    found = [sure.sure(f, images[1:], (200.0, 2.0)) for f in smooth]
    truth = [np.mean((gaussian_filter(noisy[1:], (0, w, w)) - clean[1:]) ** 2) for w in widths]
    assert found == pytest.approx(truth, rel=0.02, abs=0.02 * variance.mean())
    assert np.argmin(found) == np.argmin(truth)
    a, b = noise_line_of_residual(images, list(clean))
    assert (a, b) == (pytest.approx(200, abs=120), pytest.approx(2, rel=0.1))
    assert sure.sure(lambda image: image, images[:1], (200.0, 2.0)) == pytest.approx(
        variance[0].mean(), rel=0.1
    )
    assert noise_line_of_residual([np.zeros((8, 8))], [np.zeros((8, 8))]) == (0.0, 0.0)


def test_what_was_learnt_in_vain_is_given_back(tmp_path, monkeypatch):
    clean = pictures(tmp_path / "noisy")
    images = [
        torch.from_numpy(tifffile.imread(tmp_path / "noisy" / f"{i}.tif"))[None]
        for i in range(len(clean))
    ]
    model = load()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    good = model.denoise(images[0], axes="CHW")
    draws = torch.Generator().manual_seed(0)
    for value in model.network.state_dict().values():
        value += 0.5 * value.std(correction=0) * torch.randn(value.shape, generator=draws)
    assert adaptation._interpolate_weights(model, before, images) == 0
    assert torch.equal(model.denoise(images[0], axes="CHW"), good)
    seen = []
    monkeypatch.setattr(
        adaptation.sure, "sure", lambda denoise, some, line: seen.extend(some) or 0.0
    )
    gap = images[0].clone()
    gap[:, 60:70] = 77
    adaptation._interpolate_weights(model, before, [gap], (77.0,))
    # what says "missing" is no brightness
    assert np.array_equal(np.isnan(seen[0]), (gap == 77).numpy())
    monkeypatch.undo()
    # which changes nothing
    spoilt = {name: torch.zeros_like(value) for name, value in before.items()}
    assert adaptation._interpolate_weights(model, spoilt, images) == 1
    assert torch.equal(model.denoise(images[0], axes="CHW"), good)


@pytest.mark.walk
@pytest.mark.slow
@linux
def test_ctrl_c_stops_adapting_and_denoises_with_what_there_is(tmp_path):
    pictures(tmp_path / "noisy")
    command = [
        sys.executable,
        "-m",
        "n2n_lightning.denoise",
        "noisy",
        "-o",
        "clean",
        "--adapt",
        "--minutes",
        "60",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    started, busy = time.monotonic(), 0.0
    # seconds of processor time: it is learning by then
    while busy < 12 and time.monotonic() - started < LIMIT:
        time.sleep(0.2)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        busy = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    assert "learnt from 3 images for " in out
    assert sorted(p.name for p in (tmp_path / "clean").iterdir()) == [
        "0.tif",
        "1.tif",
        "2.tif",
        "adapted.ckpt",
    ]


@pytest.mark.walk
def test_adapt_says_what_it_cannot_learn_from(tmp_path):
    pictures(tmp_path / "noisy")
    tifffile.imwrite(tmp_path / "noisy" / "other.tif", np.zeros((40, 40), np.uint8))
    done = run("denoise", "noisy", "-o", "clean", "--adapt", cwd=tmp_path)
    assert done.returncode == 2
    assert "several kinds" in done.stderr
    cases = [
        (["--adapt", "--minutes", "0"], "--minutes 0"),
        (["--adapt", "--scale", "5"], "--scale"),
    ]
    for options, message in [*cases, (["--minutes", "3"], "goes with --adapt")]:
        done = run("denoise", "noisy", "-o", "clean", *options, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
    assert not (tmp_path / "clean").exists()


@pytest.mark.walk
def test_denoise_needs_nothing_of_training_unless_it_adapts():
    code = (
        "import sys, n2n_lightning.denoise, n2n_lightning.training.adaptation;"
        " print('n2n_lightning.train' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_single_and_movie_in_python(tmp_path, monkeypatch):
    singles(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = SingleImages("noisy.npy", crop=16, batch_size=2)
    data.setup()
    assert data.train[BatchIndex(0, 0, torch.arange(2))]["input"].shape == (2, 1, 16, 16)
    movie = Movie("noisy.npy", context=1, crop=16, batch_size=2, layout="NHW")
    movie.setup()
    batch = movie.train[BatchIndex(0, 0, torch.arange(2))]
    assert batch["input"].shape == (2, 2, 16, 16)
    assert batch["target"].shape == (2, 1, 16, 16)
