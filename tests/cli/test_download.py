import pytest

from attnvgg.cli.download import main
from tests.data.kaggle_stub import KEY, NAME, serve_kaggle


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    with serve_kaggle(monkeypatch, home) as stub:
        yield stub


def test_download_then_nothing(kaggle, tmp_path, capfd):
    words = ["--root", str(tmp_path / "data"), "--dataset", f"somebody/{NAME}"]
    assert main([*words, "--keep_archive", "true"]) == 0
    assert (tmp_path / "data" / NAME / "marking.csv").is_file()
    assert (tmp_path / "data" / f"{NAME}.zip").is_file()
    assert main(words) == 0
    assert len(kaggle.gets()) == 1
    told = capfd.readouterr()
    assert "nothing to do" in told.out
    assert KEY not in told.out + told.err


def test_failure_is_one_sentence_and_exit_code_two(kaggle, tmp_path, capfd):
    kaggle.refusals = [(403, {})]
    assert main(["--root", str(tmp_path / "data")]) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith("error: Kaggle refuses the download (403): open https://www.kaggle.com")
    assert "\n" not in error
    assert KEY not in error


def test_missing_credentials(kaggle, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("KAGGLE_KEY")
    assert main(["--root", str(tmp_path / "data")]) == 2
    assert "KAGGLE_API_TOKEN" in capfd.readouterr().err


def test_unknown_option(tmp_path, capfd):
    assert main(["--rot", str(tmp_path)]) == 2
    assert "rot" in capfd.readouterr().err
