"""Noisy images of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.batches import Pairs
from n2n_lightning.data.captures import Captures, Mixed, Scenes, Sized
from n2n_lightning.data.module import NoisyPairs
from n2n_lightning.data.naming import key, partners, pictures
from n2n_lightning.data.options import size_of, whole_numbers
from n2n_lightning.data.reading import read_array, read_images, read_scenes, together
from n2n_lightning.data.values import Seen, look
from n2n_lightning.files import InputError

MANY = 2000  # scenes
SCORED = 4  # pairs of captures of a scene that validation looks at


class OwnPairs(NoisyPairs):
    """Your own noisy images: two or more captures of each scene, in files or folders (docs/data.md).

    Args:
        noisy: a file or folder with the first captures, or with all of them.
        target: a file or folder with the second captures.
        clean: clean images, for validation (and for `target=clean`); None validates on noisy captures kept back, by an
            estimate (scores.squared_errors).
        val_noisy: noisy images that belong to `clean`, or, without it, captures of other scenes to validate on; None
            takes the scenes that have a clean image, or some of `noisy`.
        val_target: the second captures of the scenes of `val_noisy`.
        within: captures that are more than so many apart in a scene are no pair; None: all are.
        layout: what the axes of an array mean, e.g. NKHW; see reading.read_array.
        exclude: patterns of names of files in folders that are no captures: `*avg*`.
        scale: the stored value that PSNR takes for white; None takes 255 for 8 bit, the smallest 2^n - 1 that no value
            exceeds for 16 bit, 1 for floats up to 2 and otherwise their largest, wild pixels apart.
        limits: the stored value that becomes 0 for the network, and how much above it becomes 1; None: what the values
            fill but for one in 1,000 at either end, so that black levels and units do not matter.
        train_pairs: pairs per epoch; None takes as many as windows of `crop` fit into the images.
        val_share: share of the scenes kept back for validation, the last ones; of a single scene, of its pixels; 0:
            none.
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
        val_target: str | None = None,
        within: int | None = None,
        layout: str = "auto",
        exclude: str | Sequence[str] = (),
        scale: float | None = None,
        limits: Sequence[float] | None = None,
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
        if not 0 <= val_share < 1:
            raise InputError(f"data.val_share={val_share}: must be 0 or more, and less than 1")
        if scale is not None and not scale > 0:
            raise InputError(f"data.scale={scale}: must be larger than 0")
        if within is not None:
            whole_numbers(1, within=within)
        if val_target is not None and (val_noisy is None or clean is not None):
            raise InputError(
                f"data.val_target={val_target}: the second captures of data.val_noisy=; it goes without data.clean="
            )
        self.noisy, self.target, self.clean, self.val_noisy = noisy, target, clean, val_noisy
        self.val_target, self.within = val_target, within
        self.layout, self.train_pairs, self.val_share = layout, train_pairs, val_share
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.asked_scale, self.asked_limits = scale, limits
        self.crop, self.swap = crop, swap

    def load(self) -> tuple[Dataset, Dataset | None]:
        scenes = self._without_blanks(read_scenes(self.noisy, self.target, self.layout, self.exclude))
        self.channels, (height, width) = scenes.channels, scenes.smallest
        seen = look(scenes)
        self.fills, self.scale = seen.fills, seen.white if self.asked_scale is None else float(self.asked_scale)
        self.limits = seen.limits or (0.0, self.scale)
        if self.asked_limits is not None:
            self.limits = (float(self.asked_limits[0]), float(self.asked_limits[1]))
        train, val, clean = self._split(scenes)
        sizes = train.sizes(torch.arange(len(train.names)))
        fit = (sizes // self.crop).clamp(min=1).prod(1).sum() if self.crop else torch.tensor(len(train.names))
        pairs = self.train_pairs or int(fit)
        self.fingerprint = {
            "name": "pairs",
            "noisy": self.noisy,
            "target": self.target,
            "clean": self.clean,
            "scenes": len(scenes.names),
            "image": [self.channels, height, width],
            "type": str(scenes.dtype)[6:],
            "scale": self.scale,
            "range": list(self.limits) if self.limits else None,
            "missing": list(self.fills),
            "train": pairs,
            "val": len(val) if val is not None else 0,  # type: ignore[arg-type]
            "reference": self.reference,
        }
        return Captures(train, self.seed, self.swap, clean, self.crop, pairs, self.within), val

    def captured(self) -> tuple[Scenes | Mixed, Seen, int | None] | None:
        """See NoisyPairs."""
        assert isinstance(self.train, Captures)
        seen = Seen(self.fills, self.scale or 1.0, self.limits)
        return None if self.supervised else (self.train.scenes, seen, self.within)

    def _without_blanks(self, scenes: Scenes | Mixed) -> Scenes | Mixed:
        """The scenes in which there is something to see, in every capture; of very many only some are looked at."""
        some = np.unique(np.linspace(0, len(scenes.names) - 1, MANY).round().astype(int)).tolist()
        kept = []
        for i in some:
            name = scenes.names[i]
            count = int(scenes.captures(torch.tensor([i]))[0])
            if all(_shows_something(scenes.image(i, k)) for k in range(count)):
                kept.append(i)
            else:
                self.left_out.append(name)
        if not kept:
            raise InputError(f"{self.noisy}: every image is blank, so there is nothing to learn from them")
        if len(some) < len(scenes.names):  # a large file stays mapped as it is; blank images harm nothing
            kept, self.left_out = list(range(len(scenes.names))), []
        self._all, self._kept = scenes.names, torch.tensor(kept)
        return scenes if len(kept) == len(scenes.names) else scenes.part(self._kept)

    def _split(self, scenes: Scenes | Mixed) -> tuple[Scenes | Mixed, Dataset | None, Scenes | Mixed | None]:
        """Training scenes, validation pairs, and the clean images of the training scenes where those are asked for."""
        count = len(scenes.names)
        everything = torch.arange(count)
        kept = max(1, round(count * self.val_share)) if self.val_share else 0
        if self.clean is None:
            if self.supervised:
                raise InputError("target=clean: name the clean images with data.clean=")
            self.reference = "noisy"
            if self.val_noisy:
                other = read_scenes(self.val_noisy, self.val_target, self.layout, self.exclude)
                if other.channels != scenes.channels or other.dtype != scenes.dtype:
                    raise InputError(self._unlike(other.image(0, 0), self.val_noisy, scenes.image(0, 0)))
                return scenes, _twice(other), None
            if not kept:
                return scenes, None, None
            if count == 1:
                part, back = self._halves(scenes)
                return part, _twice(back), None
            return scenes.part(everything[:-kept]), _twice(scenes.part(everything[-kept:])), None
        cleans, owners = self._clean_images(scenes)
        self.bounded = self._bounded(cleans)
        if self.val_noisy:
            return scenes, self._separate(scenes, cleans), None
        self._alike(cleans, scenes, owners)
        if len(owners) == count and count > 1 and kept:  # every scene has a clean image: the last ones are kept back
            held, rest = everything[-kept:], everything[:-kept]
        elif count == 1:
            held = rest = everything  # the one scene is denoised and compared with its clean image
        else:
            held, rest = owners, everything[~torch.isin(everything, owners)]
        if self.supervised and not torch.isin(rest, owners).all():
            raise InputError("target=clean: every scene needs a clean image in data.clean=")
        position = {int(scene): i for i, scene in enumerate(owners)}

        def of(which: Tensor) -> Tensor:
            return torch.tensor([position[int(scene)] for scene in which])

        towards = cleans.part(of(rest)) if self.supervised else None
        return scenes.part(rest), _fixed(scenes, held, cleans, of(held)), towards

    def _halves(self, scenes: Scenes | Mixed) -> tuple[Scenes, Scenes]:
        """The one scene that there is, cut in two: to train on, and to validate on."""
        assert isinstance(scenes, Scenes)
        height, width = scenes.smallest
        length = max(height, width)
        kept = min(max(round(length * self.val_share), 16), length // 2)
        whole, first, last = slice(None), slice(0, length - kept), slice(length - kept, None)
        cuts = [(part, whole) if height >= width else (whole, part) for part in (first, last)]
        train, held = (scenes.region(*cut) for cut in cuts)
        return train, held

    def _bounded(self, clean: Scenes | Mixed) -> bool:
        """Whether all clean values lie between 0 and white; raises InputError where some are missing."""
        bounded = True
        for i in range(len(clean.names)):
            values = clean.image(i, 0).numpy()
            if np.isnan(values).any():
                raise InputError(f"{self.clean}: has NaN values; clean images must be whole")
            bounded = bounded and bool(values.min() >= 0 and values.max() <= (self.scale or 1))
        return bounded

    def _separate(self, scenes: Scenes | Mixed, clean: Scenes | Mixed) -> Dataset:
        """Validation pairs of other scenes, data.val_noisy and data.clean."""
        noisy = self._images(str(self.val_noisy))
        if self.supervised:
            raise InputError("target=clean: data.clean= then belongs to the training scenes; leave out data.val_noisy=")
        if len(noisy.names) != len(clean.names):
            raise InputError(
                f"{self.val_noisy} and {self.clean} differ: {len(noisy.names)} and {len(clean.names)} images"
            )
        everything = torch.arange(len(clean.names))
        if noisy.channels != scenes.channels or noisy.dtype != scenes.dtype:
            raise InputError(self._unlike(noisy.image(0, 0), str(self.val_noisy), scenes.image(0, 0)))
        self._alike(clean, noisy, everything)
        return _fixed(noisy, everything, clean, everything)

    def _clean_images(self, scenes: Scenes | Mixed) -> tuple[Scenes | Mixed, Tensor]:
        """The clean images, as scenes of one capture, and the numbers of the scenes that they belong to (M,)."""
        assert self.clean is not None
        folder, count = Path(self.clean), len(scenes.names)
        clean = self._images(self.clean)
        if not folder.is_dir() or self.val_noisy:
            if not self.val_noisy and len(clean.names) == len(self._all) > count:  # those of blank scenes
                clean = clean.part(self._kept)
            if not self.val_noisy and len(clean.names) != count:
                raise InputError(
                    f"{self.clean}: holds {len(clean.names)} clean images for {count} scenes; one each is needed"
                )
            return clean, torch.arange(len(clean.names))
        owners = self._owners([Path(name) for name in clean.names], folder)
        places = {name: i for i, name in enumerate(scenes.names)}
        here = [i for i, name in enumerate(owners) if name in places]  # not those of blank scenes
        if not here:
            raise InputError(f"{self.clean}: holds no image of a scene that is used")
        return clean.part(torch.tensor(here)), torch.tensor([places[owners[i]] for i in here])

    def _owners(self, paths: Sequence[Path], folder: Path) -> list[str]:
        """The scene that each clean image belongs to, by the place and name of both."""
        root = Path(self.noisy)
        scenes = {
            key(Path(n), root) if Path(n).is_file() else Path(n).relative_to(root).as_posix(): n for n in self._all
        }
        whole = [key(path, folder) for path in paths]
        above = [path.parent.relative_to(folder).as_posix() for path in paths]  # gt/1/avg50.png is of the scene 1
        for own in (whole, above):
            if set(own) <= set(scenes):
                return [scenes[name] for name in own]
        if pairs := partners(whole, list(scenes)):
            return [scenes[pairs[name]] for name in whole]
        wrong = next(path for path, name in zip(paths, whole, strict=True) if name not in scenes)
        raise InputError(f"{wrong}: no scene of {self.noisy} has this name")

    def _images(self, source: str) -> Scenes | Mixed:
        """Single images of a file or folder, as scenes of one capture."""
        folder = Path(source)
        if folder.is_dir():
            paths = pictures(folder, deep=True)  # exclude= is about captures: an average may be the clean image
            if not paths:
                raise InputError(f"{source}: holds no images")
            if len({key(path, folder) for path in paths}) < len(paths):
                raise InputError(f"{source}: holds several images of one name")
            return together([[image] for image in read_images(paths)], [str(path) for path in paths])
        layout = self.layout if "K" not in self.layout else "auto"
        captures = read_array(source, layout)
        if len(captures) > 1:
            raise InputError(f"{source}: holds {len(captures)} captures of each scene; one is needed here")
        return Scenes(captures, [f"{source}, image {i}" for i in range(len(captures[0]))])

    def _alike(self, clean: Scenes | Mixed, noisy: Scenes | Mixed, owners: Tensor) -> None:
        """Raises InputError unless the clean images have the sizes, the channels and the type of the noisy ones."""
        sizes = (clean.sizes(torch.arange(len(clean.names))) == noisy.sizes(owners)).all(1)
        if not sizes.all() or clean.channels != noisy.channels or clean.dtype != noisy.dtype:
            i = int((~sizes).nonzero()[0]) if not sizes.all() else 0
            raise InputError(self._unlike(clean.image(i, 0), str(self.clean), noisy.image(int(owners[i]), 0)))

    def _unlike(self, image: Tensor, source: str, noisy: Tensor) -> str:
        shown, other = size_of(image[None]), size_of(noisy[None])
        return (
            f"{source} has images {shown} {str(image.dtype)[6:]}, {self.noisy} has {other} {str(noisy.dtype)[6:]}; they"
            " must agree"
        )


def _fixed(noisy: Scenes | Mixed, which: Tensor, clean: Scenes | Mixed, those: Tensor) -> Dataset:
    """Validation pairs: the first captures of some scenes, beside clean images."""
    if isinstance(noisy, Scenes) and isinstance(clean, Scenes):
        return Pairs(noisy.take(which, 0 * which), clean.take(those, 0 * those))
    return Sized([noisy.image(int(i), 0) for i in which], [clean.image(int(i), 0) for i in those])


def _twice(scenes: Scenes | Mixed) -> Dataset:
    """Validation pairs of noisy captures: the first and second, the third and fourth, ... of each scene.

    No capture is in two pairs, and those of a pair are neighbours, which differ least where a scene drifts.
    """
    everything = torch.arange(len(scenes.names))
    count = (scenes.captures(everything) // 2).clamp(max=SCORED)
    scene = torch.repeat_interleave(everything, count)
    first = 2 * torch.cat([torch.arange(int(n)) for n in count])
    if isinstance(scenes, Scenes):
        return Pairs(scenes.take(scene, first), scenes.take(scene, first + 1), scene)
    sides = [[scenes.image(int(s), int(k)) for s, k in zip(scene, first + i, strict=True)] for i in (0, 1)]
    return Sized(sides[0], sides[1], scene)


def _shows_something(image: Tensor) -> bool:
    """Whether an image is more than one value; missing pixels do not count."""
    values = image.numpy()
    step = tuple(slice(None, None, max(1, n // 256)) for n in values.shape)
    for part in (values[step], values):  # most images are more than one value at a glance
        known = part[np.isfinite(part)] if part.dtype.kind == "f" else part
        if known.size and known.min() < known.max():
            return True
    return False
