"""Files of one kind as one data set: its pictures, its noise, and which pixels decide."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning import inspection
from n2n_lightning.arrays.axes import as_pages, evenly, stacked_letters
from n2n_lightning.arrays.bad_pixels import mask_invalid
from n2n_lightning.data.intensity import IntensityStats, intensity_stats
from n2n_lightning.data.reading import read_scenes
from n2n_lightning.data.scene_set import MixedSizeScenes, SceneSet
from n2n_lightning.files import InputError
from n2n_lightning.formats import Picture, opened
from n2n_lightning.formats.label_images import is_label_image
from n2n_lightning.formats.picture import AskedAxes, ReadAs, Values
from n2n_lightning.formats.units import in_unit_of
from n2n_lightning.inference.plan import Job
from n2n_lightning.inspection.inspection_report import InspectionReport
from n2n_lightning.metrics.single_noise import SingleNoise, single_noise
from n2n_lightning.selection.comparison import ScoredPart

MOST_READ = 64  # evenly spread: no more would be seen in minutes (adaptation.MAX_IMAGES)
MOST_CAPTURES = 16  # of a scene
SCORED_SCENES = 16  # whose parts decide
SCORED_CAPTURES = 2  # of a scene: for the same time, more pixels tell more than more captures
SCORED_SHARE = 0.25  # of a picture: what is left is enough to train on
LEAST_TRAINED = 64  # pixels of a side of what is left: a window of training
LEAST_SCORED = 32  # pixels: a block of the comparison
PIXELS_PER_MINUTE = 60_000  # scored, of the budget: a run of the checkpoint over them takes 0.3 s
FEWEST_PIXELS = 120_000  # scored, however short the budget
LABELS = "label images"  # the kind of files without pictures


def array_kind(values: Values, reading: ReadAs) -> str:
    """Return the kind of an array in words: what arrays of one choice have in common.

    Args:
        values: the array.
        reading: how it is read.
    """
    colours = "grey"
    if _together(values, reading):
        colours = "colour"
    what = "pictures"
    if "T" in reading.axes:
        what = "movies"
    elif "D" in reading.axes:
        what = "volumes"
    return f"{colours} {what} of {values.dtype.name}"


def kind_of_file(job: Job, asked: AskedAxes) -> str:
    """Return the kind of the first array of a file that is no label image.

    Args:
        job: the file.
        asked: what decides the axes of arrays.
    """
    picture = opened(job.source, job.part)
    kinds = []
    for values in picture.values:
        reading = picture.read_as(values, asked)
        if not is_label_array(picture, values, reading):
            kinds.append(array_kind(values, reading))
    return kinds[0] if kinds else LABELS


def is_label_array(picture: Picture, values: Values, reading: ReadAs) -> bool:
    """Return True if an array of a file names regions, or is a mask.

    Args:
        picture: the file.
        values: the array.
        reading: how it is read.
    """
    return bool(picture.mask) or is_label_image(values.array, reading.axes)


def _together(values: Values, reading: ReadAs) -> bool:
    """Return True if the channels are the three colours of one picture."""
    if "C" not in reading.axes or not reading.colour:
        return False
    channels = values.shape[reading.axes.index("C")]
    return channels - reading.alpha == 3


@dataclass
class DataSet:
    """Pictures of one kind.

    Attributes:
        kind: see `array_kind`.
        scenes: one capture of each, or several.
        pixels: of all files, as often as there are channels that are denoised apart.
        report: what `check` finds.
    """

    kind: str
    scenes: SceneSet
    pixels: int
    report: InspectionReport

    @cached_property
    def stats(self) -> IntensityStats:
        """Missing values, white, and the range of most values."""
        return intensity_stats(self.scenes)

    @property
    def paired(self) -> bool:
        """True if each scene has two captures or more, which fit one another."""
        return min(self.scenes.counts_of_all) > 1

    @property
    def fewest_and_most_captures(self) -> tuple[int, int]:
        """The numbers of captures of the scenes with the fewest, and with the most."""
        counts = self.scenes.counts_of_all
        return min(counts), max(counts)

    @property
    def across(self) -> tuple[float, ...]:
        """Correlation of the noise with the next planes of volumes; empty: independent."""
        return ()

    @property
    def axes(self) -> str:
        """Letters of the axes of what is scored."""
        return "CHW"

    @property
    def things(self) -> str:
        """What the data are, in words."""
        return "pictures"

    @property
    def channels(self) -> int:
        """Channels that are denoised together."""
        return self.scenes.channels

    def count_of(self, scene: int, most: int) -> int:
        """Return the number of captures of a scene that are used, of which all pairs fit."""
        return self.usable_captures(self.scenes.count_of(scene), most)

    def usable_captures(self, count: int, most: int) -> int:
        """Return how many of so many captures are used, of which all pairs fit."""
        count = min(count, most)
        if "data.within=1" in (self.report.advice or []):
            return min(count, 2)
        return count

    def capture(self, scene: int, number: int) -> np.ndarray:
        """Return a capture (C, H, W), float64, NaN where a pixel is missing."""
        stored = self.scenes.image(scene, number)
        valid = mask_invalid(stored, stored.double(), self.stats.nodata_values)
        return valid.numpy()

    @cached_property
    def noises(self) -> dict[int, SingleNoise]:
        """The noise of each of the scored scenes with one capture, by scene."""
        if self.paired:
            return {}
        numbers = evenly(len(self.scenes), SCORED_SCENES)
        return {number: single_noise(self.capture(number, 0)) for number in numbers}

    @property
    def measured_noises(self) -> dict[int, SingleNoise]:
        """Those whose variance and correlation are both known."""
        known = {}
        for number, noise in self.noises.items():
            if noise.measurable and noise.white is not None:
                known[number] = noise
        return known

    def unmeasurable(self) -> str:
        """Return why no error can be estimated; empty where one can."""
        if self.paired or self.measured_noises:
            return ""
        noise = next(iter(self.noises.values()))
        return noise.reason or "the correlation of the noise is not measurable"

    def fingerprint(self) -> str:
        """Return a digest of the pictures, in their order."""
        digest = hashlib.blake2b(self.kind.encode(), digest_size=16)
        for number in range(len(self.scenes)):
            picture = self.scenes.image(number, 0).numpy()
            digest.update(f"{picture.shape} {self.scenes.count_of(number)}".encode())
            digest.update(picture.tobytes())
        return digest.hexdigest()

    def can_be_split(self) -> bool:
        """Return True if all pictures are large enough to train on one part and score the other."""
        sizes = self.scenes.sizes(self.scenes.indices)
        shortest = int(sizes.amin())
        longest = int(sizes.amax(1).amin())
        return longest >= LEAST_TRAINED + LEAST_SCORED and shortest >= LEAST_TRAINED

    def _file_number(self, scene: int) -> int:
        """Return the number of the file of a scene, in the order of the files.

        Planes and channels of one file may share their noise: all are scored at the same end, so
        that none is trained on what decides of another.
        """
        files = list(dict.fromkeys(self.scenes.names))
        return files.index(self.scenes.names[scene])

    def scored_parts(self, minutes: float) -> list[ScoredPart]:
        """Return the parts of pictures that no candidate is trained on, with their noise.

        Args:
            minutes: of the budget, which decides how many pixels there are.
        """
        numbers = list(self.measured_noises)
        if self.paired:
            numbers = evenly(len(self.scenes), SCORED_SCENES)
        most = max(FEWEST_PIXELS, PIXELS_PER_MINUTE * minutes) / len(numbers)
        parts = []
        for number in numbers:
            count = self.count_of(number, SCORED_CAPTURES)
            captures = np.stack([self.capture(number, k) for k in range(count)])
            if self.can_be_split():
                _, captures = split_captures(captures, self._file_number(number))
            captures = middle_captures(captures, most / count)
            if not self.paired:
                captures = captures[:1]
            if not np.isfinite(captures).any():
                continue
            parts.append(ScoredPart(captures, self.noises.get(number)))
        return parts

    def save_trained(self, folder: Path) -> int:
        """Write what candidates are trained on, a file for each scene, (K, C, H, W) or (C, H, W).

        Args:
            folder: for the files.

        Returns:
            The number of pixels.
        """
        folder.mkdir(parents=True, exist_ok=True)
        pixels = 0
        for number in range(len(self.scenes)):
            captures = []
            for k in range(self.count_of(number, MOST_CAPTURES)):
                stored = self.scenes.image(number, k)
                captures.append(without_gaps(stored, self.stats.nodata_values))
            array = np.stack(captures)
            trained, _ = split_captures(array, self._file_number(number))
            pixels += trained.size
            stored_part = trained if self.paired else trained[0]
            np.save(folder / f"{number:03}.npy", stored_part)
        return pixels


def without_gaps(stored: Tensor, nodata_values: tuple[float, ...]) -> np.ndarray:
    """Return captures as they are stored; float32 with NaN where pixels of whole numbers miss.

    Args:
        stored: captures of any shape.
        nodata_values: stored values that mark missing pixels.
    """
    valid = mask_invalid(stored, stored.double(), nodata_values)
    array = stored.numpy()
    if bool(valid.isfinite().all()) or array.dtype.kind == "f":
        return array
    return valid.float().numpy()


def split_captures(captures: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide a picture into a part to train on and a part to score, along its longer side.

    Args:
        captures: (K, C, H, W).
        number: of the file: pictures of even ones are scored at the end, of odd ones at the
            beginning.

    Returns:
        Both parts, views.

    >>> [part.shape for part in split_captures(np.zeros((2, 1, 256, 200)), 0)]
    [(2, 1, 192, 200), (2, 1, 64, 200)]
    """
    *_, height, width = captures.shape
    turned = width > height
    if turned:
        captures = captures.swapaxes(2, 3)
        height = width
    blocks = round(SCORED_SHARE * height / LEAST_SCORED)
    rows = max(1, blocks) * LEAST_SCORED
    if number % 2:
        scored = captures[:, :, :rows]
        trained = captures[:, :, rows:]
    else:
        trained = captures[:, :, : height - rows]
        scored = captures[:, :, height - rows :]
    if turned:
        return trained.swapaxes(2, 3), scored.swapaxes(2, 3)
    return trained, scored


