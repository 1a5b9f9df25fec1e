"""Files of instruments and archives: thousands in a folder, gzip, unusual names and headers."""

import errno
import gzip
import os
import resource
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import h5py
import mrcfile
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from astropy.io import fits
from pydicom.data import get_testdata_file

from n2n_lightning import check, denoise
from n2n_lightning.data.file_matching import grouped
from n2n_lightning.data.reading import read_scenes, read_single
from n2n_lightning.data.reading_movies import read_movies
from n2n_lightning.files import SMALL, InputError, mapped, room
from n2n_lightning.formats import ending, opened, stem
from n2n_lightning.inference.denoiser import load
from n2n_lightning.networks import ResidualUNet
from tests.conftest import linux


def denoise_to_o(monkeypatch, source: Path, checkpoint) -> int:
    """Denoise a file into the folder o beside it; the exit status."""
    out = source.parent / "o"
    return command(denoise.main, monkeypatch, source, "-o", out, "--checkpoint", checkpoint)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A small network for grey images with random weights."""
    torch.manual_seed(0)
    network = ResidualUNet(1, 2, 2)
    torch.nn.init.normal_(network.output.weight, std=0.01)
    spec = {
        "_target_": "n2n_lightning.networks.ResidualUNet",
        "channels": 1,
        "width": 2,
        "levels": 2,
    }
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("checkpoint") / "grey.ckpt"
    torch.save(
        {"state_dict": state, "n2n_lightning": {"format": 1, "model": spec, "scale": None}}, path
    )
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


@pytest.mark.slow
@linux
# the last is mapped
@pytest.mark.parametrize(("ending", "side"), [(".tif", 16), (".npy", 16), (".npy", 600)])
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


@pytest.mark.walk
@linux
@pytest.mark.slow
def test_twenty_thousand_files(tmp_path, monkeypatch, capsys):
    pictures = many(tmp_path / "many", 20_000, ".npy", 8)
    with few_descriptors(60):
        assert np.array_equal(
            read_movies(str(tmp_path / "many")).image(0, 19_999)[0].numpy(), pictures[-1]
        )
        assert command(check.main, monkeypatch, tmp_path / "many") == 0
    assert "20000 scenes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "I/O error")]
)
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
        tifffile.imwrite(
            tmp_path / path, np.random.default_rng(0).integers(0, 99, (16, 16)).astype(np.uint16)
        )
    scenes = read_scenes(str(tmp_path))
    assert len(scenes.names) == 3
    assert scenes.captures(torch.arange(3)).tolist() == [2, 2, 2]


def scans(folder: Path, peaks: tuple[float, float]) -> np.ndarray:
    """Two scans of each head, int16 with a scl_slope each (nibabel's floats); the clean heads."""
    clean = 300 + 200 * np.sin(np.arange(24 * 20 * 16).reshape(24, 20, 16) / 50)
    draws = np.random.default_rng(20)
    for peak, name in zip(peaks, ("first", "second"), strict=True):
        (folder / name).mkdir(exist_ok=True)
        for head in (1, 2):
            noisy = clean + draws.normal(0, 40, clean.shape)
            noisy[0, 0, 0] = peak  # one voxel decides what the writer takes for its scale
            image = nibabel.Nifti1Image(noisy, np.eye(4))
            image.set_data_dtype(np.int16)
            nibabel.save(image, folder / name / f"sub{head}.nii")
    return clean.T


def test_scans_of_other_slopes_are_compared_in_the_files_units(tmp_path):
    clean = scans(tmp_path, (1000, 6000))
    units = [opened(tmp_path / name / "sub1.nii").values[0].unit for name in ("first", "second")]
    assert units[0] != units[1]
    for first, second in (("first", "second"), ("first/sub1.nii", "second/sub1.nii")):
        scenes = read_scenes(str(tmp_path / first), str(tmp_path / second), dims=3)
        assert (scenes.dtype, scenes.unit) == (torch.float32, (1.0, 0.0))
        for k in (0, 1):
            error = scenes.image(0, k)[0].numpy() - clean
            assert np.sqrt(np.mean(error[:, :, 1:] ** 2)) == pytest.approx(40, rel=0.05)
    alone = read_scenes(str(tmp_path / "first/sub1.nii"), str(tmp_path / "first/sub1.nii"), dims=3)
    assert (alone.dtype, alone.unit) == (torch.int16, units[0])  # as stored where all agree


def test_halves_of_other_slopes_have_their_mean_in_the_first_ones_unit(
    tmp_path, monkeypatch, checkpoint
):
    clean = scans(tmp_path, (1000, 6000))
    first, second = (tmp_path / name / "sub1.nii" for name in ("first", "second"))
    asked = ["--halves", "-o", tmp_path / "mean.nii", "--checkpoint", checkpoint, "--strength", "0"]
    assert command(denoise.main, monkeypatch, first, second, *asked) == 0
    result = nibabel.load(tmp_path / "mean.nii")
    assert result.get_data_dtype() == np.int16
    assert result.dataobj.slope == nibabel.load(first).dataobj.slope
    error = result.get_fdata().T - clean
    assert np.sqrt(np.mean(error[:, :, 1:] ** 2)) == pytest.approx(40 / np.sqrt(2), rel=0.05)


def test_fits_frames_of_other_scales_are_compared_in_their_units(tmp_path):
    sky = np.random.default_rng(0).normal(3000, 50, (4, 24, 20))
    (tmp_path / "night").mkdir()
    for number, frame in enumerate(sky):
        scale, zero = (0.25, 1000.0) if number % 2 else (0.5, 0.0)
        stored = np.rint((frame - zero) / scale).astype(np.int16)
        stored[0, 0] = -32768
        hdu = fits.PrimaryHDU(stored)
        for name, value in (("BSCALE", scale), ("BZERO", zero), ("BLANK", -32768)):
            hdu.header[name] = value
        hdu.writeto(tmp_path / "night" / f"{number}.fits")
    movie = read_movies(str(tmp_path / "night"))
    for number in range(4):
        found = movie.image(0, number)[0].numpy()
        assert np.isnan(found[0, 0])
        assert np.abs(found - sky[number])[1:].max() <= 0.25 + 1e-3


def test_the_range_of_a_checkpoint_follows_the_unit_of_a_file(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = ResidualUNet(1, 2, 2)
    torch.nn.init.normal_(network.output.weight, std=0.3)
    spec = {
        "_target_": "n2n_lightning.networks.ResidualUNet",
        "channels": 1,
        "width": 2,
        "levels": 2,
    }
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    ours = {"format": 1, "model": spec, "scale": None, "range": [0.0, 1000.0], "unit": [1.0, 0.0]}
    torch.save({"state_dict": state, "n2n_lightning": ours}, tmp_path / "a.ckpt")
    assert load(tmp_path / "a.ckpt").range_in((0.25, 100.0)) == (-400.0, 4000.0)
    values = np.random.default_rng(0).normal(500, 50, (24, 20)).round(0)
    results = []
    for name, scale, zero in (("one", 1.0, 0.0), ("other", 0.25, 100.0)):
        hdu = fits.PrimaryHDU(((values - zero) / scale).astype(np.float32))
        hdu.header["BSCALE"], hdu.header["BZERO"] = scale, zero
        hdu.writeto(tmp_path / f"{name}.fits")
        asked = [
            tmp_path / f"{name}.fits",
            "-o",
            tmp_path / "out",
            "--checkpoint",
            tmp_path / "a.ckpt",
        ]
        assert command(denoise.main, monkeypatch, *asked) == 0
        results.append(opened(tmp_path / "out" / f"{name}.fits").values[0].array * scale + zero)
    assert np.abs(results[0] - values).max() > 1
    assert np.allclose(*results, atol=0.01)


def save_mrc(path: Path, array: np.ndarray, edits: dict[int, bytes]) -> bytes:
    """An MRC file with some bytes of its header changed."""
    mrcfile.write(path, array, overwrite=True, voxel_size=1)
    content = bytearray(path.read_bytes())
    for place, new in edits.items():
        content[place : place + len(new)] = new
    path.write_bytes(content)
    return bytes(content[:1024])


@pytest.mark.parametrize(
    ("edits", "note"),
    [
        ({208: b"MAP\0"}, "no 'MAP '"),
        ({208: b"\0\0\0\0"}, "no 'MAP '"),
        ({212: b"\x44\x20\x20\x20"}, "44 20 20 20, read as little-endian"),
        ({212: b"\x44\0\0\0"}, "44 00 00 00, read as little-endian"),
        ({212: b"\0\0\0\0"}, "missing, read as little-endian"),
        ({212: b"\x11\x11\0\0"}, "11 11 00 00, read as little-endian"),  # a stamp that is not true
        ({28: struct.pack("<3i", 0, 0, 0)}, "voxel size is unknown"),
    ],
)
def test_headers_of_electron_microscopes_that_are_a_little_wrong(
    edits, note, tmp_path, monkeypatch, checkpoint
):
    volume = np.random.default_rng(10).normal(0, 1, (4, 24, 20)).astype(np.float32)
    header = save_mrc(tmp_path / "a.mrc", volume, edits)
    picture = opened(tmp_path / "a.mrc")
    assert np.array_equal(picture.values[0].array, volume)
    assert note in picture.note
    assert picture.values[0].spacing == (None if 28 in edits else (1.0, 1.0, 1.0))
    assert denoise_to_o(monkeypatch, tmp_path / "a.mrc", checkpoint) == 0
    after = (tmp_path / "o" / "a.mrc").read_bytes()
    assert len(after) == 1024 + volume.nbytes
    assert header != after[:1024]
    # the statistics
    assert all(76 <= i < 88 or 216 <= i < 220 for i in range(1024) if header[i] != after[i])


def test_big_endian_without_a_stamp(tmp_path):
    volume = np.random.default_rng(10).normal(0, 1, (4, 24, 20)).astype(np.float32)
    mrcfile.write(tmp_path / "a.mrc", volume.astype(">f4"), overwrite=True)
    content = bytearray((tmp_path / "a.mrc").read_bytes())
    assert content[212:214] == b"\x11\x11"  # mrcfile takes the order of the values for the header
    content[212:216] = bytes(4)
    (tmp_path / "a.mrc").write_bytes(content)
    assert np.array_equal(opened(tmp_path / "a.mrc").values[0].array, volume)
    (tmp_path / "a.mrc").write_bytes((tmp_path / "a.mrc").read_bytes()[:-4])
    with pytest.raises(InputError, match="is truncated: its header says 4 x 24 x 20 values"):
        opened(tmp_path / "a.mrc")


@pytest.mark.parametrize(("flags", "dtype"), [(0, "uint8"), (1, "int8"), (None, "int8")])
def test_bytes_are_signed_as_imod_says(flags, dtype, tmp_path, monkeypatch, checkpoint):
    volume = np.random.default_rng(0).integers(0, 256, (4, 24, 20)).astype(np.uint8)
    edits = {} if flags is None else {152: struct.pack("<2i", 1146047817, flags)}
    save_mrc(tmp_path / "a.mrc", volume.view(np.int8), edits)
    (values,) = opened(tmp_path / "a.mrc").values
    assert values.dtype == dtype
    assert np.array_equal(values.array, volume.view(dtype))
    assert denoise_to_o(monkeypatch, tmp_path / "a.mrc", checkpoint) == 0
    after = opened(tmp_path / "o" / "a.mrc").values[0]
    assert after.dtype == dtype
    if dtype == "uint8":
        assert abs(float(after.array.mean()) - float(volume.mean())) < 20


def test_gzip_by_name_and_inside_of_a_plain_name(tmp_path, monkeypatch, checkpoint):
    sky = np.random.default_rng(7).poisson(200, (40, 30)).astype(np.int16)
    fits.PrimaryHDU(sky).writeto(tmp_path / "whole.fits")
    content = (tmp_path / "whole.fits").read_bytes()
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(content))
    (tmp_path / "inside.fits").write_bytes(gzip.compress(content))
    mrcfile.write(tmp_path / "t.map", np.stack([sky] * 3).astype(np.float32), voxel_size=1)
    (tmp_path / "half.map.gz").write_bytes(gzip.compress((tmp_path / "t.map").read_bytes()))
    for name in ("a.fits.gz", "inside.fits", "half.map.gz"):
        assert np.array_equal(
            np.atleast_3d(opened(tmp_path / name).values[0].array.T)[..., 0].T, sky
        )
        asked = [tmp_path / name, "-o", tmp_path / "out", "--checkpoint", checkpoint]
        assert command(denoise.main, monkeypatch, *asked) == 0
        assert (tmp_path / "out" / name).read_bytes()[:2] == b"\x1f\x8b"
        result = opened(tmp_path / "out" / name).values[0]
        assert not np.array_equal(result.array, opened(tmp_path / name).values[0].array)
    assert opened(tmp_path / "half.map.gz").values[0].spacing == pytest.approx((1, 1, 1))
    (tmp_path / "cut.map.gz").write_bytes((tmp_path / "half.map.gz").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cut\.map\.gz: damaged or incomplete gzip data"):
        opened(tmp_path / "cut.map.gz")


def test_fits_with_an_unfilled_last_block(tmp_path, monkeypatch, checkpoint):
    asked = [tmp_path / "a.fits", "-o", tmp_path / "o", "--checkpoint", checkpoint]
    sky = np.random.default_rng(7).poisson(200, (100, 100)).astype(np.int16)
    fits.PrimaryHDU(sky).writeto(tmp_path / "a.fits", checksum=True)
    whole = (tmp_path / "a.fits").read_bytes()
    end = 2880 + sky.nbytes
    assert len(whole) > end
    (tmp_path / "a.fits").write_bytes(whole[:end])
    assert np.array_equal(opened(tmp_path / "a.fits").values[0].array, sky)
    assert command(denoise.main, monkeypatch, *asked) == 0
    assert opened(tmp_path / "o" / "a.fits").values[0].array.std() < 2 * sky.std()
    (tmp_path / "a.fits").write_bytes(whole[: end - 1])
    with pytest.raises(InputError, match=r"a\.fits: is truncated"):
        opened(tmp_path / "a.fits")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("first", ["picture", "mask"])
def test_masks_and_previews_inside_of_a_tiff_stay(
    compression, first, tmp_path, monkeypatch, checkpoint
):
    picture = np.random.default_rng(38).normal(1000, 60, (48, 52)).astype(np.uint16)
    pages = [
        (picture, {}),
        (picture > 950, {"subfiletype": 4, "photometric": "mask"}),
        (picture[::4, ::4], {"subfiletype": 1}),
        # like the picture but for its tag
        ((picture > 950).astype(np.uint16), {"extratags": [(254, 4, 1, 4, True)]}),
    ]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for array, options in pages if first == "picture" else [*pages[1:], pages[0]]:
            writer.write(
                np.ascontiguousarray(array), metadata=None, compression=compression, **options
            )
    opening = opened(tmp_path / "a.tif")
    assert [v.shape for v in opening.values] == [(48, 52)]
    assert np.array_equal(opening.values[0].array, picture)
    assert "2 masks, 1 page of reduced resolution left as they are" in opening.note
    assert denoise_to_o(monkeypatch, tmp_path / "a.tif", checkpoint) == 0
    with (
        tifffile.TiffFile(tmp_path / "a.tif") as before,
        tifffile.TiffFile(tmp_path / "o" / "a.tif") as after,
    ):
        for old, new in zip(before.pages, after.pages, strict=True):
            assert (old.shape, old.dtype, old.subfiletype, old.photometric) == (
                *(new.shape, new.dtype),
                *(new.subfiletype, new.photometric),
            )
            assert np.array_equal(old.asarray(), new.asarray()) == bool(old.subfiletype)


def odd_tiles(path: Path, picture: np.ndarray, height: int, width: int) -> None:
    """A TIFF whose tiles have sides that are no multiples of 16, as one converter writes them."""
    tiles = []
    for y in range(0, picture.shape[0], height):
        for x in range(0, picture.shape[1], width):
            tile = picture[y : y + height, x : x + width]
            padded = np.pad(tile, ((0, height - tile.shape[0]), (0, width - tile.shape[1])))
            tiles.append(zlib.compress(padded.tobytes()))
    shape = {
        256: picture.shape[1],
        257: picture.shape[0],
        258: 16,
        259: 8,
        262: 1,
        277: 1,
        322: width,
        323: height,
    }
    extra = 8 + 2 + 12 * (len(shape) + 2) + 4
    offsets = np.cumsum([extra + 8 * len(tiles), *map(len, tiles[:-1])]).tolist()
    entries = b"".join(struct.pack("<HHIHH", code, 3, 1, value, 0) for code, value in shape.items())
    entries += struct.pack("<HHII", 324, 4, len(tiles), extra)
    entries += struct.pack("<HHII", 325, 4, len(tiles), extra + 4 * len(tiles))
    path.write_bytes(
        struct.pack("<2sHIH", b"II", 42, 8, len(shape) + 2)
        + entries
        + struct.pack(f"<I{2 * len(tiles)}I", 0, *offsets, *map(len, tiles))
        + b"".join(tiles)
    )


def test_tiles_of_odd_sides_are_rounded_up(tmp_path, monkeypatch, checkpoint, capsys):
    picture = np.random.default_rng(38).normal(1000, 60, (192, 208)).astype(np.uint16)
    odd_tiles(tmp_path / "a.tif", picture, 100, 120)
    assert np.array_equal(opened(tmp_path / "a.tif").values[0].array, picture)
    assert denoise_to_o(monkeypatch, tmp_path / "a.tif", checkpoint) == 0
    assert "its tiles of 100 x 120 became 112 x 128" in capsys.readouterr().out
    with tifffile.TiffFile(tmp_path / "o" / "a.tif") as file:
        assert file.pages[0].tile == (112, 128)
        assert abs(float(file.asarray().mean()) - 1000) < 50


def test_what_cannot_be_written_again_is_found_before_the_work(
    tmp_path, monkeypatch, checkpoint, capsys
):
    picture = np.random.default_rng(38).normal(1000, 60, (48, 52)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", picture, compression="zstd")
    compress = tifffile.TIFF.COMPRESSORS

    class Without:
        def __getitem__(self, key: int) -> object:
            if int(key) == 50000:
                raise ValueError("no zstd here")
            return compress[key]

        def __contains__(self, key: int) -> bool:
            return key in compress

    monkeypatch.setitem(vars(tifffile.TIFF), "COMPRESSORS", Without())
    assert "its ZSTD compression became deflate" in opened(tmp_path / "a.tif").note
    assert denoise_to_o(monkeypatch, tmp_path / "a.tif", checkpoint) == 0
    with tifffile.TiffFile(tmp_path / "o" / "a.tif") as file:
        assert file.pages[0].compression.name == "ADOBE_DEFLATE"


def ct_series(folder: Path, slopes: tuple[float, ...]) -> np.ndarray:
    """Slices of a scanner without endings, in another order than their names; values in HU."""
    folder.mkdir()
    series, draws = pydicom.uid.generate_uid(), np.random.default_rng(0)
    planes = []
    for k, slope in enumerate(slopes):
        dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
        dataset.SeriesInstanceUID, dataset.InstanceNumber, dataset.RescaleSlope = (
            series,
            k + 1,
            slope,
        )
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = (
            pydicom.uid.generate_uid()
        )
        dataset.ImagePositionPatient = [0, 0, -2.5 * k]
        stored = (draws.normal(1000 + 100 * k, 20, (24, 20)) / slope).round().astype("<i2")
        dataset.Rows, dataset.Columns, dataset.PixelData = 24, 20, stored.tobytes()
        dataset.save_as(folder / f"IM{k:04d}")
        planes.insert(0, stored * slope - 1024 if len(set(slopes)) > 1 else stored)
    return np.stack(planes)


@pytest.mark.parametrize("slopes", [(1.0,) * 5, (1.0, 0.5, 0.25, 2.0)])
def test_a_dicom_series_is_a_volume_and_comes_out_derived(
    slopes, tmp_path, monkeypatch, checkpoint
):
    volume = ct_series(tmp_path / "scan", slopes)
    (values,) = opened(tmp_path / "scan").values
    assert (values.axes, values.unit) == ("DHW", (1.0, -1024.0 if slopes[1] == 1 else 0.0))
    assert np.allclose(values.array, volume)
    assert values.spacing == pytest.approx((2.5, 0.661468, 0.661468))
    before = {p.name: p.read_bytes() for p in (tmp_path / "scan").iterdir()}
    assert denoise_to_o(monkeypatch, tmp_path / "scan", checkpoint) == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "scan").iterdir()} == before
    made = [pydicom.dcmread(p) for p in sorted((tmp_path / "o" / "scan").iterdir())]
    old = [pydicom.dcmread(p) for p in sorted((tmp_path / "scan").iterdir())]
    assert len({d.SeriesInstanceUID for d in made}) == 1
    assert made[0].SeriesInstanceUID != old[0].SeriesInstanceUID
    for a, b in zip(old, made, strict=True):
        assert b.SOPInstanceUID == b.file_meta.MediaStorageSOPInstanceUID != a.SOPInstanceUID
        assert b.ImageType[0] == "DERIVED"
        assert "n2n_lightning" in b.DerivationDescription
        assert b.SourceImageSequence[0].ReferencedSOPInstanceUID == a.SOPInstanceUID
        changed = {e.keyword for e in b if e.keyword and e != a.get(e.tag)}
        assert changed <= {
            *(
                "ImageType",
                "SOPInstanceUID",
                "SeriesInstanceUID",
                "PixelData",
                "DerivationDescription",
            ),
            *("SourceImageSequence", "SmallestImagePixelValue", "LargestImagePixelValue"),
        }
        assert (b.PatientName, b.StudyInstanceUID, b.RescaleSlope) == (
            a.PatientName,
            a.StudyInstanceUID,
            a.RescaleSlope,
        )
        assert not np.array_equal(a.pixel_array, b.pixel_array)
    assert np.abs(opened(tmp_path / "o" / "scan").values[0].array - volume).mean() < 40
    assert len(read_single(str(tmp_path / "scan"), dims=3).names) == 1
    assert len(read_single(str(tmp_path), dims=3).names) == 2  # beside what was written


def test_dicom_of_other_syntaxes_and_kinds(tmp_path):
    for name in (
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "JPEG2000.dcm",
        "image_dfl.dcm",
        "SC_rgb_rle.dcm",
    ):
        source = Path(get_testdata_file(name, download=False))
        picture = opened(source)
        expected = pydicom.dcmread(source).pixel_array
        assert np.array_equal(picture.values[0].array, expected)
        with picture.written(tmp_path / name) as (result,):
            result[...] = picture.values[0].array
        after = pydicom.dcmread(tmp_path / name)
        assert np.array_equal(after.pixel_array, expected)
        assert not after.file_meta.TransferSyntaxUID.is_encapsulated
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    for changes, message in (
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "its pixels are PALETTE COLOR"),
        ({"BitsAllocated": 1}, "segmentation or values of 1 bits"),
    ):
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(tmp_path / "no.dcm")
        with pytest.raises(InputError, match=message):
            opened(tmp_path / "no.dcm")
        dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    dataset.BitsStored, dataset.HighBit, dataset.PixelPaddingValue = 12, 11, -2000
    dataset.save_as(tmp_path / "twelve.dcm")
    picture = opened(tmp_path / "twelve.dcm")
    assert picture.values[0].nodata_values == (-2000.0,)
    with picture.written(tmp_path / "out.dcm") as (result,):
        result[...] = 5000
    # no more than the stored bits hold
    assert (pydicom.dcmread(tmp_path / "out.dcm").pixel_array == 2047).all()


