"""The line a + b brightness through the noise of blocks of a movie (movie_noise)."""

from dataclasses import dataclass

import numpy as np

# Times the power of the noise: of blurred differences in blocks that stand still, 1% have more.
CHANGED = 3.0
# Quartile of that power in blocks that stand still, times its mean; by simulation.
FLOOR_QUARTILE = 1.08
RAISED = 1.3  # times that: the noise of one offset with movie_noise.CORRELATED has as much
# Median power of a place over the line's from which it has more noise, less 1: of moving and
# flashing scenes (benchmarks/movies.py) no place has half as much.
RAISED_PLACE = 0.3
RAISED_BY_CHANCE = 2.0  # the same with few frames, times the root of their number: 5 deviations
UNEVEN = 0.03  # share of the variance that such places add from which it is not measurable
CHUNK = 10  # frames: measurements of one block within as many share noise
MIN_CLUSTERS = 12  # independent blocks that an error needs
# Correlation of the brightness of blocks between frames from which the variance may depend on it:
# below, blocks differ by noise alone.
LEAST_CONTRAST = 0.1
SURE_OF_TEXTURE = 3.0  # standard errors from which moving texture is taken off
LINE_STEPS = 6  # refinements of the line and of the choice of blocks


@dataclass
class NoiseBlocks:
    """Means over blocks of 8 x 8 pixels of a channel, a row for each plane of each frame.

    Attributes:
        power: d (H e), the noise's variance, (rows, blocks); NaN where a block is not known whole.
        change: the largest of three blurred differences, as a variance of the noise.
        around: brightness in the frames before and after.
        middle: brightness in the frame itself.
        near_texture: mean square of the scene after the filter H, from the frames before and after.
        far_texture: the same from the two frames beyond.
        frames: numbers of the measured frames.
        brightness: mean of these frames.
        moves: True if differences of frames return at other places in later frames.
    """

    power: np.ndarray
    change: np.ndarray
    around: np.ndarray
    middle: np.ndarray
    near_texture: np.ndarray
    far_texture: np.ndarray
    frames: list[int]
    brightness: float
    moves: bool

    @property
    def known(self) -> np.ndarray:
        """True for blocks that are known whole, (rows, blocks)."""
        texture = self.near_texture + self.far_texture
        return np.isfinite(self.power + self.change + self.around + texture)

    @property
    def clusters(self) -> np.ndarray:
        """Return the number of the group of each block that shares noise, (rows, blocks)."""
        count, width = self.power.shape
        chunk = np.arange(count) * len(self.frames) // count // CHUNK
        numbers: np.ndarray = chunk[:, None] * width + np.arange(width)
        return numbers


@dataclass(frozen=True)
class NoiseLine:
    """The line a + b brightness of a channel.

    Attributes:
        a, b: its coefficients.
        variance: at the mean brightness of the channel.
        relative_error: standard error of that variance, relative to it.
        still: True for the blocks that it was fitted to, (rows, blocks).
    """

    a: float
    b: float
    variance: float
    relative_error: float
    still: np.ndarray


def fit_channels(blocks: list[NoiseBlocks]) -> list[NoiseLine]:
    """Fit a line to each channel; none where one of them has too few blocks.

    A channel in which no value ever changes has no noise, and may stand beside others that have.
    """
    lines = []
    for one in blocks:
        line = NoiseLine(0.0, 0.0, 0.0, 0.0, one.known) if _constant(one) else _fit(one)
        if line is None:
            return []
        lines.append(line)
    return lines if any(line.variance > 0 for line in lines) else []


def _constant(blocks: NoiseBlocks) -> bool:
    """Return True if known blocks never change."""
    change = blocks.change[blocks.known]
    return change.size > 0 and not change.any()


def _fit(blocks: NoiseBlocks) -> NoiseLine | None:
    """Fit the line to the blocks that stand still; None where these are too few."""
    known = blocks.known
    if not known.any():
        return None
    typical = float(np.median(blocks.change[known]))
    if not typical > 0:
        return None
    weight = np.zeros_like(blocks.power)
    weight[known] = 1 / np.maximum(blocks.change[known], typical) ** 2
    still = known
    for _ in range(LINE_STEPS):
        a, b = _Regression(blocks, weight, textured=False).line
        expected = np.maximum(a + b * blocks.around, 0.05 * typical)
        ratio = blocks.change / expected
        floor = 1.0 if blocks.moves else _floor(ratio[known])
        still = known & (ratio < CHANGED * floor)
        if not still.any():
            return None
        weight = np.where(still, 1 / expected**2, 0)
    regression = _Regression(blocks, weight, textured=True)
    if abs(regression.slope_of_texture) < SURE_OF_TEXTURE:
        regression = _Regression(blocks, weight, textured=False)
    a, b = regression.line
    variance = a + b * blocks.brightness
    error = regression.error
    if not variance > 0 or error is None:
        return None
    return NoiseLine(a, b, variance, error / variance, still)


