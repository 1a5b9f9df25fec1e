"""Portable graymaps, pixmaps and arbitrary maps: .pgm, .ppm, .pnm, .pam."""

from pathlib import Path
from typing import Any

import netpbmfile
import numpy as np

from n2n_lightning.arrays.axes import of_tiff
from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values


class Pnm(Picture):
    """8 or 16 bits, grey or colour; .pam also with transparency.

    The largest value that the header states stays.
    """

    kind = "PNM"
    fixed_axes = True

    def _read(self) -> None:
        with netpbmfile.NetpbmFile(self.path) as file:
            if file.magicnumber not in ("P2", "P3", "P5", "P6", "P7"):
                raise InputError("is a bitmap or holds floats; convert it to PGM or PPM")
            if file.frames > 1:
                raise InputError(f"holds {file.frames} images; save them apart")
            array = np.asarray(file.asarray())
            letters = file.axes
            self.options: Any = {"magicnumber": file.magicnumber, "maxval": file.maxval}
            if file.magicnumber == "P7":
                self.options["tupltype"] = file.tupltype
        largest = self.options["maxval"]
        if array.max() > largest:
            raise InputError(f"has values above {largest}, the largest that its header allows")
        axes, shape = of_tiff(letters, array.shape)
        alpha = str(self.options.get("tupltype", "")).endswith("_ALPHA")
        native = array.astype(array.dtype.newbyteorder("="))
        self.values = [Values(native.reshape(shape), axes, alpha)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        netpbmfile.imwrite(path, results[0].clip(0, self.options["maxval"]), **self.options)
