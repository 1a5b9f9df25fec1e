"""One noisy image per scene: what is read, trained and refused."""

import csv
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
import torch

from n2n_lightning import load
from n2n_lightning.data import BatchIndex, Movie, SingleImages
from n2n_lightning.data.reading import read_single
from n2n_lightning.files import InputError
from n2n_lightning.inference.checkpoint import read_info
from tests.captures import scenes
from tests.conftest import posix, run
from tests.single_images import CASES, SINGLE, SMALL, place, singles, weights  # noqa: F401


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
    if case in ("movie", "context", "hidden"):
        assert result["noisy_psnr_estimate"] == pytest.approx(20 * np.log10(210 / 20), abs=4)
        assert result["movie_psnr_estimate"] is not None
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
@pytest.mark.parametrize("case", ["neighbours", "masked", "thinned", "context", "hidden"])
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
    for case in ("neighbours", "masked", "context", "hidden"):
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


@pytest.mark.slow
def test_a_sweep_over_methods_rates_and_masks(place, tmp_path):
    options = ["optim.lr=0.001,0.003", "data.method=masked", f"hydra.sweep.dir={tmp_path / 'grid'}"]
    done = run("train", "-m", *SINGLE, "data.crop=16", *SMALL, *options, cwd=place)
    assert done.returncode == 0, done.stderr
    jobs = json.loads((tmp_path / "grid" / "sweep.json").read_text())["jobs"]
    losses = [job["val_self_loss"] for job in jobs]
    assert losses == sorted(losses)
    assert "PSNR" not in done.stdout


@pytest.mark.slow
def test_a_few_scenes_taken_twice_estimate_what_single_images_teach(place, tmp_path):
    options = ["data.val_noisy=a.npy", "data.val_target=b.npy", f"hydra.run.dir={tmp_path / 'out'}"]
    done = run("train", *CASES["neighbours"], *SMALL, *options, cwd=place)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["noisy_psnr_estimate"] is not None
    assert result["val_self_loss"] is None
    assert (tmp_path / "out" / "checkpoints" / "best.ckpt").exists()


@pytest.mark.slow
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
    for name, mask in {"pixels": "[1,1]", "auto": "auto"}.items():
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
            f"hydra.run.dir={name}",
        ]
        done = run("train", *source, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = re.findall(r"data\.mask=(\[1,\d+\])", done.stderr + done.stdout)
        assert lines  # recommended where single pixels were asked for, chosen by auto
        assert ("fits" in done.stderr) is (name == "pixels")
        assert ("(auto)" in done.stdout) is (name == "auto")
        result = load(tmp_path / name).denoise(noisy, axes="NHW")
        gains[name] = 10 * np.log10(((noisy - clean) ** 2).mean() / ((result - clean) ** 2).mean())
    assert gains["auto"] > gains["pixels"] + 1


@pytest.mark.walk
def test_a_run_goes_on_with_the_mask_that_it_began_with(tmp_path):
    clean = scenes(3, 6, 96)
    white = np.random.default_rng(0).normal(0, 20, clean.shape)
    np.save(tmp_path / "noisy.npy", (clean + white).astype(np.float32))
    source = [*SINGLE, "data.method=masked", "data.crop=32", *SMALL, "hydra.run.dir=out"]
    done = run("train", *source, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "data.mask=[1,1] (auto)" in done.stdout
    assert json.loads((tmp_path / "out/result.json").read_text())["data"]["mask"] == "[1,1]"
    assert read_info(tmp_path / "out").mask == "[1,1]"
    rows = white.copy()
    rows[..., 1:] += 0.8 * white[..., :-1]
    np.save(tmp_path / "noisy.npy", (clean + rows).astype(np.float32))
    done = run("train", "resume=out", "trainer.max_epochs=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_info(tmp_path / "out").mask == "[1,1]"
    done = run("train", "resume=out", "trainer.max_epochs=4", "data.mask=[1,3]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_info(tmp_path / "out/checkpoints/last.ckpt").mask == "[1,3]"


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


def test_single_and_movie_in_python(tmp_path, monkeypatch):
    singles(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = SingleImages("noisy.npy", crop=16, batch_size=2)
    data.setup()
    assert data.train[BatchIndex(0, 0, torch.arange(2))]["input"].shape == (2, 1, 16, 16)
    movie = Movie("noisy.npy", context=1, crop=16, batch_size=2, layout="NHW", blind="frame")
    movie.setup()
    batch = movie.train[BatchIndex(0, 0, torch.arange(2))]
    assert batch["input"].shape == (2, 2, 16, 16)
    assert batch["target"].shape == (2, 1, 16, 16)
