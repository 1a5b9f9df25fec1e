"""Points of an image, as stars or single molecules: where they are, their flux and their width."""

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from n2n_lightning.metrics.stein import QUANTILE

APERTURE = 4.0  # pixels: radius in which the flux is summed
BACKGROUND_RING = (6.0, 9.0)  # pixels: radii between which the background is measured
STAMP = 9  # pixels on either side of a point
SIGNIFICANT = 10.0  # robust deviations of the filtered image that a point exceeds
MOST_POINTS = 400  # of an image, the brightest
MOST_RADIUS = 2.6  # pixels: root mean square radius above which it is no point
RESAMPLES_OF_POINTS = 400  # ends of an interval are known to 7% of its half


def find_points(image: np.ndarray) -> list[tuple[int, int]]:
    """Find isolated compact maxima.

    Args:
        image: (H, W), stored units, with little noise; NaN where a pixel is missing.

    Returns:
        Row and column of each, the brightest first.
    """
    known = np.isfinite(image)
    if not known.any():
        return []
    typical = np.median(image[known])
    filled = np.where(known, image, typical)
    filtered = gaussian_filter(filled, 1) - gaussian_filter(filled, 3)
    distances = abs(filtered - np.median(filtered))
    spread = 1.4826 * float(np.median(distances))
    least = max(SIGNIFICANT * spread, 0)
    highest = maximum_filter(filtered, 2 * STAMP + 1) == filtered
    peaks = highest & (filtered > least)
    points = []
    order = np.argsort(-filtered[peaks])
    for row, column in np.argwhere(peaks)[order]:
        stamp = _stamp(image, row, column)
        if stamp.shape != (2 * STAMP + 1, 2 * STAMP + 1):
            continue  # at the edge of the image
        if not np.isfinite(stamp).all():
            continue
        if _root_mean_square_radius(stamp) < MOST_RADIUS:
            points.append((int(row), int(column)))
    return points[:MOST_POINTS]


def _stamp(image: np.ndarray, row: int, column: int) -> np.ndarray:
    """Return the square around a point."""
    return image[_around(row), _around(column)]


def _around(middle: int) -> slice:
    """Return a side of the square around a point, cut off at the edges of the image."""
    first = max(middle - STAMP, 0)
    return slice(first, middle + STAMP + 1)


def _distance_from_middle() -> np.ndarray:
    offsets = np.arange(-STAMP, STAMP + 1)
    distance: np.ndarray = np.hypot(offsets[:, None], offsets)
    return distance


def _without_background(stamps: np.ndarray) -> np.ndarray:
    """Return stamps (..., rows, columns) less the mean of the ring around each point."""
    inner, outer = BACKGROUND_RING
    distance = _distance_from_middle()
    ring = (distance >= inner) & (distance <= outer)
    total = (stamps * ring).sum((-2, -1), keepdims=True)
    background = total / ring.sum()
    difference: np.ndarray = stamps - background
    return difference


def _root_mean_square_radius(stamp: np.ndarray) -> float:
    """Return the root mean square radius of a point within the aperture; NaN of a dark one."""
    values = _without_background(stamp)
    distance = _distance_from_middle()
    counted = values * (distance <= APERTURE)
    flux = float(counted.sum())
    if not flux > 0:
        return np.nan
    moments = counted * distance**2
    power = float(moments.sum()) / flux
    return float(np.sqrt(power)) if power > 0 else np.nan


def _fluxes(stamps: np.ndarray) -> np.ndarray:
    """Return the flux of each stamp (stamps, rows, columns) within the aperture."""
    inside = _distance_from_middle() <= APERTURE
    counted = _without_background(stamps) * inside
    fluxes: np.ndarray = counted.sum((1, 2))
    return fluxes


def _ratio_of_widths(captures: np.ndarray, results: np.ndarray) -> float:
    """Return the relative difference of the width of the mean of stamps."""
    width = _root_mean_square_radius(captures.mean(0))
    width_of_results = _root_mean_square_radius(results.mean(0))
    return width_of_results / width - 1


@dataclass
class PointStack:
    """Stamps of points in captures and results.

    Attributes:
        captures, results: (2 STAMP + 1, 2 STAMP + 1) each.
    """

    captures: list[np.ndarray] = field(default_factory=list)
    results: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.captures)

    def add(self, capture: np.ndarray, result: np.ndarray, row: int, column: int) -> None:
        """Add a point.

        Args:
            capture, result: (H, W).
            row, column: of the point.
        """
        of_capture = _stamp(capture, row, column)
        of_result = _stamp(result, row, column)
        self.captures.append(of_capture)
        self.results.append(of_result)

    def flux(self) -> tuple[float, tuple[float, float]]:
        """Return the relative difference of the summed flux, and its 95% interval."""
        of_data = _fluxes(np.array(self.captures))
        of_result = _fluxes(np.array(self.results))
        total = float(of_data.sum())
        if not total > 0:
            return np.nan, (-np.inf, np.inf)
        value = float(of_result.sum()) / total - 1
        deviations = of_result - (1 + value) * of_data
        squares = (deviations**2).sum()
        count = len(self)
        error = float(np.sqrt(squares * count / (count - 1))) / total
        half = QUANTILE * error
        return value, (value - half, value + half)

    def width(self) -> tuple[float, tuple[float, float]]:
        """Return the relative difference of the width of the mean point, and its 95% interval."""
        data = np.array(self.captures)
        results = np.array(self.results)
        value = _ratio_of_widths(data, results)
        draws = np.random.default_rng(0)
        ratios = []
        for _ in range(RESAMPLES_OF_POINTS):
            drawn = draws.integers(0, len(self), len(self))
            ratio = _ratio_of_widths(data[drawn], results[drawn])
            ratios.append(ratio)
        if not np.isfinite(ratios).all():
            return value, (-np.inf, np.inf)
        low, high = np.percentile(ratios, (2.5, 97.5))
        return value, (float(low), float(high))
