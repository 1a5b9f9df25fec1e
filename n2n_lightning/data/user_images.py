"""What sources of one's own noisy images have in common: their values, what is kept back, what is left out."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.outliers import LOOKED, defects_of
from n2n_lightning.config.choices import OUTLIERS
from n2n_lightning.data.datamodule import NoisyPairs
from n2n_lightning.data.datasets import MixedSizePairs, Pairs
from n2n_lightning.data.intensity import IntensityStats, intensity_stats
from n2n_lightning.data.options import size_of, whole_numbers
from n2n_lightning.data.reading import read_scenes, refuse_mosaics, spatial_axes
from n2n_lightning.data.scenes import SLAB, EqualSizeScenes, MixedSizeScenes, SceneSet, middle
from n2n_lightning.data.units import in_unit
from n2n_lightning.files import InputError, one_of, option
from n2n_lightning.formats import fits_planes

DEFAULT_CROPS = {2: (64, 64), 3: (32, 64, 64)}  # sides of windows by the number of spatial axes
MAX_SCENES_CHECKED = 2000  # scenes
FRAMES = 50  # captures of a scene that are searched for blank ones
# windows an epoch, or so many pixels in them: a few steps more than nothing
LEAST = 2000, 2000 * 64 * 64
SCORED_PAIRS = 4  # pairs of captures of a scene that validation looks at


class UserImages(NoisyPairs):
    """Noisy images in files or folders (docs/how-to/pairs.md).

    Args:
        noisy: a file or folder with the noisy images.
        val_noisy: captures of other scenes to validate on; None takes some of `noisy`.
        val_target: the second captures of the scenes of `val_noisy`.
        layout: what the axes of an array mean, e.g. NKHW; see reading.read_array.
        exclude: patterns of names of files in folders that are no captures: `*avg*`.
        scale: the stored value that PSNR takes for white; None takes 255 for 8 bit, the smallest
            2^n - 1 that no value exceeds for 16 bit, 1 for floats up to 2 and otherwise their
            largest, wild pixels apart.
        limits: the stored value that becomes 0 for the network, and how much above it becomes 1;
            None: what the values fill but for one in 1,000 at either end, so that black levels and
            units do not matter.
        train_pairs: pairs per epoch; None takes as many as windows of `crop` fit into the images,
            and at least LEAST.
        val_share: share of the scenes kept back for validation, the last ones; of a single scene,
            of its pixels; 0: none.
        crop: sides of the random windows that are trained on, in pixels: one number, or height and
            width, or depth, height and width; None takes whole images, `auto` what suits,
            DEFAULT_CROPS.
        outliers: what happens to isolated pixels that stand out, as undersampled stars and hot
            pixels do; see choices.OUTLIERS.
        dq_good: bits of the data quality flags of FITS files that do not make a pixel missing,
            `4+8`, `all` of them, or None for what is known of the instrument; see
            formats.fits_planes.
        **common: see NoisyPairs.
    """

    def __init__(
        self,
        noisy: str,
        val_noisy: str | None = None,
        val_target: str | None = None,
        layout: str = "auto",
        exclude: str | Sequence[str] = (),
        scale: float | None = None,
        limits: Sequence[float] | None = None,
        train_pairs: int | None = None,
        val_share: float = 0.1,
        crop: int | str | Sequence[int] | None = "auto",
        outliers: str = "auto",
        dq_good: int | str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.outliers = one_of(outliers, OUTLIERS, "data.outliers")
        self.asked_crop = _sides(crop)
        if train_pairs is not None:
            whole_numbers(1, train_pairs=train_pairs)
        if not 0 <= val_share < 1:
            raise InputError("data.val_share", val_share, "must be 0 or more, and less than 1")
        if scale is not None and not scale > 0:
            raise InputError("data.scale", scale, "must be larger than 0")
        if val_target is not None and val_noisy is None:
            raise InputError(
                "data.val_target",
                val_target,
                f"the second captures of {option('data.val_noisy')}, which is not given",
            )
        self.noisy, self.val_noisy, self.val_target = noisy, val_noisy, val_target
        self.layout, self.train_pairs, self.val_share = layout, train_pairs, val_share
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.asked_scale, self.asked_limits = scale, limits
        self.crop: tuple[int, ...] | None = None
        self.dq_good = fits_planes.parsed(dq_good)

    def setup(self, stage: str | None = None) -> None:
        with fits_planes.good_flags(self.dq_good):
            super().setup(stage)

    def _read(self, read: Callable[..., SceneSet], *names: Any) -> SceneSet:
        """Scenes by one of the functions of data.reading, once it is known whether they are images or volumes."""
        first, self.spacing = spatial_axes(self.noisy, self.layout, self.exclude)
        if line := refuse_mosaics(self.noisy, self.exclude):
            self.notes.append(f"warning: {line}")
        self.dims = self._dims(first)
        crop = self.asked_crop
        if crop == "auto":
            crop = self._suitable()
        elif isinstance(crop, int):
            crop = (crop,) * self.dims
        if crop and len(crop) != self.dims:
            raise InputError(
                "data.crop", list(crop), f"{self.dims} numbers, or one, are needed for these data"
            )
        self.crop = crop  # type: ignore[assignment]
        scenes = read(*names, self.layout, self.exclude, self.dims)
        self.array_layout = scenes.layout
        if scenes.layout and (line := scenes.layout.line()):
            self.notes.append(
                f"{Path(self.noisy).name}: {line}; {option('data.layout')} says otherwise"
            )
        if self.asked_dims == "auto" and self.dims == 3:
            shown = " x ".join(map(str, scenes.smallest))
            self.notes.append(
                f"volumes of {shown} ({option('data.layout')} or {option('model.dims', 2)} would"
                " take planes)"
            )
        return scenes

    def _dims(self, first: int) -> int:
        """The number of spatial axes: what was asked for, or what the first file and the windows have."""
        if self.asked_dims in (2, 3):
            return int(self.asked_dims)
        several = len(self.asked_crop) if isinstance(self.asked_crop, tuple) else first
        return several

    def _suitable(self) -> tuple[int, ...]:
        """The sides of windows where none were asked for."""
        return DEFAULT_CROPS[self.dims]

    def _usable(self, scenes: SceneSet) -> SceneSet:
        """The captures that can be used; says which are left out."""
        return scenes

    def _prepared(self, scenes: SceneSet) -> SceneSet:
        """The scenes that can be learnt from; sets what their values mean."""
        self.dropped += scenes.dropped
        scenes = self._usable(scenes)
        scenes = self._without_blanks(scenes)
        self.channels, self.stored_unit = scenes.channels, scenes.unit
        seen = intensity_stats(scenes)
        self.nodata_values, self.scale = (
            seen.nodata_values,
            seen.white if self.asked_scale is None else float(self.asked_scale),
        )
        self.limits = seen.limits or (0.0, self.scale)
        if self.asked_limits is not None:
            self.limits = (float(self.asked_limits[0]), float(self.asked_limits[1]))
        self.defects = self._defects(scenes)
        return scenes

    def _defects(self, scenes: SceneSet) -> Tensor | None:
        """Return the pixels of the detector that stand out in most of the scenes, bool (C, H, W); None: none do."""
        count = len(scenes.names)
        if (
            count < 3
            or self.outliers != "auto"
            or not isinstance(scenes, EqualSizeScenes)
            or len(scenes.smallest) != 2
        ):
            return None
        images = [scenes.image(i, 0) for i in axes.evenly(count, LOOKED)]
        if not self._may_have_outliers(images[0]):
            return None
        reads = [partial(_part_of, self._normalized(image)) for image in images]
        points = defects_of(reads, scenes.smallest)
        if not len(points):
            return None
        mask = torch.zeros(images[0].shape, dtype=torch.bool)
        mask[tuple(torch.from_numpy(points).T)] = True
        pixels = int(mask.any(0).sum())
        self.notes.append(
            f"{pixels} pixels stand out in most of {len(images)} different scenes: defects,"
            " replaced"
        )
        return mask

    @property
    def seen(self) -> IntensityStats:
        """What the values mean."""
        return IntensityStats(self.nodata_values, self.scale or 1.0, self.limits)

    def _fit(self, train: SceneSet) -> int:
        """How many windows of one capture each fit into the scenes."""
        sizes = train.sizes(torch.arange(len(train.names)))
        return (
            int((sizes // torch.tensor(self.crop)).clamp(min=1).prod(1).sum())
            if self.crop
            else len(train.names)
        )

    def _count(self, train: SceneSet) -> int:
        """Images per epoch: what was asked for, or as many as windows fit into the scenes, and no less than LEAST."""
        if self.train_pairs:
            return self.train_pairs
        windows, pixels = LEAST
        return max(
            self._fit(train), min(windows, pixels // math.prod(self.crop)) if self.crop else 1
        )

    def _described(
        self, name: str, scenes: SceneSet, train: int, val: Any, **more: Any
    ) -> dict[str, Any]:
        """The fingerprint."""
        return {
            "name": name,
            "noisy": self.noisy,
            **more,
            "scenes": len(scenes.names),
            "image": [self.channels, *scenes.smallest],
            "type": str(scenes.dtype)[6:],
            "scale": self.scale,
            "range": list(self.limits) if self.limits else None,
            "missing": list(self.nodata_values),
            "train": train,
            "val": len(val) if val is not None else 0,
            "reference": self.reference,
        }

    def _kept_back(self, scenes: SceneSet) -> tuple[SceneSet, SceneSet | None]:
        """The scenes to train on, and those that are not: the last ones, or of a single one a part of its pixels."""
        count = len(scenes.names)
        kept = max(1, round(count * self.val_share)) if self.val_share else 0
        if not kept:
            return scenes, None
        if count == 1:
            return self._halves(scenes)
        everything = torch.arange(count)
        return scenes.part(everything[:-kept]), scenes.part(everything[-kept:])

    def _others(self, scenes: SceneSet) -> Dataset:
        """Validation pairs of other scenes that were taken twice, data.val_noisy and data.val_target."""
        other = read_scenes(
            str(self.val_noisy), self.val_target, self.layout, self.exclude, self.dims
        )
        other = in_unit(other, scenes)
        if other.channels != scenes.channels or other.dtype != scenes.dtype:
            raise InputError(
                self._unlike(other.image(0, 0), str(self.val_noisy), scenes.image(0, 0))
            )
        return self._validated(other)

    def _validated(self, scenes: SceneSet) -> Dataset:
        """Validation pairs of noisy captures."""
        return validation_pairs(scenes)

    def _without_blanks(self, scenes: SceneSet) -> SceneSet:
        """The scenes in which there is something to see, in every capture; of very many only some are looked at."""
        some = axes.evenly(len(scenes.names), MAX_SCENES_CHECKED)
        kept = []
        for i in some:
            name = scenes.names[i]
            count = int(scenes.captures(torch.tensor([i]))[0])
            if all(_shows_something(scenes.image(i, k)) for k in axes.evenly(count, FRAMES)):
                kept.append(i)
            else:
                self.left_out.append(name)
        if not kept:
            raise InputError(
                f"{self.noisy}: every image is blank, so there is nothing to learn from them"
            )
        # a large file stays mapped as it is; blank images harm nothing
        if len(some) < len(scenes.names):
            kept, self.left_out = list(range(len(scenes.names))), []
        self._all, self._kept = scenes.names, torch.tensor(kept)
        return scenes if len(kept) == len(scenes.names) else scenes.part(self._kept)

    def _halves(self, scenes: SceneSet) -> tuple[EqualSizeScenes, EqualSizeScenes]:
        """The one scene that there is, cut in two: to train on, and to validate on."""
        if isinstance(scenes, MixedSizeScenes):  # of one scene
            frames = [capture[None] for capture in scenes.images[0]]
            scenes = EqualSizeScenes(frames, scenes.names, None, scenes.nodata_values, scenes.unit)
        size = scenes.smallest
        length = max(size)
        longest = size.index(length)
        kept = min(max(round(length * self.val_share), 16), length // 2)
        train, held = (
            scenes.region(*[part if axis == longest else slice(None) for axis in range(len(size))])
            for part in (slice(0, length - kept), slice(length - kept, None))
        )
        return train, held

    def _unlike(self, image: Tensor, source: str, noisy: Tensor) -> str:
        shown, other = size_of(image[None]), size_of(noisy[None])
        return (
            f"{source} has images {shown} {str(image.dtype)[6:]}, {self.noisy} has {other}"
            f" {str(noisy.dtype)[6:]}; they must agree"
        )


def _part_of(image: Tensor, place: tuple[slice, ...]) -> Tensor:
    """Return a part of an image (C, H, W)."""
    return image[(slice(None), *place)]


def _sides(crop: Any) -> int | str | tuple[int, ...] | None:
    """The option data.crop, checked."""
    if crop is None or crop == "auto":
        return crop
    if isinstance(crop, int):
        whole_numbers(4, crop=crop)
        return crop
    if (
        isinstance(crop, str)
        or len(crop) not in (2, 3)
        or any(not isinstance(n, int) or n < 4 for n in crop)
    ):
        raise InputError(
            "data.crop",
            crop,
            "must be a whole number, 4 or more, or [depth, height, width], null or auto",
        )
    return tuple(crop)


def directed_pairs(
    scenes: SceneSet, pairs: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """List pairs of captures to validate on, from a noisier one to another one.

    Args:
        scenes: all have the same number of captures.
        pairs: numbers (input, target) of captures.

    Returns:
        Scenes, first and second captures, (n,) each: up to SCORED_PAIRS pairs of each scene.
    """
    some = torch.tensor([pairs[i] for i in axes.evenly(len(pairs), min(SCORED_PAIRS, len(pairs)))])
    count = len(scenes.names)
    scene = torch.arange(count).repeat_interleave(len(some))
    first, second = some.repeat(count, 1).unbind(1)
    return scene, first, second


def some_pairs(scenes: SceneSet, most: int = SCORED_PAIRS) -> tuple[Tensor, Tensor]:
    """Scenes and first captures, (n,) each, of up to so many pairs of neighbours from each scene, evenly spread."""
    everything = torch.arange(len(scenes.names))
    firsts = []
    for i, count in enumerate(scenes.captures(everything).tolist()):
        if scenes.targets is None:
            firsts.append(2 * torch.tensor(axes.evenly(count // 2, min(most, count // 2))))
            continue
        wanted = scenes.wanted(i)[::2]
        wanted = wanted[wanted < count - 1]  # each with the frame after it
        firsts.append(
            wanted[axes.evenly(len(wanted), min(most, len(wanted)))] if len(wanted) else wanted
        )
    counts = torch.tensor([len(first) for first in firsts])
    return torch.repeat_interleave(everything, counts), torch.cat(firsts)


def validation_pairs(scenes: SceneSet, pairs: Sequence[tuple[int, int]] | None = None) -> Dataset:
    """Validation pairs of noisy captures: the first and second, the third and fourth, ... of each scene.

    No capture is in two pairs, and those of a pair are neighbours, which differ least where a scene
    drifts. Of many some are taken, from the first to the last.

    Args:
        scenes: those kept back.
        pairs: numbers (input, target) of the captures that are paired instead, where their noise
            differs.
    """
    if pairs:
        scene, first, second = directed_pairs(scenes, pairs)
    else:
        scene, first = some_pairs(scenes)
        second = first + 1
    if isinstance(scenes, EqualSizeScenes) and len(scenes.smallest) == 2:
        return Pairs(scenes.take(scene, first), scenes.take(scene, second), scene)
    sides = [
        [scored(scenes.image(int(s), int(k))) for s, k in zip(scene, side, strict=True)]
        for side in (first, second)
    ]
    return MixedSizePairs(sides[0], sides[1], scene)


def scored(image: Tensor) -> Tensor:
    """An image as it is; of a volume (C, D, H, W) the middle, SLAB, that is scored. Not copied."""
    return middle(image, SLAB) if axes.deep(image[None]) else image


def _shows_something(image: Tensor) -> bool:
    """Whether an image is more than one value; missing pixels do not count."""
    values = image.numpy()
    step = tuple(slice(None, None, max(1, n // 256)) for n in values.shape)
    for part in (values[step], values):  # most images are more than one value at a glance
        known = part[np.isfinite(part)] if part.dtype.kind == "f" else part
        if known.size and known.min() < known.max():
            return True
    return False
