"""From stored images to batches of noisy pairs on the training device.

A batch is a dict: `input` and `target`, float (B, C, H, W), values in [0, 1] up to noise. In
training the target is another noisy version of the input's image; in validation it is the clean
image. Stored integers stay integers until they are on the device that trains; everything random is
a pure function of (seed, epoch, batch number).
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.arrays import axes, bad_pixels
from n2n_lightning.arrays.outliers import Listed
from n2n_lightning.data.augmentation import recolour, to_float, to_range, turn, without_colour
from n2n_lightning.data.datasets import Pairs
from n2n_lightning.data.options import ordered, whole_numbers
from n2n_lightning.data.samplers import BatchSampler, Loader, PlainIterable
from n2n_lightning.files import InputError
from n2n_lightning.noise import Noise
from n2n_lightning.randomness import generator


class NoisyPairs(pl.LightningDataModule):
    """What every source of data has in common; a source says what it holds in `load`.

    Args:
        batch_size: noisy pairs per optimiser step.
        val_batch_size: images per validation step; fewer where they are larger than 64 x 64.
        seed: of order, crops, noise and augmentation.
        augment: give both images of a pair the same random flips and, where they are square,
            quarter turns.
        colour: [lowest, highest] factor on the saturation, to give both images of a pair the same
            random saturation and contrast, see `recolour`; None leaves them as they are.
        workers: processes that prepare batches; 0 prepares them in the training process.
        grey: share of the clean crops that lose their colour before they get their noise.
        dims: 2 for images, 3 for volumes; `auto` takes what the data are.
        supervised: train towards clean images instead of noisy ones, to compare with.

    Attributes, once `setup` was called:
        train, val: the two data sets.
        channels: of the images.
        dims: their spatial axes: 2, or 3 of volumes.
        spacing: of volumes, the distance of neighbouring voxels along D, H and W, where that is
            known.
        notes: what should be said of the data before training.
        thinned: whether the network learns from halves of photon counts.
        context: of movies, how many frames before and after one the network is shown in place of
            it.
        scale: the stored value that is white for PSNR; None: the largest of its type, or 1 for
            floats.
        limits: the stored value that is 0 for the network, and how much above it is 1; None: 0 and
            `scale`.
        nodata_values: stored values that mean that a pixel is missing.
        outliers: what happens to isolated pixels that stand out: choices.OUTLIERS.
        defects: bool, (C, H, W): pixels that stand out in most of several different scenes; None:
            not known.
        stored_unit: (factor, offset) that make physical values of the stored ones; None where files
            do not say it.
        left_out: names of images that are not used.
        array_layout: how the first array was read, for the checkpoint; None where arrays are no
            files of the user.
        dropped: frames and files that are not used, a line in words for each reason.
        reference: what validation compares with, `clean` or `noisy`.
        bounded: whether clean images lie in [0, 1], so that denoised ones may be clamped to it.
        fingerprint: says what the data are, for `result.json`.
        score_of: of noisy captures, which of them the score is of, and their noise, for
            `result.json`.
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
        grey: float = 0.0,
        dims: int | str = "auto",
    ) -> None:
        super().__init__()
        whole_numbers(1, batch_size=batch_size, val_batch_size=val_batch_size)
        whole_numbers(0, workers=workers)
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        # false: in runs of older versions
        self.colour = None if colour is False else ordered("colour", colour, 100)
        self.seed, self.augment, self.workers = seed, augment, workers
        self.context, self.thinned = 0, False
        self.asked_dims, self.dims = dims, 2
        self.spacing: Sequence[float] | None = None
        self.notes: list[str] = []
        self.supervised, self.grey = supervised, grey
        if not 0 <= grey <= 1:
            raise InputError("data.grey", grey, "must be a share, 0 to 1")
        self.noise: Noise | None = None
        self.train: Dataset | None = None
        self.val: Dataset | None = None
        self.channels, self.reference, self.bounded = 3, "clean", True
        self.scale: float | None = None
        self.limits: tuple[float, float] | None = None
        self.nodata_values: tuple[float, ...] = ()
        self.outliers = "auto"
        self.defects: Tensor | None = None
        self.stored_unit: tuple[float, float] | None = None
        self.left_out: list[str] = []
        self.array_layout: axes.Layout | None = None
        self.dropped: list[str] = []
        self.fingerprint: dict[str, Any] = {}
        self.score_of: dict[str, Any] = {}
        self._position: dict[str, int] | None = None
        self._training: Loader | None = None

    def load(self) -> tuple[Dataset, Dataset | None]:
        """The training and the validation data (None: no validation); also sets what else differs from the above.

        Raises:
            InputError: the data cannot be used; the message says which file or option, and what
                would work.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        if self.train is None:
            self.train, self.val = self.load()
            size = len(self.train)  # type: ignore[arg-type]
            if size < self.batch_size:
                raise InputError(
                    "data.batch_size", self.batch_size, f"there are only {size} training pairs"
                )

    def captured(self) -> tuple[Any, Any, int | None, str] | None:
        """Captures, what their values mean (intensity.IntensityStats), how far apart pairs may be, and what makes pairs
        of them.

        The last is `pairs`, or a method for single images; `lines` masks them. None where noise is
        made here, or nothing is learnt from it.
        """
        return None

    @property
    def blind(self) -> bool:
        """Whether the noise is of so many kinds that the network has to guess which."""
        return self.noise is not None and self.noise.blind

    @property
    def second_pass(self) -> Any:
        """What is added to the loss, with a second pass through the network; see module.Denoiser."""
        return None

    def release(self) -> None:
        """Lets go of the images: Lightning keeps the trainer of a finished run alive, and with it all that it knew."""
        for dataset in (self.train, self.val):
            if dataset is not None:
                vars(dataset).clear()

    def train_dataloader(self) -> Loader:
        overfit = getattr(self.trainer, "overfit_batches", 0) > 0  # the same batches in every epoch
        self._training = self._loader(self.train, self.batch_size, shuffle=not overfit)
        if self._position:
            self._training.load_state_dict(self._position)
        return self._training

    def val_dataloader(self) -> Loader:
        size = 1
        if isinstance(self.val, Pairs):
            pixels = math.prod(axes.size(self.val.noisy))
            size = max(1, min(self.val_batch_size, self.val_batch_size * 64 * 64 // pixels))
        return self._loader(self.val, size, shuffle=False)

    def test_dataloader(self) -> Loader:
        """The validation data, for `Trainer.test`."""
        return self.val_dataloader()

    def predict_dataloader(self) -> PlainIterable:
        """The validation data, for `Trainer.predict`."""
        return PlainIterable(self.val_dataloader())

    def _loader(self, dataset: Any, batch_size: int, shuffle: bool) -> Loader:
        batches = BatchSampler(len(dataset), batch_size, self.seed, shuffle)
        return Loader(dataset, batches, self.workers if shuffle else 0)

    # Lightning restores loaders by itself, but not when the length of the run was asked for before,
    # as schedules do.
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
            if training and self.grey:
                image = without_colour(
                    image, self.grey, generator(self.seed, "grey", batch["epoch"], batch["number"])
                )
            pair = self._corrupt(image, batch, training)
        else:
            pair = self._shown(batch["input"], batch["target"], training)
            if recoloured:
                pair = recoloured(pair)
        if training and self.augment:
            pair = turn(
                pair,
                generator(self.seed, "turns", batch["epoch"], batch["number"]),
                spacing=self.spacing,
            )
        if not training:
            ready = self._scored(pair, batch)
            return {**ready, **self.noise_of_target(ready)} if self.reference == "noisy" else ready
        # Each process of a run draws the whole batch and takes its share of it.
        assert self.trainer
        parts = [
            images.tensor_split(self.trainer.world_size)[self.trainer.global_rank]
            for images in pair
        ]
        return {"input": parts[0], "target": parts[1], "size": len(pair[0])}

    def noise_of_target(self, ready: dict[str, Tensor]) -> dict[str, Tensor]:
        """The noise of the reference of a validation batch, where the score is that of its input alone.

        Args:
            ready: `input`, `target`, `other_target`, as the network takes them.

        Returns:
            `target_noise`, its variance at each pixel (noise_levels.noise_power), or nothing: both
            are scored.
        """
        return {}

    def noisy_pair(self, batch: dict[str, Any]) -> list[Tensor]:
        """Both noisy sides of a batch of the training data, whoever asks, and whatever training aims at."""
        if "image" in batch:
            assert self.noise is not None
            image = to_float(batch["image"])
            draws = generator(self.seed, "noisy pair", batch["number"], device=image.device)
            return [self.noise(image, draws), self.noise.target(image, draws)]
        return self._shown(batch["input"], batch["target"], noisy=True)

    def _shown(self, first: Tensor, second: Tensor, noisy: bool) -> list[Tensor]:
        """Stored images as the network takes them; where a noisy target is missing or wild, it is NaN."""
        if self.limits is None:
            return [to_float(first, self.scale), to_float(second, self.scale)]
        one, other = self._normalized(first), self._normalized(second)
        if not self._may_have_outliers(first):
            return [bad_pixels.inpaint(one), other]
        whole = self.outliers == "auto"
        return [
            bad_pixels.inpaint_outliers(one, whole),
            bad_pixels.mask_outliers(other, whole) if noisy else other,
        ]

    def _normalized(self, stored: Tensor) -> Tensor:
        """Stored values in units of the network; NaN where they are missing."""
        assert self.limits
        return bad_pixels.mask_invalid(stored, to_range(stored, self.limits), self.nodata_values)

    def _may_have_outliers(self, stored: Tensor) -> bool:
        """Whether isolated pixels are looked for; the ends of 8 bits are too near for a pixel to stand out."""
        return self.outliers != "keep" and self.limits is not None and stored.dtype != torch.uint8

    def _scored(self, pair: list[Tensor], batch: dict[str, Any]) -> dict[str, Any]:
        """Complete a validation batch; see `outliers.Listed` for what is said of isolated pixels.

        Args:
            pair: input and target as the network takes them.
            batch: as it was stored; with noisy references it is scored in both directions.
        """
        ready: dict[str, Any] = {"input": pair[0], "target": pair[1]}
        if self.reference == "noisy":
            other = self._shown(batch["target"], batch["input"], noisy=False)
            ready |= {"other_input": other[0], "other_target": other[1], "scene": batch["scene"]}
        if "image" in batch or not self._may_have_outliers(batch["input"]):
            return ready
        first = self._normalized(batch["input"])
        second = self._normalized(batch["target"]) if self.reference == "noisy" else None
        defects = self.defects
        if defects is not None:
            defects = defects.to(first.device) if defects.shape == first.shape[1:] else None
        listed = Listed.of(first, second, self.outliers, self.repeats, defects)
        if listed is None:
            return ready
        if second is not None:
            ready |= {"target": listed.second, "other_target": listed.first}
        return {**ready, "listed": listed}

    @property
    def repeats(self) -> bool:
        """Whether captures of a scene show the same thing, so that what one of them lacks is none of it."""
        return True

    @property
    def unit(self) -> float:
        """How much of PSNR's white one unit of the network's range is."""
        return 1.0 if self.limits is None else self.limits[1] / (self.scale or 1.0)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Between which values, in the network's units, clean images lie; None where that is not known."""
        black, span = self.limits or (0.0, 1.0)
        return (-black / span, 1 / self.unit - black / span) if self.bounded else None

    def _corrupt(self, image: Tensor, batch: dict[str, Any], training: bool) -> list[Tensor]:
        """Noisy input and target of clean images (B, C, H, W)."""
        assert self.noise is not None
        if not training:  # the same noise for every seed, so that scores can be compared
            draws = generator("validation", batch["number"], device=image.device)
            return [self.noise(image, draws), self.noise.clean(image)]
        if not self.noise.frozen:
            return self._pair(
                image,
                generator(self.seed, "noise", batch["epoch"], batch["number"], device=image.device),
            )
        keys = [
            generator(self.seed, "frozen noise", n, device=image.device)
            for n in batch["images"].tolist()
        ]
        parts = [self._pair(image[i : i + 1], draws) for i, draws in enumerate(keys)]
        return [torch.cat(side) for side in zip(*parts, strict=True)]

    def _pair(self, image: Tensor, draws: torch.Generator) -> list[Tensor]:
        assert self.noise is not None
        noisy = self.noise(image, draws)
        return [
            noisy,
            self.noise.clean(image) if self.supervised else self.noise.target(image, draws),
        ]
