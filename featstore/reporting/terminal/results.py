"""Results of all other commands as plain text for a terminal."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from featstore.evaluation.metrics import METRICS, PRIMARY
from featstore.findings import counted, with_reasons
from featstore.images.reading import REASONS
from featstore.images.recipe import FILE_WINDOW, range_option, view_name
from featstore.reporting.terminal.comparison import CUT, cut, operating_text
from featstore.reporting.verdict import approximation_text, findings_text, pooled_text
from featstore.tables import SHORT, WIDTH, counts, duration, interval_text, printable, size, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.exchange.export import Exported
    from featstore.exchange.importing import Imported
    from featstore.results import extraction
    from featstore.results.fusion import (
        Counts,
        Explanations,
        ExportedModel,
        HeadAnswers,
        MeanOfPages,
        MergedFit,
        MergedHeads,
        Packed,
        PatientPrediction,
        Prediction,
        Predictions,
        Replay,
        SharedHead,
        SiteMoments,
    )
    from featstore.results.paper import Claim, Conversion, PaperNetwork, Reproduction
    from featstore.results.scores import Score
    from featstore.store.cleanup import Compaction, Garbage, GarbageCollection
    from featstore.store.verify import InventoryEntry, LostRows, Repair, Verification


# Extraction, predictions, audit, bench and demo

LISTED, INDENT = 10, "  "
SCORES = (PRIMARY, "sensitivity", "specificity")
TRAINING_UNKNOWN = "FS409"
CLASSES_SHOWN = 4
"""So many classes have a column each in a table for the terminal."""
LISTED_BELOW = ("FS109", "FS301")
"""Findings about files that are listed one by one below."""
LOOKED_FOR = """\
Looked for: unreadable files; pictures in two classes or splits; patients in two
splits or under two names; copies across patients (compressed, mirrored, turned,
cropped); odd layouts and names; what is guessed without a network.
Wrong labels and other hospitals cannot be seen from here."""
LONGEST_TABLE = 15
"""Rows of a table; what has more is told by the backbone, or cut."""
SHORTEST_PATH, SHORTEST_NAME = 24, 12
"""Characters of a path that are shown while heads can be shorter, and of any name that always are."""
TRAINING_HEAD = "in training"
BRIEF_HEADS = {"P(predicted)": "P", "unlike training": "unlike"}
BRIEF_WAYS = {"the same file": "file", "the same pixels": "pixels", "the same patient name": "patient"}
"""Heads and cells of a table that gets too wide."""
FEW_PATIENTS = 4
"""Patients whose table takes no room from that of images."""


def extraction_text(result: extraction.Extraction) -> str:
    """Dry run or closing summary of `featstore extract`."""
    parts = [
        _extraction_sentence(result),
        _cells_text(result),
        _bad_text(result.bad),
        findings_text(result.findings),
        "" if result.dry_run else "Next: featstore compare DATA --out runs/NAME, or featstore fuse DATA",
    ]
    return "\n\n".join(part for part in parts if part)


def _cells_text(result: extraction.Extraction) -> str:
    """What there is to do, or what there is now: by backbone and view, or by backbone where that is too long."""
    cells: dict[tuple[str, str], list[int]] = {}
    many = len(result.keys) > LONGEST_TABLE
    views = Counter(key.backbone for key in result.keys)
    for key in result.keys:
        name = (key.backbone, f"{views[key.backbone]} views" if many else view_name(key.recipe, key.seed))
        now = [key.stored_now, key.stored_now - key.stored, key.missing_now]
        numbers = [key.stored, key.missing] if result.dry_run else now
        cells[name] = [a + b for a, b in zip(cells.get(name, [0] * len(numbers)), numbers, strict=True)]
    header = ["stored", "missing"] if result.dry_run else ["stored now", "of them new", "missing"]
    return table(["backbone", "view", *header], [[*name, *numbers] for name, numbers in cells.items()])


def precision_text(result: extraction.PrecisionCheck) -> str:
    """Table of `featstore extract --precision-check`."""
    rows = [[c.backbone, f"{100 * c.error:.2f} %", f"{c.correlation:.5f}"] for c in result.costs]
    header = ["backbone", "error / spread between images", "correlation of distances"]
    sentence = f"{result.precision} against float32 on {result.images} images; the mark to stay below is 5 %."
    return "\n\n".join(part for part in (table(header, rows), sentence, _bad_text(result.bad)) if part)


def predictions_text(result: Predictions, most: int | None = None, width: int = WIDTH) -> str:
    """How many of each class, then one line per image or page, of which at most `most` are shown."""
    if not result.predictions:
        return _bad_text(result.bad)
    if most is not None and len(result.patients) > FEW_PATIENTS:
        most = (most + 1) // 2  # two tables
    shown = result.predictions[:most]
    more = len(result.predictions) - len(shown)
    images = _predictions_table(result, shown, width) + (
        f"\nand {more} more: --csv prints all" if more else ""
    )
    whole = _patients_text(result, most, width)
    parts = [
        _answers_text(result),
        _scores_text(result),
        *((whole, images) if result.chosen_for_patients else (images, whole)),
        _means_text(result),
        "" if result.counts is None else _counts_text(result.counts),
        "" if result.patient_counts is None else _counts_text(result.patient_counts, "patients"),
        operating_text(result.operating, result.classes),
        _abstention_text(result),
        _skipped_text(result.skipped),
        _bad_text(result.bad),
    ]
    return "\n\n".join(part for part in parts if part)


def _answers_text(result: Predictions) -> str:
    """First line: the answers by class, and of how many images they say nothing new."""
    told = Counter(p.label for p in result.predictions)
    called = counts({name: told[name] for name in result.classes if told[name]})
    what = "page" if result.files else "image"
    known = sum(not p.is_new for p in result.predictions)
    seen = (
        f"; {_of_all(known, len(result.predictions))} learned from, which says nothing of new ones"
        if known
        else ""
    )
    unlike = sum(p.is_unlike for p in result.predictions)
    strange = f"; {unlike} unlike any in training" if unlike else ""
    return f"{counted(len(result.predictions), what)} answered: {called}{strange}{seen}."


def _of_all(count: int, every: int) -> str:
    if every == 1:
        return "it was"
    return f"{count} of them {'was' if count == 1 else 'were'}"


def _scores_text(result: Predictions) -> str:
    """What the answers are worth where labels are known: patients first where the run is about them."""
    lines = [
        f"  By {unit}: {_told_scores(result.scores[unit])}."
        for unit in (("patient", "image") if result.chosen_for_patients else ("image", "patient"))
        if unit in result.scores
    ]
    if not lines:
        return ""
    unknown = any(finding.code == TRAINING_UNKNOWN for finding in result.findings)
    which = ", whether in training or not (FS409)" if unknown else " that were not in training"
    return "\n".join([f"On those with a label{which} [95 %]:", *lines])


def _told_scores(scores: Mapping[str, Score]) -> str:
    shown = SCORES if SCORES[1] in scores else (PRIMARY, "balanced_accuracy")
    told = [
        f"{METRICS[name].label} {scores[name].value:.3f}"
        + ("" if (interval := scores[name].interval) is None else f" [{interval_text(interval)}]")
        for name in shown
        if scores[name].value is not None
    ]
    return ", ".join(told) + ("; a class is missing" if scores[PRIMARY].value is None else "")


def _patients_text(result: Predictions, most: int | None, width: int) -> str:
    """An answer per patient, and at what operating point; or that no patients are known."""
    if not result.patients:
        return (
            "No patients are known: --columns group=COLUMN or --group-pattern names them."
            if result.pool is not None and len(result.predictions) > 1
            else ""
        )
    if len(result.patients) == len(result.predictions) == 1:
        return ""
    shown = result.patients[:most]
    columns: dict[str, Sequence[object]] = {
        "patient": [p.patient for p in shown],
        "images": [p.images for p in shown],
    }
    if any(p.given for p in result.patients):
        columns["label"] = [p.given or "" for p in shown]
    columns["predicted"] = [p.label for p in shown]
    after = _doubts(result, shown, {"unlike training": [p.unlike or "" for p in shown]})
    if not all(p.is_new for p in result.patients):
        after["in training"] = [p.in_training or ("" if p.is_new else "by a network") for p in shown]
    told = Counter(p.label for p in result.patients)
    called = counts({name: told[name] for name in result.classes if told[name]})
    how = (
        "The model pools a patient's images before it answers; weight is the share of an image."
        if any(p.weight is not None for p in result.predictions)
        else pooled_text(result.pool)
    )
    head = f"{counted(len(result.patients), 'patient')}: {called}. {how}"
    if not result.chosen_for_patients:
        head += (
            " The operating point was chosen for images, and this is a convenience;"
            " `featstore fuse DATA --unit group` chooses one for patients."
        )
    more = len(result.patients) - len(shown)
    below = f"\nand {more} more: --json and --out have all" if more else ""
    left = (
        f"\n{counted(result.without_patient, 'image')} of no known patient." if result.without_patient else ""
    )
    whole = columns | _probability_columns(shown, result.classes) | after
    columns |= {"P(predicted)": [f"{p.probability[p.label]:.3f}" for p in shown]} | after
    if _widest(_columns(whole)) <= width:
        columns = whole
    room = max(len(p.patient) for p in shown) - (_widest(_columns(columns)) - width)
    columns["patient"] = [cut(printable(p.patient), max(room, SHORTEST_NAME)) for p in shown]
    return f"{head}\n{_columns(columns)}{below}{left}"


def _doubts(
    result: Predictions,
    shown: Sequence[Prediction] | Sequence[PatientPrediction],
    unlike: dict[str, Sequence[object]],
) -> dict[str, Sequence[object]]:
    """Columns about when not to trust an answer, where the model tells."""
    columns: dict[str, Sequence[object]] = {}
    if any(p.prediction_set is not None for p in shown):
        columns[f"set, {100 * (1 - (result.alpha or 0)):.0f} %"] = [result.set_text(p) for p in shown]
    return columns | (unlike if any(p.is_unlike for p in result.predictions) else {})


def _abstention_text(result: Predictions) -> str:
    """What a model keeps to abstain by, and what it lacks."""
    told, lacking = [], []
    if result.alpha is None:
        lacking.append("no prediction sets (featstore fuse --abstain 0.1)")
    else:
        told.append(
            f"Set, {100 * (1 - result.alpha):.0f} %: of new patients of a class at least so many have it in their"
            " set, if they come as those of calibration did."
        )
    if result.unlike is None:
        lacking.append("not which images are unlike any in training")
    else:
        who = "patients" if result.unlike.has_patients else "images"
        told.append(
            f"Unlike training: farther from its images than {100 * (1 - result.unlike.share):.0f} % of those of"
            f" {result.unlike.patients} {who} left out; of usual images {100 * result.unlike.share:.0f} % are called"
            " so."
        )
    if lacking:
        told.append(f"The run tells {', and '.join(lacking)}.")
    return "\n".join(told)


def _predictions_table(result: Predictions, shown: Sequence[Prediction], width: int) -> str:
    """Columns beyond the answer stand there only where they say something, and are fewer where it gets too wide."""
    everything = result.predictions
    before: dict[str, Sequence[object]] = {"image": [p.path for p in shown]}
    if any(p.page for p in everything):
        before["page"] = [p.page or 1 for p in shown]
    if any(p.given for p in everything):
        before["label"] = [p.given or "" for p in shown]
    before["predicted"] = [p.label for p in shown]
    weighed = any(p.weight is not None for p in everything) and len(everything) > 1
    after: dict[str, Sequence[object]] = (
        {"weight": ["" if p.weight is None else f"{p.weight:.2f}" for p in shown]} if weighed else {}
    )
    after |= _doubts(result, shown, {"unlike training": ["yes" if p.is_unlike else "" for p in shown]})
    if not all(p.is_new for p in everything):
        after[TRAINING_HEAD] = [_training_cell(p) for p in shown]
    every = _probability_columns(shown, result.classes)
    own = {"P(predicted)": [f"{p.probability[p.label]:.3f}" for p in shown]}
    votes = {name: [p.votes[name] for p in shown] for name in everything[0].votes}
    agree = {"networks agree": [_agreement(p) for p in shown]} if votes else {}
    for middle in (every | votes, every | agree, own | agree, own):
        columns = before | middle | after
        text = _columns(columns)
        room = max(len(printable(p.path)) for p in shown) - (_widest(text) - width)
        if _widest(text) <= width:
            return text
    if room < SHORTEST_PATH:
        columns = _with_short_heads(columns, shown)
    return _with_short_paths(columns, shown, width)


def _end_of(path: str, columns: int) -> str:
    """The end of a path, where patient and image are."""
    return path if len(path) <= columns else f"{CUT}{path[len(CUT) - columns :]}"


def _agreement(p: Prediction) -> str:
    return f"{sum(vote == p.label for vote in p.votes.values())} of {len(p.votes)}"


def _probability_columns(
    found: Sequence[Prediction | PatientPrediction | MeanOfPages], classes: Sequence[str]
) -> dict[str, Sequence[str]]:
    """A column per class; of many classes the predicted one's alone."""
    if len(classes) > CLASSES_SHOWN:
        return {"P(predicted)": [f"{p.probability[p.label]:.3f}" for p in found]}
    return {f"P({name})": [f"{p.probability[name]:.3f}" for p in found] for name in classes}


