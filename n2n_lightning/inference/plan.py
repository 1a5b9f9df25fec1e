"""Which picture becomes which file."""

import glob
import itertools
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from n2n_lightning.files import InputError, identity, natural, option
from n2n_lightning.formats import (
    BECOMES,
    ENDINGS,
    FOLDERS,
    below,
    ending,
    is_one,
    kind_of,
    split,
    stem,
)
from n2n_lightning.inference.skipped_files import left_alone
from n2n_lightning.paths import composed, in_clutter, is_dangling, parse_frames


class Job(NamedTuple):
    """A file, the array in it that was named, if any, and what it becomes.

    `part` may end in frames, `[10:50]`. `series` are the files of a folder of which some were
    chosen, in order.
    """

    source: Path
    target: Path
    part: str | None = None
    series: tuple[Path, ...] = ()


def planned(
    pictures: Sequence[str], out: Path, overwrite: bool = False, final: bool = True
) -> tuple[list[Job], list[Path]]:
    """Decide which file becomes which.

    Args:
        pictures: as typed: files, folders, patterns.
        out: the folder of the results, or the name of the only one.
        overwrite: existing results are to be replaced.
        final: the results will have these names; otherwise they are not checked yet.

    Returns:
        The jobs, each target once, and the files of folders that are no pictures.

    Raises:
        InputError: no picture is found, two would become one, or an input would be overwritten.
    """
    named = ending(out) in (*ENDINGS, ".gif", ".heic") and is_one(out)
    if out.exists() and not out.is_dir() and not named:
        raise InputError(f"{out}: is a file; name a folder")
    jobs: list[Job] = []
    skipped: list[Path] = []
    for text in pictures:
        path, part = split(text)
        if not text:
            raise InputError("a picture without a name")
        if not is_one(path):
            jobs += _jobs_of_folder(path, part, out, skipped)
        elif path.exists() or not glob.has_magic(text):
            jobs.append(Job(path, out if named else result_of(out / path.name, part), part))
        else:
            jobs += _jobs_of_pattern(text, path, out)
    if named:
        _check_name(out, jobs)
    if final:
        _refuse_inputs(jobs)
    if overwrite and not named:
        _refuse_neighbours(jobs)
    _refuse_same_names(jobs)
    return _with_different_targets(jobs), skipped


def _jobs_of_folder(path: Path, part: str | None, out: Path, skipped: list[Path]) -> list[Job]:
    """Return the jobs of the pictures in a folder; other files are added to `skipped`."""
    sources = []
    for file in _found(below(path), path, out):
        if kind_of(file):
            sources.append(file)
        else:
            skipped.append(file)
    if not sources:
        others = "; ".join(left_alone(skipped))
        raise InputError(f"{path}: holds no pictures ({others or ', '.join(ENDINGS)})")
    jobs = [Job(file, result_of(out / file.relative_to(path))) for file in sources]
    return _chosen(jobs, part)


def _jobs_of_pattern(text: str, path: Path, out: Path) -> list[Job]:
    """Return the jobs of the files that match a pattern such as 'scans/*.tif'."""
    fixed = itertools.takewhile(lambda name: not glob.has_magic(name), path.parts)
    matches = (Path(match) for match in glob.glob(text, recursive=True))
    sources = _found(matches, Path(*fixed), out)
    if not sources:
        raise InputError(f"{text}: matches no file")
    return [Job(file, result_of(out / file.name)) for file in sources]


def _check_name(out: Path, jobs: Sequence[Job]) -> None:
    """Raise InputError where one picture cannot become the file that was named."""
    first = jobs[0]
    if len(jobs) > 1 or first.target != out:
        raise InputError(
            f"{out}: is the name of a picture, for {len(jobs)} pictures; name a folder"
        )
    suffix = ending(result_of(first.source, first.part))
    if ending(out) == suffix:
        return
    kind = ending(first.source)
    name = out.with_name(stem(out) + suffix)
    becomes = f"stays one; name it {name}" if kind == suffix else f"becomes {name}"
    raise InputError(f"{out}: a {kind} picture {becomes}")


