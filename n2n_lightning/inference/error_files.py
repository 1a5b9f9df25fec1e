"""Files with the expected errors of results, and the second captures that they need."""

import filecmp
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from n2n_lightning.files import InputError, option, replacing
from n2n_lightning.formats import ending, stem
from n2n_lightning.inference.error_maps import ErrorMap
from n2n_lightning.inference.plan import Job, refuse_inputs

ENDING = ".error.tif"  # of the maps, which are never inputs of a folder (paths.OWN_FILES)


def errors_file_of(target: Path) -> Path:
    """Return the file of the errors of a result.

    >>> errors_file_of(Path("clean/a.tif")).name, errors_file_of(Path("clean/a.png")).name
    ('a.error.tif', 'a.png.error.tif')
    """
    is_tiff = ending(target) in (".tif", ".tiff")
    name = stem(target) if is_tiff else target.name
    return target.with_name(name + ENDING)


def refuse_error_files(jobs: Sequence[Job]) -> None:
    """Raise InputError where the errors of a result would be written over one of the pictures."""
    inputs = [job.source for job in jobs if job.source.name.endswith(ENDING)]
    for job in jobs if inputs else ():
        refuse_inputs(errors_file_of(job.target), inputs, "errors")


def write_errors(target: Path, maps: Sequence[ErrorMap]) -> None:
    """Write the errors of a result, `a.error.tif` for `a.tif`, float32.

    Args:
        target: the result.
        maps: of each of its arrays.
    """
    with replacing(errors_file_of(target)) as temporary, tifffile.TiffWriter(temporary) as file:
        for errors in maps:
            file.write(errors.values, compression="zlib", photometric="minisblack")


def read_errors(target: Path) -> list[np.ndarray]:
    """Return the errors of each array of a result; empty where its file is missing.

    Args:
        target: the result.
    """
    path = errors_file_of(target)
    if not path.exists():
        return []
    with tifffile.TiffFile(path) as file:
        return [series.asarray() for series in file.series]


def second_captures(pictures: Sequence[str], second: Path, jobs: Sequence[Job]) -> dict[Path, Path]:
    """Find the second capture of each picture.

    Args:
        pictures: as typed: one file or one folder.
        second: likewise.
        jobs: the pictures.

    Returns:
        The second capture of each source.

    Raises:
        InputError: a picture has none.
    """
    # here: n2n_lightning.data takes seconds and 150 MB, with what training needs
    from n2n_lightning.data.file_matching import matched

    if len(pictures) > 1:
        raise InputError("second", second, f"goes with one file or folder, not {len(pictures)}")
    if not second.exists():
        raise InputError("second", second, "no such file or folder")
    first = Path(pictures[0])
    if not (first.is_dir() and second.is_dir()):
        if len(jobs) > 1 or second.is_dir():
            raise InputError(
                option("second", second) + " must be a folder for a folder, and a file for a file"
            )
        return _no_copies({jobs[0].source: second})
    return _no_copies(dict(matched(first, second)))


def _no_copies(captures: dict[Path, Path]) -> dict[Path, Path]:
    """Return second captures; raise InputError where one is the first one, or a copy of it."""
    for first, second in captures.items():
        same = first.resolve() == second.resolve()
        if same or (first.is_file() and second.is_file() and filecmp.cmp(first, second, False)):
            raise InputError(
                "second",
                second,
                f"has the bytes of {first}: another capture is needed, with noise of its own",
            )
    return captures
