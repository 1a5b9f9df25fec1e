"""Findings about noise: its strength, its correlation, and the PSNR of the noisy images."""

from itertools import chain
from typing import Any

import numpy as np

from n2n_lightning.data.scene_sample import SceneSample
from n2n_lightning.inspection import measures
from n2n_lightning.inspection.advice import are_counts
from n2n_lightning.inspection.inspection_report import COLOURED, InspectionReport
from n2n_lightning.inspection.levels import of_the_noisier
from n2n_lightning.inspection.single_images import SingleImageNoise, single_image_noise
from n2n_lightning.metrics.noise_model import NoiseModel, noise_model
from n2n_lightning.metrics.psnr import psnr

CapturePairs = list[tuple[np.ndarray, np.ndarray]]
UNIFORM = ", the same in dark and bright places"
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
        return UNIFORM
    return _line_in_words(model.a, model.b)


def _line_in_words(a: float, b: float) -> str:
    """Return a line a + b brightness with b > 0 in words."""
    offset = f"read noise {np.sqrt(a):.4g}" if a > 0 else f"0 at {-a / b:.4g}, near black"
    return f"; variance = {a:.4g} + {b:.4g} brightness: gain {b:.4g}, {offset}"


def add_single_noise(report: InspectionReport, sample: SceneSample) -> SingleImageNoise:
    """Add a line with the noise of single images, each measured by itself.

    Args:
        report: gets the line, the correlations, and whether the values are photon counts.
        sample: one capture of each scene.

    Returns:
        The noise.
    """
    noise = single_image_noise(sample)
    report.correlations = noise.correlations
    report.correlated = noise.directions
    report.counts = are_counts(sample)
    sigma = noise.sigma
    numbers = {"sigma": sigma, "sigma_interval": None, "a": None, "b": None}
    report.numbers |= numbers | {"counts": report.counts}
    if sigma is None or noise.line is None:
        report.add("noise", f"not measurable in one picture: {noise.reason}")
        return noise
    low, high = noise.interval
    a, b = noise.line
    report.numbers |= {"sigma_interval": [low, high], "a": a, "b": b}
    line = f"sigma {sigma:.4g} ({low:.4g} to {high:.4g}), as one picture shows it"
    report.add("noise", line + (COUNTS if report.counts else _growth_of_line(a, b)))
    return noise


def _growth_of_line(a: float, b: float) -> str:
    """Return the growth of the variance of single images in words; b is 0 unless it is certain."""
    if not b:
        return UNIFORM
    if b < 0:
        return f"; variance = {a:.4g} - {-b:.4g} brightness: less in bright places"
    return _line_in_words(a, b)


def add_pair_correlation(report: InspectionReport, noises: list[np.ndarray]) -> None:
    """Add a line with the correlation of the noise of neighbouring pixels.

    Args:
        report: gets the line and the correlations.
        noises: (C, H, W) each, from pairs of captures.
    """
    report.correlations = measures.correlations(noises)
    strong = []
    for name, values in report.correlations.items():
        if max(map(abs, values)) > COLOURED:
            strong.append(name)
    _add_correlation(report, not strong, strong)


def add_single_correlation(report: InspectionReport, noise: SingleImageNoise) -> None:
    """Add a line with the correlations that `add_single_noise` measured."""
    _add_correlation(report, noise.white, list(noise.directions))


def _add_correlation(report: InspectionReport, white: bool | None, strong: list[str]) -> None:
    """Add a line with the correlations.

    Args:
        report: has the correlations.
        white: True if none matters; None where that cannot be told.
        strong: directions of those that do.
    """
    report.numbers |= {"correlations": {}, "white": white}
    if white is None:
        report.add("pixels", "correlation of the noise of neighbouring ones: not measurable")
        return
    shown = []
    for name, (at_one, at_two) in report.correlations.items():
        report.numbers["correlations"][name] = [at_one, at_two]
        shown.append(f"{at_one:+.2f} and {at_two:+.2f} {name}")
    line = f"correlation at a distance of 1 and 2: {', '.join(shown)}"
    if white:
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
