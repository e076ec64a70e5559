import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image

from attnvgg.errors import InputError
from attnvgg.explain import BagCase, save_bag_grid
from attnvgg.explain.bag_row import written
from tests.explain.test_bag_case import bag, digits, softmax
from tests.explain.test_figures import said

NUMBER = re.compile(r"0|\d\.\d+|\de-\d+")


@pytest.fixture
def figures(monkeypatch):
    """The figures that would be written."""
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.append(self))
    return seen


def texts(figure):
    """Texts that are placed by hand, as (words, x, y) in inches from the left and the bottom."""
    width, height = figure.get_size_inches()
    return [
        (t.get_text(), t.get_position()[0] * width, t.get_position()[1] * height)
        for t in figure.texts
    ]


def numbers(figure):
    """Numbers under the instances, with their places, from left to right and top to bottom."""
    found = [entry for entry in texts(figure) if NUMBER.fullmatch(entry[0])]
    return sorted(found, key=lambda entry: (-round(entry[2], 2), entry[1]))


def pictures(figure):
    """Pictures with their extent (left, right, bottom, top)."""
    return [(image.get_array(), image.get_extent()) for image in figure.findobj(AxesImage)]


def frames(figure):
    return [p for p in figure.findobj(Rectangle) if p in figure.axes[0].patches]


def test_the_number_under_an_instance_is_its_weight(tmp_path, figures):
    cases = [bag(7), bag(4, weights=softmax(4, seed=1), instances=digits(4, seed=1))]
    save_bag_grid(tmp_path / "bags.png", cases)
    (figure,) = figures
    height = figure.get_size_inches()[1]
    drawn = pictures(figure)
    assert len(drawn) == 11
    for picture, (left, right, bottom, _) in drawn:
        case, number = next(
            (case, number)
            for case in cases
            for number in range(len(case))
            if np.array_equal(case.picture(number), picture)
        )
        below = [
            text
            for text, x, y in numbers(figure)
            if left < x < right and 0 < height - y - bottom < 0.3
        ]
        assert below == [written(case.values[number])]


def test_instances_are_ordered_by_weight(tmp_path, figures):
    save_bag_grid(tmp_path / "bags.png", [bag(9)])
    values = [float(text) for text, _, _ in numbers(figures[0])]
    assert len(values) == 9
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("instances", [True, False])
def test_the_numbers_of_a_long_bag_sum_to_one(tmp_path, figures, instances):
    case = bag(490, instances=digits(490) if instances else None)
    save_bag_grid(tmp_path / "bags.png", [case])
    found = [text for text, _, _ in numbers(figures[0])]
    assert len(found) == 11  # 8 of most weight, the rest, 2 of least
    assert found[8] == written(np.sort(case.values)[2:-8].sum())
    assert sum(map(float, found)) == pytest.approx(1, abs=0.01)
    spoken = " ".join(text for text, _, _ in texts(figures[0]))
    assert "480 more, together" in spoken
    assert "490 instances" in spoken


@pytest.mark.parametrize("count", [1, 10, 11])
def test_only_longer_bags_are_cut(tmp_path, words, count):
    save_bag_grid(tmp_path / "bags.png", [bag(count)], dpi=50)
    assert ("more" in words) == (count > 10)
    assert f"{count} instance{'s' * (count > 1)}" in words


def test_truth_is_marked_only_where_known(tmp_path, figures):
    labels = [1, 0, np.nan, 1, np.nan]
    save_bag_grid(tmp_path / "bags.png", [bag(instance_labels=labels), bag()])
    (figure,) = figures
    found = frames(figure)
    assert len(found) == 3
    thick = [f for f in found if f.get_linewidth() > 1]
    assert len(thick) == 2
    case = bag(instance_labels=labels)
    for picture, (left, _, _, top) in pictures(figure)[:5]:
        number = next(i for i in range(5) if np.array_equal(case.picture(i), picture))
        around = [f for f in found if np.allclose(f.get_xy(), (left - 0.03, top - 0.03))]
        assert len(around) == (not np.isnan(labels[number]))
        assert all((f in thick) == (labels[number] == 1) for f in around)
    spoken = " ".join(text for text, _, _ in texts(figure))
    assert "2 of 3 known positive" in spoken
    assert "Black frame: positive instance, grey: negative, none: not known" in spoken


def test_without_any_truth_nothing_is_marked(tmp_path, figures):
    save_bag_grid(tmp_path / "bags.png", [bag()])
    assert not frames(figures[0])
    assert "frame" not in " ".join(text for text, _, _ in texts(figures[0]))


def test_verdict_scale_and_caption_are_on_the_figure(tmp_path, words):
    case = bag(3, probability=0.873, scored="contains 9", label="no 9", predicted="contains 9")
    save_bag_grid(
        tmp_path / "bags.png", [case], threshold=0.25, title="Title", caption="MNIST.", dpi=50
    )
    text = said(words)
    for part in ("Title", "no 9", "p(contains 9) = 0.87", "called contains 9", "test-0001"):
        assert part in text
    for part in ("1 = no preference", "log scale", "same for every bag", "p ≥ 0.25; red: wrong"):
        assert part in text
    assert "MNIST." in text
    assert "branches" not in text
    assert "Arrowheads" not in text


def test_clipping_and_branches_are_said(tmp_path, words):
    clipped = bag(3, weights=[0.99, 0.01, 0.0])
    save_bag_grid(tmp_path / "bags.png", [clipped, bag(weights=softmax(5, 4))], dpi=50)
    assert "Arrowheads: beyond the scale." in said(words)
    assert "with 4 branches the mean is drawn" in said(words)


