"""Loggers of a run: metrics.csv and TensorBoard."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from n2n_lightning.files import replacing


class MetricsFile(Logger):
    """`metrics.csv`, one row per epoch, whole after each; `then` is called after it.

    Lightning's CSVLogger would drop the rows before a resume.
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
        """Nothing: `.hydra/` beside the file has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        # of another callback, as LearningRateMonitor: TensorBoard has it
        if "train_loss" not in metrics:
            return
        self.rows = [row for row in self.rows if int(row["epoch"]) < metrics["epoch"]] + [metrics]
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with (
            replacing(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        self.then()


class Curves(TensorBoardLogger):
    """TensorBoard's curves against the epoch; training and validation loss on one chart, the report's Figure 1."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)
        self._charts = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if not self._charts:
            charts = {
                "MSE": ["Multiline", ["train_loss", "val_loss", "val_noisy_loss", "val_self_loss"]],
                "PSNR in dB": [
                    "Multiline",
                    ["val_psnr", "val_psnr_total", "noisy_psnr", "noisy_psnr_total"],
                ],
                "PSNR in dB, estimated": [
                    "Margin",
                    ["val_psnr_estimate", "val_psnr_estimate_low", "val_psnr_estimate_high"],
                ],
            }
            kept = "estimated" if "val_psnr_estimate" in metrics else "PSNR in dB"
            charts = {
                n: c for n, c in charts.items() if not n.startswith("PSNR") or n.endswith(kept)
            }
            self.experiment.add_custom_scalars({"n2n_lightning": charts})
            self._charts = True
        super().log_metrics(
            {k: v for k, v in metrics.items() if k not in ("epoch", "images", "seconds")}, step
        )

    @rank_zero_only
    def describe(self, command: str, data: dict[str, Any], facts: dict[str, Any]) -> None:
        """The text of a run: its command, what its data are, and with what it was made."""
        rows = [
            f"| {name} | {value} |"
            for name, value in {**data, **facts}.items()
            if value not in (None, "", [])
        ]
        self.experiment.add_text(
            "run", "\n".join([f"    {command}", "", "| | |", "|---|---|", *rows])
        )


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
