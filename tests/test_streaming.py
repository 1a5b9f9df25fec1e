"""Large arrays go block by block from disk to disk, with the values of the whole, and resume."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile
import torch
import zarr
from astropy.io import fits
from rich.progress import Progress
from skimage.transform import downscale_local_mean

from n2n_lightning.files import InputError
from n2n_lightning.formats import opened, regions
from n2n_lightning.formats.picture import AskedAxes, Packed
from n2n_lightning.formats.region_sample import sample_of
from n2n_lightning.inference import block_grid, shared_output, stream_facts, streaming
from n2n_lightning.inference.block_grid import grid_of
from n2n_lightning.inference.checkpoint import CheckpointInfo
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.file_denoiser import FileDenoiser
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.outlier_files import read_mask
from n2n_lightning.inference.plan import Job
from n2n_lightning.inference.texture import usual_residuals
from n2n_lightning.inference.tiling import tile_of
from n2n_lightning.networks import DnCNN
from n2n_lightning.runs.claims import Claims
from tests.conftest import LIMIT
from tests.test_outliers import different_scenes

FIXED = DenoiseOptions(scale=255.0, dtype="keep", tile=64)


def network(dims: int = 2, blind: bool = False) -> TrainedDenoiser:
    """A tiny network with random weights: 3 pixels around each decide."""
    torch.manual_seed(0)
    net = DnCNN(channels=1, width=4, layers=3, dims=dims)
    for weights in net.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    return TrainedDenoiser(net, 1, CheckpointInfo(blind=blind))


def denoise(
    source: Path,
    target: Path,
    options=FIXED,
    dims=2,
    blind=False,
    overwrite=False,
    mask=None,
    mixed=False,
    helps=False,
):
    with Progress(disable=True) as progress:
        model = network(dims, blind)
        one = FileDenoiser(model, options, AskedAxes(dims=dims), progress, overwrite=overwrite)
        one.mixed = mixed
        if mask is not None:
            one.defects = read_mask(mask)
        return one.denoise(Job(source, target, None), None, helps)


@pytest.fixture
def small_blocks(monkeypatch):
    """Every array is large, and a page of more than 32 x 32 pixels is divided."""

    def apply():
        monkeypatch.setattr(regions, "LARGE_BYTES", 0)
        monkeypatch.setattr(streaming, "BLOCK_VOXELS", 32 * 32)
        monkeypatch.setattr(block_grid, "BLOCK_VOXELS", 32 * 32)

    return apply


def stack(shape=(5, 48, 80), dtype="uint16") -> np.ndarray:
    return np.random.default_rng(0).poisson(60, shape).astype(dtype)


def save(path: Path, array: np.ndarray) -> None:
    kind = path.name.partition(".")[2]
    if kind == "npy":
        np.save(path, np.asfortranarray(array) if path.stem == "fortran" else array)
    elif kind == "tif":
        tifffile.imwrite(path, array, bigtiff=path.stem == "big", photometric="minisblack")
    elif kind == "mrc":
        mrcfile.new(path, array).close()
    elif kind == "nii":
        nibabel.save(nibabel.Nifti1Image(array.T, np.diag([2.0, 2.0, 5.0, 1.0])), path)
    elif kind == "fits":
        fits.PrimaryHDU(array).writeto(path, checksum=True)
    elif kind == "h5":
        chunks = (1, 16, 16) if path.stem == "chunked" else None
        with h5py.File(path, "w") as file:
            file.create_dataset("noisy", data=array, chunks=chunks).attrs["unit"] = "nm"
            file["noisy"].dims[0].label = "z"
    elif kind == "zarr":
        options = {"zarr_format": 2} if path.stem == "old" else {"dimension_names": "zyx"}
        if path.stem == "shards":
            options["shards"] = (2, 32, 32)
        store = zarr.create_array(path, data=array, chunks=(1, 16, 16), **options)
        if path.stem == "old":
            store.attrs["_ARRAY_DIMENSIONS"] = ["z", "y", "x"]


FILES = [
    *("a.npy", "fortran.npy", "a.tif", "big.tif", "a.mrc", "a.nii", "a.fits"),
    *("a.h5", "chunked.h5", "a.zarr", "old.zarr", "shards.zarr"),
]


@pytest.mark.parametrize("name", FILES)
def test_blocks_have_the_values_and_the_bytes_of_the_whole(name, tmp_path, small_blocks):
    save(tmp_path / name, stack())
    ending = Path(name).suffix
    whole = denoise(tmp_path / name, tmp_path / f"whole{ending}")
    small_blocks()
    blocks = denoise(tmp_path / name, tmp_path / f"blocks{ending}")
    expected = opened(whole.target).values[0].array
    assert np.array_equal(opened(blocks.target).values[0].array, expected)
    assert not np.array_equal(expected, opened(tmp_path / name).values[0].array)
    if ending in (".npy", ".tif", ".mrc", ".nii"):
        assert blocks.target.read_bytes() == whole.target.read_bytes()
    if ending == ".fits":
        with fits.open(blocks.target, checksum=True) as file:
            file.verify("exception")
    assert sorted(os.listdir(tmp_path)) == sorted([name, f"whole{ending}", f"blocks{ending}"])


@pytest.mark.parametrize("name", ["a.npy", "a.mrc", "a.nii", "a.tif", "chunked.h5", "a.zarr"])
def test_floats_of_integers_are_not_rounded(name, tmp_path, small_blocks):
    """A TIFF changes its pages for that, and is written as a whole."""
    save(tmp_path / name, stack())
    options = DenoiseOptions(scale=255.0, dtype="float32", tile=64)
    ending = Path(name).suffix
    whole = denoise(tmp_path / name, tmp_path / f"whole{ending}", options)
    small_blocks()
    blocks = denoise(tmp_path / name, tmp_path / f"blocks{ending}", options)
    result = opened(blocks.target).values[0].array
    assert result.dtype == np.float32
    assert np.allclose(result, opened(whole.target).values[0].array, rtol=1e-5, atol=1e-3)


def test_volumes_meet_without_a_seam(tmp_path, small_blocks):
    save(tmp_path / "a.mrc", stack((40, 48, 40), "float32"))
    options = DenoiseOptions(scale=255.0, tile=48)
    denoise(tmp_path / "a.mrc", tmp_path / "whole.mrc", options, dims=3)
    small_blocks()
    denoise(tmp_path / "a.mrc", tmp_path / "blocks.mrc", options, dims=3)
    results = [opened(tmp_path / f"{n}.mrc").values[0].array for n in ("whole", "blocks")]
    assert np.allclose(*results, rtol=1e-5, atol=1e-3)


def image_group(path: Path, array: np.ndarray, version: int = 2) -> None:
    """An OME-Zarr image of three resolutions."""
    store = zarr.open_group(path, mode="w", zarr_format=version)
    datasets = []
    for level in range(3):
        step = 2**level
        part = array[..., ::step, ::step]
        store.create_array(str(level), data=part, chunks=(1, 1, 16, 16), fill_value=0)
        scale = [1.0, 2.0, 0.5 * step, 0.5 * step]
        change = {"type": "scale", "scale": scale}
        datasets.append({"path": str(level), "coordinateTransformations": [change]})
    axes = [{"name": name} for name in "czyx"]
    image = {"axes": axes, "datasets": datasets, "type": "mean"}
    described = {"multiscales": [{"version": "0.4", **image}], "omero": {"channels": [1, 2]}}
    store.attrs.update(described if version == 2 else {"ome": {"version": "0.5", **described}})


@pytest.mark.parametrize("version", [2, 3])
def test_an_image_group_keeps_its_metadata_its_resolutions_and_its_empty_chunks(
    version, tmp_path, small_blocks
):
    array = stack((2, 3, 64, 96))
    array[:, :, :32, :64] = 0
    image_group(tmp_path / "a.zarr", array, version)
    small_blocks()
    denoise(tmp_path / "a.zarr", tmp_path / "out.zarr")
    before = zarr.open_group(tmp_path / "a.zarr", mode="r")
    after = zarr.open_group(tmp_path / "out.zarr", mode="r")
    assert dict(after.attrs) == dict(before.attrs)
    for level in "012":
        assert after[level].metadata == before[level].metadata
    assert not after["0"][:, :, :32, :64].any()
    full = after["0"][...].astype(np.float64)
    first = np.rint(downscale_local_mean(full, (1, 1, 2, 2)))
    assert np.array_equal(after["1"][...], first)
    assert np.array_equal(after["2"][...], np.rint(downscale_local_mean(first, (1, 1, 2, 2))))
    chunk = "0/c/0/0/0/0" if version == 3 else "0/0.0.0.0"
    stored = "0/c/0/0/3/5" if version == 3 else "0/0.0.3.5"
    assert not (tmp_path / "out.zarr" / chunk).exists()
    assert (tmp_path / "out.zarr" / stored).exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from n2n_lightning.formats import regions
from n2n_lightning.inference import block_grid, streaming
from tests.test_streaming import denoise
regions.LARGE_BYTES = 0
streaming.BLOCK_VOXELS = block_grid.BLOCK_VOXELS = 32 * 32
whole = streaming.StreamedFile._denoise
count = 0
def some(self, block, facts):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, block, facts)
streaming.StreamedFile._denoise = some
denoise(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("name", ["a.npy", "a.zarr"])
def test_after_a_kill_the_same_command_does_what_is_missing(
    name, tmp_path, small_blocks, monkeypatch
):
    save(tmp_path / name, stack())
    whole, target = (tmp_path / f"{stem}{Path(name).suffix}" for stem in ("whole", "out"))
    denoise(tmp_path / name, whole)
    command = [sys.executable, "-c", KILLED, str(tmp_path / name), str(target)]
    folder = Path(__file__).parents[1]
    ended = subprocess.run(command, cwd=folder, timeout=LIMIT, check=False)
    assert ended.returncode == -9
    assert not target.exists()
    small_blocks()
    done = []
    one = streaming.StreamedFile._denoise
    monkeypatch.setattr(
        streaming.StreamedFile,
        "_denoise",
        lambda self, block, facts: done.append(block.name) or one(self, block, facts),
    )
    denoise(tmp_path / name, target)
    assert len(done) == 5 * 2 * 3 - 3
    assert np.array_equal(opened(target).values[0].array, opened(whole).values[0].array)
    names = [name, target.name, whole.name]
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_a_block_that_fails_is_named_and_stops_no_other(tmp_path, small_blocks, monkeypatch):
    save(tmp_path / "a.npy", stack())
    small_blocks()
    one = streaming.StreamedFile._denoise
    tries = []

    def failing(self, block, facts):
        tries.append(block.name)
        if block.name == "block 1.0.32":
            raise OSError("bad sector")
        return one(self, block, facts)

    with monkeypatch.context() as patched:
        patched.setattr(streaming.StreamedFile, "_denoise", failing)
        with pytest.raises(InputError, match=r"failed 3 times: block 1\.0\.32 \(bad sector\)"):
            denoise(tmp_path / "a.npy", tmp_path / "out.npy")
    assert tries.count("block 1.0.32") == 3
    assert len(set(tries)) == 30
    with pytest.raises(InputError, match="was begun with another options"):
        denoise(tmp_path / "a.npy", tmp_path / "out.npy", DenoiseOptions(scale=100.0, tile=64))
    denoise(tmp_path / "a.npy", tmp_path / "out.npy")
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "out.npy"]


def test_a_block_that_failed_is_missed_after_waiting_for_those_of_others(
    tmp_path, small_blocks, monkeypatch
):
    save(tmp_path / "a.npy", stack())
    small_blocks()
    one = streaming.StreamedFile._denoise

    def failing(self, block, facts):
        if block.name == "block 1.0.32":
            raise OSError("bad sector")
        return one(self, block, facts)

    monkeypatch.setattr(streaming.StreamedFile, "_denoise", failing)
    with pytest.raises(InputError, match="failed 3 times"):
        denoise(tmp_path / "a.npy", tmp_path / "out.npy")
    claims = Claims(tmp_path / "out.npy.state")
    claims._done_path("block 0.0.0").unlink()
    other = claims.claim("block 0.0.0")
    other.__enter__()

    def end_of_other(seconds):
        other.finish()
        other.__exit__(None, None, None)

    monkeypatch.setattr(streaming.time, "sleep", end_of_other)
    with pytest.raises(InputError, match=r"failed 3 times: block 1\.0\.32"):
        denoise(tmp_path / "a.npy", tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_another_mask_of_bad_pixels_is_refused_for_what_is_unfinished(
    tmp_path, small_blocks, monkeypatch
):
    save(tmp_path / "a.npy", stack())
    mask = np.zeros((48, 80), np.uint8)
    mask[3, 4] = 1
    np.save(tmp_path / "mask.npy", mask)
    small_blocks()
    with monkeypatch.context() as patched:
        patched.setattr(streaming.StreamedFile, "_end", lambda self: 1 / 0)
        with pytest.raises(InputError, match="ZeroDivisionError"):
            denoise(tmp_path / "a.npy", tmp_path / "out.npy")
    with pytest.raises(InputError, match="was begun with another mask of bad pixels"):
        denoise(tmp_path / "a.npy", tmp_path / "out.npy", mask=tmp_path / "mask.npy")


def test_an_error_before_the_first_block_leaves_nothing_that_binds(
    tmp_path, small_blocks, monkeypatch
):
    save(tmp_path / "a.npy", stack())
    small_blocks()

    def full(path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(regions, "reserve", full)
        with pytest.raises(InputError, match="No space left"):
            denoise(tmp_path / "a.npy", tmp_path / "out.npy")
    assert os.listdir(tmp_path) == ["a.npy"]
    denoise(tmp_path / "a.npy", tmp_path / "out.npy", DenoiseOptions(scale=99.0, tile=64))


@pytest.mark.parametrize("moment", ["before the facts are read", "after the renaming"])
def test_a_result_that_another_process_finishes_meanwhile_is_no_error(
    moment, tmp_path, small_blocks, monkeypatch
):
    save(tmp_path / "a.npy", stack())
    small_blocks()
    target = tmp_path / "out.npy"
    first = "_end" if moment == "after the renaming" else "_facts"
    own = getattr(streaming.StreamedFile, first)
    calls = []

    def finished_by_other(self):
        calls.append(first)
        if first == "_facts" and len(calls) == 1:
            return own(self)
        self.partial.replace(self.target)
        if first == "_facts":
            streaming.remove_state(self.state)
        return own(self)

    monkeypatch.setattr(streaming.StreamedFile, first, finished_by_other)
    done = denoise(tmp_path / "a.npy", target)
    assert ("finished by another process" in str(done)) == (first == "_facts")
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "out.npy"]


def test_a_claim_on_what_is_gone_leaves_no_state(tmp_path):
    """Where another process removed the state between two looks."""
    save(tmp_path / "a.npy", stack())
    picture = opened(tmp_path / "a.npy")
    reading = picture.read_as(picture.values[0], AskedAxes())
    target = tmp_path / "out.npy"
    one = streaming.StreamedFile(network(), FIXED, picture, reading, picture.regions(), target)
    claim = Claims(one.state).claim("block 0.0.0")
    with pytest.raises(streaming.FinishedElsewhereError):
        one._check_still_there(claim)
    assert os.listdir(tmp_path) == ["a.npy"]


def test_defects_of_unsigned_fits_are_found_as_stored_without_unpacking_it(tmp_path):
    array = different_scenes(4)
    defects = []

    def whole():
        raise AssertionError("unpacked")

    for name in ("a.npy", "a.fits"):
        save(tmp_path / name, array)
        picture = opened(tmp_path / name)
        (values,) = picture.values
        reading = picture.read_as(values, AskedAxes())
        if isinstance(values.stored, Packed):
            values.stored = replace(values.stored, unpacked=whole)
        facts = stream_facts.measured_facts(
            network(), picture, reading, picture.regions(), "NHW", DenoiseOptions(), False
        )
        defects.append(facts.defects.tolist())
    assert defects == [[[0, 20, 70]]] * 2


def test_overwrite_begins_anew(tmp_path, small_blocks, monkeypatch):
    save(tmp_path / "a.npy", stack())
    whole = denoise(tmp_path / "a.npy", tmp_path / "whole.npy").target
    small_blocks()
    with monkeypatch.context() as patched:
        patched.setattr(streaming.StreamedFile, "_end", lambda self: 1 / 0)
        with pytest.raises(InputError, match="ZeroDivisionError"):
            denoise(tmp_path / "a.npy", tmp_path / "out.npy", DenoiseOptions(scale=99.0, tile=64))
    target = denoise(tmp_path / "a.npy", tmp_path / "out.npy", overwrite=True).target
    assert np.array_equal(np.load(target), np.load(whole))


def test_label_images_are_copied(tmp_path, small_blocks):
    labels = np.kron(np.arange(12).reshape(1, 3, 4) * 7, np.ones((2, 24, 24))).astype(np.uint16)
    save(tmp_path / "a.npy", labels)
    small_blocks()
    done = denoise(tmp_path / "a.npy", tmp_path / "out.npy")
    assert np.array_equal(np.load(done.target), labels)
    assert "a label image, copied" in str(done)


def test_texture_is_put_back_in_parts_as_in_the_whole(tmp_path, small_blocks, monkeypatch):
    """Where both know the same about what is usually removed."""
    draws = np.random.default_rng(1)
    image = 100 + 3 * draws.normal(size=(128, 160))
    image[40:90, 30:120] += 12 * draws.normal(size=(50, 90))
    array = image.astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    options = DenoiseOptions(scale=255.0, tile=64)
    whole = denoise(tmp_path / "a.npy", tmp_path / "whole.npy", options, blind=True)
    model = network(blind=True)
    plain = np.empty_like(array)
    noisy = NoisyArray(array, "HW")
    model.denoise_into(plain, noisy, DenoiseOptions(scale=255.0, tile=64, uneven=True))
    page = model.pages_of(noisy, plain, options).at(())
    usual = usual_residuals([page], True)
    small_blocks()
    monkeypatch.setattr(stream_facts, "_usual_residuals", lambda *words: usual)
    blocks = denoise(tmp_path / "a.npy", tmp_path / "blocks.npy", options, blind=True)
    assert np.allclose(np.load(blocks.target), np.load(whole.target), atol=0.01)


def test_facts_are_plain_data_and_come_back(tmp_path):
    save(tmp_path / "a.npy", stack((2, 200, 300)))
    picture = opened(tmp_path / "a.npy")
    reading = picture.read_as(picture.values[0], AskedAxes())
    model = network(blind=True)
    facts = stream_facts.measured_facts(
        model, picture, reading, picture.regions(), "NHW", DenoiseOptions(), True
    )
    again = stream_facts.StreamFacts.from_json(json.loads(json.dumps(facts.to_json())))
    assert again.to_json() == facts.to_json()
    assert again.limits.span.dtype == facts.limits.span.dtype
    assert np.dtype(again.dtype) == np.uint16
    assert facts.usual_residuals is not None


def test_a_margin_is_found_in_the_sample(tmp_path):
    array = stack((2, 900, 1000)).astype(np.int16)
    array[:, :, :100] = -2000
    save(tmp_path / "a.npy", array)
    picture = opened(tmp_path / "a.npy")
    reading = picture.read_as(picture.values[0], AskedAxes())
    facts = stream_facts.measured_facts(
        network(), picture, reading, picture.regions(), "NHW", DenoiseOptions(), True
    )
    assert facts.nodata_values == (-2000.0,)
    assert 0 <= facts.limits.black[0] < 60


@pytest.mark.parametrize(
    ("shape", "axes", "dims", "chunks", "sides", "divided"),
    [
        ((100, 64, 64), "NHW", 2, (1, 1, 1), (100, 64, 64), False),
        ((5000, 512, 512), "NHW", 2, (1, 1, 1), (32, 512, 512), False),
        ((20_000, 30_000), "HW", 2, (1, 1), (2048, 2048), True),
        ((2, 2000, 2048, 2048), "CDHW", 2, (1, 64, 64, 64), (2, 64, 320, 320), True),
        ((500, 2048, 2048), "DHW", 3, (128, 128, 128), (256, 256, 256), True),
        ((40, 4096, 4096), "DHW", 2, (4, 2048, 2048), (4, 2048, 2048), True),
    ],
)
def test_blocks_are_whole_chunks(shape, axes, dims, chunks, sides, divided):
    grid = grid_of(network(dims), shape, axes, chunks)
    assert (grid.sides, grid.divided) == (sides, divided)
    for side, chunk, length in zip(sides, chunks, shape, strict=True):
        assert side % chunk == 0 or side == length


def test_blocks_cover_each_pixel_once_and_read_what_the_network_sees():
    grid = grid_of(network(), (3, 100, 130), "NHW", (1, 1, 1), voxels=1024)
    covered = np.zeros(grid.shape, int)
    for block in grid.blocks():
        covered[block.inner] += 1
        for axis in (1, 2):
            inner, outer = block.inner[axis], block.outer[axis]
            assert outer.start == 0 or (inner.start - outer.start >= 3 and outer.start % 16 == 0)
            assert outer.stop == grid.shape[axis] or outer.stop - inner.stop >= 3
    assert (covered == 1).all()


def test_the_sample_of_a_large_array_unpacks_each_piece_once():
    array = np.random.default_rng(0).integers(0, 9999, (40, 700, 900))
    reads = []

    def read(region):
        reads.append(region)
        return array[region]

    sample = sample_of(read, array.shape, (64, 1024, 450), "DHW", 2)
    assert len(reads) == 2  # two pieces, for 5 planes of 64 cells each
    assert sample.pages.shape == (5, 512, 512, 1)
    assert np.array_equal(sample.pages[0, :64, :64, 0], array[0, :64, :64])
    assert np.array_equal(sample.pages[4, -64:, -64:, 0], array[39, -64:, -64:])
    alone = sample_of(array.__getitem__, array.shape, (1, 1, 1), "DHW", 2)
    assert np.array_equal(alone.pages, sample.pages)


def test_another_processor_is_refused_unless_mixed(tmp_path, small_blocks, monkeypatch):
    save(tmp_path / "a.npy", stack())
    small_blocks()
    with monkeypatch.context() as patched:
        patched.setattr(streaming.StreamedFile, "_end", lambda self: 1 / 0)
        with pytest.raises(InputError, match="ZeroDivisionError"):
            denoise(tmp_path / "a.npy", tmp_path / "out.npy")
    monkeypatch.setattr(shared_output, "processor_name", lambda: "another one")
    with pytest.raises(InputError, match=r"begun with device .*, here it is another one .*mixed"):
        denoise(tmp_path / "a.npy", tmp_path / "out.npy")
    denoise(tmp_path / "a.npy", tmp_path / "out.npy", mixed=True)
    assert (tmp_path / "out.npy").exists()


def test_overwrite_joins_a_living_process_between_two_of_its_blocks(
    tmp_path, small_blocks, monkeypatch
):
    save(tmp_path / "a.npy", stack())
    target = tmp_path / "out.npy"
    target.write_text("a former result")
    small_blocks()
    one = streaming.StreamedFile._denoise
    done = []

    def counted(self, block, facts):
        done.append(block.name)
        return one(self, block, facts)

    blocks = streaming.StreamedFile._share_blocks

    def joined_by_another(self, claims):
        monkeypatch.setattr(streaming.StreamedFile, "_share_blocks", blocks)
        blocks(self, claims)  # all are done, and no claim is held
        denoise(tmp_path / "a.npy", target, overwrite=True)

    monkeypatch.setattr(streaming.StreamedFile, "_denoise", counted)
    monkeypatch.setattr(streaming.StreamedFile, "_share_blocks", joined_by_another)
    result = denoise(tmp_path / "a.npy", target, overwrite=True)
    assert "finished by another process" in str(result)
    assert len(done) == len(set(done)) == 30
    assert np.load(target).shape == (5, 48, 80)


def test_a_process_without_a_picture_of_its_own_helps_with_a_large_one(
    tmp_path, small_blocks, monkeypatch
):
    save(tmp_path / "a.npy", stack())
    small_blocks()
    target = tmp_path / "out.npy"
    job = Job(tmp_path / "a.npy", target, None)
    with monkeypatch.context() as patched:
        patched.setattr(streaming.StreamedFile, "_end", lambda self: 1 / 0)
        with pytest.raises(InputError, match="ZeroDivisionError"):
            denoise(tmp_path / "a.npy", target)
    settings = shared_output.Settings("a1", {}, {}, 1)
    with (
        shared_output.SharedOutput(tmp_path, settings, False, False) as first,
        shared_output.SharedOutput(tmp_path, settings, False, False) as second,
    ):
        (_, held) = next(first.claimed([job]))
        with held:
            (helped, claim) = next(second.claimed([job]))
            assert helped == job
            assert isinstance(claim, shared_output.Help)
            denoise(tmp_path / "a.npy", target, helps=True)
            assert target.exists()
            written = target.stat().st_mtime_ns
            denoise(tmp_path / "a.npy", target, helps=True)  # too late: it is not done again
            held.finish()
    assert target.stat().st_mtime_ns == written


@pytest.mark.parametrize(("asked", "side"), [(False, 640), (True, 1024)])
def test_a_tile_that_is_asked_for_is_honoured(asked, side, tmp_path):
    save(tmp_path / "a.npy", stack())
    picture = opened(tmp_path / "a.npy")
    reading = picture.read_as(picture.values[0], AskedAxes())
    model = network()
    options = replace(FIXED, tile=tile_of(2, model.overlap, model.multiple))
    file = streaming.StreamedFile(
        model, options, picture, reading, picture.regions(), tmp_path / "b.npy", tile_asked=asked
    )
    assert options.tile == 1024
    assert file.options.tile == side
