"""One mechanism for everything odd: codes, severities, acceptance, and a page that explains each."""

import json
import re
from pathlib import Path

import pytest

from featstore.errors import UsageError
from featstore.findings import CATALOGUE, EXAMPLES, SEVERITIES, Finding, mark_accepted, ordered, resolve
from featstore.reporting.verdict import findings_brief, findings_sentences, findings_text

PAGE = Path(__file__).parents[1] / "docs" / "findings.md"


def test_every_code_has_an_anchor_and_the_page_is_the_catalogue():
    text = PAGE.read_text("utf-8").replace("`", "")
    for code, kind in CATALOGUE.items():
        assert f"({code.lower()})=\n### {code} {kind.name}\n" in text
        assert kind.meaning.replace("`", "") in text
        assert kind.remedy.replace("`", "") in text
    assert len(re.findall(r"^### FS\d+", text, re.MULTILINE)) == len(CATALOGUE)


def test_names_and_codes_are_unique_and_of_the_known_form():
    assert len({kind.name for kind in CATALOGUE.values()}) == len(CATALOGUE)
    for code, kind in CATALOGUE.items():
        assert re.fullmatch(r"FS[1-4]\d\d", code)
        assert re.fullmatch(r"[a-z_]+", kind.name)
        assert kind.severity in SEVERITIES
        assert "\n" not in kind.remedy


def test_every_code_is_used_somewhere():
    sources = Path(__file__).parents[1] / "featstore"
    files = [path for path in sources.rglob("*.py") if path != sources / "findings.py"]
    text = "\n".join(path.read_text("utf-8") for path in files)
    unused = [code for code in CATALOGUE if code not in text]
    assert unused == []


def test_a_finding_keeps_the_first_examples_and_goes_into_json_with_or_without_them():
    finding = Finding(
        "FS102", "9 pairs look the same.", 9, tuple(f"/secret/{n}.png" for n in range(9)), 0.9, (0.8, 1.0)
    )
    assert len(finding.examples) == EXAMPLES
    assert finding.to_json()["examples"][0] == "/secret/0.png"
    assert "secret" not in json.dumps(finding.to_json(examples=False))
    assert finding.to_json()["severity"] == "warning"


def test_findings_come_in_the_order_of_their_gravity_and_once():
    found = [Finding("FS302", "a"), Finding("FS106", "b"), Finding("FS102", "c"), Finding("FS302", "a")]
    assert [finding.code for finding in ordered(found)] == ["FS106", "FS102", "FS302"]


@pytest.mark.parametrize("code", ["FS101", "fs101", " FS101 ", "shortcut", "Shortcut"])
def test_an_accepted_finding_stays_in_the_list_and_leaves_the_screen(code):
    (finding,) = mark_accepted([Finding("FS101", "The label is guessed.")], [code])
    assert finding.accepted
    assert findings_text([finding]) == "Accepted: FS101 shortcut."
    assert "The label is guessed." not in findings_brief([finding])
    assert findings_sentences([finding]) == ("FS101 shortcut: The label is guessed. (Accepted.)",)


def test_an_error_cannot_be_accepted_and_an_unknown_code_is_refused():
    with pytest.raises(UsageError, match="FS106 label_conflict cannot be accepted"):
        mark_accepted([], ["FS106"])
    with pytest.raises(UsageError, match="no finding 'FS999'"):
        resolve("FS999")


def test_names_with_line_breaks_stay_on_one_line():
    text = findings_text([Finding("FS302", "1 file.", 1, ("x\ny\x1b[31m.png",))])
    assert len(text.splitlines()) == 3
    assert "\x1b" not in text
