"""One file in, one file out: every kind of file and type is trained on, scored and denoised, and stays what it is."""

import json
import zipfile
from pathlib import Path

import h5py
import imagecodecs
import netpbmfile
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from n2n_lightning import denoise, evaluate
from n2n_lightning.data import OwnPairs
from n2n_lightning.data.reading import read_picture
from n2n_lightning.files import InputError
from n2n_lightning.formats import ENDINGS, PICTURES, TYPES, opened
from n2n_lightning.networks import ResidualUNet


def scenes(count: int, channels: int, dtype: str) -> np.ndarray:
    """Random pictures, (N, H, W) or (N, H, W, C), in a type's own range."""
    draws = np.random.default_rng(5)
    shape = (count, 24, 20) if channels == 1 else (count, 24, 20, channels)
    if dtype.startswith("float"):
        return draws.random(shape).astype(dtype)
    return draws.integers(0, min(np.iinfo(dtype).max, 60_000), shape, endpoint=True).astype(dtype)


def save(path: Path, array: np.ndarray) -> None:
    """Writes a file of the kind that its name says, with a library of that kind, not with ours."""
    suffix = path.suffix
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".npz":
        np.savez_compressed(path, noisy=array, other=np.arange(3))
    elif suffix in (".h5", ".hdf5", ".hdf"):
        with h5py.File(path, "w") as file:
            file.create_dataset("run/noisy", data=array, compression="gzip" if suffix == ".h5" else None)
            file["other"] = np.arange(3)
            file["run/noisy"].attrs["unit"] = "counts"
    elif suffix in (".pt", ".pth", ".pkl"):
        torch.save((torch.from_numpy(array), torch.from_numpy(array[::-1].copy())), path)
    elif suffix in (".tif", ".tiff"):
        colour = array.shape[-1] in (3, 4)
        tifffile.imwrite(path, array, photometric="rgb" if colour else "minisblack", compression=None)
    elif suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(array))
    elif suffix in (".pgm", ".ppm", ".pnm", ".pam"):
        kind = {"magicnumber": "P7"} if suffix == ".pam" else {}
        netpbmfile.imwrite(path, array, maxval=np.iinfo(array.dtype).max, **kind)
    else:
        options = {"lossless": True} if suffix == ".webp" else {}
        Image.fromarray(array).save(path, **options)


def types_of(ending: str) -> tuple[str, ...]:
    """The types of values that a kind of file can hold."""
    if ending in (".png", ".pgm", ".ppm", ".pnm", ".pam"):
        return ("uint8", "uint16")
    if ending in (".jpg", ".jpeg", ".bmp", ".webp"):
        return ("uint8",)
    return TYPES


WALK = [(ending, dtype, channels) for ending in ENDINGS for dtype in types_of(ending) for channels in (1, 3)]
WALK = [w for w in WALK if (w[0], w[2]) not in ((".pgm", 3), (".ppm", 1), (".webp", 1))]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[int, Path]:
    """Small networks for grey and for colour images, with random weights."""
    torch.manual_seed(0)
    found = {}
    for channels in (1, 3):
        network = ResidualUNet(channels, 2, 2)
        torch.nn.init.normal_(network.output.weight, std=0.01)
        spec = {"_target_": "n2n_lightning.networks.ResidualUNet", "channels": channels, "width": 2, "levels": 2}
        state = {f"network.{key}": value for key, value in network.state_dict().items()}
        found[channels] = tmp_path_factory.mktemp("checkpoints") / f"{channels}.ckpt"
        torch.save({"state_dict": state, "n2n_lightning": {"format": 1, "model": spec, "scale": None}}, found[channels])
    return found


def command(main, monkeypatch, *arguments: object) -> int:
    """A command in this process, which takes a hundredth of the time of a process of its own."""
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    return main()


def part_of(ending: str) -> str:
    """What names the array in a file with several."""
    return {".h5": ":run/noisy", ".hdf5": ":run/noisy", ".hdf": ":run/noisy", ".npz": ":noisy"}.get(ending, "")


