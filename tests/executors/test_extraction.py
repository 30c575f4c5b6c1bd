"""Whoever computes, the store is the same, byte for byte; a worker that dies costs only time."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import DECODING, RECIPE, key, records, spec
from pickles import ForgettingTheAnswer, Grids

from featstore.api.cache import verify
from featstore.errors import NonFiniteFeaturesError, UsageError, WorkerLostError
from featstore.executors.processes import Processes
from featstore.executors.serial import Serial
from featstore.extraction import scheduler as pieces
from featstore.extraction.plan import plan
from featstore.extraction.scheduler import ExtractWorker, compute_plan, split_into_units
from featstore.images.reading import decoder_version
from featstore.store.store import Store
from featstore.types import IDENTITY, View

SPECS = [spec("Alpha"), spec("Beta"), spec("Gamma", side=24)]
VIEWS = [IDENTITY, View(RECIPE, 1), View(RECIPE, 2)]
REAL = dataclasses.replace(DECODING, decoder=decoder_version())
KEYS = [dataclasses.replace(key(s, v), decoding=REAL) for v in VIEWS for s in SPECS]
ROWS = 4


class Bar:
    def __init__(self):
        self.count = 0

    def say(self, phase):
        pass

    def update(self, n=1, backbone=None):  # noqa: ARG002
        self.count += n

    def set_postfix_str(self, text, refresh=True):
        pass


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Blocks of few images, in the parent and (since a portion is one block) in every worker."""
    monkeypatch.setattr(pieces.image_blocks, "__defaults__", (ROWS,))
    monkeypatch.setattr(split_into_units, "__defaults__", (ROWS,))


@pytest.fixture
def images(tmp_path):
    return records(tmp_path / "data", 11)


def extract(images, cache, executor, networks=None, decoding=REAL, bar=None, todo=None):
    def replan(bad):
        store = Store(cache)
        ids = [i for i in images if i not in bad]
        return plan(KEYS, ids, store.stored(KEYS), store.bad_images(decoding))

    work = ExtractWorker(networks or Grids(), decoding, cache)
    return compute_plan(todo or replan(()), images, work, executor, bar or Bar(), replan)


def files(cache):
    return {p.relative_to(cache): p.read_bytes() for p in sorted(cache.glob("features/**/*")) if p.is_file()}


def require_every_row_once(cache, images):
    state = verify(cache)
    assert state.bad == ()
    assert state.rows == len(KEYS) * len(images)
    assert all(ids == set(images) for ids in Store(cache).stored(KEYS).values())


def vectors(cache, images):
    return [Store(cache).read(k, sorted(images)).tobytes() for k in KEYS]


def test_every_executor_writes_the_store_of_one_process(computing, images, tmp_path):
    stats = extract(images, tmp_path / "one", Serial())
    bar = Bar()
    spread = extract(images, tmp_path / "other", computing, bar=bar)
    assert files(tmp_path / "other") == files(tmp_path / "one")
    assert spread.rows == stats.rows == len(KEYS) * len(images)
    assert bar.count == (0 if computing.in_process else spread.rows)
    require_every_row_once(tmp_path / "other", images)


def test_workers_that_are_killed_in_mid_portion_cost_only_time(computing_elsewhere, images, tmp_path):
    extract(images, tmp_path / "one", Serial())
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    bar = Bar()
    stats = extract(images, tmp_path / "other", computing_elsewhere, Grids(deaths, kills=2), bar=bar)
    assert len(list(deaths.iterdir())) == 2
    require_every_row_once(tmp_path / "other", images)
    assert vectors(tmp_path / "other", images) == vectors(tmp_path / "one", images)
    assert stats.rows == bar.count == len(KEYS) * len(images)


def test_vectors_of_a_worker_that_died_before_its_answer_are_counted(computing_elsewhere, images, tmp_path):
    """They are stored, and the one who does the work again finds nothing to do."""

    class Dying:
        workers, in_process = computing_elsewhere.workers, False

        def run(self, work, items):
            return computing_elsewhere.run(ForgettingTheAnswer(work, tmp_path / "mark"), items)

    bar = Bar()
    stats = extract(images, tmp_path / "cache", Dying(), bar=bar)
    assert (tmp_path / "mark").exists()
    require_every_row_once(tmp_path / "cache", images)
    assert stats.rows == bar.count == len(KEYS) * len(images)


