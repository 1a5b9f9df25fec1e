"""Lines about files of a folder that are skipped."""

from collections.abc import Iterable
from pathlib import Path

from n2n_lightning.files import some_of
from n2n_lightning.formats.converters import advice


def left_alone(paths: Iterable[Path], shown: int = 3) -> list[str]:
    """List files that are not read, and what converts them.

    Args:
        paths: the files.
        shown: how many names a line has.

    Returns:
        A line for each advice.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(advice(path), []).append(path)
    lines: list[str] = []
    for what, files in groups.items():
        line = f"left alone: {some_of([path.name for path in files], shown)}"
        if what:
            line += f": {what}"
        lines.append(line)
    return lines
