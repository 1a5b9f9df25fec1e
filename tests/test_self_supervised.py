"""Pairs made of one noisy image: neighbours, masks, counts, and losses with a second pass."""

import numpy as np
import pytest
import torch
from torch import nn

from n2n_lightning.arrays.bad_pixels import inpaint
from n2n_lightning.data.mask import Mask
from n2n_lightning.data.self_supervised import CountSplitting, Neighbor2Neighbor, Noise2Void
from n2n_lightning.files import InputError
from n2n_lightning.losses import L2, Neighbor2NeighborRegularizer, subsampled
from n2n_lightning.networks import (
    ResidualUNet,
)
from n2n_lightning.training.module import Denoiser


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_neighbours_are_two_different_pixels_side_by_side_of_each_cell():
    image = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).view(2, 3, 8, 12)
    ready = Neighbor2Neighbor()(image, image, draws())
    assert ready["input"].shape == ready["target"].shape == (2, 3, 4, 6)
    y, x = (image[:, :1] // 12 % 8).long(), (image[:, :1] % 12).long()
    seen = set()
    for side, other in ((ready["input"], ready["target"]), (ready["target"], ready["input"])):
        rows, columns = side[:, 0] // 12 % 8, side[:, 0] % 12
        assert (rows // 2 == torch.arange(4)[:, None]).all()  # of their own cell
        assert (columns // 2 == torch.arange(6)).all()
        distance = (rows - other[:, 0] // 12 % 8).abs() + (columns - other[:, 0] % 12).abs()
        assert (distance == 1).all()
        seen |= {
            (int(r) % 2, int(c) % 2) for r, c in zip(rows.flatten(), columns.flatten(), strict=True)
        }
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}
    # channels of one pixel stay together
    assert torch.equal(ready["input"][:, 1], ready["input"][:, 0] + 96)
    assert y.max() == 7
    assert x.max() == 11
    odd = Neighbor2Neighbor()(torch.rand(1, 1, 7, 9), torch.rand(1, 1, 7, 9), draws())
    assert odd["input"].shape == (1, 1, 3, 4)


def test_missing_pixels_stay_out_of_the_targets_of_neighbours_and_masks():
    seen = torch.rand(4, 1, 32, 32, generator=draws())
    truth = torch.where(torch.rand(seen.shape, generator=draws(1)) < 0.2, torch.nan, seen)
    for method in (Neighbor2Neighbor(), Noise2Void(0.3)):
        ready = method(seen, truth, draws())
        assert ready["input"].isfinite().all()
        assert ready["target"].isnan().any()
    kept = Noise2Void(0.3)(seen, truth, draws())["target"]
    assert torch.equal(kept[kept.isfinite()], truth[kept.isfinite()])


@pytest.mark.parametrize("mask", [(1, 1), (1, 9)])
def test_what_fills_gaps_knows_nothing_of_the_hidden_pixels(mask):
    whole = torch.rand(1, 1, 64, 64, generator=draws())
    truth = torch.where(torch.rand(whole.shape, generator=draws(1)) < 0.3, torch.nan, whole)
    hide = Noise2Void(0.02 * mask[1], mask)
    ready = hide(inpaint(truth), truth, draws())
    targets = ready["target"].isfinite()
    other = torch.where(targets, truth + 100, truth)
    again = hide(inpaint(other), other, draws())
    assert targets.sum() > 20
    assert (again["target"][targets] > 99).all()
    # one target may be what is shown in place of another
    changed = again["input"] != ready["input"]
    assert changed[targets].float().mean() < 0.1
    assert changed[truth.isnan()].float().mean() < 0.02


@pytest.mark.parametrize(
    "mask", ["[1,1]", "[1,9]", "[9,1]", "[3,5]", ".x./xxx/.x.", "x../.x./..x", "x.x.x", "..xxx"]
)
def test_a_hidden_pixel_is_never_seen_nor_what_noise_of_its_mask_would_show(mask):
    image = torch.arange(40 * 48, dtype=torch.float32).view(1, 1, 40, 48)
    offsets = Mask.of(mask).offsets
    hidden = 0
    for seed in range(30):
        ready = Noise2Void(0.02 * len(offsets), mask)(image, image, draws(seed))
        for y, x in ready["target"][0, 0].isfinite().nonzero().tolist():
            hidden += 1
            assert ready["target"][0, 0, y, x] == image[0, 0, y, x]
            places = [(y + dy, x + dx) for _, dy, dx in offsets]
            places = [(r, c) for r, c in places if 0 <= r < 40 and 0 <= c < 48]
            own = {float(image[0, 0, r, c]) for r, c in places}
            shown = {float(ready["input"][0, 0, r, c]) for r, c in places}
            # all of its mask came from outside
            assert not own & shown
    assert hidden > 500


@pytest.mark.parametrize("mask", ["[1,1]", "[1,9]", ".xxx./xxxxx/xxxxx/xxxxx/.xxx."])
def test_the_share_of_hidden_pixels_does_not_depend_on_the_mask(mask):
    image = torch.arange(256.0 * 256).view(1, 1, 256, 256)
    ready = Noise2Void(0.1, mask)(image, image, draws())
    hidden = (ready["input"] != image).float().mean()
    targets = ready["target"].isfinite().float().mean()
    assert float(hidden) == pytest.approx(0.1, abs=0.01)
    assert float(targets) == pytest.approx(0.1 / Mask.of(mask).pixels, rel=0.2)


def test_a_mask_of_volumes_hides_voxels_of_other_planes():
    volume = torch.arange(20 * 24 * 28, dtype=torch.float32).view(1, 1, 20, 24, 28)
    mask = "x//.x./xxx/.x.//x"
    for cubes in (False, True):
        ready = Noise2Void(0.05, mask, cubes)(volume, volume, draws())
        targets = ready["target"][0, 0].isfinite().nonzero().tolist()
        assert len(targets) > 20
        for z, y, x in targets:
            around = [(z + a, y + b, x + c) for a, b, c in Mask.of(mask).offsets]
            around = [
                p for p in around if all(0 <= i < n for i, n in zip(p, (20, 24, 28), strict=True))
            ]
            own = {float(volume[0, 0][p]) for p in around}
            assert not own & {float(ready["input"][0, 0][p]) for p in around}
    with pytest.raises(InputError, match="10 or more"):
        Noise2Void(0.05, mask)(volume[:, :, :8], volume[:, :, :8], draws())


def test_thinned_counts_are_independent_and_add_up():
    counts = torch.poisson(torch.full((1, 1, 300, 300), 6.0), generator=draws())
    ready = CountSplitting(0.0, 1.0)(counts, counts, draws(1))
    first, second = ready["input"] / 2, ready["target"] / 2
    assert torch.equal(first + second, counts)
    assert abs(float(np.corrcoef(first.flatten(), second.flatten())[0, 1])) < 0.015
    for half in (first, second):
        assert float(half.mean()) == pytest.approx(3, rel=0.02)
        assert float(half.var()) == pytest.approx(3, rel=0.03)
    again, other = (
        CountSplitting(0.0, 1.0)(counts, counts, draws(seed))["input"] for seed in (1, 2)
    )
    assert torch.equal(again, ready["input"])
    assert not torch.equal(other, ready["input"])
    lost = torch.where(counts == 7, torch.nan, counts)
    assert (
        CountSplitting(0.0, 1.0)(counts, lost, draws(1))["target"].isnan().sum()
        == (counts == 7).sum()
    )


def test_the_second_pass_corrects_what_neighbours_differ_by_and_its_weight_rises():
    draws_ = draws()
    whole = torch.rand(6, 1, 8, 8, generator=draws_)
    ready = Neighbor2Neighbor()(whole, whole, draws_)
    part = Neighbor2NeighborRegularizer(gamma=2.0)
    # A network that changes nothing: f(g1) - g2 and g1(f(y)) - g2(f(y)) are the same.
    for share in (0.0, 0.5, 1.0):
        part.progress = share
        assert float(part.second_pass(nn.Identity(), ready, ready["input"])) == pytest.approx(
            0, abs=1e-12
        )
    scale = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(scale.weight, 0.5)
    first, second = (subsampled(whole, ready["cells"][:, i]) for i in (0, 1))
    expected = float((0.5 * first - second - (0.5 * first - 0.5 * second)).square().mean())
    values = []
    for share in (0.0, 0.5, 1.0):
        part.progress = share
        values.append(part.second_pass(scale, ready, scale(ready["input"])))
    assert [v.item() for v in values] == pytest.approx([0, expected, 2 * expected], rel=1e-5)
    (gradient,) = torch.autograd.grad(values[2], scale.weight)
    residual = 0.5 * first - second - (0.5 * first - 0.5 * second)
    # none through f(y)
    assert float(gradient) == pytest.approx(float((2 * 2 * residual * first).mean()), rel=1e-4)


class Own(nn.Module):
    """A user's loss with a second pass: a denoised image should not change when denoised again."""

    seen: list = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.progress = 0.0

    def forward(self, output, target):
        return L2()(output, target)

    def second_pass(self, denoise, batch, output):
        Own.seen.append((self.progress, denoise(output).shape == output.shape, sorted(batch)))
        return 0 * output.sum()


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.isinstance.treespec")
def test_a_loss_of_ones_own_may_pass_through_the_network_twice():
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader

    Own.seen = []
    pairs = [(torch.rand(1, 16, 16), torch.rand(1, 16, 16)) for _ in range(8)]
    module = Denoiser(ResidualUNet(channels=1, width=4), loss=Own())
    off = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    pl.Trainer(max_epochs=1, accelerator="cpu", limit_val_batches=0, **off).fit(
        module, DataLoader(pairs, batch_size=4)
    )
    assert [share for share, _, _ in Own.seen] == [0.0, 0.5]
    assert all(same and names == ["input", "target"] for _, same, names in Own.seen)
