"""Structure in what was removed and added: noise has no marks, planted structure has."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from n2n_lightning.metrics.autocorrelation import LAGS, correlated_noise
from n2n_lightning.metrics.residual_structure import residual_structure

SIZE = (1, 96, 96)
SKY = 100.0


def white(brightness):
    """Return the variance of noise with a deviation of 1."""
    return np.ones_like(brightness)


def drawn(seed, shape=SIZE):
    return np.random.default_rng(seed).normal(0, 1, shape)


def line_segment(signal_to_noise):
    """Return a line of 31 pixels, with this sum of squares' root."""
    line = np.zeros(SIZE)
    for step in range(31):
        line[0, 30 + step, 40 + step // 2] = 1
    return line * signal_to_noise / np.sqrt((line**2).sum())


def spot(signal_to_noise, row=30, column=50, deviation=1.2):
    rows, columns = np.mgrid[: SIZE[1], : SIZE[2]]
    distance = (rows - row) ** 2 + (columns - column) ** 2
    spot = np.exp(-distance / (2 * deviation**2))[None]
    return spot * signal_to_noise / np.sqrt((spot**2).sum())


def grating(signal_to_noise):
    rows, columns = np.mgrid[: SIZE[1], : SIZE[2]]
    inside = (rows - 48) ** 2 + (columns - 48) ** 2
    wave = np.cos(0.8 * columns + 0.9 * rows) * np.exp(-inside / (2 * 7.0**2))
    return wave[None] * signal_to_noise / np.sqrt((wave**2).sum())


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7], ids=lambda kept: f"noise kept {kept}")
def test_an_oracle_has_no_mark(kept):
    """A part of the noise stays in the result: little power in the residual is no mark."""
    scene = SKY + 30 * np.kron(drawn(1, (1, 12, 12)), np.ones((8, 8)))
    for seed in range(4):
        noise = drawn(seed)
        found = residual_structure([scene + noise], [scene + kept * noise], white)
        assert found.places == []
        assert found.variance_ratio == pytest.approx((1 - kept) ** 2, rel=0.1)
        assert "no structure found" in found.line()


@pytest.mark.parametrize("shape", [line_segment, spot, grating])
@pytest.mark.parametrize("removed", [1.0, 0.7])
def test_planted_structure_is_named_where_it_was_removed(shape, removed):
    structure = shape(10)
    noisy = SKY + structure + drawn(3)
    found = residual_structure([noisy], [SKY + (1 - removed) * structure], white)
    assert found.count("removed") >= 1
    assert found.count("added") == 0
    strong = abs(structure) > 0.3 * abs(structure).max()
    assert found.mask[strong].any()
    for place in found.places:
        top, left, bottom, right = place.box
        assert strong[0, top:bottom, left:right].any()


def test_smoothing_removes_stars():
    stars = spot(30, 20, 20, 0.8) + spot(30, 70, 60, 0.8)
    noisy = SKY + stars + drawn(4)
    smooth = gaussian_filter(noisy, (0, 3, 3))
    found = residual_structure([noisy], [smooth], white)
    for row, column in ((20, 20), (70, 60)):
        assert found.mask[0, row, column] == 1
    assert found.mask[0, 45, 45] == 0


def test_a_ghost_was_added():
    ghost = spot(12)
    found = residual_structure([SKY + drawn(5)], [SKY + ghost], white)
    assert found.count("added") >= 1
    assert found.count("removed") == 0
    assert found.mask[0, 30, 50] == 2


def test_two_captures_find_what_one_cannot():
    """Both results agree on a ghost of 4.8 deviations: of the mean of the captures it has 6.8."""
    ghost = spot(4.8, deviation=1.7)
    captures = [SKY + drawn(26), SKY + drawn(27)]
    single = residual_structure(captures[:1], [SKY + ghost], white)
    pair = residual_structure(captures, [SKY + ghost] * 2, white)
    assert single.count("added") == 0
    assert pair.count("added") >= 1
    assert pair.captures == 2


def test_photon_noise_is_skewed():
    counts = np.random.default_rng(8).poisson(0.3, (1, 128, 128)).astype(float)
    flat = np.full_like(counts, 0.3)
    known = residual_structure([counts], [flat], lambda brightness: brightness, slope=1.0)
    assert known.places == []
    unknown = residual_structure([counts], [flat], lambda brightness: brightness)
    assert unknown.places


def test_correlated_noise_is_measured_with_its_correlation():
    autocorrelation = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    rows, columns = np.mgrid[-LAGS : LAGS + 1, -LAGS : LAGS + 1]
    autocorrelation = np.exp(-(rows**2 + columns**2) / (4 * 1.2**2))
    noise = correlated_noise(SIZE, autocorrelation, np.random.default_rng(9))
    flat = np.full(SIZE, SKY)
    assert residual_structure([SKY + noise], [flat], white, autocorrelation).places == []
    assert residual_structure([SKY + noise], [flat], white).places


def test_missing_pixels_are_not_searched():
    noisy = SKY + drawn(10) + spot(20)
    noisy[0, 20:40, 40:60] = np.nan
    found = residual_structure([noisy], [np.full(SIZE, SKY)], white)
    assert found.places == []
    assert found.searched == pytest.approx(1 - 400 / 96**2)
    nothing = residual_structure([np.full(SIZE, np.nan)], [np.full(SIZE, SKY)], white)
    assert nothing.searched == 0
    assert nothing.places == []


def test_raised_power_is_a_mark():
    """Unresolved texture: no single wave, but more power than noise has."""
    noise = drawn(11)
    texture = np.zeros(SIZE)
    texture[0, 40:72, 20:52] = drawn(12, (32, 32)) * 0.9
    found = residual_structure([SKY + noise + texture], [np.full(SIZE, SKY)], white)
    assert any(place.feature == "power" for place in found.places)
    assert found.mask[0, 56, 36] == 1


def test_an_uncertain_variance_allows_for_its_error():
    noise = drawn(13) * 1.15
    flat = np.full(SIZE, SKY)
    assert residual_structure([SKY + noise], [flat], white).places
    assert residual_structure([SKY + noise], [flat], white, relative_error=0.2).places == []


def test_channels_are_searched_apart_and_written():
    noisy = np.concatenate([SKY + drawn(14), SKY + drawn(15) + spot(15)])
    found = residual_structure([noisy], [np.full_like(noisy, SKY)], white)
    assert {place.channel for place in found.places} == {1}
    written = found.as_dict()
    assert written["places"][0]["kind"] == "removed"
    assert "removed in 1 place" in written["line"]
