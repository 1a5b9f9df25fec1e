"""The bundled checkpoints."""

from pathlib import Path

import numpy as np
import pytest

from n2n_lightning.inference.checkpoint import PRETRAINED, read_checkpoint
from n2n_lightning.inference.denoiser import load

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
