"""Windows of movies, generated from photographs: data/photo_movies.py, generated/windows.py."""

import numpy as np
import pytest
import torch

from n2n_lightning import load
from n2n_lightning.arrays.frame_offsets import input_frames
from n2n_lightning.data import PhotoMovies
from n2n_lightning.data.generated import windows as generated
from n2n_lightning.data.generated.windows import MARGIN, windows
from n2n_lightning.files import InputError
from n2n_lightning.losses import RegionalLogL2
from n2n_lightning.networks import DRUNet
from n2n_lightning.noise import Gaussian, Pixelate
from n2n_lightning.training.warm_start import copy
from tests.conftest import photographs

SIZE = 24
NOTHING = {"OBJECTS": 0, "EVENTS": 0, "CUT": 0, "FLICKERING": 0}


def pictures(count: int = 64) -> torch.Tensor:
    """Random pixels, so that no two places are alike."""
    side = SIZE + 2 * MARGIN
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(0))


def draws(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def plain(monkeypatch):
    """Windows that move at most; a test sets which."""

    def choose(**shares: float) -> None:
        for name, share in (NOTHING | shares).items():
            monkeypatch.setattr(generated, name, share)

    return choose


def test_still_windows_show_the_picture_in_each_frame(plain):
    plain(STILL=1)
    images = pictures()
    movie = windows(images, SIZE, 2, draws())
    middle = images[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert movie.shape == (64, 5, SIZE, SIZE)
    assert torch.allclose(movie, middle.expand_as(movie), atol=1e-4)


def test_panning_windows_show_the_picture_at_a_constant_velocity(plain):
    plain(STILL=0, PANNING=1)
    images = pictures()
    movie = windows(images, SIZE, 2, draws())
    speeds = []
    for image, frames in zip(images[:, 0], movie, strict=True):
        steps = []
        for k in (-2, -1, 0, 1, 2):
            for place in np.ndindex(2 * MARGIN, 2 * MARGIN):
                y, x = place
                seen = image[y : y + SIZE, x : x + SIZE]
                if torch.allclose(seen, frames[k + 2], atol=1e-4):
                    steps.append((y - MARGIN, x - MARGIN))
        if len(steps) == 5:  # whole pixels
            velocity = np.array(steps[3])
            assert np.array_equal(steps, np.outer((-2, -1, 0, 1, 2), velocity))
            speeds.append(np.abs(velocity).max())
    assert 16 < len(speeds) < 48  # half of them; the others are between the pixels
    assert max(speeds) in (2, 3)


def test_cells_light_up_where_nothing_moves(plain):
    plain(STILL=1, EVENTS=1)
    images = 0.3 + 0 * pictures(200)
    movie = windows(images, SIZE, 2, draws())
    rise = movie[:, 2] - movie[:, 1]
    largest = rise.flatten(1).amax(1)
    assert 0.3 < (largest > 0.02).float().mean() < 0.95  # in many windows, in the middle frame
    lit = (rise > 0.02).float().flatten(1).mean(1)
    assert lit.amax() < 0.9  # a place, not the whole frame
    only_middle = (movie[:, 3] - movie[:, 1]).abs().flatten(1).amax(1) < 1e-4
    assert (only_middle & (largest > 0.02)).any()  # for one frame


def test_a_cut_makes_one_side_foreign(plain):
    plain(STILL=1, CUT=1)
    images = pictures()
    movie = windows(images, SIZE, 2, draws())
    own = (movie - movie[:, 2:3]).abs().flatten(2).amax(2) < 1e-4
    assert own[:, 2].all()
    assert (own[:, :2].all(1) ^ own[:, 3:].all(1)).all()  # foreign before, or after
    foreign = own.logical_not()
    assert foreign[:, 0].any()
    assert foreign[:, 4].any()


def test_values_are_those_of_pictures_and_a_share_of_windows_is_still(monkeypatch):
    movie = windows(pictures(300), SIZE, 2, draws())
    assert movie.amin() >= 0
    assert movie.amax() <= 1.0001
    for name in ("EVENTS", "OBJECTS", "FLICKERING"):
        monkeypatch.setattr(generated, name, 0)
    movie = windows(pictures(300), SIZE, 2, draws())
    still = (movie - movie[:, 2:3]).abs().flatten(1).amax(1) < 1e-3
    assert 0.3 < still.float().mean() < 0.45  # 0.4, less those with a cut


def source(tmp_path, noise, **options) -> PhotoMovies:
    folder = photographs(tmp_path / "photos", 12, 160)
    given = {"train_pairs": 30, "size": SIZE, "batch_size": 12, **options}
    data = PhotoMovies(noise, root=str(folder), **given)
    data.setup()
    return data


def training(data: PhotoMovies) -> dict:
    data.trainer = type("Trainer", (), {"training": True, "global_rank": 0, "world_size": 1})()
    batch = data.train[next(iter(data.train_dataloader().batches))]
    return data.on_after_batch_transfer(batch, 0)


def test_a_batch_has_each_window_twice_with_other_noise(tmp_path):
    data = source(tmp_path, Gaussian([10, 60]), supervised=True)
    batch = training(data)
    shown, target = batch["input"], batch["target"]
    assert shown.shape == (12, 5, SIZE, SIZE)
    assert target.shape == (12, 1, SIZE, SIZE)
    assert torch.equal(target[0::2], target[1::2])
    noise = shown[:, 2:3] - target
    deviations = noise.flatten(1).std(1)
    assert torch.allclose(deviations[0::2], deviations[1::2], rtol=0.15)
    assert deviations.max() > 1.5 * deviations.min()
    for first, second in zip(noise[0::2].flatten(1), noise[1::2].flatten(1), strict=True):
        assert abs(torch.corrcoef(torch.stack((first, second)))[0, 1]) < 0.15  # 3.6 deviations
    assert (data.channels, data.input_channels) == (1, input_frames(2, sees_middle=True))


def test_noisy_targets_have_noise_of_their_own(tmp_path):
    batch = training(source(tmp_path, Gaussian(25)))
    difference = batch["target"][0::2] - batch["target"][1::2]
    assert difference.std() * 255 == pytest.approx(25 * 2**0.5, rel=0.1)


def test_validation_is_the_same_for_every_seed(tmp_path):
    data = source(tmp_path, Gaussian(25))
    again = PhotoMovies(
        Gaussian(25), root=str(tmp_path / "photos"), seed=3, train_pairs=30, batch_size=12
    )
    again.setup()
    key = next(iter(data.val_dataloader().batches))
    first = data.on_after_batch_transfer(data.val[key], 0)
    second = again.on_after_batch_transfer(again.val[key], 0)
    assert torch.equal(first["input"], second["input"])
    assert torch.equal(first["frame"], first["input"][:, 2:3])
    noise = (first["frame"] - first["target"]).std() * 255
    assert noise == pytest.approx(25, rel=0.1)


@pytest.mark.parametrize(
    ("noise", "options", "line"),
    [
        (Gaussian(25), {"batch_size": 5}, "data.batch_size=5: must be even"),
        (Gaussian(25), {"zoom": [0.5, 1]}, "data.zoom"),
        (Gaussian(25), {"context": 0}, "data.context=0"),
        (Pixelate(2), {}, "noise=pixelate"),
        (Gaussian(25, frozen=True), {}, "noise=gaussian"),
    ],
)
def test_what_it_cannot_do_is_one_line(tmp_path, noise, options, line):
    with pytest.raises(InputError, match=line):
        source(tmp_path, noise, **options)


def test_the_regional_loss_measures_bias_and_not_noise():
    noise = torch.randn(400, 1, 16, 16, generator=draws())
    target = torch.zeros_like(noise)
    batch = {"target": target, "window": torch.arange(200).repeat_interleave(2)}
    loss = RegionalLogL2(weight=2, side=7)
    unbiased = loss.second_pass(None, batch, noise)
    biased = loss.second_pass(None, batch, noise + 1)  # half of the squared error is bias
    assert unbiased == pytest.approx(0, abs=0.01)
    assert biased == pytest.approx(2 * 0.5, abs=0.05)
    with pytest.raises(InputError, match="loss=regional: needs data=photo_movies"):
        loss.second_pass(None, {"target": target}, noise)


def test_a_network_of_movies_begins_as_the_bundled_one_of_its_middle_frame():
    bundled = load()
    model = dict(bundled.info.model)
    widths, blocks = model["widths"], model["blocks"]
    network = DRUNet(5, widths, blocks, out_channels=1, equivariant=True, middle=True).eval()
    copy(bundled, network, 5, "pretrained")
    frames = torch.rand(1, 5, 24, 32, generator=draws())
    with torch.no_grad():
        grown = network(frames)
        before = bundled(frames[:, 2:3])
    assert torch.allclose(grown, before, atol=1e-5)
    shifted = network(0.5 * frames + 3)  # unit and black level do not matter, of all frames
    assert torch.allclose(shifted, 0.5 * grown + 3, atol=1e-4)
