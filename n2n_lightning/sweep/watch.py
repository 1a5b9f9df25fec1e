"""A sweep in the process that starts it: what the terminal shows, and how it ends."""

import contextlib
import csv
import json
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from n2n_lightning.devices.cards import gpus
from n2n_lightning.files import InputError, replacing
from n2n_lightning.runs import locks
from n2n_lightning.runs.folder import RUN_FORMAT, ranking_score, read_sweep_request, this_process
from n2n_lightning.sweep.results import jobs_table, numeric_axis, picture, read_sweep, score_text
from n2n_lightning.sweep.resume import points

# Python drops an exception that is raised while it cleans up: then a signal is sent once more.
SECONDS_TO_REPEAT_SIGNAL = 30


class Sweep:
    """A sweep of this process; `begin` starts it, and `close` ends it, whatever ended its jobs.

    Attributes:
        arguments: of the command line, which sweep.json keeps.
        begun: a sweep was started, and nothing ended it yet.
    """

    def __init__(self) -> None:
        self.arguments: list[str] = []
        self.begun = False
        self.folder = Path()
        self._lock: Any = None
        self._over = threading.Event()
        self._shown: dict[str, str] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        # the signal that should end the sweep, and when it came
        self._asked: tuple[int, float] | None = None

    def begin(self, config: DictConfig) -> None:
        """Start the sweep that Hydra composed, before its first job.

        Args:
            config: its configuration, Hydra's own among it.

        Raises:
            InputError: it cannot run like this, or not in its folder.
        """
        _refuse_devices(config)
        self.folder = Path(config.hydra.sweep.dir).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        # a sweep that is continued keeps what it was started with
        request = read_sweep_request(self.folder)
        if not request:
            n_trials = OmegaConf.select(config, "hydra.sweeper.n_trials")
            request = {"arguments": self.arguments, "n_trials": n_trials}
        if points(request["arguments"]) != points(self.arguments):
            raise InputError(
                f"{self.folder}: holds the sweep of {shlex.join(request['arguments'])};"
                " name another folder"
            )
        self._lock = self._locked()
        self._write({"format": RUN_FORMAT, **request, "process": this_process()})
        self.begun = True
        self._thread.start()
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._end_by)

    def _end_by(self, signum: int, frame: Any) -> None:
        self._asked = signum, time.monotonic()
        raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signum)

    def _locked(self) -> Any:
        """Return the lock of the folder, or None where the file system has no locks."""
        path = self.folder / ".lock"
        try:
            lock = locks.acquired(path)
        except locks.CannotLock:
            locks.warn("two sweeps in one folder would not notice one another", path)
            return None
        if lock is None:
            raise InputError(
                f"{self.folder}: a sweep is going on in it; name another folder with"
                " hydra.sweep.dir="
            )
        return lock

    def close(self, status: Any) -> int:
        """End the sweep: write its files, print its table, leave no process behind.

        Args:
            status: the exit status of what ended it, or None.

        Returns:
            The exit status: 1 where a job did not finish, unless there is another one already.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        complete = self.finish()
        with contextlib.suppress(Exception):
            if "ray" in sys.modules:
                sys.modules["ray"].shutdown()
            if "joblib" in sys.modules:
                from joblib.externals.loky import get_reusable_executor

                get_reusable_executor().shutdown(wait=False, kill_workers=True)
        if isinstance(status, int) and status:
            return status
        return 0 if complete else 1

    def withdrawn(self) -> bool:
        """Delete what the sweep wrote if no job has started; return True if deleted."""
        if read_sweep(self.folder):
            return False
        self._end()
        if self._lock is not None:
            self._lock.release()
        for name in ("sweep.json", "multirun.yaml", ".lock"):  # the second is Hydra's
            (self.folder / name).unlink(missing_ok=True)
        # it is not empty: the person named a folder with other things in it
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return True

    def _end(self) -> None:
        self.begun = False
        self._over.set()
        self._thread.join()

    def _write(self, content: dict[str, Any]) -> None:
        with replacing(self.folder / "sweep.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _watch(self) -> None:
        """Show the jobs: a live table on a terminal, elsewhere a line per change."""
        from rich.console import Console
        from rich.live import Live

        stdout = sys.__stdout__
        assert stdout is not None
        live: Any = None
        if stdout.isatty():
            live = Live(console=Console(file=stdout), auto_refresh=False, transient=True)
        with live or contextlib.nullcontext():
            last = False
            while not last:
                last = self._over.wait(1)
                if not last:
                    self._repeat_signal()
                rows = read_sweep(self.folder)
                if live:
                    live.update(jobs_table(rows), refresh=True)
                else:
                    self._print_changes(rows, stdout)

    def _repeat_signal(self) -> None:
        if self._asked and time.monotonic() - self._asked[1] > SECONDS_TO_REPEAT_SIGNAL:
            signum, _ = self._asked
            self._asked = None
            signal.raise_signal(signum)

    def _print_changes(self, rows: list[dict[str, Any]], stdout: Any) -> None:
        for row in rows:
            if self._shown.get(row["job"]) != row["state"]:
                line = f"{row['job']}  {row['state']}  {row['point']}{score_text(row, ' dB')}"
                reason = f" {row['reason']}" if row["reason"] else ""
                print(line, reason, sep="", file=stdout, flush=True)
            self._shown[row["job"]] = row["state"]

    def finish(self) -> bool:
        """Write the files of the sweep, print its table; return True if all jobs finished."""
        self._end()
        rows = read_sweep(self.folder)
        ranked = sorted(rows, key=_rank)
        best: str | None = None
        if ranked and ranking_score(ranked[0]) is not None:
            best = ranked[0]["command"]
        self._write({**read_sweep_request(self.folder), "jobs": ranked, "best": best})
        self._write_table(ranked)
        axis = numeric_axis(rows)
        if axis:
            with replacing(self.folder / "sweep.png") as temporary:
                picture(rows, axis).savefig(temporary)
        self._print_result(ranked, best, bool(axis))
        unfinished = [row for row in rows if row["state"] != "finished"]
        if unfinished:
            print(
                f"{len(unfinished)} of {len(rows)} jobs did not finish; to go on:  {self._again()}",
                file=sys.stderr,
            )
        return bool(rows) and not unfinished

    def _write_table(self, rows: list[dict[str, Any]]) -> None:
        swept: dict[str, None] = {}  # in the order of the rows
        names: dict[str, None] = {}
        for row in rows:
            swept |= dict.fromkeys(row["parameters"])
            names |= dict.fromkeys(row)
        for name in ("parameters", "command"):
            names.pop(name, None)
        with (
            replacing(self.folder / "sweep.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow([*swept, *names])
            for row in rows:
                values = [row["parameters"].get(name) for name in swept]
                writer.writerow([*values, *(row[name] for name in names)])

    def _print_result(self, ranked: list[dict[str, Any]], best: str | None, drawn: bool) -> None:
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        console.print(jobs_table(ranked))
        if best:
            print(f"best:    {best}")
        place = os.path.relpath(self.folder)
        files = "sweep.csv, sweep.json, sweep.png" if drawn else "sweep.csv, sweep.json"
        print(f"sweep:   {place}/{files}")
        print(f"curves:  python -m tensorboard.main --logdir {shlex.quote(place)}")

    def _again(self) -> str:
        place = shlex.quote(os.path.relpath(self.folder))
        return f"n2n train -m sweep.resume={place}"


# The sweep that Hydra may begin while `prepared` is open: Hydra makes its callbacks itself.
_prepared: ContextVar[Sweep] = ContextVar("sweep of this process")


@contextlib.contextmanager
def prepared() -> Iterator[Sweep]:
    """Prepare for a sweep, which begins if Hydra composes one.

    Yields:
        The sweep.
    """
    token = _prepared.set(Sweep())
    try:
        yield _prepared.get()
    finally:
        _prepared.reset(token)


class Start(Callback):
    """Begin the prepared sweep with a multirun; without state, for workers get it, too."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            _prepared.get().begin(config)
        except InputError as error:  # Hydra turns an Exception of a callback into a warning
            print("error:", error, file=sys.stderr)
            sys.exit(2)


