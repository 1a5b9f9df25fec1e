"""What is found when noisy data are looked at before training, each finding with what follows from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from n2n_lightning.data.intensity import IntensityStats, intensity_stats
from n2n_lightning.data.scenes import EqualSizeScenes, SceneSet
from n2n_lightning.inspection import measures, shifts
from n2n_lightning.inspection.advice import (
    advise,
    are_counts,
    coloured,
    no_counts,
    noise_of_singles,
)
from n2n_lightning.inspection.frames import frames_that_count, pages_that_count
from n2n_lightning.inspection.levels import compare_noise, of_the_noisier
from n2n_lightning.inspection.reports import (
    COLOURED,
    COLOURED_SINGLE,
    CUT,
    DRIFTED,
    MIN_PIXELS,
    SHIFTED,
    InspectionReport,
)
from n2n_lightning.inspection.sampling import (
    SceneSample,
    as_movie,
    blurred_pairs,
    duplicates,
    of_one_file,
    sample_scenes,
)
from n2n_lightning.metrics import noise_model
from n2n_lightning.metrics.noise_levels import NoiseLevels
from n2n_lightning.metrics.psnr import psnr


def unfit(
    scenes: SceneSet, seen: IntensityStats, within: int | None = None, method: str = "pairs"
) -> list[str]:
    """What makes images unfit for a method, a line each: for a warning before training.

    Args:
        scenes: all of them.
        seen: what their values mean.
        within: captures more than so many apart are not used.
        method: what makes pairs of them: `pairs`, or a method for single images; `lines` masks
            lines.

    Raises:
        InputError: nothing could be learnt from them with this method.
    """
    report, scenes = InspectionReport(), scenes.planes()
    looked = sample_scenes(scenes, seen, most=4, side=512)
    if method in ("neighbours", "masked"):
        return coloured(looked)
    if method == "thinned":
        return no_counts(looked)
    if method == "lines":
        return []
    if method == "movie":  # what moves is what they are for
        _same(report, scenes)
        if _differ(looked) and all(shifts.shift(*pair) is None for pair in looked.pairs("near")):
            report.add(
                "shift",
                "frames that follow one another do not show the same thing: they are no movie",
                bad=True,
            )
        return [f"{finding.name}: {finding.line}" for finding in report.findings if finding.bad]
    _same(report, scenes)
    _moved(report, looked, far=within is None)
    _brightness(report, looked, far=within is None)
    return [f"{finding.name}: {finding.line}" for finding in report.findings if finding.bad]


def inspect(scenes: SceneSet, volumes: bool = False) -> InspectionReport:
    """Looks at captures of scenes, or at single images, and judges them by sizes, not by significance.

    Args:
        scenes: one capture of each scene, or more. Single images that follow one another are taken
            for a movie.
        volumes: they are planes of volumes, which follow one another and are no movie.
    """
    volumes = volumes or len(scenes.smallest) == 3
    scenes = scenes.planes()
    report = InspectionReport()
    for line in scenes.dropped:
        report.add("left out", line)
    single = int(scenes.captures(torch.arange(len(scenes.names))).max()) == 1
    if single and not volumes and isinstance(scenes, EqualSizeScenes) and of_one_file(scenes):
        scenes = pages_that_count(report, scenes)
    seen = intensity_stats(scenes)
    if single and not volumes and (movie := as_movie(scenes)):
        scenes, report.source = movie, "movie"
    if report.source == "movie" and isinstance(scenes, EqualSizeScenes):
        scenes = frames_that_count(report, scenes)
    looked = sample_scenes(scenes, seen)
    _read(report, scenes, looked)
    if not any(known.size and known.min() < known.max() for known in looked.values()):
        report.add(
            "blank", "every image is one value: there is nothing to learn from them", bad=True
        )
        report.advice, report.why = None, "the images are blank"
        report.example = (looked.known[0][0], looked.known[0][0])
        return report
    several = min(looked.counts) > 1
    if several:
        _same(report, scenes)
        if isinstance(scenes, EqualSizeScenes) and report.source == "movie":
            _movement(report, scenes)
        else:
            _moved(report, looked)
        _brightness(report, looked)
        pairs = looked.pairs("near")
        report.example = pairs[0]
        noises = [measures.noise_of(*pair) for pair in pairs]
        levels = compare_noise(report, scenes, seen) if report.source == "pairs" else None
        factor = _noise(report, pairs, levels)
    else:
        noises = []
        report.example = (looked.known[0][0], looked.known[0][0])
        _single(report, looked)
    _white(report, noises, COLOURED if several else COLOURED_SINGLE)
    if several:
        _channels(report, noises)
    _ends(report, looked)
    _outliers(report, looked)
    if several:
        error = (
            factor
            * float(np.mean([np.nanmean((a - b) ** 2) for a, b in pairs]))
            / 2
            / seen.white**2
        )
        value = psnr(error) if error > 0 else None
        text = (
            "not measurable"
            if value is None
            else f"about {value:.2f} dB, white being {seen.white:g} (data.scale); what a denoiser adds is on top of it"
        )
        report.add("input", text, input_psnr_estimate=value, scale=seen.white)
    _amount(report, scenes, looked)
    report.add(
        "unseen",
        "noise that all captures share (fixed pattern, dust, vignetting) stays: captures cannot show it",
    )
    advise(report, several, max(looked.counts))
    return report


def _read(report: InspectionReport, scenes: SceneSet, looked: SceneSample) -> None:
    counts = scenes.captures(torch.arange(len(scenes.names)))
    fewest, most = int(counts.min()), int(counts.max())
    captures = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    sizes = scenes.sizes(torch.arange(len(scenes.names)))
    (low, wide), (high, broad) = sizes.amin(0).tolist(), sizes.amax(0).tolist()
    size = (
        f"{low} x {wide}" if (low, wide) == (high, broad) else f"{low} x {wide} to {high} x {broad}"
    )
    noun = "frames" if report.source == "movie" else "capture" if most == 1 else "captures"
    scene = "scene" if len(scenes.names) == 1 else "scenes"
    channel = "channel" if scenes.channels == 1 else "channels"
    report.add(
        "read",
        f"{len(scenes.names)} {scene} of {captures} {noun}, {size}, {scenes.channels} {channel},"
        f" {str(scenes.dtype)[6:]}; looked at {len(looked.known)}",
        scenes=len(scenes.names),
        captures=[fewest, most],
        size=[[low, wide], [high, broad]],
        channels=scenes.channels,
        type=str(scenes.dtype)[6:],
    )


def _same(report: InspectionReport, scenes: SceneSet) -> None:
    twice = duplicates(scenes)
    if twice:
        line = f"captures of {len(twice)} scenes are the same values ({twice[0]}): copies have no noise of their own"
        report.add("duplicates", line, bad=True, duplicates=twice)
    else:
        report.add("duplicates", "none: no capture is a copy of another", duplicates=[])


def _differ(looked: SceneSample) -> bool:
    """Whether neighbouring captures show different things, in more than half of the scenes."""
    return sum(shifts.differ(*pair) for pair in looked.pairs("near")) > len(looked.known) / 2


def _moved(report: InspectionReport, looked: SceneSample, far: bool = True) -> None:
    """Shifts between captures: of neighbours, and of the first and the last."""
    found = {}
    for end in ("near", "far") if far else ("near",):
        each = [s for pair in looked.pairs(end) if (s := shifts.shift(*pair)) is not None]
        if each:
            middle = Shifted.of(each)
            found[end] = middle
            report.numbers[f"shift_{end}"] = [middle.rows, middle.columns, middle.most]
    if "near" not in found and _differ(looked):
        report.add(
            "shift", "captures of a scene do not show the same thing: they are no pairs", bad=True
        )
        return
    if not found:
        report.add("shift", "not measurable: too little structure, or too much noise")
        return
    worst = max(found.values(), key=lambda s: s.most)
    bad = worst.most > SHIFTED
    line = ", ".join(f"{s.shown:.2f} pixels {_BETWEEN[end]}" for end, s in found.items())
    if not bad:
        report.add("shift", f"{line}: they lie on one another")
        return
    typical = f"typically {worst.rows:+.2f} rows, {worst.columns:+.2f} columns"
    report.add(
        "shift",
        f"{line} ({typical}): results are blurred by as much; register them first",
        bad=True,
    )


def _movement(report: InspectionReport, scenes: EqualSizeScenes) -> None:
    """How far a movie moves from frame to frame."""
    pairs = blurred_pairs(scenes)
    found = [
        (s, length)
        for a, b, length in pairs
        if (s := shifts.shift(a, b, 0.15 * length)) is not None
    ]
    if not found:
        report.add("movement", "not measurable: too little structure, or too much noise")
        return
    speed = float(np.median([s.length / length for s, length in found]))
    text = f"{speed:.2f} pixels a frame: the less, the more frames can be averaged; data.context= shows the network some"
    report.add("movement", text, movement=speed)


_BETWEEN = {"near": "between neighbours", "far": "between the first and the last capture"}


@dataclass
class Shifted:
    """Shifts of several scenes: the middle one, and the largest that is more than its noise."""

    rows: float
    columns: float
    most: float

    @property
    def shown(self) -> float:
        """The larger of the two, in pixels."""
        return max(self.most, float(np.hypot(self.rows, self.columns)))

    @classmethod
    def of(cls, each: list[shifts.Shift]) -> "Shifted":
        rows, columns = (
            float(np.median([getattr(s, name) for s in each])) for name in ("rows", "columns")
        )
        sure = [
            max(0.0, s.length - 4 * s.error) if s.error > SHIFTED / 6 else s.length for s in each
        ]
        # One scene of several may be mistaken, by something that blinks in it; of two or three none
        # is doubted.
        return cls(rows, columns, sorted(sure)[-1 - (len(sure) > 3)])


def _brightness(report: InspectionReport, looked: SceneSample, far: bool = True) -> None:
    """How much brighter one capture is than another, beside the brightness above the darkest places."""
    found = {}
    for end in ("near", "far") if far else ("near",):
        pairs = looked.pairs(end)
        each = [measures.difference(*pair) for pair in pairs]
        pairs = [pair for pair, (_, error) in zip(pairs, each, strict=True) if np.isfinite(error)]
        each = [(change, error) for change, error in each if np.isfinite(error)]
        if not each:
            continue
        changes, errors = (np.array(values) for values in zip(*each, strict=True))
        levels = np.array([measures.level(a, b) for a, b in pairs])
        noise = float(np.sqrt(np.mean([np.nanvar(a - b) for a, b in pairs]) / 2))
        relative = changes / np.maximum(levels, 1e-12)
        mean, error = (
            float(relative.mean()),
            float(np.sqrt((errors**2).sum()) / len(errors) / max(levels.mean(), 1e-12)),
        )
        rest = np.maximum(np.abs(relative) - 4 * errors / np.maximum(levels, 1e-12), 0)
        most = float(relative[np.argmax(rest)]) if rest.any() else 0.0
        harmful = np.abs(changes) > 0.05 * noise
        size = max(abs(mean) if abs(mean) > 4 * error else 0.0, float(rest.max()))
        found[end] = (mean, error, most, size if harmful.any() else 0.0)
        report.numbers[f"brightness_{end}"] = {"mean": mean, "error": error, "most": most}
    if not found:
        return
    parts = [
        f"{100 * m:+.1f} +- {100 * e:.1f}% {_BETWEEN[end]}" for end, (m, e, _, _) in found.items()
    ]
    worst = max(size for *_, size in found.values())
    if worst <= DRIFTED:
        report.add("brightness", f"{', '.join(parts)}: alike")
        return
    largest = max((most for _, _, most, _ in found.values()), key=abs)
    if report.source == "movie":  # what lights up or bleaches is what many movies are taken for
        report.add(
            "brightness",
            f"{', '.join(parts)}, {100 * largest:+.1f}% at most: it may be what is measured",
        )
        return
    line = f"{', '.join(parts)}, {100 * largest:+.1f}% at most: the result has the mean of both, so use captures as near"
    report.add(
        "brightness", f"{line} in time as there are, or bring them to one brightness", bad=True
    )


def _noise(
    report: InspectionReport, pairs: list[tuple[np.ndarray, np.ndarray]], levels: NoiseLevels | None
) -> float:
    """Adds the noise of the noisier captures; returns how many times the mean variance of both it has."""
    model, factor = of_the_noisier(noise_model.noise_model(pairs), levels)
    report.model = model
    if model is None:
        report.add("noise", "not measurable: too few whole blocks of 8 x 8 pixels")
    else:
        _described(report, model, pairs, " of the noisier captures" if factor > 1 else "")
    return factor


def _described(
    report: InspectionReport,
    model: noise_model.NoiseModel,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    whose: str,
) -> None:
    """The line about the noise."""
    sigma = float(np.sqrt(model.variance))
    numbers: dict[str, Any] = {"sigma": sigma, "a": model.a, "b": model.b, "counts": False}
    if not sigma:
        report.add("noise", "none: the captures do not differ", bad=True, **numbers)
        return
    if model.b is None:
        report.add(
            "noise",
            f"sigma {sigma:.4g}{whose}; the brightness differs too little for more",
            **numbers,
        )
        return
    numbers["counts"] = counts = measures.is_counts(
        model, [image for pair in pairs for image in pair]
    )
    if counts:
        text = f"sigma {sigma:.4g}{whose}; the variance is the brightness: photon counts"
    elif model.b <= 0 or model.b * np.ptp(model.points[:, 0]) < 0.1 * model.variance:
        text = f"sigma {sigma:.4g}{whose}, the same in dark and bright places"
    else:
        read = (
            f"read noise {np.sqrt(model.a):.4g}"
            if model.a > 0
            else f"0 at {-model.a / model.b:.4g}, near black"
        )
        text = f"sigma {sigma:.4g}{whose}; variance = {model.a:.4g} + {model.b:.4g} brightness: gain {model.b:.4g}, {read}"
    report.add("noise", text, **numbers)


def _single(report: InspectionReport, looked: SceneSample) -> None:
    """The noise of single images."""
    report.correlations, sigma = noise_of_singles(looked)
    report.numbers |= {"sigma": sigma, "a": None, "b": None, "counts": are_counts(looked)}
    if sigma is None:
        report.add("noise", "not measurable: the images are too small")
    elif not sigma:
        report.add("noise", "none: the images are flat", bad=True)
    else:
        line = f"about sigma {sigma:.4g}, where single images are flattest: texture counts as noise there"
        line += (
            "; the variance is the brightness: photon counts" if report.numbers["counts"] else ""
        )
        report.add("noise", line)


def _white(report: InspectionReport, noises: list[np.ndarray], limit: float) -> None:
    if noises:
        report.correlations = measures.correlations(noises)
    found = report.correlations
    if not found:
        report.numbers |= {"correlations": {}, "white": None}
        report.add("pixels", "correlation of the noise of neighbouring ones: not measurable")
        return
    shown = ", ".join(f"{one:+.2f} and {two:+.2f} {name}" for name, (one, two) in found.items())
    report.numbers["correlations"] = {name: list(values) for name, values in found.items()}
    strong = {
        name: max(values, key=abs)
        for name, values in found.items()
        if max(map(abs, values)) > limit
    }
    report.numbers["white"] = not strong
    if not strong:
        report.add(
            "pixels", f"correlation at a distance of 1 and 2: {shown}: white, any method fits"
        )
        return
    direction = " ".join(strong) if len(strong) == 1 else "in all directions"
    follows = "pairs of captures do not mind, methods for single images do"
    report.add(
        "pixels", f"correlation at a distance of 1 and 2: {shown}: not white {direction}; {follows}"
    )


def _channels(report: InspectionReport, noises: list[np.ndarray]) -> None:
    value = measures.between_channels(noises)
    report.numbers["between_channels"] = value
    if len(noises[0]) > 1:
        kind = "their own" if abs(value) <= COLOURED else "partly shared"
        report.add("channels", f"correlation of their noise {value:+.2f}: {kind}")


def _ends(report: InspectionReport, looked: SceneSample) -> None:
    images = [image for captures in looked.known for image in captures.values()]
    found = {} if report.numbers.get("counts") else measures.clipped_ends(images)
    report.numbers["ends"] = {name: list(values) for name, values in found.items()}
    large = {name: values for name, values in found.items() if values[1] >= CUT}
    if not large:
        report.add("ends", "no values pile up at the ends: nothing was clipped")
        return
    text = " and ".join(
        f"{100 * share:.1f}% of the pixels have the {n} value, {v:g}"
        for n, (v, share) in large.items()
    )
    meaning = {
        "lowest": "dark places turn out too bright: export with an offset",
        "highest": "highlights are lost",
    }
    report.add(
        "ends",
        f"{text}: clipped noise is biased; {', '.join(meaning[name] for name in large)}",
        bad=True,
    )


def _outliers(report: InspectionReport, looked: SceneSample) -> None:
    report.numbers["wild"] = looked.wild
    if not looked.wild:
        report.add("outliers", "no hot or dead pixels")
    else:
        report.add(
            "outliers",
            f"{looked.wild:.2g} of the pixels are hot or dead: they are filled, and do not count",
        )


def _amount(report: InspectionReport, scenes: SceneSet, looked: SceneSample) -> None:
    everything = torch.arange(len(scenes.names))
    pixels = int((scenes.sizes(everything).prod(1) * scenes.captures(everything)).sum())
    few = pixels < MIN_PIXELS
    text = f"{pixels:,} pixels to learn from"
    follows = ": few; expect a gain over filters from a million on" if few else ""
    report.add("amount", text + follows, pixels=pixels)
