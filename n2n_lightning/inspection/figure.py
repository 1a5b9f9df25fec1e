"""Figure of an inspection: a capture, its noise, and three plots of that noise."""

from typing import Any

import numpy as np

from n2n_lightning.inspection.inspection_report import InspectionReport


def figure(report: InspectionReport) -> Any:
    """Draw a capture, its noise, and the distribution, growth and correlation of that noise.

    Args:
        report: of a finished inspection.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    assert report.example is not None
    first, second = report.example
    drawn = Figure(figsize=(10, 6.4), layout="constrained", dpi=110)
    upper, lower = drawn.subplots(2, 3)
    capture, noise, spread = upper
    growth, correlation, notes = lower
    valid = first[np.isfinite(first)]
    limits = (0.0, 1.0)
    median = 0.0
    if valid.size:
        low, high = np.quantile(valid, (0.001, 0.999)).tolist()
        limits = (low, high)
        median = float(np.median(valid))
    _show(capture, first, limits, "one capture")
    if first is second:
        residual = first - median
        title = "less its median"
    else:
        residual = (first - second) / np.sqrt(2)
        title = "its noise: the difference of two"
    values = residual[np.isfinite(residual)]
    sigma = 1.0
    if values.size and values.std() > 0:
        sigma = float(values.std())
    _show(noise, residual, (-3 * sigma, 3 * sigma), title)
    _plot_distribution(spread, values, sigma)
    _plot_growth(growth, report)
    _plot_correlation(correlation, report)
    notes.axis("off")
    names = ", ".join(finding.name for finding in report.obstacles) or "nothing"
    notes.text(0, 1, f"in the way: {names}", va="top", wrap=True)
    return drawn


def _show(ax: Any, image: np.ndarray, limits: tuple[float, float], title: str) -> None:
    """Show an image (C, H, W) with `limits` as black and white."""
    low, high = limits
    span = max(high - low, 1e-12)
    scaled = (image - low) / span
    scaled = np.nan_to_num(scaled)
    scaled = scaled.clip(0, 1)
    pixels = scaled[0]
    if len(image) >= 3:
        pixels = np.moveaxis(scaled[:3], 0, -1)
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=1)
    ax.set(title=title, xticks=[], yticks=[])


def _plot_distribution(ax: Any, values: np.ndarray, sigma: float) -> None:
    """Plot a histogram of the noise and the normal distribution of its deviation."""
    end = 4 * sigma
    x = np.linspace(-end, end, 81)
    if values.size and values.std():
        ax.hist(values, x, density=True, color="#88a", label="measured")
    exponent = x**2 / 2 / sigma**2
    normal = np.exp(-exponent) / sigma
    normal /= np.sqrt(2 * np.pi)
    label = "normal, of the same deviation"
    ax.plot(x, normal, "k--", lw=1, label=label)
    ax.set(title="values of the noise", yticks=[])
    _, top = ax.get_ylim()
    ax.set_ylim(top=1.35 * top)  # room for the legend
    ax.legend(fontsize=7, loc="upper left")


def _plot_growth(ax: Any, report: InspectionReport) -> None:
    """Plot variance against brightness, with the fitted line."""
    ax.set(title="noise against brightness", xlabel="brightness", ylabel="variance")
    model = report.model
    if model is None:
        ax.text(0.5, 0.5, "not measurable from one capture", ha="center", transform=ax.transAxes)
        return
    brightness, variance = model.points.T
    ax.plot(brightness, variance, "o", ms=3)
    if model.b is not None:
        ends = np.array([brightness.min(), brightness.max()])
        line = model.a + model.b * ends
        label = f"{model.a:.3g} + {model.b:.3g} brightness"
        ax.plot(ends, line, "k--", lw=1, label=label)
        ax.legend(fontsize=7)
    ax.set_ylim(bottom=0)


def _plot_correlation(ax: Any, report: InspectionReport) -> None:
    """Plot the correlation of the noise against the distance."""
    ax.set(
        title="correlation of neighbouring pixels",
        xlabel="distance in pixels",
        xticks=[0, 1, 2],
        ylim=(-0.5, 1.05),
    )
    for name, (at_one, at_two) in report.correlations.items():
        ax.plot([0, 1, 2], [1, at_one, at_two], "o-", label=name)
    ax.axhline(0, color="k", lw=0.5)
    if report.correlations:
        ax.legend(fontsize=7)
