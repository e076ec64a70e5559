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
    },
    "required": ["logits", "probabilities", "probability", "called"],
}
ROWS = {"type": "array", "items": NUMBERS}
ATTENTION = {
    "images": {
        "type": "object",
        "properties": {
            "pool-3": ROWS,
            "pool-4": ROWS,
            "normalization": {"enum": ["softmax", "sigmoid"]},
            "region": {
                "type": "object",
                "description": "The square that the model saw, in pixels of the source.",
                "properties": {key: {"type": "number"} for key in ("top", "left", "side")},
            },
        },
        "required": ["pool-3", "pool-4", "normalization", "region"],
    },
    "bags": {
        "type": "object",
        "properties": {
            "weights": {
                "anyOf": [ROWS, {"type": "null"}],
                "description": "A row an instance, a column a branch; null: the pool has none.",
            },
            "instance_probabilities": {"anyOf": [ROWS, {"type": "null"}]},
        },
        "required": ["weights", "instance_probabilities"],
    },
}
IDENTITY: dict[str, Any] = {"X-Request-ID": {"schema": {"type": "string"}}}


def answer_schema(kind: str) -> dict[str, Any]:
    """Return the schema of an answer of a model of images or of bags."""
    parts: Any = PREDICTION["properties"]
    prediction = PREDICTION | {"properties": {**parts, "attention": ATTENTION[kind]}}
    return {
        "type": "object",
        "properties": {
            "model": {"type": "string", "description": "Digest of the weights."},
            "engine": {"type": "string"},
            "classes": {"type": "array", "items": {"type": "string"}},
            "threshold": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "synthetic": {"type": "boolean"},
            "predictions": {"type": "array", "items": prediction},
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
    403: "A browser sent it for a page of another site.",
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


def refusals(*statuses: int) -> dict[int | str, Any]:
    """Return the refusals of a path, as FastAPI takes them."""
    wait: dict[str, Any] = {
        "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}
    }
    return {
        status: {
            "description": REFUSALS[status],
            "content": {JSON_TYPE: {"schema": ERROR}},
            "headers": IDENTITY | (wait if status in (429, 503, 504) else {}),
        }
        for status in statuses
    }


def with_tokens(document: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI document how a token is brought, where the server wants one."""
    parts = document.setdefault("components", {})
    schemes: dict[str, Any] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "basic": {
            "type": "http", "scheme": "basic",
            "description": "The token is the password, of any user.",
        },
    }  # fmt: skip
    parts["securitySchemes"] = schemes
    document["security"] = [{}, {"bearer": []}, {"basic": []}]
    return document


def invocations_schema(kind: str) -> dict[str, Any]:
    """Return what FastAPI does not see of `POST /invocations`.

    Args:
        kind: images or bags.
    """
    images = kind == "images"
    document = {
        "type": "object",
        "properties": {
            "instances": {"type": "array", "items": IMAGE if images else BAG, "minItems": 1},
            "attention": {"type": "boolean", "default": False},
        },
        "required": ["instances"],
        "additionalProperties": False,
    }
    form = {
        "type": "object",
        "properties": {
            "file": {"type": "array", "items": FILE},
            "attention": {"type": "boolean", "default": False},
        },
        "additionalProperties": False,
    }
    content: dict[str, Any] = {JSON_TYPE: {"schema": document}, FORM_TYPE: {"schema": form}}
    answers: dict[str, Any] = {JSON_TYPE: {"schema": answer_schema(kind)}}
    if images:
        content |= {name: {"schema": FILE} for name in IMAGE_TYPES}
        answers["image/png"] = {"schema": FILE}
    responses = refusals(*REFUSALS)
    responses[200] = {
        "description": "Predictions in the order of the instances, or the figure of one image.",
        "headers": IDENTITY,
        "content": answers,
    }
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": responses,
    }
