"""The best way to denoise some data: comparison, budget, choice, and the search for it."""

import json
import shutil
import signal

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from n2n_lightning import best, load
from n2n_lightning.data.mask_choice import mask_of_images
from n2n_lightning.denoise import parser, run
from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.arguments import checked_arguments
from n2n_lightning.inference.checkpoint import PRETRAINED
from n2n_lightning.inference.plan import planned
from n2n_lightning.metrics.autocorrelation import LAGS, correlated_noise, white_autocorrelation
from n2n_lightning.metrics.noise_law import NoiseLaw
from n2n_lightning.selection import candidates as ways
from n2n_lightning.selection import search as searching
from n2n_lightning.selection.blend import BlendedDenoiser, FilterChoice, filter_denoiser
from n2n_lightning.selection.budget import Budget
from n2n_lightning.selection.candidates import Candidate
from n2n_lightning.selection.choice import Choice, choice_for, load_choices, save_choices
from n2n_lightning.selection.comparison import Comparison, ScoredPart, blended
from n2n_lightning.selection.data_set import DataSet, kind_of_file, read_data_set, split_captures
from n2n_lightning.training.callbacks import Interrupted
from n2n_lightning.training.module import Diverged

SIGMA = 10.0


def along_rows() -> np.ndarray:
    """The autocorrelation 0.8^d of pixels that are d apart in a row."""
    autocorrelation = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    autocorrelation[LAGS] = 0.8 ** abs(np.arange(-LAGS, LAGS + 1))
    return autocorrelation


def part_with(autocorrelation: np.ndarray, error: float = 0.02, seed: int = 0):
    """A scored part of 256 x 256 pixels with noise of that autocorrelation, and its scene."""
    draws = np.random.default_rng(seed)
    clean = 100 + 400 * gaussian_filter(draws.normal(size=(1, 256, 256)), (0, 6, 6))
    noisy = clean + SIGMA * correlated_noise(clean.shape, autocorrelation, draws)
    law = NoiseLaw(np.array([SIGMA**2]), np.zeros(1), error, np.array([100.0]), autocorrelation)
    return ScoredPart(noisy[None], law), clean


def truth(comparison, evaluation, cleans) -> float:
    """The true error on all pixels."""
    errors = [((o - c) ** 2).mean() for o, c in zip(evaluation.outputs, cleans, strict=True)]
    return float(np.mean(errors))


@pytest.mark.parametrize("autocorrelation", [white_autocorrelation(), along_rows()])
def test_the_estimate_of_one_picture_is_right_whatever_correlation_its_noise_has(autocorrelation):
    parts, cleans = zip(*[part_with(autocorrelation, seed=seed) for seed in range(4)], strict=True)
    comparison = Comparison(parts, 255)
    for width in (0.7, 2.0):
        evaluation = comparison.evaluate(lambda y, w=width: gaussian_filter(y, (0, w, w)))
        said = comparison.error(evaluation)
        assert said == pytest.approx(truth(comparison, evaluation, cleans), rel=0.1)
        low, high = comparison.interval(evaluation)
        assert low < truth(comparison, evaluation, cleans) < high
    assert comparison.error(comparison.of_input()) == pytest.approx(SIGMA**2, rel=1e-6)


def test_noise_that_is_kept_counts_as_an_error_where_it_is_correlated():
    """A denoiser that leaves stripes looks perfect where the noise is taken for white."""
    part, _ = part_with(along_rows())
    columns = lambda y: gaussian_filter(y, (0, 0, 2))  # noqa: E731
    known = Comparison([part], 255)
    law = part.noise
    white = NoiseLaw(law.a, law.b, 0.02, law.brightness, white_autocorrelation())
    mistaken = Comparison([ScoredPart(part.captures, white)], 255)
    assert mistaken.error(mistaken.evaluate(columns)) < 0.3 * known.error(known.evaluate(columns))


def test_a_mix_is_scored_as_if_it_had_been_run():
    part, _ = part_with(along_rows())
    comparison = Comparison([part], 255)
    one = comparison.evaluate(lambda y: gaussian_filter(y, (0, 3, 3)))
    other = comparison.evaluate(lambda y: gaussian_filter(y, (0, 1, 1)))
    mix = comparison.evaluate(
        lambda y: 0.3 * gaussian_filter(y, (0, 3, 3)) + 0.7 * gaussian_filter(y, (0, 1, 1))
    )
    both = blended([one, other], [0.3, 0.7])
    assert comparison.error(both) == pytest.approx(comparison.error(mix), rel=1e-3)
    strong = comparison.evaluate(lambda y: np.full_like(y, 100))
    share = comparison.best_share(strong)
    errors = {}
    for step in range(21):
        mixed = blended([strong, comparison.of_input()], [step / 20, 1 - step / 20])
        errors[step / 20] = comparison.error(mixed)
    assert share == min(errors, key=errors.get)


