"""Pictures end to end: from a run, from one's own images, and honest about both."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from attnvgg import AttnVGG, load_model
from attnvgg.cli.image_case import caption_of
from attnvgg.cli.train import main as train
from attnvgg.cli.visualize import VisualizeConfig, make_case, visualize
from attnvgg.cli.visualize import main as draw
from attnvgg.data.manifest import read_manifest, write_manifest
from attnvgg.errors import InputError
from attnvgg.explain.grad_cam import grad_cam
from attnvgg.models import ImageOutput


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


def test_one_file_a_case(run):
    assert draw([str(run), "--count=4", "--each=true"]) == 0
    files = sorted((run / "attention").glob("*.png"))
    assert [file.name[:4] for file in files] == ["000-", "001-", "002-", "003-"]


def test_a_delta_lands_on_its_own_source_pixels(run, tmp_path, monkeypatch):
    """90 x 40 pixels, of which the model sees the square from column 25 on; its maps have 4 x 4
    and 2 x 2 cells, so 10 and 20 source pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    model, written = load_model(run), []
    monkeypatch.setattr("attnvgg.cli.visualize.load_model", lambda _: model)
    for cell in ((0, 0), (2, 1)):
        attn1, attn2 = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 2, 2), 0.25)
        attn1[(0, 0, *cell)] = 1
        model.forward = lambda _, maps=(attn1, attn2): ImageOutput(torch.zeros(1, 1), *maps)
        words = [str(tmp_path / "wide.png"), f"--model={run}", f"--output={tmp_path / 'a.png'}"]
        assert draw([*words, "--each=true", "--interpolation=nearest"]) == 0
        with Image.open(tmp_path / "a" / "000-wide.png") as file:
            written.append(np.asarray(file))
    np.testing.assert_array_equal(written[0][:, :90], pixels)
    blocks = np.zeros((40, 270), bool)
    blocks[0:10, 90 + 25 : 90 + 35] = blocks[20:30, 90 + 35 : 90 + 45] = True
    np.testing.assert_array_equal((written[0] != written[1]).any(axis=2), blocks)


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


def test_many_images_fill_pages_and_not_the_memory(run, tmp_path, monkeypatch):
    """A page is written before the images of the next are read, and they are kept small."""
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((40, 3000, 3), np.uint8))
    made, pages = [], []

    def count(model, row, **options):
        made.append(row["image"])
        return make_case(model, row, **options)

    def record(path, cases, **_):
        pages.append((path.name, [case.name for case in cases], len(made)))
        assert all(max(case.image.shape) < 1400 for case in cases)

    monkeypatch.setattr("attnvgg.cli.visualize.make_case", count)
    monkeypatch.setattr("attnvgg.cli.visualize.save_grid", record)
    files = sorted(tmp_path.glob("*.png"))
    visualize(VisualizeConfig(targets=files, model=str(run), count=2))
    assert pages == [
        ("attention.png", ["0.png", "1.png"], 2),
        ("attention-2.png", ["2.png", "3.png"], 4),
        ("attention-3.png", ["4.png"], 5),
    ]


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
        (["{run}", "--model={run}"], "its own model"),
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


def test_all_broken_files_are_named_before_the_work(run, tmp_path, capsys):
    names = [tmp_path / "one.png", tmp_path / "two.png"]
    for name in names:
        name.write_text("no picture")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 40, 3), np.uint8))
    output = tmp_path / "out" / "a.png"
    assert draw([str(tmp_path), f"--model={run}", f"--output={output}", "--count=1"]) == 2
    said = capsys.readouterr().err
    assert all(str(name) in said for name in names)
    assert not output.parent.exists()


def test_a_broken_mask_is_named(run, tmp_path, capsys):
    mask = tmp_path / "mask.png"
    mask.write_text("no picture")
    write_manifest(read_manifest(run / "manifest.csv").assign(mask=mask), run / "manifest.csv")
    assert draw([str(run)]) == 2
    assert f"{mask}: is not an image" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [["only"], ["a", "b", "c"], "ab", 2])
def test_classes_that_do_not_fit_the_model(run, pictures, classes):
    model = load_model(run)
    model.config["classes"] = classes
    with pytest.raises(InputError, match="tells 2 classes apart"):
        make_case(model, {"image": str(pictures.parent / "00.png"), "label": 1})


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_that_the_model_does_not_know(run, pictures, label):
    with pytest.raises(InputError, match=f"label {label}, but the classes of the model are 0 to 1"):
        make_case(load_model(run), {"image": str(pictures.parent / "00.png"), "label": label})


def test_a_model_without_its_preprocessing(pictures, tmp_path, capsys):
    AttnVGG(1, backbone="vgg11").save_pretrained(tmp_path / "m")
    assert draw([str(pictures.parent / "00.png"), f"--model={tmp_path / 'm'}"]) == 2
    assert "without its preprocessing" in capsys.readouterr().err


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
    words = [str(tmp_path / "x.png"), f"--model={tmp_path / 'm'}", "--each=true"]
    assert draw([*words, f"--output={tmp_path / 'out.png'}"]) == 0
    assert (tmp_path / "out.png").is_file()
    assert (tmp_path / "out" / "000-x.png").is_file()


def test_grad_cam_is_of_the_class_that_is_quoted(run, pictures):
    """Of one logit it speaks for class 1; attention and probability stay as they are."""
    model, row = load_model(run), {"image": str(pictures.parent / "00.png")}
    plain, with_map = make_case(model, row), make_case(model, row, with_class_map=True)
    assert plain.class_map is None
    assert with_map.scored == "positive"
    expected = grad_cam(model, model.preprocess(row["image"])[None], [1])[0]
    np.testing.assert_array_equal(with_map.class_map, expected)
    np.testing.assert_array_equal(plain.attn1, with_map.attn1)
    assert plain.probability == with_map.probability


def test_grad_cam_adds_a_column(run):
    assert draw([str(run), "--count=1", "--each=true"]) == 0
    with Image.open(run / "attention.png") as image:
        narrow = image.width
    assert draw([str(run), "--count=1", "--each=true", "--grad_cam=true"]) == 0
    with Image.open(run / "attention.png") as image:
        assert image.width > narrow
    (panels,) = (run / "attention").glob("*.png")
    with Image.open(panels) as image:
        assert image.size == (4 * 64, 64)
        assert "Grad-CAM" in image.text["Description"]


def test_grad_cam_is_of_one_view(run, capsys):
    assert draw([str(run), "--grad_cam=true", "--views=8"]) == 2
    assert "--views" in capsys.readouterr().err


def test_of_several_classes_the_page_says_that_attention_has_none():
    model = AttnVGG(3, backbone="vgg11")
    model.config["classes"] = ["a", "b", "c"]
    assert "same for every class" in caption_of(model)
    model.config["classes"] = ["a", "b"]
    assert caption_of(model) is None
