"""Trained weights to start from: `init=` a run, a checkpoint, or the one that comes along."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from n2n_lightning import networks
from n2n_lightning.files import InputError, option
from n2n_lightning.inference.checkpoint import PRETRAINED, read_info
from n2n_lightning.inference.denoiser import TrainedDenoiser, load


def source(init: str) -> Path:
    """The run folder or checkpoint that `init` names; `pretrained` is the one that the package brings along."""
    return PRETRAINED if init == "pretrained" else Path(init)


def checkpoint_model(path: str | Path) -> dict[str, Any]:
    """The `model` group of the configuration that a checkpoint was trained with.

    Raises:
        InputError: there is no such checkpoint, or it does not say it.
    """
    return dict(read_info(path).model)


def options(model: dict[str, Any]) -> set[str]:
    """The options that a network of this package has, some of which checkpoints of older versions do not name."""
    module, _, name = str(model["_target_"]).rpartition(".")
    kind = getattr(networks, name, None) if module == "n2n_lightning.networks" else None
    return set(inspect.signature(kind).parameters) if kind else set()


def refuse_overrides(init: str, asked: Sequence[str], model: dict[str, Any]) -> None:
    """Raises InputError where options for the network were typed that the checkpoint of `init=` does not have.

    Args:
        init: see `source`.
        asked: the overrides of the command line.
        model: the composed group.
    """
    spec = checkpoint_model(source(init))
    for override in asked:
        name, _, value = override.lstrip("+").partition("=")
        if name == "model":
            same = model["_target_"].rpartition(".")[2] == spec["_target_"].rpartition(".")[2]
        elif name.startswith("model.") and name not in ("model.channels", "model.dims"):
            key = name.removeprefix("model.")
            same = key in spec and spec[key] == model.get(key)
        else:
            continue
        if not same:
            has = ", ".join(
                f"{k}={v}" for k, v in spec.items() if k not in ("_target_", "channels")
            )
            kind = spec["_target_"].rpartition(".")[2]
            raise InputError(
                name,
                value,
                f"{option('init', init)} has another network, {kind}({has}), which is the one"
                " that is trained; leave the option out",
            )


def weights(network: nn.Module, init: str, channels: int) -> str:
    """Gives a network the weights of a checkpoint; returns what to say of it.

    Where the number of channels differs, what reads the image is summed over the old channels, or
    copied and shared among new ones, and what writes it is their mean, or copied.

    Args:
        network: of the checkpoint's kind.
        channels: of the images that it takes.
        init: see `source`.

    Raises:
        InputError: the weights do not fit.
    """
    path = source(init)
    trained = load(path)
    changed = copy(trained, network, channels, init)
    if not changed:
        return f"init: the weights of {path}"
    return f"init: the weights of {path}, for {channels} channels in place of {trained.inputs} ({', '.join(changed)})"


def copy(trained: TrainedDenoiser, network: nn.Module, channels: int, init: str) -> list[str]:
    """See `weights`; returns the names of the layers that were changed."""
    old, new = trained.network.state_dict(), network.state_dict()
    if old.keys() != new.keys():
        raise InputError(
            "init", init, f"is of another kind of network than {type(network).__name__}"
        )
    fitted = {name: _fitted(old[name], new[name].shape, trained.inputs, channels) for name in new}
    wrong = [name for name, value in fitted.items() if value.shape != new[name].shape]
    if wrong:
        raise InputError(
            "init", init, f"its layer {wrong[0]} does not fit, {list(old[wrong[0]].shape)}"
        )
    network.load_state_dict(fitted)
    return [name for name in new if old[name].shape != new[name].shape]


def _fitted(value: Tensor, shape: torch.Size, before: int, after: int) -> Tensor:
    """Weights for `after` channels of the image from those for `before`: inputs are axis 1, outputs axis 0.

    Where a layer has other inputs, too, the image's are the last ones (the paper's U-Net).
    """
    if len(value.shape) == 4 and len(shape) == 5:
        value = _in_space(value, shape)
    if len(value.shape) != len(shape) or not shape:
        return value
    if len(shape) > 1 and shape[1] - value.shape[1] == after - before != 0:
        rest, image = value[:, :-before], value[:, -before:]
        value = torch.cat(
            (rest, image.sum(1, keepdim=True).expand(-1, after, *value.shape[2:]) / after), 1
        )
    if value.shape[0] != shape[0]:
        value = value.mean(0, keepdim=True).expand(shape[0], *value.shape[1:])
    return value.contiguous()


def _in_space(weight: Tensor, shape: torch.Size) -> Tensor:
    """A convolution of volumes that does in each plane what one of images, (O, I, h, w), does: for `shape` of it.

    Its weights are those of the middle plane. Where there is none, of 2 planes, each has half of
    them. What makes 4 pixels of one place (networks.block_unet.shuffled) makes 8 voxels, alike in
    both planes.
    """
    outputs, inputs, height, width = weight.shape
    if shape[0] == 2 * outputs:
        weight = (
            weight.view(-1, 1, 4, inputs, height, width).expand(-1, 2, 4, -1, -1, -1).flatten(0, 2)
        )
    planes = torch.zeros(*weight.shape[:2], shape[2], height, width)
    if shape[2] % 2:
        planes[:, :, shape[2] // 2] = weight
        return planes
    return planes + weight[:, :, None] / shape[2]
