"""The same steps in Python, for notebooks: `inspect_images`, `fit`, `score`, `best`.

`load` (inference/denoiser.py) loads a trained network, which denoises. Images are numpy arrays or
paths of files and folders.
"""

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from n2n_lightning import inspection
from n2n_lightning.arrays import axes
from n2n_lightning.config import overrides as override_syntax
from n2n_lightning.data.capture_noise import as_facts, levels_of, scored_direction
from n2n_lightning.data.intensity import intensity_stats as values_of
from n2n_lightning.data.reading import read_any, read_scenes
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.denoiser import TrainedDenoiser, load
from n2n_lightning.inference.error_files import second_captures
from n2n_lightning.inference.plan import planned
from n2n_lightning.inspection.inspection_report import InspectionReport
from n2n_lightning.metrics.noisy_reference import Estimates, summarise_estimates
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.paths import expand
from n2n_lightning.runs.folder import read_history
from n2n_lightning.selection.data_set import LABELS, is_label_array, kind_of_file
from n2n_lightning.selection.search import search
from n2n_lightning.selection.sources import data_of_kind, kinds_of
from n2n_lightning.training.run import start

ImageInput = np.ndarray | str | Path


@dataclass
class FitResult:
    """The result of a run.

    Attributes:
        model: the network of the best epoch, `model.denoise(array)`.
        folder: the run folder, which every command takes.
        result: the content of its result.json: scores, seconds, versions.
        history: a row for each epoch, as metrics.csv has them.
    """

    model: TrainedDenoiser
    folder: Path
    result: dict[str, Any]
    history: list[dict[str, float]]


def inspect_images(
    noisy: ImageInput, second: ImageInput | None = None, layout: str = "auto"
) -> InspectionReport:
    """Inspect noisy images before training, as `n2n check` does.

    Args:
        noisy: images (N, H, W), (N, H, W, C) or (N, C, H, W), or a file or folder; with several
            captures of each scene (N, K, C, H, W).
        second: the second captures of the same scenes.
        layout: the axes, as NHW, where they are not clear.

    Returns:
        The report; print it.

    Raises:
        InputError: they cannot be read.

    >>> draws = np.random.default_rng(0)
    >>> scene = np.cumsum(draws.normal(size=(2, 64, 64)), 2)
    >>> captures = [scene + draws.normal(0, 3, scene.shape) for _ in range(2)]
    >>> report = inspect_images(*captures, layout="NHW")
    >>> round(report.numbers["sigma"]), report.numbers["white"], report.source
    (3, True, 'pairs')
    """
    with _saved_as_files(noisy, second) as (first, other):
        return inspection.inspect(read_any(first, other, layout))


def fit(
    noisy: ImageInput,
    target: ImageInput | None = None,
    *options: str,
    folder: str | Path | None = None,
    lines: bool = True,
    device: str = "auto",
) -> FitResult:
    """Train a network on noisy images.

    Args:
        noisy: images, or a file or folder: one capture of each scene (neighbouring pixels are
            the pairs), or several.
        target: the second captures, in the same order; may be left out before options.
        *options: options of `n2n train`: "trainer.max_epochs=4",
            "model=unet", "data.layout=NHW". `data=` is `pairs` where there is a target, `single`
            where there is none.
        folder: the run folder, which must not have a run yet; None makes one in outputs/runs.
            The command resumes it (`resume=`) where `noisy` is a file or folder; arrays are gone
            when this returns.
        lines: print a line for each epoch.
        device: of the network that is returned; `auto`: a GPU if there is one. Where it is trained
            is "trainer.accelerator=".

    Returns:
        The trained network, the run folder and its results.

    Raises:
        InputError: the images or the options cannot work.
    """
    if isinstance(target, str) and _is_option(target):
        options, target = (target, *options), None  # fit(noisy, "trainer.max_epochs=4")
    source = [option for option in options if option.startswith("data=")]
    if not source:
        source = ["data=single" if target is None else "data=pairs"]
    others = [option for option in options if not option.startswith("data=")]
    place = Path(folder) if folder is not None else override_syntax.claim_run_folder([])[1]
    assert place is not None
    if (place / "result.json").exists():
        raise InputError(f"{place} holds a run; another folder= starts anew")
    output = contextlib.nullcontext() if lines else contextlib.redirect_stdout(io.StringIO())
    with _saved_as_files(noisy, target) as (first, second), output:
        images = [f"data.noisy={first}"] + ([f"data.target={second}"] if second else [])
        overrides = override_syntax.quoted([*source, *images, *others])
        config = override_syntax.compose_config(overrides)
        if config.trainer.get("fast_dev_run"):
            raise InputError(
                "trainer.fast_dev_run: keeps no network to return; trainer.max_epochs=1 with"
                " +trainer.limit_train_batches=1 tries one batch and keeps it"
            )
        result = start(config, place, overrides, lines=True)
    model = load(place, device=device)
    return FitResult(model, place, result, list(read_history(place)))


@dataclass
class BestResult:
    """What `best` chose.

    Attributes:
        denoiser: of what was chosen.
        result: the data, denoised: an array like the given one; of files a list of arrays, label
            images as they are.
        name: of the candidate.
        why: it was chosen.
        table: a row for each candidate: name, estimated PSNR, difference to the bundled checkpoint.
    """

    denoiser: TrainedDenoiser
    result: Any
    name: str
    why: str
    table: list[dict[str, Any]]

    def denoise(self, array: Any, **options: Any) -> Any:
        """Denoise more data of the same kind, see TrainedDenoiser.denoise."""
        return self.denoiser.denoise(array, **options)


