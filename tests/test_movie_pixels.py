"""data=movie with single pixels hidden: no leaks, ends, masks, checkpoints, scores."""

import csv
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tifffile
import torch

from n2n_lightning.arrays.frame_offsets import around, frames, input_frames
from n2n_lightning.config.resume import continued_config
from n2n_lightning.data import Movie
from n2n_lightning.data.hidden_pixels import HiddenPixels
from n2n_lightning.data.mask import Mask
from n2n_lightning.data.mask_choice import mask_of_movies
from n2n_lightning.data.movie import frames_around
from n2n_lightning.data.samplers import BatchDraws, BatchIndex
from n2n_lightning.files import InputError
from n2n_lightning.inference.checkpoint import CheckpointInfo, read_info
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.options import NoisyArray
from n2n_lightning.metrics.autocorrelation import LAGS
from n2n_lightning.metrics.movie_noise import movie_noise
from n2n_lightning.metrics.movie_score import MovieScore
from n2n_lightning.metrics.movie_traces import Traces, active_regions
from n2n_lightning.reporting.movie_scores import read_clean
from n2n_lightning.training.checkpointing import forget_scores
from tests.conftest import run


def movie(count: int = 12, side: int = 48, seed: int = 0) -> np.ndarray:
    """Frames (T, H, W) of noise around a gradient, uint16."""
    draws = np.random.default_rng(seed)
    clean = 200 + np.add.outer(np.arange(side), np.arange(side))
    return draws.normal(clean, 20, (count, side, side)).round().astype(np.uint16)


def loaded(path, **options) -> Movie:
    data = Movie(str(path), batch_size=4, train_pairs=64, crop=16, **options)
    data.setup()
    return data


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, movie(), imagej=True, metadata={"axes": "TYX"})
    return path


def test_frames_of_the_input_are_counted_once():
    for context in (0, 1, 3):
        for sees_middle in (False, True):
            offsets = frames(context, sees_middle)
            assert input_frames(context, sees_middle) == max(1, len(offsets))
            assert (0 in offsets) == (sees_middle and context > 0)
    for t in range(5):  # the whole frame is hidden: it never stands for a missing neighbour
        assert all(around(t, k, 5) != t for k in frames(2))
    assert [around(4, k, 5, repeat=True) for k in frames(2, True)] == [2, 3, 4, 4, 4]


@pytest.mark.parametrize(
    "mask", ["[1,1]", "[1,5]", "[3,1,1]", "[3,3,3]", ".x./xxx/.x.", "x//xx./.x./.xx//x"]
)
@pytest.mark.parametrize("distances", [(-2, -1, 0, 1, 2), (0, 0, 0, 1, 2), (-1, -1, 0, 0, 0)])
def test_the_input_does_not_depend_on_hidden_pixels_of_the_frame_or_its_copies(mask, distances):
    draws = torch.Generator().manual_seed(0)
    shown = torch.randn(3, 5, 2, 32, 32, generator=draws)
    own = [f for f in range(5) if distances[f] == 0]
    for f in own:
        shown[:, f] = shown[:, 2]
    hide = HiddenPixels(0.04 * Mask.of(mask).pixels, mask)
    before = torch.tensor([distances] * 3)
    ready = hide(shown, before, torch.Generator().manual_seed(1))
    targets = ready["target"].isfinite()
    assert 0.03 < targets.float().mean() < 0.05
    other = shown.clone()
    for f in own:
        other[:, f] = torch.where(targets, shown[:, f] + 100, shown[:, f])
    again = hide(other, before, torch.Generator().manual_seed(1))
    assert torch.equal(ready["input"], again["input"])
    assert torch.equal(again["target"][targets], ready["target"][targets] + 100)
    if mask == "[1,1]":  # all else is as it was
        same = ready["input"].unflatten(1, (5, 2)) == shown
        assert same[:, own].all(1)[~targets].all()
        assert same[:, [f for f in range(5) if f not in own]].all()


