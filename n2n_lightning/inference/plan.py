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
from n2n_lightning.formats.star_files import halves_in, is_star
from n2n_lightning.inference.skipped_files import left_alone
from n2n_lightning.paths import composed, in_clutter, is_dangling, parse_frames


class Job(NamedTuple):
    """A file, the array in it that was named, if any, and what it becomes.

    `part` may end in frames, `[10:50]`. `series` are the files of a folder of which some were
    chosen, in order. `other_half`: the target becomes the mean of both denoised halves.
    """

    source: Path
    target: Path
    part: str | None = None
    series: tuple[Path, ...] = ()
    other_half: Path | None = None

    @property
    def typed(self) -> str:
        """The file and its part, as they are typed."""
        return f"{self.source}:{self.part}" if self.part else str(self.source)


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
        if is_star(text):
            jobs += _jobs_of_star(Path(text), out)
        elif not is_one(path):
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
    jobs = jobs_below(path, out, skipped)
    if not jobs:
        reason = "; ".join(left_alone(skipped)) or ", ".join(ENDINGS)
        raise InputError(f"{path}: holds no pictures ({reason})")
    return _chosen(jobs, part)


def jobs_below(path: Path, out: Path, skipped: list[Path]) -> list[Job]:
    """Return the jobs of the pictures in a folder and below it.

    Args:
        path: the folder.
        out: the folder of the results; what is in it is no picture.
        skipped: gets the files that are no pictures.

    Returns:
        One for each picture, in the order of the names.
    """
    jobs = []
    for file in _inputs(below(path), path, out):
        if kind_of(file):
            jobs.append(Job(file, result_of(out / file.relative_to(path))))
        else:
            skipped.append(file)
    return jobs


def _jobs_of_star(path: Path, out: Path) -> list[Job]:
    """Return the jobs of the tomograms in a star file, each of two halves."""
    jobs = []
    for row in halves_in(path):
        target = out / f"{row.name}{ending(result_of(row.first))}"
        jobs.append(Job(row.first, target, other_half=row.second))
    return jobs


def _jobs_of_pattern(text: str, path: Path, out: Path) -> list[Job]:
    """Return the jobs of the files that match a pattern such as 'scans/*.tif'."""
    root = Path(*itertools.takewhile(lambda name: not glob.has_magic(name), path.parts))
    matches = map(Path, glob.glob(text, recursive=True))
    sources = _inputs(matches, root, out)
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
    becomes = f"becomes {name}"
    if kind == suffix:
        becomes = f"stays one; name it {name}"
    raise InputError(f"{out}: a {kind} picture {becomes}")


