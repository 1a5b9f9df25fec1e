"""Parts of generated pictures: smooth random fields, filters, rotation, colours of photographs."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.randomness import generator


def numpy_generator(draws: torch.Generator) -> np.random.Generator:
    """Seed a generator of NumPy.

    Args:
        draws: generator of torch, from which one number is drawn.

    Returns:
        A random generator.
    """
    seed = torch.randint(2**62, (1,), generator=draws)
    return np.random.default_rng(int(seed))


def smooth_field(
    size: int,
    scale: float,
    random: np.random.Generator,
) -> np.ndarray:
    """Draw a smooth random field.

    Args:
        size: pixels of a side.
        scale: pixels over which it is smooth.
        random: random generator.

    Returns:
        (size, size), mean 0, standard deviation 1.
    """
    white = random.standard_normal((size, size))
    field = blurred(white, scale / 2)
    deviation = max(float(field.std()), 1e-9)
    return (field - field.mean()) / deviation


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by a Gaussian, with periodic borders.

    Args:
        picture: (H, W).
        sigma: standard deviation of the Gaussian, in pixels.

    Returns:
        The blurred picture.
    """
    rows, columns = frequencies(picture.shape)
    squared = rows**2 + columns**2
    decay = 2 * (np.pi * sigma) ** 2
    gain = np.exp(-decay * squared)
    return filtered(picture, gain)


def frequencies(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequencies of the real Fourier transform of a picture, in 1 / pixel.

    Args:
        shape: height and width.

    Returns:
        Along the columns, (H, 1), and along the rows, (1, W // 2 + 1).
    """
    height, width = shape
    rows = np.fft.fftfreq(height)
    columns = np.fft.rfftfreq(width)
    return rows[:, None], columns[None]


def filtered(picture: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Filter a picture, with periodic borders.

    Args:
        picture: (H, W).
        gain: factor on each Fourier coefficient, see `frequencies`.

    Returns:
        The filtered picture.
    """
    spectrum = np.fft.rfft2(picture)
    result = np.fft.irfft2(spectrum * gain, picture.shape)
    return np.asarray(result)


def rotated(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotate coordinates.

    Args:
        x, y: coordinates.
        angle: in radians.

    Returns:
        Coordinates along the direction of the angle, and across it.
    """
    cosine = np.cos(angle)
    sine = np.sin(angle)
    along = cosine * x + sine * y
    across = cosine * y - sine * x
    return along, across


def reduced(canvas: np.ndarray) -> Tensor:
    """Return the means of 2 x 2 pixels, which smooths the edges of what was drawn.

    Args:
        canvas: (2 H, 2 W, 3), 0 to 255.

    Returns:
        (3, H, W), uint8.
    """
    channels = torch.from_numpy(canvas).permute(2, 0, 1)
    image = F.avg_pool2d(channels, 2)
    return image.round().clamp(0, 255).to(torch.uint8)


def of_photographs(
    name: str,
    draw: Callable[[int, Tensor, torch.Generator], Tensor],
    count: int,
    size: int,
    photos: Sequence[Tensor],
    seed: int,
) -> list[Tensor]:
    """Draw images, each a pure function of (seed, name, its number) and of one photograph.

    Args:
        name: of what is drawn, for the seeds.
        draw: draws an image of a size, with the colours of a photograph.
        count: number of images.
        size: pixels of a side.
        photos: (3, H, W), uint8, which take turns.
        seed: of the images.

    Returns:
        (3, size, size) each, uint8.
    """
    images = []
    for i in range(count):
        photo = photos[i % len(photos)]
        draws = generator(seed, name, i)
        images.append(draw(size, photo, draws))
    return images
