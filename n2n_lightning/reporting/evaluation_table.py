"""The scores of `evaluate`: the table on the terminal, JSON, CSV and pictures."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.files import json_text, replacing

NOISY_INPUT = "noisy input"  # the name of the first row
WIDTH = 150  # columns of a table that does not go to a terminal


def show(rows: dict[str, dict[str, Any]]) -> None:
    """Print the table of scores.

    Args:
        rows: the summary of each candidate by its name.
    """
    from rich.console import Console
    from rich.table import Table

    estimated = "psnr_estimate" in next(iter(rows.values()))
    outliers = 0
    for row in rows.values():
        outliers = outliers or row.get("outlier_pixels", 0)
    heads = ["PSNR, mean [95%]", "PSNR, total", "SSIM", "8 bit: mean", "total"]
    score_without_outliers = "psnr_without_outliers"
    if estimated:
        heads = ["PSNR, estimated [95%]"]
        score_without_outliers = "psnr_estimate_without_outliers"
    if outliers:
        heads.append(f"without {outliers} outliers")
    table = Table("")
    for head in (*heads, "against the first [95%]", "parameters", "images/s"):
        table.add_column(head, justify="right")
    for name, row in rows.items():
        cells = _estimate_cells(row) if estimated else _psnr_cells(row)
        if outliers:
            cells.append(_decibels(row.get(score_without_outliers)))
        cells += _comparison_cells(row, name != NOISY_INPUT)
        table.add_row(name, *cells)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    console.print(table)


def _estimate_cells(row: dict[str, Any]) -> list[str]:
    interval = row["psnr_estimate_interval"]
    return [_measured(row["psnr_estimate"], interval, "{:.2f}")]


def _psnr_cells(row: dict[str, Any]) -> list[str]:
    return [
        _measured(row["psnr"], row["psnr_interval"], "{:.2f}"),
        f"{row['psnr_total']:.2f}",
        f"{row['ssim']:.4f}",
        f"{row['psnr_uint8']:.2f}",
        f"{row['psnr_total_uint8']:.2f}",
    ]


def _comparison_cells(row: dict[str, Any], timed: bool) -> list[str]:
    """Return the difference to the first candidate, parameters and speed, as text."""
    cells = ["", "", ""]
    if "difference" in row:
        interval = row["difference_interval"]
        cells[0] = _measured(row["difference"], interval, "{:+.2f}")
    if row.get("parameters"):
        cells[1] = f"{row['parameters']:,}"
    if timed:
        cells[2] = f"{row['images_per_second']:.3g}"
    return cells


def _decibels(value: float | None) -> str:
    if value is None:
        return "not measurable"
    return f"{value:.2f}"


def _measured(value: float | None, ends: Sequence[float | None] | None, form: str) -> str:
    """Return decibels with their interval; a question mark for an end that is not known."""
    if value is None:
        return "not measurable"
    shown = []
    for end in ends or (None, None):
        shown.append("?" if end is None else form.format(end))
    number = form.format(value)
    interval = ", ".join(shown)
    return f"{number} [{interval}]"


def draw_extremes(found: dict[str, Any], data: Any, path: Path, count: int = 4) -> None:
    """Draw the images with the lowest and the highest PSNR.

    Args:
        found: what scoring.score_clean or score_noisy returned.
        data: the data source.
        path: the picture to write.
        count: images of either kind.
    """
    import torch

    from n2n_lightning.metrics.scoring import validation_batches
    from n2n_lightning.training.validation_images import draw_images

    errors = found["mse"]
    order = sorted(range(len(errors)), key=errors.__getitem__, reverse=True)
    worst = order[:count]
    best = order[-count:]
    chosen = list(dict.fromkeys(worst + best))
    noisy_images: list[Any] = []
    clean_images: list[Any] = []
    for noisy_batch, clean_batch in validation_batches(data):
        noisy_images += noisy_batch
        clean_images += clean_batch
    side = min(min(clean_images[i].shape[1:]) for i in chosen)

    def corners(images: Any) -> Any:
        parts = [images[i][..., :side, :side] for i in chosen]
        return torch.stack(parts)

    noisy = corners(noisy_images)
    denoised = corners(found["images"])
    clean = corners(clean_images)
    beside = None
    if "estimates" in found:
        of_images = found["errors"]
        beside = [of_images[i] for i in chosen]
    figure = draw_images(noisy, denoised, clean, errors=beside)
    with replacing(path) as temporary:
        figure.savefig(temporary)


def write_correlation(path: Path, curves: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    """Draw Fourier shell correlations, and add them to the rows.

    Args:
        path: the picture to write (PNG).
        curves: what metrics.fsc.curves returned.
        rows: the summary of each candidate by its name, which is changed.
    """
    from n2n_lightning.metrics.fsc import draw_curves

    frequencies = curves[NOISY_INPUT].frequencies
    values = {}
    for name, curve in curves.items():
        correlation = curve.values
        values[name] = correlation
        rows[name]["fsc"] = {"frequency": frequencies, "correlation": correlation}
    figure = draw_curves(values, frequencies)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write all scores.

    Args:
        path: the file.
        content: plain data.
    """
    with replacing(path) as temporary:
        temporary.write_text(json_text(content), encoding="utf-8")


def write_csv(path: Path, found: dict[str, dict[str, Any]]) -> None:
    """Write the scores of each image, a row for each.

    Args:
        path: the file.
        found: by the names of the candidates what scoring.score_clean or score_noisy returned.
    """
    count = len(found[NOISY_INPUT]["mse"])
    columns: dict[str, Sequence[Any]] = {"image": range(count)}
    for name, scores in found.items():
        columns[f"{name} mse"] = scores["mse"]
        if "ssim" in scores:
            columns[f"{name} ssim"] = scores["ssim"]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    with replacing(path) as temporary:
        temporary.write_text(lines.getvalue(), encoding="utf-8")
