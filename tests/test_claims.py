import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from n2n_lightning.files import InputError, PassingError
from n2n_lightning.runs import claims as claims_module
from n2n_lightning.runs.claims import Claims

from .conftest import LIMIT

HOLDER = """
import sys, time
from pathlib import Path
from n2n_lightning.runs.claims import Claims
with Claims(Path(sys.argv[1])).claim("a"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def claims(tmp_path):
    return Claims(tmp_path / "state")


def elsewhere(path: Path) -> None:
    """Rewrite a claim as if another machine had made it."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"host": "another machine"}))


@pytest.fixture
def killed(claims):
    """The number of a process that was killed while it held the piece `a`."""
    command = [sys.executable, "-c", HOLDER, str(claims.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert claims.claim("a") is None
        assert claims.held()[0].pid == process.pid
        process.kill()
    return process.pid


def test_a_piece_has_one_holder(claims):
    with claims.claim("a") as held:
        assert Claims(claims.folder).claim("a") is None
        assert [holder.piece for holder in claims.held()] == ["a"]
        assert claims.held()[0].pid == os.getpid()
        held.finish({"voxels": 3})
    assert claims.is_done("a")
    assert claims.claim("a") is None
    assert list(claims.notes()) == [("a", {"voxels": 3})]
    assert claims.done_count() == 1
    assert claims.held() == []


def test_an_end_without_finish_gives_the_piece_back(claims):
    for _ in range(5):
        with claims.claim("a"):
            pass
    with pytest.raises(KeyboardInterrupt), claims.claim("a"):
        raise KeyboardInterrupt
    assert claims.claim("a") is not None


def test_three_exceptions_give_a_piece_up(claims):
    for number in range(3):
        with pytest.raises(PassingError), claims.claim("a"):
            raise PassingError(f"no {number}")
    assert claims.claim("a") is None
    assert claims.given_up() == {"a": "no 2"}
    assert not claims.is_done("a")
    claims.forget_failures()
    assert claims.given_up() == {}
    with claims.claim("a") as held:
        held.finish()
    assert claims.is_done("a")


def test_a_piece_that_cannot_be_done_is_tried_once(claims):
    with pytest.raises(InputError), claims.claim("a"):
        raise InputError("is no picture")
    assert claims.claim("a") is None
    assert claims.given_up() == {"a": "is no picture"}
    claims.forget_failures()
    assert claims.claim("a") is not None


def test_a_killed_process_frees_its_piece_at_once(claims, killed):
    assert claims.was_begun("a")
    assert claims.held() == []
    with claims.claim("a") as held:
        held.finish()
    assert claims.is_done("a")
    assert not claims.was_begun("a")


def test_two_processes_do_not_both_take_over_a_dead_claim(claims, killed):
    first = claims.claim("a")
    # another process that saw the dead claim before the first one took it over
    assert not claims_module._create(claims._path("a", 1), "a")
    assert first is not None
    assert claims.claim("a") is None


def test_a_number_that_another_process_has_now_holds_nothing(claims):
    with claims.claim("a"):
        path = claims._path("a", 0)
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"started": content["started"] - 100}))
        assert claims.claim("a") is not None


def test_the_claim_of_another_machine_lives_by_its_touches(claims):
    claims.claim("a")
    path = claims._path("a", 0)
    elsewhere(path)
    assert claims.claim("a") is None
    minute_ago = time.time() - 61
    os.utime(path, (minute_ago, minute_ago))
    assert claims.held() == []
    assert claims.claim("a") is not None


def test_the_clock_of_the_file_system_counts_not_that_of_the_machine(claims, monkeypatch):
    claims.claim("a")
    elsewhere(claims._path("a", 0))
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert claims.claim("a") is None


def test_a_held_piece_is_touched(claims, monkeypatch):
    monkeypatch.setattr(claims_module, "TOUCH_SECONDS", 0.02)
    monkeypatch.setattr(claims_module, "_toucher", claims_module.Toucher())
    with claims.claim("a"):
        path = claims._path("a", 0)
        os.utime(path, (1, 1))
        while path.stat().st_mtime == 1:
            time.sleep(0.01)


def test_a_claim_without_content_is_another_machines(claims):
    path = claims._path("a", 0)
    path.parent.mkdir(parents=True)
    path.touch()
    assert claims.claim("a") is None
    os.utime(path, (1, 1))
    assert claims.claim("a") is not None


def test_a_piece_that_is_finished_meanwhile_is_not_claimed(claims, monkeypatch):
    answers = iter([False, True])
    monkeypatch.setattr(claims, "is_done", lambda piece: next(answers))
    assert claims.claim("a") is None
    assert list((claims.folder / "claims").iterdir()) == []


def test_a_piece_may_have_any_name(claims):
    names = ["a/b.tif", "a b", ".", "..", "é" * 200, "é" * 201, "x\udcff"]
    for name in names:
        with claims.claim(name) as held:
            held.finish({"name": len(name)})
    assert {piece for piece, _ in claims.notes()} == set(names)


def test_a_state_folder_that_goes_meanwhile_hurts_nobody(claims):
    with claims.claim("a"):
        shutil.rmtree(claims.folder)
    with claims.claim("b"):
        pass


WORKER = """
import os, sys, time
from pathlib import Path
from n2n_lightning.runs.claims import Claims
claims = Claims(Path(sys.argv[1]))
for number in range(200):
    claim = claims.claim(f"piece {number}")
    if claim is not None:
        with claim:
            with open(sys.argv[2], "a") as log:
                log.write(f"{number}\\n")
            claim.finish()
"""


def test_processes_divide_the_pieces(claims, tmp_path):
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    command = [sys.executable, "-c", WORKER, str(claims.folder)]
    processes = [subprocess.Popen([*command, str(log)]) for log in logs]
    for process in processes:
        assert process.wait(LIMIT) == 0
    lines = "".join(log.read_text() for log in logs if log.exists()).splitlines()
    assert sorted(map(int, lines)) == list(range(200))
    assert claims.done_count() == 200
