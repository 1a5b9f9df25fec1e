"""The search: what is tried, in which order, for how long, and which candidate is chosen."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2n_lightning.files import json_text, replacing
from n2n_lightning.metrics.noisy_reference import MIN_ROWS
from n2n_lightning.selection import candidates as ways
from n2n_lightning.selection.budget import Budget
from n2n_lightning.selection.candidates import (
    Candidate,
    Mixed,
    Trained,
    evaluated,
    names_of,
    prepare_within,
)
from n2n_lightning.selection.choice import Choice, without_comparison
from n2n_lightning.selection.comparison import FLASH_RADIUS, FLASH_STRENGTH, Comparison
from n2n_lightning.selection.data_set import DataSet

FIRST_SHARE = 0.25  # of the budget, after which two candidates go on
SURVIVORS = 2
LEAST_TRAINING = 8.0  # seconds: less teaches nothing
SLACK = 1.1  # times the measured time that denoising all files may take
# A candidate may lose as much more of a planted flash than the bundled checkpoint: its own test
# allows an event of one frame to lose 5% (tests/test_movie_checkpoint.py).
FLASH_TOLERANCE = 0.05

Say = Callable[[str], Any]


@dataclass
class Progress:
    """What a search has done, stored after each step, so that it can be continued.

    Attributes:
        path: of the file.
        data: digest of the pictures; runs of other ones are none of this search.
        spent: seconds of processor time.
        seconds: that each training run may take, by its name.
    """

    path: Path
    data: str
    spent: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, data: str) -> "Progress":
        """Read it; where it is missing, damaged or of other pictures, nothing was done.

        Args:
            path: of the file. What is in its folder is removed if it belongs to other pictures.
            data: digest of the pictures.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["data"] == data:
                return cls(path, data, float(stored["spent"]), dict(stored["seconds"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(path.parent, ignore_errors=True)
        return cls(path, data)

    def store(self, spent: float) -> None:
        """Write it.

        Args:
            spent: seconds until now.
        """
        self.spent = spent
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            content = {"data": self.data, "spent": spent, "seconds": self.seconds}
            temporary.write_text(json_text(content), encoding="utf-8")

    def seconds_of(self, name: str, seconds: float) -> float:
        """Return the seconds that were planned for a run; `seconds` where none were yet."""
        return self.seconds.setdefault(name, seconds)


def search(data: DataSet, minutes: float, folder: Path, say: Say = print) -> Choice:
    """Search the best way to denoise a data set within a budget.

    Args:
        data: the pictures.
        minutes: of processor time.
        folder: for runs and progress; what an interrupted search left there is used.
        say: takes a line.

    Returns:
        The choice.

    Raises:
        Interrupted: a signal ended it; the same call continues.
    """
    progress = Progress.of(folder / "progress.json", data.fingerprint())
    budget = Budget(60 * minutes, progress.spent)
    say(f"{data.kind}: {data.pixels:,} pixels; {noise_line(data)}")
    reason = data.unmeasurable()
    if reason:
        return _bundled_because(reason, data, say)
    comparison = Comparison(data.scored_parts(minutes), data.stats.white, data.axes)
    blocks = comparison.fewest_blocks
    if blocks < MIN_ROWS:
        side = comparison.side
        reason = f"{blocks} blocks of {side} x {side} known pixels to decide by, not {MIN_ROWS}"
        return _bundled_because(reason, data, say)
    try:
        return _CandidateSearch(data, comparison, budget, folder, progress, say).run()
    finally:
        progress.store(budget.spent)


def _bundled_because(reason: str, data: DataSet, say: Say) -> Choice:
    """Return the choice of the bundled checkpoint where candidates cannot be compared."""
    why = f"no error can be estimated: {reason}"
    name = "movie" if "T" in data.axes else "bundled"
    choice = without_comparison(data.kind, name, data.channels, why)
    say(choice.lines[0])
    return choice


def noise_line(data: DataSet) -> str:
    """Return what is known of the noise, in words."""
    if data.paired:
        return "scored by pairs of captures"
    noises = list(data.measured_noises.values())
    if not noises:
        return "noise not measurable"
    sigma = sum(noise.sigma for noise in noises) / len(noises)
    correlated = [noise.kind for noise in noises if noise.white is False]
    kind = "independent from pixel to pixel"
    agreeing = len(noises) - len(correlated)
    if 2 * len(correlated) > len(noises):
        most_common = max(set(correlated), key=correlated.count)
        agreeing = correlated.count(most_common)
        kind = f"correlated {most_common}"
    if agreeing < len(noises):
        kind = f"{kind} in {agreeing} of them"
    if data.across:
        kind = f"{kind}, and across planes ({data.across[0]:.2f})"
    return f"noise of sigma {sigma:.3g}, measured in {len(noises)} {data.things}, {kind}"


class _CandidateSearch:
    """The steps of a search, see `search`."""

    def __init__(
        self,
        data: DataSet,
        comparison: Comparison,
        budget: Budget,
        folder: Path,
        progress: Progress,
        say: Say,
    ) -> None:
        self.data = data
        self.comparison = comparison
        self.budget = budget
        self.folder = folder
        self.progress = progress
        self.say = say
        self.left_out: list[str] = []
        self.reserve = 0.0
        self.lost = 0.0  # share of planted flashes: what keeps less is refused

    def run(self) -> Choice:
        """Search, and return the choice."""
        checkpoint = ways.of_checkpoint(self.data)
        bundled = checkpoint[0]
        for candidate in checkpoint:
            self._prepare(candidate, self.budget.left)
        self.lost = bundled.scored.kept - FLASH_TOLERANCE
        noisy = self.comparison.error(self.comparison.of_input())
        sigma = max(noisy, 0.0) ** 0.5
        filters = ways.of_filters(self.data, sigma)
        trained = ways.of_training(self.data, self.folder)
        self._print_plan([*checkpoint, *filters, *trained])
        for candidate in filters:
            self._prepare(candidate, ways.FILTER_SHARE * self.budget.seconds)
            self._leave_out_if_slow(candidate)
        self.reserve = self._seconds_for_all(self._slowest([*checkpoint, *filters]))
        begun = any(one.run.exists() for one in trained)
        if begun or self.budget.allows(self.reserve + LEAST_TRAINING):
            self._train(trained, bundled.seconds)
        else:
            self._leave_out(trained)
        tried = evaluated([*checkpoint, *filters, *trained])
        sources = []
        for one in evaluated([*checkpoint, *filters, *trained]):
            if not isinstance(one, Mixed) and not one.refused:
                sources.append(one)
        if len(sources) > 1:
            tried.append(self._mean_of_best(sources))
        winner, why = choose(tried, self.comparison)
        return self._choice(tried, winner, why)

    def _prepare(self, candidate: Candidate, seconds: float) -> None:
        """Prepare a candidate; remember why it is left out if it cannot be."""
        reason = prepare_within(candidate, self.comparison, seconds)
        if reason:
            self.left_out.append(f"{candidate.name}: {reason}")
        elif candidate.evaluation is not None and candidate.scored.kept < self.lost:
            kept = candidate.scored.kept
            candidate.refused = f"keeps {kept:.0%} of a planted flash of one frame"
        self.progress.store(self.budget.spent)

    def _seconds_for_all(self, rate: float) -> float:
        """Return the seconds that denoising all files takes at a rate, with some slack."""
        return SLACK * rate * self.data.pixels

    def _leave_out_if_slow(self, candidate: Candidate) -> None:
        """Leave out a filter that could not denoise all files in the time that is left."""
        if candidate.evaluation is None:
            return
        needed = self._seconds_for_all(candidate.scored.rate)
        if not self.budget.allows(needed):
            self.left_out.append(f"{candidate.name}: would take {needed:.0f} s for all files")
            candidate.evaluation = None

    def _slowest(self, candidates: Sequence[Candidate]) -> float:
        """Return the seconds for a pixel of the slowest mean of two, one of them the checkpoint."""
        rates = [one.scored.rate for one in evaluated(candidates)]
        return candidates[0].scored.rate + max(rates)

    def _print_plan(self, planned: Sequence[Candidate]) -> None:
        minutes = self.budget.seconds / 60
        self.say(f"plan, {minutes:g} minutes of processor time: {names_of(planned)}")
        said = set()
        for candidate in planned:
            if isinstance(candidate, Trained) and candidate.reason not in said:
                said.add(candidate.reason)
                self.say(f"trained, because {candidate.reason}")

    def _leave_out(self, trained: Sequence[Candidate]) -> None:
        self.left_out += [f"{candidate.name}: no time" for candidate in trained]

    def _train(self, trained: Sequence[Trained], scoring: float) -> None:
        """Train all candidates for a share of the budget, and the two best for what is left.

        Args:
            trained: the candidates.
            scoring: seconds that the evaluation of one takes.
        """
        if not trained:
            return
        self.data.save_trained(self.folder / "images")
        first = FIRST_SHARE * self.budget.seconds - self.budget.spent
        each = max(LEAST_TRAINING, first / len(trained) - scoring)
        each = self.progress.seconds_of("first", each)
        self._stage(trained, each, scoring)
        finished = sorted(evaluated(trained), key=lambda one: (bool(one.refused), self._error(one)))
        survivors = finished[:SURVIVORS]
        if not survivors:
            return
        rest = (self.budget.left - self.reserve) / len(survivors) - scoring
        rest = self.progress.seconds_of("rest", rest)
        if rest >= LEAST_TRAINING:
            self.say(f"for {rest:.0f} s more each: {names_of(survivors)}")
            self._stage(survivors, rest, scoring)

    def _stage(self, trained: Sequence[Trained], seconds: float, scoring: float) -> None:
        """Train candidates for so long each, as far as the budget allows.

        A run that was begun had its time: what an interruption cost beyond that is not taken
        from it.
        """
        for candidate in trained:
            ends = self.budget.allows(seconds + scoring + self.reserve)
            if not ends and not candidate.run.exists():
                if candidate.evaluation is None:
                    self._leave_out([candidate])
                continue
            self._prepare(candidate, seconds)

    def _error(self, candidate: Candidate) -> float:
        return self.comparison.error(candidate.scored)

    def _mean_of_best(self, tried: Sequence[Candidate]) -> Candidate:
        """Return the mean of the two best candidates."""
        first, second, *_ = sorted(tried, key=self._error)
        reason = "errors of different kinds average out"
        mean = ways.MeanOfTwo("mean of both", reason, ways.MEAN_OF_TWO, first, second)
        mean.name = f"mean of {first.name} and {second.name}"
        mean.prepare(self.comparison, self.budget.left)
        return mean

    def _choice(self, tried: Sequence[Candidate], winner: Candidate, why: str) -> Choice:
        """Return the choice with its lines and its table."""
        comparison = self.comparison
        table = []
        for candidate in tried:
            difference = comparison.difference(candidate.scored, tried[0].scored)
            row = {
                "candidate": candidate.name,
                "psnr_estimate": comparison.psnr(self._error(candidate)),
                "error": self._error(candidate),
                "less_than_checkpoint": difference.mean,
                "interval": [difference.low, difference.high],
                "seconds": round(candidate.seconds, 1),
                "chosen": candidate is winner,
                "reason": candidate.reason,
                "refused": candidate.refused,
            }
            if self.comparison.flashes:
                row["flash_kept"] = candidate.scored.kept
            table.append(row)
        refused = [f"{one.name}: {one.refused}" for one in tried if one.refused]
        left_out = [*self.left_out, *refused]
        lines = [
            f"tried: {names_of(tried)}",
            f"left out: {'; '.join(left_out) or 'nothing'}",
            f"scored: {self._scores(tried)}",
            f"chosen: {winner.name}; {why}",
            self._reported(winner, tried[0]),
        ]
        if comparison.flashes:
            lines.append(flash_line(winner.scored.kept, tried[0].scored.kept))
        for line in lines:
            self.say(line)
        chosen = Choice(
            self.data.kind,
            winner.name,
            why,
            winner.parts,
            winner.weights,
            self.data.channels,
            lines,
            table,
        )
        return chosen

    def _scores(self, tried: Sequence[Candidate]) -> str:
        """Return the scores of all candidates on the pixels that decide, best first."""
        scores = []
        for candidate in sorted(tried, key=self._error):
            scores.append(
                f"{candidate.name} {_psnr_in_words(self.comparison, self._error(candidate))}"
            )
        return "; ".join(scores)

    def _reported(self, winner: Candidate, bundled: Candidate) -> str:
        """Return the score of the winner on the pixels that did not decide."""
        comparison = self.comparison
        score = _psnr_in_words(comparison, comparison.error(winner.scored, deciding=False))
        low, high = comparison.interval(winner.scored)
        before = _psnr_in_words(comparison, comparison.error(bundled.scored, deciding=False))
        worst = _psnr_in_words(comparison, high)
        best = comparison.psnr(low)
        upwards = "or more" if best is None else f"to {best:.2f} dB"
        return (
            f"on the other half of the pixels: {score} ({worst} {upwards}),"
            f" the bundled checkpoint {before}"
        )


def _psnr_in_words(comparison: Comparison, error: float) -> str:
    """Return an error as PSNR, in words."""
    psnr = comparison.psnr(error)
    return "not measurable" if psnr is None else f"{psnr:.2f} dB"


def flash_line(kept: float, of_checkpoint: float) -> str:
    """Return what becomes of planted flashes, in words.

    Args:
        kept: the share that the choice keeps.
        of_checkpoint: that the bundled checkpoint for movies keeps.
    """
    return (
        f"of planted flashes of one frame, {2 * FLASH_RADIUS:.0f} pixels wide and"
        f" {FLASH_STRENGTH:g} deviations of the noise bright, {kept:.0%} are left,"
        f" {of_checkpoint:.0%} by the bundled checkpoint"
    )


def choose(tried: Sequence[Candidate], comparison: Comparison) -> tuple[Candidate, str]:
    """Choose a candidate: the simplest of those that cannot be told apart from the best.

    The bundled checkpoint is kept unless another one is certainly better.

    Args:
        tried: evaluated candidates, the bundled checkpoint first.
        comparison: of them.

    Returns:
        The candidate, and why.
    """
    bundled = tried[0]
    better = []
    for candidate in tried[1:]:
        if not candidate.refused and comparison.difference(candidate.scored, bundled.scored).lower:
            better.append(candidate)
    if not better:
        return bundled, "no other one is certainly better"
    best = min(better, key=lambda one: comparison.error(one.scored))
    alike = []
    for candidate in better:
        if not comparison.difference(best.scored, candidate.scored).lower:
            alike.append(candidate)
    simplest = min(one.rank for one in alike)
    simple = [one for one in alike if one.rank == simplest]
    winner = min(simple, key=lambda one: comparison.error(one.scored))
    if winner is not best:
        return winner, f"it cannot be told apart from {best.name}, and is simpler"
    return winner, "it has the least error of those that are certainly better than the checkpoint"
