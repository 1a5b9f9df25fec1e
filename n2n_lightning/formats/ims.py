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
            full = file[FULL_RESOLUTION]
            self.times = _numbered_members(full, "TimePoint")
            first_time = full[self.times[0]]
            self.channels = _numbered_members(first_time, "Channel")
            first = first_time[self.channels[0]]
            size = _volume_size(first)
            dtype = first["Data"].dtype
            microns = _voxel_microns(file, size)
        shape = (len(self.times), len(self.channels), *size)

        def unpacked() -> np.ndarray:
            result: np.ndarray = room(shape, dtype)
            self._read_volumes(result)
            return result

        self._take(Packed(shape, dtype, unpacked), "TCZYX", microns)

    def _read_volumes(self, result: np.ndarray) -> None:
        """Read all volumes into an array (T, C, D, H, W)."""
        depth, height, width = result.shape[2:]
        with h5py.File(self.path, "r") as file:
            for t, time in enumerate(self.times):
                for c, channel in enumerate(self.channels):
                    name = f"{FULL_RESOLUTION}/{time}/{channel}/Data"
                    if name not in file:
                        raise InputError(f"has no {name}")
                    padded = file[name]
                    result[t, c] = padded[:depth, :height, :width]


def _numbered_members(group: Any, word: str) -> list[str]:
    """Return the members `word 0`, `word 1`, ... of a group, by number.

    Raises:
        InputError: there is none.
    """
    members: dict[int, str] = {}
    for name in group:
        prefix, _, number = name.rpartition(" ")
        if prefix == word and number.isdecimal():
            members[int(number)] = name
    if not members:
        raise InputError(f"has no {word} in {group.name}")
    return [members[number] for number in sorted(members)]


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
        stated = _text_attribute(channel.attrs, f"ImageSize{axis}") or padded
        size.append(min(int(stated), padded))
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
        spacing = None
        if low and high:
            extent = float(high) - float(low)
            spacing = extent / side if extent > 0 else None
        microns.append(spacing)
    return microns
