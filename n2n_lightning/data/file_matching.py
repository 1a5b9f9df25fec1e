"""Which files belong together, by their names."""

import fnmatch
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from n2n_lightning.files import InputError, natural, option, some_of
from n2n_lightning.formats import PICTURES, below, is_one, is_picture, stem
from n2n_lightning.paths import (
    PREVIEWS,
    composed,
    in_clutter,
    is_dangling,
    is_pattern,
    matching,
    pattern_root,
)


def pictures(folder: Path, exclude: Sequence[str] = (), deep: bool = False) -> list[Path]:
    """The image files in a folder, or those that match a pattern, in natural order (2.png before 10.png).

    Args:
        folder: the folder, or a pattern, `tomo/*_EVN.mrc`, for which `deep` does not matter.
        exclude: patterns of names, or of paths below the folder, that are left out: `*avg*`,
            `*/mask/*`.
        deep: those in folders below it, too.
    """
    return [path for path in _listed(folder, exclude, deep) if not is_dangling(path)]


def _listed(folder: Path, exclude: Sequence[str], deep: bool) -> list[Path]:
    """The same with links to nothing."""
    root = pattern_root(folder)
    found: Iterable[Path]
    if is_pattern(folder):
        found = matching(str(folder))
    else:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such file or folder")
        found = below(folder) if deep else folder.iterdir()
    files = [p for p in found if not in_clutter(p, root) and is_one(p) and is_picture(p)]
    kept = [p for p in files if not _excluded(p.relative_to(root), exclude)]
    keys: dict[Path, list[list[tuple[int, str]]]] = {}

    def place(path: Path) -> list[list[tuple[int, str]]]:
        if path.parent not in keys:  # of very many files the folders are few
            keys[path.parent] = [natural(part) for part in reversed(path.relative_to(root).parents)]
        return [*keys[path.parent], natural(path)]

    return sorted(kept, key=place)


@dataclass(frozen=True)
class Listing:
    """What a folder, or a pattern, holds to be trained on.

    Attributes:
        root: the folder.
        groups: the image files of each folder, in natural order.
        dropped: what is left out, in words.
    """

    root: Path
    groups: dict[Path, list[Path]]
    dropped: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return list(itertools.chain.from_iterable(self.groups.values()))

    def without(self, folders: Sequence[Path], reason: str) -> "Listing":
        """Some folders less, for a reason."""
        counts = [
            f"{f.relative_to(self.root)} ({len(self.groups[f])} pictures {reason})" for f in folders
        ]
        rest = {folder: files for folder, files in self.groups.items() if folder not in folders}
        return replace(self, groups=rest, dropped=(*self.dropped, *counts))


def listing(source: Path, exclude: Sequence[str] = ()) -> Listing:
    """What lies in a folder and those below it, or matches a pattern; previews and links to nothing are left out.

    Raises:
        InputError: there are no images.
    """
    root = pattern_root(source)
    groups: dict[Path, list[Path]] = {}
    away = []
    for path in _listed(source, exclude, deep=True):
        if is_dangling(path):
            away.append(path)
        else:
            groups.setdefault(path.parent, []).append(path)
    dropped = []
    if away:
        some = some_of([str(path.relative_to(root)) for path in away], 5)
        dropped.append(f"{some} (links to files that are not there)")
    found = Listing(root, groups, tuple(dropped))
    small = [
        f for f in groups if any(part.lower() in PREVIEWS for part in f.relative_to(root).parts)
    ]
    if small and len(small) < len(groups):
        found = found.without(small, "in a folder of previews")
    if not found.groups:
        what = "matches no image" if is_pattern(source) else "holds no images"
        also = f"; left out: {'; '.join(dropped)}" if dropped else ""
        raise InputError(f"{source}: {what} ({', '.join(sorted(PICTURES))}){also}")
    return found


def is_file(source: str | Path) -> bool:
    """Tell whether a source of images is one file, or an array or frames of one: no folder, and no pattern."""
    return is_one(Path(source)) and not is_pattern(source)


def _excluded(path: Path, patterns: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatch(path.name, p) or fnmatch.fnmatch(path.as_posix(), p) for p in patterns
    )


