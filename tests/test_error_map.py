from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from n2n_lightning import denoise, load
from n2n_lightning.files import InputError
from n2n_lightning.inference.error_files import errors_file_of
from n2n_lightning.inference.error_maps import boxes, check_possible, widened
from n2n_lightning.inference.options import NoisyArray
from n2n_lightning.metrics.clipped_noise import clipped_noise
from n2n_lightning.metrics.error_map import errors_of_captures, errors_of_one
from n2n_lightning.paths import is_clutter
from n2n_lightning.reporting.slider import pair

SIGMA = 5.0
SHAPE = (1, 160, 160)


def scene():
    """A scene with flat places, an edge and texture, (C, H, W)."""
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    texture = 20 * np.sin(x / 1.5) * np.sin(y / 1.5) * (y > 100)
    return (80 + 60 * (x > 70) + texture)[None].astype(np.float64)


def ghost():
    """A blob of 15 that a denoiser adds to a flat place."""
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    return 15 * np.exp(-((y - 50) ** 2 + (x - 30) ** 2) / 2 / 4**2)[None]


def blurred(image):
    return gaussian_filter(image, (0, 1, 1))


DENOISERS = {
    "oracle": lambda noisy: scene(),
    "constant": lambda noisy: np.full(SHAPE, 100.0),
    "blur": blurred,
    "identity": lambda noisy: noisy,
    "ghost": lambda noisy: scene() + ghost(),
}


def captures(count=2, seed=0):
    draws = np.random.default_rng(seed)
    return [scene() + draws.normal(0, SIGMA, SHAPE) for _ in range(count)]


def perturbed(function, noisy, variance, seed=1):
    """Stein's covariance and the variance of the linearised denoiser, of four perturbations."""
    draws = np.random.default_rng(seed)
    products, squares = [], []
    for _ in range(4):
        direction = np.sqrt(variance) * draws.choice([-1.0, 1.0], noisy.shape)
        change = (function(noisy + 0.1 * direction) - function(noisy)) / 0.1
        products.append(direction * change)
        squares.append(change**2)
    return np.mean(products, 0), np.mean(squares, 0)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("name", ["constant", "blur", "identity", "ghost"])
@pytest.mark.parametrize("source", ["pair", "mean", "one"])
def test_the_map_has_the_size_of_the_error(name, source):
    denoised = DENOISERS[name]
    noisy = captures()
    outputs = [denoised(capture) for capture in noisy]
    result = outputs[0]
    if source == "one":
        variance = np.full(SHAPE, SIGMA**2)
        moments = perturbed(denoised, noisy[0], variance)
        errors = errors_of_one(noisy[0], outputs[0], variance, *moments)
    else:
        found = errors_of_captures(noisy, outputs)
        errors = found.each if source == "pair" else found.mean
    if source == "mean":
        result = (outputs[0] + outputs[1]) / 2
    truth = result - scene()
    least = 0.03 * SIGMA  # what is known of so few pixels
    assert rms(errors) == pytest.approx(rms(truth), rel=0.1, abs=least)
    top = errors >= np.quantile(errors, 0.9)
    if name in ("constant", "blur"):  # whose errors differ from place to place, above the noise
        assert rms(errors[top]) == pytest.approx(rms(truth[top]), rel=0.25)


@pytest.mark.parametrize("source", ["pair", "one"])
def test_an_oracle_has_next_to_no_error(source):
    noisy = captures()
    outputs = [scene(), scene()]
    if source == "pair":
        errors = errors_of_captures(noisy, outputs).each
    else:
        zero = np.zeros(SHAPE)
        errors = errors_of_one(noisy[0], outputs[0], zero + SIGMA**2, zero, zero)
    assert rms(errors) < 0.25 * SIGMA


def test_a_wrong_variance_of_the_noise_leaves_an_error():
    noisy = captures()[0]
    denoised = scene() + 1  # wrong by 1 everywhere
    zero = np.zeros(SHAPE)
    variance = zero + 1.1 * SIGMA**2  # 10% too much, which hides an error of 1.6
    sure = errors_of_one(noisy, denoised, variance, zero, zero)
    unsure = errors_of_one(noisy, denoised, variance, zero, zero, 0.1)
    assert rms(sure) < 0.6
    assert rms(unsure) == pytest.approx(1, rel=0.4)


