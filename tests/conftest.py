"""What all tests share: no network, few threads, a small set of pictures, a trained run."""

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
import socket

import cv2
import numpy as np
import pandas as pd
import pytest

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


# What loads the libraries of engines comes last: they leave hooks in the process, and it is other
# tests that fork it.
LAST = (
    "tests/deploy/engines/", "tests/deploy/test_predictor.py", "tests/deploy/test_export.py",
    "tests/deploy/test_bag_predictor.py", "tests/deploy/test_frozen.py",
    "tests/cli/test_extract_int8.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Move the tests of engines to the end, all else as it is."""
    items.sort(key=lambda item: item.nodeid.startswith(LAST))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Only loopback can be reached: a test that needs the world fails."""
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
            raise OSError(f"no network in tests: {address}")
        return connect(self, address)

    def guarded_resolve(host, *rest, **more):
        if host not in LOOPBACK | {None}:
            raise socket.gaierror(f"no network in tests: {host}")
        return resolve(host, *rest, **more)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_resolve)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's cache."""
    folder = tmp_path_factory.getbasetemp() / "user-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


@pytest.fixture(autouse=True)
def no_stale_log():
    """What a command said goes to the standard output of its own test, which is closed after it."""
    yield
    logging.getLogger("attnvgg").handlers.clear()


def draw_disc(rng, label, side=64):
    """Return a picture with a disc, ragged where the label is 1."""
    image = np.full((side, side, 3), 200, np.uint8) - rng.integers(0, 20, (side, side, 3), np.uint8)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 18 + label * 8 * rng.uniform(-1, 1, angle.size)
    points = 32 + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return cv2.fillPoly(image, [points.astype(np.int32)], (70, 90, 120))


@pytest.fixture(scope="module")
def thin_vgg():
    """VGG-11 with an eighth of its channels, for all models of a module: most of the time goes.

    What such a module tests is what is done with models, not what they are. The session's runs
    have all channels: they must not be asked for in it.
    """
    import attnvgg.models.attnvgg
    import attnvgg.models.backbone

    channels = (8, 16, 32, 64, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attnvgg.models.backbone, "CHANNELS", channels)
        patch.setattr(attnvgg.models.attnvgg, "CHANNELS", channels)
        yield


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A CSV of 62 pictures of 20 patients, and the pictures beside it."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(62):
        label = int(i % 20 < 8)
        cv2.imwrite(str(folder / f"{i:02d}.png"), draw_disc(rng, label))
        sex = "female" if i % 2 else "male"
        rows.append(
            {"image": f"{i:02d}.png", "label": label, "group": f"p{i % 20:02d}", "sex": sex}
        )
    pd.DataFrame(rows).to_csv(folder / "cases.csv", index=False)
    return folder / "cases.csv"


@pytest.fixture(scope="session")
def small():
    """Options that make a run small: a shallow backbone, 32 px, few images a step."""
    return [
        "--model.weights=null", "--model.backbone=vgg11_bn", "--data.image_size=32",
        "--batch_size=8", "--optim.lr=1e-3", "--data.workers=0", "--threads=1",
        "--data.cache_gib=0", "--device=cpu", "--data.fractions=[0.5,0.25,0.25]",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def csv_options(pictures, small):
    """The options of a small run on the pictures."""
    return [*small, "--data.source=csv", f"--data.root={pictures}"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, csv_options):
    """The folder of a finished run of two epochs; read only."""
    from attnvgg.cli.train import main

    out = tmp_path_factory.mktemp("runs")
    assert main([*csv_options, "--epochs=2", f"--out={out}", "--name=trained"]) == 0
    return out / "trained"


@pytest.fixture(scope="session")
def tissue_picture():
    """Real tissue on white, (1024, 1536, 3): at x 256, y 256 and, smaller, at x 1024, y 384."""
    from skimage.data import immunohistochemistry

    tissue = immunohistochemistry()
    picture = np.full((1024, 1536, 3), 245, np.uint8)
    picture[256:768, 256:768] = tissue
    picture[384:768, 1024:1280] = tissue[:384, :256]
    picture.setflags(write=False)
    return picture


@pytest.fixture(scope="session")
def tissue_slide(tmp_path_factory, tissue_picture):
    """That picture as a generic TIFF: 0.5 microns per pixel, downsamples 1, 4, 16; read only."""
    from attnvgg.data.slide_writer import write_slide

    path = tmp_path_factory.mktemp("slides") / "tissue.tiff"
    write_slide(path, tissue_picture, mpp=0.5)
    return path


@pytest.fixture(scope="session")
def aperio_slide(tmp_path_factory, tissue_picture):
    """That picture as Aperio's scanners write it: 0.25 microns per pixel; read only."""
    from attnvgg.data.slide_writer import write_slide

    path = tmp_path_factory.mktemp("slides") / "aperio.svs"
    write_slide(path, tissue_picture, mpp=0.25, vendor="aperio")
    return path
