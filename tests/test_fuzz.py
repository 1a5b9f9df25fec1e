"""Files with random damage: every reader returns an image, or one line on what is wrong."""

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from n2n_lightning.data.course import read_course
from n2n_lightning.data.reading_files import read_array
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.inference.denoiser import load
from n2n_lightning.networks import ResidualUNet

PIXELS = np.random.default_rng(559).integers(0, 256, (12, 14, 3), np.uint8)


def _image(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def _tiff(**options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS.astype(np.uint16) * 257, photometric="rgb", **options)
    return file.getvalue()


def _saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _checkpoint() -> bytes:
    model = {
        "_target_": "n2n_lightning.networks.ResidualUNet",
        "width": 2,
        "levels": 2,
        "channels": 3,
    }
    weights = {f"network.{k}": v for k, v in ResidualUNet(3, 2, 2).state_dict().items()}
    return _saved(
        {"state_dict": weights, "n2n_lightning": {"format": 1, "model": model, "scale": None}}
    )


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, noisy=PIXELS[None, None])
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, PIXELS)
    return file.getvalue()


def _hdf5() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as store:
        store.create_dataset("noisy", data=PIXELS.transpose(2, 0, 1)[None], compression="gzip")
    return file.getvalue()


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write(path)
        return path.read_bytes()


def _mrc(path: Path) -> None:
    with mrcfile.new(path) as file:
        file.set_data(PIXELS.astype(np.int16))


def _nifti(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(PIXELS.astype(np.int16), np.eye(4)), path)


def _fits(path: Path) -> None:
    fits.HDUList([fits.PrimaryHDU(PIXELS.astype(np.float32)), fits.ImageHDU(PIXELS[0])]).writeto(
        path
    )


def _picture(path: Path) -> None:
    """Reads a picture and writes it again, as denoise does."""
    picture = opened(path)
    with picture.written(path.with_stem("result")) as results:
        for result, values in zip(results, picture.values, strict=True):
            result[...] = values.array


READERS: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "picture.png": (_image("PNG"), _picture),
    "picture.jpg": (_image("JPEG", quality=90), _picture),
    "picture.tif": (_tiff(), _picture),
    "deflated.tif": (_tiff(compression="zlib"), _picture),
    "picture.npy": (_npy(), _picture),
    "volume.mrc": (_written("a.mrc", _mrc), _picture),
    "volume.nii": (_written("a.nii", _nifti), _picture),
    "volume.nii.gz": (_written("a.nii.gz", _nifti), _picture),
    "sky.fits": (_written("a.fits", _fits), _picture),
    "stack.npz": (_npz(), read_array),
    "stack.h5": (_hdf5(), read_array),
    "stack.tif": (_tiff(), read_array),
    "train_data.pkl": (_saved((torch.zeros(2, 3, 8, 8, dtype=torch.uint8),) * 2), read_course),
    "network.ckpt": (_checkpoint(), load),
}


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Bytes replaced, the end cut off, or a stretch repeated or taken out, anywhere in the file."""
    kind = draw(st.sampled_from(["replace", "replace", "cut", "repeat", "remove"]))
    places = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))

    def spoil(content: bytes) -> bytes:
        spoiled = bytearray(content)
        for share, byte in places:
            at = min(int(share * len(spoiled)), len(spoiled) - 1)
            if kind == "cut":
                return bytes(spoiled[:at])
            if kind == "replace":
                spoiled[at] = byte
            elif kind == "repeat":
                spoiled[at:at] = spoiled[at : at + byte]
            elif len(spoiled) > byte + 1:
                del spoiled[at : at + byte]
        return bytes(spoiled)

    return spoil


@pytest.mark.walk
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=int(os.environ.get("N2N_FUZZ", "60")),
    deadline=None,
    derandomize="N2N_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(spoil=damage())
def test_damaged_files_get_one_line(name, tmp_path, spoil):
    content, read = READERS[name]
    path = tmp_path / name
    path.write_bytes(spoil(content))
    line = str(path)
    try:
        read(path)
    except InputError as error:
        line = str(error)
    assert str(path) in line
    assert "\n" not in line


@pytest.mark.parametrize("name", READERS)
def test_the_undamaged_files_are_read(name, tmp_path):
    content, read = READERS[name]
    (tmp_path / name).write_bytes(content)
    read(tmp_path / name)
