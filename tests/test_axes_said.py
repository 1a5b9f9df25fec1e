"""Axes that the user names, or that a checkpoint was trained on, hold for every kind of file."""

import numpy as np
import pytest
import tifffile
import torch
from astropy.io import fits

from n2n_lightning import load
from n2n_lightning.arrays.axes import of_picture, of_scenes, of_volumes
from n2n_lightning.arrays.layout import Layout
from n2n_lightning.arrays.transparency import has_alpha
from n2n_lightning.data import PairedImages, SingleImages
from n2n_lightning.data.reading import read_single
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import AskedAxes
from tests.conftest import run

SMALL = [
    "model=residual_unet",
    "model.width=4",
    "data.train_pairs=8",
    "data.batch_size=4",
    "trainer.max_epochs=1",
]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def pages(path, array: np.ndarray) -> str:
    """A TIFF whose pages are of unknown meaning."""
    tifffile.imwrite(path, array, photometric="minisblack", metadata=None)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "picture", "scenes", "volumes"),
    [
        ((480, 640, 31), "HWC", "HWC", "HWD"),
        ((128, 160, 31), "HWC", "HWC", "HWD"),
        ((480, 640, 3), "HWC", "HWC", "DHW"),
        ((20, 640, 480), "NHW", "NHW", "DHW"),
        ((64, 64, 64), "NHW", "NHW", "DHW"),
        ((16, 64, 16), "NHW", "NHW", "DHW"),
        ((5, 512, 512), "NHW", "NHW", "DHW"),
        ((512, 512, 128), "HWC", "HWC", "HWD"),
    ],
)
def test_a_small_last_axis_holds_bands_whoever_reads_the_array(shape, picture, scenes, volumes):
    assert of_picture(shape) == picture
    assert of_scenes(shape) == scenes
    assert of_volumes(shape) == volumes


def test_said_axes_count_for_files_that_state_others(tmp_path):
    path = pages(tmp_path / "a.tif", noise(2, 40, 50))
    picture = opened(path)
    (values,) = picture.values
    assert picture.read_as(values, AskedAxes()).axes == "NHW"
    found = picture.read_as(values, AskedAxes("CHW"))
    assert (found.axes, found.line) == ("CHW", "")
    fits.PrimaryHDU(noise(1, 6, 40, 50)).writeto(tmp_path / "b.fits")
    picture = opened(tmp_path / "b.fits")
    (values,) = picture.values
    # the axis of length 1 may be named
    assert picture.read_as(values, AskedAxes("TCHW")).axes == "CHW"
    assert picture.read_as(values, AskedAxes("DHW")).axes == "DHW"
    with pytest.raises(
        InputError, match=r"b\.fits: its shape is \(6, 40, 50\) .*axes=HW does not fit; NHW, CHW"
    ):
        picture.read_as(values, AskedAxes("HW"))


def test_a_photograph_cannot_be_a_stack(tmp_path):
    tifffile.imwrite(tmp_path / "grey.tif", noise(40, 50))
    from PIL import Image

    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    picture = opened(tmp_path / "a.png")
    assert picture.read_as(picture.values[0], AskedAxes("HWC")).axes == "HWC"
    with pytest.raises(InputError, match="axes=NHW does not fit; a PNG picture is HWC"):
        picture.read_as(picture.values[0], AskedAxes("NHW"))


def test_three_planes_of_a_fits_file_are_colours_unless_the_header_says_what_they_are(tmp_path):
    cube = noise(3, 40, 50)
    fits.PrimaryHDU(cube).writeto(tmp_path / "rgb.fits")
    picture = opened(tmp_path / "rgb.fits")
    found = picture.read_as(picture.values[0], AskedAxes())
    assert (found.axes, found.colour) == ("CHW", True)
    assert found.line == "read as an image of 40 x 50 with 3 channels (CHW); axes= says otherwise"
    header = fits.Header({"CTYPE3": "FREQ"})
    fits.PrimaryHDU(cube, header).writeto(tmp_path / "radio.fits")
    picture = opened(tmp_path / "radio.fits")
    assert picture.read_as(picture.values[0], AskedAxes()).axes == "NHW"
    fits.PrimaryHDU(noise(4, 40, 50)).writeto(tmp_path / "four.fits")
    assert opened(tmp_path / "four.fits").values[0].axes == "NHW"


def test_the_fourth_channel_of_an_array_is_judged_by_its_values():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:80, :100]
    bands = (
        np.stack([x + y, 2 * x, 90 + y, 150 + 0 * x], -1) + rng.normal(0, 10, (80, 100, 4))
    ).clip(0, 255)
    disc = ((x - 50) ** 2 + (y - 40) ** 2 < 900) * 255.0
    for kind in (np.uint8, np.uint16, np.float32):
        infrared = bands.astype(kind)
        assert not has_alpha(infrared, "HWC")
        assert not has_alpha(np.stack([infrared] * 5), "NHWC")
        for alpha in (disc, np.full((80, 100), 255.0), x / 99 * 255):
            with_alpha = infrared.copy()
            with_alpha[..., 3] = alpha
            assert has_alpha(with_alpha, "HWC")
    assert not has_alpha(rng.poisson(0.1, (80, 100, 4)).astype(np.uint16), "HWC")
    assert not has_alpha(infrared[..., :3], "HWC")
    assert not has_alpha(infrared, "CHW")


