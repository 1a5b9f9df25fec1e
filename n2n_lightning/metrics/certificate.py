"""Certificate of values: what a denoiser kept of quantities that are measured on its results.

Each line compares a quantity of results f(y) with the same one of noisy captures y = x + n, whose
noise has zero mean: relative difference and 95% interval. It holds if the interval is inside the
tolerance, it does not hold if the interval is outside, and else it cannot be told from these data.
Intervals are those of the mean over independent parts of the image (blocks, tiles, points).

Brightness is compared across captures: pixels are binned by f(y1), and y2, whose noise f(y1) does
not contain, says what is there. That f(y1) is right on average where it has a value does not say
that each true brightness is: shrinkage towards the mean is not seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, label
from scipy.optimize import isotonic_regression

from n2n_lightning.arrays.blocks import cut_blocks
from n2n_lightning.metrics.fsc import THRESHOLD, resolution, shells
from n2n_lightning.metrics.noise_law import NoiseLaw
from n2n_lightning.metrics.points import PointStack, find_points
from n2n_lightning.metrics.stein import QUANTILE

HOLDS = "holds"
FAILS = "does not hold"
UNKNOWN = "cannot be told from these data"
UNMEASURABLE = "not measurable"
ALLOWED_DIFFERENCE = 0.02
BINS = 8  # of brightness, of as many pixels each
FREQUENCY_BANDS = 8  # of frequency
BLOCK_WIDTH = 16  # pixels: side of the blocks whose sums are taken for independent
TILE_SIDE = 64  # pixels: of the windows whose spectra are
LEAST_PARTS = 8  # independent parts that an interval needs
MOST_REGIONS = 8  # that are chosen where none are given
LEAST_AREA = 64  # pixels of such a region
ENDS_OF_RANGE = (0.5, 99.5)  # percentiles of the result: dark and bright
# Of that range: differences in the dark are relative to as much at least.
LEAST_BRIGHTNESS = 0.1
RESAMPLES_OF_TILES = 400  # ends of an interval are known to 7% of its half


@dataclass(frozen=True)
class CertificateLine:
    """A quantity of the result, compared with the data.

    Attributes:
        group: brightness, regions, points, contrast, spectrum or resolution.
        name: of the quantity.
        value: relative difference of the result from the data; NaN where it is not measurable.
        interval: of 95%.
        verdict: HOLDS, FAILS, UNKNOWN or UNMEASURABLE.
        remark: what the numbers are, or why there are none.
    """

    group: str
    name: str
    value: float
    interval: tuple[float, float]
    verdict: str
    remark: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON file and a table; None for what is not known."""
        low, high = self.interval
        return {
            "group": self.group,
            "quantity": self.name,
            "difference": _number_or_none(self.value),
            "interval": [_number_or_none(low), _number_or_none(high)],
            "verdict": self.verdict,
            "remark": self.remark,
        }


def _number_or_none(number: float) -> float | None:
    """Return a number; None where it is not finite."""
    return float(number) if np.isfinite(number) else None


def verdict(interval: tuple[float, float], tolerance: float) -> str:
    """Return what an interval says of a difference.

    >>> verdict((-0.01, 0.015), 0.02), verdict((0.03, 0.05), 0.02), verdict((0.01, 0.05), 0.02)
    ('holds', 'does not hold', 'cannot be told from these data')
    """
    low, high = interval
    if -tolerance <= low and high <= tolerance:
        return HOLDS
    if low > tolerance or high < -tolerance:
        return FAILS
    return UNKNOWN