def _with_different_targets(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs without repetitions; raise InputError where two pictures have one target."""
    owners: dict[Path, Job] = {}
    for job in jobs:
        other = owners.setdefault(job.target, job)
        if (other.source.resolve(), other.part) != (job.source.resolve(), job.part):
            sources = [f"{j.source}:{j.part}" if j.part else str(j.source) for j in (other, job)]
            raise InputError(
                f"{' and '.join(sources)} would both become {job.target}; denoise them into"
                " folders of their own"
            )
    return list(owners.values())


def refuse_inputs(target: Path, inputs: Iterable[Path | str | None], field: str = "") -> None:
    """Refuse to write a file where an input is.

    Args:
        target: the file that is to be written.
        inputs: the files and folders that are read; None and what does not exist are left out. What
            exists in such a folder must not be replaced if its name is that of an image or an
            array.
        field: the option that names the target; empty for a target without an option.

    Raises:
        InputError: `target` is one of the inputs, by this name or another, or one of the images in
            an input folder.
    """
    named = option(field, target) if field else target
    here, place = identity(target), Path(os.path.realpath(target.parent))
    for source in inputs:
        path = Path(source) if source is not None else None
        if path is None or not path.exists():
            continue
        if here is not None and identity(path) == here:
            raise InputError(f"{named}: is the input {path}; name another file")
        real = path.resolve()
        if not path.is_dir() or not (place == real or real in place.parents):
            continue
        whole = ending(path) in FOLDERS or any(
            ending(p) in FOLDERS for p in (place, *place.parents) if real in p.parents
        )
        if whole or (here is not None and ending(target) in ENDINGS):
            raise InputError(f"{named}: is among the inputs, in {path}; name another file")


def _refuse_inputs(jobs: list[Job]) -> None:
    """Raises InputError where a result would be an input, lie in one, or hold one."""
    sources = {identity(job.source): job.source for job in jobs}
    folders = {job.source.resolve(): job.source for job in jobs if job.source.is_dir()}
    holders = {
        parent: path
        for path in {j.source.parent for j in jobs}
        for parent in (path.resolve(), *path.resolve().parents)
    }
    for job in jobs:
        here = identity(job.target)
        if here is not None and here == identity(job.source):
            raise InputError(f"{job.source}: would replace itself; name another folder with -o")
        if here is not None and here in sources:
            raise InputError(
                f"{job.target}: is an input, {sources[here]}; name another folder with -o"
            )
        real = Path(os.path.realpath(job.target))
        if inside := [path for parent in real.parents if (path := folders.get(parent))]:
            raise InputError(
                f"{job.target}: lies in an input, {inside[0]}; name another folder with -o"
            )
        if here is not None and job.target.is_dir() and real in holders:
            raise InputError(
                f"{job.target}: holds an input, in {holders[real]}; name another folder with -o"
            )


def _refuse_neighbours(jobs: list[Job]) -> None:
    """Raise InputError where a file to be replaced lies among the inputs."""
    folders = {identity(folder) for folder in {job.source.parent for job in jobs}}
    for job in jobs:
        if os.path.lexists(job.target) and identity(job.target.parent) in folders:
            raise InputError(
                f"{job.target}: exists in the folder of the inputs, where"
                f" {option('overwrite', True)} replaces nothing, as it may be an original; name"
                " another folder with -o"
            )


def _refuse_same_names(jobs: list[Job]) -> None:
    """Raise InputError where the disk takes two names for one, by case or composed letters."""
    spelled: dict[str, Job] = {}
    for job in jobs:
        other = spelled.setdefault(composed(str(job.target)).casefold(), job)
        if other.target != job.target and one_name(other.target, job.target):
            raise InputError(
                f"{other.source} and {job.source} would both become {job.target}, as the disk"
                " takes both names for one; denoise them into folders of their own"
            )


def one_name(path: Path, other: Path) -> bool:
    """Return True if the file system takes two names for one; try it in a temporary folder."""
    there = next(folder for folder in (*path.parents, Path()) if folder.is_dir())
    depth = len(there.parts)
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".names") as folder:
            first, second = (Path(folder, *p.parts[depth:]) for p in (path, other))
            first.parent.mkdir(parents=True, exist_ok=True)
            first.touch()
            return second.exists()
    except OSError:  # it cannot be written to, which is said later
        return False


def _chosen(jobs: list[Job], part: str | None) -> list[Job]:
    """Some of the files of a folder, `FOLDER[10:50]`, in the natural order of their names."""
    if part is None:
        return jobs
    ordered = sorted(jobs, key=lambda job: natural(job.source))
    frames = range(len(ordered))[parse_frames(part)]
    if not frames:
        raise InputError(f"{jobs[0].source.parent}{part}: chooses none of its {len(jobs)} files")
    every = range(frames.start % frames.step, len(ordered), frames.step)
    series = tuple(ordered[t].source for t in every)
    return [ordered[t]._replace(series=series) for t in frames]


def result_of(path: Path, part: str | None = None) -> Path:
    """Return the name of a result: that of the picture, but for read-only kinds and frames."""
    suffix = BECOMES.get(ending(path))
    if part and part.endswith("]") and ending(path) not in (".npy", ".tif", ".tiff"):
        suffix = ".tif"
    return path.with_name(stem(path) + suffix) if suffix else path


def _found(paths: Iterable[Path], root: Path, out: Path) -> list[Path]:
    """Return the files among `paths` but clutter and earlier results in `out`.

    Links to nothing are among them: that their pictures are missing is said for each.
    """
    results = out.resolve()
    inside = results != root.resolve() and results.is_relative_to(root.resolve())
    kept = (p for p in paths if is_one(p) and not in_clutter(p, root))
    files = sorted(p for p in kept if p.exists() or is_dangling(p))
    return [p for p in files if not (inside and p.resolve().is_relative_to(results))]


def halves_of(pictures: list[str], out: Path) -> list[Job]:
    """The jobs of --halves: two, which become one file.

    Raises:
        InputError: there are not two.
    """
    folder = out if len(pictures) == 1 else folder_of(out)
    first, *more = [job for text in pictures for job in planned([text], folder, final=False)[0]]
    if len(more) != 1:
        raise InputError(
            "halves", True, f"{1 + len(more)} pictures; two are needed, the halves of one specimen"
        )
    target = first.target if out == folder_of(out) else out
    if ending(target) != ending(first.target):
        raise InputError(f"{out}: a {ending(first.target)} picture stays one")
    found = [first._replace(target=target), more[0]._replace(target=target)]
    _refuse_inputs(found)
    return found


def folder_of(out: Path) -> Path:
    """The folder of results, where `out` may be the name of one."""
    return out.parent if ending(out) in ENDINGS and is_one(out) else out
