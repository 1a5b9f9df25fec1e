"""Folders of instruments and other programs: clutter, previews, links, halves, patterns."""

import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile

from n2n_lightning import check, inspect_images, paths
from n2n_lightning.data import PairedImages
from n2n_lightning.data.file_matching import halves, matched, pictures
from n2n_lightning.data.reading import read_scenes
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.inference.plan import planned
from tests.conftest import posix, run


def tiff(path: Path, seed: int = 0) -> Path:
    """A noisy picture of 48 x 48."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.random.default_rng(seed).poisson(60, (48, 48)).astype(np.uint16))
    return path


CLUTTER = (
    *(
        ".ipynb_checkpoints/a-checkpoint.tif",
        ".thumbnails/t.tif",
        "@eaDir/a.tif/SYNO_THUMB.tif",
        "._a.tif",
    ),
    *(".AppleDouble/a.tif", "__MACOSX/sub/._a.tif", "lost+found/x.tif", "sub/@eaDir/b.tif"),
)


def test_clutter_of_other_programs_is_left_out_everywhere(tmp_path):
    for name in ("a.tif", "sub/b.tif", *CLUTTER):
        tiff(tmp_path / ".hidden above" / name)
    folder = tmp_path / ".hidden above"  # what was typed counts, whatever it lies in
    expected = [folder / "a.tif", folder / "sub/b.tif"]
    assert pictures(folder, deep=True) == expected
    jobs, skipped = planned([str(folder)], tmp_path / "out")
    assert [job.source for job in jobs] == expected
    assert skipped == []
    jobs, _ = planned([f"{folder}/**/*.tif"], tmp_path / "out")
    assert [job.source for job in jobs] == expected


@posix
def test_links_to_nothing_are_named_and_others_are_denoised(tmp_path):
    tiff(tmp_path / "annex/here.tif")
    (tmp_path / "annex/away.tif").symlink_to(".git/annex/objects/x/x.tif")
    jobs, _ = planned([str(tmp_path / "annex")], tmp_path / "out")
    assert sorted(job.source.name for job in jobs) == ["away.tif", "here.tif"]
    with pytest.raises(
        InputError, match=r"away.tif: is a link to .git/annex/objects/x/x.tif, which is not there"
    ):
        opened(tmp_path / "annex/away.tif")


def test_composed_and_decomposed_names_are_partners(tmp_path):
    names = ("Präparat_1", "Präparat_2", "Gewebe_é")
    for folder, form in (("first", "NFC"), ("second", "NFD")):
        for name in names:
            tiff(tmp_path / folder / (unicodedata.normalize(form, name) + ".tif"))
    pairs = matched(tmp_path / "first", tmp_path / "second")
    assert len(pairs) == 3
    assert all(paths.composed(one.name) == paths.composed(other.name) for one, other in pairs)


def captures(folder: Path, *names: str, count: int = 4) -> None:
    """Pictures of `count` scenes in a folder: each name has {} for the number of the scene."""
    draws = np.random.default_rng(12)
    folder.mkdir(parents=True, exist_ok=True)
    for s in range(count):
        base = draws.integers(60, 200, (48, 48))
        for name in names:
            values = (base + draws.normal(0, 8, base.shape)).round().clip(0)
            tifffile.imwrite(folder / name.format(s), values.astype(np.uint16))


@pytest.mark.parametrize(
    ("first", "second", "sums"),
    [
        ("grid_{}_EVN.tif", "grid_{}_ODD.tif", ["grid_{}.tif", "grid_{}_DW.tif"]),
        (
            "run{}_half1_class001_unfil.tif",
            "run{}_half2_class001_unfil.tif",
            ["run{}_class001.tif"],
        ),
        ("emd_{}_half_map_1.tif", "emd_{}_half_map_2.tif", []),
        ("J{}_map_half_A.tif", "J{}_map_half_B.tif", ["J{}_map.tif"]),
        ("a{}-even.tif", "a{}-odd.tif", ["a{}.tif"]),
        ("a{}_h1.tif", "a{}_h2.tif", []),
    ],
)
def test_halves_in_one_folder_are_pairs_by_their_names_and_sums_are_left_out(
    tmp_path, first, second, sums
):
    captures(tmp_path / "all", first, second, *sums)
    found = read_scenes(str(tmp_path / "all"))
    expected = [str(tmp_path / "all" / first.format(s)) for s in range(4)]
    assert found.names == expected
    for i in range(4):
        pair = [tifffile.imread(tmp_path / "all" / side.format(i)) for side in (first, second)]
        assert all((found.image(i, k)[0].numpy() == pair[k]).all() for k in (0, 1))
    assert bool(found.dropped) == bool(sums)
    if sums:
        assert sums[0].format(0) in found.dropped[0]


def test_a_half_without_the_other_one_is_named_and_wells_are_no_halves(tmp_path):
    captures(tmp_path, "g{}_EVN.tif", "g{}_ODD.tif")
    (tmp_path / "g2_ODD.tif").unlink()
    with pytest.raises(InputError, match=r"g2_EVN.tif: its other half is not there"):
        read_scenes(str(tmp_path))
    wells = [Path(f"plate_{row}{column}.tif") for row in "gh" for column in (1, 2, 3)]
    assert halves(wells) is None
    assert halves([Path("a.tif"), Path("evening_1.tif"), Path("evening_2.tif")]) is None


def test_folders_of_halves_are_pairs(tmp_path):
    captures(tmp_path / "EVN", "ts{}.tif")
    captures(tmp_path / "ODD", "ts{}.tif")
    found = read_scenes(str(tmp_path))
    assert [Path(name).parts[-2:] for name in found.names] == [
        ("EVN", f"ts{s}.tif") for s in range(4)
    ]


def test_patterns_are_sources_like_folders(tmp_path, monkeypatch, capsys):
    captures(tmp_path / "mics", "g{}_EVN.tif", "g{}_ODD.tif", "g{}.tif")
    captures(tmp_path / "clean", "g{}.tif")
    monkeypatch.chdir(tmp_path)
    for noisy, target in (
        ("mics/*_EVN.tif", "mics/*_ODD.tif"),
        ("m*/*_?VN.tif", str(tmp_path / "mics/*_ODD.tif")),
    ):
        found = read_scenes(noisy, target)
        assert [Path(name).name for name in found.names] == [f"g{s}_EVN.tif" for s in range(4)]
        assert (found.image(1, 1)[0].numpy() == tifffile.imread("mics/g1_ODD.tif")).all()
    data = PairedImages(
        "mics/*_EVN.tif", "mics/*_ODD.tif", clean="clean/*.tif", batch_size=2, crop=16
    )
    data.setup()
    assert data.reference == "clean"
    assert len(data.val) == 1
    with pytest.raises(InputError, match=r"mics/\*x.tif: matches no image"):
        read_scenes("mics/*x.tif")
    report = inspect_images("mics/*_EVN.tif", "mics/*_ODD.tif")
    assert report.source == "pairs"
    monkeypatch.setattr(sys, "argv", ["check", "mics/*_EVN.tif", "mics/*_ODD.tif"])
    assert check.main() == 0
    said = "data=pairs 'data.noisy=mics/*_EVN.tif' 'data.target=mics/*_ODD.tif'"
    assert said in capsys.readouterr().out


@posix
def test_previews_beside_captures_and_links_to_nothing_are_left_out_by_name(tmp_path):
    captures(tmp_path / "beside", "cell{}_1.tif", "cell{}_2.tif")
    for name in ("preview/p1.tif", "preview/p2.tif"):
        tiff(tmp_path / "beside" / name)
    (tmp_path / "beside/away.tif").symlink_to(".git/annex/x.tif")
    found = read_scenes(str(tmp_path / "beside"))
    assert len(found.names) == 4
    assert "away.tif (links to files that are not there)" in found.dropped
    assert "preview (2 pictures in a folder of previews)" in found.dropped
    data = PairedImages(str(tmp_path / "beside"), batch_size=2, crop=16)
    data.setup()
    assert data.dropped == list(found.dropped)
    (tmp_path / "beside/preview").rename(tmp_path / "beside/small")
    found = read_scenes(str(tmp_path / "beside"))  # whatever its name is
    assert len(found.names) == 4
    assert "small (2 pictures in a folder beside the captures)" in found.dropped


def test_images_beside_folders_that_pair_with_nothing_are_refused_or_named(tmp_path):
    for name in ("overview.tif", "small/1.tif", "small/2.tif"):
        tiff(tmp_path / "one" / name)
    with pytest.raises(
        InputError, match=r"holds images itself and in folders \(small\); data.exclude='small/\*'"
    ):
        read_scenes(str(tmp_path / "one"))
    for name in ("overview.tif", *(f"s{s}/{k}.tif" for s in range(3) for k in (1, 2))):
        tiff(tmp_path / "many" / name)
    found = read_scenes(str(tmp_path / "many"))
    assert len(found.names) == 3
    assert found.dropped == ("overview.tif (beside the folders of the scenes)",)


@pytest.mark.walk
@posix
def test_home_folders_are_expanded_in_every_command(tmp_path, monkeypatch):
    captures(tmp_path / "a", "g{}.tif")
    captures(tmp_path / "b", "g{}.tif")
    monkeypatch.setenv("HOME", str(tmp_path))
    options = ["data.batch_size=4", "data.train_pairs=8", "data.crop=16", "trainer.max_epochs=1"]
    options += ["model=dncnn", "model.width=4", "model.layers=3"]
    data = ["data=pairs", "data.noisy=~/a", "data.target=~/b/*.tif"]
    (tmp_path / "work").mkdir()
    done = run("train", *data, *options, "hydra.run.dir=~/runs/1", cwd=tmp_path / "work")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/1/checkpoints/best.ckpt").is_file()
    done = run("train", "resume=~/runs/1", "trainer.max_epochs=2", cwd=tmp_path / "work")
    assert done.returncode == 0, done.stderr
    again = ["init=~/runs/1", "hydra.run.dir=~/runs/2"]
    done = run(
        "train",
        *data,
        *[o for o in options if not o.startswith("model")],
        *again,
        cwd=tmp_path / "work",
    )
    assert done.returncode == 0, done.stderr
    done = run("denoise", "~/a", "-o", "~/out", "--checkpoint", "~/runs/1", cwd=tmp_path / "work")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert run("check", "~/a", "~/b", cwd=tmp_path / "work").returncode == 0
    scored = ("--val-noisy", "~/a", "--val-target", "~/b")
    assert run("evaluate", "~/runs/1", *scored, cwd=tmp_path / "work").returncode == 0
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.walk
@pytest.mark.parametrize("several", [False, True])
def test_paths_mean_what_they_meant_where_the_command_was_typed(tmp_path, several):
    captures(tmp_path / "a", "g{}.tif")
    captures(tmp_path / "b", "g{}.tif")
    options = [
        "data.batch_size=4",
        "data.train_pairs=8",
        "data.crop=16",
        "trainer.max_epochs=1",
        "model=dncnn",
    ]
    options += ["model.width=4", "model.layers=3", "hydra.job.chdir=true"]
    data = ["data=pairs", "data.noisy=a/*.tif", "data.target=b"]
    place = ["-m", "hydra.sweep.dir=runs", "seed=0,1"] if several else ["hydra.run.dir=runs/0"]
    done = run("train", *data, *options, *place, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for k in (0, 1)[: 1 + several]:
        assert (tmp_path / f"runs/{k}/checkpoints/best.ckpt").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "runs"]
    if not several:
        done = run("train", "resume=runs/0", "trainer.max_epochs=2", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
