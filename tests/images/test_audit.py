"""Conflicts and leaks are found, whatever the scan has tidied away; clean data sets pass."""

from __future__ import annotations

import pytest

from featstore.errors import AuditError
from featstore.images.manifest import audit, require_no_errors
from featstore.images.scan import scan


def codes(manifest, *rest) -> list[tuple[str, str]]:
    return [(finding.severity, finding.name) for finding in audit(manifest, *rest)]


def scan_with_groups(root):
    return scan(root, group_pattern=r"(p\d+)")


def test_a_clean_data_set_with_groups_has_no_findings(write):
    manifest = scan_with_groups(write({"train/a/p1.png": 1, "train/b/p2.png": 2, "test/a/p3.png": 3}))
    assert audit(manifest) == ()
    require_no_errors(manifest)


def test_a_data_set_without_groups_is_warned_of_and_not_refused(write):
    manifest = scan(write({"a/1.png": 1, "b/2.png": 2}))
    assert codes(manifest) == [("warning", "no_groups")]
    require_no_errors(manifest)


def test_same_bytes_in_two_classes_are_a_conflict(write):
    manifest = scan_with_groups(write({"a/p1.png": 1, "a/copy of p1.png": 1, "b/p1.png": 1, "b/p2.png": 2}))
    finding, copies = audit(manifest)
    assert (finding.severity, finding.name, copies.name) == ("error", "label_conflict", "copies")
    assert finding.message == "1 image is in two classes."
    assert "/a/p1.png" in finding.examples[0]
    assert "/b/p1.png" in finding.examples[0]


def test_same_bytes_in_two_splits_are_a_leak(write):
    manifest = scan(write({"train/a/1.png": 1, "test/a/2.png": 1, "test/b/3.png": 3}))
    assert codes(manifest) == [("error", "leak_exact"), ("warning", "no_groups"), ("note", "copies")]


def test_a_group_in_two_splits_is_a_leak(write):
    manifest = scan_with_groups(write({"train/a/p1-1.png": 1, "test/a/p1-2.png": 2, "test/b/p3.png": 3}))
    (finding,) = audit(manifest)
    assert finding.name == "leak_group"
    assert finding.examples == ("'p1' in test, train",)


def test_a_group_that_reaches_the_other_split_only_by_a_copy_is_a_leak(write):
    """The copy is not a record: an audit of the records alone would miss it."""
    manifest = scan_with_groups(
        write({"test/a/p1.png": 1, "train/a/p2-1.png": 1, "test/a/p2-2.png": 2, "train/b/p4.png": 4})
    )
    assert {code for _, code in codes(manifest)} == {"leak_exact", "leak_group", "groups_merged", "copies"}


def test_one_class_is_an_error_for_fitting_and_not_for_extracting(write):
    manifest = scan_with_groups(write({"a/p1.png": 1, "a/p2.png": 2}))
    assert codes(manifest) == [("error", "one_class")]
    require_no_errors(manifest, fitting=False)
    with pytest.raises(AuditError, match="one_class"):
        require_no_errors(manifest)


def test_the_same_image_in_two_groups_is_worth_a_warning(write):
    manifest = scan_with_groups(write({"a/p1.png": 1, "a/p2.png": 1, "b/p3.png": 3}))
    assert codes(manifest) == [("warning", "groups_merged"), ("note", "copies")]


def test_junk_with_the_same_bytes_in_two_classes_is_no_conflict(write):
    manifest = scan_with_groups(write({"a/p1.png": 1, "b/p2.png": 2, "a/p3.png": b"", "b/p4.png": b""}))
    assert audit(manifest) == ()
    assert len(manifest.unreadable) == 2


def test_a_refusal_counts_names_and_mends(write):
    files = {f"{split}/a/{seed}.png": seed for seed in range(7) for split in ("train", "test")}
    manifest = scan(write(files))
    with pytest.raises(AuditError) as caught:
        require_no_errors(manifest)
    error = caught.value
    assert error.exit_code == 5
    assert "leak_exact: 7 images are in two splits." in error.cause
    assert "one_class" in error.cause
    assert "Delete the copies" in error.remedy
    assert "\n" not in error.cause
    assert len(audit(manifest)[0].examples) == 5


def test_a_conflict_between_pages_is_found(write, picture, encode):
    stack = encode(picture(), "TIFF", save_all=True, append_images=[picture(1)])
    manifest = scan_with_groups(write({"a/p1.tif": stack, "b/p1.tif": stack}))
    assert audit(manifest)[0].message.startswith("2 images")
