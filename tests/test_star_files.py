"""Tomograms that a star file names: pairs of halves, and the column of their results."""

import mrcfile
import numpy as np
import pytest

from n2n_lightning.data.file_matching import is_file, listing
from n2n_lightning.data.reading import read_scenes
from n2n_lightning.files import InputError
from n2n_lightning.formats.star_files import HalfTomograms, halves_in, write_denoised
from n2n_lightning.inference.plan import planned
from tests.conftest import run

starfile = pytest.importorskip("starfile")

STAR = """
# version 50001

data_global

loop_
_rlnTomoName #1
_rlnVoltage #2
_rlnTomoTiltSeriesPixelSize #3
_rlnTomoReconstructedTomogramHalf1 #4
_rlnTomoReconstructedTomogramHalf2 #5
_rlnTomoNote #6
TS_01  300.0000000  1.350  job/even/TS_01.mrc  job/odd/TS_01.mrc  nan
TS_03  300.0000000  1.350  job/even/TS_03.mrc  job/odd/TS_03.mrc  007


data_optics

_rlnVersion 5.00
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for half in ("even", "odd"):
        folder = tmp_path / "job" / half
        folder.mkdir(parents=True)
        for name in ("TS_01", "TS_03"):
            volume = rng.normal(size=(6, 24, 20)).astype(np.float32)
            with mrcfile.new(folder / f"{name}.mrc") as file:
                file.set_data(volume)
                file.set_volume()
                file.voxel_size = 10.0
    (tmp_path / "job" / "tomograms.star").write_text(STAR)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_halves_of_a_star_file(project, monkeypatch):
    star = project / "job" / "tomograms.star"
    first, second = halves_in(star)
    assert isinstance(first, HalfTomograms)
    assert (first.name, second.name) == ("TS_01", "TS_03")
    assert second.first.samefile("job/even/TS_03.mrc")
    assert second.second.samefile("job/odd/TS_03.mrc")
    # also where the command starts elsewhere
    monkeypatch.chdir("/")
    assert halves_in(star)[0].first.samefile(project / "job/even/TS_01.mrc")


def test_training_pairs_the_halves(project):
    scenes = read_scenes("job/tomograms.star", dims=3)
    assert len(scenes) == 2
    for number, name in enumerate(("TS_01", "TS_03")):
        for capture, half in enumerate(("even", "odd")):
            expected = mrcfile.read(f"job/{half}/{name}.mrc")
            assert np.array_equal(scenes.image(number, capture)[0].numpy(), expected)
    assert not is_file("job/tomograms.star")
    assert len(listing(project / "job" / "tomograms.star").files) == 4


def test_each_tomogram_becomes_one_file(project):
    jobs, _ = planned(["job/tomograms.star"], project / "out")
    assert [job.target.name for job in jobs] == ["TS_01.mrc", "TS_03.mrc"]
    assert jobs[0].other_half.samefile("job/odd/TS_01.mrc")
    with pytest.raises(InputError, match="is an input"):
        planned(["job/tomograms.star"], project / "job" / "odd")


def test_all_other_columns_stay_as_they_were(project):
    star = project / "job" / "tomograms.star"
    results = {row.first: project / "out" / f"{row.name}.mrc" for row in halves_in(star)}
    write_denoised(star, project / "new.star", results)
    text = (project / "new.star").read_text()
    for number, name in enumerate(("TS_01", "TS_03")):
        rows = [line.split() for line in text.splitlines() if line.startswith(name)]
        before = [line.split() for line in STAR.splitlines() if line.startswith(name)]
        assert rows == [[*before[0], f"{project}/out/{name}.mrc"]], number
    assert "_rlnTomoReconstructedTomogramDenoised #7" in text
    assert "_rlnVersion\t\t\t5.00" in text
    blocks = starfile.read(project / "new.star")
    assert list(blocks) == ["global", "optics"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Half2 #5", "Half3 #5", "has no columns"),
        ("job/odd/TS_03.mrc", "gone.mrc", "names gone.mrc, which is not there"),
        (STAR, "no star", "has no columns"),
    ],
)
def test_a_star_file_that_cannot_be_used(project, old, new, message):
    star = project / "job" / "tomograms.star"
    star.write_text(STAR.replace(old, new))
    with pytest.raises(InputError, match=message):
        halves_in(star)


def test_denoise_adds_the_column(project):
    done = run("denoise", "job/tomograms.star", "-o", "out", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    names = sorted(path.name for path in (project / "out").iterdir())
    assert names == ["TS_01.mrc", "TS_03.mrc", "tomograms.star"]
    table = starfile.read(project / "out" / "tomograms.star", always_dict=True)["global"]
    for path in table["rlnTomoReconstructedTomogramDenoised"]:
        with mrcfile.open(project / path) as file:
            assert file.data.shape == (6, 24, 20)
            assert file.voxel_size.x == 10
