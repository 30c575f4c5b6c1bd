"""What was fitted once is not fitted again, and a ledger that lies is not believed."""

import json

import numpy as np
import pytest
from fakes_matrix import make_matrix

from featstore import serialization as document
from featstore.api.cache import verify
from featstore.evaluation import crossval as tournament
from featstore.evaluation.candidates import make_candidates, with_views
from featstore.evaluation.crossval import CacheUsage, PredictionCache, cross_validate
from featstore.serialization import canonical_json, digest_bytes, seal
from featstore.splits import group_folds
from featstore.store import notes as results

MATRIX = make_matrix(signal=(1.0, 0.5), patients=16, views=2)
SPLITS = group_folds(MATRIX, 2)
CANDIDATES = make_candidates(["vote_backbones", "concat_logreg"], "singles", MATRIX.backbones)


def answers(root, matrix=MATRIX, all_candidates=CANDIDATES, splits=SPLITS):
    played = cross_validate(
        matrix, all_candidates, splits, prediction_cache=PredictionCache.for_matrix(matrix, root)
    )
    return {(c, f): proba.tobytes() for c, f, proba in played}


@pytest.fixture
def fits(monkeypatch):
    """Names of the rounds that were really computed."""
    seen = []
    plain = tournament._fit_fold

    def spy(matrix, team, *others):
        seen.append("+".join(candidate.label for candidate in team))
        return plain(matrix, team, *others)

    monkeypatch.setattr(tournament, "_fit_fold", spy)
    return seen


def test_a_second_comparison_fits_nothing_and_gives_the_same_bytes(tmp_path, fits):
    first = answers(tmp_path)
    assert len(fits) == 4  # the probe's three subsets are one fit, the vote another; two folds
    fits.clear()
    assert answers(tmp_path) == first
    assert fits == []


def test_an_interrupted_comparison_loses_only_what_was_under_way(tmp_path, fits):
    undisturbed = answers(tmp_path / "whole")
    fits.clear()
    game = cross_validate(
        MATRIX, CANDIDATES, SPLITS, prediction_cache=PredictionCache.for_matrix(MATRIX, tmp_path / "torn")
    )
    next(game)
    game.close()
    done = len(fits)
    fits.clear()
    assert answers(tmp_path / "torn") == undisturbed
    assert len(fits) == 4 - done < 4


@pytest.mark.parametrize(
    "change",
    [
        {"matrix": make_matrix(signal=(1.0, 0.5), patients=16, views=2, seed=1)},
        {"matrix": make_matrix(signal=(1.0, 0.5), patients=16, views=1)},
        {"splits": group_folds(MATRIX, 2, seed=1)},
        {"all_candidates": with_views(CANDIDATES, ["average"], "identity", 2)},
        {"all_candidates": with_views(CANDIDATES, ["expand"], "average", 2)},
    ],
    ids=["features", "views", "folds", "training views", "test views"],
)
def test_whatever_can_change_an_answer_makes_it_another_entry(tmp_path, fits, change):
    answers(tmp_path)
    fits.clear()
    answers(tmp_path, **change)
    assert len(fits) == 4


def halve(page):
    page.write_bytes(page.read_bytes()[: page.stat().st_size // 2])


def flip_a_digit(page):
    page.write_text(page.read_text().replace("0.1", "0.2").replace("0.3", "0.4"))


def of_another(page):
    other = next(p for p in sorted(page.parent.iterdir()) if p != page)
    page.write_bytes(other.read_bytes())


def improbable(page):
    document = json.loads(page.read_text())
    del document["sha256"]
    document["proba"][0][0] = [2.0, -1.0]
    page.write_text(json.dumps(seal(document)))


@pytest.mark.parametrize("damage", [halve, flip_a_digit, of_another, improbable])
def test_a_damaged_entry_is_computed_again(tmp_path, fits, damage):
    first = answers(tmp_path)
    fits.clear()
    damage(min((tmp_path / "results").iterdir()))
    assert answers(tmp_path) == first
    assert len(fits) == 1


def test_a_folder_that_cannot_be_written_costs_only_the_resumption(tmp_path, caplog):
    (tmp_path / "results").write_text("in the way")
    assert answers(tmp_path) == answers(tmp_path / "elsewhere")
    assert "not kept" in caplog.text


def test_every_fit_has_one_thread_of_blas():
    from threadpoolctl import threadpool_info, threadpool_limits

    from featstore.evaluation.crossval import parallel_starmap

    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpool_limits(2):
        assert {pool["num_threads"] for pool in threadpool_info()} == {2}
        (pools,) = parallel_starmap(threadpool_info, [()], 1)
    assert {pool["num_threads"] for pool in pools} == {1}


def test_a_number_beyond_all_measure_is_no_answer_and_no_defect(tmp_path, fits):
    first = answers(tmp_path)
    for page in tmp_path.glob("results/*.json"):
        note = document.unseal(document.read(page))
        note["proba"][0][0][0] = 10**400
        page.write_text(canonical_json(document.seal(note)))
    fits.clear()
    bad = verify(tmp_path).bad
    assert {path for path, _ in bad} == {str(page) for page in tmp_path.glob("results/*.json")}
    assert answers(tmp_path) == first
    assert len(fits) == 4


def test_what_is_too_large_to_be_read_again_is_not_written(tmp_path, fits, monkeypatch, caplog):
    """One limit for both sides: at it, a note is written and believed; above it, it is neither."""
    first = answers(tmp_path / "a")
    sizes = sorted(page.stat().st_size for page in tmp_path.glob("a/results/*.json"))
    for limit in (sizes[-1], sizes[-1] - 1, sizes[0]):
        monkeypatch.setattr(results, "MAX_RESULT_BYTES", limit)
        root = tmp_path / str(limit)
        answers(root)
        kept = sorted(page.stat().st_size for page in root.glob("results/*.json"))
        assert kept == [size for size in sizes if size <= limit] != []
        assert verify(root).bad == ()
        fits.clear()
        assert answers(root) == first
        assert len(fits) == 4 - len(kept)
    assert "are read back" in caplog.text


def test_a_run_tells_how_many_fits_it_took_from_the_cache(tmp_path):
    told = []
    for _ in range(2):
        reuse = CacheUsage()
        ledger = PredictionCache.for_matrix(MATRIX, tmp_path, usage=reuse)
        assert len(list(cross_validate(MATRIX, CANDIDATES, SPLITS, prediction_cache=ledger))) == 2 * len(
            CANDIDATES
        )
        told.append((reuse.requests, reuse.hits))
    assert told == [(2 * len(CANDIDATES), 0), (2 * len(CANDIDATES), 2 * len(CANDIDATES))]


def test_vectors_are_named_by_the_digest_of_all_their_bytes(tmp_path):
    """However many rows are hashed at a time, what an earlier featstore kept is found."""
    matrix = make_matrix(patients=200, views=2)
    assert len(matrix.records) > 2 * tournament.DIGESTED_ROWS
    named = PredictionCache.for_matrix(matrix, tmp_path).vectors
    assert named == {
        block.name: tuple(
            digest_bytes(view[:, block.start : block.stop].tobytes()) for view in matrix.features
        )
        for block in matrix.blocks
    }
