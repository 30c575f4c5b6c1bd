"""Names that are spelt twice, stand for nothing, or begin anew: said, with counts, and only with good reason."""

from __future__ import annotations

import shlex
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featstore.errors import ManifestError
from featstore.images.manifest import ListedFile
from featstore.images.names import check_groups, check_labels, check_masks, is_missing, spelling_key
from featstore.images.scan import scan


def entries(*rows):
    """Entries of (label, group) or (label, group, site), each with a file name of its own."""
    return [
        ListedFile(f"img/x{at:03d}y.png", None, label, group, site=rest[0] if rest else None)
        for at, (label, group, *rest) in enumerate(rows)
    ]


def labels(**counts):
    return [ListedFile(f"{name}{at}", None, name) for name, n in counts.items() for at in range(n)]


def named(found):
    return {finding.name: finding for finding in found}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("NORMAL", "Normal"), ("non-COVID", "Non COVID"), ("no_finding", "No Finding"), ("Pneumonia", " pneumonia "),
        ("ménisque", "menisque"), ("é", "e\u0301"), ("Covid 19", "COVID-19"), ("a\u200bb", "ab"), ("1", "1.0"),
        ("grade 1", "Grade 01"), ("HER2+", "her2 +"), ("St. Elevation", "ST elevation"), ("\uff43at", "cat"),
    ],
)  # fmt: skip
def test_two_spellings_of_a_class_are_warned_of(one, other):
    found = named(check_labels(labels(**{one: 3, other: 2, "else": 4})))
    assert found["class_spelling"].count == 2
    assert "3 images" in found["class_spelling"].examples[0]
    assert "2 images" in found["class_spelling"].examples[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HER2+", "HER2-"),
        ("C", "C+"),
        ("<50", ">50"),
        ("1.5", "15"),
        ("T1", "T11"),
        ("1-2", "12"),
        ("0", "00.5"),
    ],
)
def test_different_classes_are_not(one, other):
    assert list(check_labels(labels(**{one: 3, other: 2}))) == []


@given(st.text(min_size=1, max_size=12))
def test_a_spelling_is_that_of_its_own_normal_forms(name):
    for form in ("NFC", "NFD"):
        assert spelling_key(unicodedata.normalize(form, name)) == spelling_key(name)
        assert spelling_key(unicodedata.normalize(form, name), accents=True) == spelling_key(
            name, accents=True
        )
    assert spelling_key(f" {name} ") == spelling_key(name)


def test_the_splits_of_two_spellings_are_named(write):
    root = write({"train/NORMAL/1.png": 1, "train/ILL/2.png": 2, "test/Normal/3.png": 3, "test/ILL/4.png": 4})
    finding = named(scan(root).findings)["class_spelling"]
    assert finding.examples == ("'NORMAL' (1 images in train), 'Normal' (1 images in test)",)


@pytest.mark.parametrize(
    "name", ["NA", "nan", "None", "N/A", "unknown", "-", "?", "NULL", "#N/A", "[]", "<NA>"]
)
def test_a_missing_value_as_a_class_or_a_group_is_warned_of(name):
    assert is_missing(name)
    assert named(check_labels(labels(**{name: 6, "ill": 9})))["label_placeholder"].count == 6
    rows = [("ill", name)] * 3 + [("well", name)] * 2 + [("ill", "p1"), ("well", "p2")]
    assert named(check_groups(entries(*rows)))["group_placeholder"].count == 5


def test_a_zero_that_many_share_is_one_and_patient_zero_is_not():
    many = [("ill", "0")] * 9 + [(("ill", "well")[p % 2], str(p)) for p in range(10, 30)]
    assert named(check_groups(entries(*many)))["group_placeholder"].count == 9
    few = [(("ill", "well")[p % 2], str(p)) for p in range(8) for _ in range(2)]
    assert "group_placeholder" not in named(check_groups(entries(*few)))
    assert not is_missing("Nadia")


