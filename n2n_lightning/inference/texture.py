"""Restore texture that a blind denoiser removed as noise.

A blind denoiser mistakes some knitwear, sand or foliage for weak noise. But the noise of one
exposure depends on brightness: about as much is removed from all surfaces of one brightness. Where
much more is removed, and the result still has structure, most of the residual is picture. Then only
a share s of the residual, of mean square E, is removed. If the residual has all of the noise, of
variance N, and the rest of it is independent of the noise, the mean squared error becomes
(1 - s)^2 N + s^2 (E - N): least for s = N / E, and for s up to 2 N / E at most N, the error of the
noisy picture. So s = min(1, 2 N / E), which is below 1 where most of the residual is picture.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from n2n_lightning.arrays.axes import along
from n2n_lightning.arrays.blocks import cut_blocks
from n2n_lightning.inference.page import Page
from n2n_lightning.metrics.noise_model import robust_noise_line

BLOCK_SIDE = 16  # pixels: of blocks that are compared with one another
PIXELS_AT_ONCE = 2**16  # that are measured; with CELL_SIDE: what fits into caches
CELL_SIDE = 256  # pixels: of cells of the page; those without texture are left at once
FEWEST = 16  # blocks that can say what is usual
MAX_BLOCKS = 500  # blocks at most for the line of their noise: its time grows with their square
TINY = 1e-12  # mean square that is next to nothing, of the network's range
HOT = 0.02  # share of a block's pixels that may be hot ones and do not count
# variance of the result over that removed: of surfaces it is below, of texture above
SURFACE = (0.2, 0.5)
# deviation of what was removed over the picture's range: beyond, noise is too strong to stay
STRONG = (0.1, 0.2)
# deviations of what was removed: less is put back of pixels that were further off; of hot ones
# nothing
PEAK = 5.0
# share of the blocks nearest in brightness, and the percentile of them that is usual at least
NEAR, LOW = 0.1, 25


@dataclass(frozen=True)
class UsualResidual:
    """The usual mean square of the residual at each brightness, in network units.

    It is the largest of three estimates, which texture has to exceed: a line, the median of all
    blocks, and a percentile of the blocks next in brightness.

    Attributes:
        light: brightness of some blocks, ascending, (n,).
        percentile: of the mean squares of the blocks next to each in brightness, (n,).
        base, slope: the line.
        median: of all blocks.
        contrast: range of the brightness of all blocks.
    """

    light: np.ndarray
    percentile: np.ndarray
    base: float
    slope: float
    median: float
    contrast: float

    @classmethod
    def of(cls, light: np.ndarray, square: np.ndarray) -> "UsualResidual":
        """Measure it on blocks.

        Args:
            light: their brightness, (n,).
            square: mean square of the residual of each, (n,).

        Returns:
            The facts.
        """
        from scipy.ndimage import percentile_filter

        shuffled = np.random.default_rng(0).permutation(len(square))
        drawn = shuffled[:MAX_BLOCKS]
        order = np.argsort(light[drawn], kind="stable")
        by_light = drawn[order]
        sorted_light = light[by_light]
        sorted_square = square[by_light]
        base, slope = robust_noise_line(sorted_light, sorted_square)
        neighbours = max(1, round(NEAR * len(by_light)))
        percentile = percentile_filter(sorted_square, LOW, neighbours)
        low, high = np.quantile(light, (0.02, 0.98))
        contrast = max(high - low, 1e-12)
        return cls(sorted_light, percentile, base, slope, np.median(square), contrast)

    def at(self, light: np.ndarray) -> np.ndarray:
        """Return the usual mean square at some brightness, in its shape."""
        of_line = self.base + self.slope * light
        of_neighbours = np.interp(light, self.light, self.percentile)
        usual = np.maximum(of_line, self.median)
        return np.maximum(usual, of_neighbours)


@np.errstate(over="ignore", invalid="ignore")
def usual_residuals(pages: Iterable[Page], together: bool) -> list[UsualResidual | None]:
    """Measure the usual residual on pages (H, W, C) that were denoised without texture.

    Args:
        pages: source and result of each.
        together: the channels are colours and judged together, otherwise each by itself.

    Returns:
        Of each channel, or of all; None where too few blocks are known.
    """
    measured = []
    for page in pages:
        before, after = page.both(slice(0, page.size[0]))
        blocks = _measured(before, after, together)
        measured.append(blocks.reshape(*blocks.shape[:2], -1))
    facts: list[UsualResidual | None] = []
    for removed, left, bright in np.concatenate(measured, axis=2).swapaxes(0, 1):
        known = _known_blocks(removed, left, bright)
        if known.sum() < FEWEST:
            facts.append(None)
            continue
        light = bright[known].astype(np.float64)
        facts.append(UsualResidual.of(light, removed[known].astype(np.float64)))
    return facts


@np.errstate(over="ignore", invalid="ignore")  # of huge values: of their blocks nothing is known
def put_back(page: Page, together: bool) -> None:
    """Put texture back into the result of a page (H, W, C), in place.

    Args:
        page: source and result; pages of fewer than FEWEST blocks are left. What is usual is
            measured on the page, where it does not say it.
        together: the channels are colours and judged together, otherwise each by itself.
    """
    height, width = page.sink.shape[:2]
    count = (height // BLOCK_SIDE) * (width // BLOCK_SIDE)
    if count < FEWEST:
        return
    strips = page.strips(BLOCK_SIDE, PIXELS_AT_ONCE)
    measured = []
    for strip in strips:
        before, after = page.both(strip)
        measured.append(_measured(before, after, together))
    of_page = np.concatenate(measured, axis=2)
    removed = of_page[0]
    of_channels = []
    for channel, blocks in enumerate(of_page.swapaxes(0, 1)):
        usual = page.usual_residuals[channel] if page.usual_residuals else None
        removed_variance, left, bright = blocks
        of_channels.append(_share_removed(removed_variance, left, bright, usual))
    shares = np.stack(of_channels)
    if shares.min() == 1:
        return
    peaks = PEAK * np.sqrt(np.nan_to_num(removed))
    for rows, columns in _cells(height, width):
        share = _interpolated(shares, rows, columns)
        if share.min() < 1:
            peak = _interpolated(peaks, rows, columns)
            residual = page.removed(rows, columns)
            deviation = np.abs(residual) / np.maximum(peak, 1e-12)
            calm = (2 - deviation).clip(0, 1)
            page.mend(rows, (1 - share) * calm * residual, columns)


def _cells(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of the cells of a page, the last of which may be smaller."""
    for top, left in product(range(0, height, CELL_SIDE), range(0, width, CELL_SIDE)):
        bottom = min(top + CELL_SIDE, height)
        right = min(left + CELL_SIDE, width)
        yield slice(top, bottom), slice(left, right)


