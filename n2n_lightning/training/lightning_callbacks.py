"""Lightning's callbacks in a run: checked before training, and adapted to reach its result.

A weight average must be what is validated and stored; a found learning rate must survive the
schedule.
"""

import difflib
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_object
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    LambdaCallback,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn

from n2n_lightning.config.construction import construct, instantiate_resolved
from n2n_lightning.files import InputError


class _AverageOnceBegun(WeightAveraging):
    """Weight average that is scored and stored from its first update on.

    It lies on the device of the network, unless another one was named: Lightning makes it before
    the network has been moved there. The number of updates stays on the CPU, where it can be read
    without waiting for a GPU.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if self._device is None and self._average_model is not None:
            self._average_model.module.to(pl_module.device)

    def _begun(self) -> bool:
        return self._average_model is not None and int(self._average_model.n_averaged) > 0

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        if self._begun():
            super()._swap_models(pl_module)

    def _copy_average_to_current(self, pl_module: pl.LightningModule) -> None:
        if self._begun():
            super()._copy_average_to_current(pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._average_model is not None and not self._begun():
            checkpoint["state_dict"] = checkpoint["current_model_state"]


class MeanOfWeights(_AverageOnceBegun):
    """Lightning's WeightAveraging: the mean of the weights after all steps."""

    @property
    def state_key(self) -> str:
        return WeightAveraging.__qualname__


