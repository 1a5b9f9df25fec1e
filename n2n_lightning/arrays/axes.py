"""What the axes of arrays are, by letters: the one place that counts them.

N scenes or images, K captures of a scene, T frames of a movie, D depth, C channels, H height, W
width. Inside the program a batch is (B, C, H, W) or (B, C, D, H, W): the spatial axes are those
after the second.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import numpy as np

from n2n_lightning.files import InputError, option

LETTERS = "NKTDCHW"
LAYOUT = LETTERS  # those that people may say of the arrays they train on
HEIGHT, WIDTH = -2, -1  # of every array that ends in (H, W)
DEPTH = -3  # of those that end in (D, H, W)


# Batches


def spatial(batch: Any) -> range:
    """The numbers of the spatial axes of a batch (B, C, H, W) or (B, C, D, H, W).

    >>> list(spatial(np.zeros((2, 3, 8, 9)))), list(spatial(np.zeros((2, 3, 5, 8, 9))))
    ([2, 3], [2, 3, 4])
    """
    return range(2, batch.ndim)


def deep(batch: Any) -> bool:
    """Whether a batch is of volumes, (B, C, D, H, W)."""
    return len(batch.shape) == 5


def size(batch: Any) -> tuple[int, ...]:
    """(H, W) of a batch (B, C, H, W), (D, H, W) of (B, C, D, H, W)."""
    return tuple(batch.shape[2:])


def channels_last(batch: Any) -> Any:
    """A batch of images in the order of memory that convolutions on a CPU are fastest with; volumes as they are."""
    import torch

    return (
        batch.contiguous(memory_format=torch.channels_last)
        if batch.ndim == 4
        else batch.contiguous()
    )


def cropped(batch: Any, size: Sequence[int]) -> Any:
    """The first `size` pixels along the spatial axes, a view."""
    return batch[(..., *(slice(0, length) for length in size))]


def per_image(values: Any, batch: Any) -> Any:
    """One value per image, (B,), in the shape that it has beside a batch: (B, 1, 1, 1) or (B, 1, 1, 1, 1)."""
    return values.reshape(-1, *[1] * (len(batch.shape) - 1))


def along(values: Any, axis: int, dims: int) -> Any:
    """Values of one of `dims` axes in the shape that they have beside an array of all of them.

    >>> along(np.arange(4), 1, 3).shape
    (1, 4, 1)
    """
    return values.reshape([-1 if k == axis else 1 for k in range(dims)])


def flips(batch: Any) -> Iterator[tuple[int, ...]]:
    """All sets of spatial axes that a batch can be mirrored along: 4 in the plane, 8 in space."""
    axes = spatial(batch)[::-1]
    return chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1))


def evenly(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers 0 to count - 1, evenly spread, the first and the last among them.

    >>> evenly(9, 3), evenly(2, 3)
    ([0, 4, 8], [0, 1])
    """
    return [int(i) for i in np.unique(np.linspace(0, count - 1, most).round().astype(int))]


def quarter_turns(
    size: Sequence[int], spacing: Sequence[float] | None = None
) -> list[tuple[int, int]]:
    """Planes that may be turned by a quarter: pairs of spatial axes, counted from the end, that are alike.

    Args:
        size: (H, W) or (D, H, W).
        spacing: the distance of neighbouring voxels along each; without it depth is unlike height
            and width.

    >>> quarter_turns((64, 64)), quarter_turns((64, 64, 64)), quarter_turns((8, 8, 8), (1.0, 1.0, 1.0))
    ([(-2, -1)], [(-2, -1)], [(-3, -2), (-3, -1), (-2, -1)])
    """
    found = []
    for a, b in combinations(range(-len(size), 0), 2):
        known = spacing is not None and abs(spacing[a] - spacing[b]) < 0.01 * abs(spacing[a])
        if size[a] == size[b] and (known or ((a, b) == (HEIGHT, WIDTH) and spacing is None)):
            found.append((a, b))
    return found


