"""Which files belong together, by their names."""

import fnmatch
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from n2n_lightning.files import InputError, natural, option, some_of
from n2n_lightning.formats import PICTURES, below, is_one, is_picture, stem
from n2n_lightning.formats.star_files import halves_in, is_star
from n2n_lightning.paths import (
    PREVIEWS,
    composed,
    in_clutter,
    is_dangling,
    is_pattern,
    matching,
    pattern_root,
)

Key = list[list[tuple[int, str]]]  # to sort paths by
MAX_LEFT_OUT_NAMES = 5  # in a message
MAX_CAPTURES_BY_NAME = 9  # captures numbered by the ends of names; more are likely other things


def pictures(
    folder: Path,
    exclude: Sequence[str] = (),
    deep: bool = False,
) -> list[Path]:
    """List the image files of a folder or pattern, in natural order (2.png before 10.png).

    Args:
        folder: the folder, or a pattern, `tomo/*_EVN.mrc`, for which `deep` does not matter.
        exclude: patterns of names, or of paths below the folder, that are left out: `*avg*`,
            `*/mask/*`.
        deep: those in folders below it, too.

    Returns:
        Files that exist.

    Raises:
        InputError: there is no such folder.
    """
    return [path for path in _listed(folder, exclude, deep) if not is_dangling(path)]


def _listed(
    folder: Path,
    exclude: Sequence[str],
    deep: bool,
) -> list[Path]:
    """List the same with links to nothing."""
    if is_star(folder):
        return listing(folder).files
    root = pattern_root(folder)
    paths: Iterable[Path]
    if is_pattern(folder):
        paths = matching(str(folder))
    elif not folder.is_dir():
        raise InputError(f"{folder}: no such file or folder")
    else:
        paths = below(folder) if deep else folder.iterdir()
    files = []
    for path in paths:
        if in_clutter(path, root) or not is_one(path) or not is_picture(path):
            continue
        if not _excluded(path.relative_to(root), exclude):
            files.append(path)
    return sorted(files, key=_natural_order(root))


def _natural_order(root: Path) -> Callable[[Path], Key]:
    """Return the key that sorts paths below a folder naturally, folder by folder."""
    keys: dict[Path, Key] = {}  # of folders: very many files share few of them

    def place(path: Path) -> Key:
        folder = path.parent
        if folder not in keys:
            parents = reversed(path.relative_to(root).parents)
            keys[folder] = [natural(part) for part in parents]
        return [*keys[folder], natural(path)]

    return place


