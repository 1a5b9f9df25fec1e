"""How noisy each capture of a scene is by itself, and the score of one of two captures whose noise differs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.blocks import cut_blocks

# ratio of standard deviations: from here on two captures are not trained on in both directions
UNEQUAL = 1.5
ABOUT = 0.97  # of it: what a ratio of 1.5 is measured as, at least
CLEAN = 1 / 400  # ratio of variances: noise below does not change a score by 0.1 dB
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
ROWS = 40_000  # pixels that they are fitted to
ENOUGH = 24  # blocks without clipped values: then only these are measured
# share of the pixels: where fewer are apart from the ends of the values, those are no clipped ones
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
    far = _far(reach)
    *_, height, width = image.shape
    result = torch.full_like(image, torch.nan)
    if min(height, width) < 2 * far + 4:
        return result
    small = _middle(image)
    wanted = _inside(small, far).flatten()
    step = max(1, len(wanted) // ROWS)
    wanted = wanted[::step]
    columns = torch.stack([mean.flatten()[::step] for mean in _opposite_means(small, reach)], 1)
    known = wanted.isfinite() & columns.isfinite().all(1)
    if known.sum() < 5 * columns.shape[1]:
        return result
    level = wanted[known].mean()
    columns, wanted = columns[known] - level, wanted[known] - level
    gram = columns.T @ columns
    ridge = 1e-4 * gram.diagonal().mean() + 1e-30
    weights = torch.linalg.solve(
        gram + ridge * torch.eye(len(gram), dtype=gram.dtype), columns.T @ wanted
    )
    rest = _inside(image, far) - level
    for weight, mean in zip(weights.tolist(), _opposite_means(image, reach), strict=True):
        rest -= weight * (mean - level)
    _inside(result, far).copy_(rest)
    return result


def _far(reach: int) -> int:
    """How many pixels away the farthest of some neighbours is."""
    return max(max(map(abs, offset)) for offset in NEIGHBOURS[reach])


def _inside(image: Tensor, far: int, dy: int = 0, dx: int = 0) -> Tensor:
    """The neighbours (dy, dx) of all pixels that are so far from the borders; a view."""
    *_, height, width = image.shape
    return image[..., far + dy : height - far + dy, far + dx : width - far + dx]


def _opposite_means(image: Tensor, reach: int) -> Iterator[Tensor]:
    """The mean of two opposite neighbours of each pixel inside; for each pair of them."""
    far = _far(reach)
    for dy, dx in NEIGHBOURS[reach]:
        yield (_inside(image, far, dy, dx) + _inside(image, far, -dy, -dx)) / 2


def _middle(image: Tensor) -> Tensor:
    """The middle of an image, of up to FIT x FIT pixels; of a volume that of its middle planes."""
    *depth, _, _ = axes.spatial(image[None])
    for axis in axes.spatial(image[None]):
        side, most = image.shape[axis - 1], 4 if axis in depth else FIT
        image = image.narrow(axis - 1, max(0, side - most) // 2, min(side, most))
    return image


def noise_power(own: Tensor, other: Tensor, reach: int = 0) -> Tensor:
    """Estimate the variance of one capture's own noise, without bias, pixel by pixel.

    Two captures y1 = x + n1 and y2 = x + n2 of a scene, noises independent of one another and of
    zero mean given x, and a prediction g of y1 from its neighbours. Where n1 is not correlated over
    that distance,

        E (y1 - y2) (y1 - g) = E (n1 - n2) (n1 + x - g) = E n1^2

    for x - g, which depends on the texture and on the noise of other pixels, is multiplied by noise
    of zero mean. So texture makes it less sure but not larger, and n2 may be of any strength. Near
    clipped values, where the mean of the noise is not zero, near borders and unknown pixels it is
    (y1 - y2)^2 times the share of n1 in the other pixels.

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
    own, other = own.detach().cpu().double(), other.detach().cpu().double()
    difference = own - other
    power, both = difference * residual(own, reach), difference.square()
    free = power.isfinite() & ~near_ends(own) & ~near_ends(other)
    if free.double().mean() < LEFT:
        free = power.isfinite()
    share = (
        power[free].sum() / both[free].sum() if free.any() and both[free].sum() > 0 else torch.nan
    )
    return torch.where(free, power, share * both)


