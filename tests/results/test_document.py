"""What a command returns is declared once: its class alone says how it is written and read back."""

import importlib
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec import field

from featstore import results
from featstore.api.report import write_report
from featstore.findings import Finding
from featstore.reporting.run_record import read_comparison, read_fusion, read_record
from featstore.results.document import (
    LARGEST_NUMBER,
    LONGEST_TEXT,
    Count,
    Result,
    ShapeError,
    Share,
    read_result,
)
from featstore.runs import json_text

BEFORE = Path(__file__).parents[1] / "data" / "before"


class Part(Result, frozen=True, kw_only=True):
    share: Share
    found: tuple[Finding, ...] = ()


class Whole(Result, frozen=True, kw_only=True):
    IN_MEMORY = frozenset({"answers"})

    count: Count = field(name="on_disk")
    parts: Mapping[str, Part]
    number: float | None = None
    text: str = ""
    answers: tuple = ()


FINDING = Finding("FS403", "two patients", count=2, examples=("a/b.png",))
WHOLE = Whole(count=3, parts={"a": Part(share=0.5, found=(FINDING,))}, number=0.25, answers=(object(),))


def kinds():
    """Every result that there is."""
    found = []
    for module in pkgutil.iter_modules(results.__path__):
        room = importlib.import_module(f"featstore.results.{module.name}")
        found += [
            kind
            for kind in vars(room).values()
            if isinstance(kind, type) and issubclass(kind, Result) and kind.__module__ == room.__name__
        ]
    return found


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_a_result_is_frozen_named_field_by_field_and_can_be_read(kind):
    config = kind.__struct_config__
    assert config.frozen
    assert not config.array_like
    assert not kind.__match_args__, "fields are given by name"
    assert set(kind.IN_MEMORY) <= set(kind.__struct_fields__)
    with pytest.raises(ShapeError):
        read_result(kind, [], "it")


def test_there_are_results():
    assert len(kinds()) > 30


def test_a_field_stands_under_its_name_on_disk_and_in_the_order_of_the_class():
    assert list(WHOLE.to_json()) == ["on_disk", "parts", "number", "text"]
    assert json.loads(json_text(WHOLE.to_json())) == WHOLE.to_json()


def test_what_is_written_is_read_back_without_what_stays_in_memory():
    again = read_result(Whole, WHOLE.to_json(), "it")
    assert (again.count, again.parts, again.number) == (3, WHOLE.parts, 0.25)
    assert again.answers == ()


def test_examples_of_findings_at_any_depth_stay_out_of_a_document():
    inside = WHOLE.to_json(examples=False)["parts"]["a"]["found"][0]
    assert (inside["examples"], inside["severity"], inside["count"]) == ([], "warning", 2)
    assert WHOLE.to_json()["parts"]["a"]["found"][0]["examples"] == ["a/b.png"]


def test_a_field_with_a_default_may_be_absent_and_one_of_a_later_version_is_passed_over():
    assert read_result(Whole, {"on_disk": 1, "parts": {}, "later": {"x": 1}}, "it").text == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"on_disk": -1},
        {"on_disk": True},
        {"on_disk": 1.5},
        {"number": float("nan")},
        {"number": float("inf")},
        {"number": 2 * LARGEST_NUMBER},
        {"number": 10**400},
        {"number": "1"},
        {"text": "x" * (LONGEST_TEXT + 1)},
        {"text": None},
        {"parts": {"x" * (LONGEST_TEXT + 1): {"share": 0.5}}},
        {"parts": {"a": {"share": 1.1}}},
        {"parts": {"a": {}}},
        {"parts": {"a": {"share": 1, "found": [{"code": "FS000", "message": ""}]}}},
        {"parts": {"a": {"share": 1, "found": [{"code": "FS403", "message": "", "count": -1}]}}},
        {"parts": []},
        {"parts": "\ud800"},
    ],
    ids=repr,
)
def test_what_is_out_of_bounds_is_refused_in_one_line(changed):
    with pytest.raises(ShapeError) as caught:
        read_result(Whole, {**WHOLE.to_json(), **changed}, "it")
    assert str(caught.value).startswith("it")
    assert str(caught.value).isprintable()


def test_a_field_that_is_not_understood_has_no_bounds():
    class Options(Result, frozen=True, kw_only=True):
        options: Mapping[str, object]

    document = {"options": {"seed": 10**30, "text": "x" * (LONGEST_TEXT + 1)}}
    assert read_result(Options, document, "it", opaque={"options"}).options == document["options"]
    with pytest.raises(ShapeError):
        read_result(Options, document, "it")


@pytest.mark.parametrize(
    ("name", "reader"), [("comparison", read_comparison), ("head", read_fusion), ("stacking", read_fusion)]
)
def test_a_run_of_before_is_read_and_would_be_written_as_it_is(name, reader):
    written = json.loads((BEFORE / name / "metrics.json").read_text())
    found = json.loads(json.dumps(reader(written).to_json()))
    assert found == (with_a_question(written) if reader is read_comparison else by_image(written))


def by_image(written):
    """What a fusion tells since it can be of patients or keep silent: that this was of images, and answered all."""
    of_images = {"singles": {}, "unit": "image", "pool": None, "patients": {}, "by_image": {}}
    return written | of_images | {"abstention": None, "unlike": None}


def with_a_question(written):
    """What a comparison tells since it asks a primary question: that this one asked none, and adjusted by Holm."""
    pairs = [
        {name: value for name, value in pair.items() if name != "needed"}
        | {"simultaneous": None, "family": "all"}
        for pair in written["comparisons"]
    ]
    protocol = written["protocol"] | {"adjustment": "holm", "confidence": None, "plan": None}
    protocol |= {"unit": "image", "pool": None, "left_out": "", "harmonise": "none"}
    return written | {
        "comparisons": pairs,
        "protocol": protocol,
        "primary_question": None,
        "by_image": None,
        "sites": None,
    }


def test_what_was_picked_inside_each_fold_reaches_the_report(tmp_path):
    """`compare --nested` was once written to metrics.json, and forgotten where that was read back."""
    nested = read_record(BEFORE / "comparison").outcome.selection_bias.nested
    assert (round(nested.mean, 3), sorted(nested.selected)) == (0.889, ["Alien", "Alien", "Other"])
    page = write_report([BEFORE / "comparison"], tmp_path / "r.html").read_text("utf-8")
    assert "Picked anew inside each of 3 folds, on its training images: 0.889 [0.520 to 1.000]" in page
    assert "the pick was Alien in 2, Other in 1" in page
