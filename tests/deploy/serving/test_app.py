"""The endpoint: every way in, every answer out, every refusal in one sentence."""

import base64
import io
import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from attnvgg.deploy.bag_predictor import BagPredictor
from attnvgg.deploy.predictor import Predictor
from attnvgg.deploy.serving.app import answer_type
from attnvgg.deploy.serving.bag_service import BagService
from attnvgg.deploy.serving.limits import Limits, Refused
from attnvgg.deploy.serving.service import Prepared
from tests.deploy.serving.conftest import encoded

JPEG = {"content-type": "image/jpeg"}


def text(data):
    return base64.b64encode(data).decode()


def packed(bag):
    return {"base64": text(np.asarray(bag, "<f4").tobytes()), "shape": list(np.shape(bag))}


def refused(response, status):
    assert response.status_code == status, response.text
    content = response.json()
    assert set(content) == {"error", "request_id"}
    assert content["error"].endswith(".")
    assert "Traceback" not in content["error"]
    assert "\n" not in content["error"]
    return content["error"]


@pytest.fixture(scope="module")
def direct(image_model):
    return Predictor(image_model, "eager")


def test_each_way_in_gives_what_the_predictor_says(site, direct, picture):
    files = [picture(seed) for seed in range(3)]
    wanted = [float(found.logits[0]) for found in direct(map(_opened, files))]
    post = site.client.post
    single = [post("/invocations", content=f, headers={"content-type": "image/png"}) for f in files]
    as_json = post("/invocations", json={"instances": [{"image": text(f)} for f in files]})
    as_texts = post("/invocations", json={"instances": [f"data:image/png;base64,{text(files[0])}"]})
    form = post("/invocations", files=[("file", ("a.png", f, "image/png")) for f in files])
    found = [response.json()["predictions"][0] for response in single]
    for several in (found, as_json.json()["predictions"], form.json()["predictions"]):
        assert [p["logits"][0] for p in several] == pytest.approx(wanted, abs=1e-6)
    assert as_texts.json()["predictions"][0]["logits"] == pytest.approx(wanted[:1], abs=1e-6)


def _opened(data):
    return Image.open(io.BytesIO(data))


def test_the_answer_says_what_it_is_of(site, direct, picture):
    content = site.client.post("/invocations", content=picture(1), headers=JPEG).json()
    (found,) = content.pop("predictions")
    assert content["classes"] == ["benign", "malignant"]
    assert (content["threshold"], content["model"]) == (0.4, direct.digest)
    assert "Not a medical device" in content["caution"]
    assert sum(found["probabilities"]) == pytest.approx(1, abs=1e-12)
    assert found["probability"] == found["probabilities"][1]
    assert (found["called"] == "malignant") == (found["probability"] >= 0.4)


def test_fields_of_a_form(site, picture):
    files = {"file": ("a.png", picture(1), "image/png")}
    post = site.client.post
    for value, wanted in (("true", True), ("false", False)):
        answer = post("/invocations", files=files, data={"attention": value}).json()
        assert ("attention" in answer["predictions"][0]) == wanted
    assert "known" in refused(post("/invocations", files=files, data={"atention": "true"}), 422)
    assert "true or" in refused(post("/invocations", files=files, data={"attention": "x"}), 422)


def test_attention_on_request(site, direct, picture):
    (found,) = direct([_opened(picture(1, side=100))])
    response = site.client.post(
        "/invocations?attention=true", content=picture(1, side=100), headers=JPEG
    )
    attention = response.json()["predictions"][0]["attention"]
    np.testing.assert_allclose(attention["pool-3"], found.attn1, atol=1e-6)
    np.testing.assert_allclose(attention["pool-4"], found.attn2, atol=1e-6)
    assert attention["normalization"] == "softmax"
    assert attention["region"] == pytest.approx({"top": 0, "left": 0, "side": 100}, abs=4)


