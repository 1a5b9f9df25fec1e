"""The expected error of each pixel of a denoised image, without a clean one.

The squared error of f(y) at a pixel, in expectation over the noise, is its squared bias and its
variance. Of captures y1, y2 with independent noise of one strength

    bias^2 = E (f(y1) - y1) (f(y2) - y2),    variance = E (f(y1) - f(y2))^2 / 2

whatever the noise looks like within a capture: their sum is the estimate of
`noisy_reference.squared_errors`. The mean of both results has half of the variance. From one
picture with noise n of variance v, and random b with the covariance of n,

    c = E b [f(y + e b) - f(y)] / e,    variance = E [f(y + e b) - f(y)]^2 / e^2,
    bias^2 = E (f(y) - y)^2 - v + 2 c - variance

with Stein's covariance c (metrics/stein.py) and the variance of the linearised denoiser (Ramani,
Blu and Unser, IEEE Trans. Image Process. 2008, for the perturbation).

The variance is smooth. The estimate of the bias is unbiased at each pixel, and far too noisy there:
it is regressed, with weights that cannot be negative, on positive quantities that explain it, and
each half of the blocks of a checkerboard gets what was fitted to the other half. What is left of it
in a neighbourhood is added as far as it exceeds its own noise (empirical Bayes).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

# The widths below are those of which the map was best calibrated (benchmarks/error_map.py).
SPREAD_SIGMA = 3.0  # pixels: smoothing of the variance of the results
NOISE_SIGMA = 8.0  # pixels: smoothing of the noise's variance between captures
SPREAD_SCALES = (2.0, 8.0)  # pixels: smoothed variances that explain the bias
STRUCTURE_SCALES = (1.0, 2.0, 4.0)  # pixels: scales of the structure that explains it
LOCAL_SIGMA = 6.0  # pixels: neighbourhood whose own bias is measured
RESIDUAL_SIGMA = 16.0  # pixels: over which the noise of that measurement is measured
BLOCK = 32  # pixels: side of the blocks of the checkerboard
REGION_SIGMA = 24.0  # pixels: over which a negative estimate shows a wrong variance of the noise
LEAST_WEIGHT = 0.2  # of an error of that variance in the estimate: derivatives are noisy
EDGE_SIGMA = 3.0  # pixels: of the mix of both fits at the edges of blocks
RIDGE = 1e-4  # of the mean square of each regressor, against regressors that are alike
FIT_PIXELS = 200_000  # pixels that the weights are fitted to: more change them by under 1%
# Of the prediction: so many pixels that the mean of the estimates is known to a hundredth of the
# noise's variance. A flat scene has no bias: its map is 4% too large with them, 13% without.
MOST_BINS, BIN_PIXELS = 16, 8192
# Of a prediction, as the floor: at 0, the lowest tenth of Kodak with Gaussian 25 came out 23% low.
LEAST_SHARE = 1 / 3
TRUNCATE = 3.0  # widths at which the smoothing ends


@dataclass(frozen=True)
class CaptureErrors:
    """Expected errors (standard deviations) of denoised captures, in the unit of the captures.

    Attributes:
        each: of the result of one capture.
        mean: of the mean of the results.
    """

    each: np.ndarray
    mean: np.ndarray


def errors_of_captures(
    captures: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
) -> CaptureErrors:
    """Return the expected error of each pixel of denoised captures of one scene.

    The noises of the captures have mean 0 and one strength, and are independent of one another.

    Args:
        captures: K of them, 2 or more, (C, H, W) or (C, D, H, W); NaN where a pixel is unknown.
        outputs: f of each.

    Returns:
        Of the results, the mean of their K errors, and of their mean; NaN where fewer than all
        captures are known.

    >>> draws = np.random.default_rng(0)
    >>> captures = [draws.normal(50, 3, (1, 64, 64)) for _ in range(2)]
    >>> constant = [np.full((1, 64, 64), 52.0)] * 2  # wrong by 2 everywhere
    >>> errors = errors_of_captures(captures, constant)
    >>> round(float(errors.mean.mean()), 1)
    2.0
    """
    noisy = np.stack(captures).astype(np.float64)
    results = np.stack(outputs).astype(np.float64)
    count = len(noisy)
    removed = results - noisy
    total = removed.sum(0)
    known = np.isfinite(total)  # in all captures
    of_all = total**2
    of_each = (removed**2).sum(0)
    squared_bias = (of_all - of_each) / (count * (count - 1))
    spread = results.var(0, ddof=1)
    noise = noisy.var(0, ddof=1)
    scene = _Neighbourhoods(known)
    noise = scene.smooth(noise, NOISE_SIGMA)
    brightness = results.mean(0)
    bias = _expected_bias(scene, squared_bias, spread, brightness, noise)
    smooth_spread = scene.smooth(spread, SPREAD_SIGMA)
    bias[~known] = np.nan
    each = bias + smooth_spread
    mean = bias + smooth_spread / count
    return CaptureErrors(np.sqrt(each), np.sqrt(mean))


def errors_of_one(
    noisy: np.ndarray,
    output: np.ndarray,
    variance: np.ndarray,
    covariance: np.ndarray,
    spread: np.ndarray,
    variance_error: float = 0.0,
) -> np.ndarray:
    """Return the expected error of each pixel of one denoised picture.

    Args:
        noisy: y, (C, H, W) or (C, D, H, W); NaN where a pixel is unknown.
        output: f(y).
        variance: of the noise at each pixel.
        covariance: c of the module's formulas, a mean over some perturbations.
        spread: the variance of the linearised denoiser, likewise.
        variance_error: standard error of `variance`, relative to it.

    Returns:
        In that shape; NaN where a pixel is unknown.
    """
    result = output.astype(np.float64)
    residual = (result - noisy) ** 2
    squared_error = residual - variance + 2 * covariance
    squared_bias = squared_error - spread
    known = np.isfinite(squared_bias)
    scene = _Neighbourhoods(known)
    bias = _expected_bias(scene, squared_bias, spread, result, variance)
    smooth_spread = scene.smooth(spread, SPREAD_SIGMA)
    if variance_error:
        weight = np.maximum(variance - 2 * covariance, LEAST_WEIGHT * variance)
        uncertainty = variance_error * scene.smooth(weight, NOISE_SIGMA)
        bias = _with_uncertainty(scene, bias, squared_bias, uncertainty)
    bias[~known] = np.nan
    errors: np.ndarray = np.sqrt(bias + smooth_spread)
    return errors


def _with_uncertainty(
    scene: "_Neighbourhoods", bias: np.ndarray, squared_bias: np.ndarray, uncertainty: np.ndarray
) -> np.ndarray:
    """Return the expected squared bias where all estimates of it may be off by a common error.

    An estimate that is negative over a region was cut off at 0; it is taken as it is. The expected
    value is then the mean of the part above 0 of a normal distribution around the estimate.

    Args:
        scene: its known pixels.
        bias: the expected squared bias, 0 or more.
        squared_bias: the estimate of each pixel.
        uncertainty: standard deviation of the common error.
    """
    from scipy.stats import norm

    difference = np.where(scene.known, squared_bias - bias, 0)
    hidden = np.minimum(scene.smooth(difference, REGION_SIGMA), 0)
    center = bias + hidden
    width = np.maximum(uncertainty, 1e-30)
    ratio = center / width
    logarithm = norm.logpdf(ratio) - norm.logcdf(ratio)
    above = width * np.exp(logarithm)
    return np.maximum(center + above, 0)


class _Neighbourhoods:
    """Weighted means over the neighbours of pixels, of which some are unknown.

    Args:
        known: True for known pixels, (C, H, W) or (C, D, H, W).
    """

    def __init__(self, known: np.ndarray) -> None:
        self.known = known
        self.complete = bool(known.all())

    def smooth(self, values: np.ndarray, sigma: float) -> np.ndarray:
        """Return means of the known pixels with Gaussian weights, 0 where none is near."""
        if self.complete:
            return _gaussian(values, sigma)
        total = _gaussian(np.where(self.known, values, 0), sigma)
        weight = _gaussian(self.known.astype(np.float64), sigma)
        return total / np.maximum(weight, 1e-12)


def _gaussian(values: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth the spatial axes of (C, H, W) or (C, D, H, W)."""
    from scipy.ndimage import gaussian_filter

    widths = (0.0, *[sigma] * (len(values.shape) - 1))
    smooth: np.ndarray = gaussian_filter(values, widths, mode="reflect", truncate=TRUNCATE)
    return smooth


