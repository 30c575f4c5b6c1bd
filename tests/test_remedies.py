"""Every command and every flag in a text for users exists, in every command that can say it."""

import ast
import difflib
import inspect
import re

import advice
import pytest
import typer
from featstore_cli.main import app

ROOT = typer.main.get_command(app)
PAPER_SETS = "`featstore paper` has its own value for that option, a sound one"
PAPER_HAS = "`featstore paper` has extracted those very features the moment before, and names them all"
EXCEPTIONS = {
    ("paper",): {
        PAPER_SETS: [
            "featstore.evaluation.candidates:require_asked_so",
            "featstore.evaluation.crossval:draw_folds",
            "featstore.evaluation.crossval:refuse_unfit",
            "featstore.evaluation.crossval:_refuse_harmonising",
            "featstore.evaluation.candidates:require_memory",
            "featstore.splits:site_folds",
            "featstore.splits:_require_ranked",
            "featstore.splits:patient_folds",
            "featstore.api.compare:_with_covariates",
            "featstore.evaluation.findings:_chosen_at_edge",
            "featstore.api.fuse:PreviousRun.held_out",
            "featstore.api.fuse:refuse_contradiction",
            "featstore.api.fuse:read_previous_run",
            "featstore.api.fuse:_operating_point",
            "featstore.evaluation.leakage:require_unseen",
            "featstore.evaluation.abstention:require_alpha",
            "featstore.evaluation.abstention:set_aside",
            "featstore.evaluation.abstention:_require_patients",
            "featstore.evaluation.abstention:too_few",
            "featstore.evaluation.estimates:with_inner_folds",
            "featstore.evaluation.calibration:OperatingPointRequest.__post_init__",
            "featstore.evaluation.calibration:fit_operating_point",
            "featstore.evaluation.patients:require_unit",
            "featstore.evaluation.patients:patients_of",
            "featstore.evaluation.patients:_patients",
            "featstore.evaluation.candidates:_preset",
            "featstore.executors.dask:Dask.__init__",
            "featstore.executors.processes:Processes.__init__",
            "featstore.executors.serial:Serial.__init__",
            "featstore.errors:WorkerLostError.REMEDY",
            "featstore.api.extract:_views",
            "featstore.api.extract:worker_partition",
            "featstore.splits:group_folds",
            "featstore.splits:_too_many_folds_error",
            "featstore.splits:hold_out",
            "featstore.splits:own_split",
            "featstore.reporting.page.report:_omitted",
            "featstore.api.report:_formats",
            "featstore.api.report:_write_figures",
            "featstore.api.report:_write_figure",
            "featstore.api.report:read_dataset",
            "featstore.api.report:write_report",
        ],
        PAPER_HAS: [
            "featstore.backbones.weights:not_downloaded_error",
            "featstore.stored_features:_alternative",
            "featstore.matrix:_views",
            "featstore.matrix:_recipe_of",
            "featstore.matrix:_no_view",
            "featstore.stored_features:_remedy",
        ],
    },
    ("plan",): {
        "a plan chooses by --calibrate alone, and has no --subsets": [
            "featstore.evaluation.crossval:refuse_unfit",
            "featstore.evaluation.crossval:_refuse_harmonising",
        ],
    },
    ("moments",): {
        "it names the identity view itself, so nobody is asked for a recipe or seeds": [
            "featstore.matrix:_views",
            "featstore.matrix:_recipe_of",
            "featstore.matrix:_no_view",
            "featstore.stored_features:_remedy",
            "featstore_cli.options:parse_seeds",
        ],
    },
    ("fuse",): {
        "the number of heads in a file is looked at before": [
            "featstore.api.shared_heads:_require_one_kind",
        ],
        "it fits one model, so it never says what several processes need": [
            "featstore.evaluation.candidates:require_memory"
        ],
    },
    ("answers", "cache export", "fuse", "moments", "pack", "plan", "report"): {
        "they load features for one process": ["featstore.processes:_reserve"],
    },
    ("predict", "explain", "finetune", "cache drift", "report"): {
        "only `featstore extract --dry-run` and `featstore paper` fetch nothing": [
            "featstore.backbones.weights:not_downloaded_error",
        ],
    },
    ("check", "compare", "finetune", "fuse", "plan", "report", "split"): {
        "there only the process that reads foreign files can be lost, with a remedy of its own": [
            "featstore.errors:WorkerLostError.REMEDY",
        ],
    },
    ("predict", "explain", "finetune"): {
        "they name no cache, and write to none": ["featstore.store.paths:ELSEWHERE"],
    },
    ("predict", "explain", "export", "report", "share"): {
        "read from a run, where it becomes an error of the run": [
            "featstore.evaluation.calibration:OperatingPointRequest.__post_init__",
        ],
    },
    ("predict", "explain"): {
        "said of files that were listed and not decoded; decoding says `predict.UNDECLARED`": [
            "featstore.images.reading:REASONS",
        ],
    },
    ("cache gc", "report", "split"): {
        "listing files needs no range, and a report reads them with the range of its runs": [
            "featstore.images.reading:REASONS",
        ],
    },
    ("check", "report"): {
        "the number of folds is in range, and of the audit's errors the cause alone is told": [
            "featstore.splits:group_folds",
            "featstore.splits:_too_many_folds_error",
        ],
    },
    ("split",): {
        "the number of folds is looked at before": ["featstore.splits:group_folds"],
    },
    ("backbones", "doctor"): {
        "the listing says `not published` instead": ["featstore.backbones.weights:weights_file"],
    },
    ("answers",): {
        "nothing is chosen on training images": ["featstore.evaluation.leakage:require_unseen"],
        "it has no seeds": ["featstore_cli.options:parse_seeds"],
    },
    ("bench", "cache export"): {
        "one has its own word for it, the other no such option": ["featstore_cli.options:parse_seeds"],
    },
    ("report",): {
        "part of the command that makes a run again, which is never `report`": [
            "featstore.images.recipe:range_option",
        ],
    },
    ("export",): {
        "it reads no table, and refuses a model that asks for covariates": ["featstore.covariates:_column"],
    },
    ("pack", "answers"): {
        "it asks for the features of a run by name, says itself what to do without them, and shows no finding": [
            "featstore.findings:FS404",
            "featstore.images.reading:REASONS",
            "featstore.images.recipe:range_option",
            "featstore.matrix:_named",
            "featstore.matrix:_views",
            "featstore.matrix:_recipe_of",
            "featstore.matrix:_no_view",
            "featstore.stored_features:_complete",
            "featstore.stored_features:_never_stored_error",
            "featstore.stored_features:_alternative",
            "featstore.stored_features:imported_finding",
            "featstore.stored_features:_remedy",
        ],
    },
    ("cache export",): {
        "an export asks for one view, so none is left to choose": [
            "featstore.matrix:_views",
            "featstore.stored_features:_remedy",
        ],
    },
}
"""Command: reason: texts that the syntax trees let it say, and that it cannot say."""
LINES = {
    "featstore.stored_features:extract_command": ["extract"],
    "featstore.reporting.page.tables:_reproducing": ["paper"],
    "featstore.reporting.page.tables:_fusing": ["fuse"],
    "featstore.reporting.page.tables:_settings": ["fuse"],
    "featstore.reporting.page.tables:_comparing": ["compare"],
    "featstore.reporting.page.tables:_source": ["fuse", "compare"],
    "featstore.reporting.terminal.results:bench_text": ["extract"],
    "featstore.reporting.terminal.results:next_commands": ["extract", "fuse"],
}
"""Where whole command lines are put together, and of which commands."""


