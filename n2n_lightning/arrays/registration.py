"""Drift of frames and captures by whole pixels: measured over any distance, and undone."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from n2n_lightning.arrays.blocks import cut_blocks, plane_of

BLUR = 1.5  # standard deviation in pixels: noise without structure would displace the peak
BLOCK_SIDE = 8  # pixels: an edge that moves spoils few of them
REGISTERED_SIDE = 512  # pixels of the middle of a frame that are used: registration stays short
LEAST_STRUCTURE = 32  # smaller frames have too little structure
# Isolated bright pixels of a detector stay where they are while the scene drifts.
CLIPPED = (0.5, 99.5)  # percentiles
FINENESS = 10  # parts of a pixel
# Of a pixel: with less, the positions of two frames differ by less than a half, and are rounded
# alike, in tests/test_registration.py.
MOST_ERROR = 0.1
FRAMES_IN_MEAN = 8  # frames: the reference is a running mean of about as many
# Share of a side: frames farther from the reference have too little in common with it.
FARTHEST_FROM_MEAN = 0.125
SURE_GAIN = 6  # standard deviations of what noise on noise gives


class DriftTracker:
    """Position of each frame of a movie, measured against a running mean of the frames before.

    A mean of several frames has less noise than one, and rounding errors do not add up while it
    stays. Where a frame has moved away from it by FARTHEST_FROM_MEAN, that frame becomes the
    reference. Frames whose position cannot be measured keep that of the frame before.
    """

    def __init__(self) -> None:
        self._mean: np.ndarray | None = None  # of planes, NaN where none reached
        self._count = 0
        self._origin = np.zeros(2)  # position of the reference
        self._position = np.zeros(2)  # of the latest frame, from the reference
        self._residual = np.zeros(2)  # of the reference: frames enter it by whole pixels

    def add(self, frame: np.ndarray) -> np.ndarray:
        """Measure the position of the next frame.

        Args:
            frame: (C, H, W), float, NaN where a pixel is unknown.

        Returns:
            Rows and columns by which the scene has moved since the first frame, to a part of a
            pixel, (2,).
        """
        plane = _prepared(frame)
        if min(plane.shape) < LEAST_STRUCTURE:
            return np.zeros(2)
        if self._mean is not None:
            self._position = self._position_of(plane)
        farthest = FARTHEST_FROM_MEAN * min(plane.shape)
        if self._mean is None or np.abs(self._position).max() > farthest:
            self._origin = self._origin + self._position
            self._position = np.zeros(2)
            self._residual = np.zeros(2)
            self._mean = plane
            self._count = 1
        else:
            self._average(plane)
        return self._origin + self._position

    def _position_of(self, plane: np.ndarray) -> np.ndarray:
        """Return the position of a plane, from the reference."""
        assert self._mean is not None
        before = self._position.round().astype(int)
        moved = _moved(plane, -before)
        known = np.isfinite(moved) & np.isfinite(self._mean)
        mean = np.where(known, self._mean, 0)
        moved = np.where(known, moved, 0)
        way, error = _shift(mean, moved)
        whole = way.round().astype(int)
        moves = bool(whole.any())
        if moves and not _is_sure(self._mean, moved, known, whole):
            return self._position
        if error <= MOST_ERROR:
            return before - way + self._residual
        if moves:
            return before - whole
        return self._position

    def _average(self, plane: np.ndarray) -> None:
        """Add a plane to the running mean, where the scene lies in it."""
        assert self._mean is not None
        self._count = min(self._count + 1, FRAMES_IN_MEAN)
        whole = self._position.round().astype(int)
        residual = self._position - whole
        self._residual = self._residual + (residual - self._residual) / self._count
        moved = _moved(plane, -whole)
        reached = np.isfinite(self._mean)
        mean = np.where(reached, self._mean, moved)
        updated = mean + (moved - mean) / self._count
        known = np.isfinite(updated)
        self._mean = np.where(known, updated, mean)


def positions_of(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Measure how far a scene has moved in each of some frames, or captures, of it.

    Args:
        frames: (C, H, W) each, float, NaN where a pixel is unknown.

    Returns:
        Rows and columns by which the scene has moved since the first frame, (T, 2); exactly 0 where
        no frame is half a pixel from the median.
    """
    tracker = DriftTracker()
    measured = [tracker.add(frame) for frame in frames]
    positions = np.array(measured).reshape(-1, 2)
    if not len(positions):
        return positions
    middle = np.median(positions, 0)
    farthest = np.abs(positions - middle).max()
    if farthest <= 0.5:
        return np.zeros_like(positions)
    return positions


