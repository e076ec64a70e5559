import json
import random

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.functional import normalize, to_tensor

from attnvgg.data.augmentation import augmentation
from attnvgg.data.transforms import Preprocess
from attnvgg.errors import InputError


def pixels(height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def every_value():
    """A picture (16, 16, 3) in which each channel takes all 256 values."""
    values = np.arange(256, dtype=np.uint8)
    return np.stack([values, values[::-1], np.roll(values, 99)], axis=1).reshape(16, 16, 3)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(Preprocess.mean, Preprocess.std), ((0.7012, 0.5517, 0.4875), (0.0942, 0.1331, 0.1521))],
)
def test_normalisation_is_torchvisions(every_value, mean, std):
    found = Preprocess(16, 16, mean=mean, std=std).normalise(every_value)
    expected = normalize(to_tensor(every_value), mean, std)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert found.is_contiguous()
    assert found.dtype == torch.float32


def test_denormalise_is_the_inverse(every_value):
    preprocess = Preprocess(16, 16)
    np.testing.assert_array_equal(
        preprocess.denormalise(preprocess.normalise(every_value)), every_value
    )


def test_every_kind_of_source_gives_the_same_input(tmp_path):
    image = pixels(70, 90)
    Image.fromarray(image).save(tmp_path / "a.png")
    preprocess = Preprocess(32, 40, crop=0.8)
    expected = preprocess(tmp_path / "a.png")
    assert expected.shape == (3, 32, 32)
    for source in (str(tmp_path / "a.png"), Image.fromarray(image), image):
        assert torch.equal(preprocess(source), expected)


def test_wrong_sources_are_refused():
    for wrong in (pixels()[..., 0], pixels().astype(np.float32), pixels()[..., :2]):
        with pytest.raises(InputError, match="uint8"):
            Preprocess(32, 32)(wrong)
    with pytest.raises(InputError, match="grey"):
        Preprocess(32, 32)(Image.fromarray(pixels()).convert("L"))
    assert Preprocess(32, 32, convert=True)(Image.fromarray(pixels()).convert("L")).shape[0] == 3


@pytest.mark.parametrize("side", [64, 80, 100, 128, 200, 320, 600])
def test_resizing_is_close_to_an_antialiased_reference(side):
    smooth = cv2.resize(pixels(12, 12), (side, side), interpolation=cv2.INTER_CUBIC)
    found = Preprocess(64, 64).load(smooth)
    reference = v2.functional.resize(
        torch.from_numpy(smooth).permute(2, 0, 1), [64, 64], antialias=True
    )
    apart = np.abs(found.astype(float) - reference.permute(1, 2, 0).numpy())
    assert apart.mean() < 2
    assert apart.max() < 25


GEOMETRIES = [
    ((64, 64), Preprocess(64, 64)),
    ((512, 512), Preprocess(64, 64)),
    ((200, 330), Preprocess(64, 64)),
    ((330, 200), Preprocess(48, 64)),
    ((301, 257), Preprocess(48, 64, crop=0.8)),
    ((767, 1022), Preprocess(56, 64, crop=0.8)),
    ((40, 50), Preprocess(64, 80)),
]


@pytest.mark.parametrize(("shape", "preprocess"), GEOMETRIES)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_region_is_where_the_input_comes_from(tmp_path, shape, preprocess, suffix):
    # a ramp tells each input pixel where in the source its centre lies
    height, width = shape
    region = preprocess.region(height, width)
    centres = (np.arange(preprocess.size) + 0.5) * region.side / preprocess.size
    for axis, length, start in ((0, height, region.top), (1, width, region.left)):
        ramp = (np.arange(length) + 0.5) / length * 255
        image = np.empty((height, width, 3), np.uint8)
        image[:] = np.rint(ramp)[:, None, None] if axis == 0 else np.rint(ramp)[None, :, None]
        path = tmp_path / f"{axis}{suffix}"
        Image.fromarray(image).save(path, **({"quality": 100} if suffix == ".jpg" else {}))
        found = preprocess.centre(preprocess.load(path)).mean(axis=(1 - axis, 2))
        expected = (start + centres) / length * 255
        inner = slice(1, -1)  # where the input reaches the border, interpolation repeats it
        # half a grey level of rounding each time, about as much again for JPEG
        assert np.abs(found - expected)[inner].max() < 1.6
        assert abs((found - expected)[inner].mean()) < 0.5


@pytest.mark.parametrize(("shape", "preprocess"), GEOMETRIES[1:6])
def test_a_point_of_the_source_lands_in_its_own_input_pixel(shape, preprocess):
    region = preprocess.region(*shape)
    rng = np.random.default_rng(0)
    for share in rng.uniform(0.02, 0.98, (8, 2)):
        row, column = (np.array(region[:2]) + share * region.side).astype(int)
        image = np.zeros((*shape, 3), np.uint8)
        image[row, column] = 255
        found = preprocess.centre(preprocess.load(image))[..., 0].astype(float)
        if found.sum() < 40:  # a single point fades where many pixels become one
            continue
        centre = (np.indices(found.shape) * found).sum((1, 2)) / found.sum() + 0.5
        scale = region.side / preprocess.size
        exact = (np.array([row, column]) + 0.5 - region[:2]) / scale
        assert np.abs(centre - exact).max() < 0.76


