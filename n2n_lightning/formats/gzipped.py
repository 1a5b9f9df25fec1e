"""Files that are gzipped, whatever their name says: .map.gz, .fits.gz, and gzip inside of a plain .fits."""

import contextlib
import gzip
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from n2n_lightning.files import DiskFull, InputError
from n2n_lightning.formats.picture import LARGE, RATIO, Picture, Values

MAGIC = b"\x1f\x8b"
PIECE = 2**22  # bytes that are unpacked at a time


class Gzipped(Picture):
    """A picture in a gzipped file, unpacked into a temporary one; the result is gzipped as well.

    Args:
        path: the file.
        part: see Picture.
        reader: the class that reads what is inside.

    Raises:
        InputError: it is damaged, or there is no room to unpack it.
    """

    def __init__(self, path: Path, part: str | None, reader: type[Picture]) -> None:
        super().__init__(path, part)
        for name in ("kind", "volumes", "floats"):
            setattr(self, name, getattr(reader, name))
        folder = tempfile.mkdtemp(prefix="n2n_")
        self._gone = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            inside = Path(folder, path.name[:-3] if path.suffix.lower() == ".gz" else path.name)
            _unpack(path, inside)
            self.inside = reader(inside, part)
        except BaseException:
            self._gone()
            raise
        self.note, self.orientation = self.inside.note, self.inside.orientation
        self.values: list[Values] = self.inside.values

    @contextlib.contextmanager
    def written(self, path: Path, *options: Any, **more: Any) -> Iterator[list[np.ndarray]]:
        """See Picture."""
        with tempfile.TemporaryDirectory(prefix="n2n_", ignore_cleanup_errors=True) as folder:
            result = Path(folder, self.inside.path.name)
            with self.inside.written(result, *options, **more) as results:
                yield results
            with (
                result.open("rb") as plain,
                path.open("wb") as packed,
                gzip.GzipFile("", "wb", 6, packed, mtime=0) as file,
            ):
                shutil.copyfileobj(plain, file, PIECE)


def is_gzipped(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    with path.open("rb") as file:
        return file.read(2) == MAGIC


def _unpack(path: Path, target: Path) -> None:
    stored, count = path.stat().st_size, 0
    try:
        with gzip.open(path) as packed, target.open("wb") as plain:
            while piece := packed.read(PIECE):
                count += len(piece)
                if count > LARGE and count > RATIO * stored:
                    raise InputError(
                        f"would unpack {stored:,} bytes to more than {count:,}; it is not read"
                    )
                _write(plain, piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"damaged or incomplete gzip data ({error})") from error


def _write(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise DiskFull(
            f"no room to unpack it in {tempfile.gettempdir()}; TMPDIR names another folder"
        ) from error
