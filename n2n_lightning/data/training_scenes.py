"""The scenes of a run, stated once by sources of user images, for training and its checks."""

from dataclasses import dataclass

from torch.utils.data import Dataset

from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.scene_set import SceneSet


@dataclass(frozen=True)
class TrainingScenes:
    """The captures that are trained on, and what validates them.

    Attributes:
        scenes: the captures.
        stats: what their stored values mean.
        method: how pairs are made of them: `pairs`, `movie`, or a method for single images;
            `hidden` hides what the noise needs, or more than single pixels.
        within: captures farther apart than this are no pair; None: all are.
        clean: a clean image of each scene, which is the target (supervised training); None: targets
            are noisy.
        validation: validation pairs; None: there is no validation.
    """

    scenes: SceneSet
    stats: IntensityStats
    method: str
    within: int | None = None
    clean: SceneSet | None = None
    validation: Dataset | None = None
