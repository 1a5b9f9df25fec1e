"""Commands in processes of their own: `n2n denoise` for results, `n2n check` for findings."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2n_lightning.inference.tile_progress import PROGRESS

ENDING_SECONDS = 10  # until a process that was asked to end is killed
LISTED_LINES = 200  # of what a command printed
_PROGRESS = re.compile(rf"{re.escape(PROGRESS)}([\d.]+)")


def _module(name: str) -> list[str]:
    """Return the words that start a command of this package."""
    return [sys.executable, "-m", f"n2n_lightning.{name}"]


@dataclass
class SavingJob:
    """A command `n2n denoise` that writes results.

    Attributes:
        line: the command as it is typed.
        targets: the files that it will write.
        state: running, done, failed, or stopped.
        lines: what it printed.
        done: number of files that have an end.
        part: share of the file that is at work, 0 to 1.
    """

    line: str
    targets: Sequence[Path]
    state: str = "running"
    lines: list[str] = field(default_factory=list)
    done: int = 0
    part: float = 0.0
    process: asyncio.subprocess.Process | None = None

    def description(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return what the page shows of it.

        Args:
            keys: where its targets can be fetched, one each; empty where they cannot.
        """
        count = max(1, len(self.targets))
        share = min(1.0, (self.done + self.part) / count)
        if self.state == "done":
            share = 1.0
        results = []
        for path, key in zip(self.targets, keys, strict=True):
            if path.exists():
                results.append({"name": path.name, "key": key})
        return {
            "state": self.state,
            "command": self.line,
            "share": share,
            "done": self.done,
            "count": len(self.targets),
            "lines": self.lines[-LISTED_LINES:],
            "results": results,
        }

    def add_line(self, line: str) -> None:
        """Take a line that the command printed."""
        progress = _PROGRESS.match(line)
        if progress:
            self.part = float(progress[1])
            return
        self.lines.append(line)
        named = any(line.startswith(str(target)) for target in self.targets)
        if named or line.startswith("error: "):
            self.done += 1
            self.part = 0.0


class Jobs:
    """The results that are written, one command at a time.

    Attributes:
        current: the last one; None: none was started.
    """

    def __init__(self) -> None:
        self.current: SavingJob | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """True while a command runs."""
        return self.current is not None and self.current.state == "running"

    async def start(self, words: Sequence[str], line: str, targets: Sequence[Path]) -> None:
        """Start a command.

        Args:
            words: behind `n2n denoise`.
            line: the command as it is typed.
            targets: the files that it will write.
        """
        job = SavingJob(line, targets)
        self.current = job
        job.process = await asyncio.create_subprocess_exec(
            *_module("denoise"),
            *words,
            "--progress-lines",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._watching = asyncio.create_task(self._watch(job))

    async def _watch(self, job: SavingJob) -> None:
        """Read what a command prints, until it ends."""
        assert job.process is not None
        assert job.process.stdout is not None
        async for line in job.process.stdout:
            job.add_line(line.decode(errors="replace").rstrip())
        status = await job.process.wait()
        if job.state == "running":
            job.state = "failed" if status else "done"

    async def stop(self) -> None:
        """End the command; results that are whole stay, and nothing else."""
        job = self.current
        if job is None or job.process is None or job.state != "running":
            return
        job.state = "stopped"
        if os.name == "posix":  # as Ctrl-C: the process removes its temporary file
            job.process.send_signal(signal.SIGINT)
        else:
            job.process.terminate()
        try:
            await asyncio.wait_for(job.process.wait(), ENDING_SECONDS)
        except TimeoutError:
            job.process.kill()
            await job.process.wait()


async def findings(typed: str, axes: str) -> list[str]:
    """Return what `n2n check` prints about a file.

    Args:
        typed: the file, as typed.
        axes: the letters that were chosen; empty: those of the file.

    Returns:
        Its lines; the last one is a command that trains.
    """
    words = [typed]
    if axes:
        words += [f"--layout={axes}"]
    process = await asyncio.create_subprocess_exec(
        *_module("check"),
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return printed.decode(errors="replace").splitlines()
