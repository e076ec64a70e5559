"""Sets of copies: all of them, nothing else, and bounded work where all look alike."""

import numpy as np
import pandas as pd
import pytest

from attnvgg.data.audit import duplicates
from attnvgg.data.audit.duplicates import RADIUS, Link, candidates, duplicate_sets, find_duplicates
from attnvgg.data.audit.fingerprints import fingerprint, look, similarity
from benchmarks.audit import plain_lesion
from tests.data.audit.conftest import changed, decoded


def drawn(count, spread=1.0, seed=0):
    """Return `count` fingerprints around one, by `spread`."""
    rng = np.random.default_rng(seed)
    prints = rng.normal(size=(16, 16)) * (spread < 1) + spread * rng.normal(size=(count, 16, 16))
    prints[:, 0, 0] = 0
    return (prints / np.linalg.norm(prints, axis=(1, 2), keepdims=True)).astype(np.float32)


SAME_LOOK = [np.zeros(6, np.float32)] * 50


def test_candidates_are_those_that_a_look_at_all_pairs_finds():
    points = np.random.default_rng(0).uniform(0, 0.1, (300, 3)).astype(np.float32)
    spread = np.linalg.norm(points[:, None] - points[None], axis=2) < 0.012
    pairs, crowded = candidates(np.pad(points, ((0, 0), (0, 24))) * RADIUS / 0.012)
    assert crowded == 0
    assert set(map(tuple, pairs.tolist())) == set(zip(*np.nonzero(np.triu(spread, 1)), strict=True))
    assert len(pairs) > 50


def test_the_work_is_bounded_where_all_look_alike():
    prints = drawn(500, spread=0.02)
    pairs, crowded = candidates(duplicates.keys(prints))
    assert crowded == 500
    assert len(pairs) <= 500 * (duplicates.NEIGHBOURS + 1)


def test_a_copy_is_found_in_a_crowd():
    """Its neighbours are many, but none is as close as the original."""
    prints = drawn(500, spread=0.02)
    prints[499] = prints[7].T
    pairs, _ = candidates(duplicates.keys(prints))
    assert [7, 499] in pairs.tolist()


def test_each_kind_of_copy_is_called_by_its_name():
    prints = [*drawn(5), None]
    prints[4] = prints[0]
    search = find_duplicates(
        ["a", "b", "a", "c", "d", "e"], ["p", "q", "p", "q", "r", "s"], prints, SAME_LOOK
    )
    assert [link[:3] for link in search.links] == [
        (0, 2, "bytes"),
        (1, 3, "pixels"),
        (0, 4, "near"),
    ]
    assert search.links[2].similarity == pytest.approx(1)


@pytest.mark.parametrize(("place", "apart"), [(1, 5), (4, 3)])
def test_what_differs_in_colour_or_contrast_is_no_copy(place, apart):
    prints, looks = np.repeat(drawn(1), 2, axis=0), np.zeros((2, 6), np.float32)
    for difference, found in ((apart - 0.5, 1), (apart, 0)):
        looks[1, place] = difference
        assert len(find_duplicates(["a", "b"], ["p", "q"], list(prints), list(looks))[0]) == found


def test_different_plain_lesions_are_no_copies_of_one_another():
    """Soft ellipses on plain skin: the outline of some is the same, their colours are not."""
    rng = np.random.default_rng(0)
    pictures = [plain_lesion(rng, 64) for _ in range(400)]
    pictures += [decoded(changed(pictures[row], row)) for row in range(20)]
    names = [str(row) for row in range(420)]
    prints, looks = ([read(one) for one in pictures] for read in (fingerprint, look))
    pairs, _ = candidates(duplicates.keys(np.stack(prints)))
    others = pairs[pairs[:, 1] < 400]
    assert (similarity(np.stack(prints), others) >= duplicates.ALIKE).sum() > 5
    found = find_duplicates(names, names, prints, looks).links
    assert {link[:2] for link in found} == {(row, 400 + row) for row in range(20)}


def test_many_equal_files_make_one_set_and_few_links():
    search = find_duplicates(["a"] * 50, ["p"] * 50, list(drawn(50)), SAME_LOOK)
    assert len(search.links) == 49
    table = pd.DataFrame({"image": [f"{i}.jpg" for i in range(50)], "label": 0, "split": "train"})
    (found,) = duplicate_sets(search.links, table)
    assert len(found["images"]) == 50
    assert not found["across_splits"] | found["across_groups"] | found["label_conflict"]


def test_sets_say_what_is_wrong_with_them_the_worst_first():
    table = pd.DataFrame(
        {
            "image": [f"{i}.jpg" for i in range(7)],
            "label": [0, 0, 0, 1, 1, 1, 0],
            "split": ["train", "train", "val", "val", "train", "test", "train"],
            "group": ["a", "a", "b", "c", "d", "d", "e"],
        }
    )
    links = [Link(0, 1, "bytes", 1.0), Link(2, 3, "pixels", 1.0), Link(4, 5, "near", 0.95)]
    leak, conflict, harmless = duplicate_sets(links, table)
    assert [row["image"] for row in leak["images"]] == ["4.jpg", "5.jpg"]
    assert (leak["kind"], leak["similarity"]) == ("near", 0.95)
    assert leak["across_splits"]
    assert not leak["across_groups"]
    assert conflict["label_conflict"]
    assert conflict["across_groups"]
    assert not harmless["across_splits"] | harmless["label_conflict"]


def test_nothing_to_compare():
    assert find_duplicates([], [], [], []) == ([], 0)
    assert find_duplicates(["a"], ["p"], [None], SAME_LOOK) == ([], 0)
    assert duplicate_sets([], pd.DataFrame({"image": [], "label": []})) == []
