"""Other systems, pretended in child processes (tests/elsewhere): what people do there works."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from n2n_lightning.files import replacing
from tests.conftest import LIMIT

ROOT = Path(__file__).resolve().parents[1]
SMALL = "data.train_pairs=8 data.val_pairs=4 data.batch_size=4 data.size=8 trainer.max_epochs=2"
SMALL += " model=residual_unet model.width=2"
SYSTEMS = ("windows", "macos", "nolocks")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems are pretended on Linux"
)


def run(system: str, command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    module, *rest = shlex.split(command)
    path = os.pathsep.join([str(ROOT / "tests" / "elsewhere"), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", f"n2n_lightning.{module}", *rest],
        cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, "N2N_PRETEND": system}, timeout=LIMIT,
    )  # fmt: skip


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_its_report_and_its_use(system, tmp_path):
    done = run(system, f"train {SMALL} trainer.accelerator=cpu hydra.run.dir=out", tmp_path)
    assert done.returncode == 0, done.stderr
    warnings = done.stderr.count(
        "its file system has no locks; two runs in one folder would not notice one another"
    )
    # Where fcntl is missing but the system is not Windows, filelock has no locks either.
    assert warnings == (system in ("nolocks", "windows"))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "finished"
    again = run(system, "train trainer.max_epochs=3 resume=out", tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text())["epochs"] == 3
    assert sorted(p.name for p in (tmp_path / "out" / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    ]

    stack = np.random.default_rng(0).integers(0, 255, (2, 20, 30), np.uint8)
    np.save(tmp_path / "a.npy", stack)
    np.savez(tmp_path / "b.npz", stack)
    tifffile.imwrite(tmp_path / "c.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "d.tif", stack, photometric="minisblack", compression="zlib")
    import h5py

    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["noisy"] = stack
    done = run(system, "denoise a.npy b.npz c.tif d.tif e.h5 -o clean --checkpoint out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "clean").iterdir()) == [
        "a.npy",
        "b.npz",
        "c.tif",
        "d.tif",
        "e.h5",
    ]
    done = run(system, "denoise a.npy -o clean --checkpoint out --overwrite", tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(system, "report out --out page", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page" / "report.html").is_file()


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_joblib_sweep(system, tmp_path):
    asked = (
        "optim.lr=0.01,0.001 hydra/launcher=joblib hydra.launcher.n_jobs=2 hydra.sweep.dir=s"
        " trainer.accelerator=cpu"
    )
    done = run(system, f"train -m {SMALL} {asked}", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "s" / "sweep.json").read_text())["jobs"]
    assert [row["state"] for row in rows] == ["finished", "finished"]


def test_a_file_that_another_program_has_open_is_waited_for(tmp_path, monkeypatch):
    """As Windows has it: renaming fails while it is open."""
    left, whole = [2], Path.replace

    def replace(path: Path, target: Path) -> None:
        if left[0]:
            left[0] -= 1
            raise PermissionError(13, "in use")
        whole(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"
    left[0] = 10**9
    with (
        pytest.raises(PermissionError, match=r"a\.txt is open in another program"),
        replacing(tmp_path / "a.txt") as file,
    ):
        file.write_text("newer")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
