import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from attnvgg.data.transforms import Region
from attnvgg.errors import InputError
from attnvgg.explain import Case, save_grid, save_panels
from tests.explain.test_overlays import delta, softmax_map


def case(size=(32, 32), **more):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    settings = {
        "attn1": softmax_map((4, 4)),
        "attn2": softmax_map((2, 2)),
        "probability": 0.8,
        "predicted": "malignant",
        "label": "malignant",
        **more,
    }
    return Case(image, **settings)


def said(words):
    return " ".join(" ".join(words).split())


def test_grid_is_an_image_with_a_row_a_case(tmp_path):
    for count in (1, 3):
        save_grid(tmp_path / f"{count}.png", [case()] * count, dpi=50)
    with Image.open(tmp_path / "1.png") as one, Image.open(tmp_path / "3.png") as three:
        assert one.width == three.width
        assert three.height > one.height + 100  # two panels of 1.75 inches more
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "3.png"]


def test_label_probability_scale_and_caption_are_on_the_figure(tmp_path, words):
    row = case(label="malignant", probability=0.873, name="ISIC_1", scored="malignant")
    save_grid(
        tmp_path / "grid.png", [row], threshold=0.25, title="Title", caption="SYNTHETIC.", dpi=50
    )
    text = said(words)
    for part in ("Title", "image", "pool-3", "pool-4", "malignant", "p(malignant) = 0.87"):
        assert part in text
    for part in ("ISIC_1", "1 = no preference", "log scale", "p ≥ 0.25", "SYNTHETIC."):
        assert part in text
    assert "called" not in text
    assert "red" not in text
    assert "clipped" not in text


def test_errors_are_marked(tmp_path, words):
    row = case(label="malignant", predicted="benign", scored="malignant", probability=0.1)
    save_grid(tmp_path / "grid.png", [row], threshold=0.25, dpi=50)
    assert "called benign" in words
    assert "red: wrong" in said(words)


def test_without_a_label_the_class_is_a_prediction(tmp_path, words):
    save_grid(tmp_path / "grid.png", [case(label=None)], dpi=50)
    assert "predicted (no label)" in words


def test_long_names_stay_beside_the_panels(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: written.append(self))
    name = "seborrheic_keratosis"
    row = case(
        label=name,
        predicted=f"not_{name}",
        scored=name,
        name="IMG_photograph_of_the_left_arm_0001.jpeg",
    )
    save_grid(tmp_path / "grid.png", [row], title=8 * "attention maps ")
    (figure,) = written
    title = [text for text in figure.texts if text.get_text().startswith("attention")]
    beside = [text for text in figure.texts if name in text.get_text() or "…" in text.get_text()]
    assert len(beside) == 4
    for texts, inches in ((title, 6.96), (beside, 1.47)):
        for text in texts:
            assert text.get_window_extent().x1 <= inches * figure.dpi


def test_clipping_is_said_with_its_share(tmp_path, words):
    one = np.zeros((4, 4))
    one[0, 0] = 1
    save_grid(tmp_path / "grid.png", [case(attn1=one)], dpi=50)
    assert "94 % clipped" in words  # 15 zeros of 16; 16 times is the end of the scale
    assert "beyond the scale" in said(words)


@pytest.mark.parametrize(
    ("kind", "part"), [("per-image", "STRETCHED PER IMAGE"), ("sigmoid", "same for every image")]
)
def test_the_scale_is_named(tmp_path, words, kind, part):
    row = case(attn1=np.array([[0.1, 0.4]]), attn2=np.array([[0.2, 0.3]]))
    save_grid(tmp_path / "grid.png", [row], kind=kind, dpi=50)
    assert part in said(words)
    assert ("0.1 to 0.4" in words) == (kind == "per-image")


