"""Movies with trouble: dead frames, copies, channels in turn, chosen frames."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from n2n_lightning.frame_checks import review


def scene(side: int = 64, seed: int = 1) -> np.ndarray:
    """A smooth random picture around 200 with a deviation of 50."""
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 3)
    return 200 + 50 * smooth / smooth.std()


def movie(count: int = 24, side: int = 64, sigma: float = 25) -> np.ndarray:
    """Frames (T, H, W) of a scene that moves by 0.4 pixels a frame, with noise, uint16."""
    draws = np.random.default_rng(22)
    clean = np.stack([shift(scene(side), (0.4 * t, 0.2 * t), order=1, mode="nearest") for t in range(count)])
    return (clean + draws.normal(0, sigma, clean.shape) + 100).clip(0, 65535).round().astype(np.uint16)


def taking_turns(channels: int = 2, count: int = 24) -> np.ndarray:
    """Frames of several things in turn."""
    draws = np.random.default_rng(5)
    clean = np.stack([scene(seed=t % channels) for t in range(count)])
    return (clean + draws.normal(0, 25, clean.shape)).clip(0, 65535).round().astype(np.uint16)


def found(frames: np.ndarray):
    return review(frames[:, None])


def test_dead_frames_are_found_with_their_reason():
    frames = movie()
    frames[[5, 12, 13]] = 0
    assert found(frames).dead == dict.fromkeys((5, 12, 13), "every pixel 0")
    assert found(frames).lines("dead.tif") == ["frames 5, 12, 13 of dead.tif (every pixel 0)"]
    noise = np.random.default_rng(0).normal(0, 3, frames[0].shape)
    for value, words in ((65535, "every pixel 65535"), (noise + 100, "blank at"), (noise + 900, "blank at")):
        frames = movie()
        frames[7] = value
        assert list(found(frames).dead) == [7]
        assert words in found(frames).dead[7]
    almost = movie()
    almost[7] = 65535
    almost[7, 1, 1] = 60000  # a hot pixel
    saturated = movie().clip(0, 600)
    saturated[7, :40] = 600
    missing = movie().astype(np.float32)
    missing[7] = np.nan
    assert [list(found(frames).dead) for frames in (almost, saturated, missing)] == [[7]] * 3


def test_healthy_movies_have_no_dead_frames_and_no_copies():
    draws = np.random.default_rng(3)
    plain = movie().astype(float)
    event, flash = plain.copy(), plain.copy()
    event[10:14, 20:40, 20:40] += 400
    flash[10:12] = (flash[10:12] - 100) * 4 + 100
    bleached = draws.poisson(scene()[None] * np.exp(-np.arange(40) / 8)[:, None, None])
    photons = draws.poisson(0.002, (50, 64, 64))  # some frames are empty
    blinking = draws.normal(100, 10, (40, 64, 64))
    for frames in (plain, event, flash, bleached, photons, blinking):
        assert found(frames).live == list(range(len(frames)))
        assert found(frames).period == 1
        assert found(frames).alternation == 0


def test_copies_are_found_also_of_a_lossy_file():
    twice = np.repeat(movie(12), 2, 0)
    some = movie()
    some[3::4] = some[2::4]
    assert found(twice).copies == {t: t - 1 for t in range(1, 24, 2)}
    assert found(some).copies == {t: t - 1 for t in range(3, 24, 4)}
    lossy = twice + np.random.default_rng(1).integers(-1, 2, twice.shape)
    assert found(lossy).copies == {t: t - 1 for t in range(1, 24, 2)}


def test_channels_in_turn_are_found_and_brightness_that_alternates_is_said():
    assert [found(taking_turns(n)).period for n in (1, 2, 3)] == [1, 2, 3]
    assert "two channels in turn" in found(taking_turns()).turns("a.tif")
    assert "0::2 or 1::2" in found(taking_turns()).turns("a.tif")
    frames = movie().astype(float)
    frames[1::2] *= 1.1
    assert found(frames).period == 1
    assert found(frames).alternation == pytest.approx(0.1, abs=0.02)