def test_a_ghost_is_where_the_map_is_bright():
    noisy = captures()
    outputs = [scene() + ghost()] * 2
    errors = errors_of_captures(noisy, outputs).mean[0]
    at_ghost = ghost()[0] > 5
    far = ghost()[0] < 0.01
    assert rms(errors[at_ghost]) > 4 * rms(errors[far])


def test_more_captures_make_a_mean_with_less_variance():
    noisy = captures(4)
    found = errors_of_captures(noisy, noisy)
    assert rms(found.each) == pytest.approx(SIGMA, rel=0.1)
    assert rms(found.mean) == pytest.approx(SIGMA / 2, rel=0.15)


def test_noise_that_both_captures_share_is_not_seen():
    shared = np.random.default_rng(7).normal(0, SIGMA, SHAPE)
    noisy = [capture + shared for capture in captures()]
    assert rms(errors_of_captures(noisy, noisy).each) == pytest.approx(SIGMA, rel=0.1)


def test_unknown_pixels_are_unknown_and_change_no_other():
    noisy = captures()
    outputs = [blurred(capture) for capture in noisy]
    whole = errors_of_captures(noisy, outputs).each
    noisy[1][0, 40:44, 40:60] = np.nan
    errors = errors_of_captures(noisy, outputs).each
    assert np.isnan(errors[0, 40:44, 40:60]).all()
    assert np.isnan(errors).sum() == 80
    near = errors[0, 36:40, 40:60]
    assert rms(near) == pytest.approx(rms(whole[0, 36:40, 40:60]), rel=0.3)


def test_colours_and_volumes():
    draws = np.random.default_rng(3)
    volume = draws.normal(0, 1, (2, 20, 24, 28))
    noisy = [volume * 0 + draws.normal(0, 3, volume.shape) for _ in range(2)]
    errors = errors_of_captures(noisy, noisy)
    assert errors.each.shape == volume.shape
    assert rms(errors.each) == pytest.approx(3, rel=0.1)


def test_saturated_places_are_clipped_and_counts_are_not():
    draws = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(40, 300, 200), (1, 100, 200))
    saturated = [(ramp + draws.normal(0, 10, ramp.shape)).clip(0, 255) for _ in range(2)]
    clipped = clipped_noise(saturated)
    assert clipped[0, :, 180:].all()
    assert not clipped[0, :, :150].any()
    dark = np.broadcast_to(np.linspace(0.2, 30, 200), (1, 100, 200))
    counts = [draws.poisson(dark).astype(float) for _ in range(2)]
    assert not clipped_noise(counts).any()
    offset = [(dark + draws.normal(0, 5, dark.shape)).clip(0) for _ in range(2)]
    assert clipped_noise(offset)[0, :, :10].all()


def test_parts_cover_a_page_once_and_have_a_margin():
    size = (90, 200)
    covered = np.zeros(size, int)
    for box in boxes(size, 3000):
        covered[box] += 1
        around, inner = widened(box, size)
        part = np.zeros((1, *size))
        part[(slice(None), *box)] = 1
        assert part[(slice(None), *around)][inner].all()
    assert (covered == 1).all()


def test_maps_of_files_are_never_inputs():
    assert errors_file_of(Path("x/a.jpg")).name == "a.jpg.error.tif"
    assert is_clutter(errors_file_of(Path("a.tif")).name)


@pytest.fixture(scope="module")
def model():
    return load()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two captures as TIFF and PNG, and as a stack of captures; their clean scene."""
    folder = tmp_path_factory.mktemp("captures")
    both = [capture[0].clip(0, 255).round().astype(np.uint8) for capture in captures()]
    for name, capture in zip("ab", both, strict=True):
        tifffile.imwrite(folder / f"{name}.tif", capture)
        Image.fromarray(capture).save(folder / f"{name}.png")
    tifffile.imwrite(folder / "k.tif", np.stack(both))
    return folder


def test_a_map_is_a_layer_of_the_page():
    image = np.full((8, 8, 3), 9, np.uint8)
    errors = np.zeros((8, 8, 3), np.float32)
    errors[:4] = 2
    errors[0] = np.nan
    picture = pair("a", image, image, "HWC", {"expected error": errors})
    ((layers, label),) = picture.pages
    assert picture.layers == ["before", "after", "expected error"]
    assert label == " Expected error: 0 to 2."
    assert layers[2][:, 0].tolist() == [0, 255, 255, 255, 0, 0, 0, 0]


def run(monkeypatch, folder, *arguments):
    """Run the command in a folder; return its exit status."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["denoise", *map(str, arguments)])
    return denoise.main()


