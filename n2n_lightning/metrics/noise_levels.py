"""Noise level of each capture of a scene, and scores of captures whose noise differs."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.arrays.blocks import cut_blocks

# Ratio of standard deviations; captures that differ more are trained on in one direction only.
UNEQUAL = 1.5
ABOUT = 0.97  # of it: measured ratios of 1.5 are at least 1.5 times this
CLEAN_RATIO = 1 / 400  # ratio of variances: noise below does not change a score by 0.1 dB
FIT = 512  # pixels: side of the part that the weights of a prediction are fitted on

# Half of the neighbours that predict a pixel; the others are opposite to them. Where noise is
# correlated, along lines or over some pixels, farther ones are needed, whose noise is independent.
_Offsets = tuple[tuple[int, int], ...]
_NEAREST: _Offsets = (
    (0, 1),
    (1, 0),
    (1, 1),
    (1, -1),
    (0, 2),
    (2, 0),
    (1, 2),
    (1, -2),
    (2, 1),
    (2, -1),
    (2, 2),
    (2, -2),
)
_OFF_LINES: _Offsets = tuple(offset for offset in _NEAREST if 0 not in offset)
_FAR: _Offsets = (
    (3, 3),
    (3, -3),
    (3, 4),
    (3, -4),
    (4, 3),
    (4, -3),
)
_FARTHEST: _Offsets = tuple((2 * dy, 2 * dx) for dy, dx in _FAR)
NEIGHBOURS = (_NEAREST, _OFF_LINES, _FAR, _FARTHEST)
ROWS = 40_000  # pixels that the weights are fitted to
MIN_MEASURED = 8  # blocks: with fewer, no levels are given
ENOUGH = 24  # blocks without clipped values: with as many, only these are measured
# share of the pixels away from the lowest and highest value: with fewer, these are not clipped
LEFT = 0.25
LEAST_DIFFERENCE = 0.006  # of the noise power: smaller ones do not matter
# standard errors by which two sets of neighbours must differ before the noise counts as correlated
SURE = 3.5


def residual(image: Tensor, reach: int = 0) -> Tensor:
    """Subtract from every pixel what its neighbours predict of it, without the pixel itself.

    The weights are those of least squares, one set for the image, so that they adapt to its noise
    and texture.

    Args:
        image: (C, H, W) or (C, D, H, W), float64; NaN where a pixel is unknown.
        reach: which of `NEIGHBOURS` to use.

    Returns:
        In that shape; NaN where a neighbour is unknown or outside of the image, and where there is
        nothing to fit.
    """
    far = _farthest(reach)
    *_, height, width = image.shape
    result = torch.full_like(image, torch.nan)
    if min(height, width) < 2 * far + 4:
        return result
    fit = _fit_prediction(image, reach)
    if fit is None:
        return result
    level, weights = fit
    unpredicted = _inside(image, far) - level
    means = _opposite_means(image, reach)
    for weight, mean in zip(weights, means, strict=True):
        unpredicted -= weight * (mean - level)
    _inside(result, far).copy_(unpredicted)
    return result


def _fit_prediction(image: Tensor, reach: int) -> tuple[Tensor, list[float]] | None:
    """Fit the prediction of a pixel from its neighbours; None where too few pixels are known.

    Args:
        image: (C, H, W) or (C, D, H, W), float64; NaN where a pixel is unknown.
        reach: which of `NEIGHBOURS` to use.

    Returns:
        A mean level, and the weight of each pair of opposite neighbours, less that level.
    """
    small = _middle(image)
    far = _farthest(reach)
    wanted = _inside(small, far).flatten()
    step = max(1, len(wanted) // ROWS)
    wanted = wanted[::step]
    columns = []
    for mean in _opposite_means(small, reach):
        columns.append(mean.flatten()[::step])
    neighbours = torch.stack(columns, 1)
    known = wanted.isfinite() & neighbours.isfinite().all(1)
    if known.sum() < 5 * len(columns):
        return None
    wanted = wanted[known]
    neighbours = neighbours[known]
    level = wanted.mean()
    wanted = wanted - level
    neighbours = neighbours - level
    gram = neighbours.T @ neighbours
    ridge = 1e-4 * gram.diagonal().mean() + 1e-30
    gram.diagonal().add_(ridge)
    weights = torch.linalg.solve(gram, neighbours.T @ wanted)
    return level, weights.tolist()


def _farthest(reach: int) -> int:
    """Return the largest offset, along an axis, of one of `NEIGHBOURS`."""
    farthest = 0
    for dy, dx in NEIGHBOURS[reach]:
        farthest = max(farthest, abs(dy), abs(dx))
    return farthest


def _inside(image: Tensor, far: int, dy: int = 0, dx: int = 0) -> Tensor:
    """Return the neighbours (dy, dx) of all pixels that are `far` from the borders; a view."""
    *_, height, width = image.shape
    top = far + dy
    left = far + dx
    bottom = top + height - 2 * far
    right = left + width - 2 * far
    return image[..., top:bottom, left:right]


def _opposite_means(image: Tensor, reach: int) -> Iterator[Tensor]:
    """Yield the mean of two opposite neighbours of each pixel inside; for each pair of them."""
    far = _farthest(reach)
    for dy, dx in NEIGHBOURS[reach]:
        one = _inside(image, far, dy, dx)
        opposite = _inside(image, far, -dy, -dx)
        yield (one + opposite) / 2


def _middle(image: Tensor) -> Tensor:
    """Return the middle of an image, or of 4 planes of a volume: up to FIT x FIT pixels."""
    _, *depth, _, _ = image.shape
    limits = [FIT, FIT]
    if depth:
        limits = [4, FIT, FIT]
    for axis, most in enumerate(limits, 1):
        side = image.shape[axis]
        start = max(0, side - most) // 2
        image = image.narrow(axis, start, min(side, most))
    return image


def noise_power(own: Tensor, other: Tensor, reach: int = 0) -> Tensor:
    """Estimate the variance of one capture's own noise, without bias, pixel by pixel.

    Two captures y1 = x + n1 and y2 = x + n2 of a scene, noises independent of one another and of
    zero mean given x, and a prediction g of y1 from its neighbours. Where n1 is not correlated over
    that distance,

        E (y1 - y2) (y1 - g) = E (n1 - n2) (n1 + x - g) = E n1^2

    for x - g, which depends on the texture and on the noise of other pixels, is multiplied by noise
    of zero mean. So texture makes the estimate less certain but not larger, and n2 may be of any
    strength. Near clipped values, where the mean of the noise is not zero, near borders and unknown
    pixels it is (y1 - y2)^2 times the share of n1 in the other pixels.

    Args:
        own: y1, (C, H, W) or (C, D, H, W); NaN where a pixel is unknown.
        other: y2, or the mean of several other captures, of the same shape.
        reach: which of `NEIGHBOURS` predict y1.

    Returns:
        In that shape, float64; the mean is the variance, single pixels may well be negative. NaN
        where it is unknown.

    >>> draws = torch.Generator().manual_seed(0)
    >>> x = torch.arange(128.0).expand(1, 128, 128) % 7  # stripes
    >>> y1, y2 = (x + sigma * torch.randn(x.shape, generator=draws) for sigma in (2, 0.5))
    >>> round(noise_power(y1, y2).mean().item(), 1), round(noise_power(y2, y1).mean().item(), 1)
    (4.0, 0.3)
    """
    own = own.detach().cpu().double()
    other = other.detach().cpu().double()
    difference = own - other
    unpredicted = residual(own, reach)
    power = difference * unpredicted
    power_of_both = difference.square()
    known = power.isfinite()
    clipped = near_ends(own) | near_ends(other)
    free = known & ~clipped
    if free.double().mean() < LEFT:
        free = known
    own_power = power[free].sum()
    total = power_of_both[free].sum()
    if not total > 0:
        return torch.where(free, power, torch.nan)
    share = own_power / total
    return torch.where(free, power, share * power_of_both)


def near_ends(image: Tensor) -> Tensor:
    """Find the pixels within 2 pixels of the lowest or highest value, where noise may be clipped.

    Args:
        image: (C, H, W) or (C, D, H, W); NaN where a pixel is unknown.

    Returns:
        bool, in that shape.
    """
    known = image[image.isfinite()]
    if not known.numel():
        return torch.zeros_like(image, dtype=torch.bool)
    lowest = image == known.min()
    highest = image == known.max()
    at_end = lowest | highest
    *_, height, width = image.shape
    planes = at_end.float().reshape(-1, 1, height, width)
    near = F.max_pool2d(planes, kernel_size=5, stride=1, padding=2)
    return near.reshape(image.shape) > 0


@dataclass(frozen=True)
class NoiseLevels:
    """Noise of each capture of a scene, in the order of the captures.

    Attributes:
        variances: in stored units squared, (K,); slightly below 0 perhaps for a capture without
            noise.
        errors: their standard errors.
        reach: which of `NEIGHBOURS` measure the noise; None: it is correlated over too many pixels
            to measure the variance of a single capture; only ratios are known, if the noise of all
            captures has the same spectrum.
    """

    variances: tuple[float, ...]
    errors: tuple[float, ...]
    reach: int | None = 0

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Standard deviations, 0 for captures without noise."""
        deviations = []
        for k, variance in enumerate(self.variances):
            if self._is_clean(k):
                variance = 0.0
            deviation = max(variance, 0.0) ** 0.5
            deviations.append(deviation)
        return tuple(deviations)

    @property
    def ratio(self) -> float:
        """Ratio of the largest standard deviation to the smallest; infinite if that is 0."""
        sigmas = self.sigmas
        lowest = min(sigmas)
        return max(sigmas) / lowest if lowest else math.inf

    @property
    def ratio_interval(self) -> tuple[float, float]:
        """95% interval of the ratio."""
        k = self._least_noisy
        variance = self.variances[k]
        margin = 2 * self.errors[k]
        return self._ratio_to(variance + margin), self._ratio_to(variance - margin)

    def _ratio_to(self, variance: float) -> float:
        """Return the largest standard deviation over that of a variance."""
        share = max(0.0, variance) / max(self.variances)
        return share**-0.5 if share else math.inf

    @property
    def noisier(self) -> tuple[int, ...]:
        """Captures with at least UNEQUAL times the noise of the least noisy one, beyond doubt."""
        k_least = self._least_noisy
        least = self.variances[k_least]
        least_at_most = least + 2 * self.errors[k_least]
        limit = (ABOUT * UNEQUAL) ** 2 * least
        captures = []
        for k, variance in enumerate(self.variances):
            at_least = variance - 2 * self.errors[k]
            surely = least_at_most < 0.8 * at_least
            if surely and variance >= limit:
                captures.append(k)
        return tuple(captures)

    @property
    def others(self) -> tuple[int, ...]:
        """Captures that are not `noisier`."""
        captures = range(len(self.variances))
        noisier = self.noisier
        return tuple(k for k in captures if k not in noisier)

    @property
    def clean(self) -> tuple[int, ...]:
        """Captures without noise of their own."""
        captures = range(len(self.variances))
        return tuple(k for k in captures if self._is_clean(k))

    @property
    def _least_noisy(self) -> int:
        least = min(self.variances)
        return self.variances.index(least)

    def _is_clean(self, k: int) -> bool:
        at_most = self.variances[k] + 2 * self.errors[k]
        return at_most < CLEAN_RATIO * max(self.variances)

    def pairs(self, within: int | None = None) -> list[tuple[int, int]]:
        """Return the pairs of captures to train on, as (input, target).

        Args:
            within: captures that are farther apart than this are no pair.

        Returns:
            Each of the noisier captures with each of the others.
        """
        pairs = []
        for noisier, other in product(self.noisier, self.others):
            distance = abs(noisier - other)
            if within is None or distance <= within:
                pairs.append((noisier, other))
        return pairs

    def described(self) -> str:
        """Return the levels in words: `sigma 20 of the first captures, 2 of ...: ratio 10`.

        Returns:
            Words for a message, without a full stop.
        """
        count = len(self.variances)
        groups: list[tuple[int, ...]] = [(0,), (1,)]
        if count > 2:
            groups = [group for group in (self.noisier, self.others) if group]
        parts = []
        for group in groups:
            mean = self._mean_sigma(group)
            level = f"{mean:.3g}" if mean else "none"
            captures = named(group, count)
            parts.append(f"{level} of {captures}")
        levels = ", ".join(parts)
        if min(self.sigmas) == 0:
            return f"sigma {levels}"
        return f"sigma {levels}: ratio {self.ratio:.3g}"

    def _mean_sigma(self, captures: Sequence[int]) -> float:
        """Return the root of the mean variance of some captures."""
        sigmas = self.sigmas
        squares = [sigmas[k] ** 2 for k in captures]
        mean = sum(squares) / len(squares)
        return mean**0.5


