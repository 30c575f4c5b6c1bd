"""Results as plain text for a terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from featstore.findings import counted
from featstore.images.decode import REASONS
from featstore.report.plain import counts, duration, printable, size, table, view_name
from featstore.report.terminal.findings import findings_text
from featstore.report.terminal.scores import comparison_text, fusion_text, operating_text
from featstore.report.verdict import summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.demonstration import Demonstration
    from featstore.evaluation.check import Check
    from featstore.evaluation.prediction_table import Counts, MeanOfPages, Prediction, Predictions
    from featstore.evaluation.scores import Score
    from featstore.extraction.bench import Bench, Rate
    from featstore.extraction.precision import PrecisionCheck
    from featstore.extraction.summary import Extraction

LISTED = 10
CLASSES_SHOWN = 4
"""So many classes have a column each in a table for the terminal."""
LISTED_BELOW = ("FS109", "FS301")
"""Findings about files that are listed one by one below."""
LOOKED_FOR = """\
Looked for: unreadable files; pictures in two classes or splits; patients in two
splits or under two names; copies across patients (compressed, mirrored, turned,
cropped); odd layouts and names; what is guessed without a network.
Wrong labels and other hospitals cannot be seen from here."""
NEXT = """On your own images:
  featstore check   DATA
  featstore extract DATA --recipe mild --seeds 1-2
  featstore compare DATA --out runs/mine
DATA is a folder with one folder per class, or a CSV: path,label[,group][,split][,site]."""


def extraction_text(result: Extraction) -> str:
    """Dry run or closing summary of `featstore extract`."""
    parts = [
        _cells_text(result),
        _extraction_sentence(result),
        _bad_text(result.bad),
        findings_text(result.findings),
    ]
    return "\n\n".join(part for part in parts if part)


def _cells_text(result: Extraction) -> str:
    """What there is to do, or what there is now."""
    if result.dry_run:
        header = ["stored", "missing"]
        numbers = [[c.stored, c.missing] for c in result.cells]
    else:
        header = ["stored now", "of them new", "missing"]
        numbers = [[c.stored_now, c.stored_now - c.stored, c.missing_now] for c in result.cells]
    names = [[c.backbone, view_name(c.recipe, c.seed)] for c in result.cells]
    rows = [[*name, *number] for name, number in zip(names, numbers, strict=True)]
    return table(["backbone", "view", *header], rows)


def precision_text(result: PrecisionCheck) -> str:
    """Table of `featstore extract --precision-check`."""
    rows = [[c.backbone, f"{100 * c.error:.2f} %", f"{c.correlation:.5f}"] for c in result.costs]
    header = ["backbone", "error / spread between images", "correlation of distances"]
    sentence = f"{result.precision} against float32 on {result.images} images; the mark to stay below is 5 %."
    return "\n\n".join(part for part in (table(header, rows), sentence, _bad_text(result.bad)) if part)


def predictions_text(result: Predictions, most: int | None = None) -> str:
    """One line per image or page, of which at most `most` are shown; the columns name the class."""
    if not result.predictions:
        return _bad_text(result.bad)
    shown = result.predictions[:most]
    more = len(result.predictions) - len(shown)
    parts = [
        _predictions_table(result, shown) + (f"\nand {more} more" if more else ""),
        _means_text(result),
        "" if result.counts is None else _counts_text(result.counts),
        operating_text(result.operating, result.classes),
        f"{result.skipped} other files were passed over." if result.skipped else "",
        _bad_text(result.bad),
    ]
    return "\n\n".join(part for part in parts if part)


def _predictions_table(result: Predictions, shown: Sequence[Prediction]) -> str:
    """Columns beyond the answer stand there only where they say something."""
    everything = result.predictions
    columns: dict[str, Sequence[object]] = {"image": [p.path for p in shown]}
    if any(p.page for p in everything):
        columns["page"] = [p.page or 1 for p in shown]
    if any(p.given for p in everything):
        columns["label"] = [p.given or "" for p in shown]
    columns["predicted"] = [p.label for p in shown]
    columns |= _probability_columns(shown, result.classes)
    columns |= {name: [p.votes[name] for p in shown] for name in everything[0].votes}
    if not all(p.is_new for p in everything):
        columns["in training"] = [_training_cell(p) for p in shown]
    return table(list(columns), list(zip(*columns.values(), strict=True)))


def _probability_columns(
    found: Sequence[Prediction | MeanOfPages], classes: Sequence[str]
) -> dict[str, Sequence[str]]:
    """A column per class; of many classes the predicted one's alone."""
    if len(classes) > CLASSES_SHOWN:
        return {"P(predicted)": [f"{p.probability[p.label]:.3f}" for p in found]}
    return {f"P({name})": [f"{p.probability[name]:.3f}" for p in found] for name in classes}


