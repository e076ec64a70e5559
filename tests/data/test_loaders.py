"""The order of the cases: complete, seeded, and the same however the work is shared."""

import os
import signal

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from attnvgg.data.images import TOLD, start_worker
from attnvgg.data.loaders import TrainingBatches, default_workers, evaluation_loader


def epoch_of(batches, epoch=0, start=0):
    batches.set_epoch(epoch, start)
    return list(batches)


def test_every_case_occurs_as_often_as_asked():
    batches = TrainingBatches([1, 3, 2, 2], batch_size=2)
    rows = np.array(epoch_of(batches)).ravel() % 4
    assert np.bincount(rows).tolist() == [1, 3, 2, 2]


def test_two_occurrences_of_a_case_have_two_positions():
    positions = np.array(epoch_of(TrainingBatches([2, 2, 2], batch_size=3))).ravel()
    assert len(set(positions.tolist())) == 6


def test_the_order_depends_on_seed_and_epoch_alone():
    first = epoch_of(TrainingBatches([1] * 20, 4, seed=1), epoch=2)
    assert first == epoch_of(TrainingBatches([1] * 20, 4, seed=1), epoch=2)
    assert first != epoch_of(TrainingBatches([1] * 20, 4, seed=1), epoch=3)
    assert first != epoch_of(TrainingBatches([1] * 20, 4, seed=2), epoch=2)


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 5))
def test_an_interrupted_epoch_goes_on_where_it_was(start):
    batches = TrainingBatches([1] * 20, 4)
    rest = epoch_of(batches, 1, start)
    assert len(rest) == len(batches) == 5 - start
    assert rest == epoch_of(batches, 1)[start:]


@settings(max_examples=30, deadline=None)
@given(
    cases=st.integers(8, 60),
    world=st.integers(1, 4),
    share=st.integers(1, 3),
    accumulate=st.integers(1, 2),
)
def test_processes_share_the_very_batches_of_one(cases, world, share, accumulate):
    """Joined, the shares are the batches of one process with the global batch size."""
    options = {"accumulate": accumulate, "seed": 3}
    whole = epoch_of(TrainingBatches([1] * cases, share * world, **options))
    shares = [
        epoch_of(TrainingBatches([1] * cases, share, rank=rank, world=world, **options))
        for rank in range(world)
    ]
    assert all(len(one) == len(whole) for one in shares)
    for joined, batch in zip(zip(*shares, strict=True), whole, strict=True):
        assert sorted(case for one in joined for case in one) == sorted(batch)


def test_an_epoch_holds_whole_steps():
    batches = TrainingBatches([1] * 23, batch_size=2, accumulate=3)
    assert len(epoch_of(batches)) == batches.batches == 9


@pytest.mark.parametrize(("cases", "world"), [(7, 2), (8, 3), (2, 3), (5, 1)])
def test_evaluation_counts_each_case_once(cases, world):
    dataset = TensorDataset(torch.arange(cases))
    found = []
    for rank in range(world):
        loader = evaluation_loader(dataset, 2, 0, rank=rank, world=world)
        found += [int(i) for (batch,) in loader for i in batch]
    assert sorted(found) == list(range(cases))


def test_a_crowded_machine_still_loads():
    assert default_workers(10_000) == 0
    assert 0 <= default_workers() <= 8


def hit_at_birth(worker_id):
    """Start a loader process that the group was told to stop before it was set up."""
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    start_worker(worker_id)


def test_a_stop_spares_processes_that_are_not_set_up():
    loader = evaluation_loader(TensorDataset(torch.arange(6)), 2, workers=2)
    loader.worker_init_fn = hit_at_birth
    assert torch.cat([batch for (batch,) in loader]).tolist() == list(range(6))
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(TOLD)


def test_opencv_has_one_thread_before_processes_are_forked():
    """A child would wait for its parent's other threads for ever."""
    cv2.setNumThreads(2)

    class Watched(TensorDataset):
        def __getitem__(self, index):
            return cv2.getNumThreads()

    loader = evaluation_loader(Watched(torch.arange(2)), 2, workers=1)
    loader.worker_init_fn = None
    assert next(iter(loader)).tolist() == [1, 1]