@pytest.mark.parametrize(("ending", "dtype", "channels"), WALK)
def test_what_is_trained_on_can_be_scored_and_denoised(ending, dtype, channels, tmp_path, monkeypatch, checkpoints):
    array, part = scenes(6, channels, dtype), part_of(ending)
    if ending in PICTURES and ending != ".npy":  # a folder with an image in each file
        for side in "ab":
            (tmp_path / side).mkdir()
            for i, image in enumerate(array):
                save(tmp_path / side / f"{i}{ending}", image)
        first, second, file = (str(tmp_path / name) for name in ("a", "b", f"a/0{ending}"))
    else:  # a file with all images
        for name in "ab":
            save(tmp_path / f"{name}{ending}", array)
        first, second = (f"{tmp_path / name}{ending}{part}" for name in "ab")
        file = first

    if ending in (".pt", ".pth", ".pkl"):  # both captures are in the file, and images to score are one
        data = OwnPairs(first, batch_size=2)
        for name in "ab":
            torch.save(torch.from_numpy(array), f"{tmp_path / name}1{ending}")
        first, second = (f"{tmp_path / name}1{ending}" for name in "ab")
    else:
        data = OwnPairs(first, second, batch_size=2)
    data.setup()
    assert data.val.noisy.shape == (1, channels, 24, 20)
    if ending not in (".jpg", ".jpeg"):
        stored = data.val.noisy[0].numpy()
        assert stored.dtype == dtype
        assert np.array_equal(stored, array[-1][None] if channels == 1 else array[-1].transpose(2, 0, 1))
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert batch["input"].isfinite().all()

    scored = ["--data", "pairs", "--val-noisy", first, "--clean", second, "--json", tmp_path / "scores.json"]
    assert command(evaluate.main, monkeypatch, checkpoints[channels], *scored) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert scores[str(checkpoints[channels])]["images"] == 6

    asked = [file, "-o", tmp_path / "out", "--checkpoint", checkpoints[channels]]
    assert command(denoise.main, monkeypatch, *asked) == 0
    before, after = opened(file), opened(f"{tmp_path / 'out'}/{Path(file.removesuffix(part)).name}{part}")
    assert len(before.values) == len(after.values) == (2 if before.tuples else 1)
    for old, new in zip(before.values, after.values, strict=True):
        assert (old.array.shape, old.array.dtype, old.axes) == (new.array.shape, new.array.dtype, new.axes)
        assert not np.array_equal(old.array, new.array)


def test_the_other_arrays_of_a_file_stay(tmp_path, monkeypatch, checkpoints):
    array = scenes(3, 1, "uint16")
    for ending in (".npz", ".h5", ".hdf5"):
        path, result = tmp_path / f"a{ending}", tmp_path / "out" / f"a{ending}"
        save(path, array)
        asked = [f"{path}{part_of(ending)}", "-o", tmp_path / "out", "--checkpoint", checkpoints[1]]
        assert command(denoise.main, monkeypatch, *asked) == 0
        if ending == ".npz":
            with np.load(result) as arrays:
                assert set(arrays) == {"noisy", "other"}
                assert np.array_equal(arrays["other"], np.arange(3))
            with zipfile.ZipFile(path) as old, zipfile.ZipFile(result) as new:
                assert [m.compress_type for m in old.infolist()] == [m.compress_type for m in new.infolist()]
        else:
            with h5py.File(path) as old, h5py.File(result) as new:
                assert np.array_equal(new["other"], np.arange(3))
                assert new["run/noisy"].attrs["unit"] == "counts"
                assert new["run/noisy"].compression == old["run/noisy"].compression


def test_two_arrays_of_a_file_cannot_become_one_file(tmp_path, monkeypatch, checkpoints, capsys):
    save(tmp_path / "a.npz", scenes(3, 1, "uint16"))
    both = [f"{tmp_path}/a.npz:noisy", f"{tmp_path}/a.npz:other"]
    with pytest.raises(InputError, match=r"a\.npz:noisy and .*a\.npz:other would both become"):
        command(denoise.main, monkeypatch, *both, "-o", tmp_path / "out", "--checkpoint", checkpoints[1])
    assert command(denoise.main, monkeypatch, tmp_path / "a.npz", "-o", tmp_path / "out") == 1
    assert "holds several arrays; name one: a.npz:noisy, a.npz:other" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def grey_palette(path: Path, array: np.ndarray, ramp: np.ndarray) -> None:
    tifffile.imwrite(path, array, photometric="palette", colormap=np.stack([ramp] * 3).astype(np.uint16))


def test_a_grey_palette_is_grey_and_others_are_refused(tmp_path, monkeypatch, checkpoints):
    array = scenes(1, 1, "uint8")[0]
    for name, ramp in (("imagej", np.arange(256) * 257), ("other", np.arange(256) * 256)):
        path = tmp_path / f"{name}.tif"
        grey_palette(path, array, ramp)
        assert np.array_equal(read_picture(path)[0].numpy(), array)
        assert command(denoise.main, monkeypatch, path, "-o", tmp_path / "out", "--checkpoint", checkpoints[1]) == 0
        with tifffile.TiffFile(tmp_path / "out" / path.name) as file:
            assert file.pages[0].photometric.name == "PALETTE"
            assert np.array_equal(file.pages[0].colormap[0], ramp)
    for name, ramp in (
        ("down", np.arange(256)[::-1] * 257),
        ("random", np.random.default_rng(0).permutation(65536)[:256]),
    ):
        grey_palette(tmp_path / f"{name}.tif", array, ramp)
        with pytest.raises(InputError, match="is a palette TIFF"):
            read_picture(tmp_path / f"{name}.tif")


