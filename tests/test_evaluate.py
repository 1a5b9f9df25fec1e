"""Scores that can be trusted, and the page made of them."""

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from n2n_lightning import evaluate, load
from n2n_lightning.data import BatchIndex
from n2n_lightning.files import InputError
from n2n_lightning.inference.denoiser import load
from n2n_lightning.inference.tiling import averaged
from n2n_lightning.metrics import classical, scoring
from n2n_lightning.networks import ResidualUNet
from n2n_lightning.training.validation_images import draw_images
from tests.captures import scene
from tests.conftest import LIMIT, course_files, photographs, run

# On one worker, which trains the runs of `place` once.
pytestmark = pytest.mark.xdist_group("evaluate")

SMALL = [
    "data.train_pairs=24",
    "data.val_pairs=12",
    "data.batch_size=6",
    "model=residual_unet",
    "model.width=4",
    "trainer.accelerator=cpu",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the report's files in small, a finished run, a failed one and a sweep."""
    folder = tmp_path_factory.mktemp("place")
    course_files(folder / "course", train=24, val=9)
    photographs(folder / "pictures", 3, 40)
    done = run(
        "train", *SMALL, "trainer.max_epochs=2", "hydra.run.dir=outputs/runs/one", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    sweep = [
        "-m",
        "optim.lr=0.01,0.001,-1",
        "data=course",
        "data.root=course",
        *SMALL[0:1],
        *SMALL[2:],
    ]
    done = run(
        "train", *sweep, "trainer.max_epochs=1", "hydra.sweep.dir=outputs/sweeps/grid", cwd=folder
    )
    assert done.returncode == 1, done.stderr
    return folder


class Fixed:
    """Validation data for score(): given noisy and clean images."""

    bounded = True

    def __init__(self, noisy: torch.Tensor, clean: torch.Tensor) -> None:
        self.batch = {"input": noisy, "target": clean}

    def val_dataloader(self):
        return [{name: part for name, part in self.batch.items()}]

    def on_after_batch_transfer(self, batch, _):
        return batch


@pytest.mark.parametrize("kind", ["random", "constant"])
def test_scores_agree_with_skimage_and_the_courses_formula(kind):
    draws = torch.Generator().manual_seed(0)
    clean = (
        torch.rand(5, 3, 24, 20, generator=draws)
        if kind == "random"
        else torch.full((5, 3, 24, 20), 0.4)
    )
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=draws)).clamp(0, 1)
    found = scoring.score_clean(lambda image: image, Fixed(noisy, clean))
    summary = scoring.summarise(found, None)
    pairs = [(c.numpy(), n.numpy()) for c, n in zip(clean, noisy, strict=True)]
    each = [peak_signal_noise_ratio(c, n, data_range=1.0) for c, n in pairs]
    assert summary["psnr"] == pytest.approx(np.mean(each), abs=1e-4)
    total = peak_signal_noise_ratio(clean.numpy(), noisy.numpy(), data_range=1.0)
    assert summary["psnr_total"] == pytest.approx(total, abs=1e-4)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim = [structural_similarity(c, n, data_range=1.0, channel_axis=0, **window) for c, n in pairs]
    assert found["ssim"] == pytest.approx(ssim, abs=1e-4)
    rounded = [(c, (n * 255).round() / 255) for c, n in zip(clean, noisy, strict=True)]
    eight_bit = [peak_signal_noise_ratio(c.numpy(), n.numpy(), data_range=1.0) for c, n in rounded]
    assert summary["psnr_uint8"] == pytest.approx(np.mean(eight_bit), abs=1e-4)
    # its test.py, max_range 1
    course = (-10 * torch.log10((noisy - clean).square().mean((1, 2, 3)))).mean().item()
    assert summary["psnr"] == pytest.approx(course, abs=1e-4)
    low, high = summary["psnr_interval"]
    assert low <= summary["psnr"] <= high


