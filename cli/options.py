"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import ast
import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from featstore.errors import UsageError

from .printing import say

if TYPE_CHECKING:
    from featstore.api.config import Config

# Options, as annotated types

Data = Annotated[
    Path,
    typer.Argument(
        help="Folder (class/… or split/class/…), CSV or Parquet (path,label[,group][,split][,site]), .npz or .h5.",
        metavar="DATA",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        help="Columns of the table: path=filename,label=finding,group=patient_id; label=A,B if these hold 0 and 1.",
        metavar="NAME=COLUMN",
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Where the paths of the CSV begin; default its folder.", metavar="FOLDER", show_default=False
    ),
]
SiteTag = Annotated[
    str | None,
    typer.Option(help="Tag of DICOM files that names the site, such as Manufacturer.", metavar="TAG"),
]
Slices = Annotated[
    str | None,
    typer.Option(
        help="Slices of volumes (NIfTI, arrays): axial (default), coronal or sagittal; axial:every=4,range=25%-75%;"
        " axial:largest-lung.",
        metavar="AXIS[:WHICH]",
        show_default=False,
    ),
]
Covariates = Annotated[
    str | None,
    typer.Option(
        help="Columns of the table, such as age,sex, that compare and fuse take beside the networks.",
        metavar="A,B",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Table of the classes of a folder of DICOM, NIfTI or other images, by patient, study, series or file.",
        metavar="TABLE",
        show_default=False,
    ),
]
LabelsBy = Annotated[
    str | None,
    typer.Option(
        help="What a row of --labels is: patient, study, series or file; default by the names of its columns.",
        metavar="LEVEL",
        show_default=False,
    ),
]
Suffix = Annotated[
    str | None, typer.Option(help="Of paths of the CSV that have none, such as .png.", metavar="SUFFIX")
]
Backbones = Annotated[
    str | None,
    typer.Option(
        help="Names, with commas: Xception,MobileNetV2; ResNet50:conv4 ends at a layer; NAME=FILE.onnx[mean=…]"
        " is a file.",
        metavar="A,B",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        help="imagenet (default), random:SEED, or a file; repeat for more backbones.", metavar="NAME=CHOICE"
    ),
]
RunWeights = Annotated[
    list[str] | None,
    typer.Option(help="Where the run's own weights are, as for predict.", metavar="NAME=CHOICE"),
]
Preprocess = Annotated[str, typer.Option(help="official (each network's own) or rescale (1/255).")]
Precision = Annotated[
    str, typer.Option(help="float32, tf32 (GPUs), bfloat16 (where the machine has it) or float16 (GPUs).")
]
Engine = Annotated[
    str, typer.Option(help="What computes: tensorflow, jax, or auto, which is jax where JAX sees a GPU.")
]
StoredPreprocess = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        help="official or rescale; default that of the last extract of these images, else official.",
    ),
]
StoredPrecision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="float32, tf32, bfloat16 or float16; default that of the last extract of these images, else float32.",
    ),
]
StoredBackbones = Annotated[
    str | None,
    typer.Option(
        "--backbones",
        help="Names, with commas; default those of the last extract of these images, else all that are complete.",
        metavar="A,B",
    ),
]
StoredSeeds = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        help="Augmented views, such as 1-4; none for none; default those of the last extract, else all complete.",
    ),
]
Seeds = Annotated[str | None, typer.Option(help="Augmented views, such as 1-4 or 1,3,7; none for none.")]
ValueRange = Annotated[
    str | None,
    typer.Option("--range", help="In place of a window: black and white of deep images.", metavar="LOW,HIGH"),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        "--windows",
        help="Of CT: by name (lung, mediastinal, bone, brain), as level,width in HU, or file: each file's own."
        " Three (lung,mediastinal,bone) become three channels.",
        metavar="NAME|L,W",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder of the store; default $FEATSTORE_CACHE or ./cache.", show_default=False),
]
GroupPattern = Annotated[
    str | None,
    typer.Option(
        help="Regular expression on the relative path; its first group that matched names the patient."
    ),
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Follow links that lead out of the data folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
Positive = Annotated[
    str | None,
    typer.Option(
        help="Class that sensitivity is about; by default the one of two not called normal, negative or the like."
    ),
]
Unit = Annotated[
    str,
    typer.Option(
        help="What is scored: image, or group, where each patient counts once.", metavar="image|group"
    ),
]
Pool = Annotated[
    str | None,
    typer.Option(
        help="With --unit group, how a patient's images become one answer: mean-logit (default), mean, max, top-3 or"
        " noisy-or.",
        metavar="HOW",
        show_default=False,
    ),
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        help="temperature, platt, isotonic or (from 3 classes on) vector: probabilities to be taken at their word.",
        metavar="METHOD",
    ),
]
Sensitivity = Annotated[
    float | None,
    typer.Option(
        help="Share of the positive class to find, such as 0.95; chosen in training.", metavar="SHARE"
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        help="How sure --sensitivity must be reached on other patients, such as 0.95; without: half the time.",
        metavar="SHARE",
    ),
]
Abstain = Annotated[
    float | None,
    typer.Option(
        help='Error rate, such as 0.1, so that predict may say "not sure": of the new patients of a class at most'
        " this share gets a set of answers without it. Calibrated on patients that the model is not fitted on.",
        metavar="RATE",
    ),
]
NewVectors = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a store: vectors that are there are taken, new ones are kept, so that what was interrupted"
        " goes on. Without it nothing of the new images is kept.",
        metavar="FOLDER",
    ),
]
Primary = Annotated[
    str | None,
    typer.Option(
        help="Fusion of the primary question: is it better than every single network? Default concat_logreg, of all.",
        metavar="NAME[:A+B]",
    ),
]
Margin = Annotated[float, typer.Option(help="Difference in AUC that is too small to matter.")]
Folds = Annotated[
    str,
    typer.Option(
        help="Folds of the cross-validation, over whole groups; site, group: each site or patient left out once;"
        " split: the data set's own test images.",
        metavar="N|site|group|split",
    ),
]
Repeats = Annotated[
    int | None,
    typer.Option(
        help="Times to draw the folds; default 3 where fits are cheap (no networks trained), else 1.",
        show_default=False,
    ),
]
FoldSeed = Annotated[int, typer.Option(help="Seed of folds and resamples.")]
Harmonise = Annotated[
    str,
    typer.Option(
        help="With --folds site: none, or per-site for each site's own mean and deviation, of the one left out too.",
        metavar="none|per-site",
    ),
]
ViewPolicies = Annotated[
    str, typer.Option("--views", help="Training on views: identity, expand, average, sample, with commas.")
]
TestViews = Annotated[str, typer.Option(help="Testing on views: identity or average.")]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        help="Code of a finding that is known, such as FS101; it stays in the list. Repeat for more.",
        metavar="CODE",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there already.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Settings; default featstore.toml in DATA or beside it; none for none. Flags win.",
        metavar="FILE",
        show_default=False,
    ),
]