@dataclass
class Certificate:
    """The lines of a certificate.

    Attributes:
        tolerance: relative difference that is allowed.
        lines: of all quantities.
        captures: their number.
    """

    tolerance: float = ALLOWED_DIFFERENCE
    lines: list[CertificateLine] = field(default_factory=list)
    captures: int = 1

    def add(
        self,
        group: str,
        name: str,
        value: float,
        interval: tuple[float, float],
        remark: str = "",
    ) -> None:
        """Add a measured line.

        Args:
            group, name, value, interval, remark: see `CertificateLine`.
        """
        said = verdict(interval, self.tolerance)
        self.lines.append(CertificateLine(group, name, value, interval, said, remark))

    def leave_out(self, group: str, name: str, reason: str) -> None:
        """Add a line that is not measurable.

        Args:
            group, name: see `CertificateLine`.
            reason: why.
        """
        nothing = (np.nan, np.nan)
        line = CertificateLine(group, name, np.nan, nothing, UNMEASURABLE, reason)
        self.lines.append(line)

    def count(self, said: str, group: str = "") -> int:
        """Return the number of lines with a verdict.

        Args:
            said: the verdict.
            group: of the lines; empty: all.
        """
        number = 0
        for line in self.lines:
            of_group = not group or line.group == group
            number += of_group and line.verdict == said
        return number

    def line(self) -> str:
        """Describe it in a line."""
        left_out = self.count(UNMEASURABLE)
        measured = len(self.lines) - left_out
        held = self.count(HOLDS)
        if not measured:
            return f"no quantity is measurable, of {left_out} that were tried"
        said = f"{held} of {measured} quantities hold within {self.tolerance:.3g}"
        failed = [line for line in self.lines if line.verdict == FAILS]
        open_lines = self.count(UNKNOWN)
        if open_lines:
            said += f", {open_lines} cannot be told"
        if failed:
            worst = max(failed, key=lambda line: abs(line.value))
            most = f"most: {worst.name}, {worst.value:+.1%}"
            said += f", {len(failed)} do not ({most})"
        if left_out:
            said += f"; {left_out} not measurable"
        return said

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return {
            "line": self.line(),
            "tolerance": self.tolerance,
            "captures": self.captures,
            "quantities": [line.as_dict() for line in self.lines],
        }


def certify(
    captures: Sequence[np.ndarray],
    results: Sequence[np.ndarray],
    noise: NoiseLaw | None = None,
    labels: np.ndarray | None = None,
    tolerance: float = ALLOWED_DIFFERENCE,
) -> Certificate:
    """Compare the values of results with those of the captures.

    Args:
        captures: one capture of a scene or two, (C, H, W) each, stored units; NaN where a pixel is
            missing.
        results: what the denoiser made of each.
        noise: of the captures, which a single capture needs for its contrast; None: not known.
        labels: regions, (H, W), whole numbers; 0 is none. None: chosen.
        tolerance: relative difference that is allowed.

    Returns:
        The certificate.

    >>> draws = np.random.default_rng(0)
    >>> scene = np.kron(draws.uniform(50, 150, (1, 16, 16)), np.ones((16, 16)))
    >>> captures = [scene + draws.normal(0, 5, scene.shape) for _ in range(2)]
    >>> dark = certify(captures, [scene * 0.9] * 2)
    >>> dark.count(HOLDS, "brightness"), dark.count(FAILS, "brightness") > 4
    (0, True)
    """
    certificate = Certificate(tolerance, captures=len(captures))
    noisy = [np.asarray(image, np.float64) for image in captures[:2]]
    denoised = [np.asarray(image, np.float64) for image in results[:2]]
    channels = len(noisy[0])
    for channel in range(channels):
        prefix = f"channel {channel}: " if channels > 1 else ""
        planes = [image[channel] for image in noisy]
        denoised_planes = [image[channel] for image in denoised]
        of_channel = Comparison(planes, denoised_planes, prefix)
        variance = None
        if noise is not None and noise.measurable:
            from_photons = noise.b[channel] * noise.brightness[channel]
            variance = float(noise.a[channel] + from_photons)
        error = 0.0 if noise is None else noise.standard_error
        of_channel.brightness(certificate)
        of_channel.regions(certificate, labels)
        of_channel.points(certificate)
        of_channel.contrast(certificate, variance, error)
        of_channel.spectrum(certificate)
    return certificate


