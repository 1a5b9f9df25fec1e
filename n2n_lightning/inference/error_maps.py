"""The expected error of each pixel of denoised arrays: pages, tiles, and what cannot be known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from n2n_lightning.arrays.axes import as_pages, stacked_letters
from n2n_lightning.files import InputError, option, room
from n2n_lightning.formats import mosaics
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.page import Page, page_axes
from n2n_lightning.metrics.clipped_noise import clipped_noise
from n2n_lightning.metrics.error_map import errors_of_captures, errors_of_one
from n2n_lightning.metrics.noise_law import NoiseLaw
from n2n_lightning.metrics.single_noise import single_noise

Box = tuple[slice, ...]

# Pixels of a page whose errors are estimated at a time: 20 planes of floats for each channel.
PIXELS = 2**20
# Of the perturbation, in deviations of the noise: at 0.5 derivatives are 10% too small where noise
# is strong (benchmarks/error_map.py); with one direction, correlated noise ranks blocks worse.
STEP, DIRECTIONS = 0.1, 2
LEAST_VARIANCE = 0.05  # of the mean: below, the line is not known
MARGIN = 24  # pixels around such a part: three widths of error_map.NOISE_SIGMA
MISSING = "missing pixels"
CLIPPED = "clipped noise"


@dataclass
class ErrorMap:
    """The expected error of each pixel of a result.

    Attributes:
        values: float32, in the shape of the array and its unit: standard deviations; NaN where the
            error cannot be known, and in channels of transparency.
        unknown: the number of pixels without one, by reason.
        pixels: the number of all that were denoised.
    """

    values: np.ndarray
    unknown: dict[str, int] = field(default_factory=dict)
    pixels: int = 0

    @classmethod
    def unknown_of(cls, shape: tuple[int, ...]) -> "ErrorMap":
        """Return a map in which no error is known, as of a copied array."""
        values = room(shape, np.float32)
        values[...] = np.nan
        return cls(values)

    def count(self, reason: str, pixels: int) -> None:
        """Add pixels whose error cannot be known."""
        if pixels:
            self.unknown[reason] = self.unknown.get(reason, 0) + pixels

    def line(self) -> str:
        """Return a message about the pixels without an error; empty if there are none."""
        reasons = []
        for reason, count in self.unknown.items():
            reasons.append(f"{count / self.pixels:.1%} {reason}")
        return f"no error is known of {', '.join(reasons)}" if reasons else ""


def errors_of(
    model: Any, noisy: NoisyArray, result: np.ndarray, options: DenoiseOptions
) -> ErrorMap:
    """Estimate the errors of a denoised array, by its captures (K) or its second capture.

    Args:
        model: the denoiser.TrainedDenoiser.
        noisy: the array, with its second capture if there is one.
        result: of it.
        options: those that it was denoised with.

    Returns:
        The map.

    Raises:
        InputError: see `check_possible`.
    """
    if has_captures(noisy.axes, noisy.array.shape):
        return errors_of_stack(model, noisy, result, options)
    if noisy.second is None:
        return errors_of_picture(model, noisy, result, options)
    other = replace(noisy, array=noisy.second, second=noisy.array)
    denoised = room(noisy.array.shape, np.float32)
    model.denoise_into(denoised, other, options)
    return errors_of_pair(model, (noisy, other), (result, denoised), options)


def errors_of_pair(
    model: Any,
    pair: Sequence[NoisyArray],
    results: Sequence[np.ndarray],
    options: DenoiseOptions,
    of_mean: bool = False,
) -> ErrorMap:
    """Estimate the errors of two denoised captures of the same scenes.

    Args:
        model: the denoiser.TrainedDenoiser.
        pair: both captures, of one shape and unit.
        results: of each.
        options: those that they were denoised with.
        of_mean: the map is of the mean of both results, otherwise of either.

    Returns:
        The map.
    """
    first = pair[0]
    errors = ErrorMap.unknown_of(first.array.shape)
    for place in _planes(first):
        stacks = []
        for noisy, result in zip(pair, results, strict=True):
            plane = noisy.plane(place) if noisy.mosaic else noisy
            stacks.append(model.pages_of(plane, result[place], options))
        targets = as_pages(errors.values[place], page_axes(first.axes, model.dims), model.dims)
        for page_place in stacks[0].places:
            pages = [stack.at(page_place) for stack in stacks]
            _fill([targets[page_place]], pages, errors, of_mean)
    return errors


def errors_of_stack(
    model: Any, noisy: NoisyArray, result: np.ndarray, options: DenoiseOptions
) -> ErrorMap:
    """Estimate the errors of a denoised array with an axis of captures (K).

    Args:
        model: the denoiser.TrainedDenoiser.
        noisy: the array.
        result: of it.
        options: those that it was denoised with.

    Returns:
        The map, in the shape of the array: alike for all captures of a scene.
    """
    errors = ErrorMap.unknown_of(noisy.array.shape)
    letters = page_axes(noisy.axes, model.dims)
    axis = stacked_letters(letters, model.dims).index("K")
    stack = model.pages_of(noisy, result, options)
    targets = as_pages(errors.values, letters, model.dims)
    scenes: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for place in stack.places:
        scene = (*place[:axis], *place[axis + 1 :])
        scenes.setdefault(scene, []).append(place)
    for places in scenes.values():
        pages = [stack.at(place) for place in places]
        _fill([targets[place] for place in places], pages, errors)
    return errors


def errors_of_picture(
    model: Any,
    noisy: NoisyArray,
    result: np.ndarray,
    options: DenoiseOptions,
    known: NoiseLaw | None = None,
) -> ErrorMap:
    """Estimate the errors of a denoised array of single pictures, from their noise.

    Args:
        model: the denoiser.TrainedDenoiser.
        noisy: the array.
        result: of it.
        options: those that it was denoised with.
        known: the noise of each page; None: measured.

    Returns:
        The map.

    Raises:
        InputError: see `check_possible`.
    """
    check_possible(model, noisy)
    errors = ErrorMap.unknown_of(noisy.array.shape)
    for place in _planes(noisy):
        plane = noisy.plane(place) if noisy.mosaic else noisy
        stack = model.pages_of(plane, result[place], options)
        targets = as_pages(errors.values[place], page_axes(noisy.axes, model.dims), model.dims)
        for page_place in stack.places:
            page = stack.at(page_place)
            perturbed = _Perturbed(model, plane, page, options)
            _fill_single(targets[page_place], page, perturbed, known, errors)
    return errors


def check_possible(model: Any, noisy: NoisyArray) -> None:
    """Raise InputError where the errors of an array cannot be estimated.

    Args:
        model: the denoiser.TrainedDenoiser.
        noisy: the array, with its second capture if there is one.
    """
    if noisy.second is not None or has_captures(noisy.axes, noisy.array.shape):
        return
    kinds = {
        "volumes": model.dims == 3,
        "movies": bool(model.context),
        "photon counts that are split": model.thinned,
    }
    for kind, is_kind in kinds.items():
        if is_kind:
            raise InputError(
                "errors",
                True,
                f"a network of {kind} needs two captures:"
                f" {option('second', 'FILE')} or {option('halves', True)}",
            )


class _Perturbed:
    """Results of a page with noise added and subtracted.

    Args:
        model, noisy, options: see `errors_of_picture`.
        page: the page, (H, W, C).
    """

    def __init__(self, model: Any, noisy: NoisyArray, page: Page, options: DenoiseOptions) -> None:
        self.model = model
        self.options = options
        self.shown = replace(
            noisy, axes="HWC", alpha=False, invalid=None, movie=None, limits=page.limits
        )

    def change(self, captured: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Return the change of the result for a small change of the picture, per unit of it.

        Args:
            captured: stored values, (C, H, W), NaN where a pixel is missing.
            direction: the change, in that shape.

        Returns:
            In that shape.
        """
        outputs = []
        for step in (STEP, -STEP):
            moved = np.moveaxis(captured + step * direction, 0, -1)
            moved = np.ascontiguousarray(moved, np.float32)
            output = np.empty_like(moved)
            self.model.denoise_into(output, replace(self.shown, array=moved), self.options)
            outputs.append(np.moveaxis(output.astype(np.float64), -1, 0))
        above, below = outputs
        change: np.ndarray = (above - below) / (2 * STEP)
        return change


