"""Classification of the image HDUs of a FITS file: pictures, and their flags, errors and weights.

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

# Share of the pixels that flags may make missing: with more, the flags mean something else.
MAX_FLAGGED = 0.1
_FLAGS = """
    DQ PIXELDQ DQF DQMASK DATAQUAL DATAQUALITY QUAL QUALITY MASK PIXELMASK BPM BADPIX BADPIXEL
    BADPIXELS BADMASK BADPIXELMASK FLAG FLAGS FLG
"""
_OTHERS = """
    ERR ERROR ERRORS ERRS VAR VARIANCE STAT IVAR INVVAR STD STDDEV STDEV SIGMA SIG RMS UNC UNCERT
    UNCERTAINTY NOISE WHT WGT WEIGHT WEIGHTS WEIGHTMAP CTX CON CONTEXT TIME EXP EXPTIME EXPMAP
    EXPOSURE SAMP NSAMP COV COVERAGE GROUPDQ AREA WAVELENGTH D2IMARR WCSDVARR SIPWCS PATHLOSS SEG
    SEGM SEGMAP SEGMENTATION LABEL LABELS HITS NHITS PSF
"""
FLAGS = frozenset(_FLAGS.split())
OTHERS = FLAGS | frozenset(_OTHERS.split())
# Last words of names that mean the same after the name of a detector: CCD3.FLG, SCI_MASK
_SUFFIXES = "DQ MASK BPM FLG FLAGS ERR ERROR VAR VARIANCE IVAR RMS SIGMA UNC UNCERT WHT WEIGHT"
SUFFIXES = frozenset(_SUFFIXES.split())
# Flags that these instruments set on pixels with good values: those that their pipelines accept
# when they add images. HST, final_bits of AstroDrizzle: full-well saturation 256, warm 64, hot but
# corrected 16; blobs 512 of WFC3/IR. JWST: resample's good_bits, all but DO_NOT_USE (1) and
# NON_SCIENCE (512).
JWST_BAD = 1 | 512
HST_GOOD = {"ACS": 16 | 64 | 256, "WFC3": 16 | 64 | 256, "WFC3 IR": 64 | 512}
# planes of an LSST mask; DETECTED and others are information
LSST_BAD = ("BAD", "CR", "NO_DATA", "UNMASKEDNAN", "SAT")
ALL_BITS = -1

_good_bits: ContextVar[int | None] = ContextVar("dq_good", default=None)


@contextlib.contextmanager
def good_flags(bits: int | None) -> Iterator[None]:
    """Accept some data quality flags in all FITS files that are opened in the block.

    Args:
        bits: the sum of the bits; ALL_BITS for every bit, None for those of the instrument.
    """
    token = _good_bits.set(bits)
    try:
        yield
    finally:
        _good_bits.reset(token)


def parsed(text: str | int | None) -> int | None:
    """Parse the bits of `--dq-good`: `0`, `96`, `32+64`, `4,8`, `0x60`, `all` or `auto`.

    Args:
        text: what the person typed.

    Returns:
        The sum of the bits; ALL_BITS for `all`, None for `auto` and None.

    Raises:
        InputError: it is none of these.

    >>> [parsed(text) for text in ("4,8", "0x60", "all", "auto")]
    [12, 96, -1, None]
    """
    if text is None or str(text).lower() == "auto":
        return None
    if str(text).lower() == "all":
        return ALL_BITS
    total = 0
    for word in re.split(r"[+,|\s]+", str(text).strip()):
        try:
            bits = int(word, 0)
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
        name, version: EXTNAME without its version, in capitals, and EXTVER; PRIMARY if the first
            HDU has no name.
        shape: of its array, without axes of length 1.
        kind: its HDUCLAS2 (ESO), or empty.
    """

    number: int
    name: str
    version: int
    shape: tuple[int, ...]
    kind: str = ""

    @classmethod
    def of(cls, number: int, hdu: Any) -> "Plane":
        """Return the plane of an HDU.

        Args:
            number: of the HDU in the file.
            hdu: astropy's.

        Returns:
            Its name, version and shape.

        >>> from astropy.io import fits
        >>> plane = Plane.of(3, fits.ImageHDU(np.zeros((4, 5)), name="dq_2"))
        >>> plane.name, plane.version, plane.shape, plane.is_flags
        ('DQ', 2, (4, 5), True)
        """
        header = hdu.header
        name = str(header.get("EXTNAME", "")).strip().upper()
        if not name and number == 0:
            name = "PRIMARY"
        version = int(header.get("EXTVER", 1))
        if "EXTVER" not in header:
            numbered = re.fullmatch(r"(.*?)[ _.-]?(\d+)", name)
            if numbered and numbered[1] in OTHERS | {"SCI", "DATA", "IMAGE"}:
                name = numbered[1]
                version = int(numbered[2])
        shape = tuple(int(n) for n in hdu.shape if n != 1)
        kind = str(header.get("HDUCLAS2", "")).strip().upper()
        return cls(number, name, version, shape, kind)

    @property
    def words(self) -> tuple[str, str]:
        """The two parts of the name.

        Returns:
            The detector or picture that the name belongs to, or empty, and the kind of its values.

        >>> Plane(1, "CCD3.FLG", 1, (4, 5)).words, Plane(1, "DATA QUALITY", 1, (4, 5)).words
        (('CCD3', 'FLG'), ('', 'DATAQUALITY'))
        """
        *first, last = re.split(r"[ _.-]+", self.name)
        joined = "".join([*first, last])
        if first and joined not in OTHERS and last in SUFFIXES | {"SCI"}:
            return self.name[: -len(last) - 1], last
        return "", joined

    @property
    def is_flags(self) -> bool:
        """True if its values flag the bad pixels of a picture."""
        return self.words[1] in FLAGS or self.kind == "QUALITY"

    @property
    def is_picture(self) -> bool:
        """True if its name is not that of flags, errors or weights."""
        if self.words[1] in OTHERS or self.name.startswith(("VAR_", "ERR_")):
            return False
        return self.kind not in ("ERROR", "QUALITY")

    def called(self, part: str) -> bool:
        """Compare the name with what the person typed.

        Args:
            part: a number, a name, or name and version, `SCI,2`.

        Returns:
            True if `part` names it.
        """
        if part.strip().isdecimal():
            return int(part) == self.number
        name, _, version = part.upper().strip().partition(",")
        if version and version.strip() != str(self.version):
            return False
        return name.strip() == self.name

    def __str__(self) -> str:
        if self.name in ("", "PRIMARY"):
            return str(self.number)
        return f"{self.name},{self.version}"


