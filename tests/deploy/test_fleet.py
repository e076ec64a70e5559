"""Dealing slides over processes."""

import itertools
import pickle
from collections import deque
from types import SimpleNamespace

import pytest
import torch

from attnvgg.deploy.fleet import Process, _work, joined_process, share_of
from attnvgg.errors import InputError


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


def test_a_link_to_no_slide_is_somebodys(tmp_path):
    (tmp_path / "a.tiff").write_bytes(b"slide")
    (tmp_path / "gone.tiff").symlink_to(tmp_path / "nowhere.tiff")
    slides = [tmp_path / "gone.tiff", tmp_path / "a.tiff"]
    assert [share_of(slides, Process(rank, 0, 2)) for rank in range(2)] == [slides[1:], slides[:1]]


class FakeRay:
    """Ray's part of the talk with workers, of which some items are the death."""

    class exceptions:
        class RayActorError(Exception):
            pass

        class RayTaskError(Exception):
            cause = property(lambda self: self.args[0])

    def wait(self, references, timeout):
        return references[:1], references[1:]

    def get(self, reference):
        if isinstance(reference, Exception):
            raise self.exceptions.RayTaskError(reference)
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


@pytest.mark.parametrize("fault", [InputError("No."), PermissionError(13, "Permission denied")])
def test_what_is_wrong_with_the_input_or_the_machine_is_raised_as_it_was(fault):
    worker = SimpleNamespace(run=SimpleNamespace(remote=lambda item: item))
    with pytest.raises(type(fault)) as caught:
        list(_work(FakeRay(), [worker], deque([fault]), lambda: None, None))
    assert caught.value is fault


def test_what_the_first_process_cannot_make_ends_all(monkeypatch):
    sent = []

    def broadcast(items):
        if not sent:
            sent.append(pickle.dumps(items))
        items[:] = pickle.loads(sent[0])

    def make():
        raise InputError("These are no slides:", ["a.txt"])

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    for rank, made in enumerate([make, None]):
        with pytest.raises(InputError) as caught:
            Process(rank, rank, 2).from_first(made)
        assert str(caught.value) == "These are no slides:\n  a.txt"
        assert caught.value.offenders == ["a.txt"]


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_process() as process:
        assert process == (0, 0, 1)
        assert process.from_first(lambda: "made") == "made"
        assert process.gather("mine") == ["mine"]
