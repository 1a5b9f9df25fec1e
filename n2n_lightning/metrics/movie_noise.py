"""The noise of a movie, measured in its own frames where they are unchanged.

Of five frames in a row, y(t-2) to y(t+2), the middle one is compared with the mean of its two
neighbours, and with the mean of the two frames beyond:

    d = y(t) - [y(t-1) + y(t+1)] / 2,    e = y(t) - [y(t-2) + y(t+2)] / 2

The noises of the two means are independent. H, a high-pass filter, subtracts from each pixel what a
quadratic surface through its neighbours predicts of it, so that

    E d (H e) = v + E (x - x1) H (x - x2)

where v is the variance of the noise in y(t), x its image without noise, and x1 and x2 are the two
means without noise. Where the scene stands still or changes smoothly in space (events, bleaching,
lamps), the second term is zero. Blocks that change visibly are left out. This is judged by smoothed
differences of frames, which are independent of the noise that is measured.

Whole pixels of drift between the frames are undone first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import correlate, gaussian_filter

from n2n_lightning.arrays.registration import BLOCK_SIDE, BLUR
from n2n_lightning.metrics.autocorrelation import (
    LAGS,
    lagged_products,
    white_autocorrelation,
)
from n2n_lightning.metrics.frame_drift import block_means, registered
from n2n_lightning.metrics.noise_law import CORRELATED, NoiseLaw
from n2n_lightning.metrics.noise_line import NoiseBlocks, NoiseLine, fit_channels, uneven, unlike

REACH = 2  # frames on either side of the one whose noise is measured
# Values that are measured: by as many the variance is known to 0.1%, see benchmarks/movies.py.
MAX_VALUES = 3_000_000
MIN_FRAMES = 12  # measured, however large they are
MAX_SIDE = 1024  # pixels: of larger frames the middle is measured
# Correlation of differences of frames with later ones that noise does not have.
TRAVEL = 0.02
NOTICEABLE = 0.03  # correlation from which the high-pass filter avoids an offset
FILTER_SIDES = (5, 9, 13, 17)  # pixels: the smallest that has enough uncorrelated neighbours
CORRELATION_FRAMES = 24  # on which the correlation is measured
# Of the variance of correlated noise, relative, by its autocorrelation (benchmarks/movies.py).
GAIN_ERROR = 0.005
CORRELATION_STEPS = 3  # refinements of the autocorrelation; white noise needs one


@dataclass(frozen=True)
class MovieNoise(NoiseLaw):
    """The variance of a movie's noise, a + b brightness in each channel, in stored units.

    Attributes:
        in_time: the correlation of the noise of neighbouring frames.
        still_share: the share of the blocks that were measured.
    """

    in_time: float
    still_share: float


def movie_noise(movie: Sequence[Any], channels: int | None = None) -> MovieNoise:
    """Measure the noise of a movie.

    Args:
        movie: T frames (C, H, W) or (C, D, H, W), stored units, NaN where a pixel is unknown; an
            array, or any sequence that reads its frames when they are asked for: few are in memory
            at once. Dead and copied frames are to be left out.
        channels: C where volumes come with their planes along the channels, (C D, H, W).

    Returns:
        The noise; where it is not measurable, NaN and the reason.
    """
    if len(movie) < 2 * REACH + 1:
        return _unknown(f"the movie has {len(movie)} frames, and {2 * REACH + 1} are needed")
    first, *_, height, width = np.asarray(movie[0]).shape
    if min(height, width) < 4 * BLOCK_SIDE:
        return _unknown(f"the frames are smaller than {4 * BLOCK_SIDE} pixels")
    autocorrelation = white_autocorrelation()
    error = 0.0
    blocks: list[NoiseBlocks] = []
    lines: list[NoiseLine] = []
    for _ in range(CORRELATION_STEPS):
        high_pass = _high_pass(autocorrelation)
        if high_pass is None:
            return _unknown("the noise is correlated over too many pixels")
        blocks = _measure_blocks(movie, high_pass, autocorrelation, channels or first)
        lines = fit_channels(blocks)
        if not lines:
            return _unknown("nothing in the movie stands still, or it has no noise")
        autocorrelation, error, in_time = _correlations(movie, blocks, lines)
        if np.count_nonzero(autocorrelation) == 1:
            break
    correlated = np.count_nonzero(autocorrelation) > 1
    reason = ""
    if any(uneven(one, line) for one, line in zip(blocks, lines, strict=True)):
        reason = "the noise differs from place to place"
    if correlated and all(unlike(one) for one in blocks):
        reason = "neighbouring frames show different things"
    if abs(in_time) > CORRELATED:
        reason = f"the noise of neighbouring frames is correlated ({in_time:.2f})"
    return MovieNoise(
        np.array([line.a for line in lines]),
        np.array([line.b for line in lines]),
        _joint_error(lines, GAIN_ERROR if correlated else 0.0),
        np.array([one.brightness for one in blocks]),
        autocorrelation,
        in_time,
        float(np.mean([line.still.mean() for line in lines])),
        correlation_error=error,
        reason=reason,
    )


def _joint_error(lines: list[NoiseLine], gain_error: float) -> float:
    """Return the relative standard error of the mean variance of all channels.

    Channels of one movie are measured in the same blocks: their errors are added.

    Args:
        lines: one of each channel.
        gain_error: relative, common to the channels.
    """
    total = 0.0
    total_error = 0.0
    for line in lines:
        total += line.variance
        total_error += line.relative_error * line.variance
    joint = total_error / total
    return float(np.hypot(joint, gain_error))


def _unknown(reason: str) -> MovieNoise:
    nothing = np.full((2 * LAGS + 1, 2 * LAGS + 1), np.nan)
    line = np.array([np.nan])
    return MovieNoise(
        line,
        line,
        np.nan,
        line,
        nothing,
        np.nan,
        0.0,
        reason=reason,
    )


def _high_pass(autocorrelation: np.ndarray) -> np.ndarray | None:
    """Return a filter that subtracts the quadratic surface through the neighbours of a pixel.

    Args:
        autocorrelation: of the noise; neighbours with correlated noise are not used.

    Returns:
        (side, side), 1 in the middle, of the smallest side with twice as many neighbours as the
        surface has coefficients; None where there is none.
    """
    for side in FILTER_SIDES:
        half = side // 2
        near = slice(LAGS - half, LAGS + half + 1)
        free = abs(autocorrelation[near, near]) < NOTICEABLE
        surface = _quadratic_terms(half)[free]
        coefficients = surface.shape[1]
        if len(surface) < 2 * coefficients:
            continue
        if np.linalg.matrix_rank(surface) < coefficients:
            continue
        prediction = np.linalg.pinv(surface)[0]
        kernel = np.zeros((side, side))
        kernel[free] = -prediction
        kernel[half, half] = 1
        return kernel
    return None


def _quadratic_terms(half: int) -> np.ndarray:
    """Return 1, x, y, x^2, ... around a pixel, the constant first: (side, side, terms)."""
    offsets = np.arange(-half, half + 1)
    rows = offsets[:, None]
    columns = offsets[None]
    terms = []
    for i in range(3):
        for j in range(3 - i):
            term = rows**i * columns**j
            terms.append(term)
    return np.stack(terms, 2).astype(np.float64)


def _measured_frames(movie: Sequence[Any]) -> list[int]:
    """Choose frames with two on either side, evenly, for about MAX_VALUES values."""
    frame = _middle_of(np.asarray(movie[0]))
    wanted = max(MIN_FRAMES, MAX_VALUES // frame.size)
    last = len(movie) - 1 - REACH
    count = min(wanted, last - REACH + 1)
    spread = np.linspace(REACH, last, count)
    return [int(t) for t in spread.round()]


def _middle_of(frame: np.ndarray) -> np.ndarray:
    """Return the middle of a frame (..., H, W) up to MAX_SIDE high and wide, (planes, H, W)."""
    *_, height, width = frame.shape
    planes = frame.reshape(-1, height, width)
    return planes[:, _middle_of_side(height), _middle_of_side(width)]


def _middle_of_side(length: int) -> slice:
    """Return the middle of a side, up to MAX_SIDE long."""
    first = max(0, length - MAX_SIDE) // 2
    return slice(first, first + MAX_SIDE)


def _windows(movie: Sequence[Any], numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the five frames around each of some, without drift, (5, C, H, W), float64."""
    for t in numbers:
        frames = []
        for k in range(t - REACH, t + REACH + 1):
            frame = _middle_of(np.asarray(movie[k]))
            frames.append(frame.astype(np.float64))
        yield registered(np.stack(frames))


