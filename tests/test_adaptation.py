"""Adaptation of a checkpoint to the images that it denoises."""

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

from n2n_lightning import load
from n2n_lightning.training import adaptation
from tests.captures import scenes
from tests.conftest import LIMIT, linux, run


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


@pytest.mark.slow
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


def test_the_line_of_the_noise_is_that_of_the_pictures():
    from skimage.data import camera

    draws = np.random.default_rng(0)
    clean = camera()[80:336, 100:356].astype(np.float64)
    noise = 10 * draws.standard_normal((2, *clean.shape))
    pictures = [torch.from_numpy(clean + one)[None] for one in noise]
    line = adaptation.noise_line_of_pictures(pictures)
    assert line is not None
    a, b = line
    assert a + b * clean.mean() == pytest.approx(100, rel=0.15)
    lines = np.cumsum(noise[0], 1) - np.cumsum(np.roll(noise[0], 4, 1), 1)
    correlated = torch.from_numpy(clean + lines)[None]
    assert adaptation.noise_line_of_pictures([correlated]) is None
