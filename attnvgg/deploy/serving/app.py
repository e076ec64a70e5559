"""The HTTP interface: what SageMaker calls, what a person looks at, what a monitor reads."""

# Annotations are evaluated here, not kept as text: FastAPI needs the classes, which are imported
# inside the function.

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
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
    read_files,
    read_json,
    read_single,
)
from attnvgg.deploy.serving.schema import invocations_schema
from attnvgg.errors import InputError

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
        from fastapi import FastAPI, Request, Response
        from fastapi.exceptions import RequestValidationError
        from fastapi.openapi.docs import get_swagger_ui_html
        from fastapi.responses import JSONResponse
        from starlette.exceptions import HTTPException
        from starlette.formparsers import MultiPartException, MultiPartParser
        from starlette.staticfiles import StaticFiles
        from swagger_ui_bundle import swagger_ui_path
    except ImportError:
        raise InputError('Serving needs more: pip install "attnvgg[serve]".') from None
    service, limits = desk.service, desk.limits

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title=TITLE, description=service.envelope([])["caution"], version="1", lifespan=lifespan,
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.mount("/docs/assets", StaticFiles(directory=swagger_ui_path))

    class FormInMemory(MultiPartParser):
        spool_max_size = limits.body + 1  # no upload of the endpoint is written to a disk

    async def read_form(request: Request) -> Payload:
        most = limits.instances if service.kind == "bags" else limits.images
        parser = FormInMemory(request.headers, request.stream(), max_files=most, max_fields=16)
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError, ValueError) as error:
            words = str(getattr(error, "message", "")) or "it is not multipart/form-data"
            raise Refused(422, f"The form cannot be read: {words.rstrip('.')}.") from None
        files = [await part.read() for _, part in form.multi_items() if not isinstance(part, str)]
        await form.close()
        return read_files(service, files)

    async def read(request: Request) -> Payload:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == FORM_TYPE:
            return await read_form(request)
        if kind not in TYPES:
            raise Refused(415, f"The Content-Type must be one of {', '.join(TYPES)}.")
        body = await request.body()
        if kind in IMAGE_TYPES:
            return read_single(service, body)
        found: Payload = await desk.call(read_json, service, body)
        return found

    @app.post("/invocations", **invocations_schema(service.kind))
    async def invocations(request: Request, attention: bool = False) -> Response:
        """Predict images or bags; see the schema for what may be sent."""
        kind = answer_type(request.headers.get("accept", ""))
        payload = await read(request)
        if attention:
            payload = payload._replace(attention=True)
        identity = request.state.request_id
        answer = desk.picture if kind == PNG else desk.json
        try:
            async with asyncio.timeout(limits.seconds):
                content = await answer(payload, identity)
        except TimeoutError:
            raise Refused(504, f"There was no answer within {limits.seconds:g} s.", 10) from None
        return Response(content, media_type=kind)

    @app.get("/ping")
    async def ping() -> JSONResponse:
        """Tell whether the server takes requests."""
        stopping = is_stopping()
        return JSONResponse(
            {"status": "stopping" if stopping else "ready"}, 503 if stopping else 200
        )

    @app.get("/model")
    async def model() -> JSONResponse:
        """Return the card of the model."""
        return JSONResponse(service.card)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return what the server counts, for Prometheus."""
        desk.counters.waiting.set(service.waiting)
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

    def sentence(request: Request, status: int, words: str, **more: str) -> JSONResponse:
        content = {"error": words, "request_id": getattr(request.state, "request_id", None)}
        return JSONResponse(content, status, more or None)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        wait = error.retry_after
        more = {} if wait is None else {"Retry-After": str(wait)}
        return sentence(request, error.status, error.message, **more)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return sentence(request, 422, f'"{first["loc"][-1]}": {first["msg"]}.')

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return sentence(request, 500, "The server failed; its log says why.")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        response = sentence(request, error.status_code, f"{error.detail}.")
        response.headers.update(error.headers or {})
        return response

    return app


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
