"""Structure in what a denoiser removed, and structure that it added.

For captures y = x + n of a scene and results f(y), the residual y - f(y) is the noise n less the
error f(y) - x. If the error were small, the residual would be as white as the noise and of its
variance. As f(y) keeps a part of the noise, the residual of a good denoiser has less power, and
texture that was put back makes it less still: little power is no mark. A place is marked where
matched filters respond to the residual as they do to noise in one of a hundred images
(matched_filters). It is structure that was removed where the captures show more of it than the
results, and structure that was added where the results show more.

Of K captures the means are compared: noise of the variance v / K, and what all results agree on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.special import ndtri

from n2n_lightning.metrics.matched_filters import (
    GRATINGS,
    Exceedance,
    Gratings,
    bank,
    energy,
    responses,
    threshold,
)

# Probability that an image whose residual is noise has a mark; half of what is promised, as the
# thresholds are approximate.
FALSE_ALARM = 0.005
# Of that probability: of any place, and of places at which the result shows a structure.
PROBABILITY_SHARES = {
    "filters": 0.25,
    "shown": 0.4,
    "gratings": 0.1,
    "shown gratings": 0.2,
    "energy": 0.05,
}
BACKGROUND = 15.0  # pixels: deviation of the mean that structure stands out from
LEAST_SHOWN = 1.5  # deviations of the noise: response from which the result shows a structure
UNSURE = 2.0  # standard errors of the noise's variance that are allowed for
LEAST_SHARE_OF_VARIANCE = 0.05  # of the mean variance: floor of that of a pixel
LEAST_DISTANCE = 2  # pixels between exceedances of one place
REMOVED, ADDED = 1, 2  # values of the mask
SEARCHED = 3  # where a layer of marks tells pages without structure from those not searched
Variance = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class MarkedPlace:
    """A place with structure in the residual.

    Attributes:
        kind: removed or added.
        feature: spot, line, grating or power.
        channel: of the image.
        box: top, left, bottom, right in pixels; the last two are behind it.
        significance: response of the matched filter in deviations of the noise.
    """

    kind: str
    feature: str
    channel: int
    box: tuple[int, int, int, int]
    significance: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return {
            "kind": self.kind,
            "feature": self.feature,
            "channel": self.channel,
            "box": list(self.box),
            "significance": round(self.significance, 2),
        }


@dataclass
class ResidualStructure:
    """Structure in the residual of an image.

    Attributes:
        places: the marked places, the most significant first.
        mask: (C, H, W), uint8: REMOVED or ADDED in the boxes of the places, else 0.
        variance_ratio: power of the residual, relative to the noise's; of what was removed from
            the mean of K captures, to the noise of their mean.
        neighbours: correlation of the residual between neighbours in a column and in a row.
        searched: share of the pixels that are known.
        captures: their number K.
    """

    mask: np.ndarray
    places: list[MarkedPlace] = field(default_factory=list)
    variance_ratio: float = np.nan
    neighbours: tuple[float, float] = (np.nan, np.nan)
    searched: float = 0.0
    captures: int = 1

    def count(self, kind: str) -> int:
        """Return the number of places of a kind, removed or added."""
        return sum(place.kind == kind for place in self.places)

    def line(self) -> str:
        """Describe it in a line."""
        power = f"the residual has {self.variance_ratio:.2f} of the noise's variance"
        if not self.places:
            nothing = "no structure found in the residual"
            if self.captures < 2:
                nothing += "; one capture shows strong structure alone"
            return f"{nothing} ({power})"
        parts = []
        for kind, value in (("removed", REMOVED), ("added", ADDED)):
            number = self.count(kind)
            if number:
                places = "place" if number == 1 else "places"
                share = f"{np.mean(self.mask == value):.1%} of the pixels"
                parts.append(f"structure was {kind} in {number} {places} ({share})")
        first = self.places[0]
        top, left, bottom, right = first.box
        strongest = (
            f"strongest: {first.feature} in rows {top} to {bottom - 1}, columns {left} to"
            f" {right - 1}, {first.significance:.1f} deviations of the noise"
        )
        return f"{', '.join(parts)}; {strongest}; {power}"

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return {
            "line": self.line(),
            "places": [place.as_dict() for place in self.places],
            "variance_ratio": self.variance_ratio,
            "neighbours": list(self.neighbours),
            "searched": self.searched,
            "captures": self.captures,
        }


def residual_structure(
    captures: Sequence[np.ndarray],
    results: Sequence[np.ndarray],
    variance: Variance,
    autocorrelation: np.ndarray | None = None,
    relative_error: float = 0.0,
    slope: Any = 0.0,
    images: int = 1,
) -> ResidualStructure:
    """Search the residual of an image for structure.

    Args:
        captures: one capture of the scene or more, whose noises are independent, (C, H, W) each,
            stored units; NaN where a pixel is missing.
        results: what the denoiser made of each, in the same shape.
        variance: of the noise, a function of brightness (C, H, W).
        autocorrelation: of the noise, (2 LAGS + 1, 2 LAGS + 1), 1 in the middle; None: white.
        relative_error: standard error of the variance, relative to it.
        slope: of the variance over the brightness, of all channels or each (C,): photon noise is
            skewed by it.
        images: number of images that share the probability of a false mark, as the frames of a
            movie.

    Returns:
        The marked places.

    >>> draws = np.random.default_rng(0)
    >>> scene = np.full((1, 64, 64), 50.0)
    >>> scene[0, 30:32, 30:32] += 15
    >>> noisy = scene + draws.normal(0, 3, scene.shape)
    >>> white = lambda brightness: np.full_like(brightness, 9.0)
    >>> found = residual_structure([noisy], [np.full_like(scene, 50)], white)
    >>> found.count("removed"), found.places[0].feature
    (1, 'spot')
    >>> residual_structure([noisy], [scene], white).places
    []
    """
    count = len(captures)
    capture = _mean_image(captures)
    result = _mean_image(results)
    power = np.asarray(variance(result), np.float64) / count
    power = np.broadcast_to(power, result.shape)
    mean_power = float(np.nanmean(power))
    found = ResidualStructure(np.zeros(result.shape, np.uint8), captures=count)
    if not mean_power > 0:
        return found
    power = np.maximum(power, LEAST_SHARE_OF_VARIANCE * mean_power)
    deviation = np.sqrt(power)
    residual = (capture - result) / deviation
    known = np.isfinite(residual)
    found.searched = float(known.mean())
    if not known.any():
        return found
    squares = residual[known] ** 2
    found.variance_ratio = float(squares.mean())
    residual = np.where(known, residual, 0)
    found.neighbours = _neighbours(residual, known)
    ceiling = 1 + UNSURE * relative_error
    probability = FALSE_ALARM / len(residual) / images
    search = _Search(autocorrelation, ceiling, probability)
    slopes = np.broadcast_to(np.maximum(slope, 0), len(residual))
    for channel, plane in enumerate(residual):
        # of the mean of K captures: the third cumulant falls with K^2, the variance with K
        skewness = slopes[channel] / count / deviation[channel]
        relative = result[channel] / deviation[channel]
        shown = np.where(known[channel], relative, 0)
        exceedances = search.exceedances(plane, shown, known[channel], skewness)
        for one in _strongest(exceedances, plane.shape):
            added = _was_added(one, plane, result[channel], deviation[channel])
            kind = "added" if added else "removed"
            box = _box(one, plane.shape)
            place = MarkedPlace(kind, one.feature, channel, box, one.response)
            found.places.append(place)
            top, left, bottom, right = box
            found.mask[channel, top:bottom, left:right] = ADDED if added else REMOVED
    found.places.sort(key=lambda place: -place.significance)
    return found


def _neighbours(residual: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """Return the correlation of neighbours in a column and in a row."""
    squares = residual**2
    power = float(squares.sum() / known.sum())
    correlations = []
    for axis in (1, 2):
        first, second = _pairs_along(residual, axis)
        first_known, second_known = _pairs_along(known, axis)
        both = np.count_nonzero(first_known & second_known)
        products = (first * second).sum()
        covariance = float(products / max(both, 1))
        correlations.append(covariance / max(power, 1e-30))
    down, across = correlations
    return down, across


def _pairs_along(image: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all values but the last of an axis, and their neighbours."""
    length = image.shape[axis]
    first = image.take(range(length - 1), axis)
    second = image.take(range(1, length), axis)
    return first, second


