import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnvgg.data.splits import assign_groups, check_splits, split_manifest, subsample_negatives
from attnvgg.errors import InputError

SIDES = ["train", "val", "test"]


def cases(sizes, labels, **columns):
    """A manifest with groups of these sizes and, group by group, these labels."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    table = {
        "image": [f"/data/{i:06d}.jpg" for i in range(len(group))],
        "label": np.resize(labels, len(group)),
        "group": [f"p{number}" for number in group],
    }
    return pd.DataFrame({**table, **columns})


def many(count=3000, positives=0.05, classes=2, seed=0):
    """Groups of very different sizes, a rare class that clusters in some of them."""
    rng = np.random.default_rng(seed)
    sizes = np.minimum(rng.zipf(1.8, count), 200)
    rate = np.repeat(rng.beta(positives, 1 - positives, count), sizes)
    labels = (rng.random(len(rate)) < rate) * rng.integers(1, classes, len(rate))
    return cases(sizes, labels)


def published(sides):
    return cases([1] * len(sides), [0, 1], split=sides)


fractions_drawn = st.tuples(st.floats(0.2, 1), st.floats(0.05, 0.5), st.floats(0.05, 0.5)).map(
    lambda shares: tuple(share / sum(shares) for share in shares)
)
manifests = st.builds(
    lambda sizes, seed: cases(
        [1, 1, 1, *sizes, 1, 1, 1],
        [0, 0, 0, *np.random.default_rng(seed).integers(0, 2, sum(sizes)), 1, 1, 1],
    ),
    st.lists(st.integers(1, 12), max_size=30),
    st.integers(0, 99),
)


@settings(max_examples=60, deadline=None)
@given(manifests, fractions_drawn, st.integers(0, 2**32 - 1))
def test_no_group_is_split_and_every_side_has_every_class(manifest, fractions, seed):
    split = split_manifest(manifest, fractions, seed)
    pd.testing.assert_frame_equal(split.drop(columns="split"), manifest)
    assert (split.groupby("group")["split"].nunique() == 1).all()
    assert (split.groupby("split")["label"].nunique() == 2).all()
    assert set(split["split"]) == set(SIDES)
    check_splits(split)


@settings(max_examples=30, deadline=None)
@given(manifests, st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_order_of_rows_the_names_of_groups_and_the_place_do_not_matter(manifest, seed, random):
    side = split_manifest(manifest, seed=seed).set_index("image")["split"]
    rows = list(range(len(manifest)))
    random.shuffle(rows)
    other = manifest.iloc[rows].reset_index(drop=True)
    other["group"] = other["group"].map(lambda name: name[::-1])
    other["image"] = other["image"].str.replace("/data", "/elsewhere/data")
    again = split_manifest(other, seed=seed).set_index("image")["split"]
    again.index = again.index.str.replace("/elsewhere/data", "/data")
    pd.testing.assert_series_equal(again.sort_index(), side.sort_index())


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.1, 0.2), (0.8, 0.2, 0), (0.6, 0.2, 0.2), (0.34, 0.33, 0.33)]
)
@pytest.mark.parametrize("classes", [2, 4])
def test_sides_get_their_fraction_of_every_class(fractions, classes):
    manifest = many(classes=classes)
    split = split_manifest(manifest, fractions)
    counts = pd.crosstab(split["split"], split["label"])
    for side, share in zip(SIDES, fractions, strict=True):
        if share:
            target = share * manifest["label"].value_counts().sort_index()
            assert (abs(counts.loc[side] - target) <= np.maximum(2, 0.03 * target)).all()
        else:
            assert side not in counts.index


def test_seeds_differ_and_put_the_largest_patients_on_different_sides():
    manifest = many()
    largest = manifest["group"].value_counts().index[:20]
    splits = [
        split_manifest(manifest, seed=seed).groupby("group")["split"].first() for seed in range(10)
    ]
    assert not splits[0].equals(splits[1])
    sides = pd.concat([split[largest] for split in splits], axis=1)
    assert (sides.nunique(axis=1) > 1).mean() > 0.5
    assert (sides == "test").mean().mean() == pytest.approx(0.2, abs=0.1)


def test_without_groups_every_image_is_its_own():
    manifest = many(200).drop(columns="group")
    split = split_manifest(manifest, (0.5, 0.25, 0.25))
    counts = pd.crosstab(split["split"], split["label"])
    expected = manifest["label"].value_counts().sort_index()
    for side, share in (("train", 0.5), ("val", 0.25), ("test", 0.25)):
        assert (abs(counts.loc[side] - share * expected) <= 1).all()


def test_the_split_takes_its_place_among_the_columns():
    manifest = many(50).assign(sex="female")
    assert list(split_manifest(manifest)) == ["image", "label", "group", "split", "sex"]
    assert list(split_manifest(manifest.drop(columns="group")))[2] == "split"


def test_no_test_set_is_said(caplog):
    caplog.set_level("INFO", "attnvgg")
    split = split_manifest(many(100), (0.8, 0.2, 0))
    assert set(split["split"]) == {"train", "val"}
    assert "no test set" in caplog.text
    check_splits(split)
    caplog.clear()
    split_manifest(many(100))
    assert not caplog.text


@pytest.mark.parametrize(
    "fractions",
    [(0.8, 0.2), (0.7, 0.2, 0.2), (0, 0.5, 0.5), (0.8, 0, 0.2), (1.1, 0.1, -0.2), (70, 10, 20),
     (float("nan"), 0.5, 0.5)],
)  # fmt: skip
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(InputError, match="sum to 1"):
        split_manifest(many(50), fractions)


def test_too_few_groups_of_a_class_are_counted():
    manifest = cases([3, 3, 4, 1, 1], [0] * 10 + [1, 1])
    with pytest.raises(InputError) as caught:
        split_manifest(manifest)
    assert caught.value.offenders == ["class 0: 3 groups", "class 1: 2 groups"]
    check_splits(split_manifest(manifest, (0.8, 0.2, 0)))


def test_few_groups_of_several_classes_are_dealt_out():
    # feasible in few ways only: p0 alone, p1 with p2, p3 with p4
    manifest = cases([3, 2, 1, 2, 1], [0, 1, 2, 0, 1, 2, 0, 2, 1])
    for seed in range(20):
        split = split_manifest(manifest, seed=seed).groupby("group")["split"].first()
        assert split["p1"] == split["p2"]
        assert split["p3"] == split["p4"]
        assert set(split) == set(SIDES)


def test_groups_that_cannot_be_dealt_out_are_refused():
    # every class in three groups, yet two of the three sides would need the only full group
    knot = cases([2, 2, 2, 3], [0, 1, 0, 2, 1, 2, 0, 1, 2])
    with pytest.raises(InputError, match="cannot be dealt out"):
        split_manifest(knot)
    check_splits(split_manifest(knot, (0.5, 0.5, 0)))


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="seed"):
        split_manifest(many(50), seed=-1)


def test_a_huge_patient_does_not_starve_the_other_sides():
    manifest = cases([500, *[1] * 60], [0] * 500 + [0, 1] * 30)
    split = split_manifest(manifest, (0.5, 0.25, 0.25))
    assert split["split"].iloc[0] == "train"
    assert (split.groupby("split")["label"].sum() >= 7).all()


def test_a_complete_published_split_is_kept():
    manifest = published(["val", "val", "train", "train", "test", "test"])
    pd.testing.assert_frame_equal(split_manifest(manifest, (0.2, 0.2, 0.6)), manifest)
    assert split_manifest(manifest) is not manifest


def test_absent_validation_is_carved_from_training_by_group(caplog):
    manifest = many(400)
    manifest["split"] = np.where(
        manifest["group"].map(lambda name: int(name[1:]) % 4 == 0), "test", "train"
    )
    with caplog.at_level("INFO", "attnvgg"):
        split = split_manifest(manifest, (0.6, 0.2, 0.2))
    assert "taken from training" in caplog.text
    was_test = manifest["split"] == "test"
    assert (split.loc[was_test, "split"] == "test").all()
    carved = split[~was_test]
    assert set(carved["split"]) == {"train", "val"}
    assert (carved["split"] == "val").mean() == pytest.approx(0.25, abs=0.02)
    assert carved.groupby("split")["label"].mean().std() < 0.01
    check_splits(split)
    assert set(manifest["split"]) == {"train", "test"}


def test_published_training_and_validation_alone_are_kept(caplog):
    caplog.set_level("INFO", "attnvgg")
    split = split_manifest(published(["train", "train", "val", "val"]))
    assert split["split"].tolist() == ["train", "train", "val", "val"]
    assert "no test set" in caplog.text


@pytest.mark.parametrize(
    "sides",
    [["train"], ["test"], ["val", "test"], ["train", "val", "test", None], ["train", "test", None],
     ["train", "val", "holdout"]],
)  # fmt: skip
def test_other_published_splits_are_refused(sides):
    with pytest.raises(InputError, match="published split"):
        split_manifest(published(sides * 4))


def test_deal_and_draw_have_streams_of_their_own(monkeypatch):
    """Not told apart by zeros at the end of a seed, which NumPy does not count."""
    manifest = many(100)
    real, seeds = np.random.default_rng, []

    def recording(seed):
        seeds.append(seed)
        return real(seed)

    monkeypatch.setattr(np.random, "default_rng", recording)
    for seed in (0, 1234):
        subsample_negatives(split_manifest(manifest, seed=seed), 5, seed=seed)
    states = {tuple(np.random.SeedSequence(seed).generate_state(4)) for seed in seeds}
    plain = {tuple(np.random.SeedSequence(seed).generate_state(4)) for seed in (0, 1234)}
    assert len(seeds) == len(states) == 4
    assert not states & plain


def test_subsampling_touches_negatives_of_training_only(caplog):
    caplog.set_level("INFO", "attnvgg")
    manifest = split_manifest(many(500))
    fewer = subsample_negatives(manifest, 100, seed=3)
    negative = (manifest["split"] == "train") & (manifest["label"] == 0)
    assert f"{negative.sum() - 100} of its {negative.sum()} images of class 0" in caplog.text
    kept = manifest["image"].isin(fewer["image"])
    assert kept[~negative].all()
    assert kept[negative].sum() == 100
    pd.testing.assert_frame_equal(manifest[kept].reset_index(drop=True), fewer)
    shuffled = subsample_negatives(manifest[::-1], 100, seed=3)
    assert set(shuffled["image"]) == set(fewer["image"])
    assert set(subsample_negatives(manifest, 100, seed=4)["image"]) != set(fewer["image"])


def test_subsampling_keeps_what_is_few_and_the_names_of_classes():
    manifest = split_manifest(many(100))
    manifest.attrs["classes"] = ("no", "yes")
    same = subsample_negatives(manifest, 10**6, seed=0)
    pd.testing.assert_frame_equal(same, manifest)
    assert subsample_negatives(manifest, 5, seed=0).attrs["classes"] == ("no", "yes")
    with pytest.raises(InputError, match="At least 1"):
        subsample_negatives(manifest, 0, seed=0)


def test_subsampling_is_for_two_classes():
    with pytest.raises(InputError, match="two classes, not 3"):
        subsample_negatives(split_manifest(many(classes=3)), 5, seed=0)


def test_a_patient_on_two_sides_is_named():
    manifest = published(["train", "train", "val", "val", "test", "test"])
    manifest["group"] = ["a", "b", "c", "b", "c", "d"]
    with pytest.raises(InputError, match="2 groups") as caught:
        check_splits(manifest)
    assert caught.value.offenders == ["b: train, val", "c: test, val"]


@pytest.mark.parametrize(
    ("sides", "labels", "message"),
    [
        (["train"] * 4, [0, 1, 0, 1], "split val is empty"),
        (["val", "val", "test", "test"], [0, 1, 0, 1], "split train is empty"),
        (["train", "train", "val", "val"], [0, 0, 0, 1], "train has only one class, 0"),
        (["train", "train", "val", "val"], [0, 1, 1, 1], "val has only one class, 1"),
        (["train", "val", "test"] * 2, [0, 0, 1, 1, 1, 1], "test has only one class, 1"),
        (["train", "train", "val", "val"], [0, 1, 0, 2], "classes that training lacks"),
    ],
)
def test_useless_splits_are_refused(sides, labels, message):
    manifest = cases([1] * len(sides), labels, split=sides)
    with pytest.raises(InputError, match=message):
        check_splits(manifest)


def test_a_manifest_without_split_is_refused():
    with pytest.raises(InputError, match="no column `split`"):
        check_splits(many(20))


def test_assignment_is_the_best_of_all_where_all_can_be_tried():
    """Against brute force: the greedy deal is within a case or so of the optimum."""
    rng = np.random.default_rng(1)
    fractions = np.array([0.5, 0.25, 0.25])
    for seed in range(5):
        counts = np.concatenate([rng.integers(1, 4, (3, 2)), np.eye(2)[[0, 1, 0, 1, 0]]])
        target = fractions[:, None] * counts.sum(axis=0)

        def distance(sides, counts=counts, target=target):
            have = np.stack([counts[sides == side].sum(axis=0) for side in range(3)])
            return np.inf if (have == 0).any() else ((have - target) ** 2 / target).sum()

        every = np.stack(np.unravel_index(np.arange(3 ** len(counts)), (3,) * len(counts)), axis=1)
        best = min(distance(sides) for sides in every)
        assert distance(assign_groups(counts, fractions, seed)) <= best + 2


def test_sixty_thousand_images_take_a_moment():
    manifest = cases([2] * 30_000, np.random.default_rng(0).random(60_000) < 0.09)
    manifest["label"] = manifest["label"].astype(int)
    start = time.perf_counter()
    check_splits(split_manifest(manifest))
    assert time.perf_counter() - start < 10


# ---------------------------------------------------------------- laboratories


def two_sources(count=400, seed=0):
    """Patients of one to three cases in two laboratories, of which one has far more positives."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, count)
    source = np.repeat(np.where(rng.random(count) < 0.3, "north", "south"), sizes)
    labels = (rng.random(len(source)) < np.where(source == "north", 0.9, 0.2)).astype(int)
    return cases(sizes, labels, source=source)


