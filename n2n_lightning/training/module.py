"""Denoiser: the one LightningModule, around any network; and the scores that it reports."""

import inspect
import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.bad_pixels import inpaint
from n2n_lightning.arrays.outliers import listed_in
from n2n_lightning.files import InputError
from n2n_lightning.inference.checkpoint import FORMAT, CheckpointInfo, read_checkpoint
from n2n_lightning.inference.denoiser import load
from n2n_lightning.inference.tiling import in_tiles, overlap_of
from n2n_lightning.losses import L2
from n2n_lightning.metrics.fsc import Correlation, planes_of
from n2n_lightning.metrics.noisy_reference import Estimates
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.metrics.psnr_over_batches import psnr_metrics
from n2n_lightning.networks import apply, network_spec, to_channels_last
from n2n_lightning.training.schedulers import time_spent, timer_of

Batch = dict[str, Tensor] | Sequence[Tensor]
# a loss of images in [0, 1] from which no run comes back; as NaN, which compares false with it
EXPLODED = 1e8


class Diverged(RuntimeError):
    """The loss is NaN, infinite, or as good as that."""


def _named(batch: Batch) -> dict[str, Tensor]:
    """A batch by names; of a tuple the first is the input, the second the target."""
    return batch if isinstance(batch, dict) else {"input": batch[0], "target": batch[1]}


def _estimated(found: Estimates) -> dict[str, float]:
    """The scores of an epoch without clean images; empty where there is nothing to validate on.

    The estimated error may be 0 or less where there are few pixels, and has no decibels then. What
    watches the decibels needs a number all the same: 40 dB above the noisy images, which no
    denoiser reaches.
    """
    if not found.sums:
        return {}
    error, least = found.error, 1e-4 * found.noisy or 1e-12
    low, high = found.interval()
    ends = {"val_psnr_estimate_low": high, "val_psnr_estimate_high": low}
    return {
        "val_mse_estimate": error,
        "val_psnr_estimate": psnr(max(error, least)),
        "noisy_psnr_estimate": psnr(max(found.noisy, 1e-12)),
        **{name: psnr(max(end, least)) for name, end in ends.items() if math.isfinite(end)},
    }


