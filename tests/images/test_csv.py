"""A CSV file becomes a manifest, or a complaint that names the line."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featstore.errors import ManifestError
from featstore.images.scan import scan


@pytest.fixture
def table(write):
    """Write a CSV file beside five images ``ct/0.png`` ... and return its path."""
    root = write({f"ct/{seed}.png": seed for seed in range(5)} | {"two/0.png": 6, "two/0.jpg": 7})

    def write_table(text: str | bytes):
        path = root / "data.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_table


def rows(manifest):
    return [(r.path.name, r.label, r.group, r.split, r.site) for r in manifest.records]


def test_all_columns_are_read_in_any_order(table):
    manifest = scan(
        table("site,split,path,group,label\nBonn,Training,ct/1.png,p1,ill\n,dev,ct/0.png,p2,well\n")
    )
    assert rows(manifest) == [("0.png", "well", "p2", "val", None), ("1.png", "ill", "p1", "train", "Bonn")]
    assert manifest.has_groups
    assert manifest.root == table("").parent


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_byte_order_mark_and_line_ends_do_not_matter(table, mark, end):
    lines = [b"path,label", b"ct/0.png,ill", b"ct/1.png,well", b""]
    manifest = scan(table(mark + end.join(lines)))
    assert manifest.count_by_class() == {"ill": 1, "well": 1}
    assert not manifest.has_groups
    assert {record.group for record in manifest.records} == {record.id for record in manifest.records}


def test_spaces_around_labels_do_not_make_new_classes(table):
    assert scan(table("path, label \nct/0.png, ill\nct/1.png,ill \n")).classes == ("ill",)


def test_a_name_with_comma_quote_and_line_break_is_quoted(table, write):
    name = 'ct/a,"b"\nc.png'
    write({name: 7})
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), (name, "ill"), ("ct/0.png", "well")])
    assert {record.path.name for record in scan(table(text.getvalue())).records} == {'a,"b"\nc.png', "0.png"}


WRONG = [
    ("empty-file", "", 1, "empty"),
    ("only-a-header", "path,label\n", 1, "no images"),
    ("no-label-column", "path,class\nct/0.png,ill\n", 1, "no column 'label'"),
    ("no-header", "ct/0.png,ill\nct/1.png,well\n", 1, "it names no columns"),
    ("two-suffixes-possible", "path,label\ntwo/0,ill\n", 2, "could be 'two/0.jpg' or 'two/0.png'"),
    ("column-twice", "path,label,label\nct/0.png,ill,ill\n", 1, "twice"),
    ("cell-missing", "path,label\nct/0.png,ill\nct/1.png\n", 3, "1 cells under 2 columns"),
    ("cell-too-many", "path,label\nct/0,1.png,ill\n", 2, "3 cells under 2 columns"),
    ("text-after-a-quote", 'path,label\nct/0.png,ill\n"ct/1.png"x,ill\n', 3, "bad quoting"),
    ("quote-never-closed", 'path,label\nct/0.png,ill\n"ct/1.png,ill\nct/2.png,ill\n', 3, "bad quoting"),
    ("label-empty", "path,label\nct/0.png,ill\nct/1.png, \n", 3, "label is empty"),
    ("group-empty", "path,label,group\nct/0.png,ill,p\nct/1.png,ill,\n", 3, "group is empty"),
    ("path-empty", "path,label\n,ill\n", 2, "path is empty"),
    ("no-such-split", "path,label,split\nct/0.png,ill,fold1\n", 2, "'fold1' is no split"),
    ("absolute", "path,label\n/etc/passwd,ill\n", 2, "absolute"),
    ("absolute-on-windows", "path,label\nC:\\ct\\0.png,ill\n", 2, "absolute"),
    ("network-share", "path,label\n\\\\host\\0.png,ill\n", 2, "absolute"),
    ("parent", "path,label\nct/../../0.png,ill\n", 2, "leaves the folder"),
    ("parent-on-windows", "path,label\n..\\0.png,ill\n", 2, "leaves the folder"),
    ("url", "path,label\nhttps://example.org/0.png,ill\n", 2, "URL"),
    ("two-labels", "path,label\nct/0.png,ill\nct/1.png,ill\nct/0.png,well\n", 4, "'ill' on line 2"),
    ("two-labels-in-disguise", "path,label\nct/0.png,ill\n./ct//0.png,well\n", 3, "'ill' on line 2"),
    ("two-splits", "path,label,split\nct/0.png,ill,train\nct/0.png,ill,test\n", 3, "'train' on line 2"),
    (
        "line-counted-after-a-quoted-line-break",
        'path,label\n"ct/0\n.png",ill\nct/1.png,\n',
        4,
        "label is empty",
    ),
    ("latin-1", b"path,label\nct/0.png,ill\nct/1.png,gr\xfcn\n", 3, "not UTF-8"),
]


@pytest.mark.parametrize(("text", "line", "what"), [pytest.param(*case[1:], id=case[0]) for case in WRONG])
def test_a_wrong_line_is_named(table, text, line, what):
    path = table(text)
    with pytest.raises(ManifestError) as caught:
        scan(path)
    assert caught.value.cause.startswith(f"{str(path)!r}, line {line}: ")
    assert what in caught.value.cause
    assert caught.value.remedy


def test_a_line_that_is_repeated_is_worth_a_warning(table):
    manifest = scan(table("path,label\nct/0.png,ill\nct/1.png,well\nct/0.png,ill\n"))
    assert len(manifest.records) == 2
    (finding,) = manifest.findings
    assert (finding.name, finding.count, finding.examples) == ("lines_repeated", 1, ("ct/0.png",))


def test_columns_that_are_not_known_are_named(table):
    manifest = scan(table("path,label,patient,age\nct/0.png,ill,p1,60\n"))
    examples = {finding.name: finding.examples for finding in manifest.findings}
    assert examples == {"columns_ignored": ("age",), "patient_column_unused": ("patient",)}, "each once"
    assert not manifest.has_groups


def test_a_file_that_is_not_there_is_quarantined_and_the_rest_goes_on(table):
    manifest = scan(table("path,label\nct/0.png,ill\nct/9.png,ill\nct/1.png,well\nct,well\n"))
    assert len(manifest.records) == 2
    assert {row.path.name: row.reason for row in manifest.unreadable} == {
        "9.png": "missing",
        "ct": "not_file",
    }


def test_a_list_of_which_nothing_is_there_is_refused(table):
    with pytest.raises(ManifestError, match=r"None of the 2 files .* \(missing\)"):
        scan(table("path,label\nscans/0.png,ill\nscans/1.png,well\n"))


def test_a_link_out_of_the_folder_is_refused_unless_wanted(table, tmp_path):
    path = table("path,label\nct/0.png,ill\nlink/x.png,well\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.png").write_bytes((path.parent / "ct/1.png").read_bytes())
    (path.parent / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="link out of the data set"):
        scan(path)
    assert len(scan(path, follow_links=True).records) == 2


def test_groups_come_from_the_column_or_from_a_pattern_but_not_from_both(table):
    assert scan(table("path,label\nct/0.png,ill\nct/1.png,well\n"), group_pattern=r"(\d)").count_by_group() == {
        "0": 1, "1": 1,
    }  # fmt: skip
    with pytest.raises(ManifestError, match="group column and a group pattern"):
        scan(table("path,label,group\nct/0.png,ill,p\n"), group_pattern=r"(\d)")


def test_the_order_of_the_lines_does_not_matter(table):
    lines = [f"ct/{seed}.png,{'ill' if seed % 2 else 'well'}\n" for seed in range(5)]
    assert scan(table("path,label\n" + "".join(lines))) == scan(table("path,label\n" + "".join(lines[::-1])))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda t: ("path,label\n" + t).encode()))
)
def test_no_text_whatsoever_gets_past_with_anything_but_a_manifest_error(table, text):
    with pytest.raises(ManifestError):
        scan(table(text))
