"""Adaptation: fine-tune a trained network on the noisy pictures that it is to denoise."""

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from n2n_lightning import inspection
from n2n_lightning.arrays.axes import as_pages, evenly
from n2n_lightning.arrays.bad_pixels import mask_invalid
from n2n_lightning.data import SingleImages
from n2n_lightning.data.scene_set import EqualSizeScenes, MixedSizeScenes, SceneSet, middle
from n2n_lightning.files import InputError, option, replacing
from n2n_lightning.inference.checkpoint import CheckpointInfo, network_checkpoint
from n2n_lightning.inference.denoiser import TrainedDenoiser, load
from n2n_lightning.metrics import sure
from n2n_lightning.metrics.noise_model import noise_line_of_residual
from n2n_lightning.metrics.single_noise import single_noise
from n2n_lightning.training import warm_start
from n2n_lightning.training.callbacks import StopOnSignal
from n2n_lightning.training.module import Denoiser
from n2n_lightning.training.precision import precision
from n2n_lightning.training.run import silence_lightning
from n2n_lightning.training.schedulers import time_spent, warmup_cosine

MAX_IMAGES = 64  # pictures to train on, evenly spread over all: more would not be seen in minutes
MIN_SIDE = 24  # pixels of a side, for a few crops of half the size
# Pictures on which Stein's estimate is computed, and the side of the square in the middle of each:
# enough for a stable estimate, and a second or two per share.
RISK_IMAGES, RISK_SIDE = 8, 192
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from the checkpoint to the fine-tuned weights
# A tenth of the rate of training from random weights: 5e-4 destroyed some of what the checkpoint
# knew (benchmarks/single.py adapt).
RATE = 2e-4
# Rise and fall of the rate, as conf/scheduler/cosine.yaml has them.
WARMUP, DECAY = 0.02, 0.98


class ImagesInMemory(SingleImages):
    """Single images that were read already.

    Args:
        images: of one type and number of channels, (C, H, W) each.
        names: of the images.
        nodata_values: stored values of missing pixels.
        **options: of SingleImages.
    """

    def __init__(
        self,
        images: Sequence[torch.Tensor],
        names: Sequence[str],
        nodata_values: tuple[float, ...],
        **options: Any,
    ) -> None:
        super().__init__("the pictures", val_share=0, **options)
        self.images, self.names = list(images), list(names)
        self.given_nodata = nodata_values

    def _scenes(self) -> SceneSet:
        self.crop = self._suitable_crop()
        if len({image.shape for image in self.images}) > 1:
            captures = [[image] for image in self.images]
            return MixedSizeScenes(captures, self.names, self.given_nodata)
        return EqualSizeScenes([torch.stack(self.images)], self.names, None, self.given_nodata)


def choose_method(images: Sequence[torch.Tensor], names: Sequence[str]) -> dict[str, Any]:
    """Choose the options of data=single that suit the noise of some pictures.

    Args:
        images: the pictures, (C, H, W) each.
        names: of the pictures.

    Returns:
        `method`, and `mask` where it is `masked`.

    Raises:
        InputError: no method fits, for the noise of neighbouring pixels is correlated in all
            directions; or the pictures are too small.
    """
    scenes = MixedSizeScenes([[image] for image in images], list(names))
    report = inspection.inspect(scenes)
    if report.advice is None:
        raise InputError("adapt", True, report.why)
    smallest = min(min(image.shape[1:]) for image in images)
    if smallest < MIN_SIDE:
        raise InputError(
            "adapt",
            True,
            f"{smallest} pixels are too few to learn from; {MIN_SIDE} in height and width are"
            " needed",
        )
    advice = dict(word.removeprefix("data.").split("=") for word in report.advice)
    if advice.get("method") != "masked":
        return {"method": "neighbours"}
    return {"method": "masked", "mask": advice["mask"]}


class ProgressReporter(pl.Callback):
    """Call a function after every step with the share of the training time that is over.

    Args:
        advance: takes the share, 0 to 1.
    """

    def __init__(self, advance: Callable[[float], Any]) -> None:
        self.advance = advance

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        self.advance(min(1.0, time_spent(trainer)))


@dataclass
class Adapted:
    """The result of an adaptation.

    Attributes:
        model: the adapted network.
        info: facts about it for its checkpoint.
        share: of the way from the checkpoint to the fine-tuned weights, 0 to 1.
    """

    model: TrainedDenoiser
    info: CheckpointInfo
    share: float


