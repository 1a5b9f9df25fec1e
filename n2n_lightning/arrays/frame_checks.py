"""Frames of a movie or stack that are no frames of it: dead ones, copies, and several channels that take turns."""

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from n2n_lightning.arrays.axes import around, evenly
from n2n_lightning.arrays.axes import frames as around_frames
from n2n_lightning.files import option, some_of

# rows are looked at in bands of BLOCK; up to so many bands and pixels of a row
BANDS, BLOCK, WIDEST = 6, 8, 512
# pixels that differ from the most frequent value; with fewer, equal frames may be chance
INFORMATIVE = 20
LONGEST_TURN = 4  # channels that may take turns
DISTINCT = 4.0  # how much more frames of different channels differ than those of one


@dataclass(frozen=True)
class FrameReview:
    """What was found in the frames of one movie or stack, numbered from 0.

    Attributes:
        count: all frames.
        dead: frames that show nothing, each with the reason in words.
        copies: frames with the values of an earlier one, each with the number of that one.
        period: how many channels take turns, frame by frame; 1: there is one.
        alternation: by which share of the mean value every second frame is brighter or darker; 0:
            it does not.
    """

    count: int
    dead: dict[int, str] = field(default_factory=dict)
    copies: dict[int, int] = field(default_factory=dict)
    period: int = 1
    alternation: float = 0.0

    @cached_property
    def live(self) -> list[int]:
        """The frames that are neither dead nor copies."""
        return [t for t in range(self.count) if t not in self.dead and t not in self.copies]

    def neighbours(self, frame: int, context: int) -> list[int]:
        """The frames that a network is shown in place of one: the nearest live ones before and after it.

        Args:
            frame: the number of the frame; of a copy those of its original are given.
            context: how many on either side.

        >>> FrameReview(7, {2: "every pixel 0"}, {5: 4}).neighbours(3, 1)
        [1, 4]
        """
        live = self.live
        here = bisect.bisect_left(live, self.copies.get(frame, frame))
        return [live[around(here, k, len(live))] for k in around_frames(context)]

    def lines(self, name: str, labels: Sequence[str] | None = None) -> list[str]:
        """What was left out, in words, a line for each reason.

        Args:
            name: of the movie.
            labels: names of the frames, where they have some.

        >>> FrameReview(24, {5: "every pixel 0", 12: "every pixel 0"}, {3: 2}).lines("a.tif")
        ['frames 5, 12 of a.tif (every pixel 0)', 'frame 3 of a.tif (a copy of the frame before)']
        """
        reasons: dict[str, list[int]] = {}
        for t, reason in self.dead.items():
            reasons.setdefault(reason, []).append(t)
        for t, first in self.copies.items():
            near = "a copy of the frame before" if first == t - 1 else "a copy of an earlier frame"
            reasons.setdefault(near, []).append(t)
        return [
            f"{shown_numbers(frames, labels)} of {name} ({reason})"
            for reason, frames in reasons.items()
        ]

    def turns(self, name: str, choice: str = "") -> str | None:
        """What to do about channels that take turns, in words; None where there is one channel.

        Args:
            name: of the movie; empty where it is said already.
            choice: how frames are chosen, with {} for them; empty: by `data.frames=`.
        """
        if self.period < 2:
            return None
        choice = choice or option("data.frames", "{}")
        names = {2: "two", 3: "three", 4: "four"}
        every = f"every {({2: 'second', 3: 'third', 4: 'fourth'})[self.period]}"
        choices = " or ".join(choice.format(f"{k}::{self.period}") for k in range(self.period))
        head = f"{name}: " if name else ""
        return (
            f"{head}{names[self.period]} channels in turn ({every} frame is alike, neighbouring"
            f" ones are not); choose one by its frames: {choices}"
        )

    def brightness(self, name: str) -> str | None:
        """A line about brightness that alternates from frame to frame; None where it does not."""
        if not self.alternation:
            return None
        share = f"{100 * self.alternation:.1f}%"
        return f"{name}: every second frame is brighter by {share} of the mean value; the result has the mean of both"


def shown_numbers(
    frames: Sequence[int], labels: Sequence[str] | None = None, most: int = 12
) -> str:
    """Frames in words, by their numbers or their names.

    >>> shown_numbers([5, 12, 13]), shown_numbers([7]), shown_numbers(range(100), most=3)
    ('frames 5, 12, 13', 'frame 7', 'frames 0, 1, 2 and 97 more')
    """
    some = some_of([str(t) if labels is None else labels[t] for t in frames], most)
    return some if labels else f"frame{'s'[: len(frames) > 1]} {some}"


