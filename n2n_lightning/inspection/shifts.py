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

    @property
    def certain_length(self) -> float:
        """The length, less four times the error if that is large."""
        if self.error <= SHIFTED / 6:
            return self.length
        uncertainty = 4 * self.error
        return max(0.0, self.length - uncertainty)


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
        rows = [shift.rows for shift in shifts]
        columns = [shift.columns for shift in shifts]
        lengths = sorted(shift.certain_length for shift in shifts)
        most = lengths[-1]
        if len(lengths) > 3:
            most = lengths[-2]
        return cls(float(np.median(rows)), float(np.median(columns)), most)


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
    one = plane_of(first)
    other = plane_of(second)
    side = min(one.shape)
    if side < MIN_PLANE_SIDE:
        return None
    rows, columns = _peak(_windowed(one), _windowed(other), BLURS[-1])
    y = x = 0
    farthest = max(abs(rows), abs(columns))
    if 0 < farthest < 0.4 * side:  # only the common part counts
        y = round(rows)
        x = round(columns)
        one = _common_part(one, y, x)
        other = _common_part(other, -y, -x)
    if min(one.shape) < MIN_PLANE_SIDE:
        return None
    one = _windowed(one)
    other = _windowed(other)
    errors = _shift_errors(one, other)
    best = int(np.argmin(errors))
    error = errors[best]
    if not error < most:
        return None
    rows, columns = _peak(one, other, BLURS[best], 20)
    return Shift(y + rows, x + columns, error)


def _common_part(plane: np.ndarray, y: int, x: int) -> np.ndarray:
    """Cut a plane to the part that a plane of its size, moved by (y, x) pixels, shows, too."""
    height, width = plane.shape
    bottom = height + min(y, 0)
    right = width + min(x, 0)
    return plane[max(y, 0) : bottom, max(x, 0) : right]


def _windowed(plane: np.ndarray) -> np.ndarray:
    """Subtract the mean of a plane and fade it to 0 at its borders (Hann window)."""
    height, width = plane.shape
    window: np.ndarray = np.outer(_hann(height), _hann(width))
    centred = plane - plane.mean()
    return window * centred


def _hann(length: int) -> np.ndarray:
    """Return a Hann window without the zeros at its ends, (length,)."""
    with_zeros: np.ndarray = np.hanning(length + 2)
    return with_zeros[1:-1]


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
    one = _block_means(first)
    other = _block_means(second)
    if len(one) < 16:
        return False
    if not (_has_structure(first, one) and _has_structure(second, other)):
        return False
    return correlation(one, other) < 0.5


def _has_structure(image: np.ndarray, means: np.ndarray) -> bool:
    """Return True if the means of the blocks of an image vary by far more than their noise."""
    if not means.std():
        return False
    noise = noise_variance(image) / BLOCK**2
    return bool(noise < 0.2 * means.var())


def _block_means(image: np.ndarray) -> np.ndarray:
    """Return the means of 8 x 8 pixels of the mean of all channels."""
    plane = plane_of(image)
    blocks = blocks_of(plane[None], BLOCK)
    means: np.ndarray = blocks.mean(1)
    return means


def _shift_errors(one: np.ndarray, other: np.ndarray) -> list[float]:
    """Return the standard deviation of the shift of two windowed planes for each blur."""
    spectrum = np.fft.rfft2(one)
    spectrum_other = np.fft.rfft2(other)
    height, width = one.shape
    along_columns = np.fft.fftfreq(height)
    along_rows = np.fft.rfftfreq(width)
    vertical, horizontal = np.meshgrid(along_columns, along_rows, indexing="ij")
    squared = vertical**2 + horizontal**2
    frequencies = (vertical, horizontal)
    errors = []
    for sigma in BLURS:
        strength = -2 * (np.pi * sigma) ** 2
        blur = np.exp(strength * squared)
        error = _shift_error(spectrum, spectrum_other, blur, frequencies)
        errors.append(error)
    return errors


def _shift_error(
    one: np.ndarray, other: np.ndarray, blur: np.ndarray, frequencies: Sequence[np.ndarray]
) -> float:
    """Return the standard deviation of a shift, in pixels, from two spectra.

    Their common part is the scene, their difference is noise. The peak of the correlation lies
    where its slope is 0. Noise adds a slope of variance sum w^2 W^2 (2 S N + N^2), for the powers S
    and N of scene and noise and the blur W; the slope of the scene grows by sum w^2 W S per pixel.
    """
    common = one * other.conj()
    scene = common.real
    noise = np.abs(one - other) ** 2 / 2
    weight = blur**2
    noise_power = 2 * scene * noise + noise**2
    noise_power = np.maximum(noise_power, 0)
    errors = []
    for frequency in frequencies:
        square = (2 * np.pi * frequency) ** 2
        curvature = np.sum(square * weight * scene)
        if curvature <= 0:
            return float("inf")
        variance = np.sum(square * weight**2 * noise_power)
        error = np.sqrt(variance) / curvature
        errors.append(float(error))
    return max(errors)
