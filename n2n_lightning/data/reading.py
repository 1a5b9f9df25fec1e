"""Reading images of any kind into tensors (N, C, H, W): one file with many, or a folder with one each.

Values keep their type (8 and 16 bit integers, floats). Arrays in .npy, plain TIFF and contiguous
HDF5 files are mapped into memory, not copied, so that they may be larger than it. With `dims=3`
volumes are read, (N, C, D, H, W).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.data.file_matching import (
    Listing,
    grouped,
    half_of,
    halves,
    is_file,
    listing,
    matched,
)
from n2n_lightning.data.scenes import EqualSizeScenes, MixedSizeScenes, SceneSet
from n2n_lightning.data.units import Stored, stored_as
from n2n_lightning.files import InputError, option, room, some_of
from n2n_lightning.formats import Picture, Values, opened
from n2n_lightning.formats.label_images import is_label_image
from n2n_lightning.formats.mosaics import looks_like_one
from n2n_lightning.formats.units import converted

AS_THEY_ARE = Stored()


class SingleCaptures(InputError):
    """There is one capture of each scene, where two or more are needed."""


def spatial_axes(source: str, layout: str = "auto", exclude: Sequence[str] = ()) -> tuple[int, Any]:
    """How many spatial axes the images of a file, or of the first file in a folder, have; and their spacing.

    Three where the layout has a D, or where the format is one of volumes and the file has one;
    pages of a TIFF are images.

    Returns:
        2 or 3, and the distance of neighbouring voxels along D, H and W, or None where the file
        does not say it.
    """
    if not is_file(source):
        source = str(listing(Path(source), exclude).files[0])
    picture = opened(source)
    values = picture.values[0]
    deep = "D" in layout or (layout == "auto" and picture.volumes and "D" in (values.axes or ""))
    return (3 if deep else 2), values.spacing


def refuse_mosaics(source: str, exclude: Sequence[str] = ()) -> str:
    """Look at the first file of a source for the raw frame of a colour camera.

    Returns:
        What to say where it only looks like one; else an empty line.

    Raises:
        InputError: its header says that it is one.
    """
    path = source if is_file(source) else str(listing(Path(source), exclude).files[0])
    values = opened(path).values[0]
    planes = (
        "save its four planes (image[::2, ::2], image[::2, 1::2], ...) as pictures to train on them"
    )
    if values.mosaic:
        raise InputError(
            f"{path}: is a raw frame of a colour camera ({values.mosaic}), whose neighbours have"
            f" different colours; {planes}; denoise takes it as it is"
        )
    if len(values.shape) == 2 and looks_like_one(values.array, "HW"):
        return f"{Path(path).name}: has a period of 2 pixels, as a colour camera's raw frame has; if it is one, {planes}"
    return ""


def read_array(
    path: str | Path, layout: str = "auto", dims: int = 2, physical: bool = False
) -> list[Tensor]:
    """The captures in one file: a list of K tensors (N, C, H, W).

    Args:
        path: a file of any kind in n2n_lightning.formats. For a file with several arrays, the
            array's name follows a colon: `data.h5:noisy`.
        layout: the meaning of the array's axes, a permutation of letters of NKTCDHW: N scenes, K
            captures of each, T frames, C channels, D depth, H height, W width. It counts for more
            than what the file says. `auto` takes what the file says, or else HW, NHW, HWC
            (axes.bands), NCHW or NHWC, NKCHW or NKHWC, with 1 to 4 channels.
        dims: 3 for volumes, (N, C, D, H, W).
        physical: convert stored values by the file's factor and offset, to float32 (data.units).

    Raises:
        InputError: the file is missing, damaged, of another kind, or its axes are not clear.
    """
    picture = opened(str(path))
    arrays = _stacked(picture, physical)
    captures = [
        capture for values in arrays for capture in _captures(values, layout, picture.path, dims)
    ]
    if len({capture.shape for capture in captures}) > 1:
        raise InputError(
            f"{path}: its captures differ in shape:"
            f" {', '.join(str(tuple(c.shape)) for c in captures)}"
        )
    return captures


def _stacked(picture: Picture, physical: bool = False) -> list[Values]:
    """The arrays of a file; those of a TIFF, which are pages, as one."""
    if physical:
        picture.values = [converted(values) for values in picture.values]
    first, *more = picture.values
    if not more or picture.tuples:
        return picture.values
    if any((v.shape, v.dtype, v.axes) != (first.shape, first.dtype, first.axes) for v in more):
        raise InputError(
            f"{picture.path}: its pages differ in size or type; make them alike, or a file each"
        )
    invalid = None
    if any(v.invalid is not None for v in picture.values):
        each = [np.zeros(v.shape, bool) if v.invalid is None else v.invalid for v in picture.values]
        invalid = np.stack(each)
    pixels = np.stack([v.array for v in picture.values])
    return [Values(pixels, f"N{first.axes}", first.alpha, first.colour, invalid=invalid)]


def _captures(values: Values, layout: str, path: Path, dims: int = 2) -> list[Tensor]:
    """The captures (N, C, H, W) in an array of a file."""
    layout = letters_of(values, layout, path, dims)
    found: list[Tensor] = axes.as_captures(_tensor(values.measured), layout, dims)
    # Transparency is no picture. Where the file does not say what the channels are, all of them are
    # trained on.
    opaque = values.alpha and axes.same_channels(layout, values.axes or layout)
    return [capture[:, :-1] for capture in found] if opaque else found


def letters_of(values: Values, layout: str, path: Path, dims: int = 2) -> str:
    """The letters by which an array of a file is read.

    Raises:
        InputError: the layout does not fit it, or there is no telling.
    """
    shape = values.shape
    if layout == "auto":
        found = values.axes or (axes.of_volumes if dims == 3 else axes.of_scenes)(shape) or ""
        if not found:
            raise InputError(
                f"{path}: what are the axes of its shape {shape}? say it as"
                f" {option('data.layout', 'NCHW')} (or NHWC, NKHW, ...)"
            )
        return axes.in_space(found) if dims == 3 else found
    said = axes.fitted(layout, shape, values.full, axes.LAYOUT)
    if said is None:
        raise InputError(
            "data.layout",
            layout,
            f"does not fit {path} of shape {shape}; {axes.suggested(shape)} (one letter of"
            f" {axes.LAYOUT} per axis)",
        )
    return said


def layout_of(noisy: str, layout: str, exclude: Sequence[str], dims: int, kind: str) -> axes.Layout:
    """How the first array of a file or folder is read, for messages and for the checkpoint.

    Args:
        noisy, layout, exclude, dims: as of `read_scenes`.
        kind: what a file of a folder holds: `image` (read_picture), `picture` or `stack` (all_of).
    """
    whole = is_file(noisy)
    picture = opened(noisy if whole else listing(Path(noisy), exclude).files[0])
    values = _stacked(picture)[0]
    stated, assumed = values.axes, layout == "auto" and (values.axes is None or values.assumed)
    if layout == "auto" and stated is None and dims == 2 and (kind == "stack" or not whole):
        values.axes = _guessed(values.shape, kind)
    letters = letters_of(values, layout, picture.path, dims)
    return axes.Layout(letters, values.shape, stated, assumed)


def _guessed(shape: tuple[int, ...], kind: str) -> str | None:
    """The letters of an array in a folder, or of a movie, whose file does not state them."""
    if kind == "image":
        return axes.of_one_image(shape)
    return (axes.of_scenes(shape) if kind == "stack" else None) or axes.of_picture(shape)


def _tensor(array: np.ndarray) -> Tensor:
    """An array as a tensor, in the machine's own order of bytes; large ones are turned on the disk."""
    if not array.dtype.isnative:
        native = room(array.shape, array.dtype.newbyteorder("="))
        for part in range(len(array)):
            native[part] = array[part]
        array = native
    return torch.from_numpy(array)


