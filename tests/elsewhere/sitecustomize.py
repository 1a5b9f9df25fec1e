"""Python as on another system, which N2N_PRETEND names: with this folder on PYTHONPATH.

What is missing there is missing for the code of this project and its library of locks; other
libraries look at sys.platform, and would take another way on the system itself.

windows: no fcntl, no os.getuid, os.sched_getaffinity, SIGKILL; a handle opened for reading cannot
be synced; an open or mapped file cannot be renamed, renamed over or removed; os.kill ends a process
whatever the signal is. macos: no os.sched_getaffinity, no /proc. nolocks: locks raise ENOSYS, as on
Lustre and some NFS.
"""

import builtins
import errno
import importlib
import os
import signal
import sys
import types

PRETEND = os.environ.get("N2N_PRETEND", "")


def _ours() -> bool:
    """Whether the caller's caller is code of this project, or its library of locks."""
    frame = sys._getframe(2)
    if frame.f_globals.get("__name__") == "pathlib" and frame.f_back:
        frame = frame.f_back
    name, file = frame.f_globals.get("__name__", ""), frame.f_globals.get("__file__", "")
    return name.startswith(("n2n_lightning", "filelock")) or (
        name == "__main__" and "n2n_lightning" in str(file)
    )


def _held(path: object) -> bool:
    """Whether this process has the file open or mapped."""
    name = os.path.realpath(path)
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}") == name:
                return True
        except OSError:
            continue
    with open("/proc/self/maps") as file:
        return any(line.rstrip("\n").endswith(f" {name}") for line in file)


def _refusing(call):
    def refuse(path, *others, **options):
        for one in (path, *others):
            if isinstance(one, str | os.PathLike) and os.path.exists(one) and _held(one):
                raise PermissionError(errno.EACCES, "The process cannot access the file", str(one))
        return call(path, *others, **options)

    return refuse


def _lacking(module: types.ModuleType, *names: str) -> None:
    """Takes names from a module, for our code."""

    class Lacking(types.ModuleType):
        def __getattribute__(self, name: str) -> object:
            if name in names and _ours():
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return super().__getattribute__(name)

        def __reduce__(self) -> tuple:
            return importlib.import_module, (self.__name__,)  # as cloudpickle sends modules

    module.__class__ = Lacking


def _without(*modules: str) -> None:
    whole = builtins.__import__

    def find(name, *rest, **options):
        if name in modules and _ours():
            raise ImportError(f"No module named {name!r}")
        return whole(name, *rest, **options)

    builtins.__import__ = find


if PRETEND == "windows":
    import fcntl

    _without("fcntl", "resource", "pwd", "grp")
    _lacking(os, "getuid", "sched_getaffinity", "fchmod")
    _lacking(signal, "SIGKILL")
    os.replace, os.rename, os.unlink, os.remove = map(
        _refusing, (os.replace, os.rename, os.unlink, os.remove)
    )
    fsync, kill = os.fsync, os.kill

    def _fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(descriptor)

    def _kill(pid: int, signum: int) -> None:
        if _ours():
            raise AssertionError(f"os.kill({pid}, {signum}) would end the process on Windows")
        kill(pid, signum)

    os.fsync, os.kill = _fsync, _kill
elif PRETEND == "macos":
    _lacking(os, "sched_getaffinity")
    whole = builtins.open

    def _open(path, *rest, **options):
        if str(path).startswith("/proc") and _ours():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return whole(path, *rest, **options)

    builtins.open = _open
elif PRETEND == "nolocks":
    import fcntl

    def _flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    fcntl.flock = fcntl.lockf = _flock
