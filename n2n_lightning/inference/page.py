"""Pages of pictures, and volumes, on the way to a network and back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays.axes import as_pages, evenly, in_space, of_pages
from n2n_lightning.arrays.bad_pixels import invalid_mask, margin_value
from n2n_lightning.arrays.normalization import IntensityScaling
from n2n_lightning.arrays.outlier_lists import PageOutliers, inside
from n2n_lightning.arrays.registration import shifted

PLANES = 16  # of a volume that say which values are black and white
PIXELS = 2**20  # of a page that are processed at a time: bounds the memory


def page_axes(axes: str, dims: int) -> str:
    """Return the letters with which a network reads an array.

    Args:
        axes: its letters (axes.LETTERS).
        dims: spatial axes of the network; for 3, the planes of a stack are those of a volume.

    Returns:
        A letter for each axis.
    """
    return in_space(axes) if dims == 3 else axes


def pages_or_none(array: np.ndarray | None, axes: str, dims: int) -> np.ndarray | None:
    """Return an array as pages, see `axes.as_pages`; None if there is no array.

    Args:
        array: such as a mask; None: there is none.
        axes: its letters.
        dims: spatial axes of a page, 2 or 3.

    Returns:
        A view, (..., H, W, C) or (..., D, H, W, C), or None.
    """
    if array is None:
        return None
    return as_pages(array, axes, dims)


def part_or_none(array: np.ndarray | None, place: Any) -> np.ndarray | None:
    """Return a part of an array; None if there is no array.

    Args:
        array: such as a mask; None: there is none.
        place: index of the part.

    Returns:
        A view where numpy gives one, or None.
    """
    if array is None:
        return None
    part: np.ndarray = array[place]
    return part


@dataclass(frozen=True)
class PageInput:
    """A page that the network is shown.

    Attributes:
        array: (H, W, C), or a volume (D, H, W, C).
        invalid: bool, in that shape: True where a pixel is missing whatever its value is; None:
            nowhere.
        outliers: coordinates of pixels that the network sees inpainted, see
            `outliers.find_outliers`; None: none.
    """

    array: np.ndarray
    invalid: np.ndarray | None = None
    outliers: np.ndarray | None = None

    def moved(self, rows: int, columns: int) -> "PageInput":
        """Return the page moved by whole pixels, missing where nothing moved in.

        Args:
            rows, columns: how far its content moves down and to the right.

        Returns:
            A copy; the page itself where it does not move.
        """
        if not rows and not columns:
            return self
        height, width, channels = self.array.shape
        way = (rows, columns)
        gaps = shifted(np.zeros((height, width)), rows, columns)
        missing = np.isnan(gaps)[..., None]
        invalid = np.repeat(missing, channels, 2)
        if self.invalid is not None:
            invalid |= np.roll(self.invalid, way, (0, 1))
        points = self.outliers
        if points is not None:
            points = points + np.array([0, rows, columns])
            places = points[:, 1:]
            inside_page = (places >= 0) & (places < (height, width))
            points = points[inside_page.all(1)]
        array = np.roll(self.array, way, (0, 1))
        return PageInput(array, invalid, points)


class Page:
    """A page (H, W, C), or volume (D, H, W, C), on its way to the network and back.

    Args:
        source: stored values.
        sink: receives the result, in the shape of `source`.
        colours: number of channels that are denoised; further ones are transparency.
        limits: scaling between stored values and those of the network.
        device: that of the network.
        invalid: bool, in the shape of `source`: True where a pixel is missing whatever its value.

    Attributes:
        nodata_values: stored values that mark missing pixels.
        outliers: pixels that the network sees inpainted.
        near: pages that the network sees in place of this one; None: this one.
        usual_residuals: texture.UsualResidual of each channel, or of all together; None: they are
            measured on the page.
    """

    def __init__(
        self,
        source: np.ndarray,
        sink: np.ndarray,
        colours: int,
        limits: IntensityScaling,
        device: torch.device,
        invalid: np.ndarray | None = None,
    ) -> None:
        self.source = source
        self.sink = sink
        self.colours = colours
        self.limits = limits
        self.device = device
        self.invalid = invalid
        self.nodata_values: tuple[float, ...] = ()
        self.outliers = PageOutliers.none(len(source.shape))
        self.near: list[PageInput] | None = None
        self.usual_residuals: Sequence[Any] | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W), or (D, H, W) of a volume."""
        return self.source.shape[:-1]

    def normalized(self, place: tuple[slice, ...], page: PageInput | None = None) -> Tensor:
        """Return pixels in units of the network, (C, h, w); NaN where they are missing.

        Args:
            place: a slice of each spatial axis.
            page: another page with the same scaling; None: this one.

        Returns:
            Float32; 0 is black and 1 white.
        """
        page = page or PageInput(self.source, self.invalid)
        where = (*place, slice(self.colours))
        pixels = page.array[where]
        values = self.limits.normalize(pixels)
        missing = self._missing(pixels, page.invalid, where)
        if missing is not None:
            values[missing] = np.nan
        return torch.from_numpy(values).movedim(-1, 0)

    def whole(self, page: PageInput) -> np.ndarray:
        """Return all of a page with the scaling of this one, (C, H, W), see `normalized`."""
        everywhere = (slice(None),) * len(self.size)
        return self.normalized(everywhere, page).numpy()

    def read(self, place: tuple[slice, ...]) -> Tensor:
        """Return the input of the network at a place, (C, h, w); NaN where it is to be inpainted.

        The channels of the pages in `near` follow one another.

        Args:
            place: a slice of each spatial axis.

        Returns:
            Float32, on the device of the network.
        """
        pages = self.near
        if not pages:
            pages = [PageInput(self.source, self.invalid, self.outliers.all)]
        parts = []
        for page in pages:
            values = self.normalized(place, page)
            if page.outliers is not None:
                values[inside(page.outliers, place)] = torch.nan
            parts.append(values)
        return torch.cat(parts).to(self.device)

    def write(self, place: tuple[slice, ...], values: Tensor) -> None:
        """Store the output of the network at a place.

        Missing pixels, outliers that are left and transparency are copied from the source.

        Args:
            place: a slice of each spatial axis.
            values: (C, h, w), in network units.
        """
        where = (*place, slice(self.colours))
        before = self.source[where]
        output = values.movedim(0, -1).cpu().numpy()
        result = self.limits.denormalize(output, before, self.sink.dtype)
        missing = self._missing(before, self.invalid, where)
        if missing is not None:
            result = np.where(missing, before, result)
        channel, *pixel = inside(self.outliers.left, place)
        left = (*pixel, channel)
        result[left] = before[left]
        self.sink[where] = result
        transparency = (*place, slice(self.colours, None))
        self.sink[transparency] = self.source[transparency]

    def _missing(
        self, pixels: np.ndarray, invalid: np.ndarray | None, where: Any
    ) -> np.ndarray | None:
        """Return the mask of missing pixels, by value or by the mask of the page; None: none."""
        by_value = invalid_mask(pixels, self.nodata_values)
        masked = part_or_none(invalid, where)
        if masked is None or not masked.any():
            return by_value
        if by_value is None:
            return masked
        return by_value | masked

    def strips(self, multiple: int = 1, pixels: int = PIXELS) -> list[slice]:
        """Divide the page into strips of rows (a volume: of planes).

        Args:
            multiple: divisor of the number of rows of all strips but the last.
            pixels: of each strip, about.

        Returns:
            The rows of each strip, in order.
        """
        length, *others = self.sink.shape[:-1]
        smallest = multiple * math.prod(others)  # pixels of a strip of `multiple` rows
        rows = max(1, pixels // smallest) * multiple
        strips = []
        for first in range(0, length, rows):
            stop = min(first + rows, length)
            strips.append(slice(first, stop))
        return strips

    def _colours_at(self, rows: slice, columns: slice | None) -> Any:
        """Return the index of the channels that are denoised, in some rows and columns."""
        if columns is None:
            return (rows, ..., slice(self.colours))
        return (rows, columns, slice(self.colours))

    def both(self, rows: slice, columns: slice | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return source and result in network units, NaN where pixels are missing.

        Args:
            rows: of the page; of a volume, planes.
            columns: of the page; None: all.

        Returns:
            Two float32 arrays (rows, W, C), or (planes, H, W, C).
        """
        where = self._colours_at(rows, columns)
        pixels = self.source[where]
        missing = self._missing(pixels, self.invalid, where)
        before = self.limits.normalize(pixels)
        after = self.limits.normalize(self.sink[where])
        if missing is not None:
            before[missing] = np.nan
            after[missing] = np.nan
        return before, after

    def stored(self, place: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return source and result in stored units, channels first; NaN where pixels are missing.

        Args:
            place: a slice of each spatial axis.

        Returns:
            Two float64 arrays, (C, h, w) or (C, d, h, w).
        """
        where = (*place, slice(self.colours))
        pixels = self.source[where]
        missing = self._missing(pixels, self.invalid, where)
        both = []
        for values in (pixels, self.sink[where]):
            plane = values.astype(np.float64)
            if missing is not None:
                plane[missing] = np.nan
            both.append(np.moveaxis(plane, -1, 0))
        before, after = both
        return before, after

    def removed(self, rows: slice, columns: slice | None = None) -> np.ndarray:
        """Return the residual (source - result) in network units; 0 for missing pixels.

        Args:
            rows, columns: see `both`.

        Returns:
            Float32, (rows, W, C) or (planes, H, W, C).
        """
        before, after = self.both(rows, columns)
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(before - after, posinf=0, neginf=0)

    def mend(self, rows: slice, more: np.ndarray, columns: slice | None = None) -> None:
        """Add to the result, where the summand is not 0.

        Args:
            rows: of the page.
            more: the summand, in network units.
            columns: see `both`.
        """
        place = self._colours_at(rows, columns)
        after = self.sink[place]
        total = self.limits.normalize(after) + more
        stored = self.limits.denormalize(total, after)
        self.sink[place] = np.where(more == 0, after, stored)

    def mix(self, strength: float) -> None:
        """Mix the result with the source.

        Args:
            strength: share of the result, 0 to 1.
        """
        for rows in self.strips():
            self.mend(rows, (1 - strength) * self.removed(rows))


def gaps(page: np.ndarray, nodata_values: tuple[float, ...]) -> tuple[float, ...]:
    """Return the values that mark missing pixels: declared ones, and that of a constant margin.

    Args:
        page: (H, W, C), or a volume (D, H, W, C), whose margin is that of the middle plane.
        nodata_values: declared ones.

    Returns:
        Stored values.
    """
    plane = page
    if len(page.shape) == 4:
        plane = page[len(page) // 2]
    margin = margin_value(plane)
    if margin is None or margin in nodata_values:
        return nodata_values
    return (*nodata_values, margin)


class PageStack:
    """The pages of an array, on their way to the network and back.

    Args:
        source: stored values, (..., H, W, C), or volumes (..., D, H, W, C).
        sink: receives the result, in that shape.
        invalid: bool, in that shape, see `Page`.
        dims: 2, or 3 of volumes.
        colours: channels that are denoised; the others are transparency.
        nodata_values: stored values that mean that a pixel is missing.
        device: that of the network.
        part: the pages are parts of larger ones: they are not searched for margins.
    """

    def __init__(
        self,
        source: np.ndarray,
        sink: np.ndarray,
        invalid: np.ndarray | None,
        dims: int,
        colours: int,
        nodata_values: tuple[float, ...],
        device: torch.device,
        part: bool = False,
    ) -> None:
        self.source = source
        self.sink = sink
        self.invalid = invalid
        self.volumes = dims == 3
        self.colours = colours
        self.nodata_values = nodata_values
        self.device = device
        self.stacked, self.size, _ = of_pages(source.shape, dims)
        self.places = list(np.ndindex(*self.stacked))
        self.part = part
        self._gaps: dict[tuple[int, ...], tuple[float, ...]] = {}
        for number in (0, len(self.places) // 2, -1):
            place = self.places[number]
            if place not in self._gaps:
                self._gaps[place] = self._gaps_of(place)
        self.limits: IntensityScaling | None = None
        self.together = False  # all channels go through the network at once, see `judge`

    def judge(self, fixed: tuple[float, float] | None, together: bool, equivariant: bool) -> None:
        """Set which stored values the network sees as 0 and 1.

        Args:
            fixed, together, equivariant: see `IntensityScaling.of`.
        """
        self.together = together
        sample: Any = (..., slice(self.colours))
        if self.volumes:
            planes = evenly(self.size[0], PLANES)
            sample = (..., planes, slice(None), slice(None), slice(self.colours))
        values = self.source[sample]
        invalid = part_or_none(self.invalid, sample)
        nodata_values = sorted(set().union(*self._gaps.values()))
        self.limits = IntensityScaling.of(
            values, fixed, together, nodata_values, equivariant, invalid
        )

    def at(self, place: tuple[int, ...]) -> Page:
        """Return a page.

        Args:
            place: its numbers on the stacked axes, one of `places`.

        Returns:
            The page with its scaling and nodata values; its outliers are not searched for.
        """
        assert self.limits
        invalid = part_or_none(self.invalid, place)
        page = Page(
            self.source[place], self.sink[place], self.colours, self.limits, self.device, invalid
        )
        nodata_values = self._gaps.get(place)
        if nodata_values is None:
            nodata_values = self._gaps_of(place)
        page.nodata_values = nodata_values
        return page

    def _gaps_of(self, place: tuple[int, ...]) -> tuple[float, ...]:
        """Return the values that mark missing pixels in a page."""
        if self.part:
            return self.nodata_values
        return gaps(self.source[place][..., : self.colours], self.nodata_values)
