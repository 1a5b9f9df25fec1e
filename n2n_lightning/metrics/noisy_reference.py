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

RESAMPLES = 2000  # of the bootstrap
MIN_SCENES = 10  # scenes: with fewer, an interval is over blocks of their pixels
BLOCKS = 64  # of pixels, in each scene, about


def squared_errors(outputs: Sequence[Tensor], captures: Sequence[Tensor]) -> Tensor:
    """An unbiased estimate of the squared error of denoised captures, without the clean image.

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

    >>> y1, y2 = torch.tensor([[[[3.0]]]]), torch.tensor([[[[1.0]]]])  # both say 2, which is one noise away from either
    >>> squared_errors([y1, y2], [y1, y2]).item(), squared_errors([(y1 + y2) / 2] * 2, [y1, y2]).item()
    (2.0, -1.0)
    """
    shown, stored = ([x.detach().cpu().double() for x in images] for images in (outputs, captures))
    total = torch.zeros_like(stored[0])
    count = torch.zeros_like(total)
    for i, j in combinations(range(len(stored)), 2):
        one, other, between = shown[i] - stored[j], shown[j] - stored[i], stored[i] - stored[j]
        part = 0.5 * (one.square() + other.square() - between.square())
        total += part.nan_to_num(0)
        count += part.isfinite()
    return torch.where(count > 0, total / count, torch.nan)


@dataclass
class Estimates:
    """Errors without clean images, gathered scene by scene; all in units of white squared.

    >>> draws = torch.Generator().manual_seed(0)
    >>> y1, y2 = torch.randn(2, 1, 1, 64, 64, generator=draws) * 0.1
    >>> found = Estimates()
    >>> found.add([y1, y2], [y1 / 2, y2 / 2])  # the scene is 0 everywhere: half of the noise is left
    >>> round(psnr(found.noisy), 1), round(psnr(found.error), 1)
    (20.0, 26.0)
    """

    scenes: list[int] = field(default_factory=list)  # of each row; a scene may have several
    # of blocks, (n, 3): error, that of the noisy input, pixels
    sums: list[np.ndarray] = field(default_factory=list)
    over: str = "scenes"  # what rows() are

    def add(
        self,
        captures: Sequence[Tensor],
        outputs: Sequence[Tensor],
        scenes: Sequence[int] | None = None,
        noise: Tensor | None = None,
    ) -> None:
        """Adds images of a batch, one row each.

        Args:
            captures, outputs: see `squared_errors`.
            scenes: the number of the scene that each image of the batch is of; None: each is a new
                scene.
            noise: the variance of the second capture's noise (noise_levels.noise_power), to score
                the first alone.
        """
        if noise is None:
            errors, noisy = squared_errors(outputs, captures), squared_errors(captures, captures)
        else:
            errors, noisy = (
                one_way_errors(first[0], captures[1], noise) for first in (outputs, captures)
            )
        first = max(self.scenes, default=-1) + 1
        self.scenes += list(range(first, first + len(errors))) if scenes is None else list(scenes)
        for error, other in zip(errors, noisy, strict=True):
            planes = torch.stack(
                (error.nan_to_num(0), other.nan_to_num(0), error.isfinite().double())
            )
            self.sums.append(_blocks(planes).numpy())

    def rows(self) -> np.ndarray:
        """What is independent, (n, 3): of scenes, or, where they are few, of blocks of their pixels.

        The columns are error, that of the noisy input, and weight; each scene weighs 1, whatever
        its size.
        """
        found: dict[int, list[np.ndarray]] = {}
        for scene, sums in zip(self.scenes, self.sums, strict=True):
            found.setdefault(scene, []).append(sums)
        whole = [np.concatenate(parts) for parts in found.values()]
        known = [parts / parts[:, 2].sum() for parts in whole if parts[:, 2].sum()]
        self.over = "scenes" if len(known) >= MIN_SCENES else "blocks"
        if not known:
            return np.full((1, 3), np.nan)
        rows = (
            np.array([parts.sum(0) for parts in known])
            if len(known) >= MIN_SCENES
            else np.concatenate(known)
        )
        kept: np.ndarray = rows[rows[:, 2] > 0]
        return kept

    @property
    def error(self) -> float:
        """The mean over scenes of their squared errors; 0 or less where there are too few pixels to tell."""
        rows = self.rows()
        return float(rows[:, 0].sum() / rows[:, 2].sum())

    @property
    def noisy(self) -> float:
        """The same of the noisy images themselves."""
        rows = self.rows()
        return float(rows[:, 1].sum() / rows[:, 2].sum())

    def each(self) -> list[tuple[float, float]]:
        """Of each image that was added its error, and that of the noisy image."""
        totals = [sums.sum(0) / max(sums[:, 2].sum(), 1) for sums in self.sums]
        return [(float(error), float(noisy)) for error, noisy, _ in totals]

    def interval(self) -> tuple[float, float]:
        """Between which values the mean error lies with 95%, by `studentized`."""
        rows = self.rows()
        return studentized(rows[:, 0], rows[:, 2])


