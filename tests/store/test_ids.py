"""An IdSet is a set of ids, only smaller."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from featstore.store.shard import NO_IDS, IdSet, pack

NASTY = ["00" * 32, "ff" * 32, "ab" + "00" * 31, "00" * 31 + "ab", "ab" * 31 + "00", "61" * 16 + "00" * 16]
ids = st.one_of(st.sampled_from(NASTY), st.binary(min_size=32, max_size=32).map(bytes.hex))
sets = st.frozensets(ids, max_size=12)


@given(sets, sets)
def test_it_is_the_set_of_the_same_ids(one, other):
    left, right = IdSet.of(one), IdSet.of(other)
    assert left == one
    assert one == left
    assert len(left) == len(one)
    assert list(left) == sorted(one)
    assert left.difference(right) == left.difference(other) == left - right == one - other
    assert left.union(right, other) == left | right == one | other
    assert left & right == one & other
    assert (left == right) == (one == other)
    assert all((i in left) == (i in one) for i in one | other)


@given(sets, st.lists(ids, max_size=12))
def test_many_ids_are_answered_at_once_in_their_order(one, asked):
    assert IdSet.of(one).holds(pack(asked)).tolist() == [i in one for i in asked]


@given(st.lists(ids, max_size=12))
def test_packed_ids_may_come_in_any_order_and_twice(given_ids):
    packed = bytes.fromhex("".join(given_ids))
    assert IdSet.from_bytes(packed) == set(given_ids)
    assert IdSet.of(given_ids) == set(given_ids)


def test_nothing_taken_away_is_the_same_object():
    whole = IdSet.of(NASTY)
    assert whole.difference(()) is whole
    assert whole.difference(whole) == NO_IDS


def test_it_survives_the_trip_between_processes():
    assert pickle.loads(pickle.dumps(IdSet.of(NASTY))) == set(NASTY)  # noqa: S301 - our own bytes
