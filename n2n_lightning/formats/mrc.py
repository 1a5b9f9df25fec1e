"""MRC files of electron microscopes: volumes and stacks (Cheng et al., J. Struct. Biol. 2015)."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values
from n2n_lightning.formats.raw_array import RawArray, flush
from n2n_lightning.formats.regions import MappedRegions, StoredLayout

HEADER_TYPE = mrcfile.dtypes.HEADER_DTYPE.newbyteorder("<")
HEADER_BYTES = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
FLOAT32_MODE = 2
BYTE_ORDERS = {0x44: "<", 0x11: ">"}  # by the first byte of the machine stamp
ORDER_NAMES = {"<": "little-endian", ">": "big-endian"}
USUAL_STAMPS = (b"\x44\x44\0\0", b"\x44\x41\0\0", b"\x11\x11\0\0")
# Where IMOD puts its mark and, after it, flags; bit 0 of them: bytes are signed.
IMOD_OFFSET = 152
IMOD_STAMP = 1146047817
# Endings of stacks of images; the others are of volumes.
STACK_ENDINGS = (".mrcs", ".st", ".ali", ".preali")


@dataclass(frozen=True)
class Header:
    """An MRC header and its interpretation.

    Attributes:
        fields: the header's fields, in its byte order.
        order: "<" or ">".
        dtype: of the values.
        note: what is unusual, and how it is read.
    """

    fields: Any
    order: str
    dtype: np.dtype
    note: str

    @property
    def offset(self) -> int:
        """Position of the first value, in bytes."""
        return HEADER_BYTES + int(self.fields["nsymbt"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes, rows and columns."""
        planes, rows, columns = _integers(self.fields, "nz", "ny", "nx")
        return planes, rows, columns

    def voxel_size(self) -> tuple[float, float, float] | None:
        """Compute the voxel spacing.

        Returns:
            Angstroms along D, H and W; None if the header lacks them.
        """
        spacing: list[float] = []
        for axis in "zyx":
            count = int(self.fields[f"m{axis}"])
            length = float(self.fields["cella"][axis])
            plausible = 0 < length < math.inf
            if count <= 0 or not plausible:
                return None
            spacing.append(length / count)
        depth, height, width = spacing
        return depth, height, width