def test_mask_and_unseen_parts_are_explained(tmp_path, words):
    mask = np.zeros((32, 48))
    mask[8:20, 20:40] = 255
    save_grid(tmp_path / "grid.png", [case((32, 48), region=Region(0, 8, 32), mask=mask)], dpi=50)
    assert "lesion mask" in said(words)
    assert "Darkened" in said(words)


def test_an_empty_mask_has_no_outline(tmp_path):
    save_grid(tmp_path / "grid.png", [case(mask=np.zeros((32, 32)))], dpi=50)
    assert (tmp_path / "grid.png").stat().st_size > 0


@pytest.mark.parametrize("row", range(6))
def test_a_delta_changes_its_own_source_pixels_in_the_plain_file(tmp_path, row):
    """48 x 80 pixels, of which the model saw the square from column 16 on; 8 pixels a cell."""
    column = (row + 2) % 6
    written = []
    for attention in (np.zeros((6, 6)), delta(6, row, column)):
        plain = case((48, 80), attn1=attention, attn2=np.zeros((3, 3)), region=Region(0, 16, 48))
        save_panels(tmp_path / "plain.png", plain, kind="sigmoid", interpolation="nearest")
        with Image.open(tmp_path / "plain.png") as file:
            written.append(np.asarray(file))
    np.testing.assert_array_equal(written[0][:, :80], plain.image)
    block = np.zeros((48, 3 * 80), bool)
    block[8 * row :, 80 + 16 + 8 * column :][:8, :8] = True
    np.testing.assert_array_equal((written[0] != written[1]).any(axis=2), block)


def test_the_plain_file_describes_itself(tmp_path):
    save_panels(tmp_path / "plain.png", case((20, 33)), kind="per-image", caption="SYNTHETIC.")
    with Image.open(tmp_path / "plain.png") as file:
        assert file.size == (3 * 33, 20)
        for part in ("image | pool-3 | pool-4", "STRETCHED PER IMAGE", "SYNTHETIC."):
            assert part in file.text["Description"]


def test_a_large_image_looks_like_its_own_reduction(tmp_path):
    lesion = np.zeros((30, 40))
    lesion[8:20, 10:30] = 1
    small = case((30, 40), region=Region(0, 5, 30), mask=lesion)
    large = replace(
        small,
        image=small.image.repeat(40, 0).repeat(40, 1),
        region=Region(0, 200, 1200),
        mask=lesion.repeat(40, 0).repeat(40, 1),
    )
    pictures = []
    for name, row in (("small", small), ("large", large)):
        save_grid(tmp_path / f"{name}.png", [row], dpi=50, interpolation="nearest")
        with Image.open(tmp_path / f"{name}.png") as written:
            pictures.append(np.asarray(written.convert("L").resize((100, 50)), float))
    apart = np.abs(pictures[0] - pictures[1]).mean()
    moved = np.abs(pictures[0] - np.roll(pictures[0], 2, 1)).mean()
    assert apart < moved / 4


def test_a_failed_figure_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")

    def full_disk(self, target, **_):
        target.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_grid(path, [case()])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_format_and_no_cases_are_refused(tmp_path):
    for name in ("grid.xyz", "grid"):
        with pytest.raises(InputError, match="cannot be written"):
            save_grid(tmp_path / name, [case()], dpi=50)
    with pytest.raises(InputError, match="no cases"):
        save_grid(tmp_path / "grid.png", [])
    assert not list(tmp_path.iterdir())


def test_no_global_state():
    """Figures need no display, no pyplot, and change no setting of matplotlib."""
    code = """
import sys, tempfile
import matplotlib, numpy
before = matplotlib.rcParams.copy()  # looking up a backend would load pyplot
from attnvgg.explain import Case, save_grid
weights = numpy.full((2, 2), 0.25)
case = Case(numpy.zeros((8, 8, 3), numpy.uint8), weights, weights, 0.5, "benign")
with tempfile.TemporaryDirectory() as folder:
    save_grid(folder + "/grid.png", [case], dpi=50)
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams.copy() == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
