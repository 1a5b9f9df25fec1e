"""Errors for the user, safe reading of untrusted files, writing files whole or not at all."""

import argparse
import errno
import hashlib
import io
import json
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

    Returns:
        `name=value`.

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


class PassingError(InputError):
    """What broke, and may work at another try: a network drive or the memory of a device."""


def one_line(error: BaseException, limit: int | None = None) -> str:
    """Return the message of an error without line breaks.

    Args:
        error: the error.
        limit: the letters at most; None: all.

    Returns:
        The beginning of the message; the name of the error's class if it has none.
    """
    words = str(error).split()
    message = " ".join(words)
    return message[:limit] or type(error).__name__


# Of a network drive that does not answer, or of a machine that is short of memory for a moment.
PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.ENOMEM)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SMALL = 2**18  # bytes of an array that is read rather than mapped
TEMPORARY_LENGTH = 40  # letters of a file's name in that of its temporary file
NEARLY_FULL = 2**16  # bytes left on a disk where a failed write is put down to the lack of space


class DiskFull(OSError):
    """A file that does not fit on the disk; the text is the one line that the user sees."""


def json_text(content: Any) -> str:
    """Return plain data as JSON; NaN and infinity, which JSON does not have, as null.

    Args:
        content: dictionaries, lists, texts and numbers.

    Returns:
        Indented lines.

    >>> print(json_text({"psnr": float("nan"), "epochs": 2}), end="")
    {
      "psnr": null,
      "epochs": 2
    }
    """
    return json.dumps(_without_infinite(content), indent=2) + "\n"


def _without_infinite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without_infinite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_infinite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


@contextmanager
def replacing(path: Path, keep: Path | None = None, folder: bool = False) -> Iterator[Path]:
    """Write a file whole or not at all.

    The file is written under a temporary name in the same folder, flushed to the disk, and renamed
    when the block ends: a crash leaves the old file or the new one.

    Args:
        path: of the file.
        keep: new name of the old file; None to replace it.
        folder: write a folder; the temporary one is empty.

    Yields:
        The temporary name, removed if the block fails.

    Raises:
        DiskFull: the file does not fit on the disk, or into the user's quota.
    """
    try:
        temporary = _temporary(path, folder)
    except OSError as error:
        raise disk_full(path, error) or error from None
    try:
        yield temporary
        if folder:
            _move_folder(temporary, path)
            return
        _finish(temporary)
        if keep and path.exists():
            _rename(path, keep)
        _rename(temporary, path)
    except (OSError, RuntimeError) as error:
        full = disk_full(path, error)
        with suppress(OSError):
            # The writer may still hold it open, and then it would keep its space.
            os.truncate(temporary, 0)
        if full:
            raise full from error
        raise
    finally:
        with suppress(PermissionError):  # Windows, if it is open
            if folder:
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def remove_temporaries(path: Path) -> None:
    """Delete what killed processes left of a file that `replacing` was to write.

    Of a longer name than temporary ones hold they stay: they may be those of another file.

    Args:
        path: of the file, which no process may be writing.
    """
    prefix = f".{path.name[:TEMPORARY_LENGTH]}."
    if len(path.name) > TEMPORARY_LENGTH:
        return
    for left in path.parent.iterdir():
        if left.name.startswith(prefix) and left.name.endswith(path.suffix) and left != path:
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def move(temporary: Path, path: Path, folder: bool = False) -> None:
    """Give a finished file its name, in place of the one that has it.

    Args:
        temporary: the file, in the same folder.
        path: its name.
        folder: it is a folder.
    """
    if folder:
        _move_folder(temporary, path)
        return
    _finish(temporary)
    _rename(temporary, path)


def _finish(temporary: Path) -> None:
    """Write a file to the disk, and let it be read as any new file."""
    with temporary.open("rb+") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())
    temporary.chmod(0o666 & ~_umask())


def _temporary(path: Path, folder: bool) -> Path:
    """Create an empty file or folder with a hidden name next to a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name[:TEMPORARY_LENGTH]}."
    if folder:
        return Path(tempfile.mkdtemp(path.suffix, prefix, path.parent))
    handle, name = tempfile.mkstemp(path.suffix, prefix, path.parent)
    os.close(handle)
    return Path(name)


def _move_folder(folder: Path, target: Path) -> None:
    """Rename a folder and delete the one that had the name; of a link only the link."""
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
    """Identify the file or folder that a path leads to, through links and in any spelling.

    Returns:
        Device and inode; None if there is no file.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def copy_folder(
    source: Path, target: Path, left_out: Callable[[Path], bool] = lambda path: False
) -> list[str]:
    """Copy the files of a folder into an empty one, as new files that may be written to.

    Links are followed and become files and folders; a link to a folder above it is left out.

    Args:
        source: the folder; it is only read.
        target: an empty folder.
        left_out: returns True for files and folders of the source that are not copied.

    Returns:
        Names, relative to the source, of links to missing files; they are not copied.
    """
    dangling: list[str] = []
    for walked, folders, files in os.walk(source, followlinks=True):
        folder = Path(walked)
        copy = target / folder.relative_to(source)
        copy.mkdir(exist_ok=True)
        above = {os.path.realpath(parent) for parent in (folder, *folder.parents)}
        for name in list(folders):
            if left_out(folder / name) or os.path.realpath(folder / name) in above:
                folders.remove(name)
        for name in files:
            path = folder / name
            if left_out(path):
                continue
            if path.is_file():
                shutil.copyfile(path, copy / name)
            else:
                dangling.append(path.relative_to(source).as_posix())
    return dangling


