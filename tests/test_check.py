"""Inspection of noisy data before training: its findings, and no false ones on good data."""

import json
import os
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from n2n_lightning.data.datasets import Captures
from n2n_lightning.data.intensity import intensity_stats
from n2n_lightning.data.scene_set import EqualSizeScenes
from n2n_lightning.inspection import inspect, unfit
from tests.captures import SIDE, scenes
from tests.conftest import run


def as_scenes(*captures: np.ndarray) -> EqualSizeScenes:
    """Captures (N, H, W) each."""
    tensors = [torch.from_numpy(np.ascontiguousarray(c))[:, None] for c in captures]
    return EqualSizeScenes(tensors, [f"scene {i}" for i in range(len(captures[0]))])


def shots(clean: np.ndarray, seed: int, sigma: float = 10.0, count: int = 2) -> list[np.ndarray]:
    draws = np.random.default_rng([seed, 1])
    return [(clean + draws.normal(0, sigma, clean.shape)).astype(np.float32) for _ in range(count)]


def bad(report) -> set[str]:
    return {finding.name for finding in report.findings if finding.bad}


@pytest.mark.walk
@pytest.mark.parametrize("kind", ["float32", "uint8", "uint16", "poisson", "colour"])
def test_nothing_wrong_is_said_of_good_data(kind):
    for seed in range(10):  # 50 with the kinds
        clean, draws = scenes(seed), np.random.default_rng([seed, 2])
        if kind == "poisson":
            captures = [draws.poisson(clean / 4).astype(np.uint16) for _ in range(2)]
        elif kind == "uint8":
            captures = [
                shot.round().clip(0, 255).astype(np.uint8) for shot in shots(clean, seed, 8)
            ]
        elif kind == "uint16":
            captures = [
                (1000 + 7 * shot).round().astype(np.uint16)
                for shot in shots(clean, seed, 12, count=3)
            ]
        else:
            captures = shots(clean, seed, 25)
        found = as_scenes(*captures)
        if kind == "colour":
            others = [
                as_scenes(*shots(scenes(seed) * f, seed + s, 15)).frames
                for f, s in ((0.5, 100), (0.8, 200))
            ]
            found = EqualSizeScenes(
                [torch.cat(c, 1) for c in zip(found.frames, *others, strict=True)], found.names
            )
        report = inspect(found)
        assert bad(report) == set(), [f for f in report.findings if f.bad]
        assert report.numbers["white"] is True
        assert report.advice == []
        assert unfit(found, intensity_stats(found)) == []


def test_a_shift_of_half_a_pixel():
    from scipy.ndimage import shift

    clean = scenes(0, margin=20)
    moved = np.stack([shift(c, (0.5, 0), order=3, mode="nearest") for c in clean])
    cut = slice(10, 10 + SIDE)
    first, _ = shots(clean[:, cut, cut], 0)
    _, second = shots(moved[:, cut, cut], 0)
    report = inspect(as_scenes(first, second))
    rows, columns, most = report.numbers["shift_near"]
    assert rows == pytest.approx(-0.5, abs=0.1)
    assert columns == pytest.approx(0, abs=0.1)
    assert most == pytest.approx(0.5, abs=0.1)
    assert bad(report) == {"shift"}
    assert report.advice is None
    assert "register" in report.why
    assert "shift" in unfit(as_scenes(first, second), intensity_stats(as_scenes(first, second)))[0]


def test_drift_of_three_per_cent_in_brightness_with_a_black_level_below():
    first, second = shots(1000 + scenes(1), 1)
    darkest = 1040
    for gain, expected in ((1.03, {"brightness"}), (1.005, set())):
        brighter = darkest + gain * (second - darkest)
        report = inspect(as_scenes(first, brighter.astype(np.float32)))
        assert bad(report) == expected
        assert report.numbers["brightness_near"]["mean"] == pytest.approx(gain - 1, abs=0.006)


def test_captures_that_drift_are_paired_with_their_neighbours():
    clean = scenes(2)
    captures = [shot * (1 + 0.01 * k) for k, shot in enumerate(shots(clean, 2, count=6))]
    report = inspect(as_scenes(*[c.astype(np.float32) for c in captures]))
    assert report.advice == ["data.within=1"]
    assert unfit(as_scenes(*captures), intensity_stats(as_scenes(*captures)), within=1) == []


