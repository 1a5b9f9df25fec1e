"""Training as a whole: what a run gives, resuming, and the commands as a person types them."""

import csv
import json
import math
import os
import random
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from n2n_lightning.config import validation
from n2n_lightning.config.hydra_versions import VERSION_BASE
from n2n_lightning.files import InputError, load_torch
from n2n_lightning.inference.denoiser import load
from n2n_lightning.runs.folder import locked, read_result
from n2n_lightning.train import CONF
from n2n_lightning.training import callbacks, checkpointing
from n2n_lightning.training.module import Diverged
from n2n_lightning.training.run import start
from tests.conftest import KILL, LIMIT, linux, photographs, posix, run

GROUPS = (
    "data",
    "noise",
    "model",
    "optim",
    "scheduler",
    "loss",
    "trainer",
    "callbacks",
    "experiment",
)
# A run small enough for a test; float32, so that it is the same on every machine.
QUICK = ("trainer.accelerator=cpu", "trainer.precision=32-true", "data.batch_size=6", "model=tiny")


@pytest.fixture(autouse=True)
def no_noise_from_lightning(monkeypatch):
    """Lightning 2.6 calls what torch 2.13 deprecates; train() itself turns that warning off."""
    import warnings

    warnings.filterwarnings("ignore", ".*LeafSpec.*")


def composed(*overrides: str) -> dict:
    """The plain configuration of a command line, with a tiny network in place of `model=tiny`."""
    tiny = "model=tiny" in overrides
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        cfg = compose("config", [o for o in overrides if o != "model=tiny"])
    config = OmegaConf.to_container(cfg, resolve=True)
    if tiny:
        config["model"] = {"_target_": "tests.test_train.Tiny"}
    return config


