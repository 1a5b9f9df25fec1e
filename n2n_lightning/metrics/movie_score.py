"""The error of denoised movie frames without clean ones, by Stein's identity."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.metrics.stein import STEP, SteinEstimate


@dataclass(frozen=True)
class ScoredFrame:
    """A frame of a movie, as a network sees it.

    Attributes:
        number: of the frame in its file.
        shown: the frames that the network sees, without gaps, (F, C, H, W) or (F, C, D, H, W).
        distances: of these from the one that is denoised, in frames, (F,); 0: it is this one.
        target: the noisy frame, (C, ...), NaN where a pixel does not count.
    """

    number: int
    shown: Tensor
    distances: Tensor
    target: Tensor


def decibels(error: float) -> float | None:
    """Return the PSNR of an estimated error; None where it is not above 0 or not finite."""
    return psnr(error) if 0 < error < math.inf else None


class MovieScore:
    """Mean squared error over frames of movies, estimated frame by frame.

    The network may see the frame that it denoises: what of its noise comes through is measured with
    a small perturbation of that frame (SteinEstimate). Of a network that does not see it nothing
    comes through, and the estimate is the mean of (output - noisy)^2 less the noise's variance.

    Args:
        unit: one unit of the frames, in units of the result.
    """

    def __init__(self, unit: float = 1.0) -> None:
        self.unit = unit
        self.stein = SteinEstimate()
        self.frames = 0
        self._variances: list[float] = []
        self._standard_errors: list[float] = []

    def add(
        self,
        denoise: Callable[[Tensor], Tensor],
        frame: ScoredFrame,
        noise: Any,
    ) -> Tensor:
        """Denoise a frame, and add it.

        Args:
            denoise: takes the frames that the network sees, and returns the denoised one.
            frame: the frame, and what the network sees.
            noise: the movie_noise.MovieNoise of the movie, in the unit of the frames.

        Returns:
            The denoised frame.
        """
        output = denoise(frame.shown)
        draws = np.random.default_rng(self.frames)
        before = _planes(output)
        target = _planes(frame.target)
        direction = noise.direction(before, draws)
        perturbed = None
        own = frame.distances == 0
        if own.any():
            moved = frame.shown.clone()
            moved[own] += STEP * torch.from_numpy(direction).to(output).view(output.shape)
            perturbed = _planes(denoise(moved))
        variance = noise.variance(target)
        if perturbed is None:
            self.stein.update(before, target, variance)
        else:
            self.stein.update(before, target, variance, direction, perturbed, STEP)
        self.frames += 1
        if np.isfinite(variance).any():
            self._variances.append(float(np.nanmean(variance)))
            self._standard_errors.append(noise.standard_error)
        return output

    @property
    def measured(self) -> bool:
        """True if there is an estimate."""
        return bool(self._variances)

    @property
    def noisy(self) -> float:
        """Mean squared error of the noisy frames."""
        return float(np.mean(self._variances)) * self.unit**2

    @property
    def error(self) -> float:
        """Mean squared error of the denoised frames; 0 or less where it cannot be measured."""
        return float(self.stein.mse) * self.unit**2

    def summary(self) -> dict[str, Any]:
        """Summarise the estimate in decibels, with its 95% interval.

        Returns:
            psnr_estimate, its interval, None where it cannot be measured with so few pixels, and
            mse_estimate.
        """
        low, high = self.interval()
        return {
            "psnr_estimate": decibels(self.error),
            "psnr_estimate_interval": [decibels(high), decibels(low)],
            "mse_estimate": self.error,
            "images": self.frames,
        }

    def interval(self) -> tuple[float, float]:
        """Return the 95% interval of `error`, with the uncertainty of the noise's variance."""
        low, high = self.stein.interval(self.variance_error)
        return low * self.unit**2, high * self.unit**2

    @property
    def variance_error(self) -> float:
        """Standard error of the noise's variance, relative to it."""
        return float(np.mean(self._standard_errors))


def _planes(image: Tensor) -> np.ndarray:
    """Return an image (C, H, W), or the planes of a volume one after the other, float64."""
    return image.detach().cpu().double().flatten(0, -3).numpy()
