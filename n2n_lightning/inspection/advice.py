"""Which way of training fits, and what makes single images unfit for one."""

import numpy as np

from n2n_lightning.files import InputError
from n2n_lightning.inspection import measures
from n2n_lightning.inspection.reports import COLOURED_SINGLE, SHIFTED, InspectionReport
from n2n_lightning.inspection.sampling import SceneSample


def noise_of_singles(looked: SceneSample) -> tuple[dict[str, tuple[float, float]], float | None]:
    """Correlations and deviation of the noise of single images, the middle of all; empty and None where unknown."""
    each = [measures.single_noise(captures[0]) for captures in looked.known]
    known = [sigma for _, sigma in each if np.isfinite(sigma)]
    found = [correlations for correlations, _ in each if correlations]
    middles = {}
    for name in found[0] if found else ():
        one, two = (float(np.median([f[name][k] for f in found])) for k in (0, 1))
        middles[name] = (one, two)
    return middles, float(np.median(known)) if known else None


def coloured(looked: SceneSample) -> list[str]:
    """A line where the noise of single images is not white, with what fits."""
    found, _ = noise_of_singles(looked)
    lines = [name for name, values in found.items() if max(map(abs, values)) > COLOURED_SINGLE]
    if not lines:
        return []
    fits = FITS[tuple(lines)]
    shown = ", ".join(f"{one:+.2f} {name}" for name, (one, _) in found.items())
    line = f"pixels: neighbouring ones have noise in common ({shown}), which this method takes for picture"
    return [f"{line}: {fits}"]


_ROWS, _COLUMNS = measures.LAGS
FITS = {
    (_ROWS,): "data.method=masked data.mask=[1,9] fits",
    (_COLUMNS,): "data.method=masked data.mask=[9,1] fits",
    (
        _ROWS,
        _COLUMNS,
    ): "every second pixel of each row and column may be white, or pairs of captures",
}


def _ratios(looked: SceneSample) -> tuple[float, float, float] | None:
    """Variance beside brightness in dark and in bright places, and how far these are apart: the middle of all."""
    each = [measures.dispersion(captures[0]) for captures in looked.known]
    known = [ratios for ratios in each if np.isfinite(ratios).all()]
    if not known:
        return None
    dark, bright, apart = (float(np.median(values)) for values in zip(*known, strict=True))
    return dark, bright, apart


def are_counts(looked: SceneSample) -> bool:
    """Whether single images are photon counts: whole numbers whose variance is their brightness, dark and bright."""
    if len(looked.known[0][0]) == 3 or not all(
        measures.are_whole(captures[0]) for captures in looked.known
    ):
        return False
    found = _ratios(looked)
    return found is not None and found[2] > 1.3 and all(0.75 < ratio < 1.35 for ratio in found[:2])


def no_counts(looked: SceneSample) -> list[str]:
    """A line where the variance of single images is not quite their brightness.

    Raises:
        InputError: it is far from it: halves of such values are no pair.
    """
    found = _ratios(looked)
    if found is None or all(0.65 < ratio < 1.5 for ratio in found[:2]):
        return []
    shown = f"{found[0]:.2f} and {found[1]:.2f} times the brightness in dark and bright places"
    line = f"its variance is {shown}, that of photon counts is 1: data.method=neighbours would fit"
    if not all(0.4 < ratio < 2.5 for ratio in found[:2]):
        raise InputError("data.method", "thinned", f"these are no photon counts; the noise: {line}")
    return [f"noise: {line}"]


def advise(report: InspectionReport, several: bool, most: int) -> None:
    """The arguments of `train` that fit, or why none do."""
    bad = {finding.name for finding in report.findings if finding.bad}
    numbers = report.numbers
    source, arguments, why = report.source, [], ""
    turns = numbers.get("turns", 1)
    if turns > 1:  # of the channels that take turns one is a movie
        source, arguments = "movie", [f"data.frames=0::{turns}"]
    elif source == "movie":
        if {"duplicates", "noise"} & bad:
            why = "frames that are copies are no pairs"
    elif not several:
        source = "single"
        coloured = tuple(
            n for n, v in report.correlations.items() if max(map(abs, v)) > COLOURED_SINGLE
        )
        if numbers.get("counts"):
            arguments = ["data.method=thinned"]
        elif len(coloured) == 1:
            arguments = FITS[coloured].removesuffix(" fits").split()
        elif coloured:
            why = "neighbouring pixels have noise in common, in all directions: two captures of each scene are needed"
    elif {"duplicates", "noise"} & bad:
        why = "copies are no pairs: take a second capture, or name the one that is meant"
    elif "shift" in bad:
        near = numbers.get("shift_near")
        if most > 2 and near is not None and near[2] <= SHIFTED:
            arguments = ["data.within=1"]
        else:
            why = "the captures do not lie on one another: register them first"
    elif "brightness" in bad and most > 2:
        arguments = ["data.within=1"]
    if source == "pairs" and most == 2 and numbers.get("noisier") == [1]:
        arguments.append("data.swap=false")
    report.source, report.why, report.advice = source, why, None if why else arguments
    numbers |= {"source": source, "advice": report.advice}
