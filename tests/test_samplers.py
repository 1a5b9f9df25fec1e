"""The order of batches (data/samplers.py)."""

import pytest
import torch

from n2n_lightning.data.datasets import Captures, Pairs
from n2n_lightning.data.samplers import BatchSampler, Loader
from n2n_lightning.data.scene_set import EqualSizeScenes


def test_another_batch_size_inside_an_epoch_goes_on_after_the_same_share(tmp_path):
    images = torch.arange(24.0).view(24, 1, 1, 1)
    first, second = (
        Loader(Pairs(images, images), BatchSampler(24, size, 0, True), 0) for size in (6, 3)
    )
    batches = iter(first)
    for _ in range(3):
        next(batches)
    second.load_state_dict(first.state_dict())
    assert [len(batch["images"]) for batch in second] == [3, 3]
    second.load_state_dict({"epoch": 0, "start": 7, "count": 8})
    first.load_state_dict(second.state_dict())
    assert [len(batch["images"]) for batch in first] == [6]


def test_batches_are_even_and_cover_everything():
    sizes = [len(key.images) for key in BatchSampler(1001, 100, seed=0, shuffle=True)]
    assert len(sizes) == 11
    assert set(sizes) == {91}
    batches = BatchSampler(10, 3, seed=0, shuffle=True)
    first = torch.cat([key.images for key in batches])
    assert torch.equal(first, torch.cat([key.images for key in batches]))
    batches.set_epoch(1)
    second = torch.cat([key.images for key in batches])
    assert not torch.equal(first, second)
    assert sorted(second.tolist()) == list(range(10))


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_continues_inside_an_epoch(workers):
    frames = [torch.arange(40).view(20, 1, 1, 2), torch.zeros(20, 1, 1, 2)]
    dataset = Captures(EqualSizeScenes(frames, [""] * 20), seed=0, swap=False)

    def loader():
        return Loader(dataset, BatchSampler(20, 4, seed=0, shuffle=True), workers)

    def epoch(source, number):
        source.batches.set_epoch(number)
        return [batch["input"] for batch in source]

    whole = loader()
    expected = [epoch(whole, number) for number in range(3)]
    for stop in range(1, 6):
        interrupted = loader()
        epoch(interrupted, 0)
        interrupted.batches.set_epoch(1)
        running = iter(interrupted)
        for _ in range(stop):
            next(running)
        resumed = loader()
        resumed.load_state_dict(interrupted.state_dict())
        found = [] if stop == 5 else epoch(resumed, 1)
        assert [x.tolist() for x in found] == [x.tolist() for x in expected[1][stop:]]
        assert [x.tolist() for x in epoch(resumed, 2)] == [x.tolist() for x in expected[2]]