# The options of a help text, under headings

HEADINGS: Mapping[str, tuple[str, ...]] = {
    "Evaluation": (
        "heads", "own", "strategy", "strategies", "subsets", "positive", "class_name", "unit", "pool", "primary",
        "margin", "plan", "by", "ratios", "folds", "repeats", "seed", "paper_split", "sensitivity", "confidence",
        "calibrate", "preset", "settings", "init_from", "freeze_blocks", "test_size", "split_seed", "fold_seed",
        "harmonise", "training_seeds", "views", "test_views", "economics", "nested", "view_curve", "accept",
        "tolerance",
    ),
    "Training": ("epochs", "learning_rate", "patience", "unfreeze", "batch_size"),
    "Networks": ("backbone", "backbones", "weights", "recipe", "seeds", "precision", "preprocess", "engine"),
    "Data": (
        "data", "name", "features", "ignore", "rows", "labels", "labels_by", "columns", "covariates",
        "group_pattern", "root", "suffix",
        "window", "value_range", "slices", "site_tag", "follow_links", "images", "config",
    ),
    "Output": (
        "out", "layout", "overwrite", "write_config", "json", "csv", "details", "pairs", "with_images", "names",
        "figures", "formats", "dpi", "licence",
    ),
}  # fmt: skip
"""Options by heading, the most used first; what is in none comes last."""
MORE = "More"
FEW = 12
"""So many options stand under one heading."""
WIDEST = 26
"""Columns that the names of options take at most."""


