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
from n2n_lightning.data.captures import Scenes
from n2n_lightning.files import InputError, natural
from n2n_lightning.formats import PICTURES, Picture, Values, opened


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


def pictures(folder: Path) -> list[Path]:
    """The image files in a folder, in natural order (2.png before 10.png)."""
    return sorted(
        (p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")), key=natural
    )


def read_picture(path: Path) -> Tensor:
    """One image file as (C, H, W), in its own type; an alpha channel is left out.

    Raises:
        InputError: the file is damaged, or holds no single image.
    """
    picture = opened(path)
    (values, *more) = _stacked(picture)
    values.axes = values.axes or axes.of_one_image(values.array.shape)
    (images, *others) = _captures(values, "auto", path)
    if more or others or len(images) != 1:
        raise InputError(f"{path}: holds {len(images)} images; a file in a folder should hold one")
    return images[0].clone()


def read_folder(paths: Sequence[Path]) -> Tensor:
    """Images of one size and type as one tensor (N, C, H, W)."""
    images = [read_picture(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape or image.dtype != images[0].dtype:
            raise InputError(
                f"{path}: is {_kind(image)}, but {paths[0].name} is {_kind(images[0])}; they must be alike"
            )
    return torch.stack(images)


def _kind(image: Tensor) -> str:
    return f"{'x'.join(str(n) for n in image.shape)} {str(image.dtype)[6:]}"


def read_scenes(noisy: str, target: str | None = None, layout: str = "auto") -> Scenes:
    """All captures of all scenes, from one or two files or folders; see docs/data.md for what they may be."""
    folder = Path(noisy)
    if not folder.is_dir():
        frames = read_array(noisy, layout)
        if target is not None:
            frames = [*frames, *read_array(target, layout)]
        if len({f.shape for f in frames}) > 1:
            shapes = " and ".join(dict.fromkeys(str(tuple(f.shape)) for f in frames))
            raise InputError(f"{noisy} and {target} differ in shape: {shapes}")
        if len(frames) < 2:
            shape = tuple(frames[0].shape)
            raise InputError(
                f"{noisy}: holds one capture of each scene, {shape} as (N, C, H, W); name the file with the other ones"
                " with data.target=, or say where the captures are with data.layout=NKHW"
            )
        return Scenes(frames, [f"{noisy}, image {i}" for i in range(len(frames[0]))])
    if target is not None:
        pairs = matched(folder, Path(target))
        frames = [read_folder([a for a, _ in pairs]), read_folder([b for _, b in pairs])]
        if frames[0].shape != frames[1].shape or frames[0].dtype != frames[1].dtype:
            raise InputError(f"{noisy} has images {_kind(frames[0][0])}, {target} has {_kind(frames[1][0])}")
        return Scenes(frames, [str(a) for a, _ in pairs])
    scenes = sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural)
    if not scenes:
        raise InputError(
            f"{folder}: has no folders in it, one per scene with its captures; for two folders of single images name"
            " the other one with data.target="
        )
    files = [pictures(scene) for scene in scenes]
    for scene, captures in zip(scenes, files, strict=True):
        if len(captures) < 2:
            raise InputError(f"{scene}: holds {len(captures)} images; a scene needs two captures or more")
    counts = torch.tensor([len(captures) for captures in files])
    frame = read_folder([path for captures in files for path in captures])
    return Scenes([frame], [str(scene) for scene in scenes], counts)


def matched(first: Path, second: Path) -> list[tuple[Path, Path]]:
    """The images of two folders, matched by file name without its ending."""
    sides = []
    for folder in (first, second):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        files = pictures(folder)
        if not files:
            raise InputError(f"{folder}: holds no images ({', '.join(sorted(PICTURES))})")
        sides.append({path.stem: path for path in files})
    a, b = sides
    for one, other, where in ((a, b, second), (b, a, first)):
        missing = [path for stem, path in one.items() if stem not in other]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(f"{missing[0]}{more}: has no partner of the same name in {where}")
    return [(a[stem], b[stem]) for stem in a]
