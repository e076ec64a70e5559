"""A small encoder, and slides that answer as they are told."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from attnvgg.data.tiles import Tiles
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.tile_encoders import EncoderChoice, TileEncoder
from attnvgg.errors import InputError


class Means(nn.Module):
    """Encodes an image as the means of its channels, times 1, 2 and 3."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return images.mean(dim=(2, 3)) * self.scale


@pytest.fixture
def means():
    plain = Preprocess(16, 16, mean=(0, 0, 0), std=(1, 1, 1))
    return TileEncoder(Means().eval(), plain, "means@1;16px@1", EncoderChoice())


class FakeSlide:
    """A slide whose tile at (x, y) has the colour (x, y, 7); slow, broken or watched."""

    def __init__(self, path="fake.tiff", broken_at=None, seconds=0.0):
        self.path, self.broken_at, self.seconds = path, broken_at, seconds
        self.lock, self.begun, self.reading, self.closed = threading.Lock(), 0, 0, False

    def region(self, x, y, side, size):
        with self.lock:
            self.begun += 1
            self.reading += 1
        try:
            # the earlier tiles take longer, so that threads finish in another order
            time.sleep(self.seconds * (2 - x / 255))
            assert not self.closed
            if x == self.broken_at:
                raise InputError(f"{self.path} is broken, copy it again: no data.")
            return np.full((size, size, 3), (x, y, 7), np.uint8)
        finally:
            with self.lock:
                self.reading -= 1

    def close(self):
        assert not self.reading, "closed while a thread reads"
        self.closed = True


@pytest.fixture
def fake_slide():
    return FakeSlide


@pytest.fixture
def tiles():
    """Return a function that plans so many tiles, at (0, 100), (1, 99), ..."""

    def plan(count):
        x = np.arange(count)
        return Tiles(np.stack([x, 100 - x], 1), 16, 16, 0.5, 0, 16, np.ones(count))

    return plan
