"""Asking Kaggle until it answers, and saying in one sentence why it does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import sleep
from typing import NoReturn, TypeVar

from requests import Response
from requests.exceptions import (
    ChunkedEncodingError,
    ContentDecodingError,
    InvalidJSONError,
    RequestException,
)
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from attnvgg.data.archives import FULL, gibibytes
from attnvgg.data.partial import Partial, StartOver
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before the second, third, ... attempt
LONGEST_WAIT = 300.0  # seconds; a server that asks for more is left alone
BUSY = {408, 429, 500, 502, 503, 504}

REJECTED = (
    "Kaggle does not accept your credentials: make a new token at "
    "https://www.kaggle.com/settings/api and put it where the old one was."
)

Result = TypeVar("Result")


def persist(
    attempt: Callable[[], Result], dataset: str, partial: Partial, delays: Sequence[float]
) -> Result:
    """Call `attempt` until it succeeds, fails for good, or `delays` are used up.

    What the libraries say about a failure may contain signed addresses or header values, so none
    of it goes into a message, and no exception of theirs leaves this function.
    """
    remaining = iter(delays)
    while True:
        try:
            return attempt()
        except RequestException as error:
            trouble, wait = _diagnose(error, dataset, partial)
        except OSError as error:
            _complain_about_disk(error, partial)
        delay = next(remaining, None)
        if delay is None:
            raise InputError(f"{trouble}: run this again later{_progress(partial)}.")
        logger.warning("%s: trying again in %.0f s.", trouble, max(delay, wait))
        sleep(max(delay, wait))


def _diagnose(error: RequestException, dataset: str, partial: Partial) -> tuple[str, float]:
    """Return what went wrong and the seconds to wait, or raise if waiting cannot help."""
    if isinstance(error, StartOver):
        return "The archive on Kaggle has changed", 0.0
    if isinstance(error, ChunkedEncodingError):
        return "The connection to Kaggle was cut", 0.0
    if isinstance(error, ContentDecodingError | InvalidJSONError):
        return "Kaggle's answer could not be understood", 0.0
    if error.response is None:
        return f"There is no connection to Kaggle ({type(error).__name__}; check the network)", 0.0
    status = error.response.status_code
    page = f"https://www.kaggle.com/datasets/{dataset}"
    if status == 416:
        partial.discard()
        return "The archive on Kaggle has changed", 0.0
    if status == 401:
        raise InputError(REJECTED) from None
    if status == 403:
        raise InputError(
            f"Kaggle refuses the download (403): open {page}, sign in with the account of your "
            f"credentials, accept the terms of the dataset, and run this again."
        ) from None
    if status == 404:
        raise InputError(f"There is no dataset {dataset} at {page} (404).") from None
    if status not in BUSY:
        raise InputError(f"Kaggle refuses the download of {page} ({status}).") from None
    wait = _retry_after(error.response)
    if wait > LONGEST_WAIT:
        raise InputError(
            f"Kaggle is busy ({status}): run this again in {wait / 60:.0f} minutes."
        ) from None
    return f"Kaggle is busy ({status})", wait


def _retry_after(response: Response) -> float:
    try:
        return float(Retry().parse_retry_after(response.headers.get("Retry-After", "0")))
    except InvalidHeader:
        return 0.0


def _complain_about_disk(error: OSError, partial: Partial) -> NoReturn:
    if error.errno in FULL:
        raise InputError(f"The disk filled up: make room{_progress(partial)}.") from None
    # Never the file name: a token that is taken for a path would be in it.
    raise InputError(
        f"The download cannot read or write a file ({error.strerror}): "
        f"check {partial.path.parent} and the folder of your Kaggle credentials."
    ) from None


def _progress(partial: Partial) -> str:
    if not partial.resume_headers:
        return ""
    return f"; {gibibytes(partial.size)} are kept, and running this again resumes there"
