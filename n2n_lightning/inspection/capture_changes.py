"""Findings about changes between the captures of a scene: shift, movement, brightness."""

from dataclasses import dataclass
from itertools import starmap

import numpy as np

from n2n_lightning.arrays import bad_pixels
from n2n_lightning.arrays.registration import likeliest_way, positions_of, shifted
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.scene_sample import SceneSample
from n2n_lightning.data.scene_set import SceneSet, middle
from n2n_lightning.inspection import measures, shifts
from n2n_lightning.inspection.inspection_report import DRIFTED, InspectionReport
from n2n_lightning.inspection.sampling import blurred_pairs
from n2n_lightning.inspection.shifts import SHIFTED, ShiftSummary

BETWEEN = {"near": "between neighbours", "far": "between the first and the last capture"}
NOT_MEASURABLE = "not measurable: too little structure, or too much noise"
HARMFUL_CHANGE = 0.05  # of the noise's deviation: below, a change of brightness costs nothing
SURE_CHANGE = 4  # standard errors
DRIFT_FRAMES = 48  # of a movie: a drift shows in them, and they take a second
DRIFT_SIDE = 256  # pixels of their middle
FRAMES_APART = 2  # frames around one that a network is shown by default
LEAST_WAY = 1.0  # pixels: only whole ones can be undone
LEAST_SHARE = 0.1  # of the frames: one jump of a stage spoils less


def mostly_differ(sample: SceneSample) -> bool:
    """Return True if neighbouring captures of most scenes show different things."""
    different = sum(starmap(shifts.differ, sample.pairs("near")))
    return different > len(sample.scenes) / 2


def add_shift(report: InspectionReport, sample: SceneSample, far: bool = True) -> None:
    """Add a line about the shift between captures.

    Args:
        report: gets the line and the shifts.
        sample: two captures or more of each scene.
        far: compare the first with the last capture, too.
    """
    ends = ("near", "far") if far else ("near",)
    for end in ends:
        measured = starmap(shifts.shift, sample.pairs(end))
        known = [shift for shift in measured if shift is not None]
        if known:
            summary = ShiftSummary.of(known)
            report.shifts[end] = summary
            report.numbers[f"shift_{end}"] = [summary.rows, summary.columns, summary.most]
    if "near" not in report.shifts and mostly_differ(sample):
        line = "captures of a scene do not show the same thing: they are no pairs"
        report.add("shift", line, bad=True)
        return
    if not report.shifts:
        report.add("shift", NOT_MEASURABLE)
        return
    worst = max(report.shifts.values(), key=lambda summary: summary.most)
    parts = []
    for end, summary in report.shifts.items():
        parts.append(f"{summary.shown:.2f} pixels {BETWEEN[end]}")
    line = ", ".join(parts)
    if worst.most <= SHIFTED:
        report.add("shift", f"{line}: they lie on one another")
        return
    typical = f"typically {worst.rows:+.2f} rows, {worst.columns:+.2f} columns"
    remedy = "register them first"
    report.align = worst.shown >= LEAST_WAY and not report.volumes
    if report.align:
        remedy = "data.align=true undoes whole pixels"
    line += f" ({typical}): results are blurred by as much; {remedy}"
    report.add("shift", line, bad=True)


def add_movement(report: InspectionReport, scenes: SceneSet) -> None:
    """Add a line with the movement of a movie from frame to frame.

    Args:
        report: gets the line.
        scenes: one movie, its frames the captures.
    """
    speeds = []
    for one, other, length in blurred_pairs(scenes):
        shift = shifts.shift(one, other, 0.15 * length)
        if shift is not None:
            speeds.append(shift.length / length)
    if not speeds:
        report.add("movement", NOT_MEASURABLE)
        return
    speed = float(np.median(speeds))
    line = (
        f"{speed:.2f} pixels a frame: the less, the more frames can be averaged;"
        " data.context= shows the network some"
    )
    report.add("movement", line, movement=speed)


