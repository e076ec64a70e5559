"""The audit trail: a line of JSON a prediction, appended, and read back as a table.

A record has no image content and no name of a file: what the model said, how its attention was
spread, and a few statistics of what it was shown.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

MAPS = {"attn1": "pool-3", "attn2": "pool-4", "attention": "weights"}
ALWAYS = ("request_id", "model", "called")  # in every record, beside its time


class Trail:
    """An append-only file of records; for any number of threads and processes.

    A line is one write on a descriptor that appends: lines of several processes do not mix, and a
    process that is killed leaves one torn line at most. What cannot be written, because the disk
    is full, is lost and counted: serving goes on.

    Args:
        path: of the file; made if it does not exist, readable for its owner only.

    Attributes:
        lost: records that could not be written.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.lost = Path(path), 0
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            self._file: int | None = os.open(self.path, flags, 0o600)
            self._torn = self._ends_torn(self._file)
        except OSError as error:
            raise InputError(
                f"The audit trail cannot be written to {self.path} ({error.strerror}): choose a "
                "file in a folder that exists and may be written to."
            ) from error

    @staticmethod
    def _ends_torn(file: int) -> bool:
        """Tell whether a process was killed in its last line, so that ours must begin a new one."""
        size = os.fstat(file).st_size
        return size > 0 and os.pread(file, 1, size - 1) != b"\n"

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record; one that cannot be written is counted in `lost`.

        Raises:
            ValueError: a number that is not finite, or a closed trail.
            TypeError: a value that is not JSON.
        """
        line = json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._file is None:
                raise ValueError(f"{self.path} is closed.")
            self._write(self._file, line)

    def _write(self, file: int, line: bytes) -> None:
        line = b"\n" + line if self._torn else line
        try:
            written = os.write(file, line)
        except OSError as error:
            self._torn = True
            self._lose(error.strerror)
            return
        self._torn = written < len(line)
        if self._torn:
            self._lose("it took only a part of the line")

    def _lose(self, reason: str | None) -> None:
        self.lost += 1
        if self.lost == 1:
            logger.error(
                "The audit trail %s cannot be written (%s): records are lost, serving goes on.",
                self.path,
                reason,
            )

    def close(self) -> None:
        """Push everything to the disk and close the file; once is enough, twice does no harm."""
        with self._lock:
            if self._file is None:
                return
            file, self._file = self._file, None
            try:
                os.fsync(file)
            except OSError as error:  # a full disk, or a pipe
                logger.error("The audit trail %s may be incomplete: %s.", self.path, error.strerror)
            finally:
                os.close(file)


def record_of(
    request_id: str,
    digest: str,
    prediction: Any,
    statistics: Mapping[str, float] | None = None,
    width: int | None = None,
    height: int | None = None,
) -> dict[str, Any]:
    """Return what is kept of a prediction, as JSON values.

    Args:
        request_id: of the answer.
        digest: of the model.
        prediction: `Prediction` of an image, or `BagPrediction` of a bag.
        statistics: `image_statistics` or `bag_statistics` of what the model was shown.
        width: of the source in pixels, of an image.
        height: likewise.
    """
    probabilities = np.asarray(prediction.probabilities)
    record: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        "request_id": request_id,
        "model": digest,
        "called": int(prediction.called),
        "logits": [_number(value) for value in prediction.logits],
    }
    if len(probabilities) <= 2:
        record["probability"] = _number(probabilities[-1])
    else:
        record["probabilities"] = [_number(value) for value in probabilities]
    record["entropy"] = entropies(prediction)
    weights = getattr(prediction, "attention", None)
    count = None if weights is None else len(weights)
    size = {"instances": count, "width": width, "height": height}
    record |= {name: int(value) for name, value in size.items() if value is not None}
    given = statistics or {}
    return record | {"input": {name: _number(value) for name, value in given.items()}}


def entropies(prediction: Any) -> dict[str, float | None]:
    """Return the entropy of each map, or of a bag's weights; see `entropy`."""
    found = {}
    for key, name in MAPS.items():
        if (weights := getattr(prediction, key, None)) is not None:
            # (N, M) of a bag: each of the M branches sums to 1, and so does their mean
            found[name] = entropy(weights.mean(axis=1) if key == "attention" else weights)
    return found


def entropy(weights: ArrayLike) -> float | None:
    """Return the entropy of attention as a share of its largest, log(positions), in [0, 1].

    1: no preference; 0: one position has it all. Weights that do not sum to 1, as those of a
    sigmoid, are divided by their sum first. None where there is one position only, or no weight.

    Args:
        weights: of any shape, none of them negative.
    """
    values = np.asarray(weights, np.float64).ravel()
    total = values.sum()
    if values.size < 2 or not math.isfinite(total) or total <= 0:
        return None
    shares = values[values > 0] / total
    found = -(shares * np.log(shares)).sum() / math.log(values.size)
    return float(np.clip(found, 0, 1))


def _number(value: Any) -> float | None:
    """Return a number that JSON has."""
    return float(value) if math.isfinite(value) else None


def read_trail(
    path: str | os.PathLike[str],
    since: datetime | str | None = None,
    until: datetime | str | None = None,
) -> pd.DataFrame:
    """Return the records of a period as a table, in the order of the file.

    Args:
        path: of the file.
        since: first moment, as in 2026-11-22 or 2026-11-22T08:00+01:00; without a zone it is UTC.
        until: first moment after it.

    Returns:
        Columns `time` (UTC), `request_id`, `model`, `called`; `probability`, of more than two
        classes `probability_0`...; `entropy_<map>`; `instances`, `width`, `height` and the input
        statistics, where they were recorded. `attrs["torn"]` is the number of lines that are no
        records, left by processes that were killed or by a full disk.

    Raises:
        InputError: there is no such file, it holds no record at all, or a moment is none.
    """
    start, end = _moment(since, "since"), _moment(until, "until")
    rows, torn, kept = [], 0, 0
    try:
        with open(path, "rb") as stream:
            for line in stream:
                if not line.strip():
                    continue
                row = _row(line)
                torn += row is None
                if row is None:
                    continue
                kept += 1
                if (start is None or row["time"] >= start) and (end is None or row["time"] < end):
                    rows.append(row)
    except OSError as error:
        raise InputError(f"There is no audit trail to read at {path}: {error.strerror}.") from error
    if torn and not kept:
        raise InputError(f"{path} is no audit trail: none of its {torn} lines is a record.")
    table = pd.DataFrame(rows, columns=None if rows else ["time", *ALWAYS])
    table.attrs["torn"] = torn
    return table


def _row(line: bytes) -> dict[str, Any] | None:
    """Return a record as a row of the table; None of a line that is none."""
    try:
        return flat(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of `record_of` as a row of the table of `read_trail`."""
    row: dict[str, Any] = {"time": datetime.fromisoformat(record["time"]).astimezone(UTC)}
    row |= {name: record[name] for name in ALWAYS}
    several = enumerate(record.get("probabilities", ()))
    row |= {f"probability_{number}": value for number, value in several}
    row |= {f"entropy_{name}": value for name, value in record["entropy"].items()}
    names = ("probability", "instances", "width", "height")
    row |= {name: record[name] for name in names if name in record}
    return row | dict(record["input"])


def _moment(value: datetime | str | None, name: str) -> datetime | None:
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except ValueError as error:
        raise InputError(
            f'--{name} "{value}" is no moment: write it as 2026-11-22 or 2026-11-22T08:00.'
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
