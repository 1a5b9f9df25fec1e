"""Movies of cameras and screens, AVI, MP4, MOV and MKV; the result is a TIFF."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import imageio.v3 as iio
import numpy as np

from n2n_lightning.files import InputError, room
from n2n_lightning.formats.picture import Packed
from n2n_lightning.formats.read_only import ReadOnlyFormat

# Formats of grey pixels, and the format that they are read in.
GREY_FORMATS = {
    "gray": "gray",
    "gray8": "gray",
    "gray10le": "gray16le",
    "gray12le": "gray16le",
    "gray16le": "gray16le",
}
MEMORY_SHARE = 0.4  # of the free memory; larger arrays go to a temporary file (files.room)


@dataclass(frozen=True)
class Stream:
    """The first video stream of a file.

    Attributes:
        format: the format in which its frames are read.
        height, width: of a frame.
        frames: their number at most.
    """

    format: str
    height: int
    width: int
    frames: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames, (T, H, W) or (T, H, W, 3)."""
        if self.format.startswith("gray"):
            return self.frames, self.height, self.width
        return self.frames, self.height, self.width, 3

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return np.dtype(np.uint16 if self.format in ("gray16le", "rgb48le") else np.uint8)


class Video(ReadOnlyFormat):
    """All frames of the first video stream, as grey values if all colours are equal.

    Sound is left out.
    """

    kind = "video"

    def _read(self) -> None:
        stream = _stream(self.path)
        _check_room(int(np.prod(stream.shape)) * stream.dtype.itemsize)
        array: np.ndarray = room(stream.shape, stream.dtype)
        count = 0
        with iio.imopen(self.path, "r", plugin="pyav") as file:
            for frame in file.iter(format=stream.format, thread_type="SLICE"):
                if count == stream.frames:
                    break
                array[count] = frame.reshape(array.shape[1:])
                count += 1
        if not count:
            raise InputError("holds no frames")
        array = array[:count]
        names = "TYX"
        if len(array.shape) == 4:
            if all((frame == frame[..., :1]).all() for frame in array):
                array = array[..., 0]
            else:
                names = "TYXS"
        self._take(Packed(array.shape, array.dtype, lambda: array), names)
        self.note = "as OME-TIFF, without sound"


def _stream(path: Path) -> Stream:
    """Read the size and the number of frames of the first video stream."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise InputError("holds no video")
        stream: Any = container.streams.video[0]
        deep = any(component.bits > 8 for component in stream.format.components)
        colour_format = "rgb48le" if deep else "rgb24"
        count = sum(1 for packet in container.demux(stream) if packet.size)
        if not count:
            raise InputError("holds no frames")
        pixel_format = GREY_FORMATS.get(str(stream.pix_fmt), colour_format)
        return Stream(pixel_format, int(stream.height), int(stream.width), count)


def _check_room(size: int) -> None:
    """Raise InputError if neither memory nor the disk of temporary files holds the frames."""
    import psutil

    folder = tempfile.gettempdir()
    in_memory = MEMORY_SHARE * psutil.virtual_memory().available
    if size > in_memory and size > shutil.disk_usage(folder).free:
        raise InputError(
            f"its frames take {size / 2**30:.1f} GiB, more than there is in memory and in {folder};"
            " `ffmpeg -ss START -t SECONDS` cuts a part out"
        )
