"""Batches of volumes (B, C, D, H, W) pass like batches of images; any order of axes is read."""

from itertools import permutations

import numpy as np
import pytest
import torch

from n2n_lightning import losses
from n2n_lightning.arrays import axes
from n2n_lightning.data.augmentation import recolour, turn
from n2n_lightning.files import InputError
from n2n_lightning.inference.tiling import averaged
from n2n_lightning.metrics.psnr_over_batches import psnr_metrics
from n2n_lightning.networks import Network, pad_to_multiple
from n2n_lightning.noise import Gaussian, Poisson

VOLUMES = torch.rand(4, 2, 6, 7, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [losses.L2, losses.L1, losses.L0, losses.HDR])
def test_losses_take_volumes(kind):
    target = VOLUMES.flip(0).clone()
    target[0, 0, 2] = torch.nan  # a missing plane
    plane = kind()(VOLUMES.flatten(2, 3), target.flatten(2, 3))  # planes side by side are an image
    assert kind()(VOLUMES, target) == pytest.approx(plane.item())


def test_scores_take_volumes():
    clean = VOLUMES * torch.tensor([0.5, 0.6, 0.8, 0.9]).view(4, 1, 1, 1, 1)
    metrics, flat = psnr_metrics("val"), psnr_metrics("val")
    for part in (slice(0, 3), slice(3, 4)):
        metrics.update(VOLUMES[part], clean[part])
        flat.update(VOLUMES[part].flatten(2, 3), clean[part].flatten(2, 3))
    assert {n: v.item() for n, v in metrics.compute().items()} == {
        n: v.item() for n, v in flat.compute().items()
    }
    assert len({round(v.item(), 3) for v in metrics.compute().values()}) == 2


def test_flips_and_turns_of_volumes_are_the_same_for_both_of_a_pair():
    many = VOLUMES[:1].expand(200, *VOLUMES.shape[1:])
    first, second = turn([many, many + 1], torch.Generator().manual_seed(0))
    assert torch.allclose(second, first + 1)
    found = {tuple(volume.flatten().tolist()) for volume in first}
    assert len(found) == 16  # 8 flips, each with the plane turned or not
    flat = VOLUMES[..., :5]  # not square in the plane: flips alone
    assert (
        len(
            {
                tuple(v.flatten().tolist())
                for v in turn([flat[:1].expand(200, -1, -1, -1, -1)], torch.Generator())[0]
            }
        )
        == 8
    )


def test_padding_and_cropping_of_volumes():
    padded = pad_to_multiple(VOLUMES, 4)
    assert padded.shape == (4, 2, 8, 8, 8)
    assert torch.equal(padded[:, :, 6, :7, :7], VOLUMES[:, :, 4])  # reflected
    assert torch.equal(axes.cropped(padded, axes.size(VOLUMES)), VOLUMES)

    class Same(Network):
        multiple = 4

        def body(self, image: torch.Tensor) -> torch.Tensor:
            assert all(length % 4 == 0 for length in axes.size(image))
            return image

    assert torch.equal(Same()(VOLUMES), VOLUMES)
    assert torch.allclose(averaged(Same(), 4)(VOLUMES), VOLUMES)


def test_noise_and_colours_of_volumes():
    draws = torch.Generator().manual_seed(0)
    noisy = Gaussian((10, 50))(VOLUMES, draws)
    assert noisy.shape == VOLUMES.shape
    spread = (noisy - VOLUMES).flatten(1).std(1)
    assert spread.max() > 1.3 * spread.min()  # each volume has a strength of its own
    assert Poisson(30)(VOLUMES, draws).shape == VOLUMES.shape
    assert recolour([VOLUMES], (0.5, 2), draws)[0].shape == VOLUMES.shape


@pytest.mark.parametrize("order", ["".join(p) for p in permutations("NCHW")])
def test_every_order_of_axes_is_the_same_pages(order):
    pages = np.arange(2 * 3 * 4 * 5).reshape(2, 4, 5, 3)  # (N, H, W, C)
    array = pages.transpose(["NHWC".index(letter) for letter in order])
    assert np.array_equal(axes.as_pages(array, order), pages)
    assert axes.as_pages(array, order).base is not None  # a view: results are written through it
    (images,) = axes.as_captures(torch.from_numpy(array), order)
    assert np.array_equal(images.numpy(), pages.transpose(0, 3, 1, 2))


def test_stacks_of_several_axes():
    array = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    assert axes.as_pages(array, "TCDHW").shape == (2, 4, 5, 6, 3)
    (images,) = axes.as_captures(torch.from_numpy(array), "TCDHW")
    assert images.shape == (8, 3, 5, 6)
    assert np.array_equal(images[5].numpy(), array[1, :, 1])
    captures = axes.as_captures(torch.from_numpy(array), "NKDHW")
    assert [tuple(c.shape) for c in captures] == [(8, 1, 5, 6)] * 3
    assert np.array_equal(captures[2][7, 0].numpy(), array[1, 2, 3])
    for wrong in ("HW", "TCDHH", "TCDHX", "CCDHW"):
        with pytest.raises(InputError, match=f"axes={wrong}: does not fit"):
            axes.as_pages(array, wrong)
