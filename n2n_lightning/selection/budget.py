"""Minutes of processor time: what was spent, and what can still end in time."""

import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.trainer.states import RunningStage


def busy_seconds() -> float:
    """Return the processor time of this thread; on a GPU the time on the clock.

    A network keeps all threads in use as long as this one, a filter uses this one alone: both take
    what they would take on the clock of an idle machine. Other programs on a busy one cost nothing.
    """
    if torch.cuda.is_available():
        return time.monotonic()
    return time.thread_time()


class Budget:
    """A limit of processor time.

    Args:
        seconds: the limit.
        spent: seconds that an interrupted command had spent before.
    """

    def __init__(self, seconds: float, spent: float = 0.0) -> None:
        self.seconds = seconds
        self._before = spent
        self._started = busy_seconds()

    @property
    def spent(self) -> float:
        """Seconds that were spent, also before an interruption."""
        return self._before + busy_seconds() - self._started

    @property
    def left(self) -> float:
        """Seconds that are left, 0 or more."""
        return max(0.0, self.seconds - self.spent)

    def allows(self, seconds: float) -> bool:
        """Return True if what takes so many seconds would end in time."""
        return seconds <= self.left


class BusyTimer(Timer):
    """Lightning's Timer, which counts processor time.

    Args:
        seconds: after which training ends.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(timedelta(seconds=seconds), verbose=False)
        self._began: float | None = None
        self._ended: float | None = None

    def time_elapsed(self, stage: str = RunningStage.TRAINING) -> float:
        """Return the seconds of training, also before an interruption; of other stages 0."""
        if RunningStage(stage) != RunningStage.TRAINING:
            return 0.0
        if self._began is None:
            return float(self._offset)
        end = busy_seconds() if self._ended is None else self._ended
        return end - self._began + self._offset

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._began = busy_seconds()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self._ended = busy_seconds()

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds of training so far."""
        return {"time_elapsed": {RunningStage.TRAINING.value: self.time_elapsed()}}
