"""Movies: frames that follow one another are captures of one scene."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.arrays import axes, bad_pixels, outliers
from n2n_lightning.arrays.frame_offsets import around, frames
from n2n_lightning.data.added_changes import AddedChanges
from n2n_lightning.data.datasets import Captures
from n2n_lightning.data.hidden_pixels import HiddenPixels
from n2n_lightning.data.mask import Mask
from n2n_lightning.data.mask_choice import fitting, mask_of_movies
from n2n_lightning.data.options import whole_numbers
from n2n_lightning.data.reading_files import first_axes
from n2n_lightning.data.reading_movies import live_frames_of, read_movies, usable_frames
from n2n_lightning.data.samplers import BatchDraws, BatchIndex
from n2n_lightning.data.scene_set import SceneSet
from n2n_lightning.data.training_scenes import TrainingScenes
from n2n_lightning.data.user_images import UserImages, neighbouring_captures
from n2n_lightning.files import InputError, one_of, option
from n2n_lightning.metrics.movie_noise import MovieNoise, movie_noise
from n2n_lightning.metrics.movie_score import ScoredFrame
from n2n_lightning.paths import parse_frames, split_frames
from n2n_lightning.randomness import generator

# frames before and after one, by benchmarks/single.py movie: the best of 0 to 2 unless frames are
# three pixels apart
CONTEXT = 2
BLIND = ("pixels", "frame")
FRAMES_PER_EPOCH = 50  # of a movie: an epoch should not last for hours
SCORED_FRAMES = 8  # of a movie, in validation
MOVIES_MEASURED = 8  # whose noise is measured


class Movie(UserImages):
    """User-supplied noisy movies (docs/how-to/single.md).

    Args:
        noisy: a file with a movie, or a folder with movies, or with the frames of one.
        within: frames up to this far apart are a pair, in either order.
        context: frames before and after one that are part of the input; 0: pairs of frames; `auto`:
            2, or as many as the longest movie has (with `blind=frame` the shortest).
        blind: with a context, what the network does not see of the frame that it learns: `pixels`,
            single ones (hidden_pixels.HiddenPixels), or `frame`, all of it (DeepInterpolation,
            Lecoq et al., Nature Methods 2021), so that an event that begins in it is lost.
        share: of the pixels of a frame that are hidden; those in the middle of a mask are learnt.
        mask: what is hidden around each of them, see mask.Mask, in frames, rows and columns;
            `auto`: the pixels whose noise is correlated with it, see mask_choice.
        changes: share of the windows with changes added to the frames around the middle one, see
            AddedChanges: faint events are kept better, the rest is a little noisier.
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
        blind: str = "pixels",
        share: float = 0.1,
        mask: str | Sequence[int] = "auto",
        changes: float = 0.0,
        **options: Any,
    ) -> None:
        self.blind_to = one_of(blind, BLIND, "data.blind")
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
        self.share = share
        self.asked_mask = None if mask == "auto" else Mask.of(mask)
        self.method = HiddenPixels(share, self.asked_mask or Mask())  # refuses what cannot be
        if not 0 <= changes <= 1:
            raise InputError("data.changes", changes, "is a share, from 0 to 1")
        self.changes = AddedChanges(changes)
        self.movies: SceneSet | None = None  # all frames that can be used, until the run is over
        # noise of these movies in units of the network, and the limits of that unit
        self._measured: dict[int, tuple[MovieNoise, tuple[float, float]]] = {}
        self.scored: Sequence[int] = ()  # the movies whose frames are scored
        self._live: list[list[int]] = []  # frames that can be used, by their numbers in the file
        self.repeats = False  # what a frame lacks may be an event of the next one

    def _usable(self, scenes: SceneSet) -> SceneSet:
        """Leave out dead frames and copies, and note them.

        Raises:
            InputError: several channels take turns.
        """
        labels = scenes.frame_names
        scenes, reviews = usable_frames(scenes, self.chosen)
        self._live = [live_frames_of(frame_review, self.chosen) for frame_review in reviews]
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

    def _chosen_dims(self, first: int) -> int:
        """See UserImages; frames that are volumes stay whole.

        Raises:
            InputError: planes of volumes are asked for, which do not follow one another in time.
        """
        stated = first_axes(self.noisy, self.exclude)
        if self.layout != "auto" or not {"T", "D"} <= set(stated):
            return super()._chosen_dims(first)
        dims = super()._chosen_dims(3)
        if dims == 2:
            raise InputError(
                "model.dims",
                2,
                f"{self.noisy} is a movie of volumes ({stated}), whose planes do not follow one"
                " another in time; leave it out, and data.crop with two numbers",
            )
        return dims

    def _other_dims(self) -> str:
        """Return nothing: planes are no frames."""
        return ""

    def load(self) -> tuple[Dataset, Dataset | None]:
        """Read the movies, see NoisyPairs.

        Returns:
            Windows of the training frames, and frames held out.
        """
        scenes = self._aligned(self._prepared(self._read(read_movies, self.noisy)))
        # beyond the ends of a movie its end frame is repeated, unless all of it is hidden
        count_of = max if self.blind_to == "pixels" else min
        self.context = self._chosen_context(count_of(scenes.counts_of_all))
        self.sees_middle = self.context > 0 and self.blind_to == "pixels"
        self.movies = scenes
        self._measure_noise()
        if self.sees_middle:
            self.method = self._hidden_pixels()
            self.mask = self.method.mask.text
            self.least_held = max(self.least_held, self.method.spots.least_side)
        if not self.context:
            scenes = _targets_alone(scenes)
        self.training_scenes = split = self._split(scenes)
        train = split.scenes
        val = split.validation
        count = self._count(train)
        length = sum(scenes.counts_of_all)
        shown: dict[str, Any] = {"frames": length, "context": self.context}
        if self.sees_middle:
            shown |= {"blind": "pixels", "mask": self.mask}
        self.fingerprint = self._described("movie", scenes, count, val, **shown)
        if self.context:
            crops = MovieCrops(train, self.seed, self.context, self.crop, count, self.sees_middle)
            return crops, val
        return Captures(train, self.seed, True, None, self.crop, count, self.within), val

    def _measure_noise(self) -> None:
        """Measure the noise of the movies that are scored; set the reference of validation.

        Without clean images the score is Stein's estimate (metrics.movie_score), which needs the
        variance of the noise. Of many movies the last ones are measured, which are held out. Those
        whose noise is not known are not scored.
        """
        assert self.movies is not None
        last = range(len(self.movies))[-MOVIES_MEASURED:]
        unknown = [i for i in last if not self.noise_of(i).measurable]
        self.scored = [i for i in last if i not in unknown]
        self.reference = "stein" if self.scored else "hidden"
        if not self.scored:
            self.notes.append(f"PSNR cannot be estimated: {self.noise_of(unknown[0]).reason}")
            return
        for i in unknown:
            name = self.movies.names[i]
            self.notes.append(f"{name} is left out of the score: {self.noise_of(i).reason}")

    def _chosen_to_hold_out(self, count: int, held: int) -> Tensor:
        """Return the last movies; where none of them can be scored, the last that can be."""
        last = super()._chosen_to_hold_out(count, held)
        if self.scored and not set(last.tolist()) & set(self.scored):
            return torch.tensor(self.scored[-held:])
        return last

    def _hidden_pixels(self) -> HiddenPixels:
        """Return what hides pixels, given the axes of the data."""
        cubes = False
        if self.dims == 3:  # all turns are allowed of voxels that are cubes
            cubes = len(axes.quarter_turns((1, 1, 1), self.spacing)) == 3
        mask = self.asked_mask
        if mask is None:
            assert self.movies is not None
            choice = mask_of_movies([self.noise_of(i) for i in self._measured])
            self.notes += choice.lines()
            mask = fitting(choice.mask, self.crop, self.movies.smallest)
            self.notes += choice.cut_to(mask)
        return HiddenPixels(self.share, mask, cubes)

    def _chosen_context(self, length: int) -> int:
        """Return the context, given the frames of a movie."""
        if isinstance(self.asked_context, str):
            return min(CONTEXT, (length - 1) // 2)
        context = self.asked_context
        if context and length < 2 * context + 1:
            raise InputError(
                "data.context",
                context,
                f"needs {2 * context + 1} frames, and {self.noisy} has {length}",
            )
        return context

    def noise_of(self, scene: int) -> MovieNoise:
        """Return the noise of a movie, in units of the network; it is measured once.

        Args:
            scene: the number of the movie in `movies`.

        Returns:
            The noise; whether it is `measurable`, it says itself.
        """
        assert self.limits
        if scene not in self._measured:
            noise = movie_noise(Frames(self, scene), self.channels)
            self._measured[scene] = (noise, self.limits)
        noise, before = self._measured[scene]
        black, span = self.limits
        ratio = before[1] / span
        shift = (black - before[0]) / before[1]
        return replace(
            noise,
            a=ratio**2 * (noise.a + noise.b * shift),
            b=ratio * noise.b,
            brightness=ratio * (noise.brightness - shift),
        )

    def frame_numbers(self, scene: int) -> list[int]:
        """Return the frames of a movie that can be used, by their numbers in its file.

        Args:
            scene: the number of the movie in `movies`.
        """
        return self._live[int(self._used[scene])]

    def scored_frames(
        self,
        scene: int,
        context: int,
        sees_middle: bool,
        most: int | None = None,
        aligned: bool = True,
    ) -> Iterator[ScoredFrame]:
        """Read the frames of a movie that may be targets, as a network sees them.

        Args:
            scene: the number of the movie in `movies`.
            context, sees_middle: of the network.
            most: frames at most, evenly spread; None: all of them.
            aligned: with data.align=true the network sees the frames around one moved onto it;
                False: as they are.

        Yields:
            The frames, in order.
        """
        assert self.movies is not None
        movies = self.movies if aligned else replace(self.movies, positions=None)
        wanted = movies.wanted(scene).tolist()
        numbers = self.frame_numbers(scene)
        for i in axes.evenly(len(wanted), min(most or len(wanted), len(wanted))):
            t = wanted[i]
            place = (torch.tensor([scene]), torch.tensor([t]))
            shown, distances = frames_around(movies, *place, context, sees_middle)
            (values,) = self.without_outliers(shown)
            (target,) = self.without_outliers(self.movies.take(*place))
            (filled,) = bad_pixels.inpaint(values[None])
            yield ScoredFrame(
                numbers[t],
                filled.unflatten(0, (-1, self.channels)),
                distances[0],
                target,
            )

    def _split(self, scenes: SceneSet) -> TrainingScenes:
        """Choose the movies to train on, and what to validate on."""
        train, held_out = self._hold_out(scenes)
        val: Dataset | None = None
        if held_out is not None:
            val = FrameWindows(held_out, self.context, self.sees_middle, self.held_scenes)
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
            batch: `input`, the frames that the network sees, along the channels. With `blind=frame`
                also `target`, the frames that it learns; else `distances` of the input's frames
                from the one in the middle. In validation `distances`, and `frame`, the frames that
                are scored.
            draws: random generators, by purpose.
            training: False for validation.

        Returns:
            Input and target in units of the network, NaN where a target is missing, an outlier, or
            not hidden; in validation also what Denoiser scores a frame with.
        """
        if not training:
            return self._scored_frame(batch)
        if not self.context:
            return super().make_pair(batch, draws, training)
        if not self.sees_middle:
            images = self.normalized_pair(batch["input"], batch["target"], noisy=True)
            pair = self.turned(images, draws)
        else:
            values = self.without_outliers(batch["input"])
            distances = batch["distances"]
            frames = self._apart(values)
            if self.changes.share:
                frames = self.changes(frames, distances, draws("changes"))
            ready = self.method(frames, distances, draws("hidden"))
            images = [ready["input"], ready["target"]]
            # noise along a line must stay along it
            pair = self.turned(images, draws, transposed=self.method.mask.transposable)
        return {
            "input": pair[0],
            "target": pair[1],
        }

    def without_outliers(self, stored: Tensor) -> Tensor:
        """Convert stored images to units of the network.

        Args:
            stored: (B, C, H, W) or (B, C, D, H, W).

        Returns:
            In that shape, float, NaN where a pixel is missing or an isolated outlier.
        """
        values = self._normalized(stored)
        if not self._may_have_outliers(stored):
            return values
        return outliers.mask_outliers(values, whole=self.outliers == "auto")

    def _apart(self, images: Tensor) -> Tensor:
        """Return the frames along the channels on an axis of their own: (B, F, C, ...)."""
        return images.unflatten(1, (-1, self.channels))

    def _scored_frame(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make a validation batch of a frame, see Denoiser; its loss is of pixels not shown."""
        values = self.without_outliers(batch["input"])
        frame = self.without_outliers(batch["frame"])
        shown = bad_pixels.inpaint(values)
        noise = None
        if self.reference == "stein":
            noise = self.noise_of(int(batch["scene"]))
            noise = noise if noise.measurable else None
        ready = {
            "input": shown,
            "target": frame,
            "shown": shown,
            "frame": frame,
            "distances": batch["distances"],
            "noise": noise,
        }
        if self.sees_middle:
            # the same pixels in every epoch, so that their losses can be compared
            fixed = generator(self.seed, "hidden", batch["number"])
            ready |= self.method(self._apart(values), batch["distances"], fixed)
        elif not self.context:
            ready["target"] = self.without_outliers(batch["next"])
        return ready


class Frames(Sequence[np.ndarray]):
    """The frames of a movie in units of the network, read when they are asked for.

    Args:
        data: the source of the movie.
        scene: its number.
    """

    def __init__(self, data: Movie, scene: int) -> None:
        self.data = data
        self.scene = scene

    def __len__(self) -> int:
        assert self.data.movies is not None
        return self.data.movies.count_of(self.scene)

    def __getitem__(self, t: int) -> np.ndarray:  # type: ignore[override]
        """Return a frame, (C, H, W), NaN where a pixel is unknown; volumes as C x D channels."""
        assert self.data.movies is not None
        if not 0 <= t < len(self):
            raise IndexError(t)
        stored = self.data.movies.image(self.scene, t)[None]
        (values,) = self.data.without_outliers(stored)
        return values.flatten(0, -3).numpy()


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


class MovieCrops(Captures):
    """Windows of frames as `target`; `input` are the frames around each, (B, 2n x C, h, w).

    With `sees_middle`, `input` holds each frame between them, (B, (2n + 1) x C, h, w), and
    `distances`, (B, 2n + 1), how far each of its frames is from the one in the middle.

    Args:
        scenes: the movies.
        seed: of the choice of frames and windows.
        context: frames before and after a target, n.
        crop, count: see Captures.
        sees_middle: the frames themselves are part of the input.
    """

    def __init__(
        self,
        scenes: SceneSet,
        seed: int,
        context: int,
        crop: Sequence[int] | None,
        count: int,
        sees_middle: bool = False,
    ) -> None:
        super().__init__(scenes, seed, True, None, crop, count)
        self.context = context
        self.sees_middle = sees_middle
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
        shown, distances = frames_around(
            self.scenes, scene, frame, self.context, self.sees_middle, window
        )
        batch = {"input": shown}
        if self.sees_middle:
            batch["distances"] = distances
        else:
            batch["target"] = self.scenes.take(scene, frame, window)
        return {
            **batch,
            **key.identity(),
        }


def frames_around(
    scenes: SceneSet,
    scene: Tensor,
    frame: Tensor,
    context: int,
    sees_middle: bool,
    window: tuple[Tensor, ...] = (),
) -> tuple[Tensor, Tensor]:
    """Read the frames that a network is shown, one after the other along the channels.

    Args:
        scenes: the movies.
        scene: numbers of movies, (B,).
        frame: the number of a frame of each, (B,).
        context: frames before and after it, n; 0: it is shown alone.
        sees_middle: it is shown between them. Then a movie's end frame is repeated beyond its end;
            else frames of the other side take the place of missing ones.
        window: see SceneSet.take.

    Returns:
        Stored values, (B, F x C, h, w), moved onto the frame in the middle where `scenes` states
        positions, and distances of the F frames from the one in the middle,
        (B, F).
    """
    counts = scenes.captures(scene).tolist()
    parts = []
    distances = []
    for k in frames(context, sees_middle) or [0]:
        numbers = []
        for t, count in zip(frame.tolist(), counts, strict=True):
            numbers.append(around(t, k, count, repeat=sees_middle) if k else t)
        chosen = torch.tensor(numbers)
        parts.append(scenes.take_onto(scene, chosen, frame, window))
        distances.append(chosen - frame)
    return torch.cat(parts, 1), torch.stack(distances, 1)


class FrameWindows(Dataset):
    """Frames to score a network with, between those around each; a batch holds one.

    Args:
        scenes: the movies that are held out.
        context: frames before and after one; 0: each is shown alone.
        sees_middle: the network sees the frame between them, too.
        numbers: of these movies among all, (N,); None: they are all.
    """

    def __init__(
        self,
        scenes: SceneSet,
        context: int,
        sees_middle: bool = False,
        numbers: Tensor | None = None,
    ) -> None:
        self.scenes = scenes
        self.context = context
        self.sees_middle = sees_middle
        self.numbers = scenes.indices if numbers is None else numbers
        self.scene, self.first = neighbouring_captures(scenes, SCORED_FRAMES)

    def __len__(self) -> int:
        return len(self.scene)

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        scene = self.scene[key.images]
        first = self.first[key.images]
        shown, distances = frames_around(self.scenes, scene, first, self.context, self.sees_middle)
        ready = {
            "scene": self.numbers[scene],
            "input": shown,
            "distances": distances,
            "frame": self.scenes.take(scene, first),
        }
        if not self.context:
            ready["next"] = self.scenes.take_onto(scene, first + 1, first)
        return {
            **ready,
            **key.identity(),
        }