@dataclass
class DriftSummary:
    """Drift of several scenes, in words.

    Attributes:
        scenes: how many were measured.
        moved: how many of them drift.
        captures: the captures of the scene with the most.
        farthest: pixels between its first and another capture.
        step: pixels between neighbouring captures of any scene.
    """

    scenes: int = 0
    moved: int = 0
    captures: int = 0
    farthest: float = 0.0
    step: float = 0.0

    def add(self, positions: np.ndarray) -> None:
        """Add a scene.

        Args:
            positions: of its captures, see `positions_of`.
        """
        self.scenes += 1
        self.moved += bool(positions.any())
        farthest = _longest(positions - positions[:1])
        if farthest > self.farthest:
            self.farthest = farthest
            self.captures = len(positions)
        steps = np.diff(positions, axis=0)
        self.step = max(self.step, _longest(steps))

    def line(self) -> str:
        """Return what was undone, with its size."""
        if not self.moved:
            return "no drift by whole pixels: nothing is aligned"
        line = f"drift undone: up to {self.farthest:.0f} pixels in {self.captures} captures"
        if self.scenes > 1:
            line += f", in {self.moved} of {self.scenes} scenes"
        return f"{line}; up to {self.step:.1f} between neighbours"


def _longest(ways: np.ndarray) -> float:
    """Return the length of the longest of some ways, (n, 2); 0 if there is none."""
    lengths = np.hypot(ways[:, 0], ways[:, 1])
    return float(lengths.max(initial=0))


def way_onto(position: np.ndarray, onto: np.ndarray) -> tuple[int, int]:
    """Return how far to move a frame onto another.

    Args:
        position, onto: of both, see `positions_of`.

    Returns:
        Whole rows and columns, for `shifted`.
    """
    way = np.round(onto - position)
    rows, columns = way.astype(int).tolist()
    return rows, columns


def likeliest_way(frame: np.ndarray, onto: np.ndarray) -> tuple[int, int]:
    """Return how far to move a frame onto another of a scene that is known to drift.

    Args:
        frame, onto: (C, H, W), float, NaN where a pixel is unknown.

    Returns:
        Whole rows and columns, for `shifted`, where the frames correlate best.
    """
    way, _ = _shift(_prepared(onto), _prepared(frame))
    rows, columns = way.round().astype(int).tolist()
    return rows, columns


