"""The whole report of a table, and of two."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn import metrics as reference

from attnvgg.errors import InputError
from attnvgg.evaluation.assessment import Questions, assess
from attnvgg.evaluation.intervals import wilson_interval
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
    assert "by chance up to" in figures.pop("ece")["reason"]
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
    assert values["ppv"]["method"] == "group bootstrap"
    assert values["learned"] == 0.5
    assert found.content["decision_curve"]["prevalence"] == 0.02


def posteriors(split, count, share, trained=0.46):
    """Cases of N(0, 1) and N(1.8, 1), at their quantiles, with exact posteriors of another share.

    Returns:
        The table, and the logarithm of the ratio of the densities.
    """
    sick = round(count * share)
    values = [norm.ppf((np.arange(n) + 0.5) / n) for n in (count - sick, sick)]
    ratio = 1.8 * np.append(values[0], values[1] + 1.8) - 1.8**2 / 2
    names = [f"{split}{row}" for row in range(count)]
    labels = np.arange(count) >= count - sick
    table = {"image": names, "label": labels.astype(int), "group": names, "split": split}
    return pd.DataFrame(table | {"probability": expit(ratio + logit(trained))}), ratio


def test_another_prevalence_in_training_is_repaired():
    """Trained at 46 %, validation has 8 %, test 20 %: asked for 2 %, the posteriors are exact."""
    (val, _), (test, ratio) = posteriors("val", 10000, 0.08), posteriors("test", 1000, 0.2)
    found = assess(pd.concat([val, test]), Questions(prevalence=0.02))
    exact = expit(ratio + logit(0.02))
    np.testing.assert_allclose(found.corrected, exact, atol=0.01)
    assert found.content["prevalence"]["learned"] == val["label"].mean()
    curve, sick = found.content["decision_curve"], test["label"].to_numpy() == 1
    for threshold in (0.05, 0.1, 0.2):
        called = exact >= threshold
        alarms = 0.98 * called[~sick].mean() * threshold / (1 - threshold)
        expected = 0.02 * called[sick].mean() - alarms
        place = np.argmin(np.abs(np.subtract(curve["thresholds"], threshold)))
        assert curve["model"][place] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("alarms", [0, 1])
def test_predictive_values_where_all_are_found_are_not_certain(alarms):
    """6 of 6 positives found, 20 or 19 of 20 negatives right: the PPV at 2 % may still be low."""
    val = predictions(count=100).assign(split="val")
    called = np.repeat([0.01, 0.99], [20 - alarms, 6 + alarms])
    test = predictions(count=26).assign(
        image=np.arange(26).astype(str), group=np.arange(26), split="test",
        label=np.arange(26) // 20, probability=called,
    )  # fmt: skip
    found = assess(pd.concat([val, test]), Questions(prevalence=0.02)).content["prevalence"]
    limits = zip(wilson_interval(6, 6), wilson_interval(20 - alarms, 20), strict=True)
    for end, (sensitivity, specificity) in zip(("lower", "upper"), limits, strict=True):
        hits, wrong = 0.02 * sensitivity, 0.98 * (1 - specificity)
        misses, quiet = 0.02 * (1 - sensitivity), 0.98 * specificity
        assert found["ppv"][end] == pytest.approx(hits / (hits + wrong))
        assert found["npv"][end] == pytest.approx(quiet / (quiet + misses))
    assert found["npv"]["value"] == 1


def test_no_interval_is_a_point():
    """One positive patient with 3 images, two of them found."""
    val = predictions(count=100).assign(split="val")
    test = predictions(count=33).assign(
        image=np.arange(33).astype(str), group=np.minimum(np.arange(33), 30), split="test",
        label=np.arange(33) // 30, probability=np.append(np.linspace(0, 0.6, 30), [0.9, 0.8, 0.1]),
    )  # fmt: skip
    found = assess(pd.concat([val, test]), Questions(prevalence=0.02)).content
    figures = found["figures"]
    sensitivity = figures["sensitivity"]
    assert (sensitivity["lower"], sensitivity["upper"]) == wilson_interval(2 / 3, 1)
    for name in ("auc", "average_precision", "partial_auc", "balanced_accuracy"):
        assert figures[name]["lower"] is None
        assert figures[name]["reason"]
    assert found["prevalence"]["ppv"]["lower"] < 0.03
    assert found["decision_curve"]["lower"] is None
    json.dumps(found, allow_nan=False)


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
    confidence = reference.accuracy_score(y, p.argmax(1)), p.max(1).mean()
    assert figures.pop("top_label_ece")["value"] >= abs(np.subtract(*confidence))
    assert all(f["lower"] < f["value"] < f["upper"] for f in figures.values())
    each = found["per_class"]["2"]
    assert each["ece"]["value"] > 0
    assert 0 < each["ece"]["chance"] < 0.3
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
        if name.endswith("ece"):
            assert difference["lower"] is None
            continue
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
    found = assess(test, Questions(threshold=0.4)).content
    assert found["operating_points"] is None
    assert "no validation rows" in found["calibration"]["reason"]
    one_sided = predictions().query("split == 'test' or label == 0")
    for table in (test, one_sided):
        with pytest.raises(InputError, match="needs validation cases of both classes"):
            assess(table, Questions(threshold=0.4, prevalence=0.1))


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