def test_a_larger_mask_hides_no_more_of_a_frame():
    frames_shown = torch.arange(64.0 * 64).reshape(1, 1, 1, 64, 64).expand(4, 3, 1, 64, 64)
    distances = torch.tensor([[-1, 0, 1]] * 4)
    for mask in ((1, 1), (1, 9), (9, 9), ".xxx./xxxxx/.xxx."):
        ready = HiddenPixels(0.1, mask)(frames_shown, distances, torch.Generator().manual_seed(0))
        hidden = (ready["input"][:, 1] != frames_shown[:, 1, 0]).float().mean()
        assert 0.06 < hidden < 0.14
        assert ready["target"].isfinite().any()


def test_gaps_of_the_middle_frame_are_no_targets_and_tell_nothing_of_them():
    shown = torch.randn(1, 3, 1, 32, 32)
    shown[:, 1, :, 5:9, 5:9] = torch.nan
    ready = HiddenPixels(0.3)(shown, torch.tensor([[-1, 0, 1]]), torch.Generator().manual_seed(0))
    assert ready["target"][..., 5:9, 5:9].isnan().all()
    assert ready["input"].isfinite().all()


@pytest.mark.parametrize(
    "mask",
    [
        (2, 1),
        (1,),
        (2, 1, 1),
        (1, 1, 1, 1),
        (0, 1, 1),
        (1.5, 1),
        (1.5, 1, 1),
        ("a", "b"),
        ("a", 1, 1),
        3,
        "xx",
        ".x./x.x/.x.",
        "xxx/x",
        "x//x",
        "[1,2]",
        "rows",
    ],
)
def test_masks_that_cannot_be_are_refused(mask):
    with pytest.raises(InputError, match=r"data\.mask"):
        HiddenPixels(0.04, mask)


def test_batches_hold_each_frame_between_its_neighbours(path):
    data = loaded(path)
    assert (data.context, data.sees_middle, data.input_channels) == (2, True, 5)
    scenes = data.train.scenes
    shown, distances = frames_around(
        scenes, torch.zeros(3, dtype=torch.long), torch.tensor([0, 5, 11]), 2, True
    )
    assert distances.tolist() == [[0, 0, 0, 1, 2], [-2, -1, 0, 1, 2], [-2, -1, 0, 0, 0]]
    for b, t in enumerate((0, 5, 11)):
        for f in range(5):
            assert torch.equal(shown[b, f], scenes.image(0, t + int(distances[b, f]))[0])
    batch = data.train[BatchIndex(0, 0, torch.arange(8))]
    ready = data.make_pair(batch, BatchDraws(0, 0, 0, "training"), training=True)
    assert ready["input"].shape == (8, 5, 16, 16)
    assert ready["target"].shape == (8, 1, 16, 16)
    assert 0.05 < ready["target"].isfinite().float().mean() < 0.16


def test_a_whole_hidden_frame_is_never_in_its_input(path):
    data = loaded(path, blind="frame")
    assert (data.sees_middle, data.input_channels) == (False, 4)
    for number in range(4):
        batch = data.train[BatchIndex(0, number, torch.arange(16))]
        assert "distances" not in batch
        same = batch["input"] == batch["target"]
        assert same.float().mean() < 0.1


class Share(torch.nn.Module):
    """A network that returns a weighted sum of the frames that it is shown."""

    multiple = 1

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(weights))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weights[:, None, None]).sum(1, keepdim=True)


