"""Zarr stores of converters and xarray: image and dimension names, labels, pyramids."""

import numpy as np
import pytest
import zarr
from skimage.transform import downscale_local_mean

from n2n_lightning.data import SingleImages
from n2n_lightning.data.reading_files import read_array
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened


def image(group, names: str = "tczyx", shape=(1, 2, 3, 32, 40), seed: int = 0) -> None:
    """An OME-Zarr image (version 0.4) of two resolutions."""
    array = np.random.default_rng(seed).poisson(50, shape).astype(np.uint16)
    group.create_array("0", data=array, chunks=(1,) * (len(shape) - 2) + shape[-2:])
    group.create_array("1", data=array[..., ::2, ::2])
    scales = [[1.0] * (len(shape) - 2) + [0.5 * 2**k] * 2 for k in (0, 1)]
    datasets = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for k, scale in enumerate(scales)
    ]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": [{"name": n} for n in names], "datasets": datasets}
    ]


def stores(tmp_path):
    """A conversion with one series, and a plate with two fields."""
    converted = zarr.open_group(tmp_path / "converted.zarr", mode="w", zarr_format=2)
    converted.attrs["bioformats2raw.layout"] = 3
    image(converted.create_group("0"))
    converted.create_group("OME").attrs["series"] = ["0"]
    (tmp_path / "converted.zarr/OME/METADATA.ome.xml").write_text("<OME/>")
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "A/1"}], "version": "0.4"}
    well = plate.create_group("A/1")
    for k in range(2):
        image(well.create_group(str(k)), seed=k)
    zarr.consolidate_metadata(str(tmp_path / "plate.zarr"))


def denoised(source: str, out):
    """A store like another one, its values halved."""
    return denoised_with(source, out, opened(source).values[0].array // 2)


def denoised_with(source: str, out, values):
    """A store like another one, with other values."""
    out.mkdir()
    with opened(source).written(out) as (result,):
        result[...] = values
    return zarr.open_group(out, mode="r")


def assert_reduced(group):
    """The smaller resolution is that of another library, of the values of the result."""
    full = group["0"][...].astype(np.float64)
    means = downscale_local_mean(full, (1,) * (len(full.shape) - 2) + (2, 2))
    assert np.array_equal(group["1"][...], np.rint(means))


def test_resolutions_of_no_whole_factor_are_left_out(tmp_path):
    store = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    image(store, "zyx", (3, 32, 40))
    del store["1"]
    store.create_array("1", data=np.zeros((3, 20, 30), np.uint16))
    picture = opened(tmp_path / "a.zarr")
    assert picture.note == "without 1 smaller resolution, of no whole factor"
    group = denoised(str(tmp_path / "a.zarr"), tmp_path / "out.zarr")
    assert sorted(group.array_keys()) == ["0"]
    assert [level["path"] for level in group.attrs["multiscales"][0]["datasets"]] == ["0"]


@pytest.mark.parametrize(
    ("kind", "expected"), [("nearest", [[1, 9], [4, 5]]), ("mean", [[4, 10], [5, 5]])]
)
def test_resolutions_are_reduced_as_the_metadata_says(kind, expected, tmp_path):
    """The last rows and columns are fewer: their own mean counts."""
    store = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    values = np.array([[1, 3, 9], [5, 7, 11], [4, 6, 5]], np.uint16)
    store.create_array("0", data=values)
    store.create_array("1", data=np.zeros((2, 2), np.uint16))
    datasets = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": [2.0**k] * 2}]}
        for k in (0, 1)
    ]
    axes = [{"name": name, "type": "space"} for name in "yx"]
    image_group = {"axes": axes, "datasets": datasets, "type": kind}
    store.attrs["ome"] = {"version": "0.5", "multiscales": [image_group]}
    group = denoised_with(str(tmp_path / "a.zarr"), tmp_path / "out.zarr", values)
    assert group["1"][...].tolist() == expected


