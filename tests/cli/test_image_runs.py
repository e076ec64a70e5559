"""Several seeds and folds of image models, end to end on small pictures."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from attnvgg import load_model
from attnvgg.cli import image_member
from attnvgg.cli.ensemble import spread_of
from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.train import main
from attnvgg.errors import InputError
from attnvgg.training.run import newest_run
from tests.cli.test_train import assert_same_run


def read_json(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def run_several(tmp_path_factory, csv_options, thin_vgg):
    """Return a function that trains several models and returns the folder of the run."""

    def run(*options):
        out = tmp_path_factory.mktemp("several")
        words = [*csv_options, "--model.attention=false", "--epochs=1", *options]
        assert main([*words, f"--out={out}", "--name=a"]) == 0
        return out / "a"

    return run


@pytest.fixture(scope="module")
def seeds(run_several):
    """Two seeds of one split; read only."""
    return run_several("--seeds=2", "--seed=5")


@pytest.fixture(scope="module")
def folds(run_several):
    """Three folds; read only."""
    return run_several("--folds=3")


def test_each_seed_is_the_run_that_it_would_be_alone(seeds, run_several):
    assert_same_run(seeds / "seed-6", run_several("--seed=6"))
    assert not np.array_equal(
        pd.read_csv(seeds / "seed-5" / "predictions.csv")["logit"],
        pd.read_csv(seeds / "seed-6" / "predictions.csv")["logit"],
    )


def test_the_seeds_are_averaged(seeds):
    tables = [pd.read_csv(seeds / f"seed-{seed}" / "predictions.csv") for seed in (5, 6)]
    average = pd.read_csv(seeds / "predictions.csv")
    mean = (tables[0]["probability"] + tables[1]["probability"]) / 2
    np.testing.assert_allclose(average["probability"], mean)
    test = average[average["split"] == "test"]
    metrics = read_json(seeds / "metrics.json")
    auc = roc_auc_score(test["label"], test["probability"])
    assert metrics["test"]["auc"]["value"] == pytest.approx(auc)


def test_the_spread_of_the_seeds(seeds):
    summary = read_json(seeds / "summary.json")
    alone = [read_json(seeds / name / "metrics.json")["test"] for name in ("seed-5", "seed-6")]
    assert summary["seeds"] == ["seed-5", "seed-6"]
    for key in ("average_precision", "sensitivity", "specificity", "balanced_accuracy"):
        found = [one[key]["value"] if isinstance(one[key], dict) else one[key] for one in alone]
        assert summary["test"][key]["values"] == found
    assert summary["test"]["auc"]["mean"] == pytest.approx(
        np.mean([one["auc"]["value"] for one in alone])
    )


def test_every_patient_is_tested_once(folds):
    cases = pd.read_csv(folds / "manifest.csv")
    table = pd.read_csv(folds / "out_of_fold.csv")
    assert table["index"].tolist() == list(range(len(cases)))
    assert table["image"].tolist() == cases["image"].tolist()
    assert (table["split"] == "test").all()
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    for number in range(3):
        own = pd.read_csv(folds / f"fold-{number}" / "manifest.csv")
        tested = set(own[own["split"] == "test"]["image"])
        assert tested == set(table[table["fold"] == number]["image"])
        assert (own.groupby("group")["split"].nunique() == 1).all()


def test_the_overlap_of_the_folds_is_that_of_their_manifests(folds):
    """Validation and thinned negatives are not trained on: more than 1 / (k - 1)."""
    ratios = []
    for number in range(3):
        counts = pd.read_csv(folds / f"fold-{number}" / "manifest.csv")["split"].value_counts()
        ratios.append(counts["test"] / counts["train"])
    found = read_json(folds / "summary.json")["test"]
    assert np.mean(ratios) > 1 / 2
    for figures in found.values():
        expected = spread_of([{"a": value} for value in figures["values"]], np.mean(ratios))["a"]
        for end in ("lower", "upper"):
            assert figures[end] == pytest.approx(expected[end])


def test_a_cross_validation_has_models_to_report(folds, tmp_path, capsys):
    shutil.copytree(folds, tmp_path / "a")
    assert evaluate([str(tmp_path / "a"), "--device=cpu", "--threads=1"]) == 0
    assert "no predictions of its own: report its models" in capsys.readouterr().out


def test_folds_are_summed_up_apart_and_pooled(folds):
    summary = read_json(folds / "summary.json")
    table = pd.read_csv(folds / "out_of_fold.csv")
    each = [roc_auc_score(one["label"], one["probability"]) for _, one in table.groupby("fold")]
    assert summary["test"]["auc"]["values"] == pytest.approx(each)
    pooled = summary["pooled"]
    everything = roc_auc_score(table["label"], table["probability"])
    assert pooled["auc"]["value"] == pytest.approx(everything)
    rules = [read_json(folds / f"fold-{n}" / "metrics.json")["threshold"] for n in range(3)]
    locked = np.array([rule["value"] for rule in rules])[table["fold"]]
    sick = table["label"] == 1
    called = table["probability"] >= locked
    assert pooled["sensitivity"]["value"] == pytest.approx(called[sick].mean())
    assert pooled["specificity"]["value"] == pytest.approx(1 - called[~sick].mean())


@pytest.mark.parametrize("several", [["--seeds=2", "--seed=5"], ["--folds=3"]], ids=" ".join)
def test_a_broken_run_goes_on(several, seeds, folds, run_several, monkeypatch, csv_options):
    """Killed in its second model, it ends as if it had not been."""
    fit, calls = image_member.fit, []

    class Killed(BaseException):
        pass

    def die_in_the_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return fit(*arguments)

    straight = seeds if "--seeds=2" in several else folds
    out = run_several("--seed=1").parent / "broken"
    words = [*csv_options, "--model.attention=false", "--epochs=1", *several]
    with monkeypatch.context() as patch:
        patch.setattr(image_member, "fit", die_in_the_second)
        with pytest.raises(Killed):
            main([*words, f"--out={out}", "--name=a"])
    run = out / "a"
    assert not (run / "summary.json").exists()
    last = sorted(path.name for path in straight.iterdir() if path.is_dir())[-1]
    (run / last).mkdir(exist_ok=True)  # killed as it was begun
    if not (run / last / "config.yaml").exists():
        (run / last / "manifest.csv").write_text("half")
    assert main(["--resume", str(run)]) == 0
    table = "predictions.csv" if straight is seeds else "out_of_fold.csv"
    for name in ("summary.json", table):
        assert (run / name).read_bytes() == (straight / name).read_bytes()


@pytest.mark.parametrize("views", ["1", "8"])
def test_such_runs_are_evaluated_again(seeds, folds, tmp_path, views):
    """With one view the figures stay; with eight all models, and their average, have new ones."""
    for run, name in ((seeds, "predictions.csv"), (folds, "out_of_fold.csv")):
        again = tmp_path / run.parent.name
        shutil.copytree(run, again)
        assert evaluate([str(again), "--device=cpu", "--threads=1", f"--views={views}"]) == 0
        before, after = (pd.read_csv(folder / name) for folder in (run, again))
        assert after.drop(columns=["logit", "probability"]).equals(
            before.drop(columns=["logit", "probability"])
        )
        if views == "1":
            np.testing.assert_allclose(before["probability"], after["probability"], atol=1e-6)
        else:
            assert (np.abs(before["probability"] - after["probability"]) > 1e-7).mean() > 0.9


def test_such_a_run_is_found_and_told_apart(seeds, folds):
    for run, name in ((seeds, "seed-5"), (folds, "fold-0")):
        assert newest_run(run.parent).path == run
        with pytest.raises(InputError, match=f"such as .*{name}"):
            load_model(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds=2", "--folds=2"], "not together"),
        (["--seeds=0"], "at least 1"),
        (["--folds=11"], "is too many"),
    ],
)
def test_impossible_runs(options, message, csv_options, tmp_path, capsys):
    assert main([*csv_options, *options, f"--out={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
