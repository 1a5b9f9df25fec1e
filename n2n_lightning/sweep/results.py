"""The jobs of a sweep as rows: the best of them, their table, their picture."""

from pathlib import Path
from typing import Any

from n2n_lightning.config.overrides import unquoted
from n2n_lightning.files import natural
from n2n_lightning.runs.folder import (
    common_overrides,
    has_request,
    ranking_score,
    read_overrides,
    read_result,
)

# What a row has of its job's result.json, in the order of the columns of sweep.csv.
_COLUMNS = (
    *("val_psnr", "val_psnr_total", "val_psnr_estimate", "val_mse_estimate"),
    *("val_loss", "val_noisy_loss", "val_self_loss"),
    *("train_loss", "best_epoch", "epochs", "seconds"),
)


def read_sweep(folder: Path) -> list[dict[str, Any]]:
    """Read the jobs of a sweep.

    Returns:
        A row for each job, in the order of their numbers: its name (`job`), state, swept options
        (`parameters`, and as text `point`), scores, reason and command.
    """
    jobs = [path for path in folder.iterdir() if has_request(path)] if folder.is_dir() else []
    common = common_overrides(folder)
    swept: dict[str, None] = {}  # in the order of the jobs
    options: dict[Path, dict[str, str]] = {}
    for path in sorted(jobs, key=natural):
        options[path] = _swept_options(path, common)
        swept |= dict.fromkeys(options[path])
    return [
        _row(path, {n: _number(values.get(n)) for n in swept}) for path, values in options.items()
    ]


def _swept_options(job: Path, common: set[str]) -> dict[str, str]:
    """Return the options of a job by their names, without those that all jobs have."""
    options = {}
    for override in read_overrides(job):
        word = override.replace("\\:", ":")
        if "=" in word and word.lower() not in common:
            name, _, value = word.lstrip("+").partition("=")
            options[name] = value
    return options


def _row(job: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    result = read_result(job)
    return {
        "job": job.name,
        "state": result.get("status", "waiting"),
        "parameters": parameters,
        "point": " ".join(f"{name}={value}" for name, value in parameters.items()),
        **{name: result.get(name) for name in _COLUMNS},
        "reason": result.get("reason"),
        "command": result.get("command"),
    }


def _number(text: str | None) -> Any:
    """Return the number that a text is, a whole one where it has no point; else the text itself."""
    text = unquoted(text) if text else text
    try:
        value = float(text or "")
    except ValueError:
        return text
    return int(value) if value.is_integer() and "." not in str(text) else value


def score_text(row: dict[str, Any], unit: str = "") -> str:
    """Return how far a job is and what it scores, for its line on the terminal.

    Args:
        row: of `read_sweep`.
        unit: printed after the score.
    """
    score = ranking_score(row)
    if score is None:
        return ""
    return f"  epoch {row['epochs'] or 0}  {score:.2f}{unit}{_KINDS[_kind([row])][1]}"


# What the scores of runs are, in a table's head, behind a number, and on an axis.
_KINDS = {
    "val_psnr": ("PSNR", "", "val_psnr"),
    "val_mse_estimate": ("PSNR, estimated", " estimated", "val_psnr_estimate"),
    "val_noisy_loss": ("against noisy", " against noisy images", "PSNR against noisy images"),
    "val_self_loss": ("self loss, dB", " below 1, the loss", "-10 log10 of val_self_loss"),
}


def _kind(rows: list[dict[str, Any]]) -> str:
    """Return the key of _KINDS that fits the scores of some jobs."""
    for kind in _KINDS:
        if any(row.get(kind) is not None for row in rows):
            return kind
    return "val_psnr"


def jobs_table(rows: list[dict[str, Any]]) -> Any:
    """Return the jobs of a sweep (`read_sweep`) as a table of rich."""
    from rich.table import Table

    table = Table(title=None)
    for column in ("job", "point", "state", "epoch", _KINDS[_kind(rows)][0], "total", "seconds"):
        left = column in ("point", "state")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    table.add_column("reason", overflow="fold")
    for row in rows:
        scores = []
        for value in (ranking_score(row), row["val_psnr_total"]):
            scores.append("" if value is None else f"{value:.2f}")
        seconds = f"{row['seconds']:.0f}" if row["seconds"] else ""
        progress = [row["state"], str(row["epochs"] or "")]
        table.add_row(row["job"], row["point"], *progress, *scores, seconds, row["reason"] or "")
    return table


def numeric_axis(rows: list[dict[str, Any]]) -> str | None:
    """Return the swept number that PSNR is drawn against; None where there is none.

    It is the first that is not the seed, and has two values or more.
    """
    for name in rows[0]["parameters"] if rows else ():
        values = {row["parameters"][name] for row in rows}
        numeric = all(isinstance(value, int | float) for value in values)
        if name != "seed" and len(values) > 1 and numeric:
            return name
    return None


def picture(rows: list[dict[str, Any]], axis: str) -> Any:
    """Draw PSNR against a swept number: mean and deviation of seeds, a line for each other setting.

    Args:
        rows: of `read_sweep`.
        axis: the name of the number.

    Returns:
        A matplotlib figure.
    """
    from statistics import mean, stdev

    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=120)
    ax = figure.subplots()
    lines = _lines(rows, axis)
    seeds = 0
    for label, points in sorted(lines.items()):
        x = sorted(points)
        y = [mean(points[value]) for value in x]
        deviations = [stdev(points[value]) if len(points[value]) > 1 else 0.0 for value in x]
        bars = deviations if any(deviations) else None
        ax.errorbar(x, y, yerr=bars, marker="o", capsize=3, label=label or None)
        seeds = max(seeds, *(len(scores) for scores in points.values()))
    values = [row["parameters"][axis] for row in rows]
    if min(values) > 0 and max(values) / min(values) >= 10:
        ax.set_xscale("log")
    over = f", mean and deviation of {seeds} seeds" if seeds > 1 else ""
    ax.set(xlabel=axis, ylabel=f"{_KINDS[_kind(rows)][2]} in dB{over}")
    ax.grid(alpha=0.3)
    if any(lines):
        ax.legend()
    return figure


def _lines(rows: list[dict[str, Any]], axis: str) -> dict[str, dict[float, list[float]]]:
    """Return the scores of all seeds by the other options and the value on the axis."""
    lines: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        score = ranking_score(row)
        if score is None:
            continue
        others = [f"{n}={v}" for n, v in row["parameters"].items() if n not in (axis, "seed")]
        points = lines.setdefault(" ".join(others), {})
        points.setdefault(row["parameters"][axis], []).append(score)
    return lines