def _measured(before: np.ndarray, after: np.ndarray, together: bool) -> np.ndarray:
    """Measure the blocks of a page.

    Args:
        before, after: source and result, (H, W, C), NaN where pixels are missing.
        together: average the channels.

    Returns:
        (3, C, h, w), or (3, 1, h, w) if averaged: mean square of the residual, variance and mean of
        the result; NaN for blocks with missing pixels.
    """
    squares = _blocks((before - after) ** 2)
    values = _blocks(after)
    calm = round(BLOCK_SIDE * BLOCK_SIDE * (1 - HOT))
    lowest = np.partition(squares, calm - 1)[..., :calm]
    removed = lowest.mean(-1)
    left = _variance_without_slope(values)
    bright = values.mean(-1)
    measured = np.stack((removed, left, bright))
    if together:
        measured = measured.mean(1, keepdims=True)
    return measured


def _variance_without_slope(blocks: np.ndarray) -> np.ndarray:
    """Return the variance of blocks (..., pixels) less that of their linear slopes."""
    variance: np.ndarray = blocks.var(-1)
    rows_and_columns = np.mgrid[:BLOCK_SIDE, :BLOCK_SIDE]
    for coordinates in rows_and_columns.reshape(2, -1).astype(np.float32):
        centred = coordinates - coordinates.mean()
        power = (centred**2).sum()
        slope = blocks @ centred
        variance -= slope**2 / power / centred.size
    return variance


def _blocks(values: np.ndarray) -> np.ndarray:
    """Cut (H, W, C) into whole blocks, (C, h, w, BLOCK_SIDE * BLOCK_SIDE)."""
    planes = values.transpose(2, 0, 1)
    blocks = cut_blocks(planes, BLOCK_SIDE).transpose(0, 1, 3, 2, 4)
    return blocks.reshape(*blocks.shape[:3], BLOCK_SIDE * BLOCK_SIDE)


def _known_blocks(removed: np.ndarray, left: np.ndarray, bright: np.ndarray) -> np.ndarray:
    """Return the blocks that say something: none beside missing pixels, or in graphics."""
    known: np.ndarray = np.isfinite(removed + left + bright)
    known &= removed > TINY
    return known


def _share_removed(
    removed: np.ndarray,
    left: np.ndarray,
    bright: np.ndarray,
    usual: UsualResidual | None,
) -> np.ndarray:
    """Return the share of the residual to remove from each block, (h, w): 1 where it is noise.

    Args:
        removed, left, bright: see _measured, (h, w) each.
        usual: None: measured on the blocks.
    """
    share = np.ones(removed.shape)
    known = _known_blocks(removed, left, bright)
    if not known.any() or (usual is None and known.sum() < FEWEST):
        return share
    square = removed[known].astype(np.float64)
    light = bright[known].astype(np.float64)
    if usual is None:
        usual = UsualResidual.of(light, square)
    texture = _rising(left[known] / square, *SURFACE)
    strength = np.sqrt(square) / usual.contrast
    weak = 1 - _rising(strength, *STRONG)
    noise = np.minimum(1, 2 * usual.at(light) / square)
    restored = 1 - noise
    share[known] -= texture * weak * restored
    return share


def _rising(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 up to `low`, 1 from `high` on, and a linear ramp between them."""
    ramp = (values - low) / (high - low)
    return ramp.clip(0, 1)


def _interpolated(values: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """Interpolate values of blocks (C, h, w) linearly at some pixels: (rows, columns, C)."""
    values = _resampled(values, np.arange(rows.start, rows.stop), 1)
    values = _resampled(values, np.arange(columns.start, columns.stop), 2)
    return np.moveaxis(values, 0, -1)


def _resampled(values: np.ndarray, pixels: np.ndarray, axis: int) -> np.ndarray:
    """Interpolate values of blocks linearly along an axis, at the given pixels of it."""
    last = values.shape[axis] - 1
    of_blocks = (pixels + 0.5) / BLOCK_SIDE - 0.5
    position = of_blocks.clip(0, last)
    low = position.astype(int)
    high = np.minimum(low + 1, last)
    part = along(position - low, axis, len(values.shape))
    below = np.take(values, low, axis)
    above = np.take(values, high, axis)
    return (1 - part) * below + part * above
