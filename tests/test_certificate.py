"""Certificates of values: an oracle holds, and what changes values does not."""

import json

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from n2n_lightning import denoise, evaluate
from n2n_lightning.files import InputError
from n2n_lightning.inference.certificates import certificate_file_of, read_marks
from n2n_lightning.metrics.certificate import (
    FAILS,
    HOLDS,
    UNKNOWN,
    UNMEASURABLE,
    Unbias,
    certify,
    verdict,
)
from n2n_lightning.metrics.points import find_points
from n2n_lightning.metrics.residual_structure import ADDED, REMOVED, SEARCHED
from n2n_lightning.metrics.single_noise import single_noise
from n2n_lightning.paths import is_clutter
from n2n_lightning.reporting.slider import MARK_COLORS, pair

SIGMA = 4.0


@pytest.fixture(scope="module")
def scene():
    """Return squares of several brightnesses and texture of all frequencies, (1, 256, 256)."""
    draws = np.random.default_rng(0)
    squares = np.kron(draws.uniform(40, 160, (16, 16)), np.ones((16, 16)))
    texture = 12 * draws.normal(size=(256, 256))
    return (squares + texture)[None]


def captures_of(scene, count=2, seed=1):
    draws = np.random.default_rng(seed)
    return [scene + draws.normal(0, SIGMA, scene.shape) for _ in range(count)]


def verdicts(certificate, group):
    return [line.verdict for line in certificate.lines if line.group == group]


def test_the_verdict_follows_the_interval():
    assert verdict((-0.02, 0.02), 0.02) == HOLDS
    assert verdict((-0.5, -0.03), 0.02) == FAILS
    assert verdict((-np.inf, np.inf), 0.02) == UNKNOWN
    assert verdict((0.0, 0.03), 0.05) == HOLDS


def test_an_oracle_holds_everywhere(scene):
    certificate = certify(captures_of(scene), [scene, scene])
    assert FAILS not in {line.verdict for line in certificate.lines}
    for group in ("brightness", "contrast", "spectrum", "resolution"):
        assert set(verdicts(certificate, group)) == {HOLDS}, group


def test_a_darker_result_is_biased(scene):
    certificate = certify(captures_of(scene), [0.9 * scene] * 2)
    brightest = [line for line in certificate.lines if line.group == "brightness"][7]
    assert brightest.verdict == FAILS
    low, high = brightest.interval
    # relative to what is above the dark end of the result
    above = 0.9 * np.quantile(scene, 0.94) - np.quantile(0.9 * scene, 0.005)
    assert low < -0.1 * np.quantile(scene, 0.94) / above < high
    assert verdicts(certificate, "contrast") == [FAILS]


def test_a_constant_holds_nothing_that_varies(scene):
    flat = np.full_like(scene, scene.mean())
    certificate = certify(captures_of(scene), [flat, flat])
    assert HOLDS not in {line.verdict for line in certificate.lines}


def test_smoothing_loses_high_frequencies(scene):
    captures = captures_of(scene)
    smooth = [gaussian_filter(image, (0, 1.5, 1.5)) for image in captures]
    certificate = certify(captures, smooth)
    spectrum = [line for line in certificate.lines if line.group == "spectrum"]
    assert -0.1 < spectrum[0].value < 0
    for line in spectrum[3:]:
        assert line.verdict == FAILS
        assert line.value < -0.5
    # the transfer function of the filter in the middle of the band, within what its width adds
    gain = np.exp(-2 * (np.pi * 0.21875 * 1.5) ** 2)
    assert 1 + spectrum[3].value == pytest.approx(gain, abs=0.05)


def test_sums_of_given_regions(scene):
    labels = np.zeros(scene.shape[1:], int)
    labels[32:96, 32:96] = 1
    labels[128:192, 128:192] = 7
    result = scene.copy()
    result[:, 128:192, 128:192] += 10
    certificate = certify(captures_of(scene), [result] * 2, labels=labels)
    lines = {line.name: line for line in certificate.lines if line.group == "regions"}
    assert lines["sum of region 1"].verdict == HOLDS
    assert lines["sum of region 7"].verdict == FAILS
    assert "given" in lines["sum of region 1"].remark


def stars(width=1.3, flux=3000.0):
    """Return a grid of 49 points on a sky, and their places."""
    image = np.full((256, 256), 50.0)
    rows, columns = np.mgrid[:256, :256]
    places = []
    for row in range(24, 240, 32):
        for column in range(24, 240, 32):
            distance = (rows - row) ** 2 + (columns - column) ** 2
            profile = np.exp(-distance / (2 * width**2))
            image += flux * profile / profile.sum()
            places.append((row, column))
    return image[None], places


