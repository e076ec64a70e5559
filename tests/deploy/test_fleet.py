"""Dealing slides over processes."""

import itertools
from collections import deque
from types import SimpleNamespace

import pytest

from attnvgg.deploy.fleet import Process, _work, joined_process, share_of


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shares_are_all_slides_once_and_alike_in_size(tmp_path, world):
    slides = []
    for number, size in enumerate([900, 10, 500, 490, 20, 30, 880, 5]):
        slides.append(tmp_path / f"{number}.tiff")
        slides[-1].write_bytes(bytes(size))
    shares = [share_of(slides, Process(rank, 0, world)) for rank in range(world)]
    assert sorted(itertools.chain(*shares)) == slides
    sizes = [sum(path.stat().st_size for path in share) for share in shares]
    assert max(sizes) - min(sizes) <= 900  # no more than the largest slide
    assert share_of(slides[::-1], Process(0, 0, world)) == shares[0]


class FakeRay:
    """Ray's part of the talk with workers, of which some items are the death."""

    class exceptions:
        class RayActorError(Exception):
            pass

        class RayTaskError(Exception):
            pass

    def wait(self, references, timeout):
        return references[:1], references[1:]

    def get(self, reference):
        if reference == "deadly":
            raise self.exceptions.RayActorError
        return reference


def test_an_item_that_no_worker_outlives_is_passed_over():
    run = SimpleNamespace(remote=lambda item: item)
    workers = [SimpleNamespace(run=run) for _ in range(2)]

    def work(lost):
        items = deque(["a", "deadly", "b", "c"])
        return sorted(_work(FakeRay(), list(workers), items, lambda: None, lost))

    assert work(lambda item: f"lost {item}") == ["a", "b", "c", "lost deadly"]
    with pytest.raises(FakeRay.exceptions.RayActorError):
        work(None)


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_process() as process:
        assert process == (0, 0, 1)
        assert process.from_first(lambda: "made") == "made"
        assert process.gather("mine") == ["mine"]
