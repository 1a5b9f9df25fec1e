"""Movies and volumes as one data set: stacks of frames or planes, of which a part decides."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from n2n_lightning.arrays.axes import as_pages, evenly, stacked_letters
from n2n_lightning.arrays.bad_pixels import mask_invalid
from n2n_lightning.arrays.frame_checks import review
from n2n_lightning.data.scene_set import MixedSizeScenes
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.plan import Job
from n2n_lightning.selection.comparison import ScoredPart
from n2n_lightning.selection.data_set import (
    FEWEST_PIXELS,
    LEAST_SCORED,
    LEAST_TRAINED,
    MOST_READ,
    PIXELS_PER_MINUTE,
    SCORED_CAPTURES,
    DataSet,
    KindArray,
    arrays_of_kind,
    inspected,
    middle_captures,
    native_array,
    split_captures,
    without_gaps,
)
from n2n_lightning.selection.stack_noise import StackNoise, noise_of_movie, noise_of_volume

MOST_STACKS = 8  # that are read: no more would be seen in minutes
SCORED_STACKS = 4  # whose parts decide
MOST_VALUES = 64_000_000  # of all stacks: 256 MB as float32
FEWEST_FRAMES = {"T": 3, "D": 8}  # of a stack: of fewer, the frames are pictures
# Frames of the scored part at least, if there are as many: in a movie a planted flash lasts one of
# 6; a volume is as deep as a window of training.
LEAST_FRAMES = {"T": 16, "D": 32}
STATIC = "NK"  # axes that a movie with frames around each cannot have


def stack_letter(kind: str, shape: Sequence[int], axes: str) -> str:
    """Return the letter of the axis along which an array is a stack; empty: its pages are pictures.

    Args:
        kind: see data_set.array_kind.
        shape: of the array.
        axes: its letters.
    """
    if kind.startswith("colour"):
        return ""
    if "T" in axes:
        letter = "T"
        if set(STATIC) & set(axes):
            return ""
    elif "D" in axes:
        letter = "D"
    else:
        return ""
    length = shape[axes.index(letter)]
    return letter if length >= FEWEST_FRAMES[letter] else ""


@dataclass
class StackSet(DataSet):
    """Movies or volumes of one kind; `scenes` are some of their frames or planes.

    Attributes:
        letter: T for movies, D for volumes.
        stacks: (K, F, H, W) each, stored values.
        files: the file of each.
    """

    letter: str
    stacks: list[np.ndarray]
    files: list[str]

    @property
    def axes(self) -> str:
        """Letters of the axes of a stack."""
        return f"{self.letter}HW"

    @property
    def things(self) -> str:
        """What the data are, in words."""
        return "movies" if self.letter == "T" else "volumes"

    @property
    def across(self) -> tuple[float, ...]:
        """Correlation with the next planes of the volume whose noise reaches farthest."""
        measured = self.measured_noises
        of_stacks = [noise.across for number, noise in self.noises.items() if number in measured]
        return max(of_stacks, key=len, default=())

    @property
    def channels(self) -> int:
        """Channels that are denoised together: one."""
        return 1

    @property
    def depth(self) -> int:
        """Frames of the shortest stack."""
        return min(stack.shape[1] for stack in self.stacks)

    def _scored_numbers(self) -> list[int]:
        return evenly(len(self.stacks), SCORED_STACKS)

    def _valid(self, stored: np.ndarray) -> np.ndarray:
        """Return stored values as float64, NaN where a pixel is missing."""
        tensor = torch.from_numpy(native_array(stored))
        valid = mask_invalid(tensor, tensor.double(), self.stats.nodata_values)
        array: np.ndarray = valid.numpy()
        return array

    @cached_property
    def noises(self) -> dict[int, StackNoise]:  # type: ignore[override]
        """The noise of each of the scored stacks with one capture, by number."""
        if self.paired:
            return {}
        noises: dict[int, StackNoise] = {}
        for number in self._scored_numbers():
            frames = self._valid(self.stacks[number][0])
            if self.letter == "T":
                noises[number] = noise_of_movie(frames)
            else:
                noises[number] = noise_of_volume(frames, self.stats)
        return noises

    def fingerprint(self) -> str:
        """Return a digest of the stacks, in their order."""
        digest = hashlib.blake2b(self.kind.encode(), digest_size=16)
        for stack in self.stacks:
            digest.update(f"{stack.shape}".encode())
            digest.update(np.ascontiguousarray(stack).tobytes())
        return digest.hexdigest()

    def can_be_split(self) -> bool:
        """Return True if all stacks are wide enough to train on one part and score the other."""
        sides = [sorted(stack.shape[2:]) for stack in self.stacks]
        shortest = min(short for short, _ in sides)
        longest = min(long for _, long in sides)
        return longest >= LEAST_TRAINED + LEAST_SCORED and shortest >= LEAST_TRAINED

    def _file_number(self, number: int) -> int:
        """Return the number of the file of a stack: all of one file are scored at one end."""
        files = list(dict.fromkeys(self.files))
        return files.index(self.files[number])

    def scored_parts(self, minutes: float) -> list[ScoredPart]:
        """Return the parts of stacks that no candidate is trained on, see DataSet.scored_parts.

        Args:
            minutes: of the budget.
        """
        numbers = self._scored_numbers() if self.paired else list(self.measured_noises)
        most = max(FEWEST_PIXELS, PIXELS_PER_MINUTE * minutes) / len(numbers)
        parts = []
        for number in numbers:
            count = 1
            if self.paired:
                count = self.usable_captures(len(self.stacks[number]), SCORED_CAPTURES)
            captures = self.stacks[number][:count]
            if self.can_be_split():
                _, captures = split_captures(captures, self._file_number(number))
            captures = middle_of_stack(captures, most / count, LEAST_FRAMES[self.letter])
            valid = self._valid(captures)
            if np.isfinite(valid).any():
                parts.append(ScoredPart(valid, self.noises.get(number)))
        return parts

    def save_trained(self, folder: Path) -> int:
        """Write what candidates are trained on, a file for each stack, (K, F, H, W) or (F, H, W).

        Args:
            folder: for the files.

        Returns:
            The number of pixels.
        """
        folder.mkdir(parents=True, exist_ok=True)
        pixels = 0
        for number, stack in enumerate(self.stacks):
            count = self.usable_captures(len(stack), len(stack))
            trained, _ = split_captures(stack[:count], self._file_number(number))
            tensor = torch.from_numpy(native_array(trained))
            array = without_gaps(tensor, self.stats.nodata_values)
            pixels += array.size
            np.save(folder / f"{number:03}.npy", array if self.paired else array[0])
        return pixels


def middle_of_stack(captures: np.ndarray, most: float, least: int) -> np.ndarray:
    """Return the middle of captures of a stack (K, F, H, W), of up to so many values each.

    Frames are left out at both ends first, and pixels of the others only if `least` are left.

    >>> middle_of_stack(np.zeros((1, 40, 64, 64)), 20 * 64 * 64, 16).shape
    (1, 20, 64, 64)
    >>> middle_of_stack(np.zeros((1, 40, 64, 64)), 8 * 64 * 64, 16).shape
    (1, 16, 32, 64)
    """
    _, frames, height, width = captures.shape
    fitting = int(most / (height * width))
    count = min(frames, max(least, fitting))
    first = (frames - count) // 2
    run = captures[:, first : first + count]
    return middle_captures(run, most / count)


def read_stacks(
    jobs: Sequence[Job], seconds: dict[Path, Path], kind: str, asked: AskedAxes
) -> StackSet | None:
    """Read the movies or volumes of one kind.

    Args:
        jobs, seconds, kind, asked: see read_data_set.

    Returns:
        The data set; None where their pages are pictures of their own.

    Raises:
        InputError: a file cannot be read.
    """
    letter = ""
    count = 0
    for one in arrays_of_kind(jobs, {}, kind, asked):
        letter = stack_letter(kind, one.values.shape, one.reading.axes)
        if not letter:
            return None
        count += _stacks_in(one, letter)
    if not letter:
        return None
    chosen = evenly(count, MOST_STACKS)
    stacks: list[np.ndarray] = []
    files: list[str] = []
    pixels = 0
    first = 0
    nodata_values: set[float] = set()
    for one in arrays_of_kind(jobs, seconds, kind, asked):
        following = first + _stacks_in(one, letter)
        inside = [number - first for number in chosen if first <= number < following]
        first = following
        captures = 1 if one.second is None else 2
        pixels += captures * math.prod(one.values.shape)
        if inside:
            read = _stacks_of(one, letter, inside, MOST_VALUES / len(chosen))
            stacks += read
            files += [one.file] * len(read)
            nodata_values |= set(one.values.nodata_values)
    frames = _as_pictures(stacks, files, tuple(sorted(nodata_values)))
    data = inspected(kind, frames, pixels)
    if not data.paired:
        stacks = [stack[:1] for stack in stacks]
    return StackSet(kind, data.scenes, pixels, data.report, letter, stacks, files)


def _stacks_in(one: KindArray, letter: str) -> int:
    """Return the number of stacks of an array: of each channel, and of other axes."""
    count = 1
    for axis, length in zip(one.reading.axes, one.values.shape, strict=True):
        if axis == "C":
            count *= length - one.reading.alpha
        elif axis not in f"KHW{letter}":
            count *= length
    return count


def _stacks_of(
    one: KindArray, letter: str, numbers: Sequence[int], most: float
) -> list[np.ndarray]:
    """Return some stacks of an array in memory, (K, F, H, W), of up to so many values each."""
    captures = [as_pages(one.values.measured, one.reading.axes)]
    if one.second is not None:
        captures.append(as_pages(one.second, one.reading.axes))
    letters = stacked_letters(one.reading.axes)
    if "K" in letters:
        captures = list(np.moveaxis(captures[0], letters.index("K"), 0))
        letters = letters.replace("K", "")
    moved = []
    for capture in captures:
        pages = np.moveaxis(capture, letters.index(letter), -4)
        moved.append(np.moveaxis(pages, -1, 0))
    channels = len(moved[0]) - one.reading.alpha
    *outer, _, _, _ = moved[0].shape
    places = list(np.ndindex(channels, *outer[1:]))
    stacks = []
    for number in numbers:
        stack = np.stack([_limited(pages[places[number]], letter, most) for pages in moved])
        stacks.append(_live_frames(stack) if letter == "T" else stack)
    return stacks


def _limited(frames: np.ndarray, letter: str, most: float) -> np.ndarray:
    """Return the middle of frames (F, H, W), of up to so many values, in native byte order."""
    (part,) = middle_of_stack(frames[None], most, LEAST_FRAMES[letter])
    return native_array(part)


def _live_frames(stack: np.ndarray) -> np.ndarray:
    """Return a movie (K, T, H, W) without dead frames and copies, as far as enough are left."""
    live = review(stack.swapaxes(0, 1)).live
    return stack[:, live] if len(live) >= FEWEST_FRAMES["T"] else stack


def _as_pictures(
    stacks: Sequence[np.ndarray], files: Sequence[str], nodata_values: tuple[float, ...]
) -> MixedSizeScenes:
    """Return some frames of all stacks as pictures, for what `check` finds."""
    images = []
    names = []
    for stack, file in zip(stacks, files, strict=True):
        for t in evenly(stack.shape[1], max(1, MOST_READ // len(stacks))):
            captures = [torch.from_numpy(capture[[t]]) for capture in stack]
            images.append(captures)
            names.append(file)
    return MixedSizeScenes(images, names, nodata_values)
