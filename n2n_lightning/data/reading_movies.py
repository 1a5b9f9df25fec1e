"""Reading movies: frames that follow one another, in a file or a folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from n2n_lightning.arrays.frame_checks import FrameReview, review
from n2n_lightning.data.file_matching import is_file, listing
from n2n_lightning.data.reading import kind, layout_of, read_all
from n2n_lightning.data.scenes import EqualSizeScenes, MixedSizeScenes, SceneSet
from n2n_lightning.data.units import stored_as
from n2n_lightning.files import InputError, option

# captures of bursts that are looked at; with more, scenes with a blank capture are left out whole
MOST = 4000


def read_movies(
    noisy: str, layout: str = "auto", exclude: Sequence[str] = (), dims: int = 2
) -> SceneSet:
    """Movies as scenes whose captures are their frames, in order.

    Args:
        noisy: a file with a movie, a folder of such files, of folders with the frames of a movie
            each, or of frames.
        layout: the axes of the arrays; all that are not C, H and W are frames.
        exclude: patterns of names that are left out.
        dims: 3 for movies of volumes.

    Raises:
        InputError: they cannot be read, are not alike, or have fewer than two frames.
    """
    scenes = _movies_of(noisy, layout, exclude, dims)
    scenes.layout = layout_of(noisy, layout, exclude, dims, "stack")
    return scenes


def _movies_of(noisy: str, layout: str, exclude: Sequence[str], dims: int) -> SceneSet:
    place = Path(noisy)
    dropped: tuple[str, ...] = ()
    labels: dict[str, list[str]] = {}
    if is_file(noisy):
        stored = stored_as([noisy])
        found = {noisy: _frames(noisy, layout, dims, stored.physical)}
    else:
        listed = listing(place, exclude)
        paths, dropped = listed.files, listed.dropped
        stored = stored_as(paths)
        each = {path: _frames(path, layout, dims, stored.physical) for path in paths}
        if all(len(frames) > 1 for frames in each.values()):
            found = {str(path): frames for path, frames in each.items()}
        else:  # frames of their own, a movie in each folder
            folders: dict[Path, list[Tensor]] = {}
            for path, frames in each.items():
                folders.setdefault(path.parent, []).extend(frames)
                labels.setdefault(str(path.parent), []).extend([path.name] * len(frames))
            found = {str(folder): _alike(folder, frames) for folder, frames in folders.items()}
    for name, frames in found.items():
        if len(frames) < 2:
            raise InputError(f"{name}: holds one frame; a movie has two or more")
    shapes = {(frames.shape[1:], frames.dtype) for frames in found.values()}
    if len({(shape[0], dtype) for shape, dtype in shapes}) > 1:
        raise InputError(f"{noisy}: its movies differ in type or channels")
    names = list(labels.values()) if labels else None
    if len(shapes) > 1:
        mixed = [list(frames) for frames in found.values()]
        return MixedSizeScenes(
            mixed,
            list(found),
            stored.nodata_values,
            stored.unit,
            frame_names=names,
            dropped=dropped,
        )
    movies = list(found.values())
    whole = movies[0] if len(movies) == 1 else torch.cat(movies)  # one stays mapped as it is
    lengths = torch.tensor([len(frames) for frames in movies])
    scenes = EqualSizeScenes([whole], list(found), lengths, stored.nodata_values, stored.unit)
    return replace(scenes, frame_names=names, dropped=dropped)


def _frames(path: str | Path, layout: str, dims: int, physical: bool) -> Tensor:
    """All images of a file, in order: (T, C, H, W)."""
    found = read_all(path, layout, stack=True, dims=dims, physical=physical)
    return found[0] if len(found) == 1 else torch.cat(found)


def _alike(folder: Path, frames: list[Tensor]) -> Tensor:
    """Frames of a folder, (C, H, W) each, as one tensor."""
    for frame in frames:
        if frame.shape != frames[0].shape or frame.dtype != frames[0].dtype:
            raise InputError(f"{folder}: its frames differ, {kind(frame)} and {kind(frames[0])}")
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
        The movies, and what was found in each, numbered as in the movie.

    Raises:
        InputError: a movie has fewer than two frames that can be used, or `chosen` takes none of
            it.
    """
    kept, targets, reviews = [], [], []
    for i, count in enumerate(scenes.captures(torch.arange(len(scenes.names))).tolist()):
        wanted = range(count)[chosen] if chosen else range(count)
        if not wanted:
            raise InputError(
                f"{scenes.names[i]}: has {count} frames, and {option('data.frames')} chooses none"
                " of them"
            )
        every = range(wanted.start % wanted.step, count, wanted.step)
        seen = renumbered(review([scenes.image(i, k).numpy() for k in every]), every, count)
        live = [k for k in every if k not in seen.dead and k not in seen.copies]
        if len(live) < 2:
            raise InputError(
                f"{scenes.names[i]}: has {len(live)} frames that can be used; a movie needs two"
                " or more"
            )
        kept.append(torch.tensor(live))
        targets.append(torch.tensor([k in wanted for k in live]))
        reviews.append(seen)
    return only(scenes, kept, targets if chosen else None), reviews


