"""A small model of images and one of bags, each behind the whole application."""

import io
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.serving.app import create_app
from attnvgg.deploy.serving.counters import Counters
from attnvgg.deploy.serving.desk import Desk
from attnvgg.deploy.serving.guard import Guard
from attnvgg.deploy.serving.limits import Limits
from attnvgg.deploy.serving.opening import open_service
from attnvgg.models import AttnVGG, BagClassifier
from tests.conftest import draw_disc

LIMITS = Limits(body_mib=0.5, pixels=40_000, images=4, instances=20, body_seconds=2.0)


def encoded(pixels, form="PNG"):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form)
    return content.getvalue()


@pytest.fixture(scope="session")
def picture():
    """Return the content of a picture's file, another one for each seed."""

    def make(seed=0, form="PNG", side=64):
        return encoded(draw_disc(np.random.default_rng(seed), seed % 2, side), form)

    return make


@pytest.fixture(scope="module")
def image_model(thin_vgg, tmp_path_factory):
    folder = tmp_path_factory.mktemp("image_model")
    torch.manual_seed(0)
    model = AttnVGG(1, normalize_attn=True, backbone="vgg11_bn").eval()
    with torch.no_grad():
        model.classifier.weight.normal_(std=0.3)
    model.save_pretrained(
        folder,
        preprocess=Preprocess(32, 32).to_dict(),
        classes=["benign", "malignant"],
        threshold=0.4,
    )
    return folder


@pytest.fixture(scope="module")
def bag_model(tmp_path_factory):
    """A model of bags of four features."""
    folder = tmp_path_factory.mktemp("bag_model")
    torch.manual_seed(0)
    encoder = {"name": "identity", "in_features": 4}
    model = BagClassifier(encoder, {"name": "gated_attention", "width": 3}).eval()
    preprocess = {"kind": "features", "features": 4}
    model.save_pretrained(folder, preprocess=preprocess, classes=["no", "yes"], threshold=0.5)
    return folder


class Site(NamedTuple):
    """A server without its socket."""

    client: TestClient
    desk: Desk
    guard: Guard


@pytest.fixture(scope="module")
def open_site():
    """Return a function that serves a model within this process."""
    closed = []

    def make(folder, limits=LIMITS, token=None, remember=None, hosts=None):
        counters = Counters()
        service = open_service(str(folder), limits, "eager", observe=counters.observe_batch)
        desk = Desk(service, limits, counters, remember)
        app = create_app(desk, lambda: guard.stopping)
        guard = Guard(app, limits, counters, token, hosts)
        closed.append(desk)
        return Site(TestClient(guard, raise_server_exceptions=False), desk, guard)

    yield make
    for desk in closed:
        desk.close()


@pytest.fixture(scope="module")
def site(open_site, image_model):
    return open_site(image_model)


@pytest.fixture(scope="module")
def bag_site(open_site, bag_model):
    return open_site(bag_model)
