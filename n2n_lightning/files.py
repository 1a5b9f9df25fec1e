"""Reading files that may come from strangers, and writing files whole or not at all."""

import argparse
import errno
import hashlib
import io
import math
import os
import pickle
import re
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

Spelling = Callable[[str, Any], str]


def as_keyword(field: str, value: Any) -> str:
    """Return an option as Python and Hydra write it.

    Args:
        field: its name: `tile`, or in a configuration `data.crop`.
        value: its value; empty for the option itself.

    >>> as_keyword("data.crop", 3), as_keyword("data.clean", "")
    ('data.crop=3', 'data.clean=')
    """
    return f"{field}={value}"


_spelling: ContextVar[Spelling] = ContextVar("spelling", default=as_keyword)


@contextmanager
def spelled(spelling: Spelling) -> Iterator[None]:
    """Let errors within the block write options as the running command takes them.

    Args:
        spelling: text for the name and the value of an option.
    """
    token = _spelling.set(spelling)
    try:
        yield
    finally:
        _spelling.reset(token)


def option(field: str, value: Any = "") -> str:
    """Return an option, for a message, as the running command takes it.

    Args:
        field: its name in Python (`tile`) or in a configuration (`data.layout`).
        value: its value; empty for the option itself.

    Returns:
        `data.layout=NHW` in training and in Python, `--layout NHW` in other commands.

    >>> option("data.layout", "NHW")
    'data.layout=NHW'
    """
    return _spelling.get()(field, value)


class InputError(ValueError):
    """An option or a file that cannot work; the text is the one line that the user sees.

    Args:
        subject: the name of the option, `tile` or `data.crop`; without a reason, the whole line,
            as for files: `scan.tif: is truncated`.
        value: the value of the option.
        reason: what is wrong with it, and what would work.

    Attributes:
        field, value, reason: of the option; None where the error is about something else.

    >>> InputError("data.crop", 3, "must be 4 or more")
    InputError('data.crop=3: must be 4 or more')
    >>> InputError("scan.tif: is truncated").field is None
    True
    """

    def __init__(self, subject: str, value: Any = None, reason: str | None = None) -> None:
        line = subject if reason is None else f"{option(subject, value)}: {reason}"
        super().__init__(line)
        self.field = None if reason is None else subject
        self.value = value
        self.reason = reason


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SMALL = 2**18  # bytes of an array that is read rather than mapped


class DiskFull(OSError):
    """There is no room for a file; the message is the one line that the person sees, and what was there is there."""


@contextmanager
def replacing(path: Path, keep: Path | None = None, folder: bool = False) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when the block ends and removed when the block fails.

    The file is flushed to the disk before the rename, so that a crash leaves the old file or the
    new one. The old file gets the name `keep`, if that is given. With `folder` it is an empty
    folder that is to be filled.

    Raises:
        DiskFull: the file does not fit on the disk, or into the person's share of it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        where: dict[str, Any] = {
            "dir": path.parent,
            "prefix": f".{path.name[:40]}.",
            "suffix": path.suffix,
        }
        if folder:
            name = tempfile.mkdtemp(**where)
        else:
            handle, name = tempfile.mkstemp(**where)
            os.close(handle)
    except OSError as error:
        raise disk_full(path, error) or error from None
    temporary = Path(name)
    try:
        yield temporary
        if folder:
            _move_folder(temporary, path)
            return
        with temporary.open("rb+") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        if keep and path.exists():
            _rename(path, keep)
        _rename(temporary, path)
    except (OSError, RuntimeError) as error:
        full = disk_full(path, error)
        with suppress(OSError):
            # whoever wrote it may hold it open still, and then it would keep its space
            os.truncate(temporary, 0)
        if full:
            raise full from error
        raise
    finally:
        with suppress(PermissionError):  # Windows, where somebody has it open
            if folder:
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def _move_folder(folder: Path, target: Path) -> None:
    """Gives a folder the name of another, which goes when the new one is there; of a link only the link goes."""
    folder.chmod(0o777 & ~_umask())
    before = folder.with_name(f"{folder.name}.before")
    there = os.path.lexists(target)
    if there:
        _rename(target, before)
    try:
        _rename(folder, target)
    except OSError:
        if there:
            _rename(before, target)
        raise
    if before.is_symlink() or before.is_file():
        before.unlink()
    shutil.rmtree(before, ignore_errors=True)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file or folder a path leads to, by whatever links and spelling; None where there is none.

    Returns:
        Device and number of it.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def copy_folder(
    source: Path, target: Path, left_out: Callable[[Path], bool] = lambda path: False
) -> list[str]:
    """Copy the files of a folder into an empty one, as new files that may be written to.

    Links are followed and become files and folders; a folder that leads back to one that holds it
    is left out.

    Args:
        source: the folder; it is only read.
        target: an empty folder.
        left_out: tells whether a file or folder of the source is not copied.

    Returns:
        The names, relative to the source, of links that lead nowhere; they are not copied.
    """
    dangling: list[str] = []
    for here, folders, files in os.walk(source, followlinks=True):
        folder = Path(here)
        copy = target / folder.relative_to(source)
        copy.mkdir(exist_ok=True)
        above = {os.path.realpath(p) for p in (folder, *folder.parents)}
        folders[:] = [
            n
            for n in folders
            if not left_out(folder / n) and os.path.realpath(folder / n) not in above
        ]
        for name in files:
            if left_out(folder / name):
                continue
            if (folder / name).is_file():
                shutil.copyfile(folder / name, copy / name)
            else:
                dangling.append((folder / name).relative_to(source).as_posix())
    return dangling


