"""A queue in front of the engine: order, company, room, poison, and an end without losses."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from attnvgg.deploy.serving.batcher import Batcher
from attnvgg.deploy.serving.limits import Refused


class Gate:
    """Doubles numbers, once it is opened; notes the batches."""

    def __init__(self):
        self.open, self.busy, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, items):
        self.busy.set()
        assert self.open.wait(10)
        if any(item < 0 for item in items):
            raise ValueError("negative")
        self.batches.append(list(items))
        return [2 * item for item in items]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def batcher(gate):
    found = Batcher(gate, batch=4, room=10)
    yield found
    gate.open.set()
    found.close()


def hold(batcher, gate):
    """Let the engine be busy with one item, so that others wait."""
    (first,) = batcher.submit([100])
    assert gate.busy.wait(10)
    return first


def test_what_waits_is_computed_together_in_order(batcher, gate):
    first = hold(batcher, gate)
    futures = batcher.submit([1, 2, 3]) + batcher.submit([4, 5, 6])
    gate.open.set()
    assert [future.result(10) for future in [first, *futures]] == [200, 2, 4, 6, 8, 10, 12]
    assert gate.batches == [[100], [1, 2, 3, 4], [5, 6]]


def test_an_idle_engine_waits_for_nobody(gate):
    gate.open.set()
    batcher = Batcher(gate, batch=64, room=64)
    start = time.perf_counter()
    assert batcher.submit([7])[0].result(10) == 14
    assert time.perf_counter() - start < 5  # it does not wait for 63 others
    batcher.close()


def test_all_of_a_request_or_nothing(batcher, gate):
    hold(batcher, gate)
    batcher.submit(list(range(8)))
    with pytest.raises(Refused) as caught:
        batcher.submit([1, 2, 3])
    assert caught.value.status == 429
    assert caught.value.retry_after >= 1
    assert batcher.waiting == 8
    batcher.submit([1, 2])


def test_what_is_given_up_is_not_computed(batcher, gate):
    hold(batcher, gate)
    given_up, kept = batcher.submit([1, 2])
    assert given_up.cancel()
    gate.open.set()
    assert kept.result(10) == 4
    assert gate.batches == [[100], [2]]


def test_one_bad_item_spoils_no_other(batcher, gate):
    hold(batcher, gate)
    good, bad, other = batcher.submit([1, -1, 3])
    gate.open.set()
    assert (good.result(10), other.result(10)) == (2, 6)
    with pytest.raises(ValueError, match="negative"):
        bad.result(10)
    assert batcher.submit([5])[0].result(10) == 10  # and the engine lives on


def test_closing_finishes_what_was_taken(gate):
    batcher = Batcher(gate, batch=4, room=100)
    futures = batcher.submit(list(range(30)))
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while not batcher._closing:
        time.sleep(0.001)
    with pytest.raises(Refused) as caught:
        batcher.submit([0])
    assert caught.value.status == 503
    gate.open.set()
    closing.join(10)
    assert [future.result(0) for future in futures] == [2 * item for item in range(30)]


def test_many_at_once_each_get_their_own(gate):
    gate.open.set()
    batcher = Batcher(gate, batch=8, room=1000)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda item: batcher.submit([item])[0].result(10), range(500)))
    assert found == [2 * item for item in range(500)]
    assert max(map(len, gate.batches)) <= 8
    batcher.close()
