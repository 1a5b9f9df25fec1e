"""Arrays as the page shows them: one plane at a time, of large files only the visible part."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import as_pages
from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import AskedAxes, Picture
from n2n_lightning.formats.regions import Regions

AXIS_NAMES = {"N": "image", "K": "capture", "T": "frame", "D": "plane", "C": "channel"}
# Percent of the pixels of a plane that are below the values which the page stretches between.
PERCENTS = (0, 0.05, 0.1, 0.5, 1, 2, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 99.95, 100)
SAMPLED_SIDE = 512  # rows and columns of a plane that the percentiles are measured on
# Pixels of a plane that are read at a time, where a file is read piece by piece: 32 MiB of 16 bit.
READ_PIXELS = 2**24


@dataclass(frozen=True)
class View:
    """The part of a plane that is visible.

    Attributes:
        place: the index of the plane on each axis of the array; 0 on those of the plane.
        rows, columns: in pixels of the picture; starts are multiples of `step`.
        step: every so many pixels are shown.
    """

    place: tuple[int, ...]
    rows: slice
    columns: slice
    step: int = 1

    def of(self, page: np.ndarray, first_row: int = 0, first_column: int = 0) -> np.ndarray:
        """Return the visible pixels of a page (H, W, C).

        Args:
            page: a plane, or a part of one.
            first_row, first_column: of the part in the plane.

        Returns:
            Every `step`-th pixel of those that are in the page.
        """
        height, width, _ = page.shape
        rows = self._inside(self.rows, first_row, height)
        columns = self._inside(self.columns, first_column, width)
        return page[rows, columns]

    def corner(self, first_row: int, first_column: int) -> tuple[int, int]:
        """Return the row and the column of the first pixel of `of`, in pixels of the picture."""
        return self._first(self.rows, first_row), self._first(self.columns, first_column)

    def _first(self, part: slice, start: int) -> int:
        return -(-max(part.start, start) // self.step) * self.step

    def _inside(self, part: slice, start: int, length: int) -> slice:
        stop = min(part.stop, start + length)
        first = self._first(part, start)
        return slice(first - start, max(first, stop) - start, self.step)


class ShownArray:
    """One array of a picture, plane by plane.

    Args:
        picture: the file.
        number: of the array in it.
        said: the axes that the person names; None: those of the file, or by the shape.

    Raises:
        InputError: there is no such array, or the axes do not fit.
    """

    def __init__(self, picture: Picture, number: int = 0, said: str | None = None) -> None:
        if not 0 <= number < len(picture.values):
            raise InputError(f"{picture.path}: has {len(picture.values)} arrays")
        self.values = picture.values[number]
        self.reading = picture.read_as(self.values, AskedAxes(said))
        self.axes = self.reading.axes
        self.shape = self.values.shape
        self.regions: Regions | None = None
        if len(picture.values) == 1 and not picture.mask:
            self.regions = picture.regions()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a plane."""
        return self.shape[self.axes.index("H")], self.shape[self.axes.index("W")]

    @property
    def is_colour(self) -> bool:
        """True if the channels are shown together, as colours."""
        if "C" not in self.axes:
            return False
        return self.reading.colour and self.shape[self.axes.index("C")] in (3, 4)

    @property
    def in_pieces(self) -> bool:
        """True if a whole plane is too large to be read at once from a file of packed pieces."""
        packed = self.regions is not None and math.prod(self.regions.chunks) > 1
        return packed and math.prod(self.size) > READ_PIXELS

    def sliders(self) -> list[dict[str, Any]]:
        """Return the axes that the page has a slider for: number, name and length of each."""
        inside = "HWC" if self.is_colour else "HW"
        sliders = []
        for number, letter in enumerate(self.axes):
            if letter not in inside and self.shape[number] > 1:
                length = self.shape[number]
                sliders.append({"axis": number, "name": AXIS_NAMES[letter], "length": length})
        return sliders

    def checked(self, view: View) -> View:
        """Return a view whose place and borders are within the array.

        Args:
            view: from the page, which is not trusted.

        Raises:
            InputError: it has another number of axes, or holds no pixels.
        """
        if len(view.place) != len(self.shape):
            raise InputError(f"a place of {len(view.place)} axes, in an array of {self.shape}")
        place = []
        for index, length in zip(view.place, self.shape, strict=True):
            place.append(min(max(index, 0), length - 1))
        height, width = self.size
        step = max(1, view.step)
        parts = []
        for part, length in ((view.rows, height), (view.columns, width)):
            start = max(0, part.start) // step * step
            stop = min(part.stop, length)
            if start >= stop:
                raise InputError(f"rows or columns {start} to {stop}: hold no pixels")
            parts.append(slice(start, stop))
        rows, columns = parts
        visible = (rows.stop - rows.start) * (columns.stop - columns.start)
        if self.in_pieces and visible > READ_PIXELS:
            raise InputError("too much of a large file at once; zoom in")
        return View(tuple(place), rows, columns, step)

    def plane(self, view: View) -> np.ndarray:
        """Return the visible pixels of a plane.

        Args:
            view: the part.

        Returns:
            (h, w, 1), or (h, w, 3) of colours, as stored.
        """
        region = self.region(view.place, view.rows, view.columns)
        if self.regions is not None:
            values = self.regions.read(region)
        else:
            values = self.values.array[region]
        pages = as_pages(values, self.axes)
        *_, height, width, channels = pages.shape
        page = pages.reshape(height, width, channels)
        return page[:: view.step, :: view.step, :3]

    def region(
        self, place: Sequence[int], rows: slice, columns: slice, every_channel: bool = False
    ) -> tuple[slice, ...]:
        """Return the region of a part of a plane in the array.

        Args:
            place, rows, columns: see `View`.
            every_channel: all channels, also where one is shown at a time.
        """
        region = []
        for axis, letter in enumerate(self.axes):
            whole = letter == "C" and (self.is_colour or every_channel)
            index = place[axis]
            part = slice(index, index + 1)
            if letter == "H":
                part = rows
            elif letter == "W":
                part = columns
            elif whole:
                part = slice(0, self.shape[axis])
            region.append(part)
        return tuple(region)

    def percentiles(self, view: View) -> list[tuple[float, float]]:
        """Return the values between which the page stretches: percent of the pixels, and value.

        Args:
            view: its plane is sampled; of a plane that is read in pieces, the visible part.

        Returns:
            A pair for each of PERCENTS; the values are finite.
        """
        height, width = self.size
        whole = View(view.place, slice(0, height), slice(0, width))
        if self.in_pieces:
            whole = view
        rows = whole.rows.stop - whole.rows.start
        columns = whole.columns.stop - whole.columns.start
        step = max(1, min(rows, columns) // SAMPLED_SIDE)
        sampled = self.plane(View(whole.place, whole.rows, whole.columns, step))
        finite = sampled[np.isfinite(sampled)].astype(np.float64)
        if not finite.size:
            finite = np.zeros(1)
        levels = np.percentile(finite, PERCENTS).tolist()
        return list(zip(PERCENTS, levels, strict=True))

    def description(self) -> dict[str, Any]:
        """Return what the page has to know: size, type, axes, sliders, remark."""
        height, width = self.size
        return {
            "height": height,
            "width": width,
            "shape": list(self.shape),
            "dtype": self.values.dtype.name,
            "axes": self.axes,
            "colour": self.is_colour,
            "sliders": self.sliders(),
            "remark": self.reading.line,
            "in_pieces": self.in_pieces,
            "read_pixels": READ_PIXELS,
        }

    @cached_property
    def channel_axis(self) -> int | None:
        """Number of the axis of channels; None: there is none."""
        return self.axes.index("C") if "C" in self.axes else None
