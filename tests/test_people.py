"""What people's files and habits do to it: inputs that programs of this kind tripped over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from n2n_lightning import load
from n2n_lightning.networks import ResidualUNet, apply, multiple_of
from n2n_lightning.training.module import Denoiser
from tests.captures import QUICK, model, no_noise_from_lightning, scene  # noqa: F401
from tests.conftest import LIMIT, course_files, photographs, run


@pytest.mark.walk
@pytest.mark.slow
def test_runs_and_sweeps_that_begin_together_have_a_folder_each(tmp_path):
    small = ["data.val_pairs=4", "data.size=8", *QUICK]
    command = [sys.executable, "-m", "n2n_lightning.train"]
    for mode, base in (([], "runs"), (["-m", "seed=1,2"], "sweeps")):
        started = [
            subprocess.Popen(
                [*command, *mode, *small],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for process in started:
            _, errors = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, errors
        folders = list((tmp_path / "outputs" / base).iterdir())
        assert len(folders) == 3
        for folder in folders:
            assert len(list(folder.rglob("result.json"))) == (1 if base == "runs" else 2)
    name = folders[0].relative_to(tmp_path)
    refused = run("train", "-m", "seed=5,6", *small, f"hydra.sweep.dir={name}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "holds the sweep of -m seed=1,2" in refused.stderr


class Narrow(torch.nn.Module):
    """Without padding: sizes must be divisible by 4."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.down, self.up = (
            torch.nn.Conv2d(3, width, 4, 4),
            torch.nn.ConvTranspose2d(width, 3, 4, 4),
        )

    def forward(self, image):
        if image.shape[2] % 4 or image.shape[3] % 4:
            raise RuntimeError("sizes do not match")
        return self.up(self.down(image))


@pytest.mark.walk
def test_networks_without_padding_work_at_every_size(tmp_path):
    network = Narrow().train()
    network.down.eval()
    assert multiple_of(network, torch.zeros(1, 3, 8, 8)) == 4
    assert network.training
    assert not network.down.training
    assert apply(network, torch.rand(2, 3, 13, 18)).shape == (2, 3, 13, 18)
    with pytest.raises(ValueError, match="returns no image of the size that it is given"):
        apply(torch.nn.Conv2d(3, 3, 3), torch.rand(1, 3, 9, 9))
    photographs(tmp_path / "photos", 12, 61)  # validated whole
    asked = ["data=images", "data.root=photos", "noise=gaussian", "data.size=18", *QUICK[:-1]]
    own_network = ["model=own", "model._target_=tests.test_people.Narrow"]
    done = run("train", *asked, *own_network, "hydra.run.dir=out", cwd=tmp_path, env=REPOSITORY)
    assert done.returncode == 0, done.stderr
    image = np.random.default_rng(0).integers(0, 255, (37, 41, 3), np.uint8)
    assert load(tmp_path / "out", ["tests.test_people"]).denoise(image).shape == image.shape


REPOSITORY = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


def pairs(count: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    clean = torch.rand(count, 3, 1, 1).expand(-1, -1, 16, 16)
    return [
        (image + 0.1 * torch.randn_like(image), image + 0.1 * torch.randn_like(image))
        for image in clean
    ]


def test_own_trainer_own_loader_our_module(tmp_path):
    """docs/how-to/extend.md's fifteen lines, then what people do next."""
    loader = DataLoader(pairs(), batch_size=4)
    module = Denoiser(ResidualUNet(3, width=4, levels=2))
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=2, default_root_dir=tmp_path, **options)
    trainer.fit(module, loader, loader)
    assert len(module.history) == 2
    (scores,) = trainer.validate(module, loader, verbose=False)
    assert scores["val_psnr"] == pytest.approx(module.history[-1]["val_psnr"], abs=1e-4)
    (tested,) = trainer.test(module, loader, verbose=False)
    assert tested["val_psnr"] == scores["val_psnr"]
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    image = torch.rand(1, 3, 21, 17)
    expected = module.eval()(image)
    assert torch.allclose(load(tmp_path / "mine.ckpt")(image), expected, atol=1e-6)
    again = Denoiser.load_from_checkpoint(tmp_path / "mine.ckpt")
    assert torch.allclose(again.eval()(image), expected, atol=1e-6)
    assert len(again.history) == 2
    pl.Trainer(max_epochs=1, default_root_dir=tmp_path, **options).fit(
        again.train(), loader, loader
    )


