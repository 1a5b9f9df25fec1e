"""A trained network that goes on learning from the noisy pictures that it is to denoise."""

import contextlib
import copy
import math
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
from n2n_lightning.data.scenes import EqualSizeScenes, MixedSizeScenes, SceneSet, middle
from n2n_lightning.files import InputError, option, replacing
from n2n_lightning.inference.checkpoint import CheckpointInfo, network_checkpoint
from n2n_lightning.inference.denoiser import TrainedDenoiser, load
from n2n_lightning.metrics import sure
from n2n_lightning.metrics.noise_model import noise_line_of_residual
from n2n_lightning.training import warm_start
from n2n_lightning.training.module import Denoiser
from n2n_lightning.training.run import precision, silence_lightning

MAX_IMAGES = 64  # pictures that are learnt from, evenly spread over all
MIN_SIDE = 24  # pixels of a side
# pictures, and pixels of the middle of each, that say how far to go
RISK_IMAGES, RISK_SIDE = 8, 192
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from the checkpoint to what was learnt
# a tenth of what training from nothing takes: the network knows much already, and 5e-4 unlearnt
# some of it
RATE = 2e-4


class ImagesInMemory(SingleImages):
    """Pictures that were read already, to make pairs of.

    Args:
        images: of one type and number of channels, (C, H, W) each.
        names: of the images.
        nodata_values: stored values that mean that a pixel is missing.
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
        self.images, self.names, self.declared = list(images), list(names), nodata_values

    def _scenes(self) -> SceneSet:
        self.crop = self._suitable_crop()
        if len({image.shape for image in self.images}) > 1:
            return MixedSizeScenes([[image] for image in self.images], self.names, self.declared)
        return EqualSizeScenes([torch.stack(self.images)], self.names, None, self.declared)


def method(images: Sequence[torch.Tensor], names: Sequence[str]) -> dict[str, Any]:
    """The options of data=single that suit the noise of some pictures.

    Raises:
        InputError: none do: neighbouring pixels have noise in common, in all directions.
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
    asked = dict(word.removeprefix("data.").split("=") for word in report.advice)
    if asked.get("method") == "masked":
        return {"method": "masked", "mask": [int(n) for n in asked["mask"].strip("[]").split(",")]}
    return {"method": "neighbours"}


class TimeBudget(pl.Callback):
    """Ends training when its time is over, or Ctrl-C arrives; the rate rises for a moment and falls to 0 till then."""

    def __init__(self, seconds: float, advance: Any) -> None:
        self.seconds, self.advance = seconds, advance
        self.started, self.stopped = time.monotonic(), False
        self._before: Any = None

    @property
    def share(self) -> float:
        """Of the time that is over."""
        return min(1.0, (time.monotonic() - self.started) / self.seconds)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._stop)

    def _stop(self, signum: int, frame: Any) -> None:
        self.stopped = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends it all

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        pl_module.share = self.share  # type: ignore[assignment]
        rise = min(1.0, (trainer.global_step + 1) / 20)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = RATE * rise * 0.5 * (1 + math.cos(math.pi * self.share))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        self.advance(self.share)
        if self.stopped or self.share >= 1:
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


