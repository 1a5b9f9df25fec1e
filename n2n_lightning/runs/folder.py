"""The run folder, which everything after training reads: lock, request, result, history."""

import contextlib
import csv
import json
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.config.overrides import CONF
from n2n_lightning.files import InputError, json_text, replacing
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.runs import locks

RUN_FORMAT = (
    1  # of run folders and sweep.json, in the file itself; another one is refused by resume=
)
# Scores of result.json that are those of the best epoch.
_SCORES = (
    *("val_psnr", "val_psnr_total", "noisy_psnr", "noisy_psnr_total"),
    *("val_psnr_estimate", "noisy_psnr_estimate", "val_mse_estimate"),
    *("val_loss", "val_noisy_loss", "val_self_loss", "train_loss"),
    *("val_psnr_without_outliers", "val_psnr_estimate_without_outliers", "outlier_pixels"),
)
# Scores that are columns of TensorBoard's HParams tab.
_FINAL_SCORES = (
    *("val_psnr", "val_psnr_total", "val_psnr_estimate"),
    *("val_noisy_loss", "val_self_loss", "train_loss"),
)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the lock ends with the process, however that ends.

    Yields:
        Nothing.

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


def has_request(folder: Path) -> bool:
    """Return True if a folder is one of a run: it has `.hydra/`."""
    return all(_request_file(folder, name).is_file() for name in ("config", "overrides"))


def has_checkpoint(folder: Path) -> bool:
    """Return True if there is a checkpoint to continue from in a run folder."""
    return any((folder / "checkpoints").glob("*.ckpt"))


def write_request(
    folder: Path, config: Any, overrides: Sequence[str], hydra: Any | None = None
) -> None:
    """Write `.hydra/` of a run folder, which says what was asked for.

    Args:
        folder: the run folder.
        config: the composed configuration, a DictConfig.
        overrides: the options that were typed.
        hydra: Hydra's own configuration; None leaves `.hydra/hydra.yaml` as it is.
    """
    from omegaconf import OmegaConf

    contents = {"config": config, "overrides": list(overrides)}
    if hydra is not None:
        contents["hydra"] = {"hydra": hydra}
    for name, content in contents.items():
        with replacing(_request_file(folder, name)) as temporary:
            OmegaConf.save(content, temporary)


def read_request(folder: Path) -> tuple[Any, list[str]]:
    """Read `.hydra/` of a run folder.

    Returns:
        The composed configuration, a DictConfig, and the options that were typed.

    Raises:
        InputError: another version wrote it, or it is damaged.
    """
    written = read_result(folder).get("format", RUN_FORMAT)
    if written != RUN_FORMAT:
        raise InputError(
            f"{folder}: is a run folder of format {written}, and this version reads {RUN_FORMAT}"
        )
    return _read_yaml(_request_file(folder, "config")), read_overrides(folder)


def read_overrides(folder: Path) -> list[str]:
    """Read the options that were typed for the run of a folder, in Hydra's grammar.

    Raises:
        InputError: there are none, or they are damaged.
    """
    from omegaconf import OmegaConf

    written = _read_yaml(_request_file(folder, "overrides"))
    # as text: an interpolation in it is Hydra's to resolve
    overrides: Any = OmegaConf.to_container(written, resolve=False)
    return [str(override) for override in overrides]


def _read_yaml(path: Path) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return OmegaConf.load(path)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({line})") from error


def _request_file(folder: Path, name: str) -> Path:
    return folder / ".hydra" / f"{name}.yaml"


def read_result(folder: Path) -> dict[str, Any]:
    """Read `result.json` of a run folder.

    Returns:
        Its content, empty if there is none. The status is `killed` where it says `running`, but no
        process holds the folder any more.
    """
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if result.get("status") == "running" and not _is_running(folder, result):
        result |= {"status": "killed", "reason": "its process was killed"}
    return result


def read_history(folder: Path) -> Iterator[dict[str, float]]:
    """Read `metrics.csv` of a run folder.

    Yields:
        A row for each epoch, numbers by their names.

    Raises:
        OSError, ValueError, TypeError: it is missing or damaged.
    """
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {name: float(value) for name, value in row.items() if value}


def _is_running(folder: Path, result: dict[str, Any]) -> bool:
    """Return True if the process of a run lives: it holds the folder's lock."""
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


def this_process() -> str:
    """Return how result.json and sweep.json name this process: host:number."""
    return f"{socket.gethostname()}:{os.getpid()}"


def alive(pid: int) -> bool:
    """Return True if a process of this machine runs; a zombie does not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write `result.json` of a run folder, whole.

    Args:
        folder: the run folder.
        result: its content, plain data; its `format` is RUN_FORMAT. A score that is not a finite
            number, as PSNR without a known pixel, is written as null.
    """
    with replacing(folder / "result.json") as temporary:
        temporary.write_text(json_text(result), encoding="utf-8")


