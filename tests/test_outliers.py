"""Isolated outliers: kept as they are stored, replaced on evidence alone, listed, and scored."""

import json

import numpy as np
import pytest
import tifffile
import torch
from scipy.special import erf

from n2n_lightning import load
from n2n_lightning.api import score
from n2n_lightning.arrays import outliers
from n2n_lightning.arrays.outlier_lists import Listed, PageOutliers, find_outliers, inside
from n2n_lightning.data import PairedImages
from n2n_lightning.files import InputError
from tests.conftest import run

TRAIN = [
    "model=residual_unet",
    "model.width=4",
    "model.levels=2",
    "trainer.max_epochs=1",
    "data.train_pairs=16",
]
TRAIN += ["data.batch_size=8", "trainer.accelerator=cpu", "trainer.precision=32-true"]


@pytest.fixture(scope="module")
def model():
    return load()


def star_field(fwhm, count, size, peak, seed=0, sigma=5.0, sky=100.0):
    """Stars of one brightness, integrated over pixels: noisy and clean picture, places (y, x)."""
    draws = np.random.default_rng(seed)
    width, edge = fwhm / 2.3548, np.arange(size)
    place = draws.uniform(12, size - 12, (count, 2))
    clean = np.full((size, size), sky)
    for y, x in place:
        along = [
            0.5 * (erf((edge + 0.5 - c) / width / 2**0.5) - erf((edge - 0.5 - c) / width / 2**0.5))
            for c in (y, x)
        ]
        profile = np.outer(*along)
        clean += peak * profile / profile.max()
    return (clean + draws.normal(0, sigma, clean.shape)).astype(np.float32), clean, place


def flux(image, place, sky=100.0, radius=2.5):
    y, x = np.indices(image.shape)
    return np.array(
        [(image[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] - sky).sum() for cy, cx in place]
    )


@pytest.mark.parametrize("fwhm", [1.0, 1.3, 1.6])
def test_undersampled_stars_keep_their_flux(fwhm, model):
    noisy, _, place = star_field(fwhm, 25, 256, 1000.0)
    kept, replaced = (
        model.denoise(noisy, axes="HW", outliers=choice) for choice in ("auto", "replace")
    )
    wanted = flux(noisy, place)
    assert abs((flux(kept, place) / wanted).mean() - 1) < 0.03
    assert (flux(replaced, place) / wanted).mean() < 0.9  # what they are kept from


def test_peaks_and_scatterers_come_out_bit_for_bit_and_are_mapped(model):
    draws = np.random.default_rng(0)
    bragg = np.full((160, 160), 3.0)
    peaks = tuple(draws.permutation(140)[:20] + 8 for _ in range(2))
    bragg[peaks] += draws.uniform(500, 20_000, 20)
    counts = draws.poisson(bragg).astype(np.uint32)
    radar = (draws.gamma(1, 1, (160, 160)) * 100).astype(np.float32)
    radar[peaks] += 40_000
    for image in (counts, radar):
        result, marks = model.denoise(image, axes="HW", outlier_map=True)
        assert (result[peaks] == image[peaks]).all()
        assert (marks[peaks] == 1).all()
        assert marks.dtype == np.uint8
        assert (marks == 2).sum() == 0
        assert (result[marks == 1] == image[marks == 1]).all()
        assert result[marks == 0].std() < 0.7 * image[marks == 0].std()  # the rest is denoised
    tensor, marks = model.denoise(torch.from_numpy(radar), axes="HW", outlier_map=True)
    assert isinstance(marks, torch.Tensor)
    assert (tensor.numpy()[peaks] == radar[peaks]).all()


def test_an_isolated_pixel_changes_nothing_around_it(model):
    plain = np.random.default_rng(0).normal(1000, 20, (128, 128)).astype(np.float32)
    hot = plain.copy()
    hot[60, 60] = 60_000
    before, after = (model.denoise(image, axes="HW") for image in (plain, hot))
    assert after[60, 60] == 60_000
    changed = np.abs(after - before)
    changed[60, 60] = 0
    assert changed.max() < 10  # half of the noise's deviation, next to the pixel
    kept = model.denoise(hot, axes="HW", outliers="keep")
    assert kept[60, 60] != 60_000  # as any pixel: it went through the network
    with pytest.raises(InputError, match="outliers=some: must be one of auto, replace, keep"):
        model.denoise(plain, axes="HW", outliers="some")


def test_another_capture_is_evidence(model):
    draws = np.random.default_rng(1)
    pair = draws.normal(1000, 20, (2, 96, 96)).astype(np.float32)
    pair[:, 30, 30] += 50_000  # of the scene
    pair[0, 60, 61] += 50_000  # a cosmic ray
    pair[1, 10, 12:15] += 50_000
    result, marks = model.denoise(pair, axes="KHW", outlier_map=True)
    assert (result[:, 30, 30] == pair[:, 30, 30]).all()
    assert abs(result[0, 60, 61] - 1000) < 30
    assert np.abs(result[1, 10, 12:15] - 1000).max() < 30
    assert (marks[0] == 2).sum() == 1
    assert (marks[1] == 2).sum() == 3
    # of a movie it may be an event
    frames, marks = model.denoise(pair, axes="THW", outlier_map=True)
    assert frames[0, 60, 61] == pair[0, 60, 61]
    assert (marks == 2).sum() == 0