def summing(*weights: float) -> TrainedDenoiser:
    info = CheckpointInfo(range=(0.0, 1000.0), context=len(weights) // 2, sees_middle=True)
    return TrainedDenoiser(Share(*weights), 1, info)


def test_use_shows_the_frame_itself_and_repeats_the_end_frames():
    frames_ = movie().astype(np.float32)
    result = summing(0.0, 0.0, 1.0, 0.0, 0.0).denoise(frames_, axes="THW")
    np.testing.assert_allclose(result, frames_, rtol=1e-4)
    result = summing(1.0, 0.0, 0.0, 0.0, 0.0).denoise(frames_, axes="THW")
    np.testing.assert_allclose(result, frames_[[0, 0, *range(10)]], rtol=1e-4)
    result = summing(0.0, 0.0, 1.0).denoise(frames_, axes="THW")
    np.testing.assert_allclose(result, frames_[[*range(1, 12), 11]], rtol=1e-4)


def test_dead_frames_and_copies_are_no_neighbours():
    frames_ = movie().astype(np.float32)
    frames_[[4, 5]] = 0
    frames_[8] = frames_[7]
    result = summing(1.0, 0.0, 0.0).denoise(frames_, axes="THW")
    np.testing.assert_allclose(result[6], frames_[3], rtol=1e-4)
    np.testing.assert_allclose(result[8], frames_[6], rtol=1e-4)  # as of its original
    np.testing.assert_allclose(result[9], frames_[7], rtol=1e-4)
    assert (result[[4, 5]] == 0).all()


def test_values_far_out_of_range_bypass_the_network():
    frames_ = movie().astype(np.float32)
    frames_[6, 20:24, 20:24] = 20000
    result = summing(0.0, 0.0, 1.0, 0.0, 0.0).denoise(frames_, axes="THW", outliers="keep")
    np.testing.assert_allclose(result[6], frames_[6], rtol=1e-4)


def test_a_frame_given_with_its_neighbours_is_denoised_as_in_the_movie():
    frames_ = movie().astype(np.float32)
    model = summing(0.1, 0.2, 0.3, 0.3, 0.1)
    whole = model.denoise(frames_, axes="THW")
    near = [frames_[t] for t in (0, 0, 1, 2, 3)]
    result = np.empty_like(frames_[1])
    model.denoise_into(result, NoisyArray(frames_[1], "HW", near=near))
    np.testing.assert_allclose(result, whole[1], rtol=1e-4)


def test_volumes_in_time_are_shown_between_their_neighbours():
    volumes = np.random.default_rng(0).normal(500, 20, (6, 8, 24, 24)).astype(np.float32)
    network = Share(0.0, 0.0, 1.0)
    network.dims = 3
    network.forward = lambda x: (x * network.weights[:, None, None, None]).sum(1, keepdim=True)
    info = CheckpointInfo(range=(0.0, 1000.0), context=1, sees_middle=True)
    result = TrainedDenoiser(network, 1, info).denoise(volumes, axes="TDHW")
    np.testing.assert_allclose(result, volumes[[1, 2, 3, 4, 5, 5]], rtol=1e-4)


def test_movies_of_volumes_hide_voxels(tmp_path):
    volumes = np.random.default_rng(0).normal(500, 20, (6, 12, 40, 40)).astype(np.float32)
    np.save(tmp_path / "movie.npy", volumes)
    data = Movie(
        str(tmp_path / "movie.npy"),
        layout="TDHW",
        batch_size=2,
        train_pairs=4,
        crop=[8, 16, 16],
        context=1,
        dims=3,
    )
    data.setup()
    batch = data.train[BatchIndex(0, 0, torch.arange(2))]
    ready = data.make_pair(batch, BatchDraws(0, 0, 0, "training"), training=True)
    assert ready["input"].shape == (2, 3, 8, 16, 16)
    assert 0.06 < ready["target"].isfinite().float().mean() < 0.14


def test_volumes_in_time_are_frames_and_their_planes_are_not(tmp_path):
    draws = np.random.default_rng(0)
    volumes = draws.normal(200, 20, (6, 8, 24, 24)).round().astype(np.uint16)
    path = tmp_path / "volumes.tif"
    tifffile.imwrite(path, volumes, imagej=True, metadata={"axes": "TZYX"})
    data = loaded(path)
    assert data.dims == 3
    assert data.movies.counts_of_all == [6]
    assert tuple(data.movies.smallest) == (8, 24, 24)
    with pytest.raises(InputError, match="movie of volumes"):
        loaded(path, dims=2)
    np.save(tmp_path / "clean.npy", np.full_like(volumes, 200))
    clean = read_clean(str(tmp_path / "clean.npy"), data)
    assert clean.counts_of_all == [6]


def test_a_checkpoint_states_that_it_sees_the_frame_and_older_ones_do_not():
    info = CheckpointInfo(model={"_target_": "a.B"}, context=2, sees_middle=True)
    plain = info.plain()
    assert plain["format"] == 2  # an older program must not take it for a hidden frame
    assert CheckpointInfo.of(plain, "a.ckpt") == info
    older = CheckpointInfo(model={"_target_": "a.B"}, context=2).plain()
    assert older["format"] == 1
    del older["sees_middle"]
    assert CheckpointInfo.of(older, "a.ckpt").input_frames == 4


def events(count: int = 24, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A movie of photons (T, H, W), uint16, and the same without noise; a square flashes."""
    draws = np.random.default_rng(1)
    clean = np.full((count, side, side), 20.0)
    clean += 10 * np.sin(np.arange(side) / 8)[:, None]
    clean[10:13, 8:24, 8:24] += 30
    return draws.poisson(clean).astype(np.uint16), clean


def _of_frames(network, frames_: torch.Tensor) -> torch.Tensor:
    return network(frames_.flatten(0, 1)[None])[0]


def test_a_mask_follows_the_correlation_of_the_noise():
    white, _ = events()
    noise = movie_noise(white[:, None].astype(np.float64))
    assert noise.measurable
    assert mask_of_movies([noise]).mask == Mask()
    correlation = noise.autocorrelation.copy()
    correlation[LAGS, LAGS + 2] = correlation[LAGS, LAGS - 2] = 0.4
    every_second = replace(noise, autocorrelation=correlation)
    assert mask_of_movies([noise, every_second]).mask.text == "x.x.x"
    assert mask_of_movies([replace(every_second, correlation_error=0.35)]).mask == Mask()
    in_time = replace(noise, in_time=0.5)
    assert mask_of_movies([in_time]).mask.text == "[3,1,1]"
    both = replace(every_second, in_time=0.5)
    assert mask_of_movies([both]).mask.text == "x.x.x//x.x.x//x.x.x"
    both = replace(every_second, in_time=0.2)  # 0.2 x 0.4 is less than 0.1
    assert mask_of_movies([both]).mask.text == "x//x.x.x//x"
    gaps = white[:, None].astype(np.float64)
    gaps[7, 0, 33, 40] = np.nan
    assert mask_of_movies([movie_noise(gaps)]).mask == Mask()
    assert movie_noise(gaps).autocorrelation[LAGS, LAGS] == 1
    unknown = replace(noise, autocorrelation=correlation * np.nan, reason="few frames")
    choice = mask_of_movies([unknown])
    assert choice.mask == Mask()
    assert "not measurable: few frames" in choice.lines()[0]


def test_the_score_of_a_frame_that_the_network_sees_is_true(tmp_path):
    noisy, clean = events()
    tifffile.imwrite(tmp_path / "a.tif", noisy, imagej=True, metadata={"axes": "TYX"})
    data = loaded(tmp_path / "a.tif")
    assert data.reference == "stein"
    for weights in ((0.2, 0.2, 0.2, 0.2, 0.2), (0.0, 0.25, 0.5, 0.25, 0.0), (0, 0, 1.0, 0, 0)):
        network = Share(*weights)
        score = MovieScore(data.unit)
        errors = []
        denoise = partial(_of_frames, network)
        for frame in data.scored_frames(0, 2, True):
            with torch.inference_mode():
                output = score.add(denoise, frame, data.noise_of(0))
            truth = (clean[frame.number] - data.limits[0]) / data.limits[1]
            errors.append(float((output[0] - torch.from_numpy(truth)).square().mean()))
        errors = np.array(errors) * data.unit**2
        low, high = score.interval()
        assert low < np.mean(errors) < high
        assert abs(10 * np.log10(score.error / np.mean(errors))) < 0.5
        assert abs(10 * np.log10(score.noisy * data.scale**2 / clean.mean())) < 0.2


def test_what_is_held_out_is_large_enough_for_the_mask(tmp_path):
    draws = np.random.default_rng(0)
    white = draws.normal(size=(40, 96, 97))
    along = 200 + 14 * (white[..., 1:] + white[..., :-1])  # correlated along rows
    path = tmp_path / "rows.npy"
    np.save(path, along.astype(np.float32))
    measured = loaded(path, layout="NHW")
    assert measured.mask == measured.fingerprint["mask"] == "[1,3]"
    assert any("data.mask=[1,3] (auto)" in note for note in measured.notes)
    asked = loaded(path, layout="NHW", mask=[1, 9])
    for data in (measured, asked):
        batch = next(iter(data.val_dataloader()))
        ready = data.make_pair(batch, BatchDraws(0, 0, 0), training=False)
        assert ready["target"].isfinite().any()
    assert asked.val_dataloader().dataset.scenes.smallest == (22, 96)


def test_pairs_of_a_movie_whose_noise_is_unknown_have_no_score(tmp_path):
    path = tmp_path / "two.npy"
    np.save(path, movie(2))
    data = loaded(path, layout="NHW")
    assert (data.context, data.reference) == (0, "hidden")
    batch = next(iter(data.val_dataloader()))
    ready = data.make_pair(batch, BatchDraws(0, 0, 0), training=False)
    assert ready["noise"] is None
    assert not torch.equal(ready["target"], ready["input"])


def folder_of(path, uneven: int, short: int, count: int = 12):
    """Save movies of which some have noise that differs from place to place, and some 2 frames."""
    path.mkdir()
    for i in range(count):
        noisy = movie(8, 64, seed=i).astype(np.float32)
        if i == uneven:
            noisy[:, :, 32:] += np.random.default_rng(i).normal(0, 40, (8, 64, 32))
        np.save(path / f"{i:02}.npy", noisy[:2] if i == short else noisy)
    return path


def test_one_movie_with_unknown_noise_leaves_the_others_their_score(tmp_path):
    data = loaded(folder_of(tmp_path / "movies", 10, 7), layout="NHW")
    assert (data.context, data.sees_middle) == (2, True)
    assert data.reference == "stein"
    assert list(data.scored) == [4, 5, 6, 8, 9, 11]
    notes = " ".join(data.notes)
    assert "07.npy is left out of the score: the movie has 2 frames" in notes
    assert "10.npy is left out of the score: the noise differs from place to place" in notes
    noisy = {}
    for batch in data.val_dataloader():  # of 12 movies one is held out
        ready = data.make_pair(batch, BatchDraws(0, 0, 0), training=False)
        noisy.setdefault(int(batch["scene"]), ready["noise"])
    assert set(noisy) == {11}
    assert noisy[11].measurable


def test_movies_that_can_be_scored_are_held_out_if_the_last_cannot(tmp_path):
    data = loaded(folder_of(tmp_path / "movies", 11, 10, 20), layout="NHW", val_share=0.05)
    assert data.reference == "stein"
    scenes = {int(batch["scene"]) for batch in data.val_dataloader()}
    assert scenes == {19}
    (tmp_path / "movies/19.npy").unlink()
    shutil.copy(tmp_path / "movies/10.npy", tmp_path / "movies/18.npy")
    data = loaded(tmp_path / "movies", layout="NHW", val_share=0.05)
    assert {int(batch["scene"]) for batch in data.val_dataloader()} == {17}
    assert data.movies.names[17].endswith("17.npy")
    batch = next(iter(data.val_dataloader()))
    assert torch.equal(batch["frame"][0], data.movies.image(17, 0))
    assert len(data.training_scenes.scenes) == 18
    assert data.training_scenes.scenes.names[-1].endswith("18.npy")


def test_movies_that_cannot_be_scored_follow_the_loss_of_hidden_pixels(tmp_path):
    path = tmp_path / "movies"
    path.mkdir()
    for i in range(3):
        np.save(path / f"{i}.npy", movie(4, 64, seed=i))
    data = loaded(path, layout="NHW")
    assert (data.reference, list(data.scored)) == ("hidden", [])
    assert any("PSNR cannot be estimated: the movie has 4 frames" in note for note in data.notes)


def test_the_noise_follows_a_change_of_units(path):
    data = loaded(path)
    before = data.noise_of(0)
    black, span = data.limits
    data.limits = (0.0, 1.0)
    stored = data.noise_of(0)
    for brightness in (0.2, 0.7):
        there = stored.variance(brightness * span + black)
        assert there == pytest.approx(before.variance(brightness) * span**2)
    assert stored.brightness == pytest.approx(before.brightness * span + black)


def test_regions_are_followed_over_time():
    labels = np.zeros((8, 8), int)
    labels[:4, :4] = 3
    labels[5:, 5:] = 7
    traces = Traces(labels)
    for t in range(4):
        noisy = np.full((1, 8, 8), 10.0 + t)
        noisy[0, 0, 0] = np.nan
        denoised = np.where(labels == 7, noisy - (t == 2), noisy)
        traces.add(t + 5, {"noisy": noisy, "run": denoised})
    assert traces.rows()[0] == {"frame": 5, "region": 3, "noisy": 10.0, "run": 10.0}
    worst = traces.largest_differences("run")
    assert worst[3]["difference"] == 0
    assert (worst[7]["frame"], worst[7]["difference"]) == (7, -1.0)
    moving = np.zeros((5, 40, 40))
    moving[3, 16:32, :16] = 1
    assert (active_regions(moving)[16:32, :16] == 1).all()


def test_a_region_without_known_pixels_has_no_mean():
    traces = Traces(np.array([[1, 2]]))
    for frame, value in enumerate((100.0, np.nan, 104.0)):
        noisy = np.array([[value, np.nan]])
        traces.add(frame, {"noisy": noisy, "run": noisy + frame})
    means = [row["noisy"] for row in traces.rows() if row["region"] == 1]
    assert np.isnan(means[1])
    assert means[::2] == [100, 104]
    differences = traces.largest_differences("run")
    assert set(differences) == {1}
    assert (differences[1]["frame"], differences[1]["difference"]) == (2, 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    noisy, clean = events()
    tifffile.imwrite(folder / "a.tif", noisy, imagej=True, metadata={"axes": "TYX"})
    np.save(folder / "clean.npy", clean.astype(np.float32))
    options = ["data.train_pairs=16", "data.batch_size=4", "data.crop=16", "trainer.max_epochs=2"]
    options += ["model=dncnn", "model.width=4", "model.layers=3", "hydra.run.dir=run"]
    done = run("train", "data=movie", "data.noisy=a.tif", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_run_states_the_score_of_what_denoise_writes(trained):
    folder, output = trained
    result = json.loads((folder / "run/result.json").read_text())
    assert result["data"]["blind"] == "pixels"
    low, high = result["movie_psnr_estimate_interval"]
    assert low < result["movie_psnr_estimate"] < high
    assert result["val_psnr_estimate"] is not None
    assert result["val_noisy_loss"] is not None
    assert "the whole movie, denoised" in output
    assert read_info(folder / "run").sees_middle


def test_evaluate_scores_a_movie_and_follows_its_regions(trained):
    folder, _ = trained
    labels = np.zeros((64, 64), np.uint8)
    labels[8:24, 8:24] = 1
    tifffile.imwrite(folder / "labels.tif", labels)
    done = run(
        *("evaluate", "run", "--data", "movie", "--noisy", "a.tif", "--clean", "clean.npy"),
        *("--regions", "labels.tif", "--out", "scores", "--json", "scores.json"),
        *("--certify", "certificate.json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads((folder / "scores.json").read_text())
    row = scores["scores"]["run"]
    low, high = row["psnr_estimate_interval"]
    assert low - 0.1 < row["psnr"] < high + 0.5  # the mean of frames, not of the squared errors
    certificate = json.loads((folder / "certificate.json").read_text())
    quantities = certificate["run"]["pages"][0]["quantities"]
    assert quantities[0]["quantity"] == "mean of region 1 over time"
    assert "which differs most" in quantities[1]["quantity"]
    assert "region 1" in (folder / "certificate.html").read_text()
    with open(folder / "scores/regions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == [str(t) for t in range(24)]
    assert set(rows[0]) == {"frame", "region", "noisy", "run", "clean"}
    assert float(rows[10]["clean"]) - float(rows[9]["clean"]) == pytest.approx(30)
    done = run("evaluate", "run", "--val-noisy", "a.tif", "--val-target", "a.tif", cwd=folder)
    assert "--data movie --noisy MOVIE scores it" in done.stdout


def test_a_single_frame_is_scored_between_its_neighbours(trained):
    folder, _ = trained
    rows = {}
    for name in ("a.tif", "a.tif[10:11]"):
        done = run(
            *("evaluate", "run", "--data", "movie", "--noisy", name),
            *("--clean", "clean.npy", "--out", "scores"),
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
        with open(folder / "scores/regions.csv") as file:
            rows[name] = [row for row in csv.DictReader(file) if row["frame"] == "10"]
    assert len(rows["a.tif"]) == 8
    assert rows["a.tif[10:11]"] == rows["a.tif"]
    assert "over time" not in done.stdout


def test_a_clean_movie_has_a_frame_for_each_noisy_one(trained, tmp_path):
    folder, _ = trained
    clean = np.load(folder / "clean.npy")
    np.save(tmp_path / "short.npy", clean[:-1])
    np.save(tmp_path / "colour.npy", np.repeat(clean[:, None], 3, 1))
    for name in ("short.npy", "colour.npy"):
        done = run(
            *("evaluate", "run", "--data", "movie", "--noisy", "a.tif"),
            *("--clean", str(tmp_path / name)),
            cwd=folder,
        )
        assert done.returncode == 2
        assert "differs in size, channels or number of frames" in done.stderr


@pytest.mark.parametrize("said", ["", "  blind: pixels\n"])
def test_a_run_of_an_earlier_version_goes_on_as_it_began(tmp_path, said):
    stored = tmp_path / ".hydra"
    stored.mkdir()
    (stored / "config.yaml").write_text(f"data:\n  _target_: n2n_lightning.data.Movie\n{said}")
    (stored / "overrides.yaml").write_text("[]\n")
    config, _ = continued_config(tmp_path, [])
    assert config.data.blind == ("pixels" if said else "frame")


def test_scores_of_another_kind_are_not_compared_with_when_a_run_goes_on(trained, tmp_path):
    folder, _ = trained
    shutil.copytree(folder / "run", tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    stored = torch.load(last, weights_only=True)
    assert stored["n2n_lightning"].pop("reference") == "stein"  # as an earlier version stored it
    for row in stored["n2n_lightning"]["history"]:
        row["val_mse_estimate"] = 1e-9
    (best,) = [key for key in stored["callbacks"] if key.startswith("Best")]
    stored["callbacks"][best]["best_model_score"] = torch.tensor(1e-9)
    torch.save(stored, last)
    done = run("train", f"resume={tmp_path / 'run'}", "trainer.max_epochs=3", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the scores up to epoch 2 are of another kind") == 1
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["best_epoch"] == 3
    assert torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["epoch"] == 2
    with open(tmp_path / "run/metrics.csv") as file:
        assert all(row["val_mse_estimate"] for row in csv.DictReader(file))


@pytest.mark.parametrize(
    ("before", "reference", "kept"),
    [
        (None, "clean", True),
        (None, "stein", False),
        ("stein", "stein", True),
        ("stein", "hidden", False),
    ],
)
def test_what_watches_a_score_forgets_one_of_another_kind(before, reference, kept):
    watching = "EarlyStopping{'monitor': 'val_psnr_estimate', 'mode': 'max'}"
    other = "EarlyStopping{'monitor': 'train_loss', 'mode': 'min'}"
    history = [{"epoch": 1, "train_loss": 0.1, "val_psnr_estimate": 60.0}]
    plateau = {"best": 60.0, "mode_worse": -np.inf, "num_bad_epochs": 2}
    checkpoint = {
        "n2n_lightning": {"history": history},
        "callbacks": {watching: {"best_score": 60.0}, other: {"best_score": 0.1}},
        "lr_schedulers": [plateau, {"last_epoch": 1}],
    }
    forget_scores(checkpoint, before, reference)
    assert (watching in checkpoint["callbacks"]) == kept
    assert other in checkpoint["callbacks"]
    assert (plateau["best"] == 60) == kept
    assert ("val_psnr_estimate" in checkpoint["n2n_lightning"]["history"][0]) == kept
