"""Exported models: whole, compared, and what they say of themselves."""

import json
import shutil

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from attnvgg.cli.export import main
from attnvgg.deploy import export as module
from attnvgg.deploy.agreement import Agreement
from attnvgg.deploy.predictor import Predictor
from attnvgg.errors import InputError
from tests.deploy.test_predictor import files, run  # noqa: F401


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("exported")
    for target in ("onnx", "openvino-int8", "torch"):
        assert main([str(run), "--to", target, "--output", str(folder / target)]) == 0
    return folder


@pytest.mark.parametrize("target", ["onnx", "openvino-int8"])
def test_what_was_exported_predicts(run, files, exported, target):  # noqa: F811
    predictor = Predictor(exported / target)
    assert predictor.engine.name == target
    assert predictor.threshold == 0.4
    assert predictor.classes == ["benign", "malignant"]
    found = [one.probabilities[0] for one in predictor(files[:8])]
    exact = [one.probabilities[0] for one in Predictor(run, "eager")(files[:8])]
    np.testing.assert_allclose(found, exact, atol=0.03 if target.endswith("int8") else 1e-5)


def test_others_can_use_it_by_what_engine_json_says(exported, run, files):  # noqa: F811
    about = json.loads((exported / "onnx" / "engine.json").read_text())
    assert about["outputs"][0] == "logits (B, K)"
    assert about["model"]["preprocess"]["size"] == 32
    assert about["agreement"]["images"] == 21
    assert set(about["files"]) == {"model.onnx"}
    session = onnxruntime.InferenceSession(exported / "onnx" / "model.onnx")
    images = np.stack([Predictor(run, "eager").preprocess(path).numpy() for path in files[:3]])
    logits = session.run(None, {"images": images})[0]
    program = torch.export.load(exported / "torch" / "model.pt2").module()
    with torch.inference_mode():
        theirs = program(torch.from_numpy(images))[0].numpy()
    np.testing.assert_allclose(logits, theirs, atol=1e-5)


def test_programs_of_strangers_are_not_opened(exported, capsys):
    with pytest.raises(InputError, match=r"for torch\.export\.load, and is not opened here"):
        Predictor(exported / "torch")


def test_a_changed_file_is_noticed(exported, tmp_path):
    for file in (exported / "onnx").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(InputError, match="not those exported"):
        Predictor(tmp_path)
    with pytest.raises(InputError, match="exported for the engine onnx, not openvino"):
        Predictor(exported / "onnx", "openvino")


def test_nothing_else_is_replaced(exported, run, tmp_path, capsys):  # noqa: F811
    assert main([str(run), "--output", str(exported / "onnx")]) == 2
    assert "holds an export already: add --replace" in capsys.readouterr().err
    (tmp_path / "mine.txt").write_text("")
    assert main([str(run), "--output", str(tmp_path), "--replace"]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert main([str(run), "--output", str(tmp_path / "mine.txt")]) == 2
    assert (tmp_path / "mine.txt").exists()


def test_a_poor_export_is_refused_and_nothing_written(run, tmp_path, monkeypatch, capsys):  # noqa: F811
    far = Agreement(100, 0.2, 0.5, (0.6, 0.9), (0.5, 0.5))
    monkeypatch.setattr(module, "agreement_of", lambda *arguments: far)
    assert main([str(run), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "is refused" in error
    assert "the AUC moved from 0.9000 to 0.6000" in error
    assert not list(tmp_path.iterdir())


def test_a_model_without_its_images(run, tmp_path, capsys, files):  # noqa: F811
    best = str(run / "best")
    assert main([best, "--output", str(tmp_path / "out")]) == 2
    assert "give some with --images" in capsys.readouterr().err
    few = tmp_path / "few"
    few.mkdir()
    for path in pd.read_csv(run / "manifest.csv")["image"][:3]:
        shutil.copy(path, few)
    words = [best, "-o", str(tmp_path / "out"), f"--images={few}"]
    assert main([*words, "--to", "openvino-int8"]) == 2
    assert "3 are too few" in capsys.readouterr().err


def test_a_model_of_bags(trained_bag_model, capsys):
    assert main([str(trained_bag_model)]) == 2
    assert "of bags" in capsys.readouterr().err


@pytest.fixture
def trained_bag_model(tmp_path, files):  # noqa: F811
    from attnvgg.models import BagClassifier

    model = BagClassifier(
        {"name": "identity", "in_features": 4}, {"name": "mean"}, {"name": "linear"}
    )
    model.save_pretrained(tmp_path / "bags")
    return tmp_path / "bags"