def _blocks(planes: Tensor) -> Tensor:
    """Sums of (3, C, H, W) over blocks of its pixels and its channels: (blocks, 3)."""
    size = axes.size(planes)
    side = max(8, min(64, round(math.sqrt(math.prod(size[-2:]) / BLOCKS))))
    pool: Any = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(size)]
    window = [min(side, length) for length in size]
    found: Tensor = pool(planes.sum(1, keepdim=True), window, ceil_mode=True, divisor_override=1)
    return found.flatten(1).T.contiguous()


def studentized(sums: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """A 95% interval of the mean, sum(sums) / sum(weights), by the bootstrap-t over independent rows.

    Errors are skewed: a few scenes have much more than the others. The percentiles of resampled
    means then lie too low, those of resampled t do not (Efron & Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 12).

    Args:
        sums, weights: (n,).

    Returns:
        Its ends; infinite where there are fewer than 3 rows.
    """
    if len(sums) < 3:
        return -math.inf, math.inf

    def moments(s: Any, w: Any) -> tuple[Any, Any]:
        mean = s.sum(-1) / w.sum(-1)
        rest = (s * s).sum(-1) - 2 * mean * (s * w).sum(-1) + mean**2 * (w * w).sum(-1)
        return mean, np.sqrt(np.maximum(rest, 1e-300) * len(sums) / (len(sums) - 1)) / w.sum(-1)

    mean, error = moments(sums, weights)
    draws = np.random.default_rng(0).integers(
        0, len(sums), (RESAMPLES if len(sums) <= RESAMPLES else 200, len(sums))
    )
    means, errors = moments(sums[draws], weights[draws])
    low, high = np.percentile((means - mean) / np.maximum(errors, 1e-12 * error), (2.5, 97.5))
    return float(mean - high * error), float(mean - low * error)


def summarise_estimates(found: Estimates, reference: Estimates | None = None) -> dict[str, Any]:
    """The estimate in decibels with its 95% interval; the paired difference to another denoiser of the same images.

    Returns:
        psnr_estimate: None where it is not measurable with so few pixels; its ends are None where
            they are not.
    """

    def decibels(error: float) -> float | None:
        return psnr(error) if 0 < error < math.inf else None

    low, high = found.interval()
    rows = found.rows()
    result: dict[str, Any] = {
        "psnr_estimate": decibels(found.error),
        "psnr_estimate_interval": [decibels(high), decibels(low)],
        "mse_estimate": found.error,
        "scenes": len(set(found.scenes)),
        "over": found.over,
    }
    if reference is not None:
        ours, theirs, weight = rows[:, 0], reference.rows()[:, 0], rows[:, 2]
        draws = np.random.default_rng(0).integers(0, len(rows), (RESAMPLES, len(rows)))
        with np.errstate(invalid="ignore", divide="ignore"):
            each = -psnr_of_each(theirs[draws].sum(1) / ours[draws].sum(1))
        here = psnr(found.error) - psnr(reference.error)
        wide = math.sqrt(len(weight) / max(1, len(weight) - 1))
        known = math.isfinite(here) and bool(np.isfinite(each).all())
        ends = (
            [here + wide * (float(v) - here) for v in np.percentile(each, (2.5, 97.5))]
            if known
            else None
        )
        result |= {"difference": here if math.isfinite(here) else None, "difference_interval": ends}
    return result
