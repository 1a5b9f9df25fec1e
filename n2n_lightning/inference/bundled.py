"""Which of the bundled checkpoints denoises files where none is named."""

from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import AskedAxes, ReadAs
from n2n_lightning.inference.checkpoint import MOVIE, PRETRAINED
from n2n_lightning.inference.plan import Job

FEWEST = 3  # frames of a movie: two are rather a pair


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
