"""Files or photographs in, batches of noisy pairs out.

A batch is a dict: `input` and `target`, float (B, C, H, W), values in [0, 1] up to noise. In training the target is
another noisy version of the input's image; in validation it is the clean image. Stored integers stay integers until
they are on the device that trains; everything random is a pure function of (seed, epoch, batch number).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from n2n_lightning.files import InputError, load_torch, sha256
from n2n_lightning.noise import Noise, Pixelate, generator


class Key(NamedTuple):
    """Which batch of which epoch, and the numbers of the images in it: all that a batch depends on beside the seed."""

    epoch: int
    number: int
    images: Tensor


class Batches(Sampler[Key]):
    """The batches of an epoch, shuffled by (seed, epoch), starting at batch `start`.

    Batches differ in size by one at most, so that none is too small for batch normalisation: 1,001 images in batches of
    100 are 11 batches of 91. With several processes (`world`) each takes its share of every batch.
    """

    def __init__(self, size: int, batch_size: int, seed: int, shuffle: bool, rank: int = 0, world: int = 1) -> None:
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self.count = -(-size // batch_size)
        self.rank, self.world = rank, world
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch; keeps the starting point of a resumed one."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Key]:
        order = torch.arange(self.size)
        if self.shuffle:
            order = torch.randperm(self.size, generator=generator(self.seed, "order", self.epoch))
        batches = order.tensor_split(self.count)
        for number in range(self.start, self.count):
            yield Key(self.epoch, number, batches[number][self.rank :: self.world])
        self.start = 0


class Loader(DataLoader):
    """A DataLoader over whole batches that continues where a checkpoint inside an epoch left off."""

    def __init__(self, dataset: Dataset, batches: Batches, workers: int) -> None:
        super().__init__(
            dataset,
            sampler=batches,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            persistent_workers=workers > 0,
        )
        self.batches = batches
        self.next = {"epoch": 0, "start": 0}

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        for batch in super().__iter__():
            epoch, start = batch["epoch"], batch["number"] + 1
            if start == len(self.batches):
                epoch, start = epoch + 1, 0
            self.next = {"epoch": epoch, "start": start}
            yield batch

    def state_dict(self) -> dict[str, int]:
        return self.next

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.next = dict(state)
        self.batches.epoch, self.batches.start = state["epoch"], state["start"]


def _as_it_is(batch: Any) -> Any:
    return batch


class Captures(Dataset):
    """K noisy captures of each of N scenes: tensors (N, C, H, W), one per capture.

    A batch takes an ordered pair of different captures of each scene: the first two, or, with `swap`, a random one.
    """

    def __init__(self, captures: Sequence[Tensor], seed: int, swap: bool) -> None:
        self.captures, self.seed, self.swap = captures, seed, swap

    def __len__(self) -> int:
        return len(self.captures[0])

    def __getitem__(self, key: Key) -> dict[str, Any]:
        if self.swap:
            count, b = len(self.captures), len(key.images)
            draws = generator(self.seed, "captures", key.epoch, key.number)
            first = torch.randint(count, (b,), generator=draws)
            second = (first + torch.randint(1, count, (b,), generator=draws)) % count
            pair = self._choose(first, key.images), self._choose(second, key.images)
        else:
            pair = self.captures[0][key.images], self.captures[1][key.images]
        return {"input": pair[0], "target": pair[1], "epoch": key.epoch, "number": key.number}

    def _choose(self, which: Tensor, index: Tensor) -> Tensor:
        """Capture which[i] of scene index[i]."""
        chosen = self.captures[0][index]
        for k, capture in enumerate(self.captures[1:], start=1):
            chosen[which == k] = capture[index[which == k]]
        return chosen


class Pairs(Dataset):
    """Fixed pairs for validation: noisy and reference images, both (N, C, H, W)."""

    def __init__(self, noisy: Tensor, reference: Tensor) -> None:
        self.noisy, self.reference = noisy, reference

    def __len__(self) -> int:
        return len(self.noisy)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        pair = {"input": self.noisy[key.images], "target": self.reference[key.images]}
        return {**pair, "epoch": key.epoch, "number": key.number}


class Crops(Dataset):
    """Random crops of photographs of any sizes, new in every epoch; photos are uint8 (C, H, W).

    A crop is a square of `zoom` times the shorter side of its photo, sampled without interpolation on size*block pixels
    per side (interpolation would smooth what the noise is made of), and mirrored half of the time.
    """

    def __init__(
        self, photos: Sequence[Tensor], count: int, size: int, noise: Noise, seed: int, zoom: tuple[float, float]
    ) -> None:
        self.count, self.size, self.noise, self.seed, self.zoom = count, size, noise, seed, zoom
        # All photos in one long row of pixels: a whole batch is then one indexing operation.
        self.pixels = torch.cat([photo.flatten(1).T for photo in photos])
        self.heights = torch.tensor([photo.shape[1] for photo in photos])
        self.widths = torch.tensor([photo.shape[2] for photo in photos])
        areas = self.heights * self.widths
        self.starts = areas.cumsum(0) - areas

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> dict[str, Any]:
        draws = generator(self.seed, "crops", key.epoch, key.number)
        where = self._place(key.images, draws)
        batch: dict[str, Any] = {"epoch": key.epoch, "number": key.number}
        if isinstance(self.noise, Pixelate):
            # This noise is a way of sampling the photo: only the pixels that it draws are read, not whole crops.
            return {**batch, **{name: self._sample(where, draws) for name in ("input", "target")}}
        return {**batch, "image": self._take(where, *self._grid(len(key.images)))}

    def reference(self) -> tuple[Tensor, Tensor]:
        """All crops of epoch 0, as noisy and clean images for validation: each (count, C, size, size), float."""
        noisy, clean = [], []
        for number, index in enumerate(torch.arange(self.count).split(64)):
            draws = generator(self.seed, "validation", number)
            where = self._place(index, draws)
            image = self._take(where, *self._grid(len(index))).float() / 255
            noisy.append(self.noise(image, draws))
            clean.append(self.noise.clean(image))
        return torch.cat(noisy), torch.cat(clean)

    def _place(self, index: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """Photo, top, left, side and mirroring of each crop, each (B, 1, 1)."""
        photo = index % len(self.starts)
        height, width = self.heights[photo], self.widths[photo]
        u = torch.rand(4, len(index), generator=draws)
        low, high = self.zoom
        side = (torch.minimum(height, width) * (low + (high - low) * u[0])).long().clamp(min=1)
        place = {
            "start": self.starts[photo],
            "width": width,
            "top": (u[1] * (height - side + 1)).long(),
            "left": (u[2] * (width - side + 1)).long(),
            "side": side,
            "mirror": u[3] < 0.5,
        }
        return {name: value[:, None, None] for name, value in place.items()}

    def _grid(self, count: int) -> tuple[Tensor, Tensor]:
        """Rows and columns of every pixel of a crop, each (count, size*block, size*block)."""
        full = torch.arange(self.size * self.noise.block)
        rows, columns = torch.meshgrid(full, full, indexing="ij")
        return rows.expand(count, -1, -1), columns.expand(count, -1, -1)

    def _sample(self, where: dict[str, Tensor], draws: torch.Generator) -> Tensor:
        """The crops seen through Pixelate: (B, C, size, size)."""
        assert isinstance(self.noise, Pixelate)
        dy, dx = self.noise.offsets(len(where["start"]), self.size, self.size, draws)
        cell = torch.arange(self.size) * self.noise.block
        return self._take(where, cell[:, None] + dy, cell + dx)

    def _take(self, where: dict[str, Tensor], rows: Tensor, columns: Tensor) -> Tensor:
        """The pixels at (rows, columns) of each crop's size*block grid: (B, H, W) each -> (B, C, H, W)."""
        full = self.size * self.noise.block
        columns = torch.where(where["mirror"], full - 1 - columns, columns)
        y = where["top"] + (2 * rows + 1) * where["side"] // (2 * full)
        x = where["left"] + (2 * columns + 1) * where["side"] // (2 * full)
        return self.pixels[where["start"] + y * where["width"] + x].permute(0, 3, 1, 2)