def _mean_image(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of images of one shape, float64."""
    mean: np.ndarray = np.mean([np.float64(image) for image in images], 0)
    return mean


class _Search:
    """The filters and thresholds of a search.

    Args:
        autocorrelation: see `residual_structure`.
        ceiling: the largest variance that the noise may have, in its own.
        probability: of a mark in a plane of noise.
    """

    def __init__(
        self, autocorrelation: np.ndarray | None, ceiling: float, probability: float
    ) -> None:
        if autocorrelation is not None and np.count_nonzero(autocorrelation) == 1:
            autocorrelation = None
        self.autocorrelation = autocorrelation
        self.ceiling = ceiling
        self.shares = {name: probability * share for name, share in PROBABILITY_SHARES.items()}
        self.kernels = bank(autocorrelation)

    def exceedances(
        self, residual: np.ndarray, result: np.ndarray, known: np.ndarray, skewness: np.ndarray
    ) -> list[Exceedance]:
        """Return what exceeds the thresholds in a plane (H, W).

        Args:
            residual: in deviations of the noise; 0 where it is not known.
            result: likewise.
            known: True where they are.
            skewness: of the noise.
        """
        size = np.sqrt(self.ceiling)
        residual = residual / size
        background = gaussian_filter(result, BACKGROUND)
        shown = np.where(known, result - background, 0) / size
        exceedances = self._filtered(residual, shown, skewness)
        exceedances += self._gratings(residual, shown)
        if self.autocorrelation is None:
            share = self.shares["energy"]
            exceedances += energy(residual, known, 1.0, share, skewness)
        return exceedances

    def _filtered(
        self, residual: np.ndarray, shown: np.ndarray, skewness: np.ndarray
    ) -> list[Exceedance]:
        """Return the local maxima of the responses of spots and lines."""
        limit = threshold(self.kernels, residual.size, self.shares["filters"])
        strongest = _Strongest(residual.shape)
        strongest_shown = _Strongest(residual.shape)
        for place, (filtered, of_result), number in responses([residual, shown], self.kernels):
            candidates = abs(filtered) > limit
            if candidates.any():
                values = self.kernels[number].values
                normal = _without_skewness(filtered, values, skewness[place], candidates)
                strongest.update(place, normal, filtered, number)
            size_of_result = abs(of_result)
            along = filtered * np.sign(of_result)
            both = size_of_result + along
            visible = (both > limit) & (size_of_result > LEAST_SHOWN)
            visible_size = np.where(visible, size_of_result, 0)
            skewed = visible & (filtered > 0) & (along > 0)
            if skewed.any():
                values = self.kernels[number].values
                normal = _without_skewness(filtered, values, skewness[place], skewed)
                along = np.where(skewed, normal, along)
            strongest_shown.update(place, visible_size, along, number)
        exceedances = self._maxima(strongest, limit)
        of_shown = self._maxima(strongest_shown, 0)
        along = strongest_shown.other
        ranked = _strongest(of_shown, residual.shape)
        deviates = [float(along[one.row, one.column]) for one in ranked]
        return exceedances + _significant(ranked, deviates, self.shares["shown"])

    def _maxima(self, strongest: "_Strongest", least: float) -> list[Exceedance]:
        """Return the local maxima above a value."""
        values = strongest.values
        highest = maximum_filter(values, 2 * LEAST_DISTANCE + 1)
        peaks = (values > least) & (values == highest)
        exceedances = []
        for row, column in np.argwhere(peaks):
            number = strongest.numbers[row, column]
            kernel = self.kernels[number]
            middle = (int(row), int(column))
            response = float(values[row, column])
            one = Exceedance(kernel.feature, *middle, kernel.extent, response, kernel.values)
            exceedances.append(one)
        return exceedances

    def _gratings(self, residual: np.ndarray, shown: np.ndarray) -> list[Exceedance]:
        """Return the windows with gratings in the residual."""
        exceedances = []
        of_shown = []
        along = {}
        share = self.shares["gratings"] / len(GRATINGS)
        for deviation in GRATINGS:
            spectra = Gratings(deviation, self.autocorrelation)
            limit = spectra.limit(residual.shape, share)
            for window in spectra.windows(residual, shown, limit):
                if window.power > limit:
                    exceedances.append(window.where)
                visible = 2 * window.shown > LEAST_SHOWN**2
                if visible and window.total > limit:
                    response = float(np.sqrt(2 * window.shown))
                    one = replace(window.where, response=response)
                    of_shown.append(one)
                    along[id(one)] = window.along
        ranked = _strongest(of_shown, residual.shape)
        deviates = [along[id(one)] for one in ranked]
        return exceedances + _significant(ranked, deviates, self.shares["shown gratings"])


class _Strongest:
    """The strongest response of all filters in each pixel.

    Args:
        shape: of the image, (H, W).

    Attributes:
        values: the strongest response.
        other: another response of the same filter.
        numbers: of the filter; -1 where no response is above 0.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.values = np.zeros(shape)
        self.other = np.zeros(shape)
        self.numbers = np.full(shape, -1, np.int16)

    def update(
        self, place: tuple[slice, slice], values: np.ndarray, other: np.ndarray, number: int
    ) -> None:
        """Take the responses of a filter where they are stronger."""
        better = values > self.values[place]
        np.copyto(self.values[place], values, where=better)
        np.copyto(self.other[place], other, where=better)
        self.numbers[place][better] = number


def _significant(
    ranked: list[Exceedance], deviates: list[float], probability: float
) -> list[Exceedance]:
    """Return the structures of the result of which the residual holds a part.

    Of the k-th strongest structure the probability of a false mark is 6 / (pi k)^2 of all: few
    structures, as stars on an empty sky, are tested with more power than a single place among all.

    Args:
        ranked: structures that the result shows, the strongest first.
        deviates: response of the residual to each, with the sign of the result's.
        probability: of one false mark or more.
    """
    significant = []
    for rank, (one, deviate) in enumerate(zip(ranked, deviates, strict=True), 1):
        share = probability * 6 / (np.pi * rank) ** 2
        if deviate > -ndtri(share):
            significant.append(replace(one, response=deviate))
    return significant


def _without_skewness(
    filtered: np.ndarray, values: np.ndarray, skewness: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Return normal deviates as unlikely as the responses to skewed noise, 0 elsewhere.

    The transform of Wilson and Hilferty (PNAS 1931) of a gamma distribution with the skewness of
    the response. Responses against the skewness are less likely than normal ones: they stay.
    """
    corrected = np.where(candidates, abs(filtered), 0)
    cubes = values**3
    of_response = skewness[candidates] * float(cubes.sum())
    response = filtered[candidates]
    along_skewness = response > 0
    skewed = along_skewness & (of_response > 1e-3)
    positive = np.maximum(of_response, 1e-3)
    shape = 4 / positive**2
    root = np.sqrt(shape)
    ratio = np.maximum(1 + response / root, 0)
    excess = np.cbrt(ratio) - 1
    deviate = excess + 1 / (9 * shape)
    normal = 3 * root * deviate
    corrected[candidates] = np.where(skewed, normal, abs(response))
    return corrected


def _strongest(exceedances: list[Exceedance], shape: tuple[int, ...]) -> list[Exceedance]:
    """Return the exceedances that do not stand for the same structure as a stronger one.

    The middle of one of the two lies in the box of the other.
    """
    covered = np.zeros(shape, bool)
    middles = np.zeros(shape, bool)
    strongest = []
    for one in sorted(exceedances, key=lambda one: -one.response):
        top, left, bottom, right = _box(one, shape)
        box = (slice(top, bottom), slice(left, right))
        if covered[one.row, one.column] or middles[box].any():
            continue
        covered[box] = True
        middles[one.row, one.column] = True
        strongest.append(one)
    return strongest


def _box(one: Exceedance, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of what an exceedance covers."""
    height, width = shape
    down, across = one.extent
    top = max(one.row - down, 0)
    left = max(one.column - across, 0)
    bottom = min(one.row + down + 1, height)
    right = min(one.column + across + 1, width)
    return top, left, bottom, right


def _was_added(
    one: Exceedance, residual: np.ndarray, result: np.ndarray, deviation: np.ndarray
) -> bool:
    """Decide if the results show more of a structure than the captures.

    With the template t of the structure, the residual r and the result f, the captures show
    <t, f + r> of it: less than the result if <t, f> is opposite to <t, r> and more than half of it.

    Args:
        one: where the residual exceeds a threshold.
        residual: (H, W), in deviations of the noise.
        result: (H, W), stored units.
        deviation: of the noise, (H, W).
    """
    template = one.template
    if template is None and one.feature == "grating":
        return False  # the residual shows a part of what the result shows
    if template is None:
        top, left, bottom, right = _box(one, residual.shape)
        template = residual[top:bottom, left:right]
        inside: Any = (slice(top, bottom), slice(left, right))
    else:
        template, inside = _cropped(template, one, residual.shape)
    template = template - template.mean()
    size = deviation[one.row, one.column]
    relative = np.nan_to_num(result[inside] / size)
    products = template * relative
    of_result = float(products.sum())
    products = template * residual[inside]
    of_residual = float(products.sum())
    if one.template is None:
        of_residual -= template.size  # the power of the noise itself
    opposite = of_result * of_residual < 0
    return opposite and abs(of_result) > abs(of_residual) / 2


def _cropped(
    template: np.ndarray, one: Exceedance, shape: tuple[int, ...]
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Return the part of a template inside the image, and its place there."""
    crops = []
    places = []
    middles = (one.row, one.column)
    for middle, side, length in zip(middles, template.shape, shape, strict=True):
        first = middle - side // 2
        start = max(first, 0)
        stop = min(first + side, length)
        crop = slice(start - first, stop - first)
        place = slice(start, stop)
        crops.append(crop)
        places.append(place)
    down, across = crops
    rows, columns = places
    return template[down, across], (rows, columns)