def test_paired_difference_knows_that_images_are_the_same():
    draws = torch.Generator().manual_seed(0)
    clean = torch.rand(40, 3, 12, 12, generator=draws)
    noise = torch.rand(40, 1, 1, 1, generator=draws) * torch.randn(clean.shape, generator=draws)
    one, two = (
        {**scoring.score_clean(lambda x, f=f: x, Fixed(clean + f * noise * 0.1, clean))}
        for f in (1.0, 0.9)
    )
    summary = scoring.summarise(two, one)
    assert summary["difference"] == pytest.approx(20 * np.log10(1 / 0.9), abs=0.05)
    low, high = summary["difference_interval"]
    assert high - low < 0.1 < summary["psnr_interval"][1] - summary["psnr_interval"][0]


def test_averaging_over_turns_undoes_each_turn():
    image = torch.rand(2, 3, 9, 14)
    assert torch.allclose(averaged(lambda x: x)(image), image)
    seen = []
    averaged(lambda x: (seen.append(x), x)[1])(image)
    assert len({tuple(x[0, 0].flatten().tolist()) for x in seen}) == 8
    network = ResidualUNet(width=4)
    torch.nn.init.normal_(network.output.weight, std=0.1)
    turned = averaged(network)(image.rot90(1, (-2, -1)))
    assert torch.allclose(turned, averaged(network)(image).rot90(1, (-2, -1)), atol=1e-5)


