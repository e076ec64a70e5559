import errno
import io
import json
import logging
import shutil
import stat
import traceback
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from attnvgg.data import archives, attempts, partial
from attnvgg.data.download import download_kaggle
from attnvgg.errors import InputError
from tests.data.kaggle_stub import (
    IMAGES,
    KEY,
    NAME,
    SECRETS,
    SIGNATURE,
    TOKEN,
    dataset,
    serve_kaggle,
    zipped,
)

PART = f".{NAME}.zip.part"
PIECE = partial.CHUNK


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    with serve_kaggle(monkeypatch, home) as stub:
        yield stub


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """The seconds that were waited, without waiting them."""
    seconds = []
    monkeypatch.setattr(attempts, "sleep", seconds.append)
    return seconds


@pytest.fixture(autouse=True)
def secrets_stay_secret(capfd, caplog):
    """Nothing that was printed or logged at any level holds a key or a token."""
    caplog.set_level(logging.DEBUG)
    yield
    printed = "".join(capfd.readouterr())
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("attnvgg")]
    for secret in SECRETS:
        assert secret not in printed + "".join(ours)
        assert secret not in caplog.text or secret == SIGNATURE  # urllib3 logs paths for debugging


def failure(root, *rest, **more):
    """Return the sentence of a call that must fail; its traceback may not hold secrets."""
    with pytest.raises(InputError) as caught:
        download_kaggle(root, *rest, **more)
    told = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in SECRETS if secret in told]
    return str(caught.value)


def content(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def visible(root):
    """Names in the root; the lock is an empty file that stays."""
    return {path.name for path in root.iterdir() if path.suffix != ".lock"}


def test_happy_path(kaggle, root, capfd):
    folder = download_kaggle(root)
    assert folder == root / NAME
    assert content(folder) == dataset()
    assert visible(root) == {NAME}
    assert kaggle.posts()[0]["Authorization"].startswith("Basic ")
    assert len(kaggle.gets()) == 1
    bars = capfd.readouterr().err
    assert f"{NAME}: 100%" in bars
    assert "extracting: 100%" in bars


def test_archive_of_unannounced_length(kaggle, root):
    kaggle.announces, kaggle.cuts = False, [PIECE]
    assert "damaged" in failure(root)  # a cut cannot be told from the end
    assert content(download_kaggle(root)) == dataset()
    assert not any("Range" in headers for headers in kaggle.gets())


def test_second_call_does_nothing_and_says_so(kaggle, root, caplog):
    download_kaggle(root)
    kaggle.asked.clear()
    download_kaggle(root)
    assert kaggle.asked == []
    assert "nothing to do" in caplog.text


def test_keep_archive(kaggle, root):
    download_kaggle(root, keep_archive=True)
    assert visible(root) == {NAME, f"{NAME}.zip"}
    assert (root / f"{NAME}.zip").read_bytes() == kaggle.archive


def test_archive_put_there_by_hand_needs_no_kaggle_and_stays(kaggle, root):
    root.mkdir()
    (root / f"{NAME}.zip").write_bytes(kaggle.archive)
    assert content(download_kaggle(root)) == dataset()
    assert visible(root) == {NAME, f"{NAME}.zip"}
    assert kaggle.asked == []


def test_cut_connection_resumes_by_itself(kaggle, root, slept):
    kaggle.cuts = [2 * PIECE + 100, PIECE]
    assert content(download_kaggle(root, delays=(1, 2))) == dataset()
    assert [headers.get("Range") for headers in kaggle.gets()] == [
        None,
        f"bytes={2 * PIECE}-",
        f"bytes={3 * PIECE}-",
    ]
    assert sum(kaggle.sent) == len(kaggle.archive) + 100
    assert slept == [1, 2]


def test_range_goes_to_the_storage_only(kaggle, root):
    kaggle.cuts = [PIECE]
    download_kaggle(root)
    assert not any("Range" in headers for headers in kaggle.posts())


def test_next_call_resumes_after_the_last_cut(kaggle, root):
    kaggle.cuts = [PIECE, PIECE]
    told = failure(root, delays=(0,))
    assert "cut" in told
    assert "resumes" in told
    assert (root / PART).read_bytes() == kaggle.archive[: 2 * PIECE]
    assert visible(root) == {PART, f"{PART}.json"}
    assert content(download_kaggle(root)) == dataset()
    assert kaggle.gets()[-1]["Range"] == f"bytes={2 * PIECE}-"
    assert kaggle.sent[-1] == len(kaggle.archive) - 2 * PIECE
    assert visible(root) == {NAME}


def test_server_that_ignores_range_starts_over(kaggle, root):
    kaggle.cuts, kaggle.ranges = [PIECE], None
    assert content(download_kaggle(root)) == dataset()
    assert kaggle.sent == [PIECE, len(kaggle.archive)]


@pytest.mark.parametrize("ranges", ["careful", "careless"])
def test_file_that_changed_between_attempts_starts_over(kaggle, root, ranges):
    kaggle.cuts = [PIECE]
    failure(root, delays=())
    kaggle.archive, kaggle.tag, kaggle.ranges = zipped(dataset(seed=1)), '"two"', ranges
    assert content(download_kaggle(root, delays=(0,))) == dataset(seed=1)
    assert kaggle.sent[-1] == len(kaggle.archive)


def test_partial_file_without_a_record_is_not_trusted(kaggle, root):
    root.mkdir()
    (root / PART).write_bytes(b"of something else" * 1000)
    assert content(download_kaggle(root)) == dataset()
    assert "Range" not in kaggle.gets()[0]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, ["credentials", "settings"]),
        (403, ["accept the terms", f"https://www.kaggle.com/datasets/shonenkov/{NAME}"]),
        (404, ["no dataset", "shonenkov"]),
        (418, ["refuses", "418"]),
    ],
)
def test_refusals_are_told_at_once(kaggle, root, slept, status, words):
    kaggle.refusals = [(status, {})]
    told = failure(root)
    assert not [word for word in words if word not in told]
    assert slept == []
    assert visible(root) == set()