@pytest.mark.parametrize("name", ["A|B", "A;B", "A; B", "A, B", "A + B", "A & B", "A and B", "A|C"])
def test_several_labels_in_one_are_warned_of(name):
    found = named(check_labels(labels(**{name: 3, "A": 5, "B": 5})))
    assert (found["label_combination"].count, found["label_combination"].examples) == (
        3,
        (f"{name!r}: 3 images",),
    )


@pytest.mark.parametrize("name", ["Carcinoma, ductal", "Pneumonia/Viral/COVID-19", "black and white"])
def test_a_label_of_several_words_is_not(name):
    assert list(check_labels(labels(**{name: 3, "A": 5}))) == []


@pytest.mark.parametrize(
    "names",
    [
        ("Pat01", "pat01", "PAT01"), ("p 1", "p1"), ("M\u00fcller", "Mu\u0308ller"), ("01", "1"), ("P01", "p1"),
        ("1.0", "1"), ("Anna  B", "Anna B"), ("P1", "P1\u200b"), ("P1", "\u04201"), ("1,000", "1000"),
        ("Doe^J", "Doe, J"),
        ('"P1"', "P1"), ("P1", "P1."),
    ],
)  # fmt: skip
def test_spellings_of_a_group_are_warned_of(names):
    rows = [(("ill", "well")[at % 2], name) for at, name in enumerate([*names, "x7", "y8"])]
    finding = named(check_groups(entries(*rows)))["group_spelling"]
    assert (finding.count, finding.severity) == (len(names), "warning")
    assert all(repr(name) in finding.examples[0] for name in names)
    assert not any(repr(name) in finding.message for name in names), "a message may leave the run folder"


def test_groups_that_differ_are_not():
    rows = [
        ("ill", "M\u00fcller"),
        ("well", "Muller"),
        ("ill", "p1-2"),
        ("well", "p12"),
        ("ill", "10"),
        ("well", "1"),
    ]
    assert list(check_groups(entries(*rows))) == []


def test_group_spellings_of_folders_and_of_tables_are_found_by_scan(write):
    root = write({"ill/Pat01_1.png": 1, "well/pat01_2.png": 2, "ill/Pat02_3.png": 3})
    found = named(scan(root, group_pattern=r"([^/]+)_\d").findings)
    assert found["group_spelling"].examples == ("'Pat01' (1 images), 'pat01' (1 images)",)
    (root / "t.csv").write_text("path,label,group\nill/Pat01_1.png,a,Anna\nwell/pat01_2.png,b,ANNA\n")
    assert "group_spelling" in named(scan(root / "t.csv").findings)


def restart(write, sizes=(12, 12)):
    covid = {f"COVID/Covid ({n + 1}).png": n for n in range(sizes[0])}
    return write({**covid, **{f"non-COVID/Non-Covid ({n + 1}).png": 600 + n for n in range(sizes[1])}})


@pytest.mark.parametrize("sizes", [(12, 12), (12, 8), (5, 14)])
def test_numbers_that_begin_anew_in_each_class_are_warned_of_and_the_remedy_works(write, sizes):
    root = restart(write, sizes)
    finding = named(scan(root, group_pattern=r"\((\d+)\)").findings)["group_numbers_restart"]
    assert finding.count == 2 * min(sizes)
    flag, pattern = shlex.split(finding.remedy.partition(": ")[2])
    assert flag == "--group-pattern"
    manifest = scan(root, group_pattern=pattern)
    assert len(manifest.count_by_group()) == sum(sizes)
    assert "group_numbers_restart" not in named(manifest.findings)


def test_slices_that_are_numbered_anew_are_strangers_and_others_are_one_patient(write):
    again = [(c, p, s) for c in ("ill", "well") for p in range(1, 6) for s in range(3)]
    root = write({f"{c}/p{p}_slice{s}.png": at for at, (c, p, s) in enumerate(again)})
    assert "group_numbers_restart" in named(scan(root, group_pattern=r"p(\d+)_").findings)
    other = write(
        {f"{c}/p{p}_slice{s + 3 * (c == 'ill')}.png": at for at, (c, p, s) in enumerate(again)},
        root.parent / "other",
    )
    assert "group_numbers_restart" not in named(scan(other, group_pattern=r"p(\d+)_").findings)


