"""Maps of slides end to end: a planted tile is found, and what is drawn is what the tables say."""

import json
import os
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.visualize import main as draw
from attnvgg.data.slide_writer import write_slide
from attnvgg.deploy.feature_settings import origin_of
from attnvgg.explain.overlays import jet

pytest.importorskip("openslide")

WIDTH, HEIGHT, SIDE, STEP = 512, 384, 64, 32  # level-0 pixels; tiles overlap by half
FEATURES = 6
GRID = [(x, y) for y in range(96, 288, STEP) for x in range(64, 288, STEP)]
PLANTED = GRID.index((160, 192))


def write_bag(path, label, name=None, width=FEATURES, grid=GRID, planted=PLANTED, **attributes):
    """A feature file of a slide, with one tile that tells, in the names of TRIDENT and ours."""
    rng = np.random.default_rng(sum(map(ord, path.stem)))
    values = rng.normal(size=(len(grid), width)).astype(np.float32)
    values[planted] += 6 * label
    said = {"patch_size": 32, "patch_size_level0": SIDE, "encoder": "toy@1", "name": name}
    said |= {"level0_width": WIDTH, "level0_height": HEIGHT, **attributes}
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = values, np.array(grid)
        file.attrs.update({key: value for key, value in said.items() if value is not None})


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Slides and the features of 36 of them, with a table of their labels; read only."""
    folder = tmp_path_factory.mktemp("slides")
    (folder / "bags").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    rows = []
    for number in range(36):
        name = f"s{number:02d}"
        write_bag(folder / "bags" / f"{name}.h5", number % 2, name)
        rows.append({"slide_id": name, "label": number % 2})
    write_slide(folder / "s00.tiff", picture, mpp=0.5, levels=3, factor=2)
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def options(bag_options, from_table, slides):
    """The options of a small run on those features."""
    table = [*bag_options, *from_table(slides / "labels.csv"), "--data.classes=[benign,malignant]"]
    return [*table, "--model.encoder=identity", "--epochs=8", "--optim.lr=0.1", "--batch_size=2"]


@pytest.fixture(scope="module")
def run(run_of, options):
    """A finished run; read only."""
    return run_of(*options)


@pytest.fixture
def slide_of(slides, tmp_path):
    """Return a function that gives a slide any name."""

    def make(name):
        (tmp_path / "scans").mkdir(exist_ok=True)
        return shutil.copy(slides / "s00.tiff", tmp_path / "scans" / f"{name}.tiff")

    return make


@pytest.fixture
def map_of(slide_of, tmp_path, capsys, run):
    """Return a function that draws a slide into a folder of its own."""

    def attempt(name, *words, of=run, code=0):
        out = tmp_path / "out" / name
        done = draw([str(of), f"--slide={slide_of(name)}", f"--output={out}", *map(str, words)])
        said = capsys.readouterr()
        assert done == code, said.err
        return out, said.out if code == 0 else said.err

    return attempt


def chosen(run, label):
    """The name of a test slide of a label, and its row of the predictions."""
    table = pd.read_csv(run / "predictions.csv")
    rows = table[(table["split"] == "test") & (table["label"] == label)]
    row = rows.loc[rows["probability"].idxmax() if label else rows["probability"].idxmin()]
    return row["image"].rsplit("/", 1)[1].removesuffix(".h5"), row


def features_of(out):
    return json.loads((out / "map.geojson").read_text())["features"]


def as_map(features):
    """Attention times tiles, (HEIGHT, WIDTH): the mean over the squares that a pixel is in."""
    total, count = np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))
    for one in features:
        ring = np.array(one["geometry"]["coordinates"][0])
        (left, top), (right, low) = ring.min(axis=0), ring.max(axis=0)
        total[top:low, left:right] += one["properties"]["measurements"]["attention x tiles"]
        count[top:low, left:right] += 1
    return np.where(count, total / np.maximum(count, 1), np.nan)


@pytest.mark.parametrize("label", [0, 1])
def test_the_probability_is_that_of_the_predictions(run, map_of, label):
    name, row = chosen(run, label)
    out, said = map_of(name)
    truth = ("benign", "malignant")[label]
    assert f"{name}.tiff: p(malignant) = {row['probability']:.4f}, called" in said
    assert f"(truth: {truth})" in said
    assert "changed since" not in said
    instances = pd.read_csv(run / "instances.csv").set_index("image").loc[row["image"]]
    weights = [one["properties"]["measurements"]["attention"] for one in features_of(out)]
    np.testing.assert_allclose(weights, instances["weight"], rtol=1e-5)
    corners = [tuple(one["geometry"]["coordinates"][0][0]) for one in features_of(out)]
    assert corners == GRID


def test_the_planted_tile_is_where_every_file_says(run, map_of, slides, tmp_path):
    """To the pixel: first in the GeoJSON, hottest in the TIFF, the first of the pictures."""
    import openslide

    name, _ = chosen(run, 1)
    x, y = GRID[PLANTED]
    mask = np.zeros((HEIGHT // 4, WIDTH // 4), np.uint8)
    mask[y // 4 : (y + SIDE) // 4, x // 4 : (x + SIDE) // 4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out, said = map_of(name, "--top_k=3", f"--mask={tmp_path / 'mask.png'}")
    assert "Of the tile of most weight 100 % lie in the region of --mask." in said
    first = min(features_of(out), key=lambda one: one["properties"]["measurements"]["rank"])
    assert first["geometry"]["coordinates"][0][0] == [x, y]
    assert first["properties"]["classification"]["name"] == "Top 3"
    with openslide.OpenSlide(out / "map.tiff") as found:
        assert found.dimensions == (WIDTH, HEIGHT)
        painted = np.asarray(found.read_region((0, 0), 0, found.dimensions))[..., :3]
        assert float(found.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-6)
    relative = as_map(features_of(out))
    hottest = np.argwhere(relative == np.nanmax(relative))
    assert (hottest >= (y, x)).all()
    assert (hottest < (y + SIDE, x + SIDE)).all()
    places = 0.5 + np.log2(relative).clip(-4, 4) / 8
    expected = jet()[np.rint(255 * np.nan_to_num(places)).astype(int), 0].astype(int)
    expected[np.isnan(relative)] = 255
    assert (
        np.abs(painted - expected).max() <= 4
    )  # a step of the scale: the map has single precision
    pictures = sorted((out / "tiles").iterdir())
    assert [path.name[:3] for path in pictures] == ["01_", "02_", "03_"]
    assert pictures[0].name == f"01_x{x}_y{y}.png"
    with openslide.OpenSlide(slides / "s00.tiff") as slide, Image.open(pictures[0]) as tile:
        level = np.asarray(slide.read_region((x, y), 1, (32, 32)))[..., :3]
        np.testing.assert_array_equal(np.asarray(tile), level)
    with Image.open(out / "map.png") as figure:
        assert figure.width > 1000


def test_a_slide_goes_into_its_run(run, slide_of, tmp_path, capsys):
    name, _ = chosen(run, 1)
    shutil.copytree(run, tmp_path / "a")
    assert draw([str(tmp_path / "a"), f"--slide={slide_of(name)}"]) == 0
    assert f"{tmp_path}/a/slides/{name}/" in capsys.readouterr().out
    found = sorted(path.name for path in (tmp_path / "a" / "slides" / name).iterdir())
    assert found == ["map.geojson", "map.png", "map.tiff", "tiles"]


def test_fewer_tiles_replace_those_of_before(run, map_of):
    name, _ = chosen(run, 1)
    assert len(list((map_of(name)[0] / "tiles").iterdir())) == 8
    assert len(list((map_of(name, "--top_k=2")[0] / "tiles").iterdir())) == 2


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_level_is_that_of_the_tiff(run, map_of, level):
    import openslide

    out, _ = map_of(chosen(run, 0)[0], f"--level={level}", "--slide_mpp=0.25")
    with openslide.OpenSlide(out / "map.tiff") as found:
        assert found.dimensions == (WIDTH >> level, HEIGHT >> level)
        mpp = float(found.properties["openslide.mpp-x"])
        assert mpp == pytest.approx(0.25 * 2**level, rel=1e-6)


def test_a_slide_that_is_not_in_the_run(map_of, tmp_path):
    write_bag(tmp_path / "anything.h5", 1, "stranger")
    _, said = map_of("stranger", f"--features={tmp_path / 'anything.h5'}")
    assert "called malignant (not in the run, so its truth is unknown)" in said


@pytest.fixture
def captions(monkeypatch):
    """What stands below the figures that would be written."""
    seen = []
    monkeypatch.setattr(
        "attnvgg.cli.visualize_slide.save_slide",
        lambda path, case, caption, **_: seen.append(caption),
    )
    return seen


def test_a_slide_that_the_model_was_trained_on_is_called_so(run, map_of, captions):
    manifest = pd.read_csv(run / "manifest.csv")
    for split, words in {"train": "TRAINED on", "val": "validated on", "test": "tested on"}.items():
        image = manifest[manifest["split"] == split]["image"].iloc[0]
        map_of(image.rsplit("/", 1)[1].removesuffix(".h5"))
        assert f"The model was {words} this slide." in captions[-1]


def test_several_seeds_are_averaged(run_of, options, map_of):
    run = run_of(*options, "--epochs=2", "--seeds=2")
    name, row = chosen(run, 1)
    out, said = map_of(name, of=run)
    assert f"p(malignant) = {row['probability']:.4f}" in said
    instances = pd.read_csv(run / "instances.csv").set_index("image").loc[row["image"]]
    weights = [one["properties"]["measurements"]["attention"] for one in features_of(out)]
    np.testing.assert_allclose(weights, instances["weight"], rtol=1e-5)


@pytest.mark.parametrize("pool", ["multi_branch", "noisy_and"])
def test_other_pools(run_of, options, map_of, pool):
    """Of several branches the mean is drawn; a pool of logits has probabilities of tiles."""
    run = run_of(*options, "--epochs=2", f"--model.pool={pool}")
    name, row = chosen(run, 1)
    out, said = map_of(name, of=run)
    assert f"p(malignant) = {row['probability']:.4f}" in said
    table = pd.read_csv(run / "instances.csv").set_index("image").loc[row["image"]]
    columns = [key for key in table if key.startswith(("weight", "probability"))]
    key = "probability" if pool == "noisy_and" else "attention"
    found = [one["properties"]["measurements"][key] for one in features_of(out)]
    np.testing.assert_allclose(found, table[columns].mean(axis=1), rtol=1e-5)


def test_several_classes_share_one_attention(
    bag_options, from_table, run_of, map_of, tmp_path, captions
):
    (tmp_path / "bags").mkdir()
    rows = [{"slide_id": f"t{n:02d}", "label": n % 3} for n in range(36)]
    for row in rows:
        write_bag(tmp_path / "bags" / f"{row['slide_id']}.h5", row["label"], row["slide_id"])
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    run = run_of(
        *bag_options, *from_table(tmp_path / "labels.csv"), "--model.encoder=identity",
        "--data.classes=[none,some,much]",
    )  # fmt: skip
    row = pd.read_csv(run / "predictions.csv").iloc[-1]
    name = row["image"].rsplit("/", 1)[1].removesuffix(".h5")
    values = row[["probability_0", "probability_1", "probability_2"]].to_numpy(float)
    _, said = map_of(name, of=run)
    called = ("none", "some", "much")[values.argmax()]
    assert f"p({called}) = {values.max():.4f}, called {called}" in said
    assert "one attention for all 3 classes" in captions[0]


def test_clams_files_say_the_size_of_tiles_in_their_own_way(map_of, tmp_path, run):
    """Level and downsample instead of level-0 pixels; nothing at all: the step of the grid."""
    name, _ = chosen(run, 1)
    path, plain = tmp_path / "clam.h5", {"patch_size_level0": None, "encoder": None}
    write_bag(path, 1, None, downsample=[2.0, 2.0], patch_level=1, **plain)
    out, _ = map_of(name, f"--features={path}")
    assert features_of(out)[0]["geometry"]["coordinates"][0][2] == [
        GRID[0][0] + 64,
        GRID[0][1] + 64,
    ]
    write_bag(path, 1, None, patch_size=None, **plain)
    out, said = map_of(name, f"--features={path}")
    assert "taken as 32 px" in said
    assert features_of(out)[0]["geometry"]["coordinates"][0][2] == [
        GRID[0][0] + 32,
        GRID[0][1] + 32,
    ]


def test_each_piece_of_tissue_has_a_grid_of_its_own(map_of, tmp_path, run):
    """As CLAM cuts them: one grid begins three pixels to the right of the other."""
    grid = [(x, y) for y in (0, 32) for x in (0, 32, 64)]
    grid += [(x + 99, y + 67) for x, y in grid]
    name, _ = chosen(run, 1)
    write_bag(
        tmp_path / "clam.h5", 1, grid=grid, planted=0,
        patch_size=None, patch_size_level0=None, encoder=None,
    )  # fmt: skip
    _, said = map_of(name, f"--features={tmp_path / 'clam.h5'}")
    assert "taken as 32 px" in said


def test_changed_features_are_noticed(map_of, tmp_path, run):
    name, _ = chosen(run, 1)
    write_bag(tmp_path / "new.h5", 0, name)
    _, said = map_of(name, f"--features={tmp_path / 'new.h5'}")
    assert "slide, tiles or features have changed since" in said


def refuse(said, *parts):
    """One sentence, and no traceback."""
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert said.endswith(".\n")
    for part in parts:
        assert part in said


def test_features_that_do_not_fit(map_of, tmp_path, run):
    name, _ = chosen(run, 1)
    path = tmp_path / "f.h5"

    def refused(*parts):
        refuse(map_of(name, f"--features={path}", code=2)[1], *parts)

    write_bag(path, 1, name, width=FEATURES + 1)
    refused("holds 7 features a tile, but the model takes 6", "another encoder")
    write_bag(path, 1, name, encoder="other@2")
    refused("of the encoder 'other@2'", "those of the run are of the encoder 'toy@1'")
    write_bag(path, 1, name, patch_size=64)
    refused("tiles of 64 px, but those of the run are", "tiles of 32 px")
    write_bag(path, 1, name, slide_origin="7 bytes, abc")
    refused("of another slide that is called", name)
    write_bag(path, 1, "another")
    refused(f"holds the features of another, not of {name}")
    write_bag(path, 1, name, level0_width=4096)
    refused("of a slide of 4096 x 384 px", f"has {WIDTH} x {HEIGHT}")
    write_bag(path, 1, None, grid=[(9000, 0), (0, 0)], planted=0, level0_width=None)
    refused("1 of the 2 tiles lie beyond", "they are of another slide")
    np.save(path.with_suffix(".npy"), np.zeros((3, FEATURES), np.float32))
    path = path.with_suffix(".npy")
    refused("has no coords")


def test_another_slide_of_the_name_has_no_truth(run_of, options, slides, map_of, tmp_path):
    """As the feature file of the run's slide tells; a copy of that slide keeps its truth."""
    run = run_of(*options, "--epochs=1")
    name, _ = chosen(run, 1)
    own = slides / "bags" / f"{name}.h5"
    origin = origin_of(slides / "s00.tiff")
    for said_origin, said in ((origin, "truth: malignant"), ("7 bytes, abc", "truth is unknown")):
        shutil.copy(own, tmp_path / "new.h5")
        with h5py.File(own, "r+") as file:
            file.attrs["slide_origin"] = said_origin
        try:
            assert said in map_of(name, f"--features={tmp_path / 'new.h5'}", of=run)[1]
        finally:
            shutil.copy(tmp_path / "new.h5", own)


