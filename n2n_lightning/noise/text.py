"""Random strings laid over the image."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.files import InputError
from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn
from n2n_lightning.randomness import generator


class Text(Noise):
    """noisy = clean, overlaid with random strings until they cover about a share p of the pixels (the paper, 3.2).

    Place, size and colour are random, font and direction are fixed; strings lie on top of one
    another. Its mean is not the clean image, its median is while less than half is covered: train
    with loss=l1.

    Args:
        p: share of the pixels that is covered; passed by less than one string.
        heights: smallest and largest font size in pixels.
    """

    LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

    def __init__(
        self, p: Strength = 0.25, heights: Sequence[int] = (8, 24), frozen: bool = False
    ) -> None:
        super().__init__(frozen)
        self.p, self.heights = checked_strength("p", p, 0, 0.95), (heights[0], heights[1])
        if not 4 <= heights[0] <= heights[1] <= 200:
            raise InputError(
                "noise.heights",
                list(heights),
                "must be two font sizes, 4 <= smallest <= largest <= 200",
            )

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        b, c, h, w = image.shape
        strings = _strings(self.heights).to(image.device)
        count, height, width = strings.shape
        wanted = drawn(self.p, image, generator)
        covered = torch.zeros(b, 1, h, w, dtype=torch.bool, device=image.device)
        rows, columns = torch.arange(h, device=image.device), torch.arange(w, device=image.device)
        while (short := covered.float().mean((1, 2, 3), keepdim=True) < wanted).any():
            u = torch.rand(3, b, 1, generator=generator, device=image.device)
            which = (u[0] * count).long()
            # (B, H), the row of the string at each row of the image
            y = rows - (u[1] * (h + height)).long() + height
            x = columns - (u[2] * (w + width)).long() + width
            inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
            ink = strings[
                which[:, :, None],
                y.clamp(0, height - 1)[:, :, None],
                x.clamp(0, width - 1)[:, None, :],
            ]
            ink = (ink & inside)[:, None] & short
            colour = torch.rand(b, c, 1, 1, generator=generator, device=image.device)
            image, covered = torch.where(ink, colour, image), covered | ink
        return image


@functools.cache
def _strings(heights: tuple[int, int], count: int = 64) -> Tensor:
    """Masks of random strings in Pillow's own font, bool (count, height, width), each in the top left corner."""
    from PIL import Image, ImageDraw, ImageFont

    draws = generator("strings", heights)
    masks = []
    for i in range(count):
        letters = torch.randint(
            len(Text.LETTERS), (int(torch.randint(3, 12, (1,), generator=draws)),), generator=draws
        )
        text = "".join(Text.LETTERS[k] for k in letters)
        size = heights[0] + (heights[1] - heights[0]) * i / (count - 1)
        font = ImageFont.load_default(size)
        left, top, right, bottom = font.getbbox(text)
        canvas = Image.new("1", (int(right - left) + 1, int(bottom - top) + 1))
        ImageDraw.Draw(canvas).text((-left, -top), text, fill=1, font=font)
        masks.append(torch.from_numpy(np.array(canvas)))
    height, width = max(m.shape[0] for m in masks), max(m.shape[1] for m in masks)
    return torch.stack([F.pad(m, (0, width - m.shape[1], 0, height - m.shape[0])) for m in masks])
