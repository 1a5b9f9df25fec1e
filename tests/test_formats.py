"""Every kind of file and type is trained on, scored and denoised, and keeps its format."""

import gzip
import json
import re
import shutil
import sys
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import astropy
import czifile
import h5py
import imagecodecs
import mrcfile
import nd2
import netpbmfile
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
import torch
import zarr
from astropy.io import fits
from PIL import Image

from n2n_lightning import denoise, evaluate
from n2n_lightning.data import PairedImages
from n2n_lightning.data.reading_files import read_picture
from n2n_lightning.files import InputError
from n2n_lightning.formats import BECOMES, ENDINGS, PICTURES, TYPES, opened
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
    if suffix == ".gz" and not path.name.endswith(".nii.gz"):
        plain = path.with_suffix("")
        save(plain, array)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    elif suffix in (".dcm", ".dicom", ".ima"):
        save_dicom(path, array)
    elif suffix == ".npy":
        np.save(path, array)
    elif suffix == ".npz":
        np.savez_compressed(path, noisy=array, other=np.arange(3))
    elif suffix in (".h5", ".hdf5", ".hdf"):
        with h5py.File(path, "w") as file:
            file.create_dataset(
                "run/noisy", data=array, compression="gzip" if suffix == ".h5" else None
            )
            file["other"] = np.arange(3)
            file["run/noisy"].attrs["unit"] = "counts"
    elif suffix in (".pt", ".pth", ".pkl"):
        torch.save((torch.from_numpy(array), torch.from_numpy(array[::-1].copy())), path)
    elif suffix in (".tif", ".tiff"):
        colour = array.shape[-1] in (3, 4)
        tifffile.imwrite(
            path, array, photometric="rgb" if colour else "minisblack", compression=None
        )
    elif suffix in (".mrc", ".map", ".rec", ".mrcs", ".st", ".ali", ".preali"):
        with mrcfile.new(path) as file:
            file.set_data(array)
            file.voxel_size = 3.0
    elif suffix in (".nii", ".gz"):
        nibabel.save(nibabel.Nifti1Image(array.T, np.diag([2.0, 2, 3, 1])), path)
    elif suffix in (".fits", ".fit", ".fts"):
        header = fits.Header({"OBJECT": "M 13", "EXPTIME": 30.0})
        fits.HDUList([fits.PrimaryHDU(array, header)]).writeto(path)
    elif suffix == ".zarr":
        store = zarr.create_array(
            store=str(path), shape=array.shape, chunks=(4, 16, 16), dtype=array.dtype
        )
        store[...] = array
        store.attrs["unit"] = "counts"
    elif suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(array))
    elif suffix in (".pgm", ".ppm", ".pnm", ".pam"):
        kind = {"magicnumber": "P7"} if suffix == ".pam" else {}
        netpbmfile.imwrite(path, array, maxval=np.iinfo(array.dtype).max, **kind)
    else:
        options = {"lossless": True} if suffix == ".webp" else {}
        Image.fromarray(array).save(path, **options)


