"""One page of a picture, or one volume, on its way to a network and back."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.missing import lost, margin_value
from n2n_lightning.ranges import Range

PIXELS = 2**20  # of a page that are worked on at a time


class Page:
    """One page (H, W, C), or volume (D, H, W, C), on its way to the network and back.

    `near` are the pages that the network sees in place of it; `invalid` and `near_invalid` say which of their pixels
    are missing whatever their values are, bool in the shape of a page.
    """

    def __init__(
        self,
        source: np.ndarray,
        sink: np.ndarray,
        colours: int,
        limits: Range,
        device: torch.device,
        near: Sequence[np.ndarray] = (),
        invalid: np.ndarray | None = None,
        near_invalid: Sequence[np.ndarray | None] = (),
    ) -> None:
        self.source, self.sink, self.colours, self.limits, self.device = source, sink, colours, limits, device
        self.near, self.invalid = near or [source], invalid
        self.near_invalid = near_invalid if near else [invalid]
        self.fills: tuple[float, ...] = ()

    def read(self, place: tuple[slice, ...]) -> Tensor:
        """Pixels for the network, (C, h, w), of several pages one after the other; NaN where they are missing."""
        found = []
        for page, invalid in zip(self.near, self.near_invalid or [None] * len(self.near), strict=True):
            where = (*place, slice(self.colours))
            pixels = page[where]
            values, gone = self.limits.shown(pixels), self._missing(pixels, invalid, where)
            if gone is not None:
                values[gone] = np.nan
            found.append(torch.from_numpy(values).movedim(-1, 0))
        return torch.cat(found).to(self.device)

    def write(self, place: tuple[slice, ...], values: Tensor) -> None:
        """The network's result (C, h, w); missing pixels and transparency are those of the source."""
        pixels, found = self.source[place], values.movedim(0, -1).cpu().numpy()
        before, where = pixels[..., : self.colours], (*place, slice(self.colours))
        result = self.limits.stored(found, before, self.sink.dtype)
        gone = self._missing(before, self.invalid, where)
        self.sink[where] = result if gone is None else np.where(gone, before, result)
        self.sink[(*place, slice(self.colours, None))] = pixels[..., self.colours :]

    def _missing(self, pixels: np.ndarray, invalid: np.ndarray | None, where: Any) -> np.ndarray | None:
        """Which of the pixels at a place are missing, by their values or by the mask of their page; None: none."""
        gone = lost(pixels, self.fills)
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
        shown = self.limits.shown(before), self.limits.shown(after)
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
        self.sink[place] = np.where(more == 0, after, self.limits.stored(self.limits.shown(after) + more, after))

    def mix(self, strength: float) -> None:
        """Makes the result a mix with the source, 0 to 1."""
        for rows in self.strips():
            self.mend(rows, (1 - strength) * self.removed(rows))


def gaps(page: np.ndarray, fills: tuple[float, ...]) -> tuple[float, ...]:
    """The values that mean that a pixel of a page is missing: declared ones, and that of a margin.

    Of a volume (D, H, W, C) the plane in its middle is asked.
    """
    margin = margin_value(page[len(page) // 2] if len(page.shape) == 4 else page)
    return fills if margin is None or margin in fills else (*fills, margin)
