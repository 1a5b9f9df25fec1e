"""Which way of training fits, and what makes single images unfit for one."""

import numpy as np

from n2n_lightning.inspection import measures
from n2n_lightning.inspection.parts import Looked
from n2n_lightning.inspection.reports import COLOURED_SINGLE, SHIFTED, Report


def coloured(looked: Looked) -> list[str]:
    """A line where the noise of single images is not white, with what fits."""
    noises = [flat for captures in looked.known if len(flat := measures.single_noise(captures[0])[0])]
    found = measures.correlations(noises) if noises else {}
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
    (_ROWS, _COLUMNS): "every second pixel of each row and column may be white, or pairs of captures",
}


def no_counts(looked: Looked) -> list[str]:
    """A line where the variance of single images is not their brightness."""
    ratios = [ratio for captures in looked.known if np.isfinite(ratio := measures.dispersion(captures[0]))]
    if not ratios or 0.7 < (middle := float(np.median(ratios))) < 1.4:
        return []
    return [
        f"noise: its variance is {middle:.2f} times the brightness, that of photon counts is 1: neighbours would fit"
    ]


def advise(report: Report, several: bool, most: int) -> None:
    """The arguments of `train` that fit, or why none do."""
    bad = {finding.name for finding in report.findings if finding.bad}
    numbers = report.numbers
    source, arguments, why = report.source, [], ""
    if source == "movie":
        if {"duplicates", "noise"} & bad:
            why = "frames that are copies are no pairs"
    elif not several:
        source = "single"
        coloured = tuple(n for n, v in report.correlations.items() if max(map(abs, v)) > COLOURED_SINGLE)
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
    report.source, report.why, report.advice = source, why, None if why else arguments
    numbers |= {"source": source, "advice": report.advice}
