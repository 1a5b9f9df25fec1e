"""The project as others get it: a wheel elsewhere, the Makefile, the documentation."""

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from n2n_lightning.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parent.parent


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"\.PHONY: (.*)", text)[1].split())
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert targets == set(re.findall(r"make ([\w-]+)", shown))


def test_the_package_lists_its_commands_and_train_its_options(tmp_path):
    module = [sys.executable, "-m", "n2n_lightning"]
    shown = subprocess.run(module, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    commands = {
        p.stem
        for p in (ROOT / "n2n_lightning").glob("*.py")
        if 'if __name__ == "__main__"' in p.read_text()
    }
    assert commands - {"__main__"} <= set(COMMANDS)
    summaries = re.findall(r"^    n2n (\w+)", shown, re.MULTILINE)
    assert summaries == [*COMMANDS, "best"]
    module[2] += ".train"
    shown = subprocess.run(
        [*module, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert "data=pairs data.noisy=FIRST data.target=SECOND" in shown
    assert "data: course, images, movie, pairs, photo_movies, photos, single" in shown
    assert "train_pairs: 2000" in shown
    assert not list(tmp_path.iterdir())


def test_constraints_pin_every_dependency():
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert pinned["torch"] == "2.13.0"
    wanted = re.findall(
        r'^  "([a-zA-Z0-9-]+)[><=]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert {"torch", "pytorch-lightning", "hydra-core"} <= set(wanted)
    assert set(wanted) <= set(pinned)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "measurements.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", [path.relative_to(ROOT).as_posix() for path in PAGES])
def test_documentation_names_what_exists(page):
    text = (ROOT / page).read_text()
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
        if "://" not in target:
            there = (ROOT / page).parent / target if target else ROOT / page
            assert there.exists(), target
            titles = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in [
                re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles
            ], anchor
    for group, name in re.findall(
        r"\b(data|noise|model|optim|scheduler|loss|trainer|experiment)=(\w+)", text
    ):
        assert (ROOT / "conf" / group / f"{name}.yaml").exists(), f"{group}={name}"
    for module in re.findall(r"python -m n2n_lightning\.(\w+)", text):
        assert (ROOT / "n2n_lightning" / f"{module}.py").exists(), module
    for name in re.findall(r"^(?:`|\$ |    )?n2n (\w+)", text, re.MULTILINE):
        assert name in (*COMMANDS, "best"), name
    for name in re.findall(r"`n2n (\w+)", text):
        assert name in (*COMMANDS, "best"), name
    for path in re.findall(r"\b(?:n2n_lightning|benchmarks|conf|tests)/[a-z0-9_/]+\.\w+", text):
        assert (ROOT / path).exists(), path
    for name in set(re.findall(r"\bn2n_lightning(?:\.\w+)+", re.sub(r"python -m \S+", "", text))):
        pkgutil.resolve_name(name)


def test_the_table_of_cases_names_tests_that_exist():
    files = sorted((ROOT / "tests").glob("test_*.py"))
    tests = {name for path in files for name in re.findall(r"def (test_\w+)", path.read_text())}
    modules = {path.stem for path in files}
    text = (ROOT / "docs" / "reference" / "cases.md").read_text()
    for name in re.findall(r"\b(test_\w+)(?!\w*\*)", text):
        assert name in tests | modules, name
    for start in re.findall(r"\b(test_\w+)\*", text):
        assert any(name.startswith(start) for name in tests), start


def test_ci_calls_make_test():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make docs" in (ROOT / ".ci" / "run").read_text()
    assert yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