def adapt(
    checkpoint: Path,
    images: Sequence[torch.Tensor],
    names: Sequence[str],
    minutes: float,
    device: str = "cpu",
    nodata_values: tuple[float, ...] = (),
    allow: Sequence[str] = (),
    advance: Callable[[float], Any] = lambda share: None,
    seed: int = 0,
    outliers: str = "auto",
    unit: tuple[float, float] | None = None,
) -> Adapted:
    """Fine-tune a checkpoint on pictures, by neighbours or masks, whichever their noise allows.

    Ctrl-C ends it as if the time were over. Neighbours are pictures of half the size, so that a
    checkpoint that knew the noise already may get worse by them. The result is therefore as far on
    the way from the old weights to the new ones (Wortsman et al., Robust fine-tuning, CVPR 2022) as
    Stein's estimate of the error on the pictures is least, where their noise is white.

    Args:
        checkpoint: the run folder or checkpoint file to begin with.
        images: the pictures, (C, H, W) each, of one type and number of channels, in stored values.
        names: of the pictures.
        minutes: of training.
        device: of training.
        nodata_values: stored values of missing pixels.
        allow: see denoiser.load.
        advance: called after every step with the share of the time that is over.
        seed: of crops, turns and draws.
        outliers: treatment of isolated pixels that stand out, see choices.OUTLIERS.
        unit: (factor, offset) that convert the stored values to physical ones.

    Returns:
        The adapted network, on the device.

    Raises:
        InputError: the pictures do not allow it.
    """
    silence_lightning()
    pl.seed_everything(seed, verbose=False)
    options = choose_method(images, names)
    options |= {"outliers": outliers, "train_pairs": 4000, "augment": True, "batch_size": 8}
    data = ImagesInMemory(images, names, nodata_values, seed=seed, **options)
    data.setup()
    network, spec = _network(checkpoint, data.channels, allow)
    before = copy.deepcopy(network.state_dict())
    network.train()
    module = Denoiser(
        network,
        reference="self",
        optimizer=partial(torch.optim.Adam, lr=RATE),
        scheduler=partial(warmup_cosine, warmup=WARMUP, decay=DECAY),
        second_pass=data.second_pass,
    )
    trainer = _trainer(device, minutes, [StopOnSignal(), ProgressReporter(advance)])
    trainer.fit(module, data)
    info = CheckpointInfo(spec, data.scale, data.limits, unit)
    model = TrainedDenoiser(network.float().eval(), data.channels, info).to(device)
    share = 1.0
    if options["method"] == "neighbours":
        share = _interpolate_weights(model, before, images, nodata_values)
    return Adapted(model, info, share)


