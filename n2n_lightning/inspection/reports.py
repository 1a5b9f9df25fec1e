"""Findings, and from which sizes on they matter."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from n2n_lightning.metrics import noise_model

# From these sizes on a finding matters; below, it is in the numbers alone.
SHIFTED = 0.25  # pixels
DRIFTED = 0.02  # of the brightness
COLOURED = 0.1  # correlation of neighbouring pixels or of channels
COLOURED_SINGLE = 0.25  # the same of one capture, whose texture looks like it
CUT = 0.005  # of the pixels, at an end of the values
MIN_PIXELS = 200_000  # pixels to learn from


@dataclass
class Finding:
    """One line: its name, what was measured, and whether it stands in the way of training (`bad`)."""

    name: str
    line: str
    bad: bool = False


@dataclass
class InspectionReport:
    """All that was found.

    Attributes:
        findings: the lines, in the order to read them.
        numbers: the same as plain numbers, for a file.
        source: the choice of `data=` that fits.
        advice: further arguments of `train`, or None.
        why: where there are none, what stands in the way.
        reversed: the second captures are the noisier ones, and should be the input.
        example, model, correlations: for a picture: two captures, noise against brightness,
            correlation of the noise.
    """

    findings: list[Finding] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    source: str = "pairs"
    advice: list[str] | None = field(default_factory=list)
    why: str = ""
    reversed: bool = False
    example: tuple[np.ndarray, np.ndarray] | None = None
    model: noise_model.NoiseModel | None = None
    correlations: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(f"{'!' if f.bad else ' '} {f.name:12}{f.line}" for f in self.findings)

    def add(self, name: str, line: str, bad: bool = False, **numbers: Any) -> None:
        """One more finding, and its numbers."""
        self.findings.append(Finding(name, line, bad))
        self.numbers |= numbers
