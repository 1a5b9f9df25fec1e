"""Where noisy pairs come from: the report's files, photographs with synthetic noise, your own captures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data import Captures, Crops, NoisyPairs, Pairs, Whole, ordered, whole_numbers
from n2n_lightning.files import InputError, load_torch, sha256
from n2n_lightning.leaves import dead_leaves
from n2n_lightning.noise import Noise
from n2n_lightning.stacks import PICTURES, Scenes, check, pictures, read_array, read_folder, read_picture, read_scenes


class Course(NoisyPairs):
    """The report's files in the folder `root`, as the course wrote them with torch.save.

    `train_data.pkl` is a tuple of two uint8 tensors (N, 3, H, W), two noisy versions of each image; `val_data.pkl` a
    tuple (noisy, clean) of the same kind. The report has N = 50,000 and 1,000, H = W = 32.

    Args:
        root: the folder.
        train_pairs: how many of the training pairs to use, from the first; all if None.
        val_pairs: the same for validation.
        swap: let either image of a pair be the input, at random.
        **common: see NoisyPairs.
    """

    def __init__(
        self,
        root: str,
        train_pairs: int | None = None,
        val_pairs: int | None = None,
        swap: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root, self.train_pairs, self.val_pairs, self.swap = Path(root), train_pairs, val_pairs, swap
        if self.supervised:
            raise InputError("target=clean: data=course has no clean training images; data=photos and data=images have")

    def load(self) -> tuple[Dataset, Dataset]:
        if not self.root.is_dir():
            raise InputError(
                f"data.root={self.root}: no such folder; it should hold train_data.pkl and val_data.pkl"
                " (data=photos needs no files)"
            )
        first, second = read_course(self.root / "train_data.pkl", self.train_pairs)
        noisy, clean = read_course(self.root / "val_data.pkl", self.val_pairs, "val_pairs")
        if first.shape[1:] != noisy.shape[1:]:
            raise InputError(
                f"{self.root}: training images are {_size(first)}, validation images {_size(noisy)}; they must agree"
            )
        self.fingerprint = {
            "name": "course",
            "train": len(first),
            "val": len(noisy),
            "sha256": {name: sha256(self.root / name) for name in ("train_data.pkl", "val_data.pkl")},
        }
        scenes = Scenes([first, second], [f"pair {i}" for i in range(len(first))])
        return Captures(scenes, self.seed, self.swap), Pairs(noisy, clean)


def read_course(path: Path, count: int | None = None, option: str = "train_pairs") -> tuple[Tensor, Tensor]:
    """The two tensors of a file of the report's data, (N, 3, H, W) uint8, or the first `count` of each.

    Raises:
        InputError: the file is missing, damaged or of another kind, or `count`, the option's value, does not fit.
    """
    content = load_torch(path)
    if not isinstance(content, tuple | list) or len(content) != 2:
        found = f"{len(content)} items" if isinstance(content, tuple | list | dict) else type(content).__name__
        raise InputError(f"{path}: should hold a tuple of two tensors, found {found}")
    for tensor in content:
        if not isinstance(tensor, Tensor):
            raise InputError(f"{path}: should hold a tuple of two tensors, found a {type(tensor).__name__} in it")
        if tensor.dtype != torch.uint8:
            raise InputError(f"{path}: should hold uint8 values 0..255, found {str(tensor.dtype)[6:]}")
        if tensor.dim() != 4 or tensor.shape[1] != 3 or 0 in tensor.shape:
            raise InputError(f"{path}: should hold RGB images (N, 3, H, W), found shape {tuple(tensor.shape)}")
    a, b = content
    if a.shape != b.shape:
        raise InputError(f"{path}: the two tensors differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    if count is None:
        return a, b
    if not 1 <= count <= len(a):
        raise InputError(f"data.{option}={count}: {path} holds {len(a)} pairs, so 1 to {len(a)} would work")
    return a[:count], b[:count]


def _size(images: Tensor) -> str:
    return "x".join(str(n) for n in images.shape[1:])


class Photos(NoisyPairs):
    """Photographs that come with scikit-image: nothing to download. Training and validation photos are disjoint.

    Args:
        noise: the corruption that makes the pairs.
        train_pairs: noisy pairs per epoch, each from a new random crop.
        val_pairs: fixed noisy/clean pairs for validation.
        size: height and width of the noisy images in pixels.
        zoom: smallest and largest crop, as a share of the photo's shorter side; None takes pixels as they are.
        names: the photos to train on, by file name; grey ones become RGB. None takes TRAIN.
        leaves: how many generated images (leaves.py), 512 x 512, to train on beside them.
        **common: see NoisyPairs.
    """

    TRAIN = ("coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
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
        self.noise, self.train_pairs, self.val_pairs, self.size = noise, train_pairs, val_pairs, size
        self.zoom = ordered("zoom", zoom, 1)
        self.names, self.leaves = self.TRAIN if names is None else tuple(names), leaves

    def photos(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Training and validation photos by name, each (C, H, W)."""
        import skimage

        folder = Path(skimage.__file__).parent / "data"
        known = sorted(p.name for p in pictures(folder) if p.name not in self.VAL)
        for name in self.names:
            if name not in known:
                raise InputError(f"data.names: {name} is none of the photographs: {', '.join(known)}")
        train, val = ({n: read_picture(folder / n).expand(3, -1, -1) for n in ns} for ns in (self.names, self.VAL))
        generated = dead_leaves(self.leaves, 512, list(train.values()), self.seed)
        train |= {f"dead leaves {i}": image for i, image in enumerate(generated)}
        return train, val

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

    def _crops(self, photos: dict[str, Tensor], count: int, zoom: tuple[float, float] | None) -> Crops:
        assert self.noise is not None
        side = self.size * self.noise.block
        for name, photo in photos.items():
            if zoom is None and min(photo.shape[1:]) < side:
                raise InputError(
                    f"{name}: is {_kind(photo)}, smaller than a crop, data.size={self.size}, {side} x {side}"
                )
        return Crops(list(photos.values()), count, self.size, self.noise, self.seed, zoom, self.supervised)


