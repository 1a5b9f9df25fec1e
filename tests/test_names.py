"""The public names and the console script."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import n2n_lightning
from n2n_lightning.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "n2n_lightning"


def n2n(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "n2n_lightning", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_every_public_name_exists_and_no_module_has_it():
    modules = {path.stem for path in PACKAGE.rglob("*.py")} | {
        path.name for path in PACKAGE.rglob("*") if path.is_dir()
    }
    assert 20 <= len(n2n_lightning.__all__) <= 30
    for name in n2n_lightning.__all__:
        assert getattr(n2n_lightning, name).__doc__, name
        assert name not in modules, name


def test_importing_the_package_imports_neither_torch_nor_numpy():
    code = "import sys, n2n_lightning; print(sorted({'torch', 'numpy', 'hydra'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_root_of_the_package_has_few_files():
    assert len(list(PACKAGE.glob("*.py"))) <= 14


def test_the_console_script_runs_commands_in_processes_of_their_own_name(tmp_path):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"n2n": "n2n_lightning.__main__:main"}
    np.save(
        tmp_path / "noisy.npy",
        np.random.default_rng(0).normal(90, 9, (24, 32)).clip(0, 255).astype(np.uint8),
    )
    done = n2n("denoise", "noisy.npy", "-o", "clean.npy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "clean.npy").shape == (24, 32)
    assert "n2n denoise" in n2n("denoise", "--help", cwd=tmp_path).stdout


def test_the_console_script_refuses_what_is_no_command(tmp_path):
    done = n2n("denoize", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr == f"error: denoize: no such command; there are {', '.join(COMMANDS)}, best\n"
    )


def test_best_is_denoise_with_an_option(tmp_path):
    done = n2n("best", "no.tif", "-o", "out", "--minutes", "-1", cwd=tmp_path)
    assert done.stderr == "error: --minutes -1: must be larger than 0\n"


@pytest.mark.parametrize("words", [(), ("--help",)], ids=" ".join)
def test_the_console_script_lists_the_commands(tmp_path, words):
    done = n2n(*words, cwd=tmp_path)
    assert done.returncode == 0
    assert all(f"n2n {name}" in done.stdout for name in COMMANDS)
