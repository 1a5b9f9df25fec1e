"""What was found, as a picture."""

from typing import Any

import numpy as np

from n2n_lightning.inspection.reports import InspectionReport


def figure(report: InspectionReport) -> Any:
    """A matplotlib figure: a capture and its noise; how the noise is spread, how it grows, whether it is white."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10, 6.4), layout="constrained", dpi=110)
    (capture, noise, spread), (growth, colour, notes) = drawn.subplots(2, 3)
    assert report.example is not None
    first, second = report.example
    several = first is not second
    known = first[np.isfinite(first)]
    _show(
        capture, first, np.quantile(known, (0.001, 0.999)) if known.size else (0, 1), "one capture"
    )
    rest = (
        (first - second) / np.sqrt(2)
        if several
        else first - (np.median(known) if known.size else 0)
    )
    sigma = float(rest[np.isfinite(rest)].std()) if np.isfinite(rest).any() else 1.0
    sigma = sigma or 1.0
    _show(
        noise,
        rest,
        (-3 * sigma, 3 * sigma),
        "its noise: the difference of two" if several else "less its median",
    )
    values = rest[np.isfinite(rest)]
    x = np.linspace(-4 * sigma, 4 * sigma, 81)
    if values.size and values.std():
        spread.hist(values, x, density=True, color="#88a", label="measured")
    normal = np.exp(-(x**2) / 2 / sigma**2) / sigma / np.sqrt(2 * np.pi)
    spread.plot(x, normal, "k--", lw=1, label="normal, of the same deviation")
    spread.set(title="values of the noise", yticks=[])
    spread.set_ylim(top=1.35 * spread.get_ylim()[1])  # room for the legend
    spread.legend(fontsize=7, loc="upper left")
    _growth(growth, report)
    _colour(colour, report)
    notes.axis("off")
    bad = [finding.name for finding in report.findings if finding.bad]
    notes.text(0, 1, "in the way: " + (", ".join(bad) or "nothing"), va="top", wrap=True)
    return drawn


def _show(ax: Any, image: np.ndarray, limits: Any, title: str) -> None:
    low, high = (float(v) for v in limits)
    shown = np.nan_to_num((image - low) / max(high - low, 1e-12)).clip(0, 1)
    ax.imshow(
        shown[:3].transpose(1, 2, 0) if len(image) >= 3 else shown[0], cmap="gray", vmin=0, vmax=1
    )
    ax.set(title=title, xticks=[], yticks=[])


def _growth(ax: Any, report: InspectionReport) -> None:
    """Variance against brightness, with the fitted line."""
    ax.set(title="noise against brightness", xlabel="brightness", ylabel="variance")
    if report.model is None:
        ax.text(0.5, 0.5, "not measurable from one capture", ha="center", transform=ax.transAxes)
        return
    x, v = report.model.points.T
    ax.plot(x, v, "o", ms=3)
    if report.model.b is not None:
        ends = np.array([x.min(), x.max()])
        line = f"{report.model.a:.3g} + {report.model.b:.3g} brightness"
        ax.plot(ends, report.model.a + report.model.b * ends, "k--", lw=1, label=line)
        ax.legend(fontsize=7)
    ax.set_ylim(bottom=0)


def _colour(ax: Any, report: InspectionReport) -> None:
    """Correlation of the noise against the distance."""
    ax.set(
        title="correlation of neighbouring pixels",
        xlabel="distance in pixels",
        xticks=[0, 1, 2],
        ylim=(-0.5, 1.05),
    )
    for name, (one, two) in report.correlations.items():
        ax.plot([0, 1, 2], [1, one, two], "o-", label=name)
    ax.axhline(0, color="k", lw=0.5)
    if report.correlations:
        ax.legend(fontsize=7)
