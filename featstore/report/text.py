"""Results as plain text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featstore.images.recipe import PRESETS, parse_recipe
from featstore.report.plain import duration, printable, size, table
from featstore.report.verdict import summary, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.demonstration import Demonstration
    from featstore.evaluation.check import Check
    from featstore.evaluation.compare import Comparison
    from featstore.evaluation.fuse import Fusion
    from featstore.evaluation.predict import Predictions
    from featstore.extraction.bench import Bench, Rate
    from featstore.extraction.precision import PrecisionCheck
    from featstore.extraction.summary import Extraction
    from featstore.store.inventory import Entry, Verification

LISTED = 10
NEXT = """On your own images:
  featstore check   DATA
  featstore extract DATA --recipe mild --seeds 1-2
  featstore compare DATA --out runs/mine
DATA is a folder with one folder per class, or a CSV: path,label[,group][,split][,site]."""


def extraction_text(result: Extraction) -> str:
    """Dry run or closing summary of `featstore extract`."""
    rows = [[c.backbone, _view(c.recipe, c.seed), c.stored, c.missing] for c in result.cells]
    parts = [
        table(["backbone", "view", "stored", "missing"], rows),
        _extraction_sentence(result),
        _bad_text(result.bad),
        _warnings_text(result.warnings),
    ]
    return "\n\n".join(part for part in parts if part)


def precision_text(result: PrecisionCheck) -> str:
    """Table of `featstore extract --precision-check`."""
    rows = [[c.backbone, f"{100 * c.error:.2f} %", f"{c.correlation:.5f}"] for c in result.costs]
    header = ["backbone", "error / spread between images", "correlation of distances"]
    sentence = f"{result.precision} against float32 on {result.images} images; the mark to stay below is 5 %."
    return "\n\n".join(part for part in (table(header, rows), sentence, _bad_text(result.bad)) if part)


def comparison_text(result: Comparison) -> str:
    """Table of a comparison, and the verdict in words."""
    metrics = list(result.standings[0].estimates)
    rows = [
        [s.contestant.label, *(_estimate(s.estimates[m].mean, s.estimates[m].interval) for m in metrics)]
        for s in result.standings
    ]
    spread = [
        [s.contestant.label, *(f"{s.estimates[m].deviation:.3f}" for m in metrics)] for s in result.standings
    ]
    return "\n\n".join(
        [
            data_text(result.matrix),
            table([f"mean of {result.folds * result.repeats} folds [95 %]", *metrics], rows),
            table(["deviation between folds", *metrics], spread),
            *_drafts_text(result.drafts),
            verdict(result),
        ]
    )


def _drafts_text(drafts: Sequence[Sequence[str]]) -> list[str]:
    """Say which backbones the greedy contestants had."""
    if not drafts:
        return []
    chosen = [f"  fold {fold}: {', '.join(names)}" for fold, names in enumerate(drafts, 1)]
    return ["\n".join(["Greedy selection, made in each fold from its training images, took:", *chosen])]


def fusion_text(result: Fusion) -> str:
    """Scores of a fit."""
    metrics = list(next(iter(result.scores.values())))
    sizes = ", ".join(f"{name} {count}" for name, count in result.sizes.items())
    rows = [
        [f"{name} ({result.sizes[name]} images)", *(_estimate(s[m].value, s[m].interval) for m in metrics)]
        for name, s in result.scores.items()
    ]
    return "\n\n".join(
        [
            data_text(result.matrix),
            f"{result.strategy}, fitted on the training images alone: {sizes}.",
            table(["score [95 %]", *metrics], rows),
            f"The run is in {result.run}: model/, metrics.json, predictions.csv, run.json.",
            f"Next: featstore predict {result.run} IMAGE...",
        ]
    )


def predictions_text(result: Predictions) -> str:
    """One line per image."""
    if not result.predictions:
        return _bad_text(result.bad)
    names = list(result.predictions[0].votes)
    rows = [
        [printable(p.path), p.label, f"{p.probability[p.label]:.3f}", *(p.votes[name] for name in names)]
        for p in result.predictions
    ]
    parts = [table(["image", "label", "probability", *names], rows), _bad_text(result.bad)]
    return "\n\n".join(part for part in parts if part)


def check_text(result: Check) -> str:
    """Findings of an audit."""
    parts = [f"{result.images} images, {result.groups} groups, classes: {_counts(result.classes)}."]
    parts += [
        "\n".join(
            [
                f"{f.severity.upper()} {f.code}: {f.message}",
                *(f"  {printable(e)}" for e in f.examples[:LISTED]),
            ]
        )
        for f in result.findings
    ]
    parts += [_bad_text(result.bad), _shortcut_text(result.shortcuts)]
    parts.append(
        "The data set is sound." if result.sound else "The data set would give a false answer: mend it first."
    )
    return "\n\n".join(part for part in parts if part)


def inventory_text(entries: Sequence[Entry]) -> str:
    """Lines of `featstore cache ls`."""
    rows = [
        [e.backbone, e.weights[:20], e.preprocess, _view(e.recipe, e.seed), e.images, size(e.size)]
        for e in entries
    ]
    return (
        table(["backbone", "weights", "preprocess", "view", "images", "size"], rows)
        if rows
        else "The store is empty."
    )


def usage_text(sizes: Mapping[str, int]) -> str:
    """Lines of `featstore cache du`."""
    return table(
        None, [[size(value), name] for name, value in [*sizes.items(), ("total", sum(sizes.values()))]]
    )


def verification_text(result: Verification) -> str:
    """Outcome of `featstore cache verify`."""
    bad = [f"  {path}: {cause}" for path, cause in result.bad]
    return "\n".join([f"{result.shards} shards with {result.rows} rows are good, {len(bad)} bad.", *bad])


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
        ]
    )


def data_text(matrix: Mapping[str, Any]) -> str:
    """What a result rests on, in two lines."""
    views = [_view(view["recipe"], view["seed"]) for view in matrix["views"]]
    groups = (
        f"{matrix['groups']} groups"
        if matrix["has_groups"]
        else "no groups given (each image is its own: a leak cannot be excluded)"
    )
    aside = f", {matrix['quarantined']} in quarantine" if matrix["quarantined"] else ""
    positive = (
        f"; sensitivity is about {matrix['positive']!r}" if matrix["positive"] else "; averaged over classes"
    )
    return (
        f"{matrix['images']} images{aside}, {groups}, classes: {_counts(matrix['classes'])}{positive}.\n"
        f"Backbones: {', '.join(spec['name'] for spec in matrix['backbones'])}. Views: {', '.join(views)}."
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
    return f"Computed {result.computed} of {planned} in {duration(result.seconds)}, {rate:.1f} images/s ({busy})."


def _bad_text(bad: Sequence[tuple[str, str, str]]) -> str:
    if not bad:
        return ""
    lines = [f"  {printable(path)}: {reason} ({detail})" for path, reason, detail in bad[:LISTED]]
    more = [f"  and {len(bad) - LISTED} more"] if len(bad) > LISTED else []
    return "\n".join([f"{len(bad)} images are in quarantine; everything else goes on:", *lines, *more])


def _warnings_text(warnings: Sequence[str]) -> str:
    return "\n".join(f"warning: {warning}" for warning in warnings)


def _shortcut_text(shortcuts: Mapping[str, float]) -> str:
    if not shortcuts:
        return ""
    rows = [[name, f"{value:.3f}"] for name, value in shortcuts.items()]
    return "AUC of guessing the label without a network (0.5 and less is harmless):\n" + table(None, rows)


def _estimate(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _view(recipe: str, seed: int) -> str:
    """Name of a view: the preset where its recipe is one, else the recipe's text; then the seed."""
    named = next((name for name in PRESETS if str(parse_recipe(name)) == recipe), recipe)
    return named if recipe == "identity" else f"{named} #{seed}"


def _counts(classes: Mapping[str, int]) -> str:
    return ", ".join(f"{printable(name)} {count}" for name, count in classes.items())
