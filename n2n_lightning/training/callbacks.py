"""Callbacks of training: signals, progress, and what the terminal shows."""

import shlex
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar

from n2n_lightning.training.schedulers import timer_of


class Interrupted(RuntimeError):
    """A signal asked the run to stop; its state is saved.

    Args:
        signum: the number of the signal.
        folder: the run folder.
    """

    def __init__(self, signum: int, folder: Path) -> None:
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        super().__init__(
            f"stopped by {signal.Signals(signum).name}; {shlex.quote(f'resume={shown}')} continues"
        )
        self.signum = signum


class StopOnSignal(Callback):
    """Ctrl-C ends training after the batch, as its time does; a second one ends the process.

    Args:
        signals: the numbers of the signals that it acts upon.

    Attributes:
        received: the signal that arrived, or 0.
    """

    def __init__(self, signals: tuple[int, ...] = (signal.SIGINT,)) -> None:
        self.received = 0
        self._signals = signals
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Here, and not in setup, so that these handlers replace Lightning's, which end with exit
        # status 0 and 1.
        if threading.current_thread() is threading.main_thread():
            self._previous = {n: signal.signal(n, self._receive) for n in self._signals}

    def _receive(self, signum: int, frame: Any) -> None:
        self.received = signum
        for n in self._previous:
            signal.signal(n, signal.SIG_DFL)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        if self.received:
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for n, handler in self._previous.items():
            signal.signal(n, handler)
        self._previous = {}


class SaveOnSignal(StopOnSignal):
    """Ctrl-C and SIGTERM write `last.ckpt` after the batch, and end the run.

    After the last batch of an epoch they wait for its validation. `last.ckpt` is also written every
    `MINUTES` inside a long epoch.

    Args:
        last: the path of last.ckpt.
    """

    MINUTES = 10.0  # the most work that a crash may cost

    def __init__(self, last: Path) -> None:
        super().__init__((signal.SIGINT, signal.SIGTERM))
        self.last = last
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if batches % trainer.accumulate_grad_batches:
            return  # a checkpoint has no gradients in it
        stop = self.received
        due = bool(stop) or time.monotonic() - self._saved > self.MINUTES * 60
        # they must agree; asking one another costs time, so not at every step
        if trainer.world_size > 1:
            if trainer.global_step % 10:
                return
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
            stop = self._of_all(trainer, stop) if due else 0
        # From a checkpoint between the last batch and the validation Lightning would resume without
        # the validation.
        if due and not trainer.is_last_batch:
            trainer.save_checkpoint(self.last)
            self._saved = time.monotonic()
            if stop:
                raise Interrupted(stop, self.last.parent.parent)

    def _of_all(self, trainer: pl.Trainer, received: int) -> int:
        """Return the signal that this process or another one of the run received."""
        signum = torch.tensor(received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(signum, reduce_op="max"))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = time.monotonic()  # at the end of the epoch before
        stop = self._of_all(trainer, self.received)
        if stop:
            raise Interrupted(stop, self.last.parent.parent)


class KillPeersOnException(Callback):
    """End the other processes of a run (trainer=ddp) that failed, so that the first can say why.

    Lightning's watcher looks at the other processes every five seconds and, where one is dead,
    kills the first one too, at times while it is about to say so. Here the others are ended first,
    and nothing is left to watch.
    """

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        processes = getattr(trainer.strategy.launcher, "procs", [])
        if isinstance(exception, Interrupted):  # all of them end by themselves
            return
        for process in processes:
            process.kill()
            process.wait()
        processes.clear()  # the list that the watcher goes through


class ProgressBar(RichProgressBar):
    """Lightning's bar, with the PSNR and without a version number."""

    def _get_train_description(self, current_epoch: int) -> str:
        if self.trainer.max_epochs == -1:  # the run ends with its time
            return (
                f"Epoch {current_epoch}, {self.trainer.lightning_module.progress:.0%} of the time"
            )
        return super()._get_train_description(current_epoch)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class EpochPrinter(Callback):
    """A line per epoch, for logs and jobs of a sweep, where a progress bar would be noise."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer, pl_module)

    def _print(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        history: list[dict[str, float]] = pl_module.history  # type: ignore[assignment]
        if not history or not trainer.is_global_zero:
            return
        row = history[-1]
        scores = ""
        for name in ("val_psnr", "val_psnr_estimate"):
            if name in row:
                scores += f"  {name} {row[name]:.2f} dB"
        if "val_self_loss" in row:
            scores += f"  val_self_loss {row['val_self_loss']:.5f}"
        of = f"/{trainer.max_epochs}"
        if trainer.max_epochs == -1:
            limit = "time" if timer_of(trainer) else "steps"
            of = f" ({pl_module.progress:.0%} of the {limit})"
        rate = f"{row['images_per_second']:.0f} images/s"
        loss = f"train_loss {row['train_loss']:.5f}"
        print(f"epoch {row['epoch']}{of}  {loss}{scores}  {rate}", flush=True)