def test_the_figure_is_a_picture(site, picture):
    headers = JPEG | {"accept": "image/png"}
    response = site.client.post("/invocations", content=picture(1), headers=headers)
    assert response.headers["content-type"] == "image/png"
    assert min(_opened(response.content).size) > 200
    two = {"instances": [text(picture(0)), text(picture(1))]}
    refused(site.client.post("/invocations", json=two, headers={"accept": "image/png"}), 406)


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b"", "image/jpeg", 422, "empty"),
        (b"hello", "image/jpeg", 422, "not an image"),
        (b"hello", "text/plain", 415, "image/jpeg"),
        (b"hello", "", 415, "Content-Type"),
        (b"{", "application/json", 422, "not JSON"),
        (b"[" * 100_000, "application/json", 422, "not JSON"),
        (b'{"instances": 3}', "application/json", 422, "instances"),
        (b'{"instances": []}', "application/json", 422, "no instances"),
        (b'{"instances": [3]}', "application/json", 422, "base64"),
        (b'{"instances": ["a b"]}', "application/json", 422, "base64"),
        (b'{"instances": [{"picture": "aaaa"}]}', "application/json", 422, "image"),
        (b'{"instances": ["aaaa"], "atention": true}', "application/json", 422, "atention"),
        (b'{"instances": ["aaaa"], "attention": 1}', "application/json", 422, "attention"),
        (b'{"instances": ["", "", "", "", ""]}', "application/json", 413, "at most 4 images"),
        (b'{"instances": ["aaaa", "aaaa"]}', "application/json", 422, "Instance 0"),
        (b"x" * 600_000, "image/jpeg", 413, "0.5 MiB"),
        (b"--x--", "multipart/form-data; boundary=x", 422, "no files"),
        (b"hello", "multipart/form-data; boundary=x", 422, "form"),
        (b"hello", "multipart/form-data", 422, "form"),
    ],
)
def test_wrong_bodies(site, content, kind, status, words):
    response = site.client.post("/invocations", content=content, headers={"content-type": kind})
    assert words in refused(response, status)


def test_large_pictures_are_refused_before_they_are_decoded(site):
    """Of this file there is nothing but the head: who decodes it finds it broken."""
    head = encoded(np.zeros((3000, 3000, 3), np.uint8))[:100]
    response = site.client.post("/invocations", content=head, headers=JPEG)
    assert "3000 x 3000" in refused(response, 413)


def test_pixels_of_a_request_are_counted_together(open_site, image_model, picture):
    site = open_site(image_model, Limits(all_pixels=10_000))
    files = [("file", ("a.png", picture(seed), "image/png")) for seed in range(3)]
    assert site.client.post("/invocations", files=files[:2]).status_code == 200
    assert "10,000 pixels" in refused(site.client.post("/invocations", files=files), 413)


def test_what_is_decoded_has_its_limit(open_site, bag_model):
    site = open_site(bag_model, Limits(values_mib=0.01))
    for length, status in ((100, 200), (400, 413)):
        bag = {"features": packed(np.zeros((length, 4)))}
        response = site.client.post("/invocations", json={"instances": [bag]})
        assert response.status_code == status
    site.desk._decoded = 9_000
    bag = {"features": packed(np.zeros((100, 4)))}
    refused(site.client.post("/invocations", json={"instances": [bag]}), 429)
    assert site.desk._decoded == 9_000


def test_many_small_numbers_are_not_even_read(open_site, bag_model):
    site = open_site(bag_model, Limits())
    body = b'{"instances": [{"features": [' + b"[0]," * 600_000 + b"[0]]}]}"
    headers = {"content-type": "application/json"}
    words = refused(site.client.post("/invocations", content=body, headers=headers), 413)
    assert "packed" in words


def test_nothing_goes_on_for_a_refused_request(open_site, image_model, picture):
    site = open_site(image_model, Limits())
    decoded, prepare = [], site.desk.service.prepare

    def noted(data, is_over):
        decoded.append(data)
        return prepare(data, is_over)

    site.desk.service.prepare = noted
    broken = picture(0)[:-300] + bytes(300)
    files = [broken, *[picture(seed, side=250) for seed in range(60)]]
    form = [("file", ("a.png", data, "image/png")) for data in files]
    assert "Instance 0" in refused(site.client.post("/invocations", files=form), 422)
    assert len(decoded) < 30


def test_a_bag_stops_when_nobody_waits(bag_site):
    with pytest.raises(Refused, match="Nobody waits"):
        BagService._instance(None, b"", lambda: True)
    service = bag_site.desk.service
    large = Prepared(np.zeros((service.predictor.usual + 1, 4), np.float32), (5,))
    (future,) = service.submit([large], is_over=lambda: True)
    with pytest.raises(Refused, match="Nobody waits"):
        future.result(10)
    (future,) = service.submit([large], is_over=lambda: False)
    (wanted,) = service.predictor([large.values])
    np.testing.assert_array_equal(future.result(10).logits, wanted.logits)


