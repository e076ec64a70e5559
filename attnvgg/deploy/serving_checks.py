"""What SageMaker and clients ask of a server, and whether it says what its model says."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import requests
from numpy.typing import NDArray

from attnvgg.data.digits import SIDE, GreyPreprocess
from attnvgg.deploy.bag_predictor import BagPredictor
from attnvgg.deploy.endpoint import Endpoint
from attnvgg.deploy.engines import AUTO
from attnvgg.deploy.predictor import Predictor
from attnvgg.deploy.wire import Answer, read_answer
from attnvgg.errors import InputError
from attnvgg.models import BagClassifier
from attnvgg.training.checkpoint import load_model

PING_SECONDS = 2.0  # SageMaker's limit
SAME = 1e-6  # largest difference of a probability, or of a logit as a share of it if above 1
IMAGES = 3
BAGS = (1, 5)  # instances of the bags that are sent
Asked = tuple[list[Answer], list[Any]]


class Report(NamedTuple):
    """What was seen.

    Attributes:
        answers: predictions that were compared.
        difference: the largest between the server's numbers and ours, see `SAME`.
        ping: slowest answer to /ping in seconds.
        ready: seconds until the first good one.
    """

    answers: int
    difference: float
    ping: float
    ready: float = 0.0


def check_contract(
    endpoint: Endpoint, folder: Path, cache: Path | None = None, engine: str = AUTO
) -> Report:
    """Ask a server everything that it must be able to answer.

    Args:
        endpoint: the server.
        folder: of the model that it serves.
        cache: of engines, for the model that is loaded here.
        engine: of that model; the server's has to be the same.

    Raises:
        InputError: the first thing that is not as it should be.
    """
    slowest = _check_ping(endpoint)
    is_bags = isinstance(load_model(folder), BagClassifier)
    if is_bags:
        answers, expected = _ask_of_bags(endpoint, BagPredictor(folder, engine, cache=cache))
    else:
        answers, expected = _ask_of_images(endpoint, Predictor(folder, engine, cache=cache))
    difference = _difference(answers, expected)
    if not difference <= SAME:
        raise InputError(
            f"The server's numbers differ from the model's by {difference:.3g}, more than {SAME:g}."
        )
    _check_refusals(endpoint)
    return Report(len(answers), difference, max(slowest, _check_ping(endpoint)))


def _check_ping(endpoint: Endpoint) -> float:
    """Return the seconds of the slowest of three answers to /ping."""
    slowest = 0.0
    for _ in range(3):
        start = time.perf_counter()
        if not endpoint.ready():
            raise InputError("The server does not answer /ping with 200.")
        slowest = max(slowest, time.perf_counter() - start)
    if slowest > PING_SECONDS:
        raise InputError(f"The server took {slowest:.1f} s to answer /ping: SageMaker waits for 2.")
    return slowest


def _ask_of_images(endpoint: Endpoint, predictor: Predictor) -> Asked:
    """Return answers to JPEG, PNG and JSON, and what the model says here."""
    side, rng = predictor.preprocess.resize, np.random.default_rng(0)
    files = []
    for number in range(IMAGES):
        pixels = rng.integers(0, 256, (side // 4 + number, side // 4 + 2, 3), np.uint8)
        large = cv2.resize(pixels, None, fx=5, fy=5)  # as smooth as a photograph
        files.append(bytes(cv2.imencode((".jpg", ".png")[number % 2], large)[1]))
    answers = [endpoint.predict_image(data) for data in files]
    answers += _by_json(endpoint, [{"image": _text(data)} for data in files])
    pixels_of = [cv2.cvtColor(_decoded(data), cv2.COLOR_BGR2RGB) for data in files]
    # in equal batches: a sum in another order is another one in its last bits
    alone, together = predictor(pixels_of, batch_size=1), predictor(pixels_of, batch_size=IMAGES)
    return answers, [*alone, *together]


def _ask_of_bags(endpoint: Endpoint, predictor: BagPredictor) -> Asked:
    """Return answers to files or features, in both of their forms, and what the model says here."""
    rng = np.random.default_rng(0)
    said = predictor.config.get("preprocess", {})
    if said.get("kind") == "features":
        bags = [rng.normal(size=(n, said["features"])).astype(np.float32) for n in BAGS]
        answers = [endpoint.predict_bag(features=bag) for bag in bags]
        answers += _by_json(endpoint, [{"features": bag.tolist()} for bag in bags])
    else:
        preprocess: Any = predictor.preprocess
        is_digits = isinstance(preprocess, GreyPreprocess)
        shape = (SIDE, SIDE) if is_digits else (preprocess.resize, preprocess.resize, 3)
        tiles = [list(rng.integers(0, 256, (n, *shape), np.uint8)) for n in BAGS]
        files = [[bytes(cv2.imencode(".png", tile)[1]) for tile in bag] for bag in tiles]
        answers = [endpoint.predict_bag(bag) for bag in files]
        answers += _by_json(endpoint, [{"images": list(map(_text, bag))} for bag in files])
        colours = slice(None) if is_digits else np.s_[..., ::-1]  # OpenCV writes BGR
        bags = [
            np.stack([preprocess(np.ascontiguousarray(tile[colours])).numpy() for tile in bag])
            for bag in tiles
        ]
    return answers, [*predictor(bags), *predictor(bags)]


def _check_refusals(endpoint: Endpoint) -> None:
    """Send what is wrong, and want a 4xx with a sentence."""
    for kind, body, wanted in (
        ("text/plain", b"hello", {415}),
        ("image/jpeg", b"\xff\xd8\xff\xe0 no picture", {415, 422}),
        ("application/json", b'{"instances": ', {400, 422}),
        ("application/json", b'{"instances": [{"image": "%%%"}]}', {400, 422}),
    ):
        answer = _post(endpoint, body, kind)
        if answer.status_code not in wanted:
            raise InputError(
                f"A wrong request ({kind}) is answered with {answer.status_code}, not "
                f"{' or '.join(map(str, sorted(wanted)))}."
            )
        try:
            sentence = answer.json()["error"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("A wrong request is not answered with a sentence.") from error
        if not sentence or "Traceback" in sentence:
            raise InputError("A wrong request is answered with a trace.")


def _by_json(endpoint: Endpoint, instances: Sequence[Any]) -> list[Answer]:
    """Return the predictions of several instances of one request."""
    content = _post(endpoint, None, None, {"instances": list(instances)}).json()
    if "predictions" not in content or len(content["predictions"]) != len(instances):
        raise InputError(f"JSON is not answered with a prediction an instance: {content}")
    return [read_answer({**content, "predictions": [one]}) for one in content["predictions"]]


def _post(
    endpoint: Endpoint, body: bytes | None, kind: str | None, json: Any = None
) -> requests.Response:
    headers = {} if kind is None else {"Content-Type": kind}
    with requests.Session() as session:
        session.trust_env = False  # no proxy
        place = f"{endpoint.url}/invocations"
        return session.post(place, data=body, json=json, headers=headers, timeout=60)


def _difference(answers: Sequence[Answer], expected: Sequence[Any]) -> float:
    """Return the largest difference, see `SAME`; the classes must be equal."""
    largest = 0.0
    for answer, wanted in zip(answers, expected, strict=True):
        if answer.classes[wanted.called] != answer.called:
            raise InputError(f"The server calls {answer.called} what the model calls otherwise.")
        probabilities = answer.probabilities[-len(wanted.probabilities) :]
        scale = np.maximum(1.0, np.abs(wanted.logits))
        largest = max(
            largest,
            float(np.max(np.abs(answer.logits - wanted.logits) / scale)),
            float(np.max(np.abs(probabilities - wanted.probabilities))),
        )
    return largest


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(data: bytes) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(pixels, np.uint8)
