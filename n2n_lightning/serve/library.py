"""Pictures that the page may show: below what was named, and those that were dropped on it."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from n2n_lightning.files import InputError, natural, some_of
from n2n_lightning.formats import ENDINGS, below, ending, is_one, kind_of, split
from n2n_lightning.paths import expand

UPLOAD_BYTES = 2 * 2**30  # of all dropped files together
DROPPED = "dropped"  # name of the folder of dropped files
CHECKPOINT = ".ckpt"
MOST_ENTRIES = 20_000  # files that are listed of a folder


class TooLargeError(Exception):
    """A dropped file that does not fit into UPLOAD_BYTES together with the others."""


@dataclass(frozen=True)
class Entry:
    """A picture, or a checkpoint.

    Attributes:
        key: the name of its root and its place below that, which the page sends back.
        path: the file, or the folder that is one picture.
        part: the array in it or its frames, as typed; None: none was named.
    """

    key: str
    path: Path
    part: str | None = None

    @property
    def typed(self) -> str:
        """The file and its part, as they are typed."""
        if self.part is None:
            return str(self.path)
        bracket = self.part.startswith("[")
        return f"{self.path}{self.part}" if bracket else f"{self.path}:{self.part}"


@dataclass(frozen=True)
class Root:
    """A file or folder that was named when the server was started.

    Attributes:
        name: in the keys of its entries; no two have one name.
        path: as typed.
        part: see `Entry`; of files alone.
    """

    name: str
    path: Path
    part: str | None = None

    @property
    def is_folder(self) -> bool:
        """True for a folder of pictures."""
        return not is_one(self.path)

    def entries(self) -> list[Entry]:
        """Return its pictures and checkpoints, in the natural order of their names."""
        if not self.is_folder:
            return [Entry(self.name, self.path, self.part)]
        top = self.path.resolve()
        entries = []
        for path in below(self.path):
            wanted = path.suffix == CHECKPOINT or kind_of(path) is not None
            if wanted and path.resolve().is_relative_to(top):
                place = path.relative_to(self.path).as_posix()
                entries.append(Entry(f"{self.name}/{place}", path))
            if len(entries) >= MOST_ENTRIES:
                break
        return sorted(entries, key=lambda entry: (str(entry.path.parent), natural(entry.path)))


class Library:
    """All pictures of a server, and a temporary folder of dropped ones.

    Args:
        typed: files and folders, as typed.

    Raises:
        InputError: one does not exist.
    """

    def __init__(self, typed: Sequence[str]) -> None:
        self.roots: dict[str, Root] = {}
        for text in typed:
            path, part = split(expand(text))
            if not path.exists():
                raise InputError(f"{path}: no such file or folder")
            self._add(path, part)
        self._temporary = tempfile.TemporaryDirectory(prefix="n2n-serve-")
        self.uploads = Path(self._temporary.name) / DROPPED
        self.uploads.mkdir()
        self.roots[DROPPED] = Root(DROPPED, self.uploads)

    def close(self) -> None:
        """Delete the dropped files."""
        self._temporary.cleanup()

    def _add(self, path: Path, part: str | None) -> None:
        """Add a root under the name of its file, with a number where that is taken."""
        bare = path.resolve().name or "files"
        name = bare
        number = 2
        while name in self.roots or name == DROPPED:
            name = f"{bare} ({number})"
            number += 1
        self.roots[name] = Root(name, path, part)

    def entries(self) -> list[Entry]:
        """Return all pictures and checkpoints."""
        entries = []
        for root in self.roots.values():
            entries += root.entries()
        return entries

    def named_files(self) -> list[Entry]:
        """Return the pictures that were named one by one."""
        files = []
        for root in self.roots.values():
            if not root.is_folder and root.path.suffix != CHECKPOINT:
                files += root.entries()
        return files

    def entry(self, key: str) -> Entry:
        """Return the picture or checkpoint of a key.

        Args:
            key: from the page, which is not trusted.

        Returns:
            The entry; it lies below what was named, with all links resolved.

        Raises:
            KeyError: there is none.
        """
        name, _, place = key.partition("/")
        root = self.roots[name]
        if not place:
            if root.is_folder:
                raise KeyError(key)
            return Entry(key, root.path, root.part)
        parts = PurePosixPath(place)
        if not root.is_folder or parts.is_absolute() or ".." in parts.parts or "\0" in place:
            raise KeyError(key)
        path = root.path / parts
        if not path.resolve().is_relative_to(root.path.resolve()) or not path.exists():
            raise KeyError(key)
        if path.suffix != CHECKPOINT and kind_of(path) is None:
            raise KeyError(key)
        return Entry(key, path)

    def root_of(self, key: str) -> Root:
        """Return the root of an entry."""
        return self.roots[key.partition("/")[0]]

    async def receive(self, name: str, size: int, content: AsyncIterator[bytes]) -> Entry:
        """Store a dropped file; what is too large is not read to its end.

        Args:
            name: of the file; folders in it are left out.
            size: that its sender states, in bytes.
            content: its bytes, piece by piece.

        Returns:
            The entry; a file of the same name before it stays, this one gets a number.

        Raises:
            InputError: it has the ending of no picture.
            TooLargeError: it does not fit.
        """
        bare = PurePosixPath(name.replace("\\", "/")).name
        kinds = [*ENDINGS, CHECKPOINT]
        suffix = ending(Path(bare))
        if suffix not in kinds or "\0" in bare or bare.startswith("."):
            raise InputError(f"{bare}: is none of {some_of(kinds, 8)}")
        room = UPLOAD_BYTES - sum(path.stat().st_size for path in self.uploads.iterdir())
        if size > room:
            raise TooLargeError
        target = self._free_name(bare, suffix)
        partial = target.with_name(f".{target.name}.part")
        try:
            with partial.open("wb") as file:
                async for piece in content:
                    room -= len(piece)
                    if room < 0:
                        raise TooLargeError
                    file.write(piece)
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
        return Entry(f"{DROPPED}/{target.name}", target)

    def _free_name(self, name: str, suffix: str) -> Path:
        """Return a path in the folder of dropped files that no file has yet."""
        path = self.uploads / name
        number = 2
        while path.exists():
            path = self.uploads / f"{name[: -len(suffix)]} ({number}){name[-len(suffix) :]}"
            number += 1
        return path
