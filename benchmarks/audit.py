"""The audit: does it find planted copies, and only them; how good are its detectors; how fast.

`python benchmarks/run.py audit`. The pictures are of the built-in sample under a seed that had no
part in the choice of any limit. Copies go through a random change each: another size, another JPEG
quality, mirrored or not, turned by a multiple of 90 degrees, all at once. Plain lesions, soft
ellipses on plain skin, are the pictures in which different ones are most alike.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from attnvgg.data.audit.artefacts import NAMES, find_artefacts
from attnvgg.data.audit.duplicates import ALIKE, LOOK, candidates, find_duplicates
from attnvgg.data.audit.fingerprints import FREQUENCY, fingerprint, keys, look, similarity
from attnvgg.data.audit.report import audit_manifest
from attnvgg.data.decoding import read_image
from attnvgg.data.sample import make_sample
from attnvgg.data.sources import load_source
from attnvgg.data.splits import split_manifest

IMAGES, SIDE, PLANTED, PROBED, SEED = 2000, 256, 20, 400, 99
PRINTS = 60_000
DRAWN = {"dark_corners": "vignette", "ruler": "ruler", "ink_or_patch": "ink"}


def changed(picture: np.ndarray[Any, Any], rng: np.random.Generator) -> tuple[bytes, str]:
    """Return a changed copy of a picture as a JPEG, and in words what was done to it."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    scale, quality = rng.uniform(0.5, 1.3), int(rng.integers(25, 95))
    copy = np.rot90(picture, turns)
    copy = copy[:, ::-1] if mirrored else copy
    way = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[rng.integers(3)]
    copy = cv2.resize(np.ascontiguousarray(copy), None, fx=scale, fy=scale, interpolation=way)
    data = cv2.imencode(".jpg", copy[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    words = f"x{scale:.2f}, quality {quality}, turned {90 * turns}{', mirrored' * mirrored}"
    return data.tobytes(), words


def plant(
    manifest: pd.DataFrame, folder: Path, count: int
) -> tuple[pd.DataFrame, set[frozenset[str]]]:
    """Return the manifest with changed copies of `count` training pictures in test."""
    rng = np.random.default_rng(SEED)
    chosen = manifest[manifest["split"] == "train"].sample(count, random_state=SEED)
    rows, pairs = [], set()
    for number, row in enumerate(chosen.to_dict("records")):
        copy = folder / f"copy-{number:02d}.jpg"
        copy.write_bytes(changed(read_image(row["image"]), rng)[0])
        rows.append(row | {"image": str(copy), "split": "test", "group": f"copy-{number}"})
        pairs.add(frozenset((row["image"], str(copy))))
    return pd.concat([manifest, pd.DataFrame(rows)], ignore_index=True), pairs


def copies(manifest: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Return how many planted copies the audit finds, what else, and its time."""
    planted, pairs = plant(manifest, folder, PLANTED)
    began = time.perf_counter()
    report = audit_manifest(planted)
    seconds = time.perf_counter() - began
    found = {
        frozenset(one["image"] for one in each["images"]): each["similarity"]
        for each in report["duplicates"]["sets"]
    }
    return {
        "found": sum(pair in found for pair in pairs),
        "false": sum(pair not in pairs for pair in found),
        "least_alike": min((found[pair] for pair in pairs if pair in found), default=None),
        "leak": report["leak"],
        "milliseconds": 1e3 * seconds / len(planted),
    }


def plain_lesion(rng: np.random.Generator, side: int) -> np.ndarray[Any, Any]:
    """Return a soft ellipse on plain skin, with the noise of a camera and of JPEG."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    x, y = x - rng.normal(0, 0.03), y - rng.normal(0, 0.03)
    turn, (long, short) = rng.uniform(0, np.pi), rng.uniform(0.08, 0.25, 2)
    u = (x * np.cos(turn) + y * np.sin(turn)) / long
    v = (y * np.cos(turn) - x * np.sin(turn)) / short
    inside = 1 / (1 + np.exp((np.hypot(u, v) - 1) / rng.uniform(0.05, 0.2)))[..., None]
    skin = rng.normal((215, 170, 150), 12)
    lesion = rng.normal((120, 75, 55), 15)
    picture = skin + (lesion - skin) * inside + rng.normal(0, 4 * side / 256, (side, side, 3))
    pixels = np.clip(picture, 0, 255).astype(np.uint8)
    return decoded(cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


def decoded(data: Any) -> np.ndarray[Any, Any]:
    """Return the pixels of a JPEG."""
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))


def plain_copies() -> dict[str, float]:
    """Return what is found among plain lesions and a changed copy of each fifth of them."""
    rng = np.random.default_rng(SEED)
    pictures = [plain_lesion(rng, SIDE // 2) for _ in range(IMAGES)]
    copies = [decoded(changed(picture, rng)[0]) for picture in pictures[:PROBED]]
    everything = pictures + copies
    prints, looks = ([read(one) for one in everything] for read in (fingerprint, look))
    names = [str(row) for row in range(len(everything))]
    found = {link[:2] for link in find_duplicates(names, names, prints, looks).links}
    planted = {(row, IMAGES + row) for row in range(PROBED)}
    blind = find_duplicates(names, names, prints, [looks[0]] * len(names)).links
    apart = np.abs(np.subtract(looks[:PROBED], looks[IMAGES:]))
    return {
        "found": len(found & planted),
        "false": sum(second < IMAGES for _, second in found),
        "false_without_look": sum(link.second < IMAGES for link in blind),
        "farthest_means": float(apart[:, :3].max()),
        "farthest_contrasts": float(apart[:, 3:].max()),
    }


def margins(manifest: pd.DataFrame) -> dict[str, float]:
    """Return how alike changed copies are at least, and different pictures at most."""
    rng = np.random.default_rng(SEED)
    pictures = [read_image(path) for path in manifest["image"]]
    prints = [fingerprint(picture) for picture in pictures]
    kept = np.stack([one for one in prints if one is not None])
    probes = []
    for picture in pictures[:PROBED]:
        probes.append(fingerprint(decoded(changed(picture, rng)[0])))
    both = np.concatenate([kept, np.stack([one for one in probes if one is not None])])
    pairs = np.stack([np.arange(PROBED), len(kept) + np.arange(PROBED)], axis=1)
    apart = np.linalg.norm(keys(both)[pairs[:, 0]] - keys(both)[pairs[:, 1]], axis=1)
    others = np.stack(np.triu_indices(len(kept), 1), axis=1)
    return {
        "least_alike_copies": float(similarity(both, pairs).min()),
        "farthest_keys": float(apart.max()),
        "most_alike_others": float(similarity(kept, others).max()),
    }


def detectors(root: Path, manifest: pd.DataFrame) -> pd.DataFrame:
    """Return recall and precision of the detectors, on pictures whose painter tells the truth."""
    truth = pd.read_csv(root / "sample_truth.csv").set_index("image_id")
    truth = truth.loc[[Path(path).stem for path in manifest["image"]]]
    found = pd.DataFrame([find_artefacts(read_image(path, 192)) for path in manifest["image"]])
    rows = []
    for name in NAMES:
        drawn = truth[DRAWN[name]].to_numpy(bool) if name in DRAWN else np.zeros(len(found), bool)
        shown = found[name].to_numpy()
        rows.append(
            {
                "detector": name,
                "drawn": int(drawn.sum()),
                "recall": (shown & drawn).sum() / drawn.sum() if drawn.any() else np.nan,
                "false alarms": (shown & ~drawn).sum() / (~drawn).sum(),
            }
        )
    return pd.DataFrame(rows)


def clouds() -> dict[str, Callable[[np.random.Generator], np.ndarray[Any, Any]]]:
    """Return ways to draw many fingerprints: unlike each other, or thousands much alike."""
    spectrum = np.where(FREQUENCY > 0, np.minimum(1.0, 4 / np.maximum(FREQUENCY, 1) ** 2), 0)

    def spread(rng: np.random.Generator) -> np.ndarray[Any, Any]:
        return rng.standard_normal((PRINTS, 16, 16), np.float32) * spectrum

    def crowds(rng: np.random.Generator) -> np.ndarray[Any, Any]:
        centres = rng.standard_normal((12, 16, 16)) * spectrum
        return centres[rng.integers(12, size=PRINTS)] + 0.1 * spread(rng)

    def crowd(rng: np.random.Generator) -> np.ndarray[Any, Any]:
        return rng.standard_normal((16, 16)) * spectrum + 0.05 * spread(rng)

    return {"all unlike": spread, "12 crowds of 5,000": crowds, "one crowd": crowd}


def searches() -> dict[str, tuple[float, int]]:
    """Return the seconds and the pairs compared of a search among `PRINTS` fingerprints."""
    found = {}
    for name, draw in clouds().items():
        prints = np.asarray(draw(np.random.default_rng(SEED)), np.float32)
        prints /= np.linalg.norm(prints, axis=(1, 2), keepdims=True)
        began = time.perf_counter()
        pairs, _ = candidates(keys(prints))
        similarity(prints, pairs)
        found[name] = (time.perf_counter() - began, len(pairs))
    return found


def main() -> None:
    """Print the figures."""
    for name, (seconds, pairs) in searches().items():
        print(f"  search of {PRINTS:,} fingerprints, {name:<18} {seconds:5.1f} s, {pairs:,} pairs")
    plain = plain_copies()
    print(
        f"  {IMAGES} plain lesions: found {plain['found']} of {PROBED} changed copies, false "
        f"{plain['false']} (by fingerprints alone {plain['false_without_look']})\n"
        f"  looks of copies: means {plain['farthest_means']:.1f}, contrasts "
        f"{plain['farthest_contrasts']:.1f} grey levels apart at most, limits {LOOK[::3]}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = make_sample(folder / "sample", IMAGES, SEED, size=SIDE)
        manifest = split_manifest(load_source("kaggle", root))
        found, apart = copies(manifest, folder), margins(manifest)
        table = detectors(root, manifest)
    print(f"audit: {IMAGES} synthetic pictures of {SIDE} px, {PLANTED} changed copies")
    print(f"  found {found['found']}, false {found['false']}, leak {found['leak']}")
    print(
        f"  alike: {PROBED} copies >= {apart['least_alike_copies']:.3f}, limit {ALIKE}, other pairs"
        f" <= {apart['most_alike_others']:.3f}; keys of copies <= {apart['farthest_keys']:.3f}"
    )
    print(f"  {found['milliseconds']:.1f} ms an image: 60,000 in {found['milliseconds']:.0f} min")
    print("\n".join(f"  {line}" for line in table.round(3).to_string(index=False).splitlines()))


if __name__ == "__main__":
    main()
