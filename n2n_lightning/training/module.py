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
from n2n_lightning.arrays.outlier_lists import listed_in
from n2n_lightning.devices.copies import sum_type, wait_for
from n2n_lightning.files import InputError
from n2n_lightning.inference.checkpoint import FIRST_FORMAT, CheckpointInfo, read_checkpoint
from n2n_lightning.inference.denoiser import load
from n2n_lightning.inference.tiling import in_tiles, overlap_of
from n2n_lightning.losses import L2
from n2n_lightning.metrics.fsc import Correlation, planes_of
from n2n_lightning.metrics.movie_score import MovieScore, ScoredFrame
from n2n_lightning.metrics.noisy_reference import Estimates
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.metrics.psnr_over_batches import psnr_metrics
from n2n_lightning.networks import apply, network_spec, to_channels_last
from n2n_lightning.training.checkpointing import forget_scores
from n2n_lightning.training.schedulers import time_spent, timer_of

Batch = dict[str, Tensor] | Sequence[Tensor]
# A loss of images in [0, 1] from which no run recovers; NaN compares false with it, too.
EXPLODED = 1e8


class Diverged(RuntimeError):
    """The loss is NaN, infinite, or as good as that."""


def _named(batch: Batch) -> dict[str, Tensor]:
    """Return a batch by names; of a tuple the first is the input, the second the target."""
    return batch if isinstance(batch, dict) else {"input": batch[0], "target": batch[1]}


def _estimated_scores(estimates: Estimates | MovieScore) -> dict[str, float]:
    """Return the scores of an epoch without clean images; empty without validation.

    The estimated error may be 0 or less where there are few pixels, and has no decibels then. A
    callback that watches the decibels needs a number all the same: 40 dB above the noisy images,
    which no denoiser reaches.
    """
    if not estimates.measured:
        return {}
    error = estimates.error
    least = 1e-4 * estimates.noisy or 1e-12
    scores = {
        "val_mse_estimate": error,
        "val_psnr_estimate": psnr(max(error, least)),
        "noisy_psnr_estimate": psnr(max(estimates.noisy, 1e-12)),
    }
    lowest, highest = estimates.interval()  # of the error
    if math.isfinite(highest):
        scores["val_psnr_estimate_low"] = psnr(max(highest, least))
    if math.isfinite(lowest):
        scores["val_psnr_estimate_high"] = psnr(max(lowest, least))
    return scores


