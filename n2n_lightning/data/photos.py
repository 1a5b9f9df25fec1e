"""Photographs that come with scikit-image, with synthetic noise."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.datamodule import NoisyPairs
from n2n_lightning.data.datasets import Crops, Pairs
from n2n_lightning.data.file_matching import pictures
from n2n_lightning.data.generated.dead_leaves import dead_leaves
from n2n_lightning.data.options import ordered, whole_numbers
from n2n_lightning.data.reading import read_picture
from n2n_lightning.files import InputError, option
from n2n_lightning.noise import Noise


class Photos(NoisyPairs):
    """Photographs that come with scikit-image: nothing to download. Training and validation photos are disjoint.

    Args:
        noise: the corruption that makes the pairs.
        train_pairs: noisy pairs per epoch, each from a new random crop.
        val_pairs: fixed noisy/clean pairs for validation.
        size: height and width of the noisy images in pixels.
        zoom: smallest and largest crop, as a share of the photo's shorter side; None takes pixels
            as they are.
        names: the photos to train on, by file name; grey ones become RGB. None takes TRAIN.
        leaves: how many generated images (leaves.py), 512 x 512, to train on beside them.
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
        whole_numbers(1, train_pairs=train_pairs, val_pairs=val_pairs, size=size)
        whole_numbers(0, leaves=leaves)
        self.noise, self.train_pairs, self.val_pairs, self.size = (
            noise,
            train_pairs,
            val_pairs,
            size,
        )
        self.zoom = ordered("zoom", zoom, 1)
        self.names, self.leaves = self.TRAIN if names is None else tuple(names), leaves

    def photos(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Training and validation photos by name, each (C, H, W)."""
        train, val = self.included(self.names, self.VAL), self.included(self.VAL)
        generated = dead_leaves(self.leaves, 512, list(train.values()), self.seed)
        train |= {f"dead leaves {i}": image for i, image in enumerate(generated)}
        return train, val

    def included(self, names: Sequence[str], but: Sequence[str] = ()) -> dict[str, Tensor]:
        """Photographs that come with scikit-image, by name, as RGB; those of `but` are kept for something else.

        Raises:
            InputError: there is none of such a name.
        """
        import skimage

        folder = Path(skimage.__file__).parent / "data"
        known = sorted(p.name for p in pictures(folder) if p.name not in but)
        for name in names:
            if name not in known:
                raise InputError(
                    f"data.names: {name} is none of the photographs: {', '.join(known)}"
                )
        images = {name: read_picture(folder / name) for name in names}
        return {name: image.expand(3, *image.shape[1:]) for name, image in images.items()}

    def load(self) -> tuple[Dataset, Dataset]:
        train, val = self.photos()
        self.fingerprint = {
            "name": type(self).__name__.lower(),
            "train": self.train_pairs,
            "photos": {"train": _names(train), "val": _names(val)},
        }
        return self._crops(train, self.train_pairs, self.zoom), self.validation(val)

    def validation(self, photos: dict[str, Tensor]) -> Dataset:
        """Fixed crops of the validation photos, as large and so as noisy as the report's."""
        self.fingerprint["val"] = self.val_pairs
        return Pairs(*self._crops(photos, self.val_pairs, self.zoom and (0.8, 1.0)).reference())

    def _crops(
        self, photos: dict[str, Tensor], count: int, zoom: tuple[float, float] | None
    ) -> Crops:
        assert self.noise is not None
        side = self.size * self.noise.block
        for name, photo in photos.items():
            if zoom is None and min(photo.shape[1:]) < side:
                raise InputError(
                    f"{name}: is {_kind(photo)}, smaller than a crop,"
                    f" {option('data.size', self.size)}, {side} x {side}"
                )
        images = deque(photos.values())
        photos.clear()  # they are held once
        return Crops(images, count, self.size, self.noise, self.seed, zoom, self.supervised)


def _names(photos: dict[str, Tensor]) -> list[str]:
    """The names of up to ten photos, and how many more there are."""
    names = list(photos)
    return names if len(names) <= 10 else [*names[:10], f"and {len(names) - 10} more"]


def _kind(image: Tensor) -> str:
    return f"{image.shape[2]} x {image.shape[1]} pixels"
