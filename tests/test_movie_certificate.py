"""Regions of a movie over time: an oracle holds, and an event that was flattened is named."""

import numpy as np
import pytest

from n2n_lightning.metrics.autocorrelation import (
    LAGS,
    correlated_noise,
    white_autocorrelation,
)
from n2n_lightning.metrics.certificate import FAILS, HOLDS, UNMEASURABLE
from n2n_lightning.metrics.movie_certificate import RegionNoise, certify_regions, ends_of
from n2n_lightning.metrics.movie_traces import Traces
from n2n_lightning.metrics.noise_law import NoiseLaw

SIGMA = 5.0
FRAMES = 40
EVENT = 23  # the frame in which region 2 is brighter
LABELS = np.zeros((64, 64), int)
LABELS[4:36, 4:36] = 1
LABELS[40:60, 40:60] = 2


def law(autocorrelation=None):
    nothing = np.zeros(1)
    if autocorrelation is None:
        autocorrelation = white_autocorrelation()
    return NoiseLaw(np.array([SIGMA**2]), nothing, 0.01, nothing, autocorrelation)


@pytest.fixture(scope="module")
def scene():
    """Return frames without noise, (T, H, W): dark ground, two regions, an event in one of them."""
    frames = np.full((FRAMES, 64, 64), 20.0)
    frames[:, LABELS > 0] = 120
    frames[EVENT, LABELS == 2] = 130
    return frames


def certified(scene, result, seed=0, tolerance=0.02):
    draws = np.random.default_rng(seed)
    traces = Traces(LABELS)
    noise = RegionNoise(LABELS, law())
    for frame in range(FRAMES):
        noisy = scene[frame] + draws.normal(0, SIGMA, (64, 64))
        traces.add(frame, {"noisy": noisy, "run": result[frame]})
        noise.add(frame, noisy[None], 1.0)
    ends = ends_of(result)
    return certify_regions(traces, "run", noise.deviations, ends, tolerance).lines


def test_the_noise_of_a_mean():
    noise = RegionNoise(LABELS, law())
    frame = np.full((1, 64, 64), 50.0)
    frame[:, 4:20, 4:36] = np.nan
    noise.add(0, frame, 2.0)
    assert noise.deviations[0, 1] == pytest.approx(2 * SIGMA / np.sqrt(16 * 32))
    assert noise.deviations[0, 2] == pytest.approx(2 * SIGMA / 20)


def test_correlated_noise_of_a_mean():
    autocorrelation = white_autocorrelation()
    autocorrelation[LAGS, LAGS - 1] = autocorrelation[LAGS, LAGS + 1] = 0.45
    noise = RegionNoise(LABELS, law(autocorrelation))
    noise.add(0, np.zeros((1, 64, 64)), 1.0)
    draws = np.random.default_rng(1)
    means = []
    for _ in range(400):
        image = SIGMA * correlated_noise((1, 64, 64), autocorrelation, draws)
        means.append(image[0][LABELS == 2].mean())
    assert np.std(means) == pytest.approx(noise.deviations[0, 2], rel=0.1)


def test_an_oracle_holds_over_time(scene):
    alarms = 0
    for seed in range(20):
        lines = certified(scene, scene, seed)
        assert [line.verdict for line in lines[::2]] == [HOLDS, HOLDS]
        alarms += FAILS in {line.verdict for line in lines}
        probabilities = [float(line.remark.split()[-1]) for line in lines[1::2]]
        alarms += min(probabilities) < 0.02
    assert alarms <= 2


def test_a_flattened_event_is_named(scene):
    lines = certified(scene, np.broadcast_to(np.median(scene, 0), scene.shape))
    by_name = {line.name: line for line in lines}
    assert by_name["mean of region 1 over time"].verdict == HOLDS
    event = by_name[f"region 2 in frame {EVENT}, which differs most"]
    assert event.verdict == FAILS
    low, high = event.interval
    assert low < -10 / 100.25 < high  # ten of the brightness above the ground
    assert float(event.remark.split()[-1]) < 1e-9


def test_a_darker_movie_does_not_hold(scene):
    lines = certified(scene, scene - 5)
    for line in lines[::2]:
        assert line.verdict == FAILS
        assert line.value == pytest.approx(-0.05, rel=0.2)
    assert FAILS not in {line.verdict for line in lines[1::2]}  # no frame more than others


def test_without_noise_nothing_is_certified(scene):
    traces = Traces(LABELS)
    traces.add(0, {"noisy": scene[0], "run": scene[0]})
    certificate = certify_regions(traces, "run", {}, (0, 1), reason="nothing stands still")
    assert {line.verdict for line in certificate.lines} == {UNMEASURABLE}
