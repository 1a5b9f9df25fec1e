"""Reading noisy captures of scenes, from a file with many or a folder of files.

A file's own axes, or data.layout=, say what its arrays hold (data.reading_files); folders and names
say which files belong together (data.file_matching). With `dims=3` volumes are read.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from n2n_lightning.data.file_matching import (
    Listing,
    grouped,
    half_of,
    halves,
    is_file,
    listing,
    matched,
)
from n2n_lightning.data.reading_files import (
    captures_in,
    kind,
    layout_of,
    read_all,
    read_array,
    read_images,
    stacked_values,
)
from n2n_lightning.data.scene_set import EqualSizeScenes, MixedSizeScenes, SceneSet
from n2n_lightning.data.units import Stored, stored_as
from n2n_lightning.files import InputError, option, some_of
from n2n_lightning.formats import opened
from n2n_lightning.formats.label_images import is_label_image
from n2n_lightning.formats.star_files import halves_in, is_star

AS_THEY_ARE = Stored()
NAMED_IN_MESSAGES = 5  # files or folders, of those that a message is about


class SingleCaptures(InputError):
    """There is one capture of each scene, where two or more are needed."""


def read_scenes(
    noisy: str,
    target: str | None = None,
    layout: str = "auto",
    exclude: Sequence[str] = (),
    dims: int = 2,
) -> SceneSet:
    """Read all captures of all scenes, from one or two files or folders (docs/how-to/pairs.md).

    Args:
        noisy, target, layout: see data.PairedImages.
        exclude: patterns of names of files that are no captures.
        dims: 3 for volumes.

    Returns:
        The scenes, with the layout of the first array.

    Raises:
        SingleCaptures: there is one capture of each.
        InputError: they cannot be read, or do not fit one another.
    """
    scenes = _scenes_of(noisy, target, layout, exclude, dims)
    return replace(scenes, layout=layout_of(noisy, layout, exclude, dims, "image"))


def read_any(
    noisy: str, target: str | None = None, layout: str = "auto", exclude: Sequence[str] = ()
) -> SceneSet:
    """Read all captures of all scenes, or single images where there is one of each.

    Args:
        noisy, target, layout, exclude: see read_scenes.

    Returns:
        The scenes.

    Raises:
        InputError: they cannot be read, or do not fit one another.
    """
    try:
        return read_scenes(noisy, target, layout, exclude)
    except SingleCaptures:
        return read_single(noisy, layout, exclude)


def read_single(
    noisy: str, layout: str = "auto", exclude: Sequence[str] = (), dims: int = 2
) -> SceneSet:
    """Read images as scenes of one capture, from a file, or from a folder and those below it.

    Args:
        noisy, layout, exclude, dims: see read_scenes; captures in one file are different scenes.

    Returns:
        The scenes, with the layout of the first array.

    Raises:
        InputError: they cannot be read, or are not alike in type and channels.
    """
    if is_file(noisy):
        scenes: SceneSet = _singles_of_file(noisy, layout, dims)
    else:
        scenes = _singles_of_folder(noisy, layout, exclude, dims)
    return replace(scenes, layout=layout_of(noisy, layout, exclude, dims, "picture"))


def group_scenes(
    images: list[list[Tensor]], names: list[str], stored: Stored = AS_THEY_ARE
) -> SceneSet:
    """Store captures in the form that suits their sizes and numbers.

    Args:
        images: of each scene its captures, (C, H, W) each, or (C, D, H, W), which stay mapped.
        names: of the scenes.
        stored: how their values were read.

    Returns:
        The scenes; images of one size are copied into one tensor.
    """
    volumes = len(images[0][0].shape) == 4
    shapes = {image.shape for captures in images for image in captures}
    if volumes or len(shapes) > 1:
        return MixedSizeScenes(images, names, stored.nodata_values, stored.unit)
    counts = [len(captures) for captures in images]
    if set(counts) == {2}:
        frames = [torch.stack([captures[k] for captures in images]) for k in (0, 1)]
        return EqualSizeScenes(frames, names, None, stored.nodata_values, stored.unit)
    frames = [torch.stack([image for captures in images for image in captures])]
    return EqualSizeScenes(frames, names, torch.tensor(counts), stored.nodata_values, stored.unit)


def _scenes_of(
    noisy: str, target: str | None, layout: str, exclude: Sequence[str], dims: int
) -> SceneSet:
    """Read scenes, see read_scenes, without their layout."""
    if is_file(noisy):
        if target is not None and not is_file(target):
            raise InputError(
                f"{target}: is a folder, and {noisy} a file; both must be files, or both folders"
            )
        return _from_files(noisy, target, layout, dims)
    folder = Path(noisy)
    if is_star(noisy):
        pairs = [(row.first, row.second) for row in halves_in(folder)]
        return _from_pairs(pairs, dims, layout)
    if target is None:
        return _from_folder(listing(folder, exclude), layout, dims)
    return _from_pairs(matched(folder, Path(target), exclude), dims, layout)


def _from_files(
    noisy: str,
    target: str | None,
    layout: str,
    dims: int,
) -> EqualSizeScenes:
    """Read scenes from one or two files with all captures."""
    files = [noisy] if target is None else [noisy, target]
    stored = stored_as(files)
    frames: list[Tensor] = []
    for file in files:
        frames += read_array(file, layout, dims, stored.physical)
    shapes = dict.fromkeys(str(tuple(captures.shape)) for captures in frames)
    if len(shapes) > 1:
        raise InputError(f"{noisy} and {target} differ in shape: {' and '.join(shapes)}")
    if len(frames) < 2:
        shape = tuple(frames[0].shape)
        raise SingleCaptures(
            f"{noisy}: holds one capture of each scene, {shape} as (N, C, H, W);"
            f" name the file with the other ones with {option('data.target')},"
            f" or say where the captures are with {option('data.layout', 'NKHW')}"
        )
    names = [f"{noisy}, image {i}" for i in range(len(frames[0]))]
    return EqualSizeScenes(frames, names, None, stored.nodata_values, stored.unit)


def _from_pairs(
    pairs: list[tuple[Path, Path]], dims: int, layout: str, dropped: tuple[str, ...] = ()
) -> SceneSet:
    """Read scenes of two captures, a file each."""
    files = [list(pair) for pair in pairs]
    return _from_images(files, [str(first) for first, _ in pairs], dims, layout, dropped)


def _from_images(
    scenes: Sequence[Sequence[Path]],
    names: list[str],
    dims: int,
    layout: str,
    dropped: tuple[str, ...],
) -> SceneSet:
    """Read scenes whose captures are a file each."""
    paths = [path for captures in scenes for path in captures]
    stored = stored_as(paths)
    images = iter(read_images(paths, dims, stored.physical, layout))
    groups = []
    for captures in scenes:
        group = [next(images) for _ in captures]
        for path, image in zip(captures, group, strict=True):
            if image.shape != group[0].shape:
                raise InputError(
                    f"{path}: is {kind(image)}, but its partner {captures[0]} is {kind(group[0])}"
                )
        groups.append(group)
    return replace(group_scenes(groups, names, stored), dropped=dropped)


def _from_folder(
    listed: Listing,
    layout: str,
    dims: int,
) -> SceneSet:
    """Read scenes of a folder: a folder of captures each, captures paired by names, or stacks."""
    top = listed.groups.get(listed.root, [])
    below = [folder for folder in listed.groups if folder != listed.root]
    if not top:
        sides = _folders_of_halves(below)
        if sides:
            return _from_pairs(matched(*sides), dims, layout, listed.dropped)
        return _from_folders(listed, dims, layout)
    scenes = _from_names(top, layout, dims, listed.dropped)
    if scenes is not None and below:
        lines = listed.without(below, "in a folder beside the captures").dropped
        return replace(scenes, dropped=(*lines, *scenes.dropped[len(listed.dropped) :]))
    if scenes is not None:
        return scenes
    if below:
        return _from_folders(_without_top(listed, top, below), dims, layout)
    raise SingleCaptures(
        f"{listed.root}: has no folders in it, one per scene with its captures, no stacks,"
        " and no names that pair (cell1_1.tif, cell1_2.tif); for two folders of single images name"
        f" the other one with {option('data.target')}"
    )


def _folders_of_halves(folders: list[Path]) -> tuple[Path, Path] | None:
    """Return the folders of first and second halves, by their names, where there are no others."""
    if len(folders) != 2:
        return None
    sides: dict[int, Path] = {}
    for folder in folders:
        half = half_of(folder.name)
        if half is not None:
            sides[half[1]] = folder
    return (sides[0], sides[1]) if len(sides) == 2 else None


def _without_top(
    listed: Listing,
    top: list[Path],
    below: list[Path],
) -> Listing:
    """Return the folders of the scenes alone, where more of them than images are in a folder."""
    if len(below) <= max(1, len(top)):
        folders = [str(path.relative_to(listed.root)) for path in below]
        names = ", ".join(folders[:NAMED_IN_MESSAGES])
        pattern = repr(f"{below[0].name}/*")
        raise InputError(
            f"{listed.root}: holds images itself and in folders ({names});"
            f" {option('data.exclude', pattern)} leaves those of a folder out"
        )
    names = ", ".join(path.name for path in top[:NAMED_IN_MESSAGES])
    lines = (*listed.dropped, f"{names} (beside the folders of the scenes)")
    return replace(listed.without([listed.root], ""), dropped=lines)


def _from_folders(
    listed: Listing,
    dims: int,
    layout: str,
) -> SceneSet:
    """Read folders with the captures of one scene each."""
    for scene, captures in listed.groups.items():
        if len(captures) < 2:
            raise SingleCaptures(
                f"{scene}: holds {len(captures)} images; a scene needs two captures or more"
            )
    names = [str(scene) for scene in listed.groups]
    return _from_images(list(listed.groups.values()), names, dims, layout, listed.dropped)


def _from_names(
    paths: list[Path], layout: str, dims: int, dropped: tuple[str, ...]
) -> SceneSet | None:
    """Read scenes of one folder: halves by their names, stacks, or captures by their names."""
    sides = halves(paths)
    if sides:
        pairs, others = sides
        if others:
            names = some_of([path.name for path in others], NAMED_IN_MESSAGES)
            dropped = (*dropped, f"{names} (no halves, by their names)")
        return _from_halves(pairs, dims, layout, dropped)
    bursts = _bursts(paths, layout) if dims == 2 else None
    if bursts is not None:
        return replace(bursts, dropped=dropped)
    groups = grouped(paths)
    if groups:
        return _from_images(groups, [str(group[0]) for group in groups], dims, layout, dropped)
    return None


def _from_halves(
    pairs: list[list[Path]], dims: int, layout: str, dropped: tuple[str, ...]
) -> SceneSet:
    """Read scenes of two captures, a file each, or a stack of them each, as of a tilt series."""
    first = opened(pairs[0][0]).values
    stacked = len(first) > 1
    if dims == 2 and set("NTD") & set(first[0].axes or ""):
        stacked = True
    names = [str(half) for half, _ in pairs]
    if not stacked:
        return _from_images(pairs, names, dims, layout, dropped)
    stored = stored_as([path for pair in pairs for path in pair])
    images: list[list[Tensor]] = []
    image_names = []
    for name, (path, other_path) in zip(names, pairs, strict=True):
        one = _images_of(path, dims, stored)
        other = _images_of(other_path, dims, stored)
        if len(one) != len(other):
            raise InputError(
                f"{other_path}: has {len(other)} images, its other half {name} has {len(one)}"
            )
        for i, captures in enumerate(zip(one, other, strict=True)):
            images.append(list(captures))
            image_names.append(f"{name}, image {i}")
    return replace(group_scenes(images, image_names, stored), dropped=dropped)


def _images_of(
    path: Path,
    dims: int,
    stored: Stored,
) -> list[Tensor]:
    """Read all images of a file, (C, H, W) each."""
    stacks = read_all(path, "auto", dims=dims, physical=stored.physical)
    return [image for stack in stacks for image in stack]


def _bursts(paths: Sequence[Path], layout: str) -> SceneSet | None:
    """Read stacks, each the captures of a scene; None where a file is none."""
    stored = stored_as(paths)
    bursts: list[list[Tensor]] = []
    for path in paths:
        picture = opened(path)
        values = stacked_values(picture, stored.physical)[0]
        if layout == "auto" and "D" in (values.axes or ""):
            return None  # the planes of a volume are no captures of one scene
        if layout == "auto" and values.axes is None:
            return None  # an array of which nobody knows whether it is a stack or has channels
        captures = captures_in(values, layout, path)
        images = list(captures[0])
        if len(captures) > 1:
            images = [capture[0] for capture in captures]
        if len(images) < 2:
            return None
        bursts.append([image.clone() for image in images])
    return group_scenes(bursts, [str(path) for path in paths], stored) if bursts else None


def _singles_of_file(
    noisy: str,
    layout: str,
    dims: int,
) -> EqualSizeScenes:
    """Read the images of a file as scenes of one capture."""
    stored = stored_as([noisy])
    captures = read_array(noisy, layout, dims, stored.physical)
    images = torch.cat(captures) if len(captures) > 1 else captures[0]
    names = [f"{noisy}, image {i}" for i in range(len(images))]
    return EqualSizeScenes([images], names, None, stored.nodata_values, stored.unit)


def _singles_of_folder(
    noisy: str,
    layout: str,
    exclude: Sequence[str],
    dims: int,
) -> SceneSet:
    """Read the images of all files of a folder as scenes of one capture, without label images."""
    listed = listing(Path(noisy), exclude)
    paths = listed.files
    stored = stored_as(paths)
    images: list[Tensor] = []
    names = []
    labels = []
    for path in paths:
        stacks = read_all(path, layout, dims=dims, physical=stored.physical, stays=dims == 3)
        of_file = [image for stack in stacks for image in stack]
        if dims == 2 and all(_is_labels(image) for image in of_file):
            labels.append(path.name)
            continue
        first = of_file[0]
        if images and (len(first) != len(images[0]) or first.dtype != images[0].dtype):
            raise InputError(
                f"{path}: is {kind(first)},"
                f" but {paths[0].name} is {kind(images[0])}; they must be alike"
            )
        images += of_file
        if len(of_file) == 1:
            names.append(str(path))
        else:
            names += [f"{path}, image {i}" for i in range(len(of_file))]
    if not images:
        raise InputError(f"{noisy}: holds label images alone, from which nothing can be learnt")
    dropped = listed.dropped
    if labels:
        dropped = (*dropped, f"{some_of(labels, NAMED_IN_MESSAGES)} (label images)")
    if dims == 3 or len({image.shape for image in images}) > 1:
        captures = [[image] for image in images]
        mixed = MixedSizeScenes(captures, names, stored.nodata_values, stored.unit)
        return replace(mixed, dropped=dropped)
    stacked = EqualSizeScenes([torch.stack(images)], names, None, stored.nodata_values, stored.unit)
    return replace(stacked, dropped=dropped)


def _is_labels(image: Tensor) -> bool:
    """Return True if an image (C, H, W) holds labels of objects instead of intensities."""
    return len(image) == 1 and is_label_image(image[0].numpy(), "HW")
