"""Decide on a sample of a picture of integers if its result can be rounded to integers.

Rounding adds an error of 0.29 (1/12 of a squared step) and moves flat places to the next integer.
That is harmless where the error of the result is larger than a step, as in photographs; but photon
counts of 0.1 per pixel become 0.

The error of the result follows from the residual: for the estimate f with the least error, the
squared error is v times the mean of df/dy (Stein, Ann. Statist. 1981), v being the variance of the
noise, and the mean square r of the residual is v minus that error. So it is r d / (1 - d), with the
mean derivative d from one random perturbation, as in n2n_lightning.metrics.sure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from n2n_lightning.arrays.axes import as_pages, evenly, of_pages
from n2n_lightning.arrays.bad_pixels import invalid_mask
from n2n_lightning.arrays.frame_offsets import around
from n2n_lightning.arrays.normalization import IntensityScaling
from n2n_lightning.formats import mosaics
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.page import gaps, page_axes, pages_or_none, part_or_none

SIDE = 64  # pixels: height and width of the sampled blocks
DEPTH = 16  # planes of the sampled blocks of a volume
BLOCKS = 8  # number of sampled blocks, from the darkest to the brightest
PLACES = 3  # pages, or channels that go through the network alone, that blocks are taken from
STRONG = 32.0  # counts: where so much was removed, the error of the result is above a step
MEAN = 0.01  # share by which rounding may change a mean
FAINT = 2.0  # counts: in regions with less noise than this their mean is looked at, too
# noise variance over brightness: below it, and below a step, rounding has been the source's largest
# error
CLEAN = 0.1
STEP = 0.1  # of the perturbation, in units of what was removed


@dataclass(frozen=True)
class Sample:
    """Blocks of a picture and their results, float64 (n, pixels), NaN where a pixel is missing.

    Attributes:
        source, result: stored values; the result is not rounded.
        moved: the result for the source plus `step` times `sign`; None where it was not needed.
    """

    source: np.ndarray
    result: np.ndarray
    moved: np.ndarray | None = None
    sign: np.ndarray | None = None
    step: float = 0.0

    @property
    def removed(self) -> float:
        """Root mean square of the residual."""
        return float(np.sqrt(np.nanmean((self.source - self.result) ** 2)))

    @property
    def error(self) -> float:
        """Expected root mean square error of the result."""
        if self.moved is None or self.sign is None:
            return self.removed
        change = self.sign * (self.moved - self.result)
        slope = float(np.nanmean(change)) / self.step
        slope = min(max(slope, 1e-4), 0.9)
        return self.removed * (slope / (1 - slope)) ** 0.5


def lossy(model: Any, noisy: NoisyArray, options: DenoiseOptions) -> str | None:
    """Judge whether rounding the result of an array of integers to whole numbers would do harm.

    Args:
        model: a denoiser.TrainedDenoiser.
        noisy: the array; of a mosaic each plane is judged by itself.
        options: those that it will be denoised with.

    Returns:
        The harm, to follow "rounding would"; None: there is none.
    """
    array = noisy.array
    if array.dtype.kind not in "iu":
        return None
    if noisy.mosaic:
        for place in mosaics.planes(noisy.axes):
            harm = lossy(model, noisy.plane(place), options)
            if harm:
                return harm
        return None
    display = _is_display(noisy)
    if display and _is_bright(array):  # an ordinary photograph
        return None
    sample = sampled(model, noisy, options)
    if sample is None:
        return None
    return reason(sample, display)


def _is_display(noisy: NoisyArray) -> bool:
    """Return True for the colours of a screen, 0 to 255."""
    if noisy.array.dtype != np.uint8 or not noisy.colour:
        return False
    channels = 1
    if "C" in noisy.axes:
        channels = noisy.array.shape[noisy.axes.index("C")]
    return channels - noisy.alpha == 3


def _is_bright(array: np.ndarray) -> bool:
    """Return True if rounding, by half a step at most, changes the mean by less than MEAN."""
    coarse = []
    for length in array.shape:
        step = max(1, length // 200)
        coarse.append(slice(None, None, step))
    mean = float(array[tuple(coarse)].mean())
    return mean * MEAN > 0.5


def reason(sample: Sample, display: bool = False) -> str | None:
    """Return the harm that rounding does to a sample, see `lossy`.

    Args:
        sample: of the picture.
        display: the values are colours of a screen, 0 to 255; only their mean matters.

    Returns:
        The harm in words; None: there is none.
    """
    harm = _change_of_mean(sample)
    if harm is None and not display:
        harm = _change_of_faint_region(sample)
        if harm is None:
            harm = _added_error(sample)
    return harm


def _change_of_mean(sample: Sample) -> str | None:
    """Return the change of the mean of all blocks, in words, if it matters."""
    result = sample.result
    before = float(np.nanmean(result))
    after = float(np.nanmean(np.rint(result)))
    brightness = float(np.nanmean(sample.source))
    count = int(np.isfinite(result).sum())
    if abs(after - before) > _noticeable(brightness, count):
        return f"change the mean from {before:.3g} to {after:.3g}"
    return None


def _change_of_faint_region(sample: Sample) -> str | None:
    """Return the largest relative change of the mean of a block with little noise, in words."""
    source = sample.source
    result = sample.result
    residual_power = np.nanmean((source - result) ** 2, axis=1)
    removed = np.sqrt(residual_power)
    means = np.nanmean(source, axis=1)
    before = np.nanmean(result, axis=1)
    rounded = np.rint(result)
    after = np.nanmean(rounded, axis=1)
    change = np.abs(after - before)
    noticed = change > _noticeable(means, result.shape[1])
    faint = (removed > 0) & (removed < FAINT)
    counted = means != 0  # where nothing was counted, as in dead frames, 0 is right
    changed = noticed & faint & counted
    if not changed.any():
        return None
    relative = change / np.maximum(np.abs(means), 1e-9)
    relative[~changed] = 0
    worst = int(np.argmax(relative))
    return f"change the mean of a faint region from {before[worst]:.3g} to {after[worst]:.3g}"


def _added_error(sample: Sample) -> str | None:
    """Return the error of rounding in words, if it is about as large as that of the result."""
    noise = sample.removed
    brightness = float(np.nanmean(sample.source))
    clean = noise < 1 and noise**2 < CLEAN * abs(brightness)
    error = sample.error
    if error < 1 and not clean:
        return f"add an error of 0.29 to one of about {error:.2g}"
    return None


def _noticeable(mean: Any, count: int) -> Any:
    """Return the change of a mean of `count` values that matters, beyond chance in rounding."""
    variance = 1 / 12 / max(count, 1)
    chance = 4 * variance**0.5
    return np.maximum(MEAN * np.abs(mean), chance)


@dataclass(frozen=True)
class Stack:
    """A page (H, W, C) or volume (D, H, W, C) between its frames of context, and their masks."""

    frames: list[np.ndarray]
    masks: list[np.ndarray | None]

    @property
    def page(self) -> np.ndarray:
        """The one in the middle."""
        return self.frames[len(self.frames) // 2]

    def cut(
        self, place: tuple[slice, ...], nodata_values: tuple[float, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cut a block out of each frame.

        Args:
            place: a slice of each spatial axis.
            nodata_values: stored values that mark missing pixels.

        Returns:
            The blocks, and masks of their missing pixels.
        """
        blocks = []
        invalid = []
        for frame, mask in zip(self.frames, self.masks, strict=True):
            block = frame[place]
            missing = invalid_mask(block, nodata_values)
            if missing is None:
                missing = np.zeros(block.shape, bool)
            if mask is not None:
                missing = missing | mask[place]
            blocks.append(block)
            invalid.append(missing)
        return np.stack(blocks), np.stack(invalid)


