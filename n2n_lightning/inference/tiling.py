"""Images and volumes of any size through a network in blended, overlapping tiles."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from n2n_lightning.arrays.axes import HEIGHT, WIDTH, along, cropped, flips
from n2n_lightning.arrays.axes import size as size_of
from n2n_lightning.devices.memory import free_memory, out_of_memory, say_divided, tile_growth
from n2n_lightning.files import InputError
from n2n_lightning.networks import pad_to_multiple

# By the number of spatial axes.
TILES = {2: 1024, 3: 112}  # pixels: sides of tiles
OVERLAPS = {2: 96, 3: 32}  # pixels, for networks that do not state their receptive radius
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

    @property
    def length(self) -> int:
        """Number of its pixels."""
        return self.stop - self.start

    @property
    def pixels(self) -> slice:
        """Its pixels on the axis."""
        return slice(self.start, self.stop)

    def weights(self) -> Tensor:
        """Return the weight of this tile at each of its pixels; those of all tiles add up to 1.

        Next to its border a tile has weight 0, because the network lacks the pixels beyond it.

        Returns:
            Values from 0 to 1, (length,).
        """
        weights = torch.ones(self.length)
        if self.before:
            weights[: self.before] = _ramp(self.before)
        if self.after:
            weights[-self.after :] = 1 - _ramp(self.after)
        return weights


def _ramp(length: int) -> Tensor:
    """Return 0 over the first MARGIN of the length, 1 over the last, half a cosine between them."""
    position = (torch.arange(length) + 0.5) / length
    progress = (position - MARGIN) / (1 - 2 * MARGIN)
    angle = math.pi * progress.clamp(0, 1)
    return 0.5 - 0.5 * angle.cos()


def _rounded_up(pixels: int, multiple: int) -> int:
    """Return the next multiple, in pixels."""
    return -(-pixels // multiple) * multiple


def overlap_of(network: Any, dims: int) -> int:
    """Return the overlap of neighbouring tiles, in pixels.

    With a network that states its `receptive_radius`, tiles give the result of the whole image.
    Tiles of volumes overlap by OVERLAPS at most, because repeated work grows with all three sides.

    Args:
        network: the network.
        dims: spatial axes, 2 or 3.

    Returns:
        Pixels; OVERLAPS if the receptive radius is unknown.
    """
    radius = getattr(network, "receptive_radius", None)
    if radius is None:
        return OVERLAPS[dims]
    needed = math.ceil(radius / MARGIN)
    if dims == 3:
        needed = min(needed, OVERLAPS[dims])
    return needed


def least_tile(overlap: int, multiple: int) -> int:
    """Return the smallest side of tiles.

    Args:
        overlap: with the neighbours, in pixels.
        multiple: divisor of their sides, see `spans`.

    Returns:
        Pixels: twice the overlap, rounded up to a multiple.
    """
    return 2 * _rounded_up(overlap, multiple)


def tile_of(dims: int, overlap: int, multiple: int, device: str = "cpu") -> int:
    """Return the default side of tiles.

    Args:
        dims: spatial axes, 2 or 3.
        overlap: with the neighbours, in pixels.
        multiple: divisor of their sides, see `spans`.
        device: that of the network.

    Returns:
        Pixels: TILES, of images 2 or 4 times as much where a GPU has room for it, or more where the
        overlaps need it.
    """
    side = TILES[dims]
    if dims == 2:
        side *= tile_growth(device)
    return max(side, least_tile(overlap, multiple))


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
    step = _rounded_up(tile, multiple) - overlap
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
    tiles_along = [spans(length, tile, multiple, overlap) for length in size]
    # Bands of tiles follow one another along the longest side, so that what is held between them is
    # small.
    longest = list(size).index(max(size))
    bands = tiles_along.pop(longest)
    across = list(product(*tiles_along))
    carried: Tensor | None = None  # what the band before has added to the first pixels of this one
    for band in bands:
        total: Tensor | None = None
        for group in _groups(across, batch):
            tiles = [(*others[:longest], band, *others[longest:]) for others in group]
            inputs = []
            for spans_ in tiles:
                place = tuple(span.pixels for span in spans_)
                inputs.append(read(place))
            outputs = network(torch.stack(inputs))
            for spans_, output in zip(tiles, outputs, strict=True):
                if total is None:
                    sides = list(size)
                    sides[longest] = band.length
                    total = output.new_zeros(len(output), *sides)
                _add_weighted(total, output, spans_, longest)
            advance(len(group))
        assert total is not None
        if carried is not None:
            total.narrow(longest + 1, 0, band.before).add_(carried)
        done = band.length - band.after
        carried = None
        if band.after:
            carried = total.narrow(longest + 1, done, band.after).clone()
        finished = [slice(0, length) for length in size]
        finished[longest] = slice(band.start, band.start + done)
        write(tuple(finished), total.narrow(longest + 1, 0, done))


def _add_weighted(total: Tensor, output: Tensor, tile: Sequence[Span], band_axis: int) -> None:
    """Add the weighted result of a tile (C, h, w) to the sum of its band, in place."""
    target = total
    for axis, span in enumerate(tile):
        if axis != band_axis:
            target = target.narrow(axis + 1, span.start, span.length)
        if span.before or span.after:
            weights = span.weights().to(output)
            output = output * along(weights, axis, len(tile))
    target += output


def _groups(tiles: list[tuple[Span, ...]], batch: int) -> Iterator[list[tuple[Span, ...]]]:
    """Yield up to `batch` neighbouring tiles of the same sides."""
    group: list[tuple[Span, ...]] = []
    sides: list[int] = []
    for tile in tiles:
        sides_before = sides
        sides = [span.length for span in tile]
        if group and (len(group) == batch or sides != sides_before):
            yield group
            group = []
        group.append(tile)
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
    if overlap is None:
        overlap = OVERLAPS[len(size)]
    fitting = in_memory(network, overlap, multiple=32)
    return torch.stack([_image_in_tiles(fitting, image, overlap) for image in images])


def _image_in_tiles(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    overlap: int,
    multiple: int = 32,
    tile: int | None = None,
) -> Tensor:
    """Apply a network to an image (C, H, W), or a volume, in tiles."""
    size = image.shape[1:]
    if tile is None:
        tile = max(SCORING_TILES[len(size)], least_tile(overlap, multiple))
    result: Tensor | None = None

    def read(place: Place) -> Tensor:
        return image[:, *place]

    def write(place: Place, values: Tensor) -> None:
        nonlocal result
        if result is None:
            result = values.new_empty(len(values), *size)
        result[:, *place] = values

    tiled(network, read, write, size, tile, multiple, overlap=overlap)
    assert result is not None
    return result


def in_memory(
    network: Callable[[Tensor], Tensor], overlap: int, multiple: int
) -> Callable[[Tensor], Tensor]:
    """Return a network that divides what the memory of its device is too small for.

    A batch is halved, then each image, down to the smallest tile. What was too large once is
    divided at once from then on; a line says so.

    Args:
        network: (B, C, h, w) -> (B, C, h, w), or volumes.
        overlap: of neighbouring tiles, in pixels.
        multiple: divisor of their sides, see `spans`.

    Returns:
        The function, with the shapes and the result of the network.
    """
    most = math.inf  # pixels that fit

    def denoise(images: Tensor) -> Tensor:
        nonlocal most
        pixels = len(images) * math.prod(size_of(images))
        side = max(size_of(images))
        smallest = len(images) == 1 and side <= least_tile(overlap, multiple)
        if pixels < most or smallest:
            try:
                return network(images)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or smallest:
                    raise
            most = pixels  # outside the handler, whose traceback holds what was computed
            free_memory(images.device)
            say_divided(images)
        if len(images) > 1:
            half = len(images) // 2
            return torch.cat([denoise(images[:half]), denoise(images[half:])])
        tile = max(_rounded_up(side // 2, multiple), least_tile(overlap, multiple))
        return _image_in_tiles(denoise, images[0], overlap, multiple, tile)[None]

    return denoise


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
            x = image.transpose(HEIGHT, WIDTH) if turned else image
            for dims in flips(image):
                y = network(x.flip(dims)).flip(dims)
                if turned:
                    y = y.transpose(HEIGHT, WIDTH)
                total = total + y
                count += 1
        whole: Tensor = cropped(total, size)
        return whole / count

    return denoise
