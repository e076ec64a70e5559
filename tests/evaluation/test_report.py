import json

import numpy as np
import pandas as pd
import pytest

from attnvgg.data.tables import PLACEHOLDERS
from attnvgg.errors import InputError
from attnvgg.evaluation import predictions as reading
from attnvgg.evaluation.intervals import auc_interval
from attnvgg.evaluation.metrics import average_precision, confusion
from attnvgg.evaluation.ordinal import kappa_interval
from attnvgg.evaluation.predictions import checked_predictions, read_predictions
from attnvgg.evaluation.report import evaluate_predictions
from attnvgg.evaluation.sentences import summary


def predictions(classes=1, count=120, seed=0):
    """A table as the contract describes it; the last half is test."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % max(classes, 2)
    if classes == 1:
        values = {"probability": 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(size=count))))}
    else:
        logits = np.exp(1.5 * np.eye(classes)[labels] + rng.normal(size=(count, classes)))
        logits /= logits.sum(1, keepdims=True)
        values = {f"probability_{k}": logits[:, k] for k in range(classes)}
    return pd.DataFrame(
        {
            "index": np.arange(count),
            "image": [f"/images/{i}.jpg" for i in range(count)],
            "label": labels,
            "group": [f"p{i // 3}" for i in range(count)],
            "split": np.where(np.arange(count) < count // 2, "val", "test"),
            **values,
        }
    )


def test_threshold_is_chosen_on_validation_and_judged_on_test():
    table = predictions()
    found = evaluate_predictions(table)
    val, test = (table[table["split"] == split] for split in ("val", "test"))
    sick = val.loc[val["label"] == 1, "probability"]
    threshold = max(t for t in sick if (sick >= t).mean() >= 0.9)
    assert found["threshold"]["value"] == threshold
    assert found["threshold"]["chosen_on"] == "validation"
    expected = confusion(test["label"], test["probability"], threshold)
    for name in ("sensitivity", "specificity", "balanced_accuracy", "ppv", "npv", "accuracy"):
        assert found["test"][name] == getattr(expected, name)
    assert (found["judged_on"], found["optimistic"]) == ("test", False)


def test_patients_on_both_sides_are_told():
    table = predictions()
    assert evaluate_predictions(table)["note"] is None
    table.loc[[60, 63, 66], "group"] = ["p1", "p2", None]
    found = evaluate_predictions(table)
    assert found["note"].startswith(
        "Patients or groups that are both in validation and in test: 2."
    )
    assert found["note"] in summary(found)
    assert not found["optimistic"]


def test_figures_are_those_of_the_split():
    table = predictions()
    test = table[table["split"] == "test"]
    found = evaluate_predictions(table)["test"]
    interval = auc_interval(test["label"], test["probability"], test["group"])
    assert (found["n"], found["positives"], found["groups"]) == (60, 30, 20)
    assert found["auc"]["value"] == interval.auc
    assert (found["auc"]["lower"], found["auc"]["upper"]) == (interval.lower, interval.upper)
    assert found["auc"]["method"] == "obuchowski"
    assert found["average_precision"] == average_precision(test["label"], test["probability"])


def test_test_scores_cannot_move_the_threshold():
    table = predictions()
    changed = table.assign(probability=table["probability"].where(table["split"] == "val", 0.5))
    assert (
        evaluate_predictions(changed)["threshold"]["value"]
        == evaluate_predictions(table)["threshold"]["value"]
    )


def test_without_a_test_set_it_says_optimistic():
    table = predictions()
    found = evaluate_predictions(table[table["split"] == "val"])
    assert (found["judged_on"], found["optimistic"]) == ("val", True)
    assert "test" not in found
    assert "OPTIMISTIC" in summary(found)


def test_rows_of_training_are_not_judged():
    table = predictions()
    more = table.assign(split="train", image=table["image"] + "x", probability=0.0)
    assert evaluate_predictions(pd.concat([table, more])) == evaluate_predictions(table)


def test_a_locked_threshold_is_kept():
    table = predictions()
    found = evaluate_predictions(table, threshold=0.25)
    assert found["threshold"] == {"value": 0.25, "rule": "given", "chosen_on": None}
    test = table[table["split"] == "test"]
    expected = confusion(test["label"], test["probability"], 0.25)
    assert found["test"]["confusion"] == expected._asdict()
    assert evaluate_predictions(test, threshold=0.25)["test"] == found["test"]


def test_two_columns_are_judged_on_class_1():
    table = predictions()
    both = table.drop(columns="probability").assign(
        probability_0=1 - table["probability"], probability_1=table["probability"]
    )
    assert evaluate_predictions(both) == evaluate_predictions(table)


def test_many_classes():
    table = predictions(classes=3)
    found = evaluate_predictions(table)
    test = table[table["split"] == "test"]
    values = test[[f"probability_{k}" for k in range(3)]].to_numpy()
    expected = [auc_interval(test["label"] == k, values[:, k], test["group"]) for k in range(3)]
    each = found["test"]["per_class"]
    assert [each[k]["auc"]["lower"] for k in "012"] == [e.lower for e in expected]
    assert found["test"]["auc"]["value"] == pytest.approx(np.mean([e.auc for e in expected]))
    assert found["test"]["accuracy"] == (values.argmax(1) == test["label"]).mean()
    assert found["threshold"] is None
    assert "balanced accuracy" in summary(found)


def test_one_class_in_test_is_undefined_and_says_so():
    table = predictions()
    table = table[(table["split"] == "val") | (table["label"] == 0)]
    found = evaluate_predictions(table)["test"]
    assert (found["auc"]["value"], found["average_precision"]) == (None, None)
    assert "only one" in found["auc"]["reason"]
    assert (found["sensitivity"], found["positives"]) == (None, 0)
    assert found["specificity"] is not None


@pytest.mark.parametrize("classes", [1, 3])
def test_report_is_strict_json_and_its_summary_short(classes):
    found = evaluate_predictions(predictions(classes))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    text = summary(found)
    assert f"{found['test']['auc']['value']:.3f}" in text
    assert len(text.splitlines()) <= 3


def test_a_perfect_ranking_has_no_interval():
    table = predictions().assign(probability=lambda t: 0.25 + t["label"] / 2)
    found = evaluate_predictions(table)
    assert found["test"]["auc"]["value"] == 1
    assert found["test"]["auc"]["lower"] is None
    assert "exactly 1" in summary(found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": 2}, r"not whole numbers in 0\.\.1"),
        ({"label": 0.5}, "not whole numbers"),
        ({"label": "malignant"}, "not whole numbers"),
        ({"probability": np.nan}, r"not in \[0, 1\]"),
        ({"probability": 1.5}, r"not in \[0, 1\]"),
        ({"split": "dev"}, "not train, val or test"),
        ({"image": "/images/5.jpg"}, "not unique"),
        ({"image": None}, "have no image name"),
        ({"split": None}, "have no split"),
    ],
)
def test_a_wrong_row_is_named(change, said):
    table = predictions().astype(object)
    for column, value in change.items():
        table.loc[7, column] = value
    with pytest.raises(InputError, match=said) as error:
        evaluate_predictions(table)
    assert error.value.message.startswith("1 ")
    assert error.value.offenders[0].startswith("8: ")


@pytest.mark.parametrize("column", ["image", "label", "group", "split", "probability"])
def test_a_missing_column_is_named(column):
    with pytest.raises(InputError) as error:
        evaluate_predictions(predictions().drop(columns=column))
    assert error.value.offenders == [column]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (predictions().iloc[:0], "no rows"),
        (predictions().assign(split="train"), "neither"),
        (predictions().query("split == 'test'"), "no validation rows"),
        (predictions().assign(label=0), "All 60 validation rows have label 0"),
        (predictions(3).assign(probability_0=0.9), "sum to 1"),
        (predictions(3).rename(columns={"probability_2": "probability_3"}), "0 to K - 1"),
    ],
)
def test_a_table_that_cannot_be_judged_is_refused(table, said):
    with pytest.raises(InputError, match=said):
        evaluate_predictions(table)


def test_a_locked_threshold_must_fit():
    with pytest.raises(InputError, match="no probability"):
        evaluate_predictions(predictions(), threshold=1.5)
    with pytest.raises(InputError, match="3 classes"):
        evaluate_predictions(predictions(3), threshold=0.5)


def test_reading_keeps_names_and_every_bit(tmp_path):
    table = predictions(seed=5)
    table["group"] = [f"{i // 3:03d}" for i in range(len(table))]
    table.loc[:2, "group"] = "NA"
    table.loc[3, "group"] = None
    table.to_csv(tmp_path / "predictions.csv", index=False)
    found = read_predictions(tmp_path / "predictions.csv")
    assert (found["probability"] == table["probability"]).all()
    assert list(found["group"][[0, 4]]) == ["NA", "001"]
    assert pd.isna(found.loc[3, "group"])
    assert evaluate_predictions(found) == evaluate_predictions(table)


def test_placeholders_are_those_of_the_data():
    assert reading.PLACEHOLDERS == PLACEHOLDERS


def test_patients_without_a_name_are_not_one_patient():
    table = predictions()
    named = table.assign(group=table["group"].where(table["index"] % 4 > 0, " Unknown"))
    nameless = table.assign(group=table["group"].where(table["index"] % 4 > 0))
    assert evaluate_predictions(named) == evaluate_predictions(nameless)
    assert checked_predictions(named)[0]["group"].isna().sum() == 30


def test_a_table_without_groups_is_told_that_an_empty_column_will_do():
    table = predictions().drop(columns="group")
    with pytest.raises(InputError, match="an empty `group` will do"):
        evaluate_predictions(table)
    assert evaluate_predictions(table.assign(group=np.nan))["test"]["groups"] == 60


@pytest.mark.parametrize(
    ("names", "offenders"),
    [
        (["probability", "probability_0", "probability_1"], None),
        (["probability_1"], None),
        (["probability_1", "probability_2"], None),
        (["probability_0", "probability_0", "probability_1"], ["probability_0"]),
        (["probability", "sex", "sex"], ["sex"]),
    ],
)
def test_columns_that_contradict_each_other_are_named(tmp_path, names, offenders):
    rest = predictions(count=4).drop(columns="probability")
    more = pd.DataFrame(np.full((4, len(names)), 0.5), columns=names)
    pd.concat([rest, more], axis=1).to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(InputError) as error:
        checked_predictions(read_predictions(tmp_path / "table.csv"))
    assert error.value.offenders == (offenders or names)


def test_other_columns_of_probabilities_are_left_alone():
    table = predictions().assign(probability_calibrated=0.5)
    assert evaluate_predictions(table) == evaluate_predictions(predictions())


@pytest.mark.parametrize("mark", [";", "\t"])
def test_columns_separated_by_other_marks(tmp_path, mark):
    predictions().to_csv(tmp_path / "table.csv", index=False, sep=mark, decimal=",")
    with pytest.raises(InputError, match="separated by commas"):
        read_predictions(tmp_path / "table.csv")


def test_reading_what_is_not_there_or_not_a_table(tmp_path):
    with pytest.raises(InputError, match="no predictions at"):
        read_predictions(tmp_path / "none.csv")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    for name in ("empty.csv", "binary.csv", "."):
        with pytest.raises(InputError, match="not a CSV"):
            read_predictions(tmp_path / name)


def test_the_majority_is_that_of_the_cases_judged():
    table = predictions()
    table.loc[table.index[60:80], "label"] = 1
    found = evaluate_predictions(table)
    test = table[table["split"] == "test"]
    wanted = {"class": 1, "accuracy": pytest.approx((test["label"] == 1).mean())}
    assert found["test"]["majority"] == wanted
    assert found["val"]["majority"] == {"class": 0, "accuracy": 0.5}


def test_kappa_of_grades_is_resampled_by_patient():
    table = predictions(classes=6, count=240)
    found = evaluate_predictions(table)
    test = table[table["split"] == "test"]
    values = test[[f"probability_{k}" for k in range(6)]].to_numpy()
    expected = kappa_interval(test["label"], values.argmax(axis=1), 6, test["group"])
    kappa = found["test"]["quadratic_kappa"]
    assert (kappa["value"], kappa["lower"], kappa["upper"]) == (
        expected.value, expected.lower, expected.upper,
    )  # fmt: skip
    said = summary(found)
    assert f"grades (ordered): quadratic weighted kappa {kappa['value']:.3f} (95% interval" in said
    assert "(calling every case class 0: 0.167)" in said


def test_kappa_that_is_undefined_is_said_so():
    table = predictions(classes=3, count=12)
    rows = table["split"] == "test"
    table.loc[rows, ["label", "probability_0", "probability_1", "probability_2"]] = [1, 0, 1, 0]
    assert "weighted kappa undefined" in summary(evaluate_predictions(table))
    table.loc[table.index[rows][0], ["probability_0", "probability_1"]] = [1, 0]  # a wrong call
    found = evaluate_predictions(table)
    assert found["test"]["quadratic_kappa"]["value"] is None
    assert "weighted kappa undefined" in summary(found)
