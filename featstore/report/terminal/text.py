"""Results as plain text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.report.plain import counts, duration, printable, size, table, view_name
from featstore.report.terminal.findings import findings_text
from featstore.report.terminal.scores import comparison_text, fusion_text, operating_text
from featstore.report.verdict import summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.demonstration import Demonstration
    from featstore.evaluation.check import Check
    from featstore.evaluation.predict import Predictions
    from featstore.evaluation.scores import Score
    from featstore.extraction.bench import Bench, Rate
    from featstore.extraction.precision import PrecisionCheck
    from featstore.extraction.summary import Extraction

LISTED = 10
LOOKED_FOR = """\
Looked for: unreadable files; pictures in two classes or splits; patients in two splits or under two names;
copies across patients (compressed, mirrored, turned, cropped); odd layouts and names; what is guessed without a
network. Wrong labels and other hospitals cannot be seen from here."""
NEXT = """On your own images:
  featstore check   DATA
  featstore extract DATA --recipe mild --seeds 1-2
  featstore compare DATA --out runs/mine
DATA is a folder with one folder per class, or a CSV: path,label[,group][,split][,site]."""


def extraction_text(result: Extraction) -> str:
    """Dry run or closing summary of `featstore extract`."""
    rows = [[c.backbone, view_name(c.recipe, c.seed), c.stored, c.missing] for c in result.cells]
    parts = [
        table(["backbone", "view", "stored", "missing"], rows),
        _extraction_sentence(result),
        _bad_text(result.bad),
        findings_text(result.findings),
    ]
    return "\n\n".join(part for part in parts if part)


def precision_text(result: PrecisionCheck) -> str:
    """Table of `featstore extract --precision-check`."""
    rows = [[c.backbone, f"{100 * c.error:.2f} %", f"{c.correlation:.5f}"] for c in result.costs]
    header = ["backbone", "error / spread between images", "correlation of distances"]
    sentence = f"{result.precision} against float32 on {result.images} images; the mark to stay below is 5 %."
    return "\n\n".join(part for part in (table(header, rows), sentence, _bad_text(result.bad)) if part)


def predictions_text(result: Predictions) -> str:
    """One line per image."""
    if not result.predictions:
        return _bad_text(result.bad)
    names = list(result.predictions[0].votes)
    rows = [
        [printable(p.path), p.label, f"{p.probability[p.label]:.3f}", *(p.votes[name] for name in names)]
        for p in result.predictions
    ]
    parts = [
        table(["image", "label", "probability", *names], rows),
        operating_text(result.operating, list(result.predictions[0].probability)),
        _tuned_text(result),
        _bad_text(result.bad),
    ]
    return "\n\n".join(part for part in parts if part)


def _tuned_text(result: Predictions) -> str:
    lines = [f"  {printable(p.path)}: {', '.join(p.tuned_on)}" for p in result.predictions if p.tuned_on]
    head = "A backbone was tuned on these very images, so the answers say nothing about new ones:"
    return "\n".join([head, *lines]) if lines else ""


def check_text(result: Check) -> str:
    """Findings of an audit."""
    grave = [finding for finding in result.findings if not finding.accepted]
    warnings = sum(finding.severity == "warning" for finding in grave)
    about = f"{result.images} images, {result.groups} groups, classes: {counts(result.classes)}."
    if not result.no_error_found:
        answer = "Errors found: every score on this data set would be false. Mend it first."
    else:
        answer = f"No error found; {warnings or 'no'} warning{'' if warnings == 1 else 's'}."
    parts = [f"{answer}\n{about}", findings_text(result.findings), _bad_text(result.bad)]
    parts += [_shortcut_text(result.shortcuts), LOOKED_FOR]
    return "\n\n".join(part for part in parts if part)


def bench_text(result: Bench) -> str:
    """Rates of `featstore bench`, and for each backbone the flags that ask for the fastest."""
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
        f"  {r.backbone}: --precision {r.precision}"
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


def _bad_text(bad: Sequence[tuple[str, str, str]]) -> str:
    if not bad:
        return ""
    lines = [f"  {printable(path)}: {reason} ({printable(detail)})" for path, reason, detail in bad[:LISTED]]
    more = [f"  and {len(bad) - LISTED} more"] if len(bad) > LISTED else []
    return "\n".join([f"{len(bad)} images are in quarantine; everything else goes on:", *lines, *more])


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