def _refuse_devices(config: DictConfig) -> None:
    """Raise for more devices than a job can use, and for more jobs than there are GPUs."""
    if config.trainer.get("devices", 1) != 1 or config.trainer.get("num_nodes", 1) != 1:
        raise InputError(
            "trainer.devices",
            config.trainer.devices,
            "a job of a sweep uses one device; Lightning starts others by repeating the"
            " command line, which would be the whole sweep",
        )
    launcher = config.hydra.launcher
    count = len(gpus())
    if "joblib" not in str(launcher.get("_target_")) or not count:
        return
    n_jobs = int(launcher.get("n_jobs", 1))
    if n_jobs <= 0:
        n_jobs = os.cpu_count() or 1
    places = count * config.sweep.jobs_per_gpu
    if n_jobs > places:
        raise InputError(
            "hydra.launcher.n_jobs",
            n_jobs,
            f"there are {count} GPUs; hydra.launcher.n_jobs={places} would work, or"
            f" sweep.jobs_per_gpu={-(-n_jobs // count)}, to share them",
        )


def _rank(row: dict[str, Any]) -> float:
    """Return the key that sorts jobs from the best to the worst, those without a score last."""
    score = ranking_score(row)
    return 1e9 if score is None else -score


def explain(error: BaseException) -> int:
    """Print why something ended a sweep early; return the exit status."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if type(error).__name__ == "TerminatedWorkerError":
        print(
            "error: a worker process was killed, and joblib gives up its other jobs with it",
            file=sys.stderr,
        )
    # Optuna has no best trial where all failed; the table says so
    elif "Record does not exist" not in str(error):
        traceback.print_exception(error)
    return 1
