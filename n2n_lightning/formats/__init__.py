"""Reading and writing of image files.

`opened(path)` returns a file's values as arrays, mapped where its kind allows that;
`Picture.written` writes a file of the same kind, with everything but the values taken from the
first one: size, type, bit depth, channels, transparency and metadata stay. Training, scoring and
denoising read with it.
"""

import contextlib
import errno
import importlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from n2n_lightning.files import DiskFull, InputError, one_line, out_of_descriptors
from n2n_lightning.formats import converters, dicom_files
from n2n_lightning.formats.gzipped import Gzipped, is_gzipped
from n2n_lightning.formats.picture import TYPES, Packed, Picture, Values
from n2n_lightning.paths import is_clutter, is_dangling, parse_frames, shown_frames, split_frames

__all__ = [
    "BECOMES",
    "ENDINGS",
    "FOLDERS",
    "PICTURES",
    "TYPES",
    "Picture",
    "Values",
    "below",
    "ending",
    "is_one",
    "is_picture",
    "kind_of",
    "opened",
    "split",
    "stem",
]

# The extra of pip that installs the library of a kind.
EXTRAS = {
    "Pnm": "pnm",
    "Mrc": "mrc",
    "Nifti": "nifti",
    "Fits": "fits",
    "Zarr": "zarr",
    "Czi": "czi",
    "Nd2": "nd2",
    "Dicom": "dicom",
    "Video": "video",
}
# Kinds and their endings, in the order in which a message lists them. The module of the kind's
# name in lower case has its class; it is imported when the first file of the kind is opened.
_KIND_ENDINGS = (
    ("Png", ".png"),
    ("Jpeg", ".jpg .jpeg"),
    ("Tiff", ".tif .tiff"),
    ("Npy", ".npy"),
    ("Npz", ".npz"),
    ("Bmp", ".bmp"),
    ("Webp", ".webp"),
    ("Pnm", ".pgm .ppm .pnm .pam"),
    ("Mrc", ".mrc .map .rec .mrcs .st"),
    ("Nifti", ".nii .nii.gz"),
    ("Mrc", ".ali .preali .mrc.gz .map.gz .rec.gz .mrcs.gz .st.gz"),
    ("Fits", ".fits .fit .fts .fits.gz .fit.gz .fts.gz"),
    ("Zarr", ".zarr"),
    ("Czi", ".czi"),
    ("Nd2", ".nd2"),
    ("Ims", ".ims"),
    ("Dicom", " ".join(dicom_files.DICOM_ENDINGS)),
    ("Video", ".avi .mp4 .mov .mkv"),
    ("Hdf5", ".h5 .hdf5 .hdf"),
    ("Pt", ".pt .pth .pkl"),
)
ENDINGS = {ending: kind for kind, endings in _KIND_ENDINGS for ending in endings.split()}
_TWO_PARTS = tuple(name for name in ENDINGS if name.count(".") == 2)
# Endings of files that are only read, and the ending of the result.
BECOMES = dict.fromkeys((".czi", ".nd2", ".ims", ".avi", ".mp4", ".mov", ".mkv"), ".tif")
# Kinds that are gzipped under any name; Nifti reads .nii.gz itself.
_GZIPPED_KINDS = ("Mrc", "Fits", "Nifti")
# Endings of folders that are one picture; a folder with the files of a DICOM series is one, too.
FOLDERS = (".zarr",)
# Kinds with several arrays in a file, and endings of the others, which are images of a folder.
_SEVERAL = ("Npz", "Hdf5", "Pt")
PICTURES = {ending for ending, kind in ENDINGS.items() if kind not in _SEVERAL}
# Errors of a disk or a machine, which say nothing against the file.
_MACHINE_ERRORS = (
    errno.EIO,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ESTALE,
    errno.EACCES,
    errno.EPERM,
)
MAX_REASON = 120  # letters of a library's message that are shown
_NAMED_KINDS = ("Npz", "Hdf5", "Zarr", "Fits")
_NAMED = "|".join(re.escape(name) for name, kind in ENDINGS.items() if kind in _NAMED_KINDS)
_FRAMES_OF_PART = re.compile(r"(.*)(\[-?\d*:-?\d*(?::\d+)?\])", re.DOTALL)
_FILE_AND_PART = re.compile(rf"(.+(?:{_NAMED})):(.+)")