class MovingAverage(EMAWeightAveraging, _AverageOnceBegun):
    """Lightning's EMAWeightAveraging: an exponential moving average of the weights.

    Args:
        decay: share of the average that is kept at each update.
        **options: of EMAWeightAveraging.
    """

    def __init__(self, decay: float = 0.999, **options: Any) -> None:
        super().__init__(decay=decay, **options)
        self._new_share = 1 - decay

    @property
    def state_key(self) -> str:
        return EMAWeightAveraging.__qualname__

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the average; on a GPU all parameters at once, without waiting for it."""
        otherwise = self._device is not None or not self._use_buffers
        if pl_module.device.type == "cpu" or otherwise or not self._begun():
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            return
        step = trainer.global_step
        if step > self._latest_update_step and self.should_update(step_idx=step - 1):
            self._follow(pl_module)
            self._latest_update_step = step

    @torch.no_grad()
    def _follow(self, pl_module: pl.LightningModule) -> None:
        """Move the average towards the current weights, all on one device."""
        assert self._average_model is not None
        averaged = self._average_model.module
        means = [*averaged.parameters(), *averaged.buffers()]
        values = [*pl_module.parameters(), *pl_module.buffers()]
        followed: list[tuple[torch.Tensor, torch.Tensor]] = []
        for mean, value in zip(means, values, strict=True):
            if mean.is_floating_point():
                followed.append((mean, value))
            else:
                mean.copy_(value)
        towards = [value for _, value in followed]
        torch._foreach_lerp_([mean for mean, _ in followed], towards, self._new_share)
        self._average_model.n_averaged += 1


class MeanOfEpochs(StochasticWeightAveraging):
    """Lightning's StochasticWeightAveraging, whose average is validated, stored and used.

    Lightning's own averages the weights that epochs begin with, and puts the average into the
    network after the last checkpoint. Here the weights count that epochs end with, before their
    validation (Izmailov et al., 2018, algorithm 1); running statistics of batch normalisation are
    averaged like the weights.

    Args:
        swa_lrs: the learning rate while weights are averaged.
        **options: of StochasticWeightAveraging.
    """

    def __init__(self, swa_lrs: Any, **options: Any) -> None:
        super().__init__(float(swa_lrs) if isinstance(swa_lrs, int) else swa_lrs, **options)

    @property
    def state_key(self) -> str:
        return StochasticWeightAveraging.__qualname__

    @staticmethod
    def pl_module_contains_batch_norm(pl_module: pl.LightningModule) -> bool:
        return False  # no further epoch for its statistics: they are averaged

    def _networks(self, pl_module: pl.LightningModule) -> tuple[nn.Module, nn.Module] | None:
        """Return the averaged and the current network; None where the average has not begun."""
        if self._average_model is None or self.n_averaged is None or not int(self.n_averaged):
            return None
        return self._average_model.network, pl_module.network  # type: ignore[return-value]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._latest_update_epoch = trainer.current_epoch  # keeps Lightning from averaging here
        super().on_train_epoch_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        if not (trainer.is_last_batch and self.swa_start <= trainer.current_epoch <= self.swa_end):
            return
        assert self._average_model is not None
        assert self.n_averaged is not None
        average = self._average_model.network.buffers()  # type: ignore[union-attr]
        current = pl_module.network.buffers()  # type: ignore[union-attr]
        for mean, value in zip(average, current, strict=True):
            floating = mean.is_floating_point() and int(self.n_averaged)
            mean.copy_(
                self._avg_fn(mean, value.to(mean.device), self.n_averaged) if floating else value
            )
        self.update_parameters(self._average_model, pl_module, self.n_averaged, self._avg_fn)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        networks = self._networks(pl_module)
        if networks:
            average, current = networks
            current.load_state_dict(average.state_dict())

    def _swap(self, pl_module: pl.LightningModule) -> None:
        networks = self._networks(pl_module)
        if networks:
            average, current = networks
            state = {name: value.clone() for name, value in average.state_dict().items()}
            average.load_state_dict(current.state_dict())
            current.load_state_dict(state)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        networks = self._networks(pl_module)
        if networks:
            checkpoint["current_model_state"] = checkpoint["state_dict"]
            state = networks[0].state_dict()
            average = {f"network.{name}": value for name, value in state.items()}
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **average}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if "current_model_state" in checkpoint:
            pl_module.load_state_dict(checkpoint["current_model_state"])


class RateSearch(LearningRateFinder):
    """Lightning's LearningRateFinder, whose rate is the one that the schedule starts from.

    The search has as many steps as were asked for, however short the run is, and leaves no trace
    but the rate. A resumed run keeps the rate that was found when it began.

    Args:
        min_lr: the lowest rate that is tried; None: a hundredth of `optim.lr`. Lightning's 1e-8
            lets it choose a rate where the loss has not moved yet, for it looks for the steepest
            fall, noise included.
        max_lr: the highest; None: a hundred times `optim.lr`, and 1 at most.
        update_attr: False: only print the rate.
        **options: of LearningRateFinder.
    """

    def __init__(
        self,
        min_lr: float | None = None,
        max_lr: float | None = None,
        update_attr: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options, update_attr=False)
        self._range = min_lr, max_lr
        self.use = update_attr
        self.rate: float | None = None
        self._searched = False

    @property
    def state_key(self) -> str:
        return LearningRateFinder.__qualname__

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.ckpt_path or getattr(trainer, "fast_dev_run", False):
            return
        group = trainer.optimizers[0].param_groups[0]
        asked = group.get("initial_lr", group["lr"])
        lowest, highest = self._range
        self._min_lr = lowest or asked / 100
        self._max_lr = highest or min(1.0, asked * 100)
        before = trainer.fit_loop.max_epochs, trainer.check_val_every_n_epoch
        trainer.fit_loop.max_epochs = -1
        trainer.check_val_every_n_epoch = 10**9
        pl_module.searching = True  # type: ignore[assignment]
        try:
            self.lr_find(trainer, pl_module)
        finally:
            pl_module.searching = False  # type: ignore[assignment]
            trainer.fit_loop.max_epochs, trainer.check_val_every_n_epoch = before
        self.rate = self.optimal_lr.suggestion() if self.optimal_lr else None
        self._searched = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._searched:
            return
        groups = trainer.optimizers[0].param_groups
        asked = groups[0].get("initial_lr", groups[0]["lr"])
        line = (
            f"LearningRateFinder found no rate in {self._num_training_steps} steps; {asked:g} stays"
        )
        if self.rate:
            line = (
                f"LearningRateFinder: learning rate {self.rate:.3g} in place of {asked:g}, sought"
                f" from {self._min_lr:.2g} to {self._max_lr:.2g}"
            )
            if not self.use:
                line += " would be its choice (update_attr=false: not taken)"
        if trainer.is_global_zero:
            print(line, flush=True)
        if self.rate and self.use:
            _scale_rates(trainer, self.rate)


def _scale_rates(trainer: pl.Trainer, rate: float) -> None:
    """Set the rate that the optimiser and its schedule begin with; the schedule keeps its shape."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            factor = rate / group.get("initial_lr", group["lr"])
            for name in ("lr", "initial_lr", "max_lr", "min_lr"):
                if name in group:
                    group[name] = group[name] * factor
    for config in trainer.lr_scheduler_configs:
        bases = getattr(config.scheduler, "base_lrs", None)
        if bases:
            config.scheduler.base_lrs = [rate] * len(bases)
            config.scheduler._last_lr = [
                group["lr"] for group in config.scheduler.optimizer.param_groups
            ]


