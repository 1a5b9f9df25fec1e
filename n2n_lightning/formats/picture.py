"""What all kinds of files have in common: a file is opened as a Picture, and comes out as it went in."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from n2n_lightning.arrays.axes import (
    Layout,
    fitted,
    of_picture,
    of_volumes,
    same_channels,
    suggested,
    words,
)
from n2n_lightning.arrays.transparency import has_alpha
from n2n_lightning.files import InputError, option, room, some_of

# Types of values that are trained on, scored and denoised, in every kind of file that can hold
# them.
TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
# Colours of each 2 x 2 pixels of a colour camera before demosaicking.
MOSAICS = ("RGGB", "BGGR", "GRBG", "GBRG")
# A file that unpacks to more than this many bytes must not be smaller than a share of them.
LARGE, RATIO = 2**30, 300
SHOWN = 20  # names of arrays that a message lists


@dataclass(frozen=True)
class Packed:
    """An array that is unpacked when it is asked for: what opens a file often wants to know its axes alone.

    Attributes:
        shape, dtype: of the array.
        unpacked: makes it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    unpacked: Callable[[], np.ndarray]


@dataclass
class Values:
    """An array of a picture: its pixels, and what the file says of them.

    Attributes:
        stored: an array of a type in TYPES, mapped from the file where its kind allows that, or
            what unpacks it.
        axes: what the axes are (axes.LETTERS); None where the file does not say it.
        assumed: the file does not state `axes`: they are what such files mostly hold (pages of a
            TIFF: images).
        full: the shape in the file, where axes of length 1 were left out.
        alpha: the file says that the last channel is transparency.
        colour: the channels are colours of one picture.
        nodata_values: values that mean, as the file says, that a pixel is missing.
        spacing: of volumes, the distance of neighbouring voxels along D, H and W, in the file's
            unit.
        unit: (factor, offset) that make of stored values what they mean, where the file says them.
        mosaic: the colours of each 2 x 2 pixels, of a colour camera's frame before demosaicking:
            RGGB; or empty.
        invalid: bool, in the array's shape: True where a pixel is missing whatever its value is.
    """

    stored: np.ndarray | Packed
    axes: str | None = None
    alpha: bool = False
    colour: bool = True
    nodata_values: tuple[float, ...] = ()
    spacing: tuple[float, float, float] | None = None
    unit: tuple[float, float] = (1.0, 0.0)
    invalid: np.ndarray | None = None
    mosaic: str = ""
    assumed: bool = False
    full: tuple[int, ...] | None = None

    @cached_property
    def array(self) -> np.ndarray:
        """The values.

        Raises:
            InputError: they are damaged.
        """
        return self.stored.unpacked() if isinstance(self.stored, Packed) else self.stored

    @property
    def measured(self) -> np.ndarray:
        """The array, with NaN where a pixel is invalid; integers with such a mask become float32."""
        if self.invalid is None:
            return self.array
        kept = self.dtype.kind == "f"
        result: np.ndarray = room(self.shape, self.dtype.newbyteorder("=") if kept else np.float32)
        for place in range(len(result)):  # one piece of a mapped array at a time
            result[place] = np.where(self.invalid[place], np.nan, self.array[place])
        return result

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the array."""
        return self.stored.dtype


@dataclass(frozen=True)
class AskedAxes:
    """What decides the axes of arrays, beside what their files state.

    Attributes:
        said: the letters that the person names; they count for more than anything else.
        layout: how the arrays were read that the checkpoint was trained on.
        dims: the spatial axes that the checkpoint takes: 2, or 3 of volumes.
    """

    said: str | None = None
    layout: Layout | None = None
    dims: int = 2

    @classmethod
    def of(cls, options: Any) -> "AskedAxes":
        """That of a command's options: `axes`, and, where a checkpoint was loaded, `trained_layout` and `dims`."""
        return cls(
            options.axes, getattr(options, "trained_layout", None), getattr(options, "dims", 2)
        )


