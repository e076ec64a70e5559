"""The serving container on this machine: what SageMaker and Docker do to it, without either.

The model is packed and unpacked as SageMaker does it, the entry point of the image is started with
`serve` and the image's variables, and is asked what the service and its clients ask. What the image
itself has (its user, its read-only root, its libraries) is not tried.
"""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from attnvgg.deploy.deployment import ARCHIVE, STARTUP_SECONDS, pack_model
from attnvgg.deploy.endpoint import Endpoint
from attnvgg.deploy.engines import AUTO
from attnvgg.deploy.serving_checks import Report, check_contract
from attnvgg.deploy.training_job import ROOT
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

ENTRY = "docker/serve"  # lies in the PATH of the image, where `docker run IMAGE serve` finds it
MARK = ".serving-simulator"  # in a folder whose content is a simulation's, and may be replaced
LOG = "server.log"
STOP_SECONDS = 30  # after which SageMaker sends SIGKILL
VARIABLES = {  # those of the image, TEMPORARY being its /tmp
    "HOME": "TEMPORARY",
    "XDG_CACHE_HOME": "TEMPORARY/cache",
    "MPLCONFIGDIR": "TEMPORARY/matplotlib",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HF_HUB_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "CI": "true",
}


def simulate_serving(
    model: str | Path, root: Path, seconds: float = STARTUP_SECONDS, engine: str = AUTO
) -> Report:
    """Serve a model as the container would, and return what was seen.

    Args:
        model: run folder or saved model.
        root: folder that stands for /opt/ml, made if it is not there.
        seconds: for the first good answer to /ping.
        engine: of the server, and of the model that is loaded here.

    Raises:
        InputError: the server does not start, breaks the contract, says something else than the
            model loaded here, or does not end as it is told; `server.log` in the root says more.
    """
    root = root.absolute()
    folder = prepare_root(model, root)
    started = time.perf_counter()
    options = [] if engine == AUTO else ["--engine", engine]
    with _server(root, options) as (process, endpoint):
        _wait(process, endpoint, root, seconds)
        ready = time.perf_counter() - started
        logger.info("Ready after %.1f s.", ready)
        cache = root / "temporary" / "cache" / "own"
        report = check_contract(endpoint, folder, cache, engine)
        _refuses_large(endpoint)
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise InputError(f"The server still ran {STOP_SECONDS} s after SIGTERM.") from None
    if code:
        raise InputError(f"After SIGTERM the server ended with {code}, not 0{_last(root)}")
    return report._replace(ready=ready)


def prepare_root(model: str | Path, root: Path) -> Path:
    """Put a model where the container finds it, by way of its archive, and return the folder.

    Raises:
        InputError: there is no model, or the root holds other things.
    """
    if root.exists() and any(root.iterdir()) and not (root / MARK).exists():
        raise InputError(f"{root} holds other things, which would be lost: name a new --root.")
    root.mkdir(parents=True, exist_ok=True)
    (root / MARK).touch()
    for name in ("model", "temporary"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir()
    pack_model(model, root / ARCHIVE)
    with tarfile.open(root / ARCHIVE) as archive:
        archive.extractall(root / "model", filter="data")
    return root / "model"


def container_environment(root: Path, port: int) -> dict[str, str]:
    """Return all variables that the entry point finds: none but these.

    Three tell it where /opt/ml and the port are here, which are fixed in a container.
    """
    programs = str(Path(sys.executable).parent)
    temporary = str(root / "temporary")
    image = {key: value.replace("TEMPORARY", temporary) for key, value in VARIABLES.items()}
    return image | {
        "PATH": os.pathsep.join([str((ROOT / ENTRY).parent), programs, os.defpath]),
        "TMPDIR": temporary,
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "ATTNVGG_HOST": "127.0.0.1",
        "ATTNVGG_MODEL": str(root / "model"),
    }


@contextmanager
def _server(
    root: Path, options: Sequence[str]
) -> Iterator[tuple[subprocess.Popen[bytes], Endpoint]]:
    """Start the entry point; whatever happens, no process is left behind."""
    entry = ROOT / ENTRY
    if not entry.is_file():
        raise InputError(f"The entry point is taken from a checkout, and {ROOT} has no {ENTRY}.")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with (root / LOG).open("wb") as log:
        process = subprocess.Popen(
            [entry.name, *options], stdout=log, stderr=subprocess.STDOUT, cwd=root / "temporary",
            env=container_environment(root, port),
        )  # fmt: skip
        try:
            yield process, Endpoint(f"http://127.0.0.1:{port}", token="")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], endpoint: Endpoint, root: Path, seconds: float) -> None:
    """Wait until the server takes requests."""
    until = time.perf_counter() + seconds
    while not endpoint.ready():
        if process.poll() is not None:
            raise InputError(f"The server did not start{_last(root)}")
        if time.perf_counter() > until:
            raise InputError(f"The server did not answer /ping within {seconds:g} s{_last(root)}")
        time.sleep(0.1)


def _last(root: Path) -> str:
    """Return the end of a sentence: the last line of the server's log."""
    lines = (root / LOG).read_text(errors="replace").split("\n")
    return next((f": {line}" for line in reversed(lines) if line.strip()), ", and says nothing.")


def _refuses_large(endpoint: Endpoint) -> None:
    """Announce a body that nobody may send, and send none: the answer has to come all the same."""
    parts = urlsplit(endpoint.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.putrequest("POST", "/invocations")
        connection.putheader("Content-Type", "image/jpeg")
        connection.putheader("Content-Length", str(10**10))
        connection.endheaders()
        status = connection.getresponse().status
    except OSError as error:
        raise InputError(f"A request of 10 GB is not answered: {error}.") from error
    finally:
        connection.close()
    if status != http.client.REQUEST_ENTITY_TOO_LARGE:
        raise InputError(f"A request of 10 GB is answered with {status}, not 413.")