def test_imaris_files_lose_the_padding_of_their_chunks(tmp_path, monkeypatch, checkpoint):
    stack = np.random.default_rng(0).integers(90, 110, (2, 2, 3, 24, 20)).astype(np.uint16)
    with h5py.File(tmp_path / "cells.ims", "w") as file:
        for t in range(2):
            for c in range(2):
                group = file.create_group(f"DataSet/ResolutionLevel 0/TimePoint {t}/Channel {c}")
                for axis, side in zip("ZYX", stack.shape[2:], strict=True):
                    group.attrs[f"ImageSize{axis}"] = np.array(list(str(side)), "S1")
                padded = np.zeros((4, 32, 32), np.uint16)
                padded[:3, :24, :20] = stack[t, c]
                group["Data"] = padded
        image = file.create_group("DataSetInfo/Image")
        for number, side in enumerate((20, 24, 3)):
            image.attrs[f"ExtMin{number}"] = np.array(list("0"), "S1")
            image.attrs[f"ExtMax{number}"] = np.array(list(str(side * 0.5)), "S1")
    (values,) = opened(tmp_path / "cells.ims").values
    assert (values.axes, values.spacing) == ("TCDHW", (0.5, 0.5, 0.5))
    assert np.array_equal(values.array, stack)
    asked = [tmp_path / "cells.ims", "-o", tmp_path / "out", "--checkpoint", checkpoint]
    assert command(denoise.main, monkeypatch, *asked) == 0
    with tifffile.TiffFile(tmp_path / "out" / "cells.tif") as file:
        assert (file.series[0].axes, file.series[0].shape) == ("TCZYX", stack.shape)
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata


