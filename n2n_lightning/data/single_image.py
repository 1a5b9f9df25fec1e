"""One noisy image of each scene: input and target are both made of it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.arrays import axes
from n2n_lightning.data.datasets import Captures, MixedSizePairs, Pairs
from n2n_lightning.data.mask import Mask
from n2n_lightning.data.mask_choice import choose_mask, fitting, mask_of_pairs
from n2n_lightning.data.reading import read_single
from n2n_lightning.data.region_tensor import loaded
from n2n_lightning.data.samplers import BatchDraws, BatchIndex
from n2n_lightning.data.scene_set import SLAB, SceneSet, middle
from n2n_lightning.data.self_supervised import (
    METHODS,
    CountSplitting,
    Neighbor2Neighbor,
    Noise2Void,
    SelfSupervision,
)
from n2n_lightning.data.training_scenes import TrainingScenes
from n2n_lightning.data.user_images import UserImages
from n2n_lightning.files import InputError, one_of
from n2n_lightning.losses import Neighbor2NeighborRegularizer
from n2n_lightning.randomness import generator

CROP_SIDES = {
    "neighbours": 96,
    "masked": 64,
    "thinned": 64,
}  # of neighbours the network sees half
CROP_DEPTH = 32  # of windows of volumes
LONGEST_SCORED = 512  # pixels of a side of an image that validation makes input and target of
PAIRS_MEASURED = 8  # scenes taken twice, whose differences show the noise
COUNTS_CHECKED = 8  # images whose values are checked to be photon counts


class SingleImages(UserImages):
    """User-supplied noisy images, one of each scene (docs/how-to/single.md).

    Args:
        noisy: a file or folder; every image in it is a scene.
        method: what makes input and target of one image: `neighbours`
            (self_supervised.Neighbor2Neighbor), `masked` (self_supervised.Noise2Void) or `thinned`
            (self_supervised.CountSplitting, for photon counts).
        gamma: weight of the second pass of `neighbours` at the end of the run
            (losses.Neighbor2NeighborRegularizer).
        share: of the pixels that `masked` hides, about.
        mask: of `masked`: what is hidden around each pixel that is learnt, see mask.Mask; `auto`:
            the pixels whose noise is correlated with it, see mask_choice.
        val_noisy, val_target: a few scenes taken twice, to estimate PSNR with. Without them
            validation computes `val_self_loss`, how well input and target of the same kind fit, and
            the last checkpoint is the result.
        **options: see UserImages.
    """

    def __init__(
        self,
        noisy: str,
        method: str = "neighbours",
        gamma: float = 1.0,
        share: float = 0.03,
        mask: str | Sequence[int] = "auto",
        **options: Any,
    ) -> None:
        one_of(method, tuple(METHODS), "data.method")
        if not 0 <= gamma <= 100:
            raise InputError("data.gamma", gamma, "must be 0 or more, and 100 at most")
        super().__init__(noisy, **options)
        if self.supervised:
            raise InputError("target", "clean", "data=single knows no clean images")
        self.thinned = method == "thinned"
        self.kind = method
        self._gamma = float(gamma)
        self.share = share
        self.asked_mask = None if mask == "auto" else Mask.of(mask)
        Noise2Void(share, self.asked_mask or Mask())  # refuses what cannot be
        self.method: SelfSupervision | None = None

    def load(self) -> tuple[Dataset, Dataset | None]:
        """Read the images, see NoisyPairs.

        Returns:
            Windows of the training images, and images held out, or pairs of others.
        """
        scenes = self._prepared(self._scenes())
        self.method = self._method_for(scenes)
        self.training_scenes = split = self._split(scenes)
        count = self._count(split.scenes)
        val = split.validation
        shown = {"method": self.kind}
        if self.mask:
            shown["mask"] = self.mask
        self.fingerprint = self._described("single", scenes, count, val, **shown)
        return SingleImageCrops(split.scenes, self.seed, False, None, self.crop, count), val

    def _split(self, scenes: SceneSet) -> TrainingScenes:
        """Choose the images to train on, and what to validate on."""
        method = self.kind
        if isinstance(self.method, Noise2Void):  # a mask that was measured needs no doubts
            measured = self.asked_mask is None
            method = "masked" if self.method.white and not measured else "hidden"
        val: Dataset | None
        if self.val_noisy:
            self.reference = "noisy"
            val = self._pairs_of_others(scenes)
            return TrainingScenes(scenes, self.stats, method, validation=val)
        self.reference = "self"
        train, held_out = self._hold_out(scenes)
        val = None if held_out is None else _paired_with_itself(held_out)
        return TrainingScenes(train, self.stats, method, validation=val)

    def _scenes(self) -> SceneSet:
        return self._read(read_single, self.noisy)

    def _suitable_crop(self) -> tuple[int, ...]:
        side = CROP_SIDES[self.kind]
        return (side, side) if self.dims == 2 else (CROP_DEPTH, side, side)

    def _method_for(self, scenes: SceneSet) -> SelfSupervision:
        """Return what makes input and target; refuse values that it cannot use."""
        cubes = False
        if self.dims == 3:  # all turns are allowed of voxels that are cubes
            cubes = len(axes.quarter_turns((1, 1, 1), self.spacing)) == 3
        if self.kind == "masked":
            mask = self._chosen_mask(scenes)
            self.mask = mask.text
            method = Noise2Void(self.share, mask, cubes)
            self.least_held = max(self.least_held, method.least_side)
            return method
        if self.kind == "neighbours":
            return Neighbor2Neighbor(cubes)
        for i in range(min(len(scenes), COUNTS_CHECKED)):
            values = scenes.image(i, 0)
            if scenes.is_large:
                values = middle(values, LONGEST_SCORED)
            values = values.double()
            known = values[values.isfinite()]
            if (known < 0).any() or (known != known.round()).any():
                raise InputError(
                    "data.method",
                    "thinned",
                    f"{scenes.names[i]} has values that are no photon counts:"
                    " whole numbers, 0 or more; neighbours or masked would work",
                )
        assert self.limits
        black, span = self.limits
        return CountSplitting(-black / span, (1 - black) / span)

    def _chosen_mask(self, scenes: SceneSet) -> Mask:
        """Return the mask that was asked for, or the one that the noise needs."""
        if self.asked_mask is not None:
            planes, _, _ = self.asked_mask.sides
            if planes > 1 and self.dims == 2:
                reason = f"has {planes} planes, and the data are images: height and width"
                raise InputError("data.mask", self.asked_mask.text, reason)
            return self.asked_mask
        choice = None
        if self.val_noisy and self.dims == 2:
            choice = mask_of_pairs(self._noisy_pairs(scenes))
        choice = choice or choose_mask(scenes, self.stats)
        self.notes += choice.lines()
        mask = fitting(choice.mask, self.crop, scenes.smallest)
        self.notes += choice.cut_to(mask)
        return mask

    def _noisy_pairs(self, scenes: SceneSet) -> list[tuple[Tensor, Tensor]]:
        """Return the captures of scenes taken twice, NaN where a pixel is unknown."""
        others = self._scenes_of_others(scenes)
        pairs = []
        for i in axes.evenly(len(others), PAIRS_MEASURED):
            captures = [others.image_onto(i, k, 0) for k in range(2)]
            first, second = (
                self._normalized(middle(capture, LONGEST_SCORED)) for capture in captures
            )
            pairs.append((first, second))
        return pairs

    @property
    def second_pass(self) -> Neighbor2NeighborRegularizer | None:
        """See NoisyPairs."""
        if self.kind != "neighbours" or not self._gamma:
            return None
        return Neighbor2NeighborRegularizer(self._gamma)

    def make_pair(
        self, batch: dict[str, Any], draws: BatchDraws, training: bool
    ) -> dict[str, Tensor]:
        """Make input and target of one image; see NoisyPairs for validation pairs.

        Args:
            batch: `input`, stored images.
            draws: random generators, by purpose.
            training: False for validation.

        Returns:
            `input` and `target`, what the second pass of the method needs, and in validation
            `shown`, the whole image without gaps.
        """
        if not training and self.reference == "noisy":
            return super().make_pair(batch, draws, training)
        assert self.method
        seen, truth = self.normalized_pair(batch["input"], batch["input"], noisy=True)
        if not training:
            return {
                **self.method(seen, truth, draws("method")),
                "shown": seen,
            }
        if self.kind == "neighbours":  # the drawn cells belong to the image as it lies
            seen, truth = self.turned([seen, truth], draws)
            return self.method(seen, truth, draws("method"))
        ready = self.method(seen, truth, draws("method"))
        transposable = True
        if isinstance(self.method, Noise2Void):  # noise along a line must stay along it
            transposable = self.method.mask.transposable
        pair = self.turned([ready["input"], ready["target"]], draws, transposed=transposable)
        return {
            **ready,
            "input": pair[0],
            "target": pair[1],
        }


class SingleImageCrops(Captures):
    """Windows of noisy images; a batch holds them as `input`."""

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        scene = key.scene_index(self.count, len(self.scenes))
        draws = generator(self.seed, "captures", key.epoch, key.number)
        u = torch.rand(2, len(scene), generator=draws)
        window = self._window(scene, u, draws) if self.window else ()
        return {
            "input": self.scenes.take(scene, 0 * scene, window),
            **key.identity(),
        }


def _paired_with_itself(scenes: SceneSet) -> Dataset:
    """Return the images that are held out, the middle of large ones, as input and target."""
    longest = LONGEST_SCORED if scenes.dims == 2 else SLAB
    images = [middle(scenes.image(i, 0), longest) for i in range(len(scenes))]
    if not scenes.stackable:
        return MixedSizePairs(images, images)
    stacked = torch.stack([loaded(image) for image in images])
    return Pairs(stacked, stacked)
