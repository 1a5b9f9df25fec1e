"""A folder of results that several processes fill: claims on pictures, settings, who is last."""

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from n2n_lightning.files import InputError, PassingError
from n2n_lightning.inference.plan import Job
from n2n_lightning.inference.shared_output import Settings, SharedOutput, state_folder
from tests.conftest import LIMIT, run
from tests.pictures import noisy, png

SETTINGS = Settings("a1", {"strength": "1.0"}, {"device": "x86_64 AVX2"}, 1)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def jobs_of(out: Path, count: int) -> list[Job]:
    return [Job(out.parent / f"{number}.npy", out / f"{number}.npy") for number in range(count)]


def joined(out: Path, settings: Settings = SETTINGS, overwrite: bool = False, mixed: bool = False):
    return SharedOutput(out, settings, overwrite, mixed)


def interrupted(out: Path) -> None:
    """Leave the folder as a person does who interrupts after the first picture."""
    output = joined(out).__enter__()
    job, claim = next(output.claimed(jobs_of(out, 2)))
    with claim:
        job.target.touch()
        claim.finish()
    output.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)


def test_the_last_worker_removes_the_state(out):
    jobs = jobs_of(out, 3)
    with joined(out) as first, joined(out) as second:
        assert not first.resumed
        assert second.resumed
        for job, claim in second.claimed(jobs):
            with claim:
                job.target.touch()
                claim.finish({"voxels": 1})
        assert list(first.claimed(jobs)) == []
        assert first.pictures.done_count() == 3
    assert sorted(path.name for path in out.iterdir()) == ["0.npy", "1.npy", "2.npy"]


def test_an_interrupted_run_goes_on_with_what_is_missing(out):
    interrupted(out)
    jobs = jobs_of(out, 2)
    with joined(out) as output:
        assert [output.is_there(job) for job in jobs] == [True, False]
        todo = [job for job in jobs if not output.is_there(job)]
        for job, claim in output.claimed(todo):
            assert job == jobs[1]
            with claim:
                claim.finish()
    assert not state_folder(out).exists()


def test_nothing_stays_of_a_run_that_did_nothing(out):
    with pytest.raises(KeyboardInterrupt), joined(out):
        raise KeyboardInterrupt
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"checkpoint": "b2"}, "another checkpoint"),
        ({"options": {"strength": "0.5"}}, r"another strength= \(1.0\)"),
        ({"computing": {"device": "x86_64 AVX512"}}, "device x86_64 AVX2, here it is x86_64 AVX5"),
    ],
)
def test_other_settings_are_refused(out, changed, message):
    interrupted(out)
    other = replace(SETTINGS, **changed)
    with pytest.raises(InputError, match=message):
        joined(out, other)
    if "computing" in changed:
        assert joined(out, other, mixed=True).resumed
    else:
        assert not joined(out, other, overwrite=True).resumed


def test_overwrite_joins_a_living_process_and_begins_anew_after_a_dead_one(out):
    jobs = jobs_of(out, 2)
    for job in jobs:
        job.target.touch()
    with joined(out, overwrite=True) as first:
        with joined(out, overwrite=True) as second:
            assert second.resumed
            assert not second.is_there(jobs[0])
        # without the option, too: the folder is replaced
        with joined(out) as third:
            assert not third.is_there(jobs[0])
        with pytest.raises(InputError, match="1 processes are at work"):
            joined(out, replace(SETTINGS, checkpoint="b2"), overwrite=True)
        assert not first.is_there(jobs[0])
    interrupted(out)
    assert not joined(out, overwrite=True).resumed


def test_the_threads_are_those_of_the_first(out):
    with joined(out), joined(out, replace(SETTINGS, threads=8)) as second:
        assert second.threads == 1


def test_a_result_of_a_killed_process_may_lack_its_maps(out):
    jobs = jobs_of(out, 2)
    with joined(out) as output:
        for job in jobs:
            job.target.touch()
        output.pictures.claim("0.npy")
        assert [output.is_there(job) for job in jobs] == [False, True]