@dataclass
class Adapted:
    """What came of it.

    Attributes:
        model: the adapted network.
        info: what its checkpoint says of the network.
        share: how far it went from the checkpoint to what was learnt, 0 to 1.
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
    advance: Any = lambda share: None,
    seed: int = 0,
    outliers: str = "auto",
    unit: tuple[float, float] | None = None,
) -> Adapted:
    """Continues a checkpoint on pictures themselves, by neighbours or masks, whichever their noise allows.

    Neighbours are pictures of half the size, so that a checkpoint that knew the noise already may
    get worse by them. The result is therefore as far on the way from the old weights to the new
    ones (Wortsman et al., Robust fine-tuning, CVPR 2022) as Stein's estimate of the error on the
    pictures is least, where their noise is white.

    Args:
        checkpoint: the run folder or checkpoint file to begin with.
        images: the pictures, (C, H, W) each, of one type and number of channels, in stored values.
        names: of the pictures.
        minutes: how long.
        device: where.
        nodata_values: stored values that mean that a pixel is missing.
        allow: see denoiser.load.
        advance: called after every step with the share of the time that is over.
        seed: of crops, turns and draws.
        outliers: what happens to isolated pixels that stand out, see choices.OUTLIERS.
        unit: (factor, offset) that convert the stored values to physical ones.

    Raises:
        InputError: the pictures do not allow it.
    """
    silence_lightning()
    pl.seed_everything(seed, verbose=False)
    options = method(images, names)
    options |= {"outliers": outliers, "train_pairs": 4000, "augment": True, "batch_size": 8}
    data = ImagesInMemory(images, names, nodata_values, seed=seed, **options)
    data.setup()
    network, spec = _network(checkpoint, data.channels, allow)
    before = copy.deepcopy(network.state_dict())
    network.train()
    module = Denoiser(
        network,
        reference="self",
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=RATE),
        second_pass=data.second_pass,
    )
    trainer = _trainer(device, TimeBudget(60 * minutes, advance))
    trainer.fit(module, data)
    info = CheckpointInfo(spec, data.scale, data.limits, unit)
    model = TrainedDenoiser(network.float().eval(), data.channels, info).to(device)
    share = (
        _go_back(model, before, images, nodata_values) if options["method"] == "neighbours" else 1.0
    )
    return Adapted(model, info, share)


def _trainer(device: str, budget: TimeBudget) -> pl.Trainer:
    accelerator = torch.device(device).type
    return pl.Trainer(
        max_epochs=10**6,
        accelerator={"cuda": "gpu"}.get(accelerator, accelerator),
        devices=[torch.device(device).index or 0] if accelerator == "cuda" else 1,
        precision=precision({"precision": "auto", "accelerator": accelerator}),  # type: ignore[arg-type]
        limit_val_batches=0,
        gradient_clip_val=1.0,
        callbacks=[budget],
        **dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        ),  # type: ignore[arg-type]
    )


def _go_back(
    model: TrainedDenoiser,
    before: dict[str, torch.Tensor],
    images: Sequence[torch.Tensor],
    nodata_values: tuple[float, ...] = (),
) -> float:
    """Leaves the model as far on the way from its weights `before` as Stein's estimate is least; returns that share."""
    after = {name: value.clone() for name, value in model.network.state_dict().items()}
    looked = [middle(images[i], RISK_SIDE) for i in evenly(len(images), RISK_IMAGES)]
    some = [mask_invalid(image, image.double(), nodata_values).numpy() for image in looked]

    def go(share: float) -> None:
        model.network.load_state_dict(
            {n: torch.lerp(before[n].to(v), v, share) for n, v in after.items()}
        )

    def denoise(image: np.ndarray) -> np.ndarray:
        return model.denoise(image, axes="CHW")

    lines = []
    for share in (0.0, 1.0):
        go(share)
        denoised = [denoise(image.astype(np.float32)) for image in some]
        lines.append(noise_line_of_residual(some, denoised))
    bright = float(np.mean([np.nanmean(image) for image in some]))
    # what removes next to nothing knows no noise
    line = max(lines, key=lambda line: line[0] + line[1] * bright)
    risks = {}
    for share in SHARES:
        go(share)
        risks[share] = sure.sure(denoise, some, line)
    best = min(risks, key=lambda share: risks[share])
    go(best)
    return best


def _network(
    checkpoint: Path, channels: int, allow: Sequence[str]
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint for images of so many channels, with its weights; and what builds it."""
    trained, spec = load(checkpoint, allow), warm_start.checkpoint_model(checkpoint)
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
    network = type(trained.network)(
        **{name: value for name, value in spec.items() if name != "_target_"}
    )
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
    """Pictures as images to learn from, (C, H, W) each, up to MAX_IMAGES of them.

    Colours stay together; other channels, and those of an array of fewer or more than three, are
    images of their own.

    Args:
        arrays: of each picture its values, its axes, whether its last channel is transparency,
            whether its channels are colours, and its name.

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
            pages += (
                [(page, name)]
                if together
                else [(page[..., k : k + 1], name) for k in range(channels)]
            )
    if len(kinds) > 1:
        found = ", ".join(sorted(f"{n} channels of {kind}" for kind, n in kinds))
        raise InputError(
            "adapt",
            True,
            f"the pictures are of several kinds ({found}); adapt to each kind by itself",
        )
    chosen = evenly(len(pages), MAX_IMAGES)
    images = [
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(pages[i][0], -1, 0))) for i in chosen
    ]
    return images, [pages[i][1] for i in chosen]


@contextlib.contextmanager
def progress_bar(minutes: float) -> Any:
    """A progress bar with the time left, where the output is a terminal: yields what `adapt` calls."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("adapting"), BarColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task("adapting", total=60 * minutes)
        yield lambda share: bar.update(task, completed=share * 60 * minutes)
