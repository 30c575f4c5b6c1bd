"""The verdict on a run: what a hurried reader should take away, and what he must not miss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.evaluation.comparison import Comparison
from featstore.evaluation.fuse import Fusion
from featstore.report.page import facts, findings
from featstore.report.plain import duration
from featstore.report.records import reproduced
from featstore.report.terminal.findings import said
from featstore.report.verdict import fusion_summary, summary, told_apart, winner_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from featstore.report.records.record import Record


def opening(record: Record) -> tuple[str, ...]:
    """Sentences that a report begins with, the one that matters first."""
    match record.outcome:
        case Comparison() as comparison:
            told = f"Of all {len(comparison.duels):,} pairs, {told_apart(comparison):,} are told apart."
            lines = winner_text(comparison).splitlines()
            return (
                summary(comparison),
                *lines,
                *([told] if comparison.duels else []),
                *facts.untrained(record),
                *said(comparison.findings),
            )
        case Fusion() as fusion:
            return (
                fusion_summary(fusion, record.shown or "", findings.tested_groups(record)),
                *([] if record.matrix["has_groups"] else [facts.disjoint(record)]),
                *facts.untrained(record),
                findings.mistakes(record),
                *said(fusion.findings),
            )
        case _ if record.kind == "paper":
            return tuple(reproduced.verdict(record.metrics))
        case _:
            about = record.about
            done = f"{about['computed']:,} vectors computed in {duration(about['seconds'])}"
            of = (
                f"{len(about['backbones'])} networks, {len(about['views'])} views, {about['images']:,} images"
            )
            return (
                f"{done}, {about['stored']:,} were stored before: {of}.",
                _quarantine(about["quarantined"]),
            )


def _quarantine(reasons: Mapping[str, int]) -> str:
    if not reasons:
        return "Every image could be read."
    told = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
    return f"{sum(reasons.values()):,} images are in quarantine ({told}); nothing was computed from them."
