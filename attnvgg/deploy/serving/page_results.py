"""From uploaded files to what the page says of each: prediction, maps, or one sentence."""

from __future__ import annotations

import csv
import io
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from attnvgg.data.decoding import decode_image
from attnvgg.deploy.serving.desk import Desk
from attnvgg.deploy.serving.image_service import ImageService
from attnvgg.deploy.serving.limits import Refused
from attnvgg.deploy.serving.service import Prepared
from attnvgg.explain import Case, grid_png
from attnvgg.explain.overlays import Pixels
from attnvgg.models.card import CAUTION, SYNTHETIC

logger = logging.getLogger(__name__)

SHOWN = 448  # pixels: the longer side of an image on the page has at least as many, or all it has
ROWS = 8  # images of a figure: they fill a page
DPI = 150
GONE = "The upload is not here any more: choose the file again."
FAILED = "The server failed; its log says why."
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet begins to calculate


@dataclass(frozen=True)
class Result:
    """What became of one file.

    Attributes:
        name: of the file.
        error: one sentence where there is no prediction.
        called: class that the model called.
        scored: class that `probability` is of: class 1 of two, else the called one.
        probability: of it.
        probabilities: of all classes, by their names.
        image: to be shown, RGB (H, W, 3).
        case: the same with its maps, where the model has maps.
    """

    name: str
    error: str | None = None
    called: str = ""
    scored: str = ""
    probability: float = 0.0
    probabilities: Mapping[str, float] = field(default_factory=dict)
    image: Pixels | None = None
    case: Case | None = None


def judge(desk: Desk, paths: Sequence[str | Path]) -> list[Result]:
    """Predict files, each for itself; the model gets as many at once as it computes together."""
    identity = uuid.uuid4().hex
    found: list[Result] = []
    together = desk.service.batch
    for start in range(0, len(paths), together):
        opened = [_open(desk, Path(path)) for path in paths[start : start + together]]
        found += [_finish(desk, identity, *parts) for parts in opened]
    return found


Opened = tuple[str, bytes, Prepared | None, Any, str | None]


def _open(desk: Desk, path: Path) -> Opened:
    """Read and decode a file and send it to the model: name, content, values, future, error."""
    service = desk.service
    try:
        data = path.read_bytes()
        prepared = service.prepare(data)
        (future,) = service.submit([prepared])
    except Refused as error:
        return path.name, b"", None, None, error.message
    except OSError:
        return path.name, b"", None, None, GONE
    return path.name, data, prepared, future, None


def _finish(
    desk: Desk, identity: str, name: str, data: bytes, prepared: Any, future: Any, error: str | None
) -> Result:
    """Wait for a prediction and put it into words."""
    if error is not None:
        return Result(name, error)
    try:
        prediction = future.result(timeout=desk.limits.seconds)
    except TimeoutError:
        future.cancel()
        return Result(name, f"There was no answer within {desk.limits.seconds:g} s.")
    except Exception:
        logger.exception("A prediction of the page failed.")
        return Result(name, FAILED)
    desk.note(identity, prepared, prediction)
    service = desk.service
    assert isinstance(service, ImageService)
    answer = service.answer(prepared, prediction)
    number = 1 if len(service.classes) == 2 else prediction.called
    case = None
    if prediction.attn1 is not None and prediction.attn2 is not None:
        case = service.case(data, prediction, name).reduced(SHOWN)
    image = _picture(service, data) if case is None else case.image
    return Result(
        name, None, answer["called"], service.classes[number], answer["probability"],
        dict(zip(service.classes, answer["probabilities"], strict=True)), image, case,
    )  # fmt: skip


def _picture(service: ImageService, data: bytes) -> Pixels:
    """Return an image for the page, of a model without maps."""
    image = decode_image(data, "image", SHOWN, service.predictor.preprocess.convert)
    factor = max(1, max(image.shape[:2]) // SHOWN)
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def to_csv(results: Sequence[Result], threshold: float | None, digest: str) -> bytes:
    """Return a table with a row a file."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(("name", "probability", "of", "called", "threshold", "model", "error"))
    for result in results:
        # A name that a spreadsheet would take for a formula is kept as text.
        name = f"'{result.name}" if result.name.startswith(FORMULA) else result.name
        limit = "" if threshold is None else repr(threshold)
        said = ("", "", "") if result.error else (
            repr(result.probability), result.scored, result.called,
        )  # fmt: skip
        writer.writerow((name, *said, limit, digest, result.error or ""))
    return stream.getvalue().encode()


def figures(service: ImageService, results: Sequence[Result]) -> Iterator[tuple[str, bytes]]:
    """Yield the figures of all images with maps: words for a link, and the PNG file."""
    cases = [result.case for result in results if result.case is not None]
    note = f"{SYNTHETIC} {CAUTION}" if service.synthetic else CAUTION
    for start in range(0, len(cases), ROWS):
        group = cases[start : start + ROWS]
        words = "" if len(cases) <= ROWS else f" {start + 1}\N{EN DASH}{start + len(group)}"
        figure = grid_png(
            group, kind=service.map_kind, threshold=service.threshold, caption=note, dpi=DPI
        )
        yield words, figure
