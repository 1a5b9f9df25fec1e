"""Hot pixels, margins and missing pixels in training and in results."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from n2n_lightning.arrays import bad_pixels, normalization, outliers
from n2n_lightning.data import PairedImages
from tests.captures import denoised, frame, model, no_noise_from_lightning, own, scene  # noqa: F401
from tests.conftest import run

EXACT = ["trainer.accelerator=cpu", "trainer.precision=32-true"]


WILD = {
    "hot": lambda a: a.__setitem__((60, 60), 60_000),
    "moderate": lambda a: a.__setitem__((60, 60), 900),
    "dead": lambda a: a.__setitem__((60, 60), 0),
    "cluster of 4": lambda a: a.__setitem__(np.s_[60:62, 60:62], 60_000),
    "cluster of 9": lambda a: a.__setitem__(np.s_[60:63, 60:63], 30_000),
    "cosmic ray": lambda a: [a.__setitem__((60 + i // 2, 55 + i), 20_000) for i in range(12)],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", WILD)
def test_a_wild_pixel_touches_nothing_beyond_its_surroundings(kind, model):
    plain = frame(scene(160, 160), 1)
    spoilt = plain.copy()
    WILD[kind](spoilt)
    before, after = (model.denoise(image).astype(int) for image in (plain, spoilt))
    y, x = np.mgrid[:160, :160]
    changed = (spoilt != plain).nonzero()
    distance = np.min(
        [np.maximum(abs(y - cy), abs(x - cx)) for cy, cx in zip(*changed, strict=True)], 0
    )
    difference = np.abs(after - before)
    assert difference[distance > 16].max() <= 2
    assert difference[distance > 70].max() == 0  # the receptive field of the network
    assert difference[distance > 2].mean() < 0.1


def test_stars_stay_and_hot_pixels_do_not():
    """Points of light two and three pixels wide (full width at half maximum), at any position."""
    draws = np.random.default_rng(0)
    sky = draws.normal(0, 0.01, (1, 1, 400, 400))
    y, x = np.mgrid[:400, :400]
    for i in range(60):
        cy, cx, sigma = draws.uniform(10, 390), draws.uniform(10, 390), (2 + i % 2) / 2.355
        sky[0, 0] += draws.uniform(2, 30) * np.exp(
            -((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma**2)
        )
    image = torch.from_numpy(sky).float()
    assert outliers.outlier_mask(image) is None
    spots = draws.integers(0, 400, (40, 2))
    for cy, cx in spots:
        if abs(float(image[0, 0, cy, cx])) < 0.03:
            image[0, 0, cy, cx] = 20
    found = outliers.outlier_mask(image)
    assert torch.equal(found, image == 20)


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf, -9999.0, -3.4028235e38, 1e300, 0.0])
def test_margins_and_missing_pixels_stay_and_the_others_are_as_beside_nan(value, tmp_path, model):
    """Declared by GDAL's tag, or a margin of one value that nobody declared."""
    draws = np.random.default_rng(0)
    radar = (draws.gamma(4, 1, (200, 200)) * (0.05 + 0.2 * scene(200, 200, 9))).astype(
        np.float64 if value == 1e300 else "f4"
    )
    gone = np.zeros(radar.shape, bool)
    gone[:, :40] = gone[170:] = True
    results = []
    for fill in (np.nan, value):
        radar[gone] = fill
        for tags in ([(42113, 2, 0, f"{fill:g}", True)], []):
            tifffile.imwrite(tmp_path / "a.tif", radar, extratags=tags, photometric="minisblack")
            result = denoised(tmp_path / "a.tif", model)
            assert np.array_equal(result[gone], radar[gone], equal_nan=True)
            assert np.isfinite(result[~gone]).all()
            results.append(result[~gone])
    for other in results[1:]:
        assert np.array_equal(other, results[0])
    assert np.abs(results[0] - radar[~gone]).mean() > 0.01


def test_a_scan_with_a_margin_of_minus_2000(model):
    scan = np.random.default_rng(0).normal(40, 20, (128, 128)).round().astype(np.int16)
    y, x = np.mgrid[:128, :128]
    outside = (y - 64) ** 2 + (x - 64) ** 2 > 60**2
    scan[outside] = -2000
    result = model.denoise(scan)
    assert (result[outside] == -2000).all()
    assert result[~outside].std() < scan[~outside].std() / 2
    assert abs(result[~outside].mean() - 40) < 2


def test_zeros_among_photon_counts_are_data():
    counts = np.random.default_rng(0).poisson(0.05, (128, 128, 1)).astype(np.uint16)
    counts[40:80, 40:80] = np.random.default_rng(1).poisson(4, (40, 40, 1))
    assert bad_pixels.margin_value(counts) is None


def camera(folder: Path, offset: int = 100, hot: int = 0) -> dict[str, str]:
    """Twelve pairs and their clean images, as options of PairedImages."""
    draws, cleans = np.random.default_rng(5), [scene(64, 64, i) for i in range(12)]
    folder.mkdir()
    for k, name in enumerate(("noisy", "target")):
        stack = np.stack([frame(clean, 100 * k + i, offset) for i, clean in enumerate(cleans)])
        for image in stack:
            for _ in range(hot):
                image[draws.integers(64), draws.integers(64)] = 60_000
        np.save(folder / f"{name}.npy", stack)
    np.save(
        folder / "clean.npy",
        np.stack([(c * 132 + offset).round() for c in cleans]).astype(np.uint16),
    )
    return {name: str(folder / f"{name}.npy") for name in ("noisy", "target", "clean")}


