"""featstore backbones, strategies, recipes: what there is."""

from __future__ import annotations

import typer

from . import options
from .printing import print_json


def backbones(json: options.Json = False) -> None:
    """List the frozen networks: input size, dimension, cost, and whether their ImageNet weights are here."""
    from dataclasses import asdict

    from featstore.backbones import catalog
    from featstore.backbones.presence import whereabouts
    from featstore.report.plain import table

    rows = [catalog.row(name) for name in catalog.names()]
    if json:
        print_json([{**asdict(row), "weights": whereabouts(row)} for row in rows])
        return
    header = ["backbone", "input px", "dimension", "GFLOP/image", "weights", "in the paper"]
    cells = [
        [r.name, r.input_size, r.dimension, f"{r.gflops:.1f}", whereabouts(r), "yes" if r.in_paper else ""]
        for r in rows
    ]
    typer.echo(table(header, cells))


def strategies(json: options.Json = False) -> None:
    """List the fusion strategies: where they fuse, from how many backbones, and what they do."""
    from featstore import registry
    from featstore.report.plain import table

    package = "featstore.fusion.strategies"
    rows = {
        name: {**registry.constants(package, name), "summary": registry.summary(package, name)}
        for name in registry.names(package)
    }
    if json:
        print_json(rows)
        return
    cells = [[name, row["level"], row["min_blocks"], row["summary"]] for name, row in rows.items()]
    typer.echo(table(["strategy", "level", "backbones", "what it does"], cells))


def recipes(json: options.Json = False) -> None:
    """List the augmentation presets."""
    from featstore.images.recipe import PRESETS

    _print_pairs(dict(PRESETS), json)


def _print_pairs(pairs: dict[str, str], json: bool) -> None:
    from featstore.report.plain import table

    if json:
        print_json(pairs)
    else:
        typer.echo(table(None, list(pairs.items())))
