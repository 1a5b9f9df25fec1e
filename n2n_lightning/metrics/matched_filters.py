"""Matched filters for faint structure in noise: spots, line segments, gratings and raised power.

Each filter has unit power under the noise, so that its response to noise alone has variance 1. The
threshold comes from the expected number of maxima of a smooth Gaussian field (Adler, The Geometry
of Random Fields, 1981, section 6.9; Worsley et al., Human Brain Mapping 1996), bounded by the
number of pixels, so that an image of noise has a response above it with a given probability.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import minimum_filter, uniform_filter
from scipy.special import gammaincc, ndtr, ndtri

from n2n_lightning.metrics.autocorrelation import LAGS

SPOTS = (0.0, 0.6, 0.85, 1.2, 1.7, 2.4, 3.4, 4.8, 6.8, 9.6)  # pixels: deviations; 0: one pixel
# Deviations across and along, pixels, and number of angles, of which neighbours overlap by 0.9.
LINES = ((0.7, 4.0, 12), (1.4, 4.0, 12), (0.6, 8.0, 24), (1.2, 8.0, 12), (0.8, 14.0, 30))
GRATINGS = (4, 7, 12)  # pixels: deviations of the windows
WINDOW_SIDE = 5  # deviations: side of such a window
FINE = 2  # frequencies between those of a window's length, where a window may hold a grating
# Of the threshold: power at such frequencies from which those between them are searched; half way
# between two of them a wave has 0.7 of its power.
LEAST_POWER = 0.6
LEAST_ALONG = 1.5  # deviations: likewise of what the result shows; noise: one window in 15
LEAST_CYCLES = 2.0  # in a window: below, spots and lines say it
ENERGIES = (8, 16, 32)  # pixels: sides of the windows in which power is summed
# The filters overlap: share of the sum of their probabilities that is theirs together, by
# benchmarks/certificate.py (maxima over 100 images of white noise, median to 99%: 0.2 to 0.35).
OVERLAP = 0.3
EDGE = 0.3  # of the largest value of a filter: where what it covers ends
LEAST_EXTENT = 2  # pixels around the middle of a place
TILE = 512  # pixels: side of the parts that are filtered at a time


@dataclass(frozen=True)
class Exceedance:
    """Where a filter exceeds its threshold.

    Attributes:
        feature: spot, line, grating or power.
        row, column: of its middle.
        extent: half the height and half the width of the box that it covers, pixels.
        response: in deviations of the noise; of power, the normal deviate as unlikely.
        template: what the image was compared with, around that pixel; None where it is not known.
    """

    feature: str
    row: int
    column: int
    extent: tuple[int, int]
    response: float
    template: np.ndarray | None = None


@dataclass(frozen=True)
class Kernel:
    """A filter of the bank.

    Attributes:
        feature: spot or line.
        values: (2 reach + 1, 2 reach + 1), of unit power under the noise.
        density: of its maxima, per pixel: det(L)^(1/2) / (2 pi)^(3/2) with the covariance L of
            its gradient.
    """

    feature: str
    values: np.ndarray
    density: float

    @property
    def reach(self) -> int:
        """Half its side, pixels."""
        return len(self.values) // 2

    @property
    def extent(self) -> tuple[int, int]:
        """Half the height and half the width of what it covers, pixels."""
        covered = self.values > EDGE * self.values.max()
        rows = covered.any(1)
        columns = covered.any(0)
        return _half_of(rows), _half_of(columns)


def _half_of(covered: np.ndarray) -> int:
    """Return half the number of covered rows or columns, LEAST_EXTENT or more."""
    half = int(covered.sum()) // 2
    return max(half, LEAST_EXTENT)


def _spot(deviation: float) -> np.ndarray:
    """Return a round Gaussian."""
    reach = int(np.ceil(3 * deviation))
    offsets = np.arange(-reach, reach + 1)
    spread = max(deviation, 1e-3)
    profile = np.exp(-(offsets**2) / (2 * spread**2))
    return np.outer(profile, profile)


def _line(width: float, length: float, angle: float) -> np.ndarray:
    """Return an elongated Gaussian at an angle."""
    reach = int(np.ceil(2.5 * length))
    offsets = np.arange(-reach, reach + 1)
    rows = offsets[:, None]
    columns = offsets[None]
    cosine = np.cos(angle)
    sine = np.sin(angle)
    along = columns * cosine + rows * sine
    across = rows * cosine - columns * sine
    along = along / length
    across = across / width
    exponent = along**2 + across**2
    values: np.ndarray = np.exp(-exponent / 2)
    return values


def _power_under(values: np.ndarray, autocorrelation: np.ndarray | None) -> float:
    """Return the variance of the response to noise of variance 1."""
    if autocorrelation is None:
        squares = values**2
        return float(squares.sum())
    rows, columns = values.shape
    size = (rows + 2 * LAGS, columns + 2 * LAGS)
    products = _products_of_shifts(values, size) * autocorrelation
    return float(products.sum())


def _products_of_shifts(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return sums of products with shifts by up to LAGS, (2 LAGS + 1, 2 LAGS + 1).

    Args:
        values: padded with zeros up to a size.
        size: so large that shifted values do not wrap around.
    """
    spectrum = rfft2(values, size)
    power = abs(spectrum) ** 2
    products = irfft2(power, size)
    centred = np.roll(products, (LAGS, LAGS), (0, 1))
    side = 2 * LAGS + 1
    return centred[:side, :side]


