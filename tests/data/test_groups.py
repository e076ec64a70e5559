import pandas as pd

from attnvgg.data.groups import linked_groups


def test_lesions_link_patients_and_patients_lesions():
    table = pd.DataFrame(
        {
            "patient_id": ["P2", "P1", "P1", "", "", "P3", "", "unknown"],
            "lesion_id": ["L1", "L1", "L2", "L2", "L4", "", "", "L4"],
        },
        index=range(10, 18),
    )
    group = linked_groups(table, ("patient_id", "lesion_id", "absent"))
    assert group.index.tolist() == list(range(10, 18))
    assert group[:6].tolist() == ["P1", "P1", "P1", "P1", "L4", "P3"]
    assert pd.isna(group[16])
    assert group[17] == "L4"
    assert linked_groups(table, ("absent",)).isna().all()


def test_equal_names_in_different_columns_do_not_link():
    table = pd.DataFrame({"patient": ["1", ""], "lesion": ["", "1"]})
    columns = linked_groups(table, ("patient", "lesion"))
    assert columns.notna().all()
    chained = linked_groups(
        pd.DataFrame({"patient": ["1", "2"], "lesion": ["2", "3"]}), ("patient", "lesion")
    )
    assert chained.nunique() == 2
