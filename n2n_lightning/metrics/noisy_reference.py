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
    shown = [image.detach().cpu().double() for image in outputs]
    stored = [image.detach().cpu().double() for image in captures]
    total = torch.zeros_like(stored[0])
    count = torch.zeros_like(total)
    for i, j in combinations(range(len(stored)), 2):
        one = shown[i] - stored[j]
        other = shown[j] - stored[i]
        between = stored[i] - stored[j]
        part = 0.5 * (one.square() + other.square() - between.square())
        total += part.nan_to_num(0)
        count += part.isfinite()
    return torch.where(count > 0, total / count, torch.nan)


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
        for error, other in zip(errors, noisy, strict=True):
            known = error.isfinite().double()
            planes = torch.stack((error.nan_to_num(0), other.nan_to_num(0), known))
            self.sums.append(_blocks(planes).numpy())

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
        return rows[rows[:, 2] > 0]

    @property
    def error(self) -> float:
        """Mean squared error over the scenes; 0 or less where there are too few pixels to tell."""
        rows = self.rows()
        return float(rows[:, 0].sum() / rows[:, 2].sum())

    @property
    def noisy(self) -> float:
        """Mean squared error of the noisy images over the scenes."""
        rows = self.rows()
        return float(rows[:, 1].sum() / rows[:, 2].sum())

    def each(self) -> list[tuple[float, float]]:
        """Return the errors of each image that was added.

        Returns:
            For each image its error, and that of the noisy image.
        """
        pairs = []
        for sums in self.sums:
            error, noisy, _ = sums.sum(0) / max(sums[:, 2].sum(), 1)
            pairs.append((float(error), float(noisy)))
        return pairs

    def interval(self) -> tuple[float, float]:
        """Return the 95% interval of the mean error, see `studentized`."""
        rows = self.rows()
        return studentized(rows[:, 0], rows[:, 2])


def _blocks(planes: Tensor) -> Tensor:
    """Return sums of (3, C, H, W) over blocks of its pixels and its channels: (blocks, 3)."""
    size = axes.size(planes)
    smallest, largest = BLOCK_SIDES
    side = round(math.sqrt(math.prod(size[-2:]) / BLOCKS))
    side = max(smallest, min(largest, side))
    pool: Any = F.avg_pool3d if len(size) == 3 else F.avg_pool2d
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
    draws = np.random.default_rng(0).integers(0, count, (resamples, count))
    means, errors = _mean_and_error(sums[draws], weights[draws])
    low, high = np.percentile((means - mean) / np.maximum(errors, 1e-12 * error), ENDS)
    return float(mean - high * error), float(mean - low * error)


def _mean_and_error(sums: np.ndarray, weights: np.ndarray) -> tuple[Any, Any]:
    """Return the weighted mean over the last axis, and its standard error."""
    *_, count = sums.shape
    total = weights.sum(-1)
    mean = sums.sum(-1) / total
    squares = (sums * sums).sum(-1)
    products = (sums * weights).sum(-1)
    deviation = squares - 2 * mean * products + mean**2 * (weights * weights).sum(-1)
    variance = np.maximum(deviation, 1e-300) * count / (count - 1)
    return mean, np.sqrt(variance) / total


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
    return psnr(error) if 0 < error < math.inf else None


def _difference(estimates: Estimates, reference: Estimates) -> dict[str, Any]:
    """Return the paired difference in PSNR with its 95% interval, by the bootstrap over rows."""
    ours, theirs = estimates.rows()[:, 0], reference.rows()[:, 0]
    count = len(ours)
    draws = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    with np.errstate(invalid="ignore", divide="ignore"):
        each = -psnr_of_each(theirs[draws].sum(1) / ours[draws].sum(1))
    difference = psnr(estimates.error) - psnr(reference.error)
    if not math.isfinite(difference):
        return {"difference": None, "difference_interval": None}
    if not np.isfinite(each).all():
        return {"difference": difference, "difference_interval": None}
    # Resampled means vary too little: their variance is that of n - 1 rows.
    wide = math.sqrt(count / max(1, count - 1))
    ends = [difference + wide * (float(end) - difference) for end in np.percentile(each, ENDS)]
    return {"difference": difference, "difference_interval": ends}