def test_a_duplicate():
    first, _ = shots(scenes(3), 3)
    second = np.concatenate([first[:1], shots(scenes(3), 3)[1][1:]])
    report = inspect(as_scenes(first, second))
    assert "duplicates" in bad(report)
    assert report.numbers["duplicates"] == ["scene 0"]
    assert report.advice is None
    assert "same values" in " ".join(
        unfit(as_scenes(first, second), intensity_stats(as_scenes(first, second)))
    )


def test_correlation_of_neighbouring_pixels_is_measured_and_only_a_large_one_is_said():
    clean = scenes(4)
    # of a moving average (1, weight): weight / (1 + weight^2)
    for weight, expected in ((0.335, 0.3), (0.04, 0.04)):
        draws = np.random.default_rng(4)
        noises = [draws.normal(0, 10, (3, SIDE, SIDE + 1)) for _ in range(2)]
        captures = [(clean + n[..., 1:] + weight * n[..., :-1]).astype(np.float32) for n in noises]
        report = inspect(as_scenes(*captures))
        along, across = (
            report.numbers["correlations"]["along a row"],
            report.numbers["correlations"]["along a column"],
        )
        assert along[0] == pytest.approx(expected, abs=0.02)
        assert max(map(abs, [along[1], *across])) < 0.02
        assert report.numbers["white"] is (expected < 0.1)
        assert bad(report) == set()  # pairs do not mind
        if expected > 0.1:
            assert any("not white along a row" in f.line for f in report.findings)


def test_clipped_noise_at_zero():
    clean = scenes(5) - 40
    captures = [shot.round().clip(0, 255).astype(np.uint8) for shot in shots(clean, 5, 12)]
    share = np.mean([(c == 0).mean() for c in captures])
    assert 0.01 < share < 0.06
    report = inspect(as_scenes(*captures))
    assert bad(report) == {"ends"}
    assert report.numbers["ends"]["lowest"] == [0.0, pytest.approx(share, rel=0.05)]
    floats = inspect(as_scenes(*[np.maximum(s, 0) for s in shots(clean, 5, 12)]))
    assert "ends" in bad(floats)


@pytest.mark.parametrize(("gain", "read"), [(2.5, 6.0), (0.6, 12.0)])
def test_gain_and_read_noise_within_five_per_cent(gain, read):
    clean = scenes(6, count=8, side=256)
    draws = np.random.default_rng(6)
    captures = [
        (gain * draws.poisson(clean / gain) + draws.normal(0, read, clean.shape)) for _ in range(2)
    ]
    report = inspect(as_scenes(*[c.astype(np.float32) for c in captures]))
    assert report.numbers["b"] == pytest.approx(gain, rel=0.05)
    assert np.sqrt(report.numbers["a"]) == pytest.approx(read, rel=0.05)
    assert not report.numbers["counts"]


def test_photon_counts_are_known_and_their_zeros_are_not_clipped():
    clean = scenes(7) / 100
    draws = np.random.default_rng(7)
    report = inspect(as_scenes(*[draws.poisson(clean).astype(np.uint16) for _ in range(2)]))
    assert report.numbers["counts"] is True
    assert bad(report) == set()


def test_noise_that_channels_share():
    draws = np.random.default_rng(8)
    clean = torch.from_numpy(scenes(8)).float()[:, None].expand(-1, 3, -1, -1)

    def shot(shared: float) -> torch.Tensor:
        own, common = draws.normal(0, 10, clean.shape), draws.normal(0, 10, (3, 1, SIDE, SIDE))
        return clean + torch.from_numpy(own + shared * common).float()

    apart = inspect(EqualSizeScenes([shot(0), shot(0)], ["a", "b", "c"]))
    together = inspect(EqualSizeScenes([shot(1), shot(1)], ["a", "b", "c"]))
    assert abs(apart.numbers["between_channels"]) < 0.02
    assert together.numbers["between_channels"] == pytest.approx(0.5, abs=0.03)
    assert bad(together) == set()


def test_single_captures_have_no_pairs_but_a_kind_of_noise():
    for weight, white in ((0.0, True), (0.8, False)):
        draws = np.random.default_rng(9)
        noise = draws.normal(0, 20, (3, SIDE, SIDE + 1))
        captures = (scenes(9) + noise[..., 1:] + weight * noise[..., :-1]).astype(np.float32)
        report = inspect(as_scenes(captures))
        assert report.numbers["white"] is white
        assert report.numbers["sigma"] == pytest.approx(20 * np.hypot(1, weight), rel=0.25)
        assert "shift_near" not in report.numbers


