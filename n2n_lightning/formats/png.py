"""PNG pictures."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import Picture, Values

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD = 33  # bytes of the signature and the header chunk, which comes first
# Chunks that do not depend on how the pixels are stored (PNG specification, third edition, chapter
# 11).
KEPT_CHUNKS = frozenset(b"cHRM cICP gAMA iCCP sRGB pHYs eXIf tIME tEXt zTXt iTXt".split())
PALETTE = 3  # a colour type of the header
CHANNELS = {0: 1, 4: 2, 2: 3, PALETTE: 3, 6: 4}  # of the colour types


@dataclass(frozen=True)
class Chunk:
    """A chunk of a PNG file; of pixel data the name only."""

    name: bytes
    data: bytes

    def packed(self) -> bytes:
        """Pack the chunk for a file.

        Returns:
            Length, name, data and checksum.
        """
        body = self.name + self.data
        length = struct.pack(">I", len(self.data))
        checksum = struct.pack(">I", zlib.crc32(body))
        return length + body + checksum


class Png(Picture):
    """8 or 16 bits, grey or colour, with or without transparency; palettes become colours."""

    kind = "PNG"
    fixed_axes = True

    def _read(self) -> None:
        content = self.path.read_bytes()
        chunks = list(_chunks(content))
        width, height, bits, colour = struct.unpack(">IIBB", chunks[0].data[:10])
        pixel_bytes = 8 * max(1, bits // 8)
        self._check_size(width * height * pixel_bytes)
        names = {chunk.name for chunk in chunks}
        if b"acTL" in names:
            raise InputError("is an animation")
        transparent = b"tRNS" in names
        if colour == PALETTE:
            self.note = "its palette became colours"
        elif bits < 8:
            self.note = f"its {bits} bit became 8"
        elif transparent:
            self.note = "its transparent colour became a channel"
        self.mask = bits == 1 and colour == 0
        self.kept = [chunk for chunk in chunks if chunk.name in KEPT_CHUNKS]
        for chunk in chunks:
            if chunk.name == b"eXIf":
                exif = Image.Exif()
                exif.load(b"Exif\0\0" + chunk.data)
                self.orientation = int(exif.get(274, 1))
        channels = CHANNELS[colour]
        if transparent and colour in (0, 2, PALETTE):
            channels += 1
        axes = "HW" if channels == 1 else "HWC"
        array = imagecodecs.png_decode(content)
        self.values = [Values(array, axes, alpha=channels in (2, 4))]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        content = memoryview(imagecodecs.png_encode(np.ascontiguousarray(results[0])))
        with path.open("wb") as file:
            file.write(content[:HEAD])
            for chunk in self.kept:
                file.write(chunk.packed())
            file.write(content[HEAD:])


def _chunks(content: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a PNG file."""
    if content[:8] != SIGNATURE or content[12:16] != b"IHDR":
        raise InputError("is no PNG file")
    place = 8
    while place + 8 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        name = content[place + 4 : place + 8]
        data = b""
        if name != b"IDAT":
            data = content[place + 8 : place + 8 + length]
        yield Chunk(name, data)
        place += 12 + length