VALUES = {
    "<str>": "TEXT",
    "<int>": "N",
    "<float>": "X",
    "<path>": "PATH",
    "<int range>": "N",
    "<float range>": "X",
}
KINDS_OF_VALUES = re.compile("|".join(map(re.escape, VALUES)))
"""What typer calls the values of options, and what people call them."""


EXAMPLES = {
    "abstain": "0.1", "accept": "FS101", "backbone": "MobileNetV2", "backbones": "Xception,MobileNetV2",
    "cache": "cache", "calibrate": "temperature", "class_name": "covid", "columns": "group=patient_id",
    "confidence": "0.95", "config": "featstore.toml", "covariates": "age,sex", "data": "DATA", "features": "'f*'",
    "figures": "figures", "folds": "5", "freeze_blocks": "Xception", "group_pattern": "'(p[0-9]+)'",
    "heads": "north.json,south.json", "ignore": "'meta*'", "images": "100", "init_from": "runs/mine",
    "labels": "labels.csv", "labels_by": "patient", "layout": "npz", "licence": "CC-BY-4.0", "memory": "2GB",
    "name": "north", "own": "runs/north", "plan": "plan.json", "pool": "mean-logit", "positive": "covid",
    "precision": "float32", "preprocess": "official", "preset": "paper", "primary": "concat_logreg",
    "ratios": "60/20/20", "recipe": "mild", "repeats": "3", "root": "images", "rows": "path",
    "scheduler": "tcp://HOST:8786", "seed": "1", "seeds": "1-4", "sensitivity": "0.95", "settings": "C=0.1",
    "site_tag": "Manufacturer", "slices": "axial:every=4", "suffix": ".png", "threads": "2", "unfreeze": "10",
    "value_range": "-1350,150", "view_curve": "concat_logreg", "weights": "Xception=random:1", "window": "lung",
    "workers": "2",
}  # fmt: skip
"""A value of each option that has no default, as a shell takes it; of any other the default is one."""
SLIP: Any = typer.BadParameter.__mro__[1]
"""What typer raises of a slip of the hand; it has a class of its own by that name, or that of click."""


def _told(slip: Any, parameter: Any) -> str:
    """What is wrong with the value of an option, in one sentence."""
    if type(slip).__name__ == "MissingParameter":
        return f"{parameter.opts[0]} is needed."
    if not isinstance(slip, typer.BadParameter):
        return f"{parameter.opts[0]} stands there without a value."
    why = slip.message.rstrip(".")
    return f"{parameter.opts[0]} cannot be that: {why[:1].lower()}{why[1:]}."


def example_of(parameter: Any) -> str:
    """An option with a value that it takes, such as ``--range=-1350,150``."""
    shown = parameter.metavar or "runs/mine"  # of a file or a folder, which may be called anything
    value = EXAMPLES.get(parameter.name, shown) if parameter.default is None else str(parameter.default)
    return f"{parameter.opts[0]}{'=' if value.startswith('-') else ' '}{value}"