def middle_captures(captures: np.ndarray, most: float) -> np.ndarray:
    """Return the middle of captures, of up to so many pixels each.

    Args:
        captures: (K, C, H, W).
        most: pixels, H times W.

    Returns:
        A view.
    """
    *_, height, width = captures.shape
    high = min(height, _whole_blocks(most**0.5))
    wide = min(width, _whole_blocks(most / high))
    top = (height - high) // 2
    left = (width - wide) // 2
    below = top + high
    right = left + wide
    return captures[:, :, top:below, left:right]


def _whole_blocks(length: float) -> int:
    """Return a length rounded down to whole blocks of the comparison, one at least."""
    blocks = int(length) // LEAST_SCORED
    return LEAST_SCORED * max(1, blocks)


@dataclass
class _Collected:
    """Captures of scenes, of one kind.

    Attributes:
        images: of each scene its captures, (C, H, W).
        names: of the scenes.
        nodata_values: of all files.
    """

    images: list[list[Tensor]]
    names: list[str]
    nodata_values: set[float]

    def add(
        self, values: Values, reading: ReadAs, name: str, second: np.ndarray | None = None
    ) -> int:
        """Add the scenes of an array; return the number of its pixels that are denoised."""
        self.nodata_values |= set(values.nodata_values)
        stacks = [as_pages(values.measured, reading.axes)]
        if second is not None:
            stacks.append(as_pages(second, reading.axes))
        letters = stacked_letters(reading.axes)
        if "K" in letters:
            captures = np.moveaxis(stacks[0], letters.index("K"), 0)
            stacks = list(captures)
        *stacked, height, width, channels = stacks[0].shape
        channels -= reading.alpha
        groups = [[k] for k in range(channels)]
        if _together(values, reading):
            groups = [list(range(channels))]
        for place in np.ndindex(*stacked):
            for group in groups:
                of_scene = [_channels_of(stack[place], group) for stack in stacks]
                self.images.append(of_scene)
                self.names.append(name)
        return len(stacks) * int(np.prod(stacked)) * height * width * len(groups)


