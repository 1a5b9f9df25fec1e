"""Stacks of every kind of file and type, their layouts, pages and axes."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from n2n_lightning.data.reading_files import read_array, read_picture
from n2n_lightning.files import InputError
from tests.conftest import linux
from tests.stacks import numbers, save

TYPES = ["uint8", "uint16", "float32"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("suffix", [".pt", ".pkl", ".npy", ".npz", ".h5", ".tif"])
def test_every_kind_of_file_and_type(suffix, dtype, tmp_path):
    for shape, order in (((5, 12, 9), None), ((5, 12, 9, 3), (0, 3, 1, 2))):
        array = numbers(*shape, dtype=dtype)
        (images,) = read_array(save(tmp_path / f"stack{suffix}", array))
        expected = array[:, None] if order is None else array.transpose(order)
        assert images.shape == expected.shape
        assert str(images.dtype) == f"torch.{dtype}"
        assert np.array_equal(images.numpy(), expected)


def test_layouts(tmp_path):
    array = numbers(6, 4, 8, 9)
    path = save(tmp_path / "a.npy", array)
    captures = read_array(path, "NKHW")
    assert [tuple(c.shape) for c in captures] == [(6, 1, 8, 9)] * 4
    assert np.array_equal(captures[2][:, 0].numpy(), array[:, 2])
    captures = read_array(path, "KNHW")
    assert [tuple(c.shape) for c in captures] == [(4, 1, 8, 9)] * 6
    (images,) = read_array(path)  # NCHW
    assert images.shape == (6, 4, 8, 9)
    burst = read_array(save(tmp_path / "b.tif", numbers(10, 8, 9)), "KHW")
    assert [tuple(c.shape) for c in burst] == [(1, 1, 8, 9)] * 10
    pairs = read_array(save(tmp_path / "c.npy", numbers(6, 2, 3, 8, 9)))
    assert [tuple(c.shape) for c in pairs] == [(6, 3, 8, 9)] * 2
    for layout in ("NHW", "NCHWX", "NNHW", "nchw", ""):
        with pytest.raises(InputError, match=r"data\.layout="):
            read_array(path, layout)
    with pytest.raises(InputError, match="what are the axes"):
        read_array(save(tmp_path / "d.npy", numbers(5, 3, 8, 3)))
    with pytest.raises(InputError, match="what are the axes"):
        read_array(save(tmp_path / "e.npy", numbers(5, 20, 30, 40)))


def test_tiff_axes(tmp_path):
    imagej = numbers(2, 5, 3, 8, 9)  # time, depth, channels
    tifffile.imwrite(tmp_path / "j.tif", imagej, imagej=True, metadata={"axes": "TZCYX"})
    (images,) = read_array(tmp_path / "j.tif")
    assert np.array_equal(images.numpy(), imagej.reshape(10, 3, 8, 9))
    bio_formats = numbers(2, 3, 5, 8, 9)  # time, channels, depth
    options = {"ome": True, "metadata": {"axes": "TCZYX"}, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "t.ome.tif", bio_formats, **options)
    (images,) = read_array(tmp_path / "t.ome.tif")
    assert np.array_equal(images.numpy(), bio_formats.swapaxes(1, 2).reshape(10, 3, 8, 9))
    tifffile.imwrite(
        tmp_path / "z.tif", numbers(4, 8, 9), compression="zlib", photometric="minisblack"
    )
    assert np.array_equal(read_array(tmp_path / "z.tif")[0][:, 0].numpy(), numbers(4, 8, 9))
    tifffile.imwrite(
        tmp_path / "big.tif", numbers(4, 8, 9), byteorder=">", photometric="minisblack"
    )
    assert np.array_equal(read_array(tmp_path / "big.tif")[0][:, 0].numpy(), numbers(4, 8, 9))


@pytest.mark.walk
@linux
@pytest.mark.parametrize("suffix", [".npy", ".h5", ".tif"])
def test_large_files_are_mapped_not_read(suffix, tmp_path):
    path = save(tmp_path / f"large{suffix}", np.zeros((40, 1024, 1024), np.uint8))
    code = f"""
import resource, torch
from n2n_lightning.data.reading_files import read_array
(images,) = read_array({path!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(again,) = read_array({path!r})
assert again.shape == (40, 1, 1024, 1024)
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000, "40 MB were read"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_deep_pictures(tmp_path):
    values = np.array([[0, 1000], [30000, 65535]], np.uint16)
    header = b"P5 2 2 65535\n"
    (tmp_path / "a.pgm").write_bytes(header + values.astype(">u2").tobytes())
    assert read_picture(tmp_path / "a.pgm")[0].tolist() == values.tolist()
    Image.fromarray(values).save(tmp_path / "b.png")
    assert read_picture(tmp_path / "b.png")[0].tolist() == values.tolist()
    np.save(tmp_path / "c.npy", numbers(9, 8, 3))
    assert read_picture(tmp_path / "c.npy").shape == (3, 9, 8)


def test_tiff_written_page_by_page(tmp_path):
    pages = numbers(5, 8, 9)
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        for page in pages:
            file.write(page, photometric="minisblack", metadata=None)
    assert np.array_equal(read_array(tmp_path / "pages.tif")[0][:, 0].numpy(), pages)
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(pages[0], photometric="minisblack", metadata=None)
        file.write(pages[0, :4], photometric="minisblack", metadata=None)
    with pytest.raises(InputError, match="its pages differ in size or type"):
        read_array(tmp_path / "mixed.tif")