def test_pairs_are_scored_without_a_law_of_the_noise():
    draws = np.random.default_rng(0)
    clean = 100 + 400 * gaussian_filter(draws.normal(size=(1, 128, 128)), (0, 6, 6))
    captures = clean + SIGMA * draws.normal(size=(3, *clean.shape))
    comparison = Comparison([ScoredPart(captures)], 255)
    good = comparison.evaluate(lambda y: clean + 2)
    poor = comparison.evaluate(lambda y: clean + 3)
    assert comparison.difference(good, poor).lower
    assert not comparison.difference(poor, good).lower
    assert comparison.error(good) == pytest.approx(4, abs=1.5)


def test_an_unknown_strength_of_the_noise_widens_the_difference_of_what_keeps_it():
    sure, _ = part_with(white_autocorrelation(), error=0.01)
    unsure, _ = part_with(white_autocorrelation(), error=0.3)
    widths = []
    for part in (sure, unsure):
        comparison = Comparison([part], 255)
        keeps = comparison.evaluate(lambda y: y)
        removes = comparison.evaluate(lambda y: gaussian_filter(y, (0, 2, 2)))
        difference = comparison.difference(removes, keeps)
        widths.append(difference.high - difference.low)
    assert widths[1] > 5 * widths[0]


class Constant(Candidate):
    """A candidate whose results are wrong by a known amount, up or down."""

    def __init__(self, name, rank, clean, wrong):
        super().__init__(name, "known error", rank)
        signs = np.random.default_rng(rank).choice([-1, 1], clean.shape)
        self.result = clean + wrong * signs

    def prepare(self, comparison, seconds):
        self.evaluation = comparison.evaluate(lambda y: self.result)


@pytest.mark.parametrize(
    ("errors", "chosen"),
    [
        ({0: 5.0, 1: 5.01, 4: 4.99}, 0),  # none is certainly better than the checkpoint
        ({0: 5.0, 1: 2.01, 4: 2.0}, 1),  # the simpler of two that are alike
        ({0: 5.0, 1: 3.0, 4: 1.0}, 4),  # the best, where the simpler one is worse
        ({0: 2.0, 1: 5.0, 4: 6.0}, 0),
    ],
)
def test_of_candidates_that_cannot_be_told_apart_the_simplest_is_chosen(errors, chosen):
    draws = np.random.default_rng(5)
    clean = 100 + 400 * gaussian_filter(draws.normal(size=(1, 256, 256)), (0, 6, 6))
    captures = clean + SIGMA * draws.normal(size=(2, *clean.shape))
    comparison = Comparison([ScoredPart(captures)], 255)
    tried = [Constant(str(rank), rank, clean, wrong) for rank, wrong in errors.items()]
    for candidate in tried:
        candidate.prepare(comparison, 0)
    winner, why = searching.choose(tried, comparison)
    assert winner.rank == chosen
    reasons = {0: "no other one is certainly better", 4: "the least error"}
    assert reasons.get(chosen, "cannot be told apart from 4, and is simpler") in why


def test_what_cannot_end_is_not_begun():
    budget = Budget(100, spent=70)
    assert budget.allows(25)
    assert not budget.allows(35)
    assert Budget(10, spent=20).left == 0


@pytest.mark.parametrize("number", [0, 1])
def test_no_pixel_is_trained_on_and_scored(number):
    for size in ((200, 130), (130, 200)):
        picture = np.arange(200 * 130).reshape(1, 1, *size)
        trained, scored = split_captures(picture, number)
        together = np.concatenate([trained.ravel(), scored.ravel()])
        assert np.array_equal(np.sort(together), picture.ravel())


def photograph(top: int = 100) -> np.ndarray:
    """A part of scikit-image's photograph, 160 x 128, float."""
    from skimage.data import camera

    return camera()[top : top + 160, 200:328].astype(np.float64)


