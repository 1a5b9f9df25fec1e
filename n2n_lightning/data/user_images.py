"""Base class for user-supplied noisy images: scaling, validation split, blank-image filter."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.outlier_lists import LOOKED, defects_of
from n2n_lightning.arrays.registration import DriftSummary, positions_of
from n2n_lightning.config.choices import OUTLIERS
from n2n_lightning.data.datamodule import NoisyPairs
from n2n_lightning.data.datasets import MixedSizePairs, Pairs
from n2n_lightning.data.intensity import IntensityStats, intensity_stats
from n2n_lightning.data.options import whole_numbers
from n2n_lightning.data.reading import read_scenes
from n2n_lightning.data.reading_files import kind, refuse_mosaics, spatial_axes, type_name
from n2n_lightning.data.region_tensor import loaded, sampled_pages
from n2n_lightning.data.scene_set import SLAB, EqualSizeScenes, SceneSet, middle
from n2n_lightning.data.units import in_unit
from n2n_lightning.files import InputError, one_of, option
from n2n_lightning.formats import fits_planes
from n2n_lightning.formats.regions import is_large

DEFAULT_CROPS = {
    2: (64, 64),
    3: (32, 64, 64),
}  # sides of windows by the number of spatial axes
MAX_SCENES_CHECKED = 2000  # for blank images; a larger file stays mapped, and is not read twice
MAX_CAPTURES_CHECKED = 50  # of a scene, likewise
# pairs per epoch at least, and pixels in their windows: an epoch should have some steps
LEAST_PAIRS = 2000
LEAST_PIXELS = 2000 * 64 * 64
SCORED_PAIRS = 4  # of captures of a scene, in validation
LEAST_HELD_PIXELS = 16  # of a side of a single scene, that are held out for validation
# pixels of a side that mostly tell that an image is not blank: in its middle, and evenly spread
SHORTEST_GLANCE = 64
LONGEST_GLANCE = 256


class UserImages(NoisyPairs):
    """Noisy images in files or folders (docs/how-to/pairs.md).

    Args:
        noisy: a file or folder with the noisy images.
        val_noisy: captures of other scenes to validate on; None takes some of `noisy`.
        val_target: the second captures of the scenes of `val_noisy`.
        layout: what the axes of an array mean, e.g. NKHW; see reading_files.read_array.
        exclude: patterns of names of files in folders that are no captures: `*avg*`.
        scale: the stored value that PSNR takes for white; None: 255 for 8 bit, the smallest 2^n - 1
            that no value exceeds for 16 bit, 1 for floats up to 2 and otherwise their largest,
            without outliers.
        limits: the stored value that becomes 0 for the network, and how much above it becomes 1;
            None: robust 0.1 and 99.9 percentiles, so that black levels and units do not matter.
        train_pairs: pairs per epoch; None: as many as windows of `crop` fit into the images, and at
            least LEAST_PAIRS, or LEAST_PIXELS in larger windows.
        val_share: share of the scenes held out for validation, the last ones; of a single scene, of
            its pixels; 0: none.
        crop: sides of the random windows that are trained on, in pixels: one number, or height and
            width, or depth, height and width; None: whole images; `auto`: DEFAULT_CROPS, or what
            suits the method.
        outliers: what happens to isolated pixels that stand out, as undersampled stars and hot
            pixels do; see choices.OUTLIERS.
        dq_good: bits of the data quality flags of FITS files that do not make a pixel missing,
            `4+8`, `all` of them, or None for what is known of the instrument; see
            formats.fits_planes.
        align: undo drift by whole pixels between the captures of a scene: of a pair the second is
            moved onto the first, of a movie the frames around one onto it; NaN where one does not
            reach.
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
        align: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.outliers = one_of(outliers, OUTLIERS, "data.outliers")
        self.asked_crop = _checked_crop(crop)
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
        self.noisy = noisy
        self.val_noisy = val_noisy
        self.val_target = val_target
        self.layout = layout
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.asked_scale = scale
        self.asked_limits = limits
        self.train_pairs = train_pairs
        self.val_share = val_share
        self.crop: tuple[int, ...] | None = None
        self.least_held = LEAST_HELD_PIXELS
        self.dq_good = fits_planes.parsed(dq_good)
        if not isinstance(align, bool):
            raise InputError("data.align", align, "must be true or false")
        if align and self.supervised:
            reason = "clean targets lie on one capture of a scene; noisy ones are aligned"
            raise InputError("data.align", "true", reason)
        self.align = align
        self._eight_bit = False
        # names of all scenes that were read, and the numbers of those that are not blank
        self._all_names: list[str] = []
        self._used = torch.zeros(0, dtype=torch.long)
        self.held_scenes = torch.zeros(1, dtype=torch.long)  # their numbers; of one, a part of it

    def setup(self, stage: str | None = None) -> None:
        """See NoisyPairs."""
        with fits_planes.good_flags(self.dq_good):
            super().setup(stage)

    def _read(self, read: Callable[..., SceneSet], *names: Any) -> SceneSet:
        """Read scenes by one of the functions of data.reading, and set dims, spacing and crop."""
        first, self.spacing = spatial_axes(self.noisy, self.layout, self.exclude)
        doubt = refuse_mosaics(self.noisy, self.exclude)
        if doubt:
            self.notes.append(f"warning: {doubt}")
        self.dims = self._chosen_dims(first)
        self.crop = self._chosen_crop()
        scenes = read(*names, self.layout, self.exclude, self.dims)
        self.array_layout = scenes.layout
        line = scenes.layout.line() if scenes.layout else None
        if line:
            name = Path(self.noisy).name
            self.notes.append(f"{name}: {line}; {option('data.layout')} says otherwise")
        if self.asked_dims == "auto" and self.dims == 3:
            shown = " x ".join(map(str, scenes.smallest))
            self.notes.append(f"volumes of {shown}{self._other_dims()}")
        return scenes

    def _other_dims(self) -> str:
        """Return how to train on the planes of volumes instead."""
        return f" ({option('data.layout')} or {option('model.dims', 2)} would take planes)"

    def _chosen_dims(self, first: int) -> int:
        """Return the spatial axes asked for, or those of the windows or of the first file."""
        if self.asked_dims in (2, 3):
            return int(self.asked_dims)
        if isinstance(self.asked_crop, tuple):
            return len(self.asked_crop)
        return first

    def _chosen_crop(self) -> tuple[int, ...] | None:
        """Return the sides of windows, one of each spatial axis; None: whole images."""
        crop = self.asked_crop
        if crop is None:
            return None
        if isinstance(crop, str):
            return self._suitable_crop()
        if isinstance(crop, int):
            return (crop,) * self.dims
        if len(crop) != self.dims:
            raise InputError(
                "data.crop", list(crop), f"{self.dims} numbers, or one, are needed for these data"
            )
        return crop

    def _suitable_crop(self) -> tuple[int, ...]:
        """Return the sides of windows where none were asked for."""
        return DEFAULT_CROPS[self.dims]

    def _usable(self, scenes: SceneSet) -> SceneSet:
        """Return the captures that can be used; note those that are left out."""
        return scenes

    def _prepared(self, scenes: SceneSet) -> SceneSet:
        """Return the scenes that can be trained on; set what their values mean."""
        self.dropped += scenes.dropped
        scenes = self._usable(scenes)
        scenes = self._without_blanks(scenes)
        self.channels = scenes.channels
        self._eight_bit = scenes.dtype == torch.uint8
        self.stored_unit = scenes.unit
        stats = intensity_stats(scenes)
        self.nodata_values = stats.nodata_values
        self.scale = stats.white if self.asked_scale is None else float(self.asked_scale)
        self.limits = stats.limits or (0.0, self.scale)
        if self.asked_limits is not None:
            black, span = self.asked_limits[0], self.asked_limits[1]
            self.limits = (float(black), float(span))
        self.defects = self._defects(scenes)
        return scenes

    def _may_have_outliers(self, stored: Tensor) -> bool:
        """See NoisyPairs; captures that were moved are no longer of the stored type."""
        return super()._may_have_outliers(stored) and not self._eight_bit

    def _aligned(self, scenes: SceneSet) -> SceneSet:
        """Measure how far each scene moves in its captures, where data.align asks for it."""
        if not self.align:
            return scenes
        if self.dims == 3:
            reason = "volumes are not aligned; register them first"
            raise InputError("data.align", "true", reason)
        drift = DriftSummary()
        positions = []
        for i, count in enumerate(scenes.counts_of_all):
            captures = (self._normalized(scenes.image(i, k)).numpy() for k in range(count))
            of_scene = positions_of(captures)
            drift.add(of_scene)
            positions.append(torch.from_numpy(of_scene))
        self.notes.append(drift.line())
        return replace(scenes, positions=positions) if drift.moved else scenes

    def _defects(self, scenes: SceneSet) -> Tensor | None:
        """Return the pixels that stand out in most of the scenes, bool (C, H, W); None: none do."""
        if len(scenes) < 3 or self.outliers != "auto" or not scenes.stackable:
            return None
        images = [scenes.image(i, 0) for i in axes.evenly(len(scenes), LOOKED)]
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
            f"{pixels} pixels stand out in most of {len(images)} different scenes:"
            " defects, replaced"
        )
        return mask

    @property
    def stats(self) -> IntensityStats:
        """The meaning of the stored values."""
        return IntensityStats(self.nodata_values, self.scale or 1.0, self.limits)

    def _windows_of(self, train: SceneSet) -> int:
        """Count the windows of one capture each that fit into the scenes side by side."""
        if not self.crop:
            return len(train)
        windows = train.sizes(train.indices) // torch.tensor(self.crop)
        return int(windows.clamp(min=1).prod(1).sum())

    def _count(self, train: SceneSet) -> int:
        """Return the pairs per epoch."""
        if self.train_pairs:
            return self.train_pairs
        least = 1
        if self.crop:
            least = min(LEAST_PAIRS, LEAST_PIXELS // math.prod(self.crop))
        return max(self._windows_of(train), least)

    def _described(
        self, name: str, scenes: SceneSet, train: int, val: Any, **more: Any
    ) -> dict[str, Any]:
        """Return the fingerprint."""
        if self.align:
            more["align"] = True
        return {
            "name": name,
            "noisy": self.noisy,
            **more,
            "scenes": len(scenes),
            "image": [self.channels, *scenes.smallest],
            "type": type_name(scenes.dtype),
            "scale": self.scale,
            "range": list(self.limits) if self.limits else None,
            "missing": list(self.nodata_values),
            "train": train,
            "val": len(val) if val is not None else 0,
            "reference": self.reference,
        }

    def _held_count(self, count: int) -> int:
        """Return how many of some scenes are held out."""
        return max(1, round(count * self.val_share)) if self.val_share else 0

    def _hold_out(self, scenes: SceneSet) -> tuple[SceneSet, SceneSet | None]:
        """Return scenes to train on, and those held out: the last, or a part of a single one."""
        held = self._held_count(len(scenes))
        if not held:
            return scenes, None
        if len(scenes) == 1:
            return self._cut_in_two(scenes.as_one_size())
        held = min(held, len(scenes) - 1)  # one is left to train on
        self.held_scenes = self._chosen_to_hold_out(len(scenes), held)
        stays = torch.ones(len(scenes), dtype=torch.bool)
        stays[self.held_scenes] = False
        return scenes.part(scenes.indices[stays]), scenes.part(self.held_scenes)

    def _chosen_to_hold_out(self, count: int, held: int) -> Tensor:
        """Return the numbers of the scenes that are held out, ascending: the last ones."""
        return torch.arange(count - held, count)

    def _cut_in_two(self, scenes: EqualSizeScenes) -> tuple[EqualSizeScenes, EqualSizeScenes]:
        """Cut a single scene across its longest side: a part to train on, one to validate on."""
        size = scenes.smallest
        length = max(size)
        held = round(length * self.val_share)
        held = min(max(held, self.least_held), length // 2)
        train: list[slice] = [slice(None)] * len(size)
        held_out = list(train)
        longest = size.index(length)
        train[longest] = slice(0, length - held)
        held_out[longest] = slice(length - held, None)
        return scenes.region(*train), scenes.region(*held_out)

    def _pairs_of_others(self, scenes: SceneSet) -> Dataset:
        """Return validation pairs of scenes taken twice, data.val_noisy and data.val_target."""
        return self._validation_of_others(self._scenes_of_others(scenes))

    def _scenes_of_others(self, scenes: SceneSet) -> SceneSet:
        """Read the scenes taken twice, data.val_noisy and data.val_target, in units of others."""
        other = read_scenes(
            str(self.val_noisy), self.val_target, self.layout, self.exclude, self.dims
        )
        other = self._aligned(in_unit(other, scenes))
        if other.channels != scenes.channels or other.dtype != scenes.dtype:
            raise InputError(
                self._unlike(other.image(0, 0), str(self.val_noisy), scenes.image(0, 0))
            )
        return other

    def _validation_of_others(self, scenes: SceneSet) -> Dataset:
        """Return validation pairs of noisy captures of other scenes."""
        return validation_pairs(scenes)

    def _without_blanks(self, scenes: SceneSet) -> SceneSet:
        """Return the scenes without blank captures; of very many scenes only some are checked."""
        checked = axes.evenly(len(scenes), MAX_SCENES_CHECKED)
        used = []
        blank = []
        for i in checked:
            captures = axes.evenly(scenes.count_of(i), MAX_CAPTURES_CHECKED)
            if all(_shows_something(scenes.image(i, k)) for k in captures):
                used.append(i)
            else:
                blank.append(scenes.names[i])
        if not used:
            raise InputError(
                f"{self.noisy}: every image is blank, so there is nothing to learn from them"
            )
        # a large file stays mapped as it is; blank images harm nothing
        if len(checked) < len(scenes):
            used = list(range(len(scenes)))
            blank = []
        self.left_out += blank
        self._all_names = scenes.names
        self._used = torch.tensor(used)
        return scenes if len(used) == len(scenes) else scenes.part(self._used)

    def _unlike(
        self,
        image: Tensor,
        source: str,
        noisy: Tensor,
    ) -> str:
        """Return the message for images of another kind than the noisy ones."""
        others = f"{self.noisy} has {kind(noisy)}"
        return f"{source} has images {kind(image)}, {others}; they must agree"


def _part_of(image: Tensor, place: tuple[slice, ...]) -> Tensor:
    """Return a part of an image (C, H, W)."""
    return image[(slice(None), *place)]


def _checked_crop(crop: Any) -> int | str | tuple[int, ...] | None:
    """Return the option data.crop; raise InputError where it cannot be."""
    if crop is None or crop == "auto":
        return crop
    if isinstance(crop, int):
        whole_numbers(4, crop=crop)
        return crop
    sides = [] if isinstance(crop, str) else list(crop)
    if len(sides) not in (2, 3) or any(not isinstance(side, int) or side < 4 for side in sides):
        raise InputError(
            "data.crop",
            crop,
            "must be a whole number, 4 or more, or [depth, height, width], null or auto",
        )
    return tuple(sides)


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
    chosen = axes.evenly(len(pairs), min(SCORED_PAIRS, len(pairs)))
    captures = torch.tensor([pairs[i] for i in chosen])
    scene = scenes.indices.repeat_interleave(len(captures))
    first, second = captures.repeat(len(scenes), 1).unbind(1)
    return scene, first, second


def neighbouring_captures(scenes: SceneSet, most: int = SCORED_PAIRS) -> tuple[Tensor, Tensor]:
    """List captures to validate on, each with the next one; no capture is in two pairs.

    Args:
        scenes: two captures of each or more.
        most: pairs of each scene, evenly spread, at most.

    Returns:
        Scenes and first captures of the pairs, (n,) each.
    """
    firsts = []
    for i, count in enumerate(scenes.counts_of_all):
        if scenes.targets is None:
            pairs = count // 2
            firsts.append(2 * torch.tensor(axes.evenly(pairs, min(most, pairs))))
            continue
        first = scenes.wanted(i)[::2]
        first = first[first < count - 1]  # each with the frame after it
        if len(first):
            first = first[axes.evenly(len(first), min(most, len(first)))]
        firsts.append(first)
    counts = torch.tensor([len(first) for first in firsts])
    return torch.repeat_interleave(scenes.indices, counts), torch.cat(firsts)


def validation_pairs(scenes: SceneSet, pairs: Sequence[tuple[int, int]] | None = None) -> Dataset:
    """Pair noisy captures of each scene to validate on: first and second, third and fourth, ...

    Those of a pair are neighbours, which differ least where a scene drifts. Of many some are taken,
    from the first to the last.

    Args:
        scenes: those held out.
        pairs: numbers (input, target) of the captures that are paired instead, where their noise
            differs.

    Returns:
        Pairs in which no capture stands twice; of volumes their middles.
    """
    if pairs:
        scene, first, second = directed_pairs(scenes, pairs)
    else:
        scene, first = neighbouring_captures(scenes)
        second = first + 1
    return fixed_pairs(scenes, (scene, first), scenes, (scene, second), scene)


def fixed_pairs(
    noisy: SceneSet,
    inputs: tuple[Tensor, Tensor],
    reference: SceneSet,
    targets: tuple[Tensor, Tensor],
    scene: Tensor | None = None,
) -> Dataset:
    """Copy pairs of captures to validate on.

    Args:
        noisy: scenes of the inputs.
        inputs: their scenes and captures by number, (n,) each.
        reference: scenes of the targets.
        targets: likewise, in the same order.
        scene: which pairs are of one scene, (n,); None: none are.

    Returns:
        Pairs that fit in batches where all images have one size; of volumes their middles, one a
        batch.
    """
    if noisy.stackable and reference.stackable:
        onto = reference.take_onto(*targets, inputs[1])
        return Pairs(noisy.take(*inputs), onto, scene)
    _, captures = inputs
    return MixedSizePairs(
        _scored_images(noisy, *inputs, captures),
        _scored_images(reference, *targets, captures),
        scene,
    )


def _scored_images(
    scenes: SceneSet,
    scene: Tensor,
    capture: Tensor,
    onto: Tensor,
) -> list[Tensor]:
    """Return captures by number, moved onto others; of volumes the middles that are scored."""
    images = []
    for i, k, other in zip(scene.tolist(), capture.tolist(), onto.tolist(), strict=True):
        images.append(scenes.image_onto(i, k, other))
    if scenes.dims == 3:
        images = [middle(image, SLAB) for image in images]
    return images


def _shows_something(image: Tensor) -> bool:
    """Return True if an image is more than one value; missing pixels do not count."""
    for part in _glances(image):
        known = part[np.isfinite(part)] if part.dtype.kind == "f" else part
        if known.size and known.min() < known.max():
            return True
    return False


def _glances(image: Tensor) -> Iterator[np.ndarray]:
    """Yield more and more of an image, until all of it, or of a large one its sample."""
    yield loaded(middle(image, SHORTEST_GLANCE)).numpy()
    if is_large(image.shape, image.dtype.itemsize):
        yield sampled_pages(image, "CDHW" if len(image.shape) == 4 else "CHW")
        return
    values = image.numpy()
    steps = [max(1, length // LONGEST_GLANCE) for length in values.shape]
    yield values[tuple(slice(None, None, step) for step in steps)]
    yield values
