"""One array of a Zarr store, read and written region by region, with its smaller resolutions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr

from n2n_lightning.formats.regions import Region, Regions
from n2n_lightning.formats.zarr_levels import Level, pieces_of, write_level


class ZarrRegions(Regions):
    """An array of a store; the result is a store of its own with the same chunks and shards.

    Chunks of the fill value are not stored.

    Args:
        array: the open array.
        name: its path in the store; empty if the store is the array.
        kept: the axes of the array that the picture has; the others have length 1.
        levels: smaller resolutions of the result.
        copy: writes a store without values, given its folder and the type of the values.
    """

    folder: ClassVar[bool] = True

    def __init__(
        self,
        array: Any,
        name: str,
        kept: Sequence[int],
        levels: Sequence[Level],
        copy: Callable[[Path, np.dtype], None],
    ) -> None:
        pieces = pieces_of(array)
        shape = [array.shape[axis] for axis in kept]
        chunks = [min(pieces[axis], array.shape[axis]) for axis in kept]
        super().__init__(shape, array.dtype, chunks)
        self.array = array
        self.name = name
        self.kept = kept
        self.smaller = levels
        self._copy = copy
        self.unpacked = tuple(min(array.chunks[i], array.shape[i]) for i in kept)
        self.levels = [(level.shape, level.pieces) for level in levels]
        if array.fill_value is not None:
            self.fill = float(array.fill_value)

    def _full(self, region: Region) -> Region:
        """Return a region of the picture as one of the array."""
        full = [slice(0, 1)] * len(self.array.shape)
        for axis, part in zip(self.kept, region, strict=True):
            full[axis] = part
        return tuple(full)

    def read(self, region: Region) -> np.ndarray:
        """Return the values of a region, unpacked."""
        sides = [part.stop - part.start for part in region]
        values: np.ndarray = self.array[self._full(region)]
        return values.reshape(sides)

    def holds(self, dtype: np.dtype) -> bool:
        """Return True: chunks hold values of any type."""
        return True

    def create(self, path: Path, dtype: np.dtype) -> None:
        """Copy everything but the values."""
        path.mkdir(exist_ok=True)
        self._copy(path, dtype)

    @contextmanager
    def writer(self, path: Path, dtype: np.dtype) -> Iterator["ZarrSink"]:
        """Open the array of a result."""
        store: Any = zarr.open(path, mode="r+", use_consolidated=False)
        yield ZarrSink(self, store[self.name] if self.name else store)

    def reduce(self, path: Path, level: int, region: Region) -> None:
        """Fill a region of a smaller resolution."""
        store = zarr.open(path, mode="r+", use_consolidated=False)
        write_level(store, self.smaller[level], region)


class ZarrSink:
    """The array of a result, which takes values by regions of the picture."""

    def __init__(self, regions: ZarrRegions, array: Any) -> None:
        self._regions = regions
        self._array = array

    def __setitem__(self, region: Region, values: np.ndarray) -> None:
        full = self._regions._full(region)
        sides = [part.stop - part.start for part in full]
        self._array[full] = values.reshape(sides)
