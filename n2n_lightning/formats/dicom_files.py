"""Which files and folders are DICOM, by their content: many have no ending."""

import os
from pathlib import Path

from n2n_lightning.files import natural

MAGIC, PLACE = b"DICM", 128  # bytes before it
ENDINGS = (".dcm", ".dicom", ".ima")


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM (PS3.10, 7.1)."""
    try:
        with path.open("rb") as file:
            return file.read(PLACE + len(MAGIC))[PLACE:] == MAGIC
    except OSError:
        return False


def slices_of(folder: Path) -> list[Path]:
    """The DICOM files that lie in a folder, in natural order; DICOMDIR, which lists others, is none."""
    files = [Path(folder, entry.name) for entry in os.scandir(folder) if entry.is_file()]
    shown = [p for p in files if not p.name.startswith(".") and p.name.upper() != "DICOMDIR"]
    return sorted((p for p in shown if is_dicom(p)), key=natural)


def is_series(folder: Path) -> bool:
    """Whether a folder holds the files of a DICOM series: its first two files are of one series."""
    with os.scandir(folder) as entries:
        files = [
            Path(folder, e.name) for e in entries if e.is_file() and not e.name.startswith(".")
        ]
    some = [
        p for p in files if p.suffix.lower() in ENDINGS or not p.suffix or p.suffix[1:].isdecimal()
    ]
    first = [p for p in sorted(some, key=natural)[:3] if p.name.upper() != "DICOMDIR"][:2]
    return len(first) == 2 and all(is_dicom(p) for p in first) and _same_series(first)


def _same_series(paths: list[Path]) -> bool:
    try:
        import pydicom
    except ModuleNotFoundError:
        return True  # what opens it says what is missing
    names = ["SeriesInstanceUID"]
    try:
        found = [pydicom.dcmread(p, stop_before_pixels=True, specific_tags=names) for p in paths]
    except Exception:  # a damaged file is named when it is opened
        return False
    return len({str(dataset.get("SeriesInstanceUID")) for dataset in found}) == 1
