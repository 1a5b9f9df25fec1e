"""What is released: wheel and source archive, and README's commands from the wheel."""

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import yaml

import n2n_lightning
from tests.conftest import LIMIT, photographs

ROOT = Path(__file__).resolve().parent.parent
SHORT = (
    "data.train_pairs=8",
    "data.batch_size=4",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
)
SMALL_NETWORK = ("model=residual_unet", "model.width=4")


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The folder of a wheel and a source archive."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_archives_hold_what_they_should(dist):
    (wheel,) = dist.glob("*.whl")
    (source,) = dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for name in ("conf/config.yaml", "inference/pretrained.ckpt", "py.typed"):
        assert f"n2n_lightning/{name}" in names
    assert not [name for name in names if name.startswith("tests/")]
    with tarfile.open(source) as archive:
        members = [member.partition("/")[2] for member in archive.getnames()]
    for name in ("conf/data/photos.yaml", "n2n_lightning/inference/pretrained.ckpt", "README.md"):
        assert name in members


def test_archives_pass_the_checks_of_the_index(dist):
    archives = [str(path) for path in dist.iterdir()]
    for command in (["twine", "check", "--strict", *archives], ["check_wheel_contents", str(dist)]):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_version_stands_in_one_place_and_its_copies_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    recipe = yaml.safe_load((ROOT / "packaging" / "recipe.yaml").read_text(encoding="utf-8"))
    wrapper = (ROOT / "packaging" / "galaxy" / "n2n_denoise.xml").read_text(encoding="utf-8")
    assert citation["version"] == n2n_lightning.__version__
    assert recipe["context"]["version"] == n2n_lightning.__version__
    assert f'name="@VERSION@">{n2n_lightning.__version__}<' in wrapper


def test_the_recipe_needs_what_the_package_needs():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    base = text.partition("\ndependencies = [")[2].partition("\n]")[0]
    needed = {
        re.split("[><=]", line)[0].lower(): line.partition(re.split("[><=]", line)[0])[2]
        for line in re.findall(r'^  "([^"]+)"', base, re.MULTILINE)
    }
    recipe = yaml.safe_load((ROOT / "packaging" / "recipe.yaml").read_text(encoding="utf-8"))
    listed = dict(line.split(" ") for line in recipe["requirements"]["run"])
    del listed["python"]
    listed["torch"] = listed.pop("pytorch")
    listed["matplotlib"] = listed.pop("matplotlib-base")
    assert listed == needed


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """The environment of processes that see the wheel, and an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    install = [*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return {**os.environ, "PYTHONPATH": str(folder / "site")}, elsewhere


def _n2n(installed, words):
    """Run a command of the installed wheel; return what it printed."""
    environment, folder = installed
    command = [sys.executable, "-m", "n2n_lightning", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
    return done.stdout


def _data(folder: Path) -> None:
    """Write what README calls IMAGES, FIRST, SECOND, MOVIE, PHOTOS, A.mrc and B.mrc."""
    draws = np.random.default_rng(0)
    shades = 80 + 60 * np.sin(np.arange(48) / 5)
    scene = np.add.outer(shades, shades)
    for name in ("IMAGES", "FIRST", "SECOND", "MOVIE"):
        (folder / name).mkdir()
        for number in range(4):
            noisy = draws.normal(scene, 9).clip(0, 65535).astype(np.uint16)
            np.save(folder / name / f"{number}.npy", noisy)
    for name in ("A.mrc", "B.mrc"):
        volume = draws.normal(np.stack([scene] * 24), 9).astype(np.float32)
        with mrcfile.new(folder / name) as file:
            file.set_data(volume)
    photographs(folder / "PHOTOS", 3)


@pytest.mark.walk
def test_commands_of_readme_work_from_the_wheel(installed):
    environment, folder = installed
    _data(folder)
    place = subprocess.run(
        [sys.executable, "-c", "import n2n_lightning.train as t; print(t.__file__, t.CONF)"],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert place.stdout.count(environment["PYTHONPATH"]) == 2

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\| .* \| `n2n (.+)` \|$", readme, re.MULTILINE)
    assert len(commands) >= 9
    trained = ""  # the folder of the first run
    for number, command in enumerate(commands):
        words = shlex.split(command.replace("[", "").replace("]", ""))
        if words[0] == "train":
            small = _shortened(words)
            words += [*small, f"hydra.run.dir=outputs/runs/{number}"]
            trained = trained or f"outputs/runs/{number}"
        if {"--adapt", "--best"} & {*words}:
            words += ["--minutes", "0.05"]
        if "outputs/runs/RUN" in words:
            words[words.index("outputs/runs/RUN")] = trained
        if words[0] == "denoise":
            words[words.index("clean")] = f"clean{number}"
        _n2n(installed, words)
        if words[0] == "denoise":
            assert len(list((folder / f"clean{number}").glob("*.npy"))) == 4
    results = [json.loads(path.read_text()) for path in folder.glob("outputs/runs/*/result.json")]
    assert len(results) == sum(command.startswith("train") for command in commands)
    assert {result["status"] for result in results} == {"finished"}
    assert {result["git_commit"] for result in results} == {None}


def _shortened(words: list[str]) -> list[str]:
    """Return overrides that make a training last seconds."""
    small = [*SHORT]
    if not any(word.startswith("experiment=") for word in words):
        small += SMALL_NETWORK
    if any(word.startswith("data.root=") for word in words):
        small.append("data.size=16")
    return small
