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

from attnvgg.deploy.serving.bag_service import BagService
from attnvgg.deploy.serving.limits import Limits, Refused
from attnvgg.deploy.serving.service import Service, numbered

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp")
JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
TYPES = (*IMAGE_TYPES, JSON_TYPE, FORM_TYPE)
MOST_VALUES = 500_000  # of a JSON document: reading them holds up everybody
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


def read_form(service: Service, files: Sequence[bytes], fields: Mapping[str, str]) -> Payload:
    """Return the files of a form: images, or the instances of one bag.

    Args:
        service: that answers.
        files: contents.
        fields: `attention`, if that is wanted.

    Raises:
        Refused: there are no files, too many, or fields that are not known.
    """
    if unknown := sorted(set(fields) - {"attention"}):
        raise Refused(422, f"The form has a field {unknown[0][:40]!a}, which is not known.")
    wanted = fields.get("attention", "false").lower()
    if wanted not in ("true", "false", "1", "0"):
        raise Refused(422, 'The field "attention" must be true or false.')
    if not files:
        raise Refused(422, "The form holds no files.")
    _require_few(service, service.limits, len(files))
    if isinstance(service, BagService) and not service.takes_images:
        raise Refused(415, "A bag of this model holds features: send them as JSON.")
    instances = [{"images": list(files)}] if service.kind == "bags" else list(files)
    return Payload(instances, wanted in ("true", "1"))


def read_json(service: Service, body: bytes) -> Payload:
    """Return the instances of a JSON document.

    Raises:
        Refused: it is not what the endpoint understands, by the number of the instance.
    """
    if body.count(b",") + body.count(b"[") > MOST_VALUES:
        raise Refused(
            413,
            f"A document has at most {MOST_VALUES:,} values: send features packed, as "
            '{"base64": "<float32>", "shape": [N, D]}.',
        )
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(422, "The body is not JSON.") from None
    if not isinstance(content, dict) or not isinstance(content.get("instances"), list):
        raise Refused(422, f"{INSTANCES}.")
    if unknown := sorted(set(content) - {"instances", "attention"}):
        raise Refused(422, f"{INSTANCES}; {unknown[0][:40]!a} is not known.")
    attention = content.get("attention", False)
    if not isinstance(attention, bool):
        raise Refused(422, '"attention" must be true or false.')
    raw = content["instances"]
    if not raw:
        raise Refused(422, "There are no instances.")
    read: Callable[[Any], Any] = _read_image
    if isinstance(service, BagService):
        read = _read_tiles if service.takes_images else _read_features
    if service.kind == "images":
        _require_few(service, service.limits, len(raw))
    instances = []
    for place, value in enumerate(raw):
        with numbered(place, len(raw)):
            instances.append(read(value))
    if service.kind == "bags":
        sizes = [len(next(iter(bag.values()))) for bag in instances]
        _require_few(service, service.limits, sum(sizes))
        if len(sizes) > service.limits.queue:
            raise Refused(413, f"A request holds at most {service.limits.queue} bags.")
    return Payload(instances, attention)


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


def _read_tiles(value: Any) -> dict[str, list[bytes]]:
    """Return a bag of images."""
    if not isinstance(value, Mapping) or set(value) != {"images"}:
        raise Refused(422, 'A bag of this model is {"images": ["<base64>", ...]}.')
    if not isinstance(value["images"], list):
        raise Refused(422, 'The "images" of a bag are a list.')
    return {"images": [_read_image(item) for item in value["images"]]}


def _read_features(value: Any) -> dict[str, NDArray[np.float32]]:
    """Return a bag of features (N, D), or of any other shape, given as numbers or as bytes."""
    if not isinstance(value, Mapping) or set(value) != {"features"}:
        raise Refused(422, 'A bag of this model is {"features": [[...], ...]}.')
    given = value["features"]
    return {"features": _unpacked(given) if isinstance(given, Mapping) else _numbers(given)}


def _numbers(value: Any) -> NDArray[np.float32]:
    if not isinstance(value, list):
        raise Refused(422, 'The "features" of a bag are a list of lists of numbers.')
    try:
        found = np.array(value)
    except (TypeError, ValueError, OverflowError):
        raise Refused(422, 'The "features" of a bag are not numbers in equal rows.') from None
    # NumPy makes numbers of flags, and texts of numbers beside a text
    if found.dtype.kind not in "iuf" or _holds_flags(value):
        raise Refused(422, 'The "features" of a bag are not numbers in equal rows.')
    if found.ndim < 2:
        raise Refused(422, 'The "features" of a bag are a list of lists of numbers.')
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return found.astype(np.float32)


def _holds_flags(value: list[Any]) -> bool:
    if value and isinstance(value[0], list):
        return any(map(_holds_flags, value))
    return bool in set(map(type, value))


def _unpacked(value: Mapping[str, Any]) -> NDArray[np.float32]:
    shape = value.get("shape")
    if (
        set(value) != {"base64", "shape"}
        or not isinstance(value["base64"], str)
        or not isinstance(shape, list)
        or not 2 <= len(shape) <= 4
        or not all(type(side) is int and 0 < side < 2**31 for side in shape)
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
