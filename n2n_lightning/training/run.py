"""A run, from its configuration to its result: check, lock, build, fit, write (`start`)."""

import math
import os
import re
import shlex
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from n2n_lightning.config import validation
from n2n_lightning.config.construction import construct, instantiate_resolved
from n2n_lightning.config.overrides import bare, plain_config
from n2n_lightning.data import NoisyPairs
from n2n_lightning.devices.memory import out_of_memory
from n2n_lightning.files import FULL, DiskFull, InputError, disk_full
from n2n_lightning.inference.checkpoint import CheckpointInfo, read_checkpoint, read_info
from n2n_lightning.inspection import unfit
from n2n_lightning.metrics.movie_score import MovieScore
from n2n_lightning.networks import multiply_accumulates
from n2n_lightning.reporting.validation_certificate import write_validation_certificate
from n2n_lightning.runs import folder as run_folder
from n2n_lightning.runs.processes import LEADER, PeerProcessDied, is_worker_rank
from n2n_lightning.training import callbacks, checkpointing, loggers, warm_start
from n2n_lightning.training.lightning_callbacks import build_callbacks
from n2n_lightning.training.loggers import added_loggers
from n2n_lightning.training.module import Denoiser, Diverged
from n2n_lightning.training.precision import on_cards, precision, without_fused
from n2n_lightning.training.validation_images import ValidationImages

# of movies, after training: enough for an interval of 0.1 dB (benchmarks/movies.py estimate)
MOVIE_FRAMES_SCORED = 32


def start(
    config: Any,
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    lines: bool = False,
    hydra: Any | None = None,
) -> dict[str, Any]:
    """Train one run, from its configuration to its result; every run starts here.

    Checks the configuration, locks the run folder, builds data, network, callbacks and trainer,
    writes `.hydra/`, trains, and writes `result.json`. Continues from `checkpoints/last.ckpt` of
    the folder if there is one, or from the checkpoint before if that is damaged.

    Args:
        config: the composed configuration, a DictConfig, or a dict of the same keys.
        folder: the run folder, made if needed. Nothing is written to it before all is built.
        overrides: the options that were typed for the configuration, in Hydra's grammar.
        lines: print a line per epoch even where the output is a terminal.
        hydra: Hydra's own configuration, where it composed `config`, for `.hydra/hydra.yaml`.

    Returns:
        The content of `result.json`.

    Raises:
        InputError: the configuration or the data cannot work, or the folder is in use.
        Diverged: the loss became NaN or infinite.
        Interrupted: SIGINT or SIGTERM arrived; the run can be continued.
        PeerProcessDied: another process of the run ended.
        DiskFull: there is no room for its files.
    """
    silence_lightning()
    composed = OmegaConf.create(config)
    typed_in = Path.cwd() if hydra is None else Path(hydra.runtime.cwd)
    plain = plain_config(composed, overrides, typed_in)
    check_config(plain, overrides, run_folder.has_checkpoint(folder))
    command = shlex.join(["n2n", "train", *map(bare, overrides)])
    if is_worker_rank():
        run = TrainingRun(plain, folder, command, lines)
        run.fit()
        return run.finish()
    with run_folder.locked(folder):
        run = TrainingRun(plain, folder, command, lines)
        run.announce()
        run_folder.write_request(folder, composed, overrides, hydra)
        run.fit()
        return run.finish()


def check_config(config: dict[str, Any], overrides: Sequence[str], continues: bool) -> None:
    """Raise for a configuration that cannot work, before anything is built or written.

    Args:
        config: the plain configuration.
        overrides: the options that were typed for it.
        continues: the run has a checkpoint, and with it a network of its own.

    Raises:
        InputError: one line that says what is wrong.
    """
    noise = [override for override in overrides if override.startswith(("noise=", "noise."))]
    if noise and "noise" not in config["data"]:
        source = run_folder.choice_of("data", config["data"]["_target_"])
        raise InputError(
            f"{noise[0]}: data={source} are noisy already; noise= goes with data=photos and"
            " data=images"
        )
    if config.get("init") and not continues:
        warm_start.refuse_overrides(str(config["init"]), overrides, config["model"])
    validation.refuse_config(config)


