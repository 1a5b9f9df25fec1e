"""How far a folder of results is, whichever processes fill it, from its state folder."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, json_text, replacing
from n2n_lightning.inference.shared_output import (
    PLANS,
    WORKERS,
    AloneOutput,
    SharedOutput,
    state_folder,
)
from n2n_lightning.runs.claims import Claims, Finished

RECENT = 200  # pictures that the speed is taken from: enough for a mean, few enough to follow it


@dataclass
class Watch:
    """The progress of a folder of results; `update` reads what is new.

    Attributes:
        out: the folder.
        finished: the pictures that were denoised, in the order of their ends.
        pictures: the number of all pictures.
        existing: of those that had a result before.
        failed: reasons by the names of pictures.
        held: pictures at work, each with the number and the machine of its process.
        workers: the number of living processes.
        was_begun: some process accepted the options and began.
    """

    out: Path
    finished: list[Finished] = field(default_factory=list)
    pictures: int = 0
    existing: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    workers: int = 0
    was_begun: bool = True
    _known: set[str] = field(default_factory=set)

    def update(self) -> None:
        """Read what happened since the last call; nothing where the state folder is gone."""
        state = state_folder(self.out)
        if not (state / "pictures").is_dir():
            return
        claims = Claims(state / "pictures")
        self.finished += claims.finished(self._known)
        self.finished.sort(key=lambda one: one.time)
        self.failed = claims.given_up()
        self.held = []
        for holder in claims.held():
            machine = holder.host.split()[0]
            self.held.append(f"{holder.piece} (process {holder.pid} of {machine})")
        self.workers = len(Claims(state / WORKERS).held())
        self.pictures = 0
        self.existing = 0
        for path in (state / PLANS).glob("*.json"):
            plan = json.loads(path.read_text(encoding="utf-8"))
            self.pictures += plan["pictures"]
            self.existing += plan["existing"]

    @property
    def done(self) -> int:
        """The number of pictures with a result."""
        return self.existing + len(self.finished)

    @property
    def speed(self) -> float | None:
        """Megavoxels a second of all processes, lately; None before two pictures are done."""
        seconds = self._recent_seconds()
        if seconds is None:
            return None
        # the first one was computed before its end
        recent = self.finished[-RECENT:][1:]
        voxels = sum(one.note.get("voxels", 0) for one in recent)
        return voxels / seconds / 1e6

    @property
    def seconds_left(self) -> float | None:
        """The time left, in seconds, as fast as lately; None where that is not known."""
        seconds = self._recent_seconds()
        if seconds is None:
            return None
        recent = self.finished[-RECENT:]
        missing = self.pictures - self.done - len(self.failed)
        each = seconds / (len(recent) - 1)
        return missing * each

    def _recent_seconds(self) -> float | None:
        recent = self.finished[-RECENT:]
        if len(recent) < 2:
            return None
        return max(recent[-1].time - recent[0].time, 1e-3)

    def lines(self) -> list[str]:
        """Return the progress in words."""
        parts = [f"{self.done} of {self.pictures} pictures"]
        speed = self.speed
        if speed is not None:
            parts.append(f"{speed:.3g} megavoxels/s")
        left = self.seconds_left
        if left:
            parts.append(f"{duration(left)} left")
        processes = "no process is at work"
        if self.workers:
            processes = f"{self.workers} processes"
        parts.append(processes)
        lines = [f"{self.out}: {', '.join(parts)}"]
        for text in self.held:
            lines.append(f"  at work: {text}")
        for reason in self.failed.values():
            lines.append(f"  failed: {reason}")
        return lines

    def summary(self) -> dict[str, Any]:
        """Return the progress as plain data, for --summary."""
        return {
            "folder": str(self.out),
            "pictures": self.pictures,
            "existing": self.existing,
            "denoised": len(self.finished),
            "failed": self.failed,
            "at_work": self.held,
            "processes": self.workers,
            "megavoxels": sum(one.note.get("voxels", 0) for one in self.finished) / 1e6,
            "processor_seconds": sum(one.note.get("seconds", 0) for one in self.finished),
            "megavoxels_per_second": self.speed,
            "seconds_left": self.seconds_left,
            "read_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }

    def write_summary(self, path: Path | None) -> None:
        """Write the summary as JSON, where a file is named."""
        if path is not None:
            with replacing(path) as temporary:
                temporary.write_text(json_text(self.summary()), encoding="utf-8")


def watch_of(out: Path, output: SharedOutput | AloneOutput) -> Watch:
    """Return the progress of this process's results, with that of others on the same folder."""
    if isinstance(output, AloneOutput):
        watch = Watch(out, output.finished, output.pictures, output.existing)
        watch.failed = output.failed_ones
        return watch
    watch = Watch(out)
    watch.update()
    return watch


def duration(seconds: float) -> str:
    """Return a duration in hours, minutes and seconds.

    >>> duration(75), duration(7384)
    ('1:15', '2:03:04')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"


def print_status(out: Path, summary: Path | None) -> int:
    """Print how far a folder of results is; return the exit status.

    Args:
        out: the folder.
        summary: a file that is written as JSON, too.

    Raises:
        InputError: there is no such folder.
    """
    if not out.is_dir():
        raise InputError("status", out, "is no folder of results")
    watch = Watch(out)
    large = _lines_of_large_files(out)
    if not state_folder(out).is_dir():
        print("\n".join(large) or f"{out}: nothing is unfinished in it")
        return 0
    watch.update()
    print("\n".join([*watch.lines(), *large]))
    watch.write_summary(summary)
    return 0


def _lines_of_large_files(out: Path) -> list[str]:
    """Return how far the files are that go block by block, of which each has a state of its own."""
    from n2n_lightning.inference import streaming

    lines = []
    for path in sorted(out.glob(f"*{streaming.STATE}/asked.json")):
        claims = Claims(path.parent)
        name = path.parent.name.removesuffix(streaming.STATE)
        held = len(claims.held())
        lines.append(f"{out / name}: {claims.done_count()} pieces are done, {held} at work")
    return lines
