"""The training module: its scores and schedules, and a trainer of Lightning around it."""

import doctest

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch.utils.data import DataLoader

from n2n_lightning import load
from n2n_lightning.metrics import noisy_reference
from n2n_lightning.metrics.psnr_over_batches import psnr_metrics
from n2n_lightning.networks import ResidualUNet
from n2n_lightning.training.module import Denoiser
from n2n_lightning.training.schedulers import warmup_cosine
from tests.captures import no_noise_from_lightning  # noqa: F401


def test_both_psnr_definitions_agree_with_skimage():
    draws = torch.Generator().manual_seed(0)
    clean = torch.rand(7, 3, 16, 16, generator=draws)
    noisy = clean + torch.rand(7, 1, 1, 1, generator=draws) * torch.randn(
        clean.shape, generator=draws
    )
    metrics = psnr_metrics("val")
    # batches of 3, 3 and 1: no batch may weigh more than its images
    for part in torch.arange(7).split(3):
        metrics.update(noisy[part], clean[part])
    score = metrics.compute()
    each = [
        peak_signal_noise_ratio(c.numpy(), n.numpy(), data_range=1.0)
        for c, n in zip(clean, noisy, strict=True)
    ]
    total = peak_signal_noise_ratio(clean.numpy(), noisy.numpy(), data_range=1.0)
    assert score["val_psnr"] == pytest.approx(np.mean(each), abs=1e-4)
    assert score["val_psnr_total"] == pytest.approx(total, abs=1e-4)
    assert score["val_psnr"] > score["val_psnr_total"] + 0.5


def test_psnr_sees_brightness():
    clean = torch.rand(2, 3, 8, 8)
    assert psnr_metrics("val")(clean + 0.1, clean)["val_psnr"] == pytest.approx(20.0, abs=1e-3)


def test_doctest():
    assert doctest.testmod(noisy_reference).attempted > 0
    assert doctest.testmod(noisy_reference).failed == 0


def rates(**options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = warmup_cosine(optimizer, total_steps=100, **options)
    found = []
    for _ in range(100):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_schedules():
    assert rates(decay=0) == [1.0] * 100
    ramp = rates(decay=0.5)
    assert ramp[:51] == [1.0] * 51
    assert ramp[75] == pytest.approx(0.5)
    assert 0 < ramp[99] < 0.01
    warm = rates(warmup=0.1, decay=0.9)
    assert warm[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert warm[55] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="add up to 1"):
        rates(warmup=0.6, decay=0.6)


def pairs(count: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    clean = torch.rand(count, 3, 1, 1).expand(-1, -1, 16, 16)
    return [
        (image + 0.1 * torch.randn_like(image), image + 0.1 * torch.randn_like(image))
        for image in clean
    ]


def test_own_trainer_own_loader_our_module(tmp_path):
    """docs/how-to/extend.md's fifteen lines, then what people do next."""
    loader = DataLoader(pairs(), batch_size=4)
    module = Denoiser(ResidualUNet(3, width=4, levels=2))
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=2, default_root_dir=tmp_path, **options)
    trainer.fit(module, loader, loader)
    assert len(module.history) == 2
    (scores,) = trainer.validate(module, loader, verbose=False)
    assert scores["val_psnr"] == pytest.approx(module.history[-1]["val_psnr"], abs=1e-4)
    (tested,) = trainer.test(module, loader, verbose=False)
    assert tested["val_psnr"] == scores["val_psnr"]
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    image = torch.rand(1, 3, 21, 17)
    expected = module.eval()(image)
    assert torch.allclose(load(tmp_path / "mine.ckpt")(image), expected, atol=1e-6)
    again = Denoiser.load_from_checkpoint(tmp_path / "mine.ckpt")
    assert torch.allclose(again.eval()(image), expected, atol=1e-6)
    assert len(again.history) == 2
    pl.Trainer(max_epochs=1, default_root_dir=tmp_path, **options).fit(
        again.train(), loader, loader
    )
