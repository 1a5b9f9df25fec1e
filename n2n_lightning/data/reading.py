"""Reading images of any kind into tensors (N, C, H, W): one file with many, or a folder with one each.

Values keep their type (8 and 16 bit integers, floats). Arrays in .npy, plain TIFF and contiguous HDF5 files are mapped
into memory, not copied, so that they may be larger than it.
"""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data.captures import Scenes
from n2n_lightning.files import InputError, load_torch, natural

TORCH = {".pt", ".pth", ".pkl"}
HDF5 = {".h5", ".hdf5", ".hdf"}
TIFF = {".tif", ".tiff"}
ARRAYS = {*TORCH, *HDF5, *TIFF, ".npy", ".npz"}
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp", *TIFF, ".npy"}
TYPES = (np.uint8, np.uint16, np.int16, np.int32, np.float16, np.float32, np.float64)


def read_array(path: str | Path, layout: str = "auto") -> list[Tensor]:
    """The captures in one file: a list of K tensors (N, C, H, W).

    Args:
        path: .pt, .pth or .pkl (a tensor, or a tuple of tensors, one per capture), .npy, .npz, TIFF or HDF5. For a file
            with several arrays, the array's name follows a colon: `data.h5:noisy`.
        layout: the meaning of the array's axes, a permutation of letters of NKCHW: N scenes, K captures of each, C
            channels, H height, W width. `auto` takes HW, NHW, NCHW or NHWC, NKCHW or NKHWC, with 1 to 4 channels.

    Raises:
        InputError: the file is missing, damaged, of another kind, or its axes are not clear.
    """
    path, name = _split(str(path))
    if path.suffix.lower() not in ARRAYS:
        raise InputError(f"{path}: not one of {', '.join(sorted(ARRAYS))}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix.lower() in TORCH:
        content = load_torch(path)
        parts = list(content) if isinstance(content, tuple | list) else [content]
        if not parts or not all(isinstance(part, Tensor) for part in parts):
            raise InputError(f"{path}: should hold a tensor or a tuple of tensors")
    else:
        try:
            array, hint = _open(path, name)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path}: damaged or not of the kind that its name says") from error
        if layout == "auto" and hint:
            array, layout = merged(array, hint)
        parts = [_tensor(array, path)]
    captures = [capture for part in parts for capture in _arrange(part, layout, path)]
    if len({capture.shape for capture in captures}) > 1:
        raise InputError(f"{path}: its captures differ in shape: {', '.join(str(tuple(c.shape)) for c in captures)}")
    return captures


def _split(text: str) -> tuple[Path, str | None]:
    """`file.h5:noisy` -> file.h5 and noisy."""
    match = re.fullmatch(r"(.+\.(?:npz|h5|hdf5|hdf)):(.+)", text)
    return (Path(match[1]), match[2]) if match else (Path(text), None)


