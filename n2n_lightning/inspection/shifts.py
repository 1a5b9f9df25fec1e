"""Whether two captures lie on one another, and how far they do not."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from n2n_lightning.arrays.blocks import BLOCK, blocks_of, plane_of
from n2n_lightning.inspection.measures import dispersion_noise

BLURS = (0.7, 1.5, 3.0)  # deviations in pixels


@dataclass
class Shift:
    """How far the second capture must be moved to lie on the first, in pixels, and the deviation of that."""

    rows: float
    columns: float
    error: float

    @property
    def length(self) -> float:
        return float(np.hypot(self.rows, self.columns))


def shift(first: np.ndarray, second: np.ndarray, most: float = 0.1) -> Shift | None:
    """The shift between two captures, to 1/20 pixel; None where the scene has too little structure to tell.

    The peak of their cross-correlation (Guizar-Sicairos et al., Optics Letters 2008, by
    scikit-image), after the blur that leaves the least error: noise without structure in it would
    only move the peak.

    Args:
        first, second: the captures.
        most: the error, in pixels, from which on it is not told.
    """

    one, other = (plane_of(image) for image in (first, second))
    if min(one.shape) < 16:
        return None
    rows, columns = _peak(_windowed(one), _windowed(other), BLURS[-1], 1)
    # far: only what both show counts
    if (rows or columns) and max(abs(rows), abs(columns)) < 0.4 * min(one.shape):
        y, x = round(rows), round(columns)
        one, other = one[max(y, 0) :, max(x, 0) :], other[max(-y, 0) :, max(-x, 0) :]
        height, width = (min(a, b) for a, b in zip(one.shape, other.shape, strict=True))
        one, other = one[:height, :width], other[:height, :width]
    else:
        y = x = 0
    if min(one.shape) < 16:
        return None
    windowed = [_windowed(plane) for plane in (one, other)]
    spectra = [np.fft.rfft2(plane) for plane in windowed]
    vertical, across = np.meshgrid(
        np.fft.fftfreq(one.shape[0]), np.fft.rfftfreq(one.shape[1]), indexing="ij"
    )
    blurs = [np.exp(-2 * (np.pi * sigma) ** 2 * (vertical**2 + across**2)) for sigma in BLURS]
    errors = [_shift_error(spectra[0], spectra[1], blur, (vertical, across)) for blur in blurs]
    best = int(np.argmin(errors))
    if not errors[best] < most:
        return None
    rows, columns = _peak(windowed[0], windowed[1], BLURS[best], 20)
    return Shift(y + rows, x + columns, errors[best])


def _windowed(plane: np.ndarray) -> np.ndarray:
    """A plane around 0 that ends at 0 on all sides."""
    window: np.ndarray = np.outer(*(np.hanning(n + 2)[1:-1] for n in plane.shape))
    return window * (plane - plane.mean())


def _peak(one: np.ndarray, other: np.ndarray, blur: float, fineness: int) -> tuple[float, float]:
    """Where the cross-correlation of two blurred planes is largest, in rows and columns."""
    from scipy.ndimage import gaussian_filter
    from skimage.registration import phase_cross_correlation

    a, b = (gaussian_filter(plane, blur, mode="constant") for plane in (one, other))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows, columns = phase_cross_correlation(a, b, upsample_factor=fineness, normalization=None)[
            0
        ]
    return float(rows), float(columns)


def differ(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two captures show different things: each has structure in it, and not the other's.

    Asked of means over blocks of 8 x 8 pixels, in which noise hardly counts; what is left of it is
    known from each capture alone.
    """
    one, other = (blocks_of(plane_of(image)[None], BLOCK).mean(1) for image in (first, second))
    if len(one) < 16 or not (one.std() and other.std()):
        return False
    for image, means in ((first, one), (second, other)):
        noise = dispersion_noise(image) / BLOCK**2
        if not noise < 0.2 * means.var():
            return False
    return float(np.corrcoef(one, other)[0, 1]) < 0.5


def _shift_error(a: np.ndarray, b: np.ndarray, blur: np.ndarray, frequencies: Any) -> float:
    """The deviation of a shift, in pixels, from two spectra: what they share is the scene, what differs is noise.

    The peak of the correlation lies where its slope is 0. Noise adds a slope, of the variance sum
    w^2 W^2 (2 S N + N^2) for the powers S and N of scene and noise and the blur's W, and the slope
    of the scene grows by sum w^2 W S a pixel.
    """
    scene, noise, weight = (a * b.conj()).real, np.abs(a - b) ** 2 / 2, blur**2
    found = []
    for frequency in frequencies:
        square = (2 * np.pi * frequency) ** 2
        curvature = float((square * weight * scene).sum())
        if curvature <= 0:
            return float("inf")
        slope = float((square * weight**2 * np.maximum(2 * scene * noise + noise**2, 0)).sum())
        found.append(np.sqrt(slope) / curvature)
    return float(max(found))
