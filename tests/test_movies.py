"""Movies: files and folders, neighbouring frames, dead frames, copies, channels in turn."""

import numpy as np
import pytest
import tifffile
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy.ndimage import gaussian_filter, shift

from n2n_lightning import inspect_images, load
from n2n_lightning.arrays import frame_offsets
from n2n_lightning.arrays.frame_checks import review
from n2n_lightning.config import overrides as override_syntax
from n2n_lightning.config.hydra_versions import VERSION_BASE
from n2n_lightning.data import BatchIndex, Movie, PairedImages
from n2n_lightning.data.movie import frames_around
from n2n_lightning.data.reading_movies import read_movies
from n2n_lightning.files import InputError
from n2n_lightning.inference.checkpoint import CheckpointInfo
from n2n_lightning.inference.denoiser import TrainedDenoiser
from tests.conftest import run
from tests.single_images import CASES, SMALL, place  # noqa: F401


def scene(side: int = 64, seed: int = 1) -> np.ndarray:
    """A smooth random picture around 200 with a deviation of 50."""
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 3)
    return 200 + 50 * smooth / smooth.std()


def movie(count: int = 24, side: int = 64, sigma: float = 25) -> np.ndarray:
    """Frames (T, H, W) of a scene that moves by 0.4 pixels a frame, with noise, uint16."""
    draws = np.random.default_rng(22)
    clean = np.stack(
        [shift(scene(side), (0.4 * t, 0.2 * t), order=1, mode="nearest") for t in range(count)]
    )
    return (
        (clean + draws.normal(0, sigma, clean.shape) + 100).clip(0, 65535).round().astype(np.uint16)
    )


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
    for value, words in (
        (65535, "every pixel 65535"),
        (noise + 100, "blank at"),
        (noise + 900, "blank at"),
    ):
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
    assert "data.frames=0::2 or data.frames=1::2" in found(taking_turns()).turns("a.tif")
    frames = movie().astype(float)
    frames[1::2] *= 1.1
    assert found(frames).period == 1
    assert found(frames).alternation == pytest.approx(0.1, abs=0.02)


def write(path, frames: np.ndarray):
    tifffile.imwrite(path, frames, imagej=True, metadata={"axes": "TYX", "finterval": 0.5})
    return path


def loaded(path, **options) -> Movie:
    data = Movie(str(path), batch_size=4, train_pairs=400, crop=16, **options)
    data.setup()
    return data


def numbers(data: Movie) -> list[int]:
    """Which frames of the file are used."""
    scenes = data.train.scenes
    return [int(row) for row in scenes.rows]


@pytest.mark.parametrize("context", [0, 2])
def test_dead_frames_are_left_out_of_training_by_name(tmp_path, context):
    frames = movie()
    frames[[5, 12, 13]] = 0
    data = loaded(write(tmp_path / "dead.tif", frames), context=context)
    assert data.dropped == [f"frames 5, 12, 13 of {tmp_path / 'dead.tif'} (every pixel 0)"]
    assert numbers(data) == [t for t in range(24) if t not in (5, 12, 13)]
    for number in range(8):
        batch = data.train[BatchIndex(0, number, torch.arange(16))]
        assert batch["input"].numpy().min() > 0
        assert context or batch["target"].numpy().min() > 0


def test_copies_are_no_pairs_and_channels_in_turn_are_refused(tmp_path):
    data = loaded(write(tmp_path / "twice.tif", np.repeat(movie(12), 2, 0)), context=0)
    assert numbers(data) == list(range(0, 24, 2))
    assert "a copy of the frame before" in data.dropped[0]
    turns = write(tmp_path / "turns.tif", taking_turns())
    with pytest.raises(
        InputError, match=r"turns.tif: two channels in turn .* data.frames=0::2 or data.frames=1::2"
    ):
        loaded(turns)
    assert numbers(loaded(turns, frames="1::2")) == list(range(1, 24, 2))
    assert numbers(loaded(turns, frames="all")) == list(range(24))


def test_a_folder_of_frames_names_the_files_that_are_dead(tmp_path):
    frames = movie()
    frames[[5, 12]] = 0
    for t, frame in enumerate(frames):
        tifffile.imwrite(tmp_path / f"t{t}.tif", frame)
    data = loaded(tmp_path)
    assert data.dropped == [f"t5.tif, t12.tif of {tmp_path} (every pixel 0)"]


