"""Pictures of bags end to end: what is drawn is what the tables of the run say."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attnvgg.cli.visualize import main as draw


@pytest.fixture
def drawn(monkeypatch):
    """Return what a command would have drawn: its cases, and how."""

    def attempt(*words):
        found = []
        with monkeypatch.context() as patch:
            patch.setattr(
                "attnvgg.cli.visualize_bags.save_bag_grid",
                lambda path, cases, **options: found.append((path, cases, options)),
            )
            assert draw([str(word) for word in words]) == 0
        assert len(found) == 1
        return found[0]

    return attempt


def test_a_run(trained_bags, tmp_path, capsys):
    run = tmp_path / "a"
    shutil.copytree(trained_bags, run)
    assert draw([str(run), "--count=4"]) == 0
    assert str(run / "attention.png") in capsys.readouterr().out
    with Image.open(run / "attention.png") as image:
        assert image.width > 500
        assert np.asarray(image.convert("L")).std() > 5


def test_the_newest_run_may_be_of_bags(seeded_bags, tmp_path):
    shutil.copytree(seeded_bags, tmp_path / "runs" / "a")
    assert draw([f"--out={tmp_path / 'runs'}", "--count=2"]) == 0
    assert (tmp_path / "runs" / "a" / "attention.png").is_file()


def test_bags_are_drawn_as_the_tables_say(trained_bags, drawn, digits):
    path, cases, options = drawn(trained_bags, "--count=6", "--output=x.png")
    table = pd.read_csv(trained_bags / "predictions.csv").set_index("image")
    instances = pd.read_csv(trained_bags / "instances.csv").set_index("image")
    manifest = pd.read_csv(trained_bags / "manifest.csv").set_index("image")
    assert str(path) == "x.png"
    assert "test bags" in options["title"]
    assert len(cases) == 6
    for case in cases:
        row, mine = table.loc[case.name], instances.loc[case.name]
        assert case.probability == row["probability_1"]
        assert case.scored == "holds a 1"
        assert case.label == ("no 1", "holds a 1")[row["label"]]
        called = row["probability_1"] >= options["threshold"]
        assert case.predicted == ("no 1", "holds a 1")[int(called)]
        np.testing.assert_array_equal(case.weights, mine["weight"])
        np.testing.assert_array_equal(case.instance_labels, mine["label"])
        rows = [int(n) for n in manifest.loc[case.name, "instances"].split()]
        np.testing.assert_array_equal(np.stack(case.instances), digits.images[rows])
    shown = [case.probability for case in cases]
    assert shown == sorted(shown, reverse=True)
    assert sorted(case.label for case in cases) == ["holds a 1"] * 3 + ["no 1"] * 3


def test_the_class_is_called_at_the_threshold(trained_bags, tmp_path, drawn):
    """Not at one half: with all probabilities below it, positives are called all the same."""
    shutil.copytree(trained_bags, tmp_path / "a")
    table = pd.read_csv(trained_bags / "predictions.csv")
    table["probability_1"] *= 0.4
    table["probability_0"] = 1 - table["probability_1"]
    table.to_csv(tmp_path / "a" / "predictions.csv", index=False)
    _, cases, options = drawn(tmp_path / "a", "--count=8")
    assert options["threshold"] < 0.4
    called = [case.probability >= options["threshold"] for case in cases]
    assert {True, False} == set(called)
    assert [case.predicted == "holds a 1" for case in cases] == called


def test_the_draw_is_seeded(trained_bags, drawn):
    names = [
        [case.name for case in drawn(trained_bags, "--count=6", f"--seed={seed}")[1]]
        for seed in (0, 0, 1)
    ]
    assert names[0] == names[1] != names[2]


def test_validation_bags(trained_bags, drawn):
    _, cases, options = drawn(trained_bags, "--split=val")
    assert all(case.name.startswith("val-") for case in cases)
    assert "validation bags" in options["title"]


def test_several_seeds_are_drawn_by_their_average(seeded_bags, drawn):
    _, cases, options = drawn(seeded_bags, "--count=2")
    instances = pd.read_csv(seeded_bags / "instances.csv").set_index("image")
    for case in cases:
        np.testing.assert_array_equal(case.weights, instances.loc[case.name, "weight"])
    assert "average" in options["caption"]


def test_the_encoder_of_two_stages_is_no_hindrance(staged_bags, drawn):
    instances = pd.read_csv(staged_bags / "instances.csv")
    assert len(drawn(staged_bags, "--count=2")[1]) == 2
    assert len(instances) == 150


def test_seeds_with_bags_of_their_own(digit_options, run_of, drawn, capsys):
    run = run_of(*digit_options, "--epochs=1", "--seeds=2", "--data.redraw=true")
    assert draw([str(run)]) == 2
    assert f"{run}/seed-0" in capsys.readouterr().err
    assert drawn(run / "seed-1")[1]


def test_probabilities_of_instances(digit_options, run_of, drawn):
    """A pool of logits has no attention, but its head says something of each instance."""
    run = run_of(*digit_options, "--epochs=1", "--model.pool=noisy_and")
    _, cases, _ = drawn(run, "--count=2")
    instances = pd.read_csv(run / "instances.csv").set_index("image")
    for case in cases:
        assert "probability" in case.score_name
        np.testing.assert_array_equal(case.weights, instances.loc[case.name, "probability"])
    assert draw([str(run), "--count=2"]) == 0


def test_branches_are_handed_over(digit_options, run_of, drawn):
    run = run_of(*digit_options, "--epochs=1", "--model.pool=multi_branch", "--model.branches=3")
    assert {case.weights.shape for case in drawn(run, "--count=4")[1]} == {(3, 3)}
    assert draw([str(run), "--count=2"]) == 0


def test_bags_of_pictures_are_read_when_drawn(photo_options, run_of, photo_bags, drawn):
    run = run_of(*photo_options, "--epochs=1")
    _, cases, _ = drawn(run, "--count=4")
    for case in cases:
        folder = photo_bags / case.label / case.name
        assert len(case.instances) == len(list(folder.iterdir())) == len(case.weights)
        with Image.open(folder / "0.png") as image:
            np.testing.assert_array_equal(case.picture(0), np.asarray(image))
    assert draw([str(run), "--count=4"]) == 0


def test_bags_of_features_are_drawn_without_pictures(feature_options, run_of, drawn):
    run = run_of(*feature_options, "--epochs=1")
    assert all(case.instances is None for case in drawn(run, "--count=4")[1])
    assert draw([str(run), "--count=4"]) == 0


def test_of_several_classes_the_called_one_is_quoted(
    make_features, from_table, bag_options, run_of, tmp_path, drawn
):
    """The probabilities of instances are those of the class that is quoted for the bag."""
    table = make_features(tmp_path, suffixes=(".npy",), classes=3)
    options = [
        *bag_options,
        *from_table(table),
        "--model.encoder=identity",
        "--data.classes=[a,b,c]",
    ]
    run = run_of(*options, "--model.pool=mean", "--model.level=instance", "--epochs=8")
    predictions = pd.read_csv(run / "predictions.csv")
    predictions["name"] = predictions["image"].map(lambda path: path.rsplit("/", 1)[1])
    instances, called = pd.read_csv(run / "instances.csv").set_index("image"), set()
    for case in drawn(run, "--count=9")[1]:
        row = predictions[predictions["name"] == case.name].iloc[0]
        values = row[["probability_0", "probability_1", "probability_2"]].to_numpy(float)
        assert case.predicted == case.scored == "abc"[values.argmax()]
        assert case.probability == values.max()
        mine = instances.loc[[row["image"]], f"probability_{values.argmax()}"]
        np.testing.assert_array_equal(case.weights, mine)
        called.add(case.predicted)
    assert len(called) > 1


def test_pools_that_disagree(run_of, digit_options, tmp_path, capsys):
    """Where the seeds have chosen different pools, one of them can be drawn."""
    run = run_of(*digit_options, "--epochs=1", "--seeds=2", "--pools=[mean,max]")
    assert draw([str(run)]) == 2
    message = capsys.readouterr().err
    assert f"{run}/seed-0" in message
    assert draw([str(run / "seed-0")]) == 2
    pool = pd.read_csv(run / "seed-0" / "pools.csv").set_index("pool")["chosen"].idxmax()
    assert f"({pool})" in capsys.readouterr().err
