"""Small pictures for the tests of the data room."""

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
