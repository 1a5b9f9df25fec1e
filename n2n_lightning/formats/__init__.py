"""Files that come out as they went in: same size, type, bit depth, channels, transparency and metadata.

`opened(path)` gives a file's values as arrays, mapped where its kind allows that; `Picture.written`
makes a file of the same kind, with everything that is not a value taken from the first one.
Training, scoring and denoising read with it.
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

from n2n_lightning.files import DiskFull, InputError, out_of_descriptors
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

# Kinds whose library is an extra, by what pip installs it; and endings of files that are only read,
# with the result's.
EXTRAS = {
    "Mrc": "mrc",
    "Nifti": "nifti",
    "Fits": "fits",
    "Zarr": "zarr",
    "Czi": "czi",
    "Nd2": "nd2",
}
EXTRAS |= {"Dicom": "dicom", "Video": "video"}
BECOMES = dict.fromkeys((".czi", ".nd2", ".ims", ".avi", ".mp4", ".mov", ".mkv"), ".tif")
# Which module reads which ending; it is imported when a file of this kind is met, and has the class
# of the same name.
ENDINGS = {
    **{
        ".png": "Png",
        ".jpg": "Jpeg",
        ".jpeg": "Jpeg",
        ".tif": "Tiff",
        ".tiff": "Tiff",
        ".npy": "Npy",
        ".npz": "Npz",
    },
    **{".bmp": "Bmp", ".webp": "Webp", ".pgm": "Pnm", ".ppm": "Pnm", ".pnm": "Pnm", ".pam": "Pnm"},
    **{
        ".mrc": "Mrc",
        ".map": "Mrc",
        ".rec": "Mrc",
        ".mrcs": "Mrc",
        ".st": "Mrc",
        ".nii": "Nifti",
        ".nii.gz": "Nifti",
    },
    **{".ali": "Mrc", ".preali": "Mrc"},
    **dict.fromkeys((".mrc.gz", ".map.gz", ".rec.gz", ".mrcs.gz", ".st.gz"), "Mrc"),
    **dict.fromkeys((".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz"), "Fits"),
    **{".zarr": "Zarr", ".czi": "Czi", ".nd2": "Nd2", ".ims": "Ims"},
    **dict.fromkeys(dicom_files.ENDINGS, "Dicom"),
    **dict.fromkeys((".avi", ".mp4", ".mov", ".mkv"), "Video"),
    **{".h5": "Hdf5", ".hdf5": "Hdf5", ".hdf": "Hdf5", ".pt": "Pt", ".pth": "Pt", ".pkl": "Pt"},
}
DOUBLE = tuple(name for name in ENDINGS if name.count(".") == 2)
# kinds that people gzip, whatever the name says; Nifti reads .nii.gz itself
ZIPPED = ("Mrc", "Fits", "Nifti")
# Folders that are one picture, by their ending; and those with the files of a DICOM series.
FOLDERS = (".zarr",)
# Those that may hold one image: files of a folder.
SEVERAL = ("Npz", "Hdf5", "Pt")
PICTURES = {ending for ending, kind in ENDINGS.items() if kind not in SEVERAL}
# Errors of a disk or a machine, which say nothing against the file.
BROKEN = (
    errno.EIO,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ESTALE,
    errno.EACCES,
    errno.EPERM,
)
_NAMED = "|".join(
    re.escape(name) for name, kind in ENDINGS.items() if kind in ("Npz", "Hdf5", "Zarr", "Fits")
)
_CHOSEN = re.compile(r"(.*)(\[-?\d*:-?\d*(?::\d+)?\])", re.DOTALL)
_PART = re.compile(rf"(.+(?:{_NAMED})):(.+)")


def ending(path: Path) -> str:
    """The ending of a file's name that says its kind. The `.ome` of `.ome.tif` belongs to neither ending nor stem.

    >>> ending(Path("a.b.NII.gz")), ending(Path("scan.TIF")), ending(Path("scan.ome.tif")), ending(Path("folder"))
    ('.nii.gz', '.tif', '.tif', '')
    """
    name = path.name.lower()
    return next((double for double in DOUBLE if name.endswith(double)), path.suffix.lower())


def stem(path: Path) -> str:
    """The name of a file without its ending: what captures of one scene have in common.

    >>> stem(Path("a/b.nii.gz")), stem(Path("cell1_1.ome.tif")), stem(Path("half.v2.map.gz"))
    ('b', 'cell1_1', 'half.v2')
    """
    bare = path.name[: len(path.name) - len(ending(path))]
    return bare[:-4] if bare.lower().endswith(".ome") and len(bare) > 4 else bare


def kind_of(path: Path) -> str | None:
    """The kind of a file, or of a folder that is one picture, by its ending, or as DICOM by its content.

    >>> kind_of(Path("scan.ome.tif")), kind_of(Path("notes.txt"))
    ('Tiff', None)
    """
    found = ENDINGS.get(ending(path))
    if path.is_dir():
        return (
            found if ending(path) in FOLDERS else "Dicom" if dicom_files.is_series(path) else None
        )
    return "Dicom" if found is None and path.is_file() and dicom_files.is_dicom(path) else found


def is_picture(path: Path) -> bool:
    """Whether a file of a folder may hold an image: not files with several arrays, nor folders of pictures."""
    return kind_of(path) not in (None, *SEVERAL)


def is_one(path: Path) -> bool:
    """Whether a path is no folder of pictures: a file, or a folder that is one picture, as .zarr or a DICOM series."""
    return not path.is_dir() or kind_of(path) is not None


def below(folder: Path) -> Iterator[Path]:
    """Everything in a folder and in folders below it; links to folders are followed, each folder once.

    Folders that are one picture are not looked into. What programs leave among pictures
    (paths.is_clutter) is left out.
    """
    seen: set[Path] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_clutter(name)]
        if (place := Path(here).resolve()) in seen:
            folders.clear()
            continue
        seen.add(place)
        yield from (Path(here) / name for name in files if not is_clutter(name))
        whole = [name for name in folders if is_one(Path(here, name))]
        folders[:] = [name for name in folders if name not in whole]
        yield from (Path(here) / name for name in whole)


def split(text: str) -> tuple[Path, str | None]:
    """A file and the array in it that was named, with the frames that were chosen in brackets.

    >>> split("data.h5:run1/noisy")[1], split("scan.tif")[1], split("movie.tif[10:50]")[1]
    ('run1/noisy', None, '[10:50]')
    """
    text, frames = split_frames(text)
    chosen = f"[{shown_frames(frames)}]" if frames else ""
    match = None if Path(text).exists() else _PART.fullmatch(text)
    return (Path(match[1]), match[2] + chosen) if match else (Path(text), chosen or None)


def opened(path: Path | str, part: str | None = None) -> Picture:
    """The values of a file, and how to write a file like it.

    Args:
        path: the file; as text it may name an array in it, `data.h5:noisy`.
        part: the name of an array, where `path` does not say it; `[10:50]` at its end chooses
            frames.

    Raises:
        InputError: the file is missing, damaged, or of a kind that cannot come out as it went in.
    """
    if isinstance(path, str):
        path, named = split(path)
        part = part or named
    if part and (match := _CHOSEN.fullmatch(part)):
        from n2n_lightning.formats.selected import Selected

        whole = opened(path, match[1] or None)
        if whole.mask:
            raise InputError(f"{path}: is a mask of 1 bit, which is copied as a whole")
        with _explained(path, whole.kind):
            return Selected(whole, parse_frames(match[2]))
    if is_dangling(path):
        away = os.readlink(path)
        raise InputError(
            f"{path}: is a link to {away}, which is not there (git-annex: git annex get fetches it)"
        )
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    kind = _readable_kind(path)
    try:
        reader: type[Picture] = getattr(
            importlib.import_module(f"n2n_lightning.formats.{kind.lower()}"), kind
        )
    except ModuleNotFoundError as error:
        if kind not in EXTRAS:
            raise
        raise InputError(
            f"{path}: needs {error.name}, which is not installed: pip install 'n2n_lightning[{EXTRAS[kind]}]'"
        ) from None
    with _explained(path, reader.kind):
        if kind in ZIPPED and ending(path) != ".nii.gz" and path.is_file() and is_gzipped(path):
            picture: Picture = Gzipped(path, part, reader)
        else:
            picture = reader(path, part)
    if picture.values and all(values.dtype.kind == "b" for values in picture.values):
        picture.mask = True
        for values in picture.values:
            values.stored = Packed(
                values.shape, np.dtype(np.uint8), partial(_whole_numbers, values.stored)
            )
    for values in picture.values:
        if isinstance(values.stored, Packed):
            values.stored = replace(
                values.stored,
                unpacked=partial(_unpacked, path, reader.kind, values.stored.unpacked),
            )
        if values.dtype.name not in TYPES:
            raise InputError(
                f"{path}: values of type {values.dtype}: must be one of {', '.join(TYPES)}"
            )
        if 0 in values.shape:
            raise InputError(f"{path}: holds no pixels, its shape is {values.shape}")
    return picture


def _readable_kind(path: Path) -> str:
    """The kind of a file.

    Raises:
        InputError: it is a folder of pictures, or of a kind that is not read; the message names
            what converts it.
    """
    kind = kind_of(path)
    if path.is_dir() and kind is None:
        raise InputError(f"{path}: is a folder, not a file")
    if path.suffix.lower() == ".rec" and any(
        path.with_suffix(s).exists() for s in (".par", ".PAR")
    ):
        raise InputError(f"{path}: a Philips PAR/REC file is not read; {converters.NIFTI}")
    if kind is None:
        what = converters.advice(path)
        raise InputError(
            f"{path}: is not read here; {what}"
            if what
            else f"{path}: is none of {', '.join(ENDINGS)}"
        )
    return kind


@contextlib.contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    """Makes an InputError of whatever is raised."""
    try:
        yield
    except InputError as error:
        raise InputError(
            str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
        ) from error
    except (PermissionError, TimeoutError, InterruptedError, DiskFull) as error:
        raise InputError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    except Exception as error:  # every library and every kind of damage has an exception of its own
        if out_of_descriptors(error):
            raise InputError(
                f"{path}: cannot be read, too many files are open; ulimit -n raises the limit"
            ) from error
        if isinstance(error, OSError) and error.errno in BROKEN:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{path}: damaged, or not the {kind} file that its name says ({reason})"
        ) from error


def _whole_numbers(stored: np.ndarray | Packed) -> np.ndarray:
    """Truth values as 0 and 1."""
    found = stored.unpacked() if isinstance(stored, Packed) else stored
    return found.view(np.uint8)


def _unpacked(path: Path, kind: str, unpacked: Callable[[], np.ndarray]) -> np.ndarray:
    with _explained(path, kind):
        return unpacked()
