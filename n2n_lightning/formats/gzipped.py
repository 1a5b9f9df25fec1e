"""Gzipped files under any name: .map.gz, .fits.gz, and gzip inside a plain .fits."""

import contextlib
import gzip
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from n2n_lightning.files import DiskFull, InputError
from n2n_lightning.formats.picture import BOMB_BYTES, BOMB_RATIO, Picture, Values

GZIP_MAGIC = b"\x1f\x8b"
UNPACKED_AT_A_TIME = 2**22  # bytes


class Gzipped(Picture):
    """A picture in a gzipped file, unpacked into a temporary one; the result is gzipped as well.

    Args:
        path: the file.
        part: see Picture.
        reader: the class that reads the unpacked file.

    Raises:
        InputError: it is damaged, or there is no room to unpack it.
    """

    def __init__(self, path: Path, part: str | None, reader: type[Picture]) -> None:
        super().__init__(path, part)
        for name in ("kind", "volumes", "floats"):
            setattr(self, name, getattr(reader, name))
        folder = tempfile.mkdtemp(prefix="n2n_")
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        name = path.name[:-3] if path.suffix.lower() == ".gz" else path.name
        try:
            _unpack_gzip(path, Path(folder, name))
            self.inside = reader(Path(folder, name), part)
        except BaseException:
            self._remove()
            raise
        self.note = self.inside.note
        self.orientation = self.inside.orientation
        self.values: list[Values] = self.inside.values

    @contextlib.contextmanager
    def written(
        self, path: Path, dtypes: Sequence[np.dtype | None] | None = None
    ) -> Iterator[list[np.ndarray]]:
        """Write a gzipped file; see Picture.

        Args:
            path: the file to write.
            dtypes: the type of each result.

        Yields:
            The results.
        """
        with tempfile.TemporaryDirectory(prefix="n2n_", ignore_cleanup_errors=True) as folder:
            result = Path(folder, self.inside.path.name)
            with self.inside.written(result, dtypes) as results:
                yield results
            with (
                result.open("rb") as plain,
                path.open("wb") as packed,
                gzip.GzipFile("", "wb", 6, packed, mtime=0) as file,
            ):
                shutil.copyfileobj(plain, file, UNPACKED_AT_A_TIME)


def is_gzipped(path: Path) -> bool:
    """Return True if a file begins as gzip does."""
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def _unpack_gzip(path: Path, target: Path) -> None:
    """Unpack a file.

    Raises:
        InputError: it is damaged, or a decompression bomb.
    """
    stored = path.stat().st_size
    unpacked = 0
    try:
        with gzip.open(path) as packed, target.open("wb") as plain:
            while piece := packed.read(UNPACKED_AT_A_TIME):
                unpacked += len(piece)
                if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * stored:
                    raise InputError(
                        f"would unpack {stored:,} bytes to more than {unpacked:,}; it is not read"
                    )
                _write_temporary(plain, piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"damaged or incomplete gzip data ({error})") from error


def _write_temporary(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise DiskFull(
            f"no room to unpack it in {tempfile.gettempdir()}; TMPDIR names another folder"
        ) from error
