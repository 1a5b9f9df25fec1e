"""The learning rate over a run."""

import math
from collections.abc import Callable
from typing import Any

from pytorch_lightning.callbacks import Timer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from n2n_lightning.files import InputError, option


def timer_of(trainer: Any) -> Timer | None:
    """Return the callback of trainer.max_time; None where the time is not limited."""
    for callback in trainer.callbacks:
        if isinstance(callback, Timer) and callback.time_remaining() is not None:
            return callback
    return None


def time_spent(trainer: Any) -> float:
    """Return the share of a run's time that is over, the same in all processes; 0: no limit."""
    timer = timer_of(trainer)
    if timer is None:
        return 0.0
    limit = timer.time_elapsed() + (timer.time_remaining() or 0.0)
    share = timer.time_elapsed() / max(limit, 1e-9)
    return float(trainer.strategy.broadcast(share)) if trainer.world_size > 1 else share


def warmup_cosine(
    optimizer: Optimizer,
    total_steps: float,
    warmup: float = 0.0,
    decay: float = 1.0,
    elapsed: Callable[[], float] = lambda: 0.0,
) -> LRScheduler:
    """Schedule a linear warm-up of the learning rate, and a decay to 0 along half a cosine.

    decay=0 stays constant; warmup=0 and decay=0.5 is the ramp-down of the Noise2Noise paper's own
    program.

    Args:
        optimizer: the optimiser whose rate changes.
        total_steps: of the run; may be infinite where the run ends with its time.
        warmup: share of the run in which the rate rises, 0 to 1.
        decay: share of the run in which it falls, 0 to 1.
        elapsed: the share of the run's time that is over. Whichever share is larger counts, of
            steps or of time.

    Returns:
        The schedule, to be advanced at every step.

    Raises:
        InputError: the shares are not in [0, 1], or add up to more.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule, rates = warmup_cosine(optimizer, total_steps=4, warmup=0.5, decay=0.5), []
    >>> for _ in range(4):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     optimizer.step()
    ...     schedule.step()
    >>> rates
    [0.5, 1.0, 1.0, 0.5]
    """
    if not (0 <= warmup <= 1 and 0 <= decay <= 1 and warmup + decay <= 1 + 1e-9):
        raise InputError(
            f"{option('scheduler.warmup', warmup)} and {option('scheduler.decay', decay)} must"
            " lie in [0, 1] and add up to 1 at most"
        )

    def factor(step: int) -> float:
        time = elapsed()
        rise, fall = 1.0, 0.0
        if warmup:
            rise = min(1.0, max((step + 1) / total_steps, time) / warmup)
        if decay:
            fall = max(0.0, (max(step / total_steps, time) - (1 - decay)) / decay)
        return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, fall)))

    return LambdaLR(optimizer, factor)
