"""`denoise --best` and `--choice`: the files of each kind, and the denoiser that is chosen."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.plan import Job, folder_of, refuse_inputs
from n2n_lightning.selection.choice import (
    CHOICE_FILE,
    Choice,
    choice_for,
    load_choices,
    save_choices,
    without_comparison,
)
from n2n_lightning.selection.choice_page import write_choice_page
from n2n_lightning.selection.data_set import LABELS
from n2n_lightning.selection.search import search
from n2n_lightning.selection.sources import data_of_kind, kinds_of
from n2n_lightning.training.callbacks import Interrupted

WORK = ".best"  # folder of runs and progress, next to the results, until the choice is written
MINUTES = 30.0


def chosen_denoisers(
    args: Any, jobs: Sequence[Job], missing: Sequence[Job], seconds: dict[Path, Path]
) -> list[tuple[TrainedDenoiser, list[Job]]]:
    """Return the denoisers that are chosen, and the files that each is for.

    Args:
        args: of the command `denoise`, with `best` or `choice`.
        jobs: all files.
        missing: those without a result.
        seconds: the second capture of each source; empty: there are none.

    Returns:
        A denoiser for each kind of file.

    Raises:
        InputError: no file can be read, or the choice does not know the kind of one.
    """
    kinds, unreadable = kinds_of(jobs, AskedAxes(args.axes))
    folder = folder_of(args.out)
    if args.choice:
        choices = load_choices(args.choice)
    elif (folder / CHOICE_FILE).exists() and not args.overwrite:
        print(f"{folder / CHOICE_FILE}: is there already; --overwrite chooses anew")
        choices = load_choices(folder)
    else:
        choices = _searched(args, kinds, seconds, folder)
    if LABELS in kinds:
        choices.append(without_comparison(LABELS, "bundled", 1, "label images are copied"))
    chosen = [(choice_for(kind, choices).denoiser(), group) for kind, group in kinds.items()]
    _, first_group = chosen[0]
    first_group += unreadable  # whatever denoises them says why they cannot be read
    return chosen


def _searched(
    args: Any, kinds: dict[str, list[Job]], seconds: dict[Path, Path], folder: Path
) -> list[Choice]:
    """Search for each kind of file, and write what was chosen.

    Raises:
        InputError: the folder of the results cannot be written.
    """
    sources = [job.source for group in kinds.values() for job in group]
    refuse_inputs(folder / CHOICE_FILE, [*sources, *seconds.values()])
    asked = AskedAxes(args.axes)
    compared = [kind for kind in kinds if kind != LABELS]
    minutes = (args.minutes or MINUTES) / max(1, len(compared))
    try:  # before minutes are spent
        (folder / WORK).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    choices = []
    for number, kind in enumerate(compared):
        data = data_of_kind(kind, kinds, seconds, asked, args.pictures)
        try:
            choices.append(search(data, minutes, folder / WORK / str(number), _say))
        except Interrupted as error:
            print("the same command continues", file=sys.stderr)
            raise KeyboardInterrupt from error
    save_choices(choices, folder)
    write_choice_page(choices, folder)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return choices


def _say(line: str) -> None:
    print(line, flush=True)