def test_chosen_frames_are_the_targets_and_their_neighbours_come_from_the_whole_movie(tmp_path):
    path = write(tmp_path / "movie.tif", movie())
    for data in (loaded(path, frames="10:14", context=2), loaded(f"{path}[10:14]", context=2)):
        assert numbers(data) == list(range(24))
        assert data.train.wanted[0].tolist() == [10, 11, 12, 13]
        frame = data.train._targets(torch.zeros(400, dtype=torch.long), torch.rand(400))
        assert set(frame.tolist()) == {10, 11, 12, 13}
        assert set(data.val.first.tolist()) <= {10, 11, 12, 13}
    assert numbers(loaded(path, frames="10:14", context=0)) == [10, 11, 12, 13]
    with pytest.raises(InputError, match="chooses none"):
        loaded(path, frames="30:40")
    with pytest.raises(InputError, match=r"data.frames=a: must be START:STOP"):
        loaded(path, frames="a")


@pytest.mark.parametrize("typed_as", ["10:50", "0::2", "-20:", ":7", "[10:50]", "5", "::2", "all"])
def test_frames_reach_the_data_as_they_were_typed(typed_as):
    with initialize_config_dir(str(override_syntax.CONF), **VERSION_BASE):
        config = compose(
            "config",
            override_syntax.quoted(
                ["data=movie", "data.noisy=a.tif[10:50]", f"data.frames={typed_as}"]
            ),
        )
    assert config.data.frames == typed_as
    assert config.data.noisy == "a.tif[10:50]"
    again = OmegaConf.create(OmegaConf.to_yaml(config.data))
    assert again.frames == typed_as


class Mean(torch.nn.Module):
    """A network for movies that gives the mean of the frames around one."""

    multiple = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1, keepdim=True)


def averaging(context: int = 1) -> TrainedDenoiser:
    return TrainedDenoiser(Mean(), 1, CheckpointInfo(range=(0.0, 1000.0), context=context))


def test_dead_frames_come_out_as_they_were_and_are_nobodys_neighbours():
    frames = movie().astype(np.float32)
    frames[[5, 12, 13]] = 0
    result = averaging().denoise(frames, axes="THW")
    assert (result[[5, 12, 13]] == 0).all()
    for t, around in (
        (4, (3, 6)),
        (6, (4, 7)),
        (11, (10, 14)),
        (14, (11, 15)),
        (0, (1, 1)),
        (20, (19, 21)),
    ):
        np.testing.assert_allclose(result[t], frames[list(around)].mean(0), rtol=1e-4)
    twice = np.repeat(movie(12), 2, 0).astype(np.float32)
    result = averaging().denoise(twice, axes="THW")
    np.testing.assert_allclose(result[4], (twice[2] + twice[6]) / 2, rtol=1e-4)
    assert (result[4] == result[5]).all()
    with pytest.raises(InputError, match=r"two channels in turn .* array\[0::2\]"):
        averaging().denoise(taking_turns(), axes="THW")


