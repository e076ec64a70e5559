"""Real photographs with one's own labels: faces against other pictures, through a CSV."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import skimage.data

from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.train import main as train


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A CSV of the 200 grey photographs of 25 x 25 pixels that come with scikit-image."""
    folder = tmp_path_factory.mktemp("faces")
    pixels = np.rint(skimage.data.lfw_subset() * 255).astype(np.uint8)
    names = [f"{i:03d}.png" for i in range(len(pixels))]
    for name, grey in zip(names, pixels, strict=True):
        cv2.imwrite(str(folder / name), grey)
    labels = (np.arange(len(pixels)) < 100).astype(int)  # the first hundred are faces
    pd.DataFrame({"image": names, "label": labels}).to_csv(folder / "cases.csv", index=False)
    return folder / "cases.csv"


def test_train_and_evaluate(faces, small, tmp_path, capsys):
    options = [*small, "--data.source=csv", f"--data.root={faces}", f"--out={tmp_path}", "--name=a"]
    assert train(options) == 2
    assert "--data.convert true" in capsys.readouterr().err, "grey files are refused at first"
    assert train([*options, "--data.convert=true", "--epochs=3"]) == 0
    assert evaluate([str(tmp_path / "a")]) == 0
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["test"]["n"] == 50
    assert metrics["test"]["auc"]["method"] == "delong"
    assert metrics["test"]["auc"]["value"] > 0.9
