"""The page behind its few addresses: what it says, what it keeps, what it refuses."""

import csv
import json
import os
import re
import stat
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from attnvgg.data.transforms import Preprocess, Region
from attnvgg.deploy.serving.app import create_app
from attnvgg.deploy.serving.counters import Counters
from attnvgg.deploy.serving.desk import Desk
from attnvgg.deploy.serving.guard import Guard
from attnvgg.deploy.serving.limits import Limits, Refused
from attnvgg.deploy.serving.opening import open_service
from attnvgg.deploy.serving.page_card import card_html, notice_html
from attnvgg.deploy.serving.page_files import AGE, PERIOD, UploadFolder
from attnvgg.deploy.serving.page_results import Result, judge, to_csv
from attnvgg.deploy.serving.page_text import colour_layer, decision, results_html, status_words
from attnvgg.deploy.serving.web import mount_page
from attnvgg.errors import InputError
from attnvgg.explain import Case
from attnvgg.models import AttnVGG
from attnvgg.training.checkpoint import load_model

IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def page(image_model):
    """A server with the page, within this process; uploads live for half a second."""
    pytest.importorskip("gradio")
    limits = Limits(body_mib=0.5, pixels=40_000, images=3)
    counters = Counters()
    service = open_service(str(image_model), limits, "eager", observe=counters.observe_batch)
    desk = Desk(service, limits, counters, None)
    app = mount_page(create_app(desk), desk, age=0.5, period=0.1)
    with TestClient(Guard(app, limits, counters), raise_server_exceptions=False) as client:
        client.sessions = app.routes[-1].app._app.state_holder.session_data
        client.folder = os.environ["GRADIO_TEMP_DIR"]
        yield client
    assert not os.path.exists(client.folder)


def submit(client, files):
    """Do what the browser does, and return the last values of status, results and downloads."""
    parts = [("files", (name, content)) for name, content in files]
    paths = client.post("/gradio_api/upload", files=parts).json()
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]
    config = json.loads(re.search(r"gradio_config = (.*?);</script>", client.get("/").text)[1])
    (event,) = [one["id"] for one in config["dependencies"] if one["inputs"]]
    body = {"data": [data], "fn_index": event, "session_hash": "me"}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    answer = client.get("/gradio_api/queue/data", params={"session_hash": "me"})
    messages = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    first = next(one for one in messages if one["msg"] == "process_generating")
    (last,) = [one for one in messages if one["msg"] == "process_completed"]
    assert last["success"], last
    return first["output"]["data"], last["output"]["data"]


def test_an_upload_is_predicted_counted_and_deleted(page, picture):
    sent = page.post("/invocations", content=picture(1), headers={"content-type": "image/png"})
    wanted = sent.json()["predictions"][0]
    files = [("mine.png", picture(1)), ("text.jpg", b"no image"), ("<b>.png", picture(2))]
    (status, shown, _), (_, _, downloads) = submit(page, files)
    assert "2 of 3" in status
    assert f"<b>{wanted['probability']:.3f}</b>" in shown
    assert f"Called <b>{wanted['called']}</b>" in shown
    assert shown.count("class='colours'") == 4
    assert shown.count("class='case problem'") == 1
    assert downloads.count("data:image/png;base64,iVBOR") == 1
    assert downloads.count("data:text/csv;base64,") == 1
    assert not re.search(r"https?:|src='(?!data:)|href='(?!data:)", shown + downloads)
    counted = re.findall(r"attnvgg_predictions_total\{.*\} (\S+)", page.get("/metrics").text)
    assert sum(map(float, counted)) == 3
    assert list(page.sessions) == ["me"]  # Gradio keeps the last answer of a session
    until = time.time() + 10
    while (os.listdir(page.folder) or page.sessions) and time.time() < until:
        time.sleep(0.1)
    assert os.listdir(page.folder) == []
    assert not page.sessions


def test_too_many_images_are_refused(page, picture):
    parts = [(f"{seed}.png", picture(0)) for seed in range(4)]
    _, (status, _, _) = submit(page, parts)
    assert "at most 3" in status


