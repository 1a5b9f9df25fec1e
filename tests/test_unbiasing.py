"""The bias of results against brightness is taken out, and nothing else is."""

import json

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from n2n_lightning import denoise
from n2n_lightning.arrays.outlier_lists import OutlierCounts
from n2n_lightning.files import InputError
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.metrics.bias_curve import BiasCurve, fit_bias

SIGMA = 4.0


@pytest.fixture(scope="module")
def scene():
    """Return squares of several brightnesses and smooth texture, (192, 192)."""
    draws = np.random.default_rng(0)
    squares = np.kron(draws.uniform(60, 160, (12, 12)), np.ones((16, 16)))
    texture = 30 * gaussian_filter(draws.normal(size=(192, 192)), 3)
    return gaussian_filter(squares + texture, 1)


def captures_of(scene, seed=1):
    draws = np.random.default_rng(seed)
    return [scene + draws.normal(0, SIGMA, scene.shape) for _ in range(2)]


def darkened(scene):
    """Return a bias that rises with brightness, and keeps the order of all values."""
    return 20 + 0.6 * scene + 0.001 * scene**2


def test_the_curve_is_the_inverse_of_the_bias(scene):
    biased = darkened(scene)
    fitted = fit_bias([biased] * 2, captures_of(scene))
    assert fitted.curve is not None
    assert fitted.before > 0.05
    assert fitted.after < 3 * fitted.noise
    corrected = fitted.curve(biased)
    # of a level's 576 values the mean is known to 0.17; between levels the curve is straight
    assert np.sqrt(np.mean((corrected - scene) ** 2)) < 0.5
    assert abs(corrected.mean() - scene.mean()) < 0.2


def test_a_result_without_bias_stays(scene):
    """Noise alone chooses a curve in a few of a hundred captures."""
    used = 0
    for seed in range(20):
        fitted = fit_bias([scene] * 2, captures_of(scene, seed))
        used += fitted.curve is not None
        assert fitted.before < 3 * fitted.noise
    assert used <= 3


def test_results_that_differ_are_different_afterwards(scene):
    """Isotonic regression itself is flat where noise reverses the order of levels."""
    draws = np.random.default_rng(3)
    faint = 100 + 0.01 * scene
    captures = [faint + draws.normal(0, SIGMA, scene.shape) for _ in range(2)]
    curve = BiasCurve([faint] * 2, captures)
    rising = np.linspace(faint.min(), faint.max(), 500)
    assert (np.diff(curve(rising)) > 0).all()


def test_what_cannot_be_measured_is_not_corrected():
    flat = np.full((64, 64), 7.0)
    fitted = fit_bias([flat] * 2, captures_of(flat))
    assert fitted.curve is None
    assert "not measurable" in fitted.line()
    small = fit_bias([flat[:16, :16]] * 2, captures_of(flat[:16, :16]))
    assert small.curve is None
    missing = np.full((64, 64), np.nan)
    assert fit_bias([missing] * 2, [flat] * 2).curve is None


@pytest.fixture
def oracle(monkeypatch, scene):
    """Let every network return the scene itself, darkened; pixels of 0 are left as they are."""

    def biased(self, result, noisy, *arguments):
        values = darkened(scene)
        if result.dtype.kind in "iu":
            values = np.rint(values)
        result[...] = np.where(noisy.array == 0, noisy.array, values)
        return OutlierCounts()

    monkeypatch.setattr(TrainedDenoiser, "denoise_into", biased)


def written(folder, scene, dtype):
    """Write two captures, of which a row is missing."""
    for name, capture in zip("ab", captures_of(scene), strict=True):
        stored = np.rint(capture) if np.issubdtype(dtype, np.integer) else capture
        stored[5] = 0
        tifffile.imwrite(folder / f"{name}.tif", stored.astype(dtype))


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["command", *map(str, words)])
    return denoise.main()


@pytest.mark.parametrize("way", ["second", "halves"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_the_written_result_is_the_corrected_one(
    way, dtype, scene, oracle, tmp_path, monkeypatch, capsys
):
    written(tmp_path, scene, dtype)
    first, second = tmp_path / "a.tif", tmp_path / "b.tif"
    words = [first, "--second", second] if way == "second" else [first, second, "--halves"]
    target = tmp_path / "out.tif"
    options = ["--unbias", "--dtype", "keep", "-o", target]
    certified = way == "second" and dtype == np.float32
    if certified:
        options += ["--certify", "--tolerance", "0.03"]
    assert run(monkeypatch, *words, *options) == 0
    said = capsys.readouterr().out
    assert "bias against brightness on the half not fitted" in said
    assert "not corrected" not in said
    result = tifffile.imread(target)
    assert result.dtype == dtype
    assert (result[5] == 0).all()
    others = np.arange(192) != 5
    error = result[others] - scene[others]
    assert np.sqrt(np.mean(error**2)) < 0.6  # with 0.3 of rounding
    assert abs(error.mean()) < 0.2
    if not certified:
        return
    certificate = json.loads((tmp_path / "out.tif.certificate.json").read_text())
    (page,) = certificate["pages"]
    bins = [line for line in page["quantities"] if line["group"] == "brightness"]
    assert sum(line["verdict"] == "holds" for line in bins) >= 6


def test_movies_are_refused(scene, tmp_path, monkeypatch, capsys):
    written(tmp_path, scene, np.float32)
    words = (tmp_path / "a.tif", "--second", tmp_path / "b.tif", "-o", tmp_path / "out", "--unbias")
    assert run(monkeypatch, *words, "--checkpoint", "movie") == 1
    assert "for pictures, not for movies" in capsys.readouterr().err


def test_the_options_of_the_correction(tmp_path, monkeypatch):
    words = ("a.tif", "--second", "b.tif", "-o", tmp_path, "--unbias", "--adapt")
    with pytest.raises(InputError, match="without --adapt"):
        run(monkeypatch, *words)