def renumbered(seen: FrameReview, every: range, count: int) -> FrameReview:
    """A review of some of `count` frames, with their numbers in the movie; the others are not looked at."""
    dead = {every[t]: reason for t, reason in seen.dead.items()}
    copies = {every[t]: every[first] for t, first in seen.copies.items()}
    return replace(seen, count=count, dead=dead, copies=copies)


def only(scenes: SceneSet, kept: list[Tensor], targets: list[Tensor] | None = None) -> SceneSet:
    """Some captures of each scene, not copied.

    Args:
        scenes: captures of scenes.
        kept: of each scene the numbers of the captures that stay, two or more.
        targets: whether each of these may be a target; None: all may.
    """
    if isinstance(scenes, MixedSizeScenes) or scenes.counts is None:
        everything = torch.arange(len(scenes.names))
        counts = scenes.captures(everything).tolist()
        if targets is None and all(len(k) == count for k, count in zip(kept, counts, strict=True)):
            return scenes
        images = [[scenes.image(i, k) for k in numbers.tolist()] for i, numbers in enumerate(kept)]
        mixed = MixedSizeScenes(images, scenes.names, scenes.nodata_values, scenes.unit)
        return replace(mixed, targets=targets, dropped=scenes.dropped)
    starts = scenes.counts.cumsum(0) - scenes.counts
    places = torch.cat([start + numbers for start, numbers in zip(starts, kept, strict=True)])
    lengths = torch.tensor([len(numbers) for numbers in kept])
    rows = places if scenes.rows is None else scenes.rows[places]
    asked = None if targets is None else torch.cat(targets)
    return replace(scenes, counts=lengths, rows=rows, targets=asked, frame_names=None)


def usable_captures(scenes: SceneSet) -> tuple[SceneSet, list[str]]:
    """Leave the dead captures of bursts out, where a scene keeps two or more; none is copied.

    Args:
        scenes: captures of scenes.

    Returns:
        The scenes, and what was left out, in words.
    """
    counts = scenes.captures(torch.arange(len(scenes.names))).tolist()
    if max(counts) < 3 or sum(counts) > MOST:
        return scenes, []
    kept, lines = [], []
    for i, count in enumerate(counts):
        seen = FrameReview(count)
        if count > 2:
            seen = review([scenes.image(i, k).numpy() for k in range(count)], movie=False)
        kept.append(torch.tensor(seen.live if len(seen.live) > 1 else range(count)))
        if 1 < len(seen.live) < count:
            lines += seen.lines(scenes.names[i].removesuffix(", image 0"))
    return (only(scenes, kept), lines) if lines else (scenes, [])
