"""Dealing slides over processes."""

import itertools

import pytest

from attnvgg.deploy.fleet import Process, joined_process, share_of


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


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_process() as process:
        assert process == (0, 0, 1)
        assert process.from_first(lambda: "made") == "made"
        assert process.gather("mine") == ["mine"]
