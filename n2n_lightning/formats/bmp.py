"""Windows bitmaps."""

from pathlib import Path

import numpy as np
from PIL import Image

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values

BITS_PER_PIXEL = slice(28, 30)  # where the file states them
CONVERTED = {"P": "RGB", "1": "L"}  # modes of Pillow that are read as another


class Bmp(Picture):
    """8 bit grey, colour, or colour with transparency; palettes become colours."""

    kind = "BMP"
    fixed_axes = True

    def _read(self) -> None:
        with Image.open(self.path, formats=["BMP"]) as image:
            channels = len(image.getbands())
            self._check_size(image.width * image.height * channels)
            self.dpi = image.info.get("dpi")
            if image.mode == "P":
                self.note = "its palette became colours"
            elif image.mode == "1":
                self.note = "its 1 bit became 8"
                self.mask = True
            elif image.mode not in ("L", "RGB", "RGBA"):
                raise InputError(f"is a {image.mode} BMP; convert it to RGB")
            elif image.mode == "RGB" and _bits_per_pixel(self.path) == 32:
                self.note = "without the fourth byte of its pixels"
            mode = CONVERTED.get(image.mode, image.mode)
            array = np.array(image.convert(mode))
        axes = "HW" if mode == "L" else "HWC"
        self.values = [Values(array, axes, alpha=mode == "RGBA")]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        options = {"dpi": self.dpi} if self.dpi else {}
        Image.fromarray(results[0]).save(path, format="BMP", **options)


def _bits_per_pixel(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[BITS_PER_PIXEL], "little")
