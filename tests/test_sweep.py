"""Sweeps as a person starts, breaks and continues them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from n2n_lightning.config.hydra_versions import VERSION_BASE
from n2n_lightning.files import InputError
from n2n_lightning.runs import folder as run_folder
from n2n_lightning.sweep import results, resume
from n2n_lightning.train import CONF
from n2n_lightning.training import callbacks
from tests.conftest import KILL, LIMIT, course_files, posix

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    *(
        "data.train_pairs=24",
        "data.val_pairs=4",
        "data.batch_size=6",
        "trainer.max_epochs=2",
        "model=residual_unet",
        "model.width=4",
    ),
    *("trainer.accelerator=cpu", "trainer.precision=32-true"),
]
NOTE = "+callbacks.note._target_=tests.test_sweep.Note"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "n2n_lightning.train", *arguments],
        cwd=cwd, env={**ENVIRONMENT, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(*arguments: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    process = start(*arguments, cwd=cwd, **environment)
    out, errors = process.communicate(timeout=LIMIT)
    return process.returncode, out, errors


def jobs(folder: Path) -> dict[str, dict]:
    return {row["job"]: row for row in json.loads((folder / "sweep.json").read_text())["jobs"]}


class Note(callbacks.Callback):
    """Writes which GPU a job had, and when."""

    def on_train_start(self, trainer, pl_module):
        self.started = time.time()
        time.sleep(0.5)

    def on_train_end(self, trainer, pl_module):
        path = Path(trainer.default_root_dir) / "note.json"
        path.write_text(
            json.dumps([os.environ["CUDA_VISIBLE_DEVICES"], self.started, time.time(), os.getpid()])
        )


class Break(callbacks.Callback):
    """What `seed` says: 1 raises, 2 diverges, 3 is killed the first time."""

    def on_train_epoch_start(self, trainer, pl_module):
        import torch

        seed = pl_module.spec["config"]["seed"]
        if trainer.current_epoch == 1:
            if seed == 1:
                raise OSError("the disk is on fire")
            if seed == 2:
                torch.nn.init.constant_(pl_module.network.output.weight, torch.nan)
            marker = Path(trainer.default_root_dir) / "killed"
            if seed == 3 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), KILL)


class Slow(callbacks.Callback):
    def on_train_batch_start(self, *_):
        time.sleep(0.2)


def overlapping(folder: Path) -> tuple[list[str], bool]:
    """The GPUs of all jobs, and whether two jobs had the same one at the same time."""
    notes = sorted(json.loads(path.read_text()) for path in folder.glob("*/note.json"))
    same = [a[0] == b[0] and b[1] < a[2] for a, b in pairwise(notes)]
    return [note[0] for note in notes], any(same)


@pytest.mark.walk
def test_a_sweep_and_what_it_gives(tmp_path):
    asked = ["optim.lr=0.01,0.001", "seed=1,2", "data.augment=true", *SMALL]
    status, out, errors = run("-m", *asked, "hydra.sweep.dir=s", cwd=tmp_path)
    assert (status, errors) == (0, "")
    found = jobs(tmp_path / "s")
    assert {
        (row["parameters"]["optim.lr"], row["parameters"]["seed"]) for row in found.values()
    } == {(lr, seed) for lr in (0.01, 0.001) for seed in (1, 2)}
    assert all(set(row["parameters"]) == {"optim.lr", "seed"} for row in found.values())
    scores = [row["val_psnr"] for row in found.values()]
    assert scores == sorted(scores, reverse=True)
    summary = json.loads((tmp_path / "s" / "sweep.json").read_text())
    best = next(iter(found.values()))
    assert summary["best"] == best["command"]
    assert f"optim.lr={best['parameters']['optim.lr']}" in summary["best"]
    assert summary["best"] in out
    rows = list(csv.DictReader((tmp_path / "s" / "sweep.csv").read_text().splitlines()))
    assert [float(row["val_psnr"]) for row in rows] == scores
    assert rows[0]["optim.lr"] == str(best["parameters"]["optim.lr"])
    assert (tmp_path / "s" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "0  finished  optim.lr=0.01 seed=1" in out
    assert "epoch 2/2" in (tmp_path / "s" / "0" / "log.txt").read_text()

    # TensorBoard's HParams tab: one row per job, with its parameters and scores.
    for name, row in found.items():
        events = EventAccumulator(str(tmp_path / "s" / name)).Reload()
        assert events.Scalars("final/val_psnr")[0].value == pytest.approx(row["val_psnr"])
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        columns = set(HParamsPluginData.FromString(content).session_start_info.hparams)
        # what all jobs have is no column
        assert columns == {"data", "model", "loss", "optim.lr", "seed"}

    # The same seed gives the same result as a run of its own: nothing leaks from job to job in one
    # process.
    words = best["command"].split()[2:]
    assert run(*words, "hydra.run.dir=alone", cwd=tmp_path)[0] == 0
    alone = json.loads((tmp_path / "alone" / "result.json").read_text())
    assert alone["val_psnr"] == best["val_psnr"]


@pytest.mark.walk
def test_the_reports_grid_without_m(tmp_path):
    course_files(tmp_path / "course")
    quick = [
        "data.root=course",
        "trainer.max_epochs=1",
        "data.batch_size=12",
        "trainer.accelerator=cpu",
    ]
    status, out, errors = run(
        "experiment=report_lr_grid", *quick, "hydra.sweep.dir=s", cwd=tmp_path
    )
    assert status == 0, errors
    rates = {row["parameters"]["optim.lr"] for row in jobs(tmp_path / "s").values()}
    assert rates == {0.1, 0.01, 0.001, 0.0001, 0.00001}


@pytest.mark.walk
def test_failures_are_rows_and_the_others_go_on(tmp_path):
    broken = "+callbacks.break._target_=tests.test_sweep.Break"
    status, out, errors = run("-m", "seed=1,2,4", broken, *SMALL, "hydra.sweep.dir=s", cwd=tmp_path)
    assert status == 1
    found = {row["parameters"]["seed"]: row for row in jobs(tmp_path / "s").values()}
    assert [found[seed]["state"] for seed in (1, 2, 4)] == ["failed", "failed", "finished"]
    assert found[1]["reason"] == "OSError: the disk is on fire"
    assert "the loss became nan" in found[2]["reason"]
    assert "2 of 3 jobs did not finish" in errors
    assert "Traceback" not in errors
    assert "the disk is on fire" in (tmp_path / "s" / "0" / "log.txt").read_text()

    before = os.stat(tmp_path / "s" / "2" / "result.json").st_mtime_ns
    status, out, errors = run("-m", "sweep.resume=s", "allow=tests", cwd=tmp_path)
    assert status == 1
    assert jobs(tmp_path / "s")["0"]["state"] == "failed"
    status, out, errors = run(
        "-m",
        "seed=1,2,4",
        *SMALL,
        "sweep.resume=s",
        "allow=tests",
        "sweep.retry_failed=true",
        cwd=tmp_path,
    )
    assert status == 2
    assert errors.startswith("error: sweep.resume=s: was started with -m seed=1,2,4")
    assert os.stat(tmp_path / "s" / "2" / "result.json").st_mtime_ns == before


@pytest.mark.walk
@pytest.mark.slow
def test_retried_jobs_start_anew_and_keep_the_old_folder(tmp_path):
    marker = tmp_path / "fixed"
    broken = f"+callbacks.until={{_target_: tests.test_sweep.Until, path: {marker}}}"
    assert run("-m", "seed=1,2", broken, *SMALL, "hydra.sweep.dir=s", cwd=tmp_path)[0] == 1
    marker.touch()
    status, out, errors = run(
        "-m", "sweep.resume=s", "allow=tests", "sweep.retry_failed=true", cwd=tmp_path
    )
    assert status == 0, errors
    assert {row["state"] for row in jobs(tmp_path / "s").values()} == {"finished"}
    assert len(list((tmp_path / "s" / "failed").iterdir())) == 2
    for folder in ("0", "1"):
        assert "not yet" not in (tmp_path / "s" / folder / "log.txt").read_text()
        assert "epoch 2/2" in (tmp_path / "s" / folder / "log.txt").read_text()


class Until(callbacks.Callback):
    """Fails until a file is there."""

    def __init__(self, path: str):
        self.path = Path(path)

    def on_train_start(self, trainer, pl_module):
        if not self.path.exists():
            raise RuntimeError("not yet")


@pytest.mark.walk
@pytest.mark.slow
def test_joblib_gives_each_job_a_gpu_of_its_own(tmp_path):
    eight = "seed=1,2,3,4,5,6,7,8"
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.max_epochs=1"]
    arguments = ["-m", eight, NOTE, *SMALL, *launcher, "hydra.sweep.dir=s"]
    status, out, errors = run(*arguments, cwd=tmp_path, CUDA_VISIBLE_DEVICES="4,6")
    assert (status, errors) == (0, "")
    devices, overlap = overlapping(tmp_path / "s")
    assert sorted(set(devices)) == ["4", "6"]
    assert len(devices) == 8
    assert not overlap
    refused = run(
        "-m", eight, *launcher, "hydra.launcher.n_jobs=3", cwd=tmp_path, CUDA_VISIBLE_DEVICES="4,6"
    )
    assert refused[0] == 2
    assert refused[2].startswith(
        "error: hydra.launcher.n_jobs=3: there are 2 GPUs; hydra.launcher.n_jobs=2 would work"
    )


@pytest.mark.slow
@posix
def test_gpu_lock_ends_with_its_process(tmp_path):
    code = (
        "from n2n_lightning.sweep import jobs; jobs.claim_gpu(1);"
        " import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    )
    hold = (
        f"{code.replace('print', 'print')}; import sys, time; sys.stdout.flush(); sys.stdin.read()"
    )
    environment = {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "0,1", "TMPDIR": str(tmp_path)}
    options = {
        "env": environment,
        "text": True,
        "stdout": subprocess.PIPE,
        "stdin": subprocess.PIPE,
    }
    holders = []
    for expected in ("0", "1"):
        holders.append(subprocess.Popen([sys.executable, "-c", hold], **options))
        assert holders[-1].stdout.readline().strip() == expected
    waiting = subprocess.Popen([sys.executable, "-c", code], **options)
    time.sleep(3)
    assert waiting.poll() is None
    holders[1].send_signal(KILL)
    assert waiting.communicate(timeout=LIMIT)[0].strip() == "1"
    holders[0].kill()
    for holder in holders:
        holder.communicate()


@pytest.mark.walk
@pytest.mark.slow
@posix
def test_joblib_loses_its_pool_and_resume_completes_the_sweep(tmp_path):
    broken = "+callbacks.break._target_=tests.test_sweep.Break"
    arguments = ["-m", "seed=3,4,5", broken, *SMALL, "hydra/launcher=joblib", "hydra.sweep.dir=s"]
    status, out, errors = run(*arguments, cwd=tmp_path)
    assert status == 1
    assert "a worker process was killed" in errors
    assert "sweep.resume=s" in errors
    assert "Traceback" not in errors
    assert jobs(tmp_path / "s")["0"]["state"] == "killed"
    status, out, errors = run("-m", "sweep.resume=s", "allow=tests", cwd=tmp_path)
    assert status == 0, errors
    assert {row["state"] for row in jobs(tmp_path / "s").values()} == {"finished"}
    assert len(jobs(tmp_path / "s")) == 3


@pytest.mark.walk
@pytest.mark.slow
@posix
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, KILL])
def test_signals_leave_no_process_and_a_status(launcher, signum, tmp_path):
    if (launcher, signum) == ("basic", KILL):
        pytest.skip("there is no process but the one that is killed")
    slow = ["+callbacks.slow._target_=tests.test_sweep.Slow", "trainer.max_epochs=100"]
    arguments = ["-m", "seed=1,2,3", *slow, f"hydra/launcher={launcher}", "hydra.sweep.dir=s"]
    process = start(*SMALL, *arguments, cwd=tmp_path)
    results = tmp_path / "s" / "0" / "metrics.csv"
    while not results.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    below = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
    process.send_signal(signum)
    out, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == (-9 if signum == KILL else 128 + signum), errors
    assert "Traceback" not in errors
    deadline = time.monotonic() + LIMIT
    while left := {pid for pid in below if run_folder.alive(pid)}:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    # the sweep is over, not only one job
    assert not (tmp_path / "s" / "2" / "result.json").exists()
    if signum != KILL:
        assert jobs(tmp_path / "s")["0"]["state"] in ("interrupted", "killed")


@pytest.mark.walk
@pytest.mark.slow
@posix
@pytest.mark.xdist_group("ray")  # two of Ray's clusters at a time get in one another's way
@pytest.mark.parametrize("count", [2, 4])
def test_ray_gives_each_job_one_gpu(count, tmp_path):
    pretended = [
        f"+hydra.launcher.ray.init.num_gpus={count}",
        f"+hydra.launcher.ray.init.num_cpus={count}",
    ]
    one = ["hydra.launcher.ray.remote.num_gpus=1", "trainer.max_epochs=1"]
    arguments = ["-m", "seed=1,2,3,4,5,6,7,8", NOTE, *SMALL, *one, *pretended]
    status, out, errors = run(*arguments, "hydra/launcher=ray", "hydra.sweep.dir=s", cwd=tmp_path)
    assert status == 0, errors
    devices, overlap = overlapping(tmp_path / "s")
    assert len(devices) == 8
    assert set(devices) == {str(i) for i in range(count)}
    assert not overlap


@pytest.mark.walk
@pytest.mark.slow
@posix
@pytest.mark.xdist_group("ray")
def test_ray_goes_on_after_failures_and_retries_what_was_killed(tmp_path):
    broken = "+callbacks.break._target_=tests.test_sweep.Break"
    arguments = ["-m", "seed=1,2,3,4", broken, *SMALL, "hydra/launcher=ray", "hydra.sweep.dir=s"]
    status, out, errors = run(*arguments, cwd=tmp_path)
    assert status == 1
    found = {row["parameters"]["seed"]: row for row in jobs(tmp_path / "s").values()}
    assert [found[seed]["state"] for seed in (1, 2, 3, 4)] == [
        "failed",
        "failed",
        "finished",
        "finished",
    ]
    # The killed one went on from its first epoch, and is what it would have been.
    folder = tmp_path / "s" / found[3]["job"]
    assert (folder / "killed").exists()
    assert (folder / "log.txt").read_text().count("parameters") == 2
    words = [w for w in found[3]["command"].split()[2:] if "callbacks" not in w]
    assert run(*words, "hydra.run.dir=alone", cwd=tmp_path)[0] == 0
    assert (
        json.loads((tmp_path / "alone" / "result.json").read_text())["val_psnr"]
        == found[3]["val_psnr"]
    )


@pytest.mark.walk
@pytest.mark.slow
def test_optuna_goes_on_after_a_kill_to_the_trials_first_asked_for(tmp_path):
    import optuna

    search = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=5",
        "optim.lr=tag(log,interval(1e-5,1e-1))",
    ]
    slow = "+callbacks.slow._target_=tests.test_sweep.Slow"
    process = start("-m", *search, slow, *SMALL, "hydra.sweep.dir=s", cwd=tmp_path)
    while not (tmp_path / "s" / "2" / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.kill()
    process.communicate()
    before = {p: p.read_text() for n in "01" for p in [tmp_path / "s" / n / "result.json"]}
    status, out, errors = run("-m", "sweep.resume=s", "allow=tests", cwd=tmp_path)
    assert {p: p.read_text() for p in before} == before
    study = optuna.load_study(
        study_name="n2n_lightning", storage=f"sqlite:///{tmp_path}/s/study.db"
    )
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") == 5
    assert states.count("RUNNING") == 0
    assert status == 0, errors  # the killed trial is out of the way
    assert [f.name for f in (tmp_path / "s" / "failed").iterdir()] == ["2-1"]
    points = [trial.params["optim.lr"] for trial in study.trials]
    assert len(set(points)) == len(points)
    finished = [row for row in jobs(tmp_path / "s").values() if row["state"] == "finished"]
    assert max(row["val_psnr"] for row in finished) == pytest.approx(study.best_value)
    assert len(finished) == 5
    again = run("-m", "sweep.resume=s", "allow=tests", cwd=tmp_path)
    assert again[0] == 2
    assert again[2].startswith(
        "error: sweep.resume=s: all 5 trials are done; hydra.sweeper.n_trials= asks for more"
    )


@pytest.mark.walk
def test_optuna_failed_point_is_a_failed_trial(tmp_path):
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "optim.lr=choice(-1,-2)"]
    status, out, errors = run("-m", *search, *SMALL, "hydra.sweep.dir=s", cwd=tmp_path)
    assert status == 1
    assert "Traceback" not in errors
    assert [row["state"] for row in jobs(tmp_path / "s").values()] == ["failed"] * 3


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.parametrize("search", [[], ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2"]])
def test_noisy_pairs_alone_can_be_swept(search, tmp_path):
    """Without clean images the best run is the one of the least estimated error."""
    import numpy as np

    np.save(
        tmp_path / "noisy.npy",
        np.random.default_rng(0).normal(0.5, 0.1, (20, 2, 1, 16, 16)).astype(np.float32),
    )
    quick = [
        "model=residual_unet",
        "model.width=4",
        "data.batch_size=6",
        "trainer.max_epochs=4",
        "trainer.accelerator=cpu",
        "optim=adam",
    ]
    rates = "optim.lr=choice(0.003,1e-9)" if search else "optim.lr=0.003,1e-9"
    source = ["data=pairs", "data.noisy=noisy.npy", "trainer.precision=32-true"]
    status, out, errors = run(
        "-m", *search, rates, *source, *quick, "hydra.sweep.dir=s", cwd=tmp_path
    )
    assert status == 0, errors
    found = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert found["jobs"][0]["val_mse_estimate"] == min(
        row["val_mse_estimate"] for row in found["jobs"]
    )
    assert found["jobs"][0]["command"] == found["best"]
    assert "dB estimated" in out
    if not search:
        assert "optim.lr=0.003" in found["best"]


@pytest.mark.walk
def test_slurm_by_submitits_local_executor(tmp_path):
    arguments = ["-m", "seed=1,2", *SMALL, "hydra/launcher=submitit_local", "hydra.sweep.dir=s"]
    status, out, errors = run(*arguments, cwd=tmp_path)
    assert status == 0, errors
    assert {row["state"] for row in jobs(tmp_path / "s").values()} == {"finished"}


@pytest.mark.parametrize("launcher", ["joblib", "ray", "slurm"])
def test_launchers_compose_and_every_key_has_a_comment(launcher):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        cfg = compose("config", [f"hydra/launcher={launcher}"], return_hydra_config=True)
    assert "Launcher" in cfg.hydra.launcher["_target_"]
    if launcher == "slurm":
        assert {"partition", "timeout_min", "mem_gb", "gpus_per_task"} <= set(cfg.hydra.launcher)
        assert cfg.hydra.launcher.max_num_timeout > 0
    for line in (CONF / "hydra" / "launcher" / f"{launcher}.yaml").read_text().splitlines():
        if line and not line.startswith(("#", "_")) and not line.rstrip().endswith(":"):
            assert "  #" in line or " # " in line, line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "trainer.devices=2"], "error: trainer.devices=2: a job of a sweep uses one device"),
        (["-m", "resume=somewhere"], "error: resume=somewhere: not a run folder"),
        (["-m", "sweep.resume=nowhere"], "error: sweep.resume=nowhere: not the folder of a sweep"),
        (
            ["-m", "hydra/launcher=nonsense"],
            "error: hydra/launcher=nonsense: there is no such choice; there are basic",
        ),
    ],
)
def test_mistakes(arguments, message, tmp_path):
    status, out, errors = run(*arguments, cwd=tmp_path)
    assert status == 2
    assert errors.startswith(message)
    assert len(errors.splitlines()) == 1


def test_absent_extras_are_named(monkeypatch):
    monkeypatch.setattr(resume.importlib.util, "find_spec", lambda name: None)
    for asked, extra in (
        ("hydra/launcher=ray", "ray"),
        ("hydra/launcher=slurm", "slurm"),
        ("hydra/sweeper=optuna", "optuna"),
    ):
        with pytest.raises(InputError) as caught:
            resume.resumed_sweep(["-m", asked])
        assert str(caught.value) == f"{asked}: needs pip install 'n2n_lightning[{extra}]'"


def test_picture_needs_a_number(tmp_path):
    def rows(*parameters):
        return [{"parameters": p, "val_psnr": 20.0 + i} for i, p in enumerate(parameters)]

    assert results.numeric_axis(rows({"seed": 1}, {"seed": 2})) is None
    assert results.numeric_axis(rows({"model": "unet"}, {"model": "baseline"})) is None
    grid = rows(
        *(
            {"model": m, "optim.lr": lr, "seed": s}
            for m in "ab"
            for lr in (0.1, 1e-4)
            for s in (1, 2)
        )
    )
    assert results.numeric_axis(grid) == "optim.lr"
    ax = results.picture(grid, "optim.lr").axes[0]
    assert ax.get_xscale() == "log"
    assert len(ax.containers) == 2
    assert "deviation of 2 seeds" in ax.get_ylabel()
