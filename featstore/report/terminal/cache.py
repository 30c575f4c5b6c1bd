"""What the `featstore cache` commands say, as plain text for a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from featstore.exchange.columns import listed
from featstore.report.plain import duration, printable, size, table, view_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.exchange.export import Exported
    from featstore.exchange.foreign import Imported
    from featstore.extraction.drift import BackboneDrift, Drift
    from featstore.store.collection import Garbage, GarbageCollection
    from featstore.store.compaction import Compaction
    from featstore.store.inventory import Entry
    from featstore.store.repair import Lost, Repair
    from featstore.store.verification import Verification

LISTED = 10
DAY, YEAR = 86_400, 365 * 86_400
KINDS = {
    "temporary": "unfinished files of killed writers",
    "revision": "files of an earlier featstore, which this one never reads",
    "image": "files with vectors of images that no data set given here names",
}


def inventory_text(entries: Sequence[Entry]) -> str:
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
        lines.append(f"Not used: {printable(listed(result.unused))}.")
    if result.doubtful:
        lines.append(f"warning: taken because they were named: {printable(listed(result.doubtful))}.")
    if result.example:
        lines.append(f"Rows were matched by {result.matched}: {printable(result.example)}.")
    lines.append(
        f"warning: {result.without} images of the data set have no vector in the file; `featstore fuse` needs all."
        if result.without
        else f"Next: featstore compare DATA --backbones {result.name}"
    )
    return "\n".join(lines)


def drift_text(result: Drift) -> str:
    """Outcome of `featstore cache drift`."""
    rows = [
        [d.backbone, d.rows, d.equal, f"{d.difference:.3g}", _share(d.relative), _drift_verdict(d)]
        for d in result.backbones
    ]
    header = ["backbone", "vectors", "byte-equal", "largest difference", "of the spread", ""]
    bad = [f"{path}: {reason} ({detail})" for path, reason, detail in result.bad]
    parts = [table(header, rows), _listed("images do not decode any more", bad)]
    if result.drifted:
        parts.append(
            "A library or the machine has changed what comes out. Do not mix: extract into a new --cache, or go back."
        )
    return "\n\n".join(part for part in parts if part)


def _drift_verdict(found: BackboneDrift) -> str:
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


def _rows_lost(lost: Lost) -> str:
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


def _ages(entry: Entry) -> str:
    oldest, newest = (_age(moment) for moment in (entry.oldest, entry.newest))
    return oldest if oldest == newest else f"{newest} to {oldest}"


def _age(moment: str) -> str:
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    if seconds < DAY:
        return duration(seconds)
    return f"{seconds // DAY:.0f} d" if seconds < YEAR else f"{seconds / YEAR:.1f} y"
