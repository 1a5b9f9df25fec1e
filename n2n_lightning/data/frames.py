"""Reading movies: frames that follow one another, in a file or a folder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from n2n_lightning.data.captures import Mixed, Scenes
from n2n_lightning.data.naming import pictures
from n2n_lightning.data.reading import all_of, kind, layout_of
from n2n_lightning.data.units import stored_as
from n2n_lightning.files import InputError
from n2n_lightning.formats import PICTURES, is_one


def read_movies(noisy: str, layout: str = "auto", exclude: Sequence[str] = (), dims: int = 2) -> Scenes | Mixed:
    """Movies as scenes whose captures are their frames, in order.

    Args:
        noisy: a file with a movie, a folder of such files, of folders with the frames of a movie each, or of frames.
        layout: the axes of the arrays; all that are not C, H and W are frames.
        exclude: patterns of names that are left out.
        dims: 3 for movies of volumes.

    Raises:
        InputError: they cannot be read, are not alike, or have fewer than two frames.
    """
    scenes = _movies_of(noisy, layout, exclude, dims)
    scenes.layout = layout_of(noisy, layout, exclude, dims, "stack")
    return scenes


def _movies_of(noisy: str, layout: str, exclude: Sequence[str], dims: int) -> Scenes | Mixed:
    place = Path(noisy)
    if is_one(place):
        stored = stored_as([noisy])
        found = {noisy: _frames(noisy, layout, dims, stored.physical)}
    else:
        paths = pictures(place, exclude, deep=True)
        if not paths:
            raise InputError(f"{place}: holds no images ({', '.join(sorted(PICTURES))})")
        stored = stored_as(paths)
        each = {path: _frames(path, layout, dims, stored.physical) for path in paths}
        if all(len(frames) > 1 for frames in each.values()):
            found = {str(path): frames for path, frames in each.items()}
        else:  # frames of their own, a movie in each folder
            folders: dict[Path, list[Tensor]] = {}
            for path, frames in each.items():
                folders.setdefault(path.parent, []).extend(frames)
            found = {str(folder): _alike(folder, frames) for folder, frames in folders.items()}
    for name, frames in found.items():
        if len(frames) < 2:
            raise InputError(f"{name}: holds one frame; a movie has two or more")
    shapes = {(frames.shape[1:], frames.dtype) for frames in found.values()}
    if len({(shape[0], dtype) for shape, dtype in shapes}) > 1:
        raise InputError(f"{noisy}: its movies differ in type or channels")
    if len(shapes) > 1:
        return Mixed([list(frames) for frames in found.values()], list(found), stored.fills, stored.unit)
    movies = list(found.values())
    whole = movies[0] if len(movies) == 1 else torch.cat(movies)  # one stays mapped as it is
    return Scenes([whole], list(found), torch.tensor([len(frames) for frames in movies]), stored.fills, stored.unit)


def _frames(path: str | Path, layout: str, dims: int, physical: bool) -> Tensor:
    """All images of a file, in order: (T, C, H, W)."""
    found = all_of(path, layout, stack=True, dims=dims, physical=physical)
    return found[0] if len(found) == 1 else torch.cat(found)


def _alike(folder: Path, frames: list[Tensor]) -> Tensor:
    """Frames of a folder, (C, H, W) each, as one tensor."""
    for frame in frames:
        if frame.shape != frames[0].shape or frame.dtype != frames[0].dtype:
            raise InputError(f"{folder}: its frames differ, {kind(frame)} and {kind(frames[0])}")
    return torch.stack(frames)
