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
from n2n_lightning.inference.checkpoint import PRETRAINED
from n2n_lightning.inference.denoiser import TrainedDenoiser, load
from n2n_lightning.metrics import classical
from n2n_lightning.runs.folder import read_result
from n2n_lightning.selection.blend import FilterChoice, filter_denoiser
from n2n_lightning.selection.budget import Budget
from n2n_lightning.selection.comparison import Comparison, Evaluation, blended
from n2n_lightning.selection.data_set import DataSet
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
WARM = ("init=pretrained", "optim.lr=0.0002", "trainer.gradient_clip_val=1.0")


@dataclass(frozen=True)
class Part:
    """A denoiser of a choice, and what restores it.

    Attributes:
        denoiser: the network or filter.
        source: `bundled`, the FilterChoice, or the checkpoint of a run.
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
    """

    name: str
    reason: str
    rank: int
    evaluation: Evaluation | None = field(default=None, kw_only=True)
    parts: list[Part] = field(default_factory=list, kw_only=True)
    weights: list[float] = field(default_factory=list, kw_only=True)
    seconds: float = field(default=0.0, kw_only=True)

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
    """The bundled checkpoint as it is."""

    def prepare(self, comparison: Comparison, seconds: float) -> None:
        model = load(PRETRAINED, device="cpu")
        self.parts = [Part(model, "bundled")]
        self.weights = [1.0]
        self.evaluation = comparison.evaluate(partial(model.denoise, axes="CHW"))


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
    """

    filter_name: str
    sigma: float
    limits: tuple[float, float]
    channels: int

    def prepare(self, comparison: Comparison, seconds: float) -> None:
        kind = classical.filters(self.sigma)[self.filter_name]
        budget = Budget(seconds)
        lowest = math.inf
        for value in kind.values:
            choice = FilterChoice(self.filter_name, value, self.sigma, *self.limits)
            model = filter_denoiser(choice, self.channels)
            evaluation = comparison.evaluate(partial(model.denoise, axes="CHW"))
            error = comparison.error(evaluation)
            if error >= lowest:  # the values rise, and so does the error beyond the best one
                break
            lowest = error
            self.name = f"{self.filter_name}, {kind.parameter} {value:g}"
            self.parts = [Part(model, choice)]
            self.evaluation = evaluation
            if not budget.left:
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
        evaluation = comparison.evaluate(partial(model.denoise, axes="CHW"))
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


def of_checkpoint() -> list[Candidate]:
    """Return the candidates that need no training: the bundled checkpoint, and its mix."""
    bundled = Bundled("bundled checkpoint", "knows many kinds of noise", BUNDLED)
    mixed = Mixed(
        "bundled checkpoint mixed with the input",
        "the least error of all mixes is computed",
        MIXED,
        bundled,
    )
    return [bundled, mixed]


def of_filters(data: DataSet, sigma: float) -> list[Candidate]:
    """Return the classical filters.

    Args:
        data: the pictures.
        sigma: deviation of their noise, in stored units.
    """
    limits = data.stats.limits
    if limits is None or not sigma > 0:
        return []
    normalized = sigma / limits[1]
    candidates: list[Candidate] = []
    for name in classical.filters(normalized):
        reason = "its parameter is tuned by the estimate"
        one = Classical(name, reason, CLASSICAL, name, normalized, limits, data.channels)
        candidates.append(one)
    return candidates


def of_training(data: DataSet, folder: Path) -> list[Trained]:
    """Return the networks that can be trained on the pictures, each with its reason.

    Args:
        data: the pictures.
        folder: for their runs; `folder/images` has what they are trained on.
    """
    if not data.can_be_split():
        return []
    methods = _methods(data)
    candidates: list[Trained] = []
    for method in methods:
        for kind, options in (("fine-tuned", WARM), ("trained anew", SMALL_NETWORK)):
            rank = TUNED if kind == "fine-tuned" else ANEW
            name = f"{kind} {method.name}"
            place = folder / name.replace(" ", "_").replace(",", "")
            every = (*method.options, *options)
            one = Trained(name, method.reason, rank, every, place, folder / "images")
            candidates.append(one)
    return candidates


@dataclass(frozen=True)
class Method:
    """A way to make input and target.

    Attributes:
        name: behind "trained".
        reason: why it fits.
        options: of `train`.
    """

    name: str
    reason: str
    options: tuple[str, ...]


def _methods(data: DataSet) -> list[Method]:
    """Return the ways to make input and target that the noise allows."""
    if data.paired:
        fewest = min(data.scenes.counts_of_all)
        reason = f"each scene has {fewest} captures or more"
        if fewest == max(data.scenes.counts_of_all):
            reason = f"each scene has {fewest} captures"
        return [Method("on pairs", reason, ("data=pairs", "data.layout=KCHW"))]
    single = ("data=single", "data.layout=CHW")
    if data.report.counts:
        reason = "the values are photon counts: their variance is their mean"
        return [Method("on halves of the counts", reason, (*single, "data.method=thinned"))]
    noises = list(data.measured_noises.values())
    correlated = [noise for noise in noises if noise.white is False]
    if 2 * len(correlated) <= len(noises):
        reason = "the noise of neighbouring pixels is independent"
        if correlated:
            reason += f" in {len(noises) - len(correlated)} of {len(noises)} pictures"
        masked = (*single, "data.method=masked", "data.mask=[1,1]")
        return [
            Method("by neighbours", reason, (*single, "data.method=neighbours")),
            Method("by masks", reason, masked),
        ]
    choice = mask_of_images(noises)
    if choice.too_large:
        return []
    name = f"by masks of {choice.mask.pixels} pixels"
    options = (*single, "data.method=masked", f"data.mask={choice.mask.text}")
    return [Method(name, choice.reason, options)]


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
