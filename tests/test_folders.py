"""Folders as instruments and other programs leave them: clutter, previews, links, halves, names, patterns."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile

from n2n_lightning import paths
from n2n_lightning.data.naming import matched, pictures
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.jobs import planned
from tests.conftest import posix


def tiff(path: Path, seed: int = 0) -> Path:
    """A noisy picture of 48 x 48."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.random.default_rng(seed).poisson(60, (48, 48)).astype(np.uint16))
    return path


CLUTTER = (
    *(".ipynb_checkpoints/a-checkpoint.tif", ".thumbnails/t.tif", "@eaDir/a.tif/SYNO_THUMB.tif", "._a.tif"),
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
    with pytest.raises(InputError, match=r"away.tif: is a link to .git/annex/objects/x/x.tif, which is not there"):
        opened(tmp_path / "annex/away.tif")


def test_composed_and_decomposed_names_are_partners(tmp_path):
    names = ("Präparat_1", "Präparat_2", "Gewebe_é")
    for folder, form in (("first", "NFC"), ("second", "NFD")):
        for name in names:
            tiff(tmp_path / folder / (unicodedata.normalize(form, name) + ".tif"))
    pairs = matched(tmp_path / "first", tmp_path / "second")
    assert len(pairs) == 3
    assert all(paths.composed(one.name) == paths.composed(other.name) for one, other in pairs)
