"""Findings where something was planted, none where nothing was."""

import numpy as np
import pandas as pd
import pytest

from attnvgg.data.audit import shortcuts
from attnvgg.data.audit.artefacts import NAMES


def table_of(count=600, classes=2, seed=0):
    """Return cases of which nothing goes with anything, three to a patient."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({name: rng.random(count) < 0.3 for name in NAMES})
    table["label"] = rng.integers(0, classes, count)
    table["unit"] = np.arange(count) // 3
    table["split"] = rng.choice(["train", "val", "test"], count // 3, p=[0.6, 0.2, 0.2])[table.unit]
    for name in ("resolution", "aspect", "brightness", "red", "blue"):
        table[name] = rng.normal(size=count)
    return table


def findings(rows):
    return [row for row in rows if row.get("finding")]


AUDITS = (
    shortcuts.split_shifts,
    shortcuts.label_shifts,
    shortcuts.artefact_odds,
    shortcuts.class_odds,
)


@pytest.mark.parametrize("classes", [2, 4])
def test_chance_is_hardly_ever_a_finding(classes):
    """Each of the four tables may be wrong in one of a hundred data sets, not each of its rows."""
    tables = [table_of(300, classes, seed) for seed in range(8)]
    assert sum(bool(findings(audit(table))) for audit in AUDITS for table in tables) <= 1


def test_each_class_of_several_is_asked_about_and_of_two_the_second():
    assert {row["class"] for row in shortcuts.artefact_odds(table_of(classes=2))} == {1}
    assert {row["class"] for row in shortcuts.artefact_odds(table_of(classes=4))} == {0, 1, 2, 3}


def test_a_ruler_beside_the_malignant():
    table = table_of()
    rng = np.random.default_rng(1)
    table["ruler"] = rng.random(600) < np.where(table["label"] == 1, 0.6, 0.2)
    (row,) = findings(shortcuts.artefact_odds(table))
    assert (row["artefact"], row["class"]) == ("ruler", 1)
    assert 1.5 < row["low"] < row["odds_ratio"] < row["high"]
    assert row["with"] == table["ruler"].sum()
    assert row["p_corrected"] >= row["p_value"]


def test_an_artefact_that_never_occurs_is_undefined_and_says_why():
    table = table_of().assign(ruler=False, border=True)
    rows = {row["artefact"]: row for row in shortcuts.artefact_odds(table)}
    assert rows["ruler"]["odds_ratio"] is None
    assert rows["ruler"]["undefined"] == "no picture shows it"
    assert rows["border"]["undefined"] == "every picture shows it"


def test_one_class_alone_is_undefined():
    rows = shortcuts.artefact_odds(table_of().assign(label=0))
    assert {row["undefined"] for row in rows} == {"one class"}


def test_a_colour_cast_in_test():
    table = table_of()
    table.loc[table["split"] == "test", "blue"] += 1
    (row,) = findings(shortcuts.split_shifts(table))
    assert (row["from"], row["to"], row["of"]) == ("train", "test", "blue")
    assert row["standardised"] == pytest.approx(1, abs=0.25)
    assert row["median_to"] > row["median_from"] + 0.5


def test_a_significant_difference_that_is_small_is_none():
    table = table_of(count=60_000)
    table.loc[table["split"] == "test", "blue"] += 0.1
    (row,) = (r for r in shortcuts.split_shifts(table) if (r["to"], r["of"]) == ("test", "blue"))
    assert row["p_corrected"] < 1e-6
    assert not row["finding"]


def test_one_patient_is_no_artefact_of_a_class():
    """40 inked pictures of one positive patient, none of 500 other patients."""
    rows = table_of(540).assign(unit=np.maximum(np.arange(540) - 39, 0), ink_or_patch=False)
    rows["label"] = (np.arange(540) < 90).astype(int)
    rows.loc[:39, "ink_or_patch"] = True
    assert not findings(shortcuts.artefact_odds(rows))


@pytest.mark.parametrize(
    ("audit", "of", "side"),
    [(shortcuts.split_shifts, "blue", "test"), (shortcuts.label_shifts, "resolution", 1)],
)
def test_a_shift_of_one_large_patient_is_none(audit, of, side):
    """It is large among the pictures, of which a third is shifted; of 41 patients it is one."""
    table = table_of(600)
    rest = ["train" if side == "test" else 0, side]
    column = "split" if side == "test" else "label"
    table[column] = np.repeat(rest, [480, 120])
    table["unit"] = np.minimum(np.arange(600) // 2, 280)
    table.loc[560:, of] += 9
    (row,) = (row for row in audit(table) if row["of"] == of and side in row.values())
    assert row["largest"] > 2 * shortcuts.LARGE_SHIFT
    assert not row["finding"]


def test_larger_pictures_of_the_malignant():
    table = table_of()
    table["resolution"] += table["label"]
    (row,) = findings(shortcuts.label_shifts(table))
    assert (row["class"], row["of"]) == (1, "resolution")


def test_a_class_that_is_rarer_in_test():
    table = table_of(count=3000)
    drop = (table["split"] == "test") & (table["label"] == 1) & (table.index % 2 == 0)
    (row,) = findings(shortcuts.class_odds(table[~drop]))
    assert (row["to"], row["class"]) == ("test", 1)
    assert row["odds_ratio"] < 0.7


def test_splits_of_few_pictures_are_not_compared():
    table = table_of(count=30).assign(split="train")
    table.loc[:3, "split"] = "test"
    assert shortcuts.split_shifts(table) == []
