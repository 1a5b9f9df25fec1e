"""Claims on pieces of work: processes on any machines that share a disk divide it without locks.

A claim is a file that is created exclusively, which network file systems do as well. It names its
process, and a thread touches it. Each further claim on a piece has a number of its own,
`PIECE.0`, `PIECE.1`: whoever creates the next number holds the piece, and nobody removes the claim
of another process, so that two processes cannot take over one dead claim. Doing a piece twice must
be harmless (temporary name, then rename): it happens where a process slept for a minute.
"""

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from n2n_lightning.files import InputError, PassingError, one_line

TOUCH_SECONDS = 10.0  # between two touches of a claim
# Six touches: network file systems show others' changes up to some seconds late.
DEAD_SECONDS = 60.0
TRIES = 3  # a failure that comes three times does not come by chance
# How often each end of a claim counts against its piece.
_FAILURES = {"failed": 1, "given up": TRIES}
# psutil derives the start of a process from the time of the boot, which is known to a second.
START_TOLERANCE = 2.0
NAME_LENGTH = 120  # of 255 bytes that file systems take; the number and a hash follow


@dataclass(frozen=True)
class Holder:
    """The process that holds, or held, a piece.

    Attributes:
        piece: the name of the piece.
        host: the machine, see `this_machine`.
        pid: the number of the process.
        started: when the process began, in seconds since 1970.
        since: when it claimed the piece, likewise, by the clock of its machine.
        ended: `failed`, `given up` or `released`; empty while it is at work, or if it died.
        reason: why it failed.
    """

    piece: str
    host: str
    pid: int
    started: float
    since: float
    ended: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Finished:
    """A piece that is done.

    Attributes:
        piece: its name.
        note: of the process that finished it.
        time: when, by the clock of the file system, in seconds since 1970.
    """

    piece: str
    note: dict[str, Any]
    time: float


