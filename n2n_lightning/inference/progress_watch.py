"""How far a folder of results is, whichever processes fill it, from its state folder."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, json_text, replacing
from n2n_lightning.inference.shared_output import (
    LARGE_STATE,
    PLANS,
    WORKERS,
    AloneOutput,
    SharedOutput,
    state_folder,
)
from n2n_lightning.runs.claims import Claims, Finished, Holder

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
        return speed_of(self.finished)

    @property
    def seconds_left(self) -> float | None:
        """The time left, in seconds, as fast as lately; None where that is not known."""
        missing = self.pictures - self.done - len(self.failed)
        return seconds_left_of(self.finished, missing)

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


def speed_of(finished: Sequence[Finished]) -> float | None:
    """Return the megavoxels a second of the last pieces that were done; None of fewer than two."""
    seconds = _recent_seconds(finished)
    if seconds is None:
        return None
    # the first one was computed before its end
    recent = finished[-RECENT:][1:]
    voxels = sum(one.note.get("voxels", 0) for one in recent)
    return voxels / seconds / 1e6


def seconds_left_of(finished: Sequence[Finished], missing: int) -> float | None:
    """Return the time for the pieces that are missing, in seconds, at the speed of the last ones.

    Args:
        finished: pieces that are done, in the order of their ends.
        missing: how many are not.
    """
    seconds = _recent_seconds(finished)
    if seconds is None:
        return None
    each = seconds / (len(finished[-RECENT:]) - 1)
    return missing * each


def _recent_seconds(finished: Sequence[Finished]) -> float | None:
    recent = finished[-RECENT:]
    if len(recent) < 2:
        return None
    return max(recent[-1].time - recent[0].time, 1e-3)


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
    large = [file.line() for file in _large_files(out)]
    if not state_folder(out).is_dir():
        print("\n".join(large) or f"{out}: nothing is unfinished in it")
        return 0
    watch.update()
    print("\n".join([*watch.lines(), *large]))
    watch.write_summary(summary)
    return 0


def _large_files(out: Path) -> list["LargeFile"]:
    """Return the files that go block by block, of which each has a state of its own."""
    files = []
    for path in sorted(out.glob(f"*{LARGE_STATE}/asked.json")):
        state = path.parent
        name = state.name.removesuffix(LARGE_STATE)
        files.append(LargeFile.of(state, state.with_name(name)))
    return files


@dataclass
class LargeFile:
    """The progress of a file that goes block by block.

    Attributes:
        target: the result.
        blocks: the number of all blocks; 0 while the file is measured.
        finished: the blocks that are done, in the order of their ends.
        held: blocks at work.
        failed: reasons by the names of blocks that are given up.
    """

    target: Path
    blocks: int
    finished: list[Finished]
    held: list[Holder]
    failed: dict[str, str]

    @classmethod
    def of(cls, state: Path, target: Path) -> "LargeFile":
        """Read the progress from the state folder of a result."""
        claims = Claims(state)
        plan = {"blocks": 0}
        with suppress(OSError):
            plan = json.loads((state / "plan.json").read_text(encoding="utf-8"))
        finished = [one for one in claims.finished(set()) if "voxels" in one.note]
        finished.sort(key=lambda one: one.time)
        held = [one for one in claims.held() if one.piece == "all" or "block " in one.piece]
        return cls(target, plan["blocks"], finished, held, claims.given_up())

    @property
    def missing(self) -> int:
        """The number of blocks that are not done."""
        return self.blocks - len(self.finished)

    def line(self) -> str:
        """Return the progress in words."""
        if not self.blocks:
            return f"{self.target}: is measured before its blocks begin"
        if any(holder.piece == "all" for holder in self.held):
            return f"{self.target}: is written by one process, as files of its kind are"
        if not self.missing:
            return f"{self.target}: all blocks are done, what depends on them is written"
        waiting = self.missing - len(self.held) - len(self.failed)
        parts = [
            f"{len(self.finished)} of {self.blocks} blocks",
            f"{len(self.held)} at work",
            f"{waiting} waiting",
        ]
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        speed = speed_of(self.finished)
        if speed is not None:
            parts.append(f"{speed:.3g} megavoxels/s")
        left = seconds_left_of(self.finished, self.missing - len(self.failed))
        if left is not None:
            parts.append(f"{duration(left)} left")
        return f"{self.target}: {', '.join(parts)}"
