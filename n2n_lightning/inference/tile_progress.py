"""Progress of a command for a program that reads it: lines in place of a bar."""

import sys
import time
from typing import Any

PROGRESS = "progress: "  # before the share of a file that is done
SECONDS = 0.2  # between two lines


class ProgressLines:
    """Prints the share of the file that is at work; called as rich.progress.Progress is."""

    def __init__(self) -> None:
        self._total = 1.0
        self._done = 0.0
        self._printed = 0.0

    def __enter__(self) -> "ProgressLines":
        return self

    def __exit__(self, *error: Any) -> None:
        """Do nothing: there is nothing to clear."""

    def add_task(self, description: str, total: float) -> int:
        """Begin with a file.

        Args:
            description: its name.
            total: of what `advance` counts.

        Returns:
            The number of the task; there is one at a time.
        """
        self._total = total or 1.0
        self._done = 0.0
        return 0

    def advance(self, task: int, count: float) -> None:
        """Print how far the file is, unless a line was printed just before.

        Args:
            task: its number.
            count: how much was done.
        """
        self._done += count
        now = time.monotonic()
        if now - self._printed >= SECONDS:
            self._printed = now
            print(f"{PROGRESS}{self._done / self._total:.3f}", file=sys.stderr, flush=True)

    def remove_task(self, task: int) -> None:
        """Do nothing: the next file begins anew."""
