"""Samples of scenes: central parts of them, whose noise is measured before training."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays import bad_pixels, outliers
from n2n_lightning.arrays.axes import evenly
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.region_tensor import loaded
from n2n_lightning.data.scene_set import SceneSet, middle

MAX_SCENES = 12  # evenly spread; measuring them takes seconds
CENTRE_SIDE = 1024  # pixels: side of the central part that is measured


@dataclass
class SceneSample:
    """Central parts of scenes: the first two captures and the last one of each.

    Attributes:
        scenes: captures of each scene by number, (C, H, W), float64, in stored units, NaN where a
            pixel is invalid or an outlier.
        counts: number of captures that each scene has.
        outliers: share of the pixels that are outliers.
    """

    scenes: list[dict[int, np.ndarray]]
    counts: list[int]
    outliers: float

    def images(self) -> list[np.ndarray]:
        """All captures, (C, H, W) each."""
        images: list[np.ndarray] = []
        for captures in self.scenes:
            images.extend(captures.values())
        return images

    def is_blank(self) -> bool:
        """Return True if every capture is one value."""
        for image in self.images():
            valid = image[np.isfinite(image)]
            if valid.size and valid.min() < valid.max():
                return False
        return True

    def pairs(self, end: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return a pair of captures of each scene that has them.

        Args:
            end: "near" for the first two, "far" for the first and the last of three or more.

        Returns:
            Two captures, (C, H, W) each, per scene; without those that have no pixel known in both,
            unless there are no others.
        """
        needed = 2 if end == "near" else 3
        position = 1 if end == "near" else -1
        pairs = []
        for captures in self.scenes:
            images = [captures[number] for number in sorted(captures)]
            if len(images) >= needed:
                pair = (images[0], images[position])
                pairs.append(pair)
        known = [pair for pair in pairs if np.isfinite(pair[0] - pair[1]).any()]
        return known or pairs


def sample_scenes(
    scenes: SceneSet, stats: IntensityStats, most: int = MAX_SCENES, side: int = CENTRE_SIDE
) -> SceneSample:
    """Cut the central parts out of evenly spread scenes.

    Args:
        scenes: images, no volumes.
        stats: their nodata values and intensity range.
        most: number of scenes.
        side: of the parts, in pixels.

    Returns:
        The first two captures and the last one of each scene.
    """
    sample = SceneSample([], [], 0.0)
    outliers = []
    for scene in evenly(len(scenes.names), most):
        count = scenes.count_of(scene)
        captures = {}
        for k in sorted({0, min(1, count - 1), count - 1}):
            stored = middle(scenes.image_onto(scene, k, 0), side)
            captures[k], share = valid_values(stored, stats)
            outliers.append(share)
        sample.scenes.append(captures)
        sample.counts.append(count)
    sample.outliers = float(np.mean(outliers))
    return sample


def valid_values(stored: Tensor, stats: IntensityStats) -> tuple[np.ndarray, float]:
    """Return an image in float64, NaN for invalid pixels and outliers, and the outliers' share."""
    stored = loaded(stored)
    values = bad_pixels.mask_invalid(stored, stored.float(), stats.nodata_values)
    invalid = values.isnan()
    share = 0.0
    if stored.dtype != torch.uint8:
        black, span = stats.limits or (0.0, stats.white)
        normalized = (values[None] - black) / span
        mask = outliers.outlier_mask(normalized)
        if mask is not None:
            share = float(mask.float().mean())
            invalid = invalid | mask[0]
    valid = torch.where(invalid, torch.nan, stored.double())
    return valid.numpy(), share
