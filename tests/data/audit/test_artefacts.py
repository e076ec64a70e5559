"""Detectors against what was painted."""

import cv2
import numpy as np
import pandas as pd
import pytest

from attnvgg.data.audit.artefacts import NAMES, find_artefacts
from attnvgg.data.synthetic.artefacts import FREQUENCY, add_artefacts
from attnvgg.data.synthetic.cases import ARTEFACTS, PAINT, draw_cases, stream
from attnvgg.data.synthetic.lesions import paint

SIDE = 160
DRAWN = {"dark_corners": "vignette", "ruler": "ruler", "ink_or_patch": "ink"}


@pytest.fixture(scope="module")
def skin():
    """Skin of uneven colour without a lesion, (SIDE, SIDE, 3)."""
    noise = np.random.default_rng(0).normal(0, 3, (SIDE, SIDE, 1))
    return (np.array([200, 160, 140]) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def painted():
    """What was painted into 90 pictures, and what was found."""
    rows = []
    for case in draw_cases(90, 11):
        picture, _ = paint(case.signs, case.tone, stream(11, PAINT, case.number), SIDE)
        picture, shown = add_artefacts(picture, stream(11, ARTEFACTS, case.number))
        found = find_artefacts(cv2.convertScaleAbs(picture, alpha=255))
        rows.append(found | {f"drawn_{name}": name in shown for name in FREQUENCY})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("name", "recall", "false_alarms"),
    [("dark_corners", 1.0, 0.0), ("ruler", 0.9, 0.02), ("ink_or_patch", 0.4, 0.05)],
)
def test_detectors_find_what_was_painted(painted, name, recall, false_alarms):
    """Half of the ink is painted past the picture's edge."""
    drawn, found = painted[f"drawn_{DRAWN[name]}"], painted[name]
    assert drawn.sum() >= 8
    assert found[drawn].mean() >= recall
    assert found[~drawn].mean() <= false_alarms


def test_no_borders_where_there_are_none(painted):
    assert not painted["border"].any()


def test_plain_skin_shows_nothing(skin):
    assert find_artefacts(skin) == dict.fromkeys(NAMES, False)


@pytest.mark.parametrize("colour", [0, 255, 120])
@pytest.mark.parametrize("sides", [["top"], ["left"], ["top", "bottom"], ["left", "right"]])
def test_bars_are_borders(skin, colour, sides):
    picture = skin.copy()
    places = {
        "top": np.s_[:20],
        "bottom": np.s_[-20:],
        "left": np.s_[:, :9],
        "right": np.s_[:, -9:],
    }
    for side in sides:
        picture[places[side]] = colour
    assert find_artefacts(picture)["border"]


@pytest.mark.parametrize("colour", [(60, 120, 220), (60, 170, 80), (90, 60, 160)])
def test_patches_are_seen_at_the_edge_and_not_in_the_lesion(skin, colour):
    edge, middle = skin.copy(), skin.copy()
    cv2.circle(edge, (20, 90), 14, colour, cv2.FILLED)
    cv2.circle(middle, (96, 96), 14, colour, cv2.FILLED)
    assert find_artefacts(edge)["ink_or_patch"]
    assert not find_artefacts(middle)["ink_or_patch"]


def test_ticks_are_a_ruler_on_any_side_and_random_hairs_are_none(skin):
    ruler, hairs = skin.copy(), skin.copy()
    for x in range(3, SIDE, 8):
        ruler[2:12, x] = 30
    for x in np.random.default_rng(0).choice(SIDE, 24, replace=False):
        hairs[2:12, x] = 30
    assert all(find_artefacts(np.rot90(ruler, turn))["ruler"] for turn in range(4))
    assert not find_artefacts(hairs)["ruler"]
