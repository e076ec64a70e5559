"""Evaluation end to end: the same figures again, and nothing else touched."""

import json
import os
import re
import shutil
import subprocess

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.train import main as train
from tests.evaluation.test_report import predictions

# What Chromium asks for itself, whatever the page.
ITS_OWN = {
    "clients2.google.com",
    "accounts.google.com",
    "redirector.gvt1.com",
    "update.googleapis.com",
}
PLOTS = {"roc", "precision_recall", "reliability", "decision_curve", "confusion"}


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "mine")
    return tmp_path / "mine"


def test_evaluating_again_gives_the_same_files(run):
    names = [p.relative_to(run) for p in run.rglob("*") if p.is_file()]
    before = {name: (run / name).read_bytes() for name in names}
    for name in ("predictions.csv", "metrics.json"):
        (run / name).unlink()
    assert evaluate([str(run), "--device=cpu", "--threads=1"]) == 0
    assert {name: (run / name).read_bytes() for name in names} == before


def test_the_figures_are_those_of_scikit_learn(run):
    table = pd.read_csv(run / "predictions.csv")
    metrics = json.loads((run / "metrics.json").read_text())
    for split in ("val", "test"):
        rows = table[table["split"] == split]
        found = metrics[split]
        assert found["auc"]["value"] == pytest.approx(
            roc_auc_score(rows["label"], rows["probability"])
        )
        assert found["average_precision"] == pytest.approx(
            average_precision_score(rows["label"], rows["probability"])
        )
        called = rows["probability"] >= metrics["threshold"]["value"]
        assert found["sensitivity"] == pytest.approx(called[rows["label"] == 1].mean())
        assert found["specificity"] == pytest.approx(1 - called[rows["label"] == 0].mean())


