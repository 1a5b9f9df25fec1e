"""What people's files and habits do to it: inputs that programs of this kind tripped over."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import tifffile
import torch
from PIL import Image
from torch.utils.data import DataLoader

from n2n_lightning import load
from n2n_lightning.arrays import bad_pixels, normalization, outliers
from n2n_lightning.data import Images, PairedImages
from n2n_lightning.data.reading import read_scenes
from n2n_lightning.data.reading_files import read_picture
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.inference.options import NoisyArray
from n2n_lightning.networks import DnCNN, ResidualUNet, apply, multiple_of
from n2n_lightning.noise import Gaussian
from n2n_lightning.training.module import Denoiser
from tests.conftest import LIMIT, course_files, linux, photographs, run

EXACT = ["trainer.accelerator=cpu", "trainer.precision=32-true"]
QUICK = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "data.train_pairs=8",
    "data.batch_size=4",
    "model=residual_unet",
    "model.width=4",
]


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs on dark ground, values 0 to 1: (height, width)."""
    draws, (y, x) = np.random.default_rng(seed), np.mgrid[:height, :width]
    image = np.zeros((height, width))
    for _ in range(12):
        cy, cx, size = draws.uniform(0, height), draws.uniform(0, width), draws.uniform(2, 10)
        image += draws.uniform(0.2, 1) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
    return image.clip(0, 1)


def frame(clean: np.ndarray, seed: int, offset: int = 100) -> np.ndarray:
    """A frame of a scientific camera: photons, gain, read noise, black level; uint16."""
    draws = np.random.default_rng(seed)
    return (
        (draws.poisson(clean * 60) * 2.2 + draws.normal(0, 1.6, clean.shape) + offset)
        .round()
        .astype(np.uint16)
    )


def noisy8(clean: np.ndarray, seed: int) -> np.ndarray:
    return (
        (clean * 180 + 30 + np.random.default_rng(seed).normal(0, 20, clean.shape))
        .clip(0, 255)
        .astype(np.uint8)
    )


@pytest.fixture(autouse=True)
def no_noise_from_lightning():
    """Lightning 2.6 calls what torch 2.13 deprecates; train() turns that warning off."""
    import warnings

    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings(
        "ignore",
        ".*(does not have many workers|num_workers|Checkpoint directory|logging interval).*",
    )


@pytest.fixture(scope="module")
def model():
    return load()


def denoised(path: Path, model) -> np.ndarray:
    picture = opened(path)
    with picture.written(path.with_stem(f"{path.stem}-out")) as results:
        for values, result in zip(picture.values, results, strict=True):
            axes, alpha = picture.meaning(values)
            noisy = NoisyArray(values.array, axes, alpha, values.colour, values.nodata_values)
            model.denoise_into(result, noisy)
    return opened(path.with_stem(f"{path.stem}-out")).values[0].array


# One pixel spoils nothing