def test_one_picture_shows_the_line_of_its_noise():
    from skimage.data import camera

    draws = np.random.default_rng(3)
    clean = camera()[80:336, 100:356].astype(np.float64)
    report = inspect(as_scenes((clean + draws.normal(0, 10, clean.shape)).astype(np.float32)[None]))
    low, high = report.numbers["sigma_interval"]
    assert low < 10 < high
    assert report.numbers["b"] == 0
    counts = 3 * draws.poisson(clean / 3) + draws.normal(0, 2, clean.shape)
    report = inspect(as_scenes(counts.astype(np.float32)[None]))
    assert report.numbers["b"] == pytest.approx(3, rel=0.15)
    (line,) = (finding.line for finding in report.findings if finding.name == "noise")
    assert "brightness: gain" in line


@pytest.mark.slow
def test_train_warns_of_captures_that_are_no_pairs_before_it_starts(tmp_path):
    first, second = shots(scenes(12), 12)
    np.save(tmp_path / "first.npy", first)
    np.save(tmp_path / "second.npy", np.roll(second, 1, 2))
    small = [
        "model=residual_unet",
        "model.width=4",
        "data.train_pairs=8",
        "data.batch_size=4",
        "trainer.max_epochs=1",
    ]
    done = run(
        "train",
        "data=pairs",
        "data.noisy=first.npy",
        "data.target=second.npy",
        *small,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "shift" in line]
    assert line.startswith("warning: shift: 1.0")


def test_only_near_captures_are_pairs_where_within_says_so():
    frames = [torch.full((5, 1, 16, 16), float(k)) for k in range(7)]
    for within, distances in ((1, {1}), (2, {1, 2}), (None, {1, 2, 3, 4, 5, 6})):
        source = Captures(
            EqualSizeScenes(frames, ["s"] * 5),
            seed=0,
            swap=True,
            crop=(8, 8),
            count=1000,
            within=within,
        )
        from n2n_lightning.data import BatchIndex

        batch = source[BatchIndex(0, 0, torch.arange(1000))]
        first, second = (batch[name][:, 0, 0, 0] for name in ("input", "target"))
        assert set((first - second).abs().int().tolist()) == distances
        assert set(first.int().tolist()) == set(second.int().tolist()) == set(range(7))


