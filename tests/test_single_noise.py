"""The noise of one picture, with known truth."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut, camera

from n2n_lightning.metrics.autocorrelation import LAGS
from n2n_lightning.metrics.single_noise import single_noise

SIDE = 256


def clean_photo():
    """The middle of a photograph with sky, grass and a dark coat, (1, SIDE, SIDE)."""
    return camera()[80 : 80 + SIDE, 100 : 100 + SIDE].astype(np.float64)[None]


def white(shape=(1, SIDE, SIDE), seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("sigma", [5, 10, 25])
def test_white_noise_of_a_photograph(sigma):
    noise = single_noise(clean_photo() + sigma * white())
    assert noise.measurable
    assert noise.white is True
    assert noise.sigma == pytest.approx(sigma, rel=0.07)
    low, high = noise.interval()
    assert low < sigma < high
    assert np.count_nonzero(noise.autocorrelation) == 1


def test_the_line_of_counts():
    clean = clean_photo()
    counts = 3.0 * np.random.default_rng(1).poisson(clean / 3)
    noise = single_noise(counts)
    assert noise.white is True
    for light in (60, 120, 180):
        assert noise.variance(light) == pytest.approx(3 * light, rel=0.15)


def test_the_unit_and_the_black_level_do_not_matter():
    noisy = clean_photo() + 10 * white()
    noise = single_noise(noisy)
    scaled = single_noise(0.01 * noisy - 700)
    assert scaled.sigma == pytest.approx(0.01 * noise.sigma, rel=0.01)
    assert scaled.variance(-699) == pytest.approx(1e-4 * noise.variance(100), rel=0.02)


def test_each_channel_has_its_line():
    clean = astronaut()[:SIDE, :SIDE].transpose(2, 0, 1).astype(np.float64)
    sigmas = np.array([5, 10, 20])
    noise = single_noise(clean + sigmas[:, None, None] * white(clean.shape))
    said = np.sqrt(noise.a + noise.b * noise.brightness)
    assert said == pytest.approx(sigmas, rel=0.1)


@pytest.mark.parametrize(
    ("blur", "kind"),
    [((0, 0, 1), "along rows"), ((0, 1, 0), "along columns"), ((0, 1, 1), "in all directions")],
)
def test_correlated_noise_is_named(blur, kind):
    noise = gaussian_filter(white(), blur)
    noise *= 10 / noise.std()
    single = single_noise(clean_photo() + noise)
    assert single.white is False
    assert single.kind == kind
    rows, columns = (LAGS, LAGS + 1) if blur[2] else (LAGS + 1, LAGS)
    assert single.autocorrelation[rows, columns] > 0.3  # of noise blurred by 1 it is 0.78


def test_stripes_are_named():
    stripes = np.sqrt(0.5) * np.broadcast_to(white((1, SIDE, 1), 1), (1, SIDE, SIDE))
    noise = single_noise(clean_photo() + 10 * (stripes + np.sqrt(0.5) * white()))
    assert noise.white is False
    assert noise.kind == "along rows"


def test_faint_stripes_are_found_and_planks_are_none():
    rows = white((1, SIDE, 1), 1)
    planks = clean_photo()
    planks[:, 120:, :200] += 30 * (np.arange(120, SIDE) % 7 < 2)[:, None]
    noise = single_noise(planks + 10 * white())
    assert noise.white is not False
    noise = single_noise(clean_photo() + 10 * (np.sqrt(0.1) * rows + np.sqrt(0.9) * white()))
    assert noise.white is False
    assert noise.kind == "along rows"
    assert noise.autocorrelation[LAGS, 2 * LAGS] == pytest.approx(0.1, abs=0.04)


def test_missing_and_clipped_values_do_not_count():
    noisy = clean_photo() + 10 * white()
    noisy[:, 100:140] = np.nan
    noisy[:, :, :60] = 255
    noise = single_noise(noisy)
    assert noise.measurable
    assert noise.sigma == pytest.approx(10, rel=0.07)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((1, SIDE, SIDE), 7.0), "too few blocks"),
        (np.full((1, SIDE, SIDE), np.nan), "too few blocks"),
        (white((1, 32, 200)), "smaller than"),
    ],
)
def test_pictures_that_do_not_show_their_noise(image, reason):
    noise = single_noise(image)
    assert not noise.measurable
    assert reason in noise.reason
    assert noise.white is None
    assert np.isnan(noise.sigma)


def test_the_direction_has_the_strength_of_the_noise():
    clean = clean_photo()
    noise = single_noise(clean + 10 * white())
    direction = noise.direction(clean, np.random.default_rng(0))
    assert direction.std() == pytest.approx(noise.sigma, rel=0.05)
