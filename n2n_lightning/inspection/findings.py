"""Inspection of captures or single images: all findings, in the order of the report."""

import numpy as np

from n2n_lightning.data.intensity import IntensityStats, intensity_stats
from n2n_lightning.data.mask_choice import mask_of_noise
from n2n_lightning.data.scene_sample import SceneSample, sample_scenes
from n2n_lightning.data.scene_set import SceneSet
from n2n_lightning.inspection import capture_changes, measures, noise_findings, shifts
from n2n_lightning.inspection.advice import advise, correlation_warnings, count_warnings
from n2n_lightning.inspection.frames import frames_that_count, pages_that_count
from n2n_lightning.inspection.inspection_report import CUT, MIN_PIXELS, InspectionReport
from n2n_lightning.inspection.levels import compare_noise
from n2n_lightning.inspection.sampling import as_movie, duplicates, of_one_file

LEAST_MISSING = 0.0005  # share of the pixels that is said: 0.05%
# Mean from which zeros among counts are rare: of a Poisson distribution under 0.7%.
FEW_COUNTS = 5.0
NOT_REVIEWED = "a sample of this large file was read: dead frames and copies were not looked for"
CLIPPING_EFFECTS = {
    "lowest": "dark places turn out too bright: export with an offset",
    "highest": "highlights are lost",
}


def unfit(
    scenes: SceneSet, stats: IntensityStats, within: int | None = None, method: str = "pairs"
) -> list[str]:
    """Return warnings, a line each, if images do not fit a training method.

    Args:
        scenes: all of them.
        stats: their nodata values and intensity range.
        within: largest distance of captures that make a pair; None for any.
        method: `pairs`, `movie`, or a method for single images: `neighbours`, `masked`, `hidden`
            (masked by what the noise needs, or by more than single pixels), `thinned`.

    Returns:
        Lines "name: measurement"; none if nothing stands in the way.

    Raises:
        InputError: this method cannot learn from these images.
    """
    scenes = scenes.planes()
    sample = sample_scenes(scenes, stats, most=4, side=512)
    if method in ("neighbours", "masked"):
        return correlation_warnings(sample)
    if method == "thinned":
        return count_warnings(sample)
    if method == "hidden":
        return []
    report = InspectionReport()
    _add_duplicates(report, scenes)
    if method == "movie":  # movement is no obstacle
        unrelated = capture_changes.mostly_differ(sample)
        if unrelated and all(shifts.shift(*pair) is None for pair in sample.pairs("near")):
            line = "frames that follow one another do not show the same thing: they are no movie"
            report.add("shift", line, bad=True)
    else:
        capture_changes.add_shift(report, sample, far=within is None)
        capture_changes.add_brightness(report, sample, far=within is None)
    return [f"{finding.name}: {finding.line}" for finding in report.obstacles]


def inspect(scenes: SceneSet, volumes: bool = False) -> InspectionReport:
    """Inspect captures of scenes, or single images.

    Findings are judged by their size, not by their significance: with a million pixels everything
    is significant.

    Args:
        scenes: one capture of each scene, or more. Single images that follow one another are
            inspected as a movie.
        volumes: True if they are planes of volumes, which follow one another and are no movie.

    Returns:
        All findings, and the arguments of `train` that fit.
    """
    report = InspectionReport()
    volumes = volumes or len(scenes.smallest) == 3
    report.volumes = volumes
    deep = scenes
    scenes = scenes.planes()
    for line in scenes.dropped:
        report.add("left out", line)
    scenes, stats = _select_frames(report, scenes, volumes)
    sample = sample_scenes(scenes, stats)
    _add_read(report, scenes, sample)
    first = sample.scenes[0][0]
    report.example = (first, first)
    if sample.is_blank():
        line = "every image is one value: there is nothing to learn from them"
        report.add("blank", line, bad=True)
        report.advice = None
        report.why = "the images are blank"
        return report
    several = min(sample.counts) > 1
    if several:
        pairs = _add_capture_findings(report, scenes, sample, stats)
    else:
        noise = noise_findings.add_single_noise(report, sample)
        noise_findings.add_single_correlation(report, noise)
        report.mask = mask_of_noise(noise.noises, deep, stats)
    _add_clipping(report, sample)
    _add_outliers(report, sample)
    missing = _add_missing(report, sample)
    if several:
        noise_findings.add_input_psnr(report, pairs, stats.white)
    _add_amount(report, scenes, missing)
    report.add(
        "unseen",
        "noise that all captures share (fixed pattern, dust, vignetting) stays:"
        " captures cannot show it",
    )
    report.follow(advise(report, several, max(sample.counts)))
    return report


def _select_frames(
    report: InspectionReport, scenes: SceneSet, volumes: bool
) -> tuple[SceneSet, IntensityStats]:
    """Recognise a movie among single images, and leave out its dead frames and copies.

    Args:
        report: gets the lines about frames, and the source.
        scenes: as they were read.
        volumes: True if they are planes of volumes.

    Returns:
        The scenes to inspect, and the intensity statistics of all that are no dead pages.
    """
    if volumes or max(scenes.counts_of_all) > 1:
        return scenes, intensity_stats(scenes)
    if scenes.in_place:
        report.add("frames", NOT_REVIEWED)
    elif scenes.one_size and of_one_file(scenes):
        scenes = pages_that_count(report, scenes)
    stats = intensity_stats(scenes)
    movie = as_movie(scenes)
    if movie is None:
        return scenes, stats
    report.source = "movie"
    if scenes.in_place:
        return movie, stats
    return frames_that_count(report, movie), stats


