"""The command prepare."""

import pytest
import torch

from n2n_lightning.data import Course
from tests.conftest import photographs, run


@pytest.mark.slow
def test_prepare_writes_what_course_reads(tmp_path):
    photographs(tmp_path / "photos", 10, side=80)
    arguments = [
        "photos",
        "-o",
        "out",
        "--pairs",
        "40",
        "--val",
        "8",
        "--block",
        "3",
        "--size",
        "16",
    ]
    done = run("prepare", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    data = Course(str(tmp_path / "out"), batch_size=10)
    data.setup()
    first, second = data.train.scenes.frames
    assert first.shape == (40, 3, 16, 16)
    assert first.dtype == torch.uint8
    assert not torch.equal(first, second)
    assert not torch.equal(data.val.noisy, data.val.reference)
    again = run("prepare", *arguments, cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr == "error: out/train_data.pkl: exists; --overwrite replaces it\n"
    once_more = run("prepare", *arguments, "--overwrite", cwd=tmp_path)
    assert once_more.returncode == 0
    assert torch.equal(torch.load(tmp_path / "out" / "train_data.pkl")[0], first)


@pytest.mark.walk
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "-o", "out"], "error: photos nowhere: no such folder"),
        (
            ["photos", "-o", "out", "--noise", "gaussian"],
            "error: --noise gaussian: its values do not fit into uint8",
        ),
        (["photos"], "error: the following arguments are required: -o/--out"),
        (["photos", "-o", "out", "--block", "0"], "error: --block 0"),
        (["photos", "-o", "out", "--pairs", "0"], "error: --pairs 0"),
    ],
)
def test_prepare_mistakes(arguments, message, tmp_path):
    photographs(tmp_path / "photos", 3)
    done = run("prepare", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
