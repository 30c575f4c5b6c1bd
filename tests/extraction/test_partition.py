"""The shares of a job array are disjoint and complete, and depend on the id alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.api.extract import worker_partition
from featstore.errors import UsageError
from featstore.images.manifest import Manifest, Quarantined
from featstore.serialization import digest
from featstore.types import ImageRecord


def manifest(count):
    rows = tuple(ImageRecord(digest(n), Path(f"{n}.png"), "ill", f"p{n}") for n in range(count))
    return Manifest(Path(), rows, unreadable=(Quarantined(Path("x"), None, "missing", "gone"),))


@given(st.integers(0, 60), st.integers(1, 9))
def test_every_image_falls_to_one_worker(count, workers):
    whole = manifest(count)
    parts = [worker_partition(whole, workers, index) for index in range(workers)]
    assert sorted(r.id for part in parts for r in part.records) == sorted(r.id for r in whole.records)
    assert sum(len(part.unreadable) for part in parts) == 1


def test_more_images_move_none():
    few, many = worker_partition(manifest(20), 3, 1), worker_partition(manifest(50), 3, 1)
    assert set(few.records) == {r for r in many.records if r in set(manifest(20).records)}


def test_the_shares_are_of_similar_size():
    sizes = [len(worker_partition(manifest(3000), 3, index).records) for index in range(3)]
    assert min(sizes) > 900


@pytest.mark.parametrize(("workers", "index"), [(2, 2), (2, -1), (0, 0)])
def test_a_worker_that_does_not_exist_is_refused(workers, index):
    with pytest.raises(UsageError, match="There is no worker"):
        worker_partition(manifest(3), workers, index)