def test_features_that_have_gone_are_asked_for(run, map_of, slides, tmp_path):
    name, row = chosen(run, 1)
    own = slides / "bags" / f"{name}.h5"
    own.rename(tmp_path / "moved.h5")
    try:
        refuse(map_of(name, code=2)[1], f"{own} is gone: put it back", "--features")
        assert f"{row['probability']:.4f}" in map_of(name, f"--features={tmp_path / 'moved.h5'}")[1]
    finally:
        (tmp_path / "moved.h5").rename(own)


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        ((128, 96), True),
        ((32, 25), True),
        ((127, 97), True),
        ((96, 128), False),
        ((128, 99), False),
    ],
)
def test_a_mask_has_the_shape_of_the_slide(run, map_of, tmp_path, size, fits):
    Image.new("L", size).save(tmp_path / "mask.png")
    said = map_of(chosen(run, 1)[0], f"--mask={tmp_path / 'mask.png'}", code=0 if fits else 2)[1]
    if fits:
        assert "The region of --mask is empty" in said
    else:
        refuse(said, f"mask.png is {size[0]} x {size[1]} px", f"{WIDTH} x {HEIGHT}")


def test_no_features_and_no_way_to_make_them(map_of):
    refuse(map_of("stranger", code=2)[1], "has no features of stranger", "--features")


