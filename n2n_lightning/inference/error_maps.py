"""The expected error of each pixel of denoised arrays: pages, tiles, and what cannot be known."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import as_pages, stacked_letters
from n2n_lightning.files import InputError, room
from n2n_lightning.formats import mosaics
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.page import Page, page_axes
from n2n_lightning.metrics.clipped_noise import clipped_noise
from n2n_lightning.metrics.error_map import errors_of_captures

Box = tuple[slice, ...]

# Pixels of a page whose errors are estimated at a time: 20 planes of floats for each channel.
PIXELS = 2**20
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
        InputError: there is one capture alone.
    """
    if has_captures(noisy.axes, noisy.array.shape):
        return errors_of_stack(model, noisy, result, options)
    if noisy.second is None:
        raise InputError("errors", True, "needs two captures: a second one, or halves")
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
        _write(targets, box, page.colours, values[inner], clipped[inner], errors)


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
        middle = box[axis].start + lengths[axis] // 2
        below = slice(box[axis].start, middle)
        above = slice(middle, box[axis].stop)
        parts = [(*box[:axis], half, *box[axis + 1 :]) for half in (below, above)] + parts
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
