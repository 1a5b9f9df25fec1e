"""What only a GPU can show: skipped where there is none."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from n2n_lightning import load
from n2n_lightning.runs.folder import device_name
from tests.conftest import run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA knows")

SMALL = (
    "data.train_pairs=256",
    "data.val_pairs=32",
    "data.batch_size=32",
    "trainer.accelerator=gpu",
)


def trained(place: Path, *arguments: str, folder: str = "out") -> dict[str, Any]:
    done = run("train", *SMALL, *arguments, f"hydra.run.dir={folder}", cwd=place)
    assert done.returncode == 0, done.stderr
    return json.loads((place / folder / "result.json").read_text())


def test_a_run_takes_the_gpu_and_the_precision_that_suits_it(tmp_path):
    result = trained(tmp_path, "trainer.max_epochs=1", "trainer.accelerator=auto")
    assert result["device"] == device_name(torch.device("cuda", 0))
    assert result["precision"] == (
        "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "32-true"
    )


def test_the_gpu_learns_what_the_cpu_learns(tmp_path):
    same = ("trainer.max_epochs=2", "trainer.precision=32-true")
    scores = [
        trained(tmp_path, *same, f"trainer.accelerator={a}", folder=a)["val_psnr"]
        for a in ("gpu", "cpu")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


def test_a_run_goes_on_as_if_it_had_not_ended(tmp_path):
    whole = trained(tmp_path, "trainer.max_epochs=4", "scheduler=constant", folder="whole")
    trained(tmp_path, "trainer.max_epochs=2", "scheduler=constant", folder="parts")
    done = run("train", "resume=parts", "trainer.max_epochs=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "parts" / "result.json").read_text())
    assert parts["epochs"] == whole["epochs"] == 4
    # not every kernel repeats bit by bit
    assert parts["val_psnr"] == pytest.approx(whole["val_psnr"], abs=0.1)


def test_jobs_of_a_sweep_share_a_gpu(tmp_path):
    how = (
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "sweep.jobs_per_gpu=2",
        "hydra.sweep.dir=sweep",
    )
    done = run("train", "-m", "seed=1,2", *how, *SMALL, "trainer.max_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "sweep" / "sweep.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["finished", "finished"]
    for job in ("0", "1"):
        assert not json.loads((tmp_path / "sweep" / job / "result.json").read_text())[
            "device"
        ].startswith("cpu")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_are_one_run(tmp_path):
    same = ("trainer.max_epochs=2", "trainer.precision=32-true")
    one = trained(tmp_path, *same, folder="one")
    two = trained(tmp_path, *same, "trainer=ddp", "trainer.devices=2", folder="two")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["val_psnr"] == pytest.approx(one["val_psnr"], abs=0.1)


def test_a_picture_is_denoised_as_on_the_cpu():
    noisy = np.random.default_rng(0).normal(0.5, 0.1, (500, 700, 3)).astype(np.float32)
    here, there = (
        load(device="cpu").denoise(noisy),
        load(device="cuda").denoise(noisy, tile=384, batch=4),
    )
    assert np.abs(here - there).max() < 0.05 * 0.1  # convolutions in TF32
    assert np.abs(load(fast=True, device="cuda").denoise(noisy) - here).max() < 0.2 * 0.1