class Mrc(Picture):
    """A volume or a stack of images, mapped, in either byte order.

    The result is a copy with other values. Minimum, maximum, mean and deviation in the header are
    computed anew if they were known.
    """

    kind = "MRC"
    volumes = True
    floats = True

    def _read(self) -> None:
        header = read_header(self.path)
        self.header = header
        self.note = header.note
        planes, rows, columns = header.shape
        full: tuple[int, ...] = header.shape
        shape = full
        ending = self.path.suffix.lower()
        letters = "NHW" if ending in STACK_ENDINGS else "DHW"
        if mrcfile.utils.spacegroup_is_volume_stack(header.fields["ispg"]):
            depth = int(header.fields["mz"])
            if depth < 1 or planes % depth:
                raise InputError(f"its {planes} planes are no whole number of volumes of {depth}")
            full = (planes // depth, depth, rows, columns)
            shape = full
            letters = "NDHW"
        elif planes == 1:
            shape = (rows, columns)
            letters = "HW"
        self.place = RawArray(header.dtype, header.offset, shape)
        values = Values(self.place.read(self.path), letters, full=full)
        if "D" in letters:
            values.spacing = header.voxel_size()
        self.values = [values]

    def regions(self) -> MappedRegions:
        """Return the array as what is read and written region by region."""
        return MappedRegions(self.path, self.values[0].array, self._layout, self._finish)

    def _layout(self, dtype: np.dtype) -> StoredLayout:
        """Return what a file with values of a type looks like."""
        fields = self.header.fields.copy()
        stored = self.place.dtype
        if dtype.name != stored.name:
            fields["mode"] = FLOAT32_MODE
            stored = np.dtype(f"{self.header.order}f4")
        with self.path.open("rb") as file:
            file.seek(HEADER_BYTES)
            extended_header = file.read(int(fields["nsymbt"]))
        place = replace(self.place, dtype=stored)
        return StoredLayout(place, fields.tobytes() + extended_header, self.place.end)

    def _finish(self, path: Path) -> None:
        """Renew the statistics in the header."""
        header = read_header(path)
        fields = header.fields.copy()
        place = RawArray(header.dtype, header.offset, self.place.shape)
        _renew_statistics(fields, place.read(path))
        with path.open("r+b") as file:
            file.write(fields.tobytes())

    def _begin(self, path: Path) -> list[np.ndarray]:
        shutil.copyfile(self.path, path)
        return [self.place.writable(path)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        flush(results)
        fields = self.header.fields.copy()
        _renew_statistics(fields, results[0])
        with path.open("r+b") as file:
            file.write(fields.tobytes())

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        (values,) = results
        fields = self.header.fields.copy()
        fields["mode"] = FLOAT32_MODE
        _renew_statistics(fields, values)
        dtype = np.dtype(f"{self.header.order}f4")
        with self.path.open("rb") as source, path.open("wb") as target:
            target.write(fields.tobytes())
            source.seek(HEADER_BYTES)
            extended_header = source.read(int(fields["nsymbt"]))
            target.write(extended_header)
            for plane in values:
                stored = plane.astype(dtype)
                target.write(stored.tobytes())
            source.seek(self.place.end)
            shutil.copyfileobj(source, target)


def _renew_statistics(fields: Any, values: np.ndarray) -> None:
    """Set minimum, maximum, mean and deviation in a header if it knew them."""
    if not fields["dmax"] >= fields["dmin"]:
        return
    *_, height, width = values.shape
    total = 0.0
    total_of_squares = 0.0
    lowest = np.inf
    highest = -np.inf
    for plane in values.reshape(-1, height, width):
        plane = plane.astype(np.float64)
        squares = plane**2
        total += plane.sum()
        total_of_squares += squares.sum()
        lowest = min(lowest, plane.min())
        highest = max(highest, plane.max())
    mean = total / values.size
    mean_square = total_of_squares / values.size
    variance = max(mean_square - mean**2, 0)
    fields["dmin"] = lowest
    fields["dmax"] = highest
    fields["dmean"] = mean
    fields["rms"] = variance**0.5


def read_header(path: Path) -> Header:
    """Read the header of an MRC file in the byte order in which its mode and sizes make sense.

    The machine stamp decides if both do; files with an unusual stamp or none are common.

    Returns:
        The header, with a note on what is unusual.

    Raises:
        InputError: it makes sense in neither order.
    """
    with path.open("rb") as file:
        raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise InputError("is truncated: it is shorter than the header of an MRC file")
    stamp = raw[212:216]
    stated = BYTE_ORDERS.get(stamp[0])
    orders = ["<", ">"]
    if stated == ">":
        orders.reverse()
    length = path.stat().st_size
    readings: dict[str, Any] = {}
    sensible: list[str] = []
    for order in orders:
        header_type = HEADER_TYPE.newbyteorder(order)
        (readings[order],) = np.frombuffer(raw, header_type, 1)
        if _makes_sense(readings[order], length):
            sensible.append(order)
    if not sensible:
        raise InputError(_why_senseless(readings))
    order = sensible[0]
    fields = readings[order]
    notes: list[str] = []
    if order != stated or stamp not in USUAL_STAMPS:
        shown = stamp.hex(" ") if any(stamp) else "missing"
        notes.append(
            f"its machine stamp is {shown}, read as {ORDER_NAMES[order]}, which its sizes fit"
        )
    if raw[208:212] != b"MAP ":
        notes.append("no 'MAP ' in its header")
    sampling = _integers(fields, "mx", "my", "mz")
    if min(sampling) <= 0:
        notes.append("no sampling (mx, my, mz) in its header, so the voxel size is unknown")
    mode = int(fields["mode"])
    dtype = np.dtype(order + MODES[mode])
    if dtype == np.int8:
        reason = _why_unsigned(raw, fields, order)
        if reason:
            dtype = np.dtype("u1")
            notes.append(reason)
    return Header(fields, order, dtype, "; ".join(notes))


def _integers(fields: Any, *names: str) -> list[int]:
    """Return some fields of a header."""
    return [int(fields[name]) for name in names]


def _makes_sense(fields: Any, length: int) -> bool:
    """Return True if mode and sizes are possible for a file of `length` bytes."""
    sides = _integers(fields, "nx", "ny", "nz")
    mode, extended = _integers(fields, "mode", "nsymbt")
    if mode not in MODES:
        return False
    if min(sides) < 1 or extended < 0:
        return False
    dtype = np.dtype(MODES[mode])
    stored = dtype.itemsize * math.prod(sides)
    return HEADER_BYTES + extended + stored <= length


def _why_senseless(readings: dict[str, Any]) -> str:
    """Return what is wrong with a header, in the byte order in which it is nearest to sense.

    Args:
        readings: the fields in both orders, the likelier first.
    """
    fields = next(iter(readings.values()))
    for reading in readings.values():
        mode, columns = _integers(reading, "mode", "nx")
        plausible_mode = 0 <= mode < 1000
        plausible_size = 0 < columns < 2**20
        if plausible_mode and plausible_size:
            fields = reading
            break
    mode = int(fields["mode"])
    if mode not in MODES:
        modes = ", ".join(map(str, MODES))
        return f"holds values of mode {mode}; it must be one of {modes}"
    planes, rows, columns = _integers(fields, "nz", "ny", "nx")
    dtype = np.dtype(MODES[mode])
    return f"is truncated: its header says {planes} x {rows} x {columns} values of {dtype.name}"


def _why_unsigned(raw: bytes, fields: Any, order: str) -> str:
    """Return why the values of mode 0 are unsigned; empty if they are signed, as in MRC2014."""
    stamp, flags = np.frombuffer(raw, f"{order}i4", 2, IMOD_OFFSET)
    if stamp == IMOD_STAMP:
        return "" if flags & 1 else "its bytes are unsigned, as IMOD's flags say"
    lowest = fields["dmin"]
    highest = fields["dmax"]
    if lowest >= 0 and 127 < highest <= 255:
        return f"its bytes are unsigned, as its maximum of {highest:g} says"
    return ""
