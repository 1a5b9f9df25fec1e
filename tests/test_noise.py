import pytest
import torch

from n2n_lightning.noise import Pixelate, generator


def test_pixelate_has_the_block_mean_and_independent_draws():
    photo = torch.rand(1, 3, 28, 28, generator=generator("photo"))
    noise, draws, count = Pixelate(7), generator("draws"), 4000
    first, second = (noise(photo.expand(count, -1, -1, -1), draws) for _ in range(2))
    clean = noise.clean(photo)
    assert first.shape == (count, 3, 4, 4)
    error = (first.mean(0) - clean[0]) / (first.std(0) / count**0.5)
    assert error.abs().max() < 4.5  # 48 means, in standard errors
    assert ((first - clean) * (second - clean)).mean() / first.var(0).mean() < 0.02


def test_pixelate_takes_pixels_of_its_own_block_with_all_channels_together():
    rows, columns = torch.meshgrid(torch.arange(21.0), torch.arange(14.0), indexing="ij")
    photo = torch.stack((rows, columns, 100 * rows + columns))[None]
    noisy = Pixelate(7)(photo, generator(1))[0]
    assert torch.equal(noisy[0] // 7, torch.arange(3.0)[:, None].expand(3, 2))
    assert torch.equal(noisy[1] // 7, torch.arange(2.0).expand(3, 2))
    assert torch.equal(noisy[2], 100 * noisy[0] + noisy[1])


def test_generator_depends_on_its_key_alone():
    torch.manual_seed(1)
    first = torch.rand(4, generator=generator(0, "noise", 3))
    torch.manual_seed(2)
    assert torch.equal(first, torch.rand(4, generator=generator(0, "noise", 3)))
    assert not torch.equal(first, torch.rand(4, generator=generator(0, "noise", 4)))
    assert not torch.equal(first, torch.rand(4, generator=generator(0, "order", 3)))


def test_bad_block():
    with pytest.raises(ValueError, match="must be a whole number, 1 or more"):
        Pixelate(0)