def _training_cell(p: Prediction, *, brief: bool = False) -> str:
    """How an image is known to the model, and which networks were tuned on it; where it must be brief, in a word."""
    tuned = "tuned" if brief else f"{'+'.join(p.tuned_on)} tuned on it"
    known = p.in_training or ""
    return ", ".join(
        [
            *([BRIEF_WAYS.get(known, known) if brief else known] if known else []),
            *([tuned] if p.tuned_on else []),
        ]
    )


def _means_text(result: Predictions) -> str:
    if not result.files:
        return ""
    columns: dict[str, Sequence[object]] = {
        "file": [f.path for f in result.files],
        "pages": [f.pages for f in result.files],
        "predicted": [f.label for f in result.files],
        **_probability_columns(result.files, result.classes),
    }
    rows = list(zip(*columns.values(), strict=True))
    return "Mean probability over the pages of each file:\n" + table(list(columns), rows)


def _counts_text(counts: Counts, what: str = "images") -> str:
    if not counts.labelled:
        return f"All {counts.seen} {what} with a label were in training, so none is counted."
    seen = f"; {counts.seen} more were in training and are not counted" if counts.seen else ""
    share = counts.right / counts.labelled
    return f"Right: {counts.right} of {counts.labelled} {what} with a label ({share:.3f}){seen}."


