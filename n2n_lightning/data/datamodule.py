"""From stored images to batches of noisy pairs on the training device.

A batch is a dict: `input` and `target`, float (B, C, H, W), values in [0, 1] up to noise. In
training the target is another noisy version of the input's image; in validation it is the clean
image. Stored integers stay integers until they are on the device that trains; everything random is
a pure function of (seed, epoch, batch number).
"""

import math
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.arrays import axes, bad_pixels, outliers
from n2n_lightning.arrays.frame_offsets import input_frames
from n2n_lightning.arrays.layout import Layout
from n2n_lightning.arrays.outlier_lists import Listed
from n2n_lightning.data.augmentation import recolour, to_float, to_range, turn
from n2n_lightning.data.datasets import Pairs
from n2n_lightning.data.options import ordered, whole_numbers
from n2n_lightning.data.samplers import BatchDraws, BatchSampler, Loader, PlainIterable
from n2n_lightning.data.training_scenes import TrainingScenes
from n2n_lightning.devices import copies
from n2n_lightning.files import InputError
from n2n_lightning.noise import Noise


class NoisyPairs(pl.LightningDataModule):
    """Base class of all sources of data.

    A source defines `load`, which reads the images, and `make_pair`, which makes input and target
    of a batch, unless its batches hold stored noisy pairs.

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
        dims: 2 for images, 3 for volumes; `auto`: as the data are.
        supervised: train towards clean images instead of noisy ones, to compare with.

    Attributes, once `setup` was called:
        train, val: the two data sets.
        training_scenes: the noisy captures that are trained on; None where noise is synthetic, or
            targets are clean.
        channels: of the images.
        dims: their spatial axes: 2, or 3 of volumes.
        spacing: of volumes, the distance of neighbouring voxels along D, H and W; None: not known.
        notes: lines about the data, to be printed before training.
        thinned: whether the network learns from halves of photon counts.
        context: of movies, how many frames before and after one are the input; 0: pairs of frames.
        sees_middle: with a context: the frame itself is part of the input, too.
        mask: what is hidden around each pixel that is learnt, as typed for data.mask; empty where
            no pixels are hidden.
        subtracts_from_middle: networks that can (DRUNet) subtract the noise from the frame itself;
            False: from the mean of all frames that they see.
        repeats: whether captures of a scene show the same thing, so that what one of them lacks is
            none of it.
        scale: the stored value that is white for PSNR; None: the largest of its type, or 1 for
            floats.
        limits: the stored value that is 0 for the network, and how much above it is 1; None: 0 and
            `scale`.
        nodata_values: stored values that mean that a pixel is missing.
        outliers: what happens to isolated pixels that stand out: choices.OUTLIERS.
        defects: bool, (C, H, W): pixels that stand out in most of several different scenes; None:
            not known.
        stored_unit: (factor, offset) that make physical values of the stored ones; None where files
            do not state it.
        left_out: names of images that are not used.
        array_layout: how the first array was read, for the checkpoint; None where arrays are no
            files of the user.
        dropped: frames and files that are not used, a line in words for each reason.
        reference: what validation compares with: `clean`, `noisy` or, of single images, `self`. Of
            movies whose network sees the frame itself `stein`, Stein's estimate, or `hidden`, the
            loss of hidden pixels alone, where the noise could not be measured.
        bounded: whether clean images lie in [0, 1], so that denoised ones may be clamped to it.
        fingerprint: identifies the data, for `result.json`.
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
        if not 0 <= grey <= 1:
            raise InputError("data.grey", grey, "must be a share, 0 to 1")
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.seed = seed
        self.augment = augment
        # false: in runs of older versions
        self.colour = None if colour is False else ordered("colour", colour, 100)
        self.workers = workers
        self.supervised = supervised
        self.grey = grey
        self.asked_dims = dims

        self.train: Dataset | None = None
        self.val: Dataset | None = None
        self.training_scenes: TrainingScenes | None = None
        self.noise: Noise | None = None
        self.channels = 3
        self.dims = 2
        self.spacing: Sequence[float] | None = None
        self.notes: list[str] = []
        self.thinned = False
        self.context = 0
        self.sees_middle = False
        self.mask = ""
        self.subtracts_from_middle = False
        self.align = False
        self.repeats = True
        self.scale: float | None = None
        self.limits: tuple[float, float] | None = None
        self.nodata_values: tuple[float, ...] = ()
        self.outliers = "auto"
        self.defects: Tensor | None = None
        self.stored_unit: tuple[float, float] | None = None
        self.left_out: list[str] = []
        self.array_layout: Layout | None = None
        self.dropped: list[str] = []
        self.reference = "clean"
        self.bounded = True
        self.fingerprint: dict[str, Any] = {}
        self.score_of: dict[str, Any] = {}
        self._position: dict[str, int] | None = None
        self._training: Loader | None = None
        self._device = torch.device("cpu")  # of the network

    def load(self) -> tuple[Dataset, Dataset | None]:
        """Read the images; also set the attributes above that differ from their defaults.

        Returns:
            The training and the validation data; None: no validation.

        Raises:
            InputError: the data cannot be used; the message says which file or option, and what
                would work.
        """
        raise NotImplementedError

    def make_pair(
        self, batch: dict[str, Any], draws: BatchDraws, training: bool
    ) -> dict[str, Tensor]:
        """Make input and target of a batch; here, of one that holds stored noisy pairs.

        Args:
            batch: from one of the data sets, on the training device.
            draws: random generators, by purpose.
            training: False for validation, whose input gets no augmentation.

        Returns:
            `input` and `target`, float (B, C, H, W) in units of the network, NaN where a target is
            missing; in validation against noisy captures also `other_input` and `other_target`, the
            same pair in the other direction.
        """
        pair = self.normalized_pair(batch["input"], batch["target"], noisy=training)
        if not training:
            return self._scored(pair, batch)
        noisy, target = self.turned(self.recoloured(pair, draws), draws)
        return {
            "input": noisy,
            "target": target,
        }

    def setup(self, stage: str | None = None) -> None:
        """Read the data, once.

        Args:
            stage: Lightning's, `fit` or `validate`.

        Raises:
            InputError: see `load`; or there are fewer pairs than a batch has.
        """
        if self.train is not None:
            return
        self.train, self.val = self.load()
        size = len(self.train)  # type: ignore[arg-type]
        if size < self.batch_size:
            raise InputError(
                "data.batch_size", self.batch_size, f"there are only {size} training pairs"
            )

    @property
    def blind(self) -> bool:
        """True if the kind and strength of the noise vary, and the network has to estimate them."""
        return self.noise is not None and self.noise.blind

    @property
    def input_channels(self) -> int:
        """Channels that the network takes: those of all frames that it is shown."""
        return self.channels * input_frames(self.context, self.sees_middle)

    @property
    def second_pass(self) -> Any:
        """Term of the loss with a second pass through the network, see module.Denoiser, or None."""
        return None

    @property
    def unit(self) -> float:
        """One unit of the network's range, as a share of PSNR's white."""
        if self.limits is None:
            return 1.0
        _, span = self.limits
        return span / (self.scale or 1.0)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest value of clean images, in units of the network; None: not known."""
        if not self.bounded:
            return None
        black, span = self.limits or (0.0, 1.0)
        return -black / span, 1 / self.unit - black / span

    def release(self) -> None:
        """Drop the images: Lightning keeps the trainer of a finished run, and all it refers to."""
        self.training_scenes = None
        for dataset in (self.train, self.val):
            if dataset is not None:
                vars(dataset).clear()

    def train_dataloader(self) -> Loader:
        """Load the training data, from where a checkpoint left off.

        Returns:
            The batches of an epoch.
        """
        overfit = getattr(self.trainer, "overfit_batches", 0) > 0  # the same batches in every epoch
        self._training = self._loader(self.train, self.batch_size, shuffle=not overfit)
        if self._position:
            self._training.load_state_dict(self._position)
        return self._training

    def val_dataloader(self) -> Loader:
        """Load the validation data, in order.

        Returns:
            Batches; of images of different sizes one image each.
        """
        size = 1
        if isinstance(self.val, Pairs):
            pixels = math.prod(axes.size(self.val.noisy))
            most = min(self.val_batch_size, self.val_batch_size * 64 * 64 // pixels)
            size = max(1, most)
        return self._loader(self.val, size, shuffle=False)

    def test_dataloader(self) -> Loader:
        """Load the validation data, for `Trainer.test`.

        Returns:
            See val_dataloader.
        """
        return self.val_dataloader()

    def predict_dataloader(self) -> PlainIterable:
        """Load the validation data, for `Trainer.predict`.

        Returns:
            The batches of val_dataloader, not a DataLoader, which Lightning would rebuild.
        """
        return PlainIterable(self.val_dataloader())

    def _loader(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool,
    ) -> Loader:
        batches = BatchSampler(len(dataset), batch_size, self.seed, shuffle)
        strategy = getattr(self.trainer, "strategy", None)
        on_card = strategy is not None and strategy.root_device.type == "cuda"
        # validation pairs are made on the CPU
        pinned = on_card and dataset is self.train
        return Loader(dataset, batches, self.workers if shuffle else 0, pinned)

    # Lightning restores loaders by itself, but not when the length of the run was asked for before,
    # as schedules do.
    def state_dict(self) -> dict[str, Any]:
        """Describe the place in the epoch, for a checkpoint.

        Returns:
            Plain values.
        """
        return {"position": self._training.state_dict() if self._training else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the place in the epoch that a checkpoint states."""
        self._position = state_dict["position"]

    @property
    def _trains(self) -> bool:
        """True for batches of training, False for those of validation."""
        return self.trainer is not None and bool(self.trainer.training)

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Move a batch to the device of the network, where pairs are made there.

        Those of validation are made on the CPU, so that a network is scored on the same noise
        wherever it is; and all of them where the device lacks float64 and the draws of counts.

        Args:
            batch: from one of the data sets.
            device: of the network.
            dataloader_idx: Lightning's.

        Returns:
            The batch.
        """
        self._device = device
        if copies.lacks_float64(device) or not self._trains:
            return batch
        moved: dict[str, Any] = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Make input and target, and this process's share of them.

        Args:
            batch: from one of the data sets, where `transfer_batch_to_device` left it.
            dataloader_idx: Lightning's.

        Returns:
            What `make_pair` returns, on the device of the network; in training also `size`, the
            pairs of all processes.
        """
        training = self._trains
        draws = self._draws(batch, "training" if training else "validation")
        ready: dict[str, Any] = self.make_pair(batch, draws, training)
        if not training:
            return self._on_device(ready, dataloader_idx)
        assert self.trainer
        # Each process of a run draws the whole batch and takes its share of it.
        processes = self.trainer.world_size
        rank = self.trainer.global_rank
        share: dict[str, Any] = {}
        for name, images in ready.items():
            share[name] = images.tensor_split(processes)[rank]
        share = self._on_device(share, dataloader_idx)
        share["size"] = len(ready["input"])
        return share

    def _on_device(self, ready: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Return a batch that was made, on the device of the network."""
        if ready["input"].device == self._device:
            return ready
        listed = ready.pop("listed", None)  # Lightning moves no frozen dataclass
        moved = super().transfer_batch_to_device(ready, self._device, dataloader_idx)
        if listed is not None:
            moved["listed"] = listed.to(self._device)
        return moved

    def noisy_pair(self, batch: dict[str, Any]) -> list[Tensor]:
        """Make two noisy versions of the images of a batch, without augmentation.

        Args:
            batch: from the training data.

        Returns:
            Both, (B, C, H, W) each, in units of the network; the second is noisy also where the
            training target is clean.
        """
        ready = self.make_pair(batch, self._draws(batch, "plain"), training=True)
        return [ready["input"], ready["target"]]

    def _draws(self, batch: dict[str, Any], use: str) -> BatchDraws:
        return BatchDraws(self.seed, batch["epoch"], batch["number"], use)

    def recoloured(self, images: list[Tensor], draws: BatchDraws) -> list[Tensor]:
        """Give all images the same random saturation and contrast, where `colour` asks for it.

        Args:
            images: both of a pair, or one, (B, C, H, W) each.
            draws: of this batch.

        Returns:
            As many images.
        """
        if self.colour is None or draws.plain:
            return images
        return recolour(images, self.colour, draws("colours"))

    def turned(
        self, images: list[Tensor], draws: BatchDraws, transposed: bool = True
    ) -> list[Tensor]:
        """Give all images the same random flips and quarter turns, where `augment` asks for it.

        Args:
            images: both of a pair, (B, C, H, W) each.
            draws: of this batch.
            transposed: False: flips alone.

        Returns:
            As many images.
        """
        if not self.augment or draws.plain:
            return images
        return turn(images, draws("turns"), transposed, self.spacing)

    def normalized_pair(
        self,
        first: Tensor,
        second: Tensor,
        noisy: bool,
    ) -> list[Tensor]:
        """Convert a stored pair to units of the network, and treat missing pixels and outliers.

        Args:
            first: stored inputs, (B, C, H, W), whose gaps are filled.
            second: stored targets, which are NaN in their gaps.
            noisy: whether outliers of the targets become NaN, too.

        Returns:
            Both, float.
        """
        if self.limits is None:
            return [to_float(first, self.scale), to_float(second, self.scale)]
        seen = self._normalized(first)
        target = self._normalized(second)
        if not self._may_have_outliers(first):
            return [bad_pixels.inpaint(seen), target]
        whole = self.outliers == "auto"
        if noisy:
            target = outliers.mask_outliers(target, whole)
        return [outliers.inpaint_outliers(seen, whole), target]

    def _normalized(self, stored: Tensor) -> Tensor:
        """Return stored values in units of the network; NaN where they are missing."""
        assert self.limits
        return bad_pixels.mask_invalid(stored, to_range(stored, self.limits), self.nodata_values)

    def _may_have_outliers(self, stored: Tensor) -> bool:
        """Return True if outliers are looked for; in 8 bits no pixel stands out far enough."""
        return self.outliers != "keep" and self.limits is not None and stored.dtype != torch.uint8

    def _scored(self, pair: list[Tensor], batch: dict[str, Any]) -> dict[str, Any]:
        """Complete a validation batch; see `outlier_lists.Listed` for the treatment of outliers.

        Args:
            pair: input and target in units of the network.
            batch: as it was stored; with noisy references it is scored in both directions.
        """
        first_input, target = pair
        ready: dict[str, Any] = {
            "input": first_input,
            "target": target,
        }
        noisy = self.reference == "noisy"
        if noisy:
            other = self.normalized_pair(batch["target"], batch["input"], noisy=False)
            ready |= {
                "other_input": other[0],
                "other_target": other[1],
                "scene": batch["scene"],
            }
        if not self._may_have_outliers(batch["input"]):
            return ready
        first = self._normalized(batch["input"])
        second = self._normalized(batch["target"]) if noisy else None
        defects = None
        if self.defects is not None and self.defects.shape == first.shape[1:]:
            defects = self.defects.to(first.device)
        listed = Listed.of(first, second, self.outliers, self.repeats, defects)
        if listed is None:
            return ready
        if noisy:
            ready |= {
                "target": listed.second,
                "other_target": listed.first,
            }
        return {
            **ready,
            "listed": listed,
        }
