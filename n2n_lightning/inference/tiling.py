"""Images and volumes of any size through a network, in blended, overlapping tiles: memory does not grow with them."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from n2n_lightning.arrays.axes import HEIGHT, WIDTH, cropped, flips
from n2n_lightning.arrays.axes import along as beside
from n2n_lightning.arrays.axes import size as size_of
from n2n_lightning.files import InputError
from n2n_lightning.networks import pad_to_multiple

# By the number of spatial axes: sides of tiles, and by how much they overlap where it is not known
# how far a network sees.
TILES, OVERLAPS = {2: 1024, 3: 112}, {2: 96, 3: 32}
TILED_PIXELS = 1280 * 1280  # pixels of an image that is scored in tiles
SCORING_TILES = {2: 512, 3: TILES[3]}  # their sides: training needs memory beside them
MARGIN = 7 / 16  # of an overlap, in which a tile counts nothing
Place = tuple[slice, ...]


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
    """0 over the first MARGIN of it, 1 over the last, half a cosine between them."""
    position = (torch.arange(length) + 0.5) / length
    return 0.5 - 0.5 * (math.pi * ((position - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)).cos()


def overlap_of(network: Any, dims: int) -> int:
    """By how many pixels tiles overlap: where a network has a `reach`, so that they have the result of the whole image.

    Those of volumes by no more than OVERLAPS, for what is computed twice grows with all three
    sides.
    """
    reach = getattr(network, "receptive_radius", None)
    needed = OVERLAPS[dims] if reach is None else math.ceil(reach / MARGIN)
    return needed if dims == 2 else min(needed, OVERLAPS[dims])


def least_tile(overlap: int, multiple: int) -> int:
    """The smallest side of tiles that overlap so much, on both sides."""
    return 2 * (-(-overlap // multiple) * multiple)


def tile_of(dims: int, overlap: int, multiple: int) -> int:
    """The side of tiles where none is asked for."""
    return max(TILES[dims], least_tile(overlap, multiple))


def spans(length: int, tile: int | None, multiple: int, overlap: int = OVERLAPS[2]) -> list[Span]:
    """The tiles along an axis. All start at multiples of `multiple`, so that a network that halves the size sees the
    same pairs of pixels as in the whole image; all but the last have the same length.

    Raises:
        InputError: the tile is too small for its overlaps.

    >>> [(span.start, span.stop) for span in spans(500, 256, 8)]
    [(0, 256), (160, 416), (320, 500)]
    """
    least = least_tile(overlap, multiple)
    overlap = least // 2
    if tile is None or length <= tile:
        return [Span(0, length, 0, 0)]
    if tile < least:
        raise InputError(
            "tile", tile, f"must be {least} or more, for tiles overlap by {overlap} pixels"
        )
    step = -(-tile // multiple) * multiple - overlap
    starts = list(range(0, length - overlap, step))
    return [
        Span(
            s,
            min(s + step + overlap, length),
            overlap if s else 0,
            overlap if s != starts[-1] else 0,
        )
        for s in starts
    ]


def tiled(
    network: Callable[[Tensor], Tensor],
    read: Callable[[Place], Tensor],
    write: Callable[[Place, Tensor], Any],
    size: Sequence[int],
    tile: int | None,
    multiple: int = 1,
    batch: int = 1,
    advance: Callable[[int], Any] = lambda tiles: None,
    overlap: int | None = None,
) -> None:
    """Denoises an image or a volume piece by piece.

    Args:
        network: (B, C, h, w) -> (B, C, h, w); of volumes (B, C, d, h, w).
        read: the pixels of a place, a slice of each spatial axis: (C, h, w).
        write: takes a place and its result (C, h, w); every pixel once.
        size: (H, W) or (D, H, W) of the image.
        tile: sides of the tiles in pixels; None: the whole image at once.
        multiple: what the network needs sizes to be divisible by.
        batch: tiles that go through the network together.
        advance: called with the number of tiles that were finished.
        overlap: of neighbouring tiles, in pixels; None: OVERLAPS.
    """
    each = [
        spans(length, tile, multiple, OVERLAPS[len(size)] if overlap is None else overlap)
        for length in size
    ]
    # Bands of tiles follow one another along the longest side, so that what is held between them is
    # small.
    along = max(range(len(size)), key=lambda axis: size[axis])
    inner = list(product(*(each[axis] for axis in range(len(size)) if axis != along)))

    def place(band: Span, others: tuple[Span, ...]) -> tuple[Span, ...]:
        return (*others[:along], band, *others[along:])

    carried: Tensor | None = None  # what the band before has added to the first pixels of this one
    for band in each[along]:
        total: Tensor | None = None
        for group in _groups(inner, batch):
            tiles = [place(band, others) for others in group]
            pixels = [read(tuple(slice(s.start, s.stop) for s in spans_)) for spans_ in tiles]
            for spans_, output in zip(tiles, network(torch.stack(pixels)), strict=True):
                if total is None:
                    sides = [
                        band.stop - band.start if axis == along else n
                        for axis, n in enumerate(size)
                    ]
                    total = output.new_zeros(output.shape[0], *sides)
                here = total
                weighted = output
                for axis, span in enumerate(spans_):
                    if axis != along:
                        here = here.narrow(axis + 1, span.start, span.stop - span.start)
                    if span.before or span.after:
                        weighted = weighted * beside(span.weights().to(output), axis, len(size))
                here += weighted
            advance(len(group))
        assert total is not None
        if carried is not None:
            total.narrow(along + 1, 0, band.before).add_(carried)
        done = band.stop - band.after - band.start
        carried = total.narrow(along + 1, done, band.after).clone() if band.after else None
        finished = [
            slice(band.start, band.start + done) if axis == along else slice(0, n)
            for axis, n in enumerate(size)
        ]
        write(tuple(finished), total.narrow(along + 1, 0, done))


def _groups(inner: list[tuple[Span, ...]], batch: int) -> Iterator[list[tuple[Span, ...]]]:
    """Up to `batch` neighbouring tiles of the same sides."""

    def sides(spans_: tuple[Span, ...]) -> list[int]:
        return [span.stop - span.start for span in spans_]

    group: list[tuple[Span, ...]] = []
    for others in inner:
        if group and (len(group) == batch or sides(others) != sides(group[0])):
            yield group
            group = []
        group.append(others)
    yield group


def in_tiles(
    network: Callable[[Tensor], Tensor], images: Tensor, overlap: int | None = None
) -> Tensor:
    """What a network makes of images (B, C, H, W) or volumes; large ones go through it in tiles."""
    size = size_of(images)
    if math.prod(size) <= TILED_PIXELS:
        return network(images)
    multiple, dims = 32, len(size)
    overlap = OVERLAPS[dims] if overlap is None else overlap
    tile = max(SCORING_TILES[dims], least_tile(overlap, multiple))
    results: list[Tensor] = []
    for image in images:
        found: list[Tensor] = []

        def read(place: Place, image: Tensor = image) -> Tensor:
            return image[(slice(None), *place)]

        def keep(
            place: Place, values: Tensor, found: list[Tensor] = found, image: Tensor = image
        ) -> None:
            if not found:
                found.append(values.new_empty(len(values), *image.shape[1:]))
            found[0][(slice(None), *place)] = values

        tiled(network, read, keep, size, tile, multiple, overlap=overlap)
        results += found
    return torch.stack(results)


def averaged(network: Callable[[Tensor], Tensor], multiple: int = 1) -> Callable[[Tensor], Tensor]:
    """The mean over the 8 flips and quarter turns of the input, each turned back: (B, C, H, W) -> the same.

    Images are padded to a multiple of `multiple` first, so that what the network pads does not move
    with the turns.
    """

    def denoise(image: Tensor) -> Tensor:
        size = size_of(image)
        image = pad_to_multiple(image, multiple)
        total: Any = 0.0
        count = 0
        for turned in (False, True):
            for dims in flips(image):
                x = image.transpose(HEIGHT, WIDTH) if turned else image
                y = network(x.flip(dims)).flip(dims)
                total = total + (y.transpose(HEIGHT, WIDTH) if turned else y)
                count += 1
        whole: Tensor = cropped(total, size)
        return whole / count

    return denoise
