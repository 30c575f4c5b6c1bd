"""Results of all other commands as plain text for a terminal."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from featstore.findings import counted, with_reasons
from featstore.images.formats.decode import REASONS
from featstore.images.recipe import view_name
from featstore.images.windows import range_option
from featstore.reporting.terminal.comparison import comparison_text, fusion_text, operating_text
from featstore.reporting.verdict import findings_text, summary
from featstore.tables import counts, duration, printable, size, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.exchange.export import Exported
    from featstore.exchange.importing import Imported
    from featstore.results import extraction
    from featstore.results.fusion import Counts, MeanOfPages, Prediction, Predictions
    from featstore.results.paper import Claim, Conversion, Demonstration, PaperNetwork, Reproduction
    from featstore.results.scores import Score
    from featstore.store.cleanup import Compaction, Garbage, GarbageCollection
    from featstore.store.verify import InventoryEntry, LostRows, Repair, Verification


# Extraction, predictions, audit, bench and demo

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


def extraction_text(result: extraction.Extraction) -> str:
    """Dry run or closing summary of `featstore extract`."""
    parts = [
        _cells_text(result),
        _extraction_sentence(result),
        _bad_text(result.bad),
        findings_text(result.findings),
    ]
    return "\n\n".join(part for part in parts if part)


def _cells_text(result: extraction.Extraction) -> str:
    """What there is to do, or what there is now."""
    if result.dry_run:
        header = ["stored", "missing"]
        numbers = [[c.stored, c.missing] for c in result.keys]
    else:
        header = ["stored now", "of them new", "missing"]
        numbers = [[c.stored_now, c.stored_now - c.stored, c.missing_now] for c in result.keys]
    names = [[c.backbone, view_name(c.recipe, c.seed)] for c in result.keys]
    rows = [[*name, *number] for name, number in zip(names, numbers, strict=True)]
    return table(["backbone", "view", *header], rows)


def precision_text(result: extraction.PrecisionCheck) -> str:
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


def check_text(result: extraction.Check) -> str:
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
    lines = [f"  {printable(path)}: {reason} ({printable(detail)})" for path, reason, detail in bad[:LISTED]]
    more = [f"  and {len(bad) - LISTED} more"] if len(bad) > LISTED else []
    head = head or f"{counted(len(bad), 'image is', 'images are')} in quarantine; everything else goes on:"
    cures = [f"{reason}: {REASONS[reason]}" for reason in sorted({row[1] for row in bad} & REASONS.keys())]
    return "\n".join([head, *lines, *more, *([] if cured else cures)])


def _shortcut_text(shortcuts: Mapping[str, Score]) -> str:
    if not shortcuts:
        return ""
    rows = [[name, score_text(score)] for name, score in shortcuts.items()]
    return "AUC of guessing the class without a network, 95 % interval (0.5 is harmless):\n" + table(
        None, rows
    )


def score_text(score: Score) -> str:
    """Value and interval."""
    if score.value is None:
        return "-"
    return f"{score.value:.3f}" + (
        "" if score.interval is None else "  [{:.3f}, {:.3f}]".format(*score.interval)
    )


# Fine-tuning

ROLES = {"trained": "learned from", "validated": "to choose the epoch"}


def finetuning_text(result: extraction.Finetuning, data: str) -> str:
    """What was learned from what, whether it helped, and the next two commands."""
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
            f"{head}; classes: {counts(result.classes)}.\nImages: {sizes}.",
            table(["epoch", *(name.replace("_", " ") for name in result.history)], rows),
            _verdict(result),
            f"The weights are in {result.weights}, with the ids of the images that they know.",
            "Next:\n" + "\n".join(f"  {line}" for line in next_commands(result, data)),
        ]
    )


def next_commands(result: extraction.Finetuning, data: str) -> tuple[str, str]:
    """Commands that extract and score features of the new weights, on images that they have not met."""
    options = result.options
    choice = ["--backbones", result.backbone, "--weights", f"{result.backbone}={result.weights}"]
    if options["preprocess"] != "official":
        choice += ["--preprocess", options["preprocess"]]
    if options["value_range"] is not None:
        choice += [range_option(options["value_range"])]
    split = ["--test-size", f"{options['test_size']:g}", "--split-seed", str(options["split_seed"])]
    return (
        shlex.join(["featstore", "extract", data, *choice]),
        shlex.join(["featstore", "fuse", data, *choice, *split]),
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


def _claims(claims: tuple[Claim, ...], floor: float) -> str:
    rows = [[claim.title, _score(claim.accuracy), claim.basis] for claim in claims]
    lowest = f"Always the most frequent class: {floor:.3f} on the test images of the split by image."
    return f"{table(['accuracy', '[95 %]', 'the interval'], rows)}\n{lowest}"


def _score(score: Score | None) -> str:
    if score is None or score.value is None:
        return "-"
    bounds = "" if score.interval is None else f" [{score.interval[0]:.3f}, {score.interval[1]:.3f}]"
    return f"{score.value:.3f}{bounds}"


# `featstore cache`

DAY, YEAR = 86_400, 365 * 86_400
KINDS = {
    "temporary": "unfinished files of killed writers",
    "revision": "files of an earlier featstore, which this one never reads",
    "image": "files with vectors of images that no data set given here names",
}


def inventory_text(entries: Sequence[InventoryEntry]) -> str:
    """Lines of `featstore cache ls`."""
    header = ["backbone", "weights", "preprocess", "precision", "view", "images", "shards", "size", "age"]
    rows = [
        [
            e.backbone,
            e.weights[:20],
            e.preprocess,
            e.precision,
            view_name(e.recipe, e.seed),
            e.images,
            e.shards,
            size(e.size),
            _ages(e),
        ]
        for e in entries
    ]
    return table(header, rows) if rows else "The store is empty."


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


def garbage_text(result: GarbageCollection) -> str:
    """What `featstore cache gc` found."""
    if not result.garbage:
        return "There is nothing to delete."
    parts = []
    for kind, meaning in KINDS.items():
        items = [item for item in result.garbage if item.kind == kind]
        if items:
            head = f"{len(items)} {meaning} ({size(sum(item.size for item in items))}):"
            parts.append(_more(head, [_garbage_line(item) for item in items]))
    return "\n\n".join([*parts, _garbage_sentence(result)])


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
    header = ["backbone", "vectors", "byte-equal", "largest difference", "of the spread", ""]
    bad = [f"{path}: {reason} ({detail})" for path, reason, detail in result.bad]
    parts = [table(header, rows), _listed("images do not decode any more", bad)]
    if result.drifted:
        parts += [_drift_cause(found) for found in result.backbones if found.drifted]
        parts.append(
            "A library or the machine has changed what comes out. Do not mix: extract into a new --cache, or go back."
        )
    return "\n\n".join(part for part in parts if part)


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


def _garbage_line(item: Garbage) -> str:
    rows = f": {item.rows} vectors go, {item.kept} stay" if item.rows else ""
    return f"{printable(item.path)}{rows}"


def _garbage_sentence(result: GarbageCollection) -> str:
    rows = sum(item.rows for item in result.garbage)
    what = f"{len(result.garbage)} files, {rows} vectors, {size(result.size)}"
    return f"Deleted: {what}." if result.deleted else f"To delete: {what}. Nothing was done."


def _listed(meaning: str, paths: Sequence[str]) -> str:
    return _more(f"{len(paths)} {meaning}:", [printable(path) for path in paths]) if paths else ""


def _more(head: str, lines: Sequence[str]) -> str:
    more = [f"and {len(lines) - LISTED} more; --json lists all"] if len(lines) > LISTED else []
    return "\n  ".join([head, *lines[:LISTED], *more])


def _ages(entry: InventoryEntry) -> str:
    oldest, newest = (_age(moment) for moment in (entry.oldest, entry.newest))
    return oldest if oldest == newest else f"{newest} to {oldest}"


def _age(moment: str) -> str:
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    if seconds < DAY:
        return duration(seconds)
    return f"{seconds // DAY:.0f} d" if seconds < YEAR else f"{seconds / YEAR:.1f} y"
