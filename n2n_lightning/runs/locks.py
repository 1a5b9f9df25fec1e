"""Locks that end with the process that holds them, however it ends: on Linux, macOS and Windows."""

import sys
import warnings
from pathlib import Path
from typing import Any

import filelock


class CannotLock(OSError):
    """The file system has no locks, as some network ones."""


def acquired(path: Path, wait: float = 0.0) -> Any | None:
    """Take the lock on a file, which is made for it, until `release()` or this process ends.

    Args:
        path: the file.
        wait: seconds to wait for it.

    Returns:
        The lock; None where another process, or another part of this one, holds it.

    Raises:
        CannotLock: the file system has no locks.
        OSError: the file cannot be made.
    """
    lock = filelock.FileLock(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says that it falls back, see below
            lock.acquire(timeout=wait, poll_interval=0.02)
    except filelock.Timeout:
        return None
    except (PermissionError, FileNotFoundError):
        raise
    except (OSError, NotImplementedError) as error:
        raise CannotLock(f"{path}: its file system has no locks") from error
    # a mark in place of a lock, which a killed process would leave behind
    if isinstance(lock, filelock.SoftFileLock):
        lock.release(force=True)
        raise CannotLock(f"{path}: its file system has no locks")
    return lock


_warned: list[Path] = []


def warn(what: str, path: Path) -> None:
    """Print, once in a process, what is not protected where there are no locks.

    Args:
        what: what may happen.
        path: the file that was to be locked.
    """
    if not _warned:
        print(
            f"warning: {path.parent}: its file system has no locks; {what}",
            file=sys.stderr,
            flush=True,
        )
        _warned.append(path)