def _trainer(device: str, minutes: float, callbacks: list[pl.Callback]) -> pl.Trainer:
    kind, index = torch.device(device).type, torch.device(device).index
    devices = [index or 0] if kind == "cuda" else 1
    options = {"precision": "auto", "accelerator": kind, "devices": devices}
    return pl.Trainer(
        max_epochs=-1,
        max_time=timedelta(minutes=minutes),
        accelerator="gpu" if kind == "cuda" else kind,
        devices=devices,
        precision=precision(options),  # type: ignore[arg-type]
        limit_val_batches=0,
        gradient_clip_val=1.0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _interpolate_weights(
    model: TrainedDenoiser,
    before: dict[str, torch.Tensor],
    images: Sequence[torch.Tensor],
    nodata_values: tuple[float, ...] = (),
) -> float:
    """Set the weights between the old and the new ones where Stein's estimate is least.

    Args:
        model: with the new weights; it is changed.
        before: the old weights.
        images: (C, H, W) each, in stored values.
        nodata_values: stored values of missing pixels.

    Returns:
        The share of the way from the old weights to the new ones.
    """
    after = {name: value.clone() for name, value in model.network.state_dict().items()}
    samples = []
    for i in evenly(len(images), RISK_IMAGES):
        image = middle(images[i], RISK_SIDE)
        samples.append(mask_invalid(image, image.double(), nodata_values).numpy())

    def set_weights(share: float) -> None:
        mixed = {n: torch.lerp(before[n].to(v), v, share) for n, v in after.items()}
        model.network.load_state_dict(mixed)

    def denoise(image: np.ndarray) -> np.ndarray:
        return model.denoise(image, axes="CHW")

    line = noise_line_of_pictures(images, nodata_values)
    if line is None:
        lines = []
        for share in (0.0, 1.0):
            set_weights(share)
            denoised = [denoise(image.astype(np.float32)) for image in samples]
            lines.append(noise_line_of_residual(samples, denoised))
        brightness = float(np.mean([np.nanmean(image) for image in samples]))
        # one that removes next to nothing finds no noise: the larger variance is nearer the truth
        line = max(lines, key=lambda line: line[0] + line[1] * brightness)
    risks = {}
    for share in SHARES:
        set_weights(share)
        risks[share] = sure.sure(denoise, samples, line)
    best = min(risks, key=lambda share: risks[share])
    set_weights(best)
    return best


def noise_line_of_pictures(
    images: Sequence[torch.Tensor], nodata_values: tuple[float, ...] = ()
) -> tuple[float, float] | None:
    """Return the line of the noise's variance, as the pictures show it.

    Args:
        images: (C, H, W) each, in stored values.
        nodata_values: stored values of missing pixels.

    Returns:
        Medians of a and b over the pictures of white noise; None where it is not measurable.
    """
    lines = []
    for i in evenly(len(images), RISK_IMAGES):
        values = mask_invalid(images[i], images[i].double(), nodata_values)
        noise = single_noise(values.numpy())
        if noise.measurable and noise.white:
            lines.append((noise.a.mean(), noise.b.mean()))
    if not lines:
        return None
    a, b = np.median(lines, 0).tolist()
    return a, b


def _network(
    checkpoint: Path, channels: int, allow: Sequence[str]
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a checkpoint, fitted to a number of channels, and what builds it."""
    trained = load(checkpoint, allow, device="cpu")
    spec = warm_start.checkpoint_model(checkpoint, allow)
    if trained.context:
        raise InputError(
            f"{checkpoint}: is for movies, and {option('adapt', True)} learns from single pictures"
        )
    if trained.channels == channels:
        return trained.network, spec
    if "channels" not in spec:
        raise InputError(
            f"{checkpoint}: is for {trained.channels} channels, and the pictures have {channels}"
        )
    spec = {**spec, "channels": channels}
    options = {name: value for name, value in spec.items() if name != "_target_"}
    network = type(trained.network)(**options)
    warm_start.copy(trained, network, channels, str(checkpoint))
    return network, spec


def save(model: TrainedDenoiser, info: CheckpointInfo, path: Path) -> None:
    """Write a checkpoint of the network alone.

    Args:
        model: the network.
        info: facts about it.
        path: of the checkpoint.
    """
    with replacing(path) as temporary:
        torch.save(network_checkpoint(model.network, info), temporary)


def collected(
    arrays: Sequence[tuple[np.ndarray, str, bool, bool, str]],
) -> tuple[list[torch.Tensor], list[str]]:
    """Collect images to train on from pictures, MAX_IMAGES at most.

    Colours stay together; other channels, and those of an array of fewer or more than three, are
    images of their own.

    Args:
        arrays: of each picture its values, its axes, whether its last channel is transparency,
            whether its channels are colours, and its name.

    Returns:
        The images, (C, H, W) each, and their names.

    Raises:
        InputError: they are of several kinds.
    """
    pages: list[tuple[np.ndarray, str]] = []
    kinds = set()
    for array, axes, alpha, colour, name in arrays:
        source = as_pages(array, axes)
        *stacked, _, _, channels = source.shape
        channels -= alpha
        together = colour and channels == 3
        kinds.add((array.dtype.name, 3 if together else 1))
        for place in np.ndindex(*stacked):
            page = source[place][..., :channels]
            if together:
                pages.append((page, name))
            else:
                pages += [(page[..., k : k + 1], name) for k in range(channels)]
    if len(kinds) > 1:
        listed = ", ".join(sorted(f"{n} channels of {kind}" for kind, n in kinds))
        raise InputError(
            "adapt",
            True,
            f"the pictures are of several kinds ({listed}); adapt to each kind by itself",
        )
    images, names = [], []
    for i in evenly(len(pages), MAX_IMAGES):
        page, name = pages[i]
        images.append(torch.from_numpy(np.ascontiguousarray(np.moveaxis(page, -1, 0))))
        names.append(name)
    return images, names


@contextlib.contextmanager
def progress_bar(minutes: float) -> Iterator[Callable[[float], Any]]:
    """Show a progress bar with the time left, where the output is a terminal.

    Args:
        minutes: of training.

    Yields:
        A function of the share of the time that is over, which `adapt` calls.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("adapting"), BarColumn(), TimeRemainingColumn())
    quiet = not sys.stderr.isatty()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task("adapting", total=60 * minutes)
        yield lambda share: bar.update(task, completed=share * 60 * minutes)
