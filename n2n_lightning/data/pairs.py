"""Noisy images of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.batches import Pairs
from n2n_lightning.data.captures import Captures, Scenes, check
from n2n_lightning.data.module import NoisyPairs
from n2n_lightning.data.options import size_of, whole_numbers
from n2n_lightning.data.reading import pictures, read_array, read_folder, read_scenes
from n2n_lightning.files import InputError


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
                f"{source} has images {size_of(images)} {str(images.dtype)[6:]}, {self.noisy} has {size_of(noisy)}"
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
