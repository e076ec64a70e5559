"""Small pictures for the tests of the data room."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def encoded():
    """Bytes of an 8x8 picture by the suffix of their format."""
    picture = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    return {suffix: cv2.imencode(suffix, picture)[1].tobytes() for suffix in (".jpg", ".png")}


@pytest.fixture
def draw(tmp_path, encoded):
    """Return a function that writes small pictures, named relative to the test's folder."""

    def write(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded[path.suffix.lower()])

    return write


@pytest.fixture
def two_at_once(tmp_path, monkeypatch):
    """Return a function that has two threads draw a sample, both begun when there is nothing yet.

    It is given the module of the sample and what draws a small one into a folder.
    """

    def draw_twice(module, draw):
        meeting, looks, drawn = threading.Barrier(2, timeout=10), [], []
        holds, write = module._holds, module._write

        def look(root, settings):
            found = holds(root, settings)
            looks.append(found)
            if len(looks) <= 2:
                meeting.wait()
            return found

        monkeypatch.setattr(module, "_holds", look)
        monkeypatch.setattr(module, "_write", lambda *rest: (drawn.append(rest), write(*rest)))
        with ThreadPoolExecutor(2) as pool:
            made = [pool.submit(draw, tmp_path / "sample") for _ in range(2)]
        assert [future.result() for future in made] == [tmp_path / "sample"] * 2
        assert looks[:2] == [False, False]
        return drawn

    return draw_twice
