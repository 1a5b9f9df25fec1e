"""Large arrays of files as tensors whose values stay in the file until a part of them is needed."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.files import room
from n2n_lightning.formats import opened
from n2n_lightning.formats.region_sample import sample_of
from n2n_lightning.formats.regions import Region, Regions, is_large, whole_pieces

# Files that a process has open: few, as systems allow 256 and more, and each is opened in
# milliseconds.
OPEN_FILES = 32


@dataclass(frozen=True)
class FileArray:
    """The only array of a file, which is opened when it is needed.

    Attributes:
        path: of the file.
        part: the name of the array; None: it has no name.
        stamp: when the file was written, so that another one of its name is opened anew.
    """

    path: Path
    part: str | None
    stamp: int

    @classmethod
    def of(cls, path: Path, part: str | None) -> "FileArray":
        """Return the array of a file as it is now."""
        return cls(path, part, path.stat().st_mtime_ns)

    @property
    def regions(self) -> Regions:
        """The open file."""
        return _open_regions(self, os.getpid())


@lru_cache(maxsize=OPEN_FILES)
def _open_regions(array: FileArray, process: int) -> Regions:
    """Open a file, once in each process."""
    regions = opened(array.path, array.part).regions()
    assert regions is not None  # as when the tensor was made
    return regions


@dataclass(frozen=True)
class _Axis:
    """An axis of a tensor.

    Attributes:
        origin: the axis of the array; None: one of length 1 that the array lacks.
        places: the places on it.
    """

    origin: int | None
    places: range | tuple[int, ...]

    def part(self, chosen: slice) -> "_Axis":
        """Return a part of the axis."""
        return replace(self, places=self.places[chosen])


class RegionTensor:
    """A view of an array of a file, with the methods of a tensor.

    Indexing by slices and whole numbers, `narrow` and `permute` return further views. Indexing by
    tensors, as windows are taken, and everything else reads the values: those of a window in one
    read.

    Args:
        array: of a file.
        dtype: of its values.
        axes: of the view.
        fixed: the place on each axis of the array that the view lacks.
    """

    def __init__(
        self, array: FileArray, dtype: np.dtype, axes: Sequence[_Axis], fixed: dict[int, int]
    ) -> None:
        self._array = array
        self._stored_as = dtype.newbyteorder("=")
        self._axes = tuple(axes)
        self._fixed = fixed

    @classmethod
    def of(cls, path: Path, part: str | None, regions: Regions) -> "RegionTensor":
        """Return the whole array of a file.

        Args:
            path: of the file.
            part: the name of the array.
            regions: the open array.
        """
        array = FileArray.of(path, part)
        axes = []
        for origin, length in enumerate(regions.shape):
            axes.append(_Axis(origin, range(length)))
        return cls(array, regions.dtype, axes, {})

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        return torch.Size([len(axis.places) for axis in self._axes])

    @property
    def dtype(self) -> torch.dtype:
        """The type of its values, in native byte order."""
        return torch.from_numpy(np.empty(0, self._stored_as)).dtype

    @property
    def is_large(self) -> bool:
        """True if it is not to be read as a whole."""
        return is_large(self.shape, self._stored_as.itemsize)

    @property
    def unpacked(self) -> list[int]:
        """The sides of the pieces that are unpacked to read one value, along each axis."""
        of_array = self._array.regions.unpacked
        return [1 if axis.origin is None else of_array[axis.origin] for axis in self._axes]

    def __len__(self) -> int:
        return len(self._axes[0].places)

    def __iter__(self) -> Iterator[Any]:
        for place in range(len(self)):
            yield self[place]

    def _view(self, axes: Sequence[_Axis], fixed: dict[int, int] | None = None) -> Any:
        fixed = self._fixed | (fixed or {})
        return RegionTensor(self._array, self._stored_as, axes, fixed)

    def permute(self, *order: int) -> Any:
        """See torch.Tensor."""
        return self._view([self._axes[place] for place in order])

    def narrow(self, axis: int, start: int, length: int) -> Any:
        """See torch.Tensor."""
        axes = list(self._axes)
        axes[axis] = axes[axis].part(slice(start, start + length))
        return self._view(axes)

    def unbind(self, axis: int = 0) -> list[Any]:
        """See torch.Tensor; along the first axis."""
        return list(self)

    def reshape(self, first: int, joined: int, *size: int) -> Any:
        """Join the axes between the first one and the last ones, see `axes.as_captures`.

        Args:
            first: the length of the first axis.
            joined: -1.
            *size: the lengths of the last axes.

        Returns:
            The view; one of the axes that are joined may be longer than 1.
        """
        end = len(self._axes) - len(size)
        longest = _Axis(None, range(1))
        fixed = {}
        for axis in self._axes[1:end]:
            if len(axis.places) > 1:
                longest = axis
            elif axis.origin is not None:
                fixed[axis.origin] = axis.places[0]
        return self._view([self._axes[0], longest, *self._axes[end:]], fixed)

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        tensors = [isinstance(part, Tensor) for part in parts]
        if tensors == [True] and len(parts[0].shape) == 1:
            return self._chosen(parts[0])
        if any(tensors):
            return self._windows(parts)
        axes: list[_Axis] = []
        fixed = {}
        waiting = list(self._axes)
        count = sum(part is not None and part is not Ellipsis for part in parts)
        for part in parts:
            if part is None:
                axes.append(_Axis(None, range(1)))
            elif part is Ellipsis:
                skipped = len(waiting) - count
                axes += waiting[:skipped]
                waiting = waiting[skipped:]
            else:
                axis = waiting.pop(0)
                count -= 1
                if isinstance(part, slice):
                    axes.append(axis.part(part))
                elif axis.origin is not None:
                    fixed[axis.origin] = axis.places[part]
        return self._view([*axes, *waiting], fixed)

    def _chosen(self, index: Tensor) -> Any:
        """Return some places on the first axis."""
        first, *others = self._axes
        places = []
        for place in index.tolist():
            places.append(first.places[place])
        chosen = replace(first, places=tuple(places))
        return self._view([chosen, *others])

    def _windows(self, index: tuple[Any, ...]) -> Tensor:
        """Read a window, or one of each image of a batch, see `SceneSet.take`."""
        first = index[0]
        if not isinstance(first, Tensor):
            return self._window(index)
        windows = []
        for number in range(len(first)):
            own = tuple(part[number if len(part) > 1 else 0] for part in index)
            windows.append(self._window(own))
        return torch.stack(windows)

    def _window(self, index: tuple[Any, ...]) -> Tensor:
        """Read the values at some indices, one for each axis, from the region around them."""
        around: list[slice] = []
        within: list[Any] = []
        for part in index:
            if isinstance(part, slice):
                around.append(part)
                within.append(slice(None))
                continue
            start = int(part.min())
            around.append(slice(start, int(part.max()) + 1))
            within.append(part - start)
        values: Tensor = self[tuple(around)].read()
        return values[tuple(within)]

    def read(self) -> Tensor:
        """Read all values of the view, into a temporary file where they are many."""
        result: np.ndarray = room(self.shape, self._stored_as)
        listed = bool(self._axes) and isinstance(self._axes[0].places, tuple)
        if not listed and not self.is_large:
            result[...] = self._box()
            return torch.from_numpy(result)
        for place in whole_pieces(self.shape, self._pieces()):
            result[place] = self[place]._box()
        return torch.from_numpy(result)

    def _pieces(self) -> list[int]:
        """Return the sides of the parts in which many values are read."""
        sides = []
        for number, (axis, side) in enumerate(zip(self._axes, self.unpacked, strict=True)):
            if isinstance(axis.places, tuple):
                side = 1
            elif side == 1 and number > 0:
                side = len(axis.places)
            sides.append(side)
        return sides

    def _box(self) -> np.ndarray:
        """Read a view at once: the region of the array that holds it."""
        around = {origin: slice(place, place + 1) for origin, place in self._fixed.items()}
        within: dict[int, int | slice] = dict.fromkeys(self._fixed, 0)
        order = []
        for axis in self._axes:
            places = axis.places
            if axis.origin is None:
                continue
            step = places.step if isinstance(places, range) else 1
            around[axis.origin] = slice(places[0], places[-1] + 1)
            within[axis.origin] = slice(None, None, step)
            order.append(axis.origin)
        origins = sorted(around)
        values = self._array.regions.read(tuple(around[origin] for origin in origins))
        values = values[tuple(within[origin] for origin in origins)]
        left = sorted(order)
        return values.transpose([left.index(origin) for origin in order]).reshape(self.shape)

    def __eq__(self, other: Any) -> Any:
        return self.read() == other

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.read(), name)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Read the values for a function of torch's."""
        return function(*[_read_all(part) for part in args], **(kwargs or {}))