def test_patients_of_both_classes_in_a_table_are_left_in_peace_and_two_tables_in_one_are_not():
    paired = [(label, str(p)) for p in range(1, 20) for label in ("ill", "well")]
    assert list(check_groups(entries(*paired))) == []
    stacked = [("ill", str(p)) for p in range(1, 13)] + [("well", str(p)) for p in range(1, 20)]
    assert named(check_groups(entries(*stacked)))["group_numbers_restart"].count == 24
    scattered = [("well", str(p)) for p in range(1, 40)] + [("ill", str(p)) for p in range(3, 40, 5)]
    assert list(check_groups(entries(*scattered))) == []


def test_numbers_that_begin_anew_at_each_site_are_warned_of():
    rows = [(("ill", "well")[p % 2], str(p), site) for site in ("Bonn", "Kiel") for p in range(1, 11)]
    finding = named(check_groups(entries(*rows)))["group_numbers_restart"]
    assert "site" in finding.message
    assert finding.examples[0] == "'1' in Bonn, Kiel"


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [(r"^([^/]+)/", 2), (r"(COVID)", 1), (r"/(Covid|Non)", 2)],
    ids=["class", "one", "words"],
)
def test_groups_that_are_the_classes_are_warned_of(write, pattern, groups):
    finding = named(scan(restart(write), group_pattern=pattern).findings)["group_is_class"]
    assert finding.count == groups


def test_groups_that_are_the_sites_or_splits_are_warned_of_and_patients_are_not():
    sites = [(label, site, site) for site in ("a", "b", "c") for label in ("ill", "well") for _ in range(3)]
    assert "sites" in named(check_groups(entries(*sites)))["group_is_class"].message
    patients = [(("ill", "well")[p % 2], f"p{p}") for p in range(4) for _ in range(8)]
    assert list(check_groups(entries(*patients))) == []


def test_the_first_group_of_a_pattern_that_took_part_names_the_patient(write):
    root = write({"a/person1_2.png": 1, "a/person1_3.png": 2, "b/IM-0007-1.png": 3, "b/x_IM-0008-2.png": 4})
    manifest = scan(root, group_pattern=r"person(\d+)|IM-(\d+)")
    assert manifest.count_by_group() == {"0007": 1, "0008": 1, "1": 2}
    manifest = scan(root, group_pattern=r"(?:x_)?IM-(\d+)-|([a-z]+\d)_")
    assert manifest.count_by_group() == {"0007": 1, "0008": 1, "person1": 2}


@pytest.mark.parametrize("pattern", [r"person(\d*)|IM-(\d+)", r"(x*)|IM-(\d+)", r"person(\d+)|(nothing)"])
def test_a_pattern_that_matches_nothing_somewhere_is_refused_with_counts_and_an_example(write, pattern):
    root = write({"a/person_2.png": 1, "b/IM-0007.png": 3})
    with pytest.raises(ManifestError, match=r"finds no group in [12] of 2 paths, such as '[ab]/") as caught:
        scan(root, group_pattern=pattern)
    assert scan(root, group_pattern=r"(person)|IM-(\d+)").has_groups
    assert "|" in caught.value.remedy


@pytest.mark.hostile
@pytest.mark.parametrize(
    "names",
    [
        ["a" + " " * 130_000 + "b", "c"],
        ["a-" * 65_000, "A-" * 65_000],
        ["0" * 130_000 + "x1", "1"],
        [f"l{n}|{n}" for n in range(6_000)],
        [str(n) for n in range(6_000)],
    ],
    ids=["spaces", "separators", "zeros", "combinations", "numbers"],
)
def test_names_of_any_length_and_number_are_looked_at_once(names, tried):
    rows = [(name, str(at % 2000)) for at, name in enumerate(names)]
    list(check_labels(entries(*rows)))
    list(check_groups(entries(*rows)))
    list(check_groups(entries(*((str(at % 900), name) for at, name in enumerate(names)))))
    tried("hostile names")


