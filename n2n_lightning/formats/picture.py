"""Base class of all kinds of files: a file is opened as a Picture and written as it was read."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from n2n_lightning.arrays.axes import (
    fitted,
    of_picture,
    of_volumes,
    same_channels,
    suggested,
)
from n2n_lightning.arrays.layout import Layout, words
from n2n_lightning.arrays.transparency import has_alpha
from n2n_lightning.files import InputError, option, room, some_of
from n2n_lightning.formats.regions import Regions

# Types of values that are trained on, scored and denoised, in every kind of file that can hold
# them.
TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
# Colours of each 2 x 2 pixels of a colour camera before demosaicking.
MOSAICS = ("RGGB", "BGGR", "GRBG", "GBRG")
# A file that unpacks to more than BOMB_BYTES bytes and to more than BOMB_RATIO times its size is a
# decompression bomb: no photograph does that.
BOMB_BYTES = 2**30
BOMB_RATIO = 300
LISTED_ARRAYS = 20  # names of arrays that a message lists


@dataclass(frozen=True)
class Packed:
    """An array that is unpacked on demand: the caller often needs its axes alone.

    Attributes:
        shape, dtype: of the array.
        unpacked: returns the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    unpacked: Callable[[], np.ndarray]


@dataclass
class Values:
    """An array of a picture: its pixels, and what the file says of them.

    Attributes:
        stored: an array of a type in TYPES, mapped from the file where its kind allows that, or
            a Packed array.
        axes: the letters of the axes (axes.LETTERS); None if the file does not state them.
        assumed: the file does not state `axes`; they are the usual ones of its kind (pages of a
            TIFF: images).
        full: the shape in the file, if axes of length 1 were left out.
        alpha: the file says that the last channel is transparency.
        colour: the channels are colours of one picture.
        nodata_values: values that the file declares to mean a missing pixel.
        spacing: voxel spacing of volumes along D, H and W, in the file's unit.
        unit: (factor, offset) from stored to physical values, if the file states them.
        mosaic: colours of each 2 x 2 pixels of a raw frame before demosaicking, as RGGB; or empty.
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
        if isinstance(self.stored, Packed):
            return self.stored.unpacked()
        return self.stored

    @property
    def measured(self) -> np.ndarray:
        """The array with NaN at invalid pixels.

        Returns:
            The array itself if no pixel is invalid; else a copy, float32 for integers.
        """
        if self.invalid is None:
            return self.array
        dtype = np.dtype(np.float32)
        if self.dtype.kind == "f":
            dtype = self.dtype.newbyteorder("=")
        result: np.ndarray = room(self.shape, dtype)
        for place in range(len(result)):  # one piece of a mapped array at a time
            result[place] = np.where(self.invalid[place], np.nan, self.array[place])
        return result

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.stored.dtype


@dataclass(frozen=True)
class AskedAxes:
    """Choices of the axes of arrays besides what their files state.

    Attributes:
        said: the letters that the person names; they override everything else.
        layout: the layout of the arrays that the checkpoint was trained on.
        dims: the number of spatial axes that the checkpoint takes: 2, or 3 for volumes.
    """

    said: str | None = None
    layout: Layout | None = None
    dims: int = 2


@dataclass(frozen=True)
class ReadAs:
    """The interpretation of an array's axes.

    Attributes:
        axes: its letters.
        alpha: the last channel is transparency.
        colour: the channels are colours of one picture.
        line: a remark without the file's name; empty if the person or the file stated the axes.
    """

    axes: str
    alpha: bool
    colour: bool
    line: str = ""


class Picture:
    """An open file: its arrays, and how to write a file like it.

    Each kind of file is a subclass that fills `values` in `_read` and defines how they are saved.

    Args:
        path: the file.
        part: the name of one of its arrays, if a file has several.

    Attributes:
        values: the arrays: one, except for TIFF files with pages of several kinds and tuples of
            captures.
        note: what cannot stay as it is, in words.
        orientation: EXIF orientation, 1 to 8. Written files keep pixels and orientation.
        sources: files other than `path` that the values come from.
        mask: the values have 1 bit, so the file is copied; `values` holds them as 0 and another
            number.

    Raises:
        InputError: the file cannot be written as it was read.
        Exception: it is damaged; each library raises exceptions of its own for that.
    """

    kind: ClassVar[str]
    named: ClassVar[bool] = False  # files of this kind have several arrays, with names
    tuples: ClassVar[bool] = False  # several arrays of a file are captures of the same scenes
    channels_first: ClassVar[bool] = False  # as in tensors, if channels could be first or last
    # an array with a depth is a volume, not a stack of pages
    volumes: ClassVar[bool] = False
    # a file like one of integers can hold float32 in their place, see _save_as
    floats: ClassVar[bool] = False
    # files of this kind can hold no other axes than they state
    fixed_axes: ClassVar[bool] = False

    def __init__(self, path: Path, part: str | None = None) -> None:
        self.path = path
        self.part = part
        self.values: list[Values] = []
        self.note = ""
        self.orientation = 1
        self.sources: list[Path] = []
        self.mask = False
        self._read()

    def _read(self) -> None:
        """Fill `values` from the file, and the other attributes where they differ."""

    def _remark(self, words: str) -> None:
        """Add to the note."""
        if self.note:
            words = f"{self.note}; {words}"
        self.note = words

    def _check_size(self, unpacked: int) -> None:
        """Refuse a decompression bomb.

        Args:
            unpacked: size of the values in bytes.

        Raises:
            InputError: it exceeds BOMB_BYTES, and the size of the files by a factor of BOMB_RATIO.
        """
        files = {self.path, *self.sources}
        stored = sum(file.stat().st_size for file in files if file.exists())
        if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * stored:
            raise InputError(
                f"would unpack {stored:,} bytes to {unpacked:,}, which no photograph does;"
                " it is not read"
            )

    def meaning(self, values: Values, axes: str | None = None) -> tuple[str, bool]:
        """Return the axes of one of `values`, as of a picture.

        Args:
            values: the array.
            axes: its letters; None takes what the file states, or guesses (axes.of_picture).

        Returns:
            The letters, and True if the last channel is transparency.

        Raises:
            InputError: `axes` does not fit, or the shape is ambiguous.
        """
        interpretation = self.read_as(values, AskedAxes(axes))
        return interpretation.axes, interpretation.alpha

    def read_as(self, values: Values, asked: AskedAxes) -> ReadAs:
        """Decide the axes of an array.

        In order of precedence: what the person says, how the checkpoint was trained on arrays of
        this kind, what the file states, what the shape suggests.

        Args:
            values: one of the arrays of this picture.
            asked: what the person and the checkpoint say.

        Returns:
            The letters, and a remark on them if nobody stated them.

        Raises:
            InputError: what the person says does not fit, or the shape is ambiguous.
        """
        stated = values.axes
        said = self._said_axes(values, asked)
        if said:
            # Channels that the person names and the file does not state are colours, as in an
            # array without a file.
            named = stated is not None and "C" in said and "C" not in stated
            return self._interpreted(values, said, values.colour or named)
        trained = asked.layout
        if trained is not None and trained.suits(values.shape, stated):
            reason = None
            if trained.axes != stated:
                reason = "as the checkpoint was trained"
            return self._interpreted(values, trained.axes, values.colour, reason)
        if stated is not None:
            reason = "" if values.assumed else None
            return self._interpreted(values, stated, values.colour, reason)
        try:
            return self._interpreted(values, self._guess(values, asked.dims), values.colour, "")
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None

    def _guess(self, values: Values, dims: int) -> str:
        """Return the letters that the shape suggests."""
        letters = None
        if dims == 3:
            letters = of_volumes(values.shape)
        return letters or of_picture(values.shape, self.channels_first)

    def _said_axes(self, values: Values, asked: AskedAxes) -> str | None:
        """Return the letters that the person names; None if they suit another array of the file."""
        if not asked.said:
            return None
        said = str(asked.said)
        shape = values.shape
        letters = fitted(said, shape, values.full)
        if letters is not None and not (self.fixed_axes and letters != values.axes):
            return letters
        if len(self.values) > 1:
            fits = [fitted(said, other.shape, other.full) for other in self.values]
            if any(fits):
                return None
        full = ""
        if values.full not in (None, shape):
            full = f" (in the file {values.full})"
        advice = suggested(shape)
        if self.fixed_axes:
            advice = f"a {self.kind} picture is {values.axes}"
        raise InputError(
            f"{self.path}: its shape is {shape}{full}; {option('axes', said)} does not fit;"
            f" {advice}"
        )

    def _interpreted(
        self, values: Values, axes: str, colour: bool, reason: str | None = None
    ) -> ReadAs:
        """Return the interpretation of an array by some letters.

        Args:
            values: the array.
            axes: its letters.
            colour: the channels are colours of one picture.
            reason: why the letters were chosen, for the remark; None for no remark.
        """
        shape = values.shape
        alpha = values.alpha and values.axes is not None and same_channels(axes, values.axes)
        unstated = values.axes is None and axes.endswith("C")
        if unstated and shape[axes.index("C")] == 4:
            # decided from the pixels, so the person is told
            alpha = has_alpha(values.array, axes)
            reason = reason or ""
        if reason is None or len(shape) < 3:
            return ReadAs(axes, alpha, colour)
        line = f"read as {words(axes, shape, alpha)} ({axes})"
        if reason:
            line += f", {reason}"
        return ReadAs(axes, alpha, colour, f"{line}; {option('axes')} says otherwise")

    def regions(self) -> Regions | None:
        """Return the only array as what is read and written region by region; None: as a whole."""
        return None

    @contextlib.contextmanager
    def written(
        self, path: Path, dtypes: Sequence[np.dtype | None] | None = None
    ) -> Iterator[list[np.ndarray]]:
        """Yield arrays like those of `values`, to be filled; on exit the file `path` has them.

        The list is empty afterwards: where arrays are mapped, nothing may hold the file when it is
        renamed (Windows).

        Args:
            path: the file to write.
            dtypes: the type of each result: float32 in place of an integer type if the class
                allows it (`floats`); None: the type of the source.

        Yields:
            The results, uninitialised or with the values of the source.

        Raises:
            InputError: no file like this one can be written, or not with these types.
        """
        self._refuse()
        changed = self._changed_types(dtypes or [None] * len(self.values))
        if changed:
            results = [room(v.shape, d) for v, d in zip(self.values, changed, strict=True)]
            save = self._save_as
        else:
            results = self._begin(path)
            save = self._save
        yield results
        save(path, results)
        results.clear()

    def _refuse(self) -> None:
        """Raise InputError if no file like this one can be written with the chosen part."""

    def _changed_types(self, dtypes: Sequence[np.dtype | None]) -> list[np.dtype]:
        """Return the types of the results if one differs from its source, else an empty list."""
        asked: list[np.dtype] = []
        for values, dtype in zip(self.values, dtypes, strict=True):
            asked.append(values.dtype if dtype is None else np.dtype(dtype))
        stored = [values.dtype.name for values in self.values]
        if [dtype.name for dtype in asked] == stored:
            return []
        if not self.floats:
            raise InputError(f"a {self.kind} file cannot hold float32")
        return asked

    def _begin(self, path: Path) -> list[np.ndarray]:
        """Return arrays for the results; a subclass may map them into `path`."""
        return [room(v.shape, v.dtype) for v in self.values]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        """Write the results, each of its source's type."""
        raise NotImplementedError

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        """Write results of which at least one is float32 and its source of integers."""
        self._save(path, results)


def components(name: str) -> list[str]:
    """Split a path inside a file into names.

    Returns:
        The names without empty ones and dots.

    >>> components("/entry//data/./first")
    ['entry', 'data', 'first']
    """
    return [word for word in name.split("/") if word not in ("", ".")]


def chosen(path: Path, part: str | None, names: list[str]) -> str:
    """Choose the array of a file that `part` names, or its only one.

    Args:
        path: the file, for messages.
        part: the name that the person gave.
        names: the arrays of the file.

    Returns:
        One of `names`.

    Raises:
        InputError: there is none of this name, or there are several.
    """
    if part is None and len(names) == 1:
        return names[0]
    if part is not None:
        if part in names:
            return part
        for name in names:
            if components(name) == components(part):
                return name
    if not names:
        raise InputError("holds no arrays")
    problem = f"has no array {part!r}" if part else "holds several arrays"
    listed = some_of([f"{path.name}:{name}" for name in names], LISTED_ARRAYS)
    raise InputError(f"{problem}; name one: {listed}")
