"""Movies: frames that follow one another are captures of one scene."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.arrays.frame_offsets import around, frames
from n2n_lightning.data.datasets import Captures
from n2n_lightning.data.options import whole_numbers
from n2n_lightning.data.reading_movies import read_movies, usable_frames
from n2n_lightning.data.samplers import BatchDraws, BatchIndex
from n2n_lightning.data.scene_set import SceneSet
from n2n_lightning.data.training_scenes import TrainingScenes
from n2n_lightning.data.user_images import UserImages, neighbouring_captures, validation_pairs
from n2n_lightning.files import InputError, option
from n2n_lightning.paths import parse_frames, split_frames
from n2n_lightning.randomness import generator

# frames before and after one, by benchmarks/single.py movie: the best of 0 to 2 unless frames are
# three pixels apart
CONTEXT = 2
FRAMES_PER_EPOCH = 50  # of a movie: an epoch should not last for hours
SCORED_FRAMES = 8  # of a movie, each with the next one, in validation with a context


class Movie(UserImages):
    """User-supplied noisy movies (docs/how-to/single.md).

    Args:
        noisy: a file with a movie, or a folder with movies, or with the frames of one.
        within: frames up to this far apart are a pair, in either order.
        context: frames before and after one that are the input, while it is the target
            (DeepInterpolation, Lecoq et al., Nature Methods 2021); 0: pairs; `auto`: 2, or as many
            as the shortest movie has.
        frames: which frames are targets, in Python's slice syntax, `10:50` or `0::2`; None: all.
            The frames around them come from all of the movie, with a step from those that are whole
            steps away. `all` takes interleaved channels as they are. `movie.tif[10:50]` as `noisy`
            is the same.
        **options: see UserImages.
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
            chosen = _parsed_frames(frames)
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
        self.within = within
        self.asked_context = context
        self.repeats = False  # what a frame lacks may be an event of the next one

    def _usable(self, scenes: SceneSet) -> SceneSet:
        """Leave out dead frames and copies, and note them.

        Raises:
            InputError: several channels take turns.
        """
        labels = scenes.frame_names
        scenes, reviews = usable_frames(scenes, self.chosen)
        for i, (name, frame_review) in enumerate(zip(scenes.names, reviews, strict=True)):
            turns = frame_review.turns(name)
            if turns and not self.as_they_are:
                as_they_are = option("data.frames", "all")
                raise InputError(f"{turns}; {as_they_are} would take them as they are")
            self.dropped += frame_review.lines(name, labels[i] if labels else None)
            brightness = frame_review.brightness(name)
            if brightness:
                self.notes.append(brightness)
        return scenes

    def load(self) -> tuple[Dataset, Dataset | None]:
        """Read the movies, see NoisyPairs.

        Returns:
            Windows of the training frames, and frames held out.
        """
        scenes = self._prepared(self._read(read_movies, self.noisy))
        self.reference = "noisy"
        self.context = self._chosen_context(min(scenes.counts_of_all))
        if not self.context:
            scenes = _targets_alone(scenes)
        self.training_scenes = split = self._split(scenes)
        train = split.scenes
        val = split.validation
        count = self._count(train)
        length = sum(scenes.counts_of_all)
        self.fingerprint = self._described(
            "movie", scenes, count, val, frames=length, context=self.context
        )
        if self.context:
            return BlindFrames(train, self.seed, self.context, self.crop, count), val
        return Captures(train, self.seed, True, None, self.crop, count, self.within), val

    def _chosen_context(self, shortest: int) -> int:
        """Return the context, given the frames of the shortest movie."""
        if isinstance(self.asked_context, str):
            return min(CONTEXT, (shortest - 1) // 2)
        context = self.asked_context
        if context and shortest < 2 * context + 1:
            raise InputError(
                "data.context",
                context,
                f"needs {2 * context + 1} frames, and {self.noisy} has {shortest}",
            )
        return context

    def _split(self, scenes: SceneSet) -> TrainingScenes:
        """Choose the movies to train on, and what to validate on."""
        train, held_out = self._hold_out(scenes)
        val: Dataset | None = None
        if held_out is not None and self.context:
            val = FrameWindows(held_out, self.context)
        elif held_out is not None:
            val = validation_pairs(held_out)
        return TrainingScenes(train, self.stats, "movie", self.within, validation=val)

    def _windows_of(self, train: SceneSet) -> int:
        """Count every frame, up to FRAMES_PER_EPOCH of a movie."""
        length = train.captures(train.indices).float().mean()
        return super()._windows_of(train) * int(length.clamp(max=FRAMES_PER_EPOCH))

    def make_pair(
        self, batch: dict[str, Any], draws: BatchDraws, training: bool
    ) -> dict[str, Tensor]:
        """Make input and target of frames; see NoisyPairs for pairs of single ones.

        Args:
            batch: `input`, the frames around each along the channels, and `target`, the frames; in
                validation also `other_input` and `other_target`, the same of the next frames.
            draws: random generators, by purpose.
            training: False for validation.

        Returns:
            The same in units of the network, NaN where a target is missing or an outlier.
        """
        if not self.context:
            return super().make_pair(batch, draws, training)
        pair = self.normalized_pair(batch["input"], batch["target"], noisy=True)
        if training:
            pair = self.turned(pair, draws)
            return {
                "input": pair[0],
                "target": pair[1],
            }
        other = self.normalized_pair(batch["other_input"], batch["other_target"], noisy=True)
        return {
            "input": pair[0],
            "target": pair[1],
            "other_input": other[0],
            "other_target": other[1],
            "scene": batch["scene"],
        }


def _targets_alone(scenes: SceneSet) -> SceneSet:
    """Return the frames that may be targets: in pairs of frames both are."""
    if scenes.targets is None:
        return scenes
    targets = [scenes.wanted(i) for i in range(len(scenes))]
    for name, numbers in zip(scenes.names, targets, strict=True):
        if len(numbers) < 2:
            raise InputError(f"{name}: {len(numbers)} frame is chosen; pairs need two or more")
    return scenes.keep(targets)


def _parsed_frames(text: str | int) -> slice:
    """Return the slice that the option data.frames states."""
    try:
        return parse_frames(str(text))
    except InputError as error:
        _, _, reason = str(error).partition(": ")
        raise InputError("data.frames", text, reason) from None


class BlindFrames(Captures):
    """Windows of frames as `target`; `input` are the frames around each, (B, 2n x C, h, w).

    Args:
        scenes: the movies.
        seed: of the choice of frames and windows.
        context: frames before and after a target, n.
        crop, count: see Captures.
    """

    def __init__(
        self,
        scenes: SceneSet,
        seed: int,
        context: int,
        crop: Sequence[int] | None,
        count: int,
    ) -> None:
        super().__init__(scenes, seed, True, None, crop, count)
        self.context = context
        self.wanted: list[Tensor] | None = None
        if scenes.targets is not None:
            self.wanted = [scenes.wanted(i) for i in range(len(scenes))]

    def _targets(self, scene: Tensor, u: Tensor) -> Tensor:
        """Return a frame of each scene that may be a target, (B,), from u in [0, 1)."""
        if self.wanted is None:
            return (u * self.scenes.captures(scene)).long()
        chosen = []
        for i, x in zip(scene.tolist(), u.tolist(), strict=True):
            frames_of_scene = self.wanted[i]
            chosen.append(frames_of_scene[int(x * len(frames_of_scene))])
        return torch.stack(chosen)

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        scene = key.scene_index(self.count, len(self.scenes))
        draws = generator(self.seed, "captures", key.epoch, key.number)
        u = torch.rand(4, len(scene), generator=draws)
        window = self._window(scene, u[:2], draws) if self.window else ()
        frame = self._targets(scene, u[2])
        return {
            "input": surroundings(self.scenes, scene, frame, self.context, window),
            "target": self.scenes.take(scene, frame, window),
            **key.identity(),
        }


def surroundings(
    scenes: SceneSet, scene: Tensor, frame: Tensor, context: int, window: tuple[Tensor, ...] = ()
) -> Tensor:
    """Read the frames around some, one after the other along the channels.

    Args:
        scenes: the movies.
        scene: numbers of movies, (B,).
        frame: the number of a frame of each, (B,).
        context: frames before and after it, n; at an end of the movie, some of its other side.
        window: see SceneSet.take.

    Returns:
        Stored values, (B, 2n x C, h, w).
    """
    counts = scenes.captures(scene).tolist()
    parts = []
    for k in frames(context):
        numbers = []
        for t, count in zip(frame.tolist(), counts, strict=True):
            numbers.append(around(t, k, count))
        parts.append(scenes.take(scene, torch.tensor(numbers), window))
    return torch.cat(parts, 1)


class FrameWindows(Dataset):
    """Frames to validate a network that sees those around one, each with the next one.

    A batch holds one frame. The output for a frame does not depend on the noise of that frame, and
    the next frame tells how much that is: the score without clean images is computed from both
    frames in both orders (noisy_reference.squared_errors).

    Args:
        scenes: the movies that are held out.
        context: frames before and after one.
    """

    def __init__(self, scenes: SceneSet, context: int) -> None:
        self.scenes = scenes
        self.context = context
        self.scene, self.first = neighbouring_captures(scenes, SCORED_FRAMES)

    def __len__(self) -> int:
        return len(self.scene)

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        scene = self.scene[key.images]
        first = self.first[key.images]
        ready: dict[str, Any] = {"scene": scene}
        for name, frame in (("", first), ("other_", first + 1)):
            ready[f"{name}input"] = surroundings(self.scenes, scene, frame, self.context)
            ready[f"{name}target"] = self.scenes.take(scene, frame)
        return {
            **ready,
            **key.identity(),
        }
