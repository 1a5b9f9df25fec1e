"""Reading a file of any kind into tensors (N, C, H, W), or (N, C, D, H, W).

Values keep their type (8 and 16 bit integers, floats). Arrays in .npy, plain TIFF and contiguous
HDF5 files are mapped into memory, not copied, so that they may be larger than it. Large ones that
are stored in chunks, as Zarr, stay in their file (RegionTensor).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.layout import Layout
from n2n_lightning.data.file_matching import is_file, listing
from n2n_lightning.data.region_tensor import in_place
from n2n_lightning.files import InputError, option, room
from n2n_lightning.formats import Picture, Values, opened
from n2n_lightning.formats.mosaics import looks_like_one
from n2n_lightning.formats.picture import Packed
from n2n_lightning.formats.regions import is_large
from n2n_lightning.formats.units import converted


def read_array(
    path: str | Path, layout: str = "auto", dims: int = 2, physical: bool = False
) -> list[Tensor]:
    """Read the captures in one file.

    Args:
        path: a file of any kind in n2n_lightning.formats. For a file with several arrays, the
            array's name follows a colon: `data.h5:noisy`.
        layout: the meaning of the array's axes, a permutation of letters of NKTCDHW: N scenes, K
            captures of each, T frames, C channels, D depth, H height, W width. It takes precedence
            over what the file states. `auto`: what the file states, or else HW, NHW, HWC
            (axes.bands), NCHW or NHWC, NKCHW or NKHWC, with 1 to 4 channels.
        dims: 3 for volumes, (N, C, D, H, W).
        physical: convert stored values by the file's factor and offset, to float32 (data.units).

    Returns:
        K tensors (N, C, H, W), one of each capture.

    Raises:
        InputError: the file is missing, damaged, of another kind, or its axes are not clear.
    """
    picture = opened(str(path))
    captures: list[Tensor] = []
    for values in stacked_values(picture, physical):
        captures += captures_in(values, layout, picture.path, dims, picture)
    if len({capture.shape for capture in captures}) > 1:
        shapes = ", ".join(str(tuple(capture.shape)) for capture in captures)
        raise InputError(f"{path}: its captures differ in shape: {shapes}")
    return captures


def read_all(
    path: str | Path,
    layout: str,
    stack: bool = False,
    dims: int = 2,
    physical: bool = False,
    stays: bool = False,
) -> list[Tensor]:
    """Read all images of a file, a picture or a stack of them.

    Args:
        path, layout, dims, physical: see read_array.
        stack: an array of three dimensions is a stack rather than a picture with channels.
        stays: values of a large file stay in it until they are needed, see RegionTensor.

    Returns:
        Tensors (N, C, H, W), in the order of the file.

    Raises:
        InputError: see read_array.
    """
    images: list[Tensor] = []
    picture = opened(str(path))
    for values in stacked_values(picture, physical):
        if layout == "auto" and values.axes is None and dims == 2:
            values.axes = _guessed_axes(values.shape, "stack" if stack else "picture")
        file = picture if stays else None
        images += captures_in(values, layout, picture.path, dims, file)
    return images


def read_picture(
    path: Path,
    dims: int = 2,
    physical: bool = False,
    layout: str = "auto",
) -> Tensor:
    """Read a file with one image, turned as EXIF says, without its alpha channel.

    Args:
        path: the file.
        dims: 3 for a volume, which stays mapped where it can be.
        physical, layout: see read_array.

    Returns:
        (C, H, W), or (C, D, H, W), in its own type.

    Raises:
        InputError: the file is damaged, or holds no single image.
    """
    picture = opened(path)
    (values, *more) = stacked_values(picture, physical)
    if dims == 2 and layout == "auto":
        values.axes = values.axes or _guessed_axes(values.shape, "image")
    file = picture if dims == 3 else None
    (images, *others) = captures_in(values, layout, path, dims, file)
    if more or others or len(images) != 1:
        count = len(images) * (1 + len(others))
        raise InputError(
            f"{path}: holds {count} images; a file in a folder should hold one"
            f" (if these are channels, {option('data.layout', 'CHW')})"
        )
    if dims == 3:
        return images[0]
    upright: Tensor = axes.upright(images[0], picture.orientation)
    return upright.clone()


def read_images(
    paths: Sequence[Path], dims: int = 2, physical: bool = False, layout: str = "auto"
) -> list[Tensor]:
    """Read files with one image each, of one type and number of channels.

    Args:
        paths: the files.
        dims, physical, layout: see read_picture.

    Returns:
        (C, H, W) each.

    Raises:
        InputError: one cannot be read, or is of another kind than the first.
    """
    images = [read_picture(path, dims, physical, layout) for path in paths]
    first = images[0]
    for path, image in zip(paths, images, strict=True):
        if len(image) != len(first) or image.dtype != first.dtype:
            raise InputError(
                f"{path}: is {kind(image)},"
                f" but {paths[0].name} is {kind(first)}; they must be alike"
            )
    return images


def kind(image: Tensor) -> str:
    """Describe an image.

    Args:
        image: (C, H, W).

    Returns:
        Size and type, in words.

    >>> kind(torch.zeros(3, 480, 640))
    '3x480x640 float32'
    """
    size = "x".join(str(length) for length in image.shape)
    return f"{size} {type_name(image.dtype)}"


def type_name(dtype: torch.dtype) -> str:
    """Name a type.

    Args:
        dtype: of a tensor.

    Returns:
        Its name without torch's: `float32`.
    """
    return str(dtype).removeprefix("torch.")


def _first_file(source: str, exclude: Sequence[str]) -> str:
    """Return a source that is a file, or the first file of a folder or pattern."""
    if is_file(source):
        return source
    return str(listing(Path(source), exclude).files[0])


def spatial_axes(
    source: str,
    layout: str = "auto",
    exclude: Sequence[str] = (),
) -> tuple[int, Any]:
    """Find out if the images of a file, or of the first file in a folder, are volumes.

    They are where the layout has a D, or where the format is one of volumes and the file has one;
    pages of a TIFF are images.

    Args:
        source: the file or folder.
        layout: see read_array.
        exclude: patterns of names of files that are left out.

    Returns:
        Spatial axes, 2 or 3, and the distance of neighbouring voxels along D, H and W, or None
        where the file does not state it.
    """
    picture = opened(_first_file(source, exclude))
    values = picture.values[0]
    deep = "D" in layout
    if layout == "auto":
        deep = picture.volumes and "D" in (values.axes or "")
    return (3 if deep else 2), values.spacing


def first_axes(source: str, exclude: Sequence[str] = ()) -> str:
    """Return the axes that a file, or the first one of a folder, states, TDHW say; or none."""
    return opened(_first_file(source, exclude)).values[0].axes or ""


def refuse_mosaics(source: str, exclude: Sequence[str] = ()) -> str:
    """Check the first file of a source for the raw frame of a colour camera.

    Args:
        source: a file or folder.
        exclude: patterns of names of files that are left out.

    Returns:
        A line where it only looks like one; else an empty one.

    Raises:
        InputError: its header says that it is one.
    """
    path = _first_file(source, exclude)
    values = opened(path).values[0]
    planes = (
        "save its four planes (image[::2, ::2], image[::2, 1::2], ...) as pictures to train on them"
    )
    if values.mosaic:
        raise InputError(
            f"{path}: is a raw frame of a colour camera ({values.mosaic}),"
            f" whose neighbours have different colours; {planes}; denoise takes it as it is"
        )
    unpacked = is_large(values.shape, values.dtype.itemsize) and isinstance(values.stored, Packed)
    if len(values.shape) == 2 and not unpacked and looks_like_one(values.array, "HW"):
        return (
            f"{Path(path).name}: has a period of 2 pixels, as a colour camera's raw frame has;"
            f" if it is one, {planes}"
        )
    return ""


def layout_of(
    noisy: str,
    layout: str,
    exclude: Sequence[str],
    dims: int,
    kind: str,
) -> Layout:
    """Find out how the first array of a source is read, for messages and the checkpoint.

    Args:
        noisy: the file or folder.
        layout, dims: see read_array.
        exclude: patterns of names of files that are left out.
        kind: what a file of a folder holds: `image` (read_picture), `picture` or `stack`
            (read_all).

    Returns:
        The letters of its axes, and if the file states them.
    """
    whole = is_file(noisy)
    picture = opened(noisy if whole else listing(Path(noisy), exclude).files[0])
    values = stacked_values(picture)[0]
    stated = values.axes
    assumed = layout == "auto" and (stated is None or values.assumed)
    guess = kind == "stack" or not whole
    if layout == "auto" and stated is None and dims == 2 and guess:
        values.axes = _guessed_axes(values.shape, kind)
    letters = letters_of(values, layout, picture.path, dims)
    return Layout(letters, values.shape, stated, assumed)


def stacked_values(picture: Picture, physical: bool = False) -> list[Values]:
    """Return the arrays of a file; those of a TIFF, which are pages, as one.

    Args:
        picture: the file.
        physical: convert stored values by the file's factor and offset.

    Returns:
        Its arrays.

    Raises:
        InputError: pages differ.
    """
    if physical:
        picture.values = [converted(values) for values in picture.values]
    pages = picture.values
    first = pages[0]
    if len(pages) == 1 or picture.tuples:
        return pages
    form = (first.shape, first.dtype, first.axes)
    if any((page.shape, page.dtype, page.axes) != form for page in pages):
        raise InputError(
            f"{picture.path}: its pages differ in size or type; make them alike, or a file each"
        )
    invalid = None
    if any(page.invalid is not None for page in pages):
        masks = []
        for page in pages:
            masks.append(np.zeros(page.shape, bool) if page.invalid is None else page.invalid)
        invalid = np.stack(masks)
    pixels = np.stack([page.array for page in pages])
    return [Values(pixels, f"N{first.axes}", first.alpha, first.colour, invalid=invalid)]


def captures_in(
    values: Values,
    layout: str,
    path: Path,
    dims: int = 2,
    picture: Picture | None = None,
) -> list[Tensor]:
    """Return the captures in an array of a file, without an alpha channel.

    Args:
        values: the array.
        layout, dims: see read_array.
        path: of the file, for messages.
        picture: the file, in which the values of a large array stay, see RegionTensor; None: the
            array is unpacked.

    Returns:
        A tensor (N, C, H, W) of each capture.

    Raises:
        InputError: see letters_of.
    """
    layout = letters_of(values, layout, path, dims)
    array: Any = None if picture is None else in_place(picture, values, layout, dims)
    if array is None:
        array = _tensor(values.measured)
    captures: list[Tensor] = axes.as_captures(array, layout, dims)
    # Transparency is no picture. Where the file does not say what the channels are, all of them are
    # trained on.
    if values.alpha and axes.same_channels(layout, values.axes or layout):
        return [capture[:, :-1] for capture in captures]
    return captures


def letters_of(
    values: Values,
    layout: str,
    path: Path,
    dims: int = 2,
) -> str:
    """Return the letters by which an array of a file is read.

    Args:
        values: the array.
        layout, dims: see read_array.
        path: of the file, for messages.

    Returns:
        One letter of axes.LAYOUT for each axis.

    Raises:
        InputError: the layout does not fit it, or its axes are not clear.
    """
    shape = values.shape
    if layout != "auto":
        fitted = axes.fitted(layout, shape, values.full, axes.LAYOUT)
        if fitted is None:
            raise InputError(
                "data.layout",
                layout,
                f"does not fit {path} of shape {shape}; {axes.suggested(shape)}"
                f" (one letter of {axes.LAYOUT} per axis)",
            )
        return fitted
    guess = axes.of_volumes if dims == 3 else axes.of_scenes
    letters = values.axes or guess(shape)
    if not letters:
        raise InputError(
            f"{path}: what are the axes of its shape {shape}?"
            f" say it as {option('data.layout', 'NCHW')} (or NHWC, NKHW, ...)"
        )
    return axes.in_space(letters) if dims == 3 else letters


def _guessed_axes(shape: tuple[int, ...], kind: str) -> str | None:
    """Return the letters of an array in a folder, or of a movie, whose file does not state them."""
    if kind == "image":
        return axes.of_one_image(shape)
    letters = axes.of_scenes(shape) if kind == "stack" else None
    return letters or axes.of_picture(shape)


def _tensor(array: np.ndarray) -> Tensor:
    """Return an array as a tensor, in native byte order; large ones are converted on the disk."""
    if not array.dtype.isnative:
        native = room(array.shape, array.dtype.newbyteorder("="))
        for part in range(len(array)):
            native[part] = array[part]
        array = native
    return torch.from_numpy(array)
