"""Arrays of files that are read and written region by region, whatever their size."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from n2n_lightning.files import reserve
from n2n_lightning.formats.raw_array import RawArray, flush

Region = tuple[slice, ...]  # with start and stop
COPIED_BYTES = 2**24  # at a time
# Bytes of values, from which on an array goes block by block: below, values and result fit into the
# memory of any machine (twice 256 MiB), and are denoised as a whole, as in Python.
LARGE_BYTES = 2**28


class Regions:
    """One array of a file, and a result like it, region by region.

    The result is made empty by `create`, filled by any number of processes, each region by one,
    and ended by `finish`.

    Args:
        shape: of the array, as `Values` has it.
        dtype: of its values.
        chunks: the sides of the pieces in which a result is stored; 1: any. A piece is written by
            one process.

    Attributes:
        fill: the value of a region that is not stored; None: all are stored.
        levels: the shape and the chunks of each smaller resolution of the result, the largest
            first; each is filled from the one above it by `reduce`.
        note: what the result lacks, in words.
        unpacked: the sides of the pieces that are unpacked to read one of their values; 1: none.
    """

    together: ClassVar[bool] = True  # several processes may write into one result
    folder: ClassVar[bool] = False  # the result is a folder

    def __init__(self, shape: Sequence[int], dtype: np.dtype, chunks: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.chunks = tuple(chunks)
        self.fill: float | None = None
        self.levels: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.note = ""
        self.unpacked = self.chunks

    def read(self, region: Region) -> np.ndarray:
        """Return the values of a region of the source."""
        raise NotImplementedError

    def holds(self, dtype: np.dtype) -> bool:
        """Return True if a result of this type can be written region by region."""
        raise NotImplementedError

    def create(self, path: Path, dtype: np.dtype) -> None:
        """Write a result with everything but its values, which take their space on the disk."""
        raise NotImplementedError

    def writer(self, path: Path, dtype: np.dtype) -> Any:
        """Open a result for writing.

        Args:
            path: of the result.
            dtype: of its values, as for `create`.

        Returns:
            A context manager of what takes values as arrays do, `result[region] = values`.
        """
        raise NotImplementedError

    def reduce(self, path: Path, level: int, region: Region) -> None:
        """Fill a region of a smaller resolution of a result.

        Args:
            path: of the result.
            level: 0 for the largest of `levels`.
            region: of that resolution.
        """
        raise NotImplementedError

    def finish(self, path: Path) -> None:
        """Write what depends on all values of a result."""


def is_large(shape: Sequence[int], itemsize: int) -> bool:
    """Return True if an array goes block by block, by its shape and the bytes of a value."""
    return math.prod(shape) * itemsize >= LARGE_BYTES


def whole_pieces(shape: Sequence[int], pieces: Sequence[int]) -> Iterator[Region]:
    """Yield the places of the pieces in which an array is stored.

    Args:
        shape: of the array.
        pieces: their sides; the last ones may be shorter.

    >>> len(list(whole_pieces((5, 4), (2, 4))))
    3
    """
    starts: list[range] = []
    for length, side in zip(shape, pieces, strict=True):
        starts.append(range(0, length, side))
    for corner in product(*starts):
        region: list[slice] = []
        for start, side, length in zip(corner, pieces, shape, strict=True):
            region.append(slice(start, min(start + side, length)))
        yield tuple(region)


@dataclass(frozen=True)
class StoredLayout:
    """A file that has an array in one piece, among other bytes.

    Attributes:
        place: of the values.
        head: the bytes before them; None: those of the source.
        tail: position in the source of the bytes that follow them.
    """

    place: RawArray
    head: bytes | None
    tail: int


class MappedRegions(Regions):
    """An array that its file stores in one piece, mapped, and so is the result.

    Args:
        path: the source.
        source: its values, mapped.
        layout: returns what a result of a type looks like; None: it cannot be written so.
        finish: see `Regions`; None: nothing is left to do.

    Attributes:
        shift: value - stored value, of integers.
    """

    shift = 0

    def __init__(
        self,
        path: Path,
        source: np.ndarray,
        layout: Callable[[np.dtype], StoredLayout | None],
        finish: Callable[[Path], None] | None = None,
    ) -> None:
        super().__init__(source.shape, source.dtype, [1] * len(source.shape))
        self.path = path
        self.source = source
        self.layout = layout
        self._finish = finish

    def read(self, region: Region) -> np.ndarray:
        """Return a view of the mapped values."""
        part: np.ndarray = self.source[region]
        return part

    def holds(self, dtype: np.dtype) -> bool:
        """Return True if the format has a place for values of this type."""
        return self.layout(dtype) is not None

    def create(self, path: Path, dtype: np.dtype) -> None:
        """Write the bytes around the values."""
        layout = self.layout(dtype)
        assert layout is not None
        with self.path.open("rb") as source, path.open("wb") as target:
            if layout.head is None:
                _copy_bytes(source, target, layout.place.offset)
            else:
                target.write(layout.head)
            target.truncate(layout.place.end)
            target.seek(layout.place.end)
            source.seek(layout.tail)
            shutil.copyfileobj(source, target)
        reserve(path)

    @contextmanager
    def writer(self, path: Path, dtype: np.dtype) -> Iterator[Any]:
        """Map the values of a result; they are on the disk when the block ends."""
        layout = self.layout(dtype)
        assert layout is not None
        # a list, emptied at the end: Windows renames no file that is mapped
        values = [layout.place.writable(path).reshape(self.shape)]
        yield values[0]
        flush(values)
        values.clear()

    def finish(self, path: Path) -> None:
        """Write what depends on all values."""
        if self._finish is not None:
            self._finish(path)


def _copy_bytes(source: Any, target: Any, count: int) -> None:
    """Copy some bytes from one open file to another."""
    while count > 0:
        content = source.read(min(count, COPIED_BYTES))
        if not content:
            return
        target.write(content)
        count -= len(content)
