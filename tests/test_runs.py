"""Run folders, locks and processes (runs/)."""

import subprocess
import sys

import pytest

from tests.captures import QUICK
from tests.conftest import LIMIT, run


@pytest.mark.walk
@pytest.mark.slow
def test_runs_and_sweeps_that_begin_together_have_a_folder_each(tmp_path):
    small = ["data.val_pairs=4", "data.size=8", *QUICK]
    command = [sys.executable, "-m", "n2n_lightning.train"]
    for mode, base in (([], "runs"), (["-m", "seed=1,2"], "sweeps")):
        started = [
            subprocess.Popen(
                [*command, *mode, *small],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for process in started:
            _, errors = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, errors
        folders = list((tmp_path / "outputs" / base).iterdir())
        assert len(folders) == 3
        for folder in folders:
            assert len(list(folder.rglob("result.json"))) == (1 if base == "runs" else 2)
    name = folders[0].relative_to(tmp_path)
    refused = run("train", "-m", "seed=5,6", *small, f"hydra.sweep.dir={name}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "holds the sweep of -m seed=1,2" in refused.stderr
