"""Results without their bias against brightness: `denoise --unbias`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import evenly
from n2n_lightning.arrays.outlier_lists import OutlierCounts
from n2n_lightning.files import InputError, room
from n2n_lightning.inference.certificates import denoised_second
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.page import PageStack
from n2n_lightning.metrics.bias_curve import BiasCurve, fit_bias
from n2n_lightning.metrics.certificate import BLOCK_WIDTH

CapturePair = Sequence[tuple[NoisyArray, np.ndarray]]

FITTED_PLANES = 8  # of an array, evenly, on which the curve is fitted and measured


@dataclass
class UnbiasedArray:
    """An array that was denoised, and corrected.

    Attributes:
        counts: how many outliers were left and replaced.
        pair: both captures with their corrected results.
        lines: the bias of each channel.
    """

    counts: OutlierCounts
    pair: CapturePair
    lines: list[str]


def check_unbias(args: Any) -> None:
    """Raise InputError where the options of the command do not go with `--unbias`."""
    if not (args.second or args.halves):
        raise InputError(
            "unbias",
            True,
            "needs --second or --halves: in one picture, the result shares the noise, which hides"
            " its bias",
        )
    if args.errors:
        raise InputError("unbias", True, "goes without --errors, which are of uncorrected results")
    if args.adapt:
        raise InputError(
            "unbias",
            True,
            "goes without --adapt: a network that has seen the noise of the pictures fits it",
        )


def denoise_unbiased(
    model: Any,
    result: np.ndarray,
    noisy: NoisyArray,
    options: DenoiseOptions,
    advance: Callable[[int], Any] | None = None,
    marks: np.ndarray | None = None,
) -> UnbiasedArray:
    """Denoise an array and its second capture, and take the bias out of both results.

    Args:
        model: the denoiser.TrainedDenoiser.
        result, noisy, options, advance, marks: see `TrainedDenoiser.denoise_into`.

    Returns:
        Facts about the result.

    Raises:
        InputError: the array has no second capture, or is of a kind without a correction.
    """
    if noisy.second is None:
        raise InputError("unbias", True, "needs a second capture")
    _check_kind(model, noisy)
    array = noisy.array
    single = array.dtype.itemsize <= 2 or array.dtype == np.float32
    corrected = room(array.shape, np.float32 if single else np.float64)
    counts = model.denoise_into(corrected, noisy, options, advance, marks)
    other, of_other = denoised_second(model, noisy, options)
    lines = correct_bias(model, [(noisy, corrected), (other, of_other)], options)
    for number in range(len(array)):
        result[number] = array[number]
        changed = corrected[number] != array[number]
        _store(result, number, corrected[number], changed)
    return UnbiasedArray(counts, [(noisy, result), (other, of_other)], lines)


def _check_kind(model: Any, noisy: NoisyArray) -> None:
    """Raise InputError for arrays without a correction."""
    if noisy.mosaic:
        raise InputError("unbias", True, "does not go with the raw frames of colour cameras")
    if model.context:
        raise InputError("unbias", True, "works with checkpoints for pictures, not for movies")


def correct_bias(model: Any, pair: CapturePair, options: DenoiseOptions) -> list[str]:
    """Take the bias out of two results, in place: a curve for each channel of all pages.

    Args:
        model: the denoiser.TrainedDenoiser.
        pair: captures of the same scenes with their results, of floats. Pixels that are as in the
            capture stay.
        options: those that they were denoised with.

    Returns:
        The bias of each channel before and after, in words.
    """
    for noisy, _ in pair:
        _check_kind(model, noisy)
    stacks = [model.pages_of(noisy, result, options) for noisy, result in pair]
    channels = stacks[0].colours
    images = [_sampled_planes(stack) for stack in stacks]
    lines = []
    for channel in range(channels):
        captures = [noisy[channel] for noisy, _ in images]
        results = [denoised[channel] for _, denoised in images]
        fitted = fit_bias(results, captures)
        prefix = f"channel {channel}: " if channels > 1 else ""
        lines.append(prefix + fitted.line())
        if fitted.curve is None:
            continue
        for stack in stacks:
            _apply(stack, channel, fitted.curve)
    return lines


def _sampled_planes(stack: PageStack) -> tuple[np.ndarray, np.ndarray]:
    """Return planes of an array one below the other, noisy and denoised, (C, H, W).

    NaN between them, and where a pixel is missing or was left as it is.
    """
    noisy = []
    denoised = []
    for number in evenly(len(stack.places), FITTED_PLANES):
        page = stack.at(stack.places[number])
        *depth, height, width = page.size
        below = ((0, 0), (0, -height % BLOCK_WIDTH), (0, 0))
        planes: list[tuple[slice, ...]] = [()]
        if depth:
            chosen = evenly(depth[0], FITTED_PLANES)
            planes = [(slice(plane, plane + 1),) for plane in chosen]
        whole = slice(None)
        for place in planes:
            stored, result = page.stored((*place, whole, whole))
            captured = stored.reshape(-1, height, width)
            result = result.reshape(-1, height, width)
            result[result == captured] = np.nan
            noisy.append(np.pad(captured, below, constant_values=np.nan))
            denoised.append(np.pad(result, below, constant_values=np.nan))
    noisy_planes = np.concatenate(noisy, 1)
    denoised_planes = np.concatenate(denoised, 1)
    return noisy_planes, denoised_planes


def _apply(stack: PageStack, channel: int, curve: BiasCurve) -> None:
    """Correct a channel of all pages, but for pixels that are as in the capture."""
    for place in stack.places:
        page = stack.at(place)
        for rows in page.strips():
            where = (rows, ..., channel)
            before = page.source[where]
            after = page.sink[where]
            changed = np.isfinite(after) & (after != before)
            page.sink[where] = np.where(changed, curve(after), after)


def unbiased_halves(model: Any, pair: CapturePair, options: DenoiseOptions) -> UnbiasedArray:
    """Take the bias out of the results of two halves.

    Args:
        model: the denoiser.TrainedDenoiser.
        pair: the halves with their results, which are copied.
        options: those that they were denoised with.

    Returns:
        The corrected pair.
    """
    copies = []
    for noisy, result in pair:
        copy = room(result.shape, np.float64)
        copy[...] = result
        copies.append((noisy, copy))
    lines = correct_bias(model, copies, options)
    return UnbiasedArray(OutlierCounts(), copies, lines)


def store_mean(mean: np.ndarray, pair: CapturePair) -> None:
    """Write the mean of two corrected results over that of the uncorrected ones.

    Args:
        mean: of the uncorrected results; stays where a pixel of one is as in its capture.
        pair: see `unbiased_halves`.
    """
    (first, of_first), (second, of_second) = pair
    for number in range(len(mean)):
        one = of_first[number]
        other = of_second[number]
        changed = one != first.array[number]
        changed &= other != second.array[number]
        corrected = (one + other) / 2
        changed &= np.isfinite(corrected)
        _store(mean, number, corrected, changed)


def _store(result: np.ndarray, number: int, values: np.ndarray, changed: np.ndarray) -> None:
    """Write values into a part of a result where they changed; integers are rounded."""
    if result.dtype.kind in "iu":
        limits = np.iinfo(result.dtype)
        values = np.rint(values).clip(limits.min, limits.max)
    result[number] = np.where(changed, values, result[number])