def sampled(model: Any, noisy: NoisyArray, options: DenoiseOptions) -> Sample | None:
    """Denoise blocks of a picture, of evenly spread brightness.

    Args:
        model, noisy, options: see `lossy`.

    Returns:
        The blocks and their results; None where every block has missing pixels only.
    """
    chosen = _blocks(_stacks(model, noisy), noisy.nodata_values)
    if chosen is None:
        return None
    blocks, invalid = chosen
    sample_options = replace(options, tile="auto", batch=1)
    # The range is estimated from the integers: that of float32 values would be another.
    if options.scale is None and model.range is None:
        middle = len(blocks) // 2
        limits = IntensityScaling.of(
            blocks[middle], None, True, (), model.equivariant, invalid[middle]
        )
        black = limits.black[0]
        white = black + limits.span[0]
        sample_options = replace(sample_options, scale=float(white), black=float(black))
    letters = "TNHWC" if model.dims == 2 else "TNDHWC"

    def denoised(values: np.ndarray) -> np.ndarray:
        result = np.empty(values.shape, np.float32)
        stack = NoisyArray(values.astype(np.float32), letters, invalid=invalid, unit=noisy.unit)
        model.denoise_into(result, stack, sample_options)
        return _flat_middle(result, invalid)

    sample = Sample(_flat_middle(blocks, invalid), denoised(blocks))
    if not 0 < sample.removed < STRONG:
        return sample
    sign = np.random.default_rng(0).choice([-1.0, 1.0], blocks.shape)
    if model.sees_middle:  # its frame alone is perturbed, and copies of it at the ends of a movie
        middle = len(blocks) // 2
        own = sign[middle]
        sign = np.zeros_like(sign)
        for frame, values in enumerate(blocks):
            if np.array_equal(values, blocks[middle]):
                sign[frame] = own
    step = STEP * sample.removed
    return replace(
        sample,
        moved=denoised(blocks + step * sign),
        sign=_flat_middle(sign, invalid),
        step=step,
    )


