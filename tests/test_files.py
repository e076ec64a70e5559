"""Atomic writing, and the one sentence of wrong input."""

import os
import stat

import pytest

from attnvgg.errors import InputError
from attnvgg.files import atomic_folder, atomic_path


def fail_within(context, error):
    """Write half of a file, or a file of a folder, then fail."""
    with context as temporary:
        half = temporary / "x" if temporary.is_dir() else temporary
        half.write_text("half")
        raise error


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "deep" / "a.json"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".json"
        assert not target.exists()
    assert target.read_text() == "new"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="full"):
        fail_within(atomic_path(target), OSError("disk full"))
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    with atomic_path(tmp_path / "ours") as temporary:
        temporary.write_text("")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours")]
    assert modes[0] == modes[1]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fail_within(atomic_folder(tmp_path / "a"), KeyboardInterrupt())
    assert not os.listdir(tmp_path)
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "x").write_text("whole")
    assert (tmp_path / "a" / "x").read_text() == "whole"


def test_a_folder_with_content_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("mine")
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "a") as temporary:
        (temporary / "x").write_text("")
    assert os.listdir(tmp_path / "a") == ["mine"]
    assert os.listdir(tmp_path) == ["a"]


def test_offenders_are_listed_up_to_a_number():
    assert str(InputError("Two are wrong:", ["a", "b"])) == "Two are wrong:\n  a\n  b"
    lines = str(InputError("Many:", range(1000))).splitlines()
    assert lines[-1] == "  ... and 980 more"
    assert len(lines) == 22


def test_wrong_input_is_a_value_error():
    assert issubclass(InputError, ValueError)