def selected(planes: Sequence[Plane], part: str | None, file: str) -> list[Plane]:
    """Select the pictures of a file: all of them, or the named ones.

    Args:
        planes: of the file.
        part: the name of an HDU, or None.
        file: the name of the file, for messages.

    Returns:
        The pictures; none if there are no planes.

    Raises:
        InputError: no plane is selected.
    """
    pictures: list[Plane] = []
    for plane in planes:
        if plane.called(part) if part else plane.is_picture:
            pictures.append(plane)
    if pictures or not planes:
        return pictures
    names = ", ".join(f"{file}:{plane}" for plane in planes)
    if part:
        raise InputError(f"has no image {part!r}; name one: {names}")
    raise InputError(
        "holds flags, errors or weights alone, by the names of its HDUs; name one all the same:"
        f" {names}"
    )


def flags_of(plane: Plane, planes: Sequence[Plane], pictures: Sequence[Plane]) -> list[Plane]:
    """Return the planes that flag the pixels of a picture.

    They have its size, and its detector and version unless it is the only picture.

    Args:
        plane: the picture.
        planes: all planes of the file.
        pictures: those of them that are pictures.

    Returns:
        The flags; none if there are none, or it is not clear whose they are.
    """
    fitting: list[Plane] = []
    for other in planes:
        same_size = other.shape == plane.shape[-len(other.shape) :]
        if other.is_flags and other not in pictures and same_size:
            fitting.append(other)
    owners = ("", plane.name, plane.words[0] or plane.name)
    own: list[Plane] = []
    for other in fitting:
        if other.version == plane.version and other.words[0] in owners:
            own.append(other)
    if not own and len(pictures) == 1:
        return fitting
    return own


def bad(flags: np.ndarray, header: Any, primary: Any) -> np.ndarray:
    """Return the mask of the pixels that flags make missing.

    Args:
        flags: bits, or a mask of any type that is 0 where a pixel is good.
        header: of the HDU of the flags.
        primary: that of the file, which names telescope and instrument.

    Returns:
        bool, in the shape of the flags.
    """
    if flags.dtype.kind not in "iu":
        return np.asarray(flags != 0)
    good = _good_bits.get()
    if good is None:
        good = harmless_bits(header, primary)
    return np.asarray((flags.astype(np.int64) & ~good) != 0)


def harmless_bits(header: Any, primary: Any) -> int:
    """Return the bits of flags that a known instrument sets on good pixels.

    Args:
        header: of the HDU of the flags.
        primary: that of the file, which names telescope and instrument.

    Returns:
        The sum of the bits; 0 if the instrument is not known.
    """
    planes = {name[3:]: int(header[name]) for name in header if name.startswith("MP_")}
    if planes:  # LSST's masks name their bits
        bad_bits = 0
        for name in LSST_BAD:
            if name in planes:
                bad_bits |= 1 << planes[name]
        return ~bad_bits
    telescope = str(primary.get("TELESCOP", "")).strip().upper()
    if telescope == "JWST":
        return ~JWST_BAD
    if telescope == "HST":
        instrument = str(primary.get("INSTRUME", "")).strip().upper()
        detector = str(primary.get("DETECTOR", "")).strip().upper()
        return HST_GOOD.get(f"{instrument} {detector}", HST_GOOD.get(instrument, 0))
    return 0


def check_flagged_share(invalid: np.ndarray, plane: Plane, flags: Sequence[Plane]) -> None:
    """Refuse flags that leave too little of a picture.

    Args:
        invalid: mask of the missing pixels.
        plane: the picture, for messages.
        flags: the planes that make them missing, for messages.

    Raises:
        InputError: more than MAX_FLAGGED of the pixels are missing.
    """
    share = float(invalid.mean())
    if share > MAX_FLAGGED:
        names = " and ".join(str(plane) for plane in flags)
        raise InputError(
            f"{names} flags {share:.0%} of the pixels of {plane}; say which bits are harmless:"
            f" {option('data.dq_good', '4+8')} ({option('data.dq_good', 'all')}: every one)"
        )
