"""`n2n watch`: pictures that arrive, and the mean of captures."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from n2n_lightning.files import InputError
from n2n_lightning.watch import command
from n2n_lightning.watch.captures import CaptureMean, MeanPoint, gain
from n2n_lightning.watch.scenes import is_due
from n2n_lightning.watch.settling import AGAIN, Settling
from tests.conftest import LIMIT


@pytest.fixture
def clock():
    """A clock that is set by hand."""
    now = [0.0]
    return now


@pytest.fixture
def settling(tmp_path, clock):
    (tmp_path / "in").mkdir()
    return Settling(tmp_path / "in", tmp_path / "out", 2.0, lambda: clock[0])


def _write(path: Path, content: bytes = b"x", when: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if when is not None:
        os.utime(path, ns=(when, when))
    return path


def _names(jobs):
    return [job.source.name for job in jobs]


def test_a_picture_that_is_written_to_waits(settling, clock):
    picture = _write(settling.folder / "run" / "a.png")
    assert settling.ready() == []
    clock[0] = 1.9
    _write(picture, b"xy")
    assert settling.ready() == []
    clock[0] = 3.8
    assert settling.ready() == []
    clock[0] = 3.9
    assert _names(settling.ready()) == ["a.png"]
    assert settling.waiting == 1


def test_what_has_a_result_is_done_and_what_changed_since_is_not(settling, clock):
    _write(settling.folder / "a.png", when=10)
    _write(settling.folder / "b.png", when=10)
    _write(settling.out / "a.png", when=10)
    _write(settling.out / "b.png", when=9)
    settling.ready()
    clock[0] = 2
    assert _names(settling.ready()) == ["b.png"]
    assert _names(settling.done_before()) == ["a.png"]


def _ready_one(settling, clock):
    settling.ready()
    clock[0] += 2
    (job,) = settling.ready()
    return job


def test_a_picture_that_changed_while_it_was_denoised_is_done_again(settling, clock, tmp_path):
    picture = _write(settling.folder / "a.png", when=10)
    job = _ready_one(settling, clock)
    _write(picture, b"longer", when=20)
    _write(job.target, when=30)
    assert not settling.finish(job)
    again = Settling(settling.folder, settling.out, 0, lambda: clock[0])
    for one in (settling, again):
        assert _ready_one(one, clock).source == picture


def test_clocks_that_are_ahead_do_not_make_a_picture_new(settling, clock):
    _write(settling.folder / "a.png", when=2 * 10**18)
    job = _ready_one(settling, clock)
    _write(job.target)  # by this machine's clock years earlier
    assert settling.finish(job)
    again = Settling(settling.folder, settling.out, 0, lambda: clock[0])
    assert again.ready() == []


def test_a_result_that_is_taken_away_is_made_again(settling, clock):
    _write(settling.folder / "a.png")
    job = _ready_one(settling, clock)
    _write(job.target)
    settling.finish(job)
    assert settling.ready() == []
    job.target.unlink()
    assert _ready_one(settling, clock) == job


def test_what_cannot_be_read_waits_for_a_change(settling, clock):
    picture = _write(settling.folder / "a.png")
    settling.fail(_ready_one(settling, clock))
    assert settling.ready() == []
    _write(picture, b"whole")
    assert _ready_one(settling, clock).source == picture
    settling.fail(settling.ready()[0])
    clock[0] += AGAIN
    assert _names(settling.ready()) == ["a.png"]


def test_results_inside_the_folder_and_other_files_are_no_pictures(tmp_path):
    settling = Settling(tmp_path, tmp_path / "clean", 0.0)
    _write(tmp_path / "clean" / "a.png")
    _write(tmp_path / "notes.txt")
    assert settling.ready() == []
    assert settling.waiting == 0


def test_a_picture_with_the_result_of_another_one_is_said(settling, clock):
    """A CZI file becomes a TIFF, which is there already."""
    _write(settling.folder / "a.czi", when=10)
    _write(settling.folder / "a.tif", when=10)
    assert _ready_one(settling, clock).source.name == "a.czi"
    assert settling.clashes == {settling.folder / "a.tif": settling.folder / "a.czi"}


def _scene(side: int = 128, width: float = 5) -> np.ndarray:
    """Smooth structures of deviation 56, (1, side, side)."""
    draws = np.random.default_rng(3)
    scene = gaussian_filter(draws.normal(0, 200 * width, (side, side)), width)
    return 100 + scene[None]


def _blurred(image: np.ndarray) -> np.ndarray:
    return gaussian_filter(image, (0, 1.5, 1.5))


def _captured(count: int, seed: int) -> tuple[CaptureMean, np.ndarray]:
    """A mean of captures of noise 20, each denoised by a blur, and the scene."""
    scene = _scene()
    draws = np.random.default_rng(seed)
    captures = CaptureMean()
    for _ in range(count):
        captures.add(draws.normal(scene, 20))
        captures.note_denoised(_blurred(captures.mean))
    return captures, scene


def test_errors_of_means_are_those_against_the_clean_image():
    captures, scene = _captured(9, 0)
    assert [point.captures for point in captures.points] == list(range(1, 9))
    draws = np.random.default_rng(0)
    mean = np.zeros_like(scene)
    for number, point in enumerate(captures.points, 1):
        mean += (draws.normal(scene, 20) - mean) / number
        assert point.mean_error == pytest.approx(400 / number, rel=0.06)
        truth = ((_blurred(mean) - scene) ** 2).mean()
        assert abs(point.denoised_error - truth) < 4 * point.error_deviation
        assert point.error_deviation < 10


def test_the_interval_of_more_captures_holds_the_truth():
    scene = _scene()
    constant = ((_blurred(scene) - scene) ** 2).mean()
    draws = np.random.default_rng(99)
    noise = (_blurred(draws.normal(0, 20, scene.shape)) ** 2).mean()
    truth = 10 * np.log10((constant + noise / 8) / (constant + noise / 20))
    held = []
    for seed in range(40):
        captures, _ = _captured(8, seed)
        found = captures.gain_of(12)
        held.append(found.low <= truth <= found.high)
        assert found.low < found.decibels < found.high
    assert np.mean(held) >= 0.85


def test_three_points_tell_nothing_of_more_captures():
    points = [MeanPoint(n, 400 / n, 10 + 40 / n, 0.5) for n in (1, 2, 3, 4)]
    assert gain(points[:3], 4, 12) is None
    found = gain(points, 4, 12)
    assert found.decibels == pytest.approx(10 * np.log10((10 + 10) / (10 + 40 / 16)), rel=1e-6)


def test_means_that_are_denoised_lie_evenly_on_a_logarithmic_axis():
    assert [n for n in range(1, 33) if is_due(n)] == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]


def _watch(tmp_path, *options: str) -> command.Watch:
    words = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--settle", "0", *options]
    args = command.parser().parse_args(words)
    command._check(args)
    return command._watch_of(args, tmp_path / "in")


def _discs(side: int = 64) -> np.ndarray:
    """Bright discs, (side, side): no network takes them for noise, as it does a random field."""
    draws = np.random.default_rng(8)
    rows, columns = np.mgrid[:side, :side]
    scene = np.full((side, side), 60.0)
    for y, x, radius in draws.uniform((0, 0, 3), (side, side, 9), (14, 3)):
        scene[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = draws.uniform(90, 200)
    return scene


def _picture(seed: int, move: int = 0, scene: np.ndarray | None = None) -> Image.Image:
    scene = np.roll(_discs() if scene is None else scene, move, 0)
    noisy = np.random.default_rng(seed).normal(scene, 10).clip(0, 255)
    return Image.fromarray(noisy.astype(np.uint8))


def test_pictures_are_denoised_as_they_come_and_half_of_one_waits(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    _picture(0).save(folder / "a.png")
    whole = (folder / "a.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    watch = _watch(tmp_path)

    def wakes():
        yield True
        yield True
        (folder / "b.png").write_bytes(whole)
        yield True

    watch.run(wakes())
    output, errors = capsys.readouterr()
    assert errors.count("waits: ") == 1
    assert "b.png" in errors
    results = [(tmp_path / "out" / name).read_bytes() for name in ("a.png", "b.png")]
    assert results[0] == results[1]
    assert output.count("a.png") == 1


def test_captures_have_a_page_and_one_that_moved_is_left_out(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(7):
        _picture(number, move=4 if number == 3 else 0).save(folder / f"{number}.png")
    _watch(tmp_path, "--captures").run(iter([True, True]))
    output, _ = capsys.readouterr()
    assert "3.png: moved by +3.8 rows" in output
    rows = (tmp_path / "out" / "captures.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in rows[1:]] == [1, 2, 3, 4, 5]
    page = (tmp_path / "out" / "captures.html").read_text(encoding="utf-8")
    assert "6 captures" in page
    assert "3.png: moved" in page
    mean = np.load(tmp_path / "out" / "denoised-mean.npy")
    scene = _discs()
    noisy = np.asarray(_picture(0), float)
    assert np.abs(mean - scene).mean() < 0.6 * np.abs(noisy - scene).mean()
    # started again: nothing is denoised twice, and the means are the same
    _watch(tmp_path, "--captures").run(iter([True]))
    output, _ = capsys.readouterr()
    assert "0.png  " not in output
    assert (tmp_path / "out" / "captures.csv").read_text().splitlines() == rows


def test_a_denoised_mean_that_is_worse_than_the_mean_is_said(tmp_path, capsys):
    """The bundled network takes a random field for blurred noise."""
    folder = tmp_path / "in"
    folder.mkdir()
    field = _scene(64, 2)[0]
    for number in range(4):
        _picture(number, scene=field).save(folder / f"{number}.png")
    _watch(tmp_path, "--captures").run(iter([True, True]))
    assert "worse than the mean" in (tmp_path / "out" / "captures.html").read_text()
    assert "worse than the mean" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--best"], "needs all pictures"),
        (["--page"], "needs all pictures"),
        (["--settle", "-1"], "0 to 3600"),
        (["--overwrite"], "is made again"),
        (["--strength", "2"], "must be 0"),
    ],
)
def test_options_that_need_all_pictures_are_refused(tmp_path, words, reason):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=reason):
        _watch(tmp_path, *words)


def test_results_among_the_pictures_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    args = command.parser().parse_args([str(tmp_path / "in"), "-o", str(tmp_path / "in")])
    with pytest.raises(InputError, match="another folder"):
        command._check(args)


@pytest.mark.walk
def test_killed_and_started_again_every_picture_has_one_whole_result(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    words = [sys.executable, "-m", "n2n_lightning", "watch", "in", "-o", "out", "--settle", "0.5"]

    def started():
        with (tmp_path / "log").open("a") as log:
            return subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log)

    def wait_for(count):
        end = time.monotonic() + LIMIT
        while len(list((tmp_path / "out").glob("[0-9]*.png"))) < count:
            assert time.monotonic() < end
            time.sleep(0.1)

    process = started()
    for number in range(12):
        _picture(number).save(tmp_path / "whole.png")
        content = (tmp_path / "whole.png").read_bytes()
        with (folder / f"{number:02}.png").open("wb") as file:
            for begin in range(0, len(content), 1000):
                file.write(content[begin : begin + 1000])
                file.flush()
                time.sleep(0.01)
        if number == 5:
            wait_for(2)
            process.kill()
            process.wait()
            process = started()
    wait_for(12)
    process.send_signal(signal.SIGINT)
    process.wait(LIMIT)
    for number in range(12):
        with Image.open(tmp_path / "out" / f"{number:02}.png") as image:
            assert image.size == (64, 64)
            image.load()
    lines = (tmp_path / "log").read_text().splitlines()
    denoised = [line for line in lines if line.startswith("out")]
    assert len(denoised) in (12, 13)  # what was in hand when it was killed
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix != ".png"]
