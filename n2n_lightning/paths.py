"""What people type for files: `~`, patterns, frames of a movie; and what in folders is no picture of theirs."""

import glob
import os
import re
import unicodedata
from pathlib import Path

from n2n_lightning.files import InputError

# Folders and files that programs leave among pictures, in small letters.
CLUTTER = frozenset(
    [
        *(
            "@eadir",
            "__macosx",
            "lost+found",
            "$recycle.bin",
            "system volume information",
            "#recycle",
        ),
        *("thumbs.db", "desktop.ini", "ehthumbs.db"),
    ]
)
# Endings of what this program writes beside results: the map of outliers.
OWN_FILES = (".outliers.tif",)
# Folders of small copies of the pictures beside them.
PREVIEWS = frozenset(
    [
        "preview",
        "previews",
        "thumb",
        "thumbs",
        "thumbnail",
        "thumbnails",
        "icons",
        "quicklook",
        "snapshots",
    ]
)
_FRAMES = re.compile(r"(.+)\[\s*(-?\d*)\s*(?:(:)\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?)?\]", re.DOTALL)


def expand(text: str) -> str:
    """Replace a leading `~` or `~user` by the home folder, where no file has the name as it was typed.

    >>> expand("data/a"), expand("~") == str(Path.home())
    ('data/a', True)
    """
    return os.path.expanduser(text) if text.startswith("~") and not os.path.lexists(text) else text


def located(text: str, folder: Path) -> str:
    """A name as it was typed in a folder, for use from another one; with what follows it: an array, frames.

    >>> located("~", Path("/a")) == str(Path.home()), located("/b/x.h5:y", Path("/a"))
    (True, '/b/x.h5:y')
    """
    text = expand(text)
    return text if os.path.isabs(text) else os.path.join(folder, text)


def is_clutter(name: str) -> bool:
    """Tell whether a file or folder was left there by a program: hidden, of a NAS, of macOS, of Windows, our own.

    >>> is_clutter(".ipynb_checkpoints"), is_clutter("@eaDir"), is_clutter("._a.tif"), is_clutter("a.tif")
    (True, True, True, False)
    """
    return name.startswith(".") or name.lower() in CLUTTER or name.lower().endswith(OWN_FILES)


def in_clutter(path: Path, root: Path) -> bool:
    """Tell whether a path, or a folder between it and `root`, is clutter; what lies above `root` does not matter."""
    return any(is_clutter(part) for part in path.relative_to(root).parts if part != "..")


def is_pattern(text: str | Path) -> bool:
    """Tell whether a name is a pattern such as `tomo/*_EVN.mrc`; a file or folder of that very name is none.

    >>> is_pattern("tomo/*_EVN.mrc"), is_pattern("tomo/a.mrc")
    (True, False)
    """
    magic = glob.has_magic(str(text)) and not os.path.lexists(text)
    return magic and split_frames(str(text))[1] is None


def pattern_root(text: str | Path) -> Path:
    """The folder that all files matching a pattern lie in; a path without a pattern is itself.

    >>> pattern_root("tomo/*/a_*.mrc").as_posix(), pattern_root("*.tif").as_posix()
    ('tomo', '.')
    """
    if not is_pattern(text):
        return Path(text)
    kept: list[str] = []
    for part in Path(text).parent.parts:
        if glob.has_magic(part):
            break
        kept.append(part)
    return Path(*kept)


def matching(text: str) -> list[Path]:
    """The paths that match a pattern (`**` reaches into folders), clutter left out, in the order of their names."""
    root = pattern_root(text)
    found = (Path(name) for name in glob.glob(text, recursive=True))
    return sorted(path for path in found if not in_clutter(path, root))


def composed(name: str) -> str:
    """A name with composed letters (Unicode NFC), as partners are compared: a Mac may write them decomposed.

    >>> composed("Pra\\u0308parat") == "Pr\\u00e4parat"
    True
    """
    return unicodedata.normalize("NFC", name)


def is_dangling(path: Path) -> bool:
    """Tell whether a path is a link to a file that is not there, as git-annex leaves them."""
    return path.is_symlink() and not path.exists()


def split_frames(text: str) -> tuple[str, slice | None]:
    """Separate a file or folder from the frames chosen of it, in Python's slice syntax.

    A file of the whole name wins. `movie.tif[7]` is the one frame.

    Args:
        text: as typed.

    Returns:
        The name, and the frames; None: all of them.

    Raises:
        InputError: the step is not larger than 0.

    >>> split_frames("movie.tif[10:50:2]"), split_frames("movie.tif")
    (('movie.tif', slice(10, 50, 2)), ('movie.tif', None))
    """
    match = None if os.path.lexists(text) else _FRAMES.fullmatch(text)
    if not match or not (match[2] or match[3]):
        return text, None
    colons = [found.start() for found in re.finditer(":", match[1])]  # data.h5:run1/noisy[10:50]
    there = any(os.path.exists(match[1][:end]) for end in (*colons, len(match[1])))
    # a pattern such as img[0-9].tif
    if not there and (glob.has_magic(match[1]) or match[3] is None):
        return text, None
    return match[1], parse_frames(text[len(match[1]) :])


def parse_frames(text: str) -> slice:
    """A choice of frames, `10:50`, `::2`, `-20:`, `7`, with or without brackets.

    Raises:
        InputError: it is none, or its step is not larger than 0.

    >>> parse_frames("10:50"), parse_frames("[::2]"), parse_frames("-1")
    (slice(10, 50, None), slice(None, None, 2), slice(-1, None, None))
    """
    inside = text.strip().removeprefix("[").removesuffix("]")
    match = re.fullmatch(r"\s*(-?\d*)\s*(?:(:)\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?)?", inside)
    if not match or "-" in (match[1], match[3], match[4]) or not (match[1] or match[2]):
        raise InputError(
            f"frames {text}: must be START:STOP or START:STOP:STEP, as 10:50, 0::2 or -20:, or one number"
        )
    start, stop, step = (int(part) if part else None for part in (match[1], match[3], match[4]))
    if match[2] is None:
        assert start is not None
        return slice(start, start + 1 or None)
    if step is not None and step < 1:
        raise InputError(f"frames {text}: the step must be 1 or more; frames stay in their order")
    return slice(start, stop, step)


def shown_frames(frames: slice) -> str:
    """A choice of frames as it is typed.

    >>> shown_frames(slice(10, 50)), shown_frames(slice(None, None, 2))
    ('10:50', '::2')
    """
    start, stop, step = (
        "" if part is None else str(part) for part in (frames.start, frames.stop, frames.step)
    )
    return f"{start}:{stop}" + (f":{step}" if step else "")
