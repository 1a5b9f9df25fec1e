"""Generated pictures of fabrics, fine and nearly regular texture next to smooth surfaces.

Knitwear, weaves, fur and sand have as much contrast between neighbouring pixels as noise has. They
differ from it in that threads come in rows, that brighter colours vary more, and that surfaces next
to them do not vary. Networks that are trained on them tell cloth from noise.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data.generated.random_fields import (
    blurred,
    filtered,
    frequencies,
    numpy_generator,
    of_photographs,
    reduced,
    rotated,
    smooth_field,
)

Texture = np.ndarray  # (side, side), at twice the resolution of the image


def fabrics(
    count: int,
    size: int,
    colours: Sequence[Tensor],
    seed: int,
) -> list[Tensor]:
    """Generate images, each a pure function of (seed, its number, colours).

    Args:
        count: how many.
        size: pixels of a side.
        colours: photographs (3, H, W), uint8; each image takes the colours of its surfaces from one
            of them.
        seed: of the images.

    Returns:
        (3, size, size), uint8.
    """
    return of_photographs("fabrics", _surfaces, count, size, colours, seed)


def _surfaces(
    size: int,
    photo: Tensor,
    draws: torch.Generator,
) -> Tensor:
    """Draw three to seven lit surfaces, at twice the size."""
    random = numpy_generator(draws)
    side = 2 * size
    palette = photo.flatten(1).T.numpy()
    heights = []
    for _ in range(random.integers(3, 8)):
        scale = random.uniform(80, 400)
        heights.append(smooth_field(side, scale, random))
    highest = np.argmax(heights, 0)
    canvas = np.zeros((side, side, 3), np.float32)
    for surface in range(highest.max() + 1):
        pixels = highest == surface
        colour = random.choice(palette).astype(np.float32)
        brightness = _brightness(side, random)[pixels]
        canvas[pixels] = colour * brightness[:, None]
    return reduced(canvas)


def _brightness(side: int, random: np.random.Generator) -> np.ndarray:
    """Draw the brightness of a surface: uneven light on a texture."""
    scale = random.uniform(100, 600)
    light = np.exp(0.3 * smooth_field(side, scale, random))
    kinds = (_plain, _threads, _threads, _hair, _sand)
    draw = kinds[random.integers(len(kinds))]
    texture = draw(side, random)
    contrast = _log_uniform(random, 0.03, 0.5)
    brightness = 1 + contrast * texture
    return light * np.maximum(brightness, 0)


def _log_uniform(
    random: np.random.Generator,
    low: float,
    high: float,
) -> float:
    logarithm = random.uniform(np.log(low), np.log(high))
    return np.exp(logarithm)


def _plain(side: int, random: np.random.Generator) -> Texture:
    return np.zeros((side, side), np.float32)


def _threads(side: int, random: np.random.Generator) -> Texture:
    """Draw stitches of a knit, or of a weave where they do not slant, in bent rows."""
    period = 2 * _log_uniform(random, 2.5, 14)
    y, x = np.mgrid[:side, :side].astype(np.float32) / period
    bent = random.uniform(0, 3)
    y = _bent(y, bent, random)
    x = _bent(x, bent, random)
    angle, stretch, slant = random.uniform((0, 0.6, 0), (np.pi, 1.7, 0.8))
    across, along = rotated(x, y, angle)
    along = along * stretch
    place = across % 1  # on the thread, from one edge to the other
    from_middle = np.abs(2 * place - 1)
    shifted = along + slant * from_middle
    profile = np.sin(np.pi * place) ** random.uniform(0.3, 2)
    phase = 2 * np.pi * shifted
    row_of_stitches = 0.5 + 0.5 * np.cos(phase)
    stitches = profile * row_of_stitches
    brightness = _brightness_of_stitches(shifted + 0.5, across, random)
    stitches = _standardised(stitches * brightness)
    white = random.standard_normal((side, side))
    fibres = blurred(white, random.uniform(0.8, 1.6))
    share = random.uniform(0, 0.5)
    return _standardised(stitches + share * _standardised(fibres))


def _brightness_of_stitches(
    along: np.ndarray, across: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Draw the brightness of each stitch, a unit of both coordinates; every 64 are alike."""
    contrast = random.uniform(0, 0.5)
    white = random.standard_normal((64, 64))
    brightness = np.exp(contrast * white)
    row = np.floor(along).astype(int)
    column = np.floor(across).astype(int)
    return brightness[row % 64, column % 64]


def _bent(coordinate: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Displace a coordinate (side, side), so that straight lines bend."""
    scale = random.uniform(100, 400)
    return coordinate + strength * smooth_field(len(coordinate), scale, random)


def _hair(side: int, random: np.random.Generator) -> Texture:
    """Draw lines in one direction: noise that is blurred along it."""
    angle, thin, long = random.uniform((0, 0.8, 6), (np.pi, 2.5, 40))
    white = random.standard_normal((side, side))
    rows, columns = frequencies(white.shape)
    along, _ = rotated(columns, rows, angle)
    across, _ = rotated(columns, rows, angle + np.pi / 2)
    along_hair = (long * along) ** 2
    across_hair = (thin * across) ** 2
    gain = np.exp(-2 * np.pi**2 * (along_hair + across_hair))
    hair = filtered(white, gain)
    return _standardised(hair)


def _sand(side: int, random: np.random.Generator) -> Texture:
    """Draw grains without a direction: by their look alone they are noise."""
    white = random.standard_normal((side, side))
    grains = blurred(white, random.uniform(0.8, 3))
    contrast = random.uniform(0.1, 0.8)
    brightness = np.exp(contrast * _standardised(grains))
    return _standardised(brightness)


def _standardised(texture: np.ndarray) -> Texture:
    """Return values of mean 0 and standard deviation 1."""
    deviation = max(float(texture.std()), 1e-9)
    texture = (texture - texture.mean()) / deviation
    return texture.astype(np.float32)