def ending(path: Path) -> str:
    """Return the ending of a file's name that states its kind.

    The `.ome` of `.ome.tif` belongs to neither ending nor stem.

    Returns:
        In lower case, with the dot; empty if there is none.

    >>> ending(Path("a.b.NII.gz")), ending(Path("scan.TIF"))
    ('.nii.gz', '.tif')
    >>> ending(Path("scan.ome.tif")), ending(Path("folder"))
    ('.tif', '')
    """
    name = path.name.lower()
    for two_parts in _TWO_PARTS:
        if name.endswith(two_parts):
            return two_parts
    return path.suffix.lower()


def stem(path: Path) -> str:
    """Return the name of a file without its ending, which captures of one scene share.

    >>> stem(Path("a/b.nii.gz")), stem(Path("cell1_1.ome.tif")), stem(Path("half.v2.map.gz"))
    ('b', 'cell1_1', 'half.v2')
    """
    bare = path.name[: len(path.name) - len(ending(path))]
    if len(bare) > 4 and bare.lower().endswith(".ome"):
        return bare[:-4]
    return bare


def kind_of(path: Path) -> str | None:
    """Return the kind of a file, or of a folder that is one picture.

    It is decided by the ending; DICOM also by the content.

    Returns:
        A value of ENDINGS, or None.

    >>> kind_of(Path("scan.ome.tif")), kind_of(Path("notes.txt"))
    ('Tiff', None)
    """
    kind = ENDINGS.get(ending(path))
    if path.is_dir():
        if ending(path) in FOLDERS:
            return kind
        return "Dicom" if dicom_files.is_series(path) else None
    if kind is None and path.is_file() and dicom_files.is_dicom(path):
        return "Dicom"
    return kind


def is_picture(path: Path) -> bool:
    """Tell images of a folder from other files.

    Returns:
        True for a file that may be an image; files with several arrays and folders of pictures are
        none.
    """
    return kind_of(path) not in (None, *_SEVERAL)


def is_one(path: Path) -> bool:
    """Tell single pictures from folders of pictures.

    Returns:
        True for a file, and for a folder that is one picture, as .zarr or a DICOM series.
    """
    return not path.is_dir() or kind_of(path) is not None


def below(folder: Path) -> Iterator[Path]:
    """Yield everything in a folder and in folders below it.

    Links to folders are followed, each folder once. Folders that are one picture are not searched.
    Files that programs leave among pictures (paths.is_clutter) are left out.

    Yields:
        Files, and folders that are one picture.
    """
    visited: set[Path] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_clutter(name)]
        resolved = Path(parent).resolve()
        if resolved in visited:
            folders.clear()
            continue
        visited.add(resolved)
        for name in files:
            if not is_clutter(name):
                yield Path(parent) / name
        pictures = [name for name in folders if is_one(Path(parent, name))]
        folders[:] = [name for name in folders if name not in pictures]
        for name in pictures:
            yield Path(parent) / name


def split(text: str) -> tuple[Path, str | None]:
    """Split typed text into a file and the named array in it, with the frames in brackets.

    Returns:
        The file, and the part as `opened` takes it; None if no array and no frames are named.

    >>> split("data.h5:run1/noisy")[1], split("scan.tif")[1], split("movie.tif[10:50]")[1]
    ('run1/noisy', None, '[10:50]')
    """
    text, frames = split_frames(text)
    bracket = f"[{shown_frames(frames)}]" if frames else ""
    if not Path(text).exists():
        match = _FILE_AND_PART.fullmatch(text)
        if match:
            return Path(match[1]), match[2] + bracket
    return Path(text), bracket or None


def opened(path: Path | str, part: str | None = None) -> Picture:
    """Open a file: its values, and how to write a file like it.

    Args:
        path: the file; as text it may name an array in it, `data.h5:noisy`.
        part: the name of an array, if `path` does not name it; `[10:50]` at its end chooses
            frames.

    Returns:
        A picture of the class of the file's kind.

    Raises:
        InputError: the file is missing, damaged, or of a kind that cannot be written as it was
            read.
    """
    if isinstance(path, str):
        path, named = split(path)
        part = part or named
    frames = _FRAMES_OF_PART.fullmatch(part or "")
    if frames:
        return _with_frames(path, frames[1] or None, frames[2])
    _check_exists(path)
    kind = _readable_kind(path)
    reader = _reader_of(kind, path)
    zipped = kind in _GZIPPED_KINDS and ending(path) != ".nii.gz"
    with _as_input_errors(path, reader.kind):
        if zipped and path.is_file() and is_gzipped(path):
            picture: Picture = Gzipped(path, part, reader)
        else:
            picture = reader(path, part)
    if picture.values and all(values.dtype.kind == "b" for values in picture.values):
        _make_mask(picture)
    for values in picture.values:
        if isinstance(values.stored, Packed):
            unpacked = partial(_unpack_checked, path, reader.kind, values.stored.unpacked)
            values.stored = replace(values.stored, unpacked=unpacked)
        _check_values(path, values)
    return picture