def near_ends(image: Tensor) -> Tensor:
    """Whether a pixel is within 2 pixels of one that has the lowest or the highest value: noise is clipped there."""
    known = image[image.isfinite()]
    if not known.numel():
        return torch.zeros_like(image, dtype=torch.bool)
    low, high = known.min(), known.max()
    at_end = ((image == low) | (image == high)).float()
    *_, height, width = image.shape
    spread = F.max_pool2d(at_end.reshape(-1, 1, height, width), 5, 1, 2)
    return spread.reshape(image.shape) > 0


@dataclass(frozen=True)
class NoiseLevels:
    """The noise of each capture of a scene, in the order of the captures.

    Attributes:
        variances: in stored units squared, (K,); a capture without noise may have slightly less
            than 0.
        errors: their standard errors.
        reach: which of `NEIGHBOURS` measure the noise; None: it is correlated over so many pixels
            that its variance is not measurable for a single capture, only the ratio, if the noise
            of all has the same spectrum.
    """

    variances: tuple[float, ...]
    errors: tuple[float, ...]
    reach: int | None = 0

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Standard deviations, 0 for captures without noise."""
        return tuple(
            0.0 if self._is_clean(k) else max(v, 0.0) ** 0.5 for k, v in enumerate(self.variances)
        )

    @property
    def ratio(self) -> float:
        """The standard deviation of the noisiest capture over that of the least noisy one; infinite: it has none."""
        low, high = min(self.sigmas), max(self.sigmas)
        return high / low if low else float("inf")

    @property
    def ratio_interval(self) -> tuple[float, float]:
        """A 95% interval of the ratio."""
        high = max(self.variances)
        low = min(range(len(self.variances)), key=lambda k: self.variances[k])
        ends = [max(0.0, self.variances[low] + s * 2 * self.errors[low]) / high for s in (1, -1)]
        least, most = (end**-0.5 if end else float("inf") for end in ends)
        return least, most

    @property
    def noisier(self) -> tuple[int, ...]:
        """Captures whose noise is UNEQUAL times that of the least noisy one, or more; none where that is not sure."""
        least = min(range(len(self.variances)), key=lambda k: self.variances[k])
        found = []
        for k, variance in enumerate(self.variances):
            surely = self.variances[least] + 2 * self.errors[least] < 0.8 * (
                variance - 2 * self.errors[k]
            )
            if surely and variance >= (ABOUT * UNEQUAL) ** 2 * self.variances[least]:
                found.append(k)
        return tuple(found)

    @property
    def others(self) -> tuple[int, ...]:
        """The captures that are not `noisier`."""
        return tuple(k for k in range(len(self.variances)) if k not in self.noisier)

    @property
    def clean(self) -> tuple[int, ...]:
        """Captures without noise of their own."""
        return tuple(k for k in range(len(self.variances)) if self._is_clean(k))

    def _is_clean(self, k: int) -> bool:
        return self.variances[k] + 2 * self.errors[k] < CLEAN * max(self.variances)

    def pairs(self, within: int | None = None) -> list[tuple[int, int]]:
        """Pairs of captures to train on, a noisier one as the input and another one as the target.

        Args:
            within: captures that are farther apart are no pair.
        """
        return [
            (i, j)
            for i in self.noisier
            for j in self.others
            if within is None or abs(i - j) <= within
        ]

    def described(self) -> str:
        """The levels in words: `sigma 20 of the first captures, 2 of the second: ratio 10`."""
        groups = (
            [g for g in (self.noisier, self.others) if g]
            if len(self.variances) > 2
            else [(0,), (1,)]
        )
        parts = []
        for group in groups:
            mean = (sum(self.sigmas[k] ** 2 for k in group) / len(group)) ** 0.5
            parts.append(
                f"{mean:.3g} of {named(group, len(self.variances))}"
                if mean
                else _none_of(group, self)
            )
        ratio = f": ratio {self.ratio:.3g}" if min(self.sigmas) else ""
        return f"sigma {', '.join(parts)}{ratio}"


def _none_of(group: Sequence[int], levels: NoiseLevels) -> str:
    return f"none of {named(group, len(levels.variances))}"


def named(captures: Sequence[int], count: int) -> str:
    """Captures in words.

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
    shown = [f"{run[0] + 1}" + (f" to {run[-1] + 1}" if len(run) > 1 else "") for run in runs]
    return f"captures {', '.join(shown)}"