def _training_cell(p: Prediction) -> str:
    tuned = [f"{'+'.join(p.tuned_on)} tuned on it"] if p.tuned_on else []
    return ", ".join([*([p.in_training] if p.in_training else []), *tuned])


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


def _counts_text(counts: Counts) -> str:
    if not counts.labelled:
        return f"All {counts.seen} images with a label were in training, so none is counted."
    seen = f"; {counts.seen} more were in training and are not counted" if counts.seen else ""
    share = counts.right / counts.labelled
    return f"Right: {counts.right} of {counts.labelled} images with a label ({share:.3f}){seen}."


def check_text(result: Check) -> str:
    """Findings of an audit."""
    grave = [finding for finding in result.findings if not finding.accepted]
    warnings = sum(finding.severity == "warning" for finding in grave)
    size_of = f"{counted(result.images, 'image')}, {counted(result.groups, 'group')}"
    about = f"{size_of}, classes: {counts(result.classes)}."
    if not result.no_error_found:
        answer = "Errors found: every score on this data set would be false. Mend it first."
    else:
        answer = f"No error found; {warnings or 'no'} warning{'' if warnings == 1 else 's'}."
    listed = [replace(f, examples=()) if f.code in LISTED_BELOW else f for f in result.findings]
    parts = [f"{answer}\n{about}", findings_text(listed if result.bad else result.findings)]
    parts.append(
        _bad_text(result.bad, "Files in quarantine:", cured=len({row[1] for row in result.bad}) == 1)
    )
    parts += [_shortcut_text(result.shortcuts), LOOKED_FOR]
    return "\n\n".join(part for part in parts if part)


def bench_text(result: Bench) -> str:
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


def _mark(rate: Rate, result: Bench) -> str:
    return "fastest" if rate in result.best else ""


def demo_text(result: Demonstration) -> str:
    """What the demonstration found, and what to do next."""
    return "\n\n".join(
        [
            extraction_text(result.extraction),
            fusion_text(result.fusion),
            comparison_text(result.comparison),
            f"Found: {summary(result.comparison)}",
            f"All images were generated: {result.data}. It took {result.seconds:.0f} s. {NEXT}",
            f"Look at it: {result.report} (one file, works offline in any browser).",
        ]
    )


def _extraction_sentence(result: Extraction) -> str:
    if not result.missing:
        return f"Nothing is missing: all {result.stored} vectors of {result.images} images are in {result.cache}."
    planned = f"{result.missing} vectors ({size(sum(c.bytes_missing for c in result.cells))})"
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
    crew = f", {result.workers} processes {result.workers_from}" if result.workers > 1 else ""
    return (
        f"Computed {result.computed} of {planned} in {duration(result.seconds)}, {rate:.1f} vectors/s ({busy}).\n"
        f"{memory}{crew}."
    )


def _bad_text(bad: Sequence[tuple[str, str, str]], head: str = "", *, cured: bool = False) -> str:
    """Files in quarantine with the reason of each, and unless it was said above what to do about each reason."""
    if not bad:
        return ""
    lines = [f"  {printable(path)}: {reason} ({printable(detail)})" for path, reason, detail in bad[:LISTED]]
    more = [f"  and {len(bad) - LISTED} more"] if len(bad) > LISTED else []
    head = head or f"{counted(len(bad), 'image is', 'images are')} in quarantine; everything else goes on:"
    cures = [f"{reason}: {REASONS[reason]}" for reason in sorted({row[1] for row in bad} & REASONS.keys())]
    return "\n".join([head, *lines, *more, *([] if cured else cures)])


def _shortcut_text(shortcuts: Mapping[str, Score]) -> str:
    if not shortcuts:
        return ""
    rows = [[name, spoken_score(score)] for name, score in shortcuts.items()]
    return "AUC of guessing the class without a network, 95 % interval (0.5 is harmless):\n" + table(
        None, rows
    )


def spoken_score(score: Score) -> str:
    """Value and interval."""
    if score.value is None:
        return "-"
    return f"{score.value:.3f}" + (
        "" if score.interval is None else "  [{:.3f}, {:.3f}]".format(*score.interval)
    )
