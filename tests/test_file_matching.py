"""Which files are captures of one scene, and paths as people type them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from n2n_lightning.data.reading import read_scenes
from n2n_lightning.files import InputError
from tests.captures import QUICK, folder_of, no_noise_from_lightning, noisy8, own, scene  # noqa: F401
from tests.conftest import run


def test_a_folder_of_stacks_is_a_folder_of_bursts(tmp_path):
    for i in range(4):
        stack = np.stack([noisy8(scene(48, 48, i), 10 * i + k) for k in range(3 + i % 2)])
        tifffile.imwrite(tmp_path / f"view{i}.tif", stack, imagej=True, metadata={"axes": "TYX"})
    scenes = read_scenes(str(tmp_path))
    assert scenes.captures(torch.arange(4)).tolist() == [3, 4, 3, 4]
    assert np.array_equal(scenes.image(1, 3)[0].numpy(), noisy8(scene(48, 48, 1), 13))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cell{:03d}_a", "cell{:03d}_b"),
        ("{}", "{}"),
        ("raw-{}", "second-{}-x"),
        ("s/{}/shot", "s/{}/shot"),
        ("{}.t1", "{}.t2"),
    ],
)
def test_partners_by_the_common_part_of_their_names(first, second, tmp_path):
    images = {i: noisy8(scene(40, 40, i), i) for i in range(1, 12)}
    a = folder_of(tmp_path / "a", {f"{first.format(i)}.png": image for i, image in images.items()})
    b = folder_of(tmp_path / "b", {f"{second.format(i)}.png": image for i, image in images.items()})
    scenes = read_scenes(a, b)
    assert len(scenes.names) == 11
    assert torch.equal(scenes.frames[0], scenes.frames[1])


def test_captures_by_the_last_part_of_their_names(tmp_path):
    images = {
        f"cell{i}_{k}.png": noisy8(scene(40, 40, i), 10 * i + k) for i in range(5) for k in (1, 2)
    }
    scenes = read_scenes(folder_of(tmp_path / "one", images))
    assert len(scenes.names) == 5
    assert np.array_equal(scenes.image(3, 1)[0].numpy(), images["cell3_2.png"])
    # A series of different things is no scene with many captures.
    series = {f"img_{i:02}.png": noisy8(scene(40, 40, i), i) for i in range(9)}
    with pytest.raises(InputError, match="no names that pair"):
        read_scenes(folder_of(tmp_path / "series", series))


def test_clean_images_in_the_layout_of_the_noisy_ones_and_files_that_are_no_captures(tmp_path):
    for i in range(1, 5):
        for k in range(3):
            folder_of(tmp_path / "raw", {f"{i}/{k}.png": noisy8(scene(40, 40, i), 10 * i + k)})
        folder_of(tmp_path / "raw", {f"{i}/avg3.png": noisy8(scene(40, 40, i), 99)})
        folder_of(
            tmp_path / "gt", {f"{i}/avg50.png": (scene(40, 40, i) * 180 + 30).astype(np.uint8)}
        )
    data = own(
        str(tmp_path / "raw"), clean=str(tmp_path / "gt"), exclude="avg*", val_share=0.25, scale=200
    )
    assert data.train.scenes.captures(torch.arange(3)).tolist() == [3, 3, 3]
    assert np.array_equal(
        data.val.reference[0, 0].numpy(), (scene(40, 40, 4) * 180 + 30).astype(np.uint8)
    )
    both = own(str(tmp_path / "raw"), exclude=["avg*", "2/*"])
    assert len(both.train.scenes.names) == 2


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["Zürich, run (1) x=y", "it's [a] {b}", "データ", "plus+at@ 100%", "a,b"]
)
def test_paths_as_typed(name, tmp_path):
    for side, k in (("a", 0), ("b", 1)):
        folder_of(
            tmp_path / name / side,
            {f"{i}.png": noisy8(scene(40, 40, i), 10 * i + k) for i in range(6)},
        )
    source = ["data=pairs", f"data.noisy={name}/a", f"data.target={name}/b"]
    done = run("train", *source, *QUICK, f"hydra.run.dir={name}/run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("train", f"resume={name}/run", "trainer.max_epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / name / "run" / "result.json").read_text())
    assert result["epochs"] == 2
    assert (
        f"data.noisy={name}/a" in result["data"]["noisy"] or result["data"]["noisy"] == f"{name}/a"
    )
    done = run(
        "train", "-m", *source, *QUICK, "seed=1,2", f"hydra.sweep.dir={name}/sweep", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / name / "sweep" / "1" / "result.json").unlink()
    done = run("train", "-m", f"sweep.resume={name}/sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / name / "sweep" / "sweep.json").read_text(encoding="utf-8"))[
        "jobs"
    ]
    assert [set(row["parameters"]) for row in rows] == [{"seed"}] * 2


@pytest.mark.slow
def test_a_list_of_paths_in_a_sweep_is_a_list(tmp_path):
    for name in ("first set", "second set"):
        np.save(
            tmp_path / f"{name}.npy",
            np.random.default_rng(0).integers(0, 255, (6, 2, 1, 40, 40)).astype(np.uint8),
        )
    asked = ["data=pairs", "data.noisy=first set.npy,second set.npy", *QUICK, "hydra.sweep.dir=s"]
    done = run("train", "-m", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "s" / "sweep.json").read_text())["jobs"]
    assert {row["parameters"]["data.noisy"] for row in rows} == {"first set.npy", "second set.npy"}


@pytest.mark.walk
@pytest.mark.slow
def test_nested_folders_are_in_one_order_and_have_their_own_clean_images(tmp_path):
    for place in ("a/1", "a/2", "b/1", "b/2"):
        seed = 10 * (place[0] == "b") + int(place[2])
        for k in range(2):
            folder_of(
                tmp_path / "noisy",
                {f"{place}/{k}.png": noisy8(scene(40, 40, seed), 100 * seed + k)},
            )
        folder_of(
            tmp_path / "gt", {f"{place}/m.png": (scene(40, 40, seed) * 180 + 30).astype(np.uint8)}
        )
    code = "from n2n_lightning.data.reading import read_scenes; print(read_scenes('noisy').names)"
    options = {"cwd": tmp_path, "capture_output": True, "text": True}
    found = set()
    for seed in "1234":
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, **options
        )
        found.add(done.stdout)
    assert len(found) == 1
    data = own(str(tmp_path / "noisy"), clean=str(tmp_path / "gt"), val_share=0.5)
    assert [Path(name).parent.name for name in data.train.scenes.names] == ["a", "a"]
    assert np.array_equal(
        data.val.reference[0, 0].numpy(), (scene(40, 40, 11) * 180 + 30).astype(np.uint8)
    )
    shutil.rmtree(tmp_path / "gt" / "b")
    (tmp_path / "gt" / "a" / "2" / "m.png").unlink()
    part = own(str(tmp_path / "noisy"), clean=str(tmp_path / "gt"))
    assert np.array_equal(
        part.val.reference[0, 0].numpy(), (scene(40, 40, 1) * 180 + 30).astype(np.uint8)
    )
    assert len(part.train.scenes.names) == 3


@pytest.mark.walk
@pytest.mark.parametrize("name", ["2024", "1_0", "1e5", "true"])
def test_names_that_look_like_something_else(name, tmp_path):
    for side in "ab":
        folder_of(
            tmp_path / name / side, {f"{i}.png": noisy8(scene(40, 40, i), i) for i in range(6)}
        )
    shutil.copytree(tmp_path / name / "a", tmp_path / "second")
    shutil.move(tmp_path / name / "a", tmp_path / "moved")
    shutil.rmtree(tmp_path / name)
    shutil.move(tmp_path / "moved", tmp_path / name)
    done = run(
        "train",
        "data=pairs",
        f"data.noisy={name}",
        "data.target=second",
        *QUICK,
        "hydra.run.dir=o",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "o" / "result.json").read_text())["data"]["noisy"] == name