@pytest.mark.slow
def test_evaluate_writes_table_json_csv_and_picture(place):
    arguments = [
        "outputs/runs/one",
        "outputs/sweeps/grid/0",
        "--data",
        "course",
        "--root",
        "course",
        "--tta",
        "--classical",
    ]
    files = ["--json", "scores.json", "--csv", "scores.csv", "--picture", "worst.png"]
    done = run("evaluate", *arguments, "--tta", "--classical", *files, cwd=place)
    assert done.returncode == 0, done.stderr
    for name in (
        "noisy input",
        "Gaussian blur",
        "median",
        "total variation",
        "non-local means",
        "wavelet",
    ):
        assert name in done.stdout
    scores = json.loads((place / "scores.json").read_text())["scores"]
    noisy, clean = (x.float() / 255 for x in torch.load(place / "course" / "val_data.pkl"))
    mse = (noisy - clean).square().mean((1, 2, 3))
    assert scores["noisy input"]["psnr"] == pytest.approx(
        (-10 * mse.log10()).mean().item(), abs=1e-4
    )
    assert scores["outputs/runs/one"]["parameters"] > 1000
    assert "difference" in scores["outputs/sweeps/grid/0"]
    with (place / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert float(rows[3]["noisy input mse"]) == pytest.approx(mse[3].item(), rel=1e-4)
    assert (place / "worst.png").read_bytes().startswith(b"\x89PNG")
    # The same noise for every candidate and every call.
    again = run(
        "evaluate",
        *arguments[:2],
        "--data",
        "photos",
        "--noise",
        "gaussian:sigma=25",
        "--json",
        "a.json",
        cwd=place,
    )
    once_more = run(
        "evaluate", arguments[1], "--noise", "gaussian:sigma=25", "--json", "b.json", cwd=place
    )
    assert (again.returncode, once_more.returncode) == (0, 0), again.stderr
    a, b = (json.loads((place / name).read_text())["scores"] for name in ("a.json", "b.json"))
    assert a[arguments[1]]["psnr"] == b[arguments[1]]["psnr"]


@pytest.mark.slow
def test_classical_filters_never_look_at_clean_or_scored_images(place, monkeypatch):
    data = evaluate.make_data(
        evaluate.arguments(["--data", "course", "--root", str(place / "course")])
    )
    data.val = None
    tuned = classical.classical(data)
    assert len(tuned) >= 5
    image = torch.rand(2, 3, 16, 16)
    for denoise, _ in tuned.values():
        assert denoise(image).shape == image.shape


@pytest.mark.slow
def test_tuning_pairs_are_both_noisy_with_every_noise():
    for noise, sigma in (
        ("gaussian:sigma=25", 25),
        ("brown:sigma=25", 25),
        ("pixelate:block=7", None),
    ):
        data = evaluate.make_data(evaluate.arguments(["--noise", noise]))
        first, second = data.noisy_pair(data.train[BatchIndex(0, 0, torch.arange(64))])
        assert not torch.equal(first, second)
        if sigma:
            assert (first - second).std().item() * 255 == pytest.approx(sigma * 2**0.5, rel=0.05)


@pytest.mark.walk
def test_own_images_are_scored_at_the_scale_of_the_checkpoint(place):
    arguments = ["--data", "pairs", "--val-noisy", "a.npy", "--clean", "b.npy"]
    args = evaluate.arguments(arguments)
    np.save(
        place / "a.npy",
        np.random.default_rng(0).integers(0, 1500, (4, 3, 16, 16)).astype(np.uint16),
    )
    np.save(
        place / "b.npy",
        np.random.default_rng(1).integers(0, 1500, (4, 3, 16, 16)).astype(np.uint16),
    )
    args.val_noisy, args.clean = str(place / "a.npy"), str(place / "b.npy")
    assert evaluate.make_data(args).scale == 2047
    assert evaluate.make_data(args, scale=4095.0).scale == 4095


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_any_number_of_channels_can_be_drawn_and_filtered(channels):
    images = torch.rand(2, channels, 16, 16)
    draw_images(images, images, images).savefig(os.devnull, format="png")
    for denoise, _ in classical.classical(Noisy(channels)).values():
        assert denoise(images).shape == images.shape


class Noisy:
    """Training data for classical(): random pairs."""

    def __init__(self, channels: int) -> None:
        self.train = type(
            "Train", (), {"__len__": lambda _: 3, "__getitem__": lambda _, key: key}
        )()
        self.channels = channels

    def noisy_pair(self, key):
        return torch.rand(3, self.channels, 16, 16), torch.rand(3, self.channels, 16, 16)


@pytest.mark.walk
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file"),
        (["course"], "course: not a run folder"),
        (["course/train_data.pkl"], "course/train_data.pkl: not a checkpoint of n2n_lightning"),
        (["--data", "course"], "--data course: needs --root"),
        (["--data", "pairs"], "--data pairs: needs --val-noisy"),
        (["--data", "pairs", "--clean", "course"], "--data pairs: needs --val-noisy"),
        (
            ["--data", "pairs", "--val-noisy", "course", "--classical"],
            "--classical: the filters are tuned on noisy",
        ),
        (["--data", "nonsense"], "argument --data: invalid choice"),
        (["--noise", "fog"], "--noise fog: is none of"),
        (["--noise", "gaussian:sigma=much"], "--noise gaussian:sigma=much"),
        (
            ["--noise", "gaussian:sgma=3"],
            "--noise gaussian:sgma=3: noise.sgma: there is no such key (did you mean sigma?)",
        ),
        (["--noise", "gaussian:sigma=-3"], "--noise gaussian:sigma=-3: noise.sigma=-3: must be"),
        (["--noise", "gaussian:25"], "should be NAME=VALUE, as in gaussian:sigma=25"),
        (
            ["--data", "photos", "--val-noisy", "course"],
            "--val-noisy course: goes with --data pairs",
        ),
        (["--root", "course"], "--root course: goes with --data course or images"),
        (["--noise", "fog", "--clean", "course"], "--noise fog: goes with --data photos or images"),
        (["--val-noisy", "pictures"], "name the other one with --val-target"),
        (["--val-noisy", "pictures", "--dq-good", "x"], "--dq-good x: must be bits"),
    ],
)
def test_evaluate_mistakes(arguments, message, place):
    done = run("evaluate", *arguments, cwd=place)
    assert done.returncode == 2
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_it_says_what_is_scored_on_and_what_makes_that_mean_less(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run_, noisy in (("a", "A"), ("b", "B"), ("c", None)):
        (tmp_path / run_).mkdir()
        (tmp_path / run_ / "result.json").write_text(
            json.dumps({"data": {"name": "x", "noisy": noisy}})
        )
    scored = SimpleNamespace(val=[0] * 7)
    args = evaluate.arguments(["--val-noisy", "./A", "--val-target", "T"])
    assert evaluate.scored_on(args, scored) == "scored on ./A against T: 7 images"
    assert list(evaluate.remarks(args, ["a", "b", "c"])) == [
        "a has learnt from these images: score it on others (docs/explanation/scores.md)"
    ]
    args = evaluate.arguments(["--noise", "gaussian:sigma=5"])
    assert (
        evaluate.scored_on(args, scored)
        == "scored on crops of embedded photographs, noise gaussian:sigma=5: 7 images"
    )
    assert [line.partition(",")[0] for line in evaluate.remarks(args, ["a", "c"])] == [
        "a has learnt from A"
    ]


@pytest.mark.slow
def test_checkpoints_of_strangers(place, tmp_path):
    state = torch.load(
        place / "outputs" / "runs" / "one" / "checkpoints" / "best.ckpt", weights_only=True
    )
    assert isinstance(load(place / "outputs" / "runs" / "one").network, ResidualUNet)
    foreign = {
        **state,
        "n2n_lightning": {**state["n2n_lightning"], "model": {"_target_": "antigravity.Network"}},
    }
    torch.save(foreign, tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match="allow=antigravity"):
        load(tmp_path / "foreign.ckpt")
    import sys

    assert "antigravity" not in sys.modules
    other = {
        **state,
        "n2n_lightning": {
            **state["n2n_lightning"],
            "model": {"_target_": "n2n_lightning.files.InputError"},
        },
    }
    torch.save(other, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"its network is from n2n_lightning\.files"):
        load(tmp_path / "other.ckpt")
    own = {
        **state,
        "n2n_lightning": {**state["n2n_lightning"], "model": {"_target_": "tests.test_train.Tiny"}},
    }
    torch.save(own, tmp_path / "own.ckpt")
    # allowed, but these are another network's weights
    with pytest.raises(InputError, match="cannot be built"):
        load(tmp_path / "own.ckpt", allow=["tests.test_train"])


@pytest.mark.slow
def test_real_samples_in_one_table(place):
    folder = os.environ.get("N2N_DATA")
    if not folder:
        pytest.skip("N2N_DATA is not set")
    samples = f"{folder}/course_val_samples.npz"
    source = ["--data", "pairs", "--val-noisy", f"{samples}:noisy", "--clean", f"{samples}:clean"]
    done = run("evaluate", "outputs/runs/one", *source, "--json", "real.json", cwd=place)
    assert done.returncode == 0, done.stderr
    noisy = json.loads((place / "real.json").read_text())["scores"]["noisy input"]
    assert noisy["psnr"] == pytest.approx(21.11, abs=0.005)
    assert noisy["psnr_total"] == pytest.approx(19.99, abs=0.005)


# The page


@pytest.mark.slow
def test_report_of_runs_sweeps_and_failures(place, tmp_path):
    done = run("report", "outputs", "--out", str(tmp_path), cwd=place)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r'(?:src|href)="?(?!data:)[^">]+', page) == []
    for text in (
        "runs/one",
        "grid/0",
        "failed",
        "Figure 1",
        "Figure 2",
        "Figure 3",
        "Table 1",
        "To repeat it",
    ):
        assert text in page, text
    assert "optim.lr=-1: must be a number" in page
    markdown = (tmp_path / "report.md").read_text()
    for name in re.findall(r"\]\((\S+\.png)\)", markdown):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "results.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    result = json.loads((place / "outputs" / "runs" / "one" / "result.json").read_text())
    assert float(rows["runs/one"]["PSNR, mean"]) == result["val_psnr"]
    with (tmp_path / "table1_0.csv").open() as file:
        parameters = [int(row["parameters"]) for row in csv.DictReader(file)]
    assert sum(parameters) == result["parameters"]