def uneven(blocks: NoiseBlocks, line: NoiseLine) -> bool:
    """Return True if places have more noise than their brightness explains.

    The line leaves them out as if they moved. Motion and events raise the power of a place in few
    frames, or are smooth, and the filter H removes them: the median over the frames is of noise.
    """
    count = len(blocks.frames)
    places = (count, -1, blocks.power.shape[1])
    known = blocks.known.reshape(places)
    often = known.sum(0) > count / 2
    if not often.any() or not line.variance > 0:
        return False
    power = np.where(blocks.known, blocks.power, np.nan)
    of_places = power.reshape(places)[:, often]
    expected = np.where(blocks.known, line.a + line.b * blocks.around, np.nan)
    expected_of_places = expected.reshape(places)[:, often]
    typical = np.nanmedian(of_places, 0)
    of_line = np.nanmean(expected_of_places, 0)
    by_chance = RAISED_BY_CHANCE / np.sqrt(count)
    limit = 1 + max(RAISED_PLACE, by_chance)
    raised = typical > limit * of_line
    excess = (typical - of_line)[raised]
    return bool(excess.sum() > UNEVEN * of_line.sum())


def _floor(ratio: np.ndarray) -> float:
    """Return the power of blurred noise in units of what its autocorrelation says, or 1.

    Where the noise is correlated in space, it is larger: all blocks have it then, while motion is
    in some.
    """
    floor = float(np.percentile(ratio, 25)) / FLOOR_QUARTILE
    return floor if floor > RAISED else 1.0


class _Regression:
    """Weighted regression of the power of blocks on their brightness, with instruments.

    The brightness of the frames around is the instrument of that of the frame itself: their noises
    are independent, so that noise does not flatten the line. Where a texture moves by fractions of
    a pixel, the power grows with its mean square, which is regressed on in the same way.

    Args:
        blocks: the blocks.
        weight: of each, 0 for those that do not count.
        textured: regress on the texture, too.
    """

    def __init__(self, blocks: NoiseBlocks, weight: np.ndarray, textured: bool) -> None:
        counted = weight > 0
        w = weight[counted]
        w = w / w.sum()
        middle = blocks.middle[counted]
        around = blocks.around[counted]
        constant = np.ones_like(w)
        regressors = [constant]
        instruments = [constant]
        self.origin = float((w * middle).sum())
        self.sloping = _weighted_correlation(w, middle, around) > LEAST_CONTRAST
        if self.sloping:
            regressors.append(middle - self.origin)
            instruments.append(around - self.origin)
        if textured:
            regressors.append(blocks.far_texture[counted])
            instruments.append(blocks.near_texture[counted])
        columns = np.stack(regressors, 1)
        weighted = np.stack(instruments, 1) * w[:, None]
        inverse = np.linalg.pinv(weighted.T @ columns)
        solution = inverse @ weighted.T
        power = blocks.power[counted]
        self.coefficients = solution @ power
        residual = power - columns @ self.coefficients
        self.influences = solution * residual
        self.clusters = blocks.clusters[counted]
        self.distance = blocks.brightness - self.origin

    @property
    def line(self) -> tuple[float, float]:
        """The coefficients a and b; b is 0 where the brightness hardly differs."""
        level = float(self.coefficients[0])
        if not self.sloping:
            return level, 0.0
        b = float(self.coefficients[1])
        return level - b * self.origin, b

    @property
    def error(self) -> float | None:
        """Standard error of the line at the movie's mean brightness; None with too few blocks."""
        influence = self.influences[0]
        if self.sloping:
            influence = influence + self.distance * self.influences[1]
        return self._standard_error(influence)

    @property
    def slope_of_texture(self) -> float:
        """The last coefficient, in standard errors; 0 where it has none."""
        last = len(self.coefficients) - 1
        error = self._standard_error(self.influences[last])
        if not error:
            return 0.0
        return float(self.coefficients[last]) / error

    def _standard_error(self, influence: np.ndarray) -> float | None:
        """Return the standard error of the sum of the influences of blocks.

        Blocks of one place in frames that follow one another share noise: their influences are
        added before they are squared.
        """
        sums = np.bincount(self.clusters, influence)
        count = len(np.unique(self.clusters))
        if count < MIN_CLUSTERS:
            return None
        variance = (sums**2).sum() * count / (count - 1)
        return float(np.sqrt(variance))


def _weighted_correlation(weight: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two arrays (n,) with weights of sum 1."""
    first = one - (weight * one).sum()
    second = other - (weight * other).sum()
    variance = (weight * first**2).sum()
    power = variance * (weight * second**2).sum()
    if not power > 0:
        return 0.0
    covariance = (weight * first * second).sum()
    return float(covariance / np.sqrt(power))


def unlike(blocks: NoiseBlocks) -> bool:
    """Return True if blocks have nothing to do with the same blocks of the frames around."""
    known = blocks.known
    count = max(1, int(known.sum()))
    weight = np.full(count, 1 / count)
    alike = _weighted_correlation(weight, blocks.middle[known], blocks.around[known])
    return alike < LEAST_CONTRAST