def named(captures: Sequence[int], count: int) -> str:
    """List captures in words.

    Args:
        captures: their numbers, from 0, in order.
        count: of all captures of a scene.

    Returns:
        A noun phrase.

    >>> named([0], 2), named([0, 1, 2, 5], 8), named([7], 8)
    ('the first captures', 'captures 1 to 3, 6', 'captures 8')
    """
    if count == 2 and len(captures) == 1:
        ordinal = "second" if captures[0] else "first"
        return f"the {ordinal} captures"
    runs: list[list[int]] = []
    for k in captures:
        if runs and runs[-1][-1] == k - 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    parts = []
    for run in runs:
        first = run[0] + 1
        last = run[-1] + 1
        parts.append(f"{first}" if first == last else f"{first} to {last}")
    numbers = ", ".join(parts)
    return f"captures {numbers}"


def measured(scenes: Iterable[Sequence[Tensor]]) -> NoiseLevels | None:
    """Measure the noise of each capture, see `noise_power`, over blocks of some scenes.

    Blocks with less texture weigh more: their noise is more certain.

    Args:
        scenes: the K captures of each, (C, H, W), stored values; NaN where a pixel is unknown or an
            outlier.

    Returns:
        None where the captures have too few known pixels, or no noise at all.
    """
    measurements = [_measure_blocks(captures) for captures in scenes]
    if not measurements:
        return None
    blocks = _joined(measurements)
    if len(blocks.total) < MIN_MEASURED:
        return None
    total = float(blocks.total.mean())
    if not total > 0:
        return None
    if blocks.free.sum() >= ENOUGH:
        blocks = blocks.chosen(blocks.free)
    powers = blocks.power[:, 0].mean(0)
    least = int(powers.argmin())
    most = int(powers.argmax())
    texture = blocks.texture[:, least] + 1e-3 * total
    noise = blocks.total + 0.05 * total
    weight = 1 / (noise * texture)
    weight = weight / weight.sum()
    extremes = blocks.power[:, :, [least, most]]
    reach = _common_reach(extremes, weight, total)
    power = blocks.power[:, reach or 0]
    known = power.isfinite().all(1)
    power = power[known]
    weight = weight[known]
    weight = weight / weight.sum()
    return _levels(power, weight, total, reach)


