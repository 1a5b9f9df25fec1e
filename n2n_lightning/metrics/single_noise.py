"""The noise of one picture: variance against brightness, and correlation of neighbouring pixels.

A small network judges the noise block by block, and how far each block can be trusted
(noise_network.py). A line a + b brightness is fitted to the blocks. Its error is the scatter of the
blocks, and what all of them may share (benchmarks/single_noise.py).
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import uniform_filter

from n2n_lightning.arrays.blocks import cut_blocks
from n2n_lightning.metrics.autocorrelation import LAGS, lagged_products, white_autocorrelation
from n2n_lightning.metrics.noise_law import NoiseLaw
from n2n_lightning.metrics.noise_network import (
    JUDGED_LAGS,
    KINDS,
    NOISE_BLOCK,
    BlockJudgement,
    noise_network,
)
from n2n_lightning.metrics.stripes import STRIPE_WINDOW, stripe_share

MIN_SIDE = 40  # pixels: smaller pictures have too few blocks
MAX_SIDE = 1024  # pixels: of larger pictures the middle is measured
MIN_BLOCKS = 16  # that a line is fitted to
CLIPPED_SHARE = 0.02  # of a block's values at the picture's lowest or highest one
# Values at an end are clipped if they are as many times as frequent as the next value, and more
# than this share of the pixels (as in inspection/measures.py).
PILED_UP, FEW = 1.5, 0.001
LIGHT_BLOCKS = 3  # side of the square of blocks whose brightness counts half for the middle one
CLUSTER = 8  # blocks: the errors of blocks in a square of as many are added before they are squared
STEPS = 8  # of the fit of the line, each weighted by the one before
LEAST_LEVEL = 0.05  # of the mean variance: the line is at least as high where it weights blocks
SURE_OF_SLOPE = 3.0  # standard errors from which the variance is said to grow with brightness
SHARED_ERROR = 0.6  # of the expected deviation of the blocks that count: shared by all of them
CORRELATED_ERROR = 0.25  # of the variance of correlated noise: texture has the same spectrum
SHARED_SLOPE = 0.03  # error of the relative change over the deviation of the brightness, likewise
MEASURABLE = 0.35  # relative standard error of the variance up to which it is said
# Log odds from which noise is called white or correlated: BSDS500's validation photographs, which
# the network did not learn from, with the noises of benchmarks/single_noise.py.
SURE_OF_WHITE, SURE_OF_CORRELATION = 1.0, 1.7
STRIPED = 0.04  # share of the variance from which stripes are named; white noise has below 0.02
WINDOW = 32  # pixels: side of the windows in which the autocorrelation is measured
LEAST_WEIGHT = 0.05  # of the largest: windows with less are left out
NOTICEABLE = 0.03  # correlation: what is measured of white noise in pictures is as large
FARTHEST = 6  # pixels: correlations beyond cannot be told from the picture's
# Standard error of the correlations: with known noise in Kodak's photographs two in three of those
# that the network judges are within it, and farther ones within it and a third of what their
# structure adds (benchmarks/blind_spots.py).
CORRELATION_ERROR, STRUCTURE_ERROR = 0.05, 0.33


@dataclass(frozen=True)
class SingleNoise(NoiseLaw):
    """The variance of one picture's noise, a + b brightness in each channel, in stored units.

    Attributes:
        white: True if the noise of neighbouring pixels is independent, False if it is correlated;
            None if that cannot be told.
        kind: one of `noise_network.KINDS`; empty where `white` is None.
    """

    white: bool | None
    kind: str

    def interval(self, brightness: float | None = None) -> tuple[float, float]:
        """Return the 95% interval of the standard deviation, mean of the channels.

        Args:
            brightness: at which; None: the mean of the picture.
        """
        level = self.brightness
        if brightness is not None:
            level = np.full_like(self.a, brightness)
        of_channels = self.a + self.b * level
        variance = max(float(of_channels.mean()), 0.0)
        factor = np.exp(1.96 * self.standard_error)
        low = float(np.sqrt(variance / factor))
        high = float(np.sqrt(variance * factor))
        return low, high

    @property
    def sigma(self) -> float:
        """Root of the mean variance at the mean brightness."""
        variance = float(np.mean(self.a + self.b * self.brightness))
        return float(np.sqrt(max(variance, 0.0)))


@dataclass
class _Judged:
    """The blocks of one channel that count, all (blocks,), or (blocks, ...).

    Attributes:
        log_variance, log_error, log_weight: see `BlockJudgement`, were the noise white.
        any_variance, any_weight: whatever its correlation.
        kinds: (blocks, 4).
        correlations: (blocks, 6).
        light: mean brightness.
        clusters: number of the square of blocks that each is in.
        places: number of each block of the channel that counts.
    """

    log_variance: np.ndarray
    log_error: np.ndarray
    log_weight: np.ndarray
    any_variance: np.ndarray
    any_weight: np.ndarray
    kinds: np.ndarray
    correlations: np.ndarray
    light: np.ndarray
    clusters: np.ndarray
    places: np.ndarray


def single_noise(image: np.ndarray) -> SingleNoise:
    """Measure the noise of one picture.

    Args:
        image: (C, H, W), stored units, NaN where a pixel is unknown.

    Returns:
        The noise; where it is not measurable, NaN and the reason.

    >>> draws = np.random.default_rng(0)
    >>> noise = single_noise(100 + 5 * draws.standard_normal((1, 128, 128)))
    >>> noise.white, 4.8 < noise.sigma < 5.2
    (True, True)
    """
    image = _middle_of(np.asarray(image, np.float64))
    _, height, width = image.shape
    if min(height, width) < MIN_SIDE:
        return _unknown(image, f"the picture is smaller than {MIN_SIDE} pixels")
    channels = [_judge(plane) for plane in image]
    if any(len(channel.light) < MIN_BLOCKS for channel in channels):
        return _unknown(image, "too few blocks without clipped, missing or constant values")
    scores, correlations = _kind_scores(channels)
    best = int(scores.argmax())
    odds = scores[0] - scores[1:].max()
    white = None
    if odds > SURE_OF_WHITE or odds < -SURE_OF_CORRELATION:
        white = bool(odds > 0)
    kind = "" if white is None else KINDS[best]
    lines = [_fit(channel, white is not False) for channel in channels]
    autocorrelation = white_autocorrelation()
    correlation_error = np.full_like(autocorrelation, CORRELATION_ERROR)
    stripes = _stripes(image, lines)
    if max(stripes) > STRIPED:
        white = False
        kind = _kind_of_stripes(stripes)
        lines = [_fit(channel, white) for channel in channels]
        autocorrelation = _autocorrelation_of_stripes(stripes)
    elif white is False:
        weights = [_weight_map(channel, image.shape[1:]) for channel in channels]
        autocorrelation, correlation_error = _autocorrelation(image, weights, best, correlations)
    brightness = np.array([np.nanmean(plane) for plane in image])
    error = _joint_error(lines)
    reason = ""
    if not error < MEASURABLE:
        reason = "structure in all parts of the picture cannot be told from noise"
    return SingleNoise(
        np.array([line.a for line in lines]),
        np.array([line.b for line in lines]),
        error,
        brightness,
        autocorrelation,
        white,
        kind,
        correlation_error=correlation_error,
        reason=reason,
    )


def _unknown(image: np.ndarray, reason: str) -> SingleNoise:
    nothing = np.full((2 * LAGS + 1, 2 * LAGS + 1), np.nan)
    line = np.full(len(image), np.nan)
    return SingleNoise(line, line, np.nan, line, nothing, None, "", reason=reason)


def _middle_of(image: np.ndarray) -> np.ndarray:
    """Return the middle of an image up to MAX_SIDE high and wide, its sides multiples of 8."""
    _, height, width = image.shape
    high = min(height, MAX_SIDE) // NOISE_BLOCK * NOISE_BLOCK
    wide = min(width, MAX_SIDE) // NOISE_BLOCK * NOISE_BLOCK
    top = (height - high) // 2
    left = (width - wide) // 2
    return image[:, top : top + high, left : left + wide]


def _judge(plane: np.ndarray) -> _Judged:
    """Judge the blocks of a channel (H, W)."""
    known = np.isfinite(plane)
    complete = np.where(known, plane, np.nanmean(plane) if known.any() else 0.0)
    level = float(np.median(complete))
    scale = float(np.abs(complete - level).mean()) or 1.0
    centered = torch.from_numpy((complete - level) / scale).float()
    with torch.inference_mode():
        judged: BlockJudgement = noise_network()(centered[None, None])
    counted = _countable(complete, known)
    unit = 2 * np.log(scale)
    # The network mixes the noise of blocks next to one another; so does the brightness.
    light = cut_blocks(complete, NOISE_BLOCK).mean((1, 3))
    light = (light + uniform_filter(light, LIGHT_BLOCKS)) / 2
    rows, columns = counted.shape
    row, column = np.mgrid[:rows, :columns] // CLUSTER
    clusters = row * (columns // CLUSTER + 1) + column
    maps = [values[0].double().numpy() for values in judged]
    variance, error, weight, any_variance, any_weight, kinds, correlations = maps
    return _Judged(
        variance[counted] + unit,
        error[counted],
        weight[counted],
        any_variance[counted] + unit,
        any_weight[counted],
        kinds[:, counted].T,
        correlations[:, counted].T,
        light[counted],
        clusters[counted],
        np.flatnonzero(counted),
    )


def _countable(plane: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return True for blocks whose values are known, hardly clipped, and not all the same."""
    blocks = cut_blocks(plane, NOISE_BLOCK)
    lowest = _clipped(plane, plane.min(), 1)
    highest = _clipped(plane, plane.max(), -1)
    clipped = cut_blocks(lowest | highest, NOISE_BLOCK).mean((1, 3))
    all_known = cut_blocks(known, NOISE_BLOCK).all((1, 3))
    varies = np.ptp(blocks, (1, 3)) > 0
    hardly_clipped = clipped < CLIPPED_SHARE
    countable: np.ndarray = hardly_clipped & all_known & varies
    return countable


