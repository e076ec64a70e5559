"""The card says what is known, first of all what the figures are of, and what is not known."""

import json

import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard

from attnvgg.deploy.card import card_markdown, model_card, training_data
from attnvgg.models.card import CAUTION, SYNTHETIC, UNKNOWN

BARE = {"class": "AttnVGG", "arguments": {"num_classes": 1}}
AUC = {
    "value": 0.91, "lower": 0.85, "upper": 0.95, "standard_error": 0.02, "level": 0.95,
    "method": "obuchowski", "reason": None,
}  # fmt: skip
JUDGED = {"n": 40, "positives": 12, "groups": 20, "auc": AUC, "sensitivity": 0.9}
FULL = BARE | {
    "classes": ["benign", "malignant"],
    "threshold": 0.4,
    "synthetic": True,
    "start": "imagenet",
    "preprocess": {"size": 64, "resize": 64},
    "metrics": {
        "judged_on": "test",
        "optimistic": False,
        "note": None,
        "threshold": {"value": 0.4, "rule": "highest of all", "chosen_on": "validation"},
        "val": JUDGED,
        "test": JUDGED | {"auc": AUC | {"value": 0.88}},
    },
}


def card_of(config, kind="images", **more):
    card = model_card(config, kind=kind, digest="d1g", **more)
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    return card


def front_matter(card, **more):
    return yaml.safe_load(card_markdown(card, **more).split("---\n")[1])


def test_full_card():
    card = card_of(FULL)
    assert card["synthetic"] is True
    assert card["caution"] == CAUTION
    assert card["threshold"] == {
        "value": 0.4, "rule": "highest of all", "chosen_on": "validation",
    }  # fmt: skip
    assert card["metrics"]["test"]["figures"]["auc"]["lower"] == 0.85
    assert card["metrics"]["validation"]["figures"]["auc"]["value"] == 0.91
    assert card["training_data"]["start"] == "imagenet"
    assert card["engine"] is None


def test_what_is_not_known_is_said():
    card = card_of(BARE)
    for place in ("synthetic", "classes", "metrics", "preprocessing"):
        assert card[place] == UNKNOWN
    assert set(card["threshold"].values()) == {UNKNOWN}
    assert card["training_data"]["source"] == UNKNOWN
    assert "How good it is was not recorded with it." in card["limitations"]
    words = card_markdown(card)
    assert "Synthetic: not recorded" in words
    assert SYNTHETIC not in words
    assert "model-index" not in front_matter(card)
    assert "license" not in front_matter(card)


def test_a_threshold_that_was_changed_has_no_rule():
    assert card_of(FULL | {"threshold": 0.6})["threshold"]["rule"] == UNKNOWN


def test_synthetic_is_said_first():
    words = card_markdown(card_of(FULL)).split("---\n", 2)[2]
    assert words.index(SYNTHETIC) < words.index(CAUTION) < words.index("## ")


def test_the_hub_reads_it():
    card = ModelCard(card_markdown(card_of(FULL, origin="me/mine"), license="mit"))
    assert card.data.license == "mit"
    assert card.data.library_name == "attnvgg"
    assert "synthetic-data" in card.data.tags
    found = {one.metric_type: one for one in card.data.eval_results}
    assert found["roc_auc"].metric_value == 0.88  # of the test set
    assert found["roc_auc"].metric_name == "AUC (95 % interval 0.850 to 0.950)"
    assert found["roc_auc"].dataset_split == "test"
    assert found["sensitivity"].metric_name == "Sensitivity"


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        None,
        {"judged_on": "val", "val": {"n": 3, "auc": None}},
        {"judged_on": "test", "test": {"auc": dict.fromkeys(AUC) | {"reason": "one class"}}},
        {"judged_on": "test", "threshold": None, "test": {"n": 9, "auc": AUC, "per_class": {}}},
        {"note": "OPTIMISTIC", "judged_on": "val", "val": JUDGED, "accuracy": AUC},
    ],
)
@pytest.mark.parametrize("kind", ["images", "bags"])
def test_figures_of_every_kind_make_a_card(metrics, kind):
    card = card_of(FULL | {"metrics": metrics}, kind)
    words = card_markdown(card)
    assert yaml.safe_load(words.split("---\n")[1])["library_name"] == "attnvgg"
    assert "None" not in words.split("## Arguments")[0]


def test_several_classes_have_no_threshold():
    metrics = {"judged_on": "test", "threshold": None, "test": JUDGED}
    config = FULL | {"classes": ["a", "b", "c"], "threshold": None, "metrics": metrics}
    assert card_of(config)["threshold"]["value"] == UNKNOWN


def test_a_run_tells_source_and_counts(trained):
    from attnvgg.training.checkpoint import load_model

    model = load_model(trained)
    for origin in (trained, trained / "best", trained / "best" / "model.safetensors"):
        card = card_of(model.config, origin=origin)
        assert card["name"] == "trained"
        assert card["training_data"]["source"] == "csv"
        found = card["training_data"]["counts"]["val"]
        manifest = pd.read_csv(trained / "manifest.csv")
        wanted = manifest["label"][manifest["split"] == "val"].value_counts().sort_index()
        assert found == dict(zip(model.config["classes"], wanted, strict=True))
    assert str(trained.parent) not in card_markdown(card)
    assert card["synthetic"] is False


def test_what_is_no_run_or_damaged_tells_nothing(tmp_path):
    assert training_data(tmp_path / "x") == {}
    (tmp_path / "config.yaml").write_text("data: [")
    assert training_data(tmp_path) == {}
    (tmp_path / "config.yaml").write_text("data: {source: sample}")
    assert training_data(tmp_path) == {"source": "sample", "synthetic": True}
    assert card_of(BARE, origin="owner/name")["name"] == "owner/name"