def _levels(power: Tensor, weight: Tensor, total: float, reach: int | None) -> NoiseLevels | None:
    """Return the levels of all captures by those of blocks, as ratios of sums.

    Args:
        power: noise power of each capture, (blocks, K).
        weight: of the blocks, (blocks,), with sum 1.
        total: the mean variance of all captures.
        reach: see `NoiseLevels`.
    """
    count, captures = power.shape
    weight = weight[:, None]
    weighted = weight * power
    sums = weighted.sum(0)
    if not sums.sum() > 0:
        return None
    shares = sums / sums.sum()
    power_of_all = power.sum(1, keepdim=True)
    deviation = power - shares * power_of_all
    squares = (weight * deviation).square()
    errors = squares.sum(0).sqrt() / weighted.sum().abs()
    few_blocks = (count / (count - 1)) ** 0.5
    errors = errors * few_blocks
    variance_of_all = total * captures
    variances = shares * variance_of_all
    errors = errors * variance_of_all
    return NoiseLevels(
        tuple(variances.tolist()),
        tuple(errors.tolist()),
        reach,
    )


@dataclass(frozen=True)
class _Blocks:
    """Means over blocks.

    Attributes:
        power: `noise_power` with each of `NEIGHBOURS`, (blocks, reaches, K).
        total: the mean variance of the captures, (blocks,).
        texture: variance that the neighbours do not predict, (blocks, K).
        free: True where no values are clipped, (blocks,).
    """

    power: Tensor
    total: Tensor
    texture: Tensor
    free: Tensor

    def chosen(self, which: Tensor) -> "_Blocks":
        """Return the blocks at which a mask (blocks,) is True."""
        return _Blocks(
            power=self.power[which],
            total=self.total[which],
            texture=self.texture[which],
            free=self.free[which],
        )


