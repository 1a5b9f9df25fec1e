"""Pictures of validation images: noisy, denoised, clean."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.data.scenes import middle
from n2n_lightning.files import DiskFull, replacing
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.reporting.sample_images import Samples
from n2n_lightning.runs.folder import ranking_score


class ValidationImages(Callback):
    """Noisy, denoised and clean validation images: in TensorBoard about ten times a run, at the end in samples.png.

    samples.npz beside it has them as pixels (`stored`).
    """

    COUNT = 6

    def __init__(self, path: Path) -> None:
        self.path = path
        self._now: dict[str, Any] | None = None  # of draw
        self._best: dict[str, Any] | None = None
        self._written = 0.0
        self._tenth = 0  # of the run, in which TensorBoard had its latest pictures

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        if batch_idx == 0:
            alone = "shown" in batch  # there is nothing to compare with
            three = (
                batch["shown" if alone else "input"],
                outputs,
                batch["shown" if alone else "target"],
            )
            # of a movie, whose frame the network does not see
            if outputs.shape[1] != batch["input"].shape[1]:
                three = (batch["target"], outputs, batch["other_target"])
            noisy, denoised, clean = (x[: self.COUNT].float().cpu() for x in three)
            self._now = {
                "noisy": noisy,
                "denoised": denoised,
                "unit": getattr(pl_module, "unit", 1.0),
            }
            self._now["clean"] = None if alone else clean
            if getattr(pl_module, "reference", "clean") == "noisy":
                self._now["errors"] = pl_module.estimates.each()[: self.COUNT]  # type: ignore[union-attr, operator]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._now is None:  # there is nothing to validate on
            return
        history: list[dict[str, float]] = pl_module.history  # type: ignore[assignment]
        earlier = [value for row in history if (value := ranking_score(row)) is not None]
        now = ranking_score(
            {name: float(value) for name, value in trainer.callback_metrics.items()}
        )
        alone = self._now["clean"] is None  # then the checkpoint is the last one, too
        if alone or not earlier or now is None or now > max(earlier):
            self._best = self._now
            if time.monotonic() - self._written > 20:
                self._write()
        epoch, tenth = trainer.current_epoch + 1, int(10 * pl_module.progress + 1e-6)  # type: ignore[operator]
        if isinstance(trainer.logger, TensorBoardLogger) and tenth > self._tenth:
            board = trainer.logger.experiment
            board.add_figure("noisy, denoised, clean", draw_images(**self._now), epoch)
            removed = self._now["noisy"] - self._now["denoised"]
            board.add_figure("what was removed", draw_removed(removed), epoch)
            if len(known := removed[removed.isfinite()]):
                board.add_histogram("what was removed", known, epoch)
            self._tenth = tenth

    @rank_zero_only
    def _write(self) -> None:
        if self._best is not None:
            with replacing(self.path) as temporary:
                draw_images(**self._best).savefig(temporary)
            stored(self.path.with_suffix(".npz"), **self._best)
            self._written = time.monotonic()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        with suppress(DiskFull):  # the exception says what is wrong
            self._write()


VOLUMES = 2  # that are shown, each by three planes
MIN_SHOWN_SIDE = 256  # pixels of the middle of an image that are stored


def _flat(images: Tensor) -> list[Tensor]:
    """Images (B, C, H, W) as they are; of volumes (B, C, D, H, W) three planes (C, h, w) each, through the middle."""
    if not axes.deep(images):
        return list(images)
    return [
        volume.select(axis, volume.shape[axis] // 2)
        for volume in images[:VOLUMES]
        for axis in (1, 2, 3)
    ]


def _named(
    noisy: Tensor,
    denoised: Tensor,
    clean: Tensor | None,
    unit: float = 1.0,
    errors: Sequence[tuple[float, float]] | None = None,
) -> tuple[dict[str, list[Tensor]], dict[str, list[str]]]:
    """The images (C, H, W) of each row of a picture, by its name, and what is said of each; see `draw_images`."""
    last = "removed" if clean is None else "clean" if errors is None else "another capture"
    rows = {"noisy": _flat(noisy), "denoised": _flat(denoised)}
    titles = {name: [""] * len(images) for name, images in rows.items()}
    if clean is None:
        rows[last] = _flat(noisy - denoised + 0.5)
    else:
        rows[last] = _flat(clean)
        if errors is not None and len(axes.size(clean)) == 3:
            errors = [error for error in errors[:VOLUMES] for _ in range(3)]
        for name in titles:
            for i, (image, reference) in enumerate(zip(rows[name], rows[last], strict=True)):
                if errors is None:
                    titles[name][i] = (
                        f"{psnr(float(((image - reference) * unit).square().nanmean())):.1f} dB"
                    )
                else:
                    error = errors[i][0 if name == "denoised" else 1]
                    titles[name][i] = (
                        f"about {psnr(error):.1f} dB" if error > 0 else "not measurable"
                    )
    return rows, {**titles, last: [""] * len(rows[last])}


def _pixels(image: Tensor) -> np.ndarray:
    """An image (C, H, W) as it is shown: (H, W, 3) of its first three channels, or (H, W) of its first, in [0, 1]."""
    shown = image[: 3 if len(image) >= 3 else 1].nan_to_num().clamp(0, 1).permute(1, 2, 0).numpy()
    return shown if shown.shape[2] == 3 else shown[..., 0]


def _show(ax: Any, image: Tensor, title: str) -> None:
    ax.imshow(_pixels(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    if title:
        ax.set_title(title, fontsize=8)


def draw_images(
    noisy: Tensor,
    denoised: Tensor,
    clean: Tensor | None,
    unit: float = 1.0,
    errors: Sequence[tuple[float, float]] | None = None,
) -> Any:
    """A matplotlib figure: one column for each image of the three (B, C, H, W), with its PSNR in dB.

    Shown are the first three channels as colour, or the first as grey where there are fewer; of
    volumes the three planes through the middle.

    Args:
        noisy, denoised, clean: the images. Without clean ones the last row is what was removed,
            around grey.
        unit: how much of PSNR's white one unit of theirs is.
        errors: where `clean` is another noisy capture, the estimated errors of each denoised and
            each noisy image.
    """
    from matplotlib.figure import Figure

    rows, titles = _named(noisy, denoised, clean, unit, errors)
    columns = rows["noisy"]
    height, width = (max(image.shape[k] for image in columns) for k in (1, 2))
    figure = Figure(
        figsize=(1.6 * len(columns), 1.6 * 3 * height / width + 0.8), layout="constrained", dpi=110
    )
    places = figure.subplots(3, len(columns), squeeze=False)
    for line, (name, images) in zip(places, rows.items(), strict=True):
        for ax, image, title in zip(line, images, titles[name], strict=True):
            _show(ax, image, title)
        line[0].set_ylabel(name)
    return figure


def draw_removed(removed: Tensor) -> Any:
    """A matplotlib figure of what was removed from images (B, C, H, W), around grey, its deviation a quarter of white.

    Noise alone is what it should look like: edges in it are lost from the result.
    """
    from matplotlib.figure import Figure

    rows = _flat(removed)
    height, width = (max(image.shape[k] for image in rows) for k in (1, 2))
    figure = Figure(
        figsize=(1.6 * len(rows), 1.6 * height / width + 0.4), layout="constrained", dpi=110
    )
    for ax, image in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        deviation = float(image.nan_to_num().std())
        _show(ax, 0.5 + 0.25 * image / max(deviation, 1e-9), f"deviation {deviation:.3g}")
    return figure


def stored(path: Path, **images: Any) -> None:
    """Writes what `draw_images` would show, to compare it with a slider later: the middles of the images, 8 bit.

    Args:
        path: the .npz file.
        **images: of draw.
    """
    rows, titles = _named(**images)
    pixels = [
        [(_pixels(middle(i, MIN_SHOWN_SIDE)) * 255).round().astype(np.uint8) for i in row]
        for row in rows.values()
    ]
    Samples(list(rows), list(titles.values()), pixels).save(path)
