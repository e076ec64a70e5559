"""Pictures end to end: from a run, from one's own images, and honest about both."""

import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from attnvgg import AttnVGG, load_model
from attnvgg.cli.train import main as train
from attnvgg.cli.visualize import VisualizeConfig, make_case, visualize
from attnvgg.cli.visualize import main as draw


@pytest.fixture
def run(trained, tmp_path):
    """A private copy of the trained run."""
    shutil.copytree(trained, tmp_path / "runs" / "mine")
    return tmp_path / "runs" / "mine"


def test_a_run(run):
    assert draw([str(run), "--count=3"]) == 0
    with Image.open(run / "attention.png") as image:
        assert image.width > 500
        assert image.height > 500


def test_the_newest_run_is_the_default(run):
    assert draw([f"--out={run.parent}", "--count=2"]) == 0
    assert (run / "attention.png").is_file()


def test_one_picture_a_case(run):
    assert draw([str(run), "--count=4", "--each=true"]) == 0
    assert len(list((run / "attention").glob("*.png"))) == 4


def test_the_draw_is_seeded_and_takes_each_class(run, monkeypatch):
    """Both classes are drawn in equal parts, not the cases that look best."""
    drawn = []
    monkeypatch.setattr(
        "attnvgg.cli.visualize.save_grid", lambda path, cases, **_: drawn.append(cases)
    )
    for seed in (0, 0, 1):
        visualize(VisualizeConfig(targets=[run], count=6, seed=seed))
    names = [[case.name for case in cases] for cases in drawn]
    assert names[0] == names[1] != names[2]
    assert sorted(case.label for case in drawn[0]) == ["negative"] * 3 + ["positive"] * 3


def test_own_images_of_any_shape(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 90, 3), np.uint8)
    cv2.imwrite("wide.png", pixels)
    cv2.imwrite("tall.png", np.ascontiguousarray(pixels.transpose(1, 0, 2)))
    assert draw(["wide.png", "tall.png", f"--model={run}"]) == 0
    assert (tmp_path / "attention.png").is_file()


def test_the_map_lies_on_what_the_model_saw(run, tmp_path):
    """The region of a wide image is its centre square: half of 90 - 40 pixels from the left."""
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((40, 90, 3), np.uint8))
    case = make_case(load_model(run), {"image": str(tmp_path / "wide.png")})
    assert tuple(case.region) == pytest.approx((0, 25, 40))
    assert case.image.shape == (40, 90, 3)


def test_probability_is_that_of_the_evaluation(run):
    import pandas as pd

    table = pd.read_csv(run / "predictions.csv").iloc[0]
    case = make_case(load_model(run), table)
    assert case.probability == pytest.approx(table["probability"], abs=1e-6)
    assert case.label == ["negative", "positive"][table["label"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere"),
        (["{run}", "{picture}"], "not both"),
        (["{run}", "--count=0"], "--count"),
        (["{empty}"], "neither"),
        (["{text}", "--model={run}"], "text.png"),
        (["--out={empty}"], "train one first"),
    ],
)
def test_wrong_paths(run, pictures, tmp_path, capsys, words, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    names = {
        "run": run, "empty": tmp_path / "empty", "text": tmp_path / "text.png",
        "picture": pictures.parent / "00.png",
    }  # fmt: skip
    assert draw([word.format(**names) for word in words]) == 2
    assert said in capsys.readouterr().err


def test_a_model_without_attention_has_no_maps(csv_options, tmp_path, capsys):
    options = [*csv_options, "--model.attention=false", "--epochs=1", f"--out={tmp_path}"]
    assert train([*options, "--name=plain"]) == 0
    assert draw([str(tmp_path / "plain")]) == 2
    assert "without attention" in capsys.readouterr().err


def test_odd_formats_need_to_be_accepted(run, tmp_path, capsys):
    Image.new("L", (64, 64), 90).save(tmp_path / "grey.png")
    words = [str(tmp_path / "grey.png"), f"--model={run}", f"--output={tmp_path / 'a.png'}"]
    assert draw(words) == 2
    assert "convert" in capsys.readouterr().err
    assert draw([*words, "--convert=true"]) == 0


def test_several_classes(tmp_path):
    """With more than two classes the one that is called is quoted."""
    from attnvgg.data.transforms import Preprocess

    names = ["a", "b", "c"]
    AttnVGG(3, backbone="vgg11").save_pretrained(
        tmp_path / "m", preprocess=Preprocess(32, 32).to_dict(), classes=names, threshold=None
    )
    cv2.imwrite(str(tmp_path / "x.png"), np.full((50, 40, 3), 128, np.uint8))
    case = make_case(load_model(tmp_path / "m"), {"image": str(tmp_path / "x.png"), "label": 2})
    assert case.scored == case.predicted in names
    assert case.probability >= 1 / 3
    assert case.label == "c"
