"""Loggers of a run: metrics.csv and TensorBoard."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from n2n_lightning.files import replacing

# TensorBoard's custom charts: several curves in one.
_CHARTS = {
    "MSE": ["Multiline", ["train_loss", "val_loss", "val_noisy_loss", "val_self_loss"]],
    "PSNR in dB": ["Multiline", ["val_psnr", "val_psnr_total", "noisy_psnr", "noisy_psnr_total"]],
    "PSNR in dB, estimated": [
        "Margin",
        ["val_psnr_estimate", "val_psnr_estimate_low", "val_psnr_estimate_high"],
    ],
}


class MetricsFile(Logger):
    """`metrics.csv`, one row per epoch, written whole after each.

    Lightning's CSVLogger would drop the rows before a resume.

    Args:
        path: the file; its rows are kept.
        then: called after a row was written.
    """

    def __init__(self, path: Path, then: Callable[[], Any]) -> None:
        super().__init__()
        self.path, self.then = path, then
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    name = version = ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write nothing: `.hydra/` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write the row of an epoch.

        Args:
            metrics: the row; other callbacks' metrics (LearningRateMonitor) are TensorBoard's only.
            step: not used.
        """
        if "train_loss" not in metrics:
            return
        earlier = [row for row in self.rows if int(row["epoch"]) < metrics["epoch"]]
        self.rows = [*earlier, metrics]
        columns: dict[str, None] = {}  # in the order of the rows
        for row in self.rows:
            columns |= dict.fromkeys(row)
        with (
            replacing(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(self.rows)
        self.then()


class Curves(TensorBoardLogger):
    """TensorBoard's curves against the epoch, with both losses on one chart.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)
        self._charts = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Add the points of an epoch to the curves.

        Args:
            metrics: numbers by their names.
            step: the epoch.
        """
        if not self._charts:
            psnr = "PSNR in dB"
            if "val_psnr_estimate" in metrics:
                psnr = "PSNR in dB, estimated"
            charts = {name: _CHARTS[name] for name in ("MSE", psnr)}
            self.experiment.add_custom_scalars({"n2n_lightning": charts})
            self._charts = True
        hidden = ("epoch", "images", "seconds")
        super().log_metrics({k: v for k, v in metrics.items() if k not in hidden}, step)

    @rank_zero_only
    def describe(self, command: str, data: dict[str, Any], facts: dict[str, Any]) -> None:
        """Write the text of a run.

        Args:
            command: the command that repeats it.
            data: what its data are, by names.
            facts: versions, device and the like.
        """
        rows = []
        for name, value in {**data, **facts}.items():
            if value not in (None, "", []):
                rows.append(f"| {name} | {value} |")
        text = "\n".join([f"    {command}", "", "| | |", "|---|---|", *rows])
        self.experiment.add_text("run", text)


def added_loggers(options: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Take the loggers that the user added out of the Trainer's options.

    Args:
        options: the group `trainer` of a configuration, which is changed.

    Returns:
        The configurations of the loggers, and notes about what does not happen as typed.
    """
    asked = options.pop("logger", None)
    notes = []
    if asked is False:
        notes.append("trainer.logger=false: metrics.csv and the curves are written all the same")
    loggers = asked if isinstance(asked, list) else [asked]
    return [logger for logger in loggers if isinstance(logger, dict)], notes
