import shutil
from pathlib import Path

import pandas as pd
import pytest

from attnvgg.data.isic import image_id
from attnvgg.data.sources import load_source
from attnvgg.errors import InputError

CLASSES = {
    "isic2016": ["benign", "malignant"],
    "isic2017": ["melanoma", "nevus", "seborrheic_keratosis"],
}
LABELS = {"benign": 0, "malignant": 1, "melanoma": 1, "nevus": 0, "seborrheic_keratosis": 0}


def refusal(name, root, **options):
    with pytest.raises(InputError) as caught:
        load_source(name, root, **options)
    assert "\n" not in caught.value.message
    return caught.value


def stems(manifest):
    return manifest["image"].map(lambda path: path.rsplit("/", 1)[1].split(".")[0]).tolist()


@pytest.fixture(params=CLASSES)
def challenge(request, draw):
    """A challenge without Val, two images a class and split: its name."""
    images = [
        f"{split}/{name}/ISIC_{number:07d}.jpg"
        for number, (split, name, _) in enumerate(
            (split, name, i)
            for split in ("Train", "Test")
            for name in CLASSES[request.param]
            for i in range(2)
        )
    ]
    draw(*images)
    return request.param


def test_challenge_folders_give_labels_and_split(tmp_path, challenge, draw):
    draw("Train/" + CLASSES[challenge][1] + "/ISIC_0000002_superpixels.png")
    manifest = load_source(challenge, tmp_path)
    assert list(manifest) == ["image", "label", "split"]
    assert len(manifest) == 4 * len(CLASSES[challenge])
    for image, label, split in manifest.itertuples(index=False):
        folder, name = image.removeprefix(f"{tmp_path}/").split("/")[:2]
        assert label == LABELS[name]
        assert split == folder.lower()
    for name in CLASSES[challenge]:
        draw(f"Val/{name}/ISIC_9{LABELS[name]}{len(name)}.jpg")
    assert set(load_source(challenge, tmp_path)["split"]) == {"train", "val", "test"}


def test_masks_are_paired_by_image_id(tmp_path, challenge, draw):
    first, second = CLASSES[challenge][:2]
    # one mask lacks, so that pairing by order would be wrong for all that follow
    draw(f"Train_Lesion/{first}/ISIC_0000001_segmentation.png")
    draw(
        f"Train_Lesion/{second}/ISIC_0000002.png",
        f"Train_Lesion/{second}/isic_0000003_Segmentation.png",
    )
    tested = 2 * len(CLASSES[challenge])  # number of the first image of Test
    draw(f"Test_Lesion/{first}/ISIC_{tested:07d}_mask.png")
    draw(f"Train_Dermo/{second}/ISIC_0000003.png")
    lesion = load_source(challenge, tmp_path)
    paired = lesion.dropna(subset="mask")
    assert len(paired) == 4
    for image, mask in zip(paired["image"], paired["mask"], strict=True):
        assert image.split("ISIC_")[1][:7] in mask
    dermoscopic = load_source(challenge, tmp_path, mask="dermoscopic")
    paired = dermoscopic.dropna(subset="mask")
    assert stems(paired) == ["ISIC_0000003"]
    assert "Train_Dermo" in paired["mask"].item()


def test_challenge_errors(tmp_path, challenge, draw):
    first, second = CLASSES[challenge][:2]
    assert "Train_Dermo" in refusal(challenge, tmp_path, mask="dermoscopic").message
    draw("Train_Lesion/ISIC_7777777.png")
    assert "None of the 1 masks" in refusal(challenge, tmp_path).message
    draw("Train_Lesion/ISIC_0000001_a.png", "Train_Lesion/ISIC_0000001_b.png")
    assert len(refusal(challenge, tmp_path).offenders) == 2
    shutil.rmtree(tmp_path / "Train_Lesion")
    draw(f"Test/{second}/ISIC_0000000.jpg")
    repeated = refusal(challenge, tmp_path)
    assert "same id" in repeated.message
    assert len(repeated.offenders) == 2
    for image in tmp_path.rglob("*.jpg"):
        image.rename(image.with_suffix(".png"))
    assert "no JPEG images" in refusal(challenge, tmp_path).message
    shutil.rmtree(tmp_path / "Test" / first)
    assert refusal(challenge, tmp_path).offenders == [str(tmp_path / "Test" / first)]


def test_ids_of_other_names():
    assert image_id(Path("lesion_12_segmentation.png")) == "lesion_12"
    assert image_id(Path("lesion_12.jpg")) == "lesion_12"


def archive(folder, **columns):
    count = len(next(iter(columns.values())))
    table = {"isic_id": [f"ISIC_{i}" for i in range(count)], "copyright_license": "CC-0", **columns}
    pd.DataFrame(table).to_csv(folder / "metadata.csv", index=False)


def test_archive_as_downloaded_today(tmp_path, draw, caplog):
    archive(
        tmp_path,
        attribution=["Somewhere"] * 5,
        age_approx=["45", "", "70", "20", "20"],
        anatom_site_general=["head/neck", "", "", "", ""],
        diagnosis_1=["Benign", "Malignant", "Indeterminate", "", "Benign"],
        diagnosis_2=["Benign melanocytic proliferations", "", "", "", ""],
        lesion_id=["IL_1", "IL_2", "", "", ""],
        patient_id=["IP_1", "", "", "", ""],
        sex=["male", "female", "male", "male", ""],
    )
    draw("ISIC_0.jpg", "ISIC_1.jpg", "images/ISIC_4.jpg")
    with caplog.at_level("INFO", "attnvgg"):
        manifest = load_source("isic-archive", tmp_path)
    assert stems(manifest) == ["ISIC_0", "ISIC_1", "ISIC_4"]
    assert manifest["label"].tolist() == [0, 1, 0]
    assert manifest["group"].tolist() == ["IP_1", "IL_2", "image:images/ISIC_4.jpg"]
    assert manifest["source"].tolist() == ["Somewhere"] * 3
    assert "1 indeterminate" in caplog.text
    assert "1 missing" in caplog.text
    pd.testing.assert_frame_equal(load_source("isic-archive", tmp_path / "metadata.csv"), manifest)


def test_archive_in_its_older_forms(tmp_path, draw):
    draw(*(f"ISIC_{i}.jpg" for i in range(5)))
    archive(tmp_path, benign_malignant=["benign", "malignant", "indeterminate/malignant", "", ""],
            diagnosis=["nevus", "nevus", "melanoma", "melanoma", "unknown"])  # fmt: skip
    manifest = load_source("isic-archive", tmp_path)
    assert dict(zip(stems(manifest), manifest["label"], strict=True)) == {
        "ISIC_0": 0, "ISIC_1": 1, "ISIC_3": 1,
    }  # fmt: skip


def test_archive_errors(tmp_path, draw):
    archive(tmp_path, diagnosis_1=["Benign", "Malignant"])
    assert [name[-10:] for name in refusal("isic-archive", tmp_path).offenders] == [
        "ISIC_0.jpg",
        "ISIC_1.jpg",
    ]
    archive(tmp_path, diagnosis_1=["Indeterminate", ""])
    assert "benign or malignant" in refusal("isic-archive", tmp_path).message
    archive(tmp_path, outcome=["Benign", "Malignant"])
    assert "diagnosis_1" in refusal("isic-archive", tmp_path).message
    archive(tmp_path, isic_id=["a", "b"], diagnosis_1=["Benign", "Malignant"])
    (tmp_path / "metadata.csv").write_text("image,diagnosis_1\nx,Benign\n")
    assert "lacks the columns isic_id" in refusal("isic-archive", tmp_path).message
