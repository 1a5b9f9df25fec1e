"""Reading movies: frames that follow one another, in a file or a folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from n2n_lightning.arrays.frame_checks import FrameReview, review
from n2n_lightning.data.file_matching import is_file, listing
from n2n_lightning.data.reading_files import kind, layout_of, read_all
from n2n_lightning.data.scene_set import EqualSizeScenes, MixedSizeScenes, SceneSet
from n2n_lightning.data.units import stored_as
from n2n_lightning.files import InputError, option

# of bursts in all; with more, scenes with a blank capture are left out whole
MAX_CAPTURES_REVIEWED = 4000


def read_movies(
    noisy: str, layout: str = "auto", exclude: Sequence[str] = (), dims: int = 2
) -> SceneSet:
    """Read movies as scenes whose captures are their frames, in order.

    Args:
        noisy: a file with a movie, a folder of such files, of folders with the frames of a movie
            each, or of frames.
        layout: the axes of the arrays; all that are not C, H and W are frames.
        exclude: patterns of names that are left out.
        dims: 3 for movies of volumes.

    Returns:
        The movies, with the layout of the first array.

    Raises:
        InputError: they cannot be read, are not alike, or have fewer than two frames.
    """
    scenes = _movies_of(noisy, layout, exclude, dims)
    return replace(scenes, layout=layout_of(noisy, layout, exclude, dims, "stack"))


def _movies_of(
    noisy: str,
    layout: str,
    exclude: Sequence[str],
    dims: int,
) -> SceneSet:
    """Read movies, see read_movies, without their layout."""
    dropped: tuple[str, ...] = ()
    labels: dict[str, list[str]] = {}
    if is_file(noisy):
        stored = stored_as([noisy])
        movies = {noisy: _frames_of(noisy, layout, dims, stored.physical)}
    else:
        listed = listing(Path(noisy), exclude)
        dropped = listed.dropped
        stored = stored_as(listed.files)
        stacks = {path: _frames_of(path, layout, dims, stored.physical) for path in listed.files}
        if all(len(frames) > 1 for frames in stacks.values()):
            movies = {str(path): frames for path, frames in stacks.items()}
        else:
            movies, labels = _movies_of_folders(stacks)
    for name, frames in movies.items():
        if len(frames) < 2:
            raise InputError(f"{name}: holds one frame; a movie has two or more")
    kinds = {(frames.shape[1], frames.dtype) for frames in movies.values()}
    if len(kinds) > 1:
        raise InputError(f"{noisy}: its movies differ in type or channels")
    scenes = _as_scenes(list(movies), list(movies.values()))
    return replace(
        scenes,
        nodata_values=stored.nodata_values,
        unit=stored.unit,
        frame_names=list(labels.values()) if labels else None,
        dropped=dropped,
    )


def _movies_of_folders(
    stacks: dict[Path, Tensor],
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Join the frames of each folder to a movie; also return the file name of each frame."""
    frames: dict[Path, list[Tensor]] = {}
    labels: dict[str, list[str]] = {}
    for path, stack in stacks.items():
        frames.setdefault(path.parent, []).extend(stack)
        folder_labels = labels.setdefault(str(path.parent), [])
        folder_labels += [path.name] * len(stack)
    movies = {}
    for folder, images in frames.items():
        movies[str(folder)] = _joined(folder, images)
    return movies, labels


def _as_scenes(names: list[str], movies: list[Tensor]) -> SceneSet:
    """Return movies (T, C, H, W) as scenes; one alone stays mapped as it is."""
    if len({frames.shape[1:] for frames in movies}) > 1:
        return MixedSizeScenes([list(frames) for frames in movies], names)
    whole = movies[0] if len(movies) == 1 else torch.cat(movies)
    counts = torch.tensor([len(frames) for frames in movies])
    return EqualSizeScenes([whole], names, counts)


def _frames_of(
    path: str | Path,
    layout: str,
    dims: int,
    physical: bool,
) -> Tensor:
    """Read all images of a file, in order: (T, C, H, W)."""
    stacks = read_all(
        path,
        layout,
        stack=True,
        dims=dims,
        physical=physical,
    )
    return stacks[0] if len(stacks) == 1 else torch.cat(stacks)


