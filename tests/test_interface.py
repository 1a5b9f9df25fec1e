"""The Python interface: look, learn, score, load; and the notebook that shows it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import n2n_lightning
from n2n_lightning import fit, inspect_images, load, score
from n2n_lightning.files import InputError
from n2n_lightning.inference.checkpoint import CheckpointInfo
from tests.conftest import LIMIT, run

ROOT = Path(__file__).resolve().parents[1]
QUICK = (
    "model.widths=[4,8]",
    "model.blocks=[1,1]",
    "data.train_pairs=16",
    "data.batch_size=4",
    "trainer.max_epochs=2",
)


def captures(count: int = 4, side: int = 48) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scenes (N, H, W) and two noisy captures of each, 16 bit."""
    draws = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    scenes = np.stack([1000 + 400 * np.sin((x * (k + 1) + y) / 9) for k in range(count)])
    return scenes, [
        (scenes + draws.normal(0, 60, scenes.shape)).round().astype(np.uint16) for _ in range(2)
    ]


@pytest.mark.slow
def test_from_arrays_to_a_denoised_array(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, (first, second) = captures()
    report = inspect_images(first, second)
    assert "4 scenes of 2 captures, 48 x 48" in str(report)
    assert report.numbers["sigma"] == pytest.approx(60, rel=0.1)
    assert report.source == "pairs"
    learnt = fit(first, second, *QUICK, "data.layout=NHW", folder="out", lines=False)
    assert capsys.readouterr().out == ""
    assert learnt.folder == Path("out")
    assert learnt.result["status"] == "finished"
    assert [row["epoch"] for row in learnt.history] == [1, 2]
    clean = learnt.model.denoise(first, axes="NHW")
    assert (clean.shape, clean.dtype) == (first.shape, first.dtype)
    assert np.array_equal(clean, load("out").denoise(first, axes="NHW"))
    done = run("denoise", "--help", cwd=tmp_path)
    assert done.returncode == 0
    # arrays were in files of their own for a while
    assert not {p.suffix for p in Path("out").iterdir()} & {".npy"}
    with pytest.raises(InputError, match="out holds a run"):
        fit(first, second, *QUICK, folder="out")
    alone = fit(
        first, None, *QUICK, "data.layout=NHW", "data.crop=32", "data.val_share=0", lines=False
    )
    assert alone.folder.parent == Path("outputs", "runs")
    assert alone.result["data"]["method"] == "neighbours"


def test_the_score_is_near_the_truth():
    scenes, (first, second) = captures(count=6, side=96)

    class Half(n2n_lightning.inference.denoiser.TrainedDenoiser):
        """Half of the image, half of its mean over a few pixels."""

        def denoise(self, array, axes="auto", outlier_map=False, **_):  # type: ignore[override]
            smooth = torch.nn.functional.avg_pool2d(array[None], 5, 1, 2, count_include_pad=False)[
                0
            ]
            result = (array + smooth) / 2
            return (result, torch.zeros(result.shape)) if outlier_map else result

    model = Half(torch.nn.Identity(), 1, CheckpointInfo(scale=2000.0))
    found = score(model, first, second, layout="NHW")
    images = torch.from_numpy(first.astype(np.float32))[:, None]
    outputs = torch.stack([model.denoise(image) for image in images])[:, 0].numpy()
    truth = -10 * np.log10(np.mean((outputs - scenes) ** 2) / 2000**2)
    low, high = found["psnr_estimate_interval"]
    assert found["psnr_estimate"] == pytest.approx(truth, abs=0.3)
    assert low < found["psnr_estimate"] < high
    assert found["noisy_psnr_estimate"] == pytest.approx(-20 * np.log10(60 / 2000), abs=0.3)


def test_mistakes_are_input_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, (first, _) = captures()
    with pytest.raises(InputError, match="nowhere"):
        inspect_images("nowhere")
    with pytest.raises(InputError, match=r"first captures|as many|differ|shape"):
        fit(first, first[:2], *QUICK, "data.layout=NHW", folder="out")
    assert not (tmp_path / "out" / "result.json").exists()
    # an option, not a second stack
    with pytest.raises(InputError, match=r"^trainer.max_time=3: should be"):
        fit(first, "trainer.max_time=3", folder="out")


def test_names_are_there_and_collide_with_no_command():
    assert set(n2n_lightning.__all__) <= set(dir(n2n_lightning))
    modules = {path.stem for path in (ROOT / "n2n_lightning").glob("*.py")}
    assert not set(n2n_lightning.__all__) & modules
    for name in ("fit", "inspect_images", "load", "score"):
        assert "Args:" in getattr(n2n_lightning, name).__doc__


@pytest.mark.walk
@pytest.mark.slow
def test_the_notebook_runs_from_end_to_end(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    path = ROOT / "docs" / "tutorials" / "tour.ipynb"
    book = nbformat.read(path, 4)
    for cell in book.cells:  # as short as a test may be
        cell.source = cell.source.replace("trainer.max_epochs=5", "trainer.max_epochs=2")
    client = NotebookClient(
        book, timeout=LIMIT, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = json.dumps(book)
    assert len(re.findall("image/png", shown)) == 2
    noisy, denoised = map(
        float, re.search(r"noisy ([\d.]+) dB, denoised ([\d.]+) dB", shown).groups()
    )
    assert denoised > noisy + 3
    stored = path.read_text(encoding="utf-8")
    assert "image/png" in stored  # who looks at it in a browser sees what came of it
    assert str(ROOT) not in stored