def test_twelve_bits(tmp_path, monkeypatch, checkpoints):
    """Packed, as cameras write them: read as they are, written as 16 bits, which is said."""
    array = np.random.default_rng(0).integers(0, 4096, (24, 20)).astype(np.uint16)
    packed = imagecodecs.packints_encode(array, 12) if hasattr(imagecodecs, "packints_encode") else None
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        page = file.pages[0]
        file.filehandle.seek(page.dataoffsets[0])
        file.filehandle.write(packed if packed is not None else _packed(array))
        page.tags[258].overwrite(12)
        page.tags[279].overwrite(24 * 30)
    assert np.array_equal(read_picture(tmp_path / "a.tif")[0].numpy(), array)
    asked = [tmp_path / "a.tif", "-o", tmp_path / "out", "--checkpoint", checkpoints[1]]
    assert command(denoise.main, monkeypatch, *asked) == 0
    picture = opened(tmp_path / "a.tif")
    assert picture.note == "its 12 bit became 16"
    assert opened(tmp_path / "out" / "a.tif").values[0].array.dtype == np.uint16


def _packed(array: np.ndarray) -> bytes:
    """Two values of 12 bits in three bytes, rows of whole bytes."""
    first, second = array[:, ::2], array[:, 1::2]
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8).tobytes()


@pytest.mark.parametrize(("ending", "largest"), [(".pgm", 4095), (".pgm", 100), (".pam", 1023)])
def test_the_largest_value_of_a_map_stays(ending, largest, tmp_path, monkeypatch, checkpoints):
    dtype = np.uint8 if largest < 256 else np.uint16
    array = np.random.default_rng(0).integers(0, largest, (24, 20), endpoint=True).astype(dtype)
    kind = {"magicnumber": "P7"} if ending == ".pam" else {}
    netpbmfile.imwrite(tmp_path / f"a{ending}", array, maxval=largest, **kind)
    assert np.array_equal(read_picture(tmp_path / f"a{ending}")[0].numpy(), array)
    asked = [tmp_path / f"a{ending}", "-o", tmp_path / "out", "--checkpoint", checkpoints[1]]
    assert command(denoise.main, monkeypatch, *asked) == 0
    with netpbmfile.NetpbmFile(tmp_path / "out" / f"a{ending}") as file:
        assert file.maxval == largest
        assert file.asarray().max() <= largest


def test_pictures_with_metadata_and_transparency(tmp_path, monkeypatch, checkpoints):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), np.uint8)
    exif = Image.Exif()
    exif[271] = "a camera"
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, exact=True, exif=exif)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "a.bmp", dpi=(300, 300))
    netpbmfile.imwrite(tmp_path / "a.pam", pixels, magicnumber="P7", maxval=255, tupltype="RGB_ALPHA")
    for name in ("a.webp", "a.bmp", "a.pam"):
        assert read_picture(tmp_path / name).shape == (3, 24, 20)
        asked = [tmp_path / name, "-o", tmp_path / "out", "--checkpoint", checkpoints[3]]
        assert command(denoise.main, monkeypatch, *asked) == 0
        result = opened(tmp_path / "out" / name).values[0].array
        assert np.array_equal(result[..., 3:], pixels[..., 3 : result.shape[2]]), name
        assert not np.array_equal(result[..., :3], pixels[..., :3])
    with Image.open(tmp_path / "out" / "a.webp") as image:
        assert dict(image.getexif()) == {271: "a camera"}
    Image.fromarray(pixels).save(tmp_path / "deep.bmp")
    assert opened(tmp_path / "deep.bmp").note == "without the fourth byte of its pixels"
    with Image.open(tmp_path / "out" / "a.bmp") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    for name, options in (("moving.webp", {"save_all": True, "append_images": [Image.new("RGB", (8, 8), 9)]}),):
        Image.new("RGB", (8, 8)).save(tmp_path / name, **options)
        with pytest.raises(InputError, match="is an animation"):
            opened(tmp_path / name)
    netpbmfile.imwrite(tmp_path / "bits.pam", np.eye(8, dtype=bool), magicnumber="P4", maxval=1)
    with pytest.raises(InputError, match="is a bitmap or holds floats"):
        opened(tmp_path / "bits.pam")