def _joined(scenes: Sequence[_Blocks]) -> _Blocks:
    """Join the blocks of several scenes."""
    return _Blocks(
        power=torch.cat([scene.power for scene in scenes]),
        total=torch.cat([scene.total for scene in scenes]),
        texture=torch.cat([scene.texture for scene in scenes]),
        free=torch.cat([scene.free for scene in scenes]),
    )


def _measure_blocks(captures: Sequence[Tensor]) -> _Blocks:
    """Measure the blocks of one scene that are known in every capture."""
    images = [image.double() for image in captures]
    count = len(images)
    _, height, width = images[0].shape
    side = 16 if min(height, width) >= 64 else 8
    sum_of_all = sum(images[1:], images[0])
    clipped = torch.zeros_like(images[0], dtype=torch.bool)
    powers: list[Tensor] = []
    totals: list[Tensor] = []
    textures: list[Tensor] = []
    for image in images:
        clipped |= near_ends(image)
        mean_of_others = (sum_of_all - image) / (count - 1)
        difference = image - mean_of_others
        totals.append(_variances(difference, side))
        nearest = residual(image)
        textures.append(_means(nearest.square(), side))
        by_reach = [_means(difference * nearest, side)]
        for reach in range(1, len(NEIGHBOURS)):
            unpredicted = residual(image, reach)
            by_reach.append(_means(difference * unpredicted, side))
        powers.append(torch.stack(by_reach, 1))
    power = torch.stack(powers, 2)
    texture = torch.stack(textures, 1)
    total = torch.stack(totals, 1).mean(1)
    total = total * (count - 1) / count
    share_of_clipped = _means(clipped.double(), side)
    blocks = _Blocks(power, total, texture, free=share_of_clipped < 0.02)
    known = total.isfinite()
    known &= texture.isfinite().all(1)
    known &= power[:, 0].isfinite().all(1)
    return blocks.chosen(known)


