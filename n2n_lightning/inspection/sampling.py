"""What an inspection samples: frames of movies, captures, and copies among them."""

from itertools import pairwise, starmap

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays.axes import evenly
from n2n_lightning.arrays.registration import positions_of, shifted, way_onto
from n2n_lightning.data.region_tensor import loaded
from n2n_lightning.data.scene_sample import CENTRE_SIDE, MAX_SCENES
from n2n_lightning.data.scene_set import EqualSizeScenes, SceneSet, middle
from n2n_lightning.inspection import measures

MAX_CUTS = 1 / 8  # share of neighbouring frames of a movie that may show different things
MAX_COPY_CHECKS = 500  # scenes that are searched for copies


def of_one_file(scenes: SceneSet) -> bool:
    """Return True if single images are the pages of one file."""
    files = set()
    for name in scenes.names:
        file, _, _ = name.rpartition(", image ")
        files.add(file or name)
    return len(files) == 1


def as_movie(scenes: SceneSet) -> EqualSizeScenes | None:
    """Return single images that follow one another as captures of one scene.

    Neighbours must have a correlation of 0.8 after a blur that removes most of their noise, and
    their difference must look like noise: pictures in the same frame or mask differ by pictures.
    Images of one value do not count. In one file half of the neighbours may differ (cuts); of
    single files one in eight, because a folder with captures of several scenes has more.

    Args:
        scenes: one capture of each.

    Returns:
        One scene with all of them as captures; None if they are no movie.
    """
    count = len(scenes.names)
    if not isinstance(scenes, EqualSizeScenes) or count < 3:
        return None
    continuous = []
    for i in evenly(count - 1, MAX_SCENES):
        frame = _centre(scenes, i, 0).nan_to_num()
        following = _centre(scenes, i + 1, 0).nan_to_num()
        if not _is_flat(frame) and not _is_flat(following):
            alike = _same_scene(frame, following) or _same_scene(*_registered(frame, following))
            continuous.append(alike)
    if not continuous:
        return None
    least = 0.5 if of_one_file(scenes) else 1 - MAX_CUTS
    if np.mean(continuous) < least:
        return None
    names = scenes.names[:1]
    counts = torch.tensor([count])
    return EqualSizeScenes(scenes.frames, names, counts, scenes.nodata_values, scenes.unit)


def _centre(scenes: SceneSet, scene: int, capture: int) -> Tensor:
    """Return the central part of a capture, (C, H, W), float64."""
    stored = scenes.image(scene, capture)
    return middle(stored, CENTRE_SIDE).double()


def _is_flat(image: Tensor) -> bool:
    """Return True if all pixels have one value."""
    low, high = image.aminmax()
    return float(low) == float(high)


def _registered(frame: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    """Return what two images (C, H, W) both show, where the whole picture has moved by pixels."""
    images = [frame.numpy(), following.numpy()]
    first, second = positions_of(images)
    rows, columns = way_onto(second, first)
    moved = torch.from_numpy(shifted(images[1], rows, columns))
    _, height, width = frame.shape
    common = (
        slice(None),
        slice(max(rows, 0), height + min(rows, 0)),
        slice(max(columns, 0), width + min(columns, 0)),
    )
    return frame[common], moved[common]


def _same_scene(frame: Tensor, following: Tensor) -> bool:
    """Return True if two images (C, H, W) are alike and differ by what looks like noise."""
    one = _blurred(frame)
    other = _blurred(following)
    if not measures.correlation(one, other) > 0.8:
        return False
    noise = measures.noise_of(frame.numpy(), following.numpy())
    correlations = measures.correlations([noise])
    at_one = [abs(values[0]) for values in correlations.values()]
    return max(at_one) < 0.5


def _blurred(image: Tensor) -> np.ndarray:
    """Return the means of 8 x 8 pixels of an image (C, H, W), flat."""
    means = torch.nn.functional.avg_pool2d(image, 8, ceil_mode=True)
    flat: np.ndarray = means.flatten().numpy()
    return flat


def blurred_pairs(scenes: SceneSet) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Return means of up to four successive frames and of those after them.

    They show the movement of a movie in which little moves between frames under much noise.

    Args:
        scenes: one movie, its frames the captures.

    Returns:
        Two means (C, H, W) and their distance in frames, at four places of the movie.
    """
    count = scenes.count_of(0)
    length = max(1, min(4, count // 2))
    pairs = []
    starts = count - 2 * length + 1
    for start in evenly(starts, 4):
        one = _mean_frame(scenes, start, length)
        other = _mean_frame(scenes, start + length, length)
        pairs.append((one, other, length))
    return pairs


def _mean_frame(scenes: SceneSet, start: int, length: int) -> np.ndarray:
    """Return the mean of successive frames of a movie, (C, H, W)."""
    frames = []
    for t in range(start, start + length):
        frame = _centre(scenes, 0, t)
        frames.append(frame.numpy())
    mean: np.ndarray = np.mean(frames, 0)
    return mean


def duplicates(scenes: SceneSet) -> list[str]:
    """Return the names of scenes with captures of the same values.

    Every third pixel of neighbouring captures is compared, and of the first and the last, of large
    ones in their middles.

    Args:
        scenes: up to 500 of them are searched, and ten captures of each.

    Returns:
        Names of scenes; none if every capture has noise of its own.
    """
    names = []
    for i in evenly(len(scenes.names), MAX_COPY_CHECKS):
        count = min(scenes.count_of(i), 10)
        captures = [scenes.image(i, k) for k in range(count)]
        pairs = list(pairwise(captures))
        if count > 2:
            pairs.append((captures[0], captures[-1]))
        if any(starmap(_are_copies, pairs)):
            names.append(scenes.names[i])
    return names


def _are_copies(one: Tensor, other: Tensor) -> bool:
    """Return True if every third pixel of the middles is the same, and not all are one value."""
    pixels = loaded(middle(one, CENTRE_SIDE))[..., ::3, ::3]
    if not torch.equal(pixels, loaded(middle(other, CENTRE_SIDE))[..., ::3, ::3]):
        return False
    deviation = pixels.float().std()
    return float(deviation) > 0