def read_picture(path: Path, dims: int = 2, physical: bool = False, layout: str = "auto") -> Tensor:
    """One image file as (C, H, W), in its own type, turned as EXIF says; an alpha channel is left out.

    With `dims=3` a volume, (C, D, H, W), which stays mapped where it can be. `physical`: see
    read_array.

    Raises:
        InputError: the file is damaged, or holds no single image.
    """
    picture = opened(path)
    (values, *more) = _stacked(picture, physical)
    if dims == 2 and layout == "auto":
        values.axes = values.axes or _guessed(values.shape, "image")
    (images, *others) = _captures(values, layout, path, dims)
    if more or others or len(images) != 1:
        count = len(images) * (1 + len(others))
        raise InputError(
            f"{path}: holds {count} images; a file in a folder should hold one (if these are"
            f" channels, {option('data.layout', 'CHW')})"
        )
    if dims == 3:
        return images[0]
    upright: Tensor = axes.upright(images[0], picture.orientation)
    return upright.clone()


def read_images(
    paths: Sequence[Path], dims: int = 2, physical: bool = False, layout: str = "auto"
) -> list[Tensor]:
    """Images of one type and number of channels, (C, H, W) each; see read_picture.

    Raises:
        InputError: one cannot be read, or is of another kind than the first.
    """
    images = [read_picture(path, dims, physical, layout) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if len(image) != len(images[0]) or image.dtype != images[0].dtype:
            raise InputError(
                f"{path}: is {kind(image)}, but {paths[0].name} is {kind(images[0])}; they must"
                " be alike"
            )
    return images


def kind(image: Tensor) -> str:
    """Size and type of an image (C, H, W), in words.

    >>> kind(torch.zeros(3, 480, 640))
    '3x480x640 float32'
    """
    return f"{'x'.join(str(n) for n in image.shape)} {str(image.dtype)[6:]}"


def read_scenes(
    noisy: str,
    target: str | None = None,
    layout: str = "auto",
    exclude: Sequence[str] = (),
    dims: int = 2,
) -> SceneSet:
    """All captures of all scenes, from one or two files or folders; see `_scenes_of`. `layout` of the result says how.

    Raises:
        InputError: they cannot be read, or do not fit one another.
    """
    scenes = _scenes_of(noisy, target, layout, exclude, dims)
    scenes.layout = layout_of(noisy, layout, exclude, dims, "image")
    return scenes


def _scenes_of(
    noisy: str,
    target: str | None = None,
    layout: str = "auto",
    exclude: Sequence[str] = (),
    dims: int = 2,
) -> SceneSet:
    """All captures of all scenes, from one or two files or folders; see docs/how-to/pairs.md for what they may be.

    Args:
        noisy, target, layout: see data.PairedImages.
        exclude: patterns of names of files that are no captures.
        dims: 3 for volumes.

    Raises:
        InputError: they cannot be read, or do not fit one another.
    """
    folder = Path(noisy)
    if is_file(noisy):
        if target is not None and not is_file(target):
            raise InputError(
                f"{target}: is a folder, and {noisy} a file; both must be files, or both folders"
            )
        return _from_files(noisy, target, layout, dims)
    if target is not None:
        pairs = matched(folder, Path(target), exclude)
        return _from_images(
            [list(pair) for pair in pairs], [str(a) for a, _ in pairs], dims, layout
        )
    return _from_folder(listing(folder, exclude), layout, dims)


def _from_folder(found: Listing, layout: str, dims: int) -> SceneSet:
    """Scenes of a folder: its folders with the captures of one each, or captures that their names or stacks pair."""
    top = found.groups.get(found.root, [])
    below = [folder for folder in found.groups if folder != found.root]
    if (
        not top
        and len(below) == 2
        and {half_of(folder.name) is not None for folder in below} == {True}
    ):
        sides = sorted(below, key=lambda folder: (half_of(folder.name) or ("", 0))[1])
        if [(half_of(folder.name) or ("", 0))[1] for folder in sides] == [0, 1]:
            pairs = matched(sides[0], sides[1])
            return _from_images(
                [list(pair) for pair in pairs],
                [str(a) for a, _ in pairs],
                dims,
                layout,
                found.dropped,
            )
    if below and not top:
        return _from_folders(found, dims, layout)
    scenes = _from_names(top, layout, dims, found.dropped)
    if below:
        if scenes is not None:
            found = found.without(below, "in a folder beside the captures")
        elif len(below) > max(1, len(top)):
            names = ", ".join(path.name for path in top[:5])
            more = found.without([found.root], "")
            lines = (*found.dropped, f"{names} (beside the folders of the scenes)")
            return _from_folders(Listing(found.root, more.groups, lines), dims, layout)
        else:
            names = ", ".join(str(folder.relative_to(found.root)) for folder in below[:5])
            raise InputError(
                f"{found.root}: holds images itself and in folders ({names});"
                f" {option('data.exclude', repr(f'{below[0].name}/*'))} leaves those of a folder"
                " out"
            )
    if scenes is None:
        raise SingleCaptures(
            f"{found.root}: has no folders in it, one per scene with its captures, no stacks, and"
            " no names that pair (cell1_1.tif, cell1_2.tif); for two folders of single images"
            f" name the other one with {option('data.target')}"
        )
    return (
        replace(scenes, dropped=(*found.dropped, *scenes.dropped[len(found.dropped) :]))
        if below
        else scenes
    )


def _from_folders(found: Listing, dims: int, layout: str) -> SceneSet:
    """Folders with the captures of one scene each."""
    for scene, captures in found.groups.items():
        if len(captures) < 2:
            raise SingleCaptures(
                f"{scene}: holds {len(captures)} images; a scene needs two captures or more"
            )
    files, names = list(found.groups.values()), [str(scene) for scene in found.groups]
    return _from_images(files, names, dims, layout, found.dropped)


def _from_names(
    paths: list[Path], layout: str, dims: int, dropped: tuple[str, ...]
) -> SceneSet | None:
    """Scenes from the files of one folder: halves by their names, stacks, captures by their names; else None."""
    if sides := halves(paths):
        pairs, rest = sides
        sums = some_of([path.name for path in rest], 5)
        lines = (*dropped, *([f"{sums} (no halves, by their names)"] if rest else []))
        return _from_halves(pairs, dims, layout, lines)
    if dims == 2 and (bursts := _bursts(paths, layout)):
        return replace(bursts, dropped=dropped)
    if groups := grouped(paths):
        return _from_images(groups, [str(group[0]) for group in groups], dims, layout, dropped)
    return None


def _from_halves(
    pairs: list[list[Path]], dims: int, layout: str, dropped: tuple[str, ...]
) -> SceneSet:
    """Scenes of two captures, a file each, or a stack of them each, as of a tilt series."""
    first = opened(pairs[0][0]).values
    stacked = len(first) > 1 or (dims == 2 and bool(set(first[0].axes or "") & set("NTD")))
    names = [str(one) for one, _ in pairs]
    if not stacked:
        return _from_images(pairs, names, dims, layout, dropped)
    stored = stored_as([path for pair in pairs for path in pair])
    images, each = [], []
    for name, pair in zip(names, pairs, strict=True):
        sides = [
            [image for part in _images_of(path, dims, stored) for image in part] for path in pair
        ]
        if len(sides[0]) != len(sides[1]):
            raise InputError(
                f"{pair[1]}: has {len(sides[1])} images, its other half {name} has {len(sides[0])}"
            )
        images += [list(captures) for captures in zip(*sides, strict=True)]
        each += [f"{name}, image {i}" for i in range(len(sides[0]))]
    return replace(group_scenes(images, each, stored), dropped=dropped)


def _images_of(path: Path, dims: int, stored: Stored) -> list[Tensor]:
    return read_all(path, "auto", dims=dims, physical=stored.physical)


def read_any(
    noisy: str, target: str | None = None, layout: str = "auto", exclude: Sequence[str] = ()
) -> SceneSet:
    """All captures of all scenes; where there is one of each, single images. See `read_scenes`."""
    try:
        return read_scenes(noisy, target, layout, exclude)
    except SingleCaptures:
        return read_single(noisy, layout, exclude)


def read_single(
    noisy: str, layout: str = "auto", exclude: Sequence[str] = (), dims: int = 2
) -> SceneSet:
    """Images of which each is the only one of its scene; see `_singles_of`. `layout` of the result says how they were
    read.

    Raises:
        InputError: they cannot be read, or are not alike in type and channels.
    """
    scenes = _singles_of(noisy, layout, exclude, dims)
    scenes.layout = layout_of(noisy, layout, exclude, dims, "picture")
    return scenes


def _singles_of(
    noisy: str, layout: str = "auto", exclude: Sequence[str] = (), dims: int = 2
) -> SceneSet:
    """Images of which each is the only one of its scene: of a file, or of all files of a folder and those below it.

    Args:
        noisy, layout, exclude, dims: as of `read_scenes`; captures in one file are taken for
            different scenes.

    Raises:
        InputError: they cannot be read, or are not alike in type and channels.
    """
    if is_file(noisy):
        stored = stored_as([noisy])
        captures = read_array(noisy, layout, dims, stored.physical)
        images = torch.cat(captures) if len(captures) > 1 else captures[0]
        names = [f"{noisy}, image {i}" for i in range(len(images))]
        return EqualSizeScenes([images], names, None, stored.nodata_values, stored.unit)
    listed = listing(Path(noisy), exclude)
    paths = listed.files
    stored = stored_as(paths)
    found: list[Tensor] = []
    names, labels = [], []
    for path in paths:
        captures = read_all(path, layout, dims=dims, physical=stored.physical)
        here = [image for capture in captures for image in capture]
        if dims == 2 and all(
            len(image) == 1 and is_label_image(image[0].numpy(), "HW") for image in here
        ):
            labels.append(path.name)
            continue
        if found and (len(here[0]) != len(found[0]) or here[0].dtype != found[0].dtype):
            raise InputError(
                f"{path}: is {kind(here[0])}, but {paths[0].name} is {kind(found[0])}; they must"
                " be alike"
            )
        found += here
        names += [str(path)] if len(here) == 1 else [f"{path}, image {i}" for i in range(len(here))]
    if not found:
        raise InputError(f"{noisy}: holds label images alone, from which nothing can be learnt")
    dropped = (*listed.dropped, *([f"{some_of(labels, 5)} (label images)"] if labels else []))
    if dims == 3 or len({image.shape for image in found}) > 1:
        mixed = MixedSizeScenes(
            [[image] for image in found], names, stored.nodata_values, stored.unit
        )
        return replace(mixed, dropped=dropped)
    return EqualSizeScenes(
        [torch.stack(found)], names, None, stored.nodata_values, stored.unit, dropped=dropped
    )


def read_all(
    path: str | Path, layout: str, stack: bool = False, dims: int = 2, physical: bool = False
) -> list[Tensor]:
    """All images of a file, a picture or a stack of them, (N, C, H, W) each; of three dimensions rather a `stack`."""
    found = []
    picture = opened(str(path))
    for values in _stacked(picture, physical):
        if layout == "auto" and values.axes is None and dims == 2:
            values.axes = _guessed(values.shape, "stack" if stack else "picture")
        found += _captures(values, layout, picture.path, dims)
    return found


def _from_files(noisy: str, target: str | None, layout: str, dims: int = 2) -> EqualSizeScenes:
    """Scenes from one or two files with all captures."""
    files = [noisy] if target is None else [noisy, target]
    stored = stored_as(files)
    frames = [
        capture for file in files for capture in read_array(file, layout, dims, stored.physical)
    ]
    if len({f.shape for f in frames}) > 1:
        shapes = " and ".join(dict.fromkeys(str(tuple(f.shape)) for f in frames))
        raise InputError(f"{noisy} and {target} differ in shape: {shapes}")
    if len(frames) < 2:
        shape = tuple(frames[0].shape)
        raise SingleCaptures(
            f"{noisy}: holds one capture of each scene, {shape} as (N, C, H, W); name the file"
            f" with the other ones with {option('data.target')}, or say where the captures are"
            f" with {option('data.layout', 'NKHW')}"
        )
    names = [f"{noisy}, image {i}" for i in range(len(frames[0]))]
    return EqualSizeScenes(frames, names, None, stored.nodata_values, stored.unit)


def _from_images(
    scenes: Sequence[Sequence[Path]],
    names: list[str],
    dims: int = 2,
    layout: str = "auto",
    dropped: tuple[str, ...] = (),
) -> SceneSet:
    """Scenes whose captures are a file each."""
    paths = [path for captures in scenes for path in captures]
    stored = stored_as(paths)
    images = iter(read_images(paths, dims, stored.physical, layout))
    found = [[next(images) for _ in captures] for captures in scenes]
    for captures, group in zip(scenes, found, strict=True):
        for path, image in zip(captures, group, strict=True):
            if image.shape != group[0].shape:
                raise InputError(
                    f"{path}: is {kind(image)}, but its partner {captures[0]} is {kind(group[0])}"
                )
    return replace(group_scenes(found, names, stored), dropped=dropped)


def _bursts(paths: Sequence[Path], layout: str) -> SceneSet | None:
    """Stacks, each the captures of a scene; None where a file is none."""
    found, stored = [], stored_as(paths)
    for path in paths:
        picture = opened(path)
        values = _stacked(picture, stored.physical)[0]
        if layout == "auto" and "D" in (values.axes or ""):
            return None  # the planes of a volume are no captures of one scene
        if layout == "auto" and values.axes is None:
            return None  # an array of which nobody knows whether it is a stack or has channels
        captures = _captures(values, layout, path)
        images = list(captures[0]) if len(captures) == 1 else [capture[0] for capture in captures]
        if len(images) < 2:
            return None
        found.append([image.clone() for image in images])
    return group_scenes(found, [str(path) for path in paths], stored) if found else None


def group_scenes(
    images: list[list[Tensor]], names: list[str], stored: Stored = AS_THEY_ARE
) -> SceneSet:
    """Captures of scenes, (C, H, W) each, in the form that suits their sizes and numbers."""
    volumes = len(images[0][0].shape) == 4  # stay mapped, each where it is
    if volumes or len({image.shape for captures in images for image in captures}) > 1:
        return MixedSizeScenes(images, names, stored.nodata_values, stored.unit)
    counts = [len(captures) for captures in images]
    if set(counts) == {2}:
        frames = [torch.stack([captures[k] for captures in images]) for k in (0, 1)]
        return EqualSizeScenes(frames, names, None, stored.nodata_values, stored.unit)
    frames = [torch.stack([image for captures in images for image in captures])]
    return EqualSizeScenes(frames, names, torch.tensor(counts), stored.nodata_values, stored.unit)