class NoisyPairs(pl.LightningDataModule):
    """What every source of data has in common; a source says what it holds in `load`.

    Args:
        batch_size: noisy pairs per optimiser step.
        val_batch_size: images per validation step.
        seed: of order, crops, noise and augmentation.
        augment: give both images of a pair the same random flips and, where they are square, quarter turns.
        workers: processes that prepare batches; 0 prepares them in the training process.
    """

    def __init__(
        self, batch_size: int = 100, val_batch_size: int = 250, seed: int = 0, augment: bool = False, workers: int = 0
    ) -> None:
        super().__init__()
        whole_numbers(1, batch_size=batch_size, val_batch_size=val_batch_size)
        whole_numbers(0, workers=workers)
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.seed, self.augment, self.workers = seed, augment, workers
        self.noise: Noise | None = None
        self.train: Dataset | None = None
        self.val: Dataset | None = None
        self.fingerprint: dict[str, Any] = {}
        self._position: dict[str, int] | None = None
        self._training: Loader | None = None

    def load(self) -> tuple[Dataset, Dataset]:
        """The training and the validation data; also fills `fingerprint`, which says what they are.

        Raises:
            InputError: the data cannot be used; the message says which file or option, and what would work.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        if self.train is None:
            self.train, self.val = self.load()
            size = len(self.train)  # type: ignore[arg-type]
            if size < self.batch_size:
                raise InputError(f"data.batch_size={self.batch_size}: there are only {size} training pairs")

    def train_dataloader(self) -> Loader:
        self._training = self._loader(self.train, self.batch_size, shuffle=True)
        if self._position:
            self._training.load_state_dict(self._position)
        return self._training

    def val_dataloader(self) -> Loader:
        return self._loader(self.val, self.val_batch_size, shuffle=False)

    def _loader(self, dataset: Any, batch_size: int, shuffle: bool) -> Loader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches = Batches(len(dataset), batch_size, self.seed, shuffle, rank, world)
        return Loader(dataset, batches, self.workers if shuffle else 0)

    # Lightning restores loaders by itself, but not when the length of the run was asked for before, as schedules do.
    def state_dict(self) -> dict[str, Any]:
        return {"position": self._training.state_dict() if self._training else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._position = state_dict["position"]

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """On the training device: integers become float in [0, 1], synthetic noise is drawn, pairs are turned."""
        training = self.trainer is not None and self.trainer.training
        if "image" in batch:
            assert self.noise is not None
            image = to_float(batch["image"])
            draws = generator(self.seed, "noise", batch["epoch"], batch["number"], device=image.device)
            pair = [self.noise(image, draws), self.noise(image, draws)]
        else:
            pair = [to_float(batch["input"]), to_float(batch["target"])]
        if training and self.augment:
            draws = generator(self.seed, "turns", batch["epoch"], batch["number"])
            pair = turn(pair, draws)
        return {"input": pair[0], "target": pair[1]}


def whole_numbers(least: int, **values: Any) -> None:
    """Raises InputError unless each of the options `values` of the data group is an integer of at least `least`."""
    for name, value in values.items():
        if not isinstance(value, int) or value < least:
            raise InputError(f"data.{name}={value}: must be a whole number, {least} or more")


def to_float(image: Tensor) -> Tensor:
    """Integers to float32 in [0, 1] by the largest value of their type (255, 65535); floats keep their values."""
    if image.is_floating_point():
        return image.float()
    return image.float().div_(torch.iinfo(image.dtype).max)


def turn(images: Sequence[Tensor], draws: torch.Generator) -> list[Tensor]:
    """The same random flips and, where height equals width, transposition for each row of all `images` (B, C, H, W).

    Together these are the 8 symmetries of a square, each with probability 1/8.
    """
    b, _, height, width = images[0].shape
    flips = (torch.rand(3, b, 1, 1, 1, generator=draws) < 0.5).to(images[0].device)
    turned = []
    for image in images:
        image = torch.where(flips[0], image.flip(-1), image)
        image = torch.where(flips[1], image.flip(-2), image)
        if height == width:
            image = torch.where(flips[2], image.transpose(-1, -2), image)
        turned.append(image)
    return turned


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

    def load(self) -> tuple[Dataset, Dataset]:
        if not self.root.is_dir():
            raise InputError(
                f"data.root={self.root}: no such folder; it should hold train_data.pkl and val_data.pkl"
                " (data=photos needs no files)"
            )
        first, second = self._read("train_data.pkl", "train_pairs", self.train_pairs)
        noisy, clean = self._read("val_data.pkl", "val_pairs", self.val_pairs)
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
        return Captures((first, second), self.seed, self.swap), Pairs(noisy, clean)

    def _read(self, name: str, option: str, count: int | None) -> tuple[Tensor, Tensor]:
        path = self.root / name
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
        zoom: smallest and largest side of a crop, as a share of the photo's shorter side.
        **common: see NoisyPairs.
    """

    TRAIN = ("coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
    VAL = ("astronaut.png", "chelsea.png")

    def __init__(
        self,
        noise: Noise,
        train_pairs: int = 20_000,
        val_pairs: int = 500,
        size: int = 32,
        zoom: Sequence[float] = (0.8, 1.0),
        **common: Any,
    ) -> None:
        super().__init__(**common)
        whole_numbers(1, train_pairs=train_pairs, val_pairs=val_pairs, size=size)
        if len(zoom) != 2 or not 0 < zoom[0] <= zoom[1] <= 1:
            raise InputError(f"data.zoom={list(zoom)}: must be two numbers, 0 < smallest <= largest <= 1")
        self.noise, self.train_pairs, self.val_pairs, self.size = noise, train_pairs, val_pairs, size
        self.zoom = (zoom[0], zoom[1])

    def load(self) -> tuple[Dataset, Dataset]:
        assert self.noise is not None
        common = self.size, self.noise, self.seed, self.zoom
        train = Crops([self._photo(name) for name in self.TRAIN], self.train_pairs, *common)
        val = Crops([self._photo(name) for name in self.VAL], self.val_pairs, *common)
        self.fingerprint = {
            "name": "photos",
            "train": self.train_pairs,
            "val": self.val_pairs,
            "photos": {"train": self.TRAIN, "val": self.VAL},
        }
        return train, Pairs(*val.reference())

    @staticmethod
    def _photo(name: str) -> Tensor:
        import skimage
        from skimage.io import imread

        photo: np.ndarray = imread(Path(skimage.__file__).parent / "data" / name)
        return torch.from_numpy(photo).permute(2, 0, 1)
