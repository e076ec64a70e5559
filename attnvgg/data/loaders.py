"""The order of the cases: the same for any number of workers, processes and restarts."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from attnvgg.data.cores import available_cores
from attnvgg.data.images import TOLD, start_worker, use_one_thread

ORDER = 1  # keeps this random stream apart from others of the same seed


class TrainingBatches(Sampler[list[int]]):
    """Shuffled batches of one process, a pure function of (seed, epoch).

    A *position* counts occurrences: case `i` in its `r`-th occurrence of the epoch has position
    `i + r * cases`, so that two occurrences of one image are augmented differently. The processes
    take turns within each global batch; what does not fill a whole optimiser step is left for
    another epoch's shuffle.

    Args:
        occurrences: how often each case occurs in an epoch, (cases,).
        batch_size: cases a process and batch.
        accumulate: batches an optimiser step; an epoch holds whole steps only.
        seed: of the order.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(
        self,
        occurrences: Sequence[int],
        batch_size: int,
        *,
        accumulate: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        counts = np.asarray(occurrences, dtype=np.int64)
        occurrence = np.concatenate([np.arange(count) for count in counts])
        self.positions = np.repeat(np.arange(len(counts)), counts) + occurrence * len(counts)
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        steps = len(self.positions) // (batch_size * accumulate * world)
        self.batches = steps * accumulate
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and the batch to begin with when it was interrupted."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.batches - self.start

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, ORDER, self.epoch])
        order = generator.permutation(self.positions)
        chunk = self.batch_size * self.world
        for batch in range(self.start, self.batches):
            yield order[batch * chunk : (batch + 1) * chunk][self.rank :: self.world].tolist()


class _Loader(DataLoader[Any]):
    """Loader whose processes begin with `TOLD` blocked, until `start_worker` can answer them.

    PyTorch has a process that is not yet set up die of a signal to the group, and the run with it.
    """

    def __iter__(self) -> Any:
        use_one_thread()  # before they are forked, whatever this process did before
        before = signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def training_loader(
    dataset: Dataset[Any], batches: TrainingBatches, workers: int, *, pin: bool = False
) -> DataLoader[Any]:
    """Return the loader of a training set; call `batches.set_epoch` before each pass."""
    return _Loader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=start_worker,
        pin_memory=pin,
    )


def evaluation_loader(
    dataset: Dataset[Any],
    batch_size: int,
    workers: int,
    *,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
) -> DataLoader[Any]:
    """Return a loader in which every case occurs exactly once over all processes.

    Shares differ by one case at most and are not padded: nothing is counted twice.
    """
    share = range(rank, len(dataset), world)  # type: ignore[arg-type]
    return _Loader(
        dataset,
        batch_size=batch_size,
        sampler=share,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=start_worker,
        pin_memory=pin,
    )


def collate(batch: Any) -> Any:
    """Stack samples; the batch that a dataset of bags made at once is left as it is."""
    return default_collate(batch) if isinstance(batch, list) else batch


def default_workers(processes: int = 1) -> int:
    """Return how many loader processes this machine can feed beside `processes` trainers."""
    return max(0, min(8, available_cores() // processes - 1))
