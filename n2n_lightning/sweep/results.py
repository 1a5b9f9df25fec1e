"""The jobs of a sweep as rows: the best of them, their table, their picture."""

from dataclasses import dataclass
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
    "val_psnr",
    "val_psnr_total",
    "val_psnr_estimate",
    "val_mse_estimate",
    "val_loss",
    "val_noisy_loss",
    "val_self_loss",
    "train_loss",
    "best_epoch",
    "epochs",
    "seconds",
)


def read_sweep(folder: Path) -> list[dict[str, Any]]:
    """Read the jobs of a sweep.

    Returns:
        A row for each job, in the order of their numbers: its name (`job`), state, swept options
        (`parameters`, and as text `point`), scores, reason and command.
    """
    if not folder.is_dir():
        return []
    jobs = [path for path in folder.iterdir() if has_request(path)]
    common = common_overrides(folder)
    swept: dict[str, None] = {}  # in the order of the jobs
    options: dict[Path, dict[str, str]] = {}
    for path in sorted(jobs, key=natural):
        options[path] = _swept_options(path, common)
        swept |= dict.fromkeys(options[path])
    rows = []
    for path, values in options.items():
        parameters = {name: _number(values.get(name)) for name in swept}
        rows.append(_row(path, parameters))
    return rows


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
    scores = {name: result.get(name) for name in _COLUMNS}
    return {
        "job": job.name,
        "state": result.get("status", "waiting"),
        "parameters": parameters,
        "point": " ".join(f"{name}={value}" for name, value in parameters.items()),
        **scores,
        "reason": result.get("reason"),
        "command": result.get("command"),
    }


def _number(text: str | None) -> Any:
    """Return the number that a text is, a whole one where it has no point; else the text itself."""
    if not text:
        return text
    text = unquoted(text)
    try:
        value = float(text)
    except ValueError:
        return text
    if value.is_integer() and "." not in text:
        return int(value)
    return value


def score_text(row: dict[str, Any], unit: str = "") -> str:
    """Return how far a job is and what it scores, for its line on the terminal.

    Args:
        row: of `read_sweep`.
        unit: printed after the score.
    """
    score = ranking_score(row)
    if score is None:
        return ""
    epoch = row["epochs"] or 0
    kind = _kind([row])
    return f"  epoch {epoch}  {score:.2f}{unit}{kind.remark}"


@dataclass(frozen=True)
class _Score:
    """Kind of score that ranks runs, as it is called.

    Attributes:
        key: its name in result.json.
        head: in the head of a table.
        remark: behind a number.
        axis: on the axis of a figure.
    """

    key: str
    head: str
    remark: str
    axis: str


_PSNR = _Score("val_psnr", head="PSNR", remark="", axis="val_psnr")
_SCORES_WITHOUT_CLEAN = (
    _Score(
        "val_mse_estimate",
        head="PSNR, estimated",
        remark=" estimated",
        axis="val_psnr_estimate",
    ),
    _Score(
        "val_noisy_loss",
        head="against noisy",
        remark=" against noisy images",
        axis="PSNR against noisy images",
    ),
    _Score(
        "val_self_loss",
        head="self loss, dB",
        remark=" below 1, the loss",
        axis="-10 log10 of val_self_loss",
    ),
)


def _kind(rows: list[dict[str, Any]]) -> _Score:
    """Return the first kind of score that some of the jobs have."""
    for kind in (_PSNR, *_SCORES_WITHOUT_CLEAN):
        if any(row.get(kind.key) is not None for row in rows):
            return kind
    return _PSNR


def jobs_table(rows: list[dict[str, Any]]) -> Any:
    """Return the jobs of a sweep (`read_sweep`) as a table of rich."""
    from rich.table import Table

    table = Table(title=None)
    score = _kind(rows).head
    for column in ("job", "point", "state", "epoch", score, "total", "seconds", "reason"):
        left = column in ("point", "state", "reason")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(
            row["job"],
            row["point"],
            row["state"],
            str(row["epochs"] or ""),
            _with_digits(ranking_score(row), 2),
            _with_digits(row["val_psnr_total"], 2),
            _with_digits(row["seconds"] or None, 0),
            row["reason"] or "",
        )
    return table


def _with_digits(value: float | None, digits: int) -> str:
    """Return a number as text; nothing for None."""
    if value is None:
        return ""
    return f"{value:.{digits}f}"


def numeric_axis(rows: list[dict[str, Any]]) -> str | None:
    """Return the swept number that PSNR is drawn against; None where there is none.

    It is the first that is not the seed, and has two values or more.
    """
    if not rows:
        return None
    for name in rows[0]["parameters"]:
        values = {row["parameters"][name] for row in rows}
        numeric = all(isinstance(value, int | float) for value in values)
        if numeric and len(values) > 1 and name != "seed":
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
        means = []
        deviations = []
        for value in x:
            scores = points[value]
            means.append(mean(scores))
            deviations.append(stdev(scores) if len(scores) > 1 else 0.0)
            seeds = max(seeds, len(scores))
        bars = deviations if any(deviations) else None
        ax.errorbar(x, means, yerr=bars, marker="o", capsize=3, label=label or None)
    values = [row["parameters"][axis] for row in rows]
    lowest = min(values)
    if lowest > 0 and max(values) / lowest >= 10:
        ax.set_xscale("log")
    over = f", mean and deviation of {seeds} seeds" if seeds > 1 else ""
    score = _kind(rows).axis
    ax.set(xlabel=axis, ylabel=f"{score} in dB{over}")
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
        parameters = row["parameters"]
        others = []
        for name, value in parameters.items():
            if name not in (axis, "seed"):
                others.append(f"{name}={value}")
        points = lines.setdefault(" ".join(others), {})
        points.setdefault(parameters[axis], []).append(score)
    return lines
