"""The page in a real browser: what a person sees, and that nothing goes to another machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import torch

from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.predictor import Predictor
from attnvgg.models import AttnVGG
from tests.conftest import draw_disc

SCRIPT = Path(__file__).parents[2] / "scripts" / "serve.py"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-background-networking"]
SIDE = 20_000
SECONDS = 15_000  # of the browser, in ms

pytest.importorskip("gradio", reason="the extra web is not installed")
pytest.importorskip("fastapi", reason="the extra serve is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two pictures, a text that claims to be one, and one that would take 1.2 GB of memory."""
    folder = tmp_path_factory.mktemp("files")
    for seed in (0, 1):
        cv2.imwrite(str(folder / f"{seed}.png"), draw_disc(np.random.default_rng(seed), seed))
    (folder / "text.jpg").write_text("This is no picture.")
    (folder / "huge.png").write_bytes(white_png(SIDE))
    assert (folder / "huge.png").stat().st_size < 2**20
    return folder


def white_png(side):
    """Return the file of a picture without holding its pixels."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (side // 8)
    content = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = side.to_bytes(4, "big") * 2 + bytes((1, 0, 0, 0, 0))  # one bit a pixel
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    AttnVGG(1, backbone="vgg11_bn").save_pretrained(
        folder, preprocess=Preprocess(64, 64).to_dict(), classes=["benign", "malignant"],
        threshold=0.4, synthetic=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """The address of `attnvgg serve`, and where its uploads lie; ended by a SIGTERM."""
    folder = tmp_path_factory.mktemp("temporary")
    words = [str(SCRIPT), str(model), "--engine=eager", "--port=0", "--threads=1"]
    log = folder / "log.txt"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=stream, stderr=stream,
            env=os.environ | {"TMPDIR": str(folder)},
        )  # fmt: skip
    try:
        until = time.time() + 90
        while not (found := re.search(r"at (http://[\d.:]+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.time() < until, log.read_text()
            time.sleep(0.1)
        yield found[1], folder
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
        assert not list(folder.glob("attnvgg-page-*"))
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()


@pytest.fixture
def open_page(server, tmp_path):
    """Return a function that opens the page, and fails for requests to other machines."""
    address, _ = server
    asked, wrong = set(), []
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)

        def make(width):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.set_default_timeout(SECONDS)
            page.on("request", lambda request: asked.add(urlsplit(request.url)[:2]))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto(address)
            page.wait_for_selector("#files button")
            return page

        yield make
        browser.close()
    assert {netloc for scheme, netloc in asked if scheme not in ("data", "blob")} == {
        urlsplit(address).netloc
    }
    assert wrong == []


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("width", [1280, 375])
def test_images_are_seen_and_refusals_are_read(open_page, server, files, model, width, tmp_path):
    page = open_page(width)
    assert page.inner_text(".notice").startswith("SYNTHETIC")
    assert "Not a medical device" in page.inner_text(".notice")
    assert fits(page)
    names = ("0.png", "text.jpg", "huge.png", "1.png")
    page.set_input_files("#files input[type=file]", [str(files / name) for name in names])
    page.wait_for_selector("a.download >> text=Figure")
    assert page.text_content("#status").strip().startswith("2 of 4 images predicted;")
    (wanted,) = Predictor(model, "eager")([files / "0.png"])
    case = page.locator("details.case[open]")
    assert case.count() == 1
    assert f"{wanted.probabilities[-1]:.3f}" in case.inner_text()
    assert "threshold 0.400" in case.inner_text()
    layers = case.locator("img.colours")
    assert [layer.get_attribute("alt") for layer in layers.all()] == [
        "Attention of pool-3 over 0.png", "Attention of pool-4 over 0.png",
    ]  # fmt: skip
    assert all(layer.evaluate("one => one.naturalWidth") == 64 for layer in layers.all())
    problems = page.locator(".problem")
    assert [text.split("\n")[0] for text in problems.all_inner_texts()] == ["text.jpg", "huge.png"]
    assert "pixels" in problems.nth(1).inner_text()
    assert "Traceback" not in page.inner_text("body")
    assert fits(page)
    blend(page, case, layers)
    save(page, tmp_path)
    page.screenshot(path=tmp_path / f"page-{width}.png", full_page=True)


def blend(page, case, layers):
    """Move the slider by keys: the opacity follows, and the server is not asked."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    assert layers.first.evaluate("one => getComputedStyle(one).opacity") == "0.4"
    case.locator("input[type=range]").focus()
    page.keyboard.press("End")
    assert layers.first.evaluate("one => getComputedStyle(one).opacity") == "1"
    assert asked == []


def save(page, folder):
    """Download figure and table."""
    for words, name, start in (
        ("Figure (PNG)", "attnvgg.png", b"\x89PNG"), ("Table (CSV)", "attnvgg.csv", b"name,"),
    ):  # fmt: skip
        with page.expect_download() as found:
            page.click(f"a.download >> text={words}")
        assert found.value.suggested_filename == name
        found.value.save_as(folder / name)
        assert (folder / name).read_bytes().startswith(start)
    assert len((folder / "attnvgg.csv").read_text().splitlines()) == 5


def test_by_keyboard_alone(open_page, files):
    page = open_page(1280)
    with page.expect_file_chooser() as chooser:
        for _ in range(5):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('#files') !== null"):
                break
        page.keyboard.press("Enter")
    chooser.value.set_files([str(files / "0.png"), str(files / "1.png")])
    page.wait_for_selector("a.download >> text=Figure")
    second = page.locator("details.case").nth(1)
    assert second.get_attribute("open") is None
    for _ in range(10):
        page.keyboard.press("Tab")
        if second.evaluate("one => one.firstElementChild === document.activeElement"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert second.get_attribute("open") is not None
    assert page.locator("details.case[open]").count() == 1


def test_a_submission_is_refused_before_it_is_sent(open_page, files, tmp_path):
    page = open_page(375)
    (tmp_path / "a.bmp").write_bytes(bytes(17 * 2**20))
    (tmp_path / "b.bmp").write_bytes(bytes(17 * 2**20))
    page.set_input_files(
        "#files input[type=file]", [str(tmp_path / "a.bmp"), str(tmp_path / "b.bmp")]
    )
    assert "34 MiB" in page.inner_text("#refusal")
    page.set_input_files("#files input[type=file]", [str(files / "0.png")] * 65)
    assert "65 files are too many" in page.inner_text("#refusal")
    page.set_input_files("#files input[type=file]", [str(files / "0.png")])
    page.wait_for_selector("details.case[open]")
    assert page.inner_text("#refusal") == ""
    assert fits(page)
