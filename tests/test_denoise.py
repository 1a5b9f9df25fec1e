import inspect
import json
import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import skimage.data
import tifffile
import torch
from PIL import Image, ImageCms, PngImagePlugin
from torch import nn

import n2n_lightning
from n2n_lightning import load, networks
from n2n_lightning.arrays.axes import as_pages, of_picture
from n2n_lightning.arrays.normalization import IntensityScaling, levels
from n2n_lightning.data.generated.fabrics import fabrics
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.inference import checkpoint as checkpoint_files
from n2n_lightning.inference import denoiser
from n2n_lightning.inference import page as pages
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.options import NoisyArray
from n2n_lightning.inference.page import Page
from n2n_lightning.inference.texture import put_back
from n2n_lightning.inference.tiling import OVERLAPS, in_tiles, overlap_of, spans, tile_of, tiled
from n2n_lightning.noise import Camera
from n2n_lightning.randomness import generator
from tests.conftest import LIMIT, linux, run

RNG = np.random.default_rng(0)


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A smooth picture, float (H, W, C), values in 0.1..0.9."""
    coarse = torch.rand(1, channels, 5, 6, generator=torch.Generator().manual_seed(height + width))
    image = nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[
        0
    ]
    return image.clamp(0, 1).permute(1, 2, 0).numpy() * 0.8 + 0.1


def noisy(height: int, width: int, channels: int, dtype: str) -> np.ndarray:
    """The same with noise of 0.05, in a type's own range: (H, W, C), or (H, W) for one channel."""
    image = smooth(height, width, channels) + RNG.normal(0, 0.05, (height, width, channels))
    image = (
        image
        if dtype.startswith("float")
        else (image * np.iinfo(dtype).max).round().clip(0, np.iinfo(dtype).max)
    )
    image = image.astype(dtype)
    return image[..., 0] if channels == 1 else image


@pytest.fixture(scope="module")
def model() -> TrainedDenoiser:
    return load()


class Half(nn.Module):
    """Halves the values, and says what it was shown."""

    multiple = 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 3, 1, 1), 0.5))
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image)
        return image * self.weight


def gain(result: np.ndarray, before: np.ndarray, clean: np.ndarray) -> float:
    """By how many dB a result is closer to the clean picture than what went in."""
    a, b, c = (x.astype(np.float64).reshape(clean.shape) for x in (result, before, clean))
    return float(10 * np.log10(((b - c) ** 2).mean() / ((a - c) ** 2).mean()))


# Texture


def page_of(noisy: np.ndarray, result: np.ndarray, nodata_values: tuple[float, ...] = ()) -> Page:
    """A page (H, W, C) and what a network made of it, in whose units they are."""
    fixed = IntensityScaling(np.float32([0.0]), np.float32([1.0]))
    page = Page(noisy.copy(), result.copy(), noisy.shape[2], fixed, torch.device("cpu"))
    page.nodata_values = nodata_values
    return page


def cloth(side: int = 256) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice]]:
    """A smooth picture and fine threads on it, both (side, side, 3), and their mask: a ninth."""
    plain, threads = smooth(side, side), np.zeros((side, side, 3), np.float32)
    here = (slice(80, 160), slice(96, 192))
    rows, columns = np.mgrid[:side, :side]
    threads[here] = (
        0.08 * (np.sin(1.9 * rows + 0.4 * columns) * np.cos(0.2 * rows))[here][..., None]
    )
    return plain, threads, here


@pytest.mark.parametrize("shot", [0, 1])
@pytest.mark.parametrize("together", [False, True])
def test_texture_that_was_taken_for_noise_is_put_back(together, shot):
    plain, threads, here = cloth()
    clean = plain + threads
    sigma = 2 / 255 * np.sqrt(1 - shot + 2 * shot * plain)
    picture = (clean + sigma * RNG.normal(0, 1, clean.shape)).astype(np.float32)
    result = plain + 0.5 * threads  # takes all of the noise, and most of the threads
    page = page_of(picture, result)
    put_back(page, together)
    assert gain(result[here], picture[here], clean[here]) < -6
    assert gain(page.sink[here], picture[here], clean[here]) > -2
    inside = (slice(96, 144), slice(112, 176))  # blocks with threads on all sides
    # about as close as the picture was
    assert gain(page.sink[inside], picture[inside], clean[inside]) > -1
    away = np.ones((256, 256), bool)
    away[64:176, 80:208] = False
    assert np.array_equal(page.sink[away], result[away])


def test_what_is_no_texture_is_not_put_back():
    plain, threads, here = cloth()
    noise = RNG.normal(0, 2 / 255, plain.shape)
    uneven = noise.copy()
    uneven[:96, :96] *= 3  # stronger in a corner: of a smooth surface nothing is left to be texture
    strong = (plain + threads + 20 * noise).astype(np.float32)
    for picture, result in (((plain + uneven).astype(np.float32), plain), (strong, plain)):
        page = page_of(picture, result)
        put_back(page, True)
        assert np.array_equal(page.sink, result)


def test_hot_and_missing_pixels_stay_as_they_are_in_texture():
    plain, threads, here = cloth()
    clean = plain + threads
    picture = (clean + RNG.normal(0, 2 / 255, clean.shape)).astype(np.float32)
    picture[100, 120], picture[110:113, 130], picture[110:113, 134] = 5, np.nan, -9999
    result = plain + 0.5 * threads
    result[110:113, 130], result[110:113, 134] = np.nan, -9999
    page = page_of(picture, result, (-9999.0,))
    put_back(page, True)
    assert np.array_equal(page.sink[100, 120], result[100, 120])
    assert np.isnan(page.sink[110:113, 130]).all()
    assert (page.sink[110:113, 134] == -9999).all()
    assert np.isnan(page.sink).sum() == 9
    assert np.nanmax(np.abs(page.sink - result)[here]) > 0.03  # beside them it works


@pytest.mark.filterwarnings("error")
def test_huge_values_and_flat_pictures_do_not_stop_it():
    plain, threads, here = cloth()
    picture = (plain + threads + RNG.normal(0, 2 / 255, plain.shape)).astype(np.float32)
    result = plain + 0.5 * threads
    picture[200, 10], result[200, 10], picture[200, 40] = 1e20, 1e20, 1e25
    page = page_of(picture, result)
    put_back(page, True)
    assert np.abs(page.sink - result)[here].max() > 0.03
    page = page_of(
        0.5 + 0.01 * RNG.normal(0, 1, plain.shape).astype(np.float32), np.full_like(plain, 0.5)
    )
    put_back(page, True)
    assert (page.sink == 0.5).all()


@pytest.mark.parametrize("share", [0.6, 0.8])
def test_noise_beside_a_backdrop_without_any_is_not_put_back(share):
    """A picture that was cut out: most blocks have hardly any noise and one brightness."""
    plain, threads, _ = cloth()
    clean, noise = plain + threads, RNG.normal(0, 1, plain.shape)
    away = slice(0, round(share * 256))
    clean[away] = 1
    sigma = np.full((256, 1, 1), 4 / 255)
    sigma[away] = 0.05 / 255
    picture, result = (
        (clean + sigma * noise).astype(np.float32),
        (clean + 0.1 * sigma * noise).astype(np.float32),
    )
    page = page_of(picture, result)
    put_back(page, True)
    inside = slice(away.stop + 16, None)
    left = [
        np.sqrt(np.square(image - clean)[inside].mean()) * 255 for image in (page.sink, picture)
    ]
    assert left[0] < 0.35 * left[1]


