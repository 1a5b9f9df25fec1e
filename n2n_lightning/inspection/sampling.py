"""What is looked at: parts of some scenes, as the files have them and as measures take them."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from n2n_lightning.arrays import bad_pixels
from n2n_lightning.arrays.axes import evenly
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.scenes import EqualSizeScenes, SceneSet, middle
from n2n_lightning.inspection import measures

MAX_SCENES = 12  # scenes that are looked at, evenly spread
CUTS = 1 / 8  # of the neighbouring frames of a movie may show different things
CENTRE_SIDE = 1024  # pixels of the middle of each that are


@dataclass
class SceneSample:
    """Parts of some scenes, as measures take them: of each the first captures, and the numbers of theirs.

    Attributes:
        known: of each scene its captures that are looked at, (C, H, W), float64, in stored units,
            NaN where a pixel is missing or wild.
        counts: captures of each scene that there are.
        wild: share of the pixels that stand out as no picture does.
    """

    known: list[dict[int, np.ndarray]]
    counts: list[int]
    wild: float

    def values(self) -> list[np.ndarray]:
        """The known values of each capture."""
        return [image[np.isfinite(image)] for captures in self.known for image in captures.values()]

    def pairs(self, *ends: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of captures of each scene: the first two (`near`), or the first and the last one (`far`)."""
        found = []
        for captures in self.known:
            order = sorted(captures)
            for end in ends:
                if len(order) > 1 and (end == "near" or len(order) > 2):
                    found.append((captures[order[0]], captures[order[1 if end == "near" else -1]]))
        return found


def sample_scenes(
    scenes: SceneSet, seen: IntensityStats, most: int = MAX_SCENES, side: int = CENTRE_SIDE
) -> SceneSample:
    """The middles of some scenes: their first two captures and their last one."""
    chosen = evenly(len(scenes.names), most)
    black, span = seen.limits or (0.0, seen.white)
    known, counts, wild = [], [], []
    for scene in chosen:
        count = int(scenes.captures(torch.tensor([int(scene)]))[0])
        values = {}
        for k in sorted({0, min(1, count - 1), count - 1}):
            here = middle(scenes.image(int(scene), k), side)
            shown = bad_pixels.mask_invalid(here, here.float(), seen.nodata_values)
            outside = (
                bad_pixels.outlier_mask((shown[None] - black) / span)
                if here.dtype != torch.uint8
                else None
            )
            wild.append(0.0 if outside is None else float(outside.float().mean()))
            gone = shown.isnan() if outside is None else shown.isnan() | outside[0]
            values[k] = torch.where(gone, torch.nan, here.double()).numpy()
        known.append(values)
        counts.append(count)
    return SceneSample(known, counts, float(np.mean(wild)))


def of_one_file(scenes: SceneSet) -> bool:
    """Whether single images are the pages of one file, not a file each."""
    return len({name.rpartition(", image ")[0] or name for name in scenes.names}) == 1


def as_movie(scenes: SceneSet) -> EqualSizeScenes | None:
    """Single images that follow one another as captures of one scene; None where they are different things.

    Blurred, so that their noise hardly counts, neighbours must have 8/10 in common, and what they
    differ by must look like noise: pictures with the same frame or mask around them differ by
    pictures. Frames of one value do not count. Of one file half of the pairs may be cuts, of single
    files one in eight: in a folder with some captures of each scene more of them are.
    """
    count = len(scenes.names)
    if not isinstance(scenes, EqualSizeScenes) or count < 3:
        return None
    found = []
    for i in evenly(count - 1, MAX_SCENES):
        pair = [
            middle(scenes.image(int(i) + k, 0), CENTRE_SIDE).double().nan_to_num() for k in (0, 1)
        ]
        if any(float(image.max()) == float(image.min()) for image in pair):
            continue  # a dead frame
        one, other = (
            torch.nn.functional.avg_pool2d(image, 8, ceil_mode=True).flatten().numpy()
            for image in pair
        )
        alike = float(np.corrcoef(one, other)[0, 1]) if one.std() and other.std() else 0.0
        noise = measures.noise_of(pair[0].numpy(), pair[1].numpy())
        beside = max(abs(value) for value, _ in measures.correlations([noise]).values())
        found.append(alike > 0.8 and beside < 0.5)
    if not found or np.mean(found) < (0.5 if of_one_file(scenes) else 1 - CUTS):
        return None
    (frames,) = scenes.frames
    return EqualSizeScenes(
        [frames], [scenes.names[0]], torch.tensor([count]), scenes.nodata_values, scenes.unit
    )


def blurred_pairs(scenes: EqualSizeScenes) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Means of frames that follow one another, and of those after them, and how many frames apart these are.

    Of a movie in which little moves from one frame to the next, under much noise.
    """
    count = int(scenes.captures(torch.tensor([0]))[0])
    length = max(1, min(4, count // 2))
    found = []
    for start in evenly(count - 2 * length + 1, 4):
        frames = [
            middle(scenes.image(0, int(start) + k), CENTRE_SIDE).double().numpy()
            for k in range(2 * length)
        ]
        found.append((np.mean(frames[:length], 0), np.mean(frames[length:], 0), length))
    return found


def duplicates(scenes: SceneSet) -> list[str]:
    """Names of scenes of which two neighbouring captures, or the first and the last one, are the same values."""
    found = []
    for i in evenly(len(scenes.names), 500):
        count = int(scenes.captures(torch.tensor([int(i)]))[0])
        images = [scenes.image(int(i), k)[..., ::3, ::3] for k in range(min(count, 10))]
        beside = list(pairwise(images)) + ([(images[0], images[-1])] if count > 2 else [])
        if any(bool(torch.equal(a, b)) and float(a.float().std()) > 0 for a, b in beside):
            found.append(scenes.names[int(i)])
    return found