def explanations_text(result: Explanations, width: int = WIDTH) -> str:
    """One line per image: its answer, and what of each backbone speaks for it."""
    if not result.explanations:
        return _bad_text(result.bad)
    parts = [
        _evidence_table(result, width),
        _evidence_legend(result),
        operating_text(result.operating, result.classes),
        _skipped_text(result.skipped),
        _bad_text(result.bad),
    ]
    return "\n\n".join(part for part in parts if part)


def _skipped_text(skipped: int) -> str:
    return f"{counted(skipped, 'other file was', 'other files were')} passed over." if skipped else ""


def _evidence_table(result: Explanations, width: int) -> str:
    """Where it gets too wide backbones are numbered, the one that carries the answer is marked, and paths are cut."""
    everything = result.explanations
    answers = [one.prediction for one in everything]
    columns: dict[str, Sequence[object]] = {"image": [p.path for p in answers]}
    if any(p.page for p in answers):
        columns["page"] = [p.page or 1 for p in answers]
    columns["predicted"] = [p.label for p in answers]
    columns["P(predicted)"] = [f"{p.probability[p.label]:.3f}" for p in answers]
    known = [] if all(p.is_new for p in answers) else [_training_cell(p) for p in answers]
    if known:
        columns[TRAINING_HEAD] = known
    names = list(everything[0].contributions)
    carried: dict[str, Sequence[object]] = {"carried by": [one.carried_by or "none" for one in everything]}
    beside: dict[str, Sequence[object]] = {}
    if len({one.evidence_for for one in everything}) > 1:
        beside["evidence for"] = [one.evidence_for for one in everything]
    beside["logit"] = [f"{one.logit:+.2f}" for one in everything]
    evidence = {name: [f"{one.contributions[name]:+.2f}" for one in everything] for name in names}
    whole = _columns(columns | carried | beside | evidence)
    if _widest(whole) <= width:
        return whole
    marked = {
        f"{at}": [f"{one.contributions[name]:+.2f}{'*' * (one.carried_by == name)}" for one in everything]
        for at, name in enumerate(names, 1)
    }
    legend = f"{', '.join(f'{at} {name}' for at, name in enumerate(names, 1))}; * carries the answer."
    numbered = _with_short_heads(columns, answers) | beside | marked
    return f"{_with_short_paths(numbered, answers, width)}\n{legend}"


def _with_short_heads(
    columns: Mapping[str, Sequence[object]], shown: Sequence[Prediction]
) -> dict[str, Sequence[object]]:
    """The same columns under shorter heads, and how an image is known in a word."""
    short = {BRIEF_HEADS.get(head, head): cells for head, cells in columns.items()}
    if TRAINING_HEAD in short:
        short[TRAINING_HEAD] = [_training_cell(p, brief=True) for p in shown]
    return short


def _with_short_paths(
    columns: Mapping[str, Sequence[object]], shown: Sequence[Prediction], width: int
) -> str:
    """Table with the ends of the paths of its images, as long as there is room for them."""
    room = max(len(printable(p.path)) for p in shown) - (_widest(_columns(columns)) - width)
    ends = [_end_of(printable(p.path), max(room, SHORTEST_NAME)) for p in shown]
    return _columns({**columns, "image": ends})


def _columns(columns: Mapping[str, Sequence[object]]) -> str:
    """Table of columns by their head."""
    return table(list(columns), list(zip(*columns.values(), strict=True)))


def _widest(text: str) -> int:
    return max(map(len, text.split("\n")))


def _evidence_legend(result: Explanations) -> str:
    """What the numbers are, and where the maps."""
    constants = {one.evidence_for: one.constant for one in result.explanations}
    of = next(iter(constants)) if len(constants) == 1 else "the class named"
    known = ", ".join(f"{constant:+.2f} for {name}" for name, constant in constants.items())
    about = approximation_text(result.explanations)
    worst = max(abs(one.remainder) for one in result.explanations)
    within = ", about" if about else f", here within {worst:.0e}"
    what = f"Evidence in logits, + for {of}, - against. A backbone's number is the mean of its map"
    lines = [
        f"{what}; with the constant ({known}) they add up to the logit{within}.",
        *filter(None, [about]),
        "A map says what the model used, not what causes the disease.",
    ]
    if any(one.prediction.weight is not None for one in result.explanations):
        lines.append(
            "Each image by itself: the model's answer to a patient is from the weighted mean of their logits, and"
            " featstore predict shows the weights."
        )
    if result.operating.get("calibration"):
        lines.append("The probability is calibrated; the logit is the model's own, before that.")
    return "\n".join(lines)


SPLITS = ("train", "val", "test")


def _in_order(split: str) -> tuple[bool, int, str]:
    """Splits in the order in which a model meets them, others after them."""
    return (split not in SPLITS, SPLITS.index(split) if split in SPLITS else 0, split)


def check_text(result: extraction.Check) -> str:
    """Findings of an audit."""
    grave = [finding for finding in result.findings if not finding.accepted]
    warnings = sum(finding.severity == "warning" for finding in grave)
    whom = f"of {counted(result.groups, 'patient (group)', 'patients (groups)')}"
    size_of = f"{counted(result.images, 'image')}{f' {whom}' if result.has_groups else ', no patients given'}"
    splits = {name: result.splits[name] for name in sorted(result.splits, key=_in_order)}
    about = f"{size_of}, classes: {counts(result.classes)}."
    if splits:
        about += f"\nSplits: {counts(splits)}."
    if not result.no_error_found:
        answer = "Errors found: every score on this data set would be false. Mend it first."
    else:
        answer = f"No error found; {warnings or 'no'} warning{'' if warnings == 1 else 's'}."
    listed = [replace(f, examples=()) if f.code in LISTED_BELOW else f for f in result.findings]
    parts = [f"{answer}\n{about}", findings_text(listed if result.bad else result.findings)]
    parts.append(
        _bad_text(result.bad, "Files in quarantine:", cured=len({row[1] for row in result.bad}) == 1)
    )
    following = "Next: featstore extract DATA" if result.no_error_found else ""
    parts += [_shortcut_text(result.shortcuts), LOOKED_FOR, following]
    return "\n\n".join(part for part in parts if part)


