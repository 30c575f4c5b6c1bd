"""What is not fitted, and what a long comparison takes, is said before it begins."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from fakes import GridBackbone, spec, write_images
from fakes_matrix import make_matrix

import featstore
from featstore.errors import UsageError
from featstore.evaluation import candidates
from featstore.evaluation.candidates import Forecast, forecast, make_candidates, not_fitted
from featstore.evaluation.crossval import usual_repeats
from featstore.extraction import pipeline as engine
from featstore.extraction.plan import image_blocks, plan
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.results.comparison import Candidate
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey


@pytest.mark.parametrize(
    ("strategies", "subsets", "backbones", "idle"),
    [
        (["knn"], "singles", ["A"], 1),
        (["knn", "concat_logreg", "vote_backbones"], "singles", ["A"], 2),
        (["knn"], [["A"], ["B"]], ["A", "B"], 1),
        (["concat_logreg"], "singles", ["A"], 0),
        ("all", "singles", ["A"], 0),
        ("knn", "all", ["A"], 1),
        (["knn"], "singles", ["A", "B"], 0),
        (["knn"], "greedy", ["A", "B"], 0),
    ],
)
def test_a_strategy_that_was_named_and_fits_nothing_is_told(strategies, subsets, backbones, idle):
    finding = not_fitted(strategies, make_candidates(strategies, subsets, backbones))
    assert (0 if finding is None else finding.count) == idle
    if finding is not None:
        assert finding.message.startswith("Not fitted: ")
        assert "knn" in finding.message


def test_the_forecast_grows_with_what_is_compared():
    matrix = make_matrix()
    all_candidates = make_candidates(["concat_logreg", "knn"], "singles", matrix.backbones)
    images = np.arange(len(matrix.records))
    rounds = [(images[30:], images[:30]), (images[:-30], images[-30:])]
    one = forecast(matrix, all_candidates, rounds[:1], 1, 4)
    assert one.fits == len(all_candidates)
    both = forecast(matrix, all_candidates, rounds, 1, 4)
    assert (both.fits, both.seconds, both.bytes) == (2 * one.fits, pytest.approx(2 * one.seconds), one.bytes)
    shared = forecast(matrix, all_candidates, rounds, 2, 4)
    assert shared.seconds == both.seconds / 2
    assert shared.bytes > both.bytes > matrix.features.nbytes
    assert forecast(matrix, all_candidates, rounds, -1, 2) == shared
    few = forecast(replace(matrix, views=matrix.views[:1]), all_candidates, rounds, 1, 4)
    assert few.seconds == both.seconds / 2
    assert not both.is_notable


def test_twenty_thousand_images_are_told_as_measured():
    """20,000 images x 14,144 columns, one network: 8 to 12 minutes a fold and 6.4 GB."""
    matrix = make_matrix(signal=(1.0,), views=1)
    large = replace(
        matrix,
        specs=(replace(matrix.specs[0], dimension=14_144),),
        features=np.broadcast_to(np.float32(0), (1, 20_000, 14_144)),
    )
    fold = np.arange(16_000), np.arange(16_000, 20_000)
    told = forecast(large, make_candidates(["knn"], "singles", large.backbones), [fold], 1, 2)
    assert 8 * 60 <= told.seconds <= 12 * 60
    assert told.bytes == pytest.approx(6.4e9, rel=0.15)
    assert told.is_notable


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forecast")
    data = write_images(folder / "data", 32)
    images = {record.id: record for record in scan(data).records}
    key = FeatureKey(spec(), IDENTITY, Decoding(decoder_version()))
    todo = plan([key], list(images), {})
    grids = {key.backbone: GridBackbone(key.backbone)}
    engine.run_pass(
        image_blocks(todo), images, key.decoding, grids, Store(folder / "cache"), engine.NullProgress()
    )
    return data, folder / "cache"


def test_a_comparison_says_it_before_the_first_fit_and_keeps_it(world, tmp_path, monkeypatch, capsys):
    data, cache = world
    monkeypatch.setattr(candidates, "forecast", lambda *_: Forecast(55, 3000.0, 6_600_000_000))
    result = featstore.compare(
        data, strategies=["knn"], folds=3, positive="ill", cache=cache, out=tmp_path / "run", progress=True
    )
    said = capsys.readouterr().err
    assert said.index("Not fitted: knn") < said.index("at most 55 fits") < said.index("fit: ")
    assert "50 minutes and 6.6 GB" in said
    assert {finding.code for finding in result.findings} >= {"FS411"}
    assert "FS411" in (tmp_path / "run" / "metrics.json").read_text()


def test_a_short_comparison_of_what_was_asked_for_says_neither(world, capsys):
    data, cache = world
    result = featstore.compare(data, folds=3, positive="ill", cache=cache, progress=True)
    said = capsys.readouterr().err
    assert "fits on" not in said
    assert "Not fitted" not in said
    assert "FS411" not in {finding.code for finding in result.findings}


def test_folds_are_drawn_three_times_where_fits_are_cheap_and_once_where_not():
    matrix = make_matrix()
    cheap = make_candidates(["concat_logreg", "soft_vote"], "singles", matrix.backbones)
    assert usual_repeats(matrix, cheap, 5) == 3
    assert usual_repeats(matrix, cheap, "split") == 1
    trained = make_candidates(["concat_logreg", "concat_head"], "singles", matrix.backbones)
    assert usual_repeats(matrix, trained, 5) == 1, "networks draw random numbers, and take their time"
    many = replace(
        matrix, records=matrix.records * 400, specs=tuple(replace(s, dimension=2048) for s in matrix.specs)
    )
    assert usual_repeats(many, cheap, 5) == 1


def wide(images=20_000, columns=(2048, 2048), views=1):
    """A matrix of so many rows that nobody has to hold."""
    matrix = make_matrix(signal=(1.0,) * len(columns), views=views)
    return replace(
        matrix,
        specs=tuple(
            replace(spec, dimension=width) for spec, width in zip(matrix.specs, columns, strict=True)
        ),
        features=np.broadcast_to(np.float32(0), (views, images, sum(columns))),
    )


def need(matrix, strategies, free, monkeypatch, jobs=1, images=16_000):
    monkeypatch.setattr(candidates, "memory_bytes", lambda: (free, free))
    rounds = [(np.arange(images), np.arange(images, images + 1))] * 4
    asked = [Candidate(name, matrix.backbones, name) for name in strategies]
    candidates.require_memory(matrix, asked, rounds, jobs)


def test_what_does_not_fit_into_memory_is_refused_in_one_line_before_the_first_fit(monkeypatch):
    matrix = wide()
    need(matrix, ["ridge_loo", "soft_vote"], 10**12, monkeypatch)
    need(matrix, ["ridge_loo"], 0, monkeypatch)  # nobody knows how much there is
    with pytest.raises(UsageError) as caught:
        need(matrix, ["ridge_loo", "soft_vote"], 2 * 10**9, monkeypatch)
    assert caught.value.cause.startswith("ridge_loo needs about ")
    assert "for 16,000 rows of 4,096 numbers, and 2.0 GB are free" in caught.value.cause
    assert "\n" not in caught.value.cause
    assert "needs less (soft_vote)" in caught.value.remedy
    need(matrix, ["soft_vote"], 2 * 10**9, monkeypatch)  # as the remedy says


def test_of_one_network_a_lighter_strategy_is_the_remedy_and_it_fits(monkeypatch):
    """Nobody can take fewer networks than one."""
    matrix = wide(columns=(4096,))
    with pytest.raises(UsageError) as caught:
        need(matrix, ["ridge_loo"], 4 * 10**9, monkeypatch)
    assert "such as concat_logreg, or free memory." in caught.value.remedy
    assert "networks" not in caught.value.remedy
    need(matrix, ["concat_logreg"], 4 * 10**9, monkeypatch)
    with pytest.raises(UsageError) as caught:
        need(matrix, ["ridge_loo"], 10**6, monkeypatch)
    assert caught.value.remedy == "Free memory."


def test_several_processes_need_several_times_as_much_and_one_is_the_remedy(monkeypatch):
    matrix = wide()
    needs = candidates.memory_needs(
        matrix, [Candidate("soft_vote", matrix.backbones, "x")], [(np.arange(16_000), [])]
    )
    free = 2 * needs[0].bytes
    with pytest.raises(UsageError, match="in each of 2 processes") as caught:
        need(matrix, ["soft_vote"], free, monkeypatch, jobs=2)
    assert caught.value.remedy == "Let one process work at a time: --jobs 1."
    need(matrix, ["soft_vote"], free, monkeypatch, jobs=1)


def test_what_was_fitted_before_needs_no_memory_and_what_is_new_is_refused(world, tmp_path, monkeypatch):
    data, cache = world
    cache = shutil.copytree(cache, tmp_path / "cache")
    asked = {"strategies": ["knn"], "folds": 2, "repeats": 1, "positive": "ill", "cache": cache}
    before = featstore.compare(data, **asked)
    monkeypatch.setattr(candidates, "memory_bytes", lambda: (1, 1))
    again = featstore.compare(data, **asked)
    assert again.candidates[0].estimates["auc"] == before.candidates[0].estimates["auc"]
    for change in ({"resume": False}, {"fold_seed": 7}):
        with pytest.raises(UsageError, match="of memory"):
            featstore.compare(data, **asked | change)


def test_the_need_grows_with_rows_views_and_networks():
    def of(matrix, images=1000, **choice):
        one = Candidate("concat_logreg", matrix.backbones, "x", **choice)
        return candidates.memory_needs(matrix, [one], [(np.arange(images), [])])[0]

    few, many = of(wide()), of(wide(), images=2000)
    assert 2 * few.bytes <= many.bytes <= 4 * few.bytes
    assert of(wide(views=3)).rows == 3000
    assert of(wide(views=3), views="identity").rows == 1000
    assert of(wide(columns=(2048, 2048, 2048))).bytes > few.bytes


def test_compare_and_fuse_refuse_it(world, tmp_path, monkeypatch):
    data, cache = world
    monkeypatch.setattr(candidates, "memory_bytes", lambda: (10, 10))
    with pytest.raises(UsageError, match="GB are free"):
        featstore.compare(data, folds=3, fold_seed=11, positive="ill", cache=cache)
    with pytest.raises(UsageError, match="GB are free"):
        featstore.fuse(data, positive="ill", cache=cache, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