def _channels_of(page: np.ndarray, channels: list[int]) -> Tensor:
    """Return channels of a page (H, W, C) as (C, H, W), in native byte order."""
    picture = np.moveaxis(page[..., channels], -1, 0)
    return torch.from_numpy(native_array(picture))


def native_array(array: np.ndarray) -> np.ndarray:
    """Return an array in one piece of memory and in native byte order."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native)


@dataclass(frozen=True)
class KindArray:
    """An array of a file.

    Attributes:
        values: the array.
        reading: how it is read.
        file: the name of the file.
        second: the array of a second capture, in the unit of the first; None: there is none.
    """

    values: Values
    reading: ReadAs
    file: str
    second: np.ndarray | None


def arrays_of_kind(
    jobs: Sequence[Job], seconds: dict[Path, Path], kind: str, asked: AskedAxes
) -> Iterator[KindArray]:
    """Yield the arrays of one kind, without label images.

    Args:
        jobs, seconds, kind, asked: see read_data_set.
    """
    for job in jobs:
        picture = opened(job.source, job.part)
        second = None
        if job.source in seconds:
            second = opened(seconds[job.source])
        for number, values in enumerate(picture.values):
            reading = picture.read_as(values, asked)
            if array_kind(values, reading) != kind or is_label_array(picture, values, reading):
                continue
            other = None
            if second is not None:
                other = _second_array(job, values, number, second)
            yield KindArray(values, reading, str(job.source), other)


def read_data_set(
    jobs: Sequence[Job], seconds: dict[Path, Path], kind: str, asked: AskedAxes
) -> DataSet:
    """Read the pictures of one kind.

    Args:
        jobs: the files.
        seconds: the second capture of each source; empty: there are none.
        kind: of the arrays that count.
        asked: what decides the axes of arrays.

    Returns:
        The data set. Captures that do not fit one another are single pictures.

    Raises:
        InputError: a file cannot be read.
    """
    collected = _Collected([], [], set())
    pixels = 0
    for one in arrays_of_kind(jobs, seconds, kind, asked):
        pixels += collected.add(one.values, one.reading, one.file, one.second)
    if not collected.images:
        raise InputError(f"{jobs[0].source}: holds no pictures, only label images or masks")
    chosen = evenly(len(collected.images), MOST_READ)
    images = [collected.images[i] for i in chosen]
    names = [collected.names[i] for i in chosen]
    nodata_values = tuple(sorted(collected.nodata_values))
    scenes = MixedSizeScenes(images, names, nodata_values)
    return inspected(kind, scenes, pixels)


def _second_array(job: Job, values: Values, number: int, second: Picture) -> np.ndarray:
    """Return the array of a second capture in the unit of the first."""
    if number >= len(second.values) or second.values[number].shape != values.shape:
        raise InputError(
            f"{job.source} and {second.path}: differ in shape, so they are no captures"
        )
    array: np.ndarray = in_unit_of(values, second.values[number])
    return array


def with_captures_of(folder: str, data: DataSet) -> DataSet:
    """Return a data set with the captures of each scene, where a folder holds several of them.

    Args:
        folder: as typed, a folder of folders, or of names that pair.
        data: its files as single pictures.

    Returns:
        The data set with captures, or as it was.
    """
    try:
        scenes = read_scenes(folder)
    except InputError:
        return data
    if min(scenes.counts_of_all) < 2 or scenes.channels != data.channels:
        return data
    paired = DataSet(data.kind, scenes, data.pixels, inspection.inspect(scenes))
    return paired if _are_pairs(paired.report) else data


def inspected(kind: str, scenes: MixedSizeScenes, pixels: int) -> DataSet:
    """Return a data set; captures that do not fit one another become single pictures.

    Args:
        kind: see `array_kind`.
        scenes: the pictures.
        pixels: of all files, see DataSet.
    """
    data = DataSet(kind, scenes, pixels, inspection.inspect(scenes))
    if not data.paired or _are_pairs(data.report):
        return data
    firsts = [captures[:1] for captures in scenes.images]
    singles = MixedSizeScenes(firsts, scenes.names, scenes.nodata_values)
    return DataSet(kind, singles, pixels, inspection.inspect(singles))


def _are_pairs(report: Any) -> bool:
    """Return True if captures are pairs whose differences are noise, as they lie."""
    return report.source == "pairs" and report.advice is not None and not report.align
