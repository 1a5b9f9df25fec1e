"""Results keep what their files held: tags, metadata, palettes, pages."""

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from n2n_lightning.arrays.axes import as_pages
from n2n_lightning.arrays.normalization import levels
from n2n_lightning.formats import opened
from n2n_lightning.inference.options import NoisyArray
from tests.conftest import run
from tests.pictures import gain, model, noisy, png, smooth, tiff  # noqa: F401

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


@pytest.mark.slow
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


@pytest.mark.slow
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