def test_busy_server_is_asked_again(kaggle, root, slept):
    kaggle.refusals = [(429, {"Retry-After": "7"}), (503, {}), (500, {"Retry-After": "soon"})]
    assert content(download_kaggle(root, delays=(1, 2, 4))) == dataset()
    assert slept == [7, 2, 4]


def test_busy_server_is_asked_a_few_times_only(kaggle, root, slept):
    kaggle.refusals = [(500, {})] * 9
    assert "busy (500)" in failure(root, delays=(1, 2))
    assert len(kaggle.posts()) == 3
    assert slept == [1, 2]


def test_long_wait_is_left_to_the_user(kaggle, root, slept):
    kaggle.refusals = [(429, {"Retry-After": "7200"})]
    assert "in 120 minutes" in failure(root)
    assert slept == []


def test_no_network(kaggle, root, monkeypatch):
    from kagglesdk.kaggle_env import KaggleEnv, _env_to_endpoint

    monkeypatch.setitem(_env_to_endpoint, KaggleEnv.PROD, "https://kaggle.invalid")
    told = failure(root, delays=(1,))
    assert told.startswith("There is no connection to Kaggle")
    assert "\n" not in told


def test_access_token(kaggle, root, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    download_kaggle(root)
    assert kaggle.posts()[0]["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("file", ["kaggle.json", ".kaggle/access_token"])
def test_credentials_in_files(kaggle, root, tmp_path, monkeypatch, file):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    path = tmp_path / "home" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"username": "me", "key": KEY}) if path.suffix else TOKEN)
    download_kaggle(root)
    kind = "Basic " if path.suffix else f"Bearer {TOKEN}"
    assert kaggle.posts()[0]["Authorization"].startswith(kind)


def test_missing_credentials_name_the_four_ways(kaggle, root, monkeypatch, capfd):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    told = failure(root)
    for way in ("KAGGLE_API_TOKEN", "~/.kaggle/access_token", "KAGGLE_USERNAME", "kaggle.json"):
        assert way in told
    assert kaggle.asked == []
    assert capfd.readouterr().out == ""  # the help of the kaggle package is not shown


