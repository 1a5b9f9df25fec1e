"""What the jobs of a sweep do in their workers: a GPU each, no process left behind, nothing done twice."""

import contextlib
import getpass
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from n2n_lightning.files import InputError
from n2n_lightning.runs import locks
from n2n_lightning.runs.folder import alive, read_result

# in the environment of the jobs: host:process that started the sweep
PARENT = "N2N_LIGHTNING_SWEEP"


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without starting CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i in range(len(re.findall(r"^GPU \d+", listed, re.MULTILINE)))]


_claimed: list[Any] = []  # the lock of this process's GPU, held until the process ends


def claim_gpu(jobs_per_gpu: int) -> None:
    """Takes a GPU for this process alone, before CUDA starts, and until it ends; waits while all are taken."""
    if _claimed or not gpus():
        return
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir()) / f"n2n_lightning-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        for slot in range(jobs_per_gpu):
            for gpu in gpus():
                path = folder / f"gpu{gpu}.{slot}.lock"
                try:
                    lock = locks.acquired(path)
                except locks.CannotLock:
                    locks.warn("jobs may share a GPU", path)
                    lock, gpu = path, gpus()[os.getpid() % len(gpus())]
                if lock is not None:
                    _claimed.append(lock)
                    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
                    return
        time.sleep(1)


def follow_parent() -> None:
    """Ends this process when the one that started the sweep is gone: loky's workers would go on alone."""
    host, _, pid = os.environ.get(PARENT, "").partition(":")
    if (
        host != socket.gethostname()
        or int(pid) == os.getpid()
        or "follow" in {t.name for t in threading.enumerate()}
    ):
        return

    def watch() -> None:
        while alive(int(pid)):
            time.sleep(1)
        if os.name == "posix":
            os.kill(os.getpid(), signal.SIGTERM)  # the run saves its state after the batch
        else:
            signal.raise_signal(signal.SIGTERM)  # os.kill would end the process at once
        time.sleep(15)
        os._exit(137)

    threading.Thread(target=watch, name="follow", daemon=True).start()


@contextlib.contextmanager
def job(launcher: str, n_jobs: int, jobs_per_gpu: int, folder: Path) -> Iterator[None]:
    """Around one job of a sweep: its GPU and share of the cores, and its output in `log.txt`, not on the terminal."""
    follow_parent()
    if "joblib" in launcher:
        claim_gpu(jobs_per_gpu)
        import joblib  # its count of cores heeds what containers and schedulers allow
        import torch

        torch.set_num_threads(max(1, joblib.cpu_count() // n_jobs))
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "log.txt").open("a", buffering=1, encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
    ):
        yield


def stored_result(folder: Path, overrides: list[str], retry_failed: bool) -> dict[str, Any] | None:
    """The result of a job that needs no run any more; None where it has to be run or continued.

    Raises:
        InputError: the folder holds a job with other overrides.
    """
    asked = folder / ".hydra" / "overrides.yaml"
    if asked.is_file():
        before = [str(o) for o in OmegaConf.load(asked)]
        if set(before) != set(overrides):
            raise InputError(
                f"{folder}: was {shlex.join(before)}, not {shlex.join(overrides)}; repeat the same command"
            )
    result = read_result(folder)
    if result.get("status") == "running":
        raise InputError(f"{folder}: its run is still going on")
    if result.get("status") == "finished" or (
        result.get("status") == "failed" and not retry_failed
    ):
        return result
    if result.get("status") == "failed":
        set_aside(folder)
    return None


def set_aside(folder: Path) -> None:
    """Moves a job's folder to `failed` beside it, where it is not a job of the sweep any more."""
    aside = folder.parent / "failed"
    aside.mkdir(exist_ok=True)
    shutil.move(folder, aside / f"{folder.name}-{len(list(aside.iterdir())) + 1}")
