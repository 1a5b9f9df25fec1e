"""Dead leaves: generated images with the statistics of photographs, to train on without any.

Opaque shapes fall on one another until they cover everything. With radii r of density r^-3 the
pictures have the scale invariance and the edges of natural images (Lee, Mumford and Huang, IJCV
2001), and denoisers trained on them come close to those trained on photographs (Achddou, Gousseau
and Ladjal, SSVM 2021).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data.generated.random_fields import (
    frequencies,
    numpy_generator,
    of_photographs,
    reduced,
    rotated,
)

SMALLEST_RADIUS = 10.0  # at twice the resolution of the image
LARGEST_RADIUS = 400.0
UNCOVERED = 0.002  # share of the pixels that are left to the ground: the last leaves take long
MAX_ROUGHNESS = 30  # standard deviation of a leaf's texture, of 255


def dead_leaves(
    count: int,
    size: int,
    colours: Sequence[Tensor],
    seed: int,
) -> list[Tensor]:
    """Generate images, each a pure function of (seed, its number).

    Args:
        count: how many.
        size: pixels of a side.
        colours: photographs (3, H, W), uint8; each image takes the colours of its leaves from one
            of them, with red, green and blue in random order.
        seed: of the images.

    Returns:
        (3, size, size), uint8.
    """
    return of_photographs("dead leaves", _leaves, count, size, colours, seed)


def _leaves(
    size: int,
    photo: Tensor,
    draws: torch.Generator,
) -> Tensor:
    """Draw leaves from front to back, at twice the size."""
    random = numpy_generator(draws)
    side = 2 * size
    canvas = np.zeros((side, side, 3), np.float32)
    empty = np.ones((side, side), bool)
    pixels = photo.flatten(1).T.numpy().astype(np.float32)
    palette = pixels[:, random.permutation(3)]
    texture = _natural_texture(side, random)
    missing = empty.size
    while missing > UNCOVERED * empty.size:
        radius = _radius(random)
        centre = random.uniform(-radius, side + radius, 2)
        window = (_span(centre[0], radius), _span(centre[1], radius))
        uncovered = empty[window]
        if not uncovered.any():
            continue
        along, inside = _shape(window, uncovered.shape, centre, radius, random)
        leaf = uncovered & inside
        rough = texture[window][leaf]
        canvas[window][leaf] = _leaf_colour(palette, along[leaf], rough, random)
        empty[window] &= ~leaf
        missing -= int(leaf.sum())
    ground = random.integers(0, len(palette))
    canvas[empty] = palette[ground]
    return reduced(canvas)


def _radius(random: np.random.Generator) -> float:
    """Draw a radius of density r^-3, by the inverse of its cumulative distribution."""
    smallest = SMALLEST_RADIUS**-2
    largest = LARGEST_RADIUS**-2
    power = smallest + random.random() * (largest - smallest)
    return power**-0.5


def _span(centre: float, radius: float) -> slice:
    """Return the pixels along an axis that a leaf may cover."""
    start = int(centre - radius)
    stop = int(centre + radius) + 1
    return slice(max(0, start), max(0, stop))


def _shape(
    window: tuple[slice, slice],
    shape: tuple[int, ...],
    centre: np.ndarray,
    radius: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw an ellipse or rectangle: distances from its centre along one axis, and its pixels.

    Args:
        window: the pixels.
        shape: their number along each axis.
        centre: row and column.
        radius: half of the longer axis, in pixels.
        random: random generator.
    """
    height, width = shape
    top = window[0].start
    left = window[1].start
    rows = np.arange(top, top + height, dtype=np.float32)
    columns = np.arange(left, left + width, dtype=np.float32)
    centre_y, centre_x = centre
    y = rows[:, None] - centre_y
    x = columns - centre_x
    angle, stretch, kind = random.uniform((0, 0.3, 0), (np.pi, 1, 3))
    along, across = rotated(x, y, angle)
    along = along / radius
    across = across / (radius * stretch)
    if kind < 2:
        squared_distance = along * along + across * across
        return along, squared_distance < 1
    distance = np.maximum(np.abs(along), np.abs(across))  # a third are rectangles
    return along, distance < 0.7


def _leaf_colour(
    palette: np.ndarray, along: np.ndarray, texture: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Return the colours of a leaf's pixels, (n, 3): of the photograph, shaded and rough.

    Args:
        palette: colours to choose from, (m, 3).
        along: distances from the centre along one axis, (n,).
        texture: values of standard deviation 1, (n,).
        random: random generator.
    """
    chosen = random.integers(0, len(palette), 2)
    first, second = palette[chosen]
    shade = max(0, random.uniform(-1, 0.5))  # a third of the leaves is shaded
    rough = max(0, random.uniform(-MAX_ROUGHNESS, MAX_ROUGHNESS))
    mixture = shade * (along + 1) / 2
    colour = first + (second - first) * mixture[:, None]
    roughness = rough * texture
    return colour + roughness[:, None]


def _natural_texture(side: int, random: np.random.Generator) -> np.ndarray:
    """Draw (side, side) with the power spectrum of natural images, 1/f^2, standard deviation 1."""
    white = random.standard_normal((side, side))
    rows, columns = frequencies(white.shape)
    frequency = np.maximum(np.hypot(rows, columns), 8 / side)
    spectrum = np.fft.rfft2(white) / frequency
    texture = np.fft.irfft2(spectrum, white.shape).astype(np.float32)
    return texture / texture.std()
