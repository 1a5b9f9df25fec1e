"""Noisy images of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.capture_noise import (
    Direction,
    as_facts,
    explained,
    levels_of,
    scored_direction,
)
from n2n_lightning.data.datasets import Captures, MixedSizePairs, Pairs
from n2n_lightning.data.file_matching import is_file, key, partners, pictures
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.options import whole_numbers
from n2n_lightning.data.reading import group_scenes, read_array, read_images, read_scenes
from n2n_lightning.data.reading_movies import usable_captures
from n2n_lightning.data.scenes import EqualSizeScenes, SceneSet
from n2n_lightning.data.units import in_unit, stored_as
from n2n_lightning.data.user_images import UserImages, scored, validation_pairs
from n2n_lightning.files import InputError, option
from n2n_lightning.metrics.noise_levels import NoiseLevels, named
from n2n_lightning.paths import composed, pattern_root


class PairedImages(UserImages):
    """Your own noisy images: two or more captures of each scene, in files or folders (docs/how-to/pairs.md).

    Args:
        noisy: a file or folder with the first captures, or with all of them.
        target: a file or folder with the second captures.
        clean: clean images, for validation (and for `target=clean`); None validates on noisy
            captures kept back, by an estimate (noisy_reference.squared_errors).
        val_noisy: noisy images that belong to `clean`, or, without it, captures of other scenes to
            validate on; None takes the scenes that have a clean image, or some of `noisy`.
        within: captures that are more than so many apart in a scene are no pair; None: all are.
        swap: train on a random pair of the captures in random order (true), or always from the
            first towards the second (false); `auto` measures the noise of each: where it differs by
            a factor of 1.5 or more, the noisier captures are the input, otherwise any.
        **options: see Own.
    """

    def __init__(
        self,
        noisy: str,
        target: str | None = None,
        clean: str | None = None,
        within: int | None = None,
        swap: bool | str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(noisy, **options)
        if within is not None:
            whole_numbers(1, within=within)
        if self.val_target is not None and clean is not None:
            raise InputError(
                "data.val_target",
                self.val_target,
                f"takes the place of {option('data.clean')}; leave one out",
            )
        if not isinstance(swap, bool) and swap != "auto":
            raise InputError("data.swap", swap, "must be auto, true or false")
        self.target, self.clean, self.within = target, clean, within
        self.swap: bool | str = swap
        self.levels: NoiseLevels | None = None
        self.direction = Direction()

    def load(self) -> tuple[Dataset, Dataset | None]:
        scenes = self._prepared(self._read(read_scenes, self.noisy, self.target))
        self.levels = levels_of(scenes, self.seen)
        train, val, clean = self._split(scenes)
        pairs = self._count(train)
        self.fingerprint = self._described(
            "pairs", scenes, pairs, val, target=self.target, clean=self.clean
        )
        directed = self.levels.pairs(self.within) if self.levels and self.swap == "auto" else None
        if self.levels and self.levels.noisier:
            way = (
                "the noisier ones are the input only" if directed else "trained in both directions"
            )
            way = (
                f"the first captures are the input ({option('data.swap', 'false')})"
                if self.swap is False
                else way
            )
            self.notes.append(explained(self.levels, way, self.score_of.get("captures")))
        return Captures(
            train, self.seed, bool(self.swap), clean, self.crop, pairs, self.within, directed
        ), val

    def _usable(self, scenes: SceneSet) -> SceneSet:
        """The captures that can be used; says which are left out."""
        scenes, lines = usable_captures(scenes)
        self.dropped += lines
        return scenes

    def captured(self) -> tuple[SceneSet, IntensityStats, int | None, str] | None:
        """See NoisyPairs."""
        assert isinstance(self.train, Captures)
        return None if self.supervised else (self.train.scenes, self.seen, self.within, "pairs")

    def noise_of_target(self, ready: dict[str, Tensor]) -> dict[str, Tensor]:
        """See NoisyPairs."""
        if not self.direction.pairs:
            return {}
        both = zip(ready["target"], ready["other_target"], strict=True)
        return {"target_noise": torch.stack([self.direction.noise_of(*pair) for pair in both])}  # type: ignore[misc]

    def _validated(self, scenes: SceneSet) -> Dataset:
        """Validation pairs of other scenes, whose noise is measured by itself."""
        return self._scoring_pairs(scenes, levels_of(scenes, self.seen))

    def _scoring_pairs(self, scenes: SceneSet, levels: NoiseLevels | None) -> Dataset:
        """Validation pairs of noisy captures; where their noise differs, from a noisier one to another one."""
        self.direction = direction = scored_direction(levels, self.swap, self.within)
        self.score_of = as_facts(levels, direction.captures)
        found = validation_pairs(scenes, direction.pairs)
        if direction.pairs and direction.reach is None:
            references: list[Tensor] = list(found.reference)  # type: ignore[attr-defined]
            if all(_whole(image, self.nodata_values) for image in references):
                self.reference = "clean"
                self.bounded = all(
                    image.min() >= 0 and image.max() <= (self.scale or 1) for image in references
                )
        return found

    def _split(self, scenes: SceneSet) -> tuple[SceneSet, Dataset | None, SceneSet | None]:
        """Training scenes, validation pairs, and the clean images of the training scenes where those are asked for."""
        count = len(scenes.names)
        everything = torch.arange(count)
        kept = max(1, round(count * self.val_share)) if self.val_share else 0
        if self.clean is None:
            if self.supervised:
                raise InputError(
                    "target", "clean", f"name the clean images with {option('data.clean')}"
                )
            self.reference = "noisy"
            if self.val_noisy:
                return scenes, self._others(scenes), None
            learnt, back = self._kept_back(scenes)
            return learnt, None if back is None else self._scoring_pairs(back, self.levels), None
        cleans, owners = self._clean_images(scenes)
        cleans = in_unit(cleans, scenes)
        self.bounded = self._bounded(cleans)
        if self.val_noisy:
            return scenes, self._separate(scenes, cleans), None
        self._alike(cleans, scenes, owners)
        # every scene has a clean image: the last ones are kept back
        if len(owners) == count and count > 1 and kept:
            held, rest = everything[-kept:], everything[:-kept]
        elif count == 1:
            held = rest = everything  # the one scene is denoised and compared with its clean image
        else:
            held, rest = owners, everything[~torch.isin(everything, owners)]
        if self.supervised and not torch.isin(rest, owners).all():
            raise InputError(
                "target", "clean", f"every scene needs a clean image in {option('data.clean')}"
            )
        position = {int(scene): i for i, scene in enumerate(owners)}

        def of(which: Tensor) -> Tensor:
            return torch.tensor([position[int(scene)] for scene in which])

        towards = cleans.part(of(rest)) if self.supervised else None
        shot = (
            self.levels.noisier[0]
            if self.levels and self.levels.noisier and self.swap is not False
            else 0
        )
        if self.levels:
            self.score_of = as_facts(self.levels, named([shot], len(self.levels.variances)))
        return scenes.part(rest), _fixed(scenes, held, cleans, of(held), shot), towards

    def _bounded(self, clean: SceneSet) -> bool:
        """Whether all clean values lie between 0 and white; raises InputError where some are missing."""
        bounded = True
        for i in range(len(clean.names)):
            values = clean.image(i, 0).numpy()
            if np.isnan(values).any():
                raise InputError(f"{self.clean}: has NaN values; clean images must be whole")
            bounded = bounded and bool(values.min() >= 0 and values.max() <= (self.scale or 1))
        return bounded

    def _separate(self, scenes: SceneSet, clean: SceneSet) -> Dataset:
        """Validation pairs of other scenes, data.val_noisy and data.clean."""
        noisy = in_unit(self._images(str(self.val_noisy)), scenes)
        if self.supervised:
            raise InputError(
                "target",
                "clean",
                f"{option('data.clean')} then belongs to the training scenes; leave out"
                f" {option('data.val_noisy')}",
            )
        if len(noisy.names) != len(clean.names):
            raise InputError(
                f"{self.val_noisy} and {self.clean} differ: {len(noisy.names)} and"
                f" {len(clean.names)} images"
            )
        everything = torch.arange(len(clean.names))
        if noisy.channels != scenes.channels or noisy.dtype != scenes.dtype:
            raise InputError(
                self._unlike(noisy.image(0, 0), str(self.val_noisy), scenes.image(0, 0))
            )
        self._alike(clean, noisy, everything)
        return _fixed(noisy, everything, clean, everything)

    def _clean_images(self, scenes: SceneSet) -> tuple[SceneSet, Tensor]:
        """The clean images, as scenes of one capture, and the numbers of the scenes that they belong to (M,)."""
        assert self.clean is not None
        folder, count = Path(self.clean), len(scenes.names)
        clean = self._images(self.clean)
        if is_file(folder) or self.val_noisy:
            # those of blank scenes
            if not self.val_noisy and len(clean.names) == len(self._all) > count:
                clean = clean.part(self._kept)
            if not self.val_noisy and len(clean.names) != count:
                raise InputError(
                    f"{self.clean}: holds {len(clean.names)} clean images for {count} scenes; one"
                    " each is needed"
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
        root, folder = pattern_root(self.noisy), pattern_root(folder)
        scenes = {
            key(Path(n), root)
            if Path(n).is_file()
            else composed(Path(n).relative_to(root).as_posix()): n
            for n in self._all
        }
        whole = [key(path, folder) for path in paths]
        above = [
            composed(path.parent.relative_to(folder).as_posix()) for path in paths
        ]  # gt/1/avg50.png is of the scene 1
        for own in (whole, above):
            if set(own) <= set(scenes):
                return [scenes[name] for name in own]
        if pairs := partners(whole, list(scenes)):
            return [scenes[pairs[name]] for name in whole]
        wrong = next(path for path, name in zip(paths, whole, strict=True) if name not in scenes)
        raise InputError(f"{wrong}: no scene of {self.noisy} has this name")

    def _images(self, source: str) -> SceneSet:
        """Single images of a file or folder, as scenes of one capture."""
        folder = Path(source)
        layout = self.layout if "K" not in self.layout else "auto"
        if not is_file(folder):
            # exclude= is about captures: an average may be the clean image
            paths = pictures(folder, deep=True)
            if not paths:
                raise InputError(f"{source}: holds no images")
            if len({key(path, folder) for path in paths}) < len(paths):
                raise InputError(f"{source}: holds several images of one name")
            stored = stored_as(paths)
            images = read_images(paths, self.dims, stored.physical, layout)
            return group_scenes(
                [[image] for image in images], [str(path) for path in paths], stored
            )
        stored = stored_as([source])
        captures = read_array(source, layout, self.dims, stored.physical)
        if len(captures) > 1:
            raise InputError(
                f"{source}: holds {len(captures)} captures of each scene; one is needed here"
            )
        names = [f"{source}, image {i}" for i in range(len(captures[0]))]
        return EqualSizeScenes(captures, names, None, stored.nodata_values, stored.unit)

    def _alike(self, clean: SceneSet, noisy: SceneSet, owners: Tensor) -> None:
        """Raises InputError unless the clean images have the sizes, the channels and the type of the noisy ones."""
        sizes = (clean.sizes(torch.arange(len(clean.names))) == noisy.sizes(owners)).all(1)
        if not sizes.all() or clean.channels != noisy.channels or clean.dtype != noisy.dtype:
            i = int((~sizes).nonzero()[0]) if not sizes.all() else 0
            raise InputError(
                self._unlike(clean.image(i, 0), str(self.clean), noisy.image(int(owners[i]), 0))
            )


def _whole(image: Tensor, nodata_values: Sequence[float]) -> bool:
    """Whether no pixel of a stored image is missing."""
    return bool(image.isfinite().all()) and not any(
        bool((image == fill).any()) for fill in nodata_values
    )


def _fixed(
    noisy: SceneSet, which: Tensor, clean: SceneSet, those: Tensor, shot: int = 0
) -> Dataset:
    """Validation pairs: the captures number `shot` of some scenes, beside clean images."""
    if (
        isinstance(noisy, EqualSizeScenes)
        and isinstance(clean, EqualSizeScenes)
        and len(noisy.smallest) == 2
    ):
        return Pairs(noisy.take(which, 0 * which + shot), clean.take(those, 0 * those))
    return MixedSizePairs(
        [scored(noisy.image(int(i), shot)) for i in which],
        [scored(clean.image(int(i), 0)) for i in those],
    )
