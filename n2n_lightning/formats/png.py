"""PNG pictures."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values, check_size


class Png(Picture):
    """8 or 16 bits, grey or colour, with or without transparency; palettes become colours."""

    # What the chunks say is independent of how the pixels are stored (PNG specification, third
    # edition, chapter 11).
    KEPT = (
        b"cHRM",
        b"cICP",
        b"gAMA",
        b"iCCP",
        b"sRGB",
        b"pHYs",
        b"eXIf",
        b"tIME",
        b"tEXt",
        b"zTXt",
        b"iTXt",
    )

    kind, fixed_axes = "PNG", True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        content = path.read_bytes()
        chunks = list(_chunks(content))
        width, height, bits, colour = struct.unpack(">IIBB", chunks[0][1][:10])
        check_size(len(content), width * height * 8 * max(1, bits // 8))
        if any(name == b"acTL" for name, _ in chunks):
            raise InputError("is an animation")
        transparent = any(name == b"tRNS" for name, _ in chunks)
        if colour == 3:
            self.note = "its palette became colours"
        elif bits < 8:
            self.note = f"its {bits} bit became 8"
        elif transparent:
            self.note = "its transparent colour became a channel"
        self.mask = bits == 1 and colour == 0
        self.kept = [(name, data) for name, data in chunks if name in self.KEPT]
        for name, data in chunks:
            if name == b"eXIf":
                exif = Image.Exif()
                exif.load(b"Exif\0\0" + data)
                self.orientation = int(exif.get(274, 1))
        array = imagecodecs.png_decode(content)
        channels = {0: 1, 4: 2, 2: 3, 3: 3, 6: 4}[colour] + (colour in (0, 2, 3) and transparent)
        self.values = [Values(array, "HW" if channels == 1 else "HWC", channels in (2, 4))]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        content = memoryview(imagecodecs.png_encode(np.ascontiguousarray(results[0])))
        # the signature and the header chunk, before which nothing may come
        head, rest = content[:33], content[33:]
        with path.open("wb") as file:
            file.write(head)
            for name, data in self.kept:
                file.write(
                    struct.pack(">I", len(data))
                    + name
                    + data
                    + struct.pack(">I", zlib.crc32(name + data))
                )
            file.write(rest)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the chunks of a PNG file; of the pixels only the name."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        raise InputError("is no PNG file")
    place = 8
    while place + 8 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        name = content[place + 4 : place + 8]
        yield name, b"" if name == b"IDAT" else content[place + 8 : place + 8 + length]
        place += 12 + length
