"""Scores of movies, and means of their regions over time: `evaluate --data movie`."""

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data.movie import Frames, Movie
from n2n_lightning.data.reading_files import first_axes
from n2n_lightning.data.reading_movies import read_movies
from n2n_lightning.data.scene_set import SceneSet
from n2n_lightning.files import InputError, option, replacing
from n2n_lightning.formats import opened
from n2n_lightning.inference.certificates import FileCertificate, PageCertificate
from n2n_lightning.metrics.movie_certificate import RegionNoise, certify_regions, ends_of
from n2n_lightning.metrics.movie_score import MovieScore, ScoredFrame, decibels
from n2n_lightning.metrics.movie_traces import Traces, active_regions
from n2n_lightning.metrics.stein import QUANTILE
from n2n_lightning.reporting.evaluation_table import NOISY_INPUT

DenoiseBatch = Callable[[Tensor], Tensor]


@dataclass
class MovieScores:
    """Scores of the candidates for one movie, and the means of its regions.

    Args:
        data: the movie, set up, in units of white.
        scene: its number.
        clean: the same movie without noise; None: there is none.
        labels: its regions, (H, W); None: the most active squares.

    Attributes:
        ends: dark and bright end of the denoised frames of each candidate.
        region_noise: of the means of the regions, stored units.
    """

    data: Movie
    scene: int = 0
    clean: SceneSet | None = None
    labels: np.ndarray | None = None
    traces: Traces = field(init=False)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    ends: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.data.movies is not None
        size = self.data.movies.smallest
        labels = self.labels
        if labels is None:
            # of all frames, also where a few are scored
            frames = Frames(self.data, self.scene)
            labels = active_regions(frame.mean(0) for frame in frames)
        height, width = size[len(size) - 2 :]
        if labels.shape != (height, width):
            raise InputError(
                f"the regions are {labels.shape[0]} x {labels.shape[1]} pixels, the frames"
                f" {height} x {width}"
            )
        self.traces = Traces(labels)
        self.region_noise = RegionNoise(labels, self.data.noise_of(self.scene))

    def add(
        self,
        name: str,
        denoise: DenoiseBatch,
        context: int,
        sees_middle: bool,
        aligned: bool = False,
    ) -> None:
        """Score a candidate on all frames.

        Args:
            name: of the candidate.
            denoise: a function of a batch of the frames that the network sees, along the channels,
                (1, F x C, ...), in units of white.
            context, sees_middle: of the network.
            aligned: it was trained with data.align=true.
        """
        noise = self.data.noise_of(self.scene)
        score = MovieScore(self.data.unit)
        errors = []
        seconds = 0.0

        def denoised(frames: Tensor) -> Tensor:
            return denoise(frames.flatten(0, 1)[None])[0].float().cpu()

        frames = 0
        shown = self.data.scored_frames(self.scene, context, sees_middle, aligned=aligned)
        for frame in shown:
            started = time.perf_counter()
            with torch.inference_mode():
                if noise.measurable:
                    output = score.add(denoised, frame, noise)
                else:
                    output = denoised(frame.shown)
            seconds += time.perf_counter() - started
            truth = self._truth(frame)
            if truth is not None:
                difference = (output - truth) * self.data.unit
                errors.append(float(difference.double().square().nanmean()))
            self.trace(name, frame, output, truth)
            frames += 1
        row: dict[str, Any] = {"psnr_estimate": None, "psnr_estimate_interval": [None, None]}
        if score.measured:
            row |= score.summary()
            self.rows.setdefault(NOISY_INPUT, _of_noisy(score))
        if errors:
            row["psnr"] = float(np.mean([decibels(error) or 0.0 for error in errors]))
            row["psnr_worst_frame"] = float(np.min([decibels(error) or 0.0 for error in errors]))
        row |= {"images": frames, "images_per_second": frames / max(seconds, 1e-9)}
        self.rows[name] = row

    def _truth(self, frame: ScoredFrame) -> Tensor | None:
        """Return a frame without noise, in units of white; NaN where the noisy one is."""
        if self.clean is None:
            return None
        stored = self.clean.image(self.scene, frame.number)[None]
        (values,) = self.data.without_outliers(stored)
        return values

    def trace(
        self, name: str, frame: ScoredFrame, output: Tensor, truth: Tensor | None = None
    ) -> None:
        """Add the means of the regions in a frame.

        Args:
            name: of the candidate.
            frame: the frame.
            output: the denoised frame, (C, ...), in units of the network.
            truth: without noise, likewise; None: not known.
        """
        target = frame.target
        images = {"noisy": target, name: output}
        if truth is not None:
            images["clean"] = truth
        black, span = self.data.limits or (0.0, 1.0)
        planes = {label: _plane(image) * span + black for label, image in images.items()}
        self.traces.add(frame.number, planes)
        self.ends.setdefault(name, []).append(ends_of(planes[name]))
        if self.region_noise.noise.measurable:
            noisy = target.double().flatten(0, -3).cpu().numpy()
            self.region_noise.add(frame.number, noisy, span)

    def certificates(self, tolerance: float) -> list[FileCertificate]:
        """Certify the means of the regions of each candidate.

        Args:
            tolerance: relative difference that is allowed.
        """
        reason = self.region_noise.noise.reason
        deviations = self.region_noise.deviations
        nothing = "structure in the residual is not searched for in movies"
        labels = self.traces.labels[None].astype(np.float64)
        files = []
        for name, ends in self.ends.items():
            dark, bright = np.nanmean(ends, 0)
            of_movie = (float(dark), float(bright))
            certificate = certify_regions(
                self.traces, name, deviations, of_movie, tolerance, reason
            )
            page = PageCertificate("", certificate, None, nothing, labels)
            files.append(FileCertificate(name, [page]))
        return files

    def differences(self) -> dict[str, dict[int, dict[str, float]]]:
        """Return the largest differences of each candidate, see `Traces.largest_differences`."""
        names = [name for name in self.rows if name != NOISY_INPUT]
        return {name: self.traces.largest_differences(name) for name in names}

    def write(self, folder: Path) -> None:
        """Write `regions.csv`, the means, and `regions.tif`, labels that were not given.

        Args:
            folder: made if needed.
        """
        import tifffile

        folder.mkdir(parents=True, exist_ok=True)
        lines = io.StringIO()
        rows = self.traces.rows()
        columns = list(rows[0]) if rows else ["frame", "region", "noisy"]
        writer = csv.DictWriter(lines, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with replacing(folder / "regions.csv") as temporary:
            temporary.write_text(lines.getvalue(), encoding="utf-8")
        if self.labels is not None:
            return
        with replacing(folder / "regions.tif") as temporary:
            tifffile.imwrite(temporary, self.traces.labels)

    def lines(self) -> list[str]:
        """Describe the largest difference of each candidate, for the terminal."""
        described = []
        for name, regions in self.differences().items():
            if not regions:
                continue
            region = max(regions, key=lambda label: abs(regions[label]["difference"]))
            worst = regions[region]
            line = (
                f"{name}: the mean of a region differs most in region {region}, frame"
                f" {worst['frame']:.0f}: {worst['denoised']:.4g} denoised, {worst['noisy']:.4g}"
                " noisy"
            )
            if self.rows[name]["images"] > 1:
                spread = worst["spread"]
                line += f" (standard deviation of the difference over time {spread:.2g})"
            described.append(line)
        return described


def _plane(image: Tensor) -> np.ndarray:
    """Return an image (C, ...) as one plane (H, W), the mean of channels and planes."""
    return image.double().flatten(0, -3).mean(0).cpu().numpy()


def _of_noisy(score: MovieScore) -> dict[str, Any]:
    """Return the row of the noisy frames."""
    error = QUANTILE * score.variance_error * score.noisy
    return {
        "psnr_estimate": decibels(score.noisy),
        "psnr_estimate_interval": [decibels(score.noisy + error), decibels(score.noisy - error)],
        "mse_estimate": score.noisy,
        "images": score.frames,
        "images_per_second": 0.0,
    }


def read_labels(path: str) -> np.ndarray:
    """Read a label image.

    Args:
        path: whole numbers, (H, W); 0 is no region.

    Raises:
        InputError: it is no such image.
    """
    labels = np.squeeze(np.asarray(opened(path).values[0].array))
    if labels.dtype.kind not in "iub" or len(labels.shape) != 2:
        raise InputError(
            "regions", path, "must be an image of whole numbers, one for each region, 0 elsewhere"
        )
    return labels.astype(np.int64)


def read_clean(path: str, data: Movie) -> SceneSet:
    """Read the movie without noise that belongs to a noisy one.

    Args:
        path: of the clean movie.
        data: the noisy movie, set up.

    Raises:
        InputError: it differs in size or number of frames.
    """
    assert data.movies is not None
    layout = data.layout
    if layout == "auto" and data.dims == 3 and not first_axes(path, data.exclude):
        layout = first_axes(data.noisy, data.exclude).replace("T", "N") or layout
    clean = read_movies(path, layout, data.exclude, data.dims)
    alike = (
        clean.smallest == data.movies.smallest
        and clean.channels == data.movies.channels
        and len(clean) == len(data.movies)
    )
    if alike:
        for scene in range(len(clean)):
            alike &= clean.count_of(scene) > max(data.frame_numbers(scene))
    if not alike:
        noisy = option("noisy", data.noisy)
        raise InputError(
            "clean", path, f"differs in size, channels or number of frames from {noisy}"
        )
    return clean
