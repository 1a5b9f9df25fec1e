"""Validation images during training: noisy, denoised, clean."""

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
from n2n_lightning.data.scene_set import middle
from n2n_lightning.files import DiskFull, replacing
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.reporting.sample_images import Samples
from n2n_lightning.runs.folder import ranking_score


class ValidationImages(Callback):
    """Noisy, denoised and clean validation images, for TensorBoard and samples.png.

    TensorBoard gets them ten times a run, samples.png at its end; samples.npz has them as pixels
    (`stored`).

    Args:
        path: of samples.png.
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
        if batch_idx != 0:
            return
        alone = "shown" in batch  # there is nothing to compare with
        noisy = batch["input"]
        clean = batch["target"]
        if alone:
            noisy = batch.get("frame", batch["shown"])  # of a movie: the frame among those shown
        self._now = {
            "noisy": self._first(noisy),
            "denoised": self._first(outputs),
            "unit": getattr(pl_module, "unit", 1.0),
            "clean": None if alone else self._first(clean),
        }
        if getattr(pl_module, "reference", "clean") == "noisy":
            errors = pl_module.estimates.each()  # type: ignore[union-attr, operator]
            self._now["errors"] = errors[: self.COUNT]

    def _first(self, images: Tensor) -> Tensor:
        """Return the images of a batch that are shown."""
        return images[: self.COUNT].float().cpu()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._now is None:  # there is nothing to validate on
            return
        if self._is_best(trainer, pl_module):
            self._best = self._now
            if time.monotonic() - self._written > SECONDS_BETWEEN_FILES:
                self._write()
        tenth = int(10 * pl_module.progress + 1e-6)  # type: ignore[operator]
        if isinstance(trainer.logger, TensorBoardLogger) and tenth > self._tenth:
            self._draw(trainer.logger.experiment, self._now, trainer.current_epoch + 1)
            self._tenth = tenth

    def _is_best(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Return True if these are the images of the checkpoint to use, as far as it is known."""
        assert self._now is not None
        if self._now["clean"] is None:  # no score: the checkpoint is the last one, too
            return True
        history: list[dict[str, float]] = pl_module.history  # type: ignore[assignment]
        scores = []
        for row in history:
            earlier = ranking_score(row)
            if earlier is not None:
                scores.append(earlier)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        score = ranking_score(metrics)
        if score is None or not scores:
            return True
        return score > max(scores)

    @staticmethod
    def _draw(board: Any, images: dict[str, Any], epoch: int) -> None:
        """Add the images to TensorBoard."""
        board.add_figure("noisy, denoised, clean", draw_images(**images), epoch)
        removed = images["noisy"] - images["denoised"]
        figure = draw_removed(removed)
        board.add_figure("what was removed", figure, epoch)
        known = removed[removed.isfinite()]
        if len(known):
            board.add_histogram("what was removed", known, epoch)

    @rank_zero_only
    def _write(self) -> None:
        if self._best is not None:
            figure = draw_images(**self._best)
            with replacing(self.path) as temporary:
                figure.savefig(temporary)
            stored(self.path.with_suffix(".npz"), **self._best)
            self._written = time.monotonic()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        with suppress(DiskFull):  # the exception says what is wrong
            self._write()


SHOWN_WIDTH = 1.6  # inches of an image in a figure
VOLUMES = 2  # that are shown, each by three planes
MIN_SHOWN_SIDE = 256  # pixels of the middle of an image that are stored
SECONDS_BETWEEN_FILES = 20  # at least: to draw a figure takes longer than a short epoch


