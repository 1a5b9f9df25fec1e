"""Reading images of any kind into tensors (N, C, H, W): one file with many, or a folder with one each.

Values keep their type (8 and 16 bit integers, floats). Arrays in .npy, plain TIFF and contiguous HDF5 files are mapped
into memory, not copied, so that they may be larger than it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from n2n_lightning import axes
from n2n_lightning.data.captures import Mixed, Scenes
from n2n_lightning.data.naming import grouped, matched, pictures
from n2n_lightning.files import InputError
from n2n_lightning.formats import PICTURES, Picture, Values, opened


class Single(InputError):
    """There is one capture of each scene, where two or more are needed."""


def read_array(path: str | Path, layout: str = "auto") -> list[Tensor]:
    """The captures in one file: a list of K tensors (N, C, H, W).

    Args:
        path: a file of any kind in n2n_lightning.formats. For a file with several arrays, the array's name follows a
            colon: `data.h5:noisy`.
        layout: the meaning of the array's axes, a permutation of letters of NKCHW: N scenes, K captures of each, C
            channels, H height, W width. `auto` takes what the file says, or else HW, NHW, NCHW or NHWC, NKCHW or
            NKHWC, with 1 to 4 channels.

    Raises:
        InputError: the file is missing, damaged, of another kind, or its axes are not clear.
    """
    picture = opened(str(path))
    captures = [capture for values in _stacked(picture) for capture in _captures(values, layout, picture.path)]
    if len({capture.shape for capture in captures}) > 1:
        raise InputError(f"{path}: its captures differ in shape: {', '.join(str(tuple(c.shape)) for c in captures)}")
    return captures


def _stacked(picture: Picture) -> list[Values]:
    """The arrays of a file; those of a TIFF, which are pages, as one."""
    first, *more = picture.values
    if not more or picture.tuples:
        return picture.values
    if any((v.array.shape, v.array.dtype, v.axes) != (first.array.shape, first.array.dtype, first.axes) for v in more):
        raise InputError(f"{picture.path}: its pages differ in size or type; make them alike, or a file each")
    return [Values(np.stack([v.array for v in picture.values]), f"N{first.axes}", first.alpha, first.colour)]


def _captures(values: Values, layout: str, path: Path) -> list[Tensor]:
    """The captures (N, C, H, W) in an array of a file."""
    shape = values.array.shape
    if layout == "auto":
        layout = values.axes or axes.of_scenes(shape) or ""
        if not layout:
            raise InputError(
                f"{path}: what are the axes of its shape {shape}? say it as data.layout=NCHW (or NHWC, NKHW, ...)"
            )
    elif not axes.fits(layout, shape, axes.LAYOUT):
        raise InputError(
            f"data.layout={layout}: does not fit {path} of shape {shape}; use one letter of {axes.LAYOUT} per axis"
        )
    found: list[Tensor] = axes.as_captures(_tensor(values.array), layout)
    # Transparency is no picture. Where the file does not say what the channels are, all of them are trained on.
    return [capture[:, :-1] for capture in found] if values.alpha and "C" in layout else found


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))


def read_picture(path: Path) -> Tensor:
    """One image file as (C, H, W), in its own type, turned as EXIF says; an alpha channel is left out.

    Raises:
        InputError: the file is damaged, or holds no single image.
    """
    picture = opened(path)
    (values, *more) = _stacked(picture)
    values.axes = values.axes or axes.of_one_image(values.array.shape)
    (images, *others) = _captures(values, "auto", path)
    if more or others or len(images) != 1:
        raise InputError(f"{path}: holds {len(images)} images; a file in a folder should hold one")
    upright: Tensor = axes.upright(images[0], picture.orientation)
    return upright.clone()


def read_images(paths: Sequence[Path]) -> list[Tensor]:
    """Images of one type and number of channels, (C, H, W) each.

    Raises:
        InputError: one cannot be read, or is of another kind than the first.
    """
    images = [read_picture(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if len(image) != len(images[0]) or image.dtype != images[0].dtype:
            raise InputError(f"{path}: is {kind(image)}, but {paths[0].name} is {kind(images[0])}; they must be alike")
    return images


def read_folder(paths: Sequence[Path]) -> Tensor:
    """Images of one size and type as one tensor (N, C, H, W)."""
    images = read_images(paths)
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(f"{path}: is {kind(image)}, but {paths[0].name} is {kind(images[0])}; they must be alike")
    return torch.stack(images)


def kind(image: Tensor) -> str:
    """Size and type of an image (C, H, W), in words.

    >>> kind(torch.zeros(3, 480, 640))
    '3x480x640 float32'
    """
    return f"{'x'.join(str(n) for n in image.shape)} {str(image.dtype)[6:]}"


def read_scenes(
    noisy: str, target: str | None = None, layout: str = "auto", exclude: Sequence[str] = ()
) -> Scenes | Mixed:
    """All captures of all scenes, from one or two files or folders; see docs/data.md for what they may be.

    Args:
        noisy, target, layout: see data.OwnPairs.
        exclude: patterns of names of files that are no captures.

    Raises:
        InputError: they cannot be read, or do not fit one another.
    """
    folder = Path(noisy)
    if not folder.is_dir():
        return _from_files(noisy, target, layout)
    if target is not None:
        pairs = matched(folder, Path(target), exclude)
        return _from_images([list(pair) for pair in pairs], [str(a) for a, _ in pairs])
    found = dict.fromkeys(path.parent for path in pictures(folder, exclude, deep=True))  # in natural order
    scenes = [scene for scene in found if scene != folder]
    if scenes:
        files = [pictures(scene, exclude) for scene in scenes]
        for scene, captures in zip(scenes, files, strict=True):
            if len(captures) < 2:
                raise Single(f"{scene}: holds {len(captures)} images; a scene needs two captures or more")
        return _from_images(files, [str(scene) for scene in scenes])
    paths = pictures(folder, exclude)
    if not paths:
        raise InputError(f"{folder}: holds no images ({', '.join(sorted(PICTURES))})")
    if bursts := _bursts(paths, layout):
        return bursts
    if groups := grouped(paths):
        return _from_images(groups, [str(group[0]) for group in groups])
    raise Single(
        f"{folder}: has no folders in it, one per scene with its captures, no stacks, and no names that pair"
        " (cell1_1.tif, cell1_2.tif); for two folders of single images name the other one with data.target="
    )


def read_single(noisy: str, layout: str = "auto", exclude: Sequence[str] = ()) -> Scenes | Mixed:
    """Images of which each is the only one of its scene: of a file, or of all files of a folder and those below it.

    Args:
        noisy, layout, exclude: as of `read_scenes`; captures in one file are taken for different scenes.

    Raises:
        InputError: they cannot be read, or are not alike in type and channels.
    """
    folder = Path(noisy)
    if not folder.is_dir():
        captures = read_array(noisy, layout)
        images = torch.cat(captures) if len(captures) > 1 else captures[0]
        return Scenes([images], [f"{noisy}, image {i}" for i in range(len(images))], None, _declared([noisy]))
    paths = pictures(folder, exclude, deep=True)
    if not paths:
        raise InputError(f"{folder}: holds no images ({', '.join(sorted(PICTURES))})")
    found: list[Tensor] = []
    names: list[str] = []
    for path in paths:
        here = [image for capture in _all_of(path, layout) for image in capture]
        if found and (len(here[0]) != len(found[0]) or here[0].dtype != found[0].dtype):
            raise InputError(f"{path}: is {kind(here[0])}, but {paths[0].name} is {kind(found[0])}; they must be alike")
        found += here
        names += [str(path)] if len(here) == 1 else [f"{path}, image {i}" for i in range(len(here))]
    fills = _declared(paths[:1])
    if len({image.shape for image in found}) > 1:
        return Mixed([[image] for image in found], names, fills)
    return Scenes([torch.stack(found)], names, None, fills)


def read_movies(noisy: str, layout: str = "auto", exclude: Sequence[str] = ()) -> Scenes | Mixed:
    """Movies as scenes whose captures are their frames, in order.

    Args:
        noisy: a file with a movie, a folder of such files, of folders with the frames of a movie each, or of frames.
        layout: the axes of the arrays; all that are not C, H and W are frames.
        exclude: patterns of names that are left out.

    Raises:
        InputError: they cannot be read, are not alike, or have fewer than two frames.
    """
    place = Path(noisy)
    if not place.is_dir():
        found = {noisy: _frames(noisy, layout)}
    else:
        paths = pictures(place, exclude, deep=True)
        if not paths:
            raise InputError(f"{place}: holds no images ({', '.join(sorted(PICTURES))})")
        each = {path: _frames(path, layout) for path in paths}
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
    fills = _declared([noisy] if not place.is_dir() else paths[:1])
    shapes = {(frames.shape[1:], frames.dtype) for frames in found.values()}
    if len({(shape[0], dtype) for shape, dtype in shapes}) > 1:
        raise InputError(f"{noisy}: its movies differ in type or channels")
    if len(shapes) > 1:
        return Mixed([list(frames) for frames in found.values()], list(found), fills)
    movies = list(found.values())
    whole = movies[0] if len(movies) == 1 else torch.cat(movies)  # one stays mapped as it is
    return Scenes([whole], list(found), torch.tensor([len(frames) for frames in movies]), fills)


def _frames(path: str | Path, layout: str) -> Tensor:
    """All images of a file, in order: (T, C, H, W)."""
    found = _all_of(path, layout, stack=True)
    return found[0] if len(found) == 1 else torch.cat(found)


def _alike(folder: Path, frames: list[Tensor]) -> Tensor:
    """Frames of a folder, (C, H, W) each, as one tensor."""
    for frame in frames:
        if frame.shape != frames[0].shape or frame.dtype != frames[0].dtype:
            raise InputError(f"{folder}: its frames differ, {kind(frame)} and {kind(frames[0])}")
    return torch.stack(frames)


def _all_of(path: str | Path, layout: str, stack: bool = False) -> list[Tensor]:
    """All images of a file, a picture or a stack of them, (N, C, H, W) each; of three dimensions rather a `stack`."""
    found = []
    picture = opened(str(path))
    for values in _stacked(picture):
        if layout == "auto" and values.axes is None:
            guess = axes.of_scenes(values.array.shape) if stack else None
            values.axes = guess or axes.of_picture(values.array.shape)
        found += _captures(values, layout, picture.path)
    return found


def _from_files(noisy: str, target: str | None, layout: str) -> Scenes:
    """Scenes from one or two files with all captures."""
    frames = read_array(noisy, layout)
    if target is not None:
        frames = [*frames, *read_array(target, layout)]
    if len({f.shape for f in frames}) > 1:
        shapes = " and ".join(dict.fromkeys(str(tuple(f.shape)) for f in frames))
        raise InputError(f"{noisy} and {target} differ in shape: {shapes}")
    if len(frames) < 2:
        shape = tuple(frames[0].shape)
        raise Single(
            f"{noisy}: holds one capture of each scene, {shape} as (N, C, H, W); name the file with the other ones"
            " with data.target=, or say where the captures are with data.layout=NKHW"
        )
    return Scenes(frames, [f"{noisy}, image {i}" for i in range(len(frames[0]))], None, _declared([noisy]))


def _from_images(scenes: Sequence[Sequence[Path]], names: list[str]) -> Scenes | Mixed:
    """Scenes whose captures are a file each."""
    paths = [path for captures in scenes for path in captures]
    images = iter(read_images(paths))
    found = [[next(images) for _ in captures] for captures in scenes]
    for captures, group in zip(scenes, found, strict=True):
        for path, image in zip(captures, group, strict=True):
            if image.shape != group[0].shape:
                raise InputError(f"{path}: is {kind(image)}, but its partner {captures[0]} is {kind(group[0])}")
    return together(found, names, _declared(paths[:1]))


def _bursts(paths: Sequence[Path], layout: str) -> Scenes | Mixed | None:
    """Stacks, each the captures of a scene; None where a file is none."""
    found = []
    for path in paths:
        picture = opened(path)
        values = _stacked(picture)[0]
        if layout == "auto" and values.axes is None:
            return None  # an array of which nobody knows whether it is a stack or has channels
        captures = _captures(values, layout, path)
        images = list(captures[0]) if len(captures) == 1 else [capture[0] for capture in captures]
        if len(images) < 2:
            return None
        found.append([image.clone() for image in images])
    return together(found, [str(path) for path in paths], _declared(paths[:1])) if found else None


def together(images: list[list[Tensor]], names: list[str], fills: tuple[float, ...] = ()) -> Scenes | Mixed:
    """Captures of scenes, (C, H, W) each, in the form that suits their sizes and numbers."""
    if len({image.shape for captures in images for image in captures}) > 1:
        return Mixed(images, names, fills)
    counts = [len(captures) for captures in images]
    if set(counts) == {2}:
        return Scenes([torch.stack([captures[k] for captures in images]) for k in (0, 1)], names, None, fills)
    return Scenes([torch.stack([i for captures in images for i in captures])], names, torch.tensor(counts), fills)


def _declared(paths: Sequence[str | Path]) -> tuple[float, ...]:
    """The values that files say mean "no data"."""
    return tuple(sorted({fill for path in paths for values in opened(str(path)).values for fill in values.fills}))
