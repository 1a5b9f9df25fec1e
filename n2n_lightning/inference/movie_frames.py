"""Frames of movies: those that are dead, and those that the network sees around each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from n2n_lightning.arrays.axes import as_pages
from n2n_lightning.arrays.bad_pixels import invalid_mask
from n2n_lightning.arrays.frame_checks import FrameReview, review
from n2n_lightning.arrays.registration import DriftSummary, positions_of, way_onto
from n2n_lightning.files import InputError, natural
from n2n_lightning.formats import Picture, opened
from n2n_lightning.formats.selected import Selected
from n2n_lightning.inference.page import PageInput, page_axes, pages_or_none, part_or_none
from n2n_lightning.inference.plan import Job


@dataclass(frozen=True)
class MovieFrames:
    """All frames of a movie, of which some are denoised.

    Attributes:
        pages: (T, ..., H, W, C), or (T, ..., D, H, W, C).
        masks: True where a pixel of `pages` is missing; None where the file does not say it.
        review: what was found in the frames.
        numbers: of each frame that is denoised its number in `pages`.
        drift: what was undone of the drift, where the network wants that.
    """

    pages: np.ndarray
    masks: np.ndarray | None
    review: FrameReview
    numbers: Sequence[int]
    drift: DriftSummary = field(default_factory=DriftSummary)

    def positions(
        self, context: int, sees_middle: bool, read: Callable[[PageInput], np.ndarray]
    ) -> dict[int, np.ndarray]:
        """Measure how far the scene has moved in each frame that the network is shown.

        Args:
            context, sees_middle: see `around`.
            read: returns a page in units of the network, (C, H, W), NaN where a pixel is missing.

        Returns:
            Rows and columns by the number of the frame; see registration.positions_of.
        """
        needed: set[int] = set()
        for t in self.numbers:
            needed.update(self.review.neighbours(t, context, sees_middle))
            needed.add(self.original(t))
        live = [t for t in self.review.live if min(needed) <= t <= max(needed)]
        inner = (0,) * (len(self.pages.shape) - 4)
        measured = positions_of(read(self.input((t, *inner))) for t in live)
        self.drift.add(measured)
        return dict(zip(live, measured, strict=True))

    def original(self, number: int) -> int:
        """Return the frame that one is a copy of, or its own number."""
        return self.review.copies.get(number, number)

    def moved_onto(
        self,
        place: tuple[int, ...],
        numbers: Sequence[int],
        shown: Sequence[PageInput],
        positions: Mapping[int, np.ndarray],
    ) -> list[PageInput]:
        """Move the pages that the network is shown onto the one that is denoised.

        Args:
            place: of that page, among those that are denoised.
            numbers: of the frames that the others are of.
            shown: the others.
            positions: see `positions`.

        Returns:
            Pages, missing where one does not reach.
        """
        onto = positions[self.original(self.numbers[place[0]])]
        moved = []
        for t, page in zip(numbers, shown, strict=True):
            moved.append(page.moved(*way_onto(positions[t], onto)))
        return moved

    def is_dead(self, place: tuple[int, ...]) -> bool:
        """Return True for a page of a dead frame, which is copied."""
        return bool(place) and self.numbers[place[0]] in self.review.dead

    def around(
        self, place: tuple[int, ...], context: int, sees_middle: bool = False
    ) -> list[tuple[int, ...]]:
        """Return the places of the pages around one in `pages`.

        Args:
            place: of a page among those that are denoised.
            context: frames before and after it.
            sees_middle: the page itself is among them.

        Returns:
            Places in `pages`, in order of time.
        """
        _, *inner = place
        return [(t, *inner) for t in self.neighbours(place, context, sees_middle)]

    def neighbours(
        self, place: tuple[int, ...], context: int, sees_middle: bool = False
    ) -> list[int]:
        """Return the numbers of the frames of `around`."""
        return self.review.neighbours(self.numbers[place[0]], context, sees_middle)

    @cached_property
    def is_whole(self) -> bool:
        """True if all frames are denoised."""
        return list(self.numbers) == list(range(len(self.pages)))

    def input(self, place: tuple[int, ...]) -> PageInput:
        """Return a page for the network.

        Args:
            place: in `pages`.

        Returns:
            Its stored values, and its mask of missing pixels.
        """
        return PageInput(self.pages[place], part_or_none(self.masks, place))

    def line(self) -> str:
        """Return a message about the frames that are copied, and about the drift.

        Returns:
            Empty if there are none.
        """
        dead = {}
        for t, why in self.review.dead.items():
            if t in self.numbers:
                dead[self.numbers.index(t)] = why
        lines = []
        for line in FrameReview(len(self.numbers), dead).lines("it"):
            lines.append(line.replace(" of it (", " left as before: ").removesuffix(")"))
        if self.drift.moved:
            lines.append(self.drift.line())
        return "; ".join(lines)


def movie_of(
    array: np.ndarray,
    axes: str,
    dims: int,
    context: int,
    invalid: np.ndarray | None = None,
    numbers: Sequence[int] | None = None,
    choice: str = "array[{}]",
) -> MovieFrames:
    """Find the dead frames of a stack before it is denoised.

    Args:
        array: the stack, of which the first axis that is neither colour nor space is time.
        axes: its axes (axes.LETTERS).
        dims: 2, or 3 for a stack of volumes.
        context: how many frames before and after one the network sees in its place; 0: frames are
            denoised alone, and only those of one value or mostly saturated are searched for.
        invalid: True where a pixel of `array` is missing.
        numbers: the frames that are denoised; None: all.
        choice: how frames are chosen, with {} for them, for messages.

    Returns:
        The frames; none is dead where fewer than two would be left.

    Raises:
        InputError: the network sees the frames around one, and these are several channels in turn.
    """
    axes = page_axes(axes, dims)
    pages = as_pages(array, axes, dims)
    masks = pages_or_none(invalid, axes, dims)
    count = len(pages) if len(pages.shape) > dims + 1 else 1
    seen = FrameReview(count)
    if count > 2:
        inner = (0,) * (len(pages.shape) - dims - 2)
        first_planes = [np.moveaxis(pages[(t, *inner)], -1, 0) for t in range(count)]
        seen = review(first_planes, movie=context > 0)
    check_live(seen, context, choice)
    if len(seen.live) < 2:  # one frame again and again, or none: as it is
        seen = FrameReview(count)
    if numbers is None:
        numbers = range(count)
    return MovieFrames(pages, masks, seen, numbers)


def check_live(seen: FrameReview, context: int, choice: str) -> None:
    """Raise InputError where a network that sees the frames around one cannot be shown them.

    Args:
        seen: what was found.
        context: of the network.
        choice: how frames are chosen, with {} for them.
    """
    line = seen.turns("", choice) if context else ""
    if line:
        raise InputError(line)


def movies_of_picture(
    picture: Picture, axes: Sequence[str], dims: int, context: int
) -> list[MovieFrames]:
    """Find the dead frames of each array of a picture.

    If some frames of a file were chosen (`movie.tif[10:50]`), the network sees the others, too.

    Args:
        picture: as it was opened.
        axes: those of its arrays.
        dims, context: see `movie_of`.

    Returns:
        The frames of each array.
    """
    movies = []
    for i, (values, letters) in enumerate(zip(picture.values, axes, strict=True)):
        array = values.array
        invalid = values.invalid
        numbers = None
        if (
            context
            and isinstance(picture, Selected)
            and len(picture.whole.values) == len(picture.values)
        ):
            whole = picture.whole.values[i]
            frames = picture.frames
            every = slice(frames.start % frames.step, None, frames.step)
            index = (*[slice(None)] * picture.axis, every)
            array = whole.array[index]
            invalid = part_or_none(whole.invalid, index)
            numbers = [t // frames.step for t in frames]
        choice = f"'{picture.path}[{{}}]'"
        movies.append(movie_of(array, letters, dims, context, invalid, numbers, choice))
    return movies


class Files(Sequence[np.ndarray]):
    """The frames of a folder with a file for each, read when they are asked for.

    Args:
        paths: the files, in order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, t: int) -> np.ndarray:  # type: ignore[override]
        picture = opened(self.paths[t])
        values = picture.values[0]
        letters, _ = picture.meaning(values)
        pages = as_pages(values.array, letters)
        if len(pages.shape) > 3:
            raise InputError(f"{self.paths[t]}: holds several frames")
        return np.moveaxis(pages, -1, 0)