@dataclass(frozen=True)
class Listing:
    """The images of a folder, or of a pattern, to be trained on.

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
        """Leave some folders out.

        Args:
            folders: of those in `groups`.
            reason: in words.

        Returns:
            The others, with a line for each folder that is left out.
        """
        lines = []
        for folder in folders:
            count = len(self.groups[folder])
            name = folder.relative_to(self.root)
            lines.append(f"{name} ({count} pictures {reason})")
        groups = {}
        for folder, files in self.groups.items():
            if folder not in folders:
                groups[folder] = files
        return replace(self, groups=groups, dropped=(*self.dropped, *lines))


def listing(source: Path, exclude: Sequence[str] = ()) -> Listing:
    """List the images of a folder and those below it, or of a pattern.

    Previews and links to nothing are left out.

    Args:
        source: the folder or pattern; a star file lists the halves of its tomograms.
        exclude: see pictures.

    Returns:
        The files of each folder.

    Raises:
        InputError: there are no images.
    """
    if is_star(source):
        halves_of_rows = [[row.first, row.second] for row in halves_in(source)]
        return Listing(source, {source: list(itertools.chain.from_iterable(halves_of_rows))})
    root = pattern_root(source)
    groups: dict[Path, list[Path]] = {}
    dangling = []
    for path in _listed(source, exclude, deep=True):
        if is_dangling(path):
            dangling.append(path)
        else:
            groups.setdefault(path.parent, []).append(path)
    dropped: tuple[str, ...] = ()
    if dangling:
        names = [str(path.relative_to(root)) for path in dangling]
        links = some_of(names, MAX_LEFT_OUT_NAMES)
        dropped = (f"{links} (links to files that are not there)",)
    images = Listing(root, groups, dropped)
    previews = [folder for folder in groups if _holds_previews(folder.relative_to(root))]
    if previews and len(previews) < len(groups):
        images = images.without(previews, "in a folder of previews")
    if not images.groups:
        what = "matches no image" if is_pattern(source) else "holds no images"
        also = ""
        if dropped:
            also = f"; left out: {'; '.join(dropped)}"
        endings = ", ".join(sorted(PICTURES))
        raise InputError(f"{source}: {what} ({endings}){also}")
    return images


def _holds_previews(folder: Path) -> bool:
    """Return True if a folder, or one above it, is named as those of previews are."""
    return any(part.lower() in PREVIEWS for part in folder.parts)


def is_file(source: str | Path) -> bool:
    """Find out if a source is one file, or an array or frames of one.

    Args:
        source: as users type it.

    Returns:
        False of folders and patterns, and of star files, which name other files.
    """
    if is_pattern(source) or is_star(source):
        return False
    return is_one(Path(source))


def _excluded(path: Path, patterns: Sequence[str]) -> bool:
    """Return True if a path, or its last part, matches one of some patterns."""
    for pattern in patterns:
        if fnmatch.fnmatch(path.name, pattern) or fnmatch.fnmatch(path.as_posix(), pattern):
            return True
    return False


def key(path: Path, folder: Path) -> str:
    """Return the part of a file's path that partners in two folders have in common.

    Args:
        path: the file.
        folder: a folder above it, or the pattern that it matches.

    Returns:
        Its place below the folder without its ending, composed (NFC).
    """
    place = path.relative_to(pattern_root(folder))
    without_ending = place.with_name(stem(path))
    return composed(without_ending.as_posix())


def matched(
    first: Path,
    second: Path,
    exclude: Sequence[str] = (),
) -> list[tuple[Path, Path]]:
    """Match the images of two folders by name.

    Names match without their endings, or by the part that is left after what all names of a folder
    have in common: cell1_a, cell2_a with cell1_b, cell2_b.

    Args:
        first, second: folders or patterns.
        exclude: see pictures.

    Returns:
        Pairs, in the order of the first folder.

    Raises:
        InputError: a folder is missing or empty, or one of its images has no partner.
    """
    one = _files_by_key(first, exclude)
    other = _files_by_key(second, exclude)
    pairs = partners(list(one), list(other))
    if pairs:
        return [(one[name], other[partner]) for name, partner in pairs.items()]
    for files, others, folder in ((one, other, second), (other, one, first)):
        missing = [path for name, path in files.items() if name not in others]
        if missing:
            others_missing = len(missing) - 1
            more = f" (and {others_missing} more)" if others_missing else ""
            raise InputError(
                f"{missing[0]}{more}: has no partner of the same name in {folder};"
                " name partners alike, but for a part that all names of a folder share"
                " (cell1_a.tif, cell1_b.tif)"
            )
    raise AssertionError("equal names are partners")


def _files_by_key(folder: Path, exclude: Sequence[str]) -> dict[str, Path]:
    """Return the images of a folder by their keys."""
    if is_file(folder):
        raise InputError(f"{folder}: no such folder")
    files = listing(folder, exclude).files
    names = {key(path, folder): path for path in files}
    for path in files:
        namesake = names[key(path, folder)]
        if namesake != path:
            raise InputError(
                f"{path} and {namesake.name}: have one name;"
                f" {option('data.exclude')} leaves one out"
            )
    return names


def partners(first: Sequence[str], second: Sequence[str]) -> dict[str, str] | None:
    """Match names that are equal, or equal without what all names of a side have in common.

    Args:
        first, second: the names of both sides.

    Returns:
        The second name that belongs to each of the first; None where that is not clear.

    >>> partners(["cell1_a", "cell2_a"], ["cell1_b", "cell2_b"])
    {'cell1_a': 'cell1_b', 'cell2_a': 'cell2_b'}
    >>> partners(["1", "2"], ["1", "3"]) is None
    True
    """
    if len(first) == len(second) == 1:
        return {first[0]: second[0]}
    for bare in (_as_they_stand, _without_suffix, _without_both):
        one = bare(first)
        other = bare(second)
        ambiguous = len(one) < len(first) or len(other) < len(second)
        if ambiguous or set(one) != set(other):
            continue
        return {name: other[bare_name] for bare_name, name in one.items()}
    return None


def _common(names: Sequence[str]) -> str:
    """Return the beginning that all names have."""
    beginning = []
    for letters in zip(*names, strict=False):
        if len(set(letters)) > 1:
            break
        beginning.append(letters[0])
    return "".join(beginning)


def _as_they_stand(names: Sequence[str]) -> dict[str, str]:
    return {name: name for name in names}


def _without_suffix(names: Sequence[str]) -> dict[str, str]:
    """Return the names without the end that all of them have, but for digits."""
    backwards = [name[::-1] for name in names]
    end = _common(backwards)[::-1].lstrip("0123456789")
    return {name.removesuffix(end): name for name in names}


def _without_both(names: Sequence[str]) -> dict[str, str]:
    """Return the names without the beginning and the end that all of them have, but for digits."""
    start = _common(names).rstrip("0123456789")
    bare = {}
    for name, whole in _without_suffix(names).items():
        bare[name[len(start) :]] = whole
    return bare


def grouped(paths: Sequence[Path]) -> list[list[Path]] | None:
    """Group files of one folder by a last part of the name that each scene has: a_1, a_2, b_1, b_2.

    Args:
        paths: the files.

    Returns:
        The captures of each scene; None where there is no such part, or it may as well number
        different things: more parts than scenes, or over MAX_CAPTURES_BY_NAME.
    """
    groups: dict[str, dict[str, Path]] = {}
    for path in paths:
        match = re.fullmatch(r"(.+)[ _.-]([0-9]{1,2}|[A-Za-z])", stem(path))
        if not match:
            return None
        scene, part = match.groups()
        groups.setdefault(scene, {})[part] = path
    parts_of_each = [sorted(group) for group in groups.values()]
    parts = parts_of_each[0]
    if any(others != parts for others in parts_of_each):
        return None
    if not 2 <= len(parts) <= min(MAX_CAPTURES_BY_NAME, len(groups)):
        return None
    captures = []
    for group in groups.values():
        captures.append([group[part] for part in parts])
    return captures


_HALF = re.compile(
    r"(?:^|(?<=[ _.-]))"
    r"(?:(evn|even)|(odd)|half[ _-]?(?:map[ _-]?)?(?:([1a])|([2b]))|(?:(h1)|(h2)))"
    r"(?=[ _.-]|$)",
    re.IGNORECASE,
)


def half_of(name: str) -> tuple[str, int] | None:
    """Find out which half a name says that it is.

    Args:
        name: of a file or folder, without its ending.

    Returns:
        What both halves have in common, and 0 or 1; None: it is no half.

    >>> half_of("grid1_000_EVN"), half_of("run_half2_class001"), half_of("grid1_000")
    (('grid1_000:0', 0), ('run_class001:2', 1), None)
    """
    last = None
    for match in _HALF.finditer(name):
        last = match
    if last is None:
        return None
    kind = next(i for i, group in enumerate(last.groups()) if group)
    before = name[: last.start()]
    after = name[last.end() :]
    others = _bare(before + after)
    half = kind % 2
    return f"{others}:{kind - half}", half


def _bare(name: str) -> str:
    """Return a name without separators at its ends, one where there are several."""
    name = composed(name).strip(" _.-")
    return re.sub(r"[ _.-]{2,}", "_", name).lower()


def halves(paths: Sequence[Path]) -> tuple[list[list[Path]], list[Path]] | None:
    """Pair halves of things in one folder by their names (_EVN and _ODD, half1 and half2).

    Args:
        paths: the files.

    Returns:
        The pairs, and the other files, as their sums; None where the names say nothing of the kind.

    Raises:
        InputError: a half has no other half.
    """
    sides_of: dict[str, dict[int, Path]] = {}
    others = []
    for path in paths:
        named = half_of(stem(path))
        if named is None:
            others.append(path)
            continue
        thing, half = named
        sides_of.setdefault(thing, {})[half] = path
    pairs = []
    alone: list[Path] = []
    for sides in sides_of.values():
        if len(sides) == 2:
            pairs.append([sides[0], sides[1]])
        else:
            alone += sides.values()
    told_apart = 2 * len(pairs) + len(alone) + len(others)
    if not pairs or told_apart < len(paths):
        return None
    names = {thing.rpartition(":")[0] for thing in sides_of}
    other_names = [_bare(stem(path)) for path in others]
    short = any(thing.endswith(":4") for thing in sides_of)  # h1 and h2 may be wells of a plate
    if short and (alone or not names.issuperset(other_names)):
        return None
    strangers = [name for name in other_names if not _is_sum(name, names)]
    if max(len(alone), len(strangers)) > len(pairs):
        return None
    if alone:
        name = repr(alone[0].name)
        raise InputError(
            f"{alone[0]}: its other half is not there; {option('data.exclude', name)} leaves it out"
        )
    return pairs, others


def _is_sum(name: str, halves: set[str]) -> bool:
    """Return True if a name is that of two halves together, or begins so: grid1_000_DW."""
    beginnings = {name}
    for separator in re.finditer(r"[ _.-]", name):
        beginnings.add(name[: separator.start()])
    return not halves.isdisjoint(beginnings)
