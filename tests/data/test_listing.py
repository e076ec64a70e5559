"""Which files lie in a folder: linked ones too, each once, and nothing passed by in silence."""

from attnvgg.data.listing import list_files


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder):
    return [str(path.relative_to(folder)) for path in list_files(folder)]


def test_what_is_hidden_is_not_listed(tmp_path):
    for name in ("b.png", "a/c.txt", ".d.png", ".e/f.png", "__MACOSX/g.png", "a/.h/i/j.png"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["a/c.txt", "b.png"]


def test_linked_folders_are_entered(tmp_path):
    touch(tmp_path / "disk" / "deep" / "a.svs", tmp_path / "mine" / "b.svs")
    (tmp_path / "mine" / "linked").symlink_to(tmp_path / "disk")
    assert names(tmp_path / "mine") == ["b.svs", "linked/deep/a.svs"]


def test_each_folder_is_entered_once_and_by_its_real_name(tmp_path):
    touch(tmp_path / "z" / "b.svs")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    (tmp_path / "again").symlink_to(tmp_path / "z")
    (tmp_path / "z" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    assert names(tmp_path) == ["self", "z/b.svs"]


def test_a_link_to_nothing_is_listed(tmp_path):
    (tmp_path / "gone.tiff").symlink_to(tmp_path / "nowhere.tiff")
    assert names(tmp_path) == ["gone.tiff"]
