"""`denoise --jobs N` and `--launcher`: the same command in several processes, and one bar for all.

The processes divide the pictures by claims (shared_output.py). Here they are only started, on this
machine, by Ray or as an array of Slurm's, and watched.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from n2n_lightning.files import InputError
from n2n_lightning.inference.progress_watch import Watch, duration
from n2n_lightning.inference.shared_output import SETTINGS, WORKERS, remove_state, state_folder
from n2n_lightning.runs.claims import Claims

REFRESH_SECONDS = 0.5
Print = Callable[[str, Any], None]


class Started(Protocol):
    """Processes that were started somewhere."""

    def running(self) -> bool:
        """Return True while one of them runs."""

    def failures(self) -> list[str]:
        """Return a line for each that ended before its time."""

    def stop(self) -> None:
        """End all of them."""


def worker_command() -> list[str]:
    """Return the command of a worker: the same as was typed, for one process."""
    return [sys.executable, "-m", "n2n_lightning.denoise", *sys.argv[1:], "--worker"]


def denoise_by_workers(args: Any, pictures: int) -> Watch:
    """Denoise a folder by several processes, and show their progress.

    Args:
        args: of the command.
        pictures: how many there are.

    Returns:
        The progress at the end.

    Raises:
        InputError: the launcher cannot be used like this.
    """
    watch = Watch(args.out)
    state = state_folder(args.out)
    workers = Claims(state / WORKERS)
    if not workers.held():
        if args.overwrite:
            remove_state(state)
        else:
            Claims(state / "pictures").forget_failures()
    registered = workers.claim(uuid4().hex)
    assert registered is not None  # its name is new
    progress = _progress()
    with ExitStack() as stack:
        # while this process is registered, no worker removes the state or begins anew
        stack.enter_context(registered)
        stack.enter_context(progress)
        task = progress.add_task("", total=pictures, speed="", left="")

        def show(line: str, stream: Any) -> None:
            progress.console.print(line, markup=False, highlight=False)

        started = _started(args, state, show if progress.console.is_terminal else _print)
        stack.callback(started.stop)
        while started.running():
            time.sleep(REFRESH_SECONDS)
            watch.update()
            speed = "" if watch.speed is None else f"{watch.speed:.3g} megavoxels/s"
            left = "" if watch.seconds_left is None else f"{duration(watch.seconds_left)} left"
            progress.update(task, completed=watch.done, speed=speed, left=left)
        watch.update()
    for line in started.failures():
        print(f"error: {line}", file=sys.stderr)
    watch.was_begun = (state / SETTINGS).exists()
    is_over = not watch.was_begun or watch.done + len(watch.failed) >= watch.pictures
    if is_over and not workers.held():  # else the last of those that others started removes it
        remove_state(state)
    return watch


def _print(line: str, stream: Any) -> None:
    print(line, file=stream, flush=True)


def _progress() -> Any:
    """Return a progress bar that counts pictures, shown on terminals."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pictures  {task.fields[speed]}  {task.fields[left]}"),
        console=Console(highlight=False, soft_wrap=True),
        transient=True,
        disable=not sys.stdout.isatty(),
    )


def _started(args: Any, state: Path, show: Print) -> Started:
    options = settings_of_launcher(args.launcher, args.set) if args.launcher else {}
    if args.launcher == "slurm":
        return SlurmArray(args.jobs or 1, options, state)
    if args.launcher == "ray":
        return RayWorkers(args.jobs or 1, options)
    return LocalProcesses(args.jobs, args.device, show)


def settings_of_launcher(launcher: str, changes: Sequence[str]) -> dict[str, Any]:
    """Return the keys of conf/hydra/launcher/LAUNCHER.yaml with those of --set.

    Args:
        launcher: `slurm` or `ray`.
        changes: `KEY=VALUE`, a key of the file, as `partition=gpu` or `remote.num_gpus=1`.

    Raises:
        InputError: there is no such key.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    import n2n_lightning.sweep  # noqa: F401  # its resolver counts GPUs
    from n2n_lightning.config.overrides import CONF

    stored = OmegaConf.load(CONF / "hydra" / "launcher" / f"{launcher}.yaml")
    keys: Any = OmegaConf.to_container(stored, resolve=False)
    keys = keys.get("ray", keys)
    for key in ("_target_", "submitit_folder"):  # of Hydra
        keys.pop(key, None)
    config: Any = OmegaConf.create(keys)
    for change in changes:
        key, equals, _ = change.partition("=")
        # sections take further keys, as Ray knows more than the file names
        if not equals or key.split(".")[0] not in config:
            names = ", ".join(keys)
            raise InputError("set", change, f"must be KEY=VALUE with a key of {launcher}: {names}")
        try:
            config.merge_with_dotlist([change])
        except OmegaConfBaseException as error:
            raise InputError("set", change, " ".join(str(error).split())) from error
    options: Any = OmegaConf.to_container(config, resolve=True)
    return dict(options)


def _cards(device: str) -> list[str]:
    """Return the GPUs that processes may take, as CUDA_VISIBLE_DEVICES names them."""
    from n2n_lightning.devices.cards import gpus

    if device not in ("auto", "cuda"):
        return []
    return gpus()


def _cores() -> int:
    """Return the number of cores that containers and schedulers allow this process."""
    try:
        import joblib
    except ImportError:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    return int(joblib.cpu_count())


class LocalProcesses:
    """Processes of this machine: one GPU for each where there are some, else a share of the cores.

    Args:
        count: how many.
        device: of --device; with `cpu` no GPU is taken.
        show: prints a line of one of them.
    """

    def __init__(self, count: int, device: str, show: Print) -> None:
        from n2n_lightning.devices.cards import show_only

        cards = _cards(device)
        threads = max(1, _cores() // count)
        self._shown: set[str] = set()
        self._show = show
        self._processes = []
        self._threads = []
        for number in range(count):
            env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            if cards:
                show_only(cards[number % len(cards)], env)
            process = subprocess.Popen(
                worker_command(),
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="backslashreplace",
            )
            self._processes.append(process)
            for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                thread = threading.Thread(target=self._copy, args=(source, target), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _copy(self, source: Any, target: Any) -> None:
        """Print the lines of a process; what all of them say, once."""
        with source:
            for line in source:
                text = line.rstrip("\n")
                if text not in self._shown:
                    self._shown.add(text)
                    self._show(text, target)

    def running(self) -> bool:
        """Return True while one of them runs."""
        return any(process.poll() is None for process in self._processes)

    def failures(self) -> list[str]:
        """Return a line for each that was killed; others say themselves what failed."""
        for thread in self._threads:
            thread.join()
        lines = []
        for process in self._processes:
            if process.returncode < 0:
                lines.append(f"process {process.pid} was ended by signal {-process.returncode}")
        return lines

    def stop(self) -> None:
        """End those that run, as after Ctrl-C."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            process.wait()