def _cut(image: Tensor, side: int) -> Tensor:
    """Cut an image (C, H, W) into blocks, smaller ones where the image is: (blocks, pixels)."""
    _, height, width = image.shape
    high = min(side, height)
    wide = min(side, width)
    blocks: Tensor = cut_blocks(image, high, wide)
    rows_and_columns_first = blocks.permute(1, 3, 0, 2, 4)
    return rows_and_columns_first.flatten(0, 1).flatten(1)


def _half_known(blocks: Tensor) -> Tensor:
    """Return True for each block, (blocks, pixels), of which half of the pixels are known."""
    known = blocks.isfinite()
    return known.double().mean(1) >= 0.5


def _means(image: Tensor, side: int) -> Tensor:
    """Return the means of blocks; NaN where less than half of a block is known."""
    values = _cut(image, side)
    means = values.nanmean(1)
    return torch.where(_half_known(values), means, torch.nan)


def _variances(image: Tensor, side: int) -> Tensor:
    """Return the variances of blocks; NaN where less than half of a block is known."""
    values = _cut(image, side)
    count = values.isfinite().sum(1)
    mean = values.nanmean(1, keepdim=True)
    squares = (values - mean).square()
    variances = squares.nansum(1) / (count - 1)
    return torch.where(_half_known(values), variances, torch.nan)


def _common_reach(power: Tensor, weight: Tensor, total: float) -> int | None:
    """Return the nearest neighbours that suit all of some captures; None where none do.

    Args:
        power: of the captures, (blocks, reaches, captures).
        weight: of the blocks, (blocks,), with sum 1.
        total: the mean variance of all captures.
    """
    reaches = []
    for capture in power.unbind(2):
        reach = _reach(capture, weight, total)
        if reach is None:
            return None
        reaches.append(reach)
    return max(reaches)


def _reach(power: Tensor, weight: Tensor, total: float) -> int | None:
    """Return the nearest neighbours whose estimate farther ones confirm; None where none do.

    Args:
        power: of one capture, (blocks, reaches).
        weight: of the blocks, (blocks,), with sum 1.
        total: the mean variance of all captures.
    """
    estimates = power.unbind(1)
    for reach, near in enumerate(estimates[:-1]):
        farther = estimates[reach + 1 :]
        if not any(_differs(far - near, weight, total) for far in farther):
            return reach
    return None


def _differs(difference: Tensor, weight: Tensor, total: float) -> bool:
    """Return True if two estimates of the noise power differ by more than chance.

    Args:
        difference: of the two, (blocks,); NaN near borders, where neighbours are missing.
        weight: of the blocks, (blocks,), with sum 1.
        total: the mean variance of all captures.
    """
    weight = weight * difference.isfinite()
    norm = weight.sum().clamp(min=1e-30)
    weighted = weight * difference
    mean = weighted.nansum() / norm
    deviation = weight * (difference - mean)
    squares = deviation.square().nansum()
    error = squares.sqrt() / norm
    by_chance = SURE * float(error)
    return abs(float(mean)) > max(by_chance, LEAST_DIFFERENCE * total)


def one_way_errors(output: Tensor, reference: Tensor, noise: Tensor) -> Tensor:
    """Estimate the squared error of a denoised capture by another capture, without bias.

    E |f(y1) - y2|^2 = E |f(y1) - x|^2 + E n2^2, where f(y1) does not depend on n2.

    Args:
        output: f(y1), (B, C, H, W) or (B, C, D, H, W).
        reference: y2, in that shape; NaN where a pixel is unknown.
        noise: E n2^2 of each pixel, `noise_power`, or 0 for a capture without noise.

    Returns:
        In that shape, float64, of single pixels: their mean is the estimate, and their spread
        includes the uncertainty of the noise.
    """
    output = output.detach().cpu().double()
    reference = reference.detach().cpu().double()
    noise = noise.detach().cpu().double()
    return (output - reference).square() - noise