def _joined(folder: Path, frames: list[Tensor]) -> Tensor:
    """Return frames of a folder, (C, H, W) each, as one tensor."""
    first = frames[0]
    for frame in frames:
        if frame.shape != first.shape or frame.dtype != first.dtype:
            raise InputError(f"{folder}: its frames differ, {kind(frame)} and {kind(first)}")
    return torch.stack(frames)


def usable_frames(
    scenes: SceneSet, chosen: slice | None = None
) -> tuple[SceneSet, list[FrameReview]]:
    """Leave the dead frames and the copies of movies out; no frame is copied.

    Args:
        scenes: movies, whose captures are their frames.
        chosen: the frames that may be targets; None: all. The frames around them come from all of
            the movie, with a step from all that are whole steps away.

    Returns:
        The movies, and a review of each, with frames numbered as in the movie.

    Raises:
        InputError: a movie has fewer than two frames that can be used, or `chosen` takes none of
            it.
    """
    live_frames = []
    targets = []
    reviews = []
    for i, count in enumerate(scenes.counts_of_all):
        wanted, every = frames_read(count, chosen)
        if not wanted:
            raise InputError(
                f"{scenes.names[i]}: has {count} frames,"
                f" and {option('data.frames')} chooses none of them"
            )
        frames = [scenes.image(i, k).numpy() for k in every]
        seen = renumbered(review(frames), every, count)
        live = live_frames_of(seen, chosen)
        if len(live) < 2:
            raise InputError(
                f"{scenes.names[i]}: has {len(live)} frames that can be used;"
                " a movie needs two or more"
            )
        live_frames.append(torch.tensor(live))
        targets.append(torch.tensor([k in wanted for k in live]))
        reviews.append(seen)
    return scenes.keep(live_frames, targets if chosen else None), reviews


def frames_read(count: int, chosen: slice | None) -> tuple[range, range]:
    """Return the frames of a movie that may be targets, and those that are read.

    Args:
        count: all frames.
        chosen: see `usable_frames`.

    Returns:
        Their numbers; with a step, those that are read are whole steps away.
    """
    wanted = range(count)[chosen] if chosen else range(count)
    return wanted, range(wanted.start % wanted.step, count, wanted.step)


def live_frames_of(seen: FrameReview, chosen: slice | None) -> list[int]:
    """Return the frames that are used: those read, but for dead ones and copies.

    Args:
        seen: the review, numbered as in the movie.
        chosen: see `usable_frames`.

    Returns:
        Their numbers in the movie.
    """
    _, every = frames_read(seen.count, chosen)
    return [k for k in every if k not in seen.dead and k not in seen.copies]


def renumbered(
    seen: FrameReview,
    every: range,
    count: int,
) -> FrameReview:
    """Number the frames of a review as in their movie.

    Args:
        seen: the review of some of its frames.
        every: the numbers of these frames.
        count: frames of the movie; the others were not reviewed.

    Returns:
        The same review.
    """
    dead = {every[t]: reason for t, reason in seen.dead.items()}
    copies = {every[t]: every[first] for t, first in seen.copies.items()}
    return replace(
        seen,
        count=count,
        dead=dead,
        copies=copies,
    )


def usable_captures(scenes: SceneSet) -> tuple[SceneSet, list[str]]:
    """Leave the dead captures of bursts out, where a scene keeps two or more; none is copied.

    Those that are not read as a whole (RegionTensor) are not looked at.

    Args:
        scenes: captures of scenes.

    Returns:
        The scenes, and what was left out, in words.
    """
    counts = scenes.counts_of_all
    if max(counts) < 3 or sum(counts) > MAX_CAPTURES_REVIEWED or scenes.in_place:
        return scenes, []
    live_captures = []
    lines = []
    for i, count in enumerate(counts):
        live = list(range(count))
        if count > 2:
            captures = [scenes.image(i, k).numpy() for k in live]
            seen = review(captures, movie=False)
            if 1 < len(seen.live) < count:
                live = seen.live
                lines += seen.lines(scenes.names[i].removesuffix(", image 0"))
        live_captures.append(torch.tensor(live))
    return (scenes.keep(live_captures), lines) if lines else (scenes, [])
