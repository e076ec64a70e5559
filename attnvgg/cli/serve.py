"""`attnvgg serve`: a trained model behind an HTTP endpoint and a page."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attnvgg.cli.common import Incomplete, parse_with_output, run_command
from attnvgg.deploy.endpoint import LOOPBACK, TOKEN
from attnvgg.deploy.serving.app import create_app
from attnvgg.deploy.serving.counters import Counters
from attnvgg.deploy.serving.desk import Desk, Remember
from attnvgg.deploy.serving.guard import LOCAL, Guard
from attnvgg.deploy.serving.limits import Limits
from attnvgg.deploy.serving.opening import open_service
from attnvgg.deploy.serving.server import open_socket, run
from attnvgg.deploy.serving.service import Prepared, Service
from attnvgg.deploy.serving.trail import Trail, record_of
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

MODEL = {"type": str, "help": "run folder, saved or exported model, or owner/name on the hub"}
SHORTEST = 16  # characters of a token


@dataclass(frozen=True)
class ServeConfig:
    """Serve a trained model: POST /invocations for programs, a page at / for people.

    It listens on this machine only, unless told otherwise by --host. Where the environment variable
    ATTNVGG_TOKEN is set, every request must bring it. SIGTERM ends it when everything that was
    accepted is answered.
    """

    model: str = field(metadata={"positional": MODEL})
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0: all of this machine, which other machines reach."""
    port: int = 8080
    """0: any that is free."""
    engine: str = "auto"
    """eager, compiled, onnx, openvino, openvino-int8, or auto: what suits this machine."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes the GPU where there is one."""
    threads: int | None = None
    """CPU threads that compute; null: the engine's choice."""
    convert: bool = False
    """Accept 16-bit, CMYK, grey, palette, transparent and EXIF-rotated files, converted."""
    page: bool = True
    """The page at /, for models of images; needs the extra web."""
    trail: Path | None = None
    """File of JSON lines to which every prediction is added, without images and names; null: none
    is kept. `attnvgg drift` compares it with the training data."""
    limits: Limits = field(default_factory=Limits)
    """What a request may cost."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(serve, ServeConfig, argv, "serve", parse_with_output)


def serve(config: ServeConfig) -> None:
    """Serve a model until told to stop."""
    config.limits.check()
    if config.threads is not None and config.threads < 1:
        raise InputError(f"--threads {config.threads}: must be at least 1.")
    token = read_token()
    with open_socket(config.host, config.port) as listener, _trail(config.trail) as trail:
        guard, service = assemble(config, token, trail)
        port = listener.getsockname()[1]
        host = f"[{config.host}]" if ":" in config.host else config.host
        logger.info("Engine: %s", service.engine_words)
        if config.host not in LOOPBACK and token is None:
            logger.warning(
                "Other machines reach this server, and no token protects it: set %s.", TOKEN
            )
        logger.info("Serving %s at http://%s:%d (Ctrl-C stops it).", config.model, host, port)
        run(guard, listener, config.limits)
    if guard.lost:
        raise Incomplete(f"{guard.lost} requests were not answered before the end.")
    logger.info("Stopped; everything that was accepted is answered.")


def assemble(
    config: ServeConfig, token: str | None = None, trail: Trail | None = None
) -> tuple[Guard, Service]:
    """Load the model and put the application around it.

    Args:
        config: options of the command.
        token: that every request must bring; None: none.
        trail: to which every prediction is added; None: none is kept.

    Raises:
        InputError: the model, its engine or a package is not to be had.
    """
    counters = Counters()
    service = open_service(
        config.model, config.limits, config.engine, threads=config.threads, device=config.device,
        convert=config.convert, observe=counters.observe_batch,
    )  # fmt: skip
    service.keeps_statistics = trail is not None
    remember = None
    if trail is not None:
        remember = _remembering(trail, service.digest)
        counters.lost_records.set_function(lambda: trail.lost)
    desk = Desk(service, config.limits, counters, remember)
    app: Any = create_app(desk, lambda: guard.stopping)
    if config.page and service.kind == "images":
        app = _with_page(app, desk)
    hosts = LOCAL if config.host in LOOPBACK else None
    guard = Guard(app, config.limits, counters, token, hosts)
    return guard, service


def _trail(path: Path | None) -> AbstractContextManager[Trail | None]:
    return nullcontext() if path is None else closing(Trail(path))


def _remembering(trail: Trail, digest: str) -> Remember:
    def remember(identity: str, instance: Prepared, prediction: Any) -> None:
        size = instance.size if len(instance.size) == 2 else (None, None)  # a bag has none
        height, width = size
        trail.append(record_of(identity, digest, prediction, instance.statistics, width, height))

    return remember


def _with_page(app: Any, desk: Desk) -> Any:
    """Add the page; a server without the extra says so and goes on."""
    from attnvgg.deploy.serving.web import mount_page

    try:
        return mount_page(app, desk)
    except InputError as error:
        logger.info("There is no page at /: %s", error)
        return app


def read_token() -> str | None:
    """Return the token of the environment.

    Raises:
        InputError: it is too short to protect anything.
    """
    token = os.environ.get(TOKEN, "").strip()
    if token and len(token) < SHORTEST:
        raise InputError(f"{TOKEN} has fewer than {SHORTEST} characters: take a longer one.")
    return token or None
