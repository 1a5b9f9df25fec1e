"""The noise of movies, and Stein's estimate of denoised frames, against what is known."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, shift

from n2n_lightning.metrics.autocorrelation import LAGS
from n2n_lightning.metrics.movie_noise import MovieNoise, movie_noise
from n2n_lightning.metrics.stein import STEP, SteinEstimate

SIDE, FRAMES = 64, 40


def cells(draws: np.random.Generator, side: int = SIDE, blur: float = 1.5) -> np.ndarray:
    """A scene (H, W) of 20 to 60 photons."""
    field = gaussian_filter(draws.normal(size=(side, side)), blur, mode="wrap")
    return 40 + 20 * np.clip(field / (2 * field.std()), -1, 1)


def still(draws: np.random.Generator) -> np.ndarray:
    return np.repeat(cells(draws)[None], FRAMES, 0)


def flashing(draws: np.random.Generator) -> np.ndarray:
    """Every eighth frame a corner lights up within a frame and fades."""
    movie = still(draws)
    place = gaussian_filter(np.pad(np.ones((12, 12)), ((20, 32), (20, 32))), 1)
    for t in range(FRAMES):
        movie[t] += 40 * place * np.exp(-(t % 8) / 3)
    return movie


def drifting(draws: np.random.Generator) -> np.ndarray:
    scene = cells(draws)
    return np.stack([shift(scene, (0, 0.3 * t), mode="grid-wrap") for t in range(FRAMES)])


def panning(draws: np.random.Generator) -> np.ndarray:
    """Sharp edges that move by two pixels a frame."""
    scene = cells(draws) + 30 * (cells(draws, blur=3) > 40)
    return np.stack([np.roll(scene, 2 * t, 1) for t in range(FRAMES)])


def bleaching(draws: np.random.Generator) -> np.ndarray:
    return still(draws) * np.exp(-np.arange(FRAMES) / FRAMES)[:, None, None]


def moving(draws: np.random.Generator) -> np.ndarray:
    """A bright disc moves by two pixels a frame."""
    movie = still(draws)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for t in range(FRAMES):
        movie[t] += 80 * (np.hypot(rows - 30, columns - (2 * t) % SIDE) < 6)
    return movie


def corrupted(clean: np.ndarray, noise: str, draws: np.random.Generator) -> np.ndarray:
    """Add noise, (T, 1, H, W)."""
    noisy = clean
    if noise in ("poisson", "both"):
        noisy = draws.poisson(clean).astype(float)
    if noise in ("gaussian", "both"):
        noisy = noisy + draws.normal(0, 6, clean.shape)
    if noise == "blurred":
        white = gaussian_filter(draws.normal(size=clean.shape), (0, 0.6, 0.6), mode="wrap")
        noisy = clean + 6 * white / white.std()
    return noisy[:, None]


@pytest.mark.parametrize("noise", ["gaussian", "poisson", "both"])
@pytest.mark.parametrize("scene", [still, flashing, drifting, panning, bleaching, moving])
def test_the_variance_is_that_of_the_noise(scene, noise):
    draws = np.random.default_rng(3)
    clean = scene(draws)
    noisy = corrupted(clean, noise, draws)
    found = movie_noise(noisy)
    true = np.mean((noisy[:, 0] - clean) ** 2)
    off = found.variance(noisy.mean()) / true - 1
    assert found.measurable
    assert not found.in_space
    assert abs(found.in_time) < 0.05
    assert abs(off) < 3 * found.standard_error
    assert found.standard_error < 0.012


def test_the_line_is_that_of_photons():
    draws = np.random.default_rng(0)
    clean = 4 * still(draws)
    found = movie_noise(corrupted(clean / 4, "poisson", draws) * 4 + 100)
    assert found.b == pytest.approx(4, rel=0.1)
    assert found.variance(260.0) == pytest.approx(4 * 160, rel=0.02)
    assert found.still_share > 0.9


def test_noise_that_neighbouring_pixels_share():
    draws = np.random.default_rng(1)
    clean = still(draws)
    noisy = corrupted(clean, "blurred", draws)
    found = movie_noise(noisy)
    assert set(found.in_space) >= {(0, 1), (1, 0)}
    assert found.variance(noisy.mean()) == pytest.approx(36, rel=0.04)
    draw = found.direction(np.full((1, 400, 400), 40.0), draws)
    lag = np.mean(draw[:, 1:] * draw[:, :-1]) / np.mean(draw**2)
    assert np.mean(draw**2) == pytest.approx(found.variance(40.0), rel=0.05)
    assert lag == pytest.approx(found.in_space[1, 0], abs=0.03)


def test_what_is_not_measurable_says_why():
    draws = np.random.default_rng(2)
    white = draws.normal(0, 6, (FRAMES + 1, SIDE, SIDE))
    shared = still(draws) + 0.8 * white[1:] + 0.6 * white[:-1]
    others = np.stack([cells(draws) for _ in range(FRAMES)])
    reasons = {
        "4 frames": corrupted(still(draws), "gaussian", draws)[:4],
        "smaller than": corrupted(still(draws), "gaussian", draws)[:, :, :20],
        "no noise": still(draws)[:, None],
        "neighbouring frames is correlated": shared[:, None],
        "different things": corrupted(others, "gaussian", draws),
    }
    for reason, movie in reasons.items():
        found = movie_noise(movie)
        assert not found.measurable
        assert reason in found.reason


def test_missing_pixels_channels_and_tensors():
    draws = np.random.default_rng(4)
    clean = np.stack([still(draws), still(draws)], 1)
    noisy = clean + draws.normal(0, 6, clean.shape)
    noisy[:, :, 20:30, 5:50] = np.nan
    found = movie_noise(torch.from_numpy(noisy))
    assert found.measurable
    assert found.a.shape == (2,)
    mean = found.variance(np.nanmean(noisy, (0, 2, 3))).mean()
    assert abs(mean / 36 - 1) < 3 * found.standard_error
    volumes = movie_noise(noisy.reshape(FRAMES, 1, 2, SIDE, SIDE))
    assert volumes.a.shape == (1,)
    assert abs(volumes.variance(np.nanmean(noisy)) / 36 - 1) < 3 * volumes.standard_error
    flat = movie_noise(noisy, 1)
    assert flat.a == volumes.a
    assert flat.variance(noisy[0]).shape == noisy[0].shape


@pytest.mark.parametrize("planes", [1, 2])
def test_each_channel_has_its_line(planes):
    """Gaussian noise of 5 and 20, photons of gain 6, and a channel that is empty."""
    draws = np.random.default_rng(9)
    clean = np.stack([still(draws)] * 3 * planes, 1).reshape(FRAMES, 3, planes, SIDE, SIDE)
    noisy = clean + draws.normal(size=clean.shape) * np.reshape([5, 20, 0], (3, 1, 1, 1))
    noisy[:, 2] = 6 * draws.poisson(clean[:, 2] / 6)
    empty = np.zeros_like(noisy[:, :1])
    movie = np.concatenate([noisy, empty], 1).reshape(FRAMES, 4 * planes, SIDE, SIDE)
    found = movie_noise(movie, 4)
    assert found.measurable
    true = [25, 400, 6 * clean[:, 2].mean(), 0]
    levels = found.variance(movie.reshape(FRAMES, 4, -1).mean((0, 2)))
    assert levels == pytest.approx(true, rel=0.03)
    assert found.b[2] == pytest.approx(6, rel=0.15)
    draw = found.direction(movie[0], draws).reshape(4, -1)
    assert np.mean(draw**2, 1) == pytest.approx(true, rel=0.03)


@pytest.mark.parametrize(("factor", "share"), [(4, 0.5), (4, 0.1), (2, 0.3)])
def test_noise_that_differs_from_place_to_place_is_not_measurable(factor, share):
    draws = np.random.default_rng(10)
    clean = flashing(draws)
    deviation = np.where(np.arange(SIDE) < share * SIDE, 5 * factor, 5)
    found = movie_noise((clean + deviation * draws.normal(size=clean.shape))[:, None])
    assert found.reason == "the noise differs from place to place"


WHITE_NOISE = MovieNoise(
    np.array([36.0]), np.array([0.0]), 0.0, np.array([40.0]), np.eye(1), 0.0, 1.0
)


def score_of(denoise, clean, noisy, noise):
    """The estimate of a function of one frame, and its true error."""
    draws = np.random.default_rng(0)
    estimate = SteinEstimate()
    errors = []
    for x, y in zip(clean, noisy, strict=True):
        output = denoise(y)
        direction = noise.direction(output, draws)
        moved = denoise(y + STEP * direction)
        estimate.update(output, y, noise.variance(y), direction, moved)
        errors.append(np.mean((output - x) ** 2))
    return estimate, float(np.mean(errors))


def test_the_score_of_what_is_known():
    """Of the noisy frame itself the variance, of a constant its distance."""
    draws = np.random.default_rng(5)
    clean = still(draws)
    noisy = corrupted(clean, "gaussian", draws)
    identity, _ = score_of(lambda y: y, clean[:, None], noisy, WHITE_NOISE)
    constant, true = score_of(lambda y: np.full_like(y, 30), clean[:, None], noisy, WHITE_NOISE)
    assert identity.mse == pytest.approx(36, rel=1e-6)
    assert constant.mse == pytest.approx(true, rel=0.02)
    low, high = constant.interval()
    assert low < true < high
    assert identity.psnr(255) == pytest.approx(10 * np.log10(255**2 / 36))


def test_a_linear_filter_has_its_bias_and_its_share_of_the_noise():
    draws = np.random.default_rng(6)
    clean = still(draws)[:, None]
    noisy = corrupted(clean[:, 0], "gaussian", draws)
    estimate, _ = score_of(
        lambda y: gaussian_filter(y, (0, 1, 1), mode="wrap"), clean, noisy, WHITE_NOISE
    )
    bias = gaussian_filter(clean[0], (0, 1, 1), mode="wrap") - clean[0]
    impulse = np.zeros((SIDE, SIDE))
    impulse[9, 9] = 1
    gain = np.sum(gaussian_filter(impulse, 1, mode="wrap") ** 2)
    expected = np.mean(bias**2) + 36 * gain
    low, high = estimate.interval()
    assert low < expected < high
    assert high - low < 0.1 * expected


@pytest.mark.parametrize("noise", ["gaussian", "poisson", "both", "blurred"])
def test_the_score_of_a_filter_is_true(noise):
    draws = np.random.default_rng(7)
    clean = flashing(draws)
    noisy = corrupted(clean, noise, draws)
    found = movie_noise(noisy)

    def soften(y: np.ndarray) -> np.ndarray:
        """Shrink what is small, so that the filter is not linear."""
        smooth = gaussian_filter(y, (0, 1, 1))
        return smooth + 4 * np.tanh((y - smooth) / 12)

    estimate, true = score_of(soften, clean[:, None], noisy, found)
    low, high = estimate.interval(found.standard_error)
    assert low < true < high
    assert estimate.mse == pytest.approx(true, rel=0.1)
    assert len(estimate.of_frames()) == FRAMES


def test_a_score_needs_frames():
    assert np.isnan(SteinEstimate().mse)
    assert SteinEstimate().interval() == (-np.inf, np.inf)
    assert SteinEstimate().psnr(1.0) is None
    assert SteinEstimate().psnr_interval(1.0) == (None, None)


def test_the_size_of_the_autocorrelation():
    draws = np.random.default_rng(8)
    found = movie_noise(corrupted(still(draws), "gaussian", draws))
    assert found.autocorrelation.shape == (2 * LAGS + 1, 2 * LAGS + 1)
    assert np.count_nonzero(found.autocorrelation) == 1
