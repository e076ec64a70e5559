"""From the body of a request to instances: every way that the endpoint understands."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attnvgg.deploy.serving.limits import Limits, Refused
from attnvgg.deploy.serving.service import Service

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp")
JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
TYPES = (*IMAGE_TYPES, JSON_TYPE, FORM_TYPE)
INSTANCES = 'The body must be {"instances": [...]}'


class Payload(NamedTuple):
    """What a request asks for.

    Attributes:
        instances: as `Service.prepare` takes them.
        attention: whether the answer is to hold it.
    """

    instances: list[Any]
    attention: bool = False


def read_single(service: Service, data: bytes) -> Payload:
    """Return the image that is the body.

    Raises:
        Refused: the model is of bags.
    """
    if service.kind == "bags":
        raise Refused(415, "This model is of bags: send JSON, or the images of one bag as a form.")
    return Payload([data])


def read_files(service: Service, files: Sequence[bytes]) -> Payload:
    """Return the files of a form: images, or the instances of one bag.

    Raises:
        Refused: there are none, or too many.
    """
    if not files:
        raise Refused(422, "The form holds no files.")
    _require_few(service, service.limits, len(files))
    return Payload([{"images": list(files)}] if service.kind == "bags" else list(files))


def read_json(service: Service, body: bytes) -> Payload:
    """Return the instances of a JSON document.

    Raises:
        Refused: it is not what the endpoint understands, by the number of the instance.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(422, "The body is not JSON.") from None
    if not isinstance(content, dict) or not isinstance(content.get("instances"), list):
        raise Refused(422, f"{INSTANCES}.")
    if unknown := sorted(set(content) - {"instances", "attention"}):
        raise Refused(422, f'{INSTANCES}; "{unknown[0][:40]}" is not known.')
    attention = content.get("attention", False)
    if not isinstance(attention, bool):
        raise Refused(422, '"attention" must be true or false.')
    raw = content["instances"]
    if not raw:
        raise Refused(422, "There are no instances.")
    read: Callable[[Any], Any] = _read_image if service.kind == "images" else _read_bag
    if service.kind == "images":
        _require_few(service, service.limits, len(raw))
    instances = [numbered(read, place, value, len(raw)) for place, value in enumerate(raw)]
    if service.kind == "bags":
        sizes = [len(next(iter(bag.values()))) for bag in instances]
        _require_few(service, service.limits, sum(sizes))
        if len(sizes) > service.limits.queue:
            raise Refused(413, f"A request holds at most {service.limits.queue} bags.")
    return Payload(instances, attention)


def numbered(function: Callable[[Any], Any], place: int, value: Any, of: int) -> Any:
    """Return function(value); a refusal names the instance, if there are several."""
    try:
        return function(value)
    except Refused as error:
        if of == 1:
            raise
        words = f"Instance {place} (the first is 0): {error.message}"
        raise Refused(error.status, words, error.retry_after) from error


def _require_few(service: Service, limits: Limits, count: int) -> None:
    most = min(limits.images, limits.queue) if service.kind == "images" else limits.instances
    if count > most:
        word = "images" if service.kind == "images" else "instances of bags"
        raise Refused(413, f"A request holds at most {most} {word}, not {count}.")


def _read_image(value: Any) -> bytes:
    if isinstance(value, Mapping):
        if set(value) != {"image"}:
            raise Refused(422, 'An image is {"image": "<base64>"}.')
        value = value["image"]
    if not isinstance(value, str):
        raise Refused(422, "An image is a text in base64.")
    return _from_base64(value)


def _read_bag(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or set(value) not in ({"images"}, {"features"}):
        raise Refused(422, 'A bag is {"images": ["<base64>", ...]} or {"features": [[...], ...]}.')
    if "features" in value:
        return {"features": _read_features(value["features"])}
    if not isinstance(value["images"], list):
        raise Refused(422, 'The "images" of a bag are a list.')
    return {"images": [_read_image(item) for item in value["images"]]}


def _read_features(value: Any) -> NDArray[np.float32]:
    """Return features (N, D), or instances of any other shape, given as numbers or as bytes."""
    if isinstance(value, Mapping):
        return _unpacked(value)
    if not isinstance(value, list):
        raise Refused(422, 'The "features" of a bag are a list of lists of numbers.')
    try:
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise Refused(422, 'The "features" of a bag are not numbers in equal rows.') from None
    if value and _holds_other(value):
        raise Refused(422, 'The "features" of a bag are not numbers in equal rows.')
    if found.ndim < 2:
        raise Refused(422, 'The "features" of a bag are a list of lists of numbers.')
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return found.astype(np.float32)


def _holds_other(value: list[Any]) -> bool:
    """Tell whether the first number is a text or a flag, which NumPy would turn into one."""
    first: Any = value
    while isinstance(first, list) and first:
        first = first[0]
    return isinstance(first, str | bool)


def _unpacked(value: Mapping[str, Any]) -> NDArray[np.float32]:
    shape = value.get("shape")
    if (
        set(value) != {"base64", "shape"}
        or not isinstance(value["base64"], str)
        or not isinstance(shape, list)
        or not 2 <= len(shape) <= 4
        or not all(type(side) is int and 0 <= side < 2**31 for side in shape)
    ):
        raise Refused(422, 'Packed features are {"base64": "<float32>", "shape": [N, D]}.')
    data = _from_base64(value["base64"])
    if len(data) != 4 * math.prod(shape):
        raise Refused(
            422,
            f"Features of the shape {shape} have {4 * math.prod(shape)} bytes, not {len(data)}.",
        )
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)


def _from_base64(text: str) -> bytes:
    """Return the bytes of a text, which may be a data URL."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, "A text is not base64.") from None