def _normalized(feature: str, values: np.ndarray, autocorrelation: np.ndarray | None) -> Kernel:
    """Scale a filter to unit power under the noise, and find the density of its maxima."""
    power = _power_under(values, autocorrelation)
    values = values / np.sqrt(max(power, 1e-12))
    padded = np.pad(values, 1)
    down = np.diff(padded, axis=0)
    right = np.diff(padded, axis=1)
    variance_down = _power_under(down, autocorrelation)
    variance_right = _power_under(right, autocorrelation)
    # both between the same four pixels, twice as large
    twice_down = down[:, 1:] + down[:, :-1]
    twice_right = right[1:] + right[:-1]
    products = twice_down * twice_right / 4
    covariance = float(products.sum())
    determinant = variance_down * variance_right - covariance**2
    root = np.sqrt(max(determinant, 0.0))
    density = root / (2 * np.pi) ** 1.5
    return Kernel(feature, values, float(density))


def bank(autocorrelation: np.ndarray | None = None) -> list[Kernel]:
    """Return the spots and lines of the search.

    Args:
        autocorrelation: of the noise, (2 LAGS + 1, 2 LAGS + 1), 1 in the middle; None: white.

    Returns:
        The filters.
    """
    if autocorrelation is None:
        return _white_bank()
    return _normalized_shapes(autocorrelation)


@cache
def _white_bank() -> list[Kernel]:
    return _normalized_shapes(None)


def _normalized_shapes(autocorrelation: np.ndarray | None) -> list[Kernel]:
    kernels = []
    for feature, values in _shapes():
        kernel = _normalized(feature, values, autocorrelation)
        kernels.append(kernel)
    return kernels


def _shapes() -> Iterator[tuple[str, np.ndarray]]:
    """Yield the feature and the values of each filter."""
    for deviation in SPOTS:
        yield "spot", _spot(deviation)
    for width, length, angles in LINES:
        for number in range(angles):
            angle = np.pi * number / angles
            yield "line", _line(width, length, angle)


def threshold(kernels: list[Kernel], pixels: int, probability: float) -> float:
    """Return the response that noise exceeds anywhere with a given probability.

    Args:
        kernels: all filters of the search.
        pixels: number of pixels of the image.
        probability: of one exceedance or more, of either sign.

    Returns:
        In deviations of the noise.
    """
    levels = np.linspace(2, 10, 1601)
    tail = ndtr(-levels)
    curve = levels * np.exp(-(levels**2) / 2)
    total = np.zeros_like(levels)
    for kernel in kernels:
        maxima = kernel.density * curve
        total += 2 * np.minimum(tail, maxima)
    expected = OVERLAP * pixels * total
    rare = levels[expected <= probability]
    if not len(rare):
        return float(levels.max())
    return float(rare[0])