def data_of(folder, pictures) -> DataSet:
    """The data set of pictures that are written as files."""
    folder.mkdir()
    for number, picture in enumerate(pictures):
        tifffile.imwrite(folder / f"{number}.tif", picture, photometric="minisblack")
    jobs, _ = planned([str(folder)], folder.parent / "out")
    asked = AskedAxes()
    return read_data_set(jobs, {}, kind_of_file(jobs[0], asked), asked)


def test_planes_of_a_file_are_scored_at_the_same_end(tmp_path):
    """Their noise may be shared: no place that decides in one plane is trained on in another."""
    draws = np.random.default_rng(0)
    stack = np.stack([photograph() + 20 * draws.normal(size=(160, 128)) for _ in range(4)])
    data = data_of(tmp_path / "stack", [stack.astype(np.float32)])
    assert len(data.scenes) == 4
    data.save_trained(tmp_path / "trained")
    for number in range(4):
        trained = np.load(tmp_path / "trained" / f"{number:03}.npy")
        assert np.array_equal(trained[0], stack[number, :128].astype(np.float32))


def test_the_reasons_of_training_are_true_of_the_noise(tmp_path):
    draws = np.random.default_rng(0)
    tops = (20, 100, 180)
    clean = [photograph(top) for top in tops]
    white = [(one + 20 * draws.normal(size=one.shape)).astype(np.float32) for one in clean]
    names = [method.name for method in ways._methods(data_of(tmp_path / "white", white))]
    assert names == ["by neighbours", "by masks"]
    striped = []
    for one in clean:
        noise = correlated_noise((1, *one.shape), along_rows(), draws)[0]
        striped.append((one + 20 * noise).astype(np.float32))
    data = data_of(tmp_path / "rows", striped)
    assert data.measured_noises
    (method,) = ways._methods(data)
    mask = mask_of_images(list(data.noises.values())).mask
    assert mask.along_line
    assert f"data.mask={mask.text}" in method.options
    assert f"the noise of {mask.pixels - 1} pixels around each is correlated" in method.reason
    counts = [draws.poisson(one / 8).astype(np.uint16) for one in clean]
    (method,) = ways._methods(data_of(tmp_path / "counts", counts))
    assert "photon counts" in method.reason


def test_captures_are_pairs_and_pictures_that_only_look_like_captures_are_not(tmp_path):
    draws = np.random.default_rng(0)
    clean = photograph()
    captures = [clean + 20 * draws.normal(size=clean.shape) for _ in range(3)]
    stack = np.stack(captures).astype(np.float32)
    np.save(tmp_path / "a.npy", stack)
    jobs, _ = planned([str(tmp_path / "a.npy")], tmp_path / "out")
    asked = AskedAxes("KHW")
    data = read_data_set(jobs, {}, kind_of_file(jobs[0], asked), asked)
    assert data.paired
    assert [method.reason for method in ways._methods(data)] == ["each scene has 3 captures"]
    other = np.stack([clean, photograph(20), photograph(180)]).astype(np.float32)
    np.save(tmp_path / "a.npy", other)
    assert not read_data_set(jobs, {}, kind_of_file(jobs[0], asked), asked).paired


def test_without_a_measured_noise_the_checkpoint_is_used(tmp_path):
    small = [photograph()[:32, :32].astype(np.float32)]
    said = []
    choice = searching.search(data_of(tmp_path / "small", small), 1, tmp_path / "w", said.append)
    assert choice.name == "bundled checkpoint"
    assert "no error can be estimated: the picture is smaller than 40 pixels" in said[-1]


def trained_at_once(overrides, folder):
    """Write the bundled checkpoint as that of a finished run."""
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(PRETRAINED, folder / "checkpoints" / "last.ckpt")
    (folder / "result.json").write_text('{"status": "finished"}')