def shifted(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Move an image by whole pixels.

    Args:
        image: (..., H, W), float.
        rows, columns: how far its content moves down and to the right.

    Returns:
        A copy, NaN where nothing moved in.
    """
    moved = np.roll(image, (rows, columns), (-2, -1))
    *_, height, width = image.shape
    moved[..., _came_from_outside(height, rows), :] = np.nan
    moved[..., _came_from_outside(width, columns)] = np.nan
    return moved


def _came_from_outside(length: int, way: int) -> np.ndarray:
    """Return True where nothing moved in along an axis, (length,)."""
    sources = np.arange(length) - way
    before = sources < 0
    beyond = sources >= length
    return before | beyond


def _moved(plane: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Return a plane (H, W) moved by whole rows and columns."""
    rows, columns = way.tolist()
    return shifted(plane, rows, columns)


def _prepared(frame: np.ndarray) -> np.ndarray:
    """Return the blurred middle of a frame, mean 0 and deviation 1, (H, W)."""
    whole = plane_of(frame)
    height, width = whole.shape
    rows = _middle(height)
    columns = _middle(width)
    plane = np.nan_to_num(whole[rows, columns])
    low, high = np.percentile(plane, CLIPPED)
    clipped = plane.clip(low, high).astype(np.float64)
    blurred = gaussian_filter(clipped, BLUR)
    centred: np.ndarray = blurred - blurred.mean()
    deviation = max(float(centred.std()), 1e-30)
    return centred / deviation


def _middle(length: int) -> slice:
    """Return the part of an axis that is registered."""
    first = max(0, length - REGISTERED_SIDE) // 2
    return slice(first, first + REGISTERED_SIDE)


def _shift(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, float]:
    """Measure how far to move a plane so that it lies on another.

    Args:
        first, second: blurred, mean 0, (H, W).

    Returns:
        Rows and columns, by the peak of the cross-correlation (Guizar-Sicairos et al., Optics
        Letters 2008), and the standard deviation of either.
    """
    from skimage.registration import phase_cross_correlation

    height, width = first.shape
    window = np.outer(_window(height), _window(width))
    spectrum = np.fft.fft2(window * first)
    spectrum_other = np.fft.fft2(window * second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # planes of one value
        way, *_ = phase_cross_correlation(
            spectrum, spectrum_other, space="fourier", upsample_factor=FINENESS, normalization=None
        )
    return np.asarray(way), _error(spectrum, spectrum_other, way)


def _window(length: int) -> np.ndarray:
    """Return a Hann window without its zeros at the ends."""
    window: np.ndarray = np.hanning(length + 2)[1:-1]
    return window


def _error(first: np.ndarray, second: np.ndarray, way: np.ndarray) -> float:
    """Return the standard deviation of a shift between two spectra, in pixels.

    The peak of the correlation lies where its slope is 0. Noise adds a slope of variance
    sum w^2 (2 S N + N^2) for the powers S and N of scene and noise; that of the scene grows by
    sum w^2 S per pixel.
    """
    height, width = first.shape
    down = 2 * np.pi * np.fft.fftfreq(height)[:, None]
    right = 2 * np.pi * np.fft.fftfreq(width)[None]
    rows, columns = way
    phase = down * rows + right * columns
    turned = second * np.exp(-1j * phase)
    product = first * turned.conj()
    scene = product.real
    distance = np.abs(first - turned)
    noise = distance**2 / 2
    power = 2 * scene * noise + noise**2
    positive = np.maximum(power, 0)
    largest = 0.0
    for frequency in (down, right):
        curvature = (frequency**2 * scene).sum()
        if curvature <= 0:
            return float("inf")
        slope = np.sqrt((frequency**2 * positive).sum())
        largest = max(largest, float(slope / curvature))
    return largest


def _is_sure(reference: np.ndarray, plane: np.ndarray, known: np.ndarray, way: np.ndarray) -> bool:
    """Return True if a shift brings a plane closer to the reference than noise comes to noise.

    Most of its blocks have to come closer, and not one bright object.
    """
    unmoved = np.where(known, plane, np.nan)
    before = (reference - unmoved) ** 2
    after = (reference - _moved(unmoved, way)) ** 2
    change = before - after  # NaN where one of them is unknown
    compared = np.isfinite(change)
    if compared.mean() < 0.25:
        return False
    distance = max(float(before[compared].sum()), 1e-30)
    gain = change[compared].sum() / distance
    independent = compared.sum() / (2 * np.pi * BLUR**2)
    if gain < SURE_GAIN / np.sqrt(independent):
        return False
    blocks = cut_blocks(change, BLOCK_SIDE).mean((1, 3))
    known_blocks = blocks[np.isfinite(blocks)]
    closer = np.mean(known_blocks > 0)
    by_chance = 0.5 + 1.5 / np.sqrt(len(known_blocks))
    return bool(closer > by_chance)
