"""Who is on which side: whole patients stay whole, and what a split by image tears apart is counted."""

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.images.manifest import Manifest
from featstore.reproduction.protocol import Fits, hit_probability, leak, sample, split, split_counts
from featstore.types import ImageRecord


def manifest(groups, labels):
    records = tuple(
        ImageRecord(f"{at:064x}", Path(f"{at}.png"), label, group)
        for at, (group, label) in enumerate(zip(groups, labels, strict=True))
    )
    return Manifest(Path(), records, has_groups=True)


def sides(whole, text):
    """`text` says the side of each image: t for train, v for val, x for test."""
    names = {"t": "train", "v": "val", "x": "test"}
    apart = whole.by_image()
    return apart.with_splits({r.id: names[at] for r, at in zip(apart.records, text, strict=True)})


def test_a_planted_leak_is_counted():
    whole = manifest("AAABBBCCDD", ["ill"] * 6 + ["well"] * 4)
    found = leak(whole, sides(whole, "ttxxtvtxvx"))
    # A: train and test; B: test and train (and val); C: train and test; D: val and test only, which teaches nothing
    assert (found.patients, found.in_both) == (4, 3)
    assert (found.test_images, found.known_images) == (4, 3)
    clean = leak(whole, sides(whole, "tttxxxvvtt"))
    assert (clean.in_both, clean.known_images, clean.test_images) == (0, 0, 3)


def test_where_no_patients_are_named_nothing_can_be_counted():
    whole = manifest("ABCD", ["ill", "well"] * 2).by_image()
    assert leak(whole, sides(whole, "txtx")) is None


patients = st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["ill", "well"])), min_size=8, max_size=30)


@settings(max_examples=40)
@given(patients, st.integers(0, 99))
def test_a_split_by_patient_tears_none_apart_and_one_by_image_uses_every_image(sizes, seed):
    sizes = [(3, "ill"), (3, "well"), *sizes]
    groups = [f"p{at}" for at, (size, _) in enumerate(sizes) for _ in range(size)]
    labels = [label for size, label in sizes for _ in range(size)]
    whole = manifest(groups, labels)
    together = split(whole, seed)
    seen = defaultdict(set)
    for record in together.records:
        seen[record.group].add(record.split)
    assert all(len(splits) == 1 for splits in seen.values())
    assert leak(whole, together).in_both == 0
    apart = split(whole.by_image(), seed)
    assert apart.groups_set_aside
    counted = split_counts(apart)
    assert sum(sum(classes.values()) for classes in counted.values()) == len(labels)
    for label in ("ill", "well"):
        n = labels.count(label)
        assert abs(counted["test"][label] - n / 4) <= 0.5
        assert abs(counted["val"][label] - 0.4 * (n - counted["test"][label])) <= 0.5
    by_hand = {g for g, r in zip(groups, apart.records, strict=True) if r.split == "train"} & {
        g for g, r in zip(groups, apart.records, strict=True) if r.split == "test"
    }
    assert leak(whole, apart).in_both == len(by_hand)


@settings(max_examples=20)
@given(patients, st.integers(0, 99))
def test_the_papers_proportions_are_2450_of_6000_and_halves_of_the_rest(sizes, seed):
    labels = [label for size, label in [(3, "ill"), (3, "well"), *sizes] for _ in range(size)]
    drawn = split(manifest([f"i{at}" for at in range(len(labels))], labels), seed, paper_split=True)
    counted = split_counts(drawn)
    for label in ("ill", "well"):
        n = labels.count(label)
        assert abs(counted["train"][label] - n * 2450 / 6000) <= 1
        assert abs(counted["test"][label] - n * 1775 / 6000) <= 0.5


def test_the_hit_probability_is_the_mean_of_what_the_vote_gives_its_own_answer(tmp_path):
    (tmp_path / "vote").mkdir()
    rows = ["split,image_id,group,label,predicted,p(ill),p(well)"]
    answers = [("test", "ill", 0.9), ("test", "well", 0.75), ("test", "ill", 0.4), ("train", "ill", 0.1)]
    for at, (side, label, ill) in enumerate(answers):
        predicted = "ill" if ill > 0.5 else "well"
        rows.append(f"{side},{at:064x},g{at},{label},{predicted},{ill},{1 - ill}")
    (tmp_path / "vote/predictions.csv").write_text("\n".join(rows) + "\n")
    vote = SimpleNamespace(matrix={"classes": {"ill": 3, "well": 1}})
    found = hit_probability(Fits({}, None, None, vote), tmp_path)
    assert found == pytest.approx({"all": (0.9 + 0.75 + 0.6) / 3, "right": 0.9, "wrong": (0.75 + 0.6) / 2})
    assert hit_probability(Fits({}, None, None, None), tmp_path) == {}


@settings(max_examples=40)
@given(patients, st.integers(1, 200))
def test_a_sample_is_whole_patients_and_about_as_large_as_asked(sizes, wanted):
    groups = [f"p{at}" for at, (size, _) in enumerate(sizes) for _ in range(size)]
    labels = [label for size, label in sizes for _ in range(size)]
    whole = manifest(groups, labels)
    part = sample(whole, wanted, 0)
    taken = part.count_by_group()
    assert taken == {group: groups.count(group) for group in taken}
    if wanted >= len(groups):
        assert part is whole
    for label in part.classes:
        n = labels.count(label)
        assert abs(part.count_by_class()[label] - wanted * n / len(groups)) <= 5 or wanted >= len(groups)
