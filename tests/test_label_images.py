"""Label images and masks are no pictures: they are copied, and not trained on."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data, draw

from n2n_lightning.formats.label_images import is_label_image
from tests.conftest import run


def labels(radius: float = 9, shape: tuple[int, int] = (128, 128)) -> np.ndarray:
    """Discs with numbers."""
    draws, found = np.random.default_rng(3), np.zeros(shape, np.uint16)
    for number in range(1, 25):
        found[draw.disk(draws.uniform(10, 118, 2), radius, shape=shape)] = number
    return found


@pytest.mark.parametrize("radius", [4, 9, 15])
def test_labels_and_masks_are_told(radius: float) -> None:
    discs = labels(radius)
    assert is_label_image(discs, "HW")
    assert is_label_image((discs > 0).astype(np.uint8) * 255, "HW")
    assert is_label_image(np.stack([discs, 0 * discs, discs.T]), "NHW")
    assert not is_label_image(discs.astype(np.float32), "HW")


def test_pictures_are_no_labels() -> None:
    draws = np.random.default_rng(0)
    for name in ("camera", "coins", "text", "page", "clock"):
        clean = getattr(data, name)()
        for sigma in (0, 0.3, 1, 5, 20):
            noisy = (
                (clean + draws.normal(0, sigma, clean.shape)).round().clip(0, 255).astype(np.uint8)
            )
            assert not is_label_image(noisy, "HW"), (name, sigma)
            bright = (noisy * 4.0 - 200).clip(0, 255).astype(np.uint8)  # black and white clipped
            assert not is_label_image(bright, "HW"), (name, sigma, "clipped")
    for mean in (0.01, 0.05, 0.3, 1, 3):
        assert not is_label_image(draws.poisson(mean, (200, 200)).astype(np.uint8), "HW"), mean
        cells = mean * (labels() > 0) * 10
        assert not is_label_image(draws.poisson(cells).astype(np.uint8), "HW"), mean
    stars = np.zeros((128, 128))
    stars[tuple(draws.integers(0, 128, (2, 300)))] = 200
    assert not is_label_image(stars.astype(np.uint8), "HW")


@pytest.mark.slow
def test_the_command_copies_them(tmp_path: Path) -> None:
    import tifffile
    from PIL import Image

    discs, draws = labels(), np.random.default_rng(1)
    tifffile.imwrite(tmp_path / "labels.tif", discs, compression="zlib")
    tifffile.imwrite(tmp_path / "bits.tif", discs > 0, photometric="minisblack")
    Image.fromarray(discs > 0).save(tmp_path / "bits.png")
    Image.fromarray(discs > 0).save(tmp_path / "bits.bmp")
    np.save(tmp_path / "bits.npy", discs > 0)
    tifffile.imwrite(
        tmp_path / "photo.tif",
        (data.camera()[:128, :128] + draws.normal(0, 20, (128, 128))).clip(0, 255),
    )
    found = run("denoise", ".", "-o", "../out", cwd=tmp_path)
    assert found.returncode == 0, found.stderr + found.stdout
    assert "labels.tif: a label image, copied" in found.stdout
    for name in ("labels.tif", "bits.tif", "bits.png", "bits.bmp", "bits.npy", "photo.tif"):
        same = (tmp_path / name).read_bytes() == (tmp_path.parent / "out" / name).read_bytes()
        assert same == (name != "photo.tif"), name
    forced = run("denoise", "labels.tif", "-o", "out", "--label-images", "denoise", cwd=tmp_path)
    assert forced.returncode == 0, forced.stderr
    assert (tifffile.imread(tmp_path / "out" / "labels.tif") != discs).any()