@dataclass(frozen=True)
class _Sample:
    """Some rows of a frame.

    Attributes:
        values: (C, rows, columns), as stored, every fourth column.
        blocks: means over blocks of 8 x 8 pixels, (C, n).
        mode, share: the most frequent value, and of how many of the pixels; NaN counts as a value.
        high: the highest finite value.
        digest: of the values.
    """

    values: np.ndarray
    blocks: np.ndarray
    mode: float
    share: float
    high: float
    digest: bytes


def review(frames: Sequence[np.ndarray] | np.ndarray, movie: bool = True) -> FrameReview:
    """Find the frames that are dead or copies, and channels that take turns.

    Dead are frames of one value, almost of one value (a tenth or less of what differs in the other
    frames), saturated in half of their pixels or more, and, in a movie, those without the scene of
    the others at quite another brightness. Some rows of each frame are read; where these are
    suspicious, all of it.

    Args:
        frames: (C, H, W) or (C, D, H, W) each, of one size, in order.
        movie: they show one scene; otherwise only frames of (almost) one value and saturated ones
            are searched for.

    >>> draws = np.random.default_rng(0)
    >>> frames = 100 + np.cumsum(draws.normal(size=(1, 40, 40)), 2) + draws.normal(size=(9, 1, 40, 40))
    >>> frames[4] = 0
    >>> review(frames).dead
    {4: 'every pixel 0'}
    """
    samples = [_sample(frame) for frame in frames]
    if len(samples) < 3:
        return FrameReview(len(samples))
    dead = _dead(frames, samples)
    if not movie:
        return FrameReview(len(samples), dead)
    dead |= _blank(samples, dead)
    dead = dict(sorted(dead.items()))
    copies = _copies(frames, samples, dead)
    kept = [sample.blocks for t, sample in enumerate(samples) if t not in dead and t not in copies]
    period, alternation = _turns(kept)
    return FrameReview(len(samples), dead, copies, period, alternation)


