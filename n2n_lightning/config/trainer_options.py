"""Arguments of Lightning's Trainer that a run cannot take, refused before training in one line each."""

from collections.abc import Sequence
from typing import Any

from n2n_lightning.files import InputError

# What the run sets itself, and what does the same.
_INSTEAD = {
    "callbacks": "'+callbacks.NAME={_target_: pytorch_lightning.callbacks.LearningRateMonitor}' adds a callback",
    "plugins": "they write the checkpoints of a run; trainer.precision= and trainer.strategy= choose others",
    "default_root_dir": "hydra.run.dir= names the run folder",
}


def refuse_trainer_options(options: dict[str, Any]) -> None:
    """Raise for arguments of the Trainer that would leave a run without what it is there for.

    Args:
        options: the group `trainer` of a configuration.

    Raises:
        InputError: one of them cannot work.
    """
    for name, instead in _INSTEAD.items():
        if options.get(name) is not None:
            raise InputError(f"trainer.{name}: is set by the run itself; {instead}")
    tried = "+trainer.fast_dev_run=true tries one batch and keeps nothing"
    if options.get("enable_checkpointing") is False:
        raise InputError(
            "trainer.enable_checkpointing", "false", f"the checkpoint is what a run is for; {tried}"
        )
    if options.get("barebones"):
        raise InputError(
            "trainer.barebones",
            "true",
            f"would leave no checkpoint and no score; {tried}, and images per second are in"
            " metrics.csv of every run",
        )
    strategy = str(options.get("strategy"))
    if strategy.startswith("ddp") and strategy.partition("_")[2] in ("spawn", "fork", "notebook"):
        raise InputError(
            "trainer.strategy", strategy, "its processes cannot share a run here; trainer=ddp can"
        )
    _refuse_lengths(options)
    several = options.get("devices") not in (1, "1") or "ddp" in strategy
    if options.get("use_distributed_sampler") and several:
        raise InputError(
            "trainer.use_distributed_sampler",
            "true",
            "the processes share every batch already; false works",
        )
    _check_loggers(options.get("logger"))


def _refuse_lengths(options: dict[str, Any]) -> None:
    for name in ("limit_train_batches", "max_steps", "overfit_batches", "val_check_interval"):
        value = options.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputError(f"trainer.{name}", value, "must be a number")
        if value == 0 and name != "overfit_batches":
            raise InputError(
                f"trainer.{name}", "0", "nothing would be trained on or scored; larger than 0"
            )
    least, most = options.get("min_epochs"), options.get("max_epochs")
    if isinstance(least, int) and isinstance(most, int) and least > most:
        raise InputError("trainer.min_epochs", least, f"more than trainer.max_epochs={most}")


def _check_loggers(asked: Any) -> None:
    """Raise for loggers that are no class with arguments."""
    for logger in asked if isinstance(asked, list) else [asked]:
        if isinstance(logger, bool | None):  # true: those of the run; false: see unused_options
            continue
        if not isinstance(logger, dict) or "_target_" not in logger:
            raise InputError(
                "trainer.logger",
                logger,
                "must name a class, as '+trainer.logger={_target_:"
                " pytorch_lightning.loggers.CSVLogger, save_dir: more}'",
            )


def added_loggers(options: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Take the loggers that were asked for out of the Trainer's options.

    Returns:
        Their configurations, and lines that say what does not happen as asked.
    """
    asked = options.pop("logger", None)
    loggers: Sequence[Any] = asked if isinstance(asked, list) else [asked]
    notes = (
        ["trainer.logger=false: metrics.csv and the curves are written all the same"]
        if asked is False
        else []
    )
    return [logger for logger in loggers if isinstance(logger, dict)], notes
