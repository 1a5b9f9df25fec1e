"""From a run folder or checkpoint to its network, without running any code that the file may name."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from n2n_lightning.files import InputError, load_torch


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint file of a run folder, its best where there is one; a file is itself.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in ("best.ckpt", "last.ckpt"):
        if (path / "checkpoints" / name).is_file():
            return path / "checkpoints" / name
    raise InputError(f"{path}: not a run folder; it has no checkpoints/best.ckpt or last.ckpt")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint as plain data and tensors: `state_dict`, `n2n_lightning` and what Lightning stores."""
    path = checkpoint_of(path)
    content = load_torch(path)
    if not isinstance(content, dict) or "state_dict" not in content or "n2n_lightning" not in content:
        raise InputError(f"{path}: not a checkpoint of n2n_lightning")
    return content


def load(path: str | Path, allow: Sequence[str] = ()) -> nn.Module:
    """The network of a run folder or checkpoint, in eval mode on the CPU.

    Args:
        path: a run folder (its best checkpoint, or else its last) or a checkpoint file.
        allow: names of modules outside this package whose classes the checkpoint may name; importing a module runs it.

    Returns:
        A module from float (B, C, H, W), values in [0, 1] up to noise, to the denoised images in the same shape.

    Raises:
        InputError: the file is missing, damaged, not ours, or names a class of a module that is not allowed.
    """
    content = read_checkpoint(path)
    spec = dict(content["n2n_lightning"].get("model") or {})
    module_name, _, class_name = str(spec.pop("_target_", "")).rpartition(".")
    if not module_name:
        raise InputError(f"{path}: does not say what its network is")
    if module_name.split(".")[0] != "n2n_lightning" and module_name not in allow:
        raise InputError(f"{path}: its network is from {module_name}; --allow {module_name} if you trust that module")
    try:
        network = getattr(importlib.import_module(module_name), class_name)(**spec)
        if not isinstance(network, nn.Module):
            raise TypeError(f"{class_name} is no network")
        weights = {k.removeprefix("network."): v for k, v in content["state_dict"].items() if k.startswith("network.")}
        network.load_state_dict(weights)
    except Exception as error:
        raise InputError(f"{path}: its network cannot be built: {' '.join(str(error).split())[:200]}") from error
    return network.eval()
