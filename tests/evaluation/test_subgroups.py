"""The same figures for parts of the cases."""

import numpy as np
import pytest

from attnvgg.errors import InputError
from attnvgg.evaluation.assessment import assess
from attnvgg.evaluation.intervals import auc_interval
from attnvgg.evaluation.subgroups import AGE_NAMES
from tests.evaluation.test_report import predictions


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    found = predictions(count=240)
    return found.assign(
        sex=rng.choice(["female", "male", ""], 240, p=[0.5, 0.4, 0.1]),
        age=np.where(np.arange(240) % 11 == 0, None, rng.integers(20, 95, 240)),
        source=np.where(found["label"] == 0, np.where(rng.random(240) < 0.3, "b", "a"), "a"),
    )


def test_each_level_has_its_own_figures(table):
    found = assess(table).content["subgroups"]
    test = table[table["split"] == "test"]
    women = test[test["sex"] == "female"]
    figures = found["sex"]["female"]
    assert (figures["n"], figures["positives"]) == (len(women), women["label"].sum())
    assert figures["groups"] == women["group"].nunique()
    expected = auc_interval(women["label"], women["probability"], women["group"])
    auc = figures["figures"]["auc"]
    assert (auc["value"], auc["lower"], auc["upper"]) == (
        expected.auc,
        expected.lower,
        expected.upper,
    )
    assert sum(level["n"] for level in found["sex"].values()) == len(test)
    assert "unknown" in found["sex"]
    assert "site" not in found


def test_ages_are_banded_in_their_order(table):
    found = assess(table).content["subgroups"]["age"]
    assert list(found) == [*AGE_NAMES, "unknown"]
    test = table[table["split"] == "test"]
    ages = test["age"].astype(float)
    assert found["30 to 44"]["n"] == ((ages >= 30) & (ages < 45)).sum()
    assert found["75 and over"]["n"] == (ages >= 75).sum()
    assert found["unknown"]["n"] == ages.isna().sum()


def test_a_subgroup_of_one_class_says_why_it_has_no_auc(table):
    found = assess(table).content["subgroups"]["source"]["b"]
    assert found["positives"] == 0
    assert found["n"] > 0
    for name in ("auc", "average_precision", "partial_auc", "balanced_accuracy"):
        assert found["figures"][name]["value"] is None
        assert "one class" in found["figures"][name]["reason"]
    assert "no positive case" in found["figures"]["sensitivity"]["reason"]
    assert found["figures"]["specificity"]["value"] is not None


def test_levels_beyond_the_largest_are_judged_as_one(table):
    levels = np.append(
        np.repeat([f"s{k}" for k in range(20)], 11), [f"t{k % 4}" for k in range(20)]
    )
    found = assess(table.assign(split="val", source=levels)).content["subgroups"]["source"]
    assert len(found) == 21
    rest = found["and 4 smaller ones"]
    assert rest["n"] == 20
    assert sum(level["n"] for level in found.values()) == 240


@pytest.mark.parametrize("age", ["NA", "NaN", "unknown", -1])
def test_ages_that_are_not_known_are_one_band(table, age):
    found = assess(table).content["subgroups"]
    ages = table["age"].astype(object).where(table["age"].notna(), age)
    marked = table.assign(age=ages, sex=table["sex"].replace("", "n/a"))
    assert assess(marked).content["subgroups"] == found


@pytest.mark.parametrize("age", ["old", -3, 400])
def test_ages_that_are_no_years_are_named(table, age):
    ages = table["age"].astype(object)
    ages[200] = age
    with pytest.raises(InputError, match="ages are not years") as caught:
        assess(table.assign(age=ages))
    assert caught.value.offenders == [f"/images/200.jpg: {age}"]
