"""Regions of a movie over time, denoised against noisy: which means hold, and which events.

The difference of a region's means has about the noise of the noisy mean: less where the result
follows the frame's noise, FRAME_NOISE of it where it is a mean of other frames. Over time, the
noise of other frames cancels. The mean over time says whether the brightness holds. For single
frames the median over time is subtracted: an event that was flattened stands out of the noise.
"""

import numpy as np
from scipy.stats import norm

from n2n_lightning.metrics.autocorrelation import lagged_products
from n2n_lightning.metrics.certificate import (
    ALLOWED_DIFFERENCE,
    ENDS_OF_RANGE,
    LEAST_BRIGHTNESS,
    Certificate,
)
from n2n_lightning.metrics.movie_traces import Traces
from n2n_lightning.metrics.noise_law import NoiseLaw
from n2n_lightning.metrics.stein import QUANTILE

GROUP = "regions over time"
LEAST_FRAMES = 5  # for the median of the differences over time
# Standard deviation of the difference over that of the noisy mean, of a network that averages four
# other frames and does not see this one: the root of 1 + 1/4.
FRAME_NOISE = 1.118
CHANCE = 0.05  # that noise alone makes any frame of a candidate stand out


class RegionNoise:
    """Standard deviations of the noisy means of regions, frame by frame.

    Args:
        labels: (H, W), see `Traces`.
        noise: of the movie, in the unit of the frames.
    """

    def __init__(self, labels: np.ndarray, noise: NoiseLaw) -> None:
        self.labels = labels
        self.noise = noise
        self.deviations: dict[tuple[int, int], float] = {}
        self.factors: dict[int, float] = {}
        for region in np.unique(labels[labels > 0]):
            self.factors[int(region)] = self._factor(labels == region)

    def _factor(self, inside: np.ndarray) -> float:
        """Return the variance of the mean of a region over that of white noise."""
        _, pairs = lagged_products(np.zeros(inside.shape), inside)
        covariances = self.noise.autocorrelation * pairs
        return float(covariances.sum() / inside.sum())

    def add(self, frame: int, noisy: np.ndarray, unit: float) -> None:
        """Add a frame.

        Args:
            frame: its number.
            noisy: (C, H, W), planes of volumes one after the other; NaN where a pixel is unknown.
            unit: of the result, in units of the frames.
        """
        of_channels = self.noise.variance(np.float64(noisy))
        variance = of_channels.mean(0) / len(noisy)
        known = np.isfinite(variance)
        for region, factor in self.factors.items():
            inside = known & (self.labels == region)
            pixels = np.count_nonzero(inside)
            if not pixels:
                continue
            of_pixel = max(float(variance[inside].mean()), 0.0)
            of_mean = max(of_pixel * factor / pixels, 0.0)
            self.deviations[frame, region] = unit * float(np.sqrt(of_mean))


def ends_of(frame: np.ndarray) -> tuple[float, float]:
    """Return the dark and the bright end of a denoised frame, without pixels that are unknown."""
    known = frame[np.isfinite(frame)]
    if not known.size:
        return np.nan, np.nan
    dark, bright = np.percentile(known, ENDS_OF_RANGE)
    return float(dark), float(bright)


def certify_regions(
    traces: Traces,
    name: str,
    deviations: dict[tuple[int, int], float],
    ends: tuple[float, float],
    tolerance: float = ALLOWED_DIFFERENCE,
    reason: str = "",
) -> Certificate:
    """Compare the means of regions of a denoised movie with those of the noisy one.

    Args:
        traces: the means.
        name: of the denoised ones.
        deviations: by frame and region, of the noisy means.
        ends: dark and bright end of the denoised movie; differences are relative to the brightness
            above the dark one, and to a tenth of the range at least.
        tolerance: relative difference that is allowed.
        reason: why the noise is not measurable; empty if it is.

    Returns:
        For each region the mean over time, and the frame that differs most.
    """
    certificate = Certificate(tolerance)
    dark, bright = ends
    least = max(LEAST_BRIGHTNESS * (bright - dark), 1e-30)
    for region in traces.regions:
        quantity = f"mean of region {region} over time"
        if reason:
            certificate.leave_out(GROUP, quantity, reason)
            continue
        frames = []
        for frame, labelled in traces.means:
            if labelled == region and (frame, region) in deviations:
                frames.append(frame)
        if not frames:
            certificate.leave_out(GROUP, quantity, "the region has no known pixel")
            continue
        noisy = np.array([traces.means[frame, region]["noisy"] for frame in frames])
        denoised = np.array([traces.means[frame, region][name] for frame in frames])
        noise = np.array([deviations[frame, region] for frame in frames])
        brightness = max(float(noisy.mean()) - dark, least)
        differences = denoised - noisy
        value = float(differences.mean()) / brightness
        error = QUANTILE * float(np.sqrt((noise**2).sum())) / len(frames) / brightness
        remark = f"{len(frames)} frames, mean {noisy.mean():.4g}"
        certificate.add(GROUP, quantity, value, (value - error, value + error), remark)
        if len(frames) >= LEAST_FRAMES:
            tests = len(frames) * len(traces.regions)
            _add_worst_frame(certificate, region, frames, differences, noise, brightness, tests)
    return certificate


def _add_worst_frame(
    certificate: Certificate,
    region: int,
    frames: list[int],
    differences: np.ndarray,
    noise: np.ndarray,
    brightness: float,
    tests: int,
) -> None:
    """Add the frame whose difference from the median stands out most, of so many tests."""
    changes = differences - np.median(differences)
    noise = FRAME_NOISE * noise
    ratios = changes / np.maximum(noise, 1e-30)
    worst = int(np.argmax(abs(ratios)))
    quantile = float(norm.isf(CHANCE / (2 * tests)))
    value = float(changes[worst]) / brightness
    error = quantile * float(noise[worst]) / brightness
    probability = min(2 * float(norm.sf(abs(ratios[worst]))) * tests, 1.0)
    remark = (
        f"{abs(ratios[worst]):.1f} standard deviations of the noise of its mean; by noise in one of"
        f" {tests} means with probability {probability:.2g}"
    )
    quantity = f"region {region} in frame {frames[worst]}, which differs most"
    certificate.add(GROUP, quantity, value, (value - error, value + error), remark)
