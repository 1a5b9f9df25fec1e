"""Dead frames and copies in a movie or stack, and channels that alternate frame by frame."""

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from n2n_lightning.arrays.axes import evenly
from n2n_lightning.arrays.frame_offsets import around
from n2n_lightning.arrays.frame_offsets import frames as around_frames
from n2n_lightning.files import option, some_of

# Sampled of each frame: up to BANDS bands of BAND_HEIGHT rows, up to WIDEST pixels of each row.
Frames = Sequence[np.ndarray] | np.ndarray  # (C, H, W) or (C, D, H, W) each, of one size
BANDS = 6
BAND_HEIGHT = 8
WIDEST = 512
# pixels that differ from the most frequent value; with fewer, frames may be equal by chance
INFORMATIVE = 20
LONGEST_TURN = 4  # channels that may alternate
COUNTED = {
    2: ("two", "second"),
    3: ("three", "third"),
    4: ("four", "fourth"),
}
DISTINCT = 4.0  # ratio: frames of different channels differ more than those of one by this


@dataclass(frozen=True)
class FrameReview:
    """Findings in the frames of one movie or stack, numbered from 0.

    Attributes:
        count: all frames.
        dead: frames that show nothing, each with the reason in words.
        copies: frames with the values of an earlier one, each with the number of that one.
        period: number of channels that alternate frame by frame; 1: there is one.
        alternation: difference in brightness of every second frame, as a share of the mean value;
            0: there is none.
    """

    count: int
    dead: dict[int, str] = field(default_factory=dict)
    copies: dict[int, int] = field(default_factory=dict)
    period: int = 1
    alternation: float = 0.0

    @cached_property
    def live(self) -> list[int]:
        """Frames that are neither dead nor copies."""
        left_out = self.dead.keys() | self.copies.keys()
        return [t for t in range(self.count) if t not in left_out]

    def neighbours(self, frame: int, context: int, sees_middle: bool = False) -> list[int]:
        """Return the frames that a network is shown to predict one: the nearest live ones.

        Args:
            frame: the frame to predict; for a copy, the neighbours of its original are returned.
            context: number of frames before it, and after it.
            sees_middle: the network is shown the frame itself, too; of a copy its original.

        Returns:
            Numbers in order, as many as `frame_offsets.frames` has.

        >>> FrameReview(7, {2: "every pixel 0"}, {5: 4}).neighbours(3, 1)
        [1, 4]
        """
        live = self.live
        original = self.copies.get(frame, frame)
        place = bisect.bisect_left(live, original)
        neighbours = []
        for offset in around_frames(context, sees_middle):
            other = around(place, offset, len(live), sees_middle)
            neighbours.append(live[other])
        return neighbours

    def lines(self, name: str, labels: Sequence[str] | None = None) -> list[str]:
        """Describe the frames that are left out, in a line for each reason.

        Args:
            name: of the movie.
            labels: names of the frames, where they have some.

        Returns:
            Lines for people; none where all frames are live.

        >>> FrameReview(24, {5: "every pixel 0", 12: "every pixel 0"}, {3: 2}).lines("a.tif")
        ['frames 5, 12 of a.tif (every pixel 0)', 'frame 3 of a.tif (a copy of the frame before)']
        """
        reasons: dict[str, list[int]] = {}
        for t, reason in self.dead.items():
            reasons.setdefault(reason, []).append(t)
        for t, original in self.copies.items():
            place = "the frame before" if original == t - 1 else "an earlier frame"
            reasons.setdefault(f"a copy of {place}", []).append(t)
        lines = []
        for reason, frames in reasons.items():
            numbers = shown_numbers(frames, labels)
            lines.append(f"{numbers} of {name} ({reason})")
        return lines

    def turns(self, name: str, choice: str = "") -> str | None:
        """Return a line about channels that alternate, and how to choose one; None for one channel.

        Args:
            name: of the movie; empty where it is said already.
            choice: how frames are chosen, with {} for them; empty: by `data.frames=`.

        Returns:
            A line for people, with the choices.
        """
        if self.period < 2:
            return None
        choice = choice or option("data.frames", "{}")
        choices = []
        for start in range(self.period):
            frames = f"{start}::{self.period}"
            choices.append(choice.format(frames))
        listed = " or ".join(choices)
        number, ordinal = COUNTED[self.period]
        head = f"{name}: " if name else ""
        return (
            f"{head}{number} channels in turn (every {ordinal} frame is alike, neighbouring ones "
            f"are not); choose one by its frames: {listed}"
        )

    def brightness(self, name: str) -> str | None:
        """Return a line about brightness that alternates frame by frame; None if it does not."""
        if not self.alternation:
            return None
        percent = 100 * self.alternation
        return (
            f"{name}: every second frame is brighter by {percent:.1f}% of the mean value; "
            "the result has the mean of both"
        )


