"""Noise level of each capture of a scene, and scores of captures whose noise differs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.blocks import cut_blocks

# Ratio of standard deviations; captures that differ more are trained on in one direction only.
UNEQUAL = 1.5
ABOUT = 0.97  # of it: measured ratios of 1.5 are at least 1.5 times this
CLEAN_RATIO = 1 / 400  # ratio of variances: noise below does not change a score by 0.1 dB
FIT = 512  # pixels: side of the part that the weights of a prediction are fitted on

# Half of the neighbours that predict a pixel; the others are opposite to them. Those of the first
# set are the nearest. Where noise is correlated, along lines or over some pixels, farther ones are
# needed, whose noise is independent.
NEIGHBOURS: tuple[tuple[tuple[int, int], ...], ...] = (
    (
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
    ),
    ((1, 1), (1, -1), (1, 2), (1, -2), (2, 1), (2, -1), (2, 2), (2, -2)),
    ((3, 3), (3, -3), (3, 4), (3, -4), (4, 3), (4, -3)),
    ((6, 6), (6, -6), (6, 8), (6, -8), (8, 6), (8, -6)),
)
ROWS = 40_000  # pixels that the weights are fitted to
ENOUGH = 24  # blocks without clipped values: with as many, only these are measured
# share of the pixels away from the lowest and highest value: with fewer, these are not clipped
LEFT = 0.25
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
    for weight, mean in zip(weights, _opposite_means(image, reach), strict=True):
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
    wanted = _inside(small, _farthest(reach)).flatten()
    step = max(1, len(wanted) // ROWS)
    wanted = wanted[::step]
    columns = torch.stack([mean.flatten()[::step] for mean in _opposite_means(small, reach)], 1)
    known = wanted.isfinite() & columns.isfinite().all(1)
    if known.sum() < 5 * columns.shape[1]:
        return None
    level = wanted[known].mean()
    columns = columns[known] - level
    wanted = wanted[known] - level
    gram = columns.T @ columns
    ridge = 1e-4 * gram.diagonal().mean() + 1e-30
    regular = gram + ridge * torch.eye(len(gram), dtype=gram.dtype)
    return level, torch.linalg.solve(regular, columns.T @ wanted).tolist()


def _farthest(reach: int) -> int:
    """Return the largest offset, along an axis, of one of `NEIGHBOURS`."""
    return max(max(map(abs, offset)) for offset in NEIGHBOURS[reach])


def _inside(image: Tensor, far: int, dy: int = 0, dx: int = 0) -> Tensor:
    """Return the neighbours (dy, dx) of all pixels that are `far` from the borders; a view."""
    *_, height, width = image.shape
    rows = slice(far + dy, height - far + dy)
    columns = slice(far + dx, width - far + dx)
    return image[..., rows, columns]


def _opposite_means(image: Tensor, reach: int) -> Iterator[Tensor]:
    """Yield the mean of two opposite neighbours of each pixel inside; for each pair of them."""
    far = _farthest(reach)
    for dy, dx in NEIGHBOURS[reach]:
        one = _inside(image, far, dy, dx)
        opposite = _inside(image, far, -dy, -dx)
        yield (one + opposite) / 2


def _middle(image: Tensor) -> Tensor:
    """Return the middle of an image, or of 4 planes of a volume: up to FIT x FIT pixels."""
    *depth, _, _ = axes.spatial(image[None])
    for axis in axes.spatial(image[None]):
        most = 4 if axis in depth else FIT
        side = image.shape[axis - 1]
        start = max(0, side - most) // 2
        image = image.narrow(axis - 1, start, min(side, most))
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
    power = difference * residual(own, reach)
    power_of_both = difference.square()
    free = power.isfinite() & ~near_ends(own) & ~near_ends(other)
    if free.double().mean() < LEFT:
        free = power.isfinite()
    total = power_of_both[free].sum()
    share = power[free].sum() / total if total > 0 else torch.nan
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
    at_end = (image == known.min()) | (image == known.max())
    *_, height, width = image.shape
    planes = at_end.float().reshape(-1, 1, height, width)
    near = F.max_pool2d(planes, 5, 1, 2)
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
            noise = 0.0 if self._is_clean(k) else max(variance, 0.0)
            deviations.append(noise**0.5)
        return tuple(deviations)

    @property
    def ratio(self) -> float:
        """Ratio of the largest standard deviation to the smallest; infinite if that is 0."""
        low, high = min(self.sigmas), max(self.sigmas)
        return high / low if low else float("inf")

    @property
    def ratio_interval(self) -> tuple[float, float]:
        """95% interval of the ratio."""
        high = max(self.variances)
        k = self._least_noisy
        margin = 2 * self.errors[k]
        ratios = []
        for low in (self.variances[k] + margin, self.variances[k] - margin):
            share = max(0.0, low) / high
            ratios.append(share**-0.5 if share else float("inf"))
        least, most = ratios
        return least, most

    @property
    def noisier(self) -> tuple[int, ...]:
        """Captures with at least UNEQUAL times the noise of the least noisy one, beyond doubt."""
        k_least = self._least_noisy
        least = self.variances[k_least]
        least_at_most = least + 2 * self.errors[k_least]
        captures = []
        for k, variance in enumerate(self.variances):
            surely = least_at_most < 0.8 * (variance - 2 * self.errors[k])
            if surely and variance >= (ABOUT * UNEQUAL) ** 2 * least:
                captures.append(k)
        return tuple(captures)

    @property
    def others(self) -> tuple[int, ...]:
        """Captures that are not `noisier`."""
        noisier = self.noisier
        return tuple(k for k in range(len(self.variances)) if k not in noisier)

    @property
    def clean(self) -> tuple[int, ...]:
        """Captures without noise of their own."""
        return tuple(k for k in range(len(self.variances)) if self._is_clean(k))

    @property
    def _least_noisy(self) -> int:
        return min(range(len(self.variances)), key=self.variances.__getitem__)

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
        for i, j in product(self.noisier, self.others):
            if within is None or abs(i - j) <= within:
                pairs.append((i, j))
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
        sigmas = self.sigmas
        parts = []
        for group in groups:
            squares = [sigmas[k] ** 2 for k in group]
            mean = (sum(squares) / len(squares)) ** 0.5
            level = f"{mean:.3g}" if mean else "none"
            parts.append(f"{level} of {named(group, count)}")
        ratio = f": ratio {self.ratio:.3g}" if min(sigmas) else ""
        return f"sigma {', '.join(parts)}{ratio}"


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
        return f"the {('first', 'second')[captures[0]]} captures"
    runs: list[list[int]] = []
    for k in captures:
        if runs and runs[-1][-1] == k - 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    parts = []
    for run in runs:
        first, last = run[0] + 1, run[-1] + 1
        parts.append(f"{first}" if first == last else f"{first} to {last}")
    return f"captures {', '.join(parts)}"


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
    if not measurements or sum(len(scene.total) for scene in measurements) < 8:
        return None
    blocks = _joined(measurements)
    total = float(blocks.total.mean())
    if not total > 0:
        return None
    if blocks.free.sum() >= ENOUGH:
        blocks = _joined([blocks], blocks.free)
    powers = blocks.power[:, 0].mean(0)
    least = int(powers.argmin())
    most = int(powers.argmax())
    texture = blocks.texture[:, least]
    variance = (blocks.total + 0.05 * total) * (texture + 1e-3 * total)
    weight = 1 / variance
    weight = weight / weight.sum()
    reach = _common_reach(blocks.power[:, :, [least, most]], weight, total)
    power = blocks.power[:, reach or 0]
    known = power.isfinite().all(1)
    weight = weight[known] / weight[known].sum()
    return _levels(power[known], weight, total, reach)


def _levels(power: Tensor, weight: Tensor, total: float, reach: int | None) -> NoiseLevels | None:
    """Return the levels of all captures by those of blocks, as ratios of sums.

    Args:
        power: noise power of each capture, (blocks, K).
        weight: of the blocks, (blocks,), with sum 1.
        total: the mean variance of all captures.
        reach: see `NoiseLevels`.
    """
    weighted = weight[:, None] * power
    shares = weighted.sum(0)
    if not shares.sum() > 0:
        return None
    shares = shares / shares.sum()
    deviation = power - shares * power.sum(1, keepdim=True)
    deviation = weight[:, None] * deviation
    errors = deviation.square().sum(0).sqrt() / weighted.sum().abs()
    errors = errors * (len(weight) / (len(weight) - 1)) ** 0.5
    variance = total * len(shares)
    variances = tuple((shares * variance).tolist())
    return NoiseLevels(variances, tuple((errors * variance).tolist()), reach)


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


def _joined(scenes: Sequence[_Blocks], chosen: Any = slice(None)) -> _Blocks:
    """Join the blocks of several scenes, or some of them."""
    parts = []
    for name in ("power", "total", "texture", "free"):
        parts.append(torch.cat([getattr(scene, name) for scene in scenes])[chosen])
    return _Blocks(*parts)


def _measure_blocks(captures: Sequence[Tensor]) -> _Blocks:
    """Measure the blocks of one scene that are known in every capture."""
    images = [image.double() for image in captures]
    count = len(images)
    side = 16 if min(axes.size(images[0][None])) >= 64 else 8
    total_image = sum(images[1:], images[0])
    clipped = torch.stack([near_ends(image) for image in images]).any(0)
    powers, totals, textures = [], [], []
    for image in images:
        difference = image - (total_image - image) / (count - 1)
        residuals = [residual(image, reach) for reach in range(len(NEIGHBOURS))]
        powers.append(torch.stack([_means(difference * part, side) for part in residuals], 1))
        totals.append(_variances(difference, side))
        textures.append(_means(residuals[0].square(), side))
    power = torch.stack(powers, 2)
    texture = torch.stack(textures, 1)
    total = torch.stack(totals, 1).mean(1) * (count - 1) / count
    known = torch.cat((power[:, 0], total[:, None], texture), 1).isfinite().all(1)
    free = _means(clipped.double(), side) < 0.02
    return _Blocks(power[known], total[known], texture[known], free[known])


def _cut(image: Tensor, side: int) -> Tensor:
    """Cut an image (C, H, W) into blocks, smaller ones where the image is: (blocks, pixels)."""
    _, height, width = image.shape
    blocks: Tensor = cut_blocks(image, min(side, height), min(side, width))
    return blocks.permute(1, 3, 0, 2, 4).flatten(0, 1).flatten(1)


def _means(image: Tensor, side: int) -> Tensor:
    """Return the means of blocks; NaN where less than half of a block is known."""
    values = _cut(image, side)
    known = values.isfinite()
    means = values.nan_to_num(0).sum(1) / known.sum(1)
    return torch.where(known.double().mean(1) >= 0.5, means, torch.nan)


def _variances(image: Tensor, side: int) -> Tensor:
    """Return the variances of blocks; NaN where less than half of a block is known."""
    values = _cut(image, side)
    known = values.isfinite()
    count = known.sum(1)
    mean = values.nan_to_num(0).sum(1) / count
    squares = (values - mean[:, None]).nan_to_num(0).square().sum(1)
    return torch.where(known.double().mean(1) >= 0.5, squares / (count - 1), torch.nan)


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
    last = len(NEIGHBOURS) - 1
    for near in range(last):
        differences = power[:, near + 1 :] - power[:, near : near + 1]
        if not any(_differs(column, weight, total) for column in differences.unbind(1)):
            return near
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
    mean = float((weight * difference.nan_to_num(0)).sum() / norm)
    deviation = weight * (difference - mean).nan_to_num(0)
    error = float(deviation.square().sum().sqrt() / norm)
    return abs(mean) > max(SURE * error, 0.006 * total)


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
    return (output - reference).square() - noise.detach().cpu().double()
