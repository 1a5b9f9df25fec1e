"""Imaris files: HDF5 with every resolution, time point and channel as an array of its own."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from n2n_lightning.files import InputError, room
from n2n_lightning.formats.picture import Packed
from n2n_lightning.formats.read_only import ReadOnlyFormat

FULL = "DataSet/ResolutionLevel 0"
SIDES = ("ImageSizeZ", "ImageSizeY", "ImageSizeX")


class Ims(ReadOnlyFormat):
    """The full resolution as one array (T, C, Z, Y, X), without the padding of its chunks; it comes out as TIFF."""

    kind = "Imaris"

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with h5py.File(path, "r") as file:
            if FULL not in file:
                raise InputError(f"has no {FULL}, as Imaris files have")
            times = _numbered(file[FULL], "TimePoint")
            channels = _numbered(file[f"{FULL}/{times[0]}"], "Channel")
            first = file[f"{FULL}/{times[0]}/{channels[0]}"]
            sides = _sides(first)
            dtype, microns = first["Data"].dtype, _microns(file, sides)
        self.names = [[f"{FULL}/{time}/{channel}/Data" for channel in channels] for time in times]
        shape = (len(times), len(channels), *sides)
        self._take(Packed(shape, dtype, lambda: self._unpacked(shape, dtype)), "TCZYX", microns)

    def _unpacked(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        result: np.ndarray = room(shape, dtype)
        depth, height, width = shape[2:]
        with h5py.File(self.path, "r") as file:
            for t, names in enumerate(self.names):
                for c, name in enumerate(names):
                    if name not in file:
                        raise InputError(f"has no {name}")
                    result[t, c] = file[name][:depth, :height, :width]
        return result


def _numbered(group: Any, word: str) -> list[str]:
    """The members `word 0`, `word 1`, ... of a group, by number."""
    found = [name for name in group if name.startswith(f"{word} ") and name.split()[-1].isdecimal()]
    if not found:
        raise InputError(f"has no {word} in {group.name}")
    return sorted(found, key=lambda name: int(name.split()[-1]))


def _text(attributes: Any, name: str) -> str | None:
    """An attribute, which Imaris writes as an array of letters."""
    if name not in attributes:
        return None
    value = attributes[name]
    if isinstance(value, bytes | str):
        return value.decode() if isinstance(value, bytes) else value
    return b"".join(np.asarray(value).astype("S1").ravel().tolist()).decode()


def _sides(channel: Any) -> tuple[int, int, int]:
    """Depth, height and width without padding."""
    stored = channel["Data"].shape
    said = [_text(channel.attrs, name) for name in SIDES]
    d, h, w = (min(int(n), side) if n else side for n, side in zip(said, stored, strict=True))
    return d, h, w


def _microns(file: Any, sides: tuple[int, int, int]) -> list[float | None]:
    """The distance of voxels along Z, Y and X, where the file says it in micrometres."""
    image = file.get("DataSetInfo/Image")
    if image is None or (_text(image.attrs, "Unit") or "um") not in ("um", "µm"):
        return []
    found: list[float | None] = []
    for axis, side in zip("210", sides, strict=True):  # X is 0
        low, high = (_text(image.attrs, f"Ext{end}{axis}") for end in ("Min", "Max"))
        found.append(
            (float(high) - float(low)) / side if low and high and float(high) > float(low) else None
        )
    return found