class GroupedCommand(TyperCommand):
    """A command whose help has its options under headings, the most used first; names are those of the docs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line; a value that is missing or of another kind is met with an example."""
        try:
            return super().parse_args(ctx, args)
        except SLIP as slip:
            parameter = self._without_value(ctx, slip)
            if parameter is None:
                raise
            raise UsageError(_told(slip, parameter), f"Write for instance {example_of(parameter)}") from slip

    def _without_value(self, ctx: Any, slip: Any) -> Any:
        """The option that a slip is about; None of one that is not about a value."""
        if isinstance(slip, typer.BadParameter):
            found = slip.param
            return found if found is not None and found.param_type_name == "option" else None
        if type(slip).__name__ == "BadOptionUsage":
            named = (one for one in self.get_params(ctx) if slip.option_name in one.opts)
            return next((one for one in named if not getattr(one, "is_flag", False)), None)
        return None

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``[OPTIONS]`` and the arguments, as the docs write them, whatever typer makes of them."""
        arguments = [one for one in self.get_params(ctx) if one.param_type_name == "argument"]
        return ["[OPTIONS]", *(_written(one) if one.required else f"[{_written(one)}]" for one in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options, each in one column of names and one of what they do."""
        found = {parameter: parameter.get_help_record(ctx) for parameter in self.get_params(ctx)}
        rows = {parameter: record for parameter, record in found.items() if record is not None}
        is_long = sum(parameter.param_type_name == "option" for parameter in rows) > FEW
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        sections |= {heading: [] for heading in (*HEADINGS, MORE)} if is_long else {"Options": []}
        for parameter in sorted(rows, key=_place) if is_long else rows:
            heading = (_heading(parameter) or MORE) if is_long else "Options"
            is_option = parameter.param_type_name == "option"
            name, what = rows[parameter]
            shown = (
                KINDS_OF_VALUES.sub(lambda kind: VALUES[kind[0]], name) if is_option else _written(parameter)
            )
            sections[heading if is_option else "Arguments"].append((shown, what))
        if len(sections.get(MORE, [])) == 1:  # --help
            sections["Output"] += sections.pop(MORE)
        width = min(WIDEST, max(len(name) for records in sections.values() for name, _ in records))
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl([(name.ljust(width), what) for name, what in records], WIDEST)


def _written(argument: Any) -> str:
    """An argument as the docs write it: ``DATA``, or ``IMAGE...`` of which there may be several."""
    return f"{argument.metavar or argument.name.upper()}{'...' if argument.nargs != 1 else ''}"


def _heading(parameter: Any) -> str | None:
    if parameter.param_type_name != "option":
        return None
    return next((heading for heading, names in HEADINGS.items() if parameter.name in names), None)


def _place(parameter: Any) -> int:
    """Where an option stands under its heading; arguments and others stay in the order of the command."""
    heading = _heading(parameter)
    return -1 if heading is None else HEADINGS[heading].index(parameter.name)


Reading = dict[str, Any]
"""How DATA is read: what `reads_data` gathers for `featstore.images.scan.ScanOptions`."""
PLAIN: Reading = {}


# The options that say how DATA is read, and the settings that lie beside it


