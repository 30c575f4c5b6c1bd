"""Entry point of the command line: the list of commands, and how an error is printed."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from copy import copy
from itertools import islice
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from featstore import processes, registry
from featstore.errors import FeatstoreError, InterruptionError, StoreError
from featstore.processes import progress_bars

from . import cache, evaluation, extraction, reporting
from .options import GroupedCommand
from .printing import error_columns, escape_unshowable

DEBUG, PLUGIN = "--debug", "--plugin"
WIDTH = 100
"""Columns of a help text on a terminal that has them, as of a screen: `featstore.tables.WIDTH`."""
SHOWN = 100
"""Characters of a path that nobody can have meant."""


class Commands(TyperGroup):
    """The commands; Ctrl-C and SIGTERM become an error like any other, with a cause and a remedy."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise InterruptionError from interrupt


def plugins_apart(arguments: list[str]) -> tuple[list[str], list[str]]:
    """`PLUGIN` and its values, which belong in front of the command, and the other words."""
    front: list[str] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == PLUGIN:
            front += [argument, *islice(remaining, 1)]
        elif argument.startswith(f"{PLUGIN}="):
            front.append(argument)
        else:
            rest.append(argument)
    return front, rest


def narrowed(group: typer.Typer, words: list[str]) -> typer.Typer:
    """The commands without those that `words` do not name: to build them all takes longer than many of them run.

    Where the first word is no command, all are kept, which the help lists, and a remedy guesses among.
    """
    commands = [command for command in group.registered_commands if command.name in words[:1]]
    groups = [copy(one) for one in group.registered_groups if one.name in words[:1]]
    if not commands and not groups:
        return group
    for one in groups:
        one.typer_instance = one.typer_instance and narrowed(one.typer_instance, words[1:])
    group = copy(group)
    group.registered_commands, group.registered_groups = commands, groups
    return group


class Application(typer.Typer):
    """The commands, of which it builds those that it is asked for."""

    def __call__(self, arguments: list[str], **options: Any) -> Any:
        """Run the command that the arguments name."""
        _, words = plugins_apart(arguments)
        return typer.Typer.__call__(narrowed(self, words), arguments, **options)


app = Application(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
)
app.command("demo", cls=GroupedCommand)(reporting.demo)
app.command("check", cls=GroupedCommand)(evaluation.check)
app.command("split", cls=GroupedCommand)(evaluation.split)
app.command("convert", cls=GroupedCommand)(extraction.convert)
app.command("extract", cls=GroupedCommand)(extraction.extract)
app.command("fuse", cls=GroupedCommand)(evaluation.fuse)
app.command("plan", cls=GroupedCommand)(evaluation.plan)
app.command("compare", cls=GroupedCommand)(evaluation.compare)
app.command("predict", cls=GroupedCommand)(evaluation.predict)
app.command("explain", cls=GroupedCommand)(evaluation.explain)
app.command("export", cls=GroupedCommand)(evaluation.export)
app.command("share", cls=GroupedCommand)(evaluation.share)
app.command("answers", cls=GroupedCommand)(evaluation.answers)
app.command("moments", cls=GroupedCommand)(evaluation.moments)
app.command("pack", cls=GroupedCommand)(evaluation.pack)
app.command("replay", cls=GroupedCommand)(evaluation.replay)
app.command("report", cls=GroupedCommand)(reporting.report)
app.command("paper", cls=GroupedCommand)(reporting.paper)
app.command("finetune", cls=GroupedCommand)(extraction.finetune)
app.command("bench", cls=GroupedCommand)(extraction.bench)
app.command("doctor", cls=GroupedCommand)(reporting.doctor)
app.add_typer(cache.app, name="cache")
app.command("backbones", cls=GroupedCommand)(reporting.backbones)
app.command("strategies", cls=GroupedCommand)(reporting.strategies)
app.command("recipes", cls=GroupedCommand)(reporting.recipes)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"featstore {version('featstore')}")
        raise typer.Exit


