"""WebP pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values, check_size


class Webp(Picture):
    """Colour with or without transparency; lossless stays so, lossy is written with quality 95; EXIF, XMP, profile."""

    kind, fixed_axes = "WebP", True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with Image.open(path, formats=["WEBP"]) as image:
            check_size(path.stat().st_size, image.width * image.height * 4)
            if getattr(image, "n_frames", 1) > 1:
                raise InputError("is an animation")
            lossless = _is_lossless(path.read_bytes())
            names = ("icc_profile", "exif", "xmp")
            self.options = {name: image.info[name] for name in names if image.info.get(name)}
            self.orientation = int(image.getexif().get(274, 1))
            self.options |= {
                "lossless": lossless,
                "quality": 100 if lossless else 95,
                "exact": True,
            }
            mode = "RGBA" if "A" in image.getbands() else "RGB"
            self.values = [Values(np.array(image.convert(mode)), "HWC", mode == "RGBA")]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        Image.fromarray(results[0]).save(path, format="WEBP", **self.options)


def _is_lossless(content: bytes) -> bool:
    """Whether the pixels are in a chunk of the lossless kind."""
    place = 12  # after RIFF, the size and WEBP
    while place + 8 <= len(content):
        name, length = (
            content[place : place + 4],
            int.from_bytes(content[place + 4 : place + 8], "little"),
        )
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        place += 8 + length + length % 2
    return False