ADAPTED: dict[Any, type[Callback]] = {
    WeightAveraging: MeanOfWeights,
    EMAWeightAveraging: MovingAverage,
    StochasticWeightAveraging: MeanOfEpochs,
    LearningRateFinder: RateSearch,
}
_REFUSED: dict[type, str] = {
    BatchSizeFinder: (
        "the schedule is made for data.batch_size before this would change it; data.batch_size="
        " says it"
    ),
    ModelPruning: (
        "cannot prune networks that are channels_last in memory, as all are here; smaller"
        " model.widths= work"
    ),
    BackboneFinetuning: (
        "freezes a part named backbone, which networks here lack; init=RUN starts from trained"
        " weights"
    ),
}
BEST_IS_HIGHEST = ("val_psnr", "val_psnr_total", "val_psnr_estimate", "val_psnr_estimate_low")
BEST_IS_LOWEST = ("train_loss", "val_loss", "val_mse_estimate", "val_noisy_loss", "val_self_loss")
# The largest share of the first step's weights in an average that needs no remark.
MOST_OF_FIRST_STEP = 0.1
_SCORES = {
    "clean": ("val_psnr", "val_psnr_total", "val_loss"),
    "noisy": ("val_psnr_estimate", "val_psnr_estimate_low", "val_mse_estimate", "val_noisy_loss"),
    "self": ("val_self_loss",),
    "stein": ("val_psnr_estimate", "val_psnr_estimate_low", "val_mse_estimate", "val_noisy_loss"),
    "hidden": ("val_noisy_loss",),
    None: (),
}


def build_callbacks(
    asked: dict[str, Any], reference: str | None, steps: float, epochs: int | None
) -> tuple[list[Callback], list[str]]:
    """Instantiate the callbacks of a run.

    Args:
        asked: the group `callbacks` of its configuration, by name.
        reference: the kind of reference in validation, see NoisyPairs; None: there is
            no validation.
        steps: of the run; infinite where their number is not known.
        epochs: the most that it may have; None where only its time or steps are limited.

    Returns:
        The callbacks, and lines that say what was set where nothing was typed.

    Raises:
        InputError: one cannot be built, or cannot work in this run.
    """
    built, notes = [], []
    for name, spec in asked.items():
        if spec is None:
            continue
        if not isinstance(spec, dict) or "_target_" not in spec:
            raise InputError(
                f"callbacks.{name}: must name a class, as '+callbacks.{name}="
                "{_target_: pytorch_lightning.callbacks.LearningRateMonitor}'"
            )
        callback = _built(name, spec)
        notes += _check_monitor(name, spec, callback, reference)
        notes += _check_average(name, spec, callback, steps, epochs)
        built.append(callback)
    averages = [c for c in built if isinstance(c, WeightAveraging | StochasticWeightAveraging)]
    if len(averages) > 1:
        raise InputError(
            "callbacks: two of them average the weights; the checkpoint holds one average"
        )
    return built, notes


def _built(name: str, spec: dict[str, Any]) -> Callback:
    """Build a callback: ours in place of Lightning's where that one would not reach the result."""
    group = f"callbacks.{name}"
    kind = construct(group, lambda: _class_of(str(spec["_target_"])), foreign=True)
    for refused, why in _REFUSED.items():
        if isinstance(kind, type) and issubclass(kind, refused):
            raise InputError(f"{group}: {why}")
    if kind is LambdaCallback:
        _check_functions(name, spec)
    if kind in ADAPTED:
        spec = {**spec, "_target_": f"{__name__}.{ADAPTED[kind].__qualname__}"}
    if spec.get("mode") is None and kind in (EarlyStopping, ModelCheckpoint):
        mode = "max" if str(spec.get("monitor")) in BEST_IS_HIGHEST else "min"
        spec = {**spec, "mode": mode}
    callback = construct(group, lambda: instantiate_resolved(spec), foreign=True)
    if not isinstance(callback, Callback):
        raise InputError(f"{group}: {spec['_target_']} is no pytorch_lightning.Callback")
    if isinstance(callback, StochasticWeightAveraging) and not isinstance(callback, MeanOfEpochs):
        raise InputError(
            f"{group}: its average would reach no checkpoint; a pytorch_lightning WeightAveraging's"
            " does"
        )
    return callback