def add_drift(report: InspectionReport, scenes: SceneSet, stats: IntensityStats) -> None:
    """Add a line where the whole picture of a movie moves by a pixel or more between frames.

    Args:
        report: gets the line.
        scenes: one movie, its frames the captures.
        stats: their nodata values.
    """
    frames = []
    for t in range(min(scenes.count_of(0), DRIFT_FRAMES)):
        stored = middle(scenes.image(0, t), DRIFT_SIDE)
        known = bad_pixels.mask_invalid(stored, stored.double(), stats.nodata_values)
        frames.append(known.numpy())
    positions = positions_of(frames)
    ways = np.hypot(*(positions[FRAMES_APART:] - positions[:-FRAMES_APART]).T)
    report.align = bool(np.mean(ways >= LEAST_WAY) >= LEAST_SHARE)
    if report.align:
        line = (
            f"{ways.max():.1f} pixels between frames {FRAMES_APART} apart, of the whole picture,"
            f" among the first {len(frames)}: data.align=true undoes whole pixels"
        )
        report.add("drift", line, drift=float(ways.max()))


@dataclass(frozen=True)
class BrightnessChange:
    """Relative change of brightness between two captures, over several scenes.

    Attributes:
        mean: of the scenes.
        error: standard error of the mean.
        most: the change of the scene that changes most, 0 if none does for sure.
        size: the magnitude to judge by: the larger of both, as far as it is sure and not small
            beside the noise.
    """

    mean: float
    error: float
    most: float
    size: float


def _brightness_change(pairs: list[tuple[np.ndarray, np.ndarray]]) -> BrightnessChange | None:
    """Measure the change of brightness of pairs; None if there are too few pixels."""
    changes = []
    errors = []
    levels = []
    variances = []
    for first, second in pairs:
        change, error = measures.difference(first, second)
        if np.isfinite(error):
            changes.append(change)
            errors.append(error)
            levels.append(measures.level(first, second))
            variances.append(np.nanvar(first - second))
    if not changes:
        return None
    level = np.maximum(levels, 1e-12)
    mean_level = max(np.mean(levels), 1e-12)
    relative = np.array(changes) / level
    mean = float(relative.mean())
    squared_error = (np.array(errors) ** 2).sum()
    mean_error = np.sqrt(squared_error) / len(errors)
    mean_error = float(mean_error / mean_level)
    uncertainty = SURE_CHANGE * np.array(errors) / level
    sure = np.abs(relative) - uncertainty
    largest = int(np.argmax(sure))
    most = 0.0
    size = 0.0
    if sure[largest] > 0:
        most = float(relative[largest])
        size = float(sure[largest])
    if abs(mean) > SURE_CHANGE * mean_error:
        size = max(abs(mean), size)
    noise = float(np.sqrt(np.mean(variances) / 2))
    harmful = np.abs(changes) > HARMFUL_CHANGE * noise
    if not harmful.any():
        size = 0.0
    return BrightnessChange(mean, mean_error, most, size)


def add_brightness(report: InspectionReport, sample: SceneSample, far: bool = True) -> None:
    """Add a line about the change of brightness between captures.

    It is relative to the brightness above the darkest places.

    Args:
        report: gets the line, if the change is measurable.
        sample: two captures or more of each scene.
        far: compare the first with the last capture, too.
    """
    changes = {}
    ends = ("near", "far") if far else ("near",)
    for end in ends:
        change = _brightness_change(sample.pairs(end))
        if change is not None:
            changes[end] = change
            numbers = {"mean": change.mean, "error": change.error, "most": change.most}
            report.numbers[f"brightness_{end}"] = numbers
    if not changes:
        return
    parts = []
    for end, change in changes.items():
        mean = f"{100 * change.mean:+.1f}"
        error = f"{100 * change.error:.1f}%"
        parts.append(f"{mean} +- {error} {BETWEEN[end]}")
    line = ", ".join(parts)
    if max(change.size for change in changes.values()) <= DRIFTED:
        report.add("brightness", f"{line}: alike")
        return
    most = max((change.most for change in changes.values()), key=abs)
    line += f", {100 * most:+.1f}% at most"
    if report.source == "movie":  # many movies are taken to see what lights up or bleaches
        report.add("brightness", f"{line}: it may be what is measured")
        return
    line += (
        ": the result has the mean of both, so use captures as near in time as there are,"
        " or bring them to one brightness"
    )
    report.add("brightness", line, bad=True)


def aligned(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Move the second capture of each pair onto the first by whole pixels.

    Args:
        pairs: captures (C, H, W), float, NaN where a pixel is unknown.

    Returns:
        The same, NaN where nothing moved in: their differences are noise, without the drift.
    """
    moved = []
    for first, second in pairs:
        rows, columns = likeliest_way(second, first)
        moved.append((first, shifted(second, rows, columns)))
    return moved