def test_slides_that_cannot_be(run, slides, tmp_path, capsys, map_of):
    def refused(*words):
        assert draw([str(word) for word in words]) == 2
        message = capsys.readouterr().err
        refuse(message)
        return message

    assert "does not exist" in refused(run, f"--slide={tmp_path / 'none.tiff'}")
    (tmp_path / "text.tiff").write_text("not a slide")
    assert "is not a slide" in refused(run, f"--slide={tmp_path / 'text.tiff'}")
    name, _ = chosen(run, 1)
    assert "levels 0 to 2, not 3" in map_of(name, "--level=3", code=2)[1]
    for count in (0, -3, 11):
        said = refused(run, f"--slide={tmp_path / 'none.tiff'}", f"--top_k={count}")
        assert f"--top_k {count}: must be from 1 to 10" in said
    (tmp_path / "map.png").touch()
    words = [f"--slide={slides / 's00.tiff'}", f"--output={tmp_path / 'map.png'}"]
    assert "must be a folder" in refused(run, *words)
    assert "give one with --slide" in refused(run, "--level=1")
    assert "give one with --slide" in refused(run, f"--features={slides / 'bags' / 's00.h5'}")


def test_runs_without_slides(
    trained_bags, trained, photo_options, run_of, slides, capsys, pictures
):
    slide = f"--slide={slides / 's00.tiff'}"
    for words, part in (
        ([trained_bags], "has bags of digits"),
        ([trained], "classifies images"),
        ([run_of(*photo_options, "--epochs=1")], "has pictures, not slides, as bags"),
        ([pictures.parent / "00.png", f"--model={trained}"], "give its folder, and no images"),
    ):
        assert draw([*map(str, words), slide]) == 2
        refuse(capsys.readouterr().err, part)