@pytest.mark.walk
@pytest.mark.parametrize(
    ("name", "codec", "pixels", "shape"),
    [
        ("grey.avi", "rawvideo", "gray", (5, 32, 48)),
        ("grey.mkv", "ffv1", "gray16le", (5, 32, 48)),
        ("colour.mkv", "ffv1", "bgr0", (5, 32, 48, 3)),
        ("equal.mkv", "ffv1", "bgr0", (5, 32, 48)),
        ("lossy.mp4", "mpeg4", "yuv420p", (5, 32, 48, 3)),
    ],
)
def test_videos_become_tiff(name, codec, pixels, shape, tmp_path, monkeypatch, checkpoint, capsys):
    draws = np.random.default_rng(0)
    deep = pixels == "gray16le"
    frames = draws.integers(0, 60_000 if deep else 250, shape).astype(
        np.uint16 if deep else np.uint8
    )
    given = np.stack([frames] * 3, -1) if name == "equal.mkv" else frames
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, pixels
        for frame in given:
            kind = pixels if frame.ndim == 2 else "rgb24"
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), kind))
            )
        container.mux(stream.encode())
    (values,) = opened(tmp_path / name).values
    assert values.shape == shape
    assert values.axes == ("THWC" if len(shape) == 4 else "THW")
    if codec != "mpeg4":
        assert np.array_equal(values.array, frames)
    assert (
        command(
            denoise.main,
            monkeypatch,
            tmp_path / name,
            "-o",
            tmp_path / "o",
            "--checkpoint",
            checkpoint,
        )
        == 0
    )
    assert "as OME-TIFF" in capsys.readouterr().out
    assert opened(tmp_path / "o" / f"{Path(name).stem}.tif").values[0].shape == shape


