"""The fixed sample of a large array, by which what concerns all of it is measured."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from n2n_lightning.arrays.axes import as_pages, evenly, of_pages
from n2n_lightning.formats.regions import Region

# The sample: planes from the first to the last, of each a grid of cells from border to border. A
# cell is a block of rounding.py, and whole blocks of texture and of margins.
SAMPLED_PLANES = 5
CELLS_ALONG = 8  # along height and width
CELL_SIDE = 64  # pixels
CELL_DEPTH = 16  # planes of a cell of a volume


@dataclass(frozen=True)
class ArraySample:
    """Cells of an array.

    Attributes:
        pages: the cells of each sampled plane next to one another, (N, H, W, C); of a volume (N, D,
            H, W, C).
        sides: height and width of the cells.
    """

    pages: np.ndarray
    sides: tuple[int, int]

    def cells(self) -> np.ndarray:
        """Return the cells apart, (N, H, W, C), or (N, D, H, W, C)."""
        *_, rows, columns, _ = self.pages.shape
        height, width = self.sides
        tops = range(0, rows, height)
        lefts = range(0, columns, width)
        cells = []
        for top, left in product(tops, lefts):
            down = slice(top, top + height)
            along = slice(left, left + width)
            cells.append(self.pages[..., down, along, :])
        return np.concatenate(cells)


def sample_of(
    read: Callable[[Region], np.ndarray],
    shape: Sequence[int],
    unpacked: Sequence[int],
    axes: str,
    dims: int,
) -> ArraySample:
    """Read the fixed sample of an array, each piece of the file once.

    Args:
        read: returns the values of a region.
        shape: of the array.
        unpacked: the sides of the pieces that are unpacked at once, see `Regions`.
        axes: its letters, as `as_pages` takes them.
        dims: spatial axes, 2 or 3.

    Returns:
        Planes from the first to the last; all rows and columns of short axes.
    """
    places: dict[str, list[slice]] = {}
    stacked: list[list[slice]] = []
    for letter, length in zip(axes, shape, strict=True):
        along = _places_along(letter, length, dims)
        places[letter] = along
        stacked.append(along[:1] if letter in "HW" else along)
    planes = list(product(*stacked))
    chosen = [planes[number] for number in evenly(len(planes), SAMPLED_PLANES)]
    height = unpacked[axes.index("H")]
    width = unpacked[axes.index("W")]
    cells = _Cells(
        axes,
        dims,
        _in_one_piece([(place,) for place in places["H"]], [height]),
        _in_one_piece([(place,) for place in places["W"]], [width]),
    )
    flat = list(unpacked)
    for letter in "HW":
        flat[axes.index(letter)] = CELL_SIDE  # planes are grouped by their other axes
    pages: list[np.ndarray] = []
    for group in _in_one_piece(chosen, flat):
        pages += cells.read(read, group)
    row = places["H"][0]
    column = places["W"][0]
    return ArraySample(np.stack(pages), (row.stop - row.start, column.stop - column.start))


@dataclass(frozen=True)
class _Cells:
    """The cells of each sampled plane.

    Attributes:
        axes, dims: see `sample_of`.
        rows, columns: their places along height and width, those in one piece of the file together.
    """

    axes: str
    dims: int
    rows: list[list[Region]]
    columns: list[list[Region]]

    def read(self, read: Callable[[Region], np.ndarray], planes: list[Region]) -> list[np.ndarray]:
        """Return the cells of some planes, those of each next to one another, (..., H, W, C)."""
        bands: list[list[np.ndarray]] = [[] for _ in planes]
        for rows in self.rows:
            parts: list[list[np.ndarray]] = [[] for _ in planes]
            for columns in self.columns:
                read_at_once = self._cut(read, planes, rows, columns)
                for part, page in zip(parts, read_at_once, strict=True):
                    part.append(page)
            for band, part in zip(bands, parts, strict=True):
                band.append(np.concatenate(part, axis=-2))
        return [np.concatenate(band, axis=-3) for band in bands]

    def _cut(
        self,
        read: Callable[[Region], np.ndarray],
        planes: list[Region],
        rows: list[Region],
        columns: list[Region],
    ) -> Iterator[np.ndarray]:
        """Read some cells of some planes at once, and yield them plane by plane."""
        height = self.axes.index("H")
        width = self.axes.index("W")
        region = _around(planes)
        (region[height],) = _around(rows)
        (region[width],) = _around(columns)
        values = read(tuple(region))
        for plane in planes:
            own = _place_in(plane, region)
            own[height] = slice(None)
            own[width] = slice(None)
            page = _as_page(values[tuple(own)], self.axes, self.dims)
            page = _joined(page, rows, region[height].start, -3)
            yield _joined(page, columns, region[width].start, -2)


def _places_along(letter: str, length: int, dims: int) -> list[slice]:
    """Return the places of cells on an axis; single ones on stacked axes."""
    if letter in "HW":
        return _spread_places(length, CELL_SIDE, CELLS_ALONG)
    if letter == "C":
        return [slice(0, length)]
    if letter == "D" and dims == 3:
        return _spread_places(length, CELL_DEPTH, SAMPLED_PLANES)
    return [slice(index, index + 1) for index in range(length)]


def _spread_places(length: int, side: int, most: int) -> list[slice]:
    """Return up to `most` places of `side` pixels on an axis, the first and the last among them."""
    if length < side:
        return [slice(0, length)]
    starts: Iterable[int] = evenly(length - side + 1, most)
    if length <= side * most:
        starts = range(0, length - side + 1, side)
    return [slice(start, start + side) for start in starts]


def _in_one_piece(places: Sequence[Region], sides: Sequence[int]) -> list[list[Region]]:
    """Group places that follow one another so that no piece of a file is in two groups.

    Args:
        places: in order.
        sides: of the pieces, along each axis.

    >>> _in_one_piece([(slice(0, 4),), (slice(8, 12),), (slice(20, 24),)], [10])
    [[(slice(0, 4, None),), (slice(8, 12, None),)], [(slice(20, 24, None),)]]
    """
    groups: list[list[Region]] = []
    last: list[int] = []
    for place in places:
        pieces = zip(place, sides, strict=True)
        if groups and [part.start // side for part, side in pieces] == last:
            groups[-1].append(place)
        else:
            groups.append([place])
        last = [(part.stop - 1) // side for part, side in zip(place, sides, strict=True)]
    return groups


def _around(places: Sequence[Region]) -> list[slice]:
    """Return the region around some places."""
    region = []
    for along in zip(*places, strict=True):
        start = min(part.start for part in along)
        region.append(slice(start, max(part.stop for part in along)))
    return region


def _place_in(place: Region, region: Sequence[slice]) -> list[slice]:
    """Return a place within a region around it."""
    inside = []
    for part, whole in zip(place, region, strict=True):
        inside.append(slice(part.start - whole.start, part.stop - whole.start))
    return inside


def _as_page(values: np.ndarray, axes: str, dims: int) -> np.ndarray:
    """Return the values of one plane or volume, (H, W, C) or (D, H, W, C)."""
    page = as_pages(values, axes, dims)
    _, size, channels = of_pages(page.shape, dims)
    return page.reshape(*size, channels)


def _joined(page: np.ndarray, places: Sequence[Region], start: int, axis: int) -> np.ndarray:
    """Return the places on an axis of a page, which begins at `start`, next to one another."""
    parts = []
    for (place,) in places:
        along = np.arange(place.start - start, place.stop - start)
        parts.append(np.take(page, along, axis))
    return np.concatenate(parts, axis)
