"""The same steps in Python, for notebooks: `inspect_images` at noisy images, `fit` from them, `score` what was learnt.

`load` (inference/denoiser.py) takes what was learnt and denoises. Images are numpy arrays or the
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
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from n2n_lightning import inspection
from n2n_lightning.arrays import axes
from n2n_lightning.config import overrides as override_syntax
from n2n_lightning.data.capture_noise import as_facts, levels_of, scored_direction
from n2n_lightning.data.intensity import intensity_stats as values_of
from n2n_lightning.data.reading import read_any, read_scenes
from n2n_lightning.files import InputError, replacing
from n2n_lightning.inference.denoiser import TrainedDenoiser, load
from n2n_lightning.inspection.reports import InspectionReport
from n2n_lightning.metrics.noisy_reference import Estimates, summarise_estimates
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.paths import expand
from n2n_lightning.runs import folder as run_folder
from n2n_lightning.training.run import train

ImageInput = np.ndarray | str | Path


@dataclass
class FitResult:
    """What came of a run.

    Attributes:
        model: the network of the best epoch, `model.denoise(array)`.
        folder: the run folder, which every command takes.
        result: what its result.json holds: scores, seconds, versions.
        history: a row for each epoch, as metrics.csv has them.
    """

    model: TrainedDenoiser
    folder: Path
    result: dict[str, Any]
    history: list[dict[str, float]]


def inspect_images(
    noisy: ImageInput, second: ImageInput | None = None, layout: str = "auto"
) -> InspectionReport:
    """A look at noisy images before training, as `python -m n2n_lightning.check` has it; print it.

    Args:
        noisy: images (N, H, W), (N, H, W, C) or (N, C, H, W), or a file or folder; with several
            captures of each scene (N, K, C, H, W).
        second: the second captures of the same scenes.
        layout: what the axes are, NHW for one, where that is not clear.

    Raises:
        InputError: they cannot be read.

    >>> draws = np.random.default_rng(0)
    >>> scene = np.cumsum(draws.normal(size=(2, 64, 64)), 2)
    >>> report = inspect_images(*(scene + draws.normal(0, 3, scene.shape) for _ in range(2)), layout="NHW")
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
) -> FitResult:
    """Trains a network on noisy images.

    Args:
        noisy: images, or a file or folder: one capture of each scene (neighbouring pixels are
            learnt from), or several.
        target: the second captures, in the same order; may be left out before options.
        *options: what one types after `python -m n2n_lightning.train`: "trainer.max_epochs=4",
            "model=unet", "data.layout=NHW". `data=` is `pairs` where there is a target, `single`
            where there is none.
        folder: the run folder, which must not have a run yet; None makes one in outputs/runs.
            `resume=` of the command goes on with it where `noisy` is a file or folder; arrays are
            gone when this returns.
        lines: print a line for each epoch.

    Raises:
        InputError: they, or the options, cannot work.
    """
    if (
        isinstance(target, str)
        and re.match(r"[+~]?[\w.@/]+=", target)
        and not Path(target).exists()
    ):
        options, target = (target, *options), None  # learn(noisy, "trainer.max_epochs=4")
    chosen = [o for o in options if o.startswith("data=")] or [
        "data=pairs" if target is not None else "data=single"
    ]
    rest = [o for o in options if not o.startswith("data=")]
    place = (
        Path(folder)
        if folder is not None
        else override_syntax.claim_run_folder([])[1] or Path("outputs", "runs")
    )
    if (place / "result.json").exists():
        raise InputError(f"{place} holds a run; another folder= starts anew")
    with _saved_as_files(noisy, target) as (first, second):
        data = [f"data.noisy={first}"] + ([f"data.target={second}"] if second else [])
        asked = override_syntax.quoted([*chosen, *data, *rest])
        with initialize_config_dir(str(override_syntax.CONF), version_base="1.3"):
            composed = compose("config", asked)
        config: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        override_syntax.apply_time_budget(config, rest)
        if config["trainer"].get("fast_dev_run"):
            raise InputError(
                "trainer.fast_dev_run: keeps no network to return; trainer.max_epochs=1 with"
                " +trainer.limit_train_batches=1 tries one batch and keeps it"
            )
        override_syntax.placed(config, Path.cwd())

        def accepted() -> None:
            for name, content in {"config": composed, "overrides": asked}.items():
                with replacing(place / ".hydra" / f"{name}.yaml") as temporary:
                    OmegaConf.save(content, temporary)

        quiet: Any = (
            contextlib.nullcontext() if lines else contextlib.redirect_stdout(io.StringIO())
        )
        with run_folder.locked(place), quiet:
            command = " ".join(["n2n_lightning.training.run", *map(override_syntax.bare, asked)])
            result = train(config, place, command, lines=True, accepted=accepted)
    model = load(place)
    return FitResult(model, place, result, list(run_folder.read_history(place)))


def score(
    model: TrainedDenoiser, noisy: ImageInput, second: ImageInput, layout: str = "auto"
) -> dict[str, Any]:
    """How good a network is on pairs of noisy captures that it has not learnt from; see docs/explanation/scores.md.

    Args:
        model: the network.
        noisy, second: two captures of each scene, images or a file or folder.
        layout: what the axes are, where that is not clear.

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
    """The paths of images; arrays get files of their own for as long as they are needed."""
    # Windows keeps what is mapped
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:

        def path_of(images: ImageInput, name: str) -> str:
            if not isinstance(images, np.ndarray):
                return expand(str(images))
            path = Path(folder) / f"{name}.npy"
            np.save(path, images)
            return str(path)

        yield path_of(noisy, "noisy"), None if second is None else path_of(second, "second")
