"""Pictures of validation images: noisy, denoised, clean."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from n2n_lightning import axes
from n2n_lightning.files import DiskFull, replacing
from n2n_lightning.runs import merit
from n2n_lightning.scores import psnr


class Pictures(Callback):
    """Noisy, denoised and clean validation images: in TensorBoard about ten times a run, at the end in samples.png."""

    COUNT = 6

    def __init__(self, path: Path) -> None:
        self.path = path
        self._now: dict[str, Any] | None = None  # of draw
        self._best: dict[str, Any] | None = None
        self._written = 0.0
        self._tenth = 0  # of the run, in which TensorBoard had its latest pictures

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0:
            alone = "shown" in batch  # there is nothing to compare with
            three = (batch["shown" if alone else "input"], outputs, batch["shown" if alone else "target"])
            if outputs.shape[1] != batch["input"].shape[1]:  # of a movie, whose frame the network does not see
                three = (batch["target"], outputs, batch["other_target"])
            noisy, denoised, clean = (x[: self.COUNT].float().cpu() for x in three)
            self._now = {"noisy": noisy, "denoised": denoised, "unit": getattr(pl_module, "unit", 1.0)}
            self._now["clean"] = None if alone else clean
            if getattr(pl_module, "reference", "clean") == "noisy":
                self._now["errors"] = pl_module.estimates.each()[: self.COUNT]  # type: ignore[union-attr, operator]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._now is None:  # there is nothing to validate on
            return
        history: list[dict[str, float]] = pl_module.history  # type: ignore[assignment]
        earlier = [value for row in history if (value := merit(row)) is not None]
        now = merit({name: float(value) for name, value in trainer.callback_metrics.items()})
        alone = self._now["clean"] is None  # then the checkpoint is the last one, too
        if alone or not earlier or now is None or now > max(earlier):
            self._best = self._now
            if time.monotonic() - self._written > 20:
                self._write()
        epoch, tenth = trainer.current_epoch + 1, int(10 * pl_module.progress + 1e-6)  # type: ignore[operator]
        if isinstance(trainer.logger, TensorBoardLogger) and tenth > self._tenth:
            trainer.logger.experiment.add_figure("noisy, denoised, clean", draw(**self._now), epoch)
            self._tenth = tenth

    @rank_zero_only
    def _write(self) -> None:
        if self._best is not None:
            with replacing(self.path) as temporary:
                draw(**self._best).savefig(temporary)
            self._written = time.monotonic()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        with suppress(DiskFull):  # the exception says what is wrong
            self._write()


VOLUMES = 2  # that are shown, each by three planes


def _flat(images: Tensor) -> list[Tensor]:
    """Images (B, C, H, W) as they are; of volumes (B, C, D, H, W) three planes (C, h, w) each, through the middle."""
    if not axes.deep(images):
        return list(images)
    return [volume.select(axis, volume.shape[axis] // 2) for volume in images[:VOLUMES] for axis in (1, 2, 3)]


def draw(
    noisy: Tensor,
    denoised: Tensor,
    clean: Tensor | None,
    unit: float = 1.0,
    errors: Sequence[tuple[float, float]] | None = None,
) -> Any:
    """A matplotlib figure: one column for each image of the three (B, C, H, W), with its PSNR in dB.

    Shown are the first three channels as colour, or the first as grey where there are fewer; of volumes the three
    planes through the middle.

    Args:
        noisy, denoised, clean: the images. Without clean ones the last row is what was removed, around grey.
        unit: how much of PSNR's white one unit of theirs is.
        errors: where `clean` is another noisy capture, the estimated errors of each denoised and each noisy image.
    """
    from matplotlib.figure import Figure

    last = "removed" if clean is None else "clean" if errors is None else "another capture"
    alone, clean = clean is None, noisy - denoised + 0.5 if clean is None else clean
    shown = 3 if clean.shape[1] >= 3 else 1
    rows = {name: _flat(images) for name, images in (("noisy", noisy), ("denoised", denoised), (last, clean))}
    references = rows[last]
    if errors is not None and len(axes.size(clean)) == 3:
        errors = [error for error in errors[:VOLUMES] for _ in range(3)]
    height, width = (max(image.shape[k] for image in references) for k in (1, 2))
    figure = Figure(figsize=(1.6 * len(references), 1.6 * 3 * height / width + 0.8), layout="constrained", dpi=110)
    places = figure.subplots(3, len(references), squeeze=False)
    for line, (name, images) in zip(places, rows.items(), strict=True):
        for i, (ax, image, reference) in enumerate(zip(line, images, references, strict=True)):
            ax.imshow(
                image[:shown].nan_to_num().clamp(0, 1).permute(1, 2, 0).numpy(),
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            ax.set(xticks=[], yticks=[])
            if name == last or alone:
                continue
            if errors is None:
                error = float(((image - reference) * unit).square().nanmean())
                ax.set_title(f"{psnr(error):.1f} dB", fontsize=8)
            else:
                error = errors[i][0 if name == "denoised" else 1]
                ax.set_title(f"about {psnr(error):.1f} dB" if error > 0 else "not measurable", fontsize=8)
        line[0].set_ylabel(name)
    return figure
