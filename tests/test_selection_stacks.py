"""`denoise --best` on movies and volumes: what is compared, what is refused, and what is said."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter, uniform_filter1d

from n2n_lightning import best, load
from n2n_lightning.config.overrides import compose_config
from n2n_lightning.denoise import parser, run
from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.arguments import checked_arguments
from n2n_lightning.inference.checkpoint import MOVIE, PRETRAINED
from n2n_lightning.inference.plan import planned
from n2n_lightning.metrics.autocorrelation import white_autocorrelation
from n2n_lightning.selection import candidates as ways
from n2n_lightning.selection import search as searching
from n2n_lightning.selection.blend import BlendedDenoiser, FilterChoice, filter_denoiser
from n2n_lightning.selection.comparison import Comparison, ScoredPart
from n2n_lightning.selection.sources import data_of_kind, kinds_of
from n2n_lightning.selection.stack_noise import StackNoise, noise_of_movie
from n2n_lightning.selection.stacks import StackSet, stack_letter

SIGMA = 12.0
FRAMES = 12


def ground(side: int = 96, seed: int = 0) -> np.ndarray:
    """Smooth texture with cells, (side, side)."""
    draws = np.random.default_rng(seed)
    texture = gaussian_filter(draws.normal(size=(side, side)), 3, mode="wrap")
    cells = gaussian_filter(draws.random((side, side)) > 0.995, 2.0, output=float)
    return 100 + 10 * texture / texture.std() + 60 * cells / cells.max()


def still_movie(
    side: int = 96, frames: int = FRAMES, wide: int = 96
) -> tuple[np.ndarray, np.ndarray]:
    """A movie of a scene that stands still: noisy and clean, (T, H, W)."""
    clean = np.repeat(ground(side)[None, :, :wide], frames, 0)
    noise = np.random.default_rng(1).normal(size=clean.shape)
    return (clean + SIGMA * noise).astype(np.float32), clean


def blobs(depth: int = 48, side: int = 96) -> np.ndarray:
    """A smooth volume, (D, H, W), of which each structure is in several planes."""
    draws = np.random.default_rng(3)
    field = gaussian_filter(draws.normal(size=(depth, side, side)), 3)
    return 100 + 30 * field / field.std()


def noise_of_sigma(across: tuple[float, ...] = ()) -> StackNoise:
    """White noise of SIGMA in the planes, correlated across them."""
    return StackNoise(
        np.array([SIGMA**2]),
        np.zeros(1),
        0.02,
        np.array([100.0]),
        white_autocorrelation(),
        True,
        "white",
        across=across,
    )


def data_of(folder, arrays, axes, seconds=None) -> StackSet:
    """The data set of arrays that are written as files."""
    folder.mkdir()
    for number, array in enumerate(arrays):
        np.save(folder / f"{number}.npy", array)
    jobs, _ = planned([str(folder)], folder.parent / "out")
    asked = AskedAxes(axes)
    kinds, _ = kinds_of(jobs, asked)
    return data_of_kind(next(iter(kinds)), kinds, seconds or {}, asked, [str(folder)])


def over_time(movie: np.ndarray) -> np.ndarray:
    """The mean of each frame and its neighbours, less noisy in space, too."""
    return uniform_filter1d(gaussian_filter(movie, (0, 1, 1)), 3, axis=0)


def test_the_error_of_a_movie_is_right_for_what_sees_several_frames():
    noisy, clean = still_movie(128)
    comparison = Comparison([ScoredPart(noisy[None].astype(float), noise_of_sigma())], 255, "THW")
    evaluation = comparison.evaluate(over_time)
    truth = ((evaluation.outputs[0][0] - clean) ** 2).mean()
    assert comparison.error(evaluation) == pytest.approx(truth, rel=0.1)


def test_noise_that_planes_share_counts_where_it_is_measured():
    """A filter across planes that takes their noise for independent looks better than it is."""
    draws = np.random.default_rng(0)
    across = (0.6, 0.2)
    noise = noise_of_sigma(across)
    clean = blobs()
    level = np.full(clean.shape, 100.0)
    drawn = noise.direction(level, draws)
    assert drawn.std() == pytest.approx(SIGMA, rel=0.03)
    for distance, value in enumerate(across, 1):
        product = (drawn[distance:] * drawn[:-distance]).mean() / SIGMA**2
        assert product == pytest.approx(value, abs=0.03)
    noisy = (clean + drawn)[None]
    smooth = lambda y: gaussian_filter(y, 1)  # noqa: E731
    known = Comparison([ScoredPart(noisy, noise)], 255, "DHW")
    evaluation = known.evaluate(smooth)
    truth = ((evaluation.outputs[0][0] - clean) ** 2).mean()
    assert known.error(evaluation) == pytest.approx(truth, rel=0.1)
    mistaken = Comparison([ScoredPart(noisy, noise_of_sigma())], 255, "DHW")
    assert mistaken.error(mistaken.evaluate(smooth)) < 0.8 * truth


class OverTime(ways.Candidate):
    """A mean over frames, as a candidate."""

    def prepare(self, comparison, seconds):
        self.evaluation = comparison.evaluate(over_time)
        self.parts = []
        self.weights = []


def test_a_mean_over_frames_that_loses_a_flash_is_refused_though_its_error_is_the_lowest(
    tmp_path, monkeypatch
):
    noisy, _ = still_movie(wide=64)
    data = data_of(tmp_path / "movie", [noisy], "THW")
    averaged = OverTime("mean of frames", "a test", ways.CLASSICAL)
    monkeypatch.setattr(ways, "of_filters", lambda *_: [averaged])
    monkeypatch.setattr(ways, "of_training", lambda *_: [])
    said = []
    choice = searching.search(data, 2, tmp_path / "work", said.append)
    rows = {row["candidate"]: row for row in choice.table}
    row = rows["mean of frames"]
    assert row["error"] < 0.9 * min(one["error"] for one in choice.table if one is not row)
    assert 0.2 < row["flash_kept"] < 0.4  # a third of it
    assert not row["chosen"]
    assert f"mean of frames: keeps {row['flash_kept']:.0%} of a planted flash" in said[-5]
    bundled = rows["bundled checkpoint for movies"]
    chosen = rows[choice.name]
    assert chosen["flash_kept"] >= bundled["flash_kept"] - searching.FLASH_TOLERANCE
    assert f"{chosen['flash_kept']:.0%} are left" in said[-1]
    assert "mean of mean of frames" not in rows


def test_what_a_checkpoint_keeps_of_a_flash_is_what_it_does_to_an_event():
    noisy, clean = still_movie(48, wide=48)
    part = ScoredPart(noisy[None].astype(float), noise_of_sigma())
    comparison = Comparison([part], 255, "THW")
    (flashes,) = comparison.flashes
    lit = [np.count_nonzero(flashes[t]) for t in range(FRAMES)]
    assert min(lit) > 0
    quiet = flashes == 0
    assert quiet.mean() > 0.9
    model = load()
    evaluation = comparison.evaluate(lambda y: model.denoise(y, axes="THW"))
    eventful = model.denoise((noisy + flashes).astype(np.float32), axes="THW")
    rise = ((eventful - clean) * flashes).sum() - (
        (evaluation.outputs[0][0] - clean) * flashes
    ).sum()
    assert evaluation.kept == pytest.approx(rise / (flashes**2).sum(), abs=1e-3)
    assert comparison.of_input().kept == 1


@pytest.mark.parametrize("shared", [True, False])
def test_the_choice_for_a_volume_is_closer_to_the_truth_than_the_checkpoint_or_it(
    tmp_path, monkeypatch, shared
):
    """Filters in space help where planes share their structure, and only there."""
    clean = blobs(40)[:, :, :64]
    if not shared:  # each plane is mirrored in other directions: nothing goes on in the next one
        clean[1::2] = clean[1::2, ::-1, ::-1].copy()
    noisy = clean + SIGMA * np.random.default_rng(0).normal(size=clean.shape)
    data = data_of(tmp_path / "volume", [noisy.astype(np.float32)], "DHW")
    filters = ways.of_filters
    monkeypatch.setattr(ways, "of_filters", lambda *given: filters(*given)[-2:])
    monkeypatch.setattr(ways, "of_training", lambda *_: [])
    choice = searching.search(data, 2, tmp_path / "work", lambda line: None)
    (part,) = data.scored_parts(2)
    truth = clean[:, -32:]
    result = choice.denoiser().denoise(part.captures[0].astype(np.float32), axes="DHW")
    checkpoint = load().denoise(part.captures[0].astype(np.float32), axes="DHW")
    error = ((result - truth) ** 2).mean()
    before = ((checkpoint - truth) ** 2).mean()
    in_space = "in space" in choice.name
    assert in_space == shared
    if shared:
        assert error < 0.9 * before
    else:
        assert error <= 1.001 * before


def test_movies_whose_frames_share_their_noise_get_the_checkpoint_for_movies(tmp_path):
    noisy, clean = still_movie()
    shared = noisy.copy()
    shared[1:] = clean[1:] + 0.6 * (noisy[:-1] - clean[:-1]) + 0.8 * (noisy[1:] - clean[1:])
    data = data_of(tmp_path / "movie", [shared.astype(np.float32)], "THW")
    said = []
    choice = searching.search(data, 1, tmp_path / "work", said.append)
    assert choice.name == "bundled checkpoint for movies"
    assert choice.parts[0].source == "movie"
    assert "the noise of neighbouring frames is correlated" in said[-1]


def test_shallow_volumes_get_the_checkpoint_because_their_depth_is_not_measurable(tmp_path):
    clean = blobs(depth=12)
    noisy = clean + SIGMA * np.random.default_rng(0).normal(size=clean.shape)
    data = data_of(tmp_path / "volume", [noisy.astype(np.float32)], "DHW")
    choice = searching.search(data, 1, tmp_path / "work", lambda line: None)
    assert choice.name == "bundled checkpoint"
    assert "the correlation of the noise across planes is not measurable" in choice.why


@pytest.mark.parametrize(
    ("kind", "shape", "axes", "letter"),
    [
        ("grey movies of uint16", (5, 64, 64), "THW", "T"),
        ("grey movies of uint16", (2, 64, 64), "THW", ""),
        ("grey movies of uint16", (5, 9, 64, 64), "TDHW", "T"),
        ("grey movies of uint16", (2, 5, 64, 64), "KTHW", ""),
        ("colour movies of uint8", (5, 64, 64, 3), "THWC", ""),
        ("grey volumes of float32", (40, 64, 64), "DHW", "D"),
        ("grey volumes of float32", (3, 64, 64), "DHW", ""),
        ("grey pictures of uint8", (64, 64), "HW", ""),
    ],
)
def test_what_is_a_stack(kind, shape, axes, letter):
    assert stack_letter(kind, shape, axes) == letter


def test_stacks_are_read_without_dead_frames_one_for_each_channel(tmp_path):
    noisy, _ = still_movie(frames=9)
    both = np.stack([noisy, noisy[:, ::-1]], 1)
    both[4] = 0
    data = data_of(tmp_path / "movie", [both], "TCHW")
    assert [stack.shape for stack in data.stacks] == [(1, 8, 96, 96)] * 2
    assert np.array_equal(data.stacks[1][0, 4], both[5, 1])
    assert data.pixels == both.size
    assert data.channels == 1
    assert data.axes == "THW"


def test_no_frame_of_a_stack_is_trained_on_where_it_is_scored(tmp_path):
    noisy, _ = still_movie()
    data = data_of(tmp_path / "movie", [noisy, 2 * noisy], "THW")
    data.save_trained(tmp_path / "trained")
    for number, part in enumerate(data.scored_parts(1)):
        trained = np.load(tmp_path / "trained" / f"{number:03}.npy")
        assert trained.shape == (FRAMES, 64, 96)
        assert part.captures.shape == (1, FRAMES, 32, 96)
        ordered = [trained, part.captures[0]]
        if number == 1:  # the second file is scored at its beginning
            ordered = ordered[::-1]
        assert np.array_equal(np.concatenate(ordered, 1), data.stacks[number][0])


def test_the_reasons_of_training_are_true_of_movies_and_volumes(tmp_path):
    noisy, _ = still_movie()
    movie = data_of(tmp_path / "movie", [noisy], "THW")
    (method,) = ways._methods(movie)
    assert method.reason == "the noise of different frames is independent"
    assert noise_of_movie(noisy).measurable
    draws = np.random.default_rng(0)
    clean = blobs()
    captures = clean + SIGMA * draws.normal(size=(2, *clean.shape))
    pair = data_of(tmp_path / "pair", [captures.astype(np.float32)], "KDHW")
    (method,) = ways._methods(pair)
    assert method.reason == "each scene has 2 captures"
    single = data_of(tmp_path / "single", [captures[0].astype(np.float32)], "DHW")
    assert single.measured_noises[0].white
    assert single.across == ()
    reasons = {method.reason for method in ways._methods(single)}
    assert reasons == {"the noise of neighbouring pixels is independent"}
    shared = clean + noise_of_sigma((0.6,)).direction(np.full(clean.shape, 100.0), draws)
    correlated = data_of(tmp_path / "shared", [shared.astype(np.float32)], "DHW")
    assert correlated.across
    (method,) = ways._methods(correlated)
    assert method.name.startswith("by masks of ")
    assert "and across planes" in searching.noise_line(correlated)
    for data in (movie, pair, single, correlated):
        for one in ways.of_training(data, tmp_path / "runs"):
            config = compose_config([*one.options, f"data.noisy={tmp_path}"])
            assert config.data.layout in ("THW", "NHW", "DHW", "KNHW", "KDHW")


def test_a_mean_of_what_denoises_planes_and_what_denoises_volumes():
    volume = np.float32(blobs(depth=16, side=40))
    in_space = FilterChoice("Gaussian blur in space", 0.7, 0.1, 100.0, 100.0, 3)
    parts = [load(), filter_denoiser(in_space, 1)]
    alone = [part.denoise(volume, axes="DHW") for part in parts]
    assert np.allclose(alone[1], gaussian_filter(volume, 0.7), atol=0.01)
    mean = BlendedDenoiser(parts, [0.5, 0.25]).denoise(volume, axes="DHW")
    assert np.allclose(mean, 0.5 * alone[0] + 0.25 * alone[1] + 0.25 * volume, atol=1e-3)


def test_a_mean_of_what_sees_frames_and_what_does_not():
    noisy, _ = still_movie(64, 5)
    parts = [load("movie"), load()]
    alone = [part.denoise(noisy, axes="THW") for part in parts]
    mean = BlendedDenoiser(parts, [0.5, 0.5]).denoise(noisy, axes="THW")
    assert np.allclose(mean, 0.5 * alone[0] + 0.5 * alone[1], atol=1e-3)


def trained_at_once(overrides, folder):
    """Write a bundled checkpoint as that of a finished run."""
    (folder / "checkpoints").mkdir(parents=True)
    source = MOVIE if "data=movie" in overrides else PRETRAINED
    shutil.copy(source, folder / "checkpoints" / "last.ckpt")
    (folder / "result.json").write_text('{"status": "finished"}')


@pytest.mark.parametrize("letters", ["TYX", "ZYX"])
def test_best_and_choice_on_files_of_movies_and_volumes(tmp_path, monkeypatch, capsys, letters):
    noisy, _ = still_movie(frames=6, wide=64)
    if letters == "ZYX":
        clean = blobs(40)[:, :, :64]
        noisy = clean + SIGMA * np.random.default_rng(0).normal(size=clean.shape)
    stored = noisy.clip(0, 65535).astype(np.uint16)
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("noisy.tif", stored, imagej=True, metadata={"axes": letters})
    tifffile.imwrite("more.tif", stored[:, ::-1].copy(), imagej=True, metadata={"axes": letters})
    filters = ways.of_filters
    monkeypatch.setattr(ways, "of_filters", lambda *given: filters(*given)[-1:])
    monkeypatch.setattr(ways, "_train_run", trained_at_once)

    def denoise(*words):
        args = parser().parse_args(list(words))
        checked_arguments(args)
        return run(args)

    assert denoise("noisy.tif", "-o", "clean", "--best", "--minutes", "3") == 0
    said = capsys.readouterr().out
    assert ("planted flashes" in said) == (letters == "TYX")
    (entry,) = json.loads((tmp_path / "clean" / "choice.json").read_text())["choices"]
    names = [row["candidate"] for row in entry["table"]]
    if letters == "TYX":
        assert "bundled checkpoint, frame by frame" in names
        assert "trained anew on frames" in names
    else:
        assert names[0] == "bundled checkpoint, plane by plane"
        assert any(name.startswith("total variation in space") for name in names)
    assert denoise("noisy.tif", "more.tif", "-o", "again", "--choice", "clean") == 0
    first = tifffile.imread("clean/noisy.tif")
    assert first.shape == stored.shape
    assert np.array_equal(first, tifffile.imread("again/noisy.tif"))
    assert (tmp_path / "again" / "more.tif").exists()


def test_a_folder_that_cannot_be_written_is_said_before_minutes_are_spent(tmp_path, monkeypatch):
    noisy, _ = still_movie(64, 4)
    np.save(tmp_path / "noisy.npy", noisy)
    monkeypatch.setattr(
        "n2n_lightning.selection.for_files.search", lambda *_: pytest.fail("it is searched")
    )
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / ".best").write_text("in the way")
    words = [str(tmp_path / "noisy.npy"), "-o", str(tmp_path / "clean"), "--best"]
    args = parser().parse_args([*words, "--axes", "THW"])
    checked_arguments(args)
    with pytest.raises(InputError, match="clean: cannot be written: File exists"):
        run(args)


def test_best_in_python_takes_movies(tmp_path, monkeypatch):
    noisy, clean = still_movie(frames=6, wide=64)
    monkeypatch.setattr(ways, "of_filters", lambda *_: [])
    monkeypatch.setattr(ways, "of_training", lambda *_: [])
    chosen = best(noisy, minutes=1, layout="THW", lines=False)
    assert chosen.result.shape == noisy.shape
    assert chosen.table[0]["candidate"] == "bundled checkpoint for movies"
    assert ((chosen.result - clean) ** 2).mean() < 0.25 * SIGMA**2