def test_a_pool_that_says_nothing_of_tiles(run_of, options, map_of):
    run = run_of(*options, "--epochs=1", "--model.pool=mean")
    refuse(map_of(chosen(run, 1)[0], of=run, code=2)[1], "The pool mean has no attention")


@pytest.fixture(scope="module")
def biopsies(tmp_path_factory):
    """Slides of real tissue in the layout of PANDA, three of each grade."""
    from skimage.data import immunohistochemistry

    folder, tissue = tmp_path_factory.mktemp("panda"), immunohistochemistry()
    (folder / "train_images").mkdir()
    rows = []
    for number in range(18):
        picture = np.full((900, 1100, 3), 245, np.uint8)
        shifted = np.roll(tissue, 40 * number, axis=1)
        picture[200:712, 60:572], picture[300:812, 572:1084] = shifted, shifted[::-1]
        picture[420:640, 600:820] //= 1 + number % 6
        name = f"b{number:02d}"
        write_slide(folder / "train_images" / f"{name}.tiff", picture, mpp=0.5, levels=3, factor=4)
        rows.append({"image_id": name, "isup_grade": number % 6, "data_provider": "k"})
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    return folder


@pytest.mark.parametrize("labels", ["binary", "isup"])
def test_panda_is_cut_as_in_training(
    biopsies, bag_options, run_of, tmp_path, capsys, captions, labels
):
    """The same tiles at the same places, the same weights, the same probability."""
    run = run_of(
        *bag_options, "--data.source=panda", f"--data.root={biopsies}", f"--data.labels={labels}",
        f"--data.tiles={tmp_path / 'tiles'}", "--data.image_size=32", "--data.workers=0",
        "--model.encoder=mlp", "--epochs=1", "--data.fractions=[0.34,0.33,0.33]", "--batch_size=2",
    )  # fmt: skip
    table = pd.read_csv(run / "predictions.csv")
    for row in table.groupby("split").head(2).to_dict("records"):
        name = row["image"].rsplit("/", 1)[1]
        capsys.readouterr()
        out = tmp_path / "out" / name
        slide = biopsies / "train_images" / f"{name}.tiff"
        assert draw([str(run), f"--slide={slide}", f"--output={out}"]) == 0
        said = capsys.readouterr().out
        values = [row[key] for key in row if key.startswith("probability")]
        quoted = values[0] if labels == "binary" else max(values)
        assert f" = {quoted:.4f}, called" in said
        assert "changed since" not in said
        weights = [one["properties"]["measurements"]["attention"] for one in features_of(out)]
        instances = pd.read_csv(run / "instances.csv").set_index("image").loc[row["image"]]
        np.testing.assert_allclose(weights, instances["weight"], rtol=1e-4)
        coords = pd.read_csv(tmp_path / "tiles" / name / "coords.csv")
        for one, (x, y, side) in zip(
            features_of(out), coords[["x", "y", "side"]].to_numpy(), strict=True
        ):
            corner, *_, far = one["geometry"]["coordinates"][0][:3]
            assert corner == [max(x, 0), max(y, 0)]
            assert far == [min(x + side, 1100), min(y + side, 900)]
        first = next((out / "tiles").glob("01_*.png"))
        best = coords["file"].iloc[int(np.argmax(weights))]
        with Image.open(first) as one, Image.open(tmp_path / "tiles" / name / best) as other:
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_run_outlives_its_tiles(biopsies, bag_options, run_of, tmp_path, capsys, captions):
    """They are cut again where they were; a slide is drawn without them."""
    root, tiles = tmp_path / "root", tmp_path / "tiles"
    shutil.copytree(biopsies, root)
    run = run_of(
        *bag_options, "--data.source=panda", f"--data.root={root}", f"--data.tiles={tiles}",
        "--data.image_size=32", "--data.workers=0", "--model.encoder=mlp", "--epochs=1",
        "--data.fractions=[0.34,0.33,0.33]", "--batch_size=2",
    )  # fmt: skip
    row = pd.read_csv(run / "predictions.csv").iloc[0]
    slide = root / "train_images" / f"{row['image'].rsplit('/', 1)[1]}.tiff"

    def drawn():
        capsys.readouterr()
        assert draw([str(run), f"--slide={slide}", f"--output={tmp_path / 'out'}"]) == 0
        return capsys.readouterr().out

    before = (run / "predictions.csv").read_bytes()
    shutil.rmtree(tiles)
    assert f"{row['probability']:.4f}" in drawn()
    assert not tiles.exists()
    assert evaluate([str(run), "--device=cpu"]) == 0
    assert (run / "predictions.csv").read_bytes() == before
    os.utime(slide, ns=(0, 0))
    assert "its truth is not known" in drawn()
    shutil.rmtree(tiles)
    shutil.rmtree(root)
    capsys.readouterr()
    assert evaluate([str(run), "--device=cpu"]) == 2
    refuse(capsys.readouterr().err, "tiles are gone, and so are its slides", str(root))