WILD = {
    "hot": lambda a: a.__setitem__((60, 60), 60_000),
    "moderate": lambda a: a.__setitem__((60, 60), 900),
    "dead": lambda a: a.__setitem__((60, 60), 0),
    "cluster of 4": lambda a: a.__setitem__(np.s_[60:62, 60:62], 60_000),
    "cluster of 9": lambda a: a.__setitem__(np.s_[60:63, 60:63], 30_000),
    "cosmic ray": lambda a: [a.__setitem__((60 + i // 2, 55 + i), 20_000) for i in range(12)],
}


@pytest.mark.parametrize("kind", WILD)
def test_a_wild_pixel_touches_nothing_beyond_its_surroundings(kind, model):
    plain = frame(scene(160, 160), 1)
    spoilt = plain.copy()
    WILD[kind](spoilt)
    before, after = (model.denoise(image).astype(int) for image in (plain, spoilt))
    y, x = np.mgrid[:160, :160]
    changed = (spoilt != plain).nonzero()
    distance = np.min(
        [np.maximum(abs(y - cy), abs(x - cx)) for cy, cx in zip(*changed, strict=True)], 0
    )
    difference = np.abs(after - before)
    assert difference[distance > 16].max() <= 2
    assert difference[distance > 70].max() == 0  # the receptive field of the network
    assert difference[distance > 2].mean() < 0.1


def test_stars_stay_and_hot_pixels_do_not():
    """Points of light two and three pixels wide (full width at half maximum), at any position."""
    draws = np.random.default_rng(0)
    sky = draws.normal(0, 0.01, (1, 1, 400, 400))
    y, x = np.mgrid[:400, :400]
    for i in range(60):
        cy, cx, sigma = draws.uniform(10, 390), draws.uniform(10, 390), (2 + i % 2) / 2.355
        sky[0, 0] += draws.uniform(2, 30) * np.exp(
            -((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma**2)
        )
    image = torch.from_numpy(sky).float()
    assert outliers.outlier_mask(image) is None
    spots = draws.integers(0, 400, (40, 2))
    for cy, cx in spots:
        if abs(float(image[0, 0, cy, cx])) < 0.03:
            image[0, 0, cy, cx] = 20
    found = outliers.outlier_mask(image)
    assert torch.equal(found, image == 20)


@pytest.mark.parametrize("value", [np.nan, np.inf, -9999.0, -3.4028235e38, 1e300, 0.0])
def test_margins_and_missing_pixels_stay_and_the_others_are_as_beside_nan(value, tmp_path, model):
    """Declared by GDAL's tag, or a margin of one value that nobody declared."""
    draws = np.random.default_rng(0)
    radar = (draws.gamma(4, 1, (200, 200)) * (0.05 + 0.2 * scene(200, 200, 9))).astype(
        np.float64 if value == 1e300 else "f4"
    )
    gone = np.zeros(radar.shape, bool)
    gone[:, :40] = gone[170:] = True
    results = []
    for fill in (np.nan, value):
        radar[gone] = fill
        for tags in ([(42113, 2, 0, f"{fill:g}", True)], []):
            tifffile.imwrite(tmp_path / "a.tif", radar, extratags=tags, photometric="minisblack")
            result = denoised(tmp_path / "a.tif", model)
            assert np.array_equal(result[gone], radar[gone], equal_nan=True)
            assert np.isfinite(result[~gone]).all()
            results.append(result[~gone])
    for other in results[1:]:
        assert np.array_equal(other, results[0])
    assert np.abs(results[0] - radar[~gone]).mean() > 0.01


def test_a_scan_with_a_margin_of_minus_2000(model):
    scan = np.random.default_rng(0).normal(40, 20, (128, 128)).round().astype(np.int16)
    y, x = np.mgrid[:128, :128]
    outside = (y - 64) ** 2 + (x - 64) ** 2 > 60**2
    scan[outside] = -2000
    result = model.denoise(scan)
    assert (result[outside] == -2000).all()
    assert result[~outside].std() < scan[~outside].std() / 2
    assert abs(result[~outside].mean() - 40) < 2


def test_zeros_among_photon_counts_are_data():
    counts = np.random.default_rng(0).poisson(0.05, (128, 128, 1)).astype(np.uint16)
    counts[40:80, 40:80] = np.random.default_rng(1).poisson(4, (40, 40, 1))
    assert bad_pixels.margin_value(counts) is None


def camera(folder: Path, offset: int = 100, hot: int = 0) -> dict[str, str]:
    """Twelve pairs and their clean images, as options of PairedImages."""
    draws, cleans = np.random.default_rng(5), [scene(64, 64, i) for i in range(12)]
    folder.mkdir()
    for k, name in enumerate(("noisy", "target")):
        stack = np.stack([frame(clean, 100 * k + i, offset) for i, clean in enumerate(cleans)])
        for image in stack:
            for _ in range(hot):
                image[draws.integers(64), draws.integers(64)] = 60_000
        np.save(folder / f"{name}.npy", stack)
    np.save(
        folder / "clean.npy",
        np.stack([(c * 132 + offset).round() for c in cleans]).astype(np.uint16),
    )
    return {name: str(folder / f"{name}.npy") for name in ("noisy", "target", "clean")}


def test_black_levels_and_hot_pixels_cost_nothing_in_training(tmp_path):
    scores = {}
    for name, options in (("plain", {}), ("offset", {"offset": 1100}), ("hot", {"hot": 2})):
        source = [f"data.{k}={v}" for k, v in camera(tmp_path / name, **options).items()]
        asked = [
            "data=pairs",
            *source,
            "data.scale=4095",
            "data.crop=32",
            "data.batch_size=8",
            "data.train_pairs=256",
        ]
        small = ["model=residual_unet", "model.width=8", "model.levels=2", "optim.lr=0.003", *EXACT]
        done = run(
            "train",
            *asked,
            *small,
            "trainer.max_epochs=4",
            "hydra.run.dir=out/" + name,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        scores[name] = json.loads((tmp_path / "out" / name / "result.json").read_text())
    # to the bit: the level is subtracted
    assert scores["offset"]["train_loss"] == scores["plain"]["train_loss"]
    # clamped at 0 counts
    assert scores["offset"]["val_psnr"] == pytest.approx(scores["plain"]["val_psnr"], abs=0.05)
    found = {name: scores["hot"][name] for name in ("val_psnr", "val_psnr_without_outliers")}
    assert found["val_psnr_without_outliers"] == pytest.approx(scores["plain"]["val_psnr"], abs=0.3)
    assert scores["plain"]["val_psnr"] > scores["plain"]["noisy_psnr"] + 2
    assert all(score["data"]["scale"] == 4095 for score in scores.values())


def test_the_white_of_psnr_does_not_come_from_a_hot_pixel(tmp_path):
    plain, hot = (
        PairedImages(batch_size=2, **camera(tmp_path / n, hot=h)) for n, h in (("a", 0), ("b", 3))
    )
    for data in (plain, hot):
        data.setup()
    assert plain.scale == hot.scale
    assert plain.limits[0] == pytest.approx(hot.limits[0], abs=3)
    assert plain.limits[1] == pytest.approx(hot.limits[1], rel=0.05)
    low, high = normalization.robust_percentiles(
        *normalization.sampled(np.load(hot.noisy)[..., None])
    )
    assert 90 < low < high < 400


# Never a wrong picture


def test_ome_files_that_name_one_another_are_each_their_own_picture(tmp_path, model):
    names = [f"urn:uuid:0000000{t}-0000-0000-0000-000000000000" for t in range(3)]
    planes = "".join(
        f'<TiffData IFD="0" FirstT="{t}" FirstZ="0" FirstC="0" PlaneCount="1">'
        f'<UUID FileName="s{t}.ome.tif">{name}</UUID></TiffData>'
        for t, name in enumerate(names)
    )
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{names[0]}"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="64" '
        'SizeY="64" SizeZ="1" SizeC="1" SizeT="3">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels>'
        "</Image></OME>"
    )
    for t in range(3):
        values = np.full((64, 64), 40 + 80 * t, np.uint8)
        values[::2] += 1
        tifffile.imwrite(
            tmp_path / f"s{t}.ome.tif", values, description=text if t == 0 else None, metadata=None
        )
    for t in range(3):
        before = opened(tmp_path / f"s{t}.ome.tif").values[0].array
        assert before.shape == (64, 64)
        assert abs(before.mean() - 40.5 - 80 * t) < 1
        result = denoised(tmp_path / f"s{t}.ome.tif", model)
        assert abs(result.mean() - 40.5 - 80 * t) < 1


@pytest.mark.parametrize(
    ("photometric", "name"), [("cielab", "CIELAB"), ("separated", "CMYK"), ("icclab", "ICCLAB")]
)
def test_other_colour_models_are_refused(photometric, name, tmp_path):
    channels = 4 if photometric == "separated" else 3
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((16, 16, channels), np.uint8), photometric=photometric
    )
    for read in (opened, read_picture):
        with pytest.raises(InputError, match=f"is a {name} TIFF"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_transparency_stays_in_any_layout_and_is_not_trained_on(planar, kind, tmp_path, model):
    image = np.stack(
        [noisy8(scene(48, 40, i), i) for i in range(3)] + [np.full((48, 40), 200, np.uint8)], -1
    )
    stored = image if planar == "contig" else image.transpose(2, 0, 1)
    options = {"photometric": "rgb", "planarconfig": planar, "extrasamples": [kind]}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    result = denoised(tmp_path / "a.tif", model)
    result = result if planar == "contig" else result.transpose(1, 2, 0)
    assert (result[..., 3] == 200).all()
    assert not np.array_equal(result[..., :3], image[..., :3])
    assert read_picture(tmp_path / "a.tif").shape == (3, 48, 40)


# Layouts people have


def folder_of(folder: Path, images: dict[str, np.ndarray]) -> str:
    for name, image in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return str(folder)


def own(*arguments: str, **options) -> PairedImages:
    data = PairedImages(*arguments, **{"batch_size": 1, "crop": 32, **options})
    data.setup()
    return data


def test_one_pair_and_one_burst_of_a_single_scene(tmp_path):
    clean = scene(200, 100)
    for k in (1, 2):
        tifffile.imwrite(tmp_path / f"scan{k}.tif", noisy8(clean, k))
    data = own(str(tmp_path / "scan1.tif"), str(tmp_path / "scan2.tif"))
    assert data.train.scenes.smallest == (180, 100)
    assert data.val.noisy.shape == (1, 1, 20, 100)
    # never trained on
    assert np.array_equal(data.val.reference[0, 0].numpy(), noisy8(clean, 2)[180:])
    burst = np.stack([noisy8(clean, k) for k in range(5)])
    np.save(tmp_path / "burst.npy", burst)
    data = own(str(tmp_path / "burst.npy"), layout="KHW", val_share=0.5)
    assert data.train.scenes.smallest == data.val.noisy.shape[2:] == (100, 100)
    assert data.train.scenes.captures(torch.tensor([0])).item() == 5
    none = own(str(tmp_path / "burst.npy"), layout="KHW", val_share=0)
    assert none.val is None
    source = ["data=pairs", "data.noisy=burst.npy", "data.layout=KHW", "data.val_share=0"]
    done = run("train", *source, *QUICK, "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "checkpoints" / "last.ckpt").exists()


def test_a_folder_of_stacks_is_a_folder_of_bursts(tmp_path):
    for i in range(4):
        stack = np.stack([noisy8(scene(48, 48, i), 10 * i + k) for k in range(3 + i % 2)])
        tifffile.imwrite(tmp_path / f"view{i}.tif", stack, imagej=True, metadata={"axes": "TYX"})
    scenes = read_scenes(str(tmp_path))
    assert scenes.captures(torch.arange(4)).tolist() == [3, 4, 3, 4]
    assert np.array_equal(scenes.image(1, 3)[0].numpy(), noisy8(scene(48, 48, 1), 13))


def test_scenes_of_several_sizes(tmp_path):
    sizes = [(64, 64), (64, 48), (40, 90), (33, 64)]
    sides = {
        side: {f"im{i}.png": noisy8(scene(*s, i), 10 * i + k) for i, s in enumerate(sizes)}
        for k, side in enumerate("ab")
    }
    a, b = (folder_of(tmp_path / side, images) for side, images in sides.items())
    data = own(a, b, batch_size=4, train_pairs=8, val_share=0.3)
    batch = next(iter(data.train_dataloader()))
    assert batch["input"].shape == batch["target"].shape == (4, 1, 32, 32)
    assert [tuple(v["input"].shape[2:]) for v in data.val_dataloader()] == [(33, 64)]
    Image.fromarray(sides["b"]["im1.png"][:40]).save(tmp_path / "b" / "im1.png")
    with pytest.raises(
        InputError,
        match=r"b/im1\.png: is 1x40x48 uint8, but its partner .*a/im1\.png is 1x64x48 uint8",
    ):
        own(a, b)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cell{:03d}_a", "cell{:03d}_b"),
        ("{}", "{}"),
        ("raw-{}", "second-{}-x"),
        ("s/{}/shot", "s/{}/shot"),
        ("{}.t1", "{}.t2"),
    ],
)
def test_partners_by_the_common_part_of_their_names(first, second, tmp_path):
    images = {i: noisy8(scene(40, 40, i), i) for i in range(1, 12)}
    a = folder_of(tmp_path / "a", {f"{first.format(i)}.png": image for i, image in images.items()})
    b = folder_of(tmp_path / "b", {f"{second.format(i)}.png": image for i, image in images.items()})
    scenes = read_scenes(a, b)
    assert len(scenes.names) == 11
    assert torch.equal(scenes.frames[0], scenes.frames[1])


def test_captures_by_the_last_part_of_their_names(tmp_path):
    images = {
        f"cell{i}_{k}.png": noisy8(scene(40, 40, i), 10 * i + k) for i in range(5) for k in (1, 2)
    }
    scenes = read_scenes(folder_of(tmp_path / "one", images))
    assert len(scenes.names) == 5
    assert np.array_equal(scenes.image(3, 1)[0].numpy(), images["cell3_2.png"])
    # A series of different things is no scene with many captures.
    series = {f"img_{i:02}.png": noisy8(scene(40, 40, i), i) for i in range(9)}
    with pytest.raises(InputError, match="no names that pair"):
        read_scenes(folder_of(tmp_path / "series", series))


def test_clean_images_in_the_layout_of_the_noisy_ones_and_files_that_are_no_captures(tmp_path):
    for i in range(1, 5):
        for k in range(3):
            folder_of(tmp_path / "raw", {f"{i}/{k}.png": noisy8(scene(40, 40, i), 10 * i + k)})
        folder_of(tmp_path / "raw", {f"{i}/avg3.png": noisy8(scene(40, 40, i), 99)})
        folder_of(
            tmp_path / "gt", {f"{i}/avg50.png": (scene(40, 40, i) * 180 + 30).astype(np.uint8)}
        )
    data = own(
        str(tmp_path / "raw"), clean=str(tmp_path / "gt"), exclude="avg*", val_share=0.25, scale=200
    )
    assert data.train.scenes.captures(torch.arange(3)).tolist() == [3, 3, 3]
    assert np.array_equal(
        data.val.reference[0, 0].numpy(), (scene(40, 40, 4) * 180 + 30).astype(np.uint8)
    )
    both = own(str(tmp_path / "raw"), exclude=["avg*", "2/*"])
    assert len(both.train.scenes.names) == 2


def test_blank_tiles_are_left_out_and_named(tmp_path):
    for side, k in (("a", 0), ("b", 1)):
        images = {f"t{i}.png": noisy8(scene(40, 40, i), 10 * i + k) for i in range(8)}
        folder_of(tmp_path / side, images | {"t3.png": np.zeros((40, 40), np.uint8)})
    done = run(
        "train",
        "data=pairs",
        "data.noisy=a",
        "data.target=b",
        *QUICK,
        "hydra.run.dir=out",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "left out: 1 that cannot be learnt from (a/t3.png)" in done.stdout
    assert json.loads((tmp_path / "out" / "result.json").read_text())["data"]["left_out"] == [
        "a/t3.png"
    ]
    blank = {f"{i}.png": np.zeros((40, 40), np.uint8) for i in range(4)}
    with pytest.raises(InputError, match="every image is blank"):
        own(folder_of(tmp_path / "c", blank), folder_of(tmp_path / "d", blank))


def test_photographs_in_folders_and_a_damaged_one_among_many(tmp_path):
    folder = photographs(tmp_path / "photos", 24)
    (folder / "below").mkdir()
    for i in range(12):
        shutil.move(folder / f"photo{i}.png", folder / "below" / f"photo{i}.png")
    (folder / "photo20.png").write_bytes((folder / "photo20.png").read_bytes()[:300])
    data = Images(Gaussian(25), str(folder), train_pairs=8, size=16, batch_size=4)
    data.setup()
    assert data.left_out == [str(folder / "photo20.png")]
    assert len(data.val) + len(data.train.starts) == 23
    for i in (13, 14, 15):
        (folder / f"photo{i}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"photo13\.png: is no PNG file"):
        Images(Gaussian(25), str(folder), train_pairs=8, size=16, batch_size=4).setup()


def test_photographs_are_turned_as_exif_says(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:5, :8] = 250  # the bright corner, top left
    for orientation, corner in {1: (0, 0), 3: (-1, -1), 6: (0, -1), 8: (-1, 0)}.items():
        exif = Image.Exif()
        exif[274] = orientation
        for name in ("a.jpg", "a.png", "a.webp"):
            Image.fromarray(pixels).save(
                tmp_path / name, exif=exif, **({"lossless": True} if "webp" in name else {})
            )
            image = read_picture(tmp_path / name)
            assert image.shape[1:] == ((20, 30) if orientation < 5 else (30, 20))
            assert image[0][corner] > 200, (name, orientation)


# Paths, folders


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["Zürich, run (1) x=y", "it's [a] {b}", "データ", "plus+at@ 100%", "a,b"]
)
def test_paths_as_typed(name, tmp_path):
    for side, k in (("a", 0), ("b", 1)):
        folder_of(
            tmp_path / name / side,
            {f"{i}.png": noisy8(scene(40, 40, i), 10 * i + k) for i in range(6)},
        )
    source = ["data=pairs", f"data.noisy={name}/a", f"data.target={name}/b"]
    done = run("train", *source, *QUICK, f"hydra.run.dir={name}/run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("train", f"resume={name}/run", "trainer.max_epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / name / "run" / "result.json").read_text())
    assert result["epochs"] == 2
    assert (
        f"data.noisy={name}/a" in result["data"]["noisy"] or result["data"]["noisy"] == f"{name}/a"
    )
    done = run(
        "train", "-m", *source, *QUICK, "seed=1,2", f"hydra.sweep.dir={name}/sweep", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / name / "sweep" / "1" / "result.json").unlink()
    done = run("train", "-m", f"sweep.resume={name}/sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / name / "sweep" / "sweep.json").read_text(encoding="utf-8"))[
        "jobs"
    ]
    assert [set(row["parameters"]) for row in rows] == [{"seed"}] * 2


def test_a_list_of_paths_in_a_sweep_is_a_list(tmp_path):
    for name in ("first set", "second set"):
        np.save(
            tmp_path / f"{name}.npy",
            np.random.default_rng(0).integers(0, 255, (6, 2, 1, 40, 40)).astype(np.uint8),
        )
    asked = ["data=pairs", "data.noisy=first set.npy,second set.npy", *QUICK, "hydra.sweep.dir=s"]
    done = run("train", "-m", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "s" / "sweep.json").read_text())["jobs"]
    assert {row["parameters"]["data.noisy"] for row in rows} == {"first set.npy", "second set.npy"}


@pytest.mark.slow
def test_runs_and_sweeps_that_begin_together_have_a_folder_each(tmp_path):
    small = ["data.val_pairs=4", "data.size=8", *QUICK]
    command = [sys.executable, "-m", "n2n_lightning.train"]
    for mode, base in (([], "runs"), (["-m", "seed=1,2"], "sweeps")):
        started = [
            subprocess.Popen(
                [*command, *mode, *small],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for process in started:
            _, errors = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, errors
        folders = list((tmp_path / "outputs" / base).iterdir())
        assert len(folders) == 3
        for folder in folders:
            assert len(list(folder.rglob("result.json"))) == (1 if base == "runs" else 2)
    name = folders[0].relative_to(tmp_path)
    refused = run("train", "-m", "seed=5,6", *small, f"hydra.sweep.dir={name}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "holds the sweep of -m seed=1,2" in refused.stderr


# A LightningModule and networks as people take them


class Narrow(torch.nn.Module):
    """Without padding: sizes must be divisible by 4."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.down, self.up = (
            torch.nn.Conv2d(3, width, 4, 4),
            torch.nn.ConvTranspose2d(width, 3, 4, 4),
        )

    def forward(self, image):
        if image.shape[2] % 4 or image.shape[3] % 4:
            raise RuntimeError("sizes do not match")
        return self.up(self.down(image))


def test_networks_without_padding_work_at_every_size(tmp_path):
    network = Narrow().train()
    network.down.eval()
    assert multiple_of(network, torch.zeros(1, 3, 8, 8)) == 4
    assert network.training
    assert not network.down.training
    assert apply(network, torch.rand(2, 3, 13, 18)).shape == (2, 3, 13, 18)
    with pytest.raises(ValueError, match="returns no image of the size that it is given"):
        apply(torch.nn.Conv2d(3, 3, 3), torch.rand(1, 3, 9, 9))
    photographs(tmp_path / "photos", 12, 61)  # validated whole
    asked = ["data=images", "data.root=photos", "noise=gaussian", "data.size=18", *QUICK[:-1]]
    own_network = ["model=own", "model._target_=tests.test_people.Narrow"]
    done = run("train", *asked, *own_network, "hydra.run.dir=out", cwd=tmp_path, env=REPOSITORY)
    assert done.returncode == 0, done.stderr
    image = np.random.default_rng(0).integers(0, 255, (37, 41, 3), np.uint8)
    assert load(tmp_path / "out", ["tests.test_people"]).denoise(image).shape == image.shape


REPOSITORY = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


def pairs(count: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    clean = torch.rand(count, 3, 1, 1).expand(-1, -1, 16, 16)
    return [
        (image + 0.1 * torch.randn_like(image), image + 0.1 * torch.randn_like(image))
        for image in clean
    ]


def test_own_trainer_own_loader_our_module(tmp_path):
    """docs/how-to/extend.md's fifteen lines, then what people do next."""
    loader = DataLoader(pairs(), batch_size=4)
    module = Denoiser(ResidualUNet(3, width=4, levels=2))
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=2, default_root_dir=tmp_path, **options)
    trainer.fit(module, loader, loader)
    assert len(module.history) == 2
    (scores,) = trainer.validate(module, loader, verbose=False)
    assert scores["val_psnr"] == pytest.approx(module.history[-1]["val_psnr"], abs=1e-4)
    (tested,) = trainer.test(module, loader, verbose=False)
    assert tested["val_psnr"] == scores["val_psnr"]
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    image = torch.rand(1, 3, 21, 17)
    expected = module.eval()(image)
    assert torch.allclose(load(tmp_path / "mine.ckpt")(image), expected, atol=1e-6)
    again = Denoiser.load_from_checkpoint(tmp_path / "mine.ckpt")
    assert torch.allclose(again.eval()(image), expected, atol=1e-6)
    assert len(again.history) == 2
    pl.Trainer(max_epochs=1, default_root_dir=tmp_path, **options).fit(
        again.train(), loader, loader
    )


@pytest.mark.parametrize(
    "asked",
    [
        ["+callbacks.rate._target_=pytorch_lightning.callbacks.LearningRateMonitor"],
        [
            "+trainer.logger._target_=pytorch_lightning.loggers.CSVLogger",
            "+trainer.logger.save_dir=more",
        ],
        ["+trainer.overfit_batches=1"],
        ["+trainer.fast_dev_run=true"],
        [
            "scheduler=own",
            "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
            "+scheduler.mode=max",
        ],
        [
            "scheduler=own",
            "scheduler._target_=torch.optim.lr_scheduler.StepLR",
            "+scheduler.step_size=1",
        ],
        ["optim=own", "optim._target_=torch.optim.SGD", "+optim.momentum=0.9"],
    ],
    ids=lambda asked: asked[0].split("=")[0] + asked[-1].split("=")[-1],
)
def test_callbacks_loggers_schedules_and_optimisers_of_lightning_and_torch(asked, tmp_path):
    course_files(tmp_path / "course")
    quick = [
        "data=course",
        "data.root=course",
        "data.batch_size=6",
        "model=residual_unet",
        "model.width=4",
        "trainer.accelerator=cpu",
    ]
    done = run("train", *quick, *asked, "trainer.max_epochs=2", "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["status"] == "finished"
    if "CSVLogger" in asked[0]:
        assert "val_psnr" in next((tmp_path / "more").rglob("metrics.csv")).read_text()


def test_an_argument_of_the_trainer_that_is_typed_without_a_plus(tmp_path):
    done = run("train", "trainer.fast_dev_run=true", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: trainer.fast_dev_run: is given as +trainer.fast_dev_run=VALUE"
    )


# Small ones


def test_resume_beside_options_that_equal_the_runs_and_another_batch_size(tmp_path):
    course_files(tmp_path / "course", train=24)
    quick = [
        "data=course",
        "data.root=course",
        "data.batch_size=6",
        "model=dncnn",
        "model=residual_unet",
        "model.width=4",
        "trainer.accelerator=cpu",
    ]
    assert (
        run("train", *quick, "trainer.max_epochs=1", "hydra.run.dir=out", cwd=tmp_path).returncode
        == 0
    )
    done = run("train", "model=dncnn", "trainer.max_epochs=2", "resume=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = run("train", "model=unet", "resume=out", cwd=tmp_path)
    assert refused.stderr.startswith("error: model=unet: cannot change when a run goes on")


def test_another_batch_size_inside_an_epoch_goes_on_after_the_same_share(tmp_path):
    from n2n_lightning.data.datasets import Pairs
    from n2n_lightning.data.samplers import BatchSampler, Loader

    images = torch.arange(24.0).view(24, 1, 1, 1)
    first, second = (
        Loader(Pairs(images, images), BatchSampler(24, size, 0, True), 0) for size in (6, 3)
    )
    batches = iter(first)
    for _ in range(3):
        next(batches)
    second.load_state_dict(first.state_dict())
    assert [len(batch["images"]) for batch in second] == [3, 3]
    second.load_state_dict({"epoch": 0, "start": 7, "count": 8})
    first.load_state_dict(second.state_dict())
    assert [len(batch["images"]) for batch in first] == [6]


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


def test_black_and_white_as_told(tmp_path, model):
    image = frame(scene(60, 50), 3, offset=1000)
    np.save(tmp_path / "a.npy", image)
    done = run("denoise", "a.npy", "-o", "b.npy", "--black", "990", "--scale", "1200", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "b.npy"), model.denoise(image, scale=1200, black=990))
    for asked, line in (
        (["--black", "5"], "say with --scale"),
        (["--black", "9", "--scale", "8"], "must be larger than"),
    ):
        done = run("denoise", "a.npy", "-o", "c.npy", *asked, cwd=tmp_path)
        assert done.returncode == 2
        assert line in done.stderr


@pytest.mark.slow
@linux
def test_validation_on_large_images_goes_through_tiles(tmp_path):
    """2048 x 2048 in less memory than the activations of the network alone would take."""
    code = """
import re, torch
import pytorch_lightning as pl
from torch.utils.data import DataLoader
from n2n_lightning.training.module import Denoiser
from n2n_lightning.networks import ResidualUNet
torch.set_num_threads(1)
big = [(torch.rand(1, 2048, 2048), torch.rand(1, 2048, 2048))]
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = pl.Trainer(accelerator="cpu", **quiet)
trainer.validate(Denoiser(ResidualUNet(1)), DataLoader(big), verbose=False)
# ru_maxrss counts the parent, too
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 1200 * 1024


def test_tiles_do_not_change_the_score():
    torch.manual_seed(0)
    network = DnCNN(1, 4, 3, batch_norm=False).eval()
    module = Denoiser(network)
    image = torch.rand(1, 1, 1300, 1310)
    with torch.no_grad():
        assert torch.allclose(module._whole(image), network(image), atol=1e-5)


# What a reader of this code found


def test_sparse_counts_and_clipped_highlights_are_no_margins():
    draws = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256]
    disks = np.zeros((256, 256))
    for i in range(16):
        disks[(y - 32 - 64 * (i // 4)) ** 2 + (x - 32 - 64 * (i % 4)) ** 2 < 100] = 3
    sky = np.where(y < 120, 400, 400 - 8 * (y - 120)) + draws.normal(0, 25, (256, 256))
    for picture in (
        draws.binomial(1, 0.3, (128, 128)).astype(np.float32),
        draws.poisson(0.02, (256, 256)).astype(np.uint16),
        draws.poisson(disks).astype(np.float32),
        sky.clip(0, 255).astype(np.uint8),
        (255 - sky).clip(0, 255).astype(np.uint8),
    ):
        assert bad_pixels.margin_value(picture[..., None]) is None


def test_a_margin_of_one_image_is_data_in_the_others(tmp_path):
    draws = np.random.default_rng(0)
    stacks = [draws.poisson(1, (12, 64, 64)).astype(np.uint16) for _ in range(2)]
    for k, stack in enumerate(stacks):
        stack[0] = draws.poisson(50, (64, 64))
        stack[0, :16] = 0
        np.save(tmp_path / f"{k}.npy", stack)
    data = own(str(tmp_path / "0.npy"), str(tmp_path / "1.npy"))
    assert bad_pixels.margin_value(stacks[0][0][..., None]) == 0
    assert data.nodata_values == ()


@pytest.mark.parametrize(("width", "every"), [(1, 300), (1, 32), (1, 12), (2, 32)])
def test_thin_lines_stay(width, every, model):
    plain = np.random.default_rng(0).normal(1000, 20, (256, 256)).round().astype(np.uint16)
    lines = np.zeros(plain.shape, bool)
    for start in range(20, 256, every):
        lines[start : start + width] = lines[:, start : start + width] = True
    plain[lines] = 30_000
    assert model.denoise(plain)[lines].mean() > 25_000


def test_black_letters_on_white_paper_are_trained_on(tmp_path):
    from PIL import ImageDraw

    page = Image.new("L", (96, 96), 220)
    for row in range(6):
        ImageDraw.Draw(page).text((2, 15 * row), "the quick brown fox", fill=20)
    draws = np.random.default_rng(0)
    clean = np.asarray(page).astype(float)
    for name in "ab":
        noisy = (clean + draws.normal(0, 2, (6, 96, 96))).round().astype(np.uint8)
        np.save(tmp_path / f"{name}.npy", noisy)
    data = own(str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), crop=None)
    data.trainer = type("Trainer", (), {"training": True, "global_rank": 0, "world_size": 1})()
    pair = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert pair["target"].isfinite().all()
    assert np.ptp(pair["input"].numpy()) * data.limits[1] > 180


@pytest.mark.slow
def test_nested_folders_are_in_one_order_and_have_their_own_clean_images(tmp_path):
    for place in ("a/1", "a/2", "b/1", "b/2"):
        seed = 10 * (place[0] == "b") + int(place[2])
        for k in range(2):
            folder_of(
                tmp_path / "noisy",
                {f"{place}/{k}.png": noisy8(scene(40, 40, seed), 100 * seed + k)},
            )
        folder_of(
            tmp_path / "gt", {f"{place}/m.png": (scene(40, 40, seed) * 180 + 30).astype(np.uint8)}
        )
    code = "from n2n_lightning.data.reading import read_scenes; print(read_scenes('noisy').names)"
    options = {"cwd": tmp_path, "capture_output": True, "text": True}
    found = set()
    for seed in "1234":
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, **options
        )
        found.add(done.stdout)
    assert len(found) == 1
    data = own(str(tmp_path / "noisy"), clean=str(tmp_path / "gt"), val_share=0.5)
    assert [Path(name).parent.name for name in data.train.scenes.names] == ["a", "a"]
    assert np.array_equal(
        data.val.reference[0, 0].numpy(), (scene(40, 40, 11) * 180 + 30).astype(np.uint8)
    )
    shutil.rmtree(tmp_path / "gt" / "b")
    (tmp_path / "gt" / "a" / "2" / "m.png").unlink()
    part = own(str(tmp_path / "noisy"), clean=str(tmp_path / "gt"))
    assert np.array_equal(
        part.val.reference[0, 0].numpy(), (scene(40, 40, 1) * 180 + 30).astype(np.uint8)
    )
    assert len(part.train.scenes.names) == 3


def test_clean_images_of_blank_scenes_are_left_out_with_them(tmp_path):
    clean = np.stack([(scene(40, 40, i) * 180 + 30).astype(np.uint8) for i in range(6)])
    noisy = np.stack(
        [np.stack([noisy8(scene(40, 40, i), 10 * i + k) for k in range(2)]) for i in range(6)]
    )[:, :, None]
    noisy[2] = 7
    np.save(tmp_path / "noisy.npy", noisy)
    np.save(tmp_path / "clean.npy", clean[:, None])
    data = own(
        str(tmp_path / "noisy.npy"), clean=str(tmp_path / "clean.npy"), val_share=0.6, scale=255
    )
    assert len(data.train.scenes.names) == 2
    assert np.array_equal(data.val.reference[:, 0].numpy(), clean[3:])


@pytest.mark.parametrize("name", ["2024", "1_0", "1e5", "true"])
def test_names_that_look_like_something_else(name, tmp_path):
    for side in "ab":
        folder_of(
            tmp_path / name / side, {f"{i}.png": noisy8(scene(40, 40, i), i) for i in range(6)}
        )
    shutil.copytree(tmp_path / name / "a", tmp_path / "second")
    shutil.move(tmp_path / name / "a", tmp_path / "moved")
    shutil.rmtree(tmp_path / name)
    shutil.move(tmp_path / "moved", tmp_path / name)
    done = run(
        "train",
        "data=pairs",
        f"data.noisy={name}",
        "data.target=second",
        *QUICK,
        "hydra.run.dir=o",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "o" / "result.json").read_text())["data"]["noisy"] == name


def test_a_constant_picture_stays_about_what_it_is(model):
    for value, kind in ((-300, np.int16), (7, np.uint8), (1000, np.uint16), (-2.5, np.float32)):
        result = model.denoise(np.full((40, 40), value, kind)).astype(float)
        assert np.abs(result - value).max() <= max(1, 0.05 * abs(value)), (
            value,
            result.min(),
            result.max(),
        )


def test_gaps_are_filled_alike_in_any_order_of_memory():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images[..., :20] = torch.nan
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(bad_pixels.inpaint(images), bad_pixels.inpaint(last))


def test_one_photograph_in_an_array_is_a_photograph_in_training_too(tmp_path):
    for name in "ab":
        np.save(
            tmp_path / f"{name}.npy",
            np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8),
        )
    data = own(str(tmp_path / "a.npy"), str(tmp_path / "b.npy"))
    assert (data.channels, len(data.train.scenes.names)) == (3, 1)
    for name in ("1.png", "1.bmp"):
        folder_of(tmp_path / "c", {name: noisy8(scene(40, 40), 1)})
    with pytest.raises(InputError, match="have one name"):
        read_scenes(str(tmp_path / "c"), str(tmp_path / "c"))


class Wider(ResidualUNet.__mro__[1]):
    """A network of one's own, made like those of the package, with options that it hands on."""

    def __init__(self, **options: int):
        super().__init__()
        self.layer = torch.nn.Conv2d(options["channels"], options["channels"], 3, padding=1)

    def body(self, image):
        return self.layer(image)


def test_networks_with_options_handed_on_are_built_again(tmp_path):
    module = Denoiser(Wider(channels=2))
    assert module.spec["model"] == {"_target_": "tests.test_people.Wider", "channels": 2}


def test_lossless_webp_with_a_large_profile_stays_lossless(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, icc_profile=bytes(8000))
    assert opened(tmp_path / "a.webp").options["lossless"]
    Image.fromarray(pixels).save(tmp_path / "b.webp", quality=80)
    assert not opened(tmp_path / "b.webp").options["lossless"]
