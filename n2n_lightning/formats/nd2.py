"""Files of Nikon microscopes."""

import nd2
import numpy as np

from n2n_lightning.formats.picture import Packed
from n2n_lightning.formats.read_only import ReadOnlyFormat


class Nd2(ReadOnlyFormat):
    """All of a file as one array; the result is a TIFF."""

    kind = "ND2"

    def _read(self) -> None:
        with nd2.ND2File(self.path) as file:
            letters = "".join(name if len(name) == 1 else "N" for name in file.sizes)
            size = file.voxel_size()
            depth = size.z if "Z" in letters else None
            array = Packed(tuple(file.shape), file.dtype, self._unpacked)
            self._take(array, letters, (depth, size.y, size.x))

    def _unpacked(self) -> np.ndarray:
        with nd2.ND2File(self.path) as file:
            return file.asarray()
