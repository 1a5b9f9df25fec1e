"""The run folder, which everything after training reads: its lock, its result, its row among others."""

import contextlib
import csv
import json
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from n2n_lightning.config.overrides import CONF
from n2n_lightning.files import InputError, replacing
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.runs import locks


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run folder for this process; the lock ends with the process, however that ends.

    Raises:
        InputError: another process is running in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # whoever only looks whether it is held, holds it for a moment
        lock = locks.acquired(folder / ".lock", wait=1)
    except locks.CannotLock:
        locks.warn("two runs in one folder would not notice one another", folder / ".lock")
        yield
        return
    if lock is None:
        raise InputError(f"{folder}: its run is still going on")
    try:
        yield
    finally:
        lock.release()


def read_result(folder: Path) -> dict[str, Any]:
    """`result.json` of a run folder; empty if there is none. A run that nobody holds any more was `killed`."""
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if result.get("status") == "running" and not _goes_on(folder, result):
        result |= {"status": "killed", "reason": "its process was killed"}
    return result


def read_history(folder: Path) -> Iterator[dict[str, float]]:
    """The rows of `metrics.csv` of a run folder, a row for each epoch.

    Raises:
        OSError, ValueError, TypeError: it is missing or damaged.
    """
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {name: float(value) for name, value in row.items() if value}


def _goes_on(folder: Path, result: dict[str, Any]) -> bool:
    """Whether the process of a run that is said to be running lives: it holds the lock of the folder."""
    try:
        lock = locks.acquired(folder / ".lock") if (folder / ".lock").exists() else None
        if lock is not None:
            lock.release()
            return False
        if (folder / ".lock").exists():
            return True
    except OSError:  # no locks here, or none for us: the number of the process must do
        pass
    host, _, pid = str(result.get("process", "")).partition(":")
    return host != socket.gethostname() or not pid.isdigit() or alive(int(pid))


def alive(pid: int) -> bool:
    """Whether a process of this machine runs; one that ended and waits for its parent does not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Writes `result.json`, whole."""
    with replacing(folder / "result.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def scores_of(history: list[dict[str, float]]) -> dict[str, Any]:
    """The best epoch's scores (the last one's, where none has any), and the speed of the whole training."""
    scored = [row for row in history if "val_psnr" in row or "val_mse_estimate" in row]
    best = max(
        scored, key=lambda row: ranking_score(row) or 0.0, default=history[-1] if history else {}
    )
    names = ["val_psnr", "val_psnr_total", "noisy_psnr", "noisy_psnr_total"]
    names += [
        "val_psnr_estimate",
        "noisy_psnr_estimate",
        "val_mse_estimate",
        "val_loss",
        "val_noisy_loss",
        "val_self_loss",
        "train_loss",
        "val_psnr_without_outliers",
        "val_psnr_estimate_without_outliers",
        "outlier_pixels",
    ]
    seconds = sum(row["seconds"] for row in history)
    scores: dict[str, Any] = {name: best.get(name) for name in names}
    if best.get("val_mse_estimate", 1.0) <= 0:  # not measurable with so few pixels
        scores["val_psnr_estimate"] = None
    ends = [best.get(f"val_psnr_estimate_{end}") for end in ("low", "high")]
    return {
        **scores,
        "val_psnr_estimate_interval": None if ends == [None, None] else ends,
        "best_epoch": best.get("epoch"),
        "seconds": round(seconds, 3),
        "images_per_second": round(sum(row["images"] for row in history) / seconds, 1)
        if seconds
        else None,
    }


def ranking_score(scores: dict[str, Any]) -> float | None:
    """What the best of several runs or epochs has most of, in dB; None if it has no score.

    PSNR against clean images; without them its estimate. Older runs have neither, and then the PSNR
    against the noisy images kept back does: their noise, the same for all runs, makes it low, but
    keeps the order, up to chance. So does the loss of single images against themselves, for runs of
    one method.

    >>> [ranking_score(scores) for scores in ({"val_psnr": 25.86}, {"val_mse_estimate": 0.001},
    ...     {"val_noisy_loss": 0.01})]
    [25.86, 30.0, 20.0]
    """
    if scores.get("val_psnr") is not None:
        return float(scores["val_psnr"])
    if (error := scores.get("val_mse_estimate")) is not None:
        return psnr(max(error, 1e-12)) - min(error, 0.0)  # in order below 0, too
    loss = scores.get("val_noisy_loss") or scores.get("val_self_loss")
    return psnr(loss) if loss else None


def device_name(device: Any) -> str:
    """What a run was trained on, for `result.json`.

    Args:
        device: a torch.device.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def git_commit() -> str | None:
    """The commit of this code, with `-dirty` if it was changed since; None outside a checkout."""
    here = Path(__file__).resolve().parents[1]
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def for_all_jobs(sweep: Path) -> set[str]:
    """What was typed for a sweep, in small letters: Hydra writes `true` as `True` into the overrides of a job."""
    try:
        return {
            word.lower()
            for word in json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))["arguments"]
        }
    except (OSError, ValueError, KeyError):
        return set()


def _choice(group: str, target: str) -> str:
    """What one types for a class, `pairs` for n2n_lightning.data.PairedImages; of others its own name."""
    for path in sorted((CONF / group).glob("*.yaml")):
        if f"_target_: {target}\n" in path.read_text(encoding="utf-8"):
            return path.stem
    return target.rsplit(".", 1)[-1]


def write_hyperparameters(
    folder: Path, config: dict[str, Any], command: str, result: dict[str, Any]
) -> None:
    """The run's row in TensorBoard's HParams tab, one for the whole run, written when its scores are known.

    Its columns are what was typed, by the names that were typed, and what most want to know beside
    it; of a job of a sweep what the jobs differ by, for TensorBoard shows the first few alone.
    """
    from torch.utils.tensorboard import SummaryWriter

    fixed = for_all_jobs(folder.parent)
    params: dict[str, Any] = {
        n: _choice(n, config[n]["_target_"]) for n in ("data", "model", "loss")
    }
    params |= {"seed": config["seed"], "optim.lr": config["optim"].get("lr", 0)}
    for word in shlex.split(command):
        name, equals, value = word.lstrip("+~").partition("=")
        if equals and not name.startswith("hydra") and word.lower() not in fixed:
            try:
                params[name] = float(value)
            except ValueError:
                params[name] = value
    names = (
        "val_psnr",
        "val_psnr_total",
        "val_psnr_estimate",
        "val_noisy_loss",
        "val_self_loss",
        "train_loss",
    )
    scores = {f"final/{name}": result[name] for name in names if result[name] is not None}
    with SummaryWriter(str(folder)) as writer:
        writer.add_hparams(params, scores, run_name=".")
