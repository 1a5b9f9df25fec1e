"""A sweep as one thing: what its jobs do in their workers, what the terminal shows, its table, picture and files.

Where jobs run and how points are chosen is Hydra's business (conf/hydra/); here is what Hydra's launchers leave open:
one GPU per job, no process left behind, skipping what is done when a sweep is continued, and the result of it all.
"""

import contextlib
import csv
import fcntl
import importlib.util
import json
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from n2n_lightning.files import InputError, natural, replacing

PARENT = "N2N_LIGHTNING_SWEEP"  # in the environment of the jobs: host:process that started the sweep
EXTRAS = {
    "hydra/launcher=ray": ("ray", "hydra_plugins.hydra_ray_launcher"),
    "hydra/launcher=slurm": ("slurm", "hydra_plugins.hydra_submitit_launcher"),
    "hydra/sweeper=n2n_optuna": ("optuna", "hydra_plugins.hydra_optuna_sweeper"),
}


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without starting CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i in range(len(re.findall(r"^GPU \d+", listed, re.MULTILINE)))]


# conf/hydra/ has launchers of the plugins' names, with keys explained and other defaults; workers import this, too.
warnings.filterwarnings("ignore", r"(?s).*is validated against ConfigStore schema")

OmegaConf.register_new_resolver("n2n_gpu_per_job", lambda: 1 if gpus() else 0, replace=True)


# In the jobs.

_claimed: list[Any] = []  # the lock of this process's GPU, held until the process ends


def claim_gpu(jobs_per_gpu: int) -> None:
    """Takes a GPU for this process alone, before CUDA starts, and until it ends; waits while all are taken."""
    if _claimed or not gpus():
        return
    folder = Path(tempfile.gettempdir()) / f"n2n_lightning-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        for slot in range(jobs_per_gpu):
            for gpu in gpus():
                file = (folder / f"gpu{gpu}.{slot}.lock").open("w")
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _claimed.append(file)
                    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
                    return
                file.close()
        time.sleep(1)


def follow_parent() -> None:
    """Ends this process when the one that started the sweep is gone: loky's workers would go on alone."""
    host, _, pid = os.environ.get(PARENT, "").partition(":")
    if host != socket.gethostname() or int(pid) == os.getpid() or "follow" in {t.name for t in threading.enumerate()}:
        return

    def watch() -> None:
        while _alive(int(pid)):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # the run saves its state after the batch
        time.sleep(15)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="follow", daemon=True).start()


def _alive(pid: int) -> bool:
    """Whether a process of this machine runs; one that ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


@contextlib.contextmanager
def job(launcher: str, n_jobs: int, jobs_per_gpu: int, folder: Path) -> Iterator[None]:
    """Around one job of a sweep: its GPU and share of the cores, and its output in `log.txt`, not on the terminal."""
    follow_parent()
    if "joblib" in launcher:
        claim_gpu(jobs_per_gpu)
        import torch

        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // n_jobs))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", buffering=1) as log, contextlib.redirect_stdout(log):
        yield


def stored(folder: Path, overrides: list[str], retry_failed: bool) -> dict[str, Any] | None:
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
    if result.get("status") == "finished" or (result.get("status") == "failed" and not retry_failed):
        return result
    if result.get("status") == "failed":
        set_aside(folder)
    return None


def set_aside(folder: Path) -> None:
    """Moves a job's folder to `failed` beside it, where it is not a job of the sweep any more."""
    aside = folder.parent / "failed"
    aside.mkdir(exist_ok=True)
    shutil.move(folder, aside / f"{folder.name}-{len(list(aside.iterdir())) + 1}")


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