def reads_data(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in the place of its argument `reading`, the options that say how DATA is read.

    Whatever options were not given are then as the file of settings has them.
    """

    @functools.wraps(command)
    def gathering(ctx: typer.Context, **given: Any) -> None:
        from featstore.runs import config_in_use

        path = given.pop("config")
        given["columns"] = parse_columns(given["columns"])
        given["covariates"] = parse_names(given["covariates"])
        used: dict[str, Any] = {}
        config = _config(given, path)
        if config is not None:
            used = _used(ctx, command.__name__, config.values)
            told = ", ".join(name.replace("_", "-") for name in used)
            if used:
                say(str(ctx.info_name), f"{told} as in {config.path}", json=given.get("json", False))
        given |= used
        if "write_config" in given:
            given["config"] = path
        reading = {name: given.pop(name) for name in _READING}
        token = config_in_use.set(config.record([*used]) if config is not None and used else None)
        try:
            command(**given, reading=reading)
        except UsageError as error:
            if config is not None and used:
                error.remedy += f" Settings as in {config.path}: {told}."
            raise
        finally:
            config_in_use.reset(token)

    own = inspect.signature(command, eval_str=True)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    options = [
        inspect.Parameter(name, kind, default=default, annotation=annotation)
        for name, (annotation, default) in {**_READING, "config": (ConfigFile, None)}.items()
    ]
    context = inspect.Parameter("ctx", kind, annotation=typer.Context)
    parameters = [
        part
        for parameter in own.parameters.values()
        if parameter.name != "config"
        for part in (options if parameter.name == "reading" else [parameter])
    ]
    parameters = [context, *parameters]
    gathering.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    gathering.__annotations__ = {part.name: part.annotation for part in parameters}
    return gathering


def _config(given: Mapping[str, Any], path: Path | None) -> Config | None:
    """The file of settings of what a command reads.

    Raises
    ------
    UsageError
        If it reads several data sets that do not agree on how.
    """
    from featstore.api.config import NO_CONFIG, config_of

    read = given.get("data") or given.get("images") or []
    places = read if isinstance(read, list) else [read]
    if not places or (given.get("write_config") and path is not None and not path.exists()):
        return None
    configs = [config_of(place, path) for place in places]
    said = [{n: v for n, v in config.values.items() if n in given} if config else {} for config in configs]
    for place, values in zip(places, said, strict=True):
        if values != said[0]:
            raise UsageError(
                f"The settings of {places[0]} and {place} differ, and all that is given is read alike.",
                f"Name the settings for all: --config FILE; or none, --config {NO_CONFIG}, and give flags.",
            )
    return configs[0]


RIVALS = {"value_range": ("window",), "window": ("value_range",), "ratios": ("folds",)}
"""Flags beside which a setting does not count."""


def _used(ctx: typer.Context, command: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a command takes and that no flag has given, as the command line would give them."""
    from featstore.api.config import NOT_FOR

    open_ones = {
        name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "DEFAULT"
    }
    if ctx.params.get("plan") is not None:
        from featstore.api.compare import Planned

        open_ones -= {one.name for one in fields(Planned)}
    return {
        name: _as_given(name, value)
        for name, value in values.items()
        if name in open_ones - NOT_FOR.get(command, frozenset())
        and all(rival in open_ones for rival in RIVALS.get(name, ()) if rival in ctx.params)
    }


def _as_given(name: str, value: Any) -> Any:
    """A setting as typer would hand it over."""
    match name:
        case "columns" | "covariates" | "accept":
            return value
        case "weights":
            return [f"{network}={choice}" for network, choice in value.items()]
        case "seeds":
            return ",".join(map(str, value)) or "none"
        case "folds":
            return str(value)
    sign = "/" if name == "ratios" else ","
    return sign.join(map(str, value)) if isinstance(value, list | tuple) else value


_READING: dict[str, tuple[Any, Any]] = {
    "group_pattern": (GroupPattern, None),
    "columns": (Columns, None),
    "root": (Root, None),
    "suffix": (Suffix, None),
    "site_tag": (SiteTag, None),
    "slices": (Slices, None),
    "covariates": (Covariates, None),
    "labels": (Labels, None),
    "labels_by": (LabelsBy, None),
    "follow_links": (FollowLinks, False),
}
"""Annotation and default of each; the names are those of `featstore.images.scan.ScanOptions`."""


def reading_flags(reading: Reading) -> list[str]:
    """The flags that say the same of how DATA is read, for a command to be typed next."""
    flags: list[str] = []
    for name, value in reading.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            flags += [word for pair in value.items() for word in (option, "=".join(pair))]
        elif isinstance(value, list):
            flags += [option, ",".join(value)]
        elif value:
            flags += [option] if value is True else [option, str(value)]
    return flags


# Values of options, parsed


def parse_names(text: str | None) -> list[str] | None:
    """``A,B`` as a list; commas in brackets and in the path of a file, ``A=x,y.onnx[std=1],B``, part nothing."""
    if text is None:
        return None
    return [name for found in _NAME.finditer(text) if (name := found[0].strip())]


_NAME = re.compile(r"\s*[\w-]+=[^=\[\]]*?\.onnx(?:\[[^\]]*\])?(?=\s*(?:,|$))|(?:\[[^\]]*\]|[^,])+")
"""A file of one's own, ``NAME=FILE.onnx[SETTINGS]``, or whatever stands between two commas."""


def parse_codes(entries: list[str] | None) -> list[str]:
    """Codes of findings, several in one with commas."""
    return [code.strip() for entry in entries or [] for code in entry.split(",") if code.strip()]


def parse_folds(text: str) -> int | str:
    """A number of folds, or ``split``, ``site`` or ``group``."""
    if text in {"split", "site", "group"}:
        return text
    if not text.isdecimal():
        raise UsageError(
            f"--folds {text!r} is no number.",
            "Write for instance --folds 5; or --folds site, --folds group, --folds split.",
        )
    return int(text)


def parse_seeds(text: str | None, option: str = "--seeds", example: str = "1-4") -> list[int] | None:
    """``1-3,7`` as numbers; ``none`` is the empty list."""
    if text is None:
        return None
    if text == "none":
        return []
    return [seed for part in text.split(",") for seed in _numbers(part.strip(), option, example)]


def parse_range(text: str | None, window: str | None = None) -> tuple[float, ...] | None:
    """``LOW,HIGH`` of ``--range``, or what ``--window`` names, as two numbers or six."""
    if window is not None:
        from featstore.images.recipe import parse_window

        if text is not None:
            raise UsageError("--range and --window say the same.", "Leave one of them out.")
        return parse_window(window)
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not -math.inf < low < high < math.inf:
        raise UsageError(f"--range {text!r} is not LOW,HIGH.", "Write for instance --range=-1350,150.")
    return low, high


def parse_ratios(text: str | None) -> list[float] | None:
    """``60/20/20`` as numbers."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split("/")]
    except ValueError:
        raise UsageError(
            f"--ratios {text!r} is not A/B or A/B/C.", "Write for instance --ratios 60/20/20."
        ) from None


def parse_bytes(text: str, option: str) -> int:
    """``4GB``, ``900MB`` or a number of bytes."""
    number, unit = text.strip().upper().rstrip("B"), 1
    for letter, factor in {"G": 10**9, "M": 10**6, "K": 10**3}.items():
        if number.endswith(letter):
            number, unit = number[:-1], factor
    if not number.replace(".", "", 1).isdecimal() or float(number) <= 0:
        raise UsageError(f"{option} {text!r} is no number of bytes.", f"Write for instance {option} 4GB.")
    return int(float(number) * unit)


def parse_settings(entries: list[str] | None) -> dict[str, Any]:
    """``NAME=VALUE`` entries as a dict; a value that is no Python literal is text."""
    settings = {}
    for entry in entries or []:
        name, equals, value = entry.partition("=")
        if not (name and equals):
            raise UsageError(f"--set {entry!r} is not NAME=VALUE.", "Write for instance --set epochs=200.")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = value
    return settings


def parse_columns(entries: list[str] | None) -> dict[str, str] | None:
    """``NAME=COLUMN`` entries, several in one with commas, as a dict; a name of a column may have commas itself."""
    columns: dict[str, str] = {}
    for entry in entries or []:
        parts: list[str] = []
        for part in entry.split(","):
            parts = [*parts, part] if "=" in part or not parts else [*parts[:-1], f"{parts[-1]},{part}"]
        for part in parts:
            name, equals, column = part.partition("=")
            if not (name.strip() and equals):
                raise UsageError(
                    f"--columns {part!r} is not NAME=COLUMN.",
                    "Write for instance --columns group=patient_id.",
                )
            if columns.setdefault(name.strip(), column) != column:
                raise UsageError(f"--columns names two columns for {name.strip()}.", "Leave one of them out.")
    return columns or None


def parse_weights(entries: list[str] | None) -> dict[str, str]:
    """``NAME=CHOICE`` entries as a dict."""
    from featstore.backbones.weights import parse_weights_options

    return dict(parse_weights_options(entries or []))


def source(
    backbones: str | None,
    weights: list[str] | None,
    preprocess: str | None,
    precision: str | None,
    recipe: str | None,
    seeds: str | None,
    value_range: str | None,
    window: str | None,
    cache: Path | None,
    reading: Reading,
) -> Any:
    """Gather the options that say which stored features a command is about."""
    return {
        "backbones": parse_names(backbones),
        "weights": parse_weights(weights),
        "preprocess": preprocess,
        "precision": precision,
        "recipe": recipe,
        "seeds": parse_seeds(seeds),
        "value_range": parse_range(value_range, window),
        "cache": cache,
        **reading,
    }


MOST_VIEWS = 100_000
"""Seeds that a range may name."""


def _numbers(part: str, option: str, example: str) -> range:
    first, dash, last = part.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
        raise UsageError(
            f"{option} {part!r} is neither a number nor a range.", f"Write for instance {option} {example}."
        )
    found = range(int(first), int(last if dash else first) + 1)
    if len(found[: MOST_VIEWS + 1]) > MOST_VIEWS:
        raise UsageError(
            f"{option} {part!r} are more than {MOST_VIEWS:,}.", f"Write for instance {option} {example}."
        )
    return found
