"""Images of any size through a network, in blended, overlapping tiles: memory does not grow with the image."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from n2n_lightning.axes import HEIGHT, WIDTH
from n2n_lightning.files import InputError

TILE, OVERLAP = 768, 96


class Span(NamedTuple):
    """Pixels start..stop-1 of an axis; `before` and `after` of them overlap with the neighbours'."""

    start: int
    stop: int
    before: int
    after: int

    def weights(self) -> Tensor:
        """The share of this tile in the result at each pixel; those of all tiles add up to 1 everywhere.

        Next to its border a tile counts nothing, for there the network lacks the pixels beyond it.
        """
        weights = torch.ones(self.stop - self.start)
        if self.before:
            weights[: self.before] = _ramp(self.before)
        if self.after:
            weights[-self.after :] = 1 - _ramp(self.after)
        return weights


def _ramp(length: int) -> Tensor:
    """0 over the first 3/8, 1 over the last 3/8, half a cosine between them."""
    position = (torch.arange(length) + 0.5) / length
    return 0.5 - 0.5 * (math.pi * (4 * position - 1.5).clamp(0, 1)).cos()


def spans(length: int, tile: int | None, multiple: int) -> list[Span]:
    """The tiles along an axis. All start at multiples of `multiple`, so that a network that halves the size sees the
    same pairs of pixels as in the whole image; all but the last have the same length.

    Raises:
        InputError: the tile is too small for its overlaps.

    >>> [(span.start, span.stop) for span in spans(500, 256, 8)]
    [(0, 256), (160, 416), (320, 500)]
    """
    overlap = -(-OVERLAP // multiple) * multiple
    if tile is None or length <= tile:
        return [Span(0, length, 0, 0)]
    if tile < 2 * overlap:
        raise InputError(f"tile={tile}: must be {2 * overlap} or more, for tiles overlap by {overlap} pixels")
    step = -(-tile // multiple) * multiple - overlap
    starts = list(range(0, length - overlap, step))
    return [
        Span(s, min(s + step + overlap, length), overlap if s else 0, overlap if s != starts[-1] else 0) for s in starts
    ]


def tiled(
    network: Callable[[Tensor], Tensor],
    read: Callable[[slice, slice], Tensor],
    write: Callable[[slice, slice, Tensor], Any],
    size: tuple[int, int],
    tile: int | None = TILE,
    multiple: int = 1,
    batch: int = 1,
    advance: Callable[[int], Any] = lambda tiles: None,
) -> None:
    """Denoises an image piece by piece.

    Args:
        network: (B, C, h, w) -> (B, C, h, w).
        read: the pixels of some rows and columns, (C, h, w).
        write: takes rows, columns and their result (C, h, w); every pixel once.
        size: height and width of the image.
        tile: height and width of the tiles in pixels; None: the whole image at once.
        multiple: what the network needs sizes to be divisible by.
        batch: tiles that go through the network together.
        advance: called with the number of tiles that were finished.
    """
    rows, columns = (spans(length, tile, multiple) for length in size)
    # A band of tiles goes across the shorter side, so that what is held between bands is small for any shape.
    tall = size[0] >= size[1]
    outer, inner = (rows, columns) if tall else (columns, rows)
    along, athwart = (HEIGHT, WIDTH) if tall else (WIDTH, HEIGHT)  # the dimension in which bands follow one another

    carried: Tensor | None = None  # what the band before has added to the first pixels of this one
    for band in outer:
        total: Tensor | None = None
        for group in _groups(inner, batch):
            pairs = [(band, span) if tall else (span, band) for span in group]
            pixels = [read(slice(y.start, y.stop), slice(x.start, x.stop)) for y, x in pairs]
            for (y, x), output in zip(pairs, network(torch.stack(pixels)), strict=True):
                if total is None:
                    full = (band.stop - band.start, inner[-1].stop)
                    total = output.new_zeros(output.shape[0], *(full if tall else full[::-1]))
                across = x if tall else y
                weights = y.weights()[:, None] * x.weights()
                place = total.narrow(athwart, across.start, across.stop - across.start)
                place += output * weights.to(output)
            advance(len(group))
        assert total is not None
        if carried is not None:
            total.narrow(along, 0, band.before).add_(carried)
        done = band.stop - band.after - band.start
        carried = total.narrow(along, done, band.after).clone() if band.after else None
        here, everything = slice(band.start, band.start + done), slice(0, inner[-1].stop)
        write(*((here, everything) if tall else (everything, here)), total.narrow(along, 0, done))


def _groups(inner: list[Span], batch: int) -> Iterator[list[Span]]:
    """Up to `batch` neighbouring tiles of the same length."""
    group: list[Span] = []
    for span in inner:
        if group and (len(group) == batch or span.stop - span.start != group[0].stop - group[0].start):
            yield group
            group = []
        group.append(span)
    yield group
