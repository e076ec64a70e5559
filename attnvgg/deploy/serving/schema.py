"""What the endpoint takes and answers, in the words of OpenAPI."""

from __future__ import annotations

from typing import Any

from attnvgg.deploy.serving.payload import FORM_TYPE, IMAGE_TYPES, JSON_TYPE

TEXT = {"type": "string", "contentEncoding": "base64"}
FILE = {"type": "string", "format": "binary"}
NUMBERS = {"type": "array", "items": {"type": "number"}}
IMAGE = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"image": TEXT},
            "required": ["image"],
            "additionalProperties": False,
        },
        TEXT,
    ]
}
BAG = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"images": {"type": "array", "items": TEXT, "minItems": 1}},
            "required": ["images"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"features": {"type": "array", "items": NUMBERS, "minItems": 1}},
            "required": ["features"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "features": {
                    "type": "object",
                    "description": "Little-endian float32, rows first.",
                    "properties": {
                        "base64": TEXT,
                        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    },
                    "required": ["base64", "shape"],
                    "additionalProperties": False,
                }
            },
            "required": ["features"],
            "additionalProperties": False,
        },
    ]
}
PREDICTION = {
    "type": "object",
    "properties": {
        "logits": NUMBERS,
        "probabilities": {**NUMBERS, "description": "Of each class, in their order."},
        "probability": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Of the second of two classes, else of the one that is called.",
        },
        "called": {"type": "string"},
        "attention": {"type": "object"},
    },
    "required": ["logits", "probabilities", "probability", "called"],
}
ANSWER = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "description": "Digest of the weights."},
        "engine": {"type": "string"},
        "classes": {"type": "array", "items": {"type": "string"}},
        "threshold": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "synthetic": {"type": "boolean"},
        "predictions": {"type": "array", "items": PREDICTION},
        "caution": {"type": "string"},
    },
    "required": ["model", "classes", "threshold", "predictions", "caution"],
}
ERROR = {
    "type": "object",
    "properties": {
        "error": {"type": "string"},
        "request_id": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["error", "request_id"],
}
REFUSALS = {
    400: "Not HTTP as it should be.",
    401: "A token is needed.",
    406: "There is no answer of that type.",
    408: "The body came too slowly.",
    413: "The body, an image or the number of instances is too large.",
    415: "A body of that type is not understood.",
    421: "This server has another name.",
    422: "What was sent cannot be used.",
    429: "Busy: try again after Retry-After seconds.",
    503: "Stopping: ask another server.",
    504: "No answer in time.",
}


def invocations_schema(kind: str) -> dict[str, Any]:
    """Return what FastAPI does not see of `POST /invocations`.

    Args:
        kind: images or bags.
    """
    instance = IMAGE if kind == "images" else BAG
    document = {
        "type": "object",
        "properties": {
            "instances": {"type": "array", "items": instance, "minItems": 1},
            "attention": {"type": "boolean", "default": False},
        },
        "required": ["instances"],
        "additionalProperties": False,
    }
    form = {"type": "object", "properties": {"file": {"type": "array", "items": FILE}}}
    content = {JSON_TYPE: {"schema": document}, FORM_TYPE: {"schema": form}}
    if kind == "images":
        content |= {name: {"schema": FILE} for name in IMAGE_TYPES}
    answers: dict[int, Any] = {
        status: {"description": words, "content": {JSON_TYPE: {"schema": ERROR}}}
        for status, words in REFUSALS.items()
    }
    answers[200] = {
        "description": "Predictions in the order of the instances, or the figure of one image.",
        "content": {JSON_TYPE: {"schema": ANSWER}, "image/png": {"schema": FILE}},
    }
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": answers,
    }
