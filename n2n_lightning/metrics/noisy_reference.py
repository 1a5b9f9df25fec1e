"""Scores without clean images: an unbiased estimate of the error from pairs of noisy captures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.metrics.noise_levels import one_way_errors
from n2n_lightning.metrics.psnr import psnr, psnr_of_each

# Resamples of the bootstrap: by 2,000 the ends of a 95% interval are known to 3% of its half.
RESAMPLES = 2000
FEW_RESAMPLES = 200  # of more rows than that, for time and memory: to 10%
MIN_SCENES = 10  # scenes: with fewer, an interval is over blocks of their pixels
MIN_ROWS = 3  # independent rows that an interval needs
BLOCKS = 64  # blocks of pixels in each scene, roughly
# Smallest and largest side of a block: correlated noise stays in one, large images have many.
BLOCK_SIDES = (8, 64)
ENDS = (2.5, 97.5)  # percentiles of a 95% interval


def squared_errors(outputs: Sequence[Tensor], captures: Sequence[Tensor]) -> Tensor:
    """Return an unbiased estimate of the squared error of denoised captures, without a clean image.

    Two captures y1 = x + n1 and y2 = x + n2 of a scene, whose noises have zero mean given x and are
    independent of one another, and a denoiser f that was trained on other data. As f(y1) does not
    depend on n2,

        E |f(y1) - y2|^2 = E |f(y1) - x|^2 + E |n2|^2,    E |y1 - y2|^2 = E |n1|^2 + E |n2|^2

    so that 1/2 [ |f(y1) - y2|^2 + |f(y2) - y1|^2 - |y1 - y2|^2 ] has the mean 1/2 [ |f(y1) - x|^2 +
    |f(y2) - x|^2 ], however strong the two noises are, and whatever they look like within a
    capture. Of K captures it is the mean over all pairs, in which each of the K errors has the same
    weight.

    Args:
        outputs: f of each capture, K of them, (B, C, H, W) or (B, C, D, H, W).
        captures: the captures, of the same shape; NaN where a pixel is unknown.

    Returns:
        In that shape, float64, of single pixels: their mean is the estimate, each by itself may
        well be negative. NaN where fewer than two captures are known.

    >>> y1, y2 = torch.tensor([[[[3.0]]]]), torch.tensor([[[[1.0]]]])
    >>> squared_errors([y1, y2], [y1, y2]).item()  # their mean, 2, differs by 1 from either
    2.0
    >>> squared_errors([(y1 + y2) / 2] * 2, [y1, y2]).item()
    -1.0
    """
    denoised = [image.detach().cpu().double() for image in outputs]
    noisy = [image.detach().cpu().double() for image in captures]
    total = torch.zeros_like(noisy[0])
    count = torch.zeros_like(total)
    for i, j in combinations(range(len(noisy)), 2):
        first = (denoised[i] - noisy[j]).square()
        second = (denoised[j] - noisy[i]).square()
        noise = (noisy[i] - noisy[j]).square()
        error = 0.5 * (first + second - noise)
        total += error.nan_to_num(0)
        count += error.isfinite()
    return total / count  # NaN where the count is 0


@dataclass
class Estimates:
    """Errors without clean images, gathered scene by scene, in units of white squared.

    Attributes:
        scenes: the number of the scene of each row; a scene may have several.
        sums: of each row, sums over blocks of pixels, (n, 3): error, error of the noisy input,
            pixels.
        over: what `rows` are, `scenes` or `blocks`.

    >>> draws = torch.Generator().manual_seed(0)
    >>> y1, y2 = torch.randn(2, 1, 1, 64, 64, generator=draws) * 0.1
    >>> found = Estimates()
    >>> found.add([y1, y2], [y1 / 2, y2 / 2])  # the scene is 0: half of the noise is left
    >>> round(psnr(found.noisy), 1), round(psnr(found.error), 1)
    (20.0, 26.0)
    """

    scenes: list[int] = field(default_factory=list)
    sums: list[np.ndarray] = field(default_factory=list)
    over: str = "scenes"

    def add(
        self,
        captures: Sequence[Tensor],
        outputs: Sequence[Tensor],
        scenes: Sequence[int] | None = None,
        noise: Tensor | None = None,
    ) -> None:
        """Add the images of a batch, one row each.

        Args:
            captures, outputs: see `squared_errors`.
            scenes: the number of the scene that each image of the batch is of; None: each is a new
                scene.
            noise: the variance of the second capture's noise (noise_levels.noise_power), to score
                the first alone.
        """
        if noise is None:
            errors = squared_errors(outputs, captures)
            noisy = squared_errors(captures, captures)
        else:
            errors = one_way_errors(outputs[0], captures[1], noise)
            noisy = one_way_errors(captures[0], captures[1], noise)
        if scenes is None:
            first = max(self.scenes, default=-1) + 1
            scenes = range(first, first + len(errors))
        self.scenes += scenes
        for error, noisy_error in zip(errors, noisy, strict=True):
            known = error.isfinite().double()
            error = error.nan_to_num(0)
            noisy_error = noisy_error.nan_to_num(0)
            planes = torch.stack((error, noisy_error, known))
            self.sums.append(_blocks(planes).numpy())

    @property
    def measured(self) -> bool:
        """True if there are images."""
        return bool(self.sums)

    def rows(self) -> np.ndarray:
        """Return what is independent: scenes, or, where they are few, blocks of their pixels.

        Returns:
            (n, 3): error, error of the noisy input, and weight; each scene weighs 1, whatever its
            size. One row of NaN where nothing is known.
        """
        by_scene: dict[int, list[np.ndarray]] = {}
        for scene, sums in zip(self.scenes, self.sums, strict=True):
            by_scene.setdefault(scene, []).append(sums)
        known = []
        for parts in by_scene.values():
            blocks = np.concatenate(parts)
            pixels = blocks[:, 2].sum()
            if pixels:
                known.append(blocks / pixels)
        enough = len(known) >= MIN_SCENES
        self.over = "scenes" if enough else "blocks"
        if not known:
            return np.full((1, 3), np.nan)
        if enough:
            known = [blocks.sum(0, keepdims=True) for blocks in known]
        rows: np.ndarray = np.concatenate(known)
        weights = rows[:, 2]
        return rows[weights > 0]

    @property
    def error(self) -> float:
        """Mean squared error over the scenes; 0 or less where there are too few pixels to tell."""
        errors, _, weights = self.rows().T
        return float(errors.sum() / weights.sum())

    @property
    def noisy(self) -> float:
        """Mean squared error of the noisy images over the scenes."""
        _, errors, weights = self.rows().T
        return float(errors.sum() / weights.sum())

    def each(self) -> list[tuple[float, float]]:
        """Return the errors of each image that was added.

        Returns:
            For each image its error, and that of the noisy image.
        """
        pairs = []
        for sums in self.sums:
            pixels = max(sums[:, 2].sum(), 1)
            error, noisy, _ = sums.sum(0) / pixels
            pairs.append((float(error), float(noisy)))
        return pairs

    def interval(self) -> tuple[float, float]:
        """Return the 95% interval of the mean error, see `studentized`."""
        errors, _, weights = self.rows().T
        return studentized(errors, weights)


def _blocks(planes: Tensor) -> Tensor:
    """Return sums of (3, C, H, W) over blocks of its pixels and its channels: (blocks, 3)."""
    size = axes.size(planes)
    *_, height, width = size
    smallest, largest = BLOCK_SIDES
    side = round(math.sqrt(height * width / BLOCKS))
    side = max(smallest, min(largest, side))
    pool: Any = F.avg_pool3d if axes.deep(planes) else F.avg_pool2d
    window = [min(side, length) for length in size]
    summed = planes.sum(1, keepdim=True)
    pooled: Tensor = pool(summed, window, ceil_mode=True, divisor_override=1)
    return pooled.flatten(1).T.contiguous()


def studentized(sums: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return a 95% interval of the mean, sum(sums) / sum(weights), by the bootstrap-t over rows.

    Errors are skewed: a few scenes have much more than the others. The percentiles of resampled
    means then lie too low, those of resampled t do not (Efron & Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 12).

    Args:
        sums: (n,), of independent rows.
        weights: (n,).

    Returns:
        Its ends; infinite where there are fewer than 3 rows.
    """
    count = len(sums)
    if count < MIN_ROWS:
        return -math.inf, math.inf
    mean, error = _mean_and_error(sums, weights)
    resamples = RESAMPLES if count <= RESAMPLES else FEW_RESAMPLES
    draws = resampled_rows(count, resamples)
    means, errors = _mean_and_error(sums[draws], weights[draws])
    errors = np.maximum(errors, 1e-12 * error)
    t = (means - mean) / errors
    low, high = np.percentile(t, ENDS)
    lower_end = mean - high * error
    upper_end = mean - low * error
    return float(lower_end), float(upper_end)


