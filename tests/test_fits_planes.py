"""Flags, errors and weights in FITS files are no pictures: they stay, and flags are masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import run

fits = pytest.importorskip("astropy.io.fits")

from n2n_lightning.data import SingleImages  # noqa: E402
from n2n_lightning.data.reading import read_single  # noqa: E402
from n2n_lightning.data.reading_files import read_array  # noqa: E402
from n2n_lightning.files import InputError  # noqa: E402
from n2n_lightning.formats import opened  # noqa: E402
from n2n_lightning.formats.fits_planes import good_flags  # noqa: E402


def sky(seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[:64, :80]
    clean = 100 + 3000 * np.exp(-((y - 30) ** 2 + (x - 40) ** 2) / 800)
    return np.random.default_rng(seed).poisson(clean).astype(np.float32)


def flags(seed: int = 4, kind: type = np.int16) -> np.ndarray:
    draws = np.random.default_rng(seed)
    found = np.zeros((64, 80), kind)
    for bit in (1, 4, 256):
        found[tuple(draws.integers(0, 64, (2, 30)))] |= bit
    return found


def hst(
    path: Path, garbage: float | None = None, header: dict[str, str] | None = None
) -> np.ndarray:
    """A file of two chips as HST writes it; returns the flags of the first."""
    hdus = [fits.PrimaryHDU()]
    hdus[0].header.update(header or {})
    for version in (1, 2):
        image, dq = sky(version), flags(version)
        if garbage is not None:
            image[dq != 0] = garbage
        hdus += [
            fits.ImageHDU(image, name="SCI", ver=version),
            fits.ImageHDU(np.sqrt(image), name="ERR", ver=version),
        ]
        hdus += [fits.ImageHDU(dq, name="DQ", ver=version)]
    fits.HDUList(hdus).writeto(path)
    return flags(1)


def denoise(*args: object) -> Any:
    return run("denoise", *args, cwd=Path.cwd())


@pytest.mark.slow
def test_planes_stay_and_flagged_pixels_touch_nothing(tmp_path: Path) -> None:
    dq = hst(tmp_path / "a_flt.fits")
    hst(tmp_path / "b_flt.fits", garbage=1e6)
    found = denoise(tmp_path / "a_flt.fits", tmp_path / "b_flt.fits", "-o", tmp_path / "out")
    assert found.returncode == 0, found.stderr
    assert "DQ,2 copied as they are" in found.stdout
    assert f"{int((dq != 0).sum() + (flags(2) != 0).sum())} flagged pixels" in found.stdout
    with (
        fits.open(tmp_path / "a_flt.fits") as source,
        fits.open(tmp_path / "out" / "a_flt.fits") as one,
        fits.open(tmp_path / "out" / "b_flt.fits") as other,
    ):
        for version in (1, 2):
            assert (one["DQ", version].data == source["DQ", version].data).all()
            assert (one["ERR", version].data == source["ERR", version].data).all()
            gone = source["DQ", version].data != 0
            assert (one["SCI", version].data[gone] == source["SCI", version].data[gone]).all()
            assert (other["SCI", version].data[gone] == 1e6).all()
            assert (one["SCI", version].data[~gone] == other["SCI", version].data[~gone]).all()
            assert (
                one["SCI", version].data[~gone] != source["SCI", version].data[~gone]
            ).mean() > 0.9


@pytest.mark.walk
@pytest.mark.parametrize("part", ["SCI,2", "sci,2", "4"])
def test_parts_by_name_and_number(tmp_path: Path, part: str) -> None:
    hst(tmp_path / "flt.fits")
    found = denoise(f"{tmp_path / 'flt.fits'}:{part}", "-o", tmp_path / "out")
    assert found.returncode == 0, found.stderr
    with (
        fits.open(tmp_path / "flt.fits") as source,
        fits.open(tmp_path / "out" / "flt.fits") as result,
    ):
        changed = [
            number
            for number, hdu in enumerate(source)
            if number and (hdu.data != result[number].data).any()
        ]
    assert changed == [4]
    assert len(read_array(f"{tmp_path / 'flt.fits'}:{part}")) == 1


def test_a_plane_is_denoised_where_it_is_named(tmp_path: Path) -> None:
    hst(tmp_path / "flt.fits")
    assert opened(f"{tmp_path / 'flt.fits'}:ERR,1").values[0].shape == (64, 80)
    with pytest.raises(
        InputError, match=r"no image 'WHT'; name one: flt.fits:SCI,1, flt.fits:ERR,1"
    ):
        opened(f"{tmp_path / 'flt.fits'}:WHT")


def test_masks_of_ccdproc(tmp_path: Path) -> None:
    mask = (np.random.default_rng(0).random((64, 80)) < 0.02).astype(np.uint8)
    planes = [fits.ImageHDU(mask, name="MASK"), fits.ImageHDU(np.sqrt(sky()), name="UNCERT")]
    fits.HDUList([fits.PrimaryHDU(sky().astype(np.uint16)), *planes]).writeto(tmp_path / "ccd.fits")
    picture = opened(tmp_path / "ccd.fits")
    assert len(picture.values) == 1
    assert (picture.values[0].invalid == (mask != 0)).all()
    (images,) = read_array(tmp_path / "ccd.fits")
    assert (np.isnan(images[0, 0].numpy()) == (mask != 0)).all()
    data = SingleImages(str(tmp_path / "ccd.fits"), crop=16, batch_size=2)
    data.setup()
    assert data.dq_good is None


def test_flags_that_instruments_call_harmless(tmp_path: Path) -> None:
    dq = hst(tmp_path / "acs.fits", header={"TELESCOP": "HST", "INSTRUME": "ACS"})
    assert (opened(tmp_path / "acs.fits").values[0].invalid == ((dq & ~256) != 0)).all()
    with good_flags(4):
        assert (opened(tmp_path / "acs.fits").values[0].invalid == ((dq & ~4) != 0)).all()
    hst(tmp_path / "plain.fits")
    assert (opened(tmp_path / "plain.fits").values[0].invalid == (dq != 0)).all()


def test_unsigned_flags_of_jwst(tmp_path: Path) -> None:
    dq = flags(kind=np.uint32)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(sky(), name="SCI"), fits.ImageHDU(dq, name="DQ")]
    hdus[0].header["TELESCOP"] = "JWST"
    fits.HDUList(hdus).writeto(tmp_path / "rate.fits")
    assert (opened(tmp_path / "rate.fits").values[0].invalid == ((dq & 1) != 0)).all()


def test_bits_of_lsst_by_name(tmp_path: Path) -> None:
    mask = np.zeros((64, 80), np.int32)
    mask[:40] = 1 << 5
    mask[3, 4] |= 1 << 3
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(sky(), name="IMAGE"), fits.ImageHDU(mask, name="MASK")]
    hdus += [fits.ImageHDU(sky(), name="VARIANCE")]
    hdus[2].header.update({"MP_CR": 3, "HIERARCH MP_DETECTED": 5})
    fits.HDUList(hdus).writeto(tmp_path / "calexp.fits")
    (values,) = opened(tmp_path / "calexp.fits").values
    assert np.argwhere(values.invalid).tolist() == [[3, 4]]


@pytest.mark.walk
def test_too_many_flags_name_the_option(tmp_path: Path) -> None:
    dq = np.full((64, 80), 8, np.int16)
    fits.HDUList([fits.PrimaryHDU(sky()), fits.ImageHDU(dq, name="DQ")]).writeto(
        tmp_path / "a.fits"
    )
    found = denoise(tmp_path / "a.fits", "-o", tmp_path / "out")
    assert found.returncode == 1
    assert "DQ,1 flags 100% of the pixels" in found.stderr
    assert "--dq-good 4+8" in found.stderr
    assert not (tmp_path / "out" / "a.fits").exists()
    assert denoise(tmp_path / "a.fits", "-o", tmp_path / "out", "--dq-good", "8").returncode == 0
    assert denoise(tmp_path / "a.fits", "-o", tmp_path / "out2", "--dq-good", "all").returncode == 0
    wrong = denoise(tmp_path / "a.fits", "-o", tmp_path / "out3", "--dq-good", "x")
    assert wrong.returncode == 2
    assert "error: --dq-good x: must be bits" in wrong.stderr
    data = SingleImages(str(tmp_path / "a.fits"), crop=16, batch_size=2, dq_good=8)
    data.setup()


def test_a_file_of_flags_alone(tmp_path: Path) -> None:
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(flags(), name="DQ")]).writeto(
        tmp_path / "a.fits"
    )
    with pytest.raises(InputError, match="by the names of its HDUs"):
        opened(tmp_path / "a.fits")


def test_names_of_two_words_and_of_several_detectors(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU()]
    for k in (1, 2):
        hdus += [
            fits.ImageHDU(sky(k), name=f"CCD{k}.SCI"),
            fits.ImageHDU(flags(k), name=f"CCD{k}.FLG"),
        ]
    fits.HDUList(hdus).writeto(tmp_path / "several.fits")
    fits.HDUList([fits.PrimaryHDU(sky()), fits.ImageHDU(flags(), name="DATA QUALITY")]).writeto(
        tmp_path / "one.fits"
    )
    for name, expected in (("several.fits", [flags(1), flags(2)]), ("one.fits", [flags()])):
        found = opened(tmp_path / name).values
        assert len(found) == len(expected)
        for values, bits in zip(found, expected, strict=True):
            assert values.invalid is not None
            assert (np.squeeze(values.invalid) == (bits != 0)).all()


def test_frames_of_which_only_some_have_flags_are_read_together(tmp_path: Path) -> None:
    for number, flagged in enumerate((False, True, True)):
        image = fits.ImageHDU(sky(number).astype(np.int16), name="SCI")
        planes = [fits.PrimaryHDU(), image]
        if flagged:
            planes.append(fits.ImageHDU(flags(number), name="DQ"))
        fits.HDUList(planes).writeto(tmp_path / f"{number}.fits")
    scenes = read_single(str(tmp_path))
    images = [scenes.image(i, 0).numpy()[0] for i in range(3)]
    assert {image.dtype.name for image in images} == {"float32"}
    assert np.array_equal(images[0], sky(0).astype(np.int16))
    assert np.array_equal(np.isnan(images[1]), flags(1) != 0)
