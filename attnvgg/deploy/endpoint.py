"""A client of a served model: images and bags go there, what the model says comes back.

The token is that of the environment variable `ATTNVGG_TOKEN`, so that it stands in no list of
processes and in no history of a shell. Files are sent under a number in place of their name, which
may be that of a patient.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from numpy.typing import ArrayLike

from attnvgg.deploy.wire import Answer, File, content_type, file_bytes, packed, read_answer
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

TOKEN = "ATTNVGG_TOKEN"  # never an option: all processes of a machine see those of the others
BUSY = (429, 503)  # tried again, after the seconds of Retry-After
TRIES = 8  # of a busy endpoint
LONGEST = 30.0  # seconds to wait at once, whatever Retry-After says
CONNECTING = 5.0  # seconds
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Bearer(requests.auth.AuthBase):
    """Adds the token; unlike a header it is not replaced by what a `.netrc` holds."""

    token: str = field(repr=False)

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class Endpoint:
    """A served model at an address; threads may share it.

    Args:
        url: such as http://127.0.0.1:8080.
        token: None: that of the environment variable ATTNVGG_TOKEN, if it is set.
        timeout: seconds to wait for an answer.

    Raises:
        InputError: the address is none, or holds a password.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 60) -> None:
        self.url = _checked(url)
        token = (os.environ.get(TOKEN, "") if token is None else token).strip()
        self.auth = Bearer(token) if token else None
        self.is_local = urlsplit(url).hostname in LOOPBACK
        if token and self.url.startswith("http:") and not self.is_local:
            logger.warning("The token travels to %s unencrypted: use https there.", self.url)
        self.timeout = timeout
        self.wait: Callable[[float], None] = time.sleep
        self._own = threading.local()

    def ready(self) -> bool:
        """Return whether the endpoint is there and takes requests."""
        try:
            answer = self._session.get(f"{self.url}/ping", timeout=self._limits)
        except requests.RequestException:
            return False
        return bool(answer.status_code == requests.codes.ok)

    def model(self) -> dict[str, Any]:
        """Return the card of the served model."""
        found: dict[str, Any] = self._json(self._send("GET", "model"))
        return found

    def predict_image(self, image: File, attention: bool = False) -> Answer:
        """Return what the model says of an image.

        Args:
            image: a file, or its bytes.
            attention: ask for its maps as well.

        Raises:
            InputError: the endpoint is not there, does not take the image, or stays busy.
        """
        data = file_bytes(image)
        return self._invoke(attention, data=data, headers={"Content-Type": content_type(data)})

    def predict_bag(
        self,
        images: Sequence[File] | None = None,
        features: ArrayLike | None = None,
        attention: bool = False,
    ) -> Answer:
        """Return what the model says of a bag.

        Args:
            images: files of its instances, or their bytes.
            features: in place of them, vectors of its instances, (N, D).
            attention: ask for the weights of the instances as well.

        Raises:
            InputError: see `predict_image`.
        """
        if (images is None) == (features is None):
            raise InputError("A bag has either images or features.")
        if features is not None:
            return self._invoke(attention, json={"instances": [{"features": packed(features)}]})
        parts = []
        for number, image in enumerate(images or ()):
            data = file_bytes(image)
            parts.append(("file", (str(number), data, content_type(data))))
        if not parts:
            raise InputError("A bag has at least one image.")
        return self._invoke(attention, files=parts)

    def _invoke(self, attention: bool, **content: Any) -> Answer:
        """Send one image or bag, and return what is said of it."""
        question = {"attention": "true"} if attention else None
        found = self._json(self._send("POST", "invocations", params=question, **content))
        try:
            return read_answer(found)
        except (KeyError, TypeError, ValueError) as error:
            raise self._stranger() from error

    def _send(self, method: str, path: str, **content: Any) -> requests.Response:
        """Return a good answer; wait and try again while the endpoint is busy."""
        for number in range(1, TRIES + 1):
            answer = self._once(method, path, **content)
            if answer.status_code not in BUSY or number == TRIES:
                break
            self.wait(_seconds(answer))
        if answer.status_code != requests.codes.ok:
            raise InputError(self._refusal(answer))
        return answer

    def _once(self, method: str, path: str, **content: Any) -> requests.Response:
        request = {
            "headers": {},
            "timeout": self._limits,
            "allow_redirects": False,  # a redirected POST becomes a GET, and the token travels on
            **content,
        }
        request["headers"] = {"Accept": "application/json", **request["headers"]}
        place = f"{self.url}/{path}"
        try:
            try:
                return self._session.request(method, place, **request)
            except requests.ConnectTimeout:
                raise
            except requests.ConnectionError:  # one that was kept open may be closed by now
                return self._session.request(method, place, **request)
        except requests.Timeout as error:
            raise InputError(f"{self.url} gave no answer in {self.timeout:g} s.") from error
        except requests.RequestException as error:
            raise InputError(
                f"No endpoint answers at {self.url} ({_reason(error)}): start one with `python "
                "scripts/serve.py RUN`, or mend the address."
            ) from error

    def _refusal(self, answer: requests.Response) -> str:
        """Return in a sentence why there is no prediction."""
        code = answer.status_code
        if code == requests.codes.unauthorized:
            advice = f"refuses the token of {TOKEN}" if self.auth else f"wants a token: set {TOKEN}"
            return f"{self.url} {advice}."
        if answer.is_redirect:
            return f"{self.url} leads to {answer.headers['Location']}: give the address there."
        try:
            said = str(answer.json()["error"])
        except (requests.JSONDecodeError, KeyError, TypeError):
            said = f"it is no endpoint of ours, or one behind a proxy: {answer.reason}."
        if code in BUSY:
            return f"{self.url} stayed busy over {TRIES} tries ({code}): {said}"
        return f"{self.url} does not take the request ({code}): {said}"

    def _json(self, answer: requests.Response) -> Any:
        try:
            found = answer.json()
        except requests.JSONDecodeError as error:
            raise self._stranger() from error
        if not isinstance(found, dict):
            raise self._stranger()
        return found

    def _stranger(self) -> InputError:
        return InputError(
            f"What answers at {self.url} is no endpoint of attnvgg: mend the address."
        )

    @property
    def _limits(self) -> tuple[float, float]:
        return CONNECTING, self.timeout

    @property
    def _session(self) -> requests.Session:
        """Return the session of this thread: they are not made to be shared."""
        if not hasattr(self._own, "session"):
            self._own.session = requests.Session()
            self._own.session.auth = self.auth
            # what is meant for this machine is sent to no proxy
            self._own.session.trust_env = not self.is_local
        session: requests.Session = self._own.session
        return session


def _checked(url: str) -> str:
    """Return the address without a slash at its end."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # ValueError: no number
    except ValueError as error:
        raise InputError(f"{url} is no address: {error}.") from error
    if parts.password is not None or parts.username is not None:
        raise InputError(f"An address holds no password: set {TOKEN} in the environment instead.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"{url} is no address of an endpoint, such as http://127.0.0.1:8080.")
    return url.rstrip("/")


def _seconds(answer: requests.Response) -> float:
    """Return how long a busy endpoint wants to be left alone."""
    try:
        wanted = float(answer.headers.get("Retry-After", 1))
    except ValueError:  # a date, which only proxies send
        wanted = 1.0
    return min(max(wanted, 0.0), LONGEST)


def _reason(error: Exception) -> str:
    """Return the innermost words of an error of requests, which wraps those of others."""
    while isinstance(inner := getattr(error, "reason", None) or error.__context__, Exception):
        error = inner
    return getattr(error, "strerror", None) or type(error).__name__
