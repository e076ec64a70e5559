"""A model in use: what it says, by which engine, and what is refused."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from attnvgg.data.transforms import Preprocess
from attnvgg.deploy import image_source
from attnvgg.deploy import predictor as module
from attnvgg.deploy.agreement import Agreement, compare
from attnvgg.deploy.calibration import of_files, of_run
from attnvgg.deploy.engines import Engine
from attnvgg.deploy.predictor import Predictor
from attnvgg.errors import InputError
from attnvgg.models import VGGGAP, AttnVGG


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def run(thin_vgg, pictures, tmp_path_factory):
    """What a run on pictures leaves behind, as far as predicting needs it."""
    folder = tmp_path_factory.mktemp("run")
    table = pd.read_csv(pictures)
    table["image"] = [str(pictures.parent / name) for name in table["image"]]
    table["split"] = np.where(np.arange(len(table)) % 3 == 0, "val", "train")
    table.to_csv(folder / "manifest.csv", index=False)
    torch.manual_seed(0)
    model = AttnVGG(1, normalize_attn=True, backbone="vgg11_bn").eval()
    with torch.no_grad():
        model.classifier.weight.normal_(std=0.3)
    model.save_pretrained(
        folder / "best",
        preprocess=Preprocess(32, 32).to_dict(),
        classes=["benign", "malignant"],
        threshold=0.4,
    )
    return folder


@pytest.fixture(scope="module")
def files(run):
    return pd.read_csv(run / "manifest.csv")["image"].tolist()


def test_it_says_what_the_model_says(run, files):
    found = list(Predictor(run, "eager")(files[:5], batch_size=2))
    model = AttnVGG.from_pretrained(run / "best")
    preprocess = Preprocess(32, 32)
    with torch.inference_mode():
        logits, attn1, attn2 = model(torch.stack([preprocess(path) for path in files[:5]]))
    assert len(found) == 5
    for row, one in enumerate(found):
        np.testing.assert_allclose(one.logits, logits[row], atol=1e-5)
        np.testing.assert_allclose(one.probabilities, logits[row].sigmoid(), atol=1e-5)
        np.testing.assert_allclose(one.attn1, attn1[row, 0], atol=1e-6)
        np.testing.assert_allclose(one.attn2, attn2[row, 0], atol=1e-6)
        assert one.called == int(one.probabilities[0] >= 0.4)


def test_files_opened_images_and_pixels_are_one(run, files):
    pixels = cv2.cvtColor(cv2.imread(files[0]), cv2.COLOR_BGR2RGB)
    with Image.open(files[0]) as image:
        found = list(Predictor(run, "eager")([files[0], image, pixels]))
    assert len({float(one.probabilities[0]) for one in found}) == 1


def test_auto_takes_8_bits_calibrated_on_the_run(run, files, cache, monkeypatch, caplog):
    monkeypatch.setattr(module, "choose", lambda device, can: ("openvino-int8", f"can {can}"))
    caplog.set_level("INFO", "attnvgg")
    predictor = Predictor(run, cache=cache)
    assert predictor.engine.name == "openvino-int8"
    assert predictor.words.endswith("8 bits): can True")
    assert "Compared with PyTorch: |dp| mean" in caplog.text
    assert predictor.engine.agreement["images"] == 21
    exact = [p.probabilities[0] for p in Predictor(run, "eager")(files)]
    near = [p.probabilities[0] for p in predictor(files)]
    assert 0 < np.abs(np.subtract(exact, near)).mean() < 0.02


def test_auto_falls_back_where_an_engine_is_too_far(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "choose", lambda device, can: ("openvino", ""))
    far = Agreement(9, 0.2, 0.5, None, ())
    monkeypatch.setattr(image_source, "agreement_of", lambda *arguments: far)
    predictor = Predictor(run, cache=tmp_path)
    assert predictor.engine.name == "eager"
    assert "is refused" in caplog.text
    assert predictor.reason == "openvino could not be had"
    with pytest.raises(InputError, match=r"mean \|dp\| 0.2 is above 0.0001"):
        Predictor(run, "openvino", cache=tmp_path)


def test_without_its_images_there_is_nothing_to_calibrate_with(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "choose", lambda device, can: (asked.append(can), ("eager", ""))[1])
    Predictor(run / "best")
    Predictor(run / "best", calibration=[pd.read_csv(run / "manifest.csv")["image"][0]])
    assert asked == [False, True]
    image = pd.read_csv(run / "manifest.csv")["image"][0]
    with pytest.raises(InputError, match="1 are too few"):
        Predictor(run / "best", "openvino-int8", calibration=[image], cache=tmp_path)
    with pytest.raises(InputError, match="does not exist: give images to calibrate"):
        Predictor(run / "best", "openvino-int8", calibration=[tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images to calibrate with"):
        Predictor(run / "best", "openvino-int8", calibration=[tmp_path / "empty"])


def test_several_classes_and_no_maps(thin_vgg, tmp_path, files):
    model = VGGGAP(3, backbone="vgg11_bn")
    names = ["a", "b", "c"]
    model.save_pretrained(tmp_path, preprocess=Preprocess(32, 32).to_dict(), classes=names)
    (found,) = Predictor(tmp_path, "eager")(files[:1])
    assert found.attn1 is None
    assert found.attn2 is None
    assert found.probabilities.sum() == pytest.approx(1)
    assert found.called == found.probabilities.argmax()
    assert Predictor(tmp_path, "eager").classes == ["a", "b", "c"]


def test_what_is_refused(run, tmp_path, files, thin_vgg):
    with pytest.raises(InputError, match='no engine "fast"'):
        Predictor(run, "fast")
    with pytest.raises(InputError, match="no folder with a saved model"):
        Predictor(tmp_path / "none")
    AttnVGG(1, backbone="vgg11_bn").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="saved without its preprocessing"):
        Predictor(tmp_path)
    with pytest.raises(InputError, match='no device "tpu"'):
        Predictor(run, device="tpu")
    with pytest.raises(InputError, match="at least 1"):
        list(Predictor(run, "eager")(files, batch_size=0))
    with pytest.raises(InputError, match="a file, an opened image or pixels, not 3"):
        list(Predictor(run, "eager")([3]))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no GPU here"):
            Predictor(run, device="cuda")
    (tmp_path / "broken.jpg").write_bytes(b"none")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        list(Predictor(run, "eager")([files[0], tmp_path / "broken.jpg"]))


# --- agreement


class Answers(Engine):
    def __init__(self, logits, *maps):
        self.found = (np.float32(logits), *map(np.float32, maps))

    def __call__(self, images):
        return self.found


def test_agreement_in_numbers():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(40, 1))
    labels = (exact[:, 0] + rng.normal(size=40) > 0).astype(int)
    maps = rng.random((40, 1, 4, 4))
    found = compare(Answers(exact, maps), Answers(exact, maps), [exact], labels)
    assert (found.images, found.mean_difference) == (40, 0)
    assert found.auc[0] == found.auc[1]
    assert found.rank_correlation == (pytest.approx(1),)
    found.require("onnx")
    moved = compare(Answers(-exact, 1 - maps), Answers(exact, maps), [exact], labels)
    assert moved.auc[0] == pytest.approx(1 - moved.auc[1])
    assert moved.rank_correlation == (pytest.approx(-1),)
    with pytest.raises(InputError, match=r"rank correlation of the maps -1\.0000 is below 0.98"):
        moved.require("openvino-int8")
    json.dumps(moved.to_dict())


def test_what_is_no_number_or_has_no_order_is_no_agreement():
    logits, maps = np.zeros((3, 1)), np.random.default_rng(0).random((3, 1, 4, 4))
    exact = Answers(logits, maps)
    broken = compare(Answers(logits * np.nan, maps), exact, [logits], np.array([0, 1, 1]))
    with pytest.raises(InputError, match="nan is above"):
        broken.require("openvino-int8")
    for dead in (maps * 0, maps * np.nan):
        with pytest.raises(InputError, match=r"maps 0\.0000 is below"):
            compare(Answers(logits, dead), exact, [logits]).require("openvino-int8")


def test_the_name_of_images_changes_with_them(tmp_path, files):
    import shutil

    shutil.copy(files[0], tmp_path / "a.png")
    found = of_files([tmp_path])
    names = {found.name(Preprocess(32, 32)), found.name(Preprocess(32, 48))}
    shutil.copy(files[1], tmp_path / "a.png")
    names.add(found.name(Preprocess(32, 32)))
    assert len(names) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"preprocess": None}, {"preprocess": {"mean": [0.5]}}, {"threshold": "x"},
        {"threshold": [1]}, {"threshold": 1e308}, {"arguments": []}, {"arguments": {}},
        {"classes": ["a"]},
    ],
    ids=str,
)  # fmt: skip
def test_damaged_descriptions(change):
    model = {
        "preprocess": Preprocess(32, 32).to_dict(),
        "arguments": {"num_classes": 1},
        "threshold": 0.5,
    }
    assert image_source.described_model({"model": model}, "x")[0]["threshold"] == 0.5
    with pytest.raises(InputError):
        image_source.described_model({"model": model | change}, "x")


def test_flat_maps_and_one_class_are_not_compared():
    logits, flat = np.zeros((3, 1)), np.ones((3, 1, 2, 2))
    found = compare(Answers(logits, flat), Answers(logits, flat), [logits], np.zeros(3, int))
    assert found.auc is None
    assert found.rank_correlation == (None,)
    found.require("onnx")
    assert "rank" not in found.words


# --- images of a run


def test_the_draw_is_balanced_and_fixed(run):
    training, validation = of_run(run)
    assert (training, validation) == of_run(run)
    table = pd.read_csv(run / "manifest.csv").set_index("image")
    assert set(table.loc[list(training.paths), "split"]) == {"train"}
    assert set(table.loc[list(validation.paths), "split"]) == {"val"}
    first = training.labels[:10]
    assert sum(first) == 5
    assert [table.loc[path, "label"] for path in training.paths] == list(training.labels)


def test_no_run_and_lost_images(tmp_path, run):
    assert of_run(tmp_path) == (None, None)
    table = pd.read_csv(run / "manifest.csv")
    table["image"] = "gone/" + table["image"]
    table.to_csv(tmp_path / "manifest.csv", index=False)
    assert of_run(tmp_path) == (None, None)


def test_files_and_folders_of_images(files):
    from pathlib import Path

    folder = Path(files[0]).parent
    assert set(of_files([folder]).paths) == set(files)
    assert of_files([files[3]]).paths == (files[3],)