def _add_capture_findings(
    report: InspectionReport, scenes: SceneSet, sample: SceneSample, stats: IntensityStats
) -> noise_findings.CapturePairs:
    """Add the findings that need two captures of each scene.

    Returns:
        Pairs of captures whose differences are noise: without the drift that was found.
    """
    pairs = sample.pairs("near")
    report.example = pairs[0]
    _add_duplicates(report, scenes)
    if report.source == "movie":
        capture_changes.add_movement(report, scenes)
        capture_changes.add_drift(report, scenes, stats)
    else:
        capture_changes.add_shift(report, sample)
    capture_changes.add_brightness(report, sample)
    if report.source == "pairs":
        compare_noise(report, scenes, stats)
    if report.align:
        pairs = capture_changes.aligned(pairs)
    noise_findings.add_pair_noise(report, pairs)
    noises = [measures.noise_of(*pair) for pair in pairs]
    noise_findings.add_pair_correlation(report, noises)
    noise_findings.add_channel_correlation(report, noises)
    return pairs


def _add_read(report: InspectionReport, scenes: SceneSet, sample: SceneSample) -> None:
    """Add a line with the number, size and type of the images."""
    counts = scenes.counts_of_all
    fewest = min(counts)
    most = max(counts)
    sizes = scenes.sizes(scenes.indices)
    smallest = sizes.amin(0).tolist()
    largest = sizes.amax(0).tolist()
    captures = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    size = "{} x {}".format(*smallest)
    if largest != smallest:
        size += " to {} x {}".format(*largest)
    noun = "capture" if most == 1 else "captures"
    if report.source == "movie":
        noun = "frames"
    scene = "scene" if len(scenes.names) == 1 else "scenes"
    channel = "channel" if scenes.channels == 1 else "channels"
    kind = str(scenes.dtype).removeprefix("torch.")
    report.add(
        "read",
        f"{len(scenes.names)} {scene} of {captures} {noun}, {size}, {scenes.channels} {channel},"
        f" {kind}; looked at {len(sample.scenes)}",
        scenes=len(scenes.names),
        captures=[fewest, most],
        size=[smallest, largest],
        channels=scenes.channels,
        type=kind,
    )


def _add_duplicates(report: InspectionReport, scenes: SceneSet) -> None:
    """Add a line about captures of a scene that are the same values."""
    names = duplicates(scenes)
    if not names:
        report.add("duplicates", "none: no capture is a copy of another", duplicates=[])
        return
    line = (
        f"captures of {len(names)} scenes are the same values ({names[0]}):"
        " copies have no noise of their own"
    )
    report.add("duplicates", line, bad=True, duplicates=names)


def _add_clipping(report: InspectionReport, sample: SceneSample) -> None:
    """Add a line about values that pile up at the ends; zeros among photon counts do not count."""
    ends = {} if report.counts else measures.clipped_ends(sample.images())
    numbers = {}
    parts = []
    effects = []
    few_counts = False
    for name, (value, share) in ends.items():
        numbers[name] = [value, share]
        if share >= CUT:
            percent = f"{100 * share:.1f}%"
            parts.append(f"{percent} of the pixels have the {name} value, {value:g}")
            effects.append(CLIPPING_EFFECTS[name])
            few_counts |= name == "lowest" and value == 0 and _are_few_counts(sample)
    report.numbers["ends"] = numbers
    if not parts:
        report.add("ends", "no values pile up at the ends: nothing was clipped")
        return
    line = f"{' and '.join(parts)}: clipped noise is biased; {', '.join(effects)}"
    if few_counts and len(parts) == 1:
        line = (
            f"{parts[0]}: right if these are photon counts, a few in a pixel; else it was clipped"
        )
    report.add("ends", line, bad=not few_counts)


def _are_few_counts(sample: SceneSample) -> bool:
    """Return True if the values are whole numbers whose mean is FEW_COUNTS at most."""
    images = list(sample.images())
    means = [float(np.nanmean(image)) for image in images]
    return all(map(measures.are_whole, images)) and max(means) <= FEW_COUNTS


def _add_outliers(report: InspectionReport, sample: SceneSample) -> None:
    """Add a line with the share of hot and dead pixels."""
    line = "no hot or dead pixels"
    if sample.outliers:
        share = f"{sample.outliers:.2g}"
        line = f"{share} of the pixels are hot or dead: they are filled, and do not count"
    report.add("outliers", line, wild=sample.outliers)


def _add_missing(report: InspectionReport, sample: SceneSample) -> float:
    """Add a line with the share of pixels without a value, if there are some; return it."""
    shares = [float(np.isnan(image).mean()) for image in sample.images()]
    missing = max(float(np.mean(shares)) - (sample.outliers or 0.0), 0.0)
    report.numbers["missing"] = missing
    if missing >= LEAST_MISSING:
        share = f"{missing:.2g}"
        line = f"{share} of the pixels have no value: they are filled for the network"
        report.add("missing", f"{line}, and count neither in training nor in scores")
        return missing
    return 0.0


def _add_amount(report: InspectionReport, scenes: SceneSet, missing: float) -> None:
    """Add a line with the number of pixels to learn from, without the share that is missing."""
    areas = scenes.sizes(scenes.indices).prod(1)
    counts = scenes.captures(scenes.indices)
    pixels = round(int((areas * counts).sum()) * (1 - missing))
    line = f"{pixels:,} pixels to learn from"
    if pixels < MIN_PIXELS:
        line += ": few; expect a gain over filters from a million on"
    report.add("amount", line, pixels=pixels)
