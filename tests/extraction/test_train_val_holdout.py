"""Where a class has no patient to validate on, finetune says what helps, and that was tried."""

import re
from pathlib import Path

import pytest

from featstore.errors import AuditError
from featstore.splits import split_for_finetuning as divide
from featstore.types import ImageRecord


def records(splits=None, **patients):
    """So many patients of each class, two images each."""
    return [
        ImageRecord(
            f"{c}{p}{i}".encode().hex().zfill(64), Path(f"{c}{p}{i}.png"), c, f"{c}{p}", splits and splits[p]
        )
        for c, count in patients.items()
        for p in range(count)
        for i in range(2)
    ]


def refused(table, test_size, seed):
    try:
        divide(table, test_size, seed, seed)
    except AuditError as error:
        return error.remedy
    return None


@pytest.mark.parametrize("few", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("test_size", [0.5, 0.25])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_share_that_is_advised_works_and_so_do_more_patients(few, test_size, seed):
    table = records(a=12, b=few)
    remedy = refused(table, test_size, seed)
    if remedy is not None:
        named = re.search(r"--test-size ([\d.]+)", remedy)
        assert named or ("four or more" in remedy and few < 4)
        table, test_size = (table, float(named[1])) if named else (records(a=12, b=4), 0.25)
    sides = divide(table, test_size, seed, seed)
    for rows in (sides.trained, sides.validated, *sides.held_out.values()):
        assert set(sides.y[rows]) == {0, 1}


def test_in_a_split_of_the_data_patients_are_to_be_moved_to_train():
    with pytest.raises(AuditError) as caught:
        divide(records(a=3, b=3, splits=["train", "test", "test"]), 0.25, 0, 0)
    assert "into train, until each has three there" in caught.value.remedy
    assert "--" not in caught.value.remedy
    divide(records(a=4, b=4, splits=["train", "test", "train", "train"]), 0.25, 0, 0)
