"""MRC files: volumes and stacks of images of electron microscopes (Cheng et al., J. Struct. Biol. 2015)."""

import math
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from n2n_lightning.files import InputError, mapped
from n2n_lightning.formats.picture import Picture, Values

HEADER = mrcfile.dtypes.HEADER_DTYPE.newbyteorder("<")
LENGTH = 1024  # bytes of the header
# where the header has minimum, maximum and mean, and the deviation
STATISTICS = (76, "3f"), (216, "f")
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
STAMPS = {0x44: "<", 0x11: ">"}  # the first byte of the machine stamp
USUAL = (b"\x44\x44\0\0", b"\x44\x41\0\0", b"\x11\x11\0\0")
# where IMOD wrote the file, at bytes 152 to 155; bit 0 of the next number: bytes are signed
IMOD = 1146047817
WORDS = {"<": "little-endian", ">": "big-endian"}


@dataclass(frozen=True)
class Header:
    """An MRC header as it was understood.

    Attributes:
        fields: the header's fields, in its byte order.
        order: "<" or ">".
        dtype: of the values.
        note: what was unusual, and how it was read.
    """

    fields: Any
    order: str
    dtype: np.dtype
    note: str

    @property
    def offset(self) -> int:
        """The position of the first value, in bytes."""
        return LENGTH + int(self.fields["nsymbt"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes, rows and columns."""
        planes, rows, columns = (int(self.fields[name]) for name in ("nz", "ny", "nx"))
        return planes, rows, columns

    def voxel_size(self) -> tuple[float, float, float] | None:
        """The distance of voxels along D, H and W in angstroms; None where the header does not say it."""
        counts = [int(self.fields[name]) for name in ("mz", "my", "mx")]
        lengths = [float(self.fields["cella"][axis]) for axis in "zyx"]
        if min(counts) <= 0 or not all(math.isfinite(n) and n > 0 for n in lengths):
            return None
        d, h, w = (length / count for length, count in zip(lengths, counts, strict=True))
        return d, h, w


MODE, FLOAT32 = 12, 2  # where the header has the mode, and that of float32


class Mrc(Picture):
    """A volume or a stack of images, mapped, in either order of bytes; the result is a copy with other values.

    What the header says of the values, their minimum, maximum, mean and deviation, is reckoned anew
    where it was known.
    """

    # endings of images one after the other; others have volumes
    STACKS = (".mrcs", ".st", ".ali", ".preali")

    kind, volumes, floats = "MRC", True, True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        header = understood(path)
        fields, shape, self.order = header.fields, header.shape, header.order
        self.note = header.note
        self.known = bool(fields["dmax"] >= fields["dmin"])
        places: tuple[int, ...] = shape
        letters = "NHW" if path.suffix.lower() in self.STACKS else "DHW"
        if mrcfile.utils.spacegroup_is_volume_stack(fields["ispg"]):
            planes = int(fields["mz"])
            if planes < 1 or shape[0] % planes:
                raise InputError(
                    f"its {shape[0]} planes are no whole number of volumes of {planes}"
                )
            places, letters = (shape[0] // planes, planes, *shape[1:]), "NDHW"
        elif shape[0] == 1:
            places, letters = shape[1:], "HW"
        self.place: tuple[Any, int, tuple[int, ...]] = (header.dtype, header.offset, places)
        self.values = [
            Values(mapped(path, *self.place), letters, full=shape if len(places) == 2 else places)
        ]
        if "D" in letters:
            self.values[0].spacing = header.voxel_size()

    def _begin(self, path: Path) -> list[np.ndarray]:
        shutil.copyfile(self.path, path)
        dtype, offset, shape = self.place
        return [np.memmap(path, dtype, "r+", offset, shape)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        (values,) = results
        values.flush()  # type: ignore[attr-defined]
        self._describe(path, values)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        (values,) = results
        with self.path.open("rb") as old, path.open("wb") as new:
            head = bytearray(old.read(self.place[1]))
            struct.pack_into(f"{self.order}i", head, MODE, FLOAT32)
            new.write(head)
            for plane in values:
                new.write(plane.astype(f"{self.order}f4").tobytes())
            old.seek(self.place[1] + self.values[0].dtype.itemsize * values.size)
            shutil.copyfileobj(old, new)
        self._describe(path, values)

    def _describe(self, path: Path, values: np.ndarray) -> None:
        """Writes the statistics of the values, where the header knew them."""
        if not self.known:
            return
        *_, height, width = values.shape
        planes = values.reshape(-1, height, width)
        sums = np.zeros(2)
        low, high = np.inf, -np.inf
        for plane in planes:
            some = plane.astype(np.float64)
            sums += some.sum(), (some**2).sum()
            low, high = min(low, some.min()), max(high, some.max())
        mean, square = sums / values.size
        found = ((low, high, mean), (max(square - mean**2, 0) ** 0.5,))
        with path.open("r+b") as file:
            for (offset, form), numbers in zip(STATISTICS, found, strict=True):
                file.seek(offset)
                file.write(struct.pack(self.order + form, *numbers))


def understood(path: Path) -> Header:
    """Read the header of an MRC file in the byte order in which its mode, sizes and length make sense.

    The machine stamp decides where it can; files with an unusual stamp or none are common.

    Raises:
        InputError: it makes sense in neither order.
    """
    with path.open("rb") as file:
        raw = file.read(LENGTH)
    if len(raw) < LENGTH:
        raise InputError("is truncated: it is shorter than the header of an MRC file")
    stamp = raw[212:216]
    said = STAMPS.get(stamp[0])
    orders = [said, "<" if said == ">" else ">"] if said else ["<", ">"]
    readings: dict[str, Any] = {o: np.frombuffer(raw, HEADER.newbyteorder(o), 1)[0] for o in orders}
    whole = [order for order in orders if _fits(readings[order], path.stat().st_size)]
    if not whole:
        raise InputError(_why_not(readings, orders))
    order = whole[0]
    fields, notes = readings[order], []
    if order != said or stamp not in USUAL:
        shown = stamp.hex(" ") if any(stamp) else "missing"
        notes.append(f"its machine stamp is {shown}, read as {WORDS[order]}, which its sizes fit")
    if raw[208:212] != b"MAP ":
        notes.append("no 'MAP ' in its header")
    if min(int(fields[name]) for name in ("mx", "my", "mz")) <= 0:
        notes.append("no sampling (mx, my, mz) in its header, so the voxel size is unknown")
    dtype = np.dtype(MODES[int(fields["mode"])]).newbyteorder(order)  # type: ignore[arg-type]
    if dtype.kind == "i" and dtype.itemsize == 1 and (why := _unsigned_bytes(raw, fields, order)):
        dtype = np.dtype("u1")
        notes.append(why)
    return Header(fields, order, dtype, "; ".join(notes))


def _fits(fields: Any, length: int) -> bool:
    """Whether mode and sizes make sense, and the file has all the values."""
    sides = [int(fields[name]) for name in ("nx", "ny", "nz")]
    extended = int(fields["nsymbt"])
    if int(fields["mode"]) not in MODES or min(sides) < 1 or extended < 0:
        return False
    return (
        LENGTH + extended + np.dtype(MODES[int(fields["mode"])]).itemsize * math.prod(sides)
        <= length
    )


def _why_not(readings: dict[str, Any], orders: list[str]) -> str:
    """What is wrong with a header, in the byte order in which it is nearest to sense."""
    sensible = [
        o
        for o in orders
        if 0 <= int(readings[o]["mode"]) < 1000 and 0 < int(readings[o]["nx"]) < 2**20
    ]
    fields = readings[(sensible or orders)[0]]
    if (mode := int(fields["mode"])) not in MODES:
        return f"holds values of mode {mode}; it must be one of {', '.join(map(str, MODES))}"
    sides = " x ".join(str(int(fields[name])) for name in ("nz", "ny", "nx"))
    return f"is truncated: its header says {sides} values of {np.dtype(MODES[mode]).name}"


def _unsigned_bytes(raw: bytes, fields: Any, order: str) -> str:
    """Why the values of mode 0 are unsigned; empty where they are signed, as MRC2014 has them."""
    stamp, flags = struct.unpack(f"{order}2i", raw[152:160])
    if stamp == IMOD:
        return "" if flags & 1 else "its bytes are unsigned, as IMOD's flags say"
    if fields["dmin"] >= 0 and 127 < fields["dmax"] <= 255:
        return f"its bytes are unsigned, as its maximum of {fields['dmax']:g} says"
    return ""