def split_text(result: extraction.DataSplit) -> str:
    """What came out of a division, and how to read it."""
    files = result.files[0] if len(result.files) == 1 else f"{result.files[0]} to {result.files[-1]}"
    whole = {"group": "each patient (group) in one part", "image": "each image in one part"}[result.by]
    answer = f"Written: {files}: {counted(result.images, 'image')}, {whole}."
    several = len(result.parts[0].classes) <= CLASSES_SHOWN
    header = ["part", "images", "share", "wanted", "groups"]
    rows = [
        [p.name, p.images, f"{p.images / result.images:.1%}", f"{p.wanted:.1%}", p.groups]
        for p in result.parts
    ]
    classes = list(result.parts[0].classes)
    if several:
        header += classes
        rows = [[*row, *p.classes.values()] for row, p in zip(rows, result.parts, strict=True)]
    tables = [table(header, rows)]
    if not several:
        lines = [[name, *(part.classes[name] for part in result.parts)] for name in classes]
        tables.append(table(["class", *(part.name for part in result.parts)], lines))
    root = f" --root {shlex.quote(result.root)}" if result.root else ""
    replaced = f"The data set's own split is not kept: {counts(result.replaced)}." if result.replaced else ""
    read = f"Read it with: featstore extract {shlex.quote(result.files[0])}{root}"
    parts = [
        answer,
        *tables,
        replaced,
        read,
        _bad_text(result.bad, "Left out:"),
        findings_text(result.findings),
    ]
    return "\n\n".join(part for part in parts if part)


def convert_text(result: extraction.ConvertedImages) -> str:
    """What was written, and how to read it."""
    images, files = counted(result.images, "image"), counted(result.sources, "file")
    kinds = " and ".join(f"{count} in {kind}" for kind, count in result.channels.items())
    parts = [
        f"Written: {result.manifest} and {images} of {files} as PNG ({kinds}, {size(result.size_bytes)}).",
        table(["class", "images"], [list(row) for row in result.classes.items()]),
        f"Read it with: featstore extract {shlex.quote(result.manifest)}",
        _bad_text(result.bad, "Left out:"),
        findings_text(result.findings),
    ]
    return "\n\n".join(part for part in parts if part)


def bench_text(result: extraction.Bench) -> str:
    """Rates of `featstore bench`, and for each backbone the command that computes fastest."""
    header = ["backbone", "precision", "batch", "processes", "threads", "images/s", ""]
    rows = [
        [
            r.backbone,
            r.precision,
            r.batch_size,
            r.processes,
            r.threads,
            f"{r.images_per_second:.1f}",
            _mark(r, result),
        ]
        for r in result.rates
    ]
    chosen = [
        f"  featstore extract DATA --backbones {r.backbone} --precision {r.precision}"
        + (f" --executor processes --workers {r.processes}" if r.processes > 1 else "")
        for r in result.best
    ]
    return "\n\n".join([table(header, rows), "\n".join(["Fastest here:", *chosen])])


def _mark(rate: extraction.Rate, result: extraction.Bench) -> str:
    return "fastest" if rate in result.best else ""


def _extraction_sentence(result: extraction.Extraction) -> str:
    if not result.missing:
        return f"Nothing is missing: all {result.stored} vectors of {result.images} images are in {result.cache}."
    planned = f"{result.missing} vectors ({size(sum(c.bytes_missing for c in result.keys))})"
    if result.dry_run:
        about = duration(result.estimated_seconds)
        passes = f" in {result.passes} passes" if result.passes > 1 else ""
        return (
            f"To do: {planned}, about {about} ({result.estimated_from}),"
            f" at most {size(result.announced_bytes)} of memory{passes}. Nothing was done."
        )
    rate = result.computed / max(result.seconds, 1e-9)
    phases = ", ".join(f"{name} {value:.1f} s" for name, value in result.phases.items())
    busy = f"{phases}; networks idle {100 * result.idle:.0f} %"
    memory = f"Peak memory {size(result.measured_bytes)}, announced {size(result.announced_bytes)}"
    workers = f", {result.workers} processes {result.workers_from}" if result.workers > 1 else ""
    return (
        f"Computed {result.computed} of {planned} in {duration(result.seconds)}, {rate:.1f} vectors/s ({busy}).\n"
        f"{memory}{workers}.{_engine_sentence(result)}"
    )


def _engine_sentence(result: extraction.Extraction) -> str:
    """Of the engine jax: on what it computed, by how many images, and how long each network took to start."""
    by = [done for done in result.backbone_throughput if done.engine == "jax"]
    if not by:
        return ""
    starts = ", ".join(f"{done.backbone} {done.start_seconds:.1f} s, {done.batch_size} images" for done in by)
    return f"\nBy JAX on {by[0].device}. Seconds before the first vector, and images at a time: {starts}."


def _bad_text(bad: Sequence[tuple[str, str, str]], head: str = "", *, cured: bool = False) -> str:
    """Files in quarantine with the reason of each, and unless it was said above what to do about each reason."""
    if not bad:
        return ""
    rows = Counter(bad)
    lines = [
        f"  {printable(path)}: {reason} ({printable(detail)})" + (f", {many} pictures" if many > 1 else "")
        for (path, reason, detail), many in [*rows.items()][:LISTED]
    ]
    left = len(bad) - sum([*rows.values()][:LISTED])
    more = [f"  and {left} more"] if left else []
    head = head or f"{counted(len(bad), 'image is', 'images are')} in quarantine; everything else goes on:"
    cures = [f"{reason}: {REASONS[reason]}" for reason in sorted({row[1] for row in bad} & REASONS.keys())]
    return "\n".join([head, *lines, *more, *([] if cured else cures)])


def _shortcut_text(shortcuts: Mapping[str, Score]) -> str:
    if not shortcuts:
        return ""
    rows = [[name, score_text(score)] for name, score in shortcuts.items()]
    head = "AUC of a guess without a network, all folds pooled [95 %] (0.5 is harmless):"
    return f"{head}\n{table(None, rows)}"


def score_text(score: Score) -> str:
    """Value and interval."""
    if score.value is None:
        return "-"
    return f"{score.value:.3f}" + ("" if score.interval is None else f"  [{interval_text(score.interval)}]")


# Fine-tuning

ROLES = {"trained": "learned from", "validated": "to choose the epoch"}


def finetuning_text(result: extraction.Finetuning, data: Sequence[str]) -> str:
    """What was learned from what, whether it helped, and the next two commands; `data` are the words for DATA."""
    sizes = ", ".join(
        f"{count} {ROLES.get(side, f'held out ({side})')}" for side, count in result.sizes.items()
    )
    rows = [
        [epoch, *(f"{value:.3f}" for value in values)]
        for epoch, values in enumerate(zip(*result.history.values(), strict=True), 1)
    ]
    head = f"{result.backbone}: the last {result.layers} of {result.of_layers} layers have learned"
    return "\n\n".join(
        [
            _verdict(result),
            f"{head}; classes: {counts(result.classes)}.\nImages: {sizes}.",
            table(["epoch", *(name.replace("_", " ") for name in result.history)], rows[-LONGEST_TABLE:]),
            f"The weights are in {result.weights}, with the ids of the images that they know.",
            "Next:\n" + "\n".join(f"  {line}" for line in next_commands(result, data)),
        ]
    )


