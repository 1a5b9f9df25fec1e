"""Files of pictures that differ from the common ones: colour models, transparency, orientation."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from n2n_lightning.data.reading_files import read_picture
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from tests.captures import denoised, model, no_noise_from_lightning, noisy8, scene  # noqa: F401


def test_ome_files_that_name_one_another_are_each_their_own_picture(tmp_path, model):
    names = [f"urn:uuid:0000000{t}-0000-0000-0000-000000000000" for t in range(3)]
    planes = "".join(
        f'<TiffData IFD="0" FirstT="{t}" FirstZ="0" FirstC="0" PlaneCount="1">'
        f'<UUID FileName="s{t}.ome.tif">{name}</UUID></TiffData>'
        for t, name in enumerate(names)
    )
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{names[0]}"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="64" '
        'SizeY="64" SizeZ="1" SizeC="1" SizeT="3">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels>'
        "</Image></OME>"
    )
    for t in range(3):
        values = np.full((64, 64), 40 + 80 * t, np.uint8)
        values[::2] += 1
        tifffile.imwrite(
            tmp_path / f"s{t}.ome.tif", values, description=text if t == 0 else None, metadata=None
        )
    for t in range(3):
        before = opened(tmp_path / f"s{t}.ome.tif").values[0].array
        assert before.shape == (64, 64)
        assert abs(before.mean() - 40.5 - 80 * t) < 1
        result = denoised(tmp_path / f"s{t}.ome.tif", model)
        assert abs(result.mean() - 40.5 - 80 * t) < 1


@pytest.mark.parametrize(
    ("photometric", "name"), [("cielab", "CIELAB"), ("separated", "CMYK"), ("icclab", "ICCLAB")]
)
def test_other_colour_models_are_refused(photometric, name, tmp_path):
    channels = 4 if photometric == "separated" else 3
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((16, 16, channels), np.uint8), photometric=photometric
    )
    for read in (opened, read_picture):
        with pytest.raises(InputError, match=f"is a {name} TIFF"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_transparency_stays_in_any_layout_and_is_not_trained_on(planar, kind, tmp_path, model):
    image = np.stack(
        [noisy8(scene(48, 40, i), i) for i in range(3)] + [np.full((48, 40), 200, np.uint8)], -1
    )
    stored = image if planar == "contig" else image.transpose(2, 0, 1)
    options = {"photometric": "rgb", "planarconfig": planar, "extrasamples": [kind]}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    result = denoised(tmp_path / "a.tif", model)
    result = result if planar == "contig" else result.transpose(1, 2, 0)
    assert (result[..., 3] == 200).all()
    assert not np.array_equal(result[..., :3], image[..., :3])
    assert read_picture(tmp_path / "a.tif").shape == (3, 48, 40)


def test_photographs_are_turned_as_exif_says(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:5, :8] = 250  # the bright corner, top left
    for orientation, corner in {1: (0, 0), 3: (-1, -1), 6: (0, -1), 8: (-1, 0)}.items():
        exif = Image.Exif()
        exif[274] = orientation
        for name in ("a.jpg", "a.png", "a.webp"):
            Image.fromarray(pixels).save(
                tmp_path / name, exif=exif, **({"lossless": True} if "webp" in name else {})
            )
            image = read_picture(tmp_path / name)
            assert image.shape[1:] == ((20, 30) if orientation < 5 else (30, 20))
            assert image[0][corner] > 200, (name, orientation)


def test_lossless_webp_with_a_large_profile_stays_lossless(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, icc_profile=bytes(8000))
    assert opened(tmp_path / "a.webp").options["lossless"]
    Image.fromarray(pixels).save(tmp_path / "b.webp", quality=80)
    assert not opened(tmp_path / "b.webp").options["lossless"]
