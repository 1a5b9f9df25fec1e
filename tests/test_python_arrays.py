"""Arrays of other kinds than plain NumPy, given to load().denoise()."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from n2n_lightning import load
from n2n_lightning.files import InputError
from n2n_lightning.inference import array_types


@pytest.fixture(scope="module")
def model():
    return load()


def ramp() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 20, (64, 64))
    return (np.outer(np.linspace(50, 200, 64), np.ones(64)) + noise).astype(np.float32)


def test_masked_pixels_are_missing_ones_and_the_mask_is_kept(model):
    array = ramp()
    mask = np.zeros(array.shape, bool)
    mask[20:40, 20:40] = True
    mask |= np.random.default_rng(1).random(array.shape) < 0.05
    array[mask] = 1e4
    unknown = array.copy()
    unknown[mask] = np.nan
    result = model.denoise(np.ma.array(array, mask=mask, fill_value=-1))
    assert isinstance(result, np.ma.MaskedArray)
    assert np.array_equal(result.mask, mask)
    assert result.fill_value == -1
    assert np.array_equal(result.data[mask], array[mask])
    np.testing.assert_allclose(result.data[~mask], model.denoise(unknown)[~mask], atol=0.01)
    whole = model.denoise(np.ma.array(ramp()))
    assert whole.mask is np.ma.nomask
    np.testing.assert_allclose(whole.data, model.denoise(ramp()), atol=1e-3)


def test_masked_integers_stay_integers(model):
    array = ramp().astype(np.uint16)
    mask = array > 150
    result = model.denoise(np.ma.array(array, mask=mask))
    assert result.dtype == np.uint16
    assert np.array_equal(result.data[mask], array[mask])
    assert np.array_equal(result.mask, mask)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_units_and_classes_are_kept(model):
    units = pytest.importorskip("astropy.units")
    expected = model.denoise(ramp())
    quantity = model.denoise(ramp() * units.adu)
    assert quantity.unit == units.adu
    np.testing.assert_allclose(quantity.value, expected, atol=1e-3)
    matrix = model.denoise(np.matrix(ramp()))
    assert isinstance(matrix, np.matrix)
    np.testing.assert_allclose(np.asarray(matrix), expected, atol=1e-3)


class Lazy:
    """Stands for an array of another library."""

    def __array__(self, dtype=None, copy=None):
        return ramp()


def of(module: str) -> Lazy:
    return type("Array", (Lazy,), {"__module__": module})()


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (Image.new("L", (64, 64)), "pass np.asarray(image)"),
        (ramp().tolist(), "pass np.asarray(values, np.float32)"),
        (of("dask.array.core"), "array.map_blocks(model.denoise)"),
        (of("xarray.core.dataarray"), "pass array.values"),
        (of("astropy.nddata.ccddata"), "pass np.ma.array(image.data, mask=image.mask)"),
        (of("other"), "pass np.asarray(it)"),
        (ramp() > 100, "values of type bool: .* a mask is no image"),
        (ramp().astype(np.int64), r"values of type int64: .* pass array.astype\(np.float32\)"),
        (ramp().astype(np.complex64), "pass the magnitude"),
        (torch.zeros(64, 64, dtype=torch.bfloat16), r"pass tensor.float\(\)"),
        (np.float32(3), "a single value"),
        (ramp()[0], r"shape \(64,\): an image has two axes or more"),
        (torch.zeros(64), r"shape \(64,\): an image has two axes or more"),
        (np.zeros((0, 64, 64), np.float32), "holds no pixels"),
        (None, "a NoneType: must be a numpy array or a torch tensor"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_a_line_that_says_what_to_pass(array, said, model):
    with pytest.raises(InputError) as refused:
        model.denoise(array)
    assert "\n" not in str(refused.value)
    refused.match(
        said if any(c in said for c in "\\*") else said.replace("(", r"\(").replace(")", r"\)")
    )


def test_an_array_of_a_library_that_hides_a_mask_is_refused():
    class Hidden(np.ndarray):
        mask = np.zeros((4, 4), bool)

    with pytest.raises(InputError, match=r"a Hidden: pass np\.ma\.array\(values, mask=mask\)"):
        array_types.plain(np.zeros((4, 4), np.float32).view(Hidden))


@pytest.mark.parametrize("kind", ["half", "bfloat16", "double"])
def test_a_model_of_other_precision_gives_nearly_the_same(kind, model):
    changed = getattr(copy.deepcopy(model), kind)()
    result = changed.denoise(ramp())
    assert result.dtype == np.float32
    assert np.sqrt(np.mean((result - model.denoise(ramp())) ** 2)) < {"bfloat16": 2}.get(kind, 0.2)


def test_pickles_and_threads(model):
    expected = model.denoise(ramp())
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(again.denoise(ramp()), expected, atol=1e-3)
    with ThreadPoolExecutor(3) as threads:
        for result in threads.map(lambda _: model.denoise(ramp()), range(3)):
            np.testing.assert_allclose(result, expected, atol=1e-3)
