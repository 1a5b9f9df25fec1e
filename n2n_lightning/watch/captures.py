"""Captures of one scene in sequence: what their mean gains, and what more of them would."""

from dataclasses import dataclass, field

import numpy as np

from n2n_lightning.arrays.registration import DriftTracker
from n2n_lightning.metrics.psnr import psnr

BLOCK = 32  # pixels of a side: noise of neighbouring blocks is taken to be independent
FEWEST_POINTS = 4  # of a fit with two parameters: with fewer its errors mean nothing
DRAWS = 2000  # of the fit's parameters, for an interval
SURE = 3  # standard errors
MOST_SHIFT = 0.5  # pixels: a capture that is further away would blur the mean


@dataclass(frozen=True)
class MeanPoint:
    """Errors of the mean of so many captures.

    Attributes:
        captures: their number.
        mean_error: mean squared error of their mean, stored values squared.
        denoised_error: of their denoised mean; NaN where it was not denoised.
        error_deviation: standard error of the latter.
    """

    captures: int
    mean_error: float
    denoised_error: float = float("nan")
    error_deviation: float = float("nan")


@dataclass(frozen=True)
class Gain:
    """What more captures would give the denoised mean, in dB, with a 95% interval."""

    decibels: float
    low: float
    high: float


@dataclass
class CaptureMean:
    """The mean of captures of one scene, and how good it is, without a clean image.

    The noise of captures is independent, so that the difference between the denoised mean of n
    captures and the next one, squared, is the error of the former and the variance of the latter.

    Attributes:
        count: captures in the mean.
        mean: of them, (C, H, W), NaN where a pixel is missing in one.
        points: for each number of captures.
    """

    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    points: list[MeanPoint] = field(default_factory=list)
    _squares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    _tracker: DriftTracker = field(default_factory=DriftTracker)
    _denoised: dict[int, np.ndarray] = field(default_factory=dict)

    def shift_of(self, capture: np.ndarray) -> tuple[float, float]:
        """Return rows and columns by which the scene has moved since the first capture.

        Args:
            capture: (C, H, W), NaN where a pixel is missing.
        """
        rows, columns = self._tracker.add(capture).tolist()
        return rows, columns

    def add(self, capture: np.ndarray) -> None:
        """Add a capture that lies on the others.

        Args:
            capture: (C, H, W), float64, NaN where a pixel is missing.
        """
        if not self.count:
            self.mean = np.zeros_like(capture)
            self._squares = np.zeros_like(capture)
        before = self.mean
        difference = capture - before
        self.count += 1
        self.mean = before + difference / self.count
        self._squares = self._squares + difference * (capture - self.mean)
        if self.count > 1:
            self._score(capture)

    def note_denoised(self, denoised: np.ndarray) -> None:
        """Note the denoised mean of all captures so far; the next capture scores it.

        Args:
            denoised: (C, H, W).
        """
        self._denoised = {self.count: denoised}

    def _score(self, capture: np.ndarray) -> None:
        """Score the mean before a capture that was added to it."""
        variance = self._squares / (self.count - 1)
        earlier = self.count - 1
        mean_error = float(np.nanmean(variance)) / earlier
        denoised = self._denoised.pop(earlier, None)
        if denoised is None:
            self.points.append(MeanPoint(earlier, mean_error))
            return
        errors = (denoised - capture) ** 2 - variance
        error, deviation = mean_of_blocks(errors)
        self.points.append(MeanPoint(earlier, mean_error, error, deviation))

    def is_harmed(self) -> bool:
        """Return True if the denoised mean is certainly worse than the mean, by its last score."""
        scored = [point for point in self.points if point.denoised_error > 0]
        if not scored:
            return False
        last = scored[-1]
        return last.denoised_error - SURE * last.error_deviation > last.mean_error

    def gain_of(self, more: int) -> Gain | None:
        """Return what more captures would give; None where the points do not tell.

        Args:
            more: captures.
        """
        return gain(self.points, self.count, more)


def mean_of_blocks(errors: np.ndarray) -> tuple[float, float]:
    """Return the mean of errors and its standard error, from blocks of BLOCK x BLOCK pixels.

    Args:
        errors: (C, H, W), NaN where they are not known.
    """
    _, height, width = errors.shape
    rows = max(1, height // BLOCK)
    columns = max(1, width // BLOCK)
    means = []
    for part in np.array_split(errors, rows, axis=1):
        means += [float(np.nanmean(block)) for block in np.array_split(part, columns, axis=2)]
    if len(means) < 2:
        return means[0], float("inf")
    return float(np.mean(means)), float(np.std(means, ddof=1) / len(means) ** 0.5)


def gain(points: list[MeanPoint], count: int, more: int, seed: int = 0) -> Gain | None:
    """Predict what more captures would give the denoised mean.

    The error of the denoised mean of n captures is fitted by a + b / n: what the network takes
    away however many there are, and what is left of their noise.

    Args:
        points: errors of means, of at least FEWEST_POINTS different numbers of captures.
        count: captures so far.
        more: captures that would come.
        seed: of the draws for the interval.

    Returns:
        The gain with its interval; None where too few points have an error, or the fit has no
        positive error.
    """
    usable = [point for point in points if 0 < point.error_deviation < float("inf")]
    if len(usable) < FEWEST_POINTS:
        return None
    numbers = np.array([point.captures for point in usable], float)
    errors = np.array([point.denoised_error for point in usable])
    deviations = np.array([point.error_deviation for point in usable])
    design = np.stack([np.ones_like(numbers), 1 / numbers], 1) / deviations[:, None]
    covariance = np.linalg.inv(design.T @ design)
    fitted = covariance @ design.T @ (errors / deviations)
    misfit = float(((design @ fitted - errors / deviations) ** 2).sum() / (len(usable) - 2))
    draws = np.random.default_rng(seed).multivariate_normal(
        fitted, covariance * max(1.0, misfit), DRAWS
    )
    gains = _gains(np.vstack([fitted, draws]), count, count + more)
    if not np.isfinite(gains[0]):
        return None
    low, high = np.nanpercentile(gains[1:], [2.5, 97.5])
    return Gain(float(gains[0]), float(low), float(high))


def _gains(parameters: np.ndarray, now: int, then: int) -> np.ndarray:
    """Return the gains in dB for (a, b), (n, 2); NaN where an error would not be positive."""
    constant, noise = parameters.T
    error_now = constant + noise / now
    error_then = constant + noise / then
    positive = (error_now > 0) & (error_then > 0)
    ratio = np.divide(error_now, error_then, out=np.full_like(noise, np.nan), where=positive)
    return 10 * np.log10(ratio)


def row_of(point: MeanPoint, white: float) -> dict[str, float | None]:
    """Return a point as a row of the table.

    Args:
        point: errors of a mean.
        white: the stored value that is white for PSNR.
    """
    denoised = None
    if point.denoised_error > 0:
        denoised = round(psnr(point.denoised_error / white**2), 3)
    return {
        "captures": point.captures,
        "mean, PSNR estimate (dB)": round(psnr(point.mean_error / white**2), 3),
        "denoised mean, PSNR estimate (dB)": denoised,
    }
