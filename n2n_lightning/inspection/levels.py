"""Captures of unequal noise: a line about each capture's own noise."""

from dataclasses import replace
from typing import Any

from n2n_lightning.data.capture_noise import levels_of
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.scene_set import SceneSet
from n2n_lightning.inspection.inspection_report import InspectionReport
from n2n_lightning.metrics.noise_levels import NoiseLevels, named
from n2n_lightning.metrics.noise_model import NoiseModel


def compare_noise(report: InspectionReport, scenes: SceneSet, stats: IntensityStats) -> None:
    """Add a line with the noise of each capture by itself, if it is measurable.

    Args:
        report: gets the line and the levels.
        scenes: several captures of each.
        stats: their nodata values and intensity range.
    """
    levels = levels_of(scenes, stats)
    if levels is None:
        return
    report.levels = levels
    report.reversed = len(levels.variances) == 2 and levels.noisier == (1,)
    report.numbers |= _numbers(levels)
    shown = levels.described()
    if _finite(levels.ratio) is not None:
        shown += _interval(levels)
    if not levels.noisier:
        report.add("levels", f"{shown}: about alike, so either may be the input")
        return
    report.add("levels", f"{shown}: {_direction(levels)}")


def _interval(levels: NoiseLevels) -> str:
    """Return the interval of the ratio, in brackets; "?" for an infinite end."""
    low, high = levels.ratio_interval
    end = f"{high:.3g}"
    if _finite(high) is None:
        end = "?"
    return f" [{low:.3g}, {end}]"


def _finite(value: float) -> float | None:
    """Return a value, or None if it is infinite, which JSON cannot hold."""
    return value if value < float("inf") else None


def _numbers(levels: NoiseLevels) -> dict[str, Any]:
    """Return the levels for JSON; captures are numbered from 1."""
    low, high = levels.ratio_interval
    return {
        "sigmas": list(levels.sigmas),
        "noise_ratio": _finite(levels.ratio),
        "noise_ratio_interval": [low, _finite(high)],
        "noisier": [k + 1 for k in levels.noisier],
        "without_noise": [k + 1 for k in levels.clean],
    }


def _direction(levels: NoiseLevels) -> str:
    """Return the captures that should be the input, in words."""
    count = len(levels.variances)
    if count > 2:
        noisier = named(levels.noisier, count)
        line = f"the input should be {noisier}, the noisier; training does so (data.swap=auto)"
    elif levels.noisier == (1,):
        line = (
            "the second ones, the noisier, should be the input:"
            " name them with data.noisy=, and data.swap=false"
        )
    else:
        line = "the first ones, the noisier, should be the input: data.swap=false"
    if levels.clean:
        clean = named(levels.clean, count)
        line += f"; {clean} have no noise: they serve as clean images to score with"
    return line


def of_the_noisier(
    model: NoiseModel | None, levels: NoiseLevels | None
) -> tuple[NoiseModel | None, float]:
    """Scale a noise model of two captures to the noisier one.

    Args:
        model: the mean of the first two captures.
        levels: noise of each capture.

    Returns:
        The model, and the factor of its variances.
    """
    if model is None or levels is None or not levels.noisier:
        return model, 1.0
    variances = [max(variance, 0.0) for variance in levels.variances[:2]]
    total = sum(variances)
    if not total > 0:
        return model, 1.0
    factor = 2 * max(variances) / total
    points = model.points.copy()
    points[:, 1] *= factor
    gain = model.b
    if gain is not None:
        gain *= factor
    scaled = replace(
        model,
        a=model.a * factor,
        b=gain,
        variance=model.variance * factor,
        points=points,
    )
    return scaled, factor