class Denoiser(pl.LightningModule):
    """A network, its loss, its optimiser, and PSNR against clean images.

    Batches are {"input": ..., "target": ...}, or tuples of the two. It works with a Trainer and
    loaders of one's own (docs/how-to/extend.md), and with `load_from_checkpoint`, `Trainer.validate` and
    `Trainer.test`.

    Args:
        network: float (B, C, H, W) in [0, 1] in, the same out, of any size; see networks.apply.
        loss: of (output, target), a scalar; knows that NaN in the target means "no pixel". None:
            losses.L2.
        optimizer: makes the optimiser from the parameters. None: Adam with a rate of 0.001.
        scheduler: makes the learning-rate schedule from the optimiser, and from `total_steps` if it
            takes that; it is then advanced at every step, otherwise at every epoch. If it takes
            `elapsed`, too, that is a function that gives the share of the run's time that is over,
            where a Timer ends it (trainer.max_time). None keeps the rate. ReduceLROnPlateau watches
            val_psnr or val_psnr_estimate where its mode is max, val_loss or val_mse_estimate where
            it is min.
        spec: plain data stored in each checkpoint, enough to build the network again: {"model":
            {"_target_": ...}}. The networks of this package say that themselves.

        reference: what validation compares with, `clean`, `noisy` or `self`. With another noisy
            capture there is no PSNR but an estimate of it, `val_psnr_estimate`
            (noisy_reference.squared_errors), and the validation loss is called `val_noisy_loss`: it
            is mostly the noise of the reference, and cannot pick a checkpoint. With `self`, one
            image of each scene, it is `val_self_loss`, of what the data make of the image, and no
            PSNR at all.

        second_pass: what is added to the loss by a second pass through the network: an object with
            a method `second_pass(denoise, batch, output)`, as losses.Neighbor2NeighborRegularizer.
            A loss may have such a method itself.
        bounds: clamp denoised images to these values before they are scored, because clean ones lie
            there; or None.
        unit: how much of PSNR's white one unit of the images is.

    `history` has one row per finished epoch, of plain numbers; it is stored in checkpoints too.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module | None = None,
        optimizer: Callable[[Any], Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        spec: dict[str, Any] | None = None,
        reference: str = "clean",
        bounds: tuple[float, float] | None = (0.0, 1.0),
        unit: float = 1.0,
        second_pass: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network = to_channels_last(network)
        self.loss = loss or L2()
        self._optimizer = optimizer or partial(torch.optim.Adam, lr=0.001)
        self._scheduler, self.bounds, self.unit = scheduler, bounds, unit
        self.spec = {**network_spec(network), **(spec or {})}
        self.history: list[dict[str, float]] = []
        self._passes: list[Any] = [
            part for part in (self.loss, second_pass) if hasattr(part, "second_pass")
        ]
        names = ("val", "noisy") if reference == "clean" else ()
        self.scores = nn.ModuleDict({name: psnr_metrics(name) for name in names})
        self._val_loss = {"clean": "val_loss", "noisy": "val_noisy_loss", "self": "val_self_loss"}[
            reference
        ]
        self._measure = L2()
        self.reference, self.estimates = reference, Estimates()
        self.estimates_without = Estimates()  # the same without isolated outliers
        self.outlier_pixels = 0  # of the latest validation
        self._errors_without: list[float] = []
        self.halves: dict[str, Correlation] = {}  # of the volumes of the latest validation
        self._elapsed = 0.0  # share of the run's time that is over, where its time is limited
        self.searching = False  # for a learning rate, with steps that do not count
        # of the run that is done, where whoever trains knows better than its steps
        self.share: float | None = None
        # Sums on the device, so that no step waits for a number; float64 keeps an epoch's sum exact
        # enough.
        self._sums = {name: torch.zeros(2, dtype=torch.float64) for name in ("train", "val")}
        self._latest: dict[str, float] = {}
        # of training, without validation
        self._started, self._seconds, self._images = time.perf_counter(), 0.0, 0

    def forward(self, image: Tensor) -> Tensor:
        """Denoises float images (B, C, H, W), values in [0, 1]; returns float32, or float64 of a network in float64."""
        # those of trainer.precision=bf16-true and 64-true
        weights = next(self.network.parameters(), image)
        output = apply(self.network, axes.channels_last(image.to(weights.dtype)))
        return output if output.dtype == torch.float64 else output.float()

    @property
    def progress(self) -> float:
        """The share of the run that is done: of its steps, or of its time where that is more."""
        steps: float = self.global_step / self.trainer.estimated_stepping_batches
        return max(steps, self._elapsed) if self.share is None else self.share

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._elapsed = time_spent(self.trainer)

    def on_train_start(self) -> None:
        self._images, self._seconds = 0, 0.0  # of a search for the learning rate

    def on_train_epoch_start(self) -> None:
        self._started = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = _named(batch)
        progress = self.progress
        for part in (self.loss, *self._passes):
            if hasattr(part, "progress"):
                part.progress = progress
        output = self(batch["input"])
        loss = self.loss(output, batch["target"])
        for part in self._passes:
            loss = loss + part.second_pass(self, batch, output)
        count, size = len(batch["input"]), int(batch.get("size", len(batch["input"])))
        # Reading the loss makes a GPU wait, so there it is read now and then; a CPU loses nothing.
        looked = (self.device.type == "cpu" or self.global_step % 50 == 0) and not self.searching
        if looked and not loss < EXPLODED:
            raise Diverged(
                f"the loss became {loss.item()} at step {self.global_step}, epoch"
                f" {self.current_epoch + 1}, learning rate {self.learning_rate:g}; a smaller"
                " optim.lr or trainer.gradient_clip_val= would help"
            )
        self._add("train", loss, count)
        self._images += size
        # The processes of a run average their gradients, whatever their shares of the batch are.
        return (
            loss
            if self.trainer.world_size == 1
            else loss * (count * self.trainer.world_size / size)
        )

    def on_validation_start(self) -> None:
        self._stop_clock()
        self.estimates, self.estimates_without = Estimates(), Estimates()
        self.outlier_pixels, self._errors_without = 0, []
        self.halves = {name: Correlation() for name in ("noisy", "denoised")}

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = _named(batch)
        noisy, clean = batch["input"], batch["target"]
        output = self._whole(noisy)
        self._add("val", self._measure(output, clean) * self.unit**2, len(noisy))
        listed = listed_in(batch)
        self.outlier_pixels += listed.count
        output, noisy = listed.restored(output), listed.restored(noisy)
        if self.reference == "noisy":
            noise = batch.get("target_noise")  # then the score is that of the input alone
            second = output
            if noise is None or len(axes.size(noisy)) == 3:
                second = self._whole(
                    batch["other_input"] if "other_input" in batch else inpaint(clean)
                )
                second = listed.other_restored(second)
            pair = [batch.get("other_target", noisy), clean]
            scenes = batch["scene"].tolist() if "scene" in batch else None
            power = None if noise is None else noise * self.unit**2
            denoised = [f * self.unit for f in (output, second)]
            self.estimates.add([y * self.unit for y in pair], denoised, scenes, power)
            known = [listed.without(y) * self.unit for y in pair]
            self.estimates_without.add(known, denoised, scenes, power)
            if len(axes.size(noisy)) == 3 and output.shape == noisy.shape:
                both = {
                    "noisy": (noisy, batch.get("other_input", inpaint(clean))),
                    "denoised": (output, second),
                }
                for name, halves in both.items():
                    for one, other in zip(*map(planes_of, halves), strict=True):
                        self.halves[name].add(one, other)
        # nothing but itself to compare with: what is shown is the whole image, denoised
        if self.reference == "self":
            return self._whole(batch["shown"]) if "shown" in batch else output
        # A picture has no values out of bounds; the noisy image is scored as it is, its noise must
        # not be clipped.
        output = output.clamp(*self.bounds) if self.bounds else output
        output = listed.restored(output)
        for name, metrics in self.scores.items():
            shown = output if name == "val" else noisy
            metrics.update(shown * self.unit, clean * self.unit)  # type: ignore[operator]
        if self.reference == "clean":
            errors = (
                ((output - listed.without(clean)) * self.unit)
                .cpu()
                .double()
                .square()
                .flatten(1)
                .nanmean(1)
            )
            self._errors_without += errors.tolist()
        return output

    def on_validation_epoch_end(self) -> None:
        """Makes the epoch's scores visible to callbacks: val_psnr, val_psnr_total, val_loss, noisy_psnr(_total).

        Without clean images val_mse_estimate, val_psnr_estimate (with _low and _high),
        noisy_psnr_estimate, val_noisy_loss.
        """
        self._latest = {self._val_loss: self._mean("val"), **_estimated(self.estimates)}
        if self.outlier_pixels:
            self._latest |= self._without_outliers()
        for metrics in self.scores.values():
            self._latest |= {name: value.item() for name, value in metrics.compute().items()}  # type: ignore[operator]
            metrics.reset()  # type: ignore[operator]
        fitting = self.trainer.state.fn == "fit"  # then the loggers get the epoch's row
        with warnings.catch_warnings():
            # where there is no logger, for Trainer.validate returns what is logged
            warnings.simplefilter("ignore")
            for name, value in self._latest.items():
                self.log(
                    name,
                    value,
                    logger=not fitting,
                    prog_bar=name in ("val_psnr", "val_psnr_estimate"),
                )

    def _without_outliers(self) -> dict[str, float]:
        """Return the score without the pixels that are listed as outliers, and their number."""
        if self.reference == "clean":
            each = [psnr(max(error, 1e-12)) for error in self._errors_without]
            score = {"val_psnr_without_outliers": sum(each) / len(each)}
        else:
            value = _estimated(self.estimates_without)["val_psnr_estimate"]
            score = {"val_psnr_estimate_without_outliers": value}
        return {**score, "outlier_pixels": float(self.outlier_pixels)}

    def on_test_start(self) -> None:
        self.on_validation_start()

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """The scores of `Trainer.test`: those of validation."""
        self.on_validation_epoch_end()

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """The denoised inputs of a batch, or of images (B, C, H, W), for `Trainer.predict`."""
        if isinstance(batch, Tensor):
            return self._whole(batch)
        named = _named(batch)
        return listed_in(named).restored(self._whole(named["input"]))

    def _whole(self, images: Tensor) -> Tensor:
        """The output for images of any size; in tiles where they are large, so that memory does not grow with them."""
        return in_tiles(self, images, overlap_of(self.network, len(axes.size(images))))

    def on_validation_end(self) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Adds the epoch's row to `history` and hands it to the loggers, with the epoch as their x axis."""
        if self.searching:
            return
        train_loss = self._mean("train")  # waits for the device, so the clock is stopped after it
        self._stop_clock()
        row = {
            "epoch": self.current_epoch + 1,
            "train_loss": train_loss,
            **self._latest,
            "lr": self.learning_rate,
            "images": self._images,
            "seconds": self._seconds,
            "images_per_second": self._images / max(self._seconds, 1e-9),
        }
        # Before any checkpoint: training_step looks at a GPU's loss only now and then, and never
        # after the last step. Validation may be far off for an epoch while running averages settle,
        # so there only its being finite counts.
        if not (train_loss < EXPLODED and math.isfinite(row.get(self._val_loss, 0.0))):
            raise Diverged(
                f"the loss became {train_loss} in epoch {self.current_epoch + 1}, training,"
                f" {row.get(self._val_loss)}, validation; learning rate {self.learning_rate:g}; a"
                " smaller optim.lr would help"
            )
        self._latest, self._images, self._seconds = {}, 0, 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where there is no logger; EarlyStopping may watch it
            self.log("train_loss", train_loss, logger=False)
        self.history.append(row)
        for logger in self.loggers:
            logger.log_metrics(row, step=self.current_epoch + 1)

    @property
    def learning_rate(self) -> float:
        """The rate of the coming step."""
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self._seconds += now - self._started
        self._started = now

    def _add(self, name: str, loss: Tensor, count: int) -> None:
        total = self._sums[name] = self._sums[name].to(loss.device)
        total += torch.stack(
            (loss.detach().double() * count, torch.full_like(loss, count, dtype=torch.float64))
        )

    def _total(self, name: str) -> Tensor:
        """The sum of the losses and the number of images, of all processes."""
        return self.trainer.strategy.reduce(self._sums[name].clone(), reduce_op="sum")

    def _mean(self, name: str) -> float:
        total, count = self._total(name).tolist()
        self._sums[name].zero_()
        return total / max(count, 1)

    def configure_optimizers(self) -> Any:
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps) and not timer_of(self.trainer):
            raise InputError(
                "trainer.max_epochs: must be a number, 1 or more, for the learning-rate schedule"
                " to end with it"
            )
        return self.optimization(steps)

    def optimization(self, total_steps: float = 1000) -> Any:
        """Optimiser and schedule for a run of so many steps, as Lightning takes them; raises what they raise."""
        optimizer = self._optimizer(self.network.parameters())
        if self._scheduler is None:
            return optimizer
        known = inspect.signature(self._scheduler).parameters
        if "total_steps" in known:
            if math.isinf(total_steps) and "elapsed" not in known:
                raise InputError(
                    "scheduler: must know how many steps there are; trainer.max_epochs= says it"
                )
            clock = {"elapsed": lambda: self._elapsed} if "elapsed" in known else {}
            schedule = self._scheduler(optimizer, total_steps=total_steps, **clock)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": schedule, "interval": "step"},
            }
        schedule = self._scheduler(optimizer)
        if not isinstance(schedule, ReduceLROnPlateau):
            return {"optimizer": optimizer, "lr_scheduler": schedule}
        names = {
            "clean": ("val_psnr", "val_loss"),
            "noisy": ("val_psnr_estimate", "val_mse_estimate"),
        }
        if self.reference == "self" and schedule.mode == "max":
            raise InputError(
                "scheduler.mode",
                "max",
                "single images have no PSNR; mode=min watches val_self_loss",
            )
        score, error = names.get(self.reference, ("", "val_self_loss"))
        watched = score if schedule.mode == "max" else error
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": watched, "strict": False},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning, but fused optimisers are fine in mixed precision, where there is no gradient scaler."""
        if (
            gradient_clip_val is None
            or getattr(self.trainer.precision_plugin, "scaler", None) is not None
        ):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.network.parameters(), gradient_clip_val)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        allow: Sequence[str] = (),
        **options: Any,
    ) -> "Denoiser":
        """The module of a checkpoint, with its network; loss, optimiser and schedule are those of `options`.

        Args:
            checkpoint_path: a checkpoint file or a run folder.
            map_location: the device; None: the CPU.
            allow: names of modules whose networks the checkpoint may name; see denoiser.load.
            options: of the constructor.
        """
        trained = load(checkpoint_path, allow)
        ours = read_checkpoint(checkpoint_path)["n2n_lightning"]
        info = CheckpointInfo.of(ours, checkpoint_path)
        module = cls(trained.network, spec=info.plain(), **options)
        module.history = list(ours.get("history", []))
        module.train()
        return module if map_location is None else module.to(map_location)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["n2n_lightning"] = {
            "format": FORMAT,
            "history": self.history,
            "train_sum": self._total("train").tolist(),
        }
        checkpoint["n2n_lightning"] |= self.spec

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ours = checkpoint["n2n_lightning"]
        self.history = ours["history"]
        self._sums["train"] = (
            torch.tensor(ours["train_sum"], dtype=torch.float64) / self.trainer.world_size
        )
