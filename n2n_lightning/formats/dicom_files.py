"""Recognition of DICOM files and folders by their content: many have no ending."""

import os
from pathlib import Path

from n2n_lightning.files import natural

DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
PREAMBLE = 128  # bytes before the mark (PS3.10, 7.1)
MARK = b"DICM"


def is_dicom(path: Path) -> bool:
    """Return True if a file has the mark of DICOM (PS3.10, 7.1)."""
    try:
        with path.open("rb") as file:
            head = file.read(PREAMBLE + len(MARK))
    except OSError:
        return False
    return head[PREAMBLE:] == MARK


def slices_of(folder: Path) -> list[Path]:
    """List the DICOM files of a folder.

    DICOMDIR, which lists others, and hidden files are left out.

    Returns:
        Their paths in natural order.
    """
    slices: list[Path] = []
    for entry in os.scandir(folder):
        hidden = entry.name.startswith(".") or entry.name.upper() == "DICOMDIR"
        if entry.is_file() and not hidden and is_dicom(Path(folder, entry.name)):
            slices.append(Path(folder, entry.name))
    return sorted(slices, key=natural)


def is_series(folder: Path) -> bool:
    """Tell a folder with the files of a DICOM series from others.

    Returns:
        True if its first two files belong to one series.
    """
    candidates: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file() and _may_be_slice(Path(folder, entry.name)):
                candidates.append(Path(folder, entry.name))
    candidates.sort(key=natural)
    first = [path for path in candidates[:3] if path.name.upper() != "DICOMDIR"]
    pair = first[:2]
    if len(pair) < 2 or not all(is_dicom(path) for path in pair):
        return False
    return _same_series(pair)


def _may_be_slice(path: Path) -> bool:
    """Return True if the name of a file may be that of a DICOM slice."""
    if path.name.startswith("."):
        return False
    suffix = path.suffix
    return suffix.lower() in DICOM_ENDINGS or not suffix or suffix[1:].isdecimal()


def _same_series(paths: list[Path]) -> bool:
    """Return True if the headers of files name one series."""
    try:
        import pydicom
    except ModuleNotFoundError:
        return True  # opening it names the missing library
    tag = "SeriesInstanceUID"
    series: set[str] = set()
    try:
        for path in paths:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[tag])
            series.add(str(header.get(tag)))
    except Exception:  # a damaged file is named when it is opened
        return False
    return len(series) == 1