def test_an_interrupted_search_continues(tmp_path, monkeypatch):
    draws = np.random.default_rng(0)
    noisy = [photograph(top) + 25 * draws.normal(size=(160, 128)) for top in (20, 180)]
    data = data_of(tmp_path / "noisy", [one.astype(np.float32) for one in noisy])
    monkeypatch.setattr(ways, "of_filters", lambda *_: [])
    runs = []

    def interrupted(overrides, folder):
        runs.append((folder.parent.name, folder.name, overrides[-1]))
        if len(runs) == 2:
            raise Interrupted(signal.SIGINT, folder)
        trained_at_once(overrides, folder)

    monkeypatch.setattr(ways, "_train_run", interrupted)
    work = tmp_path / "work"
    with pytest.raises(Interrupted):
        searching.search(data, 5, work, lambda line: None)
    before = json.loads((work / "progress.json").read_text())
    assert before["spent"] > 0
    said = []
    choice = searching.search(data, 5, work, said.append)
    after = json.loads((work / "progress.json").read_text())
    assert after["spent"] > before["spent"]
    assert after["seconds"]["first"] == before["seconds"]["first"]
    # the run that was finished is not repeated; the interrupted one is
    assert [run[:2] for run in runs].count(runs[0][:2]) == 1
    assert [run[:2] for run in runs].count(runs[1][:2]) == 2
    assert runs[1][2] == runs[2][2]  # as long as it was planned
    # all networks are the checkpoint itself
    assert choice.name.startswith("bundled checkpoint")
    lines = said[-5:]
    assert [line.split(":")[0] for line in lines[:4]] == ["tried", "left out", "scored", "chosen"]
    assert lines[4].startswith("on the other half of the pixels")
    assert sum(row["chosen"] for row in choice.table) == 1


def interrupted_search(tmp_path, monkeypatch, runs_before):
    """Interrupt a search when a run begins after so many; return its data and its folder."""
    draws = np.random.default_rng(0)
    noisy = [photograph(top) + 25 * draws.normal(size=(160, 128)) for top in (20, 180)]
    data = data_of(tmp_path / "noisy", [one.astype(np.float32) for one in noisy])
    monkeypatch.setattr(ways, "of_filters", lambda *_: [])
    runs = []

    def interrupted(overrides, folder):
        runs.append(folder)
        if len(runs) > runs_before:
            raise Interrupted(signal.SIGINT, folder)
        trained_at_once(overrides, folder)

    monkeypatch.setattr(ways, "_train_run", interrupted)
    work = tmp_path / "work"
    with pytest.raises(Interrupted):
        searching.search(data, 5, work, lambda line: None)
    return data, work


def test_finished_runs_count_after_an_interruption_that_took_the_time(tmp_path, monkeypatch):
    data, work = interrupted_search(tmp_path, monkeypatch, runs_before=2)
    progress = json.loads((work / "progress.json").read_text())
    (work / "progress.json").write_text(json.dumps({**progress, "spent": 299}))
    monkeypatch.setattr(ways, "_train_run", trained_at_once)
    said = []
    choice = searching.search(data, 5, work, said.append)
    names = [row["candidate"] for row in choice.table]
    assert [name for name in names if name.startswith(("fine", "trained"))] == [
        "fine-tuned by neighbours",
        "trained anew by neighbours",
    ]
    assert "fine-tuned by masks: no time; trained anew by masks: no time" in said[-4]


def test_runs_of_other_pictures_are_not_taken_for_those_of_a_search(tmp_path, monkeypatch):
    data, work = interrupted_search(tmp_path, monkeypatch, runs_before=2)
    assert any(work.glob("*/stage_0/result.json"))
    other = data_of(tmp_path / "other", [data.capture(1, 0)[0].astype(np.float32)])
    begun = []

    def noted(overrides, folder):
        begun.append(folder)
        trained_at_once(overrides, folder)

    monkeypatch.setattr(ways, "_train_run", noted)
    searching.search(other, 5, work, lambda line: None)
    assert len([folder for folder in begun if folder.name == "stage_0"]) == 4
    assert len(list((work / "images").iterdir())) == 1


def test_a_network_that_diverges_is_left_out(tmp_path, monkeypatch):
    data, work = interrupted_search(tmp_path, monkeypatch, runs_before=0)

    def diverging(overrides, folder):
        if "trained_anew" in str(folder):
            raise Diverged("the loss is NaN")
        trained_at_once(overrides, folder)

    monkeypatch.setattr(ways, "_train_run", diverging)
    said = []
    choice = searching.search(data, 5, work, said.append)
    assert "trained anew by neighbours: the loss is NaN" in said[-4]
    assert "fine-tuned by masks" in [row["candidate"] for row in choice.table]


def test_networks_that_there_is_no_time_for_are_named(tmp_path, monkeypatch):
    data, _ = interrupted_search(tmp_path, monkeypatch, runs_before=0)
    said = []
    searching.search(data, 0.01, tmp_path / "short", said.append)
    assert said[-4].count("no time") == 4


