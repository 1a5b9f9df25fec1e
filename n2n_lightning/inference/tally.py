"""Numbers of pictures by what became of them, as the command prints them."""

import sys
from dataclasses import dataclass


@dataclass
class Tally:
    """Numbers of pictures by what became of them.

    Attributes:
        pictures: all of them.
        existing: with a result from before.
        elsewhere: denoised by other processes.
        failed: without a result.
        missing: without a result, because the processes ended before.
    """

    pictures: int
    existing: int = 0
    elsewhere: int = 0
    failed: int = 0
    missing: int = 0

    @property
    def status(self) -> int:
        """The exit status: 1 where pictures have no result."""
        return 1 if self.failed or self.missing else 0

    def print(self) -> None:
        """Print how many pictures have no new result of this process."""
        of_all = f"of {self.pictures} pictures"
        if self.existing:
            print(f"{self.existing} {of_all} were there already; --overwrite replaces them")
        if self.elsewhere:
            print(f"{self.elsewhere} {of_all} were denoised by other processes")
        if self.failed:
            print(f"{self.failed} {of_all} failed", file=sys.stderr)
        if self.missing:
            line = f"{self.missing} {of_all} are missing; the same command goes on with them"
            print(line, file=sys.stderr)
