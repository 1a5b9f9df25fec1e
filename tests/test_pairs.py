"""Noisy pairs and bursts of users: stacks, folders, splits, scale, and what cannot work."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from n2n_lightning.data import PairedImages
from n2n_lightning.data.reading import read_scenes
from n2n_lightning.data.reading_files import read_picture
from n2n_lightning.files import InputError
from tests.conftest import posix, run
from tests.stacks import folder_of, numbers, save


def test_two_folders_are_matched_by_name(tmp_path):
    names = ["img10", "img2", "img1"]
    a = folder_of(tmp_path / "a", names)
    b = folder_of(tmp_path / "b", names, suffix="tif")
    scenes = read_scenes(a, b)
    assert [n.split("/")[-1] for n in scenes.names] == ["img1.png", "img2.png", "img10.png"]
    assert torch.equal(scenes.frames[0], scenes.frames[1])


def test_scenes_with_numbers_of_captures_that_differ(tmp_path):
    for scene, count in (("s1", 2), ("s2", 4), ("s10", 3)):
        folder_of(tmp_path / "all" / scene, range(count))
    scenes = read_scenes(str(tmp_path / "all"))
    assert [n.split("/")[-1] for n in scenes.names] == ["s1", "s2", "s10"]
    assert scenes.counts.tolist() == [2, 4, 3]
    third = read_picture(tmp_path / "all" / "s10" / "1.png")
    assert torch.equal(scenes.take(torch.tensor([2]), torch.tensor([1]))[0], third)
    part = scenes.part(torch.tensor([0, 2]))
    assert torch.equal(part.take(torch.tensor([1]), torch.tensor([1]))[0], third)


def own(tmp_path, **options):
    data = PairedImages(**{"batch_size": 2, **options})
    data.setup()
    return data


def test_validation_by_a_split_by_clean_images_and_by_noisy_pairs(tmp_path):
    noisy = save(tmp_path / "noisy.npy", numbers(20, 2, 1, 16, 16))
    clean = save(tmp_path / "clean.npy", numbers(20, 1, 16, 16))
    data = own(tmp_path, noisy=noisy)
    assert (data.reference, len(data.val), len(data.train.scenes.names)) == ("noisy", 2, 18)
    data = own(tmp_path, noisy=noisy, clean=clean, val_share=0.25)
    assert (data.reference, len(data.val), len(data.train.scenes.names)) == ("clean", 5, 15)
    assert np.array_equal(data.val.reference.numpy(), np.load(clean)[15:])
    assert np.array_equal(data.val.noisy.numpy(), np.load(noisy)[15:, 0])
    data = own(tmp_path, noisy=noisy, clean=clean, supervised=True)
    assert np.array_equal(data.train.clean.frames[0].numpy(), np.load(clean)[:18])
    other = save(tmp_path / "other.npy", numbers(7, 1, 16, 16))
    data = own(tmp_path, noisy=noisy, clean=other, val_noisy=other)
    assert (len(data.val), len(data.train.scenes.names)) == (7, 20)


def test_scenes_with_a_clean_image_are_kept_back(tmp_path):
    for scene in range(6):
        folder_of(tmp_path / "all" / f"s{scene}", range(2))
    clean = folder_of(tmp_path / "clean", ["s1", "s4"])
    data = own(tmp_path, noisy=str(tmp_path / "all"), clean=clean)
    assert [n.split("/")[-1] for n in data.train.scenes.names] == ["s0", "s2", "s3", "s5"]
    assert torch.equal(data.val.noisy[1], read_picture(tmp_path / "all" / "s4" / "0.png"))
    assert torch.equal(data.val.reference[1], read_picture(tmp_path / "clean" / "s4.png"))


def test_scenes_are_left_to_train_on(tmp_path):
    np.save(tmp_path / "two.npy", numbers(2, 2, 16, 16))
    data = PairedImages(str(tmp_path / "two.npy"), layout="NKHW", val_share=0.9, crop=8)
    data.setup()
    assert len(data.train.scenes) == 1


def test_scale_is_the_white_of_the_data(tmp_path):
    for dtype, largest, scale in (
        ("uint8", 30, 255),
        ("uint16", 200, 255),
        ("uint16", 3000, 4095),
        ("uint16", 60000, 65535),
        ("float32", 1.5, 1),
        ("float32", 900.0, 900),
    ):
        array = numbers(4, 2, 1, 8, 8, dtype=dtype)
        array = array if dtype == "uint8" else (array / array.max() * largest).astype(dtype)
        data = own(tmp_path, noisy=save(tmp_path / f"{dtype}{largest}.npy", array))
        assert data.scale == pytest.approx(scale)
    data = own(tmp_path, noisy=str(tmp_path / "uint8") + "30.npy", scale=50)
    batch = data.on_after_batch_transfer(data.val[next(iter(data.val_dataloader().batches))], 0)
    stored = np.load(tmp_path / "uint830.npy")[-1, 0]
    shown = (
        batch["input"][0, 0].numpy() * data.unit
    )  # the scale of PSNR; what the network sees as black is another thing
    assert data.scale == 50
    assert np.ptp(shown) == pytest.approx(np.ptp(stored) / 50)


def spoilt(tmp_path, kind: str) -> dict:
    """Options of PairedImages that cannot work."""
    good = numbers(6, 2, 1, 16, 16, dtype="float32")
    a, b = tmp_path / "a", tmp_path / "b"
    names = ["one", "two", "three"]
    if kind == "unequal":
        first = save(tmp_path / "x.npy", good[:, 0])
        return {"noisy": first, "target": save(tmp_path / "y.npy", good[:5, 1])}
    if kind == "one capture":
        return {"noisy": save(tmp_path / "x.npy", good[:, 0])}
    if kind == "partner":
        return {"noisy": folder_of(a, names), "target": folder_of(b, names[:2])}
    if kind == "sizes":
        first = folder_of(a, names)
        Image.new("RGB", (13, 12)).save(a / "two.png")
        return {"noisy": first, "target": folder_of(b, names)}
    if kind == "grey among colour":
        first = folder_of(a, names)
        Image.new("L", (12, 12)).save(a / "two.png")
        return {"noisy": first, "target": folder_of(b, names)}
    if kind == "empty":
        a.mkdir()
        return {"noisy": str(a), "target": folder_of(b, names)}
    if kind == "no scenes":
        return {"noisy": folder_of(a, names)}
    if kind == "lonely capture":
        folder_of(a / "scene1", ["1", "2"])
        folder_of(a / "scene2", ["1"])
        return {"noisy": str(a)}
    if kind == "broken":
        first = folder_of(a, names)
        (a / "two.png").write_bytes(b"\x89PNG\r\n rubbish")
        return {"noisy": first, "target": folder_of(b, names)}
    if kind == "clean count":
        return {
            "noisy": save(tmp_path / "x.npy", good),
            "clean": save(tmp_path / "c.npy", good[:3, 0]),
        }
    if kind == "clean name":
        folder_of(a / "scene1", ["1", "2"])
        folder_of(a / "scene2", ["1", "2"])
        return {"noisy": str(a), "clean": folder_of(b, ["scene3"])}
    if kind == "several arrays":
        np.savez(tmp_path / "x.npz", a=good, b=good)
        return {"noisy": str(tmp_path / "x.npz")}
    if kind == "complex":
        return {"noisy": save(tmp_path / "x.npy", good.astype(complex))}
    if kind == "objects":
        np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        return {"noisy": str(tmp_path / "x.npy")}
    if kind == "truncated":
        path = save(tmp_path / "x.h5", good)
        (tmp_path / "x.h5").write_bytes((tmp_path / "x.h5").read_bytes()[:700])
        return {"noisy": path}
    if kind == "missing":
        return {"noisy": str(tmp_path / "nowhere.npy")}
    if kind == "kind":
        (tmp_path / "x.docx").write_text("")
        return {"noisy": str(tmp_path / "x.docx")}
    if kind == "no clean":
        return {"noisy": save(tmp_path / "x.npy", good), "supervised": True}
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("unequal", "y.npy differ in shape: (6, 1, 16, 16) and (5, 1, 16, 16)"),
        ("one capture", "holds one capture of each scene, (6, 1, 16, 16)"),
        ("partner", "three.png: has no partner of the same name in"),
        ("sizes", "two.png is 3x12x13 uint8"),
        ("grey among colour", "two.png: is 1x12x12 uint8, but one.png is 3x12x12 uint8"),
        ("empty", "a: holds no images"),
        ("no scenes", "has no folders in it, one per scene"),
        ("lonely capture", "scene2: holds 1 images; a scene needs two captures or more"),
        ("broken", "two.png: is no PNG file"),
        ("clean count", "c.npy: holds 3 clean images for 6 scenes"),
        ("clean name", "scene3.png: no scene of"),
        ("several arrays", "holds several arrays; name one: x.npz:a, x.npz:b"),
        ("complex", "x.npy: values of type complex128: must be one of uint8"),
        ("objects", "x.npy: damaged, or not the NPY file that its name says"),
        ("truncated", "x.h5: damaged, or not the HDF5 file that its name says"),
        ("missing", "nowhere.npy: no such file"),
        ("kind", "x.docx: is none of .png, .jpg"),
        ("no clean", "target=clean: name the clean images with data.clean="),
    ],
)
def test_own_data_that_cannot_work(kind, message, tmp_path):
    with pytest.raises(InputError) as caught:
        own(tmp_path, **spoilt(tmp_path, kind))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_nan_in_a_target_is_a_missing_pixel(tmp_path):
    array = numbers(6, 2, 1, 16, 16, dtype="float32")
    array[:, 1, :, 3] = np.nan
    path = save(tmp_path / "x.npy", array)
    for swap in (False, True):  # a pixel that the input lacks is filled from around it
        data = own(tmp_path, noisy=path, swap=swap, val_share=0.2)
        data.trainer = type("Trainer", (), {"training": True, "global_rank": 0, "world_size": 1})()
        for batch in data.train_dataloader():
            pair = data.on_after_batch_transfer(batch, 0)
            assert pair["input"].isfinite().all()
            for lacking in pair["target"].isnan()[:, 0]:  # row 3 of the second captures
                assert lacking[3].all() or (swap and not lacking.any())
                assert not lacking[:3].any()


def test_named_arrays(tmp_path):
    first, second = numbers(4, 8, 8), numbers(4, 8, 8) + 1
    np.savez(tmp_path / "x.npz", a=first, b=second)
    scenes = read_scenes(f"{tmp_path}/x.npz:a", f"{tmp_path}/x.npz:b")
    assert np.array_equal(scenes.frames[1][:, 0].numpy(), second)


def test_noisy_and_clean_images_must_be_alike(tmp_path):
    noisy = save(tmp_path / "noisy.npy", numbers(8, 2, 1, 16, 16, dtype="float32"))
    for name, clean in (
        ("type", numbers(8, 1, 16, 16, dtype="uint8")),
        ("channels", numbers(8, 3, 16, 16, dtype="float32")),
        ("size", numbers(8, 1, 12, 16, dtype="float32")),
    ):
        with pytest.raises(InputError, match="they must agree"):
            own(tmp_path, noisy=noisy, clean=save(tmp_path / f"{name}.npy", clean))
    holes = numbers(8, 1, 16, 16, dtype="float32")
    holes[3, 0, 2, 2] = np.nan
    with pytest.raises(InputError, match="clean images must be whole"):
        own(tmp_path, noisy=noisy, clean=save(tmp_path / "holes.npy", holes))


def test_images_below_zero_are_not_clamped(tmp_path):
    noisy = numbers(8, 2, 1, 16, 16, dtype="float32")
    clean = save(tmp_path / "clean.npy", noisy[:, 0] - 0.5)
    assert not own(tmp_path, noisy=save(tmp_path / "a.npy", noisy - 0.5), clean=clean).bounded
    assert own(
        tmp_path, noisy=save(tmp_path / "b.npy", noisy), clean=save(tmp_path / "c.npy", noisy[:, 0])
    ).bounded


QUICK = [
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "model=residual_unet",
    "model.width=4",
    "data.batch_size=4",
]


@pytest.mark.walk
def test_a_16_bit_tiff_stack_end_to_end(tmp_path):
    draws = np.random.default_rng(0)
    clean = draws.random((8, 1, 5, 5)).repeat(8, 2).repeat(8, 3) * 3000
    noisy = (clean + draws.normal(0, 300, (8, 2, 40, 40))).clip(0, 4095).astype(np.uint16)
    tifffile.imwrite(tmp_path / "captures.tif", noisy, photometric="minisblack")
    source = ["data=pairs", "data.noisy=captures.tif", "data.layout=NKHW"]
    done = run("train", *source, "hydra.run.dir=out", *QUICK, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "estimated from noisy images" in done.stdout
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["val_psnr"] is None
    assert result["val_noisy_loss"] > 0
    assert result["data"]["scale"] == 4095
    assert result["data"]["image"] == [1, 40, 40]
    assert result["noisy_psnr_estimate"] == pytest.approx(20 * np.log10(4095 / 300), abs=1.5)
    assert (tmp_path / "out" / "checkpoints" / "best.ckpt").exists()
    state = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)[
        "n2n_lightning"
    ]
    assert (state["scale"], state["model"]["channels"]) == (4095, 1)


@pytest.mark.walk
def test_two_folders_end_to_end(tmp_path):
    a = folder_of(tmp_path / "real", [f"{i:02}" for i in range(6)], shape=(40, 48, 3))
    b = folder_of(tmp_path / "mean", [f"{i:02}" for i in range(6)], shape=(40, 48, 3))
    arguments = [f"data.noisy={a}", f"data.target={b}", f"data.clean={b}", "hydra.run.dir=out"]
    done = run("train", "data=pairs", *arguments, *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "noisy input" in done.stdout


@pytest.mark.walk
@posix
def test_real_camera_noise_end_to_end(tmp_path):
    """Folders as of real cameras: one noisy shot and the mean of many, 512 x 512 PNG."""
    source = os.environ.get("N2N_DATA")
    if not source:
        pytest.skip("N2N_DATA is not set")
    for path in Path(source, "cc15_real").glob("*.png"):
        stem, _, kind = path.stem.rpartition("_")
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{stem}.png").symlink_to(path)
    pair = [
        "data=pairs",
        "data.noisy=real",
        "data.target=mean",
        "data.clean=mean",
        "data.train_pairs=64",
    ]
    done = run("train", *pair, "hydra.run.dir=out", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["data"]["image"] == [3, 512, 512]
    assert 25 < result["noisy_psnr"] < 50
