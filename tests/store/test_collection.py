"""gc deletes what no run will ask for, after it was shown, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import DECODING, key, spec, write_images

from featstore.api.cache import gc, verify
from featstore.errors import StoreError, UsageError
from featstore.images.scan import scan
from featstore.serialization import digest
from featstore.store import paths as layout
from featstore.store.leases import Leases
from featstore.store.notes import BadImage
from featstore.store.shard import IdSet
from featstore.store.store import Store
from featstore.types import IMPORTED_PREFIX, Computation, FeatureKey, View

VIEW = key(view=View("flip(h)", 1))
OLD = key(replace(spec(), revision=1))
STRANGERS = [digest(number) for number in range(6)]


def rows(ids):
    return np.array([[int(i[:4], 16) + d for d in range(12)] for i in ids], np.float32)


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "data", 6)


@pytest.fixture
def wanted(data):
    return [record.id for record in scan(data).records]


@pytest.fixture
def store(tmp_path, wanted):
    """Wanted and unwanted images in one shard and in separate ones."""
    store = Store(tmp_path / "cache")
    store.write(key(), [*wanted, *STRANGERS[:2]], rows([*wanted, *STRANGERS[:2]]))
    store.write(key(), STRANGERS[2:], rows(STRANGERS[2:]))
    store.write(VIEW, wanted, rows(wanted))
    store.flush()
    return store


def files(root):
    return {p: p.read_bytes() for p in root.rglob("*") if p.is_file() and p.parent.name != "index"}


def kinds(found):
    return sorted((item.kind, item.rows, item.kept) for item in found.garbage)


def test_rows_that_stay_keep_their_batch_size(tmp_path, data, wanted):
    store = Store(tmp_path / "cache")
    path = store.write(key(), [*wanted, *STRANGERS], rows([*wanted, *STRANGERS]), Computation(16))
    store.flush()
    gc(data, cache=store.root)
    (left,) = path.parent.glob("*.h5")
    assert (store.load(left).computation.batch_size, len(store.load(left).ids)) == (16, len(wanted))


def test_a_store_of_wanted_things_has_no_garbage(store):
    before = files(store.root)
    found = gc(cache=store.root)
    assert (found.garbage, found.deleted) == ((), False)
    assert files(store.root) == before


def test_vectors_of_images_in_no_data_set_go_and_all_others_stay(store, data, wanted):
    found = gc(data, cache=store.root)
    assert kinds(found) == [("image", 2, 6), ("image", 4, 0)]
    assert found.deleted
    after = Store(store.root)
    assert after.stored_ids(key()) == set(wanted)
    np.testing.assert_array_equal(after.read(key(), wanted), rows(wanted))
    np.testing.assert_array_equal(after.read(VIEW, wanted), rows(wanted))
    assert verify(store.root).bad == ()
    assert gc(data, cache=store.root).garbage == ()


def test_an_image_of_any_given_data_set_stays(store, data, tmp_path, wanted):
    other = write_images(tmp_path / "other", 4, seed=1)
    theirs = [record.id for record in scan(other).records]
    store.write(key(), theirs, rows(theirs))
    gc(data, other, cache=store.root)
    assert Store(store.root).stored_ids(key()) == {*wanted, *theirs}


def test_without_data_no_image_is_garbage_but_old_revisions_and_leftovers_are(store, wanted):
    store.write(OLD, wanted, rows(wanted))
    stale = FeatureKey(spec(), View(), replace(DECODING, revision=0))
    store.write(stale, wanted, rows(wanted))
    left = layout.shard_folder(store.root, key()) / ".tmp-0123456789abcdef"
    left.write_bytes(b"half a shard")
    found = gc(cache=store.root)
    assert kinds(found) == [("revision", 6, 0), ("revision", 6, 0), ("temporary", 0, 0)]
    assert not left.exists()
    assert not layout.backbone_folder(store.root, OLD.backbone).exists(), "no empty folder stays"
    assert set(Store(store.root).feature_keys()) == {key(), VIEW}
    assert len(Store(store.root).stored_ids(key())) == 12


def test_imported_vectors_have_no_revision_that_could_be_old(store, wanted):
    foreign = key(replace(spec("Theirs"), weights=f"{IMPORTED_PREFIX}abc", revision=0))
    store.write(foreign, wanted, rows(wanted))
    assert gc(cache=store.root).garbage == ()


def test_a_dry_run_promises_what_is_then_done_and_changes_nothing(store, data):
    before = files(store.root)
    promised = gc(data, cache=store.root, dry_run=True)
    assert (files(store.root), promised.deleted) == (before, False)
    assert gc(data, cache=store.root).garbage == promised.garbage


@pytest.mark.parametrize("answer", [True, False])
def test_what_goes_is_shown_first_and_a_no_is_a_no(store, data, answer):
    before, shown = files(store.root), []
    found = gc(data, cache=store.root, confirm=lambda seen: shown.append((seen, files(store.root))) or answer)
    assert shown[0][0].garbage == found.garbage
    assert shown[0][1] == before, "asked before anything went"
    assert found.deleted is answer
    assert (files(store.root) == before) is not answer


def test_quarantine_is_left_alone(store, data):
    store.record_bad_image(DECODING, BadImage("ab" * 32, "truncated", "8 bytes are missing"))
    path = store.write(key(), STRANGERS[:1], rows(STRANGERS[:1]))
    path.write_bytes(b"rotten")
    verify(store.root, repair=True)
    aside = {p: p.read_bytes() for p in store.root.glob("quarantine/**/*.*")}
    assert len(aside) == 3
    gc(data, cache=store.root)
    assert {p: p.read_bytes() for p in store.root.glob("quarantine/**/*.*")} == aside


def test_files_that_are_not_featstores_are_left_alone(store, data):
    mine = store.root / "features" / "notes.txt"
    mine.write_text("mine")
    gc(data, cache=store.root)
    assert mine.exists()


def test_an_unreadable_file_may_be_any_image_so_nothing_is_taken_for_garbage(store, data):
    data.write_text(data.read_text() + "ill/gone.png,ill,p9\n")
    before = files(store.root)
    with pytest.raises(UsageError, match="cannot be read"):
        gc(data, cache=store.root)
    assert files(store.root) == before


def test_a_running_extraction_is_not_disturbed(store, data):
    before = files(store.root)
    with Leases(store.root) as theirs, theirs.acquire({VIEW: IdSet.of(STRANGERS)}):
        with pytest.raises(StoreError, match="is being written to: process") as caught:
            gc(data, cache=store.root)
        assert gc(data, cache=store.root, dry_run=True).garbage, "a look is allowed"
    assert caught.value.exit_code == 4
    assert files(store.root) == before


def test_an_extraction_that_begins_while_the_question_is_open_is_not_disturbed(store, data):
    leases = Leases(store.root)

    def then_somebody_starts(_found):
        leases.acquire({VIEW: IdSet.of(STRANGERS)})
        return True

    before = files(store.root)
    with leases, pytest.raises(StoreError, match="is being written to"):
        gc(data, cache=store.root, confirm=then_somebody_starts)
    assert files(store.root) == before


def test_rows_that_stay_are_read_back_before_the_old_shard_goes(store, data, wanted, monkeypatch):
    write = Store.write

    def and_rot(self, *arguments):
        path = write(self, *arguments)
        path.write_bytes(path.read_bytes()[:-1])
        return path

    monkeypatch.setattr(Store, "write", and_rot)
    with pytest.raises(StoreError, match="did not come back"):
        gc(data, cache=store.root)
    assert {*wanted, *STRANGERS[:2]} <= Store(store.root).stored_ids(key()), (
        "the shard with wanted rows is still there"
    )
