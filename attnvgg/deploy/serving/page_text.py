"""What the page says of images: HTML without any address but what is inside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from attnvgg.deploy.serving.page_results import Result
from attnvgg.explain import Case, Kind, scale_map, upsample
from attnvgg.explain.overlays import COLOUR_SHARE, Pixels, jet
from attnvgg.explain.page import TICK_LABELS

THUMB = 72  # pixels
QUALITY = 90
MAPS = (("pool-3", "attn1"), ("pool-4", "attn2"))
TIMES = "\N{MULTIPLICATION SIGN}"
NOTHING = "<p class='hint'>Results appear here.</p>"
MEANING: dict[Kind, str] = {
    "softmax": f"Colours show attention relative to an even spread (weight {TIMES} "
    "number of positions), on a logarithmic scale that is the same for every image. "
    "Green is no preference.",
    "sigmoid": "Colours show the attention weight, on a scale that is the same for every image.",
}
HONEST = (
    "A map shows where the model took its values from. It does not prove why the model decided, "
    "and its edges outline nothing: a position covers many pixels."
)


def results_html(results: Sequence[Result], threshold: float | None, kind: Kind | None) -> str:
    """Return everything that is said of some files.

    Args:
        results: in the order of the files.
        threshold: of class 1, where one was locked.
        kind: of the maps; None: there are none.
    """
    first = next((number for number, one in enumerate(results) if one.error is None), -1)
    items = [
        _problem(one) if one.error else _item(one, threshold, kind, number == first)
        for number, one in enumerate(results)
    ]
    return f"<section class='results' style='--blend:{COLOUR_SHARE}'>{''.join(items)}</section>"


def status_words(results: Sequence[Result]) -> str:
    """Return one sentence for whoever cannot see the results."""
    good = [one for one in results if one.error is None]
    if len(results) == 1 and good:
        called, scored, probability = good[0].called, good[0].scored, good[0].probability
        return f"{good[0].name}: called {called}; probability of {scored} {probability:.3f}."
    if not good:
        return "No image could be predicted."
    words = f"{len(good)} of {len(results)} images predicted"
    return f"{words}." if len(good) == len(results) else f"{words}; the others say why not."


def downloads_html(links: Sequence[tuple[str, str, bytes]], is_complete: bool) -> str:
    """Return links to files that are inside the page.

    Args:
        links: words, name of the file, its content.
        is_complete: tells whether all files are there.
    """
    found = [
        f"<a class='download' download='{escape(name)}' href='{_address(content, _media(name))}'>"
        f"{escape(words)}</a>"
        for words, name, content in links
    ]
    rest = "" if is_complete else "<span class='hint'>The figure is being drawn ...</span>"
    return f"<nav class='downloads' aria-label='Downloads'>{''.join(found)}{rest}</nav>"


def decision(result: Result, threshold: float | None) -> str:
    """Say how a probability became a decision."""
    if len(result.probabilities) > 2:
        found = [f"{name} {value:.3f}" for name, value in result.probabilities.items()]
        return f"The likeliest class is called: {', '.join(found)}."
    limit = 0.5 if threshold is None else threshold
    mine, other = _apart(result.probability, limit)
    place = "at or above" if result.called == result.scored else "below"
    origin = " (none was chosen for it)" if threshold is None else ""
    return (
        f"{mine} is {place} the threshold of {other}{origin}, so the model calls it "
        f"{result.called}."
    )


def _apart(value: float, limit: float) -> tuple[str, str]:
    """Return two numbers with as many digits as it takes to tell them apart."""
    for digits in range(3, 10):
        words = f"{value:.{digits}f}", f"{limit:.{digits}f}"
        if words[0] != words[1] or value == limit:
            return words
    return repr(value), repr(limit)


def _item(result: Result, threshold: float | None, kind: Kind | None, is_open: bool) -> str:
    """Return one image, folded up unless it is the first: `details` needs no script."""
    assert result.image is not None
    side = max(result.image.shape[:2])
    thumb = cv2.resize(
        result.image, None, fx=min(1, THUMB / side), fy=min(1, THUMB / side),
        interpolation=cv2.INTER_AREA,
    )  # fmt: skip
    head = (
        f"<summary><img alt='' src='{_jpeg(np.asarray(thumb, np.uint8))}'>"
        f"<span class='name'>{escape(result.name)}</span>"
        f"<span class='verdict'><b>{escape(result.called)}</b>"
        f"<span>p({escape(result.scored)}) {result.probability:.3f}</span></span></summary>"
    )
    body = _verdict(result, threshold) + _panels(result, kind)
    if result.case is not None and kind is not None:
        body += _controls(kind)
    return f"<details class='case' name='case'{' open' * is_open}>{head}<div>{body}</div></details>"


def _problem(result: Result) -> str:
    return (
        f"<div class='case problem' role='alert'><span class='name'>{escape(result.name)}</span>"
        f"<p>{escape(result.error or '')}</p></div>"
    )


def _verdict(result: Result, threshold: float | None) -> str:
    """Return the call, its probability as a bar with the threshold on it, and the reason."""
    limit = 0.5 if threshold is None else threshold
    mark = ""
    if len(result.probabilities) == 2:
        mark = f"<i style='left:{100 * limit:.2f}%'><span>threshold {limit:.3f}</span></i>"
    words = f"Probability of {result.scored}"
    return (
        f"<div class='said'><p class='called'>Called <b>{escape(result.called)}</b></p>"
        f"<p class='number'><span>{escape(words)}</span><b>{result.probability:.3f}</b></p>"
        f"<div class='bar' role='img' aria-label='{escape(words)}: {result.probability:.3f}'>"
        f"<span style='width:{100 * result.probability:.2f}%'></span>{mark}</div>"
        f"<p class='reason'>{escape(decision(result, threshold))}</p></div>"
    )


def _panels(result: Result, kind: Kind | None) -> str:
    """Return the image and its overlays, which the browser blends."""
    assert result.image is not None
    picture = _jpeg(result.image)
    shape = f"style='aspect-ratio:{result.image.shape[1]}/{result.image.shape[0]}'"
    name = escape(result.name)
    found = [
        f"<figure><div class='panel' {shape}><img alt='{name}' src='{picture}'></div>"
        "<figcaption><b>Image</b></figcaption></figure>"
    ]
    if result.case is not None and kind is not None:
        for words, key in MAPS:
            colours = f"class='colours' alt='Attention of {words} over {name}'"
            weights = np.asarray(getattr(result.case, key))
            layer = _png(*colour_layer(result.case, weights, kind))
            found.append(
                f"<figure><div class='panel' {shape}>"
                f"<img {colours} src='{layer}'></div><figcaption><b>{words}</b> "
                f"<span>{_about(weights, kind)}</span></figcaption></figure>"
            )
    style = f"--picture:url({picture})"  # once for all panels
    return f"<div class='panels' style='{style}'>{''.join(found)}</div>"


def _about(weights: NDArray[Any], kind: Kind) -> str:
    """Return how many positions a map has, and how many of them the colours cannot show."""
    share = float(scale_map(weights, kind).clipped.mean())
    more = f", {100 * share:.0f} % of them beyond the scale" if share else ""
    return f"{weights.shape[0]} {TIMES} {weights.shape[1]} positions{more}"


def colour_layer(case: Case, weights: ArrayLike, kind: Kind) -> tuple[Pixels, Pixels]:
    """Return the colours of a map alone: numbers of colours (H, W), and the colours (256, 3), RGB.

    Laid over the image with an opacity of 0.4 it is `overlay`: black where the model saw nothing.
    Where there is such a place, the lowest of the 256 colours is given up for it.
    """
    height, width, _ = case.image.shape
    values = scale_map(weights, kind).values
    large, seen = upsample(values, height, width, case.region, input_size=case.input_size)
    levels = np.asarray(cv2.convertScaleAbs(large, alpha=255), np.uint8)
    table = jet()[:, 0].copy()
    if not seen.all():
        levels = np.maximum(levels, 1)
        levels[~seen] = 0
        table[0] = 0
    return levels, table


def _controls(kind: Kind) -> str:
    """Return the slider, the colour bar and what the colours mean."""
    ticks = "".join(
        f"<span style='left:{25 * place}%'>{escape(words)}</span>"
        for place, words in enumerate(TICK_LABELS[kind])
    )
    colours = ",".join(f"rgb({r},{g},{b})" for r, g, b in jet()[::8, 0].tolist())
    return (
        "<div class='controls'><label class='blend'><span>Blend: image to colours</span>"
        f"<input type='range' min='0' max='1' step='0.05' value='{COLOUR_SHARE}'>"
        f"<output>{COLOUR_SHARE:.2f}</output></label>"
        f"<div class='scale'><div class='jet' role='img' aria-label='Colour bar' "
        f"style='background:linear-gradient(90deg,{colours})'></div>"
        f"<div class='ticks'>{ticks}</div></div>"
        f"<p>{escape(MEANING[kind])} {escape(HONEST)}</p></div>"
    )


def _jpeg(image: Pixels) -> str:
    options = (cv2.IMWRITE_JPEG_QUALITY, QUALITY)
    return _address(cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes(), "image/jpeg")


def _png(levels: Pixels, table: Pixels) -> str:
    picture, content = Image.fromarray(levels), io.BytesIO()
    picture.putpalette(table.tobytes())
    picture.save(content, "PNG")
    return _address(content.getvalue(), "image/png")


def _media(name: str) -> str:
    return "text/csv" if name.endswith(".csv") else "image/png"


def _address(content: bytes, media: str) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"
