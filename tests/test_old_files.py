"""What earlier versions wrote goes on working: tests/fixtures/db8460b.tar.xz has a run and a sweep of that commit."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from n2n_lightning.restore import PRETRAINED, load, read_checkpoint
from tests.conftest import run

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = ROOT / "tests" / "fixtures" / "db8460b.tar.xz"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with `run`, two epochs of a tiny network, and `sweep`, two jobs of one epoch."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_an_old_run_is_resumed_scored_used_and_reported(old):
    before = json.loads((old / "run" / "result.json").read_text())
    weights = torch.load(old / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    scored = ["--data", "photos", "--json", "scores.json"]
    done = run("evaluate", "run", *scored, cwd=old)
    assert done.returncode == 0, done.stderr
    assert json.loads((old / "scores.json").read_text())["scores"]["run"]["parameters"] == before["parameters"]
    np.save(old / "noisy.npy", np.random.default_rng(0).integers(0, 255, (30, 20, 3), np.uint8))
    done = run("denoise", "noisy.npy", "-o", "clean.npy", "--checkpoint", "run", cwd=old)
    assert done.returncode == 0, done.stderr
    expected = load(old / "run").denoise(np.load(old / "noisy.npy"))
    assert np.array_equal(np.load(old / "clean.npy"), expected)

    done = run("train", "trainer.max_epochs=3", "resume=run", cwd=old)
    assert done.returncode == 0, done.stderr
    result = json.loads((old / "run" / "result.json").read_text())
    assert (result["epochs"], result["parameters"]) == (3, before["parameters"])
    rows = (old / "run" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]
    after = torch.load(old / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {n: v.shape for n, v in after.items()} == {n: v.shape for n, v in weights.items()}

    done = run("report", "run", "sweep", "--out", "page", cwd=old)
    assert done.returncode == 0, done.stderr
    page = (old / "page" / "report.md").read_text()
    assert "ResidualUNet" in page
    assert "Figure 2" in page


def test_an_old_sweep_goes_on(old):
    (old / "sweep" / "1" / "result.json").unlink()  # as if it had been killed
    shutil.rmtree(old / "sweep" / "1" / "checkpoints")
    done = run("train", "-m", "sweep.resume=sweep", cwd=old)
    assert done.returncode == 0, done.stderr
    rows = {row["job"]: row for row in json.loads((old / "sweep" / "sweep.json").read_text())["jobs"]}
    assert {row["state"] for row in rows.values()} == {"finished"}
    assert "0  finished  optim.lr=0.01" in done.stdout
    first = json.loads((old / "sweep" / "0" / "result.json").read_text())
    assert first["git_commit"].startswith("db8460b")  # it was not repeated


@pytest.mark.parametrize("path", [PRETRAINED, ROOT / "docs" / "checkpoints" / "best.ckpt"], ids=lambda p: p.name)
def test_checkpoints_that_come_along_load_and_denoise(path):
    assert read_checkpoint(path)["n2n_lightning"]["model"]["_target_"].startswith("n2n_lightning.networks.")
    image = np.random.default_rng(0).normal(0.5, 0.1, (40, 30, 3)).astype(np.float32)
    result = load(path).denoise(image)
    assert np.isfinite(result).all()
    assert result.std() < image.std()


@pytest.mark.parametrize(
    "name",
    [
        *(f"sources.{n}" for n in ("OwnPairs", "Photos", "Images", "Course", "NoisyPairs")),
        *(f"networks.{n}" for n in ("UNet", "EncoderDecoder", "ResidualUNet", "DnCNN", "NAFNet", "DRUNet", "Network")),
        *(f"noise.{n}" for n in ("Pixelate", "Gaussian", "Camera", "KSpace", "Noise", "generator")),
        *("losses.L2", "module.warmup_cosine", "module.Denoiser", "sweep.Start", "networks.Noise2NoiseUNet"),
    ],
)
def test_dotted_names_of_configurations_still_resolve(name):
    assert callable(instantiate({"_target_": f"n2n_lightning.{name}", "_partial_": True}))