def _flat_middle(frames: np.ndarray, invalid: np.ndarray) -> np.ndarray:
    """Return the blocks of the middle frame, float64 (n, pixels), NaN where they are invalid."""
    middle = len(frames) // 2
    blocks = frames[middle].astype(np.float64)
    valid = np.where(invalid[middle], np.nan, blocks)
    return valid.reshape(len(valid), -1)


def _stacks(model: Any, noisy: NoisyArray) -> list[Stack]:
    """Return some pages of a picture; channels that are denoised alone are pages, too."""
    axes = page_axes(noisy.axes, model.dims)
    pages = as_pages(noisy.array, axes, model.dims)
    masks = pages_or_none(noisy.invalid, axes, model.dims)
    surrounding = [as_pages(frame, axes, model.dims) for frame in noisy.near]
    half = len(surrounding) // 2
    if model.sees_middle and surrounding:  # the frame itself is among them
        surrounding[half] = pages
    else:
        surrounding.insert(half, pages)
    stacked, _, channels = of_pages(pages.shape, model.dims)
    colours = model.colours_of(noisy, channels)
    if model.takes_together(noisy, colours):
        groups = [slice(colours)]
    else:
        groups = [slice(c, c + 1) for c in range(colours)]
    places = list(product(np.ndindex(*stacked), groups))
    stacks = []
    for number in evenly(len(places), PLACES):
        place, group = places[number]
        if noisy.near:
            frames = [page[..., group] for page in surrounding]
            stacks.append(Stack(frames, [None] * len(frames)))
        else:
            stacks.append(_stack_at(pages, masks, place, group, model))
    return stacks


def _stack_at(
    pages: np.ndarray,
    masks: np.ndarray | None,
    place: tuple[int, ...],
    group: slice,
    model: Any,
) -> Stack:
    """Return some channels of a page, and of the frames around it that the network sees."""
    frames = []
    frame_masks = []
    shifts = range(-model.context, model.context + 1)
    if not place:  # a single picture, which a network of movies refuses
        shifts = range(1)
    for shift in shifts:
        where = place
        if shift:
            where = (around(place[0], shift, len(pages), model.sees_middle), *place[1:])
        index: Any = (*where, ..., group)
        frames.append(pages[index])
        frame_masks.append(part_or_none(masks, index))
    return Stack(frames, frame_masks)


class _Block(NamedTuple):
    """A block that may be sampled: its place in a stack, and the mean of its valid pixels."""

    brightness: float
    stack: Stack
    place: tuple[slice, ...]
    nodata_values: tuple[float, ...]


def _blocks(
    stacks: Sequence[Stack], nodata_values: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Cut out blocks (T, n, H, W, C) of evenly spread brightness, and their invalid masks."""
    places = _block_places(stacks[0].page.shape[:-1])
    candidates = []
    for stack in stacks:
        declared = gaps(stack.page, nodata_values)
        for place in places:
            brightness = _brightness(stack.page[place], declared)
            if brightness is not None:
                candidates.append(_Block(brightness, stack, place, declared))
    candidates.sort(key=attrgetter("brightness"))
    blocks = []
    invalid = []
    for number in _spread(len(candidates)):
        candidate = candidates[number]
        pixels, missing = candidate.stack.cut(candidate.place, candidate.nodata_values)
        middle = missing[len(missing) // 2]
        empty = middle.all((-1, -2, -3))  # of a volume, for each plane
        if not empty.any():
            blocks.append(pixels)
            invalid.append(missing)
    if not blocks:
        return None
    return np.stack(blocks, 1), np.stack(invalid, 1)


def _block_places(size: Sequence[int]) -> list[tuple[slice, ...]]:
    """Return the places of about 16 blocks along each spatial axis, fewer along a short one."""
    sides = (SIDE, SIDE) if len(size) == 2 else (DEPTH, SIDE, SIDE)
    along_axes = []
    for length, longest in zip(size, sides, strict=True):
        side = min(length, longest)
        sixteenth = length // 16 // side * side
        step = max(side, sixteenth)
        starts = range(0, length - side + 1, step)
        along_axes.append([slice(start, start + side) for start in starts])
    return list(product(*along_axes))


def _brightness(block: np.ndarray, nodata_values: tuple[float, ...]) -> float | None:
    """Return the mean of every fourth pixel of a block; None if half of them are missing."""
    every_fourth = (slice(None, None, 4),) * (len(block.shape) - 1)
    pixels = block[every_fourth]
    missing = invalid_mask(pixels, nodata_values)
    if missing is None:
        return float(pixels.mean())
    if missing.mean() < 0.5:
        return float(pixels[~missing].mean())
    return None


def _spread(count: int) -> list[int]:
    """Return the middles of up to BLOCKS equal parts of `count` numbers.

    >>> _spread(16), _spread(3)
    ([1, 3, 5, 7, 9, 11, 13, 15], [0, 1, 2])
    """
    parts = min(BLOCKS, count)
    middles = (np.arange(parts) + 0.5) * count / parts
    return [int(middle) for middle in middles]