def test_groups_make_the_interval_clustered(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["auc"]["method"] == "obuchowski"


def test_without_a_test_set_it_is_called_optimistic(csv_options, tmp_path, capsys):
    options = [*csv_options, "--data.fractions=[0.7,0.3,0]", "--epochs=1", f"--out={tmp_path}"]
    assert train([*options, "--name=a"]) == 0
    assert "OPTIMISTIC" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["optimistic"] is True


def test_an_image_that_has_gone(run, capsys):
    manifest = pd.read_csv(run / "manifest.csv")
    row = manifest.index[manifest["split"] == "test"][0]
    manifest.loc[row, "image"] = "/gone/for/good.png"
    manifest.to_csv(run / "manifest.csv", index=False)
    assert evaluate([str(run)]) == 2
    assert "good.png" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_a_damaged_model(run, capsys, damage):
    weights = run / "best" / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "text":
        weights.write_text("no weights")
    else:
        weights.unlink()
    assert evaluate([str(run)]) == 2
    captured = capsys.readouterr().err
    assert "best" in captured
    assert "Traceback" not in captured


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("config.yaml", lambda text: "\x00\x01"),
        ("config.yaml", lambda text: text.replace("image_size: 32", "image_size: null")),
        ("manifest.csv", lambda text: text.replace("split", "side")),
        ("best/config.json", lambda text: text.replace('"size": 32', '"size": "big"')),
        ("best/config.json", lambda text: text[: len(text) // 2]),
    ],
)
def test_a_damaged_run_is_told_in_a_sentence(run, capsys, name, spoil):
    (run / name).write_text(spoil((run / name).read_text()))
    assert evaluate([str(run)]) == 2
    captured = capsys.readouterr().err
    assert "error: " in captured
    assert "Traceback" not in captured


@pytest.fixture
def table(tmp_path):
    """Predictions of some other program, with a name that is HTML."""
    rng = np.random.default_rng(0)
    found = predictions(count=240).assign(
        sex=rng.choice(["female", "male"], 240), source=rng.choice(["<b>x</b>", "y"], 240)
    )
    path = tmp_path / "theirs.csv"
    found.to_csv(path, index=False)
    return path


def read_report(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return metrics, (folder / "report.html").read_text()


def test_a_file_of_predictions_gets_its_report(table, capsys):
    assert evaluate([str(table)]) == 0
    folder = table.with_name("theirs_report")
    metrics, page = read_report(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *(f"{name}.png" for name in PLOTS), "metrics.json", "probabilities.csv", "report.html",
    }  # fmt: skip
    rows = pd.read_csv(table).query("split == 'test'")
    auc = roc_auc_score(rows["label"], rows["probability"])
    assert metrics["figures"]["auc"]["value"] == pytest.approx(auc)
    assert f"{auc:.3f}" in page
    said = capsys.readouterr().out
    assert f"AUC {auc:.3f}" in said
    assert "report.html" in said


def test_the_page_is_whole_and_asks_nobody(table):
    assert evaluate([str(table), "--against", str(table)]) == 0
    _, page = read_report(table.with_name("theirs_report"))
    sources = re.findall(r'(?:src|href|action|data)="([^"]*)', page)
    assert len(sources) == len(PLOTS)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert "@media print" in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<b>x</b>" not in page


@pytest.fixture
def browser(tmp_path):
    """A Chromium that starts on this machine."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium: set CHROMIUM to one")
    profile = f"--user-data-dir={tmp_path / 'empty'}"
    words = [found, "--headless", "--no-sandbox", "--disable-gpu", profile, "--dump-dom"]
    try:
        subprocess.run([*words, "about:blank"], check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{found} does not start here: {error}")
    return found


def test_the_page_in_a_browser(table, tmp_path, browser):
    assert evaluate([str(table)]) == 0
    picture, log = tmp_path / "page.png", tmp_path / "net.json"
    page = table.with_name("theirs_report") / "report.html"
    subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1100,3400",
            f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}",
            "--disable-background-networking", "--disable-component-update",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}", page.as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    asked = re.findall(r'"url":"https?://([^"/:]*)', log.read_text())
    assert set(asked) <= ITS_OWN
    shown = cv2.imread(str(picture))
    blue = (np.abs(shown.astype(int) - (122, 87, 34)) < 12).all(axis=2)  # the curves
    assert blue.sum() > 500


def test_a_report_does_not_replace_what_it_judges(table, capsys):
    place = table.parent / "probabilities.csv"
    table.rename(place)
    before = place.read_bytes()
    assert evaluate([str(place), f"--out={place.parent}"]) == 2
    assert "would replace" in capsys.readouterr().err
    assert place.read_bytes() == before
    assert evaluate([str(place)]) == 0


def test_a_run_gets_its_report_and_says_that_it_is_a_run(run):
    assert evaluate([str(run), "--device=cpu", "--threads=1", "--prevalence=0.05"]) == 0
    metrics, page = read_report(run / "report")
    short = json.loads((run / "metrics.json").read_text())
    for name, value in short.items():
        assert metrics[name] == value
    assert metrics["prevalence"]["stated"] == 0.05
    assert "at_prevalence" in pd.read_csv(run / "report" / "probabilities.csv")
    assert "Synthetic." not in page
    assert evaluate([str(run / "predictions.csv"), f"--against={run}"]) == 0
    other, _ = read_report(run / "predictions_report")
    assert other["against"]["differences"]["auc"]["value"] == 0


def test_synthetic_and_optimistic_are_said(run):
    table = pd.read_csv(run / "predictions.csv")
    table[table["split"] == "val"].to_csv(run / "val.csv", index=False)
    assert evaluate([str(run / "val.csv"), f"--out={run / 'there'}"]) == 0
    assert "Optimistic." in read_report(run / "there")[1]
    from attnvgg.cli.report_page import page

    metrics, _ = read_report(run / "there")
    assert "Synthetic." in page({**metrics, "synthetic": True}, {}, "a run")


@pytest.mark.parametrize("place", ["metrics.json", "summary.json", "best/config.json"])
@pytest.mark.parametrize("against", [False, True])
def test_a_file_beside_what_calls_it_synthetic_is_called_so(
    table, tmp_path, capsys, place, against
):
    marked = tmp_path / "run" / "predictions.csv"
    (marked.parent / place).parent.mkdir(parents=True)
    shutil.copy(table, marked)
    (marked.parent / place).write_text(
        '{"synthetic": true, "sample": {"ceiling": 0.9, "floor": 0.6}}'
    )
    order = [str(table), "--against", str(marked.parent)] if against else [str(marked)]
    assert evaluate([*order, f"--out={tmp_path / 'out'}"]) == 0
    metrics, page = read_report(tmp_path / "out")
    assert metrics["synthetic"] is True
    assert "<strong>Synthetic.</strong>" in page
    assert "0.900 at most" in page
    assert "SYNTHETIC" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"synthetic": false}', '{"synthetic": "no"}'])
def test_other_files_beside_say_nothing_of_that(table, content):
    table.with_name("metrics.json").write_text(content)
    assert evaluate([str(table)]) == 0
    metrics, page = read_report(table.with_name("theirs_report"))
    assert "synthetic" not in metrics
    assert "<strong>Synthetic.</strong>" not in page


@pytest.mark.parametrize("is_file", [True, False])
def test_a_report_does_not_replace_the_metrics_of_a_run(run, table, capsys, is_file):
    before = (run / "metrics.json").read_bytes()
    stamp = (run / "predictions.csv").stat().st_mtime_ns
    assert evaluate([str(table if is_file else run), f"--out={run}"]) == 2
    assert "is a run" in capsys.readouterr().err
    assert (run / "metrics.json").read_bytes() == before
    assert (run / "predictions.csv").stat().st_mtime_ns == stamp  # nor was it judged first
    assert not (run / "report.html").exists()


def test_folds_refuse_what_only_a_report_answers(run, table, capsys):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("folds: 1", "folds: 3"))
    options = ["--prevalence=0.1", f"--against={table}", f"--out={table.parent / 'x'}"]
    options += ["--threshold=0.5", "--sensitivities", "0.7"]
    assert evaluate([str(run), *options]) == 2
    said = capsys.readouterr().err
    for option in options[:-1]:
        assert f"  {option.split('=')[0]}\n" in said
    assert f"{run / 'fold-0'}" in said
    assert f"{run / 'out_of_fold.csv'}" in said
    (run / "out_of_fold.csv").touch()
    assert evaluate([str(table), f"--against={run}"]) == 2
    assert f"{run / 'fold-0'}" in capsys.readouterr().err


def test_views_of_a_table_are_refused(table, capsys):
    assert evaluate([str(table), "--views=8"]) == 2
    assert "--views 8" in capsys.readouterr().err


def test_views_of_bags_are_refused(run, capsys, monkeypatch):
    monkeypatch.setattr("attnvgg.cli.evaluate.read_task", lambda _: "bags")
    monkeypatch.setattr("attnvgg.cli.evaluate.read_bags_config", lambda _: None)
    assert evaluate([str(run), "--views=8"]) == 2
    assert "is on bags" in capsys.readouterr().err


def test_sensitivities_of_several_classes_are_refused(tmp_path, capsys):
    predictions(classes=3).to_csv(tmp_path / "many.csv", index=False)
    assert evaluate([str(tmp_path / "many.csv"), "--sensitivities", "0.7"]) == 2
    assert "3 classes have no single threshold" in capsys.readouterr().err


def test_patients_on_both_sides_and_one_positive_patient_are_told(table, capsys):
    """A report is written also where nearly nothing has an interval."""
    rows = pd.read_csv(table)
    test = rows["split"] == "test"
    rows.loc[test, "label"] = 0
    rows.loc[rows.index[-3:], "label"] = 1
    rows.loc[rows.index[test][0], "group"] = rows["group"][0]
    rows.to_csv(table, index=False)
    assert evaluate([str(table), "--prevalence=0.02"]) == 0
    metrics, page = read_report(table.with_name("theirs_report"))
    assert "both in validation and in test: 1." in page
    assert "both in validation and in test: 1." in capsys.readouterr().out
    assert metrics["decision_curve"]["lower"] is None
    assert "by chance up to" in page
    assert "training may have seen another share" in page


def test_options_reach_the_report(table, tmp_path):
    options = ["--threshold=0.4", "--sensitivities=[0.7]", f"--out={tmp_path / 'here'}"]
    assert evaluate([str(table), *options]) == 0
    metrics, _ = read_report(tmp_path / "here")
    assert metrics["threshold"] == {"value": 0.4, "rule": "given", "chosen_on": None}
    assert [point["asked"] for point in metrics["operating_points"]] == [0.7]


def test_sensitivities_may_be_plain_numbers(table):
    assert evaluate([str(table), "--sensitivities", ".6", "0.9", "--threshold=0.5"]) == 0
    metrics, _ = read_report(table.with_name("theirs_report"))
    assert [point["asked"] for point in metrics["operating_points"]] == [0.6, 0.9]


def test_several_classes_get_a_report(tmp_path):
    predictions(classes=4, count=240).to_csv(tmp_path / "many.csv", index=False)
    assert evaluate([str(tmp_path / "many.csv")]) == 0
    metrics, page = read_report(tmp_path / "many_report")
    assert list(metrics["per_class"]) == list("0123")
    assert "weighted" in page


def nothing(table):
    return table


BAD = {
    "missing column": (lambda t: t.drop(columns="group"), [], "group"),
    "no probability": (lambda t: t.drop(columns="probability"), [], "probability"),
    "NaN": (
        lambda t: t.assign(probability=t["probability"].mask(t.index == 7)),
        [],
        "8: /images/7",
    ),
    "outside": (
        lambda t: t.assign(probability=t["probability"] + (t.index == 9)),
        [],
        "10: /images/9",
    ),
    "text": (lambda t: t.astype({"label": object}).assign(label="ill"), [], "labels"),
    "twice": (lambda t: pd.concat([t, t.iloc[[3]]]), [], "/images/3.jpg"),
    "one class": (lambda t: t.assign(label=0), [], "label 0"),
    "no rows": (lambda t: t.iloc[:0], [], "no rows"),
    "prevalence": (nothing, ["--prevalence=2"], "prevalence of 2"),
    "sensitivity": (nothing, ["--sensitivities=[90]"], "90"),
    "no file": (nothing, ["--against=/nowhere/x.csv"], "/nowhere/x.csv"),
    "no run": (nothing, ["--against=."], "evaluate that run first"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_predictions_are_told_in_a_sentence(table, name, capsys, monkeypatch):
    spoil, options, said = BAD[name]
    monkeypatch.chdir(table.parent)
    spoil(pd.read_csv(table)).to_csv(table, index=False)
    assert evaluate([str(table), *options]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("error: ")
    assert said in captured
    assert "Traceback" not in captured
    assert not table.with_name("theirs_report").exists()


def test_mismatched_models_are_told_by_name(table, tmp_path, capsys):
    other = pd.read_csv(table).iloc[:-2]
    other.to_csv(tmp_path / "other.csv", index=False)
    assert evaluate([str(table), f"--against={tmp_path / 'other.csv'}"]) == 2
    assert "/images/239.jpg (only of the first)" in capsys.readouterr().err


def test_a_file_that_is_not_there_or_is_no_table(tmp_path, capsys):
    assert evaluate([str(tmp_path / "none.csv")]) == 2
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)))
    assert evaluate([str(tmp_path / "noise.csv")]) == 2
    assert "Traceback" not in capsys.readouterr().err
