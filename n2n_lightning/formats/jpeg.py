"""JPEG photographs."""

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values

QUALITY = 95
KEPT_INFO = ("icc_profile", "exif", "xmp", "dpi", "comment")


class Jpeg(Picture):
    """A photograph, written with quality 95.

    Chroma sampling, EXIF data, XMP, colour profile and comment stay.
    """

    kind = "JPEG"
    fixed_axes = True

    def _read(self) -> None:
        with (
            self.path.open("rb") as file,
            contextlib.closing(JpegImagePlugin.JpegImageFile(file)) as image,
        ):
            self._check_size(image.width * image.height * 3)
            if image.mode not in ("L", "RGB"):
                raise InputError(f"is a {image.mode} JPEG; convert it to RGB")
            info = image.info
            self.options = {name: info[name] for name in KEPT_INFO if info.get(name)}
            self.orientation = int(image.getexif().get(274, 1))
            self.options["progressive"] = bool(info.get("progressive"))
            self.options["quality"] = QUALITY
            # Samplings that Pillow cannot write become 4:4:4, which loses nothing.
            self.options["subsampling"] = max(0, JpegImagePlugin.get_sampling(image))
            if info.get("mp") or "mpoffset" in info:
                self.note = "the first of its pictures"
            axes = "HW" if image.mode == "L" else "HWC"
            self.values = [Values(np.array(image), axes)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        Image.fromarray(results[0]).save(path, format="JPEG", **self.options)
