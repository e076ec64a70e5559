"""Evaluation end to end: the same figures again, and nothing else touched."""

import json
import shutil

import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.train import main as train


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "mine")
    return tmp_path / "mine"


def test_evaluating_again_gives_the_same_files(run):
    names = [p.relative_to(run) for p in run.rglob("*") if p.is_file()]
    before = {name: (run / name).read_bytes() for name in names}
    for name in ("predictions.csv", "metrics.json"):
        (run / name).unlink()
    assert evaluate([str(run), "--device=cpu", "--threads=1"]) == 0
    assert {name: (run / name).read_bytes() for name in names} == before


def test_the_figures_are_those_of_scikit_learn(run):
    table = pd.read_csv(run / "predictions.csv")
    metrics = json.loads((run / "metrics.json").read_text())
    for split in ("val", "test"):
        rows = table[table["split"] == split]
        found = metrics[split]
        assert found["auc"]["value"] == pytest.approx(
            roc_auc_score(rows["label"], rows["probability"])
        )
        assert found["average_precision"] == pytest.approx(
            average_precision_score(rows["label"], rows["probability"])
        )
        called = rows["probability"] >= metrics["threshold"]["value"]
        assert found["sensitivity"] == pytest.approx(called[rows["label"] == 1].mean())
        assert found["specificity"] == pytest.approx(1 - called[rows["label"] == 0].mean())


def test_groups_make_the_interval_clustered(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["auc"]["method"] == "obuchowski"


def test_without_a_test_set_it_is_called_optimistic(csv_options, tmp_path, capsys):
    options = [*csv_options, "--data.fractions=[0.7,0.3,0]", "--epochs=1", f"--out={tmp_path}"]
    assert train([*options, "--name=a"]) == 0
    assert "OPTIMISTIC" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["optimistic"] is True


def test_an_image_that_has_gone(run, capsys):
    manifest = pd.read_csv(run / "manifest.csv")
    row = manifest.index[manifest["split"] == "test"][0]
    manifest.loc[row, "image"] = "/gone/for/good.png"
    manifest.to_csv(run / "manifest.csv", index=False)
    assert evaluate([str(run)]) == 2
    assert "good.png" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_a_damaged_model(run, capsys, damage):
    weights = run / "best" / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "text":
        weights.write_text("no weights")
    else:
        weights.unlink()
    assert evaluate([str(run)]) == 2
    captured = capsys.readouterr().err
    assert "best" in captured
    assert "Traceback" not in captured


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("config.yaml", lambda text: "\x00\x01"),
        ("config.yaml", lambda text: text.replace("image_size: 32", "image_size: null")),
        ("manifest.csv", lambda text: text.replace("split", "side")),
        ("best/config.json", lambda text: text.replace('"size": 32', '"size": "big"')),
        ("best/config.json", lambda text: text[: len(text) // 2]),
    ],
)
def test_a_damaged_run_is_told_in_a_sentence(run, capsys, name, spoil):
    (run / name).write_text(spoil((run / name).read_text()))
    assert evaluate([str(run)]) == 2
    captured = capsys.readouterr().err
    assert "error: " in captured
    assert "Traceback" not in captured
