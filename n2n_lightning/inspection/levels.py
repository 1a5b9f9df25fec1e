"""Whether the captures of a scene are equally noisy, and what follows where they are not."""

from dataclasses import replace

from n2n_lightning.data.capture_noise import levels_of
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.scenes import SceneSet
from n2n_lightning.inspection.reports import InspectionReport
from n2n_lightning.metrics.noise_levels import NoiseLevels, named
from n2n_lightning.metrics.noise_model import NoiseModel


def compare_noise(
    report: InspectionReport, scenes: SceneSet, seen: IntensityStats
) -> NoiseLevels | None:
    """Add a line with the noise of each capture by itself, and the ratio of the highest to the lowest.

    Args:
        report: that the line is added to.
        scenes: with several captures of each.
        seen: what their values mean.

    Returns:
        The levels; None where they are not measurable.
    """
    levels = levels_of(scenes, seen)
    if levels is None:
        return None
    low, high = levels.ratio_interval
    finite = levels.ratio < float("inf")
    report.numbers |= {
        "sigmas": list(levels.sigmas),
        "noise_ratio": levels.ratio if finite else None,
        "noise_ratio_interval": [low, high if high < float("inf") else None],
        "noisier": [k + 1 for k in levels.noisier],
        "without_noise": [k + 1 for k in levels.clean],
    }
    end = f"{high:.3g}" if high < float("inf") else "?"
    shown = f"{levels.described()} [{low:.3g}, {end}]" if finite else levels.described()
    if not levels.noisier:
        report.add("levels", f"{shown}: about alike, so either may be the input")
        return levels
    count = len(levels.variances)
    advice = f"the input should be {named(levels.noisier, count)}, the noisier; training does so (data.swap=auto)"
    if count == 2:
        report.reversed = levels.noisier == (1,)
        advice = "the first ones, the noisier, should be the input: data.swap=false"
        if report.reversed:
            advice = "the second ones, the noisier, should be the input: name them with data.noisy=, and data.swap=false"
    if levels.clean:
        advice += f"; {named(levels.clean, count)} have no noise: they serve as clean images to score with"
    report.add("levels", f"{shown}: {advice}")
    return levels


def of_the_noisier(
    model: NoiseModel | None, levels: NoiseLevels | None
) -> tuple[NoiseModel | None, float]:
    """The noise of the noisier of the first two captures, from that of the mean of both.

    Returns:
        The model, and by which factor its variances were multiplied.
    """
    if model is None or levels is None or not levels.noisier:
        return model, 1.0
    first, second = (max(v, 0.0) for v in levels.variances[:2])
    if not first + second > 0:
        return model, 1.0
    factor = 2 * max(first, second) / (first + second)
    b = None if model.b is None else model.b * factor
    points = model.points.copy()
    points[:, 1] *= factor
    return replace(
        model, a=model.a * factor, b=b, variance=model.variance * factor, points=points
    ), factor
