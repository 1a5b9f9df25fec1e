"""Folders whose pictures are captures of one scene: their mean, its score, and its page."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from n2n_lightning.arrays.axes import as_pages
from n2n_lightning.arrays.bad_pixels import mask_invalid
from n2n_lightning.data.intensity import intensity_stats
from n2n_lightning.data.scene_set import MixedSizeScenes
from n2n_lightning.files import replacing
from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.options import DenoiseOptions
from n2n_lightning.inference.plan import Job
from n2n_lightning.reporting.html import HtmlReport
from n2n_lightning.watch.captures import MOST_SHIFT, CaptureMean, row_of

MORE = (4, 12)  # captures of which the page says what they would give
MEAN_FILE = "denoised-mean.npy"
PAGE = "captures"


@dataclass
class _Scene:
    """Captures of one folder.

    Attributes:
        out: the folder of the results.
        captures: their mean.
        white: the stored value that is white for PSNR.
        sources: of the captures, those that were left out included.
        pending: the mean has captures that its denoised one lacks.
        lines: what was said of captures that are not in it.
    """

    out: Path
    captures: CaptureMean = field(default_factory=CaptureMean)
    white: float = 1.0
    sources: list[Path] = field(default_factory=list)
    pending: bool = False
    lines: list[str] = field(default_factory=list)


@dataclass
class Scenes:
    """The scenes of a folder: each folder below it is one.

    Attributes:
        folder: of the captures.
        out: of the results.
        model: denoises means.
        options: of denoising.
        asked: what decides the axes of arrays.
    """

    folder: Path
    out: Path
    model: TrainedDenoiser
    options: DenoiseOptions
    asked: AskedAxes
    _scenes: dict[Path, _Scene] = field(default_factory=dict)

    def add(self, job: Job) -> None:
        """Add a capture to the mean of its folder, or print why it is left out.

        Args:
            job: a picture that was denoised.
        """
        place = job.source.parent
        out = self.out / place.relative_to(self.folder)
        scene = self._scenes.setdefault(place, _Scene(out))
        if job.source not in scene.sources:
            self._add(scene, job.source)
            return
        # it was written anew: a mean does not forget, so that it is begun anew
        sources = [source for source in scene.sources if source != job.source]
        scene = self._scenes[place] = _Scene(out)
        for source in [*sources, job.source]:
            self._add(scene, source)

    def _add(self, scene: _Scene, source: Path) -> None:
        scene.sources.append(source)
        reason = self._added(scene, source)
        if reason:
            line = f"{source.name}: {reason}"
            scene.lines.append(line)
            print(line, flush=True)
            return
        scene.pending = True
        if is_due(scene.captures.count):
            self._denoise_mean(scene)

    def _added(self, scene: _Scene, source: Path) -> str:
        """Add a capture; return why it was not."""
        picture = opened(source)
        if len(picture.values) != 1:
            return "holds several arrays, so it is no capture"
        (values,) = picture.values
        reading = picture.read_as(values, self.asked)
        if not set(reading.axes) <= set("CHW"):
            return f"has axes {reading.axes}, so it is no capture"
        page = np.moveaxis(as_pages(values.measured, reading.axes), -1, 0)
        page = page[: len(page) - reading.alpha]
        native = np.ascontiguousarray(page.astype(page.dtype.newbyteorder("=")))
        stored = torch.from_numpy(native)
        capture = mask_invalid(stored, stored.double(), values.nodata_values).numpy()
        captures = scene.captures
        if captures.count and capture.shape != captures.mean.shape:
            return f"is of shape {capture.shape}, the others are of {captures.mean.shape}"
        rows, columns = captures.shift_of(capture)
        if max(abs(rows), abs(columns)) > MOST_SHIFT:
            return f"moved by {rows:+.1f} rows and {columns:+.1f} columns, left out of the mean"
        if not captures.count:
            nodata_values = tuple(values.nodata_values)
            first = MixedSizeScenes([[stored]], [str(source)], nodata_values)
            scene.white = intensity_stats(first).white
        captures.add(capture)
        return ""

    def denoise_one_mean(self) -> None:
        """Denoise the mean of a scene that has new captures, and write its page."""
        for scene in self._scenes.values():
            if scene.pending:
                self._denoise_mean(scene)
                return

    def _denoise_mean(self, scene: _Scene) -> None:
        scene.pending = False
        captures = scene.captures
        mean = captures.mean.astype(np.float32)
        options = self.options
        denoised = self.model.denoise(
            mean,
            axes="CHW",
            tile=options.tile,
            tta=options.tta,
            strength=options.strength,
            uneven=options.uneven,
            outliers=options.outliers,
        )
        captures.note_denoised(denoised.astype(np.float64))
        with replacing(scene.out / MEAN_FILE) as temporary, temporary.open("wb") as file:
            np.save(file, denoised)
        _write_page(scene)


def is_due(count: int) -> bool:
    """Return True for 1, 2, 3, 4, 6, 8, 12, 16, 24 ...: their means are denoised, whatever waits.

    Points that lie evenly on the axis of the curve tell most for the time that they take.
    """
    power = 1 << (count.bit_length() - 1)
    return count in (power, power + power // 2)


def _write_page(scene: _Scene) -> None:
    """Write the page and the table of a scene, and print what more captures would give."""
    captures = scene.captures
    page = HtmlReport(scene.out)
    page.heading(f"{captures.count} captures", 1)
    gains = []
    for more in MORE:
        gain = captures.gain_of(more)
        if gain is not None:
            gains.append(
                f"{more} more would give {gain.decibels:.2f} dB [{gain.low:.2f}, {gain.high:.2f}]"
            )
    if gains:
        page.paragraph("; ".join(gains) + ", by a fit of a + b / n to the denoised means below.")
        print(f"{scene.out / PAGE}.html: {gains[-1]}", flush=True)
    else:
        page.paragraph("Too few captures to say what more of them would give.")
    if captures.is_harmed():
        line = "The denoised mean is worse than the mean: the network takes structure for noise."
        page.paragraph(line, "failed")
        print(f"{scene.out / PAGE}.html: {line}", flush=True)
    page.paragraph(
        "Each mean is scored by the next capture, whose noise is independent of it. What all"
        " captures share, as a fixed pattern of the detector, is not seen."
    )
    rows = [row_of(point, scene.white) for point in captures.points]
    if rows:
        page.figure(f"{PAGE}.png", _curve(rows), "Estimated PSNR against the number of captures.")
        page.table(PAGE, rows)
    for line in scene.lines:
        page.paragraph(line, "note")
    page.write(PAGE, "Captures of one scene")


def _curve(rows: list[dict[str, float | None]]) -> object:
    """Return the figure of the scores."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    _, *names = rows[0]
    numbers = np.array([row["captures"] for row in rows], float)
    for name in names:
        scores = np.array([row[name] for row in rows], float)  # NaN for None
        known = np.isfinite(scores)
        axes.plot(numbers[known], scores[known], "o-", label=name.partition(",")[0])
    axes.set_xlabel("captures")
    axes.set_ylabel("PSNR estimate (dB)")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.legend()
    return figure
