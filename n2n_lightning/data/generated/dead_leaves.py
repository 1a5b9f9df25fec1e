"""Dead leaves: generated images with the statistics of photographs, to train on without any.

Opaque shapes fall on one another until they cover everything. With radii r of density r^-3 the
pictures have the scale invariance and the edges of natural images (Lee, Mumford and Huang, IJCV
2001), and denoisers trained on them come close to those trained on photographs (Achddou, Gousseau
and Ladjal, SSVM 2021).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.randomness import generator

SMALLEST, LARGEST = 10.0, 400.0  # radii at twice the resolution of the image


def dead_leaves(count: int, size: int, colours: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Generated images (3, size, size), uint8, each a pure function of (seed, its number).

    Args:
        colours: photographs (3, H, W), uint8; each image takes the colours of its leaves from one
            of them, with red, green and blue in random order.
    """
    return [
        _image(size, colours[i % len(colours)], generator(seed, "dead leaves", i))
        for i in range(count)
    ]


def _image(size: int, photo: Tensor, draws: torch.Generator) -> Tensor:
    """Leaves from the front to the back at twice the size, so that averaging 2 x 2 pixels makes smooth edges."""
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=draws)))
    side = 2 * size
    canvas, empty = np.zeros((side, side, 3), np.float32), np.ones((side, side), bool)
    palette = photo.flatten(1).T.numpy().astype(np.float32)[:, random.permutation(3)]
    texture = _texture(side, random)
    missing = empty.size
    while missing > 0.002 * empty.size:
        # Inverse of the cumulative distribution of r^-3 between the two radii.
        radius = (SMALLEST**-2 + random.random() * (LARGEST**-2 - SMALLEST**-2)) ** -0.5
        y0, x0 = random.uniform(-radius, side + radius, 2)
        window = np.s_[
            max(0, int(y0 - radius)) : max(0, int(y0 + radius) + 1),
            max(0, int(x0 - radius)) : max(0, int(x0 + radius) + 1),
        ]
        new = empty[window]
        if not new.any():
            continue
        y = (
            np.arange(window[0].start, window[0].start + new.shape[0], dtype=np.float32)[:, None]
            - y0
        )
        x = np.arange(window[1].start, window[1].start + new.shape[1], dtype=np.float32) - x0
        angle, stretch, kind = random.uniform((0, 0.3, 0), (np.pi, 1, 3))
        along = (np.cos(angle) * x + np.sin(angle) * y) / radius
        across = (np.cos(angle) * y - np.sin(angle) * x) / (radius * stretch)
        if kind < 2:
            new = new & (along * along + across * across < 1)  # an ellipse
        else:
            new = new & (np.abs(along) < 0.7) & (np.abs(across) < 0.7)  # a rectangle
        first, second = palette[random.integers(0, len(palette), 2)]
        shade = max(0, random.uniform(-1, 0.5))  # a third of the leaves is shaded
        rough = max(0, random.uniform(-30, 30))
        colour = first + (second - first) * (shade * (along[new][:, None] + 1) / 2)
        canvas[window][new] = colour + rough * texture[window][new][:, None]
        empty[window] &= ~new
        missing -= int(new.sum())
    canvas[empty] = palette[random.integers(0, len(palette))]  # the ground behind all leaves
    image = F.avg_pool2d(torch.from_numpy(canvas).permute(2, 0, 1), 2)
    return image.round().clamp(0, 255).to(torch.uint8)


def _texture(side: int, random: np.random.Generator) -> np.ndarray:
    """Noise with the power spectrum of natural images, about 1/f^2, standard deviation 1: (side, side)."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    spectrum = np.fft.rfft2(random.standard_normal((side, side))) / np.maximum(frequency, 8 / side)
    texture = np.fft.irfft2(spectrum, (side, side)).astype(np.float32)
    return texture / texture.std()
