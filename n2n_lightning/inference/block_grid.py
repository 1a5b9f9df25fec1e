"""The blocks in which a large array is denoised: fixed by the array and by what the network sees.

Blocks are whole numbers of the pieces in which a file is stored. Pages that fit into one are not
divided: each gets the result that it has by itself. Others are divided, and each block is read with
a halo as wide as the network sees, so that no seam is left.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from n2n_lightning.formats.regions import Region, whole_pieces
from n2n_lightning.inference.texture import BLOCK_SIDE
from n2n_lightning.inference.tiling import MARGIN

# The values of a block in memory, as float32: 64 MiB, so that a worker with the bundled network
# stays near 600 MiB (a sum of arrays, not measured).
BLOCK_VOXELS = 2**24
# Pages are collected up to so many pixels: under a minute of the bundled network on one thread,
# which is what a killed process loses.
COLLECTED_VOXELS = 2**23
# Of divided pages and volumes, by the number of spatial axes, where chunks allow.
DIVIDED_SIDES = {2: 2048, 3: 256}


@dataclass(frozen=True)
class Block:
    """A part of an array that is denoised at once.

    Attributes:
        name: of its claim.
        inner: what it is responsible for.
        outer: what is read for it: `inner` and its halo.
    """

    name: str
    inner: Region
    outer: Region

    @property
    def within(self) -> Region:
        """The place of `inner` in an array of `outer`."""
        return inside_of(self.inner, self.outer)


def inside_of(region: Region, outer: Region) -> Region:
    """Return the place of a region in an array of another one that holds it."""
    parts = []
    for part, whole in zip(region, outer, strict=True):
        parts.append(slice(part.start - whole.start, part.stop - whole.start))
    return tuple(parts)


@dataclass(frozen=True)
class BlockGrid:
    """All blocks of an array.

    Attributes:
        shape: of the array.
        sides: of the blocks, along each axis.
        halo: pixels that are read around a block, along each axis; 0 where it is not divided.
        align: what the first of them is a multiple of.
    """

    shape: tuple[int, ...]
    sides: tuple[int, ...]
    halo: tuple[int, ...]
    align: int

    @property
    def divided(self) -> bool:
        """True if pages are divided."""
        return any(self.halo)

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks in the order in which the array is stored."""
        for inner in whole_pieces(self.shape, self.sides):
            name = "block " + ".".join(str(part.start) for part in inner)
            yield Block(name, inner, self.with_halo(inner))

    def with_halo(self, inner: Region) -> Region:
        """Return a region with what the network sees around it."""
        outer = []
        for part, halo, length in zip(inner, self.halo, self.shape, strict=True):
            if not halo:
                outer.append(part)
                continue
            start = max(0, part.start - halo) // self.align * self.align
            stop = -(-(part.stop + halo) // self.align) * self.align
            outer.append(slice(start, min(stop, length)))
        return tuple(outer)


def grid_of(
    model: Any,
    shape: Sequence[int],
    axes: str,
    chunks: Sequence[int],
    voxels: int | None = None,
) -> BlockGrid:
    """Choose the blocks of an array.

    Args:
        model: the denoiser.TrainedDenoiser.
        shape: of the array.
        axes: its letters, as `page.page_axes` reads them.
        chunks: sides of the pieces in which it is stored.
        voxels: of a block, about; more where a single piece has more. None: BLOCK_VOXELS.

    Returns:
        The blocks; all channels are in one.
    """
    spatial = "DHW" if model.dims == 3 else "HW"
    voxels = voxels or BLOCK_VOXELS
    sides = list(chunks)
    for axis, letter in enumerate(axes):
        if letter == "C" or letter in spatial:
            sides[axis] = shape[axis]
    divided = math.prod(sides) > voxels
    if divided:
        _divide(sides, shape, axes, chunks, spatial, voxels)
    else:
        _collect(sides, shape, axes, spatial, min(voxels, COLLECTED_VOXELS))
    halo = halo_of(model)
    align = math.lcm(BLOCK_SIDE, model.multiple)
    halos = []
    for axis, letter in enumerate(axes):
        is_divided = letter in spatial and sides[axis] < shape[axis]
        halos.append(halo if is_divided else 0)
    return BlockGrid(tuple(shape), tuple(sides), tuple(halos), align)


def halo_of(model: Any) -> int:
    """Return how many pixels around a block its result depends on.

    In volumes it is half of the overlap of tiles, in the middle of which tiles meet: networks see
    further there, and what is read grows with all three sides.

    Args:
        model: the denoiser.TrainedDenoiser.

    Returns:
        Pixels.
    """
    if model.dims == 3:
        return -(-model.overlap // 2)
    return math.ceil(model.overlap * MARGIN)


def _divide(
    sides: list[int],
    shape: Sequence[int],
    axes: str,
    chunks: Sequence[int],
    spatial: str,
    voxels: int,
) -> None:
    """Shorten the spatial sides of a block, in place, to whole chunks and about cubes."""
    others = 1
    for axis, letter in enumerate(axes):
        if letter not in spatial:
            others *= sides[axis]
    of_page = max(1, voxels // others)
    wanted = min(DIVIDED_SIDES[len(spatial)], round(of_page ** (1 / len(spatial))))
    for axis, letter in enumerate(axes):
        if letter in spatial:
            chunk = chunks[axis]
            side = max(1, wanted // chunk) * chunk
            if chunk == 1:  # any side: one that texture and networks divide
                side = max(BLOCK_SIDE, side // BLOCK_SIDE * BLOCK_SIDE)
            sides[axis] = min(side, shape[axis])


def _collect(sides: list[int], shape: Sequence[int], axes: str, spatial: str, voxels: int) -> None:
    """Lengthen the stacked sides of a block, in place, the last axis first."""
    for axis in reversed(range(len(axes))):
        if axes[axis] == "C" or axes[axis] in spatial:
            continue
        count = max(1, voxels // math.prod(sides))
        sides[axis] = min(shape[axis], sides[axis] * count)
        if sides[axis] < shape[axis]:
            return