def scores_of(history: list[dict[str, float]]) -> dict[str, Any]:
    """Collect the scores and the speed of a run.

    Args:
        history: a row for each epoch; see `read_history`.

    Returns:
        The scores of the best epoch (of the last one, where none has a score), seconds and images
        per second of the whole training.
    """
    kinds = ("val_psnr", "val_mse_estimate", "val_noisy_loss")
    scored = [row for row in history if any(kind in row for kind in kinds)]
    best: dict[str, float] = history[-1] if history else {}
    if scored:
        best = max(scored, key=lambda row: ranking_score(row) or 0.0)
    scores: dict[str, Any] = {name: best.get(name) for name in _SCORES}
    if best.get("val_mse_estimate", 1.0) <= 0:  # not measurable with so few pixels
        scores["val_psnr_estimate"] = None
    interval = [best.get(f"val_psnr_estimate_{end}") for end in ("low", "high")]
    scores["val_psnr_estimate_interval"] = None if interval == [None, None] else interval
    scores["best_epoch"] = best.get("epoch")
    seconds = sum(row["seconds"] for row in history)
    scores["seconds"] = round(seconds, 3)
    images = sum(row["images"] for row in history)
    scores["images_per_second"] = round(images / seconds, 1) if seconds else None
    return scores


def ranking_score(scores: dict[str, Any]) -> float | None:
    """Return the number by which runs or epochs are ranked, the higher the better, in dB.

    It is PSNR against clean images; without them its estimate. The loss against noisy images kept
    back, or of single images against themselves, ranks runs of one method, up to chance.

    Args:
        scores: of a run or an epoch, by their names.

    Returns:
        The score, or None where there is none.

    >>> [ranking_score(scores) for scores in ({"val_psnr": 25.86}, {"val_mse_estimate": 0.001},
    ...     {"val_noisy_loss": 0.01})]
    [25.86, 30.0, 20.0]
    """
    if scores.get("val_psnr") is not None:
        return float(scores["val_psnr"])
    error = scores.get("val_mse_estimate")
    if error is not None:
        return psnr(max(error, 1e-12)) - min(error, 0.0)  # in order below 0, too
    loss = scores.get("val_noisy_loss") or scores.get("val_self_loss")
    return psnr(loss) if loss else None


def device_name(device: Any) -> str:
    """Describe the device that a run was trained on, for `result.json`.

    Args:
        device: a torch.device.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def git_commit() -> str | None:
    """Return the commit of this code, `-dirty` if changed since; None outside a checkout."""
    package = Path(__file__).resolve().parents[1]
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def read_sweep_request(sweep: Path) -> dict[str, Any]:
    """Read `sweep.json` of a sweep's folder: what was typed for it, and the process that runs it.

    Returns:
        Its content; empty if there is none, or if it is damaged.
    """
    try:
        content: dict[str, Any] = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content.get("arguments"), list) else {}


def common_overrides(sweep: Path) -> set[str]:
    """Return the options that all jobs of a sweep have, in small letters.

    Hydra writes `true` as `True` into the overrides of a job.
    """
    return {str(word).lower() for word in read_sweep_request(sweep).get("arguments", [])}


def choice_of(group: str, target: str) -> str:
    """Return the choice of a group in conf/ that makes a class, `pairs` for data.PairedImages.

    Args:
        group: data, model, ...
        target: the dotted name of the class.

    Returns:
        The choice; of a class that is not in conf/ its own name.
    """
    for path in sorted((CONF / group).glob("*.yaml")):
        if f"_target_: {target}\n" in path.read_text(encoding="utf-8"):
            return path.stem
    return target.rsplit(".", 1)[-1]


def write_hyperparameters(
    folder: Path, config: dict[str, Any], command: str, result: dict[str, Any]
) -> None:
    """Write the run's row in TensorBoard's HParams tab, once its scores are known.

    Its columns are data, model, loss, seed and rate, and the options that were typed. For a job of
    a sweep these are the ones in which the jobs differ: TensorBoard shows the first few alone.

    Args:
        folder: the run folder.
        config: the plain configuration.
        command: the command that repeats the run.
        result: the content of result.json.
    """
    from torch.utils.tensorboard import SummaryWriter

    params: dict[str, Any] = {}
    for group in ("data", "model", "loss"):
        params[group] = choice_of(group, config[group]["_target_"])
    params["seed"] = config["seed"]
    params["optim.lr"] = config["optim"].get("lr", 0)
    common = common_overrides(folder.parent)
    for word in shlex.split(command):
        name, equals, value = word.lstrip("+~").partition("=")
        if equals and not name.startswith("hydra") and word.lower() not in common:
            params[name] = _number_or_text(value)
    known = [name for name in _FINAL_SCORES if result[name] is not None]
    scores = {f"final/{name}": result[name] for name in known}
    with SummaryWriter(str(folder)) as writer:
        writer.add_hparams(params, scores, run_name=".")


def _number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