def test_a_dead_page_of_a_stack_comes_out_as_it_was_without_a_context_too():
    frames = movie(4)
    frames[2] = 65535
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    network.multiple = 1
    result = TrainedDenoiser(network, 1, CheckpointInfo(range=(0.0, 1000.0))).denoise(
        frames, axes="NHW"
    )
    assert (result[2] == 65535).all()
    assert (result[1] != frames[1]).any()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A run on a movie, of a network that sees a frame on either side."""
    folder = tmp_path_factory.mktemp("run")
    frames = movie(side=32)
    frames[[5, 12, 13]] = 0
    write(folder / "dead.tif", frames)
    options = [
        "data.context=1",
        "data.train_pairs=8",
        "data.batch_size=4",
        "data.crop=16",
        "trainer.max_epochs=1",
    ]
    options += ["model=dncnn", "model.width=4", "model.layers=3", "hydra.run.dir=run"]
    done = run("train", "data=movie", "data.noisy=dead.tif", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "left out: frames 5, 12, 13 of dead.tif (every pixel 0)" in done.stdout
    return folder / "run"


@pytest.mark.xdist_group("movie")  # one worker trains `checkpoint` once
@pytest.mark.walk
def test_chosen_frames_are_denoised_with_neighbours_from_the_whole_movie(tmp_path, checkpoint):
    frames = movie(side=32)
    write(tmp_path / "movie.tif", frames)
    np.save(tmp_path / "movie.npy", frames)
    write(tmp_path / "odd[1].tif", frames[:3])  # a file of this name wins
    names = ("movie.tif[10:20:2]", "movie.npy[7]", "odd[1].tif")
    denoise = ("denoise", "--checkpoint", checkpoint, "-o")
    done = run(*denoise, "some", *names, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run(*denoise, "all", "movie.tif[::2]", "movie.npy", cwd=tmp_path).returncode == 0
    with tifffile.TiffFile(tmp_path / "some/movie.tif") as file:
        some = file.asarray()
        assert file.series[0].axes == "TYX"
        assert file.imagej_metadata["finterval"] == 0.5
    np.testing.assert_array_equal(some, tifffile.imread(tmp_path / "all/movie.tif")[5:10])
    np.testing.assert_array_equal(
        np.load(tmp_path / "some/movie.npy")[0], np.load(tmp_path / "all/movie.npy")[7]
    )
    assert tifffile.imread(tmp_path / "some/odd[1].tif").shape == (3, 32, 32)
    done = run(*denoise, "none", "movie.tif[40:]", cwd=tmp_path)
    assert done.returncode == 1
    assert "movie.tif: [40:] chooses none of its frames" in done.stderr


@pytest.mark.xdist_group("movie")  # one worker trains `checkpoint` once
@pytest.mark.slow
def test_a_folder_of_frames_with_a_dead_one(tmp_path, checkpoint):
    frames = movie(8, side=32)
    frames[3] = 0
    (tmp_path / "frames").mkdir()
    for t, frame in enumerate(frames):
        tifffile.imwrite(tmp_path / f"frames/t{t}.tif", frame)
    write(tmp_path / "frames.tif", frames)
    done = run(
        "denoise", "frames", "frames.tif", "-o", "out", "--checkpoint", checkpoint, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "t3.tif (left as it was: every pixel 0)" in done.stdout
    assert "frames.tif (frame 3 left as before: every pixel 0)" in done.stdout
    results = np.stack([tifffile.imread(tmp_path / f"out/t{t}.tif") for t in range(8)])
    np.testing.assert_array_equal(results, tifffile.imread(tmp_path / "out/frames.tif"))
    done = run("denoise", "frames[2:5]", "-o", "some", "--checkpoint", checkpoint, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "some").iterdir()) == ["t2.tif", "t3.tif", "t4.tif"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "some/t4.tif"), results[4])


def test_check_says_what_is_wrong_with_frames(tmp_path):
    frames = movie()
    frames[[5, 12, 13]] = 0
    report = inspect_images(str(write(tmp_path / "dead.tif", frames)))
    assert "frames 5, 12, 13 of" in str(report)
    assert report.numbers["dead_frames"] == [5, 12, 13]
    report = inspect_images(str(write(tmp_path / "turns.tif", taking_turns())))
    assert report.advice == ["data.frames=0::2"]
    assert "data.frames=0::2" in str(report)
    report = inspect_images(f"{write(tmp_path / 'plain.tif', movie())}[10:20]")
    assert "10" in str(report.findings[0].line)


def test_a_dead_capture_of_a_burst_is_left_out_alone(tmp_path):
    burst = np.random.default_rng(0).normal(scene(), 20, (6, 64, 64)).astype(np.float32)
    burst[2] = 0
    np.save(tmp_path / "burst.npy", burst)
    data = PairedImages(str(tmp_path / "burst.npy"), layout="KHW", batch_size=4, crop=16)
    data.setup()
    assert data.dropped == [f"frame 2 of {tmp_path / 'burst.npy'} (every pixel 0)"]
    assert int(data.train.scenes.captures(torch.tensor([0]))[0]) == 5


def test_movies_are_files_folders_of_files_or_folders_of_frames(tmp_path):
    movie = np.random.default_rng(0).integers(0, 255, (6, 12, 16)).astype(np.uint8)
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", movie, photometric="minisblack")
    np.save(tmp_path / "movie.npy", movie)
    (tmp_path / "several").mkdir()
    (tmp_path / "frames").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"{name}.tif").rename(tmp_path / "several" / f"{name}.tif")
    for i, frame in enumerate(movie):
        tifffile.imwrite(tmp_path / "frames" / f"{i}.tif", frame)
    for name, count in (("movie.npy", 1), ("several", 2), ("frames", 1)):
        found = read_movies(str(tmp_path / name))
        assert found.captures(torch.arange(len(found.names))).tolist() == [6] * count
        assert torch.equal(
            torch.stack([found.image(0, k)[0] for k in range(6)]), torch.from_numpy(movie)
        )
    tifffile.imwrite(tmp_path / "one.tif", movie[0])
    with pytest.raises(InputError, match="holds one frame"):
        read_movies(str(tmp_path / "one.tif"))


def test_a_frame_is_never_shown_to_the_network_that_learns_it():
    for count in (2, 3, 5, 9):
        for t in range(count):
            shown = [frame_offsets.around(t, k, count) for k in frame_offsets.frames(3)]
            assert all(k != t and 0 <= k < count for k in shown)
    movie = torch.arange(7.0).view(1, 7, 1, 1, 1).expand(1, 7, 2, 8, 8)[0]
    from n2n_lightning.data.scene_set import EqualSizeScenes

    scene = EqualSizeScenes([movie], ["movie"], torch.tensor([7]))
    near, distances = frames_around(scene, torch.tensor([0, 0]), torch.tensor([0, 3]), 2, False)
    assert distances.tolist() == [[2, 1, 1, 2], [-2, -1, 1, 2]]
    assert near.shape == (2, 8, 8, 8)
    assert near[:, ::2, 0, 0].tolist() == [[2, 1, 1, 2], [1, 2, 4, 5]]


@pytest.mark.walk
def test_a_checkpoint_with_a_context_knows_it_and_says_what_it_needs(place, tmp_path):
    done = run("train", *CASES["context"], *SMALL, f"hydra.run.dir={tmp_path / 'out'}", cwd=place)
    assert done.returncode == 0, done.stderr
    model, movie = load(tmp_path / "out"), np.load(place / "movie.npy")
    assert model.context == 1
    clean = model.denoise(movie, axes="NHW")
    changed = movie.copy()
    changed[2] += 50  # its own result does not see it, its neighbours' do
    again = model.denoise(changed, axes="NHW")
    assert np.array_equal(clean[2], again[2])
    assert not np.array_equal(clean[1], again[1])
    assert np.array_equal(clean[5], again[5])
    assert model.denoise(movie, axes="NHW", tta=True).shape == movie.shape
    (tmp_path / "frames").mkdir()
    for t, frame in enumerate(movie):
        tifffile.imwrite(tmp_path / "frames" / f"{t}.tif", frame)
    done = run(
        "denoise",
        tmp_path / "frames",
        "-o",
        tmp_path / "apart",
        "--checkpoint",
        tmp_path / "out",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert all(
        np.array_equal(tifffile.imread(tmp_path / "apart" / f"{t}.tif"), clean[t]) for t in range(6)
    )
    colour = np.random.default_rng(0).random((4, 2, 3, 24, 24)).astype(np.float32)
    np.save(tmp_path / "rgb.npy", colour)
    source = ["data=pairs", f"data.noisy={tmp_path / 'rgb.npy'}", f"init={tmp_path / 'out'}"]
    done = run(
        "train",
        *source,
        "trainer.max_epochs=1",
        "data.batch_size=2",
        f"hydra.run.dir={tmp_path / 'c'}",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    result = load(tmp_path / "c").denoise(colour[:, 0], axes="NCHW")
    assert float(result.std(1).mean()) > 0.01  # in colour
    np.save(tmp_path / "one.npy", movie[0])
    done = run(
        "denoise",
        tmp_path / "one.npy",
        "-o",
        tmp_path / "c.npy",
        "--checkpoint",
        tmp_path / "out",
        cwd=place,
    )
    assert done.returncode == 1
    assert "needs a stack of frames" in done.stderr
