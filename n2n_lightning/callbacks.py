"""What happens around training: checkpoints, signals, pictures, and what the terminal shows."""

import csv
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from n2n_lightning.files import InputError, load_torch, replacing
from n2n_lightning.schedulers import timer_of


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoint files that appear whole or not at all, and that are read without running any code in them.

    What `last.ckpt` was stays as `previous.ckpt`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        with replacing(path, path.with_name("previous.ckpt") if path.name == "last.ckpt" else None) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load_torch(Path(path))


class _Checkpoint(ModelCheckpoint):
    """A checkpoint of the run folder, after every epoch; a run folder that was moved keeps what it knew."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        super().__init__(folder, name, save_on_train_epoch_end=True, enable_version_counter=False, **options)
        self.path = str(folder / f"{name}.ckpt")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = {**state_dict, "dirpath": self.dirpath}
        if state["best_model_path"]:
            state |= {"best_model_path": self.path, "kth_best_model_path": self.path}
            state["best_k_models"] = dict.fromkeys(state["best_k_models"] and [self.path], state["best_model_score"])
        super().load_state_dict(state)


RESUMABLE = ("last", "previous", "best")  # checkpoints that a run can continue from, in this order


def resumable(folder: Path) -> Path | None:
    """The checkpoint to continue from: the first of RESUMABLE that is whole.

    Damaged ones before it are renamed to `.damaged`, so that none of them takes the place of a whole one later, and a
    line on standard error says so.

    Raises:
        InputError: there are checkpoints, and all of them are damaged.
    """
    damage, damaged = None, []
    for path in (folder / f"{name}.ckpt" for name in RESUMABLE):
        if not path.exists():
            continue
        try:
            state = load_torch(path)
            if not isinstance(state, dict) or "n2n_lightning" not in state:
                raise InputError(f"{path}: not a checkpoint of this program")
        except InputError as error:
            damage = damage or error
            damaged.append(path)
            continue
        for name in damaged:
            name.replace(name.with_suffix(".damaged"))
        if damage:
            _warn(f"{damage}; continuing from {path.name}, epoch {state['epoch'] + 1}")
        return path
    if damage:
        raise InputError(f"{damage}; without {folder} the run would start anew")
    return None


@rank_zero_only
def _warn(message: str) -> None:
    print("warning:", message, file=sys.stderr)


class Best(_Checkpoint):
    """`best.ckpt`, of the epoch with the highest val_psnr; without clean images, with the least estimated error.

    It holds the weights that had that score: those that validation ran with, whatever other callbacks exchange for it
    or change between it and the end of the epoch.
    """

    def __init__(self, folder: Path, reference: str = "clean") -> None:
        watched, mode = {"clean": ("val_psnr", "max"), "noisy": ("val_mse_estimate", "min")}[reference]
        super().__init__(folder, "best", monitor=watched, mode=mode)
        self._validated: dict[str, torch.Tensor] = {}
        self._saving = False

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            weights = pl_module.network.state_dict()  # type: ignore[union-attr]
            self._validated = {f"network.{name}": value.clone() for name, value in weights.items()}

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        self._saving = True
        try:
            super()._save_checkpoint(trainer, filepath)
        finally:
            self._saving = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._saving:
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **self._validated}


class Last(_Checkpoint):
    """`last.ckpt`. It has no monitor: with one, Lightning leaves the best epoch in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "last")


class Interrupted(RuntimeError):
    """A signal asked the run to stop; its state is saved."""

    def __init__(self, signum: int, folder: Path) -> None:
        here = Path.cwd()
        shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
        super().__init__(f"stopped by {signal.Signals(signum).name}; {shlex.quote(f'resume={shown}')} continues")
        self.signum = signum


class StopOnSignal(Callback):
    """Ctrl-C and SIGTERM end training after the batch (the last one: after the epoch); a second one ends it at once.

    `last.ckpt` is written then, and every `MINUTES` inside a long epoch.
    """

    MINUTES = 10.0

    def __init__(self, last: Path) -> None:
        self.last, self.received = last, 0
        self._saved = time.monotonic()
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Here, and not in setup, so that these handlers replace Lightning's, which end with exit status 0 and 1.
        if threading.current_thread() is threading.main_thread():
            self._previous = {n: signal.signal(n, self._receive) for n in (signal.SIGINT, signal.SIGTERM)}

    def _receive(self, signum: int, frame: Any) -> None:
        self.received = signum
        for n in self._previous:
            signal.signal(n, signal.SIG_DFL)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready % trainer.accumulate_grad_batches:
            return  # a checkpoint has no gradients in it
        stop = self.received
        due = bool(stop) or time.monotonic() - self._saved > self.MINUTES * 60
        if trainer.world_size > 1:  # they must agree; asking one another costs time, so not at every step
            if trainer.global_step % 10:
                return
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
            stop = self._of_all(trainer, stop) if due else 0
        # From a checkpoint between the last batch and the validation Lightning would resume without the validation.
        if due and not trainer.is_last_batch:
            trainer.save_checkpoint(self.last)
            self._saved = time.monotonic()
            if stop:
                raise Interrupted(stop, self.last.parent.parent)

    def _of_all(self, trainer: pl.Trainer, received: int) -> int:
        """The signal that this process or another one of the run received."""
        found = torch.tensor(received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(found, reduce_op="max"))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = time.monotonic()  # at the end of the epoch before
        if stop := self._of_all(trainer, self.received):
            raise Interrupted(stop, self.last.parent.parent)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for n, handler in self._previous.items():
            signal.signal(n, handler)
        self._previous = {}