def _class_of(path: str) -> Any:
    """Return the class of a dotted name; an error names the nearest one of Lightning's."""
    try:
        return get_object(path)
    except Exception as error:
        module, _, name = path.rpartition(".")
        near = difflib.get_close_matches(name, pl.callbacks.__all__, 1, 0.5)
        hint = f" (did you mean pytorch_lightning.callbacks.{near[0]}?)" if near else ""
        raise InputError(f"{path}: cannot be imported from {module or 'here'}{hint}") from error


def _check_functions(name: str, spec: dict[str, Any]) -> None:
    """Raise where a hook of a LambdaCallback is no function: Lightning would call nothing."""
    for hook, value in spec.items():
        if hook != "_target_" and value is not None and not isinstance(value, dict):
            raise InputError(
                f"callbacks.{name}.{hook}",
                value,
                "must be a function, {_target_: hydra.utils.get_method, path:"
                " my_package.my_function}",
            )


def _check_monitor(
    name: str, spec: dict[str, Any], callback: Callback, reference: str | None
) -> list[str]:
    """Raise where a callback watches a score that this run does not have, or the wrong end of it.

    Returns:
        A line, where the direction was set.
    """
    watched = getattr(callback, "monitor", None)
    if not isinstance(callback, EarlyStopping | ModelCheckpoint) or watched is None:
        return []
    scores = [*_SCORES[reference], "train_loss"]
    if watched not in scores:
        why = _why_missing(watched, reference)
        raise InputError(
            f"callbacks.{name}.monitor={watched}: {why} in this run; it has {', '.join(scores)}"
        )
    mode = "max" if watched in BEST_IS_HIGHEST else "min"
    if spec.get("mode") is None:
        return [f"callbacks.{name}: mode={mode}, for {watched} is best where it is {_END[mode]}"]
    if callback.mode != mode:
        raise InputError(
            f"callbacks.{name}.mode",
            callback.mode,
            f"{watched} is best where it is {_END[mode]}; mode={mode} is right",
        )
    if watched == "train_loss" and isinstance(callback, EarlyStopping):
        callback._check_on_train_epoch_end = True
    return []


def _why_missing(watched: str, reference: str | None) -> str:
    """Return why a run has no score of this name."""
    if not any(watched in scores for scores in _SCORES.values()):
        return "there is no such score"
    if reference is None:
        return "there is no validation"
    if reference == "clean":
        return "the validation images are clean"
    if reference == "self":
        return "there is one capture of each scene"
    if reference == "hidden" and "estimate" in watched:
        return "the noise of the movie could not be measured"
    return "there are no clean images to score against"


_END = {"max": "highest", "min": "lowest"}


def _check_average(
    name: str, spec: dict[str, Any], callback: Callback, steps: float, epochs: int | None
) -> list[str]:
    """Raise where an average of the weights would never begin.

    Returns:
        A line, where most of the average would be the weights of the first steps.
    """
    if isinstance(callback, MeanOfEpochs):
        return _check_mean_of_epochs(name, spec, callback, epochs)
    if not isinstance(callback, EMAWeightAveraging):
        return []
    begins = max(callback.update_starting_at_step or 0, 0)
    if begins >= steps:
        raise InputError(
            f"callbacks.{name}.update_starting_at_step",
            begins,
            f"the run ends before, after {steps:g} steps",
        )
    updates = (steps - begins) / max(callback.update_every_n_steps, 1)
    share = float(spec.get("decay", 0.999)) ** updates
    if share <= MOST_OF_FIRST_STEP:
        return []
    fitting = f"{max(0.5, 1 - 5 / updates):.2g}"  # leaves less than 1% of the first weights
    return [
        f"callbacks.{name}: {share:.0%} of the average are the weights after the first step, for"
        f" the run has {steps:g} steps; callbacks.{name}.decay={fitting} forgets them"
    ]


def _check_mean_of_epochs(
    name: str, spec: dict[str, Any], callback: MeanOfEpochs, epochs: int | None
) -> list[str]:
    start = callback._swa_epoch_start
    option = f"callbacks.{name}.swa_epoch_start"
    if epochs is None and isinstance(start, float):
        raise InputError(
            option,
            start,
            "a share of the epochs, whose number is not known; a whole number of epochs, or"
            " trainer.max_epochs=, works",
        )
    if epochs is not None and isinstance(start, int) and start > epochs:
        raise InputError(option, start, f"the run has trainer.max_epochs={epochs}")
    return [
        f"callbacks.{name}: the mean of the last epochs' weights is scored and kept; their rate"
        f" goes to {spec.get('swa_lrs')}"
    ]
