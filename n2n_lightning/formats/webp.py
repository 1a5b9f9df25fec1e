"""WebP pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values


class Webp(Picture):
    """Colour with or without transparency.

    Lossless files stay so, others are written with quality 95; EXIF, XMP and profile stay.
    """

    kind = "WebP"
    fixed_axes = True

    def _read(self) -> None:
        with Image.open(self.path, formats=["WEBP"]) as image:
            self._check_size(image.width * image.height * 4)
            if getattr(image, "n_frames", 1) > 1:
                raise InputError("is an animation")
            info = image.info
            names = ("icc_profile", "exif", "xmp")
            self.options = {name: info[name] for name in names if info.get(name)}
            self.orientation = int(image.getexif().get(274, 1))
            lossless = _is_lossless(self.path.read_bytes())
            self.options["lossless"] = lossless
            self.options["quality"] = 100 if lossless else 95
            self.options["exact"] = True
            mode = "RGBA" if "A" in image.getbands() else "RGB"
            array = np.array(image.convert(mode))
        self.values = [Values(array, "HWC", alpha=mode == "RGBA")]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        Image.fromarray(results[0]).save(path, format="WEBP", **self.options)


def _is_lossless(content: bytes) -> bool:
    """Return True if the pixels are in a chunk of the lossless kind."""
    place = 12  # after RIFF, the size and WEBP
    while place + 8 <= len(content):
        name = content[place : place + 4]
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        place += 8 + length + length % 2
    return False