@pytest.mark.parametrize("name", ["", ":0", ":/0/", ":0/0"])
def test_the_image_of_a_conversion_is_found_and_its_metadata_kept(name, tmp_path):
    stores(tmp_path)
    source = f"{tmp_path / 'converted.zarr'}{name}"
    picture = opened(source)
    (values,) = picture.values
    assert (values.axes, values.shape, values.spacing) == ("CDHW", (2, 3, 32, 40), (1.0, 0.5, 0.5))
    assert picture.note == ""
    group = denoised(source, tmp_path / "out.zarr")
    assert sorted(group["0"].array_keys()) == ["0", "1"]
    source_group = zarr.open_group(tmp_path / "converted.zarr", mode="r")
    assert dict(group["0"].attrs) == dict(source_group["0"].attrs)
    assert np.array_equal(group["0/0"][...].reshape(values.shape), values.array // 2)
    assert_reduced(group["0"])
    assert (tmp_path / "out.zarr/OME/METADATA.ome.xml").read_text() == "<OME/>"
    assert read_array(source, dims=3)[0].shape == (1, 2, 3, 32, 40)


def test_fields_of_a_plate_go_by_their_names(tmp_path):
    stores(tmp_path)
    place = str(tmp_path / "plate.zarr")
    with pytest.raises(
        InputError, match=r"holds several arrays; name one: plate\.zarr:A/1/0, plate\.zarr:A/1/1$"
    ):
        opened(place)
    with pytest.raises(
        InputError, match=r"has no array 'B/1'; name one: plate\.zarr:A/1/0, plate\.zarr:A/1/1$"
    ):
        opened(f"{place}:B/1")
    group = denoised(f"{place}:A/1/1", tmp_path / "out.zarr")
    assert sorted(group["A/1/0"].array_keys()) == ["0", "1"]  # the other field is whole
    assert sorted(group["A/1/1"].array_keys()) == ["0", "1"]
    assert_reduced(group["A/1/1"])
    source = zarr.open_group(place, mode="r")
    assert np.array_equal(group["A/1/0/0"][...], source["A/1/0/0"][...])
    assert np.array_equal(group["A/1/1/0"][...], source["A/1/1/0"][...] // 2)


def test_a_smaller_resolution_is_read_but_not_written_beside_a_denoised_one(tmp_path):
    stores(tmp_path)
    source = f"{tmp_path / 'plate.zarr'}:A/1/0/1"
    assert opened(source).values[0].shape == (2, 3, 16, 20)
    assert opened(source).values[0].spacing == (1.0, 1.0, 1.0)
    with pytest.raises(
        InputError, match=r"is a smaller resolution of an image; name the image, plate\.zarr:A/1/0"
    ):
        denoised(source, tmp_path / "out.zarr")
    picture = opened(source)
    floats = [np.dtype(np.float32)]
    refused = pytest.raises(InputError, match="is a smaller resolution of an image")
    with refused, picture.written(tmp_path / "out.zarr", floats):  # whatever the type of the result
        pass


def test_labels_are_copied_and_never_denoised(tmp_path):
    store = zarr.open_group(tmp_path / "cells.zarr", mode="w", zarr_format=3)
    image(store, "czyx", (2, 3, 32, 40))
    labels = store.create_group("labels").create_group("nuclei")
    labels.create_array("0", data=np.arange(3 * 32 * 40, dtype=np.uint16).reshape(3, 32, 40))
    source = str(tmp_path / "cells.zarr")
    for name in ("labels/nuclei", "labels/nuclei/0"):
        with pytest.raises(InputError, match="is a label image, which is no picture"):
            opened(f"{source}:{name}")
    group = denoised(source, tmp_path / "out.zarr")
    assert np.array_equal(group["labels/nuclei/0"][...], store["labels/nuclei/0"][...])


@pytest.mark.parametrize("version", [2, 3])
def test_dimensions_go_by_their_names(version, tmp_path):
    store = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    array = np.random.default_rng(0).normal(100, 10, (12, 32, 40)).astype(np.float32)
    named = {}
    for name, names in (
        ("cube", ("band", "lat", "lon")),
        ("run", ("time", "y", "x")),
        ("odd", ("a", "b", "c")),
    ):
        options = {"dimension_names": names} if version == 3 else {}
        named[name] = store.create_array(name, data=array, **options)
        if version == 2:
            named[name].attrs["_ARRAY_DIMENSIONS"] = list(names)
    named["cube"].attrs["_FillValue"] = -9999.0
    store.create_array("lat", data=np.arange(32.0))  # a coordinate, no picture
    axes = {name: opened(f"{tmp_path / 'a.zarr'}:{name}").values[0].axes for name in named}
    assert axes == {"cube": "CHW", "run": "THW", "odd": None}
    assert opened(f"{tmp_path / 'a.zarr'}:cube").values[0].nodata_values == (-9999.0,)
    with pytest.raises(InputError, match=r"name one: a\.zarr:cube, a\.zarr:odd, a\.zarr:run$"):
        opened(tmp_path / "a.zarr")


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_consolidated_metadata_does_not_tell_of_what_was_left_out(tmp_path):
    for version in (2, 3):
        store = zarr.open_group(tmp_path / f"{version}.zarr", mode="w", zarr_format=version)
        group = store.create_group("a")
        image(group)
        del group["1"]
        group.create_array("1", data=np.zeros((1, 2, 3, 20, 30), np.uint16))  # no whole factor
        zarr.consolidate_metadata(str(tmp_path / f"{version}.zarr"))
        group = denoised(f"{tmp_path / f'{version}.zarr'}:a", tmp_path / f"out{version}.zarr")
        assert group.metadata.consolidated_metadata is not None
        assert sorted(group["a"].array_keys()) == ["0"]
        assert [level["path"] for level in group["a"].attrs["multiscales"][0]["datasets"]] == ["0"]


def test_a_named_field_of_unsigned_integers_is_trained_on_as_a_volume(tmp_path):
    stores(tmp_path)
    data = SingleImages(f"{tmp_path / 'plate.zarr'}:A/1/0", batch_size=1)
    data.setup()
    assert (data.dims, data.channels, data.notes[0][:20]) == (3, 2, "volumes of 3 x 32 x ")
    assert data.array_layout is not None
    assert data.array_layout.axes == "CDHW"
