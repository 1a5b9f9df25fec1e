"""The bias of results against brightness: a curve that takes it out, and what the curve is worth.

The curve is fitted on blocks of a checkerboard, and the bias is measured on the others, before and
after. It compares each result with the capture that the result does not know.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from n2n_lightning.metrics.certificate import BLOCK_WIDTH, Certificate, Comparison, Unbias
from n2n_lightning.metrics.stein import QUANTILE

# Bias over what noise alone gives, from which it is corrected: eight independent bins without bias
# exceed it with a probability of 2%.
LEAST_EVIDENCE = 1.5


class BiasCurve(Unbias):
    """The curve of `Unbias`, drawn through the middles of its steps.

    It rises everywhere: results that differ are different afterwards.

    Args:
        results, captures: see `Unbias`.
    """

    def __init__(self, results: Sequence[np.ndarray], captures: Sequence[np.ndarray]) -> None:
        super().__init__(results, captures)
        values, starts = np.unique(self.values, return_index=True)
        lengths = np.diff([*starts, len(self.values)])
        self.levels = np.add.reduceat(self.levels, starts) / lengths
        self.values = values


@dataclass(frozen=True)
class FittedBias:
    """The bias of results on pixels that were not fitted, relative to their brightness.

    Attributes:
        before, after: root mean square over bins of brightness, without and with the curve.
        noise: what noise alone would give.
        curve: None where it is not used.
        reason: why the bias is not measurable; empty if it is.
    """

    before: float
    after: float
    noise: float
    curve: BiasCurve | None
    reason: str = ""

    def line(self) -> str:
        """Describe it in a line."""
        if self.reason:
            return f"bias against brightness is not measurable: {self.reason}; not corrected"
        measured = f"{self.before:.2%} before, {self.after:.2%} after"
        said = f"bias against brightness on the half not fitted: {measured}"
        said += f" (noise alone gives {self.noise:.2%})"
        if self.curve is None:
            said += "; not corrected"
        return said


def fit_bias(results: Sequence[np.ndarray], captures: Sequence[np.ndarray]) -> FittedBias:
    """Fit the curve of two results on half of the blocks, and measure it on the others.

    Args:
        results: of both captures, (H, W) each; NaN where a pixel does not count.
        captures: likewise.

    Returns:
        The bias and the curve, which is used where the bias stands out of the noise, and is smaller
        after.

    >>> draws = np.random.default_rng(0)
    >>> scene = np.kron(draws.uniform(50, 150, (16, 16)), np.ones((16, 16)))
    >>> captures = [scene + draws.normal(0, 5, scene.shape) for _ in range(2)]
    >>> dark = fit_bias([scene * 0.9] * 2, captures)
    >>> dark.before > 0.1, dark.after < 0.01, fit_bias([scene] * 2, captures).curve
    (True, True, None)
    """
    fitted = _fitted_blocks(captures[0].shape)
    shown = ~fitted
    on_fitted = [np.where(fitted, result, np.nan) for result in results]
    known = np.isfinite(np.sum(results, 0) + np.sum(captures, 0))
    before, noise = _bias_of(results, captures, shown)
    enough = (known & fitted).any()
    if not (np.isfinite(before) and enough):
        reason = "the pictures have too few pixels, or the result has one value"
        return FittedBias(np.nan, np.nan, np.nan, None, reason)
    curve = BiasCurve(on_fitted, captures[::-1])
    corrected = [curve(result) for result in results]
    after, noise_after = _bias_of(corrected, captures, shown)
    evident = before > LEAST_EVIDENCE * noise
    if evident and after < before:
        return FittedBias(before, after, noise_after, curve)
    return FittedBias(before, after, noise_after, None)


def _fitted_blocks(size: tuple[int, ...]) -> np.ndarray:
    """Return True for every other block of an image (H, W)."""
    rows, columns = np.indices(size) // BLOCK_WIDTH
    odd: np.ndarray = (rows + columns) % 2 == 1
    return odd


def _bias_of(
    results: Sequence[np.ndarray], captures: Sequence[np.ndarray], inside: np.ndarray
) -> tuple[float, float]:
    """Return the root mean square bias inside a mask, and what noise gives; NaN if unknown."""
    shown = [np.where(inside, capture, np.nan) for capture in captures]
    certificate = Certificate()
    Comparison(shown, list(results)).brightness(certificate)
    biases = []
    errors = []
    for line in certificate.lines:
        low, high = line.interval
        if np.isfinite(high - low):
            biases.append(line.value)
            errors.append((high - low) / (2 * QUANTILE))
    if not biases:
        return np.nan, np.nan
    return _root_mean_square(biases), _root_mean_square(errors)


def _root_mean_square(values: list[float]) -> float:
    """Return the root of the mean square of some numbers."""
    squares = np.square(values)
    return float(np.sqrt(squares.mean()))