def test_points_are_where_they_are():
    image, places = stars()
    assert sorted(find_points(image[0])) == places
    assert find_points(np.full((64, 64), 3.0)) == []
    assert find_points(np.full((64, 64), np.nan)) == []


def test_flux_and_width_of_points():
    image, _ = stars()
    captures = captures_of(image)
    lines = {line.name: line for line in certify(captures, [image] * 2).lines}
    assert lines["flux of points"].verdict == HOLDS
    assert lines["width of points"].verdict == HOLDS
    dimmer = image - 0.2 * (image - 50)
    lines = {line.name: line for line in certify(captures, [dimmer] * 2).lines}
    assert lines["flux of points"].value == pytest.approx(-0.2, abs=0.02)
    assert lines["flux of points"].verdict == FAILS
    wider, _ = stars(width=1.5)
    lines = {line.name: line for line in certify(captures, [wider] * 2).lines}
    assert lines["width of points"].verdict == FAILS
    assert lines["width of points"].value > 0.05


def test_one_capture_says_what_it_cannot_tell(scene):
    (capture,) = captures_of(scene, 1)
    certificate = certify([capture], [scene])
    for group in ("brightness", "contrast", "spectrum", "resolution"):
        assert verdicts(certificate, group) == [UNMEASURABLE], group
    smooth = gaussian_filter(scene, (0, 8, 8))
    (capture,) = captures_of(smooth, 1)
    noise = single_noise(capture)
    certificate = certify([capture], [smooth], noise)
    assert verdicts(certificate, "contrast") == [HOLDS]


def test_missing_pixels_do_not_count(scene):
    captures = captures_of(scene)
    for capture in captures:
        capture[:, 64:128] = np.nan
    certificate = certify(captures, [scene, scene])
    assert set(verdicts(certificate, "brightness")) == {HOLDS}
    nothing = certify([np.full_like(scene, np.nan)] * 2, [scene] * 2)
    assert HOLDS not in {line.verdict for line in nothing.lines}


def test_nothing_measurable_is_not_zero_of_zero():
    nothing = [np.full((1, 32, 32), np.nan)]
    assert certify(nothing, nothing).line().startswith("no quantity is measurable, of ")


def test_unbias_takes_out_a_monotone_bias(scene):
    """Fitted on the upper half, shown on the lower half."""
    captures = captures_of(scene)
    result = 20 + 0.8 * scene + 0.0005 * scene**2
    upper, lower = np.s_[:, :128], np.s_[:, 128:]
    unbias = Unbias([result[upper]] * 2, [capture[upper] for capture in captures])
    others = [capture[lower] for capture in captures]
    before = certify(others, [result[lower]] * 2)
    after = certify(others, [unbias(result[lower])] * 2)
    assert before.count(FAILS, "brightness") >= 4
    assert after.count(HOLDS, "brightness") >= 6
    assert after.count(FAILS, "brightness") == 0


def test_shrinkage_is_not_seen_across_captures():
    """Of a flat scene with noise, the mean is right wherever the result says it."""
    draws = np.random.default_rng(5)
    scene = draws.normal(100, 10, (1, 256, 256))
    captures = captures_of(scene)
    share = 100 / (100 + SIGMA**2)
    shrunk = [100 + share * (capture - 100) for capture in captures]
    certificate = certify(captures, shrunk)
    assert certificate.count(FAILS, "brightness") == 0
    assert verdicts(certificate, "contrast") == [FAILS]


def test_a_certificate_is_written(scene):
    written = certify(captures_of(scene), [scene, scene]).as_dict()
    assert written["captures"] == 2
    assert "hold within 0.02" in written["line"]
    for line in written["quantities"]:
        assert line["verdict"] in (HOLDS, FAILS, UNKNOWN, UNMEASURABLE)
        assert (line["difference"] is None) == (line["verdict"] in (UNMEASURABLE,)) or (
            line["verdict"] == UNKNOWN
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scene):
    """Return a folder with two captures and a label image."""
    folder = tmp_path_factory.mktemp("captures")
    part = gaussian_filter(scene[:, :128, :128], (0, 1, 1))
    for name, capture in zip("ab", captures_of(part), strict=True):
        tifffile.imwrite(folder / f"{name}.tif", capture[0].astype(np.float32))
    labels = np.zeros((128, 128), np.uint8)
    labels[16:112, 16:112] = 3
    tifffile.imwrite(folder / "labels.tif", labels)
    return folder


def run(monkeypatch, command, *words):
    monkeypatch.setattr("sys.argv", ["command", *map(str, words)])
    return command.main()


