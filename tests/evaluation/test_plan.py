"""A plan seals a question before any score; a comparison that runs it is planned, and every other is exploratory."""

import inspect
import json
from dataclasses import asdict, fields

import pytest
from runs import extract_with_fakes, write_images

import featstore
from featstore import serialization
from featstore.api.compare import Planned
from featstore.errors import UsageError
from featstore.reporting.run_record import read_record
from featstore.reporting.terminal.comparison import comparison_text, plan_text
from featstore.store.notes import Look, recorded_looks

QUICK = {"strategies": ["concat_logreg"], "seeds": ()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    table = write_images(folder / "data", 48)
    extract_with_fakes(table, folder / "cache")
    return table, folder / "cache"


@pytest.fixture
def cache(data):
    """The same features, and nobody has looked yet."""
    looks = data[1] / "looks"
    for page in looks.rglob("*.json") if looks.exists() else ():
        page.unlink()
    return data[1]


@pytest.fixture
def table(data):
    return data[0]


def seal(table, cache, out, **changed):
    return featstore.plan(table, out, **{"folds": 3, "cache": cache, "seeds": (), **changed})


def explore(table, cache, **changed):
    return featstore.compare(table, **{"folds": 3, "cache": cache, **QUICK, **changed})


def run(table, cache, plan, **changed):
    return featstore.compare(table, plan=plan, cache=cache, **{**QUICK, **changed})


def said(result):
    return " ".join(comparison_text(result).split())


def resealed(path, **changed):
    """A plan from a stranger who knows the seal."""
    content = serialization.unseal(json.loads(path.read_text())) | changed
    path.write_text(json.dumps(serialization.seal(content)))
    return path


def test_what_was_sealed_is_run_and_says_that_it_was_planned(table, cache, tmp_path):
    path = tmp_path / "plan.json"
    sealed = seal(table, cache, path, margin=0.02, fold_seed=4, repeats=2, calibrate="platt")
    assert (sealed.primary, sealed.metric, sealed.looks.count) == ("concat_logreg", "auc", 0)
    assert path.stat().st_mode & 0o777 == 0o600
    result = run(table, cache, path, out=tmp_path / "run")
    asked, how = result.primary_question, result.protocol
    assert (asked.primary, asked.margin) == ("concat_logreg", 0.02)
    assert (how.folds, how.repeats, how.fold_seed, how.calibrate) == (3, 2, 4, "platt")
    assert how.plan == serialization.digest(serialization.unseal(json.loads(path.read_text())))
    first = comparison_text(result).split("\n")[:5]
    assert any(
        line.startswith(f"Planned: sealed on {sealed.created[:10]}, before any look") for line in first
    )
    assert (
        "planned and sealed on"
        in (featstore.write_report([tmp_path / "run"], tmp_path / "r.html")).read_text()
    )
    assert read_record(tmp_path / "run").outcome.planning == result.planning


@pytest.mark.slow
def test_the_scores_are_those_of_the_same_comparison_without_a_plan(table, cache, tmp_path):
    seal(table, cache, tmp_path / "plan.json")
    planned, free = run(table, cache, tmp_path / "plan.json").to_json(), explore(table, cache).to_json()
    assert planned["protocol"].pop("plan") is not None
    assert free["protocol"].pop("plan") is None
    for one in (planned, free):
        one["matrix"].pop("positive_origin")
        one.pop("findings")  # who said which class is positive is one
    assert planned == free


@pytest.mark.slow
def test_without_a_plan_a_comparison_is_exploratory_and_counts_the_looks(table, cache, tmp_path):
    assert "Exploratory: no plan was sealed. First look at these images;" in said(explore(table, cache))
    fusion = featstore.fuse(table, out=tmp_path / "fit", cache=cache, seeds=())
    assert fusion.looks.count == 1
    again = explore(table, cache, out=tmp_path / "run")
    day = again.planning.looks.first[:10]
    assert (
        f"Exploratory: no plan was sealed. Look 3 at these images: 1 compare and 1 fuse before it, on {day}"
        in said(again)
    )
    assert (again.planning.looks.compare, again.planning.looks.fuse) == (1, 1)
    page = featstore.write_report([tmp_path / "run"], tmp_path / "r.html").read_text()
    assert "Exploratory: no plan was sealed." in page


@pytest.mark.slow
def test_a_plan_that_is_younger_than_the_first_look_says_so(table, cache, tmp_path):
    explore(table, cache)
    explore(table, cache)
    sealed = seal(table, cache, tmp_path / "plan.json")
    assert sealed.looks.compare == 2
    assert "scores of these images were computed before: 2 compare, 0 fuse" in plan_text(sealed, tmp_path)
    result = run(table, cache, tmp_path / "plan.json")
    assert result.planning.before_plan == 2
    assert "Planned after 2 looks at these images" in said(result)
    # Whoever takes another cache, or deletes the notes, still has those that the plan counted.
    for page in (cache / "looks").rglob("*.json"):
        page.unlink()
    assert "Planned after 2 looks" in said(run(table, cache, tmp_path / "plan.json"))


def test_looks_that_another_cache_counted_after_sealing_do_not_make_it_late(table, cache, tmp_path):
    seal(table, cache, tmp_path / "plan.json")
    run(table, cache, tmp_path / "plan.json")
    again = run(table, cache, tmp_path / "plan.json")
    assert again.planning.before_plan == 0
    assert "before any look at these images that is known. 1 more since then." in said(again)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("margin", 0.05),
        ("primary", "knn"),
        ("folds", 4),
        ("fold_seed", 9),
        ("created", "2020-01-01T00:00:00+00:00"),
    ],
)
def test_a_plan_that_was_changed_by_hand_is_refused(table, cache, tmp_path, name, value):
    path = tmp_path / "plan.json"
    seal(table, cache, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(UsageError, match="its content is not what was sealed") as caught:
        run(table, cache, path)
    assert "featstore plan DATA --out plan.json" in str(caught.value)
    assert not list(cache.glob("looks/*/*.json")), "what was refused has seen nothing"


@pytest.mark.parametrize(
    "forged",
    [
        {"kind": "compare"}, {"margin": "0.01"}, {"margin": 1e300}, {"folds": "all"}, {"folds": -3}, {"repeats": 2.5},
        {"repeats": True}, {"views": "expand"}, {"views": [1]}, {"primary": None}, {"primary": "x" * 20_000},
        {"created": 5}, {"looks": {"compare": -1}}, {"looks": []}, {"backbones": None}, {"data_sha256": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_a_forged_plan_is_refused_in_one_line(table, cache, tmp_path, forged):
    seal(table, cache, tmp_path / "plan.json")
    with pytest.raises(UsageError, match="is no sealed plan") as caught:
        run(table, cache, resealed(tmp_path / "plan.json", **forged))
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize(
    "forged",
    [{"margin": 0.9}, {"folds": 1}, {"folds": 10**9}, {"repeats": 0}, {"primary": "magic"}, {"views": []}],
    ids=str,
)
def test_a_forged_plan_that_cannot_be_run_is_refused_like_an_argument(table, cache, tmp_path, forged):
    seal(table, cache, tmp_path / "plan.json")
    with pytest.raises(featstore.FeatstoreError):
        run(table, cache, resealed(tmp_path / "plan.json", **forged))


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\xff", '{"kind": "plan"}'])
def test_a_file_that_is_no_plan_is_refused(table, cache, tmp_path, text):
    (tmp_path / "plan.json").write_text(text, "latin-1")
    with pytest.raises(UsageError, match="is no sealed plan"):
        run(table, cache, tmp_path / "plan.json")
    with pytest.raises(UsageError, match="No such file"):
        run(table, cache, tmp_path / "absent.json")


def test_a_plan_for_other_data_or_features_is_refused(table, cache, tmp_path):
    seal(table, cache, tmp_path / "plan.json")
    lines = table.read_text().splitlines()
    other = table.with_name("other.csv")
    other.write_text(
        "\n".join([*lines[:-1], lines[-1].replace("well", "ill", 2).replace("ill/", "well/", 1)]) + "\n"
    )
    with pytest.raises(UsageError, match="The plan is about other data: 48 images of 24 groups"):
        run(other, cache, tmp_path / "plan.json")
    with pytest.raises(UsageError, match="The plan is about other features"):
        run(table, cache, tmp_path / "plan.json", seeds=[1])
    with pytest.raises(UsageError, match="of ResNet50, Xception; these are of Xception"):
        run(table, cache, tmp_path / "plan.json", backbones=["Xception"])


@pytest.mark.parametrize(
    ("name", "value"), [("margin", 0.05), ("folds", 4), ("views", ["average"]), ("positive", "well")]
)
def test_another_value_beside_a_plan_is_refused_and_the_same_one_is_not(table, cache, tmp_path, name, value):
    sealed = seal(table, cache, tmp_path / "plan.json")
    with pytest.raises(UsageError, match=f"The plan has settled --{name}") as caught:
        run(table, cache, tmp_path / "plan.json", **{name: value})
    assert f"Leave out --{name}" in str(caught.value)
    run(table, cache, tmp_path / "plan.json", **{name: getattr(sealed, name)})


def test_a_plan_settles_arguments_of_compare_with_the_defaults_of_both():
    for function in (featstore.compare, featstore.plan):
        parameters = inspect.signature(function).parameters
        assert {one.name: parameters[one.name].default for one in fields(Planned)} == asdict(Planned())


def test_what_cannot_be_planned_is_refused_before_anything_is_written(table, cache, tmp_path):
    path = tmp_path / "plan.json"
    for wrong in (
        {"margin": 2}, {"folds": "x"}, {"folds": 100}, {"primary": "magic"}, {"positive": "blue"},
        {"calibrate": "magic"}, {"views": ["magic"]}, {"backbones": ["Xception"]}, {"folds": "split"},
    ):  # fmt: skip
        with pytest.raises(featstore.FeatstoreError):
            seal(table, cache, path, **wrong)
    assert not path.exists()
    seal(table, cache, path)
    with pytest.raises(UsageError, match="is there already"):
        seal(table, cache, path)
    seal(table, cache, path, overwrite=True)


def test_notes_of_looks_that_make_no_sense_are_passed_over(table, cache):
    explore(table, cache)
    (page,) = (cache / "looks").rglob("*.json")
    ids = [record.id for record in featstore.scan(table).records]
    assert [look.command for look in recorded_looks(cache, ids)] == ["compare"]
    told = json.loads(page.read_text())
    for number, look in enumerate(
        [
            {"when": "yesterday", "command": "compare"},
            {"when": told["look"]["when"], "command": "rm"},
            [],
            {"when": 5},
        ]
    ):
        page.with_name(f"{number:064x}.json").write_text(json.dumps(serialization.seal({"look": look})))
    page.with_name("f" * 64 + ".json").write_bytes(b"\x00" * 100)
    assert recorded_looks(cache, ids) == [Look(**told["look"])]
    assert set(told) == {"look", "draw", "sha256"}, "neither path nor label nor patient"
