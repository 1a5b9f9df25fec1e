"""Generated pictures as fluorescence microscopes see them: blobs, filaments and membranes on dark ground."""

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data.generated.random_fields import blurred, smooth_field
from n2n_lightning.randomness import generator


def specimens(count: int, size: int, seed: int) -> list[Tensor]:
    """Generated grey images (3, size, size), uint8, each a pure function of (seed, its number).

    Random fields of several scales are cut and thinned into cells, membranes, filaments and grains,
    blurred as a lens does, and scaled so that most of each picture is dark.
    """
    return [_image(size, generator(seed, "specimens", i)) for i in range(count)]


def _image(size: int, draws: torch.Generator) -> Tensor:
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=draws)))
    picture = np.zeros((size, size))
    cells = 1 / (
        1
        + np.exp(
            -8 * (smooth_field(size, random.uniform(40, 150), random) - random.uniform(-1, 0.7))
        )
    )
    for _ in range(random.integers(1, 5)):
        kind = random.choice(["grains", "filaments", "membranes", "cloud"])
        if kind == "grains":  # points of many brightnesses
            points = random.random((size, size)) < 10 ** random.uniform(-3.3, -1.5)
            part = blurred(points * random.gamma(1, size=(size, size)), random.uniform(0.8, 5))
        elif kind == "cloud":
            part = np.exp(
                random.uniform(0.5, 1.5) * smooth_field(size, random.uniform(3, 40), random)
            )
        else:  # where smooth fields cross zero: curves, open ones where another field cuts them
            part = np.zeros((size, size))
            for _ in range(random.integers(1, 4)):
                field = smooth_field(size, random.uniform(8, 60), random)
                steep = np.hypot(*np.gradient(field)) + 1e-3
                curve = np.exp(-0.5 * (field / steep / random.uniform(0.5, 1.6)) ** 2)
                part += (
                    curve * (smooth_field(size, 30, random) > 0) if kind == "filaments" else curve
                )
        part = part / max(np.quantile(part, 0.999), 1e-6)
        inside = cells if random.random() < 0.7 else 1.0
        picture += random.uniform(0.2, 1) * part * inside
    picture = blurred(picture, random.uniform(0.6, 1.6))
    picture = picture / np.quantile(picture, random.uniform(0.99, 0.9999)) + random.uniform(0, 0.1)
    image = (255 * random.uniform(0.4, 1) * picture.clip(0, None)).clip(0, 255)
    return torch.from_numpy(image.round().astype(np.uint8)).expand(3, size, size)
