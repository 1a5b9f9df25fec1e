"""One page of a picture, or one volume, on its way to a network and back."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays.axes import evenly, of_pages
from n2n_lightning.arrays.bad_pixels import invalid_mask, margin_value
from n2n_lightning.arrays.normalization import IntensityScaling
from n2n_lightning.arrays.outliers import PageOutliers, inside

PLANES = 16  # of a volume that say which values are black and white
PIXELS = 2**20  # of a page that are worked on at a time


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
    """One page (H, W, C), or volume (D, H, W, C), on its way to the network and back.

    `near` are the pages that the network sees in place of it; None: the page itself. `invalid` is
    True where a pixel is missing whatever its value is, in the shape of the page.
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
        self.source, self.sink, self.colours, self.limits, self.device = (
            source,
            sink,
            colours,
            limits,
            device,
        )
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
            page: another page, read as this one is.
        """
        page = page or PageInput(self.source, self.invalid)
        where = (*place, slice(self.colours))
        pixels = page.array[where]
        values, gone = self.limits.normalize(pixels), self._missing(pixels, page.invalid, where)
        if gone is not None:
            values[gone] = np.nan
        return torch.from_numpy(values).movedim(-1, 0)

    def read(self, place: tuple[slice, ...]) -> Tensor:
        """Pixels for the network, (C, h, w), of several pages one after the other; NaN where they are to be filled."""
        parts = []
        for page in self.near or [PageInput(self.source, self.invalid, self.outliers.all)]:
            values = self.normalized(place, page)
            if page.outliers is not None:
                values[inside(page.outliers, place)] = torch.nan
            parts.append(values)
        return torch.cat(parts).to(self.device)

    def write(self, place: tuple[slice, ...], values: Tensor) -> None:
        """The network's result (C, h, w); missing and left pixels and transparency are those of the source."""
        pixels, found = self.source[place], values.movedim(0, -1).cpu().numpy()
        before, where = pixels[..., : self.colours], (*place, slice(self.colours))
        result = self.limits.denormalize(found, before, self.sink.dtype)
        gone = self._missing(before, self.invalid, where)
        if gone is not None:
            result = np.where(gone, before, result)
        channel, *left = inside(self.outliers.left, place)
        result[(*left, channel)] = before[(*left, channel)]
        self.sink[where] = result
        self.sink[(*place, slice(self.colours, None))] = pixels[..., self.colours :]

    def _missing(
        self, pixels: np.ndarray, invalid: np.ndarray | None, where: Any
    ) -> np.ndarray | None:
        """Which of the pixels at a place are missing, by their values or by the mask of their page; None: none."""
        gone = invalid_mask(pixels, self.nodata_values)
        if invalid is None or not (masked := invalid[where]).any():
            return gone
        return masked if gone is None else gone | masked

    def strips(self, multiple: int = 1) -> list[slice]:
        """Rows (of a volume: planes) of about PIXELS at a time, `multiple` of them or more."""
        length, *others = self.sink.shape[:-1]
        rows = max(1, PIXELS // (multiple * math.prod(others))) * multiple
        return [slice(first, min(first + rows, length)) for first in range(0, length, rows)]

    def both(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Source and result as the network sees them, float32 (rows, W, C) but for transparency; NaN where missing."""
        where = (rows, ..., slice(self.colours))
        before, after = (page[where] for page in (self.source, self.sink))
        gone = self._missing(before, self.invalid, where)
        shown = self.limits.normalize(before), self.limits.normalize(after)
        if gone is not None:
            for values in shown:
                values[gone] = np.nan
        return shown

    def removed(self, rows: slice) -> np.ndarray:
        """What was removed, in units of the network; 0 where that is not known."""
        before, after = self.both(rows)
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(before - after, posinf=0, neginf=0)

    def mend(self, rows: slice, more: np.ndarray) -> None:
        """Adds to the result, in units of the network, where `more` is not 0."""
        place = (rows, ..., slice(self.colours))
        after = self.sink[place]
        self.sink[place] = np.where(
            more == 0, after, self.limits.denormalize(self.limits.normalize(after) + more, after)
        )

    def mix(self, strength: float) -> None:
        """Makes the result a mix with the source, 0 to 1."""
        for rows in self.strips():
            self.mend(rows, (1 - strength) * self.removed(rows))


def gaps(page: np.ndarray, nodata_values: tuple[float, ...]) -> tuple[float, ...]:
    """The values that mean that a pixel of a page is missing: declared ones, and that of a margin.

    Of a volume (D, H, W, C) the plane in its middle is asked.
    """
    margin = margin_value(page[len(page) // 2] if len(page.shape) == 4 else page)
    return nodata_values if margin is None or margin in nodata_values else (*nodata_values, margin)


class PageStack:
    """The pages of an array, on their way to the network and back.

    Args:
        source, sink: (..., H, W, C), or volumes (..., D, H, W, C): what is denoised, and where
            results go.
        invalid: bool, in that shape, see `HtmlReport`.
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
        self.source, self.sink = source, sink
        self.invalid = invalid
        self.volumes = dims == 3
        self.colours = colours
        self.nodata_values = nodata_values
        self.device = device
        self.stacked, self.size, _ = of_pages(source.shape, dims)
        self.places = list(np.ndindex(*self.stacked))
        some = {self.places[0], self.places[len(self.places) // 2], self.places[-1]}
        self._gaps = {place: gaps(source[place][..., :colours], nodata_values) for place in some}
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
            sample = (
                ...,
                evenly(self.size[0], PLANES),
                slice(None),
                slice(None),
                slice(self.colours),
            )
        unknown = None if self.invalid is None else self.invalid[sample]
        everywhere = sorted({fill for found in self._gaps.values() for fill in found})
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
        page.nodata_values = (
            self._gaps[place]
            if place in self._gaps
            else gaps(page.source[..., : self.colours], self.nodata_values)
        )
        return page