def _clipped(plane: np.ndarray, end: float, inward: int) -> np.ndarray:
    """Return True for values at an end where they pile up; nowhere if they do not.

    Args:
        plane: (H, W).
        end: the lowest or highest value.
        inward: 1 for the lowest, -1 for the highest.
    """
    at_end = plane == end
    inner = inward * (plane[~at_end] - end)
    if not inner.size:
        return at_end
    count = int(at_end.sum())
    usual = int((inner == inner.min()).sum())
    if count <= PILED_UP * usual or count <= FEW * plane.size:
        return np.zeros_like(at_end)
    return at_end


def _weights(log_weight: np.ndarray) -> np.ndarray:
    """Return weights of sum 1 from their logs (n,)."""
    weight = np.exp(log_weight - log_weight.max())
    normalized: np.ndarray = weight / weight.sum()
    return normalized


def _kind_scores(channels: list[_Judged]) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (log odds) of each of `KINDS`, and the correlations at `JUDGED_LAGS`."""
    log_weights = [channel.any_weight for channel in channels]
    kinds = [channel.kinds for channel in channels]
    lags = [channel.correlations for channel in channels]
    weight = _weights(np.concatenate(log_weights))
    scores = weight @ np.concatenate(kinds)
    correlations = weight @ np.concatenate(lags)
    return scores, correlations


def _stripes(image: np.ndarray, lines: list["_Line"]) -> tuple[float, float]:
    """Return the share of the variance that the pixels of rows, and of columns, have in common."""
    shares = []
    for plane, line in zip(image, lines, strict=True):
        complete = np.isfinite(plane)
        windows = cut_blocks(complete, STRIPE_WINDOW).all((1, 3))
        filled = np.where(complete, plane, 0)
        rows = stripe_share(filled, windows, line.variance)
        turned = filled.T.copy()
        columns = stripe_share(turned, windows.T, line.variance)
        shares.append((rows, columns))
    along_rows, along_columns = np.median(shares, 0).tolist()
    return along_rows, along_columns


def _kind_of_stripes(stripes: tuple[float, float]) -> str:
    """Return the kind of noise with shares of stripes along rows and along columns."""
    along_rows, along_columns = stripes
    if min(stripes) > STRIPED:
        return KINDS[3]
    return KINDS[1] if along_rows > along_columns else KINDS[2]


def _autocorrelation_of_stripes(stripes: tuple[float, float]) -> np.ndarray:
    """Return the autocorrelation of white noise with shares of stripes."""
    autocorrelation = white_autocorrelation()
    along_rows, along_columns = stripes
    autocorrelation[LAGS] = min(along_rows, 1.0)
    autocorrelation[:, LAGS] = min(along_columns, 1.0)
    autocorrelation[LAGS, LAGS] = 1
    return autocorrelation


@dataclass(frozen=True)
class _Line:
    """A line through the variances of blocks, a + b brightness.

    Attributes:
        variance: at the mean brightness of the blocks that count.
        error: its standard error, relative.
    """

    a: float
    b: float
    variance: float
    error: float


def _fit(channel: _Judged, white: bool) -> _Line:
    """Fit a line to the blocks of a channel."""
    if white:
        log_variance = channel.log_variance
        weight = _weights(channel.log_weight)
        shared = SHARED_ERROR * float(weight @ np.exp(channel.log_error))
    else:
        log_variance = channel.any_variance
        weight = _weights(channel.any_weight)
        shared = CORRELATED_ERROR
    light = channel.light
    clusters = channel.clusters
    level = _weighted_line(log_variance, weight, light, clusters, slopes=False)
    sloping = _weighted_line(log_variance, weight, light, clusters, slopes=True)
    a, b, error, _ = level
    spread = max(float(light.std()), 1e-30)
    slope_error = np.hypot(sloping[3], SHARED_SLOPE * a / spread)
    if abs(sloping[1]) > SURE_OF_SLOPE * slope_error:
        a, b, error, _ = sloping
    variance = max(a + b * float(light.mean()), 1e-30)
    relative = float(np.hypot(error / variance, shared))
    return _Line(a, b, variance, relative)


def _weighted_line(
    log_variance: np.ndarray,
    weight: np.ndarray,
    light: np.ndarray,
    clusters: np.ndarray,
    slopes: bool,
) -> tuple[float, float, float, float]:
    """Fit exp(log_variance) = a + b light with relative weights, by Gauss-Newton on the logs.

    Returns:
        a, b, the standard error at the mean brightness, and that of b.
    """
    origin = float(weight @ light)
    mean = float(np.exp(weight @ log_variance))
    columns = [np.ones_like(light)]
    if slopes:
        columns.append(light - origin)
    design = np.stack(columns, 1)
    coefficients = np.zeros(len(columns))
    coefficients[0] = mean
    for _ in range(STEPS):
        fitted = design @ coefficients
        line = np.maximum(fitted, LEAST_LEVEL * mean)
        residual = log_variance - np.log(line)
        change = line * residual.clip(-1.5, 1.5)
        weighted = design * (weight / line**2)[:, None]
        inverse = np.linalg.pinv(weighted.T @ design)
        solution = inverse @ weighted.T
        coefficients = coefficients + solution @ (line + change - fitted)
    influence = solution * change
    place = np.zeros(len(columns))
    place[0] = 1
    if slopes:
        place[1] = light.mean() - origin
    error = _clustered_error(place @ influence, clusters)
    level = float(coefficients[0])
    if not slopes:
        return level, 0.0, error, 0.0
    b = float(coefficients[1])
    return level - b * origin, b, error, _clustered_error(influence[1], clusters)


def _clustered_error(influence: np.ndarray, clusters: np.ndarray) -> float:
    """Return the standard error of the sum of the influences of blocks."""
    sums = np.bincount(clusters, influence)
    count = len(np.unique(clusters))
    few_clusters = count / max(count - 1, 1)
    power = (sums**2).sum()
    return float(np.sqrt(power * few_clusters))


def _joint_error(lines: list[_Line]) -> float:
    """Return the relative standard error of the mean variance; errors of channels are added."""
    variances = np.array([line.variance for line in lines])
    errors = np.array([line.error for line in lines])
    absolute = errors * variances
    return float(absolute.sum() / variances.sum())


def _weight_map(channel: _Judged, shape: tuple[int, ...]) -> np.ndarray:
    """Return the weight of each window of a channel (H, W): (window rows, window columns)."""
    height, width = shape
    rows = height // NOISE_BLOCK
    columns = width // NOISE_BLOCK
    blocks = np.zeros(rows * columns)
    blocks[channel.places] = np.exp(channel.any_weight)
    grid = blocks.reshape(rows, columns)
    windows = cut_blocks(grid, WINDOW // NOISE_BLOCK)
    weight: np.ndarray = windows.mean((1, 3))
    return weight


def _autocorrelation(
    image: np.ndarray, weights: list[np.ndarray], kind: int, judged: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the autocorrelation where structure is weakest.

    What is left of the structure there adds to it, and hardly less so farther away: as much as at
    two pixels, where the network judges, is subtracted from all offsets beyond those it judges.

    Args:
        image: (C, H, W), NaN where a pixel is unknown.
        weights: of the windows of each channel.
        kind: number of the noise's kind among `KINDS`: which offsets may be correlated.
        judged: the network's correlations at `JUDGED_LAGS`.

    Returns:
        (2 LAGS + 1, 2 LAGS + 1), 1 in the middle, 0 at offsets that are not correlated; and its
        standard error.
    """
    correlation, error = _of_windows(image, weights)
    # structure only adds: noise has no more in common than the windows show
    known = {}
    for (dy, dx), value in zip(JUDGED_LAGS, judged.tolist(), strict=True):
        known[dy, dx] = min(value, float(correlation[LAGS + dy, LAGS + dx]))
    structure = _structure(correlation, known)
    # below 0: more than the structure was subtracted
    correlation = np.maximum(correlation - structure, 0)
    of_structure = STRUCTURE_ERROR * structure
    systematic = np.hypot(CORRELATION_ERROR, of_structure)
    error = np.hypot(error, systematic)
    for (dy, dx), value in known.items():
        for sign in (-1, 1):
            at = (LAGS + sign * dy, LAGS + sign * dx)
            correlation[at] = value
            error[at] = CORRELATION_ERROR
    slight = abs(correlation) < NOTICEABLE
    impossible = ~_possible(kind)
    correlation[impossible | slight] = 0
    correlation[LAGS, LAGS] = 1
    return correlation, error


