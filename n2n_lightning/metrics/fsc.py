"""Fourier shell correlation of two halves: at which fineness of detail they still say the same.

The correlation of the Fourier coefficients of two independent volumes of one specimen, shell by
shell (Harauz and van Heel, Optik 1986; Rosenthal and Henderson, JMB 2003, for the threshold of
0.143). Halves that one network has denoised share its errors: their curve says how alike they
became, and is no resolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import along

THRESHOLD = 0.143


def shells(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """Sums over the shells of the Fourier space: the cross spectrum and both power spectra, (count, 3).

    Args:
        one, other: of one shape, (H, W) or (D, H, W), finite. Their edges are faded out, or they
            would be detail.
        count: shells between the frequencies 0 and 1/2 per pixel.
    """
    window, dims = np.ones(one.shape), len(one.shape)
    for axis, length in enumerate(one.shape):
        fade = np.hanning(length + 2)[1:-1]
        window = window * along(fade, axis, dims)
    first, second = (
        np.fft.rfftn((x - x.mean()) * window)
        for x in (one.astype(np.float64), other.astype(np.float64))
    )
    *whole, last = one.shape
    steps = [np.fft.fftfreq(length) for length in whole] + [np.fft.rfftfreq(last)]
    radius = np.sqrt(sum(along(f, axis, dims) ** 2 for axis, f in enumerate(steps)))
    shell = np.minimum((radius * 2 * count).astype(int), count).ravel()
    terms = ((first * second.conj()).real, np.abs(first) ** 2, np.abs(second) ** 2)
    return np.stack([np.bincount(shell, term.ravel(), count + 1)[:count] for term in terms], 1)


@dataclass
class Correlation:
    """Fourier shell correlation, gathered over pairs of halves.

    >>> draws = np.random.default_rng(0)
    >>> one = draws.normal(size=(32, 32, 32))
    >>> found = Correlation(8)
    >>> found.add(one, one + draws.normal(size=one.shape))  # as much noise as picture, at every frequency
    >>> [round(value, 1) for value in found.values[2:5]]
    [0.7, 0.7, 0.7]
    """

    count: int = 32
    _sums: np.ndarray | None = field(default=None, repr=False)

    def add(self, one: np.ndarray, other: np.ndarray) -> None:
        """Adds two halves."""
        found = shells(one, other, self.count)
        self._sums = found if self._sums is None else self._sums + found

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
        return [float(v) for v in cross / np.maximum(np.sqrt(first * second), 1e-30)]


def resolution(
    frequencies: Sequence[float], values: Sequence[float], threshold: float = THRESHOLD
) -> float:
    """The frequency, in 1 / pixel, at which a curve first falls below a threshold; 0.5 where it never does.

    >>> round(resolution([0.1, 0.2, 0.3], [1.0, 0.5, 0.1], 0.3), 2)
    0.25
    """
    before: tuple[float, float] | None = None
    for frequency, value in zip(frequencies, values, strict=True):
        if value < threshold:
            if before is None:
                return frequency
            share = (before[1] - threshold) / (before[1] - value)
            return before[0] + share * (frequency - before[0])
        before = (frequency, value)
    return 0.5


def planes_of(batch: Any) -> list[np.ndarray]:
    """The channels of a batch, (H, W) or (D, H, W) each, without missing pixels."""
    return [channel.float().cpu().nan_to_num(0).numpy() for image in batch for channel in image]


def curves(
    runs: dict[str, Callable[[Any], Any]], data: Any, device: str = "cpu"
) -> dict[str, Correlation]:
    """The curve of the noisy validation pairs of some data, and of what several networks make of them."""
    import torch

    found = {name: Correlation() for name in ("noisy input", *runs)}
    for batch in data.val_dataloader():
        ready = data.on_after_batch_transfer(batch, 0)
        halves = [ready["input"], ready["other_input"]]
        for name, run in {"noisy input": lambda x: x, **runs}.items():
            with torch.inference_mode():
                shown = [planes_of(run(half.to(device))) for half in halves]
            for one, other in zip(*shown, strict=True):
                found[name].add(one, other)
    return found


def draw_curves(found: dict[str, Sequence[float]], frequencies: Sequence[float]) -> Any:
    """A matplotlib figure of some curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained", dpi=110)
    ax = figure.subplots()
    for name, values in found.items():
        ax.plot(
            frequencies,
            values,
            label=f"{name}: {THRESHOLD} at {resolution(frequencies, values):.3f} / pixel",
        )
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
