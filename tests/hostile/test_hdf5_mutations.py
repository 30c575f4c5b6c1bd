"""HDF5 that is damaged where it matters, and forged files to import: an answer each, and never the end of the run."""

import warnings
from collections import Counter

import forged_imports
import hdf5_mutations
import pytest
from fakes import write_images

from featstore.api.exchange import import_features
from featstore.errors import FeatstoreError
from featstore.images.scan import scan
from featstore.isolated_reading import LostError, call_isolated
from featstore.store.store import Store

pytestmark = pytest.mark.hostile
MEMORY = 1 << 20
"""KiB that a process may take that reads any of these files, all of which are small."""


def listing(folder):
    """All that lies in a folder, with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", hdf5_mutations.seeds())
def test_what_is_mutated_is_whole_before(name, tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(hdf5_mutations.seeds()[name])
    (ends, _), _ = call_isolated("hdf5_mutations:attempt", path, name)
    assert ends.count("read") == {"weights": 1, "new weights": 1, "shard": 5}.get(name, 4)


def test_a_seal_is_made_good():
    """Else the mutations would be caught by the first checksum."""
    sealed = [(start, size) for start, size in hdf5_mutations.structures("new") if size]
    assert len(sealed) > 20
    assert len({hdf5_mutations.seeds()["new"][start : start + 4] for start, _ in sealed}) >= 8


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_mutated_file_is_read_or_refused_or_costs_the_process_that_reads_it(count, tmp_path, tried):
    path, ends, texts = tmp_path / "x.h5", Counter(), set()
    for number in range(count):
        name, data = hdf5_mutations.mutation(number)
        path.write_bytes(data)
        try:
            (found, peak), _ = call_isolated("hdf5_mutations:attempt", path, name)
        except LostError as error:
            ends["lost"] += 1
            texts.add(str(error))
            continue
        assert peak < MEMORY
        ends.update("read" if end == "read" else "refused" for end in found)
    assert not any("\n" in text for text in texts)
    assert [*tmp_path.iterdir()] == [path]
    assert ends["refused"] > count / 2
    assert ends["lost"] < count / 5
    tried("mutated HDF5 structures", count)
    tried("of which the HDF5 library died", ends["lost"])


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_a_forged_file_is_imported_or_refused_in_two_lines(count, tmp_path, tried):
    data = write_images(tmp_path / "data", 6)
    names = [path.name for path in sorted(data.parent.rglob("*.png"))]
    (tmp_path / "forged").mkdir()
    before = listing(data.parent)
    taken, texts = 0, set()
    for number in range(count):
        path, content = forged_imports.forged(number, names)
        path = tmp_path / "forged" / path
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                import_features(data, path, f"Forged{number}", cache=tmp_path / "caches" / str(number // 25))
        except FeatstoreError as error:
            texts.add(str(error))
        else:
            taken += 1
        path.unlink()
    assert {text.count("\n") for text in texts} == {1}
    assert listing(data.parent) == before
    assert {entry.name for entry in tmp_path.iterdir()} <= {"data", "forged", "caches"}
    assert not [*(tmp_path / "forged").iterdir()]
    images = {record.id for record in scan(data).records}
    for store in map(Store, (tmp_path / "caches").iterdir()):  # of all images, or of those that a file names
        assert all(set(store.stored_ids(key)) <= images for key in store.feature_keys())
    assert 0 < taken < count
    tried("forged files to import", count)
