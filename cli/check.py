"""featstore check."""

from __future__ import annotations

import typer

from . import options
from .printing import finish, print_json, print_text, say

AUDIT_FAILED = 5


@options.reads_data
def command(
    data: options.Data,
    value_range: options.ValueRange = None,
    reading: options.Reading = options.PLAIN,
    cache: options.Cache = None,
    accept: options.Accept = None,
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
        **reading,
        cache=cache,
        accept=options.parse_codes(accept),
        progress=not json,
    )
    if json:
        print_json(result.to_json())
    else:
        print_text(check_text(result))
    if not result.no_error_found:
        raise typer.Exit(AUDIT_FAILED)
    finish(result.bad)
