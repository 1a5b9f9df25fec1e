"""Errors of candidates without clean images, and which differences between them are real.

Of two captures y1, y2 of a scene the error is estimated from the pair (noisy_reference). Of one
picture y = x + n with noise of a known covariance S it is Stein's estimate,

    E |f(y) - x|^2 = E |f(y) - y|^2 - tr S + 2 tr(S J)

with the trace of S times the derivative J of f from one perturbation b that is drawn with the
noise's autocorrelation (stein.py). Outputs and covariances of a weighted mean of denoisers are the
weighted means of theirs, so that a mix costs no further run.

The estimates hold for denoisers that do not depend on the noise of the pixels they are scored on.
A network that was trained on them fits their noise and looks better than it is. So networks train
on one part of each picture (`split`), and all candidates are compared on the other one.

Movies and volumes are compared as pictures are, with frames or planes in place of channels. The
error says little about what is rare: of movies a denoiser that averages over time has a low one,
and no flash of a single frame left. So flashes are planted, and what is kept of them is measured.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from n2n_lightning.arrays.blocks import cut_blocks
from n2n_lightning.metrics.noise_law import NoiseLaw
from n2n_lightning.metrics.noisy_reference import squared_errors, studentized
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.metrics.stein import QUANTILE, STEP
from n2n_lightning.selection.budget import busy_seconds

DenoiseImage = Callable[[np.ndarray], np.ndarray]
# Pixels: sides of the blocks that are compared. The smaller one where a half has fewer blocks than
# an interval needs; noise reaches 10 pixels (autocorrelation.LAGS).
COMPARED_SIDES = (32, 16)
ENOUGH_BLOCKS = 24  # in a half
# Of the error of a measured variance, what all pictures of one kind of noise share; the rest
# averages out over them (benchmarks/best.py noise: 0.15 of 0.25 for correlated noise).
SHARED_PART = 0.6
# A planted flash: a disc of this radius in pixels, that many deviations of the noise bright, in one
# of so many frames and one of each square of so many pixels. The bundled checkpoint for movies
# keeps 87% of it, and as much frame by frame (benchmarks/best.py flash).
FLASH_RADIUS, FLASH_STRENGTH, FLASH_EVERY, FLASH_SQUARE = 3.0, 2.0, 6, 16


@dataclass(frozen=True)
class ScoredPart:
    """A part of a scene that no candidate was trained on.

    Attributes:
        captures: (K, C, H, W), float64, stored units, NaN where a pixel does not count; frames or
            planes in place of C.
        noise: of one capture; None where there are several.
    """

    captures: np.ndarray
    noise: NoiseLaw | None = None


@dataclass(frozen=True)
class Evaluation:
    """A candidate on the scored parts.

    Attributes:
        outputs: of each part, (K, C, H, W).
        covariances: of each part with one capture, b [f(y + e b) - f(y)] / e of each pixel.
        kept: the share of planted flashes that is left; NaN: none were planted.
        rate: seconds of processor time for a pixel.
    """

    outputs: list[np.ndarray]
    covariances: list[np.ndarray]
    kept: float = math.nan
    rate: float = 0.0


def blended(evaluations: Sequence[Evaluation], weights: Sequence[float]) -> Evaluation:
    """Return the evaluation of a weighted mean of candidates.

    Args:
        evaluations: of the candidates.
        weights: of each, with the sum 1.
    """
    first = evaluations[0]
    outputs = [np.zeros_like(output) for output in first.outputs]
    covariances = [np.zeros_like(covariance) for covariance in first.covariances]
    kept = 0.0
    for one, weight in zip(evaluations, weights, strict=True):
        _add_scaled(outputs, one.outputs, weight)
        _add_scaled(covariances, one.covariances, weight)
        kept += weight * one.kept
    rate = sum(one.rate for one in evaluations)
    return Evaluation(outputs, covariances, kept, rate)


def _add_scaled(totals: list[np.ndarray], arrays: list[np.ndarray], weight: float) -> None:
    """Add weighted arrays to totals, which are changed."""
    for total, array in zip(totals, arrays, strict=True):
        total += weight * array


@dataclass(frozen=True)
class Difference:
    """How much lower the error of one candidate is than that of another, on the same pixels.

    Attributes:
        mean: the first error minus the second.
        low, high: its 95% interval.
    """

    mean: float
    low: float
    high: float

    @property
    def lower(self) -> bool:
        """True if the first error is certainly the lower one."""
        return self.high < 0

    @property
    def undecided(self) -> bool:
        """True if the candidates cannot be told apart."""
        return self.low <= 0 <= self.high


class Comparison:
    """Errors of candidates on the scored parts, in blocks; each second block reports the winner.

    Args:
        parts: of one number of channels.
        white: the distance from black to white, for PSNR.
        axes: letters of the axes of a capture: CHW; THW of movies, which get flashes; DHW.

    >>> draws = np.random.default_rng(0)
    >>> scene = draws.normal(50, 10, (1, 1, 128, 128))
    >>> captures = scene + draws.normal(0, 5, (2, 1, 128, 128))
    >>> comparison = Comparison([ScoredPart(captures)], white=255)
    >>> good = comparison.evaluate(lambda y: scene[0] + 1)  # wrong by 1
    >>> poor = comparison.evaluate(lambda y: scene[0] + 4)
    >>> comparison.difference(good, poor).lower
    True
    >>> round(comparison.error(good))
    1
    """

    def __init__(self, parts: Sequence[ScoredPart], white: float, axes: str = "CHW") -> None:
        self.parts = list(parts)
        self.white = white
        self.axes = axes
        self.side = COMPARED_SIDES[0]
        blocks = sum(_count_blocks(part, self.side) for part in self.parts)
        if blocks < 2 * ENOUGH_BLOCKS:
            self.side = COMPARED_SIDES[1]
        self.variance_error = _pooled_error(self.parts)
        self.directions = self._draw_directions()
        self.flashes = [_flashes(part) for part in self.parts] if "T" in axes else []

    def _draw_directions(self) -> list[np.ndarray]:
        """Draw the perturbation of each part with one capture, the same for all candidates."""
        directions = []
        for number, part in enumerate(self.parts):
            if part.noise is None:
                continue
            draws = np.random.default_rng(number)
            picture = part.captures[0]
            filled = np.nan_to_num(picture, nan=float(np.nanmean(picture)))
            smooth = _smoothed(filled)
            directions.append(part.noise.direction(smooth, draws))
        return directions

    @property
    def pixels(self) -> int:
        """Pixels of all captures of the scored parts, and of all frames or planes."""
        total = 0
        for part in self.parts:
            captures, frames, height, width = part.captures.shape
            if "C" in self.axes:
                frames = 1  # its channels are denoised together
            total += captures * frames * height * width
        return total

    @property
    def runs(self) -> int:
        """Runs over the scored pixels that the evaluation of a candidate takes."""
        return 1 + bool(self.directions) + bool(self.flashes)

    @property
    def fewest_blocks(self) -> int:
        """Blocks with known pixels that decide, or that report: the smaller number."""
        if not self.parts:
            return 0
        source = self.of_input()
        deciding = len(self._rows(source, True).counts)
        reporting = len(self._rows(source, False).counts)
        return min(deciding, reporting)

    def evaluate(self, denoise: DenoiseImage) -> Evaluation:
        """Run a candidate.

        Args:
            denoise: takes and returns an image (C, H, W), stored units, NaN where a pixel is
                missing.
        """
        outputs = []
        covariances = []
        directions = iter(self.directions)
        began = busy_seconds()
        for part in self.parts:
            results = [_result_of(denoise, capture) for capture in part.captures]
            outputs.append(np.stack(results))
            if part.noise is not None:
                direction = next(directions)
                moved = _result_of(denoise, part.captures[0] + STEP * direction)
                covariance = direction * (moved - results[0]) / STEP
                covariances.append(covariance[None])
        kept = self._kept(denoise, outputs)
        rate = (busy_seconds() - began) / (self.runs * max(1, self.pixels))
        return Evaluation(outputs, covariances, kept, rate)

    def _kept(self, denoise: DenoiseImage, outputs: Sequence[np.ndarray]) -> float:
        """Return the share of the planted flashes that a candidate keeps; NaN without any."""
        left = 0.0
        planted = 0.0
        for part, flashes, output in zip(self.parts, self.flashes, outputs, strict=False):
            flashing = _result_of(denoise, part.captures[0] + flashes)
            change = np.nan_to_num(flashing - output[0])
            left += float((change * flashes).sum())
            planted += float((flashes**2).sum())
        return left / planted if planted else math.nan

    def of_input(self) -> Evaluation:
        """Return the evaluation of the noisy pictures themselves."""
        outputs = [part.captures for part in self.parts]
        covariances = []
        for part in self.parts:
            if part.noise is not None:
                covariances.append(part.noise.variance(part.captures[0])[None])
        return Evaluation(outputs, covariances, 1.0 if self.flashes else math.nan)

    def error(self, evaluation: Evaluation, deciding: bool = True) -> float:
        """Return the estimated mean squared error; 0 or less where it is not measurable.

        Args:
            evaluation: of the candidate.
            deciding: on the blocks that decide, otherwise on those that report.
        """
        rows = self._rows(evaluation, deciding)
        return rows.mean

    def interval(self, evaluation: Evaluation) -> tuple[float, float]:
        """Return the 95% interval of the error on the blocks that report."""
        rows = self._rows(evaluation, deciding=False)
        return rows.interval(self.variance_error)

    def difference(
        self, first: Evaluation, second: Evaluation, deciding: bool = True
    ) -> Difference:
        """Compare two candidates pixel by pixel.

        The interval has the spread over blocks, and what an error of the noise's variance would
        change: the noise itself cancels out, its covariance with the outputs does not.

        Args:
            first, second: their evaluations.
            deciding: on the blocks that decide, otherwise on those that report.
        """
        one = self._rows(first, deciding)
        other = self._rows(second, deciding)
        rows = _Rows(one.errors - other.errors, one.weights - other.weights, one.counts)
        low, high = rows.interval(self.variance_error)
        return Difference(rows.mean, low, high)

    def psnr(self, error: float) -> float | None:
        """Return the PSNR of an error in dB; None where it is not above 0 or not finite."""
        if not 0 < error < math.inf:
            return None
        return psnr(error / self.white**2)

    def best_share(self, evaluation: Evaluation) -> float:
        """Return the share of a candidate in its mix with the input that has the least error.

        The error of s f(y) + (1 - s) y is a parabola in s.

        Args:
            evaluation: of the candidate.

        Returns:
            0 to 1, in steps of 0.05.
        """
        source = self.of_input()
        half = blended([evaluation, source], [0.5, 0.5])
        at_half = self.error(half)
        at_zero = self.error(source)
        at_one = self.error(evaluation)
        slope = at_zero - at_one
        curvature = at_zero + at_one - 2 * at_half
        if curvature <= 0:
            return 1.0
        share = 0.5 + slope / (4 * curvature)
        stepped = round(20 * share) / 20
        return min(1.0, max(0.0, stepped))

    def _rows(self, evaluation: Evaluation, deciding: bool) -> "_Rows":
        """Return the sums over the blocks that decide, or over those that report."""
        tables = []
        covariances = iter(evaluation.covariances)
        for part, output in zip(self.parts, evaluation.outputs, strict=True):
            if part.noise is None:
                errors = _errors_of_pairs(part, output)
                weights = np.zeros_like(errors)
            else:
                variance = part.noise.variance(part.captures[0])
                covariance = next(covariances)[0]
                weights = 2 * covariance - variance
                errors = (output[0] - part.captures[0]) ** 2 + weights
            known = np.isfinite(errors)
            columns = []
            for plane in (errors, weights, known):
                sums = _sums_over_blocks(np.where(known, plane, 0), self.side)
                columns.append(sums)
            table = np.stack(columns, 1)
            counted = _is_odd(part, self.side) == deciding
            tables.append(table[counted])
        joined = np.concatenate(tables)
        joined = joined[joined[:, 2] > 0]
        return _Rows(*joined.T)


@dataclass(frozen=True)
class _Rows:
    """Sums over blocks, (blocks,) each.

    Attributes:
        errors: the estimate.
        weights: its change for a relative error of the noise's variance of 1.
        counts: pixels.
    """

    errors: np.ndarray
    weights: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> float:
        """The mean error of a pixel."""
        return float(self.errors.sum() / self.counts.sum())

    def interval(self, variance_error: float) -> tuple[float, float]:
        """Return the 95% interval of the mean.

        Args:
            variance_error: standard error of the logarithm of the noise's variance.
        """
        low, high = studentized(self.errors, self.counts)
        mean = self.mean
        lowered, raised = self._changes(variance_error)
        below = math.hypot(mean - low, lowered)
        above = math.hypot(high - mean, raised)
        return mean - below, mean + above

    def _changes(self, variance_error: float) -> tuple[float, float]:
        """Return how far an error of the noise's variance may lower and raise the mean."""
        change = float(self.weights.sum() / self.counts.sum())
        factor = math.exp(QUANTILE * variance_error)
        stronger = change * (factor - 1)
        weaker = change * (1 / factor - 1)
        return min(stronger, weaker), max(stronger, weaker)


