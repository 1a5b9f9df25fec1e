"""User-supplied noisy images, two or more captures of each scene."""

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
from n2n_lightning.data.datasets import Captures
from n2n_lightning.data.file_matching import is_file, key, partners, pictures
from n2n_lightning.data.options import whole_numbers
from n2n_lightning.data.reading import group_scenes, read_scenes
from n2n_lightning.data.reading_files import read_array, read_images
from n2n_lightning.data.reading_movies import usable_captures
from n2n_lightning.data.region_tensor import loaded
from n2n_lightning.data.samplers import BatchDraws
from n2n_lightning.data.scene_set import EqualSizeScenes, SceneSet
from n2n_lightning.data.training_scenes import TrainingScenes
from n2n_lightning.data.units import in_unit, stored_as
from n2n_lightning.data.user_images import UserImages, fixed_pairs, validation_pairs
from n2n_lightning.files import InputError, option
from n2n_lightning.metrics.noise_levels import NoiseLevels, named
from n2n_lightning.paths import composed, pattern_root


class PairedImages(UserImages):
    """User-supplied noisy images, two or more captures of each scene (docs/how-to/pairs.md).

    Args:
        noisy: a file or folder with the first captures, or with all of them.
        target: a file or folder with the second captures.
        clean: clean images, for validation (and for `target=clean`); None validates on noisy
            captures that are held out, by an estimate (noisy_reference.squared_errors).
        val_noisy: noisy images that belong to `clean`, or, without it, captures of other scenes to
            validate on; None takes the scenes that have a clean image, or some of `noisy`.
        within: captures farther apart than this in a scene are no pair; None: all are.
        swap: train on a random pair of the captures in random order (true), or always from the
            first towards the second (false); `auto` measures the noise of each: where it differs by
            a factor of 1.5 or more, the noisier captures are the input, otherwise any.
        **options: see UserImages.
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
        self.target = target
        self.clean = clean
        self.within = within
        self.swap: bool | str = swap
        self.levels: NoiseLevels | None = None
        self.direction = Direction()

    def load(self) -> tuple[Dataset, Dataset | None]:
        """Read the captures, see NoisyPairs.

        Returns:
            Pairs of training captures, and pairs to validate on.
        """
        scenes = self._prepared(self._read(read_scenes, self.noisy, self.target))
        scenes = self._aligned(scenes)
        self.levels = levels_of(scenes, self.stats)
        split = self._split(scenes)
        if not self.supervised:
            self.training_scenes = split
        count = self._count(split.scenes)
        self.fingerprint = self._described(
            "pairs", scenes, count, split.validation, target=self.target, clean=self.clean
        )
        directed = None
        if self.levels and self.swap == "auto":
            directed = self.levels.pairs(self.within)
        if self.levels and self.levels.noisier:
            way = self._way_of_training(bool(directed))
            self.notes.append(explained(self.levels, way, self.score_of.get("captures")))
        train = Captures(
            split.scenes,
            self.seed,
            swap=bool(self.swap),
            clean=split.clean,
            crop=self.crop,
            count=count,
            within=self.within,
            pairs=directed,
        )
        return train, split.validation

    def _way_of_training(self, directed: bool) -> str:
        """Return in words which captures are the input, where their noise differs."""
        if self.swap is False:
            return f"the first captures are the input ({option('data.swap', 'false')})"
        if directed:
            return "the noisier ones are the input only"
        return "trained in both directions"

    def _usable(self, scenes: SceneSet) -> SceneSet:
        """Leave out dead captures, and note them."""
        scenes, lines = usable_captures(scenes)
        self.dropped += lines
        return scenes

    def make_pair(
        self, batch: dict[str, Any], draws: BatchDraws, training: bool
    ) -> dict[str, Tensor]:
        """Make input and target of two captures, see NoisyPairs.

        Args:
            batch: `input` and `target`, stored captures.
            draws: random generators, by purpose.
            training: False for validation.

        Returns:
            As of NoisyPairs; where only inputs are scored, also `target_noise`, the variance of the
            target at each pixel.
        """
        ready = super().make_pair(batch, draws, training)
        if training or self.reference != "noisy" or not self.direction.pairs:
            return ready
        pairs = zip(ready["target"], ready["other_target"], strict=True)
        noise: list[Any] = [self.direction.noise_of(target, other) for target, other in pairs]
        return {**ready, "target_noise": torch.stack(noise)}

    def _validation_of_others(self, scenes: SceneSet) -> Dataset:
        """Return validation pairs of other scenes, whose noise is measured separately."""
        return self._scoring_pairs(scenes, levels_of(scenes, self.stats))

    def _scoring_pairs(self, scenes: SceneSet, levels: NoiseLevels | None) -> Dataset:
        """Return validation pairs of noisy captures, the noisier as input where noise differs."""
        self.direction = direction = scored_direction(levels, self.swap, self.within)
        self.score_of = as_facts(levels, direction.captures)
        pairs = validation_pairs(scenes, direction.pairs)
        if direction.pairs and direction.reach is None:
            references: list[Tensor] = list(pairs.reference)  # type: ignore[attr-defined]
            if all(_has_all_pixels(image, self.nodata_values) for image in references):
                self.reference = "clean"
                self.bounded = all(self._between_0_and_white(image) for image in references)
        return pairs

    def _split(self, scenes: SceneSet) -> TrainingScenes:
        """Choose what to train and to validate on, and clean targets where they are asked for."""
        if self.clean is not None:
            return self._split_with_clean(scenes)
        if self.supervised:
            raise InputError(
                "target", "clean", f"name the clean images with {option('data.clean')}"
            )
        self.reference = "noisy"
        if self.val_noisy:
            return self._training_scenes(scenes, self._pairs_of_others(scenes))
        train, held_out = self._hold_out(scenes)
        val = None if held_out is None else self._scoring_pairs(held_out, self.levels)
        return self._training_scenes(train, val)

    def _split_with_clean(self, scenes: SceneSet) -> TrainingScenes:
        """Choose the scenes to train on where there are clean images to validate with."""
        clean, owners = self._clean_images(scenes)
        clean = in_unit(clean, scenes)
        self.bounded = self._bounded(clean)
        if self.val_noisy:
            return self._training_scenes(scenes, self._separate_pairs(scenes, clean))
        self._refuse_unlike(clean, scenes, owners)
        train, held_out = self._hold_out_with_clean(scenes, owners)
        if self.supervised and not torch.isin(train, owners).all():
            raise InputError(
                "target", "clean", f"every scene needs a clean image in {option('data.clean')}"
            )
        position = {scene: i for i, scene in enumerate(owners.tolist())}
        targets = None
        if self.supervised:
            numbers = [position[scene] for scene in train.tolist()]
            targets = clean.part(torch.tensor(numbers))
        capture = 0
        if self.levels:
            if self.levels.noisier and self.swap is not False:
                capture = self.levels.noisier[0]
            scored = named([capture], len(self.levels.variances))
            self.score_of = as_facts(self.levels, scored)
        references = torch.tensor([position[scene] for scene in held_out.tolist()])
        val = _pairs_with_clean(scenes, held_out, clean, references, capture)
        return self._training_scenes(scenes.part(train), val, targets)

    def _training_scenes(
        self, train: SceneSet, val: Dataset | None, clean: SceneSet | None = None
    ) -> TrainingScenes:
        return TrainingScenes(train, self.stats, "pairs", self.within, clean, val)

    def _hold_out_with_clean(self, scenes: SceneSet, owners: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers of the scenes to train on and of those to score.

        Args:
            scenes: all.
            owners: numbers of the scenes that have a clean image.
        """
        count = len(scenes)
        if count == 1:
            return scenes.indices, scenes.indices  # denoised, and compared with its clean image
        held = self._held_count(count)
        if len(owners) == count and held:
            return scenes.indices[:-held], scenes.indices[-held:]
        if len(owners) == count:
            raise InputError(
                "data.val_share",
                self.val_share,
                "every scene has a clean image; some must be held out",
            )
        return scenes.indices[~torch.isin(scenes.indices, owners)], owners

    def _bounded(self, clean: SceneSet) -> bool:
        """Return True if clean values are between 0 and white; refuse images with missing ones."""
        bounded = True
        for i in range(len(clean)):
            image = clean.image(i, 0)
            if np.isnan(image.numpy()).any():
                raise InputError(f"{self.clean}: has NaN values; clean images must be whole")
            if not self._between_0_and_white(image):
                bounded = False
        return bounded

    def _between_0_and_white(self, image: Tensor) -> bool:
        values = image.numpy()  # torch has no minimum of unsigned 16 bit integers
        return bool(values.min() >= 0 and values.max() <= (self.scale or 1))

    def _separate_pairs(self, scenes: SceneSet, clean: SceneSet) -> Dataset:
        """Return validation pairs of other scenes, data.val_noisy and data.clean."""
        noisy = in_unit(self._images(str(self.val_noisy)), scenes)
        if self.supervised:
            raise InputError(
                "target",
                "clean",
                f"{option('data.clean')} then belongs to the training scenes;"
                f" leave out {option('data.val_noisy')}",
            )
        if len(noisy) != len(clean):
            raise InputError(
                f"{self.val_noisy} and {self.clean} differ: {len(noisy)} and {len(clean)} images"
            )
        if noisy.channels != scenes.channels or noisy.dtype != scenes.dtype:
            raise InputError(
                self._unlike(noisy.image(0, 0), str(self.val_noisy), scenes.image(0, 0))
            )
        self._refuse_unlike(clean, noisy, clean.indices)
        return _pairs_with_clean(noisy, clean.indices, clean, clean.indices)

    def _clean_images(self, scenes: SceneSet) -> tuple[SceneSet, Tensor]:
        """Return the clean images, as scenes of one capture, and their noisy scenes, (M,)."""
        assert self.clean is not None
        folder = Path(self.clean)
        count = len(scenes)
        clean = self._images(self.clean)
        if self.val_noisy:
            return clean, clean.indices
        if is_file(folder):
            if len(clean) == len(self._all_names) > count:  # also those of blank scenes
                clean = clean.part(self._used)
            if len(clean) != count:
                raise InputError(
                    f"{self.clean}: holds {len(clean)} clean images for {count} scenes;"
                    " one each is needed"
                )
            return clean, clean.indices
        owners = self._owners([Path(name) for name in clean.names], folder)
        places = {name: i for i, name in enumerate(scenes.names)}
        chosen = [i for i, name in enumerate(owners) if name in places]  # not those of blank scenes
        if not chosen:
            raise InputError(f"{self.clean}: holds no image of a scene that is used")
        numbers = [places[owners[i]] for i in chosen]
        return clean.part(torch.tensor(chosen)), torch.tensor(numbers)

    def _owners(self, paths: Sequence[Path], folder: Path) -> list[str]:
        """Return the scene that each clean image belongs to, by the place and name of both."""
        root = pattern_root(self.noisy)
        folder = pattern_root(folder)
        scenes = {}
        for name in self._all_names:
            path = Path(name)
            if path.is_file():
                scenes[key(path, root)] = name
            else:
                scenes[composed(path.relative_to(root).as_posix())] = name
        whole = [key(path, folder) for path in paths]
        if set(whole) <= set(scenes):
            return [scenes[name] for name in whole]
        # gt/1/avg50.png is of the scene 1
        above = [composed(path.parent.relative_to(folder).as_posix()) for path in paths]
        if set(above) <= set(scenes):
            return [scenes[name] for name in above]
        pairs = partners(whole, list(scenes))
        if pairs:
            return [scenes[pairs[name]] for name in whole]
        wrong = next(path for path, name in zip(paths, whole, strict=True) if name not in scenes)
        raise InputError(f"{wrong}: no scene of {self.noisy} has this name")

    def _images(self, source: str) -> SceneSet:
        """Read single images of a file or folder, as scenes of one capture."""
        layout = self.layout if "K" not in self.layout else "auto"
        if not is_file(source):
            return self._images_of_folder(source, layout)
        stored = stored_as([source])
        captures = read_array(source, layout, self.dims, stored.physical)
        if len(captures) > 1:
            raise InputError(
                f"{source}: holds {len(captures)} captures of each scene; one is needed here"
            )
        names = [f"{source}, image {i}" for i in range(len(captures[0]))]
        return EqualSizeScenes(captures, names, None, stored.nodata_values, stored.unit)

    def _images_of_folder(self, source: str, layout: str) -> SceneSet:
        """Read single images of a folder; those that exclude= names may be clean: averages."""
        folder = Path(source)
        paths = pictures(folder, deep=True)
        if not paths:
            raise InputError(f"{source}: holds no images")
        if len({key(path, folder) for path in paths}) < len(paths):
            raise InputError(f"{source}: holds several images of one name")
        stored = stored_as(paths)
        images = read_images(paths, self.dims, stored.physical, layout)
        captures = [[image] for image in images]
        return group_scenes(captures, [str(path) for path in paths], stored)

    def _refuse_unlike(
        self,
        clean: SceneSet,
        noisy: SceneSet,
        owners: Tensor,
    ) -> None:
        """Raise InputError unless clean images have the sizes and the type of the noisy ones."""
        same_size = (clean.sizes(clean.indices) == noisy.sizes(owners)).all(1)
        if not same_size.all():
            first = int((~same_size).nonzero()[0])
        elif clean.channels != noisy.channels or clean.dtype != noisy.dtype:
            first = 0
        else:
            return
        image = noisy.image(int(owners[first]), 0)
        raise InputError(self._unlike(clean.image(first, 0), str(self.clean), image))


def _has_all_pixels(image: Tensor, nodata_values: Sequence[float]) -> bool:
    """Return True if no pixel of a stored image is missing."""
    image = loaded(image)
    if not image.isfinite().all():
        return False
    return not any(bool((image == value).any()) for value in nodata_values)


def _pairs_with_clean(
    noisy: SceneSet, which: Tensor, clean: SceneSet, references: Tensor, capture: int = 0
) -> Dataset:
    """Return validation pairs of noisy captures and clean images.

    Args:
        noisy: captures.
        which: numbers of the scenes that are scored.
        clean: a capture of each scene.
        references: the number of the clean image of each scene that is scored.
        capture: the number of the capture that is scored.
    """
    inputs = (which, 0 * which + capture)
    return fixed_pairs(noisy, inputs, clean, (references, 0 * references))
