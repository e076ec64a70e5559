"""Eight views of each image, in the figures and in the pictures."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attnvgg import load_model
from attnvgg.cli import visualize
from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.image_case import caption_of, make_case
from attnvgg.cli.visualize import main as draw
from attnvgg.models.views import with_views


@pytest.fixture(scope="module")
def turned(trained, tmp_path_factory):
    """The run on pictures that were each turned or flipped, and where the pictures are."""
    folder = tmp_path_factory.mktemp("turned")
    shutil.copytree(trained, folder / "run")
    cases = pd.read_csv(trained / "manifest.csv")
    for number, path in enumerate(cases["image"]):
        pixels = np.ascontiguousarray(np.rot90(cv2.imread(path), number % 4)[:, ::-1])
        cases.loc[number, "image"] = str(folder / f"{number:02d}.png")
        cv2.imwrite(cases.loc[number, "image"], pixels)
    cases.to_csv(folder / "run" / "manifest.csv", index=False)
    return folder / "run"


def test_the_figures_know_no_orientation(trained, turned, tmp_path):
    said = {}
    for name, source in (("upright", trained), ("turned", turned)):
        run = tmp_path / name
        shutil.copytree(source, run)
        assert evaluate([str(run), "--device=cpu", "--threads=1", "--views=8"]) == 0
        said[name] = pd.read_csv(run / "predictions.csv")["probability"]
        assert json.loads((run / "metrics.json").read_text())["views"] == 8
    np.testing.assert_allclose(said["upright"], said["turned"], atol=1e-5)
    alone = pd.read_csv(trained / "predictions.csv")["probability"]
    assert np.abs(said["upright"] - alone).max() > 1e-4


def test_the_pictures_turn_with_the_image(trained, turned):
    model = with_views(load_model(trained), 8)
    before, after = (pd.read_csv(run / "manifest.csv")["image"] for run in (trained, turned))
    for number in range(4):
        upright = make_case(model, {"image": before[number]})
        moved = make_case(model, {"image": after[number]})
        assert moved.probability == pytest.approx(upright.probability, abs=1e-5)
        for name in ("attn1", "attn2"):
            expected = np.rot90(getattr(upright, name), number % 4)[:, ::-1]
            np.testing.assert_allclose(getattr(moved, name), expected, atol=1e-6)


def test_the_picture_says_so(trained, tmp_path):
    words = [str(trained), "--count=2", f"--output={tmp_path / 'a.png'}"]
    assert draw([*words, "--views=8"]) == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 500
    model = load_model(trained)
    assert caption_of(model) is None
    assert "8 views" in caption_of(with_views(model, 8))


def test_the_threshold_is_that_of_as_many_views(trained, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    drawn = []
    monkeypatch.setattr(
        visualize,
        "save_grid",
        lambda *_, threshold, caption, **__: drawn.append((threshold, caption)),
    )
    words = [str(run), "--count=1", f"--output={tmp_path / 'a.png'}"]
    assert draw([*words, "--views=8"]) == 0
    own = load_model(run).config["threshold"]
    assert drawn[-1][0] == own
    assert "The threshold was chosen for one view." in drawn[-1][1]
    assert evaluate([str(run), "--device=cpu", "--threads=1", "--views=8"]) == 0
    judged = json.loads((run / "metrics.json").read_text())["threshold"]["value"]
    assert judged != own
    assert draw([*words, "--views=8"]) == 0
    assert drawn[-1][0] == judged
    assert "one view" not in drawn[-1][1]
    assert draw(words) == 0
    assert drawn[-1] == (own, None)


def test_other_numbers_of_views(trained, capsys):
    for command in (draw, evaluate):
        assert command([str(trained), "--views=4"]) == 2
        assert "views" in capsys.readouterr().err
