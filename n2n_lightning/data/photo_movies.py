"""A folder of clean photographs, as windows of movies with synthetic noise."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.augmentation import to_float
from n2n_lightning.data.datasets import Crops, WholeImages
from n2n_lightning.data.generated.windows import MARGIN, windows
from n2n_lightning.data.images import Images
from n2n_lightning.data.options import whole_numbers
from n2n_lightning.data.samplers import BatchDraws
from n2n_lightning.devices.copies import sent
from n2n_lightning.files import InputError, option
from n2n_lightning.noise import Noise

VALIDATED = 96  # pixels of a side of the windows that are scored


class PhotoMovies(Images):
    """Windows of grey movies, generated from photographs, to train a network of movies.

    Each frame has noise of its own, of one kind and strength in a window. The network sees the
    frame that it denoises, and frames around it. Each window is in a batch twice, with other noise,
    so that a loss can tell what is missing whatever the noise is (losses.RegionalLogL2).

    Args:
        noise: the corruption.
        context: frames before and after the one that is denoised.
        batch_size: noisy windows per step, two of each.
        **options: see Images; `zoom`, `colour` and `channels` are none of them.
    """

    def __init__(
        self,
        noise: Noise,
        context: int = 2,
        batch_size: int = 16,
        **options: Any,
    ) -> None:
        for name in ("zoom", "colour", "channels"):
            if options.get(name) is not None:
                raise InputError(f"data.{name}", options[name], "is no option of photo_movies")
        whole_numbers(1, batch_size=batch_size)
        if batch_size % 2:
            raise InputError("data.batch_size", batch_size, "must be even: two of each window")
        # what a batch takes from the photographs
        options["batch_size"] = batch_size // 2
        super().__init__(noise, **options)
        whole_numbers(1, context=context)
        if noise.block > 1 or noise.frozen:
            raise InputError(
                f"{option('noise', type(noise).__name__.lower())}: data=photo_movies takes noise"
                " that is drawn anew for each pixel"
            )
        self.context = context
        self.sees_middle = True
        self.subtracts_from_middle = True

    def load(self) -> tuple[Dataset, Dataset]:
        """Read the photographs, see Images; frames are grey."""
        ready = super().load()
        self.channels = 1
        self.fingerprint |= {"context": self.context}
        return ready

    def _crops(
        self, photos: dict[str, Tensor], count: int, zoom: tuple[float, float] | None
    ) -> Crops:
        """Cut crops that leave room to move."""
        frame = self.size
        self.size = frame + 2 * MARGIN
        crops = super()._crops(photos, count, zoom)
        self.size = frame
        return crops

    def validation(self, photos: dict[str, Tensor]) -> Dataset:
        """Cut the middle of each photograph; all have the same size.

        Args:
            photos: (C, H, W) each, by name.

        Returns:
            The validation data.
        """
        side = VALIDATED + 2 * MARGIN
        cut = []
        for photo in photos.values():
            _, height, width = photo.shape
            if min(height, width) >= side:
                top = (height - side) // 2
                left = (width - side) // 2
                cut.append(photo[:, top : top + side, left : left + side])
        self.fingerprint["val"] = len(cut)
        return WholeImages(cut)

    def make_pair(
        self, batch: dict[str, Any], draws: BatchDraws, training: bool
    ) -> dict[str, Tensor]:
        """Make windows of clean pictures, and draw their noise.

        Args:
            batch: `image`, stored clean images, (B, 3, S, S).
            draws: random generators, by purpose.
            training: False: the target is clean.

        Returns:
            `input`, (2 B, F, h, w), `target`, the frame in the middle, (2 B, 1, h, w), and
            `window`, the number of the window, (2 B,); in validation each window once, and `frame`,
            the noisy frame in the middle.
        """
        image = to_float(batch["image"])
        grey = _in_grey(image, draws("grey"))
        size = image.shape[2] - 2 * MARGIN
        clean = windows(grey, size, self.context, draws("motion"))
        generator = draws("noise", image.device)
        if not training:
            shown = _on_one_sheet(self.noise, clean, generator)
            middle = slice(self.context, self.context + 1)
            return {
                "input": shown,
                "target": clean[:, middle],
                "frame": shown[:, middle],
            }
        (clean,) = self.turned([clean], draws)
        frames = clean.shape[1]
        shown = _on_one_sheet(self.noise, clean.repeat(1, 2, 1, 1), generator)
        shown = shown.unflatten(1, (2, frames)).flatten(0, 1)
        target = clean[:, self.context : self.context + 1].repeat_interleave(2, 0)
        if not self.supervised or draws.plain:
            target = self.noise.target(target, generator)
        return {
            "input": shown,
            "target": target,
            "window": torch.arange(len(clean)).repeat_interleave(2),
        }


def _in_grey(image: Tensor, draws: torch.Generator) -> Tensor:
    """Return a random mean of the channels of each image, (B, 1, H, W)."""
    count, channels, _, _ = image.shape
    weights = torch.rand((count, channels), generator=draws) + 0.05
    weights = weights / weights.sum(1, keepdim=True)
    weighted = image * sent(weights, image.device)[..., None, None]
    return weighted.sum(1, keepdim=True)


def _on_one_sheet(noise: Noise, frames: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the noise of windows (B, F, H, W): frames below one another share its strength."""
    count, number, height, width = frames.shape
    sheet = frames.reshape(count, 1, number * height, width)
    return noise(sheet, generator).view(count, number, height, width)