@pytest.mark.parametrize("seed", range(5))
def test_every_side_gets_its_share_of_each_class_of_each_laboratory(seed):
    fractions = (0.6, 0.15, 0.25)
    split = split_manifest(two_sources(), fractions, seed, within="source")
    check_splits(split)
    for _, rows in split.groupby(["label", "source"]):
        found = rows["split"].value_counts(normalize=True)[SIDES]
        assert np.abs(found.to_numpy() - fractions).max() < 2 / len(rows) + 0.005


def test_without_it_the_laboratories_are_left_to_chance():
    apart = []
    for within in (None, "source"):
        split = split_manifest(two_sources(), (0.6, 0.15, 0.25), 0, within)
        shares = split.groupby("split")["source"].apply(lambda side: (side == "north").mean())
        apart.append(shares.max() - shares.min())
    assert apart[1] < 0.02 < apart[0]


def test_a_pair_that_is_too_rare_for_every_side_is_no_hindrance():
    table = two_sources(60).assign(source=lambda t: ["rare", *t["source"][1:]])
    check_splits(split_manifest(table, (0.6, 0.2, 0.2), 0, within="source"))


def test_a_column_that_is_not_there_and_values_that_are_missing():
    table = two_sources(60)
    plain = table.drop(columns="source")
    pd.testing.assert_frame_equal(
        split_manifest(plain, seed=3, within="source"), split_manifest(plain, seed=3)
    )
    check_splits(split_manifest(table.assign(source=np.nan), seed=3, within="source"))


def test_validation_is_carved_from_training_within_laboratories():
    table = two_sources()
    test = np.isin(table["group"].str[1:].astype(int) % 4, 0)
    split = split_manifest(
        table.assign(split=np.where(test, "test", "train")), (0.7, 0.1, 0.2), 0, within="source"
    )
    rest = split[split["split"] != "test"]
    for _, rows in rest.groupby(["label", "source"]):
        assert abs((rows["split"] == "val").mean() - 0.125) < 2 / len(rows) + 0.005
