"""From stored images to batches of noisy pairs on the training device.

A batch is a dict: `input` and `target`, float (B, C, H, W), values in [0, 1] up to noise. In training the target is
another noisy version of the input's image; in validation it is the clean image. Stored integers stay integers until
they are on the device that trains; everything random is a pure function of (seed, epoch, batch number).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from n2n_lightning.files import InputError
from n2n_lightning.noise import Noise, Pixelate, generator
from n2n_lightning.stacks import Scenes


class Key(NamedTuple):
    """Which batch of which epoch, and the numbers of the images in it: all that a batch depends on beside the seed."""

    epoch: int
    number: int
    images: Tensor

    def identity(self) -> dict[str, Any]:
        """What a batch carries to the device, where its noise and turns are drawn."""
        return {"epoch": self.epoch, "number": self.number, "images": self.images}


class Batches(Sampler[Key]):
    """The batches of an epoch, shuffled by (seed, epoch), starting at batch `start`.

    Batches differ in size by one at most, so that none is too small for batch normalisation: 1,001 images in batches of
    100 are 11 batches of 91.
    """

    def __init__(self, size: int, batch_size: int, seed: int, shuffle: bool) -> None:
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self.count = -(-size // batch_size)
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
            yield Key(self.epoch, number, batches[number])
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
    """Noisy captures of scenes; a batch takes an ordered pair of different captures of each scene.

    Args:
        scenes: the captures.
        seed: of the choices below.
        swap: take a random ordered pair of the captures; otherwise the first is the input, the second the target.
        clean: train towards these images (N, C, H, W) instead (supervised training, for comparison).
        crop: height and width of a random window, the same for both; None takes whole images.
        count: images per epoch; item i is of scene i modulo their number.
    """

    def __init__(
        self,
        scenes: Scenes,
        seed: int,
        swap: bool,
        clean: Tensor | None = None,
        crop: int | None = None,
        count: int | None = None,
    ) -> None:
        self.scenes, self.seed, self.swap, self.clean = scenes, seed, swap, clean
        self.count = count or len(scenes.names)
        height, width = scenes.frames[0].shape[2:]
        self.window = (min(crop, height), min(crop, width)) if crop else None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> dict[str, Any]:
        scene = key.images % len(self.scenes.names)
        draws = generator(self.seed, "captures", key.epoch, key.number)
        u = torch.rand(4, len(scene), generator=draws)
        window = self._window(u[:2]) if self.window else ()
        first, second = torch.zeros_like(scene), torch.ones_like(scene)
        if self.swap:
            count = self.scenes.captures(scene)
            first = (u[2] * count).long()
            second = (first + 1 + (u[3] * (count - 1)).long()) % count
        noisy = self.scenes.take(scene, first, window)
        if self.clean is None:
            target = self.scenes.take(scene, second, window)
        else:
            target = self.clean[scene[:, None, None, None], *window] if window else self.clean[scene]
        return {"input": noisy, "target": target, **key.identity()}

    def _window(self, u: Tensor) -> tuple[Tensor, ...]:
        """Index of C, H and W of a random window for each image."""
        _, channels, height, width = self.scenes.frames[0].shape
        assert self.window
        h, w = self.window
        rows = (u[0] * (height - h + 1)).long()[:, None] + torch.arange(h)
        columns = (u[1] * (width - w + 1)).long()[:, None] + torch.arange(w)
        return torch.arange(channels)[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]


class Pairs(Dataset):
    """Fixed pairs for validation: noisy and reference images, both (N, C, H, W)."""

    def __init__(self, noisy: Tensor, reference: Tensor) -> None:
        self.noisy, self.reference = noisy, reference

    def __len__(self) -> int:
        return len(self.noisy)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        return {"input": self.noisy[key.images], "target": self.reference[key.images], **key.identity()}


class Whole(Dataset):
    """Whole clean images of any sizes, uint8 or uint16 (C, H, W), one per batch, for validation with seeded noise."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        return {"image": self.images[int(key.images)][None], **key.identity()}


