"""A sweep in the process that starts it: what the terminal shows, and the end of it all."""

import contextlib
import csv
import json
import os
import shlex
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from n2n_lightning.files import InputError, replacing
from n2n_lightning.runs import locks
from n2n_lightning.runs.folder import ranking_score
from n2n_lightning.sweep.jobs import PARENT, gpus
from n2n_lightning.sweep.results import jobs_table, numeric_axis, picture, read_sweep, score_text
from n2n_lightning.sweep.resume import points


class Start(Callback):
    """Tells Hydra to begin a `Sweep` with a multirun; has no state, because launchers send it to their workers."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            Sweep.current = Sweep(config)
        except InputError as error:  # Hydra turns an Exception of a callback into a warning
            print("error:", error, file=sys.stderr)
            sys.exit(2)


class Sweep:
    """A sweep that is going on in this process; train.main ends it with `close`, however it comes."""

    current: "Sweep | None" = None
    arguments: list[str] = []  # noqa: RUF012 - of the command line, set by train.main

    def __init__(self, config: DictConfig) -> None:
        if config.trainer.get("devices", 1) != 1 or config.trainer.get("num_nodes", 1) != 1:
            raise InputError(
                "trainer.devices",
                config.trainer.devices,
                "a job of a sweep uses one device; Lightning starts others by repeating the"
                " command line, which would be the whole sweep",
            )
        launcher = config.hydra.launcher
        self.n_jobs = int(launcher.get("n_jobs", 1))
        if "joblib" in str(launcher.get("_target_")) and (found := len(gpus())):
            places = found * config.sweep.jobs_per_gpu
            asked = self.n_jobs if self.n_jobs > 0 else os.cpu_count() or 1
            if asked > places:
                raise InputError(
                    "hydra.launcher.n_jobs",
                    asked,
                    f"there are {found} GPUs; hydra.launcher.n_jobs={places} would work, or"
                    f" sweep.jobs_per_gpu={-(-asked // found)}, to share them",
                )
        self.folder = Path(config.hydra.sweep.dir).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ[PARENT] = f"{socket.gethostname()}:{os.getpid()}"
        try:  # a sweep that is continued keeps what it was started with
            before = json.loads((self.folder / "sweep.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {
                "arguments": Sweep.arguments,
                "n_trials": OmegaConf.select(config, "hydra.sweeper.n_trials"),
            }
        if points(before.get("arguments", [])) != points(Sweep.arguments):
            raise InputError(
                f"{self.folder}: holds the sweep of {shlex.join(before['arguments'])}; name"
                " another folder"
            )
        self._lock = self._held()
        self._write(before)
        self._over = threading.Event()
        self._shown: dict[str, str] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        # the signal that should end the sweep, and when it came
        self._asked: tuple[int, float] | None = None
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._end_by)

    def _end_by(self, signum: int, frame: Any) -> None:
        self._asked = signum, time.monotonic()
        raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signum)

    def _held(self) -> Any:
        """The lock of the folder, which ends with this process; raises InputError where another sweep has it."""
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
        """The end of the sweep, however it came: its files and table, no process left behind, the exit status."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        complete = self.finish()
        with contextlib.suppress(Exception):
            if "ray" in sys.modules:
                sys.modules["ray"].shutdown()
            if "joblib" in sys.modules:
                from joblib.externals.loky import get_reusable_executor

                get_reusable_executor().shutdown(wait=False, kill_workers=True)
        return status if isinstance(status, int) and status else (0 if complete else 1)

    def withdrawn(self) -> bool:
        """Takes a sweep back of which no job has begun, with what it wrote; whether that was so."""
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
        """Nothing of this sweep goes on in this process."""
        Sweep.current = None
        self._over.set()
        self._thread.join()

    def _write(self, content: dict[str, Any]) -> None:
        with replacing(self.folder / "sweep.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _watch(self) -> None:
        """One line per job while the sweep runs: live on a terminal, and one per change elsewhere."""
        from rich.console import Console
        from rich.live import Live

        stdout = sys.__stdout__
        assert stdout is not None
        live = (
            Live(console=Console(file=stdout), auto_refresh=False, transient=True)
            if stdout.isatty()
            else None
        )
        with live or contextlib.nullcontext():
            while True:
                last = self._over.wait(1)
                # Python drops an exception that is raised while it cleans up: then the signal is
                # sent once more.
                if not last and self._asked and time.monotonic() - self._asked[1] > 30:
                    signum, self._asked = self._asked[0], None
                    signal.raise_signal(signum)
                rows = read_sweep(self.folder)
                if live:
                    live.update(jobs_table(rows), refresh=True)
                else:
                    for row in rows:
                        line = (
                            f"{row['job']}  {row['state']}  {row['point']}{score_text(row, ' dB')}"
                        )
                        if self._shown.get(row["job"]) != row["state"]:
                            print(
                                line,
                                f" {row['reason']}" if row["reason"] else "",
                                sep="",
                                file=stdout,
                                flush=True,
                            )
                        self._shown[row["job"]] = row["state"]
                if last:
                    return

    def finish(self) -> bool:
        """Writes sweep.csv, sweep.json and sweep.png, prints the table; whether all jobs finished."""
        self._end()
        rows = read_sweep(self.folder)
        before = json.loads((self.folder / "sweep.json").read_text(encoding="utf-8"))
        ranked = sorted(
            rows, key=lambda row: -(-1e9 if (value := ranking_score(row)) is None else value)
        )
        best = ranked[0] if ranked and ranking_score(ranked[0]) is not None else None
        self._write({**before, "jobs": ranked, "best": best and best["command"]})
        with (
            replacing(self.folder / "sweep.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            names = list(
                dict.fromkeys(
                    n for row in ranked for n in row if n not in ("parameters", "command")
                )
            )
            swept = list(dict.fromkeys(name for row in ranked for name in row["parameters"]))
            writer = csv.writer(file)
            writer.writerow([*swept, *names])
            writer.writerows(
                [
                    [*(row["parameters"].get(n) for n in swept), *(row[n] for n in names)]
                    for row in ranked
                ]
            )
        if axis := numeric_axis(rows):
            with replacing(self.folder / "sweep.png") as temporary:
                picture(rows, axis).savefig(temporary)
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        console.print(jobs_table(ranked))
        if best:
            print(f"best:    {best['command']}")
        print(
            f"sweep:   {os.path.relpath(self.folder)}/sweep.csv, sweep.json"
            + (", sweep.png" if axis else "")
        )
        print(
            "curves:  python -m tensorboard.main --logdir"
            f" {shlex.quote(os.path.relpath(self.folder))}"
        )
        unfinished = [row for row in rows if row["state"] != "finished"]
        if unfinished:
            print(
                f"{len(unfinished)} of {len(rows)} jobs did not finish; to go on:  {self._again()}",
                file=sys.stderr,
            )
        return bool(rows) and not unfinished

    def _again(self) -> str:
        return f"python -m n2n_lightning.train -m sweep.resume={shlex.quote(os.path.relpath(self.folder))}"


def explain(error: BaseException) -> int:
    """The exit status after something ended the sweep early, with a line that says why."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if type(error).__name__ == "TerminatedWorkerError":
        print(
            "error: a worker process was killed, and joblib gives up its other jobs with it",
            file=sys.stderr,
        )
    elif "Record does not exist" not in str(
        error
    ):  # Optuna has no best trial where all failed; the table says so
        traceback.print_exception(error)
    return 1