def _expected_bias(
    scene: _Neighbourhoods,
    squared_bias: np.ndarray,
    spread: np.ndarray,
    brightness: np.ndarray,
    noise: np.ndarray,
) -> np.ndarray:
    """Return the expected squared bias of each pixel, 0 or more.

    Args:
        scene: its known pixels.
        squared_bias: the unbiased estimate of each pixel.
        spread: the variance of the results.
        brightness: the result.
        noise: the variance of the noise, of which the estimate is about as uncertain.
    """
    estimate = np.where(scene.known, squared_bias, 0)
    level = np.maximum(noise, 1e-3 * noise.mean())
    weight = scene.known / np.maximum(level, 1e-30)
    regressors = _regressors(scene, spread, brightness, noise)
    predicted = _cross_fitted(estimate, weight, regressors)
    return _with_local_part(scene, estimate, predicted)


def _regressors(
    scene: _Neighbourhoods, spread: np.ndarray, brightness: np.ndarray, noise: np.ndarray
) -> list[np.ndarray]:
    """Return positive quantities that explain the squared bias: spread, structure, and noise."""
    own = []
    for sigma in SPREAD_SCALES:
        own.append(scene.smooth(spread, sigma))
    around = scene.smooth(spread, 4.0)
    near = scene.smooth(brightness, NOISE_SIGMA)
    filled = np.where(scene.known, brightness, near)
    for sigma in STRUCTURE_SCALES:
        detail = (filled - _gaussian(filled, sigma)) ** 2
        structure = scene.smooth(detail, sigma)
        own.append(structure)
        own.append(np.sqrt(structure * around))
    constant = np.full_like(noise, noise.mean())
    regressors = [noise, constant]
    for quantity in own:
        regressors.append(quantity)
        if len(quantity) > 1:
            mean = quantity.mean(0, keepdims=True)
            regressors.append(np.broadcast_to(mean, quantity.shape))
    return regressors


