"""Checkpoints of a run: written whole, read without running code, and the one to resume from."""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from n2n_lightning.files import InputError, load_torch, replacing


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoint files that are written whole or not at all, and read without running code.

    The `last.ckpt` before stays as `previous.ckpt`.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        path = Path(path)
        previous = path.with_name("previous.ckpt") if path.name == "last.ckpt" else None
        with replacing(path, previous) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load_torch(Path(path))


class _Checkpoint(ModelCheckpoint):
    """A checkpoint after every epoch, whose state survives that the run folder is moved."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        super().__init__(
            folder, name, save_on_train_epoch_end=True, enable_version_counter=False, **options
        )
        self.path = str(folder / f"{name}.ckpt")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = {**state_dict, "dirpath": self.dirpath}
        if state["best_model_path"]:
            state |= {"best_model_path": self.path, "kth_best_model_path": self.path}
            paths = [self.path] if state["best_k_models"] else []
            state["best_k_models"] = dict.fromkeys(paths, state["best_model_score"])
        super().load_state_dict(state)


RESUMABLE = ("last", "previous", "best")  # checkpoints that a run can continue from, in this order


def resumable(folder: Path) -> Path | None:
    """Find the checkpoint to continue from: the first of RESUMABLE that is whole.

    Damaged ones before it are renamed to `.damaged`, so that none of them takes the place of a
    whole one later, and a line on standard error says so.

    Args:
        folder: the folder of the checkpoints.

    Returns:
        The checkpoint; None where there is none.

    Raises:
        InputError: there are checkpoints, and all of them are damaged.
    """
    damage: InputError | None = None
    damaged = []
    for path in (folder / f"{name}.ckpt" for name in RESUMABLE):
        if not path.exists():
            continue
        try:
            state = load_torch(path)
            if not isinstance(state, dict) or "n2n_lightning" not in state:
                raise InputError(f"{path}: not a checkpoint of this program")
        except InputError as error:
            damage = damage or error
            damaged.append(path)
            continue
        for name in damaged:
            name.replace(name.with_suffix(".damaged"))
        if damage:
            _warn(f"{damage}; continuing from {path.name}, epoch {state['epoch'] + 1}")
        return path
    if damage:
        raise InputError(f"{damage}; without {folder} the run would start anew")
    return None


@rank_zero_only
def _warn(message: str) -> None:
    print("warning:", message, file=sys.stderr)


def forget_scores(checkpoint: dict[str, Any], before: str | None, reference: str) -> None:
    """Take scores out of a checkpoint that those of the run from now on do not compare with.

    Earlier versions compared the frames of movies with the ones next to them. Where the noise of a
    movie can be measured in one version alone, the run changes its score, too.

    Args:
        checkpoint: its content, changed in place: the history, the states of callbacks and
            schedules that watch a score.
        before: the reference of its scores; None: it was not stored.
        reference: that of the run, see NoisyPairs.
    """
    if before == reference or (before is None and reference not in ("stein", "hidden")):
        return
    ours = checkpoint["n2n_lightning"]
    rows = []
    for row in ours["history"]:
        rows.append({k: v for k, v in row.items() if not k.startswith(("val_", "noisy_"))})
    if rows == ours["history"]:
        return
    ours["history"] = rows
    for key in list(checkpoint["callbacks"]):
        if "'monitor': 'val_" in key:
            del checkpoint["callbacks"][key]
    for state in checkpoint["lr_schedulers"]:
        if "mode_worse" in state:  # ReduceLROnPlateau
            state |= {"best": state["mode_worse"], "num_bad_epochs": 0}
    _warn(
        f"the scores up to epoch {len(rows)} are of another kind (metrics.csv has them); the best"
        " epoch is one of those that follow"
    )


class Best(_Checkpoint):
    """`best.ckpt`, of the epoch with the best score.

    That is the highest val_psnr; without clean images the least val_mse_estimate, and of a movie
    whose noise could not be measured the least val_noisy_loss.

    It holds the weights that had that score: those that validation ran with, whatever other
    callbacks exchange for it or change between it and the end of the epoch.

    Args:
        folder: the folder of the checkpoints.
        reference: of validation, see NoisyPairs; not `self`.
    """

    def __init__(self, folder: Path, reference: str = "clean") -> None:
        if reference == "clean":
            super().__init__(folder, "best", monitor="val_psnr", mode="max")
        elif reference == "hidden":
            super().__init__(folder, "best", monitor="val_noisy_loss", mode="min")
        else:
            super().__init__(folder, "best", monitor="val_mse_estimate", mode="min")
        self._validated: dict[str, torch.Tensor] = {}
        self._saving = False

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            weights = pl_module.network.state_dict()  # type: ignore[union-attr]
            self._validated = {f"network.{name}": value.clone() for name, value in weights.items()}

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        self._saving = True
        try:
            super()._save_checkpoint(trainer, filepath)
        finally:
            self._saving = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._saving:
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **self._validated}


class Last(_Checkpoint):
    """`last.ckpt`. It has no monitor: with one, Lightning leaves the best epoch in it.

    Args:
        folder: the folder of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "last")
