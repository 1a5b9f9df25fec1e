"""Frames of colour cameras before demosaicking: four planes apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n2n_lightning import load
from n2n_lightning.files import InputError
from n2n_lightning.formats import mosaics
from tests.conftest import run


def frame() -> tuple[np.ndarray, np.ndarray]:
    """A clean mosaic and a noisy one."""
    from skimage import data

    rgb = (data.astronaut()[:128, 100:228] / 255) ** 2.2 * np.array([0.5, 1.0, 0.7])
    clean = np.empty(rgb.shape[:2])
    for y, x, colour in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        clean[y::2, x::2] = rgb[y::2, x::2, colour]
    draws = np.random.default_rng(5)
    noisy = draws.poisson(clean * 800) * 50 + draws.normal(500, 60, clean.shape)
    return clean * 40000 + 500, noisy.clip(0, 65535).round().astype(np.uint16)


def test_four_planes_keep_the_colours() -> None:
    clean, noisy = frame()
    result = load().denoise(noisy, mosaic="RGGB")
    errors = [float(np.sqrt(((image - clean) ** 2).mean())) for image in (noisy, result)]
    assert errors[1] < 0.85 * errors[0]
    greens = [float(image[::2, 1::2].mean() - image[::2, ::2].mean()) for image in (clean, result)]
    assert abs(greens[1] / greens[0] - 1) < 0.05
    with pytest.raises(InputError, match="must be one of auto, none, RGGB"):
        load().denoise(noisy, mosaic="RGB")


@pytest.mark.slow
def test_the_header_of_a_fits_file_decides(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    import tifffile

    clean, noisy = frame()
    hdu = fits.PrimaryHDU(noisy)
    hdu.header["BAYERPAT"] = "RGGB"
    hdu.writeto(tmp_path / "osc.fits")
    tifffile.imwrite(tmp_path / "mosaic.tif", noisy)
    found = run("denoise", "osc.fits", "mosaic.tif", "-o", "out", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "osc.fits: denoised as a colour mosaic (RGGB), its four planes apart" in found.stdout
    assert "mosaic.tif: has a period of 2 pixels" in found.stdout
    with fits.open(tmp_path / "out" / "osc.fits") as file:
        assert ((file[0].data - clean) ** 2).mean() < 0.8 * ((noisy - clean) ** 2).mean()


def test_photographs_are_no_mosaics() -> None:
    from skimage import data

    assert not mosaics.looks_like_one(data.camera(), "HW")
    assert mosaics.looks_like_one(frame()[1], "HW")


def save_raw(
    path: Path, image: np.ndarray, colours: bytes = bytes([1, 0, 2, 1]), **options: Any
) -> None:
    """A TIFF as cameras write them: GRBG by its tags."""
    import tifffile

    tags = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, colours, True)]
    tifffile.imwrite(path, image, photometric="cfa", extratags=tags, metadata=None, **options)


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_the_tags_of_a_tiff_decide(tmp_path: Path, compression: str | None) -> None:
    import tifffile

    clean, noisy = (image[:, 1:-1] for image in frame())  # begins with green
    save_raw(tmp_path / "raw.tif", noisy, compression=compression)
    found = run("denoise", "raw.tif", "-o", "out", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "raw.tif: denoised as a colour mosaic (GRBG), its four planes apart" in found.stdout
    with tifffile.TiffFile(tmp_path / "out" / "raw.tif") as file:
        page = file.pages[0].aspage()
        assert page.photometric == 32803
        assert bytes(page.tags[33422].value) == bytes([1, 0, 2, 1])
        assert ((page.asarray() - clean) ** 2).mean() < 0.8 * ((noisy - clean) ** 2).mean()


def test_other_colours_are_refused(tmp_path: Path) -> None:
    save_raw(tmp_path / "raw.tif", frame()[1], bytes([3, 4, 5, 1]))
    found = run("denoise", "raw.tif", "-o", "out", cwd=tmp_path)
    assert found.returncode == 1
    assert (
        "is a raw frame of the colours 2x2 ???G; those of RGGB, BGGR, GRBG, GBRG are read"
        in found.stderr
    )


def test_rounding_is_judged_by_the_planes() -> None:
    dark = (
        np.random.default_rng(2)
        .poisson(np.tile([[0.1, 30.0], [30.0, 12.0]], (64, 64)))
        .astype(np.uint16)
    )
    assert load().denoise(dark, mosaic="RGGB").dtype == np.float32


def test_training_refuses_them_and_leaves_labels_out(tmp_path: Path) -> None:
    import tifffile

    from n2n_lightning.data import SingleImages
    from n2n_lightning.data.reading import read_single
    from n2n_lightning.data.reading_files import refuse_mosaics

    save_raw(tmp_path / "raw.tif", frame()[1])
    with pytest.raises(InputError, match="is a raw frame of a colour camera"):
        SingleImages(str(tmp_path / "raw.tif")).load()
    tifffile.imwrite(tmp_path / "plain.tif", frame()[1])
    assert "has a period of 2 pixels" in refuse_mosaics(str(tmp_path / "plain.tif"))
    (tmp_path / "cells").mkdir()
    image = np.random.default_rng(0).normal(100, 9, (64, 64)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "cells" / "a.tif", image)
    tifffile.imwrite(
        tmp_path / "cells" / "a_labels.tif",
        np.kron(np.arange(16).reshape(4, 4), np.ones((16, 16), int)).astype(np.uint8),
    )
    scenes = read_single(str(tmp_path / "cells"))
    assert len(scenes.names) == 1
    assert scenes.dropped == ("a_labels.tif (label images)",)