def different_scenes(count, size=96):
    """Pictures of different things by one detector, whose pixel (20, 70) is hot."""
    y, x = np.mgrid[:size, :size]
    images = []
    for i in range(count):
        draws = np.random.default_rng(i)
        scene = 1000 + 300 * np.sin((y * np.cos(i) + x * np.sin(i)) / (4 + i))
        images.append((scene + draws.normal(0, 20, scene.shape)).round())
    stack = np.stack(images)
    stack[:, 20, 70] = 60_000
    return stack.astype(np.uint16)


def test_the_same_pixel_of_different_scenes_is_a_defect_and_of_one_scene_is_not(model):
    result, marks = model.denoise(different_scenes(4), axes="NHW", outlier_map=True)
    assert (marks[:, 20, 70] == 2).all()
    assert result[:, 20, 70].max() < 3000
    star, _, place = star_field(1.3, 12, 96, 1000.0)
    noise = np.random.default_rng(3).normal(0, 5, (4, 96, 96))
    exposures = (star + noise).astype(np.float32)  # of one field, aligned
    result = model.denoise(exposures, axes="NHW")
    assert abs((flux(result[0], place) / flux(exposures[0], place)).mean() - 1) < 0.03


def test_a_scene_that_comes_back_after_another_one_keeps_its_star(model):
    first, second = different_scenes(2)
    first[60, 30] = 50_000
    again = first + np.random.default_rng(5).integers(0, 20, first.shape).astype(first.dtype)
    result = model.denoise(np.stack([first, second, again]), axes="NHW")
    assert result[0, 60, 30] == 50_000


