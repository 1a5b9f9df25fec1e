"""denoise --jobs, --launcher, --status and --summary."""

import json
import os

import pytest

from n2n_lightning.files import InputError
from n2n_lightning.inference.progress_watch import Watch, print_status
from n2n_lightning.inference.workers import settings_of_launcher
from n2n_lightning.runs.claims import Claims
from tests.conftest import run
from tests.pictures import noisy, png
from tests.test_shared_output import interrupted, jobs_of, joined


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_the_status_counts_what_all_processes_did(out, capsys):
    jobs = jobs_of(out, 5)
    jobs[0].target.touch()
    with joined(out) as first, joined(out) as second:
        todo = first.missing(jobs)
        assert second.missing(jobs) == todo
        claimed = first.claimed(todo)
        for second_of_clock in (100, 102, 106):
            job, claim = next(claimed)
            with claim:
                claim.finish({"voxels": 3_000_000, "seconds": 2.0})
            done = first.state / "pictures" / "done" / f"{job.target.name}.json"
            os.utime(done, (second_of_clock, second_of_clock))
        job, claim = next(claimed)
        with claim:
            watch = Watch(out)
            watch.update()
            assert (watch.done, watch.pictures, watch.existing, watch.workers) == (4, 5, 1, 2)
            assert watch.speed == pytest.approx(1.0)  # two pictures in six seconds
            assert watch.seconds_left == pytest.approx(3.0)
            assert print_status(out, out / "status.json") == 0
            claim.finish()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{out}: 4 of 5 pictures, 1 megavoxels/s, 0:03 left, 2 processes"
    assert lines[1].startswith("  at work: 4.npy (process ")
    summary = json.loads((out / "status.json").read_text())
    assert (summary["denoised"], summary["existing"], summary["pictures"]) == (3, 1, 5)
    assert summary["megavoxels"] == 9
    assert print_status(out, None) == 0
    assert capsys.readouterr().out == f"{out}: nothing is unfinished in it\n"


def test_the_status_has_the_large_files(tmp_path, capsys):
    state = tmp_path / "sheet.npy.state"
    claims = Claims(state)
    claims.finish("begin", {})
    (state / "asked.json").write_text("{}")
    print_status(tmp_path, None)
    assert capsys.readouterr().out.endswith("sheet.npy: is measured before its blocks begin\n")
    (state / "plan.json").write_text('{"blocks": 6, "voxels": 6000000}')
    for seconds, piece in enumerate(("block 0.0", "block 0.32")):
        claims.finish(piece, {"voxels": 1_000_000})
        os.utime(claims._done_path(piece), (0, 1000 + 10 * seconds))
    with claims.claim("block 32.0"):
        assert print_status(tmp_path, None) == 0
    line = "2 of 6 blocks, 1 at work, 3 waiting, 0.1 megavoxels/s, 0:40 left"
    assert capsys.readouterr().out == f"{tmp_path / 'sheet.npy'}: {line}\n"


def test_the_status_of_a_killed_run(out, capsys):
    interrupted(out)
    print_status(out, None)
    assert "no process is at work" in capsys.readouterr().out
    with pytest.raises(InputError, match="is no folder of results"):
        print_status(out / "nothing", None)


def test_the_keys_of_a_launcher_are_those_of_conf():
    slurm = settings_of_launcher("slurm", ["partition=gpu", "timeout_min=60"])
    assert (slurm["partition"], slurm["timeout_min"], slurm["cpus_per_task"]) == ("gpu", 60, 4)
    further = settings_of_launcher("slurm", ["additional_parameters.licenses=a"])
    assert further["additional_parameters"] == {"licenses": "a"}
    ray = settings_of_launcher("ray", ["init.address=auto", "remote.num_gpus=0.5"])
    assert (ray["init"]["address"], ray["remote"]["num_gpus"]) == ("auto", 0.5)
    for change in ("partitoin=gpu", "partition"):
        with pytest.raises(InputError, match="must be KEY=VALUE with a key of slurm: partition"):
            settings_of_launcher("slurm", [change])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "error: the following arguments are required: PICTURE, -o/--out"),
        (["in", "-o", "out", "--jobs", "0"], "error: --jobs 0: must be 1 or more"),
        (["in", "-o", "out", "--launcher", "pbs"], "error: --launcher pbs: must be one of slurm"),
        (["in", "-o", "out", "--set", "a=1"], "error: --set a=1: goes with --launcher"),
        (["in", "-o", "out", "--jobs", "2", "--adapt"], "error: --adapt: is the work of one"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(words, message, tmp_path):
    done = run("denoise", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(message)


def pictures(folder, count):
    folder.mkdir()
    for number in range(count):
        png(folder / f"{number}.png", noisy(16, 20, 1, "uint8"))


@pytest.mark.slow
def test_jobs_give_the_values_of_one_process(tmp_path):
    pictures(tmp_path / "in", 5)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    one = run("denoise", "in", "-o", "one", cwd=tmp_path)
    assert one.returncode == 1
    two = run("denoise", "in", "-o", "two", "--jobs", "2", "--summary", "s.json", cwd=tmp_path)
    assert two.returncode == 1
    assert two.stderr.splitlines() == one.stderr.splitlines()
    for number in range(5):
        name = f"{number}.png"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert len(list((tmp_path / "two").iterdir())) == 5
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["denoised"], list(summary["failed"])) == (5, ["broken.png"])
    again = run("denoise", "in", "-o", "two", "--jobs", "2", cwd=tmp_path)
    assert "5 of 6 pictures were there already" in again.stdout


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("launcher", ["slurm", "ray"])
def test_launchers_start_workers(launcher, tmp_path):
    pytest.importorskip("submitit" if launcher == "slurm" else "ray")
    pictures(tmp_path / "in", 4)
    done = run("denoise", "in", "-o", "out", "--jobs", "2", "--launcher", launcher, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["0.png", "1.png", "2.png", "3.png"]
