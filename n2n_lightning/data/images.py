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
from n2n_lightning.data.reading_files import read_picture
from n2n_lightning.files import InputError, option, room, sha256
from n2n_lightning.formats import PICTURES
from n2n_lightning.noise import Noise


class Unsuitable(InputError):
    """An image that was read, and is of another kind than photographs."""


class Images(Photos):
    """A folder of clean photographs of any sizes, with synthetic noise; whole ones validate.

    Args:
        root: the folder, or several.
        val: another folder, for validation, or a file of noisy and clean images as the report's
            `val_data.pkl`; None keeps the last tenth of `root` for it.
        held: keep one photograph in `held`, from the first, out of training; without `val` they are
            validated on. None keeps the last tenth where there is no `val`.
        channels: 3 for colour, 1 for grey; the photographs are converted.
        specimens: generated images (generated/specimens.py), 512 x 512, to train on as well.
        fabrics: likewise, of generated/fabrics.py, 256 x 256, with the colours of the photographs.
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
        super().__init__(
            noise,
            zoom=zoom,
            names=names or (),
            **options,
        )
        whole_numbers(0, specimens=specimens, fabrics=fabrics)
        if held is not None:
            whole_numbers(2, held=held)
        if channels not in (1, 3):
            raise InputError("data.channels", channels, "must be 1 (grey) or 3 (RGB)")
        self._bytes = 0
        self._free = psutil.virtual_memory().available
        folders = [root] if isinstance(root, str | Path) else root
        self.roots = [Path(folder) for folder in folders]
        self.val_root = Path(val) if val else None
        self.held = held
        self.channels = channels
        self.specimens = specimens
        self.fabrics = fabrics

    def photos(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Read the photographs, and generate what is asked for.

        Returns:
            Those to train on and those to validate on, by name, (C, H, W) each.
        """
        train, val = self._photographs()
        in_colour = bool(self.names or self.leaves or self.specimens or self.fabrics)
        if in_colour and self.channels != 3:
            raise InputError(
                "data.channels", self.channels, "names, leaves, specimens and fabrics are of 3"
            )
        train |= self.included(self.names)
        deep = _any_deep(train)
        photographs = []
        if self.leaves or self.fabrics:
            photographs = [_eight_bit(image) for image in train.values()]
        generated = {
            "dead leaves": dead_leaves(self.leaves, 512, photographs, self.seed),
            "fabric": fabrics(self.fabrics, 256, photographs, self.seed),
            "specimen": specimens(self.specimens, 512, self.seed),
        }
        for kind, images in generated.items():
            for i, image in enumerate(images):
                train[f"{kind} {i}"] = image
        return (_all_sixteen_bit(train) if deep else train), val

    def _photographs(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Read the photographs to train on and those to validate on, by name."""
        train: dict[str, Tensor] = {}
        for root in self.roots:
            train |= self._read("root", root)
        held_out: dict[str, Tensor] = {}
        if self.held:
            for name in list(train)[:: self.held]:
                held_out[name] = train.pop(name)
            if not train:
                raise InputError(
                    "data.held", self.held, f"leaves no photograph of {self._named} to train on"
                )
        if self.val_root:
            held_out = {}
            if self.val_root.suffix != ".pkl":
                held_out = self._read("val", self.val_root)
            return train, held_out
        if self.held:
            return train, held_out
        if len(train) < 2:
            raise InputError(
                "data.root",
                self._named,
                f"holds one image; name a folder for validation with {option('data.val')}",
            )
        tenth = -(-len(train) // 10)
        for name in list(train)[-tenth:]:
            held_out[name] = train.pop(name)
        return train, held_out

    @property
    def _named(self) -> str:
        return ", ".join(str(root) for root in self.roots)

    def _read(self, field: str, folder: Path) -> dict[str, Tensor]:
        """Read the photographs of the folder that an option names."""
        if not folder.is_dir():
            raise InputError(f"data.{field}", folder, "no such folder")
        paths = pictures(folder, deep=True)
        if not paths:
            endings = ", ".join(sorted(PICTURES))
            raise InputError(f"data.{field}", folder, f"holds no images ({endings})")
        images = {}
        damage = []
        for path in paths:
            try:
                image = self._converted(read_picture(path), path)
                images[str(path)] = self._held_in_memory(image)
            except Unsuitable:
                raise
            except InputError as error:
                damage.append(error)
                if 10 * len(damage) > len(paths):  # one among many happens; more is a mistake
                    raise damage[0] from None
                self.left_out.append(str(path))
        return _all_sixteen_bit(images) if _any_deep(images) else images

    def _held_in_memory(self, image: Tensor) -> Tensor:
        """Return the image in memory, or, where all of them would fill it, in a temporary file."""
        self._bytes += image.nbytes
        if self._bytes < 0.4 * self._free:
            return image
        place = room(image.shape, image.numpy().dtype, 0)
        place[...] = image.numpy()
        return torch.from_numpy(place)

    def _converted(self, image: Tensor, path: Path) -> Tensor:
        """Return a photograph with the channels that are asked for."""
        channels = len(image)
        if image.dtype not in (torch.uint8, torch.uint16) or channels not in (1, 3):
            raise Unsuitable(
                f"{path}: should be an 8 or 16 bit image, grey or RGB;"
                f" {option('data', 'pairs')} reads other kinds"
            )
        if channels == self.channels:
            return image
        if self.channels == 3:
            return image.expand(3, *image.shape[1:])
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # luma of ITU-R BT.601
        grey = (image.float() * weights).sum(0, keepdim=True)
        return grey.round().to(image.dtype)

    def validation(self, photos: dict[str, Tensor]) -> Dataset:
        """Crop whole validation photos to whole blocks, or read the pairs of a file.

        Args:
            photos: (C, H, W) each, by name.

        Returns:
            The validation data.
        """
        if self.val_root and self.val_root.suffix == ".pkl":
            if self.channels != 3:
                raise InputError(
                    "data.val",
                    self.val_root,
                    f"holds RGB images; {option('data.channels', 3)} goes with it",
                )
            noisy, clean = read_course(self.val_root)
            digest = sha256(self.val_root)
            self.fingerprint |= {
                "val": len(noisy),
                "sha256": {self.val_root.name: digest},
            }
            return Pairs(noisy, clean)
        self.fingerprint["val"] = len(photos)
        block = self.noise.block
        cropped = []
        for photo in photos.values():
            height, width = photo.shape[1:]
            height = height // block * block
            width = width // block * block
            cropped.append(photo[:, :height, :width])
        return WholeImages(cropped)


def _any_deep(photos: dict[str, Tensor]) -> bool:
    """Return True if a photograph has 16 bits."""
    return any(image.dtype == torch.uint16 for image in photos.values())


def _all_sixteen_bit(photos: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: _sixteen_bit(image) for name, image in photos.items()}


def _eight_bit(image: Tensor) -> Tensor:
    """Return the upper half of 16 bit values; 8 bit ones unchanged."""
    if image.dtype == torch.uint8:
        return image
    return (image.int() // 257).to(torch.uint8)


def _sixteen_bit(image: Tensor) -> Tensor:
    """Return 8 bit values spread over 16 bits, 255 becoming 65535; 16 bit ones unchanged."""
    if image.dtype == torch.uint16:
        return image
    return (image.int() * 257).to(torch.uint16)