def responses(
    images: Sequence[np.ndarray], kernels: list[Kernel]
) -> Iterator[tuple[tuple[slice, slice], list[np.ndarray], int]]:
    """Filter images of one size.

    Args:
        images: (H, W) each, in deviations of the noise; 0 where it is not known.
        kernels: the filters.

    Yields:
        For each part of the images and each filter: the place of the part, the responses of each
        image, and the number of the filter.
    """
    height, width = images[0].shape
    reach = max(kernel.reach for kernel in kernels)
    padded = []
    for image in images:
        single = np.asarray(image, np.float32)
        padded.append(np.pad(single, reach))
    sides = []
    for length in (height, width):
        needed = min(TILE, length) + 2 * reach
        side = next_fast_len(needed, real=True)
        sides.append(side)
    spectra_of_kernels = []
    for kernel in kernels:
        values = np.asarray(kernel.values, np.float32)
        spectrum = rfft2(values, sides)
        spectra_of_kernels.append(np.conj(spectrum))
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom = min(top + TILE, height)
            right = min(left + TILE, width)
            tall = slice(top, bottom + 2 * reach)
            wide = slice(left, right + 2 * reach)
            spectra = [rfft2(image[tall, wide], sides) for image in padded]
            place = (slice(top, bottom), slice(left, right))
            for number, kernel in enumerate(kernels):
                first = reach - kernel.reach
                rows = slice(first, first + bottom - top)
                columns = slice(first, first + right - left)
                filtered = []
                for spectrum in spectra:
                    product = spectrum * spectra_of_kernels[number]
                    response = irfft2(product, sides)
                    filtered.append(response[rows, columns])
                yield place, filtered, number


@dataclass(frozen=True)
class GratingWindow:
    """A window of an image in which one frequency is strong.

    Attributes:
        where: it, for the list of places; its response is that of the residual.
        power: of the strongest frequency of the residual, exponentially distributed in noise.
        shown: power of the frequency that is strongest in the result.
        along: response of the residual to the wave that the result shows, a normal deviate.
        total: power of capture at that frequency.
    """

    where: Exceedance
    power: float
    shown: float
    along: float
    total: float


