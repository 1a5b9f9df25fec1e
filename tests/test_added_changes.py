"""Changes that are added around the middle frame of a window, see data/added_changes.py."""

import torch

from n2n_lightning.data.added_changes import AddedChanges

DISTANCES = torch.tensor([[-2, -1, 0, 1, 2]])


def frames(count: int = 8, *, depth: tuple[int, ...] = ()) -> torch.Tensor:
    noise = torch.Generator().manual_seed(0)
    return 0.5 + 0.1 * torch.randn(count, 5, 1, *depth, 64, 64, generator=noise)


def changed(share: float = 1.0, images: torch.Tensor | None = None, seed: int = 0) -> torch.Tensor:
    images = frames() if images is None else images
    draws = torch.Generator().manual_seed(seed)
    distances = DISTANCES.expand(len(images), -1)
    return AddedChanges(share)(images, distances, draws) - images


def test_the_middle_frame_stays_and_those_around_it_change_by_the_noise():
    added = changed()
    assert not added[:, 2].any()
    for side in ((0, 1), (3, 4)):
        torch.testing.assert_close(*(added[:, k] for k in side), atol=1e-6, rtol=0)
    assert 0.03 < added.abs().amax() < 1.0
    share_of_pixels = (added[:, [1, 3]] != 0).float().mean()
    assert 0.02 < share_of_pixels < 0.3


def test_some_changes_are_before_some_after_and_some_on_both_sides():
    added = changed()
    before = added[:, 1] != 0
    after = added[:, 3] != 0
    for only in (before & ~after, after & ~before, before & after):
        assert only.any()


def test_windows_without_changes_are_as_they_were():
    assert not changed(share=0.0).any()
    windows = changed(share=0.5, images=frames(64)).flatten(1).any(1)
    assert 16 < windows.sum() < 48


def test_copies_of_the_frame_at_an_end_stay_copies():
    images = frames(4)
    images[:, :2] = images[:, 2:3]
    distances = torch.tensor([[0, 0, 0, 1, 2]]).expand(4, -1)
    shown = AddedChanges(1.0)(images, distances, torch.Generator().manual_seed(0))
    assert (shown[:, :3] == images[:, :3]).all()
    assert (shown[:, 3:] != images[:, 3:]).any()


def test_missing_pixels_stay_missing_and_volumes_get_balls():
    images = frames(2, depth=(8,))
    images[..., 3, 5, 7] = torch.nan
    added = changed(images=images)
    assert added[..., 3, 5, 7].isnan().all()
    assert added.isnan().sum() == images.isnan().sum()
    flat = added.nan_to_num()
    assert (flat[:, 1] != flat[:, 1, :, :1]).any()