def _names(photos: dict[str, Tensor]) -> list[str]:
    """The names of up to ten photos, and how many more there are."""
    names = list(photos)
    return names if len(names) <= 10 else [*names[:10], f"and {len(names) - 10} more"]


def _kind(image: Tensor) -> str:
    return f"{image.shape[2]} x {image.shape[1]} pixels"


class Images(Photos):
    """A folder of clean photographs of any sizes, corrupted as `noise` says; validated on whole photographs.

    Args:
        root: the folder.
        val: another folder, for validation, or a file of noisy and clean images as the report's `val_data.pkl`; None
            keeps the last tenth of `root` for it.
        channels: 3 for colour, 1 for grey; the photographs are converted.
        noise, train_pairs, size, zoom, **common: see Photos.
    """

    def __init__(
        self,
        noise: Noise,
        root: str,
        val: str | None = None,
        channels: int = 3,
        zoom: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(noise, zoom=zoom, **options)
        if channels not in (1, 3):
            raise InputError(f"data.channels={channels}: must be 1 (grey) or 3 (RGB)")
        self.root, self.val_root, self.channels = Path(root), Path(val) if val else None, channels

    def photos(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        train = self._read("root", self.root)
        if self.val_root:
            return train, {} if self.val_root.suffix == ".pkl" else self._read("val", self.val_root)
        kept = -(-len(train) // 10)
        if len(train) < 2:
            raise InputError(f"data.root={self.root}: holds one image; name a folder for validation with data.val=")
        names = list(train)
        return {n: train[n] for n in names[:-kept]}, {n: train[n] for n in names[-kept:]}

    def _read(self, option: str, folder: Path) -> dict[str, Tensor]:
        if not folder.is_dir():
            raise InputError(f"data.{option}={folder}: no such folder")
        paths = pictures(folder)
        if not paths:
            raise InputError(f"data.{option}={folder}: holds no images ({', '.join(sorted(PICTURES))})")
        images = {str(path): self._converted(read_picture(path), path) for path in paths}
        deep = any(image.dtype == torch.uint16 for image in images.values())
        return {name: _sixteen_bit(image) if deep else image for name, image in images.items()}

    def _converted(self, image: Tensor, path: Path) -> Tensor:
        if image.dtype not in (torch.uint8, torch.uint16) or image.shape[0] not in (1, 3):
            raise InputError(f"{path}: should be an 8 or 16 bit image, grey or RGB; data=pairs reads other kinds")
        if image.shape[0] == self.channels:
            return image
        if self.channels == 3:
            return image.expand(3, -1, -1)
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # luma of ITU-R BT.601
        return (image.float() * weights).sum(0, keepdim=True).round().to(image.dtype)

    def validation(self, photos: dict[str, Tensor]) -> Dataset:
        """Whole validation photos, cropped to whole blocks, or the pairs of a file."""
        assert self.noise is not None
        if self.val_root and self.val_root.suffix == ".pkl":
            if self.channels != 3:
                raise InputError(f"data.val={self.val_root}: holds RGB images; data.channels=3 goes with it")
            pairs = read_course(self.val_root)
            self.fingerprint |= {"val": len(pairs[0]), "sha256": {self.val_root.name: sha256(self.val_root)}}
            return Pairs(*pairs)
        block = self.noise.block
        self.fingerprint["val"] = len(photos)
        return Whole([p[:, : p.shape[1] // block * block, : p.shape[2] // block * block] for p in photos.values()])


def _sixteen_bit(image: Tensor) -> Tensor:
    """8 bit values spread over 16 bits, 255 becoming 65535; 16 bit ones unchanged."""
    return image if image.dtype == torch.uint16 else (image.int() * 257).to(torch.uint16)


class OwnPairs(NoisyPairs):
    """Your own noisy images: two or more captures of each scene, in files or folders (docs/data.md).

    Args:
        noisy: a file or folder with the first captures, or with all of them.
        target: a file or folder with the second captures.
        clean: clean images, for validation (and for `target=clean`); None validates on noisy pairs kept back.
        val_noisy: noisy images that belong to `clean`; None takes the scenes that have a clean image.
        layout: what the axes of an array mean, e.g. NKHW; see stacks.read_array.
        scale: the stored value that becomes 1.0; None takes 255 for 8 bit, the smallest 2^n - 1 that no value exceeds
            for 16 bit, 1 for floats up to 2 and otherwise their largest.
        train_pairs: pairs per epoch; None takes as many as windows of `crop` fit into the images.
        val_share: share of the scenes kept back for validation, the last ones.
        crop: height and width of the random windows that are trained on, in pixels; None takes whole images.
        swap: train on a random pair of the captures in random order, not always the first towards the second.
        **common: see NoisyPairs.
    """

    def __init__(
        self,
        noisy: str,
        target: str | None = None,
        clean: str | None = None,
        val_noisy: str | None = None,
        layout: str = "auto",
        scale: float | None = None,
        train_pairs: int | None = None,
        val_share: float = 0.1,
        crop: int | None = 64,
        swap: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if crop is not None:
            whole_numbers(4, crop=crop)
        if train_pairs is not None:
            whole_numbers(1, train_pairs=train_pairs)
        if not 0 < val_share < 1:
            raise InputError(f"data.val_share={val_share}: must be larger than 0 and less than 1")
        if scale is not None and not scale > 0:
            raise InputError(f"data.scale={scale}: must be larger than 0")
        if val_noisy is not None and clean is None:
            raise InputError(f"data.val_noisy={val_noisy}: name the clean images that belong to them with data.clean=")
        self.noisy, self.target, self.clean, self.val_noisy = noisy, target, clean, val_noisy
        self.layout, self.asked_scale, self.train_pairs, self.val_share = layout, scale, train_pairs, val_share
        self.crop, self.swap = crop, swap

    def load(self) -> tuple[Dataset, Dataset]:
        scenes = read_scenes(self.noisy, self.target, self.layout)
        count, (_, self.channels, height, width) = len(scenes.names), scenes.frames[0].shape
        for k, frames in enumerate(scenes.frames):
            check(frames, _capture_names(scenes, k), missing_allowed=k > 0 and not self.swap)
        self.scale: float = self.asked_scale or _white(scenes.frames)
        train, val, clean = self._split(scenes)
        crops = max(1, height // self.crop) * max(1, width // self.crop) if self.crop else 1
        pairs = self.train_pairs or len(train.names) * crops
        self.fingerprint = {
            "name": "pairs",
            "noisy": self.noisy,
            "target": self.target,
            "clean": self.clean,
            "scenes": count,
            "image": [self.channels, height, width],
            "type": str(scenes.frames[0].dtype)[6:],
            "scale": self.scale,
            "train": pairs,
            "val": len(val),
            "reference": self.reference,
        }
        return Captures(train, self.seed, self.swap, clean, self.crop, pairs), val

    def _split(self, scenes: Scenes) -> tuple[Scenes, Pairs, Tensor | None]:
        """Training scenes, validation pairs, and the clean images of the training scenes where those are asked for."""
        count = len(scenes.names)
        everything = torch.arange(count)
        kept = max(1, round(count * self.val_share))
        if self.clean is None:
            if self.supervised:
                raise InputError("target=clean: name the clean images with data.clean=")
            if count == 1:
                raise InputError(
                    f"{self.noisy}: has one scene, so none can be kept back; name a clean image: data.clean="
                )
            self.reference = "noisy"
            held = everything[-kept:]
            pair = [scenes.take(held, torch.full_like(held, k)) for k in (0, 1)]
            return scenes.part(everything[:-kept]), Pairs(*pair), None
        clean, owners = self._clean_images(scenes)
        self._alike(clean, scenes.frames[0], str(self.clean))
        values = clean.numpy()  # torch has no minimum of uint16
        if np.isnan(values).any():
            raise InputError(f"{self.clean}: has NaN values; clean images must be whole")
        self.bounded = bool(values.min() >= 0 and values.max() <= self.scale)
        if self.val_noisy:
            noisy = self._images(self.val_noisy)
            check(noisy, [f"{self.val_noisy}, image {i}" for i in range(len(noisy))])
            self._alike(noisy, scenes.frames[0], self.val_noisy)
            if noisy.shape != clean.shape:
                raise InputError(
                    f"{self.val_noisy} and {self.clean} differ in shape: {tuple(noisy.shape)} and {tuple(clean.shape)}"
                )
            if self.supervised:
                raise InputError(
                    "target=clean: data.clean= then belongs to the training scenes; leave out data.val_noisy="
                )
            return scenes, Pairs(noisy, clean), None
        if len(owners) == count and count > 1:  # every scene has a clean image: the last ones are kept back
            held = everything[-kept:]
            rest = everything[:-kept]
        elif count == 1:
            held = rest = everything  # the one scene is denoised and compared with its clean image
        else:
            held = owners
            rest = everything[~torch.isin(everything, owners)]
        if self.supervised and not torch.isin(rest, owners).all():
            raise InputError("target=clean: every scene needs a clean image in data.clean=")
        position = {int(scene): i for i, scene in enumerate(owners)}
        val = Pairs(
            scenes.take(held, torch.zeros_like(held)), clean[torch.tensor([position[int(scene)] for scene in held])]
        )
        towards = clean[torch.tensor([position[int(scene)] for scene in rest])] if self.supervised else None
        return scenes.part(rest), val, towards

    def _clean_images(self, scenes: Scenes) -> tuple[Tensor, Tensor]:
        """The clean images (M, C, H, W) and the numbers of the scenes that they belong to (M,)."""
        assert self.clean is not None
        folder, count = Path(self.clean), len(scenes.names)
        if not folder.is_dir() or self.val_noisy:
            clean = self._images(self.clean)
            if not self.val_noisy and len(clean) != count:
                raise InputError(
                    f"{self.clean}: holds {len(clean)} clean images for {count} scenes; one each is needed"
                )
            return clean, torch.arange(len(clean))
        paths = pictures(folder)
        if not paths:
            raise InputError(f"data.clean={folder}: holds no images")
        places = {Path(name).stem: i for i, name in enumerate(scenes.names)}
        for path in paths:
            if path.stem not in places:
                raise InputError(f"{path}: no scene of {self.noisy} has this name")
        return read_folder(paths), torch.tensor([places[path.stem] for path in paths])

    def _images(self, source: str) -> Tensor:
        """Single images of a file or folder, (M, C, H, W)."""
        folder = Path(source)
        if folder.is_dir():
            images = read_folder(pictures(folder)) if pictures(folder) else torch.empty(0)
        else:
            layout = self.layout if "K" not in self.layout else "auto"
            captures = read_array(source, layout)
            images = captures[0]
            if len(captures) > 1:
                raise InputError(f"{source}: holds {len(captures)} captures of each scene; one is needed here")
        if not len(images):
            raise InputError(f"{source}: holds no images")
        return images

    def _alike(self, images: Tensor, noisy: Tensor, source: str) -> None:
        """Raises InputError unless the images have the size, the channels and the type of the noisy ones."""
        if images.shape[1:] != noisy.shape[1:] or images.dtype != noisy.dtype:
            raise InputError(
                f"{source} has images {_size(images)} {str(images.dtype)[6:]}, {self.noisy} has {_size(noisy)}"
                f" {str(noisy.dtype)[6:]}; they must agree"
            )


def _capture_names(scenes: Scenes, k: int) -> list[str]:
    if scenes.counts is None:
        return [f"{name}, capture {k + 1}" for name in scenes.names]
    return [
        f"{n}, capture {i + 1}" for n, c in zip(scenes.names, scenes.counts.tolist(), strict=True) for i in range(c)
    ]


def _white(frames: Sequence[Tensor]) -> float:
    """The stored value that should become 1.0, judged by type and by the largest value."""
    kind = frames[0].dtype
    if kind == torch.uint8:
        return 255.0
    largest = max(float(torch.nan_to_num(f[:: max(1, len(f) // 1000)].double()).abs().max()) for f in frames)
    if not kind.is_floating_point:
        return float(2 ** max(8, int(largest).bit_length()) - 1)
    return 1.0 if largest <= 2 else largest
