"""The whole report of a table, and of two."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from attnvgg.errors import InputError
from attnvgg.evaluation.assessment import Questions, assess
from attnvgg.evaluation.metrics import choose_threshold, confusion
from attnvgg.evaluation.report import evaluate_predictions
from tests.evaluation.test_report import predictions


def part(table, split="test"):
    return table[table["split"] == split]


def numbers(content):
    """All numbers of a JSON content."""
    if isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            yield from numbers(item)
    elif isinstance(content, float):
        yield content


def test_it_has_all_that_metrics_json_had():
    table = predictions()
    found = assess(table).content
    for name, value in evaluate_predictions(table).items():
        assert found[name] == value


def test_figures_agree_with_those_of_scikit_learn():
    table = predictions(count=300)
    test, figures = part(table), assess(table).content["figures"]
    y, p = test["label"], test["probability"]
    assert figures["auc"]["value"] == pytest.approx(reference.roc_auc_score(y, p), abs=1e-12)
    expected = reference.average_precision_score(y, p)
    assert figures["average_precision"]["value"] == pytest.approx(expected, abs=1e-12)
    assert figures["brier"]["value"] == pytest.approx(reference.brier_score_loss(y, p), abs=1e-12)
    for figure in figures.values():
        assert figure["lower"] < figure["value"] < figure["upper"]


def test_operating_points_are_chosen_on_validation():
    table = predictions(count=300)
    val, test = part(table, "val"), part(table)
    points = assess(table, Questions(sensitivities=[0.5, 0.95])).content["operating_points"]
    for point, asked in zip(points, [0.5, 0.95], strict=True):
        threshold = choose_threshold(val["label"], val["probability"], asked)
        expected = confusion(test["label"], test["probability"], threshold)
        assert point["threshold"] == threshold
        assert point["sensitivity"]["value"] == pytest.approx(expected.sensitivity)
        assert point["npv"]["value"] == pytest.approx(expected.npv)


def test_calibration_is_fitted_on_validation_and_judged_on_test():
    table = predictions(count=600)
    logits = np.log(table["probability"] / (1 - table["probability"]))
    sharper = table.assign(probability=1 / (1 + np.exp(-4 * logits)))
    plain, sharp = assess(table), assess(sharper)
    before, after = (sharp.content["calibration"][when] for when in ("before", "after"))
    assert sharp.content["calibration"]["temperature"] == pytest.approx(
        4 * plain.content["calibration"]["temperature"], rel=1e-3
    )
    for name in ("brier", "ece"):
        assert after[name]["value"] < before[name]["value"]
    assert after["log_loss"] < before["log_loss"]
    np.testing.assert_allclose(sharp.calibrated, plain.calibrated, atol=1e-4)
    flipped = sharper.assign(label=sharper["label"].where(sharper["split"] == "val", 0))
    flipped.loc[flipped.index[-1], "label"] = 1
    again = assess(flipped).content["calibration"]["temperature"]
    assert again == sharp.content["calibration"]["temperature"]


def test_a_stated_prevalence_lowers_the_ppv():
    found = assess(predictions(count=300), Questions(prevalence=0.02))
    values, figures = found.content["prevalence"], found.content["figures"]
    sensitivity, specificity = figures["sensitivity"]["value"], figures["specificity"]["value"]
    hits, alarms = 0.02 * sensitivity, 0.98 * (1 - specificity)
    assert values["ppv"]["value"] == pytest.approx(hits / (hits + alarms))
    assert values["ppv"]["lower"] < values["ppv"]["value"] < values["ppv"]["upper"]
    assert values["learned"] == 0.5
    assert (found.corrected <= found.calibrated[:, 0]).all()
    assert found.content["decision_curve"]["prevalence"] == 0.02


def test_two_columns_are_class_1():
    table = predictions()
    both = table.drop(columns="probability").assign(
        probability_0=1 - table["probability"], probability_1=table["probability"]
    )
    one, two = assess(table).content, assess(both).content
    assert list(numbers(two)) == pytest.approx(list(numbers(one)), abs=1e-6)


def test_classes_are_averaged_plainly_and_by_their_share():
    table = predictions(classes=3, count=300).drop(index=range(150, 180, 3))
    test, found = part(table), assess(table).content
    y, p = test["label"], test[[f"probability_{k}" for k in range(3)]].to_numpy()
    figures = found["figures"]
    for name, average in (("auc", "macro"), ("weighted_auc", "weighted")):
        expected = reference.roc_auc_score(y, p, multi_class="ovr", average=average)
        assert figures[name]["value"] == pytest.approx(expected, abs=1e-12)
    onehot = np.eye(3)[y]
    expected = reference.average_precision_score(onehot, p, average="weighted")
    assert figures["weighted_average_precision"]["value"] == pytest.approx(expected, abs=1e-12)
    assert figures["brier"]["value"] == pytest.approx(((p - onehot) ** 2).sum(1).mean())
    expected = reference.balanced_accuracy_score(y, p.argmax(1))
    assert figures["balanced_accuracy"]["value"] == pytest.approx(expected)
    assert all(f["lower"] < f["value"] < f["upper"] for f in figures.values())
    each = found["per_class"]["2"]
    assert each["ece"]["lower"] <= each["ece"]["value"]
    assert each["partial_auc"]["lower"] < each["partial_auc"]["value"]
    assert (found["operating_points"], found["decision_curve"]) == (None, None)


def test_a_class_without_a_test_case_is_undefined_and_left_out_of_the_mean():
    table = predictions(classes=3, count=240)
    table = table[(table["split"] == "val") | (table["label"] != 2)]
    found = assess(table).content
    assert found["per_class"]["2"]["auc"]["value"] is None
    expected = np.mean([found["per_class"][k]["auc"]["value"] for k in "01"])
    assert found["figures"]["auc"]["value"] == pytest.approx(expected)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("classes", [1, 3])
def test_against_itself_nothing_differs(classes):
    table = predictions(classes)
    found = assess(table, None, table.sample(frac=1, random_state=0)).content["against"]
    assert {f["value"] for f in found["differences"].values()} == {0}
    assert found["differences"]["auc" if classes == 1 else "auc 1"]["lower"] is None


@pytest.mark.parametrize("classes", [1, 3])
def test_against_another_model(classes):
    first, second = predictions(classes, 300, seed=0), predictions(classes, 300, seed=1)
    found = assess(first, None, second).content
    alone = assess(second).content
    for name, figure in found["figures"].items():
        difference = found["against"]["differences"][name]
        expected = figure["value"] - alone["figures"][name]["value"]
        assert difference["value"] == pytest.approx(expected, abs=1e-12)
        assert difference["lower"] < difference["value"] < difference["upper"]
        assert found["against"]["figures"][name] == alone["figures"][name]


def test_a_test_set_of_one_class_has_no_silent_nan():
    table = predictions()
    table = table[(table["split"] == "val") | (table["label"] == 0)]
    found = assess(table).content
    json.dumps(found, allow_nan=False)
    assert found["decision_curve"] is None
    for figure in found["figures"].values():
        assert figure["value"] is not None or figure["reason"]


def test_without_validation_a_threshold_is_needed_and_calibration_is_left_out():
    test = part(predictions())
    with pytest.raises(InputError, match="no validation rows"):
        assess(test)
    found = assess(test, Questions(threshold=0.4, prevalence=0.1)).content
    assert found["operating_points"] is None
    assert "no validation rows" in found["calibration"]["reason"]
    assert found["prevalence"]["learned_on"] == "the judged cases"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"prevalence": 0}, "prevalence of 0"),
        ({"prevalence": 2.0}, "prevalence of 2"),
        ({"sensitivities": [0.8, 80]}, "Sensitivities"),
        ({"threshold": 1.5}, "threshold of 1.5"),
    ],
)
def test_questions_without_an_answer_are_refused(asked, said):
    with pytest.raises(InputError, match=said):
        assess(predictions(), Questions(**asked))


def test_several_classes_have_no_prevalence_and_no_pair_with_two():
    with pytest.raises(InputError, match="no single prevalence"):
        assess(predictions(3), Questions(prevalence=0.1))
    with pytest.raises(InputError, match="same number of classes"):
        assess(predictions(3), None, predictions())


def test_other_cases_are_named():
    other = predictions()
    other.loc[100, "image"] = "/images/other.jpg"
    with pytest.raises(InputError, match="different test cases") as caught:
        assess(predictions(), None, other)
    assert "/images/100.jpg (only of the first)" in caught.value.offenders


def test_a_frame_with_other_row_numbers_is_the_same():
    table = predictions()
    table.index = pd.Index(range(1000, 1120))
    assert assess(table).content == assess(predictions()).content
