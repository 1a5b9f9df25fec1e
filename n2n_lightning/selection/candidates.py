"""Candidates: ways to denoise a data set, each with the reason why it fits."""

import contextlib
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from n2n_lightning.config import overrides as override_syntax
from n2n_lightning.data.mask_choice import mask_of_images
from n2n_lightning.files import one_line
from n2n_lightning.inference.checkpoint import MOVIE, PRETRAINED
from n2n_lightning.inference.denoiser import TrainedDenoiser, load
from n2n_lightning.metrics import classical
from n2n_lightning.runs.folder import read_result
from n2n_lightning.selection.blend import FilterChoice, filter_denoiser
from n2n_lightning.selection.budget import Budget
from n2n_lightning.selection.comparison import Comparison, Evaluation, blended
from n2n_lightning.selection.data_set import DataSet
from n2n_lightning.selection.stacks import StackSet
from n2n_lightning.training.module import Diverged
from n2n_lightning.training.run import start

# Ranks: how simple a candidate is. Where two cannot be told apart the lower one is chosen.
BUNDLED, MIXED, CLASSICAL, TUNED, ANEW, MEAN_OF_TWO = range(6)
FILTER_SHARE = 0.03  # of the budget, for the tuning of one classical filter
# As the recipes of conf/experiment, n2n_single and half_volumes.
SMALL_NETWORK = (
    "model=drunet",
    "model.widths=[16,32,64]",
    "model.blocks=[2,1,1]",
    "optim.lr=0.002",
)
# Fine-tuning at adaptation.RATE, as `denoise --adapt`.
WARM_RATE = ("optim.lr=0.0002", "trainer.gradient_clip_val=1.0")
WARM = ("init=pretrained", *WARM_RATE)
# As the recipe conf/experiment/half_volumes.
SMALL_VOLUME_NETWORK = (
    "model=drunet",
    "model.widths=[16,32,64]",
    "model.blocks=[1,1,1]",
    "model.dims=3",
    "model.equivariant=true",
    "optim.lr=0.001",
    "data.batch_size=2",
)
VOLUME_WINDOW = (32, 64, 64)  # planes, rows, columns
BUNDLED_PARTS = {"bundled": PRETRAINED, "movie": MOVIE}  # by their names in choice.json


@dataclass(frozen=True)
class Part:
    """A denoiser of a choice, and what restores it.

    Attributes:
        denoiser: the network or filter.
        source: a name of BUNDLED_PARTS, the FilterChoice, or the checkpoint of a run.
    """

    denoiser: TrainedDenoiser
    source: str | FilterChoice | Path


@dataclass
class Candidate(ABC):
    """A way to denoise a data set.

    Attributes:
        name: in the table.
        reason: why it fits these data.
        rank: how simple it is, lower is simpler.
        evaluation: on the scored parts, once it is prepare_within.
        parts: its denoisers.
        weights: of each; the input has the rest to 1.
        seconds: that it took.
        refused: why it cannot be chosen, whatever its error; empty: it can.
    """

    name: str
    reason: str
    rank: int
    evaluation: Evaluation | None = field(default=None, kw_only=True)
    parts: list[Part] = field(default_factory=list, kw_only=True)
    weights: list[float] = field(default_factory=list, kw_only=True)
    seconds: float = field(default=0.0, kw_only=True)
    refused: str = field(default="", kw_only=True)

    @abstractmethod
    def prepare(self, comparison: Comparison, seconds: float) -> None:
        """Make it ready and evaluate it.

        Args:
            comparison: of all candidates.
            seconds: of processor time that it may take.
        """

    @property
    def scored(self) -> Evaluation:
        """Its evaluation."""
        assert self.evaluation is not None
        return self.evaluation