class Claims:
    """Pieces of work that any number of processes share through a folder.

    Args:
        folder: the state folder of one output, on a disk that all of them see; the first claim
            creates it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._claims = folder / "claims"
        self._done = folder / "done"

    def _make_folders(self) -> None:
        for path in (self._claims, self._done):
            path.mkdir(parents=True, exist_ok=True)

    def claim(self, piece: str) -> "Claim | None":
        """Claim a piece for this process.

        Args:
            piece: its name, any text.

        Returns:
            A context manager that holds the piece; None if it is done, was given up after three
            failures, or another living process has it.
        """
        if self.is_done(piece):
            return None
        failures = 0
        number = 0
        while True:
            path = self._path(piece, number)
            try:
                created = _create(path, piece)
            except FileNotFoundError:  # the first claim, or who left last removed the folder
                self._make_folders()
                continue
            if created:
                claim = Claim(self, piece, number)
                if self.is_done(piece):  # since it was asked above
                    claim.remove()
                    return None
                return claim
            holder = self._holder(path)
            if holder is None or not holder.ended:
                if self._is_held(path, holder):
                    return None
            else:
                failures += _FAILURES.get(holder.ended, 0)
            if failures >= TRIES:
                return None
            number += 1

    def is_done(self, piece: str) -> bool:
        """Return True if some process finished a piece."""
        return self._done_path(piece).exists()

    def is_over(self, piece: str) -> bool:
        """Return True if nobody will work on a piece any more: it is done or given up."""
        if self.is_done(piece):
            return True
        failures = 0
        number = 0
        while True:
            path = self._path(piece, number)
            holder = self._holder(path)
            if holder is None:  # no further claim, or one that is made at this moment
                return failures >= TRIES
            failures += _FAILURES.get(holder.ended, 0)
            number += 1

    def was_begun(self, piece: str) -> bool:
        """Return True if a piece was claimed before and is not done, as by a killed process."""
        return self._path(piece, 0).exists() and not self.is_done(piece)

    def notes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the pieces that are done, each with the note of the process that finished it."""
        for one in self.finished(set()):
            yield one.piece, one.note

    def finished(self, known: set[str]) -> list[Finished]:
        """Return the pieces that are done, but for those of earlier calls.

        Args:
            known: names of files that earlier calls read; those of this call are added.
        """
        pieces = []
        for path in _files_in(self._done):
            if path.name in known:
                continue
            content = _content_of(path)
            if content is not None:
                known.add(path.name)
                pieces.append(Finished(content["piece"], content["note"], _touched(path)))
        return pieces

    def done_count(self) -> int:
        """Return the number of the pieces that are done."""
        return len(_files_in(self._done))

    def held(self) -> list[Holder]:
        """Return who is at work on which piece, dead processes left out."""
        holders = []
        for path in _files_in(self._claims):
            holder = self._holder(path)
            if holder is None or holder.ended or self.is_done(holder.piece):
                continue
            if self._is_held(path, holder):
                holders.append(holder)
        return holders

    def given_up(self) -> dict[str, str]:
        """Return the pieces that are not tried any more, each with the last reason."""
        failures: dict[str, int] = {}
        reasons: dict[str, str] = {}
        for path in _files_in(self._claims):
            holder = self._holder(path)
            if holder is None or holder.ended not in _FAILURES:
                continue
            piece = holder.piece
            failures[piece] = failures.get(piece, 0) + _FAILURES[holder.ended]
            reasons[piece] = holder.reason
        pieces = {}
        for piece, reason in reasons.items():
            if failures[piece] >= TRIES and not self.is_done(piece):
                pieces[piece] = reason
        return pieces

    def forget_failures(self) -> None:
        """Let pieces that failed be tried again; only where no process is at work on them."""
        for path in _files_in(self._claims):
            holder = self._holder(path)
            if holder is not None and holder.ended in _FAILURES:
                released = {**asdict(holder), "ended": "released"}
                path.write_text(json.dumps(released), encoding="utf-8")

    def finish(self, piece: str, note: dict[str, Any]) -> None:
        """Note that a piece is done, whoever holds it; its note is there whole, or it is not done.

        Args:
            piece: its name.
            note: plain data about it, for `notes`.
        """
        path = self._done_path(piece)
        temporary = self.folder / f"note-{uuid4().hex}"
        content = json.dumps({"piece": piece, "note": note})
        try:
            temporary.write_text(content, encoding="utf-8")
        except FileNotFoundError:
            self._make_folders()
            temporary.write_text(content, encoding="utf-8")
        try:
            temporary.replace(path)
        except PermissionError:  # Windows, while another process reads what a third one wrote
            temporary.unlink()
            if not path.exists():
                raise

    def _path(self, piece: str, number: int) -> Path:
        return self._claims / f"{_file_name(piece)}.{number}"

    def _done_path(self, piece: str) -> Path:
        return self._done / f"{_file_name(piece)}.json"

    def _holder(self, path: Path) -> Holder | None:
        """Read a claim; None if it is gone or half written."""
        content = _content_of(path)
        if content is None:
            return None
        with suppress(TypeError):
            return Holder(**content)
        return None

    def _is_held(self, path: Path, holder: Holder | None) -> bool:
        """Return True if the process of a claim lives: by its number here, else by its touches."""
        if holder is not None and holder.host == this_machine():
            return _still_runs(holder.pid, holder.started)
        try:
            # opened, as network file systems then ask for its times anew
            with path.open("rb") as file:
                touched = os.fstat(file.fileno()).st_mtime
            return self._now() - touched < DEAD_SECONDS
        except FileNotFoundError:
            return True  # ended this moment; the next call sees how

    def _now(self) -> float:
        """Return the time by the clock of the file system, which other machines' touches have."""
        clock = self.folder / "clock"
        with clock.open("wb") as file:
            os.utime(clock)
            return os.fstat(file.fileno()).st_mtime