def _with_frames(path: Path, part: str | None, bracket: str) -> Picture:
    """Return the frames of a file that text as `[10:50]` chooses."""
    from n2n_lightning.formats.selected import Selected

    whole = opened(path, part)
    if whole.mask:
        raise InputError(f"{path}: is a mask of 1 bit, which is copied as a whole")
    with _as_input_errors(path, whole.kind):
        return Selected(whole, parse_frames(bracket))


def _check_exists(path: Path) -> None:
    """Raise InputError if there is no such file or folder."""
    if is_dangling(path):
        target = os.readlink(path)
        raise InputError(
            f"{path}: is a link to {target}, which is not there"
            " (git-annex: git annex get fetches it)"
        )
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")


def _readable_kind(path: Path) -> str:
    """Return the kind of a file.

    Raises:
        InputError: it is a folder of pictures, or of a kind that is not read; the message names
            what converts it.
    """
    kind = kind_of(path)
    if path.is_dir() and kind is None:
        raise InputError(f"{path}: is a folder, not a file")
    if path.suffix.lower() == ".rec":
        headers = [path.with_suffix(suffix) for suffix in (".par", ".PAR")]
        if any(header.exists() for header in headers):
            raise InputError(f"{path}: a Philips PAR/REC file is not read; {converters.NIFTI}")
    if kind is None:
        advice = converters.advice(path)
        if advice:
            raise InputError(f"{path}: is not read here; {advice}")
        raise InputError(f"{path}: is none of {', '.join(ENDINGS)}")
    return kind


def _reader_of(kind: str, path: Path) -> type[Picture]:
    """Import the class that reads a kind of file.

    Raises:
        InputError: its library is not installed.
    """
    try:
        module = importlib.import_module(f"n2n_lightning.formats.{kind.lower()}")
    except ModuleNotFoundError as error:
        if kind not in EXTRAS:
            raise
        raise InputError(
            f"{path}: needs {error.name}, which is not installed:"
            f" pip install 'n2n_lightning[{EXTRAS[kind]}]'"
        ) from None
    reader: type[Picture] = getattr(module, kind)
    return reader


def _make_mask(picture: Picture) -> None:
    """Turn a picture of truth values into a mask of 0 and 1."""
    picture.mask = True
    for values in picture.values:
        unpacked = partial(_as_bytes, values.stored)
        values.stored = Packed(values.shape, np.dtype(np.uint8), unpacked)


def _as_bytes(stored: np.ndarray | Packed) -> np.ndarray:
    """Return truth values as 0 and 1, uint8."""
    if isinstance(stored, Packed):
        stored = stored.unpacked()
    return stored.view(np.uint8)


def _check_values(path: Path, values: Values) -> None:
    """Raise InputError for types that are not read and for empty arrays."""
    if values.dtype.name not in TYPES:
        raise InputError(
            f"{path}: values of type {values.dtype}: must be one of {', '.join(TYPES)}"
        )
    if 0 in values.shape:
        raise InputError(f"{path}: holds no pixels, its shape is {values.shape}")


def _unpack_checked(path: Path, kind: str, unpacked: Callable[[], np.ndarray]) -> np.ndarray:
    """Unpack an array; damage raises InputError."""
    with _as_input_errors(path, kind):
        return unpacked()


@contextlib.contextmanager
def _as_input_errors(path: Path, kind: str) -> Iterator[None]:
    """Turn every exception in the block into an InputError that names the file.

    Each library, and each kind of damage, has exceptions of its own.
    """
    try:
        yield
    except Exception as error:
        raise InputError(_explanation(path, kind, error)) from error


def _explanation(path: Path, kind: str, error: Exception) -> str:
    """Return the line that explains why a file cannot be read."""
    if isinstance(error, InputError):
        message = str(error)
        return message if message.startswith(str(path)) else f"{path}: {message}"
    if isinstance(error, PermissionError | TimeoutError | InterruptedError | DiskFull):
        return f"{path}: cannot be read: {error.strerror or error}"
    if out_of_descriptors(error):
        return f"{path}: cannot be read, too many files are open; ulimit -n raises the limit"
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
        return f"{path}: cannot be read: {error.strerror}"
    reason = one_line(error, MAX_REASON)
    return f"{path}: damaged, or not the {kind} file that its name says ({reason})"
