"""featstore check."""

from __future__ import annotations

import typer

from . import options
from .printing import finish, print_json, print_text, say

AUDIT_FAILED = 5


def command(
    data: options.Data,
    value_range: options.ValueRange = None,
    group_pattern: options.GroupPattern = None,
    follow_links: options.FollowLinks = False,
    json: options.Json = False,
) -> None:
    """Audit a data set: duplicates, leaks, shortcuts.

    Also lists unreadable files, and how well the label is guessed from file sizes and grey levels alone.
    """
    from featstore.evaluation.check import check
    from featstore.report.terminal.text import check_text

    say("check", "reading the data set", json=json)
    result = check(
        data,
        value_range=options.parse_range(value_range),
        group_pattern=group_pattern,
        follow_links=follow_links,
        progress=not json,
    )
    if json:
        print_json(result.to_json())
    else:
        print_text(check_text(result))
    if not result.sound:
        raise typer.Exit(AUDIT_FAILED)
    finish(result.bad)
