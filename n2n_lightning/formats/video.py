"""Movies of cameras and screens, AVI, MP4, MOV and MKV: they are read, and come out as TIFF."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import av
import imageio.v3 as iio
import numpy as np

from n2n_lightning.files import InputError, room
from n2n_lightning.formats.picture import Packed
from n2n_lightning.formats.read_only import ReadOnlyFormat

GREY = {
    "gray": "gray",
    "gray8": "gray",
    "gray10le": "gray16le",
    "gray12le": "gray16le",
    "gray16le": "gray16le",
}


class Video(ReadOnlyFormat):
    """All frames of the first video stream, as grey values where all colours are equal; sound is left out."""

    kind = "video"

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        self.format, size, count = _looked(path)
        deep = self.format in ("gray16le", "rgb48le")
        dtype = np.dtype(np.uint16 if deep else np.uint8)
        colours = () if self.format.startswith("gray") else (3,)
        _check_room(count * int(np.prod((*size, *colours))) * dtype.itemsize)
        array: np.ndarray = room((count, *size, *colours), dtype)
        read = 0
        with iio.imopen(path, "r", plugin="pyav") as file:
            for frame in file.iter(format=self.format, thread_type="SLICE"):
                if read == count:
                    break
                array[read] = frame.reshape(array.shape[1:])
                read += 1
        if not read:
            raise InputError("holds no frames")
        array = array[:read]
        letters = "TYXS" if colours else "TYX"
        if colours and all((frame == frame[..., :1]).all() for frame in array):
            array, letters = array[..., 0], "TYX"
        self._take(Packed(array.shape, array.dtype, lambda: array), letters)
        self.note = "as OME-TIFF, without sound"


def _looked(path: Path) -> tuple[str, tuple[int, int], int]:
    """How to read the frames, (height, width), and how many frames there are at most."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise InputError("holds no video")
        stream: Any = container.streams.video[0]
        name = str(stream.pix_fmt)
        deep = any(component.bits > 8 for component in stream.format.components)
        size = (int(stream.height), int(stream.width))
        count = sum(1 for packet in container.demux(stream) if packet.size)
    if not count:
        raise InputError("holds no frames")
    return GREY.get(name, "rgb48le" if deep else "rgb24"), size, count


def _check_room(size: int) -> None:
    """Raises InputError where neither memory nor the disk of temporary files holds the frames."""
    import psutil

    folder = tempfile.gettempdir()
    if size > 0.4 * psutil.virtual_memory().available and size > shutil.disk_usage(folder).free:
        raise InputError(
            f"its frames take {size / 2**30:.1f} GiB, more than there is in memory and in {folder};"
            " `ffmpeg -ss START -t SECONDS` cuts a part out"
        )