def _filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlate an image (H, W) with a kernel; NaN where the kernel leaves the image."""
    half = len(kernel) // 2
    result = np.full_like(image, np.nan)
    inside = slice(half, -half)
    result[inside, inside] = correlate(image, kernel, mode="nearest")[inside, inside]
    return result


def _differences(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return d and e of five frames (5, ..., H, W)."""
    far_before, before, middle, after, far_after = frames
    d = middle - (before + after) / 2
    e = middle - (far_before + far_after) / 2
    return d, e


def _measure_blocks(
    movie: Sequence[Any], high_pass: np.ndarray, autocorrelation: np.ndarray, channels: int
) -> list[NoiseBlocks]:
    """Measure blocks of the frames of a movie.

    Args:
        movie: see `movie_noise`.
        high_pass: the filter H.
        autocorrelation: of the noise, for the gains of the filters.
        channels: of the movie.

    Returns:
        The blocks of each channel.
    """
    gain = _gain(high_pass, autocorrelation)
    blurred_gain = _blurred_power(autocorrelation)
    white = np.count_nonzero(autocorrelation) == 1
    numbers = _measured_frames(movie)
    rows = []
    means = []
    travel = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    for frames in _windows(movie, numbers):
        for plane in frames.swapaxes(0, 1):
            means.append(np.nanmean(plane[REACH]))
            change = _change(plane, white) / blurred_gain
            travel += _travel(plane)
            power = _power(plane, high_pass) / gain
            around, middle = _brightness(plane, np.isfinite(power))
            texture = _texture(plane, high_pass)
            rows.append([block_means(power), change, around, middle, *texture])
    chance = 1 / np.sqrt(len(rows) * plane[0].size)
    strongest = abs(travel).max() / len(rows)
    moves = bool(strongest > TRAVEL + 5 * chance)
    count = len(rows[0][0])
    shape = (len(numbers), channels, -1)
    table = np.array(rows).reshape(*shape, 6, count)
    means_of_channels = np.array(means).reshape(shape)
    blocks = []
    for channel in range(channels):
        measures = table[:, channel].reshape(-1, 6, count).swapaxes(0, 1)
        mean = np.nanmean(means_of_channels[:, channel])
        power, change, around, middle, near, far = measures
        one = NoiseBlocks(power, change, around, middle, near, far, numbers, float(mean), moves)
        blocks.append(one)
    return blocks


