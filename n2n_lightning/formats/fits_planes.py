"""Which image HDUs of a FITS file are pictures, which are flags or errors of them, and which pixels flags make missing.

Names are those of HST and JWST (SCI, ERR, DQ), ccdproc (MASK, UNCERT), LSST (IMAGE, MASK,
VARIANCE), drizzled images (WHT, CTX), MUSE (DATA, STAT, DQ) and the standard of ESO's pipelines
(HDUCLAS2).
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from n2n_lightning.files import InputError, option

MOST = 0.1  # share of the pixels that flags may make missing
_FLAGS = """
    DQ PIXELDQ DQF DQMASK DATAQUAL DATAQUALITY QUAL QUALITY MASK PIXELMASK BPM BADPIX BADPIXEL BADPIXELS BADMASK
    BADPIXELMASK FLAG FLAGS FLG
"""
_OTHERS = """
    ERR ERROR ERRORS ERRS VAR VARIANCE STAT IVAR INVVAR STD STDDEV STDEV SIGMA SIG RMS UNC UNCERT UNCERTAINTY NOISE
    WHT WGT WEIGHT WEIGHTS WEIGHTMAP CTX CON CONTEXT TIME EXP EXPTIME EXPMAP EXPOSURE SAMP NSAMP COV COVERAGE GROUPDQ
    AREA WAVELENGTH D2IMARR WCSDVARR SIPWCS PATHLOSS SEG SEGM SEGMAP SEGMENTATION LABEL LABELS HITS NHITS PSF
"""
FLAGS = frozenset(_FLAGS.split())
OTHERS = FLAGS | frozenset(_OTHERS.split())
# Last words of names that say the same after the name of a detector: CCD3.FLG, SCI_MASK
_SUFFIXES = "DQ MASK BPM FLG FLAGS ERR ERROR VAR VARIANCE IVAR RMS SIGMA UNC UNCERT WHT WEIGHT"
SUFFIXES = frozenset(_SUFFIXES.split())
# Flags that these instruments set on pixels whose values are good: what their pipelines accept when
# they add images. HST, final_bits of AstroDrizzle: full-well saturation 256, warm 64, hot but
# corrected 16; blobs 512 of WFC3/IR. JWST: resample's good_bits, all but DO_NOT_USE (1) and
# NON_SCIENCE (512).
JWST_BAD = 1 | 512
HST_GOOD = {"ACS": 16 | 64 | 256, "WFC3": 16 | 64 | 256, "WFC3 IR": 64 | 512}
# planes of an LSST mask; DETECTED and others are information
LSST_BAD = ("BAD", "CR", "NO_DATA", "UNMASKEDNAN", "SAT")
ALL = -1

_asked: ContextVar[int | None] = ContextVar("dq_good", default=None)


@contextlib.contextmanager
def good_flags(bits: int | None) -> Iterator[None]:
    """Within the block, FITS files are opened with these bits of data quality flags taken for good.

    Args:
        bits: the sum of the bits; ALL for every bit, None for what is known of the instrument.
    """
    token = _asked.set(bits)
    try:
        yield
    finally:
        _asked.reset(token)


def parsed(text: str | int | None) -> int | None:
    """The sum of the bits that are named: `0`, `96`, `32+64`, `4,8`, `0x60` or `all`; `auto` and None are None.

    Raises:
        InputError: it is none of these.

    >>> [parsed(text) for text in ("4,8", "0x60", "all", "auto")]
    [12, 96, -1, None]
    """
    if text is None or str(text).lower() == "auto":
        return None
    if str(text).lower() == "all":
        return ALL
    total = 0
    for part in re.split(r"[+,|\s]+", str(text).strip()):
        try:
            bits = int(part, 0)
        except ValueError:
            bits = -1
        if bits < 0:
            raise InputError(
                "data.dq_good",
                text,
                "must be bits as 96, 32+64 or 0x60, or all (no flag counts), or auto",
            )
        total |= bits
    return total


@dataclass(frozen=True)
class Plane:
    """An image HDU.

    Attributes:
        number: of the HDU in the file.
        name, version: EXTNAME without its version, in capitals, and EXTVER; PRIMARY where the first
            HDU has no name.
        shape: of its array, without axes of length 1.
        kind: what ESO's HDUCLAS2 says of it, or empty.
    """

    number: int
    name: str
    version: int
    shape: tuple[int, ...]
    kind: str = ""

    @classmethod
    def of(cls, number: int, hdu: Any) -> "Plane":
        """That of an HDU of astropy's.

        >>> from astropy.io import fits
        >>> plane = Plane.of(3, fits.ImageHDU(np.zeros((4, 5)), name="dq_2"))
        >>> plane.name, plane.version, plane.shape, plane.is_flags
        ('DQ', 2, (4, 5), True)
        """
        header = hdu.header
        name = str(header.get("EXTNAME", "")).strip().upper() or ("PRIMARY" if number == 0 else "")
        version = int(header.get("EXTVER", 1))
        bare = re.fullmatch(r"(.*?)[ _.-]?(\d+)", name)
        if bare and "EXTVER" not in header and bare[1] in OTHERS | {"SCI", "DATA", "IMAGE"}:
            name, version = bare[1], int(bare[2])
        shape = tuple(int(n) for n in hdu.shape if n != 1)
        return cls(number, name, version, shape, str(header.get("HDUCLAS2", "")).strip().upper())

    @property
    def words(self) -> tuple[str, str]:
        """The detector or picture that the name belongs to, or empty, and the part that says what the values are.

        >>> Plane(1, "CCD3.FLG", 1, (4, 5)).words, Plane(1, "DATA QUALITY", 1, (4, 5)).words
        (('CCD3', 'FLG'), ('', 'DATAQUALITY'))
        """
        *first, last = re.split(r"[ _.-]+", self.name)
        whole = "".join([*first, last])
        if first and whole not in OTHERS and last in SUFFIXES | {"SCI"}:
            return self.name[: -len(last) - 1], last
        return "", whole

    @property
    def is_flags(self) -> bool:
        """Whether its values say which pixels of a picture are bad."""
        return self.words[1] in FLAGS or self.kind == "QUALITY"

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture, as far as its name says it."""
        beside = (
            self.words[1] in OTHERS
            or self.name.startswith(("VAR_", "ERR_"))
            or self.kind in ("ERROR", "QUALITY")
        )
        return not beside

    def called(self, part: str) -> bool:
        """Whether `part` names it: its number, its name, or name and version, `SCI,2`."""
        name, _, version = part.upper().strip().partition(",")
        if part.strip().isdecimal():
            return int(part) == self.number
        return name.strip() == self.name and (not version or version.strip() == str(self.version))

    def __str__(self) -> str:
        return (
            f"{self.name},{self.version}" if self.name not in ("", "PRIMARY") else str(self.number)
        )