def _flat(images: Tensor) -> list[Tensor]:
    """Return images (C, H, W) of a batch; of each volume three planes through its middle."""
    if not axes.deep(images):
        return list(images)
    planes = []
    for volume in images[:VOLUMES]:
        planes += [volume.select(axis, volume.shape[axis] // 2) for axis in (1, 2, 3)]
    return planes


def _rows_and_titles(
    noisy: Tensor,
    denoised: Tensor,
    clean: Tensor | None,
    unit: float = 1.0,
    errors: Sequence[tuple[float, float]] | None = None,
) -> tuple[dict[str, list[Tensor]], dict[str, list[str]]]:
    """Return the images (C, H, W) of each row of a picture, and their titles; see `draw_images`."""
    rows = {"noisy": _flat(noisy), "denoised": _flat(denoised)}
    titles = {name: [""] * len(images) for name, images in rows.items()}
    if clean is None:
        last = "removed"
        rows[last] = _flat(noisy - denoised + 0.5)
    elif errors is None:
        last = "clean"
        rows[last] = _flat(clean)
        for name in titles:
            titles[name] = _psnr_titles(rows[name], rows[last], unit)
    else:
        last = "another capture"
        rows[last] = _flat(clean)
        if len(axes.size(clean)) == 3:
            errors = [error for error in errors[:VOLUMES] for _ in range(3)]
        count = len(rows[last])
        for i, (denoised_error, noisy_error) in enumerate(errors[:count]):
            titles["noisy"][i] = _estimate_title(noisy_error)
            titles["denoised"][i] = _estimate_title(denoised_error)
    titles[last] = [""] * len(rows[last])
    return rows, titles


def _psnr_titles(images: list[Tensor], references: list[Tensor], unit: float) -> list[str]:
    titles = []
    for image, reference in zip(images, references, strict=True):
        difference = (image - reference) * unit
        error = float(difference.square().nanmean())
        titles.append(f"{psnr(error):.1f} dB")
    return titles


def _estimate_title(error: float) -> str:
    if error > 0:
        return f"about {psnr(error):.1f} dB"
    return "not measurable"


def _pixels(image: Tensor) -> np.ndarray:
    """Return an image (C, H, W) for display in [0, 1]: (H, W, 3), or (H, W) of grey ones."""
    pixels = image.nan_to_num().clamp(0, 1).numpy()
    if len(pixels) < 3:
        return pixels[0]
    return np.moveaxis(pixels[:3], 0, 2)


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
    """Draw a column for each image of (B, C, H, W), with its PSNR in dB.

    Shown are the first three channels as colour, or the first as grey where there are fewer; of
    volumes the three planes through the middle.

    Args:
        noisy: the noisy images.
        denoised: the same, denoised.
        clean: the clean ones, or another capture; None: the last row is the residual, around grey.
        unit: one unit of theirs in units of PSNR's white.
        errors: where `clean` is another noisy capture, the estimated errors of each denoised and
            each noisy image.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    rows, titles = _rows_and_titles(noisy, denoised, clean, unit, errors)
    columns = rows["noisy"]
    width = SHOWN_WIDTH * len(columns)
    height = SHOWN_WIDTH * 3 * _aspect(columns) + 0.8
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    places = figure.subplots(3, len(columns), squeeze=False)
    for line, (name, images) in zip(places, rows.items(), strict=True):
        for ax, image, title in zip(line, images, titles[name], strict=True):
            _show(ax, image, title)
        line[0].set_ylabel(name)
    return figure


def draw_removed(removed: Tensor) -> Any:
    """Draw what was removed from images (B, C, H, W), around grey.

    Its deviation is a quarter of white. It should look like noise alone: edges in it are lost from
    the result.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    images = _flat(removed)
    width = SHOWN_WIDTH * len(images)
    height = SHOWN_WIDTH * _aspect(images) + 0.4
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    places = figure.subplots(1, len(images), squeeze=False)
    for ax, image in zip(places[0], images, strict=True):
        deviation = float(image.nan_to_num().std())
        around_grey = 0.5 + 0.25 * image / max(deviation, 1e-9)
        _show(ax, around_grey, f"deviation {deviation:.3g}")
    return figure


def _aspect(images: list[Tensor]) -> float:
    """Return the largest height of images (C, H, W) over their largest width."""
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    return height / width


def stored(path: Path, **images: Any) -> None:
    """Write the images of `draw_images`, for the slider that compares them: the middles, 8 bit.

    Args:
        path: the .npz file.
        **images: the arguments of `draw_images`.
    """
    rows, titles = _rows_and_titles(**images)
    pixels = []
    for row in rows.values():
        pixels.append([_middle_8bit(image) for image in row])
    samples = Samples(list(rows), list(titles.values()), pixels)
    samples.save(path)


def _middle_8bit(image: Tensor) -> np.ndarray:
    pixels = _pixels(middle(image, MIN_SHOWN_SIDE))
    return (pixels * 255).round().astype(np.uint8)
