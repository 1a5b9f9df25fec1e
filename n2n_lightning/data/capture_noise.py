"""The noise of each capture of some scenes, measured before training: which one is the input, which one the target."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from n2n_lightning.arrays import axes, bad_pixels
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.scenes import SceneSet
from n2n_lightning.metrics.noise_levels import NoiseLevels, measured, named, noise_power

SCENES = 8  # that are measured, of two captures; fewer of many
PIXELS = 8 * 192 * 192  # of a capture, in all scenes together
PLANES = 2  # of a volume
BOTH = "mean of both"


def levels_of(scenes: SceneSet, seen: IntensityStats) -> NoiseLevels | None:
    """Measure the noise of each capture by itself, in the middles of some scenes.

    Args:
        scenes: several captures of each; capture k of one scene is taken to be like capture k of
            another.
        seen: what their values mean.

    Returns:
        None where scenes have different numbers of captures or one, and where the noise is not
        measurable.
    """
    counts = scenes.captures(torch.arange(len(scenes.names)))
    count = int(counts.max())
    if count < 2 or int(counts.min()) != count:
        return None
    most = max(1, min(SCENES, 4 * SCENES // count))
    chosen = axes.evenly(len(scenes.names), most)
    planes = PLANES if len(scenes.smallest) == 3 else 1
    side = int(max(64, min(512, (PIXELS / len(chosen) / planes / max(1, count / 8)) ** 0.5)))
    return measured(_parts(scenes, seen, chosen, side))


def _parts(
    scenes: SceneSet, seen: IntensityStats, chosen: list[int], side: int
) -> Iterator[list[Tensor]]:
    """The captures of some scenes, (C, H, W) each; of volumes some planes."""
    for i in chosen:
        count = int(scenes.captures(torch.tensor([i]))[0])
        images = [scenes.image(i, k) for k in range(count)]
        if axes.deep(images[0][None]):
            depth = images[0].shape[1]
            for z in axes.evenly(depth, PLANES + 2)[1:-1] or [depth // 2]:
                yield [_known(image[:, z], seen, side) for image in images]
        else:
            yield [_known(image, seen, side) for image in images]


def _known(image: Tensor, seen: IntensityStats, side: int) -> Tensor:
    """The middle of a capture, NaN where a pixel is missing or stands out as no picture does."""
    for axis in (1, 2):
        length = image.shape[axis]
        image = image.narrow(axis, max(0, length - side) // 2, min(side, length))
    known = bad_pixels.mask_invalid(image, image.double(), seen.nodata_values)
    if image.dtype != torch.uint8 and seen.limits is not None:
        black, span = seen.limits
        outliers = bad_pixels.outlier_mask(((known - black) / span).float()[None])
        if outliers is not None:
            known = torch.where(outliers[0], torch.nan, known)
    return known


@dataclass(frozen=True)
class Direction:
    """Which captures are scored, and how.

    Attributes:
        pairs: numbers (input, target) of captures; none: neighbours, and the mean of the errors of
            both is the score.
        captures: what is scored, in words.
        reach: of the neighbours that measure the noise of the targets (noise_levels.NEIGHBOURS);
            None: they have none.
    """

    pairs: tuple[tuple[int, int], ...] = ()
    captures: str = BOTH
    reach: int | None = None

    @property
    def order(self) -> tuple[int, int]:
        """The captures of the first pair."""
        return self.pairs[0] if self.pairs else (0, 1)

    @property
    def scored(self) -> int:
        """How many captures of a pair are denoised and scored."""
        return 1 if self.pairs else 2

    def noise_of(self, target: Tensor, other: Tensor) -> Tensor | None:
        """The noise of a target, at each pixel; None where both captures are scored."""
        if not self.pairs:
            return None
        return (
            torch.zeros_like(target)
            if self.reach is None
            else noise_power(target, other, self.reach)
        )


def scored_direction(
    levels: NoiseLevels | None, swap: bool | str = "auto", within: int | None = None
) -> Direction:
    """Choose the captures that are scored: the noisier ones, where the noise differs.

    Args:
        levels: the noise of the captures; None: not measurable.
        swap: the option of training: with false the first capture is the input, and scored.
        within: captures that are farther apart are no pair.
    """
    pairs = levels.pairs(within) if levels else []
    if levels is None or not pairs:
        return Direction()
    pairs = [(0, 1)] if swap is False else pairs
    clean = {j for _, j in pairs} <= set(levels.clean)
    if levels.reach is None and not clean:
        return Direction(
            captures=f"{BOTH}: noise that is correlated so far does not tell the variance of one"
        )
    captures = named(sorted({i for i, _ in pairs}), len(levels.variances))
    return Direction(tuple(pairs), captures, None if clean else levels.reach)


def as_facts(levels: NoiseLevels | None, captures: str) -> dict[str, Any]:
    """What result.json says of the noise of the captures, and of which one the score is.

    Args:
        levels: None where they were not measured.
        captures: those that the score is of, in words.
    """
    facts: dict[str, Any] = {"captures": captures}
    if levels is not None:
        ratio = levels.ratio
        facts |= {"sigmas": list(levels.sigmas), "ratio": ratio if ratio < float("inf") else None}
        facts |= {"without_noise": [k + 1 for k in levels.clean]}
    return facts


def explained(levels: NoiseLevels, way: str, scored: str | None) -> str:
    """The line that training prints where captures differ in their noise.

    Args:
        levels: of which some are noisier.
        way: in which direction the network is trained.
        scored: the captures that the score is of; None: there is no score.
    """
    line = f"noise: {levels.described()}: {way}" + (
        f", and the score is that of {scored}" if scored else ""
    )
    if not levels.clean:
        return line
    clean = named(levels.clean, len(levels.variances))
    return f"{line}; {clean} have no noise" + (
        ": they are used as clean images to score with" if scored else ""
    )
