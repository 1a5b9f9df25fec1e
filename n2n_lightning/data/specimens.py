"""Generated pictures as fluorescence microscopes see them: blobs, filaments and membranes on dark ground."""

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.noise import generator


def specimens(count: int, size: int, seed: int) -> list[Tensor]:
    """Generated grey images (3, size, size), uint8, each a pure function of (seed, its number).

    Random fields of several scales are cut and thinned into cells, membranes, filaments and grains, blurred as a lens
    does, and scaled so that most of each picture is dark.
    """
    return [_image(size, generator(seed, "specimens", i)) for i in range(count)]


def _image(size: int, draws: torch.Generator) -> Tensor:
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=draws)))
    picture = np.zeros((size, size))
    cells = 1 / (1 + np.exp(-8 * (_field(size, random.uniform(40, 150), random) - random.uniform(-1, 0.7))))
    for _ in range(random.integers(1, 5)):
        kind = random.choice(["grains", "filaments", "membranes", "cloud"])
        if kind == "grains":  # points of many brightnesses
            points = random.random((size, size)) < 10 ** random.uniform(-3.3, -1.5)
            part = _blurred(points * random.gamma(1, size=(size, size)), random.uniform(0.8, 5))
        elif kind == "cloud":
            part = np.exp(random.uniform(0.5, 1.5) * _field(size, random.uniform(3, 40), random))
        else:  # where smooth fields cross zero: curves, open ones where another field cuts them
            part = np.zeros((size, size))
            for _ in range(random.integers(1, 4)):
                field = _field(size, random.uniform(8, 60), random)
                steep = np.hypot(*np.gradient(field)) + 1e-3
                curve = np.exp(-0.5 * (field / steep / random.uniform(0.5, 1.6)) ** 2)
                part += curve * (_field(size, 30, random) > 0) if kind == "filaments" else curve
        part = part / max(np.quantile(part, 0.999), 1e-6)
        inside = cells if random.random() < 0.7 else 1.0
        picture += random.uniform(0.2, 1) * part * inside
    picture = _blurred(picture, random.uniform(0.6, 1.6))
    picture = picture / np.quantile(picture, random.uniform(0.99, 0.9999)) + random.uniform(0, 0.1)
    image = (255 * random.uniform(0.4, 1) * picture.clip(0, None)).clip(0, 255)
    return torch.from_numpy(image.round().astype(np.uint8)).expand(3, size, size)


def _field(size: int, scale: float, random: np.random.Generator) -> np.ndarray:
    """A random field, smooth over `scale` pixels, with mean 0 and standard deviation 1."""
    field = _blurred(random.standard_normal((size, size)), scale / 2)
    return (field - field.mean()) / max(float(field.std()), 1e-9)


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Blurred by a Gaussian, as if the picture went on at the other side."""
    rows, columns = np.fft.fftfreq(len(picture))[:, None], np.fft.rfftfreq(picture.shape[1])[None]
    spectrum = np.fft.rfft2(picture) * np.exp(-2 * (np.pi * sigma) ** 2 * (rows**2 + columns**2))
    return np.asarray(np.fft.irfft2(spectrum, picture.shape))