def has_captures(axes: str, shape: Sequence[int]) -> bool:
    """Return True if an array holds two or more captures of each scene."""
    return "K" in axes and shape[axes.index("K")] > 1


def _planes(noisy: NoisyArray) -> Sequence[Any]:
    """Return the places of the planes of a mosaic; of another array the place of all of it."""
    return mosaics.planes(noisy.axes) if noisy.mosaic else [...]


def _fill(
    targets: Sequence[np.ndarray], pages: Sequence[Page], errors: ErrorMap, of_mean: bool = False
) -> None:
    """Write the errors of the captures of one scene, part by part.

    Args:
        targets: maps of pages, (H, W, C) or (D, H, W, C), which get the same errors.
        pages: the captures, with their results.
        errors: gets the numbers of pixels whose error is unknown.
        of_mean: see `errors_of_pair`.
    """
    page = pages[0]
    for box in boxes(page.size):
        around, inner = widened(box, page.size)
        stored = [capture.stored(around) for capture in pages]
        noisy = [one for one, _ in stored]
        found = errors_of_captures(noisy, [result for _, result in stored])
        values = found.mean if of_mean else found.each
        clipped = clipped_noise(noisy)
        values = values[inner]
        _write(targets, box, page.colours, values, clipped[inner], errors)


class PerturbedMoments(NamedTuple):
    """What noise does to a result, pixel by pixel, see error_map.errors_of_one.

    Attributes:
        variance: of the noise.
        covariance: of the noise and the result.
        spread: variance of the result.
    """

    variance: np.ndarray
    covariance: np.ndarray
    spread: np.ndarray