class Gratings:
    """Windowed spectra, in which gratings and textures of one frequency stand out.

    The power of a coefficient of Gaussian noise is exponentially distributed.

    Args:
        deviation: of the Gaussian window, pixels.
        autocorrelation: of the noise, see `bank`.
    """

    def __init__(self, deviation: int, autocorrelation: np.ndarray | None) -> None:
        self.deviation = deviation
        self.side = WINDOW_SIDE * deviation
        middle = (self.side - 1) / 2
        offset = np.arange(self.side) - middle
        profile = np.exp(-(offset**2) / (2 * deviation**2))
        self.window = np.outer(profile, profile)
        self.weight = _weight_of_power(self.window, self.side, autocorrelation)
        self.fine_side = FINE * self.side
        self.fine_weight = _weight_of_power(self.window, self.fine_side, autocorrelation)

    def limit(self, shape: tuple[int, ...], probability: float) -> float:
        """Return the power that noise exceeds anywhere with a given probability.

        Args:
            shape: of the image, (H, W).
            probability: of one exceedance or more.
        """
        windows = 1.0
        for length in shape:
            steps = (length - self.side) // self.deviation
            windows *= max(0, steps + 1)
        frequencies = np.count_nonzero(self.weight > 0)
        tests = max(windows * frequencies, 1)
        return float(np.log(tests / probability))

    def windows(
        self, residual: np.ndarray, shown: np.ndarray, least: float
    ) -> Iterator[GratingWindow]:
        """Yield the windows of an image with strong frequencies.

        Args:
            residual: (H, W), in deviations of the noise.
            shown: the result without its local mean, in the same unit.
            least: power of the residual, or of the capture at a frequency that the result shows.
        """
        if min(residual.shape) < self.side:
            return
        of_residual = self._grid_of_windows(residual)
        of_result = self._grid_of_windows(shown)
        for row in range(len(of_residual)):
            for column in self._candidates(of_residual[row], of_result[row], least):
                pair = (of_residual[row, column], of_result[row, column])
                window = self._fine(row, column, *pair, least)
                if max(window.power, window.total) > least:
                    yield window

    def _grid_of_windows(self, image: np.ndarray) -> np.ndarray:
        """Return the windows of an image (H, W), (rows, columns, side, side)."""
        sides = (self.side, self.side)
        every = np.lib.stride_tricks.sliding_window_view(image, sides)
        return every[:: self.deviation, :: self.deviation]

    def _candidates(self, residual: np.ndarray, shown: np.ndarray, least: float) -> list[int]:
        """Return the windows (windows, side, side) of a row in which power may exceed a value."""
        weight = self.weight.ravel()
        spectra = rfft2(residual * self.window).reshape(-1, weight.size)
        of_result = rfft2(shown * self.window).reshape(-1, weight.size)
        power = abs(spectra) ** 2 * weight
        most_shown = (abs(of_result) ** 2 * weight).argmax(1)
        every = np.arange(len(spectra))
        gain = weight[most_shown]
        wave = spectra[every, most_shown]
        wave_of_result = of_result[every, most_shown]
        along = _component(wave, wave_of_result) * np.sqrt(2 * gain)
        total = abs(wave + wave_of_result) ** 2 * gain
        kept_in_part = (total > LEAST_POWER * least) & (along > LEAST_ALONG)
        strong = power.max(1) > LEAST_POWER * least
        numbers: list[int] = np.flatnonzero(strong | kept_in_part).tolist()
        return numbers

    def _fine(
        self, row: int, column: int, residual: np.ndarray, shown: np.ndarray, least: float
    ) -> GratingWindow:
        """Return the strongest frequencies of a window (side, side), also between its own."""
        weight = self.fine_weight.ravel()
        sides = (self.fine_side, self.fine_side)
        spectrum = rfft2(residual * self.window, sides).ravel()
        of_result = rfft2(shown * self.window, sides).ravel()
        power = abs(spectrum) ** 2 * weight
        power_of_result = abs(of_result) ** 2 * weight
        strongest = int(power.argmax())
        most_shown = int(power_of_result.argmax())
        gain = weight[most_shown]
        along = _component(spectrum[most_shown], of_result[most_shown]) * np.sqrt(2 * gain)
        total = abs(spectrum[most_shown] + of_result[most_shown]) ** 2 * gain
        wave = None
        if power[strongest] > least:
            wave = self._wave(spectrum[strongest], strongest)
        return GratingWindow(
            self._place(row, column, float(power[strongest]), wave),
            float(power[strongest]),
            float(power_of_result[most_shown]),
            float(along),
            float(total),
        )

    def _wave(self, coefficient: complex, number: int) -> np.ndarray:
        """Return the windowed wave of one coefficient of a fine spectrum."""
        only = np.zeros(self.fine_weight.shape, complex)
        only.flat[number] = coefficient
        wave: np.ndarray = irfft2(only, (self.fine_side, self.fine_side))
        return wave[: self.side, : self.side] * self.window

    def _place(self, row: int, column: int, power: float, wave: np.ndarray | None) -> Exceedance:
        """Return a window, for the list of places."""
        half = self.side // 2
        down = row * self.deviation + half
        across = column * self.deviation + half
        reach = 2 * self.deviation
        response = float(np.sqrt(2 * power))
        return Exceedance("grating", down, across, (reach, reach), response, wave)