@dataclass
class Bundled(Candidate):
    """A bundled checkpoint as it is.

    Attributes:
        source: its name in BUNDLED_PARTS.
    """

    source: str = "bundled"

    def prepare(self, comparison: Comparison, seconds: float) -> None:
        model = load(BUNDLED_PARTS[self.source], device="cpu")
        self.parts = [Part(model, self.source)]
        self.weights = [1.0]
        self.evaluation = comparison.evaluate(partial(model.denoise, axes=comparison.axes))


@dataclass
class Mixed(Candidate):
    """Another candidate mixed with the input.

    Attributes:
        other: the candidate.
    """

    other: Candidate

    def prepare(self, comparison: Comparison, seconds: float) -> None:
        share = comparison.best_share(self.other.scored)
        if share == 1:  # it is the other one
            return
        sources = [self.other.scored, comparison.of_input()]
        self.name = f"{self.name}, {share:.0%} of it"
        self.parts = self.other.parts
        self.weights = [share * weight for weight in self.other.weights]
        self.evaluation = blended(sources, [share, 1 - share])


@dataclass
class MeanOfTwo(Candidate):
    """The mean of two other candidates.

    Attributes:
        first, second: the candidates.
    """

    first: Candidate
    second: Candidate

    def prepare(self, comparison: Comparison, seconds: float) -> None:
        both = (self.first, self.second)
        self.evaluation = blended([one.scored for one in both], [0.5, 0.5])
        for one in both:
            self.parts = [*self.parts, *one.parts]
            self.weights = [*self.weights, *[0.5 * weight for weight in one.weights]]


@dataclass
class Classical(Candidate):
    """A classical filter, tuned on the pixels that decide.

    Attributes:
        filter_name: see metrics.classical.
        sigma: of the noise, in units of `limits`.
        limits: the stored value that is 0 for the filter, and the distance from there to 1.
        channels: that are filtered together.
        dims: spatial axes, 2, or 3 of volumes.
    """

    filter_name: str
    sigma: float
    limits: tuple[float, float]
    channels: int
    dims: int = 2

    def prepare(self, comparison: Comparison, seconds: float) -> None:
        kind = classical.filters_of(self.dims, self.sigma)[self.filter_name]
        budget = Budget(seconds)
        lowest = math.inf
        last = kind.values[-1]
        for value in kind.values:
            choice = FilterChoice(self.filter_name, value, self.sigma, *self.limits, self.dims)
            model = filter_denoiser(choice, self.channels)
            evaluation = comparison.evaluate(partial(model.denoise, axes=comparison.axes))
            error = comparison.error(evaluation)
            if error >= lowest:  # the values rise, and so does the error beyond the best one
                break
            lowest = error
            self.name = f"{self.filter_name}, {kind.parameter} {value:g}"
            self.parts = [Part(model, choice)]
            self.evaluation = evaluation
            if not budget.left and value != last:
                self.reason = f"its parameter is tuned by the estimate, as far as {value:g} in time"
                break
        self.weights = [1.0]


@dataclass
class Trained(Candidate):
    """A network trained on one part of the pictures.

    Attributes:
        options: of `train`, in its grammar.
        folder: of its runs.
        images: the folder of what it is trained on.
        stages: runs that were finished, each from the weights of the one before.
    """

    options: tuple[str, ...]
    folder: Path
    images: Path
    stages: int = 0

    @property
    def run(self) -> Path:
        """The folder of the next run."""
        return self.folder / f"stage_{self.stages}"

    def prepare(self, comparison: Comparison, seconds: float) -> None:
        run = self.run
        overrides = [*self.options, f"data.noisy={self.images}", *_limited(seconds)]
        if self.stages:
            weights = self.folder / f"stage_{self.stages - 1}"
            kept = [one for one in overrides if not one.startswith(("init=", "model"))]
            overrides = [*kept, f"init={weights}", f"seed={self.stages}"]
        if read_result(run).get("status") != "finished":
            _train_run(overrides, run)
        self.stages += 1
        trained = load(run, device="cpu")
        # arrays in files are read as they are read for all candidates
        info = replace(trained.info, layout=None)
        model = TrainedDenoiser(trained.network, trained.channels, info)
        evaluation = comparison.evaluate(partial(model.denoise, axes=comparison.axes))
        before = self.evaluation
        if before is not None and comparison.error(before) <= comparison.error(evaluation):
            return
        self.evaluation = evaluation
        self.parts = [Part(model, run)]
        self.weights = [1.0]


