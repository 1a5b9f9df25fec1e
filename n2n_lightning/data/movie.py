"""Movies: frames that follow one another are captures of one scene."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.arrays.axes import around, frames
from n2n_lightning.data.augmentation import turn
from n2n_lightning.data.datasets import Captures
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.options import whole_numbers
from n2n_lightning.data.reading_movies import only, read_movies, usable_frames
from n2n_lightning.data.samplers import BatchIndex
from n2n_lightning.data.scenes import SceneSet
from n2n_lightning.data.user_images import UserImages, some_pairs, validation_pairs
from n2n_lightning.files import InputError, option
from n2n_lightning.paths import parse_frames, split_frames
from n2n_lightning.randomness import generator

CONTEXT = 2  # frames before and after one; more gains little where things move


class Movie(UserImages):
    """Your own noisy movies (docs/how-to/single.md).

    Args:
        noisy: a file with a movie, or a folder with movies, or with the frames of one.
        within: frames up to so many apart are a pair, in either order.
        context: show the network so many frames before and after one in place of it, which is the
            target (DeepInterpolation, Lecoq et al., Nature Methods 2021); 0: pairs; `auto`: 2, or
            as many as the shortest movie has.
        frames: which frames are learnt, in Python's slice syntax, `10:50` or `0::2`; None: all. The
            frames around them come from all of the movie, with a step from those that are whole
            steps away. `all` takes channels that take turns as they are. `movie.tif[10:50]` as
            `noisy` is the same.
        **options: see Own.
    """

    def __init__(
        self,
        noisy: str,
        within: int = 1,
        context: int | str = "auto",
        frames: str | int | None = None,
        **options: Any,
    ) -> None:
        noisy, chosen = split_frames(noisy)
        super().__init__(noisy, **options)
        if chosen and frames is not None:
            raise InputError(
                "data.frames",
                frames,
                f"{noisy} has frames chosen in brackets already; leave one out",
            )
        self.as_they_are = frames == "all"
        if frames is not None and not self.as_they_are:
            chosen = _frames(frames)
        self.chosen = chosen
        whole_numbers(1, within=within)
        if context != "auto":
            whole_numbers(0, context=context)
        if self.supervised:
            raise InputError("target", "clean", "data=movie knows no clean images")
        if self.val_noisy:
            raise InputError(
                "data.val_noisy",
                self.val_noisy,
                "data=movie keeps a part of the movie back instead",
            )
        self.within, self.asked_context = within, context

    def _usable(self, scenes: SceneSet) -> SceneSet:
        """The frames that can be used; says which are left out.

        Raises:
            InputError: several channels take turns.
        """
        labels = scenes.frame_names
        scenes, reviews = usable_frames(scenes, self.chosen)
        for i, (name, seen) in enumerate(zip(scenes.names, reviews, strict=True)):
            if (turns := seen.turns(name)) and not self.as_they_are:
                raise InputError(
                    f"{turns}; {option('data.frames', 'all')} would take them as they are"
                )
            self.dropped += seen.lines(name, labels[i] if labels else None)
            if line := seen.brightness(name):
                self.notes.append(line)
        return scenes

    def load(self) -> tuple[Dataset, Dataset | None]:
        scenes = self._prepared(self._read(read_movies, self.noisy))
        self.reference = "noisy"
        shortest = int(scenes.captures(torch.arange(len(scenes.names))).min())
        asked = self.asked_context
        self.context = min(CONTEXT, (shortest - 1) // 2) if isinstance(asked, str) else asked
        if self.context and shortest < 2 * self.context + 1:
            raise InputError(
                "data.context",
                self.context,
                f"needs {2 * self.context + 1} frames, and {self.noisy} has {shortest}",
            )
        if not self.context:
            scenes = _targets_alone(scenes)
        train, back = self._kept_back(scenes)
        count = self._count(train)
        val: Dataset | None = None
        if back is not None:
            val = FrameWindows(back, self.context) if self.context else validation_pairs(back)
        length = int(scenes.captures(torch.arange(len(scenes.names))).sum())
        self.fingerprint = self._described(
            "movie", scenes, count, val, frames=length, context=self.context
        )
        if self.context:
            return BlindFrames(train, self.seed, self.context, self.crop, count), val
        return Captures(train, self.seed, True, None, self.crop, count, self.within), val

    def _fit(self, train: SceneSet) -> int:
        """Every frame counts, up to 50 of a movie: an epoch should not last for hours."""
        length = train.captures(torch.arange(len(train.names))).float().mean()
        return super()._fit(train) * int(length.clamp(max=50))

    def captured(self) -> tuple[SceneSet, IntensityStats, int | None, str] | None:
        """See NoisyPairs."""
        assert isinstance(self.train, Captures)
        return self.train.scenes, self.seen, self.within, "movie"

    @property
    def repeats(self) -> bool:
        """See NoisyPairs: what a frame lacks may be an event of the next one."""
        return False

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """On the training device; with a context the input has several frames, and the target one."""
        if not self.context:
            return super().on_after_batch_transfer(batch, dataloader_idx)
        shown = self._shown(batch["input"], batch["target"], noisy=True)
        if self.trainer is None or not self.trainer.training:
            other = self._shown(batch["other_input"], batch["other_target"], noisy=True)
            ready = {
                "input": shown[0],
                "target": shown[1],
                "other_input": other[0],
                "other_target": other[1],
            }
            return {**ready, "scene": batch["scene"]}
        if self.augment:
            shown = turn(
                shown,
                generator(self.seed, "turns", batch["epoch"], batch["number"]),
                spacing=self.spacing,
            )
        size, rank = self.trainer.world_size, self.trainer.global_rank
        parts = [images.tensor_split(size)[rank] for images in shown]
        return {"input": parts[0], "target": parts[1], "size": len(shown[0])}


def _targets_alone(scenes: SceneSet) -> SceneSet:
    """The frames that may be targets: where pairs are learnt, both of a pair are."""
    if scenes.targets is None:
        return scenes
    kept = [scenes.wanted(i) for i in range(len(scenes.names))]
    for name, numbers in zip(scenes.names, kept, strict=True):
        if len(numbers) < 2:
            raise InputError(f"{name}: {len(numbers)} frame is chosen; pairs need two or more")
    return only(scenes, kept)


def _frames(text: str | int) -> slice:
    """The option data.frames, read."""
    try:
        return parse_frames(str(text))
    except InputError as error:
        raise InputError("data.frames", text, str(error).partition(": ")[2]) from None


class BlindFrames(Captures):
    """Windows of frames that the network is not shown, as `target`; those around them as `input`, (B, 2n x C, h, w)."""

    def __init__(self, scenes: SceneSet, seed: int, context: int, crop: Any, count: int) -> None:
        super().__init__(scenes, seed, True, None, crop, count)
        self.context = context
        chosen = scenes.targets is not None
        self.wanted = [scenes.wanted(i) for i in range(len(scenes.names))] if chosen else None

    def _targets(self, scene: Tensor, u: Tensor) -> Tensor:
        """Frames that may be targets, one of each scene, from uniform numbers in [0, 1): (B,)."""
        if self.wanted is None:
            return (u * self.scenes.captures(scene)).long()
        each = [self.wanted[i] for i in scene.tolist()]
        return torch.stack(
            [some[int(x * len(some))] for some, x in zip(each, u.tolist(), strict=True)]
        )

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        scene = key.scene_index(self.count, len(self.scenes.names))
        draws = generator(self.seed, "captures", key.epoch, key.number)
        u = torch.rand(4, len(scene), generator=draws)
        window = self._window(scene, u[:2], draws) if self.window else ()
        frame = self._targets(scene, u[2])
        target = self.scenes.take(scene, frame, window)
        return {
            "input": surroundings(self.scenes, scene, frame, self.context, window),
            "target": target,
            **key.identity(),
        }


def surroundings(
    scenes: SceneSet, scene: Tensor, frame: Tensor, context: int, window: tuple[Tensor, ...] = ()
) -> Tensor:
    """The frames around some, one after the other along the channels: (B, 2 context x C, h, w)."""
    counts = scenes.captures(scene).tolist()
    found = []
    for k in frames(context):
        other = [around(t, k, count) for t, count in zip(frame.tolist(), counts, strict=True)]
        found.append(scenes.take(scene, torch.tensor(other), window))
    return torch.cat(found, 1)


class FrameWindows(Dataset):
    """Validation of a network that sees the frames around one: frames of a movie, and each the next one, one a batch.

    A result does not depend on the noise of its frame, which the frame after it tells: that is how
    scores without clean images are reckoned, with the two frames the other way round
    (noisy_reference.squared_errors).
    """

    def __init__(self, scenes: SceneSet, context: int) -> None:
        self.scenes, self.context = scenes, context
        self.scene, self.first = some_pairs(scenes, 8)

    def __len__(self) -> int:
        return len(self.scene)

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        scene, first = self.scene[key.images], self.first[key.images]
        ready: dict[str, Any] = {"scene": scene}
        for name, frame in (("", first), ("other_", first + 1)):
            ready[f"{name}input"] = surroundings(self.scenes, scene, frame, self.context)
            ready[f"{name}target"] = self.scenes.take(scene, frame)
        return {**ready, **key.identity()}
