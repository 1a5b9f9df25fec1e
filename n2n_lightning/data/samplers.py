"""The images of each batch, and loaders that continue inside an epoch."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from n2n_lightning.randomness import generator

READ_AHEAD = 2  # batches, as workers of torch's read ahead


class BatchIndex(NamedTuple):
    """The place of a batch in a run, and the numbers of its images."""

    epoch: int
    number: int
    images: Tensor

    def scene_index(self, count: int, of: int) -> Tensor:
        """Return the photographs or scenes that the images are taken from.

        An epoch with fewer images than there are scenes continues where the last one ended. A
        longer one visits all of them, some once more than others.

        Args:
            count: images per epoch.
            of: how many photographs or scenes there are.

        Returns:
            Their numbers, (B,).

        >>> [BatchIndex(epoch, 0, torch.arange(2)).scene_index(2, 5).tolist() for epoch in range(3)]
        [[0, 1], [2, 3], [4, 0]]
        """
        first = self.epoch * count if count < of else 0
        return (self.images + first) % of

    def identity(self) -> dict[str, Any]:
        """Describe the batch for random draws on the training device.

        Returns:
            `epoch`, `number` and `images`, for the dict of the batch.
        """
        return {
            "epoch": self.epoch,
            "number": self.number,
            "images": self.images,
        }


@dataclass(frozen=True)
class BatchDraws:
    """Random generators of one batch, each a pure function of where it is used.

    Attributes:
        seed: of the data.
        epoch, number: of the batch.
        use: `training`; `validation`, the same for every seed and purpose, so that scores can be
            compared; or `plain`: noisy pairs without augmentation, fixed noise or clean targets.
    """

    seed: int
    epoch: int
    number: int
    use: str = "training"

    @property
    def plain(self) -> bool:
        """True if pairs are noisy on both sides, and nothing else is done to them."""
        return self.use == "plain"

    def __call__(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        if self.use == "validation":
            return generator("validation", self.number, device=device)
        if self.plain:
            return generator(self.seed, "noisy pair", self.number, device=device)
        return generator(self.seed, purpose, self.epoch, self.number, device=device)


class BatchSampler(SequentialSampler):
    """The batches of an epoch, shuffled by (seed, epoch), starting at batch `start`.

    It is declared sequential, so that Lightning leaves it in its place with overfit_batches=.

    Batches differ in size by one at most, so that none is too small for batch normalisation: 1,001
    images in batches of 100 are 11 batches of 91.

    Args:
        size: images per epoch.
        batch_size: images per batch, at most.
        seed: of the order.
        shuffle: False keeps the images in order.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
    ) -> None:
        super().__init__(range(size))
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.count = -(-size // batch_size)
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, called by Lightning; a resumed one keeps its starting point."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.start = 0

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
    """A DataLoader over whole batches that continues where a checkpoint inside an epoch left off.

    Args:
        dataset: takes a BatchIndex.
        batches: the batches of an epoch.
        workers: processes that prepare batches; 0: this one does.
        pinned: batches lie in memory that a GPU copies from by itself.
    """

    def __init__(
        self,
        dataset: Dataset,
        batches: BatchSampler,
        workers: int,
        pinned: bool = False,
    ) -> None:
        super().__init__(
            dataset,
            sampler=batches,
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            persistent_workers=workers > 0,
            pin_memory=pinned,
        )
        self.batches = batches
        self.next = {
            "epoch": 0,
            "start": 0,
            "count": len(batches),
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        for batch in self._read():
            epoch = batch["epoch"]
            start = batch["number"] + 1
            if start == len(self.batches):
                epoch += 1
                start = 0
            self.next = {
                "epoch": epoch,
                "start": start,
                "count": len(self.batches),
            }
            yield batch

    def _read(self) -> Iterator[dict[str, Any]]:
        """Yield the batches; without workers a thread reads large files for the next ones."""
        if self.num_workers or not getattr(self.dataset, "ahead", False):
            yield from super().__iter__()
            return
        waiting: deque[Future[dict[str, Any]]] = deque()
        pool = ThreadPoolExecutor(1)
        try:
            for key in self.batches:
                waiting.append(pool.submit(self.dataset.__getitem__, key))
                if len(waiting) > READ_AHEAD:
                    yield waiting.popleft().result()
            for future in waiting:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def state_dict(self) -> dict[str, int]:
        """Return the place of the next batch, for a checkpoint."""
        return self.next

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where a checkpoint says, in an epoch of other batches after the same share."""
        count = len(self.batches)
        stored_count = state.get("count", count)
        start = min(state["start"] * count // stored_count, count - 1)
        self.next = {
            "epoch": state["epoch"],
            "start": start,
            "count": count,
        }
        self.batches.epoch = state["epoch"]
        self.batches.start = start


class PlainIterable:
    """The batches of a loader for `Trainer.predict`, which rebuilds DataLoaders; ours cannot be."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.loader)


def _unchanged(batch: Any) -> Any:
    return batch
