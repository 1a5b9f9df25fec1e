"""Error maps and certificates of a run's validation scenes, for its report."""

import json

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from n2n_lightning import fit
from n2n_lightning.data import Movie, PairedImages, SingleImages
from n2n_lightning.files import InputError
from n2n_lightning.metrics.certificate import FAILS, UNMEASURABLE
from n2n_lightning.report import ReportedRun, write_report
from n2n_lightning.reporting.sample_images import Samples, compared
from n2n_lightning.reporting.validation_certificate import write_validation_certificate

SIDE = 96
SIGMA = 20.0  # of captures, stored units
LEVEL = 900.0  # stored value at the dark end


def scene():
    """Return blobs of several sizes, stored units."""
    draws = np.random.default_rng(0)
    fine = gaussian_filter(draws.normal(size=(SIDE, SIDE)), 1.5)
    coarse = gaussian_filter(draws.normal(size=(SIDE, SIDE)), 6)
    return LEVEL + 300 + 400 * fine + 1500 * coarse


def capture(clean, seed):
    draws = np.random.default_rng(seed)
    return (clean + draws.normal(0, SIGMA, clean.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return folders of two captures of a scene, twice: first, second, and their clean images."""
    folder = tmp_path_factory.mktemp("scenes")
    for name in ("first", "second", "clean"):
        (folder / name).mkdir()
    for number in range(2):
        clean = scene()
        tifffile.imwrite(folder / "first" / f"{number}.tif", capture(clean, 10 + number))
        tifffile.imwrite(folder / "second" / f"{number}.tif", capture(clean, 20 + number))
        tifffile.imwrite(folder / "clean" / f"{number}.tif", clean.astype(np.float32))
    return folder


def smoothed(images):
    """Denoise a batch: each image, smoothed by one pixel."""
    values = gaussian_filter(images.numpy(), (0, 0, 1, 1))
    return torch.from_numpy(values)


def pairs(folder, **options):
    names = (str(folder / "first"), str(folder / "second"))
    data = PairedImages(*names, batch_size=1, crop=32, val_share=0.5, **options)
    data.setup()
    return data


def written(folder, data, denoise, most=4):
    """Return the pages of the certificate, and the layers with their remarks."""
    write_validation_certificate(folder, data, denoise, most)
    pages = json.loads((folder / "certificate.json").read_text())["validation"]["pages"]
    return pages, compared(Samples.load(folder / "certificate.npz"))


def verdicts(page, group):
    return {line["verdict"] for line in page["quantities"] if line["group"] == group}


def mean_error(picture):
    """Return the mean of the layer of errors, stored units."""
    ((layers, remark),) = picture.pages
    white = float(remark.split("error: 0 to ")[1].split(". ")[0].rstrip("."))
    return layers[2].mean() / 255 * white


def error_of_smoothing():
    """Return the root mean square of the true error of `smoothed`, stored units."""
    errors = gaussian_filter(capture(scene(), 1), 1) - scene()
    return np.sqrt(np.mean(np.square(errors)))


def test_pairs_are_compared_across_captures(folder, tmp_path):
    pages, pictures = written(tmp_path, pairs(folder), smoothed)
    assert pages[0]["captures"] == 2
    assert FAILS in verdicts(pages[0], "brightness")  # peaks are flattened
    assert pages[0]["structure"]["captures"] == 2
    assert pictures[0].layers == ["noisy", "denoised", "expected error", "marks"]
    assert mean_error(pictures[0]) == pytest.approx(error_of_smoothing(), rel=0.25)


def test_a_number_of_scenes_bounds_the_cost(folder, tmp_path):
    seen = []

    def counted(images):
        seen.append(images.shape)
        return images

    written(tmp_path, pairs(folder), counted, most=1)
    assert len(seen) == 2  # both captures of one scene


def test_clean_images_say_the_true_error(folder, tmp_path):
    data = pairs(folder, clean=str(folder / "clean"))
    pages, pictures = written(tmp_path, data, lambda images: images)
    assert data.reference == "clean"
    assert pictures[0].layers == ["noisy", "denoised", "true error"]
    assert mean_error(pictures[0]) == pytest.approx(np.sqrt(2 / np.pi) * SIGMA, rel=0.1)
    assert FAILS not in verdicts(pages[0], "regions")
    assert "clean image" in pages[0]["structure_reason"]


def test_a_single_image_is_measured_by_its_noise(folder, tmp_path):
    data = SingleImages(str(folder / "first"), batch_size=1, crop=32, val_share=0.5)
    data.setup()
    pages, pictures = written(tmp_path, data, smoothed)
    assert pages[0]["captures"] == 1
    assert verdicts(pages[0], "brightness") == {UNMEASURABLE}
    assert mean_error(pictures[0]) == pytest.approx(error_of_smoothing(), rel=0.35)


def test_a_movie_has_frames_and_regions_over_time(tmp_path):
    clean = scene()[:48, :48]
    frames = [capture(clean, number) for number in range(20)]
    tifffile.imwrite(tmp_path / "movie.tif", np.stack(frames), metadata={"axes": "TYX"})
    data = Movie(str(tmp_path / "movie.tif"), batch_size=1, train_pairs=8, crop=16)
    data.setup()

    def mean_of_frames(images):
        return images.mean(1, keepdim=True)

    pages, pictures = written(tmp_path, data, mean_of_frames, most=1)
    assert [page["page"] for page in pages] == ["scene 1", "regions over time"]
    # before the first frame it is repeated: its mean has three parts of it and two of others
    expected = SIGMA * np.sqrt(9 + 1 + 1) / 5
    assert mean_error(pictures[0]) == pytest.approx(expected, rel=0.25)
    assert FAILS not in verdicts(pages[1], "regions over time")


def test_a_run_certifies_its_best_weights(folder, tmp_path):
    captures = (folder / "first", folder / "second")
    small = ["data.train_pairs=4", "data.batch_size=2", "data.crop=32", "model.width=4"]
    options = [*small, "trainer.max_epochs=1", "trainer.accelerator=cpu", "model=residual_unet"]
    fit(*captures, *options, "certify=1", folder=tmp_path / "run")
    run = ReportedRun(tmp_path / "run", "run")
    assert write_report([run], [], tmp_path / "page", 8) == []
    report = (tmp_path / "page" / "report.html").read_text()
    assert "Which values the validation scenes keep" in report
    assert "expected error" in report
    assert (tmp_path / "page" / "certificate_0_0.csv").is_file()
    (tmp_path / "run" / "certificate.json").write_text("{}")
    (note,) = write_report([run], [], tmp_path / "page", 8)
    assert note.endswith("certificate.json: damaged; its values are left out")
    with pytest.raises(InputError, match="certify"):
        fit(*captures, *options, "certify=-1", folder=tmp_path / "wrong")
