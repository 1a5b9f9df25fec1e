"""MRC files: volumes and stacks of images of electron microscopes (Cheng et al., J. Struct. Biol. 2015)."""

import shutil
import struct
from pathlib import Path

import mrcfile
import numpy as np

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values

STATISTICS = (76, "3f"), (216, "f")  # where the header has minimum, maximum and mean, and the deviation


class Mrc(Picture):
    """A volume or a stack of images, mapped, in either order of bytes; the result is a copy with other values.

    What the header says of the values, their minimum, maximum, mean and deviation, is reckoned anew where it was known.
    """

    STACKS = (".mrcs", ".st")  # endings of images one after the other; others have volumes
    MODES = (0, 1, 2, 6, 12)  # int8, int16, float32, uint16, float16

    kind, volumes = "MRC", True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with mrcfile.open(path, header_only=True) as file:
            header = file.header
            mode = int(header.mode)
            if mode not in self.MODES:
                raise InputError(f"holds values of mode {mode}; it must be one of {', '.join(map(str, self.MODES))}")
            dtype = mrcfile.utils.data_dtype_from_header(header)
            shape = tuple(int(n) for n in (header.nz, header.ny, header.nx))
            several = mrcfile.utils.spacegroup_is_volume_stack(header.ispg)
            planes = int(header.mz)
            self.offset = 1024 + int(header.nsymbt)
            self.order = ">" if header.dtype["nx"].newbyteorder(">") == header.dtype["nx"] else "<"
            size = tuple(float(file.voxel_size[axis]) for axis in "zyx")
            self.known = bool(header.dmax >= header.dmin)
        if min(shape) < 1 or self.offset + dtype.itemsize * int(np.prod(shape)) > path.stat().st_size:
            raise InputError(f"is truncated: its header says {' x '.join(map(str, shape))} values of {dtype.name}")
        letters = "NHW" if path.suffix.lower() in self.STACKS else "DHW"
        if several:
            if planes < 1 or shape[0] % planes:
                raise InputError(f"its {shape[0]} planes are no whole number of volumes of {planes}")
            shape, letters = (shape[0] // planes, planes, *shape[1:]), "NDHW"
        elif shape[0] == 1:
            shape, letters = shape[1:], "HW"
        self.place = (dtype, self.offset, shape)
        self.values = [Values(np.memmap(path, dtype, "c", self.offset, shape), letters)]
        if "D" in letters and min(size) > 0:
            self.values[0].spacing = (size[0], size[1], size[2])

    def _begin(self, path: Path) -> list[np.ndarray]:
        shutil.copyfile(self.path, path)
        dtype, offset, shape = self.place
        return [np.memmap(path, dtype, "r+", offset, shape)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        (values,) = results
        values.flush()  # type: ignore[attr-defined]
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