@pytest.mark.parametrize(("side", "blocks"), [(8, 0), (16, 0), (32, 2)])
def test_pictures_too_small_to_decide_by_get_the_checkpoint(tmp_path, side, blocks):
    draws = np.random.default_rng(0)
    clean = photograph()[:side, :side]
    stack = np.stack([clean + 20 * draws.normal(size=clean.shape) for _ in range(2)])
    np.save(tmp_path / "a.npy", stack.astype(np.float32))
    jobs, _ = planned([str(tmp_path / "a.npy")], tmp_path / "out")
    asked = AskedAxes("KHW")
    data = read_data_set(jobs, {}, kind_of_file(jobs[0], asked), asked)
    said = []
    choice = searching.search(data, 1, tmp_path / "work", said.append)
    assert choice.name == "bundled checkpoint"
    assert f"{blocks} blocks of 16 x 16 known pixels to decide by, not 3" in choice.why


def test_a_part_without_known_pixels_decides_nothing(tmp_path):
    draws = np.random.default_rng(0)
    noisy = (photograph() + 20 * draws.normal(size=(160, 128))).astype(np.float32)
    noisy[96:] = np.nan
    data = data_of(tmp_path / "gap", [noisy])
    assert data.measured_noises
    choice = searching.search(data, 1, tmp_path / "work", lambda line: None)
    assert "0 blocks of 16 x 16 known pixels" in choice.why


def test_the_reason_of_training_counts_the_pictures_that_it_is_true_of(tmp_path):
    draws = np.random.default_rng(0)
    white = photograph(20) + 20 * draws.normal(size=(160, 128))
    rows = correlated_noise((1, 160, 128), along_rows(), draws)[0]
    striped = photograph(180) + 20 * rows
    both = [white.astype(np.float32), striped.astype(np.float32)]
    data = data_of(tmp_path / "both", both)
    assert [noise.white for noise in data.measured_noises.values()] == [True, False]
    method, *_ = ways._methods(data)
    assert method.reason.endswith("is independent in 1 of 2 pictures")
    assert "measured in 2 pictures, independent from pixel to pixel in 1" in searching.noise_line(
        data
    )


def test_a_file_that_cannot_be_read_does_not_end_the_choice(tmp_path, monkeypatch, capsys):
    draws = np.random.default_rng(0)
    folder = tmp_path / "noisy"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", draws.integers(0, 255, (32, 32), np.uint8))
    (folder / "b.tif").write_bytes(b"II*\0 garbage")
    args = parser().parse_args([str(folder), "-o", str(tmp_path / "clean"), "--best"])
    checked_arguments(args)
    assert run(args) == 1
    captured = capsys.readouterr()
    assert captured.err.count("b.tif") == 1
    assert (tmp_path / "clean" / "a.tif").exists()
    (folder / "a.tif").unlink()
    with pytest.raises(InputError, match=r"b\.tif"):
        run(parser().parse_args([str(folder), "-o", str(tmp_path / "new"), "--best"]))


def test_denoise_best_writes_a_choice_that_choice_repeats(tmp_path, monkeypatch, capsys):
    draws = np.random.default_rng(0)
    noisy = (photograph() + 25 * draws.normal(size=(160, 128))).clip(0, 255).astype(np.uint8)
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("noisy.tif", noisy)
    monkeypatch.setattr(ways, "of_filters", lambda *_: [])
    monkeypatch.setattr(ways, "_train_run", trained_at_once)

    def denoise(*words):
        args = parser().parse_args(list(words))
        checked_arguments(args)
        return run(args)

    assert denoise("noisy.tif", "-o", "clean", "--best", "--minutes", "2") == 0
    assert "chosen: " in capsys.readouterr().out
    assert not (tmp_path / "clean" / ".best").exists()
    assert (tmp_path / "clean" / "choice.html").exists()
    assert denoise("noisy.tif", "-o", "again", "--choice", "clean") == 0
    first = tifffile.imread("clean/noisy.tif")
    assert np.array_equal(first, tifffile.imread("again/noisy.tif"))
    (tmp_path / "clean" / "noisy.tif").unlink()
    assert denoise("noisy.tif", "-o", "clean", "--best", "--minutes", "2") == 0
    assert "is there already" in capsys.readouterr().out
    assert np.array_equal(first, tifffile.imread("clean/noisy.tif"))
    tifffile.imwrite("other.tif", noisy.astype(np.uint16))
    with pytest.raises(InputError, match="the choice is for grey pictures of uint8"):
        denoise("other.tif", "-o", "again", "--choice", "clean")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--best", "--adapt"], "goes without --adapt"),
        (["--best", "--checkpoint", "RUN"], "goes without --checkpoint"),
        (["--best", "--errors"], "goes without --errors"),
        (["--best", "--strength", "0.5"], "goes without --strength"),
        (["--choice", "DIR", "--scale", "5"], "goes without --scale"),
        (["--choice", "DIR", "--best"], "repeats a choice"),
        (["--best", "--minutes", "0"], "must be larger than 0"),
        (["--choice", "DIR", "--minutes", "3"], "goes with --adapt or --best"),
    ],
)
def test_options_that_cannot_go_together_are_refused(options, reason):
    args = parser().parse_args(["noisy.tif", "-o", "clean", *options])
    with pytest.raises(InputError, match=reason):
        checked_arguments(args)


