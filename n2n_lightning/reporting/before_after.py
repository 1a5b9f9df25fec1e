"""The page of a command's pictures, before and after they were denoised."""

from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.error_files import read_errors
from n2n_lightning.inference.plan import Job, folder_of
from n2n_lightning.reporting import slider

PAGE = "page.html"  # in the folder of the results


def write_before_after(
    jobs: Sequence[Job], out: Path, asked: AskedAxes, errors: bool = False
) -> str | None:
    """Write the page of before and after next to the results.

    Args:
        jobs: the pictures; those without a result are left out.
        out: the folder of the results, or the name of the only one.
        asked: what decides the axes of arrays.
        errors: show the expected errors of the results, too.

    Returns:
        What to say about it; None where there are no results.
    """
    folder = folder_of(out)
    pairs = []
    for job in jobs:
        if job.target.exists():
            before, after = opened(job.source, job.part), opened(job.target, job.part)
            maps = read_errors(job.target) if errors else []
            for number, (values, result) in enumerate(
                zip(before.values, after.values, strict=True)
            ):
                axes = before.read_as(values, asked).axes
                layers = {"expected error": maps[number].reshape(values.shape)} if maps else None
                arrays = (values.array, result.array)
                pairs.append(slider.pair(job.source.name, *arrays, axes, layers))
    if not pairs:
        return None
    slider.write_page(folder / PAGE, pairs, f"Before and after: {folder.resolve().name}")
    return f"{folder / PAGE}: before and after"
