"""Score of denoised frames without clean ones, from the noise's variance: Stein's estimate.

For a frame y = x + n with noise of variance v, and a denoiser f that sees it,

    E |f(y) - x|^2 = E |f(y) - y|^2 - v + 2 cov(f(y), n)

(Stein, Ann. Statist. 1981). The covariance is b . [f(y + e b) - f(y)] / e for noise b that is drawn
with the covariance of n (Ramani, Blu and Unser, IEEE Trans. Image Process. 2008); the frames around
are not perturbed. A denoiser that does not see the frame has no covariance, and its estimate is
unbiased for noise of any distribution.
"""

import math
from typing import Any

import numpy as np

from n2n_lightning.arrays.blocks import cut_blocks
from n2n_lightning.metrics.psnr import psnr

STEP = 0.1  # of the perturbation, in deviations of the noise
SIDE = 32  # pixels: side of the blocks whose spread gives the interval
QUANTILE = 1.96  # of the normal distribution, for 95%
LEAST_BLOCKS = 8  # that an interval needs


class SteinEstimate:
    """Mean squared error of denoised frames, gathered frame by frame.

    All values are in one unit, that of the frames.

    >>> draws = np.random.default_rng(0)
    >>> estimate = SteinEstimate()
    >>> for _ in range(20):
    ...     noisy = draws.normal(50, 3, (1, 64, 64))
    ...     estimate.update(np.full_like(noisy, 51), noisy, 9.0)
    >>> round(estimate.mse, 1)  # of a constant that is wrong by 1
    1.0
    >>> [round(end, 1) for end in estimate.interval(variance_error=0.01)]
    [0.8, 1.2]
    """

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []

    def update(
        self,
        output: Any,
        noisy: Any,
        variance: Any,
        direction: Any = None,
        perturbed_output: Any = None,
        step: float = STEP,
    ) -> None:
        """Add a frame.

        Args:
            output: f(y), (C, H, W) or (C, D, H, W), an array or tensor.
            noisy: y, in that shape; NaN where a pixel does not count.
            variance: of the noise, of each pixel or of all; unbiased: of y where it is linear in
                the brightness.
            direction: b, noise of the covariance of n; None where f does not see y.
            perturbed_output: f of the frame y + step * b.
            step: e.
        """
        output = _as_array(output)
        residual = (output - _as_array(noisy)) ** 2
        covariance = np.zeros_like(output)
        if direction is not None:
            moved = _as_array(perturbed_output) - output
            covariance = _as_array(direction) * moved / step
        power = np.broadcast_to(_as_array(variance), output.shape)
        known = np.isfinite(residual + covariance + power)
        planes = [np.where(known, plane, 0) for plane in (residual, power, covariance)]
        planes.append(known.astype(np.float64))
        self.frames.append(np.stack([_block_sums(plane) for plane in planes], 1))

    @property
    def mse(self) -> float:
        """Mean squared error over all frames; NaN without frames, below 0 where too uncertain."""
        return _mean_error(self._totals())

    def of_frames(self) -> list[float]:
        """Return the mean squared error of each frame, in the order in which they were added."""
        return [_mean_error(frame.sum(0)) for frame in self.frames]

    def interval(self, variance_error: float = 0.0) -> tuple[float, float]:
        """Return the 95% interval of the mean squared error.

        The truth is the error of these frames. The spread of the estimate around it is that of
        blocks of one place in frames that follow one another, whose true errors are alike.

        Args:
            variance_error: standard error of the noise's variance, relative to it.

        Returns:
            Its ends, infinite where there are too few blocks.
        """
        residual, power, covariance, count = self._totals()
        blocks = sum(len(frame) for frame in self.frames)
        if blocks < LEAST_BLOCKS or not count:
            return -math.inf, math.inf
        from_variance = variance_error * abs(power - 2 * covariance) / count
        error = math.hypot(self._spread() / count, from_variance)
        mse = _mean_error(np.array([residual, power, covariance, count]))
        return mse - QUANTILE * error, mse + QUANTILE * error

    def psnr(self, white: float) -> float | None:
        """Return the PSNR of the mean squared error, in dB.

        Args:
            white: the distance from black to white.

        Returns:
            None where the error is not above 0.
        """
        return _decibels(self.mse, white)

    def psnr_interval(
        self, white: float, variance_error: float = 0.0
    ) -> tuple[float | None, float | None]:
        """Return the 95% interval of the PSNR, in dB.

        Args:
            white: see `psnr`.
            variance_error: see `interval`.

        Returns:
            Its ends; None where one is not measurable.
        """
        low, high = self.interval(variance_error)
        return _decibels(high, white), _decibels(low, white)

    def _totals(self) -> np.ndarray:
        """Return the sums of |f - y|^2, the variance, the covariance, and the number of values."""
        if not self.frames:
            return np.zeros(4)
        total: np.ndarray = np.sum([frame.sum(0) for frame in self.frames], 0)
        return total

    def _spread(self) -> float:
        """Return the standard error of the sum of the errors of all blocks."""
        errors = [_errors(frame) for frame in self.frames]
        if len(errors) < 2 or len({len(row) for row in errors}) > 1:
            joined = np.concatenate(errors)
            return float(joined.std(ddof=1)) * math.sqrt(len(joined))
        table = np.array(errors)
        differences = np.diff(table, axis=0)
        variance = float((differences**2).mean()) / 2
        return math.sqrt(variance * table.size)


def _as_array(values: Any) -> np.ndarray:
    """Return numbers, an array, or a tensor of any device as float64."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values, np.float64)


def _errors(sums: np.ndarray) -> np.ndarray:
    """Return the sum of the estimated squared errors of each block, (blocks, 4) -> (blocks,)."""
    residual, power, covariance, _ = sums.T
    errors: np.ndarray = residual - power + 2 * covariance
    return errors


def _mean_error(totals: np.ndarray) -> float:
    """Return the mean squared error of sums (4,)."""
    residual, power, covariance, count = totals
    return float((residual - power + 2 * covariance) / count) if count else math.nan


def _block_sums(plane: np.ndarray) -> np.ndarray:
    """Return the sums of a frame (..., H, W) over blocks, smaller ones at the ends, (blocks,)."""
    *_, height, width = plane.shape
    planes = plane.reshape(-1, height, width)
    padding = ((0, 0), (0, -height % SIDE), (0, -width % SIDE))
    sums: np.ndarray = cut_blocks(np.pad(planes, padding), SIDE).sum((0, 2, 4))
    return sums.ravel()


def _decibels(error: float, white: float) -> float | None:
    """Return the PSNR of a mean squared error; None where it is not above 0 or not finite."""
    if not 0 < error < math.inf:
        return None
    return psnr(error / white**2)