def review_files(paths: Sequence[Path], context: int) -> FrameReview:
    """Find the dead frames of a folder.

    Args:
        paths: the files, in order.
        context: frames before and after one that the network sees in its place.

    Returns:
        The dead frames; none if the frames differ in size or cannot be read.

    Raises:
        InputError: they are several channels in turn.
    """
    frames = Files(paths)
    try:
        if len({frames[t].shape for t in (0, len(paths) // 2, len(paths) - 1)}) > 1:
            return FrameReview(len(paths))
        seen = review(frames)
    except (InputError, ValueError):  # said of the file when it is denoised
        return FrameReview(len(paths))
    if len(seen.live) < 2:
        return FrameReview(len(paths))
    check_live(seen, context, f"'{paths[0].parent}[{{}}]'")
    return seen


def _known_values(frame: np.ndarray) -> np.ndarray:
    """Return stored values as floats, NaN where they are none."""
    values = frame.astype(np.float32)
    invalid = invalid_mask(frame, ())
    if invalid is not None:
        values[invalid] = np.nan
    return values


class Series:
    """Files of a folder that are frames of one movie, in the order of their names.

    Args:
        paths: the files.
        context: how many frames before and after one the network sees in its place.

    Attributes:
        places: the number of each file.
        review: which of them are dead, or copies.
        drift: what was undone of the drift, where the network wants that.
    """

    def __init__(self, paths: Sequence[Path], context: int) -> None:
        self.paths = sorted(paths, key=natural)
        self.places = {path: t for t, path in enumerate(self.paths)}
        self.review = review_files(self.paths, context)
        self.drift = DriftSummary()
        self._drift_told = False

    @cached_property
    def positions(self) -> dict[int, np.ndarray]:
        """How far the scene has moved in each live frame; none where they differ in size."""
        frames = Files(self.paths)
        try:
            measured = positions_of(_known_values(frames[t]) for t in self.review.live)
        except (InputError, ValueError):  # said of the file when it is denoised
            return {}
        self.drift.add(measured)
        return dict(zip(self.review.live, measured, strict=True))

    def dead(self, path: Path) -> str:
        """Return why a file is no frame of the movie; empty if it is one."""
        return self.review.dead.get(self.places.get(path, -1), "")

    def lines(self) -> list[str]:
        """Return what was undone of the drift, the first time."""
        if not self.drift.moved or self._drift_told:
            return []
        self._drift_told = True
        return [self.drift.line()]

    def moves(self, path: Path, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """Return how far frames are moved onto the one of a file; see registration.way_onto."""
        place = self.places[path]
        onto = self.positions.get(self.review.copies.get(place, place))
        if onto is None:
            return []
        return [way_onto(self.positions[t], onto) for t in numbers]


def series_of(jobs: Sequence[Job], context: int) -> dict[Path, Series]:
    """Return the movies of folders with several files.

    Args:
        jobs: the files, each a frame.
        context: frames before and after one that the network sees in its place.

    Returns:
        The movie of each folder.
    """
    folders: dict[Path, list[Path]] = {}
    for job in jobs:
        folders.setdefault(job.source.parent, []).append(job.source)
    for job in jobs:
        if job.series:
            folders[job.source.parent] = list(job.series)
    movies = {}
    for folder, paths in folders.items():
        if len(paths) > 1:
            movies[folder] = Series(paths, context)
    return movies