@pytest.mark.parametrize("problem", ["inactive", "line break", "as long as no file name can be"])
def test_useless_token(kaggle, root, monkeypatch, problem):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    kaggle.active = problem != "inactive"
    token = {"inactive": TOKEN, "line break": f"{TOKEN}\nx"}.get(problem, TOKEN * 300)
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    assert "credentials" in failure(root)


def test_key_that_no_header_can_hold(kaggle, root, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", f"{KEY}\N{SNOWMAN}")
    assert "credentials" in failure(root)


def test_file_of_credentials_that_is_damaged(kaggle, root, tmp_path, monkeypatch):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "home" / "kaggle.json").write_text(f'{{"key": "{KEY}')
    told = failure(root)
    assert "credentials" in told or "make a token" in told
    assert kaggle.asked == []


def test_garbled_answer_is_asked_for_again(kaggle, root, slept):
    kaggle.garbled = 1
    assert content(download_kaggle(root, delays=(1,))) == dataset()
    assert slept == [1]


def test_garbled_answers_are_not_blamed_on_the_credentials(kaggle, root):
    kaggle.garbled = 9
    assert failure(root, delays=(0,)).startswith("Kaggle's answer could not be understood")
    assert len(kaggle.posts()) == 2


def test_failure_inside_the_package_is_not_blamed_on_the_credentials(kaggle, root, monkeypatch):
    from kagglesdk.kaggle_http_client import KaggleHttpClient

    def confused(*_):
        raise ValueError(f"odd: {KEY}")

    monkeypatch.setattr(KaggleHttpClient, "_prepare_response", confused)
    assert failure(root, delays=()).startswith("Kaggle's answer could not be understood")


def test_verbose_kaggle_does_not_print_credentials(kaggle, root, monkeypatch, capfd):
    from kaggle.api.kaggle_api_extended import KaggleApi

    monkeypatch.setattr(KaggleApi, "args", ["--verbose"])
    download_kaggle(root)
    assert "Authorization" not in capfd.readouterr().out


def test_truncated_archive(kaggle, root):
    kaggle.archive = kaggle.archive[:-100]
    assert "damaged" in failure(root)
    assert visible(root) == set()


def test_corrupt_member(kaggle, root):
    place = kaggle.archive.index(dataset()[f"{IMAGES}/ISIC_3.jpg"][100:120])
    kaggle.archive = kaggle.archive[:place] + b"x" + kaggle.archive[place + 1 :]
    assert "damaged (Bad CRC-32" in failure(root)
    assert visible(root) == set()


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("../evil.jpg", b"x"),
        (f"{IMAGES}/../../../evil.jpg", b"x"),
        ("..\\evil.jpg", b"x"),
        ("/ABSOLUTE/evil.jpg", b"x"),
        ("C:evil.jpg", b"x"),
        (link("evil"), b"/etc/passwd"),
    ],
    ids=str,
)
def test_members_that_leave_the_folder(kaggle, root, tmp_path, name, body):
    if name == "/ABSOLUTE/evil.jpg":
        name = f"{tmp_path}/evil.jpg"
    kaggle.archive = zipped({**dataset(), name: body})
    told = failure(root)
    assert "not safe" in told
    assert "evil" in told
    assert visible(root) == set()
    assert not [path for path in tmp_path.rglob("*evil*")]


@pytest.mark.parametrize("names", [("marking.csv/x",), ("x", "x/y"), ("n" * 300,)], ids=str)
def test_impossible_names(kaggle, root, names):
    kaggle.archive = zipped({**dataset(), **dict.fromkeys(names, b"x")})
    assert "impossible names" in failure(root)
    assert visible(root) == set()


def test_bomb(kaggle, root):
    kaggle.archive = zipped({"marking.csv": bytes(10_000_000)})
    assert "expands to 0.01 GiB, more than 100 times" in failure(root)
    assert visible(root) == set()


def test_member_that_is_longer_than_announced(kaggle, root):
    """The directory says ten bytes: no more are written, and the member is refused."""
    raw = zipped({**dataset(), "long.txt": b"0123456789" * 50})
    entry = raw.rindex(b"PK\x01\x02")
    kaggle.archive = raw[: entry + 24] + (10).to_bytes(4, "little") + raw[entry + 28 :]
    with zipfile.ZipFile(io.BytesIO(kaggle.archive)) as bundle:
        assert bundle.getinfo("long.txt").file_size == 10
    assert "damaged" in failure(root)
    assert visible(root) == set()