class Claim:
    """A piece that this process holds: a context manager, which a thread touches meanwhile.

    Without an exception, and after `finish`, the piece is done. An exception counts as a try; an
    InputError that is no PassingError gives the piece up. A signal, or the end without `finish`,
    gives it back without counting.

    Attributes:
        piece: its name.
        done: the block ended after `finish`.
        is_repeated: another process had the piece before, and died or failed.
    """

    def __init__(self, claims: Claims, piece: str, number: int) -> None:
        self.piece = piece
        self.done = False
        self.is_repeated = number > 0
        self._claims = claims
        self._number = number
        self._path = claims._path(piece, number)
        self._note: dict[str, Any] | None = None

    def __enter__(self) -> "Claim":
        _toucher.add(self._path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _toucher.remove(self._path)
        if error is None and self._note is not None:
            self._claims.finish(self.piece, self._note)
            self.remove()
            self.done = True
        elif isinstance(error, Exception):
            is_final = isinstance(error, InputError) and not isinstance(error, PassingError)
            self._end("given up" if is_final else "failed", one_line(error))
        else:
            self._end("released")

    def finish(self, note: dict[str, Any] | None = None) -> None:
        """Say that the piece is done, when the block ends.

        Args:
            note: plain data about it, for `Claims.notes`.
        """
        self._note = note or {}

    def remove(self) -> None:
        """Delete this claim and those before it, of a piece that is done."""
        for number in range(self._number, -1, -1):
            with suppress(OSError):  # Windows, while another process reads it
                self._claims._path(self.piece, number).unlink()

    def _end(self, how: str, reason: str = "") -> None:
        """Write how the claim ended; whoever reads half of it takes it for held, and asks again."""
        with suppress(OSError):  # the state folder is gone, or the disk full: the touches end
            content = _claim_text(self.piece, how, reason)
            self._path.write_text(content, encoding="utf-8")


class Toucher:
    """A thread that touches the claims of this process; one for all, as starting one takes time."""

    def __init__(self) -> None:
        self._held: set[Path] = set()
        self._lock = threading.Lock()
        self._pid = 0  # of the process that has the thread: a fork has none

    def add(self, path: Path) -> None:
        """Touch a claim from now on."""
        with self._lock:
            self._held.add(path)
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._touch, daemon=True).start()

    def remove(self, path: Path) -> None:
        """Touch a claim no more."""
        with self._lock:
            self._held.discard(path)

    def _touch(self) -> None:
        while True:
            time.sleep(TOUCH_SECONDS)
            with self._lock:
                if not self._held:
                    self._pid = 0
                    return
                for path in self._held:
                    with suppress(OSError):  # of a network for a moment, or the folder is gone
                        os.utime(path)


_toucher = Toucher()


def _create(path: Path, piece: str) -> bool:
    """Create a claim of this process; return False if there is one of this number."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_claim_text(piece))
    except FileExistsError:
        return False
    return True


def _claim_text(piece: str, ended: str = "", reason: str = "") -> str:
    pid = os.getpid()
    holder = Holder(piece, this_machine(), pid, start_of(pid), time.time(), ended, reason)
    return json.dumps(asdict(holder))


def _file_name(piece: str) -> str:
    """Return a name for the files of a piece, as readable as file systems allow.

    >>> _file_name("a.tif"), _file_name("run 1/a.tif"), len(_file_name("x" * 300))
    ('a.tif', 'run%201%2Fa.tif', 137)
    """
    name = quote(piece, safe="", errors="surrogateescape")
    if len(name) <= NAME_LENGTH:
        return name
    digest = hashlib.sha256(piece.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name[:NAME_LENGTH]}~{digest[:16]}"


def _touched(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _files_in(folder: Path) -> list[Path]:
    """Return the files of a folder in the order of their names; none where it is gone."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _content_of(path: Path) -> dict[str, Any] | None:
    """Read a file of this module; None if it is gone, or not written whole yet."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@cache
def this_machine() -> str:
    """Return a name within which numbers of processes mean something.

    On Linux it holds the boot and the process namespace, for containers of different machines may
    have one host name.
    """
    words = [socket.gethostname()]
    with suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        words.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(words)


def start_of(pid: int) -> float:
    """Return when a process of this machine began, in seconds since 1970; 0 if there is none."""
    if pid == os.getpid():
        return _own_start(pid)
    return _start_by_number(pid)


@cache
def _own_start(pid: int) -> float:
    # by its number: a forked process has one of its own
    return _start_by_number(pid)


def _start_by_number(pid: int) -> float:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def _still_runs(pid: int, started: float) -> bool:
    """Return True if a process of this machine lives, and is the one that began then."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - started) <= START_TOLERANCE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