@pytest.mark.walk
def test_a_near_infrared_band_is_denoised_and_transparency_is_not(tmp_path):
    rng = np.random.default_rng(1)
    bands = (100 + rng.normal(0, 15, (48, 64, 4))).clip(0, 255).astype(np.uint8)
    opaque = bands.copy()
    opaque[..., 3] = 255
    np.save(tmp_path / "rgbn.npy", bands)
    np.save(tmp_path / "rgba.npy", opaque)
    done = run("denoise", "rgbn.npy", "rgba.npy", "-o", "out", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "rgbn.npy: read as an image of 48 x 64 with 4 channels (HWC); --axes says otherwise"
        in done.stdout
    )
    assert (
        "rgba.npy: read as an image of 48 x 64 with 3 channels and transparency (HWC)"
        in done.stdout
    )
    result = np.load(tmp_path / "out/rgbn.npy")
    assert result[..., 3].std() < bands[..., 3].std() / 2
    assert np.array_equal(np.load(tmp_path / "out/rgba.npy")[..., 3], opaque[..., 3])


def test_layout_counts_for_folders(tmp_path):
    for side in ("first", "second"):
        (tmp_path / side).mkdir()
        for k in range(3):
            pages(tmp_path / side / f"{k}.tif", noise(2, 48, 64, seed=k))
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    data = PairedImages(first, second, layout="CHW", batch_size=1, crop=32)
    data.setup()
    assert data.channels == 2
    assert data.array_layout == Layout("CHW", (2, 48, 64), "NHW")
    assert read_single(first).channels == 1  # without it, six images
    assert read_single(first, "CHW").channels == 2
    with pytest.raises(InputError, match=r"holds 2 images; .*data\.layout=CHW"):
        PairedImages(first, second, batch_size=1).setup()
    with pytest.raises(
        InputError,
        match=r"data\.layout=NCHW: does not fit .*0\.tif of shape \(2, 48, 64\); NHW, CHW",
    ):
        PairedImages(first, second, layout="NCHW", batch_size=1).setup()


@pytest.mark.walk
def test_the_line_before_training_says_how_arrays_were_read(tmp_path):
    np.save(tmp_path / "cube.npy", noise(48, 64, 12))
    data = SingleImages(str(tmp_path / "cube.npy"), batch_size=1, crop=32)
    data.setup()
    assert data.channels == 12
    assert data.notes == [
        "cube.npy: read as an image of 48 x 64 with 12 channels (HWC); data.layout= says otherwise"
    ]
    done = run("check", "cube.npy", cwd=tmp_path)
    assert (
        "cube.npy: read as an image of 48 x 64 with 12 channels (HWC); --layout says otherwise"
        in done.stdout
    )
    said = run("check", "cube.npy", "--axes", "HWC", cwd=tmp_path)
    assert "read as" not in said.stdout
    assert "data.layout=HWC" in said.stdout


@pytest.mark.walk
def test_a_checkpoint_is_applied_as_it_was_trained(tmp_path):
    for side in ("first", "second"):
        (tmp_path / side).mkdir()
        for k in range(3):
            pages(tmp_path / side / f"{k}.tif", noise(2, 48, 64, seed=k))
    source = [
        "data=pairs",
        "data.noisy=first",
        "data.target=second",
        "data.layout=CHW",
        "data.crop=32",
    ]
    done = run("train", *source, *SMALL, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = load(tmp_path / "run")
    assert (model.channels, model.layout) == (2, Layout("CHW", (2, 48, 64), "NHW"))
    done = run(
        "denoise",
        "first/0.tif",
        "-o",
        "out",
        "--checkpoint",
        "run",
        "--device",
        "cpu",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "read as an image of 48 x 64 with 2 channels (CHW), as the checkpoint was trained"
        in done.stdout
    )
    array = tifffile.imread(tmp_path / "first/0.tif")
    np.testing.assert_allclose(
        tifffile.imread(tmp_path / "out/0.tif"), model.denoise(array, axes="CHW"), atol=1e-3
    )
    np.testing.assert_allclose(model.denoise(array), model.denoise(array, axes="CHW"), atol=1e-3)
    tensor = torch.from_numpy(array)
    np.testing.assert_allclose(model.denoise(tensor).numpy(), model.denoise(array), atol=1e-3)
    refused = run(
        "denoise",
        "first/0.tif",
        "-o",
        "two",
        "--checkpoint",
        "run",
        "--axes",
        "NHW",
        "--device",
        "cpu",
        cwd=tmp_path,
    )
    assert refused.returncode == 1
    assert "the checkpoint is for images with 2" in refused.stderr
    scored = run("evaluate", "run", "--val-noisy", "first", "--val-target", "second", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
