"""Folds: every case tested once, no group on two sides, the classes in proportion."""

import numpy as np
import pandas as pd
import pytest

from attnvgg.data.folds import fold_manifests
from attnvgg.data.splits import check_splits
from attnvgg.errors import InputError


def cases(patients=60, seed=0):
    """Return a table of patients with one to five images each, a third of them positive."""
    random, rows = np.random.default_rng(seed), []
    for patient in range(patients):
        for number in range(random.integers(1, 6)):
            image = f"/p{patient:03d}-{number}.jpg"
            rows.append({"image": image, "label": int(patient % 3 == 0), "group": f"p{patient}"})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_every_case_is_tested_once(folds):
    table = cases()
    found = fold_manifests(table, folds)
    tested = [one.index[one["split"] == "test"] for one in found]
    assert sorted(np.concatenate(tested)) == list(table.index)
    for one in found:
        check_splits(one)
        pd.testing.assert_frame_equal(one.drop(columns="split"), table)


def test_the_parts_have_their_share_of_every_class():
    table = cases(300)
    for one in fold_manifests(table, 5, (0.7, 0.1, 0.2)):
        for label in (0, 1):
            shares = one[one["label"] == label]["split"].value_counts(normalize=True)
            assert shares["test"] == pytest.approx(0.2, abs=0.02)
            assert shares["val"] == pytest.approx(0.1, abs=0.02)


def test_order_of_the_rows_does_not_matter_and_the_seed_does():
    table = cases()
    shuffled = table.sample(frac=1, random_state=0)
    for one, other in zip(fold_manifests(table, 3), fold_manifests(shuffled, 3), strict=True):
        pd.testing.assert_frame_equal(one, other.sort_index())
    other = fold_manifests(table, 3, seed=7)
    assert not fold_manifests(table, 3)[0]["split"].equals(other[0]["split"])


def test_a_published_split_is_put_aside():
    table = cases()
    found = fold_manifests(table.assign(split="train"), 3)
    assert found[0]["split"].equals(fold_manifests(table, 3)[0]["split"])


def test_impossible_folds():
    with pytest.raises(InputError, match="at least 2 folds"):
        fold_manifests(cases(), 1)
    with pytest.raises(InputError, match="--folds 50 is too many: the rarest class has"):
        fold_manifests(cases(6), 50)
