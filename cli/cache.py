"""featstore cache: look at the store."""

from __future__ import annotations

from dataclasses import asdict

import typer

from . import options
from .printing import print_json, print_text

app = typer.Typer(no_args_is_help=True, help="Look at the store: ls, du, verify.")
FAILED = 4


@app.command("ls")
def ls(cache: options.Cache = None, json: options.Json = False) -> None:
    """List what is stored, a line per backbone and view."""
    from featstore.report.text import inventory_text
    from featstore.store.inventory import inventory

    entries = inventory(cache)
    if json:
        print_json([asdict(entry) for entry in entries])
    else:
        print_text(inventory_text(entries))


@app.command("du")
def du(cache: options.Cache = None, json: options.Json = False) -> None:
    """Sum the bytes by backbone."""
    from featstore.report.text import usage_text
    from featstore.store.inventory import usage

    sizes = usage(cache)
    if json:
        print_json(sizes)
    else:
        print_text(usage_text(sizes))


@app.command("verify")
def verify(cache: options.Cache = None, json: options.Json = False) -> None:
    """Read every shard: hash, structure, finite values. Changes nothing."""
    from featstore.report.text import verification_text
    from featstore.store.inventory import verify

    result = verify(cache)
    if json:
        print_json(asdict(result))
    else:
        print_text(verification_text(result))
    if result.bad:
        raise typer.Exit(FAILED)
