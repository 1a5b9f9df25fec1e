"""The jobs of a sweep in their workers: a GPU each, no process left behind, nothing done twice."""

import contextlib
import getpass
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from n2n_lightning.devices.cards import gpus, lock_name, show_only
from n2n_lightning.files import InputError
from n2n_lightning.runs import folder as run_folder
from n2n_lightning.runs import locks

_claimed: list[Any] = []  # the lock of this process's GPU, held until the process ends


def claim_gpu(jobs_per_gpu: int) -> None:
    """Take a GPU for this process, before CUDA starts, until it ends; wait while all are taken.

    Args:
        jobs_per_gpu: how many processes may share a GPU.
    """
    if _claimed or not gpus():
        return
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir()) / f"n2n_lightning-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        for slot in range(jobs_per_gpu):
            for gpu in gpus():
                path = folder / f"gpu{lock_name(gpu)}.{slot}.lock"
                try:
                    lock = locks.acquired(path)
                except locks.CannotLock:
                    locks.warn("jobs may share a GPU", path)
                    lock, gpu = path, gpus()[os.getpid() % len(gpus())]
                if lock is not None:
                    _claimed.append(lock)
                    show_only(gpu, os.environ)
                    return
        time.sleep(1)


def follow_parent(sweep: Path) -> None:
    """End this process when the one that started the sweep is gone: loky's workers would stay.

    Args:
        sweep: the folder of the sweep; its sweep.json names the process.
    """
    host, _, number = str(run_folder.read_sweep_request(sweep).get("process", "")).partition(":")
    if host != socket.gethostname() or not number.isdigit() or int(number) == os.getpid():
        return
    if "follow" in {thread.name for thread in threading.enumerate()}:
        return
    threading.Thread(target=_end_with, args=(int(number),), name="follow", daemon=True).start()


def _end_with(parent: int) -> None:
    while run_folder.alive(parent):
        time.sleep(1)
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGTERM)  # the run saves its state after the batch
    else:
        signal.raise_signal(signal.SIGTERM)  # os.kill would end the process at once
    time.sleep(15)
    os._exit(137)


def run_job(config: Any, folder: Path, overrides: list[str], hydra: Any) -> float | None:
    """Run a job of a sweep, or continue it, or take its result where it is done.

    Args:
        config: the composed configuration of the job, a DictConfig.
        folder: the folder of the job.
        overrides: its options.
        hydra: Hydra's own configuration.

    Returns:
        The score that the sweep maximises, in dB; None where there is none.

    Raises:
        InputError: the folder holds a job with other overrides, or its run is going on.
    """
    result = stored_result(folder, overrides, config.sweep.retry_failed)
    if result is None:
        follow_parent(Path(hydra.runtime.cwd, hydra.sweep.dir))
        if "joblib" in hydra.launcher["_target_"]:
            _take_share(int(hydra.launcher.get("n_jobs", 1)), config.sweep.jobs_per_gpu)
        with _output_in(folder / "log.txt"):
            result = _train(config, folder, overrides, hydra)
    return run_folder.ranking_score(result) if result["status"] == "finished" else None


def _take_share(n_jobs: int, jobs_per_gpu: int) -> None:
    """Take a GPU and a share of the cores for this process."""
    claim_gpu(jobs_per_gpu)
    import joblib  # its count of cores heeds what containers and schedulers allow
    import torch

    torch.set_num_threads(max(1, joblib.cpu_count() // n_jobs))


@contextlib.contextmanager
def _output_in(log: Path) -> Iterator[None]:
    """Write the output to a file in place of the terminal."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", buffering=1, encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
    ):
        yield


def _train(config: Any, folder: Path, overrides: list[str], hydra: Any) -> dict[str, Any]:
    """Train, and return the result; what stops a job before training begins is its result, too."""
    try:
        if run_folder.has_request(folder) and run_folder.has_checkpoint(folder):
            config, _ = run_folder.read_request(folder)
        # first, for a job that fails at once is a row of the sweep, too
        run_folder.write_request(folder, config, overrides, hydra)
        from n2n_lightning.training.run import start

        return start(config, folder, overrides, lines=True, hydra=hydra)
    except Exception as error:
        signum = getattr(error, "signum", 0)
        if signum:
            sys.exit(128 + signum)  # not an Exception: it ends the sweep, not only this job
        result = run_folder.read_result(folder)
        if result.get("status") != "failed":
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, InputError):
                reason = str(error)
            result = {
                "format": run_folder.RUN_FORMAT,
                "status": "failed",
                "reason": " ".join(reason.split()),
            }
            run_folder.write_result(folder, result)
        traceback.print_exc(file=sys.stdout)  # into the job's log.txt
        return result


def stored_result(folder: Path, overrides: list[str], retry_failed: bool) -> dict[str, Any] | None:
    """Return the result of a job that needs no run any more.

    Args:
        folder: the folder of the job.
        overrides: its options.
        retry_failed: run a job that failed again, in a new folder of the same name.

    Returns:
        The result; None where the job has to be run or continued.

    Raises:
        InputError: the folder holds a job with other overrides, or its run is going on.
    """
    if run_folder.has_request(folder):
        before = run_folder.read_overrides(folder)
        if set(before) != set(overrides):
            raise InputError(
                f"{folder}: was {shlex.join(before)}, not {shlex.join(overrides)}; repeat the same"
                " command"
            )
    result = run_folder.read_result(folder)
    status = result.get("status")
    if status == "running":
        raise InputError(f"{folder}: its run is still going on")
    if status == "finished" or (status == "failed" and not retry_failed):
        return result
    if status == "failed":
        set_aside(folder)
    return None


def set_aside(folder: Path) -> None:
    """Move a job's folder to `failed` in the sweep's folder, where it is no job any more."""
    aside = folder.parent / "failed"
    aside.mkdir(exist_ok=True)
    shutil.move(folder, aside / f"{folder.name}-{len(list(aside.iterdir())) + 1}")