class Denoiser(pl.LightningModule):
    """A network, its loss, its optimiser, and PSNR against clean images.

    Batches are {"input": ..., "target": ...}, or tuples of the two. It works with any Trainer and
    loaders (docs/how-to/extend.md), and with `load_from_checkpoint`, `Trainer.validate` and
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
        reference: the kind of reference in validation, see NoisyPairs. With another noisy capture
            there is no PSNR but an estimate of it, `val_psnr_estimate`
            (noisy_reference.squared_errors), and the validation loss is called `val_noisy_loss`: it
            is mostly the noise of the reference, and cannot pick a checkpoint. With `self`, one
            image of each scene, it is `val_self_loss`, the loss on pairs made of the image, and
            there is no PSNR. With `hidden`, of movies, it is `val_noisy_loss` on pixels that the
            network did not see, which can pick a checkpoint; with `stein` there is Stein's estimate
            as well.
        bounds: clamp denoised images to these values before they are scored, because clean ones lie
            there; or None.
        unit: one unit of the images in units of PSNR's white.
        second_pass: an object with a method `second_pass(denoise, batch, output)` whose result is
            added to the loss, as losses.Neighbor2NeighborRegularizer. A loss may have such a method
            itself.

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
        loss_names = {"clean": "val_loss", "self": "val_self_loss"}
        self._val_loss = loss_names.get(reference, "val_noisy_loss")
        self._measure = L2()
        self.reference = reference
        self.estimates: Estimates | MovieScore = Estimates()
        self.estimates_without = Estimates()  # the same without isolated outliers
        self.outlier_pixels = 0  # of the latest validation
        self._errors_without: list[float] = []
        self.halves: dict[str, Correlation] = {}  # of the volumes of the latest validation
        self._elapsed = 0.0  # share of the run's time that is over, where its time is limited
        self.searching = False  # for a learning rate, with steps that do not count
        # Sums on the device, so that no step waits for a number; float64, where there is one, keeps
        # an epoch's sum exact enough. float32 adds at most 6e-8 of it per step.
        self._sums = {name: torch.zeros(2, dtype=torch.float64) for name in ("train", "val")}
        self._latest: dict[str, float] = {}
        # of training, without validation
        self._started, self._seconds, self._images = time.perf_counter(), 0.0, 0

    def forward(self, image: Tensor) -> Tensor:
        """Denoise float images (B, C, H, W) in [0, 1]; return float32, or a network's float64."""
        # images of the type of the weights: trainer.precision=bf16-true and 64-true change it
        weights = next(self.network.parameters(), image)
        output = apply(self.network, axes.channels_last(image.to(weights.dtype)))
        return output if output.dtype == torch.float64 else output.float()

    @property
    def progress(self) -> float:
        """The share of the run that is over: of its steps, or of its time where that is more."""
        steps: float = self.global_step / self.trainer.estimated_stepping_batches
        return max(steps, self._elapsed)

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
        count = len(batch["input"])
        size = int(batch.get("size", count))  # of the batch of all processes
        # Reading the loss makes a GPU wait, so there it is read now and then; a CPU loses nothing.
        read = (self.device.type == "cpu" or self.global_step % 50 == 0) and not self.searching
        if read and not loss < EXPLODED:
            raise Diverged(
                f"the loss became {loss.item()} at step {self.global_step}, epoch"
                f" {self.current_epoch + 1}, learning rate {self.learning_rate:g}; a smaller"
                " optim.lr or trainer.gradient_clip_val= would help"
            )
        self._add("train", loss, count)
        self._images += size
        if self.trainer.world_size == 1:
            return loss
        # The processes of a run average their gradients, whatever their shares of the batch are.
        return loss * (count * self.trainer.world_size / size)

    def on_validation_start(self) -> None:
        self._stop_clock()
        self.estimates = MovieScore(self.unit) if self.reference == "stein" else Estimates()
        self.estimates_without = Estimates()
        self.outlier_pixels, self._errors_without = 0, []
        self.halves = {name: Correlation() for name in ("noisy", "denoised")}

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = _named(batch)
        noisy, clean = batch["input"], batch["target"]
        output = self._whole(noisy)
        self._add("val", self._measure(output, clean) * self.unit**2, len(noisy))
        if "distances" in batch:
            return self._score_frame(batch)
        listed = listed_in(batch)
        self.outlier_pixels += listed.count
        noisy = batch.get("frame", noisy)  # of several frames the one that is denoised
        output, noisy = listed.restored(output), listed.restored(noisy)
        if self.reference == "noisy":
            self._estimate(batch, listed, noisy, output)
        # nothing but itself to compare with: the whole image is shown, denoised
        if self.reference == "self":
            return self._whole(batch["shown"]) if "shown" in batch else output
        # A picture has no values out of bounds; the noisy image is scored as it is, its noise must
        # not be clipped.
        output = output.clamp(*self.bounds) if self.bounds else output
        output = listed.restored(output)
        for name, metrics in self.scores.items():
            image = output if name == "val" else noisy
            metrics.update(image * self.unit, clean * self.unit)  # type: ignore[operator]
        if self.reference == "clean":
            difference = (output - listed.without(clean)) * self.unit
            errors = difference.cpu().double().square().flatten(1).nanmean(1)
            self._errors_without += errors.tolist()
        return output

    def _score_frame(self, batch: dict[str, Any]) -> Tensor:
        """Denoise a frame of a movie as in use, and add it to Stein's estimate.

        Args:
            batch: `shown`, the frames that the network sees, (1, F x C, ...), `distances` of these
                from the one that is denoised, (1, F), `frame`, that one, (1, C, ...), and the
                `noise` of the movie; None: it is not known.

        Returns:
            The denoised frame, (1, C, ...).
        """
        if batch["noise"] is None:
            return self._whole(batch["shown"])
        (distances,) = batch["distances"]
        (shown,) = batch["shown"].unflatten(1, (len(distances), -1))
        frame = ScoredFrame(0, shown, distances, batch["frame"][0])

        def denoise(frames: Tensor) -> Tensor:
            return self._whole(frames.flatten(0, 1)[None])[0]

        assert isinstance(self.estimates, MovieScore)
        return self.estimates.add(denoise, frame, batch["noise"])[None]

    def _estimate(
        self, batch: dict[str, Tensor], listed: Any, noisy: Tensor, output: Tensor
    ) -> None:
        """Add a batch to the estimates of the error without clean images.

        Args:
            batch: the batch; its target is another capture.
            listed: its isolated outliers, see outlier_lists.listed_in.
            noisy: its noisy images, outliers restored.
            output: the same, denoised.
        """
        clean = batch["target"]
        volumes = len(axes.size(noisy)) == 3
        noise = batch.get("target_noise")  # then the score is that of the input alone
        second = output
        if noise is None or volumes:
            other = batch["other_input"] if "other_input" in batch else inpaint(clean)
            second = listed.other_restored(self._whole(other))
        pair = [batch.get("other_target", noisy), clean]
        scenes = batch["scene"].tolist() if "scene" in batch else None
        power = None if noise is None else noise * self.unit**2
        denoised = [image * self.unit for image in (output, second)]
        assert isinstance(self.estimates, Estimates)
        self.estimates.add([image * self.unit for image in pair], denoised, scenes, power)
        known = [listed.without(image) * self.unit for image in pair]
        self.estimates_without.add(known, denoised, scenes, power)
        if volumes and output.shape == noisy.shape:
            other = batch["other_input"] if "other_input" in batch else inpaint(clean)
            self._correlate("noisy", noisy, other)
            self._correlate("denoised", output, second)

    def _correlate(self, name: str, first: Tensor, second: Tensor) -> None:
        """Add two halves of volumes to the Fourier shell correlation."""
        for one, other in zip(planes_of(first), planes_of(second), strict=True):
            self.halves[name].add(one, other)

    def on_validation_epoch_end(self) -> None:
        """Show the epoch's scores to callbacks: val_psnr(_total), val_loss, noisy_psnr(_total).

        Without clean images val_mse_estimate, val_psnr_estimate (with _low and _high),
        noisy_psnr_estimate, val_noisy_loss.
        """
        self._latest = {self._val_loss: self._mean("val"), **_estimated_scores(self.estimates)}
        if self.outlier_pixels:
            self._latest |= self._without_outliers()
        for metrics in self.scores.values():
            computed: dict[str, Tensor] = metrics.compute()  # type: ignore[operator]
            self._latest |= {name: value.item() for name, value in computed.items()}
            metrics.reset()  # type: ignore[operator]
        fitting = self.trainer.state.fn == "fit"  # then the loggers get the epoch's row
        with warnings.catch_warnings():
            # where there is no logger, for Trainer.validate returns what is logged
            warnings.simplefilter("ignore")
            for name, value in self._latest.items():
                in_bar = name in ("val_psnr", "val_psnr_estimate")
                self.log(name, value, logger=not fitting, prog_bar=in_bar)

    def _without_outliers(self) -> dict[str, float]:
        """Return the score without the pixels that are listed as outliers, and their number."""
        if self.reference == "clean":
            each = [psnr(max(error, 1e-12)) for error in self._errors_without]
            score = {"val_psnr_without_outliers": sum(each) / len(each)}
        else:
            value = _estimated_scores(self.estimates_without)["val_psnr_estimate"]
            score = {"val_psnr_estimate_without_outliers": value}
        return {**score, "outlier_pixels": float(self.outlier_pixels)}

    def on_test_start(self) -> None:
        self.on_validation_start()

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Make the scores of `Trainer.test`, the same as those of validation."""
        self.on_validation_epoch_end()

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Denoise the inputs of a batch, or images (B, C, H, W), for `Trainer.predict`."""
        if isinstance(batch, Tensor):
            return self._whole(batch)
        named = _named(batch)
        return listed_in(named).restored(self._whole(named["input"]))

    def _whole(self, images: Tensor) -> Tensor:
        """Denoise images of any size, large ones in tiles, to bound the memory."""
        return in_tiles(self, images, overlap_of(self.network, len(axes.size(images))))

    def on_validation_end(self) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Add the epoch's row to `history`, and log it with the epoch as the x axis."""
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
        self._latest = {}
        self._images, self._seconds = 0, 0.0
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
        wait_for(self.device)
        now = time.perf_counter()
        self._seconds += now - self._started
        self._started = now

    def _add(self, name: str, loss: Tensor, count: int) -> None:
        precise = sum_type(loss.device)
        self._sums[name] = self._sums[name].to(loss.device, precise)
        images = torch.full_like(loss, count, dtype=precise)
        self._sums[name] += torch.stack((loss.detach().to(precise) * count, images))

    def _total(self, name: str) -> Tensor:
        """Return the sum of the losses and the number of images, of all processes."""
        return self.trainer.strategy.reduce(self._sums[name].clone(), reduce_op="sum")

    def _mean(self, name: str) -> float:
        total, count = self._total(name).tolist()
        self._sums[name].zero_()
        return total / max(count, 1)

    def configure_optimizers(self) -> Any:
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps) and not timer_of(self.trainer):
            raise InputError(
                "trainer.max_epochs: must be a number, 1 or more, for the learning-rate schedule to"
                " end with it"
            )
        return self.optimization(steps)

    def optimization(self, total_steps: float = 1000) -> Any:
        """Make the optimiser and the schedule of a run.

        Args:
            total_steps: of the run; may be infinite.

        Returns:
            Both, as Lightning takes them from `configure_optimizers`.

        Raises:
            InputError: the schedule does not fit the run; or what they raise themselves.
        """
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
        if self.reference in ("self", "hidden") and schedule.mode == "max":
            which = "single images have" if self.reference == "self" else "this movie has"
            raise InputError(
                "scheduler.mode",
                "max",
                f"{which} no PSNR; mode=min watches {self._val_loss}",
            )
        watched = {
            ("clean", "max"): "val_psnr",
            ("clean", "min"): "val_loss",
            ("noisy", "max"): "val_psnr_estimate",
            ("noisy", "min"): "val_mse_estimate",
            ("self", "min"): "val_self_loss",
            ("stein", "max"): "val_psnr_estimate",
            ("stein", "min"): "val_mse_estimate",
            ("hidden", "min"): "val_noisy_loss",
        }[self.reference, schedule.mode]
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
        """Clip as Lightning does; fused optimisers work, too, where there is no gradient scaler."""
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if gradient_clip_val is None or scaled:
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
        """Load the module of a checkpoint; loss, optimiser and schedule are in `options`.

        Args:
            checkpoint_path: a checkpoint file or a run folder.
            map_location: the device; None: the CPU.
            allow: names of modules whose networks the checkpoint may name; see denoiser.load.
            **options: of the constructor.

        Returns:
            The module, in training mode.
        """
        trained = load(checkpoint_path, allow, device="cpu")
        ours = read_checkpoint(checkpoint_path)["n2n_lightning"]
        info = CheckpointInfo.of(ours, checkpoint_path)
        module = cls(trained.network, spec=info.plain(), **options)
        module.history = list(ours.get("history", []))
        module.train()
        return module if map_location is None else module.to(map_location)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["n2n_lightning"] = {
            "format": FIRST_FORMAT,
            "history": self.history,
            "reference": self.reference,
            "train_sum": self._total("train").tolist(),
        }
        checkpoint["n2n_lightning"] |= self.spec

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ours = checkpoint["n2n_lightning"]
        forget_scores(checkpoint, ours.get("reference"), self.reference)
        self.history = ours["history"]
        self._sums["train"] = (
            torch.tensor(ours["train_sum"], dtype=torch.float64) / self.trainer.world_size
        )