def a_choice():
    """A mean of the checkpoint, a network of its own, a filter and the input."""
    model = load()
    filtered = FilterChoice("total variation", 0.1, 0.1, 0.0, 255.0)
    parts = [
        ways.Part(model, "bundled"),
        ways.Part(filter_denoiser(filtered, 1), filtered),
        ways.Part(load(), ways.Path("stage_0")),
    ]
    return Choice("grey pictures of uint8", "a mean", "a test", parts, [0.5, 0.25, 0.125], 1)


def test_a_choice_that_is_stored_repeats_bit_for_bit(tmp_path):
    picture = np.random.default_rng(0).normal(100, 20, (64, 80)).clip(0, 255).astype(np.uint8)
    choice = a_choice()
    save_choices([choice], tmp_path)
    (restored,) = load_choices(tmp_path)
    first = choice.denoiser().denoise(picture, axes="HW", dtype="float32")
    second = restored.denoiser().denoise(picture, axes="HW", dtype="float32")
    assert np.array_equal(first, second)
    weights = [0.5, 0.25, 0.125]
    expected = 0.125 * picture
    for part, weight in zip(choice.parts, weights, strict=True):
        one = part.denoiser.denoise(picture, axes="HW", dtype="float32")
        expected = expected + weight * one
    assert np.allclose(first, expected, atol=1e-3)


def test_missing_pixels_stay_as_they_are_in_a_mean():
    picture = np.random.default_rng(0).normal(100, 20, (64, 80)).astype(np.float32)
    picture[10, 10] = np.nan
    picture[:, :4] = -9999
    blend = BlendedDenoiser([load(), load()], [0.3, 0.3])
    result = blend.denoise(picture, axes="HW")
    assert np.isnan(result[10, 10])
    assert np.array_equal(result[:, :4], picture[:, :4])


def test_a_choice_names_the_kinds_that_it_knows(tmp_path):
    with pytest.raises(InputError, match=r"has no choice\.json"):
        load_choices(tmp_path)
    save_choices([a_choice()], tmp_path)
    with pytest.raises(InputError, match="the choice is for grey pictures of uint8"):
        choice_for("colour pictures of uint8", load_choices(tmp_path))
    path = tmp_path / "choice.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "format": 99}))
    with pytest.raises(InputError, match="newer"):
        load_choices(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        load_choices(tmp_path)


def test_best_in_python_returns_the_result_and_denoises_more(monkeypatch):
    draws = np.random.default_rng(0)
    clean = photograph()
    first, second = (clean + 20 * draws.normal(size=(2, 3, 160, 128))).astype(np.float32)
    monkeypatch.setattr(ways, "of_training", lambda *_: [])
    monkeypatch.setattr(ways, "of_filters", lambda *_: [])
    chosen = best(first, second, minutes=1, layout="NHW", lines=False)
    assert chosen.result.shape == first.shape
    assert ((chosen.result - clean) ** 2).mean() < 0.25 * 20**2
    assert np.array_equal(chosen.denoise(first, axes="NHW"), chosen.result)
    assert [row["candidate"] for row in chosen.table if row["chosen"]] == [chosen.name]
    scored = {row["candidate"]: row["error"] for row in chosen.table}
    truth = ((chosen.result - clean) ** 2).mean()
    assert scored[chosen.name] == pytest.approx(truth, rel=0.3)