def next_commands(result: extraction.Finetuning, data: Sequence[str]) -> tuple[str, str]:
    """Commands that extract and score features of the new weights, on images that they have not met."""
    options = result.options
    choice = ["--backbones", result.backbone, "--weights", f"{result.backbone}={result.weights}"]
    if options["preprocess"] != "official":
        choice += ["--preprocess", options["preprocess"]]
    if options["value_range"] is not None:
        choice += [range_option(options["value_range"])]
    split = ["--test-size", f"{options['test_size']:g}", "--split-seed", str(options["split_seed"])]
    return (
        shlex.join(["featstore", "extract", *data, *choice]),
        shlex.join(["featstore", "fuse", *data, *choice, *split]),
    )


def _verdict(result: extraction.Finetuning) -> str:
    before, after = result.before, result.after
    if result.best_epoch == 0:
        return (
            f"No epoch was better than the frozen network under a linear probe (validation loss {before.loss:.3f},"
            f" accuracy {before.accuracy:.3f}):\nthe file holds the weights unchanged. Keep the old ones."
        )
    return (
        f"Best of {result.epochs} epochs: {result.best_epoch}. Validation loss {before.loss:.3f} before,"
        f" {after.loss:.3f} after; accuracy {before.accuracy:.3f} and {after.accuracy:.3f}"
        f" ({duration(result.seconds)})."
    )


# `featstore paper`

FUSIONS = {"head": "fusion head", "tuned": "fusion head, fine-tuned", "vote": "majority vote over networks"}
PROTOCOLS = {"by_image": "split by image", "by_patient": "patients kept together"}


def reproduction_text(result: Reproduction) -> str:
    """Formats, networks, sides, the numbers beside each other, and why they differ."""
    parts = [
        _conversion(result.conversion),
        _networks(result),
        _sides(result.splits),
        _fusions(result),
        _hit_probability(result),
        _claims(result.claims, result.majority_baseline),
        "Why they differ:\n" + "\n".join(f"  {printable(reason)}" for reason in result.reasons),
        _place(result),
        "Research only: not a medical device.",
    ]
    return "\n\n".join(part for part in parts if part)


def _place(result: Reproduction) -> str:
    numbered = sum(figure.number is not None for figure in result.figures)
    extra = len(result.figures) - numbered
    more = f" and {extra} more" if extra else ""
    return (
        f"The run is in {result.run}: a run for each of {len(result.steps)} steps, and figures/ with"
        f" {numbered} figures by the paper's numbers{more}."
        f" {result.computed} vectors were computed, {result.stored} were there.\n"
        f"All of it on one page, for you alone, since it shows images: {result.run}/report.html."
    )


def _conversion(found: Conversion) -> str:
    what = [
        f"{counts(found.formats)}; {counts(found.channels)}; sides {found.smallest} to {found.largest} px"
    ]
    if found.notes:
        what.append(f"met on the way: {counts(found.notes)}")
    if found.unread:
        what.append(f"in quarantine: {counts(found.unread)}")
    return f"Formats, all read as 8-bit grey or RGB: {'; '.join(what)}."


def _networks(result: Reproduction) -> str:
    rows = [
        [
            network.name,
            "yes" if network.in_paper else "extra",
            _weights(network),
            network.input_size,
            network.dimension,
            _score(result.heads.get(network.name)),
        ]
        for network in result.networks
    ]
    head = ["network", "in the paper", "weights", "input", "vector", "own head, accuracy [95 %]"]
    return f"Networks, each with a head of its own, split by image:\n{table(head, rows)}"


def _weights(network: PaperNetwork) -> str:
    return {"absent": "weights absent", "random": f"RANDOM WEIGHTS ({network.digest})"}.get(
        network.weights, network.weights
    )