def upright(image: Any, orientation: int) -> Any:
    """An image (C, H, W) as it is meant to be seen, by EXIF's orientation, 1 to 8.

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
    return image.flip(mirrored[orientation]) if orientation in mirrored else image


# Movies


def frames(context: int) -> list[int]:
    """Where the frames that a network is shown lie beside the one that it is not shown, in this order.

    >>> frames(2)
    [-2, -1, 1, 2]
    """
    return [k for k in range(-context, context + 1) if k]


def around(frame: int, k: int, count: int) -> int:
    """The number of the frame that is k away from one of `count`; at the ends the one on the other side of it.

    >>> [around(t, -1, 5) for t in range(5)], around(0, 1, 2), around(1, 2, 2)
    ([1, 0, 1, 2, 3], 1, 0)
    """
    for other in (frame + k, frame - k):
        if 0 <= other < count:
            return other
    return count - 1 if frame < count - 1 - frame else 0


# Arrays of people


def bands(shape: tuple[int, ...]) -> bool:
    """Whether the last axis of a 3D array is its channels: at most 4, or a quarter of each of the other two.

    Cameras and movies hardly have images that are four times as high as wide, in stacks of four
    times as many; a cube of (height, width, bands) has far fewer bands than rows and columns.

    >>> [bands(shape) for shape in ((480, 640, 31), (20, 640, 480), (64, 64, 64), (480, 640, 3), (16, 64, 16))]
    [True, False, False, True, False]
    """
    return len(shape) == 3 and shape[2] > 0 and (shape[2] <= 4 or 4 * shape[2] <= min(shape[:2]))


def of_picture(shape: tuple[int, ...], channels_first: bool = False) -> str:
    """The meaning of the axes of an array whose file does not say it, as a picture or several.

    HW; HWC with 1 to 4 channels, or more where they are `bands`, CHW with 1 or 3, else NHW; NHWC or
    NCHW, NKHWC or NKCHW with 1 to 4.

    Args:
        shape: of the array.
        channels_first: what to take where both would fit, as tensors have it.

    Raises:
        InputError: it is not clear.

    >>> of_picture((480, 640)), of_picture((480, 640, 3)), of_picture((3, 480, 640)), of_picture((50, 480, 640))
    ('HW', 'HWC', 'CHW', 'NHW')
    >>> of_picture((480, 640, 31)), of_picture((50, 480, 640, 3))
    ('HWC', 'NHWC')
    """
    if len(shape) == 2:
        return "HW"
    if len(shape) in (3, 4, 5):
        head = "NK"[: len(shape) - 3]
        # Two or four images one after the other are captures or frames, not grey or colour with
        # transparency.
        first, last = shape[-3] in ((1, 2, 3, 4) if head else (1, 3)), shape[-1] <= 4
        if first or last:
            return head + ("CHW" if first and (channels_first or not last) else "HWC")
        if len(shape) == 3:
            return "HWC" if bands(shape) else "NHW"
    if len(shape) < 2:
        raise InputError(f"an array of shape {shape}: an image has two axes or more")
    raise InputError(
        f"an array of shape {shape}: which axis is what? {option('axes', '...')} says it"
    )


def of_scenes(shape: tuple[int, ...]) -> str | None:
    """The same as of scenes to train on: HW, NHW, HWC, NCHW or NHWC, NKCHW or NKHWC; None where it is not clear.

    >>> [of_scenes(shape) for shape in ((50, 480, 640), (50, 480, 640, 3), (50, 2, 1, 480, 640), (480, 640, 3))]
    ['NHW', 'NHWC', 'NKCHW', 'HWC']
    >>> of_scenes((480, 640, 31))
    'HWC'
    """
    if bands(shape) and shape[-1] < shape[-2]:  # no image is so narrow
        return "HWC"
    if len(shape) in (2, 3):
        return "NHW"[-len(shape) :]
    few = [0 < n <= 4 for n in shape]
    if len(shape) in (4, 5) and few[-3] != few[-1]:
        return "NK"[: len(shape) - 3] + ("CHW" if few[-3] else "HWC")
    return None


def of_volumes(shape: tuple[int, ...]) -> str | None:
    """The same as of volumes: DHW, NDHW, CDHW or DHWC, NCDHW or NDHWC with 1 to 4 channels; None where it is not clear.

    A small last axis (`bands`) is no width here either: it is the depth, HWD, as medical images
    have it.

    >>> of_volumes((64, 96, 96)), of_volumes((2, 64, 96, 96)), of_volumes((30, 64, 96, 96)), of_volumes((256, 256, 40))
    ('DHW', 'CDHW', 'NDHW', 'HWD')
    """
    if len(shape) == 3:
        return "HWD" if bands(shape) and shape[-1] > 4 else "DHW"
    if len(shape) in (4, 5):
        first, last = shape[-4] <= 4, shape[-1] <= 4
        if first != last:
            return "N"[: len(shape) - 4] + ("CDHW" if first else "DHWC")
        return "NDHW" if len(shape) == 4 and not first else None
    return None


def in_space(letters: str) -> str:
    """The letters of volumes for those of a stack of pages: its pages are planes, where it does not say more.

    >>> in_space("NHW"), in_space("TDHW"), in_space("HW")
    ('DHW', 'TDHW', 'HW')
    """
    return letters if "D" in letters or letters.count("N") != 1 else letters.replace("N", "D")


def of_one_image(shape: tuple[int, ...]) -> str | None:
    """The same as of a single image; None where it is not clear.

    >>> of_one_image((480, 640)), of_one_image((480, 640, 4)), of_one_image((7, 480, 640)), of_one_image((64, 80, 9))
    ('HW', 'HWC', 'CHW', 'HWC')
    """
    return {2: "HW", 3: "HWC" if bands(shape) else "CHW"}.get(len(shape))


def of_tiff(letters: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Axes and shape of a TIFF series in our letters, without axes of length 1 that are not height and width.

    Samples of a pixel are channels; where there are both, what the stack calls channels are images
    of their own.

    >>> of_tiff("TZCYX", (1, 5, 2, 40, 50)), of_tiff("ICYXS", (7, 2, 40, 50, 3))
    (('DCHW', (5, 2, 40, 50)), ('NNHWC', (7, 2, 40, 50, 3)))
    """
    ours = {"Y": "H", "X": "W", "S": "C", "C": "N" if "S" in letters else "C", "T": "T", "Z": "D"}
    letters, shape = squeezed("".join(ours.get(letter, "N") for letter in letters), shape)
    if not {"H", "W"} <= set(letters):
        raise InputError("holds no image with height and width")
    return letters, shape


