"""Blocks say which columns belong to which backbone."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import UsageError
from featstore.fusion.strategy import check_blocks, split_columns
from featstore.types import Block, make_blocks


@given(st.dictionaries(st.text(max_size=5), st.integers(1, 50), min_size=1, max_size=6))
def test_blocks_laid_out_tile_the_columns_and_split_them_back(widths):
    blocks = make_blocks(widths)
    X = np.arange(2 * sum(widths.values())).reshape(2, -1)
    assert check_blocks(blocks, X.shape[1]) == blocks
    assert [part.shape[1] for part in split_columns(X, blocks)] == list(widths.values())
    np.testing.assert_array_equal(np.concatenate(split_columns(X, blocks), axis=1), X)


def test_no_blocks_means_one_block_of_all_columns():
    assert check_blocks(None, 7) == (Block("all", 0, 7),)


def test_split_does_not_copy():
    X = np.zeros((3, 5))
    assert all(np.shares_memory(part, X) for part in split_columns(X, make_blocks({"a": 2, "b": 3})))


@pytest.mark.parametrize(
    "blocks",
    [
        (),
        (Block("a", 0, 4),),
        (Block("a", 0, 6),),
        (Block("a", 1, 5),),
        (Block("a", 0, 3), Block("b", 2, 5)),
        (Block("a", 0, 2), Block("b", 3, 5)),
        (Block("b", 2, 5), Block("a", 0, 2)),
        (Block("a", 0, 0), Block("b", 0, 5)),
        (Block("a", 0, 6), Block("b", 6, 5)),
    ],
    ids=["none", "short", "long", "late", "overlap", "gap", "swapped", "empty", "backwards"],
)
def test_blocks_that_do_not_tile_are_refused(blocks):
    with pytest.raises(UsageError, match=r"do not tile 5 columns\.\nGive one block per backbone"):
        check_blocks(blocks, 5)


def test_two_blocks_of_one_name_are_refused():
    with pytest.raises(UsageError, match="same name"):
        check_blocks((Block("a", 0, 2), Block("a", 2, 5)), 5)


def test_a_block_is_a_value():
    block = Block("Xception", 0, 2048)
    assert block == copy.deepcopy(block)
    assert len({block, copy.deepcopy(block)}) == 1
    with pytest.raises(AttributeError):
        block.name = "other"