def _open(path: Path, name: str | None) -> tuple[Any, str | None]:
    """The array in a file, mapped where possible, and its layout where the file says it."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.load(path, mmap_mode="c", allow_pickle=False), None
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[_named(path, name, list(arrays))], None
    if suffix in HDF5:
        import h5py

        with h5py.File(path, "r") as file:
            names: list[str] = []
            file.visititems(lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None)
            dataset = file[_named(path, name, names)]
            offset = dataset.id.get_offset()
            if offset is None or not dataset.dtype.isnative:
                return dataset[()], None
            return np.memmap(path, dataset.dtype, "c", offset, dataset.shape), None
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        if len(file.series) > 1:  # as written page by page
            if len({(s.shape, s.dtype) for s in file.series}) > 1:
                raise InputError(f"{path}: its pages differ in size or type; make them alike, or a file each")
            return np.stack([s.asarray() for s in file.series]), "N" + tiff_axes(series.axes)
        mapped = series.dataoffset is not None and series.dtype.isnative
        array = tifffile.memmap(path, mode="c") if mapped else series.asarray()
    return array, tiff_axes(series.axes)


def tiff_axes(axes: str) -> str:
    """The axes of a TIFF in our letters; all but height, width and colour are scenes."""
    letters = {"Y": "H", "X": "W", "S": "C", "C": "C"}
    return "".join(letters.get(axis, "N") for axis in axes)


def merged(array: np.ndarray, layout: str) -> tuple[np.ndarray, str]:
    """Several stack axes side by side (time and depth, say) as one axis of scenes."""
    first, count = layout.find("N"), layout.count("N")
    if count > 1 and layout[first : first + count] == "N" * count:
        array = array.reshape(*array.shape[:first], -1, *array.shape[first + count :])
        layout = layout.replace("N" * count, "N")
    return array, layout


def _named(path: Path, name: str | None, names: list[str]) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        asked = f"has no array {name!r}" if name else "holds several arrays"
        raise InputError(
            f"{path}: {asked}; name one: {', '.join(f'{path.name}:{n}' for n in names) or '(it is empty)'}"
        )
    return name


def _tensor(array: np.ndarray, path: Path) -> Tensor:
    if array.dtype.newbyteorder("=") not in TYPES:
        raise InputError(f"{path}: its values are of type {array.dtype}; 8 and 16 bit integers and floats can be read")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


def _arrange(array: Tensor, layout: str, path: Path) -> list[Tensor]:
    """The captures (N, C, H, W) in an array whose axes are `layout`."""
    shape = tuple(array.shape)
    if 0 in shape:
        raise InputError(f"{path}: holds no images, its shape is {shape}")
    if layout == "auto":
        layout = _guess(shape, path)
    if len(layout) != len(shape) or len(set(layout)) != len(layout) or not set("HW") <= set(layout) <= set("NKCHW"):
        raise InputError(
            f"data.layout={layout}: does not fit {path} of shape {shape}; use one letter of NKCHW per axis"
        )
    for letter in "NKC":
        if letter not in layout:
            array, layout = array[None], letter + layout
    array = array.permute(*(layout.index(letter) for letter in "KNCHW"))
    return list(array.unbind(0))


def _guess(shape: tuple[int, ...], path: Path) -> str:
    few = [0 < n <= 4 for n in shape]
    if len(shape) in (2, 3):
        return "NHW"[-len(shape) :]
    if len(shape) in (4, 5):
        head = "N" if len(shape) == 4 else "NK"
        if few[-3] != few[-1]:
            return head + ("CHW" if few[-3] else "HWC")
    raise InputError(f"{path}: what are the axes of its shape {shape}? say it as data.layout=NCHW (or NHWC, NKHW, ...)")


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
    if path.suffix.lower() in (".npy", *TIFF):
        layout = "auto"
        if path.suffix.lower() == ".npy" and path.is_file():
            with contextlib.suppress(Exception):  # what is wrong with it, read_array says
                shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
                layout = {2: "HW", 3: "HWC" if shape[-1] <= 4 else "CHW"}.get(len(shape), "auto")
        (image, *more) = read_array(path, layout)
        if more or len(image) != 1:
            raise InputError(f"{path}: holds {len(image)} images; a file in a folder should hold one")
        return image[0].clone()
    from PIL import Image

    try:
        with Image.open(path) as file:
            deep_colour = file.format == "PNG" and file.mode in ("RGB", "RGBA") and path.read_bytes()[24] == 16
            if deep_colour or file.mode in ("I;16B", "F"):
                raise InputError(f"{path}: 16 bit colour and float images are read from TIFF or .npy only")
            modes = {"L": "L", "1": "L", "LA": "L", "I;16": "I;16", "I": "I"}
            mode = modes.get(file.mode, "RGB")
            array = np.array(file if file.mode == mode else file.convert(mode))
            array = array.astype(np.uint16) if mode == "I" else array  # 16 bit PGM
    except InputError:
        raise
    except Exception as error:  # Pillow raises many kinds, its decompression bomb check among them
        raise InputError(f"{path}: cannot be read as an image ({str(error) or type(error).__name__})") from error
    return torch.from_numpy(array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0).copy())


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
