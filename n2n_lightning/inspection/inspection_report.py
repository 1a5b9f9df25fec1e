"""Findings of an inspection, the report that collects them, and the sizes that matter."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from n2n_lightning.data.mask_choice import MaskChoice
from n2n_lightning.inspection.measures import Correlations
from n2n_lightning.inspection.shifts import ShiftSummary
from n2n_lightning.metrics import noise_model
from n2n_lightning.metrics.noise_levels import NoiseLevels

# A finding below its limit goes to the numbers only. tests/test_check.py has data on either side of
# DRIFTED, COLOURED and CUT.
DRIFTED = 0.02  # relative change of brightness
COLOURED = 0.1  # correlation of neighbouring pixels or of channels
CUT = 0.005  # share of the pixels with the lowest or highest value
MIN_PIXELS = 200_000  # below, training gains little over a filter


@dataclass
class Finding:
    """One line of the report.

    Attributes:
        name: of the line, such as "shift".
        line: the measurement in words.
        bad: True if it stands in the way of training.
    """

    name: str
    line: str
    bad: bool = False

    @property
    def head(self) -> str:
        """The beginning of the printed line: `!` if it is bad, and the name."""
        mark = "!" if self.bad else " "
        return f"{mark} {self.name:12}"


@dataclass(frozen=True)
class Advice:
    """Arguments of `train` that fit the data.

    Attributes:
        source: the choice of `data=`.
        arguments: further arguments.
        obstacle: reason why nothing fits; empty if the arguments do.
    """

    source: str
    arguments: tuple[str, ...] = ()
    obstacle: str = ""


@dataclass
class InspectionReport:
    """Everything that an inspection measured.

    Attributes:
        findings: the lines, in reading order.
        numbers: the same as plain numbers, for JSON.
        source: the choice of `data=` that fits.
        advice: further arguments of `train`; None if nothing fits.
        why: the reason if nothing fits.
        reversed: True if the second captures are the noisier ones and should be the input.
        example: two captures for the figure, (C, H, W); twice the same for single images.
        model: variance of the noise against brightness, for the figure.
        correlations: correlation of the noise at 1 and 2 pixels, by direction.
        correlated: directions in which the noise is correlated, keys of `correlations`.
        mask: the blind spot that single images need; None: they are captures or a movie.
        pages: numbers of the pages of a stack that were inspected; empty for all.
        turns: channels that alternate from frame to frame; 1 if there is one.
        counts: True if the values are photon counts.
        levels: noise of each capture, if it was measurable.
        noise_factor: variance of the noisier captures over the mean variance of both.
        volumes: True if the images are planes of volumes.
        align: True if data.align=true would undo a drift by whole pixels.
        shifts: shifts between neighbours ("near") and between the first and last capture ("far").
    """

    findings: list[Finding] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    source: str = "pairs"
    advice: list[str] | None = field(default_factory=list)
    why: str = ""
    reversed: bool = False
    example: tuple[np.ndarray, np.ndarray] | None = None
    model: noise_model.NoiseModel | None = None
    correlations: Correlations = field(default_factory=dict)
    correlated: tuple[str, ...] = ()
    mask: MaskChoice | None = None
    pages: list[int] = field(default_factory=list)
    turns: int = 1
    counts: bool = False
    levels: NoiseLevels | None = None
    noise_factor: float = 1.0
    volumes: bool = False
    align: bool = False
    shifts: dict[str, ShiftSummary] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(finding.head + finding.line for finding in self.findings)

    @property
    def obstacles(self) -> list[Finding]:
        """Findings that stand in the way of training."""
        return [finding for finding in self.findings if finding.bad]

    def add(self, name: str, line: str, bad: bool = False, **numbers: Any) -> None:
        """Append a finding and its numbers.

        Args:
            name: of the line.
            line: the measurement in words.
            bad: True if it stands in the way of training.
            **numbers: the same for JSON.
        """
        self.findings.append(Finding(name, line, bad))
        self.numbers |= numbers

    def follow(self, advice: Advice) -> None:
        """Take over the arguments of `train` that fit, or the reason why nothing does."""
        self.source = advice.source
        self.why = advice.obstacle
        self.advice = None if advice.obstacle else list(advice.arguments)
        self.numbers |= {"source": self.source, "advice": self.advice}