@pytest.mark.slow
def test_the_command_says_what_it_left_and_writes_a_map(tmp_path):
    image = np.random.default_rng(0).normal(1000, 20, (64, 64)).round().astype(np.uint16)
    image[20, 30] = 60_000
    tifffile.imwrite(tmp_path / "a.tif", image)
    done = run("denoise", "a.tif", "-o", "out", "--outlier-map", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 isolated pixel keeps its stored value" in done.stdout
    result, marks = (
        tifffile.imread(tmp_path / "out" / name) for name in ("a.tif", "a.outliers.tif")
    )
    assert result[20, 30] == 60_000
    assert marks[20, 30] == 1
    mask = np.zeros((64, 64), np.uint8)
    mask[20, 30] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    done = run("denoise", "a.tif", "-o", "masked", "--bad-pixels", "mask.tif", cwd=tmp_path)
    assert "1 isolated pixel replaced" in done.stdout, done.stdout + done.stderr
    assert abs(int(tifffile.imread(tmp_path / "masked/a.tif")[20, 30]) - 1000) < 30
    # the map is no picture of the person's
    again = run("denoise", "out", "-o", "again", cwd=tmp_path)
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == ["a.tif"], again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [["a.outliers.tif"], ["b.tif", "a.outliers.tif", "--halves"]])
def test_the_map_is_not_written_over_a_picture(tmp_path, inputs):
    image = np.random.default_rng(0).normal(1000, 20, (64, 64)).astype(np.float32)
    for name in ("a.outliers.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, image)
    done = run("denoise", *inputs, "-o", "a.tif", "--outlier-map", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "a.outliers.tif" in done.stderr
    assert not (tmp_path / "a.tif").exists()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.outliers.tif"), image)


@pytest.mark.slow
def test_a_folder_of_different_scenes_shows_the_defects_of_its_detector(tmp_path):
    (tmp_path / "in").mkdir()
    for i, image in enumerate(different_scenes(3)):
        tifffile.imwrite(tmp_path / "in" / f"{i}.tif", image)
    done = run("denoise", "in", "-o", "out", cwd=tmp_path)
    assert "1 pixels stand out in most of its different pictures" in done.stdout, (
        done.stdout + done.stderr
    )
    assert tifffile.imread(tmp_path / "out" / "1.tif")[20, 70] < 3000
    halves = np.random.default_rng(0).normal(1000, 20, (2, 64, 64)).astype(np.float32)
    halves[0, 9, 9] = 50_000
    for name, image in zip("ab", halves, strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
    done = run(
        "denoise", "a.tif", "b.tif", "--halves", "-o", "mean.tif", "--outlier-map", cwd=tmp_path
    )
    assert "1 isolated pixel replaced" in done.stdout, done.stdout + done.stderr
    assert abs(tifffile.imread(tmp_path / "mean.tif")[9, 9] - 1000) < 30
    assert tifffile.imread(tmp_path / "mean.outliers.tif")[9, 9] == 2


def test_points_of_pages_strips_and_volumes():
    image = torch.zeros(2, 700, 1700)  # more than one strip
    image += torch.rand(image.shape, generator=torch.Generator().manual_seed(0)) * 0.01
    wanted = [(0, 3, 5), (0, 617, 800), (1, 616, 2), (1, 690, 1690)]
    for point in wanted:
        image[point] = 9.0
    found = find_outliers(lambda place: image[(slice(None), *place)], (700, 1700), flanks=False)
    assert sorted(map(tuple, found.tolist())) == wanted
    volume = image[:, None, :64, :64].repeat(1, 5, 1, 1)
    volume[1, 4, 30, 31] = 9.0
    found = find_outliers(lambda place: volume[(slice(None), *place)], (5, 64, 64), flanks=True)
    assert (1, 4, 30, 31) in set(map(tuple, found.tolist()))
    assert len(found) == 6
    assert [
        part.tolist() for part in inside(found[-1:], (slice(3, 5), slice(20, 40), slice(20, 40)))
    ] == [
        [1],
        [1],
        [10],
        [11],
    ]
    assert len(PageOutliers.none(3).all) == 0


def test_scores_count_what_is_left_with_its_stored_value_and_again_without():
    """Erased points cost the first score; the second leaves them out."""
    draws = torch.Generator().manual_seed(0)
    first, second = (0.5 + 0.01 * torch.randn(1, 1, 64, 64, generator=draws) for _ in range(2))
    for image in (first, second):
        image[0, 0, 20, 20] = 5.0
    first[0, 0, 40, 40] = 5.0  # which the second capture lacks
    listed = Listed.of(first, second, "auto", repeats=True)
    assert listed.count == 2
    assert listed.left.nonzero().tolist() == [[0, 0, 20, 20]]
    assert listed.first.isnan().nonzero().tolist() == [[0, 0, 40, 40]]
    smooth = torch.full_like(first, 0.5)
    assert listed.restored(smooth)[0, 0, 20, 20] == 5.0
    assert listed.without(first).isnan().sum() == 2
    erased = Listed.of(first, second, "replace", repeats=True)
    assert erased.restored(smooth)[0, 0, 20, 20] == 0.5
    # of a movie it may be an event
    assert Listed.of(first, second, "auto", repeats=False).left.sum() == 2
    assert outliers.lacking(first, second, outliers.outlier_mask(first)).nonzero().tolist() == [
        [0, 0, 40, 40]
    ]


@pytest.mark.slow
def test_evaluate_and_python_show_both_scores(tmp_path, model):
    truth = np.stack([star_field(1.0, 2, 96, 20_000.0, seed=i)[1] for i in range(3)])
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(
            tmp_path / f"{name}.npy", (truth + draws.normal(0, 20, truth.shape)).astype(np.float32)
        )
    np.save(tmp_path / "clean.npy", truth.astype(np.float32))
    estimated = score(model, tmp_path / "a.npy", tmp_path / "b.npy", layout="NHW")
    assert estimated["outlier_pixels"] >= 6
    assert estimated["psnr_estimate_without_outliers"] > estimated["psnr_estimate"] - 0.5
    for name, options in (
        ("psnr", ["--clean", "clean.npy"]),
        ("psnr_estimate", ["--val-target", "b.npy"]),
    ):
        asked = [
            "evaluate",
            "--data",
            "pairs",
            "--val-noisy",
            "a.npy",
            *options,
            "--json",
            f"{name}.json",
        ]
        done = run(*asked, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        row = json.loads((tmp_path / f"{name}.json").read_text())["scores"]["noisy input"]
        assert f"without {row['outlier_pixels']} outliers" in done.stdout
        # both have the noise alone
        assert row[name] == pytest.approx(row[f"{name}_without_outliers"], abs=0.5)


@pytest.mark.slow
def test_training_prints_both_scores_and_replacing_points_costs_the_first(tmp_path):
    scenes = np.stack([star_field(1.0, 2, 96, 20_000.0, seed=i)[1] for i in range(8)])
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(
            tmp_path / f"{name}.npy",
            (scenes + draws.normal(0, 20, scenes.shape)).astype(np.float32),
        )
    results = {}
    for choice in ("auto", "replace"):
        asked = [
            *TRAIN,
            "data=pairs",
            "data.noisy=a.npy",
            "data.target=b.npy",
            f"data.outliers={choice}",
            "data.crop=32",
        ]
        done = run("train", *asked, f"hydra.run.dir={choice}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results[choice] = json.loads((tmp_path / choice / "result.json").read_text())
        assert f"without {results[choice]['outlier_pixels']:.0f} isolated pixels" in done.stdout
    assert results["auto"]["outlier_pixels"] >= 2
    assert results["replace"]["val_psnr_estimate"] < results["auto"]["val_psnr_estimate"] - 3
    known = [
        results[choice]["val_psnr_estimate_without_outliers"] for choice in ("auto", "replace")
    ]
    assert known[1] == pytest.approx(known[0], abs=1.5)
    with pytest.raises(InputError, match=r"data\.outliers=some"):
        PairedImages("a.npy", outliers="some")
