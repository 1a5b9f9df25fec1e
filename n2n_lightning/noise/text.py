"""Random strings laid over the image."""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.files import InputError
from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn
from n2n_lightning.randomness import generator

STRINGS_AT_ONCE = 16  # laid on images of a GPU before it is asked whether more are wanted


class Text(Noise):
    """Random strings that cover about a share p of the pixels (the paper, section 3.2).

    Place, size and colour are random, font and direction are fixed; strings overlap. While less
    than half is covered, the median of the noisy image is the clean one, its mean is not: train
    with loss=l1.

    Args:
        p: share of the pixels that is covered; exceeded by less than one string.
        heights: smallest and largest font size in pixels.
    """

    LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

    def __init__(
        self,
        p: Strength = 0.25,
        heights: Sequence[int] = (8, 24),
        frozen: bool = False,
    ) -> None:
        super().__init__(frozen)
        self.p = checked_strength("p", p, 0, 0.95)
        smallest = heights[0]
        largest = heights[1]
        if not 4 <= smallest <= largest <= 200:
            reason = "must be two font sizes, 4 <= smallest <= largest <= 200"
            raise InputError("noise.heights", list(heights), reason)
        self.heights = (smallest, largest)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        b, c, h, w = image.shape
        masks = _strings(self.heights).to(image.device)
        count, height, width = masks.shape
        wanted = drawn(self.p, image, generator)
        covered = torch.zeros(b, 1, h, w, dtype=torch.bool, device=image.device)
        rows = torch.arange(h, device=image.device)
        columns = torch.arange(w, device=image.device)
        # Asking whether images are short makes a GPU wait; a string more changes none that is not.
        asked_every = 1 if image.device.type == "cpu" else STRINGS_AT_ONCE
        for number_of_string in itertools.count():
            share = covered.float().mean((1, 2, 3), keepdim=True)
            short = share < wanted
            if number_of_string % asked_every == 0 and not short.any():
                break
            u = torch.rand(3, b, 1, 1, generator=generator, device=image.device)
            number = (u[0] * count).long()
            bottom = (u[1] * (h + height)).long()
            right = (u[2] * (w + width)).long()
            # the row and the column of the string at each pixel, (B, H, 1) and (B, 1, W)
            y = rows[:, None] - bottom + height
            x = columns - right + width
            inside_y = (y >= 0) & (y < height)
            inside_x = (x >= 0) & (x < width)
            y = y.clamp(0, height - 1)
            x = x.clamp(0, width - 1)
            ink = masks[number, y, x] & inside_y & inside_x
            ink = ink[:, None] & short
            colour = torch.rand(b, c, 1, 1, generator=generator, device=image.device)
            image = torch.where(ink, colour, image)
            covered = covered | ink
        return image


@functools.cache
def _strings(heights: tuple[int, int], count: int = 64) -> Tensor:
    """Draw masks of random strings in Pillow's default font.

    Returns:
        bool, (count, height, width), each string in the top left corner.
    """
    smallest, largest = heights
    draws = generator("strings", heights)
    masks = []
    for i in range(count):
        length = int(torch.randint(3, 12, (1,), generator=draws))
        letters = torch.randint(len(Text.LETTERS), (length,), generator=draws)
        text = "".join(Text.LETTERS[k] for k in letters)
        size = smallest + (largest - smallest) * i / (count - 1)
        masks.append(_mask_of(text, size))
    height = max(len(mask) for mask in masks)
    width = max(mask.shape[1] for mask in masks)
    padded = torch.zeros(count, height, width, dtype=torch.bool)
    for page, mask in zip(padded, masks, strict=True):
        rows, columns = mask.shape
        page[:rows, :columns] = mask
    return padded


def _mask_of(text: str, size: float) -> Tensor:
    """Return the pixels of a text at a font size: bool, (height, width)."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    width = int(right - left) + 1
    height = int(bottom - top) + 1
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    draw.text((-left, -top), text, fill=1, font=font)
    return torch.from_numpy(np.array(canvas))
