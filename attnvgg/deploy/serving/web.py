"""The page at `/`: drop images, see what a model says of them, and where it looked."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from html import escape
from typing import Any

from attnvgg.deploy.serving.desk import Desk
from attnvgg.deploy.serving.image_service import ImageService
from attnvgg.deploy.serving.limits import MIB
from attnvgg.deploy.serving.page_card import card_html, notice_html
from attnvgg.deploy.serving.page_door import Door
from attnvgg.deploy.serving.page_files import AGE, PERIOD, UploadFolder
from attnvgg.deploy.serving.page_results import FAILED, figures, judge, to_csv
from attnvgg.deploy.serving.page_style import SCRIPT, STYLE
from attnvgg.deploy.serving.page_text import (
    NOTHING,
    downloads_html,
    results_html,
    status_words,
)
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

TITLE = "Attention of an image classifier"
SUFFIXES = [".jpg", ".jpeg", ".png", ".webp", ".bmp"]
AT_ONCE = 2  # submissions that are judged; the others wait in Gradio's queue
WAITING = 16  # submissions that wait; more are told that the server is busy
SESSIONS = 64  # whose answers are kept for who does not fetch them; Gradio's 2,000 could be large
FORM = 16 * 1024  # bytes of a body that are not of its files
Shown = tuple[Any, Any, Any]  # status, results, downloads


def mount_page(app: Any, desk: Desk, age: float = AGE, period: float = PERIOD) -> Any:
    """Add the page to an application, below all paths that it has.

    Args:
        app: from `create_app`.
        desk: of a model of images.
        age: seconds after which an upload is deleted.
        period: seconds between two looks for such uploads.

    Raises:
        InputError: the extra `web` is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at the import
    folder = UploadFolder(age, period)  # Gradio makes folders of its own at the import
    try:
        import gradio
    except ImportError:
        folder.close()
        raise InputError('The page needs more: pip install "attnvgg[web]".') from None
    blocks = _build(gradio, desk)
    app = gradio.mount_gradio_app(
        app, blocks, path="/", footer_links=[], run_history=False, show_error=False,
        max_file_size=desk.limits.body, ssr_mode=False, pwa=False, mcp_server=False,
        enable_monitoring=False, theme=_theme(gradio), css=STYLE, js=SCRIPT,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    )  # fmt: skip
    folder.also = lambda: _forget(blocks, age)
    mounted = app.routes[-1]
    mounted.app = Door(mounted.app, folder.path, int(desk.limits.memory_mib * MIB))
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        try:
            async with inner(app) as state:
                yield state
        finally:
            folder.close()

    app.router.lifespan_context = lifespan
    return app


def _theme(gradio: Any) -> Any:
    """Return Gradio's default in blue, with fonts that every machine has."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gradio.themes.Default(primary_hue="blue", neutral_hue="slate", **fonts)


def _build(gradio: Any, desk: Desk) -> Any:
    """Return the page as Gradio's blocks."""
    card = desk.service.card
    with gradio.Blocks(analytics_enabled=False, title=f"{TITLE} - attnvgg") as blocks:
        gradio.HTML(_head(desk, card))
        files = gradio.File(
            label="Images", file_count="multiple", file_types=SUFFIXES, height=130,
            elem_id="files",
        )  # fmt: skip
        status = gradio.HTML("", elem_id="status")
        results = gradio.HTML(NOTHING, elem_id="results")
        downloads = gradio.HTML("", elem_id="downloads")
        with gradio.Accordion("About the model", open=False):
            gradio.HTML(card_html(card))

        def answer(paths: list[str] | None) -> Iterator[Shown]:
            yield from _answer(desk, paths or [], gradio.skip())

        files.upload(
            answer, files, [status, results, downloads], api_visibility="private",
            concurrency_limit=AT_ONCE, show_progress="minimal", show_progress_on=[status],
        ).then(None, None, files, js="() => null")  # fmt: skip
    blocks.queue(max_size=WAITING, api_open=False)
    blocks.state_session_capacity = SESSIONS
    blocks._queue.pending_messages_per_session.max_size = SESSIONS
    return blocks


def _forget(blocks: Any, age: float) -> None:
    """Drop what Gradio keeps of sessions, for an hour or more: their last answers, with images."""
    state, before = blocks.state_holder, datetime.now() - timedelta(seconds=age)
    with state.lock:
        for session, used in list(state.time_last_used.items()):
            if used < before:
                state.session_data.pop(session, None)
                state.time_last_used.pop(session, None)


def _head(desk: Desk, card: Mapping[str, Any]) -> str:
    """Return title, caution, and what to do."""
    limits = desk.limits
    classes = escape(" or ".join(desk.service.classes))
    maps = ""
    if card["arguments"].get("attention", True):
        maps = " and shows where it took its values from"
    return (
        f"<h1>{TITLE}</h1>{notice_html(card)}<p class='hint'>Choose images: the model calls each "
        f"of them {classes}{maps}. Up to {limits.images} images, {limits.body_mib:g} MiB together. "
        "They are deleted from this server within a minute; what you see here stays in your "
        "browser only.</p>"
        f"<p id='refusal' role='alert' data-images='{limits.images}' "
        f"data-bytes='{limits.body - FORM}'></p>"
    )


def _answer(desk: Desk, paths: list[str], same: Any) -> Iterator[Shown]:
    """Show results, then the figures when they are drawn; never raise.

    Args:
        desk: what predicts.
        paths: of the uploads.
        same: leaves what is shown as it is.
    """
    service, limits = desk.service, desk.limits
    assert isinstance(service, ImageService)
    if len(paths) > limits.images:
        words = f"{len(paths)} images are too many: choose at most {limits.images}."
        yield f"<p>{words}</p>", NOTHING, ""
        return
    try:
        results = judge(desk, paths)
        kind = service.map_kind if any(one.case is not None for one in results) else None
        table = to_csv(results, service.threshold, service.digest)
        links = [("Table (CSV)", "attnvgg.csv", table)]
        status = f"<p>{escape(status_words(results))}</p>"
        shown = results_html(results, service.threshold, kind)
        yield status, shown, downloads_html(links, is_complete=kind is None)
        if kind is None:
            return
        for words, figure in figures(service, results):
            name = f"attnvgg{words.replace(' ', '-')}.png"
            links.append((f"Figure{words} (PNG)", name, figure))
        yield same, same, downloads_html(links, is_complete=True)
    except Exception:
        logger.exception("The page failed.")
        yield f"<p>{FAILED}</p>", NOTHING, ""