def test_letters_that_are_none(site):
    """Half a surrogate is text to JSON, and to nobody else."""
    headers = {"content-type": "application/json"}
    for body in (b'{"instances": ["a"], "\\ud800": 1}', b'{"instances": ["\\ud800"]}'):
        refused(site.client.post("/invocations", content=body, headers=headers), 422)


def test_formats_that_strangers_may_send(site, picture):
    for form, status in [("WEBP", 200), ("BMP", 200), ("TIFF", 422), ("GIF", 422), ("PPM", 422)]:
        response = site.client.post("/invocations", content=picture(1, form), headers=JPEG)
        assert response.status_code == status, (form, response.text)
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"
    refused(site.client.post("/invocations", content=program, headers=JPEG), 422)


def test_a_picture_of_many_scans_is_not_begun(site, picture):
    data = picture(0, "JPEG")
    start = data.index(b"\xff\xda")
    slow = data[:-2] + data[start:-2] * 70 + data[-2:]
    words = refused(site.client.post("/invocations", content=slow, headers=JPEG), 422)
    assert "64 scans" in words


def test_cut_off_pictures_are_refused(site, picture):
    for form in ("PNG", "JPEG"):
        data = picture(0, form)
        words = refused(site.client.post("/invocations", content=data[:-200], headers=JPEG), 422)
        assert words.startswith("The file is")


def test_one_sentence_says_what_the_operator_can_do(site):
    grey = encoded(np.zeros((40, 40), np.uint8))
    assert "--convert" in refused(site.client.post("/invocations", content=grey, headers=JPEG), 422)


def test_bags(bag_site, bag_model):
    bags = [np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32) for n in (1, 5, 3)]
    wanted = list(BagPredictor(bag_model, "eager")(bags))
    content = {"instances": [{"features": bags[0].tolist()}], "attention": True}
    content["instances"] += [{"features": packed(bag)} for bag in bags[1:]]
    found = bag_site.client.post("/invocations", json=content).json()["predictions"]
    for one, other in zip(found, wanted, strict=True):
        assert one["logits"] == pytest.approx(other.logits.tolist(), abs=1e-6)
        np.testing.assert_allclose(one["attention"]["weights"], other.attention, atol=1e-6)


@pytest.mark.parametrize(
    ("bag", "status", "words"),
    [
        ({"features": []}, 422, "lists of numbers"),
        ({"features": [[]]}, 422, "shape"),
        ({"features": [[1, 2, 3]]}, 422, "shape"),
        ({"features": [[1, 2, 3, 4], [1]]}, 422, "equal rows"),
        ({"features": [["1", "2", "3", "4"]]}, 422, "not numbers"),
        ({"features": [[1, 2, 3, None]]}, 422, "not numbers"),
        ({"features": [[1, 2, 3, 4], [1.5, 2, 3, "4"]]}, 422, "not numbers"),
        ({"features": [[1, 2, 3, 4], [1, 2, 3, True]]}, 422, "not numbers"),
        ({"features": {"base64": text(b"\0\0\x80\x7f" * 4), "shape": [1, 4]}}, 422, "infinite"),
        (
            {"features": {"base64": "", "shape": [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]}},
            422,
            "Packed",
        ),
        ({"features": [[1, 2, 3, 1e300]]}, 422, "infinite"),
        ({"features": [[1, 2, 3, 4]] * 21}, 413, "at most 20"),
        ({"features": {"base64": "AAAA", "shape": [1, 4]}}, 422, "16 bytes, not 3"),
        ({"features": {"base64": "AAAA", "shape": [1, -4]}}, 422, "Packed"),
        ({"features": {"base64": "", "shape": [0, 4]}}, 422, "Packed"),
        ({"images": ["AAAA"]}, 422, '"features"'),
        ({"features": [[1, 2, 3, 4]], "images": []}, 422, "A bag of this model is"),
        ([1, 2], 422, "A bag of this model is"),
    ],
)
def test_wrong_bags(bag_site, bag, status, words):
    response = bag_site.client.post("/invocations", json={"instances": [bag]})
    assert words in refused(response, status)