class SlurmArray:
    """An array of Slurm's, by submitit; without Slurm submitit starts processes of this machine.

    Args:
        count: how many tasks.
        options: keys of conf/hydra/launcher/slurm.yaml.
        state: the state folder, in which submitit has its scripts and the output of the tasks.
    """

    def __init__(self, count: int, options: dict[str, Any], state: Path) -> None:
        try:
            import submitit
        except ImportError as error:
            reason = "needs submitit: pip install 'n2n_lightning[slurm]'"
            raise InputError("launcher", "slurm", reason) from error
        # as hydra-submitit-launcher: these keys are submitit's own, others are options of Slurm
        common = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb")
        plain = {*common, "nodes", "name", "stderr_to_stdout"}
        retries = options.pop("max_num_timeout")
        executor = submitit.AutoExecutor(state / "slurm", slurm_max_num_timeout=retries)
        parameters = {}
        for key, value in options.items():
            parameters[key if key in plain else f"slurm_{key}"] = value
        executor.update_parameters(**parameters)
        task = _Task(worker_command(), os.getcwd())
        with executor.batch():
            self._jobs = [executor.submit(task) for _ in range(count)]
        print(f"{executor.cluster}: {count} tasks, {self._jobs[0].job_id} is the first", flush=True)

    def running(self) -> bool:
        """Return True while a task waits or runs."""
        return not all(job.done() for job in self._jobs)

    def failures(self) -> list[str]:
        """Return a line for each task that ended before its time."""
        lines = []
        for job in self._jobs:
            if job.exception() is not None:
                lines.append(f"task {job.job_id}: {job.state}; its output is {job.paths.stderr}")
        return lines

    def stop(self) -> None:
        """Cancel the tasks that wait or run."""
        for job in self._jobs:
            if not job.done():
                job.cancel()


class _Task:
    """A worker as a task of Slurm's, which is queued again when its time is over."""

    def __init__(self, command: list[str], folder: str) -> None:
        self.command = command
        self.folder = folder

    def __call__(self) -> int:
        return _run_worker(self.command, self.folder)

    def checkpoint(self) -> Any:
        """Return what is queued in its place: the same, as it goes on by itself."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _run_worker(command: list[str], folder: str) -> int:
    """Run a worker, with its output in this process's; return its exit status."""
    status = subprocess.run(command, cwd=folder, check=False).returncode
    if status not in (0, 1):  # 1: pictures failed, which the state folder says
        raise RuntimeError(f"{' '.join(command)}: exit status {status}")
    return status


class RayWorkers:
    """Tasks of Ray's, on a running cluster or on one that is started here.

    Args:
        count: how many.
        options: keys of conf/hydra/launcher/ray.yaml, below `ray`.
    """

    def __init__(self, count: int, options: dict[str, Any]) -> None:
        try:
            import ray
        except ImportError as error:
            reason = "needs Ray: pip install 'n2n_lightning[ray]'"
            raise InputError("launcher", "ray", reason) from error
        self._ray = ray
        ray.init(logging_level=logging.ERROR, **options["init"])
        remote = ray.remote(**options["remote"])(_run_worker)
        command = worker_command()
        self._tasks = [remote.remote(command, os.getcwd()) for _ in range(count)]

    def running(self) -> bool:
        """Return True while a task waits or runs."""
        _, waiting = self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
        return bool(waiting)

    def failures(self) -> list[str]:
        """Return a line for each task that ended before its time."""
        return self._failures

    def stop(self) -> None:
        """End the tasks that run, and leave the cluster."""
        self._failures = []
        for task in self._tasks:
            ready, _ = self._ray.wait([task], timeout=0)
            if not ready:
                self._ray.cancel(task, force=True)
                continue
            try:
                self._ray.get(task)
            except self._ray.exceptions.RayError as error:
                self._failures.append(str(error).strip().splitlines()[-1])
        self._ray.shutdown()