def _limited(seconds: float) -> list[str]:
    """Return the options of a run that ends after so much processor time, without validation."""
    target = "_target_: n2n_lightning.selection.budget.BusyTimer"
    timer = f"{{{target}, seconds: {seconds:.3f}}}"
    return [
        "scheduler=cosine",
        "data.val_share=0",
        "trainer.max_epochs=null",
        "trainer.max_time=99:00:00:00",
        f"+callbacks.busy={timer}",
    ]


def _train_run(overrides: list[str], folder: Path) -> None:
    """Train a run, or go on with it, without a word on the terminal."""
    config = override_syntax.compose_config(overrides)
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        start(config, folder, overrides, lines=True)


def of_checkpoint(data: DataSet) -> list[Candidate]:
    """Return the candidates that need no training: bundled checkpoints, and their mixes.

    Args:
        data: the pictures, movies or volumes. Of movies the first one is the checkpoint for them.
    """
    if "T" in data.axes:
        movie = Bundled(
            "bundled checkpoint for movies", "sees the frames around each", BUNDLED, "movie"
        )
        alone = Bundled(
            "bundled checkpoint, frame by frame", "the noise of a frame is known to it", BUNDLED
        )
        return [movie, _mixed(movie), alone, _mixed(alone)]
    name = "bundled checkpoint"
    if "D" in data.axes:
        name = "bundled checkpoint, plane by plane"
    bundled = Bundled(name, "knows many kinds of noise", BUNDLED)
    return [bundled, _mixed(bundled)]


def _mixed(other: Candidate) -> Mixed:
    """Return a candidate mixed with the input."""
    reason = "the least error of all mixes is computed"
    return Mixed(f"{other.name} mixed with the input", reason, MIXED, other)


def of_filters(data: DataSet, sigma: float) -> list[Candidate]:
    """Return the classical filters: in the plane, of volumes also in space.

    Args:
        data: the pictures, movies or volumes.
        sigma: deviation of their noise, in stored units.
    """
    limits = data.stats.limits
    if limits is None or not sigma > 0:
        return []
    normalized = sigma / limits[1]
    candidates: list[Candidate] = []
    for dims in (2, 3) if "D" in data.axes else (2,):
        for name in classical.filters_of(dims, normalized):
            reason = "its parameter is tuned by the estimate"
            one = Classical(name, reason, CLASSICAL, name, normalized, limits, data.channels, dims)
            candidates.append(one)
    return candidates


def of_training(data: DataSet, folder: Path) -> list[Trained]:
    """Return the networks that can be trained on the data, each with its reason.

    Args:
        data: the pictures, movies or volumes.
        folder: for their runs; `folder/images` has what they are trained on.
    """
    if not data.can_be_split():
        return []
    candidates: list[Trained] = []
    for method in _methods(data):
        tuned = ("fine-tuned", TUNED, (*method.options, *method.warm))
        anew = ("trained anew", ANEW, (*method.options_anew, *method.network))
        for kind, rank, options in (tuned, anew):
            name = f"{kind} {method.name}"
            place = folder / name.replace(" ", "_").replace(",", "")
            one = Trained(name, method.reason, rank, options, place, folder / "images")
            candidates.append(one)
    return candidates


