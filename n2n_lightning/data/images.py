"""A folder of clean photographs, with synthetic noise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.course import read_course
from n2n_lightning.data.datasets import Pairs, WholeImages
from n2n_lightning.data.file_matching import pictures
from n2n_lightning.data.generated.dead_leaves import dead_leaves
from n2n_lightning.data.generated.fabrics import fabrics
from n2n_lightning.data.generated.specimens import specimens
from n2n_lightning.data.options import whole_numbers
from n2n_lightning.data.photos import Photos
from n2n_lightning.data.reading import read_picture
from n2n_lightning.files import InputError, option, room, sha256
from n2n_lightning.formats import PICTURES
from n2n_lightning.noise import Noise


class Unsuitable(InputError):
    """An image that was read, and is of another kind than photographs."""


class Images(Photos):
    """A folder of clean photographs of any sizes, corrupted as `noise` says; validated on whole photographs.

    Args:
        root: the folder, or several.
        val: another folder, for validation, or a file of noisy and clean images as the report's
            `val_data.pkl`; None keeps the last tenth of `root` for it.
        held: keep every so many-th photograph, from the first, out of training; without `val` they
            are validated on. None keeps the last tenth where there is no `val`.
        channels: 3 for colour, 1 for grey; the photographs are converted.
        specimens: how many generated images (specimens.py), 512 x 512, to train on beside them.
        fabrics: likewise, of fabrics.py, 256 x 256, with the colours of the photographs.
        noise, train_pairs, size, zoom, names, leaves, **common: see Photos; without `names` none of
            its photos.
    """

    def __init__(
        self,
        noise: Noise,
        root: str | Sequence[str],
        val: str | None = None,
        held: int | None = None,
        channels: int = 3,
        zoom: Sequence[float] | None = None,
        specimens: int = 0,
        fabrics: int = 0,
        names: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(noise, zoom=zoom, names=names or (), **options)
        whole_numbers(0, specimens=specimens, fabrics=fabrics)
        if held is not None:
            whole_numbers(2, held=held)
        if channels not in (1, 3):
            raise InputError("data.channels", channels, "must be 1 (grey) or 3 (RGB)")
        self._bytes, self._free = 0, psutil.virtual_memory().available
        self.roots = (
            [Path(root)] if isinstance(root, str | Path) else [Path(folder) for folder in root]
        )
        self.val_root, self.held, self.channels = Path(val) if val else None, held, channels
        self.specimens, self.fabrics = specimens, fabrics

    def photos(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        train, val = self._photographs()
        if (self.names or self.leaves or self.specimens or self.fabrics) and self.channels != 3:
            raise InputError(
                "data.channels", self.channels, "names, leaves, specimens and fabrics are of 3"
            )
        train |= self.included(self.names)
        deep = any(image.dtype == torch.uint16 for image in train.values())
        photographs = (
            [_eight_bit(image) for image in train.values()] if self.leaves or self.fabrics else []
        )
        generated = dead_leaves(self.leaves, 512, photographs, self.seed)
        train |= {f"dead leaves {i}": image for i, image in enumerate(generated)}
        train |= {
            f"fabric {i}": image
            for i, image in enumerate(fabrics(self.fabrics, 256, photographs, self.seed))
        }
        train |= {
            f"specimen {i}": image
            for i, image in enumerate(specimens(self.specimens, 512, self.seed))
        }
        return {name: _sixteen_bit(image) if deep else image for name, image in train.items()}, val

    def _photographs(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        train = {
            name: image for root in self.roots for name, image in self._read("root", root).items()
        }
        kept_back = (
            {name: train.pop(name) for name in list(train)[:: self.held]} if self.held else {}
        )
        if self.held and not train:
            raise InputError(
                "data.held", self.held, f"leaves no photograph of {self._named} to train on"
            )
        if self.held and not self.val_root:
            return train, kept_back
        if self.val_root:
            return train, {} if self.val_root.suffix == ".pkl" else self._read("val", self.val_root)
        kept = -(-len(train) // 10)
        if len(train) < 2:
            raise InputError(
                "data.root",
                self._named,
                f"holds one image; name a folder for validation with {option('data.val')}",
            )
        names = list(train)
        return {n: train[n] for n in names[:-kept]}, {n: train[n] for n in names[-kept:]}

    @property
    def _named(self) -> str:
        return ", ".join(str(root) for root in self.roots)

    def _read(self, field: str, folder: Path) -> dict[str, Tensor]:
        if not folder.is_dir():
            raise InputError(f"data.{field}", folder, "no such folder")
        paths = pictures(folder, deep=True)
        if not paths:
            raise InputError(
                f"data.{field}", folder, f"holds no images ({', '.join(sorted(PICTURES))})"
            )
        images, damage = {}, []
        for path in paths:
            try:
                images[str(path)] = self._kept(self._converted(read_picture(path), path))
            except Unsuitable:
                raise
            except InputError as error:
                damage.append(error)
                if 10 * len(damage) > len(paths):  # one among many happens; more is a mistake
                    raise damage[0] from None
                self.left_out.append(str(path))
        deep = any(image.dtype == torch.uint16 for image in images.values())
        return {name: _sixteen_bit(image) if deep else image for name, image in images.items()}

    def _kept(self, image: Tensor) -> Tensor:
        """The image in memory, or, where all of them would fill it, in a temporary file."""
        self._bytes += image.nbytes
        if self._bytes < 0.4 * self._free:
            return image
        place = room(image.shape, image.numpy().dtype, 0)
        place[...] = image.numpy()
        return torch.from_numpy(place)

    def _converted(self, image: Tensor, path: Path) -> Tensor:
        if image.dtype not in (torch.uint8, torch.uint16) or image.shape[0] not in (1, 3):
            raise Unsuitable(
                f"{path}: should be an 8 or 16 bit image, grey or RGB; {option('data', 'pairs')}"
                " reads other kinds"
            )
        if image.shape[0] == self.channels:
            return image
        if self.channels == 3:
            return image.expand(3, *image.shape[1:])
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # luma of ITU-R BT.601
        return (image.float() * weights).sum(0, keepdim=True).round().to(image.dtype)

    def validation(self, photos: dict[str, Tensor]) -> Dataset:
        """Whole validation photos, cropped to whole blocks, or the pairs of a file."""
        assert self.noise is not None
        if self.val_root and self.val_root.suffix == ".pkl":
            if self.channels != 3:
                raise InputError(
                    "data.val",
                    self.val_root,
                    f"holds RGB images; {option('data.channels', 3)} goes with it",
                )
            pairs = read_course(self.val_root)
            self.fingerprint |= {
                "val": len(pairs[0]),
                "sha256": {self.val_root.name: sha256(self.val_root)},
            }
            return Pairs(*pairs)
        block = self.noise.block
        self.fingerprint["val"] = len(photos)
        return WholeImages(
            [
                p[:, : p.shape[1] // block * block, : p.shape[2] // block * block]
                for p in photos.values()
            ]
        )


def _eight_bit(image: Tensor) -> Tensor:
    """The upper half of 16 bit values; 8 bit ones unchanged."""
    return image if image.dtype == torch.uint8 else (image.int() // 257).to(torch.uint8)


def _sixteen_bit(image: Tensor) -> Tensor:
    """8 bit values spread over 16 bits, 255 becoming 65535; 16 bit ones unchanged."""
    return image if image.dtype == torch.uint16 else (image.int() * 257).to(torch.uint16)
