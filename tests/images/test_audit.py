"""Conflicts and leaks are found, whatever the scan has tidied away; clean data sets pass."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import AuditError
from featstore.images.audit import NEAR, audit, near_duplicates, require_sound
from featstore.images.manifest import Manifest
from featstore.images.scan import scan
from featstore.types import ImageRecord


def codes(manifest, *rest) -> list[tuple[str, str]]:
    return [(finding.severity, finding.name) for finding in audit(manifest, *rest)]


def scan_with_groups(root):
    return scan(root, group_pattern=r"(p\d+)")


def test_a_clean_data_set_with_groups_has_no_findings(write):
    manifest = scan_with_groups(write({"train/a/p1.png": 1, "train/b/p2.png": 2, "test/a/p3.png": 3}))
    assert audit(manifest) == ()
    require_sound(manifest)


def test_a_data_set_without_groups_is_warned_of_and_not_refused(write):
    manifest = scan(write({"a/1.png": 1, "b/2.png": 2}))
    assert codes(manifest) == [("warning", "no_groups")]
    require_sound(manifest)


def test_same_bytes_in_two_classes_are_a_conflict(write):
    manifest = scan_with_groups(write({"a/p1.png": 1, "a/copy of p1.png": 1, "b/p1.png": 1, "b/p2.png": 2}))
    (finding,) = audit(manifest)
    assert (finding.severity, finding.name) == ("error", "label_conflict")
    assert finding.message.startswith("1 images")
    assert "/a/p1.png" in finding.examples[0]
    assert "/b/p1.png" in finding.examples[0]


def test_same_bytes_in_two_splits_are_a_leak(write):
    manifest = scan(write({"train/a/1.png": 1, "test/a/2.png": 1, "test/b/3.png": 3}))
    assert codes(manifest) == [("error", "leak_exact"), ("warning", "no_groups")]


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
    assert {code for _, code in codes(manifest)} == {"leak_exact", "leak_group", "groups_merged"}


def test_one_class_is_an_error_for_fitting_and_not_for_extracting(write):
    manifest = scan_with_groups(write({"a/p1.png": 1, "a/p2.png": 2}))
    assert codes(manifest) == [("error", "one_class")]
    require_sound(manifest, fitting=False)
    with pytest.raises(AuditError, match="one_class"):
        require_sound(manifest)


def test_the_same_image_in_two_groups_is_worth_a_warning(write):
    manifest = scan_with_groups(write({"a/p1.png": 1, "a/p2.png": 1, "b/p3.png": 3}))
    assert codes(manifest) == [("warning", "groups_merged")]


def test_junk_with_the_same_bytes_in_two_classes_is_no_conflict(write):
    manifest = scan_with_groups(write({"a/p1.png": 1, "b/p2.png": 2, "a/p3.png": b"", "b/p4.png": b""}))
    assert audit(manifest) == ()
    assert len(manifest.unreadable) == 2


def test_a_refusal_counts_names_and_mends(write):
    files = {f"{split}/a/{seed}.png": seed for seed in range(7) for split in ("train", "test")}
    manifest = scan(write(files))
    with pytest.raises(AuditError) as caught:
        require_sound(manifest)
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


def with_sides(hashes, splits=None):
    count = len(hashes)
    sides = [splits[n % len(splits)] if splits else None for n in range(count)]
    records = tuple(
        ImageRecord(f"{n:02}", Path(f"{n:02}.png"), "a", group=f"g{n % 3}", split=sides[n])
        for n in range(count)
    )
    manifest = Manifest(root=Path(), records=records, has_groups=True)
    return manifest, {record.id: value for record, value in zip(records, hashes, strict=True)}


def apart(one: int, two: int) -> int:
    return sum(a != b for a, b in zip(f"{one:064b}", f"{two:064b}", strict=True))


CLOSE = st.integers(0, 2**64 - 1).flatmap(
    lambda base: st.lists(
        st.lists(st.integers(0, 63), max_size=5).map(lambda bits: base ^ sum({1 << bit for bit in bits})),
        max_size=12,
    )
)


@given(
    hashes=st.one_of(CLOSE, st.lists(st.integers(0, 2**64 - 1), max_size=12)),
    splits=st.sampled_from([None, ("train", "test", None)]),
)
def test_near_duplicates_are_exactly_the_close_pairs_on_different_sides(hashes, splits):
    manifest, by_id = with_sides(hashes, splits)
    side = {record.id: record.split if manifest.splits else record.group for record in manifest.records}
    expected = {
        (one, two, apart(by_id[one], by_id[two]))
        for one, two in combinations(sorted(by_id), 2)
        if side[one] is not None and side[two] is not None and side[one] != side[two]
        and apart(by_id[one], by_id[two]) <= NEAR
    }  # fmt: skip
    found = near_duplicates(manifest, by_id)
    assert set(found) == expected
    assert list(found) == sorted(found, key=lambda pair: (pair.distance, pair.first, pair.second))


def test_near_duplicates_across_splits_are_listed_as_a_warning():
    manifest, hashes = with_sides([0b1111, 0b0111, 2**64 - 1], ("train", "test"))
    finding = next(finding for finding in audit(manifest, hashes) if finding.name == "copies_across_groups")
    assert finding.severity == "warning"
    assert finding.examples == ("'00.png', '01.png' (1 bits)",)
    assert "copies_across_groups" not in {code for _, code in codes(manifest)}


def test_images_without_a_hash_are_left_out():
    manifest, hashes = with_sides([1, 1], ("train", "test"))
    del hashes["01"]
    assert near_duplicates(manifest, hashes) == ()
