"""PSNR without clean images: the estimate, its interval, and runs that are judged by it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from n2n_lightning import noise as noises
from n2n_lightning.data import BatchIndex, PairedImages
from n2n_lightning.metrics.noisy_reference import Estimates, squared_errors, summarise_estimates
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.networks import DnCNN, DRUNet, ResidualUNet
from n2n_lightning.runs.folder import ranking_score
from tests.conftest import run

SMALL = ["model=residual_unet", "model.width=4", "data.batch_size=4", "trainer.accelerator=cpu"]


def clouds(count: int, side: int, draws: torch.Generator, channels: int = 1) -> torch.Tensor:
    """Scenes (N, C, H, W) in 0.05 to 0.95 with power at all scales, of very different contrast."""
    spectrum = torch.fft.rfft2(torch.randn(count, channels, side, side, generator=draws))
    y, x = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    found = torch.fft.irfft2(spectrum / (y**2 + x**2 + 1 / side**2).sqrt(), s=(side, side))
    contrast = 0.3 + 1.4 * torch.rand(count, 1, 1, 1, generator=draws)
    return (0.5 + 0.12 * contrast * found / found.std()).clamp(0.05, 0.95)


def gaussian(clean: torch.Tensor, draws: torch.Generator) -> list[torch.Tensor]:
    return [clean + sigma * torch.randn(clean.shape, generator=draws) for sigma in (0.05, 0.15)]


def poisson(clean: torch.Tensor, draws: torch.Generator) -> list[torch.Tensor]:
    return [torch.poisson(clean * 30, generator=draws) / 30 for _ in range(2)]


def pixelate(clean: torch.Tensor, draws: torch.Generator) -> list[torch.Tensor]:
    kind = noises.Pixelate(block=3)
    return [kind(clean, draws), kind.target(clean, draws)]


def blur(images: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)


def network(kind: type) -> torch.nn.Module:
    """A small network whose result is its own, and yet near its input."""
    torch.manual_seed(0)
    small = {"DRUNet": {"widths": [4, 8], "blocks": [1, 1]}, "DnCNN": {"width": 8, "layers": 4}}
    net = kind(channels=1, **small.get(kind.__name__, {"width": 4})).eval()
    for parameter in net.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    return net


@pytest.mark.parametrize("kind", [DRUNet, DnCNN, ResidualUNet])
@pytest.mark.parametrize("corrupt", [gaussian, poisson, pixelate])
def test_the_estimate_is_the_true_error_on_average(corrupt, kind):
    net, draws = network(kind), torch.Generator().manual_seed(1)
    differences, widths = [], []
    for _ in range(12):
        clean = clouds(10, 48 if corrupt is pixelate else 32, draws)
        with torch.inference_mode():
            captures = corrupt(clean, draws)
            outputs = [net(y) for y in captures]
        reference = noises.Pixelate(block=3).clean(clean) if corrupt is pixelate else clean
        estimate = squared_errors(outputs, captures)
        true = torch.stack([(f - reference).double().square() for f in outputs]).mean(0)
        # of each scene: what the noise alone makes of it
        rest = (estimate - true).flatten(1).mean(1)
        differences.append(psnr(float(estimate.mean())) - psnr(float(true.mean())))
        widths.append(4.34 * float(rest.std()) / len(rest) ** 0.5 / float(true.mean()))
    spread = float(np.mean(widths))
    assert abs(np.mean(differences)) < 0.02 + 3 * spread / len(differences) ** 0.5
    assert np.std(differences) == pytest.approx(spread, rel=0.8)
    assert spread < 0.3  # or nothing was tested


@pytest.mark.walk
@pytest.mark.parametrize("count", [12, 30])
@pytest.mark.parametrize("corrupt", [gaussian, poisson])
def test_ninety_five_per_cent_of_the_intervals_hold_the_expected_error_of_new_scenes(
    corrupt, count
):
    draws = torch.Generator().manual_seed(2)
    many = clouds(4000, 32, draws)
    captures = corrupt(many, draws)
    expected = float(torch.stack([(blur(y) - many).square() for y in captures]).mean())
    hits = 0
    for _ in range(200):
        captures = corrupt(clouds(count, 32, draws), draws)
        found = Estimates()
        found.add(captures, [blur(y) for y in captures])
        low, high = found.interval()
        hits += low <= expected <= high
    assert 180 <= hits <= 198


def test_the_interval_of_a_single_scene_is_over_blocks_of_its_pixels():
    draws = torch.Generator().manual_seed(3)
    hits = 0
    for _ in range(60):
        clean = torch.full((1, 1, 128, 128), 0.5)
        captures = gaussian(clean, draws)
        found = Estimates()
        found.add(captures, [blur(y) for y in captures])
        low, high = found.interval()
        inner = (0.05**2 + 0.15**2) / 2 / 9
        hits += low <= inner * 1.02 <= high  # at the border fewer pixels are averaged
    assert 52 <= hits <= 60
    assert len(found.rows()) > 30


def test_every_capture_of_several_weighs_the_same():
    draws = torch.Generator().manual_seed(4)
    clean = clouds(200, 16, draws)
    captures = [clean + 0.1 * torch.randn(clean.shape, generator=draws) for _ in range(4)]
    outputs = [y * 0.5 if k == 3 else y for k, y in enumerate(captures)]
    true = np.mean([float((f - clean).square().mean()) for f in outputs])
    assert float(squared_errors(outputs, captures).mean()) == pytest.approx(true, rel=0.01)


def test_missing_pixels_do_not_count_and_scenes_weigh_the_same_whatever_their_size():
    draws = torch.Generator().manual_seed(5)
    clean = clouds(40, 32, draws)
    captures = gaussian(clean, draws)
    gone = torch.rand(clean.shape, generator=draws) < 0.3
    lost = [torch.where(gone if k else ~gone & gone, torch.nan, y) for k, y in enumerate(captures)]
    whole, part = Estimates(), Estimates()
    whole.add(captures, [blur(y) for y in captures])
    part.add(lost, [blur(y) for y in captures])
    assert part.error == pytest.approx(whole.error, rel=0.1)
    assert np.isfinite(part.interval()).all()
    mixed = Estimates()
    mixed.add(
        [torch.zeros(1, 1, 64, 64), torch.full((1, 1, 64, 64), 2.0)],
        [torch.zeros(1, 1, 64, 64)] * 2,
    )
    mixed.add([torch.zeros(1, 1, 8, 8)] * 2, [torch.ones(1, 1, 8, 8)] * 2)
    assert mixed.error == pytest.approx(0.5)  # the large scene's is 0, the small one's 1
    unknown = Estimates()
    unknown.add([torch.full((1, 1, 8, 8), torch.nan)] * 2, [torch.ones(1, 1, 8, 8)] * 2)
    assert np.isnan(unknown.error)


def test_volumes():
    clean, found = torch.full((2, 1, 24, 32, 32), 0.5), Estimates()
    true = []
    for seed in range(6):
        captures = gaussian(clean, torch.Generator().manual_seed(seed))
        outputs = [F.avg_pool3d(y, 3, 1, 1, count_include_pad=False) for y in captures]
        found.add(captures, outputs)
        true += [float((f - clean).square().mean()) for f in outputs]
    low, high = found.interval()
    assert found.error - (high - low) < np.mean(true) < found.error + (high - low)
    assert high - low < 0.5 * found.error
    few = Estimates()
    few.add(captures, outputs)
    assert len(few.rows()) > 50


def test_too_few_pixels_are_said_to_be_too_few():
    found = Estimates()
    y = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1, 1).expand(2, 1, 1, 4, 4)
    # the mean of the captures, which is much nearer than any denoiser gets
    found.add(list(y), [y[0] * 0, y[1] * 0])
    summary = summarise_estimates(found)
    assert found.error <= 0
    assert summary["psnr_estimate"] is None
    assert summary["psnr_estimate_interval"] == [None, None]


def test_paired_differences_are_surer_than_the_scores():
    draws = torch.Generator().manual_seed(7)
    clean = clouds(30, 32, draws)
    captures = gaussian(clean, draws)
    one, other = Estimates(), Estimates()
    one.add(captures, [blur(y) for y in captures])
    other.add(captures, [0.9 * blur(y) + 0.1 * y for y in captures])
    summary = summarise_estimates(other, one)
    low, high = summary["difference_interval"]
    wide, wider = summary["psnr_estimate_interval"]
    assert low < summary["difference"] < high
    assert high - low < 0.5 * (wider - wide)


# In training


def own_pairs(
    folder: Path, scenes: int = 8, side: int = 32, captures: int = 2, seed: int = 0
) -> torch.Tensor:
    """captures.npy (N, K, H, W), float, in the folder, and the clean images, (N, 1, H, W)."""
    draws = torch.Generator().manual_seed(seed)
    clean = clouds(scenes, side, draws)
    noisy = clean + 0.1 * torch.randn(scenes, captures, side, side, generator=draws)
    folder.mkdir(exist_ok=True)
    np.save(folder / "captures.npy", noisy.numpy())
    np.save(folder / "clean.npy", clean.numpy())
    return clean


SOURCE = ["data=pairs", "data.noisy=captures.npy", "data.layout=NKHW", "data.val_share=0.5"]


@pytest.mark.slow
def test_the_best_epoch_is_the_one_with_the_least_estimated_error(tmp_path):
    own_pairs(tmp_path)
    swinging = ["optim.lr=0.05", "scheduler=constant", "trainer.max_epochs=6", "data.train_pairs=8"]
    done = run("train", *SOURCE, *SMALL, *swinging, "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    errors = [float(row["val_mse_estimate"]) for row in rows]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["best_epoch"] == errors.index(min(errors)) + 1
    assert result["val_psnr_estimate"] == pytest.approx(-10 * np.log10(min(errors)))
    low, high = result["val_psnr_estimate_interval"]
    assert low < result["val_psnr_estimate"] < high
    best = torch.load(tmp_path / "out" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] + 1 == result["best_epoch"]
    assert f"val_psnr_estimate {float(rows[-1]['val_psnr_estimate']):.2f} dB" in done.stdout
    assert f"{result['val_psnr_estimate']:.2f} dB [" in done.stdout
    assert (tmp_path / "out" / "samples.png").exists()


@pytest.mark.slow
def test_the_estimate_drives_early_stopping_and_schedules(tmp_path):
    own_pairs(tmp_path)
    stop = [
        "+callbacks.stop._target_=pytorch_lightning.callbacks.EarlyStopping",
        "+callbacks.stop.mode=max",
    ]
    stop += [
        "+callbacks.stop.monitor=val_psnr_estimate",
        "+callbacks.stop.patience=1",
        "+callbacks.stop.min_delta=50",
    ]
    plateau = [
        "scheduler=own",
        "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
        "+scheduler.mode=max",
    ]
    plateau += ["+scheduler.patience=0", "+scheduler.threshold=50", "+scheduler.threshold_mode=abs"]
    options = ["trainer.max_epochs=9", "data.train_pairs=8", "hydra.run.dir=out"]
    done = run("train", *SOURCE, *SMALL, *stop, *plateau, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2  # no gain of 50 dB
    assert "lr" in rows[0]


@pytest.mark.walk
def test_a_sweep_is_ranked_by_the_estimate_and_the_report_shows_it(tmp_path):
    own_pairs(tmp_path)
    options = [
        "trainer.max_epochs=2",
        "data.train_pairs=16",
        "optim.lr=0.003,0.05",
        "hydra.sweep.dir=grid",
    ]
    done = run("train", "-m", *SOURCE, *SMALL, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = json.loads((tmp_path / "grid" / "sweep.json").read_text())
    errors = [job["val_mse_estimate"] for job in sweep["jobs"]]
    assert errors == sorted(errors)
    assert sweep["best"] == sweep["jobs"][0]["command"]
    assert "PSNR, estimated" in " ".join(done.stdout.split())
    done = run("report", "grid", "--out", "page", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page" / "report.md").read_text()
    assert "PSNR, estimated" in page
    assert f"{-10 * np.log10(errors[0]):.2f}" in page


def test_what_is_scored_is_never_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_pairs(tmp_path, scenes=6, captures=5)
    data = PairedImages("captures.npy", layout="NKHW", val_share=0.4, crop=None, batch_size=1)
    data.setup()
    values = np.load("captures.npy")
    trained = {
        float(v)
        for e in range(30)
        for v in data.train[BatchIndex(e, 0, torch.arange(4))]["input"][:, 0, 0, 0]
    }
    scored = [
        data.val[BatchIndex(0, 0, torch.arange(len(data.val)))][side]
        for side in ("input", "target")
    ]
    assert trained == {float(v) for v in values[:4, :, 0, 0].ravel()}
    assert {float(v) for side in scored for v in side[:, 0, 0, 0]} == {
        float(v) for v in values[4:, :4, 0, 0].ravel()
    }
    assert len(data.val) == 4  # two disjoint pairs of each of two scenes
    batch = next(iter(data.val_dataloader()))
    assert batch["scene"].tolist() == [0, 0, 1, 1][: len(batch["scene"])]


@pytest.mark.walk
def test_other_scenes_taken_twice_score_what_is_trained(tmp_path):
    own_pairs(tmp_path)
    own_pairs(tmp_path / "others", seed=1, side=24)
    noisy = np.load(tmp_path / "others" / "captures.npy")
    for k, name in enumerate(("a", "b")):
        np.save(tmp_path / f"{name}.npy", noisy[:, k])
    options = [
        "data.val_noisy=a.npy",
        "data.val_target=b.npy",
        "data.layout=auto",
        "data.noisy=c.npy",
        "data.target=d.npy",
    ]
    for k, name in enumerate(("c", "d")):
        np.save(tmp_path / f"{name}.npy", np.load(tmp_path / "captures.npy")[:, k])
    quick = ["data.train_pairs=8", "trainer.max_epochs=1", "hydra.run.dir=out"]
    done = run("train", "data=pairs", *options, *SMALL, *quick, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["data"]["val"] == 8
    assert result["noisy_psnr_estimate"] is not None
    done = run(
        "train",
        "data=pairs",
        "data.noisy=c.npy",
        "data.target=d.npy",
        "data.val_target=b.npy",
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "data.val_target=b.npy" in done.stderr


@pytest.mark.walk
def test_evaluate_without_clean_images(tmp_path):
    clean = own_pairs(tmp_path, scenes=30, side=48)
    noisy = np.load(tmp_path / "captures.npy")
    for name, values in {
        "c": noisy[:15, 0],
        "d": noisy[:15, 1],
        "a": noisy[15:, 0],
        "b": noisy[15:, 1],
    }.items():
        np.save(tmp_path / f"{name}.npy", values)
    np.save(tmp_path / "truth.npy", clean[15:, 0].numpy())
    quick = ["data.train_pairs=32", "trainer.max_epochs=2", "hydra.run.dir=out", "data.scale=1"]
    done = run(
        "train", "data=pairs", "data.noisy=c.npy", "data.target=d.npy", *SMALL, *quick, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    pairs = ["--data", "pairs", "--noisy", "c.npy", "--target", "d.npy", "--val-noisy", "a.npy"]
    files = ["--json", "e.json", "--csv", "e.csv", "--picture", "e.png"]
    done = run(
        "evaluate", "out", *pairs, "--val-target", "b.npy", "--classical", *files, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    estimated = json.loads((tmp_path / "e.json").read_text())["scores"]
    done = run(
        "evaluate",
        "out",
        *pairs,
        "--clean",
        "truth.npy",
        "--classical",
        "--json",
        "t.json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    true = json.loads((tmp_path / "t.json").read_text())["scores"]
    assert estimated.keys() == true.keys()
    for name, row in estimated.items():
        low, high = row["psnr_estimate_interval"]
        assert low < row["psnr_estimate"] < high
        assert abs(row["psnr_estimate"] - true[name]["psnr_total"]) < 0.5, name
    blur = next(row for name, row in estimated.items() if "Gaussian" in name)
    assert blur["difference_interval"][0] < blur["difference"] < blur["difference_interval"][1]
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 16
    done = run(
        "evaluate",
        "out",
        "--data",
        "pairs",
        "--val-noisy",
        "a.npy",
        "--val-target",
        "b.npy",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_merit_is_in_order_below_zero_too():
    assert (
        ranking_score({"val_mse_estimate": -0.02})
        > ranking_score({"val_mse_estimate": -0.01})
        > ranking_score({"val_mse_estimate": 0.01})
    )