def test_a_slide_without_features_is_encoded_as_those_of_the_run(
    biopsies, bag_options, run_of, tmp_path, capsys
):
    """What extract_features would have made of it, without a file of it."""
    from attnvgg.cli.extract_features import main as extract

    scans, bags = sorted((biopsies / "train_images").iterdir())[:12], tmp_path / "bags"
    how = ["--weights=random", "--tile=128", "--mpp=1", "--overlap=32", "--image_size=32"]
    assert extract([*map(str, scans), *how, f"--out={bags}", "--threads=1"]) == 0
    away = bags / "b11.h5"
    away.rename(tmp_path / "b11.h5")
    rows = [{"slide_id": path.stem, "label": int(path.stem[1:]) % 2} for path in scans[:-1]]
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    run = run_of(
        *bag_options, "--data.source=csv", f"--data.root={tmp_path / 'labels.csv'}",
        f"--data.bags={bags}", "--data.workers=0", "--model.encoder=identity", "--epochs=1",
        "--data.fractions=[0.5,0.25,0.25]", "--batch_size=2",
    )  # fmt: skip
    said, found = [], []
    for words in ([], [f"--features={tmp_path / 'b11.h5'}"]):
        out = tmp_path / f"out-{len(words)}"
        capsys.readouterr()
        assert draw([str(run), f"--slide={scans[-1]}", f"--output={out}", *words]) == 0
        said.append(capsys.readouterr().out)
        found.append((out / "map.geojson").read_text())
    assert "No features of b11" in said[0]
    assert "No features of b11" not in said[1]
    assert found[0] == found[1]
