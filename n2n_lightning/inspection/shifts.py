"""Registration of two captures: their shift, and captures that show different things."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from n2n_lightning.arrays.blocks import BLOCK, blocks_of, plane_of
from n2n_lightning.inspection.measures import correlation, noise_variance

# pixels; half a pixel is found and less is no obstacle in tests/test_check.py
SHIFTED = 0.25
BLURS = (0.7, 1.5, 3.0)  # standard deviations in pixels
MIN_PLANE_SIDE = 16  # pixels; smaller planes have too little structure


@dataclass(frozen=True)
class Shift:
    """Displacement that moves the second capture onto the first.

    Attributes:
        rows, columns: in pixels.
        error: standard deviation, in pixels.
    """

    rows: float
    columns: float
    error: float

    @property
    def length(self) -> float:
        return float(np.hypot(self.rows, self.columns))


@dataclass(frozen=True)
class ShiftSummary:
    """Shifts of several scenes.

    Attributes:
        rows, columns: medians, in pixels.
        most: the largest length that exceeds its uncertainty, in pixels.
    """

    rows: float
    columns: float
    most: float

    @property
    def shown(self) -> float:
        """The larger of the median and the largest length, in pixels."""
        return max(self.most, float(np.hypot(self.rows, self.columns)))

    @classmethod
    def of(cls, shifts: list[Shift]) -> "ShiftSummary":
        """Summarise the shifts of scenes.

        One scene of several may be mistaken, for example by something that blinks in it: of more
        than three, the largest is left out.

        Returns:
            Medians, and the largest length.
        """
        rows = float(np.median([shift.rows for shift in shifts]))
        columns = float(np.median([shift.columns for shift in shifts]))
        lengths = []
        for shift in shifts:
            length = shift.length
            if shift.error > SHIFTED / 6:
                length = max(0.0, length - 4 * shift.error)
            lengths.append(length)
        lengths.sort()
        most = lengths[-2] if len(lengths) > 3 else lengths[-1]
        return cls(rows, columns, most)


def shift(first: np.ndarray, second: np.ndarray, most: float = 0.1) -> Shift | None:
    """Measure the shift between two captures to 1/20 pixel.

    The peak of their cross-correlation (Guizar-Sicairos et al., Optics Letters 2008, by
    scikit-image) after the blur with the least error: noise without structure in it would only
    displace the peak.

    Args:
        first, second: the captures, (C, H, W).
        most: largest error in pixels at which a shift is returned.

    Returns:
        The shift; None if the scene has too little structure.
    """
    one, other = plane_of(first), plane_of(second)
    if min(one.shape) < MIN_PLANE_SIDE:
        return None
    rows, columns = _peak(_windowed(one), _windowed(other), BLURS[-1])
    y = x = 0
    farthest = max(abs(rows), abs(columns))
    if 0 < farthest < 0.4 * min(one.shape):  # only the common part counts
        y, x = round(rows), round(columns)
        one, other = _common_part(one, other, y, x)
    if min(one.shape) < MIN_PLANE_SIDE:
        return None
    windowed, windowed_other = _windowed(one), _windowed(other)
    errors = _shift_errors(windowed, windowed_other)
    best = int(np.argmin(errors))
    if not errors[best] < most:
        return None
    rows, columns = _peak(windowed, windowed_other, BLURS[best], 20)
    return Shift(y + rows, x + columns, errors[best])


def _common_part(
    one: np.ndarray, other: np.ndarray, y: int, x: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut two planes to what both show if the second is moved by (y, x) pixels."""
    one = one[max(y, 0) :, max(x, 0) :]
    other = other[max(-y, 0) :, max(-x, 0) :]
    height = min(one.shape[0], other.shape[0])
    width = min(one.shape[1], other.shape[1])
    return one[:height, :width], other[:height, :width]


def _windowed(plane: np.ndarray) -> np.ndarray:
    """Subtract the mean of a plane and fade it to 0 at its borders (Hann window)."""
    height, width = plane.shape
    vertical = np.hanning(height + 2)[1:-1]
    horizontal = np.hanning(width + 2)[1:-1]
    window: np.ndarray = np.outer(vertical, horizontal)
    return window * (plane - plane.mean())


def _peak(
    one: np.ndarray, other: np.ndarray, blur: float, fineness: int = 1
) -> tuple[float, float]:
    """Return the position, in rows and columns, of the peak of the cross-correlation."""
    from scipy.ndimage import gaussian_filter
    from skimage.registration import phase_cross_correlation

    blurred = gaussian_filter(one, blur, mode="constant")
    blurred_other = gaussian_filter(other, blur, mode="constant")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (rows, columns), *_ = phase_cross_correlation(
            blurred, blurred_other, upsample_factor=fineness, normalization=None
        )
    return float(rows), float(columns)


def differ(first: np.ndarray, second: np.ndarray) -> bool:
    """Return True if two captures show different things.

    Each must have structure that the other lacks. Means over blocks of 8 x 8 pixels are compared,
    in which little noise is left; how much is known from each capture alone.

    Args:
        first, second: the captures, (C, H, W).

    Returns:
        False if either has too little structure to tell.
    """
    one, other = _block_means(first), _block_means(second)
    if len(one) < 16 or not (one.std() and other.std()):
        return False
    for image, means in ((first, one), (second, other)):
        noise = noise_variance(image) / BLOCK**2
        if not noise < 0.2 * means.var():
            return False
    return correlation(one, other) < 0.5


def _block_means(image: np.ndarray) -> np.ndarray:
    """Return the means of 8 x 8 pixels of the mean of all channels."""
    means: np.ndarray = blocks_of(plane_of(image)[None], BLOCK).mean(1)
    return means


def _shift_errors(one: np.ndarray, other: np.ndarray) -> list[float]:
    """Return the standard deviation of the shift of two windowed planes for each blur."""
    spectrum, spectrum_other = np.fft.rfft2(one), np.fft.rfft2(other)
    height, width = one.shape
    vertical, horizontal = np.meshgrid(
        np.fft.fftfreq(height),
        np.fft.rfftfreq(width),
        indexing="ij",
    )
    squared = vertical**2 + horizontal**2
    errors = []
    for sigma in BLURS:
        blur = np.exp(-2 * (np.pi * sigma) ** 2 * squared)
        errors.append(_shift_error(spectrum, spectrum_other, blur, (vertical, horizontal)))
    return errors


def _shift_error(
    one: np.ndarray, other: np.ndarray, blur: np.ndarray, frequencies: Sequence[np.ndarray]
) -> float:
    """Return the standard deviation of a shift, in pixels, from two spectra.

    Their common part is the scene, their difference is noise. The peak of the correlation lies
    where its slope is 0. Noise adds a slope of variance sum w^2 W^2 (2 S N + N^2), for the powers S
    and N of scene and noise and the blur W; the slope of the scene grows by sum w^2 W S per pixel.
    """
    scene = (one * other.conj()).real
    noise = np.abs(one - other) ** 2 / 2
    weight = blur**2
    noise_power = np.maximum(2 * scene * noise + noise**2, 0)
    errors = []
    for frequency in frequencies:
        square = (2 * np.pi * frequency) ** 2
        curvature = float((square * weight * scene).sum())
        if curvature <= 0:
            return float("inf")
        slope = float((square * weight**2 * noise_power).sum())
        errors.append(np.sqrt(slope) / curvature)
    return float(max(errors))
