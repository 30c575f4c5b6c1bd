"""Write ``docs/commands/<command>.md`` from what the commands say of themselves: ``make commands``.

The pages are kept with the sources, so that they can be read without building anything;
``tests/test_docs.py`` fails while they differ from ``--help``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import featstore

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).with_name("commands")
WIDTH = 78
"""Columns of a help text: what it is laid out for on a terminal of 80, whatever the terminal here."""
FUNCTIONS = {
    "featstore cache du": "usage",
    "featstore cache export": "export_features",
    "featstore cache import": "import_features",
    "featstore cache ls": "inventory",
    "featstore report": "write_report",
}
"""Public functions that are not named as their command."""


def pages() -> dict[str, str]:
    """Text of each page by file name; a command with commands of its own has them all on one page."""
    from featstore_cli.main import app
    from typer.main import get_command

    main = get_command(app)
    root = main.make_context("featstore", [], resilient_parsing=True, terminal_width=WIDTH)
    return {f"{name}.md": "\n".join(_sections(command, root)) for name, command in main.commands.items()}


def write(folder: Path = FOLDER) -> None:
    """Write every page, and delete those of commands that are gone."""
    folder.mkdir(exist_ok=True)
    current = pages()
    for old in folder.glob("*.md"):
        if old.name not in {*current, "index.md"}:
            old.unlink()
    for name, text in current.items():
        (folder / name).write_text(text, encoding="utf-8")


def _sections(command: Any, above: Any, level: int = 1) -> Iterator[str]:
    context = command.context_class(command, parent=above, info_name=command.name)
    path = context.command_path
    yield f"{'#' * level} {path}\n"
    yield f"```text\n$ {path} --help\n{command.get_help(context)}\n```\n"
    function = FUNCTIONS.get(path, command.name)
    if function in featstore.__all__:
        yield f"From Python: {{py:func}}`featstore.{function}`.\n"
    for part in getattr(command, "commands", {}).values():
        yield from _sections(part, context, level + 1)


if __name__ == "__main__":
    write()