def key(path: Path, folder: Path) -> str:
    """The name of a file below its folder, without its ending, composed (NFC): what partners have in common."""
    return composed(path.relative_to(pattern_root(folder)).with_name(stem(path)).as_posix())


def matched(first: Path, second: Path, exclude: Sequence[str] = ()) -> list[tuple[Path, Path]]:
    """The images of two folders, matched by name without its ending, or by the part of it that is left after what all
    names of a folder have in common: cell1_a, cell2_a with cell1_b, cell2_b.

    Raises:
        InputError: a folder is missing or empty, or one of its images has no partner.
    """
    sides = []
    for folder in (first, second):
        if is_file(folder):
            raise InputError(f"{folder}: no such folder")
        files = listing(folder, exclude).files
        names = {key(path, folder): path for path in files}
        for path in files:
            if names[key(path, folder)] != path:
                raise InputError(
                    f"{path} and {names[key(path, folder)].name}: have one name;"
                    f" {option('data.exclude')} leaves one out"
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
                f"{missing[0]}{more}: has no partner of the same name in {where}; name partners"
                " alike, but for a part that all names of a folder share (cell1_a.tif,"
                " cell1_b.tif)"
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

    None where there is no such part, or it may as well number different things: more parts than
    scenes, or over 9.
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


_HALF = re.compile(
    r"(?:^|(?<=[ _.-]))(?:(evn|even)|(odd)|half[ _-]?(?:map[ _-]?)?(?:([1a])|([2b]))|(?:(h1)|(h2)))(?=[ _.-]|$)",
    re.IGNORECASE,
)


def half_of(name: str) -> tuple[str, int] | None:
    """Which half a name says that it is, and the rest of the name, which both have; None: it is no half.

    >>> half_of("grid1_000_EVN"), half_of("run_half2_class001"), half_of("grid1_000")
    (('grid1_000:0', 0), ('run_class001:2', 1), None)
    """
    found = list(_HALF.finditer(name))
    if not found:
        return None
    last = found[-1]
    kind = next(i for i, group in enumerate(last.groups()) if group)
    return f"{_bare(name[: last.start()] + name[last.end() :])}:{kind // 2 * 2}", kind % 2


def _bare(name: str) -> str:
    """A name without separators at its ends, one where there are several."""
    return re.sub(r"[ _.-]{2,}", "_", composed(name).strip(" _.-")).lower()


def halves(paths: Sequence[Path]) -> tuple[list[list[Path]], list[Path]] | None:
    """Files of one folder that are halves of things by their names (_EVN and _ODD, half1 and half2), in pairs.

    Returns:
        The pairs, and the other files, as their sums; None where the names say nothing of the kind.

    Raises:
        InputError: a half has no other half.
    """
    found: dict[str, dict[int, Path]] = {}
    rest = []
    for path in paths:
        half = half_of(stem(path))
        if half is None:
            rest.append(path)
        else:
            found.setdefault(half[0], {})[half[1]] = path
    pairs = [[sides[0], sides[1]] for sides in found.values() if len(sides) == 2]
    if not pairs or sum(len(sides) for sides in found.values()) + len(rest) < len(paths):
        return None
    alone = [path for sides in found.values() if len(sides) == 1 for path in sides.values()]
    names = {key.rpartition(":")[0] for key in found}
    sums = [p for p in rest if _is_sum(_bare(stem(p)), names)]
    short = any(key.endswith(":4") for key in found)  # h1 and h2 may be wells of a plate
    if short and (alone or any(_bare(stem(p)) not in names for p in rest)):
        return None
    if len(alone) > len(pairs) or len(rest) - len(sums) > len(pairs):
        return None
    if alone:
        raise InputError(
            f"{alone[0]}: its other half is not there;"
            f" {option('data.exclude', repr(alone[0].name))} leaves it out"
        )
    return pairs, rest


def _is_sum(name: str, halves: set[str]) -> bool:
    """Whether a name is that of what two halves are of, perhaps with something at its end: grid1_000_DW."""
    ends = [match.start() for match in re.finditer(r"[ _.-]", name)]
    return any(name[:end] in halves for end in (*ends, len(name)))