def _pooled_error(parts: Sequence[ScoredPart]) -> float:
    """Return the standard error of the variance of the noise of all parts together."""
    errors = [part.noise.standard_error for part in parts if part.noise]
    if not errors:
        return 0.0
    own = 1 - SHARED_PART**2
    share = SHARED_PART**2 + own / len(errors)
    return float(np.mean(errors)) * math.sqrt(share)


def _errors_of_pairs(part: ScoredPart, output: np.ndarray) -> np.ndarray:
    """Return the estimate of each pixel (C, H, W) from captures and their outputs (K, C, H, W)."""
    captures = torch.from_numpy(part.captures)[:, None]
    outputs = torch.from_numpy(output)[:, None]
    errors = squared_errors(list(outputs), list(captures))
    estimate: np.ndarray = errors[0].numpy()
    return estimate


def _result_of(denoise: DenoiseImage, capture: np.ndarray) -> np.ndarray:
    """Return the result for a capture (C, H, W) as float64."""
    shown = np.ascontiguousarray(capture, np.float32)
    result: np.ndarray = np.asarray(denoise(shown), np.float64)
    return result


def _flashes(part: ScoredPart) -> np.ndarray:
    """Return flashes for a movie, (T, H, W), 0 elsewhere: discs that last one frame each."""
    from scipy.ndimage import gaussian_filter

    _, frames, height, width = part.captures.shape
    deviation = _deviation(part)
    offsets = np.arange(FLASH_SQUARE) - FLASH_SQUARE / 2
    distance = np.hypot(offsets[:, None], offsets)
    disc = np.float64(distance <= FLASH_RADIUS)
    flash = FLASH_STRENGTH * deviation * gaussian_filter(disc, 0.7)  # seen through a lens
    flashes = np.zeros((frames, height, width))
    for row in range(height // FLASH_SQUARE):
        for column in range(width // FLASH_SQUARE):
            rows = slice(row * FLASH_SQUARE, (row + 1) * FLASH_SQUARE)
            columns = slice(column * FLASH_SQUARE, (column + 1) * FLASH_SQUARE)
            first = (2 * row + 3 * column) % FLASH_EVERY
            flashes[first::FLASH_EVERY, rows, columns] = flash
    return flashes


def _deviation(part: ScoredPart) -> float:
    """Return the standard deviation of the noise of one capture."""
    if part.noise is None:
        difference = part.captures[0] - part.captures[1]
        return float(np.nanstd(difference)) / math.sqrt(2)
    variance = float(np.nanmean(part.noise.variance(part.captures[0])))
    return math.sqrt(max(variance, 0.0))


def _smoothed(picture: np.ndarray) -> np.ndarray:
    """Return the brightness of a noisy picture (C, H, W), for the strength of its noise."""
    from scipy.ndimage import gaussian_filter

    smooth: np.ndarray = gaussian_filter(picture, (0, 2, 2))
    return smooth


def _grid(part: ScoredPart, side: int) -> tuple[int, int]:
    """Return the whole blocks of a part, down and across."""
    *_, height, width = part.captures.shape
    return height // side, width // side


def _count_blocks(part: ScoredPart, side: int) -> int:
    down, across = _grid(part, side)
    return down * across


def _is_odd(part: ScoredPart, side: int) -> np.ndarray:
    """Return True for each second block of a checkerboard, (blocks,)."""
    grid = _grid(part, side)
    row, column = np.indices(grid)
    number = (row + column).ravel()
    odd: np.ndarray = number % 2 == 1
    return odd


def _sums_over_blocks(plane: np.ndarray, side: int) -> np.ndarray:
    """Return the sums of an image (C, H, W) over its whole blocks, (blocks,)."""
    blocks = cut_blocks(plane, side)
    sums: np.ndarray = blocks.sum((0, 2, 4))
    return sums.ravel()