def _travel(plane: np.ndarray) -> np.ndarray:
    """Return the correlation of the first two frames' difference with that of the last two.

    Noise has none, whatever its correlation in space. A texture that moves has: it is elsewhere.

    Args:
        plane: five frames, (5, H, W).

    Returns:
        For offsets up to LAGS, (2 LAGS + 1, 2 LAGS + 1).
    """
    first, second, _, fourth, fifth = plane
    early = np.nan_to_num(second - first)
    late = np.nan_to_num(fifth - fourth)
    spectrum = np.conj(np.fft.rfft2(early)) * np.fft.rfft2(late)
    products = np.fft.irfft2(spectrum, s=early.shape)
    centred = np.roll(products, (LAGS, LAGS), (0, 1))
    side = 2 * LAGS + 1
    near = centred[:side, :side]
    power = (early**2).sum() * (late**2).sum()
    correlation: np.ndarray = near / max(np.sqrt(power), 1e-30)
    return correlation


def _power(plane: np.ndarray, high_pass: np.ndarray) -> np.ndarray:
    """Return the mean of d (H e) and e (H d) of each pixel, from five frames (5, H, W)."""
    d, e = _differences(plane)
    product = d * _filtered(e, high_pass) + e * _filtered(d, high_pass)
    return product / 2


def _change(plane: np.ndarray, white: bool) -> np.ndarray:
    """Return the largest mean square of blurred differences over blocks.

    Args:
        plane: five frames, (5, H, W).
        white: True where the noise is white: only then are blurred differences with the middle
            frame independent of what the high-pass filter leaves of its noise.

    Returns:
        Per variance of single frames, (blocks,); NaN where nothing is known.
    """
    far_before, before, _, after, far_after = plane
    near = (after - before) / np.sqrt(2)
    far = (far_after - far_before) / np.sqrt(2)
    differences = [near, far]
    if white:
        d, _ = _differences(plane)
        differences.append(d / np.sqrt(1.5))
    squares = []
    for difference in differences:
        blurred = gaussian_filter(np.nan_to_num(difference), BLUR, truncate=2)
        squares.append(block_means(blurred**2))
    largest: np.ndarray = np.max(squares, 0)
    return largest


def _texture(plane: np.ndarray, high_pass: np.ndarray) -> list[np.ndarray]:
    """Return the mean squares over blocks of the scene after a filter, without the noise's.

    Args:
        plane: five frames, (5, H, W).
        high_pass: the filter.

    Returns:
        From the frames before and after, and from the two beyond, whose noises are independent.
    """
    filtered = [_filtered(frame, high_pass) for frame in plane]
    far_before, before, _, after, far_after = filtered
    near = block_means(before * after)
    far = block_means(far_before * far_after)
    return [near, far]