def _sides(sides: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    rows = [
        [PROTOCOLS[protocol], side, counts(classes)]
        for protocol, mine in sides.items()
        for side, classes in mine.items()
    ]
    return f"Sides of the split:\n{table(['protocol', 'side', 'images'], rows)}"


def _fusions(result: Reproduction) -> str:
    protocols = list(result.fusions)
    rows = [
        [name, *(_score(result.fusions[protocol].get(step)) for protocol in protocols)]
        for step, name in FUSIONS.items()
        if any(step in mine for mine in result.fusions.values())
    ]
    head = ["the paper's fusions, accuracy [95 %]", *(PROTOCOLS[protocol] for protocol in protocols)]
    return table(head, rows)


def _hit_probability(result: Reproduction) -> str:
    """What the paper puts out for an image beside its class, and whether it tells right answers from wrong ones."""
    rows = [
        [PROTOCOLS[protocol], *("-" if value is None else f"{value:.3f}" for value in shares.values())]
        for protocol, shares in result.hit_probability.items()
    ]
    head = ["hit probability of the majority, mean", "all test images", "answered right", "answered wrong"]
    return table(head, rows) if rows else ""


def _claims(claims: tuple[Claim, ...], floor: float) -> str:
    rows = [[claim.title, _score(claim.accuracy), claim.basis] for claim in claims]
    lowest = f"Always the most frequent class: {floor:.3f} on the test images of the split by image."
    return f"{table(['accuracy', '[95 %]', 'the interval'], rows)}\n{lowest}"


def _score(score: Score | None) -> str:
    if score is None or score.value is None:
        return "-"
    bounds = "" if score.interval is None else f" [{interval_text(score.interval)}]"
    return f"{score.value:.3f}{bounds}"


# `featstore cache`

MINUTE, HOUR, DAY, YEAR = 60, 3_600, 86_400, 365 * 86_400
KINDS = {
    "temporary": "unfinished files of killed writers",
    "revision": "files of an earlier featstore, which this one never reads",
    "image": "files with vectors of images that no data set given here names",
}


def inventory_text(entries: Sequence[InventoryEntry], width: int = WIDTH) -> str:
    """Lines of `featstore cache ls`; columns that few ask for are left out where it gets too wide."""
    rows = [
        {
            "backbone": e.backbone,
            "weights": e.weights.removeprefix("sha256:")[:SHORT],
            "preprocess": e.preprocess,
            "precision": e.precision,
            "view": view_name(e.recipe, e.seed),
            "range": _range_cell(e.value_range),
            "decoder": e.decoder,
            "images": e.images,
            "shards": e.shards,
            "size": size(e.size),
            "age": _ages(e),
        }
        for e in entries
    ]
    if not rows:
        return "The store is empty."
    networks = counted(len({(e.backbone, e.weights, e.precision) for e in entries}), "network")
    views = counted(len({(e.recipe, e.seed) for e in entries}), "view")
    total = size(sum(e.size for e in entries))
    usual = {"preprocess": "official", "precision": "float32", "range": ""}  # not said where all is as usual
    if len({e.decoder for e in entries}) == 1:
        usual["decoder"] = entries[0].decoder
    kept = [name for name in rows[0] if any(row[name] != usual.get(name) for row in rows)]
    for fewer in ((), ("shards",), ("shards", "weights")):
        text = _columns({name: [row[name] for row in rows] for name in kept if name not in fewer})
        if _widest(text) <= width:
            break
    left = f" Without {' and '.join(fewer)}, which --json has." if fewer else ""
    return f"{networks}, {views} of up to {max(e.images for e in entries)} images, {total}.{left}\n\n{text}"


def _range_cell(value_range: tuple[float, ...] | None) -> str:
    """What is black and white: ``-1350,150`` as ``--range`` takes it, ``file``, or how many windows."""
    if value_range is None:
        return ""
    if tuple(value_range) == FILE_WINDOW:
        return "file"
    return "3 windows" if len(value_range) > 2 else ",".join(f"{end:g}" for end in value_range)  # noqa: PLR2004


def usage_text(sizes: Mapping[str, int]) -> str:
    """Lines of `featstore cache du`."""
    return table(
        None, [[size(value), name] for name, value in [*sizes.items(), ("total", sum(sizes.values()))]]
    )


def verification_text(result: Verification) -> str:
    """Outcome of `featstore cache verify`."""
    good = f" with {result.rows} rows are good" if result.rows is not None else " look whole from outside"
    counted = f"{result.shards} shards{good}" if result.shards else "This cache holds no shards"
    bad = f", {len(result.bad)} bad." if result.shards or result.bad else "."
    parts = [
        "\n".join(
            [
                f"{counted}{bad}",
                *(f"  {printable(path)}: {cause}" for path, cause in result.bad),
            ]
        ),
        _listed("unfinished files: `featstore cache gc` deletes those of dead writers", result.temporaries),
        _listed("files are not featstore's, and left alone", result.strangers),
        f"{result.quarantined} bad shards were in quarantine before." if result.quarantined else "",
        _repair_text(result.repair) if result.repair else "",
    ]
    if result.bad and not result.repair:
        parts.append(
            "`featstore cache verify --repair` sets aside what is bad; `featstore extract` computes it again, and"
            " `featstore cache import` takes imported features from their file again."
        )
    return "\n\n".join(part for part in parts if part)


def garbage_text(result: GarbageCollection, width: int = WIDTH) -> str:
    """What `featstore cache gc` found; paths begin in the store, and have their middle cut where it gets too wide."""
    if not result.garbage:
        return "There is nothing to delete."
    parts = []
    for kind, meaning in KINDS.items():
        items = [item for item in result.garbage if item.kind == kind]
        if items:
            head = f"{len(items)} {meaning} ({size(sum(item.size for item in items))}):"
            parts.append(_more(head, [_garbage_line(item, result.cache, width) for item in items]))
    cut = CUT in "".join(parts)
    where = f"Paths begin in {printable(result.cache)}{'; --json has them whole' if cut else ''}."
    return "\n\n".join([*parts, where, _garbage_sentence(result)])


def compaction_text(result: Compaction) -> str:
    """Outcome of `featstore cache compact`."""
    if not result.keys:
        return "There is nothing to compact."
    rows = [
        [k.backbone, view_name(k.recipe, k.seed), k.before, k.after, k.rows, k.duplicates, k.unequal]
        for k in result.keys
    ]
    header = ["backbone", "view", "shards before", "after", "rows moved", "duplicates", "unequal"]
    before, after = sum(k.before for k in result.keys), sum(k.after for k in result.keys)
    sentence = (
        f"{before} shards become {after}. Nothing was done."
        if result.dry_run
        else f"{before} shards became {after}."
    )
    unequal = sum(k.unequal for k in result.keys)
    warning = (
        f"warning: {unequal} images had unequal vectors in two shards, as two machines make them;"
        " those that were read before stay."
    )
    return "\n\n".join([table(header, rows), sentence, *([warning] if unequal else [])])


def exported_text(result: ExportedModel) -> str:
    """What `featstore export` wrote, what it answers, and how far it departs from the run."""
    answers = ", ".join(map(printable, result.classes))
    inputs = " and ".join(f"{name} (n, {side}, {side}, 3)" for name, side in result.inputs.items())
    decided = (
        "the most probable class is the answer"
        if result.threshold is None or result.positive is None
        else f"{printable(result.positive)} from a probability of {result.threshold:.4g} on"
    )
    networks = ", ".join(result.backbones)
    written = (
        f"Written: {printable(result.file)} ({size(result.size_bytes)}): {result.strategy} of {networks}."
    )
    takes = (
        f"It takes {inputs}: RGB of 0..255, scaled by Pillow's bilinear filter. It answers {answers}, in this order;"
        f" {decided}."
    )
    apart = f"Largest difference from the run: {result.largest_difference:.1e} in a probability, on generated images."
    rows = [[name, licence] for name, licence in result.licences.items()]
    parts = [
        written,
        takes,
        apart,
        table(["network", "licence of its ImageNet weights"], rows),
        "For research, not for the care of patients. docs/handover.md shows how to use it.",
    ]
    return "\n\n".join(parts)


def packed_text(result: Packed) -> str:
    """What `featstore pack` wrote, and what it must not be taken for."""
    images, patients = (
        counted(result.images, "image"),
        counted(result.groups, "patient (group)", "patients (groups)"),
    )
    what = f"{result.columns:,} numbers of {', '.join(result.backbones)} in {counted(result.views, 'view')}"
    file = printable(result.file)
    return "\n\n".join(
        [
            f"Written: {file} ({size(result.size_bytes)}): {images} of {patients}, {what}; no image, no name.",
            f"SHA-256 {result.sha256}",
            *_not_computed_here(result.imported),
            f"Licence: {printable(result.licence)}",
            "Vectors are made from pictures of patients, and are personal data: docs/privacy.md.",
            f"Next: featstore replay {shlex.quote(result.file)}",
        ]
    )


def _not_computed_here(imported: Sequence[str]) -> list[str]:
    """Which networks of a pack are only imported, if any."""
    names = printable(", ".join(imported))
    told = "not computed by featstore, but imported. Nobody can tell whether such vectors contain the label."
    return [f"{names}: {told}"] if imported else []


def moments_text(result: SiteMoments) -> str:
    """What a hospital wrote, and what it must not be taken for."""
    what = f"means and scatter of {result.dimensions} numbers of each image ({', '.join(result.backbones)})"
    if result.kept_for_testing:
        tested = (
            f"{counted(result.kept_for_testing, 'image')} of the data set's own split can test the model."
        )
    else:
        tested = "All images are in it: with a column `split` some are kept out of it, to test the model."
    return "\n\n".join(
        (
            f"Written: {printable(result.file)} ({size(result.size_bytes)}): {_by_class(result)}; no image, no name.",
            f"It holds {what}, by class. {tested}",
            "It is not anonymous by that alone: docs/from-sites.md says what it tells of patients.",
            "Next, where all files are: featstore fuse --from-sites A.json B.json",
        )
    )


def shared_text(result: SharedHead) -> str:
    """What a hospital hands out, and what it must not be taken for."""
    what = f"weights of {result.strategy} on {', '.join(result.backbones)}"
    learned = counted(result.images, "image")
    written = f"Written: {printable(result.file)} ({size(result.size_bytes)}): the head {result.name}"
    following = "featstore answers DATA --heads A.json,B.json --own RUN --out SITE.json"
    lines = [
        f"{written}, {what}, fitted on {learned}; no image, no name.",
        *_not_computed_here(result.imported),
        "Weights are made of patients' vectors: docs/from-sites.md says what they tell of them.",
        f"Next, at each hospital, RUN being that of its own head:\n{following}",
    ]
    return "\n\n".join(lines)


def head_answers_text(result: HeadAnswers) -> str:
    """How each head does here, and what was written."""
    one = "patient" if result.has_patients else "image"
    known = {name: score for name, score in result.scores.items() if score.value is not None}
    highest = max((score.value or 0.0 for score in known.values()), default=None)
    best = [name for name, score in known.items() if score.value == highest]
    have = "has" if len(best) == 1 else "have"
    told = (
        f"Of {len(result.heads)} heads {' and '.join(best)} {have} the highest AUC here,"
        f" {_in_words(known[best[0]])}, on"
        if best
        else "No AUC without patients of every class:"
    )
    rows = [[name, _in_words(score)] for name, score in result.scores.items()]
    lines = [
        f"{told} {_numbered(result.patients, one)} of the split test.",
        table(["head", "AUC [95 %]"], rows),
        _own_head_line(result, one),
    ]
    written = f"Written: {printable(result.file)} ({size(result.size_bytes)})"
    lines += [
        f"{written}: for each {one} the class, and a logit of each head; no image, no name.",
        "It is not anonymous by that alone: docs/from-sites.md says what it tells of patients.",
        "Next, where all files are: featstore fuse --from-sites A.json B.json",
    ]
    return "\n\n".join(lines)


def _own_head_line(result: HeadAnswers, one: str) -> str:
    """Whether this hospital's own head has learned from the patients that it answers."""
    if result.own is None:
        unknown = f"It cannot be told whether a head has learned from these {one}s"
        return f"{unknown}: name the run of your own by --own RUN."
    if not result.learned:
        return f"Your own head, {printable(result.own)}, has learned from none of these {one}s."
    were = counted(result.learned, f"{one} was", f"{one}s were")
    return (
        f"Of the split test {were} left out: your own head, {printable(result.own)}, has learned from them. Was it"
        " fitted on another split?"
    )


def merged_heads_text(result: MergedHeads) -> str:
    """What the heads are worth together, each by itself, and how to go on."""
    together = result.scores[PRIMARY]
    patients = _numbered(result.patients, "patient" if result.has_patients else "image")
    first = max(result.heads, key=lambda head: head.score.value or 0.0)
    against = (
        "no interval of a difference"
        if first.delta is None or first.interval is None
        else f"difference {first.delta:+z.3f} [{interval_text(first.interval, signed=True)}]"
    )
    noise = first.interval is not None and first.interval[0] <= 0 <= first.interval[1]
    columns = ["head", "AUC [95 %]", *(f"at {name}" for name in result.hospitals), "fitted on"]
    rows = [["all together", _in_words(together), *map(_auc, result.by_hospital.values()), ""]]
    rows += [
        [
            head.name,
            _in_words(head.score),
            *map(_auc, head.by_hospital.values()),
            counted(head.images, "image"),
        ]
        for head in result.heads
    ]
    where = f"on {patients} of {counted(len(result.hospitals), 'hospital')} that no head has learned from"
    answer = (
        f"The mean of {counted(len(result.heads), 'head')} has an AUC of {_in_words(together)} {where}. The best head"
        f" by itself is {first.name}, {_in_words(first.score)}; {against}"
        f"{', which cannot be told from none' if noise else ''}."
        if together.value is not None
        else f"One model of {counted(len(result.heads), 'head')}; no AUC {where}: a class is missing."
    )
    return "\n\n".join(
        [
            answer,
            table(columns, rows),
            "Nothing was chosen by these answers: all heads count alike. A patient of two hospitals counts twice.",
            *_unchecked_line(result),
            f"Next: featstore predict {shlex.quote(result.run)} IMAGES",
        ]
    )


def _unchecked_line(result: MergedHeads) -> list[str]:
    """Which hospitals did not look whether their own head has learned from their test patients."""
    if not result.unchecked:
        return []
    where = ", ".join(map(printable, result.unchecked))
    what = f"Not checked at {where}: whether its own head has learned from its test patients"
    return [f"{what} (`featstore answers DATA --own RUN`)."]


def _in_words(score: Score) -> str:
    return score_text(score).replace("  ", " ")


def _auc(score: Score) -> str:
    return "-" if score.value is None else f"{score.value:.3f}"


def _numbered(patients: Mapping[str, int], one: str) -> str:
    return f"{counted(sum(patients.values()), one)} ({counts(patients)})"


def merged_text(result: MergedFit) -> str:
    """One model of several hospitals, and how to test it."""
    what = f"{result.dimensions} numbers of each image ({', '.join(result.backbones)})"
    return "\n\n".join(
        (
            f"One model of {_by_class(result)} at {counted(result.sites, 'hospital')}; nobody has tested it yet.",
            f"It is the linear discriminant (lda) that all hospitals' images together give, by {what}, exactly.",
            "Moments tell no single answer, so there is no score; and a patient of two hospitals counts twice.",
            f"Next, at each hospital, on patients not in its file: featstore predict {shlex.quote(result.run)} DATA",
        )
    )


def _by_class(result: SiteMoments | MergedFit) -> str:
    one, many = (
        ("patient", "patients") if result.has_patients else ("image", "images (patients are not known)")
    )
    told = ", ".join(f"{printable(name)} {number:,}" for name, number in result.patients.items())
    return f"{counted(sum(result.patients.values()), one, many)} ({told})"


def replay_text(result: Replay) -> str:
    """Whether the scores came out the same, where they did not, and what was not computed."""
    images = counted(result.images, "image")
    files = " and ".join(result.files)
    if result.same:
        answer = f"The same, byte for byte: {files}, computed again from the vectors of {images}."
    else:
        answer = (
            f"Not the same: {', '.join(result.unequal)}, computed again from the vectors of {images};"
            f" {counted(result.n_differences, 'place differs', 'places differ')}, by at most {result.largest:.1e}"
            " of a number."
        )
    rows = [[one.where, one.recorded, one.found] for one in result.differences]
    others = ", ".join(f"{name} {then} then, {now} here" for name, (then, now) in result.libraries.items())
    parts = [
        answer,
        table(["where", "pack", "computed"], rows) if rows else "",
        f"Computed: {', '.join(map(printable, result.tables))}.",
        f"Not made from vectors, and taken from the pack: {', '.join(result.taken_over)}.",
        f"Other libraries: {printable(others)}." if others else "",
        *_not_computed_here(result.imported),
        f"Licence: {printable(result.licence)}",
    ]
    return "\n\n".join(part for part in parts if part)


def export_text(result: Exported) -> str:
    """What `featstore cache export` wrote."""
    blocks = ", ".join(f"{name} ({width} columns)" for name, width in result.backbones.items())
    aside = f" {result.excluded} images in quarantine are not among them." if result.excluded else ""
    return (
        f"{result.images} images in the view {view_name(result.recipe, result.seed)}: {blocks}.{aside}\n"
        f"Written: {', '.join(map(printable, result.files))}"
    )


def import_text(result: Imported) -> str:
    """What `featstore cache import` took in, what it did not, and how rows found their images."""
    lines = [
        f"{result.images} vectors of {result.dimension} numbers are stored as {result.name}.",
        f"Taken: {printable(result.columns)}.",
    ]
    if result.unused:
        lines.append(f"Not used: {printable(with_reasons(result.unused))}.")
    if result.doubtful:
        lines.append(f"warning: taken because they were named: {printable(with_reasons(result.doubtful))}.")
    if result.telling:
        which, they = (
            ("this column tells", "it is one") if len(result.telling) == 1 else ("each of these tells", "so")
        )
        lines.append(
            f"warning: on its own {which} every image's class, as a label in disguise would; if {they}, give"
            f" --ignore {printable(shlex.quote(','.join(result.telling)))} and another --name."
        )
    if result.example:
        lines.append(f"Rows were matched by {result.matched}: {printable(result.example)}.")
    lines.append(
        f"warning: {result.without} images of the data set have no vector in the file; `featstore fuse` needs all."
        if result.without
        else f"Next: featstore compare DATA --backbones {result.name}"
    )
    return "\n".join(lines)


def drift_text(result: extraction.Drift) -> str:
    """Outcome of `featstore cache drift`."""
    rows = [
        [d.backbone, d.rows, d.equal, f"{d.difference:.3g}", _share(d.relative), _drift_verdict(d)]
        for d in result.backbones
    ]
    header = ["backbone", "vectors", "byte-equal", "largest diff.", "of spread", ""]
    bad = [f"{path}: {reason} ({detail})" for path, reason, detail in result.bad]
    parts = [_drift_answer(result), table(header, rows), _listed("images do not decode any more", bad)]
    if result.drifted:
        parts += [_drift_cause(found) for found in result.backbones if found.drifted]
        parts.append(
            "A library or the machine has changed what comes out. Do not mix: extract into a new --cache, or go back."
        )
    return "\n\n".join(part for part in parts if part)


def _drift_answer(result: extraction.Drift) -> str:
    compared = [found for found in result.backbones if found.rows]
    if not compared:
        return "Nothing was compared: the store has no vectors of these images."
    if result.drifted:
        return f"DRIFTED: {', '.join(found.backbone for found in result.backbones if found.drifted)}."
    exactly = "byte for byte" if all(found.equal == found.rows for found in compared) else "but for last bits"
    return (
        f"Unchanged, {exactly}: {counted(len(compared), 'network')}, {sum(f.rows for f in compared)} vectors."
    )


def _drift_cause(found: extraction.BackboneDrift) -> str:
    """What computed the stored vectors and those of now, libraries of strangers' shards made harmless."""
    stored = " and by ".join(map(printable, found.stored_by)) or "unknown"
    return (
        f"{found.backbone} is {found.of_largest:.1g} of its largest feature off:\n"
        f"  stored by {stored}\n  computed now by {printable(found.computed_by)}"
    )


def _drift_verdict(found: extraction.BackboneDrift) -> str:
    if found.drifted:
        return "drifted"
    if not found.rows:
        return "nothing to compare"
    return "unchanged" if found.equal == found.rows else "last bits only"


def _share(relative: float | None) -> str:
    return "infinite" if relative is None else f"{100 * relative:.2g} %"


def _repair_text(repair: Repair) -> str:
    parts = [
        _listed("shards went to quarantine", repair.set_aside),
        _listed("shards lay in the wrong folder, and were put back", repair.put_back),
        _listed("damaged files that carry nothing of their own were dropped, to be rebuilt", repair.rebuilt),
    ]
    if repair.lost:
        rows = [[lost.backbone, f"{lost.view} #{lost.seed}", _rows_lost(lost)] for lost in repair.lost]
        parts.append(
            "To be computed again by the next `featstore extract` with the same data, backbones, recipe and seeds"
            " (imported features: by `featstore cache import` of the same file):\n"
            + table(["backbone", "view", "vectors"], rows)
        )
    return "\n\n".join(part for part in parts if part) or "There was nothing to repair."


def _rows_lost(lost: LostRows) -> str:
    return f"those of {lost.shards} shards" if lost.rows is None else str(lost.rows)


def _garbage_line(item: Garbage, cache: str, width: int) -> str:
    rows = f": {item.rows} vectors go, {item.kept} stay" if item.rows else ""
    path = printable(item.path.removeprefix(cache).removeprefix("/"))
    return f"{_without_middle(path, width - len(rows) - len(INDENT))}{rows}"


def _garbage_sentence(result: GarbageCollection) -> str:
    rows = sum(item.rows for item in result.garbage)
    what = f"{len(result.garbage)} files, {rows} vectors, {size(result.size)}"
    return f"Deleted: {what}." if result.deleted else f"To delete: {what}. Nothing was done."


def _listed(meaning: str, paths: Sequence[str]) -> str:
    return _more(f"{len(paths)} {meaning}:", [printable(path) for path in paths]) if paths else ""


def _without_middle(path: str, columns: int) -> str:
    """A path of at most so many columns, its ends kept: what it is of, and how the file begins to be called."""
    columns = max(columns, SHORTEST_PATH)
    if len(path) <= columns:
        return path
    end = (columns - len(CUT)) // 3
    return f"{path[: columns - len(CUT) - end]}{CUT}{path[-end:]}"


def _more(head: str, lines: Sequence[str]) -> str:
    more = [f"and {len(lines) - LISTED} more; --json lists all"] if len(lines) > LISTED else []
    return f"\n{INDENT}".join([head, *lines[:LISTED], *more])


def _ages(entry: InventoryEntry) -> str:
    oldest, newest = (_age(moment) for moment in (entry.oldest, entry.newest))
    if oldest == newest:
        return oldest
    least, unit = newest.split(" ")
    return f"{least if oldest.endswith(unit) else newest} to {oldest}"


def _age(moment: str) -> str:
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} min"
    if seconds < DAY:
        return f"{seconds // HOUR:.0f} h"
    return f"{seconds // DAY:.0f} d" if seconds < YEAR else f"{seconds / YEAR:.1f} y"