@dataclass(frozen=True)
class Method:
    """A way to make input and target.

    Attributes:
        name: behind "trained".
        reason: why it fits.
        options: of `train`, to fine-tune.
        other: to train anew; None: the same ones.
        warm: what is fine-tuned, and how fast.
        network: that is trained anew.
    """

    name: str
    reason: str
    options: tuple[str, ...]
    other: tuple[str, ...] | None = None
    warm: tuple[str, ...] = WARM
    network: tuple[str, ...] = SMALL_NETWORK

    @property
    def options_anew(self) -> tuple[str, ...]:
        """Options of `train`, to train anew."""
        return self.options if self.other is None else self.other


def _methods(data: DataSet) -> list[Method]:
    """Return the ways to make input and target that the noise allows."""
    if data.paired:
        fewest, most = data.fewest_and_most_captures
        reason = f"each scene has {fewest} captures or more"
        if fewest == most:
            reason = f"each scene has {fewest} captures"
        return [_method(data, "on pairs", reason, "pairs")]
    if isinstance(data, StackSet) and data.letter == "T":
        return [_method_of_movies()]
    if data.report.counts:
        reason = "the values are photon counts: their variance is their mean"
        return [_method(data, "on halves of the counts", reason, "single", "data.method=thinned")]
    noises = list(data.measured_noises.values())
    correlated = [noise for noise in noises if noise.white is False]
    across = data.across
    if 2 * len(correlated) <= len(noises) and not across:
        reason = "the noise of neighbouring pixels is independent"
        if correlated:
            reason += f" in {len(noises) - len(correlated)} of {len(noises)} {data.things}"
        masked = ("data.method=masked", "data.mask=[1,1]")
        return [
            _method(data, "by neighbours", reason, "single", "data.method=neighbours"),
            _method(data, "by masks", reason, "single", *masked),
        ]
    choice = mask_of_images(noises, across)
    if choice.too_large:
        return []
    name = f"by masks of {choice.mask.pixels} pixels"
    masked = ("data.method=masked", f"data.mask={choice.mask.text}")
    return [_method(data, name, choice.reason, "single", *masked)]


def _method(data: DataSet, name: str, reason: str, source: str, *options: str) -> Method:
    """Return a method of a source of data: for volumes plane by plane, or anew in space."""
    captures = "K" if source == "pairs" else ""
    of_data = (f"data={source}", *options)
    if not isinstance(data, StackSet):
        return Method(name, reason, (*of_data, f"data.layout={captures}CHW"))
    planes = (*of_data, f"data.layout={captures}NHW")
    if data.letter == "T":
        return Method(f"{name}, frame by frame", reason, planes)
    depth = min(VOLUME_WINDOW[0], data.depth // 4 * 4)
    window = (depth, *VOLUME_WINDOW[1:])
    crop = ",".join(map(str, window))
    space = (*of_data, f"data.layout={captures}DHW", f"data.crop=[{crop}]")
    return Method(name, reason, planes, space, network=SMALL_VOLUME_NETWORK)


def _method_of_movies() -> Method:
    """Return the method of movies: pixels of a frame are hidden, and learnt from those around."""
    reason = "the noise of different frames is independent"
    warm = (f"init={MOVIE}", *WARM_RATE)
    return Method("on frames", reason, ("data=movie", "data.layout=THW"), warm=warm)


def prepare_within(candidate: Candidate, comparison: Comparison, seconds: float) -> str:
    """Prepare a candidate.

    Args:
        candidate: it is changed.
        comparison: of all candidates.
        seconds: that it may take.

    Returns:
        Why it is out of the question; empty where it is not.
    """
    budget = Budget(seconds)
    try:
        candidate.prepare(comparison, seconds)
    except (ValueError, ArithmeticError, Diverged) as error:
        return one_line(error, 150)
    candidate.seconds += budget.spent
    return ""


def names_of(candidates: Sequence[Candidate]) -> str:
    """Return the names of candidates, for a line; a name may hold commas."""
    return "; ".join(candidate.name for candidate in candidates)


def evaluated(candidates: Sequence[Any]) -> list[Any]:
    """Return the candidates that were evaluated."""
    return [candidate for candidate in candidates if candidate.evaluation is not None]
