"""Which of the bundled checkpoints denoises files where none is named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import AskedAxes, ReadAs
from n2n_lightning.inference.checkpoint import MOVIE, PRETRAINED
from n2n_lightning.inference.plan import Job

# Options that the checkpoint for movies does not take, or takes in another way.
FRAME_BY_FRAME = ("adapt", "halves", "errors", "second", "tile")
FEWEST = 3  # frames of a movie: two are rather a pair


def checkpoint_for(args: Any, jobs: Sequence[Job]) -> Path:
    """Return the bundled checkpoint for files, and print a line if options decide.

    Args:
        args: of the command `denoise`.
        jobs: all files, those included whose result exists: a command that is repeated goes on as
            it began.

    Returns:
        Its path.
    """
    checkpoint = bundled_checkpoint(args.movie, jobs, args.axes)
    if checkpoint != MOVIE or args.movie is not None:
        return checkpoint
    asked = [name for name in FRAME_BY_FRAME if getattr(args, name)]
    if args.mosaic not in ("auto", "none"):
        asked.append("mosaic")
    if not asked:
        return checkpoint
    print(f"movies, denoised frame by frame because of --{asked[0]}")
    return PRETRAINED


def bundled_checkpoint(movie: bool | None, jobs: Sequence[Job], said: str | None) -> Path:
    """Return the bundled checkpoint for some files.

    Args:
        movie: True for the one for movies, False for the one for pictures; None: the one for movies
            where all files state that they are.
        jobs: the files.
        said: the axes that the person names; None: those that files state.

    Returns:
        Its path.
    """
    if movie is None:
        asked = AskedAxes(said)
        movie = bool(jobs) and all(_is_movie(job, asked) for job in jobs)
    return MOVIE if movie else PRETRAINED


def _is_movie(job: Job, asked: AskedAxes) -> bool:
    """Return True if all arrays of a file have an axis of time, and are no colour pictures."""
    try:
        picture = opened(job.source, job.part)
        for values in picture.values:
            reading = picture.read_as(values, asked)
            if not _is_time_series(values.shape, reading):
                return False
    except InputError:  # said when it is denoised
        return False
    return bool(picture.values)


def _is_time_series(shape: Sequence[int], reading: ReadAs) -> bool:
    if "T" not in reading.axes or (reading.colour and "C" in reading.axes):
        return False
    if set("KN") & set(reading.axes):
        return False
    return shape[reading.axes.index("T")] >= FEWEST
