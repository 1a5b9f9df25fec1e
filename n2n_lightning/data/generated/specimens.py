"""Generated pictures as of fluorescence microscopes: cells, filaments, membranes, grains."""

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data.generated.random_fields import blurred, numpy_generator, smooth_field
from n2n_lightning.randomness import generator


def specimens(
    count: int,
    size: int,
    seed: int,
) -> list[Tensor]:
    """Generate grey images, each a pure function of (seed, its number).

    Random fields of several scales are cut and thinned into cells, membranes, filaments and grains,
    blurred as a lens does, and scaled so that most of each picture is dark.

    Args:
        count: how many.
        size: pixels of a side.
        seed: of the images.

    Returns:
        (3, size, size), uint8, with equal channels.
    """
    return [_specimen(size, generator(seed, "specimens", i)) for i in range(count)]


def _specimen(size: int, draws: torch.Generator) -> Tensor:
    random = numpy_generator(draws)
    picture = np.zeros((size, size))
    cells = _cells(size, random)
    for _ in range(random.integers(1, 5)):
        kind = random.choice(["grains", "filaments", "membranes", "cloud"])
        if kind == "grains":
            part = _grains(size, random)
        elif kind == "cloud":
            part = _cloud(size, random)
        else:
            part = _curves(size, random, kind == "filaments")
        part = part / max(np.quantile(part, 0.999), 1e-6)
        inside = cells if random.random() < 0.7 else 1.0
        brightness = random.uniform(0.2, 1)
        picture += brightness * part * inside
    picture = blurred(picture, random.uniform(0.6, 1.6))
    bright = np.quantile(picture, random.uniform(0.99, 0.9999))
    background = random.uniform(0, 0.1)
    picture = picture / bright + background
    brightness = 255 * random.uniform(0.4, 1)
    picture = brightness * picture.clip(0, None)
    picture = picture.clip(0, 255).round()
    pixels = torch.from_numpy(picture.astype(np.uint8))
    return pixels.expand(3, size, size)


def _cells(size: int, random: np.random.Generator) -> np.ndarray:
    """Draw regions where a smooth field is high, 1 inside and 0 outside: (size, size)."""
    scale = random.uniform(40, 150)
    height = smooth_field(size, scale, random)
    level = random.uniform(-1, 0.7)
    above = 8 * (height - level)
    return 1 / (1 + np.exp(-above))


def _cloud(size: int, random: np.random.Generator) -> np.ndarray:
    """Draw smooth brightness without structures: (size, size)."""
    contrast = random.uniform(0.5, 1.5)
    scale = random.uniform(3, 40)
    return np.exp(contrast * smooth_field(size, scale, random))


def _grains(size: int, random: np.random.Generator) -> np.ndarray:
    """Draw points of many brightnesses, blurred: (size, size)."""
    white = random.random((size, size))
    share = 10 ** random.uniform(-3.3, -1.5)
    points = white < share
    brightness = random.gamma(1, size=(size, size))
    return blurred(points * brightness, random.uniform(0.8, 5))


def _curves(
    size: int,
    random: np.random.Generator,
    open_ended: bool,
) -> np.ndarray:
    """Draw (size, size) with curves where smooth fields cross zero, which another field may cut."""
    part = np.zeros((size, size))
    for _ in range(random.integers(1, 4)):
        field = smooth_field(size, random.uniform(8, 60), random)
        steep = np.hypot(*np.gradient(field)) + 1e-3
        width = random.uniform(0.5, 1.6)
        curve = np.exp(-0.5 * (field / steep / width) ** 2)
        if open_ended:
            curve = curve * (smooth_field(size, 30, random) > 0)
        part += curve
    return part