@pytest.mark.slow
def test_the_command_says_it_in_plain_lines_and_ends_in_the_one_that_trains(tmp_path):
    captures = [shot.round().clip(0, 255).astype(np.uint8) for shot in shots(scenes(10), 10)]
    for name, images in zip(("first shots", "second"), captures, strict=True):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    done = run(
        "check", "first shots", "second", "--out", "page", "--json", "found.json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == "n2n train data=pairs 'data.noisy=first shots' data.target=second"
    assert not any(line.startswith("!") for line in lines)
    for name in (
        "read",
        "shift",
        "brightness",
        "noise",
        "pixels",
        "ends",
        "outliers",
        "input",
        "amount",
        "unseen",
    ):
        assert any(line.strip().startswith(name) for line in lines), name
    numbers = json.loads((tmp_path / "found.json").read_text())
    assert numbers["sigma"] == pytest.approx(10, rel=0.05)
    assert numbers["input_psnr_estimate"] == pytest.approx(20 * np.log10(255 / 10), abs=0.3)
    content = (tmp_path / "page" / "check.html").read_text(encoding="utf-8")
    assert "data:image/png" in content
    assert "data.target=second" in content
    with Image.open(tmp_path / "page" / "check.png") as picture:
        assert picture.size[0] > 500
    small = [
        "model=residual_unet",
        "model.width=4",
        "data.train_pairs=8",
        "data.batch_size=4",
        "trainer.max_epochs=1",
    ]
    done = run("train", *shlex.split(last)[2:], *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


@pytest.mark.walk
def test_the_command_says_why_nothing_fits_and_what_cannot_be_read(tmp_path):
    image = shots(scenes(11), 11)[0]
    tifffile.imwrite(tmp_path / "one.tif", image[0])
    done = run("check", "one.tif", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "n2n train data=single data.noisy=one.tif"
    done = run("check", "one.tif", "one.tif", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no command fits" in done.stdout.splitlines()[-1]
    for arguments, said in (
        (["nowhere.tif"], "error: nowhere.tif: no such file"),
        (["one.tif", "--layout", "XY"], "error: --layout XY: does not fit"),
        (["one.tif", "--dq-good", "x"], "error: --dq-good x: must be bits"),
        ([str(tmp_path / "empty")], "holds no images"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        done = run("check", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error:")
        assert said in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif("N2N_DATA" not in os.environ, reason="needs real captures in $N2N_DATA/fmd")
def test_real_captures(tmp_path):
    done = run("check", str(Path(os.environ["N2N_DATA"]) / "fmd"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "data=pairs" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_movie_is_known_and_how_far_it_moves(tmp_path):
    from scipy.ndimage import shift

    wide = scenes(13, 1, 240)[0]
    for speed in (0.0, 0.5):
        frames = np.stack(
            [
                shift(wide, (0, -speed * t), order=3, mode="nearest")[20:180, 20:180]
                for t in range(24)
            ]
        )
        tifffile.imwrite(tmp_path / "movie.tif", shots(frames, 13, 20)[0], photometric="minisblack")
        done = run("check", "movie.tif", "--json", "m.json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith("n2n train data=movie data.noisy=movie.tif")
        assert json.loads((tmp_path / "m.json").read_text())["movement"] == pytest.approx(
            speed, abs=0.05
        )
    tifffile.imwrite(
        tmp_path / "different.tif", shots(scenes(14, 6), 14, 20)[0], photometric="minisblack"
    )
    done = run("check", "different.tif", cwd=tmp_path)
    assert "data=single" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("pixels", [1, 4, 20])
def test_shifts_of_any_size_and_captures_of_different_things(pixels):
    clean = scenes(15, 3, 200)
    first, second = shots(clean[:, pixels:, :], 15)[0], shots(clean[:, : 200 - pixels, :], 16)[1]
    report = inspect(as_scenes(first, second))
    assert abs(report.numbers["shift_near"][0]) == pytest.approx(pixels, abs=0.15)
    assert report.advice == ["data.align=true"]
    assert report.numbers["sigma"] == pytest.approx(10, rel=0.05)  # the drift is no noise
    movie = as_scenes(first, second)
    assert not unfit(movie, intensity_stats(movie), 1, "movie")  # what moves is what it is for
    unrelated = as_scenes(shots(clean, 15)[0], shots(scenes(99, 3, 200), 15)[1])
    assert "no movie" in " ".join(unfit(unrelated, intensity_stats(unrelated), 1, "movie"))
    other = inspect(unrelated)
    assert any("same thing" in finding.line for finding in other.findings if finding.bad)


def test_single_photographs_with_white_noise_are_neither_counts_nor_movies_nor_lines(tmp_path):
    from skimage import data

    draws = np.random.default_rng(0)
    for name, sigma in (("camera", 11), ("coins", 10), ("page", 8), ("moon", 6)):
        noisy = getattr(data, name)() + draws.normal(0, sigma, getattr(data, name)().shape)
        report = inspect(as_scenes(noisy.round().clip(0, 255).astype(np.uint8)[None]))
        assert report.advice == [], name
        assert report.source == "single"
    mask = np.hypot(*(np.mgrid[:SIDE, :SIDE] - SIDE / 2)) < 70
    framed = np.where(mask, scenes(17, 6), 0) + draws.normal(0, 5, (6, SIDE, SIDE))
    assert inspect(as_scenes(framed.astype(np.float32))).source == "single"


@pytest.mark.walk
def test_blank_and_tiny_images_get_an_answer_and_no_warning(tmp_path):
    draws = np.random.default_rng(0)
    images = {
        "flat": np.full((3, 40, 40), 7.0),
        "nan": np.full((3, 40, 40), np.nan),
        "tiny": draws.random((3, 6, 6)),
    }
    for name, values in images.items():
        np.save(tmp_path / f"{name}.npy", values.astype(np.float32))
        for arguments in ([f"{name}.npy"], [f"{name}.npy", f"{name}.npy"]):
            done = run("check", *arguments, "--out", "page", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert done.stderr.splitlines() == ["page: page/check.html"]
            assert (name == "tiny" and len(arguments) == 1) is (
                "no command fits" not in done.stdout
            )


def test_a_scene_without_any_value_does_not_hinder_the_others():
    first, second = shots(scenes(3, 5), 0)
    second[1] = np.nan
    report = inspect(as_scenes(first, second))
    assert report.source == "pairs"
    assert report.advice is not None


@pytest.mark.slow
def test_volumes_are_named_as_such(tmp_path):
    mrcfile = pytest.importorskip("mrcfile")
    volume = np.random.default_rng(0).normal(size=(12, 48, 48)).astype(np.float32)
    for name in ("even", "odd"):
        with mrcfile.new(tmp_path / f"{name}.mrc") as file:
            file.set_data(
                volume
                + np.random.default_rng(len(name)).normal(size=volume.shape).astype(np.float32)
            )
            file.set_volume()
    np.save(tmp_path / "stack.npy", volume)
    lines = {
        a: run("check", *a.split(), cwd=tmp_path).stdout
        for a in ("even.mrc odd.mrc", "stack.npy stack.npy")
    }
    assert ["half_volumes" in found for found in lines.values()] == [True, False]


def test_brightness_changes_by_no_more_than_itself():
    clean = scenes(30) - 30
    dark = np.full_like(clean, 8.0)
    report = inspect(
        as_scenes(*(shot.astype(np.float32) for shot in (shots(clean, 30)[0], shots(dark, 31)[0])))
    )
    assert -1 <= report.numbers["brightness_near"]["mean"] < -0.8
    frames = [
        gain * clean[:1] + shot
        for gain, shot in zip((1, 0.95, 1, 0.9), shots(0 * clean[:1], 32, 3, 4), strict=True)
    ]
    movie = EqualSizeScenes(
        [torch.from_numpy(np.concatenate(frames))[:, None].float()],
        ["m.tif, image 0"],
        torch.tensor([4]),
    )
    found = inspect(EqualSizeScenes(movie.frames, [f"m.tif, image {i}" for i in range(4)]))
    assert found.source == "movie"
    assert "brightness" not in bad(found)
    assert abs(found.numbers["brightness_far"]["most"]) <= 1


def test_dead_frames_are_named_and_not_clipped():
    clean = scenes(33, 1)
    frames = np.concatenate(shots(clean, 33, 8, 12)).round().clip(0, 65535).astype(np.uint16)
    frames[5] = 0
    frames[9] = frames[8]
    found = inspect(
        EqualSizeScenes(
            [torch.from_numpy(frames)[:, None]], [f"m.tif, image {i}" for i in range(12)]
        )
    )
    lines = {finding.name: finding.line for finding in found.findings}
    assert found.source == "movie"
    assert "frame 5 of m.tif (every pixel 0)" in str(found)
    assert "frame 9 of m.tif (a copy of the frame before)" in lines["frames"]
    assert found.numbers["copied_frames"] == [9]
    assert bad(found) == set()
    assert found.advice == []


def test_files_of_several_scenes_are_no_movie():
    files = [
        (f"{i}_{part}.mrc", shot)
        for i in range(4)
        for part, shot in zip("ab", shots(scenes(34 + i, 1), i), strict=True)
    ]
    found = inspect(
        EqualSizeScenes(
            [torch.from_numpy(np.concatenate([shot for _, shot in files]))[:, None]],
            [n for n, _ in files],
        )
    )
    assert found.source == "single"


def test_planes_and_directions_of_a_volume_are_no_captures(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    volume = np.repeat(scenes(38, 1, 48)[0][:, :, None], 6, 2)
    draws = np.random.default_rng(38)
    noisy = np.stack([volume + draws.normal(0, 5, volume.shape) for _ in range(4)], -1)
    nibabel.save(nibabel.Nifti1Image(noisy.astype(np.int16), np.eye(4)), tmp_path / "dwi.nii.gz")
    done = run("check", "dwi.nii.gz", cwd=tmp_path)
    assert "are no captures of one scene, and no movie" in done.stdout
    assert "data=movie" not in done.stdout
    assert "frames" not in done.stdout


def test_folders_of_volumes_are_looked_at_as_training_reads_them(tmp_path):
    draws = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    for side in ("first", "second"):
        (tmp_path / side).mkdir()
        for i in range(2):
            scene = 1000 + 300 * np.sin((y + i * x) / 5)
            volume = (scene + draws.normal(0, 40, (12, 48, 48))).round().astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4)), tmp_path / side / f"sub{i}.nii")
    done = run("check", "first", "second", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "experiment=half_volumes data.noisy=first data.target=second" in done.stdout
    assert "looked at plane by plane" in done.stdout


def test_channels_in_turn_get_the_command_that_trains_on_one_of_them(tmp_path):
    draws = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96]
    one, other = 1000 + 400 * np.sin(y / 7), 1000 + 400 * np.sin(x / 5 + y / 11)
    stack = np.stack(
        [(other if t % 2 else one) + draws.normal(0, 30, one.shape) for t in range(16)]
    )
    tifffile.imwrite(
        tmp_path / "turn.tif",
        stack.round().astype(np.uint16),
        imagej=True,
        metadata={"axes": "TYX"},
    )
    done = run("check", "turn.tif", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last == "n2n train data=movie data.noisy=turn.tif data.frames=0::2"