def squeezed(letters: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Letters and lengths without axes of length 1 that are not height and width.

    >>> squeezed("TCDHW", (1, 2, 1, 40, 1))
    ('CHW', (2, 40, 1))
    """
    kept = [
        (letter, n) for letter, n in zip(letters, shape, strict=True) if letter in "HW" or n > 1
    ]
    return "".join(letter for letter, _ in kept), tuple(n for _, n in kept)


def has_alpha(array: Any, axes: str, looked_at: int = 64) -> bool:
    """Whether the last of four channels is transparency, where its file does not say it, judged by the values.

    Transparency has next to no noise: it is constant, or equal to its neighbours in most places, or
    a smooth ramp. A fourth band, such as the near infrared of satellites, has noise and texture
    like the other three.

    Args:
        array: the values, in the axes of `axes`.
        axes: its letters.
        looked_at: rows that are looked at, evenly spread over those of each of a few stacked
            images.

    Returns:
        True for transparency; False for other numbers of channels, and for channels that are not
        the last axis.
    """
    if not axes.endswith("C") or array.shape[-1] != 4:
        return False
    pages = as_pages(array, axes)
    places = list(np.ndindex(*pages.shape[:-3]))
    rows = np.concatenate([_some_rows(pages[places[i]], looked_at) for i in evenly(len(places), 3)])
    fourth = rows[..., 3]
    if not np.isfinite(fourth).all() or fourth.min() < 0:
        return False
    if fourth.min() == fourth.max():
        return True
    edges = ((fourth == 0) | (fourth == fourth.max())).mean()
    others = [_roughness(rows[..., k]) for k in range(3)]
    roughness = _roughness(fourth)
    # drawings, few photons: neighbours are equal in all channels
    if roughness == 0 and min(others) == 0:
        colours = ((rows[..., :3] == 0) | (rows[..., :3] == np.nanmax(rows[..., :3]))).mean()
        return bool(edges >= 0.9 > colours)
    return bool(roughness < 0.1 * min(others))


def _some_rows(page: Any, count: int) -> np.ndarray:
    """Up to `count` rows of a page (H, W, C), evenly spread, float64."""
    return np.asarray(page[evenly(page.shape[0], count)], np.float64)


def _roughness(rows: np.ndarray) -> float:
    """Median of the absolute second differences along rows (..., W), in units of the deviation of all values."""
    if rows.shape[-1] < 3:
        return 0.0
    with np.errstate(invalid="ignore"):
        steps = np.abs(np.diff(rows, 2, axis=-1))
        known, deviation = (
            steps[np.isfinite(steps)],
            float(np.nanstd(np.where(np.isfinite(rows), rows, np.nan))),
        )
    return float(np.median(known)) / deviation if known.size and deviation else 0.0


def same_channels(axes: str, stated: str) -> bool:
    """Tell whether the channels are on the same axis, counted from the last one, in two readings of an array.

    >>> same_channels("NCHW", "CHW"), same_channels("HWC", "CHW"), same_channels("NHW", "CHW")
    (True, False, False)
    """
    return "C" in axes and "C" in stated and axes[::-1].index("C") == stated[::-1].index("C")


def fits(axes: str, shape: tuple[int, ...], letters: str = LETTERS) -> bool:
    """Whether `axes` names each axis of an array once, by some of `letters`, height and width among them."""
    return (
        len(axes) == len(shape)
        and len(set(axes)) == len(axes)
        and set("HW") <= set(axes) <= set(letters)
    )


def fitted(
    letters: str, shape: tuple[int, ...], full: tuple[int, ...] | None = None, known: str = LETTERS
) -> str | None:
    """The letters of an array's axes from those that a person names; None where they do not fit.

    Args:
        letters: one for each axis of the array, or for each axis that the file has, those of length
            1 among them.
        shape: of the array, which a reader may have freed of axes of length 1.
        full: the shape in the file, where that differs.
        known: letters that may be used.

    >>> fitted("NHW", (5, 40, 50)), fitted("TCHW", (5, 40, 50), (5, 1, 40, 50)), fitted("HW", (5, 40, 50))
    ('NHW', 'THW', None)
    """
    if fits(letters, shape, known):
        return letters
    if full is not None and fits(letters, full, known):
        kept, lengths = squeezed(letters, full)
        return kept if lengths == shape else None
    return None


def suggested(shape: tuple[int, ...]) -> str:
    """Letters that would fit an array of this shape, for messages.

    >>> suggested((5, 40, 50))
    'NHW, CHW, HWC or DHW would fit'
    """
    known = {
        2: "HW",
        3: "NHW, CHW, HWC or DHW",
        4: "NCHW, NHWC, NKHW or NDHW",
        5: "NKCHW, NKHWC or NCDHW",
    }
    return (
        f"{known[len(shape)]} would fit"
        if len(shape) in known
        else f"use one letter of {LETTERS} per axis"
    )


@dataclass(frozen=True)
class Layout:
    """How an array was read: what a checkpoint keeps, so that it is applied as it was trained.

    Attributes:
        axes: the letters that were taken.
        shape: of the array.
        stated: the letters that the file itself states; None where it states none.
        assumed: nobody said it: neither the person nor the file.
    """

    axes: str
    shape: tuple[int, ...]
    stated: str | None = None
    assumed: bool = False

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> "Layout | None":
        """That of a checkpoint, from plain data; None where it has none that can be used."""
        try:
            found = cls(
                str(stored["axes"]), tuple(int(n) for n in stored["shape"]), stored.get("stated")
            )  # type: ignore[index,union-attr]
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return found if len(found.axes) == len(found.shape) else None

    def line(self) -> str:
        """What to say of a 3D or larger array of which nobody said what its axes are."""
        return (
            f"read as {words(self.axes, self.shape)} ({self.axes})"
            if self.assumed and len(self.shape) > 2
            else ""
        )

    def plain(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"axes": self.axes, "shape": list(self.shape), "stated": self.stated}

    def suits(self, shape: tuple[int, ...], stated: str | None) -> bool:
        """Whether an array is of the same kind: its file states the same, and its shape differs only in lengths.

        Channels must be as many, and a small last axis is one in both arrays or in neither.
        """
        if len(shape) != len(self.shape) or stated != self.stated:
            return False
        same = all(
            a == b
            for letter, a, b in zip(self.axes, shape, self.shape, strict=True)
            if letter == "C"
        )
        return same and bands(shape[-3:]) == bands(self.shape[-3:])


def words(axes: str, shape: tuple[int, ...], alpha: bool = False) -> str:
    """What an array is, for people.

    >>> words("NHW", (20, 480, 640)), words("HWC", (480, 640, 4), alpha=True)
    ('20 images of 480 x 640', 'an image of 480 x 640 with 3 channels and transparency')
    >>> words("NKHW", (6, 4, 40, 50)), words("DHW", (30, 40, 50))
    ('6 scenes x 4 captures of 40 x 50', 'a volume of 30 x 40 x 50')
    """
    length = dict(zip(axes, shape, strict=True))
    deep = "D" in length
    nouns = {
        "N": "scenes" if "K" in length else "volumes" if deep else "images",
        "K": "captures",
        "T": "frames",
    }
    stacked = [
        f"{n} {nouns[letter]}" for letter, n in zip(axes, shape, strict=True) if letter in nouns
    ]
    size = " x ".join(str(length[letter]) for letter in "DHW" if letter in length)
    what = f"{' x '.join(stacked) or ('a volume' if deep else 'an image')} of {size}"
    channels = length.get("C", 1) - alpha
    told = f" with {channels} channel{'s'[: channels != 1]}" if "C" in length else ""
    return what + told + (" and transparency" if alpha else "")


def as_pages(array: np.ndarray, axes: str, dims: int = 2) -> np.ndarray:
    """A view of the array as (..., H, W, C), stacked axes first; one channel where there is no C.

    Args:
        array: of any shape.
        axes: its letters.
        dims: 3 for volumes, (..., D, H, W, C): one plane where there is no D.

    Raises:
        InputError: the letters do not fit the array, or it holds no pixels.
    """
    if dims == 3 and "D" not in axes:
        array, axes = array[None], "D" + axes
    inside = "CDHW" if dims == 3 else "CHW"
    stacked = [i for i, letter in enumerate(axes) if letter not in inside]
    once = "".join(letter for letter in axes if letter in "CHW")
    if (
        len(axes) != array.ndim
        or not set(axes) <= set(LETTERS)
        or sorted(once) not in (["H", "W"], ["C", "H", "W"])
    ):
        raise InputError(
            "axes",
            axes,
            f"does not fit an array of shape {array.shape}; use one letter of {LETTERS} per axis",
        )
    if 0 in array.shape:
        raise InputError(f"an array of shape {array.shape}: holds no pixels")
    if "C" not in axes:
        array, axes = array[..., None], axes + "C"
    return array.transpose([*stacked, *(axes.index(letter) for letter in "DHWC"[3 - dims :])])


def stacked_letters(axes: str, dims: int = 2) -> str:
    """Return the letters of the axes that `as_pages` stacks, in their order.

    >>> stacked_letters("KNHWC"), stacked_letters("TDHW"), stacked_letters("TDHW", dims=3)
    ('KN', 'TD', 'T')
    """
    inside = "CDHW" if dims == 3 else "CHW"
    return "".join(letter for letter in axes if letter not in inside)


def of_pages(shape: tuple[int, ...], dims: int = 2) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Stacked lengths, size and channels of what `as_pages` gives.

    >>> of_pages((5, 40, 50, 3))
    ((5,), (40, 50), 3)
    """
    return shape[: -1 - dims], shape[-1 - dims : -1], shape[-1]


def as_captures(array: Any, axes: str, dims: int = 2) -> list[Any]:
    """The captures in a tensor, each (N, C, H, W): views, unless stacked axes do not lie side by side.

    Args:
        array: the tensor.
        axes: its letters. All but K, C, H and W are scenes.
        dims: 3 for volumes, (N, C, D, H, W).
    """
    inside = "CDHW" if dims == 3 else "CHW"
    if dims == 3 and "D" not in axes:
        array, axes = array[None], "D" + axes
    for letter in "KC":
        if letter not in axes:
            array, axes = array[None], letter + axes
    scenes = [i for i, letter in enumerate(axes) if letter not in "K" + inside]
    array = array.permute(axes.index("K"), *scenes, *(axes.index(letter) for letter in inside))
    return list(array.reshape(len(array), -1, *array.shape[1 + len(scenes) :]).unbind(0))
