"""Arrays that a file stores as they are, in one piece, and that can be mapped from it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from n2n_lightning.files import mapped


@dataclass(frozen=True)
class RawArray:
    """The position of an array in a file.

    Attributes:
        dtype: of the values, in the file's byte order.
        offset: position of the first value, in bytes.
        shape: of the array.
        order: "C", or "F" if the first axis varies fastest.
    """

    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    order: Literal["C", "F"] = "C"

    @property
    def end(self) -> int:
        """Position after the last value, in bytes."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def read(self, path: Path) -> np.ndarray:
        """Map the values for reading; changes of the array stay in memory.

        Args:
            path: the file.

        Returns:
            The array.

        Raises:
            InputError: the file is shorter.
        """
        array: np.ndarray = mapped(path, self.dtype, self.offset, self.shape, self.order)
        return array

    def writable(self, path: Path) -> np.ndarray:
        """Map the values for writing.

        Args:
            path: a copy of the file, which changes with the array.

        Returns:
            The array; `flush` writes it to the disk.
        """
        return np.memmap(path, self.dtype, "r+", self.offset, self.shape, self.order)


def flush(arrays: Iterable[np.ndarray]) -> None:
    """Write mapped arrays to the disk."""
    for array in arrays:
        array.flush()  # type: ignore[attr-defined]
