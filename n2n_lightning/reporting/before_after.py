"""The page of a command's pictures, before and after they were denoised."""

from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.certificates import read_marks
from n2n_lightning.inference.error_files import read_errors
from n2n_lightning.inference.plan import Job, folder_of
from n2n_lightning.reporting import slider

PAGE = "page.html"  # in the folder of the results


def write_before_after(
    jobs: Sequence[Job],
    out: Path,
    asked: AskedAxes,
    errors: bool = False,
    marks: bool = False,
) -> str | None:
    """Write the page of before and after next to the results.

    Args:
        jobs: the pictures; those without a result are left out.
        out: the folder of the results, or the name of the only one.
        asked: what decides the axes of arrays.
        errors: show the expected errors of the results, too.
        marks: show where their certificates say that structure was removed or added, too.

    Returns:
        What to say about it; None where there are no results.
    """
    folder = folder_of(out)
    pairs = []
    for job in jobs:
        if job.target.exists():
            pairs += _compared(job, asked, errors, marks)
    if not pairs:
        return None
    slider.write_page(folder / PAGE, pairs, f"Before and after: {folder.resolve().name}")
    return f"{folder / PAGE}: before and after"


def _compared(job: Job, asked: AskedAxes, errors: bool, marks: bool) -> list[slider.Compared]:
    """Return the arrays of a picture, before and after, see `write_before_after`."""
    before = opened(job.source, job.part)
    after = opened(job.target, job.part)
    maps = read_errors(job.target) if errors else []
    compared = []
    for number, values in enumerate(before.values):
        axes = before.read_as(values, asked).axes
        layers = {}
        if maps:
            layers["expected error"] = maps[number].reshape(values.shape)
        marked = None
        if marks:
            marked = read_marks(job.target, number, values.shape, axes)
        result = after.values[number].array
        shown = slider.pair(job.source.name, values.array, result, axes, layers, marked)
        compared.append(shown)
    return compared
