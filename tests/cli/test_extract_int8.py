"""Features in 8 bits: what they were calibrated on stays with them, and never changes unseen."""

import pickle
import shutil

import numpy as np
import pytest

from attnvgg.cli.extract_features import main
from attnvgg.data.features import feature_attributes, read_features
from attnvgg.data.slide_writer import write_slide
from attnvgg.data.slides import Slide
from attnvgg.data.tiles import plan_tiles
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.encoder_engines import EngineEncoder
from attnvgg.deploy.extraction import Pace, encode_tiles
from attnvgg.deploy.feature_settings import FeatureSettings, feature_path
from attnvgg.deploy.fleet import slide_worker
from attnvgg.deploy.tile_calibration import Calibration, TileSettings, first_readable
from attnvgg.deploy.tile_encoders import choice_of, encoder_of
from attnvgg.errors import InputError

SMALL = ["--weights=random", "--image_size=32", "--tile=128", "--device=cpu", "--batch_size=8"]
OPTIONS = [*SMALL, "--precision=int8"]
SETTINGS = TileSettings(tile=128)


@pytest.fixture(scope="module")
def slides(tmp_path_factory, tissue_picture):
    """Four slides of 16 tiles each, or a few less."""
    folder, tissue = tmp_path_factory.mktemp("slides"), tissue_picture[256:768, 256:768]
    for number in range(4):
        write_slide(folder / f"s{number}.tiff", np.roll(tissue, 100 * number, 1), 0.5, levels=1)
    return folder


@pytest.fixture(scope="module")
def first(slides, tmp_path_factory):
    """The features of the first three slides, in 8 bits; read only."""
    out = tmp_path_factory.mktemp("out")
    return out, [str(slides / f"s{number}.tiff") for number in range(3)]


@pytest.fixture
def out(first, tmp_path):
    """A copy of them. The engine is built by whoever is first."""
    folder, named = first
    if not any(folder.iterdir()):
        assert main([*named, *OPTIONS, f"--out={folder}"]) == 0
    return shutil.copytree(folder, tmp_path / "out")


def test_they_say_what_they_were_calibrated_on(out, slides, tmp_path):
    said = feature_attributes(out / "s1.h5")
    calibration = choice_of(out / "s1.h5").calibration
    assert said["precision"] == "int8"
    assert said["calibration"].endswith("tiles of s0.tiff, s1.tiff, s2.tiff")
    assert said["encoder"].endswith(f";int8@{calibration.name}")
    assert calibration == Calibration.of([slides / f"s{n}.tiff" for n in range(3)], SETTINGS)
    assert main([str(slides / "s1.tiff"), *SMALL, f"--out={tmp_path / 'exact'}"]) == 0
    mine, exact = (
        read_features(path)["instances"].numpy()
        for path in (out / "s1.h5", tmp_path / "exact/s1.h5")
    )
    cosine = (mine * exact).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0.99 < cosine.mean() < 1
    assert not np.array_equal(mine, exact)


def test_more_slides_get_the_same_engine(out, slides, capsys):
    before = feature_attributes(out / "s1.h5")
    assert main([str(slides / "s3.tiff"), *OPTIONS, f"--out={out}"]) == 0
    assert "Building" not in capsys.readouterr().out
    after = feature_attributes(out / "s3.h5")
    keys = ("encoder", "calibration", "encoder_recipe")
    assert [after[key] for key in keys] == [before[key] for key in keys]


def test_another_calibration_is_not_mixed_in(out, slides, capsys):
    words = [str(slides / "s3.tiff"), *OPTIONS, f"--out={out}"]
    assert main([*words, f"--calibration=[{slides / 's3.tiff'}]"]) == 2
    assert "were calibrated on others than" in capsys.readouterr().err
    assert not (out / "s3.h5").exists()
    assert main([str(slides / "s0.tiff"), *SMALL, f"--out={out}"]) == 2
    assert "precision is int8, not no" in capsys.readouterr().err
    named = ",".join(str(slides / f"s{number}.tiff") for number in range(3))
    assert main([*words, f"--calibration=[{named}]"]) == 0


