"""Findings as lines of text: in full where files are looked for, in brief beside scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.findings import ordered
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featstore.findings import Finding

WHERE = "docs/findings.md explains each code; featstore check DATA names the files."


def findings_text(found: Sequence[Finding]) -> str:
    """Findings, the gravest first: code, what was met, one example, what to do; accepted ones in one line."""
    known = ordered(found)
    blocks = [_block(finding) for finding in known if not finding.accepted]
    return "\n".join([*blocks, *_accepted(known)])


def findings_brief(found: Sequence[Finding]) -> str:
    """A line for each finding that bears on the scores, and one for all notes."""
    known = ordered(found)
    open_ones = [finding for finding in known if not finding.accepted]
    lines = [_line(finding) for finding in open_ones if finding.severity != "note"]
    notes = [f"{f.title} ({f.count})" for f in open_ones if f.severity == "note"]
    if notes:
        lines.append(f"Notes: {', '.join(notes)}.")
    lines += _accepted(known)
    return "\n".join([*lines, WHERE]) if lines else ""


def said(found: Sequence[Finding]) -> tuple[str, ...]:
    """Sentences for a report and a model card: errors and warnings, accepted ones too, without any path."""
    return tuple(
        f"{finding.title}: {finding.message}{' (Accepted.)' if finding.accepted else ''}"
        for finding in ordered(found)
        if finding.severity != "note"
    )


def _block(finding: Finding) -> str:
    lines = [_line(finding)]
    lines += [f"  for example {printable(example)}" for example in finding.examples[:1]]
    return "\n".join([*lines, f"  {finding.remedy}"])


def _line(finding: Finding) -> str:
    return f"{finding.severity.upper()} {finding.title}: {printable(finding.message)}"


def _accepted(found: Sequence[Finding]) -> list[str]:
    titles = [finding.title for finding in found if finding.accepted]
    return [f"Accepted: {', '.join(titles)}."] if titles else []