def save_dicom(path: Path, array: np.ndarray) -> None:
    """One secondary capture, of one frame or several, of a series of its own."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = (
        pydicom.uid.generate_uid(),
        pydicom.uid.generate_uid(),
    )
    dataset.PatientName, dataset.ImageType = "Doe^Jane", ["ORIGINAL", "PRIMARY"]
    colour = array.shape[-1] == 3
    *frames, height, width = array.shape[:-1] if colour else array.shape
    dataset.Rows, dataset.Columns = height, width
    if frames:
        dataset.NumberOfFrames = frames[0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (
        (3, "RGB") if colour else (1, "MONOCHROME2")
    )
    if colour:
        dataset.PlanarConfiguration = 0
    bits = 8 * array.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelData = array.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def types_of(ending: str) -> tuple[str, ...]:
    """The types of values that a kind of file can hold."""
    if ending.endswith(".gz") and ending != ".nii.gz":
        return ("int16", "float32")
    if ending in (".dicom", ".ima", ".fts", ".ali", ".preali"):
        return ("uint16",)
    if ending == ".dcm":
        return ("uint8", "int8", "uint16", "int16", "uint32", "int32")
    if ending in (".png", ".pgm", ".ppm", ".pnm", ".pam"):
        return ("uint8", "uint16")
    if ending in (".jpg", ".jpeg", ".bmp", ".webp"):
        return ("uint8",)
    if ending in (".mrc", ".map", ".rec", ".mrcs", ".st"):
        return ("int8", "int16", "uint16", "float16", "float32")
    if ending in (".nii", ".nii.gz"):
        return ("uint8", "int16", "uint16", "float32", "float64")
    if ending in (".fits", ".fit"):
        return ("uint8", "int16", "uint16", "int32", "float32", "float64")
    return TYPES


FLAT = [ending for ending in ENDINGS if ending not in BECOMES]
# Kinds of files for volumes and of instruments, which hold no colours; as images here, their
# planes.
GREY = tuple(e for e, kind in ENDINGS.items() if kind in ("Mrc", "Nifti", "Fits", "Zarr"))
WALK = [
    (ending, dtype, channels)
    for ending in FLAT
    for dtype in types_of(ending)
    for channels in (1, 3)
]
WALK = [w for w in WALK if w[0] not in GREY or w[2] == 1]
WALK = [w for w in WALK if ENDINGS[w[0]] != "Dicom" or w[1] == "uint8" or w[2] == 1]
WALK = [w for w in WALK if (w[0], w[2]) not in ((".pgm", 3), (".ppm", 1), (".webp", 1))]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[int, Path]:
    """Small networks for grey and for colour images, with random weights."""
    torch.manual_seed(0)
    found = {}
    for channels in (1, 3):
        network = ResidualUNet(channels, 2, 2)
        torch.nn.init.normal_(network.output.weight, std=0.01)
        spec = {
            "_target_": "n2n_lightning.networks.ResidualUNet",
            "channels": channels,
            "width": 2,
            "levels": 2,
        }
        state = {f"network.{key}": value for key, value in network.state_dict().items()}
        found[channels] = tmp_path_factory.mktemp("checkpoints") / f"{channels}.ckpt"
        torch.save(
            {"state_dict": state, "n2n_lightning": {"format": 1, "model": spec, "scale": None}},
            found[channels],
        )
    return found


def command(main, monkeypatch, *arguments: object) -> int:
    """A command in this process, which takes a hundredth of the time of a process of its own."""
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    return main()


def part_of(ending: str) -> str:
    """What names the array in a file with several."""
    return {".h5": ":run/noisy", ".hdf5": ":run/noisy", ".hdf": ":run/noisy", ".npz": ":noisy"}.get(
        ending, ""
    )


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "dtype", "channels"), WALK)
def test_what_is_trained_on_can_be_scored_and_denoised(
    ending, dtype, channels, tmp_path, monkeypatch, checkpoints
):
    array, part = scenes(6, channels, dtype), part_of(ending)
    if ending in PICTURES and ending not in (".npy", *GREY):  # a folder with an image in each file
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

    # both captures are in the file, and images to score are one
    if ending in (".pt", ".pth", ".pkl"):
        data = PairedImages(first, batch_size=2)
        for name in "ab":
            torch.save(torch.from_numpy(array), f"{tmp_path / name}1{ending}")
        first, second = (f"{tmp_path / name}1{ending}" for name in "ab")
    else:
        data = PairedImages(first, second, batch_size=2, dims=2)
    data.setup()
    assert data.val.noisy.shape == (1, channels, 24, 20)
    if ending not in (".jpg", ".jpeg"):
        stored = data.val.noisy[0].numpy()
        assert stored.dtype == dtype
        assert np.array_equal(
            stored, array[-1][None] if channels == 1 else array[-1].transpose(2, 0, 1)
        )
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert batch["input"].isfinite().all()

    scored = [
        "--data",
        "pairs",
        "--val-noisy",
        first,
        "--clean",
        second,
        "--json",
        tmp_path / "scores.json",
    ]
    assert command(evaluate.main, monkeypatch, checkpoints[channels], *scored) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert scores[str(checkpoints[channels])]["images"] == 6

    asked = [file, "-o", tmp_path / "out", "--checkpoint", checkpoints[channels]]
    assert command(denoise.main, monkeypatch, *asked) == 0
    before, after = (
        opened(file),
        opened(f"{tmp_path / 'out'}/{Path(file.removesuffix(part)).name}{part}"),
    )
    assert len(before.values) == len(after.values) == (2 if before.tuples else 1)
    for old, new in zip(before.values, after.values, strict=True):
        assert (old.array.shape, old.array.dtype, old.axes) == (
            new.array.shape,
            new.array.dtype,
            new.axes,
        )
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
                assert [m.compress_type for m in old.infolist()] == [
                    m.compress_type for m in new.infolist()
                ]
        else:
            with h5py.File(path) as old, h5py.File(result) as new:
                assert np.array_equal(new["other"], np.arange(3))
                assert new["run/noisy"].attrs["unit"] == "counts"
                assert new["run/noisy"].compression == old["run/noisy"].compression


def test_two_arrays_of_a_file_cannot_become_one_file(tmp_path, monkeypatch, checkpoints, capsys):
    save(tmp_path / "a.npz", scenes(3, 1, "uint16"))
    both = [f"{tmp_path}/a.npz:noisy", f"{tmp_path}/a.npz:other"]
    with pytest.raises(InputError, match=r"a\.npz:noisy and .*a\.npz:other would both become"):
        command(
            denoise.main, monkeypatch, *both, "-o", tmp_path / "out", "--checkpoint", checkpoints[1]
        )
    assert command(denoise.main, monkeypatch, tmp_path / "a.npz", "-o", tmp_path / "out") == 1
    assert "holds several arrays; name one: a.npz:noisy, a.npz:other" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def grey_palette(path: Path, array: np.ndarray, ramp: np.ndarray) -> None:
    tifffile.imwrite(
        path, array, photometric="palette", colormap=np.stack([ramp] * 3).astype(np.uint16)
    )


def test_a_grey_palette_is_grey_and_others_are_refused(tmp_path, monkeypatch, checkpoints):
    array = scenes(1, 1, "uint8")[0]
    for name, ramp in (("imagej", np.arange(256) * 257), ("other", np.arange(256) * 256)):
        path = tmp_path / f"{name}.tif"
        grey_palette(path, array, ramp)
        assert np.array_equal(read_picture(path)[0].numpy(), array)
        assert (
            command(
                denoise.main,
                monkeypatch,
                path,
                "-o",
                tmp_path / "out",
                "--checkpoint",
                checkpoints[1],
            )
            == 0
        )
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
    packed = (
        imagecodecs.packints_encode(array, 12) if hasattr(imagecodecs, "packints_encode") else None
    )
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
    return (
        np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
        .astype(np.uint8)
        .tobytes()
    )


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
    netpbmfile.imwrite(
        tmp_path / "a.pam", pixels, magicnumber="P7", maxval=255, tupltype="RGB_ALPHA"
    )
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
    for name, options in (
        ("moving.webp", {"save_all": True, "append_images": [Image.new("RGB", (8, 8), 9)]}),
    ):
        Image.new("RGB", (8, 8)).save(tmp_path / name, **options)
        with pytest.raises(InputError, match="is an animation"):
            opened(tmp_path / name)
    netpbmfile.imwrite(tmp_path / "bits.pam", np.eye(8, dtype=bool), magicnumber="P4", maxval=1)
    with pytest.raises(InputError, match="is a bitmap or holds floats"):
        opened(tmp_path / "bits.pam")


def denoised(path: Path, monkeypatch, checkpoint: Path) -> Path:
    out = path.parent / "out"
    assert command(denoise.main, monkeypatch, path, "-o", out, "--checkpoint", checkpoint) == 0
    return out / path.name


def bytes_of(path: Path, count: int) -> bytes:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.read(count)


@pytest.mark.parametrize("name", ["example4d.nii.gz", "functional.nii", "example_nifti2.nii.gz"])
def test_scanner_files_keep_their_header_byte_by_byte(name, tmp_path, monkeypatch, checkpoints):
    source = Path(nibabel.__file__).parent / "tests" / "data" / name
    shutil.copyfile(source, tmp_path / name)
    result = denoised(tmp_path / name, monkeypatch, checkpoints[1])
    before, after = nibabel.load(source), nibabel.load(result)
    assert before.header == after.header
    assert np.array_equal(before.affine, after.affine)
    offset = int(before.dataobj.offset)
    assert bytes_of(source, offset) == bytes_of(result, offset)  # extensions and all
    old, new = before.get_fdata(), after.get_fdata()
    assert not np.array_equal(old, new)
    assert np.abs(new.mean() - old.mean()) < 0.5 * old.std()  # random weights


@pytest.mark.parametrize(
    "name", ["test0.fits", "scale.fits", "checksum.fits", "o4sp040b0_raw.fits", "arange.fits"]
)
def test_files_of_telescopes_keep_their_headers_and_tables(
    name, tmp_path, monkeypatch, checkpoints
):
    source = Path(astropy.__file__).parent / "io" / "fits" / "tests" / "data" / name
    if not source.exists():
        pytest.skip(f"this astropy has no {name}")
    shutil.copyfile(source, tmp_path / name)
    try:
        opened(tmp_path / name)
    except InputError as error:
        said = str(error)
        assert re.search("no image of two axes|images and cubes are read", said)
        return
    result = denoised(tmp_path / name, monkeypatch, checkpoints[1])
    with (
        warnings.catch_warnings(),
        fits.open(source) as before,
        fits.open(result, checksum=True) as after,
    ):
        assert len(before) == len(after)
        for old, new in zip(before, after, strict=True):
            cards = [[str(c) for c in h.header.cards if "SUM" not in c.keyword] for h in (old, new)]
            assert cards[0] == cards[1]
            if isinstance(old, fits.BinTableHDU) and old.data is not None:
                assert old.data.tobytes() == new.data.tobytes()


def test_telescopes_with_black_levels_blanks_and_several_images(tmp_path, monkeypatch, checkpoints):
    draws = np.random.default_rng(0)
    stars = draws.poisson(800, (40, 50)).astype(np.uint16)
    deep = draws.normal(5, 1, (40, 50)).astype(np.float32)
    deep[:, :6] = np.nan
    blank = draws.integers(0, 3000, (40, 50)).astype(np.int16)
    blank[5, 5] = -9999
    third = fits.ImageHDU(blank)
    third.header["BLANK"] = -9999
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(stars), fits.ImageHDU(deep), third]).writeto(
        tmp_path / "a.fits"
    )
    values = opened(tmp_path / "a.fits").values
    assert [v.array.dtype.name for v in values] == ["uint16", "float32", "int16"]
    assert np.array_equal(values[0].array, stars)
    assert values[2].nodata_values == (-9999.0,)
    result = denoised(tmp_path / "a.fits", monkeypatch, checkpoints[1])
    with fits.open(result, do_not_scale_image_data=True) as file:
        assert file[1].header["BZERO"] == 32768
        assert np.array_equal(np.isnan(file[2].data), np.isnan(deep))
        assert file[3].data[5, 5] == -9999
    with fits.open(result) as file:
        assert file[1].data.dtype == np.uint16
        assert abs(float(file[1].data.mean()) - 800) < 20


@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12])
@pytest.mark.parametrize("order", ["<", ">"])
def test_electron_microscopes_of_any_mode_and_order_of_bytes(
    mode, order, tmp_path, monkeypatch, checkpoints
):
    dtype = np.dtype({0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}[mode])
    volume = np.random.default_rng(0).integers(20, 100, (6, 20, 24)).astype(dtype)
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(volume)
        file.voxel_size = (1.5, 2, 3)
        file.header.nxstart = -7
        file.header.origin = (1, 2, 3)
        file.add_label("a label")
        file.header.exttyp = b"SERI"
        file.set_extended_header(np.arange(24, dtype=np.uint8).view("V24"))
    if order == ">":
        with mrcfile.open(path) as file:
            header, extended = file.header.copy(), file.extended_header.tobytes()
        header.machst = [17, 17, 0, 0]
        swapped = header.astype(header.dtype.newbyteorder(">"))
        path.write_bytes(
            swapped.tobytes() + extended + volume.astype(dtype.newbyteorder(">")).tobytes()
        )
    (values,) = opened(path).values
    assert np.array_equal(values.array, volume)
    assert values.axes == "DHW"
    assert values.spacing == pytest.approx((3, 2, 1.5))
    result = denoised(path, monkeypatch, checkpoints[1])
    # which fails for float16 whatever it holds
    assert mrcfile.validate(result) == mrcfile.validate(path)
    assert mode == 12 or mrcfile.validate(result)
    with mrcfile.open(path) as before, mrcfile.open(result) as after:
        same = [
            name
            for name in before.header.dtype.names
            if name not in ("dmin", "dmax", "dmean", "rms")
        ]
        assert all(before.header[name].tobytes() == after.header[name].tobytes() for name in same)
        assert before.extended_header.tobytes() == after.extended_header.tobytes()
        assert after.data.dtype == dtype.newbyteorder(order)
        assert float(after.header.dmean) == pytest.approx(
            float(after.data.astype(float).mean()), rel=1e-4
        )


@pytest.mark.parametrize("version", [2, 3])
def test_a_microscope_store_keeps_its_chunks_and_labels(
    version, tmp_path, monkeypatch, checkpoints
):
    array = scenes(12, 1, "uint16").reshape(1, 2, 6, 24, 20)
    store = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    for level, step in ((0, 1), (1, 2)):
        part = array[..., ::step, ::step]
        made = store.create_array(
            str(level), shape=part.shape, chunks=(1, 1, 3, 16, 16), dtype="u2"
        )
        made[...] = part
    labels = store.create_group("labels").create_array(
        "cells", shape=(24, 20), chunks=(24, 20), dtype="u1"
    )
    labels[...] = 7
    names = [{"name": n, "type": "space"} for n in "tczyx"]
    size = [{"type": "scale", "scale": [1, 1, 0.5, 0.1, 0.1]}]
    levels = [{"path": "0", "coordinateTransformations": size}, {"path": "1"}]
    scales = [{"version": "0.4", "axes": names, "datasets": levels}]
    store.attrs.update(
        {"multiscales": scales}
        if version == 2
        else {"ome": {"version": "0.5", "multiscales": scales}}
    )
    picture = opened(tmp_path / "a.zarr")
    assert (picture.values[0].axes, picture.values[0].spacing) == ("CDHW", (0.5, 0.1, 0.1))
    result = denoised(tmp_path / "a.zarr", monkeypatch, checkpoints[1])
    after = zarr.open_group(str(result), mode="r")
    assert after["0"].chunks == (1, 1, 3, 16, 16)
    assert after["0"].shape == array.shape
    assert not np.array_equal(after["0"][...], array)
    assert (after["labels/cells"][...] == 7).all()
    assert sorted(name for name, _ in after.members()) == ["0", "1", "labels"]
    means = after["0"][...].reshape(1, 2, 6, 12, 2, 10, 2).mean((4, 6))
    assert np.abs(after["1"][...] - means).max() <= 0.5
    kept = dict(after.attrs)
    assert len((kept if version == 2 else kept["ome"])["multiscales"][0]["datasets"]) == 2
    first = (result / "0").stat().st_mtime_ns
    asked = [
        tmp_path / "a.zarr",
        "-o",
        tmp_path / "out",
        "--checkpoint",
        checkpoints[1],
        "--overwrite",
    ]
    assert command(denoise.main, monkeypatch, *asked) == 0
    assert (result / "0").stat().st_mtime_ns > first
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.zarr"]


def test_files_that_are_read_alone_become_tiff(tmp_path, monkeypatch, checkpoints):
    """No free file of these kinds exists: the output of their libraries is simulated."""
    array = scenes(6, 1, "uint16").reshape(2, 3, 24, 20)

    class File:
        axes, sizes = "TZYX0", {"T": 2, "Z": 3, "Y": 24, "X": 20}
        shape, dtype = (2, 3, 24, 20), array.dtype

        def __init__(self, path: Path) -> None:
            if not path.read_bytes():
                raise ValueError("empty")

        def __enter__(self) -> "File":
            return self

        def __exit__(self, *_: object) -> None: ...

        def asarray(self, max_workers: int | None = None) -> np.ndarray:
            return array if max_workers is None else array[..., None]

        def voxel_size(self) -> SimpleNamespace:
            return SimpleNamespace(z=2.0, y=0.5, x=0.5)

    monkeypatch.setattr(czifile, "CziFile", type("CziFile", (File,), {"shape": (2, 3, 24, 20, 1)}))
    monkeypatch.setattr(nd2, "ND2File", File)
    # .ims and videos are written by their libraries in test_instrument_files
    for ending in (".czi", ".nd2"):
        (tmp_path / f"a{ending}").write_bytes(b"x")
        assert opened(tmp_path / f"a{ending}").values[0].axes == "TDHW"
        out = tmp_path / ending[1:]
        asked = [tmp_path / f"a{ending}", "-o", out, "--checkpoint", checkpoints[1]]
        assert command(denoise.main, monkeypatch, *asked) == 0
        with tifffile.TiffFile(out / "a.tif") as file:
            assert file.series[0].axes == "TZYX"
            assert file.series[0].shape == (2, 3, 24, 20)
            assert ending == ".czi" or 'PhysicalSizeZ="2.0"' in file.ome_metadata
        (tmp_path / f"b{ending}").write_bytes(b"")
        with pytest.raises(InputError, match=rf"b\{ending}: damaged, or not the"):
            opened(tmp_path / f"b{ending}")
    with pytest.raises(InputError, match=r"becomes .*x\.tif"):
        command(denoise.main, monkeypatch, tmp_path / "a.czi", "-o", tmp_path / "x.czi")


@pytest.mark.parametrize("ending", [".nii.gz", ".zarr"])
def test_what_is_packed_is_unpacked_when_its_values_are_asked_for(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    if ending == ".zarr":
        zarr.create_array(str(path), data=np.ones((4, 24, 20), np.float32), chunks=(2, 24, 20))
        next(p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json").write_bytes(
            b"damaged"
        )
    else:
        nibabel.save(nibabel.Nifti1Image(np.ones((20, 24, 4), np.float32), np.eye(4)), path)
        path.write_bytes(path.read_bytes()[:-12])
    (values,) = opened(path).values
    assert (sorted(values.shape), values.dtype) == ([4, 20, 24], np.float32)
    with pytest.raises(InputError, match=rf"a\{ending}: damaged, or not the"):
        _ = values.array


def test_a_packed_volume_with_a_wrong_checksum_is_damaged(tmp_path):
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((20, 24, 4), np.float32), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # of the checksum
    path.write_bytes(content)
    (values,) = opened(path).values
    with pytest.raises(InputError, match=r"a\.nii\.gz: damaged, or not the"):
        _ = values.array


def test_a_missing_library_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "a.mrc").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "mrcfile", None)
    monkeypatch.delitem(sys.modules, "n2n_lightning.formats.mrc", raising=False)
    with pytest.raises(
        InputError, match=r"a\.mrc: needs mrcfile, .* pip install 'n2n_lightning\[mrc\]'"
    ):
        opened(tmp_path / "a.mrc")