def reserve(path: Path) -> None:
    """Claim the disk for all of a file that is still empty, where the system can: a mapped file must not run out of it.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, os.fstat(file.fileno()).st_size))
            except OSError as error:
                if error.errno in FULL:
                    raise


def _rename(path: Path, target: Path, patience: float = 2.0) -> None:
    """Renames a file over another. On Windows that fails while a program has either open: then it is tried again.

    Raises:
        PermissionError: it was open all the time.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            path.replace(target)
            return
        except PermissionError as error:
            if time.monotonic() > deadline:
                raise PermissionError(
                    error.errno, f"{target} is open in another program"
                ) from error
            time.sleep(0.05)


def disk_full(path: Path, error: Exception) -> DiskFull | None:
    """What to raise instead of `error`, which came of writing `path`, if the reason is a full disk."""
    if isinstance(error, DiskFull):
        return None
    full = getattr(error, "errno", None) in FULL
    # of torch.save, among others; the unfinished file still fills the disk
    if type(error) is RuntimeError:
        with suppress(OSError):
            full = shutil.disk_usage(path.parent).free < 2**16
    return (
        DiskFull(f"{path}: no space left on the disk for it; what was there before is untouched")
        if full
        else None
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote to `path`, on the CPU, without running any code that the file may carry.

    Raises:
        InputError: the file is missing, is damaged, or holds more than tensors and plain
            containers.
    """
    import torch

    try:
        with warnings.catch_warnings():
            # torch warns of the pickle protocol of files that it then refuses
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
        if zipfile.is_zipfile(path):  # torch does not look at the checksums
            with zipfile.ZipFile(path) as archive:
                if part := archive.testzip():
                    raise ValueError(f"{part} does not have its checksum")
        return content
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (
        Exception
    ) as error:  # torch raises UnpicklingError, RuntimeError, EOFError, KeyError, OSError, ...
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise InputError(
                f"{path}: holds more than tensors, which could run code; it is not read"
            ) from error
        raise InputError(f"{path}: damaged, incomplete, or not written by torch.save") from error


def room(shape: Sequence[int], dtype: Any, share: float = 0.4) -> Any:
    """An array of NumPy's, not filled yet: in memory, or, where it would take more than a share of what is free, in a
    temporary file (in TMPDIR) that ends with it.

    Args:
        shape, dtype: of the array.
        share: of the memory that is free.
    """
    import numpy as np
    import psutil

    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= share * psutil.virtual_memory().available or size <= SMALL:
        return np.empty(shape, dtype)
    # there a file may lose its name while it is mapped, and the map needs no descriptor
    if os.name == "posix":
        import torch

        handle, name = tempfile.mkstemp()
        try:
            os.ftruncate(handle, size)
            storage = torch.UntypedStorage.from_file(name, True, size)
        finally:
            os.close(handle)
            os.unlink(name)
        flat = torch.tensor([], dtype=torch.uint8).set_(storage).numpy()  # type: ignore[arg-type]
        return flat.view(dtype).reshape(tuple(shape))
    with tempfile.TemporaryFile() as file:  # the map keeps it
        return np.memmap(file, dtype, "w+", shape=tuple(shape))


def mapped(path: Path, dtype: Any, offset: int, shape: Sequence[int], order: Any = "C") -> Any:
    """Map an array of a file into memory, without holding the file open; writing changes the copy in memory alone.

    `np.memmap` keeps a descriptor for each map, so a folder of 1,400 files exceeds the usual limit
    of 1,024. Small arrays are read.

    Args:
        path: the file, which is opened for reading.
        dtype: of the values, in either byte order.
        offset: the position of the first value, in bytes.
        shape: of the array.
        order: "C", or "F" where the first axis varies fastest.

    Returns:
        An array of this shape that can be written to.

    Raises:
        InputError: the file is shorter.
    """
    import numpy as np

    dtype = np.dtype(dtype)
    size = dtype.itemsize * math.prod(shape)
    if offset + size > path.stat().st_size:
        raise InputError("is truncated")
    if size <= SMALL:
        flat = np.fromfile(path, dtype, math.prod(shape), offset=offset)
    else:
        import torch

        storage = torch.UntypedStorage.from_file(str(path), False, offset + size)
        flat = torch.tensor([], dtype=torch.uint8).set_(storage).numpy()[offset:].view(dtype)  # type: ignore[arg-type]
    return flat.reshape(tuple(shape), order=order)


def out_of_descriptors(error: BaseException | None) -> bool:
    """Tell whether an exception, or one of those that caused it, came from the limit on open files."""
    while error is not None:
        if getattr(error, "errno", None) in (
            errno.EMFILE,
            errno.ENFILE,
        ) or "Too many open files" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def some_of(names: Sequence[str], most: int) -> str:
    """Return the first names of a list, and how many more there are.

    >>> some_of(["a", "b"], 2), some_of(["a", "b", "c"], 2)
    ('a, b', 'a, b and 1 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def one_of(value: Any, choices: Sequence[str], field: str) -> str:
    """Return the value of an option that takes one of several choices.

    Args:
        value: what the user typed.
        choices: the choices.
        field: the name of the option, `dtype` or `data.outliers`.

    Returns:
        The value.

    Raises:
        InputError: the value is none of the choices.

    >>> one_of("keep", ("auto", "keep"), "dtype")
    'keep'
    """
    if value not in choices:
        raise InputError(field, value, f"must be one of {', '.join(choices)}")
    return str(value)


def natural(path: Path) -> list[tuple[int, str]]:
    """A sort key that orders numbers in names by their value.

    >>> sorted([Path("s10"), Path("s2")], key=natural) == [Path("s2"), Path("s10")]
    True
    """
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", path.name)
    ]


def _at_home(value: Any) -> Any:
    """A value of a command line with `~` and `~user` expanded, where no file has such a name."""
    if isinstance(value, list):
        return [_at_home(one) for one in value]
    text = str(value) if isinstance(value, str | Path) else ""
    if not text.startswith("~") or os.path.lexists(text):
        return value
    return type(value)(os.path.expanduser(text))


class Parser(argparse.ArgumentParser):
    """Ordinary `--options`, with errors of one line; `~` in a value is the home folder.

    Args:
        *words, **options: see argparse.ArgumentParser.
        fields: options that errors of other modules know by another name: `data.val_pairs` is
            `val` here.
    """

    def __init__(self, *words: Any, fields: dict[str, str] | None = None, **options: Any) -> None:
        super().__init__(*words, **options)
        self.fields = fields or {}

    def spell(self, field: str, value: Any) -> str:
        """Return an option as this command takes it; in Python's spelling, where it has none.

        Args:
            field: its name in Python or in a configuration: `tile`, `data.dq_good`.
            value: its value; empty for the option itself, True for an option without a value.

        >>> parser = Parser()
        >>> _ = parser.add_argument("--dq-good"), parser.add_argument("pictures", metavar="PICTURE")
        >>> [parser.spell(field, 4) for field in ("data.dq_good", "pictures", "data.crop")]
        ['--dq-good 4', 'PICTURE 4', 'data.crop=4']
        """
        name = self.fields.get(field) or field.rpartition(".")[2]
        flag = f"--{name.replace('_', '-')}"
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        for action in self._actions:
            if flag in action.option_strings:
                return flag if value is True else f"{flag} {shown}".rstrip()
            if action.dest == name and not action.option_strings:
                return f"{action.metavar or name} {shown}".rstrip()
        return as_keyword(field, value)

    def parse_args(self, *words: Any, **options: Any) -> Any:
        found = super().parse_args(*words, **options)
        for name, value in vars(found).items():
            setattr(found, name, _at_home(value))
        return found

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help lists the options)\n")


def command(run: Callable[[], int | None], parser: Callable[[], Parser]) -> NoReturn:
    """Run a command line and exit: status 0, 1 for what broke, 2 for what cannot work as asked.

    Args:
        run: the command; it returns its exit status, or None.
        parser: makes the parser of its options, which errors are shown with.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold any bytes
    try:
        with spelled(parser().spell):
            sys.exit(run() or 0)
    except (InputError, DiskFull) as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