def _component(wave: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Return the part of complex amplitudes that is in phase with others."""
    size = np.maximum(abs(along), 1e-30)
    turned = wave * np.conj(along / size)
    component: np.ndarray = turned.real
    return component


def _weight_of_power(
    window: np.ndarray, side: int, autocorrelation: np.ndarray | None
) -> np.ndarray:
    """Return the weights that make the power of windowed noise exponential, of mean 1.

    Args:
        window: (side of the window,) * 2.
        side: of the spectrum, that of the window or a multiple.
        autocorrelation: of the noise, see `bank`.

    Returns:
        (side, side // 2 + 1); 0 for waves of fewer than LEAST_CYCLES in the window.
    """
    vertical = np.fft.fftfreq(side) * len(window)
    horizontal = np.fft.rfftfreq(side) * len(window)
    cycles = np.hypot(vertical[:, None], horizontal)
    expected = _expected_spectrum(window, side, autocorrelation)
    fast = cycles >= LEAST_CYCLES
    weight = np.where(fast, 1 / expected, 0)
    # real coefficients have one part: half their power is no larger than exponential
    fastest = len(window) / 2
    edge = (horizontal == 0) | (horizontal == fastest)
    weights: np.ndarray = np.where(edge, weight / 2, weight)
    return weights


def _expected_spectrum(
    window: np.ndarray, side: int, autocorrelation: np.ndarray | None
) -> np.ndarray:
    """Return the power of windowed noise of variance 1, as rfft2 gives it."""
    power = _power_under(window, None)
    if autocorrelation is None:
        return np.full((side, side // 2 + 1), power)
    padded = 2 * len(window) + 2 * LAGS
    products = _products_of_shifts(window, (padded, padded)) * autocorrelation
    # shifts beyond the side of the spectrum fall on those of the other end
    shifts = np.arange(-LAGS, LAGS + 1) % side
    folded = np.zeros((side, side))
    np.add.at(folded, np.ix_(shifts, shifts), products)
    transformed = rfft2(folded)
    spectrum: np.ndarray = np.maximum(transformed.real, 1e-3 * power)
    return spectrum


def energy(
    image: np.ndarray,
    known: np.ndarray,
    power: float,
    probability: float,
    skewness: np.ndarray | float = 0.0,
) -> list[Exceedance]:
    """Find windows with more power than noise has.

    Args:
        image: (H, W), in deviations of the noise; 0 where it is not known.
        known: True where it is.
        power: the largest that noise has, 1 but for the error of its variance.
        probability: of one exceedance or more in noise.
        skewness: of the noise, (H, W) or of all pixels. As Poisson's, its square is the excess
            kurtosis.

    Returns:
        The windows that exceed the threshold.
    """
    squares = image**2
    counted = squares[known]
    if not counted.size:
        return []
    typical = max(float(counted.mean()), 1e-12)
    fourth_powers = counted**2
    heavy_overall = float(fourth_powers.mean()) / typical**2 / 3
    heavy_overall = max(heavy_overall, 1.0)
    # the variance of squares, over a Gaussian's
    of_skewed = 1 + np.broadcast_to(skewness, image.shape) ** 2 / 2
    of_skewed = np.nan_to_num(of_skewed, nan=1.0)
    exceedances = []
    for side in ENERGIES:
        if min(image.shape) < side:
            continue
        share = uniform_filter(known.astype(np.float64), side, mode="constant")
        mean = uniform_filter(squares, side, mode="constant")
        mean = mean / np.maximum(share, 1e-9)
        # heavy-tailed squares count as fewer
        heavy = np.maximum(uniform_filter(of_skewed, side), heavy_overall)
        freedom = side**2 * share / heavy
        total = freedom * mean / power
        tail = gammaincc(freedom / 2, total / 2)
        tail = np.where(share > 0.5, tail, 1)
        tests = image.size * 16 / side**2
        limit = probability / len(ENERGIES) / tests
        smallest = minimum_filter(tail, side)
        rare = (tail < limit) & (tail == smallest)
        half = side // 2
        for row, column in np.argwhere(rare):
            chance = max(tail[row, column], 1e-300)
            response = -float(ndtri(chance))
            one = Exceedance("power", int(row), int(column), (half, half), response)
            exceedances.append(one)
    return exceedances
