"""A comparison on the screen: the answer first, one table, nothing wider or longer than the screen."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes_comparison import difference, question, result, scored
from msgspec import structs

from featstore.evaluation.metrics import METRICS, SINCE_THEN, listed
from featstore.findings import CATALOGUE, Finding
from featstore.reporting.run_record import read_fusion
from featstore.reporting.terminal.comparison import (
    LINES,
    ROWS,
    comparison_screen,
    comparison_text,
    demonstration_screen,
    fusion_screen,
    fusion_text,
    shorten,
)
from featstore.reporting.terminal.results import extraction_text, predictions_text
from featstore.results.comparison import InsideOutside, Looks, Planning, Protocol, SiteResult, SiteScores
from featstore.results.extraction import Extraction, KeySummary
from featstore.results.fusion import Prediction, Predictions, SingleNetwork
from featstore.results.paper import Demonstration
from featstore.results.scores import Score
from featstore.tables import wrapped

BEFORE = Path(__file__).parents[1] / "data" / "before"

FUSED = scored("fused", 0.86, (0.8, 0.95))
SINGLE = scored("A", 0.8, (0.7, 0.9), ("A",))


def plain(lines):
    return "\n".join(line.text for line in lines)


def shown(*more, width=100, **changed):
    return plain(comparison_screen(result([FUSED, SINGLE, *more], **changed), width)).split("\n")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_a_long_name_keeps_both_ends(width):
    long = "concat_logreg:" + "+".join(f"EfficientNetLite{i}" for i in range(5))
    lines = shown(scored(long, 0.9, (0.7, 0.95)), width=width)
    assert max(map(len, lines)) <= width
    assert re.search(r"\n  con.*Lite4 ", "\n".join(lines))


@pytest.mark.parametrize("width", [80, 100])
def test_all_of_it_fits_forty_lines(width):
    many = [scored(f"strategy_{i}", 0.7 + i / 1000, (0.6, 0.8)) for i in range(30)]
    guesses = [scored(name, 0.5, (0.4, 0.6), ()) for name in ("file alone", "grey histogram alone")]
    found = [
        Finding(code, "A message of a hundred characters and more. " * 4, 3)
        for code, kind in CATALOGUE.items()
        if kind.severity == "warning"
    ][:8]
    for findings in ((), found):
        lines = shown(*many, width=width, findings=findings, shortcuts=guesses)
        assert len(lines) <= LINES
        assert max(map(len, lines)) <= width
        rows = [line for line in lines if re.match(r"[* ] \w.*\d\.\d{3} \[\d\.\d{3} to \d\.\d{3}\]", line)]
        assert len(rows) <= ROWS
        for name in ("* fused ", "  A ", "  file alone ", "  grey histogram alone "):
            assert any(line.startswith(name) for line in rows), name


WARNINGS = [
    Finding(code, "A message of a hundred characters and more. " * 4, 3)
    for code, kind in CATALOGUE.items()
    if kind.severity == "warning"
][:8]


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("sites", [2, 8, 12])
@pytest.mark.parametrize("findings", [(), WARNINGS])
def test_patients_of_sites_left_out_fit_forty_lines_and_the_rest_is_in_the_details(width, sites, findings):
    many = [scored(f"strategy_{i}", 0.7 + i / 1000, (0.6, 0.8)) for i in range(30)]
    guesses = [
        scored(n, 0.5, (0.4, 0.6), ()) for n in ("file alone", "grey histogram alone", "most frequent class")
    ]
    known = result([FUSED, SINGLE, *many], shortcuts=guesses, findings=findings, **by_site_and_patient(sites))
    lines = plain(comparison_screen(known, width)).split("\n")
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= width
    shown = sum(line.startswith("hospital-") for line in lines)
    assert shown == min(sites, 8) or f"{sites - shown} more sites in --details" in " ".join(lines)
    assert shown >= min(sites, 4)
    for finding in findings:
        assert finding.code in "\n".join(lines)
    whole = " ".join(plain(comparison_screen(known, width, details=True)).split())
    assert whole.count("hospital-") == sites
    for told in (
        "Backbones: A, B.",
        "per image (96)",
        "Best of 2: fused",
        "Brier 0.700",
        *(f.message[:90] for f in findings),
    ):
        assert told in whole, told


def by_site_and_patient(count):
    """What leaving out sites adds to a comparison of patients."""
    plain_score = Score(value=0.7, interval=(0.6, 0.8))
    one = SiteScores(
        site="", images=8, patients=4, classes={"ill": 2, "well": 2}, inside=0.8,
        scores=dict.fromkeys(METRICS, plain_score),
    )  # fmt: skip
    drop = InsideOutside(
        candidate="fused", metric="auc", inside=0.9, inside_by_site=0.88, outside=0.86, outside_pooled=0.85,
        drop=0.04, interval=(-0.1, 0.2),
    )  # fmt: skip
    protocol = Protocol(
        folds=5, repeats=1, fold_seed=0, calibrate=None, sensitivity=None, adjustment="max-T", unit="group",
        pool="mean-logit",
    )  # fmt: skip
    found = SiteResult(
        candidate="fused", sites=tuple(structs.replace(one, site=f"hospital-{at}") for at in range(count)),
        inside_folds=5, drops=(drop,),
    )  # fmt: skip
    beside = SimpleNamespace(estimates={"fused": FUSED.estimates}, patients={"ill": 12, "well": 12})
    return {"sites": found, "protocol": protocol, "by_image": beside}


def test_the_network_that_is_hardest_to_surpass_has_a_row_though_another_one_scores_higher():
    many = [scored(f"strategy_{i}", 0.82 + i / 1000, (0.6, 0.9)) for i in range(30)]
    hardest = scored("B", 0.79, (0.6, 0.9), ("B",))
    lines = shown(*many, hardest, primary_question=question("cannot_tell", against="B"))
    assert any(line.startswith("Hardest to surpass is B: AUC 0.860 against 0.790") for line in lines)
    assert any(re.match(r"  A +0\.800 .*\(the best single\)", line) for line in lines)
    assert any(re.match(r"  B +0\.790 ", line) for line in lines)


def test_nothing_that_the_reader_was_told_is_told_again():
    text = " ".join(shown())
    assert "Positive class: 'ill'." in text
    assert "sensitivity is about" not in text
    assert "24 patients (groups), classes: ill 48, well 48." in text


def test_what_is_cut_ends_with_a_whole_word_and_an_ellipsis():
    sentence = (
        "WARNING FS401: the best score, AUC 0.846 of concat_logreg, is not above that of the file alone."
    )
    for columns in range(20, 130):
        cut = shorten(sentence, columns)
        assert len(cut) <= columns
        if cut != sentence:
            kept = cut.removesuffix(" ...")
            assert kept != cut
            assert re.match(rf"{re.escape(kept)}[ .,:]", sentence)
    assert shorten(sentence, 200) == sentence
    assert shorten("a" * 50, 20) == "a" * 16 + " ..."


def test_the_table_is_sorted_by_score_with_differences_to_the_best_single_network():
    worse = scored("worse", 0.7, (0.62, 0.78))
    pairs = [difference("fused", "A", "cannot_tell"), difference("worse", "A", "b_better", delta=-0.1)]
    lines = shown(worse, pairs=pairs)
    at = next(at for at, line in enumerate(lines) if line.startswith("AUC, mean of 5 folds"))
    assert lines[at].endswith("difference to the best single network, A")
    assert lines[at + 1 : at + 4] == [
        "* fused  0.860 [0.800 to 0.950]  +0.020 [-0.010 to +0.050]",
        "  A      0.800 [0.700 to 0.900]  (the best single)",
        "  worse  0.700 [0.620 to 0.780]  -0.100 [-0.200 to +0.000]",
    ]


@pytest.mark.parametrize("width", range(60, 101, 5))
def test_no_interval_and_no_command_is_torn_between_two_lines(width):
    planning = Planning(looks=Looks(), plan=None)
    for line in shown(width=width, planning=planning):
        assert line.count("[") == line.count("]")
        assert line.count("`") % 2 == 0
    assert "`featstore plan DATA --out plan.json`" in "\n".join(shown(width=width, planning=planning))


def test_predictive_values_are_told_with_what_they_hold_for():
    said = " ".join(shown())
    assert "PPV 0.700, NPV 0.700" in said
    assert "PPV and NPV at the prevalence in these images" in said
    without = {name: one for name, one in FUSED.estimates.items() if name not in SINCE_THEN}
    older = SimpleNamespace(**{**vars(FUSED), "estimates": without})
    assert "prevalence" not in comparison_text(result([older, SINGLE]))


@pytest.mark.parametrize(
    ("verdict", "stress", "words"),
    [
        ("better", "told", "Yes: fused is better than both single networks."),
        (
            "equivalent",
            "untold",
            "No gain: fused is as good as the best single network, within a margin of 0.01.",
        ),
        ("worse", "untold", "No: A alone is better than fused."),
        ("cannot_tell", "untold", "Cannot tell yet whether fused is better than both single networks."),
    ],
)
def test_the_first_line_is_the_answer(verdict, stress, words):
    lines = comparison_screen(result([FUSED, SINGLE], verdict), 100)
    assert (lines[0].text, lines[0].stress) == (words, stress)
    rest = "AUC 0.860 against 0.800, difference +0.020 [-0.010 to +0.050], p = 0.018, 24 patients."
    assert rest in " ".join(lines[1].text.split())
    assert "\x1b" not in plain(lines)


def test_pairs_are_shown_when_asked_for():
    assert "cannot tell fused from A" not in "\n".join(shown())
    text = plain(comparison_screen(result([FUSED, SINGLE]), 100, pairs=True))
    assert "step-down max-T" in text
    assert "cannot tell fused from A: AUC difference +0.020 [-0.080 to +0.120], p = 0.500." in text


def test_it_says_where_the_run_lies_and_what_to_do_next(tmp_path):
    assert "Next: --out runs/NAME keeps this run" in comparison_text(result([FUSED, SINGLE]))
    text = plain(comparison_screen(result([FUSED, SINGLE]), 100, out="runs/a b"))
    assert "Run: 'runs/a b'" in text
    assert "featstore report 'runs/a b'" in " ".join(text.split())


def test_a_score_that_a_class_is_missing_for_has_no_interval():
    assert "  none   -" in shown(scored("none", None, None))


def test_without_a_question_it_says_so():
    alone = result([SINGLE, SINGLE], primary_question=None)
    alone.matrix["backbones"] = [{"name": "A"}]
    assert comparison_text(alone).startswith("No question to ask: A is the only network")


def test_a_question_with_more_networks_speaks_of_every_one():
    singles = question("better").singles
    many = question("better", singles=(*singles, singles[1]))
    assert shown(primary_question=many)[0] == "Yes: fused is better than every single network."


# A fit, and the demonstration

FIT = read_fusion(json.loads((BEFORE / "head" / "metrics.json").read_text()))


def fit(singles=True, **changed):
    """The fit of before, with networks alone beside it."""
    score = next(iter(FIT.scores.values()))["auc"]
    names = [f"Network{i}" for i in range(20)]
    alone = tuple(
        SingleNetwork(
            name=name, score=structs.replace(score, value=0.8 - i / 100), delta=0.02, interval=(-0.1, 0.1)
        )
        for i, name in enumerate(names)
    )
    return structs.replace(FIT, singles=dict.fromkeys(FIT.scores, alone) if singles else {}, **changed)


@pytest.mark.parametrize("width", [80, 100])
def test_a_fit_with_many_findings_fits_forty_lines_and_tells_them_whole_in_its_details(width):
    known = fit(findings=(*WARNINGS, *WARNINGS))
    lines = plain(fusion_screen(known, width)).split("\n")
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= width
    whole = " ".join(plain(fusion_screen(known, width, details=True)).split())
    for finding in WARNINGS:
        assert finding.code in "\n".join(lines)
        assert finding.message[:90] in whole


def test_of_many_findings_of_one_code_a_short_screen_tells_the_first_and_how_many():
    same = [
        Finding("FS101", f"On {split} the class is guessed. " + "And so on. " * 9, 1)
        for split in ("val", "test")
    ]
    lines = plain(fusion_screen(fit(findings=(*same, *WARNINGS[3:])), 80)).split("\n")
    assert len(lines) <= LINES
    assert [line[:44] for line in lines if "FS101" in line] == [
        "WARNING FS101 shortcut (2 times): On val the"
    ]
    assert any(line.startswith(f"WARNING {WARNINGS[3].title}: A message") for line in lines), (
        "more than a code"
    )


def test_a_note_without_a_count_shows_none():
    assert "Notes: FS405 backbones_left_out." in "\n".join(
        shown(findings=[Finding("FS405", "B took no part.")])
    )


def test_an_answer_to_one_image_that_was_learned_from_speaks_of_one():
    one = Prediction(
        path="a.png",
        label="ill",
        votes={},
        probability={"ill": 0.75, "well": 0.25},
        in_training="the same file",
    )
    result = Predictions(
        run="r", operating={"calibration": None, "threshold": None}, classes=("ill", "well"), files=(), bad=(),
        predictions=(one,),
    )  # fmt: skip
    first = predictions_text(result).split("\n")[0]
    assert first == "1 image answered: ill 1; it was learned from, which says nothing of new ones."


@pytest.mark.parametrize("width", [80, 100])
def test_a_fit_is_its_answer_one_table_and_what_to_do_next(width):
    lines = plain(fusion_screen(fit(), width)).split("\n")
    assert max(map(len, lines)) <= width
    assert len(lines) <= LINES
    assert re.match(r"concat_head reaches an AUC of \d\.\d{3} \[", lines[0])
    said = " ".join(" ".join(lines).split())
    assert "best single network on them is Network0, AUC 0.800; the fusion differs by +0.020" in said
    assert "which cannot be told from none" in said
    rows = [line for line in lines if re.match(r"[* ] \w.*\d\.\d{3} \[\d\.\d{3} to \d\.\d{3}\]", line)]
    assert len(rows) <= ROWS
    assert sum(line.startswith("* concat_head ") for line in rows) == 1
    assert re.search(r"^  Network0 .*\(the best single\)$", "\n".join(rows), re.MULTILINE)
    assert " ".join(said.split("Next: ")[1].split()[:2]) == "featstore predict"
    assert re.search(r"sensitivity \d\.\d{3} \[\d", said)
    assert "log-loss" not in said


def test_every_score_of_a_fit_is_in_its_details():
    brief, whole = fusion_text(fit()), fusion_text(fit(), details=True)
    assert max(map(len, whole.split("\n"))) <= 100
    assert set(METRICS) - set(FIT.scores["test"]) <= SINCE_THEN
    for row in listed(FIT.scores["test"]).values():
        assert re.search(rf"^{re.escape(row.label)} ", whole, re.MULTILINE), row.label
    assert len(whole) > len(brief)


def test_the_details_of_a_fit_fit_80_columns_beside_the_guesses_without_a_network():
    names = ("file alone", "grey histogram alone", "most frequent class")
    guesses = {split: dict.fromkeys(names, scores) for split, scores in FIT.scores.items()}
    lines = plain(fusion_screen(fit(shortcuts=guesses), 80, details=True)).split("\n")
    assert max(map(len, lines)) <= 80
    assert any(line.split()[-3:] == ["file", "grey", "majority"] for line in lines)
    for name in names:
        assert name in " ".join(lines)


def test_the_details_of_a_fit_of_patients_fit_80_columns_and_lose_no_score():
    """Scores per patient and per image leave no room for the guesses beside them: these stand below."""
    names = ("file alone", "grey histogram alone", "most frequent class")
    guesses = {split: dict.fromkeys(names, scores) for split, scores in FIT.scores.items()}
    patients = dict.fromkeys(FIT.scores, 10)
    whole = fit(shortcuts=guesses, unit="group", pool="mean-logit", patients=patients, by_image=FIT.scores)
    lines = plain(fusion_screen(whole, 80, details=True)).split("\n")
    assert max(map(len, lines)) <= 80
    heads = [at for at, line in enumerate(lines) if line.split()[-3:] == ["file", "grey", "majority"]]
    assert len(heads) == len(FIT.scores)
    for at in heads:
        assert [line.split()[0] for line in lines[at:][1:3]] == ["AUC", "avg"]
    beside = plain(fusion_screen(whole, 100, details=True)).split("\n")
    assert len(beside) < len(lines)
    assert any("per image" in line and line.endswith("majority") for line in beside)


def test_a_candidate_of_many_networks_stands_above_the_details_of_a_comparison():
    names = "+".join(f"EfficientNetLite{at}" for at in range(4))
    long = scored(f"concat_logreg:{names}", 0.9, (0.8, 1.0))
    text = plain(comparison_screen(result([long, SINGLE]), 80, details=True))
    assert max(map(len, text.split("\n"))) <= 80


def test_a_fit_of_one_network_has_no_difference():
    text = fusion_text(fit(singles=False))
    assert "best single" not in text
    assert "\n* concat_head " in text


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.6, 0.7), "better than guessing."),
        ((0.51, 0.99), "better than guessing; how good, these are too few to say."),
        ((0.4, 0.9), "it cannot be told from guessing."),
        ((0.1, 0.4), "worse than guessing; look for swapped labels."),
        (None, "nothing can be concluded, a class has a single patient."),
    ],
)
def test_a_fit_claims_no_more_than_its_interval(interval, said):
    scores = {
        split: {**part, "auc": structs.replace(part["auc"], interval=interval)}
        for split, part in FIT.scores.items()
    }
    first = " ".join(fusion_text(fit(scores=scores)).split("\n\n")[0].split())
    assert said in first


def test_the_demonstration_is_one_page():
    many = [scored(f"strategy_{i}", 0.7 + i / 1000, (0.6, 0.8)) for i in range(30)]
    key = KeySummary(backbone="A", weights="w", recipe="identity", seed=0, stored=0, missing=2, stored_now=2)
    extraction = Extraction(
        images=2, keys=(key,), computed=2, phases={}, seconds=1.0, idle=0.0, announced_bytes=1,
        measured_bytes=1, batch_size=16, precision="float32",
    )  # fmt: skip
    shown = Demonstration(
        data="d.csv", extraction=extraction, fusion=fit(), comparison=result([FUSED, SINGLE, *many]),
        report="runs/demo/report.html", seconds=60.0,
    )  # fmt: skip
    for width in (80, 100):
        lines = plain(demonstration_screen(shown, width)).split("\n")
        assert len(lines) <= LINES
        assert max(map(len, lines)) <= width
        assert lines[0].startswith("Cannot tell yet whether fused ")
        assert any("runs/demo/report.html" in line for line in lines)
        assert lines[-1] == "  featstore compare DATA --out runs/mine"


# Other screens


def test_a_long_extraction_is_told_by_the_backbone():
    keys = tuple(
        KeySummary(backbone=name, weights="w", recipe="flip(h)", seed=seed, stored=1, missing=2)
        for name in "ABCD" for seed in range(5)
    )  # fmt: skip
    told = Extraction(
        images=3, keys=keys, computed=0, phases={}, seconds=1.0, idle=0.0, announced_bytes=1,
        measured_bytes=1, batch_size=16, precision="float32", dry_run=True,
    )  # fmt: skip
    lines = extraction_text(told).split("\n")
    assert lines[0].startswith("To do: 40 vectors")
    assert [line.split() for line in lines[3:]] == [[name, "5", "views", "5", "10"] for name in "ABCD"]


@pytest.mark.parametrize("width", [80, 100])
def test_answers_to_many_images_fit_the_screen(width):
    votes = {f"EfficientNetLite{i}": "ill" for i in range(4)}
    answers = tuple(
        Prediction(
            path=f"a/long/folder/with/many/parts/patient-{at:03}/slice.png", label="ill", votes=votes,
            probability={"ill": 0.75, "well": 0.25}, in_training="the same patient name",
        )
        for at in range(40)
    )  # fmt: skip
    result = Predictions(
        run="r", operating={"calibration": None, "threshold": None}, classes=("ill", "well"), files=(), bad=(),
        predictions=answers,
    )  # fmt: skip
    text = predictions_text(result, 15, width)
    lines = text.split("\n")
    assert lines[0].startswith("40 images answered: ill 40; 40 of them were learned from")
    assert max(map(len, lines[2:18])) <= width
    assert "and 25 more: --csv prints all" in text
    assert "patient-000" in text


def test_sentences_are_wrapped_and_tables_and_commands_are_not():
    sentence, row, command = "word " * 30, "a" * 60 + "  " + "b" * 60, "  featstore extract " + "x" * 100
    lines = wrapped(f"{sentence}\n{row}\n{command}", 80).split("\n")
    assert max(map(len, lines[:2])) <= 80
    assert lines[2:] == [row, command]


@pytest.mark.parametrize("width", [60, 80])
def test_a_command_at_the_end_of_a_sentence_stands_whole_on_a_line(width):
    last = "Next, at each hospital, on patients not in its file: featstore predict runs/sites DATA"
    inside = "The operating point was chosen for images; `featstore fuse DATA --unit group` chooses one for patients."
    for text, command in (
        (last, "featstore predict runs/sites DATA"),
        (inside, "`featstore fuse DATA --unit group`"),
    ):
        lines = wrapped(text, width).split("\n")
        assert max(map(len, lines)) <= width
        assert sum(command in line for line in lines) == 1
