"""Restore texture that a blind denoiser removed as noise.

A blind denoiser mistakes some knitwear, sand or foliage for weak noise. But the noise of one
exposure depends on brightness: about as much is removed from all surfaces of one brightness. Where
much more is removed, and the result still has structure, most of the residual is picture. Then only
a share s of the residual, of mean square E, is removed. If the residual has all of the noise, of
variance N, and the rest of it is independent of the noise, the mean squared error becomes
(1 - s)^2 N + s^2 (E - N): least for s = N / E, and for s up to 2 N / E at most N, the error of the
noisy picture. So s = min(1, 2 N / E), which is below 1 where most of the residual is picture.
"""

import numpy as np

from n2n_lightning.arrays.blocks import cut_blocks
from n2n_lightning.inference.page import Page
from n2n_lightning.metrics.noise_model import robust_noise_line

BLOCK_SIDE = 16  # pixels: of blocks that are compared with one another
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


@np.errstate(over="ignore", invalid="ignore")  # of huge values: of their blocks nothing is known
def put_back(page: Page, together: bool) -> None:
    """Put texture back into the result of a page (H, W, C), in place.

    Args:
        page: source and result; pages of fewer than FEWEST blocks are left.
        together: the channels are colours and judged together, otherwise each by itself.
    """
    height, width = page.sink.shape[:2]
    if (height // BLOCK_SIDE) * (width // BLOCK_SIDE) < FEWEST:
        return
    strips = page.strips(BLOCK_SIDE)
    measured = [_measured(*page.both(strip), together) for strip in strips]
    removed, left, bright = (np.concatenate(parts, 1) for parts in zip(*measured, strict=True))
    shares = map(_share_removed, removed, left, bright)
    taken = np.stack(list(shares))
    if taken.min() == 1:
        return
    peaks = PEAK * np.sqrt(np.nan_to_num(removed))
    for strip in strips:
        share = _interpolated(taken, strip, width)
        if share.min() < 1:
            peak = _interpolated(peaks, strip, width)
            difference = page.removed(strip)
            calm = (2 - np.abs(difference) / np.maximum(peak, 1e-12)).clip(0, 1)
            page.mend(strip, (1 - share) * calm * difference)


def _measured(
    before: np.ndarray, after: np.ndarray, together: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure the blocks of a page.

    Args:
        before, after: source and result, (H, W, C), NaN where pixels are missing.
        together: average the channels.

    Returns:
        Mean square of the residual, variance (without a linear slope) and mean of the result, each
        (C, h, w), or (1, h, w) if averaged; NaN for blocks with missing pixels.
    """
    squares = _blocks((before - after) ** 2)
    values = _blocks(after)
    calm = round(BLOCK_SIDE * BLOCK_SIDE * (1 - HOT))
    left = values.var(-1)
    coordinates = np.mgrid[:BLOCK_SIDE, :BLOCK_SIDE].reshape(2, -1).astype(np.float32)
    for axis in coordinates:
        across = axis - axis.mean()
        left -= (values @ across) ** 2 / (across**2).sum() / across.size
    removed = np.partition(squares, calm - 1)[..., :calm].mean(-1)
    bright = values.mean(-1)
    if not together:
        return removed, left, bright
    removed, left, bright = (part.mean(0, keepdims=True) for part in (removed, left, bright))
    return removed, left, bright


def _blocks(values: np.ndarray) -> np.ndarray:
    """Cut (H, W, C) into whole blocks, (C, h, w, BLOCK_SIDE * BLOCK_SIDE)."""
    blocks = cut_blocks(values.transpose(2, 0, 1), BLOCK_SIDE).transpose(0, 1, 3, 2, 4)
    channels, height, width, *_ = blocks.shape
    return blocks.reshape(channels, height, width, BLOCK_SIDE * BLOCK_SIDE)


def _share_removed(removed: np.ndarray, left: np.ndarray, bright: np.ndarray) -> np.ndarray:
    """Return the share of the residual to remove from each block, (h, w): 1 where it is noise."""
    from scipy.ndimage import percentile_filter

    share = np.ones(removed.shape)
    # not beside missing pixels, or in graphics
    known = np.isfinite(removed + left + bright) & (removed > TINY)
    if known.sum() < FEWEST:
        return share
    square = removed[known].astype(np.float64)
    light = bright[known].astype(np.float64)
    few = np.random.default_rng(0).permutation(len(square))[:MAX_BLOCKS]
    few = few[np.argsort(light[few], kind="stable")]
    base, slope = robust_noise_line(light[few], square[few])
    near = percentile_filter(square[few], LOW, max(1, round(NEAR * len(few))))
    # The largest of three estimates: texture has to exceed all of them.
    usual = np.maximum(base + slope * light, np.median(square))
    usual = np.maximum(usual, np.interp(light, light[few], near))
    texture = _rising(left[known] / square, *SURFACE)
    low, high = np.quantile(light, (0.02, 0.98))
    weak = 1 - _rising(np.sqrt(square) / max(high - low, 1e-12), *STRONG)
    restored = 1 - np.minimum(1, 2 * usual / square)
    share[known] -= texture * weak * restored
    return share


def _rising(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 up to `low`, 1 from `high` on, and a linear ramp between them."""
    return ((values - low) / (high - low)).clip(0, 1)


def _interpolated(values: np.ndarray, rows: slice, width: int) -> np.ndarray:
    """Interpolate values of blocks (C, h, w) linearly at some rows of pixels: (rows, width, C)."""
    for axis, pixels in ((1, np.arange(rows.start, rows.stop)), (2, np.arange(width))):
        last = values.shape[axis] - 1
        place = ((pixels + 0.5) / BLOCK_SIDE - 0.5).clip(0, last)
        low = place.astype(int)
        part = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
        above = np.take(values, np.minimum(low + 1, last), axis)
        values = (1 - part) * np.take(values, low, axis) + part * above
    return np.moveaxis(values, 0, -1)
