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

from n2n_lightning.arrays.blocks import cut_blocks, plane_of

REACH = 2  # frames on either side of the one whose noise is measured
BLOCK_SIDE = 8  # pixels: an edge that moves spoils few of them
# Values that are measured: by as many the variance is known to 0.1%, see benchmarks/movies.py.
MAX_VALUES = 3_000_000
MIN_FRAMES = 12  # measured, however large they are
MAX_SIDE = 1024  # pixels: of larger frames the middle is measured
# Standard deviation of the blur, in pixels, before differences are judged: it finds cells and edges
# that change by a fraction of the noise.
BLUR = 1.5
# Times the power of the noise: of blurred differences in blocks that stand still, 1% have more.
CHANGED = 3.0
# Quartile of that power in blocks that stand still, times its mean; by simulation.
FLOOR_QUARTILE = 1.08
RAISED = 1.3  # times that: the noise of one offset with CORRELATED has as much
FARTHEST_DRIFT = 8  # pixels between the middle one and another of five frames
# Correlation of differences of frames with later ones that noise does not have.
TRAVEL = 0.02
LAGS = 10  # pixels: the farthest offset of the autocorrelation
CORRELATED = 0.1  # correlation of the noise from which an offset is named
NOTICEABLE = 0.03  # correlation from which the high-pass filter avoids an offset
FILTER_SIDES = (5, 9, 13, 17)  # pixels: the smallest that has enough uncorrelated neighbours
CHUNK = 10  # frames: measurements of one block within as many share noise
MIN_CLUSTERS = 12  # independent blocks that an error needs
CORRELATION_FRAMES = 12  # on which the correlation is measured
LINE_STEPS = 6  # refinements of the line and of the choice of blocks


