"""The noise of a stack: of the frames of a movie, or of the planes of a volume."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from n2n_lightning.arrays.axes import evenly
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.mask_choice import correlation_across_planes
from n2n_lightning.data.scene_set import MixedSizeScenes
from n2n_lightning.metrics.movie_noise import movie_noise
from n2n_lightning.metrics.single_noise import SingleNoise, single_noise

MEASURED_PLANES = 6  # of a volume


@dataclass(frozen=True)
class StackNoise(SingleNoise):
    """Noise of one law in all frames of a stack.

    Attributes:
        across: its correlation with the next plane, the one after it, and so on; empty: planes are
            independent, as the frames of a movie are.
    """

    across: tuple[float, ...] = field(default=(), kw_only=True)

    def direction(self, denoised: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        """Draw noise with the covariance of the noise, see NoiseLaw.direction.

        Args:
            denoised: the stack, (F, H, W), stored units.
            draws: the generator.
        """
        if not self.across:
            return super().direction(denoised, draws)
        planes, height, width = denoised.shape
        reach = len(self.across)
        level = np.ones((planes + 2 * reach, height, width))
        unit = StackNoise(
            np.ones(1),
            np.zeros(1),
            0.0,
            np.ones(1),
            self.autocorrelation,
            self.white,
            self.kind,
        )
        independent = unit.direction(level, draws)
        correlated = _correlated_across(independent, self.across)
        variance = self.variance(np.float64(denoised))
        deviation = np.sqrt(np.maximum(variance, 0))
        return deviation * correlated[reach : reach + planes]


def _correlated_across(independent: np.ndarray, across: Sequence[float]) -> np.ndarray:
    """Correlate the planes of noise of variance 1 with those after them, (F, H, W)."""
    planes = len(independent)
    correlation = np.zeros(planes)
    correlation[0] = 1
    for distance, value in enumerate(across, 1):
        correlation[distance] = value
        correlation[-distance] = value
    spectrum = np.maximum(np.fft.rfft(correlation).real, 0)
    gain = np.sqrt(spectrum)[:, None, None]
    transformed = gain * np.fft.rfft(independent, axis=0)
    correlated: np.ndarray = np.fft.irfft(transformed, planes, axis=0)
    return correlated


def noise_of_movie(frames: np.ndarray) -> StackNoise:
    """Measure the noise of a movie, which is independent from frame to frame where measurable.

    Args:
        frames: (T, H, W), stored units, NaN where a pixel is unknown.
    """
    noise = movie_noise(list(frames[:, None]))
    white = np.count_nonzero(noise.autocorrelation) == 1
    return StackNoise(
        noise.a,
        noise.b,
        noise.standard_error,
        noise.brightness,
        noise.autocorrelation,
        white,
        "white" if white else "from pixel to pixel",
        correlation_error=noise.correlation_error,
        reason=noise.reason,
    )


def noise_of_volume(planes: np.ndarray, stats: IntensityStats) -> StackNoise:
    """Measure the noise of a volume: in some of its planes, and across them.

    Args:
        planes: (D, H, W), stored units, NaN where a pixel is unknown.
        stats: what the values mean.
    """
    inner = evenly(len(planes), MEASURED_PLANES + 2)[1:-1]
    noises = [single_noise(planes[[z]]) for z in inner]
    known = [noise for noise in noises if noise.measurable and noise.white is not None]
    if not known:
        reasons = [noise.reason for noise in noises if noise.reason]
        return _unknown(noises[0], [*reasons, "its correlation in the planes is not measurable"][0])
    whites = [noise for noise in known if noise.white]
    agreeing = whites
    if 2 * len(whites) < len(known):
        agreeing = [noise for noise in known if not noise.white]
    scenes = MixedSizeScenes([[torch.from_numpy(planes)[None]]], ["volume"])
    across = correlation_across_planes(scenes, stats)
    if across is None:
        return _unknown(noises[0], "the correlation of the noise across planes is not measurable")
    first = agreeing[0]
    return StackNoise(
        np.median([noise.a for noise in agreeing], 0),
        np.median([noise.b for noise in agreeing], 0),
        float(np.median([noise.standard_error for noise in agreeing])),
        np.mean([noise.brightness for noise in agreeing], 0),
        np.median([noise.autocorrelation for noise in agreeing], 0),
        first.white,
        first.kind,
        correlation_error=np.median([noise.correlation_error for noise in agreeing], 0),
        across=tuple(across),
    )


def _unknown(noise: SingleNoise, reason: str) -> StackNoise:
    """Return a noise that is not measurable, for a reason."""
    return StackNoise(
        noise.a,
        noise.b,
        noise.standard_error,
        noise.brightness,
        noise.autocorrelation,
        None,
        "",
        reason=reason,
    )
