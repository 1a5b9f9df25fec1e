"""Volumes: 3D networks, windows and tiles; two halves of a specimen, from files to a map."""

import json
from pathlib import Path

import mrcfile
import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from n2n_lightning import load
from n2n_lightning.arrays import axes
from n2n_lightning.data import BatchIndex, PairedImages, SingleImages
from n2n_lightning.data.augmentation import turn
from n2n_lightning.data.self_supervised import Neighbor2Neighbor, Noise2Void
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.metrics.fsc import Correlation, resolution
from n2n_lightning.metrics.noisy_reference import Estimates
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.networks import (
    DnCNN,
    DRUNet,
    Noise2NoiseUNet,
    ResidualUNet,
    multiply_accumulates,
)
from n2n_lightning.training.warm_start import copy
from tests.conftest import run

NETWORKS = {
    "drunet": lambda dims: DRUNet(1, [4, 6], [1, 1], dims=dims),
    "equivariant": lambda dims: DRUNet(1, [4, 6], [1, 1], equivariant=True, dims=dims),
    "residual_unet": lambda dims: ResidualUNet(1, 4, 3, dims=dims),
    "dncnn": lambda dims: DnCNN(1, 6, 4, dims=dims),
    "noise2noise": lambda dims: Noise2NoiseUNet(1, dims=dims),
}


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def specimen(shape: tuple[int, ...] = (24, 40, 44), seed: int = 0) -> np.ndarray:
    """Blobs, float32."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return (4 * (field > field.std()) - 0.6).astype(np.float32)


def halves(folder: Path, sigma: float = 1.5, **options: object) -> np.ndarray:
    """a.mrc and b.mrc, two noisy halves; the clean volume. Around the specimen, a third is 0."""
    clean = specimen(**options)
    for k, name in enumerate("ab"):
        noisy = clean + np.random.default_rng(k + 1).normal(0, sigma, clean.shape).astype(
            np.float32
        )
        noisy[:, :, : clean.shape[2] // 3] = 0
        with mrcfile.new(folder / f"{name}.mrc") as file:
            file.set_data(noisy)
            file.voxel_size = 2.5
    return clean


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, std=0.1) if "weight" in name else torch.nn.init.normal_(
            parameter, std=0.01
        )
    return network.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_take_volumes_of_any_size(name):
    torch.manual_seed(0)
    network = randomised(NETWORKS[name](3))
    for size in ((9, 17, 20), (1, 8, 8), (16, 16, 16)):
        volume = torch.rand(2, 1, *size)
        with torch.no_grad():
            result = network(volume)
        assert result.shape == volume.shape
        assert result.isfinite().all()
    assert multiply_accumulates(network, 1) > 1.5 * multiply_accumulates(NETWORKS[name](2), 1)
    if name == "equivariant":
        with torch.no_grad():
            assert (network(300 * volume + 1000) - (300 * network(volume) + 1000)).abs().max() < 0.1


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_images_do_the_same_in_every_plane(name):
    torch.manual_seed(0)
    flat, deep = randomised(NETWORKS[name](2)), NETWORKS[name](3)
    copy(TrainedDenoiser(flat, 1), deep, 1, "2D")
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        expected = flat(image)
        result = deep.eval()(image[:, :, None].expand(-1, -1, 32, -1, -1))
    assert (
        result[:, :, 12:20] - expected[:, :, None]
    ).abs().max() < 3e-5 * expected.abs().max().clamp(min=1)


def test_dims_that_cannot_be():
    with pytest.raises(ValueError, match=r"model.dims=4: must be 2 \(images\) or 3 \(volumes\)"):
        DRUNet(1, dims=4)


def test_quarter_turns_where_voxels_allow_them():
    volumes = [torch.rand(64, 1, 8, 8, 8, generator=draws(i)) for i in (0, 0)]
    for spacing, planes in (((1.0, 1.0, 1.0), 48), ((3.0, 1.0, 1.0), 16), (None, 16)):
        one, other = turn(volumes, draws(1), spacing=spacing)
        assert torch.equal(one, other)
        different = {
            tuple(volume.flatten()[:64].tolist())
            for volume in turn([volumes[0][:1].expand(999, 1, 8, 8, 8)], draws(2), spacing=spacing)[
                0
            ]
        }
        assert len(different) == planes


def test_windows_lie_in_the_specimen_and_are_the_same_of_both_halves(tmp_path):
    clean = halves(tmp_path, sigma=0.01)
    data = PairedImages(
        str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), crop=[8, 8, 8], val_share=0, batch_size=4
    )
    data.setup()
    assert data.dims == 3
    assert data.spacing == (2.5, 2.5, 2.5)
    assert any("volumes of 24 x 40 x 44" in note for note in data.notes)
    outside = 0.0
    for number in range(20):
        batch = data.train[BatchIndex(0, number, torch.arange(8))]
        assert batch["input"].shape == (8, 1, 8, 8, 8)
        assert (batch["input"] - batch["target"]).abs().max() < 0.2
        outside += float((batch["input"] == 0).float().mean()) / 20
    assert outside < 0.15  # 0.32 of the volume
    assert np.isin(
        np.round(batch["input"][0, 0, 0, 0].numpy(), 0), np.round(np.unique(clean), 0) + 0.0
    ).all()
    assert isinstance(data.train.scenes.frames[0].numpy().base, object)
    whole = PairedImages(str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), dims=2, batch_size=4)
    whole.setup()
    # planes are scenes, two are kept back
    assert (whole.dims, len(whole.train.scenes.names) + 2) == (2, 24)


def test_neighbours_and_masks_in_volumes():
    volume = torch.arange(2 * 6 * 8 * 10, dtype=torch.float32).view(2, 1, 6, 8, 10)
    ready = Neighbor2Neighbor()(volume, volume, draws())
    assert ready["input"].shape == (2, 1, 6, 4, 5)
    apart = (ready["input"] - ready["target"]).abs()
    assert set(apart.unique().tolist()) == {1.0, 10.0}  # beside one another in their plane
    found = set()
    for seed in range(20):
        ready = Neighbor2Neighbor(cubes=True)(volume, volume, draws(seed))
        found |= set((ready["input"] - ready["target"]).abs().unique().tolist())
    assert found == {1.0, 10.0, 80.0}  # also those of the planes above and below
    volume = torch.rand(2, 1, 9, 20, 20, generator=draws())
    for cubes in (False, True):
        ready = Noise2Void(0.05, cubes=cubes)(volume, volume, draws())
        hidden = ready["target"].isfinite()
        assert float(hidden.float().mean()) == pytest.approx(0.05, abs=0.015)
        assert torch.equal(ready["target"][hidden], volume[hidden])
        assert not (ready["input"][hidden] == volume[hidden]).any()
        plane = torch.tensor(
            [
                bool(torch.isin(ready["input"][b, 0, z, y, x], volume[b, 0, z]))
                for b, _, z, y, x in hidden.nonzero()
            ]
        )
        assert plane.all() != cubes


@pytest.mark.slow
def test_denoising_in_tiles_is_denoising(tmp_path):
    torch.manual_seed(0)
    model = TrainedDenoiser(randomised(DRUNet(1, [4, 6], [1, 1], equivariant=True, dims=3)), 1)
    volume = specimen((30, 150, 140)) + np.random.default_rng(0).normal(
        0, 0.3, (30, 150, 140)
    ).astype(np.float32)
    whole = model.denoise(volume, tile=None)
    assert np.abs(model.denoise(volume, tile=64) - whole).max() < 1e-4
    assert (
        np.abs(
            model.denoise(volume.transpose(2, 0, 1), axes="WDH").transpose(1, 2, 0) - whole
        ).max()
        < 1e-5
    )
    assert np.abs(model.denoise(np.stack([volume, volume]), axes="NDHW")[1] - whole).max() < 1e-5
    pages = model.denoise(volume, axes="NHW")  # a volume through the checkpoint
    assert np.abs(pages - whole).max() < 1e-4
    assert model.denoise(volume[0], axes="HW").shape == (150, 140)
    part = volume[:, :40, :40]  # with 48 flips and turns
    assert np.abs(model.denoise(part, tta=True) - model.denoise(part)).max() > 1e-3


def test_fourier_shell_correlation():
    noise = np.random.default_rng(0)
    clean = gaussian_filter(noise.normal(size=(32, 32, 32)), 1.5)
    clean /= clean.std()
    found = Correlation(12)
    found.add(clean + noise.normal(0, 0.5, clean.shape), clean + noise.normal(0, 0.5, clean.shape))
    assert found.values[1] > 0.5
    assert abs(float(np.mean(found.values[9:]))) < 0.2
    assert 0.1 < resolution(found.frequencies, found.values) < 0.4
    same = Correlation(12)
    same.add(clean, clean)
    assert min(same.values) == pytest.approx(1)
    assert resolution(same.frequencies, same.values) == 0.5
    flat = Correlation(8)
    flat.add(clean[0], clean[0])
    assert min(flat.values) == pytest.approx(1)


SMALL = [
    "model=drunet",
    "model.widths=[4,8]",
    "model.blocks=[1,1]",
    "data.batch_size=2",
    "data.train_pairs=8",
]
SMALL += ["trainer.max_epochs=2", "data.crop=[8,16,16]", "trainer.accelerator=cpu"]


@pytest.mark.walk
@pytest.mark.slow
def test_from_two_halves_to_a_denoised_map(tmp_path):
    clean = halves(tmp_path, shape=(24, 48, 60))
    done = run(
        "train",
        "data=pairs",
        "data.noisy=a.mrc",
        "data.target=b.mrc",
        *SMALL,
        "optim.lr=0.01",
        "data.train_pairs=60",
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "volumes of 24 x 48 x 60" in done.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["val_psnr_estimate"] > result["noisy_psnr_estimate"] + 2
    assert result["data"]["image"] == [1, 24, 48, 60]
    assert len(result["fsc"]["frequency"]) == len(result["fsc"]["denoised"])
    assert (tmp_path / "run" / "samples.png").exists()
    assert (tmp_path / "run" / ".hydra" / "config.yaml").exists()
    assert load(tmp_path / "run").dims == 3

    done = run(
        "denoise",
        "--halves",
        "a.mrc",
        "b.mrc",
        "-o",
        "map.mrc",
        "--checkpoint",
        "run",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    done = run("denoise", "a.mrc", "-o", "out", "--checkpoint", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    errors = {}
    for name in ("a.mrc", "out/a.mrc", "map.mrc"):
        with mrcfile.open(tmp_path / name) as file:
            assert file.voxel_size.x == pytest.approx(2.5)
            assert file.data.dtype == np.float32
            assert (file.data[:, :, :20] == 0).all()
            assert float(file.header.rms) == pytest.approx(float(file.data.std()), rel=1e-3)
            errors[name] = float(np.square(file.data - clean)[:, :, 20:].mean())
    assert errors["map.mrc"] < errors["out/a.mrc"] < errors["a.mrc"] / 2
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".halves")]

    asked = [
        "--data",
        "pairs",
        "--val-noisy",
        "a.mrc",
        "--val-target",
        "b.mrc",
        "--fsc",
        "fsc.png",
        "--json",
        "s.json",
    ]
    done = run("evaluate", "run", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "s.json").read_text())["scores"]
    curves = [float(np.mean(scores[name]["fsc"]["correlation"])) for name in ("run", "noisy input")]
    assert curves[0] > curves[1]
    assert (tmp_path / "fsc.png").stat().st_size > 1000
    np.save(tmp_path / "clean.npy", clean)
    asked = ["--data", "pairs", "--val-noisy", "a.mrc", "--clean", "clean.npy", "--json", "c.json"]
    done = run("evaluate", "run", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "c.json").read_text())["scores"]
    assert 0 < scores["run"]["ssim_planes"] <= 1
    assert scores["run"]["ssim"] > scores["noisy input"]["ssim"]
    done = run("report", "run", "--out", "report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "Conv3d 3x3x3"
        in (tmp_path / "report" / "report.md").read_text()
        + (tmp_path / "report" / "table1_0.csv").read_text()
    )
    assert (tmp_path / "report" / "fsc_0.png").exists()


@pytest.mark.slow
def test_one_volume_and_pretrained_planes(tmp_path):
    halves(tmp_path)
    for method in ("neighbours", "masked"):
        done = run(
            "train",
            "data=single",
            "data.noisy=a.mrc",
            f"data.method={method}",
            *SMALL,
            f"hydra.run.dir={method}",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    data = SingleImages(str(tmp_path / "a.mrc"), batch_size=1)
    data.setup()
    assert data.method.cubes  # voxels of 2.5 in all directions
    done = run(
        "train",
        "data=pairs",
        "data.noisy=a.mrc",
        "data.target=b.mrc",
        *SMALL,
        "model.dims=2",
        "data.crop=16",
        "hydra.run.dir=flat",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "flat").dims == 2
    rest = [option for option in SMALL if not option.startswith("model")]
    done = run(
        "train",
        "data=pairs",
        "data.noisy=a.mrc",
        "data.target=b.mrc",
        *rest,
        "init=flat",
        "hydra.run.dir=deep",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "deep").dims == 3
    source = ["data=pairs", "data.noisy=a.mrc", "data.target=b.mrc", *rest, "data.train_pairs=4"]
    done = run("train", *source, "init=pretrained", "hydra.run.dir=pretrained", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "pretrained").dims == 3


@pytest.mark.slow
def test_what_cannot_be(tmp_path):
    halves(tmp_path)
    train = ["data=pairs", "data.noisy=a.mrc", "data.target=b.mrc", "hydra.run.dir=run"]
    for options, line in (
        (["model.dims=3", "data.crop=[8,8]"], "data.crop=[8, 8]: 3 numbers, or one, are needed"),
        (
            ["data.crop=[8,8,2]"],
            "data.crop=[8, 8, 2]: must be a whole number, 4 or more, or [depth, height, width]",
        ),
        (["model=unet"], ""),
    ):
        done = run("train", *train, *SMALL[3:6], *options, cwd=tmp_path)
        if line:
            assert done.returncode == 2
            assert line in done.stderr
        else:  # a network of images takes planes
            assert done.returncode == 0, done.stderr
    for clean, slope in (("c.nii", 1.0), ("d.nii", 2.0)):
        image = nibabel.Nifti1Image(
            np.random.default_rng(0).integers(0, 99, (20, 20, 8)).astype(np.int16), np.eye(4)
        )
        image.header.set_slope_inter(slope, 0)
        nibabel.save(image, tmp_path / clean)
    data = PairedImages(str(tmp_path / "c.nii"), str(tmp_path / "d.nii"), batch_size=2)
    data.setup()  # of different slopes: compared in their unit
    assert data.stored_unit == (1.0, 0.0)
    assert data.scale == pytest.approx(196)
    done = run("denoise", "--halves", "a.mrc", "-o", "x.mrc", cwd=tmp_path)
    assert done.returncode == 2
    assert "two are needed" in done.stderr
    with mrcfile.new(tmp_path / "small.mrc") as file:
        file.set_data(np.zeros((4, 5, 6), np.float32))
    done = run("denoise", "--halves", "a.mrc", "small.mrc", "-o", "x.mrc", cwd=tmp_path)
    assert done.returncode == 1
    assert "differ in shape or type" in done.stderr
    assert not (tmp_path / "x.mrc").exists()


def test_letters_of_volumes():
    assert axes.in_space("NHWC") == "DHWC"
    assert axes.in_space("NNHW") == "NNHW"
    array = np.zeros((3, 4, 5, 6))
    assert axes.as_pages(array, "CDHW", 3).shape == (4, 5, 6, 3)
    assert axes.as_pages(array, "THWC"[:4], 3).shape == (3, 1, 4, 5, 6)
    assert [c.shape for c in axes.as_captures(torch.zeros(2, 3, 4, 5), "KDHW", 3)] == [
        (1, 1, 3, 4, 5)
    ] * 2


@pytest.mark.slow
def test_the_estimate_of_volumes_is_the_error_to_a_twentieth_of_a_decibel():
    torch.manual_seed(0)
    network = randomised(DRUNet(1, [4, 6], [1, 1], equivariant=True, dims=3))
    found, true = Estimates(), []
    for seed in range(6):
        clean = torch.from_numpy(specimen((32, 64, 64), seed))[None, None] / 4
        captures = [
            clean + 0.2 * torch.randn(clean.shape, generator=draws(100 * seed + k)) for k in (1, 2)
        ]
        with torch.no_grad():
            outputs = [
                0.3 * capture + 0.7 * torch.nn.functional.avg_pool3d(capture, 3, 1, 1)
                for capture in captures
            ]
            outputs = [output + 0.01 * network(output) for output in outputs]
        found.add(captures, outputs, [seed])
        true += [float((output - clean).square().mean()) for output in outputs]
    assert psnr(found.error) == pytest.approx(psnr(float(np.mean(true))), abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "pt2", "ckpt"])
def test_a_network_of_volumes_is_exported(suffix, tmp_path):
    torch.manual_seed(0)
    network = randomised(DRUNet(1, [4, 6], [1, 1], equivariant=True, dims=3))
    spec = {"_target_": "n2n_lightning.networks.DRUNet", **network.arguments}
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save(
        {"state_dict": state, "n2n_lightning": {"format": 1, "model": spec}}, tmp_path / "a.ckpt"
    )
    done = run("export", "a.ckpt", f"b.{suffix}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "depth, height, width" in done.stdout
    assert (tmp_path / f"b.{suffix}").stat().st_size > 1000
