"""A small synthetic sample, and ways to change its pictures that keep what they show."""

import cv2
import numpy as np
import pytest

from attnvgg.data.decoding import read_image
from attnvgg.data.sample import make_sample
from attnvgg.data.sources import load_source
from attnvgg.data.splits import split_manifest


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """The folder of 80 pictures of 64 px; read only."""
    return make_sample(tmp_path_factory.mktemp("audited") / "sample", 80, 5, workers=1, size=64)


@pytest.fixture(scope="session")
def cases(sample):
    """Their manifest with a clean split; read only."""
    return split_manifest(load_source("kaggle", sample))


@pytest.fixture(scope="session")
def photos(cases):
    """Their pixels, 80 x (64, 64, 3); read only."""
    return [read_image(path) for path in cases["image"]]


def held(picture, way):
    """Return a picture held in one of the eight ways."""
    turned = np.rot90(picture, way % 4)
    return np.ascontiguousarray(turned[:, ::-1] if way >= 4 else turned)


def decoded(data):
    """Return the pixels of a JPEG."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def changed(picture, number):
    """Return a copy: held otherwise, of another size, recompressed; all of it by its number."""
    side = (48, 64, 100, 57)[number % 4]
    copy = cv2.resize(held(picture, number % 8), (side, side), interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, (60, 90, 75)[number % 3]]
    return cv2.imencode(".jpg", copy[:, :, ::-1], quality)[1].tobytes()