@dataclass(frozen=True)
class ReadAs:
    """How an array of a picture is read.

    Attributes:
        axes: its letters.
        alpha: the last channel is transparency.
        colour: the channels are colours of one picture.
        line: what to say of it, without the file's name; empty where the person or the file said
            it.
    """

    axes: str
    alpha: bool
    colour: bool
    line: str = ""


class Picture:
    """A file that was opened: what it holds, and how a file like it is written.

    A kind of file is a class of its own, which fills `values` when it is made, and says how they
    are saved.

    Args:
        path: the file.
        part: the name of one of its arrays, where a file has several.

    Attributes:
        values: the arrays: one, but for TIFF files with pages of several kinds, and tuples of
            captures.
        note: what cannot stay as it is, in words.
        orientation: EXIF's, 1 to 8: how the pixels are turned to be seen. Written files keep pixels
            and orientation.
        sources: files other than `path` that the values come from.
        mask: its values have 1 bit, so that it is copied; `values` has them as 0 and another
            number.

    Raises:
        InputError: the file cannot come out as it went in.
        Exception: it is damaged; every library has exceptions of its own for that.
    """

    kind: ClassVar[str]
    named: ClassVar[bool] = False  # files of this kind have several arrays, with names
    tuples: ClassVar[bool] = False  # several arrays of a file are captures of the same scenes
    channels_first: ClassVar[bool] = False  # as tensors have them, where both would fit
    # what has a depth is meant as a volume, not as a stack of pages
    volumes: ClassVar[bool] = False
    # a file like one of integers can hold float32 in their place, see _save_as
    floats: ClassVar[bool] = False
    # files of this kind cannot hold anything else than they state
    fixed_axes: ClassVar[bool] = False

    def __init__(self, path: Path, part: str | None = None) -> None:
        self.path, self.part = path, part
        self.values: list[Values] = []
        self.note = ""
        self.orientation = 1
        self.sources: list[Path] = []
        self.mask = False

    def meaning(self, values: Values, axes: str | None = None) -> tuple[str, bool]:
        """What the axes of one of `values` are, as of a picture, and whether its last channel is transparency.

        Args:
            values: the array.
            axes: what they are; None takes what the file states, or guesses (axes.of_picture).

        Raises:
            InputError: `axes` does not fit, or there is no telling.
        """
        found = self.read_as(values, AskedAxes(axes))
        return found.axes, found.alpha

    def read_as(self, values: Values, asked: AskedAxes) -> ReadAs:
        """Decide what the axes of an array are.

        What the person says counts most, then how the checkpoint was trained on arrays of this
        kind, then what the file states, then what its shape suggests.

        Args:
            values: one of the arrays of this picture.
            asked: what the person and the checkpoint say.

        Returns:
            The letters, and what to say of them where nobody stated them.

        Raises:
            InputError: what the person says does not fit, or there is no telling.
        """
        shape, stated, learnt = values.shape, values.axes, asked.layout
        if asked.said and (said := self._said(values, asked)):
            # What a person calls channels, in a file that has none, are colours, as in an array
            # without a file.
            named = stated is not None and "C" in said and "C" not in stated
            return self._decided(values, said, values.colour or named)
        if learnt is not None and learnt.suits(shape, stated):
            trained = None if learnt.axes == stated else "as the checkpoint was trained"
            return self._decided(values, learnt.axes, values.colour, trained)
        if stated is not None:
            return self._decided(values, stated, values.colour, "" if values.assumed else None)
        try:
            guess = of_volumes(shape) if asked.dims == 3 else None
            return self._decided(
                values, guess or of_picture(shape, self.channels_first), values.colour, ""
            )
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None

    def _said(self, values: Values, asked: AskedAxes) -> str | None:
        """The letters that the person names; None where they are meant for another array of the file."""
        said, shape = str(asked.said), values.shape
        letters = fitted(said, shape, values.full)
        if letters is not None and not (self.fixed_axes and letters != values.axes):
            return letters
        if len(self.values) > 1 and any(fitted(said, v.shape, v.full) for v in self.values):
            return None
        full = "" if values.full in (None, shape) else f" (in the file {values.full})"
        more = f"a {self.kind} picture is {values.axes}" if self.fixed_axes else suggested(shape)
        raise InputError(
            f"{self.path}: its shape is {shape}{full}; {option('axes', said)} does not fit; {more}"
        )

    def _decided(self, values: Values, axes: str, colour: bool, why: str | None = None) -> ReadAs:
        """How an array is read by some letters; `why` is None where there is nothing to say of them."""
        shape = values.shape
        alpha = values.alpha and values.axes is not None and same_channels(axes, values.axes)
        if values.axes is None and axes.endswith("C") and shape[axes.index("C")] == 4:
            # judged by the values, so it is said
            alpha, why = has_alpha(values.array, axes), why or ""
        if why is None or len(shape) < 3:
            return ReadAs(axes, alpha, colour)
        line = f"read as {words(axes, shape, alpha)} ({axes})"
        return ReadAs(
            axes, alpha, colour, f"{line}{', ' * bool(why)}{why}; {option('axes')} says otherwise"
        )

    @contextlib.contextmanager
    def written(
        self, path: Path, dtypes: Sequence[np.dtype | None] | None = None
    ) -> Iterator[list[np.ndarray]]:
        """Arrays like those of `values`, to be filled; at the end the file `path` has them.

        The list is empty afterwards: where arrays are mapped, nothing may hold the file when it is
            renamed (Windows).

        Args:
            path: the file to write.
            dtypes: of each array the type of its result, float32 in place of an integer type where
                the class says that its files can hold it (`floats`); None: the type of the source.
        """
        self._refuse()
        changed = self._changed(dtypes or [None] * len(self.values))
        shapes = [v.shape for v in self.values]
        results = (
            [room(s, d) for s, d in zip(shapes, changed, strict=True)]
            if changed
            else self._begin(path)
        )
        yield results
        (self._save_as if changed else self._save)(path, results)
        results.clear()

    def _refuse(self) -> None:
        """Raise InputError where no file like this one can be written with what was chosen of it."""

    def _changed(self, dtypes: Sequence[np.dtype | None]) -> list[np.dtype]:
        """The types of the results, where one differs from the source's; else an empty list."""
        found = [
            v.dtype if d is None else np.dtype(d) for v, d in zip(self.values, dtypes, strict=True)
        ]
        if [d.name for d in found] == [v.dtype.name for v in self.values]:
            return []
        if not self.floats:
            raise InputError(f"a {self.kind} file cannot hold float32")
        return found

    def _begin(self, path: Path) -> list[np.ndarray]:
        return [np.empty(v.shape, v.dtype) for v in self.values]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        raise NotImplementedError

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        """Writes results of which some are float32 where the source has integers."""
        raise NotImplementedError


def check_size(stored: int, unpacked: int) -> None:
    """Raises InputError for a decompression bomb."""
    if unpacked > LARGE and unpacked > RATIO * stored:
        raise InputError(
            f"would unpack {stored:,} bytes to {unpacked:,}, which no photograph does; it is not"
            " read"
        )


def components(name: str) -> list[str]:
    """The names that a path inside a file consists of.

    >>> components("/entry//data/./first")
    ['entry', 'data', 'first']
    """
    return [word for word in name.split("/") if word not in ("", ".")]


def chosen(path: Path, part: str | None, names: list[str]) -> str:
    """The array of a file that `part` names, or the only one that there is.

    Raises:
        InputError: there is none of this name, or there are several.
    """
    if part is None and len(names) == 1:
        return names[0]
    same = [
        n for n in names if part is not None and (n == part or components(n) == components(part))
    ]
    if same:
        return part if part in same else same[0]
    if not names:
        raise InputError("holds no arrays")
    asked = f"has no array {part!r}" if part else "holds several arrays"
    raise InputError(f"{asked}; name one: {some_of([f'{path.name}:{n}' for n in names], SHOWN)}")
