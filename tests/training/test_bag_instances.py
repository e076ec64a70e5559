"""What is kept of every instance, and how several models are averaged."""

import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.models import BagClassifier
from attnvgg.training.bag_instances import InstanceLog, merged

MANIFEST = pd.DataFrame({"image": ["a", "b", "c", "d"], "split": ["train", "val", "test", "test"]})
ROWS = np.array([1, 2, 3])  # the bags that are judged


def make(pool, classes=1, **arguments):
    torch.manual_seed(0)
    head = {"name": "linear", "num_classes": classes}
    return BagClassifier({"name": "identity", "in_features": 4}, {"name": pool, **arguments}, head)


def batch_of(lengths, index, labels=None):
    generator = torch.Generator().manual_seed(sum(index) + 1)
    batch = {
        "instances": torch.randn(sum(lengths), 4, generator=generator),
        "offsets": torch.tensor([0, *np.cumsum(lengths)]),
        "index": torch.tensor(index),
    }
    if labels is not None:
        batch["instance_labels"] = torch.tensor(labels)
    return batch


def watch(model, *batches):
    log = InstanceLog()
    with torch.inference_mode():
        for batch in batches:
            log(model.eval(), batch, model(batch["instances"], batch["offsets"]))
    return log.table(MANIFEST, ROWS)


def test_bags_are_put_in_the_order_of_the_manifest():
    """Whatever the order of the batches; instances are numbered from 0 in each bag."""
    first, second = batch_of([2, 3], [2, 0], [0, 1, 1, 0, 0]), batch_of([1], [1], [1])
    model = make("attention")
    table = watch(model, first, second)
    assert list(table) == ["index", "image", "split", "instance", "weight", "label"]
    assert table["index"].tolist() == [1, 1, 1, 2, 3, 3]
    assert table["image"].tolist() == list("bbbcdd")
    assert table["split"].tolist() == ["val"] * 3 + ["test"] * 3
    assert table["instance"].tolist() == [0, 1, 2, 0, 0, 1]
    assert table["label"].tolist() == [1, 0, 0, 1, 0, 1]
    with torch.inference_mode():
        weights = model(first["instances"], first["offsets"]).attention[:, 0].numpy()
    np.testing.assert_array_equal(table["weight"], [*weights[2:], 1, *weights[:2]])


def test_branches_have_a_column_each():
    table = watch(make("multi_branch", branches=3), batch_of([2, 3], [0, 1]))
    assert list(table)[4:] == ["weight_0", "weight_1", "weight_2"]
    sums = table.groupby("index")[["weight_0", "weight_1", "weight_2"]].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "columns"),
    [(1, ["probability"]), (2, ["probability"]), (3, [f"probability_{k}" for k in range(3)])],
)
def test_heads_on_instances_say_probabilities(classes, columns):
    batch, model = batch_of([2, 3], [0, 1]), make("noisy_and", classes)
    table = watch(model, batch)
    assert list(table)[4:] == columns
    with torch.inference_mode():
        logits = model.instance_logits(batch["instances"]).double()
    expected = logits.sigmoid() if classes == 1 else logits.softmax(1)
    np.testing.assert_allclose(table[columns], expected[:, -len(columns) :], atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "max", "log_sum_exp"])
def test_other_pools_say_nothing(pool):
    assert watch(make(pool), batch_of([2], [0])) is None


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_truth_that_some_bags_lack_is_unknown(order):
    batches = batch_of([2], [0], [0, 1]), batch_of([1], [1])
    table = watch(make("attention"), *(batches[n] for n in order))
    assert list(table) == ["index", "image", "split", "instance", "weight", "label"]
    found = table.groupby("index")["label"].agg(list).tolist()
    assert [0.0, 1.0] in found
    assert sum(np.isnan(labels).all() for labels in found) == 1


# ---------------------------------------------------------------- averages


def saying(**columns):
    return pd.DataFrame({"index": [1, 1], "image": ["b", "b"], "instance": [0, 1], **columns})


def test_weights_are_averaged():
    table = merged(
        [saying(weight=[0.2, 0.8]), saying(weight=[0.6, 0.4]), saying(weight=[0.1, 0.9])]
    )
    np.testing.assert_allclose(table["weight"], [0.3, 0.7])
    assert list(table) == ["index", "image", "instance", "weight"]


def test_probabilities_are_averaged():
    table = merged([saying(probability=[0.2, 1.0]), saying(probability=[0.4, 1.0])])
    np.testing.assert_allclose(table["probability"], [0.3, 1])


def test_branches_are_averaged_within_a_model_first():
    """The first branch of one model is not that of another."""
    a = saying(weight_0=[0.0, 1.0], weight_1=[0.5, 0.5])
    b = saying(weight_0=[1.0, 0.0], weight_1=[1.0, 0.0])
    table = merged([a, b])
    np.testing.assert_allclose(table["weight"], [0.625, 0.375])
    assert "weight_0" not in table


def test_models_that_say_different_things_have_no_average():
    assert merged([saying(weight=[0.2, 0.8]), saying(probability=[0.2, 0.8])]) is None
    assert merged([saying(probability=[0.2, 0.8]), saying(weight=[0.2, 0.8])]) is None
    many = saying(probability_0=[0, 1], probability_1=[1, 0], probability_2=[0, 0])
    assert merged([many, many]) is None


def test_the_tables_stay_as_they_were():
    table = saying(weight=[0.2, 0.8])
    merged([table, saying(weight=[0.6, 0.4])])
    assert table["weight"].tolist() == [0.2, 0.8]