def test_what_a_killed_process_left_of_a_picture_goes(out):
    jobs = jobs_of(out, 1)
    with joined(out) as output:
        dead = output.pictures.claim("0.npy")
        path = output.state / "pictures" / "claims" / "0.npy.0"
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"started": 1.0}))
        assert dead is not None
        (out / ".0.npy.x1.npy").touch()
        (out / ".00.npy.x1.npy").touch()  # of another picture
        for job, claim in output.claimed(jobs):
            with claim:
                job.target.touch()
                claim.finish()
    assert sorted(path.name for path in out.iterdir()) == [".00.npy.x1.npy", "0.npy"]


def test_what_fails_is_tried_again_only_where_that_may_help(out):
    jobs = jobs_of(out, 2)
    tries = {"0.npy": 0, "1.npy": 0}
    errors = {"0.npy": InputError("no picture"), "1.npy": PassingError("no memory")}
    with joined(out) as output:
        for job, claim in output.claimed(jobs):
            name = job.target.name
            tries[name] += 1
            with pytest.raises(InputError), claim:
                raise errors[name]
            assert output.failed(job, "") == (name == "1.npy" and tries[name] < 3)
        assert output.failures(jobs) == 2
    assert tries == {"0.npy": 1, "1.npy": 3}
    assert not state_folder(out).exists()  # so that the next run tries them


WORKER = """
import sys, time
from pathlib import Path
from n2n_lightning.inference.plan import Job
from n2n_lightning.inference.shared_output import Settings, SharedOutput
from n2n_lightning.files import replacing
out, log = Path(sys.argv[1]), Path(sys.argv[2])
jobs = [Job(Path(f"{n}.txt"), out / f"{n}.txt") for n in range(60)]
with SharedOutput(out, Settings("a", {}, {}, 1), False, False) as output:
    for job, claim in output.claimed([job for job in jobs if not output.is_there(job)]):
        with claim:
            with log.open("a") as file:
                file.write(job.target.stem + "\\n")
            time.sleep(0.03)
            with replacing(job.target) as temporary:
                temporary.write_text(job.target.stem * 1000)
            claim.finish()
"""


def test_killed_workers_lose_only_what_was_in_hand(out):
    """Kill one of three workers at random moments, with another one in its place."""
    rng = random.Random(0)
    log = out.parent / "log.txt"
    command = [sys.executable, "-c", WORKER, str(out), str(log)]
    workers = [subprocess.Popen(command) for _ in range(3)]
    kills = 0
    while kills < 4:
        time.sleep(rng.uniform(0.1, 0.3))
        if not state_folder(out).exists():
            if any(worker.poll() is None for worker in workers):
                continue  # not begun yet
            break
        workers[kills % 3].kill()
        workers[kills % 3].wait(LIMIT)
        workers[kills % 3] = subprocess.Popen(command)
        kills += 1
    for worker in workers:
        assert worker.wait(LIMIT) == 0
    for number in range(60):
        assert (out / f"{number}.txt").read_text() == str(number) * 1000
    done = log.read_text().split()
    assert set(done) == {str(number) for number in range(60)}
    assert len(done) <= 60 + kills
    assert len(list(out.iterdir())) == 60  # no state folder, no temporary file


def test_the_command_refuses_a_folder_that_was_begun_otherwise(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        png(tmp_path / "in" / name, noisy(16, 16, 1, "uint8"))
    (tmp_path / "out").mkdir()
    interrupted(tmp_path / "out")
    done = run("denoise", "in", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: out: was begun with another checkpoint; name another folder, or --overwrite begins"
        " anew\n"
    )
    again = run("denoise", "in", "-o", "out", "--overwrite", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert not state_folder(tmp_path / "out").exists()
    assert (tmp_path / "out" / "b.png").is_file()


def test_processes_begin_far_from_one_another(out):
    jobs = jobs_of(out, 8)
    with joined(out) as first, joined(out) as second, joined(out) as third:
        begun = [next(output.claimed(jobs))[0] for output in (first, second, third)]
    assert [jobs.index(job) for job in begun] == [0, 4, 2]
