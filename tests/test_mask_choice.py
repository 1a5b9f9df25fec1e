"""The mask that noise needs: known noise, in pictures, captures and volumes."""

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter

from n2n_lightning.data import Movie, SingleImages
from n2n_lightning.data.mask import Mask
from n2n_lightning.data.mask_choice import (
    INSTEAD,
    MaskChoice,
    fitting,
    mask_of_autocorrelation,
    mask_of_images,
    mask_of_pairs,
)
from n2n_lightning.data.reading import read_single
from n2n_lightning.data.self_supervised import Noise2Void
from n2n_lightning.inspection import inspect
from n2n_lightning.metrics.autocorrelation import LAGS, white_autocorrelation
from n2n_lightning.metrics.single_noise import single_noise
from n2n_lightning.metrics.stein import STEP, SteinEstimate
from tests.captures import scenes
from tests.test_mask import DISC
from tests.test_movie_pixels import loaded

DRAWS = np.random.default_rng


def along_rows(draws: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of variance 1 whose correlation along rows is 0.45, 0.20, 0.09, ..."""
    noise = lfilter([1], [1, -0.45], draws.normal(size=shape), axis=-1)
    return noise / noise.std()


def blurred(draws: np.random.Generator, shape: tuple[int, ...], sigma: float = 0.9) -> np.ndarray:
    noise = gaussian_filter(draws.normal(size=shape), (0,) * (len(shape) - 2) + (sigma, sigma))
    return noise / noise.std()


def striped(draws: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    rows = draws.normal(size=(*shape[:-1], 1))
    return (draws.normal(size=shape) + rows) / np.sqrt(2)


def white(draws: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return draws.normal(size=shape)


NOISES = {
    "white": (white, "[1,1]"),
    "rows": (along_rows, "[1,5]"),
    "blurred": (blurred, DISC),
    "stripes": (striped, "[1,11]"),
}


@pytest.mark.parametrize("name", NOISES)
def test_pictures_with_known_noise_get_its_mask_from_check_and_from_auto(name, tmp_path):
    make, expected = NOISES[name]
    clean = scenes(5, 4, 192)
    noisy = clean + 15 * make(DRAWS(0), clean.shape)
    path = tmp_path / "noisy.npy"
    np.save(path, noisy.astype(np.float32))
    data = SingleImages(str(path), method="masked", layout="NHW", crop=32)
    data.setup()
    if name == "blurred":  # some of its 21 pixels are in doubt
        assert Mask.of("[3,3]").offsets < data.method.mask.offsets <= Mask.of(DISC).offsets
        expected = data.mask
    assert data.mask == data.fingerprint["mask"] == expected
    (line,) = [note for note in data.notes if "(auto)" in note]
    assert line.startswith(f"data.mask={expected} (auto): ")
    assert any("stripes, stays" in note for note in data.notes) is (name == "stripes")
    report = inspect(read_single(str(path), "NHW"))
    if name == "white":
        assert report.advice == []
        assert "independent" in line
    else:
        if name == "blurred":  # no line
            assert report.advice is None
            assert f"data.method=masked data.mask={expected} helps only" in report.why
        else:
            assert report.advice == ["data.method=masked", f"data.mask={expected}"]
        by_hand = SingleImages(str(path), method="masked", mask=expected, layout="NHW", crop=32)
        by_hand.setup()
        assert by_hand.method.mask == data.method.mask
        assert not any("(auto)" in note for note in by_hand.notes)


def test_captures_of_a_few_scenes_show_the_correlation_itself(tmp_path):
    clean = scenes(6, 3, 128)
    pairs = []
    for make, expected in NOISES.values():
        draws = DRAWS(1)
        first, second = (clean + 15 * make(draws, clean.shape) for _ in range(2))
        pairs = [
            (torch.from_numpy(a[None]), torch.from_numpy(b[None]))
            for a, b in zip(first, second, strict=True)
        ]
        choice = mask_of_pairs(pairs)
        assert choice.mask.text == expected
        assert "captures of 3 scenes" in choice.reason
    np.save(tmp_path / "noisy.npy", scenes(7, 2, 64))  # where the picture itself tells nothing
    for name, capture in (("a", first), ("b", second)):
        np.save(tmp_path / f"{name}.npy", capture)
    data = SingleImages(
        str(tmp_path / "noisy.npy"),
        method="masked",
        val_noisy=str(tmp_path / "a.npy"),
        val_target=str(tmp_path / "b.npy"),
        layout="NHW",
        crop=32,
    )
    data.setup()
    assert data.mask == "[1,11]"
    np.save(tmp_path / "noisy.npy", scenes(7, 2, 24))
    data = SingleImages(
        str(tmp_path / "noisy.npy"),
        method="masked",
        val_noisy=str(tmp_path / "a.npy"),
        val_target=str(tmp_path / "b.npy"),
        layout="NHW",
        crop=16,
    )
    data.setup()
    assert data.mask == "[1,3]"
    assert any("data.mask=[1,3] instead" in note and "room for 8" in note for note in data.notes)
    assert mask_of_pairs([(a, a) for a, _ in pairs]) is None


def test_captures_narrower_than_the_farthest_offset_show_it_or_tell_nothing():
    strips = [torch.from_numpy(along_rows(DRAWS(seed), (1, 9, 2000))) for seed in range(2)]
    assert mask_of_pairs([tuple(strips)]).mask == Mask.of([1, 5])
    crops = tuple(strip[..., :9] for strip in strips)
    assert mask_of_pairs([crops]) is None


def test_what_one_colour_shows_of_another_is_hidden():
    draws = DRAWS(0)
    red = draws.normal(size=(2, 128, 129))
    noise = np.stack([red[..., 1:], red[..., :-1]], 1)  # white in each, moved by a pixel
    choice = mask_of_pairs([(torch.from_numpy(noise[0]), torch.from_numpy(noise[1]))])
    assert choice.mask.text == "[1,3]"


def test_correlations_in_doubt_are_left_out():
    autocorrelation = white_autocorrelation()
    autocorrelation[LAGS, LAGS + 1] = autocorrelation[LAGS, LAGS - 1] = 0.3
    autocorrelation[LAGS + 1, LAGS] = autocorrelation[LAGS - 1, LAGS] = 0.13
    assert mask_of_autocorrelation(autocorrelation, 0.01)[0].text == ".x./xxx/.x."
    assert mask_of_autocorrelation(autocorrelation, 0.05)[0].text == "[1,3]"
    assert mask_of_autocorrelation(autocorrelation, 0.3)[0].text == "[1,1]"
    autocorrelation[LAGS, LAGS + 7] = autocorrelation[LAGS, LAGS - 7] = 0.3
    assert mask_of_autocorrelation(autocorrelation, 0.05) == (Mask.of("[1,3]"), True)


def test_noise_that_cannot_be_measured_gets_single_pixels_and_a_line(tmp_path):
    draws = DRAWS(0)
    path = tmp_path / "small.npy"
    np.save(path, draws.normal(100, 10, (3, 36, 36)).astype(np.float32))
    data = SingleImages(str(path), method="masked", layout="NHW", crop=16)
    data.setup()
    assert data.mask == "[1,1]"
    (line,) = data.notes
    assert line.startswith("data.mask=[1,1] (auto): single pixels, ")
    assert "not measurable: the picture is smaller than 40 pixels" in line


def test_a_mask_of_more_than_25_pixels_is_said_not_to_help():
    wide = MaskChoice(Mask.of("[5,7]"), "it is correlated")
    small = MaskChoice(Mask.of("[5,5]"), "it is correlated")
    _, warning = wide.lines()
    assert "35 pixels" in warning
    assert INSTEAD in warning
    assert "[5,5]" in small.lines()[0]
    assert "helps only where the scene is smoother" in small.lines()[1]
    images = scenes(5, 2, 192) + 15 * blurred(DRAWS(0), (2, 192, 192), 1.6)
    noises = [single_noise(image[None]) for image in images]
    assert mask_of_images(noises).too_large


def test_check_does_not_recommend_masks_that_do_not_help(tmp_path):
    path = tmp_path / "noisy.npy"
    np.save(path, scenes(5, 2, 192) + 15 * blurred(DRAWS(0), (2, 192, 192), 1.6))
    report = inspect(read_single(str(path), "NHW"))
    assert report.advice is None
    assert INSTEAD in report.why


def test_a_mask_has_room_in_windows_and_in_halves():
    assert fitting(Mask.of("[1,11]"), (16, 16), (64, 64)).text == "[1,5]"
    assert fitting(Mask.of("[1,11]"), None, (64, 64)).text == "[1,11]"
    assert fitting(Mask.of("[11,1]"), (8, 64, 64), (8, 30, 64)).text == "[11,1]"


def volume(draws: np.random.Generator, sigma: tuple[float, ...], depth: int) -> np.ndarray:
    clean = 100 + np.add.outer(np.arange(depth), np.add.outer(np.arange(80), np.arange(80))) / 4
    noise = gaussian_filter(draws.normal(size=clean.shape), sigma)
    return (clean + 10 * noise / noise.std()).astype(np.float32)


@pytest.mark.parametrize(
    ("sigma", "depth", "expected"),
    [
        ((0, 0, 0), 44, "[1,1]"),
        ((0.6, 0, 0), 44, "[3,1,1]"),
        ((0.6, 0.6, 0.6), 44, ".x./xxx/.x.//xxx/xxx/xxx//.x./xxx/.x."),
        ((0.6, 0.6, 0.6), 12, "[3,3]"),
    ],
)
def test_a_volume_is_measured_across_its_planes_too(sigma, depth, expected, tmp_path):
    path = tmp_path / "volume.npy"
    np.save(path, volume(DRAWS(0), sigma, depth))
    options = {"layout": "DHW", "crop": (12, 32, 32), "val_share": 0}
    data = SingleImages(str(path), method="masked", **options)
    data.setup()
    assert data.mask == expected
    across = any("across planes it is not measurable" in note for note in data.notes)
    assert across is (depth < 40)
    assert inspect(read_single(str(path), "DHW", dims=3)).mask.mask.text == expected


def test_a_movie_with_noise_correlated_in_time_hides_its_neighbours(tmp_path):
    white_noise = DRAWS(0).normal(size=(31, 96, 96))
    noisy = 200 + 14 * (white_noise[1:] + white_noise[:-1])
    tifffile.imwrite(
        tmp_path / "a.tif", noisy.astype(np.float32), imagej=True, metadata={"axes": "TYX"}
    )
    data = loaded(tmp_path / "a.tif")
    assert isinstance(data, Movie)
    assert data.mask == "[3,1,1]"
    assert any("neighbouring frames is correlated" in note for note in data.notes)


def copying(image: np.ndarray) -> np.ndarray:
    """The mean of the pixels beside each: what noise along rows tells of itself."""
    return (np.roll(image, 1, 2) + np.roll(image, -1, 2)) / 2


def denoising(image: np.ndarray) -> np.ndarray:
    """The mean of four pixels above and below each: their noise is independent."""
    return sum(np.roll(image, rows, 1) for rows in (-2, -1, 1, 2)) / 4


def test_the_loss_of_a_small_mask_praises_copied_noise_and_the_estimate_does_not():
    draws = DRAWS(0)
    clean = 100 + 20 * np.sin(np.arange(256) / 40)[None, :, None] + np.zeros((1, 256, 256))
    noisy = clean + 10 * along_rows(draws, clean.shape)
    noise = single_noise(noisy)
    mask = mask_of_images([noise]).mask
    assert mask.text == "[1,5]"
    tensor = torch.from_numpy(noisy)[None]
    losses, truths, estimates = {}, {}, {}
    direction = noise.direction(noisy, draws)
    for network in (copying, denoising):
        for hidden in (Mask(), mask):
            ready = Noise2Void(0.1, hidden)(tensor, tensor, torch.Generator().manual_seed(0))
            output = network(ready["input"][0].numpy())
            losses[network, hidden] = np.nanmean((output - ready["target"][0].numpy()) ** 2)
        truths[network] = ((network(noisy) - clean) ** 2).mean()
        stein = SteinEstimate()
        moved = network(noisy + STEP * direction)
        stein.update(network(noisy), noisy, noise.variance(noisy), direction, moved)
        estimates[network] = stein.mse
    assert losses[copying, Mask()] < 0.7 * losses[denoising, Mask()]
    assert losses[copying, mask] > losses[denoising, mask]
    assert truths[copying] > 1.5 * truths[denoising]
    assert estimates[copying] > 1.4 * estimates[denoising]
