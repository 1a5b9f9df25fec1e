"""The bundled checkpoint for movies: `--checkpoint movie`, networks/temporal.py."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from n2n_lightning import load
from n2n_lightning.files import InputError
from n2n_lightning.inference.bundled import bundled_checkpoint, checkpoint_for
from n2n_lightning.inference.checkpoint import MOVIE, PRETRAINED, checkpoint_of
from n2n_lightning.inference.plan import Job
from n2n_lightning.networks import TemporalDRUNet
from n2n_lightning.networks.temporal import along_structures
from tests.conftest import run

# On one worker, which denoises the movies once.
pytestmark = pytest.mark.xdist_group("movie checkpoint")
SIDE = 64
FRAMES = 5
MIDDLE = FRAMES // 2
SIGMA = 12.0


def ground(seed: int, side: int = SIDE) -> np.ndarray:
    """Smooth texture with cells, (side, side), counts."""
    draws = np.random.default_rng(seed)
    texture = gaussian_filter(draws.normal(size=(side, side)), 3, mode="wrap")
    cells = gaussian_filter(draws.random((side, side)) > 0.995, 2.0, output=float)
    return 100 + 10 * texture / texture.std() + 60 * cells / cells.max()


def noisy(clean: np.ndarray, seed: int = 1) -> np.ndarray:
    draws = np.random.default_rng(seed)
    return (clean + SIGMA * draws.normal(size=clean.shape)).astype(np.float32)


def errors(clean: np.ndarray, seed: int = 1) -> tuple[float, float, np.ndarray]:
    """Mean squared errors of the middle frame, frame by frame and with the frames around it."""
    movie = noisy(clean, seed)
    alone = load().denoise(movie[MIDDLE], axes="HW")
    result = load("movie").denoise(movie, axes="THW")[MIDDLE]
    before, after = (np.mean((image - clean[MIDDLE]) ** 2) for image in (alone, result))
    return float(before), float(after), result


def test_still_movies_gain_a_decibel_and_more():
    before, after, _ = errors(np.repeat(ground(0)[None], FRAMES, 0))
    assert 10 * np.log10(before / after) > 1


def test_movies_that_move_or_jump_lose_nothing():
    wide = ground(0, 2 * SIDE)
    edges = wide + 80 * (wide > 100)
    moving = np.stack([edges[:SIDE, 6 * t : 6 * t + SIDE] for t in range(FRAMES)])
    jumping = np.stack([ground(t) for t in range(FRAMES)])
    for clean in (moving, jumping):
        before, after, _ = errors(clean)
        assert 10 * np.log10(before / after) > -0.1


def test_an_event_of_one_frame_keeps_its_brightness():
    resting = ground(2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    cell = np.hypot(rows - 30, columns - 34) < 5
    clean = np.repeat(resting[None], FRAMES, 0)
    clean[MIDDLE] += gaussian_filter(50.0 * cell, 1)
    _, _, result = errors(clean)
    true = (clean[MIDDLE] - resting)[cell].mean()
    kept = (result - resting)[cell].mean()
    assert kept == pytest.approx(true, rel=0.05)


def test_the_unit_does_not_matter():
    movie = noisy(np.repeat(ground(0)[None], FRAMES, 0))
    model = load("movie")
    before = model.denoise(movie, axes="THW")
    after = model.denoise(3 * movie + 1000, axes="THW")
    assert np.allclose(after, 3 * before + 1000, atol=0.01)


def test_each_channel_is_a_movie_of_its_own():
    one = noisy(np.repeat(ground(0)[None], FRAMES, 0))
    other = noisy(np.repeat(2 * ground(3)[None], FRAMES, 0), 2)
    model = load("movie")
    both = model.denoise(np.stack([one, other], 1), axes="TCHW")
    for channel, movie in enumerate((one, other)):
        assert np.array_equal(both[:, channel], model.denoise(movie, axes="THW"))


def test_short_movies_and_single_pictures():
    movie = noisy(np.repeat(ground(0)[None], 3, 0))
    model = load("movie")
    for count in (2, 3):
        result = model.denoise(movie[:count], axes="THW")
        assert result.shape == (count, SIDE, SIDE)
        assert np.std(result - ground(0)) < SIGMA / 2
    for picture, letters in ((movie[0], "HW"), (movie[:1], "THW")):
        with pytest.raises(InputError, match="is for grey movies: it sees 2 frames on either side"):
            model.denoise(picture, axes=letters)


def test_a_copy_of_the_frame_itself_counts_nothing():
    draws = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 5, 24, 24, generator=draws)
    frames[:, 1] = frames[:, 2]  # as at an end of the movie
    middle = frames[:, 2:3]
    variance = torch.full_like(middle, 100.0)  # all frames agree
    averaged = TemporalDRUNet.averaged(frames, middle, variance)
    assert torch.allclose(averaged, frames[:, [0, 2, 3, 4]].mean(1, keepdim=True), atol=1e-5)
    apart = TemporalDRUNet.averaged(frames, middle, variance * 1e-6)
    assert torch.equal(apart, middle)


def test_changes_are_kept_in_the_shape_of_what_changes():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    cell = (torch.hypot(rows - 16, columns - 16) < 5).float()[None, None]
    flat = torch.full_like(cell, 1e-3)
    kept = along_structures(0.1 * cell, cell, flat)
    assert torch.allclose(kept, 0.1 * cell, atol=0.002)  # a cell that is 10% brighter
    noise = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    smoothed = along_structures(noise, 0 * cell, flat)
    assert smoothed.std() < 0.3


def test_the_weights_are_those_of_the_bundled_checkpoint():
    bundled = load()
    model = load("movie")
    assert (model.context, model.sees_middle, model.channels) == (2, True, 1)
    grey = torch.rand(1, 1, 24, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alone = model.network.denoiser(grey)
    assert torch.allclose(alone, bundled(grey), atol=1e-3)  # stored as float16
    assert MOVIE.stat().st_size < 3e6


def test_a_file_or_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint_of("movie") == MOVIE
    (tmp_path / "movie" / "checkpoints").mkdir(parents=True)
    own = Path("movie", "checkpoints", "last.ckpt")
    own.touch()
    assert checkpoint_of("movie") == own


def test_denoise_takes_the_name(tmp_path):
    movie = noisy(np.repeat(ground(0)[None], FRAMES, 0)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", movie, imagej=True, metadata={"axes": "TYX"})
    done = run("denoise", "a.tif", "-o", "out", "--checkpoint", "movie", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = tifffile.imread(tmp_path / "out" / "a.tif")
    assert result.shape == movie.shape
    assert np.std(result - ground(0)) < SIGMA / 3
    tifffile.imwrite(tmp_path / "b.tif", movie[0])
    done = run("denoise", "b.tif", "-o", "out", "--checkpoint", "movie", cwd=tmp_path)
    assert done.returncode == 1
    assert "is for grey movies" in done.stderr


def test_files_that_state_an_axis_of_time_are_movies(tmp_path):
    movie = noisy(np.repeat(ground(0)[None], FRAMES, 0)).astype(np.uint16)
    for name, letters in (("time", "TYX"), ("depth", "ZYX")):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, movie, imagej=True, metadata={"axes": letters})
    np.save(tmp_path / "unknown.npy", movie)

    def chosen(*names: str, movie: bool | None = None, said: str | None = None) -> Path:
        jobs = [Job(tmp_path / name, tmp_path / "out" / name) for name in names]
        return bundled_checkpoint(movie, jobs, said)

    assert chosen("time.tif") == MOVIE
    assert chosen("time.tif", movie=False) == PRETRAINED
    for others in (("depth.tif",), ("unknown.npy",), ("time.tif", "depth.tif"), ("none.tif",), ()):
        assert chosen(*others) == PRETRAINED
    assert chosen("unknown.npy", movie=True) == MOVIE
    assert chosen("unknown.npy", said="THW") == MOVIE
    assert chosen("time.tif", said="NHW") == PRETRAINED


def test_denoise_says_that_a_file_is_a_movie_and_how_to_have_it_frame_by_frame(tmp_path):
    movie = noisy(np.repeat(ground(0)[None], FRAMES, 0)).astype(np.uint16)
    for name in ("a", "b"):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, movie, imagej=True, metadata={"axes": "TYX"})
    done = run("denoise", "a.tif", "b.tif", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--no-movie" in done.stdout
    assert "frames of one movie" not in done.stdout
    alone = run("denoise", "a.tif", "-o", "alone", "--no-movie", cwd=tmp_path)
    assert "--no-movie" not in alone.stdout
    results = [tifffile.imread(tmp_path / where / "a.tif") for where in ("out", "alone")]
    with_frames, frame_by_frame = (np.std(result - ground(0)) for result in results)
    assert with_frames < 0.9 * frame_by_frame
    refused = run("denoise", "a.tif", "-o", "c", "--movie", "--checkpoint", "x", cwd=tmp_path)
    assert "--movie" in refused.stderr


def test_options_that_make_movies_frame_by_frame_are_named(tmp_path, capsys):
    path = tmp_path / "movie.tif"
    frames = np.zeros((4, 16, 16), np.uint8)
    tifffile.imwrite(path, frames, imagej=True, metadata={"axes": "TYX"})
    names = ("adapt", "halves", "errors", "second", "tile")
    args = SimpleNamespace(movie=None, axes=None, mosaic="auto", **dict.fromkeys(names))
    jobs = [Job(path, tmp_path / "out.tif")]
    assert checkpoint_for(args, jobs) == MOVIE
    assert not capsys.readouterr().out
    args.tile = 1024
    assert checkpoint_for(args, jobs) == PRETRAINED
    assert "because of --tile" in capsys.readouterr().out
