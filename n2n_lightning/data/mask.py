"""The shape of a blind spot: the pixels that are hidden around each that is learnt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from n2n_lightning.files import InputError

Offset = tuple[int, int, int]  # planes (or frames), rows and columns from the middle
HIDDEN_PIXEL: Offset = (0, 0, 0)
HIDDEN = "x"
SHOWN = "."
WHAT_MASKS_ARE = (
    "must be height and width, or planes (of a movie: frames), height and width, odd numbers:"
    " [1,9] or [3,1,1]; or a drawing of odd sides with x in the middle, rows between / and planes"
    " between //: .x./xxx/.x."
)


@dataclass(frozen=True)
class Mask:
    """Offsets of the pixels that are hidden around one that is learnt, itself among them.

    Attributes:
        offsets: from the pixel that is learnt, in planes of a volume or frames of a movie, rows and
            columns.

    >>> Mask.of("[1,3]") == Mask.of([1, 3]) == Mask.of("xxx")
    True
    >>> Mask.of("...../.xxx./xxxxx/.xxx./.....").text
    '.xxx./xxxxx/.xxx.'
    >>> Mask.of("x//.x./xxx/.x.//x").sides
    (3, 3, 3)
    """

    offsets: frozenset[Offset] = frozenset({HIDDEN_PIXEL})

    @classmethod
    def of(cls, value: Any) -> "Mask":
        """Return the mask that the option data.mask states.

        Args:
            value: sides of a rectangle, [height, width] or [planes, height, width]; the same as
                text; or a drawing, in which planes and rows may be of different lengths: their
                middles lie on one another.

        Raises:
            InputError: it is none of these.
        """
        sides = _sides(value)
        if sides is not None:
            planes, rows, columns = map(_centred, sides)
            return cls(frozenset(product(planes, rows, columns)))
        if not isinstance(value, str):
            raise InputError("data.mask", _listed(value), WHAT_MASKS_ARE)
        offsets = _offsets_drawn(value)
        if offsets is None or HIDDEN_PIXEL not in offsets:
            raise InputError("data.mask", value, WHAT_MASKS_ARE)
        return cls(frozenset(offsets))

    @classmethod
    def around(cls, offsets: Iterable[Offset]) -> "Mask":
        """Return the mask of some offsets, of their opposites, and of the middle."""
        hidden = {HIDDEN_PIXEL}
        for plane, row, column in offsets:
            hidden.add((plane, row, column))
            hidden.add((-plane, -row, -column))
        return cls(frozenset(hidden))

    @classmethod
    def flat(cls, offsets: Iterable[tuple[int, int]]) -> "Mask":
        """Return the mask of some offsets in rows and columns, as they are."""
        hidden = set()
        for row, column in offsets:
            hidden.add((0, row, column))
        return cls(frozenset(hidden))

    @cached_property
    def sides(self) -> tuple[int, int, int]:
        """Planes, height and width of the box around the mask, odd numbers."""
        planes, height, width = (
            2 * max(map(abs, axis)) + 1 for axis in zip(*self.offsets, strict=True)
        )
        return planes, height, width

    @property
    def pixels(self) -> int:
        """Pixels that are hidden in the plane of the one that is learnt."""
        return len(self.plane(0))

    @property
    def single(self) -> bool:
        """True if nothing is hidden around the pixel that is learnt."""
        return len(self.offsets) == 1

    @property
    def along_line(self) -> bool:
        """True if all that is hidden lies on one row, column, or line across planes."""
        return sorted(self.sides)[:2] == [1, 1]

    @property
    def transposable(self) -> bool:
        """True if rows and columns can be exchanged: noise along a line must stay along it."""
        return {(z, x, y) for z, y, x in self.offsets} == self.offsets

    @property
    def text(self) -> str:
        """The mask as it is typed."""
        planes, height, width = self.sides
        if len(self.offsets) == planes * height * width:
            in_front = f"{planes}," if planes > 1 else ""
            return f"[{in_front}{height},{width}]"
        drawings = []
        for z in _centred(planes):
            plane = self.plane(z)
            drawings.append(_drawing(plane))
        return "//".join(drawings)

    def plane(self, z: int) -> frozenset[tuple[int, int]]:
        """Return the offsets in rows and columns that are hidden in a plane or frame.

        Args:
            z: its distance from the one that is learnt.
        """
        return frozenset((y, x) for plane, y, x in self.offsets if plane == z)

    def joined(self, other: "Mask") -> "Mask":
        """Return the mask that hides what either hides."""
        return Mask(self.offsets | other.offsets)

    def within(self, height: int, width: int) -> "Mask":
        """Return the part of the mask that is inside of sides, odd numbers."""
        inside = []
        for plane, row, column in self.offsets:
            if abs(row) <= height // 2 and abs(column) <= width // 2:
                inside.append((plane, row, column))
        return Mask(frozenset(inside))


def _centred(side: int) -> range:
    """Return the offsets of an odd side, from the middle."""
    half = side // 2
    return range(-half, half + 1)


def _listed(value: Any) -> Any:
    """Return a value as messages show it."""
    return list(value) if isinstance(value, Sequence) else value


def _sides(value: Any) -> list[int] | None:
    """Return planes, height and width of a rectangle; None where it is none."""
    if isinstance(value, str):
        inside = value.strip("[]")
        numbers = [number.strip() for number in inside.split(",")]
        if not all(map(str.isdigit, numbers)):
            return None
        value = list(map(int, numbers))
    if not isinstance(value, Sequence) or len(value) not in (2, 3):
        return None
    for side in value:
        if not isinstance(side, int) or side < 1 or side % 2 == 0:
            return None
    planes = [1] if len(value) == 2 else []
    return [*planes, *value]


def _offsets_drawn(text: str) -> list[Offset] | None:
    """Return the offsets of a drawing; None where it is none."""
    if set(text) - {HIDDEN, SHOWN, "/"}:
        return None
    planes = [plane.split("/") for plane in text.split("//")]
    counts = [len(planes)]
    for rows in planes:
        lengths = set(map(len, rows))
        if len(lengths) > 1:
            return None
        counts.append(len(rows))
        counts.extend(lengths)
    if not all(count % 2 for count in counts):
        return None
    offsets = []
    for z, rows in zip(_centred(len(planes)), planes, strict=True):
        for y, row in zip(_centred(len(rows)), rows, strict=True):
            for x, pixel in zip(_centred(len(row)), row, strict=True):
                if pixel == HIDDEN:
                    offsets.append((z, y, x))
    return offsets


def _drawing(plane: frozenset[tuple[int, int]]) -> str:
    """Draw the offsets of a plane, rows and columns, as small as they allow."""
    height = 0
    width = 0
    for y, x in plane:
        height = max(height, abs(y))
        width = max(width, abs(x))
    rows = []
    for y in range(-height, height + 1):
        row = ""
        for x in range(-width, width + 1):
            row += HIDDEN if (y, x) in plane else SHOWN
        rows.append(row)
    return "/".join(rows)
