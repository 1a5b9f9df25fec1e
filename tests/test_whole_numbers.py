"""Results of whole numbers: float32 if rounding would do harm and the kind of file allows it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from n2n_lightning import load
from n2n_lightning.formats import opened
from n2n_lightning.inference import rounding
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from tests.conftest import run


def photons(level: float = 0.6, side: int = 128) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    clean = 0.05 + level * (0.5 + 0.5 * np.sin(x / 13) * np.cos(y / 17)) ** 2
    return np.random.default_rng(15).poisson(clean).astype(np.uint16)


def photograph(sigma: float, colour: bool = False) -> np.ndarray:
    from skimage import data

    clean = (data.astronaut() if colour else data.camera())[:192, :192].astype(float)
    return (
        (clean + np.random.default_rng(0).normal(0, sigma, clean.shape))
        .clip(0, 255)
        .round()
        .astype(np.uint8)
    )


def microscope(sigma: float) -> np.ndarray:
    clean = 100 + 12 * photograph(0).astype(float)
    return (
        (clean + np.random.default_rng(0).normal(0, sigma, clean.shape))
        .clip(0, 65535)
        .round()
        .astype(np.uint16)
    )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_sparse_counts_stay_measurable(kind: type) -> None:
    counts = photons().astype(kind)
    result = load().denoise(counts)
    assert result.dtype == np.float32
    assert abs(result.mean() - counts.mean()) < 0.05 * counts.mean()
    dark = np.s_[:, 50:70]
    assert abs(result[dark].mean() - counts[dark].mean()) < 0.1 * max(counts[dark].mean(), 0.1)
    assert load().denoise(counts, dtype="keep").dtype == kind


def test_a_faint_background_beside_bright_cells() -> None:
    y, x = np.mgrid[:192, :192]
    clean = 0.11 + 200 * np.exp(-((y - 60) ** 2 + (x - 60) ** 2) / 400)
    counts = np.random.default_rng(0).poisson(clean).astype(np.uint16)
    assert rounding.lossy(load(), NoisyArray(counts, "HW"), DenoiseOptions()) is not None
    blocks = np.array([[0.0, 0, 0, 1] * 64, [200.0, 230, 215, 190] * 64])
    faint = rounding.Sample(blocks, np.array([[0.25] * 256, [208.75] * 256]))
    assert rounding.reason(faint) == "change the mean of a faint region from 0.25 to 0"
    nothing = np.array([[0.0] * 256, [200.0, 330, 115, 190] * 64])  # a dead frame, and strong noise
    assert (
        rounding.reason(rounding.Sample(nothing, np.array([[-9e-10] * 256, [208.75] * 256])))
        is None
    )


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(photograph(0), id="clean"),
        pytest.param(photograph(5), id="5"),
        pytest.param(photograph(50), id="50"),
        pytest.param(photograph(5, colour=True), id="colour"),
        pytest.param(microscope(20), id="microscope"),
        pytest.param(photons(level=300), id="many photons"),
    ],
)
def test_whole_numbers_that_are_enough_stay(picture: np.ndarray) -> None:
    axes = "HWC" if picture.ndim == 3 else "HW"
    assert rounding.lossy(load(), NoisyArray(picture, axes), DenoiseOptions()) is None


def test_movies_and_volumes_are_judged(tmp_path: Path) -> None:
    stack = np.stack([photons(side=64)] * 3)
    assert load().denoise(stack, axes="NHW").dtype == np.float32
    assert load().denoise(stack, axes="CHW").dtype == np.float32


def saved(name: str, array: np.ndarray, folder: Path) -> tuple[Path, str | None]:
    """An array of integers in a file of a kind, and the name that it has there."""
    path, part = folder / name, None
    if name.endswith(".ome.tif"):
        tifffile.imwrite(path, array, ome=True, metadata={"axes": "YX", "SignificantBits": 12})
    elif name == "imagej.tif":
        tifffile.imwrite(
            path, np.stack([array, array]), imagej=True, metadata={"axes": "ZYX", "unit": "um"}
        )
    elif name == "tiles.tif":
        tifffile.imwrite(
            path, array, tile=(64, 64), compression="zlib", predictor=2, description="kept"
        )
    elif name.endswith(".tif"):
        tifffile.imwrite(path, array, byteorder=">")
    elif name.endswith(".npy"):
        np.save(path, array)
    elif name.endswith(".h5"):
        h5py, part = pytest.importorskip("h5py"), "run/counts"
        with h5py.File(path, "w") as file:
            file.create_dataset(part, data=array, chunks=(32, 32), compression="gzip").attrs[
                "unit"
            ] = "photons"
            file["other"] = np.arange(3)
    elif name.endswith((".nii", ".nii.gz")):
        nibabel = pytest.importorskip("nibabel")
        image = nibabel.Nifti1Image(array.T[..., None], np.diag([1, 2, 3, 1]))
        image.header.set_slope_inter(1, 0)
        nibabel.save(image, path)
    elif name.endswith(".mrc"):
        mrcfile = pytest.importorskip("mrcfile")
        with mrcfile.new(path) as file:
            file.set_data(array)
            file.voxel_size = 1.5
    elif name.endswith(".fits"):
        fits = pytest.importorskip("astropy.io.fits")
        planes = [fits.PrimaryHDU(array), fits.ImageHDU(np.ones((4, 4)), name="ERR")]
        planes[0].header["OBJECT"] = "M31"
        fits.HDUList(planes).writeto(path, checksum=True)
    else:
        zarr = pytest.importorskip("zarr")
        version = 2 if name == "v2.zarr" else 3
        sharded: dict[str, Any] = {"shards": (64, 64)} if name == "sharded.zarr" else {}
        store = zarr.open_group(path, mode="w", zarr_format=version)
        store.create_array(
            "counts", shape=array.shape, dtype=array.dtype, chunks=(32, 32), **sharded
        )[:] = array
        store.attrs["kept"], part = True, "counts"
    return path, part


NAMES = (
    "a.npy",
    "a.tif",
    "a.ome.tif",
    "imagej.tif",
    "tiles.tif",
    "a.h5",
    "a.nii",
    "a.nii.gz",
    "a.mrc",
    "a.fits",
)
NAMES += ("v2.zarr", "v3.zarr", "sharded.zarr")


@pytest.mark.parametrize("name", NAMES)
def test_files_of_floats(name: str, tmp_path: Path) -> None:
    path, part = saved(name, photons(), tmp_path)
    picture = opened(path, part)
    assert picture.values[0].dtype.name == "uint16"
    target = tmp_path / f"out_{name}"
    with picture.written(target, ["float32"]) as results:  # type: ignore[list-item]
        results[0][...] = picture.values[0].array + np.float32(0.25)
    result = opened(target, part)
    (values,) = result.values
    assert (values.dtype.kind, values.dtype.itemsize) == ("f", 4)
    assert values.axes == picture.values[0].axes
    assert (values.array == picture.values[0].array + np.float32(0.25)).all()
    if name == "a.ome.tif":
        with tifffile.TiffFile(target) as file:
            assert file.ome_metadata is not None
            assert re.findall(r'Type="(\w+)"', file.ome_metadata) == ["float"]
            assert "SignificantBits" not in file.ome_metadata
    if name == "tiles.tif":
        with tifffile.TiffFile(target) as file:
            page = file.pages[0].aspage()
            assert (page.is_tiled, page.compression.name, page.description) == (
                True,
                "ADOBE_DEFLATE",
                "kept",
            )
            assert (int(page.sampleformat), page.bitspersample) == (3, 32)
    if name == "imagej.tif":
        with tifffile.TiffFile(target) as file:
            assert file.imagej_metadata is not None
            assert file.imagej_metadata["unit"] == "um"
    if name == "a.fits":
        fits = pytest.importorskip("astropy.io.fits")
        with fits.open(target, checksum=True) as file:
            header = file[0].header
            assert (header["BITPIX"], header["OBJECT"], "BZERO" in header) == (-32, "M31", False)
            assert (file[1].data == 1).all()
    if name == "a.nii":
        nibabel = pytest.importorskip("nibabel")
        image = nibabel.load(target)
        assert np.allclose(image.affine, nibabel.load(path).affine)
        assert (values.array == image.get_fdata()[..., 0]).all()


def test_fits_of_physical_values(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    stored = photons().astype(np.int16)
    stored[3, 4] = -99
    hdu = fits.PrimaryHDU(stored)
    hdu.header.update({"BLANK": -99})
    hdu.writeto(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update", do_not_scale_image_data=True) as file:
        file[0].header["BSCALE"], file[0].header["BZERO"] = 0.5, 10.0
    picture = opened(tmp_path / "a.fits")
    with picture.written(tmp_path / "b.fits", ["float32"]) as results:  # type: ignore[list-item]
        results[0][...] = picture.values[0].array
    with fits.open(tmp_path / "a.fits") as one, fits.open(tmp_path / "b.fits") as other:
        before, after = one[0].data, other[0].data
    assert np.isnan(after[3, 4])
    assert np.array_equal(before, after, equal_nan=True)


@pytest.mark.slow
def test_the_command_says_what_it_writes(tmp_path: Path) -> None:
    from PIL import Image

    counts = photons()
    tifffile.imwrite(tmp_path / "counts.tif", counts)
    Image.fromarray(counts.astype(np.uint8)).save(tmp_path / "counts.png")
    found = run("denoise", "counts.tif", "counts.png", "-o", "out", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert (
        "counts.tif: written as float32: rounding to whole numbers would change the mean"
        in found.stdout
    )
    assert re.search(r"counts\.png: rounded to whole numbers, which may .* TIFF", found.stdout)
    result = tifffile.imread(tmp_path / "out" / "counts.tif")
    assert result.dtype == np.float32
    assert abs(result.mean() - counts.mean()) < 0.05 * counts.mean()
    kept = run("denoise", "counts.tif", "-o", "kept", "--dtype", "keep", cwd=tmp_path)
    assert kept.returncode == 0
    assert "float32" not in kept.stdout
    assert tifffile.imread(tmp_path / "kept" / "counts.tif").dtype == np.uint16
    forced = run("denoise", "counts.png", "-o", "forced", "--dtype", "float32", cwd=tmp_path)
    assert forced.returncode == 1
    assert "PNG file holds whole numbers alone" in forced.stderr
    assert run("denoise", "counts.png", "-o", "x", "--dtype", "int", cwd=tmp_path).returncode == 2


def test_declared_missing_values_do_not_count() -> None:
    counts = np.random.default_rng(0).poisson(20.0, (128, 128)).astype(np.uint16)
    counts[::3] = 999
    noisy = NoisyArray(counts, "HW", nodata_values=(999.0,))
    sample = rounding.sampled(load(), noisy, DenoiseOptions())
    assert sample is not None
    assert np.nanmax(sample.source) < 100
