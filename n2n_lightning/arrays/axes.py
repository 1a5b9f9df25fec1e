"""Axes of arrays, by letters. No other file counts axes.

N scenes or images, K captures of a scene, T frames of a movie, D depth, C channels, H height, W
width. Inside the program a batch is (B, C, H, W) or (B, C, D, H, W): the spatial axes are those
after the second.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from n2n_lightning.files import InputError, option

LETTERS = "NKTDCHW"
LAYOUT = LETTERS  # those that users may give for the arrays they train on
HEIGHT, WIDTH = -2, -1  # of every array that ends in (H, W)
DEPTH = -3  # of those that end in (D, H, W)
Shape = tuple[int, ...]


# Batches


def spatial(batch: Any) -> range:
    """Return the numbers of the spatial axes of a batch (B, C, H, W) or (B, C, D, H, W).

    >>> list(spatial(np.zeros((2, 3, 8, 9)))), list(spatial(np.zeros((2, 3, 5, 8, 9))))
    ([2, 3], [2, 3, 4])
    """
    return range(2, batch.ndim)


def deep(batch: Any) -> bool:
    """Return True for a batch of volumes, (B, C, D, H, W)."""
    return len(batch.shape) == 5


def size(batch: Any) -> Shape:
    """Return the spatial lengths of a batch: (H, W) or (D, H, W).

    Returns:
        As many lengths as there are spatial axes.
    """
    return tuple(batch.shape[2:])


def channels_last(batch: Any) -> Any:
    """Return images in the memory format that CPUs convolve fastest; volumes as they are."""
    import torch

    if batch.ndim == 4:
        return batch.contiguous(memory_format=torch.channels_last)
    return batch.contiguous()


def cropped(batch: Any, size: Sequence[int]) -> Any:
    """Return the first `size` pixels along the spatial axes.

    Args:
        batch: (B, C, H, W) or (B, C, D, H, W).
        size: (H, W) or (D, H, W) of the result.

    Returns:
        A view.
    """
    place = [slice(0, length) for length in size]
    return batch[(..., *place)]


def per_image(values: Any, batch: Any) -> Any:
    """Reshape one value per image so that it broadcasts over a batch.

    Args:
        values: (B,).
        batch: (B, C, H, W) or (B, C, D, H, W).

    Returns:
        (B, 1, 1, 1) or (B, 1, 1, 1, 1).
    """
    ones = [1] * (batch.ndim - 1)
    return values.reshape(-1, *ones)


def along(
    values: Any,
    axis: int,
    dims: int,
) -> Any:
    """Reshape the values of one axis so that they broadcast over an array.

    Args:
        values: (n,).
        axis: of the array, from 0.
        dims: axes of the array.

    Returns:
        `dims` axes, all but one of length 1.

    >>> along(np.arange(4), 1, 3).shape
    (1, 4, 1)
    """
    shape = [1] * dims
    shape[axis] = -1
    return values.reshape(shape)


def flips(batch: Any) -> Iterator[tuple[int, ...]]:
    """Yield all sets of spatial axes to mirror a batch along: 4 of an image, 8 of a volume.

    Yields:
        Tuples of axes, the empty one among them.
    """
    axes = spatial(batch)[::-1]
    for count in range(len(axes) + 1):
        yield from combinations(axes, count)


def evenly(count: int, most: int) -> list[int]:
    """Return up to `most` evenly spread indices, the first and the last among them.

    Args:
        count: of the indices, 0 to count - 1.
        most: of the result.

    Returns:
        In ascending order; all of them where there are no more than `most`.

    >>> evenly(9, 3), evenly(2, 3)
    ([0, 4, 8], [0, 1])
    """
    spread = np.linspace(0, count - 1, most)
    indices = spread.round().astype(int)
    return np.unique(indices).tolist()


def quarter_turns(
    size: Sequence[int], spacing: Sequence[float] | None = None
) -> list[tuple[int, int]]:
    """Return the planes that may be turned by a quarter, where lengths and spacings are equal.

    Args:
        size: (H, W) or (D, H, W).
        spacing: the distance of neighbouring voxels along each; None: depth differs from height and
            width.

    Returns:
        Pairs of spatial axes, counted from the end.

    >>> quarter_turns((64, 64)), quarter_turns((64, 64, 64))
    ([(-2, -1)], [(-2, -1)])
    >>> quarter_turns((8, 8, 8), (1.0, 1.0, 1.0))
    [(-3, -2), (-3, -1), (-2, -1)]
    """
    planes = []
    for a, b in combinations(range(-len(size), 0), 2):
        if spacing is None:
            isotropic = (a, b) == (HEIGHT, WIDTH)
        else:
            difference = abs(spacing[a] - spacing[b])
            isotropic = difference < 0.01 * abs(spacing[a])
        if isotropic and size[a] == size[b]:
            planes.append((a, b))
    return planes


def upright(image: Any, orientation: int) -> Any:
    """Turn and mirror an image as EXIF's orientation says.

    Args:
        image: a tensor, (C, H, W).
        orientation: 1 to 8.

    Returns:
        (C, H, W) or (C, W, H).

    >>> import torch
    >>> upright(torch.tensor([[[1, 2], [3, 4]]]), 6).tolist()  # a quarter turn to the right
    [[[3, 1], [4, 2]]]
    """
    if orientation >= 5:
        image = image.transpose(HEIGHT, WIDTH)
    mirrored = {
        2: (WIDTH,),
        3: (HEIGHT, WIDTH),
        4: (HEIGHT,),
        6: (WIDTH,),
        7: (HEIGHT, WIDTH),
        8: (HEIGHT,),
    }
    if orientation not in mirrored:
        return image
    return image.flip(mirrored[orientation])


# Arrays of users


def bands(shape: Shape) -> bool:
    """Return True if the last axis of a 3D array is that of its channels, judged by the lengths.

    It has at most 4 channels, or a quarter of each of the other lengths: stacks of images hardly
    are four times as high as wide and four times as many; a cube (height, width, bands) has far
    fewer bands than rows and columns.

    >>> [bands(shape) for shape in ((480, 640, 31), (20, 640, 480), (64, 64, 64))]
    [True, False, False]
    >>> [bands(shape) for shape in ((480, 640, 3), (16, 64, 16))]
    [True, False]
    """
    if len(shape) != 3 or shape[2] <= 0:
        return False
    height, width, channels = shape
    if channels <= 4:
        return True
    return 4 * channels <= min(height, width)


def ends_in_bands(shape: Shape) -> bool:
    """Return True if the last three axes are height, width and `bands`."""
    return bands(shape[-3:])


def of_picture(shape: Shape, channels_first: bool = False) -> str:
    """Guess the axes of an image, or of several, from the shape.

    HW; HWC with 1 to 4 channels, or more where they are `bands`, CHW with 1 or 3, else NHW; NHWC or
    NCHW, NKHWC or NKCHW with 1 to 4.

    Args:
        shape: of the array.
        channels_first: prefer CHW where both fit, as for tensors.

    Returns:
        A letter for each axis.

    Raises:
        InputError: it is not clear.

    >>> of_picture((480, 640)), of_picture((480, 640, 3)), of_picture((3, 480, 640))
    ('HW', 'HWC', 'CHW')
    >>> of_picture((480, 640, 31)), of_picture((50, 480, 640)), of_picture((50, 480, 640, 3))
    ('HWC', 'NHW', 'NHWC')
    """
    dims = len(shape)
    if dims < 2:
        raise InputError(f"an array of shape {shape}: an image has two axes or more")
    if dims == 2:
        return "HW"
    if dims <= 5:
        stacked = "NK"[: dims - 3]
        # Two or four images in a stack are captures or frames, not grey or colour with
        # transparency.
        channels = (1, 2, 3, 4) if stacked else (1, 3)
        first = shape[-3] in channels
        last = shape[-1] <= 4
        if first and (channels_first or not last):
            return stacked + "CHW"
        if first or last:
            return stacked + "HWC"
        if dims == 3:
            return "HWC" if bands(shape) else "NHW"
    choice = option("axes", "...")
    raise InputError(f"an array of shape {shape}: which axis is what? {choice} says it")


def of_scenes(shape: Shape) -> str | None:
    """Guess the axes of scenes to train on from the shape; None where it is not clear.

    HW, NHW, HWC, NCHW or NHWC, NKCHW or NKHWC.

    Returns:
        A letter for each axis.

    >>> [of_scenes(shape) for shape in ((50, 480, 640), (480, 640, 3), (480, 640, 31))]
    ['NHW', 'HWC', 'HWC']
    >>> [of_scenes(shape) for shape in ((50, 480, 640, 3), (50, 2, 1, 480, 640))]
    ['NHWC', 'NKCHW']
    """
    if bands(shape):
        _, width, channels = shape
        if channels < width:  # no image is so narrow
            return "HWC"
    dims = len(shape)
    if dims in (2, 3):
        return "NHW"[-dims:]
    if dims not in (4, 5):
        return None
    first = 0 < shape[-3] <= 4
    last = 0 < shape[-1] <= 4
    if first == last:
        return None
    stacked = "NK"[: dims - 3]
    return stacked + ("CHW" if first else "HWC")


def of_volumes(shape: Shape) -> str | None:
    """Guess the axes of volumes from the shape; None where it is not clear.

    DHW, NDHW, CDHW or DHWC, NCDHW or NDHWC with 1 to 4 channels. A small last axis (`bands`) is the
    depth, HWD, as in medical images.

    Returns:
        A letter for each axis.

    >>> of_volumes((64, 96, 96)), of_volumes((256, 256, 40))
    ('DHW', 'HWD')
    >>> of_volumes((2, 64, 96, 96)), of_volumes((30, 64, 96, 96))
    ('CDHW', 'NDHW')
    """
    dims = len(shape)
    if dims == 3:
        depth_last = bands(shape) and shape[-1] > 4
        return "HWD" if depth_last else "DHW"
    if dims not in (4, 5):
        return None
    first = shape[-4] <= 4
    last = shape[-1] <= 4
    if first != last:
        stacked = "N"[: dims - 4]
        return stacked + ("CDHW" if first else "DHWC")
    if dims == 4 and not first:
        return "NDHW"
    return None


def in_space(letters: str) -> str:
    """Return the letters of a volume for those of a stack of pages, which are its planes.

    Letters with a depth, or without one axis of pages, stay as they are.

    >>> in_space("NHW"), in_space("TDHW"), in_space("HW")
    ('DHW', 'TDHW', 'HW')
    """
    if "D" in letters or letters.count("N") != 1:
        return letters
    return letters.replace("N", "D")


def of_one_image(shape: Shape) -> str | None:
    """Guess the axes of a single image from the shape; None where it is not clear.

    >>> of_one_image((480, 640)), of_one_image((480, 640, 4))
    ('HW', 'HWC')
    >>> of_one_image((7, 480, 640)), of_one_image((64, 80, 9))
    ('CHW', 'HWC')
    """
    dims = len(shape)
    if dims == 2:
        return "HW"
    if dims == 3:
        return "HWC" if bands(shape) else "CHW"
    return None


def of_tiff(letters: str, shape: Shape) -> tuple[str, Shape]:
    """Translate the axes of a TIFF series, without axes of length 1 but height and width.

    Samples of a pixel are channels; where there are both, the channels of the stack are images.

    Args:
        letters: tifffile's, one for each axis.
        shape: of the series.

    Returns:
        Letters and shape.

    Raises:
        InputError: there is no height or no width.

    >>> of_tiff("TZCYX", (1, 5, 2, 40, 50)), of_tiff("ICYXS", (7, 2, 40, 50, 3))
    (('DCHW', (5, 2, 40, 50)), ('NNHWC', (7, 2, 40, 50, 3)))
    """
    ours = {
        "Y": "H",
        "X": "W",
        "S": "C",
        "C": "C",
        "T": "T",
        "Z": "D",
    }
    if "S" in letters:
        ours["C"] = "N"
    translated = ""
    for letter in letters:
        translated += ours.get(letter, "N")
    letters, shape = squeezed(translated, shape)
    if not {"H", "W"} <= set(letters):
        raise InputError("holds no image with height and width")
    return letters, shape


def squeezed(letters: str, shape: Shape) -> tuple[str, Shape]:
    """Leave out axes of length 1 but height and width.

    Args:
        letters: one for each axis.
        shape: the lengths.

    Returns:
        Letters and lengths of the other axes.

    >>> squeezed("TCDHW", (1, 2, 1, 40, 1))
    ('CHW', (2, 40, 1))
    """
    names = ""
    lengths: Shape = ()
    for letter, length in zip(letters, shape, strict=True):
        if letter in "HW" or length > 1:
            names += letter
            lengths += (length,)
    return names, lengths


def same_channels(axes: str, stated: str) -> bool:
    """Return True if two readings of an array have the channels on the same axis.

    Args:
        axes: letters of one reading.
        stated: letters of the other, with other numbers of stacked axes perhaps: axes are counted
            from the last one.

    >>> same_channels("NCHW", "CHW"), same_channels("HWC", "CHW"), same_channels("NHW", "CHW")
    (True, False, False)
    """
    if "C" not in axes or "C" not in stated:
        return False
    after = len(axes) - axes.rindex("C")
    stated_after = len(stated) - stated.rindex("C")
    return after == stated_after


def fits(
    axes: str,
    shape: Shape,
    letters: str = LETTERS,
) -> bool:
    """Return True if letters name each axis of an array once, height and width among them.

    Args:
        axes: the letters.
        shape: of the array.
        letters: those that may be used.
    """
    unique = set(axes)
    if not len(unique) == len(axes) == len(shape):
        return False
    return set("HW") <= unique <= set(letters)


def fitted(
    letters: str,
    shape: Shape,
    full: Shape | None = None,
    known: str = LETTERS,
) -> str | None:
    """Fit the letters that a user gives to an array.

    Args:
        letters: one for each axis of the array, or for each axis in the file, those of length 1
            among them.
        shape: of the array, which a reader may have freed of axes of length 1.
        full: the shape in the file, where that differs.
        known: letters that may be used.

    Returns:
        A letter for each axis of the array; None where they do not fit.

    >>> fitted("NHW", (5, 40, 50)), fitted("HW", (5, 40, 50))
    ('NHW', None)
    >>> fitted("TCHW", (5, 40, 50), full=(5, 1, 40, 50))
    'THW'
    """
    if fits(letters, shape, known):
        return letters
    if full is None or not fits(letters, full, known):
        return None
    fitting, lengths = squeezed(letters, full)
    return fitting if lengths == shape else None


def suggested(shape: Shape) -> str:
    """Return letters that would fit an array, in words for messages.

    >>> suggested((5, 40, 50))
    'NHW, CHW, HWC or DHW would fit'
    """
    known = {
        2: "HW",
        3: "NHW, CHW, HWC or DHW",
        4: "NCHW, NHWC, NKHW or NDHW",
        5: "NKCHW, NKHWC or NCDHW",
    }
    fitting = known.get(len(shape))
    if fitting is None:
        return f"use one letter of {LETTERS} per axis"
    return f"{fitting} would fit"


def as_pages(
    array: np.ndarray,
    axes: str,
    dims: int = 2,
) -> np.ndarray:
    """Reorder the axes of an array: stacked ones first, channels last.

    Args:
        array: of any shape.
        axes: its letters.
        dims: 2 for images, 3 for volumes.

    Returns:
        A view, (..., H, W, C) or (..., D, H, W, C); one channel where there is no C, one plane
        where there is no D.

    Raises:
        InputError: the letters do not fit the array, or it holds no pixels.
    """
    if dims == 3 and "D" not in axes:
        array = array[None]
        axes = "D" + axes
    shape = array.shape
    if len(axes) != len(shape) or not _names_pixels(axes):
        reason = f"does not fit an array of shape {shape}; use one letter of {LETTERS} per axis"
        raise InputError("axes", axes, reason)
    if 0 in shape:
        raise InputError(f"an array of shape {shape}: holds no pixels")
    if "C" not in axes:
        array = array[..., None]
        axes += "C"
    stacked = _places_of_others(axes, _inside_page(dims))
    order = "DHWC" if dims == 3 else "HWC"
    in_page = [axes.index(letter) for letter in order]
    return array.transpose(stacked + in_page)


def _names_pixels(axes: str) -> bool:
    """Return True if all letters are known: H and W once, C at most once."""
    if not set(axes) <= set(LETTERS):
        return False
    height_and_width = axes.count("H") == axes.count("W") == 1
    return height_and_width and axes.count("C") <= 1


def _places_of_others(axes: str, letters: str) -> list[int]:
    """Return the numbers of the axes that are none of `letters`."""
    return [i for i, letter in enumerate(axes) if letter not in letters]


def stacked_letters(axes: str, dims: int = 2) -> str:
    """Return the letters of the axes that `as_pages` stacks, in their order.

    Args:
        axes: letters of an array.
        dims: 2 for images, 3 for volumes.

    >>> stacked_letters("KNHWC"), stacked_letters("TDHW"), stacked_letters("TDHW", dims=3)
    ('KN', 'TD', 'T')
    """
    places = _places_of_others(axes, _inside_page(dims))
    return "".join(axes[i] for i in places)


def _inside_page(dims: int) -> str:
    return "CDHW" if dims == 3 else "CHW"


def of_pages(shape: Shape, dims: int = 2) -> tuple[Shape, Shape, int]:
    """Split the shape of what `as_pages` returns.

    Args:
        shape: (..., H, W, C) or (..., D, H, W, C).
        dims: 2 for images, 3 for volumes.

    Returns:
        Stacked lengths, size and number of channels.

    >>> of_pages((5, 40, 50, 3))
    ((5,), (40, 50), 3)
    """
    *others, channels = shape
    stacked = tuple(others[:-dims])
    size = tuple(others[-dims:])
    return stacked, size, channels


def as_captures(
    array: Any,
    axes: str,
    dims: int = 2,
) -> list[Any]:
    """Split a tensor into captures.

    Args:
        array: the tensor.
        axes: its letters. All but K, C, D, H and W are scenes.
        dims: 2 for images, 3 for volumes.

    Returns:
        Each (N, C, H, W) or (N, C, D, H, W); views, unless stacked axes are apart.
    """
    inside = _inside_page(dims)
    needed = "DKC" if dims == 3 else "KC"
    for letter in needed:
        if letter not in axes:
            array = array[None]
            axes = letter + axes
    scenes = _places_of_others(axes, "K" + inside)
    in_capture = [axes.index(letter) for letter in inside]
    array = array.permute(axes.index("K"), *scenes, *in_capture)
    size = array.shape[1 + len(scenes) :]
    captures = array.reshape(len(array), -1, *size)
    return list(captures.unbind(0))