def test_scores_other_than_attention_have_their_own_scale(tmp_path, words):
    name = "probability of the instance"
    case = bag(20, weights=np.linspace(0, 1, 20), score_name=name)
    save_bag_grid(tmp_path / "bags.png", [case], dpi=50)
    text = said(words)
    assert f"{name}, on a scale from 0 to 1" in text
    assert "10 more, mean" in text
    assert "no preference" not in text
    assert "together" not in text


def test_features_have_bars_numbers_and_places(tmp_path, figures):
    coords = np.array([[1024, 2048], [512, 256], [0, 90000]])
    save_bag_grid(
        tmp_path / "bags.png", [bag(3, instances=None, weights=[0.2, 0.5, 0.3], coords=coords)]
    )
    spoken = [text for text, _, _ in texts(figures[0])]
    names = [text for text in spoken if text[0] == "#" and text[1:].isdigit()]
    assert names == ["#1", "#2", "#0"]
    assert {"x 512", "y 256", "y 90000"} <= set(spoken)
    assert "level-0 pixels" in " ".join(spoken)
    assert not pictures(figures[0])


def test_a_pool_without_weights_shows_pictures_without_numbers(tmp_path, figures):
    save_bag_grid(tmp_path / "bags.png", [bag(4, weights=None)])
    (figure,) = figures
    assert len(pictures(figure)) == 4
    assert not numbers(figure)
    assert len(figure.axes) == 1  # no colour bar
    assert "the model gives no weights" in " ".join(text for text, _, _ in texts(figure))


def test_only_the_pictures_that_are_drawn_are_read(tmp_path):
    read = []

    class Lazy(list):
        def __getitem__(self, number):
            read.append(number)
            return super().__getitem__(number)

    case = bag(300, instances=Lazy(digits(300)))
    save_bag_grid(tmp_path / "bags.png", [case], dpi=50)
    first, _, last = case.select(10)
    assert sorted(read) == sorted(first + last)


@pytest.mark.parametrize("size", [(20, 60), (60, 20, 3), (224, 224, 3)])
def test_pictures_keep_their_shape(tmp_path, figures, size):
    save_bag_grid(tmp_path / "bags.png", [bag(2, instances=digits(2, size))])
    for _, (left, right, bottom, top) in pictures(figures[0]):
        assert (right - left) / (bottom - top) == pytest.approx(size[1] / size[0])


@pytest.mark.parametrize("counts", [(1,), (3, 3), (10,) * 8, (20, 500)])
def test_nothing_leaves_the_page(tmp_path, figures, counts):
    cases = [
        bag(count, instance_names=[f"tile_{i:05d}.png" for i in range(count)]) for count in counts
    ]
    save_bag_grid(tmp_path / "bags.png", cases, longest=20)
    (figure,) = figures
    width, height = figure.get_size_inches() * figure.dpi
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    right = max(extent[1] for _, extent in pictures(figure))
    assert right < figure.get_size_inches()[0]


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (0, "0"), (1, "1.00"), (0.625, "0.62"), (0.0999, "0.10"), (0.0432, "0.043"),
        (0.001, "0.001"), (0.00098, "1e-3"), (4.3e-5, "4e-5"), (1e-12, "1e-12"),
    ],
)  # fmt: skip
def test_weights_are_written_short_and_never_as_zero(weight, expected):
    assert written(weight) == expected


def test_the_file_is_a_picture_with_a_row_a_bag(tmp_path):
    for count in (1, 3):
        save_bag_grid(tmp_path / f"{count}.png", [bag(10)] * count, dpi=50)
    with Image.open(tmp_path / "1.png") as one, Image.open(tmp_path / "3.png") as three:
        assert one.width == three.width
        assert three.height > one.height + 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "3.png"]


def test_a_failed_figure_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "bags.png"
    path.write_bytes(b"old")

    def full_disk(self, target, **_):
        target.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_bag_grid(path, [bag()])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_requests_are_refused(tmp_path):
    with pytest.raises(InputError, match="no bags"):
        save_bag_grid(tmp_path / "bags.png", [])
    with pytest.raises(InputError, match="at least 2 and at most 20"):
        save_bag_grid(tmp_path / "bags.png", [bag()], longest=21)
    with pytest.raises(InputError, match="cannot be written"):
        save_bag_grid(tmp_path / "bags.xyz", [bag()], dpi=50)
    probabilities = bag(name="other", weights=[0.1] * 5, score_name="probability")
    with pytest.raises(InputError, match="cannot share a scale") as caught:
        save_bag_grid(tmp_path / "bags.png", [bag(), probabilities])
    assert caught.value.offenders == ["test-0001: attention", "other: probability"]
    assert not list(tmp_path.iterdir())


def test_one_scale_for_all_bags(tmp_path, figures):
    """Bars of equal relative weight are equally long, whatever else is in their bag."""
    flat = BagCase("a", 0.5, "yes", weights=[0.25] * 4, instances=digits(4))
    steep = BagCase("b", 0.5, "yes", weights=[0.25, 0.7, 0.04, 0.01], instances=digits(4))
    save_bag_grid(tmp_path / "bags.png", [flat, steep])
    lengths = [np.ptp(p.get_xy()[:, 0]) for p in figures[0].axes[0].patches if p.get_facecolor()[3]]
    tracks, bars = lengths[::2], lengths[1::2]
    assert np.ptp(tracks) < 1e-9
    assert np.allclose(np.array(bars[:4]) / tracks[0], 0.5)
    expected = [0.5 + np.log2(w * 4) / 8 for w in (0.7, 0.25)]
    assert np.allclose(np.array(bars[4:6]) / tracks[0], expected)