class Comparison:
    """One channel of the captures of a scene and of their results.

    Args:
        captures, results: (H, W) each.
        prefix: of the names of all quantities.
    """

    def __init__(
        self, captures: list[np.ndarray], results: list[np.ndarray], prefix: str = ""
    ) -> None:
        known = np.isfinite(np.sum(captures, 0) + np.sum(results, 0))
        self.known = known
        self.captures = captures
        self.results = results
        self.prefix = prefix
        self.result = np.mean(results, 0)
        self.dark = 0.0
        self.span = 0.0
        if known.any():
            dark, bright = np.percentile(self.result[known], ENDS_OF_RANGE)
            self.dark = float(dark)
            self.span = float(bright - dark)

    @property
    def paired(self) -> bool:
        """True if there are two captures."""
        return len(self.captures) > 1

    def relative_to(self, brightness: float) -> float:
        """Return the brightness above the dark end, and at least a share of the range."""
        return max(brightness - self.dark, LEAST_BRIGHTNESS * self.span, 1e-30)

    def brightness(self, certificate: Certificate) -> None:
        """Add the bias of each bin of brightness."""
        name = f"{self.prefix}bias against brightness"
        if not self.paired:
            reason = "needs a second capture: in one, the result shares the noise"
            certificate.leave_out("brightness", name, reason)
            return
        if not self.span > 0:
            certificate.leave_out("brightness", name, "the result has one value")
            return
        quantiles = np.linspace(0, 1, BINS + 1)
        every_edge = np.quantile(self.result[self.known], quantiles)
        inner = np.unique(every_edge)[1:-1]
        for number in range(len(inner) + 1):
            sums = []
            for result, other in self._crossed():
                bins = np.searchsorted(inner, result, side="right")
                inside = self.known & (bins == number)
                of_pair = _sums_of_blocks([result, result - other], inside)
                sums.append(of_pair)
            total, difference, count = np.sum(sums, 0)
            values = count.sum()
            if not values:
                continue
            mean = total.sum() / values
            value, interval = _ratio(difference, count * self.relative_to(mean))
            where = f"{self.prefix}bias at brightness {mean:.4g}"
            remark = f"{int(values)} values"
            certificate.add("brightness", where, value, interval, remark)

    def _crossed(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield each result with the capture that it does not know."""
        others = reversed(self.captures)
        yield from zip(self.results, others, strict=True)

    def regions(self, certificate: Certificate, labels: np.ndarray | None) -> None:
        """Add the sum of each region."""
        how = "given"
        if labels is None:
            seen = np.where(self.known, self.result, np.nan)
            labels = chosen_regions(seen)
            how = "chosen by brightness"
        difference = self.result - np.mean(self.captures, 0)
        for region in np.unique(labels[labels > 0]):
            name = f"{self.prefix}sum of region {region}"
            inside = self.known & (labels == region)
            total, of_difference, count = _sums_of_blocks([self.result, difference], inside, 8)
            counted = count > 0
            if counted.sum() < LEAST_PARTS:
                certificate.leave_out("regions", name, "the region is too small")
                continue
            pixels = count.sum()
            mean = float(total.sum() / pixels)
            relative = count[counted] * self.relative_to(mean)
            value, interval = _ratio(of_difference[counted], relative)
            remark = f"{how}: {int(pixels)} pixels, mean {mean:.4g}"
            certificate.add("regions", name, value, interval, remark)

    def points(self, certificate: Certificate) -> None:
        """Add flux and width of points."""
        stack = PointStack()
        # places from one capture, values from the other: noise chooses no place by its own values
        of_places = reversed(self.results)
        for capture, result, other in zip(self.captures, self.results, of_places, strict=True):
            seen = np.where(self.known, other, np.nan)
            for row, column in find_points(seen):
                stack.add(capture, result, row, column)
        count = len(stack)
        for quantity, measure in (("flux", stack.flux), ("width", stack.width)):
            name = f"{self.prefix}{quantity} of points"
            if count < LEAST_PARTS:
                reason = f"{count} points are in the image, and {LEAST_PARTS} are needed"
                certificate.leave_out("points", name, reason)
                continue
            value, interval = measure()
            certificate.add("points", name, value, interval, f"{count} points")

    def contrast(
        self, certificate: Certificate, variance: float | None, relative_error: float
    ) -> None:
        """Add the standard deviation of the values, without that of the noise.

        Args:
            certificate: gets the line.
            variance: of the noise, which a single capture needs.
            relative_error: its standard error, relative.
        """
        name = f"{self.prefix}standard deviation of the values"
        if not self.paired and variance is None:
            certificate.leave_out("contrast", name, "needs a second capture or the noise")
            return
        center = 0.0
        if self.known.any():
            center = float(np.mean(self.result[self.known]))
        of_data = _product_of_ends(self.captures, center)
        of_result = _product_of_ends(self.results, center)
        from_noise = 0.0
        if not self.paired:
            assert variance is not None
            of_data = of_data - variance
            from_noise = relative_error * variance
        power, difference, count = _sums_of_blocks([of_data, of_result - of_data], self.known)
        if not power.sum() > 0:
            certificate.leave_out("contrast", name, "the noise hides how the values differ")
            return
        value, interval = _ratio(difference, power)
        extra = QUANTILE * from_noise * count.sum() / power.sum()
        low, high = interval
        ends = (_root(low - extra), _root(high + extra))
        remark = "" if self.paired else "less the noise that was measured in the picture"
        certificate.add("contrast", name, _root(value), ends, remark)

    def spectrum(self, certificate: Certificate) -> None:
        """Add the gain of bands of frequency, and the resolution."""
        name = f"{self.prefix}radial spectrum"
        if not self.paired:
            reason = "needs a second capture: in one, the result shares the noise"
            certificate.leave_out("spectrum", name, reason)
            certificate.leave_out("resolution", f"{self.prefix}Fourier ring correlation", reason)
            return
        tiles = self._tiles()
        if len(tiles) < LEAST_PARTS:
            reason = f"the image has {len(tiles)} tiles of {TILE_SIDE} pixels"
            certificate.leave_out("spectrum", name, reason)
            return
        for band in range(FREQUENCY_BANDS):
            low = band / (2 * FREQUENCY_BANDS)
            high = (band + 1) / (2 * FREQUENCY_BANDS)
            where = f"{self.prefix}gain at {low:.3f} to {high:.3f} per pixel"
            of_data, of_result, power, _ = tiles[:, :, band].T
            value, interval = _ratio(of_result - of_data, of_data)
            signal = of_data.sum()
            if not (signal > 0 and np.isfinite(interval).all()):
                certificate.leave_out("spectrum", where, "the noise hides these frequencies")
                continue
            share = signal / max(power.sum(), 1e-30)
            remark = f"{share:.0%} of the data's power is signal"
            certificate.add("spectrum", where, value, interval, remark)
        self._resolution(certificate, tiles)

    def _tiles(self) -> np.ndarray:
        """Return spectra of the tiles that are known, (tiles, 4, FREQUENCY_BANDS).

        The cross spectrum of the captures, that of results with the captures that they do not
        know, and the power of captures and results.
        """
        tiles = []
        height, width = self.known.shape
        step = TILE_SIDE // 2
        for top in range(0, height - TILE_SIDE + 1, step):
            for left in range(0, width - TILE_SIDE + 1, step):
                where = (slice(top, top + TILE_SIDE), slice(left, left + TILE_SIDE))
                if self.known[where].all():
                    spectra = self._spectra_of_tile(where)
                    tiles.append(spectra)
        return np.array(tiles)

    def _spectra_of_tile(self, where: tuple[slice, slice]) -> list[np.ndarray]:
        """Return the spectra of one tile, in the order of `_tiles`."""
        first, second = self.captures
        of_data = shells(first[where], second[where], FREQUENCY_BANDS)
        cross, power_of_first, power_of_second = of_data.T
        crossed = []
        for result, other in self._crossed():
            of_pair = shells(result[where], other[where], FREQUENCY_BANDS)
            crossed.append(of_pair)
        cross_of_result, power_of_result, _ = np.mean(crossed, 0).T
        power = (power_of_first + power_of_second) / 2
        return [cross, cross_of_result, power, power_of_result]

    def _resolution(self, certificate: Certificate, tiles: np.ndarray) -> None:
        """Add the frequency at which the Fourier ring correlation falls below its threshold.

        Of an ideal result the squared correlation with the other capture is the correlation of
        both captures.
        """
        name = f"{self.prefix}Fourier ring correlation"
        draws = np.random.default_rng(0)
        of_data, of_result = _ring_resolutions(tiles.sum(0))
        if not of_data > 0:
            certificate.leave_out("resolution", name, "the captures have no detail in common")
            return
        ratios = []
        for _ in range(RESAMPLES_OF_TILES):
            drawn = draws.integers(0, len(tiles), len(tiles))
            sums = tiles[drawn].sum(0)
            data, result = _ring_resolutions(sums)
            ratio = result / max(data, 1e-6)
            ratios.append(ratio - 1)
        low, high = np.percentile(ratios, (2.5, 97.5))
        in_data = f"{THRESHOLD} at {of_data:.3f} per pixel in the data"
        remark = f"{in_data}, {of_result:.3f} in the result"
        ends = (float(low), float(high))
        value = of_result / of_data - 1
        certificate.add("resolution", name, value, ends, remark)


def _ring_resolutions(sums: np.ndarray) -> tuple[float, float]:
    """Return the resolution of captures and results, from sums (4, FREQUENCY_BANDS) of tiles."""
    cross, cross_of_result, power, power_of_result = sums
    middles = np.arange(FREQUENCY_BANDS) + 0.5
    frequencies = (middles / (2 * FREQUENCY_BANDS)).tolist()
    correlation = cross / np.maximum(power, 1e-30)
    product = np.maximum(power * power_of_result, 1e-60)
    squared = np.maximum(cross_of_result, 0) ** 2 / product
    of_data = resolution(frequencies, correlation.tolist())
    of_result = resolution(frequencies, squared.tolist())
    return of_data, of_result


def _product_of_ends(images: Sequence[np.ndarray], center: float) -> np.ndarray:
    """Return the first image times the last, both less a value: of a single one its square."""
    first = images[0]
    last = images[len(images) - 1]
    product: np.ndarray = (first - center) * (last - center)
    return product


def _root(ratio: float) -> float:
    """Return the relative difference of a root from that of its square."""
    return float(np.sqrt(max(1 + ratio, 0.0)) - 1)


def _sums_of_blocks(
    images: Sequence[np.ndarray], inside: np.ndarray, side: int = BLOCK_WIDTH
) -> np.ndarray:
    """Return sums of images (H, W) over blocks, and the numbers of pixels, (images + 1, blocks)."""
    height, width = inside.shape
    padding = ((0, -height % side), (0, -width % side))
    sums = []
    for image in (*images, np.ones(inside.shape)):
        counted = np.where(inside, image, 0)
        padded = np.pad(counted, padding)
        of_blocks = cut_blocks(padded, side).sum((1, 3))
        sums.append(of_blocks.ravel())
    return np.array(sums)


def _ratio(difference: np.ndarray, reference: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Return the ratio of two sums over independent parts (n,), and its 95% interval.

    The variance of a ratio estimator (Cochran, Sampling Techniques, 1977, section 6.4).
    """
    total = float(reference.sum())
    counted = reference != 0
    parts = int(counted.sum())
    if parts < LEAST_PARTS or not total > 0:
        return np.nan, (-np.inf, np.inf)
    value = float(difference.sum()) / total
    deviations = difference[counted] - value * reference[counted]
    squares = (deviations**2).sum()
    error = float(np.sqrt(squares * parts / (parts - 1)) / total)
    half = QUANTILE * error
    return value, (value - half, value + half)


def chosen_regions(result: np.ndarray) -> np.ndarray:
    """Label the largest bright regions of a result.

    Args:
        result: (H, W); NaN where a pixel is missing.

    Returns:
        (H, W), whole numbers: 1 for the largest region brighter than Otsu's threshold, up to
        MOST_REGIONS; 0 elsewhere.
    """
    from skimage.filters import threshold_otsu

    known = np.isfinite(result)
    labels = np.zeros(result.shape, np.int64)
    values = result[known]
    if not len(values) or not np.ptp(values) > 0:
        return labels
    filled = np.where(known, result, np.median(values))
    smooth = gaussian_filter(filled, 2)
    limit = threshold_otsu(smooth[known])
    areas, count = label(known & (smooth > limit))
    sizes = np.bincount(areas.ravel(), minlength=count + 1)
    sizes[0] = 0
    largest = np.argsort(-sizes)[:MOST_REGIONS]
    for number, area in enumerate(largest, 1):
        if sizes[area] >= LEAST_AREA:
            labels[areas == area] = number
    return labels


class Unbias:
    """A monotone curve that takes out the bias against brightness.

    Isotonic regression of one capture on the result of the other (Barlow and Brunk, JASA 1972).

    Args:
        results: of captures, of any shape.
        captures: those that each result does not know.
    """

    def __init__(self, results: Sequence[np.ndarray], captures: Sequence[np.ndarray]) -> None:
        result = _flat_values(results)
        capture = _flat_values(captures)
        known = np.isfinite(result + capture)
        result = result[known]
        capture = capture[known]
        order = np.argsort(result, kind="stable")
        levels, counts, means = _level_means(result[order], capture[order])
        self.levels = levels
        self.values = isotonic_regression(means, weights=counts).x

    def __call__(self, result: np.ndarray) -> np.ndarray:
        """Return a result without the bias; beyond the levels of the fit it is shifted."""
        darkest = self.levels.min()
        brightest = self.levels.max()
        inside = np.clip(result, darkest, brightest)
        expected = np.interp(inside, self.levels, self.values)
        corrected: np.ndarray = expected + result - inside
        return corrected


def _flat_values(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the values of all images, (values,), float64."""
    flat = [np.asarray(image, np.float64).ravel() for image in images]
    return np.concatenate(flat)


LEVELS = 64  # of an isotonic curve: each is the mean of as many pixels


def _level_means(
    result: np.ndarray, capture: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean results, numbers and mean captures of groups of sorted pixels."""
    groups = min(LEVELS, len(result))
    edges = np.linspace(0, len(result), groups + 1).astype(int)
    starts = edges[:-1]
    counts = np.diff(edges)
    levels = np.add.reduceat(result, starts) / counts
    means = np.add.reduceat(capture, starts) / counts
    levels, first = np.unique(levels, return_index=True)
    return levels, counts[first].astype(float), means[first]