@pytest.mark.parametrize(
    ("members", "missing"),
    [
        ({f"{IMAGES}/a.jpg": b"x"}, "no marking.csv"),
        ({"marking.csv": b"x", "images/a.jpg": b"x"}, f"no images {IMAGES}"),
    ],
)
def test_wrong_content(kaggle, root, members, missing):
    kaggle.archive = zipped(members)
    assert missing in failure(root)
    assert visible(root) == set()


def test_bad_archive_put_there_by_hand_is_named_and_stays(kaggle, root):
    root.mkdir()
    archive = root / f"{NAME}.zip"
    archive.write_bytes(b"not an archive")
    assert f"{archive} cannot be used" in failure(root)
    assert visible(root) == {archive.name}


def with_free_bytes(monkeypatch, *free):
    """Let the disk have these bytes left, at one question after another."""
    left = list(free)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(
        archives.shutil, "disk_usage", lambda path: usage._replace(free=left.pop(0))
    )


def test_too_little_disk_for_the_download(kaggle, root, monkeypatch):
    with_free_bytes(monkeypatch, 2 * len(kaggle.archive) - 1)
    told = failure(root)
    assert "Downloading and extracting" in told
    assert told.count("GiB") == 2
    assert visible(root) == set()


def test_too_little_disk_for_the_extraction(kaggle, root, monkeypatch):
    with_free_bytes(monkeypatch, 2 * len(kaggle.archive), 300_000)
    assert "Extracting" in failure(root)
    assert visible(root) == {PART, f"{PART}.json"}
    monkeypatch.undo()
    kaggle.asked.clear()
    assert content(download_kaggle(root)) == dataset()
    assert kaggle.asked == []  # the archive was complete


def test_disk_full_during_the_extraction(kaggle, root, monkeypatch):
    calls = []

    def copy(source, sink):
        calls.append(sink.write(source.read()))
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "copyfileobj", copy)
        assert "nothing is left half-written" in failure(root)
    assert visible(root) == {PART, f"{PART}.json"}
    assert content(download_kaggle(root)) == dataset()
    assert len(kaggle.gets()) == 1


def test_disk_full_during_the_download(kaggle, root, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() >= 2 * PIECE:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    real = Path.open

    def open_full(path, mode="r", *rest, **more):
        return Full(path, "a") if mode == "ab" else real(path, mode, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        told = failure(root)
    assert "The disk filled up" in told
    assert "resumes" in told
    assert content(download_kaggle(root)) == dataset()
    assert kaggle.gets()[-1]["Range"] == f"bytes={2 * PIECE}-"


def test_second_process_is_told_to_wait(kaggle, root):
    root.mkdir()
    with FileLock(root / f".{NAME}.lock"):
        assert "Another process" in failure(root)
    assert kaggle.asked == []
    assert content(download_kaggle(root)) == dataset()


def test_leftover_of_a_killed_extraction_is_removed(kaggle, root):
    for name in (f".{NAME}-abcd_123", f".{NAME}-of-somebody-else"):
        (root / name).mkdir(parents=True)
        (root / name / "half.jpg").write_bytes(b"x")
    download_kaggle(root)
    assert visible(root) == {NAME, f".{NAME}-of-somebody-else"}


def test_other_things_in_the_place_are_not_touched(kaggle, root):
    (root / NAME).mkdir(parents=True)
    (root / NAME / "mine.txt").write_text("mine")
    assert "move it away" in failure(root)
    assert content(root / NAME) == {"mine.txt": b"mine"}
    assert kaggle.asked == []


def test_root_that_is_a_file(kaggle, root):
    root.write_text("a file")
    assert "is not a folder" in failure(root)


@pytest.mark.parametrize(
    "name", ["melanoma", "../x", "a/b/c", "a/..", "https://kaggle.com/a/b", ""]
)
def test_names_that_are_no_dataset(kaggle, root, name):
    assert "owner/name" in failure(root, name)
    assert kaggle.asked == []
    assert not root.exists()
