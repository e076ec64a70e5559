"""The HTTP interface: what SageMaker calls, what a person looks at, what a monitor reads."""

# Annotations are evaluated here, not kept as text: FastAPI needs the classes, which are imported
# inside the function.

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from attnvgg.deploy.serving.desk import Desk
from attnvgg.deploy.serving.limits import Refused
from attnvgg.deploy.serving.payload import (
    FORM_TYPE,
    IMAGE_TYPES,
    JSON_TYPE,
    TYPES,
    Payload,
    read_form,
    read_json,
    read_single,
)
from attnvgg.deploy.serving.schema import invocations_schema, refusals, with_tokens
from attnvgg.errors import InputError
from attnvgg.models.card import CAUTION

logger = logging.getLogger(__name__)

PNG = "image/png"
TITLE = "attnvgg"


def create_app(desk: Desk, is_stopping: Callable[[], bool] = lambda: False) -> Any:
    """Return the FastAPI application of a service, without the page and without its guard.

    Args:
        desk: what answers.
        is_stopping: tells whether the server was told to stop.

    Raises:
        InputError: the extra `serve` is not installed.
    """
    try:
        from fastapi import FastAPI
        from starlette.staticfiles import StaticFiles
        from swagger_ui_bundle import swagger_ui_path
    except ImportError:
        raise InputError('Serving needs more: pip install "attnvgg[serve]".') from None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title=TITLE, description=CAUTION, version="1", lifespan=lifespan, docs_url=None,
        redoc_url=None,
    )  # fmt: skip
    app.mount("/docs/assets", StaticFiles(directory=swagger_ui_path))
    _add_invocations(app, desk)
    _add_reports(app, desk, is_stopping)
    _add_refusals(app)
    describe = app.openapi
    app.openapi = lambda: with_tokens(describe())  # type: ignore[method-assign]
    return app


def _add_invocations(app: Any, desk: Desk) -> None:
    """Add what predicts."""
    from fastapi import Request, Response

    read, limits = _reader(desk), desk.limits

    @app.post("/invocations", **invocations_schema(desk.service.kind))
    async def invocations(request: Request, attention: bool = False) -> Response:
        """Predict images or bags; see the schema for what may be sent."""
        kind = answer_type(request.headers.get("accept", ""))
        answer = desk.picture if kind == PNG else desk.json
        started: float = request.state.started  # when its head had come
        try:
            async with asyncio.timeout(started + limits.seconds - time.perf_counter()):
                payload = await read(request)
                wanted = payload._replace(attention=attention or payload.attention)
                content = await answer(wanted, request.state.request_id)
        except TimeoutError:
            raise Refused(504, f"There was no answer within {limits.seconds:g} s.", 10) from None
        return Response(content, media_type=kind)


def _reader(desk: Desk) -> Callable[[Any], Awaitable[Payload]]:
    """Return what makes instances of the body of a request."""
    from starlette.formparsers import MultiPartException, MultiPartParser

    service, limits = desk.service, desk.limits

    class FormInMemory(MultiPartParser):
        spool_max_size = limits.body + 1  # no upload of the endpoint is written to a disk

    async def read_parts(request: Any) -> Payload:
        most = limits.instances if service.kind == "bags" else limits.images
        parser = FormInMemory(request.headers, request.stream(), max_files=most, max_fields=16)
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError, ValueError) as error:
            words = str(getattr(error, "message", "")) or "it is not multipart/form-data"
            raise Refused(422, f"The form cannot be read: {words.rstrip('.')}.") from None
        parts = form.multi_items()
        files = [await part.read() for _, part in parts if not isinstance(part, str)]
        await form.close()
        fields = {key: part for key, part in parts if isinstance(part, str)}
        return read_form(service, files, fields)

    async def read(request: Any) -> Payload:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == FORM_TYPE:
            return await read_parts(request)
        if kind not in TYPES:
            raise Refused(415, f"The Content-Type must be one of {', '.join(TYPES)}.")
        body = await request.body()
        if kind in IMAGE_TYPES:
            return read_single(service, body)
        found: Payload = await desk.call(read_json, service, body)
        return found

    return read


def _add_reports(app: Any, desk: Desk, is_stopping: Callable[[], bool]) -> None:
    """Add what tells of the server and of its model."""
    from fastapi import Response
    from fastapi.openapi.docs import get_swagger_ui_html
    from fastapi.responses import JSONResponse

    @app.head("/ping", include_in_schema=False)
    @app.get("/ping", responses=refusals(503))
    async def ping() -> JSONResponse:
        """Tell whether the server takes requests."""
        stopping = is_stopping()
        words = {"status": "stopping" if stopping else "ready"}
        return JSONResponse(words, 503 if stopping else 200)

    @app.get("/model", responses=refusals(401, 421, 429))
    async def model() -> JSONResponse:
        """Return the card of the model."""
        return JSONResponse(desk.service.card)

    @app.get("/metrics", response_class=Response, responses=refusals(401, 421, 429))
    async def metrics() -> Response:
        """Return what the server counts, for Prometheus."""
        desk.counters.waiting.set(desk.service.waiting)
        content, media_type = desk.counters.text()
        return Response(content, headers={"content-type": media_type})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=TITLE,
            swagger_favicon_url="docs/assets/favicon-32x32.png",
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
        )


def _add_refusals(app: Any) -> None:
    """Let everything that is refused, or fails, be one sentence."""
    from fastapi import Request, Response
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    def sentence(request: Request, status: int, words: str, **more: str) -> Response:
        content = {"error": words, "request_id": getattr(request.state, "request_id", None)}
        # in ASCII: what was sent may hold letters that no text can
        return Response(json.dumps(content), status, more or None, JSON_TYPE)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        wait = error.retry_after
        more = {} if wait is None else {"Retry-After": str(wait)}
        return sentence(request, error.status, error.message, **more)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return sentence(request, 422, f'"{first["loc"][-1]}": {first["msg"]}.')

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return sentence(request, 500, "The server failed; its log says why.")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        response = sentence(request, error.status_code, f"{error.detail}.")
        response.headers.update(error.headers or {})
        return response


def answer_type(accept: str) -> str:
    """Return the media type to answer with.

    Raises:
        Refused: none of those that are wanted.
    """
    wanted = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    for kind in wanted:
        if kind in ("", "*/*", "application/*", JSON_TYPE):
            return JSON_TYPE
        if kind in (PNG, "image/*"):
            return PNG
    raise Refused(406, f"The answer can be {JSON_TYPE} or {PNG}.")