@pytest.mark.slow
def test_report_survives_damage_and_says_so(place, tmp_path):
    copy = tmp_path / "outputs"
    shutil.copytree(place / "outputs" / "runs", copy)
    shutil.copytree(copy / "one", copy / "two")
    shutil.copytree(copy / "one", copy / "three")
    (copy / "one" / "metrics.csv").write_text("epoch,train_loss\n1,abc\n")
    (copy / "two" / "checkpoints" / "best.ckpt").write_bytes(b"another program's")
    (copy / "two" / "result.json").write_text("{")
    (copy / "three" / "samples.png").unlink()
    done = run(
        "report", str(copy), str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"), cwd=tmp_path
    )
    assert done.returncode == 1
    for text in ("metrics.csv: damaged", "result.json cannot be read", "nowhere: no such folder"):
        assert text in done.stderr
        assert text in (tmp_path / "out" / "report.html").read_text() or "nowhere" in text
    assert "Traceback" not in done.stderr
    assert "three" in (tmp_path / "out" / "report.html").read_text()


def test_report_names_the_captures_of_a_score_without_clean_images(tmp_path):
    folder = tmp_path / "unequal"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\n")
    score_of = {"captures": "the second captures", "sigmas": [5.02, 19.8], "ratio": 3.94}
    result = {"status": "finished", "val_psnr_estimate": 31.5, "score_of": score_of}
    (folder / "result.json").write_text(json.dumps(result))
    done = run("report", "unequal", "--out", "page", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page" / "report.html").read_text()
    assert "The score is that of the second captures" in page
    assert "sigma 5.02 and 19.8" in page
    with (tmp_path / "page" / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["score of"] == "the second captures"


@pytest.mark.walk
def test_report_mistakes(tmp_path):
    for arguments, message in (
        (["nowhere"], "error: nowhere: no such folder"),
        (["."], "error: .: holds no runs"),
        ([], "error: the following arguments are required"),
    ):
        done = run("report", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(message)
        assert not (tmp_path / "report").exists()


@pytest.mark.slow
def test_page_in_a_browser(place, tmp_path):
    """No console message, every picture loaded, nothing asked of the network."""
    browser = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if browser is None:
        pytest.skip("no Chromium")
    run("report", "outputs", "--out", str(tmp_path), cwd=place)
    page = tmp_path / "report.html"
    probe = """<script>addEventListener("load", () => { document.title = JSON.stringify({
        pictures: [...document.images].map(i => i.naturalWidth > 0),
        asked: performance.getEntriesByType("resource").map(e => e.name)
            .filter(n => !n.startsWith("data:")),
        wide: document.documentElement.scrollWidth > innerWidth }) })</script></body>"""
    page.write_text(page.read_text().replace("</body>", probe))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=400,800",
        "--enable-logging=stderr",
        "--v=0",
    ]
    command = [browser, *options, "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    seen = json.loads(
        re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1].replace("&quot;", '"')
    )
    assert seen["pictures"]
    assert all(seen["pictures"])
    assert seen["asked"] == []
    assert not seen["wide"]  # readable on a phone: only tables scroll sideways
    assert "CONSOLE" not in done.stderr


@pytest.mark.slow
def test_images_option(tmp_path, place):
    photographs(tmp_path / "photos", 4)
    source = ["--data", "images", "--root", "photos", "--noise", "poisson:peak=30"]
    done = run(
        "evaluate", str(place / "outputs/runs/one"), *source, "--json", "s.json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "s.json").read_text())["scores"]["noisy input"]["images"] == 1


@pytest.mark.slow
def test_evaluate_needs_what_it_scores_alone_and_shows_grey_images_to_a_colour_checkpoint(tmp_path):
    course_files(tmp_path / "course")
    (tmp_path / "course" / "train_data.pkl").unlink()
    done = run("evaluate", "--data", "course", "--root", "course", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("evaluate", "--data", "course", "--root", "course", "--classical", cwd=tmp_path)
    assert done.returncode == 2
    assert "train_data.pkl" in done.stderr
    clean = np.stack([scene(48, 40, i) for i in range(3)])
    np.save(tmp_path / "clean.npy", clean.astype(np.float32))
    np.save(
        tmp_path / "noisy.npy",
        (clean + np.random.default_rng(0).normal(0, 0.1, clean.shape)).astype(np.float32),
    )
    from n2n_lightning.inference.checkpoint import PRETRAINED

    scored = [
        "--data",
        "pairs",
        "--val-noisy",
        "noisy.npy",
        "--clean",
        "clean.npy",
        "--json",
        "s.json",
    ]
    done = run("evaluate", PRETRAINED, *scored, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "s.json").read_text())["scores"]
    assert scores[str(PRETRAINED)]["psnr"] > scores["noisy input"]["psnr"] + 5
