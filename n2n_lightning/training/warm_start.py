"""Warm start: trained weights to start from, `init=` a run, a checkpoint, or the bundled one."""

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
    """Return the run folder or checkpoint that `init` names; `pretrained` is the bundled one."""
    return PRETRAINED if init == "pretrained" else Path(init)


def checkpoint_model(path: str | Path, allow: Sequence[str] = ()) -> dict[str, Any]:
    """Return the `model` group of the configuration that a checkpoint was trained with.

    Args:
        path: a run folder or a checkpoint.
        allow: names of modules beside networks whose classes may be built.

    Raises:
        InputError: there is no such checkpoint, it does not name its network, or that is of a
            module that is not allowed: to build it could do anything.
    """
    model = dict(read_info(path).model)
    module = str(model["_target_"]).rpartition(".")[0]
    if module not in ("n2n_lightning.networks", *allow):
        raise InputError(
            f"{path}: its network is from {module}; init= takes networks of this package"
        )
    return model


def options(model: dict[str, Any]) -> set[str]:
    """Return the options that a network of this package has, named in its checkpoint or not."""
    module, _, name = str(model["_target_"]).rpartition(".")
    kind = getattr(networks, name, None)
    if module != "n2n_lightning.networks" or kind is None:
        return set()
    return set(inspect.signature(kind).parameters)


def refuse_overrides(init: str, asked: Sequence[str], model: dict[str, Any]) -> None:
    """Raise where options for the network were typed that the checkpoint of `init=` does not have.

    Args:
        init: see `source`.
        asked: the overrides of the command line.
        model: the composed group.

    Raises:
        InputError: one of them differs.
    """
    spec = checkpoint_model(source(init))
    kind = _class_name(spec)
    for override in asked:
        name, _, value = override.lstrip("+").partition("=")
        key = name.removeprefix("model.")
        if name == "model":
            same = _class_name(model) == kind
        elif name.startswith("model.") and key not in ("channels", "dims"):
            same = key in spec and spec[key] == model.get(key)
        else:
            continue
        if not same:
            raise InputError(
                name,
                value,
                f"{option('init', init)} has another network, {_as_call(spec)}, which is the one"
                " that is trained; leave the option out",
            )


def _class_name(model: dict[str, Any]) -> str:
    _, _, name = str(model["_target_"]).rpartition(".")
    return name


def _as_call(model: dict[str, Any]) -> str:
    """Return a network and its options as one writes them in Python."""
    arguments = []
    for name, value in model.items():
        if name not in ("_target_", "channels"):
            arguments.append(f"{name}={value}")
    name = _class_name(model)
    listed = ", ".join(arguments)
    return f"{name}({listed})"


def weights(network: nn.Module, init: str, channels: int) -> str:
    """Give a network the weights of a checkpoint.

    Where the number of channels differs, the layer that reads the image is summed over the old
    channels, or copied and shared among new ones, and the layer that writes it is their mean, or
    copied. A network that subtracts the noise from the middle one of several frames (DRUNet's
    `middle`) begins as the old one of that frame alone.

    Args:
        network: of the checkpoint's kind.
        init: see `source`.
        channels: of the images that the network takes.

    Returns:
        The line to print about it.

    Raises:
        InputError: the weights do not fit.
    """
    path = source(init)
    trained = load(path, device="cpu")
    changed = copy(trained, network, channels, init)
    if not changed:
        return f"init: the weights of {path}"
    layers = ", ".join(changed)
    return (
        f"init: the weights of {path}, for {channels} channels in place of {trained.inputs}"
        f" ({layers})"
    )


def copy(trained: TrainedDenoiser, network: nn.Module, channels: int, init: str) -> list[str]:
    """Copy the weights of a trained network, fitted to a number of channels; see `weights`.

    Args:
        trained: the trained network.
        network: the one that gets its weights.
        channels: of the images that it takes.
        init: the name of the checkpoint, for messages.

    Returns:
        The names of the layers that were fitted.

    Raises:
        InputError: the weights do not fit.
    """
    old = trained.network.state_dict()
    new = network.state_dict()
    if old.keys() != new.keys():
        kind = type(network).__name__
        raise InputError("init", init, f"is of another kind of network than {kind}")
    fitted = {}
    changed = []
    grows = _subtracts_from_middle(network) and not _subtracts_from_middle(trained.network)
    for name, value in new.items():
        shape = old[name].shape
        if grows and name == "first.weight":
            weight = _of_middle_frame(old[name], value.shape, trained.equivariant)
        else:
            weight = _fitted(old[name], value.shape, trained.inputs, channels)
        if weight.shape != value.shape:
            raise InputError("init", init, f"its layer {name} does not fit, {list(shape)}")
        if shape != value.shape:
            changed.append(name)
        fitted[name] = weight
    network.load_state_dict(fitted)
    return changed


def _fitted(value: Tensor, shape: torch.Size, before: int, after: int) -> Tensor:
    """Fit weights for `before` channels of the image to `after`: inputs are axis 1, outputs axis 0.

    Where a layer has other inputs, too, the image's are the last ones (the paper's U-Net).
    """
    if len(value.shape) == 4 and len(shape) == 5:
        value = _in_space(value, shape)
    if len(value.shape) != len(shape) or not shape:
        return value
    if before != after and len(shape) > 1:
        added = shape[1] - value.shape[1]
        if added == after - before:
            value = _shared_among(value, before, after)
    outputs = shape[0]
    if len(value) != outputs:
        mean = value.mean(0, keepdim=True)
        value = mean.expand(outputs, *mean.shape[1:])
    return value.contiguous()


def _shared_among(value: Tensor, before: int, after: int) -> Tensor:
    """Share the sum of the weights of the last `before` inputs equally among `after` inputs."""
    others = value[:, :-before]
    image = value[:, -before:]
    total = image.sum(1, keepdim=True)
    shared = total.expand(-1, after, *total.shape[2:]) / after
    return torch.cat((others, shared), 1)


def _subtracts_from_middle(network: nn.Module) -> bool:
    return bool(getattr(network, "middle", False))


def _of_middle_frame(weight: Tensor, shape: torch.Size, equivariant: bool) -> Tensor:
    """Fit a first layer (O, I, h, w) to grey frames: weights for the middle one, else zeros.

    An equivariant network subtracts the mean of each filter (block_unet._Difference), which would
    be another one with the zeros.
    """
    if equivariant:
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
    grown = weight.new_zeros(shape)
    grown[:, shape[1] // 2] = weight.sum(1)
    return grown


def _in_space(weight: Tensor, shape: torch.Size) -> Tensor:
    """Turn a convolution of images, (O, I, h, w), into one of volumes, the same in each plane.

    The weights are those of the middle plane. A kernel of 2 planes has no middle: each has half of
    them. A convolution that makes 4 pixels of one (networks.block_unet.shuffled) makes 8 voxels,
    alike in both planes.
    """
    outputs, inputs, height, width = weight.shape
    outputs_in_space, _, depth, *_ = shape
    if outputs_in_space == 2 * outputs:
        pixels = weight.view(-1, 1, 4, inputs, height, width)
        weight = pixels.expand(-1, 2, 4, -1, -1, -1).flatten(0, 2)
    planes = torch.zeros(len(weight), inputs, depth, height, width)
    if depth % 2:
        planes[:, :, depth // 2] = weight
        return planes
    return planes + weight[:, :, None] / depth