def _read_all(part: Any) -> Any:
    """Return an argument of a function with values in place of views."""
    if isinstance(part, list | tuple):
        return type(part)(loaded(item) for item in part)
    return loaded(part)


def loaded(image: Any) -> Any:
    """Return a tensor as it is, and the values of one that stays in its file."""
    return image.read() if isinstance(image, RegionTensor) else image


def in_place(picture: Any, values: Any, axes: str, dims: int) -> RegionTensor | None:
    """Return a large array that is packed or of foreign byte order as it lies in its file.

    Args:
        picture: the file, a formats.Picture.
        values: one of its arrays.
        axes: its letters.
        dims: spatial axes, 2 or 3.

    Returns:
        None for what is small or mapped, has flags, or has several stacked axes.
    """
    mapped = isinstance(values.stored, np.ndarray) and values.dtype.isnative
    if mapped or values.invalid is not None or len(picture.values) != 1:
        return None
    if not is_large(values.shape, values.dtype.itemsize):
        return None
    inside = "KCDHW" if dims == 3 else "KCHW"
    stacked = 0
    for letter, length in zip(axes, values.shape, strict=True):
        if letter not in inside and length > 1:
            stacked += 1
    regions = picture.regions() if stacked < 2 else None
    if regions is None or regions.shape != tuple(values.shape):
        return None
    return RegionTensor.of(picture.path, picture.part, regions)


def sampled_pages(array: Any, axes: str) -> np.ndarray:
    """Read the fixed sample of a large array, see region_sample.sample_of.

    Args:
        array: a tensor, or one that stays in its file.
        axes: its letters; planes of volumes are pages.

    Returns:
        Stored values, (N, H, W, C).
    """
    unpacked = array.unpacked if isinstance(array, RegionTensor) else [1] * len(array.shape)

    def read(region: Region) -> np.ndarray:
        values: np.ndarray = loaded(array[region]).numpy()
        return values

    return sample_of(read, array.shape, unpacked, axes, 2).pages
