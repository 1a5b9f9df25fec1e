"""HDF5 files with arrays in other files: read through views and links, written as datasets."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from n2n_lightning import denoise
from n2n_lightning.data.reading_files import read_array
from n2n_lightning.files import InputError, replacing
from n2n_lightning.formats import opened
from tests.test_formats import checkpoints, command  # noqa: F401  a fixture


def frames(count: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(50, 1000, (count, 20, 24)).astype(np.uint16)


def result_of(
    source: str, target: Path, change: Callable[[np.ndarray], np.ndarray] = lambda x: x + 1
) -> str:
    """Writes a file like `source` with changed values; returns what is said of it."""
    picture = opened(source)
    with replacing(target) as temporary, picture.written(temporary) as results:
        results[0][...] = change(picture.values[0].array)
    return picture.note


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """The content and the time of change of all files of a folder."""
    return {
        str(p): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def virtual(path: Path, source: str, count: int = 3, name: str = "data", mode: str = "w") -> None:
    layout = h5py.VirtualLayout((count, 20, 24), np.uint16)
    layout[...] = h5py.VirtualSource(source, "frames", (count, 20, 24))
    with h5py.File(path, mode) as file:
        file.create_virtual_dataset(name, layout, fillvalue=7)
        file[name].attrs["unit"] = "counts"


@pytest.mark.parametrize("absolute", [False, True])
def test_a_virtual_dataset_becomes_a_real_one_and_its_raw_file_stays(
    absolute,
    tmp_path,
    monkeypatch,
    checkpoints,
):
    scan = tmp_path / "scan"
    scan.mkdir()
    raw = frames()
    with h5py.File(scan / "raw.h5", "w") as file:
        file.create_dataset("frames", data=raw, chunks=(1, 20, 24), compression="gzip")
    virtual(scan / "scan.h5", str(scan / "raw.h5") if absolute else "raw.h5")
    assert np.array_equal(read_array(scan / "scan.h5", "NHW")[0][:, 0].numpy(), raw)
    before = state(scan)
    asked = [scan / "scan.h5", "-o", tmp_path / "out", "--checkpoint", checkpoints[1]]
    assert command(denoise.main, monkeypatch, *asked) == 0
    assert state(scan) == before
    (scan / "raw.h5").rename(tmp_path / "away.h5")
    with h5py.File(tmp_path / "out" / "scan.h5") as file:
        data = file["data"]
        assert not data.is_virtual
        assert (data.dtype, data.shape, data.chunks, data.compression) == (
            raw.dtype,
            raw.shape,
            (1, 20, 24),
            "gzip",
        )
        assert (data.attrs["unit"], data.fillvalue) == ("counts", 7)
        assert not np.array_equal(data, raw)
        assert abs(float(data[()].mean()) - raw.mean()) < 100


@pytest.mark.parametrize("absolute", [False, True])
def test_external_storage_becomes_internal_and_its_raw_file_stays(absolute, tmp_path, monkeypatch):
    scan, raw = tmp_path / "scan", frames()
    scan.mkdir()
    raw.tofile(scan / "raw.bin")
    name = str(scan / "raw.bin") if absolute else "raw.bin"
    with h5py.File(scan / "scan.h5", "w") as file:
        file.create_dataset("data", raw.shape, raw.dtype, external=[(name, 0, raw.nbytes)])
        file["data"].attrs["unit"] = "counts"
        file.create_dataset("other", raw.shape, raw.dtype, external=[(name, 0, raw.nbytes)])
    before = state(scan)
    monkeypatch.chdir(tmp_path)  # relative names are also sought beside the file
    note = result_of("scan/scan.h5:data", tmp_path / "out" / "scan.h5")
    assert state(scan) == before
    assert note == (
        "other still reads the original files;"
        " its data is a dataset of its own, no longer a view of raw.bin"
    )
    monkeypatch.chdir("/")
    with h5py.File(tmp_path / "out" / "scan.h5") as file:
        assert np.array_equal(file["other"], raw)
        assert (file["data"].external, file["data"].attrs["unit"]) == (None, "counts")
        assert np.array_equal(file["data"], raw + 1)


def master(folder: Path) -> None:
    """A master file of a detector: external links to files with the frames, and a soft link."""
    for k in (1, 2):
        with h5py.File(folder / f"data_{k}.h5", "w") as file:
            file.create_dataset(
                "entry/data/data", data=frames(2, k), chunks=(1, 20, 24), compression="gzip"
            )
            file["entry/data/data"].attrs["number"] = k
            file["entry/data/mask"] = np.zeros((20, 24), np.uint8)
            file["entry/data"].attrs["NX_class"] = "NXdata"
    with h5py.File(folder / "master.h5", "w") as file:
        for k in (1, 2):
            file[f"entry/data/{k}"] = h5py.ExternalLink(f"data_{k}.h5", "/entry/data/data")
        file["entry/first"] = h5py.SoftLink("data/1")
        file["entry/all"] = h5py.ExternalLink("data_1.h5", "entry")
        file["entry/gone"] = h5py.ExternalLink("data_3.h5", "/entry/data/data")
        file["entry/nothing"] = h5py.SoftLink("/entry/no")
        file["entry/round"] = h5py.SoftLink("/entry/round")


@pytest.mark.parametrize(
    "name", ["entry/data/1", "/entry/data/1", "entry/first", "entry/all/data/data"]
)
def test_parts_are_found_through_links_and_nothing_is_written_through_them(name, tmp_path):
    scan = tmp_path / "scan"
    scan.mkdir()
    master(scan)
    before = state(scan)
    assert np.array_equal(opened(f"{scan}/master.h5:{name}").values[0].array, frames(2, 1))
    note = result_of(f"{scan}/master.h5:{name}", tmp_path / "out" / "deep" / "master.h5")
    assert state(scan) == before
    assert "no longer a view of data_1.h5" in note
    assert "still read the original files" in note
    with h5py.File(tmp_path / "out" / "deep" / "master.h5", "r") as file:
        data = file[name]
        assert data.file == file
        assert np.array_equal(data, frames(2, 1) + 1)
        assert (data.attrs["number"], data.compression, data.chunks) == (1, "gzip", (1, 20, 24))
        assert np.array_equal(file["entry/data/2"], frames(2, 2))
        assert os.path.samefile(file["entry/data/2"].file.filename, scan / "data_2.h5")
        assert np.array_equal(file["entry/all/data/mask"], np.zeros((20, 24)))
        assert file["entry/all/data"].attrs["NX_class"] == "NXdata"
        same = np.array_equal(file["entry/first"], file["entry/data/1"])
        assert same, "a soft link and what it leads to are one array"


def test_what_is_said_of_links_is_true(tmp_path):
    master(tmp_path)
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file.create_group("entry").attrs["title"] = "nothing"
    for asked, said in {
        "master.h5": (
            r"holds several arrays; name one: master\.h5:entry/data/1, master\.h5:entry/data/2, "
        ),
        "master.h5:entry/gone": r"entry/gone: is a link into data_3\.h5, which is not there",
        "master.h5:entry/nothing": r"entry/nothing: is a link to /entry/no, which leads nowhere",
        "master.h5:entry/round": r"entry/round: is a link to /entry/round, which leads nowhere",
        "master.h5:/entry/data": (
            r"is a group, name an array in it: master\.h5:entry/data/1, master\.h5:entry/data/2"
        ),
        "master.h5:entry/no": r"has no array 'entry/no'; name one: ",
        "none.h5": r"none\.h5: holds no arrays$",
        "none.h5:entry": r"entry: is a group, which holds no arrays",
    }.items():
        with pytest.raises(InputError, match=said):
            opened(f"{tmp_path}/{asked}")
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["only"] = h5py.ExternalLink("data_2.h5", "/entry/data/data")
    assert np.array_equal(opened(tmp_path / "one.h5").values[0].array, frames(2, 2))
    (tmp_path / "data_2.h5").unlink()
    with pytest.raises(InputError, match=r"only: is a link into data_2\.h5, which is not there"):
        opened(tmp_path / "one.h5")


def test_other_views_of_a_result_show_what_they_showed(tmp_path, monkeypatch):
    scan = tmp_path / "scan"
    scan.mkdir()
    monkeypatch.chdir(scan)
    with h5py.File("raw.h5", "w") as file:
        file["frames"] = frames()
    virtual(Path("scan.h5"), "raw.h5", name="view")
    with h5py.File("scan.h5", "r+") as file:
        file["frames"] = frames(seed=2)
        file["y"] = np.arange(20.0)
        file["y"].make_scale("y")
        file["view"].dims[1].attach_scale(file["y"])
        file["alias"] = file["view"]
    virtual(Path("scan.h5"), ".", name="own", mode="r+")
    before = state(scan)
    monkeypatch.chdir(tmp_path)
    assert (
        result_of("scan/scan.h5:frames", Path("out/scan.h5"))
        == "alias still reads the original files"
    )
    with h5py.File("out/scan.h5") as file:
        assert file["view"].is_virtual
        assert np.array_equal(file["view"], frames())
        assert file["view"] == file["alias"]
        assert np.array_equal(file["own"], file["frames"])
        assert np.array_equal(file["frames"], frames(seed=2) + 1)
    assert "no longer a view of raw.h5" in result_of("scan/scan.h5:view", Path("out2/scan.h5"))
    with h5py.File("out2/scan.h5") as file:
        assert np.array_equal(file["alias"], frames() + 1)
        assert np.array_equal(file["view"].dims[1]["y"], np.arange(20.0))
        assert np.array_equal(file["own"], frames(seed=2))
    assert state(scan) == before


def test_a_view_without_its_files_is_not_denoised_as_zeros(tmp_path):
    layout = h5py.VirtualLayout((4, 20, 24), np.uint16)
    for k in (1, 2):
        layout[2 * k - 2 : 2 * k] = h5py.VirtualSource(f"raw{k}.h5", "frames", (2, 20, 24))
        with h5py.File(tmp_path / f"raw{k}.h5", "w") as file:
            file["frames"] = frames(2, k)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("data", layout, fillvalue=7)
    assert np.array_equal(opened(tmp_path / "scan.h5").values[0].array[2:], frames(2, 2))
    (tmp_path / "raw2.h5").unlink()
    assert (
        opened(tmp_path / "scan.h5").note
        == "1 of 2 files of data are not there, as raw2.h5: 7 there"
    )
    (tmp_path / "raw1.h5").unlink()
    with pytest.raises(
        InputError, match=r"scan\.h5: data: its values are in raw1\.h5, which is not there"
    ):
        opened(tmp_path / "scan.h5")


@pytest.mark.parametrize(
    "options", [{}, {"chunks": (1, 20, 24), "scaleoffset": 0, "shuffle": True}]
)
def test_counts_can_become_floats_under_all_names(options, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=frames(), **options).attrs["unit"] = "counts"
        file["alias"] = file["data"]
    picture = opened(f"{tmp_path}/a.h5:data")
    with (
        replacing(tmp_path / "b.h5") as temporary,
        picture.written(temporary, [np.dtype("float32")]) as results,
    ):
        results[0][...] = picture.values[0].array + 0.25
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["alias"] == file["data"]
        assert np.array_equal(file["data"], (frames() + 0.25).astype(np.float32))
        assert (file["data"].dtype.name, file["data"].attrs["unit"]) == ("float32", "counts")
        assert (file["data"].chunks, file["data"].shuffle) == (
            options.get("chunks"),
            "shuffle" in options,
        )