def check(result, errors):
    truth = result.astype(float) - scene()[0]
    known = np.isfinite(errors)
    assert known.mean() > 0.8
    assert errors.dtype == np.float32
    assert rms(errors[known]) == pytest.approx(rms(truth[known]), rel=0.12)


def test_a_second_capture(files, tmp_path, monkeypatch):
    assert run(monkeypatch, files, "a.tif", "--second", "b.tif", "--errors", "-o", tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.error.tif", "a.tif"]
    check(*[tifffile.imread(tmp_path / name) for name in ("a.tif", "a.error.tif")])


def test_the_mean_of_halves(files, tmp_path, monkeypatch):
    out = tmp_path / "mean.png"
    arguments = ("a.png", "b.png", "--halves", "--errors", "--page", "-o", out)
    assert run(monkeypatch, files, *arguments) == 0
    assert "expected error" in (tmp_path / "page.html").read_text()
    with Image.open(out) as mean:
        check(np.asarray(mean), tifffile.imread(tmp_path / "mean.png.error.tif"))


def test_captures_of_a_stack(files, tmp_path, monkeypatch):
    arguments = ("k.tif", "--axes", "KHW", "--errors", "-o", tmp_path)
    assert run(monkeypatch, files, *arguments) == 0
    result, errors = (tifffile.imread(tmp_path / name) for name in ("k.tif", "k.error.tif"))
    np.testing.assert_array_equal(errors[0], errors[1])
    check(result[0], errors[0])


def test_one_picture(files, tmp_path, monkeypatch):
    assert run(monkeypatch, files, "a.tif", "--errors", "-o", tmp_path) == 0
    errors = tifffile.imread(tmp_path / "a.error.tif")
    truth = tifffile.imread(tmp_path / "a.tif").astype(float) - scene()[0]
    assert np.isfinite(errors).mean() > 0.8
    assert rms(errors[np.isfinite(errors)]) == pytest.approx(rms(truth), rel=0.3)


def test_noise_that_is_not_measurable_gives_no_map(model):
    flat = np.full((64, 64), 7.0, np.float32)
    denoised, errors = model.denoise(flat, errors=True)
    assert denoised.shape == flat.shape
    assert np.isnan(errors).all()


def test_in_python_from_two_captures(model):
    first, second = [capture[0].astype(np.float32) for capture in captures()]
    denoised, errors = model.denoise(first, errors=True, second=second, scale=255)
    check(denoised, errors)
    stack = torch.from_numpy(np.stack([first, second]))
    _, of_stack = model.denoise(stack, errors=True, axes="KHW", scale=255)
    np.testing.assert_allclose(of_stack[0].numpy(), errors, rtol=0.05)
    with pytest.raises(InputError, match="second"):
        model.denoise(first, errors=True, second=second[:64])


@pytest.mark.parametrize("fact", ["dims", "context", "thinned"])
def test_networks_that_need_two_captures_say_so(fact):
    facts = {"dims": 2, "context": 0, "thinned": False, fact: 3}
    noisy = NoisyArray(np.zeros((8, 8)), "HW")
    with pytest.raises(InputError, match="needs two captures"):
        check_possible(SimpleNamespace(**facts), noisy)
    check_possible(SimpleNamespace(**facts), replace(noisy, second=noisy.array))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.tif", "--second", "b.tif"), "--errors"),
        (("a.tif", "b.tif", "--second", "a.tif", "--errors"), "one file or folder"),
        (("a.tif", "--second", "none.tif", "--errors"), "no such file"),
        (("a.tif", "--second", "a.tif", "--errors"), "another capture is needed"),
        (("a.tif", "--second", ".", "--errors"), "a file for a file"),
        (("a.tif", "--errors", "--adapt"), "--adapt"),
    ],
)
def test_what_cannot_be_is_said(files, tmp_path, monkeypatch, arguments, said):
    with pytest.raises(InputError, match=said.replace("-", r"\-")):
        run(monkeypatch, files, *arguments, "-o", tmp_path)
