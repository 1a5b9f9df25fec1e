"""Windows bitmaps."""

from pathlib import Path

import numpy as np
from PIL import Image

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values, check_size


class Bmp(Picture):
    """8 bit grey, colour, or colour with transparency; palettes become colours."""

    BITS = slice(28, 30)  # of the file: bits per pixel

    kind, fixed_axes = "BMP", True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with Image.open(path, formats=["BMP"]) as image:
            check_size(path.stat().st_size, image.width * image.height * len(image.getbands()))
            self.dpi = image.info.get("dpi")
            if image.mode == "P":
                self.note = "its palette became colours"
            elif image.mode == "1":
                self.note, self.mask = "its 1 bit became 8", True
            elif image.mode not in ("L", "RGB", "RGBA"):
                raise InputError(f"is a {image.mode} BMP; convert it to RGB")
            elif (
                image.mode == "RGB" and int.from_bytes(path.read_bytes()[self.BITS], "little") == 32
            ):
                self.note = "without the fourth byte of its pixels"
            mode = {"P": "RGB", "1": "L"}.get(image.mode, image.mode)
            array = np.array(image.convert(mode))
        self.values = [Values(array, "HW" if mode == "L" else "HWC", mode == "RGBA")]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        Image.fromarray(results[0]).save(
            path, format="BMP", **({"dpi": self.dpi} if self.dpi else {})
        )