class Tiny(torch.nn.Module):
    """A network of one's own, by its dotted name; it has a state, so that resuming can go wrong."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.first = torch.nn.Conv2d(3, width, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(width)
        self.last = torch.nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image):
        return self.last(self.norm(self.first(image)).relu())


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.walk
@pytest.mark.parametrize(
    "choice", [f"{group}={name}" for group in GROUPS for name in options(group)]
)
def test_every_config_composes_and_says_how_it_is_used(choice):
    config = composed(choice)
    assert set(GROUPS) - {"experiment"} <= set(config)
    group, name = choice.split("=")
    text = (CONF / group / f"{name}.yaml").read_text()
    head = next(line for line in text.splitlines() if "_global_" not in line)
    assert head.startswith("# n2n train")
    assert choice in head


@pytest.mark.parametrize("group", [g for g in GROUPS if g != "experiment"])
def test_every_key_has_a_comment(group):
    for name in options(group):
        for line in (CONF / group / f"{name}.yaml").read_text().splitlines():
            if line and not line.strip().startswith(("#", "_", "{}", "seed:")):
                assert "  # " in line, f"{group}/{name}.yaml: {line}"


@pytest.mark.slow
@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_runs_one_batch(name, course, tmp_path):
    one = ("+trainer.limit_train_batches=1", "+trainer.limit_val_batches=1", "trainer.max_epochs=1")
    data: tuple[str, ...] = (f"data.root={course}",)
    if name == "half_volumes":
        for half in "ab":
            np.save(
                tmp_path / f"{half}.npy", np.random.default_rng(ord(half)).normal(size=(40, 64, 64))
            )
        data = (f"data.noisy={tmp_path / 'a.npy'}", f"data.target={tmp_path / 'b.npy'}")
    if name == "n2n_single":
        data = (f"data.noisy={photographs(tmp_path / 'photos', 4, 100)}",)
    config = composed(f"experiment={name}", *data, "trainer.accelerator=cpu", *one)
    if name == "pretrained":
        root = [str(photographs(tmp_path / f"photos{i}", 3, 80)) for i in (1, 2)]
        config["data"] |= {
            "train_pairs": 8,
            "batch_size": 8,
            "leaves": 1,
            "specimens": 1,
            "fabrics": 1,
            "root": root,
        }
    elif name == "movie":
        config["data"] |= {
            "train_pairs": 8,
            "batch_size": 4,
            "size": 32,
            "held": None,
            "leaves": 1,
            "specimens": 1,
            "root": str(photographs(tmp_path / "photos", 3, 160)),
        }
    elif name in ("n2n_single", "half_volumes"):
        config["data"] |= {"batch_size": 2, "train_pairs": 8}
    elif name.startswith("n2n") or name == "best":
        config["data"] |= {
            "batch_size": 2,
            "root": str(photographs(tmp_path / "photos", 3, 260)),
            "train_pairs": 8,
        }
    else:
        config["data"] |= {"train_pairs": None, "val_pairs": None, "batch_size": 8}
    result = start(config, tmp_path / "run")
    assert result["status"] == "finished"
    score = {"n2n_single": "val_self_loss", "half_volumes": "noisy_psnr_estimate"}.get(
        name, "val_psnr"
    )
    assert result[score] > 0


@pytest.mark.slow
def test_what_a_run_gives(course, tmp_path, capsys):
    folder = tmp_path / "run"
    config = composed("data=course", f"data.root={course}", "trainer.max_epochs=3", *QUICK)
    result = start(config, folder, ["data=course", "optim.lr=0.01"])
    command = "n2n train data=course optim.lr=0.01"
    assert result == json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["epochs"] == 3
    assert result["data"]["train"] == 24
    assert result["parameters"] == sum(p.numel() for p in Tiny().parameters())
    for name in (
        "val_psnr",
        "val_psnr_total",
        "noisy_psnr",
        "noisy_psnr_total",
        "val_loss",
        "train_loss",
    ):
        assert isinstance(result[name], float), name
    for name in (
        "best_epoch",
        "seed",
        "seconds",
        "images_per_second",
        "versions",
        "git_commit",
        "command",
    ):
        assert name in result

    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    best = max(rows, key=lambda row: float(row["val_psnr"]))
    assert float(best["val_psnr"]) == result["val_psnr"]
    assert int(best["epoch"]) == result["best_epoch"]
    assert [int(row["images"]) for row in rows] == [24] * 3

    sizes = dict.fromkeys(("images", "scalars", "histograms", "tensors"), 0)
    events = EventAccumulator(str(folder), sizes).Reload()
    curve = [(e.step, e.value) for e in events.Scalars("val_psnr")]
    assert curve == [(int(row["epoch"]), pytest.approx(float(row["val_psnr"]))) for row in rows]
    for tag in (
        "train_loss",
        "val_loss",
        "lr",
        "images_per_second",
        "noisy_psnr",
        "val_psnr_total",
    ):
        assert [e.step for e in events.Scalars(tag)] == [1, 2, 3]
    for tag in ("noisy, denoised, clean", "what was removed"):
        assert [e.step for e in events.Images(tag)] == [1, 2, 3]
    assert [e.step for e in events.Histograms("what was removed")] == [1, 2, 3]
    said = events.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    assert f"    {command}\n" in said
    assert f"| torch | {torch.__version__} |" in said
    assert f"| parameters | {result['parameters']} |" in said
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["optim.lr"].number_value == 0.01
    assert hparams["data"].string_value == "course"
    assert events.Scalars("final/val_psnr")[0].value == pytest.approx(result["val_psnr"])
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")

    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["n2n_lightning"]["model"] == config["model"]
    assert last["epoch"] == 2
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] + 1 == result["best_epoch"]
    assert "epoch 3/3" in capsys.readouterr().out


def test_validation_is_against_clean_images(course, tmp_path):
    """A network that returns its input scores what the noisy input scores."""
    config = composed(
        "data=course", f"data.root={course}", "trainer.max_epochs=1", "optim.lr=1e-12", *QUICK
    )
    config["model"] = {
        "_target_": "torch.nn.Conv2d",
        "in_channels": 3,
        "out_channels": 3,
        "kernel_size": 1,
    }
    config["callbacks"] = {"identity": {"_target_": "tests.test_train.Identity"}}
    result = start(config, tmp_path / "run")
    noisy, clean = (x.float() / 255 for x in torch.load(course / "val_data.pkl"))
    mse = (noisy - clean).square().mean((1, 2, 3))
    assert result["noisy_psnr"] == pytest.approx((-10 * mse.log10()).mean().item(), abs=1e-4)
    assert result["noisy_psnr_total"] == pytest.approx(-10 * mse.mean().log10().item(), abs=1e-4)
    assert result["val_psnr"] == pytest.approx(result["noisy_psnr"], abs=1e-3)
    first, second = (x.float() / 255 for x in torch.load(course / "train_data.pkl"))
    assert result["train_loss"] == pytest.approx((first - second).square().mean().item(), rel=1e-4)


class Identity(callbacks.Callback):
    def on_fit_start(self, trainer, pl_module):
        torch.nn.init.dirac_(pl_module.network.weight)
        torch.nn.init.zeros_(pl_module.network.bias)


class Stop(callbacks.Callback):
    """Stops as SIGTERM does, after `steps` steps."""

    def __init__(self, steps: int):
        self.steps = steps

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.steps:
            (watch,) = (c for c in trainer.callbacks if isinstance(c, callbacks.StopOnSignal))
            watch.received = signal.SIGTERM


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def scores(folder: Path) -> list[dict[str, str]]:
    timed = ("seconds", "images_per_second", "images")
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["scheduler=cosine", "scheduler=step", "callbacks=ema"])
def test_resumed_run_is_the_uninterrupted_one(recipe, course, tmp_path):
    asked = [
        "data=course",
        f"data.root={course}",
        "data.swap=true",
        "data.augment=true",
        "trainer.max_epochs=3",
        *QUICK,
    ]
    config = composed(*asked, *([] if recipe == "scheduler=step" else [recipe]))
    if recipe == "scheduler=step":
        config["scheduler"] = {
            "_target_": "torch.optim.lr_scheduler.StepLR",
            "_partial_": True,
            "step_size": 1,
        }
    whole = tmp_path / "whole"
    expected = start(config, whole)
    for steps in (1, 3, 4, 5, 8):  # 4 steps are an epoch
        folder = tmp_path / f"stopped{steps}"
        stop = {"stop": {"_target_": "tests.test_train.Stop", "steps": steps}}
        with pytest.raises(callbacks.Interrupted):
            start({**config, "callbacks": config["callbacks"] | stop}, folder)
        assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
        result = start(config, folder)
        for name, value in weights(whole).items():
            assert torch.equal(value, weights(folder)[name]), (steps, name)
        assert scores(folder) == scores(whole)
        for name in ("val_psnr", "best_epoch", "epochs", "status"):
            assert result[name] == expected[name]


@pytest.mark.slow
def test_the_average_of_the_weights_is_what_is_scored_and_kept(course, tmp_path):
    asked = ["data=course", f"data.root={course}", "trainer.max_epochs=2", "optim.lr=0.1", *QUICK]
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    start(composed(*asked), plain)
    result = start(composed(*asked, "callbacks=ema", "callbacks.ema.decay=0.5"), averaged)
    last = torch.load(averaged / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in weights(plain).items():  # training itself is not touched
        assert torch.equal(last["current_model_state"][name], value)
    assert not torch.equal(
        weights(averaged)["network.first.weight"], weights(plain)["network.first.weight"]
    )
    # The checkpoint that is used scores what the run says.
    network = load(averaged, ["tests.test_train"])
    noisy, clean = (x / 255 for x in torch.load(course / "val_data.pkl"))
    mse = (network(noisy).clamp(0, 1) - clean).square().mean((1, 2, 3))
    assert (-10 * mse.log10()).mean().item() == pytest.approx(result["val_psnr"], abs=1e-3)


@pytest.mark.walk
def test_resume_at_the_end_of_an_epoch_and_further(course, tmp_path):
    asked = ["data=course", f"data.root={course}", "scheduler=constant", *QUICK]
    whole, folder = tmp_path / "whole", tmp_path / "run"
    start(composed(*asked, "trainer.max_epochs=3"), whole)
    start(composed(*asked, "trainer.max_epochs=1"), folder)
    folder = folder.rename(tmp_path / "moved")
    result = start(composed(*asked, "trainer.max_epochs=3"), folder)
    assert all(torch.equal(value, weights(folder)[name]) for name, value in weights(whole).items())
    assert scores(folder) == scores(whole)
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] + 1 == result["best_epoch"]
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    ]


class Kill(callbacks.Callback):
    """Ends the process as SIGKILL does.

    Args:
        step: after this batch.
        save: in the middle of writing so many checkpoints of this process.
        gap: when so many `last.ckpt` of this process have given up their name, before the new ones
            have it.
        rank: in this process of the run only.
        signum: the signal.
    """

    def __init__(
        self, step: int = 0, save: int = 0, gap: int = 0, rank: int = 0, signum: int = KILL
    ):
        self.step, self.left, self.rank, self.signum = (
            step,
            {"save": save, "gap": gap},
            rank,
            signum,
        )

    def _now(self, what: str) -> bool:
        self.left[what] -= 1
        return self.left[what] == 0

    def on_fit_start(self, trainer, pl_module):
        whole, rename = torch.save, Path.replace

        def save(content, path):
            whole(content, path)
            if self._now("save"):
                os.truncate(path, os.path.getsize(path) // 2)
                os.kill(os.getpid(), KILL)

        def replace(path, target):
            rename(path, target)
            if Path(target).name == "previous.ckpt" and self._now("gap"):
                os.kill(os.getpid(), KILL)

        torch.save, Path.replace = save, replace

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.signum)


@pytest.mark.walk
@pytest.mark.slow
@posix
def test_killed_anywhere_and_resumed_it_is_the_uninterrupted_run(course, tmp_path):
    quick = [o for o in QUICK if o != "model=tiny"]
    asked = [
        *(
            "data=course",
            f"data.root={course}",
            "data.swap=true",
            "data.augment=true",
            "data.colour=[0.5,2]",
        ),
        *("callbacks=ema", "trainer.max_epochs=4", "model=residual_unet", "model.width=8", *quick),
    ]
    repository = Path(__file__).parents[1]
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    assert run("train", *asked, f"hydra.run.dir={whole}", cwd=repository).returncode == 0
    drawn = random.Random(559)
    # An epoch is 4 steps and writes two checkpoints, where the weights are the best yet.
    moments = [
        "step: 6",
        "gap: 1",
        "save: 2",
        f"step: {drawn.randint(9, 11)}",
        f"step: {drawn.randint(12, 15)}",
    ]
    start = [*asked, f"hydra.run.dir={folder}"]
    for moment in moments:
        kill = f"++callbacks.kill={{_target_: tests.test_train.Kill, {moment}}}"
        killed = run("train", *start, kill, cwd=repository)
        assert killed.returncode == -KILL, (moment, killed.stdout, killed.stderr)
        start = [f"resume={folder}"]
    end = run("train", f"resume={folder}", "~callbacks.kill", cwd=repository)
    assert end.returncode == 0, end.stderr
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(folder)[name]), name
    assert scores(folder) == scores(whole)
    results = [json.loads((f / "result.json").read_text()) for f in (whole, folder)]
    assert results[0]["val_psnr"] == results[1]["val_psnr"]
    assert results[0]["best_epoch"] == results[1]["best_epoch"]


@pytest.mark.walk
@pytest.mark.slow
@posix
def test_two_processes_are_one_run(course, tmp_path):
    """trainer=ddp: same numbers, one folder; a process that dies ends the run with one line."""
    quick = [o for o in QUICK if o != "model=tiny"]
    asked = [
        *(
            "data=course",
            f"data.root={course}",
            "data.train_pairs=23",
            "data.swap=true",
            "data.augment=true",
        ),
        *("callbacks=ema", "trainer.max_epochs=6", "model=residual_unet", "model.width=4", *quick),
    ]
    repository = Path(__file__).parents[1]
    one, two, ended = (tmp_path / name for name in ("one", "two", "ended"))
    assert run("train", *asked, f"hydra.run.dir={one}", cwd=repository).returncode == 0
    both = [*asked, "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=6"]
    done = run("train", *both, f"hydra.run.dir={two}", cwd=repository)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 6/6") == done.stdout.count("in 2 processes") == 1
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, two)]
    for name in ("val_psnr", "val_psnr_total", "train_loss", "noisy_psnr"):
        assert results[0][name] == pytest.approx(results[1][name], abs=1e-4)
    assert [result["processes"] for result in results] == [1, 2]
    # sums in another order: 1.5e-5 was seen on a processor with AVX2 alone
    for name, value in weights(one).items():
        assert torch.allclose(value, weights(two)[name], atol=1e-4), name

    def killed(*arguments: str, moment: str):
        kill = f"++callbacks.kill={{_target_: tests.test_train.Kill, {moment}}}"
        return run("train", *arguments, kill, cwd=repository)

    done = killed(*both, f"hydra.run.dir={ended}", moment="step: 7, rank: 1")
    assert done.returncode == 1
    line = "another process of this run ended; resume=RUN_FOLDER continues from the last checkpoint"
    assert done.stderr.splitlines()[-1] == f"error: {line}"
    assert "Traceback" not in done.stderr
    result = json.loads((ended / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("failed", line)
    # The processes agree on a signal at every tenth step; 4 steps are an epoch.
    for step, signum, code, status in (
        (9, signal.SIGTERM, 143, "interrupted"),
        (15, KILL, -9, "killed"),
    ):
        done = killed(f"resume={ended}", moment=f"step: {step}, rank: 0, signum: {int(signum)}")
        assert done.returncode == code, done.stderr
        assert read_result(ended)["status"] == status
    done = run("train", f"resume={ended}", "~callbacks.kill", cwd=repository)
    assert done.returncode == 0, done.stderr
    assert all(torch.equal(value, weights(ended)[name]) for name, value in weights(two).items())
    assert scores(ended) == scores(two)


@pytest.mark.walk
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(course, tmp_path, capsys):
    asked = ["data=course", f"data.root={course}", *QUICK]
    whole, folder = tmp_path / "whole", tmp_path / "run"
    start(composed(*asked, "trainer.max_epochs=4", "scheduler=constant"), whole)
    start(composed(*asked, "trainer.max_epochs=3", "scheduler=constant"), folder)
    last = folder / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, as a tired disk does; the file still loads
    last.write_bytes(content)
    start(composed(*asked, "trainer.max_epochs=4", "scheduler=constant"), folder)
    damage = f"{last}: damaged, incomplete, or not written by torch.save"
    assert f"warning: {damage}; continuing from previous.ckpt, epoch 2\n" in capsys.readouterr().err
    # not the damaged one, which is kept apart
    assert load_torch(last.with_name("previous.ckpt"))["epoch"] == 2
    assert last.with_name("last.damaged").read_bytes() == bytes(content)
    assert all(torch.equal(value, weights(folder)[name]) for name, value in weights(whole).items())
    assert scores(folder) == scores(whole)
    for name in checkpointing.RESUMABLE:
        (last.parent / f"{name}.ckpt").write_bytes(b"PK")
    with pytest.raises(
        InputError, match=rf"{damage}; without .*checkpoints the run would start anew"
    ):
        start(composed(*asked, "trainer.max_epochs=5", "scheduler=constant"), folder)
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"


def test_long_epochs_are_saved_inside(course, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks.SaveOnSignal, "MINUTES", 0)
    folder = tmp_path / "run"
    config = composed("data=course", f"data.root={course}", "trainer.max_epochs=1", *QUICK)
    config["callbacks"] = {"fault": {"_target_": "tests.test_train.Fault"}}
    with pytest.raises(ZeroDivisionError):
        start(config, folder)
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


class Fault(callbacks.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 2:
            raise ZeroDivisionError


FULL = """
mount -t tmpfs -o size={size}k tmpfs {room} || exit 77
{train} hydra.run.dir={room}/run; echo status $?
ls {room}/run/checkpoints; cp {room}/run/result.json {out}/full.json
mount -o remount,size=100m {room}
{resume}; echo status $?
cp -r {room}/run {out}
exit 0
"""


@pytest.mark.walk
@pytest.mark.slow
# Room for nothing, for the best checkpoint of the first epoch alone, and for two epochs: best, last
# and previous.
@linux
@pytest.mark.parametrize(
    ("size", "kept"),
    [(24, []), (13000, ["best.ckpt"]), (38000, ["best.ckpt", "last.ckpt", "previous.ckpt"])],
)
def test_a_full_disk_is_one_line_and_loses_nothing(size, kept, course, tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    asked = [
        "data=course",
        f"data.root={course}",
        "trainer.max_epochs=3",
        "model=noise2noise",
        "data.batch_size=24",
    ]
    command = [sys.executable, "-m", "n2n_lightning.train"]
    train, resume = (
        shlex.join([*command, *asked, "trainer.precision=32-true"]),
        shlex.join([*command, f"resume={room}/run"]),
    )
    script = FULL.format(size=size, room=room, out=tmp_path, train=train, resume=resume)
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(
        apart, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.splitlines()[0]}")
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert errors[0].startswith(f"error: {room}/run")
    assert errors[0].endswith(
        ": no space left on the disk for it; what was there before is untouched"
    )
    assert [line for line in done.stdout.splitlines() if line.endswith(".ckpt")] == kept
    if kept:
        assert json.loads((tmp_path / "full.json").read_text())["status"] == "failed"
        assert done.stdout.count("status 0") == 1  # the second time, with room
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert (result["status"], result["epochs"]) == ("finished", 3)
    else:
        assert "there is no checkpoints/last.ckpt to continue from" in errors[1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_same_seed_same_bits_with_any_number_of_workers(course, tmp_path):
    asked = ["data=course", f"data.root={course}", "trainer.max_epochs=2", "data.swap=true", *QUICK]
    for name, more in (("a", []), ("b", ["data.workers=2"]), ("c", ["seed=1"])):
        start(composed(*asked, *more), tmp_path / name)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["network.first.weight"], c["network.first.weight"])


@pytest.mark.walk
@pytest.mark.parametrize("algorithm", [None, "value"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_under_a_fused_optimiser(precision, algorithm, course, tmp_path):
    config = composed(
        "data=course",
        f"data.root={course}",
        "trainer.max_epochs=1",
        "trainer.gradient_clip_val=1e-3",
        *QUICK,
    )
    config["trainer"] |= {"precision": precision, "gradient_clip_algorithm": algorithm}
    config["callbacks"] = {"look": {"_target_": "tests.test_train.Gradients"}}
    assert config["optim"]["fused"]
    start(config, tmp_path / "run")
    largest = (torch.linalg.vector_norm if algorithm is None else torch.amax)(
        torch.tensor(Gradients.seen).abs()
    )
    assert 0.5e-3 < largest <= 1.001e-3


class Gradients(callbacks.Callback):
    """Notes the gradients of the last step."""

    seen: tuple[float, ...] = ()

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        found = [p.grad.flatten() for p in pl_module.network.parameters() if p.grad is not None]
        if found:
            Gradients.seen = tuple(torch.cat(found).tolist())


def test_short_last_batch(course, tmp_path):
    config = composed(
        "data=course", f"data.root={course}", "data.train_pairs=13", "trainer.max_epochs=1", *QUICK
    )
    config["model"] = {"_target_": "n2n_lightning.networks.UNet"}
    assert start(config, tmp_path / "run")["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), 1e12])
def test_divergence(value, course, tmp_path):
    folder = tmp_path / "run"
    asked = ["data=course", f"data.root={course}", "trainer.max_epochs=3", *QUICK]
    start(composed(*asked, "trainer.max_epochs=1"), folder)
    poison = f"+callbacks.poison={{_target_: tests.test_train.Poison, value: {value}}}"
    with pytest.raises(Diverged, match=r"step \d+, epoch 2, learning rate"):
        start(composed(*asked, poison), folder)
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "failed"
    assert ("the loss became nan" in result["reason"]) == math.isnan(value)
    assert "the loss became" in result["reason"]
    assert all(value.isfinite().all() for value in weights(folder).values())
    assert (folder / "checkpoints" / "best.ckpt").exists()


def test_divergence_in_the_last_step_of_an_epoch_spoils_no_checkpoint(course, tmp_path):
    folder = tmp_path / "run"
    config = composed("data=course", f"data.root={course}", "trainer.max_epochs=3", *QUICK)
    config["callbacks"] = {"late": {"_target_": "tests.test_train.PoisonLate"}}
    with pytest.raises(Diverged, match="epoch 2"):
        start(config, folder)
    assert json.loads((folder / "result.json").read_text())["status"] == "failed"
    assert all(value.isfinite().all() for value in weights(folder).values())
    assert (folder / "samples.png").exists()


class PoisonLate(callbacks.Callback):
    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.current_epoch == 1 and trainer.is_last_batch:
            torch.nn.init.constant_(pl_module.network.first.weight, torch.nan)


class Poison(callbacks.Callback):
    def __init__(self, value: float):
        self.value = value

    def on_train_start(self, trainer, pl_module):
        torch.nn.init.constant_(pl_module.network.last.weight, self.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model={_target_:no.such.Network}", "model: Error loading 'no.such.Network'"),
        (
            "model={_target_:torch.nn.Linear}",
            "model: Linear.__init__() got an unexpected keyword argument 'channels'",
        ),
        ("seed=-1", "seed=-1: must be a whole number, 0 or more"),
        ("seed=null", "seed=None: must be a whole number, 0 or more"),
        ("scheduler.decay=2", "scheduler.warmup=0.02 and scheduler.decay=2 must lie in"),
        ("trainer=ddp data.batch_size=1", "data.batch_size=1: cannot be split among 2 processes"),
        ("trainer.max_epochs=-1", "trainer.max_epochs=-1: must be a whole number, 1 or more"),
        (
            "trainer.check_val_every_n_epoch=0",
            "trainer.check_val_every_n_epoch=0: must be a whole number, 1 or more",
        ),
        (
            "trainer.check_val_every_n_epoch=9",
            "trainer.check_val_every_n_epoch=9: there would be no validation"
            " in trainer.max_epochs=1",
        ),
        (
            "+trainer.accumulate_grad_batches=0",
            "trainer.accumulate_grad_batches=0: must be a whole number, 1 or more",
        ),
        (
            "trainer.gradient_clip_val=-1",
            "trainer.gradient_clip_val=-1: must be a number larger than 0, or left out",
        ),
        (
            "+trainer.max_epoch=3",
            "trainer: Trainer.__init__() got an unexpected keyword argument 'max_epoch'"
            " (did you mean max_epochs?)",
        ),
        (
            "trainer.precision=banana",
            "trainer: Precision 'banana' is invalid. Allowed precision values:",
        ),
        (
            "trainer.precision=16-mixed",
            "trainer.precision=16-mixed: float16 needs a GPU; bf16-mixed, 32-true or auto",
        ),
        (
            "trainer.max_epochs=null",
            "trainer.max_epochs=None: must be a whole number, 1 or more",
        ),
        ("trainer.max_time=soon", "trainer.max_time=soon: should be DD:HH:MM:SS"),
        ("optim.lr=-1", "optim.lr=-1: must be a number, larger than 0 and 1 at most"),
        ("optim.lr=0", "optim.lr=0: must be a number, larger than 0 and 1 at most"),
        ("optim.lr=100", "optim.lr=100: must be a number, larger than 0 and 1 at most"),
        ("optim.lr=nan", "optim.lr=nan: must be a number, larger than 0 and 1 at most"),
        ("optim.lr=fast", "optim.lr=fast: must be a number, larger than 0 and 1 at most"),
        ("optim.betas=[2,3]", "optim or scheduler: Invalid beta parameter at index 0: 2"),
        ("model=residual_unet model.width=0", "model.width=0: must be a whole number, 1 or more"),
        (
            "model=residual_unet model.levels=2.5",
            "model.levels=2.5: must be a whole number, 1 or more",
        ),
        (
            "model=drunet model.widths=[8,0]",
            "model.widths=[8, 0]: must be a list of whole numbers, 1 or more",
        ),
        (
            "model=drunet model.blocks=2",
            "model.blocks=2: must be a list of whole numbers, 0 or more",
        ),
        ("model=dncnn model.layers=2", "model.layers=2: must be 3 or more"),
        ("data.batch_size=0", "data.batch_size=0: must be a whole number, 1 or more"),
        ("data.batch_size=25", "data.batch_size=25: there are only 24 training pairs"),
        ("data.workers=-1", "data.workers=-1: must be a whole number, 0 or more"),
        ("data.train_pairs=0", "data.train_pairs=0:"),
    ],
)
def test_wrong_configuration(override, message, course, tmp_path):
    config = composed(
        "data=course",
        f"data.root={course}",
        "trainer.max_epochs=1",
        *QUICK[:-1],
        *override.split(" "),
    )
    with pytest.raises(InputError) as caught:
        start(config, tmp_path / "run")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps"])
def test_a_device_that_is_not_there(accelerator, course, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    config = composed(
        "data=course", f"data.root={course}", *QUICK, f"trainer.accelerator={accelerator}"
    )
    with pytest.raises(
        InputError, match=rf"trainer\.accelerator={accelerator}: torch .* finds none here"
    ):
        start(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# As a person types them.

SMALL = (
    "data.train_pairs=12",
    "data.val_pairs=4",
    "data.batch_size=6",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
)


@pytest.mark.slow
def test_the_command(tmp_path):
    done = run("train", "model=unet", "optim.lr=0.01", "hydra.run.dir=out", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "noisy input" in done.stdout
    assert "tensorboard" in done.stdout
    assert "n2n denoise PICTURES -o clean --checkpoint out" in done.stdout
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["command"].startswith("n2n train model=unet optim.lr=0.01")
    assert (tmp_path / "out" / ".hydra" / "config.yaml").exists()

    again = run("train", "hydra.run.dir=out", *SMALL, cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.startswith("error: ")
    assert "resume=" in again.stderr

    further = run("train", "resume=out", "trainer.max_epochs=2", cwd=tmp_path)
    assert further.returncode == 0, further.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["epochs"], result["data"]["train"]) == (2, 12)
    assert "finished already" not in further.stdout
    assert "it was finished already" in run("train", "resume=out", cwd=tmp_path).stdout


@pytest.mark.walk
def test_what_is_refused_beside_resume_leaves_the_run_as_it_was(tmp_path):
    assert (
        run(
            "train",
            "hydra.run.dir=out",
            "model=residual_unet",
            "model.width=4",
            *SMALL,
            cwd=tmp_path,
        ).returncode
        == 0
    )
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for wrong, words in (
        ("data.batch_size=0", "data.batch_size=0"),
        ("optim.lr=0.5", "optim.lr=0.5: cannot change"),
        ("model.width=8", "model.width=8: cannot change"),
    ):
        done = run("train", "resume=out", wrong, cwd=tmp_path)
        assert done.returncode == 2
        assert words in done.stderr
    with locked(tmp_path / "out"):
        done = run("train", "resume=out", cwd=tmp_path)
        assert (done.returncode, done.stderr.strip()) == (
            2,
            f"error: {tmp_path}/out: its run is still going on",
        )
    assert {path: path.read_bytes() for path in before} == before
    assert run("train", "resume=out", "trainer.max_epochs=2", cwd=tmp_path).returncode == 0
    assert "resume" not in json.loads((tmp_path / "out" / "result.json").read_text())["command"]


@pytest.mark.slow
def test_default_run_folder(tmp_path):
    done = run("train", "model=baseline", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert (folder / "result.json").exists()


@pytest.mark.slow
def test_multirun(tmp_path):
    done = run("train", "-m", "optim.lr=0.01,0.001", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    results = [json.loads((sweep / n / "result.json").read_text()) for n in "01"]
    assert results[0]["val_psnr"] != results[1]["val_psnr"]


@pytest.mark.walk
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data=course", "data.root=nowhere"], "data.root=nowhere: no such folder"),
        (
            ["data=course", "data.root=.", "noise=gaussian"],
            "noise=gaussian: data=course are noisy already",
        ),
        (["data=images"], "data.root"),
        (["target=nothing"], "target=nothing: must be noisy or clean"),
        (["resume=nowhere"], "resume=nowhere: not a run folder"),
        (["optim.lrr=1"], "lrr"),
        (["model=nonsense"], "nonsense"),
        (["data.batch_size=abc"], "data.batch_size"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, words, tmp_path):
    done = run("train", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.walk
@posix
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_the_run_goes_on(signum, tmp_path):
    asked = [
        "data.train_pairs=60",
        "data.val_pairs=4",
        "data.batch_size=6",
        "trainer.max_epochs=200",
        "hydra.run.dir=out",
    ]
    command = [sys.executable, "-m", "n2n_lightning.train", *asked]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                break
        process.send_signal(signum)
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signum
    assert errors.splitlines() == [f"stopped by {signum.name}; resume=out continues"]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert (tmp_path / "out" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.walk
@pytest.mark.slow
def test_an_amount_of_time_is_a_budget(course, tmp_path):
    """The run ends with its time and the rate falls to 0 by then, whatever max_epochs is."""
    small = [
        "experiment=fast",
        f"data.root={course}",
        "model.widths=[4]",
        "model.blocks=[1]",
        "data.batch_size=6",
    ]
    small += [
        "trainer.precision=32-true",
        "trainer.accelerator=cpu",
        "trainer.max_time=00:00:00:04",
    ]

    def rows(name: str) -> list[dict[str, str]]:
        with (tmp_path / name / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    done = run("train", *small, "hydra.run.dir=timed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 1 (" in done.stdout
    assert "of the time)" in done.stdout
    rates = [float(row["lr"]) for row in rows("timed")]
    assert len(rates) > 1  # which is what the recipe says
    assert rates[-1] < 0.5 * max(rates)
    further = run("train", "resume=timed", "trainer.max_time=00:00:00:08", cwd=tmp_path)
    assert further.returncode == 0, further.stderr
    assert len(rows("timed")) > len(rates)
    assert (
        run("train", *small, "trainer.max_epochs=2", "hydra.run.dir=both", cwd=tmp_path).returncode
        == 0
    )
    assert len(rows("both")) == 2
    own = [
        "scheduler=own",
        "scheduler._target_=torch.optim.lr_scheduler.OneCycleLR",
        "+scheduler.max_lr=0.01",
    ]
    refused = run("train", *small, *own, "hydra.run.dir=own", cwd=tmp_path)
    assert refused.returncode == 2
    assert "must know how many steps there are; trainer.max_epochs= says it" in refused.stderr
    assert not (tmp_path / "own" / "result.json").exists()


@pytest.mark.walk
def test_a_run_goes_on_with_its_stored_configuration(tmp_path):
    """The defaults of its beginning count, and a chosen group replaces the stored one."""
    small = [o for o in SMALL if not o.startswith("trainer.max_epochs")]
    begin = [
        "model=residual_unet",
        "model.width=4",
        "model.levels=2",
        *small,
        "trainer.max_epochs=1",
    ]
    assert run("train", *begin, "hydra.run.dir=out", cwd=tmp_path).returncode == 0
    hydra = tmp_path / "out" / ".hydra"
    asked = (hydra / "overrides.yaml").read_text()
    (hydra / "overrides.yaml").write_text(
        asked.replace("- model.levels=2\n", "").replace("- model=residual_unet\n", "")
    )
    begun = OmegaConf.load(hydra / "config.yaml")
    done = run(
        "train", "resume=out", "trainer.max_epochs=2", "loss=l1", "data.batch_size=4", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "out")["epochs"] == 2
    config = OmegaConf.load(hydra / "config.yaml")
    assert config.model == {**begun.model}
    assert (config.model.levels, config.data.batch_size) == (2, 4)
    assert config.loss._target_.endswith("L1")
    # what was typed the last time stays
    again = run("train", "resume=out", "trainer.max_epochs=3", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert OmegaConf.load(hydra / "config.yaml").data.batch_size == 4
    # one that was typed before, and is not what the run has now, counts
    done = run("train", "resume=out", "trainer.max_epochs=4", "data.batch_size=6", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert OmegaConf.load(hydra / "config.yaml").data.batch_size == 6
    refused = run("train", "resume=out", "experiment=fast", cwd=tmp_path)
    assert refused.returncode == 2
    assert "experiment=fast: cannot change when a run goes on" in refused.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    (tmp_path / "out" / "result.json").write_text(json.dumps({**result, "format": 99}))
    refused = run("train", "resume=out", cwd=tmp_path)
    assert refused.returncode == 2
    assert "is a run folder of format 99, and this version reads 1" in refused.stderr


def test_help_and_config_do_not_import_torch(tmp_path):
    for argument in ("--help", "--cfg=job"):
        code = f"import sys; sys.argv[1:] = ['{argument}']; from n2n_lightning import train\n"
        code += "try: train.main()\nexcept SystemExit as e: assert not e.code\n"
        code += "assert 'torch' not in sys.modules"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "optim" in done.stdout


MISTYPED = {
    "model=unett": (
        "model=unett: there is no such choice (did you mean unet?);"
        " there are baseline, dncnn, drunet,"
    ),
    "model=transformer": "model=transformer: there is no such choice; there are baseline,",
    "experiment=repot_unet": (
        "experiment=repot_unet: there is no such choice (did you mean report_unet?)"
    ),
    "modl=unet": "modl: there is no such key (did you mean model?)",
    "max_epochs=3": "max_epochs: there is no such key (did you mean trainer.max_epochs?)",
    "lr=3": "lr: there is no such key (did you mean optim.lr?)",
    "trainer.max_epoch=3": (
        "trainer.max_epoch: there is no such key (did you mean max_epochs?); trainer has"
    ),
    "optim.learning_rate=1": "optim.learning_rate: there is no such key; optim has lr, betas,",
    "noise.peak=3": "noise.peak: there is no such key here; it belongs to noise=poisson",
    "noise=gaussian noise.sigm=3": (
        "noise.sigm: there is no such key (did you mean sigma?); noise has sigma, frozen"
    ),
    "data.root=x": "data.root: there is no such key here; it belongs to data=course, data=images",
    "hydra/launcher=jobli": "hydra/launcher=jobli: there is no such choice (did you mean joblib?)",
}


@pytest.mark.parametrize("typed", MISTYPED)
def test_mistyped_names_get_the_nearest_one(typed):
    with pytest.raises(HydraException) as caught:
        composed(*typed.split())
    line = validation.explained(" ".join(str(caught.value).split()), typed.split(), CONF)
    assert line.startswith(MISTYPED[typed])


@pytest.mark.walk
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("data=pairs", "data.noisy: is needed; data.noisy=PLACE names a file or folder"),
        ("--data pairs", "--data: arguments are NAME=VALUE, without --"),
        ("optim.lr = 0.1", "optim.lr: arguments are NAME=VALUE, without --"),
        ("optim.lr=0.1,0.2", "optim.lr=0.1,0.2: several values make a sweep: add -m"),
        ("trainer.max_time=30", "trainer.max_time=30: should be DD:HH:MM:SS"),
        ("data=pairs data.noisy=a data.target=./a", "data.target=./a: is data.noisy itself"),
    ],
)
def test_what_cannot_be_meant_so_gets_one_line_and_leaves_nothing_behind(typed, message, tmp_path):
    done = run("train", *typed.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_mistyped_sweep_leaves_nothing_behind(tmp_path):
    for arguments in (["optim.lrr=1,2"], ["model=unett,unet"], ["optim.lr=1,2", "modl=3"]):
        done = run("train", "-m", *arguments, "hydra.sweep.dir=sweep", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
        assert "there is no such" in done.stderr
        assert done.stdout == ""
        assert not list(tmp_path.iterdir())
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.txt").write_text("kept")
    assert (
        run("train", "-m", "optim.lrr=1,2", "hydra.sweep.dir=sweep", cwd=tmp_path).returncode == 2
    )
    assert [p.name for p in (tmp_path / "sweep").iterdir()] == ["mine.txt"]
