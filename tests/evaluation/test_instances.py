"""Whether the instances that a model points at deserve it."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from attnvgg.evaluation import judge_instances


def table_of(bags, split="test", name="weight"):
    """Return the table of bags {name: [(score, label), ...]}."""
    rows = [
        {"image": bag, "split": split, "instance": n, name: score, "label": label}
        for bag, members in bags.items()
        for n, (score, label) in enumerate(members)
    ]
    return pd.DataFrame(rows)


BAGS = {
    "hit": [(0.7, 1), (0.2, 0), (0.1, 1)],
    "miss": [(0.3, 1), (0.7, 0)],
    "healthy": [(0.9, 0), (0.1, 0)],
    "all": [(0.5, 1), (0.5, 1)],
}


def test_by_hand():
    found = judge_instances(table_of(BAGS), "test")
    assert found["bags"] == 3
    assert found["score"] == "weight"
    assert found["top_positive"] == pytest.approx(2 / 3)
    assert found["mass_on_positives"] == pytest.approx((0.8 + 0.3 + 1) / 3)
    expected = binomtest(2, 3).proportion_ci(0.95, method="wilson")
    assert (found["lower"], found["upper"]) == pytest.approx((expected.low, expected.high))


def test_bags_of_one_patient_are_resampled_together():
    bags = {f"b{n}": [(0.9, int(n % 4 < 2)), (0.1, 1)] for n in range(40)}
    alone = judge_instances(table_of(bags), "test")
    pairs = judge_instances(table_of(bags), "test", groups={f"b{n}": n // 2 for n in range(40)})
    assert (alone["method"], pairs["method"]) == ("Wilson", "group bootstrap")
    assert pairs["top_positive"] == alone["top_positive"] == 0.5
    assert pairs["upper"] - pairs["lower"] > 1.2 * (alone["upper"] - alone["lower"])


def test_a_tie_counts_by_its_share_of_positives():
    bags = {"third": [(0.3, 1), (0.3, 0), (0.3, 0), (0.1, 1)]}
    assert judge_instances(table_of(bags), "test")["top_positive"] == pytest.approx(1 / 3)


def test_only_the_split_counts():
    table = pd.concat([table_of(BAGS), table_of({"x": [(1.0, 1)]}, "val")])
    assert judge_instances(table, "val")["bags"] == 1
    assert judge_instances(table, "val")["top_positive"] == 1
    assert judge_instances(table, "test")["bags"] == 3


def test_branches_are_averaged():
    table = table_of({"a": [(0.9, 1), (0.1, 0)]}, name="weight_0").assign(weight_1=[0.0, 1.0])
    found = judge_instances(table, "test")
    assert found["top_positive"] == 0, "the means are .45 and .55"
    assert found["mass_on_positives"] == pytest.approx(0.45)
    assert found["score"] == "weight"


def test_probabilities_have_no_mass():
    found = judge_instances(table_of(BAGS, name="probability"), "test")
    assert found["score"] == "probability"
    assert found["top_positive"] == pytest.approx(2 / 3)
    assert "mass_on_positives" not in found


def test_of_several_classes_all_but_the_first_are_positive():
    """Their mean would be the same for every instance."""
    table = table_of({"a": [(0.9, 0), (0.2, 1)]}, name="probability_0")
    table = table.assign(probability_1=[0.1, 0.3], probability_2=[0.0, 0.5])
    found = judge_instances(table, "test")
    assert (found["score"], found["top_positive"]) == ("probability", 1)


def test_without_a_positive_instance_nothing_is_said():
    found = judge_instances(table_of({"healthy": BAGS["healthy"]}), "test")
    assert found["bags"] == 0
    assert found["top_positive"] is found["lower"] is found["upper"] is None
    assert found["mass_on_positives"] is None


def test_against_a_loop():
    rng = np.random.default_rng(0)
    bags = {}
    for number in range(200):
        weights = rng.dirichlet(np.ones(rng.integers(1, 9))).round(2)
        bags[f"{number}"] = [(w, int(rng.random() < 0.3)) for w in weights]
    hits, mass = [], []
    for members in bags.values():
        if any(label for _, label in members):
            top = max(score for score, _ in members)
            hits.append(np.mean([label for score, label in members if score == top]))
            mass.append(sum(score for score, label in members if label))
    shuffled = table_of(bags).sample(frac=1, random_state=0)
    found = judge_instances(shuffled, "test")
    assert found["bags"] == len(hits)
    assert found["top_positive"] == pytest.approx(np.mean(hits))
    assert found["mass_on_positives"] == pytest.approx(np.mean(mass))
