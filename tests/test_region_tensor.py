"""Training from large files in place: the values of the file read whole, window by window."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
import zarr
from zarr.storage import LocalStore

from n2n_lightning.check import holds_volumes
from n2n_lightning.data import BatchIndex, PairedImages, SingleImages
from n2n_lightning.data.reading import read_any
from n2n_lightning.data.region_tensor import RegionTensor
from n2n_lightning.formats import opened, region_sample, regions
from n2n_lightning.inspection import inspect

SHAPE = (24, 48, 64)
CHUNKS = (8, 16, 16)


@pytest.fixture
def all_large(monkeypatch):
    """Every array is large, and those that are packed stay in their files."""
    monkeypatch.setattr(regions, "LARGE_BYTES", 0)


def volumes(blank: bool = False) -> list[np.ndarray]:
    """Two noisy halves of a volume; with `blank` two thirds of both are one value."""
    halves = []
    for seed in range(2):
        noisy = np.random.default_rng(seed).poisson(60, SHAPE).astype(np.uint16)
        if blank:
            noisy[:, : 2 * SHAPE[1] // 3] = 0
        halves.append(noisy)
    return halves


def save(folder: Path, kind: str, blank: bool = False) -> list[str]:
    """Save both halves as files of a kind."""
    names = []
    for name, array in zip("ab", volumes(blank), strict=True):
        path = folder / f"{kind}-{name}.{'mrc' if kind == 'big-endian' else 'zarr'}"
        options: dict = {"dimension_names": "zyx"}
        if kind == "shards":
            options["shards"] = (16, 32, 32)
        if kind == "old":
            options = {"zarr_format": 2}
        if kind == "npy":
            path = path.with_suffix(".npy")
            np.save(path, array)
        elif kind in ("mrc", "big-endian"):
            path = path.with_suffix(".mrc")
            with mrcfile.new(path) as file:
                file.set_data(array if kind == "mrc" else array.astype(">u2"))
        else:
            store = zarr.create_array(path, data=array, chunks=CHUNKS, **options)
            if kind == "old":
                store.attrs["_ARRAY_DIMENSIONS"] = ["z", "y", "x"]
        names.append(str(path))
    return names


def batches(names: list[str], **options) -> list[dict]:
    """The batches of an epoch, through the loader of a run, and the first validation batch."""
    options = {"crop": [8, 16, 16], "train_pairs": 12, "batch_size": 4, **options}
    data = PairedImages(names[0], names[1], dims=3, layout="DHW", **options)
    data.setup()
    loader = data._loader(data.train, 4, shuffle=True)
    return [*loader, *data._loader(data.val, 1, shuffle=False), {"limits": data.limits}]


def same(one: list[dict], other: list[dict]) -> bool:
    assert len(one) == len(other)
    for batch, second in zip(one, other, strict=True):
        for name, value in batch.items():
            equal = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
            if not equal(value, second[name]):
                return False
    return True


def test_windows_are_those_of_the_file_read_whole(tmp_path, all_large, monkeypatch):
    whole = batches(save(tmp_path, "npy"))
    for kind in ("zarr", "old", "shards", "mrc", "big-endian"):
        assert same(batches(save(tmp_path, kind)), whole), kind
    names = [str(tmp_path / f"zarr-{k}.zarr") for k in "ab"]
    assert same(batches(names, workers=2), whole)
    monkeypatch.setattr("n2n_lightning.data.reading_files.in_place", lambda *given: None)
    assert same(batches(names), whole)


def counted(monkeypatch) -> list[str]:
    """Record what is read of Zarr stores: the paths of chunks."""
    reads: list[str] = []
    get = LocalStore.get

    async def recorded(self, key, *others, **options):
        if "c/" in key:
            reads.append(key)
        return await get(self, key, *others, **options)

    monkeypatch.setattr(LocalStore, "get", recorded)
    return reads


def test_a_window_reads_the_chunks_that_it_touches(tmp_path, all_large, monkeypatch):
    names = save(tmp_path, "zarr")
    data = PairedImages(names[0], names[1], dims=3, crop=[8, 16, 16], batch_size=1, val_share=0)
    data.setup()
    index = BatchIndex(0, 0, torch.arange(1))
    data.train[index]  # the cell in which the window begins is known now
    reads = counted(monkeypatch)
    window = {}
    take = data.train.scenes.take

    def taken(scene, capture, place):
        window["starts"] = [int(along.flatten()[0]) for along in place[1:]]
        return take(scene, capture, place)

    monkeypatch.setattr(data.train.scenes, "take", taken)
    data.train[index]
    touched = 1
    for start, side, chunk in zip(window["starts"], (8, 16, 16), CHUNKS, strict=True):
        touched *= (start + side - 1) // chunk - start // chunk + 1
    assert len(reads) == 2 * touched


def test_windows_in_the_specimen_of_a_zarr(tmp_path, all_large):
    whole = batches(save(tmp_path, "npy", blank=True))
    assert same(batches(save(tmp_path, "zarr", blank=True)), whole)
    outside = [float((batch["input"] == 0).float().mean()) for batch in whole[:3]]
    assert np.mean(outside) < 0.5  # 0.67 of the volume


def test_views_read_what_their_array_holds(tmp_path, all_large):
    array = volumes()[0]
    (path, _) = save(tmp_path, "zarr")
    view = RegionTensor.of(Path(path), None, opened(path).regions())
    whole = torch.from_numpy(array)
    for index in (3, slice(2, 20, 5), (..., slice(5, 9)), (None, 4), (slice(1, 3), 7, slice(8))):
        assert torch.equal(view[index].read(), whole[index])
        assert view[index].shape == whole[index].shape
    assert torch.equal(view.permute(2, 0, 1)[5:9].read(), whole.permute(2, 0, 1)[5:9])
    chosen = torch.tensor([7, 3, 20])
    assert torch.equal(view[chosen].read(), whole[chosen])
    assert torch.equal(view.narrow(1, 4, 9).read(), whole.narrow(1, 4, 9))
    assert torch.equal(view.double(), whole.double())


def test_training_and_check_read_a_share_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "big.zarr"
    store = zarr.create_array(
        path, shape=(64, 1024, 1024), chunks=(8, 64, 64), dtype="uint16", dimension_names="zyx"
    )
    chunks = 8 * 16 * 16
    rng = np.random.default_rng(0)
    store[...] = rng.poisson(60, store.shape)
    monkeypatch.setattr(regions, "LARGE_BYTES", 2**20)
    monkeypatch.setattr(region_sample, "CELLS_ALONG", 2)
    monkeypatch.setattr(region_sample, "SAMPLED_PLANES", 2)
    reads = counted(monkeypatch)
    data = SingleImages(
        str(path), method="masked", mask=[1, 3], dims=3, crop=[8, 32, 32], val_share=0
    )
    data.setup()
    data.train[BatchIndex(0, 0, torch.arange(2))]
    assert 0 < len(reads) < chunks / 10
    assert isinstance(data.train.scenes.image(0, 0), RegionTensor)
    reads.clear()
    scenes = read_any(str(path))
    assert scenes.in_place
    assert not reads
    assert holds_volumes(str(path))


def test_check_says_the_same_of_packed_and_mapped_files(tmp_path, all_large):
    (mapped, _) = save(tmp_path, "npy")
    (packed, _) = save(tmp_path, "zarr")
    one = inspect(read_any(packed, layout="NHW"), volumes=True)
    other = inspect(read_any(mapped, layout="NHW"), volumes=True)
    assert str(one) == str(other)