def shown_numbers(
    frames: Sequence[int],
    labels: Sequence[str] | None = None,
    most: int = 12,
) -> str:
    """List frames in words, by their numbers or their names.

    Args:
        frames: numbers.
        labels: names of all frames; None: numbers are listed.
        most: frames to list.

    Returns:
        A noun phrase.

    >>> shown_numbers([5, 12, 13]), shown_numbers([7]), shown_numbers(range(100), most=3)
    ('frames 5, 12, 13', 'frame 7', 'frames 0, 1, 2 and 97 more')
    """
    if labels:
        names = [labels[t] for t in frames]
        return some_of(names, most)
    numbers = some_of([str(t) for t in frames], most)
    noun = "frames" if len(frames) > 1 else "frame"
    return f"{noun} {numbers}"


@dataclass(frozen=True)
class _Sample:
    """Bands of rows of a frame.

    Attributes:
        values: (C, rows, columns), as stored, every fourth column.
        blocks: means over blocks of 8 x 8 pixels, (C, n).
        mode: the most frequent value; NaN counts as a value.
        share: of the values that are the mode.
        high: the highest finite value.
        digest: of the values of all columns.
    """

    values: np.ndarray
    blocks: np.ndarray
    mode: float
    share: float
    high: float
    digest: bytes

    @property
    def differing(self) -> float:
        """Number of values that differ from the most frequent one."""
        return (1 - self.share) * self.values.size


def review(frames: Frames, movie: bool = True) -> FrameReview:
    """Find dead frames, copies, and channels that alternate.

    A frame is dead if it has one value, or almost (at most a tenth of the pixels that usually
    differ), if half of its pixels or more are saturated, or, in a movie, if it lacks the scene of
    the others at another brightness. Some rows of each frame are read, and all rows where these are
    suspicious.

    Args:
        frames: (C, H, W) or (C, D, H, W) each, of one size, in order.
        movie: the frames show one scene; otherwise only frames of (almost) one value and saturated
            ones are searched for.

    Returns:
        The findings.

    >>> draws = np.random.default_rng(0)
    >>> scene = 100 + np.cumsum(draws.normal(size=(1, 40, 40)), 2)
    >>> frames = scene + draws.normal(size=(9, 1, 40, 40))
    >>> frames[4] = 0
    >>> review(frames).dead
    {4: 'every pixel 0'}
    """
    samples = [_sample(frame) for frame in frames]
    count = len(samples)
    if count < 3:
        return FrameReview(count)
    dead = _dead(frames, samples)
    if not movie:
        return FrameReview(count, dead)
    dead |= _blank(samples, dead)
    dead = dict(sorted(dead.items()))
    copies = _copies(frames, samples, dead)
    frame_review = FrameReview(count, dead, copies)
    blocks = [samples[t].blocks for t in frame_review.live]
    period = _period(blocks)
    if period > 1:
        return replace(frame_review, period=period)
    return replace(frame_review, alternation=_alternation(blocks))


def _sample(frame: np.ndarray) -> _Sample:
    """Sample bands of rows of a frame, from the first to the last one."""
    bands = _bands_of_rows(frame)
    blocks = [_block_means(band) for band in bands]
    rows = np.concatenate(bands, 1)
    digest = hashlib.blake2b(rows.tobytes()).digest()
    values = rows[..., ::4].copy()
    distinct, counts = np.unique(values, return_counts=True)
    best = np.argmax(counts)
    share = counts[best] / counts.sum()
    finite = values[np.isfinite(values)]
    high = finite.max() if finite.size else -np.inf
    return _Sample(
        values,
        np.concatenate(blocks, 1),
        mode=float(distinct[best]),
        share=float(share),
        high=float(high),
        digest=digest,
    )


