"""Checkpoints: find the file of a run folder and read what it says of its network."""

from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, load_torch

PRETRAINED = Path(__file__).parent / "pretrained.ckpt"
# what a checkpoint says
CHECKPOINT_KEYS = ("model", "scale", "range", "unit", "context", "thinned", "blind", "layout")


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint file of a run folder, its best where there is one; a file is itself.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
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
    """A checkpoint as plain data and tensors: `state_dict`, `n2n_lightning` and what Lightning stores."""
    path = checkpoint_of(path)
    content = load_torch(path)
    if (
        not isinstance(content, dict)
        or "state_dict" not in content
        or "n2n_lightning" not in content
    ):
        raise InputError(f"{path}: not a checkpoint of n2n_lightning")
    return content
