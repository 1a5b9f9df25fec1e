"""What is compared: pictures, movies or volumes of one kind, with their captures."""

from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.plan import Job
from n2n_lightning.selection.data_set import (
    LABELS,
    DataSet,
    kind_of_file,
    read_data_set,
    with_captures_of,
)
from n2n_lightning.selection.stacks import read_stacks


def kinds_of(jobs: Sequence[Job], asked: AskedAxes) -> tuple[dict[str, list[Job]], list[Job]]:
    """Return the files of each kind, and those that cannot be read.

    Args:
        jobs: the files.
        asked: what decides the axes of arrays.

    Raises:
        InputError: none can be read.
    """
    kinds: dict[str, list[Job]] = {}
    unreadable = []
    for job in jobs:
        try:
            kind = kind_of_file(job, asked)
        except InputError:
            unreadable.append(job)
            if len(unreadable) == len(jobs):
                raise
            continue
        kinds.setdefault(kind, []).append(job)
    return kinds, unreadable


def data_of_kind(
    kind: str,
    kinds: dict[str, list[Job]],
    seconds: dict[Path, Path],
    asked: AskedAxes,
    typed: Sequence[str],
) -> DataSet:
    """Read the data of one kind: movies and volumes as such, or pictures with their captures.

    Args:
        kind: of the files.
        kinds: the files of each kind.
        seconds: the second capture of each source; empty: there are none.
        asked: what decides the axes of arrays.
        typed: what the person named; captures are searched for in a single folder.

    Raises:
        InputError: a file cannot be read.
    """
    stacks = read_stacks(kinds[kind], seconds, kind, asked)
    if stacks is not None:
        return stacks
    data = read_data_set(kinds[kind], seconds, kind, asked)
    single_folder = len(typed) == 1 and Path(typed[0]).is_dir()
    others = set(kinds) - {kind, LABELS}
    if single_folder and not others and not seconds and not data.paired:
        return with_captures_of(typed[0], data)
    return data