def reserve(path: Path) -> None:
    """Allocate the disk space of a sparse file, if the system can.

    A program that writes to a mapped file without space ends with SIGBUS.

    Raises:
        OSError: the disk is full.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("rb+") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, size))
        except OSError as error:
            if error.errno in FULL:
                raise


def _rename(path: Path, target: Path, patience: float = 2.0) -> None:
    """Rename a file over another; on Windows repeatedly while a program has either open.

    Args:
        path, target: the old and the new name.
        patience: in seconds.

    Raises:
        PermissionError: a file was open all the time.
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
    """Return the error for the user if writing failed because the disk is full.

    Args:
        path: of the file.
        error: the exception of the write.

    Returns:
        The error to raise in its place; None if the reason is another one.
    """
    if isinstance(error, DiskFull):
        return None
    full = getattr(error, "errno", None) in FULL
    # by torch.save, among others; the unfinished file still fills the disk
    if type(error) is RuntimeError:
        with suppress(OSError):
            full = shutil.disk_usage(path.parent).free < NEARLY_FULL
    if not full:
        return None
    return DiskFull(f"{path}: no space left on the disk for it; what was there before is untouched")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_torch(path: Path) -> Any:
    """Read a file of `torch.save` to the CPU, without running code in the file.

    Returns:
        Tensors and plain containers.

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
        if zipfile.is_zipfile(path):  # torch does not check the checksums
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged:
                raise ValueError(f"{damaged} does not have its checksum")
        return content
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: {error.strerror}") from error
    # torch raises UnpicklingError, RuntimeError, EOFError, KeyError, OSError, ...
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise InputError(
                f"{path}: holds more than tensors, which could run code; it is not read"
            ) from error
        raise InputError(f"{path}: damaged, incomplete, or not written by torch.save") from error


def room(shape: Sequence[int], dtype: Any, share: float = 0.4) -> Any:
    """Allocate an uninitialised array in memory, or in a temporary file if it is large.

    Args:
        shape, dtype: of the array.
        share: of the available memory; a larger array is a mapped file in TMPDIR, which is
            deleted with the array.

    Returns:
        A NumPy array.
    """
    import numpy as np
    import psutil

    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= share * psutil.virtual_memory().available or size <= SMALL:
        return np.empty(shape, dtype)
    # On POSIX a mapped file can be unlinked, and its map needs no descriptor.
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
    """Map an array of a file into memory, without holding the file open.

    Writing to the array changes memory only (copy on write). `np.memmap` keeps a descriptor for
    each map, so that a folder of 1,400 files exceeds the usual limit of 1,024. Small arrays are
    read.

    Args:
        path: the file, which is opened for reading.
        dtype: of the values, in either byte order.
        offset: the position of the first value, in bytes.
        shape: of the array.
        order: "C", or "F" if the first axis varies fastest.

    Returns:
        A writable array of this shape.

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
        stored = torch.tensor([], dtype=torch.uint8).set_(storage)  # type: ignore[arg-type]
        flat = stored.numpy()[offset:].view(dtype)
    return flat.reshape(tuple(shape), order=order)


def out_of_descriptors(error: BaseException | None) -> bool:
    """Return True if an exception, or one of its causes, is the limit on open files."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            return True
        if "Too many open files" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def some_of(names: Sequence[str], most: int) -> str:
    """Return the first names of a list, and the number of the others.

    Args:
        names: the list.
        most: number of names that are shown.

    Returns:
        The names, separated by commas.

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
    """Return a sort key that orders numbers in names by their value.

    Returns:
        Parts of the name, comparable with those of other names.

    >>> sorted([Path("s10"), Path("s2")], key=natural) == [Path("s2"), Path("s10")]
    True
    """
    key = []
    for part in re.split(r"(\d+)", path.name):
        key.append((int(part), "") if part.isdecimal() else (-1, part))
    return key


def _at_home(value: Any) -> Any:
    """Expand `~` and `~user` in a value of a command line, unless a file has that name."""
    if isinstance(value, list):
        return [_at_home(item) for item in value]
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
        shown = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
        for action in self._actions:
            if flag in action.option_strings:
                return flag if value is True else f"{flag} {shown}".rstrip()
            if action.dest == name and not action.option_strings:
                return f"{action.metavar or name} {shown}".rstrip()
        return as_keyword(field, value)

    def parse_args(self, *words: Any, **options: Any) -> Any:
        args = super().parse_args(*words, **options)
        for name, value in vars(args).items():
            setattr(args, name, _at_home(value))
        return args

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
