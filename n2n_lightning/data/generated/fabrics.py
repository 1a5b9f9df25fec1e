"""Generated pictures of fabrics: fine and nearly regular texture beside smooth surfaces, to tell cloth from noise.

Knitwear, weaves, fur and sand have as much contrast between neighbouring pixels as noise has. What
tells them apart is that threads come in rows, that brighter colours vary more, and that surfaces
beside them do not vary.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.data.generated.random_fields import blurred, smooth_field
from n2n_lightning.randomness import generator

Texture = np.ndarray  # (side, side), at twice the resolution of the image


def fabrics(count: int, size: int, colours: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Generated images (3, size, size), uint8, each a pure function of (seed, its number, colours).

    Args:
        colours: photographs (3, H, W), uint8; each image takes the colours of its surfaces from one
            of them.
    """
    return [
        _image(size, colours[i % len(colours)], generator(seed, "fabrics", i)) for i in range(count)
    ]


def _image(size: int, photo: Tensor, draws: torch.Generator) -> Tensor:
    """Three to seven surfaces with light on them, at twice the size: averaging 2 x 2 pixels makes smooth edges."""
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=draws)))
    side = 2 * size
    palette = photo.flatten(1).T.numpy()
    surface = np.argmax(
        [smooth_field(side, random.uniform(80, 400), random) for _ in range(random.integers(3, 8))],
        0,
    )
    kinds = (_plain, _threads, _threads, _hair, _sand)
    canvas = np.zeros((side, side, 3), np.float32)
    for number in range(surface.max() + 1):
        inside = surface == number
        colour = palette[random.integers(len(palette))].astype(np.float32)
        light = np.exp(0.3 * smooth_field(side, random.uniform(100, 600), random))
        texture = kinds[random.integers(len(kinds))](side, random)
        contrast = np.exp(random.uniform(np.log(0.03), np.log(0.5)))
        canvas[inside] = colour * (light * np.maximum(1 + contrast * texture, 0))[inside][:, None]
    image = F.avg_pool2d(torch.from_numpy(canvas).permute(2, 0, 1), 2)
    return image.round().clamp(0, 255).to(torch.uint8)


def _plain(side: int, random: np.random.Generator) -> Texture:
    return np.zeros((side, side), np.float32)


def _threads(side: int, random: np.random.Generator) -> Texture:
    """Stitches of a knit, or of a weave where they do not slant; each a little different, in rows that are bent."""
    period = 2 * np.exp(random.uniform(np.log(2.5), np.log(14)))
    y, x = np.mgrid[:side, :side].astype(np.float32) / period
    bent = random.uniform(0, 3)
    y, x = (axis + bent * smooth_field(side, random.uniform(100, 400), random) for axis in (y, x))
    angle, stretch, slant = random.uniform((0, 0.6, 0), (np.pi, 1.7, 0.8))
    across = np.cos(angle) * x + np.sin(angle) * y
    along = (np.cos(angle) * y - np.sin(angle) * x) * stretch
    place = across % 1
    shifted = along + slant * np.abs(2 * place - 1)
    stitch = np.sin(np.pi * place) ** random.uniform(0.3, 2) * (
        0.5 + 0.5 * np.cos(2 * np.pi * shifted)
    )
    each = np.exp(random.uniform(0, 0.5) * random.standard_normal((64, 64)))
    stitch = (
        stitch * each[np.floor(shifted + 0.5).astype(int) % 64, np.floor(across).astype(int) % 64]
    )
    fibres = blurred(random.standard_normal((side, side)), random.uniform(0.8, 1.6))
    return _standard(_standard(stitch) + random.uniform(0, 0.5) * _standard(fibres))


def _hair(side: int, random: np.random.Generator) -> Texture:
    """Lines in one direction: noise that is blurred along it."""
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    angle, thin, long = random.uniform((0, 0.8, 6), (np.pi, 2.5, 40))
    along, across = (np.cos(a) * columns + np.sin(a) * rows for a in (angle, angle + np.pi / 2))
    spectrum = np.fft.rfft2(random.standard_normal((side, side)))
    spectrum = spectrum * np.exp(-2 * np.pi**2 * ((long * along) ** 2 + (thin * across) ** 2))
    return _standard(np.fft.irfft2(spectrum, (side, side)))


def _sand(side: int, random: np.random.Generator) -> Texture:
    """Grains without a direction: by their look alone they are noise."""
    grains = _standard(blurred(random.standard_normal((side, side)), random.uniform(0.8, 3)))
    return _standard(np.exp(random.uniform(0.1, 0.8) * grains))


def _standard(texture: np.ndarray) -> Texture:
    """Mean 0, standard deviation 1."""
    return ((texture - texture.mean()) / max(float(texture.std()), 1e-9)).astype(np.float32)
