"""Which pictures of a folder are written to their end and have no result yet."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from n2n_lightning.inference.plan import Job, jobs_below

AGAIN = 60.0  # seconds after which what could not be read is tried again, though it did not change


@dataclass(frozen=True)
class Stamp:
    """Size and time of a picture, which change while it is written.

    Attributes:
        size: bytes, of all files of a folder that is one picture.
        newest: time of the last change, in nanoseconds.
    """

    size: int
    newest: int


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a picture; None where it is gone.

    Args:
        path: a file, or a folder that is one picture.
    """
    try:
        status = path.stat()
        if not path.is_dir():
            return Stamp(status.st_size, status.st_mtime_ns)
        parts = [status]
        for parent, _, names in os.walk(path):
            parts += [os.stat(os.path.join(parent, name)) for name in names]
    except FileNotFoundError:
        return None
    size = sum(part.st_size for part in parts[1:])
    return Stamp(size, max(part.st_mtime_ns for part in parts))


@dataclass
class Settling:
    """The pictures of a folder, as they arrive.

    A result that is not older than its picture is the record that the picture is done, so that
    a command that is started again does nothing twice.

    Attributes:
        folder: of the pictures.
        out: of the results.
        seconds: for which a picture must not change.
        clock: monotonic, in seconds.
        waiting: pictures that are not done.
        clashes: pictures whose result would be that of another one, with that other one.
    """

    folder: Path
    out: Path
    seconds: float
    clock: Callable[[], float] = time.monotonic
    waiting: int = 0
    clashes: dict[Path, Path] = field(default_factory=dict)
    _since: dict[Path, tuple[Stamp, float]] = field(default_factory=dict)
    _done: dict[Path, Stamp] = field(default_factory=dict)
    _failed: dict[Path, tuple[Stamp, float]] = field(default_factory=dict)

    def ready(self) -> list[Job]:
        """Search the folder.

        Returns:
            Pictures that rest and are not done, the oldest first.
        """
        now = self.clock()
        resting = []
        self.waiting = 0
        for job in self._jobs():
            stamp = stamp_of(job.source)
            if stamp is None or self._is_done(job, stamp):
                continue
            self.waiting += 1
            known, since = self._since.get(job.source, (None, now))
            if stamp != known:
                self._since[job.source] = (stamp, now)
                since = now
            if now - since >= self.seconds and not self._failed_lately(job.source, stamp, now):
                resting.append((stamp.newest, job))
        return [job for _, job in sorted(resting)]

    def _jobs(self) -> list[Job]:
        """Return the pictures, each with a result of its own."""
        owners: dict[Path, Job] = {}
        for job in jobs_below(self.folder, self.out, []):
            owner = owners.setdefault(job.target, job)
            if owner != job:
                self.clashes[job.source] = owner.source
        return list(owners.values())

    def done_before(self) -> list[Job]:
        """Return the pictures that have a result, the oldest first."""
        done = []
        for job in self._jobs():
            stamp = stamp_of(job.source)
            if stamp is not None and self._is_done(job, stamp):
                done.append((stamp.newest, job))
        return [job for _, job in sorted(done)]

    def _is_done(self, job: Job, stamp: Stamp) -> bool:
        result = stamp_of(job.target)
        if result is None:
            return False
        known = self._done.get(job.source)
        if known is not None:
            return known == stamp
        return result.newest >= stamp.newest

    def _failed_lately(self, source: Path, stamp: Stamp, now: float) -> bool:
        known, when = self._failed.get(source, (None, now))
        return known == stamp and now - when < AGAIN

    def finish(self, job: Job) -> bool:
        """Note that a picture was denoised.

        Args:
            job: one that was ready.

        Returns:
            False if it was written to meanwhile, so that it is done again.
        """
        before, _ = self._since.pop(job.source)
        after = stamp_of(job.source)
        # Clocks differ: the result is as old as the picture that it was made from, or newer.
        result = stamp_of(job.target)
        changed = after is not None and after != before
        if result is not None and (changed or result.newest < before.newest):
            os.utime(job.target, ns=(before.newest, before.newest))
        self._done[job.source] = before
        return not changed

    def fail(self, job: Job) -> None:
        """Note that a picture could not be read: it waits for a change."""
        stamp, _ = self._since[job.source]
        self._failed[job.source] = (stamp, self.clock())
