"""Frames of colour cameras before demosaicking: four planes apart."""

from pathlib import Path

import numpy as np
import pytest

from n2n_lightning import load, mosaics
from n2n_lightning.files import InputError
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
