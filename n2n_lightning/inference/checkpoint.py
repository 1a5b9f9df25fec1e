"""Checkpoints: the file of a run folder, and the facts that it stores about its network."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from n2n_lightning.arrays.frame_offsets import input_frames
from n2n_lightning.arrays.layout import Layout
from n2n_lightning.files import InputError, load_torch
from n2n_lightning.inference.models import model_file

PRETRAINED = Path(__file__).parent / "pretrained.ckpt"
MOVIE = Path(__file__).parent / "movie.ckpt"
# Version of the facts of CheckpointInfo, stored as `format`. A new fact with a default needs no new
# version; one that an older program must not ignore does.
FORMAT = 3
# A checkpoint states the oldest version that can read it: 1, or that of its newest such fact.
FIRST_FORMAT = 1
KNOWN_SINCE = {"sees_middle": 2, "align": 3}
Pair = tuple[float, float]


@dataclass(frozen=True)
class CheckpointInfo:
    """Facts that a checkpoint stores about its network, next to the weights.

    Training writes them, inference reads them. A new fact is a field here, its value in `of_data`
    and its type in `of`; the default stands for checkpoints that were written before.

    Attributes:
        model: the class of the network, `_target_`, and the arguments that build it.
        scale: stored value that is white in PSNR, if the training data had one.
        range: stored value that was 0 for the network in training, and how far above it 1 was;
            None: estimated for each array from its type and values, see normalization.levels.
        unit: (factor, offset) that convert the stored values of `range` to physical ones; None if
            the files did not state them.
        context: frames before and after a movie frame that the network sees in its place; 0: it
            sees the frame itself.
        sees_middle: with a context: the network sees the frame itself between them, too.
        align: with a context: the frames around one were moved onto it by whole pixels
            (data.align).
        mask: what was hidden around each pixel that was learnt, as typed for data.mask; empty: no
            pixels were.
        thinned: trained on halves of photon counts (data.method=thinned).
        blind: trained on many kinds and strengths of noise, which it has to infer from the image.
        layout: how the first training array was read; arrays of the same kind are read so, too.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    scale: float | None = None
    range: Pair | None = None
    unit: Pair | None = None
    context: int = 0
    sees_middle: bool = False
    align: bool = False
    mask: str = ""
    thinned: bool = False
    blind: bool = False
    layout: Layout | None = None

    @property
    def input_frames(self) -> int:
        """Frames that the network takes along its channels."""
        return input_frames(self.context, self.sees_middle)

    @classmethod
    def of_data(cls, model: Mapping[str, Any], data: Any) -> "CheckpointInfo":
        """Return the facts of a training run.

        Args:
            model: the `model` group of its configuration.
            data: its data.NoisyPairs, after `setup`.

        Returns:
            The facts to store.
        """
        return cls(
            model=model,
            scale=data.scale,
            range=data.limits,
            unit=data.stored_unit,
            context=data.context,
            sees_middle=data.sees_middle,
            align=data.align and data.context > 0,
            mask=data.mask,
            thinned=data.thinned,
            blind=data.blind,
            layout=data.array_layout,
        )

    @classmethod
    def of(cls, stored: Mapping[str, Any], path: str | Path) -> "CheckpointInfo":
        """Return the facts of a checkpoint, also of one from before facts had a version.

        Args:
            stored: its entry `n2n_lightning`, plain data.
            path: of the checkpoint, for messages.

        Returns:
            The facts; defaults for those that it lacks.

        Raises:
            InputError: they do not name the network, or are of a newer version than this program.
        """
        version = stored.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise InputError(
                f"{path}: written by a newer n2n_lightning (format {version}, here {FORMAT});"
                " pip install -U n2n_lightning"
            )
        try:
            model = dict(stored["model"])
            if "_target_" not in model:
                raise KeyError("_target_")
            scale = stored.get("scale")
            return cls(
                model=model,
                scale=None if scale is None else float(scale),
                range=_pair(stored.get("range")),
                unit=_pair(stored.get("unit")),
                context=int(stored.get("context") or 0),
                sees_middle=bool(stored.get("sees_middle")),
                align=bool(stored.get("align")),
                mask=str(stored.get("mask") or ""),
                thinned=bool(stored.get("thinned")),
                blind=bool(stored.get("blind")),
                layout=Layout.of(stored.get("layout")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: does not say what its network is") from error

    def plain(self) -> dict[str, Any]:
        """Return the facts as plain data, which load with weights_only=True."""
        newest = [version for name, version in KNOWN_SINCE.items() if getattr(self, name)]
        stored: dict[str, Any] = {"format": max(newest, default=FIRST_FORMAT)}
        for fact in fields(self):
            value = getattr(self, fact.name)
            if isinstance(value, Layout):
                value = value.plain()
            elif isinstance(value, tuple):
                value = list(value)
            stored[fact.name] = value
        return stored


def _pair(stored: Any) -> Pair | None:
    return None if stored is None else (float(stored[0]), float(stored[1]))


def checkpoint_of(path: str | Path) -> Path:
    """Return the checkpoint file of a run folder: the best one, or else the last.

    Args:
        path: a run folder, or a checkpoint file, which is returned as it is; where nothing has that
            name, the name of a model (see `n2n models`).

    Returns:
        A file; it may be missing if `path` is no folder.

    Raises:
        InputError: the folder has none, the file is an export, or the model cannot be had.
    """
    path = Path(path)
    if not path.exists():
        model = model_file(str(path))
        if model is not None:
            return model
    if path.suffix in (".onnx", ".pt2"):
        raise InputError(
            f"{path}: an export for other programs; here its run folder or .ckpt is needed"
        )
    if not path.is_dir():
        return path
    for name in ("best.ckpt", "last.ckpt"):
        if (path / "checkpoints" / name).is_file():
            return path / "checkpoints" / name
    raise InputError(f"{path}: not a run folder; it has no checkpoints/best.ckpt or last.ckpt")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint as plain data and tensors: `state_dict`, `n2n_lightning`, and others.

    Raises:
        InputError: it is missing, damaged, or not of this package.
    """
    path = checkpoint_of(path)
    content = load_torch(path)
    if not isinstance(content, dict) or not {"state_dict", "n2n_lightning"} <= set(content):
        raise InputError(f"{path}: not a checkpoint of n2n_lightning")
    return content


def read_info(path: str | Path) -> CheckpointInfo:
    """Read the facts that a checkpoint stores about its network.

    Args:
        path: a run folder or a checkpoint file.

    Returns:
        The facts; defaults for those that it lacks.

    Raises:
        InputError: it cannot be read, or does not name its network.
    """
    return CheckpointInfo.of(read_checkpoint(path)["n2n_lightning"], path)


def network_checkpoint(network: Any, info: CheckpointInfo) -> dict[str, Any]:
    """Return the content of a checkpoint of a network alone, without the state of its training.

    Args:
        network: the nn.Module.
        info: facts about it.

    Returns:
        `state_dict` on the CPU and the facts, to be saved with torch.save.
    """
    weights = network.state_dict()
    return {
        "state_dict": {f"network.{name}": value.cpu() for name, value in weights.items()},
        "n2n_lightning": info.plain(),
    }
