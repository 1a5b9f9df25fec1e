"""Which files belong together, by their names."""

import fnmatch
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.files import InputError, natural
from n2n_lightning.formats import PICTURES, below, is_one, is_picture, stem
from n2n_lightning.paths import composed, in_clutter


def pictures(folder: Path, exclude: Sequence[str] = (), deep: bool = False) -> list[Path]:
    """The image files in a folder, in natural order (2.png before 10.png).

    Args:
        folder: the folder.
        exclude: patterns of names, or of paths below the folder, that are left out: `*avg*`, `*/mask/*`.
        deep: those in folders below it, too.
    """
    found = below(folder) if deep else folder.iterdir()
    files = [p for p in found if not in_clutter(p, folder) and is_one(p) and is_picture(p)]
    kept = [p for p in files if not _excluded(p.relative_to(folder), exclude)]
    return sorted(kept, key=lambda p: [natural(part) for part in [*reversed(p.relative_to(folder).parents), p]])


def _excluded(path: Path, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(path.name, p) or fnmatch.fnmatch(path.as_posix(), p) for p in patterns)


def key(path: Path, folder: Path) -> str:
    """The name of a file below its folder, without its ending, composed (NFC): what partners have in common."""
    return composed(path.relative_to(folder).with_name(stem(path)).as_posix())


def matched(first: Path, second: Path, exclude: Sequence[str] = ()) -> list[tuple[Path, Path]]:
    """The images of two folders, matched by name without its ending, or by the part of it that is left after what all
    names of a folder have in common: cell1_a, cell2_a with cell1_b, cell2_b.

    Raises:
        InputError: a folder is missing or empty, or one of its images has no partner.
    """
    sides = []
    for folder in (first, second):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        files = pictures(folder, exclude, deep=True)
        if not files:
            raise InputError(f"{folder}: holds no images ({', '.join(sorted(PICTURES))})")
        names = {key(path, folder): path for path in files}
        for path in files:
            if names[key(path, folder)] != path:
                raise InputError(
                    f"{path} and {names[key(path, folder)].name}: have one name; data.exclude= leaves one out"
                )
        sides.append(names)
    a, b = sides
    pairs = partners(list(a), list(b))
    if pairs:
        return [(a[one], b[other]) for one, other in pairs.items()]
    for one, others, where in ((a, b, second), (b, a, first)):
        missing = [path for name, path in one.items() if name not in others]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(
                f"{missing[0]}{more}: has no partner of the same name in {where}; name partners alike, but for a part"
                " that all names of a folder share (cell1_a.tif, cell1_b.tif)"
            )
    raise AssertionError("equal names are partners")


def partners(first: Sequence[str], second: Sequence[str]) -> dict[str, str] | None:
    """Which of the second names belongs to which of the first; None where that is not clear.

    >>> partners(["cell1_a", "cell2_a"], ["cell1_b", "cell2_b"])
    {'cell1_a': 'cell1_b', 'cell2_a': 'cell2_b'}
    >>> partners(["1", "2"], ["1", "3"]) is None
    True
    """
    if len(first) == len(second) == 1:
        return {first[0]: second[0]}
    for bare in (lambda names: {n: n for n in names}, _without_suffix, _without_both):
        one, other = bare(first), bare(second)
        if set(one) == set(other) and len(one) == len(first) and len(other) == len(second):
            return {one[name]: other[name] for name in one}
    return None


def _common(names: Sequence[str]) -> str:
    """What all names begin with."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same)


def _without_suffix(names: Sequence[str]) -> dict[str, str]:
    """The names without the end that all of them have, but for digits."""
    end = _common([name[::-1] for name in names])[::-1].lstrip("0123456789")
    return {name[: len(name) - len(end)]: name for name in names}


def _without_both(names: Sequence[str]) -> dict[str, str]:
    """The names without the beginning and the end that all of them have, but for digits."""
    start = _common(names).rstrip("0123456789")
    return {name[len(start) :]: whole for name, whole in _without_suffix(names).items()}


def grouped(paths: Sequence[Path]) -> list[list[Path]] | None:
    """Files of one folder as captures of scenes, by a last part of the name that each scene has: a_1, a_2, b_1, b_2.

    None where there is no such part, or it may as well number different things: more parts than scenes, or over 9.
    """
    groups: dict[str, dict[str, Path]] = {}
    for path in paths:
        match = re.fullmatch(r"(.+)[ _.-]([0-9]{1,2}|[A-Za-z])", stem(path))
        if not match:
            return None
        groups.setdefault(match[1], {})[match[2]] = path
    parts = [sorted(group) for group in groups.values()]
    if any(p != parts[0] for p in parts) or not 2 <= len(parts[0]) <= min(9, len(parts)):
        return None
    return [[group[part] for part in sorted(group)] for group in groups.values()]