def best(
    data: ImageInput,
    second: ImageInput | None = None,
    minutes: float = 30.0,
    layout: str | None = None,
    lines: bool = True,
) -> BestResult:
    """Compare candidates by scores without clean images, train some, and take the best.

    Args:
        data: pictures, movies or volumes of one kind: an array, a file, or a folder, which may have
            a folder of captures for each scene.
        second: the second captures of the same scenes.
        minutes: of processor time.
        layout: the axes of an array, as NHW, where they are not clear.
        lines: print what is tried, what each scored, and why.

    Returns:
        The choice (docs/how-to/best.md).

    Raises:
        InputError: they cannot be read, or are of several kinds.
    """
    say = print if lines else _say_nothing
    with _saved_as_files(data, second) as (first, other), tempfile.TemporaryDirectory() as work:
        jobs, _ = planned([first], Path(work) / "results")
        seconds = {} if other is None else second_captures([first], Path(other), jobs)
        asked = AskedAxes(layout)
        of_kinds, unreadable = kinds_of(jobs, asked)
        for job in unreadable:
            kind_of_file(job, asked)  # says why
        kinds = sorted(set(of_kinds) - {LABELS})
        if len(kinds) > 1:
            raise InputError(f"{first}: holds {' and '.join(kinds)}; name one kind")
        if not kinds:
            raise InputError(f"{first}: holds no pictures, only label images or masks")
        pictures = data_of_kind(kinds[0], of_kinds, seconds, asked, [first])
        choice = search(pictures, minutes, Path(work) / "search", say)
        denoiser = choice.denoiser()
        axes_of_data = layout or "auto"
        if isinstance(data, np.ndarray):
            result: Any = denoiser.denoise(data, axes=axes_of_data)
        else:
            result = []
            for job in jobs:
                picture = opened(job.source, job.part)
                for values in picture.values:
                    reading = picture.read_as(values, asked)
                    if is_label_array(picture, values, reading):
                        result.append(np.array(values.array))
                        continue
                    result.append(denoiser.denoise(values.array, axes=reading.axes))
    return BestResult(denoiser, result, choice.name, choice.why, choice.table)


def _say_nothing(line: str) -> None:
    pass


def _is_option(text: str) -> bool:
    """Return True for an option (trainer.max_epochs=4), unless a file has this name."""
    return bool(re.match(r"[+~]?[\w.@/]+=", text)) and not Path(text).exists()


def score(
    model: TrainedDenoiser, noisy: ImageInput, second: ImageInput, layout: str = "auto"
) -> dict[str, Any]:
    """Score a network on pairs of noisy captures that it was not trained on.

    Args:
        model: the network.
        noisy: a capture of each scene, images or a file or folder.
        second: another capture of each.
        layout: the axes, where they are not clear.

    Returns:
        `psnr_estimate` in dB, its 95% `psnr_estimate_interval`, `noisy_psnr_estimate` of the noisy
        images, `scale`, the stored value that is white for them, and `score_of`: the captures that
        this is the score of (the noisier ones, where their noise differs by 1.5 times or more), and
        their noise. Where isolated pixels stand out, also `outlier_pixels` and
        `psnr_estimate_without_outliers`.
    """
    found, without, pixels = Estimates(), Estimates(), 0
    with _saved_as_files(noisy, second) as (first, other):
        scenes = read_scenes(first, other, layout)
        seen = values_of(scenes)
        scale = model.scale or seen.white
        levels = levels_of(scenes, seen)
        direction = scored_direction(levels)
        limits = model.range_in(scenes.unit)
        options: dict[str, Any] = {}
        # the files' unit is another one than in training
        if limits != model.range and limits is not None:
            options = {"black": limits[0], "scale": limits[0] + limits[1]}
        for number in range(len(scenes.names)):
            captures = [scenes.image(number, k) for k in direction.order]
            letters = "CDHW" if axes.deep(captures[0][None]) else "CHW"
            both = [
                model.denoise(y.float(), axes=letters, outlier_map=True, **options)
                for y in captures
            ]
            outliers = torch.stack([marks > 0 for _, marks in both]).any(0)
            first_two = [y[None].double() / scale for y in captures]
            denoised = [output[None].double() / scale for output, _ in both]
            own = direction.noise_of(first_two[1][0], first_two[0][0])
            power = None if own is None else own[None]
            found.add(first_two, denoised, noise=power)
            without.add(
                [torch.where(outliers, torch.nan, y) for y in first_two], denoised, noise=power
            )
            pixels += int(outliers.any(0).sum())
    facts = {"scale": scale, "score_of": as_facts(levels, direction.captures)}
    result = {
        **summarise_estimates(found),
        "noisy_psnr_estimate": psnr(max(found.noisy, 1e-12)),
        **facts,
    }
    if pixels:
        result["psnr_estimate_without_outliers"] = psnr(max(without.error, 1e-12))
        result["outlier_pixels"] = pixels
    return result


@contextlib.contextmanager
def _saved_as_files(
    noisy: ImageInput, second: ImageInput | None
) -> Iterator[tuple[str, str | None]]:
    """Save arrays to temporary files.

    Yields:
        The paths of the first and second images, the latter or None."""
    # Windows keeps what is mapped
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:

        def path_of(images: ImageInput, name: str) -> str:
            if not isinstance(images, np.ndarray):
                return expand(str(images))
            path = Path(folder) / f"{name}.npy"
            np.save(path, images)
            return str(path)

        yield path_of(noisy, "noisy"), None if second is None else path_of(second, "second")