@pytest.mark.walk
def test_black_levels_and_hot_pixels_cost_nothing_in_training(tmp_path):
    scores = {}
    for name, options in (("plain", {}), ("offset", {"offset": 1100}), ("hot", {"hot": 2})):
        source = [f"data.{k}={v}" for k, v in camera(tmp_path / name, **options).items()]
        asked = [
            "data=pairs",
            *source,
            "data.scale=4095",
            "data.crop=32",
            "data.batch_size=8",
            "data.train_pairs=256",
        ]
        small = ["model=residual_unet", "model.width=8", "model.levels=2", "optim.lr=0.003", *EXACT]
        done = run(
            "train",
            *asked,
            *small,
            "trainer.max_epochs=4",
            "hydra.run.dir=out/" + name,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        scores[name] = json.loads((tmp_path / "out" / name / "result.json").read_text())
    # to the bit: the level is subtracted
    assert scores["offset"]["train_loss"] == scores["plain"]["train_loss"]
    # clamped at 0 counts
    assert scores["offset"]["val_psnr"] == pytest.approx(scores["plain"]["val_psnr"], abs=0.05)
    found = {name: scores["hot"][name] for name in ("val_psnr", "val_psnr_without_outliers")}
    assert found["val_psnr_without_outliers"] == pytest.approx(scores["plain"]["val_psnr"], abs=0.3)
    assert scores["plain"]["val_psnr"] > scores["plain"]["noisy_psnr"] + 2
    assert all(score["data"]["scale"] == 4095 for score in scores.values())


def test_the_white_of_psnr_does_not_come_from_a_hot_pixel(tmp_path):
    plain, hot = (
        PairedImages(batch_size=2, **camera(tmp_path / n, hot=h)) for n, h in (("a", 0), ("b", 3))
    )
    for data in (plain, hot):
        data.setup()
    assert plain.scale == hot.scale
    assert plain.limits[0] == pytest.approx(hot.limits[0], abs=3)
    assert plain.limits[1] == pytest.approx(hot.limits[1], rel=0.05)
    low, high = normalization.robust_percentiles(
        *normalization.sampled(np.load(hot.noisy)[..., None])
    )
    assert 90 < low < high < 400


def test_sparse_counts_and_clipped_highlights_are_no_margins():
    draws = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256]
    disks = np.zeros((256, 256))
    for i in range(16):
        disks[(y - 32 - 64 * (i // 4)) ** 2 + (x - 32 - 64 * (i % 4)) ** 2 < 100] = 3
    sky = np.where(y < 120, 400, 400 - 8 * (y - 120)) + draws.normal(0, 25, (256, 256))
    for picture in (
        draws.binomial(1, 0.3, (128, 128)).astype(np.float32),
        draws.poisson(0.02, (256, 256)).astype(np.uint16),
        draws.poisson(disks).astype(np.float32),
        sky.clip(0, 255).astype(np.uint8),
        (255 - sky).clip(0, 255).astype(np.uint8),
    ):
        assert bad_pixels.margin_value(picture[..., None]) is None


def test_a_margin_of_one_image_is_data_in_the_others(tmp_path):
    draws = np.random.default_rng(0)
    stacks = [draws.poisson(1, (12, 64, 64)).astype(np.uint16) for _ in range(2)]
    for k, stack in enumerate(stacks):
        stack[0] = draws.poisson(50, (64, 64))
        stack[0, :16] = 0
        np.save(tmp_path / f"{k}.npy", stack)
    data = own(str(tmp_path / "0.npy"), str(tmp_path / "1.npy"))
    assert bad_pixels.margin_value(stacks[0][0][..., None]) == 0
    assert data.nodata_values == ()


@pytest.mark.parametrize(("width", "every"), [(1, 300), (1, 32), (1, 12), (2, 32)])
def test_thin_lines_stay(width, every, model):
    plain = np.random.default_rng(0).normal(1000, 20, (256, 256)).round().astype(np.uint16)
    lines = np.zeros(plain.shape, bool)
    for start in range(20, 256, every):
        lines[start : start + width] = lines[:, start : start + width] = True
    plain[lines] = 30_000
    assert model.denoise(plain)[lines].mean() > 25_000


def test_black_letters_on_white_paper_are_trained_on(tmp_path):
    from PIL import ImageDraw

    page = Image.new("L", (96, 96), 220)
    for row in range(6):
        ImageDraw.Draw(page).text((2, 15 * row), "the quick brown fox", fill=20)
    draws = np.random.default_rng(0)
    clean = np.asarray(page).astype(float)
    for name in "ab":
        noisy = (clean + draws.normal(0, 2, (6, 96, 96))).round().astype(np.uint8)
        np.save(tmp_path / f"{name}.npy", noisy)
    data = own(str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), crop=None)
    data.trainer = type("Trainer", (), {"training": True, "global_rank": 0, "world_size": 1})()
    pair = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert pair["target"].isfinite().all()
    assert np.ptp(pair["input"].numpy()) * data.limits[1] > 180


def test_a_constant_picture_stays_about_what_it_is(model):
    for value, kind in ((-300, np.int16), (7, np.uint8), (1000, np.uint16), (-2.5, np.float32)):
        result = model.denoise(np.full((40, 40), value, kind)).astype(float)
        assert np.abs(result - value).max() <= max(1, 0.05 * abs(value)), (
            value,
            result.min(),
            result.max(),
        )


def test_gaps_are_filled_alike_in_any_order_of_memory():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images[..., :20] = torch.nan
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(bad_pixels.inpaint(images), bad_pixels.inpaint(last))