def test_other_kinds_name_what_converts_them(tmp_path, monkeypatch, checkpoint, capsys):
    for name in ("a.lif", "b.dng", "c.heic", "d.wmv", "e.mgz", "notes.xyz", "f.fits.fz"):
        (tmp_path / name).write_bytes(bytes(200))
    asked = ["-o", tmp_path / "out", "--checkpoint", checkpoint]
    for name, word in (
        ("a.lif", "Fiji"),
        ("b.dng", "darktable"),
        ("c.heic", "magick"),
        ("d.wmv", "ffmpeg"),
    ):
        assert command(denoise.main, monkeypatch, tmp_path / name, *asked) == 1
        assert word in capsys.readouterr().err
    np.save(tmp_path / "picture.npy", np.random.default_rng(0).random((24, 20), np.float32))
    assert command(denoise.main, monkeypatch, tmp_path, *asked) == 0
    said = capsys.readouterr().out
    assert "left alone: a.lif: Fiji" in said
    assert "left alone: notes.xyz\n" in said
    (tmp_path / "head.rec").write_bytes(bytes(2000))
    (tmp_path / "head.PAR").write_text("# === DATA DESCRIPTION FILE ===")
    with pytest.raises(InputError, match="PAR/REC file is not read; dcm2niix"):
        opened(tmp_path / "head.rec")