def measured(scenes: Iterable[Sequence[Tensor]]) -> NoiseLevels | None:
    """Measure the noise of each capture by itself, `noise_power`, over blocks of some scenes.

    Blocks with less texture weigh more, for there the noise is surer.

    Args:
        scenes: of each its K captures, (C, H, W), stored values; NaN where a pixel is unknown or an
            outlier.

    Returns:
        None where the captures have too few known pixels, or no noise at all.
    """
    rows = [_blocks_of(captures) for captures in scenes]
    if not rows or sum(len(row.total) for row in rows) < 8:
        return None
    blocks = _joined(rows)
    whole = float(blocks.total.mean())
    if not whole > 0:
        return None
    if blocks.free.sum() >= ENOUGH:
        blocks = _joined([blocks], blocks.free)
    least, most = (
        int(choose(blocks.power[:, 0].mean(0))) for choose in (torch.argmin, torch.argmax)
    )
    quiet = blocks.texture[:, least]
    weight = 1 / ((blocks.total + 0.05 * whole) * (quiet + 1e-3 * whole))
    weight = weight / weight.sum()
    reaches = [_reach(blocks.power[:, :, k], weight, whole) for k in (least, most)]
    reach = None if None in reaches else max(r for r in reaches if r is not None)
    power = blocks.power[:, reach or 0]
    known = power.isfinite().all(1)
    weight, power = weight[known] / weight[known].sum(), power[known]
    shares = (weight[:, None] * power).sum(0)
    if not shares.sum() > 0:
        return None
    shares = shares / shares.sum()
    spread = power - shares * power.sum(1, keepdim=True)  # of a ratio of sums
    errors = (weight[:, None] * spread).square().sum(0).sqrt() / (
        weight[:, None] * power
    ).sum().abs()
    errors = errors * (len(weight) / (len(weight) - 1)) ** 0.5
    variance = whole * len(shares)
    return NoiseLevels(
        tuple((shares * variance).tolist()), tuple((errors * variance).tolist()), reach
    )


@dataclass(frozen=True)
class _Blocks:
    """Means over blocks.

    Attributes:
        power: `noise_power` with each of `NEIGHBOURS`, (blocks, reaches, K).
        total: the mean variance of the captures, (blocks,).
        texture: what the neighbours do not predict, (blocks, K).
        free: whether no values are clipped, (blocks,).
    """

    power: Tensor
    total: Tensor
    texture: Tensor
    free: Tensor


def _joined(rows: Sequence[_Blocks], which: Any = slice(None)) -> _Blocks:
    """Blocks of several scenes; or some of them."""
    parts = [[getattr(row, name) for row in rows] for name in ("power", "total", "texture", "free")]
    return _Blocks(*(torch.cat(part)[which] for part in parts))


