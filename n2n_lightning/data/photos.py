"""Photographs that come with scikit-image, with synthetic noise."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.augmentation import to_float, without_colour
from n2n_lightning.data.datamodule import NoisyPairs
from n2n_lightning.data.datasets import Crops, Pairs
from n2n_lightning.data.file_matching import pictures
from n2n_lightning.data.generated.dead_leaves import dead_leaves
from n2n_lightning.data.options import ordered, whole_numbers
from n2n_lightning.data.reading_files import read_picture
from n2n_lightning.data.samplers import BatchDraws
from n2n_lightning.files import InputError, option
from n2n_lightning.noise import Noise
from n2n_lightning.randomness import generator


class Photos(NoisyPairs):
    """Photographs that come with scikit-image; training and validation photos are disjoint.

    Args:
        noise: the corruption that makes the pairs.
        train_pairs: noisy pairs per epoch, each from a new random crop.
        val_pairs: fixed noisy/clean pairs for validation.
        size: height and width of the noisy images in pixels.
        zoom: smallest and largest crop, as a share of the photo's shorter side; None takes pixels
            as they are.
        names: the photos to train on, by file name; grey ones become RGB. None takes TRAIN.
        leaves: generated images (generated/dead_leaves.py), 512 x 512, to train on as well.
        **common: see NoisyPairs.
    """

    TRAIN = (
        "coffee.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "motorcycle_left.png",
        "retina.jpg",
        "rocket.jpg",
    )
    VAL = ("astronaut.png", "chelsea.png")
    noise: Noise

    def __init__(
        self,
        noise: Noise,
        train_pairs: int = 4000,
        val_pairs: int = 500,
        size: int = 32,
        zoom: Sequence[float] | None = (0.25, 1.0),
        names: Sequence[str] | None = None,
        leaves: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        whole_numbers(
            1,
            train_pairs=train_pairs,
            val_pairs=val_pairs,
            size=size,
        )
        whole_numbers(0, leaves=leaves)
        self.noise = noise
        self.train_pairs = train_pairs
        self.val_pairs = val_pairs
        self.size = size
        self.zoom = ordered("zoom", zoom, 1)
        self.names = self.TRAIN if names is None else tuple(names)
        self.leaves = leaves

    def photos(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Read the photographs, and generate what is asked for.

        Returns:
            Those to train on and those to validate on, by name, (C, H, W) each.
        """
        train = self.included(self.names, self.VAL)
        val = self.included(self.VAL)
        generated = dead_leaves(self.leaves, 512, list(train.values()), self.seed)
        for i, image in enumerate(generated):
            train[f"dead leaves {i}"] = image
        return train, val

    def included(self, names: Sequence[str], but: Sequence[str] = ()) -> dict[str, Tensor]:
        """Read photographs that come with scikit-image.

        Args:
            names: their file names.
            but: file names that are refused, as they are validated on.

        Returns:
            RGB images (3, H, W), by name.

        Raises:
            InputError: there is none of such a name.
        """
        import skimage

        folder = Path(skimage.__file__).parent / "data"
        known = sorted(path.name for path in pictures(folder) if path.name not in but)
        for name in names:
            if name not in known:
                raise InputError(
                    f"data.names: {name} is none of the photographs: {', '.join(known)}"
                )
        images = {}
        for name in names:
            image = read_picture(folder / name)
            images[name] = image.expand(3, *image.shape[1:])
        return images

    def load(self) -> tuple[Dataset, Dataset]:
        """Cut the photographs into random crops, see NoisyPairs.

        Returns:
            Crops to train on, and those of other photographs to validate on.
        """
        train, val = self.photos()
        self.fingerprint = {
            "name": type(self).__name__.lower(),
            "train": self.train_pairs,
            "photos": {
                "train": _ten_names(train),
                "val": _ten_names(val),
            },
        }
        return self._crops(train, self.train_pairs, self.zoom), self.validation(val)

    def validation(self, photos: dict[str, Tensor]) -> Dataset:
        """Cut fixed crops of the validation photos, as large and as noisy as the report's.

        Args:
            photos: (C, H, W) each, by name.

        Returns:
            The validation data.
        """
        self.fingerprint["val"] = self.val_pairs
        zoom = (0.8, 1.0) if self.zoom else None
        return Pairs(*self._crops(photos, self.val_pairs, zoom).reference())

    def _crops(
        self, photos: dict[str, Tensor], count: int, zoom: tuple[float, float] | None
    ) -> Crops:
        side = self.size * self.noise.block
        for name, photo in photos.items():
            height, width = photo.shape[1:]
            if zoom is None and min(height, width) < side:
                raise InputError(
                    f"{name}: is {width} x {height} pixels, smaller than a crop,"
                    f" {option('data.size', self.size)}, {side} x {side}"
                )
        images = deque(photos.values())
        photos.clear()  # they are held once
        return Crops(images, count, self.size, self.noise, self.seed, zoom, self.supervised)

    def make_pair(
        self, batch: dict[str, Any], draws: BatchDraws, training: bool
    ) -> dict[str, Tensor]:
        """Draw the noise of clean images; see NoisyPairs for stored pairs.

        Args:
            batch: `image`, stored clean images, and `images`, their numbers.
            draws: random generators, by purpose.
            training: False: the target is clean.

        Returns:
            `input` and `target`, (B, C, H, W), in [0, 1] up to noise.
        """
        if "image" not in batch:
            return super().make_pair(batch, draws, training)
        clean = to_float(batch["image"])
        if not training:
            noisy = self.noise(clean, draws("noise", clean.device))
            return {
                "input": noisy,
                "target": self.noise.clean(clean),
            }
        if self.colour and not draws.plain:
            # before the noise, which is then of the strength that was asked for
            clean = self.recoloured([clean], draws)[0].clamp(0, 1)
        if self.grey and not draws.plain:
            clean = without_colour(clean, self.grey, draws("grey"))
        pair = self.turned(self._corrupted(clean, batch["images"], draws), draws)
        return {
            "input": pair[0],
            "target": pair[1],
        }

    def _corrupted(
        self,
        clean: Tensor,
        numbers: Tensor,
        draws: BatchDraws,
    ) -> list[Tensor]:
        """Return input and target of clean images (B, C, H, W), given their numbers, (B,)."""
        if not self.noise.frozen or draws.plain:
            supervised = self.supervised and not draws.plain
            return self._noisy_pair(clean, draws("noise", clean.device), supervised)
        # Frozen noise belongs to the image, whatever batch it is in.
        inputs, targets = [], []
        for i, number in enumerate(numbers.tolist()):
            own = generator(self.seed, "frozen noise", number, device=clean.device)
            image = clean[i : i + 1]
            noisy, target = self._noisy_pair(image, own, self.supervised)
            inputs.append(noisy)
            targets.append(target)
        return [torch.cat(inputs), torch.cat(targets)]

    def _noisy_pair(
        self,
        clean: Tensor,
        draws: torch.Generator,
        supervised: bool,
    ) -> list[Tensor]:
        noisy = self.noise(clean, draws)
        if supervised:
            return [noisy, self.noise.clean(clean)]
        return [noisy, self.noise.target(clean, draws)]


def _ten_names(photos: dict[str, Tensor]) -> list[str]:
    """Return the names of up to ten photos, and how many more there are."""
    names = list(photos)
    if len(names) <= 10:
        return names
    return [*names[:10], f"and {len(names) - 10} more"]
