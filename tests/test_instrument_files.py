"""Files as instruments and archives write them: folders of thousands, double endings, gzip, unusual headers."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from n2n_lightning import check, denoise
from n2n_lightning.data.frames import read_movies
from n2n_lightning.data.naming import grouped
from n2n_lightning.data.reading import read_scenes, read_single
from n2n_lightning.files import SMALL, InputError, mapped, room
from n2n_lightning.formats import ending, opened, stem
from n2n_lightning.networks import ResidualUNet
from tests.conftest import linux


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A small network for grey images with random weights."""
    torch.manual_seed(0)
    network = ResidualUNet(1, 2, 2)
    torch.nn.init.normal_(network.output.weight, std=0.01)
    spec = {"_target_": "n2n_lightning.networks.ResidualUNet", "channels": 1, "width": 2, "levels": 2}
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("checkpoint") / "grey.ckpt"
    torch.save({"state_dict": state, "n2n_lightning": {"format": 1, "model": spec, "scale": None}}, path)
    return path


def command(main, monkeypatch, *arguments: object) -> int:
    """A command in this process."""
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    return main()


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Let this process open so many files more at a time."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + spare, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def many(folder: Path, count: int, ending: str, side: int) -> np.ndarray:
    """A folder of small pictures, a file each."""
    folder.mkdir()
    pictures = np.random.default_rng(28).integers(80, 120, (count, side, side)).astype(np.uint8)
    for number, picture in enumerate(pictures):
        if ending == ".npy":
            np.save(folder / f"{number:05d}.npy", picture)
        else:
            tifffile.imwrite(folder / f"{number:05d}.tif", picture)
    return pictures


@linux
@pytest.mark.parametrize(("ending", "side"), [(".tif", 16), (".npy", 16), (".npy", 600)])  # the last is mapped
def test_more_files_than_may_be_open(ending, side, tmp_path, monkeypatch, checkpoint, capsys):
    assert (side * side > SMALL) == (side == 600)
    pictures = many(tmp_path / "many", 80, ending, side)
    with few_descriptors(40):
        assert len(read_single(str(tmp_path / "many")).names) == 80
        movie = read_movies(str(tmp_path / "many"))
        assert np.array_equal(movie.image(0, 79)[0].numpy(), pictures[79])
        held = [opened(path).values[0].array for path in sorted((tmp_path / "many").iterdir())]
        assert np.array_equal(held[79], pictures[79])
        if side == 16:
            assert command(check.main, monkeypatch, tmp_path / "many") == 0
            asked = [tmp_path / "many", "-o", tmp_path / "out", "--checkpoint", checkpoint]
            assert command(denoise.main, monkeypatch, *asked) == 0
            assert len(list((tmp_path / "out").iterdir())) == 80
    assert "damaged" not in capsys.readouterr().out


@linux
@pytest.mark.slow
def test_twenty_thousand_files(tmp_path, monkeypatch, checkpoint, capsys):
    pictures = many(tmp_path / "many", 20_000, ".npy", 8)
    with few_descriptors(60):
        assert np.array_equal(read_movies(str(tmp_path / "many")).image(0, 19_999)[0].numpy(), pictures[-1])
        assert command(check.main, monkeypatch, tmp_path / "many") == 0
        asked = [tmp_path / "many", "-o", tmp_path / "out", "--checkpoint", checkpoint]
        assert command(denoise.main, monkeypatch, *asked) == 0
    assert len(list((tmp_path / "out").iterdir())) == 20_000
    assert "20000 scenes" in capsys.readouterr().out


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "I/O error")])
def test_what_the_machine_lacks_is_not_called_damage(error, tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros((8, 8), np.uint8))

    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(np, "load", load)
    with pytest.raises(InputError, match=r"a\.npy: cannot be read") as raised:
        opened(tmp_path / "a.npy")
    assert "damaged" not in str(raised.value)


@linux
def test_arrays_are_mapped_without_a_descriptor(tmp_path):
    array = np.arange(300_000, dtype=">i4").reshape(3, 100_000)
    (tmp_path / "a").write_bytes(b"x" * 7 + array.tobytes())
    before = len(os.listdir("/proc/self/fd"))
    found = mapped(tmp_path / "a", ">i4", 7, (3, 100_000))
    assert np.array_equal(found, array)
    assert np.array_equal(mapped(tmp_path / "a", ">i4", 7, (100_000, 3), "F"), array.T)
    place = room((3, 100_000), np.float32, share=0)
    place[...] = array
    assert float(place.sum(dtype=np.float64)) == array.sum()
    assert len(os.listdir("/proc/self/fd")) == before
    found[0, 0] = 99  # of the copy in memory
    assert np.array_equal(mapped(tmp_path / "a", ">i4", 7, (3, 100_000)), array)
    with pytest.raises(InputError, match="is truncated"):
        mapped(tmp_path / "a", ">i4", 8, (3, 100_000))


def test_endings_of_two_parts(tmp_path):
    for name, kind, bare in (
        ("cell1_1.ome.tif", ".tif", "cell1_1"),
        ("cell1_1.OME.TIFF", ".tiff", "cell1_1"),
        ("sub1_1.nii.gz", ".nii.gz", "sub1_1"),
        ("a.b.zarr", ".zarr", "a.b"),
        ("a.ome.zarr", ".zarr", "a"),
        (".ome.tif", ".tif", ".ome"),
    ):
        assert (ending(Path(name)), stem(Path(name))) == (kind, bare)
    names = [Path(f"cell{scene}_{k}.ome.tif") for scene in (1, 2, 3) for k in (1, 2)]
    assert grouped(names) == [names[:2], names[2:4], names[4:]]
    for path in names:
        tifffile.imwrite(tmp_path / path, np.random.default_rng(0).integers(0, 99, (16, 16)).astype(np.uint16))
    scenes = read_scenes(str(tmp_path))
    assert len(scenes.names) == 3
    assert scenes.captures(torch.arange(3)).tolist() == [2, 2, 2]
