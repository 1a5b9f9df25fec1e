"""Pages of pictures, and volumes, on the way to a network and back."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays.axes import evenly, of_pages
from n2n_lightning.arrays.bad_pixels import invalid_mask, margin_value
from n2n_lightning.arrays.normalization import IntensityScaling
from n2n_lightning.arrays.outlier_lists import PageOutliers, inside

PLANES = 16  # of a volume that say which values are black and white
PIXELS = 2**20  # of a page that are processed at a time: bounds the memory


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

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W), or (D, H, W) of a volume."""
        return self.source.shape[:-1]

    def normalized(self, place: tuple[slice, ...], page: PageInput | None = None) -> Tensor:
        """Return pixels in units of the network, (C, h, w); NaN where they are missing.

        Args:
            place: a slice of each spatial axis.
            page: another page with the same scaling; None: this one.
        """
        page = page or PageInput(self.source, self.invalid)
        where = (*place, slice(self.colours))
        pixels = page.array[where]
        values = self.limits.normalize(pixels)
        missing = self._missing(pixels, page.invalid, where)
        if missing is not None:
            values[missing] = np.nan
        return torch.from_numpy(values).movedim(-1, 0)

    def read(self, place: tuple[slice, ...]) -> Tensor:
        """Return the input of the network at a place, (C, h, w); NaN where it is to be inpainted.

        The channels of the pages in `near` follow one another.
        """
        parts = []
        for page in self.near or [PageInput(self.source, self.invalid, self.outliers.all)]:
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
        pixels = self.source[place]
        before = pixels[..., : self.colours]
        where = (*place, slice(self.colours))
        output = values.movedim(0, -1).cpu().numpy()
        result = self.limits.denormalize(output, before, self.sink.dtype)
        missing = self._missing(before, self.invalid, where)
        if missing is not None:
            result = np.where(missing, before, result)
        channel, *left = inside(self.outliers.left, place)
        result[(*left, channel)] = before[(*left, channel)]
        self.sink[where] = result
        self.sink[(*place, slice(self.colours, None))] = pixels[..., self.colours :]

    def _missing(
        self, pixels: np.ndarray, invalid: np.ndarray | None, where: Any
    ) -> np.ndarray | None:
        """Return the mask of missing pixels, by value or by the mask of the page; None: none."""
        by_value = invalid_mask(pixels, self.nodata_values)
        masked = None if invalid is None else invalid[where]
        if masked is None or not masked.any():
            return by_value
        return masked if by_value is None else by_value | masked

    def strips(self, multiple: int = 1) -> list[slice]:
        """Divide the page into strips of rows (a volume: of planes) with about PIXELS pixels each.

        Args:
            multiple: divisor of the number of rows of all strips but the last.
        """
        length, *others = self.sink.shape[:-1]
        rows = max(1, PIXELS // (multiple * math.prod(others))) * multiple
        return [slice(first, min(first + rows, length)) for first in range(0, length, rows)]

    def both(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return source and result in network units, float32 (rows, W, C), NaN where missing."""
        where = (rows, ..., slice(self.colours))
        pixels = self.source[where]
        missing = self._missing(pixels, self.invalid, where)
        before = self.limits.normalize(pixels)
        after = self.limits.normalize(self.sink[where])
        if missing is not None:
            before[missing] = np.nan
            after[missing] = np.nan
        return before, after

    def removed(self, rows: slice) -> np.ndarray:
        """Return the residual (source - result) in network units; 0 for missing pixels."""
        before, after = self.both(rows)
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(before - after, posinf=0, neginf=0)

    def mend(self, rows: slice, more: np.ndarray) -> None:
        """Add to the result, where the summand is not 0.

        Args:
            rows: of the page.
            more: the summand, in network units.
        """
        place = (rows, ..., slice(self.colours))
        after = self.sink[place]
        total = self.limits.denormalize(self.limits.normalize(after) + more, after)
        self.sink[place] = np.where(more == 0, after, total)

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
    """
    plane = page[len(page) // 2] if len(page.shape) == 4 else page
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
        self._gaps: dict[tuple[int, ...], tuple[float, ...]] = {}
        for place in (self.places[0], self.places[len(self.places) // 2], self.places[-1]):
            if place not in self._gaps:
                self._gaps[place] = gaps(source[place][..., :colours], nodata_values)
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
        unknown = None if self.invalid is None else self.invalid[sample]
        everywhere = sorted(set().union(*self._gaps.values()))
        self.limits = IntensityScaling.of(
            self.source[sample], fixed, together, everywhere, equivariant, unknown
        )

    def at(self, place: tuple[int, ...]) -> Page:
        """Return the page at a place."""
        assert self.limits
        invalid = None if self.invalid is None else self.invalid[place]
        page = Page(
            self.source[place], self.sink[place], self.colours, self.limits, self.device, invalid
        )
        if place in self._gaps:
            page.nodata_values = self._gaps[place]
        else:
            page.nodata_values = gaps(page.source[..., : self.colours], self.nodata_values)
        return page
