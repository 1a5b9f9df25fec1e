"""The bundled checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch

from n2n_lightning.arrays.layout import Layout
from n2n_lightning.files import InputError
from n2n_lightning.inference.checkpoint import (
    FORMAT,
    PRETRAINED,
    CheckpointInfo,
    network_checkpoint,
    read_checkpoint,
    read_info,
)
from n2n_lightning.inference.denoiser import load
from n2n_lightning.networks import ResidualUNet

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "path", [PRETRAINED, ROOT / "docs" / "checkpoints" / "best.ckpt"], ids=lambda p: p.name
)
def test_bundled_checkpoints_load_and_denoise(path):
    assert read_checkpoint(path)["n2n_lightning"]["model"]["_target_"].startswith(
        "n2n_lightning.networks."
    )
    image = np.random.default_rng(0).normal(0.5, 0.1, (40, 30, 3)).astype(np.float32)
    result = load(path).denoise(image)
    assert np.isfinite(result).all()
    assert result.std() < image.std()


def test_facts_come_back_from_plain_data(tmp_path):
    layout = Layout("NHW", (6, 40, 50))
    known = CheckpointInfo(
        {"_target_": "n2n_lightning.networks.ResidualUNet", "channels": 2, "width": 4},
        range=(100.0, 3000.0),
        unit=(2.0, 0.5),
        context=1,
        layout=layout,
    )
    network = ResidualUNet(channels=2, width=4)
    torch.save(network_checkpoint(network, known), tmp_path / "a.ckpt")
    assert read_info(tmp_path / "a.ckpt") == known
    model = load(tmp_path / "a.ckpt")
    assert model.info == known
    assert (model.channels, model.range, model.context) == (1, (100.0, 3000.0), 1)


def test_checkpoints_without_a_version_are_read(tmp_path):
    content = network_checkpoint(ResidualUNet(channels=1, width=4), CheckpointInfo())
    spec = {"_target_": "n2n_lightning.networks.ResidualUNet", "channels": 1, "width": 4}
    content["n2n_lightning"] = {"model": spec, "scale": 255}
    torch.save(content, tmp_path / "old.ckpt")
    model = load(tmp_path / "old.ckpt")
    assert (model.scale, model.range, model.context, model.layout) == (255.0, (0.0, 255.0), 0, None)


def test_a_newer_version_is_refused():
    stored = {"format": FORMAT + 1, "model": {"_target_": "n2n_lightning.networks.UNet"}}
    with pytest.raises(InputError, match="newer"):
        CheckpointInfo.of(stored, "a.ckpt")
