import logging
import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest

from attnvgg.data import cache as module
from attnvgg.data.cache import ImageCache, file_key

SHAPE = (30, 31, 3)  # 2790 bytes: no whole number of 64-bit words; one page a slot
SLOT = 4096


def pixels(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def key(number):
    return np.random.default_rng([7, number]).bytes(16)


def make(folder, slots=64, **settings):
    return ImageCache(folder, slots * SLOT, **({"reserve_bytes": 0} | settings))


def on_disk(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def table(cache):
    return next(path for path in cache.folder.iterdir())


def test_what_is_put_is_got(tmp_path):
    cache = make(tmp_path / "deep" / "cache")
    assert cache.get(key(0), SHAPE) is None
    cache.put(key(0), pixels(0))
    cache.put(key(1), pixels(1, (64, 64)))
    np.testing.assert_array_equal(cache.get(key(0), SHAPE), pixels(0))
    np.testing.assert_array_equal(cache.get(key(1), (64, 64)), pixels(1, (64, 64)))
    assert cache.get(key(2), SHAPE) is None
    again = make(tmp_path / "deep" / "cache")
    np.testing.assert_array_equal(again.get(key(0), SHAPE), pixels(0))


def test_black_pictures_are_entries_too(tmp_path):
    cache = make(tmp_path)
    cache.put(key(0), np.zeros(SHAPE, np.uint8))
    np.testing.assert_array_equal(cache.get(key(0), SHAPE), np.zeros(SHAPE, np.uint8))


def test_the_key_changes_with_the_file_and_the_recipe(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    os.utime(path, ns=(0, 1_000))
    keys = [file_key(str(path), "x")]
    assert file_key(str(path), "x") == keys[0]
    keys.append(file_key(str(path), "y"))
    os.utime(path, ns=(0, 2_000))
    keys.append(file_key(str(path), "x"))
    path.write_bytes(b"123456")
    os.utime(path, ns=(0, 1_000))
    keys.append(file_key(str(path), "x"))
    other = tmp_path / "b"
    other.write_bytes(b"12345")
    os.utime(other, ns=(0, 1_000))
    keys.append(file_key(str(other), "x"))
    assert len(set(keys)) == 5
    path.unlink()
    with pytest.raises(FileNotFoundError):
        file_key(str(path), "x")


@pytest.mark.parametrize("damage", ["zeros", "short", "flip", "header"])
def test_a_torn_entry_counts_as_absent_and_is_written_again(tmp_path, damage):
    cache = make(tmp_path, slots=1)
    cache.put(key(0), pixels())
    path = table(cache)
    data = bytearray(path.read_bytes())
    if damage == "zeros":
        data[1000:] = bytes(len(data) - 1000)
    elif damage == "short":
        data = data[:2000]
    elif damage == "flip":
        data[2801] ^= 1  # in the last, incomplete word
    else:
        data[18] ^= 1
    path.write_bytes(data)
    assert cache.get(key(0), SHAPE) is None
    cache.put(key(0), pixels())
    np.testing.assert_array_equal(cache.get(key(0), SHAPE), pixels())


def test_it_is_bounded_and_stops_adding(tmp_path):
    cache = make(tmp_path, slots=100)
    for number in range(300):
        cache.put(key(number), pixels(number))
    assert on_disk(tmp_path) <= 100 * SLOT
    kept = [number for number in range(300) if cache.get(key(number), SHAPE) is not None]
    assert 90 <= len(kept) <= 100
    assert kept[:70] == list(range(70))  # what came first stayed
    for number in kept:
        np.testing.assert_array_equal(cache.get(key(number), SHAPE), pixels(number))


def test_the_bound_is_that_of_the_whole_folder(tmp_path):
    cache = make(tmp_path, slots=40)
    for number in range(100):
        cache.put(key(number), pixels(number, (10, 10)))
        cache.put(key(number), pixels(number, SHAPE))
        cache.put(key(number), pixels(number, (60, 60)))
    assert 30 * SLOT < on_disk(tmp_path) <= 40 * SLOT


def test_a_limit_of_nothing_turns_it_off(tmp_path):
    for limit in (0, -1, 100, SLOT - 1):
        cache = ImageCache(tmp_path / "c", limit)
        cache.put(key(0), pixels())
        assert cache.get(key(0), SHAPE) is None
    assert not (tmp_path / "c").exists() or on_disk(tmp_path / "c") == 0


def test_unwanted_entries_give_way_wanted_ones_stay(tmp_path):
    old = make(tmp_path, slots=50)
    for number in range(200):
        old.put(key(number), pixels(number))
    new = make(tmp_path, slots=50)
    wanted = [n for n in range(200) if new.get(key(n), SHAPE) is not None][:20]
    new = make(tmp_path, slots=50)
    for number in wanted:
        assert new.get(key(number), SHAPE) is not None
    for number in range(1000, 1200):
        new.put(key(number), pixels(number))
    for number in wanted:
        np.testing.assert_array_equal(new.get(key(number), SHAPE), pixels(number))
    added = [n for n in range(1000, 1200) if new.get(key(n), SHAPE) is not None]
    assert len(added) >= 20
    assert on_disk(tmp_path) <= 50 * SLOT


def test_tables_nobody_wants_are_removed_for_new_ones(tmp_path):
    old = make(tmp_path, slots=30)
    for number in range(60):
        old.put(key(number), pixels(number, (60, 60)))
    new = make(tmp_path, slots=30)
    for number in range(20):
        new.put(key(number), pixels(number))
    assert all(new.get(key(number), SHAPE) is not None for number in range(20))
    assert on_disk(tmp_path) <= 30 * SLOT


def test_half_a_table_turns_nobody_away(tmp_path):
    cache = make(tmp_path, slots=400)
    for number in range(200):
        cache.put(key(number), pixels(number))
    assert all(cache.get(key(number), SHAPE) is not None for number in range(200))


def test_a_table_that_another_process_removed_is_no_reason_to_stop(tmp_path, caplog):
    cache = make(tmp_path, slots=30)
    cache.put(key(0), pixels())
    cache.put(key(1), pixels(1, (60, 60)))
    for path in tmp_path.iterdir():
        path.unlink()
    for number in range(100):
        cache.put(key(number), pixels(number))
    np.testing.assert_array_equal(cache.get(key(0), SHAPE), pixels())
    assert caplog.records == []


def test_some_of_the_disk_stays_free(tmp_path, monkeypatch):
    usage = module.shutil.disk_usage(tmp_path)
    cache = make(tmp_path, reserve_bytes=usage.free + 2**30)
    cache.put(key(0), pixels())
    assert cache.get(key(0), SHAPE) is None
    assert on_disk(tmp_path) == 0


@pytest.mark.parametrize("call", ["open", "pwritev"])
def test_a_disk_that_cannot_be_written_costs_one_warning(tmp_path, monkeypatch, caplog, call):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, call, fail)
    cache = make(tmp_path)
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            cache.put(key(number), pixels(number))
            assert cache.get(key(number), SHAPE) is None
    assert [record.message for record in caplog.records] == [
        f"The image cache {tmp_path} is off: No space left on device."
    ]


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = make(tmp_path / "file" / "cache")
    cache.put(key(0), pixels())
    assert cache.get(key(0), SHAPE) is None
    assert len(caplog.records) == 1


def write_many(folder, numbers):
    cache = make(folder, slots=40)
    for number in numbers:
        cache.put(key(number), pixels(number))
        found = cache.get(key(number), SHAPE)
        assert found is None or np.array_equal(found, pixels(number))


def test_processes_and_threads_may_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    crowd = [context.Process(target=write_many, args=(tmp_path, range(60))) for _ in range(2)]
    crowd += [threading.Thread(target=write_many, args=(tmp_path, range(60))) for _ in range(3)]
    for member in crowd:
        member.start()
    for member in crowd:
        member.join()
    assert [member.exitcode for member in crowd[:2]] == [0, 0]
    cache = make(tmp_path, slots=40)
    found = {n: cache.get(key(n), SHAPE) for n in range(60)}
    kept = {n: image for n, image in found.items() if image is not None}
    assert len(kept) >= 25
    for number, image in kept.items():
        np.testing.assert_array_equal(image, pixels(number))


def test_it_can_be_sent_to_another_process(tmp_path):
    cache = make(tmp_path)
    cache.put(key(0), pixels())
    copy = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(copy.get(key(0), SHAPE), pixels())
