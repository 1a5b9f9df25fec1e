"""The course's two files: what is read and what is refused (data/course.py)."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from n2n_lightning.data import Course
from n2n_lightning.data.augmentation import to_float
from n2n_lightning.files import InputError
from n2n_lightning.metrics.psnr_over_batches import psnr_metrics
from tests.conftest import course_files


def test_course_reads_what_the_course_wrote(course):
    data = Course(str(course), batch_size=5, seed=3)
    data.setup()
    first, second = torch.load(course / "train_data.pkl")
    keys = list(data.train_dataloader().batches)
    batch = data.train[keys[0]]
    assert batch["input"].dtype == torch.uint8
    assert torch.equal(batch["input"], first[keys[0].images])
    assert torch.equal(batch["target"], second[keys[0].images])
    ready = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(ready["target"], second[keys[0].images].float() / 255)
    assert sorted(torch.cat([key.images for key in keys]).tolist()) == list(range(24))
    noisy, clean = torch.load(course / "val_data.pkl")
    (val,) = data.val_dataloader()
    assert torch.equal(val["input"], noisy)
    assert torch.equal(val["target"], clean)


def test_course_subset(course):
    data = Course(str(course), train_pairs=10, val_pairs=2, batch_size=5)
    data.setup()
    assert (len(data.train), len(data.val)) == (10, 2)
    assert data.fingerprint["train"] == 10


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil-was-here",)


def write(value, legacy=False):
    def to(path: Path) -> None:
        torch.save(value, path, _use_new_zipfile_serialization=not legacy)

    return to


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def images(*shape, dtype=torch.uint8):
    return torch.zeros(shape, dtype=dtype)


DAMAGED = "{path}: damaged, incomplete, or not written by torch.save"


CODE = "{path}: holds more than tensors, which could run code; it is not read"


BAD_FILES = {
    "missing": (Path.unlink, "{path}: no such file"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "{path}: Is a directory"),
    "empty": (lambda p: p.write_bytes(b""), DAMAGED),
    "truncated": (truncated, DAMAGED),
    "text": (lambda p: p.write_text("hello"), DAMAGED),
    "plain pickle": (lambda p: p.write_bytes(pickle.dumps(Evil())), DAMAGED),
    "code": (write((Evil(), images(4, 3, 8, 8))), CODE),
    "code, old format": (write((Evil(), 1), legacy=True), CODE),
    "one tensor": (
        write(images(4, 3, 8, 8)),
        "{path}: should hold a tuple of two tensors, found Tensor",
    ),
    "three": (write((1, 2, 3)), "{path}: should hold a tuple of two tensors, found 3 items"),
    "list inside": (
        write(([1], [2])),
        "{path}: should hold a tuple of two tensors, found a list in it",
    ),
    "float": (
        write((images(4, 3, 8, 8, dtype=torch.float32),) * 2),
        "{path}: should hold uint8 values 0..255, found float32",
    ),
    "grey": (
        write((images(4, 8, 8),) * 2),
        "{path}: should hold RGB images (N, 3, H, W), found shape (4, 8, 8)",
    ),
    "channels last": (
        write((images(4, 8, 8, 3),) * 2),
        "{path}: should hold RGB images (N, 3, H, W), found shape ",
    ),
    "no images": (
        write((images(0, 3, 8, 8),) * 2),
        "{path}: should hold RGB images (N, 3, H, W), found shape (0, ",
    ),
    "unequal": (
        write((images(4, 3, 8, 8), images(5, 3, 8, 8))),
        "{path}: the two tensors differ in shape: (4, 3, 8, ",
    ),
}


@pytest.mark.parametrize("name", ["train_data.pkl", "val_data.pkl"])
@pytest.mark.parametrize("fault", BAD_FILES)
def test_bad_course_file(course, name, fault, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spoil, message = BAD_FILES[fault]
    spoil(course / name)
    with pytest.raises(InputError) as caught:
        Course(str(course), batch_size=4).setup()
    assert str(caught.value).startswith(message.format(path=course / name))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil-was-here").exists()


def test_bad_course_options(course, tmp_path):
    for options, message in (
        ({"root": str(tmp_path / "nowhere")}, "no such folder"),
        ({"train_pairs": 25}, r"holds 24 pairs, so 1 to 24 would work"),
        ({"train_pairs": 0}, r"data.train_pairs=0"),
        ({"batch_size": 0}, r"data.batch_size=0: must be a whole number, 1 or more"),
        ({"batch_size": 25}, r"there are only 24 training pairs"),
        ({"workers": -1}, r"data.workers=-1: must be a whole number, 0 or more"),
    ):
        with pytest.raises(InputError, match=message):
            Course(**{"root": str(course), "batch_size": 4, **options}).setup()
    course_files(tmp_path / "other", side=16)
    (tmp_path / "other" / "val_data.pkl").rename(course / "val_data.pkl")
    with pytest.raises(InputError, match="training images are 3x32x32, validation images 3x16x16"):
        Course(str(course), batch_size=4).setup()


def test_real_samples_are_scored_as_published():
    """27 real samples of the report's validation set: noisy input 21.11 dB, 19.99 dB in total."""
    folder = os.environ.get("N2N_DATA")
    if not folder:
        pytest.skip("N2N_DATA is not set")
    with np.load(Path(folder) / "course_val_samples.npz") as samples:
        noisy, clean = (to_float(torch.from_numpy(samples[name])) for name in ("noisy", "clean"))
    scores = psnr_metrics("noisy")(noisy, clean)
    assert scores["noisy_psnr"] == pytest.approx(21.11, abs=0.005)
    assert scores["noisy_psnr_total"] == pytest.approx(19.99, abs=0.005)
