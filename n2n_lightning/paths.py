"""Names of files as users type them (`~`, patterns, frames), and clutter in folders."""

import glob
import os
import re
import unicodedata
from pathlib import Path

from n2n_lightning.files import InputError

# Folders and files that other programs leave among images, in lower case.
CLUTTER = frozenset(
    (
        "@eadir",
        "__macosx",
        "lost+found",
        "$recycle.bin",
        "system volume information",
        "#recycle",
        "thumbs.db",
        "desktop.ini",
        "ehthumbs.db",
    )
)
# Endings of files that this program writes next to results: maps of outliers and of errors,
# certificates.
OWN_FILES = (".outliers.tif", ".error.tif", ".certificate.json")
# Folders of small copies of the images next to them.
PREVIEWS = frozenset(
    (
        "preview",
        "previews",
        "thumb",
        "thumbs",
        "thumbnail",
        "thumbnails",
        "icons",
        "quicklook",
        "snapshots",
    )
)
# START, START:STOP or START:STOP:STEP, as groups: START, the first colon, STOP, STEP
_SLICE = r"\s*(-?\d*)\s*(?:(:)\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?)?"
_CHOSEN_FRAMES = re.compile(rf"(.+)\[{_SLICE}\]", re.DOTALL)


def expand(text: str) -> str:
    """Replace a leading `~` or `~user` by the home folder, unless a file has the typed name.

    >>> expand("data/a"), expand("~") == str(Path.home())
    ('data/a', True)
    """
    if text.startswith("~") and not os.path.lexists(text):
        return os.path.expanduser(text)
    return text


def located(text: str, folder: Path) -> str:
    """Return a name that was typed in a folder for use from another one.

    Args:
        text: the name, with an array or frames behind it.
        folder: in which it was typed.

    Returns:
        An absolute path, or a path below `folder`.

    >>> located("~", Path("/a")) == str(Path.home()), located("/b/x.h5:y", Path("/a"))
    (True, '/b/x.h5:y')
    """
    text = expand(text)
    return text if os.path.isabs(text) else os.path.join(folder, text)


def is_clutter(name: str) -> bool:
    """Return True for hidden files, those of a NAS, of macOS, of Windows, and our own.

    >>> [is_clutter(name) for name in (".ipynb_checkpoints", "@eaDir", "._a.tif", "a.tif")]
    [True, True, True, False]
    """
    lower = name.lower()
    return name.startswith(".") or lower in CLUTTER or lower.endswith(OWN_FILES)


def in_clutter(path: Path, root: Path) -> bool:
    """Return True if a path, or a folder between it and `root`, is clutter.

    Args:
        path: in `root`.
        root: the folder; folders above it do not matter.

    Returns:
        True if any part of the path below `root` is clutter.
    """
    return any(is_clutter(part) for part in path.relative_to(root).parts if part != "..")


def is_pattern(text: str | Path) -> bool:
    """Return True for a pattern such as `tomo/*_EVN.mrc`, unless a file or folder has that name.

    >>> is_pattern("tomo/*_EVN.mrc"), is_pattern("tomo/a.mrc")
    (True, False)
    """
    magic = glob.has_magic(str(text)) and not os.path.lexists(text)
    return magic and split_frames(str(text))[1] is None


def pattern_root(text: str | Path) -> Path:
    """Return the folder that holds all matches of a pattern; a path that is no pattern as it is.

    Returns:
        The longest leading part without a wildcard; `.` if the first one has one.

    >>> pattern_root("tomo/*/a_*.mrc").as_posix(), pattern_root("*.tif").as_posix()
    ('tomo', '.')
    """
    if not is_pattern(text):
        return Path(text)
    literal: list[str] = []
    for part in Path(text).parent.parts:
        if glob.has_magic(part):
            break
        literal.append(part)
    return Path(*literal)


def matching(text: str) -> list[Path]:
    """Return the paths that match a pattern, sorted, without clutter.

    Args:
        text: the pattern; `**` matches folders at any depth.

    Returns:
        Files and folders.
    """
    root = pattern_root(text)
    paths = [Path(name) for name in glob.glob(text, recursive=True)]
    return sorted(path for path in paths if not in_clutter(path, root))


def composed(name: str) -> str:
    """Return a name with composed letters (Unicode NFC); macOS may write them decomposed.

    >>> composed("Pra\\u0308parat") == "Pr\\u00e4parat"
    True
    """
    return unicodedata.normalize("NFC", name)


def is_dangling(path: Path) -> bool:
    """Return True for a link to a missing file; git-annex leaves such links."""
    return path.is_symlink() and not path.exists()


def split_frames(text: str) -> tuple[str, slice | None]:
    """Split a file or folder from its chosen frames, in Python's slice syntax.

    `movie.tif[7]` is one frame, unless a file has the whole name.

    Args:
        text: as typed.

    Returns:
        The name, and the frames; None for all of them.

    Raises:
        InputError: the step is less than 1.

    >>> split_frames("movie.tif[10:50:2]"), split_frames("movie.tif")
    (('movie.tif', slice(10, 50, 2)), ('movie.tif', None))
    """
    if os.path.lexists(text):
        return text, None
    match = _CHOSEN_FRAMES.fullmatch(text)
    if not match:
        return text, None
    name, start, colon, *_ = match.groups()
    if not start and not colon:
        return text, None
    ends = [one.start() for one in re.finditer(":", name)]  # data.h5:run1/noisy[10:50]
    exists = any(os.path.exists(name[:end]) for end in (*ends, len(name)))
    # a pattern such as img[0-9].tif
    if not exists and (glob.has_magic(name) or colon is None):
        return text, None
    return name, parse_frames(text[len(name) :])


def parse_frames(text: str) -> slice:
    """Read a choice of frames: `10:50`, `::2`, `-20:`, `7`, with or without brackets.

    Args:
        text: as typed.

    Returns:
        The frames; of a single number a slice of one.

    Raises:
        InputError: the text is no choice of frames, or its step is less than 1.

    >>> parse_frames("10:50"), parse_frames("[::2]"), parse_frames("-1")
    (slice(10, 50, None), slice(None, None, 2), slice(-1, None, None))
    """
    inside = text.strip().removeprefix("[").removesuffix("]")
    match = re.fullmatch(_SLICE, inside)
    if not match or "-" in match.groups() or not (match[1] or match[2]):
        raise InputError(
            f"frames {text}: must be START:STOP or START:STOP:STEP, as 10:50, 0::2 or -20:,"
            " or one number"
        )
    start, stop, step = (int(part) if part else None for part in match.group(1, 3, 4))
    if match[2] is None:
        assert start is not None
        return slice(start, start + 1 or None)
    if step is not None and step < 1:
        raise InputError(f"frames {text}: the step must be 1 or more; frames stay in their order")
    return slice(start, stop, step)


def shown_frames(frames: slice) -> str:
    """Return a choice of frames as it is typed.

    >>> shown_frames(slice(10, 50)), shown_frames(slice(None, None, 2))
    ('10:50', '::2')
    """
    parts = ["" if part is None else str(part) for part in (frames.start, frames.stop)]
    if frames.step:
        parts.append(str(frames.step))
    return ":".join(parts)
