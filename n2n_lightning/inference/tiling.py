"""Images and volumes of any size through a network in blended, overlapping tiles."""

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
    """Pixels start..stop-1 of an axis; `before` and `after` overlap with the neighbours."""

    start: int
    stop: int
    before: int
    after: int

    def weights(self) -> Tensor:
        """Return the weight of this tile at each of its pixels; those of all tiles add up to 1.

        Next to its border a tile has weight 0, because the network lacks the pixels beyond it.
        """
        weights = torch.ones(self.stop - self.start)
        if self.before:
            weights[: self.before] = _ramp(self.before)
        if self.after:
            weights[-self.after :] = 1 - _ramp(self.after)
        return weights


def _ramp(length: int) -> Tensor:
    """Return 0 over the first MARGIN of the length, 1 over the last, half a cosine between them."""
    position = (torch.arange(length) + 0.5) / length
    return 0.5 - 0.5 * (math.pi * ((position - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)).cos()


def overlap_of(network: Any, dims: int) -> int:
    """Return the overlap of neighbouring tiles, in pixels.

    With a network that states its `receptive_radius`, tiles give the result of the whole image.
    Tiles of volumes overlap by OVERLAPS at most, because repeated work grows with all three sides.

    Args:
        network: the network.
        dims: spatial axes, 2 or 3.
    """
    radius = getattr(network, "receptive_radius", None)
    needed = OVERLAPS[dims] if radius is None else math.ceil(radius / MARGIN)
    return needed if dims == 2 else min(needed, OVERLAPS[dims])


def least_tile(overlap: int, multiple: int) -> int:
    """Return the smallest side of tiles.

    Args:
        overlap: with the neighbours, in pixels.
        multiple: divisor of their sides, see `spans`.
    """
    return 2 * (-(-overlap // multiple) * multiple)


def tile_of(dims: int, overlap: int, multiple: int) -> int:
    """Return the default side of tiles.

    Args:
        dims: spatial axes, 2 or 3.
        overlap: with the neighbours, in pixels.
        multiple: divisor of their sides, see `spans`.
    """
    return max(TILES[dims], least_tile(overlap, multiple))


def spans(length: int, tile: int | None, multiple: int, overlap: int = OVERLAPS[2]) -> list[Span]:
    """Divide an axis into tiles; all but the last have the same length.

    Args:
        length: of the axis, in pixels.
        tile: side of the tiles; None: one tile.
        multiple: divisor of the starts of all tiles, so that a network that halves the size pools
            the same pixels as in the whole image.
        overlap: of neighbouring tiles, in pixels.

    Returns:
        The tiles, in order.

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
    tiles = []
    for start in starts:
        stop = min(start + step + overlap, length)
        before = overlap if start else 0
        after = overlap if start != starts[-1] else 0
        tiles.append(Span(start, stop, before, after))
    return tiles


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
    """Denoise an image or a volume tile by tile.

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
    if overlap is None:
        overlap = OVERLAPS[len(size)]
    each = [spans(length, tile, multiple, overlap) for length in size]
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
    """Yield up to `batch` neighbouring tiles of the same sides."""

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
    """Apply a network to a batch; large images go through it in tiles.

    Args:
        network: (B, C, h, w) -> (B, C, h, w), or volumes.
        images: (B, C, H, W) or (B, C, D, H, W).
        overlap: of neighbouring tiles, in pixels; None: OVERLAPS.

    Returns:
        The denoised images, in the shape of the output of the network.
    """
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
    """Return a function that averages a network over the 8 flips and quarter turns of its input.

    Args:
        network: (B, C, H, W) -> (B, C, H, W), or volumes.
        multiple: images are padded to a multiple of it first, so that the padding of the network
            does not move with the turns.

    Returns:
        The function, with the shapes of the network.
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
