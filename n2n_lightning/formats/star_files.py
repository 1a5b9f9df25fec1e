"""Tomograms that star files of RELION 5 and Warp name: pairs of halves, and their results.

The columns are those of RELION's `tomograms.star` (https://relion.readthedocs.io, STA tutorial).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from n2n_lightning.files import InputError, one_line, replacing

HALVES = ("rlnTomoReconstructedTomogramHalf1", "rlnTomoReconstructedTomogramHalf2")
DENOISED = "rlnTomoReconstructedTomogramDenoised"
TOMOGRAM_NAME = "rlnTomoName"


class HalfTomograms(NamedTuple):
    """Two halves of a tomogram.

    Attributes:
        name: of the tomogram.
        first, second: the files of the halves.
    """

    name: str
    first: Path
    second: Path


def is_star(source: str | Path) -> bool:
    """Return True for the name of a star file.

    >>> is_star("Tomograms/job010/tomograms.star"), is_star("tomograms")
    (True, False)
    """
    return str(source).lower().endswith(".star")


def halves_in(path: Path) -> list[HalfTomograms]:
    """Read which halves of tomograms a star file names.

    Paths in it are relative to the project's folder: the current one, or one above the star file.

    Args:
        path: the star file.

    Returns:
        The tomograms in their order.

    Raises:
        InputError: it cannot be read, names no halves, or a half is missing.
    """
    tomograms = []
    for block in _read(path).values():
        if not _has_halves(block):
            continue
        for number in range(len(block)):
            row = block.iloc[number]
            first, second = (_located(row[column], path) for column in HALVES)
            name = str(row[TOMOGRAM_NAME]) if TOMOGRAM_NAME in block.columns else first.stem
            tomograms.append(HalfTomograms(name, first, second))
    if not tomograms:
        raise InputError(
            f"{path}: has no columns {HALVES[0]} and {HALVES[1]}; reconstruct the tomograms with"
            " halves (RELION: 'generate tomograms for denoising'; Warp: half maps)"
        )
    return tomograms


def write_denoised(path: Path, target: Path, results: Mapping[Path, Path]) -> None:
    """Write a star file with the denoised tomograms; all other columns and blocks stay.

    Args:
        path: the star file that names the halves.
        target: the file to write.
        results: the denoised tomogram by its first half.
    """
    import starfile

    blocks = _read(path)
    for block in blocks.values():
        if not _has_halves(block):
            continue
        denoised = []
        for half in block[HALVES[0]]:
            result = results[_located(half, path)]
            denoised.append(result.as_posix())
        block[DENOISED] = denoised
    with replacing(target) as temporary:
        starfile.write(blocks, temporary, na_rep="nan")


def _has_halves(block: Any) -> bool:
    """Return True for a table with the columns of both halves."""
    return hasattr(block, "columns") and set(HALVES) <= set(block.columns)


def _read(path: Path) -> dict[str, Any]:
    """Read the blocks of a star file, all values as text, so that they are written as they were."""
    try:
        import starfile
    except ImportError as error:
        raise InputError(
            f"{path}: star files need starfile: pip install 'n2n_lightning[relion]'"
        ) from error
    try:
        names: set[str] = set()
        for block in starfile.read(path, always_dict=True).values():
            names |= set(block)
        blocks = starfile.read(path, always_dict=True, parse_as_string=sorted(names))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # its parser raises errors of pandas and its own
        raise InputError(f"{path}: is no star file ({one_line(error, 100)})") from error
    return dict(blocks)


def _located(text: Any, star: Path) -> Path:
    """Return a file that a star file names.

    Raises:
        InputError: it is nowhere.
    """
    named = Path(str(text))
    folders = [Path(), *star.absolute().parents]
    for folder in folders:
        path = folder / named
        if path.exists():
            return path
    raise InputError(f"{star}: names {named}, which is not there; start in the project's folder")