@pytest.mark.walk
@pytest.mark.parametrize(
    "asked",
    [
        ["+callbacks.rate._target_=pytorch_lightning.callbacks.LearningRateMonitor"],
        [
            "+trainer.logger._target_=pytorch_lightning.loggers.CSVLogger",
            "+trainer.logger.save_dir=more",
        ],
        ["+trainer.overfit_batches=1"],
        ["+trainer.fast_dev_run=true"],
        [
            "scheduler=own",
            "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
            "+scheduler.mode=max",
        ],
        [
            "scheduler=own",
            "scheduler._target_=torch.optim.lr_scheduler.StepLR",
            "+scheduler.step_size=1",
        ],
        ["optim=own", "optim._target_=torch.optim.SGD", "+optim.momentum=0.9"],
    ],
    ids=lambda asked: asked[0].split("=")[0] + asked[-1].split("=")[-1],
)
def test_callbacks_loggers_schedules_and_optimisers_of_lightning_and_torch(asked, tmp_path):
    course_files(tmp_path / "course")
    quick = [
        "data=course",
        "data.root=course",
        "data.batch_size=6",
        "model=residual_unet",
        "model.width=4",
        "trainer.accelerator=cpu",
    ]
    done = run("train", *quick, *asked, "trainer.max_epochs=2", "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["status"] == "finished"
    if "CSVLogger" in asked[0]:
        assert "val_psnr" in next((tmp_path / "more").rglob("metrics.csv")).read_text()


def test_an_argument_of_the_trainer_that_is_typed_without_a_plus(tmp_path):
    done = run("train", "trainer.fast_dev_run=true", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: trainer.fast_dev_run: is given as +trainer.fast_dev_run=VALUE"
    )


def test_resume_beside_options_that_equal_the_runs_and_another_batch_size(tmp_path):
    course_files(tmp_path / "course", train=24)
    quick = [
        "data=course",
        "data.root=course",
        "data.batch_size=6",
        "model=residual_unet",
        "model.width=4",
        "trainer.accelerator=cpu",
    ]
    assert (
        run("train", *quick, "trainer.max_epochs=1", "hydra.run.dir=out", cwd=tmp_path).returncode
        == 0
    )
    done = run("train", "model=residual_unet", "trainer.max_epochs=2", "resume=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = run("train", "model=unet", "resume=out", cwd=tmp_path)
    assert refused.stderr.startswith("error: model=unet: cannot change when a run goes on")


def test_another_batch_size_inside_an_epoch_goes_on_after_the_same_share(tmp_path):
    from n2n_lightning.data.datasets import Pairs
    from n2n_lightning.data.samplers import BatchSampler, Loader

    images = torch.arange(24.0).view(24, 1, 1, 1)
    first, second = (
        Loader(Pairs(images, images), BatchSampler(24, size, 0, True), 0) for size in (6, 3)
    )
    batches = iter(first)
    for _ in range(3):
        next(batches)
    second.load_state_dict(first.state_dict())
    assert [len(batch["images"]) for batch in second] == [3, 3]
    second.load_state_dict({"epoch": 0, "start": 7, "count": 8})
    first.load_state_dict(second.state_dict())
    assert [len(batch["images"]) for batch in first] == [6]


def test_evaluate_needs_what_it_scores_alone_and_shows_grey_images_to_a_colour_checkpoint(tmp_path):
    course_files(tmp_path / "course")
    (tmp_path / "course" / "train_data.pkl").unlink()
    done = run("evaluate", "--data", "course", "--root", "course", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("evaluate", "--data", "course", "--root", "course", "--classical", cwd=tmp_path)
    assert done.returncode == 2
    assert "train_data.pkl" in done.stderr
    clean = np.stack([scene(48, 40, i) for i in range(3)])
    np.save(tmp_path / "clean.npy", clean.astype(np.float32))
    np.save(
        tmp_path / "noisy.npy",
        (clean + np.random.default_rng(0).normal(0, 0.1, clean.shape)).astype(np.float32),
    )
    from n2n_lightning.inference.checkpoint import PRETRAINED

    scored = [
        "--data",
        "pairs",
        "--val-noisy",
        "noisy.npy",
        "--clean",
        "clean.npy",
        "--json",
        "s.json",
    ]
    done = run("evaluate", PRETRAINED, *scored, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "s.json").read_text())["scores"]
    assert scores[str(PRETRAINED)]["psnr"] > scores["noisy input"]["psnr"] + 5


class Wider(ResidualUNet.__mro__[1]):
    """A network of one's own, made like those of the package, with options that it hands on."""

    def __init__(self, **options: int):
        super().__init__()
        self.layer = torch.nn.Conv2d(options["channels"], options["channels"], 3, padding=1)

    def body(self, image):
        return self.layer(image)


def test_networks_with_options_handed_on_are_built_again(tmp_path):
    module = Denoiser(Wider(channels=2))
    assert module.spec["model"] == {"_target_": "tests.test_people.Wider", "channels": 2}