def _sample(frame: np.ndarray) -> _Sample:
    """Bands of rows of a frame, from the first to the last one, and what is reckoned of them."""
    _, *others, height, width = frame.shape
    if others:  # of a volume the plane in the middle
        frame = frame[:, others[0] // 2]
    starts = evenly(max(1, height - BLOCK + 1), BANDS)
    left = max(0, width - WIDEST) // 2
    bands = [np.asarray(frame[:, s : s + BLOCK, left : left + WIDEST]) for s in starts]
    values = np.concatenate(bands, 1)
    blocks = []
    for band in bands:
        rows = _rows(band)
        edges = np.arange(0, max(1, rows.shape[1] - BLOCK // 2), BLOCK)
        counts = np.diff([*edges, rows.shape[1]])
        blocks.append(np.add.reduceat(rows, edges, axis=1) / counts)
    digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes()).digest()
    values = values[..., ::4].copy()  # of many frames
    found, counts = np.unique(values, return_counts=True)
    best, known = int(np.argmax(counts)), values[np.isfinite(values)]
    return _Sample(
        values,
        np.concatenate(blocks, 1),
        float(found[best]),
        float(counts[best] / counts.sum()),
        float(known.max()) if known.size else -np.inf,
        digest,
    )


def _rows(band: np.ndarray) -> np.ndarray:
    """Means over the rows of a band, (C, columns); 0 where all pixels are missing."""
    if band.dtype.kind != "f":
        means: np.ndarray = band.mean(1, dtype=np.float64)
        return means
    known = np.isfinite(band)
    sums = np.where(known, band, 0).sum(1, dtype=np.float64)
    return np.asarray(sums / np.maximum(known.sum(1), 1))


def _dead(frames: Sequence[np.ndarray] | np.ndarray, samples: Sequence[_Sample]) -> dict[int, str]:
    """Frames of one value, almost one value, or mostly saturated."""
    differing = np.array([(1 - s.share) * s.values.size for s in samples])
    typical = float(np.median(differing))
    if typical < INFORMATIVE:  # so few photons that an empty frame is nothing special
        return {}
    top = max(s.high for s in samples)
    at_top = np.array([float((s.values == top).mean()) for s in samples])
    found = {}
    for t, sample in enumerate(samples):
        if differing[t] <= 0.1 * typical:
            whole = np.asarray(frames[t])
            same = ~np.isfinite(whole) if np.isnan(sample.mode) else whole == sample.mode
            share = float(same.mean())
            value = "missing" if np.isnan(sample.mode) else f"{sample.mode:g}"
            if share == 1:
                found[t] = f"every pixel {value}"
            elif 1 - share <= 0.1 * typical / sample.values.size:
                found[t] = f"{100 * share:.4g}% of the pixels {value}"
        elif at_top[t] >= 0.5 and np.median(at_top) < 0.1:
            found[t] = f"{100 * at_top[t]:.0f}% of the pixels saturated, {top:g}"
    return found


def _blank(samples: Sequence[_Sample], dead: dict[int, str]) -> dict[int, str]:
    """Frames of noise alone, far from the brightness of the others: without what all others show."""
    alive = [t for t in range(len(samples)) if t not in dead]
    if len(alive) < 5:
        return {}
    blocks = np.stack([samples[t].blocks for t in alive])
    usual = np.median(blocks, 0)
    means, contrast = blocks.mean((1, 2)), float(_centred(usual).std())
    spreads = np.array([_centred(b).std() for b in blocks])
    alike = np.array([_correlation(b, usual) for b in blocks])
    middle = float(np.median(means))
    far = 6 * 1.4826 * float(np.median(np.abs(means - middle))) + 0.5 * contrast
    if not contrast or np.median(alike) < 0.6:
        return {}
    hidden = (alike < 0.3) & (spreads < 0.5 * np.median(spreads)) & (np.abs(means - middle) > far)
    return {
        t: f"blank at a brightness of {mean:.4g}, the others have {middle:.4g}"
        for t, mean, gone in zip(alive, means, hidden, strict=True)
        if gone
    }


def _centred(blocks: np.ndarray) -> np.ndarray:
    centred: np.ndarray = blocks - blocks.mean(1, keepdims=True)
    return centred


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of blocks (C, n), each channel without its mean."""
    a, b = _centred(one).ravel(), _centred(other).ravel()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


def _copies(
    frames: Sequence[np.ndarray] | np.ndarray, samples: Sequence[_Sample], dead: dict[int, str]
) -> dict[int, int]:
    """Frames with the values of an earlier one, or almost: what a lossy file makes of a copy."""
    found: dict[int, int] = {}
    first: dict[bytes, int] = {}
    alive = [t for t in range(len(samples)) if t not in dead]
    for t in alive:
        sample = samples[t]
        if (1 - sample.share) * sample.values.size < INFORMATIVE:
            continue
        before = first.setdefault(sample.digest, t)
        if before != t and np.array_equal(frames[before], frames[t]):
            found[t] = before
    near = [_distance(samples[a], samples[b]) for a, b in pairwise(alive)]
    far = [_distance(samples[a], samples[b]) for a, b in zip(alive, alive[2:], strict=False)]
    for i, (a, b) in enumerate(pairwise(alive)):
        around = far[max(0, i - 1) : i + 1]
        if around and b not in found and near[i] < 0.2 * min(around):
            found[b] = found.get(a, a)
    return dict(sorted(found.items()))


def _distance(one: _Sample, other: _Sample) -> float:
    """Root mean square of the difference of two frames, over the pixels that both have."""
    difference = one.values.astype(np.float32) - other.values.astype(np.float32)
    known = difference[np.isfinite(difference)]
    return float(np.sqrt(np.mean(known**2))) if known.size else 0.0


def _turns(blocks: Sequence[np.ndarray]) -> tuple[int, float]:
    """How many channels take turns, and by which share of the mean value two sorts of frames alternate."""
    if len(blocks) < 6:
        return 1, 0.0
    stack = np.stack(blocks)
    plain = [(b - b.mean()) / max(float(b.std()), 1e-12) for b in stack]
    lags = range(1, min(LONGEST_TURN, len(blocks) // 2 - 1) + 1)
    apart = [
        np.array([np.mean((a - b) ** 2) for a, b in zip(plain, plain[k:], strict=False)])
        for k in lags
    ]
    beside = float(np.median([_correlation(a, b) for a, b in pairwise(stack)]))
    for k in lags[1:]:
        same, others = float(np.median(apart[k - 1])), [float(np.median(d)) for d in apart[: k - 1]]
        steady = float((apart[0] > 2 * same).mean())
        if min(others) > DISTINCT * same and beside < 0.8 and steady > 0.8 * (k - 1) / k:
            return k, 0.0
    return 1, _alternation(stack)


def _alternation(stack: np.ndarray) -> float:
    """By which share of the mean value every second frame is brighter; 0 where that is not so."""
    means = stack.mean((1, 2))
    one, two = np.diff(means), means[2:] - means[:-2]
    signs = np.sign(one) * (-1.0) ** np.arange(len(one))
    step = float(np.median(np.abs(one)))
    level = abs(float(np.median(means)))
    share = step / level if level else 0.0
    regular = abs(float(signs.mean())) > 0.9 and step > DISTINCT * float(np.median(np.abs(two)))
    return share if regular and share > 0.005 else 0.0