def _blocks_of(captures: Sequence[Tensor]) -> _Blocks:
    """Those of one scene; only blocks that are known in every capture."""
    images = [image.double() for image in captures]
    count, side = len(images), 16 if min(axes.size(images[0][None])) >= 64 else 8
    whole = sum(images[1:], images[0])
    clipped = torch.stack([near_ends(image) for image in images]).any(0)
    powers, totals, textures = [], [], []
    for image in images:
        difference = image - (whole - image) / (count - 1)
        rest = [residual(image, reach) for reach in range(len(NEIGHBOURS))]
        powers.append(torch.stack([_means(difference * r, side) for r in rest], 1))
        totals.append(_variances(difference, side))
        textures.append(_means(rest[0].square(), side))
    power, texture = torch.stack(powers, 2), torch.stack(textures, 1)
    total = torch.stack(totals, 1).mean(1) * (count - 1) / count
    known = power[:, 0].isfinite().all(1) & total.isfinite() & texture.isfinite().all(1)
    free = _means(clipped.double(), side) < 0.02
    return _Blocks(power[known], total[known], texture[known], free[known])


def _cut(image: Tensor, side: int) -> Tensor:
    """Whole blocks of an image (C, H, W), or of what there is where it is smaller: (blocks, pixels)."""
    _, height, width = image.shape
    blocks: Tensor = cut_blocks(image, min(side, height), min(side, width)).permute(1, 3, 0, 2, 4)
    return blocks.flatten(0, 1).flatten(1)


def _means(image: Tensor, side: int) -> Tensor:
    """Means of blocks; NaN where less than half of a block is known."""
    values = _cut(image, side)
    known = values.isfinite()
    return torch.where(
        known.double().mean(1) >= 0.5, values.nan_to_num(0).sum(1) / known.sum(1), torch.nan
    )


def _variances(image: Tensor, side: int) -> Tensor:
    """Variances of blocks; NaN where less than half of a block is known."""
    values = _cut(image, side)
    known = values.isfinite()
    count = known.sum(1)
    mean = values.nan_to_num(0).sum(1) / count
    squares = (values - mean[:, None]).nan_to_num(0).square().sum(1)
    return torch.where(known.double().mean(1) >= 0.5, squares / (count - 1), torch.nan)


def _reach(power: Tensor, weight: Tensor, whole: float) -> int | None:
    """The nearest neighbours from which farther ones do not differ in the noise that they tell; None: all do.

    Args:
        power: of the least noisy capture, (blocks, reaches).
        weight: of the blocks, (blocks,), of sum 1.
        whole: the mean variance of all captures.
    """
    for near in range(len(NEIGHBOURS) - 1):
        differs = False
        for far in range(near + 1, len(NEIGHBOURS)):
            apart = power[:, far] - power[:, near]
            known = apart.isfinite()  # near borders there are none so far away
            part = weight * known
            mean = float((part * apart.nan_to_num(0)).sum() / part.sum().clamp(min=1e-30))
            error = float(
                (part * (apart - mean).nan_to_num(0)).square().sum().sqrt()
                / part.sum().clamp(min=1e-30)
            )
            differs = differs or abs(mean) > max(SURE * error, 0.006 * whole)
        if not differs:
            return near
    return None


def one_way_errors(output: Tensor, reference: Tensor, noise: Tensor) -> Tensor:
    """Estimate the squared error of a denoised capture by another capture of the scene, without bias.

    E |f(y1) - y2|^2 = E |f(y1) - x|^2 + E n2^2, where f(y1) does not depend on n2.

    Args:
        output: f(y1), (B, C, H, W) or (B, C, D, H, W).
        reference: y2, in that shape; NaN where a pixel is unknown.
        noise: E n2^2 of each pixel, `noise_power`, or 0 for a capture without noise.

    Returns:
        In that shape, float64, of single pixels: their mean is the estimate. The uncertainty of the
            noise is in it.
    """
    return (
        output.detach().cpu().double() - reference.detach().cpu().double()
    ).square() - noise.detach().cpu().double()