def _brightness(plane: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means over blocks of the frames around, and of the middle one.

    Args:
        plane: five frames, (5, H, W).
        known: True for the pixels whose noise is measured, (H, W).
    """
    _, before, middle, after, _ = plane
    around = np.where(known, (before + after) / 2, np.nan)
    alone = np.where(known, middle, np.nan)
    return block_means(around), block_means(alone)


def _gain(high_pass: np.ndarray, autocorrelation: np.ndarray) -> float:
    """Return E n (H n) of noise n of variance 1."""
    half = len(high_pass) // 2
    near = slice(LAGS - half, LAGS + half + 1)
    covariance = autocorrelation[near, near]
    return float((high_pass * covariance).sum())


def _blurred_power(autocorrelation: np.ndarray) -> float:
    """Return the variance of blurred noise of variance 1."""
    padded = np.pad(autocorrelation, LAGS)
    once = gaussian_filter(padded, BLUR, truncate=2)
    twice = gaussian_filter(once, BLUR, truncate=2)
    return float(twice[2 * LAGS, 2 * LAGS])


def _correlations(
    movie: Sequence[Any], blocks: list[NoiseBlocks], lines: list[NoiseLine]
) -> tuple[np.ndarray, float, float]:
    """Measure the correlation of the noise, in blocks that stand still.

    Args:
        movie: see `movie_noise`.
        blocks, lines: of each channel.

    Returns:
        The autocorrelation in space, that of white noise where none is above CORRELATED, its
        standard error (Bartlett, J. R. Stat. Soc. Suppl. 1946), and the correlation of neighbouring
        frames.
    """
    numbers = blocks[0].frames
    of_channels = [line.still.reshape(len(numbers), -1, line.still.shape[1]) for line in lines]
    still_blocks = np.concatenate(of_channels, 1)
    every = max(1, len(numbers) // CORRELATION_FRAMES)
    chosen = range(0, len(numbers), every)
    products = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    pairs = np.zeros_like(products)
    near_power = 0.0
    far_power = 0.0
    windows = _windows(movie, [numbers[i] for i in chosen])
    for i, frames in zip(chosen, windows, strict=True):
        for plane, blocks_of_plane in zip(frames.swapaxes(0, 1), still_blocks[i], strict=True):
            still = _as_pixels(blocks_of_plane, plane[0].shape)
            d, _ = _differences(plane)
            lagged, count = lagged_products(d, still & np.isfinite(d))
            products += lagged
            pairs += count
            near, far = _lagged_power(plane, still)
            near_power += near
            far_power += far
    covariance = products / np.maximum(pairs, 1)
    correlation = covariance / max(covariance[LAGS, LAGS], 1e-30)
    error = float(np.sqrt((correlation**2).sum() / max(pairs[LAGS, LAGS], 1)))
    if np.count_nonzero(abs(correlation) > CORRELATED) <= 1:
        correlation = white_autocorrelation()
    in_time = 1 - near_power / far_power if far_power else 0.0
    return correlation, error, in_time


def _as_pixels(still: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return blocks (blocks,) as pixels (H, W), False where no block is."""
    height, width = shape
    rows = height // BLOCK_SIDE
    columns = width // BLOCK_SIDE
    block = np.ones((BLOCK_SIDE, BLOCK_SIDE), bool)
    inside = np.kron(still.reshape(rows, columns), block)
    bottom, right = inside.shape
    mask = np.zeros(shape, bool)
    mask[:bottom, :right] = inside
    return mask


def _lagged_power(plane: np.ndarray, still: np.ndarray) -> tuple[float, float]:
    """Return the power of differences of frames that are one, and that are three frames apart.

    Args:
        plane: five frames, (5, H, W).
        still: True for pixels that count.

    Returns:
        Sums over the pixels, after a high-pass filter.
    """
    kernel = _high_pass(white_autocorrelation())
    assert kernel is not None
    first, second, _, fourth, fifth = plane
    near = _squared(second - first, kernel)
    near += _squared(fifth - fourth, kernel)
    far = _squared(fourth - first, kernel)
    far += _squared(fifth - second, kernel)
    counted = still & np.isfinite(near + far)
    near_power = float(near[counted].sum())
    far_power = float(far[counted].sum())
    return near_power, far_power


def _squared(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the square of a filtered image (H, W)."""
    square: np.ndarray = _filtered(image, kernel) ** 2
    return square