def _doubts(data: NoisyPairs) -> list[str]:
    """Return what makes the captures unfit for the way they are trained on, a line each."""
    captured = data.training_scenes
    if captured is None:
        return []
    return unfit(captured.scenes, captured.stats, captured.within, captured.method)


class TrainingRun:
    """A run that was built, ready to be fitted: data, module and trainer.

    Args:
        config: the plain configuration.
        folder: the run folder.
        command: the command that repeats the run, for `result.json`.
        lines: print a line per epoch even where the output is a terminal.

    Raises:
        InputError: something cannot be built; the message says of which group.
    """

    def __init__(self, config: dict[str, Any], folder: Path, command: str, lines: bool) -> None:
        pl.seed_everything(config["seed"], verbose=False)
        self.folder, self.command = folder, command
        self.begin = checkpointing.resumable(folder / "checkpoints")
        self.data = self._data(config)
        if self.begin and config["trainer"].get("fast_dev_run"):
            raise InputError(
                "trainer.fast_dev_run: tries a new run; this one has a checkpoint to go on from"
            )
        config = {**config, "model": self._model_options(config)}
        self.precision = precision(config["trainer"])
        self.config, unfused = without_fused(config, self.precision)
        self.module = self._module()
        inputs = self.data.input_channels
        self.notes: list[str] = [f"data: {note}" for note in self.data.notes] + unfused
        if config.get("init") and not self.begin:
            self.notes.append(warm_start.weights(self.module.network, config["init"], inputs))
        endless = (
            config["trainer"].get("max_epochs") is None
            and config["trainer"].get("max_steps", -1) < 0
        )
        trial = math.inf if endless else 1000
        construct("optim or scheduler", lambda: self.module.optimization(trial))
        self.parameters = sum(p.numel() for p in self.module.network.parameters())
        self.operations = construct(
            "model", lambda: multiply_accumulates(self.module.network, inputs)
        )
        self.before = run_folder.read_result(folder)
        self.stop = callbacks.SaveOnSignal(folder / "checkpoints" / "last.ckpt")
        self.trainer = self._trainer(lines)
        self.movie_scores: dict[str, Any] = {}
        self.commit = run_folder.git_commit()
        size, count = config["data"].get("batch_size"), self.trainer.world_size
        if size is not None and size < count:
            raise InputError("data.batch_size", size, f"cannot be split among {count} processes")

    def _data(self, config: dict[str, Any]) -> Any:
        options = {"supervised": config["target"] == "clean", "dims": _dims(config["model"])}
        if config["data"].get("mask") == "auto" and self.begin:
            # as the run began, whatever would be measured now
            options["mask"] = read_info(self.begin).mask or "auto"
        data = construct("data", lambda: instantiate_resolved(config["data"], **options))
        data.setup()
        return data

    def _model_options(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the options of the network, with the channels and dimensions of the data."""
        model: dict[str, Any] = config["model"]
        if config.get("init"):  # a run that goes on has its own weights already
            model = warm_start.checkpoint_model(self.begin or warm_start.source(config["init"]))
            for name in ("channels", "dims"):
                if name in model or name in warm_start.options(model):
                    model[name] = "auto"
        if model.get("channels") == "auto":
            model = {**model, **_channels(self.data, model)}
        if model.get("dims") == "auto":
            model = {**model, "dims": self.data.dims}
        return model

    def _module(self) -> Denoiser:
        config, data = self.config, self.data
        info = CheckpointInfo.of_data(config["model"], data)
        return Denoiser(
            construct("model", lambda: instantiate_resolved(config["model"])),
            loss=construct("loss", lambda: instantiate_resolved(config["loss"])),
            optimizer=construct("optim", lambda: instantiate_resolved(config["optim"])),
            scheduler=construct("scheduler", lambda: instantiate_resolved(config["scheduler"])),
            spec={**info.plain(), "config": config},
            reference=data.reference,
            bounds=data.bounds,
            unit=data.unit,
            second_pass=data.second_pass,
        )

    def _trainer(self, lines: bool) -> pl.Trainer:
        options = {**self.config["trainer"], "precision": self.precision}
        self.notes += on_cards(options)
        limit = options.get("limit_val_batches", 1.0)
        self.validated = self.data.val is not None and limit != 0
        if not self.validated:
            options["limit_val_batches"] = 0
        reference = self.data.reference if self.validated else None
        bar = options.pop("enable_progress_bar")
        if bar == "auto":
            bar = sys.stdout.isatty() and not lines
        logger_options, logger_notes = added_loggers(options)
        more_loggers = [
            construct("trainer.logger", partial(instantiate_resolved, options_of), foreign=True)
            for options_of in logger_options
        ]
        asked, callback_notes = build_callbacks(
            self.config["callbacks"], reference, self._steps(), options.get("max_epochs")
        )
        self.notes += [*logger_notes, *callback_notes]
        parts = {}  # Hydra 1.4 takes objects as arguments, not in a configuration
        if options.get("profiler") in ("simple", "advanced"):
            parts["profiler"] = _profiler(options.pop("profiler"), self.folder)
            self.notes.append("trainer.profiler: its table will be profile.txt in the run folder")
        progress: list[pl.Callback] = []
        if any(isinstance(callback, ProgressBar) for callback in asked):  # in place of ours
            bar = True
        else:
            progress = [callbacks.ProgressBar() if bar else callbacks.EpochPrinter()]
        checkpoints = self.folder / "checkpoints"
        watchers: list[pl.Callback] = [
            callbacks.KillPeersOnException(),
            *progress,
            *asked,
            ValidationImages(self.folder / "samples.png"),
            # Last of these: its checkpoint must hold what the others do after the same batch, as
            # averages of weights.
            self.stop,
        ]
        if reference in ("clean", "noisy", "stein", "hidden"):
            watchers.append(checkpointing.Best(checkpoints, reference))
        watchers.append(checkpointing.Last(checkpoints))
        metrics = loggers.MetricsFile(self.folder / "metrics.csv", lambda: self.write("running"))
        self.curves = loggers.Curves(self.folder)
        trainer: pl.Trainer = construct(
            "trainer",
            lambda: instantiate_resolved(
                options,
                default_root_dir=str(self.folder),
                enable_progress_bar=bar,
                logger=[self.curves, metrics, *more_loggers],
                callbacks=watchers,
                plugins=[checkpointing.WholeCheckpoints()],
                **parts,
            ),
            explained=lambda line: validation.unexpected(line, pl.Trainer),
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
        """Return the line that the terminal shows before the first epoch."""
        size = f"{self.parameters:,} parameters, {self.operations:,} MAC/pixel"
        several = f" in {self.trainer.world_size} processes" if self.trainer.world_size > 1 else ""
        where = f"{self.precision} on {self.trainer.strategy.root_device}{several}"
        return f"{type(self.module.network).__name__}: {size}, {where}"

    def announce(self) -> None:
        """Print what is trained, what is doubtful about the data, and what was left out of them."""
        print(self.summary(), *self.notes, sep="\n", flush=True)
        for doubt in _doubts(self.data):
            print(
                f"warning: {doubt} (n2n check says more)",
                file=sys.stderr,
                flush=True,
            )
        for line in self.data.dropped:
            print(f"left out: {line}", flush=True)
        left_out = self.data.left_out
        if left_out:
            shown = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
            print(
                f"left out: {len(left_out)} that cannot be learnt from ({shown}); result.json names"
                " all",
                flush=True,
            )

    def fit(self) -> None:
        """Train; where that does not end well, say how in `result.json`."""
        leads = not is_worker_rank()
        try:
            begun = self.write("running")
            if leads:
                self._describe(begun)
                os.environ[LEADER] = str(self.folder.absolute())
            threading.excepthook = _quiet_where_full
            self.trainer.fit(self.module, self.data, ckpt_path=self.begin, weights_only=True)
            self._certify()
        except callbacks.Interrupted as error:
            self.write("interrupted", str(error))
            raise
        except Exception as error:
            cause = self._failed(error)
            if cause is error:
                raise
            raise cause from error
        finally:
            threading.excepthook = threading.__excepthook__
            if leads:
                os.environ.pop(LEADER, None)
            self.data.release()

    def finish(self) -> dict[str, Any]:
        """Write the result of a run that was fitted.

        Returns:
            The content of `result.json`.

        Raises:
            Interrupted: a signal arrived in the last validation, when training was over already.
        """
        self.movie_scores = self._movie_scores()
        result = self.write("finished")
        if not is_worker_rank():
            run_folder.write_hyperparameters(self.folder, self.config, self.command, result)
            if self.stop.received:
                raise callbacks.Interrupted(self.stop.received, self.folder)
        return result

    def _describe(self, begun: dict[str, Any]) -> None:
        """Write the text about the run into its TensorBoard events."""
        names = ("parameters", "macs_per_pixel", "precision", "device")
        facts = {name: begun[name] for name in names}
        facts |= {**begun["versions"], "commit": begun["git_commit"], "seed": begun["seed"]}
        self.curves.describe(self.command, self.data.fingerprint, facts)

    def _failed(self, error: Exception) -> Exception:
        """Note in the run folder that training failed; return the exception to raise for it."""
        # the disk may be full for event files, which are not written by this package
        cause: Exception = disk_full(self.folder, error) or error
        lost = r"[Cc]onnection (closed|reset)|[Bb]roken pipe|remote peer"
        if self.trainer.world_size > 1 and re.search(lost, str(cause)):
            cause = PeerProcessDied(
                "another process of this run ended; resume=RUN_FOLDER continues from the last"
                " checkpoint"
            )
        line = _of_lightning(error)
        if line:
            cause = InputError(line)
        if out_of_memory(error):
            cause = self._too_large()
        known = isinstance(cause, Diverged | DiskFull | PeerProcessDied | InputError)
        with suppress(DiskFull):
            self.write("failed", str(cause) if known else f"{type(cause).__name__}: {cause}")
        return cause

    def _too_large(self) -> InputError:
        """Return the line for a batch that the memory of the device is too small for."""
        where = self.trainer.strategy.root_device
        size = self.data.batch_size
        reason = f"{where} has too little memory for it"
        if size > 1:
            half = size // 2
            reason += (
                f"; data.batch_size={half} would take about half, and with"
                " trainer.accumulate_grad_batches=2 the steps stay the same"
            )
        return InputError("data.batch_size", size, reason)

    def _correlation(self) -> dict[str, Any]:
        """Return the Fourier shell correlation of volumes' two halves, of the latest validation."""
        if not self.module.halves or self.data.dims != 3 or self.data.reference != "noisy":
            return {}
        curves = {name: curve.values for name, curve in self.module.halves.items()}
        return {"fsc": {"frequency": self.module.halves["noisy"].frequencies, **curves}}

    @contextmanager
    def _best_weights(self) -> Iterator[bool]:
        """Give the network the weights that `denoise` takes, for the time of a `with` statement.

        Yields:
            False where there are none: a trial run leaves no checkpoint.
        """
        try:
            weights = read_checkpoint(self.folder)["state_dict"]
        except InputError:
            yield False
            return
        network = self.module.network
        trained = {name: value.clone() for name, value in network.state_dict().items()}
        prefix = "network."
        own = {name.removeprefix(prefix): w for name, w in weights.items() if prefix in name}
        network.load_state_dict(own)
        self.module.eval().to(self.trainer.strategy.root_device)
        try:
            with torch.inference_mode():
                yield True
        finally:
            network.load_state_dict(trained)

    def _certify(self) -> None:
        """Write error maps and certificates of the first validation scenes, for the report."""
        scenes = self.config.get("certify", 0)
        if not scenes or is_worker_rank() or not self.validated:
            return
        with self._best_weights() as loaded:
            if not loaded:
                return
            try:
                write_validation_certificate(self.folder, self.data, self._denoised, scenes)
            except Exception as error:  # the run itself is finished
                print(
                    f"warning: no certificate of the validation scenes ({error})",
                    file=sys.stderr,
                    flush=True,
                )

    def _denoised(self, images: torch.Tensor) -> torch.Tensor:
        """Denoise a batch, (B, C, ...)."""
        return self.module.predict_step(images.to(self.trainer.strategy.root_device), 0)

    def _movie_scores(self) -> dict[str, Any]:
        """Return Stein's estimate for the whole movie, as `denoise` writes it with the checkpoint.

        Returns:
            Entries of `result.json`; none where the data are no movie, or its noise is not known.
        """
        movie = self.data
        if movie.reference != "stein" or is_worker_rank():
            return {}
        score = MovieScore(movie.unit)
        with self._best_weights() as loaded:
            for scene in movie.scored if loaded else ():
                most = MOVIE_FRAMES_SCORED // len(movie.scored)
                shown = movie.scored_frames(scene, movie.context, movie.sees_middle, max(2, most))
                for frame in shown:
                    score.add(self._denoised_frame, frame, movie.noise_of(scene))
        movie.movies = None
        if not score.frames:
            return {}
        summary = score.summary()
        return {
            "movie_psnr_estimate": summary["psnr_estimate"],
            "movie_psnr_estimate_interval": summary["psnr_estimate_interval"],
            "movie_frames_scored": summary["images"],
        }

    def _denoised_frame(self, frames: torch.Tensor) -> torch.Tensor:
        """Denoise a frame, (C, ...), from the frames that the network sees, (F, C, ...)."""
        return self._denoised(frames.flatten(0, 1)[None])[0].cpu()

    def write(self, status: str, reason: str | None = None) -> dict[str, Any]:
        """Write `result.json`, in the first process of the run.

        Args:
            status: running, finished, interrupted or failed.
            reason: why it is not finished.

        Returns:
            Its content; in the other processes the status alone.
        """
        if is_worker_rank():
            return {"status": status}
        history = self.module.history
        scores = {**run_folder.scores_of(history), "epochs": len(history)}
        if not history:  # a run that goes on has not read its checkpoint yet
            scores = {name: self.before.get(name, value) for name, value in scores.items()}
        result = {
            "format": run_folder.RUN_FORMAT,
            "status": status,
            "reason": reason,
            **scores,
            "seed": self.config["seed"],
            "parameters": self.parameters,
            "macs_per_pixel": self.operations,
            **self._correlation(),
            **self.movie_scores,
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
            "process": run_folder.this_process(),
        }
        run_folder.write_result(self.folder, result)
        return result


def _dims(model: dict[str, Any]) -> int | str:
    """Return the number of spatial axes that a network takes; `auto`: as many as the data have."""
    ours = str(model.get("_target_")).startswith("n2n_lightning.networks")
    dims: int | str = model.get("dims", 2 if ours else "auto")
    return dims


def _channels(data: Any, model: dict[str, Any]) -> dict[str, int | None]:
    """Return the channels of the network's input and output for data that were set up."""
    if data.context:
        channels = {"channels": data.input_channels, "out_channels": data.channels}
        middle = {"middle": True} if data.subtracts_from_middle else {}
        return channels | middle
    if "out_channels" in model:
        return {"channels": data.channels, "out_channels": None}
    return {"channels": data.channels}


def silence_lightning() -> None:
    """Turn off Lightning's advertising, and its hints that do not apply here."""
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
    """Return the line for what Lightning refuses when training begins; None for other errors."""
    if isinstance(error, InputError):
        return None
    frames = traceback.extract_tb(error.__traceback__)
    in_lightning = bool(frames) and "pytorch_lightning" in Path(frames[-1].filename).parts
    refused = in_lightning and isinstance(error, ValueError | ModuleNotFoundError)
    if refused or isinstance(error, MisconfigurationException):
        return f"trainer or callbacks: {' '.join(str(error).split())}"
    return None


def _profiler(kind: str, folder: Path) -> Any:
    """Return Lightning's profiler of a kind; it writes its table into the run folder."""
    from pytorch_lightning.profilers import AdvancedProfiler, SimpleProfiler

    profiler = SimpleProfiler if kind == "simple" else AdvancedProfiler
    return profiler(str(folder), "profile")


def _quiet_where_full(happened: Any) -> None:
    """Print no traceback of TensorBoard's thread where the disk is full; the run reports it."""
    if not (isinstance(happened.exc_value, OSError) and happened.exc_value.errno in FULL):
        threading.__excepthook__(happened)