def test_put_back_goes_with_unit_and_strips(monkeypatch):
    plain, threads, here = cloth()
    picture = (plain + threads + RNG.normal(0, 2 / 255, plain.shape)).astype(np.float32)
    result = plain + 0.5 * threads
    page = page_of(picture, result)
    put_back(page, True)
    whole = page.sink
    monkeypatch.setattr(pages, "PIXELS", 5000)
    page = page_of(picture, result)
    put_back(page, True)
    assert np.abs(page.sink - whole).max() < 1e-6
    page = page_of(300 * picture + 1000, 300 * result + 1000)
    put_back(page, True)
    assert np.abs((page.sink - 1000) / 300 - whole).max() < 1e-4


def test_the_checkpoint_that_comes_along_puts_back_what_it_took_of_cloth(model, tmp_path):
    assert model.blind
    taken = []
    for image in fabrics(4, 256, [torch.full((3, 8, 8), 128, dtype=torch.uint8)], seed=8):
        array = image.permute(1, 2, 0).numpy()
        results = [model.denoise(array, uneven=uneven).astype(float) for uneven in (True, False)]
        taken.append([np.square(result - array).mean() for result in results])
    before, after = np.transpose(taken)
    assert (after <= before).all()
    assert (after < 0.6 * before).any()

    Image.fromarray(array).save(tmp_path / "cloth.png")
    for name, more in (("one", []), ("other", ["--uneven"])):
        done = run(
            "denoise", tmp_path / "cloth.png", "-o", tmp_path / f"{name}.png", *more, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        shown = np.asarray(Image.open(tmp_path / f"{name}.png"))
        assert np.array_equal(shown, model.denoise(array, uneven=bool(more)))


def test_only_networks_that_have_to_guess_put_texture_back(tmp_path):
    for noise, blind in (("varied", True), ("gaussian", False)):
        folder = tmp_path / noise
        arguments = [
            "model=dncnn",
            "model.width=4",
            "model.layers=3",
            "data=photos",
            f"noise={noise}",
            "data.zoom=null",
        ]
        arguments += [
            "data.train_pairs=8",
            "data.val_pairs=4",
            "data.batch_size=4",
            "trainer.max_epochs=1",
        ]
        done = run("train", *arguments, f"hydra.run.dir={folder}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        small = folder / "small.ckpt"
        assert run("export", folder, small, cwd=tmp_path).returncode == 0
        assert [load(path).blind for path in (folder, small)] == [blind, blind]


# Tiles


@pytest.mark.parametrize("multiple", [1, 8, 32])
def test_the_weights_of_the_tiles_add_up_to_one_everywhere(multiple):
    for length in (1, 191, 192, 193, 289, 384, 385, 1000, 4001):
        tiles = spans(length, 192, multiple)
        total = torch.zeros(length)
        for span in tiles:
            total[span.start : span.stop] += span.weights()
            assert span.start % multiple == 0
            assert span.stop - span.start <= 192 + multiple
        assert torch.allclose(total, torch.ones(length), atol=1e-6)
        assert (tiles[0].start, tiles[-1].stop) == (0, length)
    with pytest.raises(InputError, match=f"tile=100: must be {2 * OVERLAPS[2]} or more"):
        spans(1000, 100, multiple)


SIZES = [
    (1, 1),
    (700, 300),
    (300, 700),
    (500, 500),
    (5, 1200),
    (1201, 3),
    (1, 1, 1),
    (9, 200, 150),
    (300, 193, 20),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_pixel_is_written_once(size, batch):
    image = torch.rand(2, *size)
    result, times = torch.zeros_like(image), torch.zeros(size)

    def write(place: tuple[slice, ...], values: torch.Tensor) -> None:
        result[(slice(None), *place)] = values
        times[place] += 1

    done = []
    tiled(
        lambda x: x,
        lambda place: image[(slice(None), *place)],
        write,
        size,
        192,
        4,
        batch,
        done.append,
    )
    assert torch.allclose(result, image, atol=1e-6)
    assert (times == 1).all()
    assert sum(done) == math.prod(
        len(spans(length, 192, 4, OVERLAPS[len(size)])) for length in size
    )


@pytest.mark.slow
def test_tiles_cannot_be_seen(model):
    """On a 1024 x 768 photograph with noise: under 1e-4 anywhere, at edges and corners too."""
    from skimage import data

    photo = data.retina()[300:1068, 200:1224].astype(np.float32) / 255
    white = photo + RNG.normal(0, 0.1, photo.shape).astype(np.float32)
    assert np.abs(model.denoise(white, tile=512) - model.denoise(white, tile=None)).max() < 1e-4
    photo = Camera(sigma=40, width=1.6, shared=0.9)(
        torch.from_numpy(photo).permute(2, 0, 1)[None], generator(0)
    )
    # what is alike over many pixels, the network asks many for
    photo = photo[0].permute(1, 2, 0).numpy()
    assert np.abs(model.denoise(photo, tile=384) - model.denoise(photo, tile=None)).max() < 1e-4
    part = white[:501, :450]
    difference = model.denoise(part, tile=384, tta=True) - model.denoise(part, tile=None, tta=True)
    assert np.abs(difference).max() < 1e-4


def test_tiles_are_as_large_as_the_network_needs_them():
    torch.manual_seed(0)
    network = networks.DRUNet(1, [2] * 4, [5] * 4).eval()
    torch.nn.init.normal_(network.output.weight, std=0.3)
    overlap = overlap_of(network, 2)
    assert 2 * overlap > 1024
    assert tile_of(2, overlap, network.multiple) == 2 * -(-overlap // 8) * 8
    image = torch.rand(1, 1, 1400, 1300)
    with torch.inference_mode():
        assert (in_tiles(network, image, overlap) - network(image)).abs().max() < 1e-5
    assert TrainedDenoiser(network, 1).denoise(np.zeros((40, 40), np.float32)).shape == (40, 40)
    assert overlap_of(networks.UNet(), 2) == OVERLAPS[2]
    assert overlap_of(networks.DnCNN(), 2) == 16
    assert overlap_of(networks.DRUNet(1, [2, 2], [1, 1], dims=3), 3) == 26
    assert overlap_of(networks.DRUNet(1, [2] * 4, [5] * 4, dims=3), 3) == OVERLAPS[3]
    assert (tile_of(2, 96, 32), tile_of(3, 32, 4)) == (1024, 112)


@linux
def test_memory_does_not_grow_with_the_image(model, tmp_path):
    """Peak memory grows by far less than a float copy for a mapped file 16 times as large."""
    peaks = []
    code = (
        "import resource, sys, numpy as np; from n2n_lightning import load; model = load()\n"
        "from n2n_lightning.formats import opened; from pathlib import Path\n"
        "from n2n_lightning.inference.options import DenoiseOptions, NoisyArray\n"
        "p = opened(Path(sys.argv[1])); v = p.values[0]; axes, _ = p.meaning(v)\n"
        "with p.written(Path(sys.argv[1] + '.npy')) as (out,):\n"
        "    model.network = __import__('torch').nn.Conv2d(3, 3, 1)\n"
        "    model.denoise_into(out, NoisyArray(v.array, axes), DenoiseOptions(tile=384))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    for side in (1000, 4000):
        path = tmp_path / f"{side}.npy"
        np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, 3)).flush()
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    # the pages of both files that the kernel has mapped, at most
    stored = 2 * 4000 * 4000 * 3 / 2**20
    assert peaks[1] - peaks[0] < stored + 40


# What goes in comes out


def png(path: Path, array: np.ndarray) -> None:
    path.write_bytes(imagecodecs.png_encode(array))


def tiff(path: Path, array: np.ndarray, **options: object) -> None:
    colour = array.ndim == 3 and array.shape[-1] in (3, 4)
    options = {"photometric": "rgb" if colour else "minisblack", **options}
    if colour and array.shape[-1] == 4:
        options["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(
        path, array, resolution=(300, 300), resolutionunit=2, description="of a cell", **options
    )


def planar(path: Path, array: np.ndarray, **options: object) -> None:
    tiff(path, array.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", **options)


FORMATS = {
    **{f"{d}-{c}.png": (png, d, c, {}) for d in ("uint8", "uint16") for c in (1, 2, 3, 4)},
    **{
        f"{d}-{c}.npy": (np.save, d, c, {})
        for d in ("uint8", "uint16", "float16", "float64")
        for c in (1, 3)
    },
    **{f"{d}-{c}.tif": (tiff, d, c, {}) for d in ("uint8", "uint16", "float32") for c in (1, 3)},
    "uint16-4.tif": (tiff, "uint16", 4, {}),
    "lzw.tif": (tiff, "uint16", 3, {"compression": "lzw", "predictor": True}),
    "deflate.tif": (tiff, "uint8", 3, {"compression": "zlib", "tile": (32, 32)}),
    "zstd.tif": (tiff, "float32", 1, {"compression": "zstd"}),
    "big-endian.tif": (tiff, "uint16", 1, {"byteorder": ">"}),
    "bigtiff.tif": (tiff, "uint16", 1, {"bigtiff": True}),
    "planar.tif": (
        lambda p, a, **o: tiff(p, a.transpose(2, 0, 1), photometric="rgb", **o),
        "uint8",
        3,
        {"planarconfig": "separate", "compression": "zlib"},
    ),
    "uint32-3.npy": (np.save, "uint32", 3, {}),
    "int32-1.npy": (np.save, "int32", 1, {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_round_trip_keeps_everything_but_the_noise(name, tmp_path, model):
    write, dtype, channels, options = FORMATS[name]
    before = noisy(60, 70, channels, dtype)
    path, target = tmp_path / name, tmp_path / "out" / name
    write(path, before, **options)
    target.parent.mkdir()
    picture = opened(path)
    (values,) = picture.values
    axes, alpha = picture.meaning(values)
    given = as_pages(values.array, axes)
    assert np.array_equal(given, before.reshape(60, 70, channels))
    with picture.written(target) as (result,):
        model.denoise_into(result, NoisyArray(values.array, axes, alpha))
    after = opened(target).values[0].array
    assert after.dtype == values.array.dtype
    assert after.shape == values.array.shape

    full = 1 if dtype.startswith("float") else np.iinfo(dtype).max
    colours = channels - (channels in (2, 4))
    clean = (smooth(60, 70, channels) * full)[..., :colours]
    shaped = as_pages(after, axes)
    assert gain(shaped[..., :colours], given[..., :colours], clean) > 3
    assert np.array_equal(shaped[..., colours:], given[..., colours:])
    if dtype == "uint16":
        assert len(np.unique(shaped[..., :colours])) > 1000
    if name.endswith(".tif"):
        with tifffile.TiffFile(path) as old, tifffile.TiffFile(target) as new:
            assert (old.byteorder, old.is_bigtiff) == (new.byteorder, new.is_bigtiff)
            assert tags(old) == tags(new)


def tags(file: tifffile.TiffFile) -> list[dict[int, object]]:
    """All tags of all pages but where and how long the parts are."""
    places = (273, 279, 324, 325)
    return [
        {(t.code, i): t.value for i, t in enumerate(p.aspage().tags) if t.code not in places}
        for p in file.pages
    ]


def test_stacks_keep_the_tags_of_every_page(tmp_path, model):
    stack = np.stack([noisy(40, 50, 1, "uint16") for _ in range(3)])
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        for i, page in enumerate(stack):
            own = [(65000, "s", 0, f"page {i}", True)]
            file.write(
                page,
                compression="zlib",
                description=f"z = {i}",
                metadata=None,
                contiguous=False,
                extratags=own,
            )
    tifffile.imwrite(
        tmp_path / "imagej.tif",
        stack[:, None],
        imagej=True,
        resolution=(2.0, 2.0),
        metadata={"unit": "um", "axes": "ZCYX"},
    )
    tifffile.imwrite(
        tmp_path / "ome.ome.tif", stack, metadata={"axes": "TYX", "PhysicalSizeX": 0.25}
    )
    for name in ("pages.tif", "imagej.tif", "ome.ome.tif"):
        picture = opened(tmp_path / name)
        assert picture.values[0].axes in ("NHW", "DHW", "THW")
        with picture.written(tmp_path / f"out-{name}") as (result,):
            model.denoise_into(result, NoisyArray(picture.values[0].array, picture.values[0].axes))
        with (
            tifffile.TiffFile(tmp_path / name) as old,
            tifffile.TiffFile(tmp_path / f"out-{name}") as new,
        ):
            assert tags(old) == tags(new)
            assert old.series[0].axes == new.series[0].axes
            assert old.imagej_metadata == new.imagej_metadata
            after = new.asarray()
        # Pages do not see one another.
        alone = model.denoise(stack[1], scale=levels(stack)[1])
        # rounded in another range
        assert np.abs(after.reshape(stack.shape)[1].astype(int) - alone).max() <= 1


def test_pages_of_several_sizes(tmp_path, model):
    """In the order of the file, whatever series they belong to."""
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        for height in (40, 24):
            file.write(
                noisy(40, 50, 1, "uint8"), compression="zlib", contiguous=False, metadata=None
            )
            file.write(
                noisy(30, height, 3, "uint8"), compression="zlib", photometric="rgb", metadata=None
            )
    assert (
        run("denoise", tmp_path / "mixed.tif", "-o", tmp_path / "out", cwd=tmp_path).returncode == 0
    )
    with tifffile.TiffFile(tmp_path / "out" / "mixed.tif") as file:
        assert [p.shape for p in file.pages] == [(40, 50), (30, 40, 3), (40, 50), (30, 24, 3)]


def test_tags_that_are_not_as_they_should_be_are_kept_as_they_are(tmp_path):
    odd = [
        (315, 2, 6, "Jürgen".encode("latin-1"), True),  # not ASCII
        (306, 2, 11, b"2026-11-22\0", True),  # not the form of a TIFF date
        (301, 3, 6, np.arange(6, dtype="<u2").tobytes(), True),
        (65000, 12, 2, np.array([1.5, np.pi]).tobytes(), True),
    ]
    for name, compression in (("plain.tif", None), ("deflated.tif", "zlib")):
        with tifffile.TiffWriter(tmp_path / name, byteorder="<") as file:
            file.write(
                noisy(16, 20, 1, "uint8"),
                compression=compression,
                extratags=odd,
                metadata=None,
                software=False,
            )
        with tifffile.TiffFile(tmp_path / name, mode="r+b") as file:
            file.pages[0].tags[282].overwrite((72, 0))  # a resolution without a unit of length
    done = run("denoise", "plain.tif", "deflated.tif", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("plain.tif", "deflated.tif"):
        raw = []
        for path in (tmp_path / name, tmp_path / "out" / name):
            with tifffile.TiffFile(path) as file:
                found = {}
                for code, *_ in odd:
                    tag = file.pages[0].tags[code]
                    file.filehandle.seek(tag.valueoffset)
                    found[code] = file.filehandle.read(tag.valuebytecount)
                raw.append(found)
        assert raw[0] == raw[1]


def test_jpeg_and_png_keep_their_metadata(tmp_path, model):
    picture = Image.fromarray(noisy(40, 50, 3, "uint8"))
    exif = Image.Exif()
    exif[274], exif[271] = 6, "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(
        tmp_path / "a.jpg",
        exif=exif,
        dpi=(300, 300),
        icc_profile=profile,
        subsampling=2,
        progressive=True,
    )
    text = PngImagePlugin.PngInfo()
    text.add_itxt("Title", "Möwe")
    picture.save(tmp_path / "a.png", exif=exif, dpi=(300, 300), icc_profile=profile, pnginfo=text)
    done = run("denoise", "a.jpg", "a.png", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("a.jpg", "a.png"):
        with Image.open(tmp_path / name) as old, Image.open(tmp_path / "out" / name) as new:
            new.load()
            assert (old.size, old.mode) == (new.size, new.mode)
            assert dict(new.getexif()) == dict(exif)
            assert new.info["icc_profile"] == profile
            assert new.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            if name == "a.png":
                assert new.info["Title"] == "Möwe"
            else:
                assert new.info["progressive"]


def test_palettes_and_single_bits_are_said_to_change(tmp_path):
    Image.fromarray(noisy(40, 50, 3, "uint8")).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(noisy(40, 50, 1, "uint8")).convert("1").save(tmp_path / "bits.png")
    done = run("denoise", "palette.png", "bits.png", "-o", "out", cwd=tmp_path)
    assert "out/palette.png (its palette became colours)" in done.stdout
    assert "bits.png: a mask of 1 bit, copied" in done.stdout
    done = run("denoise", "bits.png", "-o", "grey", "--label-images", "denoise", cwd=tmp_path)
    assert "grey/bits.png (its 1 bit became 8)" in done.stdout
    with Image.open(tmp_path / "out" / "palette.png") as image:
        assert image.mode == "RGB"


# Python


def test_arrays_of_any_layout(model):
    grey, colour = noisy(40, 50, 1, "uint8"), noisy(40, 50, 3, "uint8")
    assert of_picture((40, 50, 3)) == "HWC"
    assert of_picture((3, 50, 3)) == "HWC"
    assert of_picture((3, 50, 3), channels_first=True) == "CHW"
    assert of_picture((7, 3, 40, 50)) == "NCHW"
    assert of_picture((7, 40, 50, 1)) == "NHWC"
    with pytest.raises(
        InputError, match=r"an array of shape \(5, 6, 7, 8, 9\): which axis is what"
    ):
        of_picture((5, 6, 7, 8, 9))
    plain = model.denoise(colour)
    assert np.array_equal(model.denoise(colour.transpose(2, 0, 1)), plain.transpose(2, 0, 1))
    assert np.array_equal(model.denoise(np.stack([colour, colour]))[1], plain)
    assert np.array_equal(
        model.denoise(colour.transpose(1, 2, 0), axes="WCH"), plain.transpose(1, 2, 0)
    )
    tensor = model.denoise(torch.from_numpy(colour).permute(2, 0, 1))
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), plain)
    assert np.array_equal(model.denoise(np.asfortranarray(colour)), plain)
    assert np.array_equal(model.denoise(colour[::-1])[::-1].shape, plain.shape)
    # A grey picture is the same as a colour one of equal channels; many channels are one at a time.
    many = np.stack([grey] * 6, -1)
    assert np.array_equal(model.denoise(many, axes="HWC")[..., 4], model.denoise(grey))
    with pytest.raises(InputError, match="axes=HWX: does not fit an array of shape"):
        model.denoise(colour, axes="HWX")
    with pytest.raises(InputError, match="values of type bool: must be one of uint8"):
        model.denoise(grey > 3)
    with pytest.raises(InputError, match=r"values of type bfloat16: must be one of uint8"):
        model.denoise(torch.zeros(4, 4, dtype=torch.bfloat16))
    with pytest.raises(InputError, match="holds no pixels"):
        model.denoise(grey[:0])


def test_captures_one_after_the_other_are_all_denoised(model, tmp_path):
    """Two or four images before height and width are frames, not channels with transparency."""
    for count in (2, 4, 5):
        frames = np.stack([noisy(24, 28, 1, "uint8") for _ in range(count)])
        np.save(tmp_path / "frames.npy", frames)
        assert not opened(tmp_path / "frames.npy").values[0].alpha
        for result in (model.denoise(frames), model.denoise(torch.from_numpy(frames)).numpy()):
            assert np.array_equal(result[-1], model.denoise(frames[-1]))
    scenes = np.stack([frames[:2]] * 3)  # (scenes, captures, H, W)
    assert np.array_equal(model.denoise(scenes)[2, 1], model.denoise(frames[1]))
    tifffile.imwrite(tmp_path / "one.tif", frames[..., None], metadata=None)
    assert opened(tmp_path / "one.tif").values[0].axes == "NHW"


def test_transparency_does_not_say_what_is_white(tmp_path):
    model = TrainedDenoiser(Half(), 3)
    image = (noisy(32, 32, 4, "float32").clip(0, 1) * 4095).astype(np.uint16)
    image[..., 3] = 65535
    model.denoise(image)
    assert model.network.seen[0].max() > 0.8
    assert (model.denoise(image)[..., 3] == 65535).all()


def test_extreme_values_stay_in_their_type():
    model = TrainedDenoiser(nn.Conv2d(1, 1, 1), 1)
    nn.init.constant_(model.network.weight, 1)
    nn.init.constant_(model.network.bias, 1e-3)
    for dtype in ("uint8", "uint16", "int16", "int32", "uint32"):
        largest = np.iinfo(dtype).max
        assert (model.denoise(np.full((4, 4), largest, dtype)) == largest).all()
        assert (model.denoise(np.full((4, 4), np.iinfo(dtype).min, dtype)) <= largest // 100).all()
    assert np.isfinite(model.denoise(np.full((4, 4), 65504, np.float16))).all()
    nn.init.zeros_(model.network.bias)
    for value in (1e-300, 1e300):
        assert model.denoise(np.full((4, 4), value)) == pytest.approx(value, rel=1e-5)
    for scale in (0, -1, float("inf"), float("nan")):
        with pytest.raises(InputError, match=r"scale=.*: must be larger than 0, and finite"):
            model.denoise(np.ones((4, 4)), scale=scale)


def test_images_and_tensors_in_unit_range_through_the_module(model):
    image = torch.rand(2, 3, 37, 41)
    assert isinstance(model, nn.Module)
    assert not model.training
    output = model(image)
    assert output.shape == image.shape
    assert output.dtype == torch.float32
    assert torch.allclose(model.denoise(image), output, atol=1e-6)


def test_one_channel_and_many_channel_networks():
    grey = TrainedDenoiser(networks.ResidualUNet(channels=1, width=4), 1)
    colour = noisy(24, 32, 3, "uint8")
    assert np.array_equal(grey.denoise(colour)[..., 1], grey.denoise(colour[..., 1].copy()))
    two = TrainedDenoiser(networks.ResidualUNet(channels=2, width=4), 2)
    with torch.no_grad():
        nn.init.normal_(two.network.output.weight, std=0.05)
    pair = noisy(24, 32, 2, "uint8")
    # a channel of its own, not transparency
    assert (two.denoise(pair)[..., 1] != pair[..., 1]).any()
    with pytest.raises(InputError, match="3 channels: the checkpoint is for images with 2"):
        two.denoise(colour)
    # as the command does, for which a file may call the channel transparency
    result = np.empty_like(pair)
    two.denoise_into(result, NoisyArray(pair, "HWC", alpha=True))
    assert np.array_equal(result, two.denoise(pair))


@pytest.mark.parametrize(
    "model",
    [
        {
            "_target_": "n2n_lightning.inference.denoiser.load",
            "path": "other.ckpt",
            "allow": ["os"],
        },
        {"_target_": "n2n_lightning.train.main"},
        {"_target_": "os.system", "command": "touch hello"},
        {"_target_": "tests.test_denoise.touch", "path": "hello"},
        {"_target_": "n2n_lightning.networks.pad_to_multiple", "image": 1, "multiple": 2},
        {"_target_": "n2n_lightning.networks.Nothing"},
        {"_target_": 7},
        {},
        "text",
        None,
    ],
)
def test_a_checkpoint_calls_nothing_but_networks(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, spec in (
        ("best.ckpt", model),
        ("other.ckpt", {"_target_": "os.system", "command": "touch hello"}),
    ):
        torch.save({"state_dict": {}, "n2n_lightning": {"format": 1, "model": spec}}, name)
    with pytest.raises(InputError, match=r"^best\.ckpt: "):
        load("best.ckpt", allow=["tests.test_denoise"])
    assert not Path("hello").exists()


def touch(path: str) -> None:
    Path(path).touch()


def test_levels_are_judged_by_type_and_values():
    values = np.linspace(0, 1, 100_000).reshape(100, 1000)
    assert levels((values * 255).astype(np.uint8)) == (0, 255)
    assert levels((values * 40).astype(np.uint8)) == (0, 255)
    assert levels((values * 4000).astype(np.uint16)) == (0, 4095)
    hot = (values * 4000).astype(np.uint16)
    hot[50, 505] = 65535
    assert levels(hot) == (0, 4095)
    assert levels((values * 60000).astype(np.uint16)) == (0, 65535)
    assert levels(values) == levels(values * 0.5) == (0, 1)
    # A black level, a unit of one's own, values below zero: spread over the middle of the range.
    shifted = (
        (30000 + 600 * values).astype(np.uint16),
        values * 3000,
        values * 1e-5,
        values * 2 - 1,
        values * 0.1 + 0.5,
    )
    for array in (*shifted, (values * 1000 - 1000).astype(np.int16)):
        black, span = levels(array)
        inside = (array.astype(float) - black) / span
        assert inside.min() == pytest.approx(0.1, abs=0.01)
        assert inside.max() == pytest.approx(0.9, abs=0.01)
    assert levels(np.full((4, 4), np.nan)) == levels(np.zeros((4, 4))) == (0, 1)
    # The same picture in 12 of 16 bits is the same for the network.
    image = noisy(64, 64, 1, "float32")
    model = TrainedDenoiser(Half(), 3)
    for scale in (4095, 65535):
        model.network.seen.clear()
        model.denoise((image * scale).round().clip(0, scale).astype(np.uint16))
        assert np.abs(model.network.seen[0][0, 0].numpy() - image.clip(0, 1)).max() < 1e-3


def test_a_black_level_or_a_unit_does_not_matter(model):
    clean = smooth(64, 64, 1)[..., 0].astype(np.float64)
    image = clean + RNG.normal(0, 0.05, clean.shape)
    plain = gain(model.denoise(image), image, clean)
    for offset, factor in ((30000, 600), (-1, 2), (0, 1e-6), (0, 1e6), (-1000, 500)):
        there = offset + factor * image
        assert gain(model.denoise(there), there, offset + factor * clean) > plain - 1


@pytest.mark.parametrize("channels", [1, 3])
def test_an_equivariant_checkpoint_gives_the_same_in_any_unit(channels):
    torch.manual_seed(0)
    network = networks.DRUNet(3, [8, 12], [1, 1], equivariant=True)
    torch.nn.init.normal_(network.output.weight, std=0.1)
    model = TrainedDenoiser(network, 3)
    draws = np.random.default_rng(0)
    image = smooth(210, 230, channels).astype(np.float32) + draws.normal(
        0, 0.05, (210, 230, channels)
    )
    image = image.astype(np.float32)
    image[40, 50], image[100, 100:102], image[:20] = 60, -30, 1.5  # hot, dead, a margin
    plain = model.denoise(image)
    assert np.array_equal(plain[:20], image[:20])
    assert np.abs(plain - image)[20:].std() > 0.005
    for a, b in ((0.01, 0), (300, 1000), (1, -5)):
        result = model.denoise((a * image.astype(np.float64) + b).astype(np.float32))
        assert np.abs((result.astype(np.float64) - b) / a - plain).max() < 5e-4  # 1e-2 of the noise
    whole = (image[110:] * 2000 + 9000).round().clip(0, 65535).astype(np.uint16)
    counts = model.denoise(whole.astype(np.float32))
    assert np.abs(model.denoise(whole).astype(float) - counts).max() <= 0.51
    assert (
        np.abs(model.denoise((2 * whole + 300).astype(np.int32)) - (2 * counts + 300)).max() <= 0.6
    )
    assert np.abs(model.denoise(image, tile=192) - plain).max() < 1e-4
    assert np.array_equal(model.denoise(np.full((40, 40), 7.5)), np.full((40, 40), 7.5))


def test_fast_differs_by_hundredths_of_the_noise(model, tmp_path):
    clean = skimage.data.astronaut()[:128, :128]
    noisy = clean + np.random.default_rng(0).normal(0, 25, clean.shape).astype(np.float32)
    np.save(tmp_path / "a.npy", noisy)
    done = run("denoise", "a.npy", "-o", "out", "--fast", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, exact = np.load(tmp_path / "out" / "a.npy"), model.denoise(noisy)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 0.1 * 25
    assert np.sqrt(np.mean((found - exact) ** 2)) < 0.02 * 25
    assert np.array_equal(found, load(fast=True).denoise(noisy))


def test_strength_mixes_the_picture_and_its_result(model, tmp_path, monkeypatch):
    image = noisy(50, 60, 3, "float32")
    image[5, 5] = np.nan
    full = model.denoise(image)
    assert np.allclose(
        model.denoise(image, strength=0.25),
        image + 0.25 * (full - image),
        atol=1e-5,
        equal_nan=True,
    )
    assert np.allclose(model.denoise(image, strength=0), image, atol=1e-6, equal_nan=True)
    woven = (
        fabrics(1, 128, [torch.full((3, 8, 8), 128, dtype=torch.uint8)], seed=8)[0].float() / 255
    )
    full = model.denoise(woven)
    assert (full - model.denoise(woven, uneven=True)).abs().max() > 1e-3  # texture was put back
    assert torch.allclose(model.denoise(woven, strength=0.5), (woven + full) / 2, atol=1e-5)
    np.save(tmp_path / "a.npy", image)
    done = run("denoise", "a.npy", "-o", "out", "--strength", "0.25", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.allclose(
        np.load(tmp_path / "out" / "a.npy"),
        model.denoise(image, strength=0.25),
        atol=1e-5,
        equal_nan=True,
    )
    done = run("denoise", "a.npy", "-o", "other", "--strength", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "--strength 2: must be 0" in done.stderr


def test_channels_that_are_not_colours_do_not_see_one_another(tmp_path, model):
    """Fluorescence: each channel has a range of its own, and nothing of the others."""
    bright, dim = (
        (smooth(48, 52, 1)[..., 0] * 50000).astype(np.uint16),
        noisy(48, 52, 1, "uint8").astype(np.uint16) * 2,
    )
    stack = np.stack([bright, dim, bright // 2])
    tifffile.imwrite(tmp_path / "cells.tif", stack, imagej=True, metadata={"axes": "CYX"})
    values = opened(tmp_path / "cells.tif").values[0]
    assert (values.axes, values.colour) == ("CHW", False)
    assert run("denoise", "cells.tif", "-o", "out", cwd=tmp_path).returncode == 0
    result = tifffile.imread(tmp_path / "out" / "cells.tif")
    for i in range(3):
        assert np.array_equal(result[i], model.denoise(stack[i]))
    # a network that was trained on such captures takes them together
    own = TrainedDenoiser(Half(), 3, checkpoint_files.CheckpointInfo(scale=65535.0))
    own.denoise_into(np.empty_like(stack), NoisyArray(stack, "CHW", colour=False))
    assert np.array_equal(own.network.seen[0][0].numpy() * 65535, stack.astype(np.float32))


def test_axes_of_npy_files_can_be_said(tmp_path, model):
    # three frames look like a colour picture
    frames = np.stack([noisy(24, 28, 1, "uint8") for _ in range(3)])
    np.save(tmp_path / "frames.npy", frames)
    assert run("denoise", "frames.npy", "-o", "out", "--axes", "NHW", cwd=tmp_path).returncode == 0
    assert np.array_equal(np.load(tmp_path / "out" / "frames.npy")[1], model.denoise(frames[1]))
    done = run("denoise", "frames.npy", "-o", "more", "--axes", "HW", cwd=tmp_path)
    assert done.stderr.startswith(
        "error: frames.npy: its shape is (3, 24, 28); --axes HW does not fit"
    )


def test_the_scale_of_training_is_used(tmp_path):
    model = TrainedDenoiser(Half(), 3, checkpoint_files.CheckpointInfo(scale=1000.0))
    model.denoise(np.full((8, 8), 500, np.uint16))
    assert model.network.seen[-1].unique().tolist() == [0.5]
    model.denoise(np.full((8, 8), 500, np.uint16), scale=2000)
    assert model.network.seen[-1].unique().tolist() == [0.25]
    with pytest.raises(InputError, match=r"a list: must be a numpy array or a torch tensor"):
        model.denoise([1, 2])
    with pytest.raises(InputError, match=r"network.onnx: an export for other programs"):
        load("network.onnx")


def test_values_are_rounded_and_kept_in_the_range_of_their_type():
    model = TrainedDenoiser(nn.Conv2d(1, 1, 1), 1)
    nn.init.constant_(model.network.weight, 1)
    nn.init.constant_(model.network.bias, 0.5)
    image = np.array([[0, 100, 200]], np.uint8)
    assert model.denoise(image).tolist() == [[128, 228, 255]]
    assert model.denoise(image.astype(np.float32) / 255)[0, 2] > 1.2  # floats are not clipped


def test_missing_values_stay_missing_and_do_not_spread(model):
    image = noisy(40, 50, 3, "float32")
    holes = image.copy()
    holes[10:14, 10:14, 1], holes[20, 20] = np.nan, np.inf
    result = model.denoise(holes)
    assert np.array_equal(np.isfinite(result), np.isfinite(holes))
    far = np.s_[30:, :]
    assert np.abs(result[far] - model.denoise(image)[far]).max() < 0.05


def test_the_examples_run():
    import doctest

    for module in (denoiser,):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted > 3
    assert "load" in n2n_lightning.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        n2n_lightning.nothing  # noqa: B018
    assert inspect.signature(load).parameters["path"].default == checkpoint_files.PRETRAINED


def test_the_package_is_imported_without_torch():
    code = (
        "import sys, n2n_lightning.denoise, n2n_lightning.export; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The command


def folder_of_pictures(folder: Path) -> Path:
    (folder / "deeper").mkdir(parents=True)
    png(folder / "a.png", noisy(40, 50, 3, "uint8"))
    png(folder / "deeper" / "b.png", noisy(40, 50, 1, "uint16"))
    tiff(folder / "c.TIF", noisy(40, 50, 1, "uint16"))
    Image.fromarray(noisy(40, 50, 3, "uint8")).save(folder / "d.jpeg")
    np.save(folder / "e.npy", noisy(40, 50, 1, "float32"))
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_with_a_broken_file(tmp_path):
    folder_of_pictures(tmp_path / "pictures")
    done = run("denoise", "pictures", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith(
        "error: pictures/broken.png: damaged, or not the PNG file"
    )
    assert done.stderr.splitlines()[1] == "1 of 6 pictures failed"
    assert len(done.stderr.splitlines()) == 2
    assert "left alone: notes.txt" in done.stdout
    found = sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    assert found == ["a.png", "c.TIF", "d.jpeg", "deeper/b.png", "e.npy"]

    # Again: nothing is overwritten, and what is there is not touched.
    (tmp_path / "out" / "a.png").unlink()
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    again = run("denoise", "pictures", "-o", "out", cwd=tmp_path)
    assert again.returncode == 1  # the broken one
    assert "4 of 6 pictures were there already; --overwrite replaces them" in again.stdout
    assert (tmp_path / "out" / "a.png").is_file()
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
    again = run("denoise", "pictures/a.png", "pictures/e.npy", "-o", "out", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert "2 of 2 pictures were there already; --overwrite replaces them" in again.stdout
    for overwrite in ([], ["--overwrite"]):
        itself = run("denoise", "pictures/a.png", "-o", "pictures", *overwrite, cwd=tmp_path)
        assert itself.stderr.startswith("error: pictures/a.png: would replace itself")
        assert itself.returncode == 2
    assert (
        run("denoise", "pictures/e.npy", "-o", "out", "--overwrite", cwd=tmp_path).returncode == 0
    )
    assert (tmp_path / "out" / "e.npy").stat().st_mtime_ns > stamps[tmp_path / "out" / "e.npy"]


def test_where_results_go_among_the_pictures(tmp_path):
    (tmp_path / "raw").mkdir()
    png(tmp_path / "raw" / "a.png", noisy(8, 9, 3, "uint8"))
    # the pictures lie below the results
    assert run("denoise", "raw", "-o", ".", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.png").is_file()
    for target, names in (("raw/clean", ["a.png"]), ("raw/more", ["a.png", "clean/a.png"])):
        assert run("denoise", "raw", "-o", target, cwd=tmp_path).returncode == 0
        found = sorted(
            str(p.relative_to(tmp_path / target)) for p in (tmp_path / target).rglob("*.png")
        )
        assert found == names
    png(tmp_path / "raw" / "b.png", noisy(8, 9, 3, "uint8"))
    done = run(
        "denoise",
        "raw/**/b.png",
        "../" + tmp_path.name + "/raw/b.png",
        "-o",
        "raw/clean",
        cwd=tmp_path,
    )
    # the same file by two names; results of before are no pictures
    assert done.returncode == 0, done.stderr
    done = run("denoise", "raw/**/b.png", "-o", "raw/clean", "--overwrite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@linux
def test_one_picture_to_one_name_and_patterns(tmp_path):
    folder_of_pictures(tmp_path / "pictures")
    done = run("denoise", "pictures/a.png", "-o", "clean.png", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "clean.png").is_file()
    # broken.png is among them
    assert run("denoise", "pictures/**/*.png", "-o", "all", cwd=tmp_path).returncode == 1
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["a.png", "b.png"]
    png(tmp_path / "x[1].png", noisy(8, 9, 3, "uint8"))
    assert (
        run(
            "denoise",
            "x[1].png",
            "-o",
            "odd",
            "--tta",
            "--batch",
            "2",
            "--tile",
            "384",
            cwd=tmp_path,
        ).returncode
        == 0
    )
    os.rename(tmp_path / "x[1].png", os.fsencode(tmp_path / "pictures") + b"/\xff.png")
    odd = run("denoise", "pictures", "-o", "bytes", cwd=tmp_path)
    assert odd.returncode == 1
    assert r"bytes/\udcff.png" in odd.stdout  # the byte of the name that is no UTF-8
    assert "1 of 7 pictures failed" in odd.stderr


BAD = {
    "no such file": (["nothing.png", "-o", "out"], 1, "error: nothing.png: no such file"),
    "no match": (["*.webp", "-o", "out"], 2, "error: *.webp: matches no file"),
    "another kind": (
        ["pictures/notes.txt", "-o", "out"],
        1,
        "error: pictures/notes.txt: is none of .png, .jpg",
    ),
    "empty folder": (["empty", "-o", "out"], 2, "error: empty: holds no pictures"),
    "clash": (
        ["pictures/a.png", "other/a.png", "-o", "out"],
        2,
        "error: pictures/a.png and other/a.png would both become out/a.png",
    ),
    "another format": (
        ["pictures/a.png", "-o", "out.jpg"],
        2,
        "error: out.jpg: a .png picture stays one; name it out.png",
    ),
    "tile": (
        ["pictures/a.png", "-o", "out", "--tile", "64"],
        2,
        "error: tile=64: must be 384 or more",
    ),
    "batch": (
        ["pictures/a.png", "-o", "out", "--batch", "0"],
        2,
        "error: --batch 0: must be larger than 0",
    ),
    "scale": (
        ["pictures/a.png", "-o", "out", "--scale", "nan"],
        2,
        "error: --scale nan: must be larger than 0",
    ),
    "checkpoint": (
        ["pictures/a.png", "-o", "out", "--checkpoint", "pictures"],
        2,
        "error: pictures: not a run folder",
    ),
    "device": (
        ["pictures/a.png", "-o", "out", "--device", "quantum"],
        2,
        "error: --device quantum: ",
    ),
    "out": (["pictures/a.png"], 2, "error: the following arguments are required: -o/--out"),
    "out is a file": (
        ["pictures", "-o", "pictures/notes.txt"],
        2,
        "error: pictures/notes.txt: is a file",
    ),
    "out cannot be made": (
        ["pictures/a.png", "-o", "/proc/x"],
        1,
        "error: /proc/x/a.png: cannot be written",
    ),
    "two to one": (
        ["pictures/a.png", "pictures/d.jpeg", "-o", "out.png"],
        2,
        "error: out.png: is the name of a picture, for 2 pictures; name a folder",
    ),
    "a name of another kind": (
        ["pictures/a.png", "-o", "out.bmp"],
        2,
        "error: out.bmp: a .png picture stays one",
    ),
    "no name": (["", "-o", "out"], 2, "error: a picture without a name"),
    "infinite scale": (
        ["pictures/a.png", "-o", "out", "--scale", "inf"],
        2,
        "error: --scale inf: must be larger",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_work_gets_one_line(name, tmp_path):
    if name == "out cannot be made" and sys.platform != "linux":
        pytest.skip("there is no /proc")
    arguments, status, line = BAD[name]
    folder_of_pictures(tmp_path / "pictures")
    (tmp_path / "empty").mkdir()
    folder_of_pictures(tmp_path / "other")
    done = run("denoise", *arguments, cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr.startswith(line), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def bomb(path: Path) -> None:
    """A PNG that says it is 60,000 x 60,000 and has next to nothing in it."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100))
    parts = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def wide_tiff(path: Path, compressed: bool) -> None:
    """A TIFF whose header says 1,000,000 x 1,000,000."""
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), compression="zlib" if compressed else None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for code in (256, 257, 278):
            file.pages[0].tags[code].overwrite(1_000_000)


DAMAGED = {
    "bomb.png": (bomb, "which no photograph does; it is not read"),
    "wide.tif": (
        lambda p: wide_tiff(p, False),
        "damaged, or not the TIFF file|which no photograph does",
    ),
    "deflated.tif": (lambda p: wide_tiff(p, True), "which no photograph does; it is not read"),
    "text.png": (lambda p: p.write_text("hello"), "is no PNG file"),
    "empty.png": (lambda p: p.write_bytes(b""), "is no PNG file"),
    "empty.tif": (lambda p: p.write_bytes(b""), "damaged, or not the TIFF file"),
    "empty.npy": (lambda p: p.write_bytes(b""), "damaged, or not the NPY file"),
    "empty.jpg": (lambda p: p.write_bytes(b""), "damaged, or not the JPEG file"),
    "objects.npy": (
        lambda p: np.save(p, np.array([{}, None]), allow_pickle=True),
        "damaged, or not the NPY file",
    ),
    "complex.npy": (
        lambda p: np.save(p, np.zeros((4, 4), complex)),
        "values of type complex128: must be one of uint8",
    ),
    "axes.npy": (lambda p: np.save(p, np.zeros((5,) * 5)), "which axis is what"),
    "none.npy": (lambda p: np.save(p, np.zeros((0, 4))), "holds no pixels"),
    "short.npy": (
        lambda p: (np.save(p, np.zeros((40, 40))), os.truncate(p, 500)),
        "damaged, or not the NPY file",
    ),
    "cmyk.jpg": (lambda p: Image.new("CMYK", (8, 8)).save(p), "is a CMYK JPEG; convert it to RGB"),
    "moving.png": (
        lambda p: Image.new("L", (8, 8)).save(
            p, save_all=True, append_images=[Image.new("L", (8, 8), 9)]
        ),
        "is an animation",
    ),
    "palette.tif": (
        lambda p: tifffile.imwrite(
            p,
            np.zeros((8, 8), np.uint8),
            photometric="palette",
            colormap=np.zeros((3, 256), np.uint16),
        ),
        "is a palette TIFF",
    ),
    "pyramid.tif": (lambda p: pyramid(p), "has its image in several resolutions"),
    "ycbcr.tif": (
        lambda p: Image.new("YCbCr", (8, 8)).save(p, compression="tiff_lzw"),
        "is a YCbCr TIFF",
    ),
    "volume.tif": (
        lambda p: tifffile.imwrite(
            p, np.zeros((16, 16, 16), np.uint8), volumetric=True, tile=(16, 16, 16)
        ),
        "is a volumetric TIFF",
    ),
    "cut.tif": (lambda p: cut(p), "is truncated"),
    "planes.ome.tif": (lambda p: fewer_planes(p), "its description and its pages disagree"),
    "png.jpg": (
        lambda p: Image.new("L", (8, 8)).save(p, format="PNG"),
        "damaged, or not the JPEG file",
    ),
}


def moving(path: Path) -> None:
    first, second = Image.new("L", (8, 8)), Image.new("L", (8, 8), 9)
    first.save(path, save_all=True, append_images=[second])


def palette(path: Path) -> None:
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), photometric="palette", colormap=colours)


def cut(path: Path) -> None:
    """Four pages, of which the last two are lost."""
    with tifffile.TiffWriter(path) as file:
        for _ in range(4):
            file.write(RNG.integers(0, 255, (32, 32), np.uint8), contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as file:
        third = file.pages[2].offset
    os.truncate(path, third)


def fewer_planes(path: Path) -> None:
    """An OME description of three planes in a file that holds two."""
    tifffile.imwrite(
        path, np.zeros((3, 16, 16), np.uint8), metadata={"axes": "ZYX"}, compression="zlib"
    )
    with tifffile.TiffFile(path) as file:
        description = file.pages[0].description.encode()
    with tifffile.TiffWriter(path, ome=False) as file:
        for i in range(2):
            text = description if i == 0 else None
            file.write(
                np.zeros((16, 16), np.uint8),
                compression="zlib",
                description=text,
                metadata=None,
                contiguous=False,
            )


def pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((64, 64), np.uint8), subifds=1)
        file.write(np.zeros((32, 32), np.uint8), subfiletype=1)


@pytest.mark.parametrize("name", DAMAGED)
def test_pictures_that_cannot_be_read(name, tmp_path):
    make, message = DAMAGED[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        [
            picture.meaning(values)
            for picture in [opened(tmp_path / name)]
            for values in picture.values
        ]
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_a_very_wide_picture(tmp_path, model):
    image = RNG.integers(0, 255, (2, 50_000), np.uint8)
    assert model.denoise(image).shape == image.shape


# The checkpoint of the package, and what is exported


def test_the_pretrained_checkpoint_is_small_and_denoises(model):
    assert checkpoint_files.PRETRAINED.stat().st_size < 6e6
    from skimage import data

    clean = data.astronaut()[100:300, 100:300] / 255
    for sigma, least in ((10, 1.5), (25, 5), (50, 7)):
        dirty = clean + np.random.default_rng(1).normal(0, sigma / 255, clean.shape)
        assert gain(model.denoise(dirty), dirty, clean) > least


def test_the_recipe_of_the_pretrained_checkpoint_is_the_experiment(model):
    from tests.test_train import composed

    spec = checkpoint_files.read_checkpoint(checkpoint_files.PRETRAINED)["n2n_lightning"]["model"]
    config = composed("experiment=pretrained")["model"]
    assert {"dims": 2, **spec} == {**config, "channels": 3, "dims": 2}


@pytest.mark.parametrize("suffix", ["onnx", "pt2", "ckpt"])
def test_export(suffix, tmp_path):
    out = tmp_path / f"network.{suffix}"
    done = run("export", checkpoint_files.PRETRAINED, out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "largest difference from PyTorch" in done.stdout
    image = torch.rand(3, 3, 50, 31)
    expected = load()(image)
    if suffix == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(out)
        found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        assert session.run(None, {"image": image[:1, :, :1, :2].numpy()})[0].shape == (1, 3, 1, 2)
    elif suffix == "pt2":
        code = (
            "import sys, torch; network = torch.export.load(sys.argv[1]).module()\n"
            "print(tuple(network(torch.rand(1, 3, 5, 64)).shape), 'n2n_lightning' in sys.modules)"
        )
        alone = subprocess.run(
            [sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True
        )
        assert alone.stdout.split("\n")[0] == "(1, 3, 5, 64) False"
        found = torch.export.load(out).module()(image)
    else:
        found = load(out)(image)
        assert set(torch.load(out, weights_only=True)) == {"state_dict", "n2n_lightning"}
    assert torch.allclose(found, expected, atol=1e-5)
    again = run("export", checkpoint_files.PRETRAINED, out, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (
        2,
        f"error: {out}: exists; --overwrite replaces it\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["EncoderDecoder", "UNet", "Noise2NoiseUNet", "DnCNN", "NAFNet", "DRUNet"]
)
def test_export_of_every_network(name, tmp_path):
    network = getattr(networks, name)()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    spec = {"_target_": f"n2n_lightning.networks.{name}", "channels": 3}
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save(
        {"state_dict": state, "n2n_lightning": {"format": 1, "model": spec}}, tmp_path / "a.ckpt"
    )
    done = run("export", "a.ckpt", "a.pt2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    exported = torch.export.load(tmp_path / "a.pt2").module()
    with torch.no_grad():
        for size in ((1, 33, 64), (2, 64, 96), (1, 7, 5)):
            image = torch.rand(size[0], 3, *size[1:])
            assert torch.allclose(exported(image), network.eval()(image), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_a_model_of_the_zoo_does_in_its_own_library_what_the_network_does(dims, tmp_path):
    """Offline, on stored values: black 100, and 900 above it white."""
    network = networks.DRUNet(2, [4, 6], [1, 1], dims=dims)
    spec = {
        "model": {"_target_": "n2n_lightning.networks.DRUNet", **network.arguments},
        "range": [100.0, 900.0],
    }
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "n2n_lightning": {"format": 1, **spec}}, tmp_path / "a.ckpt")
    done = run("export", "a.ckpt", "zoo.zip", "--author", "Ada", "--license", "MIT", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stored values, as they are" in done.stdout
    sides = {2: (110, 128), 3: (36, 40, 40)}[dims]
    stored = np.random.default_rng(0).normal(500, 90, (1, 2, *sides)).astype(np.float32)
    np.save(tmp_path / "noisy.npy", stored)
    theirs = (
        "import bioimageio.core as zoo, numpy as np\n"
        "assert zoo.test_model('zoo.zip', weight_format='onnx').status == 'passed'\n"
        "found = zoo.predict(model='zoo.zip', inputs={'image': np.load('noisy.npy')})\n"
        "np.save('clean.npy', np.asarray(found.members['denoised'].data.data))\n"
        "described = zoo.load_model_description('zoo.zip')\n"
        "assert (described.authors[0].name, str(described.license)) == ('Ada', 'MIT')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", theirs], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    expected = load(tmp_path / "a.ckpt").denoise(
        stored, axes="NCDHW" if dims == 3 else "NCHW", tile=None
    )
    assert np.allclose(np.load(tmp_path / "clean.npy"), expected, atol=0.1)
    done = run("export", "a.ckpt", "other.zip", "--license", "none of these", cwd=tmp_path)
    assert done.returncode == 2
    assert "--license none of these: must be a name of https://spdx.org/licenses" in done.stderr
    assert not (tmp_path / "other.zip").exists()


def test_export_refuses_what_it_does_not_know(tmp_path):
    done = run("export", checkpoint_files.PRETRAINED, "network.exe", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: network.exe: its name should end in .onnx, .pt2, .ckpt, .zip\n",
    )
    done = run("export", "nothing.ckpt", "network.onnx", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: nothing.ckpt: no such file\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    "N2N_DATA" not in os.environ, reason="N2N_DATA names no folder with photographs"
)
def test_real_camera_noise_becomes_less(model):
    scores = []
    for path in sorted(Path(os.environ["N2N_DATA"], "cc15_real").glob("*_real.png")):
        before, clean = (
            opened(p).values[0].array / 255
            for p in (path, Path(str(path).replace("_real.p", "_mean.p")))
        )
        scores.append(gain(model.denoise(before), before, clean))
    assert min(scores) > 0
    assert np.mean(scores) > 0.5, json.dumps(scores)
