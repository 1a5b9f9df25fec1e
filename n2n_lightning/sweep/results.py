"""The jobs of a sweep as rows: the best of them, their table, their picture."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from n2n_lightning.config.overrides import unquoted
from n2n_lightning.files import natural
from n2n_lightning.runs.folder import for_all_jobs, ranking_score, read_result


def read_sweep(folder: Path) -> list[dict[str, Any]]:
    """The jobs of a sweep, in the order of their numbers: what was swept, state, scores, reason and command of each."""
    jobs = (
        [f for f in folder.iterdir() if (f / ".hydra" / "overrides.yaml").is_file()]
        if folder.is_dir()
        else []
    )
    fixed = for_all_jobs(folder)
    asked, rows = {}, []
    for path in sorted(jobs, key=natural):
        overrides = [
            str(o).replace("\\:", ":") for o in OmegaConf.load(path / ".hydra" / "overrides.yaml")
        ]
        asked[path] = dict(
            o.lstrip("+").split("=", 1) for o in overrides if "=" in o and o.lower() not in fixed
        )
    swept = list(dict.fromkeys(name for values in asked.values() for name in values))
    for path, values in asked.items():
        result = read_result(path)
        parameters = {n: _number(values.get(n)) for n in swept}
        rows.append(
            {
                "job": path.name,
                "state": result.get("status", "waiting"),
                "parameters": parameters,
                "point": " ".join(f"{n}={v}" for n, v in parameters.items()),
                **{
                    n: result.get(n)
                    for n in (
                        *("val_psnr", "val_psnr_total", "val_psnr_estimate", "val_mse_estimate"),
                        *("val_loss", "val_noisy_loss", "val_self_loss"),
                        *("train_loss", "best_epoch", "epochs", "seconds"),
                    )
                },
                "reason": result.get("reason"),
                "command": result.get("command"),
            }
        )
    return rows


def _number(text: str | None) -> Any:
    text = unquoted(text) if text else text
    try:
        value = float(text or "")
    except ValueError:
        return text
    return int(value) if value.is_integer() and "." not in str(text) else value


def score_text(row: dict[str, Any], unit: str = "") -> str:
    """How far a job is and what it scores, for its line on the terminal."""
    value = ranking_score(row)
    return (
        f"  epoch {row['epochs'] or 0}  {value:.2f}{unit}{_KINDS[_kind([row])][1]}"
        if value is not None
        else ""
    )


# What the scores of runs are, in a table's head, behind a number, and on an axis.
_KINDS = {
    "val_psnr": ("PSNR", "", "val_psnr"),
    "val_mse_estimate": ("PSNR, estimated", " estimated", "val_psnr_estimate"),
    "val_noisy_loss": ("against noisy", " against noisy images", "PSNR against noisy images"),
    "val_self_loss": ("self loss, dB", " below 1, the loss", "-10 log10 of val_self_loss"),
}


def _kind(rows: list[dict[str, Any]]) -> str:
    """Which of _KINDS the scores of some jobs are."""
    return next(
        (kind for kind in _KINDS if any(row.get(kind) is not None for row in rows)), "val_psnr"
    )


def jobs_table(rows: list[dict[str, Any]]) -> Any:
    """The jobs of a sweep (`read_sweep`) as a table of rich."""
    from rich.table import Table

    table = Table(title=None)
    for column in (
        "job",
        "point",
        "state",
        "epoch",
        _KINDS[_kind(rows)][0],
        "total",
        "seconds",
        "reason",
    ):
        wide = column in ("point", "reason")
        table.add_column(
            column, justify="left" if wide or column == "state" else "right", overflow="fold"
        )
    for row in rows:
        scores = [
            f"{value:.2f}" if value is not None else ""
            for value in (ranking_score(row), row["val_psnr_total"])
        ]
        seconds = f"{row['seconds']:.0f}" if row["seconds"] else ""
        table.add_row(
            row["job"],
            row["point"],
            row["state"],
            str(row["epochs"] or ""),
            *scores,
            seconds,
            row["reason"] or "",
        )
    return table


def numeric_axis(rows: list[dict[str, Any]]) -> str | None:
    """The swept number that PSNR is drawn against: the first that is not the seed, and has two values or more."""
    for name in rows[0]["parameters"] if rows else ():
        values = {row["parameters"][name] for row in rows}
        if name != "seed" and len(values) > 1 and all(isinstance(v, int | float) for v in values):
            return name
    return None


def picture(rows: list[dict[str, Any]], axis: str) -> Any:
    """A matplotlib figure of PSNR against `axis`: mean and spread over seeds, a line for each other setting."""
    from statistics import mean, stdev

    from matplotlib.figure import Figure

    lines: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        if (value := ranking_score(row)) is not None:
            others = " ".join(
                f"{n}={v}" for n, v in row["parameters"].items() if n not in (axis, "seed")
            )
            lines.setdefault(others, {}).setdefault(row["parameters"][axis], []).append(value)
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=120)
    ax = figure.subplots()
    for label, points in sorted(lines.items()):
        x = sorted(points)
        y, spread = (
            [mean(points[v]) for v in x],
            [stdev(points[v]) if len(points[v]) > 1 else 0.0 for v in x],
        )
        ax.errorbar(
            x, y, yerr=spread if any(spread) else None, marker="o", capsize=3, label=label or None
        )
    values = [row["parameters"][axis] for row in rows]
    if min(values) > 0 and max(values) / min(values) >= 10:
        ax.set_xscale("log")
    seeds = max((len(v) for points in lines.values() for v in points.values()), default=0)
    over = f", mean and deviation of {seeds} seeds" if seeds > 1 else ""
    ax.set(xlabel=axis, ylabel=f"{_KINDS[_kind(rows)][2]} in dB{over}")
    ax.grid(alpha=0.3)
    if any(lines):
        ax.legend()
    return figure