@pytest.mark.slow
def test_after_three_rounds_it_says_how_many_vectors_are_missing(images, tmp_path, monkeypatch):
    monkeypatch.setattr(split_into_units, "__defaults__", (len(images),))
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    with pytest.raises(
        WorkerLostError, match=r"^99 of 99 vectors are still missing after 3 rounds"
    ) as caught:
        extract(images, tmp_path / "cache", Processes(workers=2), Grids(deaths, kills=10**6, after=1))
    assert "fewer --workers" in caught.value.remedy
    portions_a_round = len(split_into_units(plan(KEYS, list(images), {}), images, 2))
    assert len(list(deaths.iterdir())) == 3 * portions_a_round


def test_an_error_in_a_worker_ends_the_run_as_the_error_it_is_and_keeps_what_was_committed(
    computing, images, tmp_path
):
    cache = tmp_path / "cache"
    with pytest.raises(NonFiniteFeaturesError) as caught:
        extract(images, cache, computing, Grids(fail=True, after=2))
    assert caught.value.remedy == "Check its weights file."
    assert verify(cache).bad == ()
    extract(images, cache, Serial())
    require_every_row_once(cache, images)


def test_a_bad_image_in_a_worker_is_reported_once_and_the_run_goes_on(computing, images, tmp_path):
    from featstore.serialization import digest_bytes

    victim, gone = list(images.values())[4], list(images.values())[9]
    data = victim.path.read_bytes()[:-30]
    victim.path.write_bytes(data)
    gone.path.unlink()
    broken = dataclasses.replace(victim, id=digest_bytes(data))
    images = {r.id: r for r in (broken if r is victim else r for r in images.values())}
    stats = extract(images, tmp_path / "cache", computing)
    assert sorted((bad.id, bad.reason) for bad in stats.bad) == sorted(
        [
            (broken.id, "truncated"),
            (gone.id, "missing"),
        ]
    )
    assert stats.rows == len(KEYS) * 9
    assert set(Store(tmp_path / "cache").bad_images(REAL)) == {broken.id}


def test_a_worker_with_another_decoder_refuses(computing, images, tmp_path):
    with pytest.raises(UsageError, match=r"decodes with pillow .* of pillow 0\.0\.0"):
        extract(images, tmp_path / "cache", computing, decoding=DECODING)


@pytest.mark.slow
@pytest.mark.concurrency
def test_two_runs_at_once_share_the_work_whoever_computes(computing, images, tmp_path, tried):
    extract(images, tmp_path / "one", Serial())
    cache, bars, todo = tmp_path / "both", [Bar(), Bar()], plan(KEYS, list(images), {})
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(extract, images, cache, computing, bar=bar, todo=todo) for bar in bars]
        computed = [run.result().rows for run in runs]
    require_every_row_once(cache, images)
    assert vectors(cache, images) == vectors(tmp_path / "one", images)
    assert sum(computed) == len(KEYS) * len(images)
    if not computing.in_process:
        assert {bar.count for bar in bars} == {len(KEYS) * len(images)}, (
            "what the other run computed is done, too"
        )
    tried("runs at once", 2)
    tried("rows computed", sum(computed))
    tried("rows computed twice", 0)


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_portions_are_the_plan_cut_where_the_engine_cuts(images, workers):
    todo = plan(KEYS, list(images), {KEYS[0]: list(images)[:5]})
    whole = [step for block in pieces.image_blocks(todo) for step in block.steps]
    parts = split_into_units(todo, images, workers)
    steps = [step for part in parts for block in pieces.image_blocks(part.plan) for step in block.steps]
    assert sorted(map(str, steps)) == sorted(map(str, whole))
    assert len(parts) >= workers
    assert all({r.id for r in part.records} == set(part.plan.ids) for part in parts)
