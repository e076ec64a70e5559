"""Averages and spread over seeds, on tables made by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from attnvgg.cli.bag_ensemble import combine, lines
from attnvgg.cli.ensemble import average_predictions, spread_of
from attnvgg.errors import InputError
from attnvgg.training.run import RunFolder

CASES = {
    "index": range(8), "image": list("abcdefgh"), "label": [0, 1] * 4, "group": [None] * 8,
    "split": ["val"] * 4 + ["test"] * 4,
}  # fmt: skip


def predictions(seed, classes=1):
    values = np.random.default_rng(seed).dirichlet(np.ones(max(classes, 2)), size=8)
    table = pd.DataFrame(CASES)
    if classes == 1:
        return table.assign(logit=np.log(values[:, 1] / values[:, 0]), probability=values[:, 1])
    columns = {f"logit_{k}": np.log(values[:, k]) for k in range(classes)}
    return table.assign(**columns, **{f"probability_{k}": values[:, k] for k in range(classes)})


def test_probabilities_of_one_logit():
    tables = [predictions(seed) for seed in range(3)]
    average = average_predictions(tables)
    mean = np.mean([table["probability"] for table in tables], axis=0)
    np.testing.assert_allclose(average["probability"], mean)
    np.testing.assert_allclose(1 / (1 + np.exp(-average["logit"])), mean)
    assert list(average) == list(tables[0])


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_of_several_logits(classes):
    tables = [predictions(seed, classes) for seed in range(3)]
    average = average_predictions(tables)
    names = [f"probability_{k}" for k in range(classes)]
    np.testing.assert_allclose(average[names].sum(axis=1), 1)
    powers = np.exp(average[[f"logit_{k}" for k in range(classes)]].to_numpy())
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), average[names])
    mean = np.mean([table["probability_1"] for table in tables], axis=0)
    np.testing.assert_allclose(average["probability_1"], mean)


def test_certainty_has_a_finite_logit():
    sure = predictions(0).assign(probability=[0.0, 1.0] * 4)
    average = average_predictions([sure, sure])
    assert average["probability"].tolist() == [0, 1] * 4
    assert np.isfinite(average["logit"]).all()
    assert (np.sign(average["logit"]) == [-1, 1] * 4).all()


def test_the_tables_stay_as_they_were():
    tables = [predictions(seed) for seed in range(2)]
    copies = [table.copy() for table in tables]
    average_predictions(tables)
    for table, copy in zip(tables, copies, strict=True):
        pd.testing.assert_frame_equal(table, copy)


def test_tables_of_other_bags_are_refused():
    other = predictions(1)
    other.loc[3, "image"] = "z"
    with pytest.raises(InputError, match="different cases"):
        average_predictions([predictions(0), other])


def test_spread_against_scipy():
    values = [0.97, 0.99, 0.98, 0.995, 0.9]
    found = spread_of([{"auc": value} for value in values])["auc"]
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["deviation"] == pytest.approx(np.std(values, ddof=1))
    error = np.std(values, ddof=1) / np.sqrt(5)
    lower, upper = t.interval(0.95, 4, np.mean(values), error)
    assert found["lower"] == pytest.approx(lower)
    assert upper > 1
    assert found["upper"] == 1, "no share is above 1"
    assert found["values"] == values


def test_training_sets_that_overlap_widen_the_interval():
    """Nadeau & Bengio: of five folds each tested case stands against four trained on."""
    rows = [{"auc": value} for value in (0.7, 0.72, 0.75, 0.71, 0.74)]
    plain, folds = spread_of(rows)["auc"], spread_of(rows, overlap=1 / 4)["auc"]
    assert folds["deviation"] == plain["deviation"]
    half = [one["upper"] - one["mean"] for one in (plain, folds)]
    assert half[1] / half[0] == pytest.approx(np.sqrt((1 / 5 + 1 / 4) / (1 / 5)))


def test_a_figure_that_a_seed_lacks_is_left_out():
    rows = [{"auc": 0.9, "top_positive": None}, {"auc": 0.8, "top_positive": 0.5}]
    assert list(spread_of(rows)) == ["auc"]
    assert list(spread_of(rows[::-1])) == ["auc"]


def finished(path, seed, pools=None):
    """Return the folder of a seed as `combine` reads it."""
    run = RunFolder(path / f"seed-{seed}")
    run.path.mkdir(parents=True)
    predictions(seed).to_csv(run.predictions, index=False)
    figures = {"value": 0.8 + seed / 10}
    metrics = {"accuracy": figures, "judged_on": "test", "test": {"auc": figures}}
    instances = {"top_positive": 0.5} if seed < 5 else None
    run.evaluation.write_text(json.dumps(metrics | {"instances": instances}))
    if pools is not None:
        pd.DataFrame(pools).to_csv(run.path / "pools.csv", index=False)
    return run


def test_the_summary_of_pools(tmp_path):
    """Each pool over the seeds, whichever each seed has chosen; unknown figures are left out."""
    tables = [
        {"pool": ["max", "attention"], "auc": [0.5, 0.9], "accuracy": [0.4, 0.8],
         "top_positive": [None, 0.7]},
        {"pool": ["attention", "max"], "auc": [0.7, 0.6], "accuracy": [0.6, 0.5],
         "top_positive": [0.9, None]},
    ]  # fmt: skip
    folders = [finished(tmp_path, seed, pools) for seed, pools in enumerate(tables)]
    combine(RunFolder(tmp_path), folders, redrawn=True, shared=True)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["pools"]["max"]["auc"]["values"] == [0.5, 0.6]
    assert content["pools"]["attention"]["auc"]["mean"] == pytest.approx(0.8)
    assert content["pools"]["attention"]["top_positive"]["values"] == [0.7, 0.9]
    assert "top_positive" not in content["pools"]["max"]
    assert content["test"]["auc"]["values"] == pytest.approx([0.8, 0.9])
    said = lines(content)
    assert said[0].startswith("max ")
    assert "0.5500" in said[0]
    assert "Over 2 seeds" in said[2]


def test_redrawn_bags_are_not_averaged(tmp_path):
    folders = [finished(tmp_path, seed) for seed in (0, 1)]
    run = RunFolder(tmp_path)
    combine(run, folders, redrawn=True, shared=True)
    assert not run.predictions.exists()
    combine(run, folders, redrawn=False, shared=True)
    assert len(pd.read_csv(run.predictions)) == 8


def test_instances_are_averaged_only_where_all_have_them(tmp_path):
    folders = [finished(tmp_path, seed) for seed in (0, 1)]
    run = RunFolder(tmp_path)
    rows = pd.DataFrame({"index": [0, 0], "image": ["a", "a"], "split": ["val"] * 2})
    for folder, weights in zip(folders, ([0.2, 0.8], [0.4, 0.6]), strict=True):
        rows.assign(instance=[0, 1], weight=weights).to_csv(folder.instances, index=False)
    combine(run, folders, redrawn=False, shared=True)
    assert pd.read_csv(run.instances)["weight"].tolist() == pytest.approx([0.3, 0.7])
    folders[1].instances.unlink()
    combine(run, folders, redrawn=False, shared=True)
    assert not run.instances.exists(), "no table is left that says another thing"
