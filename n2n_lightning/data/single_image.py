"""One noisy image of each scene: input and target are both made of it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.arrays import axes
from n2n_lightning.data.augmentation import turn
from n2n_lightning.data.datasets import Captures, MixedSizePairs, Pairs
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.reading import read_single
from n2n_lightning.data.samplers import BatchIndex
from n2n_lightning.data.scenes import SLAB, EqualSizeScenes, SceneSet, middle
from n2n_lightning.data.self_supervised import (
    METHODS,
    CountSplitting,
    Neighbor2Neighbor,
    Noise2Void,
    SelfSupervision,
)
from n2n_lightning.data.user_images import UserImages
from n2n_lightning.files import InputError, one_of
from n2n_lightning.losses import Neighbor2NeighborRegularizer
from n2n_lightning.randomness import generator

CROP_SIDES = {"neighbours": 96, "masked": 64, "thinned": 64}  # of neighbours the network sees half
LONGEST = 512  # pixels of a side of an image that validation makes input and target of


class SingleImages(UserImages):
    """Your own noisy images, one of each thing (docs/how-to/single.md).

    Args:
        noisy: a file or folder; every image in it is a scene of its own.
        method: what makes input and target of one image: `neighbours`
            (self_supervised.Neighbor2Neighbor), `masked` (self_supervised.Noise2Void) or `thinned`
            (self_supervised.CountSplitting, for photon counts).
        gamma: weight of the second pass of `neighbours` at the end of the run
            (losses.Neighbor2NeighborRegularizer).
        share, mask: of `masked`.
        val_noisy, val_target: a few scenes taken twice, to estimate PSNR with. Without them
            validation has a loss of its own, `val_self_loss`, that says how well input and target
            of the same kind fit, and the checkpoint is the last one.
        **options: see Own.
    """

    def __init__(
        self,
        noisy: str,
        method: str = "neighbours",
        gamma: float = 1.0,
        share: float = 0.03,
        mask: Sequence[int] = (1, 1),
        **options: Any,
    ) -> None:
        one_of(method, tuple(METHODS), "data.method")
        if not 0 <= gamma <= 100:
            raise InputError("data.gamma", gamma, "must be 0 or more, and 100 at most")
        super().__init__(noisy, **options)
        if self.supervised:
            raise InputError("target", "clean", "data=single knows no clean images")
        self.thinned = method == "thinned"
        Noise2Void(share, mask)  # says what is wrong with them
        self.kind, self._mask, self._gamma = method, (share, mask), float(gamma)
        self.method: SelfSupervision | None = None

    def load(self) -> tuple[Dataset, Dataset | None]:
        scenes = self._prepared(self._scenes())
        self.method = self._made(scenes)
        val: Dataset | None = None
        if self.val_noisy:
            self.reference, train, val = "noisy", scenes, self._others(scenes)
        else:
            self.reference = "self"
            train, back = self._kept_back(scenes)
            val = None if back is None else _once(back)
        count = self._count(train)
        self.fingerprint = self._described("single", scenes, count, val, method=self.kind)
        return SingleImageCrops(train, self.seed, False, None, self.crop, count), val

    def _scenes(self) -> SceneSet:
        return self._read(read_single, self.noisy)

    def _suitable(self) -> tuple[int, ...]:
        flat = (CROP_SIDES[self.kind],) * 2
        return flat if self.dims == 2 else (32, *flat)

    def _made(self, scenes: SceneSet) -> SelfSupervision:
        cubes = self.dims == 3 and len(axes.quarter_turns((1, 1, 1), self.spacing)) == 3
        if self.kind == "masked":
            return Noise2Void(*self._mask, cubes=cubes)
        if self.kind == "neighbours":
            return Neighbor2Neighbor(cubes)
        assert self.limits
        black, span = self.limits
        for i in range(min(len(scenes.names), 8)):
            values = scenes.image(i, 0).double()
            known = values[values.isfinite()]
            if (known < 0).any() or (known != known.round()).any():
                raise InputError(
                    "data.method",
                    "thinned",
                    f"{scenes.names[i]} has values that are no photon counts: whole numbers, 0"
                    " or more; neighbours or masked would work",
                )
        return CountSplitting(-black / span, (1 - black) / span)

    @property
    def second_pass(self) -> Neighbor2NeighborRegularizer | None:
        """What is added to the loss, with a second pass through the network."""
        return (
            Neighbor2NeighborRegularizer(self._gamma)
            if self.kind == "neighbours" and self._gamma
            else None
        )

    def captured(self) -> tuple[SceneSet, IntensityStats, int | None, str] | None:
        """See NoisyPairs."""
        assert isinstance(self.train, Captures)
        kind = (
            "lines"
            if isinstance(self.method, Noise2Void) and self.method.mask != (1, 1)
            else self.kind
        )
        return self.train.scenes, self.seen, None, kind

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """On the training device: images become float, and input and target of one another."""
        training = self.trainer is not None and self.trainer.training
        if not training and self.reference == "noisy":
            return super().on_after_batch_transfer(batch, dataloader_idx)
        assert self.method
        seen, truth = self._shown(batch["input"], batch["input"], noisy=True)
        if not training:
            ready = self.method(seen, truth, generator("validation", batch["number"]))
            return {**ready, "shown": seen}
        draws = generator(self.seed, "method", batch["epoch"], batch["number"])
        turns = generator(self.seed, "turns", batch["epoch"], batch["number"])
        # Noise along a line must stay along it, and drawn cells belong to the image as it lies.
        if self.augment and self.kind == "neighbours":
            seen, truth = turn([seen, truth], turns, spacing=self.spacing)
        ready = self.method(seen, truth, draws)
        if self.augment and self.kind != "neighbours":
            square = (
                not isinstance(self.method, Noise2Void)
                or self.method.mask[0] == self.method.mask[1]
            )
            pair = turn(
                [ready["input"], ready["target"]], turns, transposed=square, spacing=self.spacing
            )
            ready |= dict(zip(("input", "target"), pair, strict=True))
        assert self.trainer
        size, rank = self.trainer.world_size, self.trainer.global_rank
        return {
            **{name: part.tensor_split(size)[rank] for name, part in ready.items()},
            "size": len(seen),
        }

    def noisy_pair(self, batch: dict[str, Any]) -> list[Tensor]:
        """Input and target of a batch, whoever asks."""
        assert self.method
        seen, truth = self._shown(batch["input"], batch["input"], noisy=True)
        ready = self.method(seen, truth, generator(self.seed, "noisy pair", batch["number"]))
        return [ready["input"], ready["target"]]


class SingleImageCrops(Captures):
    """Windows of noisy images; a batch has them as `input`."""

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        scene = key.scene_index(self.count, len(self.scenes.names))
        draws = generator(self.seed, "captures", key.epoch, key.number)
        u = torch.rand(2, len(scene), generator=draws)
        window = self._window(scene, u, draws) if self.window else ()
        return {"input": self.scenes.take(scene, 0 * scene, window), **key.identity()}


def _once(scenes: SceneSet) -> Dataset:
    """The images that were kept back, the middle of large ones."""
    longest = LONGEST if len(scenes.smallest) == 2 else SLAB
    images = [middle(scenes.image(i, 0), longest) for i in range(len(scenes.names))]
    if isinstance(scenes, EqualSizeScenes) and len(scenes.smallest) == 2:
        whole = torch.stack(images)
        return Pairs(whole, whole)
    return MixedSizePairs(images, images)
