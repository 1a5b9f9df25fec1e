"""Drift by whole pixels: measured on noisy frames, undone in training, scores and use."""

import json
from functools import cache

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from n2n_lightning import inspect_images
from n2n_lightning.arrays.registration import positions_of, shifted, way_onto
from n2n_lightning.data import BatchIndex, Movie, PairedImages
from n2n_lightning.data.scene_set import EqualSizeScenes, MixedSizeScenes
from n2n_lightning.files import InputError
from n2n_lightning.inference.checkpoint import CheckpointInfo
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.movie_frames import Series
from tests.conftest import run

SIDE = 96
WAYS = np.random.default_rng(4).integers(-3, 4, (30, 2))
DITHERED = np.cumsum(WAYS, 0) - WAYS[0]  # positions of a scene, from its first frame


@cache
def wide_scene(side: int = 320, seed: int = 1) -> np.ndarray:
    """A smooth random picture around 200 with a deviation of 50, larger than the frames."""
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 3)
    return 200 + 50 * smooth / smooth.std()


def seen_from(positions: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Frames (T, H, W) of a wide scene that has moved, without noise."""
    frames = []
    for row, column in positions:
        top = 112 - row
        left = 112 - column
        frames.append(wide_scene()[top : top + side, left : left + side])
    return np.stack(frames)


def noisy(frames: np.ndarray, sigma: float = 25, seed: int = 0) -> np.ndarray:
    return frames + np.random.default_rng(seed).normal(0, sigma, frames.shape)


def measured(frames: np.ndarray) -> np.ndarray:
    return positions_of(frames[:, None])


@pytest.mark.parametrize("sigma", [0, 25, 60])
def test_positions_of_dithered_frames_are_recovered(sigma: float):
    positions = measured(noisy(seen_from(DITHERED), sigma))
    assert (np.diff(positions, axis=0).round() == np.diff(DITHERED, axis=0)).mean() > 0.99
    assert np.abs(positions - DITHERED).max() < 0.75


def test_a_drift_farther_than_the_frame_is_wide_is_recovered():
    drift = np.stack([3 * np.arange(-35, 36), 2 * np.arange(-35, 36)], 1)  # over 210 pixels
    positions = measured(noisy(seen_from(drift, 64), 25))
    assert np.abs(positions - (drift - drift[0])).max() < 10  # of 210, over 26 references
    assert (np.diff(positions, axis=0).round() == np.diff(drift, axis=0)).all()


def flashing() -> np.ndarray:
    frames = np.repeat(seen_from(np.zeros((1, 2), int)), 30, 0)
    frames[5:9, 20:50, 30:60] *= 2
    frames[15:, 60:90, 5:30] *= 1.5
    return frames


def moving_objects() -> np.ndarray:
    frames = np.repeat(seen_from(np.zeros((1, 2), int)), 30, 0)
    for t in range(30):
        frames[t, 10:26, 2 * t : 2 * t + 16] += 300
        frames[t, 70 - 2 * t : 82 - 2 * t, 70:82] += 200
    return frames


def flickering() -> np.ndarray:
    frames = np.repeat(seen_from(np.zeros((1, 2), int)), 30, 0)
    return frames * np.linspace(1, 0.4, 30)[:, None, None]


def hot_pixels_alone() -> np.ndarray:
    frames = np.full((30, SIDE, SIDE), 100.0)
    frames[:, ::17, ::13] = 4000
    return frames


@pytest.mark.parametrize("made", [flashing, moving_objects, flickering, hot_pixels_alone])
@pytest.mark.parametrize("sigma", [5, 25, 100])
def test_scenes_that_stay_have_no_drift(made, sigma: float):
    assert not measured(noisy(made(), sigma)).any()


def test_frames_of_noise_and_tiny_frames_have_no_drift():
    assert not measured(noisy(np.full((20, SIDE, SIDE), 9.0))).any()
    assert not measured(np.full((4, SIDE, SIDE), 9.0)).any()
    assert not measured(np.full((4, SIDE, SIDE), np.nan)).any()
    assert not measured(noisy(seen_from(DITHERED, 16), 5)).any()


def test_a_frame_that_cannot_be_measured_keeps_the_place_of_the_one_before():
    frames = noisy(seen_from(DITHERED))
    frames[12] = np.random.default_rng(3).normal(200, 25, frames[12].shape)
    positions = measured(frames)
    assert np.abs(positions[12] - DITHERED[11]).max() < 0.75
    assert np.abs(np.delete(positions - DITHERED, 12, 0)).max() < 0.75


def test_hot_pixels_that_stay_do_not_hide_a_drift():
    frames = noisy(seen_from(DITHERED))
    frames[:, ::19, ::23] = 4000
    assert np.abs(measured(frames) - DITHERED).max() < 0.75


def test_what_nothing_moved_into_is_nan():
    image = np.arange(12.0).reshape(3, 4)
    moved = shifted(image, 1, -2)
    assert np.isnan(moved[0]).all()
    assert np.isnan(moved[:, 2:]).all()
    np.testing.assert_array_equal(moved[1:, :2], image[:2, 2:])
    assert np.isnan(shifted(image, 5, 0)).all()


@pytest.mark.parametrize("kind", ["stacks", "movie", "mixed"])
def test_captures_are_taken_onto_others(kind: str):
    clean = seen_from(DITHERED[:4]).round()
    stored = torch.from_numpy(clean.astype(np.uint16))[:, None]
    positions = [torch.from_numpy(DITHERED[:4].astype(float))]
    if kind == "stacks":
        scenes = EqualSizeScenes([image[None] for image in stored], ["a"], positions=positions)
    elif kind == "movie":
        scenes = EqualSizeScenes([stored], ["a"], torch.tensor([4]), positions=positions)
    else:
        scenes = MixedSizeScenes([list(stored)], ["a"], positions=positions)
    scene = torch.tensor([0, 0])
    capture = torch.tensor([3, 1])
    onto = torch.tensor([1, 2])
    for part in (scenes, scenes.part(torch.tensor([0])), scenes.as_one_size()):
        moved = part.take_onto(scene, capture, onto)
        for i in range(2):
            way = way_onto(DITHERED[capture[i]], DITHERED[onto[i]])
            expected = shifted(clean[capture[i]], *way)
            np.testing.assert_array_equal(moved[i, 0], expected)
            known = np.isfinite(expected)
            assert 0.5 < known.mean() < 1
            np.testing.assert_array_equal(expected[known], clean[onto[i]][known])
    rows = torch.arange(90, 96).view(1, 1, -1, 1).expand(2, -1, -1, -1)
    columns = torch.arange(0, 9).view(1, 1, 1, -1).expand(2, -1, -1, -1)
    window = scenes.take_onto(
        scene, capture, onto, (torch.arange(1).view(1, 1, 1, 1), rows, columns)
    )
    np.testing.assert_array_equal(window, scenes.take_onto(scene, capture, onto)[..., 90:, :9])
    kept = scenes.keep([torch.tensor([1, 3])])
    np.testing.assert_array_equal(kept.image_onto(0, 1, 0), scenes.image_onto(0, 3, 1))


@pytest.fixture
def dithered(tmp_path):
    """A movie of 30 dithered frames of 96 x 96 pixels, noise of deviation 10."""
    path = tmp_path / "movie.tif"
    stored = noisy(seen_from(DITHERED), 10).round().astype(np.uint16)
    tifffile.imwrite(path, stored, imagej=True, metadata={"axes": "TYX"})
    return path


def batch_key() -> BatchIndex:
    return BatchIndex(0, 0, torch.arange(16))


@pytest.mark.parametrize("blind", ["pixels", "frame"])
def test_frames_around_one_lie_on_it_in_training_and_scores(dithered, blind: str):
    data = Movie(str(dithered), align=True, blind=blind, val_share=0.3)
    data.setup()
    (note,) = [note for note in data.notes if note.startswith("drift undone")]
    farthest = np.hypot(*DITHERED.T).max()
    assert note.startswith(f"drift undone: up to {farthest:.0f} pixels in 30 captures")
    batch = data.train[batch_key()]
    shown = batch["input"].double()
    middle = shown[:, 2:3] if blind == "pixels" else batch["target"].double()
    difference = shown - middle
    known = difference.isfinite()
    assert 0.8 < known.double().mean() < 1
    assert 10 < difference[known & (difference != 0)].std() < 18  # noise alone: 14
    ready = data.make_pair(batch, lambda use: torch.Generator(), training=True)
    assert ready["input"].isfinite().all()  # inpainted
    (frame, *_) = data.scored_frames(0, 2, blind == "pixels", 8)
    as_they_are = next(data.scored_frames(0, 2, blind == "pixels", 8, aligned=False))
    noise = 10 * 2**0.5 / float(data.limits[1])
    inside = (..., slice(16, -16), slice(16, -16))  # nothing is inpainted there
    assert (frame.shown[-1] - frame.target)[inside].std() < 1.2 * noise
    assert (as_they_are.shown[-1] - frame.target)[inside].std() > 1.5 * noise
    val = data.val[BatchIndex(0, 0, torch.tensor([3]))]
    difference = val["input"][:, -1:].double() - val["frame"].double()
    assert difference[difference.isfinite()].std() < 20


def test_pairs_of_frames_and_still_movies(dithered, tmp_path):
    data = Movie(str(dithered), align=True, context=0)
    data.setup()
    batch = data.train[batch_key()]
    difference = batch["target"].double() - batch["input"].double()
    assert 10 < difference[difference.isfinite()].std() < 18
    still = tmp_path / "still.npy"
    np.save(still, noisy(flashing()).astype(np.float32))
    aligned, plain = (
        Movie(str(still), layout="NHW", align=align, seed=3) for align in (True, False)
    )
    for movie in (aligned, plain):
        movie.setup()
    assert "no drift by whole pixels: nothing is aligned" in aligned.notes
    assert torch.equal(aligned.train[batch_key()]["input"], plain.train[batch_key()]["input"])
    assert aligned.movies.positions is None


@pytest.fixture
def moved_pairs(tmp_path):
    """Five scenes of two captures; the second shows the scene moved by (3, -2)."""
    for number in range(5):
        clean = wide_scene(seed=number)
        for name, row, column in (("a", 0, 0), ("b", 3, -2)):
            image = clean[50 - row : 146 - row, 50 - column : 146 - column]
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            stored = noisy(image, 8, number + 10 * (name == "b")).round().astype(np.uint16)
            tifffile.imwrite(folder / f"{number}.tif", stored)
    return tmp_path


def test_pairs_train_and_are_scored_on_targets_that_lie_on_the_input(moved_pairs):
    folders = (str(moved_pairs / "a"), str(moved_pairs / "b"))
    spread = {}
    for align in (True, False):
        data = PairedImages(*folders, align=align)
        data.setup()
        for name, part in (("train", data.train), ("val", data.val)):
            keys = torch.arange(16) if name == "train" else torch.tensor([0])
            batch = part[BatchIndex(0, 0, keys)]
            difference = batch["target"].double() - batch["input"].double()
            spread[name, align] = float(difference[difference.isfinite()].std())
    for name in ("train", "val"):
        assert spread[name, True] == pytest.approx(8 * 2**0.5, rel=0.1)
        assert spread[name, False] > 25
    data = PairedImages(*folders, align=True)
    data.setup()
    batch = data.val[BatchIndex(0, 0, torch.tensor([0]))]
    missing = batch["target"].isnan()[0, 0]  # what the second capture does not show
    assert missing[-3:].all()
    assert missing[:, :2].all()
    assert not missing[:-3, 2:].any()
    ready = data.make_pair(batch, lambda use: torch.Generator(), training=False)
    assert ready["input"].isfinite().all()
    assert ready["other_input"].isfinite().all()
    assert "in 5 of 5 scenes" in " ".join(data.notes)
    assert data.levels is None or not data.levels.noisier


def test_what_cannot_be_aligned_is_refused(moved_pairs, tmp_path):
    with pytest.raises(InputError, match=r"data\.align=yes: must be true or false"):
        Movie("a.tif", align="yes")
    with pytest.raises(InputError, match="clean targets"):
        PairedImages("a", "b", clean="c", supervised=True, align=True)
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(2, 2, 16, 32, 32)))
    data = PairedImages(str(tmp_path / "v.npy"), layout="NKDHW", align=True, dims=3)
    with pytest.raises(InputError, match="volumes are not aligned"):
        data.setup()


class MeanOfFrames(nn.Module):
    """The mean of all frames that it is shown."""

    multiple = 1

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.factor * images.mean(1, keepdim=True)


def denoiser(align: bool, context: int = 2, sees_middle: bool = True) -> TrainedDenoiser:
    facts = {"range": (0.0, 400.0), "context": context, "sees_middle": sees_middle}
    return TrainedDenoiser(MeanOfFrames(), 1, CheckpointInfo(align=align, **facts))


def test_denoised_frames_stay_where_they_were():
    clean = seen_from(DITHERED)
    stored = noisy(clean, 20).astype(np.float32)
    errors = {}
    for align in (True, False):
        output = denoiser(align).denoise(stored, axes="NHW", outliers="keep")
        errors[align] = (output - clean)[:, 12:-12, 12:-12].std()
    assert errors[True] == pytest.approx(20 / 5**0.5, rel=0.1)
    assert errors[False] > 20


def test_dead_frames_and_copies_are_aligned_around(tmp_path):
    clean = seen_from(DITHERED)
    stored = noisy(clean, 20).astype(np.float32)
    stored[7] = 0
    stored[13] = stored[12]
    output = denoiser(True).denoise(stored, axes="NHW", outliers="keep")
    assert not output[7].any()
    inside = (output - clean)[:, 14:-14, 14:-14]
    live = [t for t in range(30) if t not in (7, 13)]
    assert inside[live].std(axis=(1, 2)).max() < 14  # 13.3 at the ends, which repeat a frame
    np.testing.assert_array_equal(output[13], output[12])


def test_files_of_a_folder_are_moved_onto_one_another(tmp_path):
    for t, frame in enumerate(noisy(seen_from(DITHERED), 10)):
        tifffile.imwrite(tmp_path / f"{t}.tif", frame.astype(np.float32))
    paths = sorted(tmp_path.glob("*.tif"))
    series = Series(paths, 2)
    moves = series.moves(tmp_path / "5.tif", [3, 4, 5, 6, 7])
    expected = [way_onto(DITHERED[t], DITHERED[5]) for t in (3, 4, 5, 6, 7)]
    assert moves == expected
    assert series.lines()[0].startswith("drift undone")
    assert not series.lines()  # once


def test_a_checkpoint_says_that_its_frames_are_aligned():
    facts = {"model": {"_target_": "n2n_lightning.networks.UNet"}, "context": 2}
    stored = CheckpointInfo(**facts, align=True).plain()
    assert stored["format"] == 3  # older programs would show it frames as they are
    assert CheckpointInfo.of(stored, "a").align
    assert CheckpointInfo(**facts).plain()["format"] == 1


def test_train_denoise_and_evaluate_align(dithered, tmp_path):
    done = run(
        "train",
        "data=movie",
        f"data.noisy={dithered}",
        "data.align=true",
        "model=drunet",
        "model.widths=[8,16]",
        "model.blocks=[1,1]",
        "data.train_pairs=256",
        "trainer.max_epochs=1",
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    assert "drift undone: up to" in done.stdout, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["data"]["align"] is True
    done = run("denoise", dithered, "-o", "whole", "--checkpoint", "run", cwd=tmp_path)
    assert "drift undone: up to" in done.stdout, done.stderr
    frames = tmp_path / "frames"
    frames.mkdir()
    for t, frame in enumerate(tifffile.imread(dithered)):
        tifffile.imwrite(frames / f"{t:02}.tif", frame)
    done = run("denoise", "frames", "-o", "single", "--checkpoint", "run", cwd=tmp_path)
    assert done.stdout.count("drift undone: up to") == 1, done.stderr
    whole = tifffile.imread(tmp_path / "whole" / "movie.tif").astype(float)
    for t in (0, 9, 29):
        single = tifffile.imread(tmp_path / "single" / f"{t:02}.tif")
        assert np.abs(single - whole[t]).mean() < 0.5
    scored = ("evaluate", "run", "--data", "movie", "--noisy", dithered)
    done = run(*scored, "--out", "scores", cwd=tmp_path)
    assert "drift undone: up to" in done.stdout, done.stderr


def test_check_recommends_alignment_where_it_measures_a_drift(dithered, moved_pairs, tmp_path):
    report = inspect_images(str(dithered))
    assert report.source == "movie"
    assert report.advice == ["data.align=true"]
    pairs = inspect_images(str(moved_pairs / "a"), str(moved_pairs / "b"))
    assert pairs.advice == ["data.align=true"]
    still = tmp_path / "still.tif"
    tifffile.imwrite(still, noisy(flashing()).clip(0).astype(np.uint16))
    assert "data.align=true" not in inspect_images(str(still)).advice