# In the process that starts the sweep.


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
                f"trainer.devices={config.trainer.devices}: a job of a sweep uses one device; Lightning starts others"
                " by repeating the command line, which would be the whole sweep"
            )
        launcher = config.hydra.launcher
        self.n_jobs = int(launcher.get("n_jobs", 1))
        if "joblib" in str(launcher.get("_target_")) and (found := len(gpus())):
            places = found * config.sweep.jobs_per_gpu
            asked = self.n_jobs if self.n_jobs > 0 else os.cpu_count() or 1
            if asked > places:
                raise InputError(
                    f"hydra.launcher.n_jobs={asked}: there are {found} GPUs; hydra.launcher.n_jobs={places} would work,"
                    f" or sweep.jobs_per_gpu={-(-asked // found)}, to share them"
                )
        self.folder = Path(config.hydra.sweep.dir).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ[PARENT] = f"{socket.gethostname()}:{os.getpid()}"
        try:  # a sweep that is continued keeps what it was started with
            before = json.loads((self.folder / "sweep.json").read_text())
        except (OSError, ValueError):
            before = {"arguments": Sweep.arguments, "n_trials": OmegaConf.select(config, "hydra.sweeper.n_trials")}
        self._write(before)
        self._over = threading.Event()
        self._shown: dict[str, str] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))

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
        for name in ("sweep.json", "multirun.yaml"):  # the second is Hydra's
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not empty: the person named a folder with other things in it
            self.folder.rmdir()
        return True

    def _end(self) -> None:
        """Nothing of this sweep goes on in this process."""
        Sweep.current = None
        self._over.set()
        self._thread.join()

    def _write(self, content: dict[str, Any]) -> None:
        with replacing(self.folder / "sweep.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")

    def _watch(self) -> None:
        """One line per job while the sweep runs: live on a terminal, and one per change elsewhere."""
        from rich.console import Console
        from rich.live import Live

        stdout = sys.__stdout__
        assert stdout is not None
        live = Live(console=Console(file=stdout), auto_refresh=False, transient=True) if stdout.isatty() else None
        with live or contextlib.nullcontext():
            while True:
                last = self._over.wait(1)
                rows = read_sweep(self.folder)
                if live:
                    live.update(_table(rows), refresh=True)
                else:
                    for row in rows:
                        line = f"{row['job']}  {row['state']}  {row['point']}{_score(row, ' dB')}"
                        if self._shown.get(row["job"]) != row["state"]:
                            print(line, f" {row['reason']}" if row["reason"] else "", sep="", file=stdout, flush=True)
                        self._shown[row["job"]] = row["state"]
                if last:
                    return

    def finish(self) -> bool:
        """Writes sweep.csv, sweep.json and sweep.png, prints the table; whether all jobs finished."""
        self._end()
        rows = read_sweep(self.folder)
        before = json.loads((self.folder / "sweep.json").read_text())
        ranked = sorted(rows, key=lambda row: -(-1e9 if (value := merit(row)) is None else value))
        best = ranked[0] if ranked and merit(ranked[0]) is not None else None
        self._write({**before, "jobs": ranked, "best": best and best["command"]})
        with replacing(self.folder / "sweep.csv") as temporary, temporary.open("w", newline="") as file:
            names = list(dict.fromkeys(n for row in ranked for n in row if n not in ("parameters", "command")))
            swept = list(dict.fromkeys(name for row in ranked for name in row["parameters"]))
            writer = csv.writer(file)
            writer.writerow([*swept, *names])
            writer.writerows([[*(row["parameters"].get(n) for n in swept), *(row[n] for n in names)] for row in ranked])
        if axis := numeric_axis(rows):
            with replacing(self.folder / "sweep.png") as temporary:
                picture(rows, axis).savefig(temporary)
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        console.print(_table(ranked))
        if best:
            print(f"best:    {best['command']}")
        print(f"sweep:   {os.path.relpath(self.folder)}/sweep.csv, sweep.json" + (", sweep.png" if axis else ""))
        print(f"curves:  python -m tensorboard.main --logdir {shlex.quote(os.path.relpath(self.folder))}")
        unfinished = [row for row in rows if row["state"] != "finished"]
        if unfinished:
            print(f"{len(unfinished)} of {len(rows)} jobs did not finish; to go on:  {self._again()}", file=sys.stderr)
        return bool(rows) and not unfinished

    def _again(self) -> str:
        return f"python -m n2n_lightning.train -m sweep.resume={shlex.quote(os.path.relpath(self.folder))}"