class Crops(Dataset):
    """Random crops of clean photographs of any sizes, new in every epoch; photos are (C, H, W), all of one type.

    With `zoom`, a crop is a square of so many times the shorter side of its photo, sampled without interpolation on
    size*block pixels per side (interpolation would smooth what the noise is made of), and mirrored half of the time.
    Without, it is size*block pixels of the photo as they are.
    """

    def __init__(
        self,
        photos: Sequence[Tensor],
        count: int,
        size: int,
        noise: Noise,
        seed: int,
        zoom: tuple[float, float] | None,
        supervised: bool = False,
    ) -> None:
        self.count, self.size, self.noise, self.seed, self.zoom = count, size, noise, seed, zoom
        self.supervised = supervised
        # All photos in one long row of pixels: a whole batch is then one indexing operation.
        self.pixels = torch.cat([photo.flatten(1).T for photo in photos])
        self.heights = torch.tensor([photo.shape[1] for photo in photos])
        self.widths = torch.tensor([photo.shape[2] for photo in photos])
        areas = self.heights * self.widths
        self.starts = areas.cumsum(0) - areas

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> dict[str, Any]:
        if not self.noise.frozen:
            return {**self._batch(key.images, key.epoch, key.number), **key.identity()}
        # Frozen noise belongs to the image, whatever batch it is in, so each image has a generator of its own.
        parts = [self._batch(key.images[i : i + 1], "frozen", int(n)) for i, n in enumerate(key.images)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} | key.identity()

    def _batch(self, images: Tensor, *where_used: Any) -> dict[str, Tensor]:
        draws = generator(self.seed, "crops", *where_used)
        where = self._place(images, draws)
        if not isinstance(self.noise, Pixelate):
            return {"image": self._take(where, *self._grid(len(images)))}
        # This noise is a way of sampling the photo: only the pixels that it draws are read, not whole crops.
        noisy = self._sample(where, draws)
        if self.supervised:
            return {"input": noisy, "target": self.noise.clean(to_float(self._take(where, *self._grid(len(images)))))}
        return {"input": noisy, "target": self._sample(where, draws)}

    def reference(self) -> tuple[Tensor, Tensor]:
        """`count` crops as noisy and clean images for validation, the same for every seed: (count, C, size, size)."""
        noisy, clean = [], []
        for number, images in enumerate(torch.arange(self.count).split(64)):
            draws = generator("validation", number)
            image = to_float(self._take(self._place(images, draws), *self._grid(len(images))))
            noisy.append(self.noise(image, draws))
            clean.append(self.noise.clean(image))
        return torch.cat(noisy), torch.cat(clean)

    def _place(self, images: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """Photo, top, left, side and mirroring of each crop, each (B, 1, 1)."""
        photo = images % len(self.starts)
        height, width = self.heights[photo], self.widths[photo]
        u = torch.rand(4, len(images), generator=draws)
        if self.zoom:
            low, high = self.zoom
            side = (torch.minimum(height, width) * (low + (high - low) * u[0])).long().clamp(min=1)
        else:
            side = torch.full_like(height, self.size * self.noise.block)
        place = {
            "start": self.starts[photo],
            "width": width,
            "top": (u[1] * (height - side + 1)).long(),
            "left": (u[2] * (width - side + 1)).long(),
            "side": side,
            "mirror": u[3] < (0.5 if self.zoom else 0.0),
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
        sampled = self._take(where, cell[:, None] + dy, cell + dx)
        return sampled if self.noise.sigma == 0 else self.noise.on_top(to_float(sampled), draws)

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
        val_batch_size: images per validation step; fewer where they are larger than 64 x 64.
        seed: of order, crops, noise and augmentation.
        augment: give both images of a pair the same random flips and, where they are square, quarter turns.
        colour: [lowest, highest] factor on the saturation, to give both images of a pair the same random saturation and
            contrast, see `recolour`; None leaves them as they are.
        workers: processes that prepare batches; 0 prepares them in the training process.
        supervised: train towards clean images instead of noisy ones, to compare with.

    Attributes, once `setup` was called:
        train, val: the two data sets.
        channels: of the images.
        scale: the stored value that becomes 1.0; None: the largest of its type, or 1 for floats.
        reference: what validation compares with, `clean` or `noisy`.
        bounded: whether clean images lie in [0, 1], so that denoised ones may be clamped to it.
        fingerprint: says what the data are, for `result.json`.
    """

    def __init__(
        self,
        batch_size: int = 100,
        val_batch_size: int = 250,
        seed: int = 0,
        augment: bool = False,
        colour: Sequence[float] | None = None,
        workers: int = 0,
        supervised: bool = False,
    ) -> None:
        super().__init__()
        whole_numbers(1, batch_size=batch_size, val_batch_size=val_batch_size)
        whole_numbers(0, workers=workers)
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.colour = None if colour is False else ordered("colour", colour, 100)  # false: in runs of older versions
        self.seed, self.augment, self.workers = seed, augment, workers
        self.supervised = supervised
        self.noise: Noise | None = None
        self.train: Dataset | None = None
        self.val: Dataset | None = None
        self.channels, self.reference, self.bounded = 3, "clean", True
        self.scale: float | None = None
        self.fingerprint: dict[str, Any] = {}
        self._position: dict[str, int] | None = None
        self._training: Loader | None = None

    def load(self) -> tuple[Dataset, Dataset]:
        """The training and the validation data; also sets the other attributes that differ from those above.

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

    def release(self) -> None:
        """Lets go of the images: Lightning keeps the trainer of a finished run alive, and with it all that it knew."""
        for dataset in (self.train, self.val):
            vars(dataset).clear()

    def train_dataloader(self) -> Loader:
        self._training = self._loader(self.train, self.batch_size, shuffle=True)
        if self._position:
            self._training.load_state_dict(self._position)
        return self._training

    def val_dataloader(self) -> Loader:
        size = 1
        if isinstance(self.val, Pairs):
            height, width = self.val.noisy.shape[-2:]
            size = max(1, min(self.val_batch_size, self.val_batch_size * 64 * 64 // (height * width)))
        return self._loader(self.val, size, shuffle=False)

    def _loader(self, dataset: Any, batch_size: int, shuffle: bool) -> Loader:
        batches = Batches(len(dataset), batch_size, self.seed, shuffle)
        return Loader(dataset, batches, self.workers if shuffle else 0)

    # Lightning restores loaders by itself, but not when the length of the run was asked for before, as schedules do.
    def state_dict(self) -> dict[str, Any]:
        return {"position": self._training.state_dict() if self._training else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._position = state_dict["position"]

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """On the training device: stored values become float in [0, 1], noise is drawn, pairs are turned."""
        training = self.trainer is not None and self.trainer.training
        recoloured = None
        if training and self.colour:
            draws = generator(self.seed, "colours", batch["epoch"], batch["number"])
            recoloured = partial(recolour, saturation=self.colour, draws=draws)
        if "image" in batch:
            image = to_float(batch["image"])
            if recoloured:  # before the noise, which is then of the strength that was asked for
                image = recoloured([image])[0].clamp(0, 1)
            pair = self._corrupt(image, batch, training)
        else:
            pair = [to_float(batch["input"], self.scale), to_float(batch["target"], self.scale)]
            if recoloured:
                pair = recoloured(pair)
        if training and self.augment:
            pair = turn(pair, generator(self.seed, "turns", batch["epoch"], batch["number"]))
        if not training:
            return {"input": pair[0], "target": pair[1]}
        # Each process of a run draws the whole batch and takes its share of it.
        assert self.trainer
        parts = [images.tensor_split(self.trainer.world_size)[self.trainer.global_rank] for images in pair]
        return {"input": parts[0], "target": parts[1], "size": len(pair[0])}

    def noisy_pair(self, batch: dict[str, Any]) -> list[Tensor]:
        """Both noisy sides of a batch of the training data, whoever asks, and whatever training aims at."""
        if "image" in batch:
            assert self.noise is not None
            image = to_float(batch["image"])
            draws = generator(self.seed, "noisy pair", batch["number"], device=image.device)
            return [self.noise(image, draws), self.noise.target(image, draws)]
        return [to_float(batch["input"], self.scale), to_float(batch["target"], self.scale)]

    def _corrupt(self, image: Tensor, batch: dict[str, Any], training: bool) -> list[Tensor]:
        """Noisy input and target of clean images (B, C, H, W)."""
        assert self.noise is not None
        if not training:  # the same noise for every seed, so that scores can be compared
            draws = generator("validation", batch["number"], device=image.device)
            return [self.noise(image, draws), self.noise.clean(image)]
        if not self.noise.frozen:
            return self._pair(
                image, generator(self.seed, "noise", batch["epoch"], batch["number"], device=image.device)
            )
        keys = [generator(self.seed, "frozen noise", n, device=image.device) for n in batch["images"].tolist()]
        parts = [self._pair(image[i : i + 1], draws) for i, draws in enumerate(keys)]
        return [torch.cat(side) for side in zip(*parts, strict=True)]

    def _pair(self, image: Tensor, draws: torch.Generator) -> list[Tensor]:
        assert self.noise is not None
        noisy = self.noise(image, draws)
        return [noisy, self.noise.clean(image) if self.supervised else self.noise.target(image, draws)]


def whole_numbers(least: int, **values: Any) -> None:
    """Raises InputError unless each of the options `values` of the data group is an integer of at least `least`."""
    for name, value in values.items():
        if not isinstance(value, int) or value < least:
            raise InputError(f"data.{name}={value}: must be a whole number, {least} or more")


def ordered(name: str, value: Any, most: float) -> tuple[float, float] | None:
    """The option `name` of the data group as a pair of numbers, 0 < first <= second <= `most`, or None.

    Raises:
        InputError: `value` is neither.
    """
    if value is None:
        return None
    try:
        first, second = (float(number) for number in value)
    except (TypeError, ValueError):
        first = second = 0
    if not 0 < first <= second <= most:
        raise InputError(f"data.{name}={value}: must be two numbers, 0 < smallest <= largest <= {most:g}, or null")
    return first, second


def to_float(image: Tensor, scale: float | None = None) -> Tensor:
    """Integers to float32 by dividing by `scale`, by default the largest value of their type (255, 65535).

    Floats are divided by `scale` only if one is given; tensors that are float32 already and need no scale are returned
    as they are.
    """
    if image.is_floating_point():
        return image.float() if scale in (None, 1.0) else image.float() / scale
    return image.float().div_(scale or torch.iinfo(image.dtype).max)


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


def recolour(images: Sequence[Tensor], saturation: tuple[float, float], draws: torch.Generator) -> list[Tensor]:
    """The same random saturation and contrast for each row of all `images` (B, C, H, W).

    Distances from the mean of a pixel's channels are multiplied by a factor between the two of `saturation`, distances
    from 0.5 by 0.7 to 1.4, both uniform in the logarithm. All of it is affine and nothing is clamped, so that noise of
    zero mean stays so.
    """
    u = torch.rand(2, len(images[0]), 1, 1, 1, generator=draws)
    lowest, highest = saturation
    colour, contrast = (
        factor.to(images[0].device) for factor in (lowest * (highest / lowest) ** u[0], 1.4 ** (2 * u[1] - 1))
    )
    recoloured = []
    for image in images:
        mean = image.mean(1, keepdim=True)
        recoloured.append((mean + (image - mean) * colour - 0.5) * contrast + 0.5)
    return recoloured