def test_the_encoder_is_opened_again(out, slides):
    encoder = encoder_of(out / "s2.h5")
    assert isinstance(encoder.network, EngineEncoder)
    with Slide(slides / "s2.tiff") as slide:
        tiles = plan_tiles(slide, 0.5, 128)
        found = encode_tiles(encoder.network, encoder.preprocess, slide, tiles, precision="int8")
    wanted = read_features(out / "s2.h5")["instances"].numpy()
    # another size of batch may round otherwise
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02 * wanted.max())


def test_workers_elsewhere_open_it_too(out, slides, tmp_path):
    """As on a Ray cluster: only the choice travels."""
    choice = pickle.loads(pickle.dumps(choice_of(out / "s0.h5")))
    settings = FeatureSettings(tile=128, precision="int8")
    work = slide_worker(choice, tmp_path, settings, Pace(8, 1, "auto"))
    assert work(slides / "s0.tiff").problem is None
    assert (tmp_path / "s0.h5").read_bytes() == feature_path(out, slides / "s0.tiff").read_bytes()


def test_without_engine_and_slides_it_cannot_be(out, tmp_path, slides):
    calibration = choice_of(out / "s0.h5").calibration
    moved = Calibration((str(tmp_path / "s.tiff"),), calibration.origins[:1], SETTINGS)
    with pytest.raises(InputError, match=r"s\.tiff, which is gone or has changed"):
        moved.images(Preprocess(32, 32)).calibration()
    shutil.copy(slides / "s1.tiff", tmp_path / "s.tiff")  # another one of that name
    with pytest.raises(InputError, match="put the slide back, or extract the features again"):
        moved.images(Preprocess(32, 32)).calibration()


def test_names_are_of_content_and_tiles(slides, tmp_path):
    paths = [slides / "s0.tiff", slides / "s1.tiff"]
    name = Calibration.of(paths, SETTINGS).name
    shutil.copy(paths[0], tmp_path / "elsewhere.tiff")
    assert Calibration.of([tmp_path / "elsewhere.tiff", paths[1]], SETTINGS).name == name
    others = [(paths[:1], SETTINGS), (paths, TileSettings(tile=64)), (paths[::-1], SETTINGS)]
    assert len({name, *(Calibration.of(*other).name for other in others)}) == 4


def test_tiles_to_calibrate_on_and_to_compare_on_differ(slides):
    images = Calibration.of(sorted(slides.iterdir()), SETTINGS).images(Preprocess(16, 16))
    calibrated, held_out = (
        np.concatenate(part()) for part in (images.calibration, images.held_out)
    )
    assert len(held_out) == (len(held_out) + len(calibrated)) // 3
    together = np.concatenate([calibrated, held_out])
    assert len(np.unique(together.reshape(len(together), -1), axis=0)) == len(together)


def test_too_few_tiles(slides):
    one = Calibration.of([slides / "s0.tiff"], SETTINGS)
    with pytest.raises(InputError, match="on 24 tiles or more, and there are"):
        one.images(Preprocess(32, 32)).held_out()


def test_the_first_slides_that_can_be_read(slides, tmp_path):
    (tmp_path / "a.tiff").write_text("no slide")
    found = sorted(slides.iterdir())
    assert first_readable([tmp_path / "a.tiff", *found, found[0]], SETTINGS) == found
    with pytest.raises(InputError, match="these slides have none"):
        first_readable([tmp_path / "a.tiff"], SETTINGS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--precision=int8", "--device=cuda"], "is computed on the CPU"),
        (["--calibration=[a.tiff]"], "--calibration: is for --precision int8"),
        (["--precision=int8", "--calibration=[/none.tiff]"], "There are no such slides"),
    ],
)
def test_options_that_cannot_be(slides, tmp_path, capsys, words, told):
    assert main([str(slides), f"--out={tmp_path / 'out'}", "--weights=random", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
