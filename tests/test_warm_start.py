"""Training that starts from the weights of another run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from n2n_lightning import load
from tests.conftest import run
from tests.single_images import SMALL, weights

# On one worker, which trains the run of `begun` once.
pytestmark = pytest.mark.xdist_group("warm start")


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