def test_the_whole_of_a_square_picture_is_covered():
    assert Preprocess(224, 224).region(512, 512) == (0, 0, 512)
    assert Preprocess(224, 224).region(300, 500) == (0, 100, 300)
    assert Preprocess(224, 256).region(512, 512) == (32, 32, 448)


def test_masks_keep_to_zero_and_one(tmp_path):
    mask = np.zeros((100, 120), np.uint8)
    mask[20:70, 30:90] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    found = Preprocess(64, 64).load_mask(tmp_path / "m.png")
    assert found.shape == (64, 64)
    assert (found.min(), found.max()) == (0, 255)
    assert found.mean() / 255 == pytest.approx(50 * 60 / 100**2, abs=0.01)


def test_settings_survive_json():
    preprocess = Preprocess(96, 112, 0.8, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), True)
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    with pytest.raises(InputError, match="zoom"):
        Preprocess.from_dict({"zoom": 2})


@pytest.mark.parametrize(
    "settings", [{"size": 300}, {"size": 0}, {"crop": 0}, {"crop": 1.1}, {"std": (0, 1, 1)}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InputError):
        Preprocess(**settings)


def test_the_recipe_names_all_that_decides_the_cached_pixels():
    recipes = {
        Preprocess(**settings).recipe(kind)
        for settings in ({}, {"resize": 256}, {"crop": 0.8}, {"convert": True})
        for kind in ("image", "mask")
    }
    assert len(recipes) == 8
    assert Preprocess(mean=(0, 0, 0)).recipe("image") == Preprocess().recipe("image")


def drawn(name, image, count=40, **settings):
    preprocess = Preprocess(**{"size": 64, "resize": 64} | settings)
    augment = augmentation(name, preprocess)
    augment.set_random_state(np.random.default_rng(0), random.Random(0))
    return [augment(image=image)["image"] for _ in range(count)]


def test_rotation_and_flip_are_those_of_albumentations():
    smooth = cv2.resize(pixels(8, 8), (64, 48), interpolation=cv2.INTER_CUBIC)
    border = cv2.BORDER_REFLECT_101
    reference = A.Compose([A.Rotate(limit=10, border_mode=border, p=1)])
    ours = augmentation("tutorial", Preprocess(64, 64))
    flips = 0
    for seed in range(20):
        for transforms in (ours, reference):
            transforms.set_random_state(np.random.default_rng(seed), random.Random(seed))
        turned = reference(image=smooth)["image"]
        found = ours(image=smooth)["image"].astype(int)
        straight, mirrored = (np.abs(found - one).max() for one in (turned, turned[:, ::-1]))
        assert min(straight, mirrored) <= 1
        flips += mirrored < straight
    assert 3 <= flips <= 17


def test_tutorial_turns_by_at_most_ten_degrees_and_leaves_no_black_corners():
    image = np.full((64, 64, 3), 200, np.uint8)
    image[20:44, 30:34] = (250, 120, 60)  # an upright bar
    angles = []
    for found in drawn("tutorial", image):
        assert found.min() >= 59
        assert (found[[0, 0, -1, -1], [0, -1, 0, -1]] == 200).all()
        points = np.argwhere(found[..., 2] < 130).astype(float)
        axis = np.linalg.svd(points - points.mean(0), full_matrices=False)[2][0]
        angles.append(np.degrees(np.arctan2(axis[1], axis[0])) % 180)
    angles = (np.array(angles) + 90) % 180 - 90
    assert np.abs(angles).max() < 11
    assert angles.std() > 3


def test_flips_and_quarter_turns_are_all_drawn():
    image = pixels(64, 64)
    eight = [np.rot90(flipped, k) for flipped in (image, image[:, ::-1]) for k in range(4)]
    found = drawn("paper", image, 150)
    counts = [sum(np.array_equal(one, turned) for one in found) for turned in eight]
    assert sum(counts) == 150
    assert min(counts) >= 5


def test_paper_crops_everywhere_and_none_in_the_middle():
    rows, columns = np.indices((64, 64), dtype=np.uint8)
    image = np.dstack([rows, columns, rows])
    corners = {found[..., :2].reshape(-1, 2).min(0).tobytes() for found in drawn(
        "paper", image, 60, size=32
    )}  # fmt: skip
    assert len(corners) > 40
    middle = drawn("none", image, 2, size=32)
    np.testing.assert_array_equal(middle[0], image[16:48, 16:48])
    np.testing.assert_array_equal(middle[1], Preprocess(32, 64).centre(image))


@pytest.mark.parametrize("name", ["tutorial", "paper", "none"])
def test_a_mask_goes_through_the_same_geometry(name):
    image = pixels()
    augment = augmentation(name, Preprocess(48, 64))
    augment.set_random_seed(0)
    for _ in range(10):
        found = augment(image=image, mask=image[..., 0])
        assert found["image"].shape == (48, 48, 3)
        np.testing.assert_array_equal(found["mask"], found["image"][..., 0])


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(InputError, match="sideways"):
        augmentation("sideways", Preprocess())
