"""From a plain configuration to a trained run folder: check, build, fit, write."""

import math
import os
import re
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from n2n_lightning.config import validation
from n2n_lightning.data import NoisyPairs
from n2n_lightning.files import FULL, DiskFull, InputError, disk_full
from n2n_lightning.inference.checkpoint import CheckpointInfo
from n2n_lightning.inspection import unfit
from n2n_lightning.networks import multiply_accumulates
from n2n_lightning.runs import folder as run_folder
from n2n_lightning.runs.processes import LEADER, PeerProcessDied, is_worker_rank
from n2n_lightning.training import callbacks, checkpointing, loggers, warm_start
from n2n_lightning.training.lightning_callbacks import build, build_callbacks
from n2n_lightning.training.loggers import added_loggers
from n2n_lightning.training.module import Denoiser, Diverged
from n2n_lightning.training.validation_images import ValidationImages


def train(
    config: dict[str, Any],
    folder: Path,
    command: str,
    lines: bool = False,
    accepted: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One run, from its plain configuration to its run folder; returns what `result.json` holds.

    Continues from `folder/checkpoints/last.ckpt` if there is one, or from the checkpoint before if
    that is damaged.

    Args:
        config: the resolved configuration, plain dicts and lists.
        folder: the run folder.
        command: what repeats the run, for `result.json`.
        lines: print a line per epoch even where the output is a terminal.
        accepted: called when everything is built, before the run folder is written to.

    Raises:
        InputError: the configuration or the data cannot work.
        Diverged: the loss became NaN or infinite.
        Interrupted: SIGINT or SIGTERM arrived; the run can be continued.
        Deserted: another process of the run ended.
    """
    silence_lightning()
    validation.refuse_config(config)
    run = TrainingRun(config, folder, command, lines)
    if not is_worker_rank():
        print(run.summary(), *run.notes, sep="\n", flush=True)
        for doubt in _doubts(run.data):
            print(
                f"warning: {doubt} (python -m n2n_lightning.check says more)",
                file=sys.stderr,
                flush=True,
            )
        for line in run.data.dropped:
            print(f"left out: {line}", flush=True)
        if left_out := run.data.left_out:
            shown = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
            print(
                f"left out: {len(left_out)} that cannot be learnt from ({shown}); result.json"
                " names all",
                flush=True,
            )
    run.fit(accepted)
    result = run.write("finished")
    if is_worker_rank():
        return result
    run_folder.write_hyperparameters(folder, run.config, command, result)
    if run.stop.received:  # in the last validation, when there was nothing left to stop
        raise callbacks.Interrupted(run.stop.received, folder)
    return result


def _doubts(data: NoisyPairs) -> list[str]:
    """Return what makes the captures unfit for the way they are trained on, a line each."""
    captured = data.training_scenes
    if captured is None:
        return []
    return unfit(captured.scenes, captured.stats, captured.within, captured.method)


class TrainingRun:
    """A run that was built, ready to be fitted: data, module and trainer.

    Args:
        config, folder, command, lines: see `train`.

    Raises:
        InputError: something cannot be built; the message says of which group.
    """

    def __init__(self, config: dict[str, Any], folder: Path, command: str, lines: bool) -> None:
        pl.seed_everything(config["seed"], verbose=False)
        self.folder, self.command = folder, command
        supervised, dims = config["target"] == "clean", _dims(config["model"])
        self.data = construct(
            "data", lambda: instantiate(config["data"], supervised=supervised, dims=dims)
        )
        self.data.setup()
        self.begin = checkpointing.resumable(folder / "checkpoints")
        if self.begin and config["trainer"].get("fast_dev_run"):
            raise InputError(
                "trainer.fast_dev_run: tries a new run; this one has a checkpoint to go on from"
            )
        if config.get("init"):  # a run that goes on has its own weights already
            model = warm_start.checkpoint_model(self.begin or warm_start.source(config["init"]))
            model |= {
                name: "auto"
                for name in ("channels", "dims")
                if name in model or name in warm_start.options(model)
            }
            config = {**config, "model": model}
        if config["model"].get("channels") == "auto":
            config = {
                **config,
                "model": {**config["model"], **_channels(self.data, config["model"])},
            }
        if config["model"].get("dims") == "auto":
            config = {**config, "model": {**config["model"], "dims": self.data.dims}}
        self.config = config
        self.module = self._module()
        inputs = self.data.channels * (2 * self.data.context or 1)
        self.notes: list[str] = [f"data: {note}" for note in self.data.notes]
        if config.get("init") and not self.begin:
            self.notes.append(warm_start.weights(self.module.network, config["init"], inputs))
        endless = (
            config["trainer"].get("max_epochs") is None
            and config["trainer"].get("max_steps", -1) < 0
        )
        construct(
            "optim or scheduler", lambda: self.module.optimization(math.inf if endless else 1000)
        )
        self.parameters = sum(p.numel() for p in self.module.network.parameters())
        self.operations = construct(
            "model", lambda: multiply_accumulates(self.module.network, inputs)
        )
        self.before = run_folder.read_result(folder)
        self.stop = callbacks.StopOnSignal(folder / "checkpoints" / "last.ckpt")
        self.precision = precision(config["trainer"])
        self.trainer = self._trainer(lines)
        self.commit = run_folder.git_commit()
        size, count = config["data"].get("batch_size"), self.trainer.world_size
        if size is not None and size < count:
            raise InputError("data.batch_size", size, f"cannot be split among {count} processes")

    def _module(self) -> Denoiser:
        config, data = self.config, self.data
        return Denoiser(
            construct("model", lambda: instantiate(config["model"])),
            loss=construct("loss", lambda: instantiate(config["loss"])),
            optimizer=construct("optim", lambda: instantiate(config["optim"])),
            scheduler=construct("scheduler", lambda: instantiate(config["scheduler"])),
            spec={**CheckpointInfo.of_data(config["model"], data).plain(), "config": config},
            reference=data.reference,
            bounds=data.bounds,
            unit=data.unit,
            second_pass=data.second_pass,
        )

    def _trainer(self, lines: bool) -> pl.Trainer:
        options = {**self.config["trainer"], "precision": self.precision}
        validated = self.data.val is not None and options.get("limit_val_batches", 1.0) != 0
        if not validated:
            options["limit_val_batches"] = 0
        reference = self.data.reference if validated else None
        bar = options.pop("enable_progress_bar")
        bar = sys.stdout.isatty() and not lines if bar == "auto" else bar
        own, said = added_loggers(options)  # beside ours
        further = [build("trainer.logger", partial(instantiate, spec)) for spec in own]
        asked, set_here = build_callbacks(
            self.config["callbacks"], reference, self._steps(), options.get("max_epochs")
        )
        self.notes += [*said, *set_here]
        if options.get("profiler") in ("simple", "advanced"):
            options["profiler"] = _profiler(options["profiler"], self.folder)
            self.notes.append("trainer.profiler: its table will be profile.txt in the run folder")
        checkpoints = self.folder / "checkpoints"
        shown: list[pl.Callback] = [callbacks.ProgressBar() if bar else callbacks.EpochPrinter()]
        if any(isinstance(callback, ProgressBar) for callback in asked):  # theirs in place of ours
            bar, shown = True, []
        watchers: list[pl.Callback] = [
            callbacks.KillPeersOnException(),
            *shown,
            *asked,
            ValidationImages(self.folder / "samples.png"),
            # Last of these: its checkpoint must hold what the others do after the same batch, as
            # averages of weights.
            self.stop,
        ]
        keepers = (
            [checkpointing.Best(checkpoints, reference)] if reference in ("clean", "noisy") else []
        )
        metrics = loggers.MetricsFile(self.folder / "metrics.csv", lambda: self.write("running"))
        self.curves = loggers.Curves(self.folder)
        trainer: pl.Trainer = construct(
            "trainer",
            lambda: instantiate(
                options,
                default_root_dir=str(self.folder),
                enable_progress_bar=bar,
                logger=[self.curves, metrics, *further],
                callbacks=[*watchers, *keepers, checkpointing.Last(checkpoints)],
                plugins=[checkpointing.WholeCheckpoints()],
            ),
        )
        return trainer

    def _steps(self) -> float:
        """Optimiser steps of the whole run; infinite where only its time is limited."""
        options, data = self.config["trainer"], self.data
        steps = math.inf if options.get("max_steps", -1) < 0 else options["max_steps"]
        if (epochs := options.get("max_epochs")) is None:
            return float(steps)
        batches = -(-len(data.train) // data.batch_size)
        limit = options.get("overfit_batches") or options.get("limit_train_batches") or 1.0
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return float(min(steps, epochs * -(-batches // options.get("accumulate_grad_batches", 1))))

    def summary(self) -> str:
        """The line that the terminal shows before the first epoch."""
        size = f"{self.parameters:,} parameters, {self.operations:,} MAC/pixel"
        several = f" in {self.trainer.world_size} processes" if self.trainer.world_size > 1 else ""
        where = f"{self.precision} on {self.trainer.strategy.root_device}{several}"
        return f"{type(self.module.network).__name__}: {size}, {where}"

    def fit(self, accepted: Callable[[], None]) -> None:
        """Trains, and says in `result.json` how that ended where it did not end well."""
        try:
            accepted()
            begun = self.write("running")
            if not is_worker_rank():
                facts = {
                    name: begun[name]
                    for name in ("parameters", "macs_per_pixel", "precision", "device")
                }
                facts |= {**begun["versions"], "commit": begun["git_commit"], "seed": begun["seed"]}
                self.curves.describe(self.command, self.data.fingerprint, facts)
            os.environ.setdefault(LEADER, str(os.getpid()))
            threading.excepthook = _quiet_where_full
            self.trainer.fit(self.module, self.data, ckpt_path=self.begin, weights_only=True)
        except callbacks.Interrupted as error:
            self.write("interrupted", str(error))
            raise
        except Exception as error:
            found = self._failed(error)
            if found is error:
                raise
            raise found from error
        finally:
            threading.excepthook = threading.__excepthook__
            if not is_worker_rank():
                os.environ.pop(LEADER, None)
            self.data.release()

    def _failed(self, error: Exception) -> Exception:
        """What to raise for an exception of the training, which is noted in the run folder."""
        # of the event files, which are not ours
        found: Exception = disk_full(self.folder, error) or error
        lost = r"[Cc]onnection (closed|reset)|[Bb]roken pipe|remote peer"
        if self.trainer.world_size > 1 and re.search(lost, str(found)):
            found = PeerProcessDied(
                "another process of this run ended; resume=RUN_FOLDER continues from the last"
                " checkpoint"
            )
        if line := _of_lightning(error):
            found = InputError(line)
        known = isinstance(found, Diverged | DiskFull | PeerProcessDied | InputError)
        with suppress(DiskFull):
            self.write("failed", str(found) if known else f"{type(found).__name__}: {found}")
        return found

    def _correlation(self) -> dict[str, Any]:
        """The Fourier shell correlation of the two halves of volumes, in the latest validation."""
        if not self.module.halves or self.data.dims != 3 or self.data.reference != "noisy":
            return {}
        found = {name: curve.values for name, curve in self.module.halves.items()}
        return {"fsc": {"frequency": self.module.halves["noisy"].frequencies, **found}}

    def write(self, status: str, reason: str | None = None) -> dict[str, Any]:
        """Writes `result.json`, in the first process of the run, and returns what it holds."""
        if is_worker_rank():
            return {"status": status}
        history = self.module.history
        scores = {**run_folder.scores_of(history), "epochs": len(history)}
        if not history:  # a run that goes on has not read its checkpoint yet
            scores = {name: self.before.get(name, value) for name, value in scores.items()}
        result = {
            "status": status,
            "reason": reason,
            **scores,
            "seed": self.config["seed"],
            "parameters": self.parameters,
            "macs_per_pixel": self.operations,
            **self._correlation(),
            "score_of": self.data.score_of,
            "data": {
                **self.data.fingerprint,
                "left_out": [*self.data.left_out, *self.data.dropped],
            },
            "precision": self.precision,
            "device": run_folder.device_name(self.trainer.strategy.root_device),
            "processes": self.trainer.world_size,
            "versions": {
                "python": sys.version.split()[0],
                "torch": torch.__version__,
                "pytorch_lightning": pl.__version__,
            },
            "git_commit": self.commit,
            "command": self.command,
            "process": f"{socket.gethostname()}:{os.getpid()}",
        }
        run_folder.write_result(self.folder, result)
        return result


def _dims(model: dict[str, Any]) -> int | str:
    """The spatial axes that a network takes: 2 or 3, or `auto` where it takes what the data have."""
    ours = str(model.get("_target_")).startswith("n2n_lightning.networks")
    dims: int | str = model.get("dims", 2 if ours else "auto")
    return dims


def _channels(data: Any, model: dict[str, Any]) -> dict[str, int | None]:
    """Channels of the network's input and output, for data that were set up, in place of what `model` says."""
    if data.context:
        return {"channels": 2 * data.context * data.channels, "out_channels": data.channels}
    return {
        "channels": data.channels,
        **({"out_channels": None} if "out_channels" in model else {}),
    }


def construct(group: str, make: Callable[[], Any]) -> Any:
    """What `make` returns; what Hydra or a constructor says against the configuration becomes one line."""
    try:
        return make()
    except InputError:
        raise
    except (
        InstantiationException,
        ValueError,
        TypeError,
        RuntimeError,
        MisconfigurationException,
    ) as error:
        cause = error.__cause__ or error
        if isinstance(cause, InputError):
            raise cause from None
        line = " ".join(str(cause).split())
        line = validation.unexpected(line, pl.Trainer) if group == "trainer" else line
        # A message that begins with the option itself says already where the mistake is.
        raise InputError(line if re.match(r"\w+(\.\w+)+=", line) else f"{group}: {line}") from error


def precision(options: dict[str, Any]) -> str:
    """bf16-mixed where the device computes in bfloat16 faster than in float32, else 32-true; or what was asked for.

    Args:
        options: of the trainer group.
    """
    if options["precision"] != "auto":
        return str(options["precision"])
    if torch.cuda.is_available() and options["accelerator"] in ("auto", "gpu", "cuda"):
        fast = torch.cuda.get_device_capability() >= (8, 0)
    elif torch.backends.mps.is_available() and options["accelerator"] in ("auto", "gpu", "mps"):
        fast = False
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bf16-mixed" if fast else "32-true"


def silence_lightning() -> None:
    """Lightning's hints that do not apply here, and its advertising, off."""
    import logging
    import warnings

    for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # batches are one indexing operation
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        ".*your dataloader is not resumable.*",
        ".*recommended to use `self.log.*sync_dist=True.*",  # every process validates on all images
        ".*could not find the monitored key.*",  # an epoch without validation
        ".*SWA is currently only supported every epoch.*",  # its schedule takes the place of ours
        ".*`isinstance.treespec, LeafSpec.` is deprecated.*",  # Lightning 2.6 with torch 2.13
    ):
        warnings.filterwarnings("ignore", message)


def _of_lightning(error: Exception) -> str | None:
    """The line for what Lightning itself refuses when training begins; None for everything else."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = bool(frames) and "pytorch_lightning" in Path(frames[-1].filename).parts
    refused = (
        isinstance(error, ValueError | ModuleNotFoundError)
        and theirs
        and not isinstance(error, InputError)
    )
    if isinstance(error, MisconfigurationException) or refused:
        return f"trainer or callbacks: {' '.join(str(error).split())}"
    return None


def _profiler(kind: str, folder: Path) -> Any:
    """Lightning's profiler, which writes its table into the run folder."""
    from pytorch_lightning.profilers import AdvancedProfiler, SimpleProfiler

    return {"simple": SimpleProfiler, "advanced": AdvancedProfiler}[kind](str(folder), "profile")


def _quiet_where_full(happened: Any) -> None:
    """Says nothing of TensorBoard's thread that found the disk full: the run finds it too, and says so in one line."""
    if not (isinstance(happened.exc_value, OSError) and happened.exc_value.errno in FULL):
        threading.__excepthook__(happened)