def explain(error: BaseException) -> int:
    """The exit status after something ended the sweep early, with a line that says why."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if type(error).__name__ == "TerminatedWorkerError":
        print("error: a worker process was killed, and joblib gives up its other jobs with it", file=sys.stderr)
    elif "Record does not exist" not in str(error):  # Optuna has no best trial where all failed; the table says so
        traceback.print_exception(error)
    return 1


def read_sweep(folder: Path) -> list[dict[str, Any]]:
    """The jobs of a sweep, in the order of their numbers: what was swept, state, scores, reason and command of each."""
    jobs = [f for f in folder.iterdir() if (f / ".hydra" / "overrides.yaml").is_file()] if folder.is_dir() else []
    try:
        # Hydra writes `true` as `True` into the overrides of a job.
        fixed = {a.lower() for a in json.loads((folder / "sweep.json").read_text())["arguments"]}
    except (OSError, ValueError, KeyError):
        fixed = set()
    asked, rows = {}, []
    for path in sorted(jobs, key=natural):
        overrides = [str(o) for o in OmegaConf.load(path / ".hydra" / "overrides.yaml")]
        asked[path] = dict(o.lstrip("+").split("=", 1) for o in overrides if "=" in o and o.lower() not in fixed)
    swept = list(dict.fromkeys(name for values in asked.values() for name in values))
    for path, values in asked.items():
        result = read_result(path)
        parameters = {n: _number(values.get(n)) for n in swept}
        rows.append(
            {
                "job": path.name,
                "state": result.get("status", "waiting"),
                "parameters": parameters,
                "point": " ".join(f"{n}={v}" for n, v in parameters.items()),
                **{
                    n: result.get(n)
                    for n in (
                        *("val_psnr", "val_psnr_total", "val_loss", "val_noisy_loss"),
                        *("train_loss", "best_epoch", "epochs", "seconds"),
                    )
                },
                "reason": result.get("reason"),
                "command": result.get("command"),
            }
        )
    return rows


def merit(result: dict[str, Any]) -> float | None:
    """What the best of several runs has most of: val_psnr, in dB; None if it has no score.

    Without clean images it is the PSNR against the noisy images kept back. Their noise, the same for all runs, makes it
    low, but the order of the runs is that of their errors, up to chance.
    """
    if result.get("val_psnr") is not None:
        return float(result["val_psnr"])
    loss = result.get("val_noisy_loss")
    return -10 * math.log10(loss) if loss else None


def _number(text: str | None) -> Any:
    try:
        value = float(text or "")
    except ValueError:
        return text
    return int(value) if value.is_integer() and "." not in str(text) else value


def _score(row: dict[str, Any], unit: str = "") -> str:
    value = merit(row)
    against = "" if row["val_psnr"] is not None else " against noisy images"
    return f"  epoch {row['epochs'] or 0}  {value:.2f}{unit}{against}" if value is not None else ""


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title=None)
    clean = any(row["val_psnr"] is not None for row in rows) or not any(merit(row) for row in rows)
    for column in (
        "job",
        "point",
        "state",
        "epoch",
        "PSNR" if clean else "against noisy",
        "total",
        "seconds",
        "reason",
    ):
        wide = column in ("point", "reason")
        table.add_column(column, justify="left" if wide or column == "state" else "right", overflow="fold")
    for row in rows:
        scores = [f"{value:.2f}" if value is not None else "" for value in (merit(row), row["val_psnr_total"])]
        seconds = f"{row['seconds']:.0f}" if row["seconds"] else ""
        table.add_row(
            row["job"], row["point"], row["state"], str(row["epochs"] or ""), *scores, seconds, row["reason"] or ""
        )
    return table


def numeric_axis(rows: list[dict[str, Any]]) -> str | None:
    """The swept number that PSNR is drawn against: the first that is not the seed, and has two values or more."""
    for name in rows[0]["parameters"] if rows else ():
        values = {row["parameters"][name] for row in rows}
        if name != "seed" and len(values) > 1 and all(isinstance(v, int | float) for v in values):
            return name
    return None


def picture(rows: list[dict[str, Any]], axis: str) -> Any:
    """A matplotlib figure of PSNR against `axis`: mean and spread over seeds, a line for each other setting."""
    from statistics import mean, stdev

    from matplotlib.figure import Figure

    lines: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        if (value := merit(row)) is not None:
            others = " ".join(f"{n}={v}" for n, v in row["parameters"].items() if n not in (axis, "seed"))
            lines.setdefault(others, {}).setdefault(row["parameters"][axis], []).append(value)
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=120)
    ax = figure.subplots()
    for label, points in sorted(lines.items()):
        x = sorted(points)
        y, spread = [mean(points[v]) for v in x], [stdev(points[v]) if len(points[v]) > 1 else 0.0 for v in x]
        ax.errorbar(x, y, yerr=spread if any(spread) else None, marker="o", capsize=3, label=label or None)
    values = [row["parameters"][axis] for row in rows]
    if min(values) > 0 and max(values) / min(values) >= 10:
        ax.set_xscale("log")
    seeds = max((len(v) for points in lines.values() for v in points.values()), default=0)
    over = f", mean and deviation of {seeds} seeds" if seeds > 1 else ""
    clean = any(row["val_psnr"] is not None for row in rows)
    ax.set(xlabel=axis, ylabel=f"{'val_psnr' if clean else 'PSNR against noisy images'} in dB{over}")
    ax.grid(alpha=0.3)
    if any(lines):
        ax.legend()
    return figure


def resumed(arguments: list[str]) -> list[str]:
    """The command line with `sweep.resume=FOLDER` carried out: the same sweep, in that folder.

    Alone it repeats what the sweep was started with. An Optuna study gets the trials that are left of those first asked
    for: one whose job was killed is marked as failed, and a seeded sampler does not propose its points again.
    """
    arguments = [a.replace("hydra/sweeper=optuna", "hydra/sweeper=n2n_optuna") for a in arguments]
    arguments.sort(
        key=lambda a: a not in ("-m", "--multirun")
    )  # Hydra takes -m before the overrides or after them only
    for choice, (extra, package) in EXTRAS.items():
        if choice in arguments and importlib.util.find_spec(package) is None:
            raise InputError(f"{choice.replace('n2n_', '')}: needs pip install 'n2n_lightning[{extra}]'")
    folders = [a.removeprefix("sweep.resume=") for a in arguments if a.startswith("sweep.resume=")]
    if not folders or folders[-1] == "null":
        return arguments
    folder = Path(folders[-1])
    try:
        before = json.loads((folder / "sweep.json").read_text())
        stored_arguments = [str(a) for a in before["arguments"]]
    except (OSError, ValueError, KeyError):
        raise InputError(f"sweep.resume={folder}: not the folder of a sweep; it has no readable sweep.json") from None
    own = [a for a in arguments if not a.startswith("sweep.resume=")]
    if not _points(own):
        own = [*stored_arguments, *own]
    if _points(own) != _points(stored_arguments):
        raise InputError(
            f"sweep.resume={folder}: was started with {shlex.join(stored_arguments)}; repeat that, or nothing"
        )
    own = ["-m", *(a for a in own if a not in ("-m", "--multirun") and not a.startswith("hydra.sweep.dir="))]
    value = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    own += [f"hydra.sweep.dir='{value}'"]
    database = folder / "study.db"
    asked = [a.removeprefix("hydra.sweeper.n_trials=") for a in own if a.startswith("hydra.sweeper.n_trials=")]
    if not database.exists():
        return own
    rest = _rest_of_study(database, int(asked[-1] if asked else before["n_trials"]))
    for row in read_sweep(folder):
        if row["state"] not in ("finished", "failed", "running"):
            set_aside(folder / row["job"])  # a trial that was killed: another takes its place
    return [*own, *rest]


def _points(arguments: list[str]) -> set[str]:
    """The arguments that say what is run; those of Hydra say where and how, and may change."""
    return {a for a in arguments if not a.startswith(("-", "hydra", "sweep."))}


def _rest_of_study(database: Path, n_trials: int) -> list[str]:
    try:
        import optuna
    except ImportError:
        raise InputError("hydra/sweeper=optuna: needs pip install 'n2n_lightning[optuna]'") from None
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="n2n_lightning", storage=f"sqlite:///{database}")
    done = 0
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (TrialState.COMPLETE, TrialState.FAIL) and "killed" not in trial.user_attrs:
            done += 1
        elif trial.state == TrialState.RUNNING:
            optuna.trial.Trial(study, trial._trial_id).set_user_attr("killed", True)  # another takes its place
            study.tell(trial.number, state=TrialState.FAIL)
    if done >= n_trials:
        raise InputError(
            f"sweep.resume={database.parent}: all {n_trials} trials are done; hydra.sweeper.n_trials= asks for more"
        )
    count = len(study.get_trials(deepcopy=False))
    return [
        f"hydra.sweeper.n_trials={n_trials - done}",
        f"hydra.sweeper.sampler.seed={1000 + count}",
        f"hydra.sweep.subdir={count}_${{hydra.job.num}}",
    ]
