"""Generated pictures of fabrics, fine and nearly regular texture next to smooth surfaces.

Knitwear, weaves, fur and sand have as much contrast between neighbouring pixels as noise has. They
differ from it in that threads come in rows, that brighter colours vary more, and that surfaces next
to them do not vary. Networks that are trained on them tell cloth from noise.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.data.generated.random_fields import blurred, numpy_generator, smooth_field
from n2n_lightning.randomness import generator

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
    images = []
    for i in range(count):
        photo = colours[i % len(colours)]
        images.append(_surfaces(size, photo, generator(seed, "fabrics", i)))
    return images


def _surfaces(
    size: int,
    photo: Tensor,
    draws: torch.Generator,
) -> Tensor:
    """Draw three to seven lit surfaces, at twice the size: averaging 2 x 2 pixels smooths edges."""
    random = numpy_generator(draws)
    side = 2 * size
    palette = photo.flatten(1).T.numpy()
    heights = []
    for _ in range(random.integers(3, 8)):
        heights.append(smooth_field(side, random.uniform(80, 400), random))
    surface = np.argmax(heights, 0)
    kinds = (_plain, _threads, _threads, _hair, _sand)
    canvas = np.zeros((side, side, 3), np.float32)
    for number in range(surface.max() + 1):
        inside = surface == number
        colour = palette[random.integers(len(palette))].astype(np.float32)
        light = np.exp(0.3 * smooth_field(side, random.uniform(100, 600), random))
        draw = kinds[random.integers(len(kinds))]
        texture = draw(side, random)
        contrast = _log_uniform(random, 0.03, 0.5)
        brightness = light * np.maximum(1 + contrast * texture, 0)
        canvas[inside] = colour * brightness[inside][:, None]
    image = F.avg_pool2d(torch.from_numpy(canvas).permute(2, 0, 1), 2)
    return image.round().clamp(0, 255).to(torch.uint8)


def _log_uniform(
    random: np.random.Generator,
    low: float,
    high: float,
) -> float:
    return np.exp(random.uniform(np.log(low), np.log(high)))


def _plain(side: int, random: np.random.Generator) -> Texture:
    return np.zeros((side, side), np.float32)


def _threads(side: int, random: np.random.Generator) -> Texture:
    """Draw stitches of a knit, or of a weave where they do not slant, in bent rows."""
    period = 2 * _log_uniform(random, 2.5, 14)
    y, x = np.mgrid[:side, :side].astype(np.float32) / period
    bent = random.uniform(0, 3)
    y = y + bent * smooth_field(side, random.uniform(100, 400), random)
    x = x + bent * smooth_field(side, random.uniform(100, 400), random)
    angle, stretch, slant = random.uniform((0, 0.6, 0), (np.pi, 1.7, 0.8))
    across = np.cos(angle) * x + np.sin(angle) * y
    along = np.cos(angle) * y - np.sin(angle) * x
    along = along * stretch
    place = across % 1
    shifted = along + slant * np.abs(2 * place - 1)
    thread = np.sin(np.pi * place) ** random.uniform(0.3, 2)
    row_of_stitches = 0.5 + 0.5 * np.cos(2 * np.pi * shifted)
    stitch = thread * row_of_stitches
    contrast = random.uniform(0, 0.5)
    brightness = np.exp(contrast * random.standard_normal((64, 64)))
    row = np.floor(shifted + 0.5).astype(int) % 64
    column = np.floor(across).astype(int) % 64
    stitch = stitch * brightness[row, column]
    fibres = blurred(random.standard_normal((side, side)), random.uniform(0.8, 1.6))
    return _standardised(_standardised(stitch) + random.uniform(0, 0.5) * _standardised(fibres))


def _hair(side: int, random: np.random.Generator) -> Texture:
    """Draw lines in one direction: noise that is blurred along it."""
    rows = np.fft.fftfreq(side)[:, None]
    columns = np.fft.rfftfreq(side)[None]
    angle, thin, long = random.uniform((0, 0.8, 6), (np.pi, 2.5, 40))
    normal = angle + np.pi / 2
    along = np.cos(angle) * columns + np.sin(angle) * rows
    across = np.cos(normal) * columns + np.sin(normal) * rows
    reach = (long * along) ** 2 + (thin * across) ** 2
    gain = np.exp(-2 * np.pi**2 * reach)
    spectrum = np.fft.rfft2(random.standard_normal((side, side))) * gain
    return _standardised(np.fft.irfft2(spectrum, (side, side)))


def _sand(side: int, random: np.random.Generator) -> Texture:
    """Draw grains without a direction: by their look alone they are noise."""
    white = random.standard_normal((side, side))
    grains = _standardised(blurred(white, random.uniform(0.8, 3)))
    return _standardised(np.exp(random.uniform(0.1, 0.8) * grains))


def _standardised(texture: np.ndarray) -> Texture:
    """Return values of mean 0 and standard deviation 1."""
    deviation = max(float(texture.std()), 1e-9)
    return ((texture - texture.mean()) / deviation).astype(np.float32)
