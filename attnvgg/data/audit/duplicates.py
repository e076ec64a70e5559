"""Which pictures are copies of one another, and what that does to a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from attnvgg.data.audit.fingerprints import Prints, keys, similarity

# Chosen on 2,000 pictures of the built-in sample, 128 px a side. Over 400 copies (resized by .5 to
# 1.3, quality 25 to 95, mirrored and turned) the least correlation was .972 and the largest
# distance of keys .043; of 2 million pairs of different pictures the largest correlation was .867.
ALIKE = 0.94
RADIUS = 0.07
# Chosen on 3,500 soft ellipses on plain skin with noise. Of 6 million pairs of different ones 826
# were as alike as that, and one of these looked alike, too. Copies had at most 4.5 and 2.5.
LOOK = np.repeat([5.0, 3.0], 3)  # grey levels between two means, two standard deviations
NEIGHBOURS = 16  # looked at, of each picture: where thousands look alike, work stays bounded

AXES = 12  # of the keys: a tree over more of them visits nearly every point of a dense cluster


class Link(NamedTuple):
    """Two rows found to show the same picture, and how."""

    first: int
    second: int
    kind: str
    """bytes: the same file; pixels: the same pixels in another file; near: a changed copy."""
    similarity: float


class Search(NamedTuple):
    """What was found, and where the search stopped short."""

    links: list[Link]
    crowded: int
    """Pictures with more than `NEIGHBOURS` candidates, of which only the closest were compared."""


def find_duplicates(
    files: Sequence[str],
    pixels: Sequence[str],
    prints: Sequence[Prints | None],
    looks: Sequence[Prints],
) -> Search:
    """Return the links between copies; a set of n equal pictures has n - 1 of them.

    Args:
        files: a digest of each file.
        pixels: a digest of each decoded picture.
        prints: its fingerprint; None leaves it out of the search for changed copies.
        looks: its mean colour and contrast; see `fingerprints.look`.
    """
    links = [*_equal(files, "bytes")]
    taken = {link.second for link in links}
    distinct = [row for row in range(len(files)) if row not in taken]
    links += _equal(pixels, "pixels", distinct)
    taken |= {link.second for link in links}
    rows = [row for row in distinct if row not in taken and prints[row] is not None]
    if len(rows) < 2:
        return Search(links, 0)
    kept = np.stack([p for row in rows if (p := prints[row]) is not None])
    pairs, crowded = candidates(keys(kept))
    first, second = (np.stack([looks[row] for row in rows])[side] for side in pairs.T)
    pairs = pairs[(np.abs(first - second) < LOOK).all(axis=1)]
    worth = similarity(kept, pairs)
    links += [
        Link(rows[first], rows[second], "near", float(value))
        for (first, second), value in zip(pairs.tolist(), worth, strict=True)
        if value >= ALIKE
    ]
    return Search(links, crowded)


def candidates(points: NDArray[np.float32]) -> tuple[NDArray[np.int64], int]:
    """Return pairs of close points, (M, 2), each once, and how many points had more than allowed.

    Projected on their principal axes, no two points move apart: nothing within the radius is lost.
    With at most `NEIGHBOURS` pairs a point the work grows like N log N, not like N^2.
    """
    centred = points - points.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, : -AXES - 1 : -1]  # the widest first
    points = centred @ axes
    count = min(NEIGHBOURS + 2, len(points))  # itself, and one more to see that there are more
    tree = cKDTree(points)
    distances, found = tree.query(points, count, distance_upper_bound=RADIUS, workers=-1)
    crowded = int(np.isfinite(distances[:, NEIGHBOURS + 1 :]).any(axis=1).sum())
    rows = np.repeat(np.arange(len(points)), count)
    others = found.ravel()
    there = (others < len(points)) & (others != rows)
    pairs = np.sort(np.stack([rows[there], others[there]], axis=1), axis=1)
    return np.unique(pairs, axis=0), crowded


def duplicate_sets(links: Sequence[Link], cases: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the sets of pictures that links tie together, those across splits first.

    Args:
        links: between rows of `cases`.
        cases: `image`, `label` and, where known, `split` and `group`.
    """
    if not links:
        return []
    ends = np.array([link[:2] for link in links])
    graph = coo_array((np.ones(len(links)), (ends[:, 0], ends[:, 1])), shape=(len(cases),) * 2)
    component = connected_components(graph, directed=False)[1]
    sets = []
    for number in np.unique(component[ends[:, 0]]):
        inside = [link for link in links if component[link.first] == number]
        sets.append(_describe(inside, cases.iloc[np.flatnonzero(component == number)]))
    return sorted(sets, key=lambda found: (not found["across_splits"], not found["label_conflict"]))


def _describe(links: Sequence[Link], members: pd.DataFrame) -> dict[str, Any]:
    kinds = {link.kind for link in links}
    columns = [name for name in ("image", "label", "split", "group") if name in members]
    return {
        "kind": next(kind for kind in ("near", "pixels", "bytes") if kind in kinds),
        "similarity": round(min(link.similarity for link in links), 4),
        "across_splits": "split" in members and members["split"].nunique() > 1,
        "across_groups": "group" in members and members["group"].nunique() > 1,
        "label_conflict": members["label"].nunique() > 1,
        "images": members[columns].to_dict("records"),
    }


def _equal(digests: Sequence[str], kind: str, rows: Sequence[int] | None = None) -> list[Link]:
    first: dict[str, int] = {}
    links = []
    for row in range(len(digests)) if rows is None else rows:
        earliest = first.setdefault(digests[row], row)
        if earliest != row:
            links.append(Link(earliest, row, kind, 1.0))
    return links