def test_values_that_are_too_much_for_the_model(open_site, bag_model):
    site = open_site(bag_model)
    with torch.no_grad():
        site.desk.service.predictor.model.head.classifier.weight.fill_(3)
    bag = {"instances": [{"features": [[3e38] * 4]}]}
    assert "finite" in refused(site.client.post("/invocations", json=bag), 422)


def test_an_image_is_no_bag(bag_site, picture):
    refused(bag_site.client.post("/invocations", content=picture(0), headers=JPEG), 415)
    headers = {"accept": "image/png"}
    bag = {"instances": [{"features": [[1, 2, 3, 4]]}]}
    refused(bag_site.client.post("/invocations", json=bag, headers=headers), 406)


def test_many_at_once_are_not_swapped(site, direct, picture):
    files = [picture(seed) for seed in range(8)]
    wanted = [float(found.logits[0]) for found in direct(map(_opened, files))]
    assert len({round(logit, 4) for logit in wanted}) == 8
    found = {}

    def ask(place):
        response = site.client.post("/invocations", content=files[place % 8], headers=JPEG)
        found[place] = response.json()["predictions"][0]["logits"][0]

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[place] for place in range(40)] == pytest.approx(wanted * 5, abs=1e-5)


def test_no_answer_in_time(open_site, image_model, picture):
    site = open_site(image_model, Limits(seconds=0.2))
    release = threading.Event()
    site.desk.service._batcher._compute = lambda batch: release.wait(10)
    response = site.client.post("/invocations", content=picture(0), headers=JPEG)
    assert "0.2 s" in refused(response, 504)
    assert int(response.headers["retry-after"]) > 0
    release.set()


def test_busy(open_site, image_model, picture):
    site = open_site(image_model, Limits(queue=1))
    release, busy = threading.Event(), threading.Event()
    compute = site.desk.service._batcher._compute

    def slow(batch):
        busy.set()
        release.wait(10)
        return compute(batch)

    site.desk.service._batcher._compute = slow

    def ask(answers):
        answers.append(site.client.post("/invocations", content=picture(0), headers=JPEG))

    answers = []
    first = threading.Thread(target=ask, args=(answers,))
    first.start()
    assert busy.wait(10)
    second = threading.Thread(target=ask, args=(answers,))
    second.start()
    while site.desk.service.waiting < 1:
        pass
    late = site.client.post("/invocations", content=picture(0), headers=JPEG)
    assert "busy" in refused(late, 429)
    assert int(late.headers["retry-after"]) >= 1
    release.set()
    first.join()
    second.join()
    assert [answer.status_code for answer in answers] == [200, 200]


def test_a_failure_of_the_model_is_told_without_its_cause(open_site, image_model, picture):
    site = open_site(image_model)

    def fail(batch):
        raise RuntimeError("secret of the machine")

    site.desk.service._batcher._compute = fail
    response = site.client.post("/invocations", content=picture(0), headers=JPEG)
    assert "secret" not in refused(response, 500)


def test_what_a_monitor_reads(site, picture):
    assert site.client.get("/ping").json() == {"status": "ready"}
    card = site.client.get("/model").json()
    assert card["digest"] == site.desk.service.digest
    assert "Not a medical device" in json.dumps(card)
    site.client.post("/invocations", content=picture(1), headers=JPEG)
    lines = site.client.get("/metrics").text
    assert 'attnvgg_requests_total{path="/invocations",status="200"}' in lines
    assert "attnvgg_batch_size_count" in lines
    page = site.client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert site.client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200


def test_everything_answered_is_remembered(open_site, image_model, picture):
    kept = []
    site = open_site(image_model, remember=lambda *found: kept.append(found))
    response = site.client.post("/invocations", content=picture(1), headers=JPEG)
    ((identity, prepared, prediction),) = kept
    assert identity == response.headers["x-request-id"]
    assert prepared.size == (64, 64)
    assert float(prediction.logits[0]) == response.json()["predictions"][0]["logits"][0]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html, application/json;q=0.9", "application/json"),
        ("image/png", "image/png"),
        ("image/*, */*", "image/png"),
        ("text/html", None),
    ],
)
def test_what_is_wanted(accept, kind):
    if kind is None:
        with pytest.raises(Refused, match="application/json"):
            answer_type(accept)
    else:
        assert answer_type(accept) == kind