def resampled_rows(count: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Draw rows with replacement, the same ones at each call.

    Args:
        count: number of rows.
        resamples: number of draws of as many rows.

    Returns:
        Numbers of rows, (resamples, count).
    """
    random = np.random.default_rng(0)
    return random.integers(0, count, (resamples, count))


def _mean_and_error(sums: np.ndarray, weights: np.ndarray) -> tuple[Any, Any]:
    """Return the weighted mean over the last axis, and its standard error."""
    *_, count = sums.shape
    total = weights.sum(-1)
    mean = sums.sum(-1) / total
    products = (sums * weights).sum(-1)
    squared_weights = (weights * weights).sum(-1)
    # the sum of (sums - mean weights)^2, multiplied out
    deviation = (sums * sums).sum(-1)
    deviation -= 2 * mean * products
    deviation += mean**2 * squared_weights
    deviation = np.maximum(deviation, 1e-300)
    variance = deviation * count / (count - 1)
    error = np.sqrt(variance) / total
    return mean, error


def summarise_estimates(estimates: Estimates, reference: Estimates | None = None) -> dict[str, Any]:
    """Summarise the estimate in decibels, with its 95% interval.

    Args:
        estimates: the errors of a denoiser.
        reference: those of another denoiser of the same images, for the paired difference; None:
            no difference.

    Returns:
        psnr_estimate: None where it is not measurable with so few pixels; its ends are None where
        they are not. With a reference, `difference` in dB and its interval.
    """
    low, high = estimates.interval()
    row: dict[str, Any] = {
        "psnr_estimate": _measurable(estimates.error),
        "psnr_estimate_interval": [_measurable(high), _measurable(low)],
        "mse_estimate": estimates.error,
        "scenes": len(set(estimates.scenes)),
        "over": estimates.over,
    }
    if reference is not None:
        row |= _difference(estimates, reference)
    return row


def _measurable(error: float) -> float | None:
    """Return the PSNR of an estimated error; None where it is not above 0 or not finite."""
    if 0 < error < math.inf:
        return psnr(error)
    return None


def _difference(estimates: Estimates, reference: Estimates) -> dict[str, Any]:
    """Return the paired difference in PSNR with its 95% interval, by the bootstrap over rows."""
    difference = psnr(estimates.error) - psnr(reference.error)
    if not math.isfinite(difference):
        return {"difference": None, "difference_interval": None}
    interval = _difference_interval(estimates.rows()[:, 0], reference.rows()[:, 0], difference)
    return {"difference": difference, "difference_interval": interval}


def _difference_interval(
    errors: np.ndarray, reference_errors: np.ndarray, difference: float
) -> list[float] | None:
    """Return the ends of the interval; None where a resampled error is not above 0.

    Args:
        errors: of a denoiser, (n,).
        reference_errors: those of the other one on the same rows.
        difference: in PSNR between both.
    """
    count = len(errors)
    draws = resampled_rows(count)
    ours = errors[draws].sum(1)
    theirs = reference_errors[draws].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        differences = -psnr_of_each(theirs / ours)
    if not np.isfinite(differences).all():
        return None
    # Resampled means vary too little: their variance is that of n - 1 rows.
    wide = math.sqrt(count / max(1, count - 1))
    ends = []
    for end in np.percentile(differences, ENDS):
        distance = float(end) - difference
        ends.append(difference + wide * distance)
    return ends