def leaves(command, name=()):
    if hasattr(command, "commands"):
        for own, inner in command.commands.items():
            yield from leaves(inner, (*name, own))
    else:
        yield " ".join(name), command


OTHERS = {"--xla"}
"""Beginnings of flags that are no command's: those of XLA, in an environment variable."""

COMMANDS = dict(leaves(ROOT))
EVERYWHERE = {"--help", *(flag for parameter in ROOT.params for flag in parameter.opts)}
FLAGS = {
    name: EVERYWHERE | {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    for name, command in COMMANDS.items()
}
GROUPS = {name.partition(" ")[0] for name in COMMANDS if " " in name}
NEVER_WRONG = {"demo", "replay"}
"""They give every option themselves: what is said about data and options, the demonstration cannot meet, and what a
fit refuses in a replay becomes an error of the pack, with a remedy of its own (`tests/exchange/test_pack.py`)."""


@pytest.fixture(scope="module")
def source():
    return advice.read()


@pytest.fixture(scope="module")
def sayers(source):
    """Commands that can say the texts of a node."""
    reached = {}
    for name, command in COMMANDS.items():
        function = inspect.unwrap(command.callback)
        for node in source.reach([f"{function.__module__}:{function.__qualname__}"]):
            reached.setdefault(node, set()).add(name)
    return {node: names - NEVER_WRONG for node, names in reached.items()}


def command_of(words):
    """Command that a command line names; None if there is none."""
    name = " ".join(words[:2]) if words and words[0] in GROUPS else "".join(words[:1])
    return name if name in COMMANDS else None


def named(text):
    """Command lines in a text: the command, or None, and the line."""
    for quoted in advice.QUOTED.findall(text):
        yield command_of(re.findall(r"[a-z]+", quoted)), quoted
    for found in advice.BARE.finditer(text):
        line = re.split(r"\n|[.;:)](?:\s|$)", text[found.start() :])[0]
        command = command_of([word.strip() for word in found.groups() if word])
        typed = re.match(r"featstore [a-z]+( [a-z]+)? +([A-Z]{3,}|--|…)", line) or (
            text == line and re.fullmatch(r"featstore [a-z]+( [a-z]+)?", line)
        )
        near = difflib.get_close_matches(found[1], [*COMMANDS, *GROUPS], 1, 0.8)
        if typed or command or near:
            yield command, line


def faults(text, sayers):
    """What is wrong with a text that `sayers` can say."""
    if text.startswith("pip install "):
        return
    lines = list(named(text))
    yield from (f"there is no command {line!r}" for command, line in lines if command is None)
    for command, line in lines:
        if wrong := set(advice.FLAG.findall(line)) - FLAGS.get(command, set(advice.FLAG.findall(line))):
            yield f"{command} has no {sorted(wrong)}"
    held = [FLAGS[command] for command, _ in lines if command]
    for flag in sorted(set(advice.FLAG.findall(text)) - OTHERS):
        if not any(flag in flags for flags in FLAGS.values()):
            yield f"no command has {flag}"
        elif not any(flag in flags for flags in held):
            without = sorted(name for name in sayers if flag not in FLAGS[name])
            if without:
                yield f"{flag} is not in {', '.join(without)}"


def spared(node):
    return {
        name
        for names, reasons in EXCEPTIONS.items()
        if any(node in nodes for nodes in reasons.values())
        for name in names
    }


def test_every_text_is_true_in_every_command_that_can_say_it(source, sayers):
    wrong = [
        f"{where}, line {line}: {fault}: {text[:300]!r}"
        for where, node in source.nodes.items()
        if where not in LINES
        for line, text in node.texts
        for fault in faults(text, sayers.get(where, set()) - spared(where))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_advice_is_out_of_reach(source, sayers):
    """What no command can say would be held against none: dead, or unseen by the syntax trees."""
    unseen = {
        where
        for where, node in source.nodes.items()
        if where not in sayers
        and any(advice.FLAG.search(text) or list(named(text)) for _, text in node.texts)
    }
    unseen = {where for where in unseen if not where.startswith("featstore_cli.main:")}
    assert unseen == {"featstore.images.recipe:summary"}, "called from Python only"


def test_every_exception_is_needed(source, sayers):
    for names, reasons in EXCEPTIONS.items():
        for node in (node for nodes in reasons.values() for node in nodes):
            texts = [text for _, text in source.nodes[node].texts]
            assert any(list(faults(text, set(names) & sayers[node])) for text in texts), node


@pytest.mark.parametrize("where", LINES)
def test_every_line_that_is_put_together_is_of_its_command(source, where):
    flags = {flag for _, text in source.nodes[where].texts for flag in advice.FLAG.findall(text)}
    assert flags
    for command in LINES[where]:
        own = flags - ({"--test-size", "--split-seed"} if command == "extract" else set())
        assert own <= FLAGS[command], command


def test_the_syntax_trees_reach_what_is_known_to_be_said(sayers):
    """Of each command something deep, through methods, plug-ins, constants and findings."""
    assert {"fuse", "compare"} <= sayers["featstore.findings:FS402"]
    assert "extract" in sayers["featstore.executors.dask:Dask.__init__"]
    assert {"check", "extract", "fuse", "predict"} <= sayers["featstore.images.csv_paths:Locator._absolute"]
    assert {"fuse", "compare"} <= sayers["featstore.fusion.strategies.knn:Knn"]
    assert {"fuse", "compare", "cache export"} <= sayers["featstore.stored_features:_never_stored_error"]
    assert "cache verify" in sayers["featstore.store.shard:REMEDY"]
    assert "bench" in sayers["featstore_cli.options:_numbers"]
    assert "check" not in sayers.get("featstore.stored_features:_never_stored_error", set())
    assert "extract" not in sayers["featstore.api.fuse:_operating_point"]


PLANT = '''
from featstore.errors import UsageError
HINT = "Give it anew: --range=0,1"
class Reader:
    TEXT = "Look with `featstore cache list`."
    def read(self):
        raise UsageError("Wrong.", f"Use --sensitivty {self.x}.")
    def unused(self):
        raise UsageError("Wrong.", "Use --folds 5.")
def command():
    """Docstrings may say --anything."""
    Reader().read()
    helper()
    print(Reader.TEXT)
def helper():
    raise UsageError("Wrong.", "Run `featstore extract DATA --folds 5` or " + HINT)
def elsewhere():
    raise UsageError("Wrong.", "Run featstore extarct DATA, or add --nested.")
'''


def test_a_bad_remedy_is_found():
    planted = advice.build({"plant": ast.parse(PLANT)})
    reached = planted.reach(["plant:command"])
    found = {
        (node, fault)
        for node in reached
        for _, text in planted.nodes[node].texts
        for fault in faults(text, {"predict", "fuse"})
    }
    assert found == {
        ("plant:HINT", "--range is not in predict"),
        ("plant:Reader.read", "no command has --sensitivty"),
        ("plant:Reader.TEXT", "there is no command 'cache list'"),
        ("plant:helper", "extract has no ['--folds']"),
        ("plant:helper", "--folds is not in fuse, predict"),
    }
    (text,) = (t for _, t in planted.nodes["plant:elsewhere"].texts if "extarct" in t)
    assert set(faults(text, {"fuse"})) == {
        "there is no command 'featstore extarct DATA, or add --nested'",
        "--nested is not in fuse",
    }
    assert "plant:Reader.unused" not in reached
