"""Imaris files: HDF5 with every resolution, time point and channel as an array of its own."""

from typing import Any

import h5py
import numpy as np

from n2n_lightning.files import InputError, room
from n2n_lightning.formats.picture import Packed
from n2n_lightning.formats.read_only import ReadOnlyFormat

FULL_RESOLUTION = "DataSet/ResolutionLevel 0"


class Ims(ReadOnlyFormat):
    """The full resolution as one array (T, C, Z, Y, X), without the padding of its chunks.

    The result is a TIFF.
    """

    kind = "Imaris"

    def _read(self) -> None:
        with h5py.File(self.path, "r") as file:
            if FULL_RESOLUTION not in file:
                raise InputError(f"has no {FULL_RESOLUTION}, as Imaris files have")
            times = _numbered_members(file[FULL_RESOLUTION], "TimePoint")
            channels = _numbered_members(file[f"{FULL_RESOLUTION}/{times[0]}"], "Channel")
            first = file[f"{FULL_RESOLUTION}/{times[0]}/{channels[0]}"]
            size = _volume_size(first)
            dtype = first["Data"].dtype
            microns = _voxel_microns(file, size)
        self.names: list[list[str]] = []
        for time in times:
            names = [f"{FULL_RESOLUTION}/{time}/{channel}/Data" for channel in channels]
            self.names.append(names)
        shape = (len(times), len(channels), *size)
        self._take(Packed(shape, dtype, lambda: self._unpacked(shape, dtype)), "TCZYX", microns)

    def _unpacked(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        result: np.ndarray = room(shape, dtype)
        depth, height, width = shape[2:]
        with h5py.File(self.path, "r") as file:
            for time, names in enumerate(self.names):
                for channel, name in enumerate(names):
                    if name not in file:
                        raise InputError(f"has no {name}")
                    result[time, channel] = file[name][:depth, :height, :width]
        return result


def _numbered_members(group: Any, word: str) -> list[str]:
    """Return the members `word 0`, `word 1`, ... of a group, by number.

    Raises:
        InputError: there is none.
    """
    members: list[str] = []
    for name in group:
        if name.startswith(f"{word} ") and name.split()[-1].isdecimal():
            members.append(name)
    if not members:
        raise InputError(f"has no {word} in {group.name}")
    return sorted(members, key=lambda name: int(name.split()[-1]))


def _text_attribute(attributes: Any, name: str) -> str | None:
    """Return an attribute, which Imaris writes as an array of letters."""
    if name not in attributes:
        return None
    value = attributes[name]
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        letters = np.asarray(value).astype("S1")
        value = b"".join(letters.ravel().tolist())
    return value.decode()


def _volume_size(channel: Any) -> tuple[int, int, int]:
    """Return depth, height and width without padding."""
    size: list[int] = []
    for axis, padded in zip("ZYX", channel["Data"].shape, strict=True):
        stated = _text_attribute(channel.attrs, f"ImageSize{axis}")
        size.append(min(int(stated), padded) if stated else padded)
    depth, height, width = size
    return depth, height, width


def _voxel_microns(file: Any, size: tuple[int, int, int]) -> list[float | None]:
    """Return the voxel spacing along Z, Y and X, if the file states it in micrometres."""
    image = file.get("DataSetInfo/Image")
    if image is None:
        return []
    unit = _text_attribute(image.attrs, "Unit") or "um"
    if unit not in ("um", "µm"):
        return []
    microns: list[float | None] = []
    for axis, side in zip("210", size, strict=True):  # X is 0
        low = _text_attribute(image.attrs, f"ExtMin{axis}")
        high = _text_attribute(image.attrs, f"ExtMax{axis}")
        extent = float(high) - float(low) if low and high else 0.0
        microns.append(extent / side if extent > 0 else None)
    return microns