class LastWord(Callback):
    """Lets the first process of several (trainer=ddp) say why the run failed.

    Lightning's watcher looks at the other processes every five seconds and, where one is dead, kills the first one too,
    at times while it is about to say so. Here the others are ended first, and nothing is left to watch.
    """

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        processes = getattr(trainer.strategy.launcher, "procs", [])
        if isinstance(exception, Interrupted):  # all of them end by themselves
            return
        for process in processes:
            process.kill()
            process.wait()
        processes.clear()  # the list that the watcher goes through


class MetricsFile(Logger):
    """`metrics.csv`, one row per epoch, whole after each; `then` is called after it.

    Lightning's CSVLogger would drop the rows before a resume.
    """

    def __init__(self, path: Path, then: Callable[[], Any]) -> None:
        super().__init__()
        self.path, self.then = path, then
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    name = version = ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: `.hydra/` beside the file has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "train_loss" not in metrics:  # of another callback, as LearningRateMonitor: TensorBoard has it
            return
        self.rows = [row for row in self.rows if int(row["epoch"]) < metrics["epoch"]] + [metrics]
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        self.then()


class Curves(TensorBoardLogger):
    """TensorBoard's curves against the epoch; training and validation loss on one chart, the report's Figure 1."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)
        self._charts = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if not self._charts:
            charts = {
                "MSE": ["Multiline", ["train_loss", "val_loss", "val_noisy_loss", "val_self_loss"]],
                "PSNR in dB": ["Multiline", ["val_psnr", "val_psnr_total", "noisy_psnr", "noisy_psnr_total"]],
                "PSNR in dB, estimated": [
                    "Margin",
                    ["val_psnr_estimate", "val_psnr_estimate_low", "val_psnr_estimate_high"],
                ],
            }
            kept = "estimated" if "val_psnr_estimate" in metrics else "PSNR in dB"
            charts = {n: c for n, c in charts.items() if not n.startswith("PSNR") or n.endswith(kept)}
            self.experiment.add_custom_scalars({"n2n_lightning": charts})
            self._charts = True
        super().log_metrics({k: v for k, v in metrics.items() if k not in ("epoch", "images", "seconds")}, step)

    @rank_zero_only
    def describe(self, command: str, data: dict[str, Any], facts: dict[str, Any]) -> None:
        """The text of a run: its command, what its data are, and with what it was made."""
        rows = [f"| {name} | {value} |" for name, value in {**data, **facts}.items() if value not in (None, "", [])]
        self.experiment.add_text("run", "\n".join([f"    {command}", "", "| | |", "|---|---|", *rows]))


class ProgressBar(RichProgressBar):
    """Lightning's bar, with the PSNR and without the version number that a run folder does not have."""

    def _get_train_description(self, current_epoch: int) -> str:
        if self.trainer.max_epochs == -1:  # the run ends with its time
            return f"Epoch {current_epoch}, {self.trainer.lightning_module.progress:.0%} of the time"
        return super()._get_train_description(current_epoch)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class EpochLines(Callback):
    """One line per epoch: for logs and for the jobs of a sweep, where a progress bar would be noise."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer, pl_module)

    def _print(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        history: list[dict[str, float]] = pl_module.history  # type: ignore[assignment]
        if history and trainer.is_global_zero:
            row = history[-1]
            names = [name for name in ("val_psnr", "val_psnr_estimate") if name in row]
            scores = "".join(f"  {name} {row[name]:.2f} dB" for name in names)
            scores += f"  val_self_loss {row['val_self_loss']:.5f}" if "val_self_loss" in row else ""
            rate = f"{row['images_per_second']:.0f} images/s"
            loss = f"train_loss {row['train_loss']:.5f}"
            limit = "time" if timer_of(trainer) else "steps"
            of = f" ({pl_module.progress:.0%} of the {limit})"
            of = f"/{trainer.max_epochs}" if trainer.max_epochs != -1 else of
            print(f"epoch {row['epoch']}{of}  {loss}{scores}  {rate}", flush=True)
