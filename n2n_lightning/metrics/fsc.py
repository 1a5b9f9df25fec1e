"""Fourier shell correlation of two halves: the finest detail in which they agree.

The correlation of the Fourier coefficients of two independent volumes of one specimen, shell by
shell (Harauz and van Heel, Optik 1986; Rosenthal and Henderson, JMB 2003, for the threshold of
0.143). Halves denoised by one network share its errors: their curve is no resolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import along

THRESHOLD = 0.143


def shells(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """Sum cross spectrum and power spectra over the shells of the Fourier space.

    Args:
        one: (H, W) or (D, H, W), finite. Its edges are faded out, or they would count as detail.
        other: likewise, of the same shape.
        count: number of shells between the frequencies 0 and 1/2 per pixel.

    Returns:
        The cross spectrum, and the power spectra of both: (count, 3).
    """
    dims = len(one.shape)
    window = np.ones(one.shape)
    for axis, length in enumerate(one.shape):
        fade = np.hanning(length + 2)[1:-1]
        window = window * along(fade, axis, dims)
    first = _spectrum(one, window)
    second = _spectrum(other, window)
    *full, last = one.shape
    frequencies = [np.fft.fftfreq(length) for length in full]
    frequencies.append(np.fft.rfftfreq(last))
    squared_radius = np.zeros(())
    for axis, frequency in enumerate(frequencies):
        squared_radius = squared_radius + along(frequency, axis, dims) ** 2
    shell = (np.sqrt(squared_radius) * 2 * count).astype(int)
    shell = np.minimum(shell, count).ravel()
    cross = (first * second.conj()).real
    power = np.abs(first) ** 2
    power_of_other = np.abs(second) ** 2
    sums = []
    for term in (cross, power, power_of_other):
        of_shells = np.bincount(shell, term.ravel(), count + 1)
        sums.append(of_shells[:count])
    return np.stack(sums, 1)


def _spectrum(values: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return the Fourier transform of real values without their mean, times a window."""
    values = values.astype(np.float64)
    values = values - values.mean()
    return np.fft.rfftn(values * window)


@dataclass
class Correlation:
    """Fourier shell correlation, gathered over pairs of halves.

    Attributes:
        count: number of shells.

    >>> draws = np.random.default_rng(0)
    >>> one = draws.normal(size=(32, 32, 32))
    >>> correlation = Correlation(8)
    >>> # as much noise as signal at every frequency
    >>> correlation.add(one, one + draws.normal(size=one.shape))
    >>> [round(value, 1) for value in correlation.values[2:5]]
    [0.7, 0.7, 0.7]
    """

    count: int = 32
    _sums: np.ndarray | None = field(default=None, repr=False)

    def add(self, one: np.ndarray, other: np.ndarray) -> None:
        """Add two halves.

        Args:
            one: (H, W) or (D, H, W), finite.
            other: of the same shape.
        """
        sums = shells(one, other, self.count)
        if self._sums is not None:
            sums = self._sums + sums
        self._sums = sums

    @property
    def frequencies(self) -> list[float]:
        """The middle of each shell, in 1 / pixel."""
        return [(i + 0.5) / (2 * self.count) for i in range(self.count)]

    @property
    def values(self) -> list[float]:
        """The correlation in each shell, -1 to 1."""
        if self._sums is None:
            return [0.0] * self.count
        cross, first, second = self._sums.T
        power = np.sqrt(first * second)
        correlation: list[float] = (cross / np.maximum(power, 1e-30)).tolist()
        return correlation


def resolution(
    frequencies: Sequence[float], values: Sequence[float], threshold: float = THRESHOLD
) -> float:
    """Return the frequency at which a curve first falls below a threshold.

    Args:
        frequencies: in 1 / pixel, ascending.
        values: of the correlation.
        threshold: of the correlation.

    Returns:
        In 1 / pixel, interpolated; 0.5 where the curve never falls below.

    >>> round(resolution([0.1, 0.2, 0.3], [1.0, 0.5, 0.1], 0.3), 2)
    0.25
    """
    before: tuple[float, float] | None = None
    for frequency, value in zip(frequencies, values, strict=True):
        if value < threshold:
            if before is None:
                return frequency
            last_frequency, last_value = before
            share = (last_value - threshold) / (last_value - value)
            return last_frequency + share * (frequency - last_frequency)
        before = (frequency, value)
    return 0.5


def planes_of(batch: Any) -> list[np.ndarray]:
    """Return the channels of a batch, (H, W) or (D, H, W) each, with 0 for missing pixels.

    Returns:
        NumPy arrays, float32.
    """
    channels = batch.flatten(0, 1).float().cpu()
    return list(channels.nan_to_num(0).numpy())


def curves(
    runs: dict[str, Callable[[Any], Any]], data: Any, device: str = "cpu"
) -> dict[str, Correlation]:
    """Measure the curves of noisy validation pairs, and of the same pairs denoised.

    Args:
        runs: denoisers of batches, by name.
        data: a NoisyPairs with validation data.
        device: where the denoisers run.

    Returns:
        By the names of the denoisers, and `noisy input`.
    """
    import torch

    runs = {"noisy input": lambda batch: batch, **runs}
    correlations = {name: Correlation() for name in runs}
    for batch in data.val_dataloader():
        ready = data.on_after_batch_transfer(batch, 0)
        for name, run in runs.items():
            with torch.inference_mode():
                one_half = run(ready["input"].to(device))
                other_half = run(ready["other_input"].to(device))
            ones = planes_of(one_half)
            others = planes_of(other_half)
            for one, other in zip(ones, others, strict=True):
                correlations[name].add(one, other)
    return correlations


def draw_curves(by_name: dict[str, Sequence[float]], frequencies: Sequence[float]) -> Any:
    """Plot curves of Fourier shell correlation.

    Args:
        by_name: values of each curve.
        frequencies: of the shells, in 1 / pixel.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained", dpi=110)
    ax = figure.subplots()
    for name, values in by_name.items():
        crossing = resolution(frequencies, values)
        ax.plot(frequencies, values, label=f"{name}: {THRESHOLD} at {crossing:.3f} / pixel")
    ax.axhline(THRESHOLD, color="gray", linewidth=0.8)
    ax.set(
        xlabel="frequency, 1 / pixel",
        ylabel="Fourier shell correlation",
        ylim=(-0.1, 1.05),
        xlim=(0, 0.5),
    )
    ax.legend(
        fontsize=8,
        title="of halves; what one network made of both shares its errors",
        title_fontsize=7,
    )
    return figure
