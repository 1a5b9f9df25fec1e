"""Training that fits the data, and obstacles to training on single images."""

from dataclasses import astuple

import numpy as np

from n2n_lightning.data.mask import Mask
from n2n_lightning.data.mask_choice import INSTEAD, WHERE_SMOOTH, MaskChoice, mask_of_images
from n2n_lightning.data.scene_sample import SceneSample
from n2n_lightning.files import InputError
from n2n_lightning.inspection import measures
from n2n_lightning.inspection.inspection_report import Advice, InspectionReport
from n2n_lightning.inspection.measures import Dispersion
from n2n_lightning.inspection.shifts import SHIFTED
from n2n_lightning.inspection.single_images import single_image_noise


def correlation_warnings(sample: SceneSample) -> list[str]:
    """Return a warning if the noise of single images is not white, with the methods that fit.

    Returns:
        One line or none.
    """
    noise = single_image_noise(sample)
    if not noise.directions:
        return []
    shown = [f"{at_one:+.2f} {name}" for name, (at_one, _) in noise.correlations.items()]
    line = (
        f"pixels: neighbouring ones have noise in common ({', '.join(shown)}),"
        " which this method takes for picture"
    )
    choice = mask_of_images(noise.noises)
    if choice.too_large:
        return [f"{line}: what helps: {INSTEAD}"]
    fits = "fits" if choice.mask.along_line else WHERE_SMOOTH
    return [f"{line}: {' '.join(_masked(choice.mask))} {fits}"]


def _masked(mask: Mask) -> tuple[str, str]:
    """Return the arguments of `train` that hide a mask."""
    return "data.method=masked", f"data.mask={mask.text}"


def _median_dispersion(sample: SceneSample) -> Dispersion | None:
    """Return the medians of `measures.dispersion` over single images, or None."""
    finite = []
    for captures in sample.scenes:
        ratios = measures.dispersion(captures[0])
        if ratios is not None and np.isfinite(astuple(ratios)).all():
            finite.append(astuple(ratios))
    if not finite:
        return None
    dark, bright, contrast = np.median(finite, 0).tolist()
    return Dispersion(dark, bright, contrast)


def are_counts(sample: SceneSample) -> bool:
    """Return True if single images are photon counts.

    Their values are whole numbers, and their variance is their brightness in dark and bright
    places. Colour images are none.

    Returns:
        True if the ratio of variance to brightness is 1 to about 30%, and bright places are 1.3
        times as bright as dark ones.
    """
    images = [captures[0] for captures in sample.scenes]
    is_colour = len(images[0]) == 3
    if is_colour or not all(map(measures.are_whole, images)):
        return False
    ratios = _median_dispersion(sample)
    if ratios is None or ratios.contrast <= 1.3:
        return False
    return ratios.within(0.75, 1.35)


def count_warnings(sample: SceneSample) -> list[str]:
    """Return a warning if the variance of single images is not quite their brightness.

    Returns:
        One line or none.

    Raises:
        InputError: the variance is far from the brightness; `data.method=thinned` would not make
            pairs of such values.
    """
    ratios = _median_dispersion(sample)
    if ratios is None:
        return []
    if ratios.within(0.65, 1.5):
        return []
    shown = f"{ratios.dark:.2f} and {ratios.bright:.2f} times the brightness"
    line = (
        f"its variance is {shown} in dark and bright places, that of photon counts is 1:"
        " data.method=neighbours would fit"
    )
    if not ratios.within(0.4, 2.5):
        raise InputError("data.method", "thinned", f"these are no photon counts; the noise: {line}")
    return [f"noise: {line}"]


def advise(report: InspectionReport, several: bool, most: int) -> Advice:
    """Return the arguments of `train` that fit, or the reason why none do.

    Args:
        report: the finished findings.
        several: True if each scene has two captures or more.
        most: the largest number of captures of a scene.

    Returns:
        The choice of `data=`, and further arguments or the obstacle.
    """
    if report.turns > 1:  # each of the alternating channels is a movie
        return Advice("movie", (f"data.frames=0::{report.turns}",))
    names = {finding.name for finding in report.obstacles}
    copied = bool({"duplicates", "noise"} & names)
    if report.source == "movie":
        obstacle = "frames that are copies are no pairs" if copied else ""
        return Advice("movie", ("data.align=true",) if report.align else (), obstacle)
    if not several:
        return _advise_single(report)
    if copied:
        obstacle = "copies are no pairs: take a second capture, or name the one that is meant"
        return Advice(report.source, obstacle=obstacle)
    return _advise_pairs(report, names, most)


def _advise_single(report: InspectionReport) -> Advice:
    """Return the method for single images that fits their noise."""
    if report.counts:
        return Advice("single", ("data.method=thinned",))
    choice = report.mask
    if choice is None or choice.mask.single:
        return Advice("single")
    if choice.too_large or not choice.mask.along_line:
        return Advice("single", obstacle=_why_no_mask(choice))
    return Advice("single", _masked(choice.mask))


def _why_no_mask(choice: MaskChoice) -> str:
    """Return why hiding a mask is not recommended, and what is."""
    shown = (
        f"the noise of {choice.mask.pixels - 1} pixels around each is correlated with it, in all"
        " directions"
    )
    if choice.too_large:
        return f"{shown}, and masks do not help against that; what helps: {INSTEAD}"
    return f"{shown}; what helps: {INSTEAD}; {' '.join(_masked(choice.mask))} {WHERE_SMOOTH}"


def _advise_pairs(report: InspectionReport, obstacles: set[str], most: int) -> Advice:
    """Return the captures that make pairs, and the direction of training."""
    arguments = []
    if "shift" in obstacles:
        near = report.shifts.get("near")
        neighbours_fit = near is not None and near.most <= SHIFTED
        if report.align:
            arguments.append("data.align=true")
        elif most < 3 or not neighbours_fit:
            obstacle = "the captures do not lie on one another: register them first"
            return Advice(report.source, obstacle=obstacle)
        else:
            arguments.append("data.within=1")
    elif "brightness" in obstacles and most > 2:
        arguments.append("data.within=1")
    levels = report.levels
    first_is_noisier = levels is not None and levels.noisier == (0,)
    if report.source == "pairs" and most == 2 and first_is_noisier:
        arguments.append("data.swap=false")
    return Advice(report.source, tuple(arguments))
