"""The order of batches (data/samplers.py)."""

import torch


def test_another_batch_size_inside_an_epoch_goes_on_after_the_same_share(tmp_path):
    from n2n_lightning.data.datasets import Pairs
    from n2n_lightning.data.samplers import BatchSampler, Loader

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
