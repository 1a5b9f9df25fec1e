"""The run folder, which everything after training reads: its lock, its result, its row among others."""

import contextlib
import fcntl
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, replacing


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a run folder for this process; the lock ends with the process, however that ends.

    Raises:
        InputError: another process is running in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: its run is still going on") from None
        yield


def read_result(folder: Path) -> dict[str, Any]:
    """`result.json` of a run folder; empty if there is none. A run that nobody holds any more was `killed`."""
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return {}
    if result.get("status") == "running":
        with contextlib.suppress(OSError), (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # raises BlockingIOError, an OSError, while it is held
            result |= {"status": "killed", "reason": "its process was killed"}
    return result


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Writes `result.json`, whole."""
    with replacing(folder / "result.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")


def scores_of(history: list[dict[str, float]]) -> dict[str, Any]:
    """The best epoch's scores (without clean images the last one's), and the speed of the whole training."""
    scored = [row for row in history if "val_psnr" in row]
    best = max(scored, key=lambda row: row["val_psnr"], default=history[-1] if history else {})
    names = ("val_psnr", "val_psnr_total", "noisy_psnr", "noisy_psnr_total", "val_loss", "val_noisy_loss", "train_loss")
    seconds = sum(row["seconds"] for row in history)
    return {
        **{name: best.get(name) for name in names},
        "best_epoch": best.get("epoch"),
        "seconds": round(seconds, 3),
        "images_per_second": round(sum(row["images"] for row in history) / seconds, 1) if seconds else None,
    }


def device_name(device: Any) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def git_commit() -> str | None:
    """The commit of this code, with `-dirty` if it was changed since; None outside a checkout."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write_hyperparameters(folder: Path, config: dict[str, Any], result: dict[str, Any]) -> None:
    """The run's row in TensorBoard's HParams tab, one for the whole run, written when its scores are known."""
    from torch.utils.tensorboard import SummaryWriter

    chosen = {name: config[name]["_target_"].rsplit(".", 1)[-1] for name in ("data", "model", "loss")}
    numbers = {k: v for k, v in config["optim"].items() if isinstance(v, int | float) and not isinstance(v, bool)}
    rates = {f"optim.{name}": value for name, value in numbers.items()}
    params = {**rates, **chosen, "seed": config["seed"], "batch_size": config["data"].get("batch_size", 0)}
    names = ("val_psnr", "val_psnr_total", "val_noisy_loss", "train_loss")
    scores = {f"final/{name}": result[name] for name in names if result[name] is not None}
    with SummaryWriter(str(folder)) as writer:
        writer.add_hparams(params, scores, run_name=".")