@app.callback()
def featstore(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            PLUGIN,
            help="Python file with strategies, executors, metrics, formats or networks of your own, whose code is"
            " run; repeat for more, or list them in $FEATSTORE_PLUGINS.",
            metavar="FILE.py",
        ),
    ] = None,
    _debug: Annotated[bool, typer.Option(DEBUG, help="Show a traceback when something fails.")] = False,
) -> None:
    """Extract once, fuse many times: cached features of frozen networks, fused and compared honestly.

    Exit codes: 0 done, 1 failed, 2 usage, 3 done with quarantined images, 4 store or disk, 5 the data
    audit failed, 130 interrupted (Ctrl-C or SIGTERM).
    """
    for place in plugin or ():
        registry.add_plugin(place)


def main() -> None:
    """Run the command line; an error is one line of cause and one of remedy, a traceback only with --debug.

    A signal ends it with `InterruptionError`, also before the command and behind it. Once it is said how the command
    has ended, no signal changes that.
    """
    escape_unshowable()
    debug = DEBUG in sys.argv
    try:
        processes.install_handlers()
        code = _run([argument for argument in sys.argv[1:] if argument != DEBUG], debug=debug)
        processes.settle(code)
    except KeyboardInterrupt:
        code = InterruptionError.exit_code
        processes.settle(code)
        _tell(InterruptionError(), debug=debug)
    sys.exit(code)


def _run(arguments: list[str], *, debug: bool) -> int:
    """Run a command, tell what ends it, and return the exit code."""
    plugins, words = plugins_apart(arguments)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable("featstore: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    try:
        with progress_bars(wanted="--json" not in words):
            app([*plugins, *words], prog_name="featstore")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code == InterruptionError.exit_code:  # typer heard the signal, and says nothing
            raise KeyboardInterrupt from end
        return code
    except FeatstoreError as error:
        return _tell(InterruptionError() if processes.was_requested() else error, debug=debug)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        return _tell_refused(error, debug=debug)
    except Exception as error:  # noqa: BLE001  # the last line of defence: no user should meet a bare traceback
        return _tell_unforeseen(error, debug=debug)
    return 0


def _tell_refused(error: OSError, *, debug: bool) -> int:
    if error.filename is None or error.strerror is None:
        return _tell_unforeseen(error, debug=debug)
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(error.filename)
    shown = where if len(where) <= SHOWN else f"{where[:SHOWN]}…"
    refused = StoreError(
        f"The system refuses {shown}: {error.strerror}.",
        "Check this path, and whether you may read and write there.",
    )
    return _tell(InterruptionError() if processes.was_requested() else refused, debug=debug)


def _tell_unforeseen(error: Exception, *, debug: bool) -> int:
    cause = f"{type(error).__name__}: {error}".partition("\n")[0]
    plugin = registry.plugin_at_fault(error)
    remedy = (
        "This is a defect of featstore; run again with --debug and report what it prints."
        if plugin is None
        else f"Correct {plugin}, the plug-in whose code raised this; --debug shows the line."
    )
    return _tell(
        InterruptionError() if processes.was_requested() else FeatstoreError(cause, remedy), debug=debug
    )


def _tell(error: FeatstoreError, *, debug: bool) -> int:
    """Print an error, and return its exit code."""
    from featstore.tables import printable, printable_lines, wrapped_error

    if debug:
        typer.echo(printable_lines(traceback.format_exc()), err=True)
    cause, remedy = printable(error.cause), printable(error.remedy)
    lead = "featstore: "
    if (width := error_columns()) is None:
        text = f"{lead}{cause}\n{' ' * len(lead)}{remedy}"
    else:
        text = f"{wrapped_error(cause, width, lead)}\n{wrapped_error(remedy, width, ' ' * len(lead))}"
    typer.echo(text, err=True)
    return error.exit_code


class Printable(logging.Formatter):
    """Log records on one line each, without control characters: they may quote what a stranger wrote."""

    def format(self, record: logging.LogRecord) -> str:
        """Line of a record."""
        from featstore.tables import printable_lines

        return printable_lines(super().format(record))
