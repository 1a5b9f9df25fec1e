"""Texture that the network removed is put back."""

import numpy as np
import pytest
import torch
from PIL import Image

from n2n_lightning import load
from n2n_lightning.arrays.normalization import IntensityScaling
from n2n_lightning.data.generated.fabrics import fabrics
from n2n_lightning.inference import page as pages
from n2n_lightning.inference.page import Page
from n2n_lightning.inference.texture import put_back
from tests.conftest import run
from tests.pictures import RNG, gain, model, smooth  # noqa: F401


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


@pytest.mark.walk
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