def _cross_fitted(
    estimate: np.ndarray, weight: np.ndarray, regressors: Sequence[np.ndarray]
) -> np.ndarray:
    """Return what the regressors say of each block, fitted to the blocks of the other colour.

    Next to an edge of blocks both fits are mixed, so that none is seen in the map.
    """
    odd = _checkerboard(estimate.shape)
    predicted = np.zeros(estimate.shape)
    for half in (odd, ~odd):
        counted = ~half & (weight > 0)
        fitted = np.flatnonzero(counted)
        every = max(1, len(fitted) // FIT_PIXELS)
        fitted = fitted[::every]
        if not fitted.size:
            continue
        share = _gaussian(half.astype(np.float64), EDGE_SIGMA)
        weights = _nonnegative_weights(estimate, weight, regressors, fitted)
        of_half = np.zeros(estimate.shape)
        for coefficient, regressor in zip(weights, regressors, strict=True):
            if coefficient > 0:
                of_half += coefficient * regressor
        members = np.flatnonzero(half & (weight > 0))
        every = max(1, len(members) // FIT_PIXELS)
        predicted += share * _recalibrated(of_half, estimate, weight, members[::every])
    return predicted


def _recalibrated(
    predicted: np.ndarray, estimate: np.ndarray, weight: np.ndarray, members: np.ndarray
) -> np.ndarray:
    """Return a prediction with the mean of the estimates in each part of its range.

    Weights that cannot be negative fit noise, too, where there is little to explain: the smallest
    predictions come out too large. Pixels that they were not fitted to show it. Isotonic regression
    (Barlow and Brunk, JASA 1972) of the means of bins; in between, and from 0, it is linear. The
    highest bin, which the weights fit best, stays: few pixels there may stand far above the others.

    Args:
        predicted: of all pixels, 0 or more.
        estimate: of the squared bias.
        weight: of each pixel.
        members: numbers of the pixels that the prediction was not fitted to.
    """
    bins = min(MOST_BINS, len(members) // BIN_PIXELS)
    if not len(members):
        return predicted
    order = members[np.argsort(predicted.flat[members])]
    levels = [0.0]
    means = [0.0]
    for of_bin in np.array_split(order, max(bins, 1)):
        weights = weight.flat[of_bin]
        levels.append(float(np.average(predicted.flat[of_bin], weights=weights)))
        means.append(float(np.average(estimate.flat[of_bin], weights=weights)))
    means[-1] = levels[-1]
    rising = isotonic_regression(means[1:]).x
    values = np.maximum([0.0, *rising], LEAST_SHARE * np.array(levels))
    calibrated = np.interp(predicted, levels, values)
    return calibrated + np.maximum(predicted - levels[-1], 0)


def _checkerboard(shape: tuple[int, ...]) -> np.ndarray:
    """Return True for every second block of BLOCK pixels a side, in the shape (C, ...)."""
    size = shape[1:]
    numbers = np.indices(size) // BLOCK
    odd = numbers.sum(0) % 2 == 1
    return np.broadcast_to(odd, shape)


def _nonnegative_weights(
    estimate: np.ndarray, weight: np.ndarray, regressors: Sequence[np.ndarray], fitted: np.ndarray
) -> np.ndarray:
    """Return the weights of the regressors, 0 or more, by weighted least squares.

    Lawson and Hanson, Solving Least Squares Problems, 1974, on the Cholesky factor of the normal
    equations.
    """
    from scipy.optimize import nnls

    of_pixel = weight.flat[fitted]
    weighted = []
    for regressor in regressors:
        values = regressor.flat[fitted]
        weighted.append(values * of_pixel)
    columns = np.stack(weighted, 1)
    powers = (columns**2).mean(0)
    scales = np.sqrt(powers) + 1e-30
    columns /= scales
    target = estimate.flat[fitted] * of_pixel
    count = len(fitted)
    gram = columns.T @ columns / count
    ridge = RIDGE * np.eye(len(gram))
    factor = np.linalg.cholesky(gram + ridge)
    products = columns.T @ target / count
    projected = np.linalg.solve(factor, products)
    solution, _ = nnls(factor.T, projected)
    weights: np.ndarray = solution / scales
    return weights


def _with_local_part(
    scene: _Neighbourhoods, estimate: np.ndarray, predicted: np.ndarray
) -> np.ndarray:
    """Add what the neighbourhood of each pixel says, as far as it exceeds its own noise.

    What the prediction misses is taken to be proportional to it.
    """
    difference = estimate - predicted
    missed = scene.smooth(difference, LOCAL_SIGMA)
    axes = len(estimate.shape) - 1
    area = 4 * np.pi * LOCAL_SIGMA**2  # pixels that an average with these weights is worth
    pixels = area ** (axes / 2)
    noise = scene.smooth(difference**2, RESIDUAL_SIGMA) / pixels
    squares = predicted**2
    power = squares[scene.known].sum()
    beyond_noise = missed**2 - noise
    excess = beyond_noise[scene.known].sum()
    if not (power > 0 and excess > 0):
        return predicted
    signal = excess / power * squares
    total = np.maximum(signal + noise, 1e-30)
    share = signal / total
    corrected = predicted + share * missed
    return np.maximum(corrected, 0)
