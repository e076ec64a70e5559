"""The contact sheet: which two of a set it shows, and that it is drawn."""

from PIL import Image

from attnvgg.data.audit.sheet import draw_sheet, two_members


def member(name, label=0, split="train"):
    return {"image": name, "label": label, "split": split}


def test_members_of_two_splits_are_shown_or_else_of_two_labels():
    first, same, other = member("a"), member("b"), member("c", split="test")
    assert two_members([first, same, other]) == [first, other]
    odd = member("d", label=1)
    assert two_members([first, same, odd]) == [first, odd]
    assert two_members([first, same]) == [first, same]


def test_the_sheet_holds_a_cell_for_every_set(cases, tmp_path):
    images = [member(path) for path in cases["image"]]
    images[1]["image"] = str(tmp_path / "gone.jpg")  # since it was measured

    def draw(count):
        found = {"kind": "near", "similarity": 0.97, "across_splits": True, "label_conflict": True}
        sets = [found | {"images": images[2 * k : 2 * k + 3]} for k in range(count)]
        draw_sheet(sets, 99, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            return sheet.size

    one, four = draw(1), draw(4)
    assert four[0] > one[0]
    assert four[1] > one[1] + 200
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
