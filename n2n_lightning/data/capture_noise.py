"""The noise of each capture, measured before training, by which input and target are chosen."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from n2n_lightning.arrays import axes, bad_pixels, outliers
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.region_tensor import loaded
from n2n_lightning.data.scene_set import SceneSet
from n2n_lightning.metrics.noise_levels import NoiseLevels, measured, named, noise_power

# With these, measured noise is within 5% of the truth in benchmarks/unequal.py.
MEASURED_SCENES = 8  # of two captures; fewer of many
MEASURED_PIXELS = 8 * 192 * 192  # of a capture, in all scenes together
MEASURED_PLANES = 2  # of a volume
LEAST_SIDE = 64  # pixels of a side that are measured
MOST_SIDE = 512
BOTH = "mean of both"


def levels_of(scenes: SceneSet, stats: IntensityStats) -> NoiseLevels | None:
    """Measure the noise of each capture separately, in the middles of some scenes.

    Args:
        scenes: several captures of each; capture k of one scene is assumed to have the noise of
            capture k of another.
        stats: what their values mean.

    Returns:
        None where scenes have different numbers of captures or one, and where the noise is not
        measurable.
    """
    counts = set(scenes.counts_of_all)
    count = max(counts)
    if count < 2 or len(counts) > 1:
        return None
    most = max(1, min(MEASURED_SCENES, 4 * MEASURED_SCENES // count))
    chosen = axes.evenly(len(scenes), most)
    planes = MEASURED_PLANES if scenes.dims == 3 else 1
    pixels = MEASURED_PIXELS / len(chosen) / planes
    side = (pixels / max(1, count / 8)) ** 0.5
    side = int(max(LEAST_SIDE, min(MOST_SIDE, side)))
    return measured(_parts(scenes, stats, chosen, side))


def _parts(
    scenes: SceneSet, stats: IntensityStats, chosen: list[int], side: int
) -> Iterator[list[Tensor]]:
    """Yield the captures of some scenes, (C, H, W) each; of volumes some planes."""
    for i in chosen:
        images = [scenes.image_onto(i, k, 0) for k in range(scenes.count_of(i))]
        if scenes.dims == 2:
            yield [_known(image, stats, side) for image in images]
            continue
        depth = images[0].shape[1]
        inner = axes.evenly(depth, MEASURED_PLANES + 2)[1:-1]
        for z in inner or [depth // 2]:
            yield [_known(image[:, z], stats, side) for image in images]


def _known(
    image: Tensor,
    stats: IntensityStats,
    side: int,
) -> Tensor:
    """Return the middle of a capture, NaN where a pixel is missing or an outlier."""
    for axis in (1, 2):
        length = image.shape[axis]
        image = image.narrow(axis, max(0, length - side) // 2, min(side, length))
    image = loaded(image)
    known = bad_pixels.mask_invalid(image, image.double(), stats.nodata_values)
    if image.dtype == torch.uint8 or stats.limits is None:
        return known
    black, span = stats.limits
    mask = outliers.outlier_mask(((known - black) / span).float()[None])
    if mask is None:
        return known
    return torch.where(mask[0], torch.nan, known)


@dataclass(frozen=True)
class Direction:
    """The captures that are scored, and the noise of their targets.

    Attributes:
        pairs: numbers (input, target) of captures; none: neighbours, and the score is the mean of
            both directions.
        captures: the scored captures, in words.
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
        """Estimate the noise of a target.

        Args:
            target: a capture, (C, H, W), in units of the network.
            other: the other capture of its pair.

        Returns:
            The variance at each pixel; None where both captures are scored.
        """
        if not self.pairs:
            return None
        if self.reach is None:
            return torch.zeros_like(target)
        return noise_power(target, other, self.reach)


def scored_direction(
    levels: NoiseLevels | None, swap: bool | str = "auto", within: int | None = None
) -> Direction:
    """Choose the captures that are scored: the noisier ones, where the noise differs.

    Args:
        levels: the noise of the captures; None: not measurable.
        swap: the option of training: with false the first capture is the input, and scored.
        within: captures that are farther apart are no pair.

    Returns:
        The captures and what is known of the noise of their targets.
    """
    pairs = levels.pairs(within) if levels else []
    if levels is None or not pairs:
        return Direction()
    if swap is False:
        pairs = [(0, 1)]
    clean = {j for _, j in pairs} <= set(levels.clean)
    if levels.reach is None and not clean:
        return Direction(
            captures=f"{BOTH}: noise that is correlated so far does not tell the variance of one"
        )
    captures = named(sorted({i for i, _ in pairs}), len(levels.variances))
    return Direction(tuple(pairs), captures, None if clean else levels.reach)


def as_facts(levels: NoiseLevels | None, captures: str) -> dict[str, Any]:
    """Describe for result.json the noise of the captures, and which of them are scored.

    Args:
        levels: None where they were not measured.
        captures: those that the score is of, in words.

    Returns:
        Plain values; a ratio that is infinite is None.
    """
    facts: dict[str, Any] = {"captures": captures}
    if levels is not None:
        facts["sigmas"] = list(levels.sigmas)
        facts["ratio"] = levels.ratio if levels.ratio < float("inf") else None
        facts["without_noise"] = [k + 1 for k in levels.clean]
    return facts


def explained(
    levels: NoiseLevels,
    way: str,
    scored: str | None,
) -> str:
    """Describe captures that differ in their noise, in the line that training prints.

    Args:
        levels: of which some are noisier.
        way: in which direction the network is trained.
        scored: the captures that the score is of; None: there is no score.

    Returns:
        The line.
    """
    line = f"noise: {levels.described()}: {way}"
    if scored:
        line += f", and the score is that of {scored}"
    if not levels.clean:
        return line
    line += f"; {named(levels.clean, len(levels.variances))} have no noise"
    if scored:
        line += ": they are used as clean images to score with"
    return line
