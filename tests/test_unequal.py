"""Captures of unequal noise: each is measured; the noisier one is the input and is scored."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import n2n_lightning
from n2n_lightning import score
from n2n_lightning.data import BatchIndex, PairedImages
from n2n_lightning.data.capture_noise import levels_of, scored_direction
from n2n_lightning.data.intensity import intensity_stats
from n2n_lightning.data.scene_set import EqualSizeScenes
from n2n_lightning.files import InputError
from n2n_lightning.inference.checkpoint import CheckpointInfo
from n2n_lightning.inspection import inspect
from n2n_lightning.metrics.noise_levels import noise_power
from n2n_lightning.metrics.scoring import score_clean as against_clean
from n2n_lightning.metrics.scoring import score_noisy
from tests.conftest import run

SIDE = 128
CLEAN = math.inf


def textured(seed: int, count: int = 6, side: int = SIDE) -> np.ndarray:
    """Scenes (N, H, W) between 40 and 215: clouds, edges and, in a third of them, fine texture."""
    from scipy.ndimage import gaussian_filter

    draws = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        cloud = gaussian_filter(draws.normal(size=(side, side)), 6)
        fine = gaussian_filter(draws.normal(size=(side, side)), 0.8)
        fine[side // 3 :] = 0
        y, x = np.mgrid[:side, :side]
        disc = 60.0 * ((y - draws.uniform(0, side)) ** 2 + (x - draws.uniform(0, side)) ** 2 < 900)
        found.append((110 + 20 * cloud / cloud.std() + 15 * fine / fine.std() + disc).clip(40, 215))
    return np.stack(found)


def shot(clean: np.ndarray, kind: str, ratio: float, seed: int) -> np.ndarray:
    """A capture with 1 / ratio of the noise: Gaussian, sigma 20, or Poisson, 4 units a photon."""
    draws = np.random.default_rng([seed, 9])
    if ratio == CLEAN:
        return clean.astype(np.float32)
    if kind == "gaussian":
        return (clean + draws.normal(0, 20 / ratio, clean.shape)).astype(np.float32)
    return (draws.poisson(clean * 0.25 * ratio**2) / (0.25 * ratio**2)).astype(np.float32)


def as_scenes(*captures: np.ndarray) -> EqualSizeScenes:
    tensors = [torch.from_numpy(np.ascontiguousarray(c))[:, None] for c in captures]
    return EqualSizeScenes(tensors, [f"scene {i}" for i in range(len(captures[0]))])


def levels(*captures: np.ndarray):
    scenes = as_scenes(*captures)
    return levels_of(scenes, intensity_stats(scenes))


def blur(images: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
@pytest.mark.parametrize("ratio", [1, 1.5, 3, 10, CLEAN])
def test_the_noise_of_each_capture_is_measured_by_itself(kind, ratio):
    clean = textured(0)
    captures = [shot(clean, kind, 1, 1), shot(clean, kind, ratio, 2)]
    for order in (1, -1):
        found = levels(*captures[::order])
        true = [float(np.square(c - clean).mean() ** 0.5) for c in captures[::order]]
        assert found.reach == 0
        for sigma, expected in zip(found.sigmas, true, strict=True):
            assert sigma == pytest.approx(expected, rel=0.08, abs=0.01)
        assert found.noisier == (() if ratio == 1 else (0,) if order == 1 else (1,))
        assert found.clean == (() if ratio < CLEAN else (1,) if order == 1 else (0,))
        if 1 < ratio < CLEAN:
            assert found.ratio == pytest.approx(ratio, rel=0.1)


def test_the_variance_is_unbiased_with_texture_and_its_scatter_is_that_of_chance():
    clean, differences = torch.from_numpy(textured(1, 1, 64)), []
    for seed in range(60):
        y1, y2 = (
            torch.from_numpy(shot(clean.numpy(), "gaussian", r, 10 * seed + i))
            for i, r in enumerate((1, 4))
        )
        differences.append(float(noise_power(y2, y1).mean()) - 25)
    error = float(np.std(differences)) / len(differences) ** 0.5
    assert abs(np.mean(differences)) < 3 * error
    assert error < 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
@pytest.mark.parametrize("ratio", [1.5, 3, 10, CLEAN])
@pytest.mark.parametrize("noisier_first", [True, False])
def test_the_score_is_that_of_the_noisier_capture(tmp_path, kind, ratio, noisier_first):
    clean = textured(2, 12)
    captures = [shot(clean, kind, 1, 3), shot(clean, kind, ratio, 4)]
    for name, images in zip(("a", "b"), captures[:: 1 if noisier_first else -1], strict=True):
        np.save(tmp_path / f"{name}.npy", images)
    files = {"noisy": str(tmp_path / "a.npy"), "target": str(tmp_path / "b.npy")}
    scored = {"val_noisy": files["noisy"], "val_target": files["target"]}
    data = PairedImages(**files, **scored, layout="NHW", scale=255.0, dims=2)
    data.setup("validate")
    data.limits = (0.0, 255.0)
    noisy = torch.from_numpy(captures[0]).double()[:, None]
    truth = -10 * math.log10(
        float((blur(noisy)[:, 0] - torch.from_numpy(clean)).square().mean()) / 255**2
    )
    assert data.score_of["captures"] == f"the {'first' if noisier_first else 'second'} captures"
    if ratio == CLEAN:
        assert data.reference == "clean"
        assert -10 * math.log10(np.mean(against_clean(blur, data)["mse"])) == pytest.approx(
            truth, abs=0.02
        )
    else:
        assert data.reference == "noisy"
        found = score_noisy(blur, data)["estimates"]
        low, high = (-10 * math.log10(end) for end in reversed(found.interval()))
        value = -10 * math.log10(found.error)
        assert abs(value - truth) < 0.1 or low < truth < high
        assert abs(value - truth) < 0.3
    assert any("score is that of" in note for note in data.notes)


def test_a_capture_without_noise_is_the_reference_in_16_bits_too(tmp_path):
    clean = textured(2, 12)
    for name, images in (("a", shot(clean, "gaussian", 1, 3)), ("b", clean)):
        np.save(tmp_path / f"{name}.npy", (images * 8).clip(0, 65535).astype(np.uint16))
    data = PairedImages(str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), layout="NHW", dims=2)
    data.setup()
    assert (data.reference, data.bounded) == ("clean", True)


@pytest.mark.parametrize(("swap", "inputs"), [("auto", {0}), (True, {0, 1}), (False, {0})])
def test_what_is_asked_for_is_obeyed(tmp_path, swap, inputs):
    clean = textured(3, 4)
    for name, ratio in (("a", 1), ("b", 4)):
        np.save(tmp_path / f"{name}.npy", shot(clean, "gaussian", ratio, int(ratio)))
    data = PairedImages(
        str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), swap=swap, layout="NHW", dims=2
    )
    data.setup()
    assert _inputs(data) == inputs
    with pytest.raises(InputError, match="auto, true or false"):
        PairedImages("a", swap="sometimes")


def _inputs(data: PairedImages) -> set[int]:
    """Which captures are inputs in training, told by their noise."""
    batch = data.train[BatchIndex(0, 0, torch.arange(40))]
    found = set()
    for image in batch["input"][:, 0].double():
        kernel = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None] / 6
        noise = F.conv2d(image[None, None], kernel.double()).abs().median() / 0.6745
        found.add(0 if noise > 12 else 1)
    return found


def test_a_burst_with_one_long_exposure(tmp_path):
    clean = textured(4, 3)
    ratios = (1, 1, 5, 1)
    burst = np.stack([shot(clean, "gaussian", r, k) for k, r in enumerate(ratios)], 1)
    np.save(tmp_path / "burst.npy", burst)
    data = PairedImages(str(tmp_path / "burst.npy"), layout="NKHW", dims=2)
    data.setup()
    assert data.levels.noisier == (0, 1, 3)
    assert data.levels.sigmas == pytest.approx([20, 20, 4, 20], rel=0.1)
    assert _inputs(data) == {0}
    assert set(data.levels.pairs()) == {(0, 2), (1, 2), (3, 2)}
    assert data.score_of["captures"] == "captures 1 to 2, 4"
    assert "captures 3" in data.notes[-1]


def test_equal_captures_are_trained_on_and_scored_in_both_directions(tmp_path):
    clean = textured(5, 4)
    for k in (1, 2):
        np.save(tmp_path / f"{k}.npy", shot(clean, "gaussian", 1, k))
    data = PairedImages(str(tmp_path / "1.npy"), str(tmp_path / "2.npy"), layout="NHW", dims=2)
    data.setup()
    assert data.train.pairs is None
    assert data.train.swap
    assert data.score_of["captures"] == "mean of both"
    assert data.notes == []


def test_noise_that_is_correlated_over_lines_and_over_many_pixels():
    from scipy.ndimage import gaussian_filter

    clean, draws = textured(6, 8), np.random.default_rng(6)

    def rows(sigma: float) -> np.ndarray:
        return 0.7 * sigma * (draws.normal(size=(8, SIDE, 1)) + draws.normal(size=clean.shape))

    lines = levels(*(clean + rows(sigma) for sigma in (20, 5)))
    assert lines.reach > 0
    assert lines.sigmas == pytest.approx([20, 5], rel=0.15)
    clouds = [gaussian_filter(draws.normal(size=clean.shape), (0, 4, 4)) for _ in range(2)]
    wide = levels(*(clean + sigma * n / n.std() for sigma, n in zip((30, 10), clouds, strict=True)))
    assert wide.reach is None  # nothing can be said of one of them alone
    assert scored_direction(wide).captures.startswith("mean of both")


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "order"), [(3, 1), (3, -1), (CLEAN, 1), (1, 1)])
def test_check_says_it_and_names_the_noisier_first(tmp_path, ratio, order):
    clean = textured(7, 4)
    for name, r in zip(("a", "b"), (1, ratio)[::order], strict=True):
        np.save(tmp_path / f"{name}.npy", shot(clean, "gaussian", r, ord(name)))
    done = run("check", "a.npy", "b.npy", "--layout", "NHW", "--json", "n.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    numbers, last = json.loads((tmp_path / "n.json").read_text()), done.stdout.splitlines()[-1]
    if ratio == 1:
        assert "swap" not in last
        assert numbers["noise_ratio"] == pytest.approx(1, abs=0.05)
        return
    first, second = ("a", "b")[::order]
    assert f"data.noisy={first}.npy data.target={second}.npy" in last
    assert last.endswith("data.swap=false")
    assert numbers["sigma"] == pytest.approx(20, rel=0.05)
    assert (
        numbers["noise_ratio"] is None
        if ratio == CLEAN
        else numbers["noise_ratio"] == pytest.approx(3, rel=0.05)
    )
    assert ("have no noise" in " ".join(done.stdout.split())) is (ratio == CLEAN)


def test_in_python(tmp_path):
    clean = textured(8, 12)

    class Blur(n2n_lightning.inference.denoiser.TrainedDenoiser):
        """A mean over 3 x 3 pixels."""

        def denoise(self, array, axes="auto", **_):  # type: ignore[override]
            return blur(array[None])[0], torch.zeros_like(array)

    noisy, better = shot(clean, "gaussian", 1, 1), shot(clean, "gaussian", 4, 2)
    found = score(
        Blur(torch.nn.Identity(), 1, CheckpointInfo(scale=255.0)), better, noisy, layout="NHW"
    )
    output = blur(torch.from_numpy(noisy)[:, None])[:, 0].numpy()
    truth = -10 * np.log10(np.mean((output - clean) ** 2) / 255**2)
    assert found["psnr_estimate"] == pytest.approx(truth, abs=0.15)
    assert found["score_of"]["captures"] == "the second captures"
    report = inspect(as_scenes(better, noisy))
    assert report.reversed
    assert report.numbers["noisier"] == [2]
