"""Which images are in which batch, and loaders that continue inside an epoch."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from n2n_lightning.randomness import generator


class BatchIndex(NamedTuple):
    """Which batch of which epoch, and the numbers of the images in it: all that a batch depends on beside the seed."""

    epoch: int
    number: int
    images: Tensor

    def scene_index(self, count: int, of: int) -> Tensor:
        """Which of `of` photographs or scenes the images are taken from, in an epoch of `count` images: (B,).

        An epoch with fewer images than there are goes on where the last one ended. A longer one
        visits all of them, some once more than others.

        >>> [BatchIndex(epoch, 0, torch.arange(2)).scene_index(2, 5).tolist() for epoch in range(3)]
        [[0, 1], [2, 3], [4, 0]]
        """
        return (self.images + (self.epoch * count if count < of else 0)) % of

    def identity(self) -> dict[str, Any]:
        """What a batch carries to the device, where its noise and turns are drawn."""
        return {"epoch": self.epoch, "number": self.number, "images": self.images}


class BatchSampler(SequentialSampler):
    """The batches of an epoch, shuffled by (seed, epoch), starting at batch `start`.

    It says that it is sequential, so that Lightning leaves it in its place with overfit_batches=.

    Batches differ in size by one at most, so that none is too small for batch normalisation: 1,001
    images in batches of 100 are 11 batches of 91.
    """

    def __init__(self, size: int, batch_size: int, seed: int, shuffle: bool) -> None:
        super().__init__(range(size))
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self.count = -(-size // batch_size)
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch; keeps the starting point of a resumed one."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[BatchIndex]:  # type: ignore[override]
        order = torch.arange(self.size)
        if self.shuffle:
            order = torch.randperm(self.size, generator=generator(self.seed, "order", self.epoch))
        batches = order.tensor_split(self.count)
        for number in range(self.start, self.count):
            yield BatchIndex(self.epoch, number, batches[number])
        self.start = 0


class Loader(DataLoader):
    """A DataLoader over whole batches that continues where a checkpoint inside an epoch left off."""

    def __init__(self, dataset: Dataset, batches: BatchSampler, workers: int) -> None:
        super().__init__(
            dataset,
            sampler=batches,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            persistent_workers=workers > 0,
        )
        self.batches = batches
        self.next = {"epoch": 0, "start": 0, "count": len(batches)}

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        for batch in super().__iter__():
            epoch, start = batch["epoch"], batch["number"] + 1
            if start == len(self.batches):
                epoch, start = epoch + 1, 0
            self.next = {"epoch": epoch, "start": start, "count": len(self.batches)}
            yield batch

    def state_dict(self) -> dict[str, int]:
        return self.next

    def load_state_dict(self, state: dict[str, int]) -> None:
        count = len(self.batches)
        # With another batch size, the epoch goes on after the same share of its images.
        start = min(state["start"] * count // state.get("count", count), count - 1)
        self.next = {"epoch": state["epoch"], "start": start, "count": count}
        self.batches.epoch, self.batches.start = state["epoch"], start


class PlainIterable:
    """The batches of a loader; Lightning rebuilds a DataLoader for `Trainer.predict`, which ours does not allow."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.loader)


def _as_it_is(batch: Any) -> Any:
    return batch
