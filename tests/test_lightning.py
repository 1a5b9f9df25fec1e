"""Lightning's features: callbacks, precisions, lengths, loggers, and read-only folders."""

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import tifffile
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from n2n_lightning import fit, load
from n2n_lightning.config import overrides as override_syntax
from n2n_lightning.config import validation
from n2n_lightning.config.hydra_versions import VERSION_BASE
from n2n_lightning.data import PairedImages
from n2n_lightning.files import InputError, load_torch
from n2n_lightning.networks import DRUNet
from n2n_lightning.training.module import Denoiser
from n2n_lightning.training.run import TrainingRun, silence_lightning, start
from tests.conftest import course_files, linux, run

NETWORK = ("model.widths=[4,8]", "model.blocks=[1,1]")
DATA = ("data.batch_size=4", "data.train_pairs=16", "data.crop=16")
SMALL = (*NETWORK, *DATA)
PL = "pytorch_lightning.callbacks"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes of 32 x 32: two noisy captures of each, and clean ones."""
    folder = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(5)
    for i in range(4):
        x, y = np.meshgrid(np.arange(32), np.arange(32))
        clean = 120 + 60 * np.sin(x / (3 + i)) * np.cos(y / 5)
        for name in ("a", "b", "clean"):
            (folder / name).mkdir(exist_ok=True)
            noise = 0 if name == "clean" else draws.normal(0, 15, clean.shape)
            tifffile.imwrite(folder / name / f"{i}.tif", (clean + noise).astype(np.float32))
    return folder


def configured(pictures: Path, *options: str, clean: bool = True) -> dict[str, Any]:
    data = ["data=pairs", f"data.noisy={pictures / 'a'}", f"data.target={pictures / 'b'}"]
    data += [f"data.clean={pictures / 'clean'}"] if clean else []
    network = [] if any(option.startswith("model=") for option in options) else NETWORK
    with initialize_config_dir(str(override_syntax.CONF), **VERSION_BASE):
        config: Any = OmegaConf.to_container(
            compose("config", [*data, *network, *DATA, *options]), resolve=True
        )
    override_syntax.apply_time_budget(config, list(options))
    return config


def fitted(pictures: Path, folder: Path, *options: str, clean: bool = True) -> dict[str, Any]:
    return start(configured(pictures, *options, clean=clean), folder, lines=True)


def callback(name: str, **options: Any) -> str:
    words = "".join(f", {key}: {value}" for key, value in options.items())
    return f"+callbacks.it={{_target_: {PL}.{name}{words}}}"


def weights(folder: Path, name: str = "best") -> dict[str, torch.Tensor]:
    state = load_torch(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("network.")}


def score_of(folder: Path, pictures: Path) -> float:
    """The PSNR of best.ckpt on the validation images, measured anew."""
    config = configured(pictures)
    data = PairedImages(
        **{key: value for key, value in config["data"].items() if key != "_target_"}, dims=2
    )
    data.setup()
    module = Denoiser.load_from_checkpoint(folder, bounds=data.bounds, unit=data.unit)
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    return float(
        pl.Trainer(accelerator="cpu", **quiet).validate(module, data, verbose=False)[0]["val_psnr"]
    )  # type: ignore[arg-type]


@pytest.mark.walk
@pytest.mark.parametrize(
    "options",
    [
        (callback("StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=1),),
        (
            callback("StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=2),
            *("model=dncnn", "model.width=4", "model.layers=3"),
        ),
        ("callbacks=ema", "callbacks.ema.decay=0.7"),
        (
            callback(
                "EMAWeightAveraging",
                decay=0.5,
                update_starting_at_step=6,
                update_starting_at_epoch=1,
            ),
        ),
        (callback("WeightAveraging"), "+trainer.val_check_interval=0.5"),
        ("+trainer.val_check_interval=3",),
    ],
    ids=[
        "swa",
        "swa with batch normalisation",
        "ema",
        "ema from a step on",
        "mean",
        "inside an epoch",
    ],
)
def test_the_score_the_best_checkpoint_and_denoise_are_the_same_weights(
    options: tuple[str, ...], pictures: Path, tmp_path: Path
) -> None:
    result = fitted(pictures, tmp_path / "run", "trainer.max_epochs=3", *options)
    assert score_of(tmp_path / "run", pictures) == pytest.approx(result["val_psnr"], abs=2e-4)
    trained = load(tmp_path / "run").network.state_dict()
    assert all(
        torch.equal(trained[key.removeprefix("network.")], value)
        for key, value in weights(tmp_path / "run").items()
    )


def test_stochastic_weight_averaging_is_the_mean_of_the_weights_that_epochs_end_with(
    pictures: Path, tmp_path: Path
) -> None:
    ends = []

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.is_last_batch:
                ends.append([p.detach().clone() for p in pl_module.network.parameters()])

    swa = callback("StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=2)
    silence_lightning()
    built = TrainingRun(
        configured(pictures, swa, "trainer.max_epochs=4"), tmp_path / "run", "test", True
    )
    built.trainer.callbacks.insert(0, Recorder())
    built.fit()
    last = weights(tmp_path / "run", "last")
    names = [f"network.{name}" for name, _ in load(tmp_path / "run").network.named_parameters()]
    for i, name in enumerate(names):
        mean = torch.stack([end[i] for end in ends[1:]]).mean(0)
        assert torch.allclose(last[name], mean, atol=1e-6), name
    assert not torch.allclose(last[names[0]], ends[-1][0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        callback("StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=1),
        callback("LearningRateFinder", num_training_steps=20, max_lr=0.1),
    ],
    ids=["swa", "rate"],
)
def test_a_run_goes_on_as_if_never_stopped(asked: str, pictures: Path, tmp_path: Path) -> None:
    constant = ("scheduler=constant", asked)
    fitted(pictures, tmp_path / "whole", "trainer.max_epochs=3", *constant)
    fitted(pictures, tmp_path / "parts", "trainer.max_epochs=2", *constant)
    fitted(pictures, tmp_path / "parts", "trainer.max_epochs=3", *constant)
    whole, parts = weights(tmp_path / "whole", "last"), weights(tmp_path / "parts", "last")
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def test_the_rate_that_was_found_is_trained_with(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find = callback("LearningRateFinder", num_training_steps=30, max_lr=0.1)
    result = fitted(pictures, tmp_path / "run", "trainer.max_epochs=1", "scheduler=constant", find)
    said = capsys.readouterr().out
    assert "LearningRateFinder: learning rate" in said
    rate = float(said.split("learning rate ")[1].split()[0])
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    assert float(rows[0]["lr"]) == pytest.approx(rate, rel=0.01)
    assert rate != 0.002
    # those of the search do not count
    assert (int(float(rows[0]["images"])), result["epochs"]) == (16, 1)
    assert not list((tmp_path / "run").glob(".lr_find*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "clean", "line"),
    [
        (
            callback("EarlyStopping", monitor="val_psnr"),
            False,
            "no clean images .* val_psnr_estimate",
        ),
        (
            callback("EarlyStopping", monitor="nothing"),
            True,
            "no such score in this run; it has val_psnr",
        ),
        (
            callback("EarlyStopping", monitor="val_psnr", mode="min"),
            True,
            "best where it is highest; mode=max is right",
        ),
        (callback("EarlyStopping"), True, "missing 1 required positional argument: 'monitor'"),
        (
            callback("ModelCheckpoint", monitor="val_loss", mode="max"),
            True,
            "best where it is lowest",
        ),
        (
            callback("EarlyStoping", monitor="val_psnr"),
            True,
            "did you mean pytorch_lightning.callbacks.EarlyStopping",
        ),
        (callback("BatchSizeFinder"), True, "data.batch_size= says it"),
        (callback("ModelPruning", pruning_fn="l1_unstructured"), True, "channels_last"),
        (callback("LambdaCallback", on_train_start=3), True, "must be a function"),
        (callback("StochasticWeightAveraging", swa_lrs=0), True, "positive float"),
        (
            callback("StochasticWeightAveraging", swa_lrs=0.1, swa_epoch_start=9),
            True,
            "the run has trainer.max_epochs=8",
        ),
        (
            callback("EMAWeightAveraging", update_starting_at_step=100),
            True,
            "the run ends before, after 32 steps",
        ),
        ("+callbacks.it=3", True, "must name a class"),
        ("+callbacks.it={_target_: torch.nn.Identity}", True, "is no pytorch_lightning.Callback"),
    ],
)
def test_a_callback_that_cannot_work_is_one_line(
    asked: str, clean: bool, line: str, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=line) as caught:
        TrainingRun(configured(pictures, asked, clean=clean), tmp_path / "run", "test", True)
    assert str(caught.value).startswith("callbacks.it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("+trainer.enable_checkpointing=false", "the checkpoint is what a run is for"),
        ("+trainer.barebones=true", "no checkpoint and no score"),
        ("+trainer.limit_train_batches=0", "nothing would be trained on"),
        ("+trainer.max_steps=0", "nothing would be trained on"),
        ("+trainer.min_epochs=9", "more than trainer.max_epochs=8"),
        ("+trainer.callbacks=[]", "adds a callback"),
        ("+trainer.default_root_dir=x", "hydra.run.dir="),
        ("+trainer.logger=csv", "must name a class"),
        ("trainer.max_epochs=-1", "null works"),
        ("+trainer.strategy=ddp_spawn", "trainer=ddp can"),
        ("trainer.use_distributed_sampler=true trainer.devices=2", "share every batch already"),
        ("trainer.precision=16-true", "float16"),
    ],
)
def test_an_option_of_the_trainer_that_cannot_work_is_one_line(
    option: str, line: str, pictures: Path
) -> None:
    with pytest.raises(InputError, match=line) as caught:
        validation.refuse_config(configured(pictures, *option.split()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        "+trainer.val_check_interval=100",
        "+trainer.overfit_batches=0.01",
        callback("GradientAccumulationScheduler", scheduling="{0: 2}")
        + " +trainer.accumulate_grad_batches=2",
    ],
)
def test_what_lightning_itself_refuses_is_one_line(
    option: str, pictures: Path, tmp_path: Path
) -> None:
    words = option.split(" +")
    options = [words[0], *(f"+{word}" for word in words[1:])]
    with pytest.raises(InputError, match="trainer"):
        fitted(pictures, tmp_path / "run", *options)


def test_early_stopping_goes_on_while_the_score_rises(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = callback("EarlyStopping", monitor="val_psnr", patience=1)
    result = fitted(pictures, tmp_path / "run", "trainer.max_epochs=4", stop)
    assert "mode=max" in capsys.readouterr().out
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        scores = [float(row["val_psnr"]) for row in csv.DictReader(file)]
    falls = [i for i, (one, other) in enumerate(pairwise(scores), 1) if other <= one]
    assert result["epochs"] == (falls[0] + 1 if falls else 4)
    assert result["epochs"] > 2


def test_the_training_loss_can_be_watched(pictures: Path, tmp_path: Path) -> None:
    stop = callback("EarlyStopping", monitor="train_loss", divergence_threshold="1e-9")
    assert fitted(pictures, tmp_path / "run", "trainer.max_epochs=3", stop)["epochs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_weights_of_another_precision(precision: str, pictures: Path, tmp_path: Path) -> None:
    result = fitted(
        pictures, tmp_path / "run", f"trainer.precision={precision}", "trainer.max_epochs=1"
    )
    plain = fitted(
        pictures, tmp_path / "plain", "trainer.precision=32-true", "trainer.max_epochs=1"
    )
    assert result["val_psnr"] == pytest.approx(plain["val_psnr"], abs=0.5)
    noisy = np.random.default_rng(1).normal(100, 10, (24, 24)).astype(np.float32)
    assert load(tmp_path / "run").denoise(noisy).std() < noisy.std()


def test_no_validation_and_no_logger(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fitted(
        pictures,
        tmp_path / "run",
        "+trainer.limit_val_batches=0",
        "trainer.max_epochs=1",
        "+trainer.logger=false",
    )
    assert result["val_psnr"] is None
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "last.ckpt"
    ]
    assert "written all the same" in capsys.readouterr().out
    assert (tmp_path / "run" / "metrics.csv").is_file()


def test_profiler_and_progress_bar_of_ones_own(pictures: Path, tmp_path: Path) -> None:
    fitted(
        pictures,
        tmp_path / "run",
        "+trainer.profiler=simple",
        callback("TQDMProgressBar"),
        "trainer.max_epochs=1",
    )
    assert "run_training_batch" in (tmp_path / "run" / "fit-profile.txt").read_text(
        encoding="utf-8"
    )


@pytest.mark.slow
def test_fast_dev_run_keeps_no_checkpoint_and_says_so(pictures: Path, tmp_path: Path) -> None:
    words = [f"data.noisy={pictures / 'a'}", f"data.target={pictures / 'b'}", *SMALL]
    done = run("train", "data=pairs", *words, "+trainer.fast_dev_run=true", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no checkpoint" in done.stdout
    assert "--checkpoint" not in done.stdout
    with pytest.raises(InputError, match="keeps no network"):
        fit(
            pictures / "a",
            pictures / "b",
            *SMALL,
            "+trainer.fast_dev_run=true",
            folder=tmp_path / "run",
        )


def test_by_hand_a_trainer_with_our_module_and_our_data(pictures: Path, tmp_path: Path) -> None:
    silence_lightning()
    config = configured(pictures)
    data = PairedImages(
        **{key: value for key, value in config["data"].items() if key != "_target_"}, dims=2
    )
    data.setup()
    module = Denoiser(
        DRUNet(channels=1, widths=(4, 8), blocks=(1, 1)), bounds=data.bounds, unit=data.unit
    )
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        logger=False,
    )
    trainer.fit(module, datamodule=data)
    validated = trainer.validate(module, data, verbose=False)[0]
    assert trainer.test(module, data, verbose=False)[0]["val_psnr"] == validated["val_psnr"]
    shown: Any = trainer.predict(module, data)
    assert shown[0].shape[1:] == (1, 32, 32)
    assert module.history[0]["val_psnr"] == pytest.approx(validated["val_psnr"], abs=1e-4)


@pytest.mark.slow
@linux
@pytest.mark.parametrize("words", [[], ["-m"]], ids=["run", "sweep"])
def test_a_working_folder_that_cannot_be_written_to(words: list[str]) -> None:
    # where nobody, not even root, writes
    done = run("train", "trainer.max_epochs=1", *words, cwd=Path("/sys"))
    assert done.returncode == 2
    assert "names another place" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@linux
def test_a_run_folder_elsewhere_needs_no_working_folder(pictures: Path, tmp_path: Path) -> None:
    words = [
        f"data.noisy={pictures / 'a'}",
        f"data.target={pictures / 'b'}",
        *SMALL,
        "trainer.max_epochs=1",
    ]
    done = run("train", "data=pairs", *words, f"hydra.run.dir={tmp_path / 'run'}", cwd=Path("/sys"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_outputs_that_is_a_file_or_leads_nowhere(tmp_path: Path) -> None:
    for name in ("file", "link"):
        (tmp_path / name).mkdir()
    (tmp_path / "file" / "outputs").touch()
    (tmp_path / "link" / "outputs").symlink_to("nowhere")
    for name in ("file", "link"):
        done = run("train", "trainer.max_epochs=1", cwd=tmp_path / name)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


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
