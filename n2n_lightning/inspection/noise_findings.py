"""Findings about noise: its strength, its correlation, and the PSNR of the noisy images."""

from itertools import chain
from typing import Any

import numpy as np

from n2n_lightning.inspection import measures
from n2n_lightning.inspection.advice import are_counts, single_image_noise
from n2n_lightning.inspection.inspection_report import COLOURED, COLOURED_SINGLE, InspectionReport
from n2n_lightning.inspection.levels import of_the_noisier
from n2n_lightning.inspection.sampling import SceneSample
from n2n_lightning.metrics.noise_model import NoiseModel, noise_model
from n2n_lightning.metrics.psnr import psnr

CapturePairs = list[tuple[np.ndarray, np.ndarray]]
COUNTS = "; the variance is the brightness: photon counts"


def add_pair_noise(report: InspectionReport, pairs: CapturePairs) -> None:
    """Add a line with the noise of the noisier captures, against brightness.

    Args:
        report: gets the line and the noise model; its `levels` say which captures are noisier.
        pairs: captures (C, H, W).
    """
    model, report.noise_factor = of_the_noisier(noise_model(pairs), report.levels)
    report.model = model
    if model is None:
        report.add("noise", "not measurable: too few whole blocks of 8 x 8 pixels")
        return
    sigma = float(np.sqrt(model.variance))
    numbers: dict[str, Any] = {"sigma": sigma, "a": model.a, "b": model.b, "counts": False}
    if not sigma:
        report.add("noise", "none: the captures do not differ", bad=True, **numbers)
        return
    line = f"sigma {sigma:.4g}"
    if report.noise_factor > 1:
        line += " of the noisier captures"
    if model.b is None:
        line += "; the brightness differs too little for more"
        report.add("noise", line, **numbers)
        return
    captures = list(chain.from_iterable(pairs))
    report.counts = measures.is_counts(model, captures)
    numbers["counts"] = report.counts
    line += COUNTS if report.counts else _growth(model)
    report.add("noise", line, **numbers)


def _growth(model: NoiseModel) -> str:
    """Return the growth of the variance with brightness, in words."""
    assert model.b is not None
    brightness = model.points[:, 0]
    growth = model.b * np.ptp(brightness)
    if model.b <= 0 or growth < 0.1 * model.variance:
        return ", the same in dark and bright places"
    if model.a > 0:
        read_noise = np.sqrt(model.a)
        offset = f"read noise {read_noise:.4g}"
    else:
        zero = -model.a / model.b
        offset = f"0 at {zero:.4g}, near black"
    line = f"variance = {model.a:.4g} + {model.b:.4g} brightness"
    return f"; {line}: gain {model.b:.4g}, {offset}"


def add_single_noise(report: InspectionReport, sample: SceneSample) -> None:
    """Add a line with the noise of single images.

    Args:
        report: gets the line, the correlations, and whether the values are photon counts.
        sample: one capture of each scene.
    """
    report.correlations, sigma = single_image_noise(sample)
    report.counts = are_counts(sample)
    report.numbers |= {"sigma": sigma, "a": None, "b": None, "counts": report.counts}
    if sigma is None:
        report.add("noise", "not measurable: the images are too small")
        return
    if not sigma:
        report.add("noise", "none: the images are flat", bad=True)
        return
    line = (
        f"about sigma {sigma:.4g}, where single images are flattest: texture counts as noise there"
    )
    report.add("noise", line + (COUNTS if report.counts else ""))


def add_pair_correlation(report: InspectionReport, noises: list[np.ndarray]) -> None:
    """Add a line with the correlation of the noise of neighbouring pixels.

    Args:
        report: gets the line and the correlations.
        noises: (C, H, W) each, from pairs of captures.
    """
    report.correlations = measures.correlations(noises)
    _add_correlation(report, COLOURED)


def add_single_correlation(report: InspectionReport) -> None:
    """Add a line with the correlations that `add_single_noise` measured."""
    _add_correlation(report, COLOURED_SINGLE)


def _add_correlation(report: InspectionReport, limit: float) -> None:
    """Add a line with the correlations; above `limit` the noise is not white."""
    correlations = report.correlations
    if not correlations:
        report.numbers |= {"correlations": {}, "white": None}
        report.add("pixels", "correlation of the noise of neighbouring ones: not measurable")
        return
    shown = []
    strong = []
    numbers = {}
    for name, (at_one, at_two) in correlations.items():
        numbers[name] = [at_one, at_two]
        shown.append(f"{at_one:+.2f} and {at_two:+.2f} {name}")
        if max(abs(at_one), abs(at_two)) > limit:
            strong.append(name)
    report.numbers["correlations"] = numbers
    report.numbers["white"] = not strong
    line = f"correlation at a distance of 1 and 2: {', '.join(shown)}"
    if not strong:
        report.add("pixels", f"{line}: white, any method fits")
        return
    direction = strong[0] if len(strong) == 1 else "in all directions"
    follows = "pairs of captures do not mind, methods for single images do"
    report.add("pixels", f"{line}: not white {direction}; {follows}")


def add_channel_correlation(report: InspectionReport, noises: list[np.ndarray]) -> None:
    """Add a line with the largest correlation of the noise of two channels, if there are two.

    Args:
        report: gets the line.
        noises: (C, H, W) each.
    """
    value = measures.between_channels(noises)
    report.numbers["between_channels"] = value
    if len(noises[0]) < 2:
        return
    kind = "their own" if abs(value) <= COLOURED else "partly shared"
    report.add("channels", f"correlation of their noise {value:+.2f}: {kind}")


def add_input_psnr(report: InspectionReport, pairs: CapturePairs, white: float) -> None:
    """Add a line with the PSNR of the noisier captures.

    Args:
        report: gets the line; its `noise_factor` is used.
        pairs: captures (C, H, W).
        white: the stored value of white.
    """
    squared = []
    for first, second in pairs:
        difference = first - second
        squared.append(np.nanmean(difference**2))
    mean_square = float(np.mean(squared))
    error = report.noise_factor * mean_square / 2 / white**2
    if error > 0:
        value = psnr(error)
        line = (
            f"about {value:.2f} dB, white being {white:g} (data.scale);"
            " what a denoiser adds is on top of it"
        )
    else:
        value = None
        line = "not measurable"
    report.add("input", line, input_psnr_estimate=value, scale=white)