def selected(planes: Sequence[Plane], part: str | None, file: str) -> list[Plane]:
    """The pictures of a file: all of them, or those that are named.

    Raises:
        InputError: there is none.
    """
    found = [plane for plane in planes if (plane.called(part) if part else plane.is_picture)]
    if found or not planes:
        return found
    names = ", ".join(f"{file}:{plane}" for plane in planes)
    if part:
        raise InputError(f"has no image {part!r}; name one: {names}")
    raise InputError(
        "holds flags, errors or weights alone, by the names of its HDUs; name one all the same:"
        f" {names}"
    )


def flags_of(plane: Plane, planes: Sequence[Plane], pictures: Sequence[Plane]) -> list[Plane]:
    """The planes whose flags are about a picture: of its detector and version, or the only ones; and of its size."""
    fitting = [
        p
        for p in planes
        if p.is_flags and p not in pictures and p.shape == plane.shape[-len(p.shape) :]
    ]
    owners = ("", plane.name, plane.words[0] or plane.name)
    same = [p for p in fitting if p.version == plane.version and p.words[0] in owners]
    return same or (fitting if len(pictures) == 1 else [])


def bad(flags: np.ndarray, header: Any, primary: Any) -> np.ndarray:
    """Which pixels flags make missing, bool.

    Args:
        flags: bits, or a mask of any type that is 0 where a pixel is good.
        header: of the HDU of the flags.
        primary: that of the file, which names telescope and instrument.
    """
    if flags.dtype.kind not in "iu":
        return np.asarray(flags != 0)
    good = _asked.get()
    good = known(header, primary) if good is None else good
    return np.asarray((flags.astype(np.int64) & ~good) != 0)


def known(header: Any, primary: Any) -> int:
    """The bits that mean, by what is known of the instrument, that a pixel is good nonetheless."""
    planes = {name[3:]: int(header[name]) for name in header if name.startswith("MP_")}
    if planes:  # LSST's masks name their bits
        return ~sum(1 << bit for name, bit in planes.items() if name in LSST_BAD)
    telescope = str(primary.get("TELESCOP", "")).strip().upper()
    instrument = str(primary.get("INSTRUME", "")).strip().upper()
    if telescope == "JWST":
        return ~JWST_BAD
    if telescope == "HST":
        detector = str(primary.get("DETECTOR", "")).strip().upper()
        return HST_GOOD.get(f"{instrument} {detector}", HST_GOOD.get(instrument, 0))
    return 0


def checked(invalid: np.ndarray, plane: Plane, flags: Sequence[Plane]) -> np.ndarray:
    """The mask, once it is known that it leaves a picture.

    Raises:
        InputError: it makes more than MOST of the pixels missing.
    """
    share = float(invalid.mean())
    if share > MOST:
        names = " and ".join(str(f) for f in flags)
        raise InputError(
            f"{names} flags {share:.0%} of the pixels of {plane}; say which bits are harmless:"
            f" {option('data.dq_good', '4+8')} ({option('data.dq_good', 'all')}: every one)"
        )
    return invalid
