"""Networks as ONNX, torch.export and models of the BioImage Model Zoo."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from n2n_lightning import load, networks
from n2n_lightning.inference import checkpoint as checkpoint_files
from tests.conftest import LIMIT, run


@pytest.mark.walk
@pytest.mark.parametrize("suffix", ["onnx", "pt2", "ckpt"])
def test_export(suffix, tmp_path):
    out = tmp_path / f"network.{suffix}"
    done = run("export", checkpoint_files.PRETRAINED, out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "largest difference from PyTorch" in done.stdout
    image = torch.rand(3, 3, 50, 31)
    expected = load()(image)
    if suffix == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(out)
        found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        assert session.run(None, {"image": image[:1, :, :1, :2].numpy()})[0].shape == (1, 3, 1, 2)
    elif suffix == "pt2":
        code = (
            "import sys, torch; network = torch.export.load(sys.argv[1]).module()\n"
            "print(tuple(network(torch.rand(1, 3, 5, 64)).shape), 'n2n_lightning' in sys.modules)"
        )
        alone = subprocess.run(
            [sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True
        )
        assert alone.stdout.split("\n")[0] == "(1, 3, 5, 64) False"
        found = torch.export.load(out).module()(image)
    else:
        found = load(out)(image)
        assert set(torch.load(out, weights_only=True)) == {"state_dict", "n2n_lightning"}
    assert torch.allclose(found, expected, atol=1e-5)
    again = run("export", checkpoint_files.PRETRAINED, out, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (
        2,
        f"error: {out}: exists; --overwrite replaces it\n",
    )


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["EncoderDecoder", "UNet", "Noise2NoiseUNet", "DnCNN", "NAFNet", "DRUNet"]
)
def test_export_of_every_network(name, tmp_path):
    network = getattr(networks, name)()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    spec = {"_target_": f"n2n_lightning.networks.{name}", "channels": 3}
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save(
        {"state_dict": state, "n2n_lightning": {"format": 1, "model": spec}}, tmp_path / "a.ckpt"
    )
    done = run("export", "a.ckpt", "a.pt2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    exported = torch.export.load(tmp_path / "a.pt2").module()
    with torch.no_grad():
        for size in ((1, 33, 64), (2, 64, 96), (1, 7, 5)):
            image = torch.rand(size[0], 3, *size[1:])
            assert torch.allclose(exported(image), network.eval()(image), atol=1e-5)


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_a_model_of_the_zoo_does_in_its_own_library_what_the_network_does(dims, tmp_path):
    """Offline, on stored values: black 100, and 900 above it white."""
    network = networks.DRUNet(2, [4, 6], [1, 1], dims=dims)
    spec = {
        "model": {"_target_": "n2n_lightning.networks.DRUNet", **network.arguments},
        "range": [100.0, 900.0],
    }
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "n2n_lightning": {"format": 1, **spec}}, tmp_path / "a.ckpt")
    done = run("export", "a.ckpt", "zoo.zip", "--author", "Ada", "--license", "MIT", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stored values, as they are" in done.stdout
    sides = {2: (110, 128), 3: (36, 40, 40)}[dims]
    stored = np.random.default_rng(0).normal(500, 90, (1, 2, *sides)).astype(np.float32)
    np.save(tmp_path / "noisy.npy", stored)
    theirs = (
        "import bioimageio.core as zoo, numpy as np\n"
        "assert zoo.test_model('zoo.zip', weight_format='onnx').status == 'passed'\n"
        "found = zoo.predict(model='zoo.zip', inputs={'image': np.load('noisy.npy')})\n"
        "np.save('clean.npy', np.asarray(found.members['denoised'].data.data))\n"
        "described = zoo.load_model_description('zoo.zip')\n"
        "assert (described.authors[0].name, str(described.license)) == ('Ada', 'MIT')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", theirs], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    expected = load(tmp_path / "a.ckpt").denoise(
        stored, axes="NCDHW" if dims == 3 else "NCHW", tile=None
    )
    assert np.allclose(np.load(tmp_path / "clean.npy"), expected, atol=0.1)
    done = run("export", "a.ckpt", "other.zip", "--license", "none of these", cwd=tmp_path)
    assert done.returncode == 2
    assert "--license none of these: must be a name of https://spdx.org/licenses" in done.stderr
    assert not (tmp_path / "other.zip").exists()


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "zip"])
def test_the_export_of_a_movie_network_names_its_frames(suffix, tmp_path):
    network = networks.DRUNet(10, [4, 6], [1, 1], out_channels=2)
    info = checkpoint_files.CheckpointInfo(
        model={"_target_": "n2n_lightning.networks.DRUNet", **network.arguments},
        range=(100.0, 900.0),
        context=2,
        sees_middle=True,
    )
    torch.save(checkpoint_files.network_checkpoint(network, info), tmp_path / "a.ckpt")
    out = tmp_path / f"movie.{suffix}"
    done = run("export", "a.ckpt", out, "--author", "Ada", "--license", "MIT", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "(batch, 10, height, width)" in done.stdout
    assert "output: (batch, 2, height, width)" in done.stdout
    shown = "the 2 frames before one, that frame, and the next 2, in their order"
    assert f"{shown}; beyond the ends of a movie its end frame is repeated" in done.stdout
    if suffix != "zip":
        return
    with zipfile.ZipFile(out) as package:
        described = yaml.safe_load(package.read("rdf.yaml"))
        assert shown in package.read("README.md").decode()
    (noisy,) = described["inputs"]
    (denoised,) = described["outputs"]
    names = noisy["axes"][1]["channel_names"]
    assert names[:3] == ["before2_channel0", "before2_channel1", "before1_channel0"]
    assert names[4:6] == ["frame_channel0", "frame_channel1"]
    assert len(names) == 10
    assert denoised["axes"][1]["channel_names"] == ["channel0", "channel1"]
    assert noisy["description"] == f"noisy: {shown}"


@pytest.mark.slow
def test_export_refuses_what_it_does_not_know(tmp_path):
    done = run("export", checkpoint_files.PRETRAINED, "network.exe", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: network.exe: its name should end in .onnx, .pt2, .ckpt, .zip\n",
    )
    done = run("export", "nothing.ckpt", "network.onnx", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: nothing.ckpt: no such file\n")
    assert not list(tmp_path.iterdir())