def _with_different_targets(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs without repetitions; raise InputError where two pictures have one target."""
    owners: dict[Path, Job] = {}
    for job in jobs:
        other = owners.setdefault(job.target, job)
        same_source = other.source.resolve() == job.source.resolve()
        if not (same_source and other.part == job.part):
            raise InputError(
                f"{other.typed} and {job.typed} would both become {job.target}; denoise them into"
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
    existing = identity(target)
    folder = Path(os.path.realpath(target.parent))
    for source in inputs:
        if source is None:
            continue
        path = Path(source)
        if not path.exists():
            continue
        if existing is not None and identity(path) == existing:
            raise InputError(f"{named}: is the input {path}; name another file")
        if not path.is_dir() or not folder.is_relative_to(path.resolve()):
            continue
        replaces_picture = existing is not None and ending(target) in ENDINGS
        if replaces_picture or _inside_picture(folder, path):
            raise InputError(f"{named}: is among the inputs, in {path}; name another file")


def _inside_picture(folder: Path, root: Path) -> bool:
    """Return True if a folder lies in a picture that is a folder, `root` or one inside it."""
    if ending(root) in FOLDERS:
        return True
    top = root.resolve()
    for parent in (folder, *folder.parents):
        if top in parent.parents and ending(parent) in FOLDERS:
            return True
    return False


def _refuse_inputs(jobs: list[Job]) -> None:
    """Raise InputError where a result would be an input, lie in one, or hold one."""
    sources = {}
    folders = {}
    for job in jobs:
        sources[identity(job.source)] = job.source
        if job.other_half is not None:
            sources[identity(job.other_half)] = job.other_half
        if job.source.is_dir():
            folders[job.source.resolve()] = job.source
    holders = {}
    for path in {job.source.parent for job in jobs}:
        folder = path.resolve()
        for parent in (folder, *folder.parents):
            holders[parent] = path
    for job in jobs:
        existing = identity(job.target)
        if existing is not None and existing == identity(job.source):
            raise InputError(f"{job.source}: would replace itself; name another folder with -o")
        if existing is not None and existing in sources:
            raise InputError(
                f"{job.target}: is an input, {sources[existing]}; name another folder with -o"
            )
        real = Path(os.path.realpath(job.target))
        for parent in real.parents:
            if parent in folders:
                raise InputError(
                    f"{job.target}: lies in an input, {folders[parent]}; name another folder with"
                    " -o"
                )
        if existing is not None and job.target.is_dir() and real in holders:
            raise InputError(
                f"{job.target}: holds an input, in {holders[real]}; name another folder with -o"
            )


def _refuse_neighbours(jobs: list[Job]) -> None:
    """Raise InputError where a file to be replaced lies among the inputs."""
    parents = {job.source.parent for job in jobs}
    folders = set(map(identity, parents))
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
        name = composed(str(job.target)).casefold()
        other = spelled.setdefault(name, job)
        if other.target != job.target and one_name(other.target, job.target):
            raise InputError(
                f"{other.source} and {job.source} would both become {job.target}, as the disk"
                " takes both names for one; denoise them into folders of their own"
            )


def one_name(path: Path, other: Path) -> bool:
    """Decide if the file system takes two names for one, by trying it in a temporary folder.

    Args:
        path, other: the names, in one existing folder or below it.

    Returns:
        True if a file of one name is there under the other, too; False where nothing can be
        written.
    """
    existing = next(parent for parent in (*path.parents, Path()) if parent.is_dir())
    depth = len(existing.parts)
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".names") as folder:
            first = Path(folder, *path.parts[depth:])
            second = Path(folder, *other.parts[depth:])
            first.parent.mkdir(parents=True, exist_ok=True)
            first.touch()
            return second.exists()
    except OSError:  # it cannot be written to, which is said later
        return False


def _chosen(jobs: list[Job], part: str | None) -> list[Job]:
    """Choose some files of a folder, `FOLDER[10:50]`, in the natural order of their names."""
    if part is None:
        return jobs
    ordered = sorted(jobs, key=lambda job: natural(job.source))
    frames = range(len(ordered))[parse_frames(part)]
    if not frames:
        raise InputError(f"{jobs[0].source.parent}{part}: chooses none of its {len(jobs)} files")
    every = slice(frames.start % frames.step, None, frames.step)
    series = tuple(job.source for job in ordered[every])
    return [ordered[t]._replace(series=series) for t in frames]


def result_of(path: Path, part: str | None = None) -> Path:
    """Return the name of a result: that of the picture, but for read-only kinds and frames.

    Args:
        path: the picture, or where it would be in another folder.
        part: the array or the frames in it that were named.

    Returns:
        The same path, or one with another ending.
    """
    kind = ending(path)
    suffix = BECOMES.get(kind)
    is_frames = part is not None and part.endswith("]")
    if is_frames and kind not in (".npy", ".tif", ".tiff"):
        suffix = ".tif"
    if not suffix:
        return path
    return path.with_name(stem(path) + suffix)


def _inputs(paths: Iterable[Path], root: Path, out: Path) -> list[Path]:
    """Return the files among `paths` but clutter and earlier results in `out`.

    Links to nothing are among them: that their pictures are missing is said for each.
    """
    results = out.resolve()
    top = root.resolve()
    results_inside = results != top and results.is_relative_to(top)
    files = []
    for path in paths:
        if not is_one(path) or in_clutter(path, root):
            continue
        if not path.exists() and not is_dangling(path):
            continue
        if results_inside and path.resolve().is_relative_to(results):
            continue
        files.append(path)
    return sorted(files)


def halves_of(pictures: list[str], out: Path) -> list[Job]:
    """Return the jobs of --halves: two, which become one file.

    Args:
        pictures: as typed: two files, or one folder or pattern of two.
        out: the result, or its folder.

    Returns:
        A job for each half, with the same target.

    Raises:
        InputError: there are not two.
    """
    folder = folder_of(out)
    planned_into = out if len(pictures) == 1 else folder
    halves: list[Job] = []
    for text in pictures:
        jobs, _ = planned([text], planned_into, final=False)
        halves += jobs
    if len(halves) != 2:
        raise InputError(
            "halves", True, f"{len(halves)} pictures; two are needed, the halves of one specimen"
        )
    first = halves[0].target
    target = first if out == folder else out
    if ending(target) != ending(first):
        raise InputError(f"{out}: a {ending(first)} picture stays one")
    halves = [half._replace(target=target) for half in halves]
    _refuse_inputs(halves)
    return halves


def folder_of(out: Path) -> Path:
    """Return the folder of results.

    Args:
        out: the folder, or the name of a picture in it.

    Returns:
        `out` or its parent.
    """
    if ending(out) in ENDINGS and is_one(out):
        return out.parent
    return out