def _bands_of_rows(frame: np.ndarray) -> list[np.ndarray]:
    """Return up to BANDS bands of rows of a frame, (C, rows, columns) each.

    The middle columns, and of a volume the plane in the middle.
    """
    _, *depth, height, width = frame.shape
    if depth:
        middle = depth[0] // 2
        frame = frame[:, middle]
    left = max(0, width - WIDEST) // 2
    columns = slice(left, left + WIDEST)
    starts = max(1, height - BAND_HEIGHT + 1)
    bands = []
    for start in evenly(starts, BANDS):
        rows = slice(start, start + BAND_HEIGHT)
        bands.append(np.asarray(frame[:, rows, columns]))
    return bands


def _block_means(band: np.ndarray) -> np.ndarray:
    """Return the means of blocks of columns of a band (C, rows, columns): (C, n)."""
    columns = _column_means(band)
    _, width = columns.shape
    last = max(1, width - BAND_HEIGHT // 2)
    edges = np.arange(0, last, BAND_HEIGHT)
    widths = np.diff(edges, append=width)
    sums = np.add.reduceat(columns, edges, axis=1)
    return sums / widths


def _column_means(band: np.ndarray) -> np.ndarray:
    """Return the means over the rows of a band, (C, columns); 0 where all pixels are missing."""
    if band.dtype.kind != "f":
        return band.mean(1, dtype=np.float64)
    known = np.isfinite(band)
    sums = band.sum(1, dtype=np.float64, where=known)
    counts = known.sum(1)
    return sums / np.maximum(counts, 1)


def _dead(frames: Frames, samples: Sequence[_Sample]) -> dict[int, str]:
    """Find frames of one value, of almost one value, and mostly saturated ones."""
    differing = [sample.differing for sample in samples]
    typical = float(np.median(differing))
    if typical < INFORMATIVE:  # with few photons an empty frame is normal
        return {}
    most_differing = 0.1 * typical
    top = max(sample.high for sample in samples)
    saturated = [np.mean(sample.values == top) for sample in samples]
    usually_saturated = np.median(saturated) >= 0.1
    dead = {}
    for t, sample in enumerate(samples):
        if sample.differing <= most_differing:
            most = most_differing / sample.values.size
            frame = np.asarray(frames[t])
            reason = _almost_constant(frame, sample.mode, most)
            if reason:
                dead[t] = reason
        elif saturated[t] >= 0.5 and not usually_saturated:
            percent = 100 * saturated[t]
            dead[t] = f"{percent:.0f}% of the pixels saturated, {top:g}"
    return dead


def _almost_constant(
    frame: np.ndarray,
    mode: float,
    most: float,
) -> str:
    """Say in words that a frame has (almost) one value, or return nothing.

    Args:
        frame: of any shape.
        mode: the value that most of its pixels are expected to have.
        most: share of other values that a frame of almost one value may have.
    """
    same = frame == mode
    value = f"{mode:g}"
    if np.isnan(mode):
        same = ~np.isfinite(frame)
        value = "missing"
    share = same.mean()
    if share == 1:
        return f"every pixel {value}"
    if 1 - share > most:
        return ""
    percent = 100 * share
    return f"{percent:.4g}% of the pixels {value}"


def _alive(samples: Sequence[_Sample], dead: dict[int, str]) -> list[int]:
    """Return the numbers of the frames that are not dead."""
    return [t for t in range(len(samples)) if t not in dead]


def _blank(samples: Sequence[_Sample], dead: dict[int, str]) -> dict[int, str]:
    """Find frames of noise alone, far from the others' brightness and without their scene."""
    alive = _alive(samples, dead)
    if len(alive) < 5:
        return {}
    blocks = np.stack([samples[t].blocks for t in alive])
    scene = np.median(blocks, 0)
    contrast = _centred(scene).std()
    correlations = [_correlation(frame, scene) for frame in blocks]
    if not contrast or np.median(correlations) < 0.6:
        return {}
    means = blocks.mean((1, 2))
    middle = np.median(means)
    offsets = np.abs(means - middle)
    usual_offset = np.median(offsets)
    far = 6 * 1.4826 * usual_offset + 0.5 * contrast
    spreads = [_centred(frame).std() for frame in blocks]
    usual_spread = np.median(spreads)
    reasons = {}
    for i, t in enumerate(alive):
        without_scene = correlations[i] < 0.3
        smooth = spreads[i] < 0.5 * usual_spread
        if without_scene and smooth and offsets[i] > far:
            mean = means[i]
            reasons[t] = f"blank at a brightness of {mean:.4g}, the others have {middle:.4g}"
    return reasons


def _centred(blocks: np.ndarray) -> np.ndarray:
    """Subtract the mean of each channel from blocks (C, n)."""
    return blocks - blocks.mean(1, keepdims=True)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of blocks (C, n), each channel without its mean."""
    a = _centred(one).ravel()
    b = _centred(other).ravel()
    squared_scale = (a @ a) * (b @ b)
    if not squared_scale:
        return 0.0
    return float(a @ b / np.sqrt(squared_scale))


def _copies(
    frames: Frames,
    samples: Sequence[_Sample],
    dead: dict[int, str],
) -> dict[int, int]:
    """Find frames equal to an earlier one, or almost, as copies in lossy files are."""
    copies: dict[int, int] = {}
    first: dict[bytes, int] = {}
    alive = _alive(samples, dead)
    for t in alive:
        sample = samples[t]
        if sample.differing < INFORMATIVE:
            continue
        before = first.setdefault(sample.digest, t)
        if before == t:
            continue
        if np.array_equal(frames[before], frames[t]):
            copies[t] = before
    live = [samples[t] for t in alive]
    near = _distances(live, 1)
    far = _distances(live, 2)
    for i, (a, b) in enumerate(pairwise(alive)):
        start = max(0, i - 1)
        usual = min(far[start : i + 1], default=0.0)
        close = near[i] < 0.2 * usual
        if close and b not in copies:
            copies[b] = copies.get(a, a)
    return dict(sorted(copies.items()))


def _distances(samples: Sequence[_Sample], lag: int) -> list[float]:
    """Return the distance of each frame to the one that is `lag` after it."""
    pairs = zip(samples, samples[lag:], strict=False)
    return [_distance(one, other) for one, other in pairs]


def _distance(one: _Sample, other: _Sample) -> float:
    """Return the root mean square difference of two frames, over the pixels known in both."""
    values = one.values.astype(np.float32)
    other_values = other.values.astype(np.float32)
    difference = values - other_values
    known = difference[np.isfinite(difference)]
    if not known.size:
        return 0.0
    mean_square = np.mean(known**2)
    return float(np.sqrt(mean_square))


def _period(blocks: Sequence[np.ndarray]) -> int:
    """Return the number of channels that alternate; 1 where frames are of one channel.

    Args:
        blocks: means of blocks of each frame, (C, n).
    """
    count = len(blocks)
    if count < 6:
        return 1
    correlations = [_correlation(*pair) for pair in pairwise(blocks)]
    if not np.median(correlations) < 0.8:
        return 1
    plain = np.array([_standardized(frame) for frame in blocks])
    to_next = _mean_squares(plain, 1)
    nearest = float(np.median(to_next))
    longest = min(LONGEST_TURN, count // 2 - 1)
    for lag in range(2, longest + 1):
        squares = _mean_squares(plain, lag)
        same = float(np.median(squares))
        distinct = nearest > DISTINCT * same
        changing = np.mean(to_next > 2 * same)
        least_changing = 0.8 * (lag - 1) / lag
        if distinct and changing > least_changing:
            return lag
        nearest = min(nearest, same)
    return 1


def _standardized(frame: np.ndarray) -> np.ndarray:
    """Scale the values of a frame to mean 0 and deviation 1."""
    deviation = max(frame.std(), 1e-12)
    return (frame - frame.mean()) / deviation


def _mean_squares(frames: np.ndarray, lag: int) -> np.ndarray:
    """Return the mean squared difference of each frame to the one that is `lag` after it."""
    differences = frames[lag:] - frames[:-lag]
    return np.mean(differences**2, (1, 2))


def _alternation(blocks: Sequence[np.ndarray]) -> float:
    """Return by which share of the mean value every second frame is brighter; 0 if it is not.

    Args:
        blocks: means of blocks of each frame, (C, n).
    """
    if len(blocks) < 6:
        return 0.0
    means = np.stack(blocks).mean((1, 2))
    level = abs(float(np.median(means)))
    if not level:
        return 0.0
    steps = np.diff(means)
    drifts = means[2:] - means[:-2]  # of every second frame
    step = _median_size(steps)
    drift = _median_size(drifts)
    directions = np.sign(steps)
    directions[1::2] *= -1
    alternating = abs(directions.mean()) > 0.9
    without_drift = step > DISTINCT * drift
    share = step / level
    if alternating and without_drift and share > 0.005:
        return share
    return 0.0


def _median_size(differences: np.ndarray) -> float:
    sizes = np.abs(differences)
    return float(np.median(sizes))
