"""JPEG photographs."""

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values, check_size


class Jpeg(Picture):
    """A photograph; written with quality 95 and its own chroma sampling, EXIF data, XMP, colour profile and comment."""

    kind, fixed_axes = "JPEG", True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with (
            path.open("rb") as file,
            contextlib.closing(JpegImagePlugin.JpegImageFile(file)) as image,
        ):
            check_size(path.stat().st_size, image.width * image.height * 3)
            if image.mode not in ("L", "RGB"):
                raise InputError(f"is a {image.mode} JPEG; convert it to RGB")
            names = ("icc_profile", "exif", "xmp", "dpi", "comment")
            self.options = {name: image.info[name] for name in names if image.info.get(name)}
            self.orientation = int(image.getexif().get(274, 1))
            self.options |= {"progressive": bool(image.info.get("progressive")), "quality": 95}
            # Samplings that Pillow cannot write become 4:4:4, which loses nothing.
            self.options["subsampling"] = max(0, JpegImagePlugin.get_sampling(image))
            if image.info.get("mp") or "mpoffset" in image.info:
                self.note = "the first of its pictures"
            self.values = [Values(np.array(image), "HW" if image.mode == "L" else "HWC")]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        Image.fromarray(results[0]).save(path, format="JPEG", **self.options)