def perturbed_moments(
    noise: NoiseLaw, filled: np.ndarray, change: Callable[[np.ndarray], np.ndarray]
) -> PerturbedMoments:
    """Measure what noise does to a result, with DIRECTIONS draws of it.

    Args:
        noise: that of the picture.
        filled: the result without gaps, (C, H, W).
        change: of the result for a small change of the picture, per unit of it.

    Returns:
        The moments, (C, H, W) each.
    """
    draws = np.random.default_rng(0)
    covariance = np.zeros(filled.shape)
    spread = np.zeros(filled.shape)
    for _ in range(DIRECTIONS):
        direction = noise.direction(filled, draws)
        changed = change(direction)
        covariance += direction * changed / DIRECTIONS
        spread += changed**2 / DIRECTIONS
    variance = noise.variance(filled)
    variance = np.maximum(variance, LEAST_VARIANCE * abs(variance.mean()))
    return PerturbedMoments(variance, covariance, spread)


def _fill_single(
    target: np.ndarray,
    page: Page,
    perturbed: _Perturbed,
    known: NoiseLaw | None,
    errors: ErrorMap,
) -> None:
    """Write the errors of a single picture.

    Args:
        target: the map of the page, (H, W, C).
        page: the picture, with its result.
        perturbed: the results around it.
        known: its noise; None: measured.
        errors: gets the numbers of pixels whose error is unknown.
    """
    whole = tuple(slice(0, length) for length in page.size)
    captured, result = page.stored(whole)
    noise = known or single_noise(captured)
    if not noise.measurable:
        errors.pixels += captured.size
        errors.count(f"pixels, as the noise is not measurable: {noise.reason}", captured.size)
        return
    filled = np.nan_to_num(result, nan=float(np.nanmean(result)))
    moments = perturbed_moments(noise, filled, partial(perturbed.change, captured))
    a = float(np.mean(noise.a))
    b = float(np.mean(noise.b))
    line = (a, b)
    clipped = clipped_noise([captured], line)
    for box in boxes(page.size):
        around, inner = widened(box, page.size)
        part = (slice(None), *around)
        values = errors_of_one(
            captured[part],
            result[part],
            moments.variance[part],
            moments.covariance[part],
            moments.spread[part],
            noise.standard_error,
        )
        _write([target], box, page.colours, values[inner], clipped[part][inner], errors)


def _write(
    targets: Sequence[np.ndarray],
    box: Box,
    colours: int,
    values: np.ndarray,
    clipped: np.ndarray,
    errors: ErrorMap,
) -> None:
    """Write the errors of a part (C, ...) into the maps of pages, and count the unknown ones."""
    missing = ~np.isfinite(values)
    errors.pixels += values.size
    errors.count(MISSING, int(missing.sum()))
    errors.count(CLIPPED, int((clipped & ~missing).sum()))
    shown = np.where(clipped, np.nan, values)
    for target in targets:
        target[(*box, slice(colours))] = np.moveaxis(shown, 0, -1)


def boxes(size: Sequence[int], most: int = PIXELS) -> list[Box]:
    """Divide a page or volume into parts of at most `most` pixels.

    >>> boxes((100, 300), 15_000)
    [(slice(0, 100, None), slice(0, 150, None)), (slice(0, 100, None), slice(150, 300, None))]
    """
    parts: list[Box] = [tuple(slice(0, length) for length in size)]
    done = []
    while parts:
        box = parts.pop(0)
        lengths = [part.stop - part.start for part in box]
        if np.prod(lengths) <= most or max(lengths) == 1:
            done.append(box)
            continue
        axis = int(np.argmax(lengths))
        longest = box[axis]
        middle = longest.start + lengths[axis] // 2
        before = box[:axis]
        behind = box[axis + 1 :]
        first = (*before, slice(longest.start, middle), *behind)
        second = (*before, slice(middle, longest.stop), *behind)
        parts = [first, second, *parts]
    return done


def widened(box: Box, size: Sequence[int]) -> tuple[Box, tuple[Any, ...]]:
    """Return a part with a margin, and the place of the part in it, behind the axis of channels."""
    around = []
    inner: list[Any] = [slice(None)]
    for part, length in zip(box, size, strict=True):
        start = max(0, part.start - MARGIN)
        stop = min(length, part.stop + MARGIN)
        around.append(slice(start, stop))
        inner.append(slice(part.start - start, part.stop - start))
    return tuple(around), tuple(inner)
