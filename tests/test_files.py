"""The ground floor: errors of one line, and how each command writes its options in them."""

import pickle

import pytest

from n2n_lightning import denoise, evaluate, prepare
from n2n_lightning.data import PairedImages
from n2n_lightning.files import InputError, one_of, option, spelled
from n2n_lightning.inference.tiling import spans
from n2n_lightning.noise import Pixelate


def test_an_error_knows_the_option_its_value_and_the_reason():
    error = InputError("data.crop", 3, "must be 4 or more")
    assert (error.field, error.value, error.reason) == ("data.crop", 3, "must be 4 or more")
    assert str(error) == "data.crop=3: must be 4 or more"
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.field == "data.crop"
    assert InputError("scan.tif: is truncated").field is None


@pytest.mark.parametrize(
    ("command", "field", "value", "line"),
    [
        (denoise, "tile", 3, "--tile 3"),
        (denoise, "scale", 3.0, "--scale 3"),
        (denoise, "halves", True, "--halves"),
        (denoise, "bad_pixels", "", "--bad-pixels"),
        (denoise, "data.dq_good", "x", "--dq-good x"),
        (denoise, "data.crop", 3, "data.crop=3"),
        (evaluate, "data", "course", "--data course"),
        (evaluate, "data.layout", "NHW", "--layout NHW"),
        (prepare, "data.train_pairs", 0, "--pairs 0"),
        (prepare, "data.val", "there", "--val-photos there"),
        (prepare, "data.root", "there", "photos there"),
    ],
)
def test_each_command_shows_an_option_as_it_takes_it(command, field, value, line):
    with spelled(command.parser().spell):
        assert str(InputError(field, value, "why")) == f"{line}: why"
    joined = f"{field}={value}"
    assert option(field, value) == joined


def test_python_gets_the_spelling_of_python_and_a_command_its_own():
    for make, python, command in (
        (lambda: spans(64, 8, 8, 16), "tile=8: must be", "--tile 8: must be"),
        (lambda: one_of("x", ("keep",), "dtype"), "dtype=x: must be", "--dtype x: must be"),
        (
            lambda: PairedImages("a.tif", dq_good="x"),
            "data.dq_good=x: must be bits",
            "--dq-good x: must be bits",
        ),
    ):
        with pytest.raises(InputError, match=rf"^{python}"):
            make()
        with spelled(denoise.parser().spell), pytest.raises(InputError, match=rf"^{command}"):
            make()
    with (
        spelled(prepare.parser().spell),
        pytest.raises(InputError, match=r"^--block 0: must be a whole number"),
    ):
        Pixelate(0)


def test_scores_that_are_no_numbers_are_null_in_result_json(tmp_path):
    from n2n_lightning.runs.folder import read_result, write_result

    nan, infinity = float("nan"), float("inf")
    write_result(tmp_path, {"val_psnr": nan, "fsc": {"noisy": [infinity, 0.5]}, "epochs": 2})
    text = (tmp_path / "result.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert read_result(tmp_path) == {"val_psnr": None, "fsc": {"noisy": [None, 0.5]}, "epochs": 2}
