"""What is known of noise: its variance against brightness, and its autocorrelation."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from n2n_lightning.metrics.autocorrelation import LAGS, correlated_noise

CORRELATED = 0.1  # correlation of the noise from which an offset is named


@dataclass(frozen=True)
class NoiseLaw:
    """Noise of variance a + b brightness in each channel, in stored units.

    Attributes:
        a: the variance at brightness 0, (C,).
        b: the slope, (C,).
        standard_error: of the variance at the mean brightness of the images, relative to it.
        brightness: the mean of the images, (C,).
        autocorrelation: of the noise in space, (2 LAGS + 1, 2 LAGS + 1), 1 in the middle; 0
            elsewhere where the noise is white.
        correlation_error: standard error of the autocorrelation, in that shape; 0: exact.
        reason: why the noise is not measurable; empty if it is.
    """

    a: np.ndarray
    b: np.ndarray
    standard_error: float
    brightness: np.ndarray
    autocorrelation: np.ndarray
    correlation_error: np.ndarray | float = field(default=0.0, kw_only=True)
    reason: str = field(default="", kw_only=True)

    @property
    def measurable(self) -> bool:
        """True if the variance is known."""
        return not self.reason

    @property
    def in_space(self) -> dict[tuple[int, int], float]:
        """Correlations of more than 0.1, by offset (rows, columns) in one half plane."""
        offsets = {}
        for row, column in np.argwhere(abs(self.autocorrelation) > CORRELATED) - LAGS:
            if (row, column) > (0, 0):
                correlation = self.autocorrelation[row + LAGS, column + LAGS]
                offsets[int(row), int(column)] = float(correlation)
        return offsets

    def variance(self, brightness: Any) -> Any:
        """Return a + b brightness, without a bound: of noisy values the mean is unbiased.

        Args:
            brightness: one value, values (C,), or an image (C, ...); of volumes the planes may be
                along the channels, (C D, H, W). Of one channel any shape.
        """
        return _per_channel(self.a, brightness) + _per_channel(self.b, brightness) * brightness

    def direction(self, denoised: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        """Draw noise with the covariance of the noise, for Stein's estimate.

        Args:
            denoised: an image, (C, H, W) or (C D, H, W), stored units.
            draws: the generator.

        Returns:
            In that shape, float64. White noise is drawn as signs, whose products vary least.
        """
        deviation = np.sqrt(np.maximum(self.variance(np.float64(denoised)), 0))
        if np.count_nonzero(self.autocorrelation) == 1:
            signs: np.ndarray = draws.choice([-1.0, 1.0], deviation.shape)
            return signs * deviation
        return deviation * correlated_noise(deviation.shape, self.autocorrelation, draws)


def _per_channel(values: np.ndarray, brightness: Any) -> Any:
    """Return values (C,) in a shape that broadcasts with a brightness, see `variance`."""
    shape = np.shape(brightness)
    if len(values) == 1:
        return values[0]
    if not shape:
        return values
    planes = np.repeat(values, shape[0] // len(values))
    return planes.reshape(-1, *[1] * (len(shape) - 1))
