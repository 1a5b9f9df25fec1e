"""Previews of a page, tile by tile: the middle of what is visible first, the page at last."""

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch

from n2n_lightning.arrays.outlier_lists import PageOutliers, inside
from n2n_lightning.inference.block_grid import halo_of, inside_of
from n2n_lightning.inference.page import Page, part_or_none
from n2n_lightning.inference.texture import BLOCK_SIDE, put_back
from n2n_lightning.serve.prepared import PreparedFile, PreparedPage
from n2n_lightning.serve.shown import View

FIRST_SIDE = 256  # rows and columns that are shown first
# Pixels around the middle that the network is shown at most. The bundled one sees 82 on each side;
# of three Kodak crops with noise of sigma 10 and 50 the largest error was 0.0005 of the range with
# 48, 0.005 with 32, 0.00006 with 64. What follows has the whole halo.
MIDDLE_HALO = 48
# Sides of the tiles that follow, by the spatial axes of the network: larger ones need longer,
# smaller ones see their halo more often.
TILE_SIDES = {2: 512, 3: 128}

TilePlace = tuple[slice, ...]


@dataclass
class PagePreview:
    """A page whose tiles are denoised in any order.

    Attributes:
        file: it is of.
        prepared: the page.
        done: tiles that are denoised, by their corners.
        complete: all are, and texture is put back.
    """

    file: PreparedFile
    prepared: PreparedPage
    page: Page = field(init=False)
    done: dict[tuple[int, ...], TilePlace] = field(default_factory=dict)
    complete: bool = False

    def __post_init__(self) -> None:
        self.page = self.prepared.pages.at(self.prepared.place)
        self.model = self.file.model
        self.options = self.file.options
        self.together = self.prepared.pages.together
        self._sink: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Bytes of the result so far."""
        return 0 if self._sink is None else self._sink.nbytes

    def begin(self, dtype: np.dtype) -> None:
        """Make room for the result.

        Args:
            dtype: its type.
        """
        if self._sink is None:
            self._sink = np.empty(self.page.source.shape, dtype)
            self.page.sink = self._sink

    def middle(self, view: View) -> TilePlace:
        """Return the middle of what is visible of the page."""
        rows = self._visible(view.rows, self.prepared.first_row, 0)
        columns = self._visible(view.columns, self.prepared.first_column, 1)
        return self._in_space(_central(rows), _central(columns))

    def tiles(self, view: View) -> list[TilePlace]:
        """Return the tiles that are not done yet, the visible ones nearest to the middle first.

        Args:
            view: what is visible.
        """
        side = TILE_SIDES[self.model.dims]
        height, width = self._plane_size()
        rows = self._visible(view.rows, self.prepared.first_row, 0)
        columns = self._visible(view.columns, self.prepared.first_column, 1)
        middle_row = (rows.start + rows.stop) / 2
        middle_column = (columns.start + columns.stop) / 2
        ordered = []
        for top, left in product(range(0, height, side), range(0, width, side)):
            tile_rows = slice(top, min(top + side, height))
            tile_columns = slice(left, min(left + side, width))
            place = self._in_space(tile_rows, tile_columns)
            if _corner(place) in self.done:
                continue
            hidden = not (_meet(tile_rows, rows) and _meet(tile_columns, columns))
            down = (tile_rows.start + tile_rows.stop) / 2 - middle_row
            along = (tile_columns.start + tile_columns.stop) / 2 - middle_column
            ordered.append((hidden, down**2 + along**2, top, left, place))
        return [place for *_, place in sorted(ordered, key=lambda tile: tile[:4])]

    def quick(self, place: TilePlace, strength: float) -> np.ndarray:
        """Denoise a place by itself; its texture is judged by what it has itself.

        Args:
            place: of the page.
            strength: share of the result.

        Returns:
            Not rounded, (h, w, C).
        """
        denoised = self._denoised(place, min(halo_of(self.model), MIDDLE_HALO))
        sink = np.empty(self.page.source[place].shape, np.float32)
        part = _cut_of(self.page, place, sink)
        part.write(_everywhere(part), denoised)
        return self._finished(part, strength, texture=True)

    def add(self, place: TilePlace) -> None:
        """Denoise a tile into the result.

        Args:
            place: one of `tiles`.
        """
        denoised = self._denoised(place, halo_of(self.model))
        self.page.write(place, denoised)
        self.done[_corner(place)] = place

    def finish(self) -> None:
        """Put texture back into the page, of which all tiles are done."""
        if not self.complete and self._has_texture():
            put_back(self.page, self.together)
        self.complete = True

    def result(self, place: TilePlace, strength: float) -> np.ndarray:
        """Return a place of the result, which is final when the page is complete.

        Args:
            place: of the page, of tiles that are done.
            strength: share of the result.

        Returns:
            Of the type of the result, (h, w, C).
        """
        part = _cut_of(self.page, place, self.page.sink[place].copy())
        return self._finished(part, strength, texture=not self.complete)

    def visible(self, view: View) -> TilePlace:
        """Return what is visible of the page."""
        rows = self._visible(view.rows, self.prepared.first_row, 0)
        columns = self._visible(view.columns, self.prepared.first_column, 1)
        return self._in_space(rows, columns)

    def _has_texture(self) -> bool:
        return self.model.blind and self.model.dims == 2 and not self.options.uneven

    def _finished(self, part: Page, strength: float, texture: bool) -> np.ndarray:
        """Return a part with its texture and mixed with the source, as a plane (h, w, C)."""
        if texture and self._has_texture():
            put_back(part, self.together)
        if strength != 1:
            part.mix(strength)
        *_, height, width, channels = part.sink.shape
        return part.sink.reshape(height, width, channels)

    def _denoised(self, place: TilePlace, halo: int) -> torch.Tensor:
        """Return the output of the network at a place, (C, ...), which it sees with a halo."""
        align = self.model.multiple
        outer = []
        for part, length in zip(place, self.page.size, strict=True):
            start = max(0, part.start - halo) // align * align
            stop = min(part.stop + halo, length)
            outer.append(slice(start, stop))
        run = self.model.run_on_tiles(self.together, self.options.tta)
        with torch.inference_mode():
            output = run(self.page.read(tuple(outer))[None])[0]
        within = inside_of(place, tuple(outer))
        return output[(slice(None), *within)]

    def _plane_size(self) -> tuple[int, int]:
        *_, height, width = self.page.size
        return height, width

    def _visible(self, part: slice, first: int, axis: int) -> slice:
        """Return the visible rows or columns of the page."""
        length = self._plane_size()[axis]
        return slice(max(0, part.start - first), min(part.stop - first, length))

    def _in_space(self, rows: slice, columns: slice) -> TilePlace:
        """Return rows and columns, of a volume with the plane that is visible."""
        plane = self.prepared.plane
        if self.model.dims == 2 or plane is None:
            return rows, columns
        return slice(plane, plane + 1), rows, columns


def _cut_of(page: Page, place: TilePlace, sink: np.ndarray) -> Page:
    """Return a part of a page with a result of its own."""
    invalid = part_or_none(page.invalid, place)
    part = Page(page.source[place], sink, page.colours, page.limits, page.device, invalid)
    part.nodata_values = page.nodata_values
    part.usual_residuals = page.usual_residuals
    left = np.column_stack(inside(page.outliers.left, place))
    part.outliers = PageOutliers(left, left[:0])
    return part


def _everywhere(page: Page) -> TilePlace:
    return tuple(slice(0, length) for length in page.size)


def _central(part: slice) -> slice:
    """Return the middle of some rows; its start is that of a block of texture."""
    length = part.stop - part.start
    if length <= FIRST_SIDE:
        return part
    start = part.start + (length - FIRST_SIDE) // 2
    start = max(part.start, start // BLOCK_SIDE * BLOCK_SIDE)
    return slice(start, start + FIRST_SIDE)


def _corner(place: TilePlace) -> tuple[int, ...]:
    return tuple(part.start for part in place)


def _meet(part: slice, other: slice) -> bool:
    return part.start < other.stop and other.start < part.stop