def test_only_what_the_page_needs_can_be_reached(page, tmp_path):
    (tmp_path / "secret").write_text("secret")
    for path in (
        f"file={tmp_path}/secret", "file=http://127.0.0.1/", "proxy=http://127.0.0.1/", "info",
        "runs", "openapi.json", "token", "app_id", "queue/status", "startup-events",
    ):  # fmt: skip
        response = page.get(f"/gradio_api/{path}")
        assert response.status_code == 404
        assert response.json()["error"] == "There is nothing at this address."
    for path in ("/config", "/monitoring", "/login", "/svelte/x", "/robots.txt", "/x"):
        assert page.get(path).status_code == 404
    for path in ("run/predict", "call/x", "component_server", "cancel", "vibe-edit", "reset"):
        assert page.post(f"/gradio_api/{path}", json={}).status_code == 404
    assert page.get("/gradio_api/heartbeat/me").status_code == 204  # never an endless answer
    assert page.get("/ping").json() == {"status": "ready"}
    assert page.get("/model").json()["kind"] == "images"


@pytest.mark.parametrize("place", ["/gradio_api/upload", "/gradio_api/queue/join"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff", b'{"fn_index": 99, "data": [[]], "session_hash": "a"}'],
    ids=["empty", "mapping", "list", "bytes", "no-function"],
)
def test_nonsense_gets_one_sentence(page, place, content):
    for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=x"):
        response = page.post(place, content=content, headers={"content-type": kind})
        if response.status_code == 200:  # a form without files
            assert response.json() == []
            continue
        assert 400 <= response.status_code < 500
        assert "Traceback" not in response.text
        assert response.json()["error"].endswith(".")


def test_a_path_that_was_not_uploaded_is_not_read(page, tmp_path, picture):
    (tmp_path / "other.png").write_bytes(picture(0))
    os.symlink(tmp_path / "other.png", f"{page.folder}/link.png")
    for path in (
        str(tmp_path / "other.png"), f"{page.folder}/link.png", f"{page.folder}/../a.png",
        "http://127.0.0.1:9/a.png", "\0", 3, None,
    ):  # fmt: skip
        data = [{"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}]
        body = {"data": [data], "fn_index": 0, "session_hash": "you"}
        response = page.post("/gradio_api/queue/join", json=body)
        assert response.status_code == 400
        assert response.json()["error"].endswith(".")


@pytest.mark.parametrize(
    "body",
    [
        {"data": [[{"path": "a/" * 100_000}]], "fn_index": 0, "session_hash": "you"},
        {"data": [[]], "fn_index": 0, "session_hash": "\ud800"},
        {"data": [[]], "fn_index": 1e999, "session_hash": "you"},
    ],
)
def test_a_submission_that_is_made_to_hurt(page, body):
    began = time.perf_counter()
    response = page.post("/gradio_api/queue/join", content=json.dumps(body))
    assert response.status_code == 400
    assert time.perf_counter() - began < 2  # a long path took a minute


def test_a_known_address_asked_in_another_way(page):
    assert page.get("/invocations").status_code == 405
    assert page.head("/ping").status_code == 200
    assert page.get("/other").status_code == 404


def test_uploads_have_their_room(page, picture):
    files = {"files": ("a.png", picture(0), "image/png")}
    full = Path(page.folder) / "full"
    full.parent.mkdir(exist_ok=True)
    with full.open("wb") as stream:
        stream.truncate(600 * 2**20)  # without a block on the disk
    response = page.post("/gradio_api/upload", files=files)
    assert (response.status_code, response.headers["retry-after"]) == (429, "60")
    full.unlink()
    assert page.post("/gradio_api/upload", files=files).status_code == 200


def test_old_uploads_are_deleted_and_all_at_the_end():
    assert AGE + PERIOD < 60
    folder = UploadFolder(age=40, period=100)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    old, new = folder.path / "a" / "old", folder.path / "b" / "new"
    for path in (old, new):
        path.parent.mkdir()
        path.touch()
    then = time.time() - 41
    os.utime(old, (then, then))
    folder.sweep()
    assert not old.exists()
    assert new.exists()
    os.utime(old.parent, (then, then))
    folder.sweep()
    assert not old.parent.exists()
    folder.close()
    folder.close()
    assert not folder.path.exists()
    assert os.environ.get("GRADIO_TEMP_DIR") != str(folder.path)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_the_browsers_blend_is_the_overlay(kind):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 90, 3), np.uint8)
    maps = [rng.random((4, 4)), rng.random((2, 2))]
    maps = [one / one.sum() for one in maps] if kind == "softmax" else maps
    case = Case(image, *maps, 0.5, "a", region=Region(0, 25, 40), input_size=32)
    for weights, wanted in zip(maps, case.panels(kind)[1:], strict=True):
        levels, table = colour_layer(case, weights, kind)
        found = 0.6 * image + 0.4 * table[levels]
        assert np.abs(found - wanted).max() < 3  # a level is 4 of blue, of which 0.4


def test_no_probability_looks_like_the_threshold_that_it_is_not():
    result = Result("a", None, "no", "yes", 0.44586, {"no": 0.55414, "yes": 0.44586}, IMAGE)
    words = decision(result, 0.44587)
    assert "0.44586 is below the threshold of 0.44587" in words
    called = Result("a", None, "yes", "yes", 0.5, {"no": 0.5, "yes": 0.5}, IMAGE)
    assert "at or above the threshold of 0.500 (none was chosen" in decision(called, None)
    many = Result("a", None, "b", "b", 0.5, {"a": 0.2, "b": 0.5, "c": 0.3}, IMAGE)
    assert "likeliest class is called: a 0.200, b 0.500, c 0.300." in decision(many, None)


def test_names_are_text_and_not_html():
    name = "<img src=x onerror=alert(1)>'\".png"
    results = [
        Result(name, "<i>"),
        Result(name, None, "<u>", "<u>", 1.0, {"<i>": 0.0, "<u>": 1.0}, IMAGE),
    ]
    shown = results_html(results, 0.5, None)
    assert not re.search("<img src=x|<i>|<u>", shown)
    assert "1 of 2" in status_words(results)


def test_the_table_has_a_row_a_file():
    results = [
        Result("=1+1", None, "b", "b", 0.75, {"a": 0.25, "b": 0.75}, IMAGE),
        Result("x", "Broken."),
    ]
    rows = list(csv.DictReader(to_csv(results, 0.5, "abc").decode().splitlines()))
    assert [row["name"] for row in rows] == ["'=1+1", "x"]
    assert [row["probability"] for row in rows] == ["0.75", ""]
    assert [row["model"] for row in rows] == ["abc", "abc"]
    assert rows[1]["error"] == "Broken."


@pytest.mark.parametrize("attention", [True, False])
def test_three_classes_with_and_without_maps(thin_vgg, attention, tmp_path, picture):
    torch.manual_seed(0)
    model = AttnVGG(3, attention=attention, backbone="vgg11_bn").eval()
    plain = Preprocess(32, 32).to_dict()
    model.save_pretrained(tmp_path, preprocess=plain, classes=["a", "b", "c"], synthetic=True)
    limits = Limits()
    desk = Desk(open_service(str(tmp_path), limits, "eager"), limits, Counters(), None)
    (tmp_path / "a.png").write_bytes(picture(0))
    (one,) = judge(desk, [tmp_path / "a.png"])
    wanted = load_model(tmp_path).eval()
    values = desk.service.prepare(picture(0)).values
    with torch.no_grad():
        logits = wanted(torch.from_numpy(values)[None]).logits[0]
    assert list(one.probabilities) == ["a", "b", "c"]
    wanted_list = logits.softmax(0).tolist()
    assert list(one.probabilities.values()) == pytest.approx(wanted_list, abs=1e-6)
    assert (one.case is None) is not attention
    shown = results_html([one], None, desk.service.map_kind)
    assert shown.count("class='colours'") == 2 * attention
    assert ("type='range'" in shown) is attention
    assert notice_html(desk.service.card).index("SYNTHETIC") < 100
    assert "Not recorded" in card_html(desk.service.card)
    desk.close()


def test_one_refusal_leaves_the_others(page_desk, tmp_path, picture, monkeypatch):
    service = page_desk.service
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(picture(0))
    pixels = np.zeros((300, 300, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "large.png"), pixels)
    results = judge(page_desk, [tmp_path / name for name in ("a", "large.png", "gone", "b")])
    assert [one.error is None for one in results] == [True, False, False, True]
    assert "300 x 300" in results[1].error
    assert "not here any more" in results[2].error

    def busy(prepared):
        raise Refused(429, "The server is busy: try again in 1 s.", 1)

    monkeypatch.setattr(service, "submit", busy)
    (one,) = judge(page_desk, [tmp_path / "a"])
    assert one.error == "The server is busy: try again in 1 s."


@pytest.fixture
def page_desk(image_model):
    limits = Limits(pixels=40_000)
    desk = Desk(open_service(str(image_model), limits, "eager"), limits, Counters(), None)
    yield desk
    desk.close()


def test_without_gradio_one_sentence(page_desk, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"attnvgg\[web\]"):
        mount_page(create_app(page_desk), page_desk)
