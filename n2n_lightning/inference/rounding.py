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
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import as_pages, evenly, in_space, of_pages
from n2n_lightning.arrays.bad_pixels import invalid_mask
from n2n_lightning.arrays.frame_offsets import around
from n2n_lightning.arrays.normalization import IntensityScaling
from n2n_lightning.formats import mosaics
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.page import gaps

SIDE, DEPTH = 64, 16  # of the blocks that are looked at, in pixels and planes
BLOCKS = 8  # that are looked at, from the darkest to the brightest
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
        slope = float(np.nanmean(self.sign * (self.moved - self.result))) / self.step
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
    if display:
        coarse = tuple(slice(None, None, max(1, n // 200)) for n in array.shape)
        if float(array[coarse].mean()) * MEAN > 0.5:
            return None  # an ordinary photograph: no rounding changes its mean by so much
    sample = sampled(model, noisy, options)
    return None if sample is None else reason(sample, display)


def reason(sample: Sample, display: bool = False) -> str | None:
    """Return the harm that rounding does to a sample, see `lossy`.

    Args:
        sample: of the picture.
        display: the values are colours of a screen, 0 to 255.
    """
    source, result = sample.source, sample.result
    rounded = np.rint(result)
    whole = float(np.nanmean(result))
    after = float(np.nanmean(rounded))
    count = int(np.isfinite(result).sum())
    if abs(after - whole) > _noticeable(float(np.nanmean(source)), count):
        return f"change the mean from {whole:.3g} to {after:.3g}"
    if display:
        return None
    removed = np.sqrt(np.nanmean((source - result) ** 2, axis=1))
    means, before, then = (np.nanmean(part, axis=1) for part in (source, result, rounded))
    least = np.array([_noticeable(mean, len(result[0])) for mean in means])
    changed = (np.abs(then - before) > least) & (removed < FAINT) & (removed > 0)
    changed &= means != 0  # nothing was counted there, as in dead frames: 0 is right
    if changed.any():
        relative = np.abs(then - before) / np.maximum(np.abs(means), 1e-9)
        worst = int(np.argmax(np.where(changed, relative, 0)))
        return f"change the mean of a faint region from {before[worst]:.3g} to {then[worst]:.3g}"
    clean = sample.removed < 1 and sample.removed**2 < CLEAN * abs(float(np.nanmean(source)))
    if sample.error < 1 and not clean:
        return f"add an error of 0.29 to one of about {sample.error:.2g}"
    return None


def _noticeable(mean: float, count: int) -> float:
    """Return the change of a mean of `count` values that matters, beyond chance in rounding."""
    chance = 4 * (1 / 12 / max(count, 1)) ** 0.5
    return max(MEAN * abs(mean), chance)


def _is_display(noisy: NoisyArray) -> bool:
    """Return True for the colours of a screen, 0 to 255."""
    if noisy.array.dtype != np.uint8 or not noisy.colour:
        return False
    channels = noisy.array.shape[noisy.axes.index("C")] if "C" in noisy.axes else 1
    return channels - noisy.alpha == 3


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
        gone = []
        for frame, mask in zip(self.frames, self.masks, strict=True):
            pixels = frame[place]
            missing = invalid_mask(pixels, nodata_values)
            if missing is None:
                missing = np.zeros(pixels.shape, bool)
            gone.append(missing if mask is None else missing | mask[place])
        return np.stack([frame[place] for frame in self.frames]), np.stack(gone)


def sampled(model: Any, noisy: NoisyArray, options: DenoiseOptions) -> Sample | None:
    """Denoise blocks of a picture, of evenly spread brightness.

    Args:
        model, noisy, options: see `lossy`.

    Returns:
        The blocks and their results; None where every block has missing pixels only.
    """
    cut = _blocks(_stacks(model, noisy), noisy.nodata_values)
    if cut is None:
        return None
    blocks, gone = cut
    scale, black = options.scale, options.black
    if scale is None and model.range is None:  # of the integers, for floats are judged otherwise
        middle = len(blocks) // 2
        limits = IntensityScaling.of(
            blocks[middle], None, True, (), model.equivariant, gone[middle]
        )
        black, scale = float(limits.black[0]), float(limits.black[0] + limits.span[0])
    sample_options = replace(options, scale=scale, black=black, tile="auto", batch=1)
    letters = "TNHWC" if model.dims == 2 else "TNDHWC"

    def flat(values: np.ndarray) -> np.ndarray:
        middle = len(values) // 2
        known_ones = np.where(gone[middle], np.nan, values[middle].astype(np.float64))
        return known_ones.reshape(len(known_ones), -1)

    def denoised(values: np.ndarray) -> np.ndarray:
        result = np.empty(values.shape, np.float32)
        stack = NoisyArray(values.astype(np.float32), letters, invalid=gone, unit=noisy.unit)
        model.denoise_into(result, stack, sample_options)
        return flat(result)

    sample = Sample(flat(blocks), denoised(blocks))
    if not 0 < sample.removed < STRONG:
        return sample
    sign = np.random.default_rng(0).choice([-1.0, 1.0], blocks.shape)
    step = STEP * sample.removed
    return Sample(sample.source, sample.result, denoised(blocks + step * sign), flat(sign), step)


def _stacks(model: Any, noisy: NoisyArray) -> list[Stack]:
    """Return some pages of a picture; channels that are denoised alone are pages, too."""
    axes = in_space(noisy.axes) if model.dims == 3 else noisy.axes
    pages = as_pages(noisy.array, axes, model.dims)
    masks = None if noisy.invalid is None else as_pages(noisy.invalid, axes, model.dims)
    stacked, _, channels = of_pages(pages.shape, model.dims)
    colours = channels - (noisy.alpha and channels != model.channels)
    together = colours == model.channels and (noisy.colour or model.range is not None)
    groups = [slice(c, c + 1) for c in range(colours)]
    if together:
        groups = [slice(colours)]
    places = [(place, group) for place in np.ndindex(*stacked) for group in groups]
    shifts = range(-model.context, model.context + 1)
    near = [as_pages(frame, axes, model.dims) for frame in noisy.near]
    found = []
    for number in evenly(len(places), PLACES):
        place, group = places[number]
        where = [
            (around(place[0], k, stacked[0]), *place[1:]) if k else place
            for k in shifts
            if not near
        ]
        frames = [pages[p][..., group] for p in where]
        mask = [None if masks is None else masks[p][..., group] for p in where]
        if near:
            half = len(near) // 2
            frames = [page[..., group] for page in (*near[:half], pages, *near[half:])]
            mask = [None] * len(frames)
        found.append(Stack(frames, mask))
    return found


def _blocks(
    stacks: Sequence[Stack], nodata_values: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Cut out blocks (T, n, H, W, C) of evenly spread brightness, and their invalid masks."""
    size = stacks[0].page.shape[:-1]
    sides = [min(n, SIDE) for n in size[-2:]]
    sides = [min(size[0], DEPTH), *sides] if len(size) == 3 else sides
    steps = [max(side, n // 16 // side * side) for n, side in zip(size, sides, strict=True)]
    starts = []
    for n, side, step in zip(size, sides, steps, strict=True):
        starts.append(range(0, n - side + 1, step))
    corners = list(product(*starts))
    candidates = []
    for stack in stacks:
        declared = gaps(stack.page, nodata_values)
        for corner in corners:
            place = tuple(slice(a, a + side) for a, side in zip(corner, sides, strict=True))
            few = stack.page[tuple(slice(p.start, p.stop, 4) for p in place)]
            missing = invalid_mask(few, declared)
            if missing is None or missing.mean() < 0.5:
                bright = float(few.mean() if missing is None else few[~missing].mean())
                candidates.append((bright, stack, place, declared))
    if not candidates:
        return None
    candidates.sort(key=lambda candidate: candidate[0])
    chosen = [candidates[i] for i in _spread(len(candidates))]
    cut = [stack.cut(place, declared) for _, stack, place, declared in chosen]
    cut = [
        (pixels, gone) for pixels, gone in cut if not gone[len(gone) // 2].all((-1, -2, -3)).any()
    ]
    if not cut:
        return None
    return np.stack([pixels for pixels, _ in cut], 1), np.stack([gone for _, gone in cut], 1)


def _spread(count: int) -> list[int]:
    """Return the middles of up to BLOCKS equal parts of `count` numbers.

    >>> _spread(16), _spread(3)
    ([1, 3, 5, 7, 9, 11, 13, 15], [0, 1, 2])
    """
    parts = min(BLOCKS, count)
    return [int((k + 0.5) * count / parts) for k in range(parts)]