@dataclass(frozen=True)
class MovieNoise:
    """The variance of a movie's noise, a + b brightness, in stored units.

    Attributes:
        a: the variance at brightness 0.
        b: the slope.
        standard_error: of the variance at the mean brightness of the movie, relative to it.
        brightness: the mean of the movie.
        autocorrelation: of the noise in space, (2 LAGS + 1, 2 LAGS + 1), 1 in the middle; what is
            below NOTICEABLE is 0.
        in_time: the correlation of the noise of neighbouring frames.
        still_share: the share of the blocks that were measured.
        reason: why the noise is not measurable; empty if it is.
    """

    a: float
    b: float
    standard_error: float
    brightness: float
    autocorrelation: np.ndarray
    in_time: float
    still_share: float
    reason: str = ""

    @property
    def measurable(self) -> bool:
        """True if the variance is known."""
        return not self.reason

    @property
    def in_space(self) -> dict[tuple[int, int], float]:
        """Correlations of more than 0.1, by offset (rows, columns) in one half plane."""
        offsets = {}
        for row, column in np.argwhere(abs(self.autocorrelation) > CORRELATED) - LAGS:
            if (row, column) > (0, 0):
                correlation = self.autocorrelation[row + LAGS, column + LAGS]
                offsets[int(row), int(column)] = float(correlation)
        return offsets

    def variance(self, brightness: Any) -> Any:
        """Return a + b brightness, without a bound: of noisy values the mean is unbiased."""
        return self.a + self.b * brightness

    def direction(self, denoised: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        """Draw noise with the covariance of the movie's noise, for Stein's estimate.

        Args:
            denoised: a frame, (C, H, W), stored units.
            draws: the generator.

        Returns:
            In that shape, float64. White noise is drawn as signs, whose products vary least.
        """
        deviation = np.sqrt(np.maximum(self.variance(np.float64(denoised)), 0))
        if np.count_nonzero(self.autocorrelation) == 1:
            signs: np.ndarray = draws.choice([-1.0, 1.0], deviation.shape)
            return signs * deviation
        return deviation * _correlated(deviation.shape, self.autocorrelation, draws)


def _correlated(
    shape: tuple[int, ...], autocorrelation: np.ndarray, draws: np.random.Generator
) -> np.ndarray:
    """Draw noise of variance 1 with an autocorrelation, periodic, (C, H, W)."""
    _, height, width = shape
    padded = (height + 2 * LAGS, width + 2 * LAGS)
    centered = np.zeros(padded)
    centered[: 2 * LAGS + 1, : 2 * LAGS + 1] = autocorrelation
    spectrum = np.fft.rfft2(np.roll(centered, (-LAGS, -LAGS), (0, 1))).real
    spectrum = np.maximum(spectrum, 0)
    white = draws.normal(size=(shape[0], *padded))
    colored = np.fft.irfft2(np.fft.rfft2(white) * np.sqrt(spectrum), s=padded)
    return colored[:, :height, :width]


def movie_noise(movie: Sequence[Any]) -> MovieNoise:
    """Measure the noise of a movie.

    Args:
        movie: T frames (C, H, W), stored units, NaN where a pixel is unknown; an array (T, C, H, W)
            or any sequence that reads its frames when they are asked for. Few frames are in memory
            at once. Dead and copied frames are to be left out.

    Returns:
        The noise; where it is not measurable, NaN and the reason.
    """
    if len(movie) < 2 * REACH + 1:
        return _unknown(f"the movie has {len(movie)} frames, and {2 * REACH + 1} are needed")
    height, width = np.asarray(movie[0]).shape[1:]
    if min(height, width) < 4 * BLOCK_SIDE:
        return _unknown(f"the frames are smaller than {4 * BLOCK_SIDE} pixels")
    white = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    white[LAGS, LAGS] = 1
    high_pass = _high_pass(white)
    assert high_pass is not None
    blocks = _measure_blocks(movie, high_pass, white)
    line = _fit(blocks)
    if line is None:
        return _unknown("nothing in the movie stands still, or it has no noise")
    autocorrelation, in_time = _correlations(movie, blocks, line)
    if np.count_nonzero(autocorrelation) > 1:
        high_pass = _high_pass(autocorrelation)
        if high_pass is None:
            return _unknown("the noise is correlated over too many pixels")
        blocks = _measure_blocks(movie, high_pass, autocorrelation)
        line = _fit(blocks)
        if line is None:
            return _unknown("nothing in the movie stands still, or it has no noise")
        autocorrelation, in_time = _correlations(movie, blocks, line)
    reason = ""
    if abs(in_time) > CORRELATED:
        reason = f"the noise of neighbouring frames is correlated ({in_time:.2f})"
    return MovieNoise(
        line.a,
        line.b,
        line.relative_error,
        blocks.brightness,
        autocorrelation,
        in_time,
        float(line.still.mean()),
        reason,
    )


def _unknown(reason: str) -> MovieNoise:
    nothing = np.full((2 * LAGS + 1, 2 * LAGS + 1), np.nan)
    return MovieNoise(np.nan, np.nan, np.nan, np.nan, nothing, np.nan, 0.0, reason)


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
        rows, columns = np.mgrid[-half : half + 1, -half : half + 1]
        near = slice(LAGS - half, LAGS + half + 1)
        free = autocorrelation[near, near] == 0
        powers = [(i, j) for i in range(3) for j in range(3 - i)]
        surface = np.stack([rows**i * columns**j for i, j in powers], 2).astype(np.float64)
        if free.sum() < 2 * len(powers) or np.linalg.matrix_rank(surface[free]) < len(powers):
            continue
        prediction = np.linalg.pinv(surface[free])[0]
        kernel = np.zeros((side, side))
        kernel[free] = -prediction
        kernel[half, half] = 1
        return kernel
    return None


@dataclass
class _Blocks:
    """Means over blocks of 8 x 8 pixels, a row for each channel of each measured frame.

    Attributes:
        power: d (H e), the noise's variance, (rows, blocks); NaN where a block is not known whole.
        change: the largest of three blurred differences, as a variance of the noise.
        around: brightness in the frames before and after.
        middle: brightness in the frame itself.
        frames: numbers of the measured frames.
        brightness: mean of these frames.
        moves: True if differences of frames return at other places in later frames.
    """

    power: np.ndarray
    change: np.ndarray
    around: np.ndarray
    middle: np.ndarray
    frames: list[int]
    brightness: float
    moves: bool

    @property
    def known(self) -> np.ndarray:
        """True for blocks that are known whole, (rows, blocks)."""
        return np.isfinite(self.power + self.change + self.around)

    @property
    def clusters(self) -> np.ndarray:
        """Return the number of the group of each block that shares noise, (rows, blocks)."""
        count, width = self.power.shape
        chunk = np.arange(count) * len(self.frames) // count // CHUNK
        numbers: np.ndarray = chunk[:, None] * width + np.arange(width)
        return numbers


def _measured_frames(movie: Sequence[Any]) -> list[int]:
    """Choose frames with two on either side, evenly, for about MAX_VALUES values."""
    values = _middle_of(np.asarray(movie[0])).size
    count = max(MIN_FRAMES, MAX_VALUES // values)
    last = len(movie) - 1 - REACH
    spread = np.linspace(REACH, last, min(count, last - REACH + 1))
    return [int(t) for t in spread.round()]


def _middle_of(frame: np.ndarray) -> np.ndarray:
    """Return the middle of a frame (C, H, W), up to MAX_SIDE pixels high and wide."""
    _, height, width = frame.shape
    top = max(0, height - MAX_SIDE) // 2
    left = max(0, width - MAX_SIDE) // 2
    return frame[:, top : top + MAX_SIDE, left : left + MAX_SIDE]


def _windows(movie: Sequence[Any], numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the five frames around each of some, without drift, (5, C, H, W), float64."""
    for t in numbers:
        near = range(t - REACH, t + REACH + 1)
        frames = [_middle_of(np.asarray(movie[k])).astype(np.float64) for k in near]
        yield _registered(np.stack(frames))


def _registered(frames: np.ndarray) -> np.ndarray:
    """Undo whole pixels of drift towards the middle one of some frames (T, C, H, W).

    Returns:
        The frames, NaN where one does not reach.
    """
    planes = []
    for frame in frames:
        plane = gaussian_filter(plane_of(frame), BLUR)
        planes.append(plane - plane.mean())
    middle = planes[REACH]
    registered = frames.copy()
    for k, plane in enumerate(planes):
        rows, columns = _drift(middle, plane)
        if rows or columns:
            registered[k] = _shifted(frames[k], rows, columns)
    return registered


def _drift(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Return the rows and columns that move the second image onto the first.

    Args:
        first, second: blurred, mean 0, (H, W).

    Returns:
        (0, 0) where they come no closer than by moving noise onto noise.
    """
    spectrum = np.fft.rfft2(first) * np.conj(np.fft.rfft2(second))
    products = np.fft.irfft2(spectrum, s=first.shape)
    far = FARTHEST_DRIFT
    near = np.roll(products, (far, far), (0, 1))[: 2 * far + 1, : 2 * far + 1]
    rows, columns = np.unravel_index(near.argmax(), near.shape)
    distance = (first**2).sum() + (second**2).sum() - 2 * near[far, far]
    gain = 2 * (near.max() - near[far, far]) / max(distance, 1e-30)
    independent = first.size / (2 * np.pi * BLUR**2)
    if gain < 6 / np.sqrt(independent):
        return 0, 0
    return int(rows) - far, int(columns) - far


def _shifted(frame: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return a frame (C, H, W) moved by whole pixels, NaN where nothing moved in."""
    moved = np.roll(frame, (rows, columns), (1, 2))
    _, height, width = frame.shape
    known_rows = np.arange(height) - rows
    known_columns = np.arange(width) - columns
    moved[:, (known_rows < 0) | (known_rows >= height)] = np.nan
    moved[:, :, (known_columns < 0) | (known_columns >= width)] = np.nan
    return moved


def _filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlate an image (H, W) with a kernel; NaN where the kernel leaves the image."""
    half = len(kernel) // 2
    result = np.full_like(image, np.nan)
    inside = slice(half, -half)
    result[inside, inside] = correlate(image, kernel, mode="nearest")[inside, inside]
    return result


def _block_means(image: np.ndarray) -> np.ndarray:
    """Return the means of blocks of an image (H, W); NaN where less than half is known."""
    values = cut_blocks(image, BLOCK_SIDE)
    count = np.isfinite(values).sum((1, 3))
    sums = np.nansum(values, (1, 3))
    enough = count >= BLOCK_SIDE**2 / 2
    means = np.where(enough, sums / np.maximum(count, 1), np.nan)
    return means.ravel()


def _differences(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return d and e of five frames (5, ..., H, W)."""
    far_before, before, middle, after, far_after = frames
    return middle - (before + after) / 2, middle - (far_before + far_after) / 2


def _measure_blocks(
    movie: Sequence[Any], high_pass: np.ndarray, autocorrelation: np.ndarray
) -> _Blocks:
    """Measure blocks of the frames of a movie.

    Args:
        movie: see `movie_noise`.
        high_pass: the filter H.
        autocorrelation: of the noise, for the gains of the filters.
    """
    gain = _gain(high_pass, autocorrelation)
    blurred_gain = _blurred_power(autocorrelation)
    white = np.count_nonzero(autocorrelation) == 1
    numbers = _measured_frames(movie)
    rows = []
    means = []
    travel = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    for frames in _windows(movie, numbers):
        means.append(np.nanmean(frames[REACH]))
        for channel in range(frames.shape[1]):
            plane = frames[:, channel]
            change = _change(plane, white) / blurred_gain
            travel += _travel(plane)
            rows.append([_power(plane, high_pass) / gain, change, *_brightness(plane)])
    power, change, around, middle = np.array(rows).swapaxes(0, 1)
    moves = abs(travel).max() / len(rows) > TRAVEL + 5 / np.sqrt(len(rows) * plane[0].size)
    return _Blocks(power, change, around, middle, numbers, float(np.nanmean(means)), bool(moves))


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
    near = np.roll(products, (LAGS, LAGS), (0, 1))[: 2 * LAGS + 1, : 2 * LAGS + 1]
    correlation: np.ndarray = near / max(np.sqrt((early**2).sum() * (late**2).sum()), 1e-30)
    return correlation


def _power(plane: np.ndarray, high_pass: np.ndarray) -> np.ndarray:
    """Return the means over blocks of d (H e) and e (H d), from five frames (5, H, W)."""
    d, e = _differences(plane)
    product = d * _filtered(e, high_pass) + e * _filtered(d, high_pass)
    return _block_means(product / 2)


def _change(plane: np.ndarray, white: bool) -> np.ndarray:
    """Return the largest mean square of blurred differences over blocks.

    Args:
        plane: five frames, (5, H, W).
        white: True where the noise is white: only then are blurred differences with the middle
            frame independent of what the high-pass filter leaves of its noise.

    Returns:
        Per variance of single frames, (blocks,); NaN where nothing is known.
    """
    far_before, before, middle, after, far_after = plane
    differences = [(after - before) / np.sqrt(2), (far_after - far_before) / np.sqrt(2)]
    if white:
        differences.append((middle - (before + after) / 2) / np.sqrt(1.5))
    squares = []
    for difference in differences:
        blurred = gaussian_filter(np.nan_to_num(difference), BLUR, truncate=2)
        squares.append(_block_means(blurred**2))
    largest: np.ndarray = np.max(squares, 0)
    return largest


def _brightness(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means over blocks of the frames around, and of the middle one."""
    _, before, middle, after, _ = plane
    return _block_means((before + after) / 2), _block_means(middle)


def _gain(high_pass: np.ndarray, autocorrelation: np.ndarray) -> float:
    """Return E n (H n) of noise n of variance 1."""
    half = len(high_pass) // 2
    near = slice(LAGS - half, LAGS + half + 1)
    return float((high_pass * autocorrelation[near, near]).sum())


def _blurred_power(autocorrelation: np.ndarray) -> float:
    """Return the variance of blurred noise of variance 1."""
    padded = np.pad(autocorrelation, LAGS)
    once = gaussian_filter(padded, BLUR, truncate=2)
    return float(gaussian_filter(once, BLUR, truncate=2)[2 * LAGS, 2 * LAGS])


@dataclass(frozen=True)
class _Line:
    """The line a + b brightness.

    Attributes:
        a, b: its coefficients.
        relative_error: standard error at the movie's mean brightness, relative to the variance.
        still: True for the blocks that it was fitted to, (rows, blocks).
    """

    a: float
    b: float
    relative_error: float
    still: np.ndarray


def _fit(blocks: _Blocks) -> _Line | None:
    """Fit the line to the blocks that stand still; None where these are too few.

    The brightness around is the instrument, that of the frame itself the regressor: their noises
    are independent, so that the noise of the brightness does not flatten the line.
    """
    known = blocks.known
    if not known.any():
        return None
    typical = float(np.median(blocks.change[known]))
    if not typical > 0:
        return None
    weight = np.zeros_like(blocks.power)
    weight[known] = 1 / np.maximum(blocks.change[known], typical) ** 2
    still = known
    a = b = 0.0
    for _ in range(LINE_STEPS):
        a, b = _instrumental_line(blocks, weight)
        expected = np.maximum(a + b * blocks.around, 0.05 * typical)
        ratio = blocks.change / expected
        floor = 1.0 if blocks.moves else _floor(ratio[known])
        still = known & (ratio < CHANGED * floor)
        if not still.any():
            return None
        weight = np.where(still, 1 / expected**2, 0)
    variance = a + b * blocks.brightness
    if not variance > 0:
        return None
    error = _line_error(blocks, weight, a, b)
    if error is None:
        return None
    return _Line(a, b, error / variance, still)


def _floor(ratio: np.ndarray) -> float:
    """Return the power of blurred noise in units of what its autocorrelation says, or 1.

    Where the noise is correlated in space, it is larger: all blocks have it then, while motion is
    in some.
    """
    floor = float(np.percentile(ratio, 25)) / FLOOR_QUARTILE
    return floor if floor > RAISED else 1.0


def _centered(values: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the weighted mean of blocks, and their distances from it, 0 where not known."""
    filled = np.where(weight > 0, values, 0)
    mean = float((weight * filled).sum() / weight.sum())
    return mean, np.where(weight > 0, filled - mean, 0)


def _instrumental_line(blocks: _Blocks, weight: np.ndarray) -> tuple[float, float]:
    """Return a and b of the weighted line; b is 0 where the brightness does not differ."""
    mean_power, power = _centered(blocks.power, weight)
    mean_middle, middle = _centered(blocks.middle, weight)
    _, around = _centered(blocks.around, weight)
    spread = float((weight * around * middle).sum())
    if not spread > 0:
        return mean_power, 0.0
    b = float((weight * around * power).sum()) / spread
    return mean_power - b * mean_middle, b


def _line_error(blocks: _Blocks, weight: np.ndarray, a: float, b: float) -> float | None:
    """Return the standard error of the line at the movie's mean brightness.

    Blocks of one place in frames that follow one another share noise: their residuals are added
    before they are squared. None where there are too few places.
    """
    mean_middle, middle = _centered(blocks.middle, weight)
    _, around = _centered(blocks.around, weight)
    spread = float((weight * around * middle).sum())
    residual = np.where(weight > 0, blocks.power - a - b * blocks.middle, 0)
    leverage = 0.0
    if spread > 0:
        leverage = (blocks.brightness - mean_middle) * weight.sum() / spread
    influence = weight / weight.sum() * (1 + leverage * around) * residual
    numbers = blocks.clusters
    sums = np.bincount(numbers.ravel(), influence.ravel())
    count = len(np.unique(numbers[weight > 0]))
    if count < MIN_CLUSTERS:
        return None
    return float(np.sqrt((sums**2).sum() * count / (count - 1)))


def _correlations(movie: Sequence[Any], blocks: _Blocks, line: _Line) -> tuple[np.ndarray, float]:
    """Measure the correlation of the noise, in blocks that stand still.

    Returns:
        The autocorrelation in space, 0 where it is below NOTICEABLE, and the correlation of
        neighbouring frames.
    """
    channels = len(line.still) // len(blocks.frames)
    every = max(1, len(blocks.frames) // CORRELATION_FRAMES)
    chosen = range(0, len(blocks.frames), every)
    products = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    pairs = np.zeros_like(products)
    near_power = 0.0
    far_power = 0.0
    windows = _windows(movie, [blocks.frames[i] for i in chosen])
    for i, frames in zip(chosen, windows, strict=True):
        for channel in range(channels):
            plane = frames[:, channel]
            still = _as_pixels(line.still[i * channels + channel], plane[0].shape)
            d, _ = _differences(plane)
            lagged, count = _lagged_products(d, still)
            products += lagged
            pairs += count
            near, far = _lagged_power(plane, still)
            near_power += near
            far_power += far
    covariance = products / np.maximum(pairs, 1)
    correlation = covariance / max(covariance[LAGS, LAGS], 1e-30)
    noticeable = abs(correlation) >= NOTICEABLE
    if np.count_nonzero(abs(correlation) > CORRELATED) == 1:
        noticeable = correlation == correlation[LAGS, LAGS]
    correlation = np.where(noticeable, correlation, 0)
    in_time = 1 - near_power / far_power if far_power else 0.0
    return correlation, in_time


def _as_pixels(still: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return blocks (blocks,) as pixels (H, W), False where no block is."""
    height, width = shape
    rows, columns = height // BLOCK_SIDE, width // BLOCK_SIDE
    block = np.ones((BLOCK_SIDE, BLOCK_SIDE), bool)
    mask = np.zeros(shape, bool)
    inside = np.kron(still.reshape(rows, columns), block)
    mask[: rows * BLOCK_SIDE, : columns * BLOCK_SIDE] = inside
    return mask


def _lagged_products(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of the products of pixels of an image at all offsets, and their numbers.

    Args:
        image: (H, W).
        mask: True for pixels that count.

    Returns:
        Two arrays (2 LAGS + 1, 2 LAGS + 1), the offset 0 in the middle.
    """
    mask = mask & np.isfinite(image)
    values = image[mask]
    centered = np.zeros_like(image)
    centered[mask] = values - values.mean() if values.size else 0
    padded = [length + LAGS for length in image.shape]
    sums = []
    for part in (centered, mask.astype(np.float64)):
        spectrum = np.fft.rfft2(part, s=padded)
        products = np.fft.irfft2(abs(spectrum) ** 2, s=padded)
        near = np.roll(products, (LAGS, LAGS), (0, 1))[: 2 * LAGS + 1, : 2 * LAGS + 1]
        sums.append(near)
    return sums[0], sums[1].round()


def _lagged_power(plane: np.ndarray, still: np.ndarray) -> tuple[float, float]:
    """Return the power of differences of frames that are one, and that are three frames apart.

    Args:
        plane: five frames, (5, H, W).
        still: True for pixels that count.

    Returns:
        Sums over the pixels, after a high-pass filter.
    """
    white = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    white[LAGS, LAGS] = 1
    kernel = _high_pass(white)
    assert kernel is not None
    powers = []
    for pairs in (((0, 1), (3, 4)), ((0, 3), (1, 4))):
        power = 0.0
        for i, j in pairs:
            filtered = _filtered(plane[j] - plane[i], kernel)
            power += float(np.nansum(filtered[still] ** 2))
        powers.append(power)
    near, far = powers
    return near, far