def _structure(correlation: np.ndarray, known: dict[tuple[int, int], float]) -> np.ndarray:
    """Return what structure adds to the autocorrelation of windows, at all offsets.

    Args:
        correlation: of the windows, (2 LAGS + 1, 2 LAGS + 1).
        known: the noise's correlations at `JUDGED_LAGS`.

    Returns:
        In that shape: what it adds two pixels away, along rows, columns, and in between.
    """
    along_rows = correlation[LAGS, LAGS + 2] - known[0, 2]
    along_columns = correlation[LAGS + 2, LAGS] - known[2, 0]
    squares = np.arange(-LAGS, LAGS + 1) ** 2
    rows = squares[:, None]
    distance = np.maximum(rows + squares, 1)
    share_of_columns = rows / distance
    added = along_rows + share_of_columns * (along_columns - along_rows)
    structure: np.ndarray = np.maximum(added, 0)
    return structure


def _of_windows(image: np.ndarray, weights: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean autocorrelation of the windows of an image, and its standard error.

    Args:
        image: (C, H, W), NaN where a pixel is unknown.
        weights: of the windows of each channel.
    """
    side = 2 * LAGS + 1
    mask = np.ones((WINDOW, WINDOW), bool)
    measured = []
    shares = []
    for plane, weight in zip(image, weights, strict=True):
        windows = cut_blocks(plane, WINDOW)
        largest = max(weight.max(), 1e-30)
        counted = weight > LEAST_WEIGHT * largest
        for row, column in np.argwhere(counted):
            window = windows[row, :, column]
            if not np.isfinite(window).all():
                continue
            lagged, count = lagged_products(_detrended(window), mask)
            power = max(lagged[LAGS, LAGS], 1e-30) / WINDOW**2
            covariance = lagged / np.maximum(count, 1)
            measured.append(covariance / power)
            shares.append(weight[row, column])
    if not measured:
        return white_autocorrelation(), np.full((side, side), np.inf)
    share = np.array(shares) / np.sum(shares)
    share = share[:, None, None]
    correlations = np.array(measured)
    weighted = share * correlations
    mean = weighted.sum(0)
    deviation = share * (correlations - mean)
    squares = deviation**2
    error = np.sqrt(squares.sum(0))
    return mean, error


def _possible(kind: int) -> np.ndarray:
    """Return True at the offsets at which noise of a kind may be correlated."""
    rows, columns = abs(np.mgrid[-LAGS : LAGS + 1, -LAGS : LAGS + 1])
    if KINDS[kind] == "along rows":
        possible: np.ndarray = rows == 0
    elif KINDS[kind] == "along columns":
        possible = columns == 0
    else:
        possible = np.hypot(rows, columns) <= FARTHEST
    return possible


def _detrended(window: np.ndarray) -> np.ndarray:
    """Subtract the plane through a window (WINDOW, WINDOW)."""
    position = np.arange(WINDOW) - (WINDOW - 1) / 2
    centered = window - window.mean()
    norm = WINDOW * (position**2).sum()
    of_rows = centered.sum(1)
    of_columns = centered.sum(0)
    down = (of_rows @ position) / norm
    across = (of_columns @ position) / norm
    trend: np.ndarray = down * position[:, None] + across * position
    return centered - trend
