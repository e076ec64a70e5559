"""Predictions of any number of images: threads decode, others compute, parts are kept on disk.

One stream of images runs through all parts, so that the next part is being decoded while the last
batch of the one before is computed. A batch holds images of one part only: a part is the same
whether or not the job was interrupted before it.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.prediction_job import Job, Part, Row
from attnvgg.deploy.prediction_listing import FACTS, TRUTH
from attnvgg.deploy.prediction_panels import Panels
from attnvgg.deploy.predictor import Prediction, Predictor
from attnvgg.deploy.reading import read_ahead
from attnvgg.errors import InputError

Pixels = NDArray[np.float32]
Begun = tuple[Row, Future[Pixels]]


@dataclass(frozen=True)
class PredictionPace:
    """How images are read and computed."""

    batch_size: int = 8
    """Images that are computed together."""
    readers: int = 2
    """Threads that decode; as many draw, where there are overlays."""


class Answer(NamedTuple):
    """What was found of an image."""

    row: Row
    found: Prediction | str
    """A string says why there is none."""


class PartDone(NamedTuple):
    """What became of a part.

    Attributes:
        number: of the part.
        images: in it.
        lost: whether it could not be computed at all.
    """

    number: int
    images: int
    lost: bool = False


def predict_parts(
    predictor: Predictor,
    job: Job,
    numbers: Sequence[int],
    pace: PredictionPace,
    panels: Panels | None = None,
    between: Callable[[int], None] = lambda images: None,
) -> Iterator[PartDone]:
    """Predict parts of a job, keep each, and yield what became of it.

    An image that cannot be used is passed over, with the reason.

    Args:
        predictor: of the images.
        job: whose parts.
        numbers: of the parts.
        pace: how images are read and computed.
        panels: how overlays are drawn; None: they are not.
        between: called after each batch with the number of its images; may raise to stop.

    Raises:
        InputError: the disk is full.
    """
    rows = (row for number in numbers for row in job.rows(number))
    calls = ((row, partial(_read, predictor.preprocess, row)) for row in rows)
    read = read_ahead(calls, pace.readers, ahead=2 * pace.batch_size)
    batches = _batches(read, pace.batch_size, job.size)
    answers = _answers(predictor, batches, between)
    drawn = answers if panels is None else _drawn(panels, answers, pace)
    with closing(read), closing(answers), closing(drawn):
        for number in numbers:
            found = islice(drawn, job.length(number))
            part = _part(found, predictor.classes, job.known)
            job.write(number, part)
            yield PartDone(number, part.images)
        next(drawn, None)  # tells of the last batch


def header_of(known: tuple[str, ...], classes: int) -> list[str]:
    """Return the names of the columns of a table of predictions.

    Args:
        known: what is known of the images, see `Listing`.
        classes: number of logits.
    """
    ends = [""] if classes == 1 else [f"_{k}" for k in range(classes)]
    numbers = [f"{name}{end}" for name in ("logit", "probability") for end in ends]
    return ["index", "image", *_those(TRUTH, known), *numbers, "called", *_those(FACTS, known)]


def part_worker(
    predictor: Callable[[], Predictor],
    job: Job,
    pace: PredictionPace,
    overlays: Path | None,
) -> Callable[[int], PartDone]:
    """Open the model on the machine where this runs; return what predicts one part there.

    Args:
        predictor: opens it.
        job: as all machines see its folder.
        pace: how images are read and computed.
        overlays: folder of the overlays, if there are any.
    """
    torch.set_num_threads(1)
    opened = predictor()
    panels = None if overlays is None else Panels.of(opened, overlays)
    return lambda number: next(predict_parts(opened, job, [number], pace, panels))


def converting(predictor: Predictor, convert: bool) -> Predictor:
    """Let a model accept odd formats, if so asked; return it."""
    if convert:
        predictor.preprocess = replace(predictor.preprocess, convert=True)
    return predictor


def _read(preprocess: Preprocess, row: Row) -> Pixels:
    """Return the model's input, (3, size, size)."""
    if row.image != _printable(row.image):
        raise InputError("An image cannot be used:", [f"{row.image}: has a name not in UTF-8"])
    if "\0" in row.image:
        raise InputError("An image cannot be used:", [f"{row.image}: can be no name of a file"])
    return preprocess(row.image).numpy()


def _batches(read: Iterator[Begun], batch_size: int, part: int) -> Iterator[list[Begun]]:
    """Yield images that are computed together; `part` of them in a row are of one part."""
    for _, images in groupby(read, key=lambda one: one[0].place // part):
        while batch := list(islice(images, batch_size)):
            yield batch


def _answers(
    predictor: Predictor, batches: Iterator[list[Begun]], between: Callable[[int], None]
) -> Generator[Answer, None, None]:
    """Yield what is found of each image, in order."""
    for batch in batches:
        yield from _compute(predictor, batch)
        between(len(batch))


def _compute(predictor: Predictor, batch: list[Begun]) -> Iterator[Answer]:
    """Yield what is found of images that are being read."""
    failures = [_failure(future) for _, future in batch]
    pairs = list(zip(batch, failures, strict=True))
    good = [future.result() for (_, future), failed in pairs if not failed]
    computed = iter(predictor.compute(np.stack(good)) if good else [])
    for (row, _), failed in pairs:
        yield Answer(row, _reason(failed, row) if failed else _finite(next(computed)))


def _failure(future: Future[Any]) -> InputError | None:
    """Wait for a call; return what was wrong with its input."""
    error = future.exception()
    if error is not None and not isinstance(error, InputError):
        raise error
    return error


def _finite(prediction: Prediction) -> Prediction | str:
    return prediction if np.isfinite(prediction.logits).all() else "gives no finite logits"


def _reason(error: InputError, row: Row) -> str:
    """Return what is wrong with an image, without its path."""
    text = error.offenders[0] if error.offenders else error.message
    return text.removeprefix(f"{row.image}: ")


def _drawn(
    panels: Panels, answers: Iterator[Answer], pace: PredictionPace
) -> Generator[Answer, None, None]:
    """Draw what is found, and yield it when it is drawn."""
    calls = ((answer, partial(_draw, panels, answer)) for answer in answers)
    with closing(read_ahead(calls, pace.readers, ahead=2 * pace.batch_size)) as drawing:
        for answer, future in drawing:
            failed = _failure(future)
            yield answer._replace(found=_reason(failed, answer.row)) if failed else answer


def _draw(panels: Panels, answer: Answer) -> None:
    if not isinstance(answer.found, str):
        panels.draw(answer.row, answer.found)


def _part(answers: Iterable[Answer], classes: list[str], known: tuple[str, ...]) -> Part:
    """Return what is kept of a part."""
    rows, problems = io.StringIO(), io.StringIO()
    table, broken = (csv.writer(text, lineterminator="\n") for text in (rows, problems))
    called: Counter[str] = Counter()
    images = passed_over = 0
    for row, found in answers:
        images += 1
        if isinstance(found, str):
            passed_over += 1
            broken.writerow([row.place, _printable(row.image), _printable(found)])
            continue
        name = classes[found.called]
        called[name] += 1
        told = dict(zip(known, row.known, strict=True))
        table.writerow(
            [
                row.place,
                row.image,
                *(told[fact] for fact in _those(TRUTH, known)),
                *map(str, (*found.logits, *found.probabilities)),  # to the last bit
                name,
                *(told[fact] for fact in _those(FACTS, known)),
            ]
        )
    return Part(images, passed_over, dict(called), rows.getvalue(), problems.getvalue())


def _those(names: tuple[str, ...], known: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in known]


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