def test_denoise_writes_a_certificate_and_a_page(folder, tmp_path, monkeypatch, capsys):
    words = (folder / "a.tif", "--certify", "--second", folder / "b.tif", "-o", tmp_path)
    regions = ("--regions", folder / "labels.tif", "--tolerance", "0.05")
    assert run(monkeypatch, denoise, *words, *regions, "--page") == 0
    assert "quantities hold within 0.05" in capsys.readouterr().out
    written = json.loads((tmp_path / "a.tif.certificate.json").read_text())
    (page,) = written["pages"]
    quantities = {line["quantity"]: line for line in page["quantities"]}
    assert quantities["sum of region 3"]["verdict"] == HOLDS
    assert page["captures"] == 2
    assert page["structure"]["captures"] == 2
    shown = (tmp_path / "certificate.html").read_text()
    assert "sum of region 3" in shown
    assert (page["array"], page["planes"]) == (0, [[]])
    assert "Marks: no structure found in the residual." in (tmp_path / "page.html").read_text()
    assert is_clutter("a.tif.certificate.json")
    assert run(monkeypatch, denoise, folder / "a.tif", "--certify", "-o", tmp_path / "one") == 0
    assert "not measurable" in capsys.readouterr().out


def written_marks(path, places, planes):
    page = {"array": 0, "planes": planes, "structure": {"places": places}}
    path.write_text(json.dumps({"pages": [page]}))


def test_marks_of_a_stack_are_on_its_pages(tmp_path):
    target = tmp_path / "a.tif"
    assert read_marks(target, 0, (4, 20, 30), "NHW") is None
    removed = {"kind": "removed", "channel": 0, "box": [2, 3, 6, 9]}
    added = {"kind": "added", "channel": 0, "box": [5, 8, 10, 12]}
    written_marks(certificate_file_of(target), [added, removed], [[2]])
    marks = read_marks(target, 0, (4, 20, 30), "NHW")
    assert not marks[[0, 1, 3]].any()  # these were not searched
    assert (marks[2] == REMOVED).sum() == 4 * 6 - 1
    assert (marks[2, 5:10, 8:12] == ADDED).all()
    assert marks[2, 0, 0] == SEARCHED
    assert read_marks(target, 1, (20, 30), "HW") is None


def test_marks_are_a_layer_of_the_page():
    image = np.full((16, 16), 9, np.uint8)
    marks = np.full((16, 16), SEARCHED, np.uint8)
    marks[4:12, 4:12] = REMOVED
    picture = pair("a", image, image, "HW", marks=marks)
    ((layers, label),) = picture.pages
    assert picture.layers == ["before", "after", "marks"]
    assert label == " Marks: red: structure was removed."
    drawn = layers[2]
    assert drawn[4, 4].tolist() == list(MARK_COLORS[REMOVED])
    assert drawn[8, 8].tolist() == drawn[0, 0].tolist() == [9, 9, 9]
    colours = np.repeat(image[..., None], 3, -1)
    of_colours = np.full((16, 16, 3), SEARCHED, np.uint8)
    of_colours[4:12, 4:12, 1] = REMOVED  # in one colour alone
    ((layers, _),) = pair("a", colours, colours, "HWC", marks=of_colours).pages
    assert layers[2][4, 4].tolist() == list(MARK_COLORS[REMOVED])
    nothing = pair("a", image, image, "HW", marks=np.zeros_like(marks))
    assert nothing.pages[0][1] == " Marks: this page was not searched."


def test_evaluate_writes_certificates(folder, tmp_path, monkeypatch, capsys):
    from n2n_lightning.inference.checkpoint import PRETRAINED

    path = tmp_path / "certificate.json"
    pair = ("--val-noisy", folder / "a.tif", "--val-target", folder / "b.tif")
    assert run(monkeypatch, evaluate, PRETRAINED, *pair, "--certify", path) == 0
    (certified,) = json.loads(path.read_text()).values()
    assert certified["pages"][0]["captures"] == 2
    assert path.with_suffix(".html").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--regions", "labels.tif"), "goes with --certify"),
        (("--certify", "--tolerance", "2"), "between 0 and 1"),
        (("--certify", "--adapt"), "without --adapt"),
        (("--second", "b.tif"), "--errors, --certify, --unbias"),
        (("--unbias",), "needs --second or --halves"),
        (("--unbias", "--second", "b.tif", "--errors"), "goes without --errors"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[0],
)
def test_options_that_cannot_be(words, reason, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=reason):
        run(monkeypatch, denoise, "a.tif", "-o", tmp_path, *words)


def test_regions_of_another_size(folder, tmp_path, monkeypatch, capsys):
    tifffile.imwrite(tmp_path / "labels.tif", np.ones((8, 8), np.uint8))
    words = (folder / "a.tif", "-o", tmp_path / "out", "--certify")
    assert run(monkeypatch, denoise, *words, "--regions", tmp_path / "labels.tif") == 1
    assert "the pictures are 128 x 128 pixels" in capsys.readouterr().err
