"""Patients under two names are one patient."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.images.names import DisjointSets, merged_groups, spelling
from featstore.images.scan import scan


def test_groups_that_share_a_file_are_merged_and_counted(write):
    root = write({"a/p1-0.png": 1, "a/p2-0.png": 1, "a/p2-1.png": 2, "b/p3-0.png": 3})
    manifest = scan(root, group_pattern=r"(p\d+)")
    assert {record.group for record in manifest.records} == {"p1", "p3"}
    (found,) = [finding for finding in manifest.findings if finding.name == "groups_merged"]
    assert (found.count, found.examples) == (1, ("'p2' is taken for 'p1'",))


def test_groups_that_differ_in_capitals_accents_or_spaces_are_merged(write, tmp_path):
    root = write({f"{n}.png": n for n in range(6)})
    names = ["Pat01", "pat01", "PAT01 ", "Ren\u00e9", "Rene\u0301", "Pat02"]
    lines = [f"{n}.png,{'ab'[n % 2]},{name}" for n, name in enumerate(names)]
    (root / "t.csv").write_text("\n".join(["path,label,group", *lines]) + "\n", encoding="utf-8")
    manifest = scan(root / "t.csv")
    assert len({record.group for record in manifest.records}) == 3


def test_chains_of_shared_files_end_in_one_group():
    assert merged_groups([("a", "1"), ("b", "1"), ("b", "2"), ("c", "2"), ("d", "3")]) == {"b": "a", "c": "a"}


@pytest.mark.parametrize("unseen", ["\u200b", "\u200e", "\u00ad", "\ufeff", "\u2060", "\u00a0"])
def test_groups_that_differ_in_what_nobody_sees_are_merged(unseen):
    assert merged_groups([("P1", "1"), (f"P1{unseen}", "2"), ("P2", "3")]) == {f"P1{unseen}": "P1"}


@given(st.lists(st.tuples(st.sampled_from("aAbBcd"), st.sampled_from("123")), max_size=12))
def test_merged_groups_share_no_image_and_no_spelling(members):
    merged = merged_groups(members)
    groups = {(merged.get(group, group), image) for group, image in members}
    by_image = {}
    for group, image in groups:
        assert by_image.setdefault(image, group) == group
    names = {group for group, _ in groups}
    assert len({spelling(name) for name in names}) == len(names)


def test_a_chain_of_merged_groups_is_not_walked_again_and_again():
    class Counting(dict):
        asked = 0

        def get(self, *arguments):
            Counting.asked += 1
            return super().get(*arguments)

    union, count = DisjointSets(), 2000
    union._parent = Counting()
    names = [f"{at:06}" for at in range(count)]
    for one, other in reversed([*pairwise(names)]):
        union.join([other, one])
    assert {union.find(name) for name in names} == {names[0]}
    assert Counting.asked < 12 * count