@pytest.mark.parametrize(
    ("group", "is_told"),
    [
        ("1.23E+11", True),
        ("1,23E+11", True),
        ("4e12", True),
        ("1.23E-05", False),
        ("E11", False),
        ("12E", False),
    ],
)
def test_numbers_that_a_spreadsheet_rounded_are_no_patients(group, is_told):
    rows = [("ill", group), ("well", group), ("ill", "7"), ("well", "8")]
    found = named(check_groups(entries(*rows)))
    assert ("group_rounded" in found) == is_told
    if is_told:
        assert found["group_rounded"].examples == (f"{group!r}: 2 images",)


@pytest.mark.parametrize(
    ("names", "masks"),
    [
        (("a/benign (1).png", "a/benign (1)_mask.png", "a/benign (1)_mask_1.png"), 2),
        (("a/x.nii.gz", "a/x_seg.nii.gz", "b/y.nii.gz"), 1),
        (("a/x.jpg", "a/x-Mask.PNG"), 1),
        (("a/ISIC_1.jpg", "a/ISIC_1_segmentation.png"), 1),
        (("a/x.png", "b/x_mask.png"), 0),
        (("a/mask.png", "a/mask_1.png"), 0),
        (("a/x.png", "a/xmask.png", "a/x_2.png", "a/seg.png"), 0),
        (("a/x_mask.png",), 0),
    ],
)
def test_masks_beside_their_pictures_are_told_from_pictures(names, masks):
    found = named(check_masks(names))
    assert found["masks_as_images"].count == masks if masks else not found


def test_masks_in_class_folders_are_warned_of(write):
    files = {
        f"{label}/{n}{end}.png": 9 * n + len(label + end)
        for label in ("a", "bb")
        for n in range(2)
        for end in ("", "_mask")
    }
    assert named(scan(write(files)).findings)["masks_as_images"].count == 4


# Sites


def sites_of(tmp_path, *names):
    """Sites of images as a scan tells them, and its findings by name."""
    rows = ["path,label,group,site"]
    for at, name in enumerate(names):
        Image.fromarray(np.full((8, 8), at, np.uint8)).save(tmp_path / f"{at}.png")
        rows.append(f"{at}.png,{'ab'[at % 2]},p{at},{name}")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    manifest = scan(tmp_path / "data.csv")
    sites = {record.path.name: record.site for record in manifest.records}
    return [sites[f"{at}.png"] for at in range(len(names))], named(manifest.findings)


def test_spellings_of_a_site_are_one_site_so_that_it_can_be_left_out(tmp_path):
    found, told = sites_of(tmp_path, "SIEMENS", "Siemens", "Siemens", "siemens ", "GE")
    assert found == ["Siemens"] * 4 + ["GE"]
    assert told["site_spelling"].count == 2
    assert "Siemens" not in told["site_spelling"].message, "a message may leave the run folder"


def test_sites_that_differ_in_zeros_or_punctuation_are_told_and_kept_apart(tmp_path):
    found, told = sites_of(tmp_path, "site 1", "site 01", "site 2")
    assert found == ["site 1", "site 01", "site 2"]
    assert told["site_spelling"].count == 2
    assert "count apart" in told["site_spelling"].message


def test_a_site_that_is_called_like_a_missing_value_is_none(tmp_path):
    found, told = sites_of(tmp_path, "North", "NA", "unknown", "-", "South")
    assert found == ["North", None, None, None, "South"]
    assert told["site_placeholder"].count == 3


def test_sites_with_names_of_their_own_are_left_alone(tmp_path):
    found, told = sites_of(tmp_path, "North", "South", "A", "B", "1", "2")
    assert found == ["North", "South", "A", "B", "1", "2"]
    assert not {"site_spelling", "site_placeholder"} & set(told)
